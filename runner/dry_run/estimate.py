"""Estimate what a run would do: the walk over a plan, without its work.

Only pure steps such as `files.scan` run. What another step gives is `NOT_YET` until it has run, and
so is everything that reads it. Of a top-level step behind it, placeholders tell how many calls it
makes at most; what a block has to do is not known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

from paddock.engine.system.records import replace
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError, steps_read
from paddock.pipelines.input_values import WrongInput
from paddock.pipelines.plan import all_before
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundPlan, BoundStep
from paddock.runner.bind.parameters import RenderError
from paddock.runner.bind.plan_walks import all_steps, only_reads, steps_of
from paddock.runner.bind.scope import Scope
from paddock.runner.core.block_state import BlockState
from paddock.runner.core.failures import RunStopped, StepFailed
from paddock.runner.core.item_attempt import ItemAttempt
from paddock.runner.core.left_nodes import LeftBy, LeftNode, StepsLeft
from paddock.runner.core.outputs.outdated_outputs import (
    EndedNode,
    Fate,
    OutdatedOutput,
    ended_block,
    kept_texts,
    listed_names,
)
from paddock.runner.core.outputs.pruning import Pruner, Sweep
from paddock.runner.core.outputs.same_output_file import (
    note_possible_refusal,
    refuse_other_pipelines,
)
from paddock.runner.core.run_context import RunContext
from paddock.runner.core.run_options import PreparedRun, RunEnvironment, RunOptions
from paddock.runner.core.session import open_session
from paddock.runner.core.standing_decisions import note_reviews
from paddock.runner.core.step_runner import StepRunner
from paddock.runner.core.step_tools import sub_pipeline_context
from paddock.runner.core.traces.block_work import BlockWork, ItemWork
from paddock.runner.core.traces.scopes import ItemKey
from paddock.runner.core.walk import NOT_YET, Walk, is_skipped, returns_read
from paddock.runner.folders.folder_listing import not_taken_by_watches
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.item_states import OPEN, WORK, ItemState
from paddock.runner.progress.plan_report import PlanItem, PlanReport
from paddock.runner.progress.reasons import Outdated, Why
from paddock.steps.effects import OutputEffect, StoreRows

from .call_bounds import calls_of_step
from .doubt import Doubt, DoubtPropagation, Estimate, ItemEnds, may_read_files
from .dry_tools import AskedPrompts
from .forecast import PlanForecast
from .item_estimate import ItemEstimator, estimate_block, pipeline_outputs


async def estimate_run(
    prepared: PreparedRun, options: RunOptions, environment: RunEnvironment
) -> PlanReport:
    """Return what a run would do.

    Raises:
        PipelineError: the YAML turned out to be wrong for the data at hand.
        LedgerError, EngineError: the ledger or a model cannot be used.
    """
    settings, has_pool = prepared.settings, environment.pool is not None
    async with open_session(prepared, options, environment, is_plan=True) as session:
        context, ledger = session.context, session.context.ledger
        forecast = PlanForecast(
            fills_stores=any(step.has(StoreRows) for step in all_steps(context.bound.nodes)),
            prompts=AskedPrompts(
                has_history=bool(ledger.rows(queries.HAS_CALLS)),
                is_local=has_pool or not settings.pool_urls,
            ),
        )
        walk, stats = PlanWalk(context, forecast), context.stats
        if context.bound.watches:
            not_taken = await asyncio.to_thread(lambda: [*not_taken_by_watches(context.bound)])
            stats.not_taken.update(not_taken)
        await walk.nodes()
        for sweep in forecast.swept:
            sweep()
        note_possible_refusal(context, context.bound.nodes, [walk.scope])
        last = speeds = None
        if forecast.cost.calls.weights:
            last = RunStore(ledger).last_summary(context.judge.scopes.file)
            if not has_pool:  # measured speeds are of our own pool
                from paddock.engine.backends.speed_estimates import SpeedBook

                speeds = SpeedBook(settings.pool)
        return forecast.report(stats, last, speeds)


class PlanWalk(Walk):
    def __init__(self, context: RunContext, forecast: PlanForecast, prefix: str = "") -> None:
        """`prefix`: the steps that lead here, such as `clean.`."""
        super().__init__(context)
        self._forecast = forecast
        self._prefix = prefix
        self.steps = ItemEstimator(forecast, context, DoubtPropagation(is_of_item=False))
        self.unknown: dict[str, str] = {}
        """Node → the one that must run before its outputs are known."""
        self._gone: dict[str, Outdated] = {}
        """Stored paths of files of items that the lists have no more and whose outputs go."""
        self._placeholders: dict[str, dict[str, Any] | None] = {}
        """By node that is unknown: its outputs, with placeholders; empty where there are none."""
        # Without a note of what a table is made without, which a run says
        some_are = "are asked for" if context.options.sample is None else "are in the sample"
        self.left = StepsLeft(lambda _: None, some_are)

    async def each(self, nodes: Iterable[BoundNode]) -> None:
        # In the plan's order, in which items and notes are shown; but sources before items
        for node in sorted(nodes, key=lambda node: node.id not in self.sources):
            try:
                await self.node(node)
            except (RunStopped, RenderError, WrongInput) as error:
                what = str(error) if isinstance(error, RunStopped) else f"step '{node.id}': {error}"
                raise PipelineError.of(what, mark=node.mark) from error

    def fail(self, node: BoundNode, error: StepFailed | ExpressionError) -> NoReturn:
        raise PipelineError.of(str(error), mark=node.mark) from error

    async def leave(self, node: BoundNode, left: LeftNode) -> None:
        if left.by is not LeftBy.AWAITED and not left.is_inherited:
            self.context.stats.note(left.text(f"{self._prefix}{node.id}"))

    async def skip(self, node: BoundNode) -> None:
        self.ended[node.id] = EndedNode(node, unlisted=Outdated.SKIPPED)

    async def outdated(
        self, outdated: Sequence[OutdatedOutput], questions: Collection[ItemKey]
    ) -> None:
        self._forecast.swept.append(partial(self._sweep, outdated))

    def _sweep(self, outdated: Sequence[OutdatedOutput]) -> None:
        """Name outdated outputs, but for files that work of this run may write."""
        stats, forecast = self.stats, self._forecast

        def may_be_written(stored: str) -> bool:
            return forecast.possible.has(self.context.index.absolute(stored))

        named = [o for o in outdated if o.n_rows is not None or not may_be_written(o.stored)]
        rows = (output for output in named if output.n_rows is not None)
        forecast.outdated_rows |= {(row.stored, row.scope_id, row.key): row.why for row in rows}
        sweep = Sweep.of(named, self.ended, self.context.options)
        removed = {path: why for path, why in self._gone.items() if not may_be_written(path)}
        removed |= {out.name: out.why for out in sweep.removed}
        kept = [out for out in named if out.name not in removed]
        stats.add_outdated({out.name: out.why for out in kept})
        forecast.removed |= {stats.secrets.redact(name): why for name, why in removed.items()}
        for work, doubt in sweep.doubts:
            self._add(PlanItem(work.block.id, doubt.folder, ItemState.MISSING, (doubt.reason,)))
        for why in dict.fromkeys(removed.values()):
            names = listed_names(name for name, its in removed.items() if its is why)
            stats.note(f"would be removed, since {why}: {names}")
        for note in (*sweep.notes, *kept_texts(kept)):
            stats.note(note)

    async def has_to_wait(self, node: BoundNode) -> bool:
        """Return whether what a node reads has to run first.

        By placeholders it is known how many calls a step makes at most; of a block, or of a
        pipeline that a step runs, nothing is known.
        """
        before = self.bound.edges.get(node.id, frozenset())
        pending = next((self.unknown[name] for name in sorted(before & self.unknown.keys())), None)
        if pending is None:
            return False
        self.unknown[node.id] = pending
        self._forecast.possible.add(self.bound, [node])
        with suppress(ItemEnds):  # of an `if` that cannot be evaluated
            if self.steps.skip(node, self.scope_with_placeholders()):
                self._note(node, Estimate(outputs=None, doubt=Doubt.NONE))
                return True
        if isinstance(node, BoundBlock) or node.inner is not None:
            at = self._prefix
            what = f"What '{at}{node.id}' has to do is unknown until '{at}{pending}' has run."
            self._forecast.notes.append(what)
            self._note(node, Estimate())
            return True
        ledger, scope_id = self.context.ledger, self.context.judge.scopes.register(node.id)
        entry = ledger.entries(scope_id).get(node.id)
        item = PlanItem(node.id, node.id, ItemState.NEW, ())
        if entry is not None:  # what it reads may come out as it was
            item = replace(item, state=ItemState.STALE, reasons=(Why.READS_UNDONE(pending),))
        await self._add_work(ItemAttempt.of(self.context, node), node, item, entry, pending)
        return True

    async def items(self, state: BlockState) -> EndedNode:
        """Show what a run does with each item of a block, and estimate those that are stale.

        1. It is a step outside of blocks: so is its one item.
        2. Its outputs are known. Rows of deleted items may go all the same; then what searches
           their store finds less.
        3. Its items are estimated, and its outputs are not known. Where only some items are asked
           for, it has none, and what reads it is left.
        """
        context, block, todo = self.context, state.block, state.items_to_do()
        undone = {item.index for item in (*todo, *state.in_phase(*OPEN))}
        expected = {item.index for item in todo}
        ended = await ended_block(context, state.work, undone, expected)
        scopes = [item.scope_in(block, self.scope) for item in todo]
        if todo:
            self._forecast.possible.add(self.bound, block.body, scopes)
        if not context.options.leaves_out_items:
            done = expected | {i.index for i in state.work.items if i.verdict.is_up_to_date}
            self._gone |= await Pruner(context).removable(state.work, done)
        if (step := state.step) is not None:  # 1
            (work,) = state.work.items
            of_step = PlanItem(step.id, step.id, work.verdict.state, work.verdict.reasons)
            if todo:
                attempt = ItemAttempt.of_item(context, state, work)
                note_reviews(context.judge.reviews, attempt, [step], state.scope)
                await self._add_work(attempt, step, of_step, work.entry)
            else:
                self._add_step(step, of_step)
            return ended
        note_possible_refusal(context, block.body, scopes)
        context.stats.add_filed(block.id, state.work.filed_documents())
        if _keeps_results(self.bound, state, todo):  # 2
            for work in todo:  # they lack output files
                if work.entry is not None:
                    report = state.report(work, work.verdict.state)
                    found = ItemState.DONE
                    work.end = state.end_as_recorded(context, work.entry, found, report)
            fills = any(e.keeps_rows for step in all_steps(block.body) for e in step.effects)
            if state.work.missing.deleted and fills:
                self._note(block, Estimate(outputs=state.outputs()))
        else:  # 3
            estimated = await estimate_block(self._forecast, context, state, DoubtPropagation())
            if any(item.is_undecided for item in _plan_items(state.work)):
                estimated = estimated.if_done()
            entries = [item.entry for item in state.work.items if item.entry is not None]
            self._forecast.cost.add(self._note(block, estimated).calls, entries, len(todo))
        for item in _plan_items(state.work):  # also those that wait by what is within them
            self._add(item)
        return ended

    async def step(self, step: BoundStep) -> Any:
        attempt = ItemAttempt.of(self.context, step)
        if step.inner is None and not only_reads(step):
            name = f"{self._prefix}{step.id}"
            self.context.stats.note(f"'{name}' is done in each run: it is outside of blocks.")
            self._note(step, Estimate())
            self._forecast.possible.add(self.bound, [step], [self.scope])
            return NOT_YET
        self.ended[step.id] = EndedNode(step, {step.id: Fate.DONE})
        if step.inner is not None:
            return await self._pipeline(step, attempt)
        # It gives now what it will give in the run.
        return await StepRunner(self.context).run(step, self.scope, attempt)

    async def _pipeline(self, step: BoundStep, attempt: ItemAttempt) -> Any:
        inputs = step.params.render(self.scope).inputs
        context = sub_pipeline_context(self.context, step, attempt, inputs)
        inner = PlanWalk(context, self._forecast, f"{self._prefix}{step.id}.")
        inner.left.lacking_inputs = self.left.missing_inputs.get(step.id, ())
        await inner.nodes()
        note_possible_refusal(context, inner.bound.nodes, [inner.scope])
        self.record_sub_pipeline(step, inner)
        if inner.left.first_left(LeftBy.PARTIAL):
            return NOT_YET
        unknown = {*inner.unknown}
        # Else those behind it find other files, whatever it returns.
        if not inner.steps.propagation.files:
            unknown &= steps_read(returns_read(inner.bound))
        if not unknown:
            return pipeline_outputs(step, inner.bound, inner.scope, self.scope)
        self.unknown[step.id], outputs = f"{step.id}.{inner.unknown[min(unknown)]}", {}
        with suppress(ExpressionError):  # of placeholders
            inside = inner.scope_with_placeholders()
            outputs = pipeline_outputs(step, inner.bound, inside, self.scope)
        self._note(step, Estimate(outputs=outputs, within=inner.steps.propagation))
        return NOT_YET

    def _add(self, item: PlanItem) -> None:
        self._forecast.items.append(replace(item, step=f"{self._prefix}{item.step}"))

    def _note(self, node: BoundNode, estimated: Estimate) -> Estimate:
        self.unknown.setdefault(node.id, node.id)
        self._placeholders[node.id] = estimated.outputs
        return self.steps.propagation.note(node, estimated)

    def scope_with_placeholders(self) -> Scope:
        scope = self.scope
        for name, outputs in self._placeholders.items():
            scope = scope.with_step(name, outputs)
        return scope

    # --- a step outside of blocks

    async def _add_work(
        self,
        attempt: ItemAttempt,
        step: BoundStep,
        item: PlanItem,
        entry: Entry | None,
        pending: str = "",
    ) -> None:
        """Add the calls of a step with work to do, and the step as an item of the plan.

        `pending`: the node that has to run first. It may yet make the files that the step needs.

        1. The step is tried; once the time is over, the YAML alone bounds its calls.
        2. It surely fails, and so does the plan, unless something is pending.
        3. What it reads may come out as it was: then it makes no calls.
        4. It will be skipped, so it is no item.
        5. An edited file in the place of its output holds it.
        6. The ledger has some of its replies.
        """
        steps, scope = self.steps, self.scope_with_placeholders()
        doubt = steps.propagation.of(step.reads.all) | (Doubt.FILES if pending else Doubt.NONE)
        estimated = Estimate(calls_of_step(step))
        try:  # 1
            async with asyncio.timeout_at(self._forecast.deadline) as limit:
                estimated = await steps.carried_out(step, scope, attempt, doubt)
        except TimeoutError:
            if not limit.expired():
                raise
        except ItemEnds as end:  # 2
            if not pending:
                what = f"step '{step.id}': {end}"
                raise PipelineError.of(what, mark=step.mark) from end
        if pending and entry is not None:  # 3
            estimated = estimated.if_done()
        estimated = self._note(step, estimated)
        if pending and estimated.outputs is None:  # 4
            return
        held_item = await asyncio.to_thread(self._held_item, step)  # 5
        item = held_item or item
        forecast = estimated.call_forecast
        if forecast.n_known:  # 6
            left = Why.CALLS_LEFT(forecast.n_new, forecast.n_calls)
            item = replace(item, reasons=(*item.reasons, left))
        ledger, scope_id = self.context.ledger, attempt.scope_id
        lineage = LineageStore(ledger).of_item(scope_id, step.id)
        is_older = entry is None and lineage is not None
        self._add_step(step, item, is_open=bool(pending) or is_older)
        self._forecast.cost.add(estimated.calls, [] if entry is None else [entry], 1)

    def _held_item(self, step: BoundStep) -> PlanItem | None:
        """Return a step that is held by an edited file in the place of its output. Blocking.

        Raises:
            PipelineError: it is another pipeline's output.
        """
        judge, path = self.context.judge, None
        with suppress(StepFailed):  # whether it is skipped is not known yet
            if not is_skipped(step, self.scope):
                path = judge.output_path(step, self.scope)
        if path is not None:
            refuse_other_pipelines(self.context, step, [path])
            if judge.keeps_file(step, path):
                return PlanItem(step.id, step.id, ItemState.HELD, (Why.OUTPUTS_KEPT((path,)),))
        return None

    def _add_step(self, step: BoundStep, item: PlanItem, *, is_open: bool = False) -> None:
        """Add a step outside of blocks as an item of the plan, if it is one.

        1. It asks a model: it is one in any state.
        2. An edited file, which is kept, is in the place of its output, or that is another item's.
        3. It only makes a file, and a run surely does so.
        4. `is_open`: that file may be as it is. What the step reads has to run first, and may come
           out as it was. It is none.
        """
        has_to_run = item.state in WORK and not is_open  # 3, 4
        is_kept = item.state in (ItemState.HELD, ItemState.BLOCKED)
        if step.kind.roles or is_kept or has_to_run:  # 1, 2
            self._add(item)


def _plan_items(work: BlockWork) -> Iterator[PlanItem]:
    """Yield what a block has to do, item by item, with those that its list no longer has."""
    block = work.block.id
    for item in work.items:
        yield PlanItem(block, item.key, item.verdict.state, item.verdict.reasons)
    missing, renamed = work.missing, {item.renamed_from for item in work.items}
    dropped = {entry.key for entry in missing.dropped}
    for key in missing.absences:
        if key not in renamed and key not in dropped:
            yield PlanItem(block, key, ItemState.DELETED, (missing.absences[key],))
    for unsure in missing.doubts:
        yield PlanItem(block, unsure.folder, ItemState.MISSING, (unsure.reason,))
    for key in sorted(work.excluded):
        state = ItemState.DELETED if key in dropped else ItemState.SKIPPED
        yield PlanItem(block, key, state, (Why.WHERE(),))


def _keeps_results(bound: BoundPlan, state: BlockState, todo: Collection[ItemWork]) -> bool:
    """Return whether a run changes no result of a block, nor what a step behind it finds.

    At most output files are missing, and made again as they were.
    """
    if state.is_partial or not todo:
        return not state.is_partial
    block, last = state.block, state.block.body[-1]
    if block.returns is None:  # whether a file was changed is another matter the next time
        tells_changes = isinstance(last, BoundStep) and last.has(OutputEffect)
    else:
        tells_changes = any("changed" in path for path in block.returns.references)
    can_repeat = all(step.facts.is_repeatable and step.cache for step in steps_of(block.body))
    behind = (node for node in bound.nodes if block.id in all_before(bound.edges, node.id))
    is_read = tells_changes or any(map(may_read_files, all_steps(behind)))
    return can_repeat and not is_read and all(item.verdict.is_remade for item in todo)
