"""Crashes of workers: exit reasons, and the fallbacks that a model needs after a crash.

Imports no llama_cpp. A build of llama.cpp may be broken for the processor that it runs on: GCC 12
drops stores that configure AMX tiles, for example, and the first decode dies (llama.cpp#20824).
Each fallback is a number: 0 is none, 1 is without extra buffer types, 2 also without flash
attention, 3 also with one thread.

What is needed is stored beside the profiles, for a build of llama.cpp and a processor: after
another build nothing is known. Extra buffer types are the processor's matter, so all models go
without them once one has crashed with them; the other fallbacks are stored for each model.
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from paddock.engine.llama.build import find_build
from paddock.engine.profile.profile_store import device_slug, write_json
from paddock.engine.system.distribution import is_clone
from paddock.engine.system.hardware import read_cpu

from .worker_options import WorkerOptions

# What llama.cpp, its backends and the C++ library say (vendor/llama.cpp: ggml-backend.cpp,
# ggml-cuda.cu, llama-kv-cache.cpp, llama-model.cpp).
_NO_MEMORY = re.compile(
    r"out of memory|failed to allocate|unable to allocate|cudaMalloc failed|bad_alloc|MemoryError"
    r"|alloc_tensor_range|ErrorOutOf(Device|Host)Memory|cannot allocate memory|insufficient memory",
    re.IGNORECASE,
)
# What llama.cpp writes before it aborts; a stack trace of some twenty lines follows.
_ABORT_LINE = re.compile(r"GGML_ASSERT|GGML_ABORT|fatal error")

# What a person, an init system or a supervisor sends.
_KILLED_BY_OTHERS = re.compile(r"killed by SIG(HUP|INT|KILL|TERM)\b")
# What code that cannot be computed here ends by.
_KILLED_BY_CRASH = re.compile(r"killed by SIG(SEGV|ILL|ABRT|BUS|FPE)\b")

_LAST_LINE_PREFIX = " (llama.cpp's last line: "


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
    """Return the line of a log that best explains a death: one that names a failure, or the last.

    Want of memory is told before its consequences: an abort, a stack trace, Python's traceback.

    >>> context_line(["GGML_ASSERT(x) failed", "libggml.so(+0x1)"]), context_line(["a", "b"])
    ('GGML_ASSERT(x) failed', 'b')
    """
    aborts = [line for line in lines if _ABORT_LINE.search(line)]
    no_memory = [line for line in lines if _NO_MEMORY.search(line)]
    return (no_memory or aborts or list(lines) or [""])[-1]


def death_reason(status: int, phase: str, lines: Sequence[str] = ()) -> str:
    """Return how and in which phase a worker died; a line of llama.cpp's log is only context.

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
    """Return a reason with what did not help, before llama.cpp's line.

    >>> with_failed_fallback("killed by SIGSEGV while idle (llama.cpp's last line: x)", "without y")
    "killed by SIGSEGV while idle, also without y (llama.cpp's last line: x)"
    """
    how = without_context(reason)
    return f"{how}, also {words}{reason[len(how) :]}"


def was_ended_by_others(reason: str) -> bool:
    """Return whether another program ended a worker, so that a new one may well succeed.

    >>> [was_ended_by_others(f"killed by {name} while idle") for name in ("SIGKILL", "SIGSEGV")]
    [True, False]
    """
    return _KILLED_BY_OTHERS.match(reason) is not None


def has_crashed(reason: str) -> bool:
    """Return whether the worker's own code killed it; running out of memory is not meant.

    >>> [has_crashed(f"killed by {name} while idle") for name in ("SIGILL", "SIGKILL")]
    [True, False]
    >>> has_crashed("killed by SIGABRT while loading (llama.cpp's last line: std::bad_alloc)")
    False
    """
    return _KILLED_BY_CRASH.match(reason) is not None and not _NO_MEMORY.search(reason)


def ran_out_of_memory(reason: str, n_oom_kills_before: int, n_oom_kills_after: int) -> bool:
    """Return whether memory ran out: by llama.cpp's words, or by the kernel's count of its kills.

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
    """Return a load as it is under a fallback."""
    if fallback >= 2:
        # A cache in q8_0 needs flash attention.
        load = replace(load, flash_attention="off", kv_cache_type="f16")
    if fallback >= 3:
        load = replace(load, n_threads=1)
    return replace(load, fallback=fallback)


def next_fallback(load: WorkerOptions, fallback: int) -> int | None:
    """Return the next fallback that changes something about a load; None: there is none.

    >>> load = WorkerOptions("x.gguf", "chat", 2048, 8192, 4, 512, n_threads=1, flash_attention="off")
    >>> next_fallback(load, 0), next_fallback(load, 1)
    (1, None)
    """
    now = with_fallback(load, fallback)
    for higher in range(fallback + 1, MOST_FALLBACK + 1):
        if higher == 1 or replace(with_fallback(load, higher), fallback=fallback) != now:
            return higher
    return None


def fallback_words(fallback: int) -> str:
    """Return what a fallback gives up, for people.

    >>> fallback_words(1)
    'without extra buffer types'
    """
    return _FALLBACK_WORDS[fallback]


@dataclass(frozen=True, slots=True)
class Fallback:
    """What one model needed."""

    model: str
    """Name of its file."""
    fallback: int
    reason: str
    """How its worker died."""


class FallbackStore:
    """Reads and writes the fallbacks of this build, processor and graphics device, if any."""

    def __init__(self, cache_dir: Path, gpu: str = "") -> None:
        self._build = find_build().fingerprint
        self._processor = device_slug(read_cpu().name) + (f" {device_slug(gpu)}" if gpu else "")
        key = hashlib.sha256(f"{self._build} {self._processor}".encode()).hexdigest()[:_KEY_CHARS]
        self.file = cache_dir / "profiles" / f"fallbacks-{key}.json"

    def all(self) -> dict[str, Fallback]:
        """Return what each model needed, by the beginning of its digest."""
        try:
            told = json.loads(self.file.read_text("utf-8"))
            if (told["build"], told["processor"]) != (self._build, self._processor):
                return {}
            return {digest: Fallback(**fields) for digest, fields in told["models"].items()}
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return {}

    def find(self, digest: str) -> Fallback | None:
        """Return what a model needs, as far as is known; None: nothing."""
        known = self.all()
        own = known.get(digest[:_DIGEST_CHARS])
        if own is not None or not known:
            return own
        other = next(iter(known.values()))
        return Fallback(other.model, 1, other.reason)

    def keep(self, digest: str, needed: Fallback) -> None:
        """Remember what a model needed."""
        models = {**self.all(), digest[:_DIGEST_CHARS]: needed}
        told = {name: asdict(one) for name, one in models.items()}
        data = {"build": self._build, "processor": self._processor, "models": told}
        write_json(self.file, data)


def fallback_sentence(fallback: int, reason: str) -> str:
    """Return what a model goes without and why, what a sound build gains, and how to get one."""
    why = f"because its worker was {reason}"
    return f"runs {fallback_words(fallback)}, {why}. {sound_build_gain()}: {rebuild_command()}"


def sound_build_gain() -> str:
    """Return what a sound build would gain on this processor."""
    return _AMX_GAIN if has_amx() else _GAIN


def has_amx() -> bool:
    """Return whether this processor has AMX, whose tiles broken builds do not configure."""
    return any(feature.startswith("amx") for feature in read_cpu().features)


def rebuild_command() -> str:
    """Return the line that builds llama.cpp again, and never takes an old wheel from a cache."""
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
