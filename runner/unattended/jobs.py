"""A run at work: its process, why it was told to stop, and what is said of it. Knows no Prefect."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .endings import Done, Ending, GoOn, Stopped
from .executor import End, Running
from .schedules import missed
from .standing import Standing

if TYPE_CHECKING:
    from .tracked import Tracked

GENTLE_S = 900.0  # an item may be a long document; what is cut off then is done again
AT_ONCE_S = 20.0

log = logging.getLogger("paddock.up")


@dataclass(frozen=True)
class Post:
    """A pipeline that stands ready, and its deployment."""

    standing: Standing
    deployment: str


@dataclass
class Job:
    """A run at work."""

    tracked: Tracked
    post: Post
    group: str
    running: Running
    stopped: Stopped | None = None
    is_adopted: bool = False
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def attempt(self) -> int:
        """Which start this is since the run last got on, the first being 1."""
        return int(self.tracked.parameters.get("attempt") or 1)

    def as_json(self) -> dict[str, Any]:
        """Tell of it."""
        return {
            "run": self.running.run or None,
            "flow_run": self.tracked.id,
            "pipeline": self.post.standing.pipeline.name,
            "trigger": self.tracked.parameters.get("trigger"),
            "attempt": self.attempt,
            "pid": self.running.pid,
            "is_stopping": self.stopped is not None,
            "waits_for": self.running.waits_for or None,
        }


async def brought_to_end(running: Running, words: str, *, is_cancelled: bool) -> None:
    """Have a run stop at an item's border, at once when that takes long, in the end by force."""
    running.halt(words, is_gentle=True, is_interrupted=is_cancelled)
    await asyncio.sleep(GENTLE_S)
    at_once(running)
    await asyncio.sleep(AT_ONCE_S)
    by_force(running)


def at_once(running: Running) -> None:
    """Have a run stop, what is in flight given up."""
    running.halt("", is_gentle=False)


def by_force(running: Running) -> None:
    """End a run's process, and what it started."""
    running.kill()


def is_superseded(job: Job, now: datetime) -> bool:
    """Return whether a later run of the same schedule does what is left of this one.

    Of missed runs `catch_up: latest` wants one, and one that was interrupted before is such a run.
    """
    if job.post.standing.rule.on_conflict == "skip":  # then the later one was left out
        return False
    trigger = job.tracked.parameters.get("trigger")
    schedules = (one for one in job.post.standing.schedules if one.key == trigger)
    return any(
        one.catch_up == "latest" and bool(missed(one, job.tracked.at, now)) for one in schedules
    )


def tell_end(job: Job, end: End, ending: Ending, next_: Done | GoOn) -> None:
    """Say how a run ended, in one line."""
    name = job.post.standing.pipeline.name
    run = job.running.run or job.tracked.name
    if ending.crash is not None:
        what = f"crashed: {ending.crash}"
    elif end.report is not None:
        counts = ", ".join(f"{n} {state}" for state, n in end.report.counts.items() if n)
        is_told = end.report.message and not counts  # by the machines that did it, say
        words = counts or ("" if is_told else end.report.done_in_words())
        message = f": {end.report.message}" if end.report.message else ""
        what = f"{end.report.status}{f' ({words})' if words else ''}{message}"
    else:
        what = f"{ending.status}{': ' if end.words else ''}{end.words}"
    level = logging.INFO
    if ending.crash is not None or ending.status == "failed":
        level = logging.ERROR
    log.log(level, "%s: run %s %s", name, run, what)
    if isinstance(next_, GoOn):
        at = f"{next_.at.astimezone():%H:%M:%S}"
        log.info("%s: queued again for %s: %s", name, at, next_.words)
    elif next_.is_given_up:
        log.error("%s: run %s is not started again.", name, run)
