"""Commit rows to PostgreSQL: again where the connection broke or two machines met. Blocks.

Psycopg alone: SQLAlchemy would add nothing to `insert … on conflict`, and a commit is what each
item waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Table

from .postgres import RETRY_S, Server, lasting
from .postgres_tables import whole
from .writer import Pending


class PostgresCommit:
    """Commits to a schema, over one connection of its own; belongs to the writer's thread."""

    def __init__(
        self,
        server: Server,
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
        lasting(
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
            for table in sorted(pending, key=lambda table: table.name):
                _write(cursor, table, pending)


def _write(cursor: psycopg.Cursor[Any], table: Table, pending: Pending) -> None:
    rows = sorted(pending[table].items(), key=lambda row: tuple(map(str, row[0])))
    gone = [key for key, row in rows if row is None]
    kept = [whole(row) for _, row in rows if row is not None]
    if gone:
        cursor.executemany(_delete(table), gone)
    if kept:
        # Rows of one table are given whole or with the same columns left out.
        cursor.executemany(_upsert(table, tuple(kept[0])), kept)


def _delete(table: Table) -> sql.Composed:
    where = sql.SQL(" and ").join(
        sql.SQL("{} = %s").format(sql.Identifier(column.name)) for column in table.primary_key
    )
    return sql.SQL("delete from {} where {}").format(sql.Identifier(table.name), where)


def _upsert(table: Table, columns: tuple[str, ...]) -> sql.Composed:
    keys = [column.name for column in table.primary_key]
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    values = sql.SQL(", ").join(map(sql.Placeholder, columns))
    changed = sql.SQL(", ").join(
        sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name))
        for name in columns
        if name not in keys
    )
    return sql.SQL("insert into {} ({}) values ({}) on conflict ({}) do update set {}").format(
        sql.Identifier(table.name),
        names,
        values,
        sql.SQL(", ").join(map(sql.Identifier, keys)),
        changed,
    )
