"""What each receiver was told last: a file beside the ledger for a pipeline and its folders.

It is replaced as a whole; a broken one counts as none, so that something is told twice, not never.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from paddock.engine.system import private

from .events import Told

HOLD_S = 90.0  # longer than all messages of one run may take
_POLL_S = 0.05


class Memory:
    """What receivers were told; `told` is by receiver."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.is_known = False
        """Whether anything was ever written down."""
        self.told: dict[str, Told] = {}

    def read(self) -> None:
        """Read what was written down."""
        try:
            data = json.loads(self._file.read_text("utf-8"))
        except (OSError, ValueError):
            return
        if isinstance(data, Mapping):
            self.is_known = True
            self.told = {str(name): Told.of_json(one) for name, one in data.items()}

    def write(self) -> None:
        """Write it down.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        text = json.dumps({name: one.as_json() for name, one in self.told.items()})
        aside = self._file.with_name(f".{self._file.name}.{uuid4().hex}")
        try:
            with private.opened(aside) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._file)
        finally:
            aside.unlink(missing_ok=True)


@asynccontextmanager
async def held(folder: Path, name: str) -> AsyncIterator[Memory]:
    """Give the memory of this name, read, and nobody else meanwhile.

    Where several machines carry out one run, each comes to its end: the first one tells.

    Raises:
        OSError: the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(private.folder(folder) / f"{name}.lock", mode=private.FILE, thread_local=False)
    ends = time.monotonic() + HOLD_S
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            if time.monotonic() > ends:
                raise TimeoutError(f"{folder / name}: another process holds it") from None
            await asyncio.sleep(_POLL_S)
    try:
        memory = Memory(folder / f"{name}.json")
        memory.read()
        yield memory
    finally:
        lock.release()
