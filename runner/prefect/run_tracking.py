"""Carry out a prepared run: with this machine's service or without, inside a flow run or not.

Does not import Prefect, which takes a second or two, nor what speaks with the service where a run
does without (`--local`).
"""

from __future__ import annotations

import asyncio
import importlib
import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from functools import partial
from typing import Any

from paddock.engine.memory.pool_stats import stats_of
from paddock.engine.request import Pool
from paddock.engine.system.records import replace
from paddock.engine.system.tasks import running
from paddock.runner.core.calls.model_pools import OpenPool, open_default_pool
from paddock.runner.core.execute import run
from paddock.runner.core.run_options import PreparedRun, RunEnvironment, RunOptions
from paddock.runner.core.session import NOT_BEGUN, RunSession, open_session, report_not_begun
from paddock.runner.notify.notify_at_end import ReportedEnd, notify_at_end
from paddock.runner.progress.drain import INTERRUPTED, STOP_REQUESTED
from paddock.runner.progress.prefect_view import FLOW_MODULE
from paddock.runner.progress.report import Report
from paddock.runner.settings import Settings

from .run_mode import is_flow, uses_service


def is_within_flow_run() -> bool:
    context = sys.modules.get("prefect.context")
    return context is not None and context.FlowRunContext.get() is not None


def pipeline_flow() -> Any:
    """Return the module of that name, which imports Prefect and this module."""
    return importlib.import_module(FLOW_MODULE)


def run_in_flow() -> Any:
    return importlib.import_module("paddock.runner.workers.run_in_flow")


async def becomes_flow_run(
    options: RunOptions, settings: Settings, note: Callable[[str], None]
) -> bool:
    """Return whether a run is to be a flow run of its own; a server answers then.

    Without `PREFECT_API_URL` it is this machine's own server, started if need be.

    Raises:
        TrackingError: Prefect's API does not answer.
        DaemonError: no server starts.
    """
    if not is_flow(options.local, os.environ, is_prefect=settings.is_prefect):
        return False
    if "prefect" not in sys.modules:
        importlib.import_module("paddock.runner.prefect.client_settings")
    from paddock.runner.daemon import prefect_auth, prefect_client, prefect_server

    if os.environ.get("PREFECT_API_URL", "").strip():
        await prefect_client.check_prefect_api(os.environ)
        return True
    url = await prefect_server.ensure_own_server(settings, note)
    note(
        f"Prefect shows this run at {url.removesuffix('/api')}; the password of that page is in "
        f"{prefect_auth.password_file(settings.state_dir)}."
    )
    importlib.import_module("paddock.runner.workers.ordered_run").use_server(
        url, prefect_auth.own_auth_string(settings.state_dir)
    )
    # Prefect's settings have it; commands of steps, and a later run, are not to find it.
    os.environ.pop("PREFECT_API_URL", None)
    return True


def service_pool(settings: Settings, note: Callable[[str], None]) -> OpenPool | None:
    """Return what opens the service's pool; None where it may have tuned copies, unwanted here."""
    from paddock.runner.daemon.daemon_session import ServicePool

    return None if settings.pool.is_exact else partial(ServicePool, settings, note)


def shared_default_pool(settings: Settings) -> AbstractAsyncContextManager[Pool]:
    """Return one pool for several runs: where a run would use this machine's service, that."""
    service = None
    if uses_service(None, os.environ) and not settings.pool_urls:
        service = service_pool(settings, partial(print, file=sys.stderr))
    return open_default_pool(settings) if service is None else service()


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
    is_within = options.local is not True and is_within_flow_run()
    has_pool = environment.pool is not None
    outcome = ReportedEnd()
    async with AsyncExitStack() as stack:
        stack.enter_context(prepared.secrets.guarded())
        # A run that leaves out items has not looked at most of them
        if bound.pipeline.on is not None and options.notifies and not options.leaves_out_items:
            notifying = notify_at_end(bound, settings, observer, prepared.secrets, environment.stop)
            outcome = await stack.enter_async_context(notifying)
        service = None
        if uses_service(options.local, os.environ, has_pool=has_pool):
            service = service_pool(settings, observer.note)
        waiting: AbstractAsyncContextManager[object] = nullcontext()
        if is_within:
            wishes = run_in_flow().follow_wishes(environment.stop_gate, lambda text: None)
            waiting = running(wishes)
        try:
            async with waiting:
                session = await stack.enter_async_context(
                    open_session(prepared, options, environment, service=service)
                )
        except NOT_BEGUN as error:
            report = outcome.report = report_not_begun(error, bound, environment)
            observer.ended(report)
            return report
        try:
            report = outcome.report = await _run_to_end(session, is_within=is_within)
        finally:  # servers end now, and commands notify
            environment.effect_times.append((time.time(), math.inf))
        return report


async def _run_to_end(session: RunSession, *, is_within: bool) -> Report:
    """Run an open session, and record how it ended, by an error too."""
    session.begin()
    stats, gate = session.context.stats, session.context.stop_gate

    async def note_stop() -> None:
        await gate.wait()
        if gate.is_stop_requested:
            words = f"{STOP_REQUESTED}: items in flight end, no other begins."
            stats.observer.stops(words)

    async with running(note_stop()):
        try:
            if is_within:
                report: Report = await run_in_flow().run_in_current_flow(session)
            else:
                report = await run(session.context)
        except asyncio.CancelledError:  # by the caller's own task, or Prefect's flow around it
            session.end(stats.report("interrupted", message=INTERRUPTED))
            raise
        except Exception as error:
            cause = session.context.ledger.damage_behind(error) or error
            session.end(stats.report("failed", message=str(cause) or type(error).__name__))
            raise
    loads = stats_of(session.context.pool).loads.items()
    models = {name: {"loads": n.loads, "load_s": round(n.load_s, 3)} for name, n in loads}
    report = replace(report, models=models)
    session.end(report)
    return report
