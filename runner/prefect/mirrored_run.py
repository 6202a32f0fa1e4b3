"""A run in progress, and the updates by which the service or Prefect's server shows it.

An update takes the local service a millisecond, whatever Prefect's server does, so no run waits for
it.
"""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

import anyio

from paddock.engine.system import http
from paddock.engine.system.tasks import running
from paddock.runner.bind.bound import progress_line_names
from paddock.runner.core import run
from paddock.runner.core.model_pools import used_models
from paddock.runner.core.session import RunSession
from paddock.runner.daemon.daemon_session import MirrorReply
from paddock.runner.daemon.prefect_client import client_options
from paddock.runner.daemon.prefect_mirror import PrefectMirrors
from paddock.runner.progress.events import MultiObserver
from paddock.runner.progress.prefect_view import (
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
        work = asyncio.create_task(run.run(replace(session.context, show_chunk=chunks)))
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
            with anyio.CancelScope(shield=True):  # a time limit of the flow cancels each wait
                await asyncio.wait({self.work})
            raise


NOWHERE: Mapping[str, Any] = {}
RECORD_END_S = 30.0
RECORD_END_STOPPED_S = 15.0  # after a Ctrl-C; the second one ends at once


async def run_with_prefect(session: RunSession) -> Report:
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
        return await run_with_mirror(session, send, is_within=bool(place))
    finally:
        is_short = bool(place) or session.context.stop.is_set()  # the flow run has an end to set
        with anyio.CancelScope(shield=True):
            try:
                why = await display.finish(RECORD_END_STOPPED_S if is_short else RECORD_END_S)
                if why:
                    session.stats.note(f"Prefect does not show all of this run: {why}")
            finally:
                await display.close()


UPDATE_INTERVAL_S = 1.0  # what is shown costs Prefect's server some milliseconds each time

SendUpdate = Callable[[dict[str, Any]], Awaitable[MirrorReply]]


async def run_with_mirror(
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
        with anyio.CancelScope(shield=True):
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
        states = {number: chunk.state for number, chunk in enumerate(self._chunks)}
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
