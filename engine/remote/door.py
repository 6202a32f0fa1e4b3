"""A pool's side of the door: routes by which another process asks it. Knows no socket and no key.

Every answer is a stream of lines, with a sign of life where nothing else is to be said: who asks
can tell a long queue from a pool that hangs. Who goes is no longer worked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from paddock.engine.api.errors import ApiError
from paddock.engine.api.streaming import stream
from paddock.engine.errors import BadRequest, EngineError
from paddock.engine.remote.wire import BEAT, MEDIA_TYPE, PREFIX, Line, Wire, pack_error
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
from paddock.engine.residency.stats import PoolStats

BEAT_S = 5.0
GATHER_S = 0.03  # chunks that come within it go as one line: each costs both sides 0.2 ms
MOST_WAITING_CHUNKS = 4096


class AskedPool(Protocol):
    """What the door needs of a pool. `paddock.engine.pool.LocalPool` is one."""

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Tell what is known of a model."""
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
        """Tell what is resident."""
        ...


def routes(pool: AskedPool) -> list[Route]:
    """Give the routes by which a pool is asked, below `PREFIX`."""
    desk = _Desk(pool)
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
        return await stream(request, lines, MEDIA_TYPE, _stopped)

    return handle


def _stopped(error: ApiError) -> bytes:
    """End a stream without its last line, by which the other side knows to ask again."""
    return b""


class _Desk:
    """Takes what is asked, and answers in lines."""

    def __init__(self, pool: AskedPool) -> None:
        self._pool = pool
        self._wire = Wire()

    def facts(self, request: Request, body: bytes) -> AsyncGenerator[bytes, None]:
        async def work() -> Line:
            return Line(facts=await self._pool.facts(self._wire.model(body)))

        return self._told(work())

    def count(self, request: Request, body: bytes) -> AsyncGenerator[bytes, None]:
        async def work() -> Line:
            asked = self._wire.counting(body)
            if asked.messages:
                n_tokens = await self._pool.count_chat(asked.model, asked.messages, asked.tools)
                return Line(numbers=(n_tokens,))
            return Line(numbers=tuple(await self._pool.count_texts(asked.model, asked.texts)))

        return self._told(work())

    def embed(self, request: Request, body: bytes) -> AsyncGenerator[bytes, None]:
        async def work() -> Line:
            return Line(embedded=await self._pool.embed(self._wire.embed(body)))

        return self._told(work())

    def load(self, request: Request, body: bytes) -> AsyncGenerator[bytes, None]:
        async def work() -> Line:
            return Line(number=await self._pool.load(self._wire.model(body)))

        return self._told(work())

    def unload(self, request: Request, body: bytes) -> AsyncGenerator[bytes, None]:
        async def work() -> Line:
            return Line(number=float(await self._pool.unload(self._wire.model(body).ref)))

        return self._told(work())

    def stats(self, request: Request, body: bytes) -> AsyncGenerator[bytes, None]:
        async def work() -> Line:
            return Line(stats=self._pool.stats())

        return self._told(work())

    def chat(self, request: Request, body: bytes) -> AsyncGenerator[bytes, None]:
        chunks: list[Chunk] = []
        moved = asyncio.Event()

        async def work() -> Line:
            answer = self._pool.chat(self._wire.chat(body))
            try:
                async for chunk in answer:
                    chunks.append(chunk)
                    moved.set()
                return Line(reply=await answer.reply())
            except BaseException:
                answer.cancel()
                raise

        return self._told(work(), chunks, moved)

    async def _told(
        self,
        work: Coroutine[Any, Any, Line],
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
        lines = b"".join(self._wire.write_line(Line(chunk=chunk)) for chunk in _joined(chunks))
        chunks.clear()
        return lines

    def _last(self, task: asyncio.Future[Line]) -> bytes:
        if task.cancelled():  # the pool is closing: who asks finds another
            return b""
        error = task.exception()
        if error is None:
            return self._wire.write_line(task.result())
        if isinstance(error, ValueError) and not isinstance(error, EngineError):
            error = BadRequest(f"this request cannot be read: {error}")
        if not isinstance(error, Exception):
            raise error
        return self._wire.write_line(Line(error=pack_error(error)))


def _joined(chunks: Sequence[Chunk]) -> list[Chunk]:
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
