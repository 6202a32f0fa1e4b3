"""Where a ledger in a file is: its place, who may open it, and the one of the version before."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from paddock.engine.system import file_locks, private_files

from ..entries import LedgerError
from ..own_state import LEDGER_FILE, has_folder_identity
from ..run_locks import FolderLock, RunLock
from .known_ledgers import enter_host, entry_of
from .ledger_tables import BEFORE, CarriedRows, OpenLedger
from .sqlite_file import (
    WORK_S,
    LedgerBusy,
    SqliteDatabase,
    kept_file,
    refuse_full_disk,
    write_error,
)


class SqliteStorage:
    """Implements `LedgerStorage` over the file in a folder's state."""

    compares_secrets = marks_decisions = True

    def __init__(self, folder: Path, carried: CarriedRows) -> None:
        self.folder, self._file, self._carried = folder, folder / LEDGER_FILE, carried

    def find(self, *, is_readonly: bool) -> SqliteDatabase | None:
        if not self._file.exists() or not self._file.stat().st_size:  # a run makes its tables
            return None
        entry_of(self._file)  # one that is not ours is not read
        if _is_of_version_before(self._file):
            try:
                with file_locks.lock_now(self.folder / "ledger.lock", wait_s=WORK_S):
                    self._carry_over()
            except file_locks.LockTaken:
                raise LedgerBusy(self._file) from None
        entry = entry_of(self._file)
        private_files.make_private(self.folder)
        database = SqliteDatabase(
            private_files.private_database(self._file), is_readonly=is_readonly
        )
        with contextlib.ExitStack() as stack:
            stack.callback(database.close)
            if not entry.check(database):
                return None
            stack.pop_all()
        return database

    def open_for_writing(self, note: Callable[[str], None]) -> OpenLedger:
        with file_locks.lock_now(self.folder / "ledger.lock", wait_s=-1):
            entry_of(self._file)
            if self._file.exists():
                self._carry_over()
            entry = entry_of(self._file)
            with contextlib.ExitStack() as stack:
                reading = SqliteDatabase(private_files.private_database(self._file))
                stack.callback(reading.close)
                reading.make_tables(entry.enter_ledger(reading))
                enter_host(self._file, reading)
                writing = SqliteDatabase(self._file, is_writer=True)
                stack.callback(writing.close)
                transactions = SqliteDatabase(self._file)
                stack.pop_all()
        return OpenLedger(reading, transactions, writing)

    def _carry_over(self) -> None:
        """Replace a file of the version before by one of this version; it lies beside that then.

        No other process may open the ledger at the same time.

        Raises:
            LedgerError: a run of the older version is at work, or it cannot be read or written.
        """
        file, entry = self._file, entry_of(self._file)
        if not _is_of_version_before(file):
            return
        new = file.with_name(f"{file.name}.new")
        with contextlib.closing(SqliteDatabase(file)) as old:
            entry.check_known(old)
            try:
                with contextlib.ExitStack() as stack:
                    for lock in (self.folder / "locks").glob("*.lock"):
                        stack.enter_context(file_locks.lock_now(lock))
                    self._copy(old, new)
                    old.leave_log()
                    self._exchange(new)
            except file_locks.LockTaken:
                raise LedgerError(
                    f"{file}: a run of an older Paddock works on this folder. Wait until it has "
                    "ended; then its ledger is carried over."
                ) from None
            except OSError as error:
                raise write_error(error) from error

    def _exchange(self, new: Path) -> None:
        kept = kept_file(self._file)
        kept.unlink(missing_ok=True)
        try:
            os.link(self._file, kept)  # so that there is a ledger at any moment
        except OSError:  # a file system without links
            shutil.copyfile(self._file, kept)
        new.replace(self._file)

    def _copy(self, old: SqliteDatabase, new: Path) -> None:
        for leftover in (new, *(new.with_name(f"{new.name}{end}") for end in ("-wal", "-shm"))):
            leftover.unlink(missing_ok=True)
        entry = entry_of(new)
        with contextlib.closing(SqliteDatabase(private_files.private_database(new))) as database:
            database.make_tables(entry.enter_ledger(database, old.identity()))
            for pending in self._carried(old.rows):
                database.write_rows(pending)

    def run_lock(self, name: str, run: str) -> RunLock:
        return FolderLock(self.folder / "locks", name, run)

    def hurry_after(self, is_stopping: Callable[[], bool], is_over: threading.Event) -> None:
        """Do nothing: a file answers."""

    def doubt(self) -> str:
        return (
            "other machines know this folder by a ledger in PostgreSQL; "
            "this run uses the file beside it, since PADDOCK_LEDGER names none"
        ) * has_folder_identity(self.folder)

    def refuse_unwritable(self) -> None:
        base = self.folder.parent
        for place in (self._file, self.folder if self.folder.exists() else base):
            if place.exists() and not os.access(place, os.W_OK):
                raise write_error(f"no permission to write {place}")
        refuse_full_disk(base)


def _is_of_version_before(file: Path) -> bool:
    if not file.exists() or not file.stat().st_size:
        return False
    with contextlib.closing(SqliteDatabase(file, is_readonly=True)) as database:
        return database.version() == str(BEFORE)
