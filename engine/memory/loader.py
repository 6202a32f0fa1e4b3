"""Model loader: has workers started, watches them, widens their contexts, unloads them.

The model manager decides what is loaded. Everything runs in the pool's event loop; what takes time
runs in its own task. Each change is reported to the manager by a callback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

from paddock.engine.errors import EngineError, ModelBroken, ModelTooLarge, ModelUnusable, WorkerLost
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
from paddock.engine.system.tasks import TaskSet, end
from paddock.engine.workers.death_reasons import WorkerEnd
from paddock.engine.workers.fallbacks import rebuild_command
from paddock.engine.workers.worker_process import WorkerProcess
from paddock.engine.workers.worker_protocol import LoadBroken, WorkerGone

from .device_memory import Device, MemoryAmount
from .loaded_models import LoadedModel, MemoryAccounting, is_idle
from .machine_probe import MachineProbe
from .model_layout import STEPS_WAITED, LayoutRequest, ModelLayout
from .pool_stats import PoolEvents, UnloadReason
from .worker_starter import StartWorker

_WATCH_S = 1.0
_MOST_STARTS = 3  # of a worker that is killed from outside each time before it is ready
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
            if self._memory_probe.refuse(resident.layout.load, error):
                self.memory.release(resident)  # those who wait have it laid out again
                self._on_change(resident.key)
            else:
                self._failed(resident, _load_error(resident, error.end))
        except OSError as error:
            self._failed(resident, WorkerLost(resident.facts.name, str(error)))
        else:
            now = asyncio.get_running_loop().time()
            resident.worker = worker
            resident.state = "ready"
            resident.loading = None
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
        device = await self._memory_probe.probe_device()
        stay = [other for other in self.memory.by_key.values() if other is not resident]
        raise too_large(resident.facts.name, resident.room, device.free, device, stay)

    async def _was_memory(self, resident: LoadedModel, end: WorkerEnd) -> bool:
        device = await self._memory_probe.probe_device()
        return end.ran_out_of_memory(resident.n_oom_kills, device.n_oom_kills)

    async def _unload_idle(self, resident: LoadedModel) -> bool:
        going = self.memory.idle(but=resident)
        for other in going:
            self.unload(other, "room")
        await asyncio.gather(*(other.leaving for other in going if other.leaving is not None))
        return bool(going)

    async def _shrink(self, resident: LoadedModel) -> bool:
        if not self.memory.halve_cells(resident):
            return False
        at_most = self.memory.n_cells_at_most(resident.model_key)
        request = replace(resident.layout_request, n_cells_at_most=at_most)
        device = self.memory.device or await self._memory_probe.probe_device()
        ways = await self._memory_probe.layouts(request, device)
        self.memory.change(resident, ways[0])
        return True

    def _failed(self, resident: LoadedModel, error: EngineError) -> None:
        self.memory.release(resident)
        self._on_failure(resident.key, error, 0)
        self._on_change(resident.key)

    def start_idle_timer(self, resident: LoadedModel) -> None:
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
        clock = asyncio.get_running_loop()
        lacks_cells = False
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
                self.memory.halve_cells(resident)
            self.unload(resident, "died")

    def widen(self, resident: LoadedModel, n_ctx_tokens: int) -> None:
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
        await self.memory.probe_device()
        free = self.memory.free
        for way in ways:
            if free.holds(way.room - resident.room):
                return way
        going = sum((other.room for other in self.memory.idle(but=resident)), MemoryAmount())
        if not going.holds(free.missing(ways[-1].room - resident.room)):
            stay = [other for other in self.memory.by_key.values() if other is not resident]
            needed, could_be = ways[-1].room, free + resident.room
            raise too_large(resident.facts.name, needed, could_be, self.memory.device, stay)
        await self._unload_idle(resident)
        return ways[-1]

    def drain(self, resident: LoadedModel, why: UnloadReason) -> None:
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
        resident.state = "unloading"
        resident.leaves_because = why
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


def _load_error(resident: LoadedModel, end: WorkerEnd) -> EngineError:
    path, name = resident.facts.path, resident.facts.name
    if end.was_by_others:
        return WorkerLost(name, f"{end}; it was started {_MOST_STARTS} times")
    if end.is_crash or end.status:  # it said nothing of the model
        return ModelUnusable(name, str(end), rebuild_command())
    return ModelBroken(path, str(end))


def too_large(
    name: str, needed: MemoryAmount, free: MemoryAmount, device: Device | None,
    stay: Iterable[LoadedModel],
) -> ModelTooLarge:  # fmt: skip
    """Return the refusal of a model; `stay`: the other models that are not unloaded for it."""
    if device is None or needed.host > free.host or not needed.used_gpus:
        return ModelTooLarge(name, needed.host, max(0, free.host))
    there = [(i, gpu) for i, gpu in enumerate(device.gpus) if i in needed.used_gpus]
    free_bytes = max(0, sum(free.on_gpu(i) for i, _ in there))
    ours = {model.facts.name: sum(model.room.on_gpu(i) for i, _ in there) for model in stay}
    others = sum(gpu.total_bytes for _, gpu in there) - free_bytes - sum(ours.values())
    holders = {holder: n_bytes for holder, n_bytes in {"": others, **ours}.items() if n_bytes > 0}
    names = ", ".join(gpu.name for _, gpu in there)
    return ModelTooLarge(name, sum(needed.gpus), free_bytes, names, holders)
