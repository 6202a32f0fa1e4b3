"""Estimate one step of an item: its calls and outputs, without its effects.

Steps that only read are tried, with tools of a dry run (`dry_tools`). Steps that change something,
call tools or come from unknown plug-ins are bounded by the YAML alone.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from paddock.engine.errors import EngineError
from paddock.pipelines.expressions import ExpressionError
from paddock.runner.answers.evidence import EvidenceFinder
from paddock.runner.bind.bound import BoundStep
from paddock.runner.bind.parameters import BindError
from paddock.runner.core.answer_reviewer import AnswerReviewer
from paddock.runner.core.escalation import Escalated, escalated
from paddock.runner.core.failures import Cause, max_retries
from paddock.runner.core.item_attempt import StepAttempt
from paddock.runner.core.step_runner import step_outputs
from paddock.runner.core.step_tools import item_tools, taught_as, taught_tools
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
from paddock.steps.facts import TreeBounds

from .call_bounds import (
    CallBounds,
    between_lengths,
    calls_of_step,
    divided,
    models_of,
    with_repairs,
)
from .doubt import Doubt, Estimated, ItemEnds, can_try
from .dry_tools import AskedPrompts, DryOutputs, DryPool, DryReply, DryStores, without_texts
from .plan_so_far import PlanSoFar

_STEP_ERRORS = (StepError, EngineError, ExpressionError, OutsideRoots, ReplyNotCached)


@dataclass(frozen=True, slots=True)
class StepEstimate:
    """Estimates a step of one item, with its own model and with a larger one."""

    plan: PlanSoFar
    attempt: StepAttempt
    doubt: Doubt
    """About its parameters, and the files and stores that it may read."""

    async def estimated(self) -> Estimated:
        """Estimate a step that is not skipped.

        1. Its answer may be asked for again of a larger model: both are estimated.
        2. It changes something, or to know its tools is to run them, or their servers: the YAML
           alone bounds it.
        3. It is tried.
        4. How often it asks depends on how long answers are: it is tried with the longest, too.

        Raises:
            ItemEnds: it surely fails.
        """
        step = self.attempt.step
        if step.escalate is not None:  # 1
            return await self._escalated()
        if not can_try(step) or "tools" in step.written:  # 2
            return Estimated(calls_of_step(step))
        n_before = len(self.plan.prompts.items)
        estimated = await self._tried(self.plan.prompts)  # 3
        if step.facts.is_sized(step.written) and (
            self.doubt or not self.plan.prompts.is_local or estimated.forecast.n_new > 1
        ):  # 4
            before = self.plan.prompts.as_of(n_before)
            longest = await self._tried(before, is_long=True)
            estimated = replace(estimated, calls=between_lengths(estimated.calls, longest.calls))
        return estimated

    async def _escalated(self) -> Estimated:
        """Estimate a step with its own model, then with the larger one where that may be asked.

        Raises:
            ItemEnds: it surely fails.
        """
        due: Escalated | None = None
        attempt, step, scope = self.attempt, self.attempt.step, self.attempt.scope
        item = attempt.item.shown_key or attempt.item.key
        n_refused = await AnswerReviewer(attempt.context).n_rejected(attempt)
        try:
            # A refused answer is asked for again of the larger model alone.
            own_step = replace(step, escalate=None, review=None)
            own = await replace(self, attempt=replace(attempt, step=own_step)).estimated()
            if not own.doubt and own.outputs and step.returns is None:
                with contextlib.suppress(ExpressionError):
                    due = escalated(step, scope, item, own.outputs, n_refused)
                    if due is None:
                        return own
        except ItemEnds as end:
            if not end.is_check:
                raise
            own, due = Estimated(), escalated(step, scope, item, None)
        try:
            larger = await replace(self, attempt=attempt.with_larger_model()).estimated()
        except ItemEnds as end:
            end.calls = own.calls
            if due is not None:
                raise
            return replace(own, doubt=Doubt.VALUES, may_fail=True)
        if due is not None:
            outputs = larger.outputs and {**larger.outputs, "escalated": due.origin}
            return replace(larger, calls=own.calls + larger.calls, outputs=outputs)
        calls = own.calls + larger.calls.at_most()
        return Estimated(calls, own.outputs, forecast=larger.forecast)

    async def _tried(self, prompts: AskedPrompts, *, is_long: bool = False) -> Estimated:
        """Carry out a step that only reads, with a pool that asks no model.

        1. Its parameters cannot be filled in: if anything is in doubt, that may be why, and the
           YAML alone bounds it; else it surely fails.
        2. It counts a tree of calls itself (`foresee`), or runs, with placeholders for answers.
        3. It failed. Nothing is in doubt, and no retry may pass its checks: so it will in the run.
        4. It failed over what may be there by then: the YAML alone bounds it.
        5. Its calls are those of the pool and its tree. Its outputs are in doubt where anything is.

        `is_long`: each unknown answer is the longest.

        Raises:
            ItemEnds: it surely fails.
        """
        attempt, context = self.attempt, self.attempt.context
        step, scope = attempt.step, attempt.scope
        kind, facts = step.kind(), step.facts
        try:
            params = step.params.render(scope)
        except BindError as error:  # 1
            if not self.doubt:
                raise ItemEnds(error) from error
            return Estimated(calls_of_step(step))
        reads_files, searches = bool(facts.lists or kind.reads(params)), bool(facts.searches)
        doubt = self.doubt if reads_files or searches else self.doubt & ~Doubt.FILES
        may_be_filled = self.plan.fills_stores and searches
        has_tree, caller = facts.tree is not None, attempt.caller
        pool = DryPool(context, caller, prompts, doubt, is_long=is_long, in_tree=has_tree)
        reviewer = AnswerReviewer(context)
        attempt.n_refused = await reviewer.n_rejected(attempt)
        tree: CallForecast | None = None
        outputs: Any = {}
        has_failed = False
        try:  # 2
            await attempt.item.note_files(context, kind.reads(params), context.bound.roots)
            tools = await self._tools(params, pool)
            if has_tree:
                tree = await kind.foresee(params, tools)
            if tree is not None and tree.n_new:
                found = dict.fromkeys(("output", "evidence", "confidence")) | {"text": PLACEHOLDER}
            else:
                output = await kind.run(params, tools)
                found = await reviewer.calibrated(attempt, output)
                if may_be_filled and doubt:  # rows of the run may be nearer than those found now
                    found["hits"] = [{**hit, "text": PLACEHOLDER} for hit in found["hits"]]
                if reads_files and Doubt.FILES in doubt:
                    found = without_texts(found)
            outputs = step_outputs(step, scope, found)
        except StepSkipped:
            if pool.is_in_doubt:  # what it reads may be there by then
                return Estimated(pool.calls, doubt=Doubt.VALUES | Doubt.IF_DONE)
            outputs = None
        except Exception as error:  # of any kind, as a run takes it: also a defect of a plug-in
            has_failed = True
            if isinstance(error, StepError) and error.is_fatal and not doubt:
                context.stats.note(f"The run will stop at step '{step.id}': {error}")
            may_pass = bool(step.kind.roles) and max_retries(step.retry, Cause.CHECK) > 0
            if not (pool.is_in_doubt or may_be_filled or may_pass):
                raise ItemEnds(error) from error  # 3
            if (doubt or may_be_filled) and not is_long:
                return Estimated(between_lengths(pool.calls, calls_of_step(step)))  # 4
        return Estimated(
            _calls(step, params, pool, tree, is_in_parts=has_failed and is_long),  # 5
            outputs,
            Doubt.VALUES if pool.is_in_doubt or has_failed else Doubt.NONE,
            tree or CallForecast(pool.n_known + pool.calls.most.total(), pool.n_known),
        )

    async def _tools(self, params: Any, pool: DryPool) -> Tools:
        """Return what a step is given while it is tried, which asks and writes nothing.

        Of examples and labels that are not known yet, a placeholder stands for the examples.
        """
        attempt, context = self.attempt, self.attempt.context
        step, scope, tools = attempt.step, attempt.scope, item_tools(attempt)
        outputs, stores = DryOutputs(tools.outputs), DryStores(context.world.stores, pool)
        tools = replace(tools, pool=pool, outputs=outputs, stores=stores)
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
            taught = replace(tools, examples=(Example(PLACEHOLDER, PLACEHOLDER),))
        return taught


def _calls(
    step: BoundStep, params: Any, pool: DryPool, tree: CallForecast | None, *, is_in_parts: bool
) -> CallBounds:
    """Return the calls of a step that was tried, with those that repairs may add.

    1. It counted a tree of calls (`foresee`). The pool was only asked for prompts without unknown
       answers: `reduce` over 20 texts asks it for 3 of 4 calls, and the last one comes later.
       Where the groups of `by` are not known, each text may be one: so many calls are extra.
    2. A text was read in parts, and it failed, since the longest answers never get shorter: at
       most a tree over all parts. After 5 of them these are 11 calls.
    3. Any other step: those that it asked the pool for, such as the 1 of a `chat`.
    """
    counted, is_local = pool.calls, pool.prompts.is_local
    by_model, n_counted = counted.most or models_of(step), counted.most.total()
    bounds = TreeBounds(2 * n_counted + 1) if step.facts.tree is None else step.facts.tree(params)
    if tree is not None:  # 1
        in_groups = bounds.in_groups if pool.reads_unknown and tree.n_new else 0
        later = divided(tree.n_new - n_counted, by_model)
        may_be_known = pool.prompts.has_history or pool.asked_equal or in_groups
        calls = counted + CallBounds(later, Counter() if may_be_known else later)
        calls = with_repairs(step, calls, is_local=is_local)
        return replace(calls, n_extra=max(calls.n_extra, in_groups - tree.n_new))
    if is_in_parts:  # 2
        most = divided(bounds.in_parts, by_model)
        return with_repairs(step, CallBounds(most), is_local=is_local)
    return with_repairs(step, counted, is_local=is_local)  # 3
