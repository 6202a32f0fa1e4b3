"""Planned runs of schedules: the next ones, and those that were missed."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.states import Scheduled

from paddock.runner.schedule.prefect_queue import open_queue
from paddock.runner.schedule.schedule_planner import SchedulePlanner
from paddock.runner.schedule.triggered_pipeline import read_triggered_pipeline
from paddock.runner.settings import read_settings
from tests.runner.bind.pipeline_faults import faults_of, sentences
from tests.runner.schedule.test_cron import set_zone as set_zone
from tests.runner.schedule.test_reconciler import SIGNER, hours, manager_of, put, triggered

STEPS = 'steps: [{uses: files.write, with: {path: out.txt, text: "x"}}]'
NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)


async def test_the_next_three_are_in_the_queue_once_and_what_was_missed_is_added(
    tmp_path: Path, prefect_api: str
) -> None:
    async with open_queue(prefect_api, SIGNER) as queue:
        manager = manager_of(queue)
        every = '{cron: "0 * * * *", timezone: UTC, catch_up: all}'
        deployment = await put(queue, manager, triggered(tmp_path, every))
        await SchedulePlanner(queue, manager).plan(NOW)
        await SchedulePlanner(queue, manager).plan(NOW)  # another `paddock up`, at the same moment
        assert hours(await queue.open_runs([deployment.id])) == [13, 14, 15]

        later = NOW + timedelta(hours=6)  # no one was there from 12:30 to 18:30
        planner = SchedulePlanner(queue, manager)
        await planner.plan(later)
        await planner.plan(later)
        runs = await queue.open_runs([deployment.id])
        assert hours(runs) == [13, 14, 15, 16, 17, 18, 19, 20, 21]
        assert {run.order["trigger"] for run in runs} == {"schedule 0 * * * * UTC"}

        other = await put(queue, manager, triggered(tmp_path, '{cron: "30 6 * * *"}'))
        assert other.id == deployment.id
        await planner.forget(other, runs)
        assert await queue.open_runs([deployment.id]) == []


async def test_what_a_stopped_up_planned_is_not_there_and_is_made_up_for_at_the_next_start(
    tmp_path: Path, prefect_api: str
) -> None:
    async with open_queue(prefect_api, SIGNER) as queue, PrefectClient(prefect_api) as client:
        manager = manager_of(queue, folder=tmp_path / "up")
        deployment = await put(queue, manager, triggered(tmp_path, '{cron: "0 * * * *"}'))
        planner, now = SchedulePlanner(queue, manager), datetime.now(UTC)
        await planner.plan(now)
        by_hand = await client.create_flow_run_from_deployment(
            UUID(deployment.id), state=Scheduled(scheduled_time=now + timedelta(days=1))
        )
        await planner.end()
        assert [run.id for run in await queue.open_runs([deployment.id])] == [str(by_hand.id)]

        later = now + timedelta(hours=5)
        again = manager_of(queue, folder=tmp_path / "up")
        again.deployments = manager.deployments
        await SchedulePlanner(queue, again).plan(later)
        runs = await queue.open_runs([deployment.id])
        due = sorted(run.at for run in runs if run.at <= later)
        assert [at.hour for at in due] == [later.hour]  # the latest of those it missed


async def test_what_was_planned_moves_when_the_machine_is_in_another_zone(
    tmp_path: Path, prefect_api: str, set_zone: Callable[[str], None]
) -> None:
    set_zone("Europe/Berlin")
    async with open_queue(prefect_api, SIGNER) as queue:
        manager = manager_of(queue)
        deployment = await put(queue, manager, triggered(tmp_path, '{cron: "0 6 * * *"}'))
        planner = SchedulePlanner(queue, manager)
        for zone, hour in (("Europe/Berlin", 5), ("America/New_York", 11), ("Asia/Tokyo", 21)):
            set_zone(zone)
            await planner.plan(NOW)
            await planner.plan(NOW)
            assert hours(await queue.open_runs([deployment.id])) == [hour] * 3
        set_zone("Europe/Berlin")
        again = SchedulePlanner(queue, manager)  # `paddock up` was killed meanwhile
        await again.forget(deployment, await queue.open_runs([deployment.id]), NOW)
        await again.plan(NOW)
        assert hours(await queue.open_runs([deployment.id])) == [5, 5, 5]


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


async def test_a_schedule_gives_its_runs_inputs(tmp_path: Path, prefect_api: str) -> None:
    text = """\
on:
  schedule:
    - {cron: "0 6 * * *", inputs: {tone: calm}}
    - {cron: "0 6 * * *", inputs: {tone: loud}}
inputs: {tone: {type: str, required: true}}
steps: [{uses: files.write, with: {path: out.txt, text: "{{ inputs.tone }}"}}]
"""
    file = tmp_path / "p.yaml"
    file.write_text(text)
    made = read_triggered_pipeline(file, text, read_settings(tmp_path))
    assert made is not None
    async with open_queue(prefect_api, SIGNER) as queue:
        manager = manager_of(queue)
        deployment = await put(queue, manager, made)
        await SchedulePlanner(queue, manager).plan(NOW)
        runs = await queue.open_runs([deployment.id])
    tones = [run.order["inputs"] for run in sorted(runs, key=lambda run: run.at)[:2]]
    assert sorted(tone["tone"] for tone in tones) == ["calm", "loud"], "both at six"


def test_inputs_of_a_schedule_that_cannot_be_are_faults(tmp_path: Path) -> None:
    text = """\
on: {schedule: {cron: "0 6 * * *", inputs: {tone: 5, folder: ../other, nope: 1}}}
inputs: {tone: {type: str, default: x}, folder: {type: dir, default: .}}
steps: [{uses: files.scan, with: {root: "{{ inputs.folder }}"}}]
"""
    assert sentences(faults_of(text, tmp_path / "p.yaml")) == [
        "the pipeline has no input 'nope'. Known: 'tone', 'folder'.",
        "input 'tone' must be text, not '5'.",
        "input 'folder' leads outside the pipeline's folder.",
    ]


async def test_what_is_caught_up_on_is_said_as_many_as_it_is(
    tmp_path: Path, prefect_api: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With `catch_up: latest` there is one run for all that were missed."""
    caplog.set_level("INFO", "paddock.up")
    async with open_queue(prefect_api, SIGNER) as queue:
        manager = manager_of(queue)
        every = '{cron: "0 * * * *", timezone: UTC, catch_up: latest}'
        await put(queue, manager, triggered(tmp_path, every))
        await SchedulePlanner(queue, manager).plan(NOW)
        await SchedulePlanner(queue, manager).plan(NOW + timedelta(hours=6))
    (said,) = (line for line in caplog.messages if "missed" in line)
    assert said.endswith(": 1 missed run of `0 * * * *` to catch up on")


async def test_a_clock_that_jumps_loses_no_run_and_stops_none(
    tmp_path: Path, prefect_api: str
) -> None:
    async with open_queue(prefect_api, SIGNER) as queue:
        manager = manager_of(queue)
        every = '{cron: "0 * * * *", timezone: UTC, catch_up: all}'
        deployment = await put(queue, manager, triggered(tmp_path, every))
        planner = SchedulePlanner(queue, manager)
        await planner.plan(NOW)
        await planner.plan(NOW + timedelta(hours=6))  # it slept from 12:30 to 18:30
        runs = await queue.open_runs([deployment.id])
        assert hours(runs) == [13, 14, 15, 16, 17, 18, 19, 20, 21]

        await planner.plan(NOW - timedelta(hours=4))  # it was ahead of the time
        await planner.plan(NOW - timedelta(hours=4))
        runs = await queue.open_runs([deployment.id])
        assert hours(runs) == [9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21]
        await planner.plan(NOW - timedelta(hours=1))
        assert hours(await queue.open_runs([deployment.id]))[:4] == [9, 10, 11, 12]
