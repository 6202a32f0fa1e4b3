"""The verbs of Paddock on plain values: `validate`, `plan`, `run`, and their async twins.

Imports what it needs when it needs it: `validate` opens no ledger, nobody here imports Prefect.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .report import PlanReport, Report, ValidateReport

# Threads that read and write files. Each costs the others waiting for Python's lock (2,000
# documents took 4.4 s of CPU with 1, 5.0 with 2, 6.3 with 6 on 2 cores), but hides the disk's.
FILE_THREADS = 4

if TYPE_CHECKING:
    import asyncio

    from paddock.engine.request import Pool, Role

    from .binding.bound import BoundPlan
    from .border import Border
    from .observer import Observer
    from .residence.tenancy import Tenant
    from .secrets import Secrets
    from .session import Session
    from .settings import Settings
    from .taping import Taping
    from .tracking import Way


def validate(path: str | Path) -> ValidateReport:
    """Check a pipeline and give every fault; touches no model and no document."""
    from paddock.pipelines.errors import PipelineError

    from . import missing
    from .binding.bind import checked, plan_of
    from .binding.inner import unheeded
    from .document_first import document_first

    try:
        bound = checked(plan_of(Path(path)))
        missing.refuse(bound)
        return ValidateReport(str(path), notes=(*unheeded(bound), *document_first(bound)))
    except PipelineError as error:
        return ValidateReport(str(path), error.faults)


def plan(
    path: str | Path,
    inputs: Mapping[str, Any] | None = None,
    *,
    settings: Settings | None = None,
    pool: Pool | None = None,
) -> PlanReport:
    """Say what a run would do, and why.

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
    """Say what a run would do, in a running loop."""
    import asyncio

    from . import consent, missing
    from .binding.inner import unheeded
    from .document_first import document_first
    from .foresee import foresee
    from .observer import Silent
    from .session import opened
    from .work import Options

    settings, bound, secrets = prepare(Path(path), inputs, settings, is_plan=True)
    missing.refuse(bound)
    wants = consent.advice(bound, settings.allow, settings.address.url)
    more = (*unheeded(bound), *document_first(bound), *((wants,) if wants else ()))
    async with opened(
        bound,
        settings,
        Silent(),
        Options(),
        pool=pool,
        secrets=secrets,
        stop=asyncio.Event(),
        is_plan=True,
    ) as session:
        report = await foresee(session)
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

    from .border import Border
    from .signals import stopping

    async def main() -> Report:
        stop, border = asyncio.Event(), Border()
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(FILE_THREADS))
        with stopping(stop, border):
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
                border=border,
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
    border: Border | None = None,
    allow: Iterable[str] = (),
    trigger: str = "hand",
    job: str = "",
    text: str | None = None,
    agreed: Collection[str] | None = None,
    notify: bool | None = None,
    environ: Mapping[str, str] | None = None,
    tape: Taping | None = None,
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

    from . import missing
    from .border import Border
    from .ledger.locks import Locked
    from .notify.telling import telling
    from .observer import Silent
    from .pools import Interrupted
    from .serving import served
    from .session import opened
    from .tracking import is_within, reach, way
    from .work import Options

    settings, bound, secrets = prepare(Path(path), inputs, settings, text, allow, environ)
    if agreed is not None:
        from . import asks

        asks.refuse_unagreed(bound, settings.address.url, agreed, Path(path))
    if tape is None:  # a replayed test calls none of it
        missing.refuse(bound)
    force = frozenset(force)
    _check_ids(bound, force)
    options = Options(
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
    how = way(local, os.environ, has_pool=pool is not None, within=is_within())
    stop = stop or asyncio.Event()
    border = border or Border()
    observer = observer or Silent()
    tells = trigger != "hand" if notify is None else notify
    async with AsyncExitStack() as stack:
        stack.enter_context(secrets.guarded())
        enter = stack.enter_async_context
        wanted = tells and not options.only  # the other items were not looked at
        ending = telling(bound, settings, observer, secrets, stop, wanted=wanted)
        outcome = await enter(ending)
        tenant = await enter(served(how, bound, settings, observer.note))
        if how.prefect == "api":
            await reach(os.environ)
        try:
            session = await enter(
                opened(
                    bound, settings, observer, options,
                    pool=pool, here=tenant, secrets=secrets, stop=stop, border=border,
                    wait_s=wait_s, tape=tape, keeps_turn=keeps_turn,
                )
            )  # fmt: skip
        except (Locked, Interrupted) as error:
            report = outcome.report = _not_begun(error, bound, stop, border)
            observer.ended(report)
            return report
        report = outcome.report = await _journey(session, stop, border, how, tenant)
        return report


def _not_begun(error: Exception, bound: BoundPlan, stop: asyncio.Event, border: Border) -> Report:
    """Tell of a run that somebody wanted to wait no longer, or that its group left out.

    Raises:
        Locked: nobody did; another run went on for too long.
    """
    from .ledger.locks import LeftOut

    if stop.is_set() or isinstance(error, LeftOut):
        return Report("", bound.name, "interrupted", {}, message=str(error))
    if not border.is_closed:
        raise error
    words = f"{border.words}. It was still waiting for another run; nothing was begun."
    return Report("", bound.name, border.status, {}, message=words)


async def _journey(
    session: Session, stop: asyncio.Event, border: Border, how: Way, tenant: Tenant | None
) -> Report:
    """Carry out an open session, and tell how it ended, by an error too."""
    session.begin()
    try:
        report = await _carried_out(session, stop, border, how, tenant)
    except Exception as error:
        session.end(session.tally.report("failed", message=str(error) or type(error).__name__))
        raise
    report = replace(report, models=session.loads())
    session.end(report)
    return report


async def _carried_out(
    session: Session, stop: asyncio.Event, border: Border, how: Way, tenant: Tenant | None
) -> Report:
    """Carry out an open session: shown in Prefect, in the flow run that is current, or plainly."""
    if how.prefect == "service" and tenant is not None:
        from . import feed

        return await feed.run(session, stop, border, tenant.mirror)
    if how.prefect == "api":
        from . import alongside

        return await alongside.run(session, stop, border)
    if how.prefect == "within":
        from . import flow

        return await flow.within(session, stop, border)
    from . import execute
    from .blocks import plain_chunks

    return await execute.run(session.work, session.toolbox, plain_chunks, stop, border)


def _check_ids(bound: BoundPlan, force: frozenset[str]) -> None:
    """Refuse a `--force` of what is not there."""
    from paddock.pipelines.errors import Fault, PipelineError, known

    from .body import names_of

    names = tuple(names_of(bound.nodes))
    faults = [
        Fault(f"there is no step '{step}' to force.", known(step, names))
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
    from . import consent
    from .binding.bind import bind, plan_of
    from .body import plans_of
    from .secrets import resolve
    from .settings import read_settings

    settings = settings or read_settings(path.parent)
    made = plan_of(path, text)
    models: dict[Role, str] = {"chat": settings.chat_model, "embed": settings.embed_model}
    bound = bind(made, inputs or {}, cwd=Path.cwd(), default_models=models)
    consent.refuse(bound, settings.allow.union(allow), settings.address.url, is_plan=is_plan)
    inner = [one.pipeline for one in plans_of(bound) if one is not bound]
    environ = os.environ if environ is None else environ
    return settings, bound, resolve(bound.pipeline, environ, bound.inputs, inner)
