"""A share on a real worker: one document kills each of its processes; a person cancels it."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from starlette.requests import Request
from starlette.responses import Response

from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.prefect_view import SHARE_TAG
from tests.cluster.three_workers import (
    AUTH,
    PIPELINE,
    WAIT_S,
    Cluster,
    Counting,
    Servers,
    cluster,
    until,
)
from tests.prefect_server import prefect_client

PARALLEL = 16
POISON = "0005"
N_CANCELLED = 5 * PARALLEL


class Deadly(Counting):
    """Kills the process that asks about a document with poison."""

    n_kills = 0

    async def chat(self, request: Request) -> Response:
        text = str((await request.json())["messages"][-1]["content"])
        if "poison" in text and request.client is not None:
            self.n_kills += 1
            os.kill(_process_at(request.client.port), signal.SIGKILL)
        return await super().chat(request)


def _process_at(port: int) -> int:
    """Return the process whose end of a connection has this port."""
    found = (
        one.pid for one in psutil.net_connections("tcp") if one.laddr and one.laddr.port == port
    )
    return next(pid for pid in found if pid)


@pytest.fixture(scope="module")
def models() -> Iterator[Deadly]:
    models = Deadly(1.0)
    with models.serving():
        yield models


@pytest.fixture(scope="module")
def made(models: Deadly, shared_servers: Servers) -> Iterator[Cluster]:
    with cluster(0, models.url, shared_servers=shared_servers) as made:
        made.environment |= {
            "PADDOCK_DEAD_AFTER": "4s",  # before a share restarts, so that its items are free
            "PADDOCK_MAX_ATTEMPTS": "1", "PADDOCK_MAX_RESTARTS": "1",
        }  # fmt: skip
        made.join("machine")
        yield made


class Job:
    """A folder of documents, and what became of them."""

    def __init__(self, made: Cluster, models: Deadly, name: str, n_documents: int) -> None:
        self._made, self._models = made, models
        self.folder = made.shared / name
        (self.folder / "inbox").mkdir(parents=True)
        text = PIPELINE.replace("URL", models.url).replace("letters", name)
        text = text.replace("max_parallel: 4", f"max_parallel: {PARALLEL}")
        (self.folder / "pipeline.yaml").write_text(text)
        for number in range(n_documents):
            self.write(f"{number:04}", f"{name} {number:04}.")
        models.asked.clear()

    def write(self, number: str, text: str) -> None:
        (self.folder / "inbox" / f"{number}.txt").write_text(text)

    def run(self) -> Any:
        return self._made.paddock(
            "cluster", "run", str(self.folder / "pipeline.yaml"), "--shares", "1"
        )

    def outputs(self) -> dict[str, str]:
        return {path.stem: path.read_text() for path in (self.folder / "out").glob("0*.txt")}

    def wanted(self) -> dict[str, str]:
        inbox = (self.folder / "inbox").iterdir()
        return {path.stem: f"About: {path.read_text()}" for path in inbox}

    def ledger(self) -> Ledger:
        url = self._made.environment["PADDOCK_LEDGER"]
        return Ledger(self.folder / ".paddock", is_readonly=True, url=url)

    def twice(self) -> set[str]:
        """Return the documents that the model was asked about more than once."""
        return {text for text, n in Counter(self._models.asked).items() if n > 1}


@pytest.mark.may_take(180, "two runs on a machine of its own, one of them cancelled")
def test_a_share_that_is_cancelled_in_prefect_leaves_nothing_lost_or_done_twice(
    made: Cluster, models: Deadly
) -> None:
    job = Job(made, models, "cancelled", N_CANCELLED)
    first = job.run()
    until(lambda: len(job.outputs()) >= PARALLEL, "the first documents", made.home / "laptop.log")
    with prefect_client(made.environment["PREFECT_API_URL"], AUTH) as api:
        tagged = {
            "flow_runs": {"tags": {"all_": [SHARE_TAG]}, "state": {"type": {"any_": ["RUNNING"]}}}
        }
        (share,) = api.post("/flow_runs/filter", json=tagged).raise_for_status().json()
        wish = {"state": {"type": "CANCELLING"}}
        api.post(f"/flow_runs/{share['id']}/set_state", json=wish).raise_for_status()
        in_flight, n_asked = models.in_flight(), len(models.asked)
        assert first.wait(WAIT_S) == 130
        in_flight |= set(models.asked[n_asked:])
        found = api.get(f"/flow_runs/{share['id']}").raise_for_status().json()
    assert found["state_name"] == "Cancelled"
    assert len(job.outputs()) < N_CANCELLED
    with job.ledger() as ledger:
        assert ledger.attempts_left(0.0) == []  # it ended in order: no item is suspected of it
        assert [run.status for run in RunStore(ledger).runs()] == ["interrupted"]

    assert job.run().wait(WAIT_S) == 0
    assert job.outputs() == job.wanted()
    assert job.twice() <= in_flight
    assert [path for path in made.shared.rglob("*.paddock-tmp*")] == []


@pytest.mark.may_take(200, "each share is killed by the document, one after the other")
def test_a_document_that_kills_each_share_is_quarantined_and_the_others_are_done(
    made: Cluster, models: Deadly
) -> None:
    job = Job(made, models, "deadly", 2 * PARALLEL)
    job.write(POISON, "poison")
    assert job.run().wait(WAIT_S) == 3
    wanted = job.wanted()
    wanted.pop(POISON)
    assert job.outputs() == wanted
    # More starts than `max_restarts` allows: each of them achieved something.
    assert 2 < models.n_kills <= PARALLEL.bit_length() + 1
    with job.ledger() as ledger:
        items = [
            one.entry
            for run in RunStore(ledger).runs()
            for one in RunStore(ledger).items_of(run.run)
        ]
    assert [one.key for one in items if one.state != "done"] == [f"{POISON}.txt"]
    assert job.run().wait(WAIT_S) == 0  # nothing new is quarantined now
