"""When a failed step is tried again, and when an item is given up. Pure: no clock, no dice.

A failure is passing where another try may well succeed with nothing changed: a deadline, a lost
worker, a full queue, a disk or a network folder that said no. What is wrong with the document
itself is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from .binding.bound import Retry

PASSING = frozenset(("timeout", "worker", "busy", "io"))
MISSING = "missing"
"""This machine lacks a package or a program: never the item's fault, however often it is tried."""

MOST_PAUSE_S = 60.0
# A full queue is nobody's fault, least of all the document's: without a word from the author it is
# waited out for some 1 + 2 + 4 + 8 + 16 s.
BUSY_TIMES = 5

# How a pause grows with each turn. After a deadline the time has passed already, and a failed
# check asks anew with what was wrong: there is nothing to let rest.
_GROWTH: Mapping[str, float] = MappingProxyType({"timeout": 1.0, "check": 0.0})
_DOUBLES = 2.0

Kept = Literal["failed", "quarantined"]


def times(retry: Retry, cause: str) -> int:
    """Tell how often a step is tried again after a failure of this cause.

    >>> times(Retry(), "busy"), times(Retry(), "timeout")
    (5, 0)
    >>> times(Retry(times=2, is_given=True), "busy"), times(Retry(times=2, is_given=True), "io")
    (2, 0)
    """
    if not retry.is_given and cause == "busy":
        return BUSY_TIMES
    return retry.times if cause in retry.on else 0


def pause_s(cause: str, turn: int, backoff_s: float, chance: float) -> float:
    """Give the pause after turn `turn`; `chance`, 0 to 1, spreads those that failed at once.

    >>> [pause_s("busy", turn, 1.0, 1.0) for turn in (0, 1, 2, 9)]
    [1.0, 2.0, 4.0, 60.0]
    >>> pause_s("busy", 2, 1.0, 0.0), pause_s("timeout", 2, 1.0, 1.0), pause_s("check", 2, 1.0, 1.0)
    (2.0, 1.0, 0.0)
    """
    growth = _GROWTH.get(cause, _DOUBLES)
    whole = min(backoff_s * growth**turn, MOST_PAUSE_S) if growth else 0.0
    return whole * (0.5 + chance / 2)


def given_up(n_before: int, most: int, cause: str) -> tuple[Kept, int]:
    """Return how a failed item is kept, and how often in a row it has failed for a passing cause.

    `failed` is tried again by the next run; `quarantined` only when it, or what is done with it,
    has changed, or when somebody asks for it.

    >>> given_up(1, 3, "io"), given_up(2, 3, "io"), given_up(1, 3, "other")
    (('failed', 2), ('quarantined', 3), ('quarantined', 0))
    >>> given_up(0, 3, "missing"), given_up(2, 3, "missing")
    (('failed', 1), ('failed', 2))
    """
    if cause == MISSING:
        return "failed", max(n_before, 1)  # above zero: an item around it is tried again as well
    if cause not in PASSING:
        return "quarantined", 0
    n_now = n_before + 1
    return ("quarantined" if n_now >= most else "failed"), n_now
