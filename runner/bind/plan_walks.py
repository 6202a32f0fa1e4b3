"""Walks over a bound plan: its steps, blocks and names, or those of all pipelines that it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from paddock.pipelines.expressions import Reference, steps_read
from paddock.pipelines.times import TIME_NAMES
from paddock.steps.param_types import InputFolder

from .bound import BoundBlock, BoundNode, BoundPlan, BoundStep, InputSource, ListOrigin
from .node_reads import read_by


def nodes_of(body: Iterable[BoundNode]) -> Iterator[BoundNode]:
    """Yield all steps and blocks of a body, those of nested blocks too."""
    for node in body:
        yield node
        if isinstance(node, BoundBlock):
            yield from nodes_of(node.body)


def node_ids(body: Iterable[BoundNode]) -> Iterator[str]:
    return (node.id for node in nodes_of(body))


def blocks_of(body: Iterable[BoundNode]) -> Iterator[BoundBlock]:
    return (node for node in nodes_of(body) if isinstance(node, BoundBlock))


def steps_of(body: Iterable[BoundNode]) -> Iterator[BoundStep]:
    return (node for node in nodes_of(body) if isinstance(node, BoundStep))


def all_steps(body: Iterable[BoundNode]) -> Iterator[BoundStep]:
    """Yield all steps of a body, and those of the pipelines that they run."""
    for step in steps_of(body):
        yield step
        if step.inner is not None:
            yield from all_steps(step.inner.nodes)


def all_plans(bound: BoundPlan) -> Iterator[BoundPlan]:
    """Yield a pipeline, and all that its steps run."""
    yield bound
    yield from sub_plans(bound.nodes)


def sub_plans(nodes: Iterable[BoundNode]) -> Iterator[BoundPlan]:
    """Yield the pipelines that steps run, and those that steps of theirs do."""
    for step in steps_of(nodes):
        if step.inner is not None:
            yield step.inner
            yield from sub_plans(step.inner.nodes)


def steps_with_blocks(
    body: Iterable[BoundNode], block: str = ""
) -> Iterator[tuple[str, BoundStep]]:
    """Yield each step with the block that it is directly in; empty for those at the top."""
    for node in body:
        if isinstance(node, BoundBlock):
            yield from steps_with_blocks(node.body, node.id)
        else:
            yield block, node


def callable_names(body: Iterable[BoundNode]) -> Iterator[str]:
    """Yield the names of all steps and blocks by which a caller may mean them: `clean.each`."""
    for node in nodes_of(body):
        yield node.id
        if isinstance(node, BoundStep) and node.inner is not None:
            yield from (f"{node.id}.{name}" for name in callable_names(node.inner.nodes))


def progress_line_names(nodes: Iterable[BoundNode]) -> Iterator[str]:
    """Yield the names of the lines that a run shows: top-level ones, each with what it runs."""
    for node in nodes:
        yield node.id
        if isinstance(node, BoundStep) and node.inner is not None:
            yield from (f"{node.id}.{name}" for name in progress_line_names(node.inner.nodes))


def only_reads(step: BoundStep) -> bool:
    """Return whether a step only reads and asks, so that it can be done twice."""
    return step.kind.is_pure or step.facts.only_reads


def follows_time(nodes: Iterable[BoundNode], node: BoundNode) -> bool:
    """Return whether a node reads `now` or `today`, or blocks that do, as to choose their items."""
    reads = {other.id: other.reads.all for other in nodes}
    seen: set[str] = set()
    names = {node.id}
    while names:
        seen |= names
        paths = [path for name in names for path in reads.get(name, ())]
        if any(path[0] in TIME_NAMES for path in paths):
            return True
        names = steps_read(paths) - seen
    return False


def origin_of(bound: BoundPlan, reader: BoundNode, paths: Iterable[Reference]) -> ListOrigin:
    """Return what the values are made of that a node reads.

    1. An input: of what the caller of a sub-pipeline gives.
    2. A block, or a step that runs a pipeline: of results.
    3. Any other step: of a folder if it lists one, and of what it reads.
    4. A loop variable: of what its block goes over.
    """
    nodes = {node.id: node for node in nodes_of(bound.nodes)}
    around = {b.var: b for b in blocks_of(bound.nodes) if reader.id in node_ids(b.body)}
    origin, seen, waiting = ListOrigin.NEITHER, set[Reference](), [*paths]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        match path:
            case ("inputs", *names):  # 1
                for name in names[:1] or bound.input_sources:
                    origin |= bound.input_sources.get(name, InputSource()).origin
            case ("steps", name, *_) if name in nodes:
                node = nodes[name]
                if isinstance(node, BoundBlock) or node.inner is not None:  # 2
                    origin |= ListOrigin.RESULTS
                    continue
                origin |= ListOrigin.FOLDERS if node.has(InputFolder) else ListOrigin.NEITHER  # 3
                waiting += node.reads.all
            case (var, *_) if var in around:  # 4
                waiting += read_by(around[var].over, around[var].where)
    return origin
