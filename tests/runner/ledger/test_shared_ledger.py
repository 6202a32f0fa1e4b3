"""A ledger in PostgreSQL that machines share: one run at a time on it, and its retention."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from paddock.engine.system.records import replace
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_locks import LockHolder, session_name
from paddock.runner.ledger.run_store import RunStore, run_status
from paddock.runner.progress.events import Observer
from paddock.runner.progress.report import Report
from tests.fakes.pool import FakePool
from tests.forked import ForkServer
from tests.runner.world import World, settings


class Notes(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []

        self.is_waiting = asyncio.Event()

    def waits(self, text: str) -> None:
        self.notes.append(text)
        self.is_waiting.set()


async def run(world: World, url: str, pool: FakePool, notes: Notes, **options: Any) -> Report:
    own = replace(settings(world.folder), ledger_url=url)
    return await world.run_async(pool=pool, observer=notes, settings=own, **options)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, n_documents=2)


def hold(folder: Path, url: str) -> int:
    with Ledger(folder, url=url) as ledger:
        assert ledger.run_lock("letters", "a").take() is None
        (folder / "held").touch()
        time.sleep(600)
    return 0


def test_what_a_killed_run_held_is_free_at_once_and_known_to_have_crashed(
    tmp_path: Path, url: str, fork_server: ForkServer
) -> None:
    with Ledger(tmp_path / "state", url=url) as ledger:
        process = fork_server.start(hold, tmp_path / "state", url)
        while not (tmp_path / "state" / "held").exists():
            assert process.poll() is None
            time.sleep(0.02)
        lock, other = ledger.run_lock("letters", "b"), ledger.run_lock("invoices", "b")
        holder = lock.take()
        assert isinstance(holder, LockHolder) and holder.run == "a"
        assert (other.take(), other.has_crashed) == (None, False)
        process.kill()
        process.communicate()
        while lock.take() is not None:
            time.sleep(0.02)
        assert lock.has_crashed


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
        assert ours.run_lock("letters", "a").take() is None
        lock = other.run_lock("letters", "b")
        with broken(url, "a"):
            if is_taken:
                assert lock.take() is None
                lock.release()
        ours.record_scope("s", "f", "x", "{}")
        if not is_taken:
            await ours.durable()
            assert lock.take() is not None
            return
        with pytest.raises(LedgerError, match="another run has begun on the same folder"):
            await ours.durable()


def test_a_run_on_another_machine_has_died_once_the_server_has_no_session_of_it(
    tmp_path: Path, url: str
) -> None:
    with Ledger(tmp_path, url=url) as ledger:
        RunStore(ledger).reserve_run("owl", "p", "p.yaml")
        row = RunStore(ledger).run("owl")
        assert row is not None
        there = replace(row, host="elsewhere")
        assert run_status(there, ledger) == "died"
        assert ledger.run_lock("letters", "owl").take() is None
        assert run_status(there, ledger) == "running"


# --- retention
