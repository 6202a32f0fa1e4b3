"""A request of the same form without a document: whether a server refuses one document, or all.

A status says little: servers answer 400 for a wrong parameter, a missing model, a blocked text and
a picture that they cannot read. What a server refuses is therefore asked once more with neutral
words in place of the texts. Sampling values, schema, tools, roles and the number of pictures stay:
a server that refuses this as well refuses every document. It has taken the request when the first
piece of an answer comes; the rest is not waited for.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from paddock.engine.errors import BadRequest, ToolsRefused
from paddock.engine.request import ChatRequest, EmbedRequest, Message
from paddock.engine.system.tasks import StopRequested, unless

from .model_servers import ModelServer

NEUTRAL_TEXT = "Hello"
_DEADLINE_S = 120.0
# 64 by 64 pixels, grey: vision models refuse pictures below 28 by 28.
_PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAKUlEQVR42u3MQREAAAwCIKMb3RD77SAA"
    "6VEEAoFAIBAIBAKBQCAQfA8G320AeXC6efoAAAAASUVORK5CYII="
)


async def begin_neutral_chat(server: ModelServer, request: ChatRequest) -> None:
    """Send the request without its document, until a server begins to answer.

    Raises:
        ToolsRefused: it takes it without tools only.
        ServerAway, ServerBusy, EngineError: it does not take it.
    """
    neutral = _neutral_chat(request)
    try:
        await _begin(server, neutral)
    except BadRequest as error:
        if not neutral.tools:
            raise
        await _begin(server, replace(neutral, tools=(), tool_choice="auto"))
        raise ToolsRefused(server.url, str(error)) from error


async def _begin(server: ModelServer, request: ChatRequest) -> None:
    has_begun = asyncio.Event()
    with suppress(StopRequested):
        await unless(server.chat(request, lambda _: has_begun.set()), has_begun)


def _neutral_chat(request: ChatRequest) -> ChatRequest:
    return replace(
        request,
        messages=neutral_messages(request.messages),
        prompt=None if request.prompt is None else NEUTRAL_TEXT,
        prompt_tokens=(),
        images=(_PICTURE,) * len(request.images),
        suffix=None if request.suffix is None else NEUTRAL_TEXT,
        total_s=min(request.total_s or _DEADLINE_S, _DEADLINE_S),
    )


def neutral_messages(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Return the same turns with neutral texts."""
    return tuple(
        replace(
            one,
            content=NEUTRAL_TEXT if one.content else "",
            reasoning="",
            images=(_PICTURE,) * len(one.images),
            tool_calls=tuple(replace(call, arguments={}) for call in one.tool_calls),
        )
        for one in messages
    )


def neutral_embed(request: EmbedRequest) -> EmbedRequest:
    """Return the request for one neutral text."""
    total_s = min(request.total_s or _DEADLINE_S, _DEADLINE_S)
    return replace(request, texts=(NEUTRAL_TEXT,), total_s=total_s)
