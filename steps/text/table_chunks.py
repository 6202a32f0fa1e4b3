"""Tables in a text that is cut: rows stay whole, and a piece that goes on begins with the header.

Rows of tables (Markdown, or a whole text that is CSV) stay whole as long as one alone is not too
long. For that the rows are masked: each becomes a run of one private-use character of the same
length, so that offsets and line ends stay and no row is cut. The character encodes how many tokens
the row has.
"""

from __future__ import annotations

import csv
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise

from paddock.engine.system.records import field, record

_TABLE_ROW = re.compile(r"^ {0,3}\|.*$", re.MULTILINE)
_TABLE_RULE = re.compile(r"^ {0,3}\|(?:[ \t]*:?-+:?[ \t]*\|)+[ \t]*$")
_DELIMITERS = ",;\t|"
_LEAST_ROWS = 3  # two lines with one comma each are hardly a table
# A cell of eight words is more likely a sentence. Matching only starts at words: a cell of 100,000
# letters must not take minutes.
_EIGHT_WORDS = re.compile(r"(?<!\S)(?=(\S+)(?: \S+){7})")
_LETTER = re.compile(r"[^\W\d]")
_PRIVATE_PLANES = ("\U000f0000", "\U000ffffd")
_MOST_MASK_SIGNS = ord(_PRIVATE_PLANES[1]) - ord(_PRIVATE_PLANES[0])
_HEADING = re.compile(r"(?:\A|\n)(#{1,6}[ \t][^\n]*\n\s*)\Z")
_MOST_HEADING_CHARACTERS = 300
_MASKED_RUN = re.compile(f"([{_PRIVATE_PLANES[0]}-{_PRIVATE_PLANES[1]}])\\1*")

TokenRuler = Callable[[str], int]


@record(frozen=True, slots=True)
class TextTable:
    """A table by its offsets into the text: `rows` begins with what follows the header."""

    header: tuple[int, int]
    """The offsets of the header; empty if there is none."""
    rows: tuple[tuple[int, int], ...]


def find_tables(text: str) -> list[TextTable]:
    head = text.lstrip("\n").partition("\n")[0]
    for delimiter in _DELIMITERS if not head.lstrip().startswith("|") else "":
        if delimiter in head and (rows := _csv_rows(text, delimiter)):
            return [TextTable(rows[0], tuple(rows[1:]))]
    return list(_markdown_tables(text))


def _markdown_tables(text: str) -> Iterator[TextTable]:
    runs: list[list[tuple[int, int]]] = []
    for match in _TABLE_ROW.finditer(text):
        if not runs or match.start() != runs[-1][-1][1] + 1:
            runs.append([])
        runs[-1].append(match.span())
    for (begin, _), *others in runs:
        if others and not _TABLE_RULE.match(text[slice(*others[0])]):
            yield TextTable((begin, begin), ((begin, _), *others))
        elif others[1:]:
            yield TextTable((begin, others[0][1]), tuple(others[1:]))


def _csv_rows(text: str, delimiter: str) -> list[tuple[int, int]]:
    """Return the offsets of rows with as many cells, at least two; none if it is no such CSV."""
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    starts = list(accumulate(map(len, lines), initial=0))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    spans: list[tuple[int, int]] = []
    width = before = 0
    try:
        for row in reader:
            after = reader.line_num
            if row and not spans and not _is_header(row):
                return []
            if row:
                width = width or len(row)
                if len(row) != width:
                    return []
                is_ended = lines[after - 1].endswith("\n")
                spans.append((starts[before], starts[after] - is_ended))
            before = after
    except csv.Error:
        return []
    return spans if len(spans) >= _LEAST_ROWS else []


def _is_header(row: Sequence[str]) -> bool:
    """Return whether these may be column names: not empty, all different, none a sentence.

    The first line of a letter with a comma is not a header.
    """
    is_named = all(cell and cell == cell.strip() for cell in row)
    return is_named and len({*row}) == len(row) > 1 and not any(map(_is_prose, row))


def _is_prose(cell: str) -> bool:
    """Return whether eight words follow each other, the first of them with a letter.

    >>> _is_prose("As agreed on 3 May we will send"), _is_prose("1 2 3 4 5 6 7 8 a")
    (True, False)
    """
    return any(_LETTER.search(found[1]) for found in _EIGHT_WORDS.finditer(cell))


@record(frozen=True, slots=True)
class _MaskedRow:
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


@record(frozen=True, slots=True)
class _RowFacts:
    """What one masking character stands for; rows with the same facts share it."""

    n_tokens: int
    n_chars: int
    n_header_tokens: int
    """Of the header that is repeated where a piece begins with the row."""


@record(frozen=True, slots=True)
class MaskedText:
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


@record(slots=True)
class TableMask:
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
        for table in [] if _MASKED_RUN.search(text) else find_tables(text):
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
