"""Numbers, dates and times in a text, each with all its readings.

`3/4/2024` may be in March or in April: two texts are compared by what they may mean. A date, a
time and a number each count as a whole; of a date only its year is a number by itself.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal, TypeAlias

import regex

from .clock_words import clocks_in
from .language_data import months_by_first_word
from .numbers import (
    Number,
    NumberReading,
    Untaken,
    loose_numbers_in,
    lower_case,
    numbers_in,
    with_ascii_digits,
)
from .units import NO_UNIT, Unit
from .value_words import part_of_day, time_bound

Day = tuple[int | None, int, int | None]
"""Year, month, day; one of the two outer ones may be unknown."""
Clock = tuple[int, int]

_YEAR = r"(?P<y>1\d{3}|20\d{2}|21\d{2})"
_DAY = r"(?P<d>3[01]|[12]\d|0?[1-9])"
_DAYS_IN_WORDS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth twenty-first "
    "twenty-second twenty-third twenty-fourth twenty-fifth twenty-sixth twenty-seventh "
    "twenty-eighth twenty-ninth thirtieth thirty-first"
)
_DAY_WORDS = dict(zip(_DAYS_IN_WORDS.split(), count(1), strict=False))
_DAY_WORDS |= {"premier": 1, "primo": 1, "primero": 1, "ersten": 1, "erster": 1}
_DAY_WORD = "|".join(word.replace("-", r"[-\s]") for word in sorted(_DAY_WORDS, key=len)[::-1])
_WS = r"(?:[^\S\n]+|[^\S\n]*\n[^\S\n]*)"
_OF = rf"(?:{_WS}(?:of|de|del|di|do|dl|da|a|г\.)|{_WS}d['\u2019])"
_DASH = r"[-\u2010\u2011\u2013/.]"
_LAST_HAN_DAY = (
    r"(?:(?:至|到|から|[～〜~\u2013\u2014-]|、|和|と)(?P<e>3[01]|[12]\d|0?[1-9])[日号])?"
)
_DATES = (
    re.compile(rf"(?<!\d){_YEAR}[-/.](?P<m>1[0-2]|0?[1-9])[-/.]{_DAY}(?!\d)", re.ASCII),
    re.compile(rf"(?<![\d/.-]){_YEAR}-(?P<m>1[0-2]|0[1-9])(?![\d-])", re.ASCII),
    re.compile(rf"{_YEAR}\s?년\s?(?P<m>1[0-2]|0?[1-9])\s?월(?:\s?{_DAY}\s?일)?", re.ASCII),
    re.compile(rf"(?<!\d)(?P<m>1[0-2]|0?[1-9])월\s?{_DAY}일", re.ASCII),
    re.compile(
        rf"(?:ngày\s)?{_DAY}\s(?:tháng|thg)\s(?P<m>1[0-2]|0?[1-9])(?:,?\s(?:năm\s)?{_YEAR})?(?!\d)",
        re.ASCII | re.IGNORECASE,
    ),
    re.compile(
        r"(?P<era>令和|平成|昭和|民國|民国)(?P<n>元|\d{1,3})年(?P<m>1[0-2]|0?[1-9])月(?P<d>3[01]|[12]\d"
        r"|0?[1-9])日",
        re.ASCII,
    ),
    re.compile(rf"{_YEAR}年(?P<m>1[0-2]|0?[1-9])月(?:{_DAY}[日号]{_LAST_HAN_DAY})?", re.ASCII),
    re.compile(rf"(?<!\d)(?P<m>1[0-2]|0?[1-9])月{_DAY}[日号]{_LAST_HAN_DAY}", re.ASCII),
    re.compile(
        rf"(?<!\d)(?P<a>\d{{1,2}})(?P<s>[-/.])\s?(?P<b>\d{{1,2}})(?P=s)\s?{_YEAR}(?!\d)", re.ASCII
    ),
    re.compile(rf"(?<![\d/.-])(?P<m>1[0-2]|0?[1-9])/{_YEAR}(?!\d)", re.ASCII),
    re.compile(
        rf"(?:(?<=\bam )|(?<=\bvom )|(?<=\bbis )|(?<=\bzum )|(?<=\bden )|(?<=\bab )|(?<=\bod )"
        rf"|(?<=\bdo )|(?<=\bder )|(?<=[-\u2013(|\t:])|(?<=[,.:\u2013-] )|^){_DAY}\.[ ]?"
        r"(?P<m>1[0-2]|0?[1-9])\.(?!\d)",
        re.ASCII | re.MULTILINE | re.IGNORECASE,
    ),
    re.compile(
        r"(?:(?<=\ble )|(?<=\bel )|(?<=\bil )|(?<=\bem )|(?<=\bdu )|(?<=\bal )|(?<=\bau )"
        r"|(?<=\bdia ))(?P<d>3[01]|[0-2]\d)/(?P<m>1[0-2]|0[1-9])(?![/\d])",
        re.ASCII | re.IGNORECASE,
    ),
    re.compile(
        r"(?<![\w.])(?P<a>\d{1,2})(?P<s>[-/.])(?P<b>\d{1,2})(?P=s)(?P<yy>\d{2})(?![\w.]*\d)",
        re.ASCII,
    ),
)
_ERAS = {"令和": 2018, "平成": 1988, "昭和": 1925, "民國": 1911, "民国": 1911}
_DAY_BEFORE = re.compile(
    rf"(?<![\d.,])(?:{_DAY}(?:st|nd|rd|th|er|º|°|ª|-?[аея]?[йегоя]{{1,2}})?\.?"
    rf"|\b(?P<dw>{_DAY_WORD}))"
    rf"(?:{_OF}?{_WS}|{_WS}d['\u2019]|{_DASH}\s?|(?<=\d))\Z",
    re.IGNORECASE,
)
_DAY_AFTER = re.compile(
    rf"\.?(?:{_WS}|{_DASH})(?:the{_WS})?(?:{_DAY}(?:st|nd|rd|th)?\b(?![.,:]?\d|\s?(?:%|per))"
    rf"|(?P<dw>{_DAY_WORD})\b)",
    re.IGNORECASE,
)
_THAI_YEAR = r"(?P<be>2[45]\d\d)"
_YEAR_AFTER = re.compile(
    rf"\.?,?(?:{_WS}|{_DASH})(?:(?:de|del|of|do|พ\.ศ\.){_WS}?)?(?:{_YEAR}(?!\w)(?![.,]\d)"
    rf"|{_THAI_YEAR}(?!\w))",
    re.IGNORECASE,
)
_SHORT_YEAR_AFTER = re.compile(r"\.?[-/ '\u2019]{1,2}(?P<yy>\d\d)(?![\w.,:/-]*\d)(?!\s?[%€$])")
_YEAR_BEFORE = re.compile(
    rf"(?<![\d.,]){_YEAR}(?:[.,]?\s?(?:m\.|gada|г\.|\(?e?\)?ko|оны|ж\.|yil|yıl|nî)?\.?\s"
    rf"|{_DASH})\Z",
    re.IGNORECASE,
)
_FIRST_DAY = re.compile(
    rf"(?<![\d.,:/-]){_DAY}(?:st|nd|rd|th)?\.?{_WS}?(?:[-\u2010-\u2015]|\b(?:to|until|till|and|bis"
    rf"|und|au|et|al|y|e|ao|até|a|tot|tot en met|en|t/m|do|i|až|до|по|и|ile|ila|til|till|إلى|الى"
    rf"|حتى)\b){_WS}?\Z",
    re.IGNORECASE,
)
_LAST_DAY = re.compile(rf"{_WS}?[-\u2010-\u2015]{_WS}?{_DAY}(?:st|nd|rd|th)?\b(?![.,:]?\d)")
"""The other end of a range: `3. bis 5. Mai`, `May 3-5`."""
_LETTERS = regex.compile(r"\p{L}+(?:\p{M}+\p{L}*)*")
_BEFORE_CHARS = 40
_CLOCKS = (
    re.compile(
        r"(?<![^\W_T])(?<![:.,])(?P<h>[01]?\d|2[0-4])(?::|\s?h\s?|[点點时時])(?P<min>[0-5]\d)(?:分"
        r"|(?::[0-5]\d))?(?![\d:])"
        r"(?:\s*(?P<half>[ap])\.?m\b\.?)?(?:\s?(?:Uhr|uur)\b)?",
        re.IGNORECASE | re.ASCII,
    ),
    re.compile(
        r"(?<![\w:.,])(?P<h>[01]?\d|2[0-4])\.(?P<min>[0-5]\d)\s*"
        r"(?:(?P<half>[ap])\.?m\b\.?|Uhr\b|uur\b)",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?<![\w:.,])(?P<h>[01]?\d|2[0-4])\s*"
        r"(?:(?P<half>[ap])\.?m\b\.?|Uhr\b(?:\s(?P<min>[0-5]\d)\b)?|uur\b|o['\u2019]clock\b)",
        re.IGNORECASE,
    ),
)
_HOUR_SIGN = re.compile(r"\s?h\Z")
_DECIMAL_CLOCK = re.compile(r"([01]?\d|2[0-4])\.([0-5]\d)", re.ASCII)
_HOUR_BEFORE = re.compile(
    r"\b(?:at|by|until|till|from|before|after|since|um|gegen|bis|ab|vor|nach|à|vers|las|alle|ore|om"
    r"|tegen|vanaf|tot|van|od|do|dalle|das|às|between|zwischen|entre)\s\Z",
    re.IGNORECASE,
)
_IN_LOWER_CASE = frozenset(
    ("set", "ago", "may", "mar", "gen", "mag", "march", "sept", "dec", "out")
)
"""Months whose names have another meaning in lower case."""


@dataclass(frozen=True, slots=True)
class TextValue:
    """One number, date or time in a text, and its readings."""

    text: str
    start: int = 0
    number: Number | None = None
    days: frozenset[Day] = frozenset()
    clocks: frozenset[Clock] = frozenset()
    bound: int = 0
    """Of a day or a time: -1 before or until it, 1 after or from it."""
    is_range: bool = False
    """Of a day: it is the first or the last one of several."""
    is_loose: bool = False
    """It may also be only a part of what is there."""

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    def moved(self, n: int) -> TextValue:
        """Return the same value so many signs later."""
        number = self.number
        if number is not None:
            bare = number.bare and (number.bare[0] + n, number.bare[1] + n)
            number = replace(number, start=number.start + n, end=number.end + n, bare=bare)
        return replace(self, start=self.start + n, number=number)

    @property
    def bare(self) -> tuple[int, int]:
        """Where it is without currency and unit."""
        return (self.number and self.number.bare) or (self.start, self.end)

    @property
    def is_moment(self) -> bool:
        """Whether it is a day, a time, or a number that may be a year."""
        number = self.number
        years = number.readings if number is not None else ()
        return bool(self.days or self.clocks) or any(1000 <= one.value < 2200 for one in years)

    @property
    def is_sure(self) -> bool:
        """Whether it can only be a number, a date or a time."""
        return not self.is_loose and (self.number is None or self.number.is_sure)


@dataclass(slots=True)
class ValueIndex:
    """The numbers, dates and times of a text by their readings, and where each is."""

    _days: dict[tuple[int, int | None], list[tuple[Day, TextValue]]] = field(default_factory=dict)
    """By month and day, and by month alone."""
    _clocks: dict[Clock, list[TextValue]] = field(default_factory=dict)
    _halved: dict[Clock, list[TextValue]] = field(default_factory=dict)
    """Times after noon that are written with an hour before it: 2:30 pm."""
    _codes: dict[str, list[TextValue]] = field(default_factory=dict)
    _ordinals: dict[float, list[TextValue]] = field(default_factory=dict)
    """Days of months, which are numbers only for `the 3rd`."""
    _values: dict[float, list[tuple[bool, Number | None, TextValue]]] = field(default_factory=dict)
    """For each number as written: whether it has a unit, the number, and the value."""
    _bases: dict[tuple[str, float], list[tuple[Number | None, TextValue]]] = field(
        default_factory=dict
    )
    """For each dimension and number in its base unit: the number, and the value."""

    def add(self, said: TextValue) -> None:
        for day in said.days:
            year, month, of_month = day
            self._days.setdefault((month, None), []).append((day, said))
            if of_month is not None:
                self._days.setdefault((month, of_month), []).append((day, said))
                self._ordinals.setdefault(float(of_month), []).append(said)
            if year is not None:
                self._take(NumberReading(float(year)), None, said)
        for clock in _written_clocks(said):
            self._clocks.setdefault(clock, []).append(said)
            if _is_halved(said.text, clock):
                self._halved.setdefault(clock, []).append(said)
        number = said.number
        if number is None:
            return
        for code in filter(None, (number.code, number.written)):
            self._codes.setdefault(code, []).append(said)
        for reading in number.readings:
            self._take(reading, number, said)
        at = said.bare[0]
        for part in number.parts:
            for inner in numbers_in(part):
                found = TextValue(inner.text, at + inner.start, is_loose=True)
                for reading in inner.readings:
                    self._take(reading, inner, found)
            at += len(part) + 1

    def holds(self, said: TextValue, within: float = 0.0) -> bool:
        """Return whether a value may be in the text; `within`: allowed share of a number."""
        return any(True for _ in self.find(said, within))

    def find(self, said: TextValue, within: float = 0.0) -> Iterator[TextValue]:
        """Yield what may mean the same in the text, some more than once; the surest first.

        A unit and a sign count if both texts have one. A day without a year is in every year that
        the text has.
        """
        moments = (*self._find_days(said), *self._find_clocks(said))
        yield from (found for found in moments if found.bound * said.bound >= 0)
        number = said.number
        if number is None:
            return
        for code in filter(None, (number.code, number.written)):
            yield from self._find_code(code, number)
        for reading in number.readings:
            yield from self._find_number(reading, number, within)
        if number.roman:
            for _, other, found in self._values.get(float(number.roman), ()):
                if other is not None and other.is_ordinal:
                    yield found
        if number.is_ordinal:
            for reading in number.readings:
                for kind in ("roman", "q"):
                    yield from self._codes.get(f"{kind}{reading.value:.0f}", ())
            for reading in number.readings:
                yield from self._ordinals.get(reading.value, ())
        inner = [
            TextValue(one.text, number=one) for part in number.parts for one in numbers_in(part)
        ]
        if inner and all(self.holds(one, within) for one in inner):
            yield from self.find(inner[0], within)

    def _find_days(self, said: TextValue) -> Iterator[TextValue]:
        return (found for day in said.days for found in self._find_day(day))

    def _find_clocks(self, said: TextValue) -> Iterator[TextValue]:
        """Yield the same times: 10:05 may be 10:05 pm, and is not 22:05."""
        exact, number = _written_clocks(said), said.number
        for clock in said.clocks:
            clocks = self._clocks if clock in exact else self._halved
            for found in clocks.get(clock, ()):
                if number is None or found.number is None or _agree(number, found.number):
                    yield found

    def _find_code(self, code: str, number: Number) -> Iterator[TextValue]:
        found = self._codes.get(code, ())
        return (one for one in found if one.number is None or _agree(number, one.number))

    def _take(self, reading: NumberReading, number: Number | None, said: TextValue) -> None:
        has_unit = reading.unit != NO_UNIT
        self._values.setdefault(reading.value, []).append((has_unit, number, said))
        if has_unit:
            base = (reading.unit.dimension, reading.base)
            self._bases.setdefault(base, []).append((number, said))

    def _find_number(
        self, reading: NumberReading, number: Number, within: float
    ) -> Iterator[TextValue]:
        """Yield the same numbers; what has the unit decides, else what has none.

        A number without a unit may have any, but not one that may be an article, nor where the
        same number has another unit of that kind: 4 months, where only 4 years are.
        """
        has_unit, dimension = reading.unit != NO_UNIT, reading.unit.dimension
        if has_unit:
            with_unit = [*self._find_with_unit(reading, within)]
            yield from (said for found, said in with_unit if _agree(number, found))
            if with_unit:
                return  # what says something else about the same amount decides
        for value in self._near(reading.value, within):
            places = self._values[value]
            if number.is_ordinal:
                places = [one for one in places if one[1] and one[1].is_ordinal] or places
            if has_unit and any(_has_dimension(other, dimension) for _, other, _ in places):
                continue
            plain = [(other, said) for has_one, other, said in places if not has_one]
            is_found = False
            for other, said in plain:  # lazy: most callers need the first one
                if _agree(number, other) and (not has_unit or other is None or other.is_sure):
                    is_found = True
                    yield said
            if not has_unit and (is_found or not plain):
                yield from (
                    said for has_one, other, said in places if has_one and _agree(number, other)
                )

    def _find_with_unit(
        self, reading: NumberReading, within: float
    ) -> Iterator[tuple[Number | None, TextValue]]:
        dimension, base = reading.unit.dimension, reading.base
        bases = [(dimension, base)]
        if within:
            bases = [
                (name, other)
                for name, other in self._bases
                if name == dimension and abs(base - other) <= within * abs(other)
            ]
        for one in bases:
            yield from self._bases.get(one, ())

    def _near(self, value: float, within: float) -> list[float]:
        if not within:
            return [value] if value in self._values else []
        return [one for one in self._values if abs(value - one) <= within * abs(one)]

    def _find_day(self, day: Day) -> Iterator[TextValue]:
        """Yield the days with this year, then those without a year if the year is elsewhere."""
        year, month, of_month = day
        same = self._days.get((month, of_month), ())
        yield from (said for (other, _, _), said in same if year in (None, other))
        if year is not None and float(year) in self._values:
            yield from (said for (other, _, _), said in same if other is None)


def values_in(
    text: str, whole: str = "", fits: Callable[[str], bool] | None = None
) -> Iterator[TextValue]:
    """Yield each number, date and time of a text, dates before the numbers in them.

    `whole`: the text that it is of, which decides about languages and the order of day and month.
    `fits`: whether a number with these digits is looked for; None: all are.

    >>> [one.text for one in values_in("On 3 May 2024 at 9:30, 1,200 of them.")]
    ['3 May 2024', '9:30', '1,200']
    """
    text = with_ascii_digits(text)
    lower, rest = lower_case(text), Untaken(text)
    orders = _orders_in(whole or text)
    for pattern in _DATES:
        for found in pattern.finditer(rest.text):
            days = frozenset(_possible_days(found, orders))
            if days:
                said = TextValue(found[0].strip(" .,\n"), found.start(), days=days)
                last = found.groupdict().get("e")
                if not last:
                    yield replace(said, bound=time_bound(lower, *found.span()))
                else:
                    ends = frozenset((year, month, int(last)) for year, month, _ in days)
                    yield replace(said, is_range=True)
                    yield replace(said, days=ends, is_range=True)
                rest.take(*found.span())
    for said, end in [*_named_dates(rest.text)]:
        bound = 0 if said.is_range else time_bound(lower, said.start, end)
        yield replace(said, bound=bound)
        rest.take(said.start, end)
    for pattern in _CLOCKS:
        for found in pattern.finditer(rest.text):
            minute, half = found["min"] or 0, found.groupdict().get("half")
            clocks = frozenset(_possible_clocks(found["h"], minute, half))
            said = TextValue(found[0].strip(), found.start(), _duration(found), clocks=clocks)
            yield _with_surroundings(said, lower)
            rest.take(*found.span())
    for start, end, times in clocks_in(lower_case(rest.text)):
        yield _with_surroundings(TextValue(text[start:end], start, clocks=times), lower)
        rest.take(start, end)
    for number in numbers_in(rest.text, whole, fits):
        clocks = frozenset(_maybe_clocks(rest.text, number))
        yield _with_surroundings(TextValue(number.text, number.start, number, clocks=clocks), lower)


def value_index(text: str) -> ValueIndex:
    """Return all readings of a source."""
    index = ValueIndex()
    for said in (*source_values(text, text), *cell_values(table_cells(text), text)):
        index.add(said)
    return index


def source_values(
    text: str, whole: str = "", fits: Callable[[str], bool] | None = None
) -> Iterator[TextValue]:
    """Yield the values of a source, and what it may also mean."""
    yield from values_in(text, whole, fits)
    for number in loose_numbers_in(text):
        yield TextValue(number.text, number.start, number)


def cell_values(
    cells: str, whole: str = "", fits: Callable[[str], bool] | None = None
) -> Iterator[TextValue]:
    """Yield the values of the cells of a source's tables."""
    return (replace(said, is_loose=True) for said in values_in(cells, whole, fits))


def table_cells(text: str) -> str:
    r"""Return a text of the same length with only the cells of its comma-separated rows.

    There `12,7` is two numbers. A row has as many commas as the one above or below it, and no space
    after any of them.

    >>> table_cells("Sold:\na,12\nb,7")
    '     \na\n12\nb\n7'
    """
    lines = [_DECIMAL_COMMA.sub(".", line) for line in text.split("\n")]
    n_commas = [0 if ", " in line else line.count(",") for line in lines]
    is_row = [
        n > 0 and n in (*n_commas[at + 1 : at + 2], *n_commas[max(0, at - 1) : at])
        for at, n in enumerate(n_commas)
    ]
    if not any(is_row):
        return ""
    return "\n".join(
        line.replace(",", "\n") if is_one else " " * len(line)
        for line, is_one in zip(lines, is_row, strict=True)
    )


_DECIMAL_COMMA = re.compile(
    r"(?<=\d),(?=\d+[^\S\n]?[^\W\d_])|(?<=\.\d{3}),(?=\d)|(?<=\d),(?=\d+\s?[€$£%])"
)


def is_month(word: str) -> bool:
    return bool(_months_of(word.rstrip(".,"), 0))


_TURKISH = str.maketrans({"I": "ı", "İ": "i"})
_MOST_NAME_CHARS = 40


def _months_of(text: str, at: int) -> tuple[tuple[int, ...], int] | None:
    """Return what the name at an offset may be, and where it ends."""
    letters = _LETTERS.match(text, at)
    if letters is None:
        return None
    known = months_by_first_word()
    for word in (letters[0].casefold(), letters[0].translate(_TURKISH).casefold()):
        for name, months in known.get(word, ()):
            if name == word:
                return months, letters.end()
            end = at + len(name)
            if text[at:end].casefold() == name and not _LETTERS.match(text, end):
                return months, end
    return None


Order: TypeAlias = Literal["day first", "month first"]
_NUMERIC = re.compile(r"(?<![\d/.-])(\d{1,2})([-/])(\d{1,2})\2(?:\d{4}|\d{2})(?![\d/-])", re.ASCII)


def _orders_in(text: str) -> frozenset[Order]:
    """Return in which orders days and months are written, by the dates that have only one."""
    orders: set[Order] = set()
    for first, _, second in _NUMERIC.findall(text):
        if int(first) > 12 >= int(second) > 0:
            orders.add("day first")
        elif int(second) > 12 >= int(first) > 0:
            orders.add("month first")
    return frozenset(orders)


def _has_dimension(number: Number | None, dimension: str) -> bool:
    kinds = ("second", "month") if dimension in ("second", "month") else (dimension,)
    return number is not None and any(one.unit.dimension in kinds for one in number.readings)


def _agree(number: Number, other: Number | None) -> bool:
    """Return whether two equal numbers may be the same; None: the year of a date."""
    return number.sign >= 0 if other is None else number.agrees(other)


def _possible_days(found: re.Match[str], orders: Collection[Order]) -> Iterator[Day]:
    parts = found.groupdict()
    year = int(parts["y"]) if parts.get("y") else None
    if parts.get("yy"):
        year = _long_year(parts["yy"])
    if parts.get("era"):
        year = _ERAS[parts["era"]] + (1 if parts["n"] == "元" else int(parts["n"]))
    if parts.get("m"):
        yield year, int(parts["m"]), int(parts["d"]) if parts.get("d") else None
        return
    first, second = int(parts["a"]), int(parts["b"])
    days = {"day first": (second, first), "month first": (first, second)}
    if parts["s"] == ".":
        del days["month first"]
    elif len(orders) == 1:
        days = {order: days[order] for order in orders}
    for month, of_month in {*days.values()}:
        if 1 <= month <= 12 and 1 <= of_month <= 31:
            yield year, month, of_month


def _long_year(text: str) -> int:
    return int(text) + (2000 if int(text) < 70 else 1900)


def _named_dates(text: str) -> Iterator[tuple[TextValue, int]]:
    """Yield dates whose month is a name, and where each ends; of a range, both ends."""
    last = 0
    known = months_by_first_word()
    for name in _LETTERS.finditer(text):
        word = name[0].casefold()
        if name.start() < last or (word not in known and name[0].isascii() and "I" not in name[0]):
            continue
        named = _months_of(text, name.start())
        if named is None:
            continue
        months, end = named
        start, is_short = name.start(), end - name.start() <= _SHORT_NAME
        end += text[end : end + 1] == "."
        day = _DAY_BEFORE.search(text, max(last, start - _BEFORE_CHARS), start)
        year: re.Match[str] | None = None
        if day is not None:
            start = day.start()
            other = _FIRST_DAY.search(text, max(last, start - _BEFORE_CHARS), start)
            start = other.start() if other is not None else start
        else:
            day = _DAY_AFTER.match(text, end)
            end = day.end() if day is not None else end
            other = _LAST_DAY.match(text, end) if day is not None else None
            end = other.end() if other is not None else end
        year = _YEAR_AFTER.match(text, end)
        if year is None and day is not None:
            year = _YEAR_BEFORE.search(text, max(last, start - _BEFORE_CHARS), start)
            start = year.start() if year is not None else start
        if year is None and day is not None:
            year = _SHORT_YEAR_AFTER.match(text, end)
        if year is not None:
            end = max(end, year.end())
        needs_both = is_short and word not in _SHORT_MONTHS
        if (day is None or needs_both) and (year is None or (needs_both and day is None)):
            continue
        is_doubtful = year is None or year.end() <= start + 6
        if is_doubtful and name[0] in _IN_LOWER_CASE:
            continue
        last = end
        days_of_month = [_day_of(one) for one in (day, other) if one is not None]
        said = TextValue(text[start:end].strip(" .,\n"), start)
        for one in days_of_month or (None,):
            days = frozenset((_year_of(year), month, one) for month in months)
            yield replace(said, days=days, is_range=len(days_of_month) > 1), end


_SHORT_NAME = 4
_SHORT_MONTH_NAMES = (
    "jan janv ene gen feb févr fév mar mär mars apr avr abr may mai mei maj maio mag giu "
    "june jun juni juin juil july jul juli lug luty aug ago août sep sept set okt oct ott "
    "out nov dec dez déc dic sty kwi lip sie wrz paź lis gru янв фев мар апр мая май июн "
    "июл авг сен окт ноя дек 1월 oca şub nis haz tem ağu eyl eki kas ara märz maja mayo "
    "ocak ekim mart مايو مارس آذار أيار آب تموز март"
)
_SHORT_MONTHS = frozenset(_SHORT_MONTH_NAMES.split())
"""Of four letters or fewer, and hardly another word next to a day."""


def _year_of(found: re.Match[str] | None) -> int | None:
    if found is None:
        return None
    parts = found.groupdict()
    if parts.get("be"):
        return int(parts["be"]) - 543
    return int(parts["y"]) if parts.get("y") else _long_year(parts["yy"])


def _day_of(found: re.Match[str]) -> int:
    if found["d"]:
        return int(found["d"])
    return _DAY_WORDS[re.sub(r"[\s-]+", "-", found["dw"].lower())]


def _possible_clocks(hour: str | int, minute: str | int, half: str | None) -> Iterator[Clock]:
    is_exact = isinstance(hour, str) and hour[0] == "0" and len(hour) > 1 and not half
    hour, minute, half = int(hour), int(minute), (half or "").lower()
    if half != "p":
        yield hour % 12 if half == "a" else hour % 24, minute
    if half != "a" and hour <= 12 and not is_exact:
        yield hour % 12 + 12, minute


def _duration(found: re.Match[str]) -> Number | None:
    """Return what a time is if it is a duration: 2 h 30."""
    if not found["min"] or found.string[found.end("h") : found.start("min")].strip() not in "hH":
        return None
    readings = frozenset((NumberReading(int(found["h"]) + int(found["min"]) / 60, _HOUR),))
    return Number(found[0].strip(), *found.span(), readings)


def _with_surroundings(said: TextValue, text: str) -> TextValue:
    """Return a time as what is next to it says: 7:45 in the evening is 19:45; until 9."""
    if not said.clocks:
        return said
    start, end = said.bare
    said = replace(said, bound=time_bound(text, start, end))
    part = part_of_day(text, start, end)
    is_late = part == "late"
    clocks = frozenset(one for one in said.clocks if (one[0] >= 12) == is_late)
    if not part or not clocks:
        return said
    return replace(said, clocks=clocks, number=None)


def _written_clocks(said: TextValue) -> frozenset[Clock]:
    """Return the times that digits say: 9:30 alone is not 21:30."""
    is_in_digits = _HOUR_AND_MINUTE.match(said.text) is not None
    return frozenset((min(said.clocks),)) if is_in_digits and said.clocks else said.clocks


def _is_halved(text: str, clock: Clock) -> bool:
    hour = _FIRST_HOUR.search(text)
    return hour is not None and int(hour[0]) % 24 != clock[0]


_FIRST_HOUR = re.compile(r"\d\d?", re.ASCII)
_HOUR_AND_MINUTE = re.compile(r"\d\d?\s?[:.h]\s?\d\d(?!\s?[ap]\.?m)", re.ASCII | re.IGNORECASE)


def _maybe_clocks(text: str, number: Number) -> Iterator[Clock]:
    """Yield the possible times of a number: `9.30`, `at 9`, `9 h`."""
    decimal = _DECIMAL_CLOCK.fullmatch(_HOUR_SIGN.sub("", number.text))
    if decimal is not None:
        yield from _possible_clocks(decimal[1], decimal[2], None)
    for reading in number.readings:
        is_hour = reading.unit == _HOUR and _HOUR_NAME.search(number.text) is not None
        is_at = reading.unit == NO_UNIT and (
            _HOUR_BEFORE.search(text, max(0, number.start - 10), number.start) is not None
            or _has_part_of_day(text, number)
        )
        minutes = reading.value * 60
        if (is_hour or (is_at and minutes % 60 == 0)) and minutes == int(minutes) <= 24 * 60:
            yield from _possible_clocks(*divmod(int(minutes), 60), None)


def _has_part_of_day(text: str, number: Number) -> bool:
    """Return whether a part of the day is next to a number: 5 in the evening."""
    lower = lower_case(text[max(0, number.start - 40) : number.end + 40])
    start = number.start - max(0, number.start - 40)
    end = start + len(number.text)
    return bool(part_of_day(lower, start, end)) and not _SHORT_PART.match(lower, end)


_SHORT_PART = re.compile(r"\s?[مص](?!\w)")
_HOUR = Unit("second", 3600)
_HOUR_NAME = re.compile(
    r"(?<![^\W\d_])(?:h|hs|heures?|horas?|uur|or[ae]|час\w*|ساعة|hodin\w*|godz\w*|kl)\b",
    re.IGNORECASE,
)
"""Which are times of day as well as durations; hours and Stunden are durations only."""
