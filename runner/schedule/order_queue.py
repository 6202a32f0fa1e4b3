"""The durable queue of `paddock up`: every order, from its trigger to its run's end.

The only memory of what is to be done; the ledger is the memory of what was. One SQLite file of the
user, for each `paddock up` of it: who serves a pipeline, which a folder's lock decides, has its
orders. `put` returns when the order is on the disk; orders that arrive together share one
transaction, because a commit waits for the disk. What becomes of an order is changed in memory at
once and written soon after; where that fails, as on a full disk, it is written later.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from paddock.engine.system import private_files
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import one_line
from paddock.runner.folders.file_versions import FileVersion
from paddock.runner.ledger.database.sqlite_file import primary_code
from paddock.runner.workers.order import Order

log = logging.getLogger("paddock.up")

QUEUE_FILE = "orders.sqlite"
MOST_WAITING = 10_000
"""Orders of one pipeline that wait; a caller that brings more gets 429."""
KEPT_S = 7 * 86_400.0
MOST_KEPT = 20_000
"""Ended orders are kept for a week, for callers that repeat a call, and at most so many."""
LOCK_S = 10.0
PRUNE_EVERY = 500

_TABLES = """
CREATE TABLE IF NOT EXISTS orders (
    n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, key TEXT NOT NULL, pipeline TEXT NOT NULL,
    trigger TEXT NOT NULL, inputs TEXT NOT NULL, reason TEXT NOT NULL, files TEXT NOT NULL,
    gone TEXT NOT NULL, retry_failed INTEGER NOT NULL, is_promised INTEGER NOT NULL,
    signature TEXT, created_at REAL NOT NULL, due_at REAL NOT NULL, state TEXT NOT NULL,
    message TEXT NOT NULL, not_before REAL NOT NULL, attempt INTEGER NOT NULL, mark TEXT NOT NULL,
    run TEXT NOT NULL, is_stopped INTEGER NOT NULL, flow_run TEXT NOT NULL, end TEXT NOT NULL,
    ended_at REAL NOT NULL, is_told INTEGER NOT NULL, is_handled INTEGER NOT NULL,
    UNIQUE (pipeline, key)
);
CREATE INDEX IF NOT EXISTS open_orders ON orders (pipeline) WHERE state != 'ended';
CREATE INDEX IF NOT EXISTS signed_orders ON orders (pipeline, signature);
CREATE INDEX IF NOT EXISTS ended_orders ON orders (ended_at) WHERE state = 'ended';
CREATE INDEX IF NOT EXISTS untold_orders ON orders (n) WHERE state = 'ended' AND NOT is_told;
CREATE TABLE IF NOT EXISTS memories (
    pipeline TEXT NOT NULL, trigger TEXT NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (pipeline, trigger)
);
CREATE TABLE IF NOT EXISTS pauses (
    pipeline TEXT NOT NULL, trigger TEXT NOT NULL, since REAL NOT NULL,
    PRIMARY KEY (pipeline, trigger)
);
CREATE TABLE IF NOT EXISTS totals (
    pipeline TEXT NOT NULL, end TEXT NOT NULL, n INTEGER NOT NULL, last REAL NOT NULL,
    PRIMARY KEY (pipeline, end)
);
CREATE TRIGGER IF NOT EXISTS count_ends AFTER UPDATE OF state ON orders
WHEN NEW.state = 'ended' AND OLD.state != 'ended' BEGIN
    INSERT INTO totals VALUES (NEW.pipeline, NEW.end, 1, NEW.ended_at)
    ON CONFLICT DO UPDATE SET n = n + 1, last = excluded.last;
END;
"""
_NAMES = Order.__struct_fields__
_ORDER = f"SELECT {', '.join(_NAMES)} FROM orders"
_INSERT = f"INSERT INTO orders ({', '.join(_NAMES)}) VALUES ({', '.join('?' * len(_NAMES))})"
_IS_OPEN = "state != 'ended'"

# Statements; the first are ends of `_ORDER`.
_OPEN_OF = f"pipeline = ? AND {_IS_OPEN} ORDER BY n"
_UNHANDLED_OF = "pipeline = ? AND trigger = ? AND state = 'ended' AND NOT is_handled ORDER BY n"
_UNTOLD_OF = (
    "state = 'ended' AND NOT is_told AND +pipeline IN (SELECT value FROM json_each(?)) "
    "ORDER BY n LIMIT ?"
)
_SAME_DEMAND = "pipeline = ? AND (key = ? OR signature = ?) LIMIT 1"
_COUNT_PROMISED = (
    f"SELECT pipeline, trigger, count(*) FROM orders WHERE {_IS_OPEN} AND is_promised "
    "GROUP BY pipeline, trigger"
)
_HAND_OVER = (
    "UPDATE OR IGNORE orders SET pipeline = ? "
    f"WHERE pipeline = ? AND trigger = ? AND {_IS_OPEN} AND is_promised"
)
_DELETE_OLD = (
    "DELETE FROM orders WHERE state = 'ended' AND (ended_at < ? OR (ended_at < ? "
    "AND is_told AND is_handled))"
)
_DELETE_MANY = (
    "DELETE FROM orders WHERE state = 'ended' AND n <= (SELECT n FROM orders "
    "WHERE state = 'ended' ORDER BY n DESC LIMIT 1 OFFSET ?)"
)
_SERVED_SINCE = "INSERT OR IGNORE INTO totals VALUES (?, '', 0, ?)"
_TOTALS = "SELECT pipeline, end, n, last FROM totals ORDER BY end"
_REMEMBERED = "SELECT state FROM memories WHERE pipeline = ? AND trigger = ?"
_REMEMBER = "INSERT OR REPLACE INTO memories VALUES (?, ?, ?)"
_PAUSE = "INSERT OR IGNORE INTO pauses VALUES (?, ?, ?)"
_RESUME = "DELETE FROM pauses WHERE pipeline = ? AND trigger = ?"
_COPY_PAUSES = (
    "INSERT OR IGNORE INTO pauses "
    "SELECT ?, trigger, since FROM pauses WHERE pipeline = ? AND trigger IN ('', ?)"
)
_MOVE_PAUSES = "UPDATE OR REPLACE pauses SET pipeline = ? WHERE pipeline = ?"
_PAUSES = "SELECT pipeline, trigger FROM pauses"

_T = TypeVar("_T")


class QueueBroken(Exception):
    """The queue cannot be read or written: a full disk, a damaged file."""


class OrderReceipt(Struct, frozen=True):
    order: Order
    is_known: bool = False
    """There was an order for it already, which is `order`."""


class OrderQueue:
    """The queue. Lives in one event loop; a thread of its own accesses the file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / QUEUE_FILE
        self.orders: dict[str, Order] = {}
        """The open orders of the pipelines that are served here, by id, the oldest first."""
        self.pauses: frozenset[tuple[str, str]] = frozenset()
        """Pipelines, and triggers of theirs (empty: all), whose runs a person holds back."""
        self.changed = asyncio.Event()
        """Set when there may be something to start."""
        self.fault = ""
        """Why the file cannot be used now; empty when it can."""
        self._pipelines: set[str] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="orders")
        self._connection: sqlite3.Connection | None = None
        self._arriving: list[tuple[Order, asyncio.Future[OrderReceipt]]] = []
        self._unwritten: dict[str, dict[str, Any]] = {}
        self._writing: asyncio.Task[None] | None = None
        self._n_ended = 0

    # --- opening

    async def open(self) -> None:
        """Open the file. A failure is kept in `fault`: each call then tries again."""
        with suppress(QueueBroken):
            await self._do(_prune)
            await self.read_pauses()

    async def close(self) -> None:
        self._write_soon()
        if self._writing is not None and not self._writing.done():
            await asyncio.wait({self._writing})
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    async def serve(self, pipelines: Collection[str]) -> None:
        """Have the open orders of exactly these pipelines in memory.

        Raises:
            QueueBroken: the file cannot be read.
        """
        new = [pipeline for pipeline in pipelines if pipeline not in self._pipelines]

        def read(db: sqlite3.Connection) -> list[Order]:
            for pipeline in new:
                db.execute(_SERVED_SINCE, (pipeline, time.time()))
            return [order for pipeline in new for order in _orders(db, _OPEN_OF, pipeline)]

        self.orders |= {order.id: order for order in await self._do(read)}
        self._pipelines = set(pipelines)
        for id_ in [id_ for id_, order in self.orders.items() if order.pipeline not in pipelines]:
            del self.orders[id_]
        await self.read_pauses()
        self.changed.set()

    # --- orders

    async def put(self, order: Order) -> OrderReceipt:
        """Store an order, or return the one that is there for this demand.

        Raises:
            QueueBroken: it is not on the disk.
            TypeError, ValueError: it has what cannot be written; no other order is held up.
        """
        now = time.time()
        order = replace(order, id=order.id or uuid.uuid4().hex,
                        created_at=order.created_at or now, due_at=order.due_at or now)  # fmt: skip
        for value in _row({name: getattr(order, name) for name in _NAMES}):
            if not isinstance(value, str | int | float | None):
                raise TypeError(f"an order has no {type(value).__name__}: {value!r}")
        future: asyncio.Future[OrderReceipt] = asyncio.get_running_loop().create_future()
        self._arriving.append((order, future))
        self._write_soon()
        return await future

    def note(self, id_: str, **changes: Any) -> Order:
        order = replace(self.orders[id_], **changes)
        self.orders[id_] = order
        if order.state == "ended":
            del self.orders[id_]
        self.note_ended(id_, **changes)
        return order

    def note_ended(self, id_: str, **changes: Any) -> None:
        """Change what is known of an order that is not in memory any more."""
        self._unwritten.setdefault(id_, {}).update(changes)
        self._write_soon()

    def waiting(self, pipeline: str) -> int:
        return sum(
            order.pipeline == pipeline and order.state == "waiting"
            for order in self.orders.values()
        )

    async def unhandled_orders(self, pipeline: str, trigger: str) -> list[Order]:
        """Return the ended orders of a trigger whose end it does not know, the oldest first."""
        return await self._do(lambda db: _orders(db, _UNHANDLED_OF, pipeline, trigger))

    async def orders_to_tell(self, n: int) -> list[Order]:
        """Return ended orders of the served pipelines that Prefect does not show, oldest first."""
        served = json.dumps([*self._pipelines])
        return await self._do(lambda db: _orders(db, _UNTOLD_OF, served, n))

    async def by_flow_run(self, flow_run: str) -> Order | None:
        orders = await self._do(lambda db: _orders(db, "flow_run = ?", flow_run))
        return orders[-1] if orders else None

    async def count_orders_elsewhere(self) -> dict[tuple[str, str], int]:
        """Return how many promised orders wait of pipelines that are not served here.

        By the pipeline and the trigger.
        """
        rows = await self._do(lambda db: db.execute(_COUNT_PROMISED).fetchall())
        return {(key, trigger): n for key, trigger, n in rows if key not in self._pipelines}

    async def hand_to(self, heir: str, pipeline: str, trigger: str) -> int:
        """Move the open orders of a trigger to another pipeline; return how many there are.

        What a person holds back of them stays held back.
        """

        def hand_over(db: sqlite3.Connection) -> int:
            files = os.path.realpath(heir), os.path.realpath(pipeline)
            db.execute(_COPY_PAUSES, (*files, trigger))
            return db.execute(_HAND_OVER, (heir, pipeline, trigger)).rowcount

        n = await self._do(hand_over)
        if n:
            pipelines = set(self._pipelines)
            self._pipelines.discard(heir)
            await self.serve(pipelines)
        return n

    async def totals(self) -> dict[str, dict[str, Any]]:
        """Return the numbers of ended orders and the time of the last success, by pipeline.

        Before the first success it is the time since when the pipeline is served. Orders that were
        deleted since count, too.
        """
        totals: dict[str, dict[str, Any]] = {}
        for key, end, n, last in await self._do(lambda db: db.execute(_TOTALS).fetchall()):
            own = totals.setdefault(key, {"ends": Counter(), "last_success": 0.0})
            own["ends"][end] = n
            if end in ("completed", ""):
                own["last_success"] = last
        return totals

    # --- what triggers remember

    async def remembered(self, pipeline: str, trigger: str) -> dict[str, Any]:
        row = await self._do(lambda db: db.execute(_REMEMBERED, (pipeline, trigger)).fetchone())
        return dict(json.loads(row[0])) if row else {}

    async def remember(self, pipeline: str, trigger: str, state: Mapping[str, Any]) -> None:
        """Store a trigger's state.

        Raises:
            QueueBroken: it is not on the disk.
        """
        text = json.dumps(dict(state))
        await self._do(lambda db: db.execute(_REMEMBER, (pipeline, trigger, text)))

    # --- pauses

    async def read_pauses(self) -> None:
        """Read what people hold back: `paddock pause` writes the file as well."""
        pipelines = tuple(self._pipelines)
        pauses = await self._do(lambda db: read_pauses(db, pipelines))
        if pauses != self.pauses:
            self.pauses = pauses
            self.changed.set()

    async def pause(self, pipeline: str, trigger: str = "", *, is_paused: bool) -> None:
        await self._do(lambda db: write_pause(db, pipeline, trigger, is_paused=is_paused))
        await self.read_pauses()

    async def paused_files(self) -> list[Path]:
        rows = await self._do(lambda db: db.execute(_PAUSES).fetchall())
        return [Path(file) for file in dict.fromkeys(file for file, _ in rows)]

    async def move_pauses(self, was: Path, now: Path) -> None:
        """Have what a person holds back of a file hold back the one that it is called now."""
        await self._do(lambda db: db.execute(_MOVE_PAUSES, (os.path.realpath(now), str(was))))
        await self.read_pauses()

    def is_paused(self, order: Order) -> bool:
        return not self.pauses.isdisjoint(((order.pipeline, ""), (order.pipeline, order.trigger)))

    # --- the file

    def _write_soon(self) -> None:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while self._arriving or self._unwritten:
            arrived, self._arriving = self._arriving, []
            changes, self._unwritten = self._unwritten, {}
            orders = [order for order, _ in arrived]

            def write(
                db: sqlite3.Connection,
                orders: Sequence[Order] = orders,
                changes: Mapping[str, Mapping[str, Any]] = changes,
            ) -> list[OrderReceipt]:
                _change(db, changes)
                return [_insert(db, order) for order in orders]

            try:
                receipts = await self._do(write)
            except QueueBroken as error:
                self._unwritten = {
                    id_: {**changes.get(id_, {}), **self._unwritten.get(id_, {})}
                    for id_ in {**changes, **self._unwritten}
                }
                for _, future in arrived:
                    if not future.done():
                        future.set_exception(error)
                return  # with the next change, or as the queue's keeper asks for
            for (_, future), receipt in zip(arrived, receipts, strict=True):
                order = receipt.order
                is_open = not receipt.is_known and order.state != "ended"
                if is_open and order.pipeline in self._pipelines:
                    self.orders[order.id] = order
                if not future.done():
                    future.set_result(receipt)
            if arrived:
                self.changed.set()
            self._n_ended += sum(changed.get("state") == "ended" for changed in changes.values())
            if self._n_ended >= PRUNE_EVERY:
                self._n_ended = 0
                with suppress(QueueBroken):
                    await self._do(_prune)

    def write_now(self) -> None:
        """Write what has not been written, where no loop will do it any more. Blocks."""
        with (
            suppress(sqlite3.Error, OSError),
            contextlib.closing(open_queue_file(self.file)) as db,
            db,
        ):
            _change(db, self._unwritten)

    async def flush(self) -> None:
        if self._unwritten:
            self._write_soon()
        if self._writing is not None and not self._writing.done():
            await asyncio.wait({self._writing})

    async def _do(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run work on the connection in the thread, as one transaction.

        Raises:
            QueueBroken: nothing has changed.
        """

        def act() -> _T:
            if self._connection is None:
                self._connection = open_queue_file(self.file)
            with self._connection:
                return work(self._connection)

        try:
            done = await asyncio.get_running_loop().run_in_executor(self._thread, act)
        except (sqlite3.Error, OSError, ValueError, TypeError) as error:
            self.fault = f"{self.file}: orders cannot be stored ({one_line(str(error))})."
            if not isinstance(error, OSError) and primary_code(error) not in _PASSING:
                self.fault += " Move the file away to go on without the orders that wait in it."
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            raise QueueBroken(self.fault) from error
        self.fault = ""
        return done

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


_PASSING = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY,
}  # fmt: skip
"""SQLite's errors that are of the disk or of another program, not of the file."""


class _Connection(sqlite3.Connection):
    """Takes and returns every text: one that is not Unicode, as of a file's name, is a blob."""

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> sqlite3.Cursor:  # type: ignore[override]
        return super().execute(sql, [_stored(value) for value in parameters])


def _stored(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogatepass")
    return value


def _read_row(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        str(value, "utf-8", "surrogatepass") if isinstance(value, bytes) else value for value in row
    )


def open_queue_file(file: Path) -> sqlite3.Connection:
    private_files.private_folder(file.parent)
    db = sqlite3.connect(
        private_files.private_database(file),
        timeout=LOCK_S,
        check_same_thread=False,
        factory=_Connection,
    )
    db.row_factory = _read_row
    db.text_factory = partial(str, encoding="utf-8", errors="replace")
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # an answered call survives a power cut
        db.executescript(_TABLES)
    except BaseException:
        db.close()
        raise
    return db


def write_pause(db: sqlite3.Connection, pipeline: str, trigger: str, *, is_paused: bool) -> bool:
    """Hold back a pipeline, or one trigger of it, or no longer; return whether that is new."""
    file = os.path.realpath(pipeline)  # also where `paddock up` goes by a link
    if is_paused:
        return db.execute(_PAUSE, (file, trigger, time.time())).rowcount > 0
    return db.execute(_RESUME, (file, trigger)).rowcount > 0


def read_pauses(db: sqlite3.Connection, pipelines: Collection[str]) -> frozenset[tuple[str, str]]:
    """Return what is held back of these pipelines: they, and triggers of theirs."""
    triggers: dict[str, list[str]] = {}
    for file, trigger in db.execute(_PAUSES):
        triggers.setdefault(file, []).append(trigger)
    return frozenset(
        (key, trigger)
        for key in (pipelines if triggers else ())
        for trigger in triggers.get(os.path.realpath(key), ())
    )


def count_open_orders(
    db: sqlite3.Connection, pipelines: Collection[str], trigger: str
) -> Counter[str]:
    """Return the states of a pipeline's orders, under any of its paths; of a trigger if named."""
    places = ", ".join("?" * len(pipelines))
    where = f"pipeline IN ({places}) AND (? IN ('', trigger)) AND {_IS_OPEN}"
    rows = db.execute(f"SELECT state FROM orders WHERE {where}", (*pipelines, trigger))
    return Counter(state for (state,) in rows)


def _insert(db: sqlite3.Connection, order: Order) -> OrderReceipt:
    known = _orders(db, _SAME_DEMAND, order.pipeline, order.key, order.signature)
    if known:
        return OrderReceipt(known[0], is_known=True)
    db.execute(_INSERT, _row({name: getattr(order, name) for name in _NAMES}))
    return OrderReceipt(order)


def _change(db: sqlite3.Connection, changes: Mapping[str, Mapping[str, Any]]) -> None:
    for id_, changed in changes.items():
        assignments = ", ".join(f"{name} = ?" for name in changed)
        db.execute(f"UPDATE orders SET {assignments} WHERE id = ?", (*_row(changed), id_))


def _row(values: Mapping[str, Any]) -> list[Any]:
    return [_WRITTEN[name](value) if name in _WRITTEN else value for name, value in values.items()]


def _orders(db: sqlite3.Connection, where: str, *values: Any) -> list[Order]:
    """Return orders; one whose row is damaged is reported and left where it is."""
    orders = []
    for values_of_row in db.execute(f"{_ORDER} WHERE {where}", values).fetchall():
        row = dict(zip(_NAMES, values_of_row, strict=True))
        try:
            orders.append(_read_order(row))
        except (ValueError, TypeError, OverflowError):
            log.warning("the order '%s' of %s is damaged and is not run; its row stays in the "
                        "queue.", row["id"], row["pipeline"])  # fmt: skip
    return orders


def _read_order(row: dict[str, Any]) -> Order:
    inputs = json.loads(row["inputs"])
    if not (isinstance(inputs, dict) and row["inputs"].isascii()):  # written with escapes
        raise TypeError("these are no inputs")
    for name in ("created_at", "due_at", "not_before"):
        row[name] = float(row[name])
    row["inputs"] = inputs
    row["files"] = tuple(FileVersion(*facts) for facts in json.loads(row["files"]))
    row["gone"] = tuple(json.loads(row["gone"]))
    for name in ("retry_failed", "is_promised", "is_stopped", "is_told", "is_handled"):
        row[name] = bool(row[name])
    return Order(**row)


_WRITTEN: Mapping[str, Callable[[Any], Any]] = {
    "inputs": lambda inputs: json.dumps(dict(inputs)),
    "files": lambda files: json.dumps(
        [[seen.relpath, seen.size, seen.mtime_ns, seen.inode, seen.ctime_ns] for seen in files]
    ),
    "gone": json.dumps,
}


def _prune(db: sqlite3.Connection) -> None:
    """Delete ended orders that are old, or too many; those that were not told are kept longer."""
    now = time.time()
    db.execute(_DELETE_OLD, (now - 10 * KEPT_S, now - KEPT_S))
    db.execute(_DELETE_MANY, (MOST_KEPT,))
