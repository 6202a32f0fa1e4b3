"""An answer on its way out of the pool: chunks as they come, or the whole when it is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from paddock.engine.request import ChatRequest, Chunk, Reply
from paddock.engine.workers.ticket import Ended

# A reader that is slower than the model gets what has gathered in one piece, and what was read is
# kept as one: a chunk takes 150 bytes more than its text.
_MOST_CHUNKS = 256


@dataclass(slots=True, eq=False)
class _Reader:
    n_seen: int = 0
    """Of the chunks as they are kept now."""


class Answer:
    """Implements `paddock.engine.request.Stream`. Must be made inside a running event loop."""

    def __init__(self, request: ChatRequest, serve: Callable[[Answer], Awaitable[Reply]]) -> None:
        self.request = request
        self.was_read = False
        """A reader has seen a part, so the answer cannot be begun anew."""
        self.prompt_tokens_original: int | None = None
        """What the prompt had before it was shortened; None: it was not. Known before any chunk."""
        self._began = asyncio.get_running_loop().time()
        self.first_s = 0.0
        """How long after the request its first token came; 0: not yet."""
        self._chunks: list[Chunk] = []
        self._n_reasoning_tokens = 0
        self._readers: list[_Reader] = []
        self._hearers: list[Callable[[Chunk], None]] = []
        self._moved = asyncio.Event()
        self._task = asyncio.ensure_future(serve(self))
        self._task.add_done_callback(self._ended)

    async def reply(self) -> Reply:
        """Wait for the end; cancelling this wait cancels the request."""
        return await self._task

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """Yield the chunks in order; raises what `reply` raises.

        Each iteration begins at the answer's beginning, which may then come in larger pieces.
        """
        reader = _Reader()
        self._readers.append(reader)
        try:
            while True:
                while reader.n_seen < len(self._chunks):
                    self.was_read = True
                    reader.n_seen += 1
                    yield self._chunks[reader.n_seen - 1]
                if self._task.done():
                    self._task.result()
                    return
                self._moved.clear()
                await self._moved.wait()
        finally:
            self._readers.remove(reader)

    def heard_by(self, hear: Callable[[Chunk], None]) -> None:
        """Tell each chunk that comes from now on, also one that comes twice.

        Unlike a reader, who hears does not mind that an answer is begun anew.
        """
        self._hearers.append(hear)

    def cancel(self) -> None:
        """Stop at the next decode step."""
        self._task.cancel()

    def add(self, chunk: Chunk) -> None:
        """Take a chunk from the worker."""
        if not self.first_s:
            self.first_s = asyncio.get_running_loop().time() - self._began
        self._chunks.append(chunk)
        for hear in self._hearers:
            hear(chunk)
        if chunk.reasoning and not chunk.text:
            self._n_reasoning_tokens += chunk.n_tokens
        if len(self._chunks) > _MOST_CHUNKS:
            self._fold()
        self._moved.set()

    def _fold(self) -> None:
        """Make one chunk of all that lies between the places of two readers."""
        places = {0, len(self._chunks), *(reader.n_seen for reader in self._readers)}
        borders = sorted(places)
        self._chunks[:] = [_joined(self._chunks[start:end]) for start, end in pairwise(borders)]
        for reader in self._readers:
            reader.n_seen = borders.index(reader.n_seen)

    def shortened(self, n_tokens: int) -> None:
        """Note what the prompt had before it was shortened."""
        self.prompt_tokens_original = n_tokens

    def forget(self) -> None:
        """Drop what an interrupted worker had said."""
        self._chunks.clear()
        self._n_reasoning_tokens = 0

    def reply_of(self, ended: Ended, digest: str) -> Reply:
        """Put the chunks together."""
        whole = _joined(self._chunks)
        return Reply(
            whole.text,
            ended.reason,
            ended.usage,
            digest,
            whole.reasoning,
            whole.tool_calls,
            whole.logprobs,
            ended.is_shortened,
            ended.tokens,
            self.prompt_tokens_original,
            ended.stop,
            self._n_reasoning_tokens,
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


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    """Make one chunk of several."""
    return Chunk(
        "".join(chunk.text for chunk in chunks),
        sum(chunk.n_tokens for chunk in chunks),
        "".join(chunk.reasoning for chunk in chunks),
        tuple(call for chunk in chunks for call in chunk.tool_calls),
        tuple(one for chunk in chunks for one in chunk.logprobs),
    )
