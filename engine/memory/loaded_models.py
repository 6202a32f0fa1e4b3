"""Loaded models: use, state and size of each, and the memory that all of them leave free.

While models come or go, free memory cannot be read: half of a model is loaded and half is not. So
it is read when nothing is on its way, and in between the planned amounts are added and taken away.
What the contexts of loaded models may still grow by (`LoadedModel.growth`) is never free.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import chain, count
from pathlib import Path

from paddock.engine.errors import AdapterBroken, ModelBroken
from paddock.engine.gguf import read_header
from paddock.engine.request import ModelFacts, Priority
from paddock.engine.system.records import Struct, field, replace
from paddock.engine.workers.worker_process import WorkerProcess
from paddock.engine.workers.worker_protocol import WorkerMemory

from .device_memory import Device, MemoryAmount
from .eviction_policy import LoadedState
from .machine_probe import MachineProbe
from .model_layout import LayoutRequest, ModelLayout, as_placed
from .pool_stats import LoadCount, ModelState, UnloadReason

_REPLICA = "\0\0"  # in no `ModelUse.key`: no part of it is empty
# So long is a model that ran out of memory loaded with fewer cells; another program may have taken
# the memory for a while.
HALVED_S = 3600.0


def unused_replica_key(model_key: str, taken: Collection[str]) -> str:
    """Return the key of another replica; the first has the model's own.

    >>> unused_replica_key("a.gguf", []), model_key(unused_replica_key("a.gguf", ["a.gguf"]))
    ('a.gguf', 'a.gguf')
    """
    numbered = (f"{model_key}{_REPLICA}{number}" for number in count(1))
    return next(name for name in chain([model_key], numbered) if name not in taken)


def model_key(key: str) -> str:
    return key.partition(_REPLICA)[0]


class ModelUse(Struct, frozen=True):
    facts: ModelFacts
    adapters: tuple[str, ...] = ()
    adapter_digests: tuple[str, ...] = ()
    keep_alive_s: float | None = None
    is_pinned: bool = False
    priority: Priority = "normal"
    is_brief: bool = False
    """It needs no sequence (counting tokens), so it waits for no place among the others."""
    waits: bool = True
    """Else a full queue is answered with `Busy`."""
    on_processor: bool = False
    """Whether no layer is to lie on a graphics device, of which there is one."""

    def layout_request(self, n_ctx_tokens: int) -> LayoutRequest:
        return LayoutRequest(self.facts, n_ctx_tokens, self.adapters, self.on_processor)

    @property
    def key(self) -> str:
        """The key of its worker: the files and their contents, by which answers are computed."""
        facts = self.facts
        digests = (facts.digest, facts.projector_digest, *self.adapter_digests)
        place = "processor" if self.on_processor else ""
        return "\0".join((*worker_files(facts, self.adapters), *filter(None, (*digests, place))))


def worker_files(facts: ModelFacts, adapters: Sequence[str]) -> tuple[str, ...]:
    besides = (*adapters, facts.projector or "", facts.draft_path)
    return (facts.path, *filter(None, besides))


def resolve_adapters(refs: Sequence[str]) -> tuple[str, ...]:
    """Return the adapters' whole paths, in their order.

    Raises:
        AdapterBroken: no file, or not a LoRA adapter in GGUF.
    """
    return tuple(str(_checked_adapter(Path(ref).expanduser())) for ref in refs)


def _checked_adapter(path: Path) -> Path:
    if not path.is_file():
        raise AdapterBroken(str(path), "there is no such file. Name the path of a GGUF adapter.")
    try:
        header = read_header(path)
    except ModelBroken as error:
        raise AdapterBroken(str(path), error.why) from None
    if header.values.get("adapter.type") != "lora":
        kind = header.values.get("general.type", "model")
        raise AdapterBroken(str(path), f"this is not a LoRA adapter, but a GGUF file of a {kind}")
    return path.resolve()


class LoadedModel(Struct, eq=False):
    key: str
    layout_request: LayoutRequest
    layout: ModelLayout
    keep_alive_s: float
    began_at: float
    state: ModelState = "loading"
    worker: WorkerProcess | None = None
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
    def facts(self) -> ModelFacts:
        return self.layout_request.facts

    @property
    def room(self) -> MemoryAmount:
        return self.layout.room

    @property
    def load_s(self) -> float:
        return self.worker.load_s if self.worker is not None else self.layout.load_s

    @property
    def n_users(self) -> int:
        return self.users.total() + self.n_brief

    @property
    def is_open(self) -> bool:
        is_alive = self.worker is not None and not self.worker.gone.done()
        return self.state == "ready" and is_alive and not self.is_widening

    def has_place(self, model_use: ModelUse, max_queue: int) -> bool:
        """Return whether a request may go in to be scheduled by the worker.

        Requests that wait outside let a model drain soon and a chat pass; those inside can share
        their prefixes. Each priority has places of its own, so that none shuts out another.
        """
        n_parallel = self.layout.load.n_parallel
        places = {"batch": 2 * n_parallel, "normal": 4 * n_parallel}
        return model_use.is_brief or self.users[model_use.priority] < places.get(
            model_use.priority, max(max_queue, n_parallel)
        )

    def take(self, model_use: ModelUse) -> None:
        if model_use.keep_alive_s is not None:
            self.keep_alive_s = model_use.keep_alive_s
        self.is_pinned |= model_use.is_pinned
        self.n_brief += model_use.is_brief
        self.users[model_use.priority] += not model_use.is_brief
        self.cancel_expiry()

    def leave(self, model_use: ModelUse, now: float) -> None:
        self.n_brief -= model_use.is_brief
        self.users[model_use.priority] -= not model_use.is_brief
        self.last_used_at = now

    def cancel_expiry(self) -> None:
        if self.expiry is not None:
            self.expiry.cancel()
        self.expiry = self.expires_at = None

    def policy_state(self, n_waiting: int) -> LoadedState:
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
        )


def is_idle(resident: LoadedModel, *, spares_pinned: bool = True) -> bool:
    is_free = not resident.n_users and not resident.is_widening
    return resident.state == "ready" and is_free and not (spares_pinned and resident.is_pinned)


class MemoryAccounting(Struct, eq=False):
    _memory_probe: MachineProbe
    _gpu_overhead_bytes: int
    _halved: dict[str, tuple[int, float]] = field(default_factory=dict)
    """The KV cells that models may have which ran out of memory, and since when, by keys."""
    by_key: dict[str, LoadedModel] = field(default_factory=dict)
    device: Device | None = None
    free: MemoryAmount = field(default_factory=MemoryAmount)
    loads: dict[str, LoadCount] = field(default_factory=dict)

    @property
    def is_calm(self) -> bool:
        """Whether nothing is on its way in or out, so that free memory can be read.

        A worker that has just died counts as leaving: its memory is free already, but not yet
        in the accounts.
        """
        return all(
            resident.state in ("ready", "draining")
            and resident.worker
            and not resident.worker.gone.done()
            for resident in self.by_key.values()
        )

    async def probe_device(self) -> Device:
        """Read the device, unless models come or go: then the accounts are more exact."""
        if self.device is not None and not self.is_calm:
            return self.device
        device = await self._memory_probe.probe_device()
        if self.device is None or self.is_calm:
            self.device = device
            overhead = (self._gpu_overhead_bytes,) * len(device.gpus)
            self.free = device.free - MemoryAmount(0, overhead)
            for resident in self.by_key.values():
                if resident.worker:
                    # Weights in mapped files, which the system counts as free.
                    self.free -= MemoryAmount(resident.worker.mapped_bytes)
                    self._record(resident, resident.worker.measure())
                    self.free -= resident.growth  # longer requests will take it
        return device

    def reserve(self, resident: LoadedModel) -> None:
        resident.n_oom_kills = self.device.n_oom_kills if self.device else 0
        self.by_key[resident.key] = resident
        self.free -= resident.room

    def release(self, resident: LoadedModel) -> None:
        if self.by_key.get(resident.key) is resident:
            del self.by_key[resident.key]
            self.free += resident.room

    def change(self, resident: LoadedModel, layout: ModelLayout) -> None:
        self.free += resident.room - layout.room
        resident.layout = layout

    def measured(self, resident: LoadedModel, worker: WorkerProcess) -> None:
        taken = worker.measure()
        self.learn(resident, worker, taken)
        before = resident.room
        self._record(resident, taken)
        self.free += before - resident.room

    def _record(self, resident: LoadedModel, taken: WorkerMemory) -> None:
        room, resident.growth = as_placed(taken, resident.room)
        resident.layout = replace(resident.layout, room=room)

    def learn(self, resident: LoadedModel, worker: WorkerProcess, taken: WorkerMemory) -> None:
        self._memory_probe.learn(resident.layout_request, worker.load, taken, worker.load_s)

    def count(self, resident: LoadedModel, worker: WorkerProcess) -> None:
        count = self.loads.setdefault(resident.facts.name, LoadCount())
        count.loads += 1
        count.load_s += worker.load_s

    def halve_cells(self, resident: LoadedModel) -> bool:
        """Halve the KV cells that a model may have; return whether that is possible."""
        load = resident.layout.load
        if load.n_cells // 2 < load.n_ctx_tokens:
            return False
        now = asyncio.get_running_loop().time()
        self._halved[resident.model_key] = load.n_cells // 2, now
        return True

    def n_cells_at_most(self, key: str) -> int | None:
        n_cells, since = self._halved.get(key, (None, 0.0))
        is_lately = asyncio.get_running_loop().time() - since < HALVED_S
        return n_cells if is_lately else None

    def idle(self, but: LoadedModel) -> list[LoadedModel]:
        return [
            resident
            for resident in self.by_key.values()
            if resident is not but and is_idle(resident)
        ]
