"""Commit rows to PostgreSQL: again where the connection broke or two machines met. Blocks.

Psycopg alone: SQLAlchemy would add nothing to `insert … on conflict`, and a commit is what each
item waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from .postgres import RETRY_S, Server, lasting
from .postgres_tables import whole
from .writer import KEYS, Pending

MOST_ROWS = 500  # of at most 24 columns: a statement takes 65,535 values

T = TypeVar("T")


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
            for table in sorted(pending):
                _write(cursor, table, pending)


def _write(cursor: psycopg.Cursor[Any], table: str, pending: Pending) -> None:
    """Write a table's rows, many in one statement.

    Not by `executemany`: it sends a pipeline, and while the server waits for the rest of one from a
    machine that has stopped, it counts it as at work, whatever it holds, for ever.
    """
    rows = sorted(pending[table].items(), key=lambda row: tuple(map(str, row[0])))
    gone = [key for key, row in rows if row is None]
    kept = [whole(row) for _, row in rows if row is not None]
    for keys in _cut(gone):
        cursor.execute(_delete(table, len(keys)), [value for key in keys for value in key])
    # Rows of one table are given whole or with the same columns left out.
    for some in _cut(kept):
        columns = tuple(some[0])
        values = [row[name] for row in some for name in columns]
        cursor.execute(_upsert(table, columns, len(some)), values)


def _cut(rows: Sequence[T]) -> Iterator[Sequence[T]]:
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
