"""Pool statistics and events, for `paddock ps`, `/ui`, metrics, logs and the display of a run.

Requests are counted by one definition. A request runs from when a batch takes it until its answer
is complete. Before that it waits: outside the worker, for its model to be loaded or for a place,
or in the worker's own queue. Every method of an event listener is called in the pool's event loop
and must return at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, cast, runtime_checkable

from paddock.engine.request import DoneReason, Role, Usage
from paddock.engine.system.records import Struct, field

ModelState = Literal["loading", "ready", "draining", "unloading"]


class LoadCount(Struct):
    loads: int = 0
    load_s: float = 0.0


UnloadReason = Literal["idle", "room", "died", "closed"]
"""Why a model went: unused for its `keep_alive`, to make room, its worker died, the pool closed."""

RefusalReason = Literal["busy", "too_large", "late"]
"""Why a request was not taken: a full queue, a model without room, a wait without an end."""


class ModelStats(Struct, frozen=True):
    name: str
    state: ModelState
    n_users: int
    """Requests inside the worker, running or not: the model cannot go."""
    n_parallel: int
    n_decoded_tokens: int
    n_running: int = 0
    n_waiting: int = 0
    n_ctx_tokens: int = 0
    """The longest sequence that it takes without a larger context."""
    host_bytes: int = 0
    device_bytes: int = 0
    """Of all graphics devices together."""
    host_layer_bytes: int = 0
    """What main memory has of the layers and their cells; without a device, `host_bytes`."""
    placed: str = ""
    """Where its layers lie and, where some are not on the device, why."""
    ready_s: float | None = None
    """How long it has been ready; None: it is not yet."""
    keep_alive_s: float = 0.0
    """How long it stays after its last use; negative: for ever."""
    expires_s: float | None = None
    """Seconds until it is unloaded if no request comes; None: it is in use, or stays."""
    load_s: float = 0.0
    is_pinned: bool = False
    adapters: tuple[str, ...] = ()
    digest: str = ""
    tuned_from: str = ""
    """Digest of the original, if this is its tuned copy."""
    pid: int | None = None
    role: Role = "chat"
    n_cells: int = 0
    """Tokens that its KV cache holds, over all sequences."""
    fallback: str = ""
    """What it goes without since llama.cpp failed, why, and the way out; empty: nothing."""


class PoolStats(Struct, frozen=True):
    resident: tuple[ModelStats, ...]
    loads: dict[str, LoadCount]
    waiting: Mapping[str, int] = field(default_factory=dict)
    """Requests that wait, by the name of their model; of models that are not in memory, too."""

    @property
    def n_running(self) -> int:
        return sum(model.n_running for model in self.resident)

    @property
    def n_waiting(self) -> int:
        return sum(self.waiting.values())


@runtime_checkable
class CountingPool(Protocol):
    """A pool that knows which models it holds, and how often each was loaded."""

    def stats(self) -> PoolStats: ...


def stats_of(pool: object) -> PoolStats:
    return pool.stats() if isinstance(pool, CountingPool) else PoolStats((), {})


class PoolEvents:
    """Base of what listens to a pool; it ignores every event. Models are given by their names."""

    def loaded(self, model: str, seconds: float) -> None:
        """A model is ready; it took so long."""

    def unloaded(self, model: str, why: UnloadReason) -> None:
        """A model has gone; `room` is what is called an eviction."""

    def died(self, model: str, reason: str) -> None:
        """A worker ended unasked, or was killed because it made no step."""

    def widened(self, model: str, n_ctx_tokens: int) -> None:
        """A worker made a larger context over the same weights, for longer sequences."""

    def waited(self, model: str, seconds: float) -> None:
        """A request was let into a model's worker after so long outside of it."""

    def requeued(self, model: str) -> None:
        """A request whose worker died is sent again."""

    def refused(self, model: str, why: RefusalReason) -> None:
        """A request was not taken."""

    def turn(self, model: str, report: Mapping[str, Any]) -> None:
        """A worker made a step; `report` is its frame (`decoding.loop`), not to be changed."""

    def answered(self, model: str, reason: DoneReason, usage: Usage, first_s: float) -> None:
        """A chat has ended; its first token came `first_s` after the pool took it."""

    def embedded(self, model: str, n_texts: int, n_tokens: int, seconds: float) -> None:
        """A request for vectors was answered."""


def combine_listeners(*listeners: PoolEvents) -> PoolEvents:
    return cast(PoolEvents, _CombinedListeners(listeners))


class _CombinedListeners:
    def __init__(self, listeners: tuple[PoolEvents, ...]) -> None:
        self._listeners = listeners

    def __getattr__(self, name: str) -> Callable[..., None]:
        methods = [getattr(listener, name) for listener in self._listeners]

        def call(*values: Any) -> None:
            for method in methods:
                method(*values)

        return call
