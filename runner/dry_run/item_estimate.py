"""Foresee the steps of an item as `walk_item` meets them: no side effects, model calls are counted.

Steps that only read are run, with a pool, files and stores of their own (`dry_pool`): what depends
on an answer that is not known counts as "at most". Steps that change something, call tools or come
from unknown plug-ins are left out; what reads them is bounded by the YAML alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from types import MappingProxyType
from typing import Any

from paddock.engine.errors import EngineError
from paddock.engine.system.item_samples import SEED, draw
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError, Reference
from paddock.pipelines.input_values import WrongInput
from paddock.runner.answers.evidence import EvidenceFinder
from paddock.runner.bind.bound import (
    BoundBlock,
    BoundNode,
    BoundPlan,
    BoundStep,
    all_steps,
    only_reads,
)
from paddock.runner.bind.parameters import BindError
from paddock.runner.bind.scope import Scope, WithFiled
from paddock.runner.bind.sub_pipelines import with_inputs
from paddock.runner.core.block_state import BlockState, opened_block
from paddock.runner.core.escalation import escalated
from paddock.runner.core.failures import StepFailed, times
from paddock.runner.core.item_attempt import ItemAttempt
from paddock.runner.core.left_nodes import LackingItems
from paddock.runner.core.run_context import RunContext
from paddock.runner.core.step_runner import item_result, step_outputs
from paddock.runner.core.step_tools import (
    item_tools,
    sub_pipeline_context,
    taught_as,
    taught_tools,
)
from paddock.runner.core.walk import ItemSteps, is_skipped, is_unused, walk_item
from paddock.runner.progress.report import PlanItem
from paddock.steps.base import (
    UNKNOWN,
    CallForecast,
    Example,
    OutsideRoots,
    ReplyNotCached,
    StepError,
    StepSkipped,
    Tools,
)
from paddock.steps.run_pipeline import named_outputs

from .dry_pool import AskedPrompts, DryPool, DryReply, DryStores, with_later_calls, without_effects
from .plan_cost import (
    NO_CALLS,
    CallBounds,
    PlanCost,
    between_lengths,
    bound_step,
    bound_steps,
    unbounded_steps,
    with_repairs,
)

MAX_WALK_S = 5.0
"""A plan does not walk longer than that; items that are left are bounded or estimated."""

_STEP_ERRORS = (StepError, EngineError, ExpressionError, OutsideRoots, ReplyNotCached)


class Certainty(IntEnum):
    """How much a plan knows of a step or block. Of several that are read the greatest counts."""

    KNOWN = 0
    """It gives what it will give in the run."""
    UNKNOWN = 1
    """It is done, but what it gives is not known: its outputs are, or contain, placeholders. What
    reads these is tried with them; a list or an `if` of them is not known either."""
    AT_MOST = 2
    """It may not be done at all: its calls, and those of what reads it, are made at most."""


@dataclass(frozen=True, slots=True)
class Foreseen:
    """Calls and outputs of one step or block."""

    calls: CallBounds = NO_CALLS
    outputs: dict[str, Any] | None = field(default_factory=dict)
    """None: it is skipped; empty where they are not known."""
    certainty: Certainty = Certainty.KNOWN
    forecast: CallForecast | None = None
    """Calls, and how many of them have replies; None where the step could not be run."""
    models: Counter[str] = field(default_factory=Counter)
    """Names of those that would be asked, each with its part of `calls`."""
    is_estimate: bool = False
    """Whether some of `calls` are those of other items, on average."""

    @classmethod
    def bounded(cls, body: Iterable[BoundNode], calls: CallBounds) -> Foreseen:
        """Return what is known by the YAML alone."""
        models = models_used(body) if calls.most != 0 else Counter[str]()
        return cls(calls, certainty=Certainty.UNKNOWN, models=models)


class ItemEnds(Exception):
    """The item surely fails here: the steps behind it are not reached."""


@dataclass(slots=True)
class PlanSoFar:
    """What is foreseen of a plan, with the pipelines that its steps run."""

    counts_exactly: bool
    """Tokens are counted on this machine; no text is sent elsewhere."""
    fills_stores: bool
    """The run may make a store that is not there yet."""
    prompts: AskedPrompts
    cost: PlanCost = field(default_factory=PlanCost)
    items: list[PlanItem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What cannot be foreseen."""
    ends_at: float | None = None
    """When the walk over items ends. Set by the first item: to read a folder takes time."""

    @contextlib.asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Raise `TimeoutError` once the time of the walk is over, also where nothing waits."""
        now = asyncio.get_running_loop().time()
        self.ends_at = self.ends_at or now + MAX_WALK_S
        if now >= self.ends_at:
            raise TimeoutError
        async with asyncio.timeout_at(self.ends_at):
            yield


class ItemEstimate(ItemSteps):
    """The steps of one item, or of a pipeline that one of them runs, without their effects."""

    def __init__(
        self,
        plan: PlanSoFar,
        context: RunContext,
        attempt: ItemAttempt,
        around: Mapping[str, Certainty] = MappingProxyType({}),
        *,
        is_whole_pipeline: bool = False,
    ) -> None:
        """`around`: the certainty of steps around it, where that is not `KNOWN`."""
        without_effects(context, attempt)
        self._plan = plan
        self._context = context
        self._attempt = attempt
        self._is_whole_pipeline = is_whole_pipeline
        self.certainty = {**around}
        self.is_unsure = False
        """Whether what follows may not be reached, or may be fresh."""
        self.has_changed = False
        """Whether an earlier step may have changed files or stores."""
        self.calls = NO_CALLS
        self.models = Counter[str]()
        self.last: Any = None
        self.foreseen = Foreseen()
        """Of the last step or block."""

    def _certainty_of(self, *read: Iterable[Reference]) -> Certainty:
        """Return that of what these references read."""
        names = (path[1] for paths in read for path in paths if path[0] == "steps" and path[1:])
        return max(
            (self.certainty.get(name, Certainty.KNOWN) for name in names), default=Certainty.KNOWN
        )

    # --- what `walk_item` asks

    def is_skipped(self, node: BoundNode, scope: Scope) -> bool:
        """Return whether a node is surely skipped.

        Raises:
            ItemEnds: its `if` cannot be evaluated.
        """
        self.foreseen = Foreseen(outputs=None)
        if self._decides_on(node):
            return False
        try:
            if is_skipped(node, scope):
                return True
        except (StepFailed, ExpressionError) as error:
            raise ItemEnds from error
        key = self._attempt.shown_key
        return not self._decides_on_use(node) and is_unused(node, scope, self._context.stats, key)

    def _decides_on_use(self, node: BoundNode) -> Certainty:
        """Return the certainty of what decides whether a node's answer is used."""
        return self._certainty_of(("steps", name) for name in node.known_by)

    def _decides_on(self, node: BoundNode) -> Certainty:
        """Return the certainty of a node's `if`, and of a block's list."""
        lists = (node.over.references,) if isinstance(node, BoundBlock) else ()
        return self._certainty_of(*lists, () if node.if_ is None else node.if_.references)

    def with_known_filters(self, block: BoundBlock) -> BoundBlock:
        """Return a block whose items all have results where the answers of filters are unknown."""
        is_open = block.keep is not None and self._certainty_of(block.keep.references)
        return replace(block, keep=None) if is_open else block

    async def block(self, block: BoundBlock, scope: Scope) -> tuple[Any, LackingItems | None]:
        """Foresee a block within the item: its own items may be fresh."""
        if self._decides_on(block):
            self.foreseen = Foreseen.bounded(block.body, unbounded_steps(block.body))
            return self.foreseen.outputs, None
        try:
            state = await self._judged(block, scope)
        except (ExpressionError, PipelineError) as error:
            raise ItemEnds from error
        foreseen = await foresee_block(self._plan, self._context, state, self.certainty)
        if self._certainty_of(block.references):
            calls = foreseen.calls.at_most()
            foreseen = replace(foreseen, calls=calls, certainty=Certainty.UNKNOWN)
        self.foreseen = foreseen
        return foreseen.outputs, None

    async def step(self, step: BoundStep, scope: Scope) -> Any:
        """Foresee one step.

        Raises:
            ItemEnds: it surely fails.
        """
        is_unknown = bool(self._certainty_of(step.references))
        is_own_item = self._is_whole_pipeline and step.has_trace
        if not is_own_item:
            foreseen = await self._foresee(step, scope, is_unknown or self.has_changed)
        else:  # at the top of a pipeline a step with a trace is an item, and may be fresh
            state = await self._judged(step, scope)
            if not state.todo() and not is_unknown:
                if state.wait is not None:
                    raise ItemEnds
                self.foreseen = Foreseen(outputs=state.work.items[0].result)
                return self.foreseen.outputs
            attempt = ItemAttempt.of(self._context, step, self._attempt.outer)
            own = ItemEstimate(self._plan, self._context, attempt)
            foreseen = await own._foresee(step, scope, is_unknown)
            if is_unknown and state.work.items[0].entry is not None:
                foreseen = replace(foreseen, calls=foreseen.calls.at_most())
        if self._decides_on(step):
            foreseen = replace(foreseen, certainty=Certainty.AT_MOST)
        self.foreseen = foreseen
        return foreseen.outputs

    def hand_on(self, node: BoundNode, outputs: Any) -> None:
        foreseen, certainty = self.foreseen, self.foreseen.certainty
        read = self._certainty_of(node.references)
        may_skip = read is Certainty.AT_MOST or self._decides_on_use(node)
        if may_skip and outputs is not None:
            certainty = Certainty.AT_MOST
        is_sure = certainty is not Certainty.AT_MOST and not self.is_unsure
        self.calls += foreseen.calls if is_sure else foreseen.calls.at_most()
        # The calls of one step by model, so that each step weighs what it asks
        models, most = foreseen.models, foreseen.calls.most
        if most and models:
            found = Counter({ref: n * most // models.total() for ref, n in models.items()})
            found[next(iter(models))] += most - found.total()
            models = found
        self.models.update(models)
        if certainty:
            self.certainty[node.id] = certainty
        if isinstance(node, BoundStep):
            may_fail = certainty and node.reply is not None and bool(node.reply.checks)
            if may_fail or node.review is not None:  # or the item may wait for a person
                self.is_unsure = True
            if certainty and not (_reads_only(node) or node.inner is not None):
                self.has_changed = True
        self.last = outputs

    async def _judged(self, node: BoundNode, scope: Scope) -> BlockState:
        return await opened_block(
            self._context, node, scope, keeps_results=True, outer=self._attempt.outer
        )

    # --- one step

    async def _foresee(self, step: BoundStep, scope: Scope, reads_unknown: bool) -> Foreseen:
        """Foresee a step that is not skipped, by its kind.

        `reads_unknown`: it reads placeholders, or files and stores that may be others by then.

        Raises:
            ItemEnds: it surely fails.
        """
        if step.inner is not None:
            return await self._pipeline(step, scope, reads_unknown)
        if not _reads_only(step):
            return Foreseen.bounded([step], bound_step(step))
        if step.escalate is not None:
            return await self._escalated(step, scope, reads_unknown)
        if "tools" in step.written:  # to know its tools is to run them, or their servers
            return Foreseen.bounded([step], bound_step(step))
        prompts = self._plan.prompts
        n_before = prompts.counts
        foreseen = await self._tried(step, scope, reads_unknown, prompts)
        forecast = foreseen.forecast
        n_new = 0 if forecast is None else forecast.n_calls - forecast.n_known
        # Whether how often a step asks depends on how long texts are
        if step.facts.is_sized or hasattr(step.kind, "foresee"):
            is_sized = True
        else:
            is_sized = step.written.get("on_overflow") in ("map-reduce", "refine")
        if is_sized and (reads_unknown or n_new > 1 or not self._plan.counts_exactly):
            before = prompts.as_of(*n_before)
            longest = await self._tried(step, scope, reads_unknown, before, is_long=True)
            calls = between_lengths(foreseen.calls, longest.calls)
            foreseen = replace(foreseen, calls=calls)
        return foreseen

    async def _escalated(self, step: BoundStep, scope: Scope, reads_unknown: bool) -> Foreseen:
        """Foresee a step with its own model, then with the larger one where that may be asked.

        Raises:
            ItemEnds: it surely fails.
        """
        is_due: bool | None = None
        try:
            own = await self._foresee(replace(step, escalate=None), scope, reads_unknown)
            if not own.certainty and own.outputs and step.returns is None:
                with contextlib.suppress(ExpressionError):
                    item = self._attempt.shown_key or self._attempt.key
                    is_due = escalated(step, scope, item, own.outputs) is not None
        except ItemEnds as end:
            if getattr(end.__cause__, "kind", "") != "check":
                raise
            own, is_due = Foreseen(), True
        if is_due is False:
            return own
        larger = await self._foresee(step.escalated, scope, reads_unknown)
        calls = larger.calls if is_due else larger.calls.at_most()
        return replace(
            larger,
            calls=own.calls + calls,
            outputs=larger.outputs if is_due else own.outputs,
            certainty=larger.certainty if is_due else Certainty.UNKNOWN,
            models=own.models + larger.models,
        )

    async def _tried(
        self,
        step: BoundStep,
        scope: Scope,
        reads_unknown: bool,
        prompts: AskedPrompts,
        *,
        is_long: bool = False,
    ) -> Foreseen:
        """Carry out a step that only reads, with a pool that asks no model.

        1. Its parameters cannot be filled in: that may be for what is unknown, which bounds it.
        2. Its prompt has examples; a placeholder stands for those that are unknown.
        3. It foresees its own calls (`foresee`), or runs, with placeholders for unknown answers.
        4. It failed, and nothing is unknown: so it will in the run.
        5. It failed over what is not there yet: the YAML alone bounds it.
        6. It failed otherwise: over the longest answers, it is a tree over all of its parts.
        7. Its calls are those that the pool counted, with what repairs and new groups may add.

        `is_long`: each unknown answer is the longest.

        Raises:
            ItemEnds: it surely fails.
        """
        context, kind = self._context, step.kind()
        pool, tools = await self._tools(step, scope, prompts, is_long=is_long)
        pool.reads_unknown = reads_unknown
        try:
            params = step.params.render(scope)
        except BindError as error:
            if not reads_unknown:
                raise ItemEnds from error
            return Foreseen.bounded([step], bound_step(step))  # 1
        if step.is_taught:  # 2
            taught = tools
            with contextlib.suppress(*_STEP_ERRORS):
                taught = await taught_tools(context, step, params, tools, scope, self._attempt)
            known = context.judge.reviews.decisions.get(taught_as(context, step))
            if taught is tools and params.examples.k and known is not None and known.decisions:
                taught = replace(tools, examples=(Example(UNKNOWN, UNKNOWN),))
            tools = taught
        fills_store = self._plan.fills_stores and bool(step.facts.searches)
        foresee, failure = getattr(kind, "foresee", None), None
        forecast: CallForecast | None = None
        outputs: Any = None
        try:  # 3
            if foresee is not None:
                forecast = await foresee(params, tools)
            if forecast is not None and forecast.n_known < forecast.n_calls:
                outputs = dict.fromkeys(("output", "evidence", "confidence"))
                outputs["text"] = UNKNOWN
            else:
                outputs = (await kind.run(params, tools)).model_dump(mode="json")
                if fills_store and reads_unknown:
                    outputs["hits"] = [{**hit, "text": UNKNOWN} for hit in outputs["hits"]]
            if step.returns is not None:
                outputs = step.returns.render(scope.with_step(step.id, outputs))
        except StepSkipped:
            outputs = None
        except _STEP_ERRORS as error:
            failure = error
            if isinstance(error, StepError) and error.is_fatal and not reads_unknown:
                context.stats.note(f"The run will stop at step '{step.id}': {error}")
        n_new = 0 if forecast is None else forecast.n_calls - forecast.n_known
        is_partly_asked = foresee is not None and (forecast is None or n_new > 0)
        is_unknown = reads_unknown or is_partly_asked or pool.has_unknown
        # A `reduce` that groups by answers which may be unknown: to which group does each belong?
        has_new_groups = step.facts.group_by in step.written and reads_unknown and is_partly_asked
        calls = pool.calls
        if forecast is not None:
            models = pool.models or models_used([step])
            is_sure = not (pool.prompts.has_history or pool.has_twins or has_new_groups)
            calls = with_later_calls(calls, n_new, next(iter(models), None) if is_sure else None)
        if failure is not None:
            may_be_there_by_then = reads_unknown or fills_store
            is_certain = not (pool.has_unknown or may_be_there_by_then)
            if is_certain and not (step.kind.roles and times(step.retry, "check")):
                raise ItemEnds from failure  # 4
            if may_be_there_by_then and not pool.is_long:  # 5
                bound = Foreseen.bounded([step], bound_step(step))
                return replace(bound, calls=between_lengths(pool.calls, bound.calls))
            if pool.is_long and forecast is None:  # 6
                n_parts = len(params.over) if foresee is not None else calls.most or 0
                calls = CallBounds(2 * n_parts + 1)
            outputs, is_unknown = {}, True
        calls = with_repairs(step, calls, holds_forms=pool.counts_exactly)  # 7
        if has_new_groups and calls.most is not None:
            # Each item a group: a call for each, and a tree of them, in which each call joins two
            n = len(params.over)
            most = n if params.fold == "groups" else 2 * n - 1
            calls = replace(calls, repairs=max(calls.repairs, most - calls.most))
        return Foreseen(
            calls,
            outputs,
            Certainty.UNKNOWN if is_unknown else Certainty.KNOWN,
            forecast=forecast or CallForecast(pool.n_known + pool.n_new, pool.n_known),
            models=pool.models or (models_used([step]) if calls.most else Counter()),
        )

    async def _tools(
        self, step: BoundStep, scope: Scope, prompts: AskedPrompts, *, is_long: bool
    ) -> tuple[DryPool, Tools]:
        """Return what a step is given while it is tried, which asks and writes nothing."""
        attempt, context = self._attempt, self._context
        caller = context.caller(attempt.scope, step, attempt.shown_key, attempt.node.id)
        tools = item_tools(context, step, caller, attempt, scope)
        pool = DryPool(
            context,
            caller,
            prompts,
            f"{attempt.scope}\n{attempt.key}",
            counts_exactly=self._plan.counts_exactly,
            is_long=is_long,
        )
        pool.raises_unknown = hasattr(step.kind, "foresee")
        reply, form = None, step.reply
        if form is not None:
            finder = labels = None
            with contextlib.suppress(StepError):  # what is not known yet may be no text
                finder = EvidenceFinder.of(form.evidence, form.schema, scope, tools)
            with contextlib.suppress(*_STEP_ERRORS):  # nor some list of labels, or vectors
                labels = await context.judge.labels.offered(step, scope, replace(tools, pool=pool))
            reply = DryReply(form, scope, finder, labels, pool=pool)
        return pool, replace(tools, pool=pool, reply=reply, stores=DryStores(context.stores))

    async def _pipeline(self, step: BoundStep, scope: Scope, reads_unknown: bool) -> Foreseen:
        """Foresee a pipeline that a step of the item runs."""
        inner = step.inner
        assert inner is not None
        try:
            params = step.params.render(scope)
            bound = with_inputs(inner, params.inputs, self._context.bound.roots)
        except (BindError, WrongInput) as error:
            if not reads_unknown:
                raise ItemEnds from error
            return Foreseen.bounded([step], bound_step(step))
        context = sub_pipeline_context(self._context, step, self._attempt, bound)
        secrets = context.stats.secrets.of(bound.file)
        within = ItemEstimate(self._plan, context, replace(self._attempt), is_whole_pipeline=True)
        within.is_unsure = reads_unknown
        start, outputs = Scope.of(bound.inputs, secrets, bound.moment), dict[str, Any]()
        end, is_unknown = await walk_item(within, bound.nodes, start), reads_unknown
        try:
            outputs = pipeline_outputs(step, bound, end, scope)
        except ExpressionError:
            is_unknown = True
        is_unknown = is_unknown or any(within.certainty.values())
        certainty = Certainty.UNKNOWN if is_unknown else Certainty.KNOWN
        return Foreseen(within.calls, outputs, certainty, models=within.models)


async def foresee_block(
    plan: PlanSoFar,
    context: RunContext,
    state: BlockState,
    around: Mapping[str, Certainty] = MappingProxyType({}),
) -> Foreseen:
    """Foresee every stale item; those left when the time is over are bounded or estimated.

    In a random order, so that those that were walked speak for the others.
    """
    block, todo = state.block, state.todo()
    calls, models, n_left = NO_CALLS, Counter[str](), 0
    for item in sorted(todo, key=lambda item: draw(SEED, item.key)):
        steps = ItemEstimate(plan, context, ItemAttempt.of_item(context, state, item), around)
        item.result = {"text": f"{UNKNOWN} {item.key}"}
        try:
            async with plan.in_time():
                scope = await walk_item(steps, block.body, item.seen(block, state.scope))
            item.result = item_result(steps.with_known_filters(block), scope, steps.last)
        except TimeoutError:
            n_left += 1
            models.update(steps.models)
            models.update(models_used(block.body))
            continue
        except ItemEnds:
            item.result = None
        except StepFailed:  # its `returns` read what is not known
            pass
        calls += steps.calls
        models.update(steps.models)
    rest, n_walked = bound_steps(block.body).of_items(n_left), len(todo) - n_left
    is_estimate = rest.most is None and calls.most is not None and n_walked > 0
    calls += calls.estimate(n_left / n_walked) if is_estimate else rest
    certainty = Certainty.UNKNOWN if todo else Certainty.KNOWN
    outputs = dict(state.outputs())
    return Foreseen(calls, outputs, certainty, models=models, is_estimate=is_estimate)


def pipeline_outputs(step: BoundStep, bound: BoundPlan, inner: Scope, scope: Scope) -> Any:
    """Return the outputs of a step that runs a pipeline; `inner`: the pipeline's scope at its end.

    Raises:
        ExpressionError: a `returns` failed.
    """
    returns, whole = bound.returns, inner.with_filed()
    outputs = named_outputs(None if returns is None else returns.render(inner))
    if returns is not None and whole is not None:
        outputs = WithFiled(outputs, named_outputs(returns.render(whole)))
    return step_outputs(step, scope, outputs)


def models_used(body: Iterable[BoundNode]) -> Counter[str]:
    asking = (step for step in all_steps(body) if step.kind.roles)
    return Counter(spec.ref for step in asking for spec in step.models)


def _reads_only(step: BoundStep) -> bool:
    """Return whether a dry run may carry out a step, with its own outputs and stores."""
    return only_reads(step) or bool(step.facts.fills) or hasattr(step.kind, "foresee")
