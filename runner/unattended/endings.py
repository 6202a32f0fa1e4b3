"""What follows the end of a run's process: nothing, another start, or giving up. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from paddock.runner.restarts import again

Stopped = Literal["window", "cancelled", "shutdown"]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended, and what it had been told before."""

    attempt: int
    crash: str | None = None
    """How it died; None: it said itself how it ended."""
    status: str = "failed"
    """What it said: a report's status, or `failed` where an error ended it."""
    stopped: Stopped | None = None
    """Why it was told to stop, if it was."""
    has_progressed: bool = False
    """Of a crash: it did something before, or is known to have died of one item."""


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing follows; `is_given_up`: it crashed once too often."""

    is_given_up: bool = False


@dataclass(frozen=True, slots=True)
class GoOn:
    """Start it again."""

    at: datetime
    attempt: int
    words: str


def follow(ending: Ending, now: datetime, *, max_restarts: int) -> Done | GoOn:
    """Tell what follows."""
    has_finished = ending.crash is None and ending.status not in ("interrupted", "budget")
    if has_finished or ending.stopped == "cancelled":
        return Done()
    if ending.stopped == "window":
        # Due at once: it is held back as everything else is, and may go on when the file changes.
        return GoOn(now, ending.attempt, "goes on in its window")
    if ending.stopped == "shutdown":
        return GoOn(now, ending.attempt, "goes on where `paddock up` was ended")
    if ending.crash is None:
        return Done()
    # A run that gets on comes to its end: the ledger bounds how often an item may end it.
    attempt = 1 if ending.has_progressed else ending.attempt
    once_more = again(attempt, max_restarts)
    if once_more is None:
        return Done(is_given_up=True)
    words = f"{ending.crash}; start {once_more.attempt} of at most {max_restarts + 1}"
    return GoOn(now + timedelta(seconds=once_more.pause_s), once_more.attempt, words)
