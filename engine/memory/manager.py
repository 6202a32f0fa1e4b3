"""Model manager: loaded models, a wait queue for each model, eviction.

Models are loaded on first use, kept while used, unloaded when idle or when another one needs the
memory. A model is loading, ready, draining (no new requests; unloaded when its last request ends)
or unloading. One task of the event loop wakes when something has changed, asks the policy
(`eviction_policy`, pure) what to do, and has the loader do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from paddock.engine.errors import Busy, EngineError, NoPlace
from paddock.engine.request import PRIORITY_RANK
from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.tasks import end
from paddock.engine.workers.worker_process import WorkerProcess

from .eviction_policy import (
    EvictModels,
    KeepModel,
    LoadModel,
    MemoryDecision,
    MemoryLimits,
    RefuseModel,
    WaitForChange,
    WaitingModel,
    decide,
    in_order,
)
from .loaded_models import LoadedModel, ModelUse, model_key, unused_replica_key, worker_files
from .loader import ModelLoader, too_large
from .machine_probe import MachineProbe
from .model_layout import LayoutRequest, ModelLayout
from .pool_stats import ModelStats, PoolEvents, PoolStats
from .worker_starter import StartWorker


class WaitingRequest(Struct, eq=False):
    """A request that waits for its model; `place` becomes the loaded model that takes it."""

    model_use: ModelUse
    since: float
    place: asyncio.Future[Any]


class WaitQueue(Struct):
    requests: list[WaitingRequest] = field(default_factory=list)

    @property
    def most_urgent(self) -> WaitingRequest:
        return min(self.requests, key=lambda request: PRIORITY_RANK[request.model_use.priority])

    @property
    def n_ctx_tokens(self) -> int:
        return max(request.model_use.facts.n_ctx_tokens for request in self.requests)

    def first_of_each(self) -> Iterator[WaitingRequest]:
        """Yield the first of each priority, again as long as the caller removes it."""
        for priority in PRIORITY_RANK:
            for request in [r for r in self.requests if r.model_use.priority == priority]:
                yield request
                if request in self.requests:
                    break

    def fail(self, error: EngineError, n_ctx_tokens: int = 0) -> None:
        for request in list(self.requests):
            if request.model_use.facts.n_ctx_tokens >= n_ctx_tokens:
                self.requests.remove(request)
                if not request.place.done():
                    request.place.set_exception(error)


N_LOADED_PER_DEVICE = 3
_LOOK_AGAIN_S = 1.0  # how often the memory of other programs is read
_REPLICA_AGAIN_S = 60.0  # after a replica that could not be loaded


class ModelManager:
    def __init__(
        self,
        settings: PoolSettings,
        start: StartWorker,
        memory_probe: MachineProbe,
        events: PoolEvents | None = None,
    ) -> None:
        self._settings = settings
        self._memory_probe = memory_probe
        self._events = events or PoolEvents()
        self._loader = ModelLoader(
            settings,
            start,
            memory_probe,
            self._events,
            on_change=self._changed,
            on_failure=self._failed,
        )
        self._memory = self._loader.memory
        self._queues: dict[str, WaitQueue] = {}
        self._layouts: dict[tuple[str, int, int | None, int], tuple[ModelLayout, ...]] = {}
        self._evicted_for: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self._planned: dict[str, int] = {}
        self._planning = asyncio.Lock()
        self._replicate_from = float("-inf")
        self._device_read_at = float("-inf")
        self._progress_at = 0.0
        self._wake = asyncio.Event()
        self._managing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def now(self) -> float:
        return self._loop.time() if self._loop is not None else time.monotonic()

    def resident(self) -> tuple[LoadedModel, ...]:
        return tuple(self._memory.by_key.values())

    def n_waiting(self, key: str) -> int:
        return len(self._queues[key].requests) if key in self._queues else 0

    def stats(self) -> PoolStats:
        waiting: Counter[str] = Counter()
        for queue in self._queues.values():
            if queue.requests:
                waiting[queue.most_urgent.model_use.facts.name] += len(queue.requests)
        for model in self.resident():
            waiting[model.facts.name] += _n_in_worker_queue(model)
        resident = tuple(self._model_stats(model) for model in self.resident())
        return PoolStats(resident, dict(self._memory.loads), dict(+waiting))

    def _model_stats(self, resident: LoadedModel) -> ModelStats:
        now = self.now()
        worker, load, room = resident.worker, resident.layout.load, resident.room
        host_layer_bytes = resident.layout.host_layer_bytes if room.used_gpus else room.host
        return ModelStats(
            resident.facts.name,
            resident.state,
            resident.n_users,
            load.n_parallel if worker else 0,
            worker.n_decoded_tokens if worker else 0,
            n_running=_n_running(resident),
            n_waiting=self.n_waiting(resident.key) + _n_in_worker_queue(resident),
            n_ctx_tokens=resident.layout_request.n_ctx_tokens,
            host_bytes=room.host,
            device_bytes=sum(room.gpus),
            host_layer_bytes=host_layer_bytes,
            placed=load.placed,
            ready_s=now - resident.ready_at if worker else None,
            keep_alive_s=resident.keep_alive_s,
            expires_s=None if resident.expires_at is None else max(0.0, resident.expires_at - now),
            load_s=resident.load_s,
            is_pinned=resident.is_pinned,
            adapters=resident.layout_request.adapters,
            digest=resident.facts.digest,
            tuned_from=resident.facts.tuned_from or "",
            pid=worker.pid if worker else None,
            role=resident.facts.role,
            n_cells=worker.load.n_cells if worker and resident.facts.role == "chat" else 0,
            fallback=worker.load.shortcomings if worker else "",
        )

    def awaited_load_s(self, key: str, since: float) -> float:
        """Return the seconds after `since` that a loaded model took to become ready."""
        ready = [replica.ready_at for replica in self._replicas(key) if replica.worker is not None]
        return max(0.0, min(ready, default=0.0) - since)

    def _replicas(self, key: str) -> list[LoadedModel]:
        base_key = model_key(key)
        return [
            replica for replica in self._memory.by_key.values() if replica.model_key == base_key
        ]

    async def n_parallel(self, model_use: ModelUse) -> int:
        replicas = self._replicas(model_use.key)
        if replicas:
            self._planned.pop(model_use.key, None)
            return sum(replica.layout.load.n_parallel for replica in replicas)
        async with self._planning:
            if model_use.key not in self._planned:
                device = await self._memory_probe.probe_device()
                request = model_use.layout_request(model_use.facts.n_ctx_tokens)
                ways = await self._memory_probe.layouts(request, device)
                way = next((layout for layout in ways if device.free.holds(layout.room)), ways[0])
                self._planned[model_use.key] = way.load.n_parallel
            return self._planned[model_use.key]

    async def placed(self, model_use: ModelUse, on_processor: bool | None) -> ModelUse:
        """Return a use of the worker that is meant; None: on the processor if it is there."""
        there = replace(model_use, on_processor=True)
        if on_processor is None:
            return there if self._replicas(there.key) else model_use
        device = self._memory.device or await self._memory.probe_device()
        return there if on_processor and device.is_gpu and not device.refusal else model_use

    @asynccontextmanager
    async def use(self, model_use: ModelUse) -> AsyncIterator[WorkerProcess]:
        """Use a model's worker; it is loaded if need be, and stays at least as long.

        Raises:
            Busy: the queue is full and the caller does not wait, or nothing moves any more.
            EngineError: it cannot be loaded.
        """
        if self._managing is None:
            self._loop = asyncio.get_running_loop()
            self._progress_at = self.now()
            self._managing = asyncio.create_task(self._manage())
            self._managing.add_done_callback(self._manage_ended)
        paths = worker_files(model_use.facts, model_use.adapters)
        self._dismissed(
            lambda model: (
                model.model_key != model_use.key
                and worker_files(model.facts, model.layout_request.adapters) == paths
            )
        )
        key = model_use.key
        queue = self._queues.setdefault(key, WaitQueue())
        n_inside = sum(
            max(0, replica.n_users - replica.layout.load.n_parallel)
            for replica in self._replicas(key)
        )
        if not model_use.waits and len(queue.requests) + n_inside >= self._settings.max_queue:
            self._events.refused(model_use.facts.name, "busy")
            raise Busy.of(model_use.facts.name, len(queue.requests))
        place: asyncio.Future[LoadedModel] = asyncio.get_running_loop().create_future()
        request = WaitingRequest(model_use, self.now(), place)
        queue.requests.append(request)
        self._changed(key)
        try:
            resident = await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._release(place.result(), model_use)  # it was admitted and cancelled at once
            raise
        finally:
            if request in queue.requests:
                queue.requests.remove(request)
            # Drop an empty queue; a cancelled request may have been the reason for a load.
            if not self.n_waiting(key):
                self._queues.pop(key, None)
                for replica in self._replicas(key):
                    if replica.state == "loading":
                        replica.last_used_at = self.now()
                self._wake.set()
        self._events.waited(model_use.facts.name, self.now() - request.since)
        try:
            assert resident.worker is not None
            yield resident.worker
        finally:
            self._release(resident, model_use)

    async def unload_when_idle(self, is_meant: Callable[[LoadedModel], bool]) -> bool:
        """Unload models when their last requests have ended; return whether there were any.

        Returns when the idle ones are gone. A request that comes before a model has gone may keep
        it with its own `keep_alive`.
        """
        going = self._dismissed(is_meant)
        leaving = [model.leaving for model in going if model.leaving is not None]
        if leaving:
            await asyncio.wait(leaving)
        return bool(going)

    def _dismissed(self, is_meant: Callable[[LoadedModel], bool]) -> list[LoadedModel]:
        going = [model for model in self.resident() if is_meant(model)]
        for model in going:
            model.keep_alive_s = 0
            if not self.n_waiting(model.model_key):
                self._loader.start_idle_timer(model)
        return going

    async def close(self) -> None:
        if self._managing is not None:
            await end(self._managing)
        for queue in self._queues.values():
            queue.fail(Busy("the pool is closed"))
        await self._loader.close()

    def _release(self, resident: LoadedModel, model_use: ModelUse) -> None:
        resident.leave(model_use, self.now())
        if self._memory.by_key.get(resident.key) is not resident:
            return
        self._changed(resident.key)
        is_needed = resident.is_widening or self.n_waiting(resident.model_key)
        if resident.state == "draining" or not is_needed:
            self._loader.start_idle_timer(resident)

    def _changed(self, key: str) -> None:
        self._progress_at = self.now()
        if key not in self._memory.by_key:
            self._device_read_at = float("-inf")
        self._admit(model_key(key))
        self._wake.set()

    def _failed(self, key: str, error: EngineError, n_ctx_tokens: int) -> None:
        others = [
            replica for replica in self._replicas(key) if replica.is_open and replica.key != key
        ]
        if others and not n_ctx_tokens:
            self._replicate_from = self.now() + _REPLICA_AGAIN_S
        elif model_key(key) in self._queues:
            self._queues[model_key(key)].fail(error, n_ctx_tokens)

    def _admit(self, key: str) -> None:
        queue = self._queues.get(key, WaitQueue())
        for request in queue.first_of_each():
            if request.place.done():  # cancelled, and not removed yet
                queue.requests.remove(request)
                continue
            is_open = [replica for replica in self._replicas(key) if replica.is_open]
            n_ctx_tokens = request.model_use.facts.n_ctx_tokens
            wide = [
                replica
                for replica in is_open
                if replica.layout_request.n_ctx_tokens >= n_ctx_tokens
            ]
            if is_open and not wide:
                self._loader.widen(is_open[0], queue.n_ctx_tokens)
                return
            having = [
                replica
                for replica in wide
                if replica.has_place(request.model_use, self._settings.max_queue)
            ]
            if having:
                resident = min(  # by requests inside its worker for each sequence
                    having, key=lambda r: r.users.total() / max(1, r.layout.load.n_parallel)
                )
                queue.requests.remove(request)
                resident.take(request.model_use)
                request.place.set_result(resident)

    def _manage_ended(self, task: asyncio.Task[None]) -> None:
        """Fail all waiting requests where the manager's task has a bug."""
        if task.cancelled():
            return
        self._managing = None
        for queue in tuple(self._queues.values()):
            queue.fail(EngineError(f"the pool has a fault: {task.exception()!r}"))
        task.result()

    async def _manage(self) -> None:
        wake_at: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(wake_at):
                    await self._wake.wait()
            self._wake.clear()
            is_leaving = any(model.state == "draining" for model in self.resident())
            has_work = is_leaving or self._missing_models() or self._overloaded()
            wake_at = await self._decide_and_act() if has_work else None
            wake_at = self._fail_if_stuck(wake_at)

    def _missing_models(self) -> list[str]:
        there = {model.model_key for model in self.resident()}
        return [key for key, queue in self._queues.items() if queue.requests and key not in there]

    def _overloaded(self) -> list[LoadedModel]:
        """Return one replica of each model that has more requests than sequences.

        Only where there are several devices and no replica is loading or unloading.
        """
        device = self._memory.device
        if device is None or len(device.gpus) < 2 or self.now() < self._replicate_from:
            return []
        by_model: dict[str, list[LoadedModel]] = {}
        for model in self.resident():
            by_model.setdefault(model.model_key, []).append(model)
        return [
            replicas[0]
            for key, replicas in by_model.items()
            if all(replica.is_open for replica in replicas)
            and sum(replica.users.total() for replica in replicas) + self.n_waiting(key)
            > sum(replica.layout.load.n_parallel for replica in replicas)
        ]

    async def _replicate(self) -> None:
        """Load models that have more requests than sequences on idle devices as well.

        A replica only takes free memory; no model is evicted for it.
        """
        for overloaded in self._overloaded():
            self._replicate_from = self.now() + _LOOK_AGAIN_S
            replicas = self._replicas(overloaded.key)
            in_use = [model for model in self.resident() if model.users or model in replicas]
            busy = set[int]().union(*(model.room.used_gpus for model in in_use))
            device = await self._memory.probe_device()
            request = replace(
                overloaded.layout_request, others_bytes=self._others_bytes(overloaded.model_key)
            )
            ways = await self._memory_probe.layouts(request, device)
            if len(self.resident()) >= self._limits().max_loaded_models:
                return
            for way in ways:
                is_apart = len(way.room.used_gpus) == 1 and busy.isdisjoint(way.room.used_gpus)
                if is_apart and way.is_good and self._memory.free.holds(way.room):
                    key = unused_replica_key(
                        overloaded.model_key, {replica.key for replica in replicas}
                    )
                    self._loader.load(key, request, way)
                    break

    async def _decide_and_act(self) -> float | None:
        if self.now() - self._device_read_at >= _LOOK_AGAIN_S or self._memory.device is None:
            self._layouts.clear()
            await self._memory.probe_device()
            self._device_read_at = self.now()
        layouts = {}
        for key in self._missing_models():
            try:
                request = self._layout_request(key)
                name = (key, request.n_ctx_tokens, request.n_cells_at_most, request.others_bytes)
                if name not in self._layouts:
                    device = self._memory.device or await self._memory.probe_device()
                    self._layouts[name] = await self._memory_probe.layouts(request, device)
                layouts[key] = self._layouts[name]
            except EngineError as error:
                self._failed(key, error, 0)
        while True:
            waiting = [
                self._waiting_model(key, layouts[key])
                for key in self._missing_models()
                if key in layouts
            ]
            loaded = [
                model.policy_state(self.n_waiting(model.model_key)) for model in self.resident()
            ]
            move = decide(loaded, waiting, self._memory.free, self._limits(), self.now())
            if isinstance(move, WaitForChange):
                if not self._missing_models():
                    await self._replicate()
                # When to read the memory again, which other programs may free
                if not self._missing_models():
                    return None
                again = self.now() + _LOOK_AGAIN_S
                return again if move.until is None else min(again, move.until)
            self._act(move, layouts, in_order(waiting))

    def _layout_request(self, key: str) -> LayoutRequest:
        queue = self._queues[key]
        model_use = queue.most_urgent.model_use
        at_most = self._memory.n_cells_at_most(key)
        others = self._others_bytes(key)
        request = model_use.layout_request(queue.n_ctx_tokens)
        return replace(request, n_cells_at_most=at_most, others_bytes=others)

    def _others_bytes(self, key: str) -> int:
        """Return the file sizes of unloaded models that will be needed beside this one.

        Requests wait for them, or they were evicted for this one.
        """
        sizes = {
            other_key: size
            for other_key, size in self._sizes.items()
            if other_key in self._evicted_for
        }
        for other_key in self._missing_models():
            facts = self._queues[other_key].most_urgent.model_use.facts
            sizes[other_key] = facts.ir_bytes or facts.size_bytes
        there = {key, *(model.model_key for model in self.resident())}
        return sum(size for other_key, size in sizes.items() if other_key not in there)

    def _waiting_model(self, key: str, ways: tuple[ModelLayout, ...]) -> WaitingModel:
        requests = self._queues[key].requests
        is_interactive = any(request.model_use.priority == "interactive" for request in requests)
        n_good = sum(way.is_good for way in ways)
        rooms = tuple(way.room for way in ways)
        after = self._evicted_for.get(key, "")
        return WaitingModel(key, requests[0].since, is_interactive, rooms, n_good, after)

    def _limits(self) -> MemoryLimits:
        device = self._memory.device
        n_devices = max(1, len(device.gpus)) if device else 1
        n_most = self._settings.max_loaded_models or N_LOADED_PER_DEVICE * n_devices
        return MemoryLimits(n_most, self._settings.max_wait_s)

    def _act(
        self,
        move: MemoryDecision,
        layouts: dict[str, tuple[ModelLayout, ...]],
        waiting: Sequence[WaitingModel],
    ) -> None:
        by_key = self._memory.by_key
        if isinstance(move, LoadModel):
            self._loader.load(
                move.key, self._layout_request(move.key), layouts[move.key][move.option]
            )
            victims = self._evicted_for.items()
            self._evicted_for = {victim: other for victim, other in victims if other != move.key}
        elif isinstance(move, EvictModels):
            for key in move.keys:
                self._evicted_for[key] = waiting[0].key
                is_replica = key != by_key[key].model_key
                facts = by_key[key].facts
                self._sizes[key] = 0 if is_replica else facts.ir_bytes or facts.size_bytes
                self._loader.drain(by_key[key], "room")
        elif isinstance(move, KeepModel):
            self._loader.keep(by_key[move.key])
        elif isinstance(move, RefuseModel):
            queue = self._queues[move.key]
            name = queue.most_urgent.model_use.facts.name
            stay = [model for model in self.resident() if model.is_pinned]
            device = self._memory.device
            error: EngineError = too_large(name, move.needed, move.could_be, device, stay)
            if move.is_crowded:
                pinned = [model.facts.name for model in stay]
                error = NoPlace(name, pinned, self._limits().max_loaded_models)
            self._events.refused(name, "too_large")
            queue.fail(error, queue.n_ctx_tokens)

    def _fail_if_stuck(self, wake_at: float | None) -> float | None:
        """Fail all waiting requests if nothing has moved for long; return when to wake."""
        if not any(queue.requests for queue in self._queues.values()):
            return wake_at
        workers = [model.worker for model in self.resident() if model.worker is not None]
        moved_at = max([self._progress_at, *(worker.last_turn_at for worker in workers)])
        limit_s = self._settings.wait_timeout_s
        if self.now() - moved_at < limit_s:
            due = moved_at + limit_s
            return due if wake_at is None else min(due, wake_at)
        for queue in tuple(self._queues.values()):
            for request in queue.requests:
                self._events.refused(request.model_use.facts.name, "late")
            queue.fail(Busy(f"no model came free, and nothing moved for {limit_s:g} s"))
        return wake_at


def _n_running(resident: LoadedModel) -> int:
    """Count requests in a batch. One that is taken apart for its worker counts once."""
    return min(resident.worker.n_running, resident.users.total()) if resident.worker else 0


def _n_in_worker_queue(resident: LoadedModel) -> int:
    """Count requests inside the worker that no batch has taken yet."""
    return resident.users.total() - _n_running(resident)
