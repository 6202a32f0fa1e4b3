"""Rows to text and text to rows: CSV, TSV, JSONL, JSON. Pure."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO
from typing import Any

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json"}
"""What is written, by the end of the file's name."""

_MOST_ROWS = 1_000_000
_MOST_PARTS = 2_000_000  # objects and lists of JSON, which take 64 to 232 bytes each
_DELIMITERS = (",", ";", "\t", "|")
_SAMPLE_ROWS = 50
_HALF, _HALF_ESCAPED = re.compile("[\ud800-\udfff]"), re.compile(r"\\u[dD][89a-fA-F]")
_EXCEL_HINT = re.compile(r"\Asep=(.)\n")
# A spreadsheet takes such a cell for a formula; a number or a telephone number is none.
_FORMULA = re.compile(r"\A(?:[=@\t\r]|[+-](?![\d\s().,/%+-]*\Z))")


class NoRows(ValueError):
    """A text that is no table; the message says where and follows the file's name."""

    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Table:
    """Rows by the names of their columns."""

    rows: list[dict[str, Any]]
    columns: list[str]


@dataclass(frozen=True, slots=True)
class Written:
    """A text, and how many cells have a mark so that no spreadsheet computes them."""

    text: str
    n_guarded: int = 0


def read(text: str, format_: str, columns: Sequence[str] | None, has_header: bool = True) -> Table:
    """Read rows; `columns` picks and orders them, or names them where there is no header.

    Raises:
        NoRows: with the line.
    """
    if format_ in ("csv", "tsv"):
        return _from_csv(text, "\t" if format_ == "tsv" else "", columns, has_header)
    found = list(_objects(text) if format_ == "jsonl" else _list(text))
    names = list(dict.fromkeys(name for row in found for name in row))
    return _picked(found, names, columns)


def write(rows: Sequence[Any], format_: str) -> Written:
    """Write rows; those that are null are left out.

    Raises:
        NoRows: a row is no mapping.
    """
    kept = [row for row in rows if row is not None]
    for index, row in enumerate(kept):
        if not isinstance(row, Mapping):
            what = type(row).__name__
            raise NoRows(f"row {index + 1} is a {what}, and rows must be mappings of names")
    if format_ == "json":
        return Written(json.dumps(kept, ensure_ascii=False, indent=2) + "\n")
    if format_ == "jsonl":
        return Written("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
    return _to_csv(kept, "\t" if format_ == "tsv" else ",")


def _from_csv(text: str, delimiter: str, columns: Sequence[str] | None, has_header: bool) -> Table:
    hint = _EXCEL_HINT.match(text)
    n_before = 0
    if hint and not delimiter:
        delimiter, text, n_before = hint[1], text[hint.end() :], 1
    n_most = _MOST_ROWS + has_header
    lines = list(_cells(text, delimiter or _delimiter(text), n_before, n_most))
    if not lines:
        raise NoRows("is empty: it has no row")
    if has_header:
        names, body, wanted = _header(lines[0][1]), lines[1:], columns
    else:
        names, body, wanted = list(columns or ()), lines, None
        names = names or [f"column_{n}" for n in range(1, len(lines[0][1]) + 1)]
    return _picked(list(_named(names, body, max(len(text), _MOST_ROWS))), names, wanted)


def _cells(
    text: str, delimiter: str, n_before: int, n_most: int
) -> Iterator[tuple[int, list[str]]]:
    """Give each row that is not blank, with the line on which it begins."""
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begins = 1 + n_before
    n = 0
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            why = str(error)
            if "field larger" in why:
                why = "a cell has more than 131,072 characters"
            elif "unexpected end" in why:
                why = "a quote is opened here and never closed"
            raise NoRows(f"cannot be read as CSV: line {begins}: {why}") from error
        if row is None:
            return
        if row and not (len(row) == 1 and not row[0].strip()):
            n += 1
            if n > n_most:
                raise _too_many()
            yield begins, row
        begins = reader.line_num + 1 + n_before


def _too_many() -> NoRows:
    return NoRows(f"has more than {_MOST_ROWS:,} rows, which are not read at once")


def _delimiter(text: str) -> str:
    """Find what separates cells: what gives the first rows as many cells each, and most of them."""
    head = "\n".join(text.split("\n", _SAMPLE_ROWS)[:_SAMPLE_ROWS])

    def rank(delimiter: str) -> tuple[float, int]:
        reader = csv.reader(StringIO(head, newline=""), delimiter=delimiter)
        try:
            widths = [len(row) for row in reader if row]
        except csv.Error:
            return (0.0, 0)
        if not widths or widths[0] < 2:
            return (0.0, 0)
        return (sum(width == widths[0] for width in widths) / len(widths), widths[0])

    best = max(_DELIMITERS, key=rank)
    return best if rank(best)[1] else ","


def _header(cells: Sequence[str]) -> list[str]:
    names = [cell.strip() or f"column_{n}" for n, cell in enumerate(cells, 1)]
    twice = next((name for name, n in Counter(names).items() if n > 1), None)
    if twice is not None:
        raise NoRows(
            f"names column '{twice}' twice in its first row",
            "Rename one, or set `header: false` and name them under `columns`.",
        )
    return names


def _named(
    names: Sequence[str], body: Sequence[tuple[int, list[str]]], most_cells: int
) -> Iterator[dict[str, Any]]:
    """Yield rows by name, short ones filled up: to no more cells than such a text could hold."""
    if len(names) * len(body) > most_cells:
        n = len(names) * len(body)
        what = f"has {len(body):,} rows of {len(names):,} columns, most of them empty"
        raise NoRows(f"{what}: {n:,} cells", "Name the columns that are there.")
    for line, cells in body:
        if len(cells) > len(names):
            remedy = "Quote the cells that have the delimiter in them."
            n = len(names)
            what = f"line {line} has {len(cells)} cells, and there are {n} columns"
            raise NoRows(what, remedy)
        yield dict(zip(names, [*cells, *[""] * (len(names) - len(cells))], strict=True))


def _objects(text: str) -> Iterator[dict[str, Any]]:
    n = 0
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        n += 1
        if n > _MOST_ROWS:
            raise _too_many()
        try:
            row = _value(line)
        except json.JSONDecodeError as error:
            why = f"line {number}, column {error.colno}: {error.msg}"
            raise NoRows(f"is no valid JSONL: {why}") from error
        except (ValueError, RecursionError) as error:
            raise NoRows(f"is no valid JSONL: line {number}: {_why_not(error)}") from error
        if not isinstance(row, dict):
            raise NoRows(f"has no row on line {number}: it must be an object `{{…}}`")
        yield row


def _list(text: str) -> Iterator[dict[str, Any]]:
    try:
        rows = _value(text)
    except json.JSONDecodeError as error:
        why = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise NoRows(f"is no valid JSON: {why}") from error
    except (ValueError, RecursionError) as error:
        raise NoRows(f"is no valid JSON: {_why_not(error)}") from error
    if not isinstance(rows, list):
        raise NoRows("holds no list of rows", "Read a JSON file of another form with `files.read`.")
    if len(rows) > _MOST_ROWS:
        raise _too_many()
    for index, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise NoRows(f"holds a list whose element {index} is no object `{{…}}`")
        yield row


class _Impossible(ValueError):
    """What JSON cannot have, or has far too much of."""


def _value(text: str) -> Any:
    """Read a value of JSON; half a character, which no text can have, becomes U+FFFD."""
    if len(text) > _MOST_PARTS and text.count("{") + text.count("[") > _MOST_PARTS:
        raise _Impossible(f"it has more than {_MOST_PARTS:,} objects and lists")
    value = json.loads(text, parse_constant=_constant, parse_float=_float)
    if not _HALF_ESCAPED.search(text):
        return value
    return json.loads(_HALF.sub("\ufffd", json.dumps(value, ensure_ascii=False)))


def _constant(word: str) -> float:
    raise _Impossible(f"{word} is no number of JSON")


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _Impossible(f"the number {digits[:20]} is too large")
    return value


def _why_not(error: ValueError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return str(error) if isinstance(error, _Impossible) else "a number has thousands of digits"


def _picked(found: list[dict[str, Any]], names: list[str], columns: Sequence[str] | None) -> Table:
    """Give the wanted columns; what a row of JSON lacks is null."""
    if columns is None:
        return Table(found, names)
    for column in columns:
        if names and column not in names:
            near = get_close_matches(column, names, 1)
            hint = f"Did you mean '{near[0]}'? " if near else ""
            known = ", ".join(f"'{name}'" for name in names[:20])
            raise NoRows(f"has no column '{column}'", f"{hint}Known: {known}.")
    return Table([{name: row.get(name) for name in columns} for row in found], list(columns))


def _to_csv(rows: Sequence[Mapping[str, Any]], delimiter: str) -> Written:
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    n_guarded = 0
    if names:
        writer.writerow([_guarded(name) for name in names])
    for row in rows if names else ():
        cells = [_guarded(row.get(name)) for name in names]
        n_guarded += sum(_is_formula(row.get(name)) for name in names)
        writer.writerow(cells)
    return Written(out.getvalue(), n_guarded)


def _is_formula(value: Any) -> bool:
    return isinstance(value, str) and _FORMULA.match(value) is not None


def _guarded(value: Any) -> str:
    """Write a cell so that no spreadsheet computes it: what comes from a document may be anything.

    >>> _guarded("=HYPERLINK(A1)"), _guarded("-5,5 %"), _guarded(-5)
    ("'=HYPERLINK(A1)", '-5,5 %', '-5')
    """
    return f"'{value}" if _is_formula(value) else _cell(value)


def _cell(value: Any) -> str:
    """Write a value: nothing for null, JSON for what has parts.

    >>> _cell(None), _cell(True), _cell(1.5), _cell(["a"]), _cell("x")
    ('', 'true', '1.5', '["a"]', 'x')
    """
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
