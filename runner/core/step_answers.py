"""Answers of steps with `reply`, `review` or `escalate`: asked for, known without, decided on."""

from __future__ import annotations

from typing import Any

from paddock.engine.system.records import replace
from paddock.pipelines.expressions import ExpressionError
from paddock.runner.answers.evidence import EvidenceFinder
from paddock.runner.answers.offered_labels import AT_BORDER
from paddock.runner.answers.scoped_reply import ScopedReply
from paddock.steps.base import StepError, Tools
from paddock.steps.effects import SentRequest

from .answer_reviewer import AnswerReviewer
from .escalation import EscalationPass, escalation_reason
from .failures import Cause, StepFailed, cause_of
from .item_attempt import StepAttempt
from .readings import Readings, has_fields, readings_of_document, readings_of_person
from .run_context import RunContext
from .step_tools import carry_out, labelled_tools, mark_labels, taught_tools


class StepAnswers:
    """Which answer does a step have for an item, if more than its schema looks at it?"""

    def __init__(self, context: RunContext) -> None:
        self._reviewer = AnswerReviewer(context)
        self.n_rejected = self._reviewer.n_rejected

    async def outputs(self, attempt: StepAttempt, params: Any, tools: Tools) -> dict[str, Any]:
        """Return the outputs of a step.

        1. The labels that it may choose from, and the examples of its prompt.
        2. Its outputs: those that a person has decided on since, with what rules read of other
           fields; else, where of a field nothing is known, its model's, of its larger model where
           its own is not sure enough.
        3. What is read of some fields over these; what a person decides, or has, on the answer.
        4. The labels that it chose.

        Raises:
            StepFailed, StepError, ItemWaits: it has none, or waits for a person.
        """
        reviewer, step = self._reviewer, attempt.step
        if (form := step.reply) is not None:
            finder = EvidenceFinder.of(form.evidence, form.schema, attempt.scope, tools)
            tools = replace(tools, reply=ScopedReply(form, attempt.scope, finder))
        if step.reply is not None and step.choices:  # 1
            tools = await labelled_tools(attempt, tools)
        has_review = step.review is not None and not step.has(SentRequest)
        readings = readings_of_person(attempt) if has_review else Readings()
        outputs, faults = reviewer.decided_before(attempt, readings), list[str]()
        if step.has_readings and has_fields(tools.reply):
            readings = await readings_of_document(readings, attempt, tools.reply)
            if outputs is None and readings.makes_outputs(step) and not attempt.is_forced:
                evidence = await tools.reply.evidence(readings.answer)
                outputs = readings.as_outputs(step.kind, evidence)
                if not readings.is_whole:
                    faults = await tools.reply.checked(readings.answer, outputs["text"])
        if outputs is None and step.is_taught:
            tools = await taught_tools(attempt, params, tools)
        is_asked = outputs is None
        if outputs is None and step.escalate is not None:  # 2
            outputs = await self._escalated(attempt, params, tools)
        elif outputs is None:
            outputs = await reviewer.calibrated(attempt, await carry_out(step, params, tools))
        if step.review is not None:  # 3
            if is_asked:
                outputs, faults = await reviewer.with_readings(outputs, readings, tools)
            outputs = await reviewer.review_answer(attempt, outputs, readings, tools, faults)
        if isinstance(tools.reply, ScopedReply):  # 4
            mark_labels(attempt, outputs)
            if (labels := tools.reply.labels) is not None:
                for _ in range(labels.n_at_border(outputs.get("output"))):
                    tools.log.tally("answer", AT_BORDER)
        return outputs

    async def _escalated(self, attempt: StepAttempt, params: Any, tools: Tools) -> dict[str, Any]:
        step, scope, item, first = attempt.step, attempt.scope, attempt.item, None
        try:  # a refused answer is asked for again of the larger model alone
            own = replace(tools, llm=replace(tools.llm, n_refused=0))
            output = await step.kind().run(params, own)
            first = await self._reviewer.calibrated(attempt, output)
        except StepError as error:
            if cause_of(error) is not Cause.CHECK:
                raise
        try:
            why = escalation_reason(step, scope, item.shown_key or item.key, first)
        except ExpressionError as error:
            raise StepFailed(step.id, f"`escalate.when`: {error}") from error
        if why is None:
            assert first is not None
            return first
        try:
            larger = attempt.with_larger_model()
            escalation_pass = item.enclosing.escalation_pass or EscalationPass()
            with escalation_pass.defer_calls(attempt.caller, step.id):
                output = await step.kind().run(larger.step.params.render(scope), tools)
                answer = await self._reviewer.calibrated(larger, output)
        except StepError as error:
            what = f"it was escalated to '{why.alias}': {error.reason}"
            raise StepError(
                what, remedy=error.remedy, is_fatal=error.is_fatal, kind=error.kind
            ) from error
        assert step.escalate is not None
        attempt.record.model = step.escalate.to.ref
        return why.outputs(tools.log, answer)
