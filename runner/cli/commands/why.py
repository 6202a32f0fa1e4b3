"""Command `paddock why`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paddock.runner.cli.arguments import JsonOption, argument, existing_paths, flag
from paddock.runner.cli.exit_status import DONE, FAILED
from paddock.runner.cli.history_text import lineage_text, unknown_path_text
from paddock.runner.lineage.explain import explain_path
from paddock.runner.progress import printing


def why(
    path: Annotated[
        str,
        typer.Argument(metavar="PATH", help="An output, a document, a folder or a vector store."),
    ],
    places: list[str] | None = argument(
        "Folders of pipelines whose ledgers are asked; those around PATH by default.",
        metavar="FOLDER|FILE",
    ),
    full: bool = flag("Print whole prompts and replies.", "--full"),
    as_json: JsonOption = False,
) -> int:
    where = existing_paths(places)
    answer = explain_path(Path(path), where)
    for fault in answer.faults:
        printing.print_err(fault)
    if as_json:
        printing.print_json(answer.as_json())
    elif answer.is_known:
        printing.print_out(lineage_text(answer, is_full=full))
    if not answer.is_known and not as_json:
        printing.print_err(unknown_path_text(path, answer))
    return DONE if answer.is_known else FAILED
