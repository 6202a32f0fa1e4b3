"""Commands that show a pipeline without running it: `paddock graph`, `tools`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from paddock.engine.system.text import counted
from paddock.runner.cli.arguments import HERE, pipeline_file, require_writable
from paddock.runner.cli.exit_status import DONE, CommandError, with_exit_status
from paddock.runner.progress import console

from .init_schema_steps import JsonOption

if TYPE_CHECKING:
    from paddock.runner.cli.tool_list import ToolGroup


def register_graph(app: typer.Typer) -> None:
    """Add the command."""
    app.command("graph")(with_exit_status(graph))


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
    from paddock.engine.system.files import write_output
    from paddock.pipelines.errors import PipelineError
    from paddock.runner.bind.bind import check, read_plan
    from paddock.runner.bind.subpipelines import SharedPlans
    from paddock.runner.render.graph_drawing import FORMAT_OF_SUFFIX
    from paddock.runner.render.graph_drawing import draw_graph as draw

    if out is not None:
        require_writable(out, "plan.svg")
    if format_ is None and out is not None and out.suffix.lower() not in FORMAT_OF_SUFFIX:
        raise CommandError(
            f"'{out}' does not say what to draw.\n"
            f"  End it in .svg, .html or .mmd, or give `--format`."
        )
    chosen = format_ or (FORMAT_OF_SUFFIX[out.suffix.lower()] if out is not None else "mermaid")
    path = pipeline_file(file, "graph")
    plan, within = read_plan(path), SharedPlans()
    try:
        check(plan, within)
    except PipelineError as error:
        if plan.faults or plan.pipeline.faults:
            raise
        console.print_err(f"It cannot be run as it is: `paddock validate {file}` says why "
                     f"({counted(len(error.faults), 'fault')}).")  # fmt: skip
    text = draw(plan, path, chosen, within.plans)
    if out is None:
        console.print_out(text.rstrip("\n"))
        return DONE
    write_output(out, text)
    console.print_err(
        f"Drew {console.printable_line(str(path))} to {console.printable_line(str(out))}."
    )
    return DONE


_MAX_ABOUT_CHARS = 90


def register_tools(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tools")(with_exit_status(tools))


def tools(
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="A pipeline, whose MCP servers are asked, too."),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("-i", "--input", metavar="NAME=VALUE", help="Give an input."),
    ] = None,
    allow: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="What may be reached: mcp, network, secrets."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """List the tools that steps can call, with their arguments."""
    from paddock.runner.cli import tool_list

    if file is None:
        groups = tool_list.tools_here()
    else:
        from paddock.runner.settings import read_settings

        pass
        from .validate_plan_run import given_settings, parse_inputs

        path = pipeline_file(file, "tools")
        settings = read_settings(path.parent, flags=given_settings(None, allow))
        groups = tool_list.tools_of_pipeline(path, parse_inputs(inputs), settings)
    if as_json:
        console.print_json({"groups": [_group_json(group) for group in groups]})
    else:
        console.print_out("\n".join(line for group in groups for line in _group_lines(group)))
    return DONE


def _group_lines(group: ToolGroup) -> Iterator[str]:
    yield console.printable_line(group.origin) + (
        f": {console.printable_message(group.why)}" if group.why else ""
    )
    for tool in group.tools:
        words = " ".join(tool.description.split())
        short = words if len(words) <= _MAX_ABOUT_CHARS else f"{words[: _MAX_ABOUT_CHARS - 1]}…"
        yield console.printable_line(
            f"  {tool.signature() if tool.schema else tool.name}  {short}".rstrip()
        )


def _group_json(group: ToolGroup) -> dict[str, object]:
    listed = [
        {
            "name": tool.name,
            "description": tool.description,
            "schema": dict(tool.schema),
            "has_effects": tool.has_effects,
        }
        for tool in group.tools
    ]
    return {"origin": group.origin, "tools": listed, "why": group.why or None}
