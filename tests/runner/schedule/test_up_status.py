"""What `/status` counts as running and waiting, the same for Prometheus, and who may read it."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.system.records import replace
from paddock.runner.schedule.order_queue import OrderQueue
from paddock.runner.schedule.pipeline_triggers import triggers_of
from paddock.runner.schedule.run_manager import ManagedRun, ManagerOptions, RunManager
from paddock.runner.schedule.run_processes import RunProcess
from paddock.runner.schedule.trigger_keeper import TriggerKeeper
from paddock.runner.schedule.triggered_pipeline import TriggeredPipeline
from paddock.runner.schedule.up_status import StatusAccess, make_status_app, status_of
from paddock.runner.workers.order import Order
from tests.runner.schedule.desks import Around, open_queue, triggered

ON = '{schedule: [{cron: "0 6 * * *"}], webhook: [{path: /x}]}'
HOOK, SCHEDULE = "webhook /x", "schedule 0 6 * * *"


# With a port: a request that names none comes by no connection whose owner could be asked for.
OWN_URL = "http://localhost:4720"
KEY = {"authorization": "Bearer open-sesame"}


async def nothing(request: Request) -> Response:
    return Response(status_code=404)


@dataclass
class World:
    queue: OrderQueue
    pipeline: TriggeredPipeline
    manager: RunManager
    keeper: TriggerKeeper

    async def put(self, key: str, trigger: str = HOOK, **facts: Any) -> Order:
        return (await self.queue.put(Order("", key, self.pipeline.key, trigger, **facts))).order

    def start(self, order: Order, waits_for: str = "") -> None:
        process = RunProcess(os.getpid())
        process.waits_for = waits_for
        self.queue.note(order.id, state="running")
        self.manager.jobs[order.id] = ManagedRun(order.id, self.pipeline, "", process, "calm-owl")

    def status(self) -> dict[str, Any]:
        return status_of(self.manager, self.keeper, self.queue, datetime.now(UTC))

    async def scraped(self, *, is_ready: bool = True) -> dict[str, float]:
        """Return the samples of `/metrics`, by name and the labels that tell them apart."""

        app = make_status_app(lambda: {"queue": is_ready}, self.status, nothing,
                              totals=self.queue.totals)  # fmt: skip
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=OWN_URL) as client:
            answer = await client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        found = {}
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                labels = sample.labels
                assert labels.pop("file", self.pipeline.key) == self.pipeline.key
                assert labels.pop("pipeline", self.pipeline.pipeline.name)
                found[" ".join((sample.name, *labels.values()))] = sample.value
        return found


@asynccontextmanager
async def world_of(folder: Path, *, is_open: bool = False) -> AsyncIterator[World]:
    pipeline = triggered(folder, ON)
    async with open_queue(folder, pipeline) as queue:
        keeper = TriggerKeeper(
            queue,
            lambda folder, is_readonly: None,  # type: ignore[arg-type,return-value]
            lambda made: triggers_of(replace(made, is_open=is_open)),
        )
        manager = RunManager(queue, Around(), ManagerOptions(2, 1))
        manager.pipelines[pipeline.key] = pipeline
        await keeper.put(pipeline)
        yield World(queue, pipeline, manager, keeper)
        await keeper.stop()


pytestmark = pytest.mark.usefixtures("caller")  # the own user, where a test says nothing else


async def test_a_pipeline_is_shown_with_its_triggers_and_what_a_person_has_to_confirm(
    tmp_path: Path,
) -> None:
    async with world_of(tmp_path) as world:
        world.manager.missing[world.pipeline.key] = ("'inbox' is not the folder …",)
        await world.queue.pause(world.pipeline.key, HOOK, is_paused=True)
        (shown,) = world.status()["pipelines"]
    assert (shown["missing"], shown["is_paused"]) == (("'inbox' is not the folder …",), False)
    assert {each["trigger"]: (each["kind"], each["is_paused"]) for each in shown["triggers"]} == {
        SCHEDULE: ("schedule", False), HOOK: ("webhook", True),
    }  # fmt: skip
    (next_,) = (each["next"] for each in shown["triggers"] if "next" in each)
    at = datetime.fromisoformat(next_)
    assert at.utcoffset() == at.astimezone().utcoffset(), "in this machine's zone"


async def test_a_run_that_has_not_been_let_in_waits_and_does_not_run(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        runs, held = await world.put("1"), await world.put("2")
        queued = await world.put("3", message="waits for its group", created_at=time.time() - 60)
        world.start(runs)
        world.start(held, "Waiting for another run of group 'nightly'.")
        status = world.status()
    assert [run["order"] for run in status["running"]] == [runs.id]
    assert [(run["order"], run["state"]) for run in status["queue"]] == [
        (held.id, "Waiting for another run of group 'nightly'."),
        (queued.id, "waits for its group"),
    ]
    (shown,) = status["pipelines"]
    assert (status["waiting"], shown["waiting"], shown["running"]) == (2, 2, 1)
    since = datetime.fromisoformat(shown["waiting_since"]).timestamp()
    assert since == pytest.approx(queued.created_at, abs=1), "of the oldest one"


async def test_prometheus_reads_what_waits_how_orders_ended_and_what_is_paused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.runner.schedule.order_queue.KEPT_S", 0.0)  # pruned at once
    async with world_of(tmp_path) as world:
        await world.put("old", created_at=time.time() - 7_200)
        world.start(await world.put("at work"))
        for n, end in enumerate(("completed", "completed", "crashed")):
            order = await world.put(f"ended {n}", SCHEDULE)
            world.queue.note(order.id, state="ended", end=end, ended_at=1_000.5 + n, is_told=True)
            world.queue.note_ended(order.id, is_handled=True)
        await world.queue.pause(world.pipeline.key, SCHEDULE, is_paused=True)
        await world.queue.flush()
        first = await world.scraped()
        again = OrderQueue(world.queue.file.parent)
        await again.open()  # prunes
        await again.close()
        assert await world.scraped() | {"paddock_oldest_order_seconds": 0} == first | {
            "paddock_oldest_order_seconds": 0
        }, "a counter never falls"
        await world.queue.pause(world.pipeline.key, is_paused=True)
        paused = await world.scraped(is_ready=False)
    assert 7_200 <= first.pop("paddock_oldest_order_seconds") < 7_500
    ends = {name.split()[1]: n for name, n in first.items() if "ended_total" in name and n}
    assert ends == {"completed": 2, "crashed": 1}
    assert {name: n for name, n in first.items() if "ended_total" not in name} == {
        "paddock_up_ready": 1, "paddock_up_faults": 0,
        "paddock_orders_waiting": 1, "paddock_orders_running": 1,
        "paddock_last_success_timestamp_seconds": 1_001.5,
        f"paddock_trigger_paused {SCHEDULE}": 1, f"paddock_trigger_paused {HOOK}": 0,
    }  # fmt: skip
    assert (paused["paddock_up_ready"], paused[f"paddock_trigger_paused {HOOK}"]) == (0, 1)


async def test_a_trigger_that_is_not_served_is_a_fault_for_alerts(tmp_path: Path) -> None:
    async with world_of(tmp_path, is_open=True) as world:  # and its webhook has no secret
        assert (await world.scraped())["paddock_up_faults"] == 1


# Who may read it


def get(path: str, reader: StatusAccess | None = None, **headers: str) -> httpx.Response:
    app = make_status_app(lambda: {"prefect": True}, lambda: {"pid": 1}, nothing, reader)

    async def main() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=OWN_URL) as here:
            return await here.get(path, headers=headers)

    return asyncio.run(main())


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text("open-sesame\n")
    return file


def test_health_and_status_are_told_and_no_page_of_another_name_reads_them() -> None:
    def seen(path: str) -> tuple[int, Any]:
        answer = get(path)
        return answer.status_code, answer.json()

    assert seen("/healthz") == (200, {"ok": True})
    assert seen("/readyz") == (200, {"ready": True, "prefect": True})
    assert seen("/status") == (200, {"pid": 1})
    assert get("/status", host="evil.example").status_code == 403


def test_the_status_is_for_its_own_user_and_for_those_with_a_key(
    keys: Path, caller: Callable[[int | None], None]
) -> None:
    def status_for(reader: StatusAccess, **headers: str) -> int:
        return get("/status", reader, **headers).status_code

    everyone = StatusAccess(is_open=True, keys=keys)
    assert status_for(StatusAccess(is_open=True)) == 403
    assert status_for(everyone) == 401
    assert status_for(everyone, **{"x-api-key": "open-says-me"}) == 401
    assert status_for(everyone, **KEY) == 200
    assert status_for(StatusAccess(is_open=False, keys=keys)) == 200
    for owner in (os.getuid() + 1, None):
        caller(owner)
        assert status_for(StatusAccess()) == 403
        assert status_for(StatusAccess(keys=keys)) == 401
        assert status_for(StatusAccess(keys=keys), **KEY) == 200


def test_browsers_of_people_who_may_read_the_status_are_sent_to_the_console(
    keys: Path, caller: Callable[[int | None], None]
) -> None:
    def seen(reader: StatusAccess, **headers: str) -> httpx.Response:
        return get("/status", reader, **{"accept": "text/html,*/*", **headers})

    for reader in (StatusAccess(), StatusAccess(is_open=True, keys=keys)):
        answer = seen(reader)
        assert (answer.status_code, answer.headers["location"]) == (307, "/ui")
    assert seen(StatusAccess(), host="evil.example").status_code == 403
    caller(os.getuid() + 1)
    assert seen(StatusAccess()).status_code == 403
    assert seen(StatusAccess(), accept="application/json").status_code == 403
