"""Load llama.cpp and its backends; its devices, errors and log.

The only module that imports llama_cpp itself; the others take `lib` from here. The order of its
lines matters: llama_cpp decides in its first import where it looks for its libraries, so the
variable LLAMA_CPP_LIB_PATH is set before it. A build with one library for each kind of processor
has no backend until `ggml_backend_load_all_from_path` is called.

llama.cpp returns a null pointer where it fails and gives the reason in its log only, so each call
that can fail is recorded. The log is also the only account of each device's buffers: the
difference of a device's free memory would count what other programs allocate and free meanwhile.
Warnings go to standard error.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paddock.engine.system.hardware import context_bytes, hidden_gpus
from paddock.engine.system.records import Struct, field

from .build import find_build

BUILD = find_build()
if BUILD.origin != "llama-cpp-python":  # which has its own libraries
    os.environ["LLAMA_CPP_LIB_PATH"] = str(BUILD.folder)
    if any("mtmd" in file.name for file in BUILD.files):
        os.environ.setdefault("MTMD_CPP_LIB", str(BUILD.folder))

import llama_cpp.llama_cpp as lib  # noqa: E402 - the variable counts from here on
from llama_cpp._ctypes_extensions import load_shared_library  # noqa: E402

try:
    import llama_cpp.llama_cpp_ext as ext
except (ImportError, AttributeError):  # another build of llama.cpp may lack these functions
    ext = None  # type: ignore[assignment]

__all__ = [
    "BUILD",
    "LOG",
    "LOG_CALLBACK",
    "AllocatedBuffers",
    "CacheFull",
    "DecodeFailed",
    "GraphicsDevice",
    "LlamaLog",
    "LoadFailed",
    "LoadedLibrary",
    "LogRecording",
    "describe_library",
    "ext",
    "ggml_function",
    "graphics_devices",
    "lib",
    "route_llama_log",
    "supports_gpu",
    "supports_mtp",
    "why_no_device",
]

# By path: llama_cpp's own handle knows only the folder inside its package.
_ggml = load_shared_library("ggml", BUILD.folder)
_base = load_shared_library("ggml-base", BUILD.folder)


def ggml_function(name: str, result: Any, *arguments: Any) -> Any:
    """Return a function of ggml that llama-cpp-python does not bind."""
    # On Windows a handle knows its own library's functions only.
    found = getattr(_ggml if hasattr(_ggml, name) else _base, name)
    found.restype, found.argtypes = result, arguments
    return found


class LoadFailed(Exception):
    """llama.cpp would not load the model or make its context; the reason is on stderr."""


class CacheFull(Exception):
    """No free cells for this batch; nothing was decoded, so it can be retried."""


class DecodeFailed(Exception):
    """llama.cpp could not compute; the context is unusable."""


_WARNING, _ERROR = 3, 4  # GGML_LOG_LEVEL_; CONT (5) continues a line of unknown level
_N_SHOWN_ERRORS = 3
# As in "llama_kv_cache:      CUDA0 KV buffer size =   512.00 MiB".
_BUFFER_LINE = re.compile(r"(\S+)\s+(model|KV|RS|LoRA|compute|output) buffer size =\s+([\d.]+) MiB")
_HOST_BUFFER = re.compile(r"CPU|AMX|HBM|\w+_Host$")
_BUFFER_SUFFIX = re.compile(r"_(Split|Mapped)$")  # of a device's memory


class AllocatedBuffers(Struct):
    """Bytes that llama.cpp has allocated, by name of device; host memory is ''."""

    by_device: Counter[str] = field(default_factory=Counter)
    cells: Counter[str] = field(default_factory=Counter)
    """Of these, the cells of KV caches."""

    def __add__(self, other: AllocatedBuffers) -> AllocatedBuffers:
        return AllocatedBuffers(self.by_device + other.by_device, self.cells + other.cells)

    def as_head(
        self, cells: Mapping[str, int], n_cells: int, n_cells_at_most: int
    ) -> dict[str, Any]:
        """Return plain data for a frame.

        `cells`: bytes of the growing cache's present cells, by device.
        """
        names = [name for name in self.by_device if name]
        device_bytes = sum(self.by_device[name] + context_bytes(name) for name in names)
        host_cells = cells.get("", 0)
        return {
            "device_bytes": device_bytes,
            "n_cells": n_cells,
            "n_cells_at_most": n_cells_at_most,
            "cell_bytes": [host_cells, sum(cells.values()) - host_cells],
        }


class LogRecording(Struct):
    """llama.cpp's log during one call."""

    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def explain(self, message: str) -> str:
        """Return `message`, followed by the last errors.

        >>> LogRecording(errors=["a", "failed to allocate"]).explain("no context")
        'no context: a | failed to allocate'
        """
        why = " | ".join(self.errors[-_N_SHOWN_ERRORS:])
        return f"{message}: {why}" if self.errors else message

    def buffers(self) -> AllocatedBuffers:
        """Return the buffers that were allocated.

        >>> lines = ["x:  CUDA0 KV buffer size =  1.50 MiB", "x: CPU output buffer size = 2 MiB"]
        >>> LogRecording(lines).buffers().by_device
        Counter({'': 2097152, 'CUDA0': 1572864})
        """
        found = AllocatedBuffers()
        computes: dict[str, int] = {}
        for line in self.lines:
            if match := _BUFFER_LINE.search(line):
                n_bytes = int(float(match[3]) * 1024**2)
                if match[2] == "compute":  # the graph may be planned more than once
                    computes[match[1]] = n_bytes
                else:
                    found.by_device[_buffer_device(match[1])] += n_bytes
                if match[2] == "KV":
                    found.cells[_buffer_device(match[1])] += n_bytes
        for buffer, n_bytes in computes.items():
            found.by_device[_buffer_device(buffer)] += n_bytes
        return found


def _buffer_device(buffer: str) -> str:
    """Return the device of a kind of buffer; "" for host memory.

    >>> [_buffer_device(one) for one in ("CUDA_Host", "CPU_REPACK", "MTL0_Mapped", "CUDA1")]
    ['', '', 'MTL0', 'CUDA1']
    """
    return "" if _HOST_BUFFER.match(buffer) else _BUFFER_SUFFIX.sub("", buffer)


class LlamaLog:
    def __init__(self) -> None:
        self._recordings: list[LogRecording] = []

    def __call__(self, level: int, text: bytes, _data: object) -> None:
        words = text.decode("utf-8", errors="replace")
        if level in (_WARNING, _ERROR):
            sys.stderr.write(words)
            sys.stderr.flush()
        for recording in self._recordings:
            recording.lines.append(words)
            if level == _ERROR:
                recording.errors.append(words.strip())

    @contextmanager
    def recording(self) -> Iterator[LogRecording]:
        recording = LogRecording()
        self._recordings.append(recording)
        try:
            yield recording
        finally:
            self._recordings.remove(recording)


LOG = LlamaLog()
# Kept here, because llama.cpp holds only the address.
LOG_CALLBACK = lib.llama_log_callback(LOG)


def route_llama_log() -> None:
    lib.llama_log_set(LOG_CALLBACK, None)


def _load_backends() -> LogRecording:
    """Load backends that are libraries of their own; of the processor's, the best variant.

    They look for their devices once: the recording has the account of that.
    """
    route_llama_log()
    with LOG.recording() as recording:
        if ggml_function("ggml_backend_reg_count", ctypes.c_size_t)() == 0:
            load_all = ggml_function("ggml_backend_load_all_from_path", None, ctypes.c_char_p)
            load_all(os.fsencode(BUILD.folder))
    return recording


_START = _load_backends()


def supports_gpu() -> bool:
    return bool(lib.llama_supports_gpu_offload())


def supports_mtp() -> bool:
    return ext is not None


class LoadedLibrary(Struct, frozen=True):
    supports_gpu: bool
    features: tuple[str, ...]
    """The processor's features that the build uses."""
    variant: str
    """The chosen processor library, such as `zen4`; "" if there is only one."""
    unusable: tuple[str, ...]
    """Graphics backends whose library cannot be loaded, each with the system's reason."""
    why_no_device: str
    """See `why_no_device`."""


def describe_library() -> LoadedLibrary:
    system_info = lib.llama_print_system_info().decode(errors="replace")
    features = tuple(re.findall(r"(\w+) = 1\b", system_info))
    best, best_score = "", 0  # of the variants, which ggml loads
    for file in BUILD.files:
        found = re.match(r"(?:lib)?ggml-cpu-(\w+)\.", file.name)
        if found and (score := _score(file)) > best_score:
            best, best_score = found.group(1), score
    unusable = tuple(_unusable())
    return LoadedLibrary(supports_gpu(), features, best, unusable, why_no_device())


def why_no_device() -> str:
    """Return why a build for graphics devices has none, in its own words; "" if it has one."""
    if supports_gpu() or not BUILD.backends:
        return ""
    names = tuple(f"ggml_{backend}" for backend in BUILD.backends)
    own = [line.strip(" :\n") for line in _START.lines if line.startswith(names)]
    found = [*_START.errors, *_unusable(), *own, "llama.cpp finds no graphics device"]
    return ": ".join(filter(None, (hidden_gpus(os.environ), found[0])))


def _score(file: Path) -> int:
    """Return ggml's score of a library; 0 if this processor cannot run it."""
    score = ctypes.CDLL(str(file)).ggml_backend_score
    score.restype = ctypes.c_int
    return int(score())


def _unusable() -> list[str]:
    """Try to load each graphics library: ggml does not report failures."""
    reasons = []
    for backend in BUILD.backends:
        files = [file for file in BUILD.files if f"ggml-{backend}." in file.name]
        try:
            ctypes.CDLL(str(files[0]))
        except OSError as error:
            reasons.append(f"{backend}: {error}")
    return reasons


# GGML_BACKEND_DEVICE_TYPE_: with memory of its own; with a part of main memory.
_GPU, _INTEGRATED = 1, 2

_SIZE_POINTER = ctypes.POINTER(ctypes.c_size_t)
_device_count = ggml_function("ggml_backend_dev_count", ctypes.c_size_t)
_device_get = ggml_function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
_device_type = ggml_function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
_device_name = ggml_function("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
_device_description = ggml_function(
    "ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p
)
_device_memory = ggml_function(
    "ggml_backend_dev_memory", None, ctypes.c_void_p, _SIZE_POINTER, _SIZE_POINTER
)


class GraphicsDevice(Struct, frozen=True):
    name: str
    free_bytes: int
    total_bytes: int
    is_integrated: bool
    """Whether its memory is a part of main memory."""
    context_bytes: int = 0
    """Memory that each process takes there beyond its buffers."""


def graphics_devices() -> tuple[GraphicsDevice, ...]:
    if not supports_gpu():
        return ()
    devices = map(_device_get, range(_device_count()))
    return tuple(
        _read_device(device) for device in devices if _device_type(device) in (_GPU, _INTEGRATED)
    )


def _read_device(device: int) -> GraphicsDevice:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _device_memory(device, ctypes.byref(free), ctypes.byref(total))
    name = (_device_description(device) or b"graphics device").decode(errors="replace")
    is_integrated = _device_type(device) == _INTEGRATED
    extra_bytes = context_bytes((_device_name(device) or b"").decode(errors="replace"))
    return GraphicsDevice(name, free.value, total.value, is_integrated, extra_bytes)
