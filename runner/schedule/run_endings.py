"""What follows the end of a triggered run: it is started again after a crash, or not. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from paddock.runner.core.run_restarts import next_restart

StopReason = Literal["window", "cancelled", "suspended", "shutdown"]


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


_NOT_FINISHED = ("interrupted", "budget", "suspended")


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
    restart = next_restart(ending.attempt, max_restarts, has_progressed=ending.has_progressed)
    if restart is None:
        return NoRestart(is_given_up=True)
    words = f"{ending.crash}; start {restart.attempt} of at most {max_restarts + 1}"
    return RestartRun(now + timedelta(seconds=restart.pause_s), restart.attempt, words)
