"""Migration of the accepted webhook calls of versions that kept them in a file of their own."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from paddock.engine.system.light_dataclasses import replace
from paddock.engine.system.text import counted, one_line
from paddock.runner.ledger.database.sqlite_file import primary_code
from paddock.runner.workers.order import Order

from .order_queue import OrderQueue, QueueBroken

log = logging.getLogger("paddock.up")

CALLS_FILE = "webhooks.sqlite"
TAKEN = ".taken"
"""The file's suffix when its calls are orders."""
_CALLS = "SELECT id, pipeline, trigger, inputs, received_at, {} FROM calls ORDER BY rowid"


async def take_over_calls(state_dir: Path, queue: OrderQueue) -> None:
    """Make orders of the calls that wait or whose run is not over, and rename their file.

    Calls that are over become ended orders, so that one that is repeated is known. Called before
    the queue serves pipelines. When it was interrupted, or fails, the next start does the rest.
    """
    file = state_dir / CALLS_FILE
    if not await asyncio.to_thread(file.exists):
        return
    try:
        orders, damaged = await asyncio.to_thread(_read_calls, file)
    except sqlite3.Error as error:
        remedy = "Move the file away to go on without them."
        if primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            remedy = "End the `paddock up` that has it open, and start this one again."
        log.warning("%s: accepted webhook calls of the version before cannot be read (%s). %s",
                    file, one_line(str(error)), remedy)  # fmt: skip
        return
    try:
        receipts = await asyncio.gather(*map(queue.put, orders))
    except QueueBroken as error:
        log.warning("%s: its calls wait for the next start of `paddock up`: %s", file, error)
        return
    for call in damaged:
        log.warning("%s%s: the webhook call '%s' is damaged and becomes no run; its row stays "
                    "there.", file, TAKEN, call)  # fmt: skip
    with suppress(FileNotFoundError):  # another `paddock up` did the same
        await asyncio.to_thread(file.rename, file.with_name(file.name + TAKEN))
    n = sum(receipt.order.state != "ended" for receipt in receipts)
    log.info("%s of the version before: taken over.", counted(n, "accepted webhook call"))


def _read_calls(file: Path) -> tuple[list[Order], list[str]]:
    """Return the calls as orders, and the ids of damaged ones."""
    orders, damaged = [], []
    with closing(sqlite3.connect(file)) as db:
        db.text_factory = partial(str, encoding="utf-8", errors="replace")
        db.execute("PRAGMA journal_mode = DELETE")  # one file; refused while another has it open
        known = {row[1] for row in db.execute("PRAGMA table_info(calls)")}
        # Earlier versions lack it.
        query = _CALLS.format("signature" if "signature" in known else "NULL")
        for row in db.execute(query):
            try:
                orders.append(_order(*row))
            except (ValueError, TypeError, OverflowError, OSError):
                damaged.append(str(row[0]))
    return orders, damaged


def _order(id_: Any, pipeline: Any, trigger: Any, inputs: Any, at: Any, signature: Any) -> Order:
    texts = id_, trigger, inputs, signature or ""
    if not (all(isinstance(text, str) for text in texts) and inputs.isascii()):
        raise TypeError("this is no call")
    if not isinstance(json.loads(inputs or "{}"), dict) or not Path(pipeline).is_absolute():
        raise TypeError("these are no inputs of a pipeline")
    datetime.fromtimestamp(at, UTC)
    key = f"webhook:{id_.rpartition(':')[2]}"
    order = Order("", key, pipeline, trigger, json.loads(inputs or "{}"), "called by its webhook",
                  is_promised=True, signature=signature, created_at=float(at))  # fmt: skip
    if inputs:
        return order
    return replace(order, state="ended", ended_at=order.created_at, is_told=True, is_handled=True)
