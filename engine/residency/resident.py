"""A model in memory as the actor knows it, and what it needs of a worker."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from paddock.engine.request import ModelFacts, Priority
from paddock.engine.workers.load import Load, Taken

from .events import Leaving
from .fit import Layout, Wanted
from .room import Room
from .rules import State, Stay


class Worker(Protocol):
    """What `workers.process.WorkerProcess` and a fake have in common."""

    load: Load
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

    def measure(self) -> Taken:
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


W = TypeVar("W", bound=Worker)

_REPLICA = "\0\0"  # in no `Ask.key`: no adapter has an empty path


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
class Ask:
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
class Resident(Generic[W]):
    """One model in memory, or on its way there. Only the actor changes it."""

    key: str
    wanted: Wanted
    layout: Layout
    keep_alive_s: float
    began_at: float
    state: State = "loading"
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
    leaves_because: Leaving = "room"
    growth: Room = field(default_factory=Room)
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
    def room(self) -> Room:
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

    def has_place(self, ask: Ask, max_queue: int) -> bool:
        """Tell whether a request may go in to be scheduled by the worker.

        What waits outside leaves a model free to drain soon, and lets a chat find its way in; what
        waits inside can share its beginning with others. Each priority has places of its own, so
        that none shuts out another.
        """
        n_parallel = self.layout.load.n_parallel
        places = {"batch": 2 * n_parallel, "normal": 4 * n_parallel}
        return ask.is_brief or self.users[ask.priority] < places.get(
            ask.priority, max(max_queue, n_parallel)
        )

    def take(self, ask: Ask) -> None:
        """Count a user in; a later request's wishes win."""
        if ask.keep_alive_s is not None:
            self.keep_alive_s = ask.keep_alive_s
        self.is_pinned |= ask.is_pinned
        self.n_brief += ask.is_brief
        self.users[ask.priority] += not ask.is_brief
        self.cancel_expiry()

    def leave(self, ask: Ask, now: float) -> None:
        """Count a user out."""
        self.n_brief -= ask.is_brief
        self.users[ask.priority] -= not ask.is_brief
        self.last_used_at = now

    def cancel_expiry(self) -> None:
        """It does not go for being idle."""
        if self.expiry is not None:
            self.expiry.cancel()
        self.expiry = self.expires_at = None

    def stay(self, n_waiting: int, is_leased: bool) -> Stay:
        """Give what the rules look at."""
        return Stay(
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
