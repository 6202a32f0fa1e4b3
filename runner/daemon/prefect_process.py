"""Entry point of Prefect's server process: Prefect's own application, which ends with its parent.

Started as `python -m paddock.runner.daemon.prefect_process DESCRIPTOR`, with its settings in the
environment. The descriptor is a listening socket that the parent keeps: while the server restarts,
no other user can listen at its port. Its standard input stays open as long as the parent lives.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import hmac
import json
import os
import signal
import socket
import sys
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.datastructures import Headers, MutableHeaders

from paddock.engine.api.connection_deadlines import deadline_protocol
from paddock.engine.api.host_check import is_own_host
from paddock.engine.system import hardware
from paddock.engine.system.http import QuietServer

from .prefect_auth import SERVER_VARIABLE, basic_auth_headers

if TYPE_CHECKING:
    from docket import Docket, Worker
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


UNAUTHORIZED = 401
HEADER_S = 20.0
"""How long a request's headers may take; silent connections do not shut out others."""
_AT_REST_S = 5.0  # after its start: its first jobs are done
_DOCUMENTATION = frozenset({"docs", "redoc", "openapi.json"})
_ONLY_FROM_HERE = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self'"
    " 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:"
)
"""Prefect's page asks an analytics service for its settings, whatever the server's own say."""


def import_server() -> Any:
    """Return Prefect's module of its application."""
    from prefect.server.api import background_workers, server

    return background_workers, server


def main(listener: socket.socket) -> None:
    """Serve until the parent is gone or a signal ends it."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(-8, 1)  # M_ARENA_MAX: glibc's further heaps, one a thread, took 15 MB
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    gc.disable()  # looking through what is imported took a fifth of a start
    jobs, server = import_server()
    jobs.Worker = _quiet_worker(jobs.Worker)
    auth_string = os.environ.get(SERVER_VARIABLE, "")
    config = uvicorn.Config(
        SameOriginOnly(server.create_app(final=True), listener.getsockname()[1], auth_string),
        http=deadline_protocol(header_s=HEADER_S, idle_s=0),
        proxy_headers=False,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=3,
        server_header=False,
    )
    gc.freeze()
    gc.enable()
    _Server(config).run(sockets=[listener])


class _Server(QuietServer, uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().call_later(_AT_REST_S, hardware.give_back_memory)


JOBS_POLL_S = 2.0
"""How often Prefect's own jobs look for what is due, vacuum and late runs. New ones begin at once;
fourteen looks a second, as by default, took 1.2 % of a core where nothing went on."""


def _quiet_worker(worker: Any) -> type[Worker]:
    """Return the class of what carries out Prefect's own jobs, such that it is idle without any."""

    class QuietWorker(worker):  # type: ignore[misc]
        def __init__(self, docket: Docket) -> None:
            poll = timedelta(seconds=JOBS_POLL_S)
            super().__init__(docket, minimum_check_interval=poll, scheduling_resolution=poll)

        async def _cancellation_listener(self) -> None:
            """Wait for the end: Prefect cancels none of its jobs, and listening is polling."""
            session = self._processing_session
            if session is not None:
                session.cancellation_ready.set()
                await session.stopping.wait()

    return QuietWorker


class SameOriginOnly:
    """Answer 403 to requests with a foreign Host header, and to pages of other origins.

    The first come from a page whose name resolves to this machine (DNS rebinding), the second from
    a page that posts to this port. Covers web sockets too, which no CORS rule does. Its own
    pages ask nothing elsewhere.
    """

    def __init__(self, app: ASGIApp, port: int, auth_string: str = "") -> None:
        """`auth_string`: what pages need that Prefect itself shows to every user of the machine."""
        self._app = app
        self._password = basic_auth_headers(auth_string)["Authorization"] if auth_string else ""
        self._own_name = socket.gethostname().lower()
        self._origins = {f"http://{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            host, origin = headers.get("host", ""), headers.get("origin", "")
            if not is_own_host(host, self._own_name, lambda _: True):
                return await _refuse(
                    scope, send, f"host {host[:200]!r} is not a name of this machine"
                )
            if origin and origin != f"http://{host}" and origin not in self._origins:
                return await _refuse(scope, send, f"pages of {origin[:200]!r} may not ask")
            # FastAPI's pages about an API, at whatever place it is mounted
            names = scope.get("path", "").lower().rstrip("/").split("/")
            if self._password and not _DOCUMENTATION.isdisjoint(names):
                given = headers.get("authorization", "")
                if not hmac.compare_digest(given.encode(), self._password.encode()):
                    return await _refuse(scope, send, "its documentation needs the password", 401)

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["content-security-policy"] = _ONLY_FROM_HERE
            await send(message)

        await self._app(scope, receive, send_with_policy)


async def _refuse(scope: Scope, send: Send, message: str, status: int = 403) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403
        return
    headers = [(b"content-type", b"application/json")]
    if status == UNAUTHORIZED:
        headers.append((b"www-authenticate", b'Basic realm="Prefect"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    body = json.dumps({"exception_message": message}).encode()
    await send({"type": "http.response.body", "body": body})


def _end_with_parent() -> None:
    """Wait until standard input is closed, however the parent ended; then end this process."""
    while os.read(0, 1):  # not `sys.stdin`: this thread would hold its lock at exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    # Its services may hang in a query; do not wait for them.
    threading.Event().wait(5)
    os._exit(1)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
