"""Answers as Ollama's clients read them: pieces, and the last object with its numbers.

Knows neither generate nor chat: how a piece is put, they say. An answer that nobody reads any more
is cancelled.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.answer import Answer
from paddock.engine.api.clock import nanoseconds, now, rfc3339
from paddock.engine.api.streaming import json_response, ndjson, while_connected
from paddock.engine.request import ChatRequest, Chunk, DoneReason, Reply, TokenLogprob, Usage

from .asking import Asked

_MOST_NAMES = 20

Put = Callable[[Chunk], dict[str, Any]]
"""Gives the members of a piece that hold what was said."""
End = Callable[[Reply], dict[str, Any]]
"""Gives what the last object has beyond its numbers."""

# An answer that went in circles did not come to its own end.
_REASONS: Mapping[DoneReason, str] = {"stop": "stop", "length": "length", "repetition": "length"}


async def tell(request: Request, asked: Asked, wanted: ChatRequest, put: Put, end: End) -> Response:
    """Ask the pool and answer, piece by piece or at once.

    Raises:
        ApiError, EngineError: it ended before there was anything to send.
    """
    found_s = time.monotonic() - asked.began
    answer = asked.service.pool.chat(wanted, waits=False)
    if asked.streams:
        pieces = _pieces(asked, answer, put, end, found_s)
        return await ndjson(request, pieces, lambda: _warning(asked, answer))
    try:
        reply = await while_connected(request, answer.reply())
    finally:
        answer.cancel()
    whole = Chunk(reply.text, 0, reply.reasoning, reply.tool_calls, reply.logprobs)
    body = {**head(asked.model), **put(whole), **_last(asked, reply, found_s), **end(reply)}
    return json_response(body, headers=_warning(asked, answer))


async def _pieces(
    asked: Asked, answer: Answer, put: Put, end: End, found_s: float
) -> AsyncGenerator[dict[str, Any], None]:
    try:
        async for chunk in answer:
            if not _says_something(chunk):  # a call that is not whole yet, a half character
                continue
            yield {**head(asked.model), **put(chunk), "done": False}
        reply = await answer.reply()
        last = _last(asked, reply, found_s)
        yield {**head(asked.model), **put(Chunk("", 0)), **last, **end(reply)}
    finally:
        answer.cancel()


def _says_something(chunk: Chunk) -> bool:
    return bool(chunk.text or chunk.reasoning or chunk.tool_calls or chunk.logprobs)


def head(model: str) -> dict[str, Any]:
    """Give what every object begins with."""
    return {"model": model, "created_at": rfc3339(now())}


def _last(asked: Asked, reply: Reply, found_s: float) -> dict[str, Any]:
    told: dict[str, Any] = {"done": True, "done_reason": _REASONS[reply.done_reason]}
    told |= _numbers(reply.usage, asked.began, found_s)
    if reply.prompt_tokens_original is not None:
        told |= {"truncated": True, "prompt_tokens_original": reply.prompt_tokens_original}
    return told


def _numbers(usage: Usage, began: float, found_s: float) -> dict[str, int]:
    """Return what a request cost. Zeros are left out, as in Go.

    `load_duration` is the time until the model was there: `found_s` to read the request and find
    the model, and its load where one was needed. So it is never zero; clients divide by it.
    """
    counted = {
        "total_duration": nanoseconds(time.monotonic() - began),
        "load_duration": nanoseconds(found_s + usage.load_s),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": nanoseconds(usage.prefill_s),
        "eval_count": usage.completion_tokens,
        "eval_duration": nanoseconds(usage.decode_s),
    }
    told = {name: value for name, value in counted.items() if value}
    # These are ours, and always there: a client can tell an idle queue from one that is not told.
    if usage.shifted_tokens:
        told["shifted_tokens"] = usage.shifted_tokens
    told["queue_duration"] = nanoseconds(usage.queue_s)
    told["cached_tokens"] = usage.prompt_reused_tokens
    return told


def logprobs(chunk: Chunk) -> dict[str, Any]:
    """Give a piece's log probabilities; nothing where there are none."""
    return {"logprobs": [_logprob(one) for one in chunk.logprobs]} if chunk.logprobs else {}


def _logprob(one: TokenLogprob) -> dict[str, Any]:
    told: dict[str, Any] = {"token": one.token, "logprob": one.logprob, "bytes": list(one.raw)}
    if one.top:
        told["top_logprobs"] = [
            {"token": token, "logprob": value, "bytes": list(raw)} for token, value, raw in one.top
        ]
    return told


def _warning(asked: Asked, answer: Answer) -> dict[str, str]:
    return warning(asked, answer.prompt_tokens_original)


def warning(asked: Asked, n_tokens: int | None) -> dict[str, str]:
    """Return the header that names options without effect and a prompt of `n_tokens` that was cut.

    Names that a client may choose freely are shown as far as they are plain words.
    """
    told = []
    if n_tokens is not None:
        told.append(f"the prompt of {n_tokens} tokens was cut to fit the context")
    names = [name for name in asked.options.without_effect if re.fullmatch(r"\w{1,40}", name, re.A)]
    if names:
        told.append(f"options without effect: {', '.join(sorted(names)[:_MOST_NAMES])}")
    return {"Warning": ", ".join(f'299 paddock "{words}"' for words in told)} if told else {}
