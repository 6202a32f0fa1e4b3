"""Carry out a run of Prefect's queue: the pipeline's flow, with what a verified order adds to it.

For `paddock up`, in a process of its own. `up` decides when and how often.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import logging
import multiprocessing
import os
import re
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import pairwise
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx

from paddock.engine.system.light_dataclasses import dataclass, field, replace
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.prefect import client_settings  # noqa: F401 - first, see there

# isort: split

from prefect.client.schemas.objects import FlowRun, State
from prefect.context import refresh_global_settings_context
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow

from paddock.engine.errors import EngineError
from paddock.engine.system import http
from paddock.engine.system.processes import show_as
from paddock.engine.system.tasks import running
from paddock.pipelines.errors import PipelineError
from paddock.runner import api
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.daemon.prefect_auth import CLIENT_VARIABLE
from paddock.runner.ledger.entries import LedgerError, RunRow
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.progress.command_logs import run_log
from paddock.runner.progress.drain import StopGate
from paddock.runner.progress.events import MultiObserver, Observer
from paddock.runner.progress.report import QuarantineCounts, Report
from paddock.runner.settings import STATE_FOLDER, Settings, read_settings
from paddock.steps.base import StepError

from .flow_order import FlowOrder
from .pipeline_flow import RESERVED, flow_of

log = logging.getLogger("paddock.up")

ANSWER_S = 5.0

REPORTED_ERRORS = (EngineError, LedgerError, PipelineError, StepError)
"""Errors with a message for people; others are shown with their traceback."""

_PREFIX = re.compile(r"^Flow run encountered an exception:(?: \w+:)? ?")
"""Prefect's prefix of an error's message."""


class PrefectUnreachable(Exception):
    """Prefect's API cannot be reached, and nothing of the run has begun."""


@dataclass
class RunControl:
    """How the process that starts a run steers and follows it."""

    text: str | None = None
    """The pipeline's text, if it was read before; otherwise its file is read."""
    flags: dict[str, object] = field(default_factory=dict)
    """The command line's settings."""
    needs_consent: bool = False
    stop_gate: StopGate = field(default_factory=StopGate)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    began: Callable[[str], None] = lambda run: None
    """Called with the run's name in the ledger."""
    waits: Callable[[str], None] = lambda words: None
    """Called with what it waits for; empty: it is at work."""
    report: Report | None = None
    """How it ended."""
    has_begun: bool = False
    """The flow's own code has begun."""
    is_continued: bool = False
    """If it stops, another flow run continues it, before which its own must not end."""


async def run_ordered(found: FlowRun, order: FlowOrder, control: RunControl) -> State[Any]:
    """Carry out a verified order as a flow run of its pipeline; the state says how it ended.

    Raises:
        PipelineError: the YAML is wrong; nothing has begun.
    """
    path = Path(order.path)
    options = RunOptions(
        retry_failed=order.retry_failed, trigger=order.trigger, job=order.job or str(found.id),
        text=control.text, needs_consent=control.needs_consent,
    )  # fmt: skip
    environment = RunEnvironment(stop=control.stop, stop_gate=control.stop_gate)
    carry_out = _OrderedRun(order, control).carry_out
    flow = flow_of(path, options, environment, carry_out, lambda: control.is_continued)
    parameters = {name: value for name, value in order.inputs.items() if name not in RESERVED}
    # Prefect takes those of the flow run where there are none, which others may have written.
    verified = found.model_copy(update={"parameters": parameters})
    coming: Any = run_flow(flow, flow_run=verified, parameters=parameters, return_type="state")
    state: State[Any] = await coming
    return state


class _OrderedRun:
    """Carries out an order: one run, or one for each webhook call."""

    def __init__(self, order: FlowOrder, control: RunControl) -> None:
        self._order = order
        self._control = control

    async def carry_out(
        self,
        path: Path,
        inputs: Mapping[str, Any],
        options: RunOptions,
        environment: RunEnvironment,
    ) -> Report:
        order, control = self._order, self._control
        control.has_begun = True
        settings = read_settings(path.parent, flags=control.flags)
        with run_log(settings, order.trigger) as lines:
            observer = MultiObserver(_ControlObserver(control), lines)
            around = replace(environment, settings=settings, observer=observer)

            async def run_once(inputs: Mapping[str, Any], stop_gate: StopGate, job: str) -> Report:
                own = replace(around, stop_gate=stop_gate)
                return await api.run_async(path, inputs, replace(options, job=job), own)

            if order.calls:
                over = await asyncio.to_thread(_ended_calls, path, settings, order.calls)
                control.report = await _run_calls(control, order.calls, over, run_once)
            else:
                kept = {name: value for name, value in order.inputs.items() if name in RESERVED}
                given = {**inputs, **kept}
                control.report = await run_once(given, control.stop_gate, options.job)
        return control.report


def known_end(row: RunRow) -> Report | None:
    """Return how a run ended in order, by its ledger; None: it was killed or stopped."""
    if row.ended is None or row.status not in ("completed", "quarantined", "failed"):
        return None
    return Report.of_summary(json.loads(row.summary or "{}"))


RunCall = Callable[[Mapping[str, Any], StopGate, str], Awaitable[Report]]


def _ended_calls(
    path: Path, settings: Settings, calls: Sequence[Mapping[str, Any]]
) -> dict[str, Report]:
    """Return what became of the calls that are over, by their ids, which their runs continue."""
    folder, ids = path.parent / STATE_FOLDER, [str(call["id"]) for call in calls]
    try:
        with Ledger(folder, is_readonly=True, url=settings.ledger_url) as ledger:
            rows = RunStore(ledger).runs_that_continue(ids)
    except LedgerError:  # there is none yet, or the run tells what is wrong
        return {}
    return {str(row.parent): end for row in rows if (end := known_end(row)) is not None}


async def _run_calls(
    control: RunControl,
    calls: Sequence[Mapping[str, Any]],
    over: Mapping[str, Report],
    run_once: RunCall,
) -> Report:
    """Run webhook calls one after the other until stopped; return what became of all."""
    reports: list[Report] = []

    async def close_with_all(gate: StopGate) -> None:
        await control.stop_gate.wait()
        gate.close_like(control.stop_gate)

    for call in calls:
        id_ = str(call["id"])
        if id_ in over:
            reports.append(over[id_])
            continue
        gate = StopGate()  # a budget is of one run
        async with running(close_with_all(gate)):
            try:
                report = await run_once(call["inputs"], gate, id_)
            except Exception as error:  # each call is a run of its own: none may end the others
                if not isinstance(error, REPORTED_ERRORS):
                    log.exception("a webhook call failed")
                words = str(error) or type(error).__name__
                report = Report("", "", "failed", {}, message=words)
        reports.append(report)
        if gate.is_closed and (report.status == "interrupted" or gate.status == "suspended"):
            control.stop_gate.close_like(gate)
        if control.stop.is_set() or control.stop_gate.is_closed:
            break
    return report_of_calls(reports, len(calls))


def report_of_calls(reports: Sequence[Report], n_calls: int) -> Report:
    """Return one report of runs for several calls; the worst counts.

    >>> done, failed = Report("a", "p", "completed", {"new": 2}), Report("b", "p", "failed", {})
    >>> report_of_calls([done, failed, done], 3).message
    '1 of 3 calls failed (run b): failed'

    A quarantined item of one call that was known before is no news in all of them:

    >>> known = Report("c", "p", "quarantined", {}, counted=QuarantineCounts(known=1))
    >>> [report_of_calls([known, done], 2).exit_status(fail_on) for fail_on in ("new", "any")]
    [0, 3]
    """
    last = reports[-1]
    counts, counted = Counter[str](), QuarantineCounts()
    for report in reports:
        counts.update(report.counts)
        counted = counted.plus(report.quarantine())
    items = tuple(item for report in reports for item in report.items if item.error)
    whole = replace(last, counts=dict(counts), items=items, counted=counted)
    n_left, failed = n_calls - len(reports), [r for r in reports if r.status == "failed"]
    if last.status == "interrupted" or n_left:
        is_stopped = last.status in ("interrupted", "suspended")
        words = f"{last.message or last.status} {n_left} calls are left."
        return replace(whole, status=last.status if is_stopped else "budget", message=words)
    if failed:
        where = (
            f" (run {failed[0].run})" if failed[0].run else ""
        )  # the job has the last run's name
        why = failed[0].message or "failed"
        words = f"{len(failed)} of {n_calls} calls failed{where}: {why}"
        return replace(whole, status="failed", message=words)
    worst = next((report for report in reports if report.status in ("budget", "quarantined")), last)
    return replace(whole, status=worst.status, message=worst.message)


PRELOAD = (
    "paddock.runner.cli.application",
    # Imported by most runs as they begin, which took 0.5 s of processor time.
    "anyio._backends._asyncio",
    "paddock.engine.backends.balancer",
    "paddock.runner.prefect.local_service",
    "paddock.steps.files.rows",
    "paddock.steps.files.write",
    "paddock.steps.llm.chat",
    "prefect.task_engine",
    "prefect.utilities.visualization",
    "pydantic.v1",
)


def start_fork_server(*modules: str) -> None:
    """Start the process that runs are forked from, with today's imports and environment.

    It is a fork of this process, which is there in milliseconds: a new Python needs a second of a
    processor for its imports, and 80 MB. Threads, loops and open connections must not be forked, so
    there must be none yet. If it is killed, `multiprocessing` starts a new Python in its place.
    """
    os.environ["PYTHONSAFEPATH"] = "1"  # it would import from this folder; commands don't get this
    for module in (*PRELOAD, *modules):
        importlib.import_module(module)
    multiprocessing.get_context("forkserver").set_forkserver_preload([*PRELOAD, *modules])
    gc.freeze()  # a page that the collector of one process writes to is shared no more
    gc.enable()
    spawn, util.spawnv_passfds = util.spawnv_passfds, _fork  # type: ignore[assignment]
    try:
        resource_tracker.ensure_running()  # which unblocks the signal
        # Ctrl-C at the terminal is for its parent, also in the first instant: what is forked from
        # it calls `take_interrupts`.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        forkserver.ensure_running()
    finally:
        util.spawnv_passfds = spawn
        take_interrupts()


def _fork(path: bytes, arguments: Sequence[Any], descriptors: Sequence[int]) -> int:
    """Carry out the code of a Python's command line in a fork of this process; return its id."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # else what waits there is written twice
    if pid := os.fork():
        return pid
    try:
        for kept, next_kept in pairwise((2, *sorted(descriptors), os.sysconf("SC_OPEN_MAX"))):
            os.closerange(kept + 1, next_kept)  # also the end of the pipe by which our end is seen
        show_as("paddock forkserver")  # `pkill -f "paddock up"` is not for runs
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        exec(arguments[-1], {})
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(0)


def take_interrupts() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


async def wait_until_ended(process: BaseProcess) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(process.sentinel, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(process.sentinel)


def use_server(api_url: str = "", auth_string: str = "") -> None:
    """Point Prefect's client to this server; empty: the one in the environment.

    Keeps the password out of the environment of child processes.
    """
    is_known = api_url in ("", os.environ.get("PREFECT_API_URL"))
    if api_url:
        os.environ["PREFECT_API_URL"] = api_url
    if auth_string:
        os.environ[CLIENT_VARIABLE] = auth_string
    if auth_string or not is_known:  # reading the settings takes 0.05 s of a processor
        refresh_global_settings_context()
    os.environ.pop(CLIENT_VARIABLE, None)  # Prefect's settings have it


async def run_queued_flow(
    flow_run: Mapping[str, Any], order: FlowOrder, control: RunControl
) -> str:
    """Carry out a flow run with a verified order; return its final state's message.

    Raises:
        PipelineError: the YAML is wrong.
        PrefectUnreachable: nothing was begun, so it can be restarted.

    >>> _PREFIX.sub("", "Flow run encountered an exception: LedgerError: the disk is full.")
    'the disk is full.'
    """
    try:
        state = await run_ordered(FlowRun.model_validate(flow_run), order, control)
    except Pause as pause:
        return f"{pause}."
    except (httpx.HTTPError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) else error  # as a client opens
        answer = cause.response if isinstance(cause, httpx.HTTPStatusError) else None
        is_broken = answer is not None and answer.status_code >= 500  # as on a full disk
        is_passing = is_broken or isinstance(cause, httpx.TransportError)
        if control.has_begun or not is_passing:
            raise
        raise PrefectUnreachable(str(cause)) from error
    return _PREFIX.sub("", str(state.message or ""))


async def is_reachable(api_url: str) -> bool:
    try:
        async with http.client(trust_env=False, timeout_s=ANSWER_S) as client:
            await client.get(f"{api_url.rstrip('/')}/health")
    except httpx.HTTPError:
        return False
    return True


class _ControlObserver(Observer):
    """Reports what the run waits for, and its name in the ledger, as the control asks."""

    def __init__(self, control: RunControl) -> None:
        self._control = control

    def waits(self, text: str) -> None:
        self._control.waits(text)

    def began(self, run: str, pipeline: str, steps: Sequence[str]) -> None:
        self._control.waits("")
        self._control.began(run)
