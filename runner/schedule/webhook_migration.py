"""Accepted webhook calls of versions that kept them in a file of their own become orders, once."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from paddock.engine.system.records import replace
from paddock.engine.system.text import counted, one_line
from paddock.runner.workers.order import Order

from .order_queue import OrderQueue, QueueBroken

log = logging.getLogger("paddock.up")

CALLS_FILE = "webhooks.sqlite"
TAKEN = ".taken"
"""The file's suffix when its calls are orders."""


async def take_over_calls(state_dir: Path, queue: OrderQueue) -> None:
    """Make orders of the calls, and rename their file. Called before the queue serves pipelines.

    Calls that are over become ended orders, so that one that is repeated is known. When it was
    interrupted, or fails, the next start does the rest.
    """
    file = state_dir / CALLS_FILE
    if not await asyncio.to_thread(file.exists):
        return
    try:
        orders = await asyncio.to_thread(_read_calls, file)
        receipts = await asyncio.gather(*map(queue.put, orders))
        await asyncio.to_thread(file.rename, file.with_name(file.name + TAKEN))
    except (sqlite3.Error, QueueBroken, OSError, ValueError, TypeError) as error:
        log.warning("%s: accepted webhook calls of the version before cannot be taken over (%s). "
                    "End the `paddock up` that has the file open; or move it away to go on "
                    "without them.", file, one_line(str(error)))  # fmt: skip
        return
    n = sum(receipt.order.state != "ended" for receipt in receipts)
    log.info("%s of the version before: taken over.", counted(n, "accepted webhook call"))


def _read_calls(file: Path) -> list[Order]:
    query = "SELECT id, pipeline, trigger, inputs, received_at, signature FROM calls ORDER BY rowid"
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA journal_mode = DELETE")  # one file; refused while another has it open
        return [_order(*row) for row in db.execute(query)]


def _order(id_: str, file: str, trigger: str, inputs: str, at: float, signature: Any) -> Order:
    key = f"webhook:{id_.rpartition(':')[2]}"
    order = Order("", key, file, trigger, dict(json.loads(inputs or "{}")),
                  "called by its webhook", is_promised=True, signature=signature,
                  created_at=float(at))  # fmt: skip
    if inputs:
        return order
    return replace(order, state="ended", ended_at=order.created_at, is_told=True, is_handled=True)
