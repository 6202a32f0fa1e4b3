"""Ollama's API: which handler answers which path. Knows nothing of their work."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from paddock.engine.api.errors import ApiError, guarded
from paddock.engine.api.service import service_of
from paddock.engine.api.streaming import json_response
from paddock.engine.system.distribution import OLLAMA_API

from .blobs import head_blob, post_blob
from .chat import chat
from .create import create
from .embed import embed, embeddings
from .generate import generate
from .models import copy, delete, show, tags
from .resident import ps
from .transfers import pull, push


def routes() -> list[BaseRoute]:
    """Give every route of this dialect."""
    table = (
        ("/", ("GET",), root),
        ("/api/version", ("GET",), version),
        ("/api/status", ("GET",), status),
        ("/api/me", ("POST",), me),
        ("/api/generate", ("POST",), generate),
        ("/api/chat", ("POST",), chat),
        ("/api/embed", ("POST",), embed),
        ("/api/embeddings", ("POST",), embeddings),
        ("/api/tags", ("GET",), tags),
        ("/api/ps", ("GET",), ps),
        ("/api/show", ("POST",), show),
        ("/api/create", ("POST",), create),
        ("/api/copy", ("POST",), copy),
        ("/api/delete", ("DELETE", "POST"), delete),  # POST: published guides show it
        ("/api/pull", ("POST",), pull),
        ("/api/push", ("POST",), push),
        ("/api/blobs/{digest}", ("HEAD",), head_blob),
        ("/api/blobs/{digest}", ("POST",), post_blob),
    )
    return [Route(path, guarded(handler), methods=methods) for path, methods, handler in table]


async def root(request: Request) -> Response:
    """Say that somebody is there; clients look for these very words."""
    return PlainTextResponse("Ollama is running")


async def version(request: Request) -> Response:
    """Return the version of Ollama's API that is implemented, and Paddock's own."""
    return json_response({"version": OLLAMA_API, "paddock": service_of(request).version})


async def status(request: Request) -> Response:
    """Tell that there is no cloud behind this service."""
    return json_response({"cloud": {"disabled": True, "source": "paddock"}})


async def me(request: Request) -> Response:
    """Tell that nobody is signed in anywhere."""
    raise ApiError(401, "unauthorized")
