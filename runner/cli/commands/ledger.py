"""Command `paddock ledger`."""

from __future__ import annotations

from typing import Literal

from paddock.runner.cli.arguments import argument, existing_folder, option
from paddock.runner.cli.exit_status import DONE, CommandError, command_group
from paddock.runner.ledger.ledger_copy import copy_to_file, copy_to_postgres
from paddock.runner.progress import printing
from paddock.runner.settings import STATE_FOLDER, read_settings


def copy(
    place: str = argument("The pipelines' folder; the current one.", default=".", metavar="DIR"),
    to: Literal["postgres", "file"] = option("Where.", "--to", default="postgres"),
) -> int:
    """Copy a folder's ledger, decisions included; PADDOCK_LEDGER names the database.

    Nothing may run on the folder meanwhile. What is copied stays.
    """
    folder = existing_folder(place, "ledger copy").resolve()
    if not (url := read_settings(folder).ledger_url):
        raise CommandError("Set PADDOCK_LEDGER=postgresql://user:password@host/database.")
    if to == "file":
        copy_to_file(folder / STATE_FOLDER, url)
        printing.print_out("Copied. Runs use the file once PADDOCK_LEDGER is unset.")
    else:
        copy_to_postgres(folder / STATE_FOLDER, url)
        printing.print_out("Copied. Runs use it while PADDOCK_LEDGER is set.")
    return DONE


ledger = command_group("ledger", {"copy": copy})
