"""Files that a watch has handled, as the ledger knows them. Blocks.

Each call opens and closes the ledger, since runs in other processes write to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import cast, get_args

from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.runner.folders.file_versions import FileIdentity
from paddock.runner.ledger.entries import HANDED_OVER, LedgerError
from paddock.runner.ledger.filed_store import MOVED_BY_WATCH, FiledStore, MoveRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.item_states import WAITS
from paddock.runner.workers.order import Order, OrderEnd


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """How the run of an order ended."""

    run: str
    status: OrderEnd
    failed: Mapping[str, str] = field(default_factory=dict)
    """Items that failed, key → reason; in a block over files the key is the `relpath`."""
    again: Mapping[str, int] = field(default_factory=dict)
    """Items that the next run tries again, key → failures in a row; 0: none is counted."""
    message: str = ""
    """Why the run as a whole failed."""
    waiting: Collection[str] = frozenset()
    """Items that wait for a person's decision."""

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
        """Return the versions that were handled."""
        with self._open(is_readonly=True) as ledger:
            rows = dict(ledger.watched(self._watch))
        rows.pop("", None)  # an older Paddock counted there
        return rows

    def outcome(self, order: Order) -> BatchOutcome:
        """Return how an order's run ended, with each item's outcome."""
        if not order.run:
            return BatchOutcome("", order.end, message=order.words)
        with self._open(is_readonly=True) as ledger:
            return batch_outcome(ledger, order.run, order.end, order.words)

    def owned(self) -> frozenset[str]:
        """Return the absolute paths below the root that the pipeline itself wrote."""
        base = f"{self._file.parent.resolve()}{os.sep}"
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
        base = f"{self._file.parent.resolve()}{os.sep}"
        with self._open(is_readonly=False) as ledger:
            store = FiledStore(ledger)
            for place in places.items():
                path, target = (str(each).removeprefix(base) for each in place)
                store.record_move(MoveRow(path, MOVED_BY_WATCH, target, "", "", is_done=True), "")

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


def batch_outcome(
    ledger: Ledger, run: str, otherwise: OrderEnd = "crashed", message: str = ""
) -> BatchOutcome:
    """Return how a run ended; `otherwise` when the ledger does not know, since it was killed.

    When a run continued one that crashed, the crashed run's rows count as well.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    row = RunStore(ledger).run(run)
    runs = RunStore(ledger).runs_of(row.parent if row is not None and row.parent else run)
    status = otherwise
    if row is not None and row.status in get_args(OrderEnd) and status != "cancelled":
        status, message = cast(OrderEnd, row.status), row.message or ""
    failed: dict[str, str] = {}
    again: dict[str, int] = {}
    waiting: set[str] = set()
    for item in chain.from_iterable(map(RunStore(ledger).items_of, runs)):
        entry = item.entry
        if entry.state in ("quarantined", "failed"):
            failed[entry.key] = entry.error or ""
        if entry.is_tried_again:
            again[entry.key] = entry.n_failures
        if entry.state in WAITS:
            waiting.add(entry.key)
    return BatchOutcome(run, status, failed, again, message, waiting)
