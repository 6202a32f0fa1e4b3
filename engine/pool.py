"""The pool in this process: requests in, answers out, whatever happens to the workers.

Knows no YAML and no HTTP. A request that was in a worker when it died is sent again, at most
twice, unless its reader has already seen a part of the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from paddock.engine.answer import Answer
from paddock.engine.deadlines import Deadlines
from paddock.engine.errors import (
    BadRequest,
    DeadlineExceeded,
    TextRefused,
    TextTooLong,
    WorkerLost,
    WrongRole,
)
from paddock.engine.models import ModelFinder, with_context
from paddock.engine.request import (
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Priority,
    Reply,
    Sampling,
    Usage,
    resolve_sampling,
)
from paddock.engine.residency.adapters import resolve_adapters
from paddock.engine.residency.caretaker import Start
from paddock.engine.residency.events import PoolEvents
from paddock.engine.residency.resident import Ask
from paddock.engine.residency.residents import Residents
from paddock.engine.residency.starting import ProfiledStart
from paddock.engine.residency.stats import ModelStats, PoolStats, model_stats
from paddock.engine.residency.survey import Survey, Surveyor
from paddock.engine.settings import PoolSettings
from paddock.engine.workers.probe import Probe, probe
from paddock.engine.workers.process import WorkerProcess
from paddock.engine.workers.ticket import Ticket, WorkerGone
from paddock.engine.workers.wire import Embedded

if TYPE_CHECKING:
    from paddock.engine.metrics import Metrics

__all__ = ["LocalPool", "ModelStats", "PoolStats", "Probe"]

_T = TypeVar("_T")

MAX_ATTEMPTS = 3
# Those that were not being computed when their worker died are not to blame, but a worker that dies
# each time before it has begun would be started for ever.
MAX_SENDINGS = 8
# Small enough that a waiting text is seen to move, large enough to be packed well.
EMBED_PORTION = 64
# One portion is computed, the next is tokenised, a third is on its way.
EMBED_AHEAD = 3


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
        surveyor: Surveyor | None = None,
        start: Start[WorkerProcess] | None = None,
    ) -> None:
        self.settings = settings
        self.models = models or ModelFinder(settings.models_dir, settings.cache_dir)
        self.metrics, self.events = _metered(events)
        self._residents = Residents(
            settings,
            start or ProfiledStart(settings),
            surveyor or Survey(settings),
            self.events,
        )
        self._known: dict[str, ModelFacts] = {}
        self._answers: set[Answer] = set()

    async def __aenter__(self) -> LocalPool:
        """Open the pool; nothing is loaded yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what runs and every worker."""
        for answer in tuple(self._answers):
            answer.cancel()
        await asyncio.gather(*(answer.ended() for answer in self._answers))
        await self._residents.close()

    def stats(self) -> PoolStats:
        """Tell what is resident, who waits, and what was loaded how often."""
        residents = self._residents
        resident = tuple(model_stats(one, residents) for one in residents.resident())
        return PoolStats(resident, dict(residents.loads), residents.waiting())

    @asynccontextmanager
    async def lease(self, models: Sequence[ModelSpec]) -> AsyncIterator[None]:
        """Ask that these models stay in memory while it can be avoided that they go.

        Nothing is loaded by it. It is advice, and ends after `lease_s`: runs that together lease
        more than there is room for take turns.
        """
        asks = [await self._ask(model) for model in models]
        async with self._residents.lease(ask.key for ask in asks):
            yield

    async def probe(self, within_s: float = 10.0) -> tuple[Probe, ...]:
        """Ask each worker that is ready for one real token, or one vector."""
        ready = [one for one in self._residents.resident() if one.is_open]
        return tuple(
            await asyncio.gather(
                *(probe(one.facts, one.worker, within_s) for one in ready if one.worker is not None)
            )
        )

    def worker_pids(self) -> tuple[int, ...]:
        """Tell the processes that hold models now."""
        workers = [one.worker for one in self._residents.resident()]
        return tuple(worker.pid for worker in workers if worker is not None)

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Tell what is known of a model without loading it.

        Raises:
            ModelNotFound: with the known names.
            ModelBroken: with path and reason.
        """
        known = self._known.get(model.ref)
        if known is None or not await asyncio.to_thread(Path(known.path).exists):
            # A tuned copy may have been undone meanwhile.
            known = await asyncio.to_thread(self._found, model.ref)
            self._known[model.ref] = known
        return with_context(known, model.n_ctx_tokens)

    def _found(self, ref: str) -> ModelFacts:
        known = self.models.find(ref, self.settings.n_ctx_tokens)
        draft = self.settings.draft_models.get(known.name)
        if draft is None:
            return known
        return replace(known, draft_path=str(self.models.locate(draft).path))

    async def count_chat(self, model: ModelSpec, messages: Sequence[Message]) -> int:
        """Count the prompt's tokens, the model's chat template included."""
        turns = tuple(messages)
        return await self._repeatedly(model, lambda worker: worker.count_chat(turns), is_brief=True)

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens with the model's own tokenizer, without special tokens."""
        wanted = tuple(texts)
        return await self._repeatedly(
            model, lambda worker: worker.count_texts(wanted), is_brief=True
        )

    def chat(self, request: ChatRequest, *, waits: bool = True) -> Answer:
        """Queue a request; errors come out of the stream.

        A caller that does not wait gets `Busy` when `max_queue` requests are before it.
        """
        answer = Answer(request, partial(self._serve, waits=waits))
        self._answers.add(answer)
        answer.when_ended(self._answers.discard)
        return answer

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Embed whole texts.

        Raises:
            TextTooLong: a text exceeds the model's context; nothing was cut.
            DeadlineExceeded: not within `total_s`.
        """
        try:
            async with asyncio.timeout(request.total_s):
                return await self._embed(request)
        except TimeoutError:
            raise DeadlineExceeded("total", request.total_s or 0.0) from None

    async def _embed(self, request: EmbedRequest) -> EmbedReply:
        facts = await self.facts(request.model)
        if facts.role != "embed":
            raise WrongRole(request.model.ref, "embed")
        if request.dimensions is not None and request.dimensions < 1:
            raise BadRequest(f"{request.dimensions} dimensions are asked for; at least 1 is needed")
        began = time.monotonic()
        parts = await self._embed_portions(request, facts.n_ctx_tokens)
        n_tokens = sum(part.n_tokens for part in parts)
        n_pieces = tuple(n for part in parts for n in part.n_pieces)
        seconds = time.monotonic() - began
        self.events.embedded(facts.name, len(request.texts), n_tokens, seconds)
        return EmbedReply(
            tuple(vector for part in parts for vector in part.vectors),
            Usage(prompt_tokens=n_tokens, prefill_s=seconds),
            facts.digest,
            n_pieces if any(n > 1 for n in n_pieces) else (),
        )

    async def _embed_portions(self, request: EmbedRequest, n_ctx_tokens: int) -> list[Embedded]:
        """Send a request in portions, some ahead, so that the device never waits for the next."""
        ahead = asyncio.Semaphore(EMBED_AHEAD)

        async def portion(start: int) -> Embedded:
            async with ahead:
                return await self._embed_portion(request, start, n_ctx_tokens)

        starts = range(0, len(request.texts), EMBED_PORTION)
        tasks = [asyncio.create_task(portion(start)) for start in starts]
        try:
            return await asyncio.gather(*tasks)
        finally:  # the first that fails ends the others
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _embed_portion(
        self, request: EmbedRequest, start: int, n_ctx_tokens: int
    ) -> Embedded:
        texts = request.texts[start : start + EMBED_PORTION]
        try:
            return await self._repeatedly(
                request.model,
                lambda worker: worker.embed(
                    texts,
                    Ticket(),
                    dimensions=request.dimensions,
                    n_ctx_tokens=n_ctx_tokens,
                    priority=request.priority,
                    splits=request.on_overflow == "split",
                ),
                priority=request.priority,
            )
        except TextTooLong as error:
            index = start + error.index
            raise TextTooLong(index, error.n_tokens, error.n_ctx_tokens) from None
        except TextRefused as error:
            raise TextRefused(start + error.index, error.why) from None

    async def _repeatedly(
        self,
        model: ModelSpec,
        work: Callable[[WorkerProcess], Awaitable[_T]],
        *,
        priority: Priority = "normal",
        is_brief: bool = False,
    ) -> _T:
        """Do something short in a model's worker, again where the worker dies."""
        ask = await self._ask(model, priority=priority, is_brief=is_brief)
        gone: WorkerGone | None = None
        for _ in range(MAX_ATTEMPTS):
            try:
                async with self._residents.use(ask) as worker:
                    return await work(worker)
            except WorkerGone as error:
                gone = error
                self.events.requeued(ask.facts.name)
        assert gone is not None
        raise WorkerLost(model.ref, gone.reason)

    async def _ask(
        self,
        model: ModelSpec,
        *,
        priority: Priority = "normal",
        is_brief: bool = False,
        waits: bool = True,
    ) -> Ask:
        """Say in the actor's words what is wanted."""
        facts = await self.facts(model)
        adapters = resolve_adapters(model.adapters)
        return Ask(facts, adapters, model.keep_alive_s, model.is_pinned, priority, is_brief, waits)

    # One chat

    async def _serve(self, answer: Answer, *, waits: bool) -> Reply:
        """Carry one request through, over the deaths of workers."""
        request = answer.request
        ask = await self._ask(request.model, priority=request.priority, waits=waits)
        if ask.facts.role != "chat":
            raise WrongRole(request.model.ref, "chat")
        if ask.facts.projector is None and any(one.images for one in request.messages):
            raise BadRequest(f"model '{ask.facts.name}' cannot see images: it has no projector")
        sampling = resolve_sampling(request.params, request.model.params, ask.facts.params)
        n_lost = 0
        for n_sent in range(1, MAX_SENDINGS + 1):
            ticket = Ticket(on_chunk=answer.add)
            try:
                return await self._attempt(answer, ask, sampling, ticket)
            except WorkerGone as gone:
                # A death counts only against those that were being computed.
                n_lost += ticket.has_started
                if n_lost == MAX_ATTEMPTS or n_sent == MAX_SENDINGS or answer.was_read:
                    raise WorkerLost(request.model.ref, gone.reason) from None
                answer.forget()
                self.events.requeued(ask.facts.name)
        raise AssertionError

    async def _attempt(self, answer: Answer, ask: Ask, sampling: Sampling, ticket: Ticket) -> Reply:
        request, facts = answer.request, ask.facts
        async with self._residents.use(ask) as worker:
            watch = Deadlines(request.total_s, request.idle_s)
            ticket.on_step = watch.step
            async with watch:
                ended = await worker.chat(request, sampling, ticket, facts.n_ctx_tokens)
        self.events.answered(facts.name, ended.reason, ended.usage, answer.first_s)
        return answer.reply_of(ended.reason, ended.usage, facts.digest, ended.is_shortened)


def _metered(events: PoolEvents | None) -> tuple[Metrics, PoolEvents]:
    """Give a pool's numbers, and whom it tells: them, and whoever else listens."""
    # Here, because prometheus_client takes 50 ms that most commands need not pay.
    from paddock.engine.metrics import Metrics, heard_by

    metrics = Metrics()
    return metrics, metrics if events is None else heard_by(metrics, events)
