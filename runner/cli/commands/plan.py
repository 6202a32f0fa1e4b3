"""Command `paddock plan`. It must be quick: import nothing slow at module level."""

from __future__ import annotations

from dataclasses import dataclass

from paddock.runner.api import plan as plan_run
from paddock.runner.cli.arguments import (
    HERE,
    InputsOption,
    PipelineFlags,
    argument,
    flag,
    parse_inputs,
    pipeline_file,
)
from paddock.runner.cli.exit_status import DONE
from paddock.runner.cli.plan_text import plan_text
from paddock.runner.core.run_options import RunOptions
from paddock.runner.progress import printing
from paddock.runner.settings import read_settings

EXIT_WORK_TO_DO = 10


@dataclass(frozen=True)
class PlanFlags(PipelineFlags):
    file: str = argument("A pipeline, or a folder with one.", default=HERE, metavar="FILE")
    inputs: InputsOption = None
    detailed_exitcode: bool = flag(
        "Exit with 0: nothing to do, 10: work to do.", "--detailed-exitcode"
    )


def plan(flags: PlanFlags) -> int:
    path = pipeline_file(flags.file, "plan")
    settings = read_settings(path.parent, flags=flags.given_settings())
    options = RunOptions(sample=flags.item_sample())
    report = plan_run(path, parse_inputs(flags.inputs), options, settings=settings)
    printing.print_result(report.as_json(), plan_text(report), as_json=flags.as_json)
    return EXIT_WORK_TO_DO if flags.detailed_exitcode and report.has_work else DONE
