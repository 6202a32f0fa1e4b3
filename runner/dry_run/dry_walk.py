"""Walk the steps of items as a run would, without side effects, and count their model calls.

Steps that only read are run, with a pool, files and stores of their own (`dry_pool`): what depends
on an answer that is not known counts as "at most". Steps that change something, call tools or come
from unknown plug-ins are left out; what reads them is bounded by the YAML alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, cast

from paddock.engine.errors import EngineError
from paddock.engine.system.item_samples import SEED, draw
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError, Reference
from paddock.pipelines.input_values import WrongInput
from paddock.runner.bind.bound import (
    BoundBlock,
    BoundNode,
    BoundPlan,
    BoundStep,
    all_steps,
    with_inputs,
)
from paddock.runner.bind.evidence_finder import EvidenceFinder
from paddock.runner.bind.inputs import BindError
from paddock.runner.bind.scope import Scope, WithFiled
from paddock.runner.core.block_state import BlockState
from paddock.runner.core.blocks import BlockRunner, is_block_skipped
from paddock.runner.core.call_cache import LedgerPool
from paddock.runner.core.decided_examples import is_taught
from paddock.runner.core.escalation import escalated
from paddock.runner.core.failures import StepFailed
from paddock.runner.core.items import (
    item_result,
    item_tools,
    step_outputs,
    sub_pipeline_context,
    taught_as,
    taught_tools,
)
from paddock.runner.core.skipped_steps import is_step_skipped
from paddock.runner.core.step_retries import times
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

from .call_bounds import (
    NO_CALLS,
    CallBounds,
    between_lengths,
    bound_step,
    bound_steps,
    unbounded_steps,
    with_repairs,
)
from .dry_pool import AskedPrompts, DryPool, DryReply, DryStores, WalkPlace, with_tree

MAX_WALK_S = 5.0
"""A plan does not walk longer than that; items that are left are bounded or estimated."""

_READING_STEPS = frozenset(
    ("files.read", "files.rows", "files.scan", "split", "prompt", "chat", "summarise", "summarize",
     "embed", "search")
)  # fmt: skip
"""Built-in steps without side effects, with the outputs and stores of a dry run."""

_STEP_ERRORS = (StepError, EngineError, ExpressionError, OutsideRoots, ReplyNotCached)


async def _with_examples(
    step: BoundStep, scope: Scope, params: Any, place: WalkPlace, tools: Tools
) -> Tools:
    """Return tools with the examples of a step's prompt; a placeholder where they are not known."""
    if not is_taught(step):
        return tools
    taught, context = tools, place.context
    with contextlib.suppress(*_STEP_ERRORS):
        taught = await taught_tools(context, step, params, tools, (scope, place.record))
    known = context.judge.reviews.decisions.get(taught_as(context, step))
    if taught is tools and params.examples.k and known is not None and known.decisions:
        return replace(tools, examples=(Example(UNKNOWN, UNKNOWN),))
    return taught


@dataclass(frozen=True, slots=True)
class WalkResult:
    """Calls and outputs of one step or block."""

    calls: CallBounds = NO_CALLS
    outputs: dict[str, Any] | None = field(default_factory=dict)
    """None: it is skipped; empty where they are not known."""
    is_unknown: bool = False
    """Whether `outputs` are, or contain, placeholders."""
    may_be_skipped: bool = False
    seen: CallForecast | None = None
    """Calls, and how many of them have replies; None where the step could not be walked."""
    refs: Counter[str] = field(default_factory=Counter)
    """Names of the models that would be asked, each with its part of `calls`."""
    is_estimate: bool = False
    """Whether some of `calls` are those of other items, on average."""


class ItemEnds(Exception):
    """The item surely fails here: the steps behind it are not reached."""


class DryWalk:
    """A plan's walk over all stale items."""

    def __init__(self, ledger_has_calls: bool, *, counts_exactly: bool, fills_stores: bool) -> None:
        """`fills_stores`: the run may make a store that is not there yet."""
        self._fills_stores = fills_stores
        self._prompts = AskedPrompts(ledger_has_calls)
        self._counts_exactly = counts_exactly
        self._ends_at: float | None = None  # set by the first item: to read a folder takes time

    # --- blocks

    async def block(self, run: BlockState, place: WalkPlace, unknown: frozenset[str]) -> WalkResult:
        """Walk every stale item; those left when the time is over are bounded or estimated.

        In a random order, so that those that were walked speak for the others.
        `unknown` are the steps around the block whose outputs are placeholders.
        """
        calls, refs, n_left = NO_CALLS, Counter[str](), 0
        results, todo = list(run.results), run.todo()
        for item in sorted(todo, key=lambda item: draw(SEED, item.key)):
            scope = item.seen(run.block, run.scope)
            body = _BodyWalk(self, scope, place.item(run, item), set(unknown))
            walked = await self._in_time(run.block, body, item.key)
            refs.update(body.refs)
            if walked is None:
                n_left += 1
                walked = NO_CALLS, _unknown_result(item.key)
                refs.update(_models_used(run.block.body))
            calls += walked[0]
            results[item.index] = walked[1]
        rest, n_walked = bound_steps(run.block.body).of_items(n_left), len(todo) - n_left
        is_estimate = rest.most is None and calls.most is not None and n_walked > 0
        calls += calls.estimate(n_left / n_walked) if is_estimate else rest
        offered = {**run.offered(), "results": [result for result in results if result is not None]}
        return WalkResult(calls, offered, bool(todo), refs=refs, is_estimate=is_estimate)

    async def _in_time(
        self, block: BoundBlock, body: _BodyWalk, key: str
    ) -> tuple[CallBounds, Any] | None:
        """Walk one item; return its calls and its result, None where the time is over."""
        now = asyncio.get_running_loop().time()
        self._ends_at = self._ends_at or now + MAX_WALK_S
        if now >= self._ends_at:
            return None  # asked as well: where nothing waits, a timeout never comes
        try:
            async with asyncio.timeout_at(self._ends_at):
                await body.walk(block.body)
                return body.calls, item_result(block, body.scope, body.last)
        except TimeoutError:
            return None
        except ItemEnds:
            return body.calls, None
        except StepFailed:  # its `returns` read what is not known
            return body.calls, _unknown_result(key)

    # --- steps

    async def step(
        self,
        step: BoundStep,
        scope: Scope,
        place: WalkPlace,
        unknown: Iterable[str],
        *,
        is_after_changes: bool = False,
    ) -> WalkResult:
        """Walk one step. `unknown` are the steps whose outputs are placeholders or missing.

        `is_after_changes`: files and stores may be others by then.

        Raises:
            ItemEnds: it surely fails.
        """
        unknown = frozenset(unknown)
        is_partly_unknown = is_after_changes or bool(_steps_read(step.references) & unknown)
        may_be_skipped = False
        if step.if_ is not None and _steps_read(step.if_.references) & unknown:
            may_be_skipped = True
        else:
            try:
                if is_step_skipped(step, scope):
                    return WalkResult(outputs=None)
            except StepFailed as error:
                raise ItemEnds from error
        walked = await self._once(step, scope, place, is_partly_unknown)
        if not may_be_skipped:
            return walked
        return replace(walked, calls=walked.calls.perhaps(), is_unknown=True, may_be_skipped=True)

    async def _once(
        self, step: BoundStep, scope: Scope, place: WalkPlace, is_partly_unknown: bool
    ) -> WalkResult:
        if step.inner is not None:
            return await self._inner(step, scope, place, is_partly_unknown)
        if not _reads_only(step):
            return bound_of_step(step)
        if step.escalate is not None:
            return await self._escalated(step, scope, place, is_partly_unknown)
        if "tools" in step.written:
            return bound_of_step(step)  # to know its tools is to run them, or their servers
        n_before = self._prompts.counts
        walked = await self._tried(step, scope, place, is_partly_unknown, self._prompts)
        n_new = walked.seen.n_calls - walked.seen.n_known if walked.seen is not None else 0
        # Whether how often a step asks depends on how long texts are
        if step.uses in ("summarise", "summarize") or hasattr(step.kind, "foresee"):
            is_sized = True
        else:
            is_sized = step.written.get("on_overflow") in ("map-reduce", "refine")
        if is_sized and (is_partly_unknown or n_new > 1 or not self._counts_exactly):
            before = self._prompts.first(*n_before)
            longest = await self._tried(step, scope, place, is_partly_unknown, before, is_long=True)
            walked = replace(walked, calls=between_lengths(walked.calls, longest.calls))
        return walked

    async def _escalated(
        self, step: BoundStep, scope: Scope, place: WalkPlace, is_partly_unknown: bool
    ) -> WalkResult:
        """Walk a step with its own model, then with the larger one where that may have to answer.

        Raises:
            ItemEnds: it surely fails.
        """
        is_due: bool | None = None
        try:
            own = await self._once(replace(step, escalate=None), scope, place, is_partly_unknown)
            if not own.is_unknown and own.outputs and step.returns is None:
                with contextlib.suppress(ExpressionError):
                    item = place.record.shown_key or place.record.key
                    is_due = escalated(step, scope, item, own.outputs) is not None
        except ItemEnds as end:
            if getattr(end.__cause__, "kind", "") != "check":
                raise
            own, is_due = WalkResult(), True
        if is_due is False:
            return own
        larger = await self._once(step.escalated, scope, place, is_partly_unknown)
        calls = larger.calls if is_due else larger.calls.perhaps()
        outputs = larger.outputs if is_due else own.outputs
        return replace(
            larger,
            calls=own.calls + calls,
            outputs=outputs,
            is_unknown=larger.is_unknown or not is_due,
            refs=own.refs + larger.refs,
        )

    async def _tried(
        self,
        step: BoundStep,
        scope: Scope,
        place: WalkPlace,
        is_partly_unknown: bool,
        prompts: AskedPrompts,
        *,
        is_long: bool = False,
    ) -> WalkResult:
        """Carry out a step that only reads; `is_long`: each unknown answer is the longest."""
        tools, pool = await self._tools(step, scope, place, prompts, is_long=is_long)
        pool.reads_unknown = is_partly_unknown
        try:
            params = step.params.render(scope)
        except BindError as error:
            if not is_partly_unknown:
                raise ItemEnds from error
            return bound_of_step(step)
        tools = await _with_examples(step, scope, params, place, tools)
        fills_store = self._fills_stores and step.uses == "search"
        dry = _DryStep(step, params, tools, pool, fills_store, is_partly_unknown)
        try:
            outputs = await dry.outputs(scope)
        except StepSkipped:
            outputs = None
        except _STEP_ERRORS as error:
            if isinstance(error, StepError) and error.is_fatal and not is_partly_unknown:
                place.context.stats.note(f"The run will stop at step '{step.id}': {error}")
            return dry.failed(error)
        return dry.result(outputs, dry.calls)

    async def _tools(
        self,
        step: BoundStep,
        scope: Scope,
        place: WalkPlace,
        prompts: AskedPrompts,
        *,
        is_long: bool,
    ) -> tuple[Tools, DryPool]:
        record, context = place.record, place.context
        caller = context.caller(record.scope, step, record.shown_key, record.block)
        tools = item_tools(context, step, caller, record, scope)
        assert isinstance(tools.pool, LedgerPool)
        pool = DryPool(
            *tools.pool.parts,
            prompts=prompts,
            item=f"{record.scope}\n{record.key}",
            looks_up=caller.looks_up,
            counts_exactly=self._counts_exactly,
            is_long=is_long,
            raises=hasattr(step.kind, "foresee"),
        )
        reply, form = None, step.reply
        if form is not None:
            finder = labels = None
            with contextlib.suppress(StepError):  # what is not known yet may be no text
                finder = EvidenceFinder.of(form.evidence, form.schema, scope, tools)
            with contextlib.suppress(*_STEP_ERRORS):  # nor some list of labels, or vectors
                labels = await context.judge.labels.offered(step, scope, replace(tools, pool=pool))
            reply = DryReply(form, scope, finder, labels, pool=pool)
        return replace(tools, pool=pool, reply=reply, stores=DryStores(context.stores)), pool

    # --- pipelines that steps run

    async def _inner(
        self, step: BoundStep, scope: Scope, place: WalkPlace, is_partly_unknown: bool
    ) -> WalkResult:
        inner = step.inner
        assert inner is not None
        try:
            params = step.params.render(scope)
            bound = with_inputs(inner, params.inputs, place.context.bound.roots)
        except (BindError, WrongInput) as error:
            if not is_partly_unknown:
                raise ItemEnds from error
            return bound_of_step(step)
        context = sub_pipeline_context(place.context, step, place.record, bound)
        secrets = context.stats.secrets.of(bound.file)
        at = WalkPlace(context, place.record)
        body = _BodyWalk(
            self, Scope.of(bound.inputs, secrets, bound.moment), at, set(), is_whole_pipeline=True
        )
        if is_partly_unknown:
            body.is_unsure = True
        outputs: dict[str, Any] = {}
        await body.walk(bound.nodes)
        try:
            outputs = pipeline_outputs(step, bound, body.scope, scope)
        except ExpressionError:
            body.unknown.add(step.id)
        is_unknown = is_partly_unknown or bool(body.unknown)
        return WalkResult(body.calls, outputs, is_unknown=is_unknown, refs=body.refs)


@dataclass(slots=True)
class _DryStep:
    """A step that only reads, carried out with a pool that asks no model."""

    step: BoundStep
    params: Any
    tools: Tools
    pool: DryPool
    fills_store: bool
    """Whether the run may fill the store that it searches."""
    is_partly_unknown: bool
    seen: CallForecast | None = None
    """The calls of a step that foresees them."""

    @property
    def _foresees(self) -> bool:
        return hasattr(self.step.kind, "foresee")

    @property
    def calls(self) -> CallBounds:
        if self.seen is None:
            return self.pool.calls
        n_new = self.seen.n_calls - self.seen.n_known
        refs = self.pool.refs or _models_used([self.step])
        is_sure = not (self.pool.prompts.has_history or self.pool.has_twins or self._has_new_groups)
        return with_tree(self.pool.calls, n_new, next(iter(refs), None) if is_sure else None)

    @property
    def _is_known(self) -> bool:
        """Whether a step that foresees its calls has a reply for each."""
        return self.seen is not None and self.seen.n_known == self.seen.n_calls

    @property
    def _has_new_groups(self) -> bool:
        """Whether a `reduce` groups by answers that may be unknown: to which group each belongs."""
        is_grouped = self.step.uses == "reduce" and "by" in self.step.written
        return is_grouped and self.is_partly_unknown and not self._is_known

    async def outputs(self, scope: Scope) -> dict[str, Any]:
        """Return its outputs, with placeholders for what is not known."""
        kind: Any = self.step.kind()
        if self._foresees:
            self.seen = await kind.foresee(self.params, self.tools)
        if self._foresees and not self._is_known:
            outputs: dict[str, Any] = dict.fromkeys(("output", "evidence", "confidence"))
            outputs["text"] = UNKNOWN
        else:
            outputs = (await kind.run(self.params, self.tools)).model_dump(mode="json")
            if self.fills_store and self.is_partly_unknown:
                outputs["hits"] = [{**hit, "text": UNKNOWN} for hit in outputs["hits"]]
        if self.step.returns is None:
            return outputs
        made = self.step.returns.render(scope.with_step(self.step.id, outputs))
        return cast("dict[str, Any]", made)

    def failed(self, error: Exception) -> WalkResult:
        """Return the calls of a step that came to an error.

        Raises:
            ItemEnds: it surely does so in the run.
        """
        step, pool, calls = self.step, self.pool, self.calls
        self.is_partly_unknown = self.is_partly_unknown or self.fills_store
        is_sure = not (pool.has_unknown or self.is_partly_unknown)
        if is_sure and not (step.kind.roles and times(step.retry, "check")):
            raise ItemEnds from error
        if self.is_partly_unknown and not pool.is_long:
            bound = bound_of_step(step)  # a template may read what is not there yet
            return replace(bound, calls=between_lengths(pool.calls, bound.calls))
        if pool.is_long and self.seen is None:
            n_parts = len(self.params.over) if self._foresees else calls.most or 0
            calls = CallBounds(2 * n_parts + 1)
        return replace(self.result({}, calls), is_unknown=True)

    def result(self, outputs: dict[str, Any] | None, calls: CallBounds) -> WalkResult:
        pool = self.pool
        calls = with_repairs(self.step, calls, holds_forms=pool.counts_exactly)
        if self._has_new_groups and calls.most is not None:
            # Each item a group: a call for each, and a tree of them, in which each call joins two
            n = len(self.params.over)
            most = n if self.params.fold == "groups" else 2 * n - 1
            calls = replace(calls, repairs=max(calls.repairs, most - calls.most))
        is_open = self._foresees and not self._is_known
        return WalkResult(
            calls,
            outputs,
            is_unknown=self.is_partly_unknown or is_open or pool.has_unknown,
            seen=self.seen or CallForecast(pool.n_known + pool.n_new, pool.n_known),
            refs=pool.refs or (_models_used([self.step]) if calls.most else Counter()),
        )


class _BodyWalk:
    """Walks the steps of one item, or of a pipeline that a step runs, in order."""

    def __init__(
        self,
        dry: DryWalk,
        scope: Scope,
        place: WalkPlace,
        unknown: set[str],
        *,
        is_whole_pipeline: bool = False,
    ) -> None:
        self._dry = dry
        self._place = place
        self._is_whole_pipeline = is_whole_pipeline
        self.scope = scope
        self.unknown = unknown
        """Steps whose outputs are placeholders or missing."""
        self.is_unsure = False
        """Whether what follows may not be reached, or may be fresh."""
        self.calls = NO_CALLS
        self.refs = Counter[str]()
        self.last: Any = None
        self._perhaps_skipped: set[str] = set()
        self._has_changed = False
        """Whether an earlier step may have changed files or stores."""

    async def walk(self, nodes: Iterable[BoundNode]) -> None:
        """Walk them.

        Raises:
            ItemEnds: a step surely fails; `calls` has what is asked before.
        """
        for node in nodes:
            reads = _steps_read(node.references)
            if isinstance(node, BoundBlock):
                walked = await self._block(node, bool(reads & self.unknown))
            else:
                walked = await self._step(node)
            if reads & self._perhaps_skipped:
                walked = replace(walked, may_be_skipped=True)
            is_sure = not (walked.may_be_skipped or self.is_unsure)
            self.calls += walked.calls if is_sure else walked.calls.perhaps()
            # The calls of one step by model, so that each step weighs what it asks
            refs, most = walked.refs, walked.calls.most
            if not most or not refs:
                calls_by_model = refs
            else:
                found = Counter({ref: n * most // refs.total() for ref, n in refs.items()})
                found[next(iter(refs))] += most - found.total()
                calls_by_model = found
            self.refs.update(calls_by_model)
            if walked.is_unknown:
                self.unknown.add(node.id)
            if walked.may_be_skipped:
                self._perhaps_skipped.add(node.id)
            if isinstance(node, BoundStep):
                may_fail = walked.is_unknown and node.reply is not None and bool(node.reply.checks)
                if may_fail or node.review is not None:  # or the item may wait for a person
                    self.is_unsure = True
                if not (_reads_only(node) or node.inner is not None):
                    self._has_changed = True
            self.last = walked.outputs
            self.scope = self.scope.with_step(node.id, walked.outputs)

    async def _step(self, step: BoundStep) -> WalkResult:
        place = self._place
        if not self._is_whole_pipeline or not step.kind.roles:
            return await self._dry.step(
                step, self.scope, place, self.unknown, is_after_changes=self._has_changed
            )
        # At the top of a pipeline a step that asks models is an item of its own, and may be fresh.
        run = await self._judged(step)
        is_partly_unknown = bool(_steps_read(step.references) & self.unknown)
        if not run.todo() and not is_partly_unknown:
            if run.wait is not None:
                raise ItemEnds
            return WalkResult(outputs=run.results[0])
        at = WalkPlace.of(place.context, step, place.record.outer)
        walked = await self._dry.step(step, self.scope, at, self.unknown)
        if is_partly_unknown and run.work.items[0].entry is not None:
            walked = replace(walked, calls=walked.calls.perhaps())
        return walked

    async def _block(self, block: BoundBlock, is_partly_unknown: bool) -> WalkResult:
        """Walk a block within the item: its own items may be fresh."""
        is_list_unknown = bool(_steps_read(block.over.references) & self.unknown) or (
            block.if_ is not None and bool(_steps_read(block.if_.references) & self.unknown)
        )
        if is_list_unknown:
            return _bound_of_body(unbounded_steps(block.body), block.body)
        try:
            if is_block_skipped(block, self.scope):
                return WalkResult(outputs=None)
            run = await self._judged(block)
        except (ExpressionError, PipelineError) as error:
            raise ItemEnds from error
        walked = await self._dry.block(run, self._place, frozenset(self.unknown))
        if is_partly_unknown:
            walked = replace(walked, calls=walked.calls.perhaps(), is_unknown=True)
        return walked

    async def _judged(self, node: BoundNode) -> BlockState:
        blocks, outer = BlockRunner(self._place.context), self._place.record.outer
        return await blocks.judge(node, self.scope, keeps_results=True, outer=outer)


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


def bound_of_step(step: BoundStep) -> WalkResult:
    return _bound_of_body(bound_step(step), [step])


def _bound_of_body(calls: CallBounds, body: Iterable[BoundNode]) -> WalkResult:
    refs = _models_used(body) if calls.most != 0 else Counter[str]()
    return WalkResult(calls, is_unknown=True, refs=refs)


def _models_used(body: Iterable[BoundNode]) -> Counter[str]:
    asking = (step for step in all_steps(body) if step.kind.roles)
    return Counter(spec.ref for step in asking for spec in step.models)


def _reads_only(step: BoundStep) -> bool:
    """Return whether a dry run may carry out a step."""
    is_pure = step.kind.is_pure and not step.kind.roles
    return step.uses in _READING_STEPS or is_pure or hasattr(step.kind, "foresee")


def _steps_read(references: Iterable[Reference]) -> frozenset[str]:
    return frozenset(path[1] for path in references if path[0] == "steps" and len(path) > 1)


def _unknown_result(key: str) -> dict[str, Any]:
    return {"text": f"{UNKNOWN} {key}"}
