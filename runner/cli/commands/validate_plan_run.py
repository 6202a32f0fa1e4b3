"""Commands on a pipeline file: `paddock validate`, `plan`, `run`.

`run --resume` takes file and inputs of an earlier run from the ledger; `--junit` and `--summary`
write reports for CI, also for a run that could not begin. `validate` and `plan` must start within
half a second: nothing slow at module level.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from paddock.engine.system import units
from paddock.engine.system.text import counted
from paddock.runner.cli.arguments import HERE, is_utf8, pipeline_file
from paddock.runner.cli.exit_status import DONE, FAILED, WRONG, CommandError, with_exit_status
from paddock.runner.progress import console
from paddock.runner.progress.report import HELD_REMEDY, PlanItem, PlanReport, Report, State

from .init_schema_steps import JsonOption

if TYPE_CHECKING:
    from paddock.runner.ledger.run_history import PastRun
    from paddock.runner.progress.report import ValidateReport
    from paddock.runner.settings import Settings

MAX_NAMED_ITEMS = 5  # named of each group; `--json` has them all

HELD_TEXT = "outputs were edited, or are not ours, and are kept"

_WORK_STATES: tuple[State, ...] = ("new", "changed", "stale", "deleted")


def plan_text(report: PlanReport) -> str:
    """Write the groups by step, state and reason, then what the work would cost."""
    n_to_do = sum(item.state in _WORK_STATES for item in report.items)
    head = f"{report.pipeline}: nothing to do"
    if n_to_do:
        n_items = sum(item.state != "skipped" for item in report.items)
        head = f"{report.pipeline}: {n_to_do:,} of {counted(n_items, 'item')} to do"
    elif report.has_work:
        head = f"{report.pipeline}: what there is to do shows only during the run"
    lines = [console.printable_line(head), *_group_lines(report)]
    lines += [console.printable_message(note) for note in (*report.notes, *report.remarks)]
    if any(item.state == "held" for item in report.items):
        lines.append(HELD_REMEDY)
    if report.has_work:
        lines += [_cost_text(report), *map(console.printable_line, report.advice)]
    return "\n".join(lines)


def _group_lines(report: PlanReport) -> Iterator[str]:
    """Write one line for the items of a step that are in the same state for the same reason."""
    groups: dict[tuple[str, State, str], list[PlanItem]] = {}
    for item in report.items:
        # Each held item names its own outputs; so does a run, and `--json`.
        why = HELD_TEXT if item.state == "held" else item.why or ""
        groups.setdefault((item.step, item.state, why), []).append(item)
    width = max((len(step) for step, _, _ in groups), default=0)
    before = ""
    for (step, state, why), items in groups.items():
        shown = "" if step == before else step
        what = counted(len(items), "item") if state == "fresh" else _item_names(items)
        line = f"  {shown.ljust(width)}  {state:<11}  {what}"
        because = f"  ({console.printable_message(why)})" if why and state != "fresh" else ""
        yield console.printable_line(line) + because
        before = step


def _item_names(items: list[PlanItem]) -> str:
    if len(items) == 1 and items[0].key in ("", items[0].step):
        return "as a whole"
    names = ", ".join(item.key for item in items[:MAX_NAMED_ITEMS])
    more = len(items) - MAX_NAMED_ITEMS
    return f"{names} and {more:,} more" if more > 0 else names


def _cost_text(report: PlanReport) -> str:
    """Write calls, tokens, model loads and time; what nobody can know yet is left out."""
    parts = []
    if report.calls is not None:
        bound = "" if report.calls_are == "exact" else f"{report.calls_are} "
        parts.append(f"{bound}{counted(report.calls, 'model call')}")
    if report.tokens is not None:
        parts.append(f"about {report.tokens:,} tokens")
    if report.loads is not None:
        parts.append(counted(report.loads, "model load"))
    if report.seconds is not None:
        length = units.duration(report.seconds)
        parts.append(length if length.startswith("under") else f"about {length}")
    if not parts:
        return "How much that costs is not known yet."
    return f"That would take {', '.join(parts)}."


def closing_lines(report: Report, *, fail_hint: str) -> tuple[str, ...]:
    """Write three lines: what was written, what failed, what it took; one more for what is held."""
    return (
        _written_line(report),
        *_held_lines(report),
        _failed_line(report, fail_hint),
        _cost_line(report),
    )


def _held_lines(report: Report) -> Iterator[str]:
    held = [item for item in report.items if item.state == "held"]
    if not held:
        return
    names = ", ".join(console.printable_line(item.key or item.step) for item in held[:3])
    more = f" and {len(held) - 3:,} more" if len(held) > 3 else ""
    what = f"Held {counted(len(held), 'item')}: {names}{more}."
    yield f"{what} Outputs were edited, or are not ours, and are kept."
    yield f"  {HELD_REMEDY}"


def _written_line(report: Report) -> str:
    if not report.written:
        return "Wrote nothing new."
    folders = sorted({os.path.dirname(path) for path in report.written})  # noqa: PTH120 - texts
    where = os.path.commonpath(folders) if len(folders) > 1 else folders[0]
    shown = os.path.relpath(where)
    shown = where if shown.startswith(os.pardir) else shown
    if len(report.written) == 1:
        shown = os.path.join(shown, os.path.basename(report.written[0]))  # noqa: PTH118, PTH119
        return f"Wrote {console.printable_line(os.path.normpath(shown))}."
    shown = "in this folder" if shown == os.curdir else f"under {console.printable_line(shown)}"
    return f"Wrote {counted(len(report.written), 'file')} {shown}."


def _failed_line(report: Report, hint: str) -> str:
    bad = [item for item in report.items if item.state in ("quarantined", "failed")]
    log = f" Details: {console.printable_line(report.log)}" if report.log else ""
    if report.message:
        return console.printable_message(report.message) + log
    if not bad:
        return "Nothing failed."
    names = ", ".join(console.printable_line(item.key or item.step) for item in bad[:3])
    more = f" and {len(bad) - 3:,} more" if len(bad) > 3 else ""
    lead = "Still not done" if all(item.is_known for item in bad) else "Not done"
    return f"{lead}: {names}{more}. {hint}{log}"


def _cost_line(report: Report) -> str:
    parts = [f"Took {units.duration(report.seconds)}"]
    calls = counted(report.calls, "model call")
    if report.cached_calls:
        calls += f" and {report.cached_calls:,} from the ledger"
    parts.append(calls)
    n_fresh = report.counts.get("fresh", 0)
    n_reused = report.tokens.get("prompt_reused", 0)
    n_prompt = report.tokens.get("prompt", 0)
    saved = f"saved: {counted(n_fresh, 'item')} fresh"
    if n_prompt:
        saved += f", {n_reused:,} of {n_prompt:,} prompt tokens reused"
    return ", ".join(parts) + f"; {saved}."


@dataclass(frozen=True, slots=True)
class CiReports:
    """Where the reports of a run go."""

    pipeline: Path
    junit: Path | None
    summary: Path | None

    @property
    def are_wanted(self) -> bool:
        """Whether there is anything to write."""
        asked = self.junit is not None or self.summary is not None
        return asked or bool(os.environ.get("GITHUB_STEP_SUMMARY"))

    def write(self, ended: Report) -> bool:
        """Write them; tells whether that went well. The run itself is told in any case."""
        if not self.are_wanted:
            return True
        from paddock.runner.testing.results import write_run_reports

        try:
            write_run_reports(ended, str(self.pipeline), junit=self.junit, summary=self.summary)
        except OSError as error:
            console.print_err(f"{error.filename}: cannot be written: {error.strerror}.")
            return False
        return True

    @contextmanager
    def even_if_it_fails(self) -> Iterator[None]:
        """Write them also where an error keeps the run from beginning, or ends it."""
        try:
            yield
        except Exception as error:
            name = self.pipeline.parent.resolve().name
            self.write(Report("", name, "failed", {}, message=str(error) or type(error).__name__))
            raise


def resumed_run(
    name: str, file: Path | None, by_hand: Mapping[str, str]
) -> tuple[Path, dict[str, Any]]:
    """Return a run's pipeline and inputs; what is given by hand now goes before.

    Raises:
        CommandError: there is no such run; or what it was given is not known any more.
    """
    past = _find_run(name, file)
    path = file or past.place.folder / past.row.file
    if past.row.given is None:
        raise CommandError(
            f"Run '{name}' was made by an older Paddock, which kept no inputs.\n"
            f"  Give them: `paddock run {path} -i …`; what is finished stays finished."
        )
    given = json.loads(past.row.given)
    missing = [name for name in given["hidden"] if name not in by_hand]
    if missing:
        names = ", ".join(f"'{name}'" for name in missing)
        options = " ".join(f"-i {name}=…" for name in missing)
        raise CommandError(
            f"Run '{name}' was given {names}, which is secret and kept nowhere.\n"
            f"  Give it again: `paddock run --resume {name} {options}`."
        )
    return path, {**given["inputs"], **by_hand}


def _find_run(name: str, file: Path | None) -> PastRun:
    from paddock.runner.ledger.run_history import find_ledgers, known_run_names, runs_named

    where = find_ledgers([file if file is not None else Path()])
    found = runs_named(where, name)
    if found.runs:
        return found.runs[0]
    if found.faults:
        raise CommandError(found.faults[0])
    near = difflib.get_close_matches(name, known_run_names(where), n=1)
    hint = f"Did you mean '{near[0]}'?" if near else "`paddock runs` lists those there are."
    raise CommandError(f"There is no run '{name}' here.\n  {hint}")


EXIT_WORK_TO_DO = 10

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
    app.command("validate")(with_exit_status(validate))
    app.command("plan")(with_exit_status(plan))
    app.command("run")(with_exit_status(run))


def validate(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE...", help="Pipelines, or folders with one; by default this folder."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Check pipelines and print every fault."""
    reports = [_validate_file(file) for file in files or (HERE,)]
    faults = [fault for report in reports for fault in report.faults]
    for report in reports:
        for fault in report.faults:
            console.print_err(fault.render())
        if report.ok and not as_json:
            console.print_out(f"{report.file}: ok")
        for note in report.notes:
            console.print_err(console.printable_message(note))
    if as_json:
        console.print_json({"ok": not faults, "faults": [fault.as_json() for fault in faults]})
    elif faults:
        console.print_err(f"{counted(len(faults), 'fault')}.")
    return WRONG if faults else DONE


def _validate_file(file: str) -> ValidateReport:
    """Check one of several; that it is not there hides no fault of the others."""
    from paddock.pipelines.errors import Fault
    from paddock.runner.api import validate as check
    from paddock.runner.progress.report import ValidateReport

    try:
        return check(pipeline_file(file, "validate"))
    except CommandError as error:
        message, _, remedy = str(error).partition("\n  ")
        return ValidateReport(file, (Fault(message, remedy),))


def plan(
    file: _File = HERE,
    inputs: _Inputs = None,
    as_json: JsonOption = False,
    pool: _Pool = None,
    allow: _Allow = None,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="End with 0: nothing to do, 10: work to do.")
    ] = False,
) -> int:
    """Return what a run would do, and why."""
    from paddock.runner.api import plan as foresee
    from paddock.runner.settings import read_settings

    path = pipeline_file(file, "plan")
    settings = read_settings(path.parent, flags=given_settings(pool, allow))
    report = foresee(path, inputs=parse_inputs(inputs), settings=settings)
    if as_json:
        console.print_json(report.as_json())
    else:
        pass

        console.print_out(plan_text(report))
    return EXIT_WORK_TO_DO if detailed_exitcode and report.has_work else DONE


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
    as_json: JsonOption = False,
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
    path, given = _pipeline_and_inputs(file, inputs, resume)
    for target, name in ((report, "run.html"), (junit, "junit.xml"), (summary, "summary.md")):
        if target is not None:
            from paddock.runner.cli.arguments import require_writable

            require_writable(target, name)
    from paddock.runner import api
    from paddock.runner.cli import run_display
    from paddock.runner.core.run_options import RunEnvironment, RunOptions
    from paddock.runner.settings import read_settings

    flags = given_settings(pool, allow) | ({"log_json": True} if log_json else {})
    settings = read_settings(path.parent, flags=flags)
    if file is not None:
        from paddock.runner.cli.arguments import warn_of_model_with_same_name

        warn_of_model_with_same_name(file, path, settings)
    is_log = settings.service.is_log_json
    reports = CiReports(path, junit, summary)

    options = RunOptions(
        local=local or None,
        only=frozenset(only or ()),
        force=frozenset(force or ()),
        no_cache=no_cache,
        retry_failed=retry_failed,
        refresh=refresh,
        prune=prune,
        is_confirmed=yes,
        takes_over=take,
        notify=notify,
    )

    def go(options: RunOptions) -> Report:
        display = run_display.run_observer(is_quiet_stdout=as_json, is_log=is_log)
        with reports.even_if_it_fails(), display as observer:
            environment = RunEnvironment(settings=settings, observer=observer)
            return api.run(path, given, options, environment)

    ended = go(options)
    if prune and not yes and confirm_removal(ended):
        ended = go(replace(options, is_confirmed=True))
    if report is not None and ended.run:
        from paddock.runner.render.run_report import write_named_run_report

        write_named_run_report(path, ended.run, report)
    status = ended.exit_status(fail_on)
    if not reports.write(ended):
        status = status or FAILED
    has_value = ended.returns is not None
    if not is_log:
        print_closing(ended, str(path), is_apart=as_json or has_value)
        print_speed_advice(ended, settings)
    if as_json:
        console.print_json(ended.as_json())
    elif has_value:
        console.print_out(_returned_text(ended.returns))
    return status


def _pipeline_and_inputs(
    file: str | None, inputs: list[str] | None, resume: str | None
) -> tuple[Path, Mapping[str, Any]]:
    """Return the pipeline that is meant and its inputs."""
    given = parse_inputs(inputs)
    if resume is not None:
        path = None if file is None else pipeline_file(file, "run")
        return resumed_run(resume, path, given)
    return pipeline_file(HERE if file is None else file, "run"), given


def given_settings(pool: str | None, allow: str | None) -> dict[str, object]:
    """Return the settings that were given by hand."""
    given = {"pool": pool, "allow": allow}
    return {name: value for name, value in given.items() if value is not None}


def confirm_removal(ended: Report) -> bool:
    """Ask a person at a terminal whether documents were deleted, where a run has left that open."""
    if not any(item.state == "missing" for item in ended.items):
        return False
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm("Remove what was made of them?", err=True)


def print_closing(report: Report, file: str, *, is_apart: bool) -> None:
    """Write how a run ended in three lines: to stderr where stdout is for its result."""
    hint = f"`paddock plan {file}` says why; `--retry-failed` tries again."
    write = console.print_err if is_apart else console.print_out
    write("\n".join(closing_lines(report, fail_hint=hint)))


def _returned_text(value: Any) -> str:
    """Return what a pipeline `returns` as it is printed: text as it is, data as YAML."""
    from paddock.pipelines.yaml_source import to_yaml

    return (value if isinstance(value, str) else to_yaml(value)).removesuffix("\n")


def print_speed_advice(report: Report, settings: Settings) -> None:
    """Say what would make such a run much quicker, where that is known of its one model."""
    if report.calls and len(report.models) == 1:
        from paddock.runner.core.speed_estimates import SpeedBook, workload

        (ref,) = report.models
        tokens = (report.tokens.get(k, 0) for k in ("prompt", "completion", "prompt_reused"))
        gain = SpeedBook(settings.pool).gain(ref, workload(report.calls, *tokens))
        if gain is not None:
            console.print_err(gain.sentence())


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
        if not is_utf8(value):
            raise CommandError(f"Input '{name}' is not UTF-8.\n  Give it in that encoding.")
        if name in inputs:
            raise CommandError(f"Input '{name}' is given twice.\n  Leave one of them out.")
        inputs[name] = value
    return inputs
