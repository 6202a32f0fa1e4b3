"""Where a run is shown: by the local service's mirror, by Prefect, or nowhere.

With `PREFECT_API_URL` it is shown on that server, by this process. Does not import Prefect, which
takes a second or two, nor what speaks with the service where a run does without (`--local`).
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from paddock.engine.system import http
from paddock.engine.system.tasks import running
from paddock.runner.core import run
from paddock.runner.core.run_options import PreparedRun, RunEnvironment, RunOptions
from paddock.runner.core.session import NOT_BEGUN, RunSession, open_session, report_not_begun
from paddock.runner.daemon.prefect_client import client_options
from paddock.runner.notify.notify_at_end import notify_at_end
from paddock.runner.progress.drain import INTERRUPTED, STOP_REQUESTED
from paddock.runner.progress.prefect_view import FLOW_MODULE
from paddock.runner.progress.report import Report

from .run_mode import RunMode, run_mode

if TYPE_CHECKING:
    from paddock.runner.daemon.daemon_session import DaemonSession

CHECK_TIMEOUT_S = 4.0  # an API that cannot be reached is an error within 5 s


class TrackingError(Exception):
    """Prefect's API cannot be used; says how to go on without it."""


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
        daemon = service = None
        if mode.service != "none":
            from .local_service import local_service, pool_on_demand

            daemon = await stack.enter_async_context(
                local_service(mode, bound, settings, observer.note)
            )
            service = None if daemon is None else pool_on_demand(settings, daemon)
        if mode.prefect == "api":
            await check_prefect_api(os.environ)
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
    gate = session.context.stop_gate
    await gate.wait()
    if gate.is_stop_requested:
        session.stats.observer.stops(f"{STOP_REQUESTED}: items in flight end, no other begins.")


async def _run_shown(session: RunSession, mode: RunMode, daemon: DaemonSession | None) -> Report:
    if mode.prefect == "within":
        report: Report = await pipeline_flow().run_in_current_flow(session)
        return report
    if mode.prefect == "api" or (mode.prefect == "service" and daemon is not None):
        from . import mirrored_run

        if daemon is None or mode.prefect == "api":
            return await mirrored_run.run_with_prefect(session)
        return await mirrored_run.run_with_mirror(session, daemon.mirror)
    return await run.run(session.context)
