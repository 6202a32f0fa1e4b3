"""The ledger's tables in PostgreSQL: made once for a folder, brought up to date, and begun right.

New ones begin with what the folder's own file knows, so that nothing is done again. Knows
SQLAlchemy Core and the tables of `tables`; connections and words come from `postgres`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Table, create_engine, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from . import tables
from .entries import too_new
from .postgres import OPEN_S, Server, check_server, lasting
from .reader import VERSION

ADOPTED_ROWS = 1000
_ADOPTED = (
    "runs", "scopes", "items", "calls", "outputs", "provenance", "specs", "stored", "watched",
    "attempts", "roots",
)  # fmt: skip


def prepare(
    server: Server,
    file: Path,
    migrations: Mapping[int, tables.Migration] = tables.MIGRATIONS,
    tell: Callable[[str], None] | None = None,
) -> None:
    """Make schema and tables, or bring older ones up to date; one machine at a time.

    New ones begin with what the ledger in `file` knows, where there is one.

    Raises:
        LedgerError: the server cannot be reached, is too old, or gives no rights.
    """
    lasting(
        lambda: _prepared(server, file, migrations),
        url=server.url,
        again=lambda: None,
        tell=tell,
        retry_s=OPEN_S,
    )


def _prepared(server: Server, file: Path, migrations: Mapping[int, tables.Migration]) -> None:
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
            raise _cause(error) from error


def _cause(error: DBAPIError) -> BaseException:
    """Give psycopg's own error, whose words and number the rest of the ledger knows."""
    return error.orig if isinstance(error.orig, psycopg.Error) else error


def _version(raw: psycopg.Connection[Any], server: Server) -> int | None:
    made = raw.execute("select to_regclass(%s)", [f"{server.schema}.meta"]).fetchone()
    if made is None or made[0] is None:
        return None
    row = raw.execute("select value from meta where name = 'version'").fetchone()
    found = None if row is None else int(row[0])
    if found is not None and found > VERSION:
        raise too_new(server.place, found, VERSION, " on this machine")
    return found


def _create(connection: Connection, server: Server, file: Path) -> None:
    schema = sql.Identifier(server.schema).as_string()
    connection.exec_driver_sql(f"create schema if not exists {schema}")
    tables.METADATA.create_all(connection)
    if file.exists():
        _adopt(connection, file)
    connection.execute(tables.meta.insert(), {"name": "version", "value": str(VERSION)})
    connection.execute(tables.meta.insert(), {"name": "made", "value": str(time.time())})


def _adopt(connection: Connection, file: Path) -> None:
    """Begin with what the folder's own file knows; it stays as it is, and is not written again."""
    engine = tables.connect(file)
    try:
        tables.prepare(engine, file)
        with engine.connect() as source:
            for name in _ADOPTED:
                _copy(source, connection, tables.TABLES[name])
    finally:
        engine.dispose()


def _copy(source: Connection, target: Connection, table: Table) -> None:
    rows = source.execution_options(stream_results=True).execute(select(table)).mappings()
    for part in rows.partitions(ADOPTED_ROWS):
        target.execute(table.insert(), [whole(dict(row)) for row in part])


def whole(row: Mapping[str, Any]) -> dict[str, Any]:
    """Give a row that PostgreSQL takes: its texts cannot hold the character NUL."""
    return {
        name: value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value
        for name, value in row.items()
    }


def _migrate(
    connection: Connection, found: int, migrations: Mapping[int, tables.Migration]
) -> None:
    """Change the tables in one transaction; a copy would need twice the room of a server."""
    for version in range(found, VERSION):
        migrations[version](connection)
    changed = tables.meta.update().where(tables.meta.c.name == "version")
    connection.execute(changed.values(value=str(VERSION)))
