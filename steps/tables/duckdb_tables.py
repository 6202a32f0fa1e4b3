"""Tables in the files of DuckDB."""

from __future__ import annotations

import errno
import tempfile
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path

import duckdb
import pyarrow as pa  # type: ignore[import-untyped]

from paddock.engine.system.text import same_in_sql, sql_name
from paddock.steps.readers.reader import Unreadable

from .arrow_rows import ArrowRows, stream_of
from .duckdb_queries import open_duckdb, with_held_types, words_of
from .row_formats import UnreadableRows
from .sqlite_tables import chosen_table

# Names no function of `main`, where a file may have a macro of each name.
_STORED = "select table_name, schema_name, sql from system.main.duckdb_tables() where not internal"


def read_duckdb(path: Path, name: str, memory_bytes: int) -> ArrowRows:
    """Read a table of a DuckDB file.

    Raises:
        Unreadable: it is none, is held by another program, or it is not clear which table is meant.
    """
    try:
        with closing(
            open_duckdb(str(path), memory_bytes=memory_bytes, read_only=True)
        ) as connection:
            tables = [
                name
                for name, schema, sql in sorted(connection.execute(_STORED).fetchall())
                if schema == "main" and "GENERATED ALWAYS AS" not in sql
            ]
            table = sql_name(chosen_table(name, tables))
            found = with_held_types(connection.sql(f"select * from {table}"))
            return ArrowRows(found.to_arrow_table())
    except duckdb.Error as error:
        if isinstance(error, duckdb.IOException):
            raise Unreadable(
                f"cannot be opened as DuckDB: {words_of(error)[0]}",
                "If another program has it open, close that, and try again.",
            ) from error
        raise Unreadable(f"cannot be read as DuckDB: {words_of(error)[0]}") from error


def duckdb_file(table: pa.Table, name: str, there: Path | None) -> bytes:
    """Return a DuckDB file with one table; the file that is there if it holds the same.

    Its bytes differ each time that it is written, so it says itself which rows it has.

    Raises:
        UnreadableRows: DuckDB cannot hold it.
    """
    if alike := same_in_sql(table.column_names):
        what = f"its columns '{alike[0]}' and '{alike[1]}' are one in DuckDB"
        raise UnreadableRows(what, "Rename one of them.")
    digest = sha256(stream_of(table)).hexdigest()
    if there is not None:
        with suppress(duckdb.Error), closing(open_duckdb(str(there), read_only=True)) as connection:
            if (digest,) in connection.execute("select comment from duckdb_tables()").fetchall():
                return there.read_bytes()
    with tempfile.TemporaryDirectory(prefix="paddock-") as folder:
        path = Path(folder) / "rows.duckdb"
        try:
            with closing(duckdb.connect(str(path))) as connection:
                connection.register("given", table)
                connection.execute(f"create table {sql_name(name)} as select * from given")
                connection.execute(f"comment on table {sql_name(name)} is '{digest}'")
        except duckdb.IOException as error:  # such as a full disk
            raise OSError(errno.EIO, words_of(error)[0]) from error
        except duckdb.Error as error:
            raise UnreadableRows(f"DuckDB refuses it: {words_of(error)[0]}") from error
        return path.read_bytes()
