"""Run a step for one item, and what the pipeline that it runs is given.

A sub-pipeline has the same pool, ledger and stop gate, with scopes of its own. Its steps are
reported under the name of the step that runs it: `each` within `clean` is `clean.each`. Where the
step runs once for each item of a block, they are details of that item.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from random import SystemRandom
from typing import Any

from paddock.engine.errors import DeadlineExceeded, EngineError
from paddock.engine.system.crash_isolation import SuspectRoom
from paddock.engine.system.tasks import time_limit
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.pipelines.label_choices import chosen_labels
from paddock.pipelines.typed_rows import without_types
from paddock.runner.answers.evidence import EvidenceFinder
from paddock.runner.answers.offered_labels import AT_BORDER, choices_of
from paddock.runner.answers.scoped_reply import ScopedReply
from paddock.runner.bind.bound import BoundBlock, BoundPlan, BoundStep, callable_names, node_ids
from paddock.runner.bind.parameters import BindError
from paddock.runner.bind.scope import Scope, WithFiled
from paddock.runner.bind.taint_analysis import guarded_roots
from paddock.runner.ledger.entries import LedgerError, is_variant
from paddock.runner.ledger.lineage_store import LineageStore
from paddock.runner.ledger.reviews import review_id
from paddock.runner.progress.drain import StopGateClosed
from paddock.runner.progress.item_states import ItemState
from paddock.steps.base import Output, OutsideRoots, StepError, StepSkipped, SubPipelines, Tools

from .answer_reviewer import AnswerReviewer
from .block_work import ItemWork
from .call_cache import CallOrigin, PutOff
from .dependencies import ChosenLabels, NarrowedLabels, UsedExamples, dependencies_of
from .escalation import escalated, escalation_mark
from .failures import (
    MISSING_PACKAGE,
    RunStopped,
    StepFailed,
    cause_of,
    retry_pause_s,
    stop_if_fatal,
    times,
)
from .filed_items import of_own_rows, with_filed_rows
from .item_attempt import ItemAttempt
from .past_decisions import StepName, step_name
from .prompt_examples import TaughtItem
from .run_context import RunContext
from .run_records import StepRecord, read_lineage
from .run_reviews import AwaitingReview

SubPipelinesFor = Callable[[BoundStep, ItemAttempt], SubPipelines]
"""(step, the item for which it runs) → runner of its sub-pipeline."""
_OF_INNER = (StepFailed, RunStopped, StopGateClosed, PipelineError, AwaitingReview, PutOff)
"""What a pipeline that a step runs may end with."""


def item_result(block: BoundBlock, scope: Scope, last: Any) -> Any:
    """Return an item's result, None where a filter left it out; `last`: its last step's outputs.

    Raises:
        StepFailed: its `returns` cannot be evaluated.
    """
    if block.keep is not None and not block.keep.evaluate(scope):
        return None
    if block.returns is None:
        return without_types(last)
    try:
        return block.returns.render(scope)
    except ExpressionError as error:
        raise StepFailed(block.id, f"`returns`: {error}") from error


def result_with_filed(block: BoundBlock, scope: Scope, last: Any) -> Any:
    """Return what an item's result is with what its pipelines filed; None: they filed nothing."""
    whole = scope.with_filed({node.id for node in block.body})
    if whole is None:
        return None
    return item_result(block, whole, last.with_filed if isinstance(last, WithFiled) else last)


def step_outputs(step: BoundStep, scope: Scope, outputs: Mapping[str, Any]) -> Any:
    """Return a step's outputs as its `returns` has them."""
    if step.returns is None:
        return outputs
    seen = scope.with_step(step.id, outputs)
    made, whole = step.returns.render(seen), seen.with_filed({step.id})
    return made if whole is None else WithFiled(made, step.returns.render(whole))


def expect_queries(
    context: RunContext, block: BoundBlock, todo: Sequence[ItemWork], scope: Scope
) -> None:
    """Have the queries of a block's new items embedded together, where no step makes them."""
    inner = {("steps", name) for name in node_ids(block.body)}
    for step in block.body:
        if not isinstance(step, BoundStep) or not step.facts.searches or context.queries is None:
            continue
        written = step.written
        query = Value.of(written.get("query"))
        if written.get("mode") == "text" or inner & {path[:2] for path in query.references}:
            continue
        new = (item for item in todo if item.entry is None)  # of others the ledger may know it
        queries = _rendered(query, (item.seen(block, scope) for item in new))
        context.queries[context.bound.file, step.id].expect(queries)


def _rendered(value: Value, scopes: Iterable[Scope]) -> Iterator[str]:
    for scope in scopes:
        with contextlib.suppress(ExpressionError):  # told where the item is done
            yield str(value.render(scope))


class StepRunner:
    """Runs single steps, outside of blocks or of an item."""

    def __init__(self, context: RunContext, sub_pipelines: SubPipelinesFor | None = None) -> None:
        """`sub_pipelines`: None while planning, where the pipelines of steps do not run."""
        self.context = context
        self._sub_pipelines = sub_pipelines
        self.stats = context.stats

    @cached_property
    def _reviewer(self) -> AnswerReviewer:
        return AnswerReviewer(self.context)

    async def step(self, step: BoundStep, scope: Scope, attempt: ItemAttempt) -> Any:
        """Run a step with its retries; return its outputs, None: it left itself out.

        Raises:
            StepFailed: it did not succeed.
            RunStopped: nothing else will succeed.
            ClaimLost: another machine has taken the item over; the step was not begun.
            AwaitingReview, PutOff, StopGateClosed, PipelineError: of it, or of what it runs.
        """
        context, stats = self.context, self.stats
        await context.fence()
        if step.kind.roles:
            stats.item_state(attempt.node.id, attempt.shown_key, ItemState.RUNNING, step.id)
        caller = context.caller(attempt.scope, step, attempt.shown_key, attempt.node.id)
        caller.before = attempt.calls_before(step.id)
        attempt.callers.append(caller)
        made = StepRecord.begin(step, caller.made)
        attempt.steps.append(made)
        outputs, n_refused = None, 0
        try:
            if step.review is not None:
                n_refused = await self._reviewer.n_rejected(step, scope, attempt)
            for turn in itertools.count():
                try:
                    tools = item_tools(context, step, caller, attempt, scope)
                    if (form := step.reply) is not None:
                        finder = EvidenceFinder.of(form.evidence, form.schema, scope, tools)
                        tools = replace(tools, reply=ScopedReply(form, scope, finder))
                    if step.inner is not None and self._sub_pipelines is not None:
                        tools = replace(tools, pipelines=self._sub_pipelines(step, attempt))
                    if n_refused:
                        tools = replace(tools, n_refused=n_refused)
                    outputs = await self._try(step, scope, attempt, tools, caller)
                    break
                except StepSkipped:
                    break
                except (StepError, EngineError) as error:
                    stop_if_fatal(error, step)
                    cause = cause_of(error)
                    if turn >= times(step.retry, cause):
                        raise StepFailed(step.id, str(error), cause=cause) from error
                    n_refused += cause == "check"
                    chance = SystemRandom().random()
                    await asyncio.sleep(retry_pause_s(step.retry, cause, turn, chance))
                except (ExpressionError, BindError, OutsideRoots) as error:
                    raise StepFailed(step.id, str(error)) from error
                except LedgerError as error:
                    raise RunStopped(str(error)) from error
                except _OF_INNER:
                    raise
                except (Exception, SystemExit) as error:
                    raise self._unexpected(error, step, attempt) from error
            if attempt.outer and step.facts.lists and outputs is not None:
                # Mark a folder that was listed for this item alone
                files = None if step.returns is not None else outputs["files"]
                params, roots = step.params.render(scope), context.bound.roots
                owned = context.index.owned(roots.base) if files is None else frozenset()
                note = context.judge.world.note_listing
                await asyncio.to_thread(note, attempt.reads, params, files, roots, owned)
        except (StepFailed, RunStopped, PipelineError):
            made.state = "failed"
            raise
        else:
            made.state = "skipped" if outputs is None else "done"
            return outputs
        finally:  # also where a person has to decide: it is done, but for that
            made.end()
            stats.took(made)

    def _unexpected(
        self, error: BaseException, step: BoundStep, attempt: ItemAttempt
    ) -> StepFailed | RunStopped:
        """Return what an error that no step should raise ends with: a bug, or a damaged ledger."""
        damage = self.context.ledger.damage_behind(error)
        if damage is not None:
            return RunStopped(str(damage))
        self.stats.unexpected(f"{attempt.shown_key}, step '{step.id}'", error)
        cause = MISSING_PACKAGE if isinstance(error, ModuleNotFoundError) else "other"
        return StepFailed(step.id, f"{type(error).__name__}: {error}", cause=cause)

    async def _try(
        self, step: BoundStep, scope: Scope, attempt: ItemAttempt, tools: Tools, caller: CallOrigin
    ) -> Any:
        """Run a step once, with what it needs before and what becomes of its answer.

        1. Its parameters; the files that they name are marked before it reads them.
        2. The labels that it may choose from, and the examples of its prompt.
        3. Its outputs, or those that a person has decided on since; of its larger model, where its
           own is not sure enough.
        4. What a person decides, or has decided, on its answer.
        5. The labels that it chose; its outputs as its `returns` has them.
        """
        context, made = self.context, attempt.steps[-1]
        params = step.params.render(scope, with_filed_rows(step, scope))  # 1
        await attempt.note_files(context, step.kind().reads(params), tools.roots)
        if choices_of(step) and isinstance(tools.reply, ScopedReply):  # 2
            judge, entry = context.judge, None if attempt.work is None else attempt.work.entry
            last = {lab.list_name: lab.chosen or () for lab in dependencies_of(entry, ChosenLabels)}
            before = {
                choice.field: last.get(judge.scopes.list_name(step, choice.field), ())
                for choice in choices_of(step)
            }
            self._mark_labels(step, scope, attempt, None)  # if it fails, any other list may help
            labels = await judge.labels.offered(step, scope, tools, before)
            for place, near in ({} if labels is None else labels.nearest).items():
                name = judge.scopes.list_name(step, place)
                attempt.note(NarrowedLabels(name, near.least, near.model, near.vector))
            tools = replace(tools, reply=replace(tools.reply, labels=labels))
        if step.is_taught:
            tools = await taught_tools(context, step, params, tools, (scope, attempt))
        outputs: dict[str, Any] | None = None  # 3
        if step.review is not None and attempt.is_decided and not caller.looks_up:
            outputs = await self._reviewer.recorded(step, attempt)
            if outputs:  # with the calls of the run that made them
                lineage = LineageStore(context.ledger)
                row = await context.ledger.ask(lineage.made, attempt.scope, attempt.key)
                for past in read_lineage(row.made)[1] if row is not None else ():
                    calls = past.calls if past.id == step.id else ()
                    caller.made.extend(replace(call, is_known=True) for call in calls)
        if outputs is None:
            ask = self._run if step.escalate is None else self._run_escalated
            outputs = await ask(step, params, tools, scope, attempt)
        if outputs.get("escalated") is not None and step.escalate is not None:
            made.model, made.escalated = step.escalate.to.ref, escalation_mark(outputs)
            step = step.escalated
        if step.review is not None:  # 4
            outputs = await self._reviewer.reviewed(step, scope, attempt, outputs, tools)
        self._mark_labels(step, scope, attempt, outputs)  # 5
        if isinstance(tools.reply, ScopedReply) and tools.reply.labels is not None:
            for _ in range(tools.reply.labels.n_at_border(outputs.get("output"))):
                tools.log.tally("answer", AT_BORDER)
        made.note_answer(outputs)
        if step.inner is not None and attempt.with_filed is not None:
            outputs = WithFiled(outputs, attempt.with_filed)
        attempt.with_filed = None
        return step_outputs(step, scope, of_own_rows(step, scope, outputs))

    async def _run_escalated(
        self, step: BoundStep, params: Any, tools: Tools, scope: Scope, attempt: ItemAttempt
    ) -> dict[str, Any]:
        """Run a step; of its larger model, where its own is not sure enough or was refused."""
        assert step.escalate is not None
        found = None
        try:  # a refused answer is asked for again of the larger model alone
            found = await self._run(step, params, replace(tools, n_refused=0), scope, attempt)
        except StepError as error:
            if error.kind != "check":
                raise
        try:
            why = escalated(step, scope, attempt.shown_key or attempt.key, found, tools.n_refused)
        except ExpressionError as error:
            raise StepFailed(step.id, f"`escalate.when`: {error}") from error
        if why is None:
            assert found is not None
            return found
        try:
            with attempt.turn.defer_calls(attempt.callers[-1], step.id):
                larger = step.escalated
                params = larger.params.render(scope)
                answer = await self._run(larger, params, tools, scope, attempt)
        except StepError as error:
            what = f"it was escalated to '{why.alias}': {error.reason}"
            raise StepError(
                what, remedy=error.remedy, is_fatal=error.is_fatal, kind=error.kind
            ) from error
        return why.outputs(tools.log, answer)

    async def _run(
        self, step: BoundStep, params: Any, tools: Tools, scope: Scope, attempt: ItemAttempt
    ) -> dict[str, Any]:
        """Run a step's code; give the fields of its answer what their probabilities are worth."""
        # A model's time counts from when the pool takes the request, so the pool enforces it.
        limit_s = None if step.kind.roles else step.timeout.total
        try:
            async with time_limit(limit_s):
                output: Output = await step.kind().run(params, tools)
        except TimeoutError as error:
            if limit_s is None:
                raise
            raise DeadlineExceeded("total", limit_s) from error
        outputs: dict[str, Any] = output.model_dump(mode="json")
        if step.reply is None or outputs.get("confidence") is None:
            return outputs
        return await self._reviewer.calibrated(step, scope, attempt, outputs)

    def _mark_labels(
        self, step: BoundStep, scope: Scope, attempt: ItemAttempt, outputs: Mapping[str, Any] | None
    ) -> None:
        judge, answer = self.context.judge, None if outputs is None else outputs.get("output")
        for place, found in judge.labels.of_step(step, scope).items():
            name = judge.scopes.list_name(step, place)
            attempt.lists[name] = found
            chosen = None if answer is None else sorted({*chosen_labels(answer, place)})
            attempt.note(ChosenLabels(name, found.recorded_digest, chosen))


def item_tools(
    context: RunContext, step: BoundStep, caller: CallOrigin, attempt: ItemAttempt, scope: Scope
) -> Tools:
    """Return what a step of an item is given, but for the sources of its `reply`."""
    roots = guarded_roots(context.bound.roots, step, scope, attempt.own_path)
    item = attempt.name(step.id, scope, context.index)
    return context.tools(step, caller, attempt.outputs, item, roots)


def taught_as(context: RunContext, step: BoundStep) -> StepName:
    """Return by what name the decisions about a step's answers are known."""
    scopes = context.judge.scopes
    return step_name(scopes.file, f"{scopes.prefix}{step.id}")


async def taught_tools(
    context: RunContext,
    step: BoundStep,
    params: Any,
    tools: Tools,
    place: tuple[Scope, ItemAttempt],
) -> Tools:
    """Return tools with the decisions that are nearest to an item's text, and mark the item."""
    if not params.examples.k:
        return tools
    scope, attempt = place
    own_id = review_id(attempt.scope, attempt.key, step.id)
    entry = None if attempt.work is None else attempt.work.entry
    used = dependencies_of(entry, UsedExamples)
    last = next((examples for examples in used if examples.id == own_id), None)
    document = attempt.name(step.id, scope, context.index).path
    shown = (attempt.shown_key or attempt.key) if is_variant(context.judge.scopes.file) else ""
    name, digest = taught_as(context, step), attempt.document_digest(scope)
    item = TaughtItem(name, own_id, digest, document or "", last, shown)
    chosen = await context.judge.reviews.examples(step, params, tools, item)
    if chosen is None:
        return tools
    attempt.note(chosen.used)
    attempt.vectors[step.id] = {"model": chosen.used.model, "vector": chosen.used.vector}
    return replace(tools, examples=chosen.examples)


def sub_pipeline_context(
    outer: RunContext, step: BoundStep, attempt: ItemAttempt, bound: BoundPlan
) -> RunContext:
    """Return the context of the pipeline that a step runs: the run's, with its own plan."""
    bound = replace(bound, watches=outer.bound.watches, priority=outer.bound.priority)
    item = (attempt.node.id, attempt.shown_key) if attempt.outer else None
    is_nested = item is not None
    # Forcing the step forces everything in it.
    prefix, options = f"{step.id}.", outer.options
    force = {name.removeprefix(prefix) for name in options.force if name.startswith(prefix)}
    if step.id in options.force:
        force.update(callable_names(bound.nodes))
    options = replace(options, force=frozenset(force), variant_of="")
    if is_nested:  # the item around it is asked for
        options = replace(options, only=frozenset(), sample=None)
    scopes = outer.judge.scopes.within(step.id, bound)
    return replace(
        outer,
        bound=bound,
        options=options,
        judge=replace(outer.judge, bound=bound, options=options, scopes=scopes),
        stats=outer.stats.within(step.id, item),
        claims=None if is_nested else outer.claims,  # they go with the item around them
        room=SuspectRoom() if is_nested else outer.room,
        parallel_around=attempt.parallel,
    )
