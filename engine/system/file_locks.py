"""Locks on files, which the system releases when their process dies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock  # takes 50 ms to import
from .private_files import PRIVATE_FILE, private_folder


class LockTaken(Exception):
    """Another process, or another part of this one, holds the lock."""


def file_lock(path: Path, *, mode: int | None = PRIVATE_FILE) -> BaseFileLock:
    """Return the lock of a file, in a private folder that is made; bound to no thread.

    `mode` None: for users who share it, with the modes that the umask allows.

    Raises:
        OSError: the folder cannot be made.
    """
    from filelock import FileLock

    if mode is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path, thread_local=False)
    private_folder(path.parent)
    return FileLock(path, mode=mode, thread_local=False)


@contextmanager
def lock_now(
    path: Path, *, wait_s: float = 0.0, poll_s: float = 0.05, mode: int | None = PRIVATE_FILE
) -> Iterator[None]:
    """Hold a lock; block at most `wait_s` for it (negative: as long as it takes).

    Raises:
        LockTaken: another holds it.
        OSError: the file cannot be written.
    """
    lock = file_lock(path, mode=mode)
    try:
        lock.acquire(timeout=wait_s, poll_interval=poll_s)
    except TimeoutError:  # filelock's is one
        raise LockTaken from None
    try:
        yield
    finally:
        lock.release()


@asynccontextmanager
async def lock_soon(
    path: Path,
    *,
    wait_s: float | None,
    poll_s: float = 0.1,
    mode: int | None = PRIVATE_FILE,
    is_over: Callable[[], bool] = lambda: False,
) -> AsyncIterator[None]:
    """Hold a lock; wait at most `wait_s` for it (None: as long as it takes).

    `is_over` ends the wait.

    Raises:
        LockTaken: another held it until then.
        OSError: the file cannot be written.
    """
    lock = file_lock(path, mode=mode)
    ends_at = None if wait_s is None else time.monotonic() + wait_s
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except TimeoutError:  # filelock's is one
            if is_over() or (ends_at is not None and time.monotonic() > ends_at):
                raise LockTaken from None
        await asyncio.sleep(poll_s)
    try:
        yield
    finally:
        lock.release()
