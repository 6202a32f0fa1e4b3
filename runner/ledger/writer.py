"""The ledger's one writer: a thread that commits whatever has come together since its last commit.

It owns the writing connection. A row that is put twice before a commit is written once. Many
items that wait for their entry share one commit, which is what keeps an entry cheap.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Table, bindparam
from sqlalchemy.exc import DBAPIError

from .entries import LedgerError, Occupied, is_occupied, unwritable
from .tables import TABLES

Row = Mapping[str, Any]
_Key = tuple[Any, ...]
Pending = Mapping[Table, Mapping[_Key, Row | None]]
"""Table → primary key → the row to write, None to take it out."""
Commit = Callable[[Pending], None]
"""Writes all of it or nothing; raises LedgerError where it cannot, `Occupied` to be asked again."""
_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]

# Another program that holds the file (a backup, a database browser) is told of after the first,
# and waited for as long as the second; less when the run is to end, which nobody waits for gladly.
TOLD_AFTER_S, OCCUPIED_S, OCCUPIED_AT_END_S = 5.0, 600.0, 10.0


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
        self._pending: dict[Table, dict[_Key, Row | None]] = {}
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
        table = TABLES[name]
        values = tuple(key[column.name] for column in table.primary_key)
        with self._wake:
            if self._error is not None:
                raise self._error
            self._pending.setdefault(table, {})[values] = row
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
            _answer(waiters, error)

    def _try(self, pending: Pending) -> LedgerError | None:
        began = time.monotonic()
        while True:
            try:
                self._commit(pending)
            except Occupied as error:
                self._tell("another program holds the ledger; waiting for it")
                waited_s = time.monotonic() - began
                if waited_s > (OCCUPIED_AT_END_S if self._is_closed else OCCUPIED_S):
                    return error
            except LedgerError as error:
                return error
            else:
                return None


def file_commit(engine: Engine, file: Path) -> Commit:
    """Give what commits to an SQLite file."""

    def commit(pending: Pending) -> None:
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {TOLD_AFTER_S * 1000:.0f}")
                for table, rows in pending.items():
                    names = [column.name for column in table.primary_key]
                    where = [
                        column == bindparam(f"at_{column.name}") for column in table.primary_key
                    ]
                    # Delete and insert is the one "upsert" that every SQLite understands.
                    connection.execute(
                        table.delete().where(*where),
                        [{f"at_{n}": v for n, v in zip(names, key, strict=True)} for key in rows],
                    )
                    kept = [row for row in rows.values() if row is not None]
                    if kept:
                        connection.execute(table.insert(), kept)
        except (DBAPIError, OSError) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise (Occupied(file) if is_occupied(cause) else unwritable(cause)) from error

    return commit


def _answer(waiters: Iterable[_Waiter], error: LedgerError | None) -> None:
    """Wake each waiter in its own loop; one call for each loop, since calls are what costs."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for loop, future in waiters:
        by_loop.setdefault(loop, []).append(future)
    for loop, futures in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, futures, error)


def _settle(futures: Iterable[asyncio.Future[None]], error: LedgerError | None) -> None:
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
