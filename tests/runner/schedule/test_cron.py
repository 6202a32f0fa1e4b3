"""When schedules come, and what was missed of them."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from operator import methodcaller
from zoneinfo import ZoneInfo, available_timezones

import pytest

from paddock.pipelines.triggers import ScheduleKeys
from paddock.runner.schedule.cron import MOST_MISSED, due, upcoming

ZONES = {
    "Europe/Berlin": "CET-1CEST,M3.5.0,M10.5.0/3",
    "America/New_York": "EST5EDT,M3.2.0,M11.1.0",
    "Australia/Lord_Howe": "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
    "Africa/Casablanca": "",  # its clock follows the moon, which no rule can say
    "Asia/Kathmandu": "<+0545>-5:45",
    "UTC": "UTC0",
}
"""Zones, with the rules of POSIX for them."""


@pytest.fixture
def set_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Set the machine's zone as `TZ` does."""

    def set_to(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield set_to
    monkeypatch.undo()
    time.tzset()


def when_the_clock_gets_there(
    name: str, cron: str, start: datetime, end: datetime
) -> Iterator[datetime]:
    """Yield the first moment of each time of day, from every quarter of an hour's own clock."""
    minute, hour, day, _, _ = cron.split()
    zone, last = ZoneInfo(name), start.astimezone(ZoneInfo(name)).replace(tzinfo=None)
    while start < end:
        start += timedelta(minutes=15)
        clock = start.astimezone(zone).replace(tzinfo=None)
        if hour == "*":
            yield start
            continue
        planned = last.replace(hour=int(hour), minute=int(minute))
        for moment in (planned, planned + timedelta(days=1)):
            if last < moment <= clock and day in ("*", str(moment.day)):
                yield start
        last = max(last, clock)  # a time that comes twice was there before


@pytest.mark.parametrize("cron", ["0 6 * * *", "30 2 * * *", "0 6 1 * *", "*/15 * * * *"])
@pytest.mark.parametrize("zone", ZONES)
def test_schedules_without_a_zone_follow_the_machines_for_twelve_months(
    zone: str, cron: str, set_zone: Callable[[str], None]
) -> None:
    start, end = at(2026, 8, 15, 12), at(2027, 8, 15, 12)
    expected = list(when_the_clock_gets_there(zone, cron, start, end))
    days = [start + timedelta(days=n) for n in range(366)]
    offsets = [day.astimezone(ZoneInfo(zone)).utcoffset() for day in days]
    changes = [day for day, (old, new) in zip(days, pairwise(offsets), strict=False) if old != new]
    assert bool(changes) == (zone not in ("Asia/Kathmandu", "UTC"))
    for since in (start, *changes):
        coming = [moment for moment in expected if moment > since][:366]
        assert upcoming(schedule(cron=cron, timezone=zone), since, len(coming)) == coming
        for written in filter(None, (zone, f":{zone}", ZONES[zone])):
            set_zone(written)
            assert upcoming(schedule(cron=cron), since, len(coming)) == coming


COMES: dict[str, Callable[[datetime], bool]] = {
    "* * * * *": lambda _: True,
    "*/15 * * * *": lambda at: at.minute % 15 == 0,
    "45 * * * *": lambda at: at.minute == 45,
    "10 0-23 * * *": lambda at: at.minute == 10,
    "*/30 2 * * *": lambda at: at.hour == 2 and at.minute % 30 == 0,
    "*/5 2 * * 0": lambda at: at.hour == 2 and at.minute % 5 == 0 and at.isoweekday() == 7,
    "0 */2 * * *": lambda at: at.hour % 2 == 0 and at.minute == 0,
    "* 1 * * *": lambda at: at.hour == 1,
    "10,40 0-3 * * *": lambda at: at.hour < 4 and at.minute in (10, 40),
    "15 23 * * *": lambda at: (at.hour, at.minute) == (23, 15),
    "0 0 * * *": lambda at: (at.hour, at.minute) == (0, 0),
    "*/20 0,23 * * *": lambda at: at.hour in (0, 23) and at.minute % 20 == 0,
    "59 1,2 * * 6,0": lambda at: at.hour in (1, 2) and at.minute == 59 and at.isoweekday() > 5,
}
"""Schedules, and what they say of a clock on the wall."""


OFFSET = methodcaller("utcoffset")


def changes_of_the_clock() -> Iterator[tuple[str, datetime]]:
    """Yield each day on which a zone's clock is put on or back, once for each time and shift."""
    starts = at(2011, 9, 1), at(2026, 1, 1)  # in December 2011 Samoa had no 30th
    days = [start + timedelta(days=n) for start in starts for n in range(700)]
    seen = set()
    for name in sorted(available_timezones()):
        offsets = [day.astimezone(ZoneInfo(name)).utcoffset() for day in days]
        for day, (old, new) in zip(days, pairwise(offsets), strict=False):
            if old == new or day == days[699]:
                continue
            quarters = [day + timedelta(minutes=15 * n) for n in range(97)]
            clocks = [quarter.astimezone(ZoneInfo(name)) for quarter in quarters]
            before, after = next(two for two in pairwise(clocks) if len({*map(OFFSET, two)}) > 1)
            change = before.time(), after.time(), OFFSET(after) - OFFSET(before), day.year < 2026
            if change not in seen:
                seen.add(change)
                yield name, day


def test_what_falls_into_an_hour_left_out_runs_right_after_it_and_an_hour_twice_once() -> None:
    changes = list(changes_of_the_clock())
    assert len(changes) > 30
    for name, day in changes:
        minutes = [day + timedelta(minutes=n) for n in range(-600, 2_400)]
        clocks = [minute.astimezone(ZoneInfo(name)).replace(tzinfo=None) for minute in minutes]
        for cron, comes in COMES.items():
            expected, last = [], clocks[0]
            for minute, clock in zip(minutes, clocks, strict=True):
                n_new = (clock - last) // timedelta(minutes=1)
                is_again = n_new <= 0 and cron.split()[1] in ("*", "0-23")
                new = [clock - timedelta(minutes=n) for n in range(is_again or n_new)]
                expected += [minute] if any(map(comes, new)) else []
                last = max(last, clock)
            n_starts = len(expected) // 5 + 1
            for since in (minutes[0], *expected[1::n_starts], *minutes[600:2_200:97]):
                coming = [moment for moment in expected if moment > since]
                coming = coming if since == minutes[0] else coming[:5]
                found = upcoming(schedule(cron, name), since, len(coming))
                assert found == coming, (name, day, cron, since)


@pytest.mark.parametrize("timezone", ["Europe/Berlin", None])
def test_each_moment_comes_once_though_an_hour_is_left_out_or_comes_twice(
    timezone: str | None, set_zone: Callable[[str], None]
) -> None:
    set_zone("Europe/Berlin")
    timed = schedule(cron="0,30 2 * * *", timezone=timezone)
    assert upcoming(timed, at(2027, 3, 27, 12), 3) == [
        at(2027, 3, 28, 1), at(2027, 3, 29), at(2027, 3, 29, 0, 30)
    ]  # fmt: skip
    assert upcoming(timed, at(2026, 10, 25, 1, 10), 1) == [at(2026, 10, 26, 1)], "not 2:30 again"


def schedule(cron: str, timezone: str | None = None, catch_up: str = "latest") -> ScheduleKeys:
    keys = {"cron": cron, "timezone": timezone, "catch_up": catch_up}
    return ScheduleKeys.model_validate(keys)


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def test_of_what_was_missed_none_the_latest_or_all_is_made_up_for() -> None:
    since, now = at(2026, 11, 20, 6), at(2026, 11, 20, 9, 30)
    made_up = {
        catch_up: due(schedule(cron="0 * * * *", timezone="UTC", catch_up=catch_up), since, now)
        for catch_up in ("none", "latest", "all")
    }
    assert made_up == {
        "none": [],
        "latest": [at(2026, 11, 20, 9)],
        "all": [at(2026, 11, 20, hour) for hour in (7, 8, 9)],
    }


def test_all_that_was_missed_is_bounded_and_the_newest_are_kept() -> None:
    now = at(2026, 11, 20, 9, 30)
    made_up = due(schedule("* * * * *", "UTC", "all"), now - timedelta(days=3), now)
    assert (len(made_up), made_up[-1]) == (MOST_MISSED, now)
