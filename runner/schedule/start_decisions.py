"""Decide which due runs start, wait, are skipped or stopped. Pure.

Knows time windows, missed runs (`catch_up`), concurrency groups (`on_conflict`), priorities,
pauses, the limit on runs, and restarts; no Prefect, process or clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from paddock.engine.system.records import Struct
from paddock.engine.system.retry import Backoff
from paddock.runner.workers.order import OrderEnd

from .time_windows import TimeWindow

PAUSED = "waits: it is paused"

OnConflict = Literal["queue", "skip", "cancel_running"]
StopReason = Literal["window", "cancelled", "suspended", "shutdown"]
_UNFINISHED: Collection[OrderEnd] = ("interrupted", "budget", "suspended")
_CONTINUES: Mapping[StopReason | None, str] = {
    "window": "continues in its window",  # due at once: it is held as all runs are
    "shutdown": "continues after the end of `paddock up`",
}
_RESTART_BACKOFF = Backoff(first_s=5.0, longest_s=300.0, factor=3.0)


class RunRule(Struct, frozen=True):
    window: TimeWindow | None = None
    on_conflict: OnConflict = "queue"
    rank: int = 2
    """0: `interactive`, 1: `normal`, 2: `batch`; lower numbers start first."""
    latest_only: frozenset[str] = frozenset()
    """Keys of the schedules of which the newest due run stands for the others (`catch_up`)."""
    has_turns: bool = False
    """Its runs take turns with runs that are started by hand."""
    fault: str = ""
    """Why its ledger cannot be used now: a run would fail."""


class DueRun(Struct, frozen=True):
    id: str
    pipeline: str
    trigger: str
    at: datetime
    group: str
    is_paused: bool = False
    """A person holds back the runs of its pipeline, or of its trigger."""


class ActiveRun(Struct, frozen=True):
    id: str
    name: str
    pipeline: str
    group: str
    is_ending: bool = False
    """It was asked to stop already."""
    is_ours: bool = True
    """Else it has the turn of its group, whose name is its id: it was started by hand, say."""


class StartDecision(Struct, frozen=True):
    act: Literal["start", "hold", "skip", "cancel", "pause"]
    """`cancel`, `pause`: a running one stops after the current item, for good or for a while."""
    id: str
    message: str = ""


def dispatch(
    due: Sequence[DueRun],
    active: Sequence[ActiveRun],
    rules: Mapping[str, RunRule],
    now: datetime,
    max_runs: int,
) -> list[StartDecision]:
    """Return one decision for each due run, and one for each run that must stop.

    First runs that run outside their window. Then the due ones, by priority and time, each of which
    counts for the next:

    1. Its pipeline is gone, or a newer run takes its place: it is skipped.
    2. It is paused, its ledger broken, or its window closed: it waits.
    3. Its group is busy: `on_conflict` says what that means.
    4. It starts, once there is a slot.
    """
    decisions: list[StartDecision] = []
    n_left = max_runs - sum(run.is_ours for run in active)
    in_group = {run.group: run for run in active}
    closed = {run.id for run in active if run.is_ending}
    has_next = set[str]()
    """Groups of which a run waits already: the others' reason does not change with each run."""

    for job in active:
        window = rules[job.pipeline].window if job.pipeline in rules else None
        if window and not window.is_open(now) and job.id not in closed:
            closed.add(job.id)
            decisions.append(StartDecision("pause", job.id, f"its window {window} is over"))
    newest: dict[tuple[str, ...], DueRun] = {}
    for run in due:
        kind = _replaceable_kind(run, rules[run.pipeline]) if run.pipeline in rules else ()
        known = newest.get(kind)
        if kind and (known is None or (known.at, known.id) < (run.at, run.id)):
            newest[kind] = run
    ranks = {run.pipeline: rules[run.pipeline].rank if run.pipeline in rules else 0 for run in due}
    for run in sorted(due, key=lambda run: (ranks[run.pipeline], run.at, run.id)):
        rule = rules.get(run.pipeline)
        if rule is None:  # 1
            decisions.append(StartDecision("skip", run.id, "its pipeline no longer exists"))
            continue
        latest = newest.get(_replaceable_kind(run, rule), run)
        busy = in_group.get(run.group)
        if latest.id != run.id:
            at = f"{latest.at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            decisions.append(StartDecision("skip", run.id, f"the run of {at} takes its place"))
        elif run.is_paused:  # 2
            decisions.append(StartDecision("hold", run.id, PAUSED))
        elif rule.fault:
            decisions.append(StartDecision("hold", run.id, f"waits: {rule.fault}"))
        elif rule.window and not rule.window.is_open(now):
            decisions.append(StartDecision("hold", run.id, f"waits for its window {rule.window}"))
        elif busy is not None:  # 3
            holder = f"run '{busy.name}'" if busy.name else "a run of its group"
            if rule.on_conflict == "skip":
                message = f"{holder} was running, and `on_conflict` is `skip`"
                decisions.append(StartDecision("skip", run.id, message))
                continue
            if rule.on_conflict == "cancel_running" and busy.name and busy.id not in closed:
                closed.add(busy.id)
                message = "a newer run of its group takes its place"
                decisions.append(StartDecision("cancel", busy.id, message))
            if run.group in has_next:
                holder = "the runs of its group before it"
            has_next.add(run.group)
            decisions.append(StartDecision("hold", run.id, f"waits for {holder}"))
        elif n_left <= 0:  # 4
            runs = "1 run" if max_runs == 1 else f"{max_runs} runs"
            decisions.append(
                StartDecision("hold", run.id, f"waits for a free slot: {runs} at a time")
            )
        else:
            n_left -= 1
            in_group[run.group] = ActiveRun(run.id, "", run.pipeline, run.group)
            decisions.append(StartDecision("start", run.id))
    return decisions


def _replaceable_kind(run: DueRun, rule: RunRule) -> tuple[str, ...]:
    """Return the kind of a run that newer ones of the same kind replace; empty: each one counts."""
    if rule.on_conflict == "cancel_running":
        return ("group", run.group)
    if run.trigger in rule.latest_only:
        return ("schedule", run.pipeline, run.trigger)
    return ()


class Restart(Struct, frozen=True):
    message: str
    at: datetime
    attempt: int


def restart_of_crashed(
    died: str, n_starts: int, max_restarts: int, now: datetime
) -> Restart | None:
    if n_starts > max_restarts:
        return None
    at = now + timedelta(seconds=_RESTART_BACKOFF.pause_s(n_starts))
    message = f"{died}; start {n_starts + 1} of at most {max_restarts + 1}"
    return Restart(message, at, n_starts + 1)


def restart_of_stopped(
    end: OrderEnd, reason: StopReason | None, attempt: int, now: datetime
) -> Restart | None:
    message = _CONTINUES.get(reason) if end in _UNFINISHED else None
    return Restart(message, now, attempt) if message else None
