"""Supervise one Prefect server for a state folder: start, watch and restart it, remove old runs.

The process that holds the lock runs it; others read its address from the record, and take over
when the holder ends. It keeps its port over restarts, so that runs find it again. It gets another
one when a foreign program took the port, so read the address from `ready` or `status`. The
server's process is `prefect_process`; only names of Prefect's settings are known here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import psutil

from paddock.engine.system import files, http, private_files, socket_owners
from paddock.engine.system.file_locks import LockTaken, lock_now
from paddock.engine.system.light_dataclasses import dataclass
from paddock.engine.system.processes import (
    end_group,
    python_command,
    spawn_detached,
    start_in_session,
    without_keys,
)
from paddock.engine.system.retry import Backoff, Pauses
from paddock.engine.system.tasks import end, running
from paddock.runner.settings import Settings

from .daemon_client import exit_code
from .daemon_files import DaemonError, daemon_folder
from .prefect_auth import SERVER_VARIABLE, own_auth_string
from .prefect_client import PREFECT_ERRORS
from .prefect_retention import end_what_is_left, retention_settings

HOST = "127.0.0.1"
BACKLOG = 2048
COMMAND = python_command("-m", "paddock.runner.daemon.prefect_process")
HOST_MODULE = "paddock.runner.daemon.prefect_host"
START_S, START_POLL_S = 120.0, 0.2  # a new database takes 12 s, on a busy machine
LOOK_S, STEADY_LOOK_S = 2.0, 15.0  # each look costs both processes some milliseconds
ANSWER_S = 10.0
STOP_S = 8.0
N_SILENT = 6  # failed health checks in a row before a restart
VACATE_S = 10.0  # a server whose parent was killed ends within 5 s (`prefect_process`)
VACATE_POLL_S = 0.1
BACKOFF = Backoff(0.5, 30.0, factor=3.0)
"""Waits before a restart when it ends soon each time."""
STEADY_S = 60.0

TUNED: Mapping[str, str] = {
    # 4 to 5 ms of its CPU a task in place of 15 to 18.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "2",
    "PREFECT_SERVER_SERVICES_TRIGGERS_READ_BATCH_SIZE": "200",
    # What they look for does not happen here, or not in a hurry: `up` starts its runs itself.
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "60",
    "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "60",
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT60S",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_TASKS_DEFAULT_NO_CACHE": "true",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
}

PrefectServerState = Literal["starting", "ready", "failing"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PrefectServerStatus:
    """Status of the server."""

    state: PrefectServerState
    url: str
    pid: int | None = None
    why: str = ""


def running_server(state_dir: Path) -> str:
    """Return the address of this machine's own server; empty where none runs. Blocks."""
    port = files.read_json_object(_record_of(state_dir)).get("port")
    if not isinstance(port, int) or not _is_own(port):
        return ""
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return ""
    return _url(port)


def end_host(state_dir: Path) -> int | None:
    """Ask the process to end that `ensure_own_server` started; return its number, if it runs."""
    host = files.read_json_object(_record_of(state_dir)).get("host")
    with suppress(psutil.Error):
        if isinstance(host, int) and HOST_MODULE in psutil.Process(host).cmdline():
            os.kill(host, signal.SIGTERM)
            return host
    return None


def _record_of(state_dir: Path) -> Path:
    return daemon_folder(state_dir) / "prefect.server"


async def ensure_own_server(settings: Settings, note: Callable[[str], None]) -> str:
    """Return the address of this machine's own server; start one that ends when it is idle.

    `note` is called with a sentence before a start, which takes some seconds.

    Raises:
        DaemonError: it does not start.
    """
    state_dir, unattended = settings.state_dir, settings.unattended
    record = _record_of(state_dir)
    errors, host, is_ours = record.with_name("prefect.err"), None, True
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        port = files.read_json_object(record).get("port")
        if isinstance(port, int) and _is_own(port) and await _is_healthy(port):
            return _url(port)
        if host is None:
            note("Starting Prefect's server …")
            private_files.private_folder(record.parent)
            values = (state_dir, unattended.keep_tracking_s, unattended.service_idle_s)
            command = python_command("-m", HOST_MODULE, *map(str, values))
            host = await asyncio.to_thread(spawn_detached, command, errors)
        elif is_ours:
            status = exit_code(host)
            is_ours = status is None
            if status:  # with 0 another process keeps it
                lines = errors.read_text("utf-8", "replace").strip().splitlines()
                why = lines[-1].strip() if lines else f"it ended with status {status}"
                raise DaemonError(f"Prefect's server did not start: {why}")
        await asyncio.sleep(START_POLL_S)
    raise DaemonError(
        f"Prefect's server did not start within {START_S:g} s.\n"
        f"  {record.parent / 'prefect.log'} may say why; without `--prefect` no run needs it."
    )


class PrefectServer:
    """One server. Use it as `async with PrefectServer(…) as server`."""

    def __init__(self, state_dir: Path, keep_s: float, *, is_host: bool = False) -> None:
        """`keep_s`: retention of runs; `is_host`: this process is there for the server alone."""
        self._state_dir = state_dir
        self._home = state_dir / "prefect"
        self._keep_s = keep_s
        self._host = os.getpid() if is_host else None
        folder = daemon_folder(state_dir)
        self._record = _record_of(state_dir)
        self._lock_file = folder / "prefect.lock"
        self.log_file = folder / "prefect.log"
        self._changed = asyncio.Condition()
        self._status = PrefectServerStatus("starting", "")
        self._port: int | None = None
        self._listener: socket.socket | None = None
        """The listening socket of our own server; open until this ends."""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> PrefectServer:
        """Start it, or watch the one that another process keeps."""
        private_files.private_folder(self._record.parent)
        self._status = PrefectServerStatus("starting", _url(self._chosen()))
        self._task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            await end(self._task)
        self._close()

    @property
    def status(self) -> PrefectServerStatus:
        return self._status

    async def ready(self, within_s: float = START_S) -> PrefectServerStatus:
        """Wait for at most `within_s` until it answers.

        It gets another port when a foreign program took the one that it had.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(lambda: self._status.state == "ready")
        return self._status

    async def _say(self, state: PrefectServerState, pid: int | None = None, why: str = "") -> None:
        async with self._changed:
            self._status = PrefectServerStatus(state, self._status.url, pid, why)
            self._changed.notify_all()

    # keeping it

    async def _keep(self) -> None:
        """Run it, or watch the one of another process, until cancelled."""
        pauses = Pauses(BACKOFF)
        while True:
            began = time.monotonic()
            try:
                with lock_now(self._lock_file):
                    try:
                        await self._run()
                    except asyncio.CancelledError:
                        self._close()  # before the next lock holder listens here
                        raise
            except LockTaken:
                # Take the status of the server that another process of this user runs
                self._close()
                known = files.read_json_object(self._record)
                port, pid = known.get("port"), known.get("pid")
                if isinstance(port, int):
                    self._status = PrefectServerStatus(self._status.state, _url(port), pid)
                    is_there = _is_own(port) and await _is_healthy(port)
                    await self._say("ready" if is_there else "starting", pid)
                await asyncio.sleep(LOOK_S / 4 if self._status.state != "ready" else LOOK_S)
                continue
            except OSError as error:  # a full disk, no free process: retry later
                log.warning("cannot start the Prefect server: %s", error)
                await self._say("failing", None, str(error))
            if time.monotonic() - began > STEADY_S:
                pauses.succeeded()
            else:
                await pauses.wait()

    async def _run(self) -> None:
        """Start it and watch it until it ends.

        Raises:
            OSError: it cannot be started.
        """
        auth_string = own_auth_string(self._state_dir)
        listener = await self._vacated(self._chosen())
        port = int(listener.getsockname()[1])
        self._status = PrefectServerStatus("starting", _url(port))
        async with self._process(listener, port, auth_string) as process:
            record = {"port": port, "pid": process.pid, "host": self._host}
            files.write_json_atomically(self._record, record)
            async with running(process.wait()) as ended:
                await self._watch(port, process, ended)
        why = f"it ended with status {process.returncode}"
        with suppress(OSError):
            if lines := self.log_file.read_text("utf-8", "replace").strip().splitlines():
                why += f" ({lines[-1].strip()[:200]})"
        log.warning("the Prefect server: %s", why)
        await self._say("failing", None, why)

    async def _watch(
        self, port: int, process: asyncio.subprocess.Process, ended: asyncio.Future[int]
    ) -> None:
        """Return when it has ended, or has not answered for too long."""
        n_silent, deadline = 0, time.monotonic() + START_S
        while not ended.done():
            health = asyncio.create_task(_is_healthy(port))
            either: set[asyncio.Future[Any]] = {health, ended}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                health.cancel()
                return
            if health.result():
                n_silent = 0
                if self._status.state != "ready":
                    await self._say("ready", process.pid)
                else:
                    with suppress(*PREFECT_ERRORS):  # it is asked again
                        await end_what_is_left(_url(port), self._state_dir)
            elif self._status.state == "ready":
                n_silent += 1
            if n_silent >= N_SILENT or (
                self._status.state != "ready" and time.monotonic() > deadline
            ):
                log.warning("the Prefect server does not answer and is restarted")
                return
            pause_s = 0.1
            if self._status.state == "ready":  # its end is noticed at once in any case
                pause_s = LOOK_S if n_silent else STEADY_LOOK_S
            await asyncio.wait({ended}, timeout=pause_s)

    @asynccontextmanager
    async def _process(
        self, listener: socket.socket, port: int, auth_string: str
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        private_files.private_folder(self._home)
        environ = server_environment(self._home, port, os.environ, self._keep_s, auth_string)
        # The log holds one start only: it is short.
        with private_files.open_private(self.log_file, "wb") as out:
            process = await start_in_session(
                (*COMMAND, str(listener.fileno())), stdin=asyncio.subprocess.PIPE,
                environ=environ, pass_fds=(listener.fileno(),), stdout=out, stderr=out,
                cwd=self._home, umask=private_files.PRIVATE_UMASK,
            )  # fmt: skip
        try:
            yield process
        finally:
            await end_group(process, STOP_S)

    async def _vacated(self, port: int) -> socket.socket:
        """Listen at this port, or at another one when that stays taken.

        When the supervising process was killed, its server still listens for a moment. Running
        runs know its address, so wait for it to end.

        Raises:
            OSError: no port is free.
        """
        pid = files.read_json_object(self._record).get("pid")
        deadline = time.monotonic() + VACATE_S
        listener = self._listener or _listen_at(port)
        while (
            listener is None
            and isinstance(pid, int)
            and psutil.pid_exists(pid)
            and time.monotonic() < deadline
        ):
            await asyncio.sleep(VACATE_POLL_S)
            listener = _listen_at(port)
        self._listener = listener
        return self._open(port)

    def _chosen(self) -> int:
        """Return the port that it had before, so that its address stays; otherwise a free one."""
        known = files.read_json_object(self._record).get("port")
        if self._listener is None and isinstance(known, int):
            self._port = known
        elif self._port is None:
            self._open(None)
        assert self._port is not None
        return self._port

    def _open(self, port: int | None) -> socket.socket:
        """Listen at this port, or at another one when it is not free."""
        if self._listener is None:
            self._listener = _listen_at(port or 0) or _listen_at(0)
        if self._listener is None:
            raise OSError(None, f"no port of {HOST} is free")
        self._port = int(self._listener.getsockname()[1])
        return self._listener

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None


def server_environment(
    home: Path, port: int, environ: Mapping[str, str], keep_s: float, auth_string: str
) -> dict[str, str]:
    """Return the server's environment: ours without the client's settings, plus our tuning."""
    kept = {
        name: value
        for name, value in environ.items()
        if name.startswith(("PREFECT_SERVER_", "PREFECT_API_DATABASE"))
    }
    others = {name: value for name, value in environ.items() if not name.startswith("PREFECT_")}
    own = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": _url(port),
        "PREFECT_UI_API_URL": _url(port),
        SERVER_VARIABLE: auth_string,
        # Pages of other origins must neither read it nor start runs.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port},http://localhost:{port}",
    }
    return {**TUNED, **retention_settings(keep_s), **without_keys(others), **kept, **own}


def _url(port: int) -> str:
    return f"http://{HOST}:{port}/api"


def _listen_at(port: int) -> socket.socket | None:
    """Return a socket that listens at this port; None when it is taken.

    It listens at once, since two sockets that do not may share a port.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        return None
    return listener


def _is_own(port: int) -> bool:
    """Return whether this user listens at a port; True where that cannot be known (not Linux)."""
    knows = socket_owners.knows_socket_owners()
    return not knows or socket_owners.listener_owner(HOST, port) == os.getuid()


async def _is_healthy(port: int) -> bool:
    try:
        with http.http_failures("Prefect's server"):
            async with http.client(timeout_s=ANSWER_S, trust_env=False, verify=False) as client:
                return (await client.get(f"{_url(port)}/health")).status_code == 200
    except http.HttpFailure:
        return False
