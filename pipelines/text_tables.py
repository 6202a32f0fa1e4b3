"""Tables in a text, Markdown or a whole text that is CSV: their rows and cells by offsets."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TypeAlias

from paddock.engine.system.records import Struct

_TABLE_ROW = re.compile(r"^ {0,3}\|.*$", re.MULTILINE)
_TABLE_RULE = re.compile(r"^ {0,3}\|(?:[ \t]*:?-+:?[ \t]*\|)+[ \t]*$")
_DELIMITERS = ",;\t|"
_LEAST_ROWS = 3  # two lines with one comma each are hardly a table
_LETTER = re.compile(r"[^\W\d]")
_MOST_WORDS = 7  # of a name of a column, from its first with a letter; more are a sentence
_CELL = re.compile(r"(?:\\\||[^|])*")  # of Markdown

Span: TypeAlias = tuple[int, int]


class TextTable(Struct, frozen=True):
    """A table by its offsets into the text: `rows` begins with what follows the header."""

    header: Span
    """The offsets of the header; empty if there is none."""
    rows: tuple[Span, ...]
    sign: str = ""
    """What separates the cells of a CSV; empty: it is Markdown."""


def find_tables(text: str, *, is_csv: bool = False) -> list[TextTable]:
    """Return the tables of a text, some without rows; `is_csv`: it is known to be one."""
    head = text.lstrip("\n").partition("\n")[0]
    for sign in _DELIMITERS if is_csv or not head.lstrip().startswith("|") else "":
        if sign in head and (rows := _csv_rows(text, sign, is_csv=is_csv)):
            return [TextTable(rows[0], tuple(rows[1:]), sign)]
    runs: list[list[Span]] = []
    for match in _TABLE_ROW.finditer(text):
        if not runs or match.start() != runs[-1][-1][1] + 1:
            runs.append([])
        runs[-1].append(match.span())
    tables = list[TextTable]()
    for (begin, end), *others in runs:
        if others and _TABLE_RULE.match(text[slice(*others[0])]):
            tables.append(TextTable((begin, others[0][1]), tuple(others[1:])))
        elif others:
            tables.append(TextTable((begin, begin), ((begin, end), *others)))
    return tables


def table_rows(text: str, *, is_csv: bool) -> Iterator[tuple[int, Span, list[Span]]]:
    r"""Yield the rows of tables: their numbers from 1, their lines and their cells.

    >>> text = 'Goods;EUR\n"Nails; black";1,50'
    >>> [[text[a:b] for a, b in cells] for _, _, cells in table_rows(text, is_csv=True)]
    [['Goods', 'EUR'], ['Nails; black', '1,50']]
    """
    for table in find_tables(text, is_csv=is_csv):
        begin, end = table.header
        of_csv = f'"((?:[^"]|"")*)"[^{table.sign}]*|([^{table.sign}]*)'
        cell = re.compile(of_csv) if table.sign else _CELL
        heads = [table.header] if begin < end else []
        for number, (start, stop) in enumerate((*heads, *table.rows), 1):
            is_above_rule = number == 1 and heads and not table.sign
            line = text.index("\n", start) if is_above_rule else stop
            at, cells = start if table.sign else text.index("|", start) + 1, list[Span]()
            has_masked = ('"' if table.sign else "\\|") in text[at:line]
            for part in () if has_masked else text[at:line].split(table.sign or "|"):
                kept = part.rstrip()
                cells.append((at + len(kept) - len(kept.lstrip()), at + len(kept)))
                at += len(part) + 1
            while has_masked and at <= line and (found := cell.match(text, at, line)):
                first, last = found.span(found.lastindex or 0)
                kept = text[first:last].rstrip()
                cells.append((first + len(kept) - len(kept.lstrip()), first + len(kept)))
                at = found.end() + 1
            yield number, (start, stop), cells


def _csv_rows(text: str, delimiter: str, *, is_csv: bool) -> list[Span]:
    """Return the offsets of rows with as many cells, at least two; none if it is no such CSV."""
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
    words = (word for cell in row for word in cell.split()[:-_MOST_WORDS])
    return is_named and len({*row}) == len(row) > 1 and not any(map(_LETTER.search, words))
