"""The journey as a Prefect flow: a task for each chunk of items, progress and results as artefacts.

The only importer of Prefect in a run. What Prefect records is for looking at: the ledger alone
decides what is done. Chunk tasks are awaited in the flow's own loop, since `.submit()` moves async
tasks to other threads' loops, where an asyncio pool breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

# Read by Prefect when it is imported, so they come first. No ephemeral server (8 to 13 s), no
# telemetry, no result cache (the ledger has the key), and no log lines in the live table.
SHIPPED = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_TASKS_DEFAULT_NO_CACHE": "true",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}
for _name, _value in SHIPPED.items():
    os.environ.setdefault(_name, _value)

import httpx  # noqa: E402
from prefect import flow, task  # noqa: E402
from prefect.artifacts import (  # noqa: E402
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.cache_policies import NO_CACHE  # noqa: E402
from prefect.client.schemas.objects import State  # noqa: E402
from prefect.context import FlowRunContext  # noqa: E402
from prefect.exceptions import PrefectException  # noqa: E402
from prefect.states import Cancelled, Completed, Failed  # noqa: E402

from . import execute  # noqa: E402
from .observer import ItemState, Several, Silent  # noqa: E402
from .report import Report  # noqa: E402
from .session import Session  # noqa: E402

if TYPE_CHECKING:
    from .border import Border

UPDATE_S = 1.0  # an artefact costs the server 4 to 7 ms
MOST_ROWS = 500


@dataclass
class _Journey:
    """What a flow run is given, and what it gives back; a flow's parameters are for showing."""

    session: Session
    stop: asyncio.Event
    border: Border | None
    on_sigterm: Any
    """The handler that was there before Prefect's."""
    report: Report | None = None
    error: Exception | None = None


_journey: ContextVar[_Journey] = ContextVar("journey")
_chunk_work: ContextVar[Callable[[], Awaitable[str]]] = ContextVar("chunk_work")


async def run(session: Session, stop: asyncio.Event, border: Border | None = None) -> Report:
    """Carry out an open session as a flow run that has the ledger's name for it.

    Inside a flow run it is that one's.

    Raises:
        PipelineError: the YAML turned out to be wrong for the data at hand.
    """
    if FlowRunContext.get() is not None:
        return await within(session, stop, border)
    journey = _Journey(session, stop, border, signal.getsignal(signal.SIGTERM))
    token = _journey.set(journey)
    try:
        named = run_pipeline.with_options(name=session.bound.name, flow_run_name=session.tally.run)
        state = await named(str(session.bound.file), _shown_inputs(session), return_state=True)
        how = f"Prefect ended the run: {state.message}"
    except (PrefectException, httpx.HTTPError) as error:
        how = f"Prefect's API went away: {error or type(error).__name__}"
        session.tally.note(how)
    finally:
        _journey.reset(token)
    if journey.error is not None:
        raise journey.error
    return journey.report or session.tally.report("failed", message=how)


@flow(name="paddock", validate_parameters=False, persist_result=False)
async def run_pipeline(path: str, inputs: dict[str, Any]) -> State[Any]:
    """Run the pipeline that `path` names; the state says how it ended."""
    journey = _journey.get()
    _give_back_sigterm(journey)
    try:
        report = await within(journey.session, journey.stop, journey.border)
    except Exception as error:
        journey.error = error
        raise
    journey.report = report
    return state_of(report)


async def within(session: Session, stop: asyncio.Event, border: Border | None = None) -> Report:
    """Carry out an open session inside the flow run that is current: chunks are its tasks.

    Raises:
        PipelineError: the YAML turned out to be wrong for the data at hand.
    """
    progress = _Progress()
    session.tally.observer = Several(session.tally.observer, progress)
    ended = asyncio.Event()
    shown = asyncio.create_task(_show_progress(session.bound.name, progress, ended))
    try:
        report = await execute.run(session.work, session.toolbox, _as_task, stop)
    finally:
        ended.set()
        with _only_for_looking_at(session):
            await shown
    with _only_for_looking_at(session):
        await _show_results(session.bound.name, report)
    return report


@contextlib.contextmanager
def _only_for_looking_at(session: Session) -> Iterator[None]:
    """Let a run go on whose artefacts the API would not take: the ledger has what counts."""
    try:
        yield
    except (PrefectException, httpx.HTTPError) as error:
        session.tally.note(f"Prefect did not take an artefact of this run: {error}")


def _give_back_sigterm(journey: _Journey) -> None:
    """Undo Prefect's handler, which would end the run in the middle of whatever it does."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, journey.on_sigterm)


async def _as_task(block: str, keys: Sequence[str], work: Callable[[], Awaitable[str]]) -> None:
    """Run a chunk as a Prefect task."""
    label = keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"
    _chunk_work.set(work)
    await _chunk.with_options(name=block, task_run_name=_plain(f"{block}: {label}"))(block, label)


@task(cache_policy=NO_CACHE, persist_result=False, retries=0)
async def _chunk(block: str, items: str) -> State[None]:
    """Carry out some items of a block; the state's message counts them."""
    return Completed(message=await _chunk_work.get()())


def _plain(name: str) -> str:
    """Keep Prefect from reading braces in a document's name as its own placeholders."""
    return name.replace("{", "(").replace("}", ")")


def _shown_inputs(session: Session) -> dict[str, Any]:
    secret = session.bound.secret_inputs
    return {name: "***" if name in secret else v for name, v in session.bound.inputs.items()}


def state_of(report: Report) -> State[Any]:
    """Say in a flow's state how the run ended; quarantined items don't make it a failure."""
    words = ", ".join(f"{n} {state}" for state, n in report.counts.items() if n) or "nothing to do"
    if report.status == "failed":
        return Failed(message=report.message or words)
    if report.status == "interrupted":
        return Cancelled(message=report.message or words)
    return Completed(message=words)


class _Progress(Silent):
    """Counts items as they end."""

    def __init__(self) -> None:
        self.n_items = 0
        self.n_ended = 0

    @property
    def percent(self) -> float:
        """How much is done; a run without items is done."""
        return min(100.0, 100.0 * self.n_ended / self.n_items) if self.n_items else 100.0

    def step(self, step: str, total: int | None, fresh: int) -> None:
        """Count a step's items."""
        self.n_items += total or 0
        self.n_ended += fresh

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        """Count what ended."""
        if state != "running" and "/" not in key:
            self.n_ended += 1


async def _show_progress(pipeline: str, progress: _Progress, ended: asyncio.Event) -> None:
    """Keep one progress artefact up to date, at most once a second, until the run has ended."""
    key = f"{_slug(pipeline)}-progress"
    artefact = await acreate_progress_artifact(progress=0.0, key=key, description="Items done")
    shown = 0.0
    is_over = False
    while not is_over:  # once more behind the end, which may come while the artefact is made
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), UPDATE_S)
        is_over = ended.is_set()
        if progress.percent != shown:
            shown = progress.percent
            await aupdate_progress_artifact(artefact, shown)


async def _show_results(pipeline: str, report: Report) -> None:
    """Show the items in one table, those that failed first."""
    items = sorted(report.items, key=lambda item: (item.error is None, item.state == "fresh"))
    rows: list[dict[str, Any]] = [item.as_json() for item in items[:MOST_ROWS]]
    more = len(items) - len(rows)
    description = f"{len(items)} items" + (f", {more} of them not shown" if more else "")
    await acreate_table_artifact(rows, key=f"{_slug(pipeline)}-results", description=description)


def _slug(name: str) -> str:
    """Make an artefact's key of a pipeline's name: small letters, digits, dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "pipeline"
