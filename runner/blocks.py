"""Carry out a block: its items in chunks, within a bounded window, each in its own scope.

An item that fails is quarantined, skipped or stops the run, as its block says; what is finished
is in the ledger before it counts as done.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paddock.pipelines.expressions import ExpressionError

from .attempt import StepFailed, Stopped, attempt, reads_skipped
from .bound import BoundBlock, BoundNode, BoundStep
from .calls import Caller
from .clashes import refuse_clashes
from .groups import start, together
from .ledger import Entry, LedgerError
from .outputs import ItemOutputs
from .report import STATES, ItemReport, State
from .scope import Scope
from .tools import Toolbox
from .work import NOT_ASKED, BlockWork, ItemWork, Work, steps_of

ChunkRunner = Callable[[str, Sequence[str], Callable[[], Awaitable[str]]], Awaitable[None]]
"""(block, keys, what runs them and tells in words how it went) → when it is done."""

# Few enough that progress shows where each item takes seconds; many where one takes a millisecond.
MODEL_CHUNK_ITEMS, PLAIN_CHUNK_ITEMS = 4, 50
MODEL_PARALLEL, PLAIN_PARALLEL = 16, 32


async def plain_chunks(block: str, keys: Sequence[str], run: Callable[[], Awaitable[str]]) -> None:
    """Run a chunk here and now: what `--local` uses."""
    await run()


@dataclass
class ItemRun:
    """What one item's steps did, collected while they run."""

    scope: str
    key: str
    shown_key: str
    block: str
    own_path: str | None
    outer: tuple[str, ...]
    outputs: ItemOutputs
    callers: list[Caller] = field(default_factory=list)
    reads: dict[str, list[Any]] = field(default_factory=dict)
    has_inner_failures: bool = False
    last: Any = None
    is_last_skipped: bool = False


@dataclass(slots=True)
class BlockRun:
    """A block's items on their way."""

    block: BoundBlock
    work: BlockWork
    scope: Scope
    outer: tuple[str, ...]
    keeps_results: bool
    results: list[Any]
    failed: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    changed: list[dict[str, str]] = field(default_factory=list)

    def shown(self, key: str) -> str:
        """Give an item's key with those of the items around it."""
        return "/".join((*self.outer, key))

    def todo(self) -> list[ItemWork]:
        """Give the items for which something must be done."""
        return [item for item in self.work.items if item.verdict.is_work]

    @property
    def is_partial(self) -> bool:
        """Whether `--only` left out items that have work to do."""
        return any(item.verdict is NOT_ASKED for item in self.work.items)

    def offered(self) -> dict[str, Any]:
        """Give what `steps.<block>` offers; items without a result are not among `results`."""
        return {
            "results": [result for result in self.results if result is not None],
            "counts": self.counts,
            "changed": self.changed,
            "failed": [failure for _, failure in sorted(self.failed, key=lambda pair: pair[0])],
        }


class Blocks:
    """Carries out the blocks of one run."""

    def __init__(self, work: Work, toolbox: Toolbox, run_chunk: ChunkRunner) -> None:
        self._work = work
        self._toolbox = toolbox
        self._tally = toolbox.tally
        self._run_chunk = run_chunk
        self.partial: set[str] = set()
        """Blocks of which `--only` left something undone; what reads them is left as it is."""

    async def run(
        self, block: BoundBlock, scope: Scope, *, keeps_results: bool, outer: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """Do what must be done of a block and give its outputs.

        Raises:
            PipelineError: two items have the same key, or would write the same file.
            Stopped: nothing else will succeed; or an item failed, with `on_error: fail`.
        """
        run = await self.settle(block, scope, keeps_results=keeps_results, outer=outer)
        todo = run.todo()
        if not outer:
            n_items = len(run.work.items)
            self._tally.observer.step(block.id, n_items, n_items - len(todo))
        self._tell_edited(run)
        await self._chunks(run, todo)
        if not self._toolbox.options.only:
            self._mark_deleted(run)
        if run.is_partial:
            self.partial.add(block.id)
        return run.offered()

    async def settle(
        self, block: BoundBlock, scope: Scope, *, keeps_results: bool, outer: tuple[str, ...] = ()
    ) -> BlockRun:
        """Judge a block's items, and count those for which nothing is to be done."""
        work = await self._work.block(block, scope, outer)
        refuse_clashes(block, work, scope, self._work.index)
        run = BlockRun(block, work, scope, outer, keeps_results, [None] * len(work.items))
        for item in work.items:
            if not item.verdict.is_work:
                self._settled(run, item)
        return run

    # --- items that need nothing

    def _settled(self, run: BlockRun, item: ItemWork) -> None:
        """Count an item for which nothing is done, and take its recorded result."""
        state, error, entry = item.verdict.state, None, item.entry
        if state == "quarantined":
            error = item.verdict.why or ""
            run.failed.append((item.index, {"key": item.key, "error": error}))
        elif run.keeps_results and entry is not None and entry.state == "done":
            run.results[item.index] = self._work.ledger.value(entry.returns, entry.returns_object)
        report = ItemReport(
            run.block.id,
            run.shown(item.key),
            state,
            error=error,
            why=item.verdict.why,
            is_known=True,
        )
        self._count(run, item.key, report)

    def _count(self, run: BlockRun, key: str, report: ItemReport) -> None:
        run.counts[report.state] += 1
        if report.state not in ("fresh", "skipped") and not report.is_known:
            run.changed.append({"key": key, "state": report.state})
        self._tally.item(report)

    def _tell_edited(self, run: BlockRun) -> None:
        edited = run.work.edited
        if edited:
            names = ", ".join(edited[:3]) + (f" and {len(edited) - 3} more" if edited[3:] else "")
            self._tally.note(f"edited by hand since it was written, and kept: {names}")

    def _mark_deleted(self, run: BlockRun) -> None:
        for entry in run.work.deleted:
            gone = {name: getattr(entry, name) for name in Entry.__slots__}
            gone["gone"] = self._tally.run
            self._work.ledger.record(run.work.scope, Entry(**gone), self._tally.run)
            self._count(run, entry.key, ItemReport(run.block.id, run.shown(entry.key), "deleted"))

    # --- items that are done

    async def _chunks(self, run: BlockRun, todo: Sequence[ItemWork]) -> None:
        """Run the items in chunks; at most `max_parallel` items are in flight at any time."""
        has_models = any(step.kind.roles for step in steps_of(run.block.body))
        size = MODEL_CHUNK_ITEMS if has_models else PLAIN_CHUNK_ITEMS
        parallel = run.block.max_parallel or (MODEL_PARALLEL if has_models else PLAIN_PARALLEL)
        room = asyncio.Semaphore(parallel)
        window = asyncio.Semaphore(-(-parallel // size) + 1)
        async with together() as group:
            for chunk in _cut(todo, size):
                await window.acquire()
                start(group, self._chunk(run, chunk, room), window.release)

    async def _chunk(
        self, run: BlockRun, chunk: Sequence[ItemWork], room: asyncio.Semaphore
    ) -> None:
        async def work() -> str:
            async with together() as group:
                for item in chunk:
                    await room.acquire()
                    start(group, self._item(run, item), room.release)
            return _in_words(run, chunk)

        runner = plain_chunks if run.outer else self._run_chunk
        await runner(run.block.id, [item.key for item in chunk], work)

    async def _item(self, run: BlockRun, item: ItemWork) -> None:
        """Run one item's steps and record how it ended."""
        began = time.monotonic()
        shown = run.shown(item.key)
        self._tally.tell(run.block.id, shown, "running")
        own = item.item.get("path") if isinstance(item.item, Mapping) else None
        record = ItemRun(
            scope=run.work.scope,
            key=item.key,
            shown_key=shown,
            block=run.block.id,
            own_path=own if isinstance(own, str) else None,
            outer=(*run.outer, item.key),
            outputs=self._toolbox.outputs(run.work.scope, item.key),
        )
        try:
            scope = await self.body(
                run.block.body, run.scope.child(run.block.var, item.item), record
            )
            result = _result(run.block, scope, record)
        except StepFailed as error:
            await self._failed(run, item, record, error, time.monotonic() - began)
            return
        if run.keeps_results:
            run.results[item.index] = result
        is_skipped = result is None and record.is_last_skipped
        state: State = "skipped" if is_skipped else item.verdict.state
        seconds = time.monotonic() - began
        await self.record(item, record, "skipped" if is_skipped else "done", None, result, seconds)
        self._count(run, item.key, _report(run, item, state, seconds, None))
        self._tally.tell(run.block.id, shown, "skipped" if is_skipped else "done")

    async def _failed(
        self, run: BlockRun, item: ItemWork, record: ItemRun, error: StepFailed, seconds: float
    ) -> None:
        text = str(error)
        known = "failed" if error.is_transient else "quarantined"
        state: State = "quarantined"
        if run.block.on_error == "fail":
            known, state = "failed", "failed"
        elif run.block.on_error == "skip":
            known, state = "skipped", "skipped"
        await self.record(item, record, known, text, None, seconds)
        self._count(run, item.key, _report(run, item, state, seconds, text))
        self._tally.tell(run.block.id, record.shown_key, state, text)  # type: ignore[arg-type]
        if state == "failed":
            raise Stopped(f"'{record.shown_key}': {text}") from error
        if state == "quarantined":
            run.failed.append((item.index, {"key": item.key, "error": text}))

    async def record(
        self,
        item: ItemWork,
        record: ItemRun,
        state: str,
        error: str | None,
        result: Any,
        seconds: float,
    ) -> None:
        """Write the entry, and wait until it stands."""
        ledger = self._work.ledger
        text, object_ = ledger.keep(result)
        entry = Entry(
            key=item.key,
            hash=item.hash,
            parts=item.parts,
            state=state,
            error=error,
            returns=text,
            returns_object=object_,
            reads=json.dumps(record.reads) if record.reads else None,
            outputs=json.dumps(list(record.outputs.written)) if record.outputs.written else None,
            has_inner_failures=record.has_inner_failures,
            seconds=seconds,
            calls=sum(caller.n_calls for caller in record.callers),
            tokens=sum(caller.n_tokens for caller in record.callers),
        )
        try:
            ledger.record(record.scope, entry, self._tally.run)
            await ledger.durable()
        except LedgerError as failure:
            raise Stopped(str(failure)) from failure

    # --- the steps of an item

    async def body(self, body: Sequence[BoundNode], scope: Scope, record: ItemRun) -> Scope:
        """Run the steps of an item in order; gives the scope with their outputs."""
        for node in body:
            if isinstance(node, BoundBlock):
                outputs = await self._inner(node, scope, record)
            else:
                outputs = await self.step(node, scope, record)
            record.is_last_skipped = outputs is None
            record.last = outputs
            scope = scope.with_step(node.id, outputs)
        return scope

    async def step(self, step: BoundStep, scope: Scope, record: ItemRun) -> Any:
        """Run one step of an item; gives its outputs, None when it was skipped."""
        if step.kind.roles:
            self._tally.tell(record.block, record.shown_key, "running", step.id)
        caller = self._toolbox.caller(record.scope, step, record.shown_key, record.block)
        record.callers.append(caller)
        return await attempt(
            step,
            scope,
            lambda: self._toolbox.tools(step, caller, record.outputs),
            lambda texts: self._note_reads(record, texts),
            lambda where, error: self._tally.unexpected(f"{record.shown_key}, {where}", error),
        )

    def _note_reads(self, record: ItemRun, texts: Sequence[str]) -> None:
        """Note what files hold before a step reads them; the item's own is known by its hash."""
        for text in texts:
            if text == record.own_path:
                continue
            path = str(self._toolbox.bound.roots.resolve(text))
            with contextlib.suppress(OSError):  # the step will say what is wrong with it
                record.reads[self._work.index.stored(path)] = self._work.mark(path)

    async def _inner(
        self, block: BoundBlock, scope: Scope, record: ItemRun
    ) -> dict[str, Any] | None:
        """Run a nested block for one item of the outer one."""
        if is_block_skipped(block, scope):
            return None
        try:
            outputs = await self.run(block, scope, keeps_results=True, outer=record.outer)
        except ExpressionError as error:
            raise StepFailed(block.id, str(error)) from error
        record.has_inner_failures = record.has_inner_failures or bool(outputs["failed"])
        return outputs


def is_block_skipped(block: BoundBlock, scope: Scope) -> bool:
    """Tell whether a block's `if` says no, or it reads the outputs of a skipped step."""
    if reads_skipped(block.references, scope):
        return True
    return block.if_ is not None and not block.if_.evaluate(scope)


def _result(block: BoundBlock, scope: Scope, record: ItemRun) -> Any:
    if block.returns is None:
        return record.last
    try:
        return block.returns.render(scope)
    except ExpressionError as error:
        raise StepFailed(block.id, f"`returns`: {error}") from error


def _report(
    run: BlockRun, item: ItemWork, state: State, seconds: float, error: str | None
) -> ItemReport:
    return ItemReport(run.block.id, run.shown(item.key), state, seconds, error, item.verdict.why)


def _in_words(run: BlockRun, chunk: Sequence[ItemWork]) -> str:
    indexes = {item.index for item in chunk}
    n_failed = sum(index in indexes for index, _ in run.failed)
    done = f"{len(chunk) - n_failed} done"
    return f"{done}, {n_failed} quarantined" if n_failed else done


def _cut(items: Sequence[ItemWork], size: int) -> Iterator[Sequence[ItemWork]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
