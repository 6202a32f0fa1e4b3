"""Sums of rows that items have in stores and tables: whether all of them are there."""

from __future__ import annotations

from collections.abc import Iterable

from paddock.engine.system.records import Struct


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
