"""Budget of a run: its limits on time and tokens, what it has spent, and whether they are reached.

Replies from the ledger cost nothing.
"""

from __future__ import annotations

import time

from paddock.engine.system.units import duration
from paddock.pipelines.triggers import BudgetKeys

from .run_context import RunContext


def expected_tokens(tokens: int, n_ended: int, n_in_flight: int) -> float:
    """Return the total once the items in flight are done; on average they are half done.

    >>> expected_tokens(900, n_ended=8, n_in_flight=2)
    1000.0
    """
    n_done = n_ended + n_in_flight / 2
    return tokens * (1 + n_in_flight / 2 / n_done) if n_done else tokens


def budget_reached(budget: BudgetKeys, seconds: float, tokens: float) -> str | None:
    """Return the message that no more items may begin, without a full stop, or None.

    >>> budget = BudgetKeys.model_validate({"time": "2h", "tokens": "5k"})
    >>> budget_reached(budget, 60.0, 5120)
    'The budget of 5,120 tokens is used up'
    >>> budget_reached(budget, 7200.0, 1)
    'The budget of 2 h is used up'
    >>> budget_reached(budget, 60.0, 5119)
    """
    if budget.tokens is not None and tokens >= budget.tokens:
        return f"The budget of {budget.tokens:,} tokens is used up"
    if budget.time is not None and seconds >= budget.time:
        return f"The budget of {duration(budget.time)} is used up"
    return None


class BudgetMeter:
    def __init__(self, context: RunContext) -> None:
        self._stats = context.stats
        self._budget = context.bound.budget
        self._stop_gate = context.stop_gate
        self._began = time.monotonic()

    async def reached(self) -> str | None:
        tokens = expected_tokens(self._stats.n_tokens, *self._stop_gate.items)
        return budget_reached(self._budget, time.monotonic() - self._began, tokens)
