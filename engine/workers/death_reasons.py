"""Why a worker died: its own code, no memory, or another program."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from paddock.engine.system.processes import exit_status_text
from paddock.engine.system.records import Struct, replace

# Messages of llama.cpp, its backends and the C++ library (ggml-backend.cpp, ggml-cuda.cu,
# llama-kv-cache.cpp, llama-model.cpp).
_NO_MEMORY = re.compile(
    r"out of memory|failed to allocate|unable to allocate|cudaMalloc failed|bad_alloc|MemoryError"
    r"|alloc_tensor_range|ErrorOutOf(Device|Host)Memory|cannot allocate memory|insufficient memory"
    r"|resource allocation failed",
    re.IGNORECASE,
)
# llama.cpp writes this before it aborts; a stack trace of some twenty lines follows, or the place
# in its source without the driver's reason.
_ABORT_LINE = re.compile(r"GGML_ASSERT|GGML_ABORT|fatal error|^\w+ error: ")

# Signals sent by a person, an init system or a supervisor.
_SENT_BY_OTHERS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM})
# Signals that a crash raises.
_RAISED_BY_CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE}
)


class WorkerEnd(Struct, frozen=True):
    """How a worker ended, or why it could not load its model; as a text, for people.

    >>> str(WorkerEnd("killed by SIGSEGV while warming up", -11, "n_ctx_seq (9216)"))
    "killed by SIGSEGV while warming up (llama.cpp's last line: n_ctx_seq (9216))"
    """

    how: str
    """How and in which phase it died, or what is wrong."""
    status: int | None = None
    """Its exit status, negative for a signal; None if it did not end by itself."""
    line: str = ""
    """The line of llama.cpp's log that best explains it."""

    def __str__(self) -> str:
        return f"{self.how} (llama.cpp's last line: {self.line})" if self.line else self.how

    @property
    def was_by_others(self) -> bool:
        """Whether another program ended the worker, so that a new one may succeed.

        >>> [WorkerEnd("", status).was_by_others for status in (-9, -11, None)]
        [True, False, False]
        """
        return -(self.status or 0) in _SENT_BY_OTHERS

    @property
    def is_crash(self) -> bool:
        """Whether the worker crashed for another reason than lack of memory.

        >>> [WorkerEnd("", status).is_crash for status in (-4, -9, None)]
        [True, False, False]
        >>> WorkerEnd("killed by SIGABRT while loading", -6, "std::bad_alloc").is_crash
        False
        """
        return -(self.status or 0) in _RAISED_BY_CRASHES and not self._names_memory

    def ran_out_of_memory(self, n_oom_kills_before: int, n_oom_kills_after: int) -> bool:
        """Return whether memory ran out, by llama.cpp's message or the kernel's OOM kills.

        >>> killed = WorkerEnd("killed by SIGKILL", -9)
        >>> killed.ran_out_of_memory(3, 4), killed.ran_out_of_memory(3, 3)
        (True, False)
        """
        was_killed = self.status == -signal.SIGKILL
        return self._names_memory or (was_killed and n_oom_kills_after > n_oom_kills_before)

    def with_failed_fallback(self, message: str) -> WorkerEnd:
        """Return it with a fallback that did not help."""
        return replace(self, how=f"{self.how}, also {message}")

    @property
    def _names_memory(self) -> bool:
        return _NO_MEMORY.search(f"{self.how} {self.line}") is not None


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
    >>> context_line(["CUDA error: no kernel image is available", "ggml-cuda.cu:109: CUDA error"])
    'CUDA error: no kernel image is available'
    """
    aborts = [line for line in lines if _ABORT_LINE.search(line)]
    no_memory = [line for line in lines if _NO_MEMORY.search(line)]
    return (no_memory or aborts or list(lines) or [""])[-1]


def end_of_process(status: int, phase: str, lines: Sequence[str] = ()) -> WorkerEnd:
    """Return how a process of llama.cpp ended, by its exit status and the last lines of its log."""
    return WorkerEnd(f"{exit_status_text(status)} while {phase}", status, context_line(lines))
