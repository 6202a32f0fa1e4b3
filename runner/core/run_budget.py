"""Budget of a run: its limits on time and tokens, what it has spent, and whether they are reached.

Replies from the ledger cost nothing.
"""

from __future__ import annotations

import time

from paddock.engine.system.records import record
from paddock.engine.system.units import duration
from paddock.pipelines.triggers import BudgetKeys

from .run_context import RunContext


@record(frozen=True, slots=True)
class Spent:
    seconds: float
    tokens: int
    n_ended: int = 0
    n_in_flight: int = 0

    @property
    def expected_tokens(self) -> float:
        """Return the total once the items in flight are done; on average they are half done.

        >>> Spent(0.0, 900, n_ended=8, n_in_flight=2).expected_tokens
        1000.0
        """
        n_done = self.n_ended + self.n_in_flight / 2
        return self.tokens * (1 + self.n_in_flight / 2 / n_done) if n_done else self.tokens


def budget_reached(budget: BudgetKeys, spent: Spent) -> str | None:
    """Return the message that no more items may begin, without a full stop, or None.

    >>> budget = BudgetKeys.model_validate({"time": "2h", "tokens": "5k"})
    >>> budget_reached(budget, Spent(60.0, 4800, n_ended=16, n_in_flight=4))
    'The budget of 5,120 tokens is used up'
    >>> budget_reached(budget, Spent(7200.0, 1))
    'The budget of 2 h is used up'
    >>> budget_reached(budget, Spent(60.0, 5119))
    """
    if budget.tokens is not None and spent.expected_tokens >= budget.tokens:
        return f"The budget of {budget.tokens:,} tokens is used up"
    if budget.time is not None and spent.seconds >= budget.time:
        return f"The budget of {duration(budget.time)} is used up"
    return None


class BudgetMeter:
    def __init__(self, context: RunContext) -> None:
        self._stats = context.stats
        self._budget = context.bound.budget
        self._stop_gate = context.stop_gate
        self._began = time.monotonic()

    async def reached(self) -> str | None:
        """Return why nothing more may begin; None while something may."""
        seconds, (n_ended, n_in_flight) = time.monotonic() - self._began, self._stop_gate.items
        spent = Spent(seconds, self._stats.n_tokens, n_ended, n_in_flight)
        return budget_reached(self._budget, spent)
