"""Whether a run that crashed is started again, and when. Pure.

A crash is the end of a process, not of a run: the ledger has what was done, and the next start goes
on from there. A run that failed said why, and is not started again.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 300.0


@dataclass(frozen=True, slots=True)
class Again:
    """Start it once more, as this attempt, after a pause."""

    attempt: int
    pause_s: float


def again(attempt: int, max_restarts: int) -> Again | None:
    """Tell what follows the crash of this attempt, the first being 1; None: enough is enough.

    >>> again(1, 3), again(4, 3)
    (Again(attempt=2, pause_s=5.0), None)
    """
    if attempt > max_restarts:
        return None
    pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 3.0 ** (attempt - 1))
    return Again(attempt + 1, pause_s)
