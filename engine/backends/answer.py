"""An answer while it comes: its chunks, its readers, its deadlines. Shared by all pools.

`Answer` is one request with its chunks: readers iterate it, or wait for the whole reply.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

from paddock.engine.errors import DeadlineExceeded
from paddock.engine.request import ChatRequest, Chunk, Reply
from paddock.engine.system.records import Struct, field
from paddock.engine.system.tasks import end

if TYPE_CHECKING:  # it brings numpy, which a plan lacks
    from paddock.engine.workers.worker_protocol import AnswerEnd


@asynccontextmanager
async def deadlines(
    total_s: float | None, idle_s: float | None
) -> AsyncIterator[Callable[[], None]]:
    """Yield a function to call at each step, and bound all of them and the time between two.

    Both clocks start with the first step: waiting in a queue does not count. A prompt that is
    being read makes steps as well as an answer that grows.

    Raises:
        DeadlineExceeded: a clock ran out.
    """
    has_started = False

    def step() -> None:
        nonlocal has_started
        now = asyncio.get_running_loop().time()
        if idle_s is not None and not idle.expired():
            idle.reschedule(now + idle_s)
        if total_s is not None and not has_started:
            total.reschedule(now + total_s)
        has_started = True

    try:
        async with asyncio.timeout(None) as total, asyncio.timeout(None) as idle:
            yield step
    except TimeoutError:
        if idle.expired():
            raise DeadlineExceeded("idle", idle_s or 0.0) from None
        if total.expired():
            raise DeadlineExceeded("total", total_s or 0.0) from None
        raise


@asynccontextmanager
async def total_deadline(total_s: float | None) -> AsyncIterator[None]:
    """Bound a whole request, from now on; None: no bound.

    Raises:
        DeadlineExceeded: it took longer.
    """
    try:
        async with asyncio.timeout(total_s):
            yield
    except TimeoutError:
        raise DeadlineExceeded("total", total_s or 0.0) from None


# A reader that is slower than the model gets what has gathered in one piece, and what was read is
# kept as one: a chunk takes 150 bytes more than its text.
_MOST_CHUNKS = 256


class _ChunkReader(Struct, eq=False):
    n_seen: int = 0
    """Of the chunks as they are kept now."""


class Answer:
    """Implements `paddock.engine.request.Stream`. Must be made inside a running event loop."""

    def __init__(self, request: ChatRequest, serve: Callable[[Answer], Awaitable[Reply]]) -> None:
        self.request = request
        self.was_read = False
        """A reader has seen a part, so the request cannot be retried."""
        self.prompt_tokens_original: int | None = None
        """What the prompt had before it was shortened; None: it was not. Known before any chunk."""
        self._began = asyncio.get_running_loop().time()
        self.first_s = 0.0
        """How long after the request its first token came; 0: not yet."""
        self._chunks: list[Chunk] = []
        self._n_reasoning_tokens = 0
        self._readers: list[_ChunkReader] = []
        self._listeners: list[Callable[[Chunk], None]] = []
        self._moved = asyncio.Event()
        self.task = asyncio.ensure_future(serve(self))
        self.task.add_done_callback(self._ended)

    async def reply(self) -> Reply:
        """Wait for the end; cancelling this wait cancels the request."""
        return await self.task

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """Yield the chunks in order; raises what `reply` raises.

        Each iteration begins at the answer's beginning, which may then come in larger pieces.
        """
        reader = _ChunkReader()
        self._readers.append(reader)
        try:
            while True:
                while reader.n_seen < len(self._chunks):
                    self.was_read = True
                    reader.n_seen += 1
                    yield self._chunks[reader.n_seen - 1]
                if self.task.done():
                    self.task.result()
                    return
                self._moved.clear()
                await self._moved.wait()
        finally:
            self._readers.remove(reader)

    def on_chunk(self, act: Callable[[Chunk], None]) -> None:
        """Call `act` with each chunk from now on, also with those of a second attempt.

        Unlike a reader, it does not keep an answer from being started again.
        """
        self._listeners.append(act)

    def cancel(self) -> None:
        self.task.cancel()

    def add(self, chunk: Chunk) -> None:
        if not self.first_s:
            self.first_s = asyncio.get_running_loop().time() - self._began
        self._chunks.append(chunk)
        for act in self._listeners:
            act(chunk)
        if chunk.reasoning and not chunk.text:
            self._n_reasoning_tokens += chunk.n_tokens
        if len(self._chunks) > _MOST_CHUNKS:
            places = {0, len(self._chunks), *(reader.n_seen for reader in self._readers)}
            borders = sorted(places)
            self._chunks[:] = [
                joined_chunk(self._chunks[start:end]) for start, end in pairwise(borders)
            ]
            for reader in self._readers:
                reader.n_seen = borders.index(reader.n_seen)
        self._moved.set()

    def shortened(self, n_tokens: int) -> None:
        self.prompt_tokens_original = n_tokens

    def drop_chunks(self) -> None:
        self._chunks.clear()
        self._n_reasoning_tokens = 0

    def reply_of(self, ended: AnswerEnd, digest: str) -> Reply:
        whole = joined_chunk(self._chunks)
        likeliest = max(ended.scores, key=lambda score: score.logprob, default=None)
        return Reply(
            self.request.answers[ended.scores.index(likeliest)] if likeliest else whole.text,
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
            ended.fingerprint,
            ended.scores,
        )

    def _ended(self, task: asyncio.Future[Reply]) -> None:
        self._moved.set()
        if not task.cancelled():
            task.exception()  # marks it as seen, since nothing may wait for it


class OpenAnswers(Struct, eq=False):
    _answers: set[Answer] = field(default_factory=set)

    def start(self, request: ChatRequest, serve: Callable[[Answer], Awaitable[Reply]]) -> Answer:
        answer = Answer(request, serve)
        self._answers.add(answer)
        answer.task.add_done_callback(lambda _: self._answers.discard(answer))
        return answer

    async def close(self) -> None:
        await end(*(answer.task for answer in self._answers))


def joined_chunk(chunks: Sequence[Chunk]) -> Chunk:
    return Chunk(
        "".join(chunk.text for chunk in chunks),
        sum(chunk.n_tokens for chunk in chunks),
        "".join(chunk.reasoning for chunk in chunks),
        tuple(call for chunk in chunks for call in chunk.tool_calls),
        tuple(logprob for chunk in chunks for logprob in chunk.logprobs),
    )
