"""What a picture of a pipeline shows: boxes, what stands in them, who waits for whom. Plain."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from paddock.pipelines.plan import Plan
from paddock.pipelines.tree import Block, Node, Step
from paddock.runner.binding.inner import USES

MOST_LEVELS, MOST_INNER_BOXES = 4, 300
"""Of pipelines within one another; what is deeper, or more, is drawn as one box."""

State = Literal["none", "done", "fresh", "failed", "running", "left"]
"""How the last run left it; `none`: it was never run, `left`: the last run did not come to it;
`fresh`: it had nothing to do there."""


@dataclass(frozen=True, slots=True)
class LastRun:
    """What the last run did with a step or a block."""

    state: State = "none"
    counts: Mapping[str, int] = field(default_factory=dict)
    """Items by state, of a block."""
    n: int = 0
    """How often it ran."""
    failed: int = 0
    """Of `n`."""
    seconds: float = 0.0
    calls: int = 0
    known_calls: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Box:
    """A step; or a block, or a step that runs another pipeline, with what stands in it."""

    id: str
    label: str
    """The id that its author gave, else what it does."""
    kind: str
    """`files.scan`; of a block what it goes over: `for each doc in steps.docs.files`; empty if it
    is the label."""
    model: str = ""
    is_conditional: bool = False
    reads: tuple[str, ...] = ()
    """The ids of the boxes beside it that it waits for."""
    body: tuple[Box, ...] = ()
    is_block: bool = False
    """Whether it is drawn around its body."""
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
    plan: Plan,
    last: Mapping[str, LastRun],
    otherwise: LastRun,
    caption: str = "",
    within: Mapping[Path, Plan] | None = None,
) -> Scene:
    """Give the picture of a plan with what the last run did, and did not do.

    `within` are the pipelines that its steps run, by their files.
    """
    pipeline = plan.pipeline
    boxes = _Boxes(last, within or {}).of(_Level(plan, otherwise))
    return Scene(pipeline.name, pipeline.description, boxes, caption)


@dataclass(frozen=True, slots=True)
class _Level:
    """A pipeline whose boxes are made, and what leads to it."""

    plan: Plan
    otherwise: LastRun
    """What became of steps that the last run tells nothing of."""
    prefix: str = ""
    """The steps that lead here, such as `clean.`."""
    files: tuple[Path, ...] = ()
    """The files that lead here, its own included."""


class _Boxes:
    """Makes the boxes of a plan and of those that its steps run, as far as they are drawn."""

    def __init__(self, last: Mapping[str, LastRun], plans: Mapping[Path, Plan]) -> None:
        self._last = last
        self._plans = plans
        self._n_left = MOST_INNER_BOXES

    def of(self, level: _Level) -> tuple[Box, ...]:
        """Give the boxes of a pipeline."""
        return tuple(self._box(node, level) for node in level.plan.nodes)

    def _box(self, node: Node, level: _Level) -> Box:
        name = f"{level.prefix}{node.id}"
        reads = tuple(f"{level.prefix}{one}" for one in sorted(level.plan.edges.get(node.id, ())))
        last = self._last.get(name, level.otherwise)
        if last.state in ("fresh", "left"):  # so is all that stands in it
            level = replace(level, otherwise=LastRun(last.state))
        if isinstance(node, Block):
            body = tuple(self._box(inner, level) for inner in node.body)
            over = f"for each {node.var} in {node.over.source}"
            label = node.id if node.has_own_id else "block"
            return Box(name, label, over, "", node.if_ is not None, reads, body, True, last)
        does = _does(node)
        label, kind = (node.id, does) if node.has_own_id else (does, "")
        model = _model(node.params.data, level.plan)
        body = self._within(node, level)
        return Box(name, label, kind, model, node.if_ is not None, reads, body, bool(body), last)

    def _within(self, step: Step, level: _Level) -> tuple[Box, ...]:
        """Give the boxes of the pipeline that a step runs; none where it runs none."""
        name = _file(step)
        if name is None:
            return ()
        own = Path(level.plan.pipeline.document.file).absolute()
        files = level.files or (own.resolve(),)
        path = (own.parent / name).resolve()
        inner = self._plans.get(path)
        if inner is None or path in files or len(files) > MOST_LEVELS:
            return ()
        n_boxes = sum(1 for _ in inner.pipeline.nodes())
        if n_boxes > self._n_left:
            return ()
        self._n_left -= n_boxes
        prefix = f"{level.prefix}{step.id}."
        return self.of(_Level(inner, level.otherwise, prefix, (*files, path)))


def _does(step: Step) -> str:
    """Say what a step does, and which file it runs."""
    name = _file(step)
    return step.uses if name is None else f"{step.uses} {name}"


def _file(step: Step) -> str | None:
    """Name the pipeline that a step runs; None where it runs none."""
    params = step.params.data
    if step.uses != USES or not isinstance(params, Mapping):
        return None
    name = params.get("file")
    return name if isinstance(name, str) else None


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
    parts = [outcome(last)]
    if last.seconds >= 0.05:
        parts.append(took(last.seconds))
    if last.calls or last.known_calls:
        parts.append(f"{last.calls:,} call{'' if last.calls == 1 else 's'}")
    return " · ".join(filter(None, parts))


def outcome(last: LastRun) -> str:
    """Say how the last run left something, in a few words; empty where there was none."""
    counts = [f"{n:,} {state}" for state, n in last.counts.items() if n]
    if counts:
        return " · ".join(counts)
    if last.n > 1:
        return f"{last.n:,} times" + (f" · {last.failed:,} failed" if last.failed else "")
    return {"none": "", "left": "not reached", "fresh": "nothing to do"}.get(last.state, last.state)


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
