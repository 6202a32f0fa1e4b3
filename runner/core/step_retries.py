"""Retries of a step within a run: how often, for which causes, and after which pause. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from paddock.engine.errors import Busy, DeadlineExceeded, EngineError, WorkerLost
from paddock.pipelines.keys import RetryKeys
from paddock.steps.base import StepError

MAX_RETRY_PAUSE_S = 60.0
# A full queue is not the document's fault: by default it is retried for 1 + 2 + 4 + 8 + 16 s.
MAX_BUSY_RETRIES, DEFAULT_BACKOFF_S = 5, 1.0

# How a pause grows with each turn. After a deadline the time has passed already, and a failed
# check asks again with its faults: there is nothing to wait for.
_GROWTH: Mapping[str, float] = MappingProxyType({"timeout": 1.0, "check": 0.0})
_DEFAULT_GROWTH = 2.0


def times(retry: RetryKeys | None, cause: str) -> int:
    """Return how often a step is retried after a failure of this cause.

    >>> times(None, "busy"), times(None, "timeout")
    (5, 0)
    >>> given = RetryKeys.model_validate({"times": 2})
    >>> times(given, "busy"), times(given, "io")
    (2, 0)
    """
    if retry is None:
        return MAX_BUSY_RETRIES if cause == "busy" else 0
    return retry.times if cause in retry.on else 0


def retry_pause_s(retry: RetryKeys | None, cause: str, turn: int, chance: float) -> float:
    """Return the pause after try `turn`; `chance`, 0 to 1, spreads those that failed at once.

    >>> [retry_pause_s(None, "busy", turn, 1.0) for turn in (0, 1, 2, 9)]
    [1.0, 2.0, 4.0, 60.0]
    >>> retry_pause_s(None, "busy", 2, 0.0)
    2.0
    >>> retry_pause_s(None, "timeout", 2, 1.0), retry_pause_s(None, "check", 2, 1.0)
    (1.0, 0.0)
    """
    backoff_s = DEFAULT_BACKOFF_S if retry is None else retry.backoff
    growth = _GROWTH.get(cause, _DEFAULT_GROWTH)
    whole = min(backoff_s * growth**turn, MAX_RETRY_PAUSE_S) if growth else 0.0
    return whole * (0.5 + chance / 2)


def cause_of(error: StepError | EngineError) -> str:
    """Return the name of an error in `retry.on`."""
    if isinstance(error, StepError):
        return error.kind
    if isinstance(error, DeadlineExceeded):
        return "timeout"
    if isinstance(error, WorkerLost):
        return "worker"
    return "busy" if isinstance(error, Busy) else "other"
