"""Model loader: starts workers, watches them, widens their contexts, unloads them.

The model manager decides what is loaded. Everything runs in the pool's event loop; what takes time
runs in its own task. Each change is reported to the manager by a callback. A worker whose own code
crashes before it is ready or in its first steps is started again with the next fallback of
llama.cpp (`workers.crashes`); what helped is remembered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Generic

from paddock.engine.errors import (
    AdapterBroken,
    EngineError,
    ModelBroken,
    ModelTooLarge,
    ModelUnusable,
    WorkerLost,
)
from paddock.engine.gguf import read_header
from paddock.engine.profile.profile import PoolProfiles
from paddock.engine.settings import PoolSettings
from paddock.engine.system.tasks import TaskSet, end
from paddock.engine.workers.crashes import (
    Fallback,
    FallbackStore,
    fallback_sentence,
    fallback_words,
    has_crashed,
    next_fallback,
    ran_out_of_memory,
    rebuild_command,
    was_ended_by_others,
    with_failed_fallback,
    with_fallback,
    without_context,
)
from paddock.engine.workers.worker_process import WORKER_COMMAND, WorkerProcess
from paddock.engine.workers.worker_protocol import LoadBroken, WorkerGone, WorkerOptions

from .loaded_models import LoadedModel, MemoryAccounting, W, is_idle, too_large
from .model_layout import STEPS_WAITED, LayoutRequest, MemoryProbe, ModelLayout
from .policy import EvictionCandidate, choose_victims
from .pool_stats import PoolEvents, UnloadReason


def resolve_adapters(refs: Sequence[str]) -> tuple[str, ...]:
    """Return the adapters' whole paths, in their order.

    Raises:
        AdapterBroken: no file, or not a LoRA adapter in GGUF.
    """
    return tuple(str(_checked_adapter(Path(ref).expanduser())) for ref in refs)


def _checked_adapter(path: Path) -> Path:
    if not path.is_file():
        raise AdapterBroken(str(path), "there is no such file. Name the path of a GGUF adapter.")
    try:
        header = read_header(path)
    except ModelBroken as error:
        raise AdapterBroken(str(path), error.why) from None
    if header.values.get("adapter.type") != "lora":
        kind = header.values.get("general.type", "model")
        raise AdapterBroken(str(path), f"this is not a LoRA adapter, but a GGUF file of a {kind}")
    return path.resolve()


_WATCH_S = 1.0
_MOST_STARTS = 3  # of a worker that is killed from outside each time before it is ready

StartWorker = Callable[[WorkerOptions, float], Awaitable[W]]
"""Starts a worker within so many seconds; raises `LoadBroken`, `EngineError` or `OSError`."""


def _load_error(resident: LoadedModel[Any], why: str) -> EngineError:
    """Return the error of the requests that wait for a model that cannot be loaded."""
    path, name = resident.facts.path, resident.facts.name
    if was_ended_by_others(why):
        return WorkerLost(name, f"{why}; it was started {_MOST_STARTS} times")
    return (
        ModelUnusable(name, why, rebuild_command()) if has_crashed(why) else ModelBroken(path, why)
    )


OnFailure = Callable[[str, EngineError, int], None]
"""Takes a model's key, why it cannot be loaded, and from which context length on (0: any)."""


class ModelLoader(Generic[W]):
    """Loads, widens and unloads models as the manager decides; accounts for their memory."""

    def __init__(
        self,
        settings: PoolSettings,
        start: StartWorker[W],
        memory_probe: MemoryProbe,
        events: PoolEvents,
        *,
        on_change: Callable[[str], None],
        on_failure: OnFailure,
    ) -> None:
        self._settings = settings
        self._start = start
        self._memory_probe = memory_probe
        self._events = events
        self._on_change = on_change
        self._on_failure = on_failure
        self._tasks = TaskSet()
        self.memory = MemoryAccounting[W](memory_probe, settings.gpu_overhead_bytes)

    def load(self, key: str, wanted: LayoutRequest, layout: ModelLayout) -> None:
        now = asyncio.get_running_loop().time()
        resident = LoadedModel[W](key, wanted, layout, self._settings.keep_alive_s, now)
        self.memory.reserve(resident)
        resident.loading = self._tasks.start(self._load(resident))

    async def _load(self, resident: LoadedModel[W]) -> None:
        try:
            worker = await self._started_at_last(resident)
        except EngineError as error:
            self._failed(resident, error)
        except LoadBroken as error:
            self._failed(resident, _load_error(resident, error.why))
        except OSError as error:
            self._failed(resident, WorkerLost(resident.facts.name, str(error)))
        else:
            self._ready(resident, worker)

    async def _started_at_last(self, resident: LoadedModel[W]) -> W:
        """Start a worker; again where it is killed from outside before it is ready."""
        for _ in range(1, _MOST_STARTS):
            try:
                return await self._started(resident)
            except LoadBroken as error:
                if not was_ended_by_others(error.why):
                    raise
                self._events.died(resident.facts.name, error.why)
        return await self._started(resident)

    async def _started(self, resident: LoadedModel[W]) -> W:
        """Start a worker; once more after running out of memory, with more of it or fewer cells."""
        limit_s = self._settings.load_timeout_s
        try:
            return await self._start(resident.layout.load, limit_s)
        except LoadBroken as error:
            if not await self._was_memory(resident, error.why):
                raise
        if not await self._unload_idle(resident) and not await self._shrink(resident):
            raise await self._too_large(resident)
        try:
            return await self._start(resident.layout.load, limit_s)
        except LoadBroken as error:
            if not await self._was_memory(resident, error.why):
                raise
        raise await self._too_large(resident)

    async def _was_memory(self, resident: LoadedModel[W], reason: str) -> bool:
        device = await self._memory_probe.look()
        return ran_out_of_memory(reason, resident.n_oom_kills, device.n_oom_kills)

    async def _too_large(self, resident: LoadedModel[W]) -> ModelTooLarge:
        free = (await self._memory_probe.look()).free
        return too_large(resident.facts.name, resident.room, free)

    async def _unload_idle(self, resident: LoadedModel[W]) -> bool:
        """Unload the idle models for one that found no memory; return whether there were any."""
        going = self.memory.idle(but=resident)
        for one in going:
            self.unload(one, "room")
        await asyncio.gather(*(one.leaving for one in going if one.leaving is not None))
        return bool(going)

    async def _shrink(self, resident: LoadedModel[W]) -> bool:
        """Plan a model with half as many KV cells; return whether that is possible."""
        if not self.memory.halve(resident):
            return False
        at_most = self.memory.halved.get(resident.model_key)
        wanted = replace(resident.wanted, n_cells_at_most=at_most)
        device = self.memory.device or await self._memory_probe.look()
        ways = await self._memory_probe.layouts(wanted, device)
        self.memory.change(resident, ways[0])
        return True

    def _failed(self, resident: LoadedModel[W], error: EngineError) -> None:
        """Report that a load failed; the next request tries again."""
        self.memory.release(resident)
        self._on_failure(resident.key, error, 0)
        self._on_change(resident.key)

    def _ready(self, resident: LoadedModel[W], worker: W) -> None:
        now = asyncio.get_running_loop().time()
        resident.worker, resident.state, resident.loading = worker, "ready", None
        resident.ready_at = resident.last_used_at = now
        name = resident.facts.name
        worker.on_turn = partial(self._events.turn, name)
        self.memory.count(resident, worker)
        self.memory.measured(resident, worker)
        self._events.loaded(name, worker.load_s)
        self._tasks.start(self._watch(resident, worker))
        self._on_change(resident.key)
        self.start_idle_timer(resident)

    def start_idle_timer(self, resident: LoadedModel[W]) -> None:
        """Start the idle timer of a model without requests, or unload it now."""
        if resident.n_users:
            return
        if resident.state == "draining":
            self.unload(resident, resident.leaves_because)
        elif resident.state == "ready" and resident.keep_alive_s == 0:
            self.unload(resident, "idle")
        elif resident.state == "ready" and resident.keep_alive_s > 0:
            loop = asyncio.get_running_loop()
            resident.cancel_expiry()
            resident.expires_at = loop.time() + resident.keep_alive_s
            resident.expiry = loop.call_at(resident.expires_at, self._expire, resident)

    def _expire(self, resident: LoadedModel[W]) -> None:
        if is_idle(resident, spares_pinned=False):
            self.unload(resident, "idle")

    async def _watch(self, resident: LoadedModel[W], worker: W) -> None:
        """Kill a worker that has work and makes no step within its limit; note how it ends.

        The limit grows with its slowest step: a large model on a small machine does not hang.
        """
        clock, lacks_cells = asyncio.get_running_loop(), False
        while not worker.gone.done():
            await asyncio.wait({worker.gone}, timeout=_WATCH_S)
            worker.measure()
            lacked, lacks_cells = lacks_cells, worker.load.n_cells < resident.layout.load.n_cells
            if lacks_cells and not lacked:  # the next attempt gets the memory of idle models
                await self._unload_idle(resident)
            limit_s = max(self._settings.step_timeout_s, STEPS_WAITED * worker.slowest_step_s)
            if worker.n_requests and clock.time() - worker.last_turn_at > limit_s:
                await worker.kill(f"it made no step within {limit_s:g} s")
        if resident.state in ("ready", "draining"):
            await self._after_death(resident, worker.gone.result())

    async def _after_death(self, resident: LoadedModel[W], reason: str) -> None:
        self._events.died(resident.facts.name, reason)
        if await self._was_memory(resident, reason):
            self.memory.halve(resident)
        self.unload(resident, "died")

    def widen(self, resident: LoadedModel[W], n_ctx_tokens: int) -> None:
        """Extend a model's context, without loading its weights again."""
        resident.is_widening = True
        resident.cancel_expiry()
        self._tasks.start(self._widen(resident, n_ctx_tokens))

    async def _widen(self, resident: LoadedModel[W], n_ctx_tokens: int) -> None:
        assert resident.worker is not None
        try:
            way = await self._room_to_grow(resident, n_ctx_tokens)
            await resident.worker.widen(n_ctx_tokens, way.load.n_cells)
        except EngineError as error:
            self._on_failure(resident.key, error, n_ctx_tokens)
        except WorkerGone:
            pass  # `_watch` handles it, and the requests go on waiting
        else:
            self.memory.change(resident, way)
            resident.wanted = replace(resident.wanted, n_ctx_tokens=n_ctx_tokens)
            self.memory.measured(resident, resident.worker)
            self._events.widened(resident.facts.name, n_ctx_tokens)
        finally:
            resident.is_widening = False
            self._on_change(resident.key)
            self.start_idle_timer(resident)

    async def _room_to_grow(self, resident: LoadedModel[W], n_ctx_tokens: int) -> ModelLayout:
        ways = await self._memory_probe.wider(resident.wanted, resident.layout, n_ctx_tokens)
        await self.memory.look()
        free = self.memory.free
        for way in ways:
            if free.holds(way.room - resident.room):
                return way
        missing = free.missing(ways[-1].room - resident.room)
        now = asyncio.get_running_loop().time()
        candidates = [
            EvictionCandidate(one.key, one.room, one.load_s, now - one.last_used_at)
            for one in self.memory.idle(but=resident)
        ]
        if choose_victims(candidates, missing) is None:
            raise too_large(resident.facts.name, ways[-1].room, free + resident.room)
        await self._unload_idle(resident)
        return ways[-1]

    def drain(self, resident: LoadedModel[W], why: UnloadReason) -> None:
        """Unload a model when its last request has ended; it takes no new ones."""
        resident.leaves_because = why
        if resident.state == "ready" and resident.n_users:
            resident.state = "draining"
        elif resident.state in ("ready", "loading"):
            self.unload(resident, why)

    def keep(self, resident: LoadedModel[W]) -> None:
        resident.state = "ready"
        self._on_change(resident.key)

    def unload(self, resident: LoadedModel[W], why: UnloadReason) -> None:
        if resident.state == "unloading":
            return
        resident.cancel_expiry()
        resident.state, resident.leaves_because = "unloading", why
        resident.leaving = self._tasks.start(self._unload(resident))

    async def _unload(self, resident: LoadedModel[W]) -> None:
        if resident.loading is not None:
            await end(resident.loading)
        worker = resident.worker
        if worker is not None:
            self.memory.learn(resident, worker, worker.measure())
            await worker.stop()
            self._events.unloaded(resident.facts.name, resident.leaves_because)
        self.memory.release(resident)
        self._on_change(resident.key)

    async def close(self) -> None:
        for resident in tuple(self.memory.by_key.values()):
            self.unload(resident, "closed")
        await self._tasks.drain()


log = logging.getLogger(__name__)


class WorkerStarter:
    """Starts real workers; a model without a profile is measured by its worker."""

    def __init__(self, settings: PoolSettings, command: tuple[str, ...] = WORKER_COMMAND) -> None:
        self._settings = settings
        self._command = command
        self._profiles = PoolProfiles(settings)
        self._fallback_stores: dict[str, FallbackStore] = {}
        self._tried: dict[str, Fallback] = {}
        """By digest: the fallback of the next worker, which has not proven itself yet."""
        self._blameless: set[str] = set()
        """Digests of models that no fallback helps: a request kills their workers."""

    async def __call__(self, load: WorkerOptions, timeout_s: float) -> WorkerProcess:
        """Start a worker within so many seconds; after a crash again, with the next fallback.

        Raises:
            LoadBroken: the model cannot be loaded, or not in time.
        """
        gpu = load.device if load.is_gpu else ""
        if gpu not in self._fallback_stores:
            self._fallback_stores[gpu] = FallbackStore(self._settings.cache_dir, gpu)
        book = self._fallback_stores[gpu]
        known = self._tried.get(load.digest) or book.find(load.digest)
        first_reason = known.reason if known else ""
        fallback = known.fallback if known else 0
        is_news = False
        while True:
            try:
                worker = await self._started(load, fallback, first_reason, timeout_s)
                break
            except LoadBroken as error:
                higher = next_fallback(load, fallback)
                if not has_crashed(error.why):
                    raise
                if higher is None:
                    raise LoadBroken(
                        with_failed_fallback(error.why, fallback_words(fallback))
                    ) from None
                log.info("%s: %s; started again %s", load.path, error.why, fallback_words(higher))
                first_reason = first_reason or without_context(error.why)
                fallback, is_news = higher, True
        needed = Fallback(Path(load.path).name, fallback, first_reason)
        if is_news:
            book.keep(load.digest, needed)
            self._tried.pop(load.digest, None)
        self._follow(worker, load, book, needed)
        return worker

    async def _started(
        self, load: WorkerOptions, fallback: int, reason: str, timeout_s: float
    ) -> WorkerProcess:
        gpu = load.device if load.is_gpu else ""
        words = fallback_sentence(fallback, reason) if fallback else ""
        given = replace(with_fallback(load, fallback), fallback_note=words)
        fields = self._profiles.load_fields(load.digest, load.n_threads, gpu, fallback)
        worker = await WorkerProcess.started(replace(given, **fields), timeout_s, self._command)
        self._profiles.keep(fields, worker.ready)
        # The next load does not measure again.
        worker.load_s = max(0.0, worker.load_s - worker.ready.get("profiling_s", 0.0))
        return worker

    def _follow(
        self, worker: WorkerProcess, load: WorkerOptions, book: FallbackStore, needed: Fallback
    ) -> None:
        is_blameless = load.digest in self._blameless
        worker.has_fallback = not is_blameless and next_fallback(load, needed.fallback) is not None
        worker.gone.add_done_callback(partial(self._ended, worker, load, needed))
        if load.digest in self._tried:
            worker.on_proven = partial(self._proven, load, book, needed)

    def _proven(self, load: WorkerOptions, book: FallbackStore, needed: Fallback) -> None:
        book.keep(load.digest, needed)
        self._tried.pop(load.digest, None)

    def _ended(
        self,
        worker: WorkerProcess,
        load: WorkerOptions,
        needed: Fallback,
        gone: asyncio.Future[str],
    ) -> None:
        """After a crash in the first steps, choose the fallback of the next worker."""
        if gone.cancelled() or worker.is_proven or not has_crashed(gone.result()):
            return
        higher = next_fallback(load, needed.fallback)
        if worker.has_fallback and higher is not None:
            reason = needed.reason or without_context(gone.result())
            self._tried[load.digest] = Fallback(needed.model, higher, reason)
            log.info("%s: %s; started again %s", load.path, gone.result(), fallback_words(higher))
        elif self._tried.pop(load.digest, None) is not None:
            self._blameless.add(load.digest)
