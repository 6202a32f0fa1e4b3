"""Graphics devices as llama.cpp sees them, with their free memory."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from paddock.engine.system.hardware import context_bytes

from .library import ggml_function, supports_gpu

# GGML_BACKEND_DEVICE_TYPE_: with memory of its own; with a part of main memory.
_GPU, _INTEGRATED = 1, 2

_SIZE_POINTER = ctypes.POINTER(ctypes.c_size_t)
_count = ggml_function("ggml_backend_dev_count", ctypes.c_size_t)
_get = ggml_function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
_type = ggml_function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
_name = ggml_function("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
_description = ggml_function("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)
_memory = ggml_function(
    "ggml_backend_dev_memory", None, ctypes.c_void_p, _SIZE_POINTER, _SIZE_POINTER
)


@dataclass(frozen=True, slots=True)
class GraphicsDevice:
    """A device that llama.cpp computes on besides the processor."""

    name: str
    free_bytes: int
    total_bytes: int
    is_integrated: bool
    """Whether its memory is a part of main memory."""
    context_bytes: int = 0
    """What each process takes there beyond its buffers."""


def graphics_devices() -> tuple[GraphicsDevice, ...]:
    """Return the graphics devices; none with a build for the processor."""
    if not supports_gpu():
        return ()
    devices = map(_get, range(_count()))
    return tuple(_read(device) for device in devices if _type(device) in (_GPU, _INTEGRATED))


def _read(device: int) -> GraphicsDevice:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _memory(device, ctypes.byref(free), ctypes.byref(total))
    name = (_description(device) or b"graphics device").decode(errors="replace")
    is_integrated = _type(device) == _INTEGRATED
    more = context_bytes((_name(device) or b"").decode(errors="replace"))
    return GraphicsDevice(name, free.value, total.value, is_integrated, more)
