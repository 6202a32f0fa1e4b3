"""A review: the question about one step's answer, and what a person decided. Plain values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from paddock.engine.system.text import canonical_json

ReviewState = Literal["open", "accepted", "edited", "rejected", "expired"]


class DecisionRefused(Exception):
    """A decision, or a lease, that cannot be taken; nothing was changed. One plain sentence."""


def unknown_review(id_: str) -> DecisionRefused:
    return DecisionRefused(
        f"There is no review '{id_}': its document was deleted, or it belongs to another folder's "
        f"ledger."
    )


@dataclass(frozen=True, slots=True)
class Review:
    """A question about one step's answer for one item, and its decision."""

    scope: str
    key: str
    step: str
    id: str
    """Short and stable: of scope, key and step."""
    state: ReviewState
    question: str
    """Digest of the document and the answer."""
    run: str
    """The run that asked."""
    asked_at: float
    expires_at: float | None = None
    by: str | None = None
    """Who decided; None while it is open."""
    decided_at: float | None = None
    is_applied: bool = False
    """Whether a run has gone on with the decision."""
    lease_by: str | None = None
    lease_until: float | None = None
    reason: str | None = None
    """Of a rejection; of an answer that was accepted together with others, that it was."""
    earlier: tuple[Mapping[str, Any], ...] = ()
    """Earlier decisions, newest first: state, value, reason, by, at, question, document_sha256."""
    subject: Mapping[str, Any] = field(default_factory=dict)
    """What the question is about. Lists have the keys of `HEAD_KEYS` only; see `get`."""
    value: Any = None
    """What counts after the decision: the answer, or a person's. Not in lists."""
    together: str | None = None
    """The id of the decision that accepted this answer together with others, unseen."""

    @property
    def shown_name(self) -> str:
        return f"'{self.subject.get('item') or self.key}' (step '{self.step}')"

    @property
    def is_sampled(self) -> bool:
        """Whether the answer was sure, and is asked about as one of a random share."""
        return bool(self.subject.get("is_sampled"))

    @property
    def share(self) -> float | None:
        """The share of sure answers that was asked about then; None: none of them was."""
        return self.subject.get("share")

    @property
    def is_decided(self) -> bool:
        """Whether the answer, or another one, may be used, or must not be."""
        return self.state != "open"

    @property
    def decided_outputs(self) -> dict[str, Any] | None:
        """The outputs that a person decided on; None: no one has, or they are not known."""
        outputs = self.subject.get("outputs") if self.is_decided else None
        return dict(outputs) if isinstance(outputs, Mapping) else None


def refuse_stranger(review: Review, by: str) -> None:
    names = review.subject.get("by") or ()
    if names and by not in names:
        raise DecisionRefused(
            f"'{by}' may not decide on {review.shown_name}. Its reviewers are: {', '.join(names)}."
        )


@dataclass(frozen=True, slots=True)
class ReviewTerms:
    """Who may decide on a step's answers, for how long, and what happens then."""

    by: tuple[str, ...]
    ttl_s: float | None
    on_expiry: str

    def of(self, review: Review) -> Review:
        subject = {**review.subject, "by": list(self.by), "on_expiry": self.on_expiry}
        until = None if self.ttl_s is None else review.asked_at + self.ttl_s
        return replace(review, subject=subject, expires_at=until)


@dataclass(frozen=True, slots=True)
class Question:
    """What a run asks about one step's answer."""

    scope: str
    key: str
    step: str
    run: str
    subject: Mapping[str, Any]
    """Plain data: `HEAD_KEYS`, and answer, schema, checks, scope, evidence, confidence, sources."""
    ttl_s: float | None = None
    objects: tuple[str, ...] = ()
    """Objects that the subject names."""
    renamed_from: str | None = None
    """The key under which the same document was known before."""
    is_asked_again: bool = False
    """Whether it is asked also where no one had decided in time."""

    def until(self, review: Review) -> float | None:
        """Return when a question that was asked before is late."""
        return None if self.ttl_s is None else review.asked_at + self.ttl_s

    @property
    def digest(self) -> str:
        """The same for an unchanged document with an unchanged answer."""
        parts = [self.subject.get("document_sha256"), self.subject.get("answer")]
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def review_id(scope: str, key: str, step: str) -> str:
    return hashlib.sha256("\0".join((scope, key, step)).encode()).hexdigest()[:12]
