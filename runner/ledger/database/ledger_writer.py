"""The thread that writes a ledger: everything queued since its last commit is one transaction.

A row that is queued twice is written once, and many items share one commit.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable

from ..entries import LedgerError
from .ledger_tables import KEYS, Key, LedgerDatabase, Pending, Row
from .sqlite_file import LedgerBusy

_Waiter = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]

# How long a commit is tried again while another program (a backup, a database browser) holds the
# file; shorter when the run is to end, since a person may wait for it.
BUSY_S, BUSY_AT_END_S = 600.0, 10.0


class Writer:
    """Takes rows from any thread; `durable` waits until they are on the disk."""

    def __init__(self, database: LedgerDatabase, note: Callable[[str], None]) -> None:
        """`database`: a connection of its own, which it closes."""
        self._database = database
        self._note = note
        self._wake = threading.Condition()
        self._pending: dict[str, dict[Key, Row | None]] = {}
        self._committing: Pending = {}
        self._waiters: list[_Waiter] = []
        self.n_commits = 0
        self.error: LedgerError | None = None
        self._is_busy = False
        self._is_due = False
        self._flushing: asyncio.AbstractEventLoop | None = None
        """The loop that is about to call `flush`."""
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    def queue(self, table: str, key: Row, row: Row | None) -> None:
        """Queue columns of the row with the primary key in `key`; None deletes that.

        Raises:
            LedgerError: an earlier write failed; no more rows are taken.
        """
        values = tuple(key[column] for column in KEYS[table])
        with self._wake:
            if self.error is not None:
                raise self.error
            rows = self._pending.setdefault(table, {})
            before = rows.get(values)
            rows[values] = row if row is None or before is None else {**before, **row}
        self._flush_soon()

    def queued_row(self, table: str, key: Key) -> Row | None:
        with self._wake:
            parts: tuple[Pending, ...] = (self._pending, self._committing)
            return next((part[table][key] for part in parts if key in part.get(table, ())), None)

    async def durable(self) -> None:
        """Wait until everything queued so far is committed.

        Raises:
            LedgerError: it could not be written.
        """
        with self._wake:
            if self.error is not None:
                raise self.error
            if not self._pending and not self._is_busy:
                return
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            self._waiters.append((loop, future))
        self._flush_soon()
        await future

    def _flush_soon(self) -> None:
        """Commit the queue once the loop has called all that is ready.

        Many items are in a commit then, and the thread takes the interpreter's lock seldom.
        """
        flushing = self._flushing
        if flushing is not None and flushing.is_running():
            return
        try:
            loop = self._flushing = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        with self._wake:
            self._flushing = None
            if self._pending or self._waiters:
                self._is_due = True
                self._wake.notify()

    def close(self) -> None:
        with self._wake:
            self._is_closed = True
            self._wake.notify()
        self._thread.join()
        self._database.close()

    def _work(self) -> None:
        while True:
            with self._wake:
                self._is_busy, self._committing = False, {}
                while not self._is_due and not self._is_closed:
                    self._wake.wait()
                self._is_due = False
                if self._is_closed and not self._pending and not self._waiters:
                    return
                self._committing = pending = self._pending
                self._pending = {}
                waiters, self._waiters = self._waiters, []
                self._is_busy = True
            began, is_written = time.monotonic(), False
            error: LedgerError | None = None
            while error is None and not is_written:
                try:
                    self._database.write_rows(pending)
                    is_written = True
                    self.n_commits += 1
                except LedgerBusy as busy:
                    self._note("another program holds the ledger; waiting for it")
                    waited_s = time.monotonic() - began
                    if waited_s > (BUSY_AT_END_S if self._is_closed else BUSY_S):
                        error = busy
                except LedgerError as failed:
                    error = failed
            if error is not None:
                with self._wake:
                    self.error = error
                    self._pending = {}
                    waiters += self._waiters
                    self._waiters = []
            # Wake each waiter in its own loop; one call for each loop, since calls are what costs.
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
