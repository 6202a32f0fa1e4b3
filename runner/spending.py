"""What a run has spent of its budget: this machine's part, and that of those who do it as well."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace

from paddock.runner.budget import Spent, reached

from .border import Border
from .ledger.entries import LedgerError
from .tools import Toolbox

TELL_S = 1.0


class Spending:
    """Counts from now on. Lives in one loop."""

    def __init__(self, toolbox: Toolbox, border: Border) -> None:
        self._tally = toolbox.tally
        self._budget = toolbox.bound.budget
        self._shares = toolbox.shares if self._budget.is_set else None
        self._border = border
        self._began = time.monotonic()

    async def reached(self) -> str | None:
        """Say that nothing more may begin; None while something may.

        Raises:
            LedgerError: what other machines have spent cannot be known.
        """
        return reached(self._budget, await self._spent(n_about_to_begin=1))

    async def told(self) -> None:
        """Tell the others from time to time, and at the end, what this machine has spent."""
        if self._shares is None:
            return
        try:
            while True:
                await asyncio.sleep(TELL_S)
                with suppress(LedgerError):  # whoever begins or records next hears it, and says so
                    await self._spent()
        finally:
            with suppress(LedgerError):
                await self._spent()

    async def _spent(self, n_about_to_begin: int = 0) -> Spent:
        seconds, (n_ended, n_in_flight) = time.monotonic() - self._began, self._border.items
        mine = Spent(seconds, self._tally.n_tokens, n_ended, n_in_flight)
        if self._shares is None:
            return mine
        # Another that asks at this moment has to know of the item that is asked about.
        told = replace(mine, n_in_flight=n_in_flight + n_about_to_begin)
        others = await self._shares.spent_by_others(told)
        if others.n_ended or others.n_in_flight:
            self._border.has_begun_elsewhere = True
        return mine.along_with(others)
