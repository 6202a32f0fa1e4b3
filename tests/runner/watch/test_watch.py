"""A watch at work on a real folder, with the system's own events."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.ledger.entries import LedgerError
from paddock.runner.watch.book import Book, Known
from paddock.runner.watch.spec import Batch, Identity, Outcome, Status, WatchSpec
from paddock.runner.watch.watch import FolderWatch

DEADLINE_S = 30.0


@dataclass
class MemoryBook:
    """A book without a ledger; `error` is raised instead of an answer."""

    done: dict[str, Identity] = field(default_factory=dict)
    epoch: int = 0
    own: frozenset[str] = frozenset()
    error: LedgerError | None = None

    def read(self) -> Known:
        self._fail()
        return Known(dict(self.done), self.epoch)

    def owned(self) -> frozenset[str]:
        self._fail()
        return self.own

    def record(self, run: str, files: Any, gone: Any, epoch: int) -> None:
        self._fail()
        self.done.update(files)
        for relpath in gone:
            self.done.pop(relpath, None)
        self.epoch = epoch

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@dataclass
class Watched:
    """A watch that runs, and what it has handed on and said."""

    spec: WatchSpec
    book: MemoryBook = field(default_factory=MemoryBook)
    status: Status = "completed"
    ends: bool = True
    """Whether runs end at once."""
    failed: dict[str, str] = field(default_factory=dict)
    refuses: Exception | None = None
    batches: list[Batch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    watch: FolderWatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = FolderWatch(
            self.spec, self.book, self._submit, note=self.notes.append, max_attempts=2
        )

    async def _submit(self, batch: Batch) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.batches.append(batch)
        if self.ends:
            outcome = Outcome(f"run-{len(self.batches)}", self.status, self.failed)
            await self.watch.done(batch, outcome)

    @property
    def names(self) -> list[str]:
        return [seen.relpath for batch in self.batches for seen in batch.files]

    @property
    def gone(self) -> list[str]:
        return [relpath for batch in self.batches for relpath in batch.gone]

    async def until(self, is_so: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not is_so():  # noqa: ASYNC110 - what is waited for is told by nobody
                await asyncio.sleep(0.02)

    async def rest(self) -> None:
        """Wait until everything that is there has been seen through."""
        await self.until(
            lambda: (
                self.watch.status().get("out") == 0
                and self.watch.status()["settling"] == self.watch.status()["settled"] == 0
            )
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Watched]:
        stop = asyncio.Event()
        task = asyncio.create_task(self.watch.run(stop))
        try:
            yield self
        finally:
            stop.set()
            async with asyncio.timeout(DEADLINE_S):
                await task


def spec(root: Path, **options: Any) -> WatchSpec:
    return WatchSpec("w", root, **{"settle_s": 0.1, "batch_s": 0.05, **options})


def go(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def test_files_that_are_there_and_files_that_come_in_whatever_way(root: Path) -> None:
    (root / "there.txt").write_text("x")

    async def main() -> None:
        async with Watched(spec(root)).running() as watched:
            await watched.until(lambda: watched.names == ["there.txt"])
            (root / "written.txt").write_text("x")
            await watched.until(lambda: "written.txt" in watched.names)
            (root / "aside.tmp").write_text("x")
            (root / "aside.tmp").replace(root / "renamed.txt")
            await watched.until(lambda: "renamed.txt" in watched.names)
            (root.parent / "elsewhere.txt").write_text("x")
            (root.parent / "elsewhere.txt").replace(root / "moved-in.txt")
            await watched.until(lambda: "moved-in.txt" in watched.names)
            (root.parent / "folder/deep").mkdir(parents=True)
            (root.parent / "folder/deep/a.txt").write_text("x")
            (root.parent / "folder").rename(root / "folder")
            await watched.until(lambda: "folder/deep/a.txt" in watched.names)
            await watched.rest()
            assert len(watched.names) == len(set(watched.names)) == 5
            assert watched.watch.status()["state"] == "watching"
            assert watched.notes == []

    go(main())


def test_a_file_that_grows_is_taken_when_it_has_come_to_rest(root: Path) -> None:
    async def main() -> None:
        async with Watched(spec(root, settle_s=1.0)).running() as watched:
            with (root / "log.txt").open("w") as file:
                for _ in range(15):
                    file.write("line\n")
                    file.flush()
                    await asyncio.sleep(0.1)
                assert watched.batches == []
            await watched.until(lambda: watched.batches)
            assert [seen.size for batch in watched.batches for seen in batch.files] == [75]

    go(main())


def test_files_that_settle_together_go_into_one_run(root: Path) -> None:
    async def main() -> None:
        async with Watched(spec(root, batch_s=2.0)).running() as watched:
            for number in range(50):
                (root / f"{number}.txt").write_text("x")
            await watched.until(lambda: watched.batches)
            assert len(watched.names) == 50
            assert len(watched.batches) == 1

    go(main())


def test_a_change_is_another_version_and_a_deletion_is_told_after_two_looks(root: Path) -> None:
    (root / "a.txt").write_text("x")
    (root / "b.txt").write_text("x")

    async def main() -> None:
        async with Watched(spec(root)).running() as watched:
            await watched.until(lambda: len(watched.names) == 2)
            (root / "a.txt").write_text("longer")
            await watched.until(lambda: watched.names.count("a.txt") == 2)
            (root / "a.txt").unlink()
            await watched.until(lambda: watched.gone == ["a.txt"])
            await watched.until(lambda: list(watched.book.done) == ["b.txt"])

    go(main())


def test_what_was_seen_through_is_not_taken_again_by_the_next_watch(root: Path) -> None:
    (root / "a.txt").write_text("x")
    book = MemoryBook()

    async def main() -> None:
        async with Watched(spec(root), book).running() as watched:
            await watched.until(lambda: "a.txt" in book.done and book.done["a.txt"][0] == 1)
            await watched.rest()
        (root / "b.txt").write_text("x")
        async with Watched(spec(root), book).running() as watched:
            await watched.until(lambda: watched.batches)
            await watched.rest()
            assert watched.names == ["b.txt"]

    go(main())


def test_a_run_that_nobody_heard_the_end_of_is_asked_for_again_under_the_same_key(
    root: Path,
) -> None:
    (root / "a.txt").write_text("x")
    book = MemoryBook()
    keys: list[str] = []

    async def main() -> None:
        for _ in range(2):
            async with Watched(spec(root), book, ends=False).running() as watched:
                await watched.until(lambda: watched.batches)
                keys.extend(batch.idempotency_key for batch in watched.batches)

    go(main())
    assert keys[0] == keys[1]


def test_the_root_may_come_late_go_and_come_again(tmp_path: Path) -> None:
    root = tmp_path / "inbox"

    async def main() -> None:
        async with Watched(spec(root)).running() as watched:
            await watched.until(lambda: watched.notes)
            assert watched.watch.status()["state"] == "away"
            root.mkdir()
            (root / "a.txt").write_text("x")
            await watched.until(lambda: watched.names == ["a.txt"])
            shutil.rmtree(root)
            root.mkdir()
            (root / "b.txt").write_text("x")
            await watched.until(lambda: "b.txt" in watched.names)
            (root / "c.txt").write_text("x")
            await watched.until(lambda: "c.txt" in watched.names)
            assert watched.notes[:2] == [
                f"watch '{root}': the folder is not there. It is watched as soon as it is.",
                f"watch '{root}': the folder is there again.",
            ]

    go(main())


def test_a_root_that_is_a_file_is_told(tmp_path: Path) -> None:
    root = tmp_path / "inbox"
    root.write_text("x")

    async def main() -> None:
        async with Watched(spec(root)).running() as watched:
            await watched.until(lambda: watched.notes)
            assert watched.notes == [
                f"watch '{root}': this is a file, not a folder. It is watched as soon as it is one."
            ]

    go(main())


def test_an_empty_root_at_the_start_is_taken_for_one_that_is_not_mounted(root: Path) -> None:
    book = MemoryBook({"a.txt": (1, 1), "b.txt": (1, 1)})

    async def main() -> None:
        async with Watched(spec(root), book).running() as watched:
            await watched.until(lambda: watched.notes)
            assert watched.notes == [
                f"watch '{root}': none of its 2 known files is there. Nothing is taken for "
                f"deleted before a file is seen in it, in case something is not mounted."
            ]
            await asyncio.sleep(0.5)
            assert watched.batches == []
            (root / "c.txt").write_text("x")
            await watched.until(lambda: watched.gone == ["a.txt", "b.txt"])

    go(main())


def test_at_most_two_batches_are_out_and_what_comes_later_gathers(root: Path) -> None:
    async def main() -> None:
        async with Watched(spec(root), ends=False).running() as watched:
            for number in range(2):
                (root / f"{number}.txt").write_text("x")
                await watched.until(lambda n=number: len(watched.batches) == n + 1)  # type: ignore[misc]
            for number in range(2, 9):
                (root / f"{number}.txt").write_text("x")
            await watched.until(lambda: watched.watch.status()["settled"] == 7)
            await asyncio.sleep(0.3)
            assert len(watched.batches) == 2
            watched.ends = True
            await watched.watch.done(watched.batches[0], Outcome("r", "completed"))
            await watched.until(lambda: len(watched.batches) == 3)
            assert len(watched.batches[2].files) == 7

    go(main())


def test_where_nobody_takes_a_batch_it_is_told_once_and_tried_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.runner.watch.state.REFUSED_S", 0.1)
    (root / "a.txt").write_text("x")

    async def main() -> None:
        watched = Watched(spec(root), refuses=ConnectionError("the server is away"))
        async with watched.running():
            await watched.until(lambda: watched.notes)
            await asyncio.sleep(0.5)
            assert watched.notes == [
                f"watch '{root}': no run could be asked for (the server is away). "
                f"It is tried again."
            ]
            watched.refuses = None
            await watched.until(lambda: watched.names == ["a.txt"])

    go(main())


def test_a_ledger_that_cannot_be_used_for_a_while_ends_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.runner.watch.state.REFUSED_S", 0.1)
    monkeypatch.setattr("paddock.runner.watch.watch.REFUSED_S", 0.1)
    (root / "a.txt").write_text("x")
    book = MemoryBook(error=LedgerError("the disk is full"))

    async def main() -> None:
        watched = Watched(spec(root), book)
        async with watched.running():
            await watched.until(lambda: watched.notes)
            book.error = None
            await watched.until(lambda: watched.names == ["a.txt"])
            await watched.until(lambda: book.done["a.txt"][0] == 1)
            assert watched.notes == [f"watch '{root}': the disk is full"]

    go(main())


def test_a_hot_folder_from_drop_to_done_and_failed(root: Path) -> None:
    (root / "good.txt").write_text("x")
    (root / "bad.txt").write_text("x")

    async def main() -> None:
        watched = Watched(spec(root, is_hot=True), failed={"bad.txt": "it is empty"})
        watched.status = "quarantined"
        async with watched.running():
            await watched.until(lambda: (root / "done/good.txt").exists())
            await watched.until(lambda: (root / "failed/bad.txt").exists())
            assert (root / "failed/bad.txt.reason.txt").read_text() == "it is empty\n"
            (root / "good.txt").write_text("another of that name")
            await watched.until(lambda: (root / "done/good.2.txt").exists())
            assert all(batch.retries_failed for batch in watched.batches)

    go(main())


def test_a_hot_folder_takes_up_what_a_killed_one_was_working_on(root: Path) -> None:
    (root / "processing").mkdir()
    (root / "processing/a.txt").write_text("x")

    async def main() -> None:
        async with Watched(spec(root, is_hot=True)).running() as watched:
            await watched.until(lambda: (root / "done/a.txt").exists())
            assert watched.names == ["a.txt"]

    go(main())


def test_own_outputs_below_the_root_start_nothing(root: Path) -> None:
    (root / "a.txt").write_text("x")
    book = MemoryBook()

    async def main() -> None:
        async with Watched(spec(root), book).running() as watched:
            await watched.until(lambda: watched.names == ["a.txt"])
            await watched.rest()
            book.own = frozenset((str(root / "a.txt.md"),))
            (root / "a.txt.md").write_text("made of it")
            (root / "b.txt").write_text("x")
            await watched.until(lambda: "b.txt" in watched.names)
            await watched.rest()
            assert watched.names == ["a.txt", "b.txt"]

    go(main())


def test_a_storm_of_files_loses_none(root: Path) -> None:
    """More events than the system's queue holds: those that are lost are found by a look."""

    async def main() -> None:
        async with Watched(spec(root, batch_s=0.5)).running() as watched:
            await watched.until(lambda: watched.watch.status()["state"] == "watching")
            await asyncio.to_thread(_storm, root, 3000)
            await watched.until(lambda: len(set(watched.names)) == 3000)

    go(main())


def _storm(root: Path, n_files: int) -> None:
    for number in range(n_files):
        (root / f"{number}.txt").write_text("x")


def test_where_the_system_takes_no_more_watches_the_folder_is_polled(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr("paddock.runner.watch.events.Events.start", refuse)
    monkeypatch.setattr("paddock.runner.watch.watch.POLL_S", 0.2)

    async def main() -> None:
        async with Watched(spec(root)).running() as watched:
            await watched.until(lambda: watched.notes)
            assert watched.notes == [
                f"watch '{root}': the system takes no more watches. It is read every 5 s; a "
                f"higher fs.inotify.max_user_watches and max_user_instances helps."
            ]
            (root / "a.txt").write_text("x")
            await watched.until(lambda: watched.names == ["a.txt"])
            assert watched.watch.status()["state"] == "polling"

    go(main())


def test_a_network_share_is_polled_and_said_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "paddock.runner.watch.filesystems.mounted", lambda: [("/", "ext4"), (str(root), "nfs4")]
    )
    monkeypatch.setattr("paddock.runner.watch.watch.POLL_S", 0.2)

    async def main() -> None:
        async with Watched(spec(root)).running() as watched:
            await watched.until(lambda: watched.notes)
            (root / "a.txt").write_text("x")
            await watched.until(lambda: watched.names == ["a.txt"])
            assert watched.notes == [
                f"watch '{root}': a file system of type nfs4 does not tell what changes. "
                f"It is read every 5 s."
            ]

    go(main())


def test_a_folder_that_hangs_is_told_and_the_watch_still_ends(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    hangs = threading.Event()
    monkeypatch.setattr("paddock.runner.watch.look.SLOW_S", 0.2)
    monkeypatch.setattr("paddock.runner.watch.look._root", lambda spec: hangs.wait() and (1, 1))

    async def main() -> None:
        try:
            async with Watched(spec(root)).running() as watched:
                await watched.until(lambda: watched.notes)
                assert watched.watch.status()["state"] == "not answering"
                assert watched.notes == [f"watch '{root}': the folder has not answered for 30 s."]
        finally:
            hangs.set()

    go(main())


def test_the_books_are_what_the_watch_wants() -> None:
    book: Book = MemoryBook()
    assert book.read() == Known()
