"""How a worker process ended: in words, and what follows from them. Pure."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

# What llama.cpp, its backends and the C++ library say (vendor/llama.cpp: ggml-backend.cpp,
# ggml-cuda.cu, llama-kv-cache.cpp, llama-model.cpp).
_NO_MEMORY = re.compile(
    r"out of memory|failed to allocate|unable to allocate|cudaMalloc failed|bad_alloc|MemoryError"
    r"|alloc_tensor_range|ErrorOutOf(Device|Host)Memory|cannot allocate memory|insufficient memory",
    re.IGNORECASE,
)
# What llama.cpp writes before it aborts; a stack trace of some twenty lines follows.
_ABORTS = re.compile(r"GGML_ASSERT|GGML_ABORT|fatal error")

# What a person, an init system or a supervisor sends.
_BY_OTHERS = re.compile(r"killed by SIG(HUP|INT|KILL|TERM)\b")
# What code that cannot be computed here ends by.
_CRASH = re.compile(r"killed by SIG(SEGV|ILL|ABRT|BUS|FPE)\b")

_CONTEXT = " (llama.cpp's last line: "


def how_it_ended(status: int) -> str:
    """Return how a process ended, signals by their names.

    >>> how_it_ended(-11), how_it_ended(3), how_it_ended(-35)
    ('killed by SIGSEGV', 'ended with status 3', 'killed by signal 35')
    """
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-status}"


def answering(request_ids: Sequence[int]) -> str:
    """Return the phase of a worker with these requests.

    >>> answering([]), answering([7]), answering([3, 4, 5, 6, 9])
    ('idle', 'answering request 7', 'answering requests 3, 4, 5 and 2 more')
    """
    if not request_ids:
        return "idle"
    shown = ", ".join(str(one) for one in request_ids[:3])
    more = f" and {len(request_ids) - 3} more" if len(request_ids) > 3 else ""
    return f"answering request{'s' if len(request_ids) > 1 else ''} {shown}{more}"


def context_line(lines: Sequence[str]) -> str:
    """Return the line of a log that best explains a death: one that names a failure, or the last.

    Want of memory is told before its consequences: an abort, a stack trace, Python's traceback.

    >>> context_line(["GGML_ASSERT(x) failed", "libggml.so(+0x1)"]), context_line(["a", "b"])
    ('GGML_ASSERT(x) failed', 'b')
    """
    aborts = [line for line in lines if _ABORTS.search(line)]
    no_memory = [line for line in lines if _NO_MEMORY.search(line)]
    return (no_memory or aborts or list(lines) or [""])[-1]


def death(status: int, phase: str, lines: Sequence[str] = ()) -> str:
    """Return how and in which phase a worker died; a line of llama.cpp's log is only context.

    >>> death(-11, "warming up", ["n_ctx_seq (9216)"])
    "killed by SIGSEGV while warming up (llama.cpp's last line: n_ctx_seq (9216))"
    """
    line = context_line(lines)
    context = f"{_CONTEXT}{line})" if line else ""
    return f"{how_it_ended(status)} while {phase}{context}"


def without_context(reason: str) -> str:
    """Return how and in which phase a worker died, without llama.cpp's line.

    >>> without_context("killed by SIGSEGV while idle (llama.cpp's last line: x)")
    'killed by SIGSEGV while idle'
    """
    return reason.partition(_CONTEXT)[0]


def also(reason: str, words: str) -> str:
    """Return a reason with what did not help, before llama.cpp's line.

    >>> also("killed by SIGSEGV while idle (llama.cpp's last line: x)", "without y")
    "killed by SIGSEGV while idle, also without y (llama.cpp's last line: x)"
    """
    how = without_context(reason)
    return f"{how}, also {words}{reason[len(how) :]}"


def was_ended_by_others(reason: str) -> bool:
    """Return whether another program ended a worker, so that a new one may well succeed.

    >>> [was_ended_by_others(f"killed by {name} while idle") for name in ("SIGKILL", "SIGSEGV")]
    [True, False]
    """
    return _BY_OTHERS.match(reason) is not None


def has_crashed(reason: str) -> bool:
    """Return whether the worker's own code killed it; running out of memory is not meant.

    >>> [has_crashed(f"killed by {name} while idle") for name in ("SIGILL", "SIGKILL")]
    [True, False]
    >>> has_crashed("killed by SIGABRT while loading (llama.cpp's last line: std::bad_alloc)")
    False
    """
    return _CRASH.match(reason) is not None and not _NO_MEMORY.search(reason)


def ran_out_of_memory(reason: str, n_oom_kills_before: int, n_oom_kills_after: int) -> bool:
    """Return whether memory ran out: by llama.cpp's words, or by the kernel's count of its kills.

    >>> ran_out_of_memory("killed by SIGKILL", 3, 4), ran_out_of_memory("killed by SIGKILL", 3, 3)
    (True, False)
    """
    was_killed = reason.startswith("killed by SIGKILL")
    return bool(_NO_MEMORY.search(reason)) or (
        was_killed and n_oom_kills_after > n_oom_kills_before
    )
