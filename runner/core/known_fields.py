"""What is known of an answer before a model is asked: decided on its document, or read by rules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

from paddock.engine.system.records import Struct, replace
from paddock.pipelines.schema_validation import value_faults
from paddock.runner import rules
from paddock.runner.answers.scoped_reply import ScopedReply
from paddock.runner.ledger.reviews.reviews import review_id
from paddock.runner.rules.reasons import WhyOpen

from .step_tools import taught_as
from .traces.dependencies import UsedRules
from .traces.past_decisions import StepDecisions

if TYPE_CHECKING:
    from paddock.runner.bind.bound import BoundStep

    from .item_attempt import StepAttempt
    from .standing_decisions import Standing


_MADE = frozenset(("text", "usage"))
PERSON: Mapping[str, Any] = {"by": "person"}


class KnownFields(Struct, frozen=True):
    """Fields of an answer of which a reading is sure."""

    values: Mapping[str, Any]
    readings: Mapping[str, Mapping[str, Any]]
    """By field, who read it (`by`), and of a rule the `decision` that it rests on, and `label`.

    It is a person, a rule, an e-invoice's XML, or the sum that a model has as well; of another
    field why it is `open`, by its name, and the `sum` on its page.
    """
    offers: str
    """What the document offers to rules, packed."""
    schema: Any
    proposed: Mapping[str, Any]
    """What an e-invoice has for open fields: a person sees it instead of a model's answer."""

    def with_sums(self, answer: Any) -> KnownFields:
        """Return it with the amounts that a model and the sums of the page agree on.

        Not where a person is asked all the same: what they see teaches a rule.
        """
        found = answer if isinstance(answer, Mapping) else {}
        is_open = {name: how for name, how in self.readings.items() if "open" in how}
        if any("sum" not in how or how["sum"] != found.get(n) for n, how in is_open.items()):
            return self
        return replace(self, readings={**self.readings, **{n: {"by": "sum"} for n in is_open}})

    @property
    def fields(self) -> Mapping[str, Any]:
        return {**self.proposed, **self.values}

    def over(self, answer: Any) -> Any:
        return {**answer, **self.fields} if isinstance(answer, Mapping) else answer

    @property
    def is_whole(self) -> bool:
        return {*self.schema["properties"]} <= self.values.keys()

    def makes_outputs(self, step: BoundStep) -> bool:
        """Return whether no field is open, and a step's outputs are made of its answer alone."""
        fields = step.kind.output.model_fields.items()
        return self.is_whole and {n for n, f in fields if f.is_required()} <= _MADE

    @property
    def answer(self) -> dict[str, Any]:
        return {name: self.values[name] for name in self.schema["properties"]}

    def as_outputs(self, kind: Any, evidence: Any) -> dict[str, Any]:
        answer = self.answer
        text = json.dumps(answer, ensure_ascii=False)
        outputs = {"text": text, "output": answer, "evidence": evidence, "usage": {}}
        return kind.output.model_validate(outputs).model_dump(mode="json")  # type: ignore[no-any-return]

    def fields_to_ask(self, unsure: Iterable[str]) -> tuple[str, ...] | None:
        """Return what a person is asked about: all that no rule reads; None: the whole answer."""
        by_person = {name for name, how in self.readings.items() if how == PERSON}
        to_ask = {*unsure, *by_person} if unsure else set()
        return None if to_ask >= {*self.schema["properties"]} else tuple(sorted(to_ask))


def has_fields(reply: Any) -> TypeGuard[ScopedReply]:
    schema = reply.schema if isinstance(reply, ScopedReply) else None
    return isinstance(schema, Mapping) and bool(schema.get("properties"))


async def known_fields(
    attempt: StepAttempt, decision: Standing | None, reply: ScopedReply
) -> KnownFields:
    """Return what is known of a step's answer, and mark its item with how that was read."""
    context, item = attempt.context, attempt.item
    terms, sources = reply.reply.readings, reply.sources()
    offers = await asyncio.to_thread(rules.offers_of, sources, terms, reply.schema)
    packed, name = offers.pack(), taught_as(context, attempt.step)
    known = context.judge.reviews.decisions.get(name, StepDecisions())
    decided = decision.value if decision is not None and isinstance(decision.value, Mapping) else {}
    own_id = review_id(item.scope_id, item.key, attempt.step.id)
    item.note(UsedRules.of(known, name, own_id, packed, decided))
    if not packed and offers.words and offers.unread is None:
        offers = rules.Offers(unread=WhyOpen.TOO_LONG)
    read, names = known.rules.read(offers), reply.schema["properties"]
    values, why = {**decided}, {name: read.why_open(name) for name in names}
    readings = dict[str, Mapping[str, Any]](dict.fromkeys(decided, PERSON))
    for field, reading in read.sure.items():
        if field in decided:
            continue
        if value_faults({field: reading.value}, {**reply.schema, "required": [field]}):
            why[field] = WhyOpen.REFUSED
            continue
        of_rule = {"by": "rule", "decision": reading.rule, "label": reading.label}
        readings[field] = of_rule if reading.rule else {"by": "xml"}
        values[field] = reading.value
    proposed = {
        name: value
        for name, value in offers.proposed.items()
        if not value_faults({name: value}, {**reply.schema, "required": [name]})
    }
    found = KnownFields(values, readings, packed, reply.schema, proposed)
    if found.is_whole and values.keys() - decided.keys():
        answer = found.answer
        wrong = value_faults(answer, reply.schema)
        if wrong or await reply.checked(answer, json.dumps(answer, ensure_ascii=False)):
            why |= dict.fromkeys(values, WhyOpen.REFUSED)
            readings, values = dict.fromkeys(decided, PERSON), {**decided}
    is_open = {n: dict[str, Any](open=why[n].name.lower()) for n in why if n not in values}
    for field in is_open.keys() & offers.sums.keys():
        if why[field] not in (WhyOpen.DECIDED_OTHERWISE, WhyOpen.NEW_AROUND):
            is_open[field]["sum"] = offers.sums[field]
    return replace(found, values=values, readings={**readings, **is_open})
