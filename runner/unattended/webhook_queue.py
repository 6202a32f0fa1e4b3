"""Webhook calls that were accepted, in a table of `up`'s own until Prefect has them.

A call is answered when its row is on the disk. Calls that arrive together share one transaction,
because a commit waits for the disk: 100 at once took 30 s as flow runs of Prefect's SQLite. The
key of a call is the table's key, so a call that is sent twice is one row and one run. Rows are kept
for a week after Prefect took them, for callers that repeat a call.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.engine.system import private

FILE = "webhooks.sqlite"
MOST_WAITING = 10_000
"""Calls of one pipeline that Prefect has not taken yet; a call more is answered by 429."""
KEPT_S = 7 * 86_400.0
LOCK_S = 10.0

_TABLE = """
CREATE TABLE IF NOT EXISTS calls (
    id TEXT PRIMARY KEY, pipeline TEXT NOT NULL, trigger TEXT NOT NULL, inputs TEXT NOT NULL,
    received_at REAL NOT NULL, queued_at REAL, run TEXT
)
"""


class QueueBroken(Exception):
    """The table cannot be read or written: a full disk, a damaged file."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """One call. `pipeline` is the key of its file, `id` the same for the same call."""

    id: str
    pipeline: str
    trigger: str
    inputs: Mapping[str, Any]
    received_at: float = 0.0
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a call that was put into the table."""

    is_known: bool
    run: str | None
    """The flow run, once Prefect has taken it."""


class WebhookQueue:
    """The table. Lives in one event loop; one thread of its own does the work on the file."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="webhooks")
        self._connection: sqlite3.Connection | None = None
        self._arriving: list[tuple[Accepted, asyncio.Future[Answer]]] = []
        self._writing: asyncio.Task[None] | None = None
        self.waiting: Counter[str] = Counter()
        """Calls that Prefect has not taken yet, by pipeline."""
        self.fault = ""
        """Why the table cannot be used now; empty: it can."""
        self.arrived = asyncio.Event()
        """Set when there may be calls to hand over."""

    async def open(self) -> None:
        """Open the table. A failure is kept in `fault`: each call then tries again.

        Rows that Prefect took long ago are removed.
        """
        try:
            self.waiting = await self._do(self._counted)
        except QueueBroken:
            return
        if self.waiting.total():
            self.arrived.set()

    async def close(self) -> None:
        """Write what has arrived, and close the file."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def is_full(self, pipeline: str) -> bool:
        """Return whether a pipeline has as many calls waiting as it may."""
        return self.waiting[pipeline] >= MOST_WAITING

    async def put(self, call: Accepted) -> Answer:
        """Write a call down; it is on the disk when this returns.

        Raises:
            QueueBroken: it cannot be written, so it was not accepted.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._arriving.append((call, future))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await future

    async def oldest(self, pipeline: str, n: int) -> list[Accepted]:
        """Return the oldest calls of a pipeline that Prefect has not taken yet.

        Raises:
            QueueBroken: the table cannot be read.
        """
        calls: list[Accepted] = await self._do(lambda db: _oldest(db, pipeline, n))
        return calls

    async def queued(self, call: Accepted, run: str) -> None:
        """Note that Prefect has taken a call, as this flow run.

        Raises:
            QueueBroken: it cannot be noted; handed over again, it is the same flow run.
        """
        changed = "UPDATE calls SET queued_at = ?, run = ?, inputs = '' WHERE id = ?"
        await self._do(lambda db: db.execute(changed, (time.time(), run, call.id)))
        self.waiting[call.pipeline] -= 1

    async def _write(self) -> None:
        while self._arriving:
            arrived, self._arriving = self._arriving, []
            calls = [call for call, _ in arrived]
            try:
                answers = await self._do(lambda db, calls=calls: _insert(db, calls))
            except QueueBroken as error:
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
        """Run work on the connection in the thread, as one transaction.

        Raises:
            QueueBroken: the file or the disk is at fault.
        """

        def act() -> Any:
            if self._connection is None:
                self._connection = _opened(self._file)
            with self._connection:
                return work(self._connection)

        try:
            done = await asyncio.get_running_loop().run_in_executor(self._thread, act)
        except (sqlite3.Error, OSError) as error:
            self.fault = f"{self._file}: webhook calls cannot be written down ({error})."
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            raise QueueBroken(self.fault) from error
        self.fault = ""
        return done

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @staticmethod
    def _counted(db: sqlite3.Connection) -> Counter[str]:
        db.execute("DELETE FROM calls WHERE queued_at < ?", (time.time() - KEPT_S,))
        waiting = "SELECT pipeline, count(*) FROM calls WHERE queued_at IS NULL GROUP BY pipeline"
        return Counter(dict(db.execute(waiting).fetchall()))


def _opened(file: Path) -> sqlite3.Connection:
    private.folder(file.parent)
    db = sqlite3.connect(private.database(file), timeout=LOCK_S, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")  # an answered call outlives a power cut
    with db:
        db.execute(_TABLE)
        db.execute("CREATE INDEX IF NOT EXISTS waiting ON calls (pipeline, received_at) "
                   "WHERE queued_at IS NULL")  # fmt: skip
    return db


def _insert(db: sqlite3.Connection, calls: Sequence[Accepted]) -> list[Answer]:
    answers = []
    for call in calls:
        row = (call.id, call.pipeline, call.trigger, json.dumps(dict(call.inputs)), time.time())
        added = db.execute(
            "INSERT INTO calls (id, pipeline, trigger, inputs, received_at) "
            "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row
        )  # fmt: skip
        run = None
        if not added.rowcount:
            (run,) = db.execute("SELECT run FROM calls WHERE id = ?", (call.id,)).fetchone()
        answers.append(Answer(not added.rowcount, run))
    return answers


def _oldest(db: sqlite3.Connection, pipeline: str, n: int) -> list[Accepted]:
    rows = db.execute(
        "SELECT id, pipeline, trigger, inputs, received_at FROM calls "
        "WHERE pipeline = ? AND queued_at IS NULL ORDER BY received_at, rowid LIMIT ?",
        (pipeline, n),
    )
    return [Accepted(id_, key, trigger, json.loads(inputs), at)
            for id_, key, trigger, inputs, at in rows]  # fmt: skip
