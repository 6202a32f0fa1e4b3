"""What each step and block reads, and its spec: parts of a ledger key. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from paddock.engine.system.text import canonical_json, ordered_json
from paddock.pipelines.expressions import Reference, Value
from paddock.pipelines.model import Block
from paddock.pipelines.model import StepNode as WrittenStep
from paddock.pipelines.references import ANSWER_NAMES
from paddock.pipelines.times import TIME_NAMES
from paddock.steps import registry

from . import reply as replies
from .reply import BoundReply


def _step_references(step: WrittenStep) -> Iterator[Reference]:
    names = step.params.data.get("vars")
    own = TIME_NAMES & names.keys() if isinstance(names, dict) else ()
    read = step.params.references.union(*(text.references for text in step.files.values()))
    yield from (path for path in read if path[0] not in own)
    yield from step.if_.references if step.if_ else ()
    for reference in step.returns.references if step.returns else ():
        if reference[:2] != ("steps", step.id):
            yield reference
    for check in step.reply.checks.values() if step.reply else ():
        yield from (path for path in check.references if path[0] not in ANSWER_NAMES)


def step_references(step: WrittenStep, names: frozenset[str]) -> frozenset[Reference]:
    """Return what a step reads of these names: inputs, steps, loop variables."""
    return frozenset(path for path in _all_references(step) if path[0] in names)


def after_answer(step: WrittenStep, names: frozenset[str]) -> frozenset[Reference]:
    """Return those of a step's references that are only read once its answer is there."""
    return step_references(step, names) - {*_step_references(step), *_list_references(step)}


def list_references(step: WrittenStep, names: frozenset[str]) -> frozenset[Reference]:
    """Return what only lists of labels read, of which a change makes few items stale."""
    besides = {*_step_references(step), *_after_answer(step)}
    return frozenset(path for path in _list_references(step) if path[0] in names) - besides


def _list_references(step: WrittenStep) -> Iterator[Reference]:
    for choice in step.reply.choices if step.reply else ():
        yield from choice.source.references


def _all_references(step: WrittenStep) -> Iterator[Reference]:
    yield from _step_references(step)
    yield from _list_references(step)
    yield from _after_answer(step)


def _after_answer(step: WrittenStep) -> Iterator[Reference]:
    for spec in (step.escalate, step.review):
        yield from spec.when.references if spec is not None else ()
    if step.reply is not None and step.reply.evidence is not None:
        yield from step.reply.evidence.references


def references_within(block: Block) -> Iterator[Reference]:
    """Yield what is read within a block: for each item, not by its own list."""
    yield from block.key.references if block.key else ()
    yield from block.returns.references if block.returns else ()
    for node in block.body:
        if isinstance(node, Block):
            yield from node.over.references
            yield from node.where.references if node.where else ()
            yield from node.if_.references if node.if_ else ()
            yield from references_within(node)
        else:
            yield from _all_references(node)


LOOP_ATTRIBUTES = ("index", "index0", "first", "last", "length")


def loop_attributes(block: Block) -> frozenset[str]:
    """Name what is read of a block's own `loop`; within a nested block that is the nested one's."""
    found = set(block.returns.references if block.returns else ())
    for node in block.body:
        if isinstance(node, Block):
            of_list = (node.over, node.where, node.key, node.if_)
            found.update(path for part in of_list if part is not None for path in part.references)
        else:
            found.update(_all_references(node))
    read = [path for path in found if path[0] == "loop"]
    if any(len(path) == 1 for path in read):
        return frozenset(LOOP_ATTRIBUTES)
    return frozenset(path[1] for path in read)


def references_outside(
    block: Block, inside: frozenset[Reference], names: frozenset[str]
) -> frozenset[Reference]:
    own = {("steps", node_id) for node_id in _ids_within(block)}
    read = {path for path in inside if path[0] in names and path[:2] not in own}
    read |= block.over.references | (block.if_.references if block.if_ else frozenset())
    if block.where is not None:
        read |= {path for path in block.where.references if path[0] != block.var}
    return frozenset(read)


def _ids_within(block: Block) -> Iterator[str]:
    for node in block.body:
        yield node.id
        if isinstance(node, Block):
            yield from _ids_within(node)


def item_attributes(var: str, inside: frozenset[Reference]) -> frozenset[str] | None:
    """Name the attributes of the loop variable that are read; None: all of it."""
    read = [path for path in inside if path[0] == var]
    if any(len(path) == 1 for path in read):
        return None
    return frozenset(path[1] for path in read)


_CONTENT_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "files.read": ("path",),
    "files.rows": ("path",),
    "summarise": ("file",),
    "summarize": ("file",),
    "chat": ("images",),
}
"""Parameters that name files whose content alone decides the result."""
_ONE_VALUE = re.compile(r"\{\{[^{}]*\}\}\Z")


def shown_references(step: WrittenStep) -> frozenset[Reference]:
    """Return what a step reads, but for the paths of files of which it takes the content alone."""
    names = _CONTENT_PARAMETERS.get(step.uses, ())
    files = {name: step.params.data[name] for name in names if name in step.params.data}
    lists = [value if isinstance(value, list) else [value] for value in files.values()]
    texts = [text for values in lists for text in values]
    if not all(isinstance(text, str) and _ONE_VALUE.match(text) for text in texts):
        return frozenset(_all_references(step))
    given = {name: value for name, value in step.params.data.items() if name not in files}
    besides = set(_all_references(step)) - step.params.references
    return Value.scan(given)[0].references.union(besides)


def shown_within(block: Block) -> frozenset[Reference]:
    """Return what is read within a block, but for paths of files whose content alone counts."""
    read = frozenset(references_within(block))
    found: set[Reference] = set(read)
    for step in _steps_within(block):
        found -= _references_of(step) - shown_references(step)
    for step in _steps_within(block):
        found |= shown_references(step)
        if step.uses == "files.read" and _shows_its_path(step, block, read):
            found |= _references_of(step)
    of_blocks = (part for nested in _blocks_within(block) for part in (nested.over, nested.where,
                 nested.if_, nested.key, nested.returns) if part is not None)  # fmt: skip
    return frozenset(found.union(*(part.references for part in of_blocks)))


def _references_of(step: WrittenStep) -> frozenset[Reference]:
    return frozenset(_all_references(step))


def _shows_its_path(step: WrittenStep, block: Block, read: frozenset[Reference]) -> bool:
    """Return whether the output `path` of a step that reads a file is used."""
    own = ("steps", step.id)
    is_read = any(path[:2] == own and path[2:3] in ((), ("path",)) for path in read)
    is_result = any(
        nested.returns is None and nested.body[-1:] and nested.body[-1].id == step.id
        for nested in _blocks_within(block)
    )
    return is_read or is_result or step.returns is not None


def _steps_within(block: Block) -> Iterator[WrittenStep]:
    for node in block.body:
        if isinstance(node, Block):
            yield from _steps_within(node)
        else:
            yield node


def _blocks_within(block: Block) -> Iterator[Block]:
    yield block
    for node in block.body:
        if isinstance(node, Block):
            yield from _blocks_within(node)


def step_spec(step: WrittenStep, reply: BoundReply | None = None, servers: Any = None) -> str:
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
    if reply is not None:  # a spec without it stays as it was
        written["reply"] = _by_name(replies.reply_spec(reply))
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
