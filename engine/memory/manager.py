"""Model manager: loaded models, a wait queue for each model, eviction.

Models are loaded on first use, kept while used, unloaded when idle or when another one needs the
memory. A model is loading, ready, draining (no new requests; it goes when its last user leaves) or
unloading; one that is absent is cold. One task of the event loop looks at everything whenever
something has changed, asks the policy (`policy`, pure) what to do, and has the loader do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic

from paddock.engine.errors import Busy, EngineError, NoPlace
from paddock.engine.request import Priority
from paddock.engine.settings import PoolSettings

from .loaded_models import LoadedModel, ModelUse, W, model_key, replica_key, too_large
from .loader import ModelLoader, StartWorker
from .model_layout import LayoutRequest, MemoryProbe, ModelLayout
from .policy import (
    EvictModels,
    KeepModel,
    MemoryDecision,
    MemoryLimits,
    RefuseModel,
    WaitForChange,
    WaitingModel,
    decide,
    in_order,
)
from .policy import LoadModel as StartMove
from .pool_stats import LoadCount, ModelStats, PoolEvents, PoolStats

_PRIORITY_ORDER: tuple[Priority, ...] = ("interactive", "normal", "batch")


@dataclass(slots=True, eq=False)
class WaitingRequest:
    """One request outside; `place` will be the resident that takes it."""

    ask: ModelUse
    since: float
    place: asyncio.Future[Any]


@dataclass(slots=True)
class WaitQueue:
    """The callers of one model."""

    _callers: dict[Priority, deque[WaitingRequest]] = field(
        default_factory=lambda: {priority: deque() for priority in _PRIORITY_ORDER}
    )

    def __len__(self) -> int:
        """Count those who wait."""
        return sum(len(callers) for callers in self._callers.values())

    def __iter__(self) -> Iterator[WaitingRequest]:
        """Yield all, the more urgent first, each priority in its order of arrival."""
        return (caller for priority in _PRIORITY_ORDER for caller in self._callers[priority])

    def add(self, caller: WaitingRequest) -> None:
        """Let one wait."""
        self._callers[caller.ask.priority].append(caller)

    def remove(self, caller: WaitingRequest) -> None:
        """Take one out, if it is still there."""
        callers = self._callers[caller.ask.priority]
        if caller in callers:
            callers.remove(caller)

    def first_of_each(self) -> Iterator[WaitingRequest]:
        """Yield the first of each priority anew until no more are taken from it."""
        for priority in _PRIORITY_ORDER:
            callers = self._callers[priority]
            while callers:
                first = callers[0]
                yield first
                if callers and callers[0] is first:
                    break

    @property
    def since(self) -> float:
        """Since when the first has waited."""
        return min(callers[0].since for callers in self._callers.values() if callers)

    @property
    def is_interactive(self) -> bool:
        """Whether a person waits."""
        return bool(self._callers["interactive"])

    @property
    def n_ctx_tokens(self) -> int:
        """The longest context that anybody wants."""
        return max(caller.ask.facts.n_ctx_tokens for caller in self)

    def fail(self, error: EngineError, n_ctx_tokens: int = 0) -> None:
        """Send away everybody, or only those who want at least so long a context."""
        for caller in [c for c in self if c.ask.facts.n_ctx_tokens >= n_ctx_tokens]:
            self.remove(caller)
            if not caller.place.done():
                caller.place.set_exception(error)


N_LOADED_PER_DEVICE = 3
_LOOK_AGAIN_S = 1.0  # what other programs take is seen so late at most
_REPLICA_AGAIN_S = 60.0  # after a replica that could not be loaded


@dataclass(frozen=True, slots=True, eq=False)
class _ModelLease:
    """A run's wish that its models stay; advice, which is not heeded for ever."""

    sizes: Mapping[str, int]
    """Bytes of the models' files, by the models' keys."""
    until: float


class ModelManager(Generic[W]):
    """The actor. Close it with `close`, which ends every worker."""

    def __init__(
        self,
        settings: PoolSettings,
        start: StartWorker[W],
        memory_probe: MemoryProbe,
        events: PoolEvents | None = None,
    ) -> None:
        self._settings = settings
        self._memory_probe = memory_probe
        self._events = events or PoolEvents()
        self._keeper = ModelLoader(settings, start, memory_probe, self._events, self)
        self._books = self._keeper.books
        self._lines: dict[str, WaitQueue] = {}
        self._leases: set[_ModelLease] = set()
        self._layouts: dict[tuple[str, int, int | None, int], tuple[ModelLayout, ...]] = {}
        self._made_room_for: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        """Bytes of the files of models that had to go, by key."""
        self._planned: dict[str, int] = {}
        """Sequences of models that are not loaded, by key."""
        self._planning = asyncio.Lock()
        self._replicate_from = float("-inf")
        self._looked_at = float("-inf")
        self._moved_at = 0.0
        self._stirred = asyncio.Event()
        self._director: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # What can be seen

    def now(self) -> float:
        """Read the event loop's clock; another thread may ask too."""
        return self._loop.time() if self._loop is not None else time.monotonic()

    def resident(self) -> tuple[LoadedModel[W], ...]:
        """Return which models are there now."""
        return tuple(self._books.by_key.values())

    @property
    def loads(self) -> dict[str, LoadCount]:
        """Return how often each model was loaded."""
        return self._books.loads

    def n_waiting(self, key: str) -> int:
        """Return how many requests wait outside for a model."""
        return len(self._lines.get(key, ()))

    def stats(self) -> PoolStats:
        """Describe all models in memory, and count the requests that wait for any model."""
        waiting: Counter[str] = Counter()
        for line in self._lines.values():
            if line:
                waiting[next(iter(line)).ask.facts.name] += len(line)
        for one in self.resident():
            waiting[one.facts.name] += _n_in_worker_queue(one)
        resident = tuple(self._model_stats(one) for one in self.resident())
        return PoolStats(resident, dict(self.loads), dict(+waiting))

    def _model_stats(self, one: LoadedModel[W]) -> ModelStats:
        now = self.now()
        worker, load = one.worker, one.layout.load
        return ModelStats(
            one.facts.name,
            one.state,
            one.n_users,
            load.n_parallel if worker else 0,
            worker.n_decoded_tokens if worker else 0,
            n_running=_n_running(one),
            n_waiting=self.n_waiting(one.key) + _n_in_worker_queue(one),
            n_ctx_tokens=one.wanted.n_ctx_tokens,
            host_bytes=one.room.host,
            device_bytes=sum(one.room.gpus),
            placed=load.placed,
            ready_s=now - one.ready_at if worker else None,
            keep_alive_s=one.keep_alive_s,
            expires_s=None if one.expires_at is None else max(0.0, one.expires_at - now),
            load_s=one.load_s,
            is_pinned=one.is_pinned,
            is_leased=self.is_leased(one.key),
            adapters=one.wanted.adapters,
            digest=one.facts.digest,
            pid=worker.pid if worker else None,
            role=one.facts.role,
            n_cells=worker.load.n_cells if worker and one.facts.role == "chat" else 0,
            fallback=worker.load.fallback_note if worker else "",
        )

    def is_leased(self, key: str) -> bool:
        """Return whether a run has asked that this model stay."""
        now = self.now()
        return any(key in lease.sizes and now < lease.until for lease in self._leases)

    def awaited_load_s(self, key: str, since: float) -> float:
        """Tell for how long, from `since` on, a model that is there was not ready yet."""
        ready = [one.ready_at for one in self._replicas(key) if one.worker is not None]
        return max(0.0, min(ready, default=0.0) - since)

    def _replicas(self, key: str) -> list[LoadedModel[W]]:
        """Return the residents of a model, one for each device that has it."""
        wanted = model_key(key)
        return [one for one in self._books.by_key.values() if one.model_key == wanted]

    async def n_parallel(self, ask: ModelUse) -> int:
        """Return how many requests of a model are computed at once, or would be if it were loaded.

        Raises:
            ModelBroken: its file cannot be read.
        """
        replicas = self._replicas(ask.key)
        if replicas:
            self._planned.pop(ask.key, None)
            return sum(one.layout.load.n_parallel for one in replicas)
        async with self._planning:
            if ask.key not in self._planned:
                device = await self._memory_probe.look()
                wanted = LayoutRequest(ask.facts, ask.facts.n_ctx_tokens, ask.adapters)
                ways = await self._memory_probe.layouts(wanted, device)
                way = next((one for one in ways if device.free.holds(one.room)), ways[0])
                self._planned[ask.key] = way.load.n_parallel
            return self._planned[ask.key]

    # In and out

    @asynccontextmanager
    async def use(self, ask: ModelUse) -> AsyncIterator[W]:
        """Use a model's worker; it is loaded if need be, and stays at least as long.

        Raises:
            Busy: the queue is full and the caller does not wait, or nothing moves any more.
            EngineError: it cannot be loaded.
        """
        resident = await self._enter(ask)
        try:
            assert resident.worker is not None
            yield resident.worker
        finally:
            self._leave(resident, ask)

    @asynccontextmanager
    async def lease(self, asks: Iterable[ModelUse]) -> AsyncIterator[None]:
        """Ask that these models stay while it can be avoided that they go; loads nothing."""
        self._begin()
        sizes = {ask.key: ask.facts.size_bytes for ask in asks}
        lease = _ModelLease(sizes, self.now() + self._settings.lease_s)
        self._leases.add(lease)
        try:
            yield
        finally:
            self._leases.discard(lease)
            self._stirred.set()

    async def dismiss(self, is_meant: Callable[[LoadedModel[W]], bool]) -> bool:
        """Let models go as soon as nobody uses them; tells whether there were any.

        Returns when those that were idle are gone. Who comes before a model has gone may keep it
        with a `keep_alive` of its own.
        """
        going = [one for one in self.resident() if is_meant(one)]
        for one in going:
            one.keep_alive_s = 0
            if not self.n_waiting(one.model_key):
                self._keeper.rest(one)
        leaving = [one.leaving for one in going if one.leaving is not None]
        if leaving:
            await asyncio.wait(leaving)
        return bool(going)

    async def close(self) -> None:
        """End every worker."""
        if self._director is not None:
            self._director.cancel()
            await asyncio.gather(self._director, return_exceptions=True)
        for line in self._lines.values():
            line.fail(Busy("the pool is closed"))
        await self._keeper.close()

    async def _enter(self, ask: ModelUse) -> LoadedModel[W]:
        self._begin()
        line = self._lines.setdefault(ask.key, WaitQueue())
        if not ask.waits and self._is_full(ask, line):
            self._events.refused(ask.facts.name, "busy")
            raise Busy.of(ask.facts.name, len(line))
        place: asyncio.Future[LoadedModel[W]] = asyncio.get_running_loop().create_future()
        caller = WaitingRequest(ask, self.now(), place)
        line.add(caller)
        self.changed(ask.key)
        try:
            resident = await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self._leave(place.result(), ask)  # the place came together with the farewell
            raise
        finally:
            line.remove(caller)
            self._tidy(ask.key)
        self._events.waited(ask.facts.name, self.now() - caller.since)
        return resident

    def _is_full(self, ask: ModelUse, line: WaitQueue) -> bool:
        n_inside = sum(
            max(0, one.n_users - one.layout.load.n_parallel) for one in self._replicas(ask.key)
        )
        return len(line) + n_inside >= self._settings.max_queue

    def _tidy(self, key: str) -> None:
        """Forget an empty line; whoever left may have been the reason for something."""
        if not self._lines.get(key):
            self._lines.pop(key, None)
            for one in self._replicas(key):
                if one.state == "loading":
                    one.last_used_at = self.now()
            self._stirred.set()

    def _leave(self, resident: LoadedModel[W], ask: ModelUse) -> None:
        resident.leave(ask, self.now())
        if self._books.by_key.get(resident.key) is not resident:
            return
        self.changed(resident.key)
        is_needed = resident.is_widening or self.n_waiting(resident.model_key)
        if resident.state == "draining" or not is_needed:
            self._keeper.rest(resident)

    # What the caretaker tells

    def changed(self, key: str) -> None:
        """Let in whom there is a place for, and look at the rest anew."""
        self._moved_at = self.now()
        if key not in self._books.by_key:
            self._looked_at = float("-inf")
        self._admit(model_key(key))
        self._stirred.set()

    def failed(self, key: str, error: EngineError, n_ctx_tokens: int = 0) -> None:
        """Tell those who wait that they wait in vain."""
        others = [one for one in self._replicas(key) if one.is_open and one.key != key]
        if others and not n_ctx_tokens:
            self._replicate_from = self.now() + _REPLICA_AGAIN_S
        elif model_key(key) in self._lines:
            self._lines[model_key(key)].fail(error, n_ctx_tokens)

    def _admit(self, key: str) -> None:
        """Admit callers of a model, each to the replica that has the most free places."""
        line = self._lines.get(key, WaitQueue())
        for caller in line.first_of_each():
            if caller.place.done():  # it has been cancelled, and has not come to say so
                line.remove(caller)
                continue
            is_open = [one for one in self._replicas(key) if one.is_open]
            n_ctx_tokens = caller.ask.facts.n_ctx_tokens
            wide = [one for one in is_open if one.wanted.n_ctx_tokens >= n_ctx_tokens]
            if is_open and not wide:
                self._keeper.widen(is_open[0], line.n_ctx_tokens)
                return
            having = [one for one in wide if one.has_place(caller.ask, self._settings.max_queue)]
            if having:
                resident = min(having, key=lambda one: one.occupancy)
                line.remove(caller)
                resident.take(caller.ask)
                caller.place.set_result(resident)

    # The director

    def _begin(self) -> None:
        if self._director is None:
            self._loop = asyncio.get_running_loop()
            self._moved_at = self.now()
            self._director = asyncio.create_task(self._direct())
            self._director.add_done_callback(self._director_ended)

    def _director_ended(self, task: asyncio.Task[None]) -> None:
        """Nobody must wait for a director that has fallen over a fault of ours."""
        if task.cancelled():
            return
        self._director = None
        for line in tuple(self._lines.values()):
            line.fail(EngineError(f"the pool has a fault: {task.exception()!r}"))
        task.result()

    async def _direct(self) -> None:
        wake_at: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(wake_at):
                    await self._stirred.wait()
            self._stirred.clear()
            wake_at = await self._settle() if self._has_work() else None
            wake_at = self._give_up_if_still(wake_at)

    def _cold(self) -> list[str]:
        """Return which models are wanted and not there."""
        there = {one.model_key for one in self.resident()}
        return [key for key, line in self._lines.items() if line and key not in there]

    def _has_work(self) -> bool:
        is_leaving = any(one.state == "draining" for one in self.resident())
        return is_leaving or bool(self._cold()) or bool(self._crowded())

    def _crowded(self) -> list[LoadedModel[W]]:
        """Return the models, each by one resident, that have more requests than places.

        Only where there are several devices, and nothing of the model is on its way.
        """
        device = self._books.device
        if device is None or len(device.gpus) < 2 or self.now() < self._replicate_from:
            return []
        by_model: dict[str, list[LoadedModel[W]]] = {}
        for one in self.resident():
            by_model.setdefault(one.model_key, []).append(one)
        return [
            replicas[0]
            for key, replicas in by_model.items()
            if all(one.is_open for one in replicas)
            and sum(one.users.total() for one in replicas) + self.n_waiting(key)
            > sum(one.layout.load.n_parallel for one in replicas)
        ]

    async def _replicate(self) -> None:
        """Load models that have more requests than places on devices that are idle as well.

        A replica is only added to memory that is free: nothing goes for it.
        """
        for crowded in self._crowded():
            self._replicate_from = self.now() + _LOOK_AGAIN_S
            replicas = self._replicas(crowded.key)
            busy = {
                gpu
                for one in self.resident()
                if one.users or one in replicas
                for gpu, n_bytes in enumerate(one.room.gpus)
                if n_bytes
            }
            device = await self._books.look()
            wanted = replace(crowded.wanted, others_bytes=self._others_bytes(crowded.model_key))
            ways = await self._memory_probe.layouts(wanted, device)
            if len(self.resident()) >= self._house().max_loaded_models:
                return
            for way in ways:
                gpus = [gpu for gpu, n_bytes in enumerate(way.room.gpus) if n_bytes]
                is_apart = len(gpus) == 1 and gpus[0] not in busy
                if is_apart and way.is_good and self._books.free.holds(way.room):
                    taken = {one.key for one in replicas}
                    names = (replica_key(crowded.model_key, n) for n in range(len(taken) + 1))
                    self._keeper.bring(next(n for n in names if n not in taken), wanted, way)
                    break

    async def _settle(self) -> float | None:
        """Do what there is to do; gives when to look again."""
        layouts = await self._survey()
        while True:
            wishes = [self._wish(key, layouts[key]) for key in self._cold() if key in layouts]
            stays = [
                one.stay(self.n_waiting(one.model_key), self.is_leased(one.key))
                for one in self.resident()
            ]
            move = decide(stays, wishes, self._books.free, self._house(), self.now())
            if isinstance(move, WaitForChange):
                if not self._cold():
                    await self._replicate()
                return self._next_look(move)
            self._act(move, layouts, in_order(wishes))

    async def _survey(self) -> dict[str, tuple[ModelLayout, ...]]:
        """Find the ways to load what is wanted, on the machine as it is now."""
        if self.now() - self._looked_at >= _LOOK_AGAIN_S or self._books.device is None:
            self._layouts.clear()
            await self._books.look()
            self._looked_at = self.now()
        found = {}
        for key in self._cold():
            try:
                found[key] = await self._ways(key)
            except EngineError as error:
                self.failed(key, error)
        return found

    async def _ways(self, key: str) -> tuple[ModelLayout, ...]:
        wanted = self._wanted(key)
        name = (key, wanted.n_ctx_tokens, wanted.n_cells_at_most, wanted.others_bytes)
        if name not in self._layouts:
            device = await self._books.look()
            self._layouts[name] = await self._memory_probe.layouts(wanted, device)
        return self._layouts[name]

    def _wanted(self, key: str) -> LayoutRequest:
        line = self._lines[key]
        ask = next(iter(line)).ask
        at_most = self._books.n_cells_at_most(key)
        others = self._others_bytes(key)
        return LayoutRequest(
            ask.facts, line.n_ctx_tokens, ask.adapters, at_most, others_bytes=others
        )

    def _others_bytes(self, key: str) -> int:
        """Return the size of models that are not here and will be needed beside this one.

        They wait as well, or a run has leased them, or they have just gone to make room.
        """
        now = self.now()
        sizes = {one: size for one, size in self._sizes.items() if one in self._made_room_for}
        for lease in self._leases:
            sizes |= lease.sizes if now < lease.until else {}
        for one in self._cold():
            sizes[one] = next(iter(self._lines[one])).ask.facts.size_bytes
        there = {key, *(one.model_key for one in self.resident())}
        return sum(size for one, size in sizes.items() if one not in there)

    def _wish(self, key: str, ways: tuple[ModelLayout, ...]) -> WaitingModel:
        line = self._lines[key]
        n_good = sum(way.is_good for way in ways)
        rooms = tuple(way.room for way in ways)
        after = self._made_room_for.get(key, "")
        return WaitingModel(key, line.since, line.is_interactive, rooms, n_good, after)

    def _house(self) -> MemoryLimits:
        device = self._books.device
        n_devices = max(1, len(device.gpus)) if device else 1
        n_most = self._settings.max_loaded_models or N_LOADED_PER_DEVICE * n_devices
        return MemoryLimits(n_most, self._settings.max_wait_s)

    def _act(
        self,
        move: MemoryDecision,
        layouts: dict[str, tuple[ModelLayout, ...]],
        wishes: Sequence[WaitingModel],
    ) -> None:
        by_key = self._books.by_key
        if isinstance(move, StartMove):
            self._keeper.bring(move.key, self._wanted(move.key), layouts[move.key][move.option])
            victims = self._made_room_for.items()
            self._made_room_for = {one: other for one, other in victims if other != move.key}
        elif isinstance(move, EvictModels):
            for key in move.keys:
                self._made_room_for[key] = wishes[0].key
                is_replica = key != by_key[key].model_key
                self._sizes[key] = 0 if is_replica else by_key[key].facts.size_bytes
                self._keeper.drain(by_key[key], "room")
        elif isinstance(move, KeepModel):
            self._keeper.keep(by_key[move.key])
        elif isinstance(move, RefuseModel):
            self._refuse(move)

    def _refuse(self, move: RefuseModel) -> None:
        line = self._lines[move.key]
        name = next(iter(line)).ask.facts.name
        error: EngineError = too_large(name, move.needed, move.could_be)
        if move.is_crowded:
            pinned = [one.facts.name for one in self.resident() if one.is_pinned]
            error = NoPlace(name, pinned, self._house().max_loaded_models)
        self._events.refused(name, "too_large")
        line.fail(error, line.n_ctx_tokens)

    def _next_look(self, move: WaitForChange) -> float | None:
        """While somebody waits for memory, other programs may give some back."""
        if not self._cold():
            return None
        again = self.now() + _LOOK_AGAIN_S
        return again if move.until is None else min(again, move.until)

    def _give_up_if_still(self, wake_at: float | None) -> float | None:
        """Let nobody wait for ever: when nothing at all moves, the wait has an end."""
        if not any(self._lines.values()):
            return wake_at
        workers = [one.worker for one in self.resident() if one.worker is not None]
        moved_at = max([self._moved_at, *(worker.last_turn_at for worker in workers)])
        limit_s = self._settings.wait_timeout_s
        if self.now() - moved_at < limit_s:
            due = moved_at + limit_s
            return due if wake_at is None else min(due, wake_at)
        for line in tuple(self._lines.values()):
            for caller in line:
                self._events.refused(caller.ask.facts.name, "late")
            line.fail(Busy(f"no model came free, and nothing moved for {limit_s:g} s"))
        return wake_at


def _n_running(one: LoadedModel[Any]) -> int:
    """Count requests in a batch. One that is taken apart for its worker counts once."""
    return min(one.worker.n_running, one.users.total()) if one.worker else 0


def _n_in_worker_queue(one: LoadedModel[Any]) -> int:
    """Count requests inside the worker that no batch has taken yet."""
    return one.users.total() - _n_running(one)
