"""The graphics devices as this build of llama.cpp sees them: how much of their memory is free."""

from __future__ import annotations

import ctypes

from llama_cpp._ggml import libggml

from .library import supports_gpu

_GPU = 1  # GGML_BACKEND_DEVICE_TYPE_GPU: with memory of its own

# llama-cpp-python does not bind these (ggml/include/ggml-backend.h).
libggml.ggml_backend_dev_count.restype = ctypes.c_size_t
libggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
libggml.ggml_backend_dev_get.restype = ctypes.c_void_p
libggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
libggml.ggml_backend_dev_type.restype = ctypes.c_int
libggml.ggml_backend_dev_memory.argtypes = [
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.POINTER(ctypes.c_size_t),
]
libggml.ggml_backend_dev_memory.restype = None


def free_device_bytes() -> int:
    """Give the free memory of all graphics devices together; 0 with a build for the processor."""
    if not supports_gpu():
        return 0
    devices = map(libggml.ggml_backend_dev_get, range(libggml.ggml_backend_dev_count()))
    return sum(
        _free_bytes(device) for device in devices if libggml.ggml_backend_dev_type(device) == _GPU
    )


def _free_bytes(device: int) -> int:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    libggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
    return free.value
