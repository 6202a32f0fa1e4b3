"""Entry point of Prefect's server process: Prefect's own application, which ends with its parent.

Started as `python -m paddock.runner.daemon.prefect_process DESCRIPTOR`, with its settings in the
environment. The descriptor is a listening socket that the parent keeps: while the server restarts,
no other user can listen at its port. Its standard input stays open as long as the parent lives.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading

import uvicorn
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paddock.engine.api.connection_deadlines import deadline_protocol
from paddock.engine.system.http import QuietServer

HEADER_S = 20.0
"""How long a request's headers may take; silent connections do not shut out others."""
_DOCUMENTATION = frozenset({"docs", "redoc", "openapi.json"})
_ONLY_FROM_HERE = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self'"
    " 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:"
)
"""Prefect's page asks an analytics service for its settings, whatever the server's own say."""


def main(listener: socket.socket) -> None:
    """Serve until the parent is gone or a signal ends it."""
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    gc.disable()  # looking through what is imported took a fifth of a start
    from prefect.server.api.server import create_app

    config = uvicorn.Config(
        OwnPagesOnly(create_app(final=True)),
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
    pass


class OwnPagesOnly:
    """Keep Prefect's page from asking elsewhere; serve no documentation, which needs no password.

    All else asks for the password, web sockets too (Prefect's `PREFECT_SERVER_API_AUTH_STRING`),
    which no page of another origin or host name has.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["content-security-policy"] = _ONLY_FROM_HERE
            await send(message)

        names = scope.get("path", "").lower().rstrip("/").split("/")
        is_shown = scope["type"] != "http" or _DOCUMENTATION.isdisjoint(names)
        app = self._app if is_shown else PlainTextResponse("Not found", 404)
        await app(scope, receive, send_with_policy)


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
