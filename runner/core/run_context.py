"""What every part of a run shares, and what a step of one item gets.

One `RunContext` for a run is passed to what judges, runs and records items; a sub-pipeline has its
own, made by `replace`. It makes the `Tools` of each step of each item: the pool through the call
cache, files, model names, a log, tools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from paddock.engine.errors import EngineError
from paddock.engine.request import ModelSpec, Pool, Role
from paddock.engine.system.crash_isolation import SuspectRoom
from paddock.engine.system.tasks import GroupedCalls
from paddock.runner.answers.text_vectors import embedded
from paddock.runner.bind.bound import BoundPlan, BoundStep
from paddock.runner.bind.protected_files import ProtectedFiles
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.progress.drain import StopGate
from paddock.runner.progress.prefect_view import TaskChunk
from paddock.steps.base import (
    CallCache,
    ItemName,
    NoToolset,
    OutputFiles,
    Roots,
    StepError,
    Tools,
    Toolset,
    Vector,
)
from paddock.steps.readers.reader_pool import ReaderPool
from paddock.steps.tools.tool import ToolContext
from paddock.steps.vectors.open_stores import OpenStores

from .call_cache import CallOrigin, ClaimFence, LedgerPool, PutOff, ToolCallCache, no_fence
from .deadly_items import CrashSuspects
from .documents_in_use import DocumentsInUse
from .item_toolset import ItemToolset, ToolRuntime
from .model_digests import ModelDigests
from .query_batches import QueryBatches
from .run_options import CallTape, RunOptions
from .run_stats import RunStats
from .staleness import Judge
from .work_claims import WorkClaims

SYNC_THREADS = 4  # a disk syncs several files at once in little more time than one
ShowChunk = Callable[[str, Sequence[str]], AbstractContextManager[TaskChunk | None]]
"""(step or block, keys of its items) → shows them while they run; None: nowhere."""


def show_nowhere(block: str, keys: Sequence[str]) -> AbstractContextManager[None]:
    return nullcontext()


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
    documents: DocumentsInUse
    protected: ProtectedFiles
    """What no step may write."""
    suspects: CrashSuspects
    """Items during which earlier runs crashed."""
    stop: asyncio.Event
    """Once set, what is in flight is cancelled."""
    stop_gate: StopGate
    """Once closed, what is in flight finishes and nothing begins."""
    show_chunk: ShowChunk = show_nowhere
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
    queries: Mapping[tuple[Path, str], QueryBatches] | None = None
    """By file and step: embeds the queries of searches; None: the pool does."""
    room: SuspectRoom = field(default_factory=SuspectRoom)
    """Where items run together; one that may end the process, with few others."""
    syncs: GroupedCalls = field(default_factory=lambda: GroupedCalls(SYNC_THREADS))
    parallel_around: int = 1
    """How many items may be in flight of the block around a sub-pipeline."""

    def caller(self, scope: str, step: BoundStep, key: str, block: str | None) -> CallOrigin:
        """Return what counts the calls of one step of one item."""
        is_forced = not self.options.force.isdisjoint({step.id, block or step.id})
        looks_up = step.cache and not self.options.no_cache and not is_forced
        return CallOrigin(scope, block or step.id, key, looks_up)

    async def embed_labels(
        self, step: BoundStep, texts: Sequence[str]
    ) -> tuple[str, Sequence[Vector]] | None:
        """Return the model and the vectors of labels that are new to a list.

        None: no model is asked while planning, or it failed; which items are stale is not known.
        """
        may_ask = self.tool_runtime is not None
        caller = CallOrigin("", step.id, "", looks_up=True, may_ask=may_ask)
        pool = LedgerPool(self.pool, self.ledger, self.digests, self.stats, caller)
        try:
            models = BoundModels(self.bound.models, self.bound.defaults, step.model)
            model = models.resolve(None, "embed")
            identity = (await pool.facts(model)).identity
            return identity, await embedded(pool, model, texts, self.bound.priority)
        except (PutOff, StepError, EngineError):
            return None

    def tools(
        self,
        step: BoundStep,
        caller: CallOrigin,
        outputs: OutputFiles,
        item: ItemName,
        roots: Roots,
    ) -> Tools:
        memo: CallCache = ToolCallCache(self.ledger, self.stats, caller)
        log = ItemLog(self, caller.step, caller.key, step.id)
        toolset: Toolset = NoToolset()
        if self.tool_runtime is not None:
            within = ToolContext(roots, log, self.readers)
            toolset = ItemToolset(self.bound, self.tool_runtime, memo, within)
        if self.tape is not None:
            memo, toolset = self.tape.memo(memo), self.tape.toolset(toolset)
        pool = self.pool
        if step.facts.searches and self.queries is not None:
            pool = self.queries[self.bound.file, step.id]
        return Tools(
            pool=LedgerPool(pool, self.ledger, self.digests, self.stats, caller, self.fence),
            models=BoundModels(self.bound.models, self.bound.defaults, step.model),
            roots=roots,
            outputs=outputs,
            log=log,
            priority=self.bound.priority,
            total_s=step.timeout.total,
            idle_s=step.timeout.idle,
            stores=self.stores,
            item=item,
            untrusted=step.untrusted,
            toolset=toolset,
            memo=memo,
            readers=self.readers,
        )


@dataclass(frozen=True, slots=True)
class BoundModels:
    """Implements `paddock.steps.base.ModelResolver` over a pipeline's aliases and the defaults."""

    models: Mapping[str, ModelSpec]
    defaults: Mapping[Role, ModelSpec]
    own: ModelSpec | None

    def resolve(self, alias: str | None, role: Role) -> ModelSpec:
        """Return the model of this alias, else the step's own, else the default of this role."""
        if alias is not None:
            if alias in self.models:
                return self.models[alias]
            raise StepError(f"there is no model '{alias}' under `models`.")
        if self.own is not None and self.own.role == role:
            return self.own
        if role in self.defaults:
            return self.defaults[role]
        raise StepError(f"there is no model to {role} with.", remedy="Name one under `models`.")


@dataclass(frozen=True, slots=True)
class ItemLog:
    """Implements `paddock.steps.base.StepLog`: prefixes notes with the item."""

    context: RunContext
    block: str
    key: str
    step: str

    def note(self, text: str) -> None:
        self.context.stats.note(f"{self.key or self.block}: {text}")

    def tally(self, noun: str, what: str) -> None:
        self.context.stats.tally(self.step, self.key, noun, what)

    def scanned(self, taken: Collection[str], not_taken: Collection[str]) -> None:
        """Count the files that no pattern takes, but for what Paddock wrote or the pipeline is."""
        context, index, parts = self.context, self.context.index, self.context.protected.folded
        context.stats.taken.update(taken, context.bound.folder_inputs.values())
        context.stats.not_taken.update(
            path
            for path in not_taken
            if path.casefold() not in parts and not index.rows_at(index.stored(path))
        )
