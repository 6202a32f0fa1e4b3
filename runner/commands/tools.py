"""The command `tools`: what the steps `tool` and `agent` can call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.runner.display import console

from .exits import DONE, guarded
from .machine import Json

if TYPE_CHECKING:
    from paddock.runner.offered import Group

_WORDS_CHARS = 90


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tools")(guarded(tools))


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
    as_json: Json = False,
) -> int:
    """List the tools that steps can call, with their arguments."""
    from paddock.runner import offered

    if file is None:
        groups = offered.here()
    else:
        from paddock.runner.settings import read_settings

        from .pipeline_files import pipeline_file
        from .pipelines import flags_of, parse_inputs

        path = pipeline_file(file, "tools")
        settings = read_settings(path.parent, flags=flags_of(None, allow))
        groups = offered.of_file(path, parse_inputs(inputs), settings)
    if as_json:
        console.say_json({"groups": [_as_json(group) for group in groups]})
    else:
        console.say("\n".join(line for group in groups for line in _lines(group)))
    return DONE


def _lines(group: Group) -> Iterator[str]:
    yield console.clean(group.origin) + (f": {console.message(group.why)}" if group.why else "")
    for tool in group.tools:
        words = " ".join(tool.description.split())
        short = words if len(words) <= _WORDS_CHARS else f"{words[: _WORDS_CHARS - 1]}…"
        yield console.clean(f"  {tool.signature() if tool.schema else tool.name}  {short}".rstrip())


def _as_json(group: Group) -> dict[str, object]:
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
