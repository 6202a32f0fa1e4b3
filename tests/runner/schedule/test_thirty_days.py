"""Thirty days of `paddock up` in virtual time: whatever is killed, each order is done once."""

import asyncio
import contextlib
import random
import time as real_time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paddock.engine.system.tasks import wait_for_event
from paddock.engine.wire import to_plain
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.progress.report import Report
from paddock.runner.schedule import order_queue, run_manager, schedule_trigger
from paddock.runner.schedule.cron import upcoming
from paddock.runner.schedule.order_queue import OrderQueue, QueueBroken
from paddock.runner.schedule.run_manager import ManagerOptions, RunManager
from paddock.runner.schedule.run_processes import PrefectPlace, RunProcess, RunTask
from paddock.runner.schedule.schedule_trigger import ScheduleTrigger
from paddock.runner.schedule.trigger_keeper import TriggerKeeper
from paddock.runner.schedule.triggered_pipeline import TriggeredPipeline
from paddock.runner.workers.order import Order, OrderOutcome
from tests.fakes.virtual import VirtualLoop
from tests.runner.schedule.desks import Around, triggered

START = datetime(2026, 10, 10, 12, 20, tzinfo=UTC)
DAYS = 30
HOUR_S = 3600.0
PIPELINES = {
    "hourly": '{schedule: {cron: "7 * * * *", timezone: UTC, catch_up: all}}',
    "daily": '{schedule: {cron: "30 6 * * *", timezone: Europe/Berlin}}',
    "called": "{webhook: [{path: /x}]}",
}
CALLS = "webhook /x"
WHAT = ("call",) * 6 + ("burst", "run", "run", "up", "machine", "disk", "clock")


class Loop(VirtualLoop):
    """A virtual loop in which what threads do is done at once."""

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class Process(RunProcess):
    """A run's process: it outlives its `up`, as a real one does."""

    def __init__(self, world: "World", task: RunTask) -> None:
        super().__init__(0)
        world.n_processes += 1
        self.pid, self.mark = world.n_processes, f"mark {world.n_processes}"
        self.world, self.manager = world, world.manager
        self.task = asyncio.create_task(self._carry_out(task.order))
        world.alive[self.mark] = self

    async def _carry_out(self, order: Order) -> None:
        world = self.world
        self.manager.began(self, f"owl-{self.pid}")
        await asyncio.sleep(world.chance.expovariate(1 / 240))
        world.done[order.id] += 1  # the ledger's last row of it
        if self.manager is not world.manager or not world.is_up:
            await self.die("its process is gone")  # its `up` was killed: it ends
            return
        report = Report(f"owl-{self.pid}", "p", "completed", {})
        self.manager.ended(self, to_plain(OrderOutcome(report)))

    @property
    def can_take_orders(self) -> bool:
        return not self.is_over and self.manager is self.world.manager

    def give_order(self, order: Order, place: PrefectPlace) -> None:
        self.task = asyncio.create_task(self._carry_out(order))

    async def die(self, words: str) -> None:
        self.is_over = True
        self.world.alive.pop(self.mark, None)
        if self.world.is_up:
            self.world.manager.over(self, words)

    def finish(self) -> None:
        self.is_over = True
        self.world.alive.pop(self.mark, None)


class World(Around):
    """The machine: a clock, the processes of runs, what the ledger knows, and `up`, or not."""

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__()
        self.folder = folder
        self.chance = random.Random(seed)
        self.pipelines: list[TriggeredPipeline] = []
        for name, on in PIPELINES.items():
            (folder / name).mkdir()
            self.pipelines.append(triggered(folder / name, on))
        self.alive: dict[str, Process] = {}
        self.n_processes = 0
        self.done = Counter[str]()
        """How often the run of an order came to its end, by the order's id."""
        self.accepted: dict[str, str] = {}
        """Call → its order."""
        self.ahead = timedelta()
        """How wrong the machine's clock is."""
        self.is_up = self.is_disk_full = False
        self.server: asyncio.Task[None] | None = None
        self.n_killed = Counter[str]()

    def now(self) -> datetime:
        loop = asyncio.get_running_loop()
        return START + timedelta(seconds=loop.time()) + self.ahead

    async def up(self) -> None:
        """Serve the pipelines until cancelled, which is a kill."""
        self.queue = queue = OrderQueue(self.folder / "state")
        await queue.open()
        self.manager = RunManager(queue, self, ManagerOptions(2, 3))
        self.manager.executor = SimpleNamespace(  # type: ignore[assignment]
            start=self._start, adopt=self._adopt
        )
        self.keeper = TriggerKeeper(queue, _no_ledger, self._triggers)
        self.manager.pipelines.update({made.key: made for made in self.pipelines})
        await queue.serve([made.key for made in self.pipelines])
        self.is_up = True
        for made in self.pipelines:
            await self.keeper.put(made)
        while True:
            queue.changed.clear()
            with contextlib.suppress(QueueBroken):
                await queue.flush()
                await self.manager.round()
            await wait_for_event(queue.changed, 300.0)

    def _triggers(self, pipeline: TriggeredPipeline) -> list[ScheduleTrigger]:
        return [ScheduleTrigger(timed, pipeline, self.now) for timed in pipeline.schedules]

    def trigger_keys(self, pipeline: str) -> Collection[str]:
        return [*self.keeper.keys(pipeline), CALLS]

    async def report_crashes(self, pipeline: TriggeredPipeline, crash: str, run: str) -> None:
        raise AssertionError(crash)

    def known_end(self, pipeline: TriggeredPipeline, order: str) -> tuple[str, Report] | None:
        end = Report("r", "p", "completed", {})
        return ("r", end) if self.done[order] else None

    def has_progressed(self, pipeline: TriggeredPipeline, run: str) -> bool:
        return True

    def note_ended(self, order: Order) -> None:
        self.keeper.note_ended(order)

    async def _start(self, task: RunTask) -> Process:
        return Process(self, task)

    def _adopt(self, mark: str) -> Process | None:
        process = self.alive.get(mark)
        if process is not None:
            process.manager = None  # type: ignore[assignment]
        return process

    async def call(self, name: str) -> None:
        """Call the webhook as callers do: again until it is answered."""
        while name not in self.accepted:
            if self.is_up:
                order = Order("", name, self.pipelines[2].key, CALLS, is_promised=True)
                with contextlib.suppress(QueueBroken):
                    self.accepted[name] = (await self.queue.put(order)).order.id
            await asyncio.sleep(300.0)


def _no_ledger(folder: Path, is_readonly: bool) -> Ledger:
    raise AssertionError("no trigger here reads one")


async def thirty_days(world: World) -> None:
    loop, chance = asyncio.get_running_loop(), world.chance
    calls = set[asyncio.Task[None]]()
    own = asyncio.current_task()
    assert own is not None

    def start_up() -> None:
        world.server = asyncio.create_task(world.up())

    def kill_up() -> None:
        world.is_up = False
        runs = {process.task for process in world.alive.values()}
        for task in asyncio.all_tasks() - runs - calls - {own}:
            task.cancel()
        world.queue._close()

    start_up()
    while loop.time() < DAYS * 24 * HOUR_S:
        await asyncio.sleep(chance.expovariate(1 / HOUR_S))
        what = chance.choice(WHAT)
        world.n_killed[what] += 1
        if what == "call" or what == "burst":
            n = 1 if what == "call" else 250 if not len(world.accepted) % 7 else 20
            for _ in range(n):
                name = f"call {len(calls)}"
                calls.add(asyncio.create_task(world.call(name)))
                if chance.random() < 0.1:
                    calls.add(asyncio.create_task(world.call(name)))  # once more
        elif what == "run" and world.alive:
            process = chance.choice(list(world.alive.values()))
            process.task.cancel()
            await process.die("its process was killed by SIGKILL")
        elif what in ("up", "machine") and world.is_up:
            kill_up()
            if what == "machine":
                for process in list(world.alive.values()):
                    process.task.cancel()
                world.alive.clear()
            await asyncio.sleep(chance.expovariate(1 / (2 * HOUR_S)))
            start_up()
        elif what == "disk":
            world.is_disk_full = True
            await asyncio.sleep(chance.expovariate(1 / HOUR_S))
            world.is_disk_full = False
        elif what == "clock":
            world.ahead += timedelta(seconds=chance.uniform(-1800, 1800))
    world.ahead = max(world.ahead, timedelta())
    for _ in range(2000):
        if world.is_up and not world.queue.orders and all(task.done() for task in calls):
            break
        await asyncio.sleep(60.0)
    kill_up()
    await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(2))
def test_each_order_of_thirty_bad_days_is_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    world = World(tmp_path, seed)

    def clock() -> float:
        return world.now().timestamp()

    class Datetime(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return world.now()

    timing = SimpleNamespace(time=clock, monotonic=real_time.monotonic, sleep=real_time.sleep)
    monkeypatch.setattr(order_queue, "time", timing)
    monkeypatch.setattr(run_manager, "time", timing)
    monkeypatch.setattr(run_manager, "datetime", Datetime)
    monkeypatch.setattr(schedule_trigger, "LOOK_S", 1800.0)
    monkeypatch.setattr(schedule_trigger, "AGAIN_S", 600.0)
    real_open = order_queue.open_queue_file

    def open_file(file: Path) -> Any:
        db = real_open(file)
        db.execute("PRAGMA synchronous = OFF")
        if not world.is_disk_full:
            return db
        db.close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(order_queue, "open_queue_file", open_file)
    real_do = OrderQueue._do

    async def do(self: OrderQueue, work: Any) -> Any:
        if world.is_disk_full:
            self._close()  # so that it is opened again, which fails
        return await real_do(self, work)

    monkeypatch.setattr(OrderQueue, "_do", do)
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(thirty_days(world))
        end = START + timedelta(seconds=runner.get_loop().time())

    rows = real_open(world.queue.file).execute("SELECT id, key, state, end FROM orders").fetchall()
    assert {(state, end) for _, _, state, end in rows} <= {
        ("ended", "completed"), ("ended", "skipped")
    }, rows  # fmt: skip
    by_key: Mapping[str, str] = {key: id_ for id_, key, _, _ in rows}
    assert {world.done[id_] for id_, _, _, end in rows if end == "completed"} == {1}
    assert not any(world.done[id_] for id_, _, _, end in rows if end == "skipped")
    assert all(world.done[order] == 1 for order in world.accepted.values())
    assert len(world.accepted) > 100
    (hourly,) = world.pipelines[0].schedules
    due = upcoming(hourly, START + timedelta(hours=2), 24 * (DAYS - 1))
    lost = [at for at in due if at < end and f"{hourly.key} {at.isoformat()}" not in by_key]
    assert not lost, (seed, world.n_killed)
