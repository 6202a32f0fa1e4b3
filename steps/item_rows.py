"""Rows that items have in stores and tables: their sums, and the contract of what holds them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from paddock.engine.system.records import Struct
from paddock.steps.base import ItemName


class RowSum(Struct, frozen=True):
    """An order-independent sum of rows: XOR of their digests, and their number."""

    prints: int = 0
    n_rows: int = 0

    def __add__(self, other: RowSum) -> RowSum:
        return RowSum(self.prints ^ other.prints, self.n_rows + other.n_rows)

    @property
    def text(self) -> str:
        """Return it as text; empty for no rows."""
        return f"{self.n_rows}:{self.prints:032x}" if self.n_rows else ""

    @classmethod
    def read(cls, text: str) -> RowSum:
        """Parse a result of `text`.

        Raises:
            ValueError: it is something else.
        """
        if not text:
            return cls()
        n_rows, _, prints = text.partition(":")
        return cls(int(prints, 16), int(n_rows))

    @classmethod
    def of(cls, prints: Iterable[str]) -> RowSum:
        return sum((cls(int(digest, 16), 1) for digest in prints), cls())


class ItemRows(Protocol):
    """Rows of items, by the paths of what holds them: vector stores, or tables of databases."""

    async def probe(self, path: Path) -> None:
        """Read what is there, for `holds`; what cannot be read is no error here."""

    def holds(self, path: Path, owner: str) -> RowSum: ...

    def owner(self, item: ItemName, path: Path) -> str:
        """Return what identifies an item there."""

    async def keep_only(self, path: Path, item: ItemName) -> None:
        """Drop rows of an item's steps that no longer write there."""

    async def remove_items(self, path: Path, items: Iterable[ItemName]) -> int:
        """Drop all rows of items; return their number."""
