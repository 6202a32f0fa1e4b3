"""Make the ledger's tables in PostgreSQL, and commit rows to them. Blocks.

A new schema starts with the rows of the folder's own SQLite file, so that nothing is done again.
Commits use psycopg alone, in batches of `insert … on conflict`, and are retried when the
connection broke or two transactions met.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Table, create_engine, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from . import ledger_tables
from .entries import VERSION, newer_version_error
from .postgres import OPEN_S, RETRY_S, PostgresServer, check_server, retry_broken_connection
from .writer import KEYS, Pending

COPIED_ROWS = 1000
_COPIED_TABLES = (
    "runs", "scopes", "items", "calls", "outputs", "provenance", "specs", "stored", "watched",
    "attempts", "roots",
)  # fmt: skip


def prepare_schema(
    server: PostgresServer,
    file: Path,
    migrations: Mapping[int, ledger_tables.Migration] = ledger_tables.MIGRATIONS,
    tell: Callable[[str], None] | None = None,
) -> None:
    """Make schema and tables, or bring older ones up to date; one machine at a time.

    New ones begin with what the ledger in `file` knows, where there is one.

    Raises:
        LedgerError: the server cannot be reached, is too old, or gives no rights.
    """
    retry_broken_connection(
        lambda: _prepare_locked(server, file, migrations),
        url=server.url,
        again=lambda: None,
        tell=tell,
        retry_s=OPEN_S,
    )


def _prepare_locked(
    server: PostgresServer, file: Path, migrations: Mapping[int, ledger_tables.Migration]
) -> None:
    engine = create_engine("postgresql+psycopg://", creator=server.connect, poolclass=NullPool)
    with server.connect() as raw:
        check_server(raw, server.url)
        # A lock of the whole transaction below, held by this other connection: `create schema`
        # of two machines at once would fail on one of them.
        raw.execute("select pg_advisory_lock(hashtext(%s))", [server.schema])
        found = _version(raw, server)
        if found == VERSION:
            return
        try:
            with engine.begin() as connection:
                if found is None:
                    _create(connection, server, file)
                else:
                    _migrate(connection, found, migrations)
        except DBAPIError as error:
            raise _psycopg_error(error) from error


def _psycopg_error(error: DBAPIError) -> BaseException:
    """Return psycopg's own error, whose words and number the rest of the ledger knows."""
    return error.orig if isinstance(error.orig, psycopg.Error) else error


def _version(raw: psycopg.Connection[Any], server: PostgresServer) -> int | None:
    made = raw.execute("select to_regclass(%s)", [f"{server.schema}.meta"]).fetchone()
    if made is None or made[0] is None:
        return None
    row = raw.execute("select value from meta where name = 'version'").fetchone()
    found = None if row is None else int(row[0])
    if found is not None and found > VERSION:
        raise newer_version_error(server.place, found, VERSION, " on this machine")
    return found


def _create(connection: Connection, server: PostgresServer, file: Path) -> None:
    schema = sql.Identifier(server.schema).as_string()
    connection.exec_driver_sql(f"create schema if not exists {schema}")
    ledger_tables.METADATA.create_all(connection)
    if file.exists():
        _copy_from_file(connection, file)
    connection.execute(ledger_tables.meta.insert(), {"name": "version", "value": str(VERSION)})
    connection.execute(ledger_tables.meta.insert(), {"name": "made", "value": str(time.time())})


def _copy_from_file(connection: Connection, file: Path) -> None:
    """Begin with what the folder's own file knows; it stays as it is, and is not written again."""
    engine = ledger_tables.sqlite_engine(file)
    try:
        ledger_tables.prepare_tables(engine, file)
        with engine.connect() as source:
            for name in _COPIED_TABLES:
                _copy(source, connection, ledger_tables.TABLES[name])
    finally:
        engine.dispose()


def _copy(source: Connection, target: Connection, table: Table) -> None:
    rows = source.execution_options(stream_results=True).execute(select(table)).mappings()
    for part in rows.partitions(COPIED_ROWS):
        target.execute(table.insert(), [without_nul(dict(row)) for row in part])


def without_nul(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row that PostgreSQL takes: its texts cannot hold the character NUL."""
    return {
        name: value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value
        for name, value in row.items()
    }


def _migrate(
    connection: Connection, found: int, migrations: Mapping[int, ledger_tables.Migration]
) -> None:
    """Change the tables in one transaction; a copy would need twice the room of a server."""
    for version in range(found, VERSION):
        migrations[version](connection)
    changed = ledger_tables.meta.update().where(ledger_tables.meta.c.name == "version")
    connection.execute(changed.values(value=str(VERSION)))


MOST_ROWS = 500  # of at most 24 columns: a statement takes 65,535 values

T = TypeVar("T")


class PostgresCommit:
    """Commits to a schema, over one connection of its own; belongs to the writer's thread."""

    def __init__(
        self,
        server: PostgresServer,
        tell: Callable[[str], None] | None = None,
        retry_s: float = RETRY_S,
    ) -> None:
        self._server = server
        self._tell = tell
        self._retry_s = retry_s
        self._connection: psycopg.Connection[Any] | None = None

    def __call__(self, pending: Pending) -> None:
        """Write all of it or nothing.

        Raises:
            LedgerError: the server did not come back within the bound, or refuses.
        """
        retry_broken_connection(
            lambda: self._once(pending),
            url=self._server.url,
            again=self.close,
            tell=self._tell,
            retry_s=self._retry_s,
        )

    def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _once(self, pending: Pending) -> None:
        if self._connection is None:
            self._connection = self._server.connect()
        with self._connection.transaction(), self._connection.cursor() as cursor:
            # In one order everywhere: machines that write the same rows wait for one another
            # instead of each for the other.
            for table in sorted(pending):
                _write_rows(cursor, table, pending)


def _write_rows(cursor: psycopg.Cursor[Any], table: str, pending: Pending) -> None:
    """Write a table's rows, many in one statement.

    Not by `executemany`: it sends a pipeline, and while the server waits for the rest of one from a
    machine that has stopped, it counts it as at work, whatever it holds, for ever.
    """
    rows = sorted(pending[table].items(), key=lambda row: tuple(map(str, row[0])))
    gone = [key for key, row in rows if row is None]
    kept = [without_nul(row) for _, row in rows if row is not None]
    for keys in _batches(gone):
        cursor.execute(_delete(table, len(keys)), [value for key in keys for value in key])
    # Rows of one table are given whole or with the same columns left out.
    for some in _batches(kept):
        columns = tuple(some[0])
        values = [row[name] for row in some for name in columns]
        cursor.execute(_upsert(table, columns, len(some)), values)


def _batches(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(rows), MOST_ROWS):
        yield rows[first : first + MOST_ROWS]


def _delete(table: str, n_rows: int) -> sql.Composed:
    keys = KEYS[table]
    return sql.SQL("delete from {} where ({}) in ({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, keys)),
        _placeholders(len(keys), n_rows),
    )


def _upsert(table: str, columns: tuple[str, ...], n_rows: int) -> sql.Composed:
    keys = KEYS[table]
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    changed = sql.SQL(", ").join(
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
        for name in columns
        if name not in keys
    )
    return sql.SQL("insert into {} ({}) values {} on conflict ({}) do update set {}").format(
        sql.Identifier(table),
        names,
        _placeholders(len(columns), n_rows),
        sql.SQL(", ").join(map(sql.Identifier, keys)),
        changed,
    )


def _placeholders(n_columns: int, n_rows: int) -> sql.Composable:
    row = sql.SQL("({})").format(sql.SQL(", ").join([sql.Placeholder()] * n_columns))
    return sql.SQL(", ").join([row] * n_rows)
