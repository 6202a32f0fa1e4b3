"""A watch at work on a real folder, with the system's own events."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from paddock.runner.folders.file_filter import WatchSpec
from paddock.runner.folders.file_versions import FileIdentity, FileVersion
from paddock.runner.folders.folder_identity import Mount
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.watch import hot_folder
from paddock.runner.watch.handled_files import BatchOutcome, WatchLedger
from paddock.runner.watch.watch_loop import FolderWatch
from paddock.runner.workers.order import Order, OrderEnd
from tests.waiting import PATIENCE_S, eventually


@dataclass
class MemoryBook:
    """A book without a ledger; `error` is raised instead of an answer."""

    done: dict[str, FileIdentity] = field(default_factory=dict)
    outcomes: dict[str, BatchOutcome] = field(default_factory=dict)
    own: frozenset[str] = frozenset()
    error: LedgerError | None = None

    def read(self) -> dict[str, FileIdentity]:
        self._fail()
        return dict(self.done)

    def owned(self) -> frozenset[str]:
        self._fail()
        return self.own

    def outcome(self, order: Order) -> BatchOutcome:
        self._fail()
        return self.outcomes[order.id]

    def record(self, run: str, files: Any, gone: Any) -> None:
        self._fail()
        self.done.update(files)
        for relpath in gone:
            self.done.pop(relpath, None)

    def record_filed(self, places: Any) -> None:
        self._fail()

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@dataclass
class Watched:
    """A watch that runs, and its orders and messages."""

    spec: WatchSpec
    book: MemoryBook = field(default_factory=MemoryBook)
    status: OrderEnd = "completed"
    ends: bool = True
    """Whether runs end at once."""
    failed: dict[str, str] = field(default_factory=dict)
    refuses: Exception | None = None
    orders: list[Order] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    watch: FolderWatch = field(init=False)
    ending: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.watch = FolderWatch(
            self.spec,
            cast(WatchLedger, self.book),
            known_orders=self._known_orders,
            submit=self._submit,
            note=self.notes.append,
            max_attempts=2,
        )

    async def _known_orders(self) -> list[Order]:
        return [order for order in self.orders if order.id not in self.book.outcomes]

    async def _submit(self, files: Sequence[FileVersion], gone: Sequence[str]) -> Order:
        if self.refuses is not None:
            raise self.refuses
        id_ = f"{len(self.orders)}"
        order = Order(id_, id_, "p", "watch", files=tuple(files), gone=tuple(gone))
        self.orders.append(order)
        if self.ends:
            self.ending.add(asyncio.create_task(self.done(order)))
        return order

    async def done(self, order: Order) -> None:
        """End an order, and wait until the watch has written it."""
        outcome = BatchOutcome(f"run-{order.id}", self.status, self.failed)
        self.book.outcomes[order.id] = outcome
        await self.watch.done(order)

    @property
    def names(self) -> list[str]:
        return [seen.relpath for order in self.orders for seen in order.files]

    @property
    def gone(self) -> list[str]:
        return [relpath for order in self.orders for relpath in order.gone]

    async def rest(self) -> None:
        """Wait until everything that is there has been seen through."""
        await eventually(
            lambda: (
                self.watch.status().get("out") == 0
                and self.watch.status()["settling"] == self.watch.status()["settled"] == 0
            )
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Watched]:
        task = asyncio.create_task(self.watch.run())
        try:
            yield self
        finally:
            task.cancel()
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.wait({task})


def spec(root: Path, **options: Any) -> WatchSpec:
    return WatchSpec("w", root, **{"settle_s": 0.1, "batch_s": 0.05, **options})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


async def test_files_that_are_there_and_files_that_come_in_whatever_way(root: Path) -> None:
    (root / "there.txt").write_text("x")
    async with Watched(spec(root)).running() as watched:
        await eventually(lambda: watched.names == ["there.txt"])
        (root / "written.txt").write_text("x")
        await eventually(lambda: "written.txt" in watched.names)
        (root / "aside.tmp").write_text("x")
        (root / "aside.tmp").replace(root / "renamed.txt")
        await eventually(lambda: "renamed.txt" in watched.names)
        (root.parent / "elsewhere.txt").write_text("x")
        (root.parent / "elsewhere.txt").replace(root / "moved-in.txt")
        await eventually(lambda: "moved-in.txt" in watched.names)
        (root.parent / "folder/deep").mkdir(parents=True)
        (root.parent / "folder/deep/a.txt").write_text("x")
        (root.parent / "folder").rename(root / "folder")
        await eventually(lambda: "folder/deep/a.txt" in watched.names)
        await watched.rest()
        assert len(watched.names) == len(set(watched.names)) == 5
        await eventually(lambda: watched.watch.status()["state"] == "watching")
        assert watched.notes == []


async def test_a_file_whose_attributes_alone_change_is_seen_and_is_not_being_written(
    root: Path,
) -> None:
    (root / "a.txt").write_text("x")
    async with Watched(spec(root)).running() as watched:
        await eventually(lambda: watched.names == ["a.txt"])
        await watched.rest()
        os.utime(root / "a.txt", (1, 1))  # as chmod, which root's own reading does not notice
        await eventually(lambda: watched.names == ["a.txt", "a.txt"])
        assert watched.notes == []


async def test_the_root_may_come_late_go_and_come_again_and_a_run_decides_on_missing_files(
    tmp_path: Path,
) -> None:
    root = tmp_path / "inbox"
    async with Watched(spec(root)).running() as watched:
        await eventually(lambda: watched.notes)
        assert watched.watch.status()["state"] == "away"
        root.mkdir()
        (root / "a.txt").write_text("x")
        await eventually(lambda: watched.names == ["a.txt"])
        shutil.rmtree(root)
        root.mkdir()
        (root / "b.txt").write_text("x")
        await eventually(lambda: "b.txt" in watched.names)
        (root / "c.txt").write_text("x")
        await eventually(lambda: "c.txt" in watched.names)
        await eventually(lambda: watched.gone == ["a.txt"])
        assert watched.notes[:2] == [
            f"watch '{root}': the folder does not exist. The watch starts when it does.",
            f"watch '{root}': the folder is there again.",
        ]


async def test_a_late_writer_loses_no_end_of_a_document_in_a_hot_folder(root: Path) -> None:
    """It opens the file where a run already has it, so that nothing tells before the end."""
    read: list[str] = []
    watched = Watched(spec(root, is_hot=True), ends=False)
    async with watched.running():
        (root / "a.txt").write_text("begin")
        for n, part in enumerate((" middle", " end", "")):
            await eventually(lambda n=n: len(watched.orders) == n + 1)  # type: ignore[misc]
            claimed = root / "processing/a.txt"
            read.append(claimed.read_text())
            with claimed.open("a") as writer:
                writer.write(part)
            await watched.done(watched.orders[n])
        await eventually((root / "done/a.txt").exists)
    assert read == ["begin", "begin middle", "begin middle end"]
    assert (root / "done/a.txt").read_text() == "begin middle end"


async def test_an_end_that_cannot_be_written_is_not_taken_and_keeps_no_watch_from_its_end(
    root: Path,
) -> None:
    (root / "a.txt").write_text("x")
    watched = Watched(spec(root), ends=False)
    async with watched.running():
        await eventually(lambda: watched.orders)
        watched.book.error = LedgerError("the disk is full")
        end = asyncio.create_task(watched.done(watched.orders[0]))
        await eventually(lambda: watched.notes)
    for ended in (end, asyncio.create_task(watched.done(watched.orders[0]))):
        with pytest.raises(asyncio.CancelledError):
            await ended
    assert "a.txt" not in watched.book.done


async def test_a_hot_folder_from_drop_to_done_and_failed(root: Path) -> None:
    (root / "good.txt").write_text("x")
    (root / "bad.txt").write_text("x")
    watched = Watched(spec(root, is_hot=True), failed={"bad.txt": "it is empty"})
    watched.status = "quarantined"
    async with watched.running():
        await eventually(lambda: (root / "done/good.txt").exists())
        await eventually(lambda: (root / "failed/bad.txt").exists())
        assert (root / "failed/bad.txt.reason.txt").read_text() == "it is empty\n"
        (root / "good.txt").write_text("another of that name")
        await eventually(lambda: (root / "done/good.2.txt").exists())


async def test_own_outputs_below_the_root_start_nothing(root: Path) -> None:
    (root / "a.txt").write_text("x")
    book = MemoryBook()
    async with Watched(spec(root), book).running() as watched:
        await eventually(lambda: watched.names == ["a.txt"])
        await watched.rest()
        book.own = frozenset((str(root / "a.txt.md"),))
        (root / "a.txt.md").write_text("made of it")
        (root / "b.txt").write_text("x")
        await eventually(lambda: "b.txt" in watched.names)
        await watched.rest()
        assert watched.names == ["a.txt", "b.txt"]


async def test_a_storm_of_files_loses_none(root: Path) -> None:
    """More events than the system's queue holds: those that are lost are found by a look."""
    async with Watched(spec(root, batch_s=0.5)).running() as watched:
        await eventually(lambda: watched.watch.status()["state"] == "watching")
        await asyncio.to_thread(_storm, root, 3000)
        await eventually(lambda: len(set(watched.names)) == 3000)


def _storm(root: Path, n_files: int) -> None:
    for number in range(n_files):
        (root / f"{number}.txt").write_text("x")


@pytest.mark.parametrize("is_share", [False, True])
async def test_where_the_system_reports_no_changes_the_folder_is_polled(
    root: Path, monkeypatch: pytest.MonkeyPatch, *, is_share: bool
) -> None:
    def refuse(self: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    if is_share:
        mounts = [Mount("/", "ext4"), Mount(str(root), "nfs4")]
        monkeypatch.setattr("paddock.runner.folders.folder_identity.mounted", lambda: mounts)
        why = "a file system of type nfs4 reports no changes. Polling every 5 s."
    else:
        monkeypatch.setattr("paddock.runner.watch.change_source.ChangeSource._listen", refuse)
        why = (
            "the system has no watches left. Polling every 5 s; a higher "
            "fs.inotify.max_user_watches and max_user_instances helps."
        )
    monkeypatch.setattr("paddock.runner.watch.watch_loop.POLL_S", 0.2)
    async with Watched(spec(root)).running() as watched:
        await eventually(lambda: watched.notes)
        (root / "a.txt").write_text("x")
        await eventually(lambda: watched.names == ["a.txt"])
        assert watched.notes == [f"watch '{root}': {why}"]
        assert watched.watch.status()["state"] == "polling"


@pytest.mark.parametrize("is_late", [False, True], ids=["never", "late"])
async def test_folders_that_watchdog_does_not_register_are_polled_and_told_if_that_lasts(
    root: Path, monkeypatch: pytest.MonkeyPatch, *, is_late: bool
) -> None:
    module = "paddock.runner.watch.change_source"
    registered = [0]
    monkeypatch.setattr(f"{module}.n_watched_folders", lambda emitter: registered[0])
    monkeypatch.setattr(f"{module}.UNWATCHED_S", 60 if is_late else 0.1)
    monkeypatch.setattr("paddock.runner.watch.watch_loop.POLL_S", 0.2)
    (root / "folder").mkdir()
    async with Watched(spec(root)).running() as watched:
        await eventually(lambda: watched.watch.status()["state"] == "polling")
        (root / "folder/a.txt").write_text("x")
        await eventually(lambda: watched.names == ["folder/a.txt"])
        if is_late:
            registered[0] = 2
            await eventually(lambda: watched.watch.status()["state"] == "watching")
            assert watched.notes == []
        else:
            await eventually(lambda: watched.notes)
            text = "the system cannot watch all its folders. Polling every 5 s."
            assert watched.notes == [f"watch '{root}': {text}"]


async def test_a_folder_that_hangs_is_told_and_the_watch_still_ends(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    hangs = threading.Event()
    monkeypatch.setattr("paddock.runner.watch.watch_loop.SLOW_S", 0.2)
    monkeypatch.setattr(
        "paddock.runner.watch.watch_loop.root_identity", lambda root: hangs.wait() and (1, 1)
    )
    try:
        async with Watched(spec(root)).running() as watched:
            await eventually(lambda: watched.notes)
            assert watched.watch.status()["state"] == "not answering"
            assert watched.notes == [f"watch '{root}': the folder has not answered for 0.2 s."]
    finally:
        hangs.set()


@pytest.mark.parametrize("is_hot", [False, True])
async def test_a_file_is_taken_when_its_writer_has_closed_it_and_not_before(
    root: Path, *, is_hot: bool
) -> None:
    async with Watched(spec(root, is_hot=is_hot)).running() as watched:
        with (root / "a.txt").open("w") as upload:
            upload.write("half")
            upload.flush()
            await eventually(lambda: hot_folder.OPEN_REASON in "".join(watched.notes))
            upload.write(" and half")
            upload.flush()
            (root / "b.txt").write_text("x")
            await eventually(lambda: watched.names == ["b.txt"])
        await eventually(lambda: watched.names == ["b.txt", "a.txt"])
