"""Client of the local daemon: start it if need be, hold a lease, send requests to its Unix socket.

Imports no httpx, which takes a tenth of a second. Knows no model pool.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

from paddock.engine.system.file_locks import LockTaken, lock_soon
from paddock.engine.system.http import json_object
from paddock.engine.system.light_http import (
    ConnectionBroken,
    UnexpectedStatus,
    UnixClient,
    ask_unix,
)
from paddock.engine.system.processes import python_command, spawn_detached
from paddock.engine.system.units import duration
from paddock.runner.settings import Settings

from . import daemon_files
from .daemon_files import (
    DaemonError,
    DaemonGone,
    DaemonInfo,
    DaemonPaths,
    daemon_log,
    make_daemon_folders,
    paths_of,
)

PREFIX, LEASE = "/paddock/residence", "/lease"
ASK_TIMEOUT_S = 10.0
SILENCE_S = 30.0  # a heartbeat comes every 5 s


def ask_daemon(
    daemon: DaemonInfo, path: str = "", body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Send a request to a daemon and return its answer. Blocks.

    Raises:
        DaemonError: it does not answer in time, or refuses.
    """
    method, sent = ("GET", None) if body is None else ("POST", json.dumps(body).encode())
    try:
        status, answer = ask_unix(
            daemon.socket, method, PREFIX + path, sent, timeout_s=ASK_TIMEOUT_S
        )
    except ConnectionBroken as error:
        raise DaemonError(
            f"{_silent(daemon, error)}\n"
            f"  End it by `kill {daemon.pid}`; the next run starts another."
        ) from None
    data = json_object(answer or b"{}")
    if data is None:
        raise DaemonError("The local service answered with something other than a JSON object.")
    if status != 200:
        raise DaemonError(
            str(data.get("error") or f"The local service answered with status {status}.")
        )
    return data


@asynccontextmanager
async def hold_lease(daemon: DaemonInfo) -> AsyncIterator[None]:
    """Keep a daemon from ending inside the `async with` block, by a request that stays open.

    Raises:
        DaemonGone: the daemon has gone.
        DaemonError: it refuses.
    """
    async with (
        aclosing(UnixClient(daemon.socket, silence_s=SILENCE_S)) as client,
        aclosing(client.stream("POST", PREFIX + LEASE, b"{}")) as beats,
    ):
        try:
            await anext(beats)
        except (ConnectionBroken, StopAsyncIteration) as error:
            raise DaemonGone(_silent(daemon, error)) from None
        except UnexpectedStatus as error:
            raise DaemonError(_silent(daemon, error)) from None
        yield


def _silent(daemon: DaemonInfo, error: Exception) -> str:
    why = str(error).rstrip(".") or "it is ending"
    return f"The local service (process {daemon.pid}) does not answer: {why}."


START_S = 30.0  # takes 1 to 2 s, more on a busy machine
LOOK_S = 0.02
AGAIN_S = 0.2  # a process that is killed closes its socket within some hundredths

Tell = Callable[[str], None]


async def ensure_daemon(settings: Settings, tell: Tell | None = None) -> DaemonInfo:
    """Return the daemon that fits these settings; start it if need be. Its socket is open.

    Raises:
        DaemonError: it does not start; with the last line that it wrote.
    """
    paths = make_daemon_folders(paths_of(settings))
    daemon = await asyncio.to_thread(daemon_files.daemon_at, paths)
    if daemon is None:
        daemon = await _start_once(settings, paths, tell)
        # Ask daemons of other versions or with other settings to end once they are idle
        for other in await asyncio.to_thread(daemon_files.running_daemons, daemon.state_dir):
            if other.socket != daemon.socket and other.kind == "background":
                with suppress(DaemonError):
                    await asyncio.to_thread(ask_daemon, other, "/retire", {})
    return daemon


async def _start_once(settings: Settings, paths: DaemonPaths, tell: Tell | None) -> DaemonInfo:
    """Start a daemon, unless another process starts one at the same time."""
    deadline = time.monotonic() + START_S
    try:
        async with lock_soon(
            paths.starting,
            wait_s=START_S,
            is_over=lambda: daemon_files.daemon_at(paths) is not None,
        ):
            daemon = daemon_files.daemon_at(paths)
            return daemon or await _spawn_and_wait(settings, paths, deadline, tell)
    except LockTaken:
        if (daemon := daemon_files.daemon_at(paths)) is None:
            raise DaemonError(_late_error(settings)) from None
        return daemon


async def _spawn_and_wait(
    settings: Settings, paths: DaemonPaths, deadline: float, tell: Tell | None
) -> DaemonInfo:
    stderr_file = paths.folder / f"{paths.name}.err"
    text = daemon_files.encode_start_options(settings)
    command = python_command("-m", "paddock.runner.daemon.daemon_main", text)
    pid = await asyncio.to_thread(spawn_detached, command, stderr_file)
    while time.monotonic() < deadline:
        daemon = daemon_files.daemon_at(paths)
        if daemon is not None:
            if tell is not None:
                idle = duration(settings.unattended.service_idle_s)
                tell(
                    f"Started the local service (process {daemon.pid}), which keeps models in "
                    f"memory for the next runs and ends when idle for {idle}: `paddock status`"
                )
            return daemon
        code = exit_code(pid)
        if code is not None and not daemon_files.daemon_at(paths):  # otherwise another was quicker
            lines = stderr_file.read_text("utf-8", "replace").strip().splitlines()
            raise DaemonError(
                f"The local service did not start: "
                f"{lines[-1].strip() if lines else f'it ended with status {code}'}\n"
                f"  {daemon_log(settings.state_dir)} has more; `paddock run --local` needs no "
                f"service."
            )
        await asyncio.sleep(LOOK_S)
    os.kill(pid, signal.SIGKILL)
    raise DaemonError(_late_error(settings))


def exit_code(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _late_error(settings: Settings) -> str:
    return (
        f"The local service did not start within {START_S:g} s.\n"
        f"  {daemon_log(settings.state_dir)} may say why; `paddock run --local` needs no service."
    )
