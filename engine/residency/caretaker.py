"""Brings models in, watches them, makes them wider and sees them out. Decides nothing of itself.

Everything runs in the pool's event loop; what takes time runs in tasks of its own. Each change is
told to the actor (`residents`), which decides what it means for those who wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, Protocol

from paddock.engine.errors import EngineError, ModelBroken, ModelTooLarge, WorkerLost
from paddock.engine.settings import PoolSettings
from paddock.engine.workers.load import Load
from paddock.engine.workers.process import LoadBroken, WorkerGone

from .deaths import ran_out_of_memory
from .devices import Device
from .events import Leaving, PoolEvents
from .eviction import Candidate, choose
from .fit import Layout, Wanted, as_placed
from .resident import Resident, W
from .room import Room
from .survey import Surveyor

_WATCH_S = 1.0

Start = Callable[[Load, float], Awaitable[W]]
"""Starts a worker within so many seconds; raises `LoadBroken`, `EngineError` or `OSError`."""


@dataclass(slots=True)
class LoadCount:
    """How often a model was loaded, and how long that took."""

    loads: int = 0
    load_s: float = 0.0


class Listener(Protocol):
    """The actor, as the caretaker speaks to it."""

    def changed(self, key: str) -> None:
        """A model has come, gone, or takes requests again."""
        ...

    def failed(self, key: str, error: EngineError, n_ctx_tokens: int = 0) -> None:
        """A model cannot be had, or not with so long a context."""
        ...


class Caretaker(Generic[W]):
    """Holds the residents. The books of free room are kept here too."""

    def __init__(
        self,
        settings: PoolSettings,
        start: Start[W],
        surveyor: Surveyor,
        events: PoolEvents,
        listener: Listener,
    ) -> None:
        self._settings = settings
        self._start = start
        self._surveyor = surveyor
        self._events = events
        self._listener = listener
        self._tasks: set[asyncio.Task[None]] = set()
        self._halvings: dict[str, int] = {}
        self.by_key: dict[str, Resident[W]] = {}
        self.device: Device | None = None
        self.free = Room()
        self.loads: dict[str, LoadCount] = {}

    @property
    def is_calm(self) -> bool:
        """Whether nothing is on its way in or out, so that free memory can be read.

        A worker that has just died counts as on its way out: its memory is free already, and in
        the books it will be once it is buried.
        """
        return all(
            one.state in ("ready", "draining") and one.worker and not one.worker.gone.done()
            for one in self.by_key.values()
        )

    async def look(self) -> Device:
        """Read the machine; while models come or go, the books are better than a reading."""
        if self.device is not None and not self.is_calm:
            return self.device
        device = await self._surveyor.look()
        if self.device is None or self.is_calm:
            self.device, self.free = device, device.free
            gpu_overhead = (self._settings.gpu_overhead_bytes,) * len(device.gpus)
            self.free -= Room(self._mapped_bytes(), gpu_overhead)
        return device

    def _mapped_bytes(self) -> int:
        """Count weights that are pages of their files: the system calls them free memory."""
        return sum(one.worker.mapped_bytes for one in self.by_key.values() if one.worker)

    def n_parallel_at_most(self, key: str) -> int | None:
        """Tell how many sequences a model may have after it ran out of memory."""
        return self._halvings.get(key)

    # In

    def bring(self, key: str, wanted: Wanted, layout: Layout) -> None:
        """Begin to load."""
        now = asyncio.get_running_loop().time()
        resident = Resident[W](key, wanted, layout, self._settings.keep_alive_s, now)
        resident.n_oom_kills = self.device.n_oom_kills if self.device else 0
        self.by_key[key] = resident
        self.free -= layout.room
        resident.loading = self._spawn(self._load(resident))

    async def _load(self, resident: Resident[W]) -> None:
        try:
            worker = await self._started(resident)
        except EngineError as error:
            self._failed(resident, error)
        except LoadBroken as error:
            self._failed(resident, ModelBroken(resident.facts.path, error.why))
        except OSError as error:
            self._failed(resident, WorkerLost(resident.facts.name, str(error)))
        else:
            self._ready(resident, worker)

    async def _started(self, resident: Resident[W]) -> W:
        """Start a worker; after running out of memory once more, with more room or less of it."""
        limit_s = self._settings.load_timeout_s
        try:
            return await self._start(resident.layout.load, limit_s)
        except LoadBroken as error:
            if not await self._was_memory(resident, error.why):
                raise
        if not await self._empty_out(resident) and not await self._shrink(resident):
            raise await self._too_large(resident)
        try:
            return await self._start(resident.layout.load, limit_s)
        except LoadBroken as error:
            if not await self._was_memory(resident, error.why):
                raise
        raise await self._too_large(resident)

    async def _was_memory(self, resident: Resident[W], reason: str) -> bool:
        device = await self._surveyor.look()
        return ran_out_of_memory(reason, resident.n_oom_kills, device.n_oom_kills)

    async def _too_large(self, resident: Resident[W]) -> ModelTooLarge:
        free = (await self._surveyor.look()).free
        return too_large(resident.facts.name, resident.room, free)

    async def _empty_out(self, resident: Resident[W]) -> bool:
        """Send the idle models away for one that found no room, and wait until they are gone."""
        going = [one for one in self.by_key.values() if one is not resident and is_idle(one)]
        for one in going:
            self.send_away(one, "room")
        await asyncio.gather(*(one.leaving for one in going if one.leaving is not None))
        return bool(going)

    async def _shrink(self, resident: Resident[W]) -> bool:
        """Lay a model out for half as many sequences; tell whether that is possible."""
        if not self._halve(resident):
            return False
        wanted = replace(resident.wanted, n_parallel_at_most=self._halvings[resident.key])
        device = self.device or await self._surveyor.look()
        ways = await self._surveyor.layouts(wanted, device)
        self.free += resident.room - ways[0].room
        resident.layout = ways[0]
        return True

    def _halve(self, resident: Resident[W]) -> bool:
        n_parallel = resident.layout.load.n_parallel
        if n_parallel < 2:
            return False
        self._halvings[resident.key] = n_parallel // 2
        return True

    def _failed(self, resident: Resident[W], error: EngineError) -> None:
        """Tell all who wait; the next request tries again."""
        if self.by_key.get(resident.key) is resident:
            del self.by_key[resident.key]
            self.free += resident.room
        self._listener.failed(resident.key, error)
        self._listener.changed(resident.key)

    def _ready(self, resident: Resident[W], worker: W) -> None:
        now = asyncio.get_running_loop().time()
        resident.worker, resident.state, resident.loading = worker, "ready", None
        resident.ready_at = resident.last_used_at = now
        name = resident.facts.name
        worker.on_turn = partial(self._events.turn, name)
        count = self.loads.setdefault(name, LoadCount())
        count.loads += 1
        count.load_s += worker.load_s
        self._learn(resident, worker)
        self._events.loaded(name, worker.load_s)
        self._spawn(self._watch(resident, worker))
        self._listener.changed(resident.key)
        self.rest(resident)

    def _learn(self, resident: Resident[W], worker: W) -> None:
        """Let what a worker really takes stand in the books and for the next time."""
        taken = worker.measure()
        self._surveyor.learn(resident.wanted, worker.load, taken, worker.load_s)
        room = as_placed(taken, resident.room)
        self.free += resident.room - room
        resident.layout = replace(resident.layout, room=room)

    # While it is there

    def rest(self, resident: Resident[W]) -> None:
        """Decide how long a model without users stays."""
        if resident.n_users:
            return
        if resident.state == "draining":
            self.send_away(resident, resident.leaves_because)
        elif resident.state == "ready" and resident.keep_alive_s == 0:
            self.send_away(resident, "idle")
        elif resident.state == "ready" and resident.keep_alive_s > 0:
            loop = asyncio.get_running_loop()
            resident.cancel_expiry()
            resident.expires_at = loop.time() + resident.keep_alive_s
            resident.expiry = loop.call_at(resident.expires_at, self._expire, resident)

    def _expire(self, resident: Resident[W]) -> None:
        if is_idle(resident, spares_pinned=False):
            self.send_away(resident, "idle")

    async def _watch(self, resident: Resident[W], worker: W) -> None:
        """Kill a worker that has work and makes no step within its limit; note how it ends."""
        limit_s = self._settings.step_timeout_s
        clock = asyncio.get_running_loop()
        while not worker.gone.done():
            await asyncio.wait({worker.gone}, timeout=_WATCH_S)
            worker.measure()
            if worker.n_requests and clock.time() - worker.last_turn_at > limit_s:
                await worker.kill(f"it made no step within {limit_s:g} s")
        if resident.state in ("ready", "draining"):
            await self._bury(resident, worker.gone.result())

    async def _bury(self, resident: Resident[W], reason: str) -> None:
        self._events.died(resident.facts.name, reason)
        if await self._was_memory(resident, reason):
            self._halve(resident)
        self.send_away(resident, "died")

    def widen(self, resident: Resident[W], n_ctx_tokens: int) -> None:
        """Let a model take longer sequences, without loading its weights again."""
        resident.is_widening = True
        resident.cancel_expiry()
        self._spawn(self._widen(resident, n_ctx_tokens))

    async def _widen(self, resident: Resident[W], n_ctx_tokens: int) -> None:
        assert resident.worker is not None
        try:
            way = await self._room_to_grow(resident, n_ctx_tokens)
            await resident.worker.widen(n_ctx_tokens, way.load.n_cells)
        except EngineError as error:
            self._listener.failed(resident.key, error, n_ctx_tokens)
        except WorkerGone:
            pass  # the watch sees to it, and those who wait go on waiting
        else:
            self.free += resident.room - way.room
            resident.layout = way
            resident.wanted = replace(resident.wanted, n_ctx_tokens=n_ctx_tokens)
            self._learn(resident, resident.worker)
            self._events.widened(resident.facts.name, n_ctx_tokens)
        finally:
            resident.is_widening = False
            self._listener.changed(resident.key)
            self.rest(resident)

    async def _room_to_grow(self, resident: Resident[W], n_ctx_tokens: int) -> Layout:
        ways = await self._surveyor.wider(resident.wanted, resident.layout, n_ctx_tokens)
        await self.look()
        for way in ways:
            if self.free.holds(way.room - resident.room):
                return way
        missing = self.free.missing(ways[-1].room - resident.room)
        now = asyncio.get_running_loop().time()
        others = [one for one in self.by_key.values() if one is not resident and is_idle(one)]
        candidates = [Candidate(o.key, o.room, o.load_s, now - o.last_used_at) for o in others]
        if choose(candidates, missing) is None:
            needed = ways[-1].room
            raise too_large(resident.facts.name, needed, self.free + resident.room)
        await self._empty_out(resident)
        return ways[-1]

    # Out

    def drain(self, resident: Resident[W], why: Leaving) -> None:
        """Let a model go as soon as nobody uses it; no request is let in any more."""
        resident.leaves_because = why
        if resident.state == "ready" and resident.n_users:
            resident.state = "draining"
        elif resident.state in ("ready", "loading"):
            self.send_away(resident, why)

    def keep(self, resident: Resident[W]) -> None:
        """Let a model stay that was to go."""
        resident.state = "ready"
        self._listener.changed(resident.key)

    def send_away(self, resident: Resident[W], why: Leaving) -> None:
        """Let a model go now."""
        if resident.state == "unloading":
            return
        resident.cancel_expiry()
        resident.state, resident.leaves_because = "unloading", why
        resident.leaving = self._spawn(self._unload(resident))

    async def _unload(self, resident: Resident[W]) -> None:
        if resident.loading is not None:
            resident.loading.cancel()
            await asyncio.gather(resident.loading, return_exceptions=True)
        worker = resident.worker
        if worker is not None:
            self._surveyor.learn(resident.wanted, worker.load, worker.measure(), worker.load_s)
            await worker.stop()
            self._events.unloaded(resident.facts.name, resident.leaves_because)
        if self.by_key.get(resident.key) is resident:
            del self.by_key[resident.key]
            self.free += resident.room
        self._listener.changed(resident.key)

    async def close(self) -> None:
        """End every worker."""
        for resident in tuple(self.by_key.values()):
            self.send_away(resident, "closed")
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()  # what nobody foresaw goes to the event loop's handler


def is_idle(resident: Resident[Any], *, spares_pinned: bool = True) -> bool:
    """Tell whether nobody would notice its going now."""
    is_free = not resident.n_users and not resident.is_widening
    return resident.state == "ready" and is_free and not (spares_pinned and resident.is_pinned)


def too_large(name: str, needed: Room, free: Room) -> ModelTooLarge:
    """Refuse with the numbers of the place where it lacks."""
    lacks_main = needed.host > free.host or not sum(needed.gpus)
    if lacks_main:
        return ModelTooLarge(name, needed.host, max(0, free.host))
    return ModelTooLarge(name, sum(needed.gpus), max(0, sum(free.gpus)))
