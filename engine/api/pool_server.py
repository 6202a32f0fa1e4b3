"""RPC server of a pool: the HTTP routes by which another process uses it.

Knows no socket and no key. Every answer is a stream of lines, with a heartbeat while there is
nothing else to send: a client can tell a long queue from a pool that hangs. The request of a client
that disconnects is cancelled. Other machines may name models only by name (`names_only`), never by
the path of a file: the right to use a model is not the right to have files of this machine read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from itertools import groupby
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from paddock.engine.api.openai.requests import model_ref
from paddock.engine.api.streaming import stream_response
from paddock.engine.backends.answer import joined_chunk
from paddock.engine.backends.local import LocalPool
from paddock.engine.backends.rpc import BEAT, MEDIA_TYPE, PREFIX, CountRequest, WireLine, write_line
from paddock.engine.errors import BadRequest, EngineError, pack_error
from paddock.engine.request import ChatRequest, Chunk, EmbedRequest, ModelSpec
from paddock.engine.system.records import replace
from paddock.engine.system.tasks import end, wait_for_event
from paddock.engine.wire import read_json

BEAT_S = 5.0
GATHER_S = 0.03  # chunks that come within it go as one line: each costs both sides 0.2 ms


SendChunk = Callable[[Chunk], None]
"""Takes a chunk that is sent before the answer's last line."""


Verb = Callable[[bytes, SendChunk], Coroutine[Any, Any, WireLine]]


def pool_routes(pool: LocalPool, *, names_only: bool = False) -> list[Route]:
    """Return the routes of a pool, below `PREFIX`; `names_only` refuses paths as model names."""
    routes = _PoolRoutes(pool, names_only=names_only)
    verbs: Mapping[str, Verb] = {
        "facts": routes.facts,
        "count": routes.count,
        "chat": routes.chat,
        "embed": routes.embed,
        "load": routes.load,
        "unload": routes.unload,
        "stats": routes.stats,
    }
    return [
        Route(f"{PREFIX}/{name}", routes.handler(verb), methods=["POST"])
        for name, verb in verbs.items()
    ]


class _PoolRoutes:
    def __init__(self, pool: LocalPool, *, names_only: bool) -> None:
        self._pool = pool
        self._names_only = names_only

    def _checked(self, model: ModelSpec) -> ModelSpec:
        """Return the model's specification, without a path where only names are allowed.

        Raises:
            InvalidName, BadRequest: it names a path, or has adapters, which are paths.
        """
        if not self._names_only:
            return model
        if model.adapters:
            raise BadRequest("adapters can only be laid over a model on the machine that has them")
        return replace(model, ref=model_ref(model.ref))

    def _model(self, body: bytes) -> ModelSpec:
        return self._checked(read_json(ModelSpec, body))

    async def facts(self, body: bytes, _: SendChunk) -> WireLine:
        facts = await self._pool.facts(self._model(body))
        return WireLine(facts=replace(facts, path=facts.name) if self._names_only else facts)

    async def count(self, body: bytes, _: SendChunk) -> WireLine:
        request = read_json(CountRequest, body)
        model = self._checked(request.model)
        if request.messages:
            n_tokens = await self._pool.count_chat(model, request.messages, request.tools)
            return WireLine(numbers=(n_tokens,))
        return WireLine(numbers=tuple(await self._pool.count_texts(model, request.texts)))

    async def embed(self, body: bytes, _: SendChunk) -> WireLine:
        request = read_json(EmbedRequest, body)
        request = replace(request, model=self._checked(request.model))
        return WireLine(embedded=await self._pool.embed(request))

    async def load(self, body: bytes, _: SendChunk) -> WireLine:
        return WireLine(number=await self._pool.load(self._model(body)))

    async def unload(self, body: bytes, _: SendChunk) -> WireLine:
        ref = read_json(ModelSpec, body).ref
        ref = model_ref(ref) if self._names_only else ref
        return WireLine(number=float(await self._pool.unload(ref)))

    async def stats(self, body: bytes, _: SendChunk) -> WireLine:
        stats = self._pool.stats()
        if self._names_only:  # no process ids
            resident = tuple(replace(model, pid=None) for model in stats.resident)
            stats = replace(stats, resident=resident)
        return WireLine(stats=stats)

    async def chat(self, body: bytes, send: SendChunk) -> WireLine:
        request = read_json(ChatRequest, body)
        answer = self._pool.chat(replace(request, model=self._checked(request.model)))
        try:
            async for chunk in answer:
                send(chunk)
            return WireLine(reply=await answer.reply())
        except BaseException:
            answer.cancel()
            raise

    def handler(self, verb: Verb) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            lines = self._lines(verb, await request.body())
            # A broken stream ends without its last line, so that the client retries elsewhere.
            return await stream_response(request, lines, MEDIA_TYPE, lambda _: b"")

        return handle

    async def _lines(self, verb: Verb, body: bytes) -> AsyncGenerator[bytes, None]:
        """Yield lines until the work has ended; closing this cancels the work."""
        chunks: list[Chunk] = []
        has_news = asyncio.Event()

        def send(chunk: Chunk) -> None:
            chunks.append(chunk)
            has_news.set()

        task = asyncio.ensure_future(verb(body, send))
        task.add_done_callback(lambda _: has_news.set())
        try:
            yield BEAT
            while not task.done():
                await wait_for_event(has_news, BEAT_S)
                if not task.done():
                    await asyncio.wait({task}, timeout=GATHER_S)
                has_news.clear()
                yield self._take_chunks(chunks) if chunks else BEAT
            if chunks:
                yield self._take_chunks(chunks)
            yield self._last_line(task)
        finally:
            await end(task)

    def _take_chunks(self, chunks: list[Chunk]) -> bytes:
        lines = b"".join(write_line(WireLine(chunk=chunk)) for chunk in _joined_text_chunks(chunks))
        chunks.clear()
        return lines

    def _last_line(self, task: asyncio.Future[WireLine]) -> bytes:
        if task.cancelled():  # the pool is closing: the client finds another
            return b""
        error = task.exception()
        if error is None:
            return write_line(task.result())
        if isinstance(error, ValueError) and not isinstance(error, EngineError):
            error = BadRequest(f"this request cannot be read: {error}")
        if not isinstance(error, Exception):
            raise error
        return write_line(WireLine(error=pack_error(error)))


def _joined_text_chunks(chunks: Sequence[Chunk]) -> list[Chunk]:
    joined: list[Chunk] = []
    for is_plain, run in groupby(chunks, lambda chunk: not (chunk.tool_calls or chunk.logprobs)):
        pieces = [*run]
        joined += [joined_chunk(pieces)] if is_plain else pieces
    return joined
