"""A step's confidence after people have decided on 50 of its fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from paddock.runner import RunOptions, run
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.progress.report import Report
from paddock.runner.review.decisions import LedgerReviews
from tests.fakes.clerk import Said, clerk, pipeline

DUE = '{when: "confidence.min < 0.7"}'
BILL = {"number": "R-1", "total": 84.5, "pay_by": "2026-01-31"}
DOUBTFUL = Said(BILL, {"total": (0.5, "84.0")})


def write(folder: Path, number: int) -> None:
    (folder / "inbox" / f"{number}.txt").write_text(f"Invoice {number}: R-1, 84.50, 2026-01-31\n")


def carried_out(folder: Path, url: str) -> Report:
    text = pipeline(url, DUE).replace(
        "steps.bill.output | tojson", "steps.bill.confidence | tojson"
    )
    (folder / "bills.yaml").write_text(text)
    options = RunOptions(local=True, allow=frozenset({"network"}))
    return run(folder / "bills.yaml", options=options)


def confidence_of(folder: Path, number: int) -> Any:
    """Return what was written; a value that a person wrote has no probability."""
    return json.loads((folder / "out" / f"{number}.txt.json").read_text())


def decide(folder: Path) -> None:
    """Accept what waits, but correct the total of every fourth."""
    with Ledger(folder / ".paddock") as ledger:
        reviews = LedgerReviews(ledger)
        for place, review in enumerate(reviews.waiting()):
            if place % 4:
                reviews.decide(review.id, review.question, "accept", by="ann")
            else:
                value = {**BILL, "total": 90.0}
                reviews.decide(review.id, review.question, "edit", value=value, by="ann")


def test_fifty_reviewed_fields_calibrate_later_answers_and_make_nothing_stale(
    tmp_path: Path,
) -> None:
    (tmp_path / "inbox").mkdir()
    for number in range(16):
        write(tmp_path, number)
    with clerk({"Invoice": DOUBTFUL}) as model:
        first = carried_out(tmp_path, model.url)
        assert first.counts["waiting"] == 16
        decide(tmp_path)
        write(tmp_path, 16)
        second = carried_out(tmp_path, model.url)
        assert second.counts["waiting"] == 1, "48 fields are too few"
        decide(tmp_path)  # as the first of its list it is corrected
        write(tmp_path, 17)
        n_asked = len(model.asked)
        third = carried_out(tmp_path, model.url)
        assert len(model.asked) == n_asked + 1
    assert third.status == "completed"
    assert not {"waiting", "stale"} & {state for state, n in third.counts.items() if n}
    before = [confidence_of(tmp_path, number) for number in range(16)]
    accepted = [
        confidence["total"] for confidence in before if confidence["total"]["p"] is not None
    ]
    assert [(total["p"], total["is_calibrated"]) for total in accepted] == [(0.5, False)] * 12
    after = confidence_of(tmp_path, 17)
    # 12 of 17 totals of this probability were right, so the answer needs no review any more.
    assert after["total"] == {
        "p": 0.7059, "low": 0.4687, "raw": 0.5, "second": 84.0, "second_p": 0.2941,
        "is_calibrated": True,
    }  # fmt: skip
    assert (after["number"]["p"], after["number"]["raw"]) == (1.0, 0.99)
