"""What every part of a run shares: plan, options, ledger, pool, counts, the gate that stops it.

One `RunContext` for a run is passed to what judges, runs and records items; a sub-pipeline has its
own, made by `replace`. It makes the `Tools` of each step of each item. `ItemOutputs` is what one
item writes and reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddock.engine.request import Pool
from paddock.runner.bind.bound import BoundPlan, BoundStep
from paddock.runner.bind.protected_files import ProtectedFiles
from paddock.runner.ledger.entries import StoredRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage import LineageStore
from paddock.runner.ledger.outputs import OutputIndex
from paddock.runner.progress.drain import StopGate
from paddock.runner.progress.prefect_view import PrefectState
from paddock.steps.base import CallCache, ItemName, NoToolset, StepError, Tools, Toolset
from paddock.steps.paths import printable
from paddock.steps.readers.reader_pool import ReaderPool
from paddock.steps.vectors.open_stores import OpenStores

from .call_cache import CallOrigin, ClaimFence, LedgerPool, ModelDigests, ToolCallCache, no_fence
from .concurrency import WorkClaims
from .dependencies import AWAY, STORE, held_mark
from .retry_and_quarantine import CrashSuspects, ExclusiveLock
from .run_options import RunOptions
from .run_records import RunStats
from .staleness import Judge
from .step_context import BoundModels, CallTape, ItemLog, ItemToolset, ToolRuntime

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

    def caller(self, scope: str, step: BoundStep, key: str, block: str | None) -> CallOrigin:
        """Return what counts the calls of one step of one item."""
        is_forced = not self.options.force.isdisjoint({step.id, block or step.id})
        looks_up = step.cache and not self.options.no_cache and not is_forced
        return CallOrigin(scope, block or step.id, key, looks_up)

    def tools(
        self, step: BoundStep, caller: CallOrigin, outputs: ItemOutputs, item: ItemName
    ) -> Tools:
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


class ItemOutputs:
    """Implements `paddock.steps.base.OutputFiles` for one item."""

    def __init__(self, context: RunContext, scope: str, key: str) -> None:
        self._context = context
        self._index = context.index
        self._stats = context.stats
        self._scope = scope
        self._key = key
        self._intended: set[Path] = set()
        self.written: dict[str, None] = {}
        """Stored paths of what the item wrote, in order; part of its entry."""
        self.kept: dict[Path, None] = {}
        """Stores in which the item keeps rows."""
        self.read: dict[str, None] = {}
        """Files that were read on a model's request."""
        self.searched: dict[str, list[Any]] = {}
        """Marks of stores that were searched, of files that were moved away, and of edited files
        that were kept."""

    @property
    def takes_over(self) -> bool:
        """Whether this run replaces files that were edited, or are not ours."""
        return self._context.options.takes_over

    def owned(self) -> frozenset[Path]:
        return self._index.owned()

    async def known_sha256(self, path: Path) -> frozenset[str]:
        return self._index.known_sha256(path)

    def check_target(self, path: Path, *, is_new: bool = True) -> None:
        """Check that a step may write, move or remove a file.

        Raises:
            StepError: it belongs to Paddock or the pipeline, or could run as code.
        """
        refusal = self._context.protected.refusal(path, is_new=is_new)
        if refusal is not None:
            name = printable(self._index.stored(path))
            raise StepError(f"no step may write '{name}': it {refusal.why}.", remedy=refusal.remedy)

    async def intend(self, path: Path, sha256: str) -> None:
        """Record durably what is about to be renamed to `path`."""
        self.check_target(path)
        await self._context.fence()
        self._index.claim(self._scope, self._key, path)
        if self._index.is_recorded(self._scope, self._key, path, sha256):
            return
        self._index.record_intended(self._scope, self._key, path, sha256, self._stats.run)
        self._intended.add(path)
        await self._index.ledger.durable()
        # Again: the commit took time, and the rename comes next.
        await self._context.fence()

    async def wrote(self, path: Path, sha256: str, size_bytes: int) -> None:
        self._index.claim(self._scope, self._key, path)
        self._index.record_written(self._scope, self._key, path, sha256, self._stats.run)
        self.written[self._index.stored(path)] = None
        if path in self._intended:
            self._stats.wrote(str(path))

    async def holds(self, path: Path, sha256: str) -> None:
        """Mark an edited `path` that is kept, with the digest that would have been written."""
        self.searched |= held_mark(self._index.stored(path), sha256)

    async def note_removed(self, path: Path) -> None:
        self.searched[self._index.stored(path)] = [AWAY]

    async def note_rows_kept(self, store: Path) -> None:
        """Record that rows are about to be written to a store."""
        self.check_target(store)
        await self._context.fence()
        self.kept[store] = None
        ledger = self._index.ledger
        intended = StoredRow(self._scope, self._index.stored(store), self._key, "", 0)
        LineageStore(ledger).record_stored(intended, self._stats.run)
        await ledger.durable()
        await self._context.fence()

    async def note_file_read(self, path: Path) -> None:
        """Mark a file that the step could not name beforehand."""
        self.read[str(path)] = None

    async def note_rows_read(self, store: Path) -> None:
        """Mark a store that is about to be searched."""
        await self._context.stores.look([store])
        self.searched[self._index.stored(store)] = [STORE, self._context.stores.content(store)]
