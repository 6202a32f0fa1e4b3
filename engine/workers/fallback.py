"""Fallbacks: what a worker goes without after llama.cpp crashed, and which this machine needs.

A build of llama.cpp may be broken for the processor that it runs on: GCC 12 drops stores that
configure AMX tiles, for example, and the first decode dies (llama.cpp#20824). Each fallback is a
number: 0 is none, 1 is without extra buffer types, 2 also without flash attention, 3 also with one
thread.

What is needed is remembered beside the profiles, for a build of llama.cpp and a processor: after
another build nothing is known. Extra buffer types are the processor's matter, so all models go
without them once one has crashed with them; the other fallbacks are remembered for each model.
No llama_cpp.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from paddock.engine.hardware import read_cpu
from paddock.engine.native.build import find_build
from paddock.engine.profile.store import slug, write_json
from paddock.engine.system.distribution import is_clone

from .load import Load

MOST = 3
_WORDS = (
    "",
    "without extra buffer types",
    "without extra buffer types and flash attention",
    "without extra buffer types and flash attention, with one thread",
)
_DIGEST_CHARS, _KEY_CHARS = 12, 8
# Measured on a Xeon with AMX: 1,450 against 360 tokens a second, SmolLM2 Q4_1, 2 cores.
_AMX_GAIN = "Prompts would be read about 4 times as fast by a sound build"
_GAIN = "A sound build would be faster"


def with_fallback(load: Load, fallback: int) -> Load:
    """Return a load as it is under a fallback."""
    if fallback >= 2:
        # A cache in q8_0 needs flash attention.
        load = replace(load, flash_attention="off", kv_cache_type="f16")
    if fallback >= 3:
        load = replace(load, n_threads=1)
    return replace(load, fallback=fallback)


def next_fallback(load: Load, fallback: int) -> int | None:
    """Return the next fallback that changes something about a load; None: there is none.

    >>> load = Load("x.gguf", "chat", 2048, 8192, 4, 512, n_threads=1, flash_attention="off")
    >>> next_fallback(load, 0), next_fallback(load, 1)
    (1, None)
    """
    now = with_fallback(load, fallback)
    for higher in range(fallback + 1, MOST + 1):
        if higher == 1 or replace(with_fallback(load, higher), fallback=fallback) != now:
            return higher
    return None


def without(fallback: int) -> str:
    """Return what a fallback gives up, for people.

    >>> without(1)
    'without extra buffer types'
    """
    return _WORDS[fallback]


@dataclass(frozen=True, slots=True)
class Fallback:
    """What one model needed."""

    model: str
    """Name of its file."""
    fallback: int
    reason: str
    """How its worker died."""


class FallbackBook:
    """Reads and writes the fallbacks of this build, processor and graphics device, if any."""

    def __init__(self, cache_dir: Path, gpu: str = "") -> None:
        self._build = find_build().fingerprint
        self._processor = slug(read_cpu().name) + (f" {slug(gpu)}" if gpu else "")
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


def note(fallback: int, reason: str) -> str:
    """Return what a model goes without and why, what a sound build gains, and how to get one."""
    why = f"because its worker was {reason}"
    return f"runs {without(fallback)}, {why}. {gain()}: {rebuild()}"


def gain() -> str:
    """Return what a sound build would gain on this processor."""
    return _AMX_GAIN if has_amx() else _GAIN


def has_amx() -> bool:
    """Return whether this processor has AMX, whose tiles broken builds do not configure."""
    return any(feature.startswith("amx") for feature in read_cpu().features)


def rebuild() -> str:
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
