"""Query batches: texts of several items that are to be embedded at the same time go together."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterator

from paddock.engine.errors import EngineError
from paddock.engine.request import (
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    ForwardingPool,
    ModelSpec,
    Pool,
    Stream,
    Usage,
)
from paddock.engine.system.records import Struct, replace

MOST_QUERY_TEXTS = 256


class _WaitingQuery(Struct, frozen=True):
    request: EmbedRequest
    reply: asyncio.Future[EmbedReply]


class QueryBatches(ForwardingPool):
    """A pool around another one, which embeds the queries of one step in batches.

    It is used in one event loop. The first request that waits sends all that wait, and those that
    are expected, so that a block's queries are few calls. Where that fails, each is sent by itself.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: dict[str, list[_WaitingQuery]] = defaultdict(list)
        """Requests that wait, by the part that requests of one batch share: all but their texts."""
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._expected: deque[Iterator[str]] = deque(maxlen=MOST_QUERY_TEXTS)
        """Of the latest blocks, so that those in flight are among them."""
        self._ready: dict[tuple[str, str], EmbedReply] = {}
        """Replies to expected texts until they are asked for, by that part and the text."""

    async def pool_of(self, model: ModelSpec) -> Pool:
        return self._pool

    def chat(self, request: ChatRequest) -> Stream:
        return self._pool.chat(request)

    def expect(self, texts: Iterator[str]) -> None:
        self._expected.append(texts)

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        kind = repr(replace(request, texts=()))
        query = _WaitingQuery(request, asyncio.get_running_loop().create_future())
        waiting = self._waiting[kind]
        waiting.append(query)
        try:
            if not self._is_ready(kind, query):
                async with self._locks[kind]:
                    await asyncio.sleep(0)  # items that begin together ask together
                    while not self._is_ready(kind, query):
                        await self._send(kind, waiting)
        finally:
            waiting.remove(query)
        return query.reply.result()

    def _is_ready(self, kind: str, query: _WaitingQuery) -> bool:
        if not query.reply.done() and len(query.request.texts) == 1:
            reply = self._ready.pop((kind, query.request.texts[0]), None)
            if reply is not None:
                query.reply.set_result(reply)
        return query.reply.done()

    async def _send(self, kind: str, waiting: list[_WaitingQuery]) -> None:
        """Send what waits, up to `MOST_QUERY_TEXTS` texts; the first request is always sent."""
        batch, n_texts = list[_WaitingQuery](), 0
        for query in [query for query in waiting if not query.reply.done()]:
            n_texts += len(query.request.texts)
            if batch and n_texts > MOST_QUERY_TEXTS:
                break
            batch.append(query)
        texts = tuple(text for query in batch for text in query.request.texts)
        expected = dict[str, None]()
        while self._expected and len(texts) + len(expected) < MOST_QUERY_TEXTS:
            text = next(self._expected[0], None)
            if text is None:
                self._expected.popleft()
            elif text not in texts:
                expected[text] = None
        request = replace(batch[0].request, texts=(*texts, *expected))
        try:
            reply_to_all = await self._pool.embed(request)
        except EngineError as error:
            if expected:  # one of these may be the reason
                self._expected.clear()
            elif len(batch) == 1:
                batch[0].reply.set_exception(error)
            else:
                for query in batch:
                    try:
                        query.reply.set_result(await self._pool.embed(query.request))
                    except EngineError as alone:
                        query.reply.set_exception(alone)
            return
        sizes = [len(query.request.texts) for query in batch] + [1] * len(expected)
        # Each query gets its part of the vectors, and of the tokens by the length of its texts.
        left, rest, begin = reply_to_all.usage.prompt_tokens, sum(map(len, request.texts)), 0
        shares = []
        for size in sizes:
            end = begin + size
            n_chars = sum(map(len, request.texts[begin:end]))
            n_tokens = round(left * n_chars / rest) if rest else left
            left, rest = left - n_tokens, rest - n_chars
            usage = reply_to_all.usage if len(sizes) == 1 else Usage(prompt_tokens=n_tokens)
            shares.append(
                replace(
                    reply_to_all,
                    vectors=reply_to_all.vectors[begin:end],
                    usage=usage,
                    n_pieces=reply_to_all.n_pieces[begin:end],
                    n_cut_tokens=reply_to_all.n_cut_tokens[begin:end],
                )
            )
            begin = end
        replies = iter(shares)
        for query, reply in zip(batch, replies, strict=False):
            query.reply.set_result(reply)
        # Replies that no item has asked for go first.
        older = [*self._ready.items()][-MOST_QUERY_TEXTS:]
        new = {(kind, text): reply for text, reply in zip(expected, replies, strict=True)}
        self._ready = dict(older) | new
