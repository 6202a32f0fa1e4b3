"""Spreadsheets to Markdown: a table for each sheet, which is a page.

The only module that knows openpyxl. A formula stands for its last value,
as the file keeps it; one without a value for itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any, BinaryIO

from . import archive, grid
from .kinds import MEDIA_TYPES
from .reader import Document, Unreadable, Wish

_WHAT = "a spreadsheet"
_MOST_CELLS = 2_000_000
_CHECK_EACH_ROWS = 500
_STREAMED = ("xl/worksheets/", "xl/sharedStrings")


def read(file: BinaryIO, wish: Wish) -> Document:
    """Read it.

    Raises:
        Unreadable: it is damaged, protected or no spreadsheet, or the extra is not installed.
    """
    openpyxl = archive.library("openpyxl", _WHAT)
    archive.opened(file, _WHAT, _STREAMED)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of drawings and rules that are no text
            values = _workbook(openpyxl, file, wants_values=True)
            formulas = _workbook(openpyxl, file, wants_values=False)
            return _document(values, formulas, wish)
    except (Unreadable, MemoryError, RecursionError):
        raise
    except Exception as error:  # the library meets broken XML in hundreds of ways
        raise archive.damaged(_WHAT, error) from error


def _workbook(openpyxl: Any, file: BinaryIO, *, wants_values: bool) -> Any:
    file.seek(0)
    return openpyxl.load_workbook(file, read_only=True, data_only=wants_values, keep_links=False)


def _document(values: Any, formulas: Any, wish: Wish) -> Document:
    pages: list[str] = []
    n_cells = n_bare = 0
    hidden = [sheet.title for sheet in values.worksheets if sheet.sheet_state != "visible"]
    for sheet, behind in zip(values.worksheets, formulas.worksheets, strict=True):
        rows: list[list[str]] = []
        for index, (row, written) in enumerate(_pairs(sheet, behind)):
            if index % _CHECK_EACH_ROWS == 0:
                wish.check()
            bare = [
                value is None and formula is not None
                for value, formula in zip(row, written, strict=False)
            ]
            n_bare += sum(bare)
            cells = [
                _shown(written[column] if is_bare else value)
                for column, (value, is_bare) in enumerate(zip(row, bare, strict=False))
            ]
            while cells and not cells[-1]:
                cells.pop()
            n_cells += len(cells)
            if n_cells > _MOST_CELLS:
                raise Unreadable(f"has more than {_MOST_CELLS:,} cells, which are not read at once")
            if cells:
                rows.append(cells)
        table = grid.table(rows)
        pages.append(f"# {sheet.title}\n\n{table}" if table else "")
    notes = []
    if n_bare:
        notes.append(
            f": {n_bare:,} of its formulas have no stored value and are shown as they are written; "
            f"open and save it in a spreadsheet program to have their values"
        )
    if hidden:
        notes.append(f": hidden sheets are read as well ({', '.join(hidden)})")
    title = (values.properties.title or "").strip()
    return Document(tuple(pages), title, MEDIA_TYPES["xlsx"], tuple(notes))


def _pairs(sheet: Any, behind: Any) -> Iterator[tuple[Sequence[Any], Sequence[Any]]]:
    """Give each row's values and what was typed, side by side.

    A file's own word about its size is not trusted: some say A1, some a million rows.
    """
    sheet.reset_dimensions()
    behind.reset_dimensions()
    return zip(sheet.iter_rows(values_only=True), behind.iter_rows(values_only=True), strict=False)


def _shown(value: Any) -> str:
    """Write a value in one way only, whatever its format on the screen.

    >>> _shown(3.0), _shown(True), _shown(date(2024, 3, 14))
    ('3', 'TRUE', '2024-03-14')
    """
    match value:
        case None:
            return ""
        case bool():
            return str(value).upper()
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
        case datetime():
            is_day = value.time() == time()
            return value.date().isoformat() if is_day else value.isoformat(" ", "seconds")
        case date() | time():
            return value.isoformat()
        case timedelta():
            return str(value)
    return str(getattr(value, "text", value))
