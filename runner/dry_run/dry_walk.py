"""Walk the steps of items as a run would, without side effects, and count their model calls.

Steps that only read are run; models are not asked: a reply that the ledger does not have is a
placeholder, and what depends on it counts as "at most". Steps that change something, call tools or
come from unknown plug-ins are left out; what reads them is bounded by the YAML alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from paddock.engine.errors import EngineError
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError, Reference
from paddock.pipelines.keys import WrongInput
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from paddock.runner.bind.evidence_sources import EvidenceFinder
from paddock.runner.bind.inputs_and_parameters import BindError, Scope
from paddock.runner.bind.reply import ScopedReply
from paddock.runner.bind.subpipelines import all_steps, with_inputs
from paddock.runner.core.blocks import BlockRunner, BlockState, is_block_skipped, item_result
from paddock.runner.core.call_cache import LedgerPool
from paddock.runner.core.items import ItemRun, sub_pipeline_context
from paddock.runner.core.retry_and_quarantine import StepFailed, is_step_skipped, times
from paddock.runner.core.run_context import ItemOutputs, RunContext
from paddock.steps.base import (
    UNKNOWN,
    CallForecast,
    OutsideRoots,
    ReplyNotCached,
    StepError,
    StepSkipped,
    Tools,
)
from paddock.steps.run_pipeline import named_outputs

from .dry_context import (
    NO_CALLS,
    AskedPrompts,
    CallBounds,
    DryOutputs,
    DryPool,
    DryReply,
    DryStores,
)


def bound_steps(body: Iterable[BoundNode]) -> CallBounds:
    """Bound the calls of steps by their kinds alone."""
    total = CallBounds()
    for node in body:
        total += unbounded_steps(node.body) if isinstance(node, BoundBlock) else bound_step(node)
    return total


def unbounded_steps(body: Iterable[BoundNode]) -> CallBounds:
    """Return the calls of a body that runs for an unknown number of items."""
    asks = any(step.kind.roles for step in all_steps(body))
    return CallBounds(0, None) if asks else CallBounds()


def bound_step(step: BoundStep) -> CallBounds:
    """Bound the calls of one step by what is written."""
    if step.inner is not None:
        return bound_steps(step.inner.nodes)
    if not step.kind.roles:
        return CallBounds()
    most = _max_calls(step)
    if most is None:
        return CallBounds(0, None)
    return replace(with_repairs(step, CallBounds(0, most)), least=0)


def _max_calls(step: BoundStep) -> int | None:
    written = step.params.value.data
    if step.uses == "agent":
        return _max_agent_calls(written)
    if step.uses == "search":
        return int(written.get("mode") != "text")
    if step.uses in ("chat", "summarise", "summarize"):
        usual = "error" if step.uses == "chat" else "map-reduce"
        has_parts = written.get("on_overflow", usual) in ("map-reduce", "refine")
        return None if has_parts or "map" in step.params.templates else 1
    if step.uses == "embed" and "store" not in written:
        return 1
    return None


def _max_agent_calls(written: Mapping[str, Any]) -> int | None:
    """Bound an agent: its turns, the answer without tools, and what it does to remember."""
    from paddock.steps.llm.agent import AgentParams

    n_turns = written.get("max_turns", AgentParams.model_fields["max_turns"].default)
    if not isinstance(n_turns, int):
        return None  # an expression
    memory = written.get("memory", "window")
    kept = {"window": 0, "summary": n_turns, "store": 3 * n_turns + 3}.get(memory)
    return None if kept is None else n_turns + 1 + kept


def with_repairs(step: BoundStep, calls: CallBounds, *, holds_forms: bool = False) -> CallBounds:
    """Add what checks may cost: an answer that does not pass them is asked for again.

    `holds_forms`: the model is served on this machine, where it cannot leave a form.
    """
    if not calls.most:
        return calls
    most = calls.most
    is_held = holds_forms and step.model is not None and not step.model.pool
    if step.reply is not None and (step.reply.checks or not is_held):
        most += step.reply.repair * (most if hasattr(step.kind, "foresee") else 1)
    return CallBounds(calls.least, most * (1 + times(step.retry, "check")))


def with_tree(surely: CallBounds, n_new: int, asked: AskedPrompts) -> CallBounds:
    """Add the calls of a tree whose prompts have parts that are not known yet."""
    n_later = n_new - (surely.most or 0)
    return CallBounds(surely.least + (0 if asked.has_history else n_later), n_new)


def between_lengths(shortest: CallBounds, longest: CallBounds) -> CallBounds:
    """Bound what depends on how long answers are."""
    if shortest.most is None or longest.most is None:
        return CallBounds(min(shortest.least, longest.least), None)
    return CallBounds(min(shortest.least, longest.least), max(shortest.most, longest.most))


MAX_WALK_S = 5.0
"""A plan does not walk longer than that; items that are left are bounded or estimated."""

_READING_STEPS = frozenset(
    ("files.read", "files.rows", "files.scan", "split", "prompt", "chat", "summarise", "summarize",
     "embed", "search")
)  # fmt: skip
"""Built-in steps without side effects, with the outputs and stores of a dry run."""

_STEP_ERRORS = (StepError, EngineError, ExpressionError, OutsideRoots, ReplyNotCached)


@dataclass(frozen=True, slots=True)
class WalkPlace:
    """Context of a body in the walk, and its item."""

    context: RunContext
    record: ItemRun

    @classmethod
    def of(cls, context: RunContext, node: BoundNode, outer: tuple[str, ...] = ()) -> WalkPlace:
        """Return the place of a top-level step or block."""
        return cls(context, ItemRun.of(context, node, outer))

    def item(self, run: BlockState, key: str) -> WalkPlace:
        """Return the place of an item of a block."""
        scope, outputs = run.work.scope, ItemOutputs(self.context, run.work.scope, key)
        outer = (*run.outer, key)
        record = ItemRun(scope, key, run.shown(key), run.block.id, None, outer, outputs)
        return replace(self, record=record)


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
    refs: frozenset[str] = frozenset()
    """Names of the models that would be asked."""


class ItemEnds(Exception):
    """The item surely fails here: the steps behind it are not reached."""


class DryWalk:
    """A plan's walk over all stale items."""

    def __init__(self, ledger_has_calls: bool, *, counts_exactly: bool, fills_stores: bool) -> None:
        """`fills_stores`: the run may make a store that is not there yet."""
        self._fills_stores = fills_stores
        self._asked = AskedPrompts(ledger_has_calls)
        self._counts_exactly = counts_exactly
        self._ends_at = asyncio.get_running_loop().time() + MAX_WALK_S

    # --- blocks

    async def block(self, run: BlockState, place: WalkPlace, unknown: frozenset[str]) -> WalkResult:
        """Walk every stale item; those left when the time is over are estimated.

        `unknown` are the steps around the block whose outputs are placeholders.
        """
        calls, refs = CallBounds(), set[str]()
        results = list(run.results)
        for item in run.todo():
            scope = item.seen(run.block, run.scope)
            body = _BodyWalk(self, scope, place.item(run, item.key), set(unknown))
            walked = await self._in_time(run.block, body, item.key)
            refs |= body.refs
            if walked is None:
                walked = bound_steps(run.block.body), _unknown_result(item.key)
                refs |= _models_used(run.block.body)
            calls += walked[0]
            results[item.index] = walked[1]
        offered = {**run.offered(), "results": [one for one in results if one is not None]}
        return WalkResult(calls, offered, is_unknown=bool(run.todo()), refs=frozenset(refs))

    async def _in_time(
        self, block: BoundBlock, body: _BodyWalk, key: str
    ) -> tuple[CallBounds, Any] | None:
        """Walk one item; return its calls and its result, None where the time is over."""
        if asyncio.get_running_loop().time() >= self._ends_at:
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
        before = self._asked.copy()
        walked = await self._tried(step, scope, place, is_partly_unknown, self._asked)
        n_unknown = walked.seen.n_calls - walked.seen.n_known if walked.seen is not None else 0
        if _is_sized(step) and (is_partly_unknown or n_unknown > 1 or not self._counts_exactly):
            longest = await self._tried(step, scope, place, is_partly_unknown, before, is_long=True)
            walked = replace(walked, calls=between_lengths(walked.calls, longest.calls))
        return walked

    async def _tried(
        self,
        step: BoundStep,
        scope: Scope,
        place: WalkPlace,
        is_partly_unknown: bool,
        asked: AskedPrompts,
        *,
        is_long: bool = False,
    ) -> WalkResult:
        """Carry out a step that only reads. `is_long`: as if each unknown answer were the longest.

        Raises:
            ItemEnds: it surely fails.
        """
        foresees = hasattr(step.kind, "foresee")
        tools, pool = self._tools(step, scope, place, asked, is_long=is_long)
        try:
            params = step.params.render(scope)
        except BindError as error:
            if not is_partly_unknown:
                raise ItemEnds from error
            return bound_of_step(step)
        outputs: dict[str, Any] | None = {}
        seen, is_over = None, False
        try:
            if foresees:
                seen = await step.kind().foresee(params, tools)  # type: ignore[attr-defined]
                outputs = dict.fromkeys(("output", "evidence", "confidence"))
                outputs["text"] = UNKNOWN
            else:
                outputs = (await step.kind().run(params, tools)).model_dump(mode="json")
            if step.returns is not None:
                outputs = step.returns.render(scope.with_step(step.id, outputs))
        except StepSkipped:
            outputs = None
        except _STEP_ERRORS as error:
            may_be_filled = step.uses == "search" and self._fills_stores
            is_partly_unknown = is_partly_unknown or may_be_filled
            is_sure = not (pool.n_unknown or is_partly_unknown)
            if is_sure and not (step.kind.roles and times(step.retry, "check")):
                raise ItemEnds from error
            outputs, is_over = {}, True
            if is_partly_unknown and not is_long:  # a template may read what is not there yet
                bound = bound_of_step(step)
                return replace(bound, calls=between_lengths(pool.calls, bound.calls))
        calls = pool.calls
        if seen is not None:
            calls = with_tree(calls, seen.n_calls - seen.n_known, asked)
        elif is_over and is_long:
            n_parts = len(params.over) if foresees else calls.most or 0
            calls = CallBounds(0, 2 * n_parts + 1)
        return WalkResult(
            with_repairs(step, calls, holds_forms=self._counts_exactly),
            outputs,
            is_unknown=is_partly_unknown or is_over or foresees or pool.n_unknown > 0,
            seen=seen or CallForecast(pool.n_known + pool.n_unknown, pool.n_known),
            refs=frozenset(pool.refs) or (_models_used([step]) if calls.most else frozenset()),
        )

    def _tools(
        self, step: BoundStep, scope: Scope, place: WalkPlace, asked: AskedPrompts, *, is_long: bool
    ) -> tuple[Tools, DryPool]:
        record, context = place.record, place.context
        caller = context.caller(record.scope, step, record.shown_key, record.block)
        item = record.name(step.id, scope, context.index)
        tools = context.tools(step, caller, record.outputs, item)
        assert isinstance(tools.pool, LedgerPool)
        pool = DryPool(
            tools.pool,
            asked,
            f"{record.scope}\n{record.key}",
            counts_exactly=self._counts_exactly,
            is_long=is_long,
            raises=hasattr(step.kind, "foresee"),
        )
        reply, form = None, step.reply
        if form is not None:
            finder = None
            with contextlib.suppress(StepError):  # what is not known yet may be no text
                finder = EvidenceFinder.of(form.evidence, form.schema, scope, tools)
            reply = DryReply(ScopedReply(form, scope, finder), pool)
        outputs = DryOutputs(context, record.scope, record.key)
        stores = DryStores(tools.stores)
        return replace(tools, pool=pool, reply=reply, outputs=outputs, stores=stores), pool

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
        body = _BodyWalk(self, Scope.of(bound.inputs, secrets), at, set(), is_whole_pipeline=True)
        if is_partly_unknown:
            body.is_unsure = True
        outputs: dict[str, Any] = {}
        await body.walk(bound.nodes)
        try:
            outputs = pipeline_outputs(step, bound, body.scope, scope)
        except ExpressionError:
            body.unknown.add(step.id)
        is_unknown = is_partly_unknown or bool(body.unknown)
        return WalkResult(body.calls, outputs, is_unknown=is_unknown, refs=frozenset(body.refs))


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
        self.calls = CallBounds()
        self.refs: set[str] = set()
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
            self._add(node, walked)

    def _add(self, node: BoundNode, walked: WalkResult) -> None:
        is_sure = not (walked.may_be_skipped or self.is_unsure)
        self.calls += walked.calls if is_sure else walked.calls.perhaps()
        self.refs |= walked.refs
        if walked.is_unknown:
            self.unknown.add(node.id)
        if walked.may_be_skipped:
            self._perhaps_skipped.add(node.id)
        if isinstance(node, BoundStep) and node.reply is not None and node.reply.checks:
            self.is_unsure = self.is_unsure or walked.is_unknown  # it may fail its checks
        if isinstance(node, BoundStep) and node.review is not None:
            self.is_unsure = True  # the item may wait for a person
        if isinstance(node, BoundStep) and not (_reads_only(node) or node.inner is not None):
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
        outer = place.record.outer
        _, item = await place.context.judge.step(step, self.scope, outer)
        is_partly_unknown = bool(_steps_read(step.references) & self.unknown)
        if not item.verdict.is_work and item.entry is not None and not is_partly_unknown:
            if item.verdict.state == "waiting":
                raise ItemEnds
            value = place.context.ledger.value
            return WalkResult(outputs=value(item.entry.returns, item.entry.returns_object))
        at = WalkPlace.of(place.context, step, outer)
        walked = await self._dry.step(step, self.scope, at, self.unknown)
        if is_partly_unknown and item.entry is not None:
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
            blocks = BlockRunner(self._place.context)
            outer = self._place.record.outer
            run = await blocks.settle(block, self.scope, keeps_results=True, outer=outer)
        except (ExpressionError, PipelineError) as error:
            raise ItemEnds from error
        walked = await self._dry.block(run, self._place, frozenset(self.unknown))
        if is_partly_unknown:
            walked = replace(walked, calls=walked.calls.perhaps(), is_unknown=True)
        return walked


def pipeline_outputs(step: BoundStep, bound: BoundPlan, inner: Scope, scope: Scope) -> Any:
    """Return the outputs of a step that runs a pipeline; `inner`: the pipeline's scope at its end.

    Raises:
        ExpressionError: a `returns` failed.
    """
    outputs = named_outputs(bound.returns.render(inner) if bound.returns is not None else None)
    if step.returns is None:
        return outputs
    return step.returns.render(scope.with_step(step.id, outputs))


def bound_of_step(step: BoundStep) -> WalkResult:
    """Return what is known of a step that cannot be walked: a bound."""
    return _bound_of_body(bound_step(step), [step])


def _bound_of_body(calls: CallBounds, body: Iterable[BoundNode]) -> WalkResult:
    refs = _models_used(body) if calls.most != 0 else frozenset[str]()
    return WalkResult(calls, is_unknown=True, refs=refs)


def _models_used(body: Iterable[BoundNode]) -> frozenset[str]:
    """Return the names of the models that steps may ask."""
    asking = (step for step in all_steps(body) if step.kind.roles)
    return frozenset(spec.ref for step in asking for spec in step.models)


def _reads_only(step: BoundStep) -> bool:
    """Return whether a dry run may carry out a step."""
    is_pure = step.kind.is_pure and not step.kind.roles
    return step.uses in _READING_STEPS or is_pure or hasattr(step.kind, "foresee")


def _is_sized(step: BoundStep) -> bool:
    """Return whether how often a step asks depends on how long texts are."""
    if step.uses in ("summarise", "summarize") or hasattr(step.kind, "foresee"):
        return True
    return step.params.value.data.get("on_overflow") in ("map-reduce", "refine")


def _steps_read(references: Iterable[Reference]) -> frozenset[str]:
    return frozenset(path[1] for path in references if path[0] == "steps" and len(path) > 1)


def _unknown_result(key: str) -> dict[str, Any]:
    return {"text": f"{UNKNOWN} {key}"}
