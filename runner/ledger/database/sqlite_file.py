"""A ledger in an SQLite file: read it, make its tables, commit rows, compact it.

The file may have been changed by others: it has plain tables, or it is refused; nothing of its
schema is executed, and each statement has a deadline. Readers cannot write.

Write-ahead log, one writing connection; runs and other readers use connections of their own.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from paddock.engine.system.disk_space import free_disk_bytes, is_disk_full
from paddock.engine.system.text import one_line

from ..entries import LedgerError
from .ledger_tables import (
    BEFORE,
    COLUMNS,
    KEYS,
    VERSION_FACTS,
    Execute,
    Pending,
    check_version,
    create_statements,
    made_facts,
    write_statements,
)

READ_S, WORK_S = 20.0, 600.0
"""Deadlines of a reader's statement, and of one of a run or of `paddock clean`."""
STEPS_BETWEEN_LOOKS = 20_000  # of SQLite's virtual machine, about a millisecond
READ_WAIT_S = 30.0
"""Readers wait this long for a program that holds the file."""
ROWS_AT_A_TIME = 1000
PAGE_BYTES = 8192  # events of 1 KiB: with 4,096 a quarter of each page stays empty
ROOM_BYTES = 64 * 1024  # the index of the write-ahead log takes 32 KiB
NOTED_AFTER_S = 5.0
"""A commit waits this long before it reports that another program holds the file."""

# A file is compacted if this share of it, and at least so many bytes, is unused.
VACUUM_SHARE, VACUUM_BYTES = 0.25, 8 * 1024**2
VACUUM_S = 20.0  # less than `READ_WAIT_S`
MOST_VACUUM_BYTES = 2 * 1024**3

T = TypeVar("T")

_WORDS = frozenset(("error", "message", "reason", "reply", "text"))
"""Columns of texts, which may begin as JSON does."""
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
# In a damaged file, the text of SQLite's own error may be no UTF-8: sqlite3 cannot make its error.
_DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)

_REMEDY = (
    "Move the file away to start without it: what pipelines wrote stays (`run --take` replaces it)."
)


# Actions that make what is executed later, or reach another file.
_REFUSED_ACTIONS = frozenset((
    sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_CREATE_VIEW,
    sqlite3.SQLITE_CREATE_TEMP_VIEW, sqlite3.SQLITE_CREATE_TRIGGER,
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER, sqlite3.SQLITE_CREATE_VTABLE, sqlite3.SQLITE_RECURSIVE,
))  # fmt: skip
# Of a table that computes columns or checks values; of an index with conditions or expressions.
_NO_PLAIN_TABLE = re.compile(r"\b(as|check|generated)\b", re.IGNORECASE)
_NO_PLAIN_INDEX = re.compile(r"\bwhere\b|\(.*\(", re.IGNORECASE | re.DOTALL)


@lru_cache
def _is_plain(kind: str, text: str) -> bool:
    what = {"table": _NO_PLAIN_TABLE, "index": _NO_PLAIN_INDEX}.get(kind)
    return what is not None and not what.search(text)


class SqliteDatabase:
    """Implements `LedgerDatabase` over a file; each statement is a transaction."""

    listed_keys = "json_each(:keys)"
    now = "(julianday('now') - 2440587.5) * 86400.0"
    size_query = (
        "select (pages.page_count - free.freelist_count) * sizes.page_size "
        "from pragma_page_count() pages, pragma_freelist_count() free, pragma_page_size() sizes"
    )

    def __init__(self, file: Path, *, is_writer: bool = False, is_readonly: bool = False) -> None:
        self._file = file
        self._limit_s = READ_S if is_readonly else WORK_S
        self._ends_at = float("inf")
        """When what is executed now is ended."""
        self._lock = threading.Lock()
        """Held by the thread that is in a transaction, reads rows, or closes the connection."""
        wait_s = NOTED_AFTER_S if is_writer else READ_WAIT_S
        with self._explained():
            self._connection = _connect(file, wait_s)
            self._connection.execute(f"PRAGMA query_only={is_readonly:d}")
            # What a view or a trigger asks for has its name as the last value.
            self._connection.set_authorizer(
                lambda action, *names: (
                    sqlite3.SQLITE_DENY
                    if action in _REFUSED_ACTIONS or names[-1] is not None
                    else sqlite3.SQLITE_OK
                )
            )
            self._connection.set_progress_handler(
                lambda: time.monotonic() > self._ends_at, STEPS_BETWEEN_LOOKS
            )

    def find_tables(self) -> bool:
        version = self.version()
        return bool(version) and check_version(self._file, self.rows(VERSION_FACTS, {}), _REMEDY)

    def version(self) -> str:
        """Return the version of its tables; empty: there are none.

        Raises:
            LedgerError: it has more than plain tables.
        """
        for kind, name, page, text in self.rows(
            "select type, name, rootpage, coalesce(sql, '') from sqlite_master", {}
        ):
            if not page or not _is_plain(kind, text):  # views and virtual tables have no page
                raise LedgerError(
                    f"{self._file}: this is no ledger of Paddock's: '{name}' in it is no plain "
                    f"table. Move the file away to start without it."
                )
        has_facts = self.rows("select 1 from sqlite_master where name = 'meta'", {})
        return self.fact("version") if has_facts else ""

    def leave_log(self) -> None:
        """Write all of it into the one file, without a log beside it.

        Raises:
            LedgerError: another process has it open.
        """
        if self.rows("PRAGMA journal_mode=DELETE", {})[0][0] != "delete":
            raise LedgerBusy(self._file)

    def identity(self) -> str:
        """Return the identity of a ledger with tables; empty: it was removed."""
        return self.fact("identity")

    def fact(self, name: str) -> str:
        found = self.rows(
            "select substr(value, 1, 255) from meta where name = :name", {"name": name}
        )
        return str(found[0][0]) if found else ""

    def set_fact(self, name: str, value: str) -> None:
        if self.fact(name) != value:
            self.write_rows({"meta": {(name,): {"name": name, "value": value}}})

    def make_tables(self, identity: str) -> None:
        """Make the tables where they are missing, and note the ledger's identity.

        No other process may do so at the same time.
        """
        if self.find_tables():
            if self.identity() == identity:
                return
        elif self.rows("select 1 from sqlite_master", {}):
            raise LedgerError(
                f"{self._file}: this is no ledger of Paddock's: it has tables and no version. "
                "Move the file away to start without it."
            )
        with self._explained():
            self._connection.execute(f"PRAGMA page_size={PAGE_BYTES}")  # of a new file
            self._connection.execute("PRAGMA journal_mode=WAL")  # lasting
            with _transaction(self._connection):
                for statement in create_statements("integer", "without rowid"):
                    self._connection.execute(statement)
                self._connection.executemany(
                    "insert or replace into meta values (?, ?)",
                    ({**made_facts(), "identity": identity}).items(),
                )

    def reserve_run(self, statement: str, values: Mapping[str, Any]) -> bool:
        return True  # the runs of other machines are not in it

    def has_ended(self, session: str) -> bool:
        return False  # a file tells nothing of processes elsewhere

    def in_transaction(self, work: Callable[[Execute], T]) -> T:
        with self._lock, self._explained(self._limit_s), _transaction(self._connection):
            return work(
                lambda query, values: self._connection.execute(query, dict(values)).fetchall()
            )

    def rows(self, query: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        with self._lock, self._explained(self._limit_s):
            return self._connection.execute(query, dict(values)).fetchall()

    def write_rows(self, pending: Pending) -> None:
        self._ends_at = time.monotonic() + self._limit_s
        try:
            with _transaction(self._connection):
                for statement, values in write_statements(pending, "?"):
                    self._connection.execute(statement, values)
        except (*_DAMAGE, sqlite3.Error, OSError) as error:
            is_busy = primary_code(error) in _BUSY
            raise (LedgerBusy(self._file) if is_busy else write_error(error)) from error
        finally:
            self._ends_at = float("inf")

    def drop_kept(self, before: float | None = None) -> None:
        kept = kept_file(self._file)
        with contextlib.suppress(OSError):
            if before is None or kept.stat().st_mtime < before:
                kept.unlink()

    def lasting_rows(self) -> Iterator[Pending]:
        """Yield the rows that outlast a run, some at a time; none without tables."""
        cursor = self._connection.cursor()
        for table in KEYS if self.find_tables() else ():
            with self._explained():
                cursor.execute(f"select * from {table}")
                names = [column[0] for column in cursor.description]
                while rows := cursor.fetchmany(ROWS_AT_A_TIME):
                    found = [dict(zip(names, row, strict=True)) for row in rows]
                    for row in found if table == "events" else ():  # SQLite has no booleans
                        if row["has_inner_failures"] is not None:
                            row["has_inner_failures"] = bool(row["has_inner_failures"])
                    yield {table: {tuple(row[key] for key in KEYS[table]): row for row in found}}

    def damage_behind(self, error: BaseException) -> LedgerError | None:
        """Return the damage that is found in the file after an unexpected error."""
        if not isinstance(error, Exception):
            return None
        is_of_value = isinstance(error, ValueError)  # as of all that decode JSON
        return self._damage or (self._cut_value() if is_of_value else None)

    @cached_property
    def _damage(self) -> LedgerError | None:
        try:
            (found,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        except _DAMAGE as fault:
            return read_error(self._file, fault)
        return None if found == "ok" else damage_error(self._file, one_line(str(found)))

    def _cut_value(self) -> LedgerError | None:
        """Return which column has a value that begins as JSON and is none."""
        places = ((table, name) for table in KEYS for name in COLUMNS[table] if name not in _WORDS)
        for table, name in places:
            query = f"select 1 from {table} where substr({name}, 1, 1) in ('{{', '[')"
            if self.rows(f"{query} and not json_valid({name}) limit 1", {}):
                return damage_error(self._file, f"a value of '{table}.{name}' was cut off")
        return None

    def close(self) -> None:
        with self._lock:  # closed under a thread that uses it, SQLite crashes the process
            self._connection.close()

    @contextlib.contextmanager
    def _explained(self, limit_s: float = float("inf")) -> Iterator[None]:
        self._ends_at = time.monotonic() + limit_s
        try:
            yield
        except _DAMAGE as error:
            if primary_code(error) == sqlite3.SQLITE_INTERRUPT:
                raise LedgerError(
                    f"{self._file}: the ledger did not answer within {self._limit_s:g} s. "
                    f"Look whether the disk is slow, or move the file away."
                ) from error
            raise read_error(self._file, error) from error
        finally:
            self._ends_at = float("inf")


def kept_file(file: Path) -> Path:
    """Return where a ledger of the version before lies when it was carried over."""
    return file.with_name(f"{file.stem}.{BEFORE}{file.suffix}")


def compact_file(file: Path) -> bool:
    """Remove unused space from a ledger's file within `VACUUM_S`; return whether it was done.

    Skipped if it is not worth it or takes too long.

    Raises:
        LedgerError: the file is broken.
    """

    def is_worth_it(n_bytes: int, n_unused: int) -> bool:
        is_much = n_unused >= VACUUM_BYTES and n_unused >= VACUUM_SHARE * n_bytes
        return is_much and n_bytes <= MOST_VACUUM_BYTES

    return _vacuum(file, VACUUM_S, is_worth_it) is not None


def overwrite_unused_space(file: Path) -> bool:
    """Leave nothing of removed rows in a ledger's file; return False if a reader holds its log.

    Raises:
        LedgerError: the file is broken.
    """
    return _vacuum(file, WORK_S, lambda n_bytes, n_unused: True) or False


def _vacuum(file: Path, limit_s: float, is_worth_it: Callable[[int, int], bool]) -> bool | None:
    """Write a file again without unused space; return whether its log is emptied, too.

    None: it was not done. The disk has no room for a second file, a run writes, or it took too
    long. `is_worth_it` is asked with the bytes of the file, and those that are unused.
    """
    try:
        with contextlib.closing(_connect(file, 1.0)) as connection:
            page, n_pages, n_free = (
                int(connection.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_size", "page_count", "freelist_count")
            )
            has_room = shutil.disk_usage(file.parent).free > 2 * page * n_pages
            if not (has_room and is_worth_it(page * n_pages, page * n_free)):
                return None
            ends_at = time.monotonic() + limit_s
            connection.set_progress_handler(lambda: int(time.monotonic() > ends_at), 10_000)
            connection.execute("VACUUM")
            return not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.OperationalError:  # out of time, or another process writes
        return None
    except _DAMAGE as error:
        raise read_error(file, error) from error


def _connect(file: Path, wait_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        file, timeout=wait_s, isolation_level=None, check_same_thread=False
    )
    try:
        # An entry outlasts a power cut, not only a kill. Commits are grouped, so it is cheap.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")  # no cost was seen in 60,000 rows
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        connection.execute("PRAGMA cache_size=-500")  # KiB; three of 2,000 are no faster
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise


# --- errors


class LedgerBusy(LedgerError):
    """Another program holds the ledger's file; the file itself is sound."""

    def __init__(self, file: object) -> None:
        super().__init__(
            f"{file}: another program holds the ledger and did not release it. "
            f"End that program (a backup, a database browser) and run again; "
            f"finished items are kept."
        )


def write_error(cause: object, *, is_full: bool = False) -> LedgerError:
    is_full = is_full or primary_code(cause) == sqlite3.SQLITE_FULL or is_disk_full(cause)
    return LedgerError(
        f"the ledger cannot be written ({cause}). "
        f"{'Free some space' if is_full else 'Correct that'} and run again; "
        f"finished items are kept."
    )


def refuse_full_disk(folder: Path) -> None:
    if folder.exists() and shutil.disk_usage(folder).free < ROOM_BYTES:
        raise write_error(f"the disk of {folder} is full", is_full=True)


def read_error(file: Path, cause: Exception) -> LedgerError:
    code = primary_code(cause)
    if code in _BUSY:
        return LedgerBusy(file)
    if code == sqlite3.SQLITE_FULL:  # while its tables were made
        return write_error(cause)
    if code == sqlite3.SQLITE_IOERR:  # readers need some room beside the file too
        is_full = free_disk_bytes(file.parent) < ROOM_BYTES
        return write_error("the disk is full" if is_full else cause, is_full=is_full)
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return LedgerError(
            f"{file}: the ledger cannot be opened ({cause}). SQLite needs the file and its folder "
            f"to be writable, also for reading. Make them so and run again; finished items are "
            f"kept."
        )
    return damage_error(file, cause)


def damage_error(file: Path, cause: object) -> LedgerError:
    return LedgerError(
        f"{file}: the ledger cannot be read ({cause}). "
        f"Restore a backup, or move the file away to start without it: what pipelines wrote "
        f"stays, and people's decisions are lost."
    )


def primary_code(error: object) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
