"""Forecast of a run: walk over a plan without its work.

Only pure steps such as `files.scan` run. The output of a step that would have to run is unknown,
and so is everything that reads it.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from paddock.engine.system.files import sha256_of
from paddock.pipelines.errors import Fault, PipelineError
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.pipelines.input_values import WrongInput
from paddock.runner.bind.bound import (
    BoundBlock,
    BoundNode,
    BoundPlan,
    BoundStep,
    all_steps,
    called_plan,
    steps_of,
    with_inputs,
)
from paddock.runner.bind.inputs import BindError
from paddock.runner.bind.scope import Scope
from paddock.runner.core.block_state import BlockState
from paddock.runner.core.block_work import BlockWork
from paddock.runner.core.blocks import BlockRunner, is_block_skipped
from paddock.runner.core.failures import RunStopped, StepFailed
from paddock.runner.core.item_run import ItemRun
from paddock.runner.core.items import sub_pipeline_context
from paddock.runner.core.lacking_items import LackingItems, lacking_of, no_documents_of
from paddock.runner.core.model_pools import used_models
from paddock.runner.core.outdated_outputs import NodeOutputs, find_outdated, kept_texts
from paddock.runner.core.run_context import RunContext
from paddock.runner.core.run_options import PreparedRun, RunEnvironment, RunOptions
from paddock.runner.core.same_output_file import (
    note_possible_refusal,
    refuse_other_pipelines,
    refuse_written_by_others,
)
from paddock.runner.core.session import open_session
from paddock.runner.core.skipped_steps import is_step_skipped
from paddock.runner.core.steps_left_as_they_are import left_text
from paddock.runner.folders.file_filter import not_taken_by_watches
from paddock.runner.ledger import queries
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.progress.reasons import Reason, Why
from paddock.runner.progress.report import CallsAre, PlanItem, PlanReport, State
from paddock.steps.base import OutsideRoots

from .call_bounds import NO_CALLS, CallBounds
from .dry_pool import WalkPlace
from .dry_walk import MAX_WALK_S, DryWalk, ItemEnds, WalkResult, bound_of_step, pipeline_outputs

if TYPE_CHECKING:
    from paddock.engine.profile.context_layout import Workload

    from .speed_estimates import SpeedBook


@dataclass
class _CostForecast:
    """What a run would cost; tokens become unknown as soon as one part of them is."""

    calls: CallBounds = NO_CALLS
    is_estimate: bool = False
    """Whether a part of `calls` is what earlier items took, since it has no bound."""
    tokens: float | None = 0
    models: dict[str, float] = field(default_factory=dict)
    """By model: its calls, as far as they are bounded."""
    by_model: dict[str, list[float]] = field(default_factory=dict)
    """Calls and tokens, as far as they are known."""

    def add(
        self, refs: Counter[str], calls: CallBounds, entries: Sequence[Entry], n_items: int
    ) -> None:
        """Add calls, divided as `refs` are; `entries`: of the same items or others like them."""
        known = [entry for entry in entries if entry.state == "done" and entry.calls]
        n_calls = sum(entry.calls for entry in known)
        if calls.most is None and known:
            self.is_estimate = True
            usual = math.ceil(n_items * n_calls / len(known))
            calls = replace(calls, most=max(usual, calls.least))
        self.calls += calls
        if calls.most == 0:
            return
        most, tokens = calls.most or 0, None
        if known:
            tokens = most * sum(entry.tokens for entry in known) / n_calls
        self.tokens = None if self.tokens is None or tokens is None else self.tokens + tokens
        for ref, n in refs.items():
            share = n / refs.total()
            self.models[ref] = self.models.get(ref, 0.0) + share * most
            if tokens is not None:
                mine = self.by_model.setdefault(ref, [0.0, 0.0])
                mine[0] += share * most
                mine[1] += share * tokens


async def forecast_run(
    prepared: PreparedRun, options: RunOptions, environment: RunEnvironment
) -> PlanReport:
    """Return what a run would do.

    Raises:
        PipelineError: the YAML turned out to be wrong for the data at hand.
        LedgerError, EngineError: the ledger or a model cannot be used.
    """
    settings, has_pool, speeds = prepared.settings, environment.pool is not None, None
    if not has_pool and used_models(prepared.bound):  # measured speeds are of our own pool
        from .speed_estimates import SpeedBook

        speeds = SpeedBook(settings.pool)
    async with open_session(prepared, options, environment, is_plan=True) as session:
        forecast = _Forecast(session.context, speeds, has_pool or not settings.pool_urls)
        return replace(await forecast.report(), remarks=session.stats.notes)


class _Forecast:
    def __init__(
        self, context: RunContext, speeds: SpeedBook | None, counts_exactly: bool, prefix: str = ""
    ) -> None:
        """`counts_exactly`: tokens are counted on this machine; no text is sent elsewhere."""
        self._context = context
        self._bound = context.bound
        self._speeds = speeds
        self._counts_exactly = counts_exactly
        self._prefix = prefix
        """The steps that lead here, such as `clean.`."""
        self._judge = context.judge
        self._blocks = BlockRunner(context)
        secrets = context.stats.secrets.of(context.bound.file)
        self._scope = Scope.of(context.bound.inputs, secrets, context.bound.moment)
        self._unknown: dict[str, str] = {}
        """Node → the one that must run before its outputs are known."""
        self._guesses: dict[str, dict[str, Any] | None] = {}
        """By node that is unknown: its outputs, with placeholders; empty where there are none."""
        self._waiting: set[str] = set()
        """Steps that wait for a person's decision, and what reads them."""
        self._lacking: dict[str, LackingItems] = {}
        """Blocks of which documents or results are missing, so that what reads these is left."""
        self._partial: set[str] = set()
        """Blocks of which only some items would be done, and what reads them."""
        self._ends: dict[str, NodeOutputs] = {}
        """What applies of each step and block, as far as it is known now."""
        self._items: list[PlanItem] = []
        self._notes: list[str] = []
        self._cost = _CostForecast()
        has_calls = bool(context.ledger.rows(queries.HAS_CALLS))
        self._dry = DryWalk(
            has_calls,
            counts_exactly=counts_exactly,
            fills_stores=any(step.uses == "embed" for step in all_steps(context.bound.nodes)),
        )

    async def report(self) -> PlanReport:
        refuse_written_by_others(self._context, self._scope)
        self._context.stats.not_taken.update(not_taken_by_watches(self._bound))
        for node in self._bound.nodes:
            await self._guarded(node)
        await self._note_outdated()
        note_possible_refusal(self._context, self._bound.nodes, [self._scope])
        cost, stats = self._cost, self._context.stats
        is_exact = cost.calls.least == _with_repairs(cost.calls)
        calls_are: CallsAre = "about" if cost.is_estimate else "exact" if is_exact else "at most"
        is_vague = bool(self._notes)
        tokens = None if cost.tokens is None or is_vague else math.ceil(cost.tokens)
        speeds, gains = self._speeds, list[Any]()
        if speeds is not None:
            known = dict(self._workloads(speeds))
            gains = [speeds.gain(ref, known.get(ref)) for ref in sorted(self._cost.models)]
        return PlanReport(
            pipeline=stats.pipeline,
            items=tuple(self._items),
            calls=None if is_vague else _with_repairs(cost.calls),
            calls_are=calls_are,
            likely_calls=None if is_vague else cost.calls.most,
            least_calls=None if is_vague else cost.calls.least,
            tokens=tokens,
            loads=None if is_vague else len(cost.models),
            models={} if is_vague else {ref: round(n) for ref, n in cost.models.items()},
            least_models={} if is_vague else dict(cost.calls.sure),
            seconds=self._seconds(tokens),
            notes=tuple(self._notes),
            advice=tuple(gain.sentence() for gain in gains if gain is not None),
            outdated=stats.outdated,
            filed=stats.filed_counts,
            not_taken=stats.not_taken_by_suffix(),
        )

    async def _note_outdated(self) -> None:
        """Name what a run would remove, or keep and count; one of some items looks at neither."""
        if self._context.options.leaves_out_items:
            return
        stats, found = self._context.stats, await find_outdated(self._context, self._ends)
        stats.keeps({output.name: output.why for output in found})
        for note in kept_texts(found):
            stats.note(note)

    async def _guarded(self, node: BoundNode) -> None:
        try:
            await self._node(node)
        except (StepFailed, RunStopped, ExpressionError) as error:
            raise PipelineError([Fault(str(error), mark=node.mark)]) from error
        except (BindError, WrongInput) as error:
            raise PipelineError([Fault(f"step '{node.id}': {error}", mark=node.mark)]) from error

    async def _node(self, node: BoundNode) -> None:
        before = self._bound.edges.get(node.id, frozenset())
        if self._waiting & before:
            self._waiting.add(node.id)
            return
        if partial := self._partial & before:
            self._partial.add(node.id)
            why = f"only some items of '{min(partial)}' are in the sample"
            self._context.stats.note(left_text(f"{self._prefix}{node.id}", why))
            return
        lacking = lacking_of(node.references, self._lacking)
        if left := next((lack.why_left() for lack in lacking if lack.leaves(node)), None):
            self._waiting.add(node.id)
            self._context.stats.note(left_text(node.id, left))
            if not isinstance(node, BoundBlock):
                self._note_end(node, is_reached=True)
            return
        if idle := self._blocks.left.why_idle(node, before):
            self._context.stats.note(left_text(f"{self._prefix}{node.id}", idle))
            self._known(node, None)
            if not isinstance(node, BoundBlock):
                self._note_end(node, is_reached=True)
            return
        cause = next(
            (self._unknown[name] for name in sorted(before) if name in self._unknown), None
        )
        if isinstance(node, BoundBlock):
            await self._block(node, cause)
        elif node.kind.roles:
            await self._model_step(node, cause)
        elif (inner := called_plan(self._bound, node)) is not None:
            await self._inner(node, inner, cause)
        elif (
            cause is not None  # else whether it gives now what it will give in the run
            or (node.model is not None and (not self._counts_exactly or node.model.pool))
            or not (node.kind.is_pure or node.uses == "files.read")
        ):
            self._unknown[node.id] = cause or node.id
            self._note_end(node, is_reached=cause is None)
            await asyncio.to_thread(self._note_held, node)
            await self._walked(node)
        else:
            self._ends[node.id] = NodeOutputs(node, done={node.id})
            record = ItemRun.of(self._context, node)
            self._known(node, await self._blocks.items.step(node, self._scope, record))

    def _note_end(self, step: BoundStep, *, is_reached: bool) -> None:
        """Note what applies of a step without an entry, if it is written as when it last ran."""
        scope = self._judge.scope_id(step.id)
        try:
            if is_reached and is_step_skipped(step, self._scope):
                self._ends[step.id] = NodeOutputs(step, is_skipped=True)
                return
        except StepFailed:
            return
        end = NodeOutputs.of_last_run(step, scope, self._context.index)
        if end is not None:
            self._ends[step.id] = end

    def _note_held(self, step: BoundStep) -> None:
        """Add a step whose edited output file a run will keep. Blocking.

        Raises:
            PipelineError: it is another pipeline's output.
        """
        if step.uses != "files.write" or step.written.get("on_edited") == "overwrite":
            return
        try:
            if is_step_skipped(step, self._scope):
                return
            text = str(Value.of(step.written["path"]).render(self._scope))
            path = self._bound.roots.resolve(text)
            refuse_other_pipelines(self._context, step, [str(path)])
            there = sha256_of(path) if path.is_file() else None
        except (StepFailed, ExpressionError, OutsideRoots, OSError, RuntimeError, ValueError):
            return  # not known yet, or the run tells what is wrong
        if there is not None and there not in self._context.index.known_sha256(path):
            why = Why.OUTPUTS_KEPT((self._context.index.stored(path),))
            self._items.append(PlanItem(step.id, step.id, "held", (why,)))

    def _unknown_until(self, name: str, cause: str) -> str:
        at = self._prefix
        return f"What '{at}{name}' has to do is unknown until '{at}{cause}' has run."

    def _known(self, node: BoundNode, outputs: object) -> None:
        assert outputs is None or isinstance(outputs, dict)
        self._scope = self._scope.with_step(node.id, outputs)

    async def _block(self, block: BoundBlock, cause: str | None) -> None:
        if cause is not None:
            self._unknown[block.id] = cause
            self._notes.append(self._unknown_until(block.id, cause))
            return
        if is_block_skipped(block, self._scope):
            self._ends[block.id] = NodeOutputs(block, is_skipped=True)
            self._known(block, None)
            return
        run = await self._blocks.judge(block, self._scope, keeps_results=True)
        self._items += _plan_items(run.work)
        todo = (item.seen(block, self._scope) for item in run.todo())
        note_possible_refusal(self._context, block.body, todo)
        self._context.stats.filed(block.id, run.work.filed_counts)
        self._blocks.left.note_filed(run)
        if not self._prefix and (missing := no_documents_of(run.work)):
            self._lacking[block.id] = missing
        self._note_end_of(run)
        offered = repeatable_output(run, self._context.ledger)
        if run.is_partial:
            self._partial.add(block.id)
        elif offered is not None:
            self._known(block, offered)
            if lacks := await run.lacking(self._judge.reviews):
                self._lacking.setdefault(block.id, lacks)
            fills = (s.uses == "embed" and "store" in s.written for s in all_steps(block.body))
            if run.work.deleted and any(fills):
                self._unknown[block.id] = block.id  # searches find less
            return
        self._unknown[block.id] = block.id
        place = WalkPlace.of(self._context, block)
        walked = await self._dry.block(run, place, frozenset())
        self._guesses[block.id] = walked.outputs
        recorded = [item.entry for item in run.work.items if item.entry is not None]
        self._cost.is_estimate |= walked.is_estimate
        is_sure = not any(item.is_undecided for item in _plan_items(run.work))
        calls = walked.calls if is_sure else walked.calls.perhaps()
        self._cost.add(walked.refs, calls, recorded, len(run.todo()))

    def _note_end_of(self, run: BlockState) -> None:
        keys = [item.key for item in run.work.items]
        entries = self._context.ledger.listed_entries(run.work.scope, keys)
        todo = {item.index for item in run.todo()}
        self._ends[run.block.id] = NodeOutputs.of_block(run.work, entries, todo)

    async def _inner(self, step: BoundStep, inner: BoundPlan, cause: str | None) -> None:
        """Forecast a sub-pipeline, as far as its inputs are known."""
        if cause is not None:
            self._unknown[step.id] = cause
            self._notes.append(self._unknown_until(step.id, cause))
            return
        if is_step_skipped(step, self._scope):
            self._ends[step.id] = NodeOutputs(step, is_skipped=True)
            self._known(step, None)
            return
        self._ends[step.id] = NodeOutputs(step, done={step.id})
        params = step.params.render(self._scope)
        bound = with_inputs(inner, params.inputs, self._bound.roots)
        record = ItemRun.of(self._context, step)
        context = sub_pipeline_context(self._context, step, record, bound)
        prefix = f"{self._prefix}{step.id}."
        within = _Forecast(context, self._speeds, self._counts_exactly, prefix)
        within._cost, within._dry = self._cost, self._dry
        refuse_written_by_others(context, within._scope)
        for node in bound.nodes:
            await within._guarded(node)
        await within._note_outdated()
        note_possible_refusal(context, bound.nodes, [within._scope])
        self._items += [replace(item, step=f"{step.id}.{item.step}") for item in within._items]
        self._notes += within._notes
        if within._partial:
            self._partial.add(step.id)
            return
        read = bound.returns.references if bound.returns is not None else frozenset()
        self._blocks.left.note_pipeline(step.id, within._blocks.left, read)
        for path in sorted(read):
            if path[0] == "steps" and path[1:2] and path[1] in within._unknown:
                self._unknown[step.id] = f"{step.id}.{within._unknown[path[1]]}"
                self._guesses[step.id] = {}
                with suppress(ExpressionError):  # of placeholders
                    guessed = within._guessed_scope()
                    self._guesses[step.id] = pipeline_outputs(step, bound, guessed, self._scope)
                return
        self._known(step, pipeline_outputs(step, bound, within._scope, self._scope))

    def _guessed_scope(self) -> Scope:
        scope = self._scope
        for name, outputs in self._guesses.items():
            scope = scope.with_step(name, outputs)
        return scope

    async def _model_step(self, step: BoundStep, cause: str | None) -> None:
        entry: Entry | None
        reasons: tuple[Reason, ...]
        if cause is not None:
            self._unknown[step.id] = cause
            entry = self._context.ledger.entries(self._judge.scope_id(step.id)).get(step.id)
            state: State = "new" if entry is None else "stale"
            reasons = () if entry is None else (Why.READS_UNDONE(cause),)
        else:
            if is_step_skipped(step, self._scope):
                self._ends[step.id] = NodeOutputs(step, is_skipped=True)
                self._known(step, None)
                return
            run = await self._blocks.judge(step, self._scope, keeps_results=True)
            self._note_end_of(run)
            (item,) = run.work.items
            state, reasons, entry = item.verdict.state, item.verdict.reasons, item.entry
            if not item.verdict.is_work:
                self._items.append(PlanItem(step.id, step.id, state, reasons))
                if run.wait is not None:
                    self._waiting.add(step.id)
                else:
                    self._known(step, run.results[0])
                return
            self._unknown[step.id] = step.id
        walked = await self._walked(step, is_pending=cause is not None)
        calls = walked.calls
        if cause is not None and entry is not None:
            calls = calls.perhaps()  # what it reads may come out as it was
        seen = walked.seen
        if seen is not None and seen.n_known:
            reasons += (Why.CALLS_LEFT(seen.n_calls - seen.n_known, seen.n_calls),)
        self._items.append(PlanItem(step.id, step.id, state, reasons))
        self._cost.add(walked.refs, calls, [entry] if entry is not None else [], 1)

    async def _walked(self, step: BoundStep, *, is_pending: bool = True) -> WalkResult:
        """Walk a top-level step over what is known and what can be guessed.

        `is_pending`: steps before it have work to do, and may yet make what it needs.
        """
        place = WalkPlace.of(self._context, step)
        try:
            async with asyncio.timeout(MAX_WALK_S):
                walked = await self._dry.step(
                    step,
                    self._guessed_scope(),
                    place,
                    self._unknown,
                    is_after_changes=is_pending and step.uses == "search",
                )
        except TimeoutError:
            walked = bound_of_step(step)
        except ItemEnds as end:
            if not is_pending:
                words = str(end.__cause__)
                raise PipelineError([Fault(f"step '{step.id}': {words}", mark=step.mark)]) from end
            walked = bound_of_step(step)
        self._guesses[step.id] = walked.outputs
        return walked

    def _seconds(self, tokens: int | None) -> float | None:
        """Return how long so many tokens take: as measured of the models, else as the last run."""
        if tokens == 0 and not any(
            item.state in ("new", "changed", "stale") for item in self._items
        ):
            return 0.0
        last = self._context.ledger.last_summary(self._bound.file.name)
        if not tokens or last is None or not last.get("seconds"):
            return None
        measured = self._measured_s(tokens)
        if measured is not None:
            return round(measured, 1)
        then = last["tokens"]["prompt"] + last["tokens"]["completion"]
        return round(tokens * last["seconds"] / then, 1) if then else None

    def _measured_s(self, tokens: int) -> float | None:
        """Add up what the models' profiles say; None where one is missing."""
        speeds = self._speeds
        known = sum(n_tokens for _, n_tokens in self._cost.by_model.values())
        if speeds is None or math.ceil(known - 1e-6) != tokens:
            return None
        total = 0.0
        for ref, work in self._workloads(speeds):
            seconds = speeds.seconds(ref, work)
            if seconds is None:
                return None
            total += seconds
        return total

    def _workloads(self, speeds: SpeedBook) -> Iterator[tuple[str, Workload]]:
        """Divide each model's tokens as the last run's were: read, shared, written."""
        last = self._context.ledger.last_summary(self._bound.file.name)
        shares = last["tokens"] if last is not None else {}
        then = shares.get("prompt", 0) + shares.get("completion", 0)
        for ref, (n_calls, n_tokens) in self._cost.by_model.items():
            if not then or not n_calls:
                continue
            read, written = shares["prompt"] / then, shares["completion"] / then
            reused = shares.get("prompt_reused", 0) / then
            yield ref, speeds.workload(n_calls, *(n_tokens * s for s in (read, written, reused)))


def _plan_items(work: BlockWork) -> Iterator[PlanItem]:
    """Yield what a block has to do, item by item, with those that its list no longer has."""
    block = work.block.id
    for item in work.items:
        yield PlanItem(block, item.key, item.verdict.state, item.verdict.reasons)
    renamed = {item.renamed_from for item in work.items}
    for entry in work.deleted:
        if entry.key not in renamed:
            yield PlanItem(block, entry.key, "deleted", (work.absences[entry.key],))
    for key in sorted(work.filed.pruned):
        yield PlanItem(block, key, "deleted", (Why.FILED_AND_GONE(),))
    for doubt in work.doubts:
        yield PlanItem(block, doubt.folder, "missing", (Why.RECORDED(doubt.text),))
    dropped = {entry.key for entry in work.dropped}
    for key in sorted(work.left_out):
        state: State = "deleted" if key in dropped else "skipped"
        yield PlanItem(block, key, state, (Why.WHERE(),))


def _with_repairs(calls: CallBounds) -> int | None:
    return None if calls.most is None else calls.most + calls.repairs


_REPEATABLE = frozenset(
    ("files.read", "files.rows", "files.write", "split", "prompt", "chat", "summarise", "embed",
     "reduce")
)  # fmt: skip
"""Steps that give the same output for the same input, with cached model calls."""


def repeatable_output(run: BlockState, ledger: Ledger) -> dict[str, Any] | None:
    """Return a block's outputs where its items only lack output files: the same as before.

    None where something else is to be done, or where it may turn out otherwise.
    """
    todo = run.todo()
    if todo and not (all(i.verdict.is_remade for i in todo) and _is_repeatable(run.block)):
        return None
    for item in todo:
        if item.entry is not None:
            run.results[item.index] = ledger.value(item.entry.returns, item.entry.returns_object)
        run.counts[item.verdict.state] += 1
        run.changed.append({"key": item.key, "state": item.verdict.state})
    return run.offered()


def _is_repeatable(block: BoundBlock) -> bool:
    """Return whether doing an item once more gives what it gave before."""
    last = block.body[-1]
    if block.returns is None and isinstance(last, BoundStep) and last.uses == "files.write":
        return False  # whether the file was changed is another matter the next time
    if block.returns is not None and any("changed" in path for path in block.returns.references):
        return False
    return all(step.uses in _REPEATABLE and step.cache for step in steps_of(block.body))
