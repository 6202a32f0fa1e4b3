"""Runs for decisions: which one is submitted, once, with the inputs of the run that asked."""

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.reviews.reviews import Review
from paddock.runner.review.decisions import LedgerReviews
from paddock.runner.schedule import runs_after_review
from paddock.runner.schedule.prefect_queue import QueuedRun, QueueError
from paddock.runner.schedule.run_manager import OnEnd, RunManager
from paddock.runner.schedule.runs_after_review import DecidedRun, ReviewRuns, decided_runs
from tests.runner.review.served_page import ServedPage


@dataclass
class Queue:
    """A run manager that only notes what is submitted."""

    file: Path
    submitted: list[tuple[str, Any]] = field(default_factory=list)
    ends: list[OnEnd] = field(default_factory=list)
    jobs: dict[str, Any] = field(default_factory=dict)
    is_away: bool = False

    def __post_init__(self) -> None:
        pipeline = SimpleNamespace(name="bills")
        triggered = SimpleNamespace(file=self.file, key=str(self.file), pipeline=pipeline)
        self.deployment = SimpleNamespace(triggered=triggered, id="d")
        self.deployments = {triggered.key: self.deployment}

    async def submit(self, deployment: Any, trigger: str, key: str, **arguments: Any) -> QueuedRun:
        assert trigger == "review"
        if self.is_away:
            raise QueueError("Prefect is away")
        self.submitted.append((key, arguments["inputs"]))
        self.ends.append(arguments["ended"])
        now = datetime.now(UTC)
        return QueuedRun("f", "f", "d", "waiting", now, now)

    def end(self, status: str) -> None:
        asyncio.run(cast(Any, self.ends.pop()(None, status, None)))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / ".paddock") as opened:
        yield opened


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "bills.yaml")


@pytest.fixture
def looks(ledger: Ledger, queue: Queue) -> Callable[[], None]:
    """Return a function that looks once for decisions."""

    async def ask(work: Callable[[Sequence[LedgerReviews]], list[DecidedRun]]) -> list[DecidedRun]:
        return work([LedgerReviews(ledger)])

    runs = ReviewRuns(cast(RunManager, queue), ask)
    return lambda: asyncio.run(runs.look())


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


def test_decisions_of_one_pipeline_are_one_run_with_the_inputs_of_the_run_that_asked(
    tmp_path: Path, ledger: Ledger, queue: Queue, looks: Callable[[], None]
) -> None:
    a, b, c = ask_about(tmp_path, ledger, "a.txt", "b.txt", "c.txt", inputs={"inbox": "/mail"})
    looks()
    assert queue.submitted == []  # nothing is decided
    accept(ledger, a)
    accept(ledger, b)
    looks()
    looks()
    ((key, inputs),) = queue.submitted
    assert inputs == {"inbox": "/mail"}
    assert key.startswith("d:review:")
    for review in (a, b):
        assert ReviewStore(ledger).apply(LedgerReviews(ledger).get(review.id)) is not None
    queue.end("completed")
    looks()
    assert len(queue.submitted) == 1
    accept(ledger, c)
    looks()
    assert len(queue.submitted) == 2


def test_decisions_that_a_run_left_are_not_run_again_but_those_of_a_skipped_one_are(
    tmp_path: Path, ledger: Ledger, queue: Queue, looks: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    now = [100.0]
    monkeypatch.setattr(runs_after_review, "time", SimpleNamespace(monotonic=lambda: now[0]))
    (a,) = ask_about(tmp_path, ledger, "a.txt")
    accept(ledger, a)
    looks()
    queue.end("skipped")
    looks()
    assert len(queue.submitted) == 1  # in a while
    now[0] += 60
    looks()
    assert len(queue.submitted) == 2
    assert queue.submitted[0][0] != queue.submitted[1][0]
    queue.end("completed")
    now[0] += 3600
    looks()
    assert len(queue.submitted) == 2


def test_while_a_run_of_the_pipeline_goes_on_none_is_submitted(
    tmp_path: Path, ledger: Ledger, queue: Queue, looks: Callable[[], None]
) -> None:
    (a,) = ask_about(tmp_path, ledger, "a.txt")
    accept(ledger, a)
    queue.jobs["f"] = SimpleNamespace(deployment=queue.deployment)
    looks()
    assert queue.submitted == []
    queue.jobs.clear()
    looks()
    assert len(queue.submitted) == 1


def test_a_run_that_prefect_did_not_take_is_submitted_when_it_is_back(
    tmp_path: Path, ledger: Ledger, queue: Queue, looks: Callable[[], None]
) -> None:
    (a,) = ask_about(tmp_path, ledger, "a.txt")
    accept(ledger, a)
    queue.is_away = True
    with pytest.raises(QueueError):
        looks()
    queue.is_away = False
    looks()
    assert len(queue.submitted) == 1


def test_a_run_with_secret_inputs_is_left_to_a_person(
    tmp_path: Path, ledger: Ledger, queue: Queue, looks: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    (a,) = ask_about(tmp_path, ledger, "a.txt", hidden=["key"])
    accept(ledger, a)
    with caplog.at_level(logging.WARNING):
        looks()
        looks()
    assert queue.submitted == []
    assert [record.getMessage() for record in caplog.records] == [
        "bills: decisions wait for a run with its secret inputs: run it by hand."
    ]


def test_a_question_whose_time_is_over_is_due_like_a_decision(
    tmp_path: Path, ledger: Ledger
) -> None:
    (a,) = ask_about(tmp_path, ledger, "a.txt")
    assert decided_runs([LedgerReviews(ledger)]) == []
    ledger.in_transaction(
        lambda execute: execute("update reviews set expires_at = 5.0 where id = :id", {"id": a.id})
    )
    (due,) = decided_runs([LedgerReviews(ledger)])
    assert due.file == tmp_path / "bills.yaml"
    assert due.decisions == ((a.id, 5.0),)
