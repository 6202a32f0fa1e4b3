"""Accepted webhook calls of the version before become orders, once."""

import json
import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.system.records import replace
from paddock.runner.schedule.order_queue import OrderQueue
from paddock.runner.schedule.webhook_migration import take_over_calls

TABLE = """
CREATE TABLE calls (
    id TEXT PRIMARY KEY, pipeline TEXT NOT NULL, trigger TEXT NOT NULL, inputs TEXT NOT NULL,
    received_at REAL NOT NULL, queued_at REAL, run TEXT, signature TEXT, set_aside TEXT,
    n_taken_back INTEGER DEFAULT 0
)
"""
PIPELINE = "/srv/bills/p.yaml"
INPUTS = json.dumps({"name": "Zoë"})
NOW = time.time()


def old_file(folder: Path, *calls: tuple[Any, ...]) -> Path:
    """Write the file of the version before; as one that was killed, with its journal beside it."""
    folder.mkdir(exist_ok=True)
    file = folder / "webhooks.sqlite"
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(TABLE)
        for call in calls:
            db.execute(f"INSERT INTO calls VALUES ({', '.join('?' * len(call))})", call)
    return file


def call(name: str, *, inputs: str = INPUTS, queued: bool = False, **changes: Any) -> Any:
    row = {
        "id": f"{PIPELINE}:webhook:{name}", "pipeline": PIPELINE, "trigger": "webhook /bills",
        "inputs": inputs, "received_at": NOW - 60, "queued_at": NOW - 50 if queued else None,
        "run": "flow-run" if queued else None, "signature": f"s-{name}", "set_aside": None,
        "n_taken_back": 0,
    }  # fmt: skip
    return tuple({**row, **changes}.values())


async def test_calls_that_wait_or_whose_run_is_not_over_become_orders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = [
        call("waits"), call("runs", queued=True), call("over", inputs="", queued=True),
        call("aside", set_aside="its webhook /bills is no more."),
    ]  # fmt: skip
    file = old_file(tmp_path, *calls)
    caplog.set_level(logging.INFO)
    queue = OrderQueue(tmp_path)
    await take_over_calls(tmp_path, queue)
    await queue.serve([PIPELINE])
    orders = [*queue.orders.values()]
    assert [order.key for order in orders] == ["webhook:waits", "webhook:runs", "webhook:aside"]
    first = orders[0]
    facts = (first.trigger, dict(first.inputs), first.created_at, first.signature)
    assert facts == ("webhook /bills", {"name": "Zoë"}, NOW - 60, "s-waits")
    assert all(order.is_promised for order in orders)
    assert caplog.messages[-1] == "3 accepted webhook calls of the version before: taken over."
    again = await queue.put(replace(first, id="", key="webhook:over", signature=None))
    assert (again.is_known, again.order.state) == (True, "ended")
    assert not file.exists() and file.with_name("webhooks.sqlite.taken").exists()
    assert not file.with_name("webhooks.sqlite-wal").exists()
    await take_over_calls(tmp_path, queue)
    file.with_name("webhooks.sqlite.taken").rename(file)  # the machine went down before
    await take_over_calls(tmp_path, queue)
    assert len(queue.orders) == 3
    await queue.close()


async def test_calls_that_cannot_be_taken_over_stay_where_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = old_file(tmp_path, call("a"))
    (tmp_path / "no-folder").write_text("")
    broken = OrderQueue(tmp_path / "no-folder")
    queue = OrderQueue(tmp_path)
    with closing(sqlite3.connect(file)) as db:  # an earlier `paddock up` is at work
        db.execute("SELECT * FROM calls").fetchall()
        await take_over_calls(tmp_path, queue)
    await take_over_calls(tmp_path, broken)
    await broken.close()
    file.write_text("This is no database. " * 500)
    await take_over_calls(tmp_path, queue)
    remedy = "End the `paddock up` that has the file open; or move it away to go on without them."
    assert caplog.messages == [
        f"{file}: accepted webhook calls of the version before cannot be taken over ({why}). "
        f"{remedy}"
        for why in ("database is locked", broken.fault, "file is not a database")
    ]
    assert file.exists()
    await queue.close()
