"""`paddock embed`: vectors of texts given as words, files or lines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from paddock.runner.display import console

from . import model_ref
from .completion import model_names
from .exits import DONE, CommandError, guarded
from .machine import Json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("embed")(guarded(embed))


def embed(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help=model_ref.HELP,
            autocompletion=model_names,
        ),
    ],
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT...]", help="Without any: standard input.")
    ] = None,
    files: Annotated[
        list[str] | None, typer.Option("--file", "-f", metavar="FILE", help="Embed a file's text.")
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Each line of files or input is a text of its own.")
    ] = False,
    dimensions: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Keep so many numbers of each vector.")
    ] = None,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut texts that are too long, rather than fail.")
    ] = False,
    keep_alive: Annotated[
        str | None,
        typer.Option(
            "--keepalive", "--keep-alive", metavar="TIME", help="How long the model stays."
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Print the vector of each text as a line of JSON."""
    from .words import spoken_keep_alive

    model = model_ref.meant(model)
    wanted = gathered(texts or [], files or [], is_by_lines=lines)
    body: dict[str, Any] = {"model": model, "input": wanted, "truncate": truncate}
    if dimensions is not None:
        body["dimensions"] = dimensions
    if keep_alive is not None:
        body["keep_alive"] = spoken_keep_alive(keep_alive)
    from paddock.runner.client import SILENCE_S
    from paddock.runner.hosting import serving
    from paddock.runner.settings import read_settings

    with serving(read_settings(Path.cwd()), model) as client:
        answer = client.post("/api/embed", body, SILENCE_S)
    if as_json:
        console.say_json(answer)
    else:
        for vector in answer.get("embeddings", []):
            console.say(json.dumps(vector))
    return DONE


def gathered(texts: list[str], files: list[str], *, is_by_lines: bool) -> list[str]:
    """Give the texts that are meant.

    Raises:
        CommandError: there are none, or one is not text.
    """
    from .words import read_input, read_text

    whole = [read_text(file) for file in files]
    if not texts and not files:
        if sys.stdin is None or sys.stdin.isatty():
            raise CommandError("Say which text: `paddock embed MODEL 'a text'`, or pipe one in.")
        whole.append(read_input())
    if is_by_lines:
        whole = [line for text in whole for line in text.splitlines() if line.strip()]
    if not texts and not whole:
        raise CommandError("There is no text.")
    return [*texts, *whole]
