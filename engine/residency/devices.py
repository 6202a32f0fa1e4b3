"""Where models can be put on this machine: its processor and the graphics devices it may use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from paddock.engine.hardware import (
    Gpu,
    hidden_gpus,
    read_cpu,
    read_gpus,
    read_memory,
    read_oom_kills,
    visible_gpus,
)
from paddock.engine.native.build import find_build

from .room import PLENTY, Room

# Backends whose devices `hardware` cannot list: llama.cpp is asked for them.
UNLISTED = ("vulkan", "sycl", "musa", "cann")
ASK_S = 30.0  # a driver may compile shaders when it starts


@dataclass(frozen=True, slots=True)
class GpuRoom:
    """A graphics device that this build may use."""

    name: str
    free_bytes: int | None = None
    total_bytes: int | None = None
    """None: it does not tell."""
    uuid: str = ""
    """Of CUDA: what `CUDA_VISIBLE_DEVICES` takes."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where a model will run, as far as the layout depends on it."""

    n_threads: int
    free_bytes: int
    """Of main memory."""
    is_gpu: bool
    gpus: tuple[GpuRoom, ...] = ()
    """Empty on a device that shares main memory (Metal), and without one."""
    why_no_gpu: str = ""
    """Where the build is for a graphics device and finds none."""
    n_oom_kills: int = 0
    """How often the kernel has ended a process for want of memory, as far as can be seen."""

    @property
    def free(self) -> Room:
        """What can be had without swapping."""
        gpus = (PLENTY if one.free_bytes is None else one.free_bytes for one in self.gpus)
        return Room(self.free_bytes, tuple(gpus))

    @property
    def name(self) -> str:
        """Give a name under which what was measured here is kept."""
        return "+".join(one.name for one in self.gpus) or ("gpu" if self.is_gpu else "cpu")


def this_device() -> Device:
    """Read this machine; with a CUDA build it asks the vendor's tool, which takes 0.1 to 2 s."""
    cpu = read_cpu()
    n_threads = max(1, min(cpu.n_cores, cpu.n_usable))
    free_bytes = read_memory().free_bytes
    n_kills = read_oom_kills()
    backends = find_build().backends
    if not backends:
        return Device(n_threads, free_bytes, is_gpu=False, n_oom_kills=n_kills)
    gpus = usable_gpus(visible_gpus(read_gpus(), os.environ), backends)
    is_gpu = bool(gpus) or "metal" in backends
    if not is_gpu and {*UNLISTED} & {*backends}:
        asked = ask_devices()
        gpus = tuple(room for room, is_integrated in asked if not is_integrated)
        is_gpu = bool(asked)
    why = "" if is_gpu else hidden_gpus(os.environ) or "the build finds no graphics device"
    return Device(n_threads, free_bytes, is_gpu, gpus, why, n_kills)


def usable_gpus(gpus: Sequence[Gpu], backends: Sequence[str]) -> tuple[GpuRoom, ...]:
    """Give those of the devices that a build with these backends computes on."""
    kinds = {"cuda": "cuda", "hip": "rocm"}
    wanted = {kinds[backend] for backend in backends if backend in kinds}
    return tuple(
        GpuRoom(gpu.name, gpu.free_bytes, gpu.memory_bytes, gpu.uuid)
        for gpu in gpus
        if gpu.kind in wanted
    )


def ask_devices() -> tuple[tuple[GpuRoom, bool], ...]:
    """Ask llama.cpp for its graphics devices, each with whether its memory is main memory.

    In a process of its own, since a driver that starts may hang or abort; takes about a second.
    """
    code = (
        "import json; from paddock.engine.native.devices import graphics_devices; "
        "print(json.dumps([[one.name, one.free_bytes, one.total_bytes, one.is_integrated] "
        "for one in graphics_devices()]))"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            capture_output=True, text=True, timeout=ASK_S, check=True,
        )  # fmt: skip
        found = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, IndexError, ValueError):
        return ()
    return tuple((GpuRoom(name, free, total), shares) for name, free, total, shares in found)
