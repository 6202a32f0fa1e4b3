"""Run the steps of one item and the sub-pipelines within them, and record it in the ledger.

A sub-pipeline has the same pool, ledger and stop gate, with scopes of its own. Its steps are
reported under the name of the step that runs it: `each` within `clean` is `clean.each`. Where the
step runs once for each item of a block, they are details of that item.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from random import SystemRandom
from typing import Any

from paddock.engine.errors import DeadlineExceeded, EngineError
from paddock.engine.system import no_links
from paddock.engine.system.crash_isolation import SuspectRoom
from paddock.engine.system.tasks import in_left_thread, time_limit
from paddock.engine.system.text import ordered_json
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.pipelines.label_choices import chosen_labels
from paddock.runner.bind.bound import (
    BoundBlock,
    BoundPlan,
    BoundStep,
    callable_names,
    canonical_spec,
    node_ids,
)
from paddock.runner.bind.evidence_finder import EvidenceFinder
from paddock.runner.bind.inputs import BindError
from paddock.runner.bind.offered_labels import choices_of
from paddock.runner.bind.reply import AT_BORDER, ScopedReply
from paddock.runner.bind.scope import Scope, WithFiled
from paddock.runner.bind.untrusted_paths import guarded_roots
from paddock.runner.ledger.entries import Entry, LedgerError, LineageRow, is_variant
from paddock.runner.ledger.filed_rows import FiledRow, FiledRows
from paddock.runner.ledger.ledger_tables import FILED
from paddock.runner.ledger.lineage_rows import LineageStore
from paddock.runner.ledger.reviews import review_id
from paddock.runner.progress.drain import StopGateClosed
from paddock.steps.base import (
    Output,
    OutsideRoots,
    Roots,
    StepError,
    StepSkipped,
    SubPipelines,
    Tools,
)
from paddock.steps.paths import printable, resolve_path

from .answer_reviewer import AnswerReviewer
from .block_work import ItemWork
from .call_cache import CallOrigin, PutOff
from .decided_examples import TaughtItem, is_taught
from .dependencies import ChosenLabels, LimitedContext, NarrowedLabels, as_json, by_name
from .escalation import escalated, escalation_mark
from .failures import RunStopped, StepFailed, stop_if_fatal
from .filed_items import FILED_STATES, with_filed_rows
from .item_run import ItemRun, as_of_its_content, document_digest, was_touched
from .past_decisions import StepName, step_name
from .pruning import RowKeeper
from .quarantine import MISSING_PACKAGE
from .run_context import RunContext
from .run_options import RunOptions
from .run_records import (
    INPUTS_BY_ITEM,
    WROTE,
    StepRecord,
    lineage_as_json,
    read_lineage,
    source_of,
)
from .run_reviews import AwaitingReview
from .skipped_steps import is_step_skipped
from .stale_reasons import LABELS
from .step_retries import cause_of, retry_pause_s, times

CANCEL_GRACE_S = 2.0
"""How long a cancelled item waits for the ledger, to know whether it is recorded."""


SubPipelinesFor = Callable[[BoundStep, ItemRun], SubPipelines]
"""(step, the item for which it runs) → runner of its sub-pipeline."""


def item_result(block: BoundBlock, scope: Scope, last: Any) -> Any:
    """Return an item's result; `last` are the outputs of its last step.

    Raises:
        StepFailed: its `returns` cannot be evaluated.
    """
    if block.returns is None:
        return last
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
        if not isinstance(step, BoundStep) or step.uses != "search" or context.queries is None:
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


def _named_path(roots: Roots, text: str) -> str:
    """Return the path of a file that is read; that of a link, which may lead elsewhere later."""
    path = str(resolve_path(roots, text))
    named = os.path.normpath(os.path.join(roots.base, text))  # noqa: PTH118 - links stay
    return path if ".." in text else named


class ItemRunner:
    """Runs the single steps of items, and records the items."""

    def __init__(self, context: RunContext, sub_pipelines: SubPipelinesFor | None = None) -> None:
        """`sub_pipelines`: None while planning, where the pipelines of steps do not run."""
        self._context = context
        self._sub_pipelines = sub_pipelines
        self._stats = context.stats
        self._origins = LineageStore(context.ledger)
        self._row_keeper = RowKeeper(context)
        self._reviewer = AnswerReviewer(context)
        self._specs: dict[tuple[str, ...], tuple[str, str]] = {}
        """Block or step, and digests of lists of labels → digest and text of its spec."""

    async def step(self, step: BoundStep, scope: Scope, record: ItemRun) -> Any:
        """Run one step of an item; return its outputs, None: it was skipped.

        Raises:
            ClaimLost: another machine has taken the item over; the step was not begun.
        """
        await self._context.fence()
        if step.kind.roles:
            self._stats.item_state(record.block, record.shown_key, "running", step.id)
        caller = self._context.caller(record.scope, step, record.shown_key, record.block)
        caller.before = record.calls_before(step.id)
        record.callers.append(caller)
        ref = None if step.model is None else step.model.ref
        made = StepRecord(step.id, step.uses, step.kind.version, ref, calls=caller.made)
        record.steps.append(made)
        try:
            outputs = await self._with_retries(step, scope, record, caller)
            # Mark a folder that was listed for this item alone
            if record.outer and step.uses == "files.scan" and outputs is not None:
                files = None if step.returns is not None else outputs["files"]
                params, roots = step.params.render(scope), self._context.bound.roots
                base = self._context.bound.roots.base
                owned = self._context.index.owned(base) if files is None else frozenset()
                note = self._context.judge.world.note_listing
                await asyncio.to_thread(note, record.reads, params, files, roots, owned)
        except (StepFailed, RunStopped, PipelineError):
            made.state = "failed"
            raise
        except AwaitingReview:
            raise  # it is done, but for a person's decision
        else:
            made.state = "skipped" if outputs is None else "done"
            return outputs
        finally:
            made.end()
            self._stats.took(made)

    async def _with_retries(
        self, step: BoundStep, scope: Scope, record: ItemRun, caller: CallOrigin
    ) -> Any:
        if is_step_skipped(step, scope):
            return None
        n_refused = await self._reviewer.n_rejected(step, scope, record)
        for turn in itertools.count():
            try:
                tools = item_tools(self._context, step, caller, record, scope)
                if (form := step.reply) is not None:
                    finder = EvidenceFinder.of(form.evidence, form.schema, scope, tools)
                    tools = replace(tools, reply=ScopedReply(form, scope, finder))
                if step.inner is not None and self._sub_pipelines is not None:
                    tools = replace(tools, pipelines=self._sub_pipelines(step, record))
                if n_refused:
                    tools = replace(tools, n_refused=n_refused)
                return await self._run_once(step, scope, record, tools, caller)
            except StepSkipped:
                return None
            except (StepError, EngineError) as error:
                stop_if_fatal(error, step)
                cause = cause_of(error)
                if turn >= times(step.retry, cause):
                    raise StepFailed(step.id, str(error), cause=cause) from error
                n_refused += cause == "check"
                pause_s = retry_pause_s(cause, turn, step.retry.backoff_s, SystemRandom().random())
                await asyncio.sleep(pause_s)
            except (ExpressionError, BindError, OutsideRoots) as error:
                raise StepFailed(step.id, str(error)) from error
            except LedgerError as error:
                raise RunStopped(str(error)) from error
            except (StepFailed, RunStopped, StopGateClosed, PipelineError, AwaitingReview, PutOff):
                raise  # of the pipeline that the step runs
            except (Exception, SystemExit) as error:  # a bug of the step: its traceback is logged
                damage = self._context.ledger.damage_behind(error)
                if damage is not None:
                    raise RunStopped(str(damage)) from error
                self._stats.unexpected(f"{record.shown_key}, step '{step.id}'", error)
                cause = MISSING_PACKAGE if isinstance(error, ModuleNotFoundError) else "other"
                what = f"{type(error).__name__}: {error}"
                raise StepFailed(step.id, what, cause=cause) from error
        raise AssertionError("unreachable")

    async def _run_once(
        self, step: BoundStep, scope: Scope, record: ItemRun, tools: Tools, caller: CallOrigin
    ) -> Any:
        params = step.params.render(scope, with_filed_rows(step, scope))
        await self._note_reads(record, step.kind().reads(params), tools.roots)
        tools = await self._with_labels(step, scope, record, tools)
        if is_taught(step):
            tools = await taught_tools(self._context, step, params, tools, (scope, record))
        outputs = await self._decided(step, record, caller)
        if outputs is None:
            outputs = await self._answer(step, params, tools, scope, record)
        if outputs.get("escalated") is not None and step.escalate is not None:
            record.steps[-1].model = step.escalate.to.ref
            record.steps[-1].escalated = escalation_mark(outputs)
            step = step.escalated
        if step.review is not None:
            outputs = await self._reviewer.reviewed(step, scope, record, outputs, tools)
        self._mark_labels(step, scope, record, outputs)
        if isinstance(tools.reply, ScopedReply) and tools.reply.labels is not None:
            for _ in range(tools.reply.labels.n_at_border(outputs.get("output"))):
                tools.log.tally("answer", AT_BORDER)
        record.steps[-1].note_answer(outputs)
        if step.inner is not None and record.with_filed is not None:
            outputs = WithFiled(outputs, record.with_filed)
        record.with_filed = None
        return step_outputs(step, scope, outputs)

    async def _decided(
        self, step: BoundStep, record: ItemRun, caller: CallOrigin
    ) -> dict[str, Any] | None:
        """Return the recorded outputs that a person has decided on since."""
        if step.review is None or not record.is_decided or caller.looks_up:
            return None
        outputs = await self._reviewer.recorded(step, record)
        if outputs:  # with the calls of the run that made them
            row = await self._context.ledger.ask(self._origins.made, record.scope, record.key)
            for past in read_lineage(row.made)[1] if row is not None else ():
                calls = past.calls if past.id == step.id else ()
                caller.made.extend(replace(call, is_known=True) for call in calls)
        return outputs

    async def _with_labels(
        self, step: BoundStep, scope: Scope, record: ItemRun, tools: Tools
    ) -> Tools:
        if not choices_of(step) or not isinstance(tools.reply, ScopedReply):
            return tools
        judge = self._context.judge
        last = {choice.field: record.last_labels.get(judge.list_name(step, choice.field), ())
                for choice in choices_of(step)}  # fmt: skip
        self._mark_labels(step, scope, record, None)  # if it fails, any other list may help
        labels = await judge.labels.offered(step, scope, tools, last)
        for place, near in ({} if labels is None else labels.nearest).items():
            name = judge.list_name(step, place)
            record.note(NarrowedLabels(name, near.least, near.model, near.vector))
        return replace(tools, reply=replace(tools.reply, labels=labels))

    def _mark_labels(
        self, step: BoundStep, scope: Scope, record: ItemRun, outputs: Mapping[str, Any] | None
    ) -> None:
        judge, answer = self._context.judge, None if outputs is None else outputs.get("output")
        for place, found in judge.labels.of_step(step, scope).items():
            name = judge.list_name(step, place)
            record.lists[name] = found
            chosen = None if answer is None else sorted({*chosen_labels(answer, place)})
            record.note(ChosenLabels(name, found.recorded_digest, chosen))

    async def _answer(
        self, step: BoundStep, params: Any, tools: Tools, scope: Scope, record: ItemRun
    ) -> dict[str, Any]:
        """Return the outputs of a step; those of its larger model where that has to answer.

        Raises:
            PutOff: that is asked in another pass over the items.
        """
        if step.escalate is None:
            return await self._once(step, params, tools, scope, record)
        found = None
        try:  # a refused answer is asked for again of the larger model alone
            own = replace(tools, n_refused=0)
            found = await self._once(step, params, own, scope, record)
        except StepError as error:
            if error.kind != "check":
                raise
        try:
            why = escalated(step, scope, record.shown_key or record.key, found, tools.n_refused)
        except ExpressionError as error:
            raise StepFailed(step.id, f"`escalate.when`: {error}") from error
        if why is None and found is not None:
            return found
        assert why is not None
        larger = step.escalated
        try:
            with record.turn.defer_calls(record.callers[-1], step.id):
                params = larger.params.render(scope)
                outputs = await self._once(larger, params, tools, scope, record)
        except StepError as error:
            what = f"it was escalated to '{why.alias}': {error.reason}"
            raise StepError(
                what, remedy=error.remedy, is_fatal=error.is_fatal, kind=error.kind
            ) from error
        return why.outputs(tools.log, outputs)

    async def _once(
        self, step: BoundStep, params: Any, tools: Tools, scope: Scope, record: ItemRun
    ) -> dict[str, Any]:
        """Run a step once; give the fields of its answer what their probabilities are worth."""
        # A model's time counts from when the pool takes the request, so the pool enforces it.
        limit_s = None if step.kind.roles else step.timeout.total_s
        try:
            async with time_limit(limit_s):
                output: Output = await step.kind().run(params, tools)
        except TimeoutError as error:
            if limit_s is None:
                raise
            raise DeadlineExceeded("total", limit_s) from error
        outputs: dict[str, Any] = output.model_dump(mode="json")
        return await self._reviewer.calibrated(step, scope, record, outputs)

    async def _note_reads(self, record: ItemRun, texts: Sequence[str], roots: Roots) -> None:
        """Mark files before a step reads them; the item's own file is in its hash.

        Raises:
            StepError: a path may not be used.
        """
        world = self._context.judge.world
        for text in texts:
            if text == record.own_path:
                continue
            path = _named_path(roots, text)
            self._stats.taken.add(str(path))
            with contextlib.suppress(OSError):  # the step reports the error
                record.note(await in_left_thread(world.file, path))

    async def record(
        self,
        item: ItemWork,
        record: ItemRun,
        state: str,
        error: str | None,
        result: Any,
        seconds: float,
    ) -> None:
        """Record the entry, and wait until it is durable."""
        ledger = self._context.ledger
        secrets = self._stats.secrets
        await self._reconcile_rows(item, record, state)
        if was_touched(item.item, self._stats.began_at):
            item = await in_left_thread(as_of_its_content, item)
        text, object_ = ledger.keep(secrets.redacted(result))
        entry = Entry(
            key=item.key,
            hash=item.hash,
            parts=item.parts,
            state=state,
            error=error and secrets.redact(error),
            returns=text,
            returns_object=object_,
            reads=as_json(record.reads),
            outputs=json.dumps(list(record.outputs.written)) if record.outputs.written else None,
            has_inner_failures=record.has_inner_failures,
            seconds=seconds,
            calls=sum(caller.n_calls for caller in record.callers),
            tokens=sum(caller.n_tokens for caller in record.callers),
            attempts=record.attempts,
            was="held" if record.held() else item.verdict.state,
        )
        document = record.document if state in FILED_STATES else None
        kept = (text, object_)
        if record.with_filed is not None:
            kept = ledger.keep(secrets.redacted(record.with_filed))
        if document is not None and document.is_filed:
            entry = replace(entry, gone=FILED)
            self._context.documents.file(document, kept)
        elif record.with_filed is not None:
            row = FiledRow(item.key, record.file_key, "", "", None, False, "", "", *kept)
            FiledRows(ledger).record(record.scope, row, self._stats.run)
        try:
            ledger.record(record.scope, entry, self._stats.run)
            self._context.suspects.end(  # in one commit with the entry
                record.scope,
                record.key,
                is_recorded=True,
                is_repeated_crash=record.is_repeated_crash,
            )
            record.entry = entry
            record.renamed_from = item.renamed_from
            self.record_made(record)
            await ledger.durable()
        except LedgerError as failure:
            raise RunStopped(str(failure)) from failure
        if document is not None and document.leaves is not None:
            try:
                await asyncio.to_thread(no_links.remove, document.leaves)
            except OSError as failure:
                why = f"cannot be removed ({failure.strerror or failure})"
                self._stats.note(f"'{printable(document.leaves)}' {why}")

    async def stands(self, record: ItemRun) -> bool:
        """Return whether the entry of an item that was cancelled meanwhile is recorded."""
        put, ledger = record.entry, self._context.ledger
        if put is None:
            return False
        with contextlib.suppress(LedgerError, TimeoutError):
            async with asyncio.timeout(CANCEL_GRACE_S):
                await ledger.durable()
        # Read back: the entry that failed may have been another item's.
        try:
            there = (await ledger.ask(ledger.entries, record.scope, [record.key])).get(record.key)
        except LedgerError:
            return False
        return there is not None and (there.hash, there.seconds) == (put.hash, put.seconds)

    async def _reconcile_rows(self, item: ItemWork, record: ItemRun, state: str) -> None:
        """Mark the item's rows and searches; drop rows that it no longer keeps."""
        record.reads |= record.outputs.searched
        for caller in record.callers:
            if caller.is_limited:
                record.note(LimitedContext(caller.step))
        await self._note_reads(record, list(record.outputs.read), self._context.bound.roots)
        try:
            rows = await self._row_keeper.reconcile(
                record.scope, record.key, record.outputs, item.entry, state
            )
        except StepError as error:
            raise RunStopped(str(error)) from error
        record.reads |= by_name(rows)

    async def record_written(self, record: ItemRun) -> None:
        """Record what a step without an entry writes now, if it ever wrote anything."""
        has_written = bool(record.outputs.written)
        if not has_written:
            ledger, before = self._context.ledger, self._origins.made
            has_written = await ledger.ask(before, record.scope, record.key) is not None
        if has_written:
            self.record_made(record)

    def record_made(self, record: ItemRun) -> None:
        """Record an item's lineage; it is committed with the next entry."""
        if record.node is None:
            return
        node, lists = record.node, record.lists
        key = (node.id, *(lists[name].digest for name in sorted(lists)))
        if key not in self._specs:
            text = canonical_spec(node)
            if lists:  # so that a later run knows which of the labels are new
                labels = {name: dict(found.labels) for name, found in lists.items()}
                text = ordered_json({**json.loads(text), LABELS: labels})
            text = self._stats.secrets.redact(text)
            self._specs[key] = (hashlib.sha256(text.encode()).hexdigest(), text)
        digest, text = self._specs[key]
        stored = record.own_path and self._context.index.stored(record.own_path)
        source = source_of(record.item, stored)
        inputs = self._context.bound.inputs_by_item
        self._origins.record(
            LineageRow(
                scope=record.scope,
                key=record.key,
                run=self._stats.run,
                at=0.0,
                spec=digest,
                source=None if source is None else source.path,
                made=self._stats.secrets.redacted(
                    lineage_as_json(source, record.steps, record.renamed_from)
                    | ({WROTE: record.wrote()} if record.entry is None else {})
                    | ({INPUTS_BY_ITEM: sorted(inputs)} if inputs else {})
                ),
            ),
            text,
        )


def item_tools(
    context: RunContext, step: BoundStep, caller: CallOrigin, record: ItemRun, scope: Scope
) -> Tools:
    """Return what a step of an item is given, but for the sources of its `reply`."""
    roots = guarded_roots(context.bound.roots, step, scope, record.own_path)
    item = record.name(step.id, scope, context.index)
    return context.tools(step, caller, record.outputs, item, roots)


def taught_as(context: RunContext, step: BoundStep) -> StepName:
    """Return by what name the decisions about a step's answers are known."""
    outer = context.judge.scopes_within
    return step_name(outer.file, f"{outer.steps}{step.id}")


async def taught_tools(
    context: RunContext, step: BoundStep, params: Any, tools: Tools, place: tuple[Scope, ItemRun]
) -> Tools:
    """Return tools with the decisions that are nearest to an item's text, and mark the item."""
    if not params.examples.k:
        return tools
    scope, record = place
    own_id = review_id(record.scope, record.key, step.id)
    last = record.last_examples.get(own_id)
    document = record.name(step.id, scope, context.index).path
    shown = (record.shown_key or record.key) if is_variant(context.judge.scopes_within.file) else ""
    name, digest = taught_as(context, step), document_digest(scope, record)
    item = TaughtItem(name, own_id, digest, document or "", last, shown)
    chosen = await context.judge.reviews.examples(step, params, tools, item)
    if chosen is None:
        return tools
    record.note(chosen.used)
    record.vectors[step.id] = {"model": chosen.used.model, "vector": chosen.used.vector}
    return replace(tools, examples=chosen.examples)


def sub_pipeline_context(
    outer: RunContext, step: BoundStep, record: ItemRun, bound: BoundPlan
) -> RunContext:
    """Return the context of the pipeline that a step runs: the run's, with its own plan."""
    bound = replace(bound, watches=outer.bound.watches, priority=outer.bound.priority)
    item = (record.block, record.shown_key) if record.outer else None
    is_nested = item is not None
    options = _sub_pipeline_options(outer.options, step.id, bound, is_nested=is_nested)
    return replace(
        outer,
        bound=bound,
        options=options,
        judge=outer.judge.within(step.id, bound, options, is_nested=is_nested),
        stats=outer.stats.within(step.id, item),
        claims=None if is_nested else outer.claims,  # they go with the item around them
        room=SuspectRoom() if is_nested else outer.room,
        parallel_around=record.parallel,
    )


def _sub_pipeline_options(
    options: RunOptions, step: str, bound: BoundPlan, *, is_nested: bool
) -> RunOptions:
    """Return the options of a sub-pipeline: forcing the step forces everything in it."""
    prefix = f"{step}."
    force = {name.removeprefix(prefix) for name in options.force if name.startswith(prefix)}
    if step in options.force:
        force.update(callable_names(bound.nodes))
    options = replace(options, force=frozenset(force), variant_of="")
    if not is_nested:
        return options
    return replace(options, only=frozenset(), sample=None)  # the item around it is asked for
