"""Why a worker died: its own code, no memory, or another program; in words for people."""

from __future__ import annotations

import re
from collections.abc import Sequence

from paddock.engine.system.processes import how_it_ended

# Messages of llama.cpp, its backends and the C++ library (ggml-backend.cpp, ggml-cuda.cu,
# llama-kv-cache.cpp, llama-model.cpp).
_NO_MEMORY = re.compile(
    r"out of memory|failed to allocate|unable to allocate|cudaMalloc failed|bad_alloc|MemoryError"
    r"|alloc_tensor_range|ErrorOutOf(Device|Host)Memory|cannot allocate memory|insufficient memory",
    re.IGNORECASE,
)
# llama.cpp writes this before it aborts; a stack trace of some twenty lines follows.
_ABORT_LINE = re.compile(r"GGML_ASSERT|GGML_ABORT|fatal error")

# Signals sent by a person, an init system or a supervisor.
_KILLED_BY_OTHERS = re.compile(r"killed by SIG(HUP|INT|KILL|TERM)\b")
# Signals that a crash raises.
_KILLED_BY_CRASH = re.compile(r"killed by SIG(SEGV|ILL|ABRT|BUS|FPE)\b")

_LAST_LINE_PREFIX = " (llama.cpp's last line: "


def request_phase(request_ids: Sequence[int]) -> str:
    """Return the phase of a worker with these requests.

    >>> request_phase([]), request_phase([7]), request_phase([3, 4, 5, 6, 9])
    ('idle', 'answering request 7', 'answering requests 3, 4, 5 and 2 more')
    """
    if not request_ids:
        return "idle"
    shown = ", ".join(str(request_id) for request_id in request_ids[:3])
    rest = f" and {len(request_ids) - 3} more" if len(request_ids) > 3 else ""
    return f"answering request{'s' if len(request_ids) > 1 else ''} {shown}{rest}"


def context_line(lines: Sequence[str]) -> str:
    """Return the line of a log that best explains a death, or the last one.

    Lack of memory comes before its consequences: an abort, a stack trace, Python's traceback.

    >>> context_line(["GGML_ASSERT(x) failed", "libggml.so(+0x1)"]), context_line(["a", "b"])
    ('GGML_ASSERT(x) failed', 'b')
    """
    aborts = [line for line in lines if _ABORT_LINE.search(line)]
    no_memory = [line for line in lines if _NO_MEMORY.search(line)]
    return (no_memory or aborts or list(lines) or [""])[-1]


def death_reason(status: int, phase: str, lines: Sequence[str] = ()) -> str:
    """Return how and in which phase a worker died, with a line of llama.cpp's log as context.

    >>> death_reason(-11, "warming up", ["n_ctx_seq (9216)"])
    "killed by SIGSEGV while warming up (llama.cpp's last line: n_ctx_seq (9216))"
    """
    line = context_line(lines)
    context = f"{_LAST_LINE_PREFIX}{line})" if line else ""
    return f"{how_it_ended(status)} while {phase}{context}"


def without_context(reason: str) -> str:
    """Return how and in which phase a worker died, without llama.cpp's line.

    >>> without_context("killed by SIGSEGV while idle (llama.cpp's last line: x)")
    'killed by SIGSEGV while idle'
    """
    return reason.partition(_LAST_LINE_PREFIX)[0]


def with_failed_fallback(reason: str, words: str) -> str:
    """Add a fallback that did not help to a reason, before llama.cpp's line.

    >>> with_failed_fallback("killed by SIGSEGV while idle (llama.cpp's last line: x)", "without y")
    "killed by SIGSEGV while idle, also without y (llama.cpp's last line: x)"
    """
    how = without_context(reason)
    return f"{how}, also {words}{reason[len(how) :]}"


def was_ended_by_others(reason: str) -> bool:
    """Return whether another program ended a worker, so that a new one may succeed.

    >>> [was_ended_by_others(f"killed by {name} while idle") for name in ("SIGKILL", "SIGSEGV")]
    [True, False]
    """
    return _KILLED_BY_OTHERS.match(reason) is not None


def has_crashed(reason: str) -> bool:
    """Return whether a worker crashed for another reason than lack of memory.

    >>> [has_crashed(f"killed by {name} while idle") for name in ("SIGILL", "SIGKILL")]
    [True, False]
    >>> has_crashed("killed by SIGABRT while loading (llama.cpp's last line: std::bad_alloc)")
    False
    """
    return _KILLED_BY_CRASH.match(reason) is not None and not _NO_MEMORY.search(reason)


def ran_out_of_memory(reason: str, n_oom_kills_before: int, n_oom_kills_after: int) -> bool:
    """Return whether memory ran out, by llama.cpp's message or the kernel's count of OOM kills.

    >>> ran_out_of_memory("killed by SIGKILL", 3, 4), ran_out_of_memory("killed by SIGKILL", 3, 3)
    (True, False)
    """
    was_killed = reason.startswith("killed by SIGKILL")
    return bool(_NO_MEMORY.search(reason)) or (
        was_killed and n_oom_kills_after > n_oom_kills_before
    )
