"""What is given of an answer before a model is asked: by a person, a rule, or an e-invoice."""

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
from paddock.runner.rules.reasons import WhyOpen

from .standing_decisions import is_decision_on
from .step_tools import taught_as
from .traces.dependencies import UsedRules, dependencies_of
from .traces.past_decisions import StepDecisions

if TYPE_CHECKING:
    from paddock.runner.bind.bound import BoundStep
    from paddock.runner.rules import FieldReading, Offers

    from .item_attempt import StepAttempt


_MADE = frozenset(("text", "usage"))
PERSON: Mapping[str, Any] = {"by": "person"}


class GivenAnswer(Struct, frozen=True):
    """The fields of an answer that need no model, each with its source."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By field, who read it (`by`), and of a rule the `decision` that it rests on, and `label`.

    It is a person, a rule, or an e-invoice's XML; of another field why it is `open`, by its name,
    what is `left` over on the document that may tell it, each with text, bounds and key, and the
    `proposed` value that was read all the same.
    """
    decision: Review | None = None
    """What a person decided on the document; None: nothing of it is valid by what is asked now."""
    is_decided: bool = False
    """Whether the decision is on the whole answer: nothing is left to ask."""
    names: tuple[str, ...] = ()
    """All fields of the answer, where rules read its document; else empty."""
    proposed: Mapping[str, Any] = field(default_factory=dict)
    """What is known or likely of open fields: a person sees it instead of a model's answer."""
    offers: str = ""
    """What the document offers to rules, packed."""

    def over(self, answer: Any) -> Any:
        """Return a model's answer with what is given in its place."""
        if self.decision is not None and self.is_decided:
            return self.decision.value
        given = {**self.proposed, **self.fields}
        return {**answer, **given} if isinstance(answer, Mapping) else answer

    @property
    def is_whole(self) -> bool:
        return {*self.names} <= self.fields.keys()

    @property
    def answer(self) -> dict[str, Any]:
        """The answer, where each of its fields is given or proposed."""
        known = {**self.proposed, **self.fields}
        return {name: known[name] for name in self.names}

    @property
    def readings_shown(self) -> dict[str, Any]:
        """What rules had read where a person decided on other fields, as `UsedRules` has it."""
        review = self.decision
        if review is None or not isinstance(review.value, Mapping):
            return {}
        return {
            name: review.value[name]
            for name, how in review.subject.readings.items()
            if how.get("by") == "rule" and name not in self.fields and name in review.value
        }

    def makes_outputs(self, step: BoundStep) -> bool:
        """Return whether no model is needed, and a step's outputs are made of its answer alone."""
        outputs = step.kind.output.model_fields.items()
        is_known = bool(self.names) and {*self.names} <= self.fields.keys() | self.proposed.keys()
        return is_known and {n for n, out in outputs if out.is_required()} <= _MADE

    def as_outputs(self, kind: Any, evidence: Any) -> dict[str, Any]:
        text = json.dumps(self.answer, ensure_ascii=False)
        outputs = {"text": text, "output": self.answer, "evidence": evidence, "usage": {}}
        return kind.output.model_validate(outputs).model_dump(mode="json")  # type: ignore[no-any-return]

    def fields_to_ask(self, answer: Any) -> tuple[str, ...] | None:
        """Return what a person is asked about: all that no rule reads; None: the whole answer."""
        unsure = open_fields(answer, self.sources)
        by_person = {name for name, how in self.sources.items() if how == PERSON}
        to_ask = {*unsure, *by_person} if unsure else set()
        return None if to_ask >= {*self.names} else tuple(sorted(to_ask))


def decided_answer(attempt: StepAttempt) -> GivenAnswer:
    """Return what stands of the decision on a step's answer.

    Raises:
        StepError: a list of labels cannot be read.
    """
    step, review = attempt.step, attempt.item.reviews.get(attempt.step.id)
    if review is None or not is_decision_on(review, attempt.item, attempt.scope):
        return GivenAnswer()
    schema = None if step.reply is None else step.reply.schema
    if schema is None:
        return GivenAnswer(decision=review, is_decided=True)
    now = schema_with_labels(schema, attempt.context.judge.labels.of_step(step, attempt.scope))
    value, seen = review.value, review.fields_seen
    fields = value if isinstance(value, Mapping) else {}
    is_decided = seen is None and not value_faults(value, now)
    if not is_decided:
        asked_for = now.get("properties", {}).keys() & (fields.keys() if seen is None else seen)
        fields = _valid({name: fields[name] for name in fields if name in asked_for}, now)
    if not (is_decided or fields):
        return GivenAnswer()
    return GivenAnswer(fields, dict.fromkeys(fields, PERSON), review, is_decided)


def _valid(fields: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that a schema allows, whatever the others are."""
    return {
        name: value
        for name, value in fields.items()
        if not value_faults({name: value}, {**schema, "required": [name]})
    }


def outputs_seen(attempt: StepAttempt, given: GivenAnswer) -> dict[str, Any] | None:
    """Return the outputs that a person saw and decided on; None: a model is asked.

    So it is where a field of the decision does not stand, and where that is forced.
    """
    if given.decision is not None:
        is_kept = given.is_decided and not attempt.is_forced
        return given.decision.decided_outputs if is_kept else None
    review = attempt.item.reviews.get(attempt.step.id)
    if review is None or not attempt.item.is_decided or attempt.caller.looks_up:
        return None
    return review.decided_outputs if review.state in ("rejected", "expired") else None


def has_fields(reply: Any) -> TypeGuard[ScopedReply]:
    schema = reply.schema if isinstance(reply, ScopedReply) else None
    return isinstance(schema, Mapping) and bool(schema.get("properties"))


def as_values(readings: Mapping[str, FieldReading]) -> dict[str, Any]:
    return {name: reading.value for name, reading in readings.items()}


async def with_readings(
    decided: GivenAnswer, attempt: StepAttempt, reply: ScopedReply
) -> GivenAnswer:
    """Return with a decision what is read of other fields, and mark the item with how it was."""
    context, item, schema = attempt.context, attempt.item, reply.schema
    terms = reply.reply.readings or {}
    offers = await asyncio.to_thread(rules.offers_of, reply.sources(), terms, schema)
    packed, step = offers.pack(), taught_as(context, attempt.step)
    known = context.judge.reviews.decisions.get(step, StepDecisions())
    own_id = review_id(item.scope_id, item.key, attempt.step.id)
    used = UsedRules.of(known, step, own_id, packed, decided.fields, decided.readings_shown)
    if not packed and offers.lines and offers.unread is None:
        offers = rules.Offers(unread=WhyOpen.TOO_LONG)
    read, names = known.rules.read(offers), tuple(schema["properties"])
    found = {**used.field_readings(), **read.sure}
    shown = {**as_values(read.proposed), **offers.proposed, **as_values(found)}
    used = _with_doubts(used, attempt, schema, offers, shown, found.keys())
    item.note(used)
    held = _valid(offers.proposed, schema)
    unheld = {
        name: rules.doubt(WhyOpen.NOT_IN_SCHEMA, invoice)
        for name, invoice in {**offers.proposed, **offers.unheld}.items()
        if name not in held and not (terms.get(name) == "kind" and name in found)
    }  # a decision tells which kind of the schema its kind is
    doubts = {n: d for n, d in {**used.doubts, **unheld}.items() if n not in decided.fields}
    in_doubt = {name: shown[name] for name in doubts if name in shown}
    proposed = {**as_values(read.proposed), **offers.proposed, **in_doubt}
    left_out = decided.fields.keys() | doubts.keys()
    sure = {name: reading for name, reading in found.items() if name not in left_out}
    values = _valid(as_values(sure), schema)
    proposed |= dict.fromkeys(unheld)
    may_ask = context.judge.reviews.mode == "ask"  # what is only likely is never taken unseen
    if may_ask and {*names} - decided.fields.keys() - values.keys() - proposed.keys():
        likely = await asyncio.to_thread(known.proposals.of, offers, schema, terms)
        proposed = {**likely, **proposed}
    given = replace(
        decided,
        fields={**decided.fields, **values},
        names=names,
        proposed=_valid(proposed, schema),
        offers=packed,
    )
    if given.is_whole and values:
        text = json.dumps(given.answer, ensure_ascii=False)
        if value_faults(given.answer, schema) or await reply.checked(given.answer, text):
            given, values = replace(given, fields=decided.fields), {}
    why = {name: read.why_open(name) for name in names}
    why |= {name: WhyOpen.REFUSED for name in sure if name not in values}
    sources = dict[str, Mapping[str, Any]](decided.sources)
    for name in values:
        of_rule = {"by": "rule", "decision": sure[name].rule, "label": sure[name].label}
        sources[name] = of_rule if sure[name].rule else {"by": "xml"}
    for name, reason in why.items():
        if name in given.fields:
            continue
        left = [part for part in read.left_over if name in part.fields]
        how: dict[str, Any] = {"open": reason.name.lower()}
        if left:
            how["left"] = [[part.text, part.start, part.end, part.key] for part in left]
        if name in read.proposed:
            how["proposed"] = read.proposed[name].value
        sources[name] = {**how, **doubts.get(name, {})}
    return replace(given, sources=sources)


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
    step = taught_as(context, attempt.step)
    entry = work.entry if work is not None and work.has_same_content else None
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
