"""Serve the local daemon in this process: model pool, Ollama's API and record at a Unix socket.

The process that gets the lock opens it. The socket lies in a folder that only its owner can enter,
so requests need no further authentication.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from paddock.engine.api.api_keys import STATE_PATH
from paddock.engine.api.pool_server import pool_routes
from paddock.engine.api.streaming import stream_response
from paddock.engine.backends import rpc
from paddock.engine.backends.background_tuning import BackgroundTuner
from paddock.engine.backends.local import LocalPool
from paddock.engine.system import files
from paddock.engine.system.distribution import own_version
from paddock.engine.system.file_locks import LockTaken, lock_now
from paddock.engine.system.http import QuietServer
from paddock.engine.system.records import Struct, asdict, field
from paddock.engine.system.tasks import wait_for_event
from paddock.runner.settings import Settings

from .daemon_client import LEASE, PREFIX
from .daemon_files import (
    DaemonError,
    DaemonInfo,
    DaemonKind,
    DaemonPaths,
    make_daemon_folders,
    paths_of,
)

API = "/api/"
BEAT_S = 5.0
FIRST_S = 10.0
_SHOWN_OF_MODEL = (
    "name", "state", "host_bytes", "device_bytes", "expires_s", "fallback", "pid",
)  # fmt: skip


class DaemonState(Struct):
    daemon: DaemonInfo
    pool: LocalPool
    idle_s: float
    clock: Callable[[], float] = time.monotonic
    n_open: int = 0
    """Requests that need the pool, and those by which runs hold the daemon."""
    is_retired: bool = False
    """Another version serves now: this daemon ends when no request is open."""
    ends: asyncio.Event = field(default_factory=asyncio.Event)
    _quiet_since: float = 0.0

    def __post_init__(self) -> None:
        # What started it sends a request within this time
        self._quiet_since = self.clock() + max(0.0, FIRST_S - self.idle_s)

    @contextmanager
    def request(self) -> Iterator[None]:
        self.n_open += 1
        try:
            yield
        finally:
            self.n_open -= 1
            self._quiet_since = self.clock()

    @property
    def quiet_s(self) -> float:
        """Return the seconds since it was last used; 0 while it is in use."""
        return 0.0 if self.n_open else max(0.0, self.clock() - self._quiet_since)

    @property
    def is_over(self) -> bool:
        """Return whether the daemon can end: idle for `idle_s`, or retired and unused."""
        idle_s = self.clock() - self._quiet_since
        return not self.n_open and (self.is_retired or idle_s >= self.idle_s)

    def as_json(self) -> dict[str, Any]:
        return {
            "version": self.daemon.version,
            "pid": self.daemon.pid,
            "kind": self.daemon.kind,
            "since_s": round(time.time() - self.daemon.began, 1),
            "is_retired": self.is_retired,
            "requests": self.n_open,
            "quiet_s": round(self.quiet_s, 1),
            "idle_s": self.idle_s if math.isfinite(self.idle_s) else None,
            "models": [
                {
                    "running": model.n_running,
                    "waiting": model.n_waiting,
                    **{name: getattr(model, name) for name in _SHOWN_OF_MODEL},
                }
                for model in self.pool.stats().resident
            ],
        }


def make_daemon_app(state: DaemonState) -> ASGIApp:
    own: Mapping[str, tuple[str, Callable[[Request], Awaitable[Response]]]] = {
        "": ("GET", _get_status),
        LEASE: ("POST", _post_lease),
        "/retire": ("POST", partial(_post_end, is_at_once=False)),
        "/rest": ("POST", _post_rest),
        "/stop": ("POST", partial(_post_end, is_at_once=True)),
    }
    routes = [Route(PREFIX + path, act, methods=[method]) for path, (method, act) in own.items()]
    app = Starlette(routes=[*routes, *pool_routes(state.pool)])
    app.state.state = state
    return _DaemonApp(app, state)


def _state_of(request: Request) -> DaemonState:
    state = request.app.state.state
    assert isinstance(state, DaemonState)
    return state


async def _get_status(request: Request) -> Response:
    return JSONResponse(_state_of(request).as_json())


async def _post_lease(request: Request) -> Response:
    """Keep the daemon from ending while the connection stays open."""
    state = _state_of(request)

    async def beats() -> AsyncGenerator[bytes, None]:
        while not state.ends.is_set():
            yield b"{}\n"
            await wait_for_event(state.ends, BEAT_S)

    return await stream_response(request, beats(), rpc.MEDIA_TYPE, lambda _: b"")


async def _post_end(request: Request, *, is_at_once: bool) -> Response:
    """End; or retire: as soon as the daemon is idle, because another version serves now."""
    state = _state_of(request)
    if state.daemon.kind != "background":
        message = f"`paddock {state.daemon.kind}` (process {state.daemon.pid}) holds it; end that."
        return JSONResponse({"error": message}, 409)
    if is_at_once:
        state.ends.set()
    else:
        state.is_retired = True
    return JSONResponse({})


async def _post_rest(request: Request) -> Response:
    pool = _state_of(request).pool
    models = pool.stats().resident
    idle = [model.name for model in models if not model.n_users and not model.n_waiting]
    return JSONResponse({"unloaded": [name for name in idle if await pool.unload(name)]})


class _DaemonApp:
    """Route each request to its application, and count those that keep the daemon from ending.

    Ollama's API, for `paddock chat`, `embed`, `ps` and `stop`, is made at its first request: its
    modules take 0.6 s to import, and runs need none of them.
    """

    def __init__(self, own: ASGIApp, state: DaemonState) -> None:
        self._own = own
        self._state = state
        self._api: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        app = self._own
        if path.startswith((API, STATE_PATH)):
            if self._api is None:
                self._api = await asyncio.to_thread(self._ollama_api)
            app = self._api
        only_looks = path.endswith(("/stats", "/api/ps"))
        is_counted = path.startswith((rpc.PREFIX, API, PREFIX + LEASE)) and not only_looks
        with self._state.request() if is_counted else nullcontext():
            await app(scope, receive, send)

    def _ollama_api(self) -> ASGIApp:
        from .ollama_service import ollama_app

        return ollama_app(self._state.pool)


BACKLOG = 1024
STOP_S = 5
TRY_S = 5.0

log = logging.getLogger(__name__)


async def keep_offering(settings: Settings, pool: LocalPool) -> None:
    """Offer a pool that is open already at the socket, while no other process holds it."""
    try:
        paths = make_daemon_folders(paths_of(settings))
        while True:
            with suppress(LockTaken):
                async with hold_daemon(settings, paths, kind="serve", pool=pool):
                    await asyncio.Event().wait()
            await asyncio.sleep(TRY_S)
    except DaemonError as error:
        log.warning("runs here start a pool of their own: %s", error)


@asynccontextmanager
async def hold_daemon(
    settings: Settings,
    paths: DaemonPaths,
    *,
    kind: DaemonKind,
    pool: LocalPool | None = None,
    idle_s: float = float("inf"),
) -> AsyncIterator[DaemonState]:
    """Hold the daemon and serve at its socket.

    Raises:
        LockTaken: another process holds it.
        DaemonError: the socket cannot be made.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(lock_now(paths.lock))
        if pool is None:
            pool = await stack.enter_async_context(LocalPool(settings.pool))
            await stack.enter_async_context(BackgroundTuner(pool))
        daemon = DaemonInfo(
            settings.state_dir, paths.socket, own_version(), os.getpid(), kind, time.time()
        )
        state = DaemonState(daemon, pool, idle_s)
        # Write the record before the socket opens: a client that connects reads it.
        files.write_json_atomically(paths.record, asdict(daemon))
        stack.callback(paths.record.unlink, missing_ok=True)
        await stack.enter_async_context(_serve_socket(paths, state))
        yield state


@asynccontextmanager
async def _serve_socket(paths: DaemonPaths, state: DaemonState) -> AsyncIterator[None]:
    """Serve at the socket inside the block; at its end, open requests are broken off."""
    paths.socket.unlink(missing_ok=True)  # left by a killed process: we hold the lock
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(paths.socket))  # in a folder that only its owner can enter
        paths.socket.chmod(0o600)
    except OSError as error:
        raise DaemonError(
            f"No socket can be made at {paths.socket}: {error.strerror}.\n"
            "  Set PADDOCK_HOME to a folder on a local disk; "
            "`paddock run --local` needs no service."
        ) from None
    listener.listen(BACKLOG)
    server = _DaemonServer(
        uvicorn.Config(
            make_daemon_app(state), lifespan="off", log_config=None, access_log=False, ws="none",
            server_header=False, timeout_graceful_shutdown=STOP_S, backlog=BACKLOG,
            timeout_keep_alive=60
        )
    )  # fmt: skip
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        state.ends.set()
        paths.socket.unlink(missing_ok=True)
        server.should_exit = True
        await asyncio.wait({serving}, timeout=STOP_S + 2)
        listener.close()


class _DaemonServer(QuietServer, uvicorn.Server):
    """uvicorn's server without its signal handlers: the process has its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
