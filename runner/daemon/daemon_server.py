"""Serve the local daemon in this process, or use the one that another process serves.

Who gets the lock opens the Unix socket: model pool, Ollama's API, Prefect's server, record.
Another process becomes a client and takes over when the holder ends. The socket lies in a folder
that only its owner can enter, so requests need no further authentication.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import uvicorn
from filelock import FileLock, Timeout
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from paddock.engine.api.errors import ApiError
from paddock.engine.api.pool_server import pool_routes
from paddock.engine.api.streaming import stream_response
from paddock.engine.backends import rpc
from paddock.engine.backends.local import LocalPool
from paddock.engine.system import files
from paddock.engine.system.distribution import own_version
from paddock.runner.settings import Settings

from . import daemon_files
from .daemon_client import PREFIX, hold_lease
from .daemon_files import (
    DaemonError,
    DaemonInfo,
    DaemonKind,
    DaemonPaths,
    make_daemon_folders,
    paths_of,
)
from .leases import Leases
from .prefect_mirror import PrefectMirrors
from .prefect_server import PrefectServer

API = "/api/"
BEAT_S = 5.0
WAIT_S = 150.0
"""The longest that somebody is let wait for Prefect."""


@dataclass
class DaemonState:
    """What the routes work with."""

    residence: DaemonInfo
    pool: LocalPool
    prefect: PrefectServer
    leases: Leases
    idle_s: float
    mirrors: PrefectMirrors
    ends: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is asked to end."""

    def told(self) -> dict[str, Any]:
        """Return how it is."""
        now, stats = time.monotonic(), self.pool.stats()
        return {
            "version": self.residence.version,
            "pid": self.residence.pid,
            "kind": self.residence.kind,
            "since_s": round(time.time() - self.residence.began, 1),
            "is_retired": self.leases.is_retired,
            "leases": [lease.as_json(now) for lease in self.leases.held],
            "requests": self.leases.n_requests,
            "quiet_s": round(self.leases.quiet_s, 1),
            "idle_s": self.idle_s if math.isfinite(self.idle_s) else None,
            "prefect": self.prefect.told.as_json(),
            "models": [
                {
                    "name": one.name,
                    "state": one.state,
                    "running": one.n_running,
                    "waiting": one.n_waiting,
                    "host_bytes": one.host_bytes,
                    "device_bytes": one.device_bytes,
                    "expires_s": one.expires_s,
                    "fallback": one.fallback,
                    "pid": one.pid,
                }
                for one in stats.resident
            ],
        }


def make_daemon_app(desk: DaemonState) -> ASGIApp:
    """Put the routes together."""
    own: Mapping[str, tuple[str, Callable[[Request], Awaitable[Response]]]] = {
        "": ("GET", _get_status),
        "/prefect": ("POST", _post_prefect),
        "/lease": ("POST", _post_lease),
        "/mirror": ("POST", _post_mirror),
        "/retire": ("POST", _post_retire),
        "/rest": ("POST", _post_rest),
        "/stop": ("POST", _post_stop),
    }
    routes = [Route(PREFIX + path, act, methods=[method]) for path, (method, act) in own.items()]
    app = Starlette(routes=[*routes, *pool_routes(desk.pool)])
    app.state.desk = desk
    return _RequestCounter(app, _LazyOllamaApi(desk), desk.leases)


def _state_of(request: Request) -> DaemonState:
    desk = request.app.state.desk
    assert isinstance(desk, DaemonState)
    return desk


async def _get_status(request: Request) -> Response:
    return JSONResponse(_state_of(request).told())


async def _post_prefect(request: Request) -> Response:
    """Have Prefect started, and wait for it as long as is wished."""
    within_s = min(WAIT_S, float((await _json_body(request)).get("within_s", 0.0)))
    server = _state_of(request).prefect
    server.want(is_urgent=within_s > 0)
    _state_of(request).mirrors.take_kept()
    told = await server.ready(within_s) if within_s > 0 else server.told
    return JSONResponse(told.as_json())


async def _post_lease(request: Request) -> Response:
    """Hold the service as long as the connection stays; a broken one may be a crashed run's."""
    body, desk = await _json_body(request), _state_of(request)

    async def beats() -> AsyncGenerator[bytes, None]:
        with desk.leases.lease(
            str(body.get("id", "")), int(body.get("pid", 0)), str(body.get("pipeline", ""))
        ) as lease:
            try:
                while not desk.ends.is_set():
                    yield b"{}\n"
                    with suppress(TimeoutError):
                        await asyncio.wait_for(desk.ends.wait(), BEAT_S)
            finally:
                if not desk.ends.is_set():
                    desk.mirrors.crashed(lease)

    return await stream_response(request, beats(), rpc.MEDIA_TYPE, _no_error_line)


async def _post_mirror(request: Request) -> Response:
    """Take how a run goes, to be shown in Prefect."""
    desk, body = _state_of(request), await _json_body(request)
    return JSONResponse({"is_new": desk.mirrors.take(body)})


async def _post_retire(request: Request) -> Response:
    """Make room for another version: end when nobody needs this one any more."""
    desk = _state_of(request)
    if desk.residence.kind != "background":
        words = f"`paddock {desk.residence.kind}` (process {desk.residence.pid}) holds it."
        return JSONResponse({"error": words}, 409)
    desk.leases.is_retired = True
    return JSONResponse({"leases": len(desk.leases.held)})


async def _post_rest(request: Request) -> Response:
    """Let every model go that nobody uses."""
    pool = _state_of(request).pool
    idle = [one.name for one in pool.stats().resident if not one.n_users and not one.n_waiting]
    gone = [name for name in idle if await pool.unload(name)]
    return JSONResponse({"unloaded": gone})


async def _post_stop(request: Request) -> Response:
    desk = _state_of(request)
    if desk.residence.kind != "background":
        words = (
            f"`paddock {desk.residence.kind}` (process {desk.residence.pid}) holds it; end that."
        )
        return JSONResponse({"error": words}, 409)
    desk.ends.set()
    return JSONResponse({"leases": len(desk.leases.held)})


async def _json_body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError:
        body = {}
    return body if isinstance(body, dict) else {}


def _no_error_line(error: ApiError) -> bytes:
    return b""


class _LazyOllamaApi:
    """Ollama's API for `paddock chat`, `embed`, `ps` and `stop`.

    Made when it is first asked: its modules take 0.6 s to import, and runs need none of them.
    """

    def __init__(self, desk: DaemonState) -> None:
        self._desk = desk
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if self._app is None:
            self._app = await asyncio.to_thread(self._made)
        await self._app(scope, receive, send)

    def _made(self) -> ASGIApp:
        from paddock.engine.api import app
        from paddock.engine.api.service import Service
        from paddock.engine.models.model_store import ModelStore
        from paddock.engine.settings import ServiceSettings

        pool = self._desk.pool
        store = ModelStore(pool.settings.models_dir)
        settings, version = ServiceSettings(), self._desk.residence.version
        return app.make_app(Service(pool, store, pool.models, settings, version, takes_paths=True))


class _RequestCounter:
    """Sends a request to the right application, and counts those that need the pool.

    The service does not end under those.
    """

    def __init__(self, own: ASGIApp, api: ASGIApp, leases: Leases) -> None:
        self._own = own
        self._api = api
        self._leases = leases

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through."""
        path = scope.get("path", "")
        app = self._api if path.startswith(API) else self._own
        only_looks = path.endswith(("/stats", "/api/ps"))
        if only_looks or not path.startswith((rpc.PREFIX, API)):
            return await app(scope, receive, send)
        with self._leases.request():
            await app(scope, receive, send)


BACKLOG = 1024
STOP_S = 5
OPEN_S = 30.0
TRY_S = 5.0

log = logging.getLogger(__name__)


@asynccontextmanager
async def serve_or_join(
    settings: Settings,
    *,
    kind: DaemonKind = "up",
    pool: LocalPool | None = None,
    wants_prefect: bool = True,
) -> AsyncIterator[DaemonInfo]:
    """Yield the local service for as long as this lasts, whoever holds it.

    Raises:
        NoResidence: its folder or socket cannot be used.
    """
    seat = _ServeOrJoin(settings, kind, pool, wants_prefect)
    task = asyncio.create_task(seat.keep())
    try:
        yield await seat.ready(task)
    finally:
        task.cancel()
        await asyncio.wait({task})


@asynccontextmanager
async def offer_pool(settings: Settings, pool: LocalPool) -> AsyncIterator[None]:
    """Open the door to a pool that serves already, while nobody else has it; Prefect when asked."""
    task = asyncio.create_task(_keep_offering(settings, pool))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _keep_offering(settings: Settings, pool: LocalPool) -> None:
    try:
        place = make_daemon_folders(paths_of(settings))
        while True:
            with suppress(DaemonTaken):
                async with hold_daemon(settings, place, kind="serve", pool=pool):
                    await asyncio.Event().wait()
            await asyncio.sleep(TRY_S)
    except DaemonError as error:
        log.warning("runs here start a pool of their own: %s", error)


class _ServeOrJoin:
    """A place at the door: the holder's, or a lodger's until the holder ends."""

    def __init__(
        self, settings: Settings, kind: DaemonKind, pool: LocalPool | None, wants_prefect: bool
    ) -> None:
        self._settings = settings
        self._kind = kind
        self._pool = pool
        self._wants_prefect = wants_prefect
        self._place = make_daemon_folders(paths_of(settings))
        self._ready: asyncio.Future[DaemonInfo] = asyncio.get_running_loop().create_future()

    async def ready(self, keeping: asyncio.Task[None]) -> DaemonInfo:
        """Wait until somebody serves."""
        async with asyncio.timeout(OPEN_S):
            waited: set[asyncio.Future[Any]] = {self._ready, keeping}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not self._ready.done():
            keeping.result()
        return self._ready.result()

    async def keep(self) -> None:
        """Serve, or lodge, until cancelled."""
        while True:
            try:
                async with hold_daemon(
                    self._settings,
                    self._place,
                    kind=self._kind,
                    pool=self._pool,
                    wants_prefect=self._wants_prefect,
                ) as desk:
                    self._tell(desk.residence)
                    await asyncio.Event().wait()
            except DaemonTaken:
                await self._lodge()

    async def _lodge(self) -> None:
        """Use another's as long as it is there."""
        residence = daemon_files.daemon_at(self._place)
        if residence is not None:
            with suppress(DaemonError):
                async with hold_lease(residence, pipeline=f"paddock {self._kind}") as lodging:
                    if self._wants_prefect:
                        residence = residence.with_prefect(await lodging.prefect_url())
                    self._tell(residence)
                    await lodging.broken.wait()
        await asyncio.sleep(0.2)

    def _tell(self, residence: DaemonInfo) -> None:
        if not self._ready.done():
            self._ready.set_result(residence)


class DaemonTaken(Exception):
    """Another process holds the service."""


def _is_loading(pool: LocalPool) -> bool:
    return any(one.state == "loading" for one in pool.stats().resident)


@asynccontextmanager
async def hold_daemon(
    settings: Settings,
    place: DaemonPaths,
    *,
    kind: DaemonKind,
    pool: LocalPool | None = None,
    wants_prefect: bool = False,
    idle_s: float = float("inf"),
) -> AsyncIterator[DaemonState]:
    """Hold the service and answer at its door.

    Raises:
        Taken: another process holds it.
        NoResidence: the socket cannot be made.
    """
    lock = FileLock(place.lock, mode=files.PRIVATE_FILE, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise DaemonTaken from None
    async with AsyncExitStack() as stack:
        stack.callback(lock.release)
        prefect = await stack.enter_async_context(
            PrefectServer(settings.state_dir, place.folder, settings.unattended.keep_tracking_s)
        )
        url = prefect.want() if wants_prefect else ""
        if pool is None:
            pool = await stack.enter_async_context(LocalPool(settings.pool))
        if kind == "background":
            prefect.defer_while(partial(_is_loading, pool))
        residence = DaemonInfo(
            settings.state_dir, place.socket, url, own_version(), os.getpid(), kind,
            time.time(),
        )  # fmt: skip

        leases = Leases()
        mirrors = PrefectMirrors(prefect, settings.state_dir)
        stack.push_async_callback(mirrors.close)
        if wants_prefect:
            mirrors.take_kept()
        desk = DaemonState(residence, pool, prefect, leases, idle_s, mirrors)
        # Before the door opens: whoever finds it open reads who is behind it.
        daemon_files.write_record(place.record, daemon_files.record_of(residence))
        stack.callback(place.record.unlink, missing_ok=True)
        await stack.enter_async_context(_serve_socket(place, desk))
        yield desk


@asynccontextmanager
async def _serve_socket(place: DaemonPaths, desk: DaemonState) -> AsyncIterator[None]:
    """Answer at the socket until this ends; what is under way then is broken off."""
    place.socket.unlink(missing_ok=True)  # of one that was killed: we hold the lock
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        door.bind(str(place.socket))  # in a folder that only its owner can enter
        place.socket.chmod(0o600)
    except OSError as error:
        raise DaemonError(
            f"No socket can be made at {place.socket}: {error.strerror}.\n"
            "  Set PADDOCK_HOME to a folder on a local disk; `run --local` needs none."
        ) from None
    door.listen(BACKLOG)
    server = _DaemonServer(
        uvicorn.Config(
            make_daemon_app(desk), lifespan="off", log_config=None, access_log=False, ws="none",
            server_header=False, timeout_graceful_shutdown=STOP_S, backlog=BACKLOG,
            timeout_keep_alive=60,
        )
    )  # fmt: skip
    serving = asyncio.create_task(server.serve(sockets=[door]))
    try:
        yield
    finally:
        desk.ends.set()
        place.socket.unlink(missing_ok=True)
        server.should_exit = True
        await asyncio.wait({serving}, timeout=STOP_S + 2)
        door.close()


class _DaemonServer(uvicorn.Server):
    """uvicorn's server, without its handling of signals: those are the process's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield
