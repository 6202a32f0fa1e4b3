"""How long Prefect keeps what it knows of runs."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import Settings

from paddock.engine.system.process_marks import process_mark
from paddock.runner.daemon import prefect_retention
from paddock.runner.daemon.prefect_retention import end_orphans, retention_settings
from tests.prefect_server import prefect_client as client_of


def read_by_prefect(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> dict[str, Any]:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    server = Settings().server
    vacuum = server.services.db_vacuum
    return {
        "types": {*vacuum.enabled_vacuum_types} - {"orphans"},  # new in 3.9
        "runs": vacuum.retention_period.total_seconds(),
        "events": server.events.retention_period.total_seconds(),
        "heartbeats": {k: v.total_seconds() for k, v in vacuum.event_retention_overrides.items()},
    }


def test_prefect_understands_how_long_it_keeps_runs_and_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert read_by_prefect(monkeypatch, retention_settings(14 * 86_400)) == {
        "types": {"events", "flow_runs"},
        "runs": 14 * 86_400,
        "events": 14 * 86_400,
        "heartbeats": {"prefect.flow-run.heartbeat": 86_400},
    }


def made(api: str, name: str, state: str | None) -> str:
    with client_of(api) as client:

        def posted(path: str, body: dict[str, Any]) -> dict[str, Any]:
            return dict(client.post(path, json=body).raise_for_status().json())

        flow = posted("/flows/", {"name": "kept"})["id"]
        flow_run = {"name": name, "flow_id": flow, "state": {"type": "RUNNING"}}
        run = posted("/flow_runs/", flow_run)["id"]
        if state is not None:
            posted(f"/flow_runs/{run}/set_state", {"state": {"type": state}, "force": True})
        return str(run)


async def test_a_run_whose_process_was_killed_has_ended_with_its_tasks(
    prefect_api: str, tmp_path: Path
) -> None:
    gone, here, elsewhere = (made(prefect_api, name, None) for name in ("gone", "here", "else"))
    with client_of(prefect_api) as client, subprocess.Popen(["sleep", "600"]) as killed:  # noqa: ASYNC220
        marks = {gone: process_mark(killed.pid), here: process_mark(os.getpid())}
        killed.kill()
        for run, mark in marks.items():
            client.patch(f"/flow_runs/{run}", json={"infrastructure_pid": mark}).raise_for_status()
        about = {"flow_run_id": gone, "task_key": "a", "dynamic_key": "a"}
        running = {**about, "state": {"type": "RUNNING"}}
        task = client.post("/task_runs/", json=running).raise_for_status().json()["id"]
        killed.wait()
        await end_orphans(prefect_api, tmp_path)
        places = [f"/task_runs/{task}", *(f"/flow_runs/{run}" for run in (gone, here, elsewhere))]
        states = [client.get(place).json()["state_type"] for place in places]
    assert states == ["CRASHED", "CRASHED", "RUNNING", "RUNNING"]


async def test_a_task_whose_end_did_not_arrive_has_ended_with_its_run_and_none_of_other_flows(
    prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [made(prefect_api, name, "COMPLETED") for name in ("ours", "foreign")]
    tasks = []
    with client_of(prefect_api) as client:
        client.patch(f"/flow_runs/{runs[0]}", json={"tags": ["paddock"]}).raise_for_status()
        for run in runs:
            about = {"flow_run_id": run, "task_key": "a", "dynamic_key": "a"}
            pending = {**about, "state": {"type": "PENDING"}}
            tasks.append(client.post("/task_runs/", json=pending).raise_for_status().json()["id"])

        async def states() -> list[str]:
            await end_orphans(prefect_api, tmp_path)
            return [client.get(f"/task_runs/{task}").json()["state_type"] for task in tasks]

        monkeypatch.setattr(prefect_retention, "_ARRIVES_S", 3600.0)
        assert await states() == ["PENDING", "PENDING"]  # it may still arrive
        monkeypatch.setattr(prefect_retention, "_ARRIVES_S", 0.0)
        assert await states() == ["CRASHED", "PENDING"]
