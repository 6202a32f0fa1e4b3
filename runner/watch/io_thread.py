"""One thread for all file and ledger access of a watch, so that a hanging share blocks nothing else.

A system call on a dead network share may not return for minutes, or ever. The thread is a daemon
thread: nothing waits for it at exit. Answers come in order, or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

from . import hot_folder
from .seen_files import HandledFiles, SeenFiles
from .watch_spec import FileIdentity, FileVersion, WatchFilter, WatchSpec
from .watched_folder import FolderIdentity, FolderListing, list_folder, look_at_paths

Answer = TypeVar("Answer")

_MOST_WAITING = 16


class IoThread:
    """Carries out blocking calls, one after the other. Used from one event loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.Queue[Callable[[], None] | None] | None = None

    async def ask(self, what: Callable[[], Answer]) -> Answer:
        """Have something done in the thread; gives its answer, or raises what it raised."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()

        def work() -> None:
            try:
                answer = what()
            except BaseException as error:
                _set_answer(loop, future, None, error)
            else:
                _set_answer(loop, future, answer, None)

        self._waiting().put_nowait(work)
        return await future

    def leave(self, what: Callable[[], None]) -> None:
        """Have something done in the thread, and do not wait; nothing, where it hangs."""
        waiting = self._waiting()
        if not waiting.full():
            waiting.put_nowait(partial(_quietly, what))

    def close(self) -> None:
        """End the thread when it has done what it was asked; another question starts a new one."""
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
    with contextlib.suppress(Exception):  # nobody waits for what it says
        what()


def _run_calls(waiting: queue.Queue[Callable[[], None] | None]) -> None:
    while (work := waiting.get()) is not None:
        work()


def _set_answer(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Answer],
    answer: Answer | None,
    error: BaseException | None,
) -> None:
    def settle() -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(answer)  # type: ignore[arg-type]

    if not loop.is_closed():
        loop.call_soon_threadsafe(settle)


SLOW_S = 30.0
"""A folder that has not answered after so long is told; the question stays open."""


class WatchStopped(Exception):
    """The watch is to end while a question is open."""


class FolderIo:
    """Asks; every question gives way to `stop`, and tells `slow` when it takes long."""

    def __init__(self, spec: WatchSpec, book: SeenFiles, slow: Callable[[bool], None]) -> None:
        self._spec = spec
        self._book = book
        self._slow = slow
        self._io_thread = IoThread(f"watch {spec.root}")
        self.wanted = WatchFilter(spec)
        self._stop: asyncio.Event | None = None

    def begin(self, stop: asyncio.Event) -> None:
        """Give way to `stop` from now on."""
        self._stop = stop

    def end(self) -> None:
        """Give way to nothing any more."""
        self._stop = None

    def close(self) -> None:
        """Let the thread end."""
        self._io_thread.close()

    async def sleep(self, seconds: float) -> None:
        """Wait.

        Raises:
            Stopped: the watch is to end.
        """
        if self._stop is None:
            await asyncio.sleep(seconds)
            return
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return
        raise WatchStopped

    async def ask(self, what: Callable[[], Answer]) -> Answer:
        """Have something done in the thread.

        Raises:
            Stopped: the watch is to end.
        """
        question = asyncio.ensure_future(self._io_thread.ask(what))
        stopped = asyncio.ensure_future(self._stop.wait()) if self._stop else None
        waits = {question} | ({stopped} if stopped else set())
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
            question.cancel()
            if stopped is not None:
                stopped.cancel()

    def leave(self, what: Callable[[], None]) -> None:
        """Have something done in the thread, and wait for nothing."""
        self._io_thread.leave(what)

    # --- the folder

    async def root(self) -> tuple[int, int]:
        """Return the root's (st_dev, st_ino).

        Raises:
            OSError: it is not there, no folder, or cannot be read.
        """
        return await self.ask(partial(_root_identity, self._spec))

    async def whole(self) -> FolderListing:
        """List every file that counts.

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
        """Move what has settled into `processing/`, but for files that are being written."""
        return await self.ask(partial(hot_folder.claim_files, self._spec, settled, before, written))

    async def claimed(self) -> dict[str, FileVersion]:
        """Return what lies in `processing/`; the three folders are made.

        Raises:
            OSError: they cannot be made.
        """
        await self.ask(partial(hot_folder.make_hot_folders, self._spec))
        return await self.ask(partial(hot_folder.claimed_files, self._spec, self.wanted))

    async def finish(
        self, relpaths: Iterable[str], failed: Mapping[str, str], claimed: Mapping[str, FileVersion]
    ) -> hot_folder.HotFolderMoves:
        """Move what has been worked on out of `processing/`, as far as it is what was claimed."""
        return await self.ask(
            partial(hot_folder.finish_files, self._spec, list(relpaths), failed, claimed)
        )

    # --- the book

    async def known(self) -> HandledFiles:
        """Return what the book keeps."""
        return await self.ask(self._book.read)

    async def see_owned(self) -> None:
        """Learn what the pipeline has written below the root."""
        self.wanted.owned = await self.ask(self._book.owned)

    async def record(
        self, run: str, files: Mapping[str, FileIdentity], gone: Iterable[str], epoch: int
    ) -> None:
        """Write into the book."""
        await self.ask(partial(self._book.record, run, dict(files), tuple(gone), epoch))

    async def record_root(self, folder: FolderIdentity) -> None:
        """Write into the book which folder lies at the root."""
        await self.ask(partial(self._book.record_root, folder))


def _root_identity(spec: WatchSpec) -> tuple[int, int]:
    facts = os.stat(spec.root)  # noqa: PTH116 - in the thread that may hang
    if not os.path.isdir(spec.root):  # noqa: PTH112
        raise NotADirectoryError(20, "Not a directory")
    return facts.st_dev, facts.st_ino
