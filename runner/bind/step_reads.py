"""What each step and block reads, and its spec: parts of a ledger key. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddock.engine.system.text import canonical_json, ordered_json
from paddock.pipelines.expressions import Reference, Value
from paddock.pipelines.model import Block, Node
from paddock.pipelines.model import StepNode as WrittenStep
from paddock.pipelines.references import ANSWER_NAMES
from paddock.pipelines.times import TIME_NAMES
from paddock.steps import registry

from . import reply as replies


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


def references_within(block: Block) -> frozenset[Reference]:
    """Return what is read within a block: for each item, not by its own list."""
    found = _read_by(block.key, block.returns)
    for node in _nodes_within(block):
        if isinstance(node, Block):
            found |= _read_by(node.over, node.where, node.if_, node.key, node.returns)
        else:
            found |= StepReads.of(node).whole
    return found


def _nodes_within(block: Block) -> Iterator[Node]:
    for node in block.body:
        yield node
        if isinstance(node, Block):
            yield from _nodes_within(node)


LOOP_ATTRIBUTES = ("index", "index0", "first", "last", "length")


def loop_attributes(block: Block) -> frozenset[str]:
    """Name what is read of a block's own `loop`; within a nested block that is the nested one's."""
    found = _read_by(block.returns)
    for node in block.body:
        if isinstance(node, Block):
            found |= _read_by(node.over, node.where, node.key, node.if_)
        else:
            found |= StepReads.of(node).whole
    read = item_attributes("loop", found)
    return frozenset(LOOP_ATTRIBUTES) if read is None else read


def references_outside(
    block: Block, inside: frozenset[Reference], names: frozenset[str]
) -> frozenset[Reference]:
    own = {("steps", node.id) for node in _nodes_within(block)}
    read = {path for path in inside if path[0] in names and path[:2] not in own}
    of_where = {path for path in _read_by(block.where) if path[0] != block.var}
    return _read_by(block.over, block.if_) | read | of_where


def item_attributes(var: str, inside: frozenset[Reference]) -> frozenset[str] | None:
    """Name the attributes of the loop variable that are read; None: all of it."""
    read = {path[1:2] for path in inside if path[0] == var}
    return None if () in read else frozenset().union(*read)


_ONE_VALUE = re.compile(r"\{\{[^{}]*\}\}\Z")


def shown_references(step: WrittenStep) -> frozenset[Reference]:
    """Return what a step reads, but for the paths of files of which it takes the content alone."""
    names = registry.facts_of(step.uses).contents
    files = {name: step.params.data[name] for name in names if name in step.params.data}
    lists = [value if isinstance(value, list) else [value] for value in files.values()]
    texts = [text for values in lists for text in values]
    if not all(isinstance(text, str) and _ONE_VALUE.match(text) for text in texts):
        return StepReads.of(step).whole
    given = {name: value for name, value in step.params.data.items() if name not in files}
    besides = StepReads.of(step).whole - step.params.references
    return Value.scan(given)[0].references.union(besides)


def shown_within(block: Block) -> frozenset[Reference]:
    """Return what is read within a block, but for paths of files whose content alone counts."""
    read = references_within(block)
    nodes = [block, *_nodes_within(block)]
    blocks = [node for node in nodes if isinstance(node, Block)]
    hidden, shown = set[Reference](), set[Reference]()
    for node in nodes:
        if isinstance(node, Block):
            shown |= _read_by(node.over, node.where, node.if_, node.key, node.returns)
            continue
        whole, of_step = StepReads.of(node).whole, shown_references(node)
        hidden |= whole - of_step
        shown |= of_step
        if registry.facts_of(node.uses).shows_path and _shows_its_path(node, blocks, read):
            shown |= whole
    return (read - hidden) | shown


def _shows_its_path(step: WrittenStep, blocks: Sequence[Block], read: frozenset[Reference]) -> bool:
    """Return whether the output `path` of a step that reads a file is used."""
    own = ("steps", step.id)
    is_read = any(path[:2] == own and path[2:3] in ((), ("path",)) for path in read)
    is_result = any(
        block.returns is None and block.body[-1:] and block.body[-1].id == step.id
        for block in blocks
    )
    return is_read or is_result or step.returns is not None


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
