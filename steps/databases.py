"""Contract of a database in which items have rows."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from paddock.pipelines.typed_rows import ColumnType


class Database(Protocol):
    """One connection, opened at its first use; a failure is a `StepError`. Methods block."""

    place: Path
    """Under which the ledger knows it: its file, or a path below `tables.database.SERVERS`."""
    name: str
    """As messages name it."""
    account: Hashable
    """All that connects to one place have the same."""
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
