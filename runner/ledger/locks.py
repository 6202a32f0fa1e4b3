"""One run at a time on a scope: an operating-system lock, so that a dead holder lets go.

Beside the lock lies who holds it (pid, host, since), for the run that waits.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from .entries import LedgerError

POLL_S = 0.1


class Locked(LedgerError):
    """Another run holds the scope, and the time to wait is up."""


@asynccontextmanager
async def held(
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
    lock = FileLock(_made(folder) / f"{name}.lock", thread_local=False)
    who = folder / f"{name}.json"
    await _acquire(lock, who, deadline_s, is_over, note)
    has_died = who.exists()
    try:
        who.write_text(json.dumps(_holder(run)), "utf-8")
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
        except Timeout:
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


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _holder(run: str) -> dict[str, object]:
    return {"run": run, "pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}


def _describe(who: Path) -> str:
    """Tell in words who holds the lock; its note may not be there yet, or be half written."""
    try:
        facts = json.loads(who.read_text("utf-8"))
        since = datetime.fromtimestamp(facts["since"]).astimezone()
        return (
            f"run '{facts['run']}' (process {facts['pid']} on {facts['host']}, "
            f"since {since:%H:%M:%S})"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"
