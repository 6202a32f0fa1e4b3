"""Context of a run, which all its parts share.

One `RunContext` for a run is passed to what judges, runs and records items; a sub-pipeline has its
own, made by `replace`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.request import Pool
from paddock.engine.system.crash_isolation import SuspectRoom
from paddock.engine.system.records import Struct, field
from paddock.engine.system.tasks import GroupedCalls
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.bind.trust.protected_files import ProtectedFiles
from paddock.runner.progress.drain import StopGate
from paddock.runner.progress.events import ShownWork
from paddock.steps.base import DocumentReaders
from paddock.steps.run_end import RunEndAction

if TYPE_CHECKING:
    from paddock.runner.ledger.ledger import Ledger
    from paddock.runner.ledger.output_index import OutputIndex

    from .calls.query_batches import QueryBatches
    from .documents_in_use import DocumentsInUse
    from .item_judge import Judge
    from .item_toolset import ToolRuntime
    from .other_runs.crash_suspects import CrashSuspects
    from .path_owners import PathOwners
    from .run_options import CallTape, RunOptions
    from .run_stats import RunStats
    from .traces.world import World

SYNC_THREADS = 4  # a disk syncs several files at once in little more time than one
ShowChunk = Callable[[str, Sequence[str]], AbstractContextManager[ShownWork | None]]
"""(step or block, keys of its items) → shows them while they run; None: nowhere."""


class RunContext(Struct, frozen=True, kw_only=True):
    judge: Judge
    """Holds the pipeline, the options, and the world with ledger, outputs, models and stores."""
    pool: Pool
    stats: RunStats
    readers: DocumentReaders
    documents: DocumentsInUse
    protected: ProtectedFiles
    owners: PathOwners
    suspects: CrashSuspects
    stop: asyncio.Event
    """Once set, what is in flight is cancelled."""
    stop_gate: StopGate
    """Once closed, what is in flight finishes and nothing begins."""
    show_chunk: ShowChunk = lambda block, keys: nullcontext()
    max_attempts: int = 3
    """After so many failures for a passing reason an item is quarantined."""
    tool_runtime: ToolRuntime | None = None
    """None while planning: no tool may be called."""
    at_end: list[RunEndAction] | None = None
    """What steps leave for its end; None, in a plan and a test: they act on nothing but files."""
    tape: CallTape | None = None
    """Records or replays calls of tools, for a test."""
    queries: Mapping[tuple[Path, str], QueryBatches] | None = None
    """What embeds the queries of searches, by file and step; None: the pool does."""
    room: SuspectRoom = field(default_factory=SuspectRoom)
    """The places of items that run together; one that may end the process has few others."""
    syncs: GroupedCalls = field(default_factory=lambda: GroupedCalls(SYNC_THREADS))

    @property
    def bound(self) -> BoundPlan:
        return self.judge.bound

    @property
    def options(self) -> RunOptions:
        return self.judge.options

    @property
    def world(self) -> World:
        return self.judge.world

    @property
    def index(self) -> OutputIndex:
        return self.world.index

    @property
    def ledger(self) -> Ledger:
        return self.world.ledger
