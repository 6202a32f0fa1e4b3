"""A search in a store that the same pipeline fills must wait for the step that fills it.

No reference shows that order, since both name a folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from paddock.pipelines.errors import Fault
from paddock.pipelines.model import Block, Node, StepNode
from paddock.pipelines.plan import Plan
from paddock.steps.registry import facts_of


def store_order_faults(plan: Plan) -> Iterator[Fault]:
    """Name every search that should wait; those in the block that fills a store are left alone."""
    fillers = [(node, store) for node in plan.nodes for _, store in _stores(node, "fills")]
    for node in plan.nodes:
        for step, store in _stores(node, "searches"):
            for filler, filled in fillers:
                if filler.id == node.id or filled != store:
                    continue
                if not _waits_for(plan.edges, node.id, filler.id, set()) and not _waits_for(
                    plan.edges, filler.id, node.id, set()
                ):
                    at = (*step.at, "with", facts_of(step.uses).searches)
                    yield Fault(
                        f"'{node.id}' searches the store '{store}', which '{filler.id}' fills, "
                        f"but does not wait for it.",
                        f"Add `needs: [{filler.id}]` to '{node.id}'.",
                        plan.pipeline.document.mark(at),
                    )


def _stores(node: Node, fact: Literal["fills", "searches"]) -> Iterator[tuple[StepNode, str]]:
    """Yield the steps of a node that name a store in the parameter of this fact, each with it."""
    if isinstance(node, Block):
        for inner in node.body:
            yield from _stores(inner, fact)
    else:
        name = getattr(facts_of(node.uses), fact)
        if isinstance(store := node.params.data.get(name), str):
            yield node, store


def _waits_for(
    edges: Mapping[str, frozenset[str]], later: str, earlier: str, seen: set[str]
) -> bool:
    before = edges.get(later, frozenset()) - seen
    seen |= before
    return earlier in before or any(_waits_for(edges, step, earlier, seen) for step in before)
