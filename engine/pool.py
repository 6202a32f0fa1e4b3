"""The pool in this process: requests in, answers out, whatever happens to the workers.

Knows no YAML and no HTTP. A request that was in a worker when it died is sent again, at most
twice, unless its reader has already seen a part of the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from paddock.engine.answer import Answer
from paddock.engine.deadlines import Deadlines
from paddock.engine.errors import DeadlineExceeded, TextTooLong, WorkerLost, WrongRole
from paddock.engine.models import ModelFinder, with_context
from paddock.engine.request import (
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Reply,
    Sampling,
    Usage,
    resolve_sampling,
)
from paddock.engine.residency.residents import LoadCount, Residents, State
from paddock.engine.settings import PoolSettings
from paddock.engine.workers.process import Ticket, WorkerGone, WorkerProcess

_T = TypeVar("_T")

MAX_ATTEMPTS = 3
# Small enough that a waiting text is seen to move, large enough to be packed well.
EMBED_PORTION = 64


@dataclass(frozen=True, slots=True)
class ModelStats:
    """What a pool can tell of one model."""

    name: str
    state: State
    n_users: int
    n_parallel: int
    n_decoded_tokens: int


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What a pool can tell of itself."""

    resident: tuple[ModelStats, ...]
    loads: dict[str, LoadCount]


class LocalPool:
    """Models in worker processes on this machine. Use it as `async with LocalPool(…) as pool`.

    Every method must be called in the event loop that entered the context.
    """

    def __init__(self, settings: PoolSettings, *, models: ModelFinder | None = None) -> None:
        self.settings = settings
        self.models = models or ModelFinder(settings.models_dir, settings.cache_dir)
        self._residents = Residents(settings)
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
        """Tell what is resident, and what was loaded how often."""
        resident = tuple(
            ModelStats(
                one.facts.name,
                one.state,
                one.n_users,
                one.worker.load.n_parallel if one.worker else 0,
                one.worker.n_decoded_tokens if one.worker else 0,
            )
            for one in self._residents.resident()
        )
        return PoolStats(resident, dict(self._residents.loads))

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
        if known is None:
            known = await asyncio.to_thread(self.models.find, model.ref, self.settings.n_ctx_tokens)
            self._known[model.ref] = known
        return with_context(known, model.n_ctx_tokens)

    async def count_chat(self, model: ModelSpec, messages: Sequence[Message]) -> int:
        """Count the prompt's tokens, the model's chat template included."""
        turns = tuple(messages)
        return await self._repeatedly(model, lambda worker: worker.count_chat(turns))

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens with the model's own tokenizer, without special tokens."""
        wanted = tuple(texts)
        return await self._repeatedly(model, lambda worker: worker.count_texts(wanted))

    def chat(self, request: ChatRequest) -> Answer:
        """Queue a request; errors come out of the stream."""
        answer = Answer(request, self._serve)
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
        began = time.monotonic()
        vectors: list[tuple[float, ...]] = []
        n_tokens = 0
        for start in range(0, len(request.texts), EMBED_PORTION):
            texts = request.texts[start : start + EMBED_PORTION]
            rows, n_more = await self._embed_portion(request, texts, start)
            vectors += rows
            n_tokens += n_more
        usage = Usage(prompt_tokens=n_tokens, prefill_s=time.monotonic() - began)
        return EmbedReply(tuple(vectors), usage, facts.digest)

    async def _embed_portion(
        self, request: EmbedRequest, texts: tuple[str, ...], start: int
    ) -> tuple[list[tuple[float, ...]], int]:
        try:
            return await self._repeatedly(
                request.model, lambda worker: worker.embed(texts, request.dimensions, Ticket())
            )
        except TextTooLong as error:
            index = start + error.index
            raise TextTooLong(index, error.n_tokens, error.n_ctx_tokens) from None

    async def _repeatedly(
        self, model: ModelSpec, work: Callable[[WorkerProcess], Awaitable[_T]]
    ) -> _T:
        """Do something short in a model's worker, again where the worker dies."""
        facts = await self.facts(model)
        gone: WorkerGone | None = None
        for _ in range(MAX_ATTEMPTS):
            try:
                async with self._residents.lease(facts, model.keep_alive_s) as worker:
                    return await work(worker)
            except WorkerGone as error:
                gone = error
        assert gone is not None
        raise WorkerLost(model.ref, gone.reason)

    # One chat

    async def _serve(self, answer: Answer) -> Reply:
        """Carry one request through, over the deaths of workers."""
        request = answer.request
        facts = await self.facts(request.model)
        if facts.role != "chat":
            raise WrongRole(request.model.ref, "chat")
        sampling = resolve_sampling(request.params, request.model.params, facts.params)
        n_lost = 0
        while True:
            ticket = Ticket(on_chunk=answer.add)
            try:
                return await self._attempt(answer, facts, sampling, ticket)
            except WorkerGone as gone:
                # A death counts only against those that were being computed.
                n_lost += ticket.has_started
                if n_lost == MAX_ATTEMPTS or answer.was_read:
                    raise WorkerLost(request.model.ref, gone.reason) from None
                answer.forget()

    async def _attempt(
        self, answer: Answer, facts: ModelFacts, sampling: Sampling, ticket: Ticket
    ) -> Reply:
        request = answer.request
        spec = request.model
        is_job = request.priority == "batch"
        async with self._residents.lease(facts, spec.keep_alive_s, is_job=is_job) as worker:
            watch = Deadlines(request.total_s, request.idle_s)
            ticket.on_step = watch.step
            async with watch:
                ended = await worker.chat(request, sampling, ticket, facts.n_ctx_tokens)
        return answer.reply_of(ended.reason, ended.usage, facts.digest, ended.is_shortened)
