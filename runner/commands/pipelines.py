"""Commands on a pipeline file: `validate`, `plan`, `run`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from paddock.runner.display import console

from .exits import DONE, FAILED, WRONG, CommandError, guarded
from .machine import Json
from .pipeline_files import HERE, is_text, pipeline_file

if TYPE_CHECKING:
    from paddock.runner.report import Report, ValidateReport
    from paddock.runner.settings import Settings

WORK_TO_DO = 10

_Inputs = Annotated[
    list[str] | None,
    typer.Option("-i", "--input", metavar="NAME=VALUE", help="Give an input; can be repeated."),
]
_Pool = Annotated[
    str | None,
    typer.Option(metavar="URL,...", help="Ask these servers in place of this machine's pool."),
]
_Allow = Annotated[
    str | None,
    typer.Option(metavar="NAME,...", help="What it may reach: run, tool, mcp, network, secrets."),
]
_File = Annotated[str, typer.Argument(metavar="FILE", help="A pipeline, or a folder with one.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("validate")(guarded(validate))
    app.command("plan")(guarded(plan))
    app.command("run")(guarded(run))


def validate(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE...", help="Pipelines, or folders with one; by default this folder."
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Check pipelines and print every fault."""
    reports = [_checked(file) for file in files or (HERE,)]
    faults = [fault for report in reports for fault in report.faults]
    for report in reports:
        for fault in report.faults:
            console.tell(fault.render())
        if report.ok and not as_json:
            console.say(f"{report.file}: ok")
        for note in report.notes:
            console.tell(console.message(note))
    if as_json:
        console.say_json({"ok": not faults, "faults": [fault.as_json() for fault in faults]})
    elif faults:
        console.tell(f"{console.counted(len(faults), 'fault')}.")
    return WRONG if faults else DONE


def _checked(file: str) -> ValidateReport:
    """Check one of several; that it is not there hides no fault of the others."""
    from paddock.pipelines.errors import Fault
    from paddock.runner.report import ValidateReport
    from paddock.runner.verbs import validate as check

    try:
        return check(pipeline_file(file, "validate"))
    except CommandError as error:
        message, _, remedy = str(error).partition("\n  ")
        return ValidateReport(file, (Fault(message, remedy),))


def plan(
    file: _File = HERE,
    inputs: _Inputs = None,
    as_json: Json = False,
    pool: _Pool = None,
    allow: _Allow = None,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="End with 0: nothing to do, 10: work to do.")
    ] = False,
) -> int:
    """Say what a run would do, and why."""
    from paddock.runner.settings import read_settings
    from paddock.runner.verbs import plan as foresee

    path = pipeline_file(file, "plan")
    settings = read_settings(path.parent, flags=flags_of(pool, allow))
    report = foresee(path, inputs=parse_inputs(inputs), settings=settings)
    if as_json:
        console.say_json(report.as_json())
    else:
        from .plan_text import plan_text

        console.say(plan_text(report))
    return WORK_TO_DO if detailed_exitcode and report.has_work else DONE


def run(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE", help="A pipeline, or a folder with one; by default this folder."
        ),
    ] = None,
    inputs: _Inputs = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Do this item alone; can be repeated.")
    ] = None,
    force: Annotated[
        list[str] | None, typer.Option(metavar="STEP", help="Do this step again, fresh or not.")
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Ask the models again, known replies or not.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what is quarantined.")
    ] = False,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Do again what a step's older, compatible version did."),
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what was made of documents that are gone.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Documents that are gone were deleted: do not ask.")
    ] = False,
    take: Annotated[
        bool, typer.Option("--take", help="Replace outputs that were edited, or are not ours.")
    ] = False,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with that run: its file, its inputs.")
    ] = None,
    fail_on: Annotated[
        Literal["new", "any", "never"],
        typer.Option(help="End with 3 for items quarantined now, for any, or never."),
    ] = "new",
    local: Annotated[
        bool, typer.Option("--local", help="Run inside this process, without Prefect.")
    ] = False,
    as_json: Json = False,
    pool: _Pool = None,
    allow: _Allow = None,
    notify: Annotated[
        bool, typer.Option("--notify", help="Tell whom `on.notify` names, as `paddock up` does.")
    ] = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Show the run on stderr as one JSON object a line.")
    ] = False,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write JUnit XML: each document a case.")
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a summary in Markdown.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the run as one page of HTML.")
    ] = None,
) -> int:
    """Run a pipeline; the same command again continues.

    Progress goes to stderr. What the pipeline `returns` is printed on stdout, text as it is and
    data as YAML; the summary of the run then goes to stderr, too.
    """
    path, given = _asked(file, inputs, resume)
    for target, name in ((report, "run.html"), (junit, "junit.xml"), (summary, "summary.md")):
        if target is not None:
            from .targets import writable

            writable(target, name)
    from paddock.runner import verbs
    from paddock.runner.display import progress
    from paddock.runner.settings import read_settings

    from .reporting import Reports

    flags = flags_of(pool, allow) | ({"log_json": True} if log_json else {})
    settings = read_settings(path.parent, flags=flags)
    if file is not None:
        from .like_ollama import tell_of_model

        tell_of_model(file, path, settings)
    is_log = settings.service.is_log_json
    reports = Reports(path, junit, summary)

    def go(*, is_confirmed: bool) -> Report:
        watching = progress.watching(is_quiet_stdout=as_json, is_log=is_log)
        with reports.even_if_it_fails(), watching as observer:
            return verbs.run(
                path,
                inputs=given,
                settings=settings,
                observer=observer,
                local=local or None,
                only=only or (),
                force=force or (),
                no_cache=no_cache,
                retry_failed=retry_failed,
                refresh=refresh,
                prune=prune,
                yes=is_confirmed,
                take=take,
                notify=notify,
            )

    ended = go(is_confirmed=yes)
    if prune and not yes and confirmed(ended):
        ended = go(is_confirmed=True)
    if report is not None and ended.run:
        from paddock.runner.pictures.reported import write_report

        write_report(path, ended.run, report)
    status = ended.exit_status(fail_on)
    if not reports.write(ended):
        status = status or FAILED
    has_value = ended.returns is not None
    if not is_log:
        tell_end(ended, str(path), is_apart=as_json or has_value)
        advise(ended, settings)
    if as_json:
        console.say_json(ended.as_json())
    elif has_value:
        console.say(_returned(ended.returns))
    return status


def _asked(
    file: str | None, inputs: list[str] | None, resume: str | None
) -> tuple[Path, Mapping[str, Any]]:
    """Give the pipeline that is meant and its inputs."""
    given = parse_inputs(inputs)
    if resume is not None:
        from .resuming import resumed

        path = None if file is None else pipeline_file(file, "run")
        return resumed(resume, path, given)
    return pipeline_file(HERE if file is None else file, "run"), given


def flags_of(pool: str | None, allow: str | None) -> dict[str, object]:
    """Give the settings that were given by hand."""
    given = {"pool": pool, "allow": allow}
    return {name: value for name, value in given.items() if value is not None}


def confirmed(ended: Report) -> bool:
    """Ask a person at a terminal whether documents were deleted, where a run has left that open."""
    if not any(item.state == "missing" for item in ended.items):
        return False
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm("Remove what was made of them?", err=True)


def tell_end(report: Report, file: str, *, is_apart: bool) -> None:
    """Write how a run ended in three lines: to stderr where stdout is for its result."""
    from .report_text import closing

    hint = f"`paddock plan {file}` says why; `--retry-failed` tries again."
    write = console.tell if is_apart else console.say
    write("\n".join(closing(report, fail_hint=hint)))


def _returned(value: Any) -> str:
    """Return what a pipeline `returns` as it is printed: text as it is, data as YAML."""
    from paddock.pipelines.source import write

    return (value if isinstance(value, str) else write(value)).removesuffix("\n")


def advise(report: Report, settings: Settings) -> None:
    """Say what would make such a run much quicker, where that is known of its one model."""
    if report.calls and len(report.models) == 1:
        from paddock.runner.speed import SpeedBook, workload

        (ref,) = report.models
        tokens = (report.tokens.get(k, 0) for k in ("prompt", "completion", "prompt_reused"))
        gain = SpeedBook(settings.pool).gain(ref, workload(report.calls, *tokens))
        if gain is not None:
            console.tell(gain.sentence())


def parse_inputs(given: list[str] | None) -> dict[str, str]:
    """Split `name=value` pairs.

    Raises:
        CommandError: one without a name or an equals sign, or a name that comes twice.
    """
    inputs: dict[str, str] = {}
    for pair in given or ():
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CommandError(f"'-i {pair}' is not an input.\n  Write it as `-i name=value`.")
        if not is_text(value):
            raise CommandError(f"Input '{name}' is not UTF-8.\n  Give it in that encoding.")
        if name in inputs:
            raise CommandError(f"Input '{name}' is given twice.\n  Leave one of them out.")
        inputs[name] = value
    return inputs
