"""What every part of a run shares: plan, options, ledger, pool, counts, the gate that stops it.

One `RunContext` for a run is passed to what judges, runs and records items; a sub-pipeline has its
own, made by `replace`. It makes the `Tools` of each step of each item.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from paddock.engine.request import Pool
from paddock.runner.bind.bound import BoundPlan, BoundStep
from paddock.runner.bind.protected_files import ProtectedFiles
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.outputs import OutputIndex
from paddock.runner.progress.drain import StopGate
from paddock.runner.progress.prefect_view import PrefectState
from paddock.steps.base import CallCache, ItemName, NoToolset, Tools, Toolset
from paddock.steps.readers.reader_pool import ReaderPool
from paddock.steps.vectors.open_stores import OpenStores

from .call_cache import CallOrigin, ClaimFence, LedgerPool, ModelDigests, ToolCallCache, no_fence
from .concurrency import WorkClaims
from .retry_and_quarantine import CrashSuspects, ExclusiveLock
from .run_options import RunOptions
from .run_records import RunStats
from .staleness import Judge
from .step_context import (
    BoundModels,
    CallTape,
    ItemLog,
    ItemOutputs,
    ItemToolset,
    ToolRuntime,
)

ChunkRunner = Callable[[str, Sequence[str], Callable[[], Awaitable[PrefectState]]], Awaitable[None]]
"""(step or block, keys of its items, what runs them and returns their state) → the end."""


async def run_chunk_here(
    block: str, keys: Sequence[str], run: Callable[[], Awaitable[PrefectState]]
) -> None:
    """Run a chunk at once, in this task, as `--local` does."""
    await run()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What every part of a run shares."""

    bound: BoundPlan
    options: RunOptions
    ledger: Ledger
    index: OutputIndex
    digests: ModelDigests
    judge: Judge
    pool: Pool
    stats: RunStats
    stores: OpenStores
    readers: ReaderPool
    """The processes in which documents are read."""
    protected: ProtectedFiles
    """What no step may write."""
    suspects: CrashSuspects
    """Items during which earlier runs crashed."""
    stop: asyncio.Event
    """Once set, what is in flight is cancelled."""
    stop_gate: StopGate
    """Once closed, what is in flight finishes and nothing begins."""
    run_chunk: ChunkRunner = run_chunk_here
    max_attempts: int = 3
    """After so many failures for a passing reason an item is quarantined."""
    claims: WorkClaims | None = None
    """Where several machines work on the same items."""
    fence: ClaimFence = no_fence
    """Raises `ClaimLost` where another machine has taken over the current item, or the item around
    it."""
    tool_runtime: ToolRuntime | None = None
    """None while planning: no tool may be called."""
    tape: CallTape | None = None
    """Where a test is recorded or replayed."""
    exclusive_lock: ExclusiveLock = field(default_factory=ExclusiveLock)
    """Held alone by an item that may end the process."""

    def outputs(self, scope: str, key: str) -> ItemOutputs:
        return ItemOutputs(self, scope, key)

    def caller(self, scope: str, step: BoundStep, key: str, block: str | None) -> CallOrigin:
        """Return what counts the calls of one step of one item."""
        is_forced = not self.options.force.isdisjoint({step.id, block or step.id})
        looks_up = step.cache and not self.options.no_cache and not is_forced
        return CallOrigin(scope, block or step.id, key, looks_up)

    def tools(
        self, step: BoundStep, caller: CallOrigin, outputs: ItemOutputs, item: ItemName
    ) -> Tools:
        """Return the tools of one step of one item."""
        memo: CallCache = ToolCallCache(self.ledger, self.stats, caller)
        toolset: Toolset = NoToolset()
        if self.tool_runtime is not None:
            toolset = ItemToolset(self.bound, self.tool_runtime, memo, self.readers)
        if self.tape is not None:
            memo, toolset = self.tape.memo(memo), self.tape.toolset(toolset)
        return Tools(
            pool=LedgerPool(self.pool, self.ledger, self.digests, self.stats, caller, self.fence),
            models=BoundModels(self.bound.models, self.bound.defaults, step.model),
            roots=self.bound.roots,
            outputs=outputs,
            log=ItemLog(self.stats, caller.step, caller.key),
            priority=self.bound.priority,
            total_s=step.timeout.total_s,
            idle_s=step.timeout.idle_s,
            stores=self.stores,
            item=item,
            untrusted=step.untrusted,
            toolset=toolset,
            memo=memo,
            readers=self.readers,
        )
