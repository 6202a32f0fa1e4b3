"""Where a run is shown: by the local service's mirror, by Prefect, or nowhere.

With `PREFECT_API_URL` it is shown on that server, by this process. Does not import Prefect, which
takes a second or two. An update takes the local service a millisecond, whatever Prefect's server
does, so no run waits for it.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from paddock.engine.request import Pool
from paddock.engine.system import http
from paddock.engine.system.tasks import running
from paddock.runner.bind.bound import BoundPlan, progress_line_names
from paddock.runner.core import run
from paddock.runner.core.model_pools import open_home_pool, used_models
from paddock.runner.core.run_options import PreparedRun, RunEnvironment, RunOptions
from paddock.runner.core.session import NOT_BEGUN, RunSession, open_session, report_not_begun
from paddock.runner.daemon.daemon_session import MirrorReply, daemon_session, is_daemon_running
from paddock.runner.daemon.on_demand_pool import OnDemandPool
from paddock.runner.daemon.prefect_client import client_options
from paddock.runner.daemon.prefect_mirror import PrefectMirrors
from paddock.runner.notify.run_end_notices import notify_at_end
from paddock.runner.progress.drain import INTERRUPTED, STOP_REQUESTED
from paddock.runner.progress.events import MultiObserver
from paddock.runner.progress.prefect_view import (
    FLOW_MODULE,
    PARENT_SUSPENDED,
    SUSPENDED,
    ChunkTasks,
    PrefectState,
    ProgressMeter,
    end_of_run,
    flow_parameters,
    item_table,
    last_state,
)
from paddock.runner.progress.report import Report
from paddock.runner.settings import Settings

if TYPE_CHECKING:
    from paddock.runner.daemon.daemon_session import DaemonSession

CHECK_TIMEOUT_S = 4.0  # an API that cannot be reached is an error within 5 s


class TrackingError(Exception):
    """Prefect's API cannot be used; says how to go on without it."""


@dataclass(frozen=True, slots=True)
class RunMode:
    """Whether a run uses the service, and where it is shown."""

    service: Literal["none", "found", "started"]
    """Whether this machine's service is used: not at all, where it runs, or in any case."""
    prefect: Literal["none", "within", "api", "service"]
    """Where it is shown: nowhere, in the current flow run, by `PREFECT_API_URL`, or by the
    service."""


def run_mode(
    local: bool | None, environ: Mapping[str, str], *, has_pool: bool = False, within: bool = False
) -> RunMode:
    """Decide where a run is served and shown; `has_pool`: the caller brings a pool.

    >>> run_mode(None, {}), run_mode(True, {}), run_mode(None, {"CI": "1"})
    (RunMode(service='started', prefect='service'), RunMode(service='none', prefect='none'), \
RunMode(service='none', prefect='none'))
    """
    if local is True:
        return RunMode("none", "none")
    in_ci = is_ci(environ) and local is None
    if within:
        return RunMode("none" if has_pool else "found" if in_ci else "started", "within")
    if environ.get("PREFECT_API_URL", "").strip():
        return RunMode("none" if has_pool or in_ci else "started", "api")
    if in_ci or (has_pool and local is None):
        return RunMode("none", "none")
    return RunMode("started", "service")


def is_ci(environ: Mapping[str, str]) -> bool:
    """Return whether this is a CI machine, where nothing may be left running."""
    return environ.get("CI", "").strip().lower() not in ("", "0", "false", "no", "off")


def is_within_flow_run() -> bool:
    context = sys.modules.get("prefect.context")
    return context is not None and context.FlowRunContext.get() is not None


def pipeline_flow() -> Any:
    """Return the module of that name, which imports Prefect and this module."""
    return importlib.import_module(FLOW_MODULE)


async def check_prefect_api(environ: Mapping[str, str]) -> None:
    """Check that Prefect's API answers.

    Raises:
        TrackingError: it does not.
    """
    url = environ["PREFECT_API_URL"].strip().rstrip("/")
    try:
        options = client_options(url, environ)
        with http.http_failures(f"Prefect's API at {url}"):
            async with http.client(
                **options, connect_s=CHECK_TIMEOUT_S, timeout_s=CHECK_TIMEOUT_S
            ) as client:
                answer = await client.get("/health")
    except (http.HttpFailure, OSError, ValueError) as error:
        raise TrackingError(
            f"{error}. Start it with `prefect server start`, correct PREFECT_API_URL, "
            f"or use `--local` to run without it."
        ) from error
    if answer.is_redirect:  # the keys would go to another server
        to = answer.headers.get("location")
        raise TrackingError(f"Prefect's API at {url} redirects to '{to}'. Correct PREFECT_API_URL.")


@asynccontextmanager
async def _local_service(
    mode: RunMode, bound: BoundPlan, settings: Settings, note: Callable[[str], None]
) -> AsyncIterator[DaemonSession | None]:
    """Yield this machine's service, started if needed; None: not used."""
    if mode.service == "none" or not _needs_service(mode, bound, settings):
        yield None
        return

    if mode.service == "found" and not is_daemon_running(settings):
        yield None
        return
    wants_prefect = mode.prefect == "service"
    async with daemon_session(
        settings, pipeline=bound.name, wants_prefect=wants_prefect, tell=note
    ) as daemon:
        yield daemon


@asynccontextmanager
async def shared_home_pool(settings: Settings, name: str) -> AsyncIterator[Pool]:
    """Yield one pool for several runs: where a run would use this machine's service, that."""
    note = partial(print, file=sys.stderr)
    is_alone = run_mode(None, os.environ).service == "none"
    if is_alone or settings.pool_urls or settings.pool.is_exact:  # it may have tuned copies
        async with open_home_pool(settings) as pool:
            yield pool
    else:
        session = daemon_session(settings, pipeline=name, wants_prefect=False, tell=note)
        async with session as daemon, OnDemandPool(settings, daemon) as pool:
            yield pool


def _needs_service(mode: RunMode, bound: BoundPlan, settings: Settings) -> bool:
    return mode.prefect == "service" or (
        not settings.pool_urls and any(not spec.pool for spec in used_models(bound))
    )


@dataclass(frozen=True, slots=True, eq=False)
class TrackedRun:
    """A run in progress, with what Prefect shows of it."""

    session: RunSession
    chunks: ChunkTasks
    progress: ProgressMeter
    work: asyncio.Task[Report]
    """Raises `PipelineError` where the YAML turned out to be wrong for the data at hand."""

    @classmethod
    def start(cls, session: RunSession) -> TrackedRun:
        """Start an open session's work in a task of its own."""
        chunks = ChunkTasks(session.stats.secrets.redact)
        progress = ProgressMeter(progress_line_names(session.bound.nodes))
        session.stats.observer = MultiObserver(session.stats.observer, progress)
        work = asyncio.create_task(run.run(replace(session.context, run_chunk=chunks)))
        return cls(session, chunks, progress, work)

    def stop(self, words: str) -> None:
        """Stop the run as Ctrl-C does; `words`: the reason, without its full stop."""
        context = self.session.context
        context.stop_gate.close(words, "interrupted")
        context.stop.set()

    @property
    def percent(self) -> float:
        """Percentage done; 100 once the run has walked the whole plan."""
        if self.work.done() and not self.work.cancelled() and self.work.exception() is None:
            is_whole = self.work.result().status in ("completed", "quarantined")
            return 100.0 if is_whole else self.progress.percent
        return self.progress.percent

    async def ended(self) -> Report:
        """Wait for the end; cancelling this wait cancels the work and waits for it."""
        try:
            return await asyncio.shield(self.work)
        except asyncio.CancelledError:
            self.work.cancel()
            await asyncio.wait({self.work})
            raise


NOWHERE: Mapping[str, Any] = {}
RECORD_END_S = 30.0
RECORD_END_STOPPED_S = 15.0  # after a Ctrl-C; the second one ends at once


async def run_prepared(
    prepared: PreparedRun, options: RunOptions, environment: RunEnvironment
) -> Report:
    """Open what a run needs, run it, and notify at its end; a run may also not begin.

    Raises:
        PipelineError: the YAML turned out to be wrong for the data at hand.
        LedgerError, EngineError: the ledger or a model cannot be used.
        TrackingError: Prefect's API cannot be reached.
    """
    bound, settings, observer = prepared.bound, prepared.settings, environment.observer
    mode = run_mode(
        options.local,
        os.environ,
        has_pool=environment.pool is not None,
        within=is_within_flow_run(),
    )
    async with AsyncExitStack() as stack:
        stack.enter_context(prepared.secrets.guarded())
        outcome = await stack.enter_async_context(
            notify_at_end(
                bound,
                settings,
                observer,
                prepared.secrets,
                environment.stop,
                # else most items were not looked at
                is_wanted=options.notifies and not options.leaves_out_items,
            )
        )
        daemon = await stack.enter_async_context(
            _local_service(mode, bound, settings, observer.note)
        )
        if mode.prefect == "api":
            await check_prefect_api(os.environ)
        service = None
        if daemon is not None and not settings.pool.is_exact:  # the service may have tuned copies
            service = partial(OnDemandPool, settings, daemon)
        waiting: AbstractAsyncContextManager[None] = nullcontext()
        if mode.prefect == "within":
            waiting = pipeline_flow().stopped_while_waiting(environment.stop_gate)
        try:
            async with waiting:
                session = await stack.enter_async_context(
                    open_session(prepared, options, environment, service=service)
                )
        except NOT_BEGUN as error:
            report = outcome.report = report_not_begun(error, bound, environment)
            observer.ended(report)
            return report
        report = outcome.report = await _run_tracked(session, mode, daemon)
        return report


async def _run_tracked(session: RunSession, mode: RunMode, daemon: DaemonSession | None) -> Report:
    """Run an open session, and record how it ended, by an error too.

    Raises:
        PipelineError: the YAML turned out to be wrong for the data at hand.
    """
    session.begin()
    async with running(_note_stop(session)):
        try:
            report = await _run_shown(session, mode, daemon)
        except asyncio.CancelledError:  # by the caller's own task, or Prefect's flow around it
            session.end(session.stats.report("interrupted", message=INTERRUPTED))
            raise
        except Exception as error:
            cause = session.context.ledger.damage_behind(error) or error
            session.end(session.stats.report("failed", message=str(cause) or type(error).__name__))
            raise
    report = replace(report, models=session.model_loads())
    session.end(report)
    return report


async def _note_stop(session: RunSession) -> None:
    """Note it for those who watch the run when its stop is requested."""
    gate = session.context.stop_gate
    await gate.wait()
    if gate.words == STOP_REQUESTED:
        session.stats.observer.note(f"{STOP_REQUESTED}: items in flight end, no other begins.")


async def _run_shown(session: RunSession, mode: RunMode, daemon: DaemonSession | None) -> Report:
    if mode.prefect == "service" and daemon is not None:
        return await _run_with_mirror(session, daemon.mirror)
    if mode.prefect == "api":
        return await _run_with_prefect(session)
    if mode.prefect == "within":
        report: Report = await pipeline_flow().run_in_current_flow(session)
        return report
    return await run.run(session.context)


async def _run_with_prefect(session: RunSession) -> Report:
    """Run an open session and show it on the server at PREFECT_API_URL."""
    options = client_options(os.environ["PREFECT_API_URL"], os.environ)
    return await run_displayed(session, PrefectMirrors(lambda: http.client(**options)))


async def run_displayed(
    session: RunSession, display: PrefectMirrors, place: Mapping[str, Any] = NOWHERE
) -> Report:
    """Run an open session, and show it from this process; the work never waits for that.

    `place`: the flow run that it belongs to, if it does not get one of its own.
    """

    async def send(update: dict[str, Any]) -> MirrorReply:
        is_new = display.take({**update, **place})
        return MirrorReply(is_new, display.stop_of(update))

    try:
        return await _run_with_mirror(session, send, is_within=bool(place))
    finally:
        is_short = bool(place) or session.context.stop.is_set()  # the flow run has an end to set
        try:
            why = await display.finish(RECORD_END_STOPPED_S if is_short else RECORD_END_S)
            if why:
                session.stats.note(f"Prefect does not show all of this run: {why}")
        finally:
            await display.close()


UPDATE_INTERVAL_S = 1.0  # what is shown costs Prefect's server some milliseconds each time

SendUpdate = Callable[[dict[str, Any]], Awaitable[MirrorReply]]


async def _run_with_mirror(
    session: RunSession, send: SendUpdate, *, is_within: bool = False
) -> Report:
    """Run an open session and send its progress to a mirror.

    `is_within`: its flow run was there before; items in flight finish when it is cancelled there.
    """
    tracked_run = TrackedRun.start(session)
    feed = _MirrorFeed(tracked_run, send, is_within=is_within)
    try:
        async with running(feed.follow()):
            return await tracked_run.ended()
    finally:
        await feed.end()


class _MirrorFeed:
    """The updates of one run."""

    def __init__(self, tracked_run: TrackedRun, send: SendUpdate, *, is_within: bool) -> None:
        self._is_within = is_within
        self._tracked_run = tracked_run
        self._send = send
        session = tracked_run.session
        self._head = {
            "id": uuid.uuid4().hex,
            "pid": os.getpid(),
            "pipeline": session.bound.name,
            "run": session.stats.run,
            "parameters": flow_parameters(session.bound),
            "began": session.began,
        }
        self._chunks = tracked_run.chunks.begun
        self._sent: dict[int, PrefectState] = {}
        """What the receiver knows, by number of the chunk."""

    async def follow(self) -> None:
        """Send what has changed, at most once in `UPDATE_INTERVAL_S`, until cancelled.

        Of a run that is over sooner, only its end is sent where its flow run is there already.
        """
        if self._is_within:
            await asyncio.sleep(UPDATE_INTERVAL_S)
        while True:
            await self._update()
            await asyncio.sleep(UPDATE_INTERVAL_S)

    async def end(self) -> None:
        """Send the end of the run, with all tasks."""
        self._sent.clear()
        work = self._tracked_run.work
        if work.cancelled():
            end = end_of_run(PrefectState("CANCELLED", "Cancelled", "interrupted"))
        elif (error := work.exception()) is not None:
            redact = self._tracked_run.session.stats.secrets.redact
            end = end_of_run(PrefectState("FAILED", "Failed", redact(str(error))))
        else:
            report = work.result()
            end = end_of_run(last_state(report), *item_table(report))
        await self._update(end)

    def _has_work(self) -> bool:
        """Return whether a service is worth its start; answers from the ledger alone need none."""
        session = self._tracked_run.session
        if used_models(session.bound):
            return session.stats.has_model_calls
        return any(chunk.label for chunk in self._chunks)

    async def _update(self, end: dict[str, Any] | None = None) -> None:
        states = {number: chunk.state() for number, chunk in enumerate(self._chunks)}
        changed = {n: state for n, state in states.items() if self._sent.get(n) != state}
        update = {
            **self._head,
            "tasks": {n: [self._chunks[n].name, *astuple(state)] for n, state in changed.items()},
            "percent": self._tracked_run.percent,
            "has_work": self._has_work(),
            "end": end,
        }
        # Rows are the pipeline's own values: what JSON cannot represent becomes text.
        reply = await self._send(json.loads(json.dumps(update, default=str)))
        self._sent = {} if reply.must_repeat else states
        if reply.stop in (SUSPENDED, PARENT_SUSPENDED):
            what = "it" if reply.stop == SUSPENDED else "that"
            self._tracked_run.session.stats.note(
                f"{reply.stop}; it goes on when {what} is resumed."
            )
            self._tracked_run.session.context.stop_gate.close(reply.stop, "suspended")
        elif reply.stop and self._is_within:
            self._tracked_run.session.stats.note(f"{reply.stop}; items in flight are finished.")
            self._tracked_run.session.context.stop_gate.close(reply.stop, "interrupted")
        elif reply.stop:
            self._tracked_run.stop(reply.stop)
