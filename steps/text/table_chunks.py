"""Tables in a text that is cut: rows stay whole, and a piece that goes on begins with the header.

Rows of tables (Markdown, or a whole text that is CSV) stay whole as long as one alone is not too
long. For that the rows are masked: each becomes a run of one private-use character of the same
length, so that offsets and line ends stay and no row is cut. The character encodes how many tokens
the row has.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

from paddock.engine.system.records import Struct, field
from paddock.pipelines.text_tables import find_tables

_PRIVATE_PLANES = ("\U000f0000", "\U000ffffd")
_MOST_MASK_SIGNS = ord(_PRIVATE_PLANES[1]) - ord(_PRIVATE_PLANES[0])
_HEADING = re.compile(r"(?:\A|\n)(#{1,6}[ \t][^\n]*\n\s*)\Z")
_MOST_HEADING_CHARACTERS = 300
_MASKED_RUN = re.compile(f"([{_PRIVATE_PLANES[0]}-{_PRIVATE_PLANES[1]}])\\1*")

TokenRuler = Callable[[str], int]


class _MaskedRow(Struct, frozen=True):
    """A row; the first one includes the header; `header` is repeated before later ones."""

    start: int
    end: int
    size: int
    header: str
    header_size: int
    heading: int
    """For the first row: where the heading above the table begins; else the row's start."""
    rest: int = 0
    """For the first row: how many tokens the others have."""


class _RowFacts(Struct, frozen=True):
    """What one masking character stands for; rows with the same facts share it."""

    n_tokens: int
    n_chars: int
    n_header_tokens: int
    """Of the header that is repeated where a piece begins with the row."""


class MaskedText(Struct, frozen=True):
    """A part of a text with rows of tables masked: as long as the original."""

    text: str
    ruler: TokenRuler
    facts_by_sign: Mapping[str, _RowFacts]

    def n_tokens(self, part: str) -> int:
        """Estimate a part of `text`, with the header that is repeated before its first row."""
        if not self.facts_by_sign:
            return self.ruler(part)
        total = end = 0
        for run in _MASKED_RUN.finditer(part):
            facts = self.facts_by_sign[run[1]]
            before = part[end : run.start()]
            total += self.ruler(before) if before else 0
            total += -(-facts.n_tokens * len(run[0]) // facts.n_chars)  # of a part, its share
            if not part[: run.start()].strip():
                total += facts.n_header_tokens
            end = run.end()
        return total + (self.ruler(part[end:]) if end < len(part) else 0)


class TableMask(Struct):
    r"""A text whose table rows can be masked; the first one with its header.

    >>> table = "|a|b|\n|-|-|\n|1|2|\n|3|4|"
    >>> masked = TableMask.of(table, len).masked((0, 23), 100)
    >>> masked.text.translate({0xF0000: "A", 0xF0001: "B"})
    'AAAAAAAAAAAAAAAAA\nBBBBB'
    >>> masked.n_tokens(masked.text[18:])  # it begins with the last row, so it has the header, too
    17
    """

    text: str
    ruler: TokenRuler
    _rows: list[_MaskedRow]
    _starts: list[int]
    _bare: set[int] = field(default_factory=set)
    """Starts of rows without a repeated header, which would make them too long."""

    @classmethod
    def of(cls, text: str, ruler: TokenRuler) -> TableMask:
        """Find the tables; none in a text that has private-use characters itself."""
        rows: list[_MaskedRow] = []
        tables = [] if _MASKED_RUN.search(text) else find_tables(text)
        for table in (table for table in tables if table.rows):
            begin, end = table.header
            header = f"{text[begin:end]}\n" if end > begin else ""
            header_size = ruler(header) if header else 0
            sizes = [ruler(text[start:stop]) for start, stop in table.rows]
            (_, stop), *others = table.rows
            first = ruler(text[begin:stop]) if header else sizes[0]
            # The start of the heading directly above a table, else of the table
            above = text[max(0, begin - _MOST_HEADING_CHARACTERS) : begin]
            matches = _HEADING.search(above)
            heading = begin - len(matches[1]) if matches else begin
            rows.append(_MaskedRow(begin, stop, first, "", 0, heading, sum(sizes[1:])))
            rows += [
                _MaskedRow(start, stop, size, header, header_size, start)
                for (start, stop), size in zip(others, sizes[1:], strict=True)
            ]
        return cls(text, ruler, rows, [row.start for row in rows])

    def masked(self, span: tuple[int, int], capacity: int) -> MaskedText:
        """Mask the rows in a span that have at most `capacity` tokens."""
        signs: dict[_RowFacts, str] = {}
        parts: list[str] = []
        start, end = span
        for row in self._rows_within(span):
            if row.size > capacity:
                continue
            begin, size = self._with_heading(row, start, capacity)
            if row.header and row.size + row.header_size > capacity:
                self._bare.add(row.start)
            header_size = 0 if row.start in self._bare else row.header_size
            facts = _RowFacts(size, row.end - begin, header_size)
            if facts not in signs and len(signs) >= _MOST_MASK_SIGNS:
                continue
            sign = signs.setdefault(facts, chr(ord(_PRIVATE_PLANES[0]) + len(signs)))
            parts += [self.text[start:begin], sign * facts.n_chars]
            start = row.end
        parts.append(self.text[start:end])
        facts_by_sign = {sign: facts for facts, sign in signs.items()}
        return MaskedText("".join(parts), self.ruler, facts_by_sign)

    def zones(self, span: tuple[int, int], capacity: int) -> list[tuple[int, int]]:
        """Cut a span before a heading whose table does not fit.

        Otherwise the splitter would separate the heading from the table.
        """
        borders = [span[0]]
        for row in self._rows_within(span):
            begin, _ = self._with_heading(row, span[0], capacity)
            if row.start > begin > borders[-1]:
                borders.append(begin)
        return list(pairwise([*borders, span[1]]))

    def _rows_within(self, span: tuple[int, int]) -> Iterator[_MaskedRow]:
        for index in range(bisect_left(self._starts, span[0]), len(self._rows)):
            if self._rows[index].end > span[1]:
                return
            yield self._rows[index]

    def _with_heading(self, row: _MaskedRow, earliest: int, capacity: int) -> tuple[int, int]:
        """Return a row's start and size, with the heading of its table if that is kept."""
        if earliest <= row.heading < row.start and row.size + row.rest > capacity:
            size = row.size + self.ruler(self.text[row.heading : row.start])
            if size <= capacity:
                return row.heading, size
        return row.start, row.size

    def header(self, span: tuple[int, int]) -> str:
        """Return the header to repeat before a piece; empty if it needs none."""
        row = self._row_at(span)
        return row.header if row is not None and row.start not in self._bare else ""

    def drop_header(self, span: tuple[int, int]) -> bool:
        """Drop the repeated header of a piece of one row; return False if that is not possible."""
        row = self._row_at(span)
        if row is None or not self.header(span) or self.text[row.end : span[1]].strip():
            return False
        self._bare.add(row.start)
        return True

    def row_from(self, at: int) -> int:
        """Return the start of the next row for an offset within one, else the offset."""
        index = bisect_right(self._starts, at) - 1
        if index < 0 or not self._rows[index].start < at < self._rows[index].end:
            return at
        return self._starts[index + 1] if index + 1 < len(self._rows) else self._rows[index].end

    def _row_at(self, span: tuple[int, int]) -> _MaskedRow | None:
        """Return the row that a piece begins with, if the piece has all of it."""
        index = bisect_left(self._starts, span[0])
        if index == len(self._rows) or self._starts[index] != span[0]:
            return None
        return self._rows[index] if self._rows[index].end <= span[1] else None
