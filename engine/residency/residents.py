"""Which models are in memory: loaded on first use, kept while used, let go when idle.

One asyncio actor: every change of state happens in its event loop, under one condition. A model
is loading, ready, draining (no newcomers; it goes when its last user leaves) or unloading; one
that is absent is cold. Draining is what keeps a busy model from being kept alive by newcomers
while another one waits for its room.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from paddock.engine.errors import EngineError, ModelBroken, WorkerLost
from paddock.engine.gguf import read_header
from paddock.engine.request import ModelFacts
from paddock.engine.settings import PoolSettings
from paddock.engine.workers.load import Load
from paddock.engine.workers.process import LoadBroken, WorkerProcess

from .fit import lay_out, this_device

State = Literal["loading", "ready", "draining", "unloading"]
_WATCH_S = 1.0

# A model that was just loaded stays at least so long: jobs that alternate two models then do many
# calls in a row with each, instead of swapping on every call.
MIN_STAY_S = 2.0


@dataclass(slots=True, eq=False)
class Resident:
    """One model in memory, or on its way there."""

    facts: ModelFacts
    n_ctx_tokens: int
    keep_alive_s: float
    state: State = "loading"
    worker: WorkerProcess | None = None
    n_users: int = 0
    n_waiting: int = 0
    """Requests that wait for it to load."""
    ready_at: float = 0.0
    last_used_at: float = field(default_factory=time.monotonic)
    expiry: asyncio.TimerHandle | None = None
    error: EngineError | None = None


@dataclass(slots=True)
class LoadCount:
    """How often a model was loaded, and how long that took."""

    loads: int = 0
    load_s: float = 0.0


class Residents:
    """The actor. Close it with `close`, which ends every worker."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._by_path: dict[str, Resident] = {}
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self.loads: dict[str, LoadCount] = {}

    def resident(self) -> tuple[Resident, ...]:
        """Tell which models are there now."""
        return tuple(self._by_path.values())

    @asynccontextmanager
    async def lease(
        self, facts: ModelFacts, keep_alive_s: float | None, *, is_job: bool = False
    ) -> AsyncIterator[WorkerProcess]:
        """Use a model's worker; it is loaded if need be, and stays at least as long.

        Jobs wait outside while a worker has enough to do, so that a model which is to go is
        not held by a long queue, and a chat finds its way in.

        Raises:
            EngineError: it cannot be loaded.
        """
        resident = await self._enter(facts, keep_alive_s, is_job)
        try:
            assert resident.worker is not None
            yield resident.worker
        finally:
            self._leave(resident)

    async def close(self) -> None:
        """End every worker."""
        for resident in self.resident():
            self._cancel_expiry(resident)
            if resident.worker is not None:
                await resident.worker.stop()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for resident in self.resident():  # one that became ready meanwhile
            if resident.worker is not None:
                await resident.worker.stop()
        self._by_path.clear()

    # In and out

    async def _enter(self, facts: ModelFacts, keep_alive_s: float | None, is_job: bool) -> Resident:
        async with self._changed:
            while True:
                resident = self._usable(facts)
                if resident is not None and self._has_place(resident, is_job):
                    self._take(resident, keep_alive_s)
                    return resident
                if resident is None:
                    self._make_way(facts)
                    resident = self._by_path.get(facts.path)
                await self._wait(resident)
                if resident is not None and resident.error is not None:
                    raise resident.error

    async def _wait(self, resident: Resident | None) -> None:
        if resident is not None:
            resident.n_waiting += 1
        try:
            await self._changed.wait()
        finally:
            if resident is not None:
                resident.n_waiting -= 1

    def _usable(self, facts: ModelFacts) -> Resident | None:
        """Give the entry of this model; one whose worker has died is taken out first."""
        resident = self._by_path.get(facts.path)
        if resident is None:
            return None
        if resident.worker is not None and resident.worker.gone_because is not None:
            if resident.state in ("ready", "draining"):
                self._start_unloading(resident)
        elif resident.state == "ready" and resident.n_ctx_tokens < facts.n_ctx_tokens:
            # Loaded for shorter sequences than this one: it comes back with a larger cache.
            self._drain(resident)
        return resident

    def _has_place(self, resident: Resident, is_job: bool) -> bool:
        if resident.state != "ready" or resident.worker is None:
            return False
        n_running = resident.worker.load.n_parallel
        n_places = 2 * n_running if is_job else max(self._settings.max_queue, n_running)
        return resident.n_users < n_places

    def _take(self, resident: Resident, keep_alive_s: float | None) -> None:
        if keep_alive_s is not None:
            resident.keep_alive_s = keep_alive_s
        resident.n_users += 1
        self._cancel_expiry(resident)

    def _leave(self, resident: Resident) -> None:
        resident.n_users -= 1
        resident.last_used_at = time.monotonic()
        if resident.n_users:
            self._wake()
            return
        if resident.state == "draining" or resident.keep_alive_s == 0:
            self._start_unloading(resident)
        elif resident.state == "ready":
            self._wake()
            if resident.keep_alive_s > 0:
                loop = asyncio.get_running_loop()
                resident.expiry = loop.call_later(
                    resident.keep_alive_s, self._start_unloading, resident
                )

    # Who goes, who comes

    def _make_way(self, facts: ModelFacts) -> None:
        """Begin to load if there is room, else let the least recently used one go."""
        if len(self._by_path) < self._settings.max_loaded_models:
            resident = Resident(facts, facts.n_ctx_tokens, self._settings.keep_alive_s)
            self._by_path[facts.path] = resident
            self._spawn(self._load(resident))
            return
        leaving = [one for one in self.resident() if one.state in ("draining", "unloading")]
        ready = [one for one in self.resident() if one.state == "ready"]
        if ready and not leaving:
            idle_first = min(ready, key=lambda one: (one.n_users > 0, one.last_used_at))
            stays_s = idle_first.ready_at + MIN_STAY_S - time.monotonic()
            if stays_s > 0:
                asyncio.get_running_loop().call_later(stays_s, self._wake)
            else:
                self._drain(idle_first)

    def _drain(self, resident: Resident) -> None:
        resident.state = "draining"
        if not resident.n_users:
            self._start_unloading(resident)

    async def _load(self, resident: Resident) -> None:
        try:
            load = self._layout(resident)
            worker = await WorkerProcess.started(load, self._settings.load_timeout_s)
        except EngineError as error:
            await self._failed(resident, error)
        except LoadBroken as error:
            await self._failed(resident, ModelBroken(resident.facts.path, error.why))
        except OSError as error:
            await self._failed(resident, WorkerLost(resident.facts.name, str(error)))
        else:
            count = self.loads.setdefault(resident.facts.name, LoadCount())
            count.loads += 1
            count.load_s += worker.load_s
            resident.worker, resident.state = worker, "ready"
            resident.ready_at = time.monotonic()
            self._spawn(self._watch(resident, worker))
            await self._announce()

    def _layout(self, resident: Resident) -> Load:
        header = read_header(Path(resident.facts.path))
        return lay_out(resident.facts, header, self._settings, this_device(), resident.n_ctx_tokens)

    async def _failed(self, resident: Resident, error: EngineError) -> None:
        """Tell all who wait; the next request tries again."""
        resident.error = error
        self._by_path.pop(resident.facts.path, None)
        await self._announce()

    def _start_unloading(self, resident: Resident) -> None:
        if resident.state == "unloading":
            return
        self._cancel_expiry(resident)
        resident.state = "unloading"
        self._spawn(self._unload(resident))

    async def _unload(self, resident: Resident) -> None:
        if resident.worker is not None:
            await resident.worker.stop()
        self._by_path.pop(resident.facts.path, None)
        await self._announce()

    async def _watch(self, resident: Resident, worker: WorkerProcess) -> None:
        """Kill a worker that has work and makes no step within its limit."""
        limit_s = self._settings.step_timeout_s
        while worker.gone_because is None:
            await asyncio.sleep(_WATCH_S)
            if worker.n_requests and time.monotonic() - worker.last_turn_at > limit_s:
                await worker.kill(f"it made no step within {limit_s:g} s")
        if resident.state == "ready":
            self._start_unloading(resident)

    # Small parts

    def _cancel_expiry(self, resident: Resident) -> None:
        if resident.expiry is not None:
            resident.expiry.cancel()
            resident.expiry = None

    def _wake(self) -> None:
        self._spawn(self._announce())

    async def _announce(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
