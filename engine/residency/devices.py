"""Where models can be put on this machine: its processor and the graphics devices it may use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from paddock.engine.hardware import (
    CONTEXT_BYTES,
    Gpu,
    hidden_gpus,
    read_cpu,
    read_gpus,
    read_memory,
    read_oom_kills,
    visible_gpus,
)
from paddock.engine.native.build import find_build

from .room import Room

# Backends whose devices `hardware` cannot list: llama.cpp is asked for them.
UNLISTED = ("vulkan", "sycl", "musa", "cann")
ASK_S = 30.0  # a driver may compile shaders when it starts


@dataclass(frozen=True, slots=True)
class GpuRoom:
    """A graphics device that this build may use."""

    name: str
    free_bytes: int
    total_bytes: int
    uuid: str = ""
    """Of CUDA: what `CUDA_VISIBLE_DEVICES` takes."""
    context_bytes: int = 0
    """What each worker takes there beyond its buffers."""

    @property
    def is_instance(self) -> bool:
        """Whether it is a part of a device (MIG); a process computes on one of them at most."""
        return self.uuid.startswith("MIG-")


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
    """Where the build is for a graphics device and finds none, or none that tells its memory."""
    n_oom_kills: int = 0
    """How often the kernel has ended a process for want of memory, as far as can be seen."""
    total_bytes: int = 0
    """Of main memory, a container's limit included; 0: not known."""

    @property
    def free(self) -> Room:
        """What can be had without swapping."""
        return Room(self.free_bytes, tuple(one.free_bytes for one in self.gpus))

    @property
    def name(self) -> str:
        """Return the name under which what was measured here is kept."""
        return "+".join(one.name for one in self.gpus) or ("gpu" if self.is_gpu else "cpu")


def this_device() -> Device:
    """Read this machine, in some milliseconds; in a second where llama.cpp must be asked."""
    cpu = read_cpu()
    n_threads = max(1, min(cpu.n_cores, cpu.n_usable))
    memory = read_memory()
    free_bytes = memory.free_bytes
    n_kills = read_oom_kills()
    backends = find_build().backends
    if not backends:
        return Device(n_threads, free_bytes, False, (), "", n_kills, memory.total_bytes)
    listed, hidden = read_gpus(), hidden_gpus(os.environ)
    gpus = usable_gpus(visible_gpus(listed, os.environ), backends)
    is_gpu = bool(gpus) or "metal" in backends
    why = ""
    is_asked = bool({*UNLISTED} & {*backends} or (listed and not hidden))
    if not gpus and is_asked and "metal" not in backends:
        asked = ask_devices()
        is_gpu = bool(asked)
        own = tuple(room for room, is_integrated in asked if not is_integrated)
        if all(one.total_bytes for one in own):
            gpus = own
        else:  # planned as if its memory were main memory, so that nothing fits unseen
            why = "it does not tell how much memory it has"
    if not is_gpu:
        why = hidden or "the build finds no graphics device"
    return Device(n_threads, free_bytes, is_gpu, gpus, why, n_kills, memory.total_bytes)


def usable_gpus(gpus: Sequence[Gpu], backends: Sequence[str]) -> tuple[GpuRoom, ...]:
    """Return the devices on which a build with these backends computes.

    Empty also where one of them does not tell its memory: then llama.cpp must be asked.
    """
    kinds = {"cuda": "cuda", "hip": "rocm"}
    wanted = {kinds[backend] for backend in backends if backend in kinds}
    rooms = []
    for gpu in gpus:
        if gpu.kind in wanted:
            if gpu.free_bytes is None or not gpu.memory_bytes:
                return ()
            rooms.append(
                GpuRoom(gpu.name, gpu.free_bytes, gpu.memory_bytes, gpu.uuid, CONTEXT_BYTES)
            )
    return tuple(rooms)


def ask_devices() -> tuple[tuple[GpuRoom, bool], ...]:
    """Ask llama.cpp for its graphics devices, each with whether its memory is main memory.

    In a process of its own, since a driver that starts may hang or abort; takes about a second.
    """
    code = (
        "import json; from paddock.engine.native.devices import graphics_devices; "
        "print(json.dumps([[one.name, one.free_bytes, one.total_bytes, one.context_bytes, "
        "one.is_integrated] for one in graphics_devices()]))"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            capture_output=True, text=True, timeout=ASK_S, check=True,
        )  # fmt: skip
        found = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, IndexError, ValueError):
        return ()
    return tuple(
        (GpuRoom(name, free, total, context_bytes=context), shares)
        for name, free, total, context, shares in found
    )
