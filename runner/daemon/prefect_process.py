"""Entry point of Prefect's server process: Prefect's own application, which ends with its parent.

Started as `python -m paddock.runner.daemon.prefect_process DESCRIPTOR`, with its settings in the
environment. The descriptor is a listening socket that the parent keeps: while the server restarts,
no other user can listen at its port. Its standard input stays open as long as the parent lives.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

import uvicorn
from starlette.datastructures import Headers

from paddock.engine.api.cors import is_own_host

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


def main() -> None:
    """Serve until the parent is gone or a signal ends it."""
    door = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    from prefect.server.api.server import create_app

    config = uvicorn.Config(
        SameOriginOnly(create_app(final=True), door.getsockname()[1]),
        log_level="warning",
        access_log=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=3,
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[door])


class SameOriginOnly:
    """Answer 403 to requests with a foreign Host header, and to pages of other origins.

    The first come from a page whose name resolves to this machine (DNS rebinding), the second from
    a page that posts to this port. Covers web sockets too, which no CORS rule does.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self._app = app
        self._own_name = socket.gethostname().lower()
        self._origins = {f"http://{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            host, origin = headers.get("host", ""), headers.get("origin", "")
            if not is_own_host(host, self._own_name, lambda _: True):
                return await _refuse(
                    scope, send, f"host {host[:200]!r} is not a name of this machine"
                )
            if origin and origin != f"http://{host}" and origin not in self._origins:
                return await _refuse(scope, send, f"pages of {origin[:200]!r} may not ask")
        await self._app(scope, receive, send)


async def _refuse(scope: Scope, send: Send, message: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403
        return
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
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
    main()
