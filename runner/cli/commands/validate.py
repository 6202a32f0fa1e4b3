"""Command `paddock validate`. It must be quick: import nothing of a run."""

from __future__ import annotations

from paddock.engine.system.text import counted
from paddock.pipelines.errors import Fault
from paddock.runner.bind import pipeline_check
from paddock.runner.bind.pipeline_check import ValidateReport
from paddock.runner.cli.arguments import HERE, JsonOption, argument, pipeline_file
from paddock.runner.cli.exit_status import DONE, WRONG, CommandError
from paddock.runner.progress import printing


def validate(
    files: list[str] | None = argument(
        "Pipelines, or folders with one; this folder by default.", metavar="FILE..."
    ),
    as_json: JsonOption = False,
) -> int:
    reports = []
    for file in files or (HERE,):
        try:
            reports.append(pipeline_check.validate(pipeline_file(file, "validate")))
        except CommandError as error:  # a fault, so that the others are checked, too
            reports.append(ValidateReport(file, (Fault(error.message, error.remedy),)))
    faults = [fault for report in reports for fault in report.faults]
    for report in reports:
        for fault in report.faults:
            printing.print_err(fault.render())
        if report.ok and not as_json:
            printing.print_out(f"{report.file}: ok")
        for note in report.notes:
            printing.print_err(printing.printable_message(note))
    if as_json:
        printing.print_json({"ok": not faults, "faults": [fault.as_json() for fault in faults]})
    elif faults:
        printing.print_err(f"{counted(len(faults), 'fault')}.")
    return WRONG if faults else DONE
