"""What stands in the body of a block: its steps, its nested blocks, what they read and say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from paddock.pipelines.expressions import Reference

from .binding.bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from .binding.inner import plans_within


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


def steps_within(body: Iterable[BoundNode]) -> Iterator[BoundStep]:
    """Give all steps of a body, and those of the pipelines that they run."""
    for step in steps_of(body):
        yield step
        if step.inner is not None:
            yield from steps_within(step.inner.nodes)


def plans_of(bound: BoundPlan) -> Iterator[BoundPlan]:
    """Give a pipeline, and all that its steps run."""
    yield bound
    yield from plans_within(bound.nodes)


def names_of(body: Iterable[BoundNode]) -> Iterator[str]:
    """Give the names of all steps and blocks by which a caller may mean them: `clean.each`."""
    for node in body:
        yield node.id
        if isinstance(node, BoundBlock):
            yield from names_of(node.body)
        elif node.inner is not None:
            yield from (f"{node.id}.{name}" for name in names_of(node.inner.nodes))


def watched(nodes: Iterable[BoundNode]) -> Iterator[str]:
    """Give the names of the lines that a run shows: top-level ones, each with what it runs."""
    for node in nodes:
        yield node.id
        if isinstance(node, BoundStep) and node.inner is not None:
            yield from (f"{node.id}.{name}" for name in watched(node.inner.nodes))


def is_whole(body: Iterable[BoundNode]) -> bool:
    """Tell whether a body has no items of its own: no blocks, and no pipelines."""
    body = tuple(body)
    has_blocks = next(blocks_of(body), None) is not None
    return not has_blocks and all(step.inner is None for step in steps_of(body))


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
        found.update(nested.where.references if nested.where else ())
    outside = (path for path in found if path[0] not in variables and path[0] != "loop")
    return frozenset(
        path for path in outside if not (path[0] == "steps" and path[1:2] and path[1] in inner)
    )


def written(node: BoundNode) -> str:
    """Write a block with its steps, or a step, down in one way: what decides its results."""
    if not isinstance(node, BoundBlock):
        steps = {node.id: _loaded(node.spec)}
        return json.dumps({"blocks": {}, "steps": steps}, sort_keys=True, ensure_ascii=False)
    blocks = {block.id: _loaded(block.spec) for block in (node, *blocks_of(node.body))}
    steps = {step.id: _loaded(step.spec) for step in steps_of(node.body)}
    return json.dumps({"blocks": blocks, "steps": steps}, sort_keys=True, ensure_ascii=False)


def _loaded(spec: str) -> object:
    return json.loads(spec) if spec else {}
