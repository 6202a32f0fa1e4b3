"""What decisions teach, as people see it: the list of rules, and the questions that they answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.units import iso_time
from paddock.runner.core.traces.dependencies import UsedRules, read_dependencies
from paddock.runner.core.traces.past_decisions import MOST_TAUGHT, known_decisions, taught_answer
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.asked_before import is_same_value
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.reviews.reviews import DecisionRefused, Review
from paddock.runner.rules import Offers, Rules, TaughtAnswer
from paddock.runner.rules.reasons import DOUBTS, NoRule, WhyOpen

from .answer_checks import AnswerCheck
from .decisions import LedgerReviews, is_checked

_OF_DOCUMENTS = (WhyOpen.OCR, WhyOpen.SEVERAL_DOCUMENTS, WhyOpen.TOO_LONG)
MOST_LOOKED_AT = 500  # waiting questions at a decision


class TaughtRules(Struct, frozen=True):
    rules: tuple[Mapping[str, Any], ...]
    """Each with its pipeline, step, sender, layout, fields, open fields, decisions, and of how
    many documents it read a field."""
    without_rule: tuple[Mapping[str, Any], ...]
    """Decisions that teach nothing, and why."""
    checked: Mapping[str, int]
    """Of `unasked` answers that readings made alone, those that random checks showed a person
    (`looked_at`), and of these the `wrong` ones."""


class KnownDecision(Struct, frozen=True):
    step: tuple[str, str]
    """The pipeline's file, and the step."""
    places: frozenset[tuple[str, str]]
    taught: TaughtAnswer | None


def taught_rules(ledger: Ledger, decided: Mapping[str, Review]) -> TaughtRules:
    """Return what the decisions of a ledger teach; `decided`: those to be shown, by id."""
    store = ReviewStore(ledger)
    known, gone = known_decisions(store), {*map(tuple, ledger.rows(queries.GONE_ITEMS))}
    reads = [reads for reads, _ in ledger.rows(queries.READS_NAMING, name=UsedRules.begins)]
    used = [dep for text in reads for dep in read_dependencies(text, UsedRules) if dep.readings]
    n_documents = Counter[str]()
    for dep in used:
        decisions = [r.decision for r in dep.field_readings().values() if r.decision]
        n_documents.update(decisions[:1])
    rules, why_none, taught = list[Mapping[str, Any]](), dict[str, NoRule | WhyOpen](), set[str]()
    for (file, step), of_step in known.items():
        for layout in of_step.rules.layouts:
            ids, shown = [t.id for t in layout.decisions], layout.shown()
            taught.update(ids)
            if isinstance(shown, NoRule):
                why_none |= dict.fromkeys(ids, shown)
            elif decided.keys() >= {*ids}:
                rests = [
                    {"id": r.id, "item": r.item, "by": r.by, "at": iso_time(r.decided_at or 0)}
                    for r in (decided[id_] for id_ in ids)
                ]
                n_read = sum(n_documents[id_] for id_ in ids)
                own = {"pipeline": file, "step": step, "documents": n_read}
                rules.append({**own, **shown, "decisions": rests})
    for review in decided.values():
        if review.id not in taught and review.state in ("accepted", "edited"):
            whole = _whole(store, review)
            is_of = {how.get("open") for how in whole.subject.readings.values()}
            read_so = (why for why in _OF_DOCUMENTS if why.name.lower() in is_of)
            why = NoRule.GONE if gone & {*review.places} else next(read_so, NoRule.NOT_UNSURE)
            why_none[review.id] = NoRule.TOGETHER if review.together else why
    none = (
        {"id": id_, "item": decided[id_].item, "why": why.name.lower(), "text": why.value}
        for id_, why in why_none.items()
        if id_ in decided
    )
    sampled = (review for review in decided.values() if review.subject.is_sampled)
    looked_at = [r for r in sampled if r.state != "expired" and not r.together]
    others = {*decided, *(review.id for review in store.waiting())}
    checked = {
        "unasked": len({dep.id for dep in used} - others) + len(looked_at),
        "looked_at": len(looked_at),
        "wrong": sum(_is_wrong(store, review) for review in looked_at),
    }
    rules.sort(key=lambda rule: [rule["pipeline"], *map(str.casefold, rule["sender"])])
    return TaughtRules(tuple(rules), tuple(none), checked)


def _is_wrong(store: ReviewStore, review: Review) -> bool:
    """Return whether a person decided otherwise; a click can confirm the value that is edited."""
    if review.state != "edited":
        return review.state != "accepted"
    whole = _whole(store, review)
    return not is_same_value(whole.subject.answer, whole.value)


def _whole(store: ReviewStore, review: Review) -> Review:
    whole = store.get(review.id)
    return (whole and whole.standing) or review


def answered_by(reviews: LedgerReviews, review: Review) -> tuple[list[tuple[Review, Any]], int]:
    """Return the waiting questions of a decision's step and sender, and of how many, if not of all.

    `review` has what is to be decided. Each has the answer that it would have with this decision,
    unchecked, or None. The next run decides.
    """
    new = taught_answer(replace(review, state="edited"))
    waiting = reviews.waiting(is_whole=True)
    if new is None:
        return [], 0
    name, cells = (review.subject.pipeline, review.step), {cell for _, cell in new.names}
    near = [
        (other, offers)
        for other in waiting[:MOST_LOOKED_AT]
        if other.id != review.id and (other.subject.pipeline, other.step) == name
        for offers in [Offers.unpack(other.subject.offers)]
        if cells and cells <= {*offers.names}
    ]
    read = {other.id: answer for other, answer in _read(reviews, name, near, [new])}
    found = [(other, read.get(other.id)) for other, _ in near]
    return found, MOST_LOOKED_AT if len(waiting) > MOST_LOOKED_AT else 0


def checks_to_accept(
    reviews: LedgerReviews, id_: str
) -> tuple[AnswerCheck, AnswerCheck | None] | None:
    """Return the checks of an answer that is to be accepted, and of that which decisions give.

    None: it is not checked, or is gone.
    """
    with suppress(DecisionRefused):
        if is_checked(review := reviews.get(id_), "accept"):
            near = [(review, Offers.unpack(review.subject.offers))]
            found = _read(reviews, (review.subject.pipeline, review.step), near)
            own = reviews.check_of(review, review.shown_answer)
            return own, reviews.check_of(review, found[0][1]) if found else None
    return None


def _read(
    reviews: LedgerReviews,
    step: tuple[str, str],
    near: Sequence[tuple[Review, Offers]],
    new: Sequence[TaughtAnswer] = (),
) -> list[tuple[Review, Any]]:
    """Return the questions of a step that decisions answer, with the answers.

    One that no field was open for is asked for another reason, which they do not answer, as they
    do no doubt.
    """
    cells, found = {cell for _, offers in near for cell in offers.names}, list[tuple[Review, Any]]()
    taught = [t for t in _taught(reviews, step) if not t.names or t.names[0][1] in cells]
    rules = Rules([*taught, *new])
    for other, offers in near:
        answer, is_open = other.subject.answer, other.subject.open
        read = {field: reading.value for field, reading in rules.read(offers).sure.items()}
        why = {how.get("open") for how in other.subject.readings.values()}
        is_whole = {*(answer if is_open is None else is_open)} <= read.keys()
        is_whole &= why.isdisjoint(doubt.name.lower() for doubt in DOUBTS)
        if is_whole and why - {None}:
            found.append((other, {**answer, **read}))
    return found


def _taught(reviews: LedgerReviews, step: tuple[str, str]) -> list[TaughtAnswer]:
    """Return what decisions on a step teach; those that were read before are not read again."""
    marks = [(id_, question, at) for id_, question, at in reviews.ledger.rows(queries.LOOKED_AT)]
    known = {mark: reviews.taught[mark] for mark in marks if mark in reviews.taught}
    new = {mark[0]: mark for mark in marks if mark not in known}
    one_by_one = (ReviewStore.get(reviews, id_) for id_ in new)
    for review in one_by_one if known else reviews.standing(is_whole=True):
        stands = None if review is None else review.standing
        if stands is not None and stands.id in new:
            of_step, places = (stands.subject.pipeline, stands.step), frozenset(stands.places)
            taught = None if stands.together else taught_answer(stands)
            known[new[stands.id]] = KnownDecision(of_step, places, taught)
    reviews.taught, gone = known, {*map(tuple, reviews.ledger.rows(queries.GONE_ITEMS))}
    there = (k for mark in marks if (k := known.get(mark)) and k.step == step)
    return [k.taught for k in there if k.taught and not k.places & gone][-MOST_TAUGHT:]
