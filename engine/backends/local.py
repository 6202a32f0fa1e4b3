"""The pool of this process: models in worker processes on this machine.

Knows no YAML and no HTTP. A request that was in a worker when it died is sent again, at most
twice, unless its reader has already seen a part of the answer. A death after which the next worker
is started with a fallback of llama.cpp does not count.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from paddock.engine.errors import (
    BadRequest,
    EngineError,
    ModelUnusable,
    WorkerLost,
    WrongRole,
)
from paddock.engine.memory.loader import ModelUse, StartWorker, WorkerStarter, resolve_adapters
from paddock.engine.memory.manager import ModelManager
from paddock.engine.memory.model_layout import MachineProbe, MemoryProbe
from paddock.engine.memory.pool_stats import PoolEvents, PoolStats, fan_out
from paddock.engine.models.model_cards import (
    ModelFactsCache,
    merged_sampling,
    with_model_defaults,
    with_model_messages,
)
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.models.model_names import canonical_name
from paddock.engine.request import (
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Priority,
    Reply,
    RerankReply,
    RerankRequest,
    Role,
    Sampling,
    Think,
    Tool,
    Usage,
)
from paddock.engine.settings import PoolSettings
from paddock.engine.workers.crashes import has_crashed, rebuild_command
from paddock.engine.workers.worker_process import (
    FIRST_TURNS,
    ProbeResult,
    WorkerProcess,
    probe_worker,
)
from paddock.engine.workers.worker_protocol import Embedded, EmbedOrder, PendingRequest, WorkerGone

from .base import Answer, OpenAnswers, deadlines, embed_in_portions, total_deadline

_T = TypeVar("_T")

MAX_ATTEMPTS = 3
# Those that were not being computed when their worker died are not to blame, but a worker that dies
# each time before it has begun would be started for ever.
MAX_SENDINGS = 8
PROBE_S = 60.0


class LocalPool:
    """Models in worker processes on this machine. Use it as `async with LocalPool(…) as pool`.

    Every method must be called in the event loop that entered the context.
    """

    def __init__(
        self,
        settings: PoolSettings,
        *,
        models: ModelFinder | None = None,
        events: PoolEvents | None = None,
        memory_probe: MemoryProbe | None = None,
        start: StartWorker[WorkerProcess] | None = None,
    ) -> None:
        from .metrics import Metrics  # prometheus_client: 50 ms that most commands need not pay

        self.settings = settings
        self.models = models or ModelFinder(settings.models_dir, settings.cache_dir)
        self.metrics = Metrics()
        self.events = self.metrics if events is None else fan_out(self.metrics, events)
        self._residents = ModelManager(
            settings,
            start or WorkerStarter(settings),
            memory_probe or MachineProbe(settings),
            self.events,
        )
        self._catalogue = ModelFactsCache(self.models, settings)
        self._answers = OpenAnswers()

    async def __aenter__(self) -> LocalPool:
        """Open the pool; nothing is loaded yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._answers.close()
        await self._residents.close()

    def stats(self) -> PoolStats:
        return self._residents.stats()

    @asynccontextmanager
    async def lease(self, models: Sequence[ModelSpec]) -> AsyncIterator[None]:
        """Ask that these models stay in memory while it can be avoided that they go.

        Nothing is loaded. The lease is advice and ends after `lease_s`: runs that together lease
        more than fits take turns.
        """
        asks = [await self._ask(model) for model in models]
        async with self._residents.lease(asks):
            yield

    async def probe(self, within_s: float = 10.0) -> tuple[ProbeResult, ...]:
        """Compute one token, or one vector, in each worker that is ready."""
        ready = [one for one in self._residents.resident() if one.is_open]
        return tuple(
            await asyncio.gather(
                *(
                    probe_worker(one.facts, one.worker, within_s)
                    for one in ready
                    if one.worker is not None
                )
            )
        )

    def worker_pids(self) -> tuple[int, ...]:
        workers = [one.worker for one in self._residents.resident()]
        return tuple(worker.pid for worker in workers if worker is not None)

    async def facts(self, model: ModelSpec) -> ModelFacts:
        facts = await self._facts(model)
        with suppress(EngineError):  # the first request says why it cannot be loaded
            ask = await self._asked(model, facts)
            facts = replace(facts, n_parallel=await self._residents.n_parallel(ask))
        return facts

    async def _facts(self, model: ModelSpec) -> ModelFacts:
        return (await self._catalogue.facts(model.ref)).with_context(model.n_ctx_tokens)

    async def load(self, model: ModelSpec) -> float:
        """Load a model; return the seconds that it took, 0 if it was loaded.

        A `keep_alive_s` of the spec is the model's from now on; without one it keeps its own.
        """
        ask = replace(await self._ask(model), is_brief=True)
        began = self._residents.now()
        async with self._residents.use(ask):
            return self._residents.awaited_load_s(ask.key, began)

    async def unload(self, ref: str) -> bool:
        """Unload a model when its last request has ended; return whether it was loaded.

        Works for models that are not on disk any more. Other names of the same file go with it.
        """
        name, key = canonical_name(ref), ""
        with suppress(EngineError):
            key = (await self._ask(ModelSpec(ref))).key
        return await self._residents.dismiss(
            lambda one: one.key == key or canonical_name(one.facts.name) == name
        )

    async def count_chat(
        self,
        model: ModelSpec,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        think: Think | None = None,
    ) -> int:
        facts = await self._facts(model)
        turns = with_model_messages(messages, facts)
        return await self._briefly(
            model,
            lambda one: one.count_chat(turns, facts.template, tools, think, facts.n_ctx_tokens),
        )

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        wanted = tuple(texts)
        return await self._briefly(model, lambda one: one.count_texts(wanted))

    async def tokenise(self, model: ModelSpec, text: str) -> list[int]:
        """Return a text's token ids; control tokens that it spells are read as such, none added."""
        return await self._briefly(model, lambda one: one.tokenise(text))

    async def detokenise(self, model: ModelSpec, tokens: Sequence[int]) -> str:
        """Return the text of token ids, control tokens as they are spelled.

        Raises:
            BadRequest: the model has no such token.
        """
        return await self._briefly(model, lambda one: one.detokenise(tokens))

    def chat(self, request: ChatRequest, *, waits: bool = True) -> Answer:
        """Queue a request; errors come out of the stream.

        A caller that does not wait gets `Busy` when `max_queue` requests are before it.
        """
        return self._answers.start(request, partial(self._serve, waits=waits))

    async def embed(self, request: EmbedRequest, *, waits: bool = True) -> EmbedReply:
        """Embed whole texts.

        Raises:
            TextTooLong: a text exceeds the model's context; nothing was cut.
            DeadlineExceeded: not within `total_s`.
            Busy: the caller does not wait, and `max_queue` requests are before it.
        """
        async with total_deadline(request.total_s):
            return await self._embed(request, waits=waits)

    async def _embed(self, request: EmbedRequest, *, waits: bool) -> EmbedReply:
        facts = await self._facts_of(request.model, "embed")
        if request.dimensions is not None and request.dimensions < 1:
            raise BadRequest(f"{request.dimensions} dimensions are asked for; at least 1 is needed")
        whole, usage = await self._computed(
            request, request.texts, facts, waits=waits, dimensions=request.dimensions
        )
        digest = await self._digest_now(request.model, facts)
        return EmbedReply(whole.vectors, usage, digest, whole.n_pieces, whole.n_cut_tokens)

    async def rerank(self, request: RerankRequest, *, waits: bool = True) -> RerankReply:
        """Score documents for a query.

        Raises:
            WrongRole: the model is no reranker.
            TextTooLong: query and document exceed the context; nothing was cut.
            DeadlineExceeded: not within `total_s`.
        """
        facts = await self._facts_of(request.model, "rerank")
        async with total_deadline(request.total_s):
            whole, usage = await self._computed(
                request, request.documents, facts, waits=waits, query=request.query
            )
        return RerankReply(tuple(score for (score,) in whole.vectors), usage, facts.digest)

    async def _facts_of(self, model: ModelSpec, role: Role) -> ModelFacts:
        facts = await self._facts(model)
        if facts.role != role:
            raise WrongRole(model.ref, role, facts.role)
        return facts

    async def _computed(
        self,
        request: EmbedRequest | RerankRequest,
        texts: tuple[str, ...],
        facts: ModelFacts,
        *,
        waits: bool,
        dimensions: int | None = None,
        query: str | None = None,
    ) -> tuple[Embedded, Usage]:
        """Return the vectors of texts, or their scores, and what they took."""
        began = time.monotonic()
        load_s = 0.0

        async def send(texts: tuple[str, ...], start: int) -> Embedded:
            nonlocal load_s
            ask = await self._ask(
                request.model, priority=request.priority, waits=waits or start > 0
            )
            since = self._residents.now()
            order = EmbedOrder(
                texts, query, dimensions, facts.n_ctx_tokens, request.priority, request.on_overflow
            )

            async def work(worker: WorkerProcess) -> Embedded:
                nonlocal load_s
                load_s = max(load_s, self._residents.awaited_load_s(ask.key, since))
                return await worker.embed(order, PendingRequest())

            return await self._repeatedly(request.model, ask, work)

        whole = await embed_in_portions(texts, send)
        seconds = time.monotonic() - began
        self.events.embedded(facts.name, len(texts), whole.n_tokens, seconds)
        usage = Usage(whole.n_tokens, load_s=load_s, prefill_s=max(0.0, seconds - load_s))
        return whole, usage

    async def _briefly(
        self, model: ModelSpec, work: Callable[[WorkerProcess], Awaitable[_T]]
    ) -> _T:
        """Run in a model's worker what needs no sequence."""
        return await self._repeatedly(model, await self._ask(model, is_brief=True), work)

    async def _repeatedly(
        self, model: ModelSpec, ask: ModelUse, work: Callable[[WorkerProcess], Awaitable[_T]]
    ) -> _T:
        """Run something short in a model's worker, again where the worker dies."""
        n_lost = 0
        while True:
            try:
                async with self._residents.use(ask) as worker:
                    return await work(worker)
            except WorkerGone as gone:
                n_lost += not gone.has_fallback
                if n_lost == MAX_ATTEMPTS:
                    raise await self._given_up(ask, model.ref, gone, n_lost) from None
                self.events.requeued(ask.facts.name)

    async def _ask(
        self,
        model: ModelSpec,
        *,
        priority: Priority = "normal",
        is_brief: bool = False,
        waits: bool = True,
    ) -> ModelUse:
        """Return what the model manager needs to know of a request."""
        ask = await self._asked(model, await self._facts(model))
        return replace(ask, priority=priority, is_brief=is_brief, waits=waits)

    @staticmethod
    async def _asked(model: ModelSpec, facts: ModelFacts) -> ModelUse:
        refs = (*facts.adapters, *model.adapters)
        adapters = await asyncio.to_thread(resolve_adapters, refs) if refs else ()
        return ModelUse(facts, adapters, model.keep_alive_s, model.is_pinned)

    async def _serve(self, answer: Answer, *, waits: bool) -> Reply:
        """Answer one request, again where a worker dies."""
        request = answer.request
        ask = await self._ask(request.model, priority=request.priority, waits=waits)
        if ask.facts.role != "chat":
            raise WrongRole(request.model.ref, "chat", ask.facts.role)
        if ask.facts.projector is None and _has_images(request):
            raise BadRequest(f"model '{ask.facts.name}' cannot see images: it has no projector")
        sampling = merged_sampling(request, ask.facts)
        n_lost = n_sent = 0
        while True:
            ticket = PendingRequest(on_chunk=answer.add, on_shortened=answer.shortened)
            try:
                return await self._attempt(answer, ask, sampling, ticket)
            except WorkerGone as gone:
                # A death counts only against those that were being computed, and only where the
                # next worker is started as this one was.
                n_sent += not gone.has_fallback
                n_lost += ticket.has_started and not gone.has_fallback
                if answer.was_read:
                    reason = (
                        f"{gone.reason}; a part of the answer was read, so it is not sent again"
                    )
                    raise WorkerLost(request.model.ref, reason) from None
                if n_lost == MAX_ATTEMPTS or n_sent == MAX_SENDINGS:
                    raise await self._given_up(ask, request.model.ref, gone, n_sent) from None
                answer.forget()
                self.events.requeued(ask.facts.name)

    async def _given_up(
        self, ask: ModelUse, ref: str, gone: WorkerGone, n_sent: int
    ) -> EngineError:
        """Return the error of a request that is not sent again: the model's fault, or its own."""
        if has_crashed(gone.reason) and not await self._answers_at_all(ask):
            return ModelUnusable(ask.facts.name, gone.reason, rebuild_command())
        return WorkerLost(ref, f"{gone.reason}; it was sent {n_sent} times, and is given up")

    async def _answers_at_all(self, ask: ModelUse) -> bool:
        """Return whether a model answers a plain request, in a worker that crashed before."""
        try:
            async with self._residents.use(ask) as worker:
                probed = await probe_worker(ask.facts, worker, PROBE_S, n_tokens=FIRST_TURNS)
        except ModelUnusable:
            return False
        except EngineError:
            return True  # it cannot be tried now, so nothing is known of it
        return probed.is_well or not has_crashed(probed.why)

    async def _attempt(
        self, answer: Answer, ask: ModelUse, sampling: Sampling, ticket: PendingRequest
    ) -> Reply:
        facts = ask.facts
        request = with_model_defaults(answer.request, facts)
        began = self._residents.now()
        async with self._residents.use(ask) as worker:
            load_s = self._residents.awaited_load_s(ask.key, began)
            outside_s = self._residents.now() - began - load_s
            async with deadlines(request.total_s, request.idle_s) as ticket.on_step:
                ended = await worker.chat(request, sampling, ticket, facts.n_ctx_tokens)
        usage = ended.usage
        self.events.answered(facts.name, ended.reason, usage, answer.first_s)
        usage = replace(usage, load_s=load_s, queue_s=usage.queue_s + outside_s)
        digest = await self._digest_now(request.model, facts)
        return answer.reply_of(replace(ended, usage=usage), digest)

    async def _digest_now(self, model: ModelSpec, before: ModelFacts) -> str:
        """Return the digest after an answer: a worker that restarted has read the newer file."""
        with suppress(EngineError):
            return (await self._facts(model)).digest
        return before.digest


def _has_images(request: ChatRequest) -> bool:
    return bool(request.images) or any(one.images for one in request.messages)
