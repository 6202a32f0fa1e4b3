"""Find the tables in a text: rows that are never cut, headers that are said again. Pure.

A table is a Markdown one, or the whole text where it is CSV: then a row may have several lines.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

_ROW = re.compile(r"^ {0,3}\|.*$", re.MULTILINE)
_RULE = re.compile(r"^ {0,3}\|(?:[ \t]*:?-+:?[ \t]*\|)+[ \t]*$")
_DELIMITERS = ",;\t|"
_LEAST_ROWS = 3  # two lines with one comma each are hardly a table
# A cell of eight words is more likely a sentence. Each word is looked at where it begins and
# nowhere else: a cell of 100,000 letters must not take minutes.
_EIGHT_WORDS = re.compile(r"(?<!\S)(?=(\S+)(?: \S+){7})")
_LETTER = re.compile(r"[^\W\d]")


@dataclass(frozen=True, slots=True)
class Table:
    """A table by its offsets into the text: `rows` begins with what follows the header."""

    header: tuple[int, int]
    """Where the header stands, from its first character to its last; empty if there is none."""
    rows: tuple[tuple[int, int], ...]


def find(text: str) -> list[Table]:
    """Give the tables of a text, in order."""
    table = _as_csv(text)
    return [table] if table else list(_in_markdown(text))


def _in_markdown(text: str) -> Iterator[Table]:
    if "|" not in text:
        return
    run: list[tuple[int, int]] = []
    for match in _ROW.finditer(text):
        if run and match.start() != run[-1][1] + 1:
            yield from _of(text, run)
            run = []
        run.append(match.span())
    yield from _of(text, run)


def _of(text: str, run: Sequence[tuple[int, int]]) -> Iterator[Table]:
    """Make a table of consecutive rows; the one over a rule of dashes is its header."""
    if len(run) < 2:
        return
    start, end = run[1]
    has_header = bool(_RULE.match(text[start:end]))
    first = 2 if has_header else 0
    if len(run) > first:
        yield Table((run[0][0], end) if has_header else (run[0][0], run[0][0]), tuple(run[first:]))


def _as_csv(text: str) -> Table | None:
    """Take the whole text for CSV if every row has as many cells as the first, two at least."""
    head = text.lstrip("\n").partition("\n")[0]
    for delimiter in _DELIMITERS:
        if delimiter in head and not head.lstrip().startswith("|"):
            rows = _rows(text, delimiter)
            if rows:
                return Table(rows[0], tuple(rows[1:]))
    return None


def _rows(text: str, delimiter: str) -> list[tuple[int, int]]:
    """Give each row's place; none if it is no CSV with this delimiter."""
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
    """Tell whether these may be the names of columns: all there, all different, none a sentence.

    A letter's first line with a comma in it is none.
    """
    is_named = all(cell and cell == cell.strip() for cell in row)
    return is_named and len({*row}) == len(row) > 1 and not any(map(_is_prose, row))


def _is_prose(cell: str) -> bool:
    """Return whether eight words follow each other, the first of them with a letter.

    >>> _is_prose("As agreed on 3 May we will send"), _is_prose("1 2 3 4 5 6 7 8 a")
    (True, False)
    """
    return any(_LETTER.search(found[1]) for found in _EIGHT_WORDS.finditer(cell))
