"""Run a call: ask the pool, wait for whole replies or tell them while they come.

Knows no dialect beyond `Call`. Whatever ends a call early (its reader goes, one of its answers
fails) ends all of its answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from paddock.engine.answer import Answer
from paddock.engine.api.errors import ApiError
from paddock.engine.pool import LocalPool
from paddock.engine.request import ChatRequest, Chunk, Reply

from .calls import Body, Call, Caller, Speaker, Stamp, failed_event
from .completions import CompletionCall
from .refusals import in_openais_words

CUT = '299 paddock "the prompt was shortened to fit the context"'
"""Of the header `Warning`."""


async def answered(pool: LocalPool, call: Call, caller: Caller) -> tuple[Body, list[Reply]]:
    """Give the whole answer, and the replies that it was made of.

    Raises:
        ApiError: in OpenAI's words.
    """
    with in_openais_words():
        ready = await _ready(pool, call)
        async with _asked(pool, ready, caller) as answers:
            replies = list(await asyncio.gather(*(answer.reply() for answer in answers)))
    return ready.body(replies, Stamp.new(call.prefix)), replies


class Talk:
    """One answer that is told while it comes."""

    def __init__(self, pool: LocalPool, call: Call, caller: Caller) -> None:
        self._pool = pool
        self._call = call
        self._caller = caller
        self._speaker: Speaker | None = None
        self._headers: dict[str, str] = {}

    def headers(self) -> dict[str, str]:
        """Give the response's headers; complete when there is a first event."""
        return self._headers

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Tell the answer; nothing is said before there is something to say.

        Raises:
            ApiError: in OpenAI's words.
        """
        with in_openais_words():
            ready = await _ready(self._pool, self._call)
            async with (
                _asked(self._pool, ready, self._caller) as answers,
                aclosing(_pieces(answers)) as pieces,
            ):
                async for index, piece in pieces:
                    for event in self._told(ready, answers, index, piece):
                        yield event
            if self._speaker is not None:
                for event in self._speaker.end():
                    yield event

    def fail(self, error: ApiError) -> bytes:
        """Say that there will be no more, and why."""
        return failed_event(error) if self._speaker is None else self._speaker.fail(error)

    def _told(
        self, call: Call, answers: list[Answer], index: int, piece: Chunk | Reply
    ) -> Iterator[bytes]:
        if self._speaker is None:
            if any(one.prompt_tokens_original is not None for one in answers):
                self._headers["Warning"] = CUT
            self._speaker = call.speaker(Stamp.new(call.prefix))
            yield from self._speaker.begin()
        if isinstance(piece, Reply):
            yield from self._speaker.reply(index, piece)
        else:
            yield from self._speaker.chunk(index, piece)


@asynccontextmanager
async def _asked(pool: LocalPool, call: Call, caller: Caller) -> AsyncIterator[list[Answer]]:
    """Ask for every answer of a call; none goes on when the call is over.

    A call is let in as a whole: the queue is full for the first of its answers, or for none.
    """
    answers = [
        pool.chat(one, waits=caller.waits or number > 0) for number, one in enumerate(call.requests)
    ]
    try:
        yield answers
    finally:
        for answer in answers:
            answer.cancel()


async def _pieces(answers: list[Answer]) -> AsyncGenerator[tuple[int, Chunk | Reply], None]:
    """Give the chunks of all answers as they come, each answer's reply after its last."""
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
        except BaseException as error:  # a pool that ends cancels its answers, not their readers
            coming.put_nowait((index, error))

    feeders = [asyncio.create_task(feed(*one)) for one in enumerate(answers)]
    try:
        n_left = len(answers)
        while n_left:
            index, piece = await coming.get()
            if isinstance(piece, BaseException):
                raise piece
            n_left -= isinstance(piece, Reply)
            yield index, piece
    finally:
        for feeder in feeders:
            feeder.cancel()
        await asyncio.gather(*feeders, return_exceptions=True)


async def _ready(pool: LocalPool, call: Call) -> Call:
    """Put the texts of echoed token ids into a call, where it wants them."""
    if not isinstance(call, CompletionCall) or not call.echoes:
        return call
    prompts = call.requests[:: call.n_choices]
    texts = [await _text_of(pool, one) for one in prompts]
    return replace(call, echoed=tuple(texts))


async def _text_of(pool: LocalPool, request: ChatRequest) -> str:
    if not request.prompt_tokens:
        return request.prompt or ""
    return await pool.detokenise(request.model, request.prompt_tokens)
