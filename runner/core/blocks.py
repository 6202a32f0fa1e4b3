"""Run a block: its items in chunks, within a bounded window, each in its own scope.

An item that fails is quarantined, skipped or stops the run, as `on_error` says. A finished item is
in the ledger before it counts as done. A step outside of blocks that calls a model is a block of
one item; what it fails with is its caller's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any

from paddock.engine.errors import EngineError
from paddock.engine.system.crash_isolation import UNLIMITED
from paddock.engine.system.retry import Pauses
from paddock.engine.system.tasks import task_group
from paddock.engine.system.text import listed
from paddock.pipelines.expressions import ExpressionError
from paddock.runner.bind.bound import (
    BoundBlock,
    BoundNode,
    BoundStep,
    all_steps,
    has_no_nested_items,
)
from paddock.runner.bind.scope import Scope
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.filed_rows import FiledRows
from paddock.runner.ledger.ledger_tables import FILED
from paddock.runner.progress.drain import StopGateClosed
from paddock.runner.progress.events import ItemState
from paddock.runner.progress.prefect_view import PrefectState
from paddock.runner.progress.reasons import Why
from paddock.runner.progress.report import ItemReport, State

from .block_state import BlockState
from .block_work import BlockWork, ItemWork
from .call_cache import PutOff
from .deadly_items import CrashHistory, ItemPlace, RepeatedCrash, suspects_text
from .dependencies import Dependencies, by_name, dependencies_of, with_outputs
from .escalation import EscalationPass, broken_promises
from .failures import LeftByReview, RunFailed, RunStopped, StepFailed
from .filed_items import filed_results
from .fingerprints import item_path
from .item_order import expected_tokens, longest_first
from .item_run import ItemRun, attempt_name, last_examples, last_labels
from .items import (
    ItemRunner,
    SubPipelinesFor,
    expect_queries,
    item_result,
    result_with_filed,
)
from .lacking_items import MAX_NAMED, LackingItems, no_documents_of, refuse_empty_results
from .outdated_outputs import NodeOutputs, end_of_block
from .pruning import OrphanCleaner
from .quarantine import failure_state
from .run_context import ItemOutputs, RunContext, run_chunk_here
from .run_reviews import AwaitingReview, refuse_waiting
from .same_output_file import refuse_output_conflicts
from .skipped_steps import reads_skipped
from .staleness import values_digest
from .steps_left_as_they_are import StepsLeft
from .work_claims import CLAIM_BACKOFF, ClaimLost, WorkClaims, state_done_elsewhere

ENDED_STATES = ("done", "skipped", "quarantined")
"""States in which an item waits for no decision."""
MODEL_PARALLEL, PLAIN_PARALLEL, SEARCH_PARALLEL = 16, 32, 64


class BlockRunner:
    """Runs the blocks of one plan."""

    def __init__(
        self,
        context: RunContext,
        sub_pipelines: SubPipelinesFor | None = None,
        around: tuple[ItemPlace, ...] = (),
    ) -> None:
        """`around`: the item for which a step runs this pipeline, behind those around it."""
        self._context = context
        self._around = around
        self._stop_gate = context.stop_gate
        self._stats = context.stats
        self.items = ItemRunner(context, sub_pipelines)
        self.left = StepsLeft()
        self.n_left = 0
        """Items that were not begun, or not finished, since the stop gate was closed."""
        self.reads: Dependencies = {}
        """Recorded dependencies, for the item around the pipeline."""
        self.ends: dict[str, NodeOutputs] = {}
        """What applies of each top-level step and block that has ended."""
        self.has_failures = False
        """Whether an item is quarantined; `attempts` is above zero where the reason is
        transient."""
        self.attempts = 0

    async def run_step(self, step: BoundStep, scope: Scope, outer: tuple[str, ...] = ()) -> Any:
        """Run a step outside of blocks, if it is stale; return its outputs, None: it was skipped.

        Raises:
            StepFailed: it did not succeed, which is not recorded.
            AwaitingReview: a person has to decide first.
            StopGateClosed: it was not begun.
        """
        run = await self.judge(step, scope, keeps_results=True, outer=outer)
        run.around, run.parallel = self._around, self._context.parallel_around
        await self._carried_out(run)
        self.reads |= run.reads
        if run.wait is not None:
            raise run.wait
        return run.results[0]

    async def run(
        self, block: BoundBlock, scope: Scope, *, keeps_results: bool, outer: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """Run a block's stale items; return the block's outputs.

        Raises:
            PipelineError: two items have the same key, or would write the same file.
            RunStopped: nothing else will succeed; or an item failed, with `on_error: fail`.
            StopGateClosed: some items were not begun; those that were are finished.
        """
        run = await self.judge(block, scope, keeps_results=keeps_results, outer=outer)
        run.around, run.parallel = self._around, self._context.parallel_around
        await self._carried_out(run)
        self.reads |= run.reads
        if run.ended:
            ledger = self._context.ledger
            for text in await broken_promises(ledger, run.block.body, run.work.scope):
                self._stats.note(text)
        if outer:
            refuse_waiting(block.id, len(run.waiting), has_skipped=bool(run.skipped_reviews))
        missing = no_documents_of(run.work) if not (outer or self._around) else None
        if lacking := missing or await run.lacking(self._context.judge.reviews):
            self.left.lacking[block.id] = lacking
        self.left.note_filed(run)
        return run.offered()

    async def _carried_out(self, run: BlockState) -> None:
        """Run the items to do, and handle those whose source is gone."""
        await asyncio.to_thread(self._context.judge.sources.keep, run.work.scope, run.work.missing)
        self._keep_filed(run.work)
        sizes = expected_tokens(run.todo(), run.work.items) if run.has_models else {}
        # The items to do, in the order in which they begin. The list's order is kept where items
        # run one by one, and where a budget or the first failure may end the run early.
        block, todo = run.block, run.todo()
        is_cut_short = self._context.bound.budget.is_set or block.on_error == "fail"
        if not (run.outer or not run.has_models or block.max_parallel == 1 or is_cut_short):
            todo = longest_first(todo, sizes)
        if run.is_outermost:
            n_fresh = sum(item.verdict.state in ("fresh", "held") for item in run.work.items)
            shown = {run.work.shown(key): size for key, size in sizes.items()}
            self._stats.step(run.block.id, n_fresh + len(run.todo()), n_fresh, shown)
        if run.work.held:
            self._stats.note(str(Why.OUTPUTS_KEPT(run.work.held)))
        expect_queries(self._context, run.block, todo, run.scope)
        # Run the items in chunks; wait for those that other machines hold.
        claims = self._claims_of(run)
        run.parallel = max(run.parallel, await self._parallel(run)) if todo else run.parallel
        if not run.outer:  # those that are given up are reported themselves
            of, limit = self._context.suspects.of, self._context.max_attempts
            known = [(item.key, suspect) for item in todo if (suspect := of(run.work.scope, item))]
            if tried := [pair for pair in known if not pair[1].is_deadly(run.parallel, limit)]:
                self._stats.note(suspects_text(tried, run.parallel))
        left, pauses = list(todo), Pauses(CLAIM_BACKOFF)
        while left and not self._stop_gate.is_closed:
            n_before = len(run.ended)
            run.passed.clear()
            for most, items in self._by_company(run, left):
                size = run.chunk_items if most >= run.parallel else 1
                fair = UNLIMITED if claims is None else await claims.fair_share_size(len(items))
                size = min(size, fair)
                firsts = range(0, len(items), size)
                chunks: list[Sequence[ItemWork]] = [items[at : at + size] for at in firsts]
                if claims is not None and fair < len(items):
                    chunks = claims.in_machine_order(chunks)
                await self._window(run, chunks, min(fair, most))
            left = list(run.passed)
            if left and claims is not None:
                self._stats.note(await claims.waits_for(run.work.scope, left))
                if len(run.ended) > n_before:
                    pauses.succeeded()
                await pauses.wait()
            left = left or run.next_pass()
        n_left = len(todo) - len(run.ended)
        if run.put_off and not self._stop_gate.is_closed:
            raise PutOff  # the item around it begins again
        if n_left:
            self.n_left += n_left if run.is_outermost else 0
            raise StopGateClosed
        if not self._context.options.leaves_out_items:
            # Handle the items whose source is gone; note what applies of the block.
            renamed = {item.renamed_from for item in run.work.items}
            for entry in await OrphanCleaner(self._context).handle_gone(run.work, run.done()):
                run.filed.pop(entry.key, None)
                if entry.key not in renamed:  # which is counted under its new name
                    self._count(run, entry.key, run.work.deletion(entry.key))
            if not run.outer:
                end = await end_of_block(self._context, run.work, run.skipped_reviews)
                self.ends[run.block.id] = end
        if run.is_partial:
            self.left.partial.add(run.block.id)
        self.has_failures = self.has_failures or bool(run.failed)
        self.attempts = max(self.attempts, run.attempts)

    def _keep_filed(self, work: BlockWork) -> None:
        """Record which items are filed since the last run, and note what is said of them."""
        ledger, run, store = self._context.ledger, self._stats.run, FiledRows(self._context.ledger)
        keys = [row.key for row in work.filed.new]
        for entry in ledger.entries(work.scope, keys).values() if keys else ():
            if entry.gone is None:
                ledger.record(work.scope, replace(entry, gone=FILED), entry.run)
        for row in work.filed.new:
            store.record(work.scope, row, run)
        for place in work.filed.taken_over:
            store.drop(*place)
        self._stats.filed(work.block.id, work.filed_counts)
        if work.again:
            names = listed(work.again, MAX_NAMED)
            self._stats.note(f"as filed before, so the same item: {names}")

    async def judge(
        self, node: BoundNode, scope: Scope, *, keeps_results: bool, outer: tuple[str, ...] = ()
    ) -> BlockState:
        """Judge the items of a block, or a step outside of blocks; count those not stale."""
        if isinstance(node, BoundBlock):
            work = await self._context.judge.block(node, scope, outer)
            refuse_output_conflicts(node, work, scope, self._context)
        else:
            work = await self._context.judge.step(node, scope, outer)
        run = BlockState(work, scope, keeps_results, [None] * len(work.items))
        if keeps_results:
            run.filed = filed_results(self._context.ledger, work.filed)
        if isinstance(node, BoundBlock):
            run.turn = EscalationPass.first(node.body)
        for item in work.items:
            if item.verdict.is_shared and item.entry is not None:
                self._shared(run, item, item.entry)
            elif not item.verdict.is_work:
                self._count_not_stale(run, item)
        return run

    # --- items that are not stale

    def _count_not_stale(self, run: BlockState, item: ItemWork) -> None:
        """Count an item that is not stale, and take its recorded result."""
        state, error, entry = item.verdict.state, None, item.entry
        if state == "quarantined":
            error = item.verdict.why or ""
        if entry is not None:
            self._take(run, item, entry, state, item.verdict.why)
            is_result = state not in ("quarantined", "waiting")
            if is_result and entry.state == "skipped" and entry.error:  # by `on_error: skip`
                state, error = "skipped", entry.error
            if entry.gone is not None:
                # Its source is back after a deletion; the next deletion is a new one.
                entry = replace(entry, gone=None)
                self._context.ledger.record(run.work.scope, entry, self._stats.run)
        self._count(run, item.key, run.report(item, state, 0.0, error, is_known=True))
        if run.step:
            shown_state: ItemState = state if state in ("skipped", "waiting") else "fresh"
            self._stats.item_state(run.block.id, "", shown_state, item.verdict.why)

    def _shared(self, run: BlockState, item: ItemWork, entry: Entry) -> None:
        """Count an item that another machine has done in this job."""
        state, shown = state_done_elsewhere(entry), run.shown(item.key)
        error = entry.error
        if state == "quarantined" and run.block.on_error == "fail":
            raise RunStopped(f"'{shown}': {error}")
        if state == "quarantined" and run.block.on_error == "skip":
            state = "skipped"
        self._take(run, item, entry, state, error)
        if item.verdict.is_work:
            run.ended.add(item.index)
        run.attempts = max(run.attempts, entry.attempts)
        self._count(run, item.key, run.report(item, state, 0.0, error))
        shown_state: ItemState = state if state in ("skipped", "quarantined", "waiting") else "done"
        self._stats.item_state(run.block.id, shown, shown_state, error)

    def _take(
        self, run: BlockState, item: ItemWork, entry: Entry, state: State, why: str | None
    ) -> None:
        """Take an item's recorded result, or why it has none."""
        if state == "quarantined":
            run.failed.append((item.index, {"key": item.key, "error": why or ""}))
        elif state == "waiting":
            run.waiting.append((item.index, item.key))
            run.wait = AwaitingReview(why or "")
        elif entry.state != "done":
            run.skipped_failures += [item.key] if entry.error else []
        elif entry.has_result:
            run.with_result.add(item.index)
            if run.keeps_results:
                value = self._context.ledger.value(entry.returns, entry.returns_object)
                run.results[item.index] = value
        if run.outer:
            run.reads |= with_outputs(entry, run.work.scope)

    def _count(
        self, run: BlockState, key: str, report: ItemReport, was: State | None = None
    ) -> None:
        """Count an item; `was`: its state before it ran, where it is held now."""
        run.counts[report.state] += 1
        if report.state == "skipped":
            run.skipped.add(key)
        if report.state not in ("fresh", "skipped", "waiting") and not report.is_known:
            run.changed.append({"key": key, "state": was or report.state})
        self._stats.item(report)

    # --- running items

    def _by_company(
        self, run: BlockState, items: Sequence[ItemWork]
    ) -> Iterator[tuple[int, list[ItemWork]]]:
        """Yield how many items may run together and the items: all but the crash suspects first."""
        groups: dict[tuple[int, int], list[ItemWork]] = {}
        for item in items:
            known = self._context.suspects.of(run.work.scope, item)
            n_crashes = 0 if known is None else len(known.runs)
            groups.setdefault((n_crashes, -self._company(run, known)), []).append(item)
        for (_, most), group in sorted(groups.items(), key=lambda pair: pair[0]):
            yield -most, group

    @staticmethod
    def _company(run: BlockState, known: CrashHistory | None) -> int:
        """Return with how many others an item may run, itself included."""
        most = UNLIMITED if known is None else known.n_together(run.parallel)
        return UNLIMITED if most >= run.parallel > 1 else most

    def _claims_of(self, run: BlockState) -> WorkClaims | None:
        """Return the claims on a block's items; nested blocks go with their outer item."""
        return None if run.outer else self._context.claims

    async def _window(
        self, run: BlockState, chunks: Sequence[Sequence[ItemWork]], most: int
    ) -> None:
        """Run chunks; at most `max_parallel` items, or `most`, are in flight at any time."""
        size = max((len(chunk) for chunk in chunks), default=1)

        def n_chunks(parallel: int) -> int:
            # One chunk more than are running waits, unless another machine could take it.
            return -(-min(parallel, most) // size) + (most == UNLIMITED)

        parallel = await self._parallel(run)
        room, window = asyncio.Semaphore(parallel), asyncio.Semaphore(n_chunks(parallel))
        async with task_group() as group:
            for chunk in chunks:
                await window.acquire()
                if self._stop_gate.is_closed:
                    break
                ending = group.create_task(self._chunk(run, chunk, room))
                ending.add_done_callback(lambda _: window.release())
                # A pool that the first item opens knows its number of slots only now.
                now_parallel = max(parallel, await self._parallel(run))
                for _ in range(now_parallel - parallel):
                    room.release()
                for _ in range(n_chunks(now_parallel) - n_chunks(parallel)):
                    window.release()
                parallel = now_parallel

    async def _parallel(self, run: BlockState) -> int:
        """Return how many items may be in flight: enough to fill the slots of their models.

        Twice as many as slots: items also wait for files, other steps and the ledger.
        """
        if run.block.max_parallel or not run.has_models:
            return run.block.max_parallel or PLAIN_PARALLEL
        if all(step.uses == "search" for step in all_steps(run.block.body) if step.kind.roles):
            return SEARCH_PARALLEL
        n_places = 0
        specs = (spec for step in all_steps(run.block.body) for spec in step.models)
        models = {(spec.pool, spec.ref): spec for spec in specs if spec.role == "chat"}
        for model in models.values():
            with suppress(EngineError):  # its first call raises the error
                n_places = max(n_places, (await self._context.pool.facts(model)).n_parallel)
        return max(MODEL_PARALLEL, 2 * n_places)

    async def _chunk(
        self, run: BlockState, chunk: Sequence[ItemWork], room: asyncio.Semaphore
    ) -> None:
        has_no_own = has_no_nested_items(run.block.body)
        claims = self._claims_of(run)
        if claims is not None:
            chunk, done, passed = await claims.take(run.work.scope, chunk, self._context.index)
            run.passed += passed
            for item, entry in done:
                self._shared(run, item, entry)
            if not chunk:
                return
            keys = [item.key for item in chunk]
            await self._context.suspects.look(run.work.scope, keys)  # machines may have crashed
            chunk = [item for _, group in self._by_company(run, chunk) for item in group]

        def over(_: asyncio.Task[None]) -> None:
            room.release()
            self._stop_gate.end(is_whole=has_no_own)

        async def work() -> PrefectState:
            async with task_group() as group:
                for item in chunk:
                    await room.acquire()
                    if not await self._stop_gate.may_begin(is_whole=has_no_own):
                        room.release()
                        break
                    group.create_task(self._item(run, item)).add_done_callback(over)
            return run.state_of(chunk)

        runner = run_chunk_here if run.outer or run.step else self._context.run_chunk
        await runner(run.block.id, [item.key for item in chunk], work)
        if claims is not None:
            await claims.release(run.work.scope, [item.key for item in chunk])

    async def _item(self, run: BlockState, item: ItemWork) -> None:
        """Run one item's steps and record how it ended; the ledger has a note of it meanwhile."""
        suspects, deadly = self._context.suspects, None
        known = suspects.of(run.work.scope, item)
        if known is not None and known.is_deadly(run.parallel, self._context.max_attempts):
            deadly = RepeatedCrash(run.block.id, known.n_deaths)
        entered = self._context.room.entered(self._company(run, known))
        room = nullcontext() if run.is_within_item else entered  # that item is in the room
        try:
            async with room, self._claimed(run, item):
                if deadly is None and run.step is None:
                    around = run.around[-1] if run.around else None
                    await suspects.begin(run.work.scope, item, around)
                try:
                    await self._steps(run, item, deadly)
                finally:
                    suspects.end(run.work.scope, item.key)
        except ClaimLost:
            run.hand_to_other_machine(item)
            self._stats.note(
                f"'{run.work.shown(item.key)}': another machine took it over meanwhile"
            )

    @asynccontextmanager
    async def _claimed(self, run: BlockState, item: ItemWork) -> AsyncIterator[None]:
        """Hold this machine's claim on an item meanwhile; another may have taken it over."""
        claims = self._claims_of(run)
        if claims is not None:
            claims.hold(run.work.scope, item.key)
            await claims.fence()  # a machine that slept may have lost its claim
        yield
        if claims is not None and item.index not in run.ended:
            await claims.fence()

    async def _steps(self, run: BlockState, item: ItemWork, deadly: RepeatedCrash | None) -> None:
        began = time.monotonic()
        record = ItemRun(
            scope=run.work.scope,
            key=item.key,
            shown_key=run.shown(item.key),
            block=run.block.id,
            own_path=item_path(item.item),
            outer=run.outer if run.step else (*run.outer, item.key),
            outputs=ItemOutputs(
                self._context, run.work.scope, item.key, may_shrink=run.step is None
            ),
            made_by=run.work.made_by,
            file_key=run.work.names.get(item.key, item.key),
            attempt=attempt_name(item),
            node=run.step or run.block,
            item=item.item,
            is_repeated_crash=deadly is not None,
            parallel=run.parallel,
            is_decided=item.verdict.is_decided,
            around=run.around,
            renamed_from=item.renamed_from,
            values_read=values_digest(item) if run.step else "",
            turn=run.turn,
            before=run.begun.pop(item.index, ()),
            last_labels=last_labels(item),
            last_examples=last_examples(item),
        )
        for made in record.before:
            self._stats.forget(made, record.shown_key)
        self._stats.item_state(run.block.id, record.shown_key, "running")
        if record.is_decided and item.entry is not None:
            # Its answers may not be asked for again
            record.reads |= by_name(dependencies_of(item.entry))
        try:
            if deadly is not None:
                raise deadly
            documents = self._context.documents
            with documents.open(record.scope, item, record.file_key, record.made_by) as document:
                record.document = document
                scope = await self.body(run.block.body, item.seen(run.block, run.scope), record)
            # As a later run reads it from the ledger: both must see the same.
            result = self._stats.secrets.redacted(item_result(run.block, scope, record.last))
            record.with_filed = result_with_filed(run.block, scope, record.last)
        except StopGateClosed:  # in a nested block; its finished items are in the ledger
            return
        except PutOff:
            run.put_off.append(item)
            run.begun[item.index] = record.steps
            return
        except StepFailed as error:
            await self._failed(run, item, record, error, time.monotonic() - began)
            return
        except AwaitingReview as wait:
            await self._waits(run, item, record, wait, time.monotonic() - began)
            return
        # Record an item that went well, or of which all steps were skipped
        seconds = time.monotonic() - began
        run.filed.pop(item.key, None)  # what it came out as before
        if record.with_filed is not None:
            run.wholes[item.key] = record.with_filed
        elif item.key in run.work.filed.parts:
            FiledRows(self._context.ledger).drop(record.scope, item.key)
        if not record.has_news:
            run.idle.add(item.key)
        if run.keeps_results:
            run.results[item.index] = result
        if result is None and not record.has_run:
            report = run.report(item, "skipped", seconds)
            await self._end(run, item, record, report, "skipped", None)
            return
        report = run.report(item, item.verdict.state, seconds)
        if held := record.held():
            report = replace(report, state="held", reasons=(Why.OUTPUTS_KEPT(tuple(held)),))
        await self._end(run, item, record, report, "done", result)
        if result is not None:
            run.with_result.add(item.index)

    async def _waits(
        self, run: BlockState, item: ItemWork, record: ItemRun, wait: AwaitingReview, seconds: float
    ) -> None:
        """Record an item that waits for a person; or leave it, where no one is asked."""
        run.wait, reasons = wait, (Why.RECORDED(wait.why),)
        if wait.is_asked:
            run.waiting.append((item.index, item.key))
            report = replace(run.report(item, "waiting", seconds), reasons=reasons)
            await self._end(run, item, record, report, "waiting", None)
            return
        run.skipped_reviews.add(item.index)
        report = replace(run.report(item, "skipped", seconds), reasons=reasons)
        self._count(run, item.key, report)
        run.ended.add(item.index)
        self._stats.item_state(report.step, record.shown_key, "skipped", wait.why)

    async def _failed(
        self, run: BlockState, item: ItemWork, record: ItemRun, error: StepFailed, seconds: float
    ) -> None:
        """Record a failed item as `on_error` says."""
        if run.step and not isinstance(error, LeftByReview):
            raise error
        text = str(error)
        most = self._context.max_attempts
        kept, record.attempts = failure_state(item.attempts, most, item.cause(error.cause))
        if kept == "quarantined" and record.attempts > 1:
            text += f" (failed {record.attempts} times in a row)"
        if run.block.on_error == "skip" or isinstance(error, LeftByReview):
            report = run.report(item, "skipped", seconds, text)
            run.skipped_failures.append(item.key)
            await self._end(
                run, item, record, report, "failed" if kept == "failed" else "skipped", None
            )
        elif run.block.on_error == "fail":
            report = run.report(item, "failed", seconds, text)
            await self._end(run, item, record, report, "failed", None)
            words = f"'{record.shown_key}': {text}"
            raise RunFailed(words, cause=error.cause) from error
        else:
            run.failed.append((item.index, {"key": item.key, "error": text}))
            # Who asks for another try wants to know how it ended.
            is_known = item.has_failed_before and not self._context.options.retry_failed
            report = run.report(item, "quarantined", seconds, text, is_known=is_known)
            await self._end(run, item, record, report, kept, None)

    async def _end(
        self,
        run: BlockState,
        item: ItemWork,
        record: ItemRun,
        report: ItemReport,
        kept: str,
        result: Any,
    ) -> None:
        """Record an item, count it, and wait until the entry is durable."""
        was = item.verdict.state if report.state == "held" else None
        await self._context.fence()
        try:
            await self.items.record(item, record, kept, report.error, result, report.seconds)
        except asyncio.CancelledError:
            if await self.items.stands(record):
                self._count(run, item.key, report, was)
            raise
        if kept in ENDED_STATES:
            await self._context.judge.reviews.forget(record.scope, [record.key])
        self._count(run, item.key, report, was)
        run.ended.add(item.index)
        if run.outer:
            run.reads |= record.dependencies()
        if kept in ("failed", "done"):
            run.attempts = max(run.attempts, record.attempts)
        shown_state: ItemState = "done"
        if report.state in ("skipped", "failed", "quarantined", "waiting"):
            shown_state = report.state
        self._stats.item_state(report.step, record.shown_key, shown_state, report.error)

    # --- the steps of an item

    async def body(self, body: Sequence[BoundNode], scope: Scope, record: ItemRun) -> Scope:
        """Run the steps of an item in order; return the scope with their outputs."""
        lacking: dict[str, LackingItems] = {}
        for node in body:
            refuse_empty_results(node.id, node.references, lacking)
            if isinstance(node, BoundBlock):
                outputs = await self._inner(node, scope, record, lacking)
            else:
                outputs = await self.items.step(node, scope, record)
            record.has_run = record.has_run or outputs is not None
            record.last = outputs
            scope = scope.with_step(node.id, outputs)
        return scope

    async def _inner(
        self, block: BoundBlock, scope: Scope, record: ItemRun, lacking: dict[str, LackingItems]
    ) -> dict[str, Any] | None:
        """Run a nested block for one item of the outer one; note in `lacking` what failed."""
        try:
            if is_block_skipped(block, scope):
                return None
            run = await self.judge(block, scope, keeps_results=True, outer=record.outer)
            run.around, run.is_within_item = record.with_outer_items, True
            run.turn = record.turn
            run.parallel = record.parallel
            await self._carried_out(run)
        except ExpressionError as error:
            raise StepFailed(block.id, str(error)) from error
        record.reads |= run.reads
        record.has_inner_failures = record.has_inner_failures or bool(run.failed)
        record.attempts = max(record.attempts, run.attempts)
        refuse_waiting(block.id, len(run.waiting), has_skipped=bool(run.skipped_reviews))
        if lacks := await run.lacking(self._context.judge.reviews):
            lacking[block.id] = lacks
        return run.offered()


def is_block_skipped(block: BoundBlock, scope: Scope) -> bool:
    """Return whether a block's `if` is false, or it reads outputs of a skipped step."""
    if reads_skipped(block.references, scope):
        return True
    return block.if_ is not None and not block.if_.evaluate(scope)
