"""What a run has spent of its budget, with what other machines have spent in the same run."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace

from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.sharing.budget import Spent, budget_reached

from .run_context import RunContext

SHARE_INTERVAL_S = 1.0


class BudgetMeter:
    """Counts what the run has spent, from now on. Lives in one loop."""

    def __init__(self, context: RunContext) -> None:
        self._stats = context.stats
        self._budget = context.bound.budget
        self._claims = context.claims if self._budget.is_set else None
        self._stop_gate = context.stop_gate
        self._began = time.monotonic()

    async def reached(self) -> str | None:
        """Return why nothing more may begin; None while something may.

        Raises:
            LedgerError: what other machines have spent is not known.
        """
        return budget_reached(self._budget, await self._spent(n_about_to_begin=1))

    async def share_spending(self) -> None:
        """Share what this machine has spent with others, every second and at the end."""
        if self._claims is None:
            return
        try:
            while True:
                await asyncio.sleep(SHARE_INTERVAL_S)
                with suppress(LedgerError):  # the next item or record raises it
                    await self._spent()
        finally:
            with suppress(LedgerError):
                await self._spent()

    async def _spent(self, n_about_to_begin: int = 0) -> Spent:
        seconds, (n_ended, n_in_flight) = time.monotonic() - self._began, self._stop_gate.items
        mine = Spent(seconds, self._stats.n_tokens, n_ended, n_in_flight)
        if self._claims is None:
            return mine
        # Another machine that asks now has to count the item that is about to begin.
        with_next = replace(mine, n_in_flight=n_in_flight + n_about_to_begin)
        others = await self._claims.spent_by_others(with_next)
        if others.n_ended or others.n_in_flight:
            self._stop_gate.has_begun_elsewhere = True
        return mine.along_with(others)
