"""Decide what starts, waits, is left out or has to stop: windows, groups, limits. Pure.

Knows no Prefect, no process and no clock: `up` tells it what is due and what runs, and carries
out what it says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeAlias

from .schedules import CatchUp
from .windows import Window

Conflict = Literal["queue", "skip", "cancel_running"]

MISSED_AFTER = timedelta(seconds=60)
"""So late, a run was missed rather than delayed."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a pipeline's file says about its runs."""

    window: Window | None = None
    on_conflict: Conflict = "queue"
    rank: int = 2
    """0: `interactive`, 1: `normal`, 2: `batch`; lower ones start first."""
    catch_up: Mapping[str, CatchUp] = field(default_factory=dict)
    """By the trigger's key, for schedules."""


@dataclass(frozen=True, slots=True)
class Due:
    """A run that waits, and whose time has come."""

    id: str
    pipeline: str
    trigger: str
    at: datetime
    group: str
    is_held: bool = False
    """It was seen to before, and held back."""


@dataclass(frozen=True, slots=True)
class Active:
    """A run that is being carried out."""

    id: str
    name: str
    pipeline: str
    group: str
    is_ending: bool = False
    """It was told to stop already."""


@dataclass(frozen=True, slots=True)
class Start:
    """Carry it out."""

    id: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Let it wait; `until` is when that may change, where that is known."""

    id: str
    words: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """Leave it out for good."""

    id: str
    words: str


@dataclass(frozen=True, slots=True)
class Close:
    """Let a running one stop at an item's border; `is_again`: it goes on later."""

    id: str
    words: str
    is_again: bool


Decision: TypeAlias = Start | Hold | Skip | Close


def dispatch(
    due: Sequence[Due],
    active: Sequence[Active],
    rules: Mapping[str, Rule],
    now: datetime,
    max_runs: int,
) -> list[Decision]:
    """Give one decision for each run that is due, and one for each that has to stop."""
    desk = _Desk(active, rules, now, max_runs)
    for one in active:
        desk.look_at(one)
    newest = _newest(due, rules)
    for run in sorted(due, key=lambda run: (desk.rank(run), run.at, run.id)):
        desk.decide(run, newest)
    return desk.decisions


class _Desk:
    """One round of decisions; what was decided so far counts for the next."""

    def __init__(
        self, active: Sequence[Active], rules: Mapping[str, Rule], now: datetime, max_runs: int
    ) -> None:
        self.decisions: list[Decision] = []
        self._rules = rules
        self._now = now
        self._left = max_runs - len(active)
        self._max_runs = max_runs
        self._busy = {run.group: run for run in active}
        self._closed = {run.id for run in active if run.is_ending}

    def rank(self, run: Due) -> int:
        rule = self._rules.get(run.pipeline)
        return rule.rank if rule else 0

    def look_at(self, run: Active) -> None:
        """Stop what runs outside its window."""
        rule = self._rules.get(run.pipeline)
        if rule and rule.window and not rule.window.is_open(self._now):
            self._close(run, f"its window {rule.window} is over", is_again=True)

    def decide(self, run: Due, newest: Mapping[tuple[str, ...], Due]) -> None:
        """Decide about one run that is due."""
        rule = self._rules.get(run.pipeline)
        if rule is None:
            self._add(Skip(run.id, "its pipeline is no longer there"))
            return
        latest = newest.get(_kind(run, rule), run)
        busy = self._busy.get(run.group)
        if latest.id != run.id:
            self._add(Skip(run.id, f"the run of {_moment(latest.at)} takes its place"))
        elif self._was_missed(run, rule):
            self._add(Skip(run.id, "it was missed, and `catch_up` is `none`"))
        elif rule.window and not rule.window.is_open(self._now):
            until = rule.window.opens(self._now)
            self._add(Hold(run.id, f"waits for its window {rule.window}", until))
        elif busy is not None:
            self._conflict(run, rule, busy)
        elif self._left <= 0:
            runs = "1 run" if self._max_runs == 1 else f"{self._max_runs} runs"
            self._add(Hold(run.id, f"waits for its turn: {runs} at a time"))
        else:
            self._left -= 1
            self._busy[run.group] = Active(run.id, "", run.pipeline, run.group)
            self._add(Start(run.id))

    def _conflict(self, run: Due, rule: Rule, busy: Active) -> None:
        who = f"run '{busy.name}'" if busy.name else "a run of its group"
        if rule.on_conflict == "skip":
            self._add(Skip(run.id, f"{who} was at work, and `on_conflict` is `skip`"))
            return
        if rule.on_conflict == "cancel_running" and busy.name:
            self._close(busy, "a newer run of its group takes its place", is_again=False)
        self._add(Hold(run.id, f"waits for {who}"))

    def _was_missed(self, run: Due, rule: Rule) -> bool:
        if run.is_held or rule.catch_up.get(run.trigger) != "none":
            return False
        return self._now - run.at > MISSED_AFTER

    def _close(self, run: Active, words: str, *, is_again: bool) -> None:
        if run.id not in self._closed:
            self._closed.add(run.id)
            self._add(Close(run.id, words, is_again))

    def _add(self, decision: Decision) -> None:
        self.decisions.append(decision)


def _newest(due: Sequence[Due], rules: Mapping[str, Rule]) -> dict[tuple[str, ...], Due]:
    """Give the newest of each kind of run whose newer ones take the place of older ones."""
    newest: dict[tuple[str, ...], Due] = {}
    for run in due:
        kind = _kind(run, rules[run.pipeline]) if run.pipeline in rules else ()
        known = newest.get(kind)
        if kind and (known is None or (known.at, known.id) < (run.at, run.id)):
            newest[kind] = run
    return newest


def _kind(run: Due, rule: Rule) -> tuple[str, ...]:
    """Say which runs are alike, so that the newest of them is enough; none: each one counts."""
    if rule.on_conflict == "cancel_running":
        return ("group", run.group)
    if rule.catch_up.get(run.trigger, "all") != "all":
        return ("schedule", run.pipeline, run.trigger)
    return ()


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
