"""Calibration: people's decisions make of a probability the share that was right."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from paddock.engine.system.item_samples import share_interval
from paddock.engine.system.records import replace
from paddock.runner.calibration.confidence_calibration import (
    LEAST_DECISIONS,
    CalibrationKey,
    DecidedAnswer,
    DecidedField,
    FieldCounts,
    StepCalibration,
    calibrated,
    calibrations_of,
    reviewed_fields,
    start_text,
)
from paddock.runner.core.reviews.run_reviews import RunReviews
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.reviews.reviews import Question, Review, Subject
from paddock.runner.review.decisions import LedgerReviews

KEY = CalibrationKey("bills.yaml", "bill", "d", "p", "s")


def table(*answers: tuple[str, str, list[tuple[str, float, bool]]]) -> StepCalibration:
    """Return a table of answers: key of the item, document, fields."""
    decided = [
        DecidedAnswer(
            ("scope", key),
            document,
            tuple(DecidedField((name,), raw, is_right) for name, raw, is_right in fields),
        )
        for key, document, fields in answers
    ]
    return StepCalibration(KEY, "m", 0.0, tuple(decided))


def said(decisions: StepCalibration, name: str = "total", raw: float = 0.9) -> Any:
    found = decisions.counts()[name,].calibrated(raw)
    return None if found is None else (found["p"], found["low"])


def test_too_few_decisions_on_a_field_calibrate_nothing() -> None:
    answers = [
        (f"{n}", f"doc{n}", [("total", 0.9, True), ("n", 0.9, True)])
        for n in range(LEAST_DECISIONS - 1)
    ]
    assert said(table(*answers)) is None
    assert said(table(*answers, ("x", "y", [("total", 0.9, False)]))) == (0.98, 0.895)


def test_decisions_count_of_which_the_model_was_about_as_sure() -> None:
    unsure = [(f"u{n}", f"u{n}", [("total", 0.5, n % 2 == 0)]) for n in range(50)]
    sure = [(f"s{n}", f"s{n}", [("total", 0.9, True)]) for n in range(50)]
    decisions = table(*unsure, *sure)
    asked = {raw: said(decisions, raw=raw) for raw in (0.4, 0.5, 0.8, 0.9, 1.0)}
    half, right = (0.5, 0.3664), (1.0, 0.9286)
    assert asked == {0.4: None, 0.5: half, 0.8: half, 0.9: right, 1.0: None}
    assert said(table(*unsure, *sure[1:])) == (0.7475, 0.6538), "too few for two groups"


TRUTHS: dict[str, Callable[[float, float], float]] = {
    "rises": lambda mean, raw: mean + 1.2 * (raw - 0.9),
    "flat": lambda mean, raw: mean,
    "falls": lambda mean, raw: mean - 0.8 * (raw - 0.9),
    "drops": lambda mean, raw: mean - 0.3 * (raw >= 0.95),
    "dips": lambda mean, raw: mean - 0.4 * (0.85 <= raw < 0.9),
}


@pytest.mark.parametrize("shape", TRUTHS)
@pytest.mark.parametrize("n_answers", [60, 300])
def test_answers_are_right_as_often_as_their_lower_bounds_say(shape: str, n_answers: int) -> None:
    rng, n_held, n_fields = random.Random(8), 0, 0

    def drawn() -> float:
        return round(max(0.3, 1 - abs(rng.gauss(0, 0.12))), 4)

    for _ in range(60):
        means = {name: rng.choice((0.6, 0.8, 0.9, 0.99)) for name in "abc"}
        truth = {
            (name, raw): min(1.0, max(0.0, TRUTHS[shape](mean, raw)))
            for name, mean in means.items()
            for raw in (drawn() for _ in range(n_answers + 100))
        }
        pairs = {name: [raw for of, raw in truth if of == name] for name in means}
        answers = [
            (f"{at}", f"{at}", [(name, raw, rng.random() < truth[name, raw])])
            for name, raws in pairs.items()
            for at, raw in enumerate(raws[:n_answers])
        ]
        counts = table(*answers).counts()
        for name, raws in pairs.items():
            found = [(raw, counts[name,].calibrated(raw)) for raw in raws[n_answers:]]
            said = [(truth[name, raw], value["low"]) for raw, value in found if value]
            n_fields += bool(said)
            n_held += bool(said) and sum(p for p, _ in said) >= sum(low for _, low in said)
    assert n_fields >= 150
    assert n_held >= 0.94 * n_fields


def test_an_items_own_decision_does_not_count_for_itself() -> None:
    answers = [(f"{n}", f"doc{n}", [("total", 0.9, n > 0)]) for n in range(60)]
    line = table(*answers)
    whole, own, copy = (
        line.counts(*which)["total",].calibrated(0.9) or {}
        for which in ((("scope", "new"), "new"), (("scope", "0"), "new"), (("scope", "c"), "doc0"))
    )
    assert whole["p"] == pytest.approx(59 / 60, abs=1e-4)
    assert (own["p"], copy["p"]) == (1.0, 1.0)


def mirror(**raws: float) -> dict[str, Any]:
    return {
        name: {"p": raw, "raw": raw, "second": None, "second_p": None, "is_calibrated": False}
        for name, raw in raws.items()
    }


def test_what_people_decided_counts_field_by_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger(tmp_path) as ledger:
        store, reviews = ReviewStore(ledger), LedgerReviews(ledger)

        def ask(key: str, digest: str = "d1") -> Any:
            subject = {
                "pipeline": "bills.yaml",
                "answer": {"number": "R-1", "lines": [{"price": 8}]}, "model": "clerk",
                "digest": digest, "document_sha256": key, "schema": {}, "checks": [], "scope": {},
                "by": [], "on_expiry": "quarantine",
                "confidence": {**mirror(number=0.9), "lines": [mirror(price=0.4)]},
            }  # fmt: skip
            return store.ask(Question("s", key, "bill", "run", Subject.of(subject)))

        accepted, corrected, rejected, other = ask("a"), ask("b"), ask("c"), ask("e", "d2")
        ask("d")
        reviews.decide(accepted.id, accepted.question, "accept", by="ann")
        edited = {"number": "R-1", "lines": [{"price": 9}]}
        reviews.decide(corrected.id, corrected.question, "edit", value=edited, by="ann")
        reviews.decide(rejected.id, rejected.question, "reject", reason="no bill", by="bob")
        reviews.decide(other.id, other.question, "accept", by="bob")
        found = calibrations_of(reviews.decided(is_whole=True))
        monkeypatch.setattr(ReviewStore, "waiting", None)  # a run does not read what waits for it
        assert RunReviews(ledger, cast(Any, None)).calibrations() == found
    keys = [CalibrationKey("bills.yaml", "bill", digest, "", "") for digest in ("d1", "d2")]
    assert set(found) == set(keys)
    first = found[keys[0]]
    assert (first.model, len(first.answers), first.n_rejected) == ("clerk", 2, 1)
    assert pairs(first) == [(0.4, False), (0.4, True), (0.9, True), (0.9, True)]
    assert pairs(found[keys[1]]) == [(0.4, True), (0.9, True)]


def pairs(found: StepCalibration) -> list[tuple[float, bool]]:
    return sorted(
        (field.raw, field.is_right) for answer in found.answers for field in answer.fields
    )


def decided(answer: Any, confidence: Any, state: str, value: Any = None, reason: str = "") -> Any:
    """Return a review as the ledger has it."""
    subject = Subject(answer=answer, confidence=confidence, pipeline="b.yaml")
    return Review(
        "s", "k", "bill", "id", state, "q", "run", 0.0, None, "ann", 1.0, True, None, None,  # type: ignore[arg-type]
        reason or None, (), subject, value,
    )  # fmt: skip


LINES = [{"name": name, "price": price} for name, price in (("a", 1), ("b", 2), ("c", 3))]


@pytest.mark.parametrize(
    ("edited", "right"),
    [
        (LINES[1:], "b2 c3"),
        ([LINES[0], LINES[2]], "a1 c3"),
        ([{"name": "new", "price": 9}, *LINES], "a1 b2 c3"),
        ([LINES[2], LINES[0], LINES[1]], "a1 b2 c3"),
        ([{"name": "b", "price": 7}, LINES[2]], "b c3"),
        ([LINES[0], {"name": "x", "price": 2}, LINES[2]], "a1 2 c3"),
        ([], ""),
        (LINES, "a1 b2 c3"),
    ],
    ids=["first deleted", "middle deleted", "inserted", "moved", "deleted and edited", "edited",
         "all deleted", "unchanged"],
)  # fmt: skip
def test_lists_are_aligned_before_they_are_compared(edited: Any, right: str) -> None:
    sure = [mirror(name=0.9, price=0.8) for _ in LINES]
    review = decided({"lines": LINES}, {"lines": sure}, "edited", {"lines": edited})
    found = reviewed_fields(review)
    values = [str(value) for line in LINES for value in line.values()]
    assert [field.name for field in found] == [("lines", "name"), ("lines", "price")] * 3
    shown = "".join(value for value, field in zip(values, found, strict=True) if field.is_right)
    assert shown == right.replace(" ", "")


@pytest.mark.parametrize(
    ("reason", "wrong"),
    [
        ("a scan of a cat", []),
        ("total: misread", [("total",)]),
        ("total, number: both misread", [("number",), ("total",)]),
        ("lines: others", [("lines", "price")]),
        ("lines.0.price", [("lines", "price")]),
        ("total amount: misread", []),
        ("see page 2, total: misread", []),
    ],
)
def test_a_rejection_counts_for_the_fields_that_it_names(
    reason: str, wrong: list[tuple[str, ...]]
) -> None:
    answer = {"number": "R-1", "total": 8, "lines": [{"price": 8}]}
    sure = {**mirror(number=0.9, total=0.8), "lines": [mirror(price=0.4)]}
    found = reviewed_fields(decided(answer, sure, "rejected", reason=reason))
    assert [(field.name, field.is_right) for field in found] == [(name, False) for name in wrong]


def test_another_prompt_or_schema_begins_another_table() -> None:
    def review_of(prompt: str, schema: str, at: float) -> Review:
        review: Review = decided({"total": 1}, mirror(total=0.9), "accepted")
        subject = replace(review.subject, digest="m", prompt_digest=prompt, schema_digest=schema)
        return replace(review, asked_at=at, subject=subject)

    found = calibrations_of(
        [review_of("p1", "s1", 1), review_of("p1", "s1", 2), review_of("p2", "s1", 3)]
    )
    assert [len(calibration.answers) for calibration in found.values()] == [2, 1]
    now = CalibrationKey("b.yaml", "bill", "m", "p3", "s2")
    assert start_text(now, found) == (
        "'bill': its confidence has 0 of 50 reviewed answers. 1 reviewed answer of another prompt "
        "and schema no longer counts."
    )
    assert start_text(now._replace(step="other"), found) is None


@pytest.mark.parametrize(
    ("second_p", "then"), [(0.1, 0.5), (0.04, 0.2), (0.0, 0.0), (0.1004, 0.5), (None, None)]
)
def test_the_second_value_has_its_share_of_what_the_calibrated_first_leaves(
    second_p: float | None, then: float | None
) -> None:
    line = counts(total=(40, 40))
    confidence = {"total": {**mirror(total=0.9)["total"], "second": 7, "second_p": second_p}}
    found = calibrated(confidence, line)
    assert (found["total"]["p"], found["total"]["second_p"]) == (0.5, then)
    assert calibrated(found, line) == found, "once more changes nothing"


def counts(**n_right_and_wrong: tuple[int, int]) -> FieldCounts:
    answers = [
        (f"{name}{at}", f"{name}{at}", [(name, 0.9, at < right)])
        for name, (right, wrong) in n_right_and_wrong.items()
        for at in range(right + wrong)
    ]
    return table(*answers).counts()


def test_a_calibrated_confidence_keeps_what_the_model_had() -> None:
    line = counts(number=(40, 40))
    confidence = {**mirror(number=0.9), "lines": [mirror(price=1.0)], "none": []}
    found = calibrated(confidence, line)
    bound = round(share_interval(0.5, 80)[0], 4)
    expected = {"p": 0.5, "low": bound, "is_calibrated": True}
    assert found["number"] == {**confidence["number"], **expected}
    assert (found["lines"], found["none"]) == (confidence["lines"], [])
    assert calibrated(None, line) is None
