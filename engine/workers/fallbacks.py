"""Fallbacks: features of llama.cpp that a model goes without after they crashed its worker.

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
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.llama.build import find_build
from paddock.engine.profile.profile import device_slug
from paddock.engine.system import files
from paddock.engine.system.distribution import is_clone
from paddock.engine.system.hardware import read_cpu
from paddock.engine.system.records import Struct, asdict, known_record, replace

if TYPE_CHECKING:  # it imports NumPy, which `plan` and `list` do without
    from .worker_protocol import WorkerOptions

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


class Fallback(Struct, frozen=True):
    model: str
    """Name of its file."""
    fallback: int
    reason: str


class FallbackStore:
    """The fallbacks for this build, processor and graphics device, if any."""

    def __init__(self, cache_dir: Path, gpu: str = "") -> None:
        self._build = find_build().fingerprint
        self._processor = device_slug(read_cpu().name) + (f" {device_slug(gpu)}" if gpu else "")
        key = hashlib.sha256(f"{self._build} {self._processor}".encode()).hexdigest()[:_KEY_CHARS]
        self.file = cache_dir / "profiles" / f"fallbacks-{key}.json"

    def all(self) -> dict[str, Fallback]:
        data = files.read_json_object(self.file)
        if (data.get("build"), data.get("processor")) != (self._build, self._processor):
            return {}
        return known_record(dict[str, Fallback], data.get("models")) or {}

    def find(self, digest: str) -> Fallback | None:
        known = self.all()
        own = known.get(digest[:_DIGEST_CHARS])
        if own is not None or not known:
            return own
        other = next(iter(known.values()))
        return Fallback(other.model, 1, other.reason)

    def keep(self, digest: str, needed: Fallback) -> None:
        models = {**self.all(), digest[:_DIGEST_CHARS]: needed}
        fields = {name: asdict(fallback) for name, fallback in models.items()}
        data = {"build": self._build, "processor": self._processor, "models": fields}
        with suppress(OSError):  # a folder that cannot be written
            files.write_json_atomically(self.file, data)


def describe_crash_fallback(fallback: int, reason: str) -> str:
    """Describe a fallback for people: why it is used, what a sound build gains, how to get one."""
    why = f"because its worker was {reason}"
    return f"runs {fallback_words(fallback)}, {why}. {sound_build_gain()}: {rebuild_command()}"


def sound_build_gain() -> str:
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
