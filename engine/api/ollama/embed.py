"""POST /api/embed and the older /api/embeddings: vectors for texts, in their order.

Knows no HTTP but its request. What a text too long loses is told (`truncated`), never hidden.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.bodies import flag_of, integer_of, text_of
from paddock.engine.api.clock import nanoseconds
from paddock.engine.api.errors import ApiError
from paddock.engine.api.streaming import json_response, while_connected
from paddock.engine.errors import ModelNotFound, WrongRole
from paddock.engine.request import EmbedReply, EmbedRequest

from .asking import Asked, ask, fields_of
from .telling import warning


async def embed(request: Request) -> Response:
    """Give a vector for each text."""
    body = await fields_of(request)
    asked = await _asked(request, body)
    texts = _texts(body.get("input"))
    if not texts:
        await _load(request, asked)
        return json_response({"model": asked.model, "embeddings": []})
    reply = await _vectors(request, asked, texts)
    told: dict[str, Any] = {"model": asked.model, "embeddings": [short(v) for v in reply.vectors]}
    told["total_duration"] = nanoseconds(time.monotonic() - asked.began)
    if reply.usage.load_s:
        told["load_duration"] = nanoseconds(reply.usage.load_s)
    told["prompt_eval_count"] = reply.usage.prompt_tokens
    told["queue_duration"] = nanoseconds(reply.usage.queue_s)
    told["cached_tokens"] = reply.usage.prompt_reused_tokens
    n_cut = sum(reply.n_cut_tokens)
    if not n_cut:
        return json_response(told)
    n_original = reply.usage.prompt_tokens + n_cut
    told |= {"truncated": True, "prompt_tokens_original": n_original}
    return json_response(told, headers=warning(n_original))


async def embeddings(request: Request) -> Response:
    """Give one text's vector, as Ollama did in its first year."""
    body = await fields_of(request)
    if not text_of(body, "model"):
        raise ApiError(400, "model is required")
    prompt = text_of(body, "prompt")
    asked = await _asked(request, body)
    if not prompt:
        await _load(request, asked)
        return json_response({"embedding": []})
    reply = await _vectors(request, asked, (prompt,))
    return json_response({"embedding": short(reply.vectors[0])})


async def _asked(request: Request, body: Mapping[str, Any]) -> Asked:
    try:
        return await ask(request, body, "embed")
    except ApiError as error:
        if error.status != 404:
            raise
        model = text_of(body, "model")
        raise ApiError(404, f'model "{model}" not found, try pulling it first') from None


def _texts(value: Any) -> tuple[str, ...]:
    """Give the texts; a single empty one is none at all.

    Raises:
        ApiError: 400, something that is no text.
    """
    if value is None or value == "":
        return ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ApiError(400, "invalid input type")
    return tuple(texts)


async def _load(request: Request, asked: Asked) -> None:
    await while_connected(request, asked.service.pool.load(asked.spec))


async def _vectors(request: Request, asked: Asked, texts: tuple[str, ...]) -> EmbedReply:
    n_dimensions = integer_of(asked.body, "dimensions") or 0
    wanted = EmbedRequest(
        asked.spec,
        texts,
        n_dimensions if n_dimensions > 0 else None,
        asked.priority,
        on_overflow="cut" if flag_of(asked.body, "truncate", True) else "error",
    )
    try:
        reply = await while_connected(request, asked.service.pool.embed(wanted, waits=False))
    except WrongRole:
        raise ApiError(400, f'"{asked.model}" does not support embeddings') from None
    if not all(math.isfinite(sum(vector)) for vector in reply.vectors):
        raise ApiError(400, "embedding contains NaN or Inf values")
    return reply


def short(vector: Iterable[float]) -> list[float]:
    """Give numbers with the nine digits that a float32 needs: half the bytes on the wire.

    >>> short([0.3333333432674408])
    [0.333333343]
    """
    return [float(f"{value:.9g}") for value in vector]
