"""A review: the question about one step's answer, and what a person decided. Plain values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from paddock.engine.system.records import Struct, field, record_from, replace
from paddock.engine.system.text import canonical_json

Mark = Literal["never", "always"]
ReviewState = Literal["open", "accepted", "edited", "rejected", "expired"]

HEAD_NAMES = (
    "pipeline", "block", "item", "document", "document_sha256", "model", "digest", "when", "due",
    "least", "by", "on_expiry", "around", "share", "is_sampled", "may_be_fraud",
)  # fmt: skip
"""What lists of reviews show of a subject."""


class DecisionRefused(Exception):
    """A decision, or a lease, that cannot be taken; nothing was changed. One plain sentence."""


def unknown_review(id_: str) -> DecisionRefused:
    return DecisionRefused(
        f"There is no review '{id_}': its document was deleted, or it belongs to another folder's "
        f"ledger."
    )


class SubjectText(Struct, frozen=True):
    """A text that an answer was made of: itself, or, where it is long, its object in the ledger."""

    name: str
    path: str | None = None
    media_type: str | None = None
    text: str | None = None
    text_object: str | None = None
    page_starts: tuple[int, ...] = ()
    boxes_object: str | None = None
    """The object with where the words of each page stand, packed, by its number."""

    @property
    def content(self) -> dict[str, str | None]:
        if self.text_object is not None:
            return {"text_object": self.text_object}
        return {"text": self.text}

    @property
    def has_picture(self) -> bool:
        is_shown = (self.media_type or "").startswith(("application/pdf", "image/"))
        return bool(self.path) and is_shown

    def as_json(self) -> dict[str, Any]:
        names = ("name", "path", "media_type", "page_starts", "boxes_object")
        return {name: getattr(self, name) for name in names} | self.content


class Subject(Struct, frozen=True, kw_only=True):
    """What a question is about: an answer, and all that a person sees of it. Plain data."""

    pipeline: str = ""
    """The file's name."""
    block: str = ""
    """Empty at the top."""
    item: str = ""
    """The item's key, behind those of the items around it."""
    document: str | None = None
    document_sha256: str = ""
    around: tuple[tuple[str, str], ...] = ()
    """Scope and key of each item around it, outermost first."""
    answer: Any = None
    evidence: Any = None
    confidence: Any = None
    outputs: Mapping[str, Any] | None = None
    when: str = ""
    by: tuple[str, ...] = ()
    """Who may decide; empty: everyone."""
    on_expiry: str = ""
    due: tuple[str, ...] = ()
    """Why it is asked about, a short sentence each."""
    least: float | None = None
    share: float | None = None
    """The share of sure answers that was asked about then; None: none of them was."""
    is_sampled: bool = False
    """Whether the answer was sure, and is asked about as one of a random share."""
    prompt_vector: Mapping[str, str] | None = None
    """`vector` of the prompt's text, and the digest of the `model` that made it."""
    model: str | None = None
    digest: str | None = None
    """Of the model."""
    prompt_digest: str | None = None
    schema_digest: str | None = None
    schema: Any = None
    label_tables: Mapping[str, Any] = field(default_factory=dict)
    """Field, with dots → `path` of the table beside the pipeline that its labels are from, and the
    `keys` of its `choose`."""
    checks: tuple[str, ...] = ()
    scope: Mapping[str, Any] | None = None
    """What the checks read besides the answer."""
    evidence_only: tuple[str, ...] = ()
    evidence_language: str = ""
    sources: tuple[SubjectText, ...] = ()
    prompt_text: SubjectText | None = None
    open: tuple[str, ...] | None = None
    """The fields that it asks about; None: all."""
    offers: str = ""
    """What its document offers to rules, packed; empty: no rule is made of it."""
    may_be_fraud: bool = False
    """Whether it has an account that no paper of its sender had."""
    places: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """By field, the bounds of the words in its only source on which the decider clicked."""
    marks: Mapping[str, Mark] = field(default_factory=dict)
    """By the key of a part of its document that no decided one explains, what the decider said: it
    never matters in papers of this sender, or each time."""
    read: Mapping[str, str] = field(default_factory=dict)
    """By step, the object with what was read of the document before: it may be gone later."""

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Subject:
        """Read the result of `as_json`; absent fields are empty, unknown ones are left out."""
        return record_from(cls, {name: v for name, v in stored.items() if v is not None})

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _SUBJECT_NAMES} | {
            "sources": [source.as_json() for source in self.sources],
            "prompt_text": None if self.prompt_text is None else self.prompt_text.as_json(),
        }

    def is_sure_of(self, field: Sequence[str | int]) -> bool:
        return self.open is not None and not {*field} & {*self.open}

    @property
    def readings(self) -> Mapping[str, Mapping[str, Any]]:
        """By field, how it was read, or why it is `open`; empty: its step reads none."""
        return (self.outputs or {}).get("readings") or {}

    @property
    def left_over(self) -> Mapping[str, tuple[str, int, int, list[str]]]:
        """By key, what no decided paper explains: words, bounds (-1: it is missing) and fields."""
        found = dict[str, tuple[str, int, int, list[str]]]()
        for name, how in self.readings.items():
            for text, start, end, key in how.get("left", ()):
                found.setdefault(key, (text, start, end, []))[-1].append(name)
        return found

    @property
    def objects(self) -> set[str]:
        texts = (*self.sources, self.prompt_text)
        objects = {o for t in texts if t is not None for o in (t.text_object, t.boxes_object) if o}
        return objects | {*self.read.values()}


_SUBJECT_NAMES = Subject.__struct_fields__


class Review(Struct, frozen=True):
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
    asked_at: float
    expires_at: float | None = None
    by: str | None = None
    """Who decided; None while it is open."""
    decided_at: float | None = None
    """Of an open one, when its decision was undone."""
    is_applied: bool = False
    lease_by: str | None = None
    lease_until: float | None = None
    reason: str | None = None
    """Of a rejection; of an answer that was accepted together with others, that it was."""
    earlier: tuple[Mapping[str, Any], ...] = ()
    """Earlier decisions, newest first: state, value, reason, by, at, question, document_sha256."""
    subject: Subject = Subject()
    """Lists have the fields of `HEAD_NAMES` only; see `get`."""
    value: Any = None
    """What counts after the decision: the answer, or a person's. Not in lists. Of an open one what
    a person had written in a decision that was undone."""
    together: str | None = None
    """The id of the decision that accepted this answer together with others, unseen."""
    before: Review | None = None
    """The accepted or edited answer to the item's former document, which counts until someone
    decides on this one. Not in lists."""

    @property
    def item(self) -> str:
        return self.subject.item or self.key

    @property
    def shown_name(self) -> str:
        return f"'{self.item}' (step '{self.step}')"

    @property
    def places(self) -> tuple[tuple[str, str], ...]:
        """Scope and key of its item, and of each item around it."""
        return (self.scope, self.key), *self.subject.around

    @property
    def is_decided(self) -> bool:
        return self.state != "open"

    @property
    def shown_answer(self) -> Any:
        """What a person sees: what is, or was, decided, else what is proposed."""
        return self.subject.answer if self.value is None else self.value

    @property
    def was_undone(self) -> bool:
        """Whether it is open again, and no run has gone on with that."""
        return self.state == "open" and self.decided_at is not None and not self.is_applied

    @property
    def standing(self) -> Review | None:
        """The accepted or edited answer that counts now; None: there is none."""
        if self.state in ("accepted", "edited"):
            return self
        return None if self.state == "rejected" else self.before

    @property
    def fields_seen(self) -> frozenset[str] | None:
        """The fields that a person looked at, or changed; None: all."""
        if self.subject.open is None:
            return None
        was, now = (
            {**v} if isinstance(v, Mapping) else {} for v in (self.subject.answer, self.value)
        )
        return frozenset(self.subject.open) | {n for n in now if n not in was or now[n] != was[n]}

    def has_seen(self, subject: Subject) -> bool:
        """Return whether a person looked at all that is asked about now."""
        seen, now = self.fields_seen, subject.open
        return seen is None or (now is not None and seen.issuperset(now))

    @property
    def decided_outputs(self) -> dict[str, Any] | None:
        """The outputs that a person decided on; None: no one has, or they are not known."""
        outputs = self.subject.outputs if self.is_decided else None
        return None if outputs is None else dict(outputs)


def refuse_stranger(review: Review, by: str) -> None:
    names = review.subject.by
    if names and by not in names:
        raise DecisionRefused(
            f"'{by}' may not decide on {review.shown_name}. Its reviewers are: {', '.join(names)}."
        )


class ReviewTerms(Struct, frozen=True):
    by: tuple[str, ...]
    ttl_s: float | None
    on_expiry: str

    def of(self, review: Review) -> Review:
        subject = replace(review.subject, by=self.by, on_expiry=self.on_expiry)
        until = None if self.ttl_s is None else review.asked_at + self.ttl_s
        return replace(review, subject=subject, expires_at=until)


class Question(Struct, frozen=True):
    """What a run asks about one step's answer."""

    scope: str
    key: str
    step: str
    run: str
    subject: Subject
    ttl_s: float | None = None
    renamed_from: str | None = None
    """The key under which the same document was known before."""
    is_asked_again: bool = False

    def until(self, review: Review) -> float | None:
        return None if self.ttl_s is None else review.asked_at + self.ttl_s

    @property
    def digest(self) -> str:
        return question_digest(self.subject.document_sha256, self.subject.answer)


N_ID_CHARS = 12


def question_digest(document_sha256: str, answer: Any) -> str:
    return hashlib.sha256(canonical_json([document_sha256, answer]).encode()).hexdigest()


def review_id(scope: str, key: str, step: str) -> str:
    return hashlib.sha256("\0".join((scope, key, step)).encode()).hexdigest()[:N_ID_CHARS]
