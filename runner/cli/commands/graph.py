"""A pipeline and its last run as Mermaid text: `paddock graph`."""

from __future__ import annotations

import shlex
from pathlib import Path

from paddock.engine.system.files import write_output
from paddock.engine.system.text import counted
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.plan import read_plan
from paddock.runner.bind.bind import bind_without_inputs
from paddock.runner.bind.sub_pipelines import SharedPlans
from paddock.runner.cli.arguments import HERE, argument, option, pipeline_file, require_writable
from paddock.runner.cli.exit_status import DONE, CommandError
from paddock.runner.ledger.run_history import LedgerFolder, recent_runs
from paddock.runner.progress import printing
from paddock.runner.render.graph_mermaid import graph_mermaid
from paddock.runner.render.graph_model import last_run_steps, pipeline_boxes
from paddock.runner.settings import STATE_FOLDER

_SUFFIXES = (".mmd", ".mermaid")


def graph(
    file: str = argument("A pipeline, or a folder with one.", default=HERE, metavar="FILE"),
    out: Path | None = option("F.mmd; else to stdout.", "-o", "--out", metavar="FILE"),
) -> int:
    if out is not None:
        require_writable(out, "plan.mmd")
        if out.suffix.lower() not in _SUFFIXES:
            raise CommandError(f"'{out}' is not named as Mermaid text.\n  Use .mmd.")
    path = pipeline_file(file, "graph")
    plan, shared = read_plan(path), SharedPlans()
    try:
        bind_without_inputs(plan, shared)
    except PipelineError as error:
        if plan.faults or plan.pipeline.faults:
            raise
        command = f"`paddock validate {shlex.quote(str(file))}`"
        faults = counted(len(error.faults), "fault")
        printing.print_err(f"It cannot run as it is: {command} says why ({faults}).")
    place = LedgerFolder(path.absolute().parent / STATE_FOLDER, path.name)
    past = next(iter(recent_runs([place], limit=1).runs), None)
    boxes = pipeline_boxes(plan, last_run_steps(past), shared.plans)
    text = graph_mermaid(plan.pipeline.name, boxes)
    if out is None:
        printing.print_out(text.rstrip("\n"))
        return DONE
    write_output(out, text)
    printing.print_err(
        f"Drew {printing.printable_line(str(path))} to {printing.printable_line(str(out))}."
    )
    return DONE
