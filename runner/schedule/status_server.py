"""HTTP server of `paddock up`: `/healthz`, `/readyz`, `/status` and the webhooks.

Knows no Prefect and no pipeline. `/healthz` answers while the process lives, `/readyz` whether it
can take work, `/status` shows everything to permitted clients.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from paddock.engine.api.api_keys import KeyRing, given_keys, read_keys
from paddock.engine.api.cors import has_own_host_name

RequestHandler = Callable[[Request], Awaitable[Response]]


def make_status_app(
    ready: Callable[[], Mapping[str, bool]],
    status: Callable[[], Mapping[str, Any]],
    hooks: RequestHandler,
    reader: StatusAccess | None = None,
    more: Sequence[BaseRoute] = (),
) -> Starlette:
    """Return the application; paths that are not its own or `more` may be webhooks.

    `reader` decides who may read `/status`, which names folders, documents and faults.
    """
    reader = reader or StatusAccess()

    async def healthz(request: Request) -> Response:
        return JSONResponse({"ok": True})

    async def readyz(request: Request) -> Response:
        parts = ready()
        is_ready = all(parts.values())
        return JSONResponse({"ready": is_ready, **parts}, 200 if is_ready else 503)

    async def told(request: Request) -> Response:
        if (refusal := reader.refusal(request)) is not None:
            return refusal
        return JSONResponse(dict(status()))

    get = ["GET", "HEAD"]
    return Starlette(
        routes=[
            Route("/healthz", healthz, methods=get),
            Route("/readyz", readyz, methods=get),
            Route("/status", told, methods=get),
            *more,
            Route("/{rest:path}", hooks, methods=["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]),
        ]
    )


class StatusAccess:
    """Decides who may read `/status`.

    On an address of this machine only, every request with its name as host; on an address that
    other machines reach, requests with one of the service's API keys.
    """

    def __init__(self, *, is_open: bool = False, keys: Path | None = None) -> None:
        """`is_open`: other machines reach the address. `keys`: the file of API keys.

        Raises:
            KeysBroken: the file cannot be used.
        """
        self._needs_key = is_open
        self._ring = None
        if is_open and keys is not None:
            read_keys(keys)
            self._ring = KeyRing(keys)

    def refusal(self, request: Request) -> Response | None:
        """Return the refusal of a request; None when it may read."""
        if not has_own_host_name(request.headers):
            return JSONResponse({"error": "use 'localhost' or this machine's address."}, 403)
        if not self._needs_key:
            return None
        if self._ring is None:
            words = "other machines reach this address: set `api_keys` to a file of keys."
            return JSONResponse({"error": words}, 403)
        if any(self._ring.find(key) for key in given_keys(request.headers)):
            return None
        words = "an API key is needed: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'."
        return JSONResponse({"error": words}, 401, {"WWW-Authenticate": 'Bearer realm="paddock"'})
