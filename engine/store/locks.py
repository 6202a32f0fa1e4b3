"""Locks between processes, and what a disk's refusals mean.

A lock is a file beside the manifests and blobs. Reading a store takes none: a manifest gets its
place by one rename, and a blob by another.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from paddock.engine.errors import EngineError, StoreFull, StoreReadOnly

FOLDER = ".locks"

# Also a limit on the size of files (`ulimit -f`) or a quota is a disk that is full.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def held(root: Path, what: str, wait_s: float = -1.0) -> Iterator[None]:
    """Be the only one, in this process and others, that does `what` to the store at `root`.

    Threads of one process exclude each other too. Negative `wait_s`: wait as long as it takes.

    Raises:
        EngineError: another one has it and `wait_s` is over.
        StoreReadOnly: the folder cannot be written.
    """
    from filelock import FileLock, Timeout  # 50 ms that `list` and `show` need not pay

    path = root / FOLDER / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.lock"
    with writing(root):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=wait_s, thread_local=False)
        try:
            lock.acquire(poll_interval=0.02)
        except Timeout:
            raise EngineError(f"another process is at {what}; wait for it") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a disk's refusal to be written into an error that says what to do.

    Raises:
        StoreFull: no room.
        StoreReadOnly: no permission, or no such disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFull(str(folder), free_bytes(folder)) from error
        raise StoreReadOnly(str(folder), error.strerror or str(error)) from error


def free_bytes(folder: Path) -> int:
    """Tell what is free on the disk of `folder`, which need not be there yet."""
    for place in (folder, *folder.parents):
        with suppress(OSError):
            return shutil.disk_usage(place).free
    return 0


def bring_to_disk(folder: Path) -> None:
    """Make a rename outlast a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
