"""An answer on its way out of the pool: chunks as they come, or the whole when it is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from paddock.engine.request import ChatRequest, Chunk, DoneReason, Reply, Usage


class Answer:
    """Implements `paddock.engine.request.Stream`. Must be made inside a running event loop."""

    def __init__(self, request: ChatRequest, serve: Callable[[Answer], Awaitable[Reply]]) -> None:
        self.request = request
        self.was_read = False
        """A reader has seen a part, so the answer cannot be begun anew."""
        self._began = asyncio.get_running_loop().time()
        self.first_s = 0.0
        """How long after the request its first token came; 0: not yet."""
        self._chunks: list[Chunk] = []
        self._moved = asyncio.Event()
        self._task = asyncio.ensure_future(serve(self))
        self._task.add_done_callback(self._ended)

    async def reply(self) -> Reply:
        """Wait for the end; cancelling this wait cancels the request."""
        return await self._task

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """Yield the chunks in order; raises what `reply` raises."""
        n_seen = 0
        while True:
            while n_seen < len(self._chunks):
                self.was_read = True
                yield self._chunks[n_seen]
                n_seen += 1
            if self._task.done():
                self._task.result()
                return
            self._moved.clear()
            await self._moved.wait()

    def cancel(self) -> None:
        """Stop at the next decode step."""
        self._task.cancel()

    def add(self, chunk: Chunk) -> None:
        """Take a chunk from the worker."""
        if not self.first_s:
            self.first_s = asyncio.get_running_loop().time() - self._began
        self._chunks.append(chunk)
        self._moved.set()

    def forget(self) -> None:
        """Drop what an interrupted worker had said."""
        self._chunks.clear()

    def reply_of(self, reason: DoneReason, usage: Usage, digest: str, is_shortened: bool) -> Reply:
        """Put the chunks together."""
        return Reply(
            "".join(chunk.text for chunk in self._chunks),
            reason,
            usage,
            digest,
            "".join(chunk.reasoning for chunk in self._chunks),
            tuple(call for chunk in self._chunks for call in chunk.tool_calls),
            tuple(one for chunk in self._chunks for one in chunk.logprobs),
            is_shortened,
        )

    def when_ended(self, act: Callable[[Answer], None]) -> None:
        """Call `act` once the answer has ended, however."""
        self._task.add_done_callback(lambda _: act(self))

    async def ended(self) -> None:
        """Wait for the end without caring how."""
        await asyncio.wait([self._task])

    def _ended(self, task: asyncio.Future[Reply]) -> None:
        self._moved.set()
        if not task.cancelled():
            task.exception()  # seen: nobody may be waiting for it any more
