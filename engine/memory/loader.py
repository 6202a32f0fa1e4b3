"""Model loader: starts workers, watches them, widens their contexts, unloads them; free memory.

The model manager decides what is loaded. Everything runs in the pool's event loop; what takes time
runs in its own task. Each change is reported to the manager by a callback. A worker whose own code
crashes before it is ready or in its first steps is started again with the next fallback of
llama.cpp (`workers.fallbacks`); what helped is remembered.

While models come or go, free memory cannot be read: half of a model is loaded and half is not. So
it is read when nothing is on its way, and in between the planned amounts are added and taken away.
What the contexts of loaded models may still grow by (`LoadedModel.growth`) is never free.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path

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
from paddock.engine.request import ModelFacts, Priority
from paddock.engine.settings import PoolSettings
from paddock.engine.system.tasks import TaskSet, end
from paddock.engine.workers.death_reasons import WorkerEnd
from paddock.engine.workers.fallbacks import (
    Fallback,
    FallbackStore,
    fallback_sentence,
    fallback_words,
    next_fallback,
    rebuild_command,
    with_fallback,
)
from paddock.engine.workers.worker_process import WORKER_COMMAND, WorkerProcess
from paddock.engine.workers.worker_protocol import (
    LoadBroken,
    WorkerGone,
    WorkerMemory,
    WorkerOptions,
)

from .device_memory import Device, MemoryAmount
from .eviction_policy import EvictionCandidate, LoadedState, choose_victims
from .machine_probe import MachineProbe
from .model_layout import STEPS_WAITED, LayoutRequest, ModelLayout, as_placed
from .pool_stats import LoadCount, ModelState, PoolEvents, UnloadReason

_REPLICA = "\0\0"  # in no `ModelUse.key`: no part of it is empty


def replica_key(model_key: str, number: int) -> str:
    """Return the key of a model's replica; the first has the model's own.

    >>> replica_key("a.gguf", 0), model_key(replica_key("a.gguf", 2))
    ('a.gguf', 'a.gguf')
    """
    return f"{model_key}{_REPLICA}{number}" if number else model_key


def unused_replica_key(model_key: str, taken: Collection[str]) -> str:
    """Return the first key of a model's replicas that is not taken."""
    names = (replica_key(model_key, number) for number in count())
    return next(name for name in names if name not in taken)


def model_key(key: str) -> str:
    """Return the key of the model of which this is a replica's key."""
    return key.partition(_REPLICA)[0]


@dataclass(frozen=True, slots=True)
class ModelUse:
    """A request to use a model."""

    facts: ModelFacts
    adapters: tuple[str, ...] = ()
    adapter_digests: tuple[str, ...] = ()
    keep_alive_s: float | None = None
    is_pinned: bool = False
    priority: Priority = "normal"
    is_brief: bool = False
    """It needs no sequence (counting tokens), so it waits for no place among the others."""
    waits: bool = True
    """Else a full queue is answered with `Busy`."""

    @property
    def key(self) -> str:
        """The key of its worker: the files and their contents, by which answers are computed."""
        facts = self.facts
        digests = (facts.digest, facts.projector_digest, *self.adapter_digests)
        return "\0".join((*worker_files(facts, self.adapters), *filter(None, digests)))


def worker_files(facts: ModelFacts, adapters: Sequence[str]) -> tuple[str, ...]:
    """Return the paths of what a worker loads; of a split model, the first file's."""
    besides = (*adapters, facts.projector or "", facts.draft_path)
    return (facts.path, *filter(None, besides))


@dataclass(slots=True, eq=False)
class LoadedModel:
    """One model in memory, or on its way there. Only manager and loader change it."""

    key: str
    layout_request: LayoutRequest
    layout: ModelLayout
    keep_alive_s: float
    began_at: float
    state: ModelState = "loading"
    worker: WorkerProcess | None = None
    users: Counter[Priority] = field(default_factory=Counter)
    n_brief: int = 0
    is_pinned: bool = False
    is_widening: bool = False
    ready_at: float = 0.0
    last_used_at: float = 0.0
    expires_at: float | None = None
    expiry: asyncio.TimerHandle | None = None
    loading: asyncio.Task[None] | None = None
    leaving: asyncio.Task[None] | None = None
    leaves_because: UnloadReason = "room"
    growth: MemoryAmount = field(default_factory=MemoryAmount)
    """Of its memory, what its context has not taken yet."""
    n_oom_kills: int = 0
    """Out-of-memory kills of the machine when it began to load."""

    @property
    def model_key(self) -> str:
        return model_key(self.key)

    @property
    def occupancy(self) -> float:
        """Requests inside its worker for each sequence."""
        return self.users.total() / max(1, self.layout.load.n_parallel)

    @property
    def facts(self) -> ModelFacts:
        return self.layout_request.facts

    @property
    def room(self) -> MemoryAmount:
        return self.layout.room

    @property
    def load_s(self) -> float:
        """Seconds that loading it again would take."""
        return self.worker.load_s if self.worker is not None else self.layout.load_s

    @property
    def n_users(self) -> int:
        return self.users.total() + self.n_brief

    @property
    def is_open(self) -> bool:
        is_alive = self.worker is not None and not self.worker.gone.done()
        return self.state == "ready" and is_alive and not self.is_widening

    def has_place(self, model_use: ModelUse, max_queue: int) -> bool:
        """Return whether a request may go in to be scheduled by the worker.

        Requests that wait outside let a model drain soon and a chat pass; those inside can share
        their prefixes. Each priority has places of its own, so that none shuts out another.
        """
        n_parallel = self.layout.load.n_parallel
        places = {"batch": 2 * n_parallel, "normal": 4 * n_parallel}
        return model_use.is_brief or self.users[model_use.priority] < places.get(
            model_use.priority, max(max_queue, n_parallel)
        )

    def take(self, model_use: ModelUse) -> None:
        """Count a request in; the `keep_alive` of the latest request counts."""
        if model_use.keep_alive_s is not None:
            self.keep_alive_s = model_use.keep_alive_s
        self.is_pinned |= model_use.is_pinned
        self.n_brief += model_use.is_brief
        self.users[model_use.priority] += not model_use.is_brief
        self.cancel_expiry()

    def leave(self, model_use: ModelUse, now: float) -> None:
        self.n_brief -= model_use.is_brief
        self.users[model_use.priority] -= not model_use.is_brief
        self.last_used_at = now

    def cancel_expiry(self) -> None:
        if self.expiry is not None:
            self.expiry.cancel()
        self.expiry = self.expires_at = None

    def policy_state(self, n_waiting: int, is_leased: bool) -> LoadedState:
        return LoadedState(
            self.key,
            self.state,
            self.room,
            self.load_s,
            self.n_users + self.is_widening,
            n_waiting,
            self.ready_at,
            self.last_used_at,
            self.is_pinned,
            is_leased,
        )


# So long is a model that ran out of memory loaded with fewer cells; another program may have taken
# the memory for a while.
HALVED_S = 3600.0


class MemoryAccounting:
    """Loaded models by key, and the memory that they leave free."""

    def __init__(self, memory_probe: MachineProbe, gpu_overhead_bytes: int) -> None:
        self._memory_probe = memory_probe
        self._gpu_overhead_bytes = gpu_overhead_bytes
        self._halved: dict[str, tuple[int, float]] = {}
        """The KV cells that models may have which ran out of memory, and since when, by keys."""
        self.by_key: dict[str, LoadedModel] = {}
        self.device: Device | None = None
        self.free = MemoryAmount()
        self.loads: dict[str, LoadCount] = {}

    @property
    def is_calm(self) -> bool:
        """Whether nothing is on its way in or out, so that free memory can be read.

        A worker that has just died counts as leaving: its memory is free already, but not yet
        in the accounts.
        """
        return all(
            resident.state in ("ready", "draining")
            and resident.worker
            and not resident.worker.gone.done()
            for resident in self.by_key.values()
        )

    async def look(self) -> Device:
        """Read the device, unless models come or go: then the accounts are more exact."""
        if self.device is not None and not self.is_calm:
            return self.device
        device = await self._memory_probe.look()
        if self.device is None or self.is_calm:
            self.device = device
            overhead = (self._gpu_overhead_bytes,) * len(device.gpus)
            self.free = device.free - MemoryAmount(0, overhead)
            for resident in self.by_key.values():
                if resident.worker:
                    # Weights in mapped files, which the system counts as free.
                    self.free -= MemoryAmount(resident.worker.mapped_bytes)
                    self._record(resident, resident.worker.measure())
                    self.free -= resident.growth  # longer requests will take it
        return device

    def reserve(self, resident: LoadedModel) -> None:
        """Subtract what a model is planned to take."""
        resident.n_oom_kills = self.device.n_oom_kills if self.device else 0
        self.by_key[resident.key] = resident
        self.free -= resident.room

    def release(self, resident: LoadedModel) -> None:
        """Add a model's memory again."""
        if self.by_key.get(resident.key) is resident:
            del self.by_key[resident.key]
            self.free += resident.room

    def change(self, resident: LoadedModel, layout: ModelLayout) -> None:
        self.free += resident.room - layout.room
        resident.layout = layout

    def measured(self, resident: LoadedModel, worker: WorkerProcess) -> None:
        """Replace what was planned by what a worker takes, and remember it."""
        taken = worker.measure()
        self.learn(resident, worker, taken)
        before = resident.room
        self._record(resident, taken)
        self.free += before - resident.room

    def _record(self, resident: LoadedModel, taken: WorkerMemory) -> None:
        room, resident.growth = as_placed(taken, resident.room)
        resident.layout = replace(resident.layout, room=room)

    def learn(self, resident: LoadedModel, worker: WorkerProcess, taken: WorkerMemory) -> None:
        self._memory_probe.learn(resident.layout_request, worker.load, taken, worker.load_s)

    def count(self, resident: LoadedModel, worker: WorkerProcess) -> None:
        count = self.loads.setdefault(resident.facts.name, LoadCount())
        count.loads += 1
        count.load_s += worker.load_s

    def halve(self, resident: LoadedModel) -> bool:
        """Halve the KV cells that a model may have; return whether that is possible."""
        load = resident.layout.load
        if load.n_cells // 2 < load.n_ctx_tokens:
            return False
        now = asyncio.get_running_loop().time()
        self._halved[resident.model_key] = load.n_cells // 2, now
        return True

    def n_cells_at_most(self, key: str) -> int | None:
        """Return the KV cells that a model may have if it ran out of memory lately."""
        n_cells, since = self._halved.get(key, (None, 0.0))
        is_lately = asyncio.get_running_loop().time() - since < HALVED_S
        return n_cells if is_lately else None

    def idle(self, but: LoadedModel) -> list[LoadedModel]:
        return [
            resident
            for resident in self.by_key.values()
            if resident is not but and is_idle(resident)
        ]


def is_idle(resident: LoadedModel, *, spares_pinned: bool = True) -> bool:
    is_free = not resident.n_users and not resident.is_widening
    return resident.state == "ready" and is_free and not (spares_pinned and resident.is_pinned)


def too_large(name: str, needed: MemoryAmount, free: MemoryAmount) -> ModelTooLarge:
    lacks_main = needed.host > free.host or not sum(needed.gpus)
    if lacks_main:
        return ModelTooLarge(name, needed.host, max(0, free.host))
    return ModelTooLarge(name, sum(needed.gpus), max(0, sum(free.gpus)))


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

StartWorker = Callable[[WorkerOptions, float], Awaitable[WorkerProcess]]
"""Starts a worker within so many seconds; raises `LoadBroken`, `EngineError` or `OSError`."""


def _load_error(resident: LoadedModel, end: WorkerEnd) -> EngineError:
    """Return the error of the requests that wait for a model that cannot be loaded."""
    path, name = resident.facts.path, resident.facts.name
    if end.was_by_others:
        return WorkerLost(name, f"{end}; it was started {_MOST_STARTS} times")
    if end.is_crash:
        return ModelUnusable(name, str(end), rebuild_command())
    return ModelBroken(path, str(end))


OnFailure = Callable[[str, EngineError, int], None]
"""Takes a model's key, why it cannot be loaded, and from which context length on (0: any)."""


class ModelLoader:
    """Loads, widens and unloads models as the manager decides; accounts for their memory."""

    def __init__(
        self,
        settings: PoolSettings,
        start: StartWorker,
        memory_probe: MachineProbe,
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
        self.memory = MemoryAccounting(memory_probe, settings.gpu_overhead_bytes)

    def load(self, key: str, request: LayoutRequest, layout: ModelLayout) -> None:
        now = asyncio.get_running_loop().time()
        resident = LoadedModel(key, request, layout, self._settings.keep_alive_s, now)
        self.memory.reserve(resident)
        resident.loading = self._tasks.start(self._load(resident))

    async def _load(self, resident: LoadedModel) -> None:
        try:
            worker = await self._started_at_last(resident)
        except EngineError as error:
            self._failed(resident, error)
        except LoadBroken as error:
            self._failed(resident, _load_error(resident, error.end))
        except OSError as error:
            self._failed(resident, WorkerLost(resident.facts.name, str(error)))
        else:
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

    async def _started_at_last(self, resident: LoadedModel) -> WorkerProcess:
        """Start a worker; again where it is killed from outside before it is ready."""
        for _ in range(1, _MOST_STARTS):
            try:
                return await self._started(resident)
            except LoadBroken as error:
                if not error.end.was_by_others:
                    raise
                self._events.died(resident.facts.name, str(error.end))
        return await self._started(resident)

    async def _started(self, resident: LoadedModel) -> WorkerProcess:
        """Start a worker; once more after running out of memory, with more of it or fewer cells."""
        limit_s = self._settings.load_timeout_s
        for is_last in (False, True):
            try:
                return await self._start(resident.layout.load, limit_s)
            except LoadBroken as error:
                if not await self._was_memory(resident, error.end):
                    raise
            if is_last or not (await self._unload_idle(resident) or await self._shrink(resident)):
                break
        free = (await self._memory_probe.look()).free
        raise too_large(resident.facts.name, resident.room, free)

    async def _was_memory(self, resident: LoadedModel, end: WorkerEnd) -> bool:
        device = await self._memory_probe.look()
        return end.ran_out_of_memory(resident.n_oom_kills, device.n_oom_kills)

    async def _unload_idle(self, resident: LoadedModel) -> bool:
        """Unload the idle models for one that found no memory; return whether there were any."""
        going = self.memory.idle(but=resident)
        for other in going:
            self.unload(other, "room")
        await asyncio.gather(*(other.leaving for other in going if other.leaving is not None))
        return bool(going)

    async def _shrink(self, resident: LoadedModel) -> bool:
        """Plan a model with half as many KV cells; return whether that is possible."""
        if not self.memory.halve(resident):
            return False
        at_most = self.memory.n_cells_at_most(resident.model_key)
        request = replace(resident.layout_request, n_cells_at_most=at_most)
        device = self.memory.device or await self._memory_probe.look()
        ways = await self._memory_probe.layouts(request, device)
        self.memory.change(resident, ways[0])
        return True

    def _failed(self, resident: LoadedModel, error: EngineError) -> None:
        """Report that a load failed; the next request tries again."""
        self.memory.release(resident)
        self._on_failure(resident.key, error, 0)
        self._on_change(resident.key)

    def start_idle_timer(self, resident: LoadedModel) -> None:
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

    def _expire(self, resident: LoadedModel) -> None:
        if is_idle(resident, spares_pinned=False):
            self.unload(resident, "idle")

    async def _watch(self, resident: LoadedModel, worker: WorkerProcess) -> None:
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
                await worker.kill(WorkerEnd(f"it made no step within {limit_s:g} s"))
        if resident.state in ("ready", "draining"):
            end = worker.gone.result()
            self._events.died(resident.facts.name, str(end))
            if await self._was_memory(resident, end):
                self.memory.halve(resident)
            self.unload(resident, "died")

    def widen(self, resident: LoadedModel, n_ctx_tokens: int) -> None:
        """Extend a model's context, without loading its weights again."""
        resident.is_widening = True
        resident.cancel_expiry()
        self._tasks.start(self._widen(resident, n_ctx_tokens))

    async def _widen(self, resident: LoadedModel, n_ctx_tokens: int) -> None:
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
            resident.layout_request = replace(resident.layout_request, n_ctx_tokens=n_ctx_tokens)
            self.memory.measured(resident, resident.worker)
            self._events.widened(resident.facts.name, n_ctx_tokens)
        finally:
            resident.is_widening = False
            self._on_change(resident.key)
            self.start_idle_timer(resident)

    async def _room_to_grow(self, resident: LoadedModel, n_ctx_tokens: int) -> ModelLayout:
        ways = await self._memory_probe.wider(
            resident.layout_request, resident.layout, n_ctx_tokens
        )
        await self.memory.look()
        free = self.memory.free
        for way in ways:
            if free.holds(way.room - resident.room):
                return way
        missing = free.missing(ways[-1].room - resident.room)
        now = asyncio.get_running_loop().time()
        candidates = [
            EvictionCandidate(other.key, other.room, other.load_s, now - other.last_used_at)
            for other in self.memory.idle(but=resident)
        ]
        if choose_victims(candidates, missing) is None:
            raise too_large(resident.facts.name, ways[-1].room, free + resident.room)
        await self._unload_idle(resident)
        return ways[-1]

    def drain(self, resident: LoadedModel, why: UnloadReason) -> None:
        """Unload a model when its last request has ended; it takes no new ones."""
        resident.leaves_because = why
        if resident.state == "ready" and resident.n_users:
            resident.state = "draining"
        elif resident.state in ("ready", "loading"):
            self.unload(resident, why)

    def keep(self, resident: LoadedModel) -> None:
        resident.state = "ready"
        self._on_change(resident.key)

    def unload(self, resident: LoadedModel, why: UnloadReason) -> None:
        if resident.state == "unloading":
            return
        resident.cancel_expiry()
        resident.state, resident.leaves_because = "unloading", why
        resident.leaving = self._tasks.start(self._unload(resident))

    async def _unload(self, resident: LoadedModel) -> None:
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
                higher, end = next_fallback(load, fallback), error.end
                if not end.is_crash:
                    raise
                if higher is None:
                    failed = end.with_failed_fallback(fallback_words(fallback))
                    raise LoadBroken(failed) from None
                log.info("%s: %s; started again %s", load.path, end, fallback_words(higher))
                first_reason = first_reason or end.how
                fallback, is_news = higher, True
        needed = Fallback(Path(load.path).name, fallback, first_reason)
        if is_news:
            self._proven(load, book, needed)
        is_blameless = load.digest in self._blameless
        worker.has_fallback = not is_blameless and next_fallback(load, needed.fallback) is not None
        worker.gone.add_done_callback(partial(self._ended, worker, load, needed))
        if load.digest in self._tried:
            worker.on_proven = partial(self._proven, load, book, needed)
        return worker

    async def _started(
        self, load: WorkerOptions, fallback: int, reason: str, timeout_s: float
    ) -> WorkerProcess:
        gpu = load.device if load.is_gpu else ""
        words = fallback_sentence(fallback, reason) if fallback else ""
        given = replace(with_fallback(load, fallback), fallback_note=words)
        fields = self._profiles.load_fields(
            load.digest,
            load.n_threads,
            gpu,
            fallback,
            n_gpu_layers=load.n_gpu_layers,
            n_cpu_experts=load.n_cpu_experts,
        )
        worker = await WorkerProcess.started(replace(given, **fields), timeout_s, self._command)
        self._profiles.keep(fields, worker.ready)
        # After a failure it is not measured at once by the next load.
        worker.is_disturbed |= (
            fields["profile"] is None and fields["profile_s"] < self._settings.profile_s
        )
        # The next load does not measure again.
        worker.load_s = max(0.0, worker.load_s - worker.ready.get("profiling_s", 0.0))
        return worker

    def _proven(self, load: WorkerOptions, book: FallbackStore, needed: Fallback) -> None:
        book.keep(load.digest, needed)
        self._tried.pop(load.digest, None)

    def _ended(
        self,
        worker: WorkerProcess,
        load: WorkerOptions,
        needed: Fallback,
        gone: asyncio.Future[WorkerEnd],
    ) -> None:
        """After a crash in the first steps, choose the fallback of the next worker."""
        if gone.cancelled() or worker.is_proven or not gone.result().is_crash:
            return
        higher = next_fallback(load, needed.fallback)
        if worker.has_fallback and higher is not None:
            reason = needed.reason or gone.result().how
            self._tried[load.digest] = Fallback(needed.model, higher, reason)
            log.info("%s: %s; started again %s", load.path, gone.result(), fallback_words(higher))
        elif self._tried.pop(load.digest, None) is not None:
            self._blameless.add(load.digest)
