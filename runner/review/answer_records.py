"""Answers of an item or a run: how sure they are, where they stand, who decided."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence, Set

from paddock.engine.system.text import cell_text, one_line, path_text
from paddock.runner.calibration.confidence_calibration import (
    LEAST_DECISIONS,
    CalibrationKey,
    FieldCount,
    calibrations_of,
    former_tables,
    key_of,
)
from paddock.runner.core.run_records import read_lineage
from paddock.runner.ledger.entries import LineageRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.reviews.reviews import Review, Subject
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.render.reviewed_answers import FieldReliability, ReviewedAnswer, ReviewRecord
from paddock.runner.review.answer_fields import (
    MAX_VALUE_CHARS,
    changed_fields,
    earlier_lines,
    place_text,
    shown_item,
    subject_fields,
    sure_text,
)


def reviews_of_item(ledger: Ledger, scope: str, key: str) -> ReviewRecord:
    store = ReviewStore(ledger)
    heads = sorted(store.of_scope(scope, [key]).items())
    reviews = [review for _, head in heads if (review := store.get(head.id)) is not None]
    row = LineageStore(ledger).of_item(scope, key)
    answers = [] if row is None else list(_unreviewed(row, key, {r.step for r in reviews}))
    if not reviews:
        return ReviewRecord(tuple(answers))
    known = (*store.waiting(is_whole=True), *store.decided(is_whole=True))
    return _record(reviews, answers, known)


def review_record_of_run(ledger: Ledger, run: str) -> ReviewRecord:
    """Return the answers of a run: the reviews that it asked for or went on with, and others."""
    store = ReviewStore(ledger)
    known = (*store.waiting(is_whole=True), *store.decided(is_whole=True))
    places = {(row.scope, row.entry.key) for row in RunStore(ledger).items_of(run)}
    reviews = [r for r in known if r.run == run or (r.scope, r.key) in places]
    reviewed_steps: dict[tuple[str, str], set[str]] = {}
    for review in reviews:
        reviewed_steps.setdefault((review.scope, review.key), set()).add(review.step)
    answers = [
        answer
        for row in LineageStore(ledger).of_run(run)
        for answer in _unreviewed(row, row.key, reviewed_steps.get((row.scope, row.key), set()))
    ]
    return _record(reviews, answers, known)


def _unreviewed(row: LineageRow, key: str, reviewed: Collection[str]) -> Iterator[ReviewedAnswer]:
    """Yield the answers of an item that have evidence or confidence, and were not asked about."""
    lineage = read_lineage(row)
    for step in lineage.steps:
        if step.answer is not None and step.id not in reviewed:
            item = key if lineage.source is None else lineage.source.path
            fields = _field_texts(Subject.of(step.answer))
            yield ReviewedAnswer(item, step.id, "none", "not reviewed", fields=fields)


def _record(
    reviews: Sequence[Review], answers: Sequence[ReviewedAnswer], known: Sequence[Review]
) -> ReviewRecord:
    """Return the answers, and the tables of their steps; `known` are all reviews, whole."""
    keys = {key_of(review) for review in reviews}
    return ReviewRecord(
        (*map(reviewed_answer, reviews), *answers), tuple(reliabilities(known, keys))
    )


def review_outcome(review: Review) -> str:
    if not review.is_decided:
        return "waits for review"
    by = f" by {review.by}" if review.by else ""
    return f"{review.state}{by}" + (f": {one_line(review.reason)}" if review.reason else "")


def reviewed_answer(review: Review) -> ReviewedAnswer:
    subject = review.subject
    changes = changed_fields(subject.answer, review.value) if review.state == "edited" else ()
    return ReviewedAnswer(
        item=shown_item(review),
        step=review.step,
        state=review.state,
        outcome=review_outcome(review),
        by=review.by,
        at=review.decided_at,
        reason=review.reason,
        changes=tuple((path, _short(old), _short(new)) for path, old, new in changes),
        fields=_field_texts(subject),
        earlier=tuple(earlier_lines(review)),
    )


def _field_texts(subject: Subject) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        (
            field.path,
            f"{_short(field.value)}{sure_text(field.confidence)}",
            "" if field.evidence is None else place_text(field.evidence),
        )
        for field in subject_fields(subject)
    )


def _short(value: object) -> str:
    return "null" if value is None else one_line(cell_text(value), MAX_VALUE_CHARS)


def reliabilities(
    reviews: Iterable[Review], keys: Set[CalibrationKey]
) -> Iterator[FieldReliability]:
    """Yield how reliable each step's fields were; none for answers without confidence."""
    tables = calibrations_of(reviews)
    for key in sorted(keys & tables.keys()):
        table, former = tables[key], former_tables(key, tables)
        of_step = (other for other in tables.values() if other.key[:2] == key[:2])
        newest = max(of_step, key=lambda other: other.at)
        for at, (name, found) in enumerate((table.counts() or {(): FieldCount()}).items()):
            yield FieldReliability(
                step=key.step,
                model=table.model,
                field=path_text(name) if name else "",
                n=found.n,
                n_right=found.n_right,
                n_needed=LEAST_DECISIONS,
                n_rejected=table.n_rejected,
                former="" if newest is table else key.changes(newest.key),
                n_former=sum(len(other.answers) for other in former)
                if newest is table and not at
                else 0,
            )
