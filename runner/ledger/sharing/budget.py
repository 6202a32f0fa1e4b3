"""Budget of a run: its limits on time and tokens, and whether they are reached. Pure.

Counts what the run has spent on all machines together. Replies from the ledger cost nothing.
"""

from __future__ import annotations

from paddock.engine.system.light_dataclasses import dataclass
from paddock.engine.system.units import duration
from paddock.pipelines.triggers import BudgetKeys


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run has spent so far, and on how many items."""

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

    def along_with(self, others: Spent) -> Spent:
        """Return what several machines have spent together, in the longest of their times.

        >>> Spent(3.0, 10, 1, 1).along_with(Spent(5.0, 20, 2))
        Spent(seconds=5.0, tokens=30, n_ended=3, n_in_flight=1)
        """
        return Spent(
            max(self.seconds, others.seconds),
            self.tokens + others.tokens,
            self.n_ended + others.n_ended,
            self.n_in_flight + others.n_in_flight,
        )


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
