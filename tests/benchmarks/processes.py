"""Servers that live as long as a block, and what a process has taken of memory and processor."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from tests.benchmarks import client

READY_S = 300.0
_STOP_S = 5.0
_NOT_CHOSEN_BY_THE_SYSTEM = range(20_000, 32_000)  # Linux's begin at 32,768, macOS's at 49,152


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers on a port of this machine."""

    port: int
    pid: int


@contextlib.asynccontextmanager
async def serve(
    command: Sequence[str], port: int, *, health: str, env: dict[str, str] | None = None
) -> AsyncIterator[Server]:
    """Run a server for as long as the block lasts; it is surely gone afterwards.

    Raises:
        RuntimeError: it ended before it was ready; the message has the end of its log.
    """
    with tempfile.TemporaryFile() as log, _child(command, log, env) as child:
        async with asyncio.timeout(READY_S):
            await _until_ready(child, port, health, log)
        yield Server(port, child.pid)


def free_port() -> int:
    """Return a port that is free, and is given to no other program that lets the system choose."""
    while True:
        port = secrets.choice(_NOT_CHOSEN_BY_THE_SYSTEM)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def _child(
    command: Sequence[str], log: IO[bytes], env: dict[str, str] | None
) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})}
    )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


async def _until_ready(
    child: subprocess.Popen[bytes], port: int, health: str, log: IO[bytes]
) -> None:
    while True:
        if child.poll() is not None:
            log.seek(0)
            said = log.read().decode("utf-8", "replace").strip()[-600:]
            raise RuntimeError(f"the server ended with {child.returncode}: {said}")
        with contextlib.suppress(OSError, client.HttpError):
            await client.get(port, health)
            return
        await asyncio.sleep(0.05)


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """Make SIGTERM unwind the stack as Ctrl-C does, so that no server is left behind."""

    def leave(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# Memory and processor


def peak_bytes(pids: Iterable[int]) -> int | None:
    """Return the sum of their largest resident sizes; None where that is unknown."""
    peaks = [_status_bytes(pid, "VmHWM") for pid in pids]
    known = [peak for peak in peaks if peak is not None]
    return sum(known) if len(known) == len(peaks) else None


class OwnGrowth:
    """How much this very process has grown at most since it was asked to watch."""

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak is the present size again
        self._before = _status_bytes(os.getpid(), "VmRSS")

    def peak(self) -> int | None:
        """Return the growth in bytes; None where the system does not tell."""
        peak = _status_bytes(os.getpid(), "VmHWM")
        return None if peak is None or self._before is None else max(0, peak - self._before)


def _status_bytes(pid: int, field: str) -> int | None:
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None
