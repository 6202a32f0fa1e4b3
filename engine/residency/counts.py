"""How often models were loaded: a plain number for whoever tells of a pool."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class LoadCount:
    """How often a model was loaded, and how long that took."""

    loads: int = 0
    load_s: float = 0.0
