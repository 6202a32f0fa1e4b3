"""Estimate the items of a block, and the steps of one as `ItemWalk` meets them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from paddock.engine.system.item_samples import SEED, draw
from paddock.engine.system.records import Struct, replace
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.input_values import WrongInput
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from paddock.runner.bind.node_reads import read_by
from paddock.runner.bind.parameters import RenderError
from paddock.runner.bind.plan_walks import all_steps
from paddock.runner.bind.scope import Scope
from paddock.runner.core.block_state import OUTERMOST, BlockState, EnclosingItems, opened_block
from paddock.runner.core.failures import ItemWaits, StepFailed
from paddock.runner.core.item_attempt import ItemAttempt, StepAttempt
from paddock.runner.core.readings import Readings, outputs_seen, readings_of_person
from paddock.runner.core.reviews.decided_outputs import decided_outputs
from paddock.runner.core.run_context import RunContext
from paddock.runner.core.standing_decisions import note_reviews
from paddock.runner.core.step_runner import item_result, step_outputs
from paddock.runner.core.step_tools import sub_pipeline_context
from paddock.runner.core.traces.block_work import ItemWork
from paddock.runner.core.traces.verify import Case, ItemVerdict
from paddock.runner.core.walk import ItemWalk, is_skipped, leave_unused
from paddock.runner.progress.item_states import ItemState
from paddock.steps.base import PLACEHOLDER, StepError
from paddock.steps.run_pipeline import named_outputs

from .call_bounds import NO_CALLS, CallBounds, calls_of_body, calls_of_many, calls_of_step
from .doubt import Doubt, DoubtPropagation, Estimate, ItemEnds, may_read_files
from .forecast import PlanForecast
from .step_estimate import StepEstimator


class ItemEstimator(Struct):
    """Walks the steps of one item, or of a pipeline that one of them runs, without effects."""

    forecast: PlanForecast
    context: RunContext
    propagation: DoubtPropagation
    """What is in doubt about the steps so far; at first, about those around them."""
    enclosing: EnclosingItems = OUTERMOST
    attempt: ItemAttempt | None = None
    """At the item; None: of a whole pipeline, whose steps are items or have none."""
    calls: CallBounds = NO_CALLS

    async def walk(self, body: Iterable[BoundNode], scope: Scope) -> ItemWalk:
        """Estimate all of these nodes.

        Raises:
            ItemEnds: one of them surely fails.
        """
        walk = ItemWalk(body, scope)
        for node in walk.nodes(self.skip):
            failure = None
            try:
                if isinstance(node, BoundBlock):
                    estimated = await self._block(node, walk.scope)
                else:
                    estimated = await self.estimate(node, walk.scope)
            except ItemEnds as end:
                failure, estimated = end, Estimate(end.calls, may_fail=True)
            estimated = self.propagation.note(node, estimated)
            self.calls += estimated.calls
            if failure is not None and self.propagation.is_sure(node):
                raise failure
            walk.hand_on(node, estimated.outputs)
        return walk

    async def result(self, block: BoundBlock, item: ItemWork, around: Scope) -> Any:
        """Return the result of an item of a block, with placeholders; None: it surely has none."""
        doubt_of = self.propagation.of
        try:
            walk = await self.walk(block.body, item.scope_in(block, around))
            if block.keep is not None and doubt_of(block.keep.references):
                block = replace(block, keep=None)
            return item_result(block, walk.scope, walk.last)
        except ItemEnds as end:
            if isinstance(end.error, ItemWaits) and end.error.state is ItemState.BLOCKED:
                reasons = (end.error.reason,)
                item.verdict = ItemVerdict(ItemState.BLOCKED, reasons, Case.WAITS)
            return None
        except StepFailed:
            is_surely = block.returns is not None and not doubt_of(block.returns.references)
            return None if is_surely else placeholder_of(item)

    def skip(self, node: BoundNode, scope: Scope) -> bool:
        """Count a node's answer that is not asked for; return whether the node is surely skipped.

        Raises:
            ItemEnds: its `if` cannot be evaluated.
        """
        upheld = frozenset[str]() if self.attempt is None else self.attempt.upheld
        if self.propagation.of_condition(node):
            return False
        try:
            if is_skipped(node, scope, upheld):
                return True
        except StepFailed as error:
            raise ItemEnds(error) from error
        key = "/".join(self.enclosing.keys)
        return not self.propagation.of_use(node) and leave_unused(
            node, scope, self.context.stats, key, upheld
        )

    async def _block(self, block: BoundBlock, scope: Scope) -> Estimate:
        """Estimate a block within the item: its own items may be fresh.

        Raises:
            ItemEnds: it surely fails, unless it is not done.
        """
        doubt_of = self.propagation.of
        if doubt_of(block.over.references):  # so is how many items it has
            return Estimate(calls_of_many(block.body))
        if doubt_of(read_by(block.where, block.key)):
            block = replace(block, where=None, key=None)  # at most all of the list
        try:
            state = await opened_block(
                self.context, block, scope, enclosing=self.enclosing, keeps_results=True
            )
        except (ExpressionError, PipelineError) as error:
            raise ItemEnds(error) from error
        estimated = await estimate_block(self.forecast, self.context, state, self.propagation)
        if doubt_of(block.reads.all):
            return replace(estimated.if_done(), doubt=Doubt.VALUES)
        return estimated

    # --- one step

    async def estimate(self, step: BoundStep, scope: Scope) -> Estimate:
        """Estimate a step that is not skipped.

        1. It runs a pipeline, whose steps are walked as the item's are.
        2. At the top of such a pipeline a step with a trace is an item, and may be fresh.
        3. Any other step is carried out, as far as that has no effects.

        Raises:
            ItemEnds: it surely fails, unless it is not done; or its answer was rejected.
        """
        context, enclosing = self.context, self.enclosing
        kept = None if self.attempt is None else self.attempt.kept.get(step.id)
        if kept is not None:
            return Estimate(outputs=kept, doubt=Doubt.NONE)
        doubt = self.propagation.of(step.reads.all) | self.propagation.files
        attempt = self.attempt or ItemAttempt.of(context, step, enclosing)
        if step.inner is not None:  # 1
            return await self._pipeline(step, scope, attempt, doubt)
        if self.attempt is not None or not step.has_trace:  # 3
            return await self.carried_out(step, scope, attempt, doubt)
        state = await opened_block(
            context, step, scope, enclosing=enclosing, keeps_results=True
        )  # 2
        (work,) = state.work.items
        of_trace = doubt if may_read_files(step) else doubt & ~Doubt.FILES
        if not (state.items_to_do() or of_trace):
            if state.wait is not None:
                raise ItemEnds(state.wait)
            return Estimate(outputs=work.result, doubt=Doubt.NONE)
        attempt = ItemAttempt.of_item(context, state, work)
        note_reviews(context.judge.reviews, attempt, [step], scope)
        estimated = await self.carried_out(step, scope, attempt, doubt)
        if of_trace and work.entry is not None:
            return estimated.if_done()
        return estimated

    async def carried_out(
        self, step: BoundStep, scope: Scope, attempt: ItemAttempt, doubt: Doubt
    ) -> Estimate:
        """Estimate a step that has work to do; `doubt` is about what it reads.

        1. A person has decided on its answer: it is the one that they saw.
        2. Any other is tried, or bounded by the YAML (`StepEstimator`).
        3. A person rejected the answer: the item ends; at the top level, what reads it is left.
        4. A person accepted or edited it: the decision is applied.

        Raises:
            ItemEnds: it surely fails, or its answer was rejected.
        """
        of_step, by_person = StepAttempt.begin(self.context, step, scope, attempt), Readings()
        with suppress(StepError):  # a list of labels that a run cannot read either
            by_person = readings_of_person(of_step)
        review = attempt.reviews.get(step.id) if by_person.decision or attempt.is_decided else None
        seen = outputs_seen(of_step, by_person)
        if seen is not None:  # 1
            estimated = Estimate(outputs=seen, doubt=Doubt.NONE)
        else:  # 2
            estimated = await StepEstimator(self.forecast, of_step, doubt).estimate_step()
        if review is not None and review.state == "rejected":  # 3
            if not attempt.is_of_item:
                return replace(estimated, outputs=None, doubt=Doubt.NONE)
            raise ItemEnds(StepFailed(step.id, "its answer was rejected"), estimated.calls)
        if by_person.decision is not None and by_person.is_decided and estimated.outputs:  # 4
            has_schema = step.reply is not None and step.reply.schema is not None
            outputs = decided_outputs(estimated.outputs, by_person.decision, has_schema)
            estimated = replace(estimated, outputs=outputs)
        return estimated

    async def _pipeline(
        self, step: BoundStep, scope: Scope, attempt: ItemAttempt, doubt: Doubt
    ) -> Estimate:
        try:
            inputs = step.params.render(scope).inputs
            context = sub_pipeline_context(self.context, step, attempt, inputs)
        except (RenderError, WrongInput) as error:
            if not doubt:
                raise ItemEnds(error) from error
            return Estimate(calls_of_step(step))
        bound, propagation = context.bound, DoubtPropagation(files=self.propagation.files)
        within = ItemEstimator(self.forecast, context, propagation, attempt.enclosing)
        try:
            start = Scope.of(bound.inputs, context.stats.secrets.of(bound.file), bound.moment)
            end = (await within.walk(bound.nodes, start)).scope
        except ItemEnds as failure:
            if doubt:
                return Estimate(calls_of_step(step), may_fail=True)
            raise ItemEnds(failure.error, within.calls) from failure
        is_known, outputs = not (doubt or propagation.nodes), dict[str, Any]()
        try:
            outputs = pipeline_outputs(step, bound, end, scope)
        except ExpressionError:
            is_known = False
        calls = within.calls.at_most() if doubt else within.calls
        return Estimate(
            calls, outputs, Doubt.NONE if is_known else Doubt.VALUES, within=propagation
        )


async def estimate_block(
    forecast: PlanForecast, context: RunContext, state: BlockState, around: DoubtPropagation
) -> Estimate:
    """Estimate every stale item, in a random order, until the time is over.

    What is left then is bounded by the YAML, or taken to be like those that were walked. `around`:
    what is in doubt about the steps around the block.
    """
    block, todo, deadline = state.block, state.items_to_do(), forecast.deadline_of_items
    calls, n_walked, clock = NO_CALLS, 0, asyncio.get_running_loop().time
    for item in todo:
        item.result = placeholder_of(item)
    for item in sorted(todo, key=lambda item: draw(SEED, item.key)):
        if clock() >= deadline:  # where nothing waits, nothing else ends it
            break
        attempt = ItemAttempt.of_item(context, state, item)
        own = item.scope_in(block, state.scope)
        note_reviews(context.judge.reviews, attempt, block.body, own)
        propagation = DoubtPropagation(nodes={**around.nodes}, files=around.files)
        steps = ItemEstimator(forecast, context, propagation, attempt.enclosing, attempt)
        try:
            async with asyncio.timeout_at(deadline) as limit:
                item.result = await steps.result(block, item, state.scope)
        except TimeoutError:  # also of a file on a share that does not answer
            if not limit.expired():
                raise
            break
        calls, n_walked = calls + steps.calls, n_walked + 1
    n_left = len(todo) - n_walked
    rest = calls_of_body(block.body).of_items(n_left)
    is_average = rest.n_likely is None and calls.n_likely is not None and n_walked > 0
    calls += calls.scaled(n_left / n_walked) if is_average else rest
    # Where no item surely has a result, what reads the block may be left.
    checked = (step.reply is not None and step.reply.checks for step in all_steps(block.body))
    has_result = any(item.has_result for item in state.work.items)
    may_fail = not has_result and (any(checked) or all(item.result is None for item in todo))
    doubt = Doubt.VALUES if todo else Doubt.NONE
    return Estimate(calls, dict(state.outputs()), doubt, may_fail=may_fail)


def placeholder_of(item: ItemWork) -> dict[str, str]:
    """Return a result that differs for each item: so do the prompts that a step makes of them."""
    return {"text": f"{PLACEHOLDER} {item.key}"}


def pipeline_outputs(step: BoundStep, bound: BoundPlan, inner: Scope, scope: Scope) -> Any:
    """Return the outputs of a step that runs a pipeline; `inner`: the pipeline's scope at its end.

    Raises:
        ExpressionError: a `returns` failed.
    """
    returned = None if bound.returns is None else bound.returns.render(inner)
    return step_outputs(step, scope, named_outputs(returned))
