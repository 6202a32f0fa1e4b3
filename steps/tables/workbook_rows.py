"""Rows of Excel workbooks with the types of their cells: of a sheet, a table, or a range of cells.

A sheet may have titles above its table and heads that span columns; where it has several tables,
none is chosen by itself. Formulas count by the value that the file keeps; macros are never run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa  # type: ignore[import-untyped]

from paddock.engine.system.text import cell_text, counted, one_line
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.readers.cells import EMPTY, Cell, CellRange, Sheet, SheetCells, shown_value
from paddock.steps.readers.ods_cells import OdsWorkbook
from paddock.steps.readers.office import number_text
from paddock.steps.readers.reader import Unreadable
from paddock.steps.readers.xlsx_cells import XlsxWorkbook

from .arrow_rows import ArrowRows, to_arrow
from .column_types import MOST_DIGITS, ColumnType, decimal_text, iso_date, plain_value
from .row_formats import own_names

MOST_CELLS = 20_000_000
_MOST_NAMED = 5
_SAMPLE_ROWS = 50
_RANGE = re.compile(r"(?:(?:'((?:[^']|'')+)'|([^'!]+))!)?(\$?[A-Z]{1,3}\$?\d+:\$?[A-Z]{1,3}\$?\d+)")
Workbook: TypeAlias = XlsxWorkbook | OdsWorkbook


class _FoundTable(NamedTuple):
    """Cells that are a table, with its name in the workbook; of some the number of heads."""

    sheet: str
    name: str
    cells: CellRange
    n_heads: int = -1
    n_totals: int = 0


def read_workbook(
    book: Workbook, name: str, header: bool | int, check: Callable[[], None]
) -> tuple[ArrowRows, list[str]]:
    """Read a table of a workbook, with notes; `name` is a sheet's, a table's, or a range of cells.

    `header`: how many rows name the columns; True finds it out.

    Raises:
        Unreadable: it is no workbook, or it is not clear which table is meant.
    """
    notes = ["has macros, which are neither read nor run"] if book.has_macros else []

    def has_cells(sheet: Sheet) -> bool:
        found = book.read(sheet, check, _SAMPLE_ROWS)
        return any(cell.value is not None for row in found.rows for cell in row)

    listed = [table for sheet in book.sheets for table in _listed_tables(book, sheet)]
    sheet, found = _chosen(book, name, listed, has_cells)
    cells = book.read(sheet, check)
    for part in book.broken:  # values of it may be others
        what = f"is damaged: its part '{one_line(part, 60)}' is not as it was written"
        raise Unreadable(what, "Open and save it in a spreadsheet program.")
    if found is None:
        found = _only_table(cells, listed, notes)
        shown = [other for other in book.sheets if other.is_visible and other != sheet]
        others = [other.title for other in shown if has_cells(other)]
        if others and not name:
            names = ", ".join(f"'{title}'" for title in others[:_MOST_NAMED])
            notes.append(f": of its sheets only '{sheet.title}' is read, not {names}")
    rows = ArrowRows(_table(cells, found, header, notes))
    return rows, [*book.damage(), *notes]


def _listed_tables(book: Workbook, sheet: Sheet) -> Iterator[_FoundTable]:
    if not isinstance(book, XlsxWorkbook):
        return
    for kind, path in book.related(sheet.part):
        if kind == "table":
            facts = book.part(path).attrib
            name = facts.get("displayName") or facts.get("name") or ""
            with suppress(ValueError):  # of a table that names no cells, its sheet is read
                cells = CellRange.of(facts.get("ref", ""))
                n_heads = int(facts.get("headerRowCount", 1))
                n_totals = int(facts.get("totalsRowCount", 0))
                yield _FoundTable(sheet.title, name, cells, n_heads, n_totals)


def _chosen(
    book: Workbook, name: str, listed: Sequence[_FoundTable], has_cells: Callable[[Sheet], bool]
) -> tuple[Sheet, _FoundTable | None]:
    """Return the sheet that a name means, and the table; None: what stands in the sheet."""
    sheets = {sheet.title.casefold(): sheet for sheet in book.sheets}
    if not sheets:
        raise Unreadable("has no sheet of cells")
    if not name:
        shown = (sheet for sheet in book.sheets if sheet.is_visible)
        return next(filter(has_cells, shown), book.sheets[0]), None
    for table in listed:
        if table.name.casefold() == name.casefold():
            return sheets[table.sheet.casefold()], table
    if (sheet := sheets.get(name.casefold())) is not None:
        return sheet, None
    defined = {key.casefold(): place for key, place in book.defined_names.items()}
    if found := _RANGE.fullmatch(defined.get(name.casefold(), name)):
        title = (found[1] or "").replace("''", "'") or found[2] or book.sheets[0].title
        if (sheet := sheets.get(title.casefold())) is not None:
            return sheet, _FoundTable(sheet.title, name, CellRange.of(found[3]))
        name = title
    known = [*(sheet.title for sheet in book.sheets), *(table.name for table in listed)]
    raise Unreadable(f"has no sheet or table '{one_line(name, 60)}'", did_you_mean(name, known))


# --- which cells are the table


def _only_table(sheet: SheetCells, listed: Sequence[_FoundTable], notes: list[str]) -> _FoundTable:
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
        for column, (value, *_) in enumerate(line, 1)
        if value is not None and not (row in rows and column in columns)
    ]
    if beside:
        etc = f" and {len(beside) - _MOST_NAMED} more" if len(beside) > _MOST_NAMED else ""
        shown = ", ".join(beside[:_MOST_NAMED])
        notes.append(f": cells beside its table are not read ({shown}{etc})")
    return found[0]


def _blocks(sheet: SheetCells) -> list[CellRange]:
    """Return the parts of a sheet that empty rows and columns part, but for titles and notes.

    After an empty row a table goes on where the next one has a number or date, and so is no head.
    """
    blocks: list[CellRange] = []
    filled = [[n for n, cell in enumerate(row, 1) if cell.value is not None] for row in sheet.rows]
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
                blocks.append(CellRange(left, rows[0], right, rows[-1]))
    return [block for block in blocks if block.bottom > block.top] or blocks[:1]


# --- its rows


def _table(sheet: SheetCells, found: _FoundTable, header: bool | int, notes: list[str]) -> pa.Table:
    filled, n_titles, n_heads = _filled(sheet, found.cells), 0, found.n_heads
    if header is not True:
        n_heads = int(header)
    elif n_heads < 0:
        n_titles, n_heads = _n_heads(sheet, found.cells)
    if n_titles:
        titles = ", ".join(str(filled[n][0].value) for n in range(n_titles))
        notes.append(f": its title is not read ({one_line(titles, 60)})")
    heads, body = filled[n_titles : n_titles + n_heads], filled[n_titles + n_heads :]
    if found.n_totals:
        body = body[: -found.n_totals]
        notes.append(": its row of totals is not read")
    names = []
    for n in range(found.cells.right - found.cells.left + 1):
        parts = [one_line(_text(row[n].value)) for row in heads if row[n].value is not None]
        names.append(" ".join(dict.fromkeys(parts)) or f"column_{n + 1}")
    names = own_names(names)
    notes += _unshown(sheet, found.cells, n_titles + n_heads, body)
    body = [row for row in body if any(cell.value is not None for cell in row)]
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
    for n, name in enumerate(names):
        texts = (row[n] for row in body if type(row[n].value) is str)
        if (text := next((cell.value for cell in texts if cell.style.is_zero_filled), "")) != "":
            notes.append(f": column '{name}' is text as its numbers are shown, such as '{text}'")
    notes += [f": {note}" for note in column_notes]
    return table


def _unshown(
    sheet: SheetCells, cells: CellRange, n_above: int, body: Sequence[Sequence[Cell]]
) -> Iterator[str]:
    """Yield the note on what of a table is struck out, hidden or raised, which rows do not tell."""
    first = cells.top + n_above
    filled = [
        (first + n, [cell.style for cell in row if cell.value is not None])
        for n, row in enumerate(body)
    ]
    n_struck = sum(all(style.is_struck for style in styles) for _, styles in filled if styles)
    n_hidden = sum(number in sheet.hidden_rows for number, styles in filled if styles)
    n_marked = sum(bool(cell.pieces) for row in body for cell in row)
    n_columns = len(sheet.hidden_columns.intersection(range(cells.left, cells.right + 1)))
    counts = {
        counted(n_struck, "row is struck out", "rows are struck out"): n_struck,
        counted(n_hidden, "row is hidden", "rows are hidden"): n_hidden,
        counted(n_columns, "column is hidden", "columns are hidden"): n_columns,
        f"{counted(n_marked, 'cell')} with raised, lowered or struck letters": n_marked,
    }
    if found := [words for words, n in counts.items() if n]:
        yield f": {', '.join(found)}; they are read like all others"


def _filled(sheet: SheetCells, cells: CellRange) -> list[list[Cell]]:
    """Return the cells of a range; those that a merge covers have its value."""
    width = cells.right - cells.left + 1
    rows = []
    for line in sheet.rows[cells.top - 1 : cells.bottom]:
        part = line[cells.left - 1 : cells.right]
        rows.append([*part, *[EMPTY] * (width - len(part))])
    n_left = len(rows) * width
    for merge in dict.fromkeys(sheet.merged):
        top, left = merge.top - cells.top, merge.left - cells.left
        if 0 <= top < len(rows) and 0 <= left < width:
            covered = rows[top : merge.bottom - cells.top + 1]
            columns = range(left, min(merge.right - cells.left + 1, width))
            if (n_left := n_left - len(covered) * len(columns)) < 0:
                raise Unreadable("is damaged: its merged cells overlap", "Save it again in Excel.")
            for row in covered:
                row[left : columns.stop] = [rows[top][left]] * len(columns)
    return rows


def _n_heads(sheet: SheetCells, cells: CellRange) -> tuple[int, int]:
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
    values = [cell.value for cell in cells]
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if kinds <= {int, float}:
        if all(float(value).is_integer() for value in present):
            return [None if value is None else int(value) for value in values], "int"
        styles = {id(c.style): c.style for c in cells if isinstance(c.value, float)}
        places = {style.n_places for style in styles.values()}
        scale = max((n for n in places if n is not None), default=0)
        if None not in places and all(round(value, scale) == value for value in present):
            exact = [v if v is None else Decimal(decimal_text(v, scale)) for v in values]
            n_digits = max(len(value.as_tuple().digits) for value in exact if value is not None)
            return exact, f"decimal({18 if n_digits <= 18 else MOST_DIGITS},{scale})"
        return values, "float"
    if kinds <= {datetime, str} and datetime in kinds:
        try:  # years before 1900, which cells cannot have, are texts
            return [value and _iso_day(value) for value in values], "date"
        except ValueError:
            pass
    if len(kinds) == 1 and kinds <= {bool, datetime, time}:
        plain = values if kinds == {bool} else [v and v.isoformat() for v in values]
        return plain, {bool: "bool", datetime: "datetime", time: "time"}[kinds.pop()]
    if kinds == {timedelta}:
        return values, ""  # which Arrow has
    # Among several types numbers stay, and the column is noted.
    return [
        value if value is None or isinstance(value, int | float) else _text(value)
        for value in values
    ], ""


def _iso_day(value: Any) -> str:
    is_day = isinstance(value, datetime) and value.time() == time()
    return (value.date() if is_day else iso_date(_text(value).strip())).isoformat()


def _text(value: Any) -> str:
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, timedelta):
        return shown_value(value)
    is_day = isinstance(value, datetime) and value.time() == time()
    return cell_text(plain_value(value.date() if is_day else value))
