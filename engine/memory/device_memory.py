"""Devices that models can be put on: memory amounts, usable graphics devices, placement.

What fits on one device goes there whole, onto the one with the most free memory, so that each
device has its own workers. A larger model is spread by layers over as few devices as hold it. Only
`ask_library` starts a process: a driver may hang or abort.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cache
from itertools import zip_longest
from typing import Any

from paddock.engine.llama.build import find_build
from paddock.engine.settings import SplitMode
from paddock.engine.system.hardware import (
    CONTEXT_BYTES,
    Gpu,
    hidden_gpus,
    read_cpu,
    read_gpus,
    read_memory,
    read_oom_kills,
    visible_gpus,
)
from paddock.engine.system.processes import exit_status_text, python_command, run_blocking
from paddock.engine.system.records import Struct, replace
from paddock.engine.workers.death_reasons import context_line


class MemoryAmount(Struct, frozen=True):
    """Bytes, of main memory and of each graphics device in its order.

    >>> MemoryAmount(8, (5,)) - MemoryAmount(3, (1, 1))
    MemoryAmount(host=5, gpus=(4, -1))
    >>> MemoryAmount(8).holds(MemoryAmount(3, (1,)))
    False
    """

    host: int = 0
    gpus: tuple[int, ...] = ()

    @property
    def used_gpus(self) -> frozenset[int]:
        return frozenset(gpu for gpu, n_bytes in enumerate(self.gpus) if n_bytes)

    def on_gpu(self, i: int) -> int:
        return self.gpus[i] if i < len(self.gpus) else 0

    def __add__(self, other: MemoryAmount) -> MemoryAmount:
        return MemoryAmount(
            self.host + other.host, tuple(a + b for a, b in _gpu_pairs(self, other))
        )

    def __sub__(self, other: MemoryAmount) -> MemoryAmount:
        return MemoryAmount(
            self.host - other.host, tuple(a - b for a, b in _gpu_pairs(self, other))
        )

    def holds(self, other: MemoryAmount) -> bool:
        pairs = ((self.host, other.host), *_gpu_pairs(self, other))
        return all(mine >= needed or needed <= 0 for mine, needed in pairs)

    def missing(self, needed: MemoryAmount) -> MemoryAmount:
        """Return what is wanted and not here; nowhere less than nothing."""
        gap = needed - self
        return MemoryAmount(max(0, gap.host), tuple(max(0, gpu_bytes) for gpu_bytes in gap.gpus))

    def within(self, other: MemoryAmount) -> MemoryAmount:
        return MemoryAmount(
            min(self.host, other.host), tuple(min(a, b) for a, b in _gpu_pairs(self, other))
        )

    @property
    def total_bytes(self) -> int:
        return self.host + sum(self.gpus)


def _gpu_pairs(first: MemoryAmount, other: MemoryAmount) -> list[tuple[int, int]]:
    return list(zip_longest(first.gpus, other.gpus, fillvalue=0))


# Backends whose devices `hardware` cannot list: llama.cpp is asked for them.
UNLISTED_BACKENDS = ("vulkan", "sycl", "musa", "cann")
ASK_LIBRARY_S = 30.0  # CUDA takes some seconds on a cold machine; a driver may compile shaders


class GpuMemory(Struct, frozen=True):
    name: str
    free_bytes: int
    total_bytes: int
    uuid: str = ""
    """Of CUDA: what `CUDA_VISIBLE_DEVICES` takes."""
    context_bytes: int = 0
    """What each worker takes there beyond its buffers."""
    refusal: str = ""
    """Why nothing can be computed there, though it is listed: llama.cpp's own words."""

    @property
    def is_instance(self) -> bool:
        """Whether it is a part of a device (MIG); a process computes on one of them at most."""
        return self.uuid.startswith("MIG-")


class Device(Struct, frozen=True):
    """Where a model will run, as far as the layout depends on it."""

    n_threads: int
    free_bytes: int
    is_gpu: bool
    gpus: tuple[GpuMemory, ...] = ()
    """Empty on a device that shares main memory (Metal), and without one."""
    why_no_gpu: str = ""
    """Reason why a build for a graphics device finds none, or none that reports its memory."""
    n_oom_kills: int = 0
    """How often the kernel has ended a process for want of memory, as far as can be seen."""
    total_bytes: int = 0
    """Of main memory, a container's limit included; 0: not known."""
    refusal: str = ""
    """Why nothing can be computed on any graphics device that is listed."""

    @property
    def free(self) -> MemoryAmount:
        return MemoryAmount(self.free_bytes, tuple(gpu.free_bytes for gpu in self.gpus))

    @property
    def name(self) -> str:
        return "+".join(gpu.name for gpu in self.gpus) or ("gpu" if self.is_gpu else "cpu")


def this_device() -> Device:
    """Read this machine, in some milliseconds; in a second where llama.cpp must be asked."""
    cpu, memory = read_cpu(), read_memory()
    n_threads = max(1, min(cpu.n_cores, cpu.n_usable))
    backends = find_build().backends
    is_gpu, gpus, why = _graphics_devices(backends) if backends else (False, (), "")
    return Device(
        n_threads, memory.free_bytes, is_gpu, gpus, why, read_oom_kills(), memory.total_bytes
    )


def _graphics_devices(backends: Sequence[str]) -> tuple[bool, tuple[GpuMemory, ...], str]:
    listed = read_gpus()
    hidden = hidden_gpus(os.environ)
    why = ""
    gpus = usable_gpus(visible_gpus(listed, os.environ), backends)
    if gpus or "metal" in backends:
        return True, gpus, ""
    if not {*UNLISTED_BACKENDS}.isdisjoint(backends) or (listed and not hidden):
        devices, why = ask_devices()
        own = tuple(room for room, is_integrated in devices if not is_integrated)
        if not all(room.total_bytes for room in own):
            # Planned as if its memory were main memory, so that nothing fits unseen.
            return True, (), "it does not tell how much memory it has"
        if devices:
            return True, own, ""
    return False, (), hidden or why or "the build finds no graphics device"


def usable_gpus(gpus: Sequence[Gpu], backends: Sequence[str]) -> tuple[GpuMemory, ...]:
    """Return the devices on which a build with these backends computes.

    Empty also where one of them does not tell its memory: then llama.cpp must be asked.
    """
    kinds = {"cuda": "cuda", "hip": "rocm"}
    usable_kinds = {kinds[backend] for backend in backends if backend in kinds}
    rooms = []
    for gpu in gpus:
        if gpu.kind in usable_kinds:
            if gpu.free_bytes is None or not gpu.memory_bytes:
                return ()
            rooms.append(
                GpuMemory(gpu.name, gpu.free_bytes, gpu.memory_bytes, gpu.uuid, CONTEXT_BYTES)
            )
    return tuple(rooms)


def ask_devices() -> tuple[tuple[tuple[GpuMemory, bool], ...], str]:
    """Return llama.cpp's graphics devices, whether their memory is main memory; why it has none."""
    answer, why = ask_library(
        "[[[gpu.name, gpu.free_bytes, gpu.total_bytes, gpu.context_bytes, gpu.is_integrated] "
        "for gpu in library.graphics_devices()], library.why_no_device()]"
    )
    found, why = answer or ((), why)
    return tuple(
        (GpuMemory(name, free, total, context_bytes=context), shares)
        for name, free, total, context, shares in found
    ), why


def ask_library(expression: str) -> tuple[Any, str]:
    """Return the value of an expression of `engine.llama.library`, or None and why there is none.

    In a process of its own, since a driver that starts may hang or abort; takes about a second.
    """
    code = "import json, msgspec; from paddock.engine.llama import library; print(json.dumps({}))"
    done = run_blocking(python_command("-c", code.format(expression)), timeout_s=ASK_LIBRARY_S)
    if done is None:
        return None, f"it did not start within {ASK_LIBRARY_S:g} s"
    try:
        return json.loads(done.stdout.splitlines()[-1]), ""
    except (IndexError, ValueError):
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return None, context_line(lines) or exit_status_text(done.code)


@cache
def confirmed_device() -> Device:
    device = this_device()
    if not find_build().backends or (device.is_gpu and not device.gpus):
        return device
    found, why = ask_devices()
    if found and len(found) == len(device.gpus):
        return device  # with what also other programs have left free
    own = tuple(room for room, is_integrated in found if not is_integrated)
    return replace(device, is_gpu=bool(found), gpus=own, why_no_gpu=why or device.why_no_gpu)


# Layers are not divisible, and each device has buffers of its own.
_SPLIT_OVERHEAD = 1.05


class Placement(Struct, frozen=True):
    gpus: tuple[int, ...]
    shares: tuple[float, ...]
    split_mode: SplitMode

    def room(self, needed_bytes: int, gpus: Sequence[GpuMemory]) -> MemoryAmount:
        """Return what `needed_bytes` of buffers take, device by device."""
        taken = [0] * len(gpus)
        for gpu, share in zip(self.gpus, self.shares, strict=True):
            taken[gpu] = int(needed_bytes * share) + gpus[gpu].context_bytes
        return MemoryAmount(0, tuple(taken))


def placements(
    needed_bytes: int,
    gpus: Sequence[GpuMemory],
    *,
    main_gpu: int | None = None,
    split_mode: SplitMode | None = None,
    overhead_bytes: int = 0,
) -> tuple[Placement, ...]:
    """Return the ways to place a model, the best first; at least one, even if nothing holds it."""
    order = _gpus_by_free_memory(gpus, main_gpu)
    ways: list[Placement] = []
    if split_mode in (None, "none"):
        singles = order[:1] if main_gpu is not None else order
        ways = [
            Placement((i,), (1.0,), "none")
            for i in singles
            if _usable_total(gpus[i]) - overhead_bytes >= needed_bytes
        ]
    whole = [i for i in order if not gpus[i].is_instance]
    if not ways and split_mode != "none" and len(whole) > 1:
        # Split it over the first two, three, … of the devices that could hold it.
        for n in range(2, len(whole) + 1):
            chosen = tuple(sorted(whole[:n]))
            could = [max(0, _usable_total(gpus[i]) - overhead_bytes) for i in chosen]
            if sum(could) >= needed_bytes * _SPLIT_OVERHEAD or n == len(whole):
                now = [max(0, _usable_free(gpus[i]) - overhead_bytes) for i in chosen]
                basis = now if sum(now) >= needed_bytes * _SPLIT_OVERHEAD else could
                basis = basis if sum(basis) else [1] * n
                total = sum(basis)
                shares = tuple(part / total for part in basis)
                ways.append(Placement(chosen, shares, split_mode or "layer"))
    return tuple(ways) or (Placement((order[0],), (1.0,), "none"),)


def gpu_groups(
    gpus: Sequence[GpuMemory], *, main_gpu: int | None = None, split_mode: SplitMode | None = None
) -> tuple[tuple[int, ...], ...]:
    """Return the devices that a model may lie on together: the best one, the best two, …."""
    order = _gpus_by_free_memory(gpus, main_gpu)
    whole = [i for i in order if not gpus[i].is_instance]
    singles = [(order[0],)] if split_mode in (None, "none") or len(whole) < 2 else []
    most = 1 if split_mode == "none" else len(whole)
    return (*singles, *(tuple(whole[:n]) for n in range(2, most + 1)))


def _gpus_by_free_memory(gpus: Sequence[GpuMemory], main_gpu: int | None) -> list[int]:
    """Return the devices, those with more free memory first, before all the one asked for."""
    usable = [i for i, gpu in enumerate(gpus) if not gpu.refusal]
    order = sorted(usable, key=lambda i: (-_usable_free(gpus[i]), i))
    if main_gpu in order:
        order = [main_gpu, *(i for i in order if i != main_gpu)]
    return order


def _usable_free(gpu: GpuMemory) -> int:
    return gpu.free_bytes - gpu.context_bytes


def _usable_total(gpu: GpuMemory) -> int:
    return gpu.total_bytes - gpu.context_bytes
