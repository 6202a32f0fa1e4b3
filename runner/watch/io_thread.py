"""One thread for a watch's file and ledger access, so that a hanging share blocks nothing else.

A system call on a dead network share may not return for minutes, or ever. The thread is a daemon
thread: exit does not wait for it. Answers come in order, or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from paddock.engine.system.tasks import end, settle, wait_for_event

from . import hot_folder
from .seen_files import HandledFiles, SeenFiles
from .watch_spec import FileIdentity, FileVersion, WatchFilter, WatchSpec
from .watched_folder import FolderIdentity, FolderListing, list_folder, look_at_paths

Answer = TypeVar("Answer")

_MOST_WAITING = 16


class IoThread:
    """Run blocking calls one after the other. Used from one event loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.Queue[Callable[[], None] | None] | None = None

    async def ask(self, what: Callable[[], Answer]) -> Answer:
        """Run a call in the thread; return its result or raise its error."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def work() -> None:
            try:
                answer: Answer | BaseException = what()
            except BaseException as error:  # the one who awaits it gets it, whatever it is
                answer = error
            settle(future, answer)

        self._waiting().put_nowait(work)
        return await future

    def leave(self, what: Callable[[], None]) -> None:
        """Run a call in the thread without waiting; skip it when the thread hangs."""
        waiting = self._waiting()
        if not waiting.full():
            waiting.put_nowait(partial(_quietly, what))

    def close(self) -> None:
        """End the thread after its queued calls; another call starts a new one."""
        waiting, self._queue = self._queue, None
        if waiting is not None and not waiting.full():
            waiting.put_nowait(None)

    def _waiting(self) -> queue.Queue[Callable[[], None] | None]:
        if self._queue is None:
            self._queue = queue.Queue(_MOST_WAITING)
            threading.Thread(
                target=_run_calls, args=(self._queue,), name=self._name, daemon=True
            ).start()
        return self._queue


def _quietly(what: Callable[[], None]) -> None:
    with contextlib.suppress(Exception):  # no caller waits for the result
        what()


def _run_calls(waiting: queue.Queue[Callable[[], None] | None]) -> None:
    while (work := waiting.get()) is not None:
        work()


SLOW_S = 30.0
"""After this time a slow folder is reported; the call stays open."""


class WatchStopped(Exception):
    """The watch must end while a call is open."""


class FolderIo:
    """Access to the folder and the ledger; every call ends early on `stop`, and reports `slow`."""

    def __init__(self, spec: WatchSpec, book: SeenFiles, slow: Callable[[bool], None]) -> None:
        self._spec = spec
        self._book = book
        self._slow = slow
        self._io_thread = IoThread(f"watch {spec.root}")
        self.wanted = WatchFilter(spec)
        self._stop: asyncio.Event | None = None

    def begin(self, stop: asyncio.Event) -> None:
        """End calls early when `stop` is set."""
        self._stop = stop

    def end(self) -> None:
        """Ignore `stop` from now on."""
        self._stop = None

    def close(self) -> None:
        """End the thread."""
        self._io_thread.close()

    async def sleep(self, seconds: float) -> None:
        """Wait.

        Raises:
            WatchStopped: the watch must end.
        """
        if self._stop is None:
            await asyncio.sleep(seconds)
        elif await wait_for_event(self._stop, seconds):
            raise WatchStopped

    async def ask(self, what: Callable[[], Answer]) -> Answer:
        """Run a call in the thread.

        Raises:
            WatchStopped: the watch must end.
        """
        question = asyncio.ensure_future(self._io_thread.ask(what))
        waits: list[asyncio.Future[Any]] = [question]
        if self._stop is not None:
            waits.append(asyncio.ensure_future(self._stop.wait()))
        try:
            done, _ = await asyncio.wait(waits, timeout=SLOW_S, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                self._slow(True)
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not question.done():
                raise WatchStopped
            self._slow(False)
            return question.result()
        finally:
            await end(*waits)

    def leave(self, what: Callable[[], None]) -> None:
        """Run a call in the thread without waiting."""
        self._io_thread.leave(what)

    # --- the folder

    async def root(self) -> tuple[int, int]:
        """Return the root's (st_dev, st_ino).

        Raises:
            OSError: it is missing, not a folder, or cannot be read.
        """
        return await self.ask(partial(_root_identity, self._spec))

    async def whole(self) -> FolderListing:
        """List every wanted file.

        Raises:
            OSError: the root cannot be read.
        """
        return await self.ask(partial(list_folder, self._spec.root, self.wanted))

    async def at(self, relpaths: Iterable[str]) -> dict[str, FileVersion | None]:
        """Look at some paths."""
        return await self.ask(partial(look_at_paths, self._spec.root, list(relpaths), self.wanted))

    # --- a hot folder

    async def claim(
        self, settled: Mapping[str, FileVersion], before: frozenset[str], written: frozenset[str]
    ) -> hot_folder.HotFolderMoves:
        """Move settled files into `processing/`, except files that are open for writing."""
        return await self.ask(partial(hot_folder.claim_files, self._spec, settled, before, written))

    async def claimed(self) -> dict[str, FileVersion]:
        """Make the three folders; return the files in `processing/`.

        Raises:
            OSError: they cannot be made.
        """
        await self.ask(partial(hot_folder.make_hot_folders, self._spec))
        return await self.ask(partial(hot_folder.claimed_files, self._spec, self.wanted))

    async def finish(
        self, relpaths: Iterable[str], failed: Mapping[str, str], claimed: Mapping[str, FileVersion]
    ) -> hot_folder.HotFolderMoves:
        """Move processed files out of `processing/`, unless they changed after their claim."""
        return await self.ask(
            partial(hot_folder.finish_files, self._spec, list(relpaths), failed, claimed)
        )

    # --- the ledger

    async def known(self) -> HandledFiles:
        """Return what the ledger knows of this watch."""
        return await self.ask(self._book.read)

    async def see_owned(self) -> None:
        """Read which files below the root the pipeline has written."""
        self.wanted.owned = await self.ask(self._book.owned)

    async def record(
        self, run: str, files: Mapping[str, FileIdentity], gone: Iterable[str], epoch: int
    ) -> None:
        """Write handled versions into the ledger."""
        await self.ask(partial(self._book.record, run, dict(files), tuple(gone), epoch))

    async def record_root(self, folder: FolderIdentity) -> None:
        """Write into the ledger which folder lies at the root."""
        await self.ask(partial(self._book.record_root, folder))


def _root_identity(spec: WatchSpec) -> tuple[int, int]:
    facts = os.stat(spec.root)  # noqa: PTH116 - in the thread that may hang
    if not os.path.isdir(spec.root):  # noqa: PTH112
        raise NotADirectoryError(20, "Not a directory")
    return facts.st_dev, facts.st_ino
