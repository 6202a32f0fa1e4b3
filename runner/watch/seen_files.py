"""Seen files: what the ledger knows for a watch. Blocks.

Which file versions were handled, how runs ended, which files a run may take. Each call opens and
closes the ledger, since runs in other processes write to it. A run that a watch started takes only
files that the watch has found settled: others may still be written, and are left for the next run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from paddock.runner.bind.bound import BoundPlan
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger

from .watch_spec import (
    UNKNOWN_FILE,
    BatchOutcome,
    BatchStatus,
    FileIdentity,
    WatchFilter,
    WatchSpec,
    is_temporary_path,
    watch_specs,
)
from .watched_folder import FolderIdentity

_EPOCH = ""
"""Path of the row with the count: no file below a root has an empty path."""


@dataclass(frozen=True, slots=True)
class HandledFiles:
    """What the ledger holds of a watch."""

    done: Mapping[str, FileIdentity] = field(default_factory=dict)
    epoch: int = 0
    roots: Sequence[FolderIdentity] = ()
    """Which folder lay at the root, as each machine saw it last; this machine's first."""


class SeenFiles:
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
        epoch, _ = rows.pop(_EPOCH, (0, 0))
        return HandledFiles(rows, epoch, roots)

    def owned(self) -> frozenset[str]:
        """Return the absolute paths below the root that the pipeline itself wrote."""
        base = f"{self._file.parent.resolve()}{os.sep}"
        with self._open(is_readonly=True) as ledger:
            scopes = ledger.scopes_of(self._file.name)
            paths = (
                row.path if os.path.isabs(row.path) else base + row.path  # noqa: PTH117 - many
                for row in ledger.outputs()
                if row.scope in scopes
            )
            return frozenset(path for path in paths if path.startswith(self._prefix))

    def record(
        self, run: str, files: Mapping[str, FileIdentity], gone: Iterable[str], epoch: int
    ) -> None:
        """Write which versions were handled, and forget those that are gone."""
        with self._open(is_readonly=False) as ledger:
            ledger.record_watched(self._watch, run, {**files, _EPOCH: (epoch, 0)}, gone)

    def record_root(self, folder: FolderIdentity) -> None:
        """Write which folder lies at the root."""
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


def batch_outcome(
    ledger: Ledger, run: str, otherwise: BatchStatus = "crashed", message: str = ""
) -> BatchOutcome:
    """Return how a run ended; `otherwise` when the ledger does not know, since it was killed.

    `run` may be the job of several machines: then their runs have each item's outcome, and
    `otherwise` and `message` are the job's. When a run continued one that crashed, the crashed
    run's rows count as well.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    row = ledger.run(run)
    runs = ledger.runs_of(row.parent if row is not None and row.parent else run)
    status = otherwise
    if row is not None and row.status in get_args(BatchStatus):
        status, message = cast(BatchStatus, row.status), row.message or ""
    entries = [item.entry for one in runs for item in ledger.items_of(one)]
    is_failed = ("quarantined", "failed")
    failed = {entry.key: entry.error or "" for entry in entries if entry.state in is_failed}
    again = frozenset(
        entry.key
        for entry in entries  # done, with attempts: a part of it failed, and may pass later
        if entry.state == "failed" or (entry.state == "done" and entry.attempts)
    )
    waiting = frozenset(entry.key for entry in entries if entry.state == "waiting")
    return BatchOutcome(run, status, failed, again, message, waiting)


WATCH_TRIGGER = "watch"


def is_watch_trigger(trigger: str) -> bool:
    return trigger.split(maxsplit=1)[:1] == [WATCH_TRIGGER]


class SettledFiles:
    """Decides of each file whether it has settled. Reads the ledger once for each watch."""

    def __init__(self, bound: BoundPlan, ledger: Ledger) -> None:
        self._specs = watch_specs(bound)
        self._ledger = ledger
        self._rows: dict[str, Mapping[str, FileIdentity]] = {}
        self._filters: dict[str, WatchFilter] = {}

    async def read(self) -> None:
        """Read which versions the watches have submitted so far."""
        for spec in self._specs:
            self._rows[spec.name] = await self._ledger.ask(self._ledger.watched, spec.name)
            self._filters[spec.name] = WatchFilter(spec)

    def is_left(self, item: Any) -> bool:
        """Return whether an item is a file below a watch that has not settled yet."""
        path = item.get("path") if isinstance(item, Mapping) else None
        if not isinstance(path, str):
            return False
        return any(self._is_left_by(spec, path) for spec in self._specs)

    def _is_left_by(self, spec: WatchSpec, path: str) -> bool:
        prefix = f"{spec.root}{os.sep}"
        if not path.startswith(prefix):
            return False
        relpath = path.removeprefix(prefix).replace(os.sep, "/")
        if is_temporary_path(relpath):
            return True
        if not self._filters[spec.name].wants(relpath):
            return False  # not a file of this watch
        row = self._rows[spec.name].get(relpath)
        return row != UNKNOWN_FILE and row != _identity_of_path(path)


def _identity_of_path(path: str) -> FileIdentity | None:
    try:
        facts = os.stat(path)  # noqa: PTH116 - many times in a run
    except OSError:
        return None  # it is gone: its reader reports that
    return facts.st_size, facts.st_mtime_ns
