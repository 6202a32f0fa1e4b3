"""The HTTP service as one ASGI application: every closet's routes, behind the same doors.

Knows no handler's work. Ollama's API, OpenAI's and Anthropic's lie beside one another; which one a
request means, its path says.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from paddock.engine.api import security, watched
from paddock.engine.api.anthropic import routes as anthropic
from paddock.engine.api.errors import api_error, error_response
from paddock.engine.api.ollama import routes as ollama
from paddock.engine.api.openai import routes as openai
from paddock.engine.api.openai.batch.keeper import companions
from paddock.engine.api.service import Service


def make_app(service: Service) -> Starlette:
    """Put the service together.

    Raises:
        KeysBroken: the file of API keys cannot be used.
    """
    own = (*ollama.routes(), *openai.routes(), *anthropic.routes(), *watched.routes())
    app = Starlette(
        routes=[*own, *service.doors],
        middleware=security.middleware(service.settings, service.journal),
        exception_handlers={404: _not_found, 405: _wrong_method, Exception: _unforeseen},
    )
    app.state.service = service
    app.state.companions = companions(service)
    return app


async def _not_found(request: Request, error: Exception) -> Response:
    return PlainTextResponse("404 page not found", 404)


async def _wrong_method(request: Request, error: Exception) -> Response:
    headers = error.headers if isinstance(error, HTTPException) else None
    return PlainTextResponse("405 method not allowed", 405, headers)


async def _unforeseen(request: Request, error: Exception) -> Response:
    return error_response(request.url.path, api_error(error))
