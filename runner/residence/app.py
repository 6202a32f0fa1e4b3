"""What the local service answers over its socket: the pool's routes, Ollama's API, and its own.

Whoever can open the socket is its owner: nothing more is asked of them.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from paddock.engine.api.errors import ApiError
from paddock.engine.api.streaming import stream
from paddock.engine.pool import LocalPool
from paddock.engine.remote import wire
from paddock.engine.remote.door import routes as pool_routes

from .control import PREFIX
from .leases import Leases
from .mirror import Mirrors
from .prefect_server import PrefectServer
from .record import Residence

API = "/api/"
BEAT_S = 5.0
WAIT_S = 150.0
"""The longest that somebody is let wait for Prefect."""


@dataclass
class Desk:
    """What the routes work with."""

    residence: Residence
    pool: LocalPool
    prefect: PrefectServer
    leases: Leases
    idle_s: float
    mirrors: Mirrors
    ends: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is asked to end."""

    def told(self) -> dict[str, Any]:
        """Say how it is."""
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


def make_app(desk: Desk) -> ASGIApp:
    """Put the routes together."""
    own: Mapping[str, tuple[str, Callable[[Request], Awaitable[Response]]]] = {
        "": ("GET", _told),
        "/prefect": ("POST", _prefect),
        "/lease": ("POST", _lease),
        "/mirror": ("POST", _mirror),
        "/retire": ("POST", _retire),
        "/rest": ("POST", _rest),
        "/stop": ("POST", _stop),
    }
    routes = [Route(PREFIX + path, act, methods=[method]) for path, (method, act) in own.items()]
    app = Starlette(routes=[*routes, *pool_routes(desk.pool)])
    app.state.desk = desk
    return _Doors(app, _Api(desk), desk.leases)


def _desk(request: Request) -> Desk:
    desk = request.app.state.desk
    assert isinstance(desk, Desk)
    return desk


async def _told(request: Request) -> Response:
    return JSONResponse(_desk(request).told())


async def _prefect(request: Request) -> Response:
    """Have Prefect started, and wait for it as long as is wished."""
    within_s = min(WAIT_S, float((await _body(request)).get("within_s", 0.0)))
    server = _desk(request).prefect
    server.want()
    _desk(request).mirrors.take_kept()
    told = await server.ready(within_s) if within_s > 0 else server.told
    return JSONResponse(told.as_json())


async def _lease(request: Request) -> Response:
    """Hold the service as long as the connection stays; a broken one may be a crashed run's."""
    body, desk = await _body(request), _desk(request)

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

    return await stream(request, beats(), wire.MEDIA_TYPE, _nothing)


async def _mirror(request: Request) -> Response:
    """Take how a run goes, to be shown in Prefect."""
    desk, body = _desk(request), await _body(request)
    return JSONResponse({"is_new": desk.mirrors.take(body)})


async def _retire(request: Request) -> Response:
    """Make room for another version: end when nobody needs this one any more."""
    desk = _desk(request)
    if desk.residence.kind != "background":
        words = f"`paddock {desk.residence.kind}` (process {desk.residence.pid}) holds it."
        return JSONResponse({"error": words}, 409)
    desk.leases.is_retired = True
    return JSONResponse({"leases": len(desk.leases.held)})


async def _rest(request: Request) -> Response:
    """Let every model go that nobody uses."""
    pool = _desk(request).pool
    idle = [one.name for one in pool.stats().resident if not one.n_users and not one.n_waiting]
    gone = [name for name in idle if await pool.unload(name)]
    return JSONResponse({"unloaded": gone})


async def _stop(request: Request) -> Response:
    desk = _desk(request)
    if desk.residence.kind != "background":
        words = (
            f"`paddock {desk.residence.kind}` (process {desk.residence.pid}) holds it; end that."
        )
        return JSONResponse({"error": words}, 409)
    desk.ends.set()
    return JSONResponse({"leases": len(desk.leases.held)})


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError:
        body = {}
    return body if isinstance(body, dict) else {}


def _nothing(error: ApiError) -> bytes:
    return b""


class _Api:
    """Ollama's API for `paddock chat`, `embed`, `ps` and `stop`.

    Made when it is first asked: its modules take 0.6 s to import, and runs need none of them.
    """

    def __init__(self, desk: Desk) -> None:
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
        from paddock.engine.settings import ServiceSettings
        from paddock.engine.store.layout import Store

        pool = self._desk.pool
        store = Store(pool.settings.models_dir)
        settings, version = ServiceSettings(), self._desk.residence.version
        return app.make_app(Service(pool, store, pool.models, settings, version, takes_paths=True))


class _Doors:
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
        if only_looks or not path.startswith((wire.PREFIX, API)):
            return await app(scope, receive, send)
        with self._leases.request():
            await app(scope, receive, send)
