"""When a pipeline may work, on any clock."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from paddock.runner.schedule.time_windows import TimeWindow

PARIS = ZoneInfo("Europe/Paris")
times = st.times().map(lambda at: at.replace(second=0, microsecond=0))
zones = st.sampled_from([UTC, PARIS, ZoneInfo("America/St_Johns"), ZoneInfo("Australia/Lord_Howe")])
moments = st.integers(0, 3 * 365 * 24 * 60).map(
    lambda minutes: datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
)


@given(times, times, zones, moments)
def test_it_is_open_when_it_is_said_to_open(
    start: time, end: time, zone: ZoneInfo, now: datetime
) -> None:
    window = TimeWindow(start, end, zone)
    opens = window.opens(now)
    assert opens >= now.replace(microsecond=0) - timedelta(seconds=1)
    assert opens - now <= timedelta(days=2)
    assert (opens == now) == window.is_open(now) or opens == now
    if window.is_open(now):
        assert opens == now


@given(times, times, moments)
def test_without_changes_of_the_clock_it_opens_at_its_beginning(
    start: time, end: time, now: datetime
) -> None:
    window = TimeWindow(start, end, UTC)
    opens = window.opens(now)
    assert window.is_open(opens)
    if opens != now:
        assert opens.timetz().replace(tzinfo=None) == start


def test_a_window_past_midnight_is_open_on_both_sides_of_it() -> None:
    window = TimeWindow.of("22:00-07:00", PARIS)
    seen = [window.is_open(datetime(2026, 11, 20, hour, tzinfo=PARIS)) for hour in range(24)]
    assert [hour for hour in range(24) if seen[hour]] == [0, 1, 2, 3, 4, 5, 6, 22, 23]


def test_it_opens_at_the_same_hour_on_the_wall_before_and_after_the_clocks_change() -> None:
    window = TimeWindow.of("22:00-07:00", PARIS)
    before = window.opens(datetime(2027, 3, 27, 12, tzinfo=PARIS))
    after = window.opens(datetime(2027, 3, 28, 12, tzinfo=PARIS))
    assert (before.hour, after.hour) == (21, 20)  # in UTC


def test_an_opening_in_the_hour_that_is_left_out_is_right_after_it() -> None:
    opens = TimeWindow.of("02:30-05:00", PARIS).opens(datetime(2027, 3, 28, 0, tzinfo=PARIS))
    assert opens == datetime(2027, 3, 28, 3, 30, tzinfo=PARIS)
