"""An Excel workbook of rows as a person would make it: types, dates, filter, frozen head, links.

Texts are never formulas. The same rows give the same bytes.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from io import BytesIO
from typing import Any

from paddock.engine.system.records import Struct, field
from paddock.engine.system.text import cell_text, one_line
from paddock.pipelines.typed_rows import TypedRows

from .column_types import ColumnType, is_of_type, plain_decimal, typed_value
from .row_formats import UnreadableRows, declared_rows, kept_rows
from .table_format import ODD_NUMBERS, ChangedValues

_MOST_ROWS = 1_048_576  # of a sheet of Excel, as what follows
_MOST_COLUMNS = 16_384
_EXACT_INTEGER = 10**15
_MOST_LINKS = 65_530
_MOST_CHARS = 32_767  # of a cell
_LARGE_CELLS = 100_000  # beyond, rows go to a temporary file one by one, in a third of the memory
_WIDTH_ROWS = 500  # the first ones decide how wide a column is
_LEAST_WIDTH = 6
_MOST_WIDTH = 60
_FORMATS: Mapping[str, str] = {
    "date": "yyyy-mm-dd",
    "datetime": "yyyy-mm-dd hh:mm:ss",
    "time": "hh:mm:ss",
}
_NO_TITLE = re.compile(r"[\[\]:*?/\\\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def workbook_file(
    rows: TypedRows,
    declared: Mapping[str, ColumnType],
    title: str = "",
    link: Callable[[str], str | None] = lambda text: None,
) -> tuple[bytes, list[str]]:
    """Return a workbook of one sheet, and notes on what it cannot hold as it is.

    `link`: the file that a text names, as a link from where the workbook will lie.

    Raises:
        UnreadableRows: a row is not a mapping, or a sheet of Excel cannot hold them.
        ImportError: the library is not installed.
    """
    library: Any = importlib.import_module("xlsxwriter")
    table = kept_rows(declared_rows(rows, declared))
    names = list(dict.fromkeys(name for row in table for name in row)) or list(rows.types)
    if len(table) >= _MOST_ROWS:
        raise UnreadableRows(f"a sheet of Excel has no room for {len(table):,} rows")
    if len(names) > _MOST_COLUMNS:
        raise UnreadableRows(f"a sheet of Excel has no room for {len(names):,} columns")
    kinds = {name: declared.get(name) or rows.types.get(name, "") for name in names}
    for name in names:
        if not kinds[name] and is_of_type([row.get(name) for row in table], "date"):
            kinds[name] = "date"
    data = BytesIO()
    is_large = len(table) * len(names) > _LARGE_CELLS
    memory = {"constant_memory" if is_large else "in_memory": True}
    try:
        with library.Workbook(data, memory) as book:
            book.set_properties({"created": datetime(2000, 1, 1, tzinfo=UTC)})
            sheet = book.add_worksheet(_NO_TITLE.sub(" ", title)[:31].strip(" '") or None)
            bold = book.add_format({"bold": True, "bottom": 1})
            cells = _CellWriter(sheet, link, book.get_default_url_format())
            columns = [
                _SheetColumn(n, name, kinds[name], _number_format(book, kinds[name]))
                for n, name in enumerate(names)
            ]
            widths = [len(name) + 3 for name in names]  # with the filter's arrow
            for n, name in enumerate(names):
                if sheet.write_string(0, n, name, bold):
                    what = f"the name of column {n + 1:,}, '{one_line(name, 40)}'"
                    raise UnreadableRows(f"{what}, has more than 32,767 characters")
            for n_row, row in enumerate(table, 1):
                for column in columns:
                    if (value := row.get(column.name)) is None:
                        continue
                    if n_row <= _WIDTH_ROWS:
                        widths[column.index] = max(widths[column.index], len(cell_text(value)) + 1)
                    cells.write(n_row, column, value)
            for n, width in enumerate(widths):
                sheet.set_column(n, n, max(_LEAST_WIDTH, min(width, _MOST_WIDTH)))
            sheet.freeze_panes(1, 0)
            if table and names:
                sheet.autofilter(0, 0, len(table), len(names) - 1)
    except library.exceptions.FileCreateError as error:  # the system's, such as of a full disk
        raise error.args[0] from error
    return data.getvalue(), cells.changed.notes


class _SheetColumn(Struct, frozen=True):
    index: int
    name: str
    kind: ColumnType
    format: Any


def _number_format(book: Any, kind: ColumnType) -> Any:
    shown_as = _FORMATS.get(kind, "")
    if kind.startswith("decimal("):
        scale = int(kind.partition(",")[2].rstrip(") "))
        shown_as = "#,##0" + ("." + "0" * scale if scale else "")
    return book.add_format({"num_format": shown_as} if shown_as else {})


class _CellWriter(Struct):
    sheet: Any
    link: Callable[[str], str | None]
    link_format: Any
    n_links: int = 0
    changed: ChangedValues = field(default_factory=ChangedValues)

    def write(self, n_row: int, column: _SheetColumn, value: Any) -> None:
        """Write a value as its type, else as it is; a text may be a link."""
        try:
            typed: Any = typed_value(value, column.kind) if column.kind else value
        except (ValueError, ArithmeticError):
            typed = value
        match typed:
            case bool():
                self.sheet.write_boolean(n_row, column.index, typed)
            case str():
                self._write_text(n_row, column, value)
            case int() | float() | Decimal():
                is_long = isinstance(typed, Decimal) and isinstance(plain_decimal(typed), str)
                if -_EXACT_INTEGER < typed < _EXACT_INTEGER and not is_long:
                    self.sheet.write_number(n_row, column.index, typed, column.format)
                elif isinstance(typed, float) and not math.isfinite(typed):
                    self.changed[f"{ODD_NUMBERS} left empty", column.name] += 1
                else:
                    what = "numbers of more than 15 digits stand as text, since Excel keeps no more"
                    self.changed[what, column.name] += 1
                    self._write_text(n_row, column, value)
            case datetime() | date() | time() if getattr(typed, "tzinfo", None) is None:
                if getattr(typed, "year", 1900) < 1900:
                    what = "dates before 1900 stand as text, since Excel has none"
                    self.changed[what, column.name] += 1
                    self._write_text(n_row, column, value)
                    return
                if getattr(typed, "microsecond", 0) % 1000:
                    what = "parts of a millisecond are cut, since Excel keeps no more"
                    self.changed[what, column.name] += 1
                self.sheet.write_datetime(n_row, column.index, typed, column.format)
            case _:
                self._write_text(n_row, column, value)

    def _write_text(self, n_row: int, column: _SheetColumn, value: Any) -> None:
        text = cell_text(value)
        if len(text) > _MOST_CHARS:
            text = text[: _MOST_CHARS - 1] + "…"
            self.changed[
                f"texts of more than {_MOST_CHARS:,} characters are cut there", column.name
            ] += 1
        may_link = isinstance(value, str) and self.n_links < _MOST_LINKS
        target = self.link(text) if may_link else None
        if target is None:
            self.sheet.write_string(n_row, column.index, text)
        else:
            self.n_links += 1
            url = f"external:{target}"
            self.sheet.write_url(n_row, column.index, url, self.link_format, text)
