"""Python API: `validate`, `plan`, `run` and their async twins, on plain values.

`validate` opens no ledger and loads no model; what `plan` and `run` need besides is imported when
they are called. Prefect is only imported in a run that is shown in it.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from paddock.engine.request import Pool
from paddock.engine.system.records import replace
from paddock.pipelines.errors import Fault, PipelineError, did_you_mean
from paddock.pipelines.keys import SecretKeys
from paddock.pipelines.plan import plan_with_faults, read_plan
from paddock.runner.bind.advice import advice_on
from paddock.runner.bind.bind import bind, bind_written_starts
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.bind.checks import requirements
from paddock.runner.bind.pipeline_check import validate as validate
from paddock.runner.bind.plan_walks import all_plans, callable_names
from paddock.runner.bind.trust import consent, permissions
from paddock.runner.bind.trust.consents import Consents
from paddock.runner.bind.variations import comparison_notes
from paddock.runner.config.pipeline_secrets import PlaceholderSecrets, read_secrets, trigger_secrets
from paddock.runner.core.run_options import PreparedRun, RunEnvironment, RunOptions
from paddock.runner.daemon.secret_digests import digest_key, secret_digest
from paddock.runner.progress.drain import StopGate, stop_on_signals
from paddock.runner.progress.plan_report import PlanReport
from paddock.runner.progress.report import Report
from paddock.runner.progress.run_display import script_observer
from paddock.runner.settings import Settings, read_settings

# Threads that read and write files. Each costs the others waiting for Python's lock (2,000
# documents took 4.4 s of CPU with 1, 5.0 with 2, 6.3 with 6 on 2 cores), but hides the disk's.
FILE_THREADS = 4


def plan(
    path: str | Path,
    inputs: Mapping[str, Any] | None = None,
    options: RunOptions | None = None,
    *,
    settings: Settings | None = None,
    pool: Pool | None = None,
    **values: Any,
) -> PlanReport:
    """Return what a run with these options would do, and why.

    Raises:
        PipelineError: the YAML or an input is wrong.
        LedgerError, EngineError: the ledger or a model cannot be used.
        RuntimeError: an event loop is running, as in a notebook.
    """
    _refuse_running_loop("plan")
    found, given = list[PlanReport](), {**(inputs or {}), **values}

    async def look() -> None:  # what it returned, `signal` would write into an error that it drops
        found.append(await plan_async(path, given, options, settings=settings, pool=pool))

    asyncio.run(look())
    return found[0]


def _refuse_running_loop(name: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        f"`{name}` cannot be called where an event loop is running, as in a notebook. "
        f"Write `await {name}_async(…)`: it takes the same arguments."
    )


async def plan_async(
    path: str | Path,
    inputs: Mapping[str, Any] | None = None,
    options: RunOptions | None = None,
    *,
    settings: Settings | None = None,
    pool: Pool | None = None,
    **values: Any,
) -> PlanReport:
    from paddock.runner.dry_run.estimate import estimate_run

    inputs = {**(inputs or {}), **values}
    options, environment = options or RunOptions(), RunEnvironment(settings=settings, pool=pool)
    prepared = prepare(Path(path), inputs, options, environment, is_plan=True)
    bound = prepared.bound
    refuse_unready(prepared, options, environment)
    notes = tuple(advice_on(bound))
    if bound.pipeline.compare is not None or bound.pipeline.gold is not None:
        notes += tuple(comparison_notes(bound.pipeline))
    if prepared.lacking is not None:
        notes = (*notes, prepared.lacking)
    report = await estimate_run(prepared, options, environment)
    return replace(report, advice=notes)


def run(
    path: str | Path,
    inputs: Mapping[str, Any] | None = None,
    options: RunOptions | None = None,
    environment: RunEnvironment | None = None,
    **values: Any,
) -> Report:
    """Run a pipeline; the same call again continues.

    `values` are inputs, too: `run("mail.yaml", rows=frame)`. An input of type `rows` takes a frame
    of pandas, Polars or Arrow, a list of mappings, or the path of a table.
    Without an environment progress is shown on a terminal. Signals stop it, not `stop` and
    `stop_gate` of the environment, which can serve several runs.

    Raises:
        PipelineError: the YAML or an input is wrong.
        LedgerError, EngineError: the ledger or a model cannot be used.
        TrackingError: Prefect's API cannot be reached.
        RuntimeError: an event loop is running, as in a notebook.
        KeyboardInterrupt: Ctrl-C or SIGTERM ended it in order; the ledger has what was done.
    """
    _refuse_running_loop("run")
    with _progress_for_people(environment) as lent:
        given = {**(inputs or {}), **values}
        report, is_stopped = _run_until_end(path, given, options, lent)
    if is_stopped:
        raise KeyboardInterrupt(report.message)
    return report


@contextmanager
def _progress_for_people(environment: RunEnvironment | None) -> Iterator[RunEnvironment]:
    """Yield the caller's environment, with tables; without one, one that shows progress."""
    if environment is not None:
        yield replace(environment, keeps_tables=True)
        return
    with script_observer() as observer:
        yield RunEnvironment(observer=observer, keeps_tables=True)


def run_until_end(
    path: str | Path,
    inputs: Mapping[str, Any] | None = None,
    options: RunOptions | None = None,
    environment: RunEnvironment | None = None,
) -> Report:
    """Run a pipeline as `run` does, and return the report of an interrupted run, too."""
    return _run_until_end(path, inputs, options, environment or RunEnvironment())[0]


def _run_until_end(
    path: str | Path,
    inputs: Mapping[str, Any] | None,
    options: RunOptions | None,
    environment: RunEnvironment,
) -> tuple[Report, bool]:

    async def main() -> tuple[Report, bool]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(FILE_THREADS))
        # An event belongs to the loop in which it was first awaited.
        own = replace(environment, stop=asyncio.Event(), stop_gate=StopGate())
        with stop_on_signals(own.stop, own.stop_gate):
            report = await _run_async(path, inputs, options or RunOptions(), own)
        return report, own.stop.is_set() and report.status == "interrupted"

    return asyncio.run(main())


async def run_async(
    path: str | Path,
    inputs: Mapping[str, Any] | None = None,
    options: RunOptions | None = None,
    environment: RunEnvironment | None = None,
    **values: Any,
) -> Report:
    """Run a pipeline in a running loop; inside a Prefect flow run it is a sub-flow of that.

    Without an environment progress is shown on a terminal and in a notebook.
    """
    with _progress_for_people(environment) as lent:
        given = {**(inputs or {}), **values}
        return await _run_async(path, given, options or RunOptions(), lent)


async def _run_async(
    path: str | Path,
    inputs: Mapping[str, Any] | None,
    options: RunOptions,
    environment: RunEnvironment,
) -> Report:
    from paddock.runner.prefect import run_tracking

    if options.local is True:
        is_flow = False
    elif run_tracking.is_within_flow_run():
        is_flow = not run_tracking.pipeline_flow().is_pipeline_run()
    else:
        settings = environment.settings or read_settings(Path(path).parent)
        is_flow = await run_tracking.becomes_flow_run(options, settings, environment.observer.note)
    if is_flow:
        flows = run_tracking.pipeline_flow()
        report: Report = await flows.run_as_flow(Path(path), inputs or {}, options, environment)
        return report
    prepared = prepare(Path(path), inputs, options, environment)
    environment = replace(environment, effect_times=[])  # of this run alone
    consents, code = Consents(prepared.settings.state_dir), None
    starts = list[BoundPlan]()
    if options.needs_consent or consents.agreed(Path(path)):
        bound, own = prepared.bound, prepared.settings.address.url
        starts = bind_written_starts(plan_with_faults(bound.pipeline))
        try:
            code = consent.refuse_unconsented(bound, starts, own, consents, Path(path))
        except PipelineError:
            if options.needs_consent:
                raise
    refuse_unready(prepared, options, environment)
    try:
        return await run_tracking.run_prepared(prepared, options, environment)
    finally:
        if code is not None:
            consent.note_own_writes(code, starts, environment.effect_times, consents)


def refuse_unready(prepared: PreparedRun, options: RunOptions, environment: RunEnvironment) -> None:
    """Refuse a run that lacks tools or programs, or is to force a step that is not there."""
    if environment.tape is None:  # a replayed test calls no tools and programs
        requirements.refuse_missing(prepared.bound)
    names = tuple(callable_names(prepared.bound.nodes)) if options.force else ()
    faults = [
        Fault(f"there is no step '{step}' to force.", did_you_mean(step, names))
        for step in sorted(options.force)
        if step not in names
    ]
    if faults:
        raise PipelineError(faults)


def prepare(
    path: Path,
    inputs: Mapping[str, Any] | None,
    options: RunOptions,
    environment: RunEnvironment,
    *,
    is_plan: bool = False,
) -> PreparedRun:
    """Read, check and bind a pipeline file; refuse one that needs more than is allowed.

    Raises:
        PipelineError: the YAML, an input or a secret is wrong, or not allowed.
    """
    settings = environment.settings or read_settings(path.parent)
    plan = read_plan(path, options.text)
    bound = bind(plan, inputs or {}, cwd=Path.cwd(), default_models=settings.default_models)
    allow = settings.allow.union(options.allow)
    lacking = permissions.refuse_unpermitted(
        bound, allow, settings.address.url, is_plan=is_plan, is_notifying=options.notifies
    )
    inner = [plan.pipeline for plan in all_plans(bound) if plan is not bound]
    environ = os.environ if environment.environ is None else environment.environ
    is_unused = bool(bound.pipeline.secrets) and not options.notifies
    unused = trigger_secrets(bound.pipeline) if is_unused else frozenset()
    unread: list[SecretKeys] = []

    def stored(keys: SecretKeys) -> str:
        if is_plan:  # which needs no server
            unread.append(keys)
            return f"no-secret-in-a-plan-{keys.prefect}"
        from paddock.runner.prefect import run_tracking

        return str(run_tracking.run_in_flow().stored_secret(keys))

    secrets = read_secrets(
        bound.pipeline, environ, bound.inputs, inner, unused=unused, prefect=stored
    )
    if not isinstance(environ, PlaceholderSecrets):

        @functools.cache
        def key() -> bytes:
            with suppress(OSError):  # no home to write to
                if not unread:
                    return digest_key(settings.state_dir)
            return os.urandom(32)  # what is made of secrets is compared with nothing

        secrets = replace(secrets, digest=lambda text: secret_digest(key(), text))
    return PreparedRun(bound, settings, secrets, lacking)
