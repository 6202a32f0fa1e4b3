"""Calls of webhooks, kept on the disk until Prefect has their runs.

A call is answered when its row is on the disk (SQLite). Calls that arrive together share one
transaction, because a commit waits for the disk: 100 at once took 30 s as flow runs of Prefect's
SQLite. The call's key is the table's key, so a repeated call is one row and one run, and so is one
with the same signature under another key. Rows are kept for a week after Prefect took them, for
callers that repeat a call; their inputs until the run is over, so that it can be taken back.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from paddock.engine.system import private_files
from paddock.engine.system.light_dataclasses import dataclass
from paddock.engine.system.text import one_line
from paddock.runner.ledger.database.sqlite_file import primary_code

log = logging.getLogger("paddock.up")

QUEUE_FILE = "webhooks.sqlite"
MOST_WAITING = 10_000
"""Calls of one pipeline that Prefect has not taken yet; further calls get 429."""
DAMAGED = "damaged: "
"""Begins the pipeline of a damaged call."""
KEPT_S = 7 * 86_400.0
LOCK_S = 10.0

_CALLS_TABLE = """
CREATE TABLE IF NOT EXISTS calls (
    id TEXT PRIMARY KEY, pipeline TEXT NOT NULL, trigger TEXT NOT NULL, inputs TEXT NOT NULL,
    received_at REAL NOT NULL, queued_at REAL, run TEXT, signature TEXT, set_aside TEXT,
    n_taken_back INTEGER DEFAULT 0
)
"""
_LATER_COLUMNS = ("signature TEXT", "set_aside TEXT", "n_taken_back INTEGER DEFAULT 0")
"""What tables of earlier versions lack."""
_WAITS = "queued_at IS NULL AND set_aside IS NULL"


class WebhookQueueBroken(Exception):
    """The table cannot be read or written: a full disk, a damaged file."""


@dataclass(frozen=True, slots=True)
class AcceptedCall:
    """One call that becomes a run. `pipeline` is the key of its file, `id` the same if repeated."""

    id: str
    pipeline: str
    trigger: str
    inputs: Mapping[str, Any]
    received_at: float = 0.0
    """Seconds since 1970."""
    signature: str | None = None
    """What no other call of the pipeline has."""
    n_taken_back: int = 0
    """How often a run of it was taken back before its end."""


@dataclass(frozen=True, slots=True)
class CallReceipt:
    """What became of a stored call."""

    is_known: bool
    run: str | None
    """The flow run, once Prefect has taken it."""
    id: str = ""
    """Of the first call with its signature."""


class WebhookQueue:
    """The table. Lives in one event loop; a thread of its own accesses the file.

    But for `open` and `close`, each method that accesses it raises `WebhookQueueBroken` if it
    cannot be read or written: nothing has changed then.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / QUEUE_FILE
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="webhooks")
        self._connection: sqlite3.Connection | None = None
        self._arriving: list[tuple[AcceptedCall, asyncio.Future[CallReceipt]]] = []
        self._writing: asyncio.Task[None] | None = None
        self.waiting: Counter[str] = Counter()
        """Calls that Prefect has not taken yet, by pipeline."""
        self.fault = ""
        """Why the table cannot be used now; empty when it can."""
        self.arrived = asyncio.Event()
        """Set when there may be calls to submit."""

    async def open(self) -> None:
        """Open the table. A failure is kept in `fault`: each call then tries again.

        Deletes rows that Prefect took long ago.
        """
        try:
            await self._do(lambda db: None)
        except WebhookQueueBroken:
            return
        if self.waiting.total():
            self.arrived.set()

    async def close(self) -> None:
        """Write what has arrived, and close the file."""
        if self._writing is not None and not self._writing.done():
            await asyncio.wait({self._writing})
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def is_full(self, pipeline: str) -> bool:
        """Return whether a pipeline's waiting calls have reached the limit."""
        return self.waiting[pipeline] >= MOST_WAITING

    async def put(self, call: AcceptedCall) -> CallReceipt:
        """Store a call; it is on the disk when this returns."""
        future: asyncio.Future[CallReceipt] = asyncio.get_running_loop().create_future()
        self._arriving.append((call, future))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await future

    async def oldest(self, pipeline: str, n: int) -> list[AcceptedCall]:
        """Return the oldest calls of a pipeline that Prefect has not taken yet.

        Damaged ones are reported and set aside: their rows stay, and are no calls any more.
        """
        calls: list[AcceptedCall]
        calls, damaged = await self._do(lambda db: _oldest_calls(db, pipeline, n))
        for id_ in damaged:
            self.waiting[pipeline] -= 1
            log.warning(
                "%s: the webhook call '%s' of %s is damaged and becomes no run; its row stays "
                "there, as one of '%s%s'.", self._file, id_, pipeline, DAMAGED, pipeline
            )  # fmt: skip
        return calls

    async def queued(self, calls: Sequence[AcceptedCall], run: str) -> None:
        """Record that Prefect has taken calls, as this flow run."""
        changed = "UPDATE calls SET queued_at = ?, run = ? WHERE id = ?"
        rows = [(time.time(), run, call.id) for call in calls]
        await self._do(lambda db: db.executemany(changed, rows))
        for call in calls:
            self.waiting[call.pipeline] -= 1

    async def ended(self, run: str) -> None:
        """Forget the inputs of a flow run's calls: it is over."""
        await self._do(lambda db: db.execute("UPDATE calls SET inputs = '' WHERE run = ?", (run,)))

    async def take_back(self, run: str) -> int:
        """Put the calls of a flow run that is not over back; return how many there are."""
        changed = (
            "UPDATE calls SET queued_at = NULL, run = NULL, n_taken_back = n_taken_back + 1 "
            "WHERE run = ? AND inputs != ''"
        )
        return await self._change(changed, run)

    async def set_aside(self, calls: Sequence[tuple[AcceptedCall, str]]) -> None:
        """Keep calls that their pipeline does not take as it is now, each with the reason."""
        rows = [(why, call.id) for call, why in calls]
        changed = "UPDATE calls SET set_aside = ? WHERE id = ?"
        await self._do(lambda db: db.executemany(changed, rows))
        for call, _ in calls:
            self.waiting[call.pipeline] -= 1

    async def take_up(self) -> None:
        """Put back the calls that were set aside: pipelines have changed."""
        await self._change("UPDATE calls SET set_aside = NULL WHERE set_aside IS NOT NULL")

    async def hand_to(self, heir: str, pipeline: str, trigger: str) -> int:
        """Move the waiting calls of a trigger to another pipeline; return how many there are."""
        changed = f"UPDATE calls SET pipeline = ? WHERE pipeline = ? AND trigger = ? AND {_WAITS}"
        return await self._change(changed, heir, pipeline, trigger)

    async def triggers(self, pipeline: str) -> list[str]:
        """Return the triggers of a pipeline's waiting calls."""
        query = f"SELECT DISTINCT trigger FROM calls WHERE pipeline = ? AND {_WAITS}"
        rows = await self._do(lambda db: db.execute(query, (pipeline,)).fetchall())
        return [trigger for (trigger,) in rows if isinstance(trigger, str)]

    async def aside(self) -> dict[str, tuple[int, str]]:
        """Return how many calls of each pipeline are set aside, and why one of them is."""
        query = (
            "SELECT pipeline, count(*), max(set_aside) FROM calls WHERE set_aside IS NOT NULL "
            "GROUP BY pipeline"
        )
        rows = await self._do(lambda db: db.execute(query).fetchall())
        return {str(pipeline): (n, str(why)) for pipeline, n, why in rows}

    async def _change(self, statement: str, *values: str) -> int:
        """Change rows and count again what waits; return how many rows there were."""

        def change(db: sqlite3.Connection) -> tuple[int, Counter[str]]:
            return db.execute(statement, values).rowcount, self._counted(db)

        n, self.waiting = await self._do(change)
        if n:
            self.arrived.set()
        return int(n)

    async def _write(self) -> None:
        while self._arriving:
            arrived, self._arriving = self._arriving, []
            calls = [call for call, _ in arrived]
            try:
                answers = await self._do(lambda db, calls=calls: _insert_calls(db, calls))
            except WebhookQueueBroken as error:
                for _, future in arrived:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (call, future), answer in zip(arrived, answers, strict=True):
                self.waiting[call.pipeline] += not answer.is_known
                if not future.done():
                    future.set_result(answer)
            self.arrived.set()

    async def _do(self, work: Any) -> Any:
        """Run work on the connection in the thread, as one transaction."""

        def act() -> tuple[Any, Counter[str] | None]:
            waiting = None
            if self._connection is None:
                self._connection = _open_queue(self._file)
                with self._connection:
                    waiting = self._counted(self._connection)
            with self._connection:
                return work(self._connection), waiting

        try:
            done, waiting = await asyncio.get_running_loop().run_in_executor(self._thread, act)
        except (sqlite3.Error, OSError, ValueError, TypeError) as error:
            self.fault = f"{self._file}: webhook calls cannot be stored ({one_line(str(error))})."
            if not isinstance(error, OSError) and primary_code(error) not in _PASSING:
                self.fault += " Move the file away to go on without the calls that wait in it."
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            raise WebhookQueueBroken(self.fault) from error
        self.fault = ""
        if waiting is not None:
            self.waiting = waiting
        return done

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @staticmethod
    def _counted(db: sqlite3.Connection) -> Counter[str]:
        # Much longer those of which no end was told: the clock may have been wrong.
        old = time.time() - KEPT_S, time.time() - 10 * KEPT_S
        db.execute("DELETE FROM calls WHERE queued_at < ? AND (inputs = '' OR queued_at < ?)", old)
        waiting = f"SELECT pipeline, count(*) FROM calls WHERE {_WAITS} GROUP BY pipeline"
        rows = db.execute(waiting).fetchall()
        # A damaged row's key may have become a number.
        return Counter(
            {key: n for key, n in rows if isinstance(key, str) and not key.startswith(DAMAGED)}
        )


_PASSING = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY,
}  # fmt: skip
"""SQLite's errors that are of the disk or of another program, not of the file."""


def _open_queue(file: Path) -> sqlite3.Connection:
    private_files.private_folder(file.parent)
    db = sqlite3.connect(
        private_files.private_database(file), timeout=LOCK_S, check_same_thread=False
    )
    db.text_factory = partial(str, encoding="utf-8", errors="replace")
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # an answered call survives a power cut
        with db:
            db.execute(_CALLS_TABLE)
            known = {row[1] for row in db.execute("PRAGMA table_info(calls)")}
            for column in _LATER_COLUMNS:
                if column.partition(" ")[0] not in known:
                    db.execute(f"ALTER TABLE calls ADD COLUMN {column}")
            db.execute("CREATE INDEX IF NOT EXISTS signed ON calls (signature)")
            db.execute("CREATE INDEX IF NOT EXISTS waiting ON calls (pipeline, received_at) "
                       "WHERE queued_at IS NULL")  # fmt: skip
    except BaseException:
        db.close()
        raise
    return db


def _insert_calls(db: sqlite3.Connection, calls: Sequence[AcceptedCall]) -> list[CallReceipt]:
    answers = []
    for call in calls:
        same = "SELECT id, run FROM calls WHERE id = ? OR (signature = ? AND pipeline = ?) LIMIT 1"
        found = db.execute(same, (call.id, call.signature, call.pipeline)).fetchone()
        if found is None:
            inputs = json.dumps(dict(call.inputs))
            row = (call.id, call.pipeline, call.trigger, inputs, time.time(), call.signature)
            db.execute(
                "INSERT INTO calls (id, pipeline, trigger, inputs, received_at, signature) "
                "VALUES (?, ?, ?, ?, ?, ?)", row
            )  # fmt: skip
        id_, run = found or (call.id, None)
        answers.append(CallReceipt(found is not None, run, id_))
    return answers


def _oldest_calls(
    db: sqlite3.Connection, pipeline: str, n: int
) -> tuple[list[AcceptedCall], list[str]]:
    """Return calls, and the ids of damaged ones, which are set aside."""
    rows = db.execute(
        "SELECT rowid, id, pipeline, trigger, inputs, received_at, n_taken_back FROM calls "
        f"WHERE pipeline = ? AND {_WAITS} ORDER BY rowid LIMIT ?",
        (pipeline, n),
    ).fetchall()
    calls, damaged = [], []
    for rowid, *row in rows:
        try:
            calls.append(_read_call(*row))
        except (ValueError, TypeError, OverflowError, OSError):
            damaged.append(str(row[0]))
            aside = (f"{DAMAGED}{pipeline}", rowid)
            db.execute("UPDATE calls SET pipeline = ? WHERE rowid = ?", aside)
    return calls, damaged


def _read_call(
    id_: object, key: str, trigger: object, inputs: str, at: float, n_taken_back: object
) -> AcceptedCall:
    datetime.fromtimestamp(at, UTC)
    read = json.loads(inputs)
    are_inputs = isinstance(read, dict) and inputs.isascii()  # written with escapes
    if not (isinstance(id_, str) and isinstance(trigger, str) and are_inputs):
        raise TypeError("this is no call")
    return AcceptedCall(id_, key, trigger, read, at, n_taken_back=int(str(n_taken_back or 0)))
