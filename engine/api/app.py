"""The HTTP service as one ASGI application: every closet's routes, behind the same doors.

Knows no handler's work. Ollama's API, OpenAI's and Anthropic's lie beside one another; which one a
request means, its path says.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import api_error, error_response
from .service import Served, Service, note_of

# Each has `routes() -> list[BaseRoute]`.
ROUTES = (
    "paddock.engine.api.ollama.routes",
    "paddock.engine.api.openai.routes",
    "paddock.engine.api.anthropic.routes",
    "paddock.engine.api.watched",
)
SECURITY = "paddock.engine.api.security"  # has `middleware(settings) -> list[Middleware]`


def make_app(service: Service) -> Starlette:
    """Put the service together."""
    app = Starlette(
        routes=list(_routes()),
        middleware=[Middleware(_Recording, service=service), *_doors(service)],
        exception_handlers={404: _not_found, 405: _wrong_method, Exception: _unforeseen},
    )
    app.state.service = service
    return app


def _routes() -> Iterable[BaseRoute]:
    for name in ROUTES:
        if importlib.util.find_spec(name) is not None:
            yield from importlib.import_module(name).routes()


def _doors(service: Service) -> list[Middleware]:
    if importlib.util.find_spec(SECURITY) is None:
        return []
    doors: list[Middleware] = importlib.import_module(SECURITY).middleware(service.settings)
    return doors


async def _not_found(request: Request, error: Exception) -> Response:
    return PlainTextResponse("404 page not found", 404)


async def _wrong_method(request: Request, error: Exception) -> Response:
    headers = error.headers if isinstance(error, HTTPException) else None
    return PlainTextResponse("405 method not allowed", 405, headers)


async def _unforeseen(request: Request, error: Exception) -> Response:
    return error_response(request.url.path, api_error(error))


class _Recording:
    """Remembers each request when it has ended; nothing of what was said in it."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        note = note_of(scope)
        at, began, status = time.time(), time.monotonic(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            client = scope["client"][0] if scope.get("client") else ""
            seconds = time.monotonic() - began
            self._service.log.append(
                Served(at, scope["method"], scope["path"], status, seconds, client, note)
            )
