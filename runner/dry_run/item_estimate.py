"""Estimate the items of a block, and the steps of one as `ItemWalk` meets them.

Steps that only read are tried, with tools of a dry run (`dry_tools`). Steps that change something,
call tools or come from unknown plug-ins are bounded by the YAML alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from paddock.engine.errors import EngineError
from paddock.engine.system.item_samples import SEED, draw
from paddock.engine.system.records import Struct, replace
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.input_values import WrongInput
from paddock.runner.answers.evidence import EvidenceFinder
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from paddock.runner.bind.node_reads import read_by
from paddock.runner.bind.parameters import RenderError
from paddock.runner.bind.plan_walks import all_steps, only_reads
from paddock.runner.bind.scope import Scope
from paddock.runner.core.answer_reviewer import AnswerReviewer
from paddock.runner.core.block_state import OUTERMOST, BlockState, EnclosingItems
from paddock.runner.core.escalation import Escalated, escalation_reason
from paddock.runner.core.failures import Cause, ItemWaits, RunStopped, StepFailed, max_retries
from paddock.runner.core.item_attempt import ItemAttempt, StepAttempt
from paddock.runner.core.opened_blocks import opened_block
from paddock.runner.core.readings import (
    Readings,
    has_fields,
    outputs_seen,
    readings_of_document,
    readings_of_person,
)
from paddock.runner.core.reviews.decided_outputs import decided_outputs
from paddock.runner.core.standing_decisions import note_reviews
from paddock.runner.core.step_tools import item_tools, sub_pipeline_context, taught_tools
from paddock.runner.core.traces.verdicts import Case, ItemVerdict
from paddock.runner.core.walk import ItemWalk, is_skipped, item_result, leave_unused, step_outputs
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.progress.item_states import ItemState
from paddock.steps.base import (
    PLACEHOLDER,
    CallForecast,
    Example,
    OutsideRoots,
    ReplyNotCached,
    StepError,
    StepSkipped,
    Tools,
)
from paddock.steps.effects import StoreRows
from paddock.steps.facts import TreeBounds
from paddock.steps.param_types import InputFolder, SearchedStore
from paddock.steps.run_pipeline import named_outputs

from .call_bounds import (
    NO_CALLS,
    CallBounds,
    between_lengths,
    calls_of_body,
    calls_of_many,
    calls_of_step,
    divide_calls,
    models_of,
    with_repairs,
)
from .doubt import Doubt, DoubtPropagation, Estimate, ItemEnds, may_read_files
from .dry_tools import AskedPrompts, DryOutputs, DryPool, DryReply, DryStores, without_texts

if TYPE_CHECKING:
    from paddock.runner.core.run_context import RunContext
    from paddock.runner.core.traces.block_work import ItemWork

    from .forecast import PlanForecast


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
        item.expected = placeholder_of(item)
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
                item.expected = await steps.result(block, item, state.scope)
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
    may_fail = not has_result and (any(checked) or all(item.expected is None for item in todo))
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


# --- one step

_STEP_ERRORS = (StepError, EngineError, ExpressionError, OutsideRoots, ReplyNotCached)


class StepEstimator(Struct, frozen=True):
    forecast: PlanForecast
    attempt: StepAttempt
    doubt: Doubt
    """About its parameters, and the files and stores that it may read."""

    async def estimate_step(self) -> Estimate:
        """Estimate a step that is not skipped.

        1. Its answer may be asked for again of a larger model: both are estimated.
        2. It changes something, or to know its tools is to run them, or their servers: the YAML
           alone bounds it.
        3. Its parameters cannot be filled in: if anything is in doubt, that may be why, and the
           YAML alone bounds it; else it surely fails.
        4. It is tried.
        5. How often it asks depends on how long answers are: it is tried with the longest, too.

        Raises:
            ItemEnds: it surely fails.
        """
        step, facts = self.attempt.step, self.attempt.step.facts
        if step.escalate is not None:  # 1
            return await self._escalated()
        has_no_effects = only_reads(step) or facts.param(StoreRows) or facts.calls.tree is not None
        if not has_no_effects or "tools" in step.written:  # 2
            return Estimate(calls_of_step(step))
        try:
            params = step.params.render(self.attempt.scope)
        except RenderError as error:  # 3
            if not self.doubt:
                raise ItemEnds(error) from error
            return Estimate(calls_of_step(step))
        prompts, n_before = self.forecast.prompts, len(self.forecast.prompts.items)
        estimated = await self._tried(params, self._pool(params, prompts))  # 4
        if facts.calls.is_sized(step.written) and (
            self.doubt or not prompts.is_local or estimated.call_forecast.n_new > 1
        ):  # 5
            pool = self._pool(params, prompts.as_of(n_before), is_long=True)
            longest = await self._longest_calls(params, pool)
            estimated = replace(estimated, calls=between_lengths(estimated.calls, longest))
        return estimated

    async def _escalated(self) -> Estimate:
        """Estimate a step with its own model, then with the larger one where that may be asked.

        Raises:
            ItemEnds: it surely fails.
        """
        reason: Escalated | None = None
        attempt, step, scope = self.attempt, self.attempt.step, self.attempt.scope
        item = attempt.item.shown_key or attempt.item.key
        try:
            own_step = replace(step, escalate=None)
            own = await replace(self, attempt=replace(attempt, step=own_step)).estimate_step()
            if not own.doubt and own.outputs and step.returns is None:
                try:
                    reason = escalation_reason(step, scope, item, own.outputs)
                except ExpressionError as error:
                    raise ItemEnds(error, own.calls) from error
                if reason is None:
                    return own
        except ItemEnds as end:
            if not (isinstance(end.error, StepError) and end.error.kind == "check"):
                raise
            own, reason = Estimate(), escalation_reason(step, scope, item, None)
        try:
            larger = await replace(self, attempt=attempt.with_larger_model()).estimate_step()
        except ItemEnds as end:
            if reason is not None:
                raise ItemEnds(end.error, own.calls) from end
            return replace(own, doubt=Doubt.VALUES, may_fail=True)
        forecast = own.call_forecast + larger.call_forecast
        if reason is None:
            calls = own.calls + larger.calls.at_most()
            return Estimate(calls, own.outputs, call_forecast=forecast)
        calls = own.calls + larger.calls
        outputs = larger.outputs and {**larger.outputs, "escalated": reason.origin}
        return replace(larger, calls=calls, outputs=outputs, call_forecast=forecast)

    def _pool(self, params: Any, prompts: AskedPrompts, *, is_long: bool = False) -> DryPool:
        """Return a pool that asks no model; files are in doubt only to what reads some."""
        attempt, step, facts = self.attempt, self.attempt.step, self.attempt.step.facts
        reads = facts.param(InputFolder) or facts.param(SearchedStore) or step.kind().reads(params)
        doubt = self.doubt if reads else self.doubt & ~Doubt.FILES
        in_tree = facts.calls.tree is not None
        context, caller = attempt.context, attempt.caller
        return DryPool(context, caller, prompts, doubt, is_long=is_long, in_tree=in_tree)

    async def _tried(self, params: Any, pool: DryPool) -> Estimate:
        """Carry out a step that only reads.

        1. It left itself out: where anything is in doubt, it may be done in the run.
        2. It failed. Nothing is in doubt, and no retry may pass its checks: so it will in the run.
        3. It failed over what may be there by then: the YAML alone bounds it.
        4. Its outputs are in doubt where anything is.

        Raises:
            ItemEnds: it surely fails.
        """
        step = self.attempt.step
        try:
            outputs, tree = await self._carried_out(params, pool)
        except StepSkipped:  # 1
            if pool.is_in_doubt:
                return Estimate(pool.calls, doubt=Doubt.VALUES | Doubt.IF_DONE)
            return Estimate(outputs=None, doubt=Doubt.NONE)
        except (LedgerError, RunStopped):
            raise
        except Exception as error:  # of any kind, as a run takes it: also a defect of a plug-in
            if isinstance(error, StepError) and error.is_fatal and not pool.doubt:
                self.attempt.context.stats.note(f"The run will stop at step '{step.id}': {error}")
            may_differ = bool(pool.doubt) or self._may_be_filled
            may_pass = bool(step.kind.roles) and max_retries(step.retry, Cause.CHECK) > 0
            if not (pool.is_in_doubt or may_differ or may_pass):
                raise ItemEnds(error) from error  # 2
            if may_differ:
                return Estimate(between_lengths(pool.calls, calls_of_step(step)))  # 3
            return Estimate(_calls(step, params, pool, None), call_forecast=pool.call_forecast)
        doubt = Doubt.VALUES if pool.is_in_doubt else Doubt.NONE  # 4
        return Estimate(
            _calls(step, params, pool, tree), outputs, doubt, tree or pool.call_forecast
        )

    async def _longest_calls(self, params: Any, pool: DryPool) -> CallBounds:
        """Return the calls of a step if each unknown answer is the longest.

        Where it fails, its text was read in parts that never get shorter: at most a tree over all
        parts. After 5 of them these are 11 calls.
        """
        step = self.attempt.step
        try:
            _, tree = await self._carried_out(params, pool)
        except StepSkipped:
            return pool.calls
        except (LedgerError, RunStopped):
            raise
        except Exception:  # of any kind, also a defect of a plug-in, as in `_tried`
            tree_of, most = step.facts.calls.tree, pool.calls.most
            bounds = tree_of(params) if tree_of else TreeBounds(2 * most.total() + 1)
            calls = CallBounds(divide_calls(bounds.in_parts, most or models_of(step)))
            return with_repairs(step, calls, is_local=pool.prompts.is_local)
        return _calls(step, params, pool, tree)

    async def _carried_out(self, params: Any, pool: DryPool) -> tuple[Any, CallForecast | None]:
        """Return a step's outputs, and its tree of calls where it counts that (`foresee`).

        Placeholders stand for answers, and for what files and rows of the run may have.
        """
        attempt, context, step = self.attempt, self.attempt.context, self.attempt.step
        kind, reviewer = step.kind(), AnswerReviewer(context)
        attempt.n_refused = reviewer.n_rejected(attempt)
        await attempt.item.note_files(context, kind.reads(params), context.bound.roots)
        tools = await self._tools(params, pool)
        if step.has_readings and not pool.doubt and has_fields(tools.reply):
            by_person = readings_of_person(attempt)
            readings = await readings_of_document(by_person, attempt, tools.reply)
            if readings.makes_outputs(step) and not attempt.is_forced:
                found = readings.as_outputs(step.kind, await tools.reply.evidence(readings.answer))
                return step_outputs(step, attempt.scope, found), None
        tree = None if step.facts.calls.tree is None else await kind.foresee(params, tools)
        if tree is not None and tree.n_new:
            found = dict.fromkeys(("output", "evidence", "confidence")) | {"text": PLACEHOLDER}
        else:
            output = await kind.run(params, tools)
            found = await reviewer.calibrated(attempt, output)
            if self._may_be_filled and pool.doubt:  # rows may be nearer than those of now
                found["hits"] = [{**hit, "text": PLACEHOLDER} for hit in found["hits"]]
            elif Doubt.FILES in pool.doubt and not step.has(SearchedStore):
                found = without_texts(found)
        return step_outputs(step, attempt.scope, found), tree

    @property
    def _may_be_filled(self) -> bool:
        return self.forecast.fills_stores and self.attempt.step.has(SearchedStore)

    async def _tools(self, params: Any, pool: DryPool) -> Tools:
        """Return tools for a step that is tried: they ask no model and write nothing.

        Of examples and labels that are not known yet, a placeholder stands for the examples.
        """
        attempt, context = self.attempt, self.attempt.context
        step, scope = attempt.step, attempt.scope
        tools = item_tools(attempt, DryOutputs(context, attempt.item.outputs.items))
        stores = DryStores(context.world.stores, pool)
        tools = replace(tools, llm=replace(tools.llm, pool=pool), stores=stores)
        if (form := step.reply) is not None:
            finder = labels = None
            with suppress(StepError):  # what is not known yet may be no text
                finder = EvidenceFinder.of(form.evidence, form.schema, scope, tools)
            with suppress(*_STEP_ERRORS):  # nor some list of labels, or vectors
                labels = await context.judge.labels.offered(step, scope, tools)
            tools = replace(tools, reply=DryReply(form, scope, finder, labels, pool=pool))
        if not step.is_taught:
            return tools
        taught = tools
        with suppress(*_STEP_ERRORS):
            taught = await taught_tools(attempt, params, tools)
        known = context.judge.reviews.decisions.get(context.judge.scopes.taught_as(step))
        if taught is tools and params.examples.k and known is not None and known.decisions:
            placeholder = (Example(PLACEHOLDER, PLACEHOLDER),)
            taught = replace(tools, llm=replace(tools.llm, examples=placeholder))
        return taught


def _calls(step: BoundStep, params: Any, pool: DryPool, tree: CallForecast | None) -> CallBounds:
    """Return the calls of a step that was tried, with those that repairs may add.

    1. They are those that it asked the pool for, such as the 1 of a `chat`.
    2. It counted a tree of calls (`foresee`), and asked the pool only for prompts without unknown
       answers: `reduce` over 20 texts asks for 3 of 4 calls, and the last one comes later.
    3. The groups of `by` are not known. Each text may be one, and so many calls are extra.
    """
    calls, n_extra, tree_of = pool.calls, 0, step.facts.calls.tree  # 1
    if tree is not None and tree_of is not None:  # 2
        in_groups = 0
        if pool.reads_unknown and tree.n_new > 0:  # 3
            in_groups = tree_of(params).in_groups
            n_extra = in_groups - tree.n_new
        later = divide_calls(tree.n_new - calls.most.total(), calls.most or models_of(step))
        may_be_known = pool.prompts.has_history or pool.asked_equal or in_groups
        calls += CallBounds(later, Counter() if may_be_known else later)
    calls = with_repairs(step, calls, is_local=pool.prompts.is_local)
    return replace(calls, n_extra=max(calls.n_extra, n_extra))
