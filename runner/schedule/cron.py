"""Cron schedules, and which of their runs were missed and are made up for (`catch_up`).

Pure, but for the machine's own zone. cronsim knows the moments of a clock that is never changed;
where clocks are put forward, what would fall into the gap runs right after it; where they are put
back, a time of day comes once, unless the schedule has every hour.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim

from paddock.pipelines.triggers import ScheduleKeys

MOST_MISSED = 1_000
LOOK_BACK = timedelta(days=30)
MISSED_AFTER = timedelta(seconds=60)
"""A run that starts later than this was missed, not delayed."""
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_STEPS_BACK = (timedelta(hours=2), timedelta(days=2), timedelta(days=62), timedelta(days=1_500))


def upcoming(timed: ScheduleKeys, after: datetime, n: int = 1) -> list[datetime]:
    """Return the next `n` moments after `after`, in UTC."""
    return list(islice(_moments(timed, after), n))


def due(timed: ScheduleKeys, since: datetime, now: datetime) -> list[datetime]:
    """Return the moments after `since` and up to now for which there is a run, oldest first.

    What was due more than a minute ago was missed: `catch_up` says what is made up for.
    """
    at_once = list(_until(timed, max(since, now - MISSED_AFTER), now))
    if timed.catch_up == "none":
        return at_once
    if timed.catch_up == "latest":
        latest = _latest(timed, since, now)
        return at_once or ([] if latest is None else [latest])
    since = max(since, now - LOOK_BACK)
    return list(deque(_until(timed, since, now), maxlen=MOST_MISSED))


def _latest(timed: ScheduleKeys, since: datetime, now: datetime) -> datetime | None:
    """Return the last moment without stepping through years of minutes."""
    for step in _STEPS_BACK:
        found = deque(_until(timed, max(since, now - step), now), maxlen=1)
        if found:
            return found[0]
    return None


def _until(timed: ScheduleKeys, since: datetime, now: datetime) -> Iterator[datetime]:
    return takewhile(lambda moment: moment <= now, _moments(timed, since))


class _MachineZone(tzinfo):
    """This machine's zone, with all its changes of the clock, as the C library knows it.

    From `TZ`, a name or a rule, or `/etc/localtime`; `astimezone()` alone keeps one offset.
    """

    def utcoffset(self, at: datetime | None) -> timedelta | None:
        return at.replace(tzinfo=None).astimezone().utcoffset() if at else None

    def dst(self, at: datetime | None) -> None: ...

    def tzname(self, at: datetime | None) -> None: ...

    def fromutc(self, at: datetime) -> datetime:
        naive = datetime.fromtimestamp(at.replace(tzinfo=UTC).timestamp())  # noqa: DTZ006 - local
        return naive.replace(tzinfo=self)


def _moments(timed: ScheduleKeys, after: datetime) -> Iterator[datetime]:
    """Yield every moment after `after`, once; cronsim gives up after 50 years without one."""
    zone = ZoneInfo(timed.timezone) if timed.timezone else _MachineZone()
    start = after.astimezone(zone)
    # In the first of two equal hours, the second one's moments begin before the clock's time
    begin = start.replace(tzinfo=None, fold=0) - max(_repeats_after(start), timedelta())
    clock = CronSim(_MACROS.get(timed.cron, timed.cron), begin)
    is_every_hour = len(clock.hours) == 24
    again: deque[datetime] = deque()
    for time_of_day in clock:
        local = time_of_day.replace(tzinfo=zone)
        shift = _repeats_after(local)
        moment = _gap_end(local) if shift < timedelta() else local.astimezone(UTC)
        while again and again[0] < moment:
            if again[0] > after:
                yield (after := again[0])
            again.popleft()
        if moment > after:  # what falls into a gap has one moment
            yield (after := moment)
        if is_every_hour and shift > timedelta():
            again.append(moment + shift)


def _repeats_after(local: datetime) -> timedelta:
    """Return when a time of the clock comes again: zero for never, less in a gap."""
    offsets = [local.replace(fold=fold).utcoffset() or timedelta() for fold in (0, 1)]
    return timedelta() if local.fold else offsets[0] - offsets[1]


def _gap_end(local: datetime) -> datetime:
    """Return the moment at which the clock skips this time."""
    early, late = (local.replace(fold=fold).astimezone(UTC) for fold in (1, 0))
    before = early.astimezone(local.tzinfo).utcoffset()
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) // 2
        if middle.astimezone(local.tzinfo).utcoffset() == before:
            early = middle
        else:
            late = middle
    return late.replace(microsecond=0)
