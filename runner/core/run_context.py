"""What every part of a run shares, and what a step of one item gets.

One `RunContext` for a run is passed to what judges, runs and records items; a sub-pipeline has its
own, made by `replace`. It makes the `Tools` of each step of each item: the pool through the call
cache, files, model names, a log, tools. `ItemOutputs` is what one item writes and reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from paddock.engine.errors import EngineError
from paddock.engine.request import ModelSpec, Pool, Role
from paddock.engine.system import text
from paddock.engine.system.crash_isolation import SuspectRoom
from paddock.pipelines.triggers import MOST_DELETED
from paddock.runner.bind.bound import BoundPlan, BoundStep
from paddock.runner.bind.protected_files import ProtectedFiles
from paddock.runner.bind.text_vectors import embedded
from paddock.runner.folders.missing_files import is_mass_deletion
from paddock.runner.ledger.entries import OutputRow, StoredRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_rows import LineageStore
from paddock.runner.ledger.output_index import OutputIndex, other_pipelines_output
from paddock.runner.progress.drain import StopGate
from paddock.runner.progress.prefect_view import TaskChunk
from paddock.steps.base import (
    CallCache,
    ItemName,
    NoToolset,
    Roots,
    StepError,
    Tools,
    Toolset,
    Vector,
)
from paddock.steps.paths import printable
from paddock.steps.readers.reader_pool import ReaderPool
from paddock.steps.tools.tool import ToolContext
from paddock.steps.vectors.open_stores import OpenStores

from .call_cache import (
    CallOrigin,
    ClaimFence,
    LedgerPool,
    ModelDigests,
    PutOff,
    ToolCallCache,
    no_fence,
)
from .deadly_items import CrashSuspects, ItemPlace
from .dependencies import Dependencies, Dependency, KeptOutput, MovedAway, StoreSearched
from .documents_in_use import DocumentsInUse
from .item_toolset import ItemToolset, ToolRuntime
from .query_batches import QueryBatches
from .run_options import CallTape, RunOptions
from .run_stats import RunStats
from .staleness import EmbedLabels, Judge
from .work_claims import WorkClaims

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
    parallel_around: int = 1
    """How many items may be in flight of the block around a sub-pipeline."""

    def caller(self, scope: str, step: BoundStep, key: str, block: str | None) -> CallOrigin:
        """Return what counts the calls of one step of one item."""
        is_forced = not self.options.force.isdisjoint({step.id, block or step.id})
        looks_up = step.cache and not self.options.no_cache and not is_forced
        return CallOrigin(scope, block or step.id, key, looks_up)

    def tools(
        self,
        step: BoundStep,
        caller: CallOrigin,
        outputs: ItemOutputs,
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
class LostRows:
    """A table that has, or would have, fewer rows than before."""

    path: str
    n_before: int
    n_now: int
    is_left: bool
    """Whether it is left as it is until a person confirms it."""

    def text(self, why: str) -> str:
        """Return what became of the table.

        >>> LostRows("t.csv", 10, 8, False).text("2 items of 'each' are deleted")
        "'t.csv' has 8 rows, 2 fewer than before: 2 items of 'each' are deleted."
        """
        n_lost = self.n_before - self.n_now
        if not self.is_left:
            rows = text.counted(self.n_now, "row")
            return f"'{self.path}' has {rows}, {n_lost:,} fewer than before: {why}."
        rows = f"{n_lost:,} of its {text.counted(self.n_before, 'row')}"
        return (
            f"'{self.path}' is left as it is: {rows} would go, since {why}. "
            f"If that is right, run it with `--yes`."
        )


class ItemOutputs:
    """Implements `paddock.steps.base.OutputFiles` for one item."""

    def __init__(
        self, context: RunContext, scope: str, key: str, *, may_shrink: bool = False
    ) -> None:
        """`may_shrink`: it is made of one item, or of what the time has chosen."""
        self._context = context
        self._index = context.index
        self._stats = context.stats
        self._scope = scope
        self._key = key
        self._may_shrink = may_shrink
        self.items: tuple[ItemPlace, ...] = ((scope, key),)
        """The items around it, outermost first, and itself."""
        self.lost_rows: list[LostRows] = []
        self._intended: set[Path] = set()
        self._unrecorded: dict[str, OutputRow] = {}
        self.written: dict[str, None] = {}
        """Stored paths of what the item wrote, in order; part of its entry."""
        self.kept: dict[Path, None] = {}
        """Stores in which the item keeps rows."""
        self.read: dict[str, None] = {}
        """Files that were read on a model's request."""
        self.searched: Dependencies = {}
        """Stores that were searched, files that were moved away, edited files that were kept."""

    @property
    def takes_over(self) -> bool:
        """Whether this run replaces files that were edited, or are not ours."""
        return self._context.options.takes_over

    def owned(self, root: Path) -> frozenset[Path]:
        return self._index.owned(root)

    async def known_sha256(self, path: Path, *, moved: bool = False) -> frozenset[str]:
        return self._index.known_sha256(path, moved=moved)

    def check_target(self, path: Path, *, is_new: bool = True) -> None:
        """Check that a step may write, move or remove a file.

        Raises:
            StepError: it belongs to Paddock or the pipeline, or could run as code.
        """
        refusal = self._context.protected.refusal(path, is_new=is_new)
        if refusal is not None:
            name = printable(self._index.stored(path))
            raise StepError(f"no step may write '{name}': it {refusal.why}.", remedy=refusal.remedy)

    async def intend(self, path: Path, sha256: str, size_bytes: int | None = None) -> None:
        """Record durably what is about to be renamed to `path`."""
        self.check_target(path)
        await self._context.fence()
        index, stored, place = self._index, self._index.stored(path), (self._scope, self._key, path)
        self._refuse_other_pipelines(path, sha256)
        index.claim(self._scope, self._key, stored)
        index.release(stored)
        if index.is_recorded(*place, sha256):
            return
        is_first = not index.has_row(self._scope, path)
        index.record_intended(*place, sha256, size_bytes, self._stats.run)
        self._intended.add(path)
        await index.ledger.durable()
        if is_first and not self.takes_over:
            other = await index.ledger.ask(index.written_meanwhile, stored)
            if other is not None:
                index.release(stored, of=self._scope)
                raise other_pipelines_output(stored, other)
        # Again: the commit took time, and the rename comes next.
        await self._context.fence()

    async def wrote(self, path: Path, sha256: str, size_bytes: int) -> None:
        stored = self._index.stored(path)
        self._index.claim(self._scope, self._key, stored)
        row = self._index.written_row(self._scope, self._key, path, sha256)
        if row is not None:
            self._unrecorded[row.path] = row
        self.written[stored] = None
        if path in self._intended:
            self._stats.wrote(str(path))

    def record_written(self) -> None:
        """Record what was written, as its entry is."""
        for row in self._unrecorded.values():
            self._index.record_written(row, self._stats.run)
        self._unrecorded.clear()

    def may_lose_rows(self, path: Path, n_before: int, n_now: int) -> bool:
        """Note that a table loses rows; refuse where most go at once, unless that is confirmed.

        The table of an item is made of that item alone, and loses what that no longer has; that
        of yesterday's letters has those of another day today.
        """
        is_most = n_now == 0 or is_mass_deletion(n_before - n_now, n_before, MOST_DELETED)
        is_left = is_most and not (self._may_shrink or self._context.options.is_confirmed)
        self.lost_rows.append(LostRows(self._index.stored(path), n_before, n_now, is_left))
        if is_left:
            self.written[self._index.stored(path)] = None  # as the last run wrote it
        return not is_left

    async def holds(self, path: Path, sha256: str) -> None:
        """Mark an edited `path` that is kept, with the digest that would have been written.

        Raises:
            StepError: it is another pipeline's output.
        """
        self._note(KeptOutput(self._index.stored(path), sha256))
        self._refuse_other_pipelines(path, sha256)

    def _refuse_other_pipelines(self, path: Path, sha256: str) -> None:
        stored = self._index.stored(path)
        other = None if self.takes_over else self._index.other_owner(stored)
        if other is not None:
            self._note(KeptOutput(stored, sha256))  # so that a run that may write it does
            raise other_pipelines_output(stored, other)

    def filed_at(self, path: Path) -> Path | None:
        return self._context.documents.filed_at(path, self.items)

    def will_move(self, path: Path, target: Path, sha256: str) -> None:
        self._context.documents.will_move(path, target, sha256, self.items)

    async def note_removed(self, path: Path) -> None:
        self._note(MovedAway(self._context.documents.moved(path, self.items)))

    def delete_when_done(self, path: Path) -> bool:
        return self._context.documents.leave_for_deletion(path, self.items)

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
        self._note(StoreSearched(self._index.stored(store), self._context.stores.content(store)))

    def _note(self, dependency: Dependency) -> None:
        self.searched[dependency.name] = dependency


def label_embedding(context: RunContext, *, is_plan: bool) -> EmbedLabels:
    """Return what embeds labels that are new to a list; while planning no model is asked."""

    async def embed(step: BoundStep, texts: Sequence[str]) -> tuple[str, Sequence[Vector]] | None:
        bound = context.bound
        caller = CallOrigin("", step.id, "", looks_up=True, may_ask=not is_plan)
        pool = LedgerPool(context.pool, context.ledger, context.digests, context.stats, caller)
        try:
            model = BoundModels(bound.models, bound.defaults, step.model).resolve(None, "embed")
            identity = (await pool.facts(model)).identity
            return identity, await embedded(pool, model, texts, bound.priority)
        except (PutOff, StepError, EngineError):
            return None  # which items are stale is then not known: all may be

    return embed


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


class ItemLog:
    """Implements `paddock.steps.base.StepLog`: prefixes notes with the item."""

    def __init__(self, context: RunContext, block: str, key: str, step: str) -> None:
        self._context = context
        self._stats = context.stats
        self._step, self._key = step, key
        self._place = f"{key}: " if key else f"{block}: "

    def note(self, text: str) -> None:
        self._stats.note(f"{self._place}{text}")

    def tally(self, noun: str, what: str) -> None:
        self._stats.tally(self._step, self._key, noun, what)

    def scanned(self, taken: Collection[str], not_taken: Collection[str]) -> None:
        """Count the files that no pattern takes, but for what Paddock wrote or the pipeline is."""
        index, parts = self._context.index, self._context.protected.folded
        self._stats.taken.update(taken, self._context.bound.folder_inputs.values())
        self._stats.not_taken.update(
            path
            for path in not_taken
            if path.casefold() not in parts and not index.rows_at(index.stored(path))
        )
