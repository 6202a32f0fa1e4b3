"""Who searches a store that the same pipeline fills, and does not wait until it is filled. Pure.

No reference shows that order: both name a folder. Without `needs`, what is found would depend on
what happened to be written by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from paddock.pipelines.errors import Fault
from paddock.pipelines.plan import Plan
from paddock.pipelines.tree import Block, Node, Step

FILLS, SEARCHES = "embed", "search"


def faults(plan: Plan) -> Iterator[Fault]:
    """Name every search that should wait; those in the block that fills a store are left alone."""
    fillers = [(node, step) for node in plan.nodes for step in _with_store(node, FILLS)]
    for node in plan.nodes:
        for step in _with_store(node, SEARCHES):
            for filler, filling in fillers:
                if filler.id == node.id or _store(filling) != _store(step):
                    continue
                if not _waits(plan.edges, node.id, filler.id, set()) and not _waits(
                    plan.edges, filler.id, node.id, set()
                ):
                    yield _fault(plan, node, step, filler)


def _fault(plan: Plan, node: Node, step: Step, filler: Node) -> Fault:
    what = f"'{node.id}' searches the store '{_store(step)}', which '{filler.id}' fills, "
    return Fault(
        f"{what}but does not wait for it.",
        f"Add `needs: [{filler.id}]` to '{node.id}'.",
        plan.pipeline.document.mark((*step.at, "with", "store")),
    )


def _with_store(node: Node, uses: str) -> Iterator[Step]:
    if isinstance(node, Block):
        for inner in node.body:
            yield from _with_store(inner, uses)
    elif node.uses == uses and isinstance(_store(node), str):
        yield node


def _store(step: Step) -> object:
    return step.params.data.get("store")


def _waits(edges: Mapping[str, frozenset[str]], later: str, earlier: str, seen: set[str]) -> bool:
    """Tell whether one node waits for another, by whatever way."""
    before = edges.get(later, frozenset()) - seen
    seen |= before
    return earlier in before or any(_waits(edges, one, earlier, seen) for one in before)
