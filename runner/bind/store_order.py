"""A search in a store that the same pipeline fills must wait for the step that fills it.

No reference shows that order, since both name a folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from paddock.pipelines.errors import Fault
from paddock.pipelines.model import Block, Node, StepNode
from paddock.pipelines.plan import Plan

FILLS, SEARCHES = "embed", "search"


def store_order_faults(plan: Plan) -> Iterator[Fault]:
    """Name every search that should wait; those in the block that fills a store are left alone."""
    fillers = [(node, step) for node in plan.nodes for step in _with_store(node, FILLS)]
    for node in plan.nodes:
        for step in _with_store(node, SEARCHES):
            for filler, filling in fillers:
                if filler.id == node.id or _store_name(filling) != _store_name(step):
                    continue
                if not _waits_for(plan.edges, node.id, filler.id, set()) and not _waits_for(
                    plan.edges, filler.id, node.id, set()
                ):
                    yield Fault(
                        f"'{node.id}' searches the store '{_store_name(step)}', which "
                        f"'{filler.id}' fills, but does not wait for it.",
                        f"Add `needs: [{filler.id}]` to '{node.id}'.",
                        plan.pipeline.document.mark((*step.at, "with", "store")),
                    )


def _with_store(node: Node, uses: str) -> Iterator[StepNode]:
    if isinstance(node, Block):
        for inner in node.body:
            yield from _with_store(inner, uses)
    elif node.uses == uses and isinstance(_store_name(node), str):
        yield node


def _store_name(step: StepNode) -> object:
    return step.params.data.get("store")


def _waits_for(
    edges: Mapping[str, frozenset[str]], later: str, earlier: str, seen: set[str]
) -> bool:
    before = edges.get(later, frozenset()) - seen
    seen |= before
    return earlier in before or any(_waits_for(edges, step, earlier, seen) for step in before)
