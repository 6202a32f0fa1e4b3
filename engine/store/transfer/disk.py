"""Do a disk's work beside the event loop, and say plainly when the disk is full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from paddock.engine.errors import StoreFull
from paddock.engine.store.locks import free_bytes, writing

from .errors import NotEnoughRoom, RanFull

P = ParamSpec("P")
T = TypeVar("T")

# Left free for manifests, for the parts' states and for those who write there beside us.
_RESERVE_BYTES = 16 * 1024 * 1024


async def beside(do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `do` in a thread, to its end even if whoever asked is cancelled.

    So a file is never closed, and a lock never released, while a thread still writes.
    """
    work = asyncio.ensure_future(asyncio.to_thread(do, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            try:
                await asyncio.wait([work])
            except asyncio.CancelledError:
                continue
        if not work.cancelled():
            work.exception()  # looked at, so that nobody is told of it later
        raise


@contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """Turn a disk that is full in the middle into an error that says that nothing is lost.

    Raises:
        RanFull: with what is free.
        StoreReadOnly: no permission, or no such disk.
    """
    try:
        with writing(folder):
            yield
    except StoreFull as error:
        raise RanFull(error.path, error.free_bytes) from error


def check_room(folder: Path, needed_bytes: int) -> None:
    """Look whether so much will fit, before anything is asked for.

    Raises:
        NotEnoughRoom: with both numbers.
    """
    free = free_bytes(folder)
    if needed_bytes + _RESERVE_BYTES > free and needed_bytes > 0:
        raise NotEnoughRoom(str(folder), needed_bytes, free)
