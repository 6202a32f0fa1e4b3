"""How much a run may cost, and whether it has. Pure: no clock, no tally.

What is counted is what the run itself has spent: replies from the ledger cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

_MINUTE_S, _HOUR_S = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a run may spend; None: no limit."""

    time_s: float | None = None
    tokens: int | None = None
    """Of prompts and answers together."""


def reached(budget: Budget, spent_s: float, n_tokens: int) -> str | None:
    """Say that nothing more may begin, without a full stop; None while something may.

    >>> reached(Budget(time_s=7200, tokens=5000), 60.0, 5012)
    'The budget of 5,000 tokens is used up (5,012 so far)'
    >>> reached(Budget(time_s=7200), 7200.0, 1)
    'The budget of 2 h is used up'
    >>> reached(Budget(time_s=7200, tokens=5000), 60.0, 4999)
    """
    if budget.tokens is not None and n_tokens >= budget.tokens:
        return f"The budget of {budget.tokens:,} tokens is used up ({n_tokens:,} so far)"
    if budget.time_s is not None and spent_s >= budget.time_s:
        return f"The budget of {_shown(budget.time_s)} is used up"
    return None


def _shown(seconds: float) -> str:
    if seconds >= _HOUR_S:
        return f"{seconds / _HOUR_S:g} h"
    if seconds >= _MINUTE_S:
        return f"{seconds / _MINUTE_S:g} min"
    return f"{seconds:g} s"
