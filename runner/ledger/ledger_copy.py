"""Copy a folder's ledger from its file to PostgreSQL, or back; large values lie beside both."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from paddock.engine.system import private_files

from .database.known_ledgers import entry_of
from .database.sqlite_file import SqliteDatabase
from .entries import LedgerError
from .ledger import Ledger, open_existing, postgres_module, storage_of
from .own_state import LEDGER_FILE, known_folder_identity


def copy_to_postgres(state: Path, url: str) -> None:
    """Make a ledger in PostgreSQL with all rows of the file.

    Raises:
        LedgerError: there is no file, or the database has a ledger of this folder.
    """
    if not (state / LEDGER_FILE).exists():
        raise LedgerError(f"{state / LEDGER_FILE}: there is no ledger to copy.")
    existing = open_existing(storage_of(state, url))
    if existing is not None:
        existing.close()
        place = postgres_module().database_name(url)
        raise LedgerError(
            f"{place} has a ledger of this folder already. To replace it: "
            f'drop schema "paddock_{known_folder_identity(state)}" cascade;'
        )
    with Ledger(state, url=url):  # a new one begins with the rows of the file
        pass


def copy_to_file(state: Path, url: str) -> None:
    """Make a ledger in a file with all rows that PostgreSQL has of the folder.

    Raises:
        LedgerError: there is none, or there is a file already.
    """
    file, new = state / LEDGER_FILE, state / f"{LEDGER_FILE}.new"
    if file.exists():
        raise LedgerError(f"{file}: there is a ledger already. Move it away to replace it.")
    source: Any = open_existing(storage_of(state, url))
    if source is None:
        place = postgres_module().database_name(url)
        raise LedgerError(f"{place} has no ledger of this folder: there is nothing to copy.")
    new.unlink(missing_ok=True)
    with closing(source), Ledger(state, url=url):  # its tables are today's
        entry = entry_of(new)
        with closing(SqliteDatabase(private_files.private_database(new))) as database:
            database.make_tables(entry.enter_ledger(database))
            for pending in source.lasting_rows():
                if "meta" not in pending:  # a file has an identity of its own
                    database.write_rows(pending)
    new.rename(file)
