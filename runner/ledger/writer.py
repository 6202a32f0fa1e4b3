"""The ledger's writer: a thread that commits everything queued since its last commit.

It owns the writing connection. A row that is put twice before a commit is written once, and many
items share one commit, which keeps an entry cheap. `SqliteCommit` writes with the standard
library: importing SQLAlchemy takes as long as a whole `validate`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .entries import LedgerBusy, LedgerError, SqliteReader, is_busy_error, write_error

KEYS: Mapping[str, tuple[str, ...]] = {
    "runs": ("run",),
    "scopes": ("scope",),
    "items": ("scope", "key"),
    "calls": ("hash",),
    "outputs": ("scope", "path"),
    "provenance": ("scope", "key"),
    "specs": ("spec",),
    "stored": ("scope", "path", "key"),
    "watched": ("watch", "path"),
    "attempts": ("scope", "key", "run"),
    "roots": ("owner", "path", "host"),
}
"""Each table that is written to, with its primary key as `tables` makes it."""

Row = Mapping[str, Any]
_Key = tuple[Any, ...]
Pending = Mapping[str, Mapping[_Key, Row | None]]
"""Table → primary key → the row to write, None to take it out."""
Commit = Callable[[Pending], None]
"""Writes all of it or nothing; raises LedgerError where it cannot, `LedgerBusy` to be asked again."""
_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]

# Another program that holds the file (a backup, a database browser) is told of after the first,
# and waited for as long as the second; less when the run is to end, which nobody waits for gladly.
TOLD_AFTER_S, BUSY_S, BUSY_AT_END_S = 5.0, 600.0, 10.0


class Writer:
    """Rows go in from any thread; `durable` waits until they are on the disk."""

    def __init__(
        self,
        commit: Commit,
        let_go: Callable[[], None] = lambda: None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._commit = commit
        self._let_go = let_go
        self._tell = tell
        self._wake = threading.Condition()
        self._pending: dict[str, dict[_Key, Row | None]] = {}
        self._waiters: list[_Waiter] = []
        self._error: LedgerError | None = None
        self._is_busy = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    def put(self, name: str, row: Row) -> None:
        """Write a whole row into a table, in place of the one with the same primary key.

        Raises:
            LedgerError: an earlier write failed; nothing more is taken.
        """
        self._take(name, row, row)

    def drop(self, name: str, key: Row) -> None:
        """Take the row with this primary key out of a table.

        Raises:
            LedgerError: an earlier write failed; nothing more is taken.
        """
        self._take(name, key, None)

    def _take(self, name: str, key: Row, row: Row | None) -> None:
        values = tuple(key[column] for column in KEYS[name])
        with self._wake:
            if self._error is not None:
                raise self._error
            self._pending.setdefault(name, {})[values] = row
            self._wake.notify()

    async def durable(self) -> None:
        """Wait until everything put so far is committed.

        Raises:
            LedgerError: it could not be written.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._wake:
            if self._error is not None:
                raise self._error
            if not self._pending and not self._is_busy:
                return
            self._waiters.append((loop, future))
            self._wake.notify()
        await future

    def close(self) -> None:
        """Commit what is left and end the thread; a failure was or is told by `error`."""
        with self._wake:
            self._is_closed = True
            self._wake.notify()
        self._thread.join()
        self._let_go()

    @property
    def error(self) -> LedgerError | None:
        """Why writing stopped, if it did."""
        return self._error

    def _work(self) -> None:
        while True:
            with self._wake:
                self._is_busy = False
                while not self._pending and not self._waiters and not self._is_closed:
                    self._wake.wait()
                if self._is_closed and not self._pending and not self._waiters:
                    return
                pending, self._pending = self._pending, {}
                waiters, self._waiters = self._waiters, []
                self._is_busy = True
            error = self._try(pending)
            if error is not None:
                with self._wake:
                    self._error = error
                    self._pending = {}
                    waiters += self._waiters
                    self._waiters = []
            _wake_waiters(waiters, error)

    def _try(self, pending: Pending) -> LedgerError | None:
        began = time.monotonic()
        while True:
            try:
                self._commit(pending)
            except LedgerBusy as error:
                self._tell("another program holds the ledger; waiting for it")
                waited_s = time.monotonic() - began
                if waited_s > (BUSY_AT_END_S if self._is_closed else BUSY_S):
                    return error
            except LedgerError as error:
                return error
            else:
                return None


def open_for_writing(file: Path) -> SqliteReader:
    """Open a file that is to be written: its tables are made, or older ones brought up to date.

    Nobody else may be at it.

    Raises:
        LedgerError: newer than this Paddock, or no ledger.
    """
    found = SqliteReader(file)
    if not found.is_older():
        return found
    found.close()
    from . import ledger_tables  # SQLAlchemy

    ledger_tables.make_tables(file)
    return SqliteReader(file)


class SqliteCommit:
    """Commits to an SQLite file, over a connection of its own; belongs to the writer's thread."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._connection: sqlite3.Connection | None = None

    def __call__(self, pending: Pending) -> None:
        """Write all of it or nothing.

        Raises:
            LedgerError: the file cannot be written; `LedgerBusy`: another program holds it.
        """
        try:
            self._connection = self._connection or _connected(self._file)
            _write(self._connection, pending)
        except (sqlite3.Error, OSError) as error:
            cause = LedgerBusy(self._file) if is_busy_error(error) else write_error(error)
            raise cause from error

    def close(self) -> None:
        """Let the file go."""
        if self._connection is not None:
            self._connection.close()


def _connected(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        file, timeout=TOLD_AFTER_S, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        # An entry survives a power cut, not only a kill. Commits are grouped, so it is cheap.
        connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _write(connection: sqlite3.Connection, pending: Pending) -> None:
    """Write all of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for table, rows in pending.items():
            gone = [key for key, row in rows.items() if row is None]
            kept = [row for row in rows.values() if row is not None]
            if gone:
                connection.executemany(_delete(table), gone)
            if kept:
                connection.executemany(_replace(table, tuple(kept[0])), kept)
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise


def _delete(table: str) -> str:
    return f"delete from {table} where {' and '.join(f'{name} = ?' for name in KEYS[table])}"


def _replace(table: str, columns: Sequence[str]) -> str:
    """Rows of one table are given whole or with the same columns left out."""
    names = ", ".join(f'"{name}"' for name in columns)
    return f"replace into {table} ({names}) values ({', '.join(f':{name}' for name in columns)})"


def _wake_waiters(waiters: Iterable[_Waiter], error: LedgerError | None) -> None:
    """Wake each waiter in its own loop; one call for each loop, since calls are what costs."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for loop, future in waiters:
        by_loop.setdefault(loop, []).append(future)
    for loop, futures in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_set_results, futures, error)


def _set_results(futures: Iterable[asyncio.Future[None]], error: LedgerError | None) -> None:
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
