"""Whether an order whose run has ended is started again. Pure.

A crash ends a process, not a run: the next start goes on from the ledger. A run that failed said
why, and is not started again.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from paddock.engine.system.light_dataclasses import dataclass
from paddock.engine.system.retry import Backoff

RESTART_BACKOFF = Backoff(first_s=5.0, longest_s=300.0, factor=3.0)

StopReason = Literal["window", "cancelled", "suspended", "shutdown"]
"""Why a run was asked to stop."""
_GOES_ON = {
    "window": "continues in its window",  # due at once: it is held as all runs are
    "shutdown": "continues after the end of `paddock up`",
}


@dataclass(frozen=True, slots=True)
class Restart:
    """The next start of an order."""

    at: datetime
    attempt: int
    words: str


def restart_after_crash(
    crash: str, attempt: int, now: datetime, *, max_restarts: int
) -> Restart | None:
    """Return the next start; None: it crashed once too often.

    The caller counts only starts that made no progress: others come to their end, since the ledger
    bounds how often an item may end a run (`RunStore.has_progressed`).
    """
    if attempt > max_restarts:
        return None
    words = f"{crash}; start {attempt + 1} of at most {max_restarts + 1}"
    return Restart(now + timedelta(seconds=RESTART_BACKOFF.pause_s(attempt)), attempt + 1, words)


def restart_after_stop(
    status: str, stopped: StopReason | None, attempt: int, now: datetime
) -> Restart | None:
    """Return the next start of a run with this status; None: it has ended."""
    words = _GOES_ON.get(stopped or "")
    if words is None or status not in ("interrupted", "budget", "suspended"):
        return None
    return Restart(now, attempt, words)
