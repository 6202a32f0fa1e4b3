"""What each step and block reads: by when it does, and what of it shows in results. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from paddock.pipelines.expressions import Reference, Value
from paddock.pipelines.model import StepNode as WrittenStep
from paddock.pipelines.references import ANSWER_NAMES
from paddock.pipelines.times import TIME_NAMES
from paddock.steps import registry

from .bound import BoundBlock, BoundStep, nodes_of, read_by


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
    def of(cls, step: WrittenStep) -> StepReads:
        names = step.params.data.get("vars")
        own = TIME_NAMES & names.keys() if isinstance(names, dict) else ()
        parameters = set(read_by(step.if_))
        read = read_by(step.params, *step.files.values())
        parameters.update(path for path in read if path[0] not in own)
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
    inner = [node for node in nodes if isinstance(node, BoundBlock)]
    of_inner = [node.own_reads for node in inner]
    own_values, of_list = read_by(block.key, block.returns), read_by(block.over, block.if_)
    read = own_values.union(*of_inner, *(step.references for step in steps))
    own = {("steps", node.id) for node in nodes}
    outside = {path for path in read if path[0] in names and path[:2] not in own}
    outside |= {path for path in read_by(block.where) if path[0] != block.var}
    # Within a nested block `loop` is that one's.
    direct = set(read_by(block.returns))
    for node in block.body:
        if isinstance(node, BoundStep):
            direct |= node.references
        else:
            direct |= read_by(node.over, node.where, node.key, node.if_)
    of_loop = _attributes("loop", direct)
    shown = block.own_reads.union(*of_inner)
    results = {node.body[-1].id for node in (block, *inner) if node.returns is None and node.body}
    for step in steps:
        shown |= step.shown
        own_paths = ("steps", step.id), ("steps", step.id, "path")
        is_used = step.id in results or step.returns is not None
        if step.facts.shows_path and (is_used or any(path[:3] in own_paths for path in read)):
            shown |= step.references  # the file's path, too, which is in its output
    return replace(
        block,
        references=of_list | outside,
        item_attributes=_attributes(block.var, read),
        loop_attributes=frozenset(LOOP_ATTRIBUTES) if of_loop is None else of_loop,
        shown=shown,
    )


def _attributes(var: str, read: Iterable[Reference]) -> frozenset[str] | None:
    """Name the attributes of a variable that are read; None: all of it."""
    found = {path[1:2] for path in read if path[0] == var}
    return None if () in found else frozenset().union(*found)


_ONE_VALUE = re.compile(r"\{\{[^{}]*\}\}\Z")


def shown_references(step: WrittenStep, reads: StepReads) -> frozenset[Reference]:
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
