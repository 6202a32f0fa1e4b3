"""Tables in a text, Markdown or a whole text that is CSV: their rows and cells by offsets."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TypeAlias

from paddock.engine.system.records import record

_TABLE_ROW = re.compile(r"^ {0,3}\|.*$", re.MULTILINE)
_TABLE_RULE = re.compile(r"^ {0,3}\|(?:[ \t]*:?-+:?[ \t]*\|)+[ \t]*$")
_DELIMITERS = ",;\t|"
_LEAST_ROWS = 3  # two lines with one comma each are hardly a table
# A cell of eight words is more likely a sentence. Matching only starts at words: a cell of 100,000
# letters must not take minutes.
_EIGHT_WORDS = re.compile(r"(?<!\S)(?=(\S+)(?: \S+){7})")
_LETTER = re.compile(r"[^\W\d]")
_BAR = re.compile(r"(?<!\\)\|")

Span: TypeAlias = tuple[int, int]


@record(frozen=True, slots=True)
class TextTable:
    """A table by its offsets into the text: `rows` begins with what follows the header."""

    header: Span
    """The offsets of the header; empty if there is none."""
    rows: tuple[Span, ...]


@record(frozen=True, slots=True)
class TableRow:
    span: Span
    number: int
    """From 1 in its table; 0: the line below a head of Markdown."""
    cells: tuple[Span, ...]
    """By columns, without the white space around; some are empty."""


def find_tables(text: str) -> list[TextTable]:
    rows, _ = _csv_rows(text, is_csv=False)
    if rows:
        return [TextTable(rows[0], tuple(rows[1:]))]
    return list(_markdown_tables(text))


def table_rows(text: str, *, is_csv: bool) -> Iterator[TableRow]:
    r"""Yield the rows of a text's tables; `is_csv`: it is known to be CSV, however short.

    >>> text = 'Goods;EUR\n"Nails; black";1,50'
    >>> [[text[a:b] for a, b in row.cells] for row in table_rows(text, is_csv=True)]
    [['Goods', 'EUR'], ['Nails; black', '1,50']]
    """
    rows, sign = _csv_rows(text, is_csv=is_csv)
    field = re.compile(f'"((?:[^"]|"")*)"[^{sign}]*|([^{sign}]*)') if rows else _BAR
    for number, (start, end) in enumerate(rows, 1):
        cells, at = list[Span](), start
        while at <= end and (found := field.match(text, at, end)):
            cells.append(_trimmed(text, found.span(found.lastindex or 0)))
            at = found.end() + 1
        yield TableRow((start, end), number, tuple(cells))
    for run in _bar_lines(text) if not rows else ():
        number = 0
        for at, (start, end) in enumerate(run if len(run) > 1 else ()):
            bars = [bar.end() for bar in _BAR.finditer(text, start, end)]
            is_rule = at == 1 and _TABLE_RULE.match(text[start:end]) is not None
            number += not is_rule
            spans = [_trimmed(text, (a, b - 1)) for a, b in pairwise((*bars, end + 1))]
            has_end = spans and spans[-1][0] == spans[-1][1]
            cells = [] if is_rule else spans[:-1] if has_end else spans
            yield TableRow((start, end), 0 if is_rule else number, tuple(cells))


def _trimmed(text: str, span: Span) -> Span:
    start, end = span
    cell = text[start:end].rstrip()
    return start + len(cell) - len(cell.lstrip()), start + len(cell)


def _bar_lines(text: str) -> list[list[Span]]:
    """Return lines that begin with a bar, by runs that nothing interrupts."""
    runs: list[list[Span]] = []
    for match in _TABLE_ROW.finditer(text):
        if not runs or match.start() != runs[-1][-1][1] + 1:
            runs.append([])
        runs[-1].append(match.span())
    return runs


def _markdown_tables(text: str) -> Iterator[TextTable]:
    for (begin, _), *others in _bar_lines(text):
        if others and not _TABLE_RULE.match(text[slice(*others[0])]):
            yield TextTable((begin, begin), ((begin, _), *others))
        elif others[1:]:
            yield TextTable((begin, others[0][1]), tuple(others[1:]))


def _csv_rows(text: str, *, is_csv: bool) -> tuple[list[Span], str]:
    """Return the offsets of rows with as many cells, at least two, and what separates these.

    None if it is no such CSV; of what is not known to be some, also without names of columns.
    """
    head = text.lstrip("\n").partition("\n")[0]
    for delimiter in _DELIMITERS if is_csv or not head.lstrip().startswith("|") else "":
        if delimiter in head and (rows := _rows_with(text, delimiter, is_csv=is_csv)):
            return rows, delimiter
    return [], ""


def _rows_with(text: str, delimiter: str, *, is_csv: bool) -> list[Span]:
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    starts = list(accumulate(map(len, lines), initial=0))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    spans: list[Span] = []
    width = before = 0
    try:
        for row in reader:
            after = reader.line_num
            if row and not spans and not (is_csv or _is_header(row)):
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
    return spans if is_csv or len(spans) >= _LEAST_ROWS else []


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
