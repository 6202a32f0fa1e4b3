"""When schedules come, and what was missed of them."""

from datetime import UTC, datetime, timedelta
from typing import get_args
from zoneinfo import ZoneInfo

import pytest

from paddock.runner.schedule.cron import MOST_MISSED, CatchUp, CronSchedule, missed, upcoming

PARIS = ZoneInfo("Europe/Paris")


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def test_a_schedule_comes_at_the_same_time_on_the_wall_all_year() -> None:
    timed = CronSchedule("0 6 * * 1-5", "Europe/Paris")
    winter = upcoming(timed, at(2026, 11, 20, 12), 1)
    summer = upcoming(timed, at(2027, 7, 1, 12), 1)
    assert [winter[0].hour, summer[0].hour] == [5, 4]


def test_what_would_fall_into_the_hour_left_out_comes_right_after_it() -> None:
    (moment,) = upcoming(CronSchedule("30 2 * * *", "Europe/Paris"), at(2027, 3, 27, 12), 1)
    assert moment.astimezone(PARIS) == datetime(2027, 3, 28, 3, tzinfo=PARIS)


def test_a_time_of_day_comes_once_when_the_clocks_are_put_back() -> None:
    moments = upcoming(CronSchedule("30 2 * * *", "Europe/Paris"), at(2026, 10, 24, 12), 2)
    assert moments[1] - moments[0] == timedelta(hours=25)


@pytest.mark.parametrize(
    ("macro", "fields"),
    [("@hourly", "0 * * * *"), ("@weekly", "0 0 * * 0"), ("@yearly", "0 0 1 1 *")],
)
def test_short_names_mean_their_five_fields(macro: str, fields: str) -> None:
    now = at(2026, 11, 20)
    assert upcoming(CronSchedule(macro), now) == upcoming(CronSchedule(fields), now)


def test_of_what_was_missed_none_the_latest_or_all_is_made_up_for() -> None:
    since, now = at(2026, 11, 20, 6), at(2026, 11, 20, 9, 30)
    made_up = {
        catch_up: missed(CronSchedule("0 * * * *", "UTC", catch_up), since, now)
        for catch_up in get_args(CatchUp)
    }
    assert made_up == {
        "none": [],
        "latest": [at(2026, 11, 20, 9)],
        "all": [at(2026, 11, 20, hour) for hour in (7, 8, 9)],
    }


def test_the_latest_is_found_behind_years_of_minutes_and_between_leap_years() -> None:
    now = at(2026, 11, 20, 9, 30)
    assert missed(CronSchedule("* * * * *"), at(2020, 1, 1), now) == [now]
    assert missed(CronSchedule("0 0 29 2 *", "UTC"), at(2020, 1, 1), now) == [at(2024, 2, 29)]
    assert missed(CronSchedule("0 0 29 2 *", "UTC"), at(2024, 3, 1), now) == []


def test_all_that_was_missed_is_bounded_and_the_newest_are_kept() -> None:
    now = at(2026, 11, 20, 9, 30)
    made_up = missed(CronSchedule("* * * * *", "UTC", "all"), now - timedelta(days=3), now)
    assert (len(made_up), made_up[-1]) == (MOST_MISSED, now)
