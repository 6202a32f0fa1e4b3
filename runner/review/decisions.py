"""What a person does with a review: accept, edit or reject the answer, undo that.

A decision is compared and set in one transaction and is durable when `enter` returns. It continues
the item at the next run; nothing here calls a model or runs a step.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from paddock.engine.system import units
from paddock.engine.system.records import Struct, field, replace
from paddock.engine.trial_process import TrialProcess
from paddock.pipelines.reply_check import AnswerFault
from paddock.runner.ledger.reviews.asked_before import is_same_value, with_decision
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.reviews.reviews import (
    DecisionRefused,
    Mark,
    Review,
    ReviewState,
    Subject,
    refuse_stranger,
    unknown_review,
)
from paddock.steps.readers.reader_pool import ReaderPool

from .answer_checks import AnswerCheck
from .label_tables import add_row, with_present_labels

Verb = Literal["accept", "edit", "reject"]
MARKS: tuple[Mark, ...] = ("never", "always")
"""What a person says of what is left over: it never matters here, or they are asked each time."""
VERBS: Mapping[Verb, ReviewState] = {"accept": "accepted", "edit": "edited", "reject": "rejected"}
"""Each verb with the state that it leads to."""

Places: TypeAlias = Mapping[str, tuple[int, int]]
"""By field, where in the document the person clicked."""
_NOWHERE: Places = MappingProxyType({})
MOST_REASON_CHARS = 2000
_UNTOUCHED: Mapping[str, Any] = {"is_applied": False, "lease_by": None, "lease_until": None}
"""Of a review that was decided, or opened again, just now."""

_FOLDER_ID_CHARS = 8
SHORT_QUESTION_CHARS = 16
"""Of a question's digest, in lists: 64 bits tell one question of an item from the next."""
LEASE_S = 120.0
"""How long a person who looks at an item keeps it to themselves; a page renews it meanwhile."""


class AcceptedTogether(Struct, frozen=True):
    id: str
    reviews: tuple[Review, ...]
    left: Mapping[str, str]
    """Id of each review that was not accepted, and why."""


class GivenDecision(Struct, frozen=True):
    """What a person decides on a question, as it is given."""

    question: str
    """The digest of the question that they saw."""
    verb: Verb
    by: str
    value: Any = None
    """The edited answer."""
    reason: str = ""
    places: Places = _NOWHERE
    marks: Mapping[str, str] = MappingProxyType({})
    """As `Subject.marks`; what is none is left out."""
    over: float | None = None
    """The time of the decision that they saw, which this one replaces."""
    faults: Sequence[AnswerFault] | None = None
    """What the check of the value that counts has found; None: that is not known."""


def clicked_places(written: Any) -> dict[str, tuple[int, int]]:
    """Return where a person clicked, by field, of JSON from outside; what is none is left out."""
    found = written.items() if isinstance(written, dict) else ()
    return {
        name: (at[0], at[1])
        for name, at in found
        if isinstance(at, list) and len(at) == 2 and all(type(n) is int and n >= 0 for n in at)
    }


def valid_marks(written: Any, subject: Subject) -> dict[str, Mark]:
    """Return what is said of what is left over, of JSON from outside; what is none is left out."""
    found = written.items() if isinstance(written, Mapping) else ()
    return {key: mark for key, mark in found if key in subject.left_over and mark in MARKS}


def is_checked(review: Review, verb: Verb) -> bool:
    """Return whether a decision must pass the checks: the model's own answer passed them."""
    is_other = bool(review.subject.readings) or review.value is not None
    return verb == "edit" or (verb == "accept" and is_other)


class ToAcceptTogether(Struct):
    """Answers that are to be accepted in one decision, checked one after the other."""

    left: dict[str, str] = field(default_factory=dict)
    """Id of each review that is not accepted, and why."""
    known: dict[tuple[str, str], list[AnswerFault]] = field(default_factory=dict)
    """Id and question of each answer that was checked, and its faults."""

    def check(
        self, own: AnswerCheck, of_rules: AnswerCheck | None, readers: ReaderPool | None = None
    ) -> None:
        """Check an answer, but for one that other decisions answer; any thread may."""
        review = own.review
        if of_rules is not None and not of_rules.faults(readers):
            name = review.shown_name
            what = f"{name} is answered by another decision: the next run reads it so."
            self.left[review.id] = what
        else:
            self.known[review.id, review.question] = own.faults(readers)

    def enter(
        self, reviews: LedgerReviews, shown: Sequence[tuple[str, str]], by: str
    ) -> AcceptedTogether:
        rest = [row for row in shown if row[0] not in self.left]
        done = reviews.accept_together(rest, by, self.known)
        return replace(done, left={**self.left, **done.left})


class LedgerReviews(ReviewStore, dict=True):
    """The reviews of one ledger, for people; one that is only read can list, but not decide.

    Methods raise `DecisionRefused` where there is no such review, another person has it, or a
    person, a value or the time is not right.
    """

    shown_folder: str = ""
    """What tells its folder from others that are shown with it."""
    trials: TrialProcess = field(
        default_factory=partial(TrialProcess, "paddock.runner.review.value_trial_process")
    )
    taught: Mapping[tuple[str, str, float], Any] = field(default_factory=dict)
    """By id, question and time, the decisions that may teach rules, as they were read last."""

    @cached_property
    def folder_id(self) -> str:
        """A short digest of the folder's path: a copy of a folder has questions of the same ids."""
        folder = os.fsencode(self.ledger.folder.resolve())
        return hashlib.sha256(folder).hexdigest()[:_FOLDER_ID_CHARS]

    def get(self, id_: str) -> Review:
        """Return a review with its whole subject."""
        if (review := super().get(id_)) is None:
            raise unknown_review(id_)
        return with_present_labels(review, self.ledger.folder.parent)

    def add_label(self, id_: str, field: str, cells: Mapping[str, str], by: str) -> str:
        """Add a row to the table that a field's labels are from; return its label."""
        refuse_stranger(review := self.get(id_), by)
        if (written := review.subject.label_tables.get(field)) is None:
            raise DecisionRefused(f"The labels of '{field}' are from no table beside the pipeline.")
        return add_row(self.ledger.folder, written, cells)

    def take_lease(self, id_: str, by: str, seconds: float = LEASE_S) -> Review:
        """Keep an open review to one person for some time, or for longer."""

        def take(review: Review, now: float) -> Review:
            refuse_stranger(review, by)
            _refuse_leased(review, by, now)
            return replace(review, lease_by=by, lease_until=now + seconds)

        return self.change(id_, take)

    def release(self, id_: str, by: str) -> Review:
        """End a lease; one of another person is left as it is."""

        def end(review: Review, now: float) -> Review:
            is_own = review.lease_by == by
            return replace(review, lease_by=None, lease_until=None) if is_own else review

        return self.change(id_, end)

    def refusal(self, review: Review, by: str) -> str | None:
        """Return why a person may not decide on a review, apart from leases; None: they may."""
        try:
            refuse_stranger(review, by)
            if not review.is_decided:
                _refuse_late(review, time.time())
        except DecisionRefused as error:
            return str(error)
        return None

    def check_of(self, review: Review, value: Any) -> AnswerCheck:
        """Return the check of an edited value; `review` is whole, as `get` returns it."""
        return AnswerCheck.of(self, self.trials, review, value)

    def decide(
        self, id_: str, question: str, verb: Verb, value: Any = None, *, reason: str = "", by: str
    ) -> Review:
        return self.enter(id_, GivenDecision(question, verb, by, value, reason))

    def enter(self, id_: str, given: GivenDecision) -> Review:
        """Decide on a question; return the review, durable by then.

        The same decision of the same person again changes nothing.

        Raises:
            DecisionRefused: the question is another one by now, is decided, is late or leased;
                `by` may not decide; an edited value, or one that is not the model's alone, does
                not pass schema or checks.
        """
        return self.change(id_, self._deciding(self.get(id_), given))

    def check(self, id_: str, given: GivenDecision) -> None:
        """Refuse what `enter` would refuse now; change nothing."""
        seen = self.get(id_)
        self._deciding(seen, given)(seen, time.time())

    def _deciding(self, seen: Review, given: GivenDecision) -> Callable[[Review, float], Review]:
        """Return what changes a review into the decided one, or refuses."""
        verb, by, wrong = given.verb, given.by, given.faults
        if verb not in VERBS:
            raise DecisionRefused(f"There is no decision '{verb}'. Use accept, edit or reject.")
        if not by.strip():
            raise DecisionRefused("A decision needs the name of the person who decides.")
        reason = given.reason.replace("\0", "").strip()[:MOST_REASON_CHARS]
        if verb == "reject" and not reason:
            raise DecisionRefused("A rejection needs a reason, which the run shows and keeps.")
        places = {**given.places} if verb == "edit" else {}
        marks = valid_marks(given.marks, seen.subject) if verb != "reject" else {}
        shown = seen.subject.answer if seen.is_decided else seen.shown_answer
        values = {"accept": shown, "edit": given.value, "reject": None}
        if verb == "accept" and not is_same_value(shown, seen.subject.answer):
            verb, values = "edit", {"edit": shown}  # as before that was undone
        _refuse_changed(seen, given.question)
        if is_checked(seen, verb) and wrong is None:
            wrong = self.check_of(seen, values[verb]).faults()
        if wrong:
            sentences = " ".join(fault.sentence for fault in wrong)
            raise DecisionRefused(f"The {verb}ed value is not valid. {sentences}")
        decided = replace(seen, state=VERBS[verb], value=values[verb], reason=reason or None, by=by)

        def decide(review: Review, now: float) -> Review:
            _refuse_changed(review, given.question)
            before, after = ((r.state, r.reason, r.by) for r in (review, decided))
            subject = replace(review.subject, places=places, marks=marks)
            is_over = review.is_decided and review.decided_at == given.over
            is_same = before == after and is_same_value(review.value, decided.value)
            if is_same and not (is_over and subject != review.subject):
                return review
            refuse_stranger(review, by)
            if is_over:
                now = max(now, (review.decided_at or 0.0) + 0.001)  # each has a time of its own
                review = replace(_opened_again(review, now), earlier=with_decision(review))
            if review.is_decided:
                author = f" by {review.by}" if review.by else ""
                raise DecisionRefused(
                    f"{review.shown_name} was {review.state}{author} {_when(review.decided_at)}. "
                    f"Undo that to decide again."
                )
            _refuse_leased(review, by, now)
            _refuse_late(review, now)
            values = {name: getattr(decided, name) for name in ("state", "value", "reason", "by")}
            values["subject"] = subject
            return replace(review, **_UNTOUCHED, **values, decided_at=now)

        return decide

    def accept_together(
        self,
        shown: Sequence[tuple[str, str]],
        by: str,
        known: Mapping[tuple[str, str], Sequence[AnswerFault]] = MappingProxyType({}),
    ) -> AcceptedTogether:
        """Accept several answers in one decision, which `undo_together` takes back as one.

        `shown`: id and question of each, as it was seen; of the question its beginning is enough.
        What cannot be accepted, since it has changed or another person looks at it, is left; so is
        what is asked about as a random check, or may be a fraud. Answers are checked before the
        transaction, which a database ends that waits for long; `known` has the faults of those that
        were, by id and question.
        """
        questions = dict(shown)
        left: dict[str, str] = {}
        together = secrets.token_hex(6)
        deciding = dict[str, Callable[[Review, float], Review]]()
        for id_, question in shown:
            with suppress(DecisionRefused):  # one that is gone
                seen = self.get(id_)
                is_start = seen.question.startswith(question)
                if is_start and len(question) >= SHORT_QUESTION_CHARS:
                    question = seen.question
                try:
                    faults = known.get((id_, question))
                    given = GivenDecision(question, "accept", by, faults=faults)
                    deciding[id_] = self._deciding(seen, given)
                except DecisionRefused as error:
                    left[id_] = str(error)

        def accept(reviews: Sequence[Review], now: float) -> list[Review]:
            sound: list[Review] = []
            for review in (review for review in reviews if review.id in deciding):
                # Figures rest on what a person has seen of random checks, and rules on edits
                subject, is_undone = review.subject, review.value is not None
                if subject.may_be_fraud or subject.is_sampled or is_undone:
                    what = "a random check" if subject.is_sampled else "an undone decision"
                    what = "a possible fraud" if subject.may_be_fraud else what
                    left[review.id] = (
                        f"{review.shown_name} is {what}, which a person has to look at."
                    )
                    continue
                try:
                    decided = deciding[review.id](review, now)
                except DecisionRefused as error:
                    left[review.id] = str(error)
                    continue
                if decided == review:
                    left[review.id] = f"{review.shown_name} was accepted before."
                else:
                    sound.append(decided)
            reason = f"one of {len(sound):,} that were accepted together ({together})"
            return [replace(review, reason=reason, together=together) for review in sound]

        accepted = self.change_together(list(questions), accept)
        gone = questions.keys() - left.keys() - {review.id for review in accepted}
        left.update({id_: str(unknown_review(id_)) for id_ in sorted(gone)})
        return AcceptedTogether(together, tuple(accepted), left)

    def undo_together(self, together: str, by: str) -> list[Review]:
        """Open all answers again that one decision accepted, as far as it stands."""
        ids = [review.id for review in self.decided() if review.together == together]
        if not ids:
            raise DecisionRefused(f"No decision '{together}' on several answers stands.")

        def undo(reviews: Sequence[Review], now: float) -> list[Review]:
            standing = [review for review in reviews if review.together == together]
            for review in standing:
                refuse_stranger(review, by)
            return [_opened_again(review, now) for review in standing]

        return self.change_together(ids, undo)

    def undo(self, id_: str, by: str) -> Review:
        """Open a review again, as it was before the decision, which counts nowhere.

        Where a run has gone on with it, the item waits again from the next run on, and what was
        made of it stays until then.
        """

        def undo(review: Review, now: float) -> Review:
            refuse_stranger(review, by)
            if not review.is_decided:
                raise DecisionRefused(
                    f"{review.shown_name} is not decided, so nothing can be undone."
                )
            return _opened_again(review, now)

        return self.change(id_, undo)


def _opened_again(review: Review, now: float) -> Review:
    is_late = review.expires_at is not None and review.expires_at <= now
    undecided: dict[str, Any] = dict.fromkeys(("reason", "together", "by"))
    undecided["value"] = review.value if review.state == "edited" else None
    undecided["expires_at"] = None if is_late else review.expires_at
    undecided["subject"] = replace(review.subject, places={}, marks={})
    return replace(review, **_UNTOUCHED, **undecided, decided_at=now, state="open")


def _refuse_changed(review: Review, question: str) -> None:
    if review.question != question:
        raise DecisionRefused(
            f"{review.shown_name} was changed meanwhile: its document or its answer is another "
            f"one. Look at it again; nothing was decided."
        )


def _refuse_late(review: Review, now: float) -> None:
    if review.expires_at is not None and review.expires_at <= now:
        raise DecisionRefused(
            f"The time to decide on {review.shown_name} was over {_when(review.expires_at)}: the "
            f"next run does what `on_expiry` says, '{review.subject.on_expiry or 'quarantine'}'."
        )


def _when(at: float | None) -> str:
    return f"at {units.local_time(at or 0.0)}"


def _refuse_leased(review: Review, by: str, now: float) -> None:
    if review.lease_by not in (None, by) and (review.lease_until or 0.0) > now:
        until = units.local_time(review.lease_until or 0.0, "%H:%M:%S")
        raise DecisionRefused(
            f"{review.lease_by} looks at {review.shown_name} until {until}. "
            f"Take another one, or wait."
        )
