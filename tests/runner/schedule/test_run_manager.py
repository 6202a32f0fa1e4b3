"""What becomes of orders: started, held, skipped, restarted, and what a killed `up` left."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.settings import PoolSettings
from paddock.engine.system.process_marks import process_mark
from paddock.engine.wire import to_plain
from paddock.runner.core.other_runs.concurrency_groups import GROUP_FOLDER
from paddock.runner.ledger.run_locks import GroupTurn
from paddock.runner.progress.report import Report, Status
from paddock.runner.schedule.order_queue import OrderQueue
from paddock.runner.schedule.run_manager import ManagerOptions, RunManager
from paddock.runner.schedule.run_processes import RunProcess, RunTask, StopRequest
from paddock.runner.schedule.triggered_pipeline import TriggeredPipeline
from paddock.runner.settings import Settings
from paddock.runner.workers.order import Order, OrderOutcome
from tests.runner.schedule.desks import Around, open_queue, triggered
from tests.waiting import eventually

HOOK = "{webhook: [{path: /x}]}"
TRIGGER = "webhook /x"
DEAD = "1:999999:0"


class Process(RunProcess):
    """A run's process, as the manager sees it; the test says what becomes of its orders."""

    def __init__(self, task: RunTask) -> None:
        super().__init__(0)
        self.pid = id(self)
        self.mark = DEAD
        self.orders = [task.order]
        self.halted: list[StopRequest] = []
        self.is_finished = False

    @property
    def can_take_orders(self) -> bool:
        return not self.is_over

    def give_order(self, order: Order, place: Any) -> None:
        self.orders.append(order)
        self.n_orders += 1

    def finish(self) -> None:
        self.is_finished = True

    def halt(self, request: StopRequest) -> None:
        self.halted.append(request)

    def kill(self) -> None: ...


@dataclass
class World:
    """A manager over a real queue, whose processes are the test's."""

    queue: OrderQueue
    pipeline: TriggeredPipeline
    manager: RunManager
    around: Around
    processes: list[Process] = field(default_factory=list)

    @property
    def ended(self) -> list[Order]:
        return self.around.ended

    async def put(self, key: str, trigger: str = TRIGGER, **facts: Any) -> Order:
        return (await self.queue.put(Order("", key, self.pipeline.key, trigger, **facts))).order

    def now(self, order: Order) -> Order:
        return self.queue.orders[order.id]

    async def end(
        self, process: Process, status: Status = "completed", words: str = "", **how: Any
    ) -> None:
        """Have the order at work of a process end."""
        n = len(self.manager.jobs)
        report = Report("calm-owl", "p", status, {}, message=words or None)
        self.manager.ended(process, to_plain(OrderOutcome(report, **how)))
        await eventually(lambda: len(self.manager.jobs) < n)

    async def die(self, process: Process) -> None:
        n = len(self.manager.jobs)
        self.manager.over(process, "its process was killed by SIGKILL")
        await eventually(lambda: len(self.manager.jobs) < n)


@asynccontextmanager
async def world_of(folder: Path, on: str = HOOK) -> AsyncIterator[World]:
    pipeline = triggered(folder, on)
    async with open_queue(folder, pipeline) as queue:
        around = Around(TRIGGER, *(timed.key for timed in pipeline.schedules))
        manager = RunManager(queue, around, ManagerOptions(max_runs=2, max_restarts=1))
        world = World(queue, pipeline, manager, around)
        world.manager.pipelines[pipeline.key] = pipeline

        async def start(task: RunTask) -> Process:
            world.processes.append(Process(task))
            return world.processes[-1]

        world.manager.executor.start = start  # type: ignore[method-assign]
        yield world


async def test_orders_of_a_group_go_one_after_the_other_in_one_process(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        orders = [await world.put(str(n)) for n in range(3)]
        await world.manager.round()
        (process,) = world.processes
        assert [world.now(order).state for order in orders] == ["running", "waiting", "waiting"]
        world.manager.began(process, "calm-owl")
        await world.manager.round()
        assert world.now(orders[1]).message == "waits for run 'calm-owl'"
        for _ in orders:
            await world.end(process)
            await world.manager.round()
        assert [order.id for order in process.orders] == [order.id for order in orders]
        assert [(order.id, order.end) for order in world.ended] == [
            (order.id, "completed") for order in orders
        ]
        assert process.is_finished and world.queue.orders == {}


async def test_an_order_whose_process_dies_is_started_again_and_not_for_ever(
    tmp_path: Path,
) -> None:
    async with world_of(tmp_path) as world:
        order = await world.put("1")
        for attempt in (1, 2):
            await world.manager.round()
            assert world.now(order).attempt == attempt
            await world.die(world.processes[-1])
            if attempt == 1:
                assert world.now(order).message.endswith("start 2 of at most 2")
                assert world.now(order).not_before > time.time()
                await world.manager.round()
                assert len(world.processes) == 1  # its pause is not over
                world.queue.note(order.id, not_before=0.0)
        assert [(order.end, order.message) for order in world.ended] == [
            ("crashed", "its process was killed by SIGKILL")
        ]
        await eventually(lambda: world.around.crashes)


@pytest.mark.parametrize(
    ("is_stopped", "known", "state", "attempt"),
    [(True, None, "waiting", 1), (False, None, "waiting", 2), (False, "completed", "", 1)],
)
async def test_what_a_killed_up_left_ends_as_the_ledger_knows_or_is_started_again(
    tmp_path: Path, is_stopped: bool, known: Status | None, state: str, attempt: int
) -> None:
    async with world_of(tmp_path) as world:
        if known:
            world.around.ends[""] = Report("calm-owl", "p", known, {})
        order = await world.put("1")
        facts = {"mark": DEAD, "run": "calm-owl", "is_stopped": is_stopped}
        world.queue.note(order.id, state="running", **facts)
        await world.manager.round()
        await eventually(lambda: not world.manager.jobs)
        if state:
            left = world.now(order)
            assert (left.state, left.attempt) == (state, attempt)
        else:
            assert [order.end for order in world.ended] == ["completed"]
        assert world.processes == []


async def test_a_process_that_lives_is_followed_and_its_end_is_the_ledgers(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        order, sleeper = await world.put("1"), await asyncio.create_subprocess_exec("sleep", "600")
        world.queue.note(order.id, state="running", mark=process_mark(sleeper.pid), run="calm-owl")
        await world.manager.round()
        (job,) = world.manager.jobs.values()
        assert job.process.pid == sleeper.pid
        world.around.ends[""] = Report("calm-owl", "p", "quarantined", {})
        sleeper.kill()
        await sleeper.wait()
        await eventually(lambda: not world.manager.jobs)
        assert [order.end for order in world.ended] == ["quarantined"]


async def test_a_run_that_could_not_begin_is_a_fault_until_one_has(tmp_path: Path) -> None:
    """Consent that has lapsed, say: no one looks for a run that is not there."""
    async with world_of(tmp_path) as world:
        for n in range(2):
            await world.put(str(n))
        await world.manager.round()
        process = world.processes[0]
        refused = OrderOutcome(None, "this file has no consent for that.")
        world.manager.ended(process, to_plain(refused))
        await eventually(lambda: not world.manager.jobs)
        assert world.manager.faults == {world.pipeline.key: refused.message}
        await world.manager.round()
        await world.end(process)
        assert [order.end for order in world.ended] == ["failed", "completed"]
        assert world.manager.faults == {}


async def test_a_pause_holds_what_waits_and_not_what_runs(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        first, second = await world.put("1"), await world.put("2")
        await world.manager.round()
        await world.queue.pause(world.pipeline.key, is_paused=True)
        await world.end(world.processes[0])
        await world.manager.round()
        assert world.now(second).message == "waits: it is paused"
        assert [order.id for order in world.ended] == [first.id]
        await world.queue.pause(world.pipeline.key, is_paused=False)
        await world.manager.round()
        assert world.now(second).state == "running"


async def test_what_a_pipeline_no_longer_takes_waits_if_promised_and_else_is_skipped(
    tmp_path: Path,
) -> None:
    async with world_of(tmp_path) as world:
        promised = await world.put("1", "webhook /gone", is_promised=True)
        await world.put("2", "watch inbox")
        await world.manager.round()
        assert world.now(promised).message == "cannot run: its webhook /gone is no more."
        assert [(order.end, order.message) for order in world.ended] == [
            ("skipped", "its watch inbox is no more.")
        ]


async def test_a_run_that_failed_because_its_ledger_was_away_waits_until_that_is_back(
    tmp_path: Path,
) -> None:
    async with world_of(tmp_path) as world:
        order = await world.put("1")
        await world.manager.round()
        world.around.faults[world.pipeline.file.parent] = "the database does not answer."
        await world.end(world.processes[0], "failed", "no connection")
        world.queue.note(order.id, not_before=0.0, message="")
        await world.manager.round()
        assert world.now(order).message == "waits: the database does not answer."
        assert world.ended == []


async def test_a_run_whose_group_a_run_by_hand_holds_gets_no_process_until_that_ends(
    tmp_path: Path,
) -> None:
    on = "{webhook: [{path: /x}]}\nconcurrency: {group: mail}"
    async with world_of(tmp_path, on) as world:
        settings = world.around.settings = Settings(PoolSettings(), tmp_path / "home")
        order = await world.put("1")
        name = world.pipeline.group({})
        turn = GroupTurn(settings.state_dir / GROUP_FOLDER, name, "calm-owl")
        assert turn.take() is None
        await world.manager.round()
        assert (world.processes, world.now(order).message) == ([], "waits for run 'calm-owl'")
        turn.leave()
        await world.manager.round()
        assert world.now(order).state == "running"


async def test_a_suspended_run_keeps_its_order_and_a_cancelled_one_is_over(tmp_path: Path) -> None:
    async with world_of(tmp_path) as world:
        order = await world.put("1")
        await world.manager.round()
        await world.end(world.processes[0], "suspended")
        assert world.now(order).state == "suspended"
        world.queue.note(order.id, state="waiting")  # resumed in Prefect
        await world.manager.round()
        await world.end(world.processes[0], "interrupted", "It was cancelled", is_cancelled=True)
        assert [order.end for order in world.ended] == ["cancelled"]


async def test_a_cancelled_run_is_over_though_its_window_closed_while_it_drained(
    tmp_path: Path,
) -> None:
    async with world_of(tmp_path) as world:
        await world.put("1")
        await world.manager.round()
        (job,) = world.manager.jobs.values()
        world.manager.stop_job(job, "window", "its window is over")
        await world.end(world.processes[0], "interrupted", is_cancelled=True)
        assert [order.end for order in world.ended] == ["cancelled"]
