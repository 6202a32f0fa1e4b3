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
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from paddock.engine.errors import DeadlineExceeded, EngineError
from paddock.engine.system.tasks import in_left_thread, time_limit
from paddock.engine.system.text import canonical_json
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.pipelines.label_choices import LabelList
from paddock.runner.bind.bound import (
    BoundBlock,
    BoundNode,
    BoundPlan,
    BoundStep,
    callable_names,
    canonical_spec,
    node_ids,
    prompt_digest,
)
from paddock.runner.bind.evidence_sources import EvidenceFinder, read_sources
from paddock.runner.bind.inputs_and_parameters import BindError, Scope
from paddock.runner.bind.label_lists import (
    BORDER,
    LABELS,
    choices_of,
    label_mark,
    n_at_border,
)
from paddock.runner.bind.reply import ScopedReply
from paddock.runner.bind.taint_analysis import guarded_roots
from paddock.runner.ledger.calibration import CalibrationKey, calibrated, start_text
from paddock.runner.ledger.entries import Entry, LedgerError, LineageRow
from paddock.runner.ledger.lineage import LineageStore
from paddock.runner.ledger.outputs import OutputIndex
from paddock.runner.ledger.reviews import Question, Review
from paddock.runner.progress.drain import StopGateClosed
from paddock.steps.base import (
    ItemName,
    Output,
    OutsideRoots,
    Roots,
    StepError,
    StepSkipped,
    SubPipelines,
    Tools,
)
from paddock.steps.paths import resolve_path

from .block_work import ItemWork
from .call_cache import CallOrigin
from .cleanup import RowKeeper
from .dependencies import SCAN, held_paths, limited_mark, written_within
from .fingerprints import file_path_of, is_file_value, item_content, part_digest
from .retry_and_quarantine import (
    MISSING_PACKAGE,
    NOT_REVIEWED,
    ItemPlace,
    LeftByReview,
    RunStopped,
    StepFailed,
    SuspectRoom,
    cause_of,
    is_step_skipped,
    retry_pause_s,
    stop_if_fatal,
    times,
)
from .review_questions import (
    AwaitingReview,
    NobodyAsked,
    accepted_unseen,
    answer_of,
    asked_because,
    decided_outputs,
    decision_text,
    document_spec,
    is_drawn,
    is_due,
    n_rejections,
    source_texts,
    values_read,
)
from .run_context import ItemOutputs, RunContext
from .run_options import RunOptions
from .run_records import (
    WROTE,
    CallRecord,
    StepRecord,
    lineage_as_json,
    read_lineage,
    source_of,
)

CANCEL_GRACE_S = 2.0
"""How long a cancelled item waits for the ledger, to know whether it is recorded."""


@dataclass
class ItemRun:
    """Records of one item's steps, collected while they run."""

    scope: str
    key: str
    shown_key: str
    block: str
    own_path: str | None
    outer: tuple[str, ...]
    outputs: ItemOutputs
    attempt: str = ""
    """Id of this attempt: see `ItemName`."""
    node: BoundNode | None = None
    """The item's block or step; None: no lineage is recorded."""
    item: Any = None
    renamed_from: str | None = None
    steps: list[StepRecord] = field(default_factory=list)
    callers: list[CallOrigin] = field(default_factory=list)
    reads: dict[str, list[Any]] = field(default_factory=dict)
    lists: dict[str, LabelList] = field(default_factory=dict)
    """The lists of labels that its answers were chosen from, by name."""
    last_labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The labels of its last answers, by the list's name."""
    has_inner_failures: bool = False
    entry: Entry | None = None
    """The entry sent to the ledger; it may not be durable yet."""
    attempts: int = 0
    """Failures in a row for a transient reason, of the item or one within it."""
    last: Any = None
    is_last_skipped: bool = False
    around: tuple[ItemPlace, ...] = ()
    """The items around it, outermost first."""
    values_read: str = ""
    """Digest of what a top-level step reads, which has no document."""
    is_decided: bool = False
    """A person has decided on an answer of the unchanged item since its last run."""
    is_repeated_crash: bool = False
    parallel: int = 1
    """How many items may be in flight, of its block or of one around it."""
    """It is given up untried: several processes died of it."""

    @classmethod
    def of(cls, context: RunContext, node: BoundNode, outer: tuple[str, ...] = ()) -> ItemRun:
        """Return the records of a top-level step or block as an item of its own."""
        scope, key = context.judge.scope_id(node.id, outer), node.id
        outputs = ItemOutputs(context, scope, key)
        return cls(scope, key, "/".join(outer), key, None, outer, outputs, node=node)

    @property
    def with_those_around(self) -> tuple[ItemPlace, ...]:
        """The items around it, and itself."""
        return (*self.around, (self.scope, self.key))

    def keep_marks(self, entry: Entry) -> None:
        """Take over the dependencies of its last run: its answers may not be asked for again."""
        self.reads.update(entry.marks())

    def marks(self) -> dict[str, list[Any]]:
        """Return its dependencies, for the item around it."""
        within = written_within(self.scope, self.key, self.outputs.written)
        return self.reads | self.outputs.searched | within

    def name(self, step: str, scope: Scope, index: OutputIndex) -> ItemName:
        """Return the item as a step knows it; its file is the innermost loop variable with one."""
        files = (one for one in reversed(scope.values()) if file_path_of(one) is not None)
        file: Mapping[str, Any] = next(files, {})
        path, relpath = file.get("path"), file.get("relpath")
        stored = index.stored(path) if isinstance(path, str) else ""
        source = relpath if isinstance(relpath, str) and relpath else stored
        owner = f"{self.scope}\n{self.key}"
        return ItemName(step, self.shown_key or self.key, source, stored, owner, self.attempt)

    def wrote(self) -> list[str]:
        """Return the stored paths of the files that it wrote or kept."""
        return [*self.outputs.written, *held_paths(self.outputs.searched)]

    def held(self) -> list[str]:
        """Return the stored paths of edited outputs that were kept."""
        return held_paths(self.reads | self.outputs.searched)


def attempt_name(item: ItemWork) -> str:
    """Return the id of an attempt: the same until it is done, also over kills and failures."""
    entry = item.entry
    return f"{item.hash} {entry.run if entry is not None and entry.state == 'done' else ''}"


def item_path(item: Any) -> str | None:
    """Return the path of an item that is a file."""
    path = item.get("path") if isinstance(item, Mapping) else None
    return path if isinstance(path, str) else None


SubPipelinesFor = Callable[[BoundStep, ItemRun], SubPipelines]
"""(step, the item for which it runs) → runner of its sub-pipeline."""


class AnswerReviewer:
    """Has a person decide on the answers of steps with `review`, or applies what was decided."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._reviews = context.judge.reviews
        self._prompts: dict[str, str] = {}
        """Step → digest of what it asks."""

    async def calibrated(
        self, step: BoundStep, scope: Scope, record: ItemRun, outputs: dict[str, Any]
    ) -> dict[str, Any]:
        """Return outputs with the confidence as people's decisions have it, where these suffice.

        Recorded as it was at that time: later decisions make no item stale. What was decided about
        this item, or about its document elsewhere, does not count.
        """
        if step.model is None or step.reply is None or outputs.get("confidence") is None:
            return outputs
        key = await self._calibration_key(step)
        tables = await self._reviews.calibrations()
        if (changed := start_text(key, tables)) is not None:
            self._context.stats.note(changed)
        if key not in tables:
            return outputs
        item = (record.scope, record.key)
        line = tables[key].calibration(item, self._document(scope, record))
        if line is None:
            return outputs
        return {**outputs, "confidence": calibrated(outputs["confidence"], line)}

    async def _calibration_key(self, step: BoundStep) -> CalibrationKey:
        assert step.model is not None
        bound = self._context.bound
        if step.id not in self._prompts:
            self._prompts[step.id] = prompt_digest(step, bound)
        schema = None if step.reply is None else step.reply.schema
        model = await self._context.digests.of(step.model)
        return CalibrationKey(
            bound.file.name,
            step.id,
            model,
            self._prompts[step.id],
            hashlib.sha256(canonical_json(schema).encode()).hexdigest(),
        )

    async def n_rejected(self, step: BoundStep, scope: Scope, record: ItemRun) -> int:
        """Return how many rejected answers were tried again: another one is wanted."""
        if step.review is None:
            return 0
        try:
            review = await self._reviews.at(record.scope, record.key, step.id)
        except LedgerError as error:
            raise RunStopped(str(error)) from error
        again = self._context.options.retry_failed
        return n_rejections(review, self._document(scope, record), is_tried_again=again)

    async def recorded(self, step: BoundStep, record: ItemRun) -> dict[str, Any] | None:
        """Return the outputs that a person decided on, without asking the model again."""
        review = await self._reviews.at(record.scope, record.key, step.id)
        if review is None or not review.is_decided:
            return None
        outputs = review.subject.get("outputs")
        return dict(outputs) if isinstance(outputs, Mapping) else None

    async def reviewed(
        self, step: BoundStep, scope: Scope, record: ItemRun, outputs: dict[str, Any], tools: Tools
    ) -> dict[str, Any]:
        """Return a step's outputs as decided.

        Raises:
            AwaitingReview: a person has to decide first.
            StepFailed: the answer was rejected, or no one may be asked.
        """
        assert step.review is not None
        names = ("document_sha256", "answer")
        subject = await self._subject(step, scope, record, outputs)
        light = self._question(step, record, {name: subject[name] for name in names})

        spec = step.review

        # Where no one is asked, a sure answer is used as it would be without the share.
        is_sampled = self._reviews.mode == "ask" and is_drawn(spec, step.id, subject["item"])

        async def whole() -> Question:
            asked = asked_because(spec, scope, outputs, is_drawn=is_sampled)
            return self._question(
                step, record, await self._whole(step, scope, {**subject, **asked}, tools)
            )

        while True:
            try:
                due = is_due(spec, scope, outputs)
                review = await self._reviews.settle(light, whole, is_due=due or is_sampled)
            except NobodyAsked as error:
                raise StepFailed(step.id, str(error), cause=NOT_REVIEWED) from error
            except ExpressionError as error:
                raise StepFailed(step.id, f"`review.when`: {error}") from error
            if review is None:
                return accepted_unseen(outputs) if due else outputs
            if await self._reviews.apply(review):
                return await self._decided(step, review, outputs, tools)

    async def _decided(
        self, step: BoundStep, review: Review, outputs: dict[str, Any], tools: Tools
    ) -> dict[str, Any]:
        assert step.review is not None
        ends = step.review.on_expiry
        if review.state == "rejected" or (review.state == "expired" and ends == "quarantine"):
            raise StepFailed(step.id, decision_text(review))
        if review.state == "expired" and ends == "skip":
            raise LeftByReview(step.id, decision_text(review))
        has_schema = step.reply is not None and step.reply.schema is not None
        evidence = None
        if review.state == "edited" and tools.reply is not None and has_schema:
            evidence = await tools.reply.evidence(review.value)
        return decided_outputs(outputs, review, has_schema=has_schema, evidence=evidence)

    def _question(self, step: BoundStep, record: ItemRun, subject: Mapping[str, Any]) -> Question:
        assert step.review is not None
        return Question(
            record.scope,
            record.key,
            step.id,
            self._context.stats.run,
            self._context.stats.secrets.redacted(subject),
            step.review.ttl_s,
            tuple(one["text_object"] for one in subject.get("sources", ()) if "text_object" in one),
            record.renamed_from,
            self._context.options.retry_failed,
        )

    def _document(self, scope: Scope, record: ItemRun) -> str:
        """Return what tells a changed document from an unchanged one."""
        files = (one for one in reversed(scope.values()) if is_file_value(one))
        file = next(files, None)
        if file is not None and file is record.item:
            return str(file["sha256"])
        parts = [] if file is None else [file["sha256"]]
        return part_digest([*parts, item_content(record.item, None), record.values_read])

    async def _subject(
        self, step: BoundStep, scope: Scope, record: ItemRun, outputs: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what a question is about, without the texts that the answer was made of."""
        assert step.review is not None
        name = record.name(step.id, scope, self._context.index)
        return {
            "pipeline": self._context.bound.file.name,
            "block": record.block if record.item is not None else "",
            "item": record.shown_key or record.key,
            "document": name.path or None,
            "document_sha256": self._document(scope, record),
            "around": [list(place) for place in record.around],
            "answer": answer_of(outputs),
            "evidence": outputs.get("evidence"),
            "confidence": outputs.get("confidence"),
            "outputs": outputs,
            "when": step.review.when.source,
            "by": list(step.review.by),
            "on_expiry": step.review.on_expiry,
        }

    async def _whole(
        self, step: BoundStep, scope: Scope, subject: Mapping[str, Any], tools: Tools
    ) -> dict[str, Any]:
        reply = step.reply
        checks = () if reply is None else reply.checks
        paths = {path for check in checks for path in check.references}
        ledger = self._context.ledger
        sources = tools.reply.sources() if isinstance(tools.reply, ScopedReply) else ()
        if not sources:  # no evidence is asked for: the documents that were read
            read = document_spec(scope)
            sources = read_sources(read, scope, tools.roots.base) if read.sources else ()
        spec = None if reply is None else reply.evidence
        key = None if step.model is None else await self._calibration_key(step)
        return {
            **subject,
            "model": None if step.model is None else step.model.ref,
            "digest": None if key is None else key.model_digest,
            "prompt_digest": None if key is None else key.prompt_digest,
            "schema_digest": None if key is None else key.schema_digest,
            "schema": None if tools.reply is None else tools.reply.schema,
            "checks": [check.source for check in checks],
            "scope": values_read(sorted(paths), scope),
            "evidence_only": [] if spec is None else list(spec.only),
            "sources": await asyncio.to_thread(source_texts, sources, ledger, self._stored),
        }

    def _stored(self, path: str) -> str:
        """Return a document's path as the ledger writes it, without links."""
        try:
            return self._context.index.stored(self._context.bound.roots.resolve(path))
        except (OutsideRoots, OSError, RuntimeError, ValueError):
            return self._context.index.stored(path)


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


def expect_queries(
    context: RunContext, block: BoundBlock, todo: Sequence[ItemWork], scope: Scope
) -> None:
    """Have the queries of a block's new items embedded together, where no step makes them."""
    inner = {("steps", name) for name in node_ids(block.body)}
    for step in block.body:
        if not isinstance(step, BoundStep) or step.uses != "search" or context.queries is None:
            continue
        written = step.params.value.data
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
        record.callers.append(caller)
        ref = None if step.model is None else step.model.ref
        made = StepRecord(step.id, step.uses, step.kind.version, ref, calls=caller.made)
        record.steps.append(made)
        try:
            outputs = await self._with_retries(step, scope, record, caller)
            await self._note_listing(record, step, scope, outputs)
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
        """Run a step as often as its `retry` allows.

        Raises:
            StepFailed: it did not succeed.
            RunStopped: nothing else will succeed either.
        """
        if is_step_skipped(step, scope):
            return None
        n_refused = await self._reviewer.n_rejected(step, scope, record)
        for turn in itertools.count():
            try:
                tools = self._tools(step, caller, record, scope)
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
                pause_s = retry_pause_s(cause, turn, step.retry.backoff_s, random.random())
                await asyncio.sleep(pause_s)
            except (ExpressionError, BindError, OutsideRoots) as error:
                raise StepFailed(step.id, str(error)) from error
            except LedgerError as error:
                raise RunStopped(str(error)) from error
            except (StepFailed, RunStopped, StopGateClosed, PipelineError, AwaitingReview):
                raise  # of the pipeline that the step runs
            except (Exception, SystemExit) as error:  # a bug of the step: its traceback is logged
                self._stats.unexpected(f"{record.shown_key}, step '{step.id}'", error)
                cause = MISSING_PACKAGE if isinstance(error, ModuleNotFoundError) else "other"
                what = f"{type(error).__name__}: {error}"
                raise StepFailed(step.id, what, cause=cause) from error
        raise AssertionError("unreachable")

    async def _run_once(
        self, step: BoundStep, scope: Scope, record: ItemRun, tools: Tools, caller: CallOrigin
    ) -> Any:
        params = step.params.render(scope)
        await self._note_reads(record, step.kind().reads(params), tools.roots)
        tools = await self._with_labels(step, scope, record, tools)
        outputs = None
        if step.review is not None and record.is_decided and not caller.looks_up:
            outputs = await self._reviewer.recorded(step, record)
            caller.made.extend(await self._calls_before(step, record) if outputs else ())
        if outputs is None:
            outputs = await self._answer(step, params, tools)
            outputs = await self._reviewer.calibrated(step, scope, record, outputs)
        if step.review is not None:
            outputs = await self._reviewer.reviewed(step, scope, record, outputs, tools)
        self._mark_labels(step, scope, record, outputs)
        labels = tools.reply.labels if isinstance(tools.reply, ScopedReply) else None
        for _ in range(n_at_border(labels, outputs.get("output")) if labels is not None else 0):
            tools.log.tally("answer", BORDER)
        record.steps[-1].note_answer(outputs)
        if step.returns is None:
            return outputs
        return step.returns.render(scope.with_step(step.id, outputs))

    async def _with_labels(
        self, step: BoundStep, scope: Scope, record: ItemRun, tools: Tools
    ) -> Tools:
        """Return tools whose reply knows the labels of this run."""
        if not choices_of(step) or not isinstance(tools.reply, ScopedReply):
            return tools
        judge = self._context.judge
        last = {one.field: record.last_labels.get(judge.list_name(step, one.field), ())
                for one in choices_of(step)}  # fmt: skip
        self._mark_labels(step, scope, record, None)  # if it fails, any other list may help
        labels = await judge.labels.offered(step, scope, tools, last)
        return replace(tools, reply=replace(tools.reply, labels=labels))

    def _mark_labels(
        self, step: BoundStep, scope: Scope, record: ItemRun, outputs: Mapping[str, Any] | None
    ) -> None:
        judge, answer = self._context.judge, None if outputs is None else outputs.get("output")
        for place, found in judge.labels.of_step(step, scope).items():
            name = judge.list_name(step, place)
            record.lists[name] = found
            record.reads.update(label_mark(name, found, answer, place))

    async def _calls_before(self, step: BoundStep, record: ItemRun) -> list[CallRecord]:
        """Return the calls of the run that made an answer which is not asked for again."""
        row = await self._context.ledger.ask(self._origins.made, record.scope, record.key)
        _, steps = read_lineage(row.made) if row is not None else (None, ())
        calls = (call for one in steps if one.id == step.id for call in one.calls)
        return [replace(call, is_known=True) for call in calls]

    async def _answer(self, step: BoundStep, params: Any, tools: Tools) -> dict[str, Any]:
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
        return outputs

    def _tools(self, step: BoundStep, caller: CallOrigin, record: ItemRun, scope: Scope) -> Tools:
        tools = item_tools(self._context, step, caller, record, scope)
        if step.reply is not None:
            form = step.reply
            finder = EvidenceFinder.of(form.evidence, form.schema, scope, tools)
            tools = replace(tools, reply=ScopedReply(step.reply, scope, finder))
        if step.inner is not None and self._sub_pipelines is not None:
            tools = replace(tools, pipelines=self._sub_pipelines(step, record))
        return tools

    async def _note_reads(self, record: ItemRun, texts: Sequence[str], roots: Roots) -> None:
        """Mark files before a step reads them; the item's own file is in its hash.

        Raises:
            StepError: a path may not be used.
        """
        mark = self._context.judge.dependencies.mark
        for text in texts:
            if text == record.own_path:
                continue
            path = str(resolve_path(roots, text))
            with contextlib.suppress(OSError):  # the step reports the error
                record.reads[self._context.index.stored(path)] = await in_left_thread(mark, path)

    async def _note_listing(
        self, record: ItemRun, step: BoundStep, scope: Scope, outputs: Any
    ) -> None:
        """Mark a folder that was listed for this item alone."""
        if record.outer and step.uses == SCAN and outputs is not None:
            files = None if step.returns is not None else outputs["files"]
            params, roots = step.params.render(scope), self._context.bound.roots
            owned = self._context.index.owned() if files is None else frozenset()
            note = self._context.judge.dependencies.note_listing
            await asyncio.to_thread(note, record.reads, params, files, roots, owned)

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
        await self._settle_rows(item, record, state)
        text, object_ = ledger.keep(secrets.redacted(result))
        entry = Entry(
            key=item.key,
            hash=item.hash,
            parts=item.parts,
            state=state,
            error=error and secrets.redact(error),
            returns=text,
            returns_object=object_,
            reads=json.dumps(record.reads) if record.reads else None,
            outputs=json.dumps(list(record.outputs.written)) if record.outputs.written else None,
            has_inner_failures=record.has_inner_failures,
            seconds=seconds,
            calls=sum(caller.n_calls for caller in record.callers),
            tokens=sum(caller.n_tokens for caller in record.callers),
            attempts=record.attempts,
            was="held" if record.held() else item.verdict.state,
        )
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

    async def _settle_rows(self, item: ItemWork, record: ItemRun, state: str) -> None:
        """Mark the item's rows and searches; drop rows that it no longer keeps."""
        record.reads.update(record.outputs.searched)
        for caller in record.callers:
            if caller.is_limited:
                record.reads.update(limited_mark(caller.step))
        await self._note_reads(record, list(record.outputs.read), self._context.bound.roots)
        try:
            marks = await self._row_keeper.settle(
                record.scope, record.key, record.outputs, item.entry, state
            )
        except StepError as error:
            raise RunStopped(str(error)) from error
        record.reads.update(marks)

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
        digest, text = self._spec(record.node, record.lists)
        stored = record.own_path and self._context.index.stored(record.own_path)
        source = source_of(record.item, stored)
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
                ),
            ),
            text,
        )

    def _spec(self, node: BoundNode, lists: Mapping[str, LabelList]) -> tuple[str, str]:
        key = (node.id, *(lists[name].digest for name in sorted(lists)))
        if key not in self._specs:
            text = canonical_spec(node)
            if lists:  # so that a later run knows which of the labels are new
                labels = {name: dict(found.labels) for name, found in lists.items()}
                text = canonical_json({**json.loads(text), LABELS: labels})
            text = self._stats.secrets.redact(text)
            self._specs[key] = (hashlib.sha256(text.encode()).hexdigest(), text)
        return self._specs[key]


def item_tools(
    context: RunContext, step: BoundStep, caller: CallOrigin, record: ItemRun, scope: Scope
) -> Tools:
    """Return what a step of an item is given, but for the sources of its `reply`."""
    roots = guarded_roots(context.bound.roots, step, scope, record.own_path)
    item = record.name(step.id, scope, context.index)
    return context.tools(step, caller, record.outputs, item, roots)


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
    options = replace(options, force=frozenset(force))
    if not is_nested:
        return options
    return replace(options, only=frozenset(), sample=None)  # the item around it is asked for
