"""What schedules put into the queue, in a real Prefect server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paddock.engine.settings import PoolSettings
from paddock.runner.daemon.prefect_auth import Signer
from paddock.runner.schedule.prefect_queue import PrefectQueue, QueuedRun, QueueError, open_queue
from paddock.runner.schedule.reconciler import Reconciler
from paddock.runner.schedule.run_manager import Deployment, ManagerOptions, RunManager
from paddock.runner.schedule.schedule_planner import SchedulePlanner
from paddock.runner.schedule.triggered_pipeline import TriggeredPipeline, read_triggered_pipeline
from paddock.runner.settings import Settings

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
SIGNER = Signer(b"the key of these tests")
STEPS = "steps: [{id: docs, uses: files.scan, with: {root: .}}]\n"


def triggered(folder: Path, schedule: str) -> TriggeredPipeline:
    text = f"name: {folder.name}\non: {{schedule: [{schedule}]}}\n{STEPS}"
    made = read_triggered_pipeline(folder / "p.yaml", text, Settings(PoolSettings(), folder))
    assert made is not None
    return made


async def put(asked: PrefectQueue, office: RunManager, one: TriggeredPipeline) -> Deployment:
    post = Deployment(one, await asked.deploy(one.key, one.pipeline.name, one.version, ""))
    office.posts[one.key] = post
    return post


def office_of(
    asked: PrefectQueue, auth_string: str = "", max_runs: int = 1, **more: Any
) -> RunManager:
    async def given_up(post: Deployment, run: str, words: str) -> None:
        raise AssertionError(words)

    options = ManagerOptions(max_runs, 1, given_up, auth_string=auth_string, **more)
    return RunManager(asked, SIGNER, options)


def hours(runs: list[QueuedRun]) -> list[int]:
    return [run.at.hour for run in runs]


async def test_a_server_that_moved_is_asked_at_its_new_address(
    tmp_path: Path, prefect_api: str
) -> None:
    async with open_queue("http://127.0.0.1:9/api", SIGNER) as asked:
        with pytest.raises(QueueError, match="All connection attempts failed"):
            await asked.deployments()
        await asked.move(prefect_api)
        assert asked.api_url == prefect_api
        await put(asked, office_of(asked), triggered(tmp_path, '{cron: "0 6 * * *"}'))


async def test_the_next_three_are_in_the_queue_once_and_what_was_missed_is_added(
    tmp_path: Path, prefect_api: str
) -> None:
    async with open_queue(prefect_api, SIGNER) as asked:
        office = office_of(asked)
        every = '{cron: "0 * * * *", timezone: UTC, catch_up: all}'
        post = await put(asked, office, triggered(tmp_path, every))
        await SchedulePlanner(asked, office).plan(NOW)
        await SchedulePlanner(asked, office).plan(NOW)  # another `paddock up`, at the same moment
        assert hours(await asked.open_runs([post.deployment])) == [13, 14, 15]

        later = NOW + timedelta(hours=6)  # no one was there from 12:30 to 18:30
        planner = SchedulePlanner(asked, office)
        await planner.plan(later)
        await planner.plan(later)
        runs = await asked.open_runs([post.deployment])
        assert hours(runs) == [13, 14, 15, 16, 17, 18, 19, 20, 21]
        assert {run.order["trigger"] for run in runs} == {"schedule 0 * * * * UTC"}

        other = await put(asked, office, triggered(tmp_path, '{cron: "30 6 * * *"}'))
        assert other.deployment == post.deployment
        await planner.forget(other, runs)
        assert await asked.open_runs([post.deployment]) == []


async def test_a_clock_that_jumps_loses_no_run_and_stops_none(
    tmp_path: Path, prefect_api: str
) -> None:
    async with open_queue(prefect_api, SIGNER) as asked:
        office = office_of(asked)
        every = '{cron: "0 * * * *", timezone: UTC, catch_up: all}'
        post = await put(asked, office, triggered(tmp_path, every))
        planner = SchedulePlanner(asked, office)
        await planner.plan(NOW)
        await planner.plan(NOW + timedelta(hours=6))  # it slept from 12:30 to 18:30
        runs = await asked.open_runs([post.deployment])
        assert hours(runs) == [13, 14, 15, 16, 17, 18, 19, 20, 21]

        await planner.plan(NOW - timedelta(hours=4))  # it was ahead of the time
        await planner.plan(NOW - timedelta(hours=4))
        runs = await asked.open_runs([post.deployment])
        assert hours(runs) == [9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21]
        await planner.plan(NOW - timedelta(hours=1))
        assert hours(await asked.open_runs([post.deployment]))[:4] == [9, 10, 11, 12]


async def test_a_pipeline_that_is_new_has_missed_nothing(tmp_path: Path, prefect_api: str) -> None:
    async with open_queue(prefect_api, SIGNER) as asked:
        office = office_of(asked)
        post = await put(asked, office, triggered(tmp_path, '{cron: "0 6 * * *"}'))
        await SchedulePlanner(asked, office).plan(NOW)
        runs = await asked.open_runs([post.deployment])
        assert len(runs) == 3
        assert all(run.at > NOW for run in runs)


async def test_a_pipeline_without_a_form_in_prefect_is_in_service_all_the_same(
    tmp_path: Path, prefect_api: str
) -> None:
    async def watched(post: Deployment) -> None: ...

    text = "inputs: {class: {type: str, default: a}}\n"
    text = f"name: {tmp_path.name}\n{text}on: {{schedule: [{{cron: '0 6 * * *'}}]}}\n{STEPS}"
    one = read_triggered_pipeline(tmp_path / "p.yaml", text, Settings(PoolSettings(), tmp_path))
    assert one is not None
    async with open_queue(prefect_api, SIGNER) as asked:
        office, parts = office_of(asked), SimpleNamespace(put=watched)
        unused: Any = None
        reconciler = Reconciler(asked, office, parts, unused, unused, is_open=False)  # type: ignore[arg-type]
        await reconciler.reconcile({one.key: one})
        assert list(office.posts) == [one.key]
