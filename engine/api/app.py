"""The HTTP service as one ASGI application: every route and, in order, the middleware.

Ollama's, OpenAI's and Anthropic's APIs share one port; the path tells which one a request means.
The middleware is ASGI middleware without buffering: none of it reads a whole body or holds an
answer back, so streams stay streams. Handlers live in the package of their API.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from paddock.engine.api import monitoring, request_log
from paddock.engine.api.anthropic.messages import count_tokens, create_message
from paddock.engine.api.api_keys import KeyCheck, KeyRing, read_keys
from paddock.engine.api.cors import AllowedOrigins, HostCheck, OriginCheck
from paddock.engine.api.errors import (
    ApiError,
    Handler,
    api_error,
    error_response,
    with_error_responses,
)
from paddock.engine.api.ollama.embeddings import embed, embed_legacy
from paddock.engine.api.ollama.generation import chat, generate
from paddock.engine.api.ollama.models import (
    copy_model,
    delete_model,
    list_loaded,
    list_tags,
    show_model,
)
from paddock.engine.api.ollama.transfers import (
    create_model,
    has_blob,
    pull_model,
    push_model,
    upload_blob,
)
from paddock.engine.api.openai import batch_endpoints, endpoints
from paddock.engine.api.openai.batch_runner import background_services
from paddock.engine.api.openai.embed_and_rerank import RERANK_PATHS
from paddock.engine.api.openai.endpoints import (
    EMBEDDINGS_PATH,
    GENERATION_ENDPOINTS,
    create_embeddings,
    generation_handler,
    rerank,
)
from paddock.engine.api.request_limits import BodyLimit, RateLimit
from paddock.engine.api.request_log import ExchangeRecorder, RequestLog
from paddock.engine.api.service import Service, service_of
from paddock.engine.api.streaming import json_response
from paddock.engine.settings import ServiceSettings
from paddock.engine.system.distribution import OLLAMA_API


def make_middleware(settings: ServiceSettings, journal: RequestLog) -> list[Middleware]:
    """Return the doors, the outermost first.

    Raises:
        KeysBroken: the file of API keys cannot be used.
    """
    written = (
        request_log.access_log_writer(is_json=settings.is_log_json) if settings.access_log else None
    )
    doors = [
        Middleware(ExchangeRecorder, journal=journal, written=written),
        Middleware(OriginCheck, origins=AllowedOrigins(settings.origins), journal=journal),
    ]
    if settings.is_loopback:
        doors.append(Middleware(HostCheck, journal=journal))
    if settings.api_keys_file is not None:
        read_keys(settings.api_keys_file)
        ring = KeyRing(settings.api_keys_file)
        doors.append(Middleware(KeyCheck, ring=ring, journal=journal))
    if settings.rate_per_minute is not None:
        per_minute = settings.rate_per_minute
        doors.append(Middleware(RateLimit, per_minute=per_minute, journal=journal))
    limit, idle_s = settings.max_body_bytes, settings.idle_timeout_s
    doors.append(Middleware(BodyLimit, max_body_bytes=limit, idle_s=idle_s, journal=journal))
    return doors


def ollama_routes() -> list[BaseRoute]:
    """Return every route of this dialect."""
    table = (
        ("/", ("GET",), get_root),
        ("/api/version", ("GET",), get_version),
        ("/api/status", ("GET",), get_cloud_status),
        ("/api/me", ("POST",), get_account),
        ("/api/generate", ("POST",), generate),
        ("/api/chat", ("POST",), chat),
        ("/api/embed", ("POST",), embed),
        ("/api/embeddings", ("POST",), embed_legacy),
        ("/api/tags", ("GET",), list_tags),
        ("/api/ps", ("GET",), list_loaded),
        ("/api/show", ("POST",), show_model),
        ("/api/create", ("POST",), create_model),
        ("/api/copy", ("POST",), copy_model),
        ("/api/delete", ("DELETE", "POST"), delete_model),  # POST: published guides show it
        ("/api/pull", ("POST",), pull_model),
        ("/api/push", ("POST",), push_model),
        ("/api/blobs/{digest}", ("HEAD",), has_blob),
        ("/api/blobs/{digest}", ("POST",), upload_blob),
    )
    return [
        Route(path, with_error_responses(handler), methods=methods)
        for path, methods, handler in table
    ]


async def get_root(request: Request) -> Response:
    """Say that somebody is there; clients look for these very words."""
    return PlainTextResponse("Ollama is running")


async def get_version(request: Request) -> Response:
    """Return the version of Ollama's API that is implemented, and Paddock's own."""
    return json_response({"version": OLLAMA_API, "paddock": service_of(request).version})


async def get_cloud_status(request: Request) -> Response:
    """Tell that there is no cloud behind this service."""
    return json_response({"cloud": {"disabled": True, "source": "paddock"}})


async def get_account(request: Request) -> Response:
    """Tell that nobody is signed in anywhere."""
    raise ApiError(401, "unauthorized")


def anthropic_routes() -> list[BaseRoute]:
    """Return every route of this dialect."""
    return [
        Route("/v1/messages", with_error_responses(create_message), methods=["POST"]),
        Route("/v1/messages/count_tokens", with_error_responses(count_tokens), methods=["POST"]),
    ]


def openai_routes() -> list[BaseRoute]:
    """Return every route of this dialect."""
    table: list[tuple[str, str, Handler]] = [
        *(("POST", path, generation_handler(read)) for path, read in GENERATION_ENDPOINTS.items()),
        ("POST", EMBEDDINGS_PATH, create_embeddings),
        *(("POST", path, rerank) for path in RERANK_PATHS),
        ("GET", "/v1/models", endpoints.list_models),
        ("GET", "/v1/models/{name:path}", endpoints.get_model),
        ("POST", "/v1/files", batch_endpoints.upload_file),
        ("GET", "/v1/files", batch_endpoints.list_files),
        ("GET", "/v1/files/{file_id}", batch_endpoints.get_file),
        ("DELETE", "/v1/files/{file_id}", batch_endpoints.delete_file),
        ("GET", "/v1/files/{file_id}/content", batch_endpoints.download_file),
        ("POST", "/v1/batches", batch_endpoints.create_batch),
        ("GET", "/v1/batches", batch_endpoints.list_batches),
        ("GET", "/v1/batches/{batch_id}", batch_endpoints.get_batch),
        ("POST", "/v1/batches/{batch_id}/cancel", batch_endpoints.cancel_batch),
    ]
    return [
        Route(path, with_error_responses(handler), methods=[verb]) for verb, path, handler in table
    ]


def make_app(service: Service) -> Starlette:
    """Put the service together.

    Raises:
        KeysBroken: the file of API keys cannot be used.
    """
    own = (*ollama_routes(), *openai_routes(), *anthropic_routes(), *monitoring.monitoring_routes())
    app = Starlette(
        routes=[*own, *service.doors],
        middleware=make_middleware(service.settings, service.journal),
        exception_handlers={
            404: _not_found,
            405: _method_not_allowed,
            Exception: _unexpected_error,
        },
    )
    app.state.service = service
    app.state.companions = background_services(service)
    return app


async def _not_found(request: Request, error: Exception) -> Response:
    return PlainTextResponse("404 page not found", 404)


async def _method_not_allowed(request: Request, error: Exception) -> Response:
    headers = error.headers if isinstance(error, HTTPException) else None
    return PlainTextResponse("405 method not allowed", 405, headers)


async def _unexpected_error(request: Request, error: Exception) -> Response:
    return error_response(request.url.path, api_error(error))
