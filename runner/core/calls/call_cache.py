"""Call cache: model calls go through the ledger, which answers known ones.

The key of a call is its rendered request and the model's digest. The raw reply is always recorded,
without secrets, also where nothing is looked up (`cache: off`, `--no-cache`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from paddock.engine.backends.answer import Answer
from paddock.engine.backends.neutral_request import (
    begin_neutral_chat,
    neutral_chat,
    neutral_embed,
    neutral_messages,
)
from paddock.engine.errors import BadRequest, EngineError, ModelReplaced, PromptTooLong
from paddock.engine.memory.pool_stats import stats_of
from paddock.engine.models.well_known import MEASURED
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    EmbedReply,
    EmbedRequest,
    ForwardingPool,
    Message,
    ModelFacts,
    ModelSpec,
    Pool,
    Reply,
    Stream,
    Tool,
    Usage,
    reserved_tokens,
    resolve_sampling,
)
from paddock.engine.system.records import replace
from paddock.engine.system.tasks import end
from paddock.engine.system.text import canonical_json
from paddock.engine.wire import to_plain
from paddock.runner.ledger.entries import CallRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.progress.events import ModelCall
from paddock.runner.progress.time_left import OpenCall

from ..run_stats import RunStats
from .call_rows import (
    cached_reply,
    cached_vectors,
    chat_key,
    embed_key,
    recorded_logprobs,
    vectors_columns,
)
from .recorded_calls import CallOrigin, KnownCall, PutOff, RecordedCalls, call_hash
from .run_models import CallInFlight, RunModels

ChunkListener = Callable[[Chunk], None]


class LedgerPool(RecordedCalls, ForwardingPool):
    """A pool around another one, for one step of one item: known replies come from the ledger."""

    def __init__(
        self, pool: Pool, ledger: Ledger, models: RunModels, stats: RunStats, caller: CallOrigin
    ) -> None:
        super().__init__(ledger, stats, caller)
        self._pool = pool
        self._models = models
        self._facts: dict[tuple[str, str, int | None], ModelFacts] = {}

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Return a model's facts, asked once for all that one step of one item does with it."""
        key = (model.pool, model.ref, model.n_ctx_tokens)
        if key not in self._facts:
            self._facts[key] = await self._pool.facts(model)
        return self._facts[key]

    async def pool_of(self, model: ModelSpec) -> Pool:
        return self._pool

    def chat(self, request: ChatRequest) -> Stream:
        return _LedgerStream(self, request)

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        count = super().count_chat
        try:
            n_tokens = await count(model, messages, tools)
        except BadRequest as error:
            plain = neutral_messages(messages)
            verdict = self._models.refusals.verdict
            raise await verdict(
                error, model.ref, plain, lambda: count(model, plain, tools)
            ) from error
        self._caller.n_counted = max(self._caller.n_counted, n_tokens)
        self._caller.n_ctx_tokens = (await self.facts(model)).n_ctx_tokens
        return n_tokens

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        began = time.time()
        async with self._after_equal_call(await self.looked_up_vectors(request)) as known:
            row = known.row
            if row is None:
                row = await self._embedded(request, known, began)
            else:
                self._count(row, began, cached_vectors(row).usage)
        # Unpacked in both cases: the ledger has float32, and a second run must see the same.
        return cached_vectors(row)

    async def _embedded(self, request: EmbedRequest, known: KnownCall, began: float) -> CallRow:
        call = self._open_call(request.texts)
        try:
            reply = await self._pool.embed(request)
        except BadRequest as error:
            plain = neutral_embed(request)
            verdict = self._models.refusals.verdict
            raise await verdict(
                error, request.model.ref, plain, lambda: self._pool.embed(plain)
            ) from error
        await self._check_same_model(request.model, known.digest, reply.digest)
        row = self._row(known.hash, "embed", known.request, request.model.ref, known.digest)
        row = replace(row, served_digest=reply.digest, **vectors_columns(reply))
        self._ledger.record_call(row, self._stats.run)
        self._count(row, began, reply.usage, call)
        return row

    @asynccontextmanager
    async def _after_equal_call(self, known: KnownCall) -> AsyncIterator[KnownCall]:
        """Wait while another item of this run makes an equal call; yield the call as it is then.

        Where a call ends without a reply, the next item that waits makes it. Where the model or its
        server failed, all that wait ask at once: they may fail one after the other otherwise.

        Raises:
            PutOff: the ledger has no reply, and the caller may not ask for one now.
        """
        if known.row is None and not self._caller.may_ask:
            raise PutOff
        if known.row is not None or not self._caller.looks_up:
            yield known
            return
        flight = self._models.in_flight.setdefault(known.hash, CallInFlight())
        async with flight.lock:  # an equal one may have ended since
            known = replace(known, row=self._recorded(known.hash))
            if known.row is None and not flight.has_failed:
                try:
                    yield known
                except EngineError:
                    flight.has_failed = True
                    raise
                return
        yield known

    async def looked_up(self, request: ChatRequest) -> KnownCall:
        """Return a chat call, with its row if the ledger has a reply.

        Raises:
            PromptTooLong: the prompt fitted when the ledger's reply was given, and does not now.
        """
        digest = await self._models.of(request.model)
        key = chat_key(request, digest)
        known = self._looked_up("chat", digest, key)
        model = request.model
        if known.row is None or model.pool:  # servers count in their own ways
            return known
        reply = cached_reply(known.row)
        n_ctx_tokens = model.n_ctx_tokens or await self._models.default_context(model) or 0
        max_tokens = resolve_sampling(request.params, model.params, request.defaults).max_tokens
        reserved = reserved_tokens(max_tokens, n_ctx_tokens)
        if reply.usage.prompt_tokens + reserved > n_ctx_tokens > 0:
            self._caller.is_cut = True
            raise PromptTooLong(reply.usage.prompt_tokens, reserved, n_ctx_tokens)
        if max_tokens is None and key["ctx"] is None and n_ctx_tokens:
            n_tokens = reply.usage.completion_tokens
            if n_tokens > reserved or (reply.done_reason == "length" and n_tokens < reserved):
                return self._looked_up("chat", digest, key | {"ctx": n_ctx_tokens})
        return known

    async def looked_up_vectors(self, request: EmbedRequest) -> KnownCall:
        digest = await self._models.of(request.model)
        key = embed_key(request, digest)
        if request.on_overflow == "split":  # the split into parts depends on the context size
            key["n_ctx_tokens"] = (await self._pool.facts(request.model)).n_ctx_tokens
        return self._looked_up("embed", digest, key)

    def _looked_up(self, kind: str, digest: str, key: dict[str, Any]) -> KnownCall:
        plain = canonical_json(key)
        request = self._stats.secrets.redact(plain)
        hash_ = call_hash(kind, self._hashed(request, plain))
        return KnownCall(digest, request, hash_, self._recorded(hash_))

    async def ask(self, request: ChatRequest, on_chunk: ChunkListener | None = None) -> Reply:
        began = time.time()
        async with self._after_equal_call(await self.looked_up(request)) as known:
            if known.row is None:
                return await self._ask_pool(request, known, began, on_chunk)
        reply = cached_reply(known.row)
        self._count(known.row, began, reply.usage)
        self._notice_limit(request, reply)
        if on_chunk is not None:
            n_tokens = reply.usage.completion_tokens
            on_chunk(Chunk(reply.text, n_tokens, reply.reasoning, reply.tool_calls))
        return reply

    async def _ask_pool(
        self, request: ChatRequest, known: KnownCall, began: float, on_chunk: ChunkListener | None
    ) -> Reply:
        await self._pool.ready(request.model)
        call = self._open_call([message.content for message in request.messages])

        def count(chunk: Chunk) -> None:
            call.note_tokens(chunk.n_tokens)
            self._stats.tokens(chunk.n_tokens)

        stream = self._pool.chat(request)
        try:
            # A callback leaves the pool free to restart a request when a worker or server dies.
            if on_chunk is None and isinstance(stream, Answer):
                stream.on_chunk(count)
            else:
                async for chunk in stream:
                    count(chunk)
                    if on_chunk is not None:
                        on_chunk(chunk)
            reply = self._without_secrets(await stream.reply())
        except BaseException as error:
            if isinstance(error, PromptTooLong):
                self._caller.is_cut = True
                call.usage = Usage()
            stream.cancel()
            if isinstance(error, BadRequest):
                raise await self._chat_refusal(error, request) from error
            raise
        self._notice_limit(request, reply)
        await self._check_same_model(request.model, known.digest, reply.digest)
        # As recorded, so that a later run sees the same probabilities.
        reply = replace(reply, logprobs=recorded_logprobs(reply))
        row = replace(
            self._row(known.hash, "chat", known.request, request.model.ref, known.digest),
            reply=reply.text.encode(),
            served_digest=reply.digest,
            done_reason=reply.done_reason,
            usage=to_plain(replace(reply, text="")),
        )
        self._ledger.record_call(row, self._stats.run)
        self._count(row, began, reply.usage, call)
        return reply

    async def _chat_refusal(self, error: BadRequest, request: ChatRequest) -> EngineError:
        async def begin(neutral: ChatRequest) -> None:
            stream = self._pool.chat(neutral)
            try:
                async for _ in stream:
                    break
            finally:
                stream.cancel()

        ref = request.model.ref
        ask = partial(begin_neutral_chat, begin, ref, request)
        return await self._models.refusals.verdict(error, ref, neutral_chat(request), ask)

    def _notice_limit(self, request: ChatRequest, reply: Reply) -> None:
        sampling = resolve_sampling(request.params, request.model.params, request.defaults)
        is_cut = sampling.max_tokens is None and reply.done_reason == "length"
        self._caller.is_cut |= is_cut or reply.is_shortened
        self._caller.max_tokens = sampling.max_tokens

    def _without_secrets(self, reply: Reply) -> Reply:
        redact = self._stats.secrets.redact
        calls = tuple(
            replace(call, arguments=self._stats.secrets.redacted(dict(call.arguments)))
            for call in reply.tool_calls
        )
        text, reasoning = redact(reply.text), redact(reply.reasoning)
        logprobs = reply.logprobs if text == reply.text else ()  # its tokens spell the secret
        return replace(reply, text=text, reasoning=reasoning, tool_calls=calls, logprobs=logprobs)

    async def _check_same_model(self, model: ModelSpec, digest: str, served_digest: str) -> None:
        facts = self._models.known[model.key]
        if facts.served_digest != served_digest:  # a tuned copy that is new, or a new model
            facts = await self._pool.facts(model)
            if facts.identity != digest:
                raise ModelReplaced(model.ref)
            self._models.known[model.key] = facts
        if facts.tuned_from is not None:
            self._stats.note(
                f"{facts.name} was computed by its tuned copy, {facts.digest[:12]}; "
                "`--exact` keeps to the original"
            )
        # Note once in a run that a model runs with a llama.cpp fallback.
        for resident in () if model.pool else stats_of(self._pool).resident:
            if resident.name == facts.name and resident.fallback:
                self._stats.note(f"{facts.name} {resident.fallback}")

    def _open_call(self, texts: Sequence[str]) -> OpenCall:
        return self._stats.begin_call(self._caller.step, self._caller.key, sum(map(len, texts)))

    def _count(
        self, row: CallRow, began: float, usage: Usage, call: OpenCall | None = None
    ) -> None:
        """Count a call that has ended; without `call`, the ledger had its reply."""
        caller, is_known = self._caller, call is None
        caller.n_calls += 1
        caller.n_new_calls += not is_known
        caller.n_tokens += usage.prompt_tokens + usage.completion_tokens
        if row.kind == "chat" and row.digest in MEASURED:
            self._stats.note(f"{row.model} {MEASURED[row.digest]}.")
        if self._keep_call(row.hash, row.kind, began, usage, is_known=is_known):
            ended = ModelCall(
                hash=row.hash,
                kind=row.kind,
                model=row.model,
                usage=usage,
                began=began,
                is_cached=is_known,
                request=row.request,
                answer=row.reply.decode() if row.kind == "chat" else "",
                done_reason=row.done_reason,
            )
            self._stats.call(caller.step, caller.key, ended, call)


class _LedgerStream:
    """Implements `paddock.engine.request.Stream`; it asks on first use.

    It asks in a task of its own, so that an iteration that stops early keeps no equal call waiting.
    """

    def __init__(self, pool: LedgerPool, request: ChatRequest) -> None:
        self._pool = pool
        self._request = request
        self._tasks: list[asyncio.Task[Reply | SystemExit]] = []
        self._is_cancelled = False

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """Yield the chunks in order; leaving before the end ends the call."""
        chunks: asyncio.Queue[Chunk | None] = asyncio.Queue()
        task = self._start(chunks.put_nowait)
        task.add_done_callback(lambda _: chunks.put_nowait(None))
        try:
            while (chunk := await chunks.get()) is not None:
                yield chunk
            _reply_of(task.result())
        except GeneratorExit:
            self._tasks.remove(task)
            raise
        finally:
            await end(task)

    async def reply(self) -> Reply:
        return _reply_of(await (self._tasks[-1] if self._tasks else self._start()))

    def cancel(self) -> None:
        self._is_cancelled = True
        for task in self._tasks:
            task.cancel()

    def _start(self, on_chunk: ChunkListener | None = None) -> asyncio.Task[Reply | SystemExit]:
        if self._is_cancelled:
            raise asyncio.CancelledError
        self._tasks.append(asyncio.create_task(self._ask_pool(on_chunk)))
        return self._tasks[-1]

    async def _ask_pool(self, on_chunk: ChunkListener | None) -> Reply | SystemExit:
        try:
            return await self._pool.ask(self._request, on_chunk)
        except SystemExit as error:  # raised in a task, it would end the event loop
            return error


def _reply_of(outcome: Reply | SystemExit) -> Reply:
    if isinstance(outcome, SystemExit):
        raise outcome
    return outcome
