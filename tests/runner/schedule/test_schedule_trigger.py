"""The orders that a schedule gives: as its times come, after sleep, a restart and a set clock."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from paddock.runner.schedule import schedule_trigger
from paddock.runner.schedule.order_queue import OrderQueue
from paddock.runner.schedule.schedule_trigger import ScheduleTrigger
from paddock.runner.schedule.triggered_pipeline import read_triggered_pipeline
from paddock.runner.settings import read_settings
from tests.runner.bind.pipeline_faults import faults_of, sentences
from tests.runner.schedule.desks import STEPS, at_work, desk_of, open_queue, triggered
from tests.runner.schedule.test_cron import set_zone as set_zone
from tests.waiting import eventually

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)


class Clock:
    """The time, as it is told."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now
        self.n_asked = 0

    def __call__(self) -> datetime:
        self.n_asked += 1
        return self.now

    async def set(self, now: datetime) -> None:
        """Set it, and wait until it has been looked at."""
        self.now, before = now, self.n_asked
        await eventually(lambda: self.n_asked > before + 4)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule_trigger, "LOOK_S", 0.01)


def hours(queue: OrderQueue) -> list[int]:
    return [datetime.fromtimestamp(order.due_at, UTC).hour for order in queue.orders.values()]


@pytest.mark.parametrize(
    ("catch_up", "after_sleep", "after_restart"),
    [
        ("none", [13], []), ("latest", [13, 18], [23]),
        ("all", [13, 14, 15, 16, 17, 18], [19, 20, 21, 22, 23]),
    ],
)  # fmt: skip
async def test_a_time_gives_one_order_and_what_was_missed_is_made_up_for(
    tmp_path: Path, catch_up: str, after_sleep: list[int], after_restart: list[int]
) -> None:
    on = f'{{schedule: {{cron: "0 * * * *", timezone: UTC, catch_up: {catch_up}}}}}'
    pipeline, clock = triggered(tmp_path, on), Clock()
    async with open_queue(tmp_path, pipeline) as queue:
        trigger = ScheduleTrigger(pipeline.schedules[0], pipeline, clock)
        async with at_work(trigger, desk_of(queue, pipeline, trigger)):
            await clock.set(NOW)
            assert queue.orders == {}
            await clock.set(NOW + timedelta(minutes=30, seconds=1))
            await clock.set(NOW + timedelta(minutes=31))
            assert hours(queue) == [13]
            await clock.set(NOW + timedelta(hours=6))  # it slept from 13:01 to 18:30
            assert hours(queue) == after_sleep
    async with open_queue(tmp_path, pipeline) as queue:
        clock.now = NOW + timedelta(hours=11)  # it was off until 23:30
        trigger = ScheduleTrigger(pipeline.schedules[0], pipeline, clock)
        async with at_work(trigger, desk_of(queue, pipeline, trigger)):
            await clock.set(clock.now)
            assert hours(queue) == after_sleep + after_restart


async def test_a_clock_that_jumps_loses_no_run_and_repeats_none(tmp_path: Path) -> None:
    pipeline = triggered(tmp_path, '{schedule: {cron: "0 * * * *", timezone: UTC}}')
    clock = Clock()
    async with open_queue(tmp_path, pipeline) as queue:
        trigger = ScheduleTrigger(pipeline.schedules[0], pipeline, clock)
        async with at_work(trigger, desk_of(queue, pipeline, trigger)):
            await clock.set(NOW)
            await clock.set(NOW + timedelta(minutes=31))
            await clock.set(NOW - timedelta(hours=1))  # it was ahead of the time
            await clock.set(NOW + timedelta(minutes=31))
            assert hours(queue) == [13]
            await clock.set(NOW + timedelta(days=30))
            await clock.set(NOW + timedelta(hours=1, minutes=31))  # it was wrong by a month
            await clock.set(NOW + timedelta(hours=2, minutes=31))
            assert hours(queue) == [13, 12, 15]


async def test_times_follow_the_machines_zone_and_are_shown_in_it(
    tmp_path: Path, set_zone: Callable[[str], None]
) -> None:
    pipeline = triggered(tmp_path, '{schedule: {cron: "0 6 * * *"}}')
    trigger = ScheduleTrigger(pipeline.schedules[0], pipeline)
    shown = []
    for zone in ("Europe/Berlin", "Asia/Tokyo"):
        set_zone(zone)
        shown.append(trigger.status(NOW))
    assert shown == [
        {"text": "next 2026-11-21 06:00 CET", "next": "2026-11-21T06:00:00+01:00"},
        {"text": "next 2026-11-21 06:00 JST", "next": "2026-11-21T06:00:00+09:00"},
    ]


async def test_a_schedule_gives_its_runs_inputs(tmp_path: Path) -> None:
    on = """\

  schedule:
    - {cron: "0 13 * * *", timezone: UTC, inputs: {tone: calm}}
    - {cron: "0 13 * * *", timezone: UTC, inputs: {tone: loud}}
inputs: {tone: {type: str, required: true}}"""
    steps = 'steps: [{uses: files.write, with: {path: out.txt, text: "{{ inputs.tone }}"}}]\n'
    pipeline, clock = triggered(tmp_path, on, steps), Clock()
    async with open_queue(tmp_path, pipeline) as queue:
        calm, loud = (ScheduleTrigger(timed, pipeline, clock) for timed in pipeline.schedules)
        async with (
            at_work(calm, desk_of(queue, pipeline, calm)),
            at_work(loud, desk_of(queue, pipeline, loud)),
        ):
            await clock.set(NOW)
            await clock.set(NOW + timedelta(minutes=31))
            await eventually(lambda: len(queue.orders) == 2)
        tones = sorted(order.inputs["tone"] for order in queue.orders.values())
        assert tones == ["calm", "loud"]


def test_a_window_is_in_the_schedules_zone_or_names_its_own(tmp_path: Path) -> None:
    def text(window: str, *zones: str) -> str:
        schedule = ", ".join(f'{{cron: "0 6 * * *"{zone}}}' for zone in zones)
        return f'on: {{schedule: [{schedule}], window: "{window}"}}\n{STEPS}'

    file = tmp_path / "p.yaml"
    paris, tokyo = ", timezone: Europe/Paris", ", timezone: Asia/Tokyo"
    for written, shown in (
        (text("22:00-07:00", paris, paris), "22:00-07:00 Europe/Paris"),
        (text("22:00-07:00", ""), "22:00-07:00"),
        (text("22:00-07:00 UTC", paris, tokyo, ""), "22:00-07:00 UTC"),
    ):
        file.write_text(written)
        made = read_triggered_pipeline(file, written, read_settings(tmp_path))
        assert made is not None
        assert str(made.window) == shown
    assert sentences(faults_of(text("22:00-07:00", paris, ""), file)) == [
        "'window' must name its time zone, such as '22:00-07:00 Europe/Paris': the schedules are in"
        " several (Europe/Paris, this machine's); it is '22:00-07:00'."
    ]
    assert sentences(faults_of(text("22:00-07:00 Berln", paris), file)) == [
        "'window' must be a time zone such as Europe/Paris or UTC; it is '22:00-07:00 Berln'."
    ]
