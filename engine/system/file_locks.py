"""Locks on files, which the system releases when their process dies."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from .private_files import PRIVATE_FILE, private_folder

if sys.platform != "win32":
    import fcntl


class LockTaken(Exception):
    """Another process, or another part of this one, holds the lock."""


class FileLock:
    """The lock of a file, in a private folder that is made; bound to no thread."""

    def __init__(self, path: Path, *, mode: int | None = PRIVATE_FILE) -> None:
        """`mode` None: for users who share it, with the modes that the umask allows."""
        self._path, self._mode = path, mode
        self._handle: int | None = None

    @property
    def is_held(self) -> bool:
        return self._handle is not None

    def take(self) -> bool:
        """Hold it; return False where another does.

        Raises:
            OSError: the file or its folder cannot be made.
        """
        if self._mode is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        else:
            private_folder(self._path.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        handle = os.open(self._path, flags, 0o666 if self._mode is None else self._mode)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), self._path.stat()):
                self._handle, handle = handle, -1
        except (BlockingIOError, FileNotFoundError):  # held, or removed meanwhile
            pass
        finally:
            if handle >= 0:
                os.close(handle)
        return self.is_held

    def release(self) -> None:
        if self._handle is not None:
            fcntl.flock(self._handle, fcntl.LOCK_UN)  # a forked process may have it open, too
            os.close(self._handle)
            self._handle = None


@contextmanager
def lock_now(
    path: Path, *, wait_s: float = 0.0, poll_s: float = 0.05, mode: int | None = PRIVATE_FILE
) -> Iterator[None]:
    """Hold a lock; block at most `wait_s` for it (negative: as long as it takes).

    Raises:
        LockTaken: another holds it.
        OSError: the file cannot be written.
    """
    lock, began = FileLock(path, mode=mode), time.monotonic()
    while not lock.take():
        if 0 <= wait_s <= time.monotonic() - began:
            raise LockTaken
        time.sleep(poll_s)
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
    lock, began = FileLock(path, mode=mode), time.monotonic()
    while not lock.take():
        if is_over() or (wait_s is not None and time.monotonic() - began > wait_s):
            raise LockTaken
        await asyncio.sleep(poll_s)
    try:
        yield
    finally:
        lock.release()
