"""What follows the end of an order's run: it is started again after a crash, or not. Pure.

A crash ends a process, not a run: the next start goes on from the ledger. A run that failed said
why, and is not started again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from paddock.engine.system.light_dataclasses import dataclass
from paddock.engine.system.retry import Backoff

RESTART_BACKOFF = Backoff(first_s=5.0, longest_s=300.0, factor=3.0)

StopReason = Literal["window", "cancelled", "suspended", "shutdown"]
_NOT_FINISHED = ("interrupted", "budget", "suspended")


@dataclass(frozen=True, slots=True)
class RunEnding:
    """How a process ended, and what it was asked before."""

    attempt: int
    crash: str | None = None
    """How it died; None: it reported its end."""
    status: str = "failed"
    """A report's status, or `failed` where an error ended it."""
    stopped: StopReason | None = None
    """Why it was asked to stop, if it was."""
    has_progressed: bool = False
    """For a crash: it made progress before, or is known to have died of one item."""


@dataclass(frozen=True, slots=True)
class NoRestart:
    """No restart; `is_given_up`: it crashed once too often."""

    is_given_up: bool = False


@dataclass(frozen=True, slots=True)
class RestartRun:
    """Restart it."""

    at: datetime
    attempt: int
    words: str


def after_ending(ending: RunEnding, now: datetime, *, max_restarts: int) -> NoRestart | RestartRun:
    has_finished = ending.crash is None and ending.status not in _NOT_FINISHED
    if has_finished or ending.stopped == "cancelled":
        return NoRestart()
    if ending.stopped == "window":
        # Due at once: it is held as all runs are, and may continue when the file changes.
        return RestartRun(now, ending.attempt, "continues in its window")
    if ending.stopped == "shutdown":
        return RestartRun(now, ending.attempt, "continues after the end of `paddock up`")
    if ending.crash is None:
        return NoRestart()
    # A start that made progress is not counted: such a run comes to its end, since the ledger
    # bounds how often an item may end it (`RunStore.has_progressed`).
    attempt = 1 if ending.has_progressed else ending.attempt
    if attempt > max_restarts:
        return NoRestart(is_given_up=True)
    words = f"{ending.crash}; start {attempt + 1} of at most {max_restarts + 1}"
    at = now + timedelta(seconds=RESTART_BACKOFF.pause_s(attempt))
    return RestartRun(at, attempt + 1, words)
