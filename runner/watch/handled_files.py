"""Files that a watch has handled, as the ledger knows them. Blocks.

Each call opens and closes the ledger, since runs in other processes write to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.runner.folders.file_versions import FileIdentity
from paddock.runner.folders.folder_identity import FolderIdentity
from paddock.runner.ledger.entries import HANDED_OVER, LedgerError
from paddock.runner.ledger.filed_store import MOVED_BY_WATCH, FiledStore, MoveRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.workers.order import Order

from .batches import BatchOutcome, batch_outcome

_COUNT = ""
"""Path of a row in which an older Paddock counted: no file below a root has an empty path."""


@dataclass(frozen=True, slots=True)
class HandledFiles:
    """What the ledger holds of a watch."""

    done: Mapping[str, FileIdentity] = field(default_factory=dict)
    roots: Sequence[FolderIdentity] = ()
    """Which folder lay at the root, as each machine saw it last; this machine's first."""


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

    def read(self) -> HandledFiles:
        with self._open(is_readonly=True) as ledger:
            rows = ledger.watched(self._watch)
            roots = tuple(map(FolderIdentity.of_text, ledger.roots(self._watch, "")))
        rows.pop(_COUNT, None)
        return HandledFiles(rows, roots)

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

    def record_root(self, folder: FolderIdentity) -> None:
        with self._open(is_readonly=False) as ledger:
            ledger.record_root(self._watch, "", folder.as_text())

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
