"""Calibration: people's decisions make of a probability the share that was right."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.runner.ledger.calibration import (
    LEAST_FIELDS,
    Reviewed,
    StepCalibration,
    calibrated,
    calibrations_of,
    fit,
    reliability,
)
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews import Question, ReviewStore
from paddock.runner.review.decisions import ReviewDesk

PAIRS = st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.35, 0.6, 0.9, 1.0]), st.booleans()))


def loss(values: list[float], reviewed: list[Reviewed]) -> float:
    return sum(
        (value - is_right) ** 2 for value, (_, is_right) in zip(values, reviewed, strict=True)
    )


@given(PAIRS.filter(bool))
def test_the_line_rises_and_keeps_the_number_of_right_ones(reviewed: list[Reviewed]) -> None:
    line = fit(reviewed)
    shares = [line.of(raw) for raw in sorted(raw for raw, _ in reviewed)]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    assert sum(shares) == pytest.approx(sum(is_right for _, is_right in reviewed), abs=0.01)
    finer = [line.of(step / 200) for step in range(201)]
    assert finer == sorted(finer)


@given(PAIRS.filter(lambda pairs: 0 < len(pairs) <= 6))
def test_no_rising_line_is_nearer_to_what_was_right(reviewed: list[Reviewed]) -> None:
    line = fit(reviewed)
    own = loss([line.of(raw) for raw, _ in reviewed], reviewed)
    places = sorted({raw for raw, _ in reviewed})
    shares = [0, 0.25, 1 / 3, 0.5, 2 / 3, 0.75, 1]
    for rising in itertools.combinations_with_replacement(shares, len(places)):
        value_at = dict(zip(places, rising, strict=True))
        assert own <= loss([value_at[raw] for raw, _ in reviewed], reviewed) + 1e-3


def test_beyond_what_was_reviewed_it_goes_to_nought_and_one() -> None:
    """A step that asks only about doubtful fields must not end by doubting the sure ones."""
    line = fit([(0.4, False), (0.6, True), (0.6, False)])
    assert (line.of(0.2), line.of(0.6), line.of(0.8), line.of(1.0)) == (0.0, 0.5, 0.75, 1.0)


def test_a_reliability_table_has_tenths() -> None:
    rows = reliability([(0.05, False), (0.91, True), (1.0, True), (0.95, False), (0.5, True)])
    assert [(one.label, one.n, one.n_right) for one in rows] == [
        ("0.0 to 0.1", 1, 0),
        ("0.5 to 0.6", 1, 1),
        ("0.9 to 1.0", 3, 2),
    ]


def test_too_few_fields_calibrate_nothing() -> None:
    few = StepCalibration("bills.yaml", "bill", "d", "m", ((0.9, True),) * (LEAST_FIELDS - 1))
    assert (few.calibration, few.rows, few.n_fields) == (None, [], LEAST_FIELDS - 1)
    enough = replace(few, reviewed=(*few.reviewed, (0.9, False)))
    assert enough.calibration is not None
    assert [(one.n, one.n_right) for one in enough.rows] == [(50, 49)]


def mirror(**raws: float) -> dict[str, Any]:
    return {
        name: {"p": raw, "raw": raw, "second": None, "second_p": None, "is_calibrated": False}
        for name, raw in raws.items()
    }


def test_what_people_decided_counts_field_by_field(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        store, desk = ReviewStore(ledger), ReviewDesk(ledger)

        def asked(key: str, digest: str = "d1") -> Any:
            subject = {
                "pipeline": "bills.yaml",
                "answer": {"number": "R-1", "lines": [{"price": 8}]}, "model": "clerk",
                "digest": digest, "document_sha256": key, "schema": {}, "checks": [], "scope": {},
                "by": [], "on_expiry": "quarantine",
                "confidence": {**mirror(number=0.9), "lines": [mirror(price=0.4)]},
            }  # fmt: skip
            return store.ask(Question("s", key, "bill", "run", subject))

        one, two, three, other = asked("a"), asked("b"), asked("c"), asked("e", "d2")
        asked("d")
        desk.decide(one.id, one.question, "accept", by="ann")
        edited = {"number": "R-1", "lines": [{"price": 9}]}
        desk.decide(two.id, two.question, "edit", value=edited, by="ann")
        desk.decide(three.id, three.question, "reject", reason="no bill", by="bob")
        desk.decide(other.id, other.question, "accept", by="bob")
        found = calibrations_of(desk.decided(is_whole=True))
    assert set(found) == {("bills.yaml", "bill", "d1"), ("bills.yaml", "bill", "d2")}
    first = found["bills.yaml", "bill", "d1"]
    assert (first.model, first.n_fields) == ("clerk", 6)
    assert sorted(first.reviewed) == [
        (0.4, False), (0.4, False), (0.4, True), (0.9, False), (0.9, True), (0.9, True),
    ]  # fmt: skip
    assert found["bills.yaml", "bill", "d2"].reviewed == ((0.9, True), (0.4, True))


def test_a_calibrated_confidence_keeps_what_the_model_had() -> None:
    line = fit([(0.9, True)] * 40 + [(0.9, False)] * 40)
    told = {**mirror(number=0.9), "lines": [mirror(price=1.0)], "none": []}
    found = calibrated(told, line)
    assert found["number"] == {**told["number"], "p": 0.5, "is_calibrated": True}
    assert (found["lines"][0]["price"]["p"], found["none"]) == (1.0, [])
    assert calibrated(None, line) is None
