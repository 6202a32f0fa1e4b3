"""Dependency graph of a pipeline: edges, order of execution, cycles.

Edges come from literal `steps.<id>` references and from `needs`. The runner's binding checks which
outputs a step has.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path as FilePath

from paddock.engine.system.records import SelectiveFields, Struct, replace

from .errors import Fault
from .expressions import Path
from .model import Block, Node, Pipeline, parse_pipeline
from .references import (
    BASE_NAMES,
    LOOP_NAMES,
    STEP_NAMES,
    ReferenceUse,
    unknown_name,
    unknown_step,
    uses_in,
    uses_of,
)
from .validation import FaultCollector
from .yaml_source import parse_yaml, read_yaml


class Plan(SelectiveFields, Struct, frozen=True):
    uncompared = ("faults",)

    pipeline: Pipeline
    nodes: tuple[Node, ...]
    """The top level in order of execution; bodies are ordered too."""
    edges: Mapping[str, frozenset[str]]
    """For each step and block, those of its level that it depends on."""
    uses: tuple[ReferenceUse, ...] = ()
    faults: tuple[Fault, ...] = ()


def all_before(edges: Mapping[str, frozenset[str]], name: str) -> frozenset[str]:
    found = frozenset[str]()
    waiting = [name]
    while waiting:
        new = edges.get(waiting.pop(), frozenset()) - found
        found |= new
        waiting += new
    return found


def read_plan(path: FilePath, text: str | None = None) -> Plan:
    """Read a file as far as it can be read; binding it reports every fault at once.

    `text` is what it holds, where that was read before.

    Raises:
        PipelineError: it cannot be read as YAML, or is no mapping.
    """
    document = read_yaml(path) if text is None else parse_yaml(text, str(path))
    return plan_with_faults(parse_pipeline(document))


def plan_with_faults(pipeline: Pipeline) -> Plan:
    graph = DependencyGraph(pipeline)
    nodes = graph.ordered(pipeline.steps)
    return Plan(pipeline, nodes, graph.edges, tuple(graph.uses), graph.checks.faults)


class _PlanLevel(Struct, frozen=True):
    nodes: Mapping[str, Node]
    block: str | None = None
    outer: _PlanLevel | None = None


class DependencyGraph:
    def __init__(self, pipeline: Pipeline) -> None:
        self.edges: dict[str, frozenset[str]] = {}
        self.uses: list[ReferenceUse] = []
        self._pipeline = pipeline
        self._homes: dict[str, str] = {}
        self.checks = FaultCollector(pipeline.document)
        self._waits: dict[str, set[str]] = {node.id: set() for node in pipeline.nodes()}
        for node in pipeline.nodes():
            if isinstance(node, Block):
                self._homes |= {inner.id: node.id for inner in node.body}
        top = _PlanLevel({node.id: node for node in pipeline.steps})
        self._level(top, BASE_NAMES)
        if pipeline.returns is not None:
            for use in uses_in(pipeline.returns, ("returns",), BASE_NAMES):
                self._resolve(use, top, None)
        for text in pipeline.elsewhere:
            for use in uses_in(text.text, text.at, text.names):
                if (found := unknown_name(use, pipeline)) is not None:
                    self.checks.add(use.at, *found)

    def ordered(self, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        """Sort one level and its bodies by dependency; else in the order of the file."""
        here = {node.id for node in nodes}
        done: list[Node] = []
        ids: set[str] = set()
        remaining = {node.id: node for node in nodes}
        while remaining:
            waiting = remaining.values()
            ready = next((node for node in waiting if self._waits[node.id] & here <= ids), None)
            if ready is None:
                self._cycle(remaining)
                ready = next(iter(waiting))
                self._waits[ready.id] = set()
            del remaining[ready.id]
            ids.add(ready.id)
            self.edges[ready.id] = frozenset(self._waits[ready.id])
            if isinstance(ready, Block):
                ready = replace(ready, body=self.ordered(ready.body))
            done.append(ready)
        return tuple(done)

    def _level(self, level: _PlanLevel, names: frozenset[str]) -> None:
        for node in level.nodes.values():
            own = names | STEP_NAMES if self._pipeline.secrets else names
            for use in uses_of(node, names, own):
                self._resolve(use, level, node)
            for index, step_id in enumerate(node.needs):
                at: Path = (*node.at, "needs", index)
                self._resolve(ReferenceUse(at, ("steps", step_id), names), level, node)
            if isinstance(node, Block):
                body = _PlanLevel({inner.id: inner for inner in node.body}, node.id, level)
                inside = names | {node.var} | LOOP_NAMES
                self._level(body, inside)
                if node.returns is not None:
                    for use in uses_in(node.returns, (*node.at, "returns"), inside):
                        self._resolve(use, body, None)

    def _resolve(self, use: ReferenceUse, level: _PlanLevel, node: Node | None) -> None:
        self.uses.append(use)
        if use.reference[0] != "steps":
            if (found := unknown_name(use, self._pipeline)) is not None:
                self.checks.add(use.at, *found)
            return
        if len(use.reference) == 1:
            what = "`steps` alone names no step"
            self.checks.add(use.at, what, "Write `steps.<id>.<output>`.")
            return
        name, reader = use.reference[1], node.id if node else None
        ids: list[str] = []
        around: _PlanLevel | None = level
        while around is not None:
            if name in around.nodes:
                if reader is not None:
                    self._waits[reader].add(name)
                return
            if name == around.block:
                what = f"step '{name}' is the block around this reference"
                self.checks.add(use.at, what, "Its results exist once all its items are done.")
                return
            ids += [step_id for step_id in around.nodes if not step_id.startswith("(")]
            reader, around = around.block, around.outer
        self.checks.add(use.at, *unknown_step(name, self._homes.get(name), ids))

    def _cycle(self, by_id: Mapping[str, Node]) -> None:
        trail = [next(iter(by_id))]
        while True:
            ahead = next(step_id for step_id in sorted(self._waits[trail[-1]]) if step_id in by_id)
            if ahead in trail:
                break
            trail.append(ahead)
        circle = trail[trail.index(ahead) :]
        first = by_id[circle[0]]
        what = f"step '{circle[0]}' reads its own outputs."
        if len(circle) > 1:
            what = f"these steps depend on each other: {' → '.join((*circle, circle[0]))}."
        remedy = "Remove one of the references or `needs`."
        self.checks.include([Fault(what, remedy, first.mark)])
