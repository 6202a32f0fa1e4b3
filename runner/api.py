"""Python API: `validate`, `plan`, `run` and their async twins, on plain values.

Everything is imported when it is needed: `validate` opens no ledger, and nothing here imports
Prefect itself.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.runner.progress.report import PlanReport, Report, ValidateReport

# Threads that read and write files. Each costs the others waiting for Python's lock (2,000
# documents took 4.4 s of CPU with 1, 5.0 with 2, 6.3 with 6 on 2 cores), but hides the disk's.
FILE_THREADS = 4

if TYPE_CHECKING:
    import asyncio

    from paddock.engine.request import Pool, Role
    from paddock.runner.bind.bound import BoundPlan
    from paddock.runner.config.pipeline_secrets import Secrets
    from paddock.runner.core.run_context import RunSession
    from paddock.runner.core.step_context import CallTape
    from paddock.runner.daemon.run_session import DaemonSession
    from paddock.runner.prefect.run_tracking import RunMode
    from paddock.runner.progress.drain import StopGate
    from paddock.runner.progress.events import Observer
    from paddock.runner.settings import Settings


def validate(path: str | Path) -> ValidateReport:
    """Check a pipeline and give every fault; touches no model and no document."""
    from paddock.pipelines.errors import PipelineError
    from paddock.runner.bind import requirements
    from paddock.runner.bind.bind import bind_without_inputs, read_plan
    from paddock.runner.bind.checks import prefix_sharing_advice
    from paddock.runner.bind.subpipelines import ignored_key_notes

    try:
        bound = bind_without_inputs(read_plan(Path(path)))
        requirements.refuse_missing(bound)
        return ValidateReport(
            str(path), notes=(*ignored_key_notes(bound), *prefix_sharing_advice(bound))
        )
    except PipelineError as error:
        return ValidateReport(str(path), error.faults)


def plan(
    path: str | Path,
    inputs: Mapping[str, Any] | None = None,
    *,
    settings: Settings | None = None,
    pool: Pool | None = None,
) -> PlanReport:
    """Return what a run would do, and why.

    Raises:
        PipelineError: the YAML or an input is wrong.
        LedgerError, EngineError: the ledger or a model cannot be used.
    """
    import asyncio

    return asyncio.run(plan_async(path, inputs, settings=settings, pool=pool))


async def plan_async(
    path: str | Path,
    inputs: Mapping[str, Any] | None = None,
    *,
    settings: Settings | None = None,
    pool: Pool | None = None,
) -> PlanReport:
    """Return what a run would do, in a running loop."""
    import asyncio

    from paddock.runner.bind import permissions, requirements
    from paddock.runner.bind.checks import prefix_sharing_advice
    from paddock.runner.bind.subpipelines import ignored_key_notes
    from paddock.runner.core.run_context import open_session
    from paddock.runner.core.staleness import RunOptions
    from paddock.runner.dry_run.forecast import forecast_run
    from paddock.runner.progress.events import NullObserver

    settings, bound, secrets = prepare(Path(path), inputs, settings, is_plan=True)
    requirements.refuse_missing(bound)
    wants = permissions.permission_advice(bound, settings.allow, settings.address.url)
    more = (*ignored_key_notes(bound), *prefix_sharing_advice(bound), *((wants,) if wants else ()))
    async with open_session(
        bound,
        settings,
        NullObserver(),
        RunOptions(),
        pool=pool,
        secrets=secrets,
        stop=asyncio.Event(),
        is_plan=True,
    ) as session:
        report = await forecast_run(session)
        return replace(report, advice=(*report.advice, *more), remarks=session.tally.notes)


def run(
    path: str | Path,
    inputs: Mapping[str, Any] | None = None,
    *,
    local: bool | None = None,
    settings: Settings | None = None,
    observer: Observer | None = None,
    only: Iterable[str] = (),
    force: Iterable[str] = (),
    no_cache: bool = False,
    retry_failed: bool = False,
    refresh: bool = False,
    prune: bool = False,
    yes: bool = False,
    take: bool = False,
    wait_s: float | None = None,
    pool: Pool | None = None,
    notify: bool = False,
) -> Report:
    """Run a pipeline; the same call again continues.

    `local`: True runs inside this process, without Prefect; False with this machine's service,
    which is started if need be; None as the environment says (`CI`, `PREFECT_API_URL`). `wait_s`
    is the longest to wait for another run on the same folders. `refresh` also does again what a
    compatible, older version of a step did; `prune` removes what was made of documents that are
    gone; `yes` confirms that documents were deleted, where a person is asked; `take` replaces
    outputs that were edited, or are not ours. `notify` tells those whom `on.notify` names how it
    ended. Ctrl-C ends a run in order.

    Raises:
        PipelineError: the YAML or an input is wrong.
        LedgerError, EngineError: the ledger or a model cannot be used.
        TrackingError: Prefect's API cannot be reached.
    """
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from paddock.runner.progress.drain import StopGate, stop_on_signals

    async def main() -> Report:
        stop, stop_gate = asyncio.Event(), StopGate()
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(FILE_THREADS))
        with stop_on_signals(stop, stop_gate):
            return await run_async(
                path,
                inputs,
                local=local,
                settings=settings,
                observer=observer,
                only=only,
                force=force,
                no_cache=no_cache,
                retry_failed=retry_failed,
                refresh=refresh,
                prune=prune,
                yes=yes,
                take=take,
                wait_s=wait_s,
                pool=pool,
                notify=notify,
                stop=stop,
                stop_gate=stop_gate,
            )

    return asyncio.run(main())


async def run_async(
    path: str | Path,
    inputs: Mapping[str, Any] | None = None,
    *,
    local: bool | None = None,
    settings: Settings | None = None,
    observer: Observer | None = None,
    only: Iterable[str] = (),
    force: Iterable[str] = (),
    no_cache: bool = False,
    retry_failed: bool = False,
    refresh: bool = False,
    prune: bool = False,
    yes: bool = False,
    take: bool = False,
    wait_s: float | None = None,
    pool: Pool | None = None,
    stop: asyncio.Event | None = None,
    stop_gate: StopGate | None = None,
    allow: Iterable[str] = (),
    trigger: str = "hand",
    job: str = "",
    text: str | None = None,
    agreed: Collection[str] | None = None,
    notify: bool | None = None,
    environ: Mapping[str, str] | None = None,
    tape: CallTape | None = None,
    keeps_turn: bool = True,
) -> Report:
    """Run a pipeline in a running loop; `stop`, once set, ends it in order.

    A closed `border` lets items in flight finish and begins no new one. `allow` is what the
    pipeline may reach besides what the settings allow; `trigger` is what made it run; `job` names
    what several machines do together; `text` is the file's, where it was read before. `agreed` is
    what a person agreed to for this file (see `asks`), None: all that is allowed. Inside a
    Prefect flow run it is that run's. `notify` says whether those are told whom `on.notify` names;
    None: unless it runs by hand. `environ` is where secrets are read; None: the process's own.
    `tape` stands before tools where a test runs, which keeps to no group (`keeps_turn`).
    """
    import asyncio
    from contextlib import AsyncExitStack

    from paddock.runner.bind import requirements
    from paddock.runner.core.model_pools import LookupInterrupted
    from paddock.runner.core.run_context import open_session
    from paddock.runner.core.staleness import RunOptions
    from paddock.runner.ledger.run_locks import Locked
    from paddock.runner.notify.notifier import notify_at_end
    from paddock.runner.prefect.run_tracking import (
        check_prefect_api,
        is_within_flow_run,
        local_service,
        run_mode,
    )
    from paddock.runner.progress.drain import StopGate
    from paddock.runner.progress.events import NullObserver

    settings, bound, secrets = prepare(Path(path), inputs, settings, text, allow, environ)
    if agreed is not None:
        from paddock.runner.bind import permissions

        permissions.refuse_unconsented(bound, settings.address.url, agreed, Path(path))
    if tape is None:  # a replayed test calls none of it
        requirements.refuse_missing(bound)
    force = frozenset(force)
    _check_ids(bound, force)
    options = RunOptions(
        only=frozenset(only),
        force=force,
        retry_failed=retry_failed,
        refresh=refresh,
        prune=prune,
        is_confirmed=yes,
        takes_over=take,
        no_cache=no_cache,
        trigger=trigger,
        job=job,
        max_attempts=settings.unattended.max_attempts,
    )
    how = run_mode(local, os.environ, has_pool=pool is not None, within=is_within_flow_run())
    stop = stop or asyncio.Event()
    stop_gate = stop_gate or StopGate()
    observer = observer or NullObserver()
    tells = trigger != "hand" if notify is None else notify
    async with AsyncExitStack() as stack:
        stack.enter_context(secrets.guarded())
        enter = stack.enter_async_context
        wanted = tells and not options.only  # the other items were not looked at
        ending = notify_at_end(bound, settings, observer, secrets, stop, wanted=wanted)
        outcome = await enter(ending)
        tenant = await enter(local_service(how, bound, settings, observer.note))
        if how.prefect == "api":
            await check_prefect_api(os.environ)
        try:
            session = await enter(
                open_session(
                    bound, settings, observer, options,
                    pool=pool, here=tenant, secrets=secrets, stop=stop, stop_gate=stop_gate,
                    wait_s=wait_s, tape=tape, keeps_turn=keeps_turn,
                )
            )  # fmt: skip
        except (Locked, LookupInterrupted) as error:
            report = outcome.report = _report_not_begun(error, bound, stop, stop_gate)
            observer.ended(report)
            return report
        report = outcome.report = await _run_and_record(session, stop, stop_gate, how, tenant)
        return report


def _report_not_begun(
    error: Exception, bound: BoundPlan, stop: asyncio.Event, stop_gate: StopGate
) -> Report:
    """Tell of a run that somebody wanted to wait no longer, or that its group left out.

    Raises:
        Locked: nobody did; another run went on for too long.
    """
    from paddock.runner.ledger.run_locks import SkippedByGroup

    if stop.is_set() or isinstance(error, SkippedByGroup):
        return Report("", bound.name, "interrupted", {}, message=str(error))
    if not stop_gate.is_closed:
        raise error
    words = f"{stop_gate.words}. It was still waiting for another run; nothing was begun."
    return Report("", bound.name, stop_gate.status, {}, message=words)


async def _run_and_record(
    session: RunSession,
    stop: asyncio.Event,
    stop_gate: StopGate,
    how: RunMode,
    tenant: DaemonSession | None,
) -> Report:
    """Carry out an open session, and tell how it ended, by an error too."""
    session.begin()
    try:
        report = await _run_as_mode_says(session, stop, stop_gate, how, tenant)
    except Exception as error:
        session.end(session.tally.report("failed", message=str(error) or type(error).__name__))
        raise
    report = replace(report, models=session.loads())
    session.end(report)
    return report


async def _run_as_mode_says(
    session: RunSession,
    stop: asyncio.Event,
    stop_gate: StopGate,
    how: RunMode,
    tenant: DaemonSession | None,
) -> Report:
    """Carry out an open session: shown in Prefect, in the flow run that is current, or plainly."""
    if how.prefect == "service" and tenant is not None:
        from paddock.runner.prefect import run_tracking

        return await run_tracking.run_with_mirror(session, stop, stop_gate, tenant.mirror)
    if how.prefect == "api":
        from paddock.runner.prefect import run_tracking

        return await run_tracking.run_with_prefect(session, stop, stop_gate)
    if how.prefect == "within":
        from paddock.runner.prefect import flow

        return await flow.run_in_current_flow(session, stop, stop_gate)
    from paddock.runner.core import run
    from paddock.runner.core.blocks import run_chunk_here

    return await run.run(session.work, session.toolbox, run_chunk_here, stop, stop_gate)


def _check_ids(bound: BoundPlan, force: frozenset[str]) -> None:
    """Refuse a `--force` of what is not there."""
    from paddock.pipelines.errors import Fault, PipelineError, did_you_mean
    from paddock.runner.bind.subpipelines import callable_names

    names = tuple(callable_names(bound.nodes))
    faults = [
        Fault(f"there is no step '{step}' to force.", did_you_mean(step, names))
        for step in sorted(force)
        if step not in names
    ]
    if faults:
        raise PipelineError(faults)


def prepare(
    path: Path,
    inputs: Mapping[str, Any] | None,
    settings: Settings | None,
    text: str | None = None,
    allow: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
    *,
    is_plan: bool = False,
) -> tuple[Settings, BoundPlan, Secrets]:
    """Read, check and bind a pipeline file; refuse one that wants more than is allowed.

    Raises:
        PipelineError: the YAML, an input or a secret is wrong, or not allowed.
    """
    from paddock.runner.bind import permissions
    from paddock.runner.bind.bind import bind, read_plan
    from paddock.runner.bind.subpipelines import all_plans
    from paddock.runner.config.pipeline_secrets import read_secrets
    from paddock.runner.settings import read_settings

    settings = settings or read_settings(path.parent)
    made = read_plan(path, text)
    models: dict[Role, str] = {"chat": settings.chat_model, "embed": settings.embed_model}
    bound = bind(made, inputs or {}, cwd=Path.cwd(), default_models=models)
    permissions.refuse_unpermitted(
        bound, settings.allow.union(allow), settings.address.url, is_plan=is_plan
    )
    inner = [one.pipeline for one in all_plans(bound) if one is not bound]
    environ = os.environ if environ is None else environ
    return settings, bound, read_secrets(bound.pipeline, environ, bound.inputs, inner)
