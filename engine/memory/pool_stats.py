"""Pool statistics, for `paddock ps`, `/ui`, `paddock service status` and the display of a run.

All of them count requests by one definition, made here. A request runs from when a batch takes it
until its answer is complete. Before that it waits: outside the worker, for its model to be loaded
or for a place, or in the worker's own queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from paddock.engine.request import Role

from .policy import ModelState
from .pool_events import LoadCount

if TYPE_CHECKING:  # who asks a pool in another process needs the numbers' names alone
    from .loaded_models import LoadedModel
    from .manager import ModelManager


@dataclass(frozen=True, slots=True)
class ModelStats:
    """What a pool can tell of one model."""

    name: str
    state: ModelState
    n_users: int
    """Requests inside the worker, running or not: the model cannot go."""
    n_parallel: int
    n_decoded_tokens: int
    n_running: int = 0
    n_waiting: int = 0
    n_ctx_tokens: int = 0
    """The longest sequence that it takes without making its context anew."""
    host_bytes: int = 0
    device_bytes: int = 0
    """Of all graphics devices together."""
    placed: str = ""
    """Where its layers lie and, where some are not on the device, why."""
    ready_s: float | None = None
    """How long it has been ready; None: it is not yet."""
    keep_alive_s: float = 0.0
    """How long it stays after its last use; negative: for ever."""
    expires_s: float | None = None
    """In how many seconds it goes if nobody asks; None: it is in use, or stays."""
    load_s: float = 0.0
    is_pinned: bool = False
    is_leased: bool = False
    adapters: tuple[str, ...] = ()
    digest: str = ""
    pid: int | None = None
    role: Role = "chat"
    n_cells: int = 0
    """Tokens that its KV cache holds, over all sequences."""
    fallback: str = ""
    """What it goes without since llama.cpp crashed, why, and the way out; empty: nothing."""


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What a pool can tell of itself."""

    resident: tuple[ModelStats, ...]
    loads: dict[str, LoadCount]
    waiting: Mapping[str, int] = field(default_factory=dict)
    """Requests that wait, by the name of their model; of models that are not in memory, too."""

    @property
    def n_running(self) -> int:
        """Requests of all models that are in a batch."""
        return sum(one.n_running for one in self.resident)

    @property
    def n_waiting(self) -> int:
        """Requests of all models that wait."""
        return sum(self.waiting.values())


def pool_stats(residents: ModelManager[Any]) -> PoolStats:
    """Describe all models in memory, and count the requests that wait for any model."""
    waiting: Counter[str] = Counter()
    for name, n_outside in residents.waiting():
        waiting[name] += n_outside
    for one in residents.resident():
        waiting[one.facts.name] += _n_in_worker_queue(one)
    resident = tuple(model_stats(one, residents) for one in residents.resident())
    return PoolStats(resident, dict(residents.loads), dict(+waiting))


def model_stats(one: LoadedModel[Any], residents: ModelManager[Any]) -> ModelStats:
    """Describe one resident."""
    now = residents.now()
    worker, load = one.worker, one.layout.load
    return ModelStats(
        one.facts.name,
        one.state,
        one.n_users,
        load.n_parallel if worker else 0,
        worker.n_decoded_tokens if worker else 0,
        n_running=_n_running(one),
        n_waiting=residents.n_waiting(one.key) + _n_in_worker_queue(one),
        n_ctx_tokens=one.wanted.n_ctx_tokens,
        host_bytes=one.room.host,
        device_bytes=sum(one.room.gpus),
        placed=load.placed,
        ready_s=now - one.ready_at if worker else None,
        keep_alive_s=one.keep_alive_s,
        expires_s=None if one.expires_at is None else max(0.0, one.expires_at - now),
        load_s=one.load_s,
        is_pinned=one.is_pinned,
        is_leased=residents.is_leased(one.key),
        adapters=one.wanted.adapters,
        digest=one.facts.digest,
        pid=worker.pid if worker else None,
        role=one.facts.role,
        n_cells=worker.load.n_cells if worker and one.facts.role == "chat" else 0,
        fallback=worker.load.fallback_note if worker else "",
    )


def _n_running(one: LoadedModel[Any]) -> int:
    """Count requests in a batch. One that is taken apart for its worker counts once."""
    return min(one.worker.n_running, one.users.total()) if one.worker else 0


def _n_in_worker_queue(one: LoadedModel[Any]) -> int:
    """Count requests inside the worker that no batch has taken yet."""
    return one.users.total() - _n_running(one)
