"""Decisions of people about the answers of an item or a run, and how reliable confidence was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from paddock.engine.system.text import one_line
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews import Review, ReviewStore
from paddock.runner.ledger.run_history import PastRun, open_for_reading
from paddock.runner.render.run_details import ReliabilityTable, ReviewedAnswer, ReviewRecord
from paddock.runner.review.calibration import LEAST_FIELDS, calibrations_of
from paddock.runner.review.fields import changed_fields, subject_fields, value_text
from paddock.runner.review.wording import (
    MAX_VALUE_CHARS,
    earlier_lines,
    place_text,
    shown_item,
    sure_text,
)


def reviews_of_item(ledger: Ledger, scope: str, key: str) -> ReviewRecord:
    """Return the reviews of an item, by step, and the reliability of these steps."""
    store = ReviewStore(ledger)
    heads = store.of_scope(scope, [key])
    found = [store.get(one.id) for _, one in sorted(heads.items())]
    reviews = [one for one in found if one is not None]
    decided = store.decided(is_whole=True) if reviews else []
    return _record(reviews, decided)


def reviews_of_run(past: PastRun) -> ReviewRecord:
    """Return the reviews that a run asked for, and of the items that it went on with.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    with open_for_reading(past.place) as ledger:
        store = ReviewStore(ledger)
        decided = store.decided(is_whole=True)
        places = {(row.scope, row.entry.key) for row in ledger.items_of(past.row.run)}
        reviews = [
            one
            for one in (*store.waiting(is_whole=True), *decided)
            if one.run == past.row.run or (one.scope, one.key) in places
        ]
    return _record(reviews, decided)


def _record(reviews: Sequence[Review], decided: Sequence[Review]) -> ReviewRecord:
    places = {_place(one) for one in reviews}
    return ReviewRecord(
        tuple(map(reviewed_answer, reviews)),
        tuple(reliability_tables(one for one in decided if _place(one) in places)),
    )


def _place(review: Review) -> tuple[str, str]:
    """Return what confidence depends on: the step and the model."""
    return review.step, str(review.subject.get("digest"))


def review_outcome(review: Review) -> str:
    """Return what became of a question, such as `edited by ann`."""
    if not review.is_decided:
        return "waits for review"
    who = f" by {review.by}" if review.by else ""
    return f"{review.state}{who}" + (f": {one_line(review.reason)}" if review.reason else "")


def reviewed_answer(review: Review) -> ReviewedAnswer:
    """Return a whole review in texts for people."""
    subject = review.subject
    changes = (
        changed_fields(subject.get("answer"), review.value) if review.state == "edited" else ()
    )
    return ReviewedAnswer(
        item=shown_item(review),
        step=review.step,
        state=review.state,
        outcome=review_outcome(review),
        by=review.by,
        at=review.decided_at,
        reason=review.reason,
        changes=tuple((path, _short(old), _short(new)) for path, old, new in changes),
        fields=tuple(
            (
                one.path,
                f"{_short(one.value)}{sure_text(one.confidence)}",
                "" if one.evidence is None else place_text(one.evidence),
            )
            for one in subject_fields(subject)
        ),
        earlier=tuple(earlier_lines(review)),
    )


def _short(value: object) -> str:
    return "null" if value is None else one_line(value_text(value), MAX_VALUE_CHARS)


def reliability_tables(decided: Iterable[Review]) -> list[ReliabilityTable]:
    """Return how reliable each step's confidence was; none for answers without confidence."""
    return [
        ReliabilityTable(
            step=one.step,
            model=one.model,
            n_fields=one.n_fields,
            n_needed=LEAST_FIELDS,
            rows=tuple((row.label, row.n, row.n_right) for row in one.rows),
        )
        for _, one in sorted(calibrations_of(decided).items())
    ]
