"""Runs are shown in Prefect as their processes tell of them, by a server that comes and goes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from paddock.engine.system import http
from paddock.engine.system.retry import Backoff
from paddock.runner.api import run_async
from paddock.runner.daemon import prefect_backlog, prefect_mirror
from paddock.runner.daemon.prefect_mirror import PrefectMirrors
from paddock.runner.progress.prefect_view import SUSPEND_REFUSED
from tests.fakes.pool import FakePool
from tests.runner.world import World, run_arguments, settings
from tests.waiting import soon

DONE = {"type": "COMPLETED", "name": "Completed", "message": "2 new"}
ROWS = [{"step": "each", "key": "a.txt", "state": "new"}]


class Api:
    """As much of Prefect's REST API as runs need, over the network; it can be away."""

    def __init__(self) -> None:
        self.is_away = False
        self.delay_s = 0.0
        self.has_one_writer = False
        self._n_at_work = 0
        self.refused: dict[str, int] = {}
        """By the beginning of a path: the status with which it is refused."""
        self.n_refused = 0
        self.made: dict[str, dict[str, Any]] = {}
        self.paths: list[str] = []
        """Of the requests so far."""

    def client(self) -> httpx.AsyncClient:
        return http.client(self.url)

    async def __aenter__(self) -> Api:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/api"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            n_bytes = int(head.lower().partition("content-length: ")[2].split("\r\n")[0] or 0)
            body = json.loads(await reader.readexactly(n_bytes) or b"{}")
        except asyncio.IncompleteReadError:  # the client gave up
            writer.close()
            return
        method, path, _ = head.split(" ", 2)
        self.paths.append(path.removeprefix("/api/"))
        is_locked = self.has_one_writer and self._n_at_work > 0
        self._n_at_work += 1
        await asyncio.sleep(self.delay_s)
        self._n_at_work -= 1
        refused = (s for at, s in self.refused.items() if path.startswith(f"/api/{at}"))
        status = 503 if self.is_away or is_locked else next(refused, 200)
        if status != 200:
            self.n_refused += 1
            writer.write(
                b"HTTP/1.1 %d No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status
            )
        else:
            content = json.dumps(self._reply(method, path.removeprefix("/api/"), body)).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
                % (len(content), content)
            )
        await writer.drain()
        writer.close()

    def _reply(self, method: str, path: str, body: dict[str, Any]) -> Any:
        kind, _, rest = path.partition("/")
        if kind == "health":
            return True
        if (kind, rest) == ("flow_runs", "filter"):
            made = (self.made[id_] for id_ in body[kind]["id"]["any_"])
            return [{"parent_task_run_id": None, **run} for run in made]
        if rest == "filter":
            types = body[kind]["type"]["any_"]
            return [entry for entry in self.made.values() if entry.get("type") in types]
        if rest.endswith("/set_state"):
            self.made[rest.removesuffix("/set_state")]["state"] = body["state"]
            return {}
        if method == "PATCH":
            return self.made[rest].update(body) or {}
        names = ("idempotency_key", "dynamic_key", "key", "name")
        id_ = f"{kind}-{next(body[name] for name in names if name in body)}"
        if kind == "artifacts":  # each is a new version
            id_ += str(len(self.made))
        return self.made.setdefault(id_, {"id": id_, "kind": kind, **body})

    def of(self, kind: str) -> dict[str, tuple[str, str]]:
        """Return names and states of what is shown; a slow machine makes every run a late one."""
        return {
            entry["name"]: (entry["state"]["name"], _words(entry["state"]))
            for entry in self.made.values()
            if entry["kind"] == kind and "state" in entry
        }

    def data(self, key: str) -> list[Any]:
        """Return what all artefacts with this key hold."""
        return [entry["data"] for entry in self.made.values() if entry.get("key") == key]


def _words(state: dict[str, Any]) -> str:
    return str(state.get("message", "")).partition(". It ran from")[0].removesuffix(".")


def update(end: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Report a run with a step and a chunk."""
    tasks = {"0": ["docs", "COMPLETED", "Completed", "done"], "1": ["each: a", "RUNNING", "R", ""]}
    return {
        "id": "1f", "pid": os.getpid(), "lease": "lease", "pipeline": "Ferries",
        "run": "calm-jay", "parameters": {}, "began": time.time(),
        "tasks": tasks, "percent": 50.0, "end": end, **fields,
    }  # fmt: skip


def ended(**fields: Any) -> dict[str, Any]:
    """Report the run's end."""
    end = {"state": DONE, "ended": time.time(), "rows": ROWS, "description": "1 items"}
    tasks = {"1": ["each: a", "COMPLETED", "Completed", "2 done"]}
    return update(end, **{"tasks": tasks, "percent": 100.0, **fields})


Mirrored = Callable[[], AbstractAsyncContextManager[tuple[Api, PrefectMirrors]]]


@pytest.fixture
def mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirrored:
    """Return what yields a Prefect server, and what mirrors runs there and retries at once."""

    @asynccontextmanager
    async def both() -> AsyncIterator[tuple[Api, PrefectMirrors]]:
        monkeypatch.setattr(prefect_mirror, "BACKOFF", Backoff(0.01, 0.01))
        async with Api() as api:
            mirrors = PrefectMirrors(api.client, tmp_path)
            yield api, mirrors
            await mirrors.close()

    return both


async def test_a_run_is_shown_with_its_tasks_and_ends_at_100_percent(
    mirrored: Mirrored, tmp_path: Path
) -> None:
    async with mirrored() as (api, mirrors):
        assert mirrors.take(update())
        await soon(lambda: "ferries-progress" in str(api.made))
        assert api.of("flow_runs") == {"calm-jay": ("Running", "")}
        assert api.of("task_runs") == {"docs": ("Completed", "done"), "each: a": ("Running", "")}
        assert not mirrors.take(ended())
        await soon(lambda: not mirrors.n_ended)
        assert api.of("flow_runs") == {"calm-jay": ("Completed", "2 new")}
        assert api.of("task_runs")["each: a"] == ("Completed", "2 done")
        assert api.data("ferries-progress") == [100.0]
        assert api.data("ferries-results") == [json.dumps(ROWS)]
        assert not prefect_backlog.kept_runs(tmp_path)


async def test_a_task_that_was_over_before_it_is_shown_takes_one_request(
    mirrored: Mirrored,
) -> None:
    async with mirrored() as (api, mirrors):
        mirrors.take(ended(tasks=update()["tasks"] | ended()["tasks"]))
        await soon(lambda: not mirrors.n_ended)
        assert api.of("task_runs") == {
            "docs": ("Completed", "done"), "each: a": ("Completed", "2 done"),
        }  # fmt: skip
        assert [path for path in api.paths if path.startswith("task_runs")] == ["task_runs/"] * 2


async def test_a_server_that_is_away_loses_nothing(mirrored: Mirrored) -> None:
    async with mirrored() as (api, mirrors):
        mirrors.take(update())
        await soon(lambda: api.of("flow_runs"))
        api.is_away = True
        mirrors.take(ended())
        await soon(lambda: api.n_refused > 2)
        api.is_away = False
        await soon(lambda: not mirrors.n_ended)
        assert api.of("flow_runs") == {"calm-jay": ("Completed", "2 new")}
        assert api.of("task_runs")["each: a"] == ("Completed", "2 done")


async def test_a_process_that_goes_without_an_end_is_crashed(mirrored: Mirrored) -> None:
    async with mirrored() as (api, mirrors):
        mirrors.take(update())
        mirrors.take(ended(id="2f", run="other", lease="other"))
        mirrors.crashed("other", 1)
        mirrors.crashed("lease", 77)
        await soon(lambda: not mirrors.n_ended)
        words = "Its process 77 is gone; the same command continues"
        assert api.of("flow_runs") == {
            "calm-jay": ("Crashed", words), "other": ("Completed", "2 new"),
        }  # fmt: skip
        own = api.made["task_runs-calm-jay-1"]["state"]
        assert (own["name"], _words(own)) == ("Crashed", words)


async def test_what_a_service_could_not_show_the_next_one_does(
    mirrored: Mirrored, tmp_path: Path
) -> None:
    async with mirrored() as (api, mirrors):
        api.is_away = True
        mirrors.take(update())
        mirrors.take(ended(began=time.time() - 60))
        await soon(lambda: api.n_refused)
        await mirrors.close()
        api.is_away = False
        later = PrefectMirrors(api.client, tmp_path)
        later.take_kept()
        await soon(lambda: not later.n_ended)
        (shown,) = [entry for entry in api.made.values() if entry["kind"] == "flow_runs"]
        assert shown["state"]["name"] == "Completed"
        assert shown["state"]["message"].startswith("2 new. It ran from 20")
        assert set(api.of("task_runs")) == {"docs", "each: a"}
        assert not prefect_backlog.kept_runs(tmp_path)
        later.take_kept()
        assert not later.n_ended


async def test_a_run_goes_on_with_another_service_where_it_was(
    mirrored: Mirrored, tmp_path: Path
) -> None:
    async with mirrored() as (api, mirrors):
        mirrors.take(update())
        await soon(lambda: api.data("ferries-progress"))
        await mirrors.close()
        other = PrefectMirrors(api.client, tmp_path)
        assert other.take(ended())
        await soon(lambda: not other.n_ended)
        assert api.data("ferries-progress") == [100.0]
        assert api.of("flow_runs") == {"calm-jay": ("Completed", "2 new")}


async def test_a_run_that_died_together_with_its_service_is_crashed(
    mirrored: Mirrored, tmp_path: Path
) -> None:
    async with mirrored() as (api, mirrors):
        began = time.time()
        run = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "input()", stdin=subprocess.PIPE
        )
        try:
            mirrors.take(update(pid=run.pid, began=began + 60))
            await soon(lambda: api.data("ferries-progress"))
            await mirrors.close()
            later = PrefectMirrors(api.client, tmp_path)
            later.take_kept()
            assert not later.n_ended  # it runs, and tells of itself
        finally:
            run.kill()
            await run.wait()
        later.take_kept()
        await soon(lambda: not later.n_ended)
        words = f"Its process {run.pid} is gone; the same command continues"
        assert api.of("flow_runs") == {"calm-jay": ("Crashed", words)}
        await later.close()


def test_the_latest_are_kept_and_a_broken_file_is_passed_over(tmp_path: Path) -> None:
    for number in range(prefect_backlog.MOST_KEPT_RUNS + 2):
        prefect_backlog.keep_run(tmp_path, ended(id=f"{number:04}", began=float(number)))
        os.utime(tmp_path / f"residence/unshown/{number:04}.json", (number, number))
    (tmp_path / "residence/unshown/half.json").write_text('{"id": "half", "end": {}}')
    kept = [run["id"] for run in prefect_backlog.kept_runs(tmp_path)]
    assert kept == [f"{number:04}" for number in range(2, prefect_backlog.MOST_KEPT_RUNS + 2)]


async def test_what_prefect_refuses_for_good_is_left(
    mirrored: Mirrored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mirrored() as (api, mirrors):
        mirrors.take(ended(pipeline=None))
        monkeypatch.setattr(api, "_reply", lambda *_: [])
        await soon(lambda: not mirrors.n_ended)
        assert not prefect_backlog.kept_runs(tmp_path)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"type": "CANCELLING", "name": "Cancelling"}, "It was cancelled in Prefect"),
        ({"type": "FAILED", "name": "Rejected"}, "It was set to 'Rejected' in Prefect"),
    ],
)
async def test_a_run_hears_what_a_person_does_with_it_in_prefect(
    mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch, state: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr(prefect_mirror, "STATE_POLL_S", 0.0)

    async with mirrored() as (api, mirrors):
        mirrors.take(update())
        await soon(lambda: "calm-jay" in api.of("flow_runs"))
        (run,) = (entry for entry in api.made.values() if entry["kind"] == "flow_runs")
        run["state"] = {"type": "PAUSED", "name": "Suspended"}

        def is_refused() -> bool:
            mirrors.take(update())
            return api.of("flow_runs")["calm-jay"] == ("Running", SUSPEND_REFUSED.rstrip("."))

        await soon(is_refused)
        assert mirrors.stop_of(update()) == ""
        run["state"] = state

        def has_heard() -> str:
            mirrors.take(update())
            return mirrors.stop_of(update())

        await soon(has_heard)
        assert mirrors.stop_of(update()) == words


def many_tasks(n: int) -> dict[str, list[str]]:
    return {str(number): [f"each: {number}", "RUNNING", "Running", ""] for number in range(n)}


async def test_the_end_is_sent_in_time_though_thousands_of_tasks_are_not() -> None:
    async with Api() as api:
        api.delay_s = 0.05
        mirrors = PrefectMirrors(api.client)
        mirrors.take(update(tasks=many_tasks(3000)))
        await soon(lambda: len(api.of("task_runs")) > 16)
        mirrors.take(ended(tasks={}))
        why = await mirrors.finish(8.0)
        n_shown = sum(state == "Completed" for state, _ in api.of("task_runs").values())
        n_missing = int(why.removesuffix(" of its 3,000 tasks are missing").replace(",", ""))
        in_flight = prefect_mirror.REQUESTS_AT_ONCE
        assert 3000 - n_shown <= n_missing <= 3000 - n_shown + in_flight < 3000
        assert api.of("flow_runs") == {"calm-jay": ("Completed", "2 new")}
        await mirrors.close()


@pytest.mark.parametrize(("n_tasks", "n_locked"), [(20, 0), (200, prefect_mirror.REQUESTS_AT_ONCE)])
async def test_a_database_with_one_writer_gets_all_tasks(
    mirrored: Mirrored, n_tasks: int, n_locked: int
) -> None:
    async with mirrored() as (api, mirrors):
        api.delay_s, api.has_one_writer = 0.005, True
        mirrors.take(ended(tasks=many_tasks(n_tasks)))
        assert await mirrors.finish(120.0) == ""
        assert len(api.of("task_runs")) == n_tasks
        assert api.n_refused <= n_locked


async def test_a_task_that_is_refused_does_not_keep_the_end_from_being_shown() -> None:
    async with Api() as api:
        mirrors = PrefectMirrors(api.client)
        mirrors.take(update())
        await soon(lambda: api.data("ferries-progress"))
        api.refused["task_runs/"] = 422
        mirrors.take(ended())
        assert await mirrors.finish(60.0) == "1 of its 2 tasks are missing"
        assert api.of("flow_runs") == {"calm-jay": ("Completed", "2 new")}


@pytest.mark.parametrize("status", [401, 403, 503])
async def test_a_server_that_only_refuses_does_not_delay_the_end(status: int) -> None:
    async with Api() as api:
        api.refused[""] = status
        mirrors = PrefectMirrors(api.client)
        mirrors.take(update())
        await soon(lambda: api.n_refused)
        mirrors.take(ended())
        why = await mirrors.finish(600.0)
        assert f"status {status}" in why
        assert api.n_refused <= (5 if status == 503 else 3)


async def test_the_end_does_not_wait_for_the_pause_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prefect_mirror, "BACKOFF", Backoff(600.0, 600.0))
    async with Api() as api:
        api.is_away = True
        mirrors = PrefectMirrors(api.client)
        mirrors.take(update())
        await soon(lambda: api.n_refused)
        await asyncio.sleep(0.2)
        api.is_away = False
        mirrors.take(ended())
        assert await mirrors.finish(60.0) == ""
        assert api.of("flow_runs") == {"calm-jay": ("Completed", "2 new")}


async def test_a_server_that_was_away_is_not_one_that_refuses(mirrored: Mirrored) -> None:
    async with mirrored() as (api, mirrors):
        api.is_away = True
        mirrors.take(ended())
        await soon(lambda: api.n_refused > prefect_mirror.MOST_REFUSED)
        api.refused[""], api.is_away, n_before = 404, False, api.n_refused
        await soon(lambda: not mirrors.n_ended)
        assert api.n_refused - n_before > prefect_mirror.MOST_REFUSED


async def test_one_client_serves_a_whole_run() -> None:
    async with Api() as api:
        opened: list[httpx.AsyncClient] = []

        def client() -> httpx.AsyncClient:
            opened.append(api.client())
            return opened[-1]

        mirrors = PrefectMirrors(client)
        for percent in (10.0, 20.0, 30.0):
            mirrors.take(update(percent=percent))
            await soon(lambda: api.data("ferries-progress") == [percent])  # noqa: B023
        mirrors.take(ended())
        assert await mirrors.finish(60.0) == ""
        assert len(opened) == 1


async def test_a_run_that_is_cancelled_while_its_end_is_sent_leaves_no_task_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, n_documents=1)
    async with Api() as api:
        monkeypatch.setenv("PREFECT_API_URL", api.url)
        own = run_arguments(pool=FakePool(), settings=settings(tmp_path))
        run = asyncio.create_task(run_async(world.file, None, *own))
        api.refused["flow"] = 503
        await soon((tmp_path / "out" / "DIGEST.md").exists)
        n_before = api.n_refused
        await soon(lambda: api.n_refused > n_before)
        assert not run.done()
        run.cancel()
        await asyncio.wait({run})
        assert run.cancelled()
        left = [task for task in asyncio.all_tasks() if "_show" in repr(task.get_coro())]
        assert not left
