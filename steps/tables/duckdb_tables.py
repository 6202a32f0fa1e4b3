"""DuckDB: tables in its files. The one module that knows it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa  # type: ignore[import-untyped]

from paddock.engine.system.text import one_line
from paddock.steps.readers.reader import Unreadable

from .arrow_rows import stream_of
from .sqlite_tables import chosen_table, quoted

_MIB = 1024**2
_BATCH_ROWS = 100_000
_SETTINGS = (
    "enable_external_access=false",
    "autoinstall_known_extensions=false",
    "autoload_known_extensions=false",
    "allow_community_extensions=false",
    "python_enable_replacements=false",
    "errors_as_json=true",
    "timezone='UTC'",
)


def _connection(path: str = ":memory:", *, memory_bytes: int = 512 * _MIB, **options: Any) -> Any:
    config: dict[str, Any] = {
        "threads": 1,
        "memory_limit": f"{memory_bytes // _MIB}MiB",
        "temp_directory": "",
    }
    connection = duckdb.connect(path, config=config, **options)
    for setting in _SETTINGS:
        connection.execute(f"set {setting}")
    return connection


def read_duckdb(path: Path, name: str, memory_bytes: int) -> pa.Table:
    """Read a table or view of a DuckDB file.

    Raises:
        Unreadable: it is none, is held by another program, or it is not clear which table is meant.
    """
    try:
        with closing(
            _connection(str(path), memory_bytes=memory_bytes, read_only=True)
        ) as connection:
            listed = connection.execute(
                "select table_name from information_schema.tables "
                "where table_schema = 'main' order by all"
            )
            table = chosen_table(name, [str(row[0]) for row in listed.fetchall()])
            return connection.sql(f"select * from {quoted(table)}").to_arrow_table()
    except duckdb.Error as error:
        if isinstance(error, duckdb.IOException):
            raise Unreadable(
                f"cannot be opened as DuckDB: {_words(error)[0]}",
                "Close the program that has it open, and try again.",
            ) from error
        raise Unreadable(f"cannot be read as DuckDB: {_words(error)[0]}") from error


def duckdb_file(table: pa.Table, name: str, there: Path | None) -> bytes:
    """Return a DuckDB file with one table; the file that is there if it holds the same.

    Its bytes differ each time that it is written, so it says itself which rows it has.
    """
    digest = sha256(stream_of(table)).hexdigest()
    if there is not None and _comment(there) == digest:
        return there.read_bytes()
    with tempfile.TemporaryDirectory(prefix="paddock-") as folder:
        path = Path(folder) / "rows.duckdb"
        with closing(duckdb.connect(str(path))) as connection:
            connection.register("given", table)
            connection.execute(f"create table {quoted(name)} as select * from given")
            connection.execute(f"comment on table {quoted(name)} is '{digest}'")
        return path.read_bytes()


def _comment(path: Path) -> str:
    try:
        with closing(_connection(str(path), read_only=True)) as connection:
            found = connection.execute("select comment from duckdb_tables()").fetchall()
            return str(found[0][0]) if found else ""
    except duckdb.Error:
        return ""


def _words(error: Exception) -> tuple[str, Mapping[str, Any]]:
    """Return what an error says in one line, and its facts."""
    text = str(error)
    try:
        facts = json.loads(text[text.index("{") :])
        text = str(facts["exception_message"])
    except (ValueError, KeyError, TypeError):
        facts = {}
    return one_line(text.partition("\n")[0], 300).rstrip("!."), facts
