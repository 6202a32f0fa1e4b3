"""What `tuner` orders of the process that makes a copy, and what that answers."""

from __future__ import annotations

from pathlib import Path

from paddock.engine.system.records import Struct

from .tuned_copies import TunedCopy


class CopyOrder(Struct, frozen=True):
    model: TunedCopy
    """Record of the model, without a copy."""
    target: Path
    """Where a copy for llama.cpp is written."""
    format: str
    names: list[str]
    """Matrices that have this format in the copy; none: llama.cpp gets no copy."""
    ir: Path | None
    """Where the weights for OpenVINO are written; None: it gets none."""
    n_threads: int
    fallback: int
    texts: tuple[str, ...]
    """On which copy and original are compared."""


class CopyAnswer(Struct, frozen=True):
    copy: TunedCopy | None = None
    """The record with the fastest copy, whose file is where it was written, or with why none is."""
    not_now: str = ""
    """Why the copy could not be written."""
