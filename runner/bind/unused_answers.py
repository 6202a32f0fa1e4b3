"""Which calls a run can do without: those whose answers only skipped steps would use.

    - {id: kind, uses: chat, with: {prompt: Which kind of document is it?}}
    - {id: summary, uses: chat, with: {prompt: Summarise it.}}
    - {id: out, if: steps.kind.output == 'bill', uses: files.write, with: {text: …steps.summary…}}

The only consumer of `summary` is `out`, and `kind` tells whether that is skipped (`known_by` of
`summary`): `summary` is done behind `kind`, and not where `out` is skipped. So it is with each step
that only asks, where what its consumers' conditions read can be done before it. Steps that have
effects, whose answers a person reviews, or that a result reads are always done, as are the blocks
at the top.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from paddock.engine.system.records import Struct, replace
from paddock.pipelines.expressions import Value, steps_read
from paddock.pipelines.plan import all_before

from .bound import BoundBlock, BoundNode
from .plan_walks import all_steps, only_reads


class _Placed(Struct):
    """A node of one level, and what its place there tells. Blocks are levels of their own."""

    node: BoundNode
    waits_for: frozenset[str]
    """The nodes of the level that it needs."""
    done_before: frozenset[str]
    """What is done before it in any case; at the top, where nodes run together, what it needs."""
    may_be_skipped: bool
    can_go_earlier: bool
    """Whether it may be done earlier, but not before an effect: like all that it needs, it changes
    nothing and asks no model."""
    n_effects: int
    """How many nodes up to this one have effects; 0 at the top, where no order is promised."""


def mark_unused(
    nodes: Iterable[BoundNode],
    edges: Mapping[str, frozenset[str]],
    returns: Value | None,
    *,
    is_top: bool = True,
) -> tuple[BoundNode, ...]:
    """Return the nodes of one level with their `consumers`, each behind what these are known by.

    `returns`: the result of this level; None: it is that of the last node.
    """
    level: dict[str, _Placed] = {}
    for node in nodes:
        if isinstance(node, BoundBlock):
            body = mark_unused(node.body, edges, node.returns, is_top=False)
            node = replace(node, body=body)
        level[node.id] = _placed(node, edges, level, is_top=is_top)
    # Which answers may be unused: from the last, whose consumers may be unused themselves
    in_result = frozenset[str]() if returns is None else steps_read(returns.references)
    used = {
        name: steps_read(entry.node.reads.all) | entry.node.needs for name, entry in level.items()
    }
    for name, entry in reversed([*level.items()]):
        if name not in in_result and _only_asks(entry.node, is_top=is_top):
            consumers = tuple(level[other].node for other in used if name in used[other])
            known_by = _known_by(consumers, entry, level)
            if known_by is not None:
                entry.node = replace(entry.node, consumers=consumers, known_by=known_by)
    # Their order: that of the file, but each behind what its consumers are known by
    ordered: dict[str, BoundNode] = {}

    def add(name: str) -> None:
        before = level[name].waits_for | level[name].node.known_by
        for earlier in level:
            if earlier in before and earlier not in ordered:
                add(earlier)
        ordered.setdefault(name, level[name].node)

    for name in level:
        add(name)
    return tuple(ordered.values())


def _placed(
    node: BoundNode, edges: Mapping[str, frozenset[str]], level: dict[str, _Placed], *, is_top: bool
) -> _Placed:
    waits_for = edges.get(node.id, frozenset()) & level.keys()
    needed = [level[name] for name in waits_for]
    steps = [step for step in all_steps([node]) if step.inner is None]
    has_effects = not all(map(only_reads, steps))
    n_effects = next((entry.n_effects for entry in reversed(level.values())), 0)
    return _Placed(
        node=node,
        waits_for=waits_for,
        done_before=all_before(edges, node.id) if is_top else frozenset(level),
        may_be_skipped=node.if_ is not None or any(entry.may_be_skipped for entry in needed),
        can_go_earlier=not has_effects
        and all(entry.can_go_earlier for entry in needed)
        and not any(step.kind.roles for step in steps),
        n_effects=n_effects + (has_effects and not is_top),
    )


def _only_asks(node: BoundNode, *, is_top: bool) -> bool:
    if is_top and (isinstance(node, BoundBlock) or node.inner is not None):
        return False  # its items are what the run is about
    steps = [step for step in all_steps([node]) if step.inner is None]
    return any(step.kind.roles for step in steps) and all(
        only_reads(step) and step.review is None and not any(step.facts.tools(step.written))
        for step in steps
    )


def _known_by(
    consumers: Iterable[BoundNode], asking: _Placed, level: Mapping[str, _Placed]
) -> frozenset[str] | None:
    """Return the nodes that tell, before a step asks, whether all of its consumers are skipped.

    None, so that it is done in any case:

    1. One is never skipped: it has no `if`, reads nothing that may be skipped, and is no unused
       answer itself.
    2. Whether one is skipped is known only later.
    3. There are none.
    """
    ready = asking.done_before | {
        name
        for name, entry in level.items()
        if entry.can_go_earlier and entry.n_effects == asking.n_effects
    }
    skippable = {name for name in ready if level[name].may_be_skipped}
    known: set[str] = set()
    for node in consumers:
        condition = () if node.if_ is None else steps_read(node.if_.references) & level.keys()
        skipped = steps_read(node.reads.all) & skippable
        is_unused = bool(node.consumers) and node.known_by <= ready
        if node.if_ is None and not skipped and not is_unused:
            return None  # 1
        if not ready.issuperset(condition):
            return None  # 2
        known |= {*condition, *skipped, *(node.known_by if is_unused else ())}
    return frozenset(known) if consumers else None  # 3
