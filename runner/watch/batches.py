"""Batches of settled files, and how their runs ended."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import Literal, TypeAlias, cast, get_args

from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.runner.folders.file_versions import FileVersion
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.item_states import WAITS


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Settled files for one run."""

    watch: str
    files: tuple[FileVersion, ...]
    gone: tuple[str, ...] = ()
    """Files that were handled once and have been deleted since."""
    idempotency_key: str = ""
    """The same for the same change, so that submitting it twice starts one run."""
    retries_failed: bool = False
    """In a hot folder, a document that is dropped again is processed again."""


BatchStatus: TypeAlias = Literal[
    "completed", "quarantined", "failed", "crashed", "budget", "suspended", "interrupted", "skipped"
]


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """How the run of a batch ended."""

    run: str
    status: BatchStatus
    failed: Mapping[str, str] = field(default_factory=dict)
    """Items that failed, key → reason; in a block over files the key is the `relpath`."""
    again: Collection[str] = frozenset()
    """Those of them with a transient error: the next run tries them again."""
    message: str = ""
    """Why the run as a whole failed."""
    waiting: Collection[str] = frozenset()
    """Items that wait for a person's decision."""


def batch_key(watch: str, epoch: int, files: Iterable[FileVersion], gone: Iterable[str]) -> str:
    """Return a batch's idempotency key.

    `epoch` counts what the watch has recorded, so that a version that comes back after another
    one, or a retry, is a change of its own.
    """
    digest = hashlib.sha256(f"{watch}\0{epoch}\0".encode("utf-8", "surrogateescape"))
    for seen in files:
        text = f"{seen.relpath}\0{seen.size}\0{seen.mtime_ns}\0"
        digest.update(text.encode("utf-8", "surrogateescape"))
    for relpath in gone:
        digest.update(f"{relpath}\0gone\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def batch_outcome(
    ledger: Ledger, run: str, otherwise: BatchStatus = "crashed", message: str = ""
) -> BatchOutcome:
    """Return how a run ended; `otherwise` when the ledger does not know, since it was killed.

    When a run continued one that crashed, the crashed run's rows count as well.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    row = RunStore(ledger).run(run)
    runs = RunStore(ledger).runs_of(row.parent if row is not None and row.parent else run)
    status = otherwise
    if row is not None and row.status in get_args(BatchStatus):
        status, message = cast(BatchStatus, row.status), row.message or ""
    failed: dict[str, str] = {}
    again: set[str] = set()
    waiting: set[str] = set()
    for item in chain.from_iterable(map(RunStore(ledger).items_of, runs)):
        entry = item.entry
        if entry.state in ("quarantined", "failed"):
            failed[entry.key] = entry.error or ""
        if entry.is_tried_again:
            again.add(entry.key)
        if entry.state in WAITS:
            waiting.add(entry.key)
    return BatchOutcome(run, status, failed, frozenset(again), message, frozenset(waiting))
