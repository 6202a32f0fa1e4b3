"""A ledger in PostgreSQL that machines share: one run at a time on it, and its retention."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from paddock.runner.api import run_async
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.folders.state_folders import find_ledgers
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.retention import RetentionLimits, SweepResult, sweep_ledger
from paddock.runner.ledger.run_history import recent_runs
from paddock.runner.ledger.run_locks import Locked
from paddock.runner.ledger.run_store import RunStore, run_status, session_name
from paddock.runner.progress.events import Observer
from paddock.runner.progress.report import Report
from tests.fakes.pool import FakePool
from tests.forked import ForkServer
from tests.runner.world import World, run_arguments, settings


class Notes(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []

        self.is_waiting = asyncio.Event()

    def waits(self, text: str) -> None:
        self.notes.append(text)
        self.is_waiting.set()


class Held(FakePool):
    """Answers once `go` is set."""

    def __init__(self, go: asyncio.Event) -> None:
        super().__init__()
        self.began, self._go = asyncio.Event(), go

    async def answer_to(self, request: Any) -> Any:
        self.began.set()
        await self._go.wait()
        return await super().answer_to(request)


async def run(world: World, url: str, pool: FakePool, notes: Notes, **options: Any) -> Report:
    own = replace(settings(world.folder), ledger_url=url)
    arguments = run_arguments(local=True, pool=pool, observer=notes, settings=own, **options)
    return await run_async(world.file, None, *arguments)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, n_documents=2)


@pytest.fixture(params=["file", "postgres"])
def place(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue("url") if request.param == "postgres" else ""


async def test_a_second_run_on_the_same_folder_waits_and_does_nothing_again(
    world: World, place: str
) -> None:
    go, notes, other = asyncio.Event(), Notes(), FakePool()
    pool = Held(go)
    first = asyncio.create_task(run(world, place, pool, Notes()))
    await pool.began.wait()
    second = asyncio.create_task(run(world, place, other, notes))
    await notes.is_waiting.wait()
    assert notes.notes[-1].startswith("waiting for run '")
    assert notes.notes[-1].endswith("), which works on the same folder")
    go.set()
    reports = [await first, await second]
    assert [report.status for report in reports] == ["completed", "completed"]
    assert pool.chats and not other.chats


async def test_a_run_that_may_not_wait_says_who_is_at_work(world: World, place: str) -> None:
    go = asyncio.Event()
    pool = Held(go)
    first = asyncio.create_task(run(world, place, pool, Notes()))
    await pool.began.wait()
    with pytest.raises(Locked) as error:
        await run(world, place, FakePool(), Notes(), wait_s=0.1)
    words = str(error.value)
    assert words.startswith("run '")
    assert words.endswith(
        ") works on the same folder and did not end within 0.1 s. Wait for it, or end it."
    )
    go.set()
    assert (await first).status == "completed"


def hold(folder: Path, url: str) -> int:
    with Ledger(folder, url=url) as ledger:
        assert ledger.lock is not None
        ledger.lock.take_lock("letters", '{"run": "a"}', session_name("a"))
        (folder / "held").touch()
        time.sleep(600)
    return 0


def test_what_a_killed_run_held_is_free_at_once_and_known_to_have_crashed(
    tmp_path: Path, url: str, fork_server: ForkServer
) -> None:
    with Ledger(tmp_path / "state", url=url) as ledger:
        assert ledger.lock is not None
        process = fork_server.start(hold, tmp_path / "state", url)
        while not (tmp_path / "state" / "held").exists():
            assert process.poll() is None
            time.sleep(0.02)
        mark = '{"run": "a"}'
        assert ledger.lock.take_lock("letters", "b", session_name("b")) == (False, mark)
        assert ledger.lock.take_lock("invoices", "b", session_name("b")) == (True, "")
        process.kill()
        process.communicate()
        while not (found := ledger.lock.take_lock("letters", "b", session_name("b")))[0]:
            time.sleep(0.02)
        assert found == (True, mark)


@contextmanager
def broken(url: str, run: str) -> Iterator[None]:
    """End the session that holds a run's lock, as a lost cable does."""
    with psycopg.connect(url, autocommit=True) as connection:
        query = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s"
        assert connection.execute(query, [session_name(run)]).fetchall() == [(True,)]
        yield


@pytest.mark.parametrize("is_taken", [False, True])
async def test_a_run_without_its_lock_writes_no_more(
    tmp_path: Path, url: str, *, is_taken: bool
) -> None:
    with Ledger(tmp_path, url=url) as ours, Ledger(tmp_path, url=url) as other:
        assert ours.lock is not None and other.lock is not None
        assert ours.lock.take_lock("letters", "ours", session_name("a"))[0]
        with broken(url, "a"):
            if is_taken:
                assert other.lock.take_lock("letters", "other", session_name("b"))[0]
                other.lock.release_lock()
        ours.record_scope("s", "f", "x", "{}")
        if not is_taken:
            await ours.durable()
            assert not other.lock.take_lock("letters", "other", session_name("b"))[0]
            return
        with pytest.raises(LedgerError, match="another run has begun on the same folder"):
            await ours.durable()


def test_a_run_on_another_machine_has_died_once_the_server_has_no_session_of_it(
    tmp_path: Path, url: str
) -> None:
    with Ledger(tmp_path, url=url) as ledger:
        assert ledger.lock is not None
        RunStore(ledger).reserve_run("owl", "p", "p.yaml")
        row = RunStore(ledger).run("owl")
        assert row is not None
        there = replace(row, host="elsewhere")
        assert run_status(there, ledger) == "died"
        ledger.lock.take_lock("letters", "owl", session_name("owl"))
        assert run_status(there, ledger) == "running"


# --- retention


EVERYTHING = RetentionLimits(runs_before=time.time() + 1e6, calls_before=time.time() + 1e6)


def ran(world: World, url: str) -> Report:
    shared = replace(settings(world.folder), ledger_url=url)
    return asyncio.run(
        run_async(
            world.file,
            {},
            options=RunOptions(local=True),
            environment=RunEnvironment(settings=shared, pool=FakePool()),
        )
    )


def test_cleaning_a_shared_ledger_removes_only_what_is_not_needed(url: str, tmp_path: Path) -> None:
    world = World(tmp_path, n_documents=3)
    ran(world, url)
    world.edit("Sum up:", "Summarise:")
    assert ran(world, url).calls == 4
    state = tmp_path / ".paddock"
    would = sweep_ledger(state, url, EVERYTHING, is_dry=True)
    swept = sweep_ledger(state, url, EVERYTHING)
    assert (swept.calls, swept.logs) == (4, 2)
    assert would == swept
    assert ran(world, url).counts == {"fresh": 4}
    assert (
        sweep_ledger(state, url, replace(EVERYTHING, runs_before=0, max_bytes=1)) == SweepResult()
    )


def test_the_runs_of_a_shared_ledger_are_listed(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, n_documents=1)
    report = ran(world, url)
    monkeypatch.setenv("PADDOCK_LEDGER", url)
    found = recent_runs(find_ledgers([tmp_path]), limit=5)
    assert [past.row.run for past in found.runs] == [report.run]
