"""Command `paddock adopt`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import typer

from paddock.engine.system import file_locks, files
from paddock.engine.system.text import nested_values, parse_shallow_json, shorten
from paddock.runner.cli.arguments import argument, existing_folder, flag
from paddock.runner.cli.exit_status import DONE, CommandError
from paddock.runner.ledger.database import queries
from paddock.runner.ledger.database.known_ledgers import LedgerEntry, enter_host, other_host
from paddock.runner.ledger.database.sqlite_file import SqliteDatabase
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.own_state import ForeignState, WrongKind
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
    folder = existing_folder(place, "adopt").resolve()
    ledger = Ledger(folder / STATE_FOLDER, is_readonly=True)
    nothing = CommandError(f"There is no ledger in '{place}'.")
    if not ledger.file.is_file():
        raise nothing
    try:
        with ledger, closing(SqliteDatabase(ledger.file)) as database:
            if host := other_host(ledger.file, database):
                printing.print_out(printing.printable_line(f"'{host}' wrote it until now."))
                _ask(yes=yes)
                enter_host(ledger.file, database, is_adopted=True)
            printing.print_out("Taken." if host else "Its ledger is used already.")
            return DONE
    except ForeignState as error:
        if error.why is not WrongKind.UNKNOWN:
            raise
    with closing(SqliteDatabase(ledger.file)) as database:
        entry = LedgerEntry(ledger.file, None)
        if not entry.check(database):
            raise nothing
        for line in _contents(database, folder):
            printing.print_out(printing.printable_line(shorten(line, _MOST_CHARS)))
        printing.print_out(
            "Once it is taken, its runs can be run again, its items count as done and its "
            "decisions as made, and its outputs may be replaced or removed."
        )
        _ask(yes=yes)
        with file_locks.lock_now(ledger.folder / "ledger.lock", wait_s=-1):
            database.make_tables(entry.enter_ledger(database))
            enter_host(ledger.file, database, is_adopted=True)
    printing.print_out("Taken.")
    return DONE


def _ask(*, yes: bool) -> None:
    if not yes and not (sys.stdin.isatty() and typer.confirm("Take it?", err=True)):
        raise CommandError("Nothing was taken.\n  `--yes` does this without a question.")


def _contents(database: SqliteDatabase, folder: Path) -> Iterator[str]:
    """Yield lines on what a ledger has, then on all that leads out of its folder."""
    for what, n_rows in database.rows(queries.CONTENTS, {}):
        yield f"{what}: {n_rows:,}"
    named = [(kind, path) for kind, path in database.rows(queries.NAMED_PATHS, {})]
    for (given,) in database.rows(queries.GIVEN_INPUTS, {}):
        try:
            inputs = dict(parse_shallow_json(given)["inputs"])
        except (ValueError, TypeError, KeyError) as error:
            raise CommandError(f"The inputs of a run in it cannot be read ({error}).") from error
        for name, value in inputs.items():
            named += [(f"input '{name}' leads to", text) for _, text in nested_values(value)]
    outside = {
        f"  {kind} {path}": None
        for kind, path in named
        if isinstance(path, str)
        and (at := files.resolved(folder / path)) is not None
        and not at.is_relative_to(folder)
    }
    if outside:
        yield f"Out of {folder}:"
        yield from [*outside][:_MOST_SHOWN]
        if len(outside) > _MOST_SHOWN:
            yield f"  and {len(outside) - _MOST_SHOWN:,} more"
