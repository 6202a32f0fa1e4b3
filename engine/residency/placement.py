"""Choose the graphics devices that a model is put on. Pure.

What fits on one device goes there whole, onto the one with the most free memory, so that each
device has workers of its own; what is larger is spread by layers over as few as hold it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paddock.engine.settings import SplitMode

from .devices import GpuRoom
from .room import Room

# Layers are not divisible, and each device has buffers of its own.
_SPREAD = 1.05


@dataclass(frozen=True, slots=True)
class Placement:
    """Which devices, and which share of the model each takes."""

    gpus: tuple[int, ...]
    shares: tuple[float, ...]
    split_mode: SplitMode

    def room(self, needed_bytes: int, gpus: Sequence[GpuRoom]) -> Room:
        """Return what `needed_bytes` of buffers take, device by device."""
        taken = [0] * len(gpus)
        for gpu, share in zip(self.gpus, self.shares, strict=True):
            taken[gpu] = int(needed_bytes * share) + gpus[gpu].context_bytes
        return Room(0, tuple(taken))


def placements(
    needed_bytes: int,
    gpus: Sequence[GpuRoom],
    *,
    main_gpu: int | None = None,
    split_mode: SplitMode | None = None,
    overhead_bytes: int = 0,
) -> tuple[Placement, ...]:
    """Give the ways to place a model, the best first; at least one, even if nothing holds it."""
    order = _order(gpus, main_gpu)
    ways: list[Placement] = []
    if split_mode in (None, "none"):
        singles = order[:1] if main_gpu is not None else order
        ways = [
            Placement((i,), (1.0,), "none")
            for i in singles
            if _total(gpus[i]) - overhead_bytes >= needed_bytes
        ]
    whole = [i for i in order if not gpus[i].is_instance]
    if not ways and split_mode != "none" and len(whole) > 1:
        ways = _spread(needed_bytes, gpus, whole, split_mode or "layer", overhead_bytes)
    return tuple(ways) or (Placement((order[0],), (1.0,), "none"),)


def groups(
    gpus: Sequence[GpuRoom], *, main_gpu: int | None = None, split_mode: SplitMode | None = None
) -> tuple[tuple[int, ...], ...]:
    """Return the devices that a model may lie on together: the best one, the best two, …."""
    order = _order(gpus, main_gpu)
    whole = [i for i in order if not gpus[i].is_instance]
    singles = [(order[0],)] if split_mode in (None, "none") or len(whole) < 2 else []
    most = 1 if split_mode == "none" else len(whole)
    return (*singles, *(tuple(whole[:n]) for n in range(2, most + 1)))


def _order(gpus: Sequence[GpuRoom], main_gpu: int | None) -> list[int]:
    """Return the devices, those with more free memory first, before all the one asked for."""
    order = sorted(range(len(gpus)), key=lambda i: (-_free(gpus[i]), i))
    if main_gpu is not None and main_gpu < len(gpus):
        order = [main_gpu, *(i for i in order if i != main_gpu)]
    return order


def _spread(
    needed_bytes: int, gpus: Sequence[GpuRoom], order: list[int], mode: SplitMode, overhead: int
) -> list[Placement]:
    """Give the splits over the first two, three, … of the devices that could hold it."""
    ways = []
    for n in range(2, len(order) + 1):
        chosen = tuple(sorted(order[:n]))
        could = [max(0, _total(gpus[i]) - overhead) for i in chosen]
        if sum(could) >= needed_bytes * _SPREAD or n == len(order):
            now = [max(0, _free(gpus[i]) - overhead) for i in chosen]
            basis = now if sum(now) >= needed_bytes * _SPREAD else could
            basis = basis if sum(basis) else [1] * n
            total = sum(basis)
            ways.append(Placement(chosen, tuple(part / total for part in basis), mode))
    return ways


def _free(gpu: GpuRoom) -> int:
    return gpu.free_bytes - gpu.context_bytes


def _total(gpu: GpuRoom) -> int:
    return gpu.total_bytes - gpu.context_bytes
