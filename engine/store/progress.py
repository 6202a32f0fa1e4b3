"""How far a pull, a push or a creation is: the lines that a client is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """One line. Sizes are bytes."""

    status: str
    """In Ollama's words: `pulling manifest`, `writing manifest`, `success`, …"""
    digest: str = ""
    """`sha256:…` of what is being moved; empty: the line is not about one blob."""
    total: int | None = None
    completed: int | None = None


Report = Callable[[Progress], None]
