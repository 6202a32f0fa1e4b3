"""Crashes of workers: exit reasons, and the fallbacks that a model needs after a crash.

Imports no llama_cpp. A build of llama.cpp may be broken for its processor: GCC 12, for one, drops
stores that configure AMX tiles, and the first decode crashes (llama.cpp#20824). A fallback is a
number: 0 is none, 1 is without extra buffer types, 2 also without flash attention, 3 also with one
thread.

Fallbacks are stored next to the profiles, for a build of llama.cpp and a processor; a new build
starts without any. Extra buffer types depend on the processor alone, so all models go without them
once one has crashed with them; the other fallbacks are stored for each model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.llama.build import find_build
from paddock.engine.profile.profile import device_slug, write_json
from paddock.engine.system import files
from paddock.engine.system.distribution import is_clone
from paddock.engine.system.hardware import read_cpu
from paddock.engine.system.processes import how_it_ended

if TYPE_CHECKING:  # it imports NumPy, which `plan` and `list` do without
    from .worker_protocol import WorkerOptions

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
    shown = ", ".join(str(one) for one in request_ids[:3])
    more = f" and {len(request_ids) - 3} more" if len(request_ids) > 3 else ""
    return f"answering request{'s' if len(request_ids) > 1 else ''} {shown}{more}"


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


MOST_FALLBACK = 3
_FALLBACK_WORDS = (
    "",
    "without extra buffer types",
    "without extra buffer types and flash attention",
    "without extra buffer types and flash attention, with one thread",
)
_DIGEST_CHARS, _KEY_CHARS = 12, 8
# Measured on a Xeon with AMX: 1,450 against 360 tokens a second, SmolLM2 Q4_1, 2 cores.
_AMX_GAIN = "Prompts would be read about 4 times as fast by a sound build"
_GAIN = "A sound build would be faster"


def with_fallback(load: WorkerOptions, fallback: int) -> WorkerOptions:
    """Return a worker's options with a fallback applied."""
    if fallback >= 2:
        # A quantised cache needs flash attention.
        load = replace(load, flash_attention="off", kv_cache_type="f16")
    if fallback >= 3:
        load = replace(load, n_threads=1)
    return replace(load, fallback=fallback)


def next_fallback(load: WorkerOptions, fallback: int) -> int | None:
    """Return the next fallback that changes a worker's options; None if there is none.

    >>> from paddock.engine.workers.worker_protocol import WorkerOptions
    >>> load = WorkerOptions("x.gguf", "chat", 2048, 8192, 4, 512, 1, flash_attention="off")
    >>> next_fallback(load, 0), next_fallback(load, 1)
    (1, None)
    """
    now = with_fallback(load, fallback)
    for higher in range(fallback + 1, MOST_FALLBACK + 1):
        if higher == 1 or replace(with_fallback(load, higher), fallback=fallback) != now:
            return higher
    return None


def fallback_words(fallback: int) -> str:
    """Describe a fallback for people.

    >>> fallback_words(1)
    'without extra buffer types'
    """
    return _FALLBACK_WORDS[fallback]


@dataclass(frozen=True, slots=True)
class Fallback:
    """The fallback of one model."""

    model: str
    """Name of its file."""
    fallback: int
    reason: str
    """How its worker died without it."""


class FallbackStore:
    """The fallbacks for this build, processor and graphics device, if any."""

    def __init__(self, cache_dir: Path, gpu: str = "") -> None:
        self._build = find_build().fingerprint
        self._processor = device_slug(read_cpu().name) + (f" {device_slug(gpu)}" if gpu else "")
        key = hashlib.sha256(f"{self._build} {self._processor}".encode()).hexdigest()[:_KEY_CHARS]
        self.file = cache_dir / "profiles" / f"fallbacks-{key}.json"

    def all(self) -> dict[str, Fallback]:
        """Return each model's fallback, by the first digits of its digest."""
        data = files.read_json_object(self.file)
        if (data.get("build"), data.get("processor")) != (self._build, self._processor):
            return {}
        try:
            return {digest: Fallback(**fields) for digest, fields in data["models"].items()}
        except (TypeError, LookupError, AttributeError):
            return {}

    def find(self, digest: str) -> Fallback | None:
        known = self.all()
        own = known.get(digest[:_DIGEST_CHARS])
        if own is not None or not known:
            return own
        other = next(iter(known.values()))
        return Fallback(other.model, 1, other.reason)

    def keep(self, digest: str, needed: Fallback) -> None:
        models = {**self.all(), digest[:_DIGEST_CHARS]: needed}
        fields = {name: asdict(one) for name, one in models.items()}
        data = {"build": self._build, "processor": self._processor, "models": fields}
        write_json(self.file, data)


def fallback_sentence(fallback: int, reason: str) -> str:
    """Describe a fallback for people: why it is used, what a sound build gains, how to get one."""
    why = f"because its worker was {reason}"
    return f"runs {fallback_words(fallback)}, {why}. {sound_build_gain()}: {rebuild_command()}"


def sound_build_gain() -> str:
    """Describe what a sound build would gain on this processor."""
    return _AMX_GAIN if has_amx() else _GAIN


def has_amx() -> bool:
    """Return whether this processor has AMX, which broken builds do not configure."""
    return any(feature.startswith("amx") for feature in read_cpu().features)


def rebuild_command() -> str:
    """Return the command that rebuilds llama.cpp without using a cached wheel."""
    build = find_build()
    if build.origin == "paddock-llama":
        return f"pip install --force-reinstall --no-cache-dir paddock-llama=={build.version}"
    devices = " ".join(f"-DGGML_{backend.upper()}=on" for backend in build.backends)
    setting = f"CMAKE_ARGS='{devices}' " if devices else ""
    if is_clone():  # its pyproject.toml has the other flag
        return f"{setting}uv sync --no-cache --reinstall-package llama-cpp-python"
    return (
        f"{setting}CXXFLAGS=-fno-dse pip install --force-reinstall --no-cache-dir "
        "--no-binary llama-cpp-python llama-cpp-python"
    )
