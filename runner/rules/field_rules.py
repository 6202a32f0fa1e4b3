"""Rules of one field: at which places of a layout its value stands, and how that is read."""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any, Literal

from paddock.engine.system.records import Struct
from paddock.pipelines.checking.amounts import amount_of
from paddock.pipelines.checking.source_index import SourceIndex

from .cell_values import OfferedLine, is_currency, label_of, name_of
from .offers import Offers

_MARKS = frozenset((".", ","))
_ORDERS = frozenset(("day first", "month first"))
_ISO_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_IN_DIGITS = re.compile(r"(\d{1,2})\D(\d{1,2})\D(?:\d\d|\d{4})")
_PLAIN_NUMBER = re.compile(r"-?\d{1,6}(?:[.,]\d\d)?")
_DIGITS, _NO_DIGITS = re.compile(r"\d+"), re.compile(r"\D+")
_OTHER_DIGIT = re.compile(r"[^\D0-9]")
_CENTS = re.compile(r"([.,])\d\d?$")
_SPACE = re.compile("[ \u00a0\u202f]")
_YEARS = 20  # between a day and one that was decided: 12/12/1448 is of another calendar
Mark = Literal["never", "always"]
SenderNames = tuple[tuple[str, str], ...]
"""Fields and cells of what a decision calls by name."""
_BEFORE_NAME, _BEHIND_NAME = re.compile(r'(?:[\w-]+: )?"?'), re.compile(r'"?\s*(?:$|[,<|(])')
_NAMED = f"{_BEFORE_NAME.pattern}{{}}{_BEHIND_NAME.pattern}"
_LOST = r"(?:{}|\s?[^\w\s]\s?)"  # a letter that a page's font lacks stands as a box


class TaughtAnswer(Struct, frozen=True, dict=True):
    """What a person decided on a document, as far as they looked at it, and what it offered."""

    id: str
    answer: Mapping[str, Any]
    fields: frozenset[str]
    """The fields that they looked at; the others are the reading of a rule."""
    constants: frozenset[str]
    """Fields of a few values, which stand nowhere: kinds, currencies."""
    packed: str
    places: Mapping[str, tuple[int, int]] = {}
    """By field, the words on which they clicked: that is its place, whatever else stands."""
    marks: Mapping[str, Mark] = {}
    """By the key of a part, whether it does not matter in papers of this sender, or each time."""

    @cached_property
    def offers(self) -> Offers:
        return Offers.unpack(self.packed)

    @property
    def has_seen_kind(self) -> bool:
        """Whether they looked at all that has no place in it."""
        kinds = (name for name in self.constants if not is_money(self.answer.get(name)))
        return self.fields.issuperset(kinds)

    @cached_property
    def names(self) -> SenderNames:
        """Its sender."""
        return names_in(self.answer, self.constants, self.offers.names)


def names_in(
    answer: Mapping[str, Any], constants: Collection[str], cells: Collection[str]
) -> SenderNames:
    """Return the fields of an answer that are names with a cell of their own, and the cells."""
    found = list[tuple[str, str]]()
    for field, value in sorted(answer.items()):
        is_text = isinstance(value, str) and field not in constants
        if is_text and len(value) > 2 and not any(map(str.isdigit, value)):
            found += [(field, cell) for cell in sorted(_cells_with(name_of(value), cells))]
    return tuple(found)


def _cells_with(name: str, cells: Iterable[str]) -> set[str]:
    """Return the cells that are a name, or begin with it, whatever their case."""
    if not name.isascii():
        letters = (re.escape(c) if c.isascii() else _LOST.format(c) for c in name)
        form = re.compile(_NAMED.format("".join(letters)), re.IGNORECASE)
        return {cell for cell in cells if form.match(cell)}
    # To compile a form for each of 5,000 senders would take 0.7 s.
    starts = {cell: cell.lower().find(name.lower()) for cell in cells}
    return {
        cell
        for cell, at in starts.items()
        if at >= 0
        and _BEFORE_NAME.fullmatch(cell, 0, at)
        and _BEHIND_NAME.match(cell, at + len(name))
    }


def is_money(value: Any) -> bool:
    return isinstance(value, str) and is_currency(value)


# --- how values are written


class ValueForm(Struct, frozen=True, gc=False):
    """How a field's values are written, as far as decisions show it."""

    of: type
    marks: frozenset[str] = _MARKS
    """What may be the decimal mark."""
    orders: frozenset[str] = _ORDERS
    shapes: frozenset[str] = frozenset()
    years: frozenset[int] = frozenset()
    is_whole: bool = False
    """Whether all numbers were whole."""
    signs: frozenset[tuple[str, bool, bool]] = frozenset()
    """The key of a line, whether a number has a minus there, and whether it is negative."""

    def read(self, written: str, key: str) -> Any:
        """Return the value of what is written in a line; None: it has another form, or two."""
        if self.of is float:
            return self._number(written, key)
        if self.of is datetime.date:
            days = {day for day, orders in days_of(written).items() if orders & self.orders}
            near = [day for day in days if any(abs(int(day[:4]) - y) <= _YEARS for y in self.years)]
            return near[0] if len(days) == len(near) == 1 else None
        return written if _DIGITS.sub("9", written) in self.shapes else None

    def _number(self, text: str, key: str) -> int | float | None:
        found = {amount_in(text, mark) for mark in self.marks}
        amount, cents = found.pop() if len(found) == 1 else None, _CENTS.search(text)
        if cents is not None and cents[1] not in self.marks:
            return None
        own = {sign for sign in self.signs if sign[0] == key} or self.signs
        signs = {negative for _, minus, negative in own if minus == (text[:1] == "-")}
        if amount is None or (self.is_whole and amount % 1) or (amount and len(signs) != 1):
            return None
        amount = -abs(amount) if amount and signs.pop() else abs(amount)
        return int(amount) if self.is_whole else float(amount)


def form_of(value: Any, written: str, key: str) -> ValueForm | None:
    """Return the form in which a value is written in a line; None: it is another."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = abs(Decimal(repr(value)))
        marks = frozenset(m for m in _MARKS if abs(amount_in(written, m) or Decimal(-1)) == number)
        signs = frozenset([(key, written[:1] == "-", value < 0)] if number else ())
        form = ValueForm(float, marks, is_whole=isinstance(value, int), signs=signs)
        return form if marks else None
    if not isinstance(value, str) or not value:
        return None
    if _ISO_DAY.fullmatch(value):
        if _PLAIN_NUMBER.fullmatch(written) or value[-2:].lstrip("0") not in written:
            return None
        orders = days_of(written).get(value)
        years = frozenset([int(value[:4])])
        return ValueForm(datetime.date, orders=orders, years=years) if orders else None
    is_same = written == value
    return ValueForm(str, shapes=frozenset([_DIGITS.sub("9", value)])) if is_same else None


def common_form(forms: Sequence[ValueForm]) -> ValueForm:
    return ValueForm(
        forms[0].of,
        frozenset.intersection(*(form.marks for form in forms)),
        frozenset.intersection(*(form.orders for form in forms)),
        frozenset().union(*(form.shapes for form in forms)),
        frozenset().union(*(form.years for form in forms)),
        all(form.is_whole for form in forms),
        frozenset().union(*(form.signs for form in forms)),
    )


@lru_cache(maxsize=8192)  # a decision's own is asked for four times
def amount_in(written: str, mark: str) -> Decimal | None:
    digits = _SPACE.sub("\u00a0", written.removeprefix("-"))
    is_latin = digits[:1].isdigit() and not _OTHER_DIGIT.search(digits)
    amount = amount_of(digits, mark) if is_latin else None
    return None if amount is None else -amount if written[0] == "-" else amount


@lru_cache(maxsize=8192)  # 5,000 decisions ask for the same days again and again
def days_of(written: str) -> Mapping[str, frozenset[str]]:
    """Return the days that a text may mean, each with the orders of day and month that say so."""
    tokens = [d for d in SourceIndex(written, "und").dates.all() if d.end - d.start == len(written)]
    found, digits = dict[str, frozenset[str]](), _IN_DIGITS.fullmatch(written)
    for year, month, day in {day for token in tokens for day in token.days}:
        if year is None:
            continue
        orders = _ORDERS
        if digits is not None:
            pair = int(digits[1]), int(digits[2])
            ways = {"day first": (day, month), "month first": (month, day)}
            orders = frozenset(name for name, way in ways.items() if way == pair)
        found[datetime.date(year, month, day).isoformat()] = orders
    return found


# --- places of a field


class ValuePlace(Struct, frozen=True):
    """The place of a layout, and which of the values there it is, or the words around it."""

    place: int
    first: int
    last: int
    before: int = 0
    """How many letters of a code stand before its first value: `RE` of `RE 101`."""
    behind: int = 0

    def written(self, line: OfferedLine) -> str | None:
        """Return what stands there; None: nothing."""
        if self.last >= len(line.values):
            return None
        if self.first == self.last and not (self.before or self.behind):
            return line.values[self.first].written
        start = line.values[self.first].start - self.before
        end = line.values[self.last].end + self.behind
        return line.text[start:end] if start >= 0 and end <= len(line.text) else None


def places_of_value(
    value: Any, line: OfferedLine, place: int, clicked: tuple[int, int] | None
) -> Iterable[ValuePlace]:
    """Yield where a decided value stands in a line; `clicked`: only there."""
    for n, offered in enumerate(line.values):
        start, end = offered.digits
        is_meant = clicked is None or (start < clicked[1] and clicked[0] < end)
        if is_meant and form_of(value, offered.written, line.key) is not None:
            yield ValuePlace(place, n, n)
    if isinstance(value, str) and value not in (v.written for v in line.values):
        for found in re.finditer(rf"(?<!\w){re.escape(value)}(?!\w)", line.text):
            start, end = found.span()
            within = [n for n, v in enumerate(line.values) if start < v.end and v.start < end]
            if within:
                values = line.values[within[0]], line.values[within[-1]]
                yield ValuePlace(
                    place, within[0], within[-1], values[0].start - start, end - values[1].end
                )


def label_before(line: OfferedLine, number: int) -> str:
    start = line.values[number - 1].end if number else 0
    return label_of(line.text[start : line.values[number].start])
