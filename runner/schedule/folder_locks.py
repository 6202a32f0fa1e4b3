"""One `paddock up` for a folder: locks on the folders that it serves."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack, suppress
from pathlib import Path

from paddock.engine.system import private_files
from paddock.engine.system.file_locks import LockTaken, lock_now
from paddock.runner.ledger.own_state import ForeignState, make_state
from paddock.runner.ledger.run_locks import LockHolder
from paddock.runner.settings import STATE_FOLDER

_NAME = "up"


class FolderTaken(Exception):
    """Another process serves this folder."""


class FolderLocks:
    """The folder locks of one process; the operating system releases them when it ends."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._locks: dict[Path, ExitStack] = {}

    def take(self, folder: Path) -> None:
        """Lock a folder, once.

        Raises:
            FolderTaken: another process has it; the message says which one, and since when.
        """
        if folder in self._locks:
            return
        place = _lock_folder(folder, self._state_dir)
        lock, holder_file = ExitStack(), place / f"{_NAME}.json"
        try:
            lock.enter_context(lock_now(place / f"{_NAME}.lock"))
        except LockTaken:
            holder = LockHolder.read(holder_file)
            who = "another `paddock up`" if holder is None else f"`paddock up` ({holder.process})"
            raise FolderTaken(
                f"{folder}: {who} serves this folder.\n  End it, or name other folders."
            ) from None
        self._locks[folder] = lock
        with suppress(OSError):
            private_files.write_private(holder_file, LockHolder.of_this_process("").as_json())

    def release(self, folder: Path) -> None:
        lock = self._locks.pop(folder, None)
        if lock is not None:
            lock.close()

    def close(self) -> None:
        for folder in list(self._locks):
            self.release(folder)


def _lock_folder(folder: Path, state_dir: Path) -> Path:
    """Return the lock's path: near the pipelines, or at home if that is read-only or not ours."""
    beside = folder / STATE_FOLDER
    with suppress(OSError, ForeignState):
        make_state(beside)
        if os.access(beside, os.W_OK):
            return beside
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    at_home = state_dir / "up" / name
    return private_files.private_folder(at_home)
