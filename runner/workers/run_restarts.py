"""Restarts of a run whose process crashed: how often, and after which pause. Pure.

A crash ends a process, not a run: the next start goes on from the ledger. A run that failed said
why, and is not started again.
"""

from __future__ import annotations

from paddock.engine.system.light_dataclasses import dataclass
from paddock.engine.system.retry import Backoff

RESTART_BACKOFF = Backoff(first_s=5.0, longest_s=300.0, factor=3.0)


@dataclass(frozen=True, slots=True)
class Restart:
    """Start again, as this attempt, after a pause."""

    attempt: int
    pause_s: float


def next_restart(attempt: int, max_restarts: int, *, has_progressed: bool) -> Restart | None:
    """Return the restart after a crash of this attempt, counted from 1; None: give up.

    A start that made progress is not counted: such a run comes to its end, since the ledger bounds
    how often an item may end it (`RunStore.has_progressed`).

    >>> next_restart(1, 3, has_progressed=False), next_restart(4, 3, has_progressed=False)
    (Restart(attempt=2, pause_s=5.0), None)
    >>> next_restart(4, 3, has_progressed=True)
    Restart(attempt=2, pause_s=5.0)
    """
    attempt = 1 if has_progressed else attempt
    if attempt > max_restarts:
        return None
    return Restart(attempt + 1, RESTART_BACKOFF.pause_s(attempt))
