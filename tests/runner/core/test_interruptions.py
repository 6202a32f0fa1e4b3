"""Ctrl-C, a second run, a cancelled task: what is finished stays finished, whole, and once."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from paddock.engine.request import ChatRequest, Reply
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.events import Observer
from tests.fakes.pool import FakePool, echo
from tests.forked import Forked, ForkServer
from tests.runner.world import World, states
from tests.waiting import eventually, until

N_DOCUMENTS = 30


class Pool(FakePool):
    """Writes every answer to `calls`. After `n_free`, each waits until the file `go` is there."""

    def __init__(self, folder: Path, n_free: int, delay_s: float) -> None:
        super().__init__(answer=self._answer, delay_s=delay_s)
        self._folder, self._n_free = folder, n_free
        self._calls = os.open(folder / "calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def _answer(self, request: ChatRequest) -> str:
        text = request.messages[-1].content
        if text.startswith("Sum up"):
            os.write(self._calls, (text.split()[3].strip(",") + "\n").encode())
        return echo(request)

    async def _reply(self, request: ChatRequest) -> Reply:
        self._n_free -= 1
        go = self._folder / "go"
        while self._n_free < 0 and not go.exists():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)
        return await super()._reply(request)


class PrintedNotes(Observer):
    def note(self, text: str) -> None:
        print("note:", text, flush=True)


def carry_out(world: World, n_free: int, delay_s: float, options: dict[str, Any]) -> int:
    """Run a world in a process of its own."""
    pool = Pool(world.folder, n_free, delay_s)
    report = world.run(pool=pool, observer=PrintedNotes(), **options)
    print(json.dumps(report.as_json()), flush=True)
    return report.exit_status()


def start(
    forks: ForkServer, world: World, n_free: int = 1000, delay_s: float = 0.02, **options: object
) -> Forked:
    return forks.start(carry_out, world, n_free, delay_s, options)


def first_line(process: Forked) -> str:
    """Wait for the first line that a process writes."""
    until(lambda: "\n" in process.said() or process.poll() is not None)
    return process.said().splitlines()[0]


def calls(world: World) -> list[str]:
    """Return the numbers of the documents that the pool was asked about, in order."""
    file = world.folder / "calls"
    return file.read_text().split() if file.exists() else []


def finished(world: World) -> set[str]:
    """Return the numbers of the documents that have an entry."""
    with Ledger(world.folder / ".paddock", is_readonly=True) as ledger:
        scopes = ledger.scopes_of("pipeline.yaml")
        keys = {key for scope in scopes for key in ledger.entries(scope)}
    return {key.removesuffix(".txt") for key in keys if key.endswith(".txt")}


def outputs(world: World) -> dict[str, str]:
    """Return what anybody can see of the outputs."""
    folder = world.folder / "out"
    found = folder.glob("*") if folder.exists() else ()
    return {path.name: path.read_text() for path in found if not path.name.startswith(".")}


def test_ctrl_c_ends_in_order_and_the_same_command_continues(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    world = World(tmp_path, n_documents=N_DOCUMENTS)
    process = start(fork_server, world, n_free=3)
    while not finished(world) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err
    report = json.loads(out)
    assert report["status"] == "interrupted"
    done = finished(world)
    assert 0 < len(done) == report["counts"]["new"] < N_DOCUMENTS
    second = world.run()
    assert second.counts == {"fresh": len(done), "new": N_DOCUMENTS - len(done) + 1}


def test_a_second_run_waits_and_says_for_whom(tmp_path: Path, fork_server: ForkServer) -> None:
    world = World(tmp_path, n_documents=8)
    first = start(fork_server, world, n_free=0)
    locks = world.folder / ".paddock/locks"
    while not list(locks.glob("*.json")) and first.poll() is None:
        time.sleep(0.01)
    second = start(fork_server, world, delay_s=0.0)
    note = first_line(second)
    (world.folder / "go").touch()
    report, err = second.communicate()
    assert second.returncode == 0, err
    first_out, _ = first.communicate()
    assert first.returncode == 0
    name = json.loads(first_out)["run"]
    assert note.startswith(f"note: waiting for run '{name}' (process {first.pid} on ")
    assert note.endswith("), which works on the same folder")
    assert json.loads(report.splitlines()[-1])["counts"]["fresh"] == 9
    assert sorted(calls(world), key=int) == [str(n) for n in range(8)]


def test_waiting_ends_at_its_deadline_and_on_ctrl_c(
    tmp_path: Path, fork_server: ForkServer
) -> None:
    world = World(tmp_path, n_documents=2)
    first = start(fork_server, world, n_free=0)
    while not list((world.folder / ".paddock/locks").glob("*.json")) and first.poll() is None:
        time.sleep(0.01)
    short = start(fork_server, world, wait_s=0.2)
    patient = start(fork_server, world)
    _, err = short.communicate()
    assert "works on the same folder and did not end within 0.2 s" in err
    assert first_line(patient).startswith("note: waiting for")
    patient.send_signal(signal.SIGINT)
    _, err = patient.communicate()
    assert patient.returncode == 130, err
    first.kill()
    first.communicate()
    assert world.run().status == "completed"  # the dead one's lock is free


async def test_a_run_whose_task_is_cancelled_is_interrupted_and_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path, n_documents=2)
    pool = FakePool(delay_s=600)
    task = asyncio.create_task(world.run_async(pool=pool))
    await eventually(lambda: pool.chats)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    with Ledger(tmp_path / ".paddock", is_readonly=True) as ledger:
        (row,) = RunStore(ledger).runs()
    assert (row.status, row.message) == ("interrupted", "Interrupted; the same command continues.")
    report = await asyncio.to_thread(world.run)
    assert set(states(report).values()) == {"new"}
    assert report.notes == ()
