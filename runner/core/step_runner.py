"""Run a step for one item: its tries, its larger model, what a person decides on its answer."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import SystemRandom
from typing import Any

from paddock.engine.errors import DeadlineExceeded, EngineError
from paddock.engine.system.disk_space import may_pass
from paddock.engine.system.records import replace
from paddock.engine.system.tasks import time_limit
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.typed_rows import without_types
from paddock.runner.answers.evidence import EvidenceFinder
from paddock.runner.answers.offered_labels import AT_BORDER
from paddock.runner.answers.scoped_reply import ScopedReply
from paddock.runner.bind.bound import BoundBlock, BoundStep
from paddock.runner.bind.parameters import RenderError
from paddock.runner.bind.plan_walks import only_reads
from paddock.runner.bind.scope import Scope
from paddock.runner.bind.trust.command_words import refuse_misplaced
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.progress.drain import StopGateClosed
from paddock.runner.progress.item_states import ItemState
from paddock.steps.base import Output, OutsideRoots, StepError, StepSkipped, SubPipelines, Tools
from paddock.steps.paths import os_refusal

from .answer_reviewer import AnswerReviewer
from .calls.recorded_calls import PutOff
from .escalation import EscalationPass, escalation_reason
from .failures import (
    Cause,
    ItemWaits,
    OutputTaken,
    RunStopped,
    StepFailed,
    cause_of,
    max_retries,
    retry_pause_s,
    stop_if_fatal,
)
from .item_attempt import ItemAttempt, StepAttempt
from .known_fields import has_fields, known_fields
from .run_context import RunContext
from .standing_decisions import standing_decision
from .step_tools import item_tools, labelled_tools, mark_labels, taught_tools
from .traces.dependencies import note_listing

SubPipelinesFor = Callable[[StepAttempt], SubPipelines]
_OF_INNER = (StepFailed, RunStopped, StopGateClosed, PipelineError, ItemWaits, PutOff)
"""What a pipeline that a step runs may end with."""


def item_result(block: BoundBlock, scope: Scope, last: Any) -> Any:
    """Return an item's result, None where a filter left it out; `last`: its last step's outputs.

    Raises:
        StepFailed: its `returns` cannot be evaluated.
    """
    if block.keep is not None and not block.keep.evaluate(scope):
        return None
    if block.returns is None:
        return without_types(last)
    try:
        return block.returns.render(scope)
    except ExpressionError as error:
        raise StepFailed(block.id, f"`returns`: {error}") from error


def step_outputs(step: BoundStep, scope: Scope, outputs: Mapping[str, Any]) -> Any:
    if step.returns is None:
        return outputs
    return step.returns.render(scope.with_step(step.id, outputs))


class StepRunner:
    def __init__(self, context: RunContext, sub_pipelines: SubPipelinesFor | None = None) -> None:
        """`sub_pipelines`: None while planning, where the pipelines of steps do not run."""
        self.context = context
        self._sub_pipelines = sub_pipelines
        self._reviewer = AnswerReviewer(context)

    async def run(self, step: BoundStep, scope: Scope, item: ItemAttempt) -> Any:
        """Run a step with its retries; return its outputs, None if it skipped itself.

        1. It is noted as begun, with the answers to it that a person has rejected.
        2. Its tools. Its parameters; the files that they name are marked before it reads them.
        3. The labels that it may choose from, and the examples of its prompt.
        4. Its outputs: those that a person has decided on since, with what rules read of other
           fields; else, where a field is open, its model's, of its larger model where its own is
           not sure enough.
        5. What is known of some fields over these; what a person decides, or has, on the answer.
        6. The labels that it chose; its outputs as its `returns` has them.
        7. It failed: 2 to 6 are tried again, or not (`_cause_of_retry`).
        8. A folder that it listed for this item alone is marked.

        Raises:
            StepFailed: it did not succeed.
            RunStopped: nothing else will succeed.
            ItemWaits, PutOff, StopGateClosed, PipelineError: of it, or of what it runs.
        """
        context, reviewer, result = self.context, self._reviewer, None
        with self._recorded(StepAttempt.begin(context, step, scope, item)) as attempt:  # 1
            attempt.n_refused = await reviewer.n_rejected(attempt)
            if (kept := item.kept.get(step.id)) is not None:
                return kept
            for n_retries in itertools.count():
                try:
                    tools = self._tools(attempt)  # 2
                    params = step.params.render(scope)
                    if step.untrusted and step.facts.command:
                        refuse_misplaced(step, scope)
                    await item.note_files(context, step.kind().reads(params), tools.files.roots)
                    if step.reply is not None and step.choices:  # 3
                        tools = await labelled_tools(attempt, tools)
                    has_review = step.review is not None and not step.facts.hosts
                    decision = standing_decision(attempt) if has_review else None
                    outputs = await reviewer.decided_before(attempt, decision)
                    known = None
                    if step.has_readings and has_fields(tools.reply):
                        known = await known_fields(attempt, decision, tools.reply)
                        if outputs is None and known.makes_outputs(step) and not attempt.is_forced:
                            evidence = await tools.reply.evidence(known.answer)
                            outputs = known.as_outputs(step.kind, evidence)
                    if outputs is None and step.is_taught:
                        tools = await taught_tools(attempt, params, tools)
                    is_asked = outputs is None
                    if outputs is None and step.escalate is not None:  # 4
                        outputs = await self._escalated(attempt, params, tools)
                    elif outputs is None:
                        async with time_limit(_limit_s(step)):
                            output: Output = await step.kind().run(params, tools)
                        outputs = await reviewer.calibrated(attempt, output)
                    if step.review is not None:  # 5
                        faults = list[str]()
                        if is_asked and (over := known or decision) is not None:
                            outputs, faults = await reviewer.with_known(outputs, over, tools)
                        outputs = await reviewer.review_answer(
                            attempt, outputs, tools, known, decision, faults
                        )
                    if isinstance(tools.reply, ScopedReply):  # 6
                        mark_labels(attempt, outputs)
                        if (labels := tools.reply.labels) is not None:
                            for _ in range(labels.n_at_border(outputs.get("output"))):
                                tools.log.tally("answer", AT_BORDER)
                    attempt.record.note_answer(outputs)
                    result = step_outputs(step, scope, outputs)
                    break
                except StepSkipped:
                    break
                except _OF_INNER:
                    raise
                except (Exception, SystemExit) as error:  # 7: of any kind, also a bug
                    cause = self._cause_of_retry(attempt, error, n_retries)
                    attempt.n_refused += cause is Cause.CHECK
                    chance = SystemRandom().random()
                    await asyncio.sleep(retry_pause_s(step.retry, cause, n_retries, chance))
            if item.is_of_item and step.facts.lists and result is not None:  # 8
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

    def _tools(self, attempt: StepAttempt) -> Tools:
        step, scope = attempt.step, attempt.scope
        tools = item_tools(attempt, attempt.item.outputs)
        if (form := step.reply) is not None:
            finder = EvidenceFinder.of(form.evidence, form.schema, scope, tools)
            tools = replace(tools, reply=ScopedReply(form, scope, finder))
        if step.inner is not None and self._sub_pipelines is not None:
            calls = replace(tools.calls, pipelines=self._sub_pipelines(attempt))
            tools = replace(tools, calls=calls)
        return tools

    def _cause_of_retry(self, attempt: StepAttempt, error: BaseException, n_retries: int) -> Cause:
        """Return the cause by which a step is tried again, as its `retry` says.

        Raises:
            StepFailed: it is not.
            ItemWaits: what it writes is another item's.
            RunStopped: every other item would meet the error, too.
        """
        if isinstance(error, OutputTaken):
            raise ItemWaits(error.why, ItemState.BLOCKED) from error
        step, limit_s = attempt.step, _limit_s(attempt.step)
        if isinstance(error, TimeoutError) and limit_s is not None:
            error = DeadlineExceeded("total", limit_s)
        if isinstance(error, OSError) and may_pass(error):
            error = os_refusal("the step failed", error)
        if isinstance(error, StepError | EngineError):
            stop_if_fatal(error, step)
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


def _limit_s(step: BoundStep) -> float | None:
    """Return the time limit of a step; a model's begins when the pool has the request."""
    return None if step.kind.roles else step.timeout.total
