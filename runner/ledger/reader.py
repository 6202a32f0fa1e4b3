"""Read the ledger's file with what Python has, which is there at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from .entries import too_new, unreadable

VERSION = 4
"""Of the tables; see `tables` for how older ones become this one."""

WAIT_S = 30.0


class Reader(Protocol):
    """Answers a portable query with named values (`:name`)."""

    def rows(self, query: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Give the rows."""
        ...

    def close(self) -> None:
        """Let the file go."""
        ...


class FileReader:
    """Reads an SQLite file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._connection = sqlite3.connect(
                file, timeout=WAIT_S, isolation_level=None, check_same_thread=False
            )
        except sqlite3.DatabaseError as error:
            raise unreadable(file, error) from error
        try:
            self._version = self._found()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise unreadable(file, error) from error
        if self._version > VERSION:
            self._connection.close()
            raise too_new(file, self._version, VERSION)

    def _found(self) -> int:
        made = "select 1 from sqlite_master where name = 'meta'"
        if self._connection.execute(made).fetchone() is None:
            return 0
        query = "select value from meta where name = 'version'"
        row = self._connection.execute(query).fetchone()
        # Tables without a version: somebody is making them at this moment, or was killed at it.
        return 0 if row is None else int(row[0])

    def is_older(self) -> bool:
        """Tell whether the tables must be brought up to date first."""
        return self._version < VERSION

    def rows(self, query: str, values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Give the rows.

        Raises:
            LedgerError: the file is broken at this place, or another program holds it.
        """
        try:
            return self._connection.execute(query, dict(values)).fetchall()
        except sqlite3.DatabaseError as error:
            raise unreadable(self._file, error) from error

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()
