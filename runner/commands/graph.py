"""The command that draws a pipeline: `graph`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from paddock.runner.display import console

from .exits import DONE, CommandError, guarded
from .pipeline_files import HERE, pipeline_file
from .targets import writable


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("graph")(guarded(graph))


def graph(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A pipeline, or a folder with one.")
    ] = HERE,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="F.svg, F.html or F.mmd; else to stdout."),
    ] = None,
    format_: Annotated[
        Literal["svg", "html", "mermaid"] | None,
        typer.Option("--format", help="By default what the file's ending says, else mermaid."),
    ] = None,
) -> int:
    """Draw a pipeline with what its last run did: SVG, one page of HTML, or Mermaid."""
    from paddock.pipelines.errors import PipelineError
    from paddock.runner.binding.bind import check, plan_of
    from paddock.runner.binding.inner import Found
    from paddock.runner.pictures.written import FORMATS
    from paddock.runner.pictures.written import graph as draw
    from paddock.steps.aside import put

    if out is not None:
        writable(out, "plan.svg")
    if format_ is None and out is not None and out.suffix.lower() not in FORMATS:
        raise CommandError(
            f"'{out}' does not say what to draw.\n"
            f"  End it in .svg, .html or .mmd, or give `--format`."
        )
    chosen = format_ or (FORMATS[out.suffix.lower()] if out is not None else "mermaid")
    path = pipeline_file(file, "graph")
    plan, within = plan_of(path), Found()
    try:
        check(plan, within)
    except PipelineError as error:
        if plan.faults or plan.pipeline.faults:
            raise
        console.tell(f"It cannot be run as it is: `paddock validate {file}` says why "
                     f"({console.counted(len(error.faults), 'fault')}).")  # fmt: skip
    text = draw(plan, path, chosen, within.plans)
    if out is None:
        console.say(text.rstrip("\n"))
        return DONE
    put(out, text)
    console.tell(f"Drew {console.clean(str(path))} to {console.clean(str(out))}.")
    return DONE
