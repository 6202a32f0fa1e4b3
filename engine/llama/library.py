"""Load llama.cpp and its backends, and describe what was loaded.

The only module that imports llama_cpp itself; the others take `lib` from here. The order of its
lines matters: llama_cpp decides in its first import where it looks for its libraries, so the
variable LLAMA_CPP_LIB_PATH is set before it. A build with one library for each kind of processor
has no backend until `ggml_backend_load_all_from_path` is called.
"""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .build import LlamaBuild, find_build
from .diagnostics import LlamaLog


def _name_folder(build: LlamaBuild) -> None:
    """Point llama_cpp to the libraries, unless they are its own."""
    if build.origin == "llama-cpp-python":
        return
    os.environ["LLAMA_CPP_LIB_PATH"] = str(build.folder)
    if any("mtmd" in file.name for file in build.files):
        os.environ.setdefault("MTMD_CPP_LIB", str(build.folder))


BUILD = find_build()
_name_folder(BUILD)

import llama_cpp.llama_cpp as lib  # noqa: E402 - the variable counts from here on
from llama_cpp._ctypes_extensions import load_shared_library  # noqa: E402

__all__ = [
    "BUILD",
    "LOG",
    "LOG_CALLBACK",
    "Loaded",
    "describe",
    "lib",
    "quiet_logs",
    "supports_gpu",
]

# By path: llama_cpp's own handle knows only the folder inside its package.
_ggml = load_shared_library("ggml", BUILD.folder)
_base = load_shared_library("ggml-base", BUILD.folder)


def ggml_function(name: str, result: Any, *arguments: Any) -> Any:
    """Return a function of ggml that llama-cpp-python does not bind."""
    # On Windows a handle knows its own library's functions only.
    found = getattr(_ggml if hasattr(_ggml, name) else _base, name)
    found.restype, found.argtypes = result, arguments
    return found


def _load_backends() -> None:
    """Load backends that are libraries of their own; the best variant for this processor."""
    load = ggml_function("ggml_backend_load_all_from_path", None, ctypes.c_char_p)
    load(os.fsencode(BUILD.folder))


LOG = LlamaLog()
# Kept here, because llama.cpp holds only the address.
LOG_CALLBACK = lib.llama_log_callback(LOG)


def quiet_logs() -> None:
    """Keep llama.cpp's messages below warnings off stderr."""
    lib.llama_log_set(LOG_CALLBACK, None)


if ggml_function("ggml_backend_reg_count", ctypes.c_size_t)() == 0:
    quiet_logs()
    _load_backends()


def supports_gpu() -> bool:
    """Return whether this build of llama.cpp can use a graphics device."""
    return bool(lib.llama_supports_gpu_offload())


@dataclass(frozen=True, slots=True)
class Loaded:
    """What llama.cpp is in this process."""

    supports_gpu: bool
    features: tuple[str, ...]
    """Of the processor, as far as the build uses them."""
    variant: str
    """The processor that the chosen library is for, as in `zen4`; empty where there is but one."""
    unusable: tuple[str, ...]
    """Graphics backends whose library cannot be loaded, each with the system's reason."""


def describe() -> Loaded:
    """Return what was loaded."""
    system_info = lib.llama_print_system_info().decode(errors="replace")
    features = tuple(re.findall(r"(\w+) = 1\b", system_info))
    return Loaded(supports_gpu(), features, _variant(), tuple(_unusable()))


def _variant() -> str:
    """Return the variant with the highest score, which is the one that ggml loads."""
    best, best_score = "", 0
    for file in BUILD.files:
        found = re.match(r"(?:lib)?ggml-cpu-(\w+)\.", file.name)
        if found and (score := _score(file)) > best_score:
            best, best_score = found.group(1), score
    return best


def _score(file: Path) -> int:
    """Return 0 for a library that this processor cannot run."""
    score = ctypes.CDLL(str(file)).ggml_backend_score
    score.restype = ctypes.c_int
    return int(score())


def _unusable() -> list[str]:
    """Try each graphics library that is one of its own: ggml says nothing about failures."""
    reasons = []
    for backend in BUILD.backends:
        files = [file for file in BUILD.files if f"ggml-{backend}." in file.name]
        try:
            ctypes.CDLL(str(files[0]))
        except OSError as error:
            reasons.append(f"{backend}: {error}")
    return reasons
