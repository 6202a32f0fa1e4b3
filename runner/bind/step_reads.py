"""What each step and block reads, and its spec: parts of a ledger key. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from paddock.engine.system.text import canonical_json, ordered_json
from paddock.pipelines.expressions import Reference, Value
from paddock.pipelines.model import Block
from paddock.pipelines.model import StepNode as WrittenStep
from paddock.pipelines.references import ANSWER_NAMES
from paddock.pipelines.times import TIME_NAMES
from paddock.steps import registry

from . import reply as replies
from .bound import BoundBlock, BoundStep, nodes_of


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
        parameters = set(_read_by(step.if_))
        read = _read_by(step.params, *step.files.values())
        parameters.update(path for path in read if path[0] not in own)
        if step.returns is not None:
            own_outputs = ("steps", step.id)
            parameters.update(path for path in step.returns.references if path[:2] != own_outputs)
        lists, answer = set[Reference](), set[Reference]()
        if step.reply is not None:
            for check in step.reply.checks.values():
                parameters.update(path for path in check.references if path[0] not in ANSWER_NAMES)
            lists |= _read_by(*(choice.source for choice in step.reply.choices))
            answer |= _read_by(step.reply.evidence)
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


def _read_by(*parts: Any) -> frozenset[Reference]:
    """Return what expressions, values and templates read; parts that are not there are None."""
    return frozenset().union(*[part.references for part in parts if part is not None])


LOOP_ATTRIBUTES = ("index", "index0", "first", "last", "length")


def with_reads(block: BoundBlock, names: frozenset[str]) -> BoundBlock:
    """Return a block that knows what is read within it; `names` are those that exist around it."""
    nodes = [*nodes_of(block.body)]
    steps = [node for node in nodes if isinstance(node, BoundStep)]
    inner = [node for node in nodes if isinstance(node, BoundBlock)]
    of_inner = [_read_by(node.over, node.where, node.if_, node.key, node.returns) for node in inner]
    own_values, of_list = _read_by(block.key, block.returns), _read_by(block.over, block.if_)
    read = own_values.union(*of_inner, *(step.references for step in steps))
    own = {("steps", node.id) for node in nodes}
    outside = {path for path in read if path[0] in names and path[:2] not in own}
    outside |= {path for path in _read_by(block.where) if path[0] != block.var}
    # Within a nested block `loop` is that one's.
    direct = _read_by(block.returns).union(
        *(
            node.references
            if isinstance(node, BoundStep)
            else _read_by(node.over, node.where, node.key, node.if_)
            for node in block.body
        )
    )
    of_loop = _attributes("loop", direct)
    shown = own_values.union(of_list, _read_by(block.where), *of_inner)
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


def step_spec(step: WrittenStep, servers: Any = None) -> str:
    """Return the canonical spec of a step: what decides its result, with template files' texts.

    Names within a value keep their order where it may show: in a table, a prompt, an answer.
    `servers` is how the MCP servers are started or reached whose tools it names.
    """
    written = {
        "uses": registry.own_name(step.uses),
        "with": _by_name(step.written),
        "if": step.if_.source if step.if_ else None,
        "returns": step.returns.data if step.returns else None,
    }
    if step.escalate is not None:
        written["escalate"] = step.escalate.when.source
        if step.escalate.also is not None:
            written["escalate_also"] = step.escalate.also
    if step.review is not None:
        written["review"] = step.review.when.source
        if step.review.also is not None:
            written["also"] = step.review.also
    if step.reply is not None:  # a spec without it stays as it was
        written["reply"] = _by_name(replies.reply_spec(step.reply))
    if servers is not None:
        written["servers"] = json.loads(canonical_json(servers))
    return ordered_json(_by_name(written))


_NAMES = ("args", "env", "inputs", "params", "vars")
"""Parameters that are mappings of names, whose order shows nowhere."""


def _by_name(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping in the order of its names, and of those of its `_NAMES`."""
    return {
        name: _by_name(value) if name in _NAMES and isinstance(value, dict) else value
        for name, value in sorted(written.items())
    }


def block_spec(block: Block) -> str:
    written = {
        "for_each": f"{block.var} in {block.over.source}",
        "key": block.key.source if block.key else None,
        "if": block.if_.source if block.if_ else None,
        "returns": block.returns.data if block.returns else None,
    }
    if block.where is not None:  # a spec without it stays as it was
        written["where"] = block.where.source
    return ordered_json(_by_name(written))
