"""Rows of the ledger, its errors, and the reader of its SQLite file.

Plain values without SQLAlchemy: every run imports this module, and importing SQLAlchemy takes as
long as a whole `validate`.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

ROOM_BYTES = 64 * 1024  # SQLite's index of what was written last takes 32 KiB
_DISK_IS_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))


class LedgerError(Exception):
    """The ledger cannot be used: a newer one, a broken file, a full disk. Says what to do."""


def write_error(cause: object) -> LedgerError:
    """Say that the ledger cannot be written, and why."""
    is_full = "disk is full" in str(cause) or getattr(cause, "errno", None) in _DISK_IS_FULL
    return LedgerError(
        f"the ledger cannot be written ({cause}). What it says is done is done: "
        f"{'make room' if is_full else 'set that right'}, then run the same command again."
    )


class LedgerBusy(LedgerError):
    """Another program holds the ledger's file; nothing is wrong with it."""

    def __init__(self, file: object) -> None:
        super().__init__(
            f"{file}: another program holds the ledger, and did not let it go. What it says is "
            f"done is done: end that program (a backup, a database browser), then run the same "
            f"command again."
        )


def is_busy_error(cause: object) -> bool:
    """Tell by SQLite's words whether somebody else only holds its file."""
    return str(cause).startswith(("database is locked", "database table is locked"))


def read_error(file: object, cause: object) -> LedgerError:
    """Say that the ledger cannot be read, and why."""
    if is_busy_error(cause):
        return LedgerBusy(file)
    if "disk is full" in str(cause):  # its tables could not be made, or changed
        return write_error(cause)
    if str(cause).startswith("disk I/O error"):  # whoever reads needs some room beside the file
        return write_error("the disk is full" if _is_full(file) else cause)
    return LedgerError(
        f"{file}: the ledger cannot be read ({cause}). "
        f"Move that file away to start anew; what it wrote stays where it is."
    )


def _is_full(file: object) -> bool:
    try:
        return shutil.disk_usage(os.path.dirname(str(file)) or ".").free < ROOM_BYTES  # noqa: PTH120
    except OSError:
        return False


def newer_version_error(
    place: object, found: int, ours: int, way_out: str | None = None
) -> LedgerError:
    """Say that a newer Paddock wrote the ledger."""
    return LedgerError(
        f"{place}: this ledger was written by a newer Paddock (its version is {found}, "
        f"this one reads {ours}). Update Paddock"
        f"{way_out or ', or move that file away to start anew'}."
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished item, as it was recorded."""

    key: str
    hash: str
    parts: str
    """JSON: part of the hash → its digest; tells which difference is the reason."""
    state: str
    """`done`, `skipped`, `quarantined` or `failed`."""
    error: str | None = None
    returns: str | None = None
    """JSON, or None where `returns_object` names it."""
    returns_object: str | None = None
    reads: str | None = None
    """JSON: path → [size, mtime_ns, sha256] of files that it read besides its own."""
    outputs: str | None = None
    """JSON: the stored paths of the files that it wrote."""
    has_inner_failures: bool = False
    seconds: float = 0.0
    calls: int = 0
    tokens: int = 0
    gone: str | None = None
    """The run that found its source deleted."""
    attempts: int = 0
    """How often in a row it failed for a reason that may pass."""
    was: str | None = None
    """What it was before it was done: `new`, `changed` or `stale`."""
    run: str = field(default="", compare=False)
    """The run that recorded it; the ledger fills it in."""
    at: float = field(default=0.0, compare=False)
    """When, in seconds since 1970, by the clock of the machine that recorded it."""


@dataclass(frozen=True, slots=True)
class ItemRow:
    """An entry with the step that it belongs to."""

    scope: str
    step: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run, as it was recorded."""

    run: str
    pipeline: str
    file: str
    """The pipeline's file, relative to the ledger's folder of pipelines."""
    started: float
    """Seconds since 1970."""
    ended: float | None
    """None while it runs, and for ever where it was killed."""
    status: str
    """`running` or how it ended."""
    summary: str | None
    """JSON: its report without the items."""
    trigger: str = "hand"
    """What began it: `hand`, `schedule`, `watch`, `webhook`."""
    host: str | None = None
    pid: int | None = None
    attempt: int = 1
    """Counts how often this work was begun, where a run that crashed is begun again."""
    message: str | None = None
    parent: str | None = None
    """The run of which this one is another attempt, or a part on another machine."""
    given: str | None = None
    """JSON: the inputs that it was given by hand, and the names of those that are kept nowhere."""


@dataclass(frozen=True, slots=True)
class OutputRow:
    """A file that an item wrote, or is about to write."""

    scope: str
    path: str
    key: str
    sha256: str | None
    intended: tuple[str, ...]
    size: int | None
    mtime_ns: int | None


@dataclass(frozen=True, slots=True)
class CallRow:
    """One model call with its raw reply."""

    hash: str
    kind: str
    model: str
    digest: str
    served_digest: str
    request: str
    reply: bytes
    done_reason: str | None
    usage: Mapping[str, Any]
    scope: str
    step: str
    key: str


@dataclass(frozen=True, slots=True)
class LineageRow:
    """Where an item's entry came from."""

    scope: str
    key: str
    run: str
    at: float
    """When it was written; the ledger fills it in."""
    spec: str | None
    """Digest of the block or step as written; the ledger has its text."""
    source: str | None
    """The stored path of the file that it is."""
    made: Any
    """Its source, and each step with its calls, in order; see `runner/core/run_records.py`."""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """What an item has in a vector store."""

    scope: str
    path: str
    """Of the store, as outputs are stored: relative to the pipeline's folder where it is inside."""
    key: str
    sha256: str
    """Of its rows' contents, in whatever way the store counts them."""
    n_rows: int
    run: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """An item that a run has begun; the row is gone when the item has ended in order."""

    scope: str
    key: str
    run: str
    hash: str
    at: float
    around_scope: str | None = None
    """Of the item around it, where its block is nested."""
    around_key: str | None = None


@dataclass(frozen=True, slots=True)
class RecordedModelCall:
    """A call as it was recorded, to be looked at."""

    hash: str
    kind: str
    model: str
    digest: str
    served_digest: str
    done_reason: str | None
    run: str
    """The run that made it."""
    at: float
    usage: Mapping[str, Any]
    request: str
    """JSON."""
    reply: bytes


VERSION = 4
"""Of the tables; see `tables` for how older ones become this one."""

BUSY_TIMEOUT_S = 30.0


class LedgerReader(Protocol):
    """Answers a portable query with named values (`:name`)."""

    def rows(self, query: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Return the rows."""
        ...

    def close(self) -> None:
        """Let the file go."""
        ...


class SqliteReader:
    """Reads an SQLite file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._connection = sqlite3.connect(
                file, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        except sqlite3.DatabaseError as error:
            raise read_error(file, error) from error
        try:
            self._version = self._found()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise read_error(file, error) from error
        if self._version > VERSION:
            self._connection.close()
            raise newer_version_error(file, self._version, VERSION)

    def _found(self) -> int:
        made = "select 1 from sqlite_master where name = 'meta'"
        if self._connection.execute(made).fetchone() is None:
            return 0
        query = "select value from meta where name = 'version'"
        row = self._connection.execute(query).fetchone()
        # Tables without a version: somebody is making them at this moment, or was killed at it.
        return 0 if row is None else int(row[0])

    def is_older(self) -> bool:
        """Return whether the tables must be brought up to date first."""
        return self._version < VERSION

    def rows(self, query: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Return the rows.

        Raises:
            LedgerError: the file is broken at this place, or another program holds it.
        """
        try:
            return self._connection.execute(query, dict(values)).fetchall()
        except sqlite3.DatabaseError as error:
            raise read_error(self._file, error) from error

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()
