"""Neutral requests: whether a model or a server refuses one document, or all.

A status says little: servers answer 400 for a wrong parameter, a missing model, a blocked text and
a picture that they cannot read; a chat template may raise for one conversation or for each. What is
refused is therefore asked once more with neutral words in place of the texts. Sampling values,
schema, tools, roles and the number of pictures stay: what is refused as well is refused for every
document. A request is taken when the first piece of an answer comes; the rest is not waited for.
"""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from paddock.engine.errors import (
    BadRequest,
    DeadlineExceeded,
    EngineError,
    ModelBroken,
    ToolsRefused,
)
from paddock.engine.request import ChatRequest, EmbedRequest, Message
from paddock.engine.system.records import replace

NEUTRAL_TEXT = "Hello"
_DEADLINE_S = 120.0
# 64 by 64 pixels, grey: vision models refuse pictures below 28 by 28.
_PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAAAAACPAi4CAAAAKUlEQVR42u3MQREAAAwCIKMb3RD77SAA"
    "6VEEAoFAIBAIBAKBQCAQfA8G320AeXC6efoAAAAASUVORK5CYII="
)


async def refusal_of(name: str, work: Awaitable[object]) -> EngineError | None:
    """Return why a neutral request to the server or model `name` is refused; None: it is taken."""
    try:
        await work
    except ModelBroken as error:
        return error
    except BadRequest as error:
        return ModelBroken(
            name,
            f"it refuses requests whatever the document: {error}. Correct the step, or the "
            f"model's `ref`, `params` or `pool`; the same command goes on.",
        )
    except DeadlineExceeded:
        return None  # it has taken it
    return None


async def begin_neutral_chat(
    begin: Callable[[ChatRequest], Awaitable[object]], name: str, request: ChatRequest
) -> None:
    """Send the request without its document; `begin` waits until an answer begins.

    Raises:
        ToolsRefused: `name` takes it without tools only.
        Exception: what `begin` raises.
    """
    neutral = neutral_chat(request)
    try:
        await begin(neutral)
    except BadRequest as error:
        if not neutral.tools:
            raise
        await begin(replace(neutral, tools=(), tool_choice="auto"))
        raise ToolsRefused(name, str(error)) from error


def neutral_chat(request: ChatRequest) -> ChatRequest:
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
    return tuple(
        replace(
            message,
            content=NEUTRAL_TEXT if message.content else "",
            reasoning="",
            images=(_PICTURE,) * len(message.images),
            tool_calls=tuple(replace(call, arguments={}) for call in message.tool_calls),
        )
        for message in messages
    )


def neutral_embed(request: EmbedRequest) -> EmbedRequest:
    total_s = min(request.total_s or _DEADLINE_S, _DEADLINE_S)
    return replace(request, texts=(NEUTRAL_TEXT,), total_s=total_s)


class RefusalCheck:
    """Judges refusals of models that no balancer checks, each form of a request once.

    Lives in one event loop.
    """

    def __init__(self) -> None:
        self._verdicts: dict[str, EngineError | None] = {}
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def verdict(
        self, refusal: BadRequest, ref: str, neutral: object, ask: Callable[[], Awaitable[object]]
    ) -> EngineError:
        """Return the error that counts: the model's where it refuses `neutral`, too."""
        form = f"{ref} {neutral!r}"
        async with self._turns[form]:  # the others that it refuses wait for one verdict
            if form not in self._verdicts:
                with suppress(EngineError):  # it cannot be asked now, so nothing is known
                    self._verdicts[form] = await refusal_of(ref, ask())
        return self._verdicts.get(form) or refusal
