"""Invoices from the document to the reviewed output, with a server whose answers are set.

The documents are real ones of several kinds; what the model says of them, and how surely, is the
test's. So the way is whole: reading, evidence, confidence, question, decision, continuation.
"""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.api import run
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.reviews import Review
from paddock.runner.progress.report import Report
from paddock.runner.review.decisions import LedgerReviews
from tests.fakes.clerk import Clerk, Said, clerk, pipeline
from tests.fakes.papers import INVOICES, write
from tests.runner.cli.commands.shell import paddock_here
from tests.runner.world import settings

PIANO, BOATYARD, CHANDLERY, SAILMAKER = (
    "piano.eml", "boatyard.pdf", "chandlery.pdf", "sailmaker.pdf",
)  # fmt: skip
RIGHT: dict[str, dict[str, Any]] = {
    PIANO: {"number": "24-007", "total": 93.0, "pay_by": "2024-04-25"},
    BOATYARD: {"number": "2024-118", "total": 1320.0, "pay_by": "2024-06-17"},
    CHANDLERY: {"number": "HC-0457", "total": 1234.5, "pay_by": "2024-05-03"},
    SAILMAKER: {"number": "S 88", "total": 84.0, "pay_by": "2024-04-11"},
    "roofing.docx": {"number": "24-031", "total": 2120.0, "pay_by": "2024-05-03"},
    "fuel.png": {"number": "F-309", "total": 412.75, "pay_by": "2024-07-09"},
    "tides.csv": {"number": "T-5512", "total": 61.4, "pay_by": "2024-01-01"},
}
SENDERS = {
    PIANO: "Ida Fell",
    BOATYARD: "Calder Boatyard",
    CHANDLERY: "Harbour Chandlery",
    SAILMAKER: "Sailmakers",
    "roofing.docx": "Forge Mill",
    "fuel.png": "Fuel Dock",
    "tides.csv": "Office of Tides",
}
# The first is right and sure; then an unsure amount, a number that stands nowhere, and a wrong day.
ANSWERS = {
    SENDERS[PIANO]: Said(RIGHT[PIANO]),
    SENDERS[BOATYARD]: Said({**RIGHT[BOATYARD], "total": 1100.0}, {"total": (0.62, "1320.0")}),
    SENDERS[CHANDLERY]: Said({**RIGHT[CHANDLERY], "number": "HC-9999"}),
    SENDERS[SAILMAKER]: Said({**RIGHT[SAILMAKER], "pay_by": "1999-12-31"}),
}
WAITING = {BOATYARD, CHANDLERY, SAILMAKER}


class Invoices:
    """A folder with invoices, their pipeline, and the model's server."""

    def __init__(self, folder: Path, model: Clerk) -> None:
        self.folder = folder
        self.model = model
        self.file = folder / "pipeline.yaml"
        self.file.write_text(pipeline(model.url), "utf-8")
        self.receive(*(name for name in INVOICES if SENDERS[name] in model.answers))

    def receive(self, *names: str) -> None:
        write(self.folder / "inbox", {name: INVOICES[name] for name in names})

    def edit(self, old: str, new: str) -> None:
        text = self.file.read_text("utf-8")
        assert old in text
        self.file.write_text(text.replace(old, new), "utf-8")

    def run(self, **options: Any) -> Report:
        return run(
            self.file,
            options=RunOptions(**{"local": True, **options}),
            environment=RunEnvironment(settings=self.settings),
        )

    @property
    def settings(self) -> Any:
        return replace(settings(self.folder), allow=frozenset(["network"]))

    def command(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("paddock")), *words],
            cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
        )  # fmt: skip

    def output(self, *words: str, status: int = 0) -> str:
        ended = paddock_here(*words, cwd=self.folder)
        assert ended.status == status, ended
        return ended.out + ended.err

    @contextmanager
    def reviews(self) -> Iterator[LedgerReviews]:
        with Ledger(self.folder / ".paddock") as ledger:
            yield LedgerReviews(ledger)

    def waiting(self) -> dict[str, Review]:
        """Return the open reviews, whole, by the document's name."""
        with self.reviews() as reviews:
            return {review.subject.item: reviews.get(review.id) for review in reviews.waiting()}

    def decide(self, name: str, verb: Any, value: Any = None, reason: str = "") -> Review:
        with self.reviews() as reviews:
            (review,) = (review for review in reviews.waiting() if review.subject.item == name)
            return reviews.decide(review.id, review.question, verb, value, reason=reason, by="ann")

    def written(self) -> dict[str, Any]:
        """Return what was written of each document."""
        files = (self.folder / "out").glob("*.*.json")
        return {file.name.removesuffix(".json"): json.loads(file.read_text()) for file in files}

    def table(self) -> list[str]:
        return [row["file"] for row in json.loads((self.folder / "out" / "all.json").read_text())]


@pytest.fixture
def model() -> Iterator[Clerk]:
    with clerk(ANSWERS) as served:
        yield served


@pytest.fixture
def invoices(tmp_path: Path, model: Clerk) -> Invoices:
    return Invoices(tmp_path, model)


def n_waiting(report: Report) -> int:
    return report.counts.get("waiting", 0)


def test_what_is_sure_and_found_goes_on_and_the_rest_waits_for_a_person(invoices: Invoices) -> None:
    report = invoices.run()
    assert (report.status, report.exit_status()) == ("completed", 0)
    assert n_waiting(report) == 3
    assert invoices.written() == {PIANO: RIGHT[PIANO]}
    assert invoices.table() == [PIANO]

    reviews = invoices.waiting()
    assert reviews.keys() == WAITING
    boat = reviews[BOATYARD].subject
    assert boat.answer == {**RIGHT[BOATYARD], "total": 1100.0}
    assert boat.confidence["total"]["second"] in (1320.0, "1320.0")
    assert 0.6 < boat.confidence["total"]["p"] < 0.65
    assert boat.evidence["total"]["quote"] == "1,100.00"
    assert boat.evidence["total"]["match"] == "normalised"
    assert reviews[CHANDLERY].subject.evidence["number"]["match"] == "none"
    assert reviews[SAILMAKER].subject.evidence["pay_by"]["match"] == "none"


def test_a_question_outlives_ctrl_c_in_the_middle_of_a_run(invoices: Invoices) -> None:
    """What was asked before the interruption waits, and the rest is asked by the next run."""
    invoices.edit("    do:", "    max_parallel: 1\n    do:")
    answered, reached, may_go_on = invoices.model.said, threading.Event(), threading.Event()

    def hold_the_last(prompt: str) -> Said:
        if len(invoices.model.asked) == len(ANSWERS):
            reached.set()
            may_go_on.wait(120)
        return answered(prompt)

    invoices.model.said = hold_the_last  # type: ignore[method-assign]
    process = invoices.command("run", "--local", "--allow", "network", "pipeline.yaml")
    assert reached.wait(120), process.communicate()
    process.send_signal(signal.SIGINT)
    may_go_on.set()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    asked_at = {name: review.asked_at for name, review in invoices.waiting().items()}
    assert asked_at
    report = invoices.run()
    after = invoices.waiting()
    assert n_waiting(report) == 3
    assert after.keys() == WAITING
    assert {name: after[name].asked_at for name in asked_at} == asked_at
