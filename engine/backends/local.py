"""The pool of this process: models in worker processes on this machine.

Knows no YAML and no HTTP. A request that was in a worker when it died is sent again, unless its
reader has already seen a part of the answer. One that was being computed then is a suspect: it
waits for the others, and is given up when workers died while they computed nothing else. A death
after which the next worker is started with a fallback of llama.cpp does not count.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from paddock.engine.chat.image_checks import check_image
from paddock.engine.errors import (
    BadRequest,
    EngineError,
    ModelBroken,
    ModelUnusable,
    WorkerLost,
    WrongRole,
)
from paddock.engine.memory.loaded_models import LoadedModel, ModelUse, resolve_adapters
from paddock.engine.memory.machine_probe import MachineProbe
from paddock.engine.memory.manager import ModelManager
from paddock.engine.memory.pool_stats import PoolEvents, PoolStats, combine_listeners
from paddock.engine.memory.worker_starter import StartWorker, WorkerStarter
from paddock.engine.models.model_defaults import (
    merged_sampling,
    with_model_defaults,
    with_model_messages,
)
from paddock.engine.models.model_facts_cache import ModelFactsCache
from paddock.engine.models.model_finder import ModelFinder
from paddock.engine.models.model_names import canonical_name
from paddock.engine.option_scoring import OptionQuestion, OptionShares, score_options
from paddock.engine.profile.profile import PoolProfiles
from paddock.engine.request import (
    PRIORITY_RANK,
    ChatRequest,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Pool,
    Priority,
    Reply,
    RerankReply,
    RerankRequest,
    Role,
    Think,
    Tool,
    Usage,
)
from paddock.engine.settings import PoolSettings
from paddock.engine.system.crash_isolation import Crash, CrashRecord
from paddock.engine.system.records import replace
from paddock.engine.workers.fallbacks import rebuild_command
from paddock.engine.workers.worker_process import (
    FIRST_TURNS,
    ProbeResult,
    WorkerProcess,
    probe_worker,
)
from paddock.engine.workers.worker_protocol import Embedded, EmbedOrder, PendingRequest, WorkerGone

from .answer import Answer, OpenAnswers, deadlines, total_deadline
from .embed_portions import embed_in_portions

_T = TypeVar("_T")
log = logging.getLogger(__name__)


class _ModelChanged(Exception):
    """A model's files were replaced since a request was made out for them; nothing was sent."""


MAX_ATTEMPTS = 3  # of a request alone
PROBE_S = 60.0


class LocalPool(Pool):
    """Models in worker processes on this machine. Use it as `async with LocalPool(…) as pool`.

    Every method must be called in the event loop that entered the context.
    """

    def __init__(
        self,
        settings: PoolSettings,
        *,
        models: ModelFinder | None = None,
        events: PoolEvents | None = None,
        memory_probe: MachineProbe | None = None,
        start: StartWorker | None = None,
        has_metrics: bool = True,
    ) -> None:
        self.settings = settings
        self.models = models or ModelFinder(
            settings.models_dir, settings.cache_dir, is_exact=settings.is_exact
        )
        self.events = events or PoolEvents()
        if has_metrics:
            from .metrics import Metrics  # prometheus_client: 50 ms that a run need not pay

            self.metrics = Metrics()
            self.events = (
                self.metrics if events is None else combine_listeners(self.metrics, events)
            )
        self._residents = ModelManager(
            settings,
            start or WorkerStarter(settings),
            memory_probe or MachineProbe(settings),
            self.events,
        )
        self._catalogue = ModelFactsCache(self.models, settings)
        self._profiles = PoolProfiles(settings)
        self._answers = OpenAnswers()
        self._crashes: defaultdict[str, CrashRecord] = defaultdict(CrashRecord)
        self.on_request: Callable[[], None] = lambda: None
        """Called at each use of a model."""

    async def __aenter__(self) -> LocalPool:
        """Open the pool; nothing is loaded yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._answers.close()
        await self._residents.close()

    def stats(self) -> PoolStats:
        return self._residents.stats()

    async def probe(self, within_s: float = 10.0) -> tuple[ProbeResult, ...]:
        """Compute one token, or one vector, in each worker that is ready."""
        ready = [resident for resident in self._residents.resident() if resident.is_open]
        return tuple(
            await asyncio.gather(
                *(
                    probe_worker(resident.facts, resident.worker, within_s)
                    for resident in ready
                    if resident.worker is not None
                )
            )
        )

    def unmeasured(self) -> list[str]:
        """Return the digests of the idle models to measure (`measure`)."""
        return [resident.facts.digest for resident in self._unmeasured()]

    async def measure(self, digest: str) -> None:
        """Measure an idle model in its worker; what that is asked meanwhile ends it.

        The profile is saved, and used at once.

        Raises:
            WorkerGone: its process ended.
        """
        for resident in self._unmeasured():
            if resident.facts.digest == digest and resident.worker is not None:
                try:
                    profile = await resident.worker.measure_speed()
                except WorkerGone as gone:
                    if gone.end.is_crash:
                        await self._goes_back(resident.facts, str(gone.end))
                    raise
                await asyncio.to_thread(self._profiles.keep, {"profile": profile})

    def _unmeasured(self) -> list[LoadedModel]:
        """Return the idle models to measure: no embedding models, and none on a device."""
        return [
            resident
            for resident in self._residents.resident()
            if resident.is_open
            and not resident.n_users
            and resident.worker is not None
            and not resident.worker.is_measured
            and resident.worker.load.profile_s > 0
            and resident.worker.load.role == "chat"
            and not resident.worker.load.is_gpu
        ]

    def worker_pids(self) -> tuple[int, ...]:
        workers = [resident.worker for resident in self._residents.resident()]
        return tuple(worker.pid for worker in workers if worker is not None)

    async def facts(self, model: ModelSpec) -> ModelFacts:
        facts = await self._facts(model, asks_for_tools=True)
        with suppress(EngineError):  # the first request says why it cannot be loaded
            model_use = await self._model_use(model, facts)
            facts = replace(facts, n_parallel=await self._residents.n_parallel(model_use))
        return facts

    async def _facts(self, model: ModelSpec, *, asks_for_tools: bool = False) -> ModelFacts:
        facts = await self._catalogue.facts(model.ref, asks_for_tools=asks_for_tools)
        return facts.with_context(model.n_ctx_tokens)

    async def load(self, model: ModelSpec) -> float:
        """Load a model; return the seconds that it took, 0 if it was loaded.

        A `keep_alive_s` of the spec is the model's from now on; without one it keeps its own.
        """
        model_use = replace(await self._request_use(model), is_brief=True)
        began = self._residents.now()
        async with self._residents.use(model_use):
            return self._residents.awaited_load_s(model_use.key, began)

    async def unload(self, ref: str) -> bool:
        """Unload a model when its last request has ended; return whether it was loaded.

        Works for models that are not on disk any more. Other names of the same file go with it.
        """
        name = canonical_name(ref)
        key = ""
        with suppress(EngineError):
            key = (await self._request_use(ModelSpec(ref))).key
        return await self._residents.unload_when_idle(
            lambda resident: resident.key == key or canonical_name(resident.facts.name) == name
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
            lambda worker: worker.count_chat(
                turns, facts.template, tools, think, facts.n_ctx_tokens
            ),
        )

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        own_texts = tuple(texts)
        return await self._briefly(model, lambda worker: worker.count_texts(own_texts))

    async def tokenise(self, model: ModelSpec, text: str) -> list[int]:
        """Return a text's token ids; control tokens that it spells are read as such, none added."""
        return await self._briefly(model, lambda worker: worker.tokenise(text))

    async def detokenise(self, model: ModelSpec, tokens: Sequence[int]) -> str:
        """Return the text of token ids, control tokens as they are spelled."""
        return await self._briefly(model, lambda worker: worker.detokenise(tokens))

    def chat(self, request: ChatRequest, *, waits: bool = True) -> Answer:
        """Queue a request; errors come out of the stream.

        A caller that does not wait gets `Busy` when `max_queue` requests are before it.
        """
        self.on_request()
        return self._answers.start(request, partial(self._serve, waits=waits))

    async def score_options(
        self, request: ChatRequest, questions: Sequence[OptionQuestion], *, waits: bool
    ) -> tuple[list[OptionShares], Usage]:
        """Return how likely the options of each question about a conversation are.

        A full queue refuses them as a whole: only the first can be refused.
        """
        is_first = iter((True,))

        async def ask(question: ChatRequest) -> Reply:
            return await self.chat(question, waits=waits or not next(is_first, False)).reply()

        return await score_options(ask, request, questions)

    async def embed(self, request: EmbedRequest, *, waits: bool = True) -> EmbedReply:
        """Embed whole texts; a caller that does not wait gets `Busy`, as of `chat`."""
        self.on_request()
        async with total_deadline(request.total_s):
            facts = await self._facts_of(request.model, "embed")
            if request.dimensions is not None and request.dimensions < 1:
                raise BadRequest(
                    f"{request.dimensions} dimensions are asked for; at least 1 is needed"
                )
            whole, usage, digest = await self._computed(
                request, request.texts, facts, waits=waits, dimensions=request.dimensions
            )
            counts = (whole.n_pieces, whole.n_cut_tokens, whole.unknown_shares)
            return EmbedReply(whole.vectors, usage, digest, *counts)

    async def rerank(self, request: RerankRequest, *, waits: bool = True) -> RerankReply:
        """Score documents for a query; TextTooLong counts both."""
        facts = await self._facts_of(request.model, "rerank")
        async with total_deadline(request.total_s):
            whole, usage, digest = await self._computed(
                request, request.documents, facts, waits=waits, query=request.query
            )
        return RerankReply(tuple(score for (score,) in whole.vectors), usage, digest)

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
    ) -> tuple[Embedded, Usage, str]:
        """Return the vectors of texts, or their scores, what they took, and the served digest."""
        began = time.monotonic()
        order = EmbedOrder(
            (), query, dimensions, facts.n_ctx_tokens, request.priority, request.on_overflow
        )
        digests = set[str]()
        load_s = 0.0

        async def send(portion: tuple[str, ...], start: int) -> Embedded:
            since = self._residents.now()

            async def work(worker: WorkerProcess, model_use: ModelUse) -> Embedded:
                nonlocal load_s
                load_s = max(load_s, self._residents.awaited_load_s(model_use.key, since))
                embedded = await worker.embed(replace(order, texts=portion), PendingRequest())
                digests.add(model_use.facts.served_digest)
                return embedded

            return await self._repeatedly(
                request.model, work, priority=order.priority, waits=waits or start > 0
            )

        while True:
            digests.clear()
            whole = await embed_in_portions(texts, send)
            if len(digests) < 2:  # else the model was replaced between two portions
                break
        seconds = time.monotonic() - began
        self.events.embedded(facts.name, len(texts), whole.n_tokens, seconds)
        usage = Usage(whole.n_tokens, load_s=load_s, prefill_s=max(0.0, seconds - load_s))
        return whole, usage, next(iter(digests), facts.served_digest)

    async def _briefly(
        self, model: ModelSpec, work: Callable[[WorkerProcess], Awaitable[_T]]
    ) -> _T:
        """Run in a model's worker what needs no sequence."""
        return await self._repeatedly(model, lambda worker, _: work(worker), is_brief=True)

    async def _repeatedly(
        self,
        model: ModelSpec,
        work: Callable[[WorkerProcess, ModelUse], Awaitable[_T]],
        *,
        priority: Priority = "normal",
        is_brief: bool = False,
        waits: bool = True,
        on_death: Callable[[WorkerGone], EngineError | None] = lambda _: None,
    ) -> _T:
        crashes: list[Crash] = []
        rank = 0 if is_brief else PRIORITY_RANK[priority]
        while True:
            model_use = await self._request_use(
                model, priority=priority, is_brief=is_brief, waits=waits
            )
            record = self._crashes[model_use.key]
            try:
                # Only those that are in the worker count, not all that wait for it.
                async with (
                    self._using(model, model_use) as worker,
                    record.room.entered(record.n_together(crashes), rank),
                ):
                    done = await work(worker, model_use)
            except _ModelChanged:
                continue
            except (ModelBroken, ModelUnusable) as error:
                record.done(crashes)
                if not await self._goes_back(model_use.facts, str(error)):
                    raise
                crashes = []
            except WorkerGone as gone:
                if gone.end.is_crash and await self._goes_back(model_use.facts, str(gone.end)):
                    gone.crash = None
                crashes += [gone.crash] if gone.crash is not None else []
                if (lost := on_death(gone)) is not None:
                    record.done(crashes)
                    raise lost from None
                if gone.crash is not None and record.is_deadly(crashes, MAX_ATTEMPTS):
                    if gone.end.is_crash and not await self._answers_at_all(model_use):
                        name = model_use.facts.name
                        raise ModelUnusable(name, str(gone.end), rebuild_command()) from None
                    why = f"{gone.end}; it was in {len(crashes)} crashes, and is given up"
                    raise WorkerLost(model.ref, why) from None
                self.events.requeued(model_use.facts.name)
            except BaseException:
                record.done(crashes)  # refused, too late, or cancelled
                raise
            else:
                record.done(crashes)
                return done

    async def _goes_back(self, facts: ModelFacts, why: str) -> bool:
        """Have the original serve for good if this is a tuned copy, which failed; return that."""
        if facts.tuned_from is None:
            return False
        log.warning("%s is computed by its original from now on: %s", facts.name, why)
        await asyncio.to_thread(self.models.tuned.refuse, facts.tuned_from, f"it failed: {why}")
        return True

    async def _request_use(
        self,
        model: ModelSpec,
        *,
        priority: Priority = "normal",
        is_brief: bool = False,
        waits: bool = True,
    ) -> ModelUse:
        self.on_request()
        model_use = await self._model_use(model, await self._facts(model))
        return replace(model_use, priority=priority, is_brief=is_brief, waits=waits)

    async def _model_use(self, model: ModelSpec, facts: ModelFacts) -> ModelUse:
        refs = (*facts.adapters, *model.adapters)
        paths, digests = await asyncio.to_thread(self._adapters, refs) if refs else ((), ())
        use = ModelUse(facts, paths, digests, model.keep_alive_s, model.is_pinned)
        return await self._residents.placed(use, model.on_processor)

    def _adapters(self, refs: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        paths = resolve_adapters(refs)
        return paths, tuple(self.models.files.digest(Path(path)) for path in paths)

    @asynccontextmanager
    async def _using(self, model: ModelSpec, model_use: ModelUse) -> AsyncIterator[WorkerProcess]:
        """Use a model's worker, if it has read the files that `model_use` names.

        Raises:
            _ModelChanged: they were replaced meanwhile, so that a new worker may have others.
        """
        async with self._residents.use(model_use) as worker:
            with suppress(EngineError):  # it is gone from the disk, but not from memory
                if (await self._model_use(model, await self._facts(model))).key != model_use.key:
                    raise _ModelChanged
            yield worker

    async def _serve(self, answer: Answer, *, waits: bool) -> Reply:
        request, began = answer.request, self._residents.now()
        facts = await self._facts_of(request.model, "chat")
        images = [
            *request.images,
            *(image for message in request.messages for image in message.images),
        ]
        if images and facts.projector is None:
            raise BadRequest(f"model '{facts.name}' cannot see images: it has no projector")
        for number, image in enumerate(images, start=1):
            await asyncio.to_thread(check_image, image, number)

        def forget(gone: WorkerGone) -> EngineError | None:
            nonlocal began
            if answer.was_read:
                reason = f"{gone.end}; a part of the answer was read, so it is not sent again"
                return WorkerLost(request.model.ref, reason)
            answer.drop_chunks()
            began = self._residents.now()  # what was lost is no waiting
            return None

        return await self._repeatedly(
            request.model,
            lambda worker, model_use: self._attempt(answer, began, worker, model_use),
            priority=request.priority,
            waits=waits,
            on_death=forget,
        )

    async def _answers_at_all(self, model_use: ModelUse) -> bool:
        """Return whether a model answers a plain request, in a worker that crashed before."""
        try:
            async with self._residents.use(model_use) as worker:
                probed = await probe_worker(model_use.facts, worker, PROBE_S, n_tokens=FIRST_TURNS)
        except ModelUnusable:
            return False
        except EngineError:
            return True  # it cannot be tried now, so nothing is known of it
        return probed.is_well or not probed.has_crashed

    async def _attempt(
        self, answer: Answer, began: float, worker: WorkerProcess, model_use: ModelUse
    ) -> Reply:
        facts, sampling = model_use.facts, merged_sampling(answer.request, model_use.facts)
        request = with_model_defaults(answer.request, facts)
        load_s = self._residents.awaited_load_s(model_use.key, began)
        outside_s = self._residents.now() - began - load_s
        ticket = PendingRequest(on_chunk=answer.add, on_shortened=answer.shortened)
        async with deadlines(request.total_s, request.idle_s) as ticket.on_step:
            ended = await worker.chat(request, sampling, ticket, facts.n_ctx_tokens)
        usage = ended.usage
        self.events.answered(facts.name, ended.reason, usage, answer.first_s)
        usage = replace(usage, load_s=load_s, queue_s=usage.queue_s + outside_s)
        return answer.reply_of(replace(ended, usage=usage), facts.served_digest)
