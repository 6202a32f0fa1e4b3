"""Run a bound plan within its budget: clean up, walk, do stale items, report.

`Execute` acts on what `walk` decides: it runs steps, the items of blocks (`block_run`), and the
pipelines that steps run. Imports no Prefect: a node, or a chunk of items, runs within
`RunContext.show_chunk`, which shows it, or does not.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from paddock.engine.system.records import Struct, replace
from paddock.engine.system.tasks import in_left_thread, task_group
from paddock.engine.system.units import duration
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.input_values import WrongInput
from paddock.pipelines.typed_rows import TypedRows
from paddock.runner.bind.bound import BoundBlock, BoundNode, BoundStep
from paddock.runner.bind.plan_walks import only_reads
from paddock.runner.folders.folder_listing import not_taken_by_watches
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.item_events import EventKind
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.progress.item_states import LISTED, WHOLE, ItemState
from paddock.runner.progress.reasons import Outdated
from paddock.runner.progress.report import ItemReport, Report
from paddock.runner.progress.report_table import ReportTable
from paddock.steps.base import StepError
from paddock.steps.run_end import FolderAtEnd

from .block_run import BlockRun
from .block_state import OUTERMOST, BlockState, EnclosingItems
from .failures import Cause, RunFailed, RunStopped, StepFailed
from .item_attempt import ItemAttempt, StepAttempt
from .item_recorder import ItemRecorder
from .left_nodes import LeftBy, LeftNode, blocks_read
from .outputs.outdated_outputs import EndedNode, Fate, MadeOutputs, OutdatedOutput
from .outputs.pruning import Pruner
from .outputs.vector_rows import clear_rows
from .run_context import RunContext
from .step_runner import StepRunner
from .step_tools import sub_pipeline_context
from .traces.dependencies import Dependencies
from .traces.scopes import ItemKey
from .walk import Walk, returns_read


async def run(context: RunContext) -> Report:
    """Do everything that is stale, and return the report.

    When `context.stop` is set, nothing begins, what is in flight is cancelled, and the report says
    `interrupted`; what is finished stays finished. When `context.stop_gate` is closed, nothing
    begins, what is in flight finishes, and the report has the gate's status.

    Raises:
        PipelineError: the YAML turned out to be wrong for the data at hand.
    """
    stats, stop_gate = context.stats, context.stop_gate
    walk = Execute(context)
    work = asyncio.create_task(_clean_up_and_walk(walk))
    if context.bound.pipeline.budget is not None:
        stop_gate.limit = partial(_budget_reached, context, time.monotonic())
    stopped = asyncio.create_task(context.stop.wait())
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not work.done():  # before what is in flight unwinds, which may be cut short
            context.suspects.stop()
        stopped.cancel()
        work.cancel()
        await asyncio.wait({work})
    if work.cancelled():
        words = stop_gate.message if stop_gate.status in ("interrupted", "suspended") else ""
        message = f"{words or 'Interrupted'}; the same command continues."
        is_suspended = stop_gate.status == "suspended"
        return stats.report("suspended" if is_suspended else "interrupted", message=message)
    try:
        returns = work.result()
        if walk.has_unbegun:
            return stats.report(stop_gate.status, message=stop_gate.left(walk.n_unbegun))
        if context.options.only:
            context.judge.requested.refuse_unknown()
        return stats.report("completed", returns=returns)
    except (RunStopped, LedgerError) as error:
        return stats.report("failed", message=str(error))


async def _budget_reached(context: RunContext, began: float) -> str | None:
    """Return the message that no more items may begin, without a full stop, or None.

    The tokens are those spent once the items in flight are done; on average they are half done.
    Replies from the ledger cost nothing.
    """
    budget, tokens = context.bound.budget, float(context.stats.n_tokens)
    n_ended, n_in_flight = context.stop_gate.items
    if n_done := n_ended + n_in_flight / 2:
        tokens *= 1 + n_in_flight / 2 / n_done
    if budget.tokens is not None and tokens >= budget.tokens:
        return f"The budget of {budget.tokens:,} tokens is used up"
    if budget.time is not None and time.monotonic() - began >= budget.time:
        return f"The budget of {duration(budget.time)} is used up"
    return None


async def _clean_up_and_walk(walk: Execute) -> Any:
    context = walk.context
    if context.bound.watches:
        not_taken = await asyncio.to_thread(lambda: [*not_taken_by_watches(context.bound)])
        context.stats.not_taken.update(not_taken)
    if LineageStore(context.ledger).stores():
        try:
            await clear_rows(context)
        except StepError as error:
            raise RunStopped(str(error)) from error
    await walk.nodes()
    for action in context.at_end or ():
        await context.ledger.durable()
        at_end = _folder_at_end(walk, action.folder)
        try:
            notes = await in_left_thread(partial(action.finish, at_end))
        except StepError as error:
            raise RunStopped(str(error)) from error
        for note in notes:
            context.stats.note(note)
    return walk.returned()


def _folder_at_end(walk: Execute, folder: Path) -> FolderAtEnd:
    context = walk.context
    index, file, root = context.index, context.judge.scopes.file, f"{folder}{os.sep}"
    documents = LineageStore(context.ledger).sources_below(index.stored(folder), file, WHOLE)
    paths = frozenset(map(index.absolute, documents)), index.owned(folder)
    done, outputs = (
        {path.removeprefix(root).replace(os.sep, "/") for path in some if path.startswith(root)}
        for some in paths
    )
    identity, name = context.ledger.identity, context.judge.scopes.name
    return FolderAtEnd(
        done,
        outputs,
        name,
        [f"{identity}\n{former}" for former in dict.fromkeys((file, name))],
        (paths[1] - walk.outdated_files).__contains__,
        [action.folder for action in context.at_end or ()],
        context.options.takes_over,
    )


class Execute(Walk):
    def __init__(self, context: RunContext, enclosing: EnclosingItems = OUTERMOST) -> None:
        super().__init__(context, enclosing)
        self.step_runner = StepRunner(context, partial(_SubPipelineRun, self))
        self.recorder = ItemRecorder(context)
        self.dependencies: Dependencies = {}
        """Recorded dependencies, for the item around the pipeline."""
        self.outdated_files: frozenset[str] = frozenset()
        """Absolute paths of outputs that nothing makes any more."""
        self._keeps_tables = self.stats.tables is not None and not self.is_of_item
        # The blocks whose `results` are read; others' are not kept in memory.
        self._read_blocks = blocks_read(returns_read(self.bound)).union(
            *(blocks_read(node.reads.all) for node in self.bound.nodes)
        )

    async def each(self, nodes: Iterable[BoundNode]) -> None:
        async with task_group() as group:
            for node in nodes:
                group.create_task(self.node(node))

    @contextmanager
    def show(self, node: BoundNode) -> Iterator[None]:
        if self.is_of_item:  # its steps belong to the chunk of the item
            yield
            return
        with self.context.show_chunk(node.id, ()) as shown:
            yield
            if shown is None:
                return
            if (left := self.left.reasons.get(node.id)) is not None and left.wait is not None:
                shown.text = str(left.wait)
            elif self.scope.is_skipped(node.id) or not isinstance(node, BoundBlock):
                shown.text = "skipped" if self.scope.is_skipped(node.id) else "done"
            else:
                outputs = self.scope["steps"][node.id]
                shown.counts = {state: outputs["counts"][state] for state in LISTED}
                shown.is_bad = any(item["state"] == "quarantined" for item in outputs["changed"])

    async def leave(self, node: BoundNode, left: LeftNode) -> None:
        self.stats.note(left.text(node.id))
        self.stats.item_state(node.id, "", ItemState.SKIPPED)

    async def skip(self, node: BoundNode) -> None:
        if isinstance(node, BoundStep):
            self.stats.show_step(node.id, None, 0)
        self.stats.item_state(node.id, "", ItemState.SKIPPED)
        if not (self.is_of_item or self.context.options.leaves_out_items):
            self.ended[node.id] = EndedNode(node, unlisted=Outdated.SKIPPED)

    async def opened(self, node: BoundNode) -> BlockState:
        if isinstance(node, BoundStep):
            self.stats.show_step(node.id, 1 if node.kind.roles else None, 0)
        return await super().opened(node)

    def keeps_results(self, node: BoundNode) -> bool:
        return isinstance(node, BoundStep) or self._keeps_tables or node.id in self._read_blocks

    def items(self, state: BlockState) -> Awaitable[EndedNode | None]:
        return BlockRun(self.step_runner, self.recorder, state).items()

    def outputs_of(self, state: BlockState) -> Any:
        self.dependencies |= state.dependencies
        if state.step is None and self._keeps_tables:
            self.stats.keep_table(state.block.id, state.table())
        return super().outputs_of(state)

    async def step(self, step: BoundStep) -> Any:
        context, stats = self.context, self.stats
        stats.show_step(step.id, None, 0)
        stats.item_state(step.id, "", ItemState.RUNNING)
        scope_id = context.judge.scopes.register(step.id, self.enclosing.keys)
        attempt = ItemAttempt.of(context, step, self.enclosing)
        # Its items enter where it runs a pipeline.
        async with context.room.entered() if step.inner is None else nullcontext():
            outputs = await self.step_runner.run(step, self.scope, attempt)
        attempt.outputs.record_written()
        rows = outputs.get("rows") if isinstance(outputs, Mapping) else None
        if isinstance(rows, TypedRows) and self._keeps_tables:
            self.stats.keep_table(step.id, ReportTable(rows))
        if outputs is not None and step.inner is None and not only_reads(step):
            stats.acted(step.id)
        if self.is_of_item:  # for the item around it
            self.dependencies |= attempt.with_outputs()
        if not only_reads(step) and step.inner is None:  # what `why` says, if it ever wrote
            ledger = context.ledger
            lineage = LineageStore(ledger).of_item(scope_id, step.id)
            if lineage is not None or attempt.outputs.written:
                made = self.recorder.lineage_of(attempt)
                ledger.append(EventKind.ACTED, scope_id, step.id, stats.run, **made)
        if not self.is_of_item:
            made_outputs = MadeOutputs({*attempt.wrote()}, writers={(scope_id, step.id)})
            self.ended[step.id] = EndedNode(step, {step.id: Fate.DONE}, made=made_outputs)
        stats.item_state(step.id, "", ItemState.SKIPPED if outputs is None else ItemState.DONE)
        return outputs

    def returned(self) -> Any:
        """Return the pipeline's `returns`.

        Raises:
            RunFailed: they cannot be evaluated.
        """
        if self.has_unbegun or self.left.is_read_by(returns_read(self.bound)):
            return None
        try:
            return None if self.bound.returns is None else self.bound.returns.render(self.scope)
        except ExpressionError as error:
            raise RunFailed(f"`returns`: {error}") from error

    def fail(self, node: BoundNode, error: StepFailed | ExpressionError) -> NoReturn:
        text = str(error) if isinstance(error, StepFailed) else f"'{node.id}': {error}"
        key = "/".join((*self.enclosing.keys, node.id))
        self.stats.item(ItemReport(node.id, key, ItemState.FAILED, error=text))
        self.stats.item_state(node.id, "", ItemState.FAILED, text)
        cause = error.cause if isinstance(error, StepFailed) else Cause.OTHER
        place = f"{node.mark.file}:{node.mark.line}:{node.mark.column}"
        raise RunFailed(f"{place}: {text}", cause=cause) from error

    async def outdated(
        self, outdated: Sequence[OutdatedOutput], questions: Collection[ItemKey]
    ) -> None:
        await self.context.judge.reviews.forget_questions(questions)
        if outdated:
            files = (each.stored for each in outdated if each.n_rows is None)
            self.outdated_files = frozenset(map(self.context.index.absolute, files))
            await Pruner(self.context).sweep(outdated, self.ended)


class _SubPipelineRun(Struct, frozen=True):
    """Implements `paddock.steps.base.SubPipelines` for one step."""

    walk: Execute
    """The walk over the pipeline around it."""
    attempt: StepAttempt

    async def run(self, file: str, inputs: Mapping[str, Any]) -> Any:
        """Run the pipeline to its end; return its `returns`.

        Raises:
            StepError: an input is wrong, or it is another file than the step was checked with.
            StepFailed: something in it failed, where it was run for one item of a block.
            RunFailed, RunStopped: the whole run cannot go on.
            StopGateClosed: something in it was not begun.
        """
        walk, attempt = self.walk, self.attempt
        step, item = attempt.step, attempt.item
        if step.inner is None or file != step.written.get("file"):
            raise StepError(f"the pipeline '{file}' was not checked before the run.")
        try:
            context = sub_pipeline_context(walk.context, step, item, inputs)
        except WrongInput as error:
            raise StepError(f"{error.message}.", remedy=error.remedy) from error
        show = walk.context.show_chunk
        context = replace(context, show_chunk=lambda block, keys: show(f"{step.id}.{block}", keys))
        inner = Execute(context, replace(item.enclosing, escalation_pass=None))
        inner.left.lacking_inputs = walk.left.missing_inputs.get(step.id, ())
        try:
            await inner.nodes()
            returns = inner.returned()
        except (RunFailed, PipelineError) as error:
            if not item.is_of_item:
                raise
            if isinstance(error, RunFailed):
                raise StepFailed(step.id, str(error), cause=error.cause) from error
            raise StepFailed(step.id, error.faults[0].in_one_line()) from error
        item.merge_nested(inner.dependencies, inner.n_failures, has_failures=inner.has_failures)
        walk.record_sub_pipeline(step, inner)
        without_results = inner.left.first_left(LeftBy.WITHOUT_RESULTS)
        if without_results is not None and inner.is_of_item:
            cause = Cause.IO if inner.n_failures > 0 else Cause.OTHER
            raise StepFailed(step.id, without_results.why, cause=cause)
        return returns
