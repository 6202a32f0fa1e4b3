"""A run shown inside the current Prefect flow run: a task for each step or chunk, and artifacts.

Prefect's records are only for display: the ledger alone decides what is done. Chunk tasks are
awaited in the flow's own loop, since `.submit()` moves async tasks to other threads' loops, where
an asyncio pool breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from prefect import task
from prefect.artifacts import (
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound, Pause, PrefectException
from prefect.logging import get_run_logger
from prefect.states import Running

from paddock.engine.system.tasks import TaskSet, end
from paddock.runner.config.pipeline_secrets import Redact
from paddock.runner.core.run_records import RunStats
from paddock.runner.core.session import RunSession
from paddock.runner.progress.events import ItemState, MultiObserver, Observer
from paddock.runner.progress.prefect_view import (
    PROGRESS_DESCRIPTION,
    RUN_TAG,
    SUSPEND_REFUSED,
    SUSPENDED,
    PrefectState,
    TaskChunk,
    artifact_key,
    item_table,
    last_state,
    wish_of_state,
)
from paddock.runner.progress.report import Report

from .run_tracking import TrackedRun

UPDATE_S = 1.0  # an artefact costs the server 4 to 7 ms
SHOWN_AT_ONCE = 64
DRAIN_S = 15.0
STATE_POLL_S = 2.0  # each look costs the server some 5 ms


def current_flow_run() -> FlowRun | None:
    context = FlowRunContext.get()
    return context.flow_run if context is not None else None


_seen_chunk: ContextVar[TaskChunk] = ContextVar("seen_chunk")


async def run_in_current_flow(session: RunSession) -> Report:
    """Run an open session inside the current flow run: chunks are its tasks.

    Raises:
        PipelineError: the YAML turned out to be wrong for the data at hand.
    """
    stats = session.stats
    stats.observer = MultiObserver(stats.observer, _RunLogger(stats.secrets.redact))
    tracked_run = TrackedRun.start(session)
    own = current_flow_run()
    gate = session.context.stop_gate
    follower = _StateFollower(
        own.id if own is not None else None,
        lambda words: gate.close(words, "interrupted"),
        stats.note,
        # Who made its deployment starts it again when it is resumed.
        (lambda: gate.close(SUSPENDED)) if own is not None and own.deployment_id else None,
    )
    async with _obeying(follower):
        try:
            await name_flow_run(stats.run)
            await _show_run(tracked_run)
        finally:
            report = await tracked_run.ended()
    return report


_named: ContextVar[UUID | None] = ContextVar("named", default=None)


async def name_flow_run(name: str) -> None:
    """Rename the flow run after its first run in the ledger, and add our tag."""
    flow_run = current_flow_run()
    if flow_run is None or _named.get() == flow_run.id:
        return
    _named.set(flow_run.id)
    tags = sorted({*flow_run.tags, RUN_TAG})
    with contextlib.suppress(PrefectException, httpx.HTTPError):
        async with get_client() as client:
            await client.update_flow_run(flow_run.id, name=name, tags=tags)


class _RunLogger(Observer):
    """Logs a run's notes and failed items to the flow run."""

    def __init__(self, redact: Redact) -> None:
        self._redact = redact
        self._logger = get_run_logger()

    def step(self, step: str, total: int | None, fresh: int) -> None:
        if total is not None:
            self._log(logging.INFO, f"{step}: {total} items to do, {fresh} fresh")

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        if state in ("failed", "quarantined"):
            place = f"{step}: {key}" if key else step
            self._log(logging.WARNING, f"{place} {state}: {detail or ''}")

    def note(self, text: str) -> None:
        self._log(logging.INFO, text)

    def _log(self, level: int, text: str) -> None:
        self._logger.log(level, "%s", self._redact(text))


@dataclass(frozen=True)
class _StateFollower:
    """Follows what people do with a flow run while it runs: cancel, suspend, set a state."""

    flow_run: UUID | None
    stop: Callable[[str], None]
    """Stops the run; called with the reason, a sentence without its full stop."""
    note: Callable[[str], None]
    suspend: Callable[[], None] | None = None
    """None: it cannot be resumed, so it is set back to Running at once."""

    async def follow(self) -> None:
        """Look at the state until it asks for the end, or until cancelled."""
        if self.flow_run is None:
            return
        async with get_client() as client:
            while True:
                await asyncio.sleep(STATE_POLL_S)
                with contextlib.suppress(PrefectException, httpx.HTTPError):  # it is away
                    if await self._look(client, self.flow_run):
                        return

    async def _look(self, client: PrefectClient, flow_run: UUID) -> bool:
        try:
            state = (await client.read_flow_run(flow_run)).state
            kind, name = (state.type.value, state.name or "") if state else ("PENDING", "")
        except ObjectNotFound:
            kind, name = "DELETED", ""
        if (wish := wish_of_state(kind, name)) is None:
            return False
        kind, words = wish
        if kind == "stop":
            self.stop(words)
        elif self.suspend is not None:
            self.note(f"{words}; it goes on when it is resumed.")
            self.suspend()
        else:
            self.note(SUSPEND_REFUSED)
            running: State[Any] = Running(message=SUSPEND_REFUSED)
            await client.set_flow_run_state(flow_run, running, force=True)
            return False
        return True


@contextlib.asynccontextmanager
async def _obeying(follower: _StateFollower) -> AsyncIterator[None]:
    """Follow a flow run's state inside the block."""
    following = asyncio.create_task(follower.follow())
    try:
        yield
    finally:
        await end(following)


async def _show_run(tracked_run: TrackedRun) -> None:
    """Show chunks and progress until the run has ended, then its results."""
    stats, name = tracked_run.session.stats, tracked_run.session.bound.name
    progress = asyncio.create_task(_show_progress(name, tracked_run))
    await _show_chunks(tracked_run, stats)
    await asyncio.wait({tracked_run.work, progress})
    if tracked_run.chunks.n_unseen:
        stats.note(f"Prefect shows {tracked_run.chunks.n_unseen} chunks less than there were.")
    if not tracked_run.work.cancelled() and tracked_run.work.exception() is None:
        with _ignore_prefect_errors(stats):
            await _show_results(name, tracked_run.work.result())


async def _show_chunks(tracked_run: TrackedRun, stats: RunStats) -> None:
    """Make a task of each chunk, a bounded number at once; drop those that do not end in time."""
    room, shown = asyncio.Semaphore(SHOWN_AT_ONCE), TaskSet()

    async def show(chunk: TaskChunk) -> None:
        try:
            await _show_chunk(chunk, stats)
        finally:
            room.release()

    async for chunk in tracked_run.chunks:
        await room.acquire()
        shown.start(show(chunk))
    try:
        async with asyncio.timeout(DRAIN_S):
            await shown.drain()
    except TimeoutError:
        stats.note(f"Prefect did not take the end of {len(shown)} chunks in time.")
        await shown.close()


@contextlib.contextmanager
def _ignore_prefect_errors(stats: RunStats) -> Iterator[None]:
    """Note errors of Prefect; the run does not depend on it."""
    try:
        yield
    except Pause:  # its engine's answer to a suspended run
        pass
    except Exception as error:  # Prefect's, httpx's, websockets', anyio's: none may end the work
        stats.note(f"Prefect does not show all of this run: {error or type(error).__name__}")


async def _show_chunk(chunk: TaskChunk, stats: RunStats) -> None:
    """Show a chunk as a Prefect task; its result is for the caller."""
    _seen_chunk.set(chunk)
    # Prefect reads braces as placeholders.
    name = chunk.name.replace("{", "(").replace("}", ")")
    named = _chunk.with_options(name=chunk.block, task_run_name=name)
    with _ignore_prefect_errors(stats):
        coming: Any = named(chunk.block, chunk.label, return_state=True)
        await coming


@task(cache_policy=NO_CACHE, persist_result=False, retries=0)
async def _chunk(block: str, items: str) -> State[Any]:
    """Wait for a chunk, and return its state."""
    chunk = _seen_chunk.get()
    await asyncio.wait({chunk.work})
    return _as_prefect_has_it(chunk.state())


def state_of(report: Report) -> State[Any]:
    return _as_prefect_has_it(last_state(report))


def _as_prefect_has_it(state: PrefectState) -> State[Any]:
    return State(type=StateType(state.type), name=state.name, message=state.message)


async def _show_progress(pipeline: str, tracked_run: TrackedRun) -> None:
    """Update the progress artifact, at most once a second, until the run has ended."""
    key, work = f"{artifact_key(pipeline)}-progress", tracked_run.work
    artefact: UUID | None = None
    shown, is_over = -1.0, False
    while not is_over:  # a short run is one request
        is_over = bool((await asyncio.wait({work}, timeout=UPDATE_S))[0])
        percent = tracked_run.percent
        if percent != shown:
            with _ignore_prefect_errors(
                tracked_run.session.stats
            ):  # retried while the server is away
                if artefact is None:
                    artefact = await acreate_progress_artifact(
                        progress=percent, key=key, description=PROGRESS_DESCRIPTION
                    )
                else:
                    await aupdate_progress_artifact(artefact, percent)
                shown = percent


async def _show_results(pipeline: str, report: Report) -> None:
    """Show the items in one table, failures first."""
    rows, description = item_table(report)
    await acreate_table_artifact(
        rows, key=f"{artifact_key(pipeline)}-results", description=description
    )
