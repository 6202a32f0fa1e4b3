"""Values in a text: days, amounts, rates, months and codes, with what belongs to each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Literal

from paddock.engine.system.records import Struct
from paddock.pipelines.checking.cldr import is_unit, letter_currency, month_names, unit_named
from paddock.pipelines.checking.numbers import PER_HUNDRED
from paddock.pipelines.checking.source_index import SourceIndex
from paddock.pipelines.text_cells import SourceText
from paddock.steps.readers.e_invoice_checks import is_iban

Kind = Literal["day", "amount", "rate", "month", "code"]
MARKERS: dict[Kind, str] = {
    "day": "\x01", "amount": "\x02", "rate": "\x03", "month": "\x04", "code": "\x05",
}  # fmt: skip
_MOST_LABEL_CHARS = 60
_AMOUNT = re.compile(
    "(?<![\\w.,'\u2019/])(?<!\\w[-\u2013])"
    "(?:\\d{1,3}(?:[ \u00a0\u202f.,'\u2019]\\d{3})+|\\d+)(?:[.,]\\d+)?"
    "(?![\\w'\u2019]|/(?!-(?!\\w))|[.,]\\d|[-\u2013]\\w)"
)
WITH_CENTS = re.compile(
    "(?<![\\d.,])(?:\\d+|\\d{1,3}([., '\u00a0\u202f\u2019])(?:\\d{2,3}\\1)*\\d{3}(?!\\1))"
    "[.,]\\d\\d(?![.,]?\\d)"
)
"""An amount; no day such as 01.03.27, and no code."""
_GLUED = re.compile(
    "(?<![^\\W_])(?<!\\w[-./])([^\\W\\d_]{1,3})"
    "(\\d{1,3}(?:[.,'\u2019\u00a0\u202f]\\d{3})+(?:[.,]\\d\\d)?|\\d+[.,]\\d\\d)(?![\\w'\u2019]|[-.,/]\\w)"
)
"""An amount that the letters of its currency touch: `RM1,234.56`."""
_MONTH = re.compile(r"([^\W\d_]{3,12})\.?(?: de)? (?:\d{4})(?![\w.,/-]*\d)")
_LONG_CODE = 12
_CODE_WORD = re.compile(r"[^\W\d_]{4,}")  # of `STORNO-7`
_DIGITS = re.compile(r"\d+")
_TOKEN = re.compile(r"\S*\d\S*")
_SIGN = "[^\\W\\d_]{1,3}[$\u00a3\u00a5]|[^\\W\\d_]{1,3}\\b|[^\\w\\s.,:;|()'\u2212\u2013-]"
_SIGN_BEFORE = re.compile(f"(?:^|(?<=[\\s(|:]))([-\u2212\u2013]?)({_SIGN})\\s?([-\u2212\u2013]?)$")
_MINUS_BEFORE = re.compile("(?:^|(?<=[\\s(|:]))[-\u2212\u2013]$")
_SIGN_BEHIND = re.compile(rf"\s?({_SIGN})")
PIECE = re.compile("[^\\W\\d_]{1,3}[$\u00a3\u00a5]|[^\\W\\d_]+|[\x01-\x05]|\\d+|[^\\w\\s]")
_MARK_RUN = re.compile(r"([^\w\s])\1{2,}")
_END_OF_CODE = ".,;:!?()[]|<>\"'*#"
_SIGN_NEAR = re.compile("([(-]*)$"), re.compile("\\s?([)-]|[A-Za-z]{1,2}$)?")
WORD = re.compile(r"[^\W\d_]+")
DASHES = dict.fromkeys(map(ord, "\u2212\u2013\u2014"), "-")


class CellValue(Struct, frozen=True, gc=False):
    kind: Kind
    start: int
    """Of all that belongs to it; offsets in the text."""
    end: int
    written: str
    """Without its currency, and with a minus before the digits of an amount with one before it."""
    digits: tuple[int, int]
    unit: str = ""
    """The currency of an amount, by its sign there."""


@lru_cache(maxsize=4096)
def currency_id(sign: str) -> str:
    """Return the currencies that a sign may mean; empty: it means none.

    >>> currency_id("\u20ac"), currency_id("EUR"), currency_id("pcs")
    ('EUR', 'EUR', '')
    """
    unit = unit_named(sign) if sign else None
    is_currency = unit is not None and unit.is_currency and (len(sign) != 3 or sign.isupper())
    return " ".join(sorted(unit.ids)) if unit is not None and is_currency else ""


def is_currency(text: str) -> bool:
    return bool(currency_id(text))


def label_of(text: str) -> str:
    """Return the words of a label, folded: without digits, marks and currencies.

    >>> label_of("USt. 7%: EUR"), label_of("## Rechnung-Nr.:")
    ('ust', 'rechnung nr')
    """
    words = WORD.findall(text)
    while words and is_currency(words[-1]) and is_unit(words[-1]):  # not `le`
        words.pop()
    return " ".join(words).casefold()[-_MOST_LABEL_CHARS:]


def words_of(text: str) -> str:
    return " ".join(WORD.findall(text.replace("_", " "))).casefold()


def name_of(text: str) -> str:
    """Return a cell with a name as it is compared: without marks of headings, and white space."""
    return " ".join(text.strip("#*_ \t").split())


def key_of(text: str, values: Sequence[CellValue]) -> str:
    r"""Return a text as it is compared: its words and marks, folded, and a marker for each value.

    >>> key_of("Total (EUR): 60 Euro.", values_in("Total (EUR): 60 Euro."))
    'total ( eur ) : \x02 euro'
    """
    at, parts = 0, list[str]()
    for value in values:
        is_last = not text[value.end :].strip(" .,:;")
        of_it = value.kind == "rate" and is_last  # of what stands before it: `60.00 less 2%`
        shown = text[value.start : value.end] if of_it else MARKERS[value.kind]
        if value.kind == "code":
            shown += _spelling(value.written)
        parts += text[at : value.start], f" {shown} "
        at = value.end
    return _folded("".join([*parts, text[at:]]))


@lru_cache(maxsize=8192)  # the papers of a layout have the same
def _folded(text: str) -> str:
    plain = _MARK_RUN.sub(r"\1\1", text.translate(DASHES).casefold())
    return " ".join(PIECE.findall(plain)).rstrip(" .,:;")


def _spelling(code: str) -> str:
    """Return an account, the words of a code, and how a long one is spelled: with hyphens."""
    if is_iban(code):
        return f" {''.join(code.split()).casefold()}"
    is_long = sum(map(str.isalnum, code)) >= _LONG_CODE
    marks = sorted({"a" if c.islower() else c for c in code} - {" "})
    way = [mark for mark in marks if mark == "a" or not mark.isalnum()] if is_long else []
    return " ".join(["", *_CODE_WORD.findall(code), *way, *(["|"] if way else [])])


def values_in(text: str) -> list[CellValue]:
    """Return the days, amounts, rates, months and codes of a text in their order."""
    if not any(map(str.isdigit, text)):
        return []
    spans = dict[tuple[int, int], Kind]()

    def add(kind: Kind, start: int, end: int) -> None:
        if not any(a < end and start < b for a, b in spans):
            spans[start, end] = kind

    n_numbers = len(_DIGITS.findall(text))  # to look for days takes 0.1 ms
    may_be_day = n_numbers > 2 or any(w.casefold() in month_names() for w in WORD.findall(text))
    dates = [(d.start, d.end) for d in SourceIndex(text, "und").dates.all()] if may_be_day else ()
    for start, end in sorted(dates, key=lambda span: span[0] - span[1]):  # the longest first
        add("day", start, end)
    for month in _MONTH.finditer(text):
        if month[1].casefold() in month_names():
            add("month", *month.span())
    for amount in _AMOUNT.finditer(text):
        add("amount", *amount.span())
    for glued in _GLUED.finditer(text):
        if is_currency(glued[1]) or letter_currency(glued[1]) is not None:
            add("amount", *glued.span(2))
    for token in _TOKEN.finditer(text):
        code = token[0].strip(_END_OF_CODE)
        if _AMOUNT.fullmatch(code):  # `.60` is not 60
            code = token[0].rstrip(_END_OF_CODE)
        start = token.start() + token[0].find(code)
        add("code", start, start + len(code))
    found, behind_last = list[CellValue](), 0
    for (start, end), kind in sorted(spans.items()):
        if start < behind_last:  # the sign of the one before
            continue
        value, last = _value(text, behind_last, start, end, kind), found[-1] if found else None
        behind_last = value.end
        is_rest = value.kind == "code" or (value.written.isdigit() and not value.unit)
        if last is not None and last.kind == "code" and is_rest and text[last.end : start] == " ":
            start = found.pop().start  # an account in groups of digits
            value = CellValue("code", start, end, text[start:end], (start, end))
        found.append(value)
    return found


def _value(text: str, least: int, start: int, end: int, kind: Kind) -> CellValue:
    written, digits = text[start:end], (start, end)
    if kind != "amount":
        return CellValue(kind, start, end, written, digits)
    near = text[end:].lstrip(" \u00a0")[:1]
    if (rate := unit_named(near) if near else None) is not None and rate.ids & PER_HUNDRED:
        return CellValue("rate", start, text.index(near, end) + 1, written, digits)
    lead, unit = text[least:start], ""
    sign = _SIGN_BEFORE.search(lead)
    if sign is not None and is_currency(sign[2]):
        unit, is_negative = sign[2], bool(sign[1] or sign[3])
        start = least + sign.start()
        if is_negative:
            written = f"-{written}"
    elif (minus := _MINUS_BEFORE.search(lead)) is not None:
        written, start = f"-{written}", least + minus.start()
        digits = start, end
    else:
        letters = re.search(r"[^\W\d_]{1,3}$", lead)
        if letters is not None and letter_currency(letters[0]) is not None:
            unit, start = letters[0], least + letters.start()
    behind = _SIGN_BEHIND.match(text, end)
    if not unit and behind is not None and is_currency(behind[1]):
        unit, end = behind[1], behind.end()
    return CellValue(kind, start, end, written, digits, unit)


def signed_amounts(source: SourceText, page: int) -> list[tuple[str, int, int]]:
    """Return the amounts of a page with what is or may be their sign, and the bounds of each."""
    found = list[tuple[str, int, int]]()
    for cell in (cell for row in source.rows(source.cells(page)) for cell in row):
        for value in values_in(cell.text):
            if value.kind != "amount" or (value.written.isdigit() and not value.unit):
                continue  # not `4711-`
            before, behind = cell.text[: value.start], cell.text[value.end :]
            signs = [
                _SIGN_NEAR[0].search(before.rstrip().translate(DASHES)),
                _SIGN_NEAR[1].match(behind.translate(DASHES)),
            ]
            first, last = (sign[1] or "" if sign else "" for sign in signs)
            written = f"{first}{value.written}{' ' if last.isalpha() else ''}{last}"
            start, end = cell.start + value.start, cell.start + value.end
            shown = cell.text[value.start : value.end]
            is_signed = written[:1] in "(-" or last != ""
            if is_signed and source.text[start:end] == shown:  # a row may be apart in the text
                found.append((written, start, end))
    return found


class OfferedValue(CellValue, frozen=True, gc=False):  # 5,000 decisions hold 80,000, and no cycle
    """A value of a line; `digits` are offsets in the document."""


class OfferedLine(Struct, frozen=True, dict=True):
    """What stands for itself: a line, a labelled cell, a cell with its head, a row of a table."""

    text: str
    row: int
    """The number of its row, from the top."""
    start: int
    """Its offset in the document."""
    values: tuple[OfferedValue, ...] = ()
    cells: str = ""
    """Of a row of a table, what each cell is: `w` with words, `v` a value."""

    @cached_property
    def key(self) -> str:
        """It as it is compared: all that is not a value."""
        return key_of(self.text, self.values)

    @cached_property
    def units(self) -> frozenset[str]:
        return frozenset(value.unit for value in self.values if value.unit)
