"""Brings models in, watches them, makes them wider and sees them out. Decides nothing of itself.

Everything runs in the pool's event loop; what takes time runs in tasks of its own. Each change is
told to the actor (`residents`), which decides what it means for those who wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, Generic, Protocol

from paddock.engine.errors import (
    EngineError,
    ModelBroken,
    ModelTooLarge,
    ModelUnusable,
    WorkerLost,
)
from paddock.engine.settings import PoolSettings
from paddock.engine.workers.deaths import has_crashed, ran_out_of_memory, was_ended_by_others
from paddock.engine.workers.fallback import rebuild
from paddock.engine.workers.load import Load
from paddock.engine.workers.ticket import LoadBroken, WorkerGone

from .books import Books, is_idle, too_large
from .events import Leaving, PoolEvents
from .eviction import Candidate, choose
from .fit import STEPS_WAITED, Layout, Wanted
from .resident import Resident, W
from .survey import Surveyor

_WATCH_S = 1.0
_MOST_STARTS = 3  # of one that somebody ends each time before it is ready

Start = Callable[[Load, float], Awaitable[W]]
"""Starts a worker within so many seconds; raises `LoadBroken`, `EngineError` or `OSError`."""


def _refusal(resident: Resident[Any], why: str) -> EngineError:
    """Return what those who wait are told of a model that cannot be loaded."""
    path, name = resident.facts.path, resident.facts.name
    if was_ended_by_others(why):
        return WorkerLost(name, f"{why}; it was started {_MOST_STARTS} times")
    return ModelUnusable(name, why, rebuild()) if has_crashed(why) else ModelBroken(path, why)


class Listener(Protocol):
    """The actor, as the caretaker speaks to it."""

    def changed(self, key: str) -> None:
        """A model has come, gone, or takes requests again."""
        ...

    def failed(self, key: str, error: EngineError, n_ctx_tokens: int = 0) -> None:
        """A model cannot be had, or not with so long a context."""
        ...


class Caretaker(Generic[W]):
    """Carries out what the actor has decided, and keeps the books while it does."""

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
        self.books = Books[W](surveyor, settings.gpu_overhead_bytes)

    # In

    def bring(self, key: str, wanted: Wanted, layout: Layout) -> None:
        """Begin to load."""
        now = asyncio.get_running_loop().time()
        resident = Resident[W](key, wanted, layout, self._settings.keep_alive_s, now)
        self.books.enter(resident)
        resident.loading = self._spawn(self._load(resident))

    async def _load(self, resident: Resident[W]) -> None:
        try:
            worker = await self._started_at_last(resident)
        except EngineError as error:
            self._failed(resident, error)
        except LoadBroken as error:
            self._failed(resident, _refusal(resident, error.why))
        except OSError as error:
            self._failed(resident, WorkerLost(resident.facts.name, str(error)))
        else:
            self._ready(resident, worker)

    async def _started_at_last(self, resident: Resident[W]) -> W:
        """Start a worker; again where somebody ends it before it is ready."""
        for _ in range(1, _MOST_STARTS):
            try:
                return await self._started(resident)
            except LoadBroken as error:
                if not was_ended_by_others(error.why):
                    raise
                self._events.died(resident.facts.name, error.why)
        return await self._started(resident)

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
        going = self.books.idle(but=resident)
        for one in going:
            self.send_away(one, "room")
        await asyncio.gather(*(one.leaving for one in going if one.leaving is not None))
        return bool(going)

    async def _shrink(self, resident: Resident[W]) -> bool:
        """Lay a model out with half as many cells; tell whether that is possible."""
        if not self.books.halve(resident):
            return False
        at_most = self.books.n_cells_at_most(resident.model_key)
        wanted = replace(resident.wanted, n_cells_at_most=at_most)
        device = self.books.device or await self._surveyor.look()
        ways = await self._surveyor.layouts(wanted, device)
        self.books.change(resident, ways[0])
        return True

    def _failed(self, resident: Resident[W], error: EngineError) -> None:
        """Tell all who wait; the next request tries again."""
        self.books.strike(resident)
        self._listener.failed(resident.key, error)
        self._listener.changed(resident.key)

    def _ready(self, resident: Resident[W], worker: W) -> None:
        now = asyncio.get_running_loop().time()
        resident.worker, resident.state, resident.loading = worker, "ready", None
        resident.ready_at = resident.last_used_at = now
        name = resident.facts.name
        worker.on_turn = partial(self._events.turn, name)
        self.books.count(resident, worker)
        self.books.measured(resident, worker)
        self._events.loaded(name, worker.load_s)
        self._spawn(self._watch(resident, worker))
        self._listener.changed(resident.key)
        self.rest(resident)

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
        """Kill a worker that has work and makes no step within its limit; note how it ends.

        The limit follows its slowest step: a large model on a small machine is no hung one.
        """
        clock, lacks_cells = asyncio.get_running_loop(), False
        while not worker.gone.done():
            await asyncio.wait({worker.gone}, timeout=_WATCH_S)
            worker.measure()
            lacked, lacks_cells = lacks_cells, worker.load.n_cells < resident.layout.load.n_cells
            if lacks_cells and not lacked:  # idle models give room to the next attempt
                await self._empty_out(resident)
            limit_s = max(self._settings.step_timeout_s, STEPS_WAITED * worker.slowest_step_s)
            if worker.n_requests and clock.time() - worker.last_turn_at > limit_s:
                await worker.kill(f"it made no step within {limit_s:g} s")
        if resident.state in ("ready", "draining"):
            await self._bury(resident, worker.gone.result())

    async def _bury(self, resident: Resident[W], reason: str) -> None:
        self._events.died(resident.facts.name, reason)
        if await self._was_memory(resident, reason):
            self.books.halve(resident)
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
            self.books.change(resident, way)
            resident.wanted = replace(resident.wanted, n_ctx_tokens=n_ctx_tokens)
            self.books.measured(resident, resident.worker)
            self._events.widened(resident.facts.name, n_ctx_tokens)
        finally:
            resident.is_widening = False
            self._listener.changed(resident.key)
            self.rest(resident)

    async def _room_to_grow(self, resident: Resident[W], n_ctx_tokens: int) -> Layout:
        ways = await self._surveyor.wider(resident.wanted, resident.layout, n_ctx_tokens)
        await self.books.look()
        free = self.books.free
        for way in ways:
            if free.holds(way.room - resident.room):
                return way
        missing = free.missing(ways[-1].room - resident.room)
        now = asyncio.get_running_loop().time()
        candidates = [
            Candidate(one.key, one.room, one.load_s, now - one.last_used_at)
            for one in self.books.idle(but=resident)
        ]
        if choose(candidates, missing) is None:
            raise too_large(resident.facts.name, ways[-1].room, free + resident.room)
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
            self.books.learn(resident, worker, worker.measure())
            await worker.stop()
            self._events.unloaded(resident.facts.name, resident.leaves_because)
        self.books.strike(resident)
        self._listener.changed(resident.key)

    async def close(self) -> None:
        """End every worker."""
        for resident in tuple(self.books.by_key.values()):
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
