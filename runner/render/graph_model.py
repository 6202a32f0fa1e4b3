"""Graph of a pipeline as data: boxes, nesting, edges, and what the last run did with each step.

The last run is read from the ledger and its journal.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from paddock.engine.system import units
from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import counted
from paddock.pipelines.model import Block, Node, StepNode
from paddock.pipelines.plan import Plan
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.run_history import PastRun, open_for_reading
from paddock.runner.progress.item_states import BAD, WAITS, WORK, ItemState
from paddock.runner.progress.journal import JournalTail
from paddock.runner.progress.report import sums_by_outcome
from paddock.steps.param_types import PipelineFile
from paddock.steps.registry import facts_of

MAX_LEVELS, MAX_INNER_BOXES = 4, 300
"""Limits of sub-pipelines; deeper or larger ones are one box."""

BoxState = Literal["none", "done", "fresh", "failed", "running", "left"]
"""State after the last run; `none`: never run, `left`: not reached, `fresh`: nothing to do."""
_ENDED_STATUSES = ("completed", "quarantined")


class LastStepRun(Struct, frozen=True):
    state: BoxState = "none"
    counts: Mapping[str, int] = field(default_factory=dict)
    n: int = 0
    failed: int = 0
    seconds: float = 0.0
    calls: int = 0
    known_calls: int = 0


class GraphBox(Struct, frozen=True):
    id: str
    label: str
    """The author's id, else what it does."""
    kind: str
    """`files.scan`, or of a block `for each doc in steps.docs.files`; empty if it is the label."""
    model: str = ""
    reads: tuple[str, ...] = ()
    body: tuple[GraphBox, ...] = ()
    last: LastStepRun = LastStepRun()


class LastRunSteps(Struct, frozen=True):
    steps: Mapping[str, LastStepRun] = field(default_factory=dict)
    otherwise: LastStepRun = LastStepRun()
    """Result of steps that the run did not record."""


def pipeline_boxes(
    plan: Plan, last: LastRunSteps, within: Mapping[Path, Plan]
) -> tuple[GraphBox, ...]:
    """Return the graph of a plan with its last run; `within`: sub-pipelines by file."""
    return _BoxBuilder(last.steps, within).of(_GraphLevel(plan, last.otherwise))


class _GraphLevel(Struct, frozen=True):
    plan: Plan
    otherwise: LastStepRun
    """Result of steps that the last run did not record."""
    prefix: str = ""
    """Ids of the steps that lead here, such as `clean.`."""
    files: tuple[Path, ...] = ()
    """Files that lead here, its own included."""


class _BoxBuilder:
    def __init__(self, last: Mapping[str, LastStepRun], plans: Mapping[Path, Plan]) -> None:
        self._last = last
        self._plans = plans
        self._n_left = MAX_INNER_BOXES

    def of(self, level: _GraphLevel) -> tuple[GraphBox, ...]:
        return tuple(self._box(node, level) for node in level.plan.nodes)

    def _box(self, node: Node, level: _GraphLevel) -> GraphBox:
        name = f"{level.prefix}{node.id}"
        reads = tuple(f"{level.prefix}{name}" for name in sorted(level.plan.edges.get(node.id, ())))
        last = self._last.get(name, level.otherwise)
        if last.state in ("fresh", "left"):  # so is its content
            level = replace(level, otherwise=LastStepRun(last.state))
        if isinstance(node, Block):
            body = tuple(self._box(child, level) for child in node.body)
            over = f"for each {node.var} in {node.over.source}"
            label = node.id if node.has_own_id else "block"
            return GraphBox(name, label, over, "", reads, body, last)
        params = node.params.data if isinstance(node.params.data, Mapping) else {}
        inner, alias = params.get(facts_of(node.uses).param(PipelineFile)), params.get("model")
        inner = inner if isinstance(inner, str) else None
        does = node.uses if inner is None else f"{node.uses} {inner}"
        label, kind = (node.id, does) if node.has_own_id else (does, "")
        keys = level.plan.pipeline.models.get(alias) if isinstance(alias, str) else None
        model = alias if isinstance(alias, str) else ""
        model += f" = {keys.ref}" if keys is not None else ""
        body = self._within(node, inner, level)
        return GraphBox(name, label, kind, model, reads, body, last)

    def _within(self, step: StepNode, name: str | None, level: _GraphLevel) -> tuple[GraphBox, ...]:
        """Return the boxes of a step's sub-pipeline of this file; empty without one."""
        if name is None:
            return ()
        own = Path(level.plan.pipeline.document.file)
        files = level.files or (own.resolve(),)
        path = (own.parent / name).resolve()
        inner = self._plans.get(Path(os.path.normpath(own.parent / name)))
        if inner is None or path in files or len(files) > MAX_LEVELS:
            return ()
        n_boxes = sum(1 for _ in inner.pipeline.nodes())
        if n_boxes > self._n_left:
            return ()
        self._n_left -= n_boxes
        prefix = f"{level.prefix}{step.id}."
        return self.of(_GraphLevel(inner, level.otherwise, prefix, (*files, path)))


def box_text(box: GraphBox) -> str:
    last = box.last
    parts = [f"{n:,} {outcome}" for outcome, n in sums_by_outcome(last.counts).items()]
    if not parts and last.n > 1:
        parts = [f"{last.n:,} times", *([f"{last.failed:,} failed"] if last.failed else [])]
    elif not parts:
        words = {"none": "", "left": "not reached", "fresh": "nothing to do"}
        parts = [words.get(last.state, last.state)]
    if last.seconds >= 0.05:
        parts.append(units.duration(last.seconds))
    if last.calls or last.known_calls:
        parts.append(counted(last.calls, "call"))
    return " · ".join(filter(None, parts))


def last_run_steps(past: PastRun | None) -> LastRunSteps:
    if past is None:
        return LastRunSteps()
    recorded, otherwise = past.summary.get("steps"), LastStepRun()
    if not isinstance(recorded, dict):  # running, or killed
        steps = _journal_sums(past.journal)
    else:
        steps = {name: StepSums.of_summary(facts) for name, facts in recorded.items()}
        is_ended = past.status in _ENDED_STATUSES
        otherwise = LastStepRun("fresh" if is_ended else "left")
        for name, sums in ({} if is_ended else _journal_sums(past.journal)).items():
            if name in steps:
                steps[name].n_left = sums.n_left
    # How many items of each step and block wait for a person, of all runs
    with open_for_reading(past.place) as ledger:
        waiting = ReviewStore(ledger).waiting()
    waiting_counts = Counter(
        name
        for review in waiting
        if review.subject.pipeline == past.place.file
        for name in {review.step, review.subject.block}
    )
    for name, n in waiting_counts.items():
        steps.setdefault(name, StepSums()).counts["waiting"] = n
    return LastRunSteps({name: sums.as_last_run() for name, sums in steps.items()}, otherwise)


class StepSums(Struct):
    """What a run's report, or its journal so far, has of a step or block."""

    n: int = 0
    n_failed: int = 0
    n_left: int = 0
    seconds: float = 0.0
    calls: int = 0
    known_calls: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of_summary(cls, facts: Mapping[str, Any]) -> StepSums:
        numbers = {name: facts.get(name, 0) for name in ("n", "seconds", "calls", "known_calls")}
        return cls(**numbers, n_failed=facts.get("failed", 0), counts={**facts.get("counts", {})})

    def as_last_run(self) -> LastStepRun:
        counts = {**self.counts, **({"left": self.n_left} if self.n_left > 0 else {})}
        state: BoxState = "done"
        if self.n_failed or any(counts.get(bad) for bad in BAD):
            state = "failed"
        elif self.n_left > 0 or any(counts.get(wait) for wait in WAITS):  # not at its end
            state = "running"
        elif counts and not any(counts.get(made) for made in (*WORK, ItemState.DONE)):
            state = "fresh"
        return LastStepRun(
            state, counts, self.n, self.n_failed, self.seconds, self.calls, self.known_calls
        )


def _journal_sums(journal: Path) -> dict[str, StepSums]:
    found: dict[str, StepSums] = {}
    for line in JournalTail(journal).new_lines():
        step, event = line.get("step"), line.get("event")
        if not isinstance(step, str) or event not in ("step", "item"):
            continue
        sums = found.setdefault(step, StepSums())
        if event == "step":
            n_fresh = line.get("fresh", 0)
            sums.n_left += line.get("items", 1) - n_fresh
            if n_fresh:
                sums.counts["fresh"] = n_fresh
            continue
        sums.n_left -= 1
        sums.seconds += line.get("seconds", 0.0)
        sums.calls += line.get("calls", 0)
        if "key" in line:
            state = str(line.get("state"))
            sums.counts[state] = sums.counts.get(state, 0) + 1
        else:
            sums.n = 1
    return found
