"""Reviews in the ledger: asked, decided, applied, each change one transaction.

Runs ask, people decide, in different processes and on different machines. So every change first
looks at what is there: a decision on a question that a run has replaced meanwhile is refused, and a
run never overwrites a decision. Times are the database's.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from paddock.engine.system import files
from paddock.engine.system.records import Struct, replace
from paddock.pipelines.checking.schema_parts import SchemaParts
from paddock.pipelines.text_cells import SourceText

from ..database import queries
from ..event_log import verify_again
from .asked_before import asked_or_decided, has_subject_or_expiry_changed, new_review, stands
from .reviews import HEAD_NAMES, Question, Review, ReviewTerms, Subject, SubjectText, unknown_review

if TYPE_CHECKING:
    from ..database.ledger_tables import Execute
    from ..ledger import Ledger

_DECISION = ("state", "question", "decided_at")
_OF_BEFORE = (
    "state", "question", "run", "asked_at", "expires_at", "by", "decided_at", "reason", "together",
    "earlier", "value",
)  # fmt: skip
"""What is kept of `Review.before`, besides its subject."""
TermsByPlace = Mapping[tuple[str, str, str], ReviewTerms]
"""By the file's name, the block (empty at the top) and the step."""


def _under(terms: TermsByPlace, review: Review) -> Review:
    found = terms.get((review.subject.pipeline, review.subject.block, review.step))
    return review if found is None or review.state != "open" else found.of(review)


_DECIDED_FILE = "decided"
"""In the folder of a ledger: another text after each decision."""


def note_decided(ledger: Ledger) -> None:
    """Write for other processes that someone decided; they read the ledger now and then anyway."""
    with suppress(OSError):
        files.write_atomically(ledger.folder / _DECIDED_FILE, uuid.uuid4().hex)


def decided_mark(ledger: Ledger) -> str:
    with suppress(OSError, ValueError):
        return files.read_text(ledger.folder / _DECIDED_FILE)
    return ""


class ReviewStore(Struct, eq=False):
    """The reviews of one ledger. Methods that change something block until it is committed."""

    ledger: Ledger
    on_decided: Callable[[Ledger], object] = note_decided
    """Called after each decision of a person, and after its undoing."""

    # --- reading

    def of_scope(
        self, scope: str, keys: Collection[str] | None = None
    ) -> dict[tuple[str, str], Review]:
        found = self._rows(f"{queries.REVIEWS} {queries.OF_SCOPE}", keys, scope=scope)
        return {(review.key, review.step): review for review in map(self._review, found)}

    def waiting(self, *, is_whole: bool = False) -> list[Review]:
        return self._listed(queries.OPEN, is_whole)

    def decided(self, *, is_whole: bool = False) -> list[Review]:
        return self._listed(queries.DECIDED, is_whole)

    def standing(self, *, is_whole: bool = False) -> list[Review]:
        """Return all decisions, the newest first; `Review.before` of questions that are open."""
        found = {review.id: review for review in self.decided(is_whole=is_whole)}
        again = self._listed(queries.ASKED_AGAIN, True)
        found |= {review.id: review.before for review in again if review.before is not None}
        return sorted(found.values(), key=lambda review: -(review.decided_at or 0.0))

    def pending(self, terms: TermsByPlace = MappingProxyType({})) -> list[Review]:
        """Return reviews that are open or not applied yet; late ones are expired."""
        found = self._rows(f"{queries.REVIEWS_AND_NOW} {queries.PENDING}")
        reviews = ((_under(terms, self._review(row)), float(now)) for now, *row in found)
        return [
            replace(review, state="expired")
            if review.state == "open" and (review.expires_at or now + 1) <= now
            else review
            for review, now in reviews
        ]

    def undone(self) -> list[Review]:
        return self._listed(queries.UNDONE, False)

    def mark(self) -> str:
        """Return a text that changes with every question, its terms, decision and lease."""
        return json.dumps([list(row) for row in self._rows(queries.REVIEWS_MARK)])

    def get(self, id_: str) -> Review | None:
        found = self._rows(f"{queries.WHOLE_REVIEWS} {queries.OF_ID}", id=id_)
        return next(map(self._review, found), None)

    def at(self, scope: str, key: str, step: str) -> Review | None:
        query = f"{queries.WHOLE_REVIEWS} {queries.OF_ANSWER}"
        return next(map(self._review, self._rows(query, scope=scope, key=key, step=step)), None)

    def source_text(self, source: SubjectText) -> str | None:
        if source.text_object is None:
            return source.text or ""
        stored = self.ledger.objects.get(source.text_object)
        return None if stored is None else stored.decode()

    def source(self, source: SubjectText, text: str) -> SourceText:
        """Return a source with where its words stand on its pages, if its step has read pages."""
        boxes = source.boxes_object and self.ledger.objects.get(source.boxes_object)
        starts, is_paged = source.page_starts or (0,), bool(source.page_starts)
        return SourceText(
            source.name,
            text,
            starts,
            is_paged=is_paged,
            media_type=source.media_type or "",
            boxes=json.loads(boxes or b"{}"),
        )

    def _listed(self, which: str, is_whole: bool) -> list[Review]:
        query = queries.WHOLE_REVIEWS if is_whole else queries.REVIEWS
        return [*map(self._review, self._rows(f"{query} {which}"))]

    def _rows(
        self, query: str, keys: Collection[str] | None = None, **values: Any
    ) -> Sequence[Sequence[Any]]:
        return self.ledger.rows_of_keys(self._sql(query), keys, **values)

    def _sql(self, query: str) -> str:
        return query.format(now=self.ledger.now)

    def _review(self, row: Sequence[Any]) -> Review:
        (scope, key, step, id_, state, question, run, asked_at, expires_at, by, decided_at,
         is_applied, lease_by, lease_until, reason, together, earlier, head,
         *large) = row  # fmt: skip
        value, before, subject = None, None, json.loads(head)
        if large:
            value = self.ledger.load_value(*large[:2])
            # The head alone follows a pipeline's file that is renamed.
            of_file = {"pipeline": subject["pipeline"]}
            subject = {**self.ledger.load_value(*large[2:]), **of_file}
            if (written := subject.get("before")) is not None:
                decided = {**written, "earlier": tuple(written["earlier"])}
                decided["subject"] = Subject.of({**written["subject"], **of_file})
                before = Review(scope, key, step, id_, **decided, is_applied=True)
        return Review(
            scope, key, step, id_, state, question, run, asked_at, expires_at, by, decided_at,
            bool(is_applied), lease_by, lease_until, reason, tuple(json.loads(earlier)),
            Subject.of(subject), value, together, before,
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
            old = self._whole(execute, queries.OF_ANSWER, place)
            if old is not None and (decided := asked_or_decided(question, old)) is not old:
                old = decided
                self._write(execute, old)
            if old is not None and old.question == question.digest and stands(question, old):
                if old.is_decided or not has_subject_or_expiry_changed(question, old):
                    return old
                kept = replace(old, subject=question.subject, expires_at=question.until(old))
                self._write(execute, kept)
                return kept
            if old is None and question.renamed_from is not None:
                former = self._whole(
                    execute, queries.OF_ANSWER, {**place, "key": question.renamed_from}
                )
                old = former if former is not None and stands(question, former) else None
            review = new_review(question, old, now)
            self._write(execute, review)
            return review

        return self.ledger.in_transaction(ask)

    def apply(self, review: Review) -> Review | None:
        def apply(execute: Execute) -> Review | None:
            old = self._whole(execute, queries.OF_ID, {"id": review.id})
            if old is None or any(getattr(old, n) != getattr(review, n) for n in _DECISION):
                return None
            if not old.is_applied:
                execute(queries.APPLY_REVIEW, {"id": review.id})
            return replace(old, is_applied=True)

        return self.ledger.in_transaction(apply)

    def renew(self, terms: TermsByPlace) -> None:
        for review in self.waiting():
            if _under(terms, review) != review:
                self.ledger.in_transaction(partial(self._renew, terms, review.id))

    def _renew(self, terms: TermsByPlace, id_: str, execute: Execute) -> None:
        old = self._whole(execute, queries.OF_ID, {"id": id_})
        if old is not None and old.state == "open":
            self._write(execute, _under(terms, old))

    def expire(self) -> None:
        if self._rows(queries.HAS_LATE):
            self.ledger.in_transaction(
                lambda execute: execute(queries.EXPIRE_REVIEWS, {"now": self._now(execute)})
            )

    def withdraw(self, review: Review) -> None:
        """Remove an open question; a decision that came meanwhile, or before it, stays."""

        def work(execute: Execute) -> None:
            old = self._whole(execute, queries.OF_ID, {"id": review.id})
            if old is None or old.is_decided or old.question != review.question:
                return
            if old.before is None:
                execute(queries.WITHDRAW_REVIEW, {"id": review.id})
            else:
                self._write(execute, old.before)

        self.ledger.in_transaction(work)

    def drop(self, scope: str, keys: Collection[str]) -> None:
        self._rows(queries.DROP_REVIEWS_OF_SCOPE, keys, scope=scope)

    # --- what people do

    def change(self, id_: str, change: Callable[[Review, float], Review]) -> Review:
        """Replace a review by `change(review, now)` in one transaction; return the new one.

        Raises:
            DecisionRefused: there is none of this id, or `change` refuses.
        """

        def change_one(found: Sequence[Review], now: float) -> Sequence[Review]:
            if not found:
                raise unknown_review(id_)
            return [change(found[0], now)]

        return self.change_together([id_], change_one)[0]

    def change_together(
        self, ids: Sequence[str], change: Callable[[Sequence[Review], float], Sequence[Review]]
    ) -> list[Review]:
        """Replace reviews by those that `change` returns, in one transaction; return these.

        `change` gets the whole reviews that are there, and the time.
        """

        def work(execute: Execute) -> tuple[list[Review], bool]:
            found = [self._whole(execute, queries.OF_ID, {"id": id_}) for id_ in ids]
            reviews = [review for review in found if review is not None]
            before = {review.id: review for review in reviews}
            changed, doubtful = list(change(reviews, self._now(execute))), set[str]()
            for review in changed:
                if review == (old := before[review.id]):
                    continue
                if old.is_decided or old.before is not None:
                    doubtful.add(f'"{review.id}"')
                doubtful.update(_readings_of_sender(review))
                if (review.subject, review.expires_at) != (old.subject, old.expires_at):
                    self._write(execute, review)
                else:
                    execute(queries.DECIDE_REVIEW, {**self._changing(review), "id": review.id})
            if doubtful:
                verify_again(execute, self.ledger.listed_keys, doubtful)
            return changed, any(r.decided_at != before[r.id].decided_at for r in changed)

        changed, is_decision = self.ledger.in_transaction(work)
        if is_decision:
            self.on_decided(self.ledger)
        return changed

    def keep_offers(self, renewed: Mapping[str, str]) -> None:
        """Write what documents of decisions offer, by id, if these are there; all else stays."""

        def work(execute: Execute) -> None:
            for id_, offers in renewed.items():
                review = self._whole(execute, queries.OF_ID, {"id": id_})
                stands = None if review is None else review.standing
                if review is None or stands is None:
                    continue
                stands = replace(stands, subject=replace(stands.subject, offers=offers))
                is_own = review.is_decided and review.state != "expired"
                self._write(execute, stands if is_own else replace(review, before=stands))

        self.ledger.in_transaction(work)

    # --- rows

    def _now(self, execute: Execute) -> float:
        return float(execute(self._sql(queries.NOW), {})[0][0])

    def _whole(self, execute: Execute, which: str, values: Mapping[str, Any]) -> Review | None:
        query = self._sql(f"{queries.WHOLE_REVIEWS} {which}")
        return next(map(self._review, execute(query, values)), None)

    def _write(self, execute: Execute, review: Review) -> None:
        data, stored = review.subject.as_json(), review.subject.objects
        if (before := review.before) is not None:
            data["before"] = {name: getattr(before, name) for name in _OF_BEFORE} | {
                "subject": before.subject.as_json()
            }
            stored |= before.subject.objects
        subject, subject_object = self.ledger.store_value(data)
        head = {name: data[name] for name in HEAD_NAMES}
        names = ("scope", "key", "step", "id", "question", "run", "asked_at", "expires_at")
        row = {name: getattr(review, name) for name in names} | {
            "head": json.dumps(head),
            "subject": subject,
            "subject_object": subject_object,
            "objects": json.dumps(sorted({*stored, *filter(None, [subject_object])})),
        }
        execute(queries.WRITE_REVIEW, {**row, **self._changing(review)})

    def _changing(self, review: Review) -> dict[str, Any]:
        value, value_object = self.ledger.store_value(review.value)
        names = ("state", "decided_at", "lease_by", "lease_until", "reason", "together")
        return {name: getattr(review, name) for name in names} | {
            "decided_by": review.by,
            "is_applied": int(review.is_applied),
            "earlier": json.dumps(list(review.earlier)),
            "value": value,
            "value_object": value_object,
        }


def _readings_of_sender(review: Review) -> Iterator[str]:
    """Yield how stored readings begin that are names in a decision, or were in what it corrects.

    Its document may contradict the rules that read those, such as the sender. What was accepted
    together teaches none, and the choices of a schema are no names.
    """
    subject = review.subject
    if review.is_decided and subject.offers and not review.together:
        schema = SchemaParts.of(subject.schema)
        for answer in (subject.answer, review.value):
            for field, value in answer.items() if isinstance(answer, Mapping) else ():
                is_name = isinstance(value, str) and not any(map(str.isdigit, value))
                if is_name and not any("enum" in part for part in schema.field(field).parts):
                    yield f"[{json.dumps(value)}, "
