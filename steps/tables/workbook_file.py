"""An Excel workbook of rows as a person would make it: types, dates, filter, frozen head, links.

Texts are never formulas. The same rows give the same bytes.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from decimal import Decimal
from io import BytesIO
from typing import Any

from paddock.engine.system.text import cell_text, counted, one_line
from paddock.pipelines.typed_rows import TypedRows

from .column_types import ColumnType, iso_date, plain_decimal, typed_value
from .row_formats import UnreadableRows, kept_rows

_MOST_ROWS, _MOST_COLUMNS, _EXACT_INTEGER = 1_048_576, 16_384, 10**15  # the bounds of Excel
_MOST_LINKS = 65_530  # of a sheet
_LARGE_CELLS = 100_000  # beyond, rows go to a temporary file one by one, in a third of the memory
_WIDTH_ROWS = 500  # the first ones decide how wide a column is
_LEAST_WIDTH, _MOST_WIDTH = 6, 60
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
    kept = kept_rows(rows)
    names = list(dict.fromkeys(name for row in kept for name in row)) or list(rows.types)
    if len(kept) >= _MOST_ROWS:
        raise UnreadableRows(f"a sheet of Excel has no room for {len(kept):,} rows")
    if len(names) > _MOST_COLUMNS:
        raise UnreadableRows(f"a sheet of Excel has no room for {len(names):,} columns")
    kinds = {name: declared.get(name) or rows.types.get(name, "") for name in names}
    for name in names:
        values = (row.get(name) for row in kept)
        if not kinds[name] and all(_is_day(value) for value in values if value is not None):
            kinds[name] = "date"
    data, n_old, n_long, n_links = BytesIO(), 0, 0, 0
    is_large = len(kept) * len(names) > _LARGE_CELLS
    memory = {"constant_memory" if is_large else "in_memory": True}
    with _system_errors(library), library.Workbook(data, memory) as book:
        book.set_properties({"created": datetime(2000, 1, 1, tzinfo=UTC)})
        sheet = book.add_worksheet(_NO_TITLE.sub(" ", title)[:31].strip(" '") or None)
        bold = book.add_format({"bold": True, "bottom": 1})
        linked = book.get_default_url_format()
        formats = {}
        for name, kind in kinds.items():
            shown_as = _FORMATS.get(kind, "")
            if kind.startswith("decimal("):
                scale = int(kind.partition(",")[2].rstrip(") "))
                shown_as = "#,##0" + ("." + "0" * scale if scale else "")
            formats[name] = book.add_format({"num_format": shown_as} if shown_as else {})
        widths = {name: len(name) + 3 for name in names}  # with the filter's arrow
        for column, name in enumerate(names):
            if sheet.write_string(0, column, name, bold):
                what = f"the name of column {column + 1:,}, '{one_line(name, 40)}'"
                raise UnreadableRows(f"{what}, has more than 32,767 characters")
        for n, row in enumerate(kept, 1):
            for column, name in enumerate(names):
                value, kind = row.get(name), kinds[name]
                if value is None:
                    continue
                if n <= _WIDTH_ROWS:
                    widths[name] = max(widths[name], len(cell_text(value)) + 1)
                try:
                    made: Any = typed_value(value, kind) if kind else value
                except (ValueError, ArithmeticError):
                    if name in declared:
                        what = f"row {n} has '{cell_text(value)[:40]}' in column '{name}'"
                        raise UnreadableRows(f"{what}, which is no {kind}") from None
                    made = value
                if getattr(made, "tzinfo", None) is not None:  # which Excel has not
                    made = value
                match made:
                    case bool():
                        sheet.write_boolean(n, column, made)
                        continue
                    case datetime() | date() | time():
                        if isinstance(made, time) or made.year >= 1900:
                            sheet.write_datetime(n, column, made, formats[name])
                            continue
                        n_old += 1
                    case int() | float() | Decimal():
                        is_long = isinstance(made, Decimal) and isinstance(plain_decimal(made), str)
                        if -_EXACT_INTEGER < made < _EXACT_INTEGER and not is_long:
                            sheet.write_number(n, column, made, formats[name])
                            continue
                        n_long += 1
                text = cell_text(value)
                target = link(text) if isinstance(value, str) and n_links < _MOST_LINKS else None
                n_links += target is not None
                if target is None:
                    wrong = sheet.write_string(n, column, text)
                else:
                    wrong = sheet.write_url(n, column, f"external:{target}", linked, text)
                if wrong:
                    what = f"row {n}, column '{name}' has more than 32,767 characters"
                    raise UnreadableRows(what)
        for column, name in enumerate(names):
            sheet.set_column(column, column, max(_LEAST_WIDTH, min(widths[name], _MOST_WIDTH)))
        sheet.freeze_panes(1, 0)
        if kept and names:
            sheet.autofilter(0, 0, len(kept), len(names) - 1)
    notes = []
    if n_old:
        notes.append(f"{counted(n_old, 'date')} before 1900 stand as text, since Excel has none")
    if n_long:
        numbers = counted(n_long, "number")
        notes.append(f"{numbers} of more than 15 digits stand as text, since Excel keeps no more")
    return data.getvalue(), notes


@contextmanager
def _system_errors(library: Any) -> Iterator[None]:
    """Raise the system's error, such as of a full disk, in place of the library's."""
    try:
        yield
    except library.exceptions.FileCreateError as error:
        raise error.args[0] from error


def _is_day(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(value) == 10 and bool(iso_date(value))
    except ValueError:
        return False
