"""Which ledgers this user's home knows: they were made or adopted here. Another one is data.

An entry is `ledgers/INODE-IDENTITY` in the home: the inode of the ledger's file, and a random
number in its `meta`. A rename keeps both; a copy, a restored backup and a clone have another inode.
Numbers of devices change between mounts: they do not count.

1. A ledger without tables is new; it is entered before its first table is made.
2. One with an entry counts if its identity is in the entry.
3. In a trusted folder (`trust_state`) each one counts, without an entry.
4. `paddock adopt` enters any.

A ledger in PostgreSQL counts where the settings name its database. On a network file system a
ledger's `meta` names the one machine that writes it: SQLite's locks do not hold between machines.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from paddock.engine.system import files
from paddock.engine.system.owners import has_lasting_inodes, network_file_system
from paddock.engine.system.records import Struct
from paddock.engine.system.text import shell_command
from paddock.runner.settings import read_settings

from ..entries import LedgerError
from ..own_state import ForeignState, WrongKind

if TYPE_CHECKING:
    from .sqlite_file import SqliteDatabase

FOLDER = "ledgers"
_IDENTITY = re.compile("[0-9a-f]{32}")


class LedgerEntry(Struct, frozen=True):
    """What the home knows of a ledger's file."""

    file: Path
    known: frozenset[str] | None
    """The identities that count; None: any."""
    is_kept: bool = True
    """Whether the ledger is entered when it is written to."""

    def check(self, database: SqliteDatabase) -> bool:
        """Return whether a ledger has tables.

        Raises:
            ForeignState: it is another one than the home knows.
        """
        has_tables = database.find_tables()
        if has_tables:
            self.check_known(database)
        return has_tables

    def check_known(self, database: SqliteDatabase) -> None:
        if self.known is not None and database.identity() not in self.known:
            raise ForeignState(self.file.parent, WrongKind.UNKNOWN, self.file.name)

    def enter_ledger(self, database: SqliteDatabase, given: str = "") -> str:
        """Return the identity of a ledger, or of one that had none, after it was entered.

        `given`: the identity of one that had none.

        Raises:
            ForeignState: it is another one than the home knows.
            LedgerError: the home cannot be written.
        """
        identity = database.identity() if self.check(database) else given
        if not self.is_kept:
            return identity
        identity = identity if _IDENTITY.fullmatch(identity) else uuid4().hex
        place = entry_place(self.file, identity)
        try:
            if not place.exists():
                files.create_once(place, f"{self.file}\n")  # where it was then, for people
        except OSError as error:
            if not read_settings().trusts(self.file.parent.parent):
                raise LedgerError(
                    f"{place}: cannot be written ({error.strerror or error}). Without it the "
                    "ledger would not be known again, so nothing was begun.\n"
                    "  Make room or make it writable, or name the folder in `trust_state`."
                ) from error
        return identity


def entry_of(file: Path) -> LedgerEntry:
    """Return the entry of a ledger's file, which is not opened.

    Raises:
        ForeignState: the home does not know it.
    """
    settings = read_settings()
    if not file.exists() or not file.stat().st_size:
        return LedgerEntry(file, frozenset())
    place = entry_place(file, "")
    entries = place.parent.glob(f"{place.name}*")
    known = frozenset(entry.name.removeprefix(place.name) for entry in entries)
    if settings.trusts(file.parent.parent):
        return LedgerEntry(file, None, is_kept=bool(known))
    if not known:
        raise ForeignState(file.parent, WrongKind.UNKNOWN, file.name)
    return LedgerEntry(file, known)


def other_host(file: Path, database: SqliteDatabase) -> str:
    """Return which other machine writes a ledger on a network file system; empty: none does."""
    host = database.fact("host") if network_file_system(file.stat().st_dev) else ""
    return "" if host == socket.gethostname() else host


def enter_host(file: Path, database: SqliteDatabase, *, is_adopted: bool = False) -> None:
    """Note that this machine writes a ledger, if that lies on a network file system.

    Raises:
        LedgerError: another machine does, and it was not adopted from it.
    """
    if not (kind := network_file_system(file.stat().st_dev)):
        return
    if (host := other_host(file, database)) and not is_adopted:
        adopt = shell_command("paddock", "adopt", file.parent.parent)
        raise LedgerError(
            f"{file}: '{host}' writes this ledger, which lies on a network file system ({kind}), "
            f"where two machines would damage it. Run it there, or have a ledger in PostgreSQL "
            f"(PADDOCK_LEDGER); if only this machine uses it from now on: `{adopt}`."
        )
    database.set_fact("host", socket.gethostname())


def entry_place(file: Path, identity: str) -> Path:
    """Return the file of an entry. Where file systems keep no inodes, the identity names it."""
    facts = file.stat()
    inode = facts.st_ino if has_lasting_inodes(facts.st_dev) else 0
    return read_settings().state_dir / FOLDER / f"{inode}-{identity}"
