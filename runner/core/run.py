"""Run a bound plan: each step as soon as what it reads is there, within the run's budget.

Knows no Prefect. A chunk of items is handed to `run_chunk`: with `--local` it is awaited,
`runner.prefect.run_tracking` makes a Prefect task of it. Steps, ledger and results are the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from paddock.engine.system import tasks
from paddock.engine.system.text import counted
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError, Reference
from paddock.pipelines.input_values import WrongInput
from paddock.runner.bind.bound import (
    BoundBlock,
    BoundNode,
    BoundPlan,
    BoundStep,
    called_plan,
    with_inputs,
)
from paddock.runner.bind.scope import Scope
from paddock.runner.folders.file_filter import not_taken_by_watches
from paddock.runner.ledger.budget import Spent, budget_reached
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.progress.drain import StopGateClosed
from paddock.runner.progress.prefect_view import PrefectState, completed, quarantined
from paddock.runner.progress.reasons import Why
from paddock.runner.progress.report import WITHOUT_RESULT, ItemReport, Report, counts_text
from paddock.steps.base import StepError
from paddock.steps.run_pipeline import named_outputs

from .blocks import BlockRunner, is_block_skipped
from .deadly_items import ItemPlace
from .dependencies import kept_paths
from .failures import RunFailed, RunStopped, StepFailed
from .item_run import ItemRun
from .items import sub_pipeline_context
from .lacking_items import blocks_read
from .outdated_outputs import NodeOutputs, find_outdated
from .pruning import OrphanCleaner, RowKeeper
from .run_context import RunContext
from .run_reviews import AwaitingReview
from .same_output_file import refuse_written_by_others
from .skipped_steps import is_step_skipped
from .steps_left_as_they_are import StepsLeft, left_text
from .work_claims import ClaimLost

SHARE_INTERVAL_S = 1.0


class BudgetMeter:
    """Counts what the run has spent, from now on. Lives in one loop."""

    def __init__(self, context: RunContext) -> None:
        self._stats = context.stats
        self._budget = context.bound.budget
        self._claims = context.claims if self._budget.is_set else None
        self._stop_gate = context.stop_gate
        self._began = time.monotonic()

    async def reached(self) -> str | None:
        """Return why nothing more may begin; None while something may.

        Raises:
            LedgerError: what other machines have spent is not known.
        """
        return budget_reached(self._budget, await self._spent(n_about_to_begin=1))

    async def share_spending(self) -> None:
        """Share what this machine has spent with others, every second and at the end."""
        if self._claims is None:
            return
        try:
            while True:
                await asyncio.sleep(SHARE_INTERVAL_S)
                with suppress(LedgerError):  # the next item or record raises it
                    await self._spent()
        finally:
            with suppress(LedgerError):
                await self._spent()

    async def _spent(self, n_about_to_begin: int = 0) -> Spent:
        seconds, (n_ended, n_in_flight) = time.monotonic() - self._began, self._stop_gate.items
        mine = Spent(seconds, self._stats.n_tokens, n_ended, n_in_flight)
        if self._claims is None:
            return mine
        # Another machine that asks now has to count the item that is about to begin.
        with_next = replace(mine, n_in_flight=n_in_flight + n_about_to_begin)
        others = await self._claims.spent_by_others(with_next)
        if others.n_ended or others.n_in_flight:
            self._stop_gate.has_begun_elsewhere = True
        return mine.along_with(others)


async def run(context: RunContext) -> Report:
    """Do everything that is stale, and return the report.

    When `context.stop` is set, nothing begins, what is in flight is cancelled, and the report says
    `interrupted`; what is finished stays finished. When `context.stop_gate` is closed, nothing
    begins, what is in flight finishes, and the report has the gate's status.

    Raises:
        PipelineError: the YAML turned out to be wrong for the data at hand.
    """
    stats, stop_gate = context.stats, context.stop_gate
    meter = BudgetMeter(context)
    stop_gate.limit = meter.reached
    walker = _PlanRun(context)
    walk = asyncio.create_task(_clean_up_and_walk(walker, context))
    sharing = asyncio.create_task(meter.share_spending())
    stopped = asyncio.create_task(context.stop.wait())
    try:
        await asyncio.wait({walk, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        context.suspects.stop()  # before what is in flight unwinds, which may be cut short
        stopped.cancel()
        sharing.cancel()
        walk.cancel()
        await asyncio.wait({walk, sharing})
    if walk.cancelled():
        words = stop_gate.words if stop_gate.status in ("interrupted", "suspended") else ""
        message = f"{words or 'Interrupted'}; the same command continues."
        is_suspended = stop_gate.status == "suspended"
        return stats.report("suspended" if is_suspended else "interrupted", message=message)
    try:
        returns = walk.result()
        if walker.has_left:
            return stats.report(stop_gate.status, message=stop_gate.left(walker.blocks.n_left))
        context.judge.refuse_unknown_keys()
        return stats.report("completed", returns=returns)
    except (RunStopped, LedgerError) as error:
        return stats.report("failed", message=str(error))


async def _clean_up_and_walk(walker: _PlanRun, context: RunContext) -> Any:
    """Drop rows that an earlier form of the file left in stores, then walk."""
    keeper = RowKeeper(context)
    context.stats.not_taken.update(
        await asyncio.to_thread(lambda: [*not_taken_by_watches(context.bound)])
    )
    try:
        is_alone = context.claims is None
        await keeper.clear(context.bound, context.judge.place(), is_alone=is_alone)
    except StepError as error:
        raise RunStopped(str(error)) from error
    return await walker.walk()


class _PlanRun:
    """One walk over the top-level steps and blocks."""

    def __init__(
        self, context: RunContext, outer: tuple[str, ...] = (), around: tuple[ItemPlace, ...] = ()
    ) -> None:
        """`outer`: keys of the items around a sub-pipeline; `around`: their scopes and keys."""
        self._context = context
        self._outer = outer
        self._around = around
        self._bound = context.bound
        self._stats = context.stats
        self._stop_gate = context.stop_gate
        self.blocks = BlockRunner(
            context, lambda step, run: _SubPipelineRun(context, self.blocks, step, run), around
        )
        self.has_left = False
        """Whether something was not begun, or not finished, since the stop gate was closed."""
        self.left = self.blocks.left
        secrets = self._stats.secrets.of(self._bound.file)
        self._scope = Scope.of(self._bound.inputs, secrets, self._bound.moment)
        self._ended = {node.id: asyncio.Event() for node in self._bound.nodes}
        self._read_blocks = blocks_whose_results_are_read(self._bound)
        returns = self._bound.returns
        self.returns = frozenset[Reference]() if returns is None else returns.references
        """What the pipeline's `returns` read."""
        self.returns_with_filed: Any = None
        """What the pipeline returns with what is filed; None: nothing is, or it is not known."""

    async def walk(self) -> Any:
        """Run every node as soon as those before it have ended; return the pipeline's `returns`."""
        refuse_written_by_others(self._context, self._scope)
        try:
            async with tasks.task_group() as group:
                for node in self._bound.nodes:
                    group.create_task(self._node(node))
        except RunFailed:
            await self._sweep()
            raise
        await self._sweep()
        returns = self._bound.returns
        if returns is None or self.has_left or self.left.is_read_by(self.returns):
            return None
        try:
            if (whole := self._scope.with_filed()) is not None:
                self.returns_with_filed = returns.render(whole)
            return returns.render(self._scope)
        except ExpressionError as error:
            raise RunFailed(f"`returns`: {error}") from error

    async def _sweep(self) -> None:
        """Handle what no longer applies of the nodes that have ended."""
        if not (self._outer or self._context.options.leaves_out_items):
            found = await find_outdated(self._context, self.blocks.ends)
            await OrphanCleaner(self._context).sweep(found, self.blocks.ends)

    async def _node(self, node: BoundNode) -> None:
        """Run a node once those before it have ended, or leave it as they were left."""
        before = self._bound.edges.get(node.id, frozenset())
        for earlier in before:
            await self._ended[earlier].wait()
        if self._stop_gate.is_closed:
            self.has_left = True
        elif why := self.left.why(node, before, self._scope, self._stats.note):
            self._stats.note(left_text(node.id, why))
            self._stats.item_state(node.id, "", "skipped")
            is_kept = node.id in {**self.left.without_results, **self.left.without_news}
            if is_kept and not (
                self._outer or isinstance(node, BoundBlock) or node.kind.roles or node.inner
            ):  # what applies is what it wrote last
                context, scope = self._context, self._context.judge.scope_id(node.id)
                end = await context.ledger.ask(NodeOutputs.of_last_run, node, scope, context.index)
                self.blocks.ends |= {} if end is None else {node.id: end}
            if node.id in self.left.without_news:
                self._scope = self._scope.with_step(node.id, None)
        else:
            try:
                outputs = await self._as_task(node)
            except StopGateClosed:
                self.has_left = True
            except AwaitingReview as wait:
                self.left.awaited[node.id] = wait
            except (StepFailed, ExpressionError) as error:
                text = str(error) if isinstance(error, StepFailed) else f"'{node.id}': {error}"
                self._stats.item(ItemReport(node.id, self._key(node), "failed", error=text))
                self._stats.item_state(node.id, "", "failed", text)
                cause = error.cause if isinstance(error, StepFailed) else "other"
                place = f"{node.mark.file}:{node.mark.line}:{node.mark.column}"
                raise RunFailed(f"{place}: {text}", cause=cause) from error
            else:
                self._scope = self._scope.with_step(node.id, outputs)
        self._ended[node.id].set()

    async def _as_task(self, node: BoundNode) -> Any:
        """Run a node as a chunk of its own; return its outputs."""
        if self._outer:  # one of the steps of an item, which belongs to a chunk
            return await self._outputs(node)
        outputs: Any = None
        awaited: AwaitingReview | None = None

        async def work() -> PrefectState:
            nonlocal outputs, awaited
            try:
                outputs = await self._outputs(node)
            except AwaitingReview as wait:
                awaited = wait
                return completed(wait.why)
            return _state_of(node, outputs)

        await self._context.run_chunk(node.id, (), work)
        if awaited is not None:
            raise awaited
        return outputs

    async def _outputs(self, node: BoundNode) -> Any:
        return await (self._block(node) if isinstance(node, BoundBlock) else self._step(node))

    async def _block(self, block: BoundBlock) -> dict[str, Any] | None:
        if is_block_skipped(block, self._scope):
            self._stats.item_state(block.id, "", "skipped")
            await self._skip(block)
            return None
        keeps = block.id in self._read_blocks
        return await self.blocks.run(block, self._scope, keeps_results=keeps, outer=self._outer)

    async def _step(self, step: BoundStep) -> Any:
        """Run a top-level step; one that calls a model is an item of its own in the ledger."""
        is_skipped = is_step_skipped(step, self._scope)
        self._stats.step(step.id, 1 if step.kind.roles and not is_skipped else None, 0)
        if is_skipped:
            self._stats.item_state(step.id, "", "skipped")
            await self._skip(step)
            return None
        if step.kind.roles:
            return await self.blocks.run_step(step, self._scope, self._outer)
        self._stats.item_state(step.id, "", "running")
        scope_id = self._context.judge.scope_id(step.id, self._outer)
        record, outputs = await self._in_turn(step, scope_id)
        if outputs is not None and step.inner is None and not changes_nothing(step):
            self._stats.acted(step.id)
        if self._outer:  # for the item around it
            self.blocks.reads |= record.dependencies()
        await self.blocks.items.record_written(record)
        for lost in record.outputs.lost_rows:
            # What became of the items whose rows a table no longer has, as far as is known
            lacking = [
                (name, state, n)
                for name in sorted(blocks_read(step.references))
                for state, n in self._scope["steps"].get(name, {}).get("counts", {}).items()
                if n and state in WITHOUT_RESULT
            ]
            found = [
                f"{counted(n, f'item of {name!r} is', f'items of {name!r} are')} {state}"
                for name, state, n in lacking
            ]
            if sum(n for _, _, n in lacking) < lost.n_before - lost.n_now:  # some went before
                found.append("what its rows are made of has changed")
            why_fewer = " and ".join(found)
            words = lost.text(why_fewer)
            self._stats.note(words)
            if lost.is_left:
                self._stats.item(ItemReport(step.id, self._key(step), "missing", error=words))
        if kept := kept_paths(record.outputs.searched):
            reasons = (Why.OUTPUTS_KEPT(tuple(kept)),)
            self._stats.item(ItemReport(step.id, self._key(step), "held", reasons=reasons))
        if not self._outer:
            self.blocks.ends[step.id] = NodeOutputs.of_step(
                step, scope_id, record.wrote(), map(self._context.index.stored, record.outputs.kept)
            )
        self._stats.item_state(step.id, "", "skipped" if outputs is None else "done")
        return outputs

    async def _skip(self, node: BoundNode) -> None:
        if self._outer or self._context.options.leaves_out_items:
            return
        self.blocks.ends[node.id] = NodeOutputs(node, is_skipped=True)
        if isinstance(node, BoundStep):
            await self.blocks.items.record_written(self._record(node))

    async def _in_turn(self, step: BoundStep, scope_id: str) -> tuple[ItemRun, Any]:
        """Run a step; steps with side effects run on one machine after the other."""
        claims = self._context.claims
        record = self._record(step)
        if claims is None or step.kind.is_pure or step.inner is not None:
            return record, await self._beside_others(step, record)
        while True:
            try:
                async with claims.turn(scope_id, step.id, self._context.index, self._stop_gate):
                    return record, await self._beside_others(step, record)
            except ClaimLost:  # this machine slept, and another one took the turn
                record = self._record(step)

    async def _beside_others(self, step: BoundStep, record: ItemRun) -> Any:
        """Run a step, while no crash suspect runs with few others; a sub-pipeline its own items."""
        if step.inner is not None:
            return await self.blocks.items.step(step, self._scope, record)
        async with self._context.room.entered():
            return await self.blocks.items.step(step, self._scope, record)

    def _record(self, step: BoundStep) -> ItemRun:
        return replace(ItemRun.of(self._context, step, self._outer), around=self._around)

    def _key(self, node: BoundNode) -> str:
        return "/".join((*self._outer, node.id))


@dataclass(frozen=True, slots=True)
class _SubPipelineRun:
    """Implements `paddock.steps.base.SubPipelines` for one step of one item."""

    context: RunContext
    blocks: BlockRunner
    """Those of the pipeline around it."""
    step: BoundStep
    record: ItemRun

    async def run(self, file: str, inputs: Mapping[str, Any]) -> Any:
        """Run the pipeline to its end; return its `returns`.

        Raises:
            StepError: an input is wrong, or it is another file than the step was checked with.
            StepFailed: something in it failed, where it was run for one item of a block.
            RunFailed, RunStopped: the whole run cannot go on.
            StopGateClosed: something in it was not begun.
        """
        step, record = self.step, self.record
        inner = called_plan(self.context.bound, step)
        if inner is None or file != step.written.get("file"):
            raise StepError(f"the pipeline '{file}' was not checked before the run.")
        try:
            bound = with_inputs(inner, inputs, self.context.bound.roots)
        except WrongInput as error:
            raise StepError(f"{error.message}.", remedy=error.remedy) from error
        context = sub_pipeline_context(self.context, step, record, bound)
        around = record.with_outer_items if record.outer else ()
        walker = _PlanRun(replace(context, run_chunk=self._run_chunk), record.outer, around)
        try:
            returns = await walker.walk()
        except RunFailed as error:
            if not record.outer:
                raise
            raise StepFailed(step.id, str(error), cause=error.cause) from error
        except PipelineError as error:
            if not record.outer:
                raise
            raise StepFailed(step.id, error.faults[0].in_one_line()) from error
        finally:
            self.blocks.n_left += walker.blocks.n_left
        self._note_end(walker)
        if walker.returns_with_filed is not None:
            record.with_filed = named_outputs(walker.returns_with_filed)
        return returns

    def _note_end(self, walker: _PlanRun) -> None:
        """Note what the items depend on, and what failed or was left; raise what has to wait."""
        step, record, inner = self.step, self.record, walker.blocks
        record.reads |= inner.reads
        record.has_inner_failures = record.has_inner_failures or inner.has_failures
        record.attempts = max(record.attempts, inner.attempts)
        if walker.has_left:
            raise StopGateClosed
        if inner.left.awaited:
            raise next(iter(inner.left.awaited.values()))
        left = StepsLeft() if record.outer else self.blocks.left
        record.has_news &= left.note_pipeline(step.id, inner.left, walker.returns)
        if inner.left.partial:
            self.blocks.left.partial.add(step.id)
        if inner.left.without_results:
            why = next(iter(inner.left.without_results.values()))
            if record.outer:
                raise StepFailed(step.id, why, cause="io" if inner.attempts > 0 else "other")
            self.blocks.left.without_results[step.id] = why

    async def _run_chunk(
        self, block: str, keys: Sequence[str], run: Callable[[], Awaitable[PrefectState]]
    ) -> None:
        await self.context.run_chunk(f"{self.step.id}.{block}", keys, run)


def changes_nothing(step: BoundStep) -> bool:
    """Return whether a step has no side effects besides files, which are reported themselves."""
    return step.kind.is_pure or step.uses in ("files.read", "files.write", "search")


def _state_of(node: BoundNode, outputs: Any) -> PrefectState:
    """Return Prefect's state of a top-level step or block that has ended."""
    if outputs is None:
        return completed("skipped")
    if not isinstance(node, BoundBlock):
        return completed("done")
    words = counts_text(outputs["counts"]) or "no items"
    is_red = any(change["state"] == "quarantined" for change in outputs["changed"])
    return quarantined(words) if is_red else completed(words)


def blocks_whose_results_are_read(bound: BoundPlan) -> frozenset[str]:
    """Return the blocks whose `results` are read; others' are not kept in memory."""
    reading: Sequence[Any] = [*bound.nodes, *([bound.returns] if bound.returns else ())]
    return frozenset().union(*(blocks_read(node.references) for node in reading))
