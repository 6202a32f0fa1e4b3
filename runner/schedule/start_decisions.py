"""Decide which due runs start, wait, are skipped or stopped. Pure.

Knows time windows, missed runs (`catch_up`), concurrency groups (`on_conflict`), priorities, paused
deployments and the limit on runs; no Prefect, process or clock. `run_endings` restarts runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

from .cron import CatchUp
from .time_windows import TimeWindow

OnConflict = Literal["queue", "skip", "cancel_running"]

MISSED_AFTER = timedelta(seconds=60)
"""A run that starts later than this was missed, not delayed."""


@dataclass(frozen=True, slots=True)
class RunRule:
    """What a pipeline's file sets for its runs."""

    window: TimeWindow | None = None
    on_conflict: OnConflict = "queue"
    rank: int = 2
    """0: `interactive`, 1: `normal`, 2: `batch`; lower numbers start first."""
    catch_up: Mapping[str, CatchUp] = field(default_factory=dict)
    """By the trigger's key, for schedules."""
    has_turns: bool = False
    """Its runs take turns with runs that are started by hand."""
    is_paused: bool = False
    """A person has paused its deployment in Prefect: no run starts."""
    fault: str = ""
    """Why its ledger cannot be used now: a run would fail."""


@dataclass(frozen=True, slots=True)
class DueRun:
    """A waiting run that is due."""

    id: str
    pipeline: str
    trigger: str
    at: datetime
    group: str
    is_held: bool = False
    """It was held before."""


@dataclass(frozen=True, slots=True)
class ActiveRun:
    """A run that is running."""

    id: str
    name: str
    pipeline: str
    group: str
    is_ending: bool = False
    """It was asked to stop already."""
    is_ours: bool = True
    """Else it has the turn of its group, whose name is its id: it was started by hand, say."""


@dataclass(frozen=True, slots=True)
class StartRun:
    """Start it."""

    id: str


@dataclass(frozen=True, slots=True)
class HoldRun:
    """Keep it waiting; `until` is when that may change, if known."""

    id: str
    words: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class SkipRun:
    """Skip it for good."""

    id: str
    words: str


@dataclass(frozen=True, slots=True)
class DrainRun:
    """Drain a running run: stop after the current item; `is_again`: it continues later."""

    id: str
    words: str
    is_again: bool


Decision: TypeAlias = StartRun | HoldRun | SkipRun | DrainRun


def dispatch(
    due: Sequence[DueRun],
    active: Sequence[ActiveRun],
    rules: Mapping[str, RunRule],
    now: datetime,
    max_runs: int,
) -> list[Decision]:
    """Return one decision for each due run, and one for each run that must stop."""
    this_round = _DispatchRound(active, rules, now, max_runs)
    for job in active:
        this_round.look_at(job)
    newest = _newest(due, rules)
    for run in sorted(due, key=lambda run: (this_round.rank(run), run.at, run.id)):
        this_round.decide(run, newest)
    return this_round.decisions


class _DispatchRound:
    """One round of decisions; each counts for the next."""

    def __init__(
        self,
        active: Sequence[ActiveRun],
        rules: Mapping[str, RunRule],
        now: datetime,
        max_runs: int,
    ) -> None:
        self.decisions: list[Decision] = []
        self._rules = rules
        self._now = now
        self._left = max_runs - sum(run.is_ours for run in active)
        self._max_runs = max_runs
        self._busy = {run.group: run for run in active}
        self._closed = {run.id for run in active if run.is_ending}
        self._has_next: set[str] = set()
        """Groups of which a run waits already: the others' reason does not change with each run."""

    def rank(self, run: DueRun) -> int:
        rule = self._rules.get(run.pipeline)
        return rule.rank if rule else 0

    def look_at(self, run: ActiveRun) -> None:
        """Drain a run outside its window."""
        rule = self._rules.get(run.pipeline)
        if rule and rule.window and (why := rule.window.drain_reason(self._now)):
            self._close(run, why, is_again=True)

    def decide(self, run: DueRun, newest: Mapping[tuple[str, ...], DueRun]) -> None:
        rule = self._rules.get(run.pipeline)
        if rule is None:
            self._add(SkipRun(run.id, "its pipeline no longer exists"))
            return
        latest = newest.get(_replaceable_kind(run, rule), run)
        busy = self._busy.get(run.group)
        if latest.id != run.id:
            at = f"{latest.at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            self._add(SkipRun(run.id, f"the run of {at} takes its place"))
        elif self._was_missed(run, rule):
            self._add(SkipRun(run.id, "it was missed, and `catch_up` is `none`"))
        elif rule.is_paused:
            self._add(HoldRun(run.id, "waits: its deployment is paused in Prefect"))
        elif rule.fault:
            self._add(HoldRun(run.id, f"waits: {rule.fault}"))
        elif rule.window and (hold := rule.window.start_hold(self._now)):
            self._add(HoldRun(run.id, *hold))
        elif busy is not None:
            self._conflict(run, rule, busy)
        elif self._left <= 0:
            runs = "1 run" if self._max_runs == 1 else f"{self._max_runs} runs"
            self._add(HoldRun(run.id, f"waits for a free slot: {runs} at a time"))
        else:
            self._left -= 1
            self._busy[run.group] = ActiveRun(run.id, "", run.pipeline, run.group)
            self._add(StartRun(run.id))

    def _conflict(self, run: DueRun, rule: RunRule, busy: ActiveRun) -> None:
        holder = f"run '{busy.name}'" if busy.name else "a run of its group"
        if rule.on_conflict == "skip":
            self._add(SkipRun(run.id, f"{holder} was running, and `on_conflict` is `skip`"))
            return
        if rule.on_conflict == "cancel_running" and busy.name:
            self._close(busy, "a newer run of its group takes its place", is_again=False)
        is_next = run.group not in self._has_next
        self._has_next.add(run.group)
        holder = holder if is_next else "the runs of its group before it"
        self._add(HoldRun(run.id, f"waits for {holder}"))

    def _was_missed(self, run: DueRun, rule: RunRule) -> bool:
        if run.is_held or rule.catch_up.get(run.trigger) != "none":
            return False
        return self._now - run.at > MISSED_AFTER

    def _close(self, run: ActiveRun, words: str, *, is_again: bool) -> None:
        if run.id not in self._closed:
            self._closed.add(run.id)
            self._add(DrainRun(run.id, words, is_again))

    def _add(self, decision: Decision) -> None:
        self.decisions.append(decision)


def _newest(due: Sequence[DueRun], rules: Mapping[str, RunRule]) -> dict[tuple[str, ...], DueRun]:
    """Return the newest of each kind of run in which newer runs replace older ones."""
    newest: dict[tuple[str, ...], DueRun] = {}
    for run in due:
        kind = _replaceable_kind(run, rules[run.pipeline]) if run.pipeline in rules else ()
        known = newest.get(kind)
        if kind and (known is None or (known.at, known.id) < (run.at, run.id)):
            newest[kind] = run
    return newest


def _replaceable_kind(run: DueRun, rule: RunRule) -> tuple[str, ...]:
    """Return the kind of a run that newer ones of the same kind replace; empty: each one counts."""
    if rule.on_conflict == "cancel_running":
        return ("group", run.group)
    if rule.catch_up.get(run.trigger, "all") != "all":
        return ("schedule", run.pipeline, run.trigger)
    return ()
