"""Which calls a run can do without: those whose answers only skipped steps would use.

A step that only asks is not done where all of its consumers are skipped and that is known before:
what their conditions read is moved in front of it. Steps that have effects, whose answers a person
reviews, or that a result reads are always done, as are the blocks at the top.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from paddock.pipelines.expressions import Reference, Value

from .bound import BoundBlock, BoundNode
from .plan_walks import all_steps, only_reads


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
    level, marked = _Level(is_top), dict[str, BoundNode]()
    for node in nodes:
        if isinstance(node, BoundBlock):
            body = mark_unused(node.body, edges, node.returns, is_top=False)
            node = replace(node, body=body)
        level.add(node, edges.get(node.id, frozenset()))
    in_result = frozenset[str]() if returns is None else _steps(returns.references)
    used = {name: _steps(node.references) | node.needs for name, node in level.nodes.items()}
    for name, node in reversed([*level.nodes.items()]):
        if name not in in_result and level.only_asks(node):
            consumers = tuple(level.nodes[other] for other in used if name in used[other])
            known_by = level.known_by(consumers, name)
            if known_by is not None:
                level.nodes[name] = replace(node, consumers=consumers, known_by=known_by)

    def place(name: str) -> None:
        before = level.before[name] | level.nodes[name].known_by
        for earlier in level.nodes:  # else in the order of the file
            if earlier in before and earlier not in marked:
                place(earlier)
        marked.setdefault(name, level.nodes[name])

    for name in level.nodes:
        place(name)
    return tuple(marked.values())


@dataclass
class _Level:
    is_top: bool
    nodes: dict[str, BoundNode] = field(default_factory=dict)
    before: dict[str, frozenset[str]] = field(default_factory=dict)
    """By node, what of the level it waits for."""
    done_before: dict[str, frozenset[str]] = field(default_factory=dict)
    """By node, what is done before it: at the top, where nodes run together, what it needs."""
    free: dict[str, int] = field(default_factory=dict)
    """What may be done earlier: it changes nothing and needs no model; behind how many effects."""
    may_skip: set[str] = field(default_factory=set)
    n_effects: int = 0
    effects_before: dict[str, int] = field(default_factory=dict)

    def add(self, node: BoundNode, edges: frozenset[str]) -> None:
        name, before = node.id, edges & self.nodes.keys()
        earlier = before.union(*(self.done_before[n] for n in before))
        self.done_before[name] = earlier if self.is_top else frozenset(self.nodes)
        self.nodes[name], self.before[name] = node, before
        if node.if_ is not None or before & self.may_skip:
            self.may_skip.add(name)
        steps = [step for step in all_steps([node]) if step.inner is None]
        if not all(map(only_reads, steps)):
            self.n_effects += not self.is_top  # where nodes run together, no order is promised
        elif before <= self.free.keys() and not any(step.kind.roles for step in steps):
            self.free[name] = self.n_effects
        self.effects_before[name] = self.n_effects

    def only_asks(self, node: BoundNode) -> bool:
        if self.is_top and (isinstance(node, BoundBlock) or node.inner is not None):
            return False  # its items are what the run is about
        steps = [step for step in all_steps([node]) if step.inner is None]
        return any(step.kind.roles for step in steps) and all(
            only_reads(step) and step.review is None and "tools" not in step.written
            for step in steps
        )

    def known_by(self, consumers: Iterable[BoundNode], name: str) -> frozenset[str] | None:
        """Return by which nodes it is known before this one whether all consumers are skipped.

        None: there are none, one is never skipped, or that is known only later.
        """
        n_before = self.effects_before[name]
        free = {other for other, n in self.free.items() if n == n_before}
        known, is_any, ready = frozenset[str](), False, self.done_before[name] | free
        for node in consumers:
            condition = () if node.if_ is None else _steps(node.if_.references) & self.nodes.keys()
            skipped = _steps(node.references) & self.may_skip & ready
            behind = node.known_by if node.consumers and node.known_by <= ready else None
            is_never_skipped = node.if_ is None and behind is None and not skipped
            if is_never_skipped or not ready.issuperset(condition):
                return None
            known, is_any = known.union(condition, skipped, behind or ()), True
        return known if is_any else None


def _steps(references: frozenset[Reference]) -> frozenset[str]:
    return frozenset(path[1] for path in references if path[0] == "steps" and len(path) > 1)
