"""Keep one Prefect server for a state folder: start, watch and restart it.

The process that holds the lock runs it; others read its address from the record, and take over
when the holder ends. It keeps its port over restarts, so that runs find it again; where a foreign
program took it meanwhile, it gets another one. The server's process is `prefect_process`; only
names of Prefect's settings are known here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import psutil

from paddock.engine.system import files, http, private_files, socket_owners
from paddock.engine.system.file_locks import LockTaken, lock_now
from paddock.engine.system.processes import (
    end_group,
    python_command,
    spawn_detached,
    start_in_session,
    without_keys,
)
from paddock.engine.system.records import Struct
from paddock.engine.system.retry import Backoff, Pauses
from paddock.engine.system.tasks import running, wait_for_event
from paddock.runner.settings import Settings

from .daemon_client import exit_code
from .daemon_files import DaemonError, daemon_folder
from .prefect_auth import SERVER_VARIABLE, own_auth_string
from .prefect_client import PREFECT_ERRORS, ask
from .prefect_retention import end_orphans, own_client, retention_settings

HOST = "127.0.0.1"
BACKLOG = 2048
COMMAND = python_command("-m", "paddock.runner.daemon.prefect_process")
KEEPER_MODULE = "paddock.runner.daemon.prefect_server"
START_S, START_POLL_S = 120.0, 0.2  # a new database takes 12 s, on a busy machine
LOOK_S, STEADY_LOOK_S = 2.0, 15.0  # each look costs both processes some milliseconds
ANSWER_S = 10.0
STOP_S = 8.0
N_SILENT = 6  # failed health checks in a row before a restart
VACATE_S = 5.0
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
    "MALLOC_ARENA_MAX": "1",  # glibc's further heaps, one a thread, took 15 MB
    "PREFECT_TASKS_DEFAULT_NO_CACHE": "true",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
}

log = logging.getLogger(__name__)


def running_server(state_dir: Path) -> str:
    """Return the address of this machine's own server; empty where none runs. Blocks."""
    port = files.read_json_object(_record_file(state_dir)).get("port")
    if not isinstance(port, int) or not _is_ours(port):
        return ""
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return ""
    return _url(port)


def end_keeper(state_dir: Path) -> int | None:
    """Ask the process to end that `ensure_own_server` started; return its number, if it runs."""
    keeper = files.read_json_object(_record_file(state_dir)).get("host")
    with suppress(psutil.Error):
        if isinstance(keeper, int) and KEEPER_MODULE in psutil.Process(keeper).cmdline():
            os.kill(keeper, signal.SIGTERM)
            return keeper
    return None


def _record_file(state_dir: Path) -> Path:
    return daemon_folder(state_dir) / "prefect.server"


async def ensure_own_server(settings: Settings, note: Callable[[str], None]) -> str:
    """Return the address of this machine's own server; start one that ends when it is idle.

    `note` is called with a sentence before a start, which takes some seconds.

    Raises:
        DaemonError: it does not start.
    """
    unattended = settings.unattended
    record_file = _record_file(settings.state_dir)
    errors = record_file.with_name("prefect.err")
    keeper: int | None = None
    is_ours = True
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        port = files.read_json_object(record_file).get("port")
        if isinstance(port, int) and _is_ours(port) and await _is_healthy(port):
            return _url(port)
        if keeper is None:
            note("Starting Prefect's server …")
            private_files.private_folder(record_file.parent)
            times = (unattended.keep_tracking_s, unattended.service_idle_s)
            arguments = map(str, (settings.state_dir, *times))
            command = python_command("-m", KEEPER_MODULE, *arguments)
            keeper = await asyncio.to_thread(spawn_detached, command, errors)
        elif is_ours:
            status = exit_code(keeper)
            is_ours = status is None
            if status:  # with 0 another process keeps it
                lines = errors.read_text("utf-8", "replace").strip().splitlines()
                why = lines[-1].strip() if lines else f"it ended with status {status}"
                raise DaemonError(f"Prefect's server did not start: {why}")
        await asyncio.sleep(START_POLL_S)
    raise DaemonError(
        f"Prefect's server did not start within {START_S:g} s.\n"
        f"  {record_file.parent / 'prefect.log'} may say why; without `--prefect` no run needs it."
    )


async def keep_own_server(state_dir: Path, keep_s: float, on_answer: Callable[[str], None]) -> None:
    """Run this machine's own server until cancelled, or watch that of another process.

    `on_answer` is called with the address whenever a server has begun to answer there, or may have.
    """
    folder = private_files.private_folder(daemon_folder(state_dir))
    while True:
        try:
            with (
                lock_now(folder / "prefect.lock"),
                closing(_reopened_listener(state_dir)) as listener,
            ):
                pauses = Pauses(BACKOFF)
                while True:
                    began = time.monotonic()
                    await _run_server(state_dir, keep_s, listener, on_answer)
                    if time.monotonic() - began > STEADY_S:
                        pauses.succeeded()
                    await pauses.wait()
        except LockTaken:
            if url := await asyncio.to_thread(running_server, state_dir):
                on_answer(url)
        except OSError as error:  # no port, no lock
            log.warning("cannot start the Prefect server: %s", error)
        await asyncio.sleep(LOOK_S)


class ServerHealth(Struct):
    deadline: float
    """Until then it may be silent at its start."""
    is_ready: bool = False
    n_silent: int = 0

    def note(self, *, is_healthy: bool, now: float) -> None:
        if is_healthy:
            self.is_ready = True
            self.n_silent = 0
        elif self.is_ready or now > self.deadline:
            self.n_silent += 1

    @property
    def pause_s(self) -> float:
        if not self.is_ready:
            return START_POLL_S
        return LOOK_S if self.n_silent else STEADY_LOOK_S


async def _run_server(
    state_dir: Path, keep_s: float, listener: socket.socket, on_answer: Callable[[str], None]
) -> None:
    """Start it and watch it until it ends, or has not answered for too long."""
    log_file = daemon_folder(state_dir) / "prefect.log"
    port = int(listener.getsockname()[1])
    health = ServerHealth(time.monotonic() + START_S)
    try:
        async with _server_process(state_dir, keep_s, listener, log_file) as process:
            facts = {"port": port, "pid": process.pid, "host": os.getpid()}
            files.write_json_atomically(_record_file(state_dir), facts)
            async with running(process.wait()) as ended:
                while not ended.done() and health.n_silent < N_SILENT:
                    check: asyncio.Future[Any] = asyncio.ensure_future(_is_healthy(port))
                    await asyncio.wait({check, ended}, return_when=asyncio.FIRST_COMPLETED)
                    if ended.done():
                        check.cancel()
                        break
                    was_ready = health.is_ready
                    health.note(is_healthy=check.result(), now=time.monotonic())
                    if check.result() and was_ready:
                        with suppress(*PREFECT_ERRORS):  # it is asked again
                            await end_orphans(_url(port), state_dir)
                    elif check.result():
                        on_answer(_url(port))
                    await asyncio.wait({ended}, timeout=health.pause_s)
    except OSError as error:  # a full disk, no free process
        log.warning("cannot start the Prefect server: %s", error)
        return
    why = f"it ended with status {process.returncode}"
    with suppress(OSError):
        if lines := log_file.read_text("utf-8", "replace").strip().splitlines():
            why += f" ({lines[-1].strip()[:200]})"
    message = "the Prefect server does not answer: %s. Runs go on without it; it is started again."
    log.warning(message, why)


@asynccontextmanager
async def _server_process(
    state_dir: Path, keep_s: float, listener: socket.socket, log_file: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    home = state_dir / "prefect"
    port = int(listener.getsockname()[1])
    private_files.private_folder(home)
    environ = server_environment(home, port, os.environ, keep_s, own_auth_string(state_dir))
    # The log holds one start only: it is short.
    with private_files.open_private(log_file, "wb") as out:
        process = await start_in_session(
            (*COMMAND, str(listener.fileno())), stdin=asyncio.subprocess.PIPE,
            environ=environ, pass_fds=(listener.fileno(),), stdout=out, stderr=out,
            cwd=home, umask=private_files.PRIVATE_UMASK,
        )  # fmt: skip
    try:
        yield process
    finally:
        await end_group(process, STOP_S)


def _reopened_listener(state_dir: Path) -> socket.socket:
    """Listen at the port that the server had before, or at another one when that is taken.

    It stays open while the server restarts, so that no other user can listen there. A server whose
    parent was killed still listens for a moment: it is ended.

    Raises:
        OSError: no port is free.
    """
    known = files.read_json_object(_record_file(state_dir))
    with suppress(psutil.Error, ValueError):
        orphan = psutil.Process(int(known.get("pid", 0)))
        if COMMAND[-1] in orphan.cmdline():
            orphan.kill()
            orphan.wait(VACATE_S)
    try:
        return _listen_at(int(known.get("port", 0)))
    except OSError:
        return _listen_at(0)


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


def _listen_at(port: int) -> socket.socket:
    """Return a socket that listens at once, since two sockets that do not may share a port."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _is_ours(port: int) -> bool:
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


_AT_WORK = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}}


async def _keep_until_idle(state_dir: Path, keep_s: float, idle_s: float) -> None:
    """Keep a server for runs with `--prefect` until a signal comes, or it is idle for `idle_s`."""
    stop = asyncio.Event()
    busy_at = time.monotonic()
    addresses = deque[str](maxlen=1)
    with suppress(LockTaken), lock_now(daemon_folder(state_dir) / "prefect-host.lock"):
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with running(keep_own_server(state_dir, keep_s, addresses.append)):
            while not stop.is_set() and time.monotonic() - busy_at < idle_s:
                await wait_for_event(stop, min(STEADY_LOOK_S, idle_s))
                try:
                    async with own_client(addresses[0], state_dir) as api:
                        if await ask(api, "POST", "/flow_runs/count", _AT_WORK):
                            busy_at = time.monotonic()
                except (IndexError, *PREFECT_ERRORS):
                    busy_at = time.monotonic()  # it is away, and a run may need it


if __name__ == "__main__":
    asyncio.run(_keep_until_idle(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
