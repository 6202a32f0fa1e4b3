"""OpenAI's endpoints that use a model: handlers, generation on the pool, batch lines, /v1/models.

The same functions answer batch lines (`answer_batch_line`). All answers of a call end together:
when its client disconnects, or one of them fails. Anthropic's clients use /v1/models, too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.anthropic.messages import is_anthropic_client, model_list_value, model_value
from paddock.engine.api.errors import ApiError, openai_errors
from paddock.engine.api.json_body import read_json
from paddock.engine.api.service import Service, priority_of, service_of, unknown_letters_warning
from paddock.engine.api.streaming import json_response, sse_response, while_connected
from paddock.engine.backends.answer import Answer
from paddock.engine.backends.local import LocalPool
from paddock.engine.models.model_cards import ModelCard, describe_model, list_cards
from paddock.engine.models.model_names import parse_name
from paddock.engine.request import Chunk, Reply
from paddock.engine.system.records import replace
from paddock.engine.system.tasks import end

from .chat_completions import (
    Body,
    CallStreamWriter,
    CompletionCall,
    GenerationCall,
    Stamp,
    read_chat,
    read_completion,
)
from .decisions import DecisionBody, run_decision
from .embeddings import EMBEDDINGS_PATH, EmbeddingBody, embedding_answer, run_embedding
from .requests import ApiCaller, model_ref
from .rerank import RerankBody, run_rerank
from .responses_api import read_response

TRUNCATION_WARNING = '299 paddock "the prompt was shortened to fit the context"'


async def run_call(
    pool: LocalPool, call: GenerationCall, caller: ApiCaller
) -> tuple[Body, list[Reply]]:
    with openai_errors(call.constraint_field):
        ready = await _with_echoed_texts(pool, call)
        async with _submitted(pool, ready, caller) as answers:
            replies = list(await asyncio.gather(*(answer.reply() for answer in answers)))
    return ready.body(replies, Stamp.new(call.prefix)), replies


class GenerationStream:
    def __init__(self, pool: LocalPool, call: GenerationCall, caller: ApiCaller) -> None:
        self._pool = pool
        self._call = call
        self._caller = caller
        self._stream_writer: CallStreamWriter | None = None
        self.headers: dict[str, str] = {}

    async def events(self) -> AsyncGenerator[bytes, None]:
        with openai_errors(self._call.constraint_field):
            ready = await _with_echoed_texts(self._pool, self._call)
            async with (
                _submitted(self._pool, ready, self._caller) as answers,
                aclosing(_merged_chunks(answers)) as pieces,
            ):
                async for index, piece in pieces:
                    for event in self._write(ready, answers, index, piece):
                        yield event
            if self._stream_writer is not None:
                for event in self._stream_writer.end():
                    yield event

    def fail(self, error: ApiError) -> bytes:
        writer = self._stream_writer or self._call.stream_writer(Stamp.new(self._call.prefix))
        return writer.fail(error)

    def _write(
        self, call: GenerationCall, answers: list[Answer], index: int, piece: Chunk | Reply
    ) -> Iterator[bytes]:
        if self._stream_writer is None:
            if any(answer.prompt_tokens_original is not None for answer in answers):
                self.headers["Warning"] = TRUNCATION_WARNING
            self._stream_writer = call.stream_writer(Stamp.new(call.prefix))
            yield from self._stream_writer.begin()
        if isinstance(piece, Reply):
            yield from self._stream_writer.reply(index, piece)
        else:
            yield from self._stream_writer.chunk(index, piece)


@asynccontextmanager
async def _submitted(
    pool: LocalPool, call: GenerationCall, caller: ApiCaller
) -> AsyncIterator[list[Answer]]:
    """Submit every request of a call; cancel what runs at the end of the block.

    A full queue refuses the call as a whole: only its first request can be refused.
    """
    answers = [
        pool.chat(request, waits=caller.waits or number > 0)
        for number, request in enumerate(call.requests)
    ]
    try:
        yield answers
    finally:
        for answer in answers:
            answer.cancel()


async def _merged_chunks(answers: list[Answer]) -> AsyncGenerator[tuple[int, Chunk | Reply], None]:
    if len(answers) == 1:  # the common case needs no queue
        async for chunk in answers[0]:
            yield 0, chunk
        yield 0, await answers[0].reply()
        return
    coming: asyncio.Queue[tuple[int, Chunk | Reply | BaseException]] = asyncio.Queue()

    async def feed(index: int, answer: Answer) -> None:
        try:
            async for chunk in answer:
                coming.put_nowait((index, chunk))
            coming.put_nowait((index, await answer.reply()))
        except BaseException as error:  # a pool that closes cancels its answers: pass it on
            coming.put_nowait((index, error))

    feeders = [asyncio.create_task(feed(*numbered)) for numbered in enumerate(answers)]
    try:
        n_left = len(answers)
        while n_left:
            index, piece = await coming.get()
            if isinstance(piece, BaseException):
                raise piece
            n_left -= isinstance(piece, Reply)
            yield index, piece
    finally:
        await end(*feeders)


async def _with_echoed_texts(pool: LocalPool, call: GenerationCall) -> GenerationCall:
    if not isinstance(call, CompletionCall) or not call.echoes:
        return call
    texts = [
        await pool.detokenise(request.model, request.prompt_tokens)
        if request.prompt_tokens
        else request.prompt or ""
        for request in call.requests[:: call.n_choices]
    ]
    return replace(call, echoed=tuple(texts))


CallReader = Callable[[Mapping[str, Any], ApiCaller], GenerationCall]

GENERATION_ENDPOINTS: Mapping[str, CallReader] = {
    "/v1/chat/completions": read_chat,
    "/v1/completions": read_completion,
    "/v1/responses": read_response,
}
BATCH_ENDPOINTS = (*GENERATION_ENDPOINTS, EMBEDDINGS_PATH)
"""Endpoints for the lines of a batch."""


def generation_handler(read: CallReader) -> Callable[[Request], Awaitable[Response]]:
    async def handler(request: Request) -> Response:
        service, caller, body = await _read_request(request)
        call = _read_call(read, body, caller)
        if call.streams:
            stream = GenerationStream(service.pool, call, caller)
            return await sse_response(request, stream.events(), stream.fail, lambda: stream.headers)
        value, replies = await while_connected(request, run_call(service.pool, call, caller))
        is_truncated = any(reply.prompt_tokens_original is not None for reply in replies)
        headers = {"Warning": TRUNCATION_WARNING} if is_truncated else None
        with openai_errors():
            return json_response(value, headers=headers)

    return handler


async def count_input_tokens(request: Request) -> Response:
    """Handle POST /v1/responses/input_tokens; images are not counted."""
    service, caller, body = await _read_request(request)
    prompt = _read_call(read_response, body, caller).requests[0]
    with openai_errors():
        counting = service.pool.count_chat(
            prompt.model, prompt.messages, prompt.tools, prompt.think
        )
        n_tokens = await while_connected(request, counting)
    return json_response({"object": "response.input_tokens", "input_tokens": n_tokens})


async def create_embeddings(request: Request) -> Response:
    service, caller, fields = await _read_request(request)
    call = EmbeddingBody.read(fields)
    reply = await while_connected(request, run_embedding(service.pool, call, caller))
    written = await asyncio.to_thread(embedding_answer, call, reply)
    headers = {"Warning": TRUNCATION_WARNING} if any(reply.n_cut_tokens) else None
    return json_response(written, headers=headers or unknown_letters_warning(reply))


async def create_decision(request: Request) -> Response:
    service, caller, fields = await _read_request(request)
    scoring = run_decision(service.pool, DecisionBody.read(fields), caller)
    return json_response(await while_connected(request, scoring))


async def rerank(request: Request) -> Response:
    service, caller, fields = await _read_request(request)
    ranking = run_rerank(service.pool, RerankBody.read(fields), caller)
    return json_response(await while_connected(request, ranking))


async def answer_batch_line(
    pool: LocalPool, url: str, fields: Mapping[str, Any], caller: ApiCaller
) -> dict[str, Any]:
    """Return the answer of a body's endpoint, not streamed; raise ApiError for an error answer."""
    body = {**fields, "stream": False}
    if url == EMBEDDINGS_PATH:
        call = EmbeddingBody.read(body)
        reply = await run_embedding(pool, call, caller)
        value = await asyncio.to_thread(lambda: json.loads(embedding_answer(call, reply)))
        return dict(value)
    value, _ = await run_call(pool, _read_call(GENERATION_ENDPOINTS[url], body, caller), caller)
    return value


async def _read_request(request: Request) -> tuple[Service, ApiCaller, dict[str, Any]]:
    service, fields = service_of(request), await read_json(request)
    return service, ApiCaller(priority_of(request, streams=bool(fields.get("stream")))), fields


def _read_call(read: CallReader, fields: Mapping[str, Any], caller: ApiCaller) -> GenerationCall:
    with openai_errors():
        return read(fields, caller)


async def list_models(request: Request) -> Response:
    listed = await asyncio.to_thread(list_cards, service_of(request).finder)
    if is_anthropic_client(request):
        return json_response(model_list_value(listed))
    return json_response(
        {"object": "list", "data": [_model_object(card.name, card) for card in listed]}
    )


async def get_model(request: Request) -> Response:
    """Handle GET /v1/models/NAME; the answer repeats that name. Without one, it is the list."""
    name: str = request.path_params["name"]
    if not name:
        return await list_models(request)
    with openai_errors():
        card = await asyncio.to_thread(describe_model, service_of(request).finder, model_ref(name))
    if is_anthropic_client(request):
        return json_response(model_value(name, card))
    return json_response(_model_object(name, card))


def _model_object(name: str, card: ModelCard) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(card.modified_at.timestamp()),
        "owned_by": parse_name(name).namespace,
        "capabilities": list(card.capabilities),
    }
