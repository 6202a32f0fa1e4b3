"""One run of a group at a time, whoever started it: on one machine, and among several."""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest, Reply
from paddock.engine.system.records import replace
from paddock.runner.api import run_async
from paddock.runner.core.other_runs.concurrency_groups import group_holders
from paddock.runner.ledger.run_locks import GroupTurn, LockHolder
from paddock.runner.progress.drain import StopGate
from paddock.runner.progress.events import Observer
from paddock.runner.progress.report import Report
from paddock.runner.settings import Settings
from tests.fakes.pool import FakePool, echo
from tests.forked import ForkServer
from tests.runner.world import World, run_arguments, settings
from tests.waiting import until

N_DOCUMENTS = 6


def hold_turn(folder: Path, name: str) -> None:
    turn = GroupTurn(folder, name, "other-run")
    assert turn.take() is None
    print("taken", flush=True)
    time.sleep(600)


class HeldPool(FakePool):
    """Answers one call, and the others as soon as its run goes on."""

    def __init__(self, goes_on: Callable[[], bool], **options: Any) -> None:
        super().__init__(**options)
        self._goes_on = goes_on

    async def answer_to(self, request: ChatRequest) -> Reply:
        while len(self.chats) > 1 and not self._goes_on():  # noqa: ASYNC110 - see `at_work`
            await asyncio.sleep(0.01)
        return await super().answer_to(request)


class Machine:
    """Runs on this machine: they share a state folder, or a database besides."""

    def __init__(self, folder: Path, url: str = "") -> None:
        self.folder = folder
        self.settings: Settings = replace(settings(folder), ledger_url=url)
        self.events: list[str] = []
        self.notes: list[str] = []

    def world(self, name: str, rule: str, n: int = N_DOCUMENTS) -> World:
        world = World(self.folder / name, n_documents=n)
        world.edit("name: summaries\n", f"name: {name}\nconcurrency: {rule}\n")
        world.edit("    for_each: doc", "    max_parallel: 1\n    for_each: doc")
        return world

    async def run(
        self,
        world: World,
        name: str,
        *,
        delay_s: float = 0.05,
        goes_on: Callable[[], bool] = lambda: True,
        **options: Any,
    ) -> Report:
        events, notes = self.events, self.notes

        def answer(request: ChatRequest) -> str:
            events.append(name)
            return echo(request)

        class Notes(Observer):
            def note(self, text: str) -> None:
                notes.append(f"{name}: {text}")

        options.setdefault("settings", self.settings)
        pool = HeldPool(goes_on, answer=answer, delay_s=delay_s)
        inputs = options.pop("inputs", None)
        arguments = run_arguments(local=True, pool=pool, observer=Notes(), **options)
        return await run_async(world.file, inputs, *arguments)

    async def two(self, first: World, second: World, **options: Any) -> tuple[Report, Report]:
        """Run one, and the other when the first is at work.

        The first goes on when that one waits, works or is over.
        """
        is_over = asyncio.Event()
        goes_on = lambda: self.is_there("second") or is_over.is_set()  # noqa: E731
        first_run = asyncio.create_task(self.run(first, "first", goes_on=goes_on))
        await self.at_work("first")
        try:
            two = await self.run(second, "second", **options)
        finally:
            is_over.set()
        return await first_run, two

    async def begin_until_closed(self, world: World, name: str) -> asyncio.Task[Report]:
        """Begin a run that goes on once it was asked to stop; return it when it is at work."""
        gate = StopGate()
        run = self.run(world, name, stop_gate=gate, goes_on=lambda: gate.is_closed)
        task = asyncio.create_task(run)
        await self.at_work(name)
        return task

    def is_there(self, name: str) -> bool:
        """Return whether a run works, or waits for another one."""
        return name in self.events or any(n.startswith(f"{name}: waiting") for n in self.notes)

    async def at_work(self, name: str) -> None:
        while name not in self.events:  # noqa: ASYNC110 - it is another task's doing
            await asyncio.sleep(0.01)


def is_one_after_the_other(events: Sequence[str]) -> bool:
    changes = sum(before != after for before, after in pairwise(events))
    return changes == len(set(events)) - 1


@pytest.fixture(params=["file", "postgres"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    url = request.getfixturevalue("url") if request.param == "postgres" else ""
    return Machine(tmp_path, url)


def test_a_run_waits_for_another_of_its_group_whatever_their_folders(machine: Machine) -> None:
    a, b = machine.world("a", "{group: nightly}"), machine.world("b", "{group: nightly}")
    reports = asyncio.run(machine.two(a, b))
    assert [report.status for report in reports] == ["completed"] * 2
    assert is_one_after_the_other(machine.events)
    (note,) = [note for note in machine.notes if "waiting" in note]
    assert note.startswith(f"second: waiting for run '{reports[0].run}' (process {os.getpid()} on ")
    assert note.endswith(", which is of the same group")


def test_the_group_may_be_made_of_inputs(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    a, b = (machine.world(name, '{group: "tone {{ inputs.tone }}"}') for name in "ab")
    asyncio.run(machine.two(a, b, inputs={"tone": "grand"}))
    assert not is_one_after_the_other(machine.events)


def test_skip_leaves_the_new_run_out_and_says_so(machine: Machine) -> None:
    a = machine.world("a", "{group: nightly}")
    b = machine.world("b", "{group: nightly, on_conflict: skip}")
    first, second = asyncio.run(machine.two(a, b))
    assert first.status == "completed"
    assert (second.status, second.exit_status(), second.run) == ("interrupted", 130, "")
    assert str(second.message).startswith(f"run '{first.run}' (process {os.getpid()} on ")
    assert str(second.message).endswith(
        ") of the same group was at work, and `on_conflict` is `skip`: this one is left out."
    )
    assert set(machine.events) == {"first"}
    again = asyncio.run(machine.run(b, "second"))
    assert again.status == "completed"


async def test_cancel_running_stops_the_older_run_at_an_items_border(machine: Machine) -> None:
    a = machine.world("a", "{group: nightly}")
    b = machine.world("b", "{group: nightly, on_conflict: cancel_running}")
    run_a = await machine.begin_until_closed(a, "first")
    two = asyncio.create_task(machine.run(b, "second"))
    first, second = await run_a, await two
    assert (first.status, second.status) == ("interrupted", "completed")
    assert str(first.message).startswith("A newer run of its group takes its place. ")
    assert str(first.message).endswith(" items are left; the same command goes on.")
    assert is_one_after_the_other(machine.events)


def test_what_a_killed_process_had_is_free_at_once(tmp_path: Path, fork_server: ForkServer) -> None:
    machine = Machine(tmp_path)
    world = machine.world("a", "{group: nightly, on_conflict: skip}")
    asyncio.run(machine.run(world, "before"))
    (lock,) = (tmp_path / "state/groups").glob("*.lock")
    holder = fork_server.start(hold_turn, lock.parent, lock.stem)
    until(lambda: holder.said() == "taken\n")
    world.write("inbox/more.txt", "Another document.")
    assert asyncio.run(machine.run(world, "second")).status == "interrupted"
    holder.kill()
    holder.wait()
    (tmp_path / f"state/groups/{lock.stem}.json").touch()
    assert group_holders(machine.settings, [lock.stem]) == {}
    assert asyncio.run(machine.run(world, "third")).status == "completed"


def test_who_holds_it_is_told_even_by_a_note_that_is_half_written(tmp_path: Path) -> None:
    file = tmp_path / "who.json"
    assert LockHolder.read(file) is None
    file.write_text('{"run": "a')
    assert LockHolder.read(file) is None
    holder = LockHolder("there", 7, time.time(), "a")
    file.write_text(holder.as_json())
    assert LockHolder.read(file) == holder
    assert str(holder).startswith("run 'a' (process 7 on there, since ")
