"""Memory accounting: the loaded models, and the memory that they leave.

While models come or go, free memory cannot be read: half of a model is in the reading and half is
not. So it is read when all is calm, and in between what was planned is added and taken away. What
the contexts of loaded models may yet take (`Resident.growth`) is never free.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Generic

from paddock.engine.errors import ModelTooLarge
from paddock.engine.workers.load import Taken

from .counts import LoadCount
from .devices import Device
from .fit import Layout, as_placed
from .resident import Resident, W
from .room import Room
from .survey import Surveyor


class Books(Generic[W]):
    """The residents by their keys, and the room that they leave."""

    def __init__(self, surveyor: Surveyor, gpu_overhead_bytes: int) -> None:
        self._surveyor = surveyor
        self._gpu_overhead_bytes = gpu_overhead_bytes
        self._halved: dict[str, int] = {}
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
        """Read the machine, unless the books are better than a reading."""
        if self.device is not None and not self.is_calm:
            return self.device
        device = await self._surveyor.look()
        if self.device is None or self.is_calm:
            self.device = device
            overhead = (self._gpu_overhead_bytes,) * len(device.gpus)
            self.free = device.free - Room(self._mapped_bytes(), overhead)
            for one in self.by_key.values():
                if one.worker:
                    self._weigh(one, one.worker.measure())
                    self.free -= one.growth  # it is free only until longer requests come
        return device

    def _mapped_bytes(self) -> int:
        """Count weights that are pages of their files: the system calls them free memory."""
        return sum(one.worker.mapped_bytes for one in self.by_key.values() if one.worker)

    def enter(self, resident: Resident[W]) -> None:
        """Reserve what a model was planned to take."""
        resident.n_oom_kills = self.device.n_oom_kills if self.device else 0
        self.by_key[resident.key] = resident
        self.free -= resident.room

    def strike(self, resident: Resident[W]) -> None:
        """Take a model's room back."""
        if self.by_key.get(resident.key) is resident:
            del self.by_key[resident.key]
            self.free += resident.room

    def change(self, resident: Resident[W], layout: Layout) -> None:
        """Lay a model out anew."""
        self.free += resident.room - layout.room
        resident.layout = layout

    def measured(self, resident: Resident[W], worker: W) -> None:
        """Replace what was planned by what a worker really takes, and keep it for the next time."""
        taken = worker.measure()
        self.learn(resident, worker, taken)
        before = resident.room
        self._weigh(resident, taken)
        self.free += before - resident.room

    def _weigh(self, resident: Resident[W], taken: Taken) -> None:
        """Write down what a worker takes, and what of it is yet to come."""
        room, resident.growth = as_placed(taken, resident.room)
        resident.layout = replace(resident.layout, room=room)

    def learn(self, resident: Resident[W], worker: W, taken: Taken) -> None:
        """Keep what a worker took for the next time."""
        self._surveyor.learn(resident.wanted, worker.load, taken, worker.load_s)

    def count(self, resident: Resident[W], worker: W) -> None:
        """Note that a model was loaded."""
        count = self.loads.setdefault(resident.facts.name, LoadCount())
        count.loads += 1
        count.load_s += worker.load_s

    def halve(self, resident: Resident[W]) -> bool:
        """Halve the cells that a model may have from now on; return whether that is possible."""
        load = resident.layout.load
        if load.n_cells // 2 < load.n_ctx_tokens:
            return False
        self._halved[resident.model_key] = load.n_cells // 2
        return True

    def n_cells_at_most(self, key: str) -> int | None:
        """Return how many cells a model may have after it ran out of memory."""
        return self._halved.get(key)

    def idle(self, but: Resident[W]) -> list[Resident[W]]:
        """Give those that could go at once to make room for somebody."""
        return [one for one in self.by_key.values() if one is not but and is_idle(one)]


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
