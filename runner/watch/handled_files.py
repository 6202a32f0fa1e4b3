"""Files that a watch has handled, as the ledger knows them. Blocks.

Each call opens and closes the ledger, since runs in other processes write to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from paddock.engine.system.records import Struct, field
from paddock.runner.bind.watches import PROCESSING
from paddock.runner.folders.file_versions import FileIdentity
from paddock.runner.ledger.entries import HANDED_OVER, LedgerError
from paddock.runner.ledger.filed_store import MOVED_BY_WATCH, FiledStore, MoveRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.item_states import WAITS
from paddock.runner.workers.order import Order, OrderEnd


class BatchOutcome(Struct, frozen=True):
    run: str
    status: OrderEnd
    failed: Mapping[str, str] = field(default_factory=dict)
    """Documents that failed, `relpath` → reason; of an item without one its key."""
    again: Mapping[str, int] = field(default_factory=dict)
    """What the next run tries again → failures in a row; 0: none is counted."""
    message: str = ""
    """Why the run as a whole failed."""
    waiting: Collection[str] = frozenset()
    """Those that wait for a person's decision, or for another item's path."""

    @property
    def is_through(self) -> bool:
        """Whether the run looked at every file."""
        return self.status in ("completed", "quarantined")


class WatchLedger:
    """What the ledger of a pipeline's folder knows of a watch.

    Every method blocks, and raises `LedgerError` when it fails.
    """

    def __init__(self, watch: str, root: Path, file: Path, opens: Callable[[bool], Ledger]) -> None:
        """`watch` is the watch's name and root, `file` the pipeline's file.

        `opens` opens the ledger; its argument is True for reading only.
        """
        self._watch = watch
        self._prefix = f"{root}{os.sep}"
        self._file = file
        self._opens = opens

    def read(self) -> dict[str, FileIdentity]:
        with self._open(is_readonly=True) as ledger:
            return dict(ledger.watched(self._watch))

    def outcome(self, order: Order) -> BatchOutcome:
        """Return how an order's run ended, with each item's outcome.

        When a run continued one that crashed, the crashed run's rows count as well.
        """
        failed: dict[str, str] = {}
        again: dict[str, int] = {}
        waiting: set[str] = set()
        if order.run:
            with self._open(is_readonly=True) as ledger:
                runs = RunStore(ledger)
                row = runs.run(order.run)
                first = row.parent if row is not None and row.parent else order.run
                for run in runs.runs_of(first):
                    lineage = LineageStore(ledger).of_run(run)
                    sources = {(row.scope, row.key): row.source for row in lineage}
                    for item in runs.items_of(run):
                        entry = item.entry
                        # The key is another one where a document of that name was filed before
                        source = sources.get((item.scope, entry.key))
                        relpath = entry.key if source is None else self._relpath(source)
                        if entry.state in ("quarantined", "failed"):
                            failed[relpath] = entry.error or ""
                        if entry.is_tried_again:
                            again[relpath] = entry.n_failures
                        if entry.state in WAITS:
                            waiting.add(relpath)
        return BatchOutcome(order.run, order.end, failed, again, order.message, waiting)

    def _relpath(self, source: str) -> str:
        path = os.path.join(self._base, source)  # noqa: PTH118 - many
        return path.removeprefix(self._prefix).removeprefix(f"{PROCESSING}/")

    def owned(self) -> frozenset[str]:
        base = self._base
        with self._open(is_readonly=True) as ledger:
            scopes = ledger.scopes_of(self._file.name)
            paths = (
                row.path if os.path.isabs(row.path) else base + row.path  # noqa: PTH117 - many
                for row in ledger.outputs()
                if row.scope in scopes and row.size != HANDED_OVER
            )
            return frozenset(path for path in paths if path.startswith(self._prefix))

    def record(self, run: str, files: Mapping[str, FileIdentity], gone: Iterable[str]) -> None:
        with self._open(is_readonly=False) as ledger:
            ledger.record_watched(self._watch, run, files, gone)

    def record_filed(self, places: Mapping[Path, Path]) -> None:
        """Write where documents lie, and where they are about to go when they are done."""
        base = self._base
        with self._open(is_readonly=False) as ledger:
            store = FiledStore(ledger)
            for place in places.items():
                path, target = (str(each).removeprefix(base) for each in place)
                store.record_move(MoveRow(path, MOVED_BY_WATCH, target))

    @property
    def _base(self) -> str:
        return f"{self._file.parent.resolve()}{os.sep}"

    @contextmanager
    def _open(self, *, is_readonly: bool) -> Iterator[Ledger]:
        """Open the ledger; raise every database error as a `LedgerError`, which a watch retries."""
        try:
            with self._opens(is_readonly) as ledger:
                yield ledger
        except LedgerError:
            raise
        except Exception as error:
            raise LedgerError(f"the ledger does not answer ({error})") from error
        if ledger.error is not None:
            raise ledger.error
