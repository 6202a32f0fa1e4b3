"""POST /api/embed and the older /api/embeddings: one vector per text, in order.

A text that was cut to fit is reported (`truncated`), never hidden.
"""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainValidator
from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.body_models import Needed, Whole
from paddock.engine.api.errors import ApiError
from paddock.engine.api.json_body import read_json
from paddock.engine.api.request_log import note_without_effect
from paddock.engine.api.service import unknown_letters_warning
from paddock.engine.api.streaming import (
    dumps,
    json_response,
    nanoseconds,
    vectors_json,
    while_connected,
)
from paddock.engine.errors import WrongRole
from paddock.engine.request import EmbedReply, EmbedRequest

from .generation import warning_header
from .requests import ModelRequest, OllamaBody, read_model_request

MOST_TEXTS = 8192  # LangChain's client sends all documents at once


def _texts(value: Any) -> tuple[str, ...]:
    """Return the texts of `input`; a single empty one counts as none."""
    texts = ([value] if value else []) if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ApiError(400, "invalid input type")
    if len(texts) > MOST_TEXTS:
        raise ApiError(
            400, f"at most {MOST_TEXTS:,} texts are embedded at once, not {len(texts):,}"
        )
    return tuple(texts)


class _EmbedBody(OllamaBody):
    input: Annotated[tuple[str, ...], PlainValidator(_texts)] = ()
    truncate: bool = True
    dimensions: Whole = 0


async def embed(request: Request) -> Response:
    body = _EmbedBody.read(await read_json(request))
    model_request = await _read_embed_request(request, body)
    if not body.input:
        await _load_model(request, model_request)
        return json_response({"model": model_request.model, "embeddings": []})
    found_s = time.monotonic() - model_request.began
    reply = await _embed(request, model_request, body)
    value: dict[str, Any] = {
        "total_duration": nanoseconds(time.monotonic() - model_request.began),
        "load_duration": nanoseconds(found_s + reply.usage.load_s),
        "prompt_eval_count": reply.usage.prompt_tokens,
        "queue_duration": nanoseconds(reply.usage.queue_s),
        "cached_tokens": reply.usage.prompt_reused_tokens,
    }
    n_cut = sum(reply.n_cut_tokens)
    n_original = reply.usage.prompt_tokens + n_cut
    if n_cut:
        value |= {"truncated": True, "prompt_tokens_original": n_original}
    vectors = await asyncio.to_thread(vectors_json, reply.vectors)
    raw = b'{"model":%b,"embeddings":%b,%b' % (
        dumps(model_request.model),
        vectors,
        dumps(value)[1:],
    )
    is_cut = warning_header(n_original if n_cut else None)
    return json_response(raw, headers=is_cut or unknown_letters_warning(reply))


class _EmbedLegacyBody(_EmbedBody):
    model: Needed
    prompt: str = ""


async def embed_legacy(request: Request) -> Response:
    """Handle POST /api/embeddings, Ollama's older form."""
    body = _EmbedLegacyBody.read(await read_json(request))
    model_request = await _read_embed_request(request, body)
    if not body.prompt:
        await _load_model(request, model_request)
        return json_response({"embedding": []})
    reply = await _embed(request, model_request, body.model_copy(update={"input": (body.prompt,)}))
    return json_response(b'{"embedding":%b}' % vectors_json(reply.vectors)[1:-1])


async def _read_embed_request(request: Request, body: _EmbedBody) -> ModelRequest:
    try:
        return await read_model_request(request, body, "embed")
    except ApiError as error:
        if error.status != 404:
            raise
        raise ApiError(404, f'model "{body.model}" not found, try pulling it first') from None


async def _load_model(request: Request, model_request: ModelRequest) -> None:
    await while_connected(request, model_request.service.pool.load(model_request.spec))


async def _embed(request: Request, model_request: ModelRequest, body: _EmbedBody) -> EmbedReply:
    embed_request = EmbedRequest(
        model_request.spec,
        body.input,
        await _n_dimensions(model_request, body.dimensions),
        model_request.priority,
        on_overflow="cut" if body.truncate else "error",
    )
    try:
        reply = await while_connected(
            request, model_request.service.pool.embed(embed_request, waits=False)
        )
    except WrongRole as error:
        why = f'"{model_request.model}" does not support embeddings{error.hint}'
        raise ApiError(400, why) from None
    if not all(math.isfinite(sum(vector)) for vector in reply.vectors):
        raise ApiError(400, "embedding contains NaN or Inf values")
    return reply


async def _n_dimensions(model_request: ModelRequest, n: int) -> int | None:
    if not n:
        return None
    files, path = model_request.service.finder.files, Path(model_request.facts.path)
    header = await asyncio.to_thread(files.header, path)
    if 0 < n <= header.number("embedding_length", n):
        return n
    note_without_effect("fields", ("dimensions",))  # as Ollama, which says nothing
    return None
