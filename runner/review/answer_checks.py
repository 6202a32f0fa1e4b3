"""Checks of a person's answer: by the schema, by where its values stand, by `check`.

What a check needs is read from the ledger first. Any thread can carry it out then, which may take
as long as a document may be read.
"""

from __future__ import annotations

import json
from typing import Any

from paddock.engine.errors import EngineError
from paddock.engine.system.records import Struct, replace
from paddock.engine.trial_process import TrialProcess
from paddock.engine.wire import from_plain
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.reply_check import AnswerFault, Check
from paddock.pipelines.schema_validation import value_faults
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.reviews.reviews import Review, Subject
from paddock.steps.base import StepError
from paddock.steps.readers import documents
from paddock.steps.readers.reader_pool import EvidenceRequest, ReaderPool
from paddock.steps.registry import CHECK_FUNCTIONS, UnusableCheckPlugin

_COSTLY_KEYS = ('"$ref"', '"patternProperties"')
"""Of schemas that are compared in a process, as with many patterns: each takes 15 ms and 4 MB."""


class AnswerCheck(Struct, frozen=True):
    review: Review
    """Whole."""
    value: Any
    trials: TrialProcess
    evidence: EvidenceRequest | None
    """The question where the value stands; None if no check asks."""

    @classmethod
    def of(
        cls, store: ReviewStore, trials: TrialProcess, review: Review, value: Any
    ) -> AnswerCheck:
        subject = review.subject
        checks = map(Check.of, subject.checks)
        if subject.evidence is None or not any(check.reads_evidence for check in checks):
            return cls(review, value, trials, None)
        return cls(review, value, trials, evidence_request(store, subject, value))

    def faults(self, readers: ReaderPool | None = None) -> list[AnswerFault]:
        subject, value = self.review.subject, self.value
        if subject.schema is None and not isinstance(value, str):
            return [_fault("The answer is a text, and the edited value is none.")]
        wrong = [] if subject.schema is None else self._schema_faults(subject.schema)
        for number, fault in enumerate(wrong):
            field = ".".join(name for name in fault.path.split(".") if not name.isdecimal())
            if (table := subject.label_tables.get(field)) is not None:
                what = f"It is not in '{table['path']}', from which it is chosen."
                wrong[number] = replace(fault, message=what, sentence=f"{fault.path}: {what}")
        if wrong:
            return wrong
        text = value if subject.schema is None else json.dumps(value, ensure_ascii=False)
        output = None if subject.schema is None else value
        scope = {**(subject.scope or {}), "output": output, "text": text}
        if self.evidence is not None:
            try:
                scope["evidence"] = documents.locate_values_now(self.evidence, readers)
            except StepError as error:
                return [_fault(str(error))]
        faults: dict[AnswerFault, None] = {}
        for source in subject.checks:
            try:
                faults |= dict.fromkeys(Check.of(source).answer_faults(scope, CHECK_FUNCTIONS))
            except (ExpressionError, UnusableCheckPlugin) as error:
                faults[_fault(f"`check` ({source}): {error}")] = None
        return list(faults)

    def _schema_faults(self, schema: Any) -> list[AnswerFault]:
        source = json.dumps(schema)
        if not any(key in source for key in _COSTLY_KEYS) and source.count('"pattern"') <= 32:
            return value_faults(self.value, schema, is_for_person=True)
        order = {"value": self.value, "schema": schema}
        try:
            answer = self.trials.ask(order, "`reply.schema`", "Use fewer patterns and `$ref`s.")
        except EngineError as error:
            return [_fault(str(error))]
        return from_plain(list[AnswerFault], answer["faults"])


def evidence_request(store: ReviewStore, subject: Subject, value: Any) -> EvidenceRequest:
    sources = tuple(
        store.source(source, store.source_text(source) or "") for source in subject.sources
    )
    only, language = subject.evidence_only, subject.evidence_language
    return EvidenceRequest(value, subject.schema, only, sources, language)


def _fault(sentence: str) -> AnswerFault:
    return AnswerFault(sentence, sentence)
