"""The durable queue: what is on the disk, what is one order, what is kept and pruned."""

import asyncio
import os
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.system.records import replace
from paddock.runner.folders.file_versions import FileVersion
from paddock.runner.schedule import order_queue
from paddock.runner.schedule.order_queue import OrderQueue, QueueBroken
from paddock.runner.workers.order import Order

PIPELINE = "/srv/letters/pipeline.yaml"
FILE = FileVersion("a \udcff.txt", 3, 5, 7, 9)


async def opened(folder: Path, *pipelines: str) -> OrderQueue:
    queue = OrderQueue(folder)
    await queue.open()
    await queue.serve(pipelines or (PIPELINE,))
    return queue


async def test_an_order_is_there_with_all_it_carries_after_a_kill(tmp_path: Path) -> None:
    queue = await opened(tmp_path)
    made = await queue.put(
        Order("", "batch 1", PIPELINE, "watch in", {"n": 1.5, "text": "\ud83d"}, "a and b",
              (FILE,), ("gone.txt",), is_promised=True, signature="abc")
    )  # fmt: skip
    queue.note(made.order.id, state="running", mark="1:2", run="calm-owl", attempt=2)
    await queue.flush()
    again = await opened(tmp_path)  # the first was not closed
    (found,) = again.orders.values()
    assert found == queue.orders[made.order.id]
    assert (found.files[0].inode, found.files[0].ctime_ns, found.gone) == (7, 9, ("gone.txt",))
    for each in (queue, again):
        await each.close()


async def test_names_of_files_that_are_no_text_stop_no_order(tmp_path: Path) -> None:
    odd = "/srv/caf\udce9/pipeline.yaml"
    queue = await opened(tmp_path, odd, PIPELINE)
    order = Order("", "a \udcff.txt", odd, "watch \udcff", {"text": "\ud83d"}, "\udcff")
    made, _ = await asyncio.gather(queue.put(order), queue.put(Order("", "k", PIPELINE, "w")))
    assert (await queue.put(order)).is_known
    queue.note(made.order.id, message="waits for \udcff")
    await queue.remember(odd, "watch \udcff", {"seen": "\udcff"})
    await queue.flush()
    again = await opened(tmp_path, odd, PIPELINE)
    assert again.orders == queue.orders and len(again.orders) == 2
    assert await again.remembered(odd, "watch \udcff") == {"seen": "\udcff"}
    await again.pause(odd, is_paused=True)
    assert again.is_paused(again.orders[made.order.id]) and again.fault == queue.fault == ""
    for each in (queue, again):
        await each.close()


@pytest.mark.parametrize(
    "wrong", [{"inputs": {"at": datetime.now(UTC)}}, {"key": b"k"}, {"inputs": {"in": {1, 2}}}]
)
async def test_an_order_that_cannot_be_written_is_its_givers_error_and_holds_up_no_other(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    queue = await opened(tmp_path)
    good = asyncio.create_task(queue.put(Order("", "k", PIPELINE, "w")))
    with pytest.raises(TypeError):
        await queue.put(replace(Order("", "bad", PIPELINE, "w"), **wrong))
    assert not (await good).is_known and queue.fault == ""
    await queue.close()


async def test_the_same_demand_is_one_order_however_often_and_however_signed(
    tmp_path: Path,
) -> None:
    queue = await opened(tmp_path)
    first = await queue.put(Order("", "call 1", PIPELINE, "webhook /x", signature="s"))
    receipts = await asyncio.gather(
        queue.put(Order("", "call 1", PIPELINE, "webhook /x")),
        queue.put(Order("", "call 2", PIPELINE, "webhook /x", signature="s")),
        queue.put(Order("", "call 1", "/srv/other.yaml", "webhook /x", signature="s")),
        queue.put(Order("", "call 3", PIPELINE, "webhook /x")),
    )
    assert [receipt.is_known for receipt in receipts] == [True, True, False, False]
    assert {receipts[0].order.id, receipts[1].order.id} == {first.order.id}
    queue.note(first.order.id, state="ended", end="completed", ended_at=time.time())
    repeated = await queue.put(Order("", "call 1", PIPELINE, "webhook /x"))
    assert (repeated.is_known, repeated.order.end) == (True, "completed")
    assert [order.key for order in queue.orders.values()] == ["call 3"]  # the other is not served
    await queue.close()


async def test_a_queue_that_cannot_be_written_refuses_orders_and_writes_ends_when_it_can(
    tmp_path: Path,
) -> None:
    queue = await opened(tmp_path)
    made = await queue.put(Order("", "1", PIPELINE, "watch in"))
    with closing(sqlite3.connect(queue.file)) as db:
        db.execute("DROP TABLE memories")
        db.execute("CREATE TRIGGER full BEFORE INSERT ON orders "
                   "BEGIN SELECT RAISE(ABORT, 'the disk is full'); END")  # fmt: skip
        db.execute("CREATE TRIGGER full2 BEFORE UPDATE ON orders "
                   "BEGIN SELECT RAISE(ABORT, 'the disk is full'); END")  # fmt: skip
        db.commit()
    with pytest.raises(QueueBroken, match="the disk is full"):
        await queue.put(Order("", "2", PIPELINE, "watch in"))
    queue.note(made.order.id, state="ended", end="completed", ended_at=time.time())
    await queue.flush()
    assert "the disk is full" in queue.fault
    with closing(sqlite3.connect(queue.file)) as db:
        db.execute("DROP TRIGGER full")
        db.execute("DROP TRIGGER full2")
        db.commit()
    await queue.flush()
    again = await opened(tmp_path)
    assert (queue.fault, again.orders) == ("", {})
    (ended,) = await again.unhandled_orders(PIPELINE, "watch in")
    assert ended.end == "completed"
    for each in (queue, again):
        await each.close()


async def test_a_damaged_row_stops_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue = await opened(tmp_path)
    for n in range(3):
        await queue.put(Order(f"order{n}", str(n), PIPELINE, "webhook /x"))
    await queue.close()
    with closing(sqlite3.connect(queue.file)) as db:
        db.execute("UPDATE orders SET inputs = '[' WHERE id = 'order1'")
        db.commit()
    again = await opened(tmp_path)
    assert [*again.orders] == ["order0", "order2"]
    assert "the order 'order1'" in caplog.text
    await again.close()


async def test_ended_orders_are_kept_a_week_and_only_so_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_queue, "MOST_KEPT", 3)
    queue = await opened(tmp_path)
    day = 86_400.0
    ages = {"8 days": (8 * day, True), "8 days untold": (8 * day, False),
            "80 days untold": (80 * day, False), "a": (0, True), "b": (0, True)}  # fmt: skip
    for key, (age_s, is_told) in ages.items():
        made = await queue.put(Order("", key, PIPELINE, "webhook /x"))
        queue.note(made.order.id, state="ended", end="completed", ended_at=time.time() - age_s,
                   is_told=is_told, is_handled=True)  # fmt: skip
    await queue.put(Order("", "open", PIPELINE, "webhook /x"))
    await queue.close()
    again = await opened(tmp_path)
    with closing(sqlite3.connect(queue.file)) as db:
        kept = {key for (key,) in db.execute("SELECT key FROM orders")}
    assert kept == {"8 days untold", "a", "b", "open"}
    await again.close()


async def test_a_pause_is_seen_by_who_runs_and_over_restarts_whoever_wrote_it(
    tmp_path: Path,
) -> None:
    queue, other = await opened(tmp_path), OrderQueue(tmp_path)
    made = (await queue.put(Order("", "1", PIPELINE, "watch in"))).order
    await other.open()
    await other.pause(PIPELINE, "watch in", is_paused=True)
    await queue.read_pauses()
    assert queue.is_paused(made)
    await queue.pause(PIPELINE, "watch in", is_paused=False)
    await queue.pause(PIPELINE, is_paused=True)
    again = await opened(tmp_path)
    assert again.is_paused(made) and again.pauses == {(PIPELINE, "")}
    for each in (queue, other, again):
        await each.close()


async def test_promised_orders_of_a_file_that_was_renamed_go_to_its_heir(tmp_path: Path) -> None:
    queue = await opened(tmp_path)
    for key, is_promised in (("1", True), ("2", False)):
        await queue.put(Order("", key, PIPELINE, "webhook /x", is_promised=is_promised))
    await queue.serve(["/srv/letters/new.yaml"])
    assert queue.orders == {}
    assert await queue.count_orders_elsewhere() == {(PIPELINE, "webhook /x"): 1}
    await queue.pause(PIPELINE, is_paused=True)
    await queue.pause(PIPELINE, "watch in", is_paused=True)
    assert await queue.hand_to("/srv/letters/new.yaml", PIPELINE, "webhook /x") == 1
    assert [(order.key, order.pipeline) for order in queue.orders.values()] == [
        ("1", "/srv/letters/new.yaml")
    ]
    assert queue.pauses == {("/srv/letters/new.yaml", "")}
    await queue.close()


async def test_the_file_is_this_users_alone(tmp_path: Path) -> None:
    queue = await opened(tmp_path)
    await queue.put(Order("", "1", PIPELINE, "watch in", {"text": "private"}))
    modes = {oct(os.stat(queue.file).st_mode & 0o077)}  # noqa: PTH116
    assert modes == {"0o0"}
    await queue.close()
