"""What schedules put into the queue, in a real Prefect server."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paddock.engine.settings import PoolSettings
from paddock.runner.daemon.run_signatures import Signer
from paddock.runner.schedule.prefect_queue import PrefectQueue, QueuedRun, QueueError, open_queue
from paddock.runner.schedule.reconciler import Reconciler
from paddock.runner.schedule.run_manager import Deployment, ManagerOptions, RunManager
from paddock.runner.schedule.triggered_pipeline import TriggeredPipeline, read_triggered_pipeline
from paddock.runner.settings import Settings

SIGNER = Signer(b"the key of these tests")
STEPS = "steps: [{id: docs, uses: files.scan, with: {root: .}}]\n"


def triggered(folder: Path, schedule: str) -> TriggeredPipeline:
    text = f"name: {folder.name}\non: {{schedule: [{schedule}]}}\n{STEPS}"
    made = read_triggered_pipeline(folder / "p.yaml", text, Settings(PoolSettings(), folder))
    assert made is not None
    return made


async def put(queue: PrefectQueue, manager: RunManager, pipeline: TriggeredPipeline) -> Deployment:
    deployment = Deployment(
        pipeline, await queue.deploy(pipeline.key, pipeline.pipeline.name, pipeline.version, "")
    )
    manager.deployments[pipeline.key] = deployment
    return deployment


def manager_of(
    queue: PrefectQueue, auth_string: str = "", max_runs: int = 1, **extra: Any
) -> RunManager:
    async def given_up(deployment: Deployment, run: str, words: str) -> None:
        raise AssertionError(words)

    options = ManagerOptions(max_runs, 1, given_up, auth_string=auth_string, **extra)
    return RunManager(queue, SIGNER, options)


def hours(runs: list[QueuedRun]) -> list[int]:
    return [run.at.hour for run in runs]


async def test_a_server_that_moved_is_asked_at_its_new_address(
    tmp_path: Path, prefect_api: str
) -> None:
    async with open_queue("http://127.0.0.1:9/api", SIGNER) as queue:
        with pytest.raises(QueueError, match="All connection attempts failed"):
            await queue.deployments()
        await queue.move(prefect_api)
        assert queue.api_url == prefect_api
        await put(queue, manager_of(queue), triggered(tmp_path, '{cron: "0 6 * * *"}'))


async def test_a_pipeline_without_a_form_in_prefect_is_in_service_all_the_same(
    tmp_path: Path, prefect_api: str
) -> None:
    async def watched(deployment: Deployment) -> None: ...

    text = "inputs: {class: {type: str, default: a}}\n"
    text = f"name: {tmp_path.name}\n{text}on: {{schedule: [{{cron: '0 6 * * *'}}]}}\n{STEPS}"
    pipeline = read_triggered_pipeline(
        tmp_path / "p.yaml", text, Settings(PoolSettings(), tmp_path)
    )
    assert pipeline is not None
    async with open_queue(prefect_api, SIGNER) as queue:
        manager, parts = manager_of(queue), SimpleNamespace(put=watched, accept=watched)
        unused: Any = None
        reconciler = Reconciler(queue, manager, parts, unused, parts, is_open=False)  # type: ignore[arg-type]
        await reconciler.reconcile({pipeline.key: pipeline})
        assert list(manager.deployments) == [pipeline.key]
