"""Foresee one step of an item: its calls and outputs, without its effects.

Steps that only read are tried, with a pool, files and stores of their own (`dry_pool`,
`dry_tools`). Steps that change something, call tools or come from unknown plug-ins are bounded by
the YAML alone.
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
from paddock.runner.bind.scope import Scope
from paddock.runner.core.calls.call_cache import CallOrigin
from paddock.runner.core.escalation import escalated
from paddock.runner.core.failures import Cause, max_retries
from paddock.runner.core.item_attempt import ItemAttempt
from paddock.runner.core.run_context import RunContext
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

from .certainty import Certainty, Foreseen, ItemEnds, can_try
from .dry_pool import DryPool, without_texts
from .dry_tools import DryReply, DryStores
from .plan_cost import CallBounds, between_lengths, calls_of_step, models_of, with_repairs
from .plan_so_far import AskedPrompts, PlanSoFar

_STEP_ERRORS = (StepError, EngineError, ExpressionError, OutsideRoots, ReplyNotCached)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Doubt:
    """What a step reads that may be different in the run."""

    is_any: bool
    """Its parameters, its files or the rows that it searches."""
    files: bool
    new_store: bool
    """The run may make the store that it searches."""

    def of(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Return outputs with placeholders for texts that the run may find otherwise."""
        if self.new_store and self.is_any:  # rows that it adds may be nearer than those found now
            outputs["hits"] = [{**hit, "text": PLACEHOLDER} for hit in outputs["hits"]]
        return without_texts(outputs) if self.files else outputs


@dataclass(frozen=True, slots=True)
class StepEstimate:
    """One step of an attempt, tried with its own model and with a larger one."""

    plan: PlanSoFar
    context: RunContext
    attempt: ItemAttempt
    scope: Scope
    reads_unknown: bool
    """Its parameters may have placeholders."""
    has_changed: bool
    """Files and stores may be others by then."""

    async def foresee(self, step: BoundStep) -> Foreseen:
        """Foresee a step that is not skipped.

        1. Its answer may be asked for again of a larger model: both are foreseen.
        2. It changes something, or to know its tools is to run them, or their servers: the YAML
           alone bounds it.
        3. It is tried.
        4. How often it asks depends on how long answers are: it is tried with the longest, too.

        Raises:
            ItemEnds: it surely fails.
        """
        if step.escalate is not None:  # 1
            return await self._escalated(step)
        if not can_try(step) or "tools" in step.written:  # 2
            return Foreseen(calls_of_step(step))
        n_before = len(self.plan.prompts.items)
        foreseen = await self._tried(step, self.plan.prompts)  # 3
        if step.facts.is_sized(step.written):  # 4
            is_open = self.reads_unknown or self.has_changed
            if is_open or not self.plan.prompts.counts_exactly or foreseen.call_forecast.n_new > 1:
                before = self.plan.prompts.as_of(n_before)
                longest = await self._tried(step, before, is_long=True)
                foreseen = replace(foreseen, calls=between_lengths(foreseen.calls, longest.calls))
        return foreseen

    async def _escalated(self, step: BoundStep) -> Foreseen:
        """Foresee a step with its own model, then with the larger one where that may be asked.

        Raises:
            ItemEnds: it surely fails.
        """
        is_due: bool | None = None
        try:
            own = await self.foresee(replace(step, escalate=None))
            if not own.certainty and own.outputs and step.returns is None:
                with contextlib.suppress(ExpressionError):
                    item = self.attempt.shown_key or self.attempt.key
                    is_due = escalated(step, self.scope, item, own.outputs) is not None
        except ItemEnds as end:
            if not end.is_check:
                raise
            own, is_due = Foreseen(), True
        if is_due is False:
            return own
        try:
            larger = await self.foresee(step.escalated)
        except ItemEnds as end:
            end.calls = own.calls
            if is_due:
                raise
            return replace(own, certainty=Certainty.UNKNOWN, may_fail=True)
        if is_due:
            return replace(larger, calls=own.calls + larger.calls)
        calls = own.calls + larger.calls.at_most()
        return replace(larger, calls=calls, outputs=own.outputs, certainty=Certainty.UNKNOWN)

    async def _tried(
        self, step: BoundStep, prompts: AskedPrompts, *, is_long: bool = False
    ) -> Foreseen:
        """Carry out a step that only reads, with a pool that asks no model.

        1. Its parameters cannot be filled in: that may be for what is unknown, which bounds it.
        2. It foresees its own calls (`foresee`), or runs, with placeholders for unknown answers.
        3. It failed, and nothing is unknown: so it will in the run.
        4. It failed over what is not there yet: the YAML alone bounds it.
        5. Its calls are those that the pool counted, with what repairs, or a tree, may add.

        `is_long`: each unknown answer is the longest.

        Raises:
            ItemEnds: it surely fails.
        """
        kind, facts, attempt = step.kind(), step.facts, self.attempt
        try:
            params = step.params.render(self.scope)
        except BindError as error:  # 1
            if not (self.reads_unknown or self.has_changed):
                raise ItemEnds(error) from error
            return Foreseen(calls_of_step(step))
        reads_files, searches = bool(facts.lists or kind.reads(params)), bool(facts.searches)
        doubt = _Doubt(
            is_any=self.reads_unknown or (self.has_changed and (reads_files or searches)),
            files=self.has_changed and reads_files,
            new_store=self.plan.fills_stores and searches,
        )
        caller = self.context.caller(attempt.scope, step, attempt.shown_key, attempt.node.id)
        pool = DryPool(
            self.context,
            caller,
            prompts,
            is_long=is_long,
            reads_unknown=doubt.is_any,
            raises_unknown=facts.tree is not None,
        )
        tools = await self._tools(step, params, pool, caller)
        tree: CallForecast | None = None
        outputs: Any = {}
        has_failed = False
        try:  # 2
            if facts.tree is not None:
                tree = await kind.foresee(params, tools)
            if tree is not None and tree.n_new:
                found = dict.fromkeys(("output", "evidence", "confidence")) | {"text": PLACEHOLDER}
            else:
                found = doubt.of((await kind.run(params, tools)).model_dump(mode="json"))
            seen = self.scope if step.returns is None else self.scope.with_step(step.id, found)
            outputs = found if step.returns is None else step.returns.render(seen)
        except StepSkipped:
            outputs = None
        except _STEP_ERRORS as error:
            has_failed = True
            if isinstance(error, StepError) and error.is_fatal and not doubt.is_any:
                self.context.stats.note(f"The run will stop at step '{step.id}': {error}")
            may_be_there_by_then = doubt.is_any or doubt.new_store
            may_pass = bool(step.kind.roles) and max_retries(step.retry, Cause.CHECK) > 0
            if not (pool.has_unknown or may_be_there_by_then or may_pass):
                raise ItemEnds(error) from error  # 3
            if may_be_there_by_then and not is_long:
                return Foreseen(between_lengths(pool.calls, calls_of_step(step)))  # 4
        is_unknown = doubt.is_any or pool.has_unknown or has_failed
        return Foreseen(
            _calls(step, params, pool, tree, is_whole_tree=has_failed and is_long),  # 5
            outputs,
            Certainty.UNKNOWN if is_unknown else Certainty.KNOWN,
            tree or CallForecast(pool.n_known + (pool.calls.most or 0), pool.n_known),
        )

    async def _tools(
        self, step: BoundStep, params: Any, pool: DryPool, caller: CallOrigin
    ) -> Tools:
        """Return what a step is given while it is tried, which asks and writes nothing.

        Of examples and labels that are not known yet, a placeholder stands for the examples.
        """
        attempt, context, scope = self.attempt, self.context, self.scope
        tools = item_tools(context, step, caller, attempt, scope)
        tools = replace(tools, pool=pool, stores=DryStores(context.stores))
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
            taught = await taught_tools(context, step, params, tools, scope, attempt)
        known = context.judge.reviews.decisions.get(taught_as(context, step))
        if taught is tools and params.examples.k and known is not None and known.decisions:
            taught = replace(tools, examples=(Example(PLACEHOLDER, PLACEHOLDER),))
        return taught


def _calls(
    step: BoundStep, params: Any, pool: DryPool, tree: CallForecast | None, *, is_whole_tree: bool
) -> CallBounds:
    """Return the calls that a pool counted, with those of a tree, and what repairs may add.

    1. A tree is foreseen: the pool was asked for those of its prompts alone that are known.
    2. A text is read in parts (`is_whole_tree`): at most a tree over all of them.
    """
    calls, weights, prompts = pool.calls, pool.calls.weights or models_of(step), pool.prompts
    bounds = None if step.facts.tree is None else step.facts.tree(params)
    most_in_groups = 0
    if bounds is not None and pool.reads_unknown and tree is not None and tree.n_new:
        most_in_groups = bounds.in_groups  # by answers that are not known
    if tree is not None:  # 1
        sure, later = calls.sure, tree.n_new - (calls.most or 0)
        if not (prompts.has_history or pool.has_twins or most_in_groups):
            sure = sure + Counter({next(iter(weights)): later})
        calls = CallBounds.divided(tree.n_new, weights, sure)
    elif is_whole_tree:  # 2
        most = 2 * (calls.most or 0) + 1 if bounds is None else bounds.in_parts
        calls = CallBounds.divided(most, weights)
    calls = with_repairs(step, calls, holds_forms=prompts.counts_exactly)
    repairs = max(calls.repairs, most_in_groups - (calls.most or 0))
    return replace(calls, repairs=repairs)
