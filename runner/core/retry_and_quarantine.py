"""When a step is retried, and an item quarantined that keeps failing or crashing.

Pure functions decide when a step is retried, an item quarantined, a crashed run restarted. A
failure is transient where another try may succeed with nothing changed: a time-out, a lost worker,
a full queue, a disk or network folder that failed. A fault of the document itself is not.
A crash ends a process, not a run: the next start goes on from the ledger. A run that failed said
why, and is not started again.

The ledger notes each item before its steps begin, and removes the note however the item ends:
done, failed, cancelled, stopped. A note of a run that is gone therefore names an item that was in
flight when the process was killed: a crash suspect. Suspects run after the others, those with the
fewest crashes first, with as many others as `engine.system.crash_suspects` says. What is done is a
suspect no longer. An item is quarantined once it died alone `max_attempts` - 1 times, and once at
least.

A crashed run without suspects, since all that was in flight has been done by another, was killed
from outside. Where that happens often, an item also dies often by chance: it may have more crashes
before it runs with fewer others, and dies more often alone before it is quarantined. Figures of
what this costs and finds: `tests/runner/core/test_crash_simulation.py`.

An output over the results of a block is not made again where all items behind it failed: the old
one is worth more than an empty one, and the next run, with the fault mended, makes it. Where some
failed, the run says which are missing (`LackingItems`).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from types import MappingProxyType
from typing import Literal

from paddock.engine.errors import (
    Busy,
    DeadlineExceeded,
    EngineError,
    ModelBroken,
    ModelNotFound,
    ModelReplaced,
    ModelTooLarge,
    ModelUnusable,
    NoServer,
    WorkerLost,
)
from paddock.engine.system.crash_suspects import KILLS_COUNT_FOR_S, n_by_chance, n_together
from paddock.engine.system.retry import Backoff
from paddock.engine.system.text import listed
from paddock.pipelines.expressions import ExpressionError
from paddock.runner.bind.bound import BoundRetry, BoundStep
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.entries import AttemptRow, LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_history import DIED, run_status
from paddock.steps.base import StepError

from .block_work import ItemWork

RESTART_BACKOFF = Backoff(first_s=5.0, longest_s=300.0, factor=3.0)


@dataclass(frozen=True, slots=True)
class Restart:
    """Start again, as this attempt, after a pause."""

    attempt: int
    pause_s: float


def next_restart(attempt: int, max_restarts: int, *, has_progressed: bool) -> Restart | None:
    """Return the restart after a crash of this attempt, counted from 1; None: give up.

    A start that made progress is not counted: such a run comes to its end, since the ledger bounds
    how often an item may end it (`Ledger.has_progressed`).

    >>> next_restart(1, 3, has_progressed=False), next_restart(4, 3, has_progressed=False)
    (Restart(attempt=2, pause_s=5.0), None)
    >>> next_restart(4, 3, has_progressed=True)
    Restart(attempt=2, pause_s=5.0)
    """
    attempt = 1 if has_progressed else attempt
    if attempt > max_restarts:
        return None
    return Restart(attempt + 1, RESTART_BACKOFF.pause_s(attempt))


TRANSIENT_CAUSES = frozenset(("timeout", "worker", "busy", "io"))
MISSING_PACKAGE = "missing"
"""This machine lacks a package or a program; never counted against the item."""
NOT_REVIEWED = "review"
"""A review is due, and the run was told to ask no one; the next run may."""

MAX_RETRY_PAUSE_S = 60.0
# A full queue is not the document's fault: by default it is retried for 1 + 2 + 4 + 8 + 16 s.
MAX_BUSY_RETRIES = 5

# How a pause grows with each turn. After a deadline the time has passed already, and a failed
# check asks again with its faults: there is nothing to wait for.
_GROWTH: Mapping[str, float] = MappingProxyType({"timeout": 1.0, "check": 0.0})
_DEFAULT_GROWTH = 2.0

FailureState = Literal["failed", "quarantined"]


def times(retry: BoundRetry, cause: str) -> int:
    """Return how often a step is retried after a failure of this cause.

    >>> times(BoundRetry(), "busy"), times(BoundRetry(), "timeout")
    (5, 0)
    >>> given = BoundRetry(times=2, is_given=True)
    >>> times(given, "busy"), times(given, "io")
    (2, 0)
    """
    if not retry.is_given and cause == "busy":
        return MAX_BUSY_RETRIES
    return retry.times if cause in retry.on else 0


def retry_pause_s(cause: str, turn: int, backoff_s: float, chance: float) -> float:
    """Return the pause after try `turn`; `chance`, 0 to 1, spreads those that failed at once.

    >>> [retry_pause_s("busy", turn, 1.0, 1.0) for turn in (0, 1, 2, 9)]
    [1.0, 2.0, 4.0, 60.0]
    >>> retry_pause_s("busy", 2, 1.0, 0.0)
    2.0
    >>> retry_pause_s("timeout", 2, 1.0, 1.0), retry_pause_s("check", 2, 1.0, 1.0)
    (1.0, 0.0)
    """
    growth = _GROWTH.get(cause, _DEFAULT_GROWTH)
    whole = min(backoff_s * growth**turn, MAX_RETRY_PAUSE_S) if growth else 0.0
    return whole * (0.5 + chance / 2)


def failure_state(n_before: int, most: int, cause: str) -> tuple[FailureState, int]:
    """Return the state of a failed item, and its failures in a row for transient causes.

    `failed` is retried by the next run; `quarantined` only when it, or its steps, have changed, or
    with `--retry-failed`.

    >>> failure_state(1, 3, "io"), failure_state(2, 3, "io"), failure_state(1, 3, "other")
    (('failed', 2), ('quarantined', 3), ('quarantined', 0))
    >>> failure_state(0, 3, "missing"), failure_state(2, 3, "missing")
    (('failed', 1), ('failed', 2))
    """
    if cause in (MISSING_PACKAGE, NOT_REVIEWED):
        return "failed", max(n_before, 1)  # above zero: the item around it is retried as well
    if cause not in TRANSIENT_CAUSES:
        return "quarantined", 0
    n_now = n_before + 1
    return ("quarantined" if n_now >= most else "failed"), n_now


FATAL_ERRORS = (ModelNotFound, ModelBroken, ModelReplaced, ModelTooLarge, ModelUnusable, NoServer)
"""Errors that every other item would meet."""

UNUSABLE_MODEL_ERRORS = (ModelNotFound, ModelBroken, ModelTooLarge)
"""Those that another model in the YAML would fix."""


class RunStopped(Exception):
    """The run cannot go on: a full disk, a missing model, a ledger that cannot be written."""


class RunFailed(RunStopped):
    """A step or an item failed. In a sub-pipeline, only the item around it fails."""

    def __init__(self, words: str, *, cause: str = "other") -> None:
        self.cause = cause
        """As `retry.on` names it."""
        super().__init__(words)


class StepFailed(Exception):
    """A step did not succeed, after its retries: the sentence names the step."""

    def __init__(self, step: str, reason: str, *, cause: str = "other") -> None:
        self.step = step
        self.reason = reason
        self.cause = cause
        """As `retry.on` names it; decides whether another try may succeed."""
        super().__init__(f"step '{step}': {reason}")


class LeftByReview(StepFailed):
    """No one decided in time, and `on_expiry` says that the item is skipped."""


def is_step_skipped(step: BoundStep, scope: Scope) -> bool:
    """Return whether `if` is false, or the step reads more than `skipped` of a skipped step.

    Raises:
        StepFailed: the condition cannot be evaluated.
    """
    if reads_skipped(step.references - step.after_answer, scope):
        return True
    if step.if_ is None:
        return False
    try:
        return not step.if_.evaluate(scope)
    except ExpressionError as error:
        raise StepFailed(step.id, str(error)) from error


def reads_skipped(references: frozenset[tuple[str, ...]], scope: Scope) -> bool:
    """Return whether one of these references needs the outputs of a skipped step."""
    return any(
        path[0] == "steps"
        and len(path) > 1
        and path[2:3] != ("skipped",)
        and scope.is_skipped(path[1])
        for path in references
    )


def cause_of(error: StepError | EngineError) -> str:
    """Return the name of an error in `retry.on`."""
    if isinstance(error, StepError):
        return error.kind
    if isinstance(error, DeadlineExceeded):
        return "timeout"
    if isinstance(error, WorkerLost):
        return "worker"
    return "busy" if isinstance(error, Busy) else "other"


def stop_if_fatal(error: StepError | EngineError, step: BoundStep) -> None:
    """Raise `RunStopped` for an error that every other item would meet, too."""
    is_fatal = error.is_fatal if isinstance(error, StepError) else False
    if is_fatal or isinstance(error, FATAL_ERRORS):
        at = f"{step.mark.file}:{step.mark.line}:{step.mark.column}: "
        raise RunStopped(
            f"{at if isinstance(error, UNUSABLE_MODEL_ERRORS) else ''}{error}"
        ) from error


ItemPlace = tuple[str, str]
"""An item: its scope and its key."""

GIVEN_UP = ""
"""The run of a note without a crash: the item was quarantined for its crashes until then."""


class RepeatedCrash(StepFailed):
    """The process died too often while it worked on this item."""

    def __init__(self, step: str, n_deaths: int) -> None:
        times = "once" if n_deaths == 1 else f"{n_deaths} times"
        super().__init__(
            step,
            f"the run's process died {times} while it worked on this (killed, often for lack of "
            f"memory, or crashed); `--retry-failed` tries it again",
        )

    def __str__(self) -> str:
        """Return the sentence without a step: none is known to be the cause."""
        return self.reason


@dataclass(frozen=True, slots=True)
class CrashHistory:
    """Crashes that an item is suspected of."""

    n_deaths: int
    """0: an item within it is a suspect, or it was quarantined before."""
    runs: tuple[str, ...]
    """The runs that crashed, also during an item within it."""
    was_given_up: bool = False
    """It, or an item within it, was quarantined for crashes before."""
    n_kills: int = 0
    """How many runs were killed from outside lately."""

    def n_together(self, n_parallel: int) -> int:
        """Return with how many others it may run, itself included, of `n_parallel` at most."""
        return n_together(n_parallel, len(self.runs), self.n_kills) if not self.was_given_up else 1

    def is_deadly(self, n_parallel: int, max_attempts: int) -> bool:
        """Return whether it is quarantined now: the last of its deaths it had alone.

        >>> [CrashHistory(n, ("owl",) * n).is_deadly(6, 3) for n in (4, 5)]
        [False, True]
        >>> [CrashHistory(n, ("owl",) * n).is_deadly(6, 1) for n in (3, 4)]
        [False, True]
        """
        n_halvings = 0 if self.was_given_up else n_parallel.bit_length() - 1
        max_attempts = max(max_attempts, 2 if n_halvings else 1)  # the first death alone is the 2nd
        # Of 2,400 simulated runs with 16 or 32 in parallel and a kill in each 1 to 1.5 times of an
        # item: with 2 for each, 49 innocent items were quarantined; with 3, 4.
        return self.n_deaths >= max_attempts + n_halvings + 3 * n_by_chance(self.n_kills)


class CrashSuspects:
    """The notes of this run, and those of crashed runs. Lives in one loop."""

    def __init__(self, ledger: Ledger, run: str, dead_after_s: float) -> None:
        self._ledger = ledger
        self._run = run
        self._dead_after_s = dead_after_s
        self._left: dict[ItemPlace, list[AttemptRow]] = {}
        self._within: dict[ItemPlace, set[str]] = {}
        """Items around suspects → the runs that crashed."""
        self._n_kills = 0
        self._begun: dict[ItemPlace, AttemptRow] = {}
        self._is_stopped = False

    async def look(self, scope: str = "", keys: Collection[str] = ()) -> None:
        """Read the notes of crashed runs: all, or those of some items of a scope."""
        ask = self._ledger.ask
        found = await ask(self._ledger.attempts_left, self._dead_after_s, scope, keys)
        for row in found:
            if row.run == self._run:
                continue
            rows = self._left.setdefault((row.scope, row.key), [])
            rows[:] = [*(one for one in rows if one.run != row.run), row]
            if row.around_scope is not None and row.around_key is not None:
                self._within.setdefault((row.around_scope, row.around_key), set()).add(row.run)
        if found and not scope:
            self._n_kills = await ask(self._kills)

    def _kills(self) -> int:
        """Return how many runs were killed from outside."""
        rows = self._ledger.running_without_attempts(time.time() - KILLS_COUNT_FOR_S)
        return sum(row.run != self._run and run_status(row, self._ledger) == DIED for row in rows)

    def of(self, scope: str, item: ItemWork) -> CrashHistory | None:
        """Return an item's crashes; None: it is no suspect.

        An item that changed since, or that the same run recorded, is no suspect.
        """
        place = (scope, item.key)
        recorded = item.unchanged_entry.run if item.unchanged_entry is not None else None
        notes = self._left.get(place, ())
        rows = [row for row in notes if row.hash == item.hash and row.run != recorded]
        within = self._within.get(place, set())
        if not rows and not within:
            return None
        given_up_at = max((row.at for row in rows if row.run == GIVEN_UP), default=-inf)
        crashes = {row.run for row in rows if row.at > given_up_at}
        return CrashHistory(
            # A crash of a nested item is counted there.
            n_deaths=len(crashes - within),
            runs=tuple(sorted(crashes | within - {GIVEN_UP})),
            was_given_up=given_up_at > -inf or GIVEN_UP in within,
            n_kills=self._n_kills,
        )

    async def begin(self, scope: str, item: ItemWork, around: ItemPlace | None) -> None:
        """Record durably that an item begins; `around` is the item around it."""
        if self._is_stopped:
            return
        outer = around or (None, None)
        row = AttemptRow(scope, item.key, self._run, item.hash, time.time(), *outer)
        self._begun[scope, item.key] = row
        self._ledger.record_attempt(row)
        await self._ledger.durable()

    def end(
        self, scope: str, key: str, *, is_recorded: bool = False, is_repeated_crash: bool = False
    ) -> None:
        """Record that an item has ended in order; may be called again.

        `is_recorded`: it has an entry now, and is a suspect no longer; `is_repeated_crash`: its
        notes remain, since they say what those runs died of. Where it is tried again some day, it
        runs alone.
        """
        place = (scope, key)
        own = self._begun.pop(place, None)
        with suppress(LedgerError):  # raised where the entry is awaited
            if own is not None:
                self._ledger.drop_attempt(own)
            if not is_recorded:
                return
            self._within.pop(place, None)
            left = self._left.pop(place, ())
            if is_repeated_crash and left:
                self._ledger.record_attempt(replace(left[-1], run=GIVEN_UP, at=time.time()))
                return
            for row in left:
                self._ledger.drop_attempt(row)

    def stop(self) -> None:
        """Remove every note: from now on, the process ends on request."""
        self._is_stopped = True
        for scope, key in list(self._begun):
            self.end(scope, key)


def suspects_text(suspects: Sequence[tuple[str, CrashHistory]], n_parallel: int) -> str:
    """Return a note on which items are suspects.

    >>> once, twice = CrashHistory(1, ("owl",)), CrashHistory(2, ("owl", "elk"))
    >>> suspects_text([("a.pdf", once), ("b.pdf", once)], 6)
    "run 'owl' died while it worked on 2 items; they are done last: a.pdf, b.pdf"
    >>> suspects_text([("a.pdf", once), ("b.pdf", twice)], 2)
    "runs 'elk', 'owl' died while they worked on 2 items; they are done last, 1 of them one at a \
time: a.pdf, b.pdf"
    """
    runs = sorted({run for _, known in suspects for run in known.runs})
    named = listed([f"'{run}'" for run in runs])
    if not runs:
        who = "a run died while it worked on"
    elif len(runs) == 1:
        who = f"run {named} died while it worked on"
    else:
        who = f"runs {named} died while they worked on"
    n_alone = sum(known.n_together(n_parallel) == 1 for _, known in suspects)
    if len(suspects) == 1:
        what = f"1 item; it is done last{', alone' if n_alone else ''}"
    else:
        what = f"{len(suspects):,} items; they are done last"
        alone = f"{n_alone:,} of them " if n_alone < len(suspects) else ""
        what += f", {alone}one at a time" if n_alone else ""
    return f"{who} {what}: {listed([key for key, _ in suspects])}"


MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class LackingItems:
    """Items of a block that failed, so that what reads its results lacks theirs."""

    block: str
    keys: tuple[str, ...]
    n_all: int
    """Of failed items and those with a result; skipped and waiting ones are not counted."""
    error: str
    """Of the first one."""
    is_transient: bool

    @property
    def has_nothing(self) -> bool:
        """Whether no item has a result."""
        return len(self.keys) == self.n_all

    def why_left(self) -> str:
        """Return why a step that reads the results is left as it is."""
        if self.n_all == 1:
            return f"the only item of '{self.block}' failed"
        return f"all {self.n_all:,} items of '{self.block}' failed"

    def note(self, step: str) -> str:
        """Return what a step lacks that was made of the other items."""
        n, named = len(self.keys), listed(self.keys, MAX_NAMED)
        of = f"{n:,} of {self.n_all:,} items of '{self.block}', which failed"
        return f"'{step}' is made without {of}: {named}"


def lacking_of(
    references: frozenset[tuple[str, ...]], lacking: Mapping[str, LackingItems]
) -> list[LackingItems]:
    """Return the blocks whose results are read and lack items; `failed` and `counts` tell it."""
    if not lacking:
        return []
    read = {
        path[1]
        for path in references
        if path[:1] == ("steps",) and len(path) > 1 and path[2:3] in ((), ("results",))
    }
    return [lacking[block] for block in sorted(read & lacking.keys())]


def refuse_empty_results(
    step: str, references: frozenset[tuple[str, ...]], lacking: Mapping[str, LackingItems]
) -> None:
    """Raise `StepFailed` where a step would read a nested block's results, and all items failed."""
    for one in lacking_of(references, lacking):
        if one.has_nothing:
            cause = "io" if one.is_transient else "other"
            raise StepFailed(step, f"{one.why_left()}: {one.error}", cause=cause)
