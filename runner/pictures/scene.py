"""What a picture of a pipeline shows: boxes, what stands in them, who waits for whom. Plain."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from paddock.pipelines.plan import Plan
from paddock.pipelines.tree import Block, Node

State = Literal["none", "done", "fresh", "failed", "running", "left"]
"""How the last run left it; `none`: it was never run, `left`: the last run did not come to it."""


@dataclass(frozen=True, slots=True)
class LastRun:
    """What the last run did with a step or a block."""

    state: State = "none"
    counts: Mapping[str, int] = field(default_factory=dict)
    """Items by state, of a block."""
    n: int = 0
    """How often it ran."""
    seconds: float = 0.0
    calls: int = 0
    known_calls: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Box:
    """A step, or a block with what stands in it."""

    id: str
    label: str
    """The id that its author gave, else what it does."""
    kind: str
    """`files.scan`; of a block what it goes over: `doc in steps.docs.files`; empty if it is the
    label."""
    model: str = ""
    is_conditional: bool = False
    reads: tuple[str, ...] = ()
    """The ids of the boxes beside it that it waits for."""
    body: tuple[Box, ...] = ()
    is_block: bool = False
    last: LastRun = LastRun()


@dataclass(frozen=True, slots=True)
class Scene:
    """A pipeline as a picture."""

    name: str
    description: str
    boxes: tuple[Box, ...]
    caption: str = ""
    """Which run's states it shows."""


def scene_of(
    plan: Plan, last: Mapping[str, LastRun], otherwise: LastRun, caption: str = ""
) -> Scene:
    """Give the picture of a plan with what the last run did, and did not do."""
    pipeline = plan.pipeline
    boxes = tuple(_box(node, plan, last, otherwise) for node in plan.nodes)
    return Scene(pipeline.name, pipeline.description, boxes, caption)


def _box(node: Node, plan: Plan, last: Mapping[str, LastRun], otherwise: LastRun) -> Box:
    reads = tuple(sorted(plan.edges.get(node.id, ())))
    run = last.get(node.id, otherwise)
    if isinstance(node, Block):
        body = tuple(_box(inner, plan, last, otherwise) for inner in node.body)
        over = f"{node.var} in {node.over.source}"
        label = node.id if node.has_own_id else "block"
        return Box(node.id, label, over, "", node.if_ is not None, reads, body, True, run)
    label, kind = (node.id, node.uses) if node.has_own_id else (node.uses, "")
    model = _model(node.params.data, plan)
    return Box(node.id, label, kind, model, node.if_ is not None, reads, last=run)


def _model(params: object, plan: Plan) -> str:
    """Name the model that a step names, by its reference where that says more."""
    alias = params.get("model") if isinstance(params, Mapping) else None
    if not isinstance(alias, str):
        return ""
    keys = plan.pipeline.models.get(alias)
    return alias if keys is None else f"{alias} = {keys.ref}"


def flat(boxes: Sequence[Box]) -> Iterator[Box]:
    """Yield every box, each block before what stands in it."""
    for box in boxes:
        yield box
        yield from flat(box.body)


def in_words(box: Box) -> str:
    """Say what the last run did with a box, for a person and a screen reader."""
    last = box.last
    if last.state == "none":
        return ""
    if last.state == "left":
        return "not reached"
    parts = [f"{n:,} {state}" for state, n in last.counts.items() if n]
    if not parts:
        parts = [last.state if not last.n or last.n == 1 else f"{last.n:,} times"]
    if last.seconds >= 0.05:
        parts.append(took(last.seconds))
    if last.calls or last.known_calls:
        parts.append(f"{last.calls:,} call{'' if last.calls == 1 else 's'}")
    return " · ".join(parts)


def took(seconds: float) -> str:
    """Write a length of time as a person reads it.

    >>> took(0.25), took(75), took(7300)
    ('0.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def anchor(box_id: str) -> str:
    """Give an id that HTML and Mermaid take: `(files.write)` is none."""
    return re.sub(r"[^A-Za-z0-9_]", lambda match: f"_{ord(match[0]):x}", box_id)
