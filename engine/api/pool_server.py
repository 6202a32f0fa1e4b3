"""RPC server of a pool: the HTTP routes by which another process asks it.

Knows no socket and no key. Every answer is a stream of lines, with a heartbeat where nothing else
is to be sent: a client can tell a long queue from a pool that hangs. A client that disconnects
ends its request. Other machines may name models only by name, never by the path of a file
(`NamesOnlyPool`): the right to ask for an answer is not the right to have files of this machine
read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from paddock.engine.api.errors import ApiError
from paddock.engine.api.openai.parameters import model_ref
from paddock.engine.api.streaming import stream_response
from paddock.engine.backends.rpc import BEAT, MEDIA_TYPE, PREFIX, PoolCodec, WireLine, pack_error
from paddock.engine.errors import BadRequest, EngineError
from paddock.engine.memory.pool_stats import PoolStats
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Stream,
    Tool,
)

BEAT_S = 5.0
GATHER_S = 0.03  # chunks that come within it go as one line: each costs both sides 0.2 ms
MOST_WAITING_CHUNKS = 4096


class ServedPool(Protocol):
    """What the door needs of a pool. `paddock.engine.backends.local.LocalPool` is one."""

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Return what is known of a model."""
        ...

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Count a prompt's tokens."""
        ...

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens."""
        ...

    def chat(self, request: ChatRequest) -> Stream:
        """Queue a request."""
        ...

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Embed whole texts."""
        ...

    async def load(self, model: ModelSpec) -> float:
        """Bring a model into memory."""
        ...

    async def unload(self, ref: str) -> bool:
        """Let a model go."""
        ...

    def stats(self) -> PoolStats:
        """Return what is resident."""
        ...


def pool_routes(pool: ServedPool) -> list[Route]:
    """Return the routes by which a pool is asked, below `PREFIX`."""
    desk = _PoolRoutes(pool)
    verbs: dict[str, Callable[[Request, bytes], AsyncGenerator[bytes, None]]] = {
        "facts": desk.facts,
        "count": desk.count,
        "chat": desk.chat,
        "embed": desk.embed,
        "load": desk.load,
        "unload": desk.unload,
        "stats": desk.stats,
    }
    return [
        Route(f"{PREFIX}/{name}", _handler(verb), methods=["POST"]) for name, verb in verbs.items()
    ]


def _handler(
    verb: Callable[[Request, bytes], AsyncGenerator[bytes, None]],
) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        lines = verb(request, await request.body())
        return await stream_response(request, lines, MEDIA_TYPE, _end_of_broken_stream)

    return handle


def _end_of_broken_stream(error: ApiError) -> bytes:
    """End a stream without its last line, by which the other side knows to ask again."""
    return b""


class _PoolRoutes:
    """Takes what is asked, and answers in lines."""

    def __init__(self, pool: ServedPool) -> None:
        self._pool = pool
        self._wire = PoolCodec()

    def facts(self, request: Request, body: bytes) -> AsyncGenerator[bytes, None]:
        async def work() -> WireLine:
            return WireLine(facts=await self._pool.facts(self._wire.model(body)))

        return self._told(work())

    def count(self, request: Request, body: bytes) -> AsyncGenerator[bytes, None]:
        async def work() -> WireLine:
            asked = self._wire.counting(body)
            if asked.messages:
                n_tokens = await self._pool.count_chat(asked.model, asked.messages, asked.tools)
                return WireLine(numbers=(n_tokens,))
            return WireLine(numbers=tuple(await self._pool.count_texts(asked.model, asked.texts)))

        return self._told(work())

    def embed(self, request: Request, body: bytes) -> AsyncGenerator[bytes, None]:
        async def work() -> WireLine:
            return WireLine(embedded=await self._pool.embed(self._wire.embed(body)))

        return self._told(work())

    def load(self, request: Request, body: bytes) -> AsyncGenerator[bytes, None]:
        async def work() -> WireLine:
            return WireLine(number=await self._pool.load(self._wire.model(body)))

        return self._told(work())

    def unload(self, request: Request, body: bytes) -> AsyncGenerator[bytes, None]:
        async def work() -> WireLine:
            return WireLine(number=float(await self._pool.unload(self._wire.model(body).ref)))

        return self._told(work())

    def stats(self, request: Request, body: bytes) -> AsyncGenerator[bytes, None]:
        async def work() -> WireLine:
            return WireLine(stats=self._pool.stats())

        return self._told(work())

    def chat(self, request: Request, body: bytes) -> AsyncGenerator[bytes, None]:
        chunks: list[Chunk] = []
        moved = asyncio.Event()

        async def work() -> WireLine:
            answer = self._pool.chat(self._wire.chat(body))
            try:
                async for chunk in answer:
                    chunks.append(chunk)
                    moved.set()
                return WireLine(reply=await answer.reply())
            except BaseException:
                answer.cancel()
                raise

        return self._told(work(), chunks, moved)

    async def _told(
        self,
        work: Coroutine[Any, Any, WireLine],
        chunks: list[Chunk] | None = None,
        moved: asyncio.Event | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """Yield lines until the work has ended; closing this ends the work."""
        chunks, moved = chunks if chunks is not None else [], moved or asyncio.Event()
        task = asyncio.ensure_future(work)
        task.add_done_callback(lambda _: moved.set())
        try:
            yield BEAT
            while not task.done():
                with suppress(TimeoutError):
                    await asyncio.wait_for(moved.wait(), BEAT_S)
                if not task.done():
                    await asyncio.wait({task}, timeout=GATHER_S)
                moved.clear()
                yield self._gathered(chunks) if chunks else BEAT
            if chunks:
                yield self._gathered(chunks)
            yield self._last(task)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task

    def _gathered(self, chunks: list[Chunk]) -> bytes:
        """Write what has come as one line."""
        lines = b"".join(
            self._wire.write_line(WireLine(chunk=chunk)) for chunk in _joined_text_chunks(chunks)
        )
        chunks.clear()
        return lines

    def _last(self, task: asyncio.Future[WireLine]) -> bytes:
        if task.cancelled():  # the pool is closing: who asks finds another
            return b""
        error = task.exception()
        if error is None:
            return self._wire.write_line(task.result())
        if isinstance(error, ValueError) and not isinstance(error, EngineError):
            error = BadRequest(f"this request cannot be read: {error}")
        if not isinstance(error, Exception):
            raise error
        return self._wire.write_line(WireLine(error=pack_error(error)))


def _joined_text_chunks(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Make one chunk of those that are nothing but text."""
    joined: list[Chunk] = []
    for chunk in chunks:
        is_plain = not (chunk.tool_calls or chunk.logprobs)
        last = joined[-1] if joined else None
        if last is None or not is_plain or last.tool_calls or last.logprobs:
            joined.append(chunk)
        else:
            joined[-1] = Chunk(
                last.text + chunk.text,
                last.n_tokens + chunk.n_tokens,
                last.reasoning + chunk.reasoning,
            )
    return joined


class NamesOnlyPool:
    """Implements `ServedPool` over another one. Raises `InvalidName` where a path is named."""

    def __init__(self, pool: ServedPool) -> None:
        self._pool = pool

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Return what is known of a model, but not where its files lie."""
        facts = await self._pool.facts(_checked_spec(model))
        return replace(facts, path=facts.name)

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Count a prompt's tokens."""
        return await self._pool.count_chat(_checked_spec(model), messages, tools)

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens."""
        return await self._pool.count_texts(_checked_spec(model), texts)

    def chat(self, request: ChatRequest) -> Stream:
        """Queue a request."""
        return self._pool.chat(replace(request, model=_checked_spec(request.model)))

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Embed whole texts."""
        return await self._pool.embed(replace(request, model=_checked_spec(request.model)))

    async def load(self, model: ModelSpec) -> float:
        """Bring a model into memory."""
        return await self._pool.load(_checked_spec(model))

    async def unload(self, ref: str) -> bool:
        """Let a model go."""
        return await self._pool.unload(model_ref(ref))

    def stats(self) -> PoolStats:
        """Return what is resident, but not in which processes."""
        stats = self._pool.stats()
        return replace(stats, resident=tuple(replace(one, pid=None) for one in stats.resident))


def _checked_spec(model: ModelSpec) -> ModelSpec:
    if model.adapters:
        raise BadRequest("adapters can only be laid over a model on the machine that has them")
    return replace(model, ref=model_ref(model.ref))
