"""Locks: one run at a time on a scope, or of a concurrency group.

Operating-system locks, released when their process dies, each with a JSON file beside it that names
the holder, for the run that waits. With a ledger in PostgreSQL a run's lock is one of a session.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Protocol

from msgspec import Meta

from paddock.engine.system import file_locks, files, private_files
from paddock.engine.system.hardware import psutil_module
from paddock.engine.system.records import Struct, asdict, known_record
from paddock.engine.system.text import canonical_json

from .entries import LedgerError, is_variant, stored_path, whole_file


class RunLock(Protocol):
    """The lock of a run: no other one works on the same items."""

    has_crashed: bool
    """Whether who had it before crashed; known once it is taken."""

    def take(self) -> object | None:
        """Take it; return who has it, None: it is ours now."""

    def release(self) -> None: ...


def run_lock_name(file: str, folder_inputs: Mapping[str, str], base: Path) -> str:
    """Return the name of a run's lock: one for all scopes of a file with the same folders.

    The variants of a pipeline share one: they may ask the same. `base`: the pipeline's folder.
    """
    folders = {name: stored_path(Path(path), base) for name, path in folder_inputs.items()}
    kind = ["compare"] if is_variant(file) else []
    name = canonical_json([whole_file(file), folders, *kind])
    return hashlib.sha256(name.encode()).hexdigest()[:32]


class Locked(LedgerError):
    """Another run holds the scope, and the time to wait is up."""


class SkippedByGroup(Locked):
    """Another run of its group is at work, and `on_conflict` is `skip`."""


class LockHolder(Struct, frozen=True):
    host: str
    pid: int
    since: Annotated[float, Meta(ge=0, le=1e11)]  # years that a date has
    run: str = ""

    @classmethod
    def of_this_process(cls, run: str) -> LockHolder:
        return cls(socket.gethostname(), os.getpid(), time.time(), run)

    @classmethod
    def read(cls, file: Path) -> LockHolder | None:
        """Return the holder in a file; None if there is none yet, or half of one."""
        return known_record(cls, files.read_json_object(file))

    @property
    def process(self) -> str:
        since = datetime.fromtimestamp(self.since).astimezone()
        return f"process {self.pid} on {self.host}, since {since:%Y-%m-%d %H:%M:%S}"

    def __str__(self) -> str:
        return f"run '{self.run}' ({self.process})"

    def as_json(self) -> str:
        return json.dumps(asdict(self))


TURN_POLL_S = 0.5


class TurnWait(Struct, frozen=True):
    """How long to wait for other runs, and how to report that."""

    longest_s: float | None
    is_over: Callable[[], bool]
    note: Callable[[str], None]

    async def until_free(self, look: Callable[[], Awaitable[tuple[object, str] | None]]) -> None:
        """Wait until `look` returns None; else it returns who is at work, and what that one does.

        Raises:
            Locked: the deadline passed, or the run is stopped.
        """
        began, noted = time.monotonic(), ""
        while (busy := await look()) is not None:
            who, does = busy
            if noted != str(who):
                noted = str(who)
                self.note(f"waiting for {who}, which {does}")
            if self.is_over():
                raise Locked("Interrupted while waiting for another run.")
            if self.longest_s is not None and time.monotonic() - began > self.longest_s:
                raise Locked(
                    f"{who} {does} and did not end within {self.longest_s:g} s. "
                    f"Wait for it, or end it."
                )
            await asyncio.sleep(TURN_POLL_S)


@asynccontextmanager
async def hold_lock(lock: RunLock, wait: TurnWait) -> AsyncIterator[bool]:
    """Hold a run's lock; yield whether the process that held it before crashed.

    Raises:
        Locked: the deadline passed, or the run is stopped.
        LedgerError: the lock's server cannot be used.
    """

    async def take() -> tuple[object, str] | None:
        holder = lock.take()
        return None if holder is None else (holder, "works on the same folder")

    await wait.until_free(take)
    try:
        yield lock.has_crashed
    finally:
        lock.release()


class FolderLock:
    """Implements `RunLock` by a file that the operating system locks, for one machine."""

    has_crashed = False

    def __init__(self, folder: Path, name: str, run: str) -> None:
        self._lock = file_locks.file_lock(folder / f"{name}.lock")
        self._holder_file = folder / f"{name}.json"
        self._run = run

    def take(self) -> object | None:
        try:
            self._lock.acquire(timeout=0)
        except TimeoutError:  # filelock's is one
            return LockHolder.read(self._holder_file) or "another run"
        self.has_crashed = self._holder_file.exists()
        own = LockHolder.of_this_process(self._run)
        private_files.write_private(self._holder_file, own.as_json())
        return None

    def release(self) -> None:
        self._holder_file.unlink(missing_ok=True)
        self._lock.release()


class LockSession(Protocol):
    """A session of PostgreSQL that holds one lock, exclusively."""

    def take_lock(self, name: str, mark: str, session: str) -> tuple[bool, str]: ...

    def release_lock(self) -> None: ...


class SessionLock:
    """Implements `RunLock` by a session of PostgreSQL, for several machines."""

    has_crashed = False

    def __init__(self, session: LockSession, name: str, run: str) -> None:
        self._session = session
        self._name, self._run = name, run
        self._own = LockHolder.of_this_process(run).as_json()

    def take(self) -> object | None:
        is_ours, before = self._session.take_lock(self._name, self._own, session_name(self._run))
        if not is_ours:
            return known_record(LockHolder, json.loads(before or "{}")) or "another run"
        self.has_crashed = bool(before)
        return None

    def release(self) -> None:
        with suppress(LedgerError):  # the end of the session releases it
            self._session.release_lock()


def session_name(run: str) -> str:
    return f"paddock {run}"[:63]  # PostgreSQL cuts longer ones


class GroupTurn:
    """The turn in a concurrency group: a lock.

    Files beside it name the holder, and a newer run's request to have it.
    """

    def __init__(self, folder: Path, name: str, run: str) -> None:
        self._lock = file_locks.file_lock(folder / f"{name}.lock")
        self._who = folder / f"{name}.json"
        self._request = folder / f"{name}.wish"
        self._own = LockHolder.of_this_process(run)
        self._seen: LockHolder | None = None

    def take(self) -> LockHolder | None:
        try:
            self._lock.acquire(timeout=0)
        except TimeoutError:  # filelock's is one
            self._seen = LockHolder.read(self._who)
            return self._seen or LockHolder(self._own.host, 0, time.time(), "?")
        self._request.unlink(missing_ok=True)
        private_files.write_private(self._who, self._own.as_json())
        return None

    def holder(self) -> LockHolder | None:
        """Return the holder of the turn; None: it is free."""
        found = LockHolder.read(self._who)
        if found is None or not psutil_module().pid_exists(found.pid):
            return None
        found = self.take()
        if found is None:  # another process has that number now
            self.leave()
        return found

    def request_release(self) -> None:
        if self._seen is not None and self._seen.since < self._own.since:
            self._request.touch(mode=private_files.PRIVATE_FILE)

    def is_lost(self) -> bool:
        return self._request.exists()

    def leave(self) -> None:
        if self._lock.is_locked:
            self._who.unlink(missing_ok=True)
            self._lock.release()
