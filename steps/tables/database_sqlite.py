"""A SQLite file for rows, which is there."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from paddock.engine.system.text import cell_text, one_line, shell_command, sql_name
from paddock.steps.base import StepError
from paddock.steps.databases import Database
from paddock.steps.paths import printable

from .column_types import ColumnType, declared_type, plain_decimal

_BUSY_S = 10.0


class SqliteFile(Database):
    mark, beginning = "?", "glob *"
    sql_types: Mapping[ColumnType, str] = {
        "int": "integer", "float": "real", "bool": "boolean", "date": "date", "time": "time",
        "datetime": "datetime", "decimal": "decimal(18,2)",
    }  # fmt: skip

    def __init__(self, path: Path) -> None:
        self.place, self.name, self.turn = path, f"'{printable(path.name)}'", asyncio.Lock()
        self.account = None
        self._open: sqlite3.Connection | None = None

    def columns(self, table: str) -> Mapping[str, ColumnType]:
        found = self.execute(f"pragma table_xinfo({sql_name(table.removeprefix('main.'))})")
        return {str(row[1]): declared_type(str(row[2])) for row in found if not row[6]}

    def value(self, value: Any, kind: ColumnType) -> Any:
        is_rounded = isinstance(value, int) and not -(2**63) <= value < 2**63
        if isinstance(value, Decimal):
            is_rounded = isinstance(value := plain_decimal(value), str)
        if is_rounded:
            raise ValueError(value)
        if isinstance(value, date | time):
            return value.isoformat()
        return cell_text(value) if isinstance(value, list | dict) else value

    def execute(self, query: str, *rows: Sequence[Any]) -> Sequence[Sequence[Any]]:
        with self._errors():
            connection = self._connection()
            made = connection.executemany(query, rows) if rows else connection.execute(query)
            return made.fetchall()

    def undo(self) -> None:
        if self._open is not None and self._open.in_transaction:
            self._open.rollback()

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            uri = f"{self.place.as_uri()}?mode=rw"  # it is there, and never made here
            options: dict[str, Any] = {"timeout": _BUSY_S, "isolation_level": None}
            self._open = sqlite3.connect(uri, uri=True, check_same_thread=False, **options)
            self._open.execute("pragma trusted_schema=off")
        return self._open

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            what, remedy = f"refuses: {one_line(str(error))}", ""
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_CANTOPEN and not self.place.exists():
                what, remedy = (
                    "is not there",
                    f"Make it: `{shell_command('sqlite3', self.place.name)}`.",
                )
            elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                what, remedy = "is being written by another program", "The next run tries again."
            raise StepError(f"{self.name} {what}.", remedy=remedy, kind="io") from error
        except (UnicodeError, OverflowError) as error:
            raise StepError(f"{self.name} cannot hold a value: {error}.") from error
