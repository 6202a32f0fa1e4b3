"""The command that tells where an output came from: `why`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paddock.runner.display import console

from .exits import DONE, FAILED, CommandError, guarded
from .machine import Json

if TYPE_CHECKING:
    from paddock.runner.provenance.origin import Answer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("why")(guarded(why))


def why(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="An output, a document, a folder or a store.")
    ],
    places: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FOLDER|FILE]...", help="Pipelines; around PATH, by default."),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Print prompts and replies whole.")] = False,
    as_json: Json = False,
) -> int:
    """Tell where an output came from, and what changed since."""
    for text in places or ():
        if not Path(text).exists():
            raise CommandError(f"There is no file or folder '{text}'.")
    from paddock.runner.provenance.why import why as explain

    answer = explain(Path(path), [Path(text) for text in places or ()])
    for fault in answer.faults:
        console.tell(fault)
    if as_json:
        console.say_json(answer.as_json())
    elif answer.is_known:
        from .why_text import why_text

        console.say(why_text(answer, is_full=full))
    if not answer.is_known and not as_json:
        console.tell(_unknown(path, answer))
    return DONE if answer.is_known else FAILED


def _unknown(path: str, answer: Answer) -> str:
    """Say that nothing is known of a path, and what may be meant."""
    is_there = Path(path).exists()
    path = console.clean(path)
    what = (
        "no pipeline here wrote it, or is known to have read it"
        if is_there
        else "there is no such file, and "
    )
    if not is_there:
        what += "no pipeline here wrote one of this name"
    if answer.same_as:
        same = _relative(answer.same_as[0])
        return f"'{path}': {what}.\n  It holds what was written as '{same}': `paddock why {same}`."
    if answer.near:
        near = ", ".join(f"'{_relative(one)}'" for one in answer.near)
        return f"'{path}': {what}.\n  Did you mean {near}?"
    return (
        f"'{path}': {what}.\n"
        f"  Name the pipeline that may have, or its folder: `paddock why {path} FOLDER`."
    )


def _relative(path: str) -> str:
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
