"""What stands in the body of a block: its steps, its nested blocks, what they read from outside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from paddock.pipelines.expressions import Reference

from .binding.bound import BoundBlock, BoundNode, BoundStep


def ids(body: Iterable[BoundNode]) -> Iterator[str]:
    """Give the ids of all steps and blocks in a body, nested ones too."""
    for node in body:
        yield node.id
        if isinstance(node, BoundBlock):
            yield from ids(node.body)


def steps_of(body: Iterable[BoundNode]) -> Iterator[BoundStep]:
    """Give all steps of a body, those of nested blocks too."""
    for node in body:
        if isinstance(node, BoundBlock):
            yield from steps_of(node.body)
        else:
            yield node


def blocks_of(body: Iterable[BoundNode]) -> Iterator[BoundBlock]:
    """Give the nested blocks of a body."""
    for node in body:
        if isinstance(node, BoundBlock):
            yield node
            yield from blocks_of(node.body)


def outer_references(block: BoundBlock) -> frozenset[Reference]:
    """Give what the body of a block reads from outside of it; its own list is not among it."""
    inner = set(ids(block.body))
    variables = {block.var}
    found: set[Reference] = set(block.returns.references) if block.returns else set()
    for step in steps_of(block.body):
        found.update(step.references)
    for nested in blocks_of(block.body):
        variables.add(nested.var)
        found.update(nested.over.references)
    return frozenset(
        path
        for path in found
        if path[0] not in variables and not (path[0] == "steps" and path[1:2] and path[1] in inner)
    )
