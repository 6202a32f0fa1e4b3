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
from paddock.engine.workers.worker_options import WorkerMemory, WorkerOptions

from .device_memory import Device, MemoryAmount
from .model_layout import LayoutRequest, MemoryProbe, ModelLayout, as_placed
from .policy import LoadedState, ModelState
from .pool_stats import LoadCount, UnloadReason


class ModelWorker(Protocol):
    """What `workers.process.WorkerProcess` and a fake have in common."""

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
    def pid(self) -> int:
        """Of the process."""
        ...

    @property
    def n_requests(self) -> int:
        """Those that wait for an answer."""
        ...

    @property
    def n_running(self) -> int:
        """Those that it has let into a batch."""
        ...

    @property
    def mapped_bytes(self) -> int:
        """Of its main memory, pages of files, which the system counts as free."""
        ...

    def measure(self) -> WorkerMemory:
        """Return the most memory that it has taken so far, with what its context may yet take."""
        ...

    async def widen(self, n_ctx_tokens: int, n_cells: int) -> None:
        """Make its context anew over the same weights, once the running sequences have ended.

        Raises:
            WorkerGone: it died of it.
            EngineError: it cannot.
        """
        ...

    async def stop(self) -> None:
        """Let it end, and see to it that it does."""
        ...

    async def kill(self, reason: str) -> None:
        """End it at once."""
        ...


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
    """Somebody's wish to use a model."""

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
        """Name what must be in memory: the weights and what is laid over them."""
        return "\0".join((self.facts.path, *self.adapters))


@dataclass(slots=True, eq=False)
class LoadedModel(Generic[W]):
    """One model in memory, or on its way there. Only the actor changes it."""

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
    """Of its room, what its context has not taken yet."""
    n_oom_kills: int = 0
    """How often the machine had run out of memory when it began to load."""

    @property
    def model_key(self) -> str:
        """Return the name of the model, the same for all its replicas."""
        return model_key(self.key)

    @property
    def occupancy(self) -> float:
        """Return requests inside its worker for each of its places."""
        return self.users.total() / max(1, self.layout.load.n_parallel)

    @property
    def facts(self) -> ModelFacts:
        """Of its file."""
        return self.wanted.facts

    @property
    def room(self) -> MemoryAmount:
        """What it takes."""
        return self.layout.room

    @property
    def load_s(self) -> float:
        """What it takes to bring it back."""
        return self.worker.load_s if self.worker is not None else self.layout.load_s

    @property
    def n_users(self) -> int:
        """Requests inside its worker."""
        return self.users.total() + self.n_brief

    @property
    def is_open(self) -> bool:
        """Whether it takes requests now."""
        is_alive = self.worker is not None and not self.worker.gone.done()
        return self.state == "ready" and is_alive and not self.is_widening

    def has_place(self, ask: ModelUse, max_queue: int) -> bool:
        """Return whether a request may go in to be scheduled by the worker.

        What waits outside leaves a model free to drain soon, and lets a chat find its way in; what
        waits inside can share its beginning with others. Each priority has places of its own, so
        that none shuts out another.
        """
        n_parallel = self.layout.load.n_parallel
        places = {"batch": 2 * n_parallel, "normal": 4 * n_parallel}
        return ask.is_brief or self.users[ask.priority] < places.get(
            ask.priority, max(max_queue, n_parallel)
        )

    def take(self, ask: ModelUse) -> None:
        """Count a user in; a later request's wishes win."""
        if ask.keep_alive_s is not None:
            self.keep_alive_s = ask.keep_alive_s
        self.is_pinned |= ask.is_pinned
        self.n_brief += ask.is_brief
        self.users[ask.priority] += not ask.is_brief
        self.cancel_expiry()

    def leave(self, ask: ModelUse, now: float) -> None:
        """Count a user out."""
        self.n_brief -= ask.is_brief
        self.users[ask.priority] -= not ask.is_brief
        self.last_used_at = now

    def cancel_expiry(self) -> None:
        """It does not go for being idle."""
        if self.expiry is not None:
            self.expiry.cancel()
        self.expiry = self.expires_at = None

    def stay(self, n_waiting: int, is_leased: bool) -> LoadedState:
        """Return what the rules look at."""
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
    """The residents by their keys, and the room that they leave."""

    def __init__(self, memory_probe: MemoryProbe, gpu_overhead_bytes: int) -> None:
        self._memory_probe = memory_probe
        self._gpu_overhead_bytes = gpu_overhead_bytes
        self._halved: dict[str, int] = {}
        self.by_key: dict[str, LoadedModel[W]] = {}
        self.device: Device | None = None
        self.free = MemoryAmount()
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
        """Read the machine, unless the books are better than a reading."""
        if self.device is not None and not self.is_calm:
            return self.device
        device = await self._memory_probe.look()
        if self.device is None or self.is_calm:
            self.device = device
            overhead = (self._gpu_overhead_bytes,) * len(device.gpus)
            self.free = device.free - MemoryAmount(self._mapped_bytes(), overhead)
            for one in self.by_key.values():
                if one.worker:
                    self._weigh(one, one.worker.measure())
                    self.free -= one.growth  # it is free only until longer requests come
        return device

    def _mapped_bytes(self) -> int:
        """Count weights that are pages of their files: the system calls them free memory."""
        return sum(one.worker.mapped_bytes for one in self.by_key.values() if one.worker)

    def enter(self, resident: LoadedModel[W]) -> None:
        """Reserve what a model was planned to take."""
        resident.n_oom_kills = self.device.n_oom_kills if self.device else 0
        self.by_key[resident.key] = resident
        self.free -= resident.room

    def strike(self, resident: LoadedModel[W]) -> None:
        """Take a model's room back."""
        if self.by_key.get(resident.key) is resident:
            del self.by_key[resident.key]
            self.free += resident.room

    def change(self, resident: LoadedModel[W], layout: ModelLayout) -> None:
        """Lay a model out anew."""
        self.free += resident.room - layout.room
        resident.layout = layout

    def measured(self, resident: LoadedModel[W], worker: W) -> None:
        """Replace what was planned by what a worker really takes, and keep it for the next time."""
        taken = worker.measure()
        self.learn(resident, worker, taken)
        before = resident.room
        self._weigh(resident, taken)
        self.free += before - resident.room

    def _weigh(self, resident: LoadedModel[W], taken: WorkerMemory) -> None:
        """Write down what a worker takes, and what of it is yet to come."""
        room, resident.growth = as_placed(taken, resident.room)
        resident.layout = replace(resident.layout, room=room)

    def learn(self, resident: LoadedModel[W], worker: W, taken: WorkerMemory) -> None:
        """Keep what a worker took for the next time."""
        self._memory_probe.learn(resident.wanted, worker.load, taken, worker.load_s)

    def count(self, resident: LoadedModel[W], worker: W) -> None:
        """Note that a model was loaded."""
        count = self.loads.setdefault(resident.facts.name, LoadCount())
        count.loads += 1
        count.load_s += worker.load_s

    def halve(self, resident: LoadedModel[W]) -> bool:
        """Halve the cells that a model may have from now on; return whether that is possible."""
        load = resident.layout.load
        if load.n_cells // 2 < load.n_ctx_tokens:
            return False
        self._halved[resident.model_key] = load.n_cells // 2
        return True

    def n_cells_at_most(self, key: str) -> int | None:
        """Return how many cells a model may have after it ran out of memory."""
        return self._halved.get(key)

    def idle(self, but: LoadedModel[W]) -> list[LoadedModel[W]]:
        """Return those that could go at once to make room for somebody."""
        return [one for one in self.by_key.values() if one is not but and is_idle(one)]


def is_idle(resident: LoadedModel[Any], *, spares_pinned: bool = True) -> bool:
    """Return whether nobody would notice its going now."""
    is_free = not resident.n_users and not resident.is_widening
    return resident.state == "ready" and is_free and not (spares_pinned and resident.is_pinned)


def too_large(name: str, needed: MemoryAmount, free: MemoryAmount) -> ModelTooLarge:
    """Refuse with the numbers of the place where it lacks."""
    lacks_main = needed.host > free.host or not sum(needed.gpus)
    if lacks_main:
        return ModelTooLarge(name, needed.host, max(0, free.host))
    return ModelTooLarge(name, sum(needed.gpus), max(0, sum(free.gpus)))
