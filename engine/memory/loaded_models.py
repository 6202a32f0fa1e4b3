"""Loaded models and the memory that they leave free.

While models come or go, free memory cannot be read: half of a model is loaded and half is not. So
it is read when nothing is on its way, and in between the planned amounts are added and taken away.
What the contexts of loaded models may still grow by (`LoadedModel.growth`) is never free.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar

from paddock.engine.errors import ModelTooLarge
from paddock.engine.request import ModelFacts, Priority
from paddock.engine.workers.worker_protocol import WorkerMemory, WorkerOptions

from .device_memory import Device, MemoryAmount
from .model_layout import LayoutRequest, MemoryProbe, ModelLayout, as_placed
from .policy import LoadedState, ModelState
from .pool_stats import LoadCount, UnloadReason


class ModelWorker(Protocol):
    """A worker as the model manager uses it: `WorkerProcess`, and the fake of the tests."""

    load: WorkerOptions
    load_s: float
    last_turn_at: float
    """By the event loop's clock; later than now while it does what takes long and is no step."""
    slowest_step_s: float
    """Of those that it has made, the warming up included."""
    n_decoded_tokens: int
    gone: asyncio.Future[str]
    """Done when the worker has ended; the reason in plain words."""
    on_turn: Callable[[Mapping[str, Any]], None] | None

    @property
    def pid(self) -> int: ...

    @property
    def n_requests(self) -> int:
        """Requests that wait for an answer."""

    @property
    def n_running(self) -> int: ...

    @property
    def mapped_bytes(self) -> int:
        """Of its main memory, pages of files, which the system counts as free."""

    def measure(self) -> WorkerMemory:
        """Return the most memory that it has taken so far, with what its context may yet take."""

    async def widen(self, n_ctx_tokens: int, n_cells: int) -> None:
        """Make a larger context over the same weights, once the running sequences have ended.

        Raises:
            WorkerGone: the process died.
            EngineError: there is no memory for it.
        """

    async def stop(self) -> None: ...

    async def kill(self, reason: str) -> None: ...


W = TypeVar("W", bound=ModelWorker)

_REPLICA = "\0\0"  # in no `ModelUse.key`: no adapter has an empty path


def replica_key(model_key: str, number: int) -> str:
    """Return the key of a model's replica; the first has the model's own.

    >>> replica_key("a.gguf", 0), model_key(replica_key("a.gguf", 2))
    ('a.gguf', 'a.gguf')
    """
    return f"{model_key}{_REPLICA}{number}" if number else model_key


def model_key(key: str) -> str:
    """Return the key of the model of which this is a replica's key."""
    return key.partition(_REPLICA)[0]


@dataclass(frozen=True, slots=True)
class ModelUse:
    """A request to use a model."""

    facts: ModelFacts
    adapters: tuple[str, ...] = ()
    keep_alive_s: float | None = None
    is_pinned: bool = False
    priority: Priority = "normal"
    is_brief: bool = False
    """It needs no sequence (counting tokens), so it waits for no place among the others."""
    waits: bool = True
    """Else a full queue is answered with `Busy`."""

    @property
    def key(self) -> str:
        return "\0".join((self.facts.path, *self.adapters))


@dataclass(slots=True, eq=False)
class LoadedModel(Generic[W]):
    """One model in memory, or on its way there. Only manager and loader change it."""

    key: str
    wanted: LayoutRequest
    layout: ModelLayout
    keep_alive_s: float
    began_at: float
    state: ModelState = "loading"
    worker: W | None = None
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
        return self.wanted.facts

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

    def has_place(self, ask: ModelUse, max_queue: int) -> bool:
        """Return whether a request may go in to be scheduled by the worker.

        Requests that wait outside let a model drain soon and a chat pass; those inside can share
        their prefixes. Each priority has places of its own, so that none shuts out another.
        """
        n_parallel = self.layout.load.n_parallel
        places = {"batch": 2 * n_parallel, "normal": 4 * n_parallel}
        return ask.is_brief or self.users[ask.priority] < places.get(
            ask.priority, max(max_queue, n_parallel)
        )

    def take(self, ask: ModelUse) -> None:
        """Count a request in; the `keep_alive` of the latest request counts."""
        if ask.keep_alive_s is not None:
            self.keep_alive_s = ask.keep_alive_s
        self.is_pinned |= ask.is_pinned
        self.n_brief += ask.is_brief
        self.users[ask.priority] += not ask.is_brief
        self.cancel_expiry()

    def leave(self, ask: ModelUse, now: float) -> None:
        self.n_brief -= ask.is_brief
        self.users[ask.priority] -= not ask.is_brief
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


class MemoryAccounting(Generic[W]):
    """Loaded models by key, and the memory that they leave free."""

    def __init__(self, memory_probe: MemoryProbe, gpu_overhead_bytes: int) -> None:
        self._memory_probe = memory_probe
        self._gpu_overhead_bytes = gpu_overhead_bytes
        self.halved: dict[str, int] = {}
        """The KV cells that models may have which ran out of memory, by their keys."""
        self.by_key: dict[str, LoadedModel[W]] = {}
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
            one.state in ("ready", "draining") and one.worker and not one.worker.gone.done()
            for one in self.by_key.values()
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
            for one in self.by_key.values():
                if one.worker:
                    # Weights in mapped files, which the system counts as free.
                    self.free -= MemoryAmount(one.worker.mapped_bytes)
                    self._record(one, one.worker.measure())
                    self.free -= one.growth  # longer requests will take it
        return device

    def reserve(self, resident: LoadedModel[W]) -> None:
        """Subtract what a model is planned to take."""
        resident.n_oom_kills = self.device.n_oom_kills if self.device else 0
        self.by_key[resident.key] = resident
        self.free -= resident.room

    def release(self, resident: LoadedModel[W]) -> None:
        """Add a model's memory again."""
        if self.by_key.get(resident.key) is resident:
            del self.by_key[resident.key]
            self.free += resident.room

    def change(self, resident: LoadedModel[W], layout: ModelLayout) -> None:
        self.free += resident.room - layout.room
        resident.layout = layout

    def measured(self, resident: LoadedModel[W], worker: W) -> None:
        """Replace what was planned by what a worker takes, and remember it."""
        taken = worker.measure()
        self.learn(resident, worker, taken)
        before = resident.room
        self._record(resident, taken)
        self.free += before - resident.room

    def _record(self, resident: LoadedModel[W], taken: WorkerMemory) -> None:
        room, resident.growth = as_placed(taken, resident.room)
        resident.layout = replace(resident.layout, room=room)

    def learn(self, resident: LoadedModel[W], worker: W, taken: WorkerMemory) -> None:
        self._memory_probe.learn(resident.wanted, worker.load, taken, worker.load_s)

    def count(self, resident: LoadedModel[W], worker: W) -> None:
        count = self.loads.setdefault(resident.facts.name, LoadCount())
        count.loads += 1
        count.load_s += worker.load_s

    def halve(self, resident: LoadedModel[W]) -> bool:
        """Halve the KV cells that a model may have; return whether that is possible."""
        load = resident.layout.load
        if load.n_cells // 2 < load.n_ctx_tokens:
            return False
        self.halved[resident.model_key] = load.n_cells // 2
        return True

    def idle(self, but: LoadedModel[W]) -> list[LoadedModel[W]]:
        return [one for one in self.by_key.values() if one is not but and is_idle(one)]


def is_idle(resident: LoadedModel[Any], *, spares_pinned: bool = True) -> bool:
    is_free = not resident.n_users and not resident.is_widening
    return resident.state == "ready" and is_free and not (spares_pinned and resident.is_pinned)


def too_large(name: str, needed: MemoryAmount, free: MemoryAmount) -> ModelTooLarge:
    """Return the error with the numbers of the memory that is too small."""
    lacks_main = needed.host > free.host or not sum(needed.gpus)
    if lacks_main:
        return ModelTooLarge(name, needed.host, max(0, free.host))
    return ModelTooLarge(name, sum(needed.gpus), max(0, sum(free.gpus)))
