"""One `paddock up` for a folder: a lock beside its pipelines, and who holds it."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from paddock.engine.system import private

_NAME = "up"


class Held(Exception):
    """Another process looks after this folder."""


class Holding:
    """The locks of one process; the system lets them go when it ends, however it does."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._locks: dict[Path, BaseFileLock] = {}

    def take(self, folder: Path) -> None:
        """Hold a folder; once is enough.

        Raises:
            Held: another process does, with who and since when.
        """
        if folder in self._locks:
            return
        place = _place(folder, self._state_dir)
        lock = FileLock(
            place / f"{_NAME}.lock", mode=private.FILE, blocking=False, thread_local=False
        )
        who = place / f"{_NAME}.json"
        try:
            lock.acquire()
        except Timeout:
            raise Held(f"{folder}: {_holder(who)} looks after this folder.\n  End it, "
                       "or name other folders.") from None  # fmt: skip
        self._locks[folder] = lock
        facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
        with suppress(OSError):
            private.write(who, json.dumps(facts))

    def release(self, folder: Path) -> None:
        """Let a folder go."""
        lock = self._locks.pop(folder, None)
        if lock is not None:
            lock.release()

    def close(self) -> None:
        """Let all go."""
        for folder in list(self._locks):
            self.release(folder)


def _place(folder: Path, state_dir: Path) -> Path:
    """Give where the lock lies: beside the pipelines, or where that cannot be written, at home."""
    beside = folder / ".paddock"
    try:
        private.folder(beside)
        ignore = beside / ".gitignore"
        if not ignore.exists():
            private.write(ignore, "*\n")
        if os.access(beside, os.W_OK):
            return beside
    except OSError:
        pass
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    at_home = state_dir / "up" / name
    return private.folder(at_home)


def _holder(who: Path) -> str:
    """Say who holds a lock; the note may be half written."""
    try:
        facts = json.loads(who.read_text("utf-8"))
        since = datetime.fromtimestamp(facts["since"]).astimezone()
        host = "" if facts["host"] == socket.gethostname() else f" on {facts['host']}"
        return f"`paddock up` (process {facts['pid']}{host}, since {since:%Y-%m-%d %H:%M})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another `paddock up`"
