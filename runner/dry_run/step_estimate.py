"""Estimate one step of an item: its calls and outputs, without its effects.

Steps that only read are tried, with tools of a dry run (`dry_tools`). Steps that change something,
call tools or come from unknown plug-ins are bounded by the YAML alone.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any

from paddock.engine.errors import EngineError
from paddock.engine.system.records import Struct, replace
from paddock.pipelines.expressions import ExpressionError
from paddock.runner.answers.evidence import EvidenceFinder
from paddock.runner.bind.bound import BoundStep
from paddock.runner.bind.parameters import RenderError
from paddock.runner.bind.plan_walks import only_reads
from paddock.runner.core.answer_reviewer import AnswerReviewer
from paddock.runner.core.escalation import Escalated, escalation_reason
from paddock.runner.core.failures import Cause, RunStopped, max_retries
from paddock.runner.core.item_attempt import StepAttempt
from paddock.runner.core.readings import has_fields, readings_of_document, readings_of_person
from paddock.runner.core.step_runner import step_outputs
from paddock.runner.core.step_tools import item_tools, taught_as, taught_tools
from paddock.runner.ledger.entries import LedgerError
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

from .call_bounds import (
    CallBounds,
    between_lengths,
    calls_of_step,
    divide_calls,
    models_of,
    with_repairs,
)
from .doubt import Doubt, Estimate, ItemEnds
from .dry_tools import AskedPrompts, DryOutputs, DryPool, DryReply, DryStores, without_texts
from .forecast import PlanForecast

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
            with contextlib.suppress(StepError):  # what is not known yet may be no text
                finder = EvidenceFinder.of(form.evidence, form.schema, scope, tools)
            with contextlib.suppress(*_STEP_ERRORS):  # nor some list of labels, or vectors
                labels = await context.judge.labels.offered(step, scope, tools)
            tools = replace(tools, reply=DryReply(form, scope, finder, labels, pool=pool))
        if not step.is_taught:
            return tools
        taught = tools
        with contextlib.suppress(*_STEP_ERRORS):
            taught = await taught_tools(attempt, params, tools)
        known = context.judge.reviews.decisions.get(taught_as(context, step))
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
