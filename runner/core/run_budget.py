"""Budget of a run: its limits on time and tokens, what it has spent, and whether they are reached.

Replies from the ledger cost nothing.
"""

from __future__ import annotations

import time

from paddock.engine.system.units import duration

from .run_context import RunContext


class BudgetMeter:
    def __init__(self, context: RunContext) -> None:
        self._stats = context.stats
        self._budget = context.bound.budget
        self._stop_gate = context.stop_gate
        self._began = time.monotonic()

    async def reached(self) -> str | None:
        """Return the message that no more items may begin, without a full stop, or None.

        The tokens are those spent once the items in flight are done; on average they are half done.
        """
        budget, tokens = self._budget, float(self._stats.n_tokens)
        n_ended, n_in_flight = self._stop_gate.items
        if n_done := n_ended + n_in_flight / 2:
            tokens *= 1 + n_in_flight / 2 / n_done
        if budget.tokens is not None and tokens >= budget.tokens:
            return f"The budget of {budget.tokens:,} tokens is used up"
        if budget.time is not None and time.monotonic() - self._began >= budget.time:
            return f"The budget of {duration(budget.time)} is used up"
        return None
