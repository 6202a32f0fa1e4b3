"""The rim of a watch: all that it asks of the file system and of its book, by one thread.

Knows neither events nor what follows from what is found.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TypeVar

from . import hot
from .book import Book, Known
from .filesystems import Folder
from .filter import Filter
from .hand import Hand
from .listing import Listing, listed, looked
from .spec import Identity, Seen, WatchSpec

Answer = TypeVar("Answer")

SLOW_S = 30.0
"""A folder that has not answered after so long is told; the question stays open."""


class Stopped(Exception):
    """The watch is to end while a question is open."""


class Look:
    """Asks; every question gives way to `stop`, and tells `slow` when it takes long."""

    def __init__(self, spec: WatchSpec, book: Book, slow: Callable[[bool], None]) -> None:
        self._spec = spec
        self._book = book
        self._slow = slow
        self._hand = Hand(f"watch {spec.root}")
        self.wanted = Filter(spec)
        self._stop: asyncio.Event | None = None

    def begin(self, stop: asyncio.Event) -> None:
        """Give way to `stop` from now on."""
        self._stop = stop

    def end(self) -> None:
        """Give way to nothing any more."""
        self._stop = None

    def close(self) -> None:
        """Let the thread end."""
        self._hand.close()

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
        raise Stopped

    async def ask(self, what: Callable[[], Answer]) -> Answer:
        """Have something done in the thread.

        Raises:
            Stopped: the watch is to end.
        """
        question = asyncio.ensure_future(self._hand.ask(what))
        stopped = asyncio.ensure_future(self._stop.wait()) if self._stop else None
        waits = {question} | ({stopped} if stopped else set())
        try:
            done, _ = await asyncio.wait(waits, timeout=SLOW_S, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                self._slow(True)
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not question.done():
                raise Stopped
            self._slow(False)
            return question.result()
        finally:
            question.cancel()
            if stopped is not None:
                stopped.cancel()

    def leave(self, what: Callable[[], None]) -> None:
        """Have something done in the thread, and wait for nothing."""
        self._hand.leave(what)

    # --- the folder

    async def root(self) -> tuple[int, int]:
        """Give the root's (st_dev, st_ino).

        Raises:
            OSError: it is not there, no folder, or cannot be read.
        """
        return await self.ask(partial(_root, self._spec))

    async def whole(self) -> Listing:
        """List every file that counts.

        Raises:
            OSError: the root cannot be read.
        """
        return await self.ask(partial(listed, self._spec.root, self.wanted))

    async def at(self, relpaths: Iterable[str]) -> dict[str, Seen | None]:
        """Look at some paths."""
        return await self.ask(partial(looked, self._spec.root, list(relpaths), self.wanted))

    # --- a hot folder

    async def claim(
        self, settled: Mapping[str, Seen], before: frozenset[str], written: frozenset[str]
    ) -> hot.Moved:
        """Move what has settled into `processing/`, but for files that are being written."""
        return await self.ask(partial(hot.claim, self._spec, settled, before, written))

    async def claimed(self) -> dict[str, Seen]:
        """Give what lies in `processing/`; the three folders are made.

        Raises:
            OSError: they cannot be made.
        """
        await self.ask(partial(hot.prepare, self._spec))
        return await self.ask(partial(hot.found, self._spec, self.wanted))

    async def finish(
        self, relpaths: Iterable[str], failed: Mapping[str, str], claimed: Mapping[str, Seen]
    ) -> hot.Moved:
        """Move what has been worked on out of `processing/`, as far as it is what was claimed."""
        return await self.ask(partial(hot.finish, self._spec, list(relpaths), failed, claimed))

    # --- the book

    async def known(self) -> Known:
        """Give what the book keeps."""
        return await self.ask(self._book.read)

    async def see_owned(self) -> None:
        """Learn what the pipeline has written below the root."""
        self.wanted.owned = await self.ask(self._book.owned)

    async def record(
        self, run: str, files: Mapping[str, Identity], gone: Iterable[str], epoch: int
    ) -> None:
        """Write into the book."""
        await self.ask(partial(self._book.record, run, dict(files), tuple(gone), epoch))

    async def record_root(self, folder: Folder) -> None:
        """Write into the book which folder lies at the root."""
        await self.ask(partial(self._book.record_root, folder))


def _root(spec: WatchSpec) -> tuple[int, int]:
    facts = os.stat(spec.root)  # noqa: PTH116 - in the thread that may hang
    if not os.path.isdir(spec.root):  # noqa: PTH112
        raise NotADirectoryError(20, "Not a directory")
    return facts.st_dev, facts.st_ino
