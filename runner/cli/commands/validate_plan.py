"""Commands that look at a pipeline file: `paddock validate`, `plan`.

They must start within half a second: import nothing slow at module level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from paddock.engine.system.text import counted
from paddock.pipelines.errors import Fault
from paddock.runner import api
from paddock.runner.cli.arguments import (
    HERE,
    InputsOption,
    JsonOption,
    PipelineFlags,
    parse_inputs,
    pipeline_file,
)
from paddock.runner.cli.exit_status import DONE, WRONG, CommandError
from paddock.runner.cli.plan_text import plan_text
from paddock.runner.core.run_options import RunOptions
from paddock.runner.progress import printing
from paddock.runner.progress.report import ValidateReport
from paddock.runner.settings import read_settings

EXIT_WORK_TO_DO = 10

_File = Annotated[str, typer.Argument(metavar="FILE", help="A pipeline, or a folder with one.")]


def validate(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE...", help="Pipelines, or folders with one; this folder by default."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Check pipelines and print every fault."""
    reports = [_validate_file(file) for file in files or (HERE,)]
    faults = [fault for report in reports for fault in report.faults]
    for report in reports:
        _print_report(report, shows_ok=not as_json)
    if as_json:
        printing.print_json({"ok": not faults, "faults": [fault.as_json() for fault in faults]})
    elif faults:
        printing.print_err(f"{counted(len(faults), 'fault')}.")
    return WRONG if faults else DONE


def _print_report(report: ValidateReport, *, shows_ok: bool) -> None:
    for fault in report.faults:
        printing.print_err(fault.render())
    if report.ok and shows_ok:
        printing.print_out(f"{report.file}: ok")
    for note in report.notes:
        printing.print_err(printing.printable_message(note))


def _validate_file(file: str) -> ValidateReport:
    """Check one file; return a missing one as a fault, so that the others are checked, too."""
    try:
        return api.validate(pipeline_file(file, "validate"))
    except CommandError as error:
        message, _, remedy = str(error).partition("\n  ")
        return ValidateReport(file, (Fault(message, remedy),))


@dataclass(frozen=True)
class PlanFlags(PipelineFlags):
    """Arguments and options of `paddock plan`."""

    file: _File = HERE
    inputs: InputsOption = None
    detailed_exitcode: Annotated[
        bool,
        typer.Option("--detailed-exitcode", help="Exit with 0: nothing to do, 10: work to do."),
    ] = False


def plan(flags: PlanFlags) -> int:
    """Show what a run would do, and why."""
    path = pipeline_file(flags.file, "plan")
    settings = read_settings(path.parent, flags=flags.given_settings())
    options = RunOptions(sample=flags.item_sample())
    report = api.plan(path, parse_inputs(flags.inputs), options, settings=settings)
    if flags.as_json:
        printing.print_json(report.as_json())
    else:
        printing.print_out(plan_text(report))
    return EXIT_WORK_TO_DO if flags.detailed_exitcode and report.has_work else DONE
