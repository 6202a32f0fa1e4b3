"""Cells of spreadsheets as values: numbers, texts, dates, times and durations, by their formats.

What the readers of Excel's and of OpenDocument's sheets make, for the text of a workbook and for
its rows.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from functools import lru_cache, reduce
from operator import eq, ge, gt, le, lt, ne
from typing import Any, NamedTuple

from paddock.engine.system.records import Struct, field

from .office import Piece, number_text

MOST_ROWS, MOST_COLUMNS = 1_048_576, 16_384  # of a sheet, by the program
MOST_ZEROS = 30  # of a format, by the program
MOST_DIGITS = 1e15  # spreadsheet programs keep 15 digits of a number
_CELLS = re.compile(r"([A-Z]{1,3})(\d+):([A-Z]{1,3})(\d+)", re.IGNORECASE)
_NOT_SHOWN = re.compile(r'"[^"]*"|\\.|[_*].|\[(?!(?:h+|m+|s+)\])[^]]*\]', re.IGNORECASE)
_ELAPSED = re.compile(r"\[(?:h+|m+|s+)\]", re.IGNORECASE)
_FIXED_PLACES = re.compile(r"[^0#%E?]*[#,0]*0(?:\.(0+))?[^0#%E?.]*")
_NO_CODES = {*"cfijklnopqrtuvwxz"}
"""Letters that write no day or time (ECMA-376 18.8.31); an era (`g`) has its year behind it."""
_FORMAT_PART = re.compile(r'"[^"]*"|[\\_*].|\[[^]]*\]|.')
_SECTION = re.compile(r'(?:"[^"]*"|\\.|\[[^]]*\]|[^;])+')
_CONDITION = re.compile(r"\[(<=|>=|<>|<|>|=)(-?\d+(?:\.\d+)?)\]")
_SIGNS = {"<": lt, "<=": le, ">": gt, ">=": ge, "=": eq, "<>": ne}
_LITERALS = re.compile(r"e[+-]|(?<=[dy])t(?=h)|(?<=[s0])z")  # a power of ten; ISO's T and Z
_EMPTY_FORMAT = re.compile(r"\s*;[\s;]*")


class CellStyle(Struct, frozen=True):
    format: str = ""
    is_struck: bool = False
    is_white: bool = False
    """With a white font on no fill, which a table's style may give."""
    kind: str = ""
    """`date`, `time`, `duration`; else it is a number."""
    is_unseen: bool = False
    """By its number format, such as `;;;`, or a tiny font."""

    @classmethod
    def of(cls, code: str, *, is_struck: bool, is_white: bool, is_tiny: bool) -> CellStyle:
        shown = _NOT_SHOWN.sub("", code.partition(";")[0])
        letters = set(_LITERALS.sub("", re.sub("am/pm|a/p", "h", shown.lower())))
        if letters & _NO_CODES:  # "General", or its name in another language
            letters = set()
        is_time = letters & {*"hs"}  # and "m" are minutes
        is_day = letters & {*"dyeb"} or ("m" in letters and not is_time)
        kind = "date" if is_day else "time" if is_time else ""
        kind = "duration" if _ELAPSED.search(shown) else kind
        is_unseen = is_tiny or _EMPTY_FORMAT.fullmatch(code) is not None
        return cls(code, is_struck, is_white, kind, is_unseen)

    @property
    def n_places(self) -> int | None:
        """How many decimal places it shows; None: no fixed number.

        >>> [CellStyle(text).n_places for text in ("#,##0.00 [$EUR]", "General", "0%", "0.0E+00")]
        [2, None, None, None]
        """
        found = _FIXED_PLACES.fullmatch(_NOT_SHOWN.sub("", self.format.partition(";")[0]))
        return None if found is None else len(found[1] or "")

    @property
    def is_zero_filled(self) -> bool:
        return any(parts for _, parts in _sections(self.format))

    def shown(self, value: Any, written: str = "") -> Any:
        """Return a whole number as the text that it shows, if its format fills it with zeros.

        >>> [CellStyle(code).shown(67) for code in ("0000", '"INV-"000', "[>99]00;000", "#,##0")]
        ['0067', 'INV-067', '067', 67]
        """
        if type(value) is not int or value < 0 or not self.is_zero_filled:
            return value
        sections = _sections(self.format)
        is_third = value == 0 and len(sections) > 2 and not any(sign for (sign, _), _ in sections)
        fits = (parts for (sign, n), parts in sections if not sign or _SIGNS[sign](value, float(n)))
        if not (parts := sections[2][1] if is_third else next(fits, ())):
            return value
        digits, text = str(value), ""
        n_left = sum(is_digit for is_digit, _ in parts)
        for is_digit, part in reversed(parts):
            n_left -= is_digit
            taken = digits[-1:] if n_left else digits
            text = ((taken or part.strip("#")) if is_digit else part) + text
            digits = digits[: len(digits) - is_digit]
        return written or text


_Parts = tuple[tuple[bool, str], ...]


@lru_cache
def _sections(code: str) -> list[tuple[tuple[str, str], _Parts]]:
    """Return each section of a format, such as `"INV-"0000`: its condition, and its parts.

    These are signs of digits, and literals; none of a section that does not fill with zeros.
    """
    found = list[tuple[tuple[str, str], _Parts]]()
    for section in _SECTION.findall(code):
        condition, parts = _CONDITION.search(section), list[tuple[bool, str]]()
        for part in _FORMAT_PART.findall(section):
            if part in ("0", "#"):
                parts.append((True, part))
            elif len(part) == 1 and part not in "-+ ():$123456789":
                parts.clear()
                break
            elif part[0] not in "_*[":
                literal = part.strip('"') if part[0] == '"' else part.removeprefix("\\")
                parts.append((False, literal))
        filled = tuple(parts) if parts.count((True, "0")) > 1 else ()
        found.append(((condition[1], condition[2]) if condition else ("", ""), filled))
    return found


NO_STYLE = CellStyle()


class Cell(NamedTuple):
    value: Any = None
    """A number, text, bool, date, time or duration of Python's; None: it has none."""
    style: CellStyle = NO_STYLE
    instead: str = ""
    """What it shows for want of a value: an error such as `#N/A`, or a formula without a result."""
    pieces: tuple[Piece, ...] = ()
    """Of a text, where some have looks of their own."""


EMPTY = Cell()


class CellRange(NamedTuple):
    """Cells of a sheet, from 1, both ends included."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def of(cls, text: str) -> CellRange:
        """Return the cells that a text such as `A3:F90` or `B2` names.

        Raises:
            ValueError: it names none.
        """
        start, _, end = text.replace("$", "").partition(":")
        if not (found := _CELLS.fullmatch(f"{start}:{end or start}")):
            raise ValueError(text)
        return cls(column_of(found[1]), int(found[2]), column_of(found[3]), int(found[4]))

    def __str__(self) -> str:
        return f"{column_name(self.left)}{self.top}:{column_name(self.right)}{self.bottom}"


class Sheet(Struct, frozen=True):
    title: str
    part: str
    is_visible: bool


class SheetCells(Struct):
    title: str
    rows: list[list[Cell]] = field(default_factory=list)
    merged: list[CellRange] = field(default_factory=list)
    hidden_rows: set[int] = field(default_factory=set)
    """From 1, as the columns."""
    hidden_columns: set[int] = field(default_factory=set)
    n_hidden_columns: int = 0
    n_hidden_shapes: int = 0
    """Groups of them, as the file has them."""
    margins: list[str] = field(default_factory=list)
    """Headers and footers."""
    comments: list[str] = field(default_factory=list)
    """With their cells; these, texts of boxes and titles of charts as Markdown."""
    boxes: list[str] = field(default_factory=list)
    charts: list[str] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    """Of what is embedded."""
    has_table_style: bool = False
    """A table's style may give a fill, so that white text is seen."""
    n_bare: int = 0
    """Formulas without a stored value."""
    n_errors: int = 0
    n_rounded: int = 0
    """Numbers of more digits than the program keeps."""

    def at(self, row: int, column: int) -> Any:
        """Return the value of a cell, from 1; None: it is empty."""
        cells = self.rows[row - 1] if row <= len(self.rows) else ()
        return cells[column - 1].value if column <= len(cells) else None


def number_cell(text: str) -> Any:
    """Return a number, a whole one as an integer; an ISO date or time as such, or the text.

    >>> number_cell("123.0"), number_cell("1e-2"), number_cell("n")
    (123, 0.01, 'n')
    """
    try:
        value = int(text) if text.lstrip("-").isdecimal() else float(text)
        if not math.isfinite(value):
            return text
    except (ValueError, OverflowError):
        for of in (datetime.fromisoformat, time.fromisoformat):
            with suppress(ValueError):
                return of(text).replace(tzinfo=None)
        return text
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < MOST_DIGITS
    return int(value) if is_whole else value


def shown_value(value: Any) -> str:
    """Return a value as text, independent of its display format.

    >>> shown_value(3.0), shown_value(True), shown_value(1.2e16), shown_value(timedelta(hours=30))
    ('3', 'TRUE', '12000000000000000', '30:00:00')
    >>> shown_value(datetime(2024, 3, 14)), shown_value(time(9, 30))
    ('2024-03-14', '09:30:00')
    """
    match value:
        case None:
            return ""
        case bool():
            return str(value).upper()
        case float():
            return number_text(value)
        case datetime():
            is_day = value.time() == time()
            return value.date().isoformat() if is_day else value.isoformat(" ", "seconds")
        case date() | time():
            return value.isoformat()
        case timedelta():
            n_ms = abs(value) // timedelta(milliseconds=1)
            sign = "-" if value < timedelta() else ""
            part = f".{n_ms % 1000:03}" if n_ms % 1000 else ""
            n_s = n_ms // 1000
            return f"{sign}{n_s // 3600}:{n_s // 60 % 60:02}:{n_s % 60:02}{part}"
    return str(value)


@lru_cache(MOST_COLUMNS)
def _column(letters: str) -> int:
    if not (letters.isascii() and letters.isalpha() and len(letters) <= 3):
        return 0
    return reduce(lambda n, letter: n * 26 + ord(letter) - 64, letters.upper(), 0)


def column_of(place: str) -> int:
    """Return the number of a cell's column, from 1; 0: it names none.

    >>> column_of("A1"), column_of("AB7"), column_of("")
    (1, 28, 0)
    """
    return _column(place.strip("$0123456789"))


def column_name(number: int) -> str:
    """Return the letters of a column, from 1.

    >>> column_name(1), column_name(28)
    ('A', 'AB')
    """
    name = ""
    while number:
        number, rest = divmod(number - 1, 26)
        name = chr(65 + rest) + name
    return name
