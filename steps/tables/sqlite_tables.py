"""Tables in SQLite files: one is read, or is all that a new file holds.

A file is opened for reading alone; what another program writes meanwhile is not seen in part.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from paddock.engine.system.text import cell_text, one_line, sql_name
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.readers.reader import Unreadable

from .arrow_rows import ArrowRows, to_arrow
from .column_types import MOST_DIGITS, ColumnType, decimal_text, declared_type, plain_value
from .row_formats import UnreadableRows

_BUSY_S = 5.0
_MOST_NAMED = 8
_STORED_ALONE = "Of a view, and of computed columns in DuckDB, make a table: `create table x as …`."
_SQLITE_TYPES = {
    "int": "INTEGER", "float": "REAL", "bool": "BOOLEAN", "date": "DATE", "time": "TIME",
    "datetime": "DATETIME",
}  # fmt: skip


def chosen_table(name: str, known: Sequence[str]) -> str:
    """Return the table that a name means, or the only one.

    Raises:
        Unreadable: it is not clear which one.
    """
    if not known:
        raise Unreadable("has no table", _STORED_ALONE)
    if not name and len(known) > 1:
        shown = ", ".join(f"'{table}'" for table in known[:_MOST_NAMED])
        remedy = f"Name one of them: `table: {known[0]}`."
        raise Unreadable(f"has {len(known)} tables: {shown}", remedy)
    name = name or known[0]
    found = next((table for table in known if table.casefold() == name.casefold()), None)
    if found is None:
        remedy = f"{_STORED_ALONE} {did_you_mean(name, known)}"
        raise Unreadable(f"has no table '{one_line(name, 60)}'", remedy)
    return found


def read_sqlite(path: Path, name: str) -> tuple[ArrowRows, list[str]]:
    """Read a table of a SQLite file; return its rows with notes.

    Raises:
        Unreadable: it is none, is busy, or it is not clear which table is meant.
    """

    def plain(value: Any) -> Any:
        return value if isinstance(value, float) else plain_value(value)  # infinite ones are told

    try:
        uri = f"{path.as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S)) as connection:
            connection.text_factory = lambda data: data.decode("utf-8", "replace")
            connection.execute("pragma trusted_schema=off")
            listed = connection.execute(
                "select name from sqlite_master where type = 'table' "
                "and name not like 'sqlite\\_%' escape '\\' order by name"
            )
            table = chosen_table(name, [str(row[0]) for row in listed])
            columns = connection.execute(f"pragma table_xinfo({sql_name(table)})").fetchall()
            types: dict[str, ColumnType] = {}  # by their declarations; empty: the values tell
            for _, column, declared, *_, hidden in columns:
                if hidden == 1:  # of a virtual table; others are generated
                    continue
                types[str(column)] = declared_type(str(declared))
            rows = [
                {
                    name: bool(value) if kind == "bool" and value in (0, 1) else plain(value)
                    for (name, kind), value in zip(types.items(), row, strict=True)
                }
                for row in connection.execute(f"select * from {sql_name(table)}")
            ]
    except sqlite3.Error as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            what = "is being written by another program"
            raise Unreadable(what, "Try again when it has finished.") from error
        raise Unreadable(f"cannot be read as SQLite: {error}") from error
    made, notes = to_arrow(TypedRows(rows, types), {}, list(types))
    return ArrowRows(made), [f": {note}" for note in notes]


def _is_rounded(column: pa.ChunkedArray) -> bool:
    """Return whether SQLite would round a number of a column: it has doubles and 64 bits."""
    if not (pa.types.is_uint64(column.type) or pa.types.is_decimal(column.type)):
        return False
    plain = (plain_value(value) for value in column.to_pylist() if value is not None)
    return any(isinstance(value, str) or abs(value) >= 2**63 for value in plain)


def sqlite_file(table: pa.Table, name: str) -> bytes:
    """Return a SQLite file with one table; the same table gives the same bytes.

    Raises:
        UnreadableRows: SQLite cannot hold it.
    """
    columns, places_of = list[str](), dict[str, int]()
    for field, kind in zip(table.schema, ArrowRows(table).types.values(), strict=True):
        kind = "float" if pa.types.is_duration(field.type) else kind  # seconds
        declared = _SQLITE_TYPES.get(kind) or (kind.upper() if "(" in kind else "TEXT")
        if _is_rounded(table[field.name]):  # a name with TEXT in it keeps texts as they are
            places_of[field.name] = scale = max(getattr(field.type, "scale", 0), 0)
            declared = f"DECIMALTEXT({MOST_DIGITS},{scale})"
        columns.append(f"{sql_name(field.name)} {declared}")

    def values_of(row: Mapping[str, Any]) -> Iterator[Any]:
        for name, value in row.items():
            if value is not None and name in places_of:
                yield decimal_text(value, places_of[name])
            else:
                yield cell_text(value) if isinstance(value, list | dict) else value

    try:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.execute(f"create table {sql_name(name)} ({', '.join(columns)})")
            insert = f"insert into {sql_name(name)} values ({', '.join('?' * len(columns))})"
            connection.executemany(insert, (tuple(values_of(row)) for row in ArrowRows(table)))
            connection.commit()
            return connection.serialize()
    except sqlite3.Error as error:  # too many columns, a name that it keeps for itself
        raise UnreadableRows(f"SQLite refuses it: {error}") from error
