"""Command `paddock adopt`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from paddock.engine.system import files
from paddock.engine.system.text import counted, listed, nested_values, shorten
from paddock.runner.cli.arguments import argument, existing_folder, flag
from paddock.runner.cli.exit_status import DONE, CommandError
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.own_state import LEDGER_FILE, ForeignState, WrongKind
from paddock.runner.progress import printing
from paddock.runner.settings import STATE_FOLDER

_MOST_SHOWN = 20
_MOST_CHARS = 200


def adopt(
    place: str = argument("The pipelines' folder; the current one.", default=".", metavar="DIR"),
    yes: bool = flag("Do it without a question.", "--yes"),
) -> int:
    """Take the ledger of a copy, a backup or a clone for one that was made here.

    Shows what is in it, and asks.
    """
    folder = existing_folder(place, "adopt")
    state = folder / STATE_FOLDER
    if not (state / LEDGER_FILE).is_file():
        raise CommandError(f"There is no ledger in '{place}'.")
    try:
        with Ledger(state, is_readonly=True):
            printing.print_out("Its ledger is used already.")
            return DONE
    except ForeignState as error:
        if error.why is not WrongKind.UNKNOWN:
            raise
    with Ledger(state, is_readonly=True, is_adopted=True) as ledger:
        for line in _contents(ledger, folder.resolve()):
            printing.print_out(printing.printable_line(line))
    printing.print_out(
        "Once it is taken, its runs can be run again, its items count as done and its decisions "
        "as made, and its outputs may be replaced or removed."
    )
    if not yes and not sys.stdin.isatty():
        raise CommandError("Nothing was taken.\n  `--yes` does this without a question.")
    if not yes and not typer.confirm("Take it?", err=True):
        raise CommandError("Nothing was taken.")
    with Ledger(state, is_adopted=True):
        printing.print_out("Taken.")
    return DONE


def _contents(ledger: Ledger, folder: Path) -> Iterator[str]:
    """Yield lines on what a ledger has, then on all that leads out of its folder."""
    parts: dict[str, dict[str, int]] = {}
    for kind, name, n_rows in ledger.rows(queries.CONTENTS):
        parts.setdefault(kind, {})[str(name)] = n_rows
    for kind, counts in parts.items():
        of = listed([f"{name} ({n_rows:,})" for name, n_rows in counts.items() if name])
        noun = counted(sum(counts.values()), kind, "replies" if kind == "reply" else "")
        yield f"{noun}: {of}" if of else noun
    found: dict[str, None] = {}
    for (given,) in ledger.rows(queries.GIVEN_INPUTS):
        for name, value in json.loads(given)["inputs"].items():
            for _, text in nested_values(value):
                if isinstance(text, str) and _leads_out(text, folder):
                    found[f"input '{name}' leads to {text}"] = None
    for kind, text in ledger.rows(queries.NAMED_PATHS):
        if _leads_out(text, folder):
            found[f"{kind} {text}"] = None
    if found:
        yield f"Out of {folder}:"
    for line in [*found][:_MOST_SHOWN]:
        yield f"  {shorten(line, _MOST_CHARS)}"
    if (n_more := len(found) - _MOST_SHOWN) > 0:
        yield f"  and {n_more:,} more"


def _leads_out(text: str, folder: Path) -> bool:
    at = files.resolved(folder / text)
    return at is not None and not at.is_relative_to(folder)
