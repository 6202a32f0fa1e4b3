"""What steps and blocks read, and what they say: the parts of a ledger's key. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from paddock.pipelines.expressions import Reference
from paddock.pipelines.plan import ANSWER
from paddock.pipelines.tree import Block
from paddock.pipelines.tree import Step as WrittenStep
from paddock.steps import registry

from . import replies
from .replies import BoundReply


def _of_step(step: WrittenStep) -> Iterator[Reference]:
    yield from step.params.references
    yield from step.if_.references if step.if_ else ()
    for template in step.files.values():
        yield from template.references
    for reference in step.returns.references if step.returns else ():
        if reference[:2] != ("steps", step.id):
            yield reference
    for check in step.reply.checks.values() if step.reply else ():
        yield from (one for one in check.references if one[0] not in ANSWER)


def references(step: WrittenStep, names: frozenset[str]) -> frozenset[Reference]:
    """Give what a step reads of these names: inputs, steps, loop variables."""
    return frozenset(one for one in _of_step(step) if one[0] in names)


def all_references(block: Block) -> Iterator[Reference]:
    """Give what is read within a block: for each item, not by its own list."""
    yield from block.key.references if block.key else ()
    yield from block.returns.references if block.returns else ()
    for node in block.body:
        if isinstance(node, Block):
            yield from node.over.references
            yield from node.where.references if node.where else ()
            yield from node.if_.references if node.if_ else ()
            yield from all_references(node)
        else:
            yield from _of_step(node)


LOOP_ATTRIBUTES = ("index", "index0", "first", "last", "length")


def loop_attributes(block: Block) -> frozenset[str]:
    """Name what is read of a block's own `loop`; within a nested block that is the nested one's."""
    found = set(block.returns.references if block.returns else ())
    for node in block.body:
        if isinstance(node, Block):
            of_list = (node.over, node.where, node.key, node.if_)
            found.update(path for one in of_list if one is not None for path in one.references)
        else:
            found.update(_of_step(node))
    read = [path for path in found if path[0] == "loop"]
    if any(len(path) == 1 for path in read):
        return frozenset(LOOP_ATTRIBUTES)
    return frozenset(path[1] for path in read)


def outside(
    block: Block, inside: frozenset[Reference], names: frozenset[str]
) -> frozenset[Reference]:
    """Give what a block reads of the names around it."""
    own = {("steps", node_id) for node_id in _ids(block)}
    read = {one for one in inside if one[0] in names and one[:2] not in own}
    read |= block.over.references | (block.if_.references if block.if_ else frozenset())
    if block.where is not None:
        read |= {path for path in block.where.references if path[0] != block.var}
    return frozenset(read)


def _ids(block: Block) -> Iterator[str]:
    for node in block.body:
        yield node.id
        if isinstance(node, Block):
            yield from _ids(node)


def attributes(var: str, inside: frozenset[Reference]) -> frozenset[str] | None:
    """Name the attributes of the loop variable that are read; None: all of it."""
    read = [one for one in inside if one[0] == var]
    if any(len(one) == 1 for one in read):
        return None
    return frozenset(one[1] for one in read)


def spec(step: WrittenStep, reply: BoundReply | None = None, servers: Any = None) -> str:
    """Write down what decides the step's result, template files' texts in place of their names.

    `servers` is how the MCP servers are started or reached whose tools it names.
    """
    texts = {name: template.source for name, template in step.files.items()}
    written = {
        "uses": registry.ALIASES.get(step.uses, step.uses),
        "with": {**step.params.data, **texts},
        "if": step.if_.source if step.if_ else None,
        "returns": step.returns.data if step.returns else None,
    }
    if reply is not None:  # what a step without one says is as it was before there were any
        written["reply"] = replies.spec(reply)
    if servers is not None:
        written["servers"] = servers
    return _canonical(written)


def block_spec(block: Block) -> str:
    """Write down a block's own keys; its body's steps have specs of their own."""
    written = {
        "for_each": f"{block.var} in {block.over.source}",
        "key": block.key.source if block.key else None,
        "if": block.if_.source if block.if_ else None,
        "returns": block.returns.data if block.returns else None,
    }
    if block.where is not None:  # what a block without one says is as it was before there was any
        written["where"] = block.where.source
    return _canonical(written)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
