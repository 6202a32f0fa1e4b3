"""Dependency graph of a pipeline: edges, order of execution, cycles.

Edges come from literal `steps.<id>` references and from `needs`. The runner's binding checks which
outputs a step has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from .errors import Fault, PipelineError, did_you_mean
from .expressions import Path, Reference, Value
from .model import Block, Node, Pipeline, ReplySpec

BASE_NAMES = frozenset(("inputs", "steps"))
"""Names that every expression sees."""
STEP_NAMES = frozenset(("secrets",))
"""Names that only a step's parameters and its `if` see: their values are not stored."""

LOOP_NAMES = frozenset(("loop",))
"""Names in a block besides its item: the position in the list, as in Jinja."""

ANSWER_NAMES = frozenset(("output", "text", "evidence"))
"""Names in a `check` of an answer: its value by the schema, its text, and where it was found."""


REVIEW_NAMES = ANSWER_NAMES | {"confidence"}
"""Names in `review.when`: those of a check, and the probabilities of the answer's fields."""


@dataclass(frozen=True, slots=True)
class ReferenceUse:
    """One use of a reference. `names` are known at that place."""

    at: Path
    reference: Reference
    names: frozenset[str]
    is_open: bool = False
    """The step may add names of its own; `runner.bind` checks those."""


@dataclass(frozen=True)
class Plan:
    """A pipeline in order of execution. `faults` is empty in what `plan` returns."""

    pipeline: Pipeline
    nodes: tuple[Node, ...]
    """The top level in order of execution; bodies are ordered too."""
    edges: Mapping[str, frozenset[str]]
    """For each step and block, those of its level that it depends on."""
    uses: tuple[ReferenceUse, ...] = ()
    """Every use of a reference."""
    faults: tuple[Fault, ...] = field(default=(), compare=False)


def plan(pipeline: Pipeline) -> Plan:
    """Return the dependency graph and the order of execution.

    Raises:
        PipelineError: unknown ids and names, reaching into a block, cycles; all at once.
    """
    made = plan_with_faults(pipeline)
    if made.faults:
        raise PipelineError(made.faults)
    return made


def plan_with_faults(pipeline: Pipeline) -> Plan:
    """Return edges and order as far as possible; faults are in the plan's `faults`."""
    graph = DependencyGraph(pipeline)
    nodes = graph.ordered(pipeline.steps)
    return Plan(pipeline, nodes, graph.edges, tuple(graph.uses), graph.faults())


@dataclass(frozen=True, slots=True)
class _PlanLevel:
    """Nodes of one level, and the level around them."""

    nodes: Mapping[str, Node]
    block: str | None = None
    outer: _PlanLevel | None = None

    def around(self) -> Iterator[_PlanLevel]:
        """Yield this level and those around it, the nearest first."""
        level: _PlanLevel | None = self
        while level is not None:
            yield level
            level = level.outer


class DependencyGraph:
    """Collects edges and faults, level by level."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.edges: dict[str, frozenset[str]] = {}
        self.uses: list[ReferenceUse] = []
        self._pipeline = pipeline
        self._homes: dict[str, str] = {}
        self._found: dict[tuple[Path, str], Fault] = {}
        self._waits: dict[str, set[str]] = {node.id: set() for node in pipeline.nodes()}
        for node in pipeline.nodes():
            if isinstance(node, Block):
                self._homes |= {inner.id: node.id for inner in node.body}
        top = _PlanLevel({node.id: node for node in pipeline.steps})
        self._level(top, BASE_NAMES)
        if pipeline.returns is not None:
            for use in _uses(pipeline.returns, ("returns",), BASE_NAMES):
                self._resolve(use, top, None)
        for text in pipeline.elsewhere:
            for use in _uses(text.text, text.at, text.names):
                self._name(use)

    def faults(self) -> tuple[Fault, ...]:
        return tuple(self._found.values())

    def ordered(self, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        """Sort one level and its bodies by dependency; else in the order of the file."""
        here = {node.id for node in nodes}
        done: list[Node] = []
        ids: set[str] = set()
        left = {node.id: node for node in nodes}
        while left:
            waiting = left.values()
            ready = next((one for one in waiting if self._waits[one.id] & here <= ids), None)
            if ready is None:
                self._cycle(left)
                ready = next(iter(waiting))
                self._waits[ready.id] = set()
            del left[ready.id]
            ids.add(ready.id)
            self.edges[ready.id] = frozenset(self._waits[ready.id])
            if isinstance(ready, Block):
                ready = replace(ready, body=self.ordered(ready.body))
            done.append(ready)
        return tuple(done)

    def _level(self, level: _PlanLevel, names: frozenset[str]) -> None:
        for node in level.nodes.values():
            own = names | STEP_NAMES if self._pipeline.secrets else names
            for use in _uses_of(node, names, own):
                self._resolve(use, level, node)
            for index, step_id in enumerate(node.needs):
                at: Path = (*node.at, "needs", index)
                self._resolve(ReferenceUse(at, ("steps", step_id), names), level, node)
            if isinstance(node, Block):
                body = _PlanLevel({inner.id: inner for inner in node.body}, node.id, level)
                inside = names | {node.var} | LOOP_NAMES
                self._level(body, inside)
                if node.returns is not None:
                    for use in _uses(node.returns, (*node.at, "returns"), inside):
                        self._resolve(use, body, None)

    def _resolve(self, use: ReferenceUse, level: _PlanLevel, node: Node | None) -> None:
        """Check a reference; where it names a step, add the edge."""
        self.uses.append(use)
        if use.reference[0] != "steps":
            self._name(use)
        elif len(use.reference) == 1:
            what = "`steps` alone names no step"
            self._fault(use, what, "Write `steps.<id>.<output>`.")
        else:
            self._edge(use, level, node)

    def _edge(self, use: ReferenceUse, level: _PlanLevel, node: Node | None) -> None:
        wanted, reader = use.reference[1], node.id if node else None
        for around in level.around():
            if wanted in around.nodes:
                if reader is not None:
                    self._waits[reader].add(wanted)
                return
            if wanted == around.block:
                what = f"step '{wanted}' is the block around this reference"
                self._fault(use, what, "Its results exist once all its items are done.")
                return
            reader = around.block
        self._unknown(use, level)

    def _unknown(self, use: ReferenceUse, level: _PlanLevel) -> None:
        wanted = use.reference[1]
        home = self._homes.get(wanted)
        if home is not None:
            what = f"step '{wanted}' runs for each item of '{home}' and is not known outside"
            shown = f"`steps.{home}.results`" if not home.startswith("(") else "the block's results"
            remedy = f"Read {shown}: a list of the `returns` of each item."
            if home.startswith("("):
                remedy = "Give the block an `id` and read its `results`."
            self._fault(use, what, remedy)
            return
        ids = [one for around in level.around() for one in around.nodes if not one.startswith("(")]
        self._fault(use, f"there is no step '{wanted}'", did_you_mean(wanted, ids))

    def _name(self, use: ReferenceUse) -> None:
        """Check the first name of a reference, and that an input is declared."""
        root = use.reference[0]
        if root not in use.names:
            if root == "secrets" and self._pipeline.secrets:
                remedy = "Secrets are read under `with` and `if`, in `pool.key`, and in `on`."
                self._fault(use, "a secret cannot be read here", remedy)
            elif root == "secrets" and not use.is_open:
                self._secret(use)
            elif not use.is_open:
                self._fault(
                    use, f"'{root}' is not known here", did_you_mean(root, sorted(use.names))
                )
        elif root == "inputs" and len(use.reference) > 1:
            name = use.reference[1]
            if name not in self._pipeline.inputs:
                remedy = did_you_mean(name, self._pipeline.inputs)
                remedy = remedy if self._pipeline.inputs else "Declare it under `inputs`."
                self._fault(use, f"there is no input '{name}'", remedy)
        elif root == "secrets":
            self._secret(use)

    def _secret(self, use: ReferenceUse) -> None:
        declared = self._pipeline.secrets
        if len(use.reference) == 1:
            self._fault(use, "`secrets` alone names no secret", "Write `secrets.<name>`.")
        elif use.reference[1] not in declared:
            name = use.reference[1]
            remedy = did_you_mean(name, declared) if declared else "Declare it under `secrets`."
            self._fault(use, f"there is no secret '{name}'", remedy)
        elif _is_command_line(use.at):
            self._fault(
                use,
                f"every user of this machine can read a command line, so secret "
                f"'{use.reference[1]}' cannot stand in one",
                "Give it in a variable of `env`, or have the command read it from a file.",
            )

    def _cycle(self, by_id: Mapping[str, Node]) -> None:
        """Report one cycle among nodes that depend on each other."""
        trail = [next(iter(by_id))]
        while True:
            ahead = next(one for one in sorted(self._waits[trail[-1]]) if one in by_id)
            if ahead in trail:
                break
            trail.append(ahead)
        circle = trail[trail.index(ahead) :]
        first = by_id[circle[0]]
        if len(circle) == 1:
            what = f"step '{circle[0]}' reads its own outputs."
        else:
            what = f"these steps depend on each other: {' → '.join((*circle, circle[0]))}."
        fault = Fault(what, "Remove one of the references or `needs`.", first.mark)
        self._found[(first.at, what)] = fault

    def _fault(self, use: ReferenceUse, message: str, remedy: str) -> None:
        fault = Fault(f"{message}.", remedy, self._pipeline.mark(use.at))
        self._found.setdefault((use.at, message), fault)


def _uses_of(node: Node, names: frozenset[str], own: frozenset[str]) -> Iterator[ReferenceUse]:
    """Yield what a node's own keys read, without its body; `own`: names under `with` and `if`."""
    if node.if_ is not None:
        yield from _reads(node.if_.reads, (*node.at, "if"), own)
    if isinstance(node, Block):
        yield from _reads(node.over.reads, (*node.at, "for_each"), names)
        for name, one in (("where", node.where), ("key", node.key)):
            if one is not None:
                yield from _reads(one.reads, (*node.at, name), names | {node.var})
        return
    for path, references in node.params.reads().items():
        at = (*node.at, "with", *path)
        yield from _reads(references, at, own, is_open=len(path) == 1)
    for name, template in node.files.items():
        at = (*node.at, "with", name, "file")
        yield from _reads(template.reads, at, own, is_open=True)
    if node.returns is not None:
        for use in _uses(node.returns, (*node.at, "returns"), names):
            if use.reference[:2] != ("steps", node.id):
                yield use
    if node.reply is not None:
        yield from _uses_of_reply(node.reply, (*node.at, "reply"), names)
    if node.review is not None:
        at = (*node.at, "review", "when")
        yield from _reads(node.review.when.references, at, names | REVIEW_NAMES)


def _is_command_line(at: Path) -> bool:
    """Return whether a text becomes words of a command line.

    >>> [_is_command_line(one) for one in (("steps", 0, "with", "command", 2),
    ...  ("steps", 0, "with", "env", "KEY"), ("mcpServers", "files", "args", 0))]
    [True, False, True]
    """
    match at:
        case ("mcpServers", _, *rest):
            return "command" in rest or "args" in rest
        case ("on", "notify", *rest):
            return "command" in rest
    return ("with", "command") in pairwise(at)


def _uses_of_reply(reply: ReplySpec, at: Path, names: frozenset[str]) -> Iterator[ReferenceUse]:
    for index, check in reply.checks.items():
        yield from _reads(check.references, (*at, "check", index), names | ANSWER_NAMES)
    if reply.evidence is not None:
        yield from _reads(reply.evidence.references, (*at, "evidence"), names)
    for choice in reply.choices:
        yield from _reads(choice.source.reads, (*at, "schema", *choice.at, "choose"), names)


def _uses(value: Value, at: Path, names: frozenset[str]) -> Iterator[ReferenceUse]:
    for path, references in value.reads().items():
        yield from _reads(references, (*at, *path), names)


def _reads(
    references: frozenset[Reference], at: Path, names: frozenset[str], *, is_open: bool = False
) -> Iterator[ReferenceUse]:
    for reference in sorted(references):
        yield ReferenceUse(at, reference, names, is_open)
