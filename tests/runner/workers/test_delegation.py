"""Jobs against a real Prefect server; the test is the workers, and says how their shares end."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from paddock.engine.system import http
from paddock.runner.daemon.prefect_client import TrackingError
from paddock.runner.daemon.run_signatures import Signer
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.own_state import folder_identity
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.prefect_view import SHARE_TAG
from paddock.runner.progress.report import FailOn, ItemReport, Report
from paddock.runner.settings import STATE_FOLDER
from paddock.runner.workers.delegation import SharedJob, delegate_job
from tests.prefect_server import prefect_client
from tests.waiting import soon

WITHIN_S = 120.0
SUSPENDED_NOTE = "share 1 is suspended in Prefect; resume it there"
SIGNER = Signer(b"the key of these tests")


class Workers:
    """What Prefect has of a job's shares."""

    def __init__(self, api: httpx.Client) -> None:
        self.pool = f"pool-{uuid4().hex[:8]}"
        name = f"letters-{uuid4().hex[:8]}"
        self.job = SharedJob(
            name, "letters", Path("/srv/letters/p.yaml"), {}, self.pool, SIGNER, n_shares=2
        )
        self._api = api
        self.api_url = str(api.base_url)
        self.notes: list[str] = []
        self._post("/work_pools/", {"name": self.pool, "type": "process"})

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._api.post(path, json=body).raise_for_status().json()

    def shares(self) -> list[dict[str, Any]]:
        """Return the shares of the job, by number."""
        body = {"flow_runs": {"tags": {"all_": [SHARE_TAG, self.job.name]}}}
        found = self._post("/flow_runs/filter", body)
        return sorted(
            found, key=lambda run: (run["parameters"]["Paddock"]["share"], run["created"])
        )

    def say(self, number: int, kind: str, message: str = "") -> None:
        """Return a share that has not ended a state."""
        ended = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        for run in self.shares():
            if run["parameters"]["Paddock"]["share"] == number and run["state_type"] not in ended:
                state = {"type": kind, "message": message}
                self._post(f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})

    def delete(self, number: int) -> None:
        """Delete a share, as a person does on Prefect's page."""
        for run in self.shares():
            if run["parameters"]["Paddock"]["share"] == number:
                self._api.delete(f"/flow_runs/{run['id']}").raise_for_status()

    def pause_deployment(self) -> None:
        deployment = self.shares()[0]["deployment_id"]
        self._api.post(f"/deployments/{deployment}/pause_deployment").raise_for_status()

    def states(self) -> list[str]:
        return [run["state_name"] for run in self.shares()]

    async def until(self, states: list[str]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while await asyncio.to_thread(self.states) != states:  # noqa: ASYNC110 - Prefect tells no one
                await asyncio.sleep(0.1)


@pytest.fixture
def workers(prefect_api: str) -> Iterator[Workers]:
    with prefect_client(prefect_api) as api:
        yield Workers(api)


async def _delegated(workers: Workers, **options: Any) -> Report:
    async with http.client(workers.api_url) as api:
        return await delegate_job(api, workers.job, note=workers.notes.append, **options)


def begun(
    workers: Workers, *, is_handed_over: bool = False
) -> tuple[asyncio.Event, asyncio.Task[Report]]:
    stop = asyncio.Event()
    coming = _delegated(workers, stop=stop, is_handed_over=lambda: is_handed_over)
    return stop, asyncio.create_task(coming)


async def test_a_job_that_is_passed_on_is_taken_up_with_the_shares_that_are_there(
    workers: Workers,
) -> None:
    stop, first = begun(workers, is_handed_over=True)
    await workers.until(["Scheduled", "Scheduled"])
    await soon(lambda: workers.notes)
    await asyncio.sleep(1.5)
    no_worker = f"no worker of '{workers.pool}' is online; waiting for one"
    assert set(workers.notes) == {no_worker}
    workers.say(1, "RUNNING")
    await soon(lambda: workers.notes[-1] == "")
    stop.set()
    assert (await first).status == "interrupted"
    assert workers.states() == ["Running", "Scheduled"]

    _, killed = begun(workers)  # and no one is told
    await asyncio.sleep(1.5)
    killed.cancel()
    _, last = begun(workers)
    await asyncio.sleep(1.5)
    assert workers.states() == ["Running", "Scheduled"]
    workers.say(1, "COMPLETED", "9 new")
    report = await last
    assert (report.run, report.status) == (workers.job.name, "completed")
    assert report.message == "9 new"
    # What no one has begun is not left for a worker that has time tomorrow.
    assert [(run["state_name"], run["state"]["message"]) for run in workers.shares()] == [
        ("Completed", "9 new"),
        ("Cancelled", "The job was done before this one began."),
    ]


async def test_a_job_that_was_done_meanwhile_is_over_at_once(workers: Workers) -> None:
    stop, first = begun(workers, is_handed_over=True)
    await workers.until(["Scheduled", "Scheduled"])
    stop.set()
    await first
    workers.say(2, "COMPLETED", "9 new")
    _, last = begun(workers)
    assert ((await last).status, (await last).message) == ("completed", "9 new")
    assert workers.states() == ["Cancelled", "Completed"]


@pytest.mark.parametrize(
    ("is_known", "status_of"),
    [(False, {"new": 3, "any": 3, "never": 0}), (True, {"new": 0, "any": 3, "never": 0})],
)
async def test_the_report_of_a_job_has_what_its_machines_quarantined(
    workers: Workers, tmp_path: Path, is_known: bool, status_of: dict[FailOn, int]
) -> None:
    workers.job = replace(workers.job, path=tmp_path / "p.yaml", n_shares=1)
    bad = ItemReport("each", "a.md", ItemState.QUARANTINED, error="no text", is_known=is_known)
    items = (bad, ItemReport("each", "b.md", ItemState.FRESH))
    of_share = Report("owl", "p", "quarantined", {"fresh": 1, "quarantined": 1}, items=items)
    with Ledger(tmp_path / STATE_FOLDER) as ledger:
        RunStore(ledger).record_run({
            "run": "owl", "pipeline": "p", "file": "p.yaml", "started": 1.0, "ended": 2.0,
            "parent": workers.job.name, "status": of_share.status,
            "summary": json.dumps(of_share.as_summary()),
        })  # fmt: skip
    _, job = begun(workers)
    await workers.until(["Scheduled"])
    workers.say(1, "COMPLETED", "1 fresh, 1 quarantined")
    report = await job
    assert (report.status, report.message) == ("quarantined", "1 fresh, 1 quarantined")
    assert report.counts["quarantined"] == 1
    assert {on: report.exit_status(on) for on in status_of} == status_of


async def test_a_job_that_is_stopped_stops_its_shares_and_begins_again_when_taken_up(
    workers: Workers,
) -> None:
    stop, first = begun(workers)
    await workers.until(["Scheduled", "Scheduled"])
    workers.say(1, "RUNNING")
    stop.set()
    await workers.until(["Cancelling", "Cancelled"])
    workers.say(1, "CANCELLED", "Flow run was cancelled successfully.")
    assert (await first).status == "interrupted"

    _, last = begun(workers)
    await workers.until(["Cancelled", "Scheduled", "Cancelled", "Scheduled"])
    workers.say(2, "COMPLETED")
    assert (await last).status == "completed"


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_a_share_that_a_person_ends_in_prefect_ends_the_job(
    workers: Workers, is_deleted: bool
) -> None:
    words = "It was cancelled in Prefect; the same command continues."
    _, job = begun(workers)
    await workers.until(["Scheduled", "Scheduled"])
    workers.say(1, "RUNNING")
    workers.say(2, "RUNNING")
    if is_deleted:
        workers.delete(1)
        await workers.until(["Cancelling"])
    else:
        workers.say(1, "CANCELLED", words)
        await workers.until(["Cancelled", "Cancelling"])
    workers.say(2, "CANCELLED")
    report = await job
    assert report.status == "interrupted"
    assert report.message == ("Share 1 was deleted in Prefect." if is_deleted else words)


async def test_a_ledger_that_is_away_is_told(workers: Workers, tmp_path: Path) -> None:
    away = "postgresql://nobody@127.0.0.1:1/letters"
    folder_identity(tmp_path / STATE_FOLDER)
    workers.job = replace(workers.job, ledger_url=away, path=tmp_path / "p.yaml")
    stop, job = begun(workers)
    await soon(lambda: any("cannot be reached" in note for note in workers.notes))
    assert len([note for note in workers.notes if "cannot be reached" in note]) == 1
    stop.set()
    await job


async def test_a_suspended_share_is_waited_for_and_said(workers: Workers) -> None:
    _, job = begun(workers)
    await workers.until(["Scheduled", "Scheduled"])
    workers.say(1, "RUNNING")
    workers.say(1, "PAUSED")
    await soon(lambda: SUSPENDED_NOTE in workers.notes)
    workers.say(1, "COMPLETED", "9 new")
    assert (await job).status == "completed"


async def test_what_prefect_does_not_carry_out_is_refused_at_once(workers: Workers) -> None:
    stop, first = begun(workers)
    await workers.until(["Scheduled", "Scheduled"])
    workers.pause_deployment()
    stop.set()
    await first
    _, second = begun(workers)
    with pytest.raises(TrackingError, match="is paused in Prefect: resume it"):
        await second
    workers.job = replace(workers.job, work_pool="none", path=Path("/srv/other/p.yaml"))
    _, third = begun(workers)
    with pytest.raises(TrackingError, match="knows no work pool 'none'"):
        await third
