"""Session of a run or plan: ledger, locks, pool, tools, journal and name, closed at its end."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import socket
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Container, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from paddock.engine.memory.pool_stats import stats_of
from paddock.engine.system import files, tasks
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.text import canonical_json
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.typed_rows import TypedRows, without_types
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.bind.plan_walks import all_plans, all_steps, callable_names, progress_line_names
from paddock.runner.bind.trust.permissions import forbidden_pools
from paddock.runner.bind.trust.protected_files import ProtectedFiles
from paddock.runner.bind.variations import comparison_notes
from paddock.runner.folders.unfinished_files import RunnableVersions
from paddock.runner.ledger import run_locks
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.output_index import OutputIndex
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.progress.events import MultiObserver
from paddock.runner.progress.journal import LineWriter, RunJournal
from paddock.runner.progress.otel_extra import otel_module
from paddock.runner.progress.report import Report
from paddock.runner.settings import STATE_FOLDER
from paddock.steps.base import DocumentReaders, StepError
from paddock.steps.effects import StoreRows
from paddock.steps.readers.reader_pool import ReaderLimits, ReaderPool
from paddock.steps.tables.table_files import format_of, read_table
from paddock.steps.tables.table_format import TableSource
from paddock.steps.vectors.open_stores import OpenStores

from .calls.model_pools import LookupInterrupted, OpenPool, PoolOptions, open_pools
from .calls.query_batches import QueryBatches
from .documents_in_use import DocumentsInUse
from .item_judge import Judge
from .item_toolset import ToolRuntime
from .known_pipelines import known_pipeline, record_pipeline
from .other_runs.concurrency_groups import group_turn
from .other_runs.crash_suspects import CrashSuspects
from .outputs.vector_rows import database_tables
from .path_owners import PathOwners
from .reviews.run_reviews import RunReviews
from .run_context import RunContext
from .run_options import PreparedRun, RunEnvironment, RunOptions
from .run_stats import RunStats
from .step_tools import LabelEmbedder
from .traces.scopes import PipelineScopes
from .traces.world import World


class RunSession(Struct, frozen=True):
    context: RunContext
    prepared: PreparedRun
    began: float

    def begin(self) -> None:
        self._record({"ended": None, "status": "running", "summary": None})
        stats, nodes = self.context.stats, self.context.bound.nodes
        stats.observer.began(stats.run, stats.pipeline, [*progress_line_names(nodes)])
        stats.observer.pool(partial(stats_of, self.context.pool))

    def end(self, report: Report) -> None:
        row: dict[str, Any] = {"ended": time.time(), "status": report.status}
        row["summary"] = json.dumps(report.as_summary())
        row["message"] = report.message
        if self.context.ledger.error is None:
            self._record(row)
        self.context.stats.observer.ended(report)

    def _record(self, row: Mapping[str, Any]) -> None:
        context = self.context
        bound, stats = context.bound, context.stats
        # The inputs that were given by hand, so that another run can continue.
        hidden, inputs = set(bound.given & bound.secret_inputs), dict[str, Any]()
        for name in bound.given - hidden:
            value = self.prepared.bound.inputs[name]  # of files of rows their paths
            if isinstance(value, TypedRows) and type(value) is not TypedRows:  # a frame
                hidden.add(name)
            else:
                inputs[name] = without_types(value)
        given = {"inputs": stats.secrets.redacted(inputs), "hidden": sorted(hidden)}
        head: dict[str, Any] = {
            "run": stats.run,
            "pipeline": stats.pipeline,
            "file": bound.file.name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "trigger": context.options.trigger,
            "given": canonical_json(given),
        }
        if (job := context.options.job) and job != stats.run:
            head["parent"] = job
        RunStore(context.ledger).record_run({**head, "started": self.began, **row})


NOT_BEGUN = (run_locks.Locked, LookupInterrupted)
"""Raised by `open_session` where a run is not begun, though nothing is wrong with it."""


def report_not_begun(error: Exception, bound: BoundPlan, environment: RunEnvironment) -> Report:
    """Return the report of a run that stopped waiting, or that its group skipped.

    Raises:
        Locked: the wait was not stopped; another run took too long.
    """
    stop_gate = environment.stop_gate
    if environment.stop.is_set() or isinstance(error, run_locks.SkippedByGroup):
        return Report("", bound.name, "interrupted", {}, message=str(error))
    if not stop_gate.is_closed:
        raise error
    message = f"{stop_gate.message}. It was still waiting for another run; nothing was begun."
    return Report("", bound.name, stop_gate.status, {}, message=message)


@asynccontextmanager
async def open_session(
    prepared: PreparedRun,
    options: RunOptions,
    environment: RunEnvironment,
    *,
    service: OpenPool | None = None,
    is_plan: bool = False,
) -> AsyncIterator[RunSession]:
    """Open a session. A run has its group's turn and locks its folders; a plan only reads.

    `service` opens the pool of this machine's service, where it runs or may be started.

    Raises:
        LedgerError: the ledger cannot be used, or (`Locked`) another run works on the same folders.
        EngineError: a model that the pipeline names, or the extra `dask`, cannot be used.
    """
    bound, settings = prepared.bound, prepared.settings
    outside = settings.kept_from(bound.roots.allowed)
    bound = replace(bound, roots=replace(bound.roots, outside=outside))
    state = bound.roots.base / STATE_FOLDER
    async with AsyncExitStack() as stack:
        ledger = stack.enter_context(Ledger(state, is_readonly=is_plan, url=settings.ledger_url))
        ledger.hurry_after(environment.stop.is_set)
        stats = _run_stats(stack, prepared, options, environment, ledger)
        ledger.on_wait = _waiting_notes(stats)
        has_crashed = False
        if not is_plan:
            has_crashed = await _take_turn(stack, prepared, options, environment, ledger, stats)
        known = known_pipeline(ledger, bound, options)
        for was, now in known.renames.items():
            stats.note(f"what '{was}' made is that of '{now}' now")
        file = known.file
        if not is_plan:
            file = bound.file.name
            await asyncio.to_thread(record_pipeline, ledger, known)
        scopes = ledger.scopes_of(file)
        if options.variant_of:
            scopes |= ledger.scopes_of(options.variant_of)
        index = OutputIndex(ledger, bound.roots.base, scopes, file)
        if has_crashed:
            stack.push_async_callback(asyncio.to_thread, _sweep_temporary_files, index)
        allowed = settings.allow.union(options.allow)
        pools = PoolOptions(
            given=environment.pool,
            open_service=service,
            is_plan=is_plan,
            forbidden_pools=forbidden_pools(bound, allowed, settings.address.url)
            if is_plan
            else frozenset(),
            ledger=ledger,
            is_patient=options.is_unattended,
            secrets=prepared.secrets,
            stop=environment.stop,
            note=stats.note,
        )
        models, pool = await stack.enter_async_context(open_pools(bound, settings, pools))
        readers = _document_readers(stack, prepared, stats)
        bound = await _with_rows_of_files(bound, readers, stats)
        are_filled = any(step.has(StoreRows) for step in all_steps(bound.nodes))
        of_run = None if is_plan else bound
        stores = OpenStores(bound.roots.base, stats.note, are_filled)
        stack.push_async_callback(stores.close)
        tables = database_tables(index, of_run, prepared.secrets)
        stack.callback(tables.close)
        reviews = RunReviews(ledger, bound, options.review)
        world = World(
            index=index,
            stores=stores,
            tables=tables,
            models=models,
            secrets=prepared.secrets,
            embed_labels=LabelEmbedder(pool, ledger, models, stats, bound, may_ask=not is_plan),
        )
        job_runs = None
        if options.job:  # a run of it may have crashed
            job_runs = partial(RunStore(ledger).runs_of, options.job)
        ordered = options.ordered_files
        judge = Judge(
            world=world,
            reviews=reviews,
            bound=bound,
            options=options,
            scopes=PipelineScopes.of(bound, index, file, known.row.name),
            job_runs=job_runs,
            runnable_versions=None if ordered is None else RunnableVersions(bound, ledger, ordered),
        )
        context = RunContext(
            documents=DocumentsInUse(index),
            owners=PathOwners(frozenset(callable_names(bound.nodes))),
            judge=judge,
            pool=pool,
            queries=defaultdict(partial(QueryBatches, pool)),
            stats=stats,
            readers=readers,
            protected=ProtectedFiles.of(
                ((plan.pipeline, plan.roots.base) for plan in all_plans(bound)), bound.folders
            ),
            stop=environment.stop,
            stop_gate=environment.stop_gate,
            max_attempts=settings.unattended.max_attempts,
            tool_runtime=None if is_plan else ToolRuntime(stats, stack),
            at_end=[] if environment.is_acting and not is_plan else None,
            tape=environment.tape,
            suspects=CrashSuspects(ledger, stats.run),
        )
        yield RunSession(context, prepared, time.time())


_ADJECTIVES = (
    "amber bold brave bright brisk calm clear clever crisp deft eager early fair fleet fond gentle "
    "glad golden grand happy hardy honest jolly keen kind light lively loyal lucid merry mild neat "
    "nimble patient plain prompt proud quick quiet rapid ready sharp silent sleek smart snug sound "
    "steady still sunny swift tidy true vivid warm wise witty young zesty"
)
_NOUNS = (
    "badger bear beaver bison bittern crane curlew deer dingo dove eagle egret falcon ferret finch "
    "fox gannet gecko gull hare hawk heron ibex jay kestrel kite lark linnet lynx magpie marten "
    "merlin mole newt ocelot osprey otter owl petrel pika plover puffin quail rabbit raven robin "
    "seal shrew sparrow stoat stork swallow swan tern thrush toad trout vole weasel wren"
)


def new_run_name(taken: Container[str]) -> str:
    """Return a name that is not taken.

    >>> new_run_name(()).count("-")
    1
    """
    choice = random.SystemRandom().choice
    name = f"{choice(_ADJECTIVES.split())}-{choice(_NOUNS.split())}"
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([name], numbered) if name not in taken)


def _run_stats(
    stack: AsyncExitStack,
    prepared: PreparedRun,
    options: RunOptions,
    environment: RunEnvironment,
    ledger: Ledger,
) -> RunStats:
    """Name the run and begin to count; unless it is a plan, open its journal, and send spans."""
    bound, observer, runs = prepared.bound, environment.observer, RunStore(ledger)
    settings, redact = prepared.settings, prepared.secrets.redact
    runs_folder = bound.roots.base / STATE_FOLDER / "runs"
    while True:  # in a shared ledger another machine may take the same name
        run = new_run_name(runs.run_names())
        if ledger.is_readonly or runs.reserve_run(run, bound.name, bound.file.name):
            break
    if not ledger.is_readonly:
        lines = stack.enter_context(LineWriter(runs_folder / f"{run}.jsonl"))
        observers = [observer, RunJournal(lines, redact, trigger=options.trigger)]
        if settings.otel != "off":
            is_whole = settings.otel == "content"
            otel = otel_module(settings)
            spans = otel.otel_spans(observer.note, redact, is_with_content=is_whole)
            observers.append(stack.enter_context(spans))
        observer = MultiObserver(*observers)
    log_file = runs_folder / f"{run}.log"
    stats = RunStats(run, bound.name, observer, log_file, prepared.secrets)
    stats.effect_times = environment.effect_times
    stats.tables = {} if environment.keeps_tables else None
    for text in settings.left_out:
        stats.note(text)
    return stats


def _waiting_notes(stats: RunStats) -> Callable[[str], None]:
    """Return what notes, from any thread, that the ledger waits: at once where the loop does."""
    loop, own_thread = asyncio.get_running_loop(), threading.get_ident()

    def note(text: str) -> None:
        if threading.get_ident() == own_thread:
            stats.note(text)
        else:
            tasks.call_in(loop, stats.note, text)

    return note


async def _take_turn(
    stack: AsyncExitStack,
    prepared: PreparedRun,
    options: RunOptions,
    environment: RunEnvironment,
    ledger: Ledger,
    stats: RunStats,
) -> bool:
    bound = prepared.bound
    wait = run_locks.TurnWait(options.wait_s, lambda: environment.is_stopping, stats.waits)
    stack.callback(_release_name, ledger, stats.run)
    if environment.has_group_turn and bound.pipeline.concurrency is not None:
        turn = group_turn(bound, prepared.settings, stats.run, environment.stop_gate, wait)
        await stack.enter_async_context(turn)
    known = known_pipeline(ledger, bound, options)
    name = run_locks.run_lock_name(known.row.name, bound.folder_inputs, bound.roots.base)
    lock = run_locks.hold_lock(ledger.run_lock(name, stats.run), wait)
    if doubt := ledger.storage.doubt():
        stats.note(doubt)
    has_crashed = await stack.enter_async_context(lock)
    if bound.pipeline.compare is not None or bound.pipeline.gold is not None:
        for message in comparison_notes(bound.pipeline):
            stats.note(message)
    return has_crashed


def _document_readers(
    stack: AsyncExitStack, prepared: PreparedRun, stats: RunStats
) -> DocumentReaders:
    settings = prepared.settings
    here = ReaderPool(ReaderLimits(settings.read_timeout_s, settings.read_memory_bytes))
    readers: ReaderPool | Any = here
    if settings.readers_url:
        dask: Any = import_module("paddock.steps.readers.dask_readers")  # few runs have them
        note = partial(tasks.call_in, asyncio.get_running_loop(), stats.note)
        readers = dask.DaskReaders(settings.readers_url, here, note)
    stack.push_async_callback(asyncio.to_thread, readers.close)
    return readers


async def _with_rows_of_files(
    bound: BoundPlan, readers: DocumentReaders, stats: RunStats
) -> BoundPlan:
    """Return a plan in which inputs of rows that name a file have its rows.

    Raises:
        PipelineError: a file cannot be read.
    """
    found = {}
    for name, declared in bound.pipeline.inputs.items():
        if declared.type == "rows" and isinstance(path := bound.inputs[name], str):
            columns = dict(declared.columns) or None
            source = TableSource(path, format_of(path), declared.table, columns)
            try:
                found[name], _, notes = await read_table(source, readers)
            except StepError as error:
                what = f"input '{name}': {error.reason}"
                raise PipelineError.of(what, error.remedy) from error
            for note in notes:
                stats.note(f"input '{name}': {note}")
        elif isinstance(rows := bound.inputs[name], TypedRows) and rows.loss:
            stats.note(f"input '{name}': {rows.loss}.")
    return replace(bound, inputs={**bound.inputs, **found})


def _release_name(ledger: Ledger, run: str) -> None:
    with suppress(LedgerError):
        ledger.rows(queries.RELEASE_RUN, run=run)


def _sweep_temporary_files(index: OutputIndex) -> int:
    """Remove stale temporary files from every folder that this pipeline wrote to; return how many.

    For the end of a run, which has written by then what the killed one was about to. No later run
    looks, so a file that the killed one began in this second is waited for.
    """
    folders = {Path(file).parent for file in index.owned(index.base)}
    return index.ledger.objects.sweep() + sum(
        len(files.remove_stale_files(folder, waits=True)) for folder in sorted(folders)
    )
