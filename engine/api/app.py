"""The HTTP service as one ASGI application: every closet's routes, behind the same doors.

Knows no handler's work. Ollama's API, OpenAI's and Anthropic's lie beside one another; which one a
request means, its path says.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute

from .errors import api_error, error_response
from .service import Service

# Each has `routes() -> list[BaseRoute]`.
ROUTES = (
    "paddock.engine.api.ollama.routes",
    "paddock.engine.api.openai.routes",
    "paddock.engine.api.anthropic.routes",
    "paddock.engine.api.watched",
)
COMPANIONS = ("paddock.engine.api.openai.batch.keeper",)  # has `companions(service)`
SECURITY = "paddock.engine.api.security"  # has `middleware(settings, journal)`


def make_app(service: Service) -> Starlette:
    """Put the service together."""
    app = Starlette(
        routes=list(_routes()),
        middleware=_doors(service),
        exception_handlers={404: _not_found, 405: _wrong_method, Exception: _unforeseen},
    )
    app.state.service = service
    app.state.companions = [
        one for name in COMPANIONS for one in importlib.import_module(name).companions(service)
    ]
    return app


def _routes() -> Iterable[BaseRoute]:
    for name in ROUTES:
        if importlib.util.find_spec(name) is not None:
            yield from importlib.import_module(name).routes()


def _doors(service: Service) -> list[Middleware]:
    if importlib.util.find_spec(SECURITY) is None:
        return []
    security = importlib.import_module(SECURITY)
    doors: list[Middleware] = security.middleware(service.settings, service.journal)
    return doors


async def _not_found(request: Request, error: Exception) -> Response:
    return PlainTextResponse("404 page not found", 404)


async def _wrong_method(request: Request, error: Exception) -> Response:
    headers = error.headers if isinstance(error, HTTPException) else None
    return PlainTextResponse("405 method not allowed", 405, headers)


async def _unforeseen(request: Request, error: Exception) -> Response:
    return error_response(request.url.path, api_error(error))
