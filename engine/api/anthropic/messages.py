"""POST /v1/messages and /v1/messages/count_tokens: from a request to its response."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.bodies import read_json
from paddock.engine.api.errors import ApiError, error_body
from paddock.engine.api.journal import note_model
from paddock.engine.api.service import Service, priority_of, service_of
from paddock.engine.api.streaming import event, json_response, sse, while_connected
from paddock.engine.errors import EngineError, ModelNotFound, PromptTooLong
from paddock.engine.request import Reply

from .asking import Question, Wish, read_question, read_wish
from .telling import Speaker, message_value

# A prompt is counted while its first piece is computed; nobody waits longer for the number.
COUNT_S = 0.25


async def messages(request: Request) -> Response:
    """Answer a conversation."""
    service = service_of(request)
    body = await read_json(request, max_bytes=service.settings.max_body_bytes)
    wish = read_wish(body, priority_of(request))
    await _find(service, wish.question)
    headers = {"request-id": f"req_{secrets.token_hex(12)}"}
    if wish.streams:
        return await sse(request, _events(service, wish), _last, headers)
    reply = await while_connected(request, _reply(service, wish))
    return json_response(message_value(reply, wish.style), headers=headers)


async def count_tokens(request: Request) -> Response:
    """Tell how many tokens a conversation has, tools included; images are not counted."""
    service = service_of(request)
    body = await read_json(request, max_bytes=service.settings.max_body_bytes)
    question = read_question(body)
    await _find(service, question)
    n_tokens = await while_connected(request, _count(service, question))
    return json_response({"input_tokens": n_tokens})


async def _find(service: Service, question: Question) -> None:
    """Look for the model, whose name is told as the client wrote it."""
    note_model(question.spec.ref)
    try:
        await service.pool.facts(question.spec)
    except ModelNotFound:
        raise ApiError(404, f"model '{question.model}' not found") from None


async def _count(service: Service, question: Question) -> int:
    return await service.pool.count_chat(
        question.spec, question.messages, question.tools, question.think
    )


async def _reply(service: Service, wish: Wish) -> Reply:
    answer = service.pool.chat(wish.request, waits=False)
    try:
        return await answer.reply()
    except PromptTooLong as error:
        raise _too_long(error) from error
    finally:
        answer.cancel()


async def _events(service: Service, wish: Wish) -> AsyncGenerator[bytes, None]:
    answer = service.pool.chat(wish.request, waits=False)
    speaker = Speaker(wish.style)
    counting = asyncio.ensure_future(_counted(service, wish.question))
    try:
        has_begun = False
        async for chunk in answer:
            if not has_begun:
                for one in speaker.begin(await _when_counted(counting)):
                    yield one
            has_begun = True
            for one in speaker.chunk(chunk):
                yield one
        reply = await answer.reply()
        for one in () if has_begun else speaker.begin(reply.usage.prompt_tokens):
            yield one
        for one in speaker.end(reply):
            yield one
    except PromptTooLong as error:
        raise _too_long(error) from error
    finally:
        answer.cancel()
        counting.cancel()


async def _counted(service: Service, question: Question) -> int:
    """Count a prompt whose answer is on its way; 0: what hinders it, the answer tells."""
    with suppress(EngineError):
        return await _count(service, question)
    return 0


async def _when_counted(counting: asyncio.Future[int]) -> int:
    await asyncio.wait({counting}, timeout=COUNT_S)
    return counting.result() if counting.done() else 0


def _too_long(error: PromptTooLong) -> ApiError:
    """Say it as Anthropic does: clients look for these words to shorten what they ask."""
    said = f"prompt is too long: {error.n_prompt_tokens} tokens > {error.n_ctx_tokens} maximum"
    return ApiError(400, said)


def _last(error: ApiError) -> bytes:
    return event(error_body("anthropic", error), "error")
