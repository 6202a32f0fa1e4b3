"""Tell from a worker's last words whether it died of want of memory. Pure."""

from __future__ import annotations

import re

# What llama.cpp, its backends and the C++ library say (vendor/llama.cpp: ggml-backend.cpp,
# ggml-cuda.cu, llama-kv-cache.cpp, llama-model.cpp).
_WORDS = re.compile(
    r"out of memory|failed to allocate|unable to allocate|cudaMalloc failed|bad_alloc"
    r"|alloc_tensor_range|ErrorOutOfDeviceMemory|cannot allocate memory|insufficient memory",
    re.IGNORECASE,
)

# HUP, INT, KILL, TERM: what a person, an init system or a supervisor sends. A model that cannot be
# computed ends by signals of its own making: ABRT, SEGV, ILL, BUS, FPE.
_BY_OTHERS = re.compile(r"killed by signal (1|2|9|15)\b")


def was_ended_by_others(reason: str) -> bool:
    """Tell whether somebody ended a worker, so that another start may well succeed.

    >>> was_ended_by_others("killed by signal 9"), was_ended_by_others("killed by signal 11: x")
    (True, False)
    """
    return _BY_OTHERS.match(reason) is not None


def ran_out_of_memory(reason: str, n_oom_kills_before: int, n_oom_kills_after: int) -> bool:
    """Tell whether memory ran out: by llama.cpp's words, or by the kernel's count of its kills.

    >>> ran_out_of_memory("killed by signal 9", 3, 4), ran_out_of_memory("killed by signal 9", 3, 3)
    (True, False)
    """
    was_killed = "signal 9" in reason
    return bool(_WORDS.search(reason)) or (was_killed and n_oom_kills_after > n_oom_kills_before)
