"""Rows of Excel workbooks with the types of their cells: of a sheet, a table, or a range of cells.

A sheet may have titles above its table and heads that span columns; where it has several tables,
none is chosen by itself. Formulas count by the value that the file keeps; macros are never run.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa  # type: ignore[import-untyped]
from openpyxl.utils import get_column_letter, range_boundaries  # type: ignore[import-untyped]

from paddock.engine.system.records import record
from paddock.engine.system.text import cell_text, one_line
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.readers.office import import_library, number_text, open_archive
from paddock.steps.readers.office_archives import load_archive
from paddock.steps.readers.reader import Unreadable
from paddock.steps.readers.spreadsheets import part_tree, related_parts

from .arrow_rows import ArrowRows, to_arrow
from .column_types import ColumnType, iso_date, plain_value
from .row_formats import own_names

_WORKBOOK = "a workbook"
_STREAMED = ("xl/worksheets/", "xl/sharedStrings")
_MOST_ROWS, _MOST_CELLS = 1_048_576, 20_000_000
_CHECK_EACH_ROWS = 500
_READ_BYTES, _TAG_BYTES = 1024 * 1024, 4096
_MOST_NAMED = 5
_MOST_DIGITS = 1e15  # spreadsheet programs keep 15 digits of a number
_SHEET_TAG = re.compile(
    rb"<(?:\w+:)?mergeCell\b[^<>]*?\sref=[\"']([A-Z]+\d+:[A-Z]+\d+)[\"']"
    # A formula without a value
    rb"|(?:</(?:\w+:)?f>|<(?:\w+:)?f\b[^<>]*/>)(?:<(?:\w+:)?v>\s*</(?:\w+:)?v>|<(?:\w+:)?v\s*/>)?"
    rb"(</(?:\w+:)?c>)"
)
_RANGE = re.compile(r"(?:(?:'((?:[^']|'')+)'|([^'!]+))!)?(\$?[A-Z]{1,3}\$?\d+:\$?[A-Z]{1,3}\$?\d+)")
_FIXED_PLACES = re.compile(r"[^0#%E]*[#,0]*0(?:\.(0+))?[^0#%E.]*")
_QUOTED = re.compile(r'"[^"]*"|\\.|\[[^]]*\]')
Cell = tuple[Any, str]
"""A value, and the number format of a number with a fraction."""


class _Range(NamedTuple):
    """Cells of a sheet, from 1, both ends included."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def of(cls, text: str) -> _Range:
        return cls(*range_boundaries(text.replace("$", "")))

    def __str__(self) -> str:
        left, right = get_column_letter(self.left), get_column_letter(self.right)
        return f"{left}{self.top}:{right}{self.bottom}"


class _FoundTable(NamedTuple):
    """Cells that are a table, with its name in the workbook; of some the number of heads."""

    sheet: str
    name: str
    cells: _Range
    n_heads: int = -1
    n_totals: int = 0


@record
class _SheetCells:
    """What a sheet holds, by row and column from 0."""

    title: str
    rows: list[list[Cell]]
    merged: list[_Range]
    n_bare: int = 0
    n_errors: int = 0
    n_rounded: int = 0

    def at(self, row: int, column: int) -> Any:
        """Return the value of a cell, from 1; None: it is empty."""
        cells = self.rows[row - 1] if row <= len(self.rows) else ()
        return cells[column - 1][0] if column <= len(cells) else None


def read_workbook(
    file: BinaryIO, name: str, header: bool | int, check: Callable[[], None]
) -> tuple[ArrowRows, list[str]]:
    """Read a table of a workbook, with notes; `name` is a sheet's, a table's, or a range of cells.

    `header`: how many rows name the columns; True finds it out.

    Raises:
        Unreadable: it is no workbook, or it is not clear which table is meant.
    """
    openpyxl = import_library("openpyxl", _WORKBOOK, "tables")
    archive = open_archive(file, _WORKBOOK, _STREAMED)

    def load(file: BinaryIO) -> Any:
        return openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)

    with (
        warnings.catch_warnings(action="ignore"),
        load_archive(load, file, archive, _STREAMED) as (book, read, damage),
        zipfile.ZipFile(read) as parts,
    ):
        notes = list(damage)
        if any(part.endswith("vbaProject.bin") for part in archive.namelist()):
            notes.append("has macros, which are neither read nor run")
        listed = [table for sheet in book.worksheets for table in _listed_tables(parts, sheet)]
        sheet, found = _chosen(book, name, listed)
        cells = _read_sheet(parts, sheet, check)
        if found is None:
            found = _only_table(cells, listed, notes)
            shown = [s.title for s in book.worksheets if s.sheet_state == "visible" and s != sheet]
            if others := [title for title in shown if _has_cells(book[title])] * (not name):
                names = ", ".join(f"'{title}'" for title in others[:_MOST_NAMED])
                notes.append(f": of its sheets only '{sheet.title}' is read, not {names}")
        return ArrowRows(_table(cells, found, header, notes)), notes


def _has_cells(sheet: Any) -> bool:
    sheet.reset_dimensions()
    rows = sheet.iter_rows(max_row=50, values_only=True)
    return any(value is not None for row in rows for value in row)


def _listed_tables(parts: zipfile.ZipFile, sheet: Any) -> Iterator[_FoundTable]:
    for kind, path in related_parts(parts, sheet._worksheet_path):
        if kind == "table":
            facts = part_tree(parts, path).attrib
            counts = (
                int(facts.get(f"{of}RowCount", n)) for of, n in (("header", 1), ("totals", 0))
            )
            name = facts.get("displayName") or facts.get("name") or ""
            yield _FoundTable(sheet.title, name, _Range.of(facts["ref"]), *counts)


def _chosen(book: Any, name: str, listed: Sequence[_FoundTable]) -> tuple[Any, _FoundTable | None]:
    """Return the sheet that a name means, and the table; None: what stands in the sheet."""
    sheets = {sheet.title.casefold(): sheet for sheet in book.worksheets}
    if not sheets:
        raise Unreadable("has no sheet of cells")
    if not name:
        shown = (sheet for sheet in book.worksheets if sheet.sheet_state == "visible")
        return next(filter(_has_cells, shown), book.worksheets[0]), None
    for table in listed:
        if table.name.casefold() == name.casefold():
            return sheets[table.sheet.casefold()], table
    if (sheet := sheets.get(name.casefold())) is not None:
        return sheet, None
    defined = {key.casefold(): str(place.attr_text) for key, place in book.defined_names.items()}
    if found := _RANGE.fullmatch(defined.get(name.casefold(), name)):
        title = (found[1] or "").replace("''", "'") or found[2] or book.worksheets[0].title
        if (sheet := sheets.get(title.casefold())) is not None:
            return sheet, _FoundTable(sheet.title, name, _Range.of(found[3]))
        name = title
    known = [*(sheet.title for sheet in book.worksheets), *(table.name for table in listed)]
    raise Unreadable(f"has no sheet or table '{one_line(name, 60)}'", did_you_mean(name, known))


def _read_sheet(parts: zipfile.ZipFile, sheet: Any, check: Callable[[], None]) -> _SheetCells:
    found, rest, n_cells = _SheetCells(sheet.title, [], []), b"", 0
    with parts.open(sheet._worksheet_path.lstrip("/")) as part:
        while data := part.read(_READ_BYTES):
            check()
            piece, end = rest + data, 0
            for tag in _SHEET_TAG.finditer(piece):
                found.n_bare += tag[2] is not None
                if tag[1]:
                    found.merged.append(_Range.of(tag[1].decode()))
                end = tag.end()
            rest = piece[max(end, len(piece) - _TAG_BYTES) :]
    found.merged = [*dict.fromkeys(found.merged)]
    sheet.reset_dimensions()  # some say A1, some a million rows
    for index, cells in enumerate(sheet.iter_rows(max_row=_MOST_ROWS)):
        if index % _CHECK_EACH_ROWS == 0:
            check()
        row: list[Cell] = []
        for cell in cells:
            value, shown_as = cell.value, ""
            if isinstance(value, float):
                found.n_rounded += abs(value) >= _MOST_DIGITS
                shown_as = cell.number_format
            elif value is not None and cell.data_type == "e":
                value = None
                found.n_errors += 1
            elif isinstance(value, str) and not value.strip():
                value = None
            row.append((value, shown_as))
        while row and row[-1][0] is None:
            row.pop()
        n_cells += len(row)
        if n_cells > _MOST_CELLS:
            raise Unreadable(f"has more than {_MOST_CELLS:,} cells, which is the maximum")
        found.rows.append(row)
    return found


# --- which cells are the table


def _only_table(sheet: _SheetCells, listed: Sequence[_FoundTable], notes: list[str]) -> _FoundTable:
    """Return the one table of a sheet.

    Raises:
        Unreadable: there is none, or there are several.
    """
    named = [table for table in listed if table.sheet == sheet.title]
    found = named or [_FoundTable(sheet.title, "", cells) for cells in _blocks(sheet)]
    if not found:
        raise Unreadable(f"has no rows in its sheet '{sheet.title}'")
    cells = found[0].cells
    if len(found) > 1:
        shown = ", ".join(f"'{t.name}' ({t.cells})" if t.name else str(t.cells) for t in found)
        raise Unreadable(
            f"has {len(found)} tables in its sheet '{sheet.title}': {shown}",
            f'Name one of them: `table: "{found[0].name or f"{sheet.title}!{cells}"}"`.',
        )
    rows, columns = range(cells.top, cells.bottom + 1), range(cells.left, cells.right + 1)
    beside = [
        f"'{one_line(str(value), 40)}'"
        for row, line in enumerate(sheet.rows, 1)
        for column, (value, _) in enumerate(line, 1)
        if value is not None and not (row in rows and column in columns)
    ]
    if beside:
        etc = f" and {len(beside) - _MOST_NAMED} more" if len(beside) > _MOST_NAMED else ""
        shown = ", ".join(beside[:_MOST_NAMED])
        notes.append(f": cells beside its table are not read ({shown}{etc})")
    return found[0]


def _blocks(sheet: _SheetCells) -> list[_Range]:
    """Return the parts of a sheet that empty rows and columns part, but for titles and notes.

    After an empty row a table goes on where the next one has a number or date, and so is no head.
    """
    blocks: list[_Range] = []
    filled = [[n for n, cell in enumerate(row, 1) if cell[0] is not None] for row in sheet.rows]
    bands: list[list[int]] = []
    spans: dict[int, list[tuple[int, int]]] = {}
    for merge in sheet.merged:
        spans.setdefault(merge.top, []).append((merge.left, merge.right))
    for number, columns in enumerate(filled, 1):
        if columns and bands and bands[-1][-1] == number - 1:
            bands[-1].append(number)
        elif columns:
            bands.append([number])
    for band in bands:
        used, reached = {n for row in band for n in filled[row - 1]}, 0
        for left, right in sorted(span for row in band for span in spans.get(row, ())):
            used.update(range(max(left, reached + 1), right + 1))
            reached = max(reached, right)
        lefts, rights = ([n for n in sorted(used) if n + by not in used] for by in (-1, 1))
        for left, right in zip(lefts, rights, strict=True):
            rows = [row for row in band if any(left <= n <= right for n in filled[row - 1])]
            first = [sheet.at(rows[0], n) for n in range(left, right + 1)]
            above = blocks[-1] if blocks and blocks[-1].bottom < band[0] else None
            if (
                above is not None
                and above.left <= left
                and right <= above.right
                and any(value is not None and not isinstance(value, str) for value in first)
            ):
                blocks[-1] = above._replace(bottom=rows[-1])
            else:
                blocks.append(_Range(left, rows[0], right, rows[-1]))
    return [block for block in blocks if block.bottom > block.top] or blocks[:1]


# --- its rows


def _table(
    sheet: _SheetCells, found: _FoundTable, header: bool | int, notes: list[str]
) -> pa.Table:
    filled, n_titles, n_heads = _filled(sheet, found.cells), 0, found.n_heads
    if header is not True:
        n_heads = int(header)
    elif n_heads < 0:
        n_titles, n_heads = _n_heads(sheet, found.cells)
    if n_titles:
        titles = ", ".join(str(filled[n][0][0]) for n in range(n_titles))
        notes.append(f": its title is not read ({one_line(titles, 60)})")
    heads, body = filled[n_titles : n_titles + n_heads], filled[n_titles + n_heads :]
    if found.n_totals:
        body = body[: -found.n_totals]
        notes.append(": its row of totals is not read")
    names = []
    for n in range(found.cells.right - found.cells.left + 1):
        parts = [one_line(_text(row[n][0])) for row in heads if row[n][0] is not None]
        names.append(" ".join(dict.fromkeys(parts)) or f"column_{n + 1}")
    names = own_names(names)
    body = [row for row in body if any(value is not None for value, _ in row)]
    columns = [_column([row[n] for row in body]) for n in range(len(names))]
    types = {name: kind for name, (_, kind) in zip(names, columns, strict=True) if kind}
    values = zip(*(column for column, _ in columns), strict=True)
    rows = [dict(zip(names, row, strict=True)) for row in values]
    table, column_notes = to_arrow(TypedRows(rows, types), {}, names)
    for n, what in (
        (sheet.n_bare, "formulas without a stored value count as empty; open and save it in a "
         "spreadsheet program to have their values"),
        (sheet.n_errors, "cells with an error, such as #N/A, count as empty"),
        (sheet.n_rounded, "numbers of more than 15 digits are as the program kept them"),
    ):  # fmt: skip
        notes += [f": {n:,} {what}"] if n else []
    notes += [f": {note}" for note in column_notes]
    return table


def _filled(sheet: _SheetCells, cells: _Range) -> list[list[Cell]]:
    """Return the cells of a range; those that a merge covers have its value."""
    width = cells.right - cells.left + 1
    rows = []
    for line in sheet.rows[cells.top - 1 : cells.bottom]:
        part = line[cells.left - 1 : cells.right]
        rows.append([*part, *[(None, "")] * (width - len(part))])
    n_left = len(rows) * width
    for merge in sheet.merged:
        top, left = merge.top - cells.top, merge.left - cells.left
        if 0 <= top < len(rows) and 0 <= left < width:
            covered = rows[top : merge.bottom - cells.top + 1]
            columns = range(left, min(merge.right - cells.left + 1, width))
            if (n_left := n_left - len(covered) * len(columns)) < 0:
                raise Unreadable("is damaged: its merged cells overlap", "Save it again in Excel.")
            for row in covered:
                row[left : columns.stop] = [rows[top][left]] * len(columns)
    return rows


def _n_heads(sheet: _SheetCells, cells: _Range) -> tuple[int, int]:
    """Return how many rows above the table are titles, and how many name its columns."""
    row = cells.top
    within = [merge for merge in sheet.merged if cells.left <= merge.left <= cells.right]
    while row < cells.bottom and cells.right > cells.left:
        n_cells = sum(sheet.at(row, n) is not None for n in range(cells.left, cells.right + 1))
        if n_cells > 1:
            break
        row += 1  # a title
    last = row
    for merge in sorted(within, key=lambda merge: merge.bottom):
        if row <= merge.top <= last:  # a group of columns has its names in the row below
            last = max(last, min(merge.bottom + (merge.right > merge.left), cells.bottom))
    return row - cells.top, last - row + 1


def _column(cells: Sequence[Cell]) -> tuple[list[Any], ColumnType]:
    """Return the values of a column, and its type; empty: its values tell, or are of several."""
    values = [value for value, _ in cells]
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if kinds <= {int, float}:
        if all(float(value).is_integer() for value in present):
            return [None if value is None else int(value) for value in values], "int"
        places = {_n_places(shown) for value, shown in cells if isinstance(value, float)}
        scale = max((n for n in places if n is not None), default=0)
        if None not in places and all(round(value, scale) == value for value in present):
            exact = [None if value is None else Decimal(f"{value:.{scale}f}") for value in values]
            return exact, f"decimal(18,{scale})"
        return values, "float"
    if kinds <= {datetime, str} and datetime in kinds:
        try:  # years before 1900, which cells cannot have, are texts
            return [value and str(iso_date(_text(value).strip())) for value in values], "date"
        except ValueError:
            pass
    if len(kinds) == 1 and kinds <= {bool, datetime, time}:
        plain = values if kinds == {bool} else [v and v.isoformat() for v in values]
        return plain, {bool: "bool", datetime: "datetime", time: "time"}[kinds.pop()]
    # Among several types numbers stay, and the column is noted.
    return [
        value if isinstance(value, int | float) else value and _text(value) for value in values
    ], ""


def _n_places(shown_as: str) -> int | None:
    """Return how many decimal places a number format shows; None: it shows no fixed number.

    >>> [_n_places(text) for text in ("#,##0.00 [$EUR]", "General", "0%", "0.000E+00")]
    [2, None, None, None]
    """
    found = _FIXED_PLACES.fullmatch(_QUOTED.sub("", shown_as).partition(";")[0])
    return None if found is None else len(found[1] or "")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, timedelta):
        return str(value)
    is_day = isinstance(value, datetime) and value.time() == time()
    return cell_text(plain_value(value.date() if is_day else value))
