"""Whether a question was asked before, so that a person who decided is not asked once more. Pure.

It is the same question, or the same document has the answer that a person decided on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from paddock.engine.system.records import replace

from .reviews import Question, Review, Subject, review_id

MOST_EARLIER = 20
"""Earlier decisions that are kept for each review."""
_TAKEN_OVER = ("state", "by", "asked_at", "decided_at", "value", "together")
"""Of a decision that stands for a new question."""


def is_same_value(left: Any, other: Any) -> bool:
    """Return whether two answers have the same values.

    >>> is_same_value({"a": 1, "b": [2.0]}, {"b": [2], "a": 1.0}), is_same_value([1], [True])
    (True, False)
    """
    if isinstance(left, Mapping) and isinstance(other, Mapping):
        return left.keys() == other.keys() and all(is_same_value(left[k], other[k]) for k in left)
    if isinstance(left, list) and isinstance(other, list):
        return len(left) == len(other) and all(map(is_same_value, left, other))
    return isinstance(left, bool) is isinstance(other, bool) and bool(left == other)


def stands(question: Question, old: Review) -> bool:
    if old.state == "expired" and question.is_asked_again:
        return False
    if old.is_decided and not old.has_seen(question.subject):
        return False
    if old.question == question.digest:
        return True
    return (
        old.state in ("accepted", "edited")
        and question.subject.document_sha256 == old.subject.document_sha256
        and is_same_value(question.subject.answer, old.value)
    )


def asked_or_decided(question: Question, review: Review) -> Review:
    """Return a review, or what was decided before it, where that stands for a question."""
    before = review.before
    return review if before is None or not stands(question, before) else before


def with_decision(review: Review) -> tuple[Mapping[str, Any], ...]:
    decision = {
        "state": review.state,
        "value": review.value,
        "reason": review.reason,
        "by": review.by,
        "at": review.decided_at,
        "question": review.question,
        "document_sha256": review.subject.document_sha256,
    }
    return (decision, *review.earlier)[:MOST_EARLIER]


def has_subject_or_expiry_changed(question: Question, old: Review) -> bool:
    """Return whether the subject or the expiry of a question differs from its stored review.

    What a person sees and what holds for them may change while document and answer stay: whom it
    is for, why it is asked, checks, confidence.
    """
    stored = Subject.of(json.loads(json.dumps(question.subject.as_json())))
    return stored != old.subject or question.until(old) != old.expires_at


def new_review(question: Question, old: Review | None, now: float) -> Review:
    """Return the review of a question that is new; `old`: of an earlier one at its place."""
    new = Review(
        scope=question.scope,
        key=question.key,
        step=question.step,
        id=review_id(question.scope, question.key, question.step),
        state="open",
        question=question.digest,
        run=question.run,
        asked_at=now,
        expires_at=None if question.ttl_s is None else now + question.ttl_s,
        earlier=old.earlier if old is not None else (),
        subject=question.subject,
    )
    if old is None:
        return new
    former = () if old.state == "rejected" else (old.standing, old.before)
    for stood in filter(None, former):
        if stood.subject.document_sha256 != question.subject.document_sha256:
            new = replace(new, before=replace(stood, before=None))
            break
    if stands(question, old):
        decision = {name: getattr(old, name) for name in _TAKEN_OVER}
        seen = None if old.fields_seen is None else tuple(sorted(old.fields_seen))
        subject = replace(new.subject, open=seen, places=old.subject.places)
        subject = replace(subject, marks=old.subject.marks)
        return replace(new, **decision, subject=subject)
    if old.is_decided:
        return replace(new, earlier=with_decision(old))
    before, after = ([s.document_sha256, s.schema] for s in (old.subject, new.subject))
    return replace(new, value=old.value) if before == after else new
