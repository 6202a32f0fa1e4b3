"""OpenAI's endpoints that ask a model: from a request to its response.

The same functions answer the lines of a batch (`line_answer`): what a body means is decided in one
place, whoever brings it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.journal import note_model
from paddock.engine.api.service import Service, priority_of, service_of
from paddock.engine.api.streaming import json_response, sse, while_connected
from paddock.engine.pool import LocalPool

from .bodies import read_fields
from .calls import Call, Caller
from .chat import read_chat
from .completions import read_completion
from .embeddings import embedded, embedding_body, read_embedding
from .fields import Fields
from .generation import CUT, Talk, answered
from .refusals import in_openais_words
from .reranking import read_rerank, rerank_body, reranked
from .responses import read_response

_T = TypeVar("_T")
Read = Callable[[Fields, Caller], Call]

GENERATING: Mapping[str, Read] = {
    "/v1/chat/completions": read_chat,
    "/v1/completions": read_completion,
    "/v1/responses": read_response,
}
EMBEDDINGS = "/v1/embeddings"
ENDPOINTS = (*GENERATING, EMBEDDINGS)
"""What a line of a batch may be for."""


def generating(read: Read) -> Callable[[Request], Awaitable[Response]]:
    """Make the handler of an endpoint whose calls are read by `read`."""

    async def handler(request: Request) -> Response:
        service, caller, body = await _received(request)
        call = _read(read, body, caller)
        if call.streams:
            talk = Talk(service.pool, call, caller)
            return await sse(request, talk.events(), talk.fail, talk.headers)
        value, replies = await while_connected(request, answered(service.pool, call, caller))
        is_cut = any(one.prompt_tokens_original is not None for one in replies)
        with in_openais_words():
            return json_response(value, headers={"Warning": CUT} if is_cut else None)

    return handler


async def embeddings(request: Request) -> Response:
    """Answer with vectors."""
    service, caller, body = await _received(request)
    call = _read(read_embedding, body, caller)
    reply = await while_connected(request, embedded(service.pool, call, caller))
    written = await asyncio.to_thread(embedding_body, call, reply)
    headers = {"Warning": CUT} if any(reply.n_cut_tokens) else None
    return Response(written, 200, headers, "application/json; charset=utf-8")


async def rerank(request: Request) -> Response:
    """Answer with the documents that fit a query best."""
    service, caller, body = await _received(request)
    call = _read(read_rerank, body, caller)
    reply = await while_connected(request, reranked(service.pool, call, caller))
    return json_response(rerank_body(call, reply))


async def line_answer(
    pool: LocalPool, url: str, fields: Mapping[str, Any], caller: Caller
) -> dict[str, Any]:
    """Answer one body as its endpoint would, as a whole.

    Raises:
        ApiError: what the endpoint would answer instead.
    """
    body = Fields({**fields, "stream": False})
    if url == EMBEDDINGS:
        call = _read(read_embedding, body, caller)
        reply = await embedded(pool, call, caller)
        value = await asyncio.to_thread(lambda: json.loads(embedding_body(call, reply)))
        return dict(value)
    value, _ = await answered(pool, _read(GENERATING[url], body, caller), caller)
    return value


async def _received(request: Request) -> tuple[Service, Caller, Fields]:
    """Return the service that is asked, who asks, and the fields of the body."""
    service = service_of(request)
    caller = Caller(priority_of(request))
    body = await read_fields(request, service.settings.max_body_bytes)
    note_model(body.text("model"))
    return service, caller, body


def _read(read: Callable[[Fields, Caller], _T], body: Fields, caller: Caller) -> _T:
    with in_openais_words():
        return read(body, caller)
