"""The address of `paddock up`: how it is, and the webhooks. Knows no Prefect and no pipeline.

`/healthz` says that the process lives, `/readyz` whether it can take work, `/status` all it knows.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from paddock.engine.api.hosts import is_own

STOP_S = 3
Answer = Callable[[Request], Awaitable[Response]]


def make_app(
    ready: Callable[[], Mapping[str, bool]], status: Callable[[], Mapping[str, Any]], hooks: Answer
) -> Starlette:
    """Put the routes together; what is none of them may be a webhook."""

    async def healthz(request: Request) -> Response:
        return JSONResponse({"ok": True})

    async def readyz(request: Request) -> Response:
        parts = ready()
        return JSONResponse({"ready": all(parts.values()), **parts},
                            200 if all(parts.values()) else 503)  # fmt: skip

    async def told(request: Request) -> Response:
        if not is_asked_by_own_name(request):
            return JSONResponse({"error": "ask by 'localhost' or by this machine's address."}, 403)
        return JSONResponse(dict(status()))

    get = ["GET", "HEAD"]
    return Starlette(
        routes=[
            Route("/healthz", healthz, methods=get),
            Route("/readyz", readyz, methods=get),
            Route("/status", told, methods=get),
            Route("/{rest:path}", hooks, methods=["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]),
        ]
    )


def is_asked_by_own_name(request: Request) -> bool:
    """Tell whether a call names this machine: a page of another name does not (DNS rebinding)."""
    return is_own(request.headers.get("host", ""), socket.gethostname().lower(), _is_near)


def _is_near(address: object) -> bool:
    return True  # whoever asks by a number is no page under a stranger's name


@asynccontextmanager
async def serving(app: Starlette, door: socket.socket) -> AsyncIterator[None]:
    """Answer at this socket for as long as this lasts."""
    server = _Server(
        uvicorn.Config(
            app, lifespan="off", log_config=None, access_log=False, ws="none", server_header=False,
            timeout_graceful_shutdown=STOP_S, timeout_keep_alive=15, limit_concurrency=256,
            h11_max_incomplete_event_size=64 * 1024, proxy_headers=False,
        )
    )  # fmt: skip
    task = asyncio.create_task(server.serve(sockets=[door]))
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.wait({task}, timeout=STOP_S + 1)


class _Server(uvicorn.Server):
    """uvicorn's server, without its handling of signals: those are the process's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield
