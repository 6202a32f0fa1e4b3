"""Hide the rows of tables from whoever cuts a text, so that each is one word to it. Pure.

A row becomes a run of one character from the private planes, as long as the row: every offset
stays, the line ends between rows stay, and a run is never cut. Which character says how many
tokens the row has.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from . import tables

_PRIVATE = ("\U000f0000", "\U000ffffd")
_MOST_SIGNS = ord(_PRIVATE[1]) - ord(_PRIVATE[0])
_HEADING = re.compile(r"(?:\A|\n)(#{1,6}[ \t][^\n]*\n\s*)\Z")
_MOST_HEADING_CHARACTERS = 300
_RUN = re.compile(f"([{_PRIVATE[0]}-{_PRIVATE[1]}])\\1*")

Ruler = Callable[[str], int]
"""Estimates a text's tokens."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A row, the first of a table with its header; `header` is what goes before a later one."""

    start: int
    end: int
    size: int
    header: str
    header_size: int
    heading: int
    """Where the heading over a table begins, for its first row; for any other its own start."""
    rest: int = 0
    """For a table's first row: how many tokens the others have."""


@dataclass(slots=True)
class Board:
    """The rows of a text's tables, in order."""

    text: str
    ruler: Ruler
    _rows: list[_Row]
    _starts: list[int]
    _bare: set[int] = field(default_factory=set)
    """Starts of rows that go without a header: with it they would be too long."""

    @classmethod
    def of(cls, text: str, ruler: Ruler) -> Board:
        """Find the tables; a text that has such characters itself has none."""
        found = [] if _RUN.search(text) else tables.find(text)
        rows: list[_Row] = []
        for table in found:
            begin, end = table.header
            header = f"{text[begin:end]}\n" if end > begin else ""
            header_size = ruler(header) if header else 0
            sizes = [ruler(text[start:stop]) for start, stop in table.rows]
            (_, stop), *others = table.rows
            first = ruler(text[begin:stop]) if header else sizes[0]
            heading = _heading_over(text, begin)
            rows.append(_Row(begin, stop, first, "", 0, heading, sum(sizes[1:])))
            rows += [
                _Row(start, stop, size, header, header_size, start)
                for (start, stop), size in zip(others, sizes[1:], strict=True)
            ]
        return cls(text, ruler, rows, [row.start for row in rows])

    def hidden(self, span: tuple[int, int], capacity: int) -> tuple[Ruler, str]:
        """Give the part with its rows hidden, those that do not fit left as they are.

        The first of the two sizes what is hidden, with the header that goes before it.
        """
        start, end = span
        signs: dict[tuple[int, int, int], str] = {}
        known: dict[str, tuple[int, int, int]] = {}
        out: list[str] = []
        at = start
        for index in range(bisect_left(self._starts, start), len(self._rows)):
            row = self._rows[index]
            if row.end > end:
                break
            if row.size > capacity:
                continue
            begin, size = self._with_heading(row, at, capacity)
            if row.header and row.size + row.header_size > capacity:
                self._bare.add(row.start)
            header_size = 0 if row.start in self._bare else row.header_size
            facts = (size, row.end - begin, header_size)
            sign = signs.get(facts)
            if sign is None:
                if len(signs) >= _MOST_SIGNS:
                    continue
                sign = signs[facts] = chr(ord(_PRIVATE[0]) + len(signs))
                known[sign] = facts
            out += [self.text[at:begin], sign * facts[1]]
            at = row.end
        out.append(self.text[at:end])
        return (self._sizer(known) if known else self.ruler), "".join(out)

    def zones(self, span: tuple[int, int], capacity: int) -> list[tuple[int, int]]:
        """Cut a span where a heading stands over a table that does not fit.

        Whoever cuts would leave such a heading alone, since the table goes to pieces.
        """
        borders = [span[0]]
        for index in range(bisect_left(self._starts, span[0]), len(self._rows)):
            row = self._rows[index]
            if row.end > span[1]:
                break
            begin, _ = self._with_heading(row, span[0], capacity)
            if row.start > begin > borders[-1]:
                borders.append(begin)
        return list(pairwise([*borders, span[1]]))

    def _with_heading(self, row: _Row, least: int, capacity: int) -> tuple[int, int]:
        """Tell where a row begins, and its size: with its table's heading if that is to stay."""
        if least <= row.heading < row.start and row.size + row.rest > capacity:
            size = row.size + self.ruler(self.text[row.heading : row.start])
            if size <= capacity:
                return row.heading, size
        return row.start, row.size

    def _sizer(self, known: dict[str, tuple[int, int, int]]) -> Ruler:
        def size(hidden: str) -> int:
            total = at = 0
            for run in _RUN.finditer(hidden):
                n, length, header = known[run[1]]
                before = hidden[at : run.start()]
                total += self.ruler(before) if before else 0
                total += n if len(run[0]) == length else -(-n * len(run[0]) // length)
                if not hidden[: run.start()].strip():
                    total += header
                at = run.end()
            return total + (self.ruler(hidden[at:]) if at < len(hidden) else 0)

        return size

    def header(self, span: tuple[int, int]) -> str:
        """Give what goes before a piece that begins with a later row; empty for any other."""
        row = self._row_at(span)
        return row.header if row is not None and row.start not in self._bare else ""

    def drop_header(self, span: tuple[int, int]) -> bool:
        """Let a piece of one row go without its header; False if it has none, or several rows."""
        row = self._row_at(span)
        if row is None or not self.header(span) or self.text[row.end : span[1]].strip():
            return False
        self._bare.add(row.start)
        return True

    def row_from(self, at: int) -> int:
        """Give the next start of a row for a place within one; any other place is itself."""
        index = bisect_right(self._starts, at) - 1
        if index < 0 or not self._rows[index].start < at < self._rows[index].end:
            return at
        return self._starts[index + 1] if index + 1 < len(self._rows) else self._rows[index].end

    def _row_at(self, span: tuple[int, int]) -> _Row | None:
        """Give the row that a piece begins with, if the whole of it is in it."""
        index = bisect_left(self._starts, span[0])
        if index == len(self._rows) or self._starts[index] != span[0]:
            return None
        return self._rows[index] if self._rows[index].end <= span[1] else None


def _heading_over(text: str, begin: int) -> int:
    """Find the heading that stands directly over a table; its own beginning if none does."""
    above = text[max(0, begin - _MOST_HEADING_CHARACTERS) : begin]
    found = _HEADING.search(above)
    return begin - len(found[1]) if found else begin
