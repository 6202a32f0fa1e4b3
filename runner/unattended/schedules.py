"""When a schedule's runs are due, and which were missed. Pure; knows no Prefect.

Prefect's own scheduler is not asked: with the SQLAlchemy that resolves beside Prefect 3.8.8 it
fails at every turn ("Can't evaluate bulk DML statement"), and it knows nothing of what it missed
while it was away for longer than it had planned ahead. Where clocks are put forward, what would
fall into the gap runs right after it; where they are put back, a time of day comes once (cronsim's
rules, those of Debian's cron).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Literal
from zoneinfo import ZoneInfo

CatchUp = Literal["none", "latest", "all"]

AHEAD = 3  # runs that are shown before they are due
MOST_MISSED = 1_000
LOOK_BACK = timedelta(days=30)
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_STEPS_BACK = (timedelta(hours=2), timedelta(days=2), timedelta(days=62), timedelta(days=1_500))


@dataclass(frozen=True, slots=True)
class Timed:
    """A schedule, as a file has it."""

    cron: str
    timezone: str | None = None
    """The zone in which `cron` is read; None: this machine's."""
    catch_up: CatchUp = "latest"

    @property
    def key(self) -> str:
        """Name it, as long as it is the same schedule.

        >>> Timed("0 6 * * *", "Europe/Paris").key
        'schedule 0 6 * * * Europe/Paris'
        """
        return " ".join(filter(None, ("schedule", self.cron, self.timezone)))


def upcoming(timed: Timed, after: datetime, n: int = AHEAD) -> list[datetime]:
    """Give the next moments behind `after`, in UTC."""
    return list(islice(_moments(timed, after), n))


def missed(timed: Timed, since: datetime, now: datetime) -> list[datetime]:
    """Give what was due after `since` and up to now and has to be made up for, oldest first.

    `since` is the last moment that is known to have been seen to.
    """
    if timed.catch_up == "none":
        return []
    if timed.catch_up == "latest":
        latest = _latest(timed, since, now)
        return [] if latest is None else [latest]
    since = max(since, now - LOOK_BACK)
    return list(deque(_until(timed, since, now), maxlen=MOST_MISSED))


def _latest(timed: Timed, since: datetime, now: datetime) -> datetime | None:
    """Find the last moment without counting through years of minutes."""
    for step in _STEPS_BACK:
        found = deque(_until(timed, max(since, now - step), now), maxlen=1)
        if found:
            return found[0]
    return None


def _until(timed: Timed, since: datetime, now: datetime) -> Iterator[datetime]:
    return takewhile(lambda moment: moment <= now, _moments(timed, since))


def _moments(timed: Timed, after: datetime) -> Iterator[datetime]:
    """Give every moment behind `after`; cronsim gives up after 50 years without one."""
    from cronsim import CronSim

    zone = ZoneInfo(timed.timezone) if timed.timezone else None
    start = after.astimezone(zone)
    for moment in CronSim(_MACROS.get(timed.cron, timed.cron), start):
        yield moment.astimezone(UTC)
