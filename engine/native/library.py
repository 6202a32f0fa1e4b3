"""What this build of llama.cpp is, and what it says."""

from __future__ import annotations

import sys

import llama_cpp.llama_cpp as lib


def quiet_logs() -> None:
    """Keep llama.cpp's messages below warnings off stderr."""
    lib.llama_log_set(LOG_CALLBACK, None)


def _warnings_only(level: int, text: bytes, _data: object) -> None:
    # GGML_LOG_LEVEL_WARN is 3, ERROR 4; CONT (5) continues a line whose level is not told.
    if level in (3, 4):
        sys.stderr.write(text.decode("utf-8", errors="replace"))
        sys.stderr.flush()


# Kept here, because llama.cpp holds only the address.
LOG_CALLBACK = lib.llama_log_callback(_warnings_only)


def supports_gpu() -> bool:
    """Tell whether this build of llama.cpp can use a graphics device."""
    return bool(lib.llama_supports_gpu_offload())


def version() -> str:
    """Give llama.cpp's build and the features that it was compiled with."""
    return str(lib.llama_print_system_info().decode(errors="replace"))
