"""What decisions teach, as people see it: the list of rules, and what one more decision answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.units import iso_time
from paddock.pipelines.schema_validation import value_faults
from paddock.runner.core.traces.dependencies import UsedRules, read_dependencies
from paddock.runner.core.traces.past_decisions import known_decisions, step_name, taught_answer
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.reviews.reviews import Review
from paddock.runner.rules.decision_rules import Rules
from paddock.runner.rules.document_offers import Offers
from paddock.runner.rules.reasons import NoRule, WhyOpen

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


def taught_rules(ledger: Ledger, decided: Mapping[str, Review]) -> TaughtRules:
    """Return what the decisions of a ledger teach; `decided`: those to be shown, by id."""
    known, gone = known_decisions(ledger), {*map(tuple, ledger.rows(queries.GONE_ITEMS))}
    store = ReviewStore(ledger)
    reads = [reads for (reads,) in ledger.rows(queries.READS_NAMING, name=UsedRules.begins)]
    used = [dep for text in reads for dep in read_dependencies(text, UsedRules) if dep.readings]
    n_used = Counter(next((r[1] for r in dep.readings.values() if r[1]), "") for dep in used)
    rules, why_none, taught = list[Mapping[str, Any]](), dict[str, NoRule | WhyOpen](), set[str]()
    for (file, step), of_step in known.items():
        for ids, shown in of_step.rules.shown():
            taught.update(ids)
            if isinstance(shown, NoRule):
                why_none |= dict.fromkeys(ids, shown)
            elif decided.keys() >= {*ids}:
                rests = [
                    {"id": r.id, "item": r.item, "by": r.by, "at": iso_time(r.decided_at or 0)}
                    for r in (decided[id_] for id_ in ids)
                ]
                own = {"pipeline": file, "step": step, "documents": sum(n_used[i] for i in ids)}
                rules.append({**own, **shown, "decisions": rests})
    for review in decided.values():
        if review.id not in taught and review.state in ("accepted", "edited"):
            whole = store.get(review.id) or review
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
        "wrong": sum(review.state != "accepted" for review in looked_at),
    }
    return TaughtRules(tuple(rules), tuple(none), checked)


def answered_by(reviews: ReviewStore, review: Review, value: Any) -> list[Review]:
    """Return the waiting questions of a step that a decision would answer by its rule.

    The next run decides: it knows the checks of the answer, and documents that changed meanwhile.
    """
    new = taught_answer(replace(review, state="edited", value=value))
    if new is None:
        return []
    pipeline, step = review.subject.pipeline, review.step
    stem = step_name(pipeline, step)[0]
    known = [
        taught
        for (file, name), of_step in known_decisions(reviews.ledger).items()
        if file == stem and name.rpartition(".")[2] == step
        for taught in of_step.taught
    ]
    rules, found = Rules([*known, new]), list[Review]()
    for other in reviews.waiting(is_whole=True)[:MOST_LOOKED_AT]:
        subject, is_it = other.subject, other.id == review.id
        if is_it or (subject.pipeline, other.step) != (pipeline, step) or not subject.offers:
            continue
        sure = rules.read(Offers.unpack(subject.offers)).sure
        read = {name: reading.value for name, reading in sure.items()}
        open_fields = {*(subject.answer if subject.open is None else subject.open)}
        whole = {**subject.answer, **read}
        if open_fields <= read.keys() and not value_faults(whole, subject.schema):
            found.append(other)
    return found
