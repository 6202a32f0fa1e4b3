"""The orders that decisions give: once, with the inputs of the run that asked."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.system.retry import Backoff
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.review_store import ReviewStore, decided_mark, note_decided
from paddock.runner.ledger.reviews.reviews import Review
from paddock.runner.review.decisions import LedgerReviews
from paddock.runner.schedule import decision_orders
from paddock.runner.schedule.decision_orders import DecisionTrigger, decided_runs
from paddock.runner.schedule.order_queue import OrderQueue
from paddock.runner.schedule.triggered_pipeline import TriggeredPipeline
from paddock.runner.workers.order import Order, OrderEnd
from tests.runner.review.served_page import ServedPage
from tests.runner.schedule.desks import at_work, desk_of, open_queue, triggered
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_orders, "LOOK_S", 0.01)
    monkeypatch.setattr(decision_orders, "LOOK_ALL_S", 0.05)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / ".paddock") as opened:
        yield opened


@pytest.fixture
def bills(tmp_path: Path) -> TriggeredPipeline:
    return triggered(tmp_path, "{schedule: {cron: '0 6 * * *'}}", name="bills.yaml")


def ask_about(tmp_path: Path, ledger: Ledger, *items: str, **given: Any) -> list[Review]:
    """Record the run that asks, and its questions."""
    row = {
        "run": "swift-otter", "pipeline": "bills", "file": "bills.yaml", "started": 1.0,
        "ended": 2.0, "status": "completed", "summary": None, "trigger": "hand", "host": None,
        "pid": None, "attempt": 1, "message": None, "parent": None,
        "given": json.dumps({"inputs": {}, "hidden": [], **given}),
    }  # fmt: skip
    names = ", ".join(row)
    marks = ", ".join(f":{name}" for name in row)
    ledger.in_transaction(
        lambda execute: execute(f"insert or replace into runs ({names}) values ({marks})", row)
    )
    return ServedPage(tmp_path).ask(*items)


def accept(ledger: Ledger, review: Review) -> None:
    LedgerReviews(ledger).decide(review.id, review.question, "accept", by="ann")


async def ended(queue: OrderQueue, trigger: DecisionTrigger, end: OrderEnd) -> None:
    (order,) = queue.orders.values()
    await trigger.done(queue.note(order.id, state="ended", end=end, ended_at=time.time()))


async def n_orders(queue: OrderQueue, n: int) -> list[Order]:
    """Wait for so many open orders, and see that there are no more."""
    await eventually(lambda: len(queue.orders) >= n)
    await asyncio.sleep(0.2)
    assert len(queue.orders) == n
    return [*queue.orders.values()]


async def test_decisions_of_one_pipeline_are_one_order_with_the_inputs_of_the_run_that_asked(
    tmp_path: Path, ledger: Ledger, bills: TriggeredPipeline
) -> None:
    a, b, c = ask_about(tmp_path, ledger, "a.txt", "b.txt", "c.txt", inputs={"inbox": "/mail"})
    trigger = DecisionTrigger()
    async with (
        open_queue(tmp_path, bills) as queue,
        at_work(trigger, desk_of(queue, bills, trigger)),
    ):
        await n_orders(queue, 0)  # nothing is decided
        accept(ledger, a)
        (order,) = await n_orders(queue, 1)
        assert (order.trigger, order.inputs) == ("review", {"inbox": "/mail"})
        assert order.reason == "goes on with 1 decision"
        accept(ledger, b)
        queue.note(order.id, state="running")
        await n_orders(queue, 1)
        assert ReviewStore(ledger).apply(LedgerReviews(ledger).get(a.id)) is not None
        await ended(queue, trigger, "completed")
        (order,) = await n_orders(queue, 1)
        assert ReviewStore(ledger).apply(LedgerReviews(ledger).get(b.id)) is not None
        await ended(queue, trigger, "completed")
        await n_orders(queue, 0)
        accept(ledger, c)
        await n_orders(queue, 1)


async def test_decisions_that_a_run_left_are_not_run_again_but_those_of_a_skipped_one_are(
    tmp_path: Path, ledger: Ledger, bills: TriggeredPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_orders, "_AGAIN", Backoff(0.3, 0.3))
    (a,) = ask_about(tmp_path, ledger, "a.txt")
    accept(ledger, a)
    trigger = DecisionTrigger()
    async with (
        open_queue(tmp_path, bills) as queue,
        at_work(trigger, desk_of(queue, bills, trigger)),
    ):
        (first,) = await n_orders(queue, 1)
        await ended(queue, trigger, "skipped")
        (second,) = await n_orders(queue, 1)
        assert first.key != second.key
        await ended(queue, trigger, "completed")
        await n_orders(queue, 0)
    restarted = DecisionTrigger()
    async with (
        open_queue(tmp_path, bills) as queue,
        at_work(restarted, desk_of(queue, bills, restarted)),
    ):
        await n_orders(queue, 0)


async def test_a_run_with_secret_inputs_is_left_to_a_person(
    tmp_path: Path, ledger: Ledger, bills: TriggeredPipeline
) -> None:
    (a,) = ask_about(tmp_path, ledger, "a.txt", hidden=["key"])
    accept(ledger, a)
    trigger, warned = DecisionTrigger(), list[str]()
    async with (
        open_queue(tmp_path, bills) as queue,
        at_work(trigger, desk_of(queue, bills, trigger, warn=warned.append)),
    ):
        await eventually(lambda: warned)
        await n_orders(queue, 0)
    name = bills.pipeline.name
    assert {*warned} == {
        f"{name}: decisions wait for a run with its secret inputs: run it by hand."
    }


def test_a_question_whose_time_is_over_is_due_like_a_decision(
    tmp_path: Path, ledger: Ledger
) -> None:
    (a,) = ask_about(tmp_path, ledger, "a.txt")
    file = tmp_path / "bills.yaml"
    assert decided_runs(LedgerReviews(ledger), file) == []
    ledger.in_transaction(
        lambda execute: execute("update reviews set expires_at = 5.0 where id = :id", {"id": a.id})
    )
    (due,) = decided_runs(LedgerReviews(ledger), file)
    assert due.decisions == ((a.id, 5.0),)
    assert decided_runs(LedgerReviews(ledger), tmp_path / "letters.yaml") == []


async def test_what_a_run_used_while_it_was_looked_for_is_no_order(
    tmp_path: Path, ledger: Ledger, bills: TriggeredPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = ask_about(tmp_path, ledger, "a.txt", "b.txt")
    trigger, read = DecisionTrigger(), decision_orders._read_decided
    is_slow, has_read = threading.Event(), threading.Event()

    def read_slowly(desk: Any) -> Any:
        decided = read(desk)
        if is_slow.is_set():
            has_read.set()
            time.sleep(0.3)
        return decided

    monkeypatch.setattr(decision_orders, "_read_decided", read_slowly)
    async with (
        open_queue(tmp_path, bills) as queue,
        at_work(trigger, desk_of(queue, bills, trigger)),
    ):
        accept(ledger, a)
        await n_orders(queue, 1)
        is_slow.set()
        accept(ledger, b)
        has_read.clear()
        await eventually(has_read.is_set)
        is_slow.clear()
        for review in (a, b):
            assert ReviewStore(ledger).apply(LedgerReviews(ledger).get(review.id)) is not None
        await ended(queue, trigger, "completed")
        await asyncio.sleep(0.4)
        await n_orders(queue, 0)


# Who decided, as `on_decided` lets it be known; what `up` reads of ledgers is an hour away.
HEARD: dict[str, Callable[[DecisionTrigger, Ledger], None]] = {
    "another process": lambda trigger, ledger: note_decided(ledger),
    "the page of `up`": lambda trigger, ledger: trigger.decided.set(),
    "one that was killed before it could say so": lambda trigger, ledger: None,
}


@pytest.mark.parametrize("who", HEARD)
async def test_a_decision_is_ordered_though_nobody_reads_the_ledger(
    tmp_path: Path,
    ledger: Ledger,
    bills: TriggeredPipeline,
    monkeypatch: pytest.MonkeyPatch,
    who: str,
) -> None:
    is_other = who == "another process"
    monkeypatch.setattr(decision_orders, "LOOK_S", 0.01 if is_other else 3600.0)
    monkeypatch.setattr(decision_orders, "LOOK_ALL_S", 3600.0)
    (a,) = ask_about(tmp_path, ledger, "a.txt")
    trigger = DecisionTrigger()
    reviews = LedgerReviews(ledger, partial(HEARD[who], trigger))
    async with open_queue(tmp_path, bills) as queue:
        desk = desk_of(queue, bills, trigger)
        async with at_work(trigger, desk):
            reviews.take_lease(a.id, "ann")
            await n_orders(queue, 0)
            reviews.decide(a.id, a.question, "accept", by="ann")
            await n_orders(queue, 0 if "killed" in who else 1)
        restarted = DecisionTrigger()
        async with at_work(restarted, desk_of(queue, bills, restarted)):
            await n_orders(queue, 1)


def test_looking_at_a_question_is_no_decision(tmp_path: Path, ledger: Ledger) -> None:
    (a,) = ask_about(tmp_path, ledger, "a.txt")
    reviews, marks = LedgerReviews(ledger), list[str]()
    acts: list[Callable[[], object]] = [
        lambda: reviews.take_lease(a.id, "ann"),
        lambda: reviews.release(a.id, "ann"),
        lambda: reviews.decide(a.id, a.question, "accept", by="ann"),
        lambda: reviews.decide(a.id, a.question, "accept", by="ann"),
        lambda: reviews.undo(a.id, "ann"),
    ]
    for act in acts:
        act()
        marks.append(decided_mark(ledger))
    assert [marks.index(mark) for mark in marks] == [0, 0, 2, 2, 4]
