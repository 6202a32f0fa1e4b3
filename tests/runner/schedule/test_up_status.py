"""What `/status` counts as running and as waiting."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from paddock.runner.schedule.prefect_queue import QueuedRun
from paddock.runner.schedule.run_manager import Deployment, ManagedRun
from paddock.runner.schedule.run_processes import RunProcess
from paddock.runner.schedule.up_status import status_of
from tests.runner.schedule.test_reconciler import triggered

AT = datetime(2026, 11, 21, 6, tzinfo=UTC)


def test_what_a_person_has_to_confirm_stands_with_the_pipeline(tmp_path: Path) -> None:
    deployment = Deployment(triggered(tmp_path, '{cron: "0 6 * * *"}'), "deployment")
    missing = {deployment.triggered.key: ("'inbox' is not the folder …",)}
    manager = SimpleNamespace(deployments={"p": deployment}, jobs={}, queue=[], missing=missing)
    others = SimpleNamespace(next_times=lambda key, now: [], status=lambda key: [])
    reconciler = SimpleNamespace(planner=others, watching=others)
    status = status_of(cast(Any, manager), cast(Any, reconciler))
    assert status["pipelines"][0]["missing"] == ("'inbox' is not the folder …",)


async def test_a_run_that_has_not_been_let_in_waits_and_does_not_run(tmp_path: Path) -> None:
    deployment = Deployment(triggered(tmp_path, '{cron: "0 6 * * *"}'), "deployment")

    def tracked(name: str) -> QueuedRun:
        return QueuedRun(name, name, "deployment", "running", AT, AT, words="at six")

    runs = ManagedRun(tracked("runs"), deployment, "", RunProcess(os.getpid()))
    held = ManagedRun(tracked("held"), deployment, "", RunProcess(os.getpid()))
    held.running.waits_for = "Waiting for another run of group 'nightly'."
    jobs = {"runs": runs, "held": held}
    later = replace(tracked("planned"), at=datetime(9999, 1, 1, tzinfo=UTC))
    manager = SimpleNamespace(deployments={}, jobs=jobs, queue=[tracked("queued"), later])
    status = status_of(cast(Any, manager), cast(Any, None))
    assert [run["flow_run"] for run in status["running"]] == ["runs"]
    assert (status["waiting"], status["planned"]) == (2, 1), "its schedule is not due yet"
    assert [(run["flow_run"], run["state"]) for run in status["queue"]] == [
        ("held", "Waiting for another run of group 'nightly'."),
        ("queued", "at six"),
        ("planned", "at six"),
    ]
