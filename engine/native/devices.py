"""The graphics devices as this build of llama.cpp sees them: how much of their memory is free."""

from __future__ import annotations

import ctypes

from .library import ggml_function, supports_gpu

_GPU = 1  # GGML_BACKEND_DEVICE_TYPE_GPU: with memory of its own

_SIZE_POINTER = ctypes.POINTER(ctypes.c_size_t)
_count = ggml_function("ggml_backend_dev_count", ctypes.c_size_t)
_get = ggml_function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
_type = ggml_function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
_memory = ggml_function(
    "ggml_backend_dev_memory", None, ctypes.c_void_p, _SIZE_POINTER, _SIZE_POINTER
)


def free_device_bytes() -> int:
    """Give the free memory of all graphics devices together; 0 with a build for the processor."""
    if not supports_gpu():
        return 0
    devices = map(_get, range(_count()))
    return sum(_free_bytes(device) for device in devices if _type(device) == _GPU)


def _free_bytes(device: int) -> int:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _memory(device, ctypes.byref(free), ctypes.byref(total))
    return free.value
