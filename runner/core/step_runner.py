"""Run a step for one item: its tries, its larger model, what a person decides on its answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from random import SystemRandom
from typing import Any

from paddock.engine.errors import DeadlineExceeded, EngineError
from paddock.engine.system.tasks import time_limit
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.typed_rows import without_types
from paddock.runner.answers.evidence import EvidenceFinder
from paddock.runner.answers.offered_labels import AT_BORDER
from paddock.runner.answers.scoped_reply import ScopedReply
from paddock.runner.bind.bound import BoundBlock, BoundStep
from paddock.runner.bind.parameters import BindError
from paddock.runner.bind.scope import Scope, WithFiled
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.progress.drain import StopGateClosed
from paddock.runner.progress.item_states import ItemState
from paddock.steps.base import Output, OutsideRoots, StepError, StepSkipped, SubPipelines, Tools

from .answer_reviewer import AnswerReviewer
from .calls.recorded_calls import PutOff
from .escalation import EscalationPass, escalated
from .failures import (
    Cause,
    RunStopped,
    StepFailed,
    cause_of,
    max_retries,
    retry_pause_s,
    stop_if_fatal,
)
from .item_attempt import ItemAttempt
from .reviews.run_reviews import AwaitingReview
from .run_context import RunContext
from .run_records import StepRecord, read_lineage
from .step_tools import item_tools, labelled_tools, mark_labels, taught_tools
from .traces.dependencies import note_listing
from .traces.filed_results import of_own_rows, with_filed_rows

SubPipelinesFor = Callable[[BoundStep, ItemAttempt], SubPipelines]
"""(step, the item for which it runs) → runner of its sub-pipeline."""
_OF_INNER = (StepFailed, RunStopped, StopGateClosed, PipelineError, AwaitingReview, PutOff)
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


def result_with_filed(block: BoundBlock, scope: Scope, last: Any) -> Any:
    """Return what an item's result is with what its pipelines filed; None: they filed nothing."""
    with_filed = scope.with_filed({node.id for node in block.body})
    if with_filed is None:
        return None
    return item_result(block, with_filed, last.with_filed if isinstance(last, WithFiled) else last)


def step_outputs(step: BoundStep, scope: Scope, outputs: Mapping[str, Any]) -> Any:
    """Return a step's outputs as its `returns` has them."""
    if step.returns is None:
        return outputs
    scope = scope.with_step(step.id, outputs)
    values, with_filed = step.returns.render(scope), scope.with_filed({step.id})
    return values if with_filed is None else WithFiled(values, step.returns.render(with_filed))


class StepRunner:
    """Runs single steps, outside of blocks or of an item."""

    def __init__(self, context: RunContext, sub_pipelines: SubPipelinesFor | None = None) -> None:
        """`sub_pipelines`: None while planning, where the pipelines of steps do not run."""
        self.context = context
        self._sub_pipelines = sub_pipelines
        self.stats = context.stats

    @cached_property
    def _reviewer(self) -> AnswerReviewer:
        return AnswerReviewer(self.context)

    async def step(self, step: BoundStep, scope: Scope, attempt: ItemAttempt) -> Any:
        """Run a step with its retries; return its outputs, None: it left itself out.

        1. It is noted as begun, with the answers to it that a person has rejected.
        2. Its tools. Its parameters; the files that they name are marked before it reads them.
        3. The labels that it may choose from, and the examples of its prompt.
        4. Its outputs, or those that a person has decided on since; of its larger model, where its
           own is not sure enough.
        5. What a person decides, or has decided, on its answer.
        6. The labels that it chose; its outputs as its `returns` has them.
        7. It failed: 2 to 6 are tried again, or not. What a pipeline of it ends with is raised.
        8. A folder that it listed for this item alone is marked.

        Raises:
            StepFailed: it did not succeed.
            RunStopped: nothing else will succeed.
            ClaimLost: another machine has taken the item over; the step was not begun.
            AwaitingReview, PutOff, StopGateClosed, PipelineError: of it, or of what it runs.
        """
        context, stats = self.context, self.stats
        await context.fence()
        if step.kind.roles:  # 1
            stats.item_state(attempt.node.id, attempt.shown_key, ItemState.RUNNING, step.id)
        caller = context.caller(attempt.scope_id, step, attempt.shown_key, attempt.node.id)
        caller.before = attempt.calls_before(step.id)
        attempt.callers.append(caller)
        record = StepRecord.begin(step, caller.calls)
        attempt.steps.append(record)
        result, n_refused = None, 0
        try:
            if step.review is not None:
                n_refused = await self._reviewer.n_rejected(step, scope, attempt)
            for n_retries in itertools.count():
                try:
                    tools = item_tools(context, step, caller, attempt, scope)  # 2
                    tools = replace(tools, n_refused=n_refused) if n_refused else tools
                    if (form := step.reply) is not None:
                        finder = EvidenceFinder.of(form.evidence, form.schema, scope, tools)
                        tools = replace(tools, reply=ScopedReply(form, scope, finder))
                    if step.inner is not None and self._sub_pipelines is not None:
                        tools = replace(tools, pipelines=self._sub_pipelines(step, attempt))
                    params = step.params.render(scope, with_filed_rows(step, scope))
                    await attempt.note_files(context, step.kind().reads(params), tools.roots)
                    if form is not None and step.choices:  # 3
                        tools = await labelled_tools(context, step, tools, scope, attempt)
                    if step.is_taught:
                        tools = await taught_tools(context, step, params, tools, scope, attempt)
                    outputs: dict[str, Any] | None = None  # 4
                    if step.review is not None and attempt.is_decided and not caller.looks_up:
                        outputs = await self._reviewer.decided_before(step, attempt)
                        if outputs:  # with the calls of the run that made them
                            lineage = LineageStore(context.ledger)
                            row = await context.ledger.ask(
                                lineage.of_item, attempt.scope_id, attempt.key
                            )
                            for past in read_lineage(row.made)[1] if row is not None else ():
                                if past.id == step.id:
                                    record.escalated = past.escalated
                                    known = (replace(call, is_known=True) for call in past.calls)
                                    caller.calls.extend(known)
                    if outputs is None:
                        ask = self._answer if step.escalate is None else self._escalated_answer
                        outputs = await ask(step, params, tools, scope, attempt)
                    answered = step
                    if outputs.get("escalated") is not None and step.escalate is not None:
                        record.model, answered = step.escalate.to.ref, step.escalated
                    if step.review is not None:  # 5
                        outputs = await self._reviewer.decided(
                            answered, scope, attempt, outputs, tools
                        )
                    if form is not None:  # 6
                        mark_labels(context, answered, scope, attempt, outputs)
                    if isinstance(tools.reply, ScopedReply) and tools.reply.labels is not None:
                        for _ in range(tools.reply.labels.n_at_border(outputs.get("output"))):
                            tools.log.tally("answer", AT_BORDER)
                    record.note_answer(outputs)
                    if step.inner is not None and attempt.with_filed is not None:
                        outputs = WithFiled(outputs, attempt.with_filed)
                    attempt.with_filed = None
                    own = of_own_rows(answered, scope, outputs) if step.facts.marks else outputs
                    result = step_outputs(answered, scope, own)
                    break
                except StepSkipped:
                    break
                except (StepError, EngineError) as error:  # 7
                    stop_if_fatal(error, step)
                    cause = cause_of(error)
                    if n_retries >= max_retries(step.retry, cause):
                        raise StepFailed(step.id, str(error), cause=cause) from error
                    n_refused += cause is Cause.CHECK
                    chance = SystemRandom().random()
                    await asyncio.sleep(retry_pause_s(step.retry, cause, n_retries, chance))
                except (ExpressionError, BindError, OutsideRoots) as error:
                    raise StepFailed(step.id, str(error)) from error
                except LedgerError as error:
                    raise RunStopped(str(error)) from error
                except _OF_INNER:
                    raise
                except (Exception, SystemExit) as error:  # a bug, or a damaged ledger
                    if (damage := context.ledger.damage_behind(error)) is not None:
                        raise RunStopped(str(damage)) from error
                    stats.unexpected(f"{attempt.shown_key}, step '{step.id}'", error)
                    is_missing = isinstance(error, ModuleNotFoundError)
                    cause, why = Cause.MISSING if is_missing else Cause.OTHER, type(error).__name__
                    raise StepFailed(step.id, f"{why}: {error}", cause=cause) from error
            if attempt.is_of_item and step.facts.lists and result is not None:  # 8
                files = None if step.returns is not None else result["files"]
                params, roots = step.params.render(scope), context.bound.roots
                owned = context.index.owned(roots.base) if files is None else frozenset()
                noted, world = attempt.dependencies, context.judge.world
                await asyncio.to_thread(note_listing, noted, world, params, files, roots, owned)
        except (StepFailed, RunStopped, PipelineError):
            record.state = "failed"
            raise
        else:
            record.state = "skipped" if result is None else "done"
            return result
        finally:  # also where a person has to decide: it is done, but for that
            record.end()
            stats.add_step(record)

    async def _escalated_answer(
        self, step: BoundStep, params: Any, tools: Tools, scope: Scope, attempt: ItemAttempt
    ) -> dict[str, Any]:
        """Return the answer of the larger model, where that of the step's own is not enough."""
        assert step.escalate is not None
        first = None
        try:  # a refused answer is asked for again of the larger model alone
            first = await self._answer(step, params, replace(tools, n_refused=0), scope, attempt)
        except StepError as error:
            if cause_of(error) is not Cause.CHECK:
                raise
        try:
            why = escalated(step, scope, attempt.shown_key or attempt.key, first, tools.n_refused)
        except ExpressionError as error:
            raise StepFailed(step.id, f"`escalate.when`: {error}") from error
        if why is None:
            assert first is not None
            return first
        try:
            escalation_pass = attempt.around_steps.escalation_pass or EscalationPass()
            with escalation_pass.defer_calls(attempt.callers[-1], step.id):
                larger = step.escalated
                params = larger.params.render(scope)
                answer = await self._answer(larger, params, tools, scope, attempt)
        except StepError as error:
            what = f"it was escalated to '{why.alias}': {error.reason}"
            raise StepError(
                what, remedy=error.remedy, is_fatal=error.is_fatal, kind=error.kind
            ) from error
        attempt.steps[-1].escalated = why.is_check, why.is_changed(answer)
        return why.outputs(tools.log, answer)

    async def _answer(
        self, step: BoundStep, params: Any, tools: Tools, scope: Scope, attempt: ItemAttempt
    ) -> dict[str, Any]:
        """Run the code of a step once, with its time limit; calibrate its confidence."""
        # A model's time counts from when the pool takes the request, so the pool enforces it.
        limit_s = None if step.kind.roles else step.timeout.total
        try:
            async with time_limit(limit_s):
                output: Output = await step.kind().run(params, tools)
        except TimeoutError as error:
            if limit_s is None:
                raise
            raise DeadlineExceeded("total", limit_s) from error
        outputs: dict[str, Any] = output.model_dump(mode="json")
        if step.reply is None or outputs.get("confidence") is None:
            return outputs
        return await self._reviewer.calibrated(step, scope, attempt, outputs)
