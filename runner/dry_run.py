"""Walk the steps of items as a run would, without side effects, and count their model calls.

Steps that only read are carried out; models are not asked (`dry_pool`): a reply that the ledger
does not have is a placeholder. What depends on a placeholder is counted as "at most". Steps that
change something, call tools or are unknown plug-ins are left out; what reads them is bounded by
what is written in the YAML alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from paddock.engine.errors import EngineError
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError, Reference
from paddock.pipelines.inputs import WrongInput
from paddock.steps.pipeline import named as outputs_of
from paddock.steps.roots import OutsideRoots
from paddock.steps.step import UNKNOWN, Foreseen, NotKnown, StepError, StepSkipped, Tools

from .attempt import StepFailed, is_skipped
from .binding.bound import BoundBlock, BoundNode, BoundStep
from .binding.inner import given_to
from .binding.parameters import BindError
from .block_run import BlockRun, result_of
from .blocks import Blocks, is_block_skipped, plain_chunks
from .body import steps_within
from .border import Border
from .calls import LedgerPool
from .dry_bounds import between, bounded, bounded_all, unbounded, with_repairs, with_tree
from .dry_pool import NO_CALLS, Asked, Calls, DryPool
from .dry_tools import DryOutputs, DryReply, DryStores
from .inside import entered
from .items import ItemRun
from .keeping import named
from .replying import AskedFor
from .retries import times
from .scope import Scope
from .tools import Toolbox
from .work import Work

MOST_S = 5.0
"""A plan does not walk longer than that; items that are left are bounded or estimated."""

_READING = frozenset(
    ("files.read", "files.rows", "files.scan", "split", "prompt", "chat", "summarise", "summarize",
     "embed", "search")
)  # fmt: skip
"""Built-in steps that change nothing, given the outputs and stores of `dry_tools`."""

_TROUBLE = (StepError, EngineError, ExpressionError, OutsideRoots, NotKnown)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a body stands: the run's own things, and the item."""

    work: Work
    toolbox: Toolbox
    record: ItemRun

    @classmethod
    def of(cls, work: Work, toolbox: Toolbox, step: str, outer: tuple[str, ...] = ()) -> Place:
        """Return the place of a top-level step."""
        scope = work.scope_id(step, outer)
        outputs = toolbox.outputs(scope, step)
        record = ItemRun(scope, step, "/".join(outer), step, None, outer, outputs)
        return cls(work, toolbox, record)

    def item(self, run: BlockRun, key: str) -> Place:
        """Return the place of an item of a block."""
        scope, outputs = run.work.scope, self.toolbox.outputs(run.work.scope, key)
        outer = (*run.outer, key)
        record = ItemRun(scope, key, run.shown(key), run.block.id, None, outer, outputs)
        return replace(self, record=record)


@dataclass(frozen=True, slots=True)
class Walked:
    """What one step, or block, would ask and offer."""

    calls: Calls = NO_CALLS
    outputs: dict[str, Any] | None = field(default_factory=dict)
    """None: it is skipped; empty where they are not known."""
    is_unknown: bool = False
    """Whether `outputs` are, or contain, placeholders."""
    may_be_skipped: bool = False
    seen: Foreseen | None = None
    """Calls, and how many of them have replies; None where the step could not be walked."""
    refs: frozenset[str] = frozenset()
    """Names of the models that would be asked."""


class ItemEnds(Exception):
    """The item surely fails here: the steps behind it are not reached."""


class DryRun:
    """One plan's walk over everything that has work to do."""

    def __init__(self, ledger_has_calls: bool, *, counts_exactly: bool, fills_stores: bool) -> None:
        """`fills_stores`: the run may make a store that is not there yet."""
        self._fills_stores = fills_stores
        self._asked = Asked(ledger_has_calls)
        self._counts_exactly = counts_exactly
        self._ends_at = asyncio.get_running_loop().time() + MOST_S

    # --- blocks

    async def block(self, run: BlockRun, place: Place, unknown: frozenset[str]) -> Walked:
        """Walk every item that has work to do; what is left at the end of the time is estimated.

        `unknown` are the steps around the block whose outputs are placeholders.
        """
        calls, refs = Calls(), set[str]()
        results = list(run.results)
        for item in run.todo():
            scope = item.seen(run.block, run.scope)
            at = place.item(run, item.key)
            walked = await self._in_time(run, scope, at, unknown, refs)
            if walked is not None:
                one, result = walked
            else:
                one, result = bounded_all(run.block.body), _unknown_result(item.key)
                refs |= _refs(run.block.body)
            calls += one
            results[item.index] = result
        offered = {**run.offered(), "results": [one for one in results if one is not None]}
        return Walked(calls, offered, is_unknown=bool(run.todo()), refs=frozenset(refs))

    async def _in_time(
        self,
        run: BlockRun,
        scope: Scope,
        place: Place,
        unknown: frozenset[str],
        refs: set[str],
    ) -> tuple[Calls, Any] | None:
        """Walk one item; None where the time is over."""
        if asyncio.get_running_loop().time() >= self._ends_at:
            return None  # asked as well: where nothing waits, a timeout never comes
        try:
            async with asyncio.timeout_at(self._ends_at):
                return await self._item(run, scope, place, unknown, refs)
        except TimeoutError:
            return None

    async def _item(
        self,
        run: BlockRun,
        scope: Scope,
        place: Place,
        unknown: frozenset[str],
        refs: set[str],
    ) -> tuple[Calls, Any]:
        """Walk one item's steps; returns its calls and its result."""
        body = _Body(self, scope, place, set(unknown))
        try:
            await body.walk(run.block.body)
            return body.calls, result_of(run.block, body.scope, body.last)
        except ItemEnds:
            return body.calls, None
        except StepFailed:  # its `returns` read what is not known
            return body.calls, _unknown_result(place.record.key)
        finally:
            refs |= body.refs

    # --- steps

    async def step(
        self,
        step: BoundStep,
        scope: Scope,
        place: Place,
        unknown: Iterable[str],
        *,
        is_after_changes: bool = False,
    ) -> Walked:
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
                if is_skipped(step, scope):
                    return Walked(outputs=None)
            except StepFailed as error:
                raise ItemEnds from error
        walked = await self._once(step, scope, place, is_partly_unknown)
        if not may_be_skipped:
            return walked
        return replace(walked, calls=walked.calls.perhaps(), is_unknown=True, may_be_skipped=True)

    async def _once(
        self, step: BoundStep, scope: Scope, place: Place, is_partly_unknown: bool
    ) -> Walked:
        if step.inner is not None:
            return await self._inner(step, scope, place, is_partly_unknown)
        if not _reads_only(step):
            return not_walked(step)
        before = self._asked.copy()
        walked = await self._tried(step, scope, place, is_partly_unknown, self._asked)
        n_unknown = walked.seen.n_calls - walked.seen.n_known if walked.seen is not None else 0
        if _is_sized(step) and (is_partly_unknown or n_unknown > 1 or not self._counts_exactly):
            longest = await self._tried(step, scope, place, is_partly_unknown, before, is_long=True)
            walked = replace(walked, calls=between(walked.calls, longest.calls))
        return walked

    async def _tried(
        self,
        step: BoundStep,
        scope: Scope,
        place: Place,
        is_partly_unknown: bool,
        asked: Asked,
        *,
        is_long: bool = False,
    ) -> Walked:
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
            return not_walked(step)
        outputs: dict[str, Any] | None = {}
        seen, is_over = None, False
        try:
            if foresees:
                seen = await step.kind().foresee(params, tools)  # type: ignore[attr-defined]
                outputs = {"text": UNKNOWN, "output": None}
            else:
                outputs = (await step.kind().run(params, tools)).model_dump(mode="json")
            if step.returns is not None:
                outputs = step.returns.render(scope.with_step(step.id, outputs))
        except StepSkipped:
            outputs = None
        except _TROUBLE as error:
            may_be_filled = step.uses == "search" and self._fills_stores
            is_partly_unknown = is_partly_unknown or may_be_filled
            is_sure = not (pool.n_unknown or is_partly_unknown)
            if is_sure and not (step.kind.roles and times(step.retry, "check")):
                raise ItemEnds from error
            outputs, is_over = {}, True
            if is_partly_unknown and not is_long:  # a template may read what is not there yet
                bound = not_walked(step)
                return replace(bound, calls=between(pool.calls, bound.calls))
        calls = pool.calls
        if seen is not None:
            calls = with_tree(calls, seen.n_calls - seen.n_known, asked)
        elif is_over and is_long:
            n_parts = len(params.over) if foresees else calls.most or 0
            calls = Calls(0, 2 * n_parts + 1)
        return Walked(
            with_repairs(step, calls, holds_forms=self._counts_exactly),
            outputs,
            is_unknown=is_partly_unknown or is_over or foresees or pool.n_unknown > 0,
            seen=seen or Foreseen(pool.n_known + pool.n_unknown, pool.n_known),
            refs=frozenset(pool.refs) or (_refs([step]) if calls.most else frozenset()),
        )

    def _tools(
        self, step: BoundStep, scope: Scope, place: Place, asked: Asked, *, is_long: bool
    ) -> tuple[Tools, DryPool]:
        record, toolbox = place.record, place.toolbox
        caller = toolbox.caller(record.scope, step, record.shown_key, record.block)
        index = place.work.index
        item = named(scope, step.id, record.scope, record.key, record.shown_key, index)
        tools = toolbox.tools(step, caller, record.outputs, item)
        assert isinstance(tools.pool, LedgerPool)
        pool = DryPool(
            tools.pool,
            asked,
            f"{record.scope}\n{record.key}",
            counts_exactly=self._counts_exactly,
            is_long=is_long,
            raises=hasattr(step.kind, "foresee"),
        )
        reply = None if step.reply is None else DryReply(AskedFor(step.reply, scope), pool)
        outputs, stores = DryOutputs(tools.outputs), DryStores(tools.stores)
        return replace(tools, pool=pool, reply=reply, outputs=outputs, stores=stores), pool

    # --- pipelines that steps run

    async def _inner(
        self, step: BoundStep, scope: Scope, place: Place, is_partly_unknown: bool
    ) -> Walked:
        inner = step.inner
        assert inner is not None
        try:
            params = step.params.render(scope)
            bound = given_to(inner, params.inputs, place.toolbox.bound.roots)
        except (BindError, WrongInput) as error:
            if not is_partly_unknown:
                raise ItemEnds from error
            return not_walked(step)
        work, toolbox = entered(step, place.record, bound, place.work, place.toolbox)
        secrets = toolbox.tally.secrets.of(bound.file)
        at = Place(work, toolbox, place.record)
        body = _Body(self, Scope.of(bound.inputs, secrets), at, set(), is_whole_pipeline=True)
        if is_partly_unknown:
            body.is_unsure = True
        outputs: dict[str, Any] = {}
        await body.walk(bound.nodes)
        try:
            returned = bound.returns.render(body.scope) if bound.returns is not None else None
            outputs = outputs_of(returned)
            if step.returns is not None:
                outputs = step.returns.render(scope.with_step(step.id, outputs))
        except ExpressionError:
            body.unknown.add(step.id)
        is_unknown = is_partly_unknown or bool(body.unknown)
        return Walked(body.calls, outputs, is_unknown=is_unknown, refs=frozenset(body.refs))


class _Body:
    """Walks the steps of one item, or of a pipeline that a step runs, in order."""

    def __init__(
        self,
        dry: DryRun,
        scope: Scope,
        place: Place,
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
        self.calls = Calls()
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

    def _add(self, node: BoundNode, walked: Walked) -> None:
        is_sure = not (walked.may_be_skipped or self.is_unsure)
        self.calls += walked.calls if is_sure else walked.calls.perhaps()
        self.refs |= walked.refs
        if walked.is_unknown:
            self.unknown.add(node.id)
        if walked.may_be_skipped:
            self._perhaps_skipped.add(node.id)
        if isinstance(node, BoundStep) and node.reply is not None and node.reply.checks:
            self.is_unsure = self.is_unsure or walked.is_unknown  # it may fail its checks
        if isinstance(node, BoundStep) and not (_reads_only(node) or node.inner is not None):
            self._has_changed = True
        self.last = walked.outputs
        self.scope = self.scope.with_step(node.id, walked.outputs)

    async def _step(self, step: BoundStep) -> Walked:
        place = self._place
        if not self._is_whole_pipeline or not step.kind.roles:
            return await self._dry.step(
                step, self.scope, place, self.unknown, is_after_changes=self._has_changed
            )
        # At the top of a pipeline a step that asks models is an item of its own, and may be fresh.
        outer = place.record.outer
        _, item = await place.work.step(step, self.scope, outer)
        is_partly_unknown = bool(_steps_read(step.references) & self.unknown)
        if not item.verdict.is_work and item.entry is not None and not is_partly_unknown:
            entry = item.entry
            return Walked(outputs=place.work.ledger.value(entry.returns, entry.returns_object))
        at = Place.of(place.work, place.toolbox, step.id, outer)
        walked = await self._dry.step(step, self.scope, at, self.unknown)
        if is_partly_unknown and item.entry is not None:
            walked = replace(walked, calls=walked.calls.perhaps())
        return walked

    async def _block(self, block: BoundBlock, is_partly_unknown: bool) -> Walked:
        """Walk a block within the item: its own items may be fresh."""
        is_list_unknown = bool(_steps_read(block.over.references) & self.unknown) or (
            block.if_ is not None and bool(_steps_read(block.if_.references) & self.unknown)
        )
        if is_list_unknown:
            return _bound_only(unbounded(block.body), block.body)
        try:
            if is_block_skipped(block, self.scope):
                return Walked(outputs=None)
            blocks = Blocks(self._place.work, self._place.toolbox, plain_chunks, Border())
            outer = self._place.record.outer
            run = await blocks.settle(block, self.scope, keeps_results=True, outer=outer)
        except (ExpressionError, PipelineError) as error:
            raise ItemEnds from error
        walked = await self._dry.block(run, self._place, frozenset(self.unknown))
        if is_partly_unknown:
            walked = replace(walked, calls=walked.calls.perhaps(), is_unknown=True)
        return walked


def not_walked(step: BoundStep) -> Walked:
    """Return what is known of a step that cannot be walked: a bound."""
    return _bound_only(bounded(step), [step])


def _bound_only(calls: Calls, body: Iterable[BoundNode]) -> Walked:
    refs = _refs(body) if calls.most != 0 else frozenset[str]()
    return Walked(calls, is_unknown=True, refs=refs)


def _refs(body: Iterable[BoundNode]) -> frozenset[str]:
    """Return the names of the models that steps may ask."""
    asking = (step for step in steps_within(body) if step.kind.roles)
    return frozenset(spec.ref for step in asking for spec in step.models)


def _reads_only(step: BoundStep) -> bool:
    """Tell whether a dry run may carry out a step."""
    is_pure = step.kind.is_pure and not step.kind.roles
    return step.uses in _READING or is_pure or hasattr(step.kind, "foresee")


def _is_sized(step: BoundStep) -> bool:
    """Tell whether how often a step asks depends on how long texts are."""
    if step.uses in ("summarise", "summarize") or hasattr(step.kind, "foresee"):
        return True
    return step.params.value.data.get("on_overflow") in ("map-reduce", "refine")


def _steps_read(references: Iterable[Reference]) -> frozenset[str]:
    return frozenset(path[1] for path in references if path[0] == "steps" and len(path) > 1)


def _unknown_result(key: str) -> dict[str, Any]:
    return {"text": f"{UNKNOWN} {key}"}
