"""Run a step for one item: its tries, its larger model, what a person decides on its answer."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from random import SystemRandom
from typing import Any

from paddock.engine.errors import DeadlineExceeded, EngineError
from paddock.engine.system.os_errors import is_transient
from paddock.engine.system.records import replace
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError
from paddock.runner.answers.evidence import EvidenceFinder
from paddock.runner.answers.offered_labels import AT_BORDER
from paddock.runner.answers.scoped_reply import ScopedReply
from paddock.runner.bind.bound import BoundStep
from paddock.runner.bind.parameters import RenderError
from paddock.runner.bind.plan_walks import only_reads
from paddock.runner.bind.scope import Scope
from paddock.runner.bind.trust.command_words import refuse_misplaced
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.progress.drain import StopGateClosed
from paddock.runner.progress.item_states import ItemState
from paddock.steps.base import OutsideRoots, StepError, StepSkipped, SubPipelines, Tools
from paddock.steps.effects import SentRequest
from paddock.steps.param_types import CommandParam, InputFolder
from paddock.steps.paths import os_refusal

from .answer_reviewer import AnswerReviewer
from .calls.recorded_calls import PutOff
from .escalation import EscalationPass, escalation_reason
from .failures import (
    FATAL_ERRORS,
    UNUSABLE_MODEL_ERRORS,
    Cause,
    ItemWaits,
    OutputTaken,
    RunStopped,
    StepFailed,
    cause_of,
    max_retries,
    retry_pause_s,
)
from .item_attempt import ItemAttempt, StepAttempt
from .readings import Readings, has_fields, readings_of_document, readings_of_person
from .run_context import RunContext
from .step_tools import carry_out, item_tools, labelled_tools, limit_s, mark_labels, taught_tools
from .traces.dependencies import note_listing
from .walk import step_outputs

SubPipelinesFor = Callable[[StepAttempt], SubPipelines]
_OF_INNER = (StepFailed, RunStopped, StopGateClosed, PipelineError, ItemWaits, PutOff)
"""What a pipeline that a step runs may end with."""


class StepRunner:
    def __init__(self, context: RunContext, sub_pipelines: SubPipelinesFor | None = None) -> None:
        """`sub_pipelines`: None while planning, where the pipelines of steps do not run."""
        self.context = context
        self._sub_pipelines = sub_pipelines

    @cached_property
    def _answers(self) -> StepAnswers:
        return StepAnswers(self.context)

    async def run(self, step: BoundStep, scope: Scope, item: ItemAttempt) -> Any:
        """Run a step with its retries; return its outputs, None if it skipped itself.

        1. It is noted as begun, with the answers to it that a person has rejected.
        2. Its tools. Its parameters; the files that they name are marked before it reads them.
        3. What it makes, where its answer is looked at as `StepAnswers` has it; its `returns`.
        4. It failed: 2 and 3 are tried again, or not (`_cause_of_retry`).
        5. A folder that it listed for this item alone is marked.

        Raises:
            StepFailed: it did not succeed.
            RunStopped: nothing else will succeed.
            ItemWaits, PutOff, StopGateClosed, PipelineError: of it, or of what it runs.
        """
        context, result = self.context, None
        with self._recorded(StepAttempt.begin(context, step, scope, item)) as attempt:  # 1
            if step.has_answer:
                attempt.n_refused = self._answers.n_rejected(attempt)
            if (kept := item.kept.get(step.id)) is not None:
                return kept
            for n_retries in itertools.count():
                try:
                    tools = item_tools(attempt, item.outputs)  # 2
                    if step.inner is not None and self._sub_pipelines is not None:
                        calls = replace(tools.calls, pipelines=self._sub_pipelines(attempt))
                        tools = replace(tools, calls=calls)
                    params = step.params.render(scope)
                    if step.untrusted and step.has(CommandParam):
                        refuse_misplaced(step, scope)
                    await item.note_files(context, step.kind().reads(params), tools.files.roots)
                    if step.has_answer:
                        outputs = await self._answers.outputs(attempt, params, tools)  # 3
                    else:
                        outputs = (await carry_out(step, params, tools)).model_dump(mode="json")
                    attempt.record.note_answer(outputs)
                    result = step_outputs(step, scope, outputs)
                    break
                except StepSkipped:
                    break
                except _OF_INNER:
                    raise
                except (Exception, SystemExit) as error:  # 4: of any kind, also a bug
                    cause = self._cause_of_retry(attempt, error, n_retries)
                    attempt.n_refused += cause is Cause.CHECK
                    chance = SystemRandom().random()
                    await asyncio.sleep(retry_pause_s(step.retry, cause, n_retries, chance))
            if item.is_of_item and step.has(InputFolder) and result is not None:  # 5
                files = None if step.returns is not None else result["files"]
                params, roots = step.params.render(scope), context.bound.roots
                owned = context.index.owned(roots.base) if files is None else frozenset()
                noted, world = item.dependencies, context.world
                await asyncio.to_thread(note_listing, noted, world, params, files, roots, owned)
            attempt.record.state = "skipped" if result is None else "done"
        return result

    @contextmanager
    def _recorded(self, attempt: StepAttempt) -> Iterator[StepAttempt]:
        step, item, record, stats = attempt.step, attempt.item, attempt.record, self.context.stats
        since = time.monotonic()
        if step.kind.roles:
            stats.item_state(item.node.id, item.shown_key, ItemState.RUNNING, step.id)
        item.callers.append(attempt.caller)
        item.steps.append(record)
        try:
            yield attempt
        except ItemWaits:  # it is done, but for what a person decides
            record.state = "done"
            raise
        except (StepFailed, RunStopped, PipelineError):
            record.state = "failed"
            raise
        finally:
            record.seconds = round(time.monotonic() - since, 4)
            stats.add_step(record)
            if step.inner is None and (not only_reads(step) or any(step.facts.tools(step.written))):
                stats.effect_times.append((record.began, time.time()))

    def _cause_of_retry(self, attempt: StepAttempt, error: BaseException, n_retries: int) -> Cause:
        """Return the cause by which a step is tried again, as its `retry` says.

        Raises:
            StepFailed: it is not.
            ItemWaits: what it writes is another item's.
            RunStopped: every other item would meet the error, too.
        """
        if isinstance(error, OutputTaken):
            raise ItemWaits(error.why, ItemState.BLOCKED) from error
        step, most_s = attempt.step, limit_s(attempt.step)
        if isinstance(error, TimeoutError) and most_s is not None:
            error = DeadlineExceeded("total", most_s)
        if isinstance(error, OSError) and is_transient(error):
            error = os_refusal("the step failed", error)
        if isinstance(error, StepError | EngineError):
            is_fatal = isinstance(error, StepError) and error.is_fatal
            if is_fatal or isinstance(error, FATAL_ERRORS):
                at = f"{step.mark.file}:{step.mark.line}:{step.mark.column}: "
                place = at if isinstance(error, UNUSABLE_MODEL_ERRORS) else ""
                raise RunStopped(f"{place}{error}") from error
            cause = cause_of(error)
            if n_retries < max_retries(step.retry, cause):
                return cause
            raise StepFailed(step.id, str(error), cause=cause) from error
        if isinstance(error, ExpressionError | RenderError | OutsideRoots):
            raise StepFailed(step.id, str(error)) from error
        damage = error if isinstance(error, LedgerError) else None
        if (damage := damage or self.context.ledger.damage_behind(error)) is not None:
            raise RunStopped(str(damage)) from error
        self.context.stats.log_unexpected_error(
            f"{attempt.item.shown_key}, step '{step.id}'", error
        )
        is_missing = isinstance(error, ModuleNotFoundError)
        cause, why = Cause.MISSING if is_missing else Cause.OTHER, type(error).__name__
        raise StepFailed(step.id, f"{why}: {error}", cause=cause) from error


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
