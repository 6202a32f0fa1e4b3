"""POST /v1/messages and /v1/messages/count_tokens: handlers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.errors import ApiError, error_body
from paddock.engine.api.json_body import read_json
from paddock.engine.api.request_log import note_model
from paddock.engine.api.service import Service, priority_of, service_of
from paddock.engine.api.streaming import json_response, sse_event, sse_response, while_connected
from paddock.engine.errors import EngineError, ModelNotFound, PromptTooLong
from paddock.engine.request import Reply

from .requests import MessagesPrompt, MessagesRequest, read_messages_request, read_prompt
from .responses import MessageStreamWriter, message_value

# A prompt is counted while its prefill runs; the answer waits no longer for the number.
COUNT_TIMEOUT_S = 0.25


async def create_message(request: Request) -> Response:
    service = service_of(request)
    body = await read_json(request)
    messages = read_messages_request(body, priority_of(request))
    await _check_model(service, messages.prompt)
    headers = {"request-id": f"req_{secrets.token_hex(12)}"}
    if messages.streams:
        return await sse_response(request, _stream_events(service, messages), _error_event, headers)
    reply = await while_connected(request, _reply(service, messages))
    return json_response(message_value(reply, messages.format), headers=headers)


async def count_tokens(request: Request) -> Response:
    """Handle POST /v1/messages/count_tokens; tools are counted, images are not."""
    service = service_of(request)
    body = await read_json(request)
    prompt = read_prompt(body)
    await _check_model(service, prompt)
    n_tokens = await while_connected(request, _count_prompt(service, prompt))
    return json_response({"input_tokens": n_tokens})


async def _check_model(service: Service, prompt: MessagesPrompt) -> None:
    """Raise ApiError (404), with the name as the client wrote it, where there is no such model."""
    note_model(prompt.spec.ref)
    try:
        await service.pool.facts(prompt.spec)
    except ModelNotFound:
        raise ApiError(404, f"model '{prompt.model}' not found") from None


async def _count_prompt(service: Service, prompt: MessagesPrompt) -> int:
    return await service.pool.count_chat(prompt.spec, prompt.messages, prompt.tools, prompt.think)


async def _reply(service: Service, messages: MessagesRequest) -> Reply:
    answer = service.pool.chat(messages.request, waits=False)
    try:
        return await answer.reply()
    except PromptTooLong as error:
        raise _prompt_too_long(error) from error
    finally:
        answer.cancel()


async def _stream_events(
    service: Service, messages: MessagesRequest
) -> AsyncGenerator[bytes, None]:
    answer = service.pool.chat(messages.request, waits=False)
    stream_writer = MessageStreamWriter(messages.format)
    counting = asyncio.ensure_future(_count_or_zero(service, messages.prompt))
    try:
        has_begun = False
        async for chunk in answer:
            if not has_begun:
                for one in stream_writer.begin(await _count_in_time(counting)):
                    yield one
            has_begun = True
            for one in stream_writer.chunk(chunk):
                yield one
        reply = await answer.reply()
        for one in () if has_begun else stream_writer.begin(reply.usage.prompt_tokens):
            yield one
        for one in stream_writer.end(reply):
            yield one
    except PromptTooLong as error:
        raise _prompt_too_long(error) from error
    finally:
        answer.cancel()
        counting.cancel()


async def _count_or_zero(service: Service, prompt: MessagesPrompt) -> int:
    """Return a prompt's tokens; 0 after an error, which the answer reports."""
    with suppress(EngineError):
        return await _count_prompt(service, prompt)
    return 0


async def _count_in_time(counting: asyncio.Future[int]) -> int:
    await asyncio.wait({counting}, timeout=COUNT_TIMEOUT_S)
    return counting.result() if counting.done() else 0


def _prompt_too_long(error: PromptTooLong) -> ApiError:
    """Return Anthropic's own text: clients recognise it and shorten the prompt."""
    said = f"prompt is too long: {error.n_prompt_tokens} tokens > {error.n_ctx_tokens} maximum"
    return ApiError(400, said)


def _error_event(error: ApiError) -> bytes:
    return sse_event(error_body("anthropic", error), "error")
