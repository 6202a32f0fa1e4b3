"""Contract of a database in which items have rows, and the account of one on a server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from paddock.steps.base import Params

from .column_types import ColumnType

JSON = "json"
SERVERS = Path("/postgresql:")
"""Below it the ledger knows tables of servers, as if they were files."""


class PostgresAccount(Params):
    """An account of a PostgreSQL server."""

    host: str = Field(min_length=1, description="The server, or the folder of its socket.")
    port: int = Field(default=5432, ge=1, le=65_535, description="Of the server.")
    database: str = Field(min_length=1, pattern=r"^[^/]+$", description="On the server.")
    user: str = Field(min_length=1, description="Who writes.")
    password: str | None = Field(default=None, description="By a secret.")
    tls: Literal["on", "off"] = Field(
        default="on", description="`off` only where the server is on this machine."
    )


class Database(Protocol):
    """One connection, opened at its first use; a failure is a `StepError`. Methods block."""

    place: Path
    """Under which the ledger knows it: its file, or a path below `SERVERS`."""
    name: str
    """As messages name it."""
    turn: asyncio.Lock
    """Held by the task that uses the connection."""

    @property
    def mark(self) -> str:
        """The placeholder of a value in a statement."""

    @property
    def beginning(self) -> str:
        """Operator and wildcard that compare with a beginning, by an index."""

    @property
    def sql_types(self) -> Mapping[ColumnType, str]:
        """The types of new columns; of others `text`."""

    def columns(self, table: str) -> Mapping[str, ColumnType]:
        """Return the type of each column that takes values; empty: there is no such table."""

    def value(self, value: Any, kind: ColumnType) -> Any:
        """Return a value as it is bound.

        Raises:
            ValueError, TypeError, OverflowError: the column cannot hold it.
        """

    def execute(self, query: str, *rows: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Execute a statement once, or once for each row of values."""

    def undo(self) -> None:
        """Roll back an open transaction."""

    def close(self) -> None: ...
