"""Reviews in the ledger: the question about one step's answer, and what a person decided.

Runs ask, people decide, in different processes and on different machines. So every change is one
transaction of the database that first looks at what is there: a decision on a question that a run
has replaced meanwhile is refused, and a run never overwrites a decision. Times are the database's.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

from paddock.engine.system.text import canonical_json

from .ledger import Ledger
from .ledger_tables import Execute

ReviewState = Literal["open", "accepted", "edited", "rejected", "expired"]

MOST_EARLIER = 20
"""Earlier decisions that are kept for each review."""
HEAD_KEYS = (
    "pipeline", "block", "item", "document", "document_sha256", "model", "digest", "when", "due",
    "least", "by", "on_expiry", "around", "share", "is_sampled",
)  # fmt: skip
"""What lists of reviews show of a subject; `around`: scope and key of each item around it."""


_TOGETHER = re.compile(r"one of [\d,]+ that were accepted together \((?P<id>[0-9a-f]{12})\)")


def together_text(n: int, id_: str) -> str:
    """Return the reason of each of `n` answers that one decision accepted."""
    return f"one of {n:,} that were accepted together ({id_})"


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
    expires_at: float | None
    by: str | None
    """Who decided; None while it is open."""
    decided_at: float | None
    is_applied: bool
    """Whether a run has gone on with the decision."""
    lease_by: str | None
    lease_until: float | None
    reason: str | None
    """Of a rejection."""
    earlier: tuple[Mapping[str, Any], ...]
    """Earlier decisions, newest first: state, value, reason, by, at, question, document_sha256."""
    subject: Mapping[str, Any]
    """What the question is about. Lists have the keys of `HEAD_KEYS` only; see `get`."""
    value: Any = None
    """What counts after the decision: the answer, or a person's. Not in lists."""

    @property
    def together(self) -> str | None:
        """The id of the decision that accepted this answer together with others, unseen."""
        found = _TOGETHER.fullmatch(self.reason or "")
        return found["id"] if found and self.state == "accepted" else None

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


@dataclass(frozen=True, slots=True)
class ReviewTerms:
    """Who may decide on a step's answers, for how long, and what happens then."""

    by: tuple[str, ...]
    ttl_s: float | None
    on_expiry: str

    def of(self, review: Review) -> Review:
        """Return an open review under these terms."""
        subject = {**review.subject, "by": list(self.by), "on_expiry": self.on_expiry}
        until = None if self.ttl_s is None else review.asked_at + self.ttl_s
        return replace(review, subject=subject, expires_at=until)


TermsByPlace = Mapping[tuple[str, str, str], ReviewTerms]
"""By the file's name, the block (empty at the top) and the step."""


def _under(terms: TermsByPlace, review: Review) -> Review:
    """Return a review under the terms of its pipeline as it is now, where they are known."""
    names = (str(review.subject.get(name) or "") for name in ("pipeline", "block"))
    file, block = names
    found = terms.get((file, block, review.step))
    return review if found is None or review.state != "open" else found.of(review)


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

    def until(self, asked: Review) -> float | None:
        """Return when a question that was asked before is late."""
        return None if self.ttl_s is None else asked.asked_at + self.ttl_s

    @property
    def digest(self) -> str:
        """The same for an unchanged document with an unchanged answer."""
        told = [self.subject.get("document_sha256"), self.subject.get("answer")]
        return hashlib.sha256(canonical_json(told).encode()).hexdigest()


def review_id(scope: str, key: str, step: str) -> str:
    return hashlib.sha256("\0".join((scope, key, step)).encode()).hexdigest()[:12]


def is_same_value(one: Any, other: Any) -> bool:
    """Return whether two answers have the same values.

    >>> is_same_value({"a": 1, "b": [2.0]}, {"b": [2], "a": 1.0}), is_same_value([1], [True])
    (True, False)
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(is_same_value(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same_value, one, other))
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)


_COLUMNS = (
    "scope", "key", "step", "id", "state", "question", "run", "asked_at", "expires_at",
    "decided_by", "decided_at", "is_applied", "lease_by", "lease_until", "reason", "earlier",
    "head",
)  # fmt: skip
_LARGE = ("value", "value_object", "subject", "subject_object")
_LIST = f"select {', '.join(_COLUMNS)} from reviews"
_WHOLE = f"select {', '.join((*_COLUMNS, *_LARGE))} from reviews"
_OF_ID = " where id = :id"
_MARK = (
    "select state, scope, step, count(*), sum(asked_at), sum(decided_at), sum(lease_until), "
    "sum(expires_at), sum(length(head)), min(head) from reviews group by state, scope, step "
    "order by state, scope, step"
)  # terms are those of a step: where they change, one of the heads shows it
_OF_PLACE = " where scope = :scope and key = :key and step = :step"
_EXPIRE = (
    "update reviews set state = 'expired', decided_at = :now, is_applied = 0, lease_by = null, "
    "lease_until = null where state = 'open' and expires_at <= :now"
)
_WITHDRAW = "delete from reviews where id = :id and question = :question and state = 'open'"


class ReviewStore:
    """The reviews of one ledger. Methods that change something block until it is committed."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    # --- reading

    def of_scope(
        self, scope: str, keys: Collection[str] | None = None
    ) -> dict[tuple[str, str], Review]:
        """Return the reviews of a scope by key and step, in one query."""
        found = self._rows(f"{_LIST} where scope = :scope", keys, scope=scope)
        return {(one.key, one.step): one for one in map(self._review, found)}

    def waiting(self, *, is_whole: bool = False) -> list[Review]:
        """Return what is open, the oldest first; in one query."""
        return self._listed("where state = 'open' order by asked_at, key, id", is_whole)

    def decided(self, *, is_whole: bool = False) -> list[Review]:
        """Return what is decided, the newest first."""
        return self._listed("where state <> 'open' order by decided_at desc, key, id", is_whole)

    def pending(self, terms: TermsByPlace = MappingProxyType({})) -> list[Review]:
        """Return what is open, what no run has gone on with, and what is late, as expired."""
        query = _LIST.replace(" from", f", {self.ledger.now} from", 1)
        found = self._rows(
            f"{query} where state = 'open' or is_applied = 0 order by asked_at, key, id"
        )
        reviews = ((_under(terms, self._review(row[:-1])), float(row[-1])) for row in found)
        return [
            replace(one, state="expired") if one.state == "open" and _is_late(one, now) else one
            for one, now in reviews
        ]

    def undone(self) -> list[Review]:
        """Return what was decided, or is late, and no run has gone on with."""
        late = f"(state <> 'open' or expires_at <= {self.ledger.now})"
        return self._listed(f"where is_applied = 0 and {late} order by asked_at, key, id", False)

    def mark(self) -> str:
        """Return a text that changes with every question, its terms, decision and lease."""
        return json.dumps([list(row) for row in self._rows(_MARK)])

    def get(self, id_: str) -> Review | None:
        """Return a review with its whole subject and value."""
        return next(map(self._review, self._rows(_WHOLE + _OF_ID, id=id_)), None)

    def at(self, scope: str, key: str, step: str) -> Review | None:
        """Return the review of a step's answer for an item, whole."""
        found = self._rows(_WHOLE + _OF_PLACE, scope=scope, key=key, step=step)
        return next(map(self._review, found), None)

    def source_text(self, source: Mapping[str, Any]) -> str | None:
        """Return the text of one of a subject's `sources`; None if its object is missing."""
        if "text_object" not in source:
            return str(source.get("text") or "")
        stored = self.ledger.objects.get(source["text_object"])
        return None if stored is None else stored.decode()

    def _listed(self, which: str, is_whole: bool) -> list[Review]:
        return [*map(self._review, self._rows(f"{_WHOLE if is_whole else _LIST} {which}"))]

    def _rows(
        self, query: str, keys: Collection[str] | None = None, **values: Any
    ) -> Sequence[Sequence[Any]]:
        return self.ledger.rows_of_keys(query, keys, **values)

    def _review(self, row: Sequence[Any]) -> Review:
        (scope, key, step, id_, state, question, run, asked_at, expires_at, by, decided_at,
         is_applied, lease_by, lease_until, reason, earlier, head, *large) = row  # fmt: skip
        value, subject = None, json.loads(head)
        if large:
            value = self.ledger.value(*large[:2])
            subject = self.ledger.value(*large[2:])
        return Review(
            scope, key, step, id_, state, question, run, asked_at, expires_at, by, decided_at,
            bool(is_applied), lease_by, lease_until, reason, tuple(json.loads(earlier)), subject,
            value,
        )  # fmt: skip

    # --- what runs do

    def ask(self, question: Question) -> Review:
        """Ask, unless it was asked or decided before; return the review as it stands now.

        The same question stands as it is, open or decided. A new answer to the same document
        with the decided values takes over the decision. Any other question is asked, and the
        decision before it becomes the first of `earlier`.
        """

        def ask(execute: Execute) -> Review:
            now = self._now(execute)
            place = {"scope": question.scope, "key": question.key, "step": question.step}
            old = self._whole(execute, _OF_PLACE, place)
            if old is not None and old.question == question.digest and stands(question, old):
                if old.is_decided or not _is_other_subject(question, old):
                    return old
                kept = replace(old, subject=question.subject, expires_at=question.until(old))
                self._write(execute, kept, question.objects)
                return kept
            if old is None and question.renamed_from is not None:
                former = self._whole(execute, _OF_PLACE, {**place, "key": question.renamed_from})
                old = former if former is not None and stands(question, former) else None
            asked = _asked(question, old, now)
            self._write(execute, asked, question.objects)
            return asked

        return self.ledger.in_transaction(ask)

    def apply(self, review: Review) -> Review | None:
        """Mark that a run goes on with a decision; return None if it was undone meanwhile."""

        def apply(execute: Execute) -> Review | None:
            old = self._whole(execute, _OF_ID, {"id": review.id})
            if old is None or (old.state, old.question) != (review.state, review.question):
                return None
            if not old.is_applied:
                execute("update reviews set is_applied = 1 where id = :id", {"id": review.id})
            return replace(old, is_applied=True)

        return self.ledger.in_transaction(apply)

    def renew(self, terms: TermsByPlace) -> None:
        """Put open questions under the terms of their pipelines as they are now."""
        for one in self.waiting():
            if _under(terms, one) != one:
                self.ledger.in_transaction(partial(self._renew, terms, one.id))

    def _renew(self, terms: TermsByPlace, id_: str, execute: Execute) -> None:
        old = self._whole(execute, _OF_ID, {"id": id_})
        if old is not None and old.state == "open":
            sources = old.subject.get("sources") or ()
            objects = [one["text_object"] for one in sources if "text_object" in one]
            self._write(execute, _under(terms, old), objects)

    def expire(self) -> None:
        """Close the open questions whose time is up."""
        late = f"where state = 'open' and expires_at <= {self.ledger.now}"
        if self._rows(f"select 1 from reviews {late} limit 1"):
            self.ledger.in_transaction(
                lambda execute: execute(_EXPIRE, {"now": self._now(execute)})
            )

    def withdraw(self, review: Review) -> None:
        """Remove an open question; a decision that came meanwhile stays."""
        values = {"id": review.id, "question": review.question}
        self.ledger.in_transaction(lambda execute: execute(_WITHDRAW, values))

    def drop(self, scope: str, keys: Collection[str]) -> None:
        """Remove the reviews of items that are gone."""
        self._rows("delete from reviews where scope = :scope", keys, scope=scope)

    # --- what people do

    def change(self, id_: str, change: Callable[[Review, float], Review]) -> Review:
        """Replace a review by `change(review, now)` in one transaction; return the new one.

        Raises:
            DecisionRefused: there is none of this id, or `change` refuses.
        """

        def work(execute: Execute) -> Review:
            old = self._whole(execute, _OF_ID, {"id": id_})
            if old is None:
                raise unknown_review(id_)
            new = change(old, self._now(execute))
            if new != old:
                self._update(execute, new)
            return new

        return self.ledger.in_transaction(work)

    def change_together(
        self, ids: Sequence[str], change: Callable[[Sequence[Review], float], Sequence[Review]]
    ) -> list[Review]:
        """Replace reviews by those that `change` returns, in one transaction; return these.

        `change` gets the whole reviews that are there, and the time.
        """

        def work(execute: Execute) -> list[Review]:
            found = (self._whole(execute, _OF_ID, {"id": id_}) for id_ in ids)
            made = list(change([one for one in found if one is not None], self._now(execute)))
            for one in made:
                self._update(execute, one)
            return made

        return self.ledger.in_transaction(work)

    # --- rows

    def _now(self, execute: Execute) -> float:
        return float(execute(f"select {self.ledger.now}", {})[0][0])

    def _whole(self, execute: Execute, which: str, values: Mapping[str, Any]) -> Review | None:
        return next(map(self._review, execute(_WHOLE + which, values)), None)

    def _write(self, execute: Execute, review: Review, objects: Sequence[str]) -> None:
        subject, subject_object = self.ledger.keep(review.subject)
        head = {name: review.subject.get(name) for name in HEAD_KEYS}
        row = {
            **self._changing(review),
            "scope": review.scope,
            "key": review.key,
            "step": review.step,
            "id": review.id,
            "head": json.dumps(head),
            "subject": subject,
            "subject_object": subject_object,
            "question": review.question,
            "run": review.run,
            "asked_at": review.asked_at,
            "expires_at": review.expires_at,
            "objects": json.dumps(sorted({*objects, *filter(None, [subject_object])})),
        }
        names = list(row)
        changed = ", ".join(f"{name} = excluded.{name}" for name in names)
        execute(
            f"insert into reviews ({', '.join(names)}) "
            f"values ({', '.join(f':{name}' for name in names)}) "
            f"on conflict (scope, key, step) do update set {changed}",
            row,
        )

    def _update(self, execute: Execute, review: Review) -> None:
        row = self._changing(review)
        changed = ", ".join(f"{name} = :{name}" for name in row)
        execute(f"update reviews set {changed} where id = :id", {**row, "id": review.id})

    def _changing(self, review: Review) -> dict[str, Any]:
        """Return the columns that a decision changes."""
        value, value_object = self.ledger.keep(review.value)
        return {
            "state": review.state,
            "decided_by": review.by,
            "decided_at": review.decided_at,
            "is_applied": int(review.is_applied),
            "lease_by": review.lease_by,
            "lease_until": review.lease_until,
            "reason": review.reason,
            "earlier": json.dumps(list(review.earlier)),
            "value": value,
            "value_object": value_object,
        }


def _is_late(review: Review, now: float) -> bool:
    return review.expires_at is not None and review.expires_at <= now


def _is_other_subject(question: Question, old: Review) -> bool:
    """Return whether a question that was asked before is now asked in another way.

    What a person sees and what holds for them may change while document and answer stay: whom it
    is for, why it is asked, checks, confidence.
    """
    plain = json.loads(json.dumps(question.subject))
    return plain != old.subject or question.until(old) != old.expires_at


def _asked(question: Question, old: Review | None, now: float) -> Review:
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
        by=None,
        decided_at=None,
        is_applied=False,
        lease_by=None,
        lease_until=None,
        reason=None,
        earlier=old.earlier if old is not None else (),
        subject=question.subject,
    )
    if old is None:
        return new
    if stands(question, old):
        kept = {name: getattr(old, name) for name in ("state", "by", "decided_at", "value")}
        return replace(new, **kept, asked_at=old.asked_at)
    return replace(new, earlier=with_decision(old)) if old.is_decided else new


def stands(question: Question, old: Review) -> bool:
    """Return whether a review answers a question.

    It is the same question, or the same document now has the answer that a person decided on.
    """
    if old.state == "expired" and question.is_asked_again:
        return False
    if old.question == question.digest:
        return True
    document = question.subject.get("document_sha256")
    return (
        old.state in ("accepted", "edited")
        and document == old.subject.get("document_sha256")
        and is_same_value(question.subject.get("answer"), old.value)
    )


def with_decision(review: Review) -> tuple[Mapping[str, Any], ...]:
    """Return the earlier decisions, the present one in front."""
    told = {
        "state": review.state,
        "value": review.value,
        "reason": review.reason,
        "by": review.by,
        "at": review.decided_at,
        "question": review.question,
        "document_sha256": review.subject.get("document_sha256"),
    }
    return (told, *review.earlier)[:MOST_EARLIER]
