"""The HTTP service as one ASGI application: every route and, in order, the middleware.

Ollama's, OpenAI's and Anthropic's APIs share one port; the path tells which one a request means.
The middleware is ASGI middleware without buffering: none of it reads a whole body or holds an
answer back, so streams stay streams. Handlers live in the package of their API.
"""

from __future__ import annotations

from contextlib import suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from paddock.engine.api.access_log import access_log_writer
from paddock.engine.api.anthropic.messages import count_tokens, create_message
from paddock.engine.api.api_keys import KeyCheck, KeyRing, digest_of, read_keys
from paddock.engine.api.batches.batch_endpoints import BATCH_ROUTES
from paddock.engine.api.batches.batch_runner import BatchRunner
from paddock.engine.api.cors import AllowedOrigins, OriginCheck
from paddock.engine.api.errors import ApiError, api_error, error_response, with_error_responses
from paddock.engine.api.host_check import HostCheck
from paddock.engine.api.monitoring import monitoring_routes
from paddock.engine.api.ollama.embeddings import embed, embed_legacy
from paddock.engine.api.ollama.generation import chat, generate
from paddock.engine.api.ollama.models import (
    copy_model,
    delete_model,
    list_loaded,
    list_tags,
    show_model,
)
from paddock.engine.api.ollama.systemone import answer_questions
from paddock.engine.api.ollama.transfers import (
    create_model,
    has_blob,
    pull_model,
    push_model,
    upload_blob,
)
from paddock.engine.api.openai.embeddings import EMBEDDINGS_PATH
from paddock.engine.api.openai.endpoints import (
    GENERATION_ENDPOINTS,
    count_input_tokens,
    create_decision,
    create_embeddings,
    generation_handler,
    get_model,
    list_models,
    rerank,
)
from paddock.engine.api.openai.rerank import RERANK_PATHS
from paddock.engine.api.request_limits import BodyLimit, RateLimit
from paddock.engine.api.request_log import ExchangeRecorder, RequestLog
from paddock.engine.api.service import Service, service_of
from paddock.engine.api.streaming import json_response
from paddock.engine.settings import ServiceSettings
from paddock.engine.system.distribution import OLLAMA_API
from paddock.engine.system.files import read_text
from paddock.engine.system.key_proof import HOME_SECRET, PROOF_PATH, key_proof


def make_middleware(settings: ServiceSettings, request_log: RequestLog) -> list[Middleware]:
    """Return the middleware, the outermost first."""
    log = access_log_writer(is_json=settings.is_log_json) if settings.access_log else None
    origins = AllowedOrigins(settings.origins)
    middleware = [
        Middleware(ExchangeRecorder, request_log=request_log, on_end=log),
        Middleware(OriginCheck, origins=origins, request_log=request_log),
    ]
    if settings.is_loopback:
        middleware.append(Middleware(HostCheck, request_log=request_log))
    if settings.api_keys_file is not None:
        read_keys(settings.api_keys_file)
        ring = KeyRing(settings.api_keys_file)
        middleware.append(Middleware(KeyCheck, ring=ring, request_log=request_log))
    if (per_minute := settings.rate_per_minute) is not None:
        middleware.append(Middleware(RateLimit, per_minute=per_minute, request_log=request_log))
    limit, idle_s = settings.max_body_bytes, settings.idle_timeout_s
    middleware.append(
        Middleware(BodyLimit, max_body_bytes=limit, idle_s=idle_s, request_log=request_log)
    )
    return middleware


async def get_root(request: Request) -> Response:
    """Return the text by which clients recognise Ollama."""
    return PlainTextResponse("Ollama is running")


async def get_version(request: Request) -> Response:
    return json_response({"version": OLLAMA_API, "paddock": service_of(request).version})


async def get_key_proof(request: Request) -> Response:
    """Prove to a client that proves to know a key that this service knows it, too."""
    settings, server = service_of(request).settings, request.scope.get("server")
    digests: list[bytes] = []
    if settings.api_keys_file is not None:
        digests += KeyRing(settings.api_keys_file).digests()
    with suppress(OSError, ValueError):  # nothing of this user has asked yet
        digests.append(digest_of(read_text(settings.state_dir / HOME_SECRET).strip().encode()))
    place = (server[0], server[1]) if server and server[1] else None  # else a socket of the disk
    if place is not None and (proof := key_proof(digests, place, request.url.query)):
        return json_response(proof)
    raise ApiError(403, "that is no proof of a key that is known here")


async def get_cloud_status(request: Request) -> Response:
    return json_response({"cloud": {"disabled": True, "source": "paddock"}})


async def get_account(request: Request) -> Response:
    """Raise ApiError (401): there are no accounts."""
    raise ApiError(401, "unauthorized")


async def refuse_audio(request: Request) -> Response:
    """Raise ApiError (404): llama.cpp's readers of sound are not used."""
    why = "models here read texts and images, and answer with text"
    raise ApiError(404, f"there is no {request.url.path}: {why}")


_OLLAMA_ROUTES = (
    ("GET", "/", get_root),
    ("GET", "/api/version", get_version),
    ("GET", "/api/status", get_cloud_status),
    ("POST", "/api/me", get_account),
    ("POST", "/api/generate", generate),
    ("POST", "/api/chat", chat),
    ("POST", "/api/embed", embed),
    ("POST", "/api/embeddings", embed_legacy),
    ("POST", "/v1/systemone", answer_questions),
    ("GET", "/api/tags", list_tags),
    ("GET", "/api/ps", list_loaded),
    ("POST", "/api/show", show_model),
    ("POST", "/api/create", create_model),
    ("POST", "/api/copy", copy_model),
    ("DELETE POST", "/api/delete", delete_model),  # POST: published guides show it
    ("POST", "/api/pull", pull_model),
    ("POST", "/api/push", push_model),
    ("HEAD", "/api/blobs/{digest}", has_blob),
    ("POST", "/api/blobs/{digest}", upload_blob),
)
_OPENAI_ROUTES = (
    *(("POST", path, generation_handler(read)) for path, read in GENERATION_ENDPOINTS.items()),
    ("POST", EMBEDDINGS_PATH, create_embeddings),
    ("POST", "/v1/decisions", create_decision),
    *(("POST", path, rerank) for path in RERANK_PATHS),
    ("POST", "/v1/responses/input_tokens", count_input_tokens),
    ("GET", "/v1/models", list_models),
    ("GET", "/v1/models/{name:path}", get_model),
    *BATCH_ROUTES,
    ("POST", "/v1/audio/{what}", refuse_audio),
)
_ANTHROPIC_ROUTES = (
    ("POST", "/v1/messages", create_message),
    ("POST", "/v1/messages/count_tokens", count_tokens),
)


def make_app(service: Service) -> Starlette:
    """Return the application of a service.

    Raises:
        InvalidKeyFile: the file of API keys cannot be used.
    """
    below_v1 = (*_OPENAI_ROUTES, *_ANTHROPIC_ROUTES)
    # Some clients are given the address without it.
    bare = [(verbs, path.removeprefix("/v1"), handler) for verbs, path, handler in below_v1]
    own = [
        Route(path, with_error_responses(handler), methods=verbs.split())
        for verbs, path, handler in (*_OLLAMA_ROUTES, *below_v1, *bare)
    ]
    app = Starlette(
        routes=[
            *own,
            Route(PROOF_PATH, with_error_responses(get_key_proof)),
            *monitoring_routes(),
            *service.extra_routes,
        ],
        middleware=make_middleware(service.settings, service.request_log),
        exception_handlers={
            404: _not_found,
            405: _method_not_allowed,
            Exception: _unexpected_error,
        },
    )
    app.state.service = service
    app.state.batches = BatchRunner(service)
    return app


async def _not_found(request: Request, error: Exception) -> Response:
    if request.url.path.startswith("/v1/"):
        why = f"there is no {request.method} {request.url.path[:200]} here"
        return error_response(request.url.path, ApiError(404, why, code="unknown_url"))
    return PlainTextResponse("404 page not found", 404)


async def _method_not_allowed(request: Request, error: Exception) -> Response:
    headers = error.headers if isinstance(error, HTTPException) else None
    return PlainTextResponse("405 method not allowed", 405, headers)


async def _unexpected_error(request: Request, error: Exception) -> Response:
    return error_response(request.url.path, api_error(error))
