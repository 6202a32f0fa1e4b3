"""What each step and block reads: by when it does, and what of it shows in results. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from paddock.pipelines.expressions import Reference, Value
from paddock.pipelines.model import StepNode
from paddock.pipelines.references import ANSWER_NAMES
from paddock.pipelines.times import TIME_NAMES
from paddock.steps import registry

from .bound import BoundBlock, BoundNode, BoundStep
from .plan_walks import blocks_of, nodes_of, steps_of


def read_by(*parts: Any) -> frozenset[Reference]:
    """Return what expressions, values and templates read; parts that are not there are None."""
    return frozenset().union(*[part.references for part in parts if part is not None])


def key_reads(block: BoundBlock) -> frozenset[Reference]:
    """Return what the keys of a block read, without its body."""
    return read_by(block.over, block.where, block.key, block.if_, block.returns)


@dataclass(frozen=True)
class StepReads:
    """What a step reads, by when it does."""

    parameters: frozenset[Reference]
    """Before its answer is there, but for lists of labels."""
    lists: frozenset[Reference]
    """Lists of labels."""
    answer: frozenset[Reference]
    """Once its answer is there."""

    @classmethod
    def of(cls, step: StepNode) -> StepReads:
        names_key = registry.facts_of(step.uses).names
        names = step.params.data.get(names_key)
        renamed = TIME_NAMES & names.keys() if isinstance(names, dict) else ()
        parameters = set(read_by(step.if_))
        read = read_by(step.params, *step.files.values())
        parameters.update(path for path in read if path[0] not in renamed)
        for place, made in step.params.expressions.items():
            if place[0] == names_key:  # the values of these names are filled in from outside
                parameters |= made.references
        if step.returns is not None:
            own_outputs = ("steps", step.id)
            parameters.update(path for path in step.returns.references if path[:2] != own_outputs)
        lists, answer = set[Reference](), set[Reference]()
        if step.reply is not None:
            for check in step.reply.checks.values():
                parameters.update(path for path in check.references if path[0] not in ANSWER_NAMES)
            lists |= read_by(*(choice.source for choice in step.reply.choices))
            answer |= read_by(step.reply.evidence)
        for spec in (step.escalate, step.review):
            if spec is not None:
                answer |= spec.when.references
        return cls(frozenset(parameters), frozenset(lists), frozenset(answer))

    @property
    def whole(self) -> frozenset[Reference]:
        return self.parameters | self.lists | self.answer

    def named(self, names: frozenset[str]) -> frozenset[Reference]:
        """Return what is read of these names: inputs, steps, loop variables."""
        return frozenset(path for path in self.whole if path[0] in names)

    def after_answer(self, names: frozenset[str]) -> frozenset[Reference]:
        """Return those of the references that are only read once the step's answer is there."""
        return self.named(names) - self.parameters - self.lists

    def only_lists(self, names: frozenset[str]) -> frozenset[Reference]:
        """Return what only lists of labels read, of which a change makes few items stale."""
        return self.named(names) - self.parameters - self.answer


LOOP_ATTRIBUTES = ("index", "index0", "first", "last", "length")


def with_reads(block: BoundBlock, names: frozenset[str]) -> BoundBlock:
    """Return a block that knows what is read within it; `names` are those that exist around it."""
    nodes = [*nodes_of(block.body)]
    steps = [node for node in nodes if isinstance(node, BoundStep)]
    nested = [node for node in nodes if isinstance(node, BoundBlock)]
    keys_of_nested = frozenset[Reference]().union(*map(key_reads, nested))
    for_items = read_by(block.key, block.returns) | keys_of_nested
    read = for_items.union(*(step.references for step in steps))
    references = read_by(block.over, block.if_)
    references |= {path for path in _from_outside(block, read) if path[0] in names}
    references |= {path for path in read_by(block.where) if path[0] != block.var}
    # Within a nested block `loop` is that one's.
    direct = read_by(block.returns)
    for node in block.body:
        if isinstance(node, BoundStep):
            direct |= node.references
        else:
            direct |= read_by(node.over, node.where, node.key, node.if_)
    of_loop = _attributes("loop", direct)
    shown = key_reads(block) | keys_of_nested
    results = {node.body[-1].id for node in (block, *nested) if node.returns is None and node.body}
    for step in steps:
        shown |= step.shown
        own_paths = ("steps", step.id), ("steps", step.id, "path")
        is_used = step.id in results or step.returns is not None
        if step.facts.shows_path and (is_used or any(path[:3] in own_paths for path in read)):
            shown |= step.references  # the file's path, too, which is in its output
    return replace(
        block,
        references=references,
        item_attributes=_attributes(block.var, read),
        loop_attributes=frozenset(LOOP_ATTRIBUTES) if of_loop is None else of_loop,
        shown=shown,
    )


def outer_references(block: BoundBlock) -> frozenset[Reference]:
    """Return what the body of a block reads from outside of it; its own list is not among it."""
    nested = [*blocks_of(block.body)]
    read = read_by(block.returns).union(
        *(step.references - step.of_lists for step in steps_of(block.body)), *map(key_reads, nested)
    )
    of_items = {"loop", block.var, *(node.var for node in nested)}
    return frozenset(path for path in _from_outside(block, read) if path[0] not in of_items)


def _from_outside(block: BoundBlock, read: Iterable[Reference]) -> Iterator[Reference]:
    """Yield what of this is of no step or block within the block."""
    within = {("steps", node.id) for node in nodes_of(block.body)}
    return (path for path in read if path[:2] not in within)


def _attributes(var: str, read: Iterable[Reference]) -> frozenset[str] | None:
    """Name the attributes of a variable that are read; None: all of it."""
    found = {path[1:2] for path in read if path[0] == var}
    return None if () in found else frozenset().union(*found)


_ONE_VALUE = re.compile(r"\{\{[^{}]*\}\}\Z")


def shown_references(step: StepNode, reads: StepReads) -> frozenset[Reference]:
    """Return what a step reads, but for the paths of files of which it takes the content alone."""
    names = registry.facts_of(step.uses).contents
    files = {name: step.params.data[name] for name in names if name in step.params.data}
    lists = [value if isinstance(value, list) else [value] for value in files.values()]
    texts = [text for values in lists for text in values]
    if not all(isinstance(text, str) and _ONE_VALUE.match(text) for text in texts):
        return reads.whole
    given = {name: value for name, value in step.params.data.items() if name not in files}
    besides = reads.whole - step.params.references
    return Value.scan(given)[0].references.union(besides)


def follows_time(nodes: Iterable[BoundNode], node: BoundNode) -> bool:
    """Return whether a node reads `now` or `today`, or blocks that do, as to choose their items."""
    reads = {other.id: other.references for other in nodes}
    found, left = set[str](), {node.id}
    while left:
        found |= left
        paths = [path for name in left for path in reads.get(name, ())]
        if any(path[0] in TIME_NAMES for path in paths):
            return True
        left = {path[1] for path in paths if path[0] == "steps" and path[1:]} - found
    return False
