"""What people do in Prefect and what it shows of the queue, with a real Prefect server."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
from paddock.engine.system.tasks import running
from paddock.runner.progress.prefect_view import RUN_TAG
from paddock.runner.schedule import prefect_link
from paddock.runner.schedule.order_queue import OrderQueue
from paddock.runner.schedule.prefect_link import PrefectLink
from paddock.runner.schedule.triggered_pipeline import TriggeredPipeline, read_triggered_pipeline
from paddock.runner.settings import Settings
from paddock.runner.workers.flow_names import deployment_name
from paddock.runner.workers.fork_server import ForkServer
from paddock.runner.workers.order import FROM_PREFECT, Order, OrderEnd
from tests.waiting import PATIENCE_S, rest_s

PIPELINE = """\
name: {name}
on: {{schedule: [{{cron: "0 6 * * *"}}]}}
inputs:
  inbox: {{type: dir, default: .}}
  style: {{type: str, default: short}}
  key: {{type: str, default: none, secret: true}}
steps: [{{id: docs, uses: files.scan, with: {{root: "{{{{ inputs.inbox }}}}"}}}}]
"""
OTHERS = "on a Prefect server that others use a run may have no parameters."


@pytest.fixture(autouse=True, scope="module")
def _forks() -> Iterator[None]:
    Up.forks = ForkServer()
    yield
    Up.forks.close()


@pytest.fixture(autouse=True)
def _without_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_link, "ROUND_S", 0.1)
    monkeypatch.setattr(prefect_link, "PAUSE_S", 0.05)


def pipeline_of(file: Path, name: str = "") -> TriggeredPipeline:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text := PIPELINE.format(name=name or file.parent.name))
    made = read_triggered_pipeline(file, text, Settings(PoolSettings(), file.parent))
    assert made is not None
    return made


class Up:
    """What the link has of `paddock up`: a queue and pipelines in service; and Prefect's page."""

    forks: ClassVar[ForkServer]

    def __init__(self, folder: Path, api: str, *, is_own: bool = True) -> None:
        self.api, self.is_own = api, is_own
        self.folder = folder / "pipes"
        self.pipeline = pipeline_of(self.folder / uuid.uuid4().hex / "p.yaml")
        self.served = {self.pipeline.key: self.pipeline}
        self.queue = OrderQueue(folder / "state")
        self.link: PrefectLink

    @contextlib.asynccontextmanager
    async def started(self, api: str | None = None) -> AsyncIterator["Up"]:
        """Run the link, with the queue as the last one left it."""
        self.queue = OrderQueue(self.queue.file.parent)
        await self.queue.open()
        await self.queue.serve(self.served)
        self.link = PrefectLink(
            self.queue,
            lambda: self.served,
            is_own_server=self.is_own,
            folders=[self.folder],
            forks=self.forks,
        )
        self.link.move(self.api if api is None else api)
        async with running(self.link.keep()), self.client():
            yield self
        await self.queue.close()

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[None]:
        # A request waits 60 s for the server's locked database before it is 503.
        each_anew = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(
            base_url=self.api, timeout=PATIENCE_S, limits=each_anew
        ) as self._client:
            yield

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        answer = await self._client.request(method, path, json=body)
        if answer.status_code == 503:  # its database is locked
            return await self.ask(method, path, body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    @property
    def id(self) -> str:
        return self.link.deployment_of(self.pipeline.key)

    async def deployment(self) -> dict[str, Any]:
        await eventually(lambda: self.id)
        return dict(await self.ask("GET", f"/deployments/{self.id}"))

    async def start_there(self, **given: Any) -> str:
        await self.deployment()
        path = f"/deployments/{self.id}/create_flow_run"
        return str((await self.ask("POST", path, given))["id"])

    async def state(self, flow_run: str) -> dict[str, Any]:
        return dict((await self.ask("GET", f"/flow_runs/{flow_run}"))["state"])

    async def set_there(self, flow_run: str, kind: str, name: str) -> None:
        body = {"state": {"type": kind, "name": name}, "force": True}
        await self.ask("POST", f"/flow_runs/{flow_run}/set_state", body)

    async def is_there(self, flow_run: str, kind: str, name: str = "") -> dict[str, Any]:
        async def has_come() -> Any:
            state = await self.state(flow_run)
            return state if (state["type"], state["name"]) == (kind, name or kind.title()) else None

        return dict(await eventually(has_come))

    async def ordered(self, flow_run: str) -> Order:
        found = await eventually(lambda: self.queue.by_flow_run(flow_run))
        assert isinstance(found, Order)
        return found

    async def taken(self, n: int) -> list[tuple[str, Order]]:
        """Start runs there; return them with their orders when they are shown as taken."""
        flow_runs = [await self.start_there() for _ in range(n)]
        for flow_run in flow_runs:
            await self.is_there(flow_run, "PENDING")  # else that comes after what a test sets
        return [(flow_run, await self.ordered(flow_run)) for flow_run in flow_runs]

    async def order_is(self, order: Order, state: str) -> None:
        await eventually(lambda: self.queue.orders[order.id].state == state)

    async def start_task(self, flow_run: str) -> str:
        running = {"type": "RUNNING", "name": "Running"}
        body = {"flow_run_id": flow_run, "task_key": "each", "dynamic_key": "0", "state": running}
        return str((await self.ask("POST", "/task_runs/", body))["id"])

    async def state_of_task(self, task: str) -> str:
        return str((await self.ask("GET", f"/task_runs/{task}"))["state"]["type"])

    async def put(self, **values: Any) -> Order:
        """Put an order of a trigger, as it is after its last start."""
        order = Order("", uuid.uuid4().hex, self.pipeline.key, "watch inbox")
        made = (await self.queue.put(order)).order
        return self.queue.note(made.id, **values)


async def eventually(look: Callable[[], Any | Awaitable[Any]], within_s: float = PATIENCE_S) -> Any:
    async with asyncio.timeout(within_s):
        while True:
            began = time.monotonic()
            found = look()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return found
            await asyncio.sleep(rest_s(began))


@pytest.fixture
def up(tmp_path: Path, prefect_api: str) -> Up:
    return Up(tmp_path, prefect_api)


async def test_a_run_that_is_started_in_prefect_is_one_order_however_often_up_is_started(
    up: Up,
) -> None:
    async with up.started():
        flow_run = await up.start_there(
            parameters={"style": "long", "key": None, "Paddock": {"retry_failed": True}}
        )
        await up.is_there(flow_run, "PENDING")
        order = await up.ordered(flow_run)
        assert (order.pipeline, order.trigger, order.inputs, order.retry_failed) == (
            up.pipeline.key, FROM_PREFECT, {"style": "long"}, True,
        )  # fmt: skip
        assert order.is_promised
        up.queue.note(order.id, message="its window is closed")
        assert (await eventually(lambda: up.state(flow_run)))["type"] == "PENDING"
        await eventually(lambda: says(up, flow_run, "its window is closed"))
    async with up.started():
        # As if `up` had ended before it could show that it has taken the run
        await up.set_there(flow_run, "SCHEDULED", "Late")
        await up.is_there(flow_run, "PENDING")
        assert [order.id for order in up.queue.orders.values()] == [order.id]


async def says(up: Up, flow_run: str, words: str) -> bool:
    return bool((await up.state(flow_run))["message"] == words)


REFUSED: dict[bool, list[tuple[dict[str, Any], str]]] = {
    True: [
        ({"colour": "red"}, "the pipeline has no input 'colour'."),
        ({"inbox": "/etc"}, "input 'inbox' leads outside the pipeline's folder."),
        ({"inbox": "../.."}, "input 'inbox' leads outside the pipeline's folder."),
        ({"Paddock": ["x"]}, "the pipeline has no input 'Paddock'."),
    ],
    False: [
        ({"style": "long"}, OTHERS),
        ({"Paddock": {"retry_failed": True}}, OTHERS),
        ({"Paddock": {"path": "/tmp/mine.yaml"}, "style": "x"}, OTHERS),
    ],
}


@pytest.mark.parametrize("is_own", [True, False])
async def test_a_run_with_inputs_that_it_may_not_have_is_refused_in_a_sentence(
    tmp_path: Path, prefect_api: str, is_own: bool
) -> None:
    async with Up(tmp_path, prefect_api, is_own=is_own).started() as up:
        cases = REFUSED[is_own]
        flow_runs = [await up.start_there(parameters=parameters) for parameters, _ in cases]
        for flow_run, (_, words) in zip(flow_runs, cases, strict=True):
            state = await up.is_there(flow_run, "FAILED")
            assert state["message"].endswith(words)
            assert state["message"].startswith("Refused: ")
            assert await up.queue.by_flow_run(flow_run) is None
        shown = (await up.deployment())["parameter_openapi_schema"]
        assert ("style" in shown.get("properties", {})) is is_own
        fine = await up.start_there(parameters={"Paddock": None})
        assert (await up.ordered(fine)).inputs == {}


async def test_a_form_shows_the_inputs_and_schedules_of_people_outlast_a_change_of_the_file(
    up: Up,
) -> None:
    async with up.started():
        shown = (await up.deployment())["parameter_openapi_schema"]["properties"]
        assert {"inbox", "style", "key", "Paddock"} == shown.keys()
        assert shown["key"].get("default") is None
        timed = {"schedule": {"cron": "* * * * *"}, "active": True, "parameters": {"style": "long"}}
        await up.ask("POST", f"/deployments/{up.id}/schedules", [timed])
        file = up.pipeline.file
        changed = pipeline_of(file, up.pipeline.pipeline.name)
        version = (await up.deployment())["version"]
        file.write_text(text := changed.text + "# changed\n")
        up.served[changed.key] = replace(changed, text=text)
        up.link.wake.set()

        async def is_changed() -> bool:
            return bool((await up.deployment())["version"] != version)

        await eventually(is_changed)
        (kept,) = (await up.deployment())["schedules"]
        assert kept["schedule"]["cron"] == "* * * * *"
        assert kept["parameters"] == {"style": "long"}


async def test_a_pause_is_one_thing_in_prefect_and_here(up: Up) -> None:
    async def is_paused_there() -> bool:
        return bool((await up.deployment())["paused"])

    async def pause_there(is_paused: bool) -> None:
        await up.ask("PATCH", f"/deployments/{up.id}", {"paused": is_paused})

    key = up.pipeline.key, ""
    async with up.started():
        await up.deployment()
        await pause_there(True)
        await eventually(lambda: key in up.queue.pauses)
        await up.queue.pause(*key, is_paused=False)
        await eventually(lambda: not_(is_paused_there()))
        await up.queue.pause(*key, is_paused=True)
        await eventually(is_paused_there)
        await pause_there(False)
        await eventually(lambda: key not in up.queue.pauses)
    async with up.client():  # changed on either side while `up` is stopped
        await pause_there(True)
    async with up.started():
        await eventually(lambda: key in up.queue.pauses)
    queue = OrderQueue(up.queue.file.parent)
    await queue.pause(*key, is_paused=False)
    await queue.close()
    async with up.started():
        await eventually(lambda: not_(is_paused_there()))
        assert key not in up.queue.pauses
        await pause_there(True)
        await eventually(lambda: key in up.queue.pauses)
    up.queue.file.unlink()  # an earlier `up` kept pauses in Prefect alone
    async with up.started():
        await eventually(lambda: key in up.queue.pauses)


async def not_(question: Awaitable[bool]) -> bool:
    return not await question


ENDED_BY_HAND = [
    ("CANCELLING", "Cancelling", "It was cancelled in Prefect."),
    ("CANCELLED", "Cancelled", "It was cancelled in Prefect."),
    ("FAILED", "Rejected", "It was set to 'Rejected' in Prefect."),
    ("", "", "It was deleted in Prefect."),
]


async def test_what_is_ended_in_prefect_does_not_begin(up: Up) -> None:
    cases = [(is_suspended, *end) for is_suspended in (False, True) for end in ENDED_BY_HAND]
    async with up.started():
        taken = await up.taken(len(cases))
        for (flow_run, order), (is_suspended, kind, name, _) in zip(taken, cases, strict=True):
            if is_suspended:
                await up.set_there(flow_run, "PAUSED", "Suspended")
                up.queue.note(order.id, state="suspended", mark="1 2 3")
            if kind:
                await up.set_there(flow_run, kind, name)
            else:
                await up.ask("DELETE", f"/flow_runs/{flow_run}")
        await eventually(lambda: not up.queue.orders)
        for (flow_run, _), (_, kind, name, words) in zip(taken, cases, strict=True):
            ended = await up.ordered(flow_run)
            assert (ended.state, ended.end, ended.message) == ("ended", "cancelled", words)
            if kind:
                await up.is_there(flow_run, kind.replace("ING", "ED"), name.replace("ing", "ed"))
        assert await eventually(lambda: told(up))


async def told(up: Up) -> bool:
    return not await up.queue.orders_to_tell(10)


async def test_states_of_prefect_and_of_an_order_follow_each_other(up: Up) -> None:
    async with up.started():
        resumed = ("SCHEDULED", "RUNNING")  # as Prefect resumes what it suspends
        for kind, (flow_run, order) in zip(resumed, await up.taken(2), strict=True):
            await up.set_there(flow_run, "PAUSED", "Suspended")  # it has not begun
            await up.order_is(order, "suspended")
            await up.set_there(flow_run, kind, "Resuming")
            await up.order_is(order, "waiting")
            await up.is_there(flow_run, "PENDING")

        # What starts again is shown as waiting, unless a person has cancelled it
        cancelled, killed = await up.taken(2)
        tasks = []
        for kind, (flow_run, order) in (("CANCELLED", cancelled), ("FAILED", killed)):
            up.queue.note(order.id, state="running", mark="1 2 3")
            await up.set_there(flow_run, "RUNNING", "Running")
            tasks.append(await up.start_task(flow_run))
            await up.set_there(flow_run, kind, kind.title())
            up.queue.note(order.id, state="waiting", attempt=2, message="it was killed")
        await eventually(lambda: cancelled[1].id not in up.queue.orders)
        assert (await up.is_there(killed[0], "PENDING"))["message"] == "it was killed"
        assert await up.state_of_task(tasks[1]) == "CRASHED"

        # A task whose end Prefect did not hear ends with its run
        ends: dict[OrderEnd, str] = {"completed": "COMPLETED", "failed": "CRASHED"}
        taken = await up.taken(2)
        tasks = [await up.start_task(flow_run) for flow_run, _ in taken]
        for end, (_, order) in zip(ends, taken, strict=True):
            up.queue.note(order.id, state="ended", end=end, mark="1 2 3", ended_at=time.time())
        for (end, kind), (flow_run, _), task in zip(ends.items(), taken, tasks, strict=True):
            await up.is_there(flow_run, end.upper())
            assert await up.state_of_task(task) == kind


async def test_a_finished_run_that_is_tried_again_in_prefect_is_another_order(up: Up) -> None:
    async with up.started():
        flow_run = await up.start_there(parameters={"style": "long"})
        first = await up.ordered(flow_run)
        up.queue.note(
            first.id, state="ended", end="failed", message="no model", ended_at=time.time()
        )
        assert (await up.is_there(flow_run, "FAILED"))["message"] == "no model"
        await eventually(lambda: told(up))
        await up.set_there(flow_run, "SCHEDULED", "AwaitingRetry")
        await eventually(lambda: up.queue.orders)
        (again,) = up.queue.orders.values()
        assert again.id != first.id
        assert (again.flow_run, again.inputs) == (flow_run, {"style": "long"})


SHOWN = {
    "completed": ("COMPLETED", "Completed"),
    "quarantined": ("FAILED", "Quarantined"),
    "budget": ("COMPLETED", "Budget"),
    "failed": ("FAILED", "Failed"),
    "crashed": ("CRASHED", "Crashed"),
    "cancelled": ("CANCELLED", "Cancelled"),
}


async def test_runs_that_ended_while_prefect_was_away_are_shown_when_it_is_back(up: Up) -> None:
    over = {"state": "ended", "message": "so it was.", "ended_at": time.time()}
    async with up.started(api="http://127.0.0.1:9/api"):
        runs = {end: f"20260102-030405-{uuid.uuid4().hex[:4]}" for end in SHOWN}
        odd = {"style": "half \ud83d", "n": float("nan"), "key": "12345"}
        orders = [await up.put(run=runs[end], inputs=odd, end=end, **over) for end in SHOWN]
        await up.put(is_told=True, end="completed", **over)
        await eventually(lambda: up.link.is_there is False)
        up.link.move(up.api)
        await eventually(lambda: told(up))
        shown = {run["name"]: run for run in await runs_there(up)}
        assert shown.keys() == {*runs.values()}
        for end, state in SHOWN.items():
            run = shown[runs[end]]
            assert run["parameters"] == {"style": "half \\ud83d", "n": "NaN"}
            assert set(run["tags"]) == {RUN_TAG, "watch inbox"}
            assert (run["state_type"], run["state_name"]) == state
            assert run["state"]["message"].startswith("so it was. It ended at 2")
        # As if the note of it was lost: the run is there already, and stays one.
        await up.queue.flush()
        up.queue.note_ended(orders[0].id, is_told=False, flow_run="")
        await eventually(lambda: told(up))
        assert len(await runs_there(up)) == len(SHOWN)
        await eventually(lambda: up.link.is_there)
        up.link.note_ended(orders[0])  # it began without Prefect
        assert up.link.is_there
        up.link.note_ended(replace(orders[0], flow_run=shown[runs["completed"]]["id"]))
        assert up.link.is_there is None, "until it has answered again"
        await eventually(lambda: up.link.is_there)


async def runs_there(up: Up) -> list[dict[str, Any]]:
    own = {"flow_runs": {"deployment_id": {"any_": [up.id]}}}
    return list(await up.ask("POST", "/flow_runs/filter", own))


@pytest.mark.parametrize("how", ["refuses", "is slow", "is no Prefect"])
async def test_a_server_that_does_not_answer_well_stops_nothing(
    up: Up, how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "paddock.up")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            if how == "is slow":
                await asyncio.sleep(30)
            status = b"200 OK" if how == "is no Prefect" else b"503 Service Unavailable"
            writer.write(
                b"HTTP/1.1 %s\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]" % status
            )
            await writer.drain()

    monkeypatch.setattr(prefect_link, "ANSWER_S", 1.0)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with up.started(api=f"http://127.0.0.1:{port}/api"):
            await eventually(lambda: up.link.is_there is False)
            await asyncio.sleep(0.5)
            assert up.id == ""
            monkeypatch.setattr(prefect_link, "ANSWER_S", PATIENCE_S)
            up.link.move(up.api)
            await eventually(lambda: up.link.is_there)
            await up.ordered(await up.start_there())
    about = [r.getMessage() for r in caplog.records if "Prefect" in r.getMessage()]
    assert [words.partition(" at ")[2].partition("api")[2][:20] for words in about] == [
        " cannot be asked; ru", " answers again",
    ]  # fmt: skip


async def test_deployments_follow_the_pipelines_in_service(up: Up) -> None:
    async def is_alone() -> bool:
        named = {"name": {"any_": [deployment_name(key) for key in known]}}
        found = await up.ask("POST", "/deployments/filter", {"deployments": named})
        return [row["id"] for row in found] == [up.id]

    known = [*up.served]

    async with up.started():
        first = (await up.deployment())["id"]
        await up.ask("DELETE", f"/deployments/{first}")
        await eventually(lambda: up.id not in ("", first))
        second = up.id
    renamed = pipeline_of(up.pipeline.file, f"renamed {up.pipeline.pipeline.name}")
    up.served[renamed.key] = renamed
    async with up.started():
        await eventually(lambda: up.id not in ("", second))
        await eventually(is_alone)
        third = up.id
        gone = up.served.pop(renamed.key)
        await eventually(lambda: not up.id)
        up.served[gone.key] = gone
        await eventually(lambda: up.id not in ("", third))
    del up.served[gone.key]
    gone.file.unlink()
    other = pipeline_of(up.folder / uuid.uuid4().hex / "p.yaml")
    up.served[other.key] = up.pipeline = other
    async with up.started():
        known.append(other.key)
        await eventually(is_alone)
