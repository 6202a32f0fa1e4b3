"""The orders that a watched folder gives, and what becomes of them: with a real queue and runs."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from paddock.engine.errors import DeadlineExceeded
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
from paddock.runner.api import run_async
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.schedule.order_queue import OrderQueue
from paddock.runner.schedule.pipeline_triggers import triggers_of
from paddock.runner.schedule.triggered_pipeline import TriggeredPipeline
from paddock.runner.schedule.watch_trigger import WatchTrigger
from paddock.runner.settings import Settings, UnattendedSettings
from paddock.runner.workers.order import Order
from tests.fakes.pool import FakePool
from tests.runner.core.test_failures import failing
from tests.runner.schedule.desks import at_work, desk_of, open_queue, triggered
from tests.waiting import eventually

STEPS = """\
steps:
  - {id: docs, uses: files.scan, with: {root: ROOT}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: sum, uses: chat, with: {prompt: "Sum up: {{ steps.text.text }}"}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.text.text }}"}}
"""
WATCH, HOT = "settle: 0.1s, batch: 0s, deletes: prune", "settle: 0.1s, batch: 0s, claim: move"


@dataclass
class Folder:
    """A watched folder: its trigger, the queue, and runs of the orders."""

    folder: Path
    pipeline: TriggeredPipeline
    queue: OrderQueue
    pool: FakePool = field(default_factory=FakePool)
    orders: list[Order] = field(default_factory=list)
    """All that were given, also before a restart."""
    notes: list[str] = field(default_factory=list)
    trigger: WatchTrigger = field(init=False)

    @property
    def inbox(self) -> Path:
        return self.folder / "inbox"

    def write(self, name: str, text: str) -> None:
        (self.inbox / name).write_text(text)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """Have the trigger run, as after a start; tell it the ends that it does not know."""
        (trigger,) = triggers_of(replace(self.pipeline, max_attempts=2))
        assert isinstance(trigger, WatchTrigger)
        self.trigger = trigger
        desk = desk_of(self.queue, self.pipeline, self.trigger, warn=self.notes.append)
        async with at_work(self.trigger, desk):
            for order in await self.queue.unhandled_orders(self.pipeline.key, self.trigger.key):
                await self.told(order)
            yield

    async def given(self, n: int) -> Order:
        """Wait for the next order, which is this one of all."""

        def is_given() -> bool:
            known = {order.id for order in self.orders}
            self.orders += [o for o in self.queue.orders.values() if o.id not in known]
            return len(self.orders) >= n

        await eventually(is_given)
        assert len(self.orders) == n
        return self.orders[-1]

    async def run(self, order: Order) -> Order:
        """Carry an order out; its trigger is not told."""
        report = await run_async(
            self.pipeline.file,
            options=RunOptions(
                local=True, trigger=order.trigger, job=order.id, retry_failed=order.retry_failed,
                ordered_files=order.files,
            ),
            environment=RunEnvironment(
                settings=Settings(
                    PoolSettings(),
                    state_dir=self.folder / "state",
                    unattended=UnattendedSettings(max_attempts=2),
                ),
                pool=self.pool,
            ),
        )  # fmt: skip
        end = report.status
        return self.queue.note(order.id, state="ended", end=end, run=report.run, ended_at=1.0)

    async def told(self, order: Order) -> None:
        await self.trigger.done(order)
        self.queue.note_ended(order.id, is_handled=True)

    async def carried_out(self, n: int) -> Order:
        order = await self.run(await self.given(n))
        await self.told(order)
        return order

    async def rest(self) -> None:
        """Wait until the folder is at rest: nothing settles, and no other order is given."""
        await asyncio.sleep(0.5)
        await eventually(lambda: self.trigger.status(None)["settling"] == 0)  # type: ignore[arg-type]
        assert {*self.queue.orders} <= {order.id for order in self.orders}

    def outputs(self) -> dict[str, str]:
        out = self.folder / "out"
        return {path.name: path.read_text() for path in out.iterdir()} if out.is_dir() else {}

    def files(self) -> list[list[str]]:
        return [[seen.relpath for seen in order.files] for order in self.orders]


@asynccontextmanager
async def watched(folder: Path, keys: str = WATCH, steps: str = STEPS) -> AsyncIterator[Folder]:
    (folder / "inbox").mkdir(exist_ok=True)
    root = "inbox/processing" if "move" in keys else "inbox"
    (folder / root).mkdir(exist_ok=True)
    pipeline = triggered(folder, f"{{watch: {{path: inbox, {keys}}}}}", steps.replace("ROOT", root))
    async with open_queue(folder, pipeline) as queue:
        yield Folder(folder, pipeline, queue)


async def test_an_order_carries_its_files_as_they_settled_and_its_run_takes_just_these(
    tmp_path: Path,
) -> None:
    async with watched(tmp_path) as folder:
        for name in ("a.txt", "b.txt"):
            folder.write(name, name)
        async with folder.served():
            order = await folder.given(1)
            facts = (folder.inbox / "a.txt").stat()
            seen = order.files[0]
            assert (seen.size, seen.mtime_ns) == (facts.st_size, facts.st_mtime_ns)
            assert (seen.inode, seen.ctime_ns) == (facts.st_ino, facts.st_ctime_ns)
            assert (order.reason, order.trigger) == ("a.txt and 1 more", "watch inbox")
            folder.write("late.txt", "late")
            await folder.carried_out(1)
            assert folder.outputs() == {"a.txt": "a.txt", "b.txt": "b.txt"}
            await folder.carried_out(2)
            assert "late.txt" in folder.outputs()
            await folder.rest()


async def test_a_version_that_comes_back_is_another_order(tmp_path: Path) -> None:
    async with watched(tmp_path) as folder, folder.served():
        for n, text in enumerate(("A", "B", "A"), 1):
            folder.write("a.txt", text)
            os.utime(folder.inbox / "a.txt", ns=(7, 7))
            await folder.carried_out(n)
            assert folder.outputs() == {"a.txt": text}
        await folder.rest()


@pytest.mark.parametrize("moment", ["open", "ended", "told", "handled"])
async def test_no_start_of_up_gives_an_order_for_a_file_again(tmp_path: Path, moment: str) -> None:
    async with watched(tmp_path) as folder:
        folder.write("a.txt", "A")
        async with folder.served():
            order = await folder.given(1)
            if moment != "open":
                order = await folder.run(order)
            if moment == "told":  # and killed before that was noted
                await folder.trigger.done(order)
            if moment == "handled":
                await folder.told(order)
        async with folder.served():
            await folder.rest()
            if moment == "open":
                await folder.carried_out(1)
                await folder.rest()
            assert folder.files() == [["a.txt"]]
            assert folder.trigger.status(None)["done"] == 1  # type: ignore[arg-type]
            folder.write("b.txt", "B")
            await folder.carried_out(2)


async def test_a_deletion_is_an_order_each_time(tmp_path: Path) -> None:
    async with watched(tmp_path) as folder, folder.served():
        folder.write("keep.txt", "K")
        await folder.carried_out(1)
        for n in (2, 4):
            folder.write("a.txt", "A")
            await folder.carried_out(n)
            (folder.inbox / "a.txt").unlink()
            order = await folder.given(n + 1)
            assert (order.files, order.gone, order.reason) == ((), ("a.txt",), "a.txt")
            await folder.carried_out(n + 1)
            assert folder.outputs() == {"keep.txt": "K"}


@pytest.mark.parametrize("keys", [WATCH, HOT], ids=["watch", "hot folder"])
@pytest.mark.parametrize(
    ("on_error", "error", "n_orders"),
    [
        ("quarantine", DeadlineExceeded("total", 5), 2),
        ("quarantine", None, 1),
        ("fail", DeadlineExceeded("total", 5), 2),
        ("fail", None, 2),
    ],
)
async def test_the_ledger_bounds_how_often_a_file_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: str, on_error: str, error: Exception,
    n_orders: int,
) -> None:  # fmt: skip
    monkeypatch.setattr("paddock.runner.watch.next_batch._FIRST_PAUSE_S", 0.1)
    steps = STEPS.replace("    do:\n", f"    on_error: {on_error}\n    do:\n")
    async with watched(tmp_path, keys, steps) as folder, folder.served():
        folder.write("a.txt", "bad" if error else "")  # an empty document fails for good
        folder.pool = failing(error, 9, "Sum up: bad") if error else FakePool()
        for n in range(1, n_orders + 1):
            await folder.carried_out(n)
        await folder.rest()
        assert folder.files() == [["a.txt"]] * n_orders
        if keys == HOT:
            assert (folder.inbox / "failed/a.txt").exists()
            assert (folder.inbox / "failed/a.txt.reason.txt").read_text() != "\n"
        folder.pool = FakePool()
        folder.write("b.txt", "good")
        await folder.carried_out(n_orders + 1)
        is_in_the_way = on_error == "fail" and error is None and keys == WATCH
        assert ("b.txt" in folder.outputs()) is not is_in_the_way


async def test_a_document_that_is_dropped_again_is_tried_again(tmp_path: Path) -> None:
    async with watched(tmp_path, HOT) as folder, folder.served():
        for n in (1, 2):
            folder.write("a.txt", "")
            order = await folder.carried_out(n)
            assert (order.retry_failed, folder.trigger.kind) == (True, "hot folder")
        folder.write("a.txt", "whole")
        await folder.carried_out(3)
        await eventually((folder.inbox / "done/a.txt").exists)
        assert sorted(path.name for path in (folder.inbox / "failed").iterdir()) == [
            "a.2.txt",
            "a.2.txt.reason.txt",
            "a.txt",
            "a.txt.reason.txt",
        ]


@pytest.mark.parametrize("is_ended", [False, True])
async def test_a_hot_folder_that_is_started_again_knows_its_documents(
    tmp_path: Path, is_ended: bool
) -> None:
    own_paths = STEPS.replace("out/{{ doc.relpath }}", "out/{{ doc.sha256 }}")
    async with watched(tmp_path, HOT, own_paths) as folder:
        folder.write("a.txt", "A")
        async with folder.served():
            order = await folder.given(1)
            if is_ended:
                await folder.run(order)
        folder.write("a.txt", "another of that name")
        async with folder.served():
            if not is_ended:
                await folder.carried_out(1)
            assert (folder.inbox / "done/a.txt").read_text() == "A"
            await folder.carried_out(2)
            assert (folder.inbox / "done/a.2.txt").read_text() == "another of that name"
            await folder.rest()


async def test_a_full_disk_keeps_files_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.runner.watch.next_batch.REFUSED_S", 0.1)
    async with watched(tmp_path) as folder, folder.served():
        await eventually(lambda: folder.trigger.status(None)["state"] == "watching")  # type: ignore[arg-type]
        file, folder.queue.file = folder.queue.file, tmp_path / "p.yaml/no"
        await asyncio.to_thread(folder.queue._close)
        folder.write("a.txt", "A")
        await eventually(lambda: folder.notes)
        assert "no order could be given" in folder.notes[0]
        folder.queue.file = file
        await folder.carried_out(1)
        assert folder.outputs() == {"a.txt": "A"}
