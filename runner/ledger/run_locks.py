"""Locks on this machine: one run at a time on a scope, or of a concurrency group.

Operating-system locks, released when their process dies. A JSON file beside each says who holds it
(pid, host, since), for the run that waits.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.system import files
from paddock.engine.system.locks import file_lock

if TYPE_CHECKING:
    from filelock import BaseFileLock

from .entries import LedgerError

POLL_S = 0.1


class Locked(LedgerError):
    """Another run holds the scope, and the time to wait is up."""


class SkippedByGroup(Locked):
    """Another run of its group is at work, and its file says that it is left out then."""


@dataclass(frozen=True, slots=True)
class LockHolder:
    """Who holds something that one run at a time has."""

    run: str
    host: str
    pid: int
    since: float
    """When it began to hold it, or to wait for it."""

    @classmethod
    def here(cls, run: str) -> LockHolder:
        """Name this process."""
        return cls(run, socket.gethostname(), os.getpid(), time.time())

    @classmethod
    def read(cls, file: Path) -> LockHolder | None:
        """Read who holds a lock; its note may not be there yet, or be half written."""
        try:
            facts = json.loads(file.read_text("utf-8"))
            return cls(facts["run"], facts["host"], facts["pid"], facts["since"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def __str__(self) -> str:
        """Tell it in words."""
        since = datetime.fromtimestamp(self.since).astimezone()
        return f"run '{self.run}' (process {self.pid} on {self.host}, since {since:%H:%M:%S})"

    def write(self, file: Path) -> None:
        """Write it beside the lock."""
        files.write_private(file, json.dumps(asdict(self)))


@asynccontextmanager
async def hold_lock(
    folder: Path,
    name: str,
    *,
    run: str,
    deadline_s: float | None,
    is_over: Callable[[], bool],
    note: Callable[[str], None],
) -> AsyncIterator[bool]:
    """Hold the lock `name` in `folder`; wait for it, and `note` for whom, at most `deadline_s`.

    Yields whether the one before died with it.

    Raises:
        Locked: the deadline passed, or `is_over` says that nobody wants to wait any more.
    """
    lock = file_lock(folder / f"{name}.lock")
    who = folder / f"{name}.json"
    await _acquire(lock, who, deadline_s, is_over, note)
    has_died = who.exists()
    try:
        LockHolder.here(run).write(who)
        yield has_died
    finally:
        who.unlink(missing_ok=True)
        lock.release()


async def _acquire(
    lock: BaseFileLock,
    who: Path,
    deadline_s: float | None,
    is_over: Callable[[], bool],
    note: Callable[[str], None],
) -> None:
    began = time.monotonic()
    has_told = False
    while True:
        try:
            lock.acquire(timeout=0)
        except TimeoutError:  # filelock's is one
            if not has_told:
                note(f"waiting for {_describe(who)}, which works on the same folder")
                has_told = True
            if is_over():
                raise Locked("Interrupted while waiting for another run.") from None
            if deadline_s is not None and time.monotonic() - began > deadline_s:
                raise Locked(
                    f"{_describe(who)} works on the same folder and did not end "
                    f"within {deadline_s:g} s. Wait for it, or end it."
                ) from None
            await asyncio.sleep(POLL_S)
        else:
            return


def _describe(who: Path) -> str:
    """Tell in words who holds the lock."""
    return str(LockHolder.read(who) or "another run")


class FileGroupTurn:
    """A group of this machine: a lock in the state folder. Implements `paddock.runner.core.concurrency.GroupTurn`.

    Beside it lies who has the turn, and the wish of a newer one to have it.
    """

    def __init__(self, folder: Path, name: str, run: str) -> None:
        self._lock = file_lock(folder / f"{name}.lock")
        self._who = folder / f"{name}.json"
        self._wish = folder / f"{name}.wish"
        self._own = LockHolder.here(run)
        self._seen: LockHolder | None = None

    def take(self) -> LockHolder | None:
        """Take the turn; gives who has it, None where it is ours now."""
        try:
            self._lock.acquire(timeout=0)
        except TimeoutError:  # filelock's is one
            self._seen = LockHolder.read(self._who)
            return self._seen or LockHolder("?", self._own.host, 0, time.time())
        self._wish.unlink(missing_ok=True)
        self._own.write(self._who)
        return None

    def request_release(self) -> None:
        """Ask who has it to make room, if it began before us."""
        if self._seen is not None and self._seen.since < self._own.since:
            self._wish.touch(mode=files.PRIVATE_FILE)

    def is_lost(self) -> bool:
        """Return whether somebody newer wants it."""
        return self._wish.exists()

    def leave(self) -> None:
        """Let it go."""
        if self._lock.is_locked:
            self._who.unlink(missing_ok=True)
            self._lock.release()
