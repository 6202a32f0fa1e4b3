"""Client of the local daemon.

Start it if need be, hold a lease, send requests over its Unix socket. Knows no model pool.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from paddock.engine.system.light_http import ConnectionBroken, ask_unix
from paddock.engine.system.locks import LockTaken, lock_soon
from paddock.runner.settings import Settings

from . import daemon_files
from .daemon_files import (
    DaemonError,
    DaemonInfo,
    DaemonPaths,
    daemon_log,
    make_daemon_folders,
    paths_of,
)

PREFIX = "/paddock/residence"
ASK_TIMEOUT_S = 10.0


def ask_daemon(
    daemon: DaemonInfo,
    path: str = "",
    body: dict[str, Any] | None = None,
    *,
    within_s: float = ASK_TIMEOUT_S,
) -> dict[str, Any]:
    """Send a request to a daemon and return its answer. Blocks.

    Raises:
        DaemonError: it does not answer in time, or refuses.
    """
    method, sent = ("GET", None) if body is None else ("POST", json.dumps(body).encode())
    try:
        status, answer = ask_unix(daemon.socket, method, PREFIX + path, sent, timeout_s=within_s)
        said = json.loads(answer or b"{}")
    except (ConnectionBroken, ValueError) as error:
        raise DaemonError(
            f"The local service (process {daemon.pid}) does not answer: {str(error).rstrip('.')}.\n"
            f"  End it by `kill {daemon.pid}`; the next run starts another."
        ) from None
    if not isinstance(said, dict):
        raise DaemonError("The local service answered with something other than a JSON object.")
    if status != 200:
        raise DaemonError(
            str(said.get("error") or f"The local service answered with status {status}.")
        )
    return said


SILENCE_S = 30.0  # a heartbeat comes every 5 s
CONNECT_S = 5.0


class DaemonLease:
    """A lease of a running daemon."""

    def __init__(self, daemon: DaemonInfo) -> None:
        self.daemon = daemon
        self.broken = asyncio.Event()
        """Set when the daemon is gone."""
        self.id = uuid.uuid4().hex

    async def prefect_url(self) -> str:
        """Start Prefect's server if need be, and return the address that it has or will have.

        Raises:
            DaemonError: the daemon does not answer.
        """
        return str((await request_daemon(self.daemon, "/prefect", {})).get("url", ""))

    async def prefect(self, within_s: float) -> dict[str, Any]:
        """Wait for Prefect's server for at most `within_s`; return `state`, `url` and `why`.

        Raises:
            DaemonError: the daemon does not answer.
        """
        body = {"within_s": within_s}
        return await request_daemon(self.daemon, "/prefect", body, within_s=within_s + CONNECT_S)


@asynccontextmanager
async def hold_lease(daemon: DaemonInfo, *, pipeline: str) -> AsyncIterator[DaemonLease]:
    """Hold a lease inside the `async with` block.

    Raises:
        DaemonError: the daemon does not answer.
    """
    lease = DaemonLease(daemon)
    body = {"id": lease.id, "pid": os.getpid(), "pipeline": pipeline}
    reader, writer = await _send_request(daemon, "POST", "/lease", body, CONNECT_S)
    reading = asyncio.create_task(_read_heartbeats(reader, lease.broken))
    try:
        yield lease
    finally:
        reading.cancel()
        writer.close()


async def request_daemon(
    daemon: DaemonInfo, path: str, body: dict[str, Any], *, within_s: float = CONNECT_S
) -> dict[str, Any]:
    """Send a request and return the answer.

    Raises:
        DaemonError: no answer comes in time.
    """
    reader, writer = await _send_request(daemon, "POST", path, body, within_s)
    try:
        async with asyncio.timeout(within_s):
            said = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
    except (OSError, ValueError, TimeoutError) as error:
        raise DaemonError(_silent(daemon, error)) from None
    finally:
        writer.close()
    return said if isinstance(said, dict) else {}


async def _send_request(
    daemon: DaemonInfo, method: str, path: str, body: dict[str, Any], within_s: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Write HTTP/1.1 by hand: httpx takes a tenth of a second to import."""
    sent = json.dumps(body).encode()
    head = f"{method} {PREFIX}{path} HTTP/1.1\r\nHost: paddock\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_unix_connection(str(daemon.socket))
            writer.write(head.encode() + sent)
            await writer.drain()
    except (OSError, TimeoutError) as error:
        raise DaemonError(_silent(daemon, error)) from None
    return reader, writer


async def _read_heartbeats(reader: asyncio.StreamReader, broken: asyncio.Event) -> None:
    """Read heartbeats until they stop, then set `broken`."""
    try:
        while True:
            async with asyncio.timeout(SILENCE_S):
                if not await reader.read(1024):
                    return
    except (OSError, TimeoutError):
        return
    finally:
        broken.set()


def _silent(daemon: DaemonInfo, error: BaseException) -> str:
    why = str(error) or type(error).__name__
    return f"The local service (process {daemon.pid}) does not answer: {why.rstrip('.')}."


START_S = 30.0  # takes 1 to 2 s, more on a busy machine
LOOK_S = 0.02

Tell = Callable[[str], None]


async def ensure_daemon(
    settings: Settings, *, wants_prefect: bool = True, tell: Tell | None = None
) -> DaemonInfo:
    """Return the daemon that fits these settings; start it if need be. Its socket is open.

    If Prefect's server is wanted it is starting; `prefect_api_url` is the address that it will
    have.

    Raises:
        DaemonError: it does not start; with the last line that it wrote.
    """
    paths = make_daemon_folders(paths_of(settings))
    daemon = await asyncio.to_thread(daemon_files.daemon_at, paths)
    if daemon is None:
        daemon = await _start_once(settings, paths, wants_prefect, tell)
        await _retire_others(daemon)
    if wants_prefect:
        told = await request_daemon(daemon, "/prefect", {})
        daemon = daemon.with_prefect(str(told.get("url", "")))
    return daemon


async def _start_once(
    settings: Settings, paths: DaemonPaths, wants_prefect: bool, tell: Tell | None
) -> DaemonInfo:
    """Start a daemon, unless another process starts one at the same time."""
    deadline = time.monotonic() + START_S
    with suppress(LockTaken):
        async with lock_soon(
            paths.starting,
            wait_s=START_S,
            poll_s=5 * LOOK_S,
            is_over=lambda: daemon_files.daemon_at(paths) is not None,
        ):
            daemon = daemon_files.daemon_at(paths)
            return daemon or await _spawn_and_wait(settings, paths, wants_prefect, deadline, tell)
    daemon = daemon_files.daemon_at(paths)
    if daemon is None:
        raise DaemonError(_late_error(settings))
    return daemon


async def _spawn_and_wait(
    settings: Settings, paths: DaemonPaths, wants_prefect: bool, deadline: float, tell: Tell | None
) -> DaemonInfo:
    """Start the daemon's process and wait until its socket is open."""
    stderr_file = paths.folder / f"{paths.name}.err"
    text = daemon_files.encode_start_options(daemon_files.StartOptions(settings, wants_prefect))
    pid = await asyncio.to_thread(_spawn, text, stderr_file)
    while time.monotonic() < deadline:
        daemon = daemon_files.daemon_at(paths)
        if daemon is not None:
            if tell is not None:
                tell(_started_message(daemon, settings))
            return daemon
        status = _exit_status(pid)
        if status is not None and not daemon_files.daemon_at(
            paths
        ):  # otherwise another process was quicker
            raise DaemonError(_died_error(stderr_file, status, settings))
        await asyncio.sleep(LOOK_S)
    os.kill(pid, signal.SIGKILL)
    raise DaemonError(_late_error(settings))


def _spawn(text: str, stderr_file: Path) -> int:
    """Start the process in a session of its own, so that Ctrl-C does not reach it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "paddock.runner.daemon.background", text],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, str(stderr_file), flags, 0o600),
        ],
        setsid=True,
    )


def _exit_status(pid: int) -> int | None:
    """Return how our child ended; None while it runs."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


async def _retire_others(daemon: DaemonInfo) -> None:
    """Ask daemons of other versions or with other settings to end once they are idle."""
    for other in await asyncio.to_thread(daemon_files.running_daemons, daemon.state_dir):
        if other.socket != daemon.socket and other.kind == "background":
            with suppress(DaemonError):
                await request_daemon(other, "/retire", {})


def _started_message(daemon: DaemonInfo, settings: Settings) -> str:
    from paddock.engine.system.units import duration

    idle = duration(settings.unattended.service_idle_s)
    return (
        f"Started the local service (process {daemon.pid}), which keeps models in memory for "
        f"the next runs and ends when idle for {idle}: paddock service status"
    )


def _died_error(stderr_file: Path, status: int, settings: Settings) -> str:
    lines = stderr_file.read_text("utf-8", "replace").strip().splitlines()
    why = lines[-1].strip() if lines else f"it ended with status {status}"
    return (
        f"The local service did not start: {why}\n"
        f"  {daemon_log(settings.state_dir)} has more; `paddock run --local` needs no service."
    )


def _late_error(settings: Settings) -> str:
    return (
        f"The local service did not start within {START_S:g} s.\n"
        f"  {daemon_log(settings.state_dir)} may say why; `paddock run --local` needs no service."
    )
