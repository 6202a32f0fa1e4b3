"""Readings of an answer's fields before a model is asked: by a person, rules, or an e-invoice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any, TypeGuard

from paddock.engine.system.records import Struct, field, replace
from paddock.pipelines.checking.schema_parts import SchemaParts
from paddock.pipelines.label_choices import schema_with_labels
from paddock.pipelines.schema_validation import value_faults
from paddock.runner import rules
from paddock.runner.answers.scoped_reply import ScopedReply
from paddock.runner.bind.answer_names import open_fields
from paddock.runner.ledger.reviews.reviews import Review, review_id
from paddock.runner.progress.item_states import WHOLE
from paddock.runner.rules.readings import Reading, values_of
from paddock.runner.rules.reasons import WhyOpen

from .standing_decisions import is_decision_on
from .traces.dependencies import UsedRules, dependencies_of
from .traces.past_decisions import StepDecisions

if TYPE_CHECKING:
    from paddock.runner.bind.bound import BoundStep
    from paddock.runner.rules import Offers

    from .item_attempt import StepAttempt


_MADE = frozenset(("text", "usage"))


class Readings(Struct, frozen=True):
    sure: Mapping[str, Reading] = field(default_factory=dict)
    """By field, what needs no model."""
    open: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By field, the name of the reason why no reading of it is sure (`open`), what is `left` over
    on the document that may tell it, each with text, bounds and key, and the `proposed` value that
    was read all the same."""
    proposed: Mapping[str, Any] = field(default_factory=dict)
    """What is known or likely of open fields: a person sees it instead of a model's answer."""
    names: tuple[str, ...] = ()
    """All fields of the answer, where rules read its document; else empty."""
    decision: Review | None = None
    """What a person decided on the document; None: nothing of it is valid by what is asked now."""
    is_decided: bool = False
    """Whether the decision is on the whole answer: nothing is left to ask."""
    offers: str = ""
    """What the document offers to rules, packed."""

    def over(self, answer: Any) -> Any:
        """Return a model's answer with what is read in its place."""
        if self.decision is not None and self.is_decided:
            return self.decision.value
        return {**answer, **self.known} if isinstance(answer, Mapping) else answer

    @property
    def known(self) -> dict[str, Any]:
        """The values that are sure or proposed."""
        return {**self.proposed, **values_of(self.sure)}

    @property
    def is_whole(self) -> bool:
        return {*self.names} <= self.sure.keys()

    @property
    def answer(self) -> dict[str, Any]:
        """The answer, where each of its fields is read or proposed."""
        known = self.known
        return {name: known[name] for name in self.names}

    @property
    def sources(self) -> dict[str, Mapping[str, Any]]:
        """By field, as outputs have it."""
        return {name: reading.source for name, reading in self.sure.items()} | {**self.open}

    @property
    def shown(self) -> dict[str, Any]:
        """What rules had read where a person decided on other fields, as `UsedRules` has it."""
        review = self.decision
        if review is None or not isinstance(review.value, Mapping):
            return {}
        return {
            name: review.value[name]
            for name, how in review.subject.readings.items()
            if how.get("by") == "rule" and name not in self.sure and name in review.value
        }

    def makes_outputs(self, step: BoundStep) -> bool:
        """Return whether no model is needed, and a step's outputs are made of its answer alone."""
        outputs = step.kind.output.model_fields.items()
        is_known = bool(self.names) and {*self.names} <= self.known.keys()
        return is_known and {n for n, out in outputs if out.is_required()} <= _MADE

    def as_outputs(self, kind: Any, evidence: Any) -> dict[str, Any]:
        text = json.dumps(self.answer, ensure_ascii=False)
        outputs = {"text": text, "output": self.answer, "evidence": evidence, "usage": {}}
        return kind.output.model_validate(outputs).model_dump(mode="json")  # type: ignore[no-any-return]

    def fields_to_ask(self, answer: Any) -> tuple[str, ...] | None:
        """Return what a person is asked about: all that no rule reads; None: the whole answer."""
        unsure = open_fields(answer, self.sources)
        by_person = {name for name, reading in self.sure.items() if reading.witness == "person"}
        to_ask = {*unsure, *by_person} if unsure else set()
        return None if to_ask >= {*self.names} else tuple(sorted(to_ask))


def readings_of_person(attempt: StepAttempt) -> Readings:
    """Return what stands of the decision on a step's answer.

    Raises:
        StepError: a list of labels cannot be read.
    """
    step, review = attempt.step, attempt.item.reviews.get(attempt.step.id)
    if review is None or not is_decision_on(review, attempt.item, attempt.scope):
        return Readings()
    schema = None if step.reply is None else step.reply.schema
    if schema is None:
        return Readings(decision=review, is_decided=True)
    now = schema_with_labels(schema, attempt.context.judge.labels.of_step(step, attempt.scope))
    value, seen = review.value, review.fields_seen
    fields = value if isinstance(value, Mapping) else {}
    is_decided = seen is None and not value_faults(value, now)
    if not is_decided:
        asked_for = now.get("properties", {}).keys() & (fields.keys() if seen is None else seen)
        fields = _valid({name: fields[name] for name in fields if name in asked_for}, now)
    if not (is_decided or fields):
        return Readings()
    sure = {name: Reading(value, "person") for name, value in fields.items()}
    return Readings(sure, decision=review, is_decided=is_decided)


def _valid(fields: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a schema allows, whatever the others are."""
    return {
        name: value
        for name, value in fields.items()
        if not value_faults({name: value}, {**schema, "required": [name]})
    }


def outputs_seen(attempt: StepAttempt, by_person: Readings) -> dict[str, Any] | None:
    """Return the outputs that a person saw and decided on; None: a model is asked.

    So it is where a field of the decision does not stand, and where that is forced.
    """
    if by_person.decision is not None:
        is_kept = by_person.is_decided and not attempt.is_forced
        return by_person.decision.decided_outputs if is_kept else None
    review = attempt.item.reviews.get(attempt.step.id)
    if review is None or not attempt.item.is_decided or attempt.caller.looks_up:
        return None
    return review.decided_outputs if review.state in ("rejected", "expired") else None


def has_fields(reply: Any) -> TypeGuard[ScopedReply]:
    schema = reply.schema if isinstance(reply, ScopedReply) else None
    return isinstance(schema, Mapping) and bool(schema.get("properties"))


async def readings_of_document(
    by_person: Readings, attempt: StepAttempt, reply: ScopedReply
) -> Readings:
    """Return with a decision what is read of other fields, and mark the item with how it was.

    1. Rules and an e-invoice read the document, once; its doubts are noted with that.
    2. Open is also what is in doubt, and what an e-invoice states that the schema cannot hold.
    3. Proposed is what was read of open fields, or is likely by decisions on other senders.
    4. Sure is what else was read and is valid; nothing, if the whole answer does not pass.
    """
    context, schema, terms = attempt.context, reply.schema, reply.reply.readings or {}
    names, decided = tuple(schema["properties"]), by_person.sure
    offers = await asyncio.to_thread(rules.offers_of, reply.sources(), terms, schema)
    step = context.judge.scopes.taught_as(attempt.step)
    known = context.judge.reviews.decisions.get(step, StepDecisions())
    if not offers.pack():
        offers = offers.kept
    own_id = review_id(attempt.item.scope_id, attempt.item.key, attempt.step.id)
    used, read = UsedRules.of(known, step, own_id, offers.kept, decided, by_person.shown)
    found = {**used.field_readings(), **read.sure}
    shown = {**values_of(read.proposed), **offers.proposed, **values_of(found)}
    used = _with_doubts(used, attempt, schema, offers, shown, found.keys())  # 1
    attempt.item.note(used)
    held = _valid(offers.proposed, schema)
    unheld = {
        name: rules.doubt(WhyOpen.NOT_IN_SCHEMA, invoice)
        for name, invoice in {**offers.proposed, **offers.unheld}.items()
        if name not in held and not (terms.get(name) == "kind" and name in found)
    }  # a decision tells which kind of the schema its kind is
    doubts = {n: d for n, d in {**used.doubts, **unheld}.items() if n not in decided}  # 2
    likely = {name: shown[name] for name in doubts if name in shown} | dict.fromkeys(unheld)
    proposed = {**values_of(read.proposed), **offers.proposed, **likely}
    undoubted = {n: r for n, r in found.items() if n not in decided and n not in doubts}
    sure = {name: undoubted[name] for name in _valid(values_of(undoubted), schema)}
    may_ask = context.judge.reviews.mode == "ask"  # what is only likely is never taken unseen
    if may_ask and {*names} - decided.keys() - sure.keys() - proposed.keys():
        proposed = {
            **await asyncio.to_thread(known.proposals.of, offers, schema, terms),
            **proposed,
        }
    readings = replace(
        by_person,
        sure={**decided, **sure},
        proposed=_valid(proposed, schema),  # 3
        names=names,
        offers=offers.pack(),
    )
    if readings.is_whole and sure:  # 4
        text = json.dumps(answer := readings.answer, ensure_ascii=False)
        if value_faults(answer, schema) or await reply.checked(answer, text):
            readings = replace(readings, sure=decided)
    open_ = dict[str, Mapping[str, Any]]()
    for name in dict.fromkeys((*names, *undoubted)):
        if name in readings.sure:
            continue
        why = WhyOpen.REFUSED if name in undoubted else read.why_open(name)
        how: dict[str, Any] = {"open": why.name.lower()}
        left = [part for part in read.left_over if name in part.fields]
        if left:
            how["left"] = [[part.text, part.start, part.end, part.key] for part in left]
        if name in read.proposed:
            how["proposed"] = read.proposed[name].value
        open_[name] = {**how, **doubts.get(name, {})}
    return replace(readings, open=open_)


def _with_doubts(
    used: UsedRules,
    attempt: StepAttempt,
    schema: Any,
    offers: Offers,
    shown: Mapping[str, Any],
    sure: Set[str],
) -> UsedRules:
    """Return what was read of a document with its doubts.

    One that was done keeps those that it had when it was first read: what came later tells nothing
    of it. One that waits is compared with what is known now, but for the days of what came later.
    """
    work, context = attempt.item.work, attempt.context
    step = context.judge.scopes.taught_as(attempt.step)
    entry = work.entry if work.has_same_content else None
    recorded = (dep for dep in dependencies_of(entry, UsedRules) if (*dep.step,) == step)
    before = next(recorded, replace(used, read_at=context.stats.began_at))
    used = replace(used, read_at=before.read_at)
    if entry is not None and entry.state in WHOLE:
        return replace(used, doubts=before.doubts)
    parts = {name: SchemaParts.of(schema).field(name).parts for name in schema["properties"]}
    kinds = {name for name, of_field in parts.items() if rules.tells_kind(of_field)}
    papers = context.judge.reviews.papers(step, kinds)
    values = {n: v for n, v in shown.items() if n in sure or n not in kinds}  # else it is open
    terms = (attempt.step.reply and attempt.step.reply.readings) or {}
    dues = {name for name, term in terms.items() if term == "due"}
    doubts = papers.doubts(offers, values, used.id, used.read_at, dues)
    return replace(used, doubts=doubts)
