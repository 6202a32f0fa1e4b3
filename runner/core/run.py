"""Run a bound plan within its budget: clean up, walk, report.

Knows no Prefect: a node, or a chunk of items, runs within `RunContext.show_chunk`, which shows it
as a Prefect task, or nowhere. Steps, ledger and results are the same.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from paddock.runner.folders.file_filter import not_taken_by_watches
from paddock.runner.ledger.budget import Spent, budget_reached
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.progress.report import Report
from paddock.steps.base import StepError

from .execute import Execute
from .failures import RunStopped
from .pruning import RowKeeper
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


async def run(context: RunContext) -> Report:
    """Do everything that is stale, and return the report.

    When `context.stop` is set, nothing begins, what is in flight is cancelled, and the report says
    `interrupted`; what is finished stays finished. When `context.stop_gate` is closed, nothing
    begins, what is in flight finishes, and the report has the gate's status.

    Raises:
        PipelineError: the YAML turned out to be wrong for the data at hand.
    """
    stats, stop_gate = context.stats, context.stop_gate
    walk = Execute(context)
    work = asyncio.create_task(_clean_up_and_walk(walk))
    tasks = {work}
    if context.bound.pipeline.budget is not None:
        meter = BudgetMeter(context)
        stop_gate.limit = meter.reached
        tasks.add(asyncio.create_task(meter.share_spending()))
    stopped = asyncio.create_task(context.stop.wait())
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        context.suspects.stop()  # before what is in flight unwinds, which may be cut short
        stopped.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    if work.cancelled():
        words = stop_gate.words if stop_gate.status in ("interrupted", "suspended") else ""
        message = f"{words or 'Interrupted'}; the same command continues."
        is_suspended = stop_gate.status == "suspended"
        return stats.report("suspended" if is_suspended else "interrupted", message=message)
    try:
        returns = work.result()
        if walk.has_left:
            return stats.report(stop_gate.status, message=stop_gate.left(walk.n_left))
        context.judge.refuse_unknown_keys()
        return stats.report("completed", returns=returns)
    except (RunStopped, LedgerError) as error:
        return stats.report("failed", message=str(error))


async def _clean_up_and_walk(walk: Execute) -> Any:
    """Drop rows that an earlier form of the file left in stores, then walk."""
    context = walk.context
    if context.bound.watches:
        not_taken = await asyncio.to_thread(lambda: [*not_taken_by_watches(context.bound)])
        context.stats.not_taken.update(not_taken)
    try:
        is_alone = context.claims is None
        *_, folders = context.judge.scopes.folders
        await RowKeeper(context).clear(context.bound, folders, is_alone=is_alone)
    except StepError as error:
        raise RunStopped(str(error)) from error
    await walk.nodes()
    returns, _ = walk.returned()
    return returns
