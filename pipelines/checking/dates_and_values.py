"""Numbers, dates and times in a text, each with all its readings.

`3/4/2024` may be in March or in April: two texts are compared by what they may mean. A date, a
time and a number each count as a whole; of a date only its year is a number by itself.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count
from typing import Literal, TypeAlias

import regex

from .digits_and_cells import rounded, table_cells, with_ascii_digits
from .number_and_month_words import months_by_first_word
from .numbers import Number, NumberReading, Untaken, lower_case, numbers_in
from .scores import loose_numbers_in
from .spelled_numbers import languages_of, plain_number
from .times_and_durations import clocks_in
from .units import NO_UNIT, PERCENT, Unit, units_after
from .value_words import part_of_day, time_bound

Day = tuple[int | None, int, int | None]
"""Year, month, day; one of the two outer ones may be unknown."""
Clock = tuple[int, int]
Fits: TypeAlias = Callable[..., bool]

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
DAY_IN_WORDS = re.compile(rf"\b(?:{_DAY_WORD})\b")
_WS = r"(?:[^\S\n]+|[^\S\n]*\n[^\S\n]*)"
_OF = rf"(?:{_WS}(?:of|de|del|di|do|dl|da|a|г\.)|{_WS}d['\u2019])"
_DASH = r"[-\u2010\u2011\u2013/.]"
_HAN_DIGIT = "[零〇一二三四五六七八九]"
_HAN_MONTH = r"(?P<m>1[0-2]|0?[1-9]|十[一二]?|[一二三四五六七八九])月"
_OF_HAN_MONTH = rf"(?:3[01]|[12]\d|0?[1-9]|(?:[二三]?十|廿|卅){_HAN_DIGIT}?|{_HAN_DIGIT})"
_HAN_DAY = (
    rf"(?P<d>{_OF_HAN_MONTH})[日号號]"
    rf"(?:(?:至|到|から|[～〜~\u2013\u2014-]|、|和|と)(?P<e>{_OF_HAN_MONTH})[日号號])?"
)
_HAN_DATE = rf"(?<!\d)(?<!{_HAN_DIGIT}){_HAN_MONTH}{_HAN_DAY}"
HAN_MONTH = re.compile(rf"{_HAN_MONTH}(?:{_HAN_DAY})?", re.ASCII)
_DATE_PATTERNS = (
    re.compile(
        rf"(?<!\d){_YEAR}(?:[-/.]|\. )(?P<m>1[0-2]|0?[1-9])(?:[-/.]|\. ){_DAY}(?!\d)", re.ASCII
    ),
    re.compile(rf"(?<![\d/.-]){_YEAR}-(?P<m>1[0-2]|0[1-9])(?![\d-])", re.ASCII),
    re.compile(rf"{_YEAR}\s?년\s?(?P<m>1[0-2]|0?[1-9])\s?월(?:\s?{_DAY}\s?일)?", re.ASCII),
    re.compile(rf"(?<!\d)(?P<m>1[0-2]|0?[1-9])월\s?{_DAY}일", re.ASCII),
    re.compile(
        rf"(?:ngày\s)?{_DAY}\s(?:tháng|thg)\s(?P<m>1[0-2]|0?[1-9])(?:,?\s(?:năm\s)?{_YEAR})?(?!\d)",
        re.ASCII | re.IGNORECASE,
    ),
    re.compile(
        r"(?P<era>令和|平成|昭和|民國|民国)(?P<n>元|\d{1,3}|[百十零〇一二三四五六七八九]{1,6})年"
        rf"{_HAN_MONTH}{_HAN_DAY}",
        re.ASCII,
    ),
    re.compile(
        rf"(?P<y>1\d{{3}}|20\d{{2}}|21\d{{2}}|[一二]{_HAN_DIGIT}{{3}})年{_HAN_MONTH}(?:{_HAN_DAY})?",
        re.ASCII,
    ),
    re.compile(_HAN_DATE, re.ASCII),
    re.compile(
        rf"(?<!\d)(?P<a>\d{{1,2}})(?P<s>[-/.])\s?(?P<b>\d{{1,2}})(?P=s)\s?{_YEAR}(?!\d)", re.ASCII
    ),
    re.compile(rf"(?<![\d/.-])(?P<m>1[0-2]|0?[1-9])/{_YEAR}(?!\d)", re.ASCII),
    re.compile(
        rf"(?=\d)(?:(?<=\bam )|(?<=\bvom )|(?<=\bbis )|(?<=\bzum )|(?<=\bden )|(?<=\bab )"
        rf"|(?<=\bod )|(?<=\bdo )|(?<=\bder )|(?<=[-\u2013(|\t:])|(?<=[,.:\u2013-] )|^){_DAY}\.[ ]?"
        r"(?P<m>1[0-2]|0?[1-9])\.(?!\d)",
        re.ASCII | re.MULTILINE | re.IGNORECASE,
    ),
    re.compile(
        r"(?=\d)(?:(?<=\ble )|(?<=\bel )|(?<=\bil )|(?<=\bem )|(?<=\bdu )|(?<=\bal )|(?<=\bau )"
        r"|(?<=\bdia ))(?P<d>3[01]|[0-2]\d)/(?P<m>1[0-2]|0[1-9])(?![/\d])",
        re.ASCII | re.IGNORECASE,
    ),
    re.compile(
        r"(?<![\w.])(?P<a>\d{1,2})(?P<s>[-/.])(?P<b>\d{1,2})(?P=s)(?P<yy>\d{2})(?![\w.]*\d)",
        re.ASCII,
    ),
)
_DATES = [
    (next(filter(pattern.pattern.count, "년월月"), ""), pattern) for pattern in _DATE_PATTERNS
]
"""With a sign that each of them must have: a search of a long text costs more."""
_ERAS = {"令和": 2018, "平成": 1988, "昭和": 1925, "民國": 1911, "民国": 1911}
_DAY_BEFORE = re.compile(
    rf"(?<![\d.,])(?:(?P<quote>(?<!\w)[\"«\u201c\u201e])?"
    rf"{_DAY}(?:st|nd|rd|th|s?te|e|er|ᵉʳ|\.?[º°ª]|\.o|:[ae]|-go|[ηας]{{1,2}}|-?[аея]?[йегоя]{{1,2}})?\.?"
    r"(?(quote)[\"»\u201c\u201d])"
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
_DIGIT = re.compile(r"\d")
_HOUR_SIGN = re.compile(r"\s?h\Z")
_DECIMAL_CLOCK = re.compile(r"([01]?\d|2[0-4])\.([0-5]\d)", re.ASCII)
_HOUR_BEFORE = re.compile(
    r"\b(?:at|by|until|till|from|before|after|since|um|gegen|bis|ab|vor|nach|à|vers|las|alle|ore|om"
    r"|tegen|vanaf|tot|van|od|do|dalle|das|às|between|zwischen|entre)\s\Z",
    re.IGNORECASE,
)
_OPEN_BEFORE = re.compile(
    r"\b(?:open|opening hours|hours|geöffnet|öffnungszeiten|ouvert\w*|abiert\w*|apert\w*|geopend"
    r"|öppet|åbent|otwart\w*|godz|godzinach|kl|klockan|klokken|horaires?|horarios?|orari[oe]?)\W{1,3}(?:[^\W\d_]{2,12}\s)?"
    r"(?:\d{1,2}\s?(?:-|–|to|bis|à|a|alle|tot|do|till|til)\s?)?\Z",
    re.IGNORECASE,
)
_HOURS_AFTER = re.compile(
    r"\s?(?:-|–|bis|to|till|until|à|a|tot|do|til|to)\s?\d{1,2}(?:[:.]\d\d)?\s?"
    r"(?:uhr|uur|h|[ap]\.?m\.?|o['\u2019]clock|heures)(?!\w)",
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

    def divided(self, scale: float) -> TextValue:
        """Return a number as a table writes it whose caption has a scale: in thousands."""
        number = self.number
        if number is None:
            return self
        readings = {
            replace(reading, value=rounded(reading.value / scale)) for reading in number.readings
        }
        return replace(self, number=replace(number, readings=frozenset(readings)))

    @property
    def is_moment(self) -> bool:
        """Whether it is a day, a time, or a number that may be a year."""
        number = self.number
        years = number.readings if number is not None else ()
        return bool(self.days or self.clocks) or any(1000 <= year.value < 2200 for year in years)

    @property
    def is_sure(self) -> bool:
        """Whether it can only be a number, a date or a time."""
        return not self.is_loose and (self.number is None or self.number.is_sure)


_Place: TypeAlias = tuple[bool, Number | None, TextValue]
"""Whether a number has a unit, the number, and the value."""


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
    _values: dict[float, list[_Place]] = field(default_factory=dict)
    """By the numbers as written."""
    _bases: dict[tuple[str, float], list[tuple[Number | None, TextValue]]] = field(
        default_factory=dict
    )
    """For each dimension and number in its base unit: the number, and the value."""
    lacks_units: bool = False
    """Whether numbers with a unit are to be added."""
    is_partial: bool = False
    """Whether more of the text is to be added: found is only what that cannot change."""

    def add(self, value: TextValue) -> None:
        for day in value.days:
            year, month, of_month = day
            self._days.setdefault((month, None), []).append((day, value))
            if of_month is not None:
                self._days.setdefault((month, of_month), []).append((day, value))
                self._ordinals.setdefault(float(of_month), []).append(value)
            if year is not None:
                self._take(NumberReading(float(year)), None, value)
        for clock in _written_clocks(value):
            self._clocks.setdefault(clock, []).append(value)
            hour = _FIRST_HOUR.search(value.text)
            is_halved = hour is not None and int(hour[0]) % 24 != clock[0]
            if is_halved:
                self._halved.setdefault(clock, []).append(value)
        number = value.number
        if number is None:
            return
        for code in filter(None, (number.code, number.written)):
            self._codes.setdefault(code, []).append(value)
        for reading in number.readings:
            self._take(reading, number, value)
        at = value.bare[0]
        for part in number.parts:
            for inner in numbers_in(part):
                found = TextValue(inner.text, at + inner.start, is_loose=True)
                for reading in inner.readings:
                    self._take(reading, inner, found)
            at += len(part) + 1

    def holds(self, value: TextValue, within: float = 0.0) -> bool:
        """Return whether a value may be in the text; `within`: allowed share of a number."""
        return any(True for _ in self.find(value, within))

    def find(self, value: TextValue, within: float = 0.0) -> Iterator[TextValue]:
        """Yield what may mean the same in the text, some more than once; the surest first.

        A unit and a sign count if both texts have one. A day without a year is in every year that
        the text has.
        """
        moments = (*self._find_days(value), *self._find_clocks(value))
        yield from (found for found in moments if found.bound * value.bound >= 0)
        number = value.number
        if number is None:
            return
        for code in filter(None, (number.code, number.written)):
            yield from self._find_code(code, number)
        for reading in number.readings:
            yield from self._find_number(reading, number, within)
        yield from self._find_ordinal(number)
        inner = [
            TextValue(inner_number.text, number=inner_number)
            for part in number.parts
            for inner_number in numbers_in(part)
        ]
        if inner and all(self.holds(inner_value, within) for inner_value in inner):
            yield from self.find(inner[0], within)

    def _find_ordinal(self, number: Number) -> Iterator[TextValue]:
        """Yield ordinals for a Roman numeral; Roman numerals, quarters and days for an ordinal."""
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

    def _find_days(self, value: TextValue) -> Iterator[TextValue]:
        return (found for day in value.days for found in self._find_day(day))

    def _find_clocks(self, value: TextValue) -> Iterator[TextValue]:
        """Yield the same times: 10:05 may be 10:05 pm, and is not 22:05."""
        exact, number = _written_clocks(value), value.number
        for clock in value.clocks:
            clocks = self._clocks if clock in exact else self._halved
            for found in clocks.get(clock, ()):
                if number is None or found.number is None or _agree(number, found.number):
                    yield found

    def _find_code(self, code: str, number: Number) -> Iterator[TextValue]:
        found = self._codes.get(code, ())
        return (place for place in found if place.number is None or _agree(number, place.number))

    def _take(self, reading: NumberReading, number: Number | None, value: TextValue) -> None:
        has_unit = reading.unit != NO_UNIT
        if not _is_part(reading, number):
            self._values.setdefault(reading.value, []).append((has_unit, number, value))
        if has_unit:
            base = (reading.unit.dimension, reading.base)
            self._bases.setdefault(base, []).append((number, value))

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
            yield from (place for found, place in with_unit if _agree(number, found))
            is_known = any(_is_no_article(found) for found, _ in with_unit)
            if is_known or self.lacks_units or _is_part(reading, number):
                return  # what says something else about the same amount decides
        for value in self._near(reading.value, within):
            places = self._places_of(value, number)
            if not has_unit:
                yield from _same_bare_numbers(number, places, is_partial=self.is_partial)
            elif not any(_has_dimension(other, dimension) for _, other, _ in places):
                yield from _numbers_without_unit(number, places)

    def _places_of(self, value: float, number: Number) -> Sequence[_Place]:
        """Return where a value is; of an ordinal the ordinals, if there are any."""
        places = self._values[value]
        if not number.is_ordinal:
            return places
        ordinals = [place for place in places if place[1] and place[1].is_ordinal]
        return ordinals or ([] if self.is_partial else places)

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
        for key in bases:
            yield from self._bases.get(key, ())

    def _near(self, value: float, within: float) -> list[float]:
        if not within:
            return [value] if value in self._values else []
        return [known for known in self._values if abs(value - known) <= within * abs(known)]

    def _find_day(self, day: Day) -> Iterator[TextValue]:
        """Yield the days with this year, then those without a year if the year is elsewhere."""
        year, month, of_month = day
        same = self._days.get((month, of_month), ())
        yield from (place for (other, _, _), place in same if year in (None, other))
        if year is not None and float(year) in self._values:
            yield from (place for (other, _, _), place in same if other is None)


def _is_no_article(number: Number | None) -> bool:
    return number is None or number.is_sure


def _is_part(reading: NumberReading, number: Number | None) -> bool:
    return reading.unit == PERCENT and number is not None and number.is_share


def _numbers_without_unit(number: Number, places: Iterable[_Place]) -> Iterator[TextValue]:
    """Yield what may be a number with a unit, though its own has none and may be no article."""
    for has_unit, other, place in places:
        if not has_unit and _agree(number, other) and _is_no_article(other):
            yield place


def _same_bare_numbers(
    number: Number, places: Sequence[_Place], *, is_partial: bool
) -> Iterator[TextValue]:
    """Yield numbers without a unit; then those with one, unless all that have none differ."""
    plain = [(other, place) for has_unit, other, place in places if not has_unit]
    is_found = False
    for other, place in plain:  # lazy: most callers need the first one
        if _agree(number, other):
            is_found = True
            yield place
    if is_found or not (plain or is_partial):
        yield from (
            place for has_unit, other, place in places if has_unit and _agree(number, other)
        )


def values_in(text: str, whole: str = "", fits: Fits | None = None) -> Iterator[TextValue]:
    """Yield each number, date and time of a text, dates before the numbers in them.

    `whole`: the text that it is of, which decides about languages and the order of day and month.
    `fits`: whether a number with these digits, or a day of a month, is looked for; None: all are.

    >>> [value.text for value in values_in("On 3 May 2024 at 9:30, 1,200 of them.")]
    ['3 May 2024', '9:30', '1,200']
    """
    text = with_ascii_digits(text)
    lower, rest = lower_case(text), Untaken(text)
    has_digits = "月" in text or _DIGIT.search(text) is not None
    if has_digits:
        orders = _orders_in(whole or text)
        for sign, pattern in _DATES:
            for found in pattern.finditer(rest.text) if sign in lower else ():
                days = frozenset(_possible_days(found, orders))
                if days:
                    yield from _dates_of(found, days, lower, fits)
                    rest.take(*found.span())
    for date, end in [*_named_dates(rest.text)]:
        if _is_sought(date.days, fits):
            bound = 0 if date.is_range else time_bound(lower, date.start, end)
            yield replace(date, bound=bound)
        rest.take(date.start, end)
    if has_digits:
        yield from _clocks_in_digits(rest, lower, fits)
    for start, end, times in clocks_in(lower_case(rest.text)):
        yield _with_surroundings(TextValue(text[start:end], start, clocks=times), lower)
        rest.take(start, end)
    for number in numbers_in(rest.text, whole, fits):
        clocks = frozenset(_maybe_clocks(text, number))
        yield _with_surroundings(TextValue(number.text, number.start, number, clocks=clocks), lower)


def _clocks_in_digits(rest: Untaken, lower: str, fits: Fits | None) -> Iterator[TextValue]:
    for pattern in _CLOCKS:
        for found in pattern.finditer(rest.text):
            if fits is None or ":" not in found[0] or fits(found[0]):
                half = found.groupdict().get("half")
                clocks = frozenset(_possible_clocks(found["h"], found["min"] or 0, half))
                clock = TextValue(found[0].strip(), found.start(), _duration(found), clocks=clocks)
                yield _with_surroundings(clock, lower)
            rest.take(*found.span())


def _is_sought(days: Iterable[Day], fits: Fits | None) -> bool:
    return fits is None or any(fits(f"{year} {day}", month) for year, month, day in days)


def _dates_of(
    found: re.Match[str], days: frozenset[Day], lower: str, fits: Fits | None
) -> Iterator[TextValue]:
    """Yield a date in digits; of a range, both ends."""
    date = TextValue(found[0].strip(" .,\n"), found.start(), days=days)
    last = found.groupdict().get("e")
    if not last:
        if _is_sought(days, fits):
            yield replace(date, bound=time_bound(lower, *found.span()))
        return
    ends = frozenset((year, month, plain_number(last)) for year, month, _ in days)
    yield replace(date, is_range=True)
    yield replace(date, days=ends, is_range=True)


def value_index(text: str) -> ValueIndex:
    """Return all readings of a source."""
    index = ValueIndex()
    for value in (*source_values(text, text), *cell_values(table_cells(text), text)):
        index.add(value)
    return index


def source_values(text: str, whole: str = "", fits: Fits | None = None) -> Iterator[TextValue]:
    """Yield the values of a source, and what it may also mean."""
    yield from values_in(text, whole, fits)
    for number in loose_numbers_in(text):
        yield TextValue(number.text, number.start, number)


def cell_values(cells: str, whole: str = "", fits: Fits | None = None) -> Iterator[TextValue]:
    """Yield the values of the cells of a source's tables."""
    return (replace(value, is_loose=True) for value in values_in(cells, whole, fits))


def is_month(word: str) -> bool:
    return bool(month_at(word.rstrip(".,"), 0))


_TURKISH = str.maketrans({"I": "ı", "İ": "i"})
_MOST_NAME_CHARS = 40


def month_at(text: str, at: int) -> tuple[tuple[int, ...], int] | None:
    """Return what the name at an offset may be, and where it ends."""
    letters = _LETTERS.match(text, at)
    if letters is None:
        return None
    known = months_by_first_word()
    near = text[at : at + _MOST_NAME_CHARS].casefold()
    for word in dict.fromkeys((letters[0].casefold(), letters[0].translate(_TURKISH).casefold())):
        for name, months in known.get(word, ()):
            if name == word:
                return months, letters.end()
            end = at + len(name)
            is_there = near.startswith(name) and text[at:end].casefold() == name
            if is_there and not _LETTERS.match(text, end):
                return months, end
    return None


Order: TypeAlias = Literal["day first", "month first"]
_NUMERIC = re.compile(r"(?<![\d/.-])(\d{1,2})([-/])(\d{1,2})\2(?:\d{4}|\d{2})(?![\d/-])", re.ASCII)


@lru_cache(maxsize=1)
def _orders_in(text: str) -> frozenset[Order]:
    """Return in which orders days and months are written: as in dates that have only one.

    Else the day comes first, but in English, where either may.
    """
    orders: set[Order] = set()
    for first, _, second in _NUMERIC.findall(text):
        if int(first) > 12 >= int(second) > 0:
            orders.add("day first")
        elif int(second) > 12 >= int(first) > 0:
            orders.add("month first")
    if not orders and (languages := languages_of(text)) and "en" not in languages:
        orders.add("day first")
    return frozenset(orders)


def _has_dimension(number: Number | None, dimension: str) -> bool:
    kinds = ("second", "month") if dimension in ("second", "month") else (dimension,)
    if number is None or not number.is_sure:  # "a week" says nothing of a 1 elsewhere
        return False
    return any(reading.unit.dimension in kinds for reading in number.readings)


def _agree(number: Number, other: Number | None) -> bool:
    """Return whether two equal numbers may be the same; None: the year of a date."""
    return number.sign >= 0 if other is None else number.agrees(other)


def _possible_days(found: re.Match[str], orders: Collection[Order]) -> Iterator[Day]:
    parts, year = found.groupdict(), _year_of(found)
    if parts.get("m"):
        yield year, plain_number(parts["m"]), plain_number(parts["d"]) if parts.get("d") else None
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


def _named_dates(text: str) -> Iterator[tuple[TextValue, int]]:
    """Yield dates whose month is a name, and where each ends; of a range, both ends."""
    last = 0
    for name in _LETTERS.finditer(text):
        named = _named_month(text, name) if name.start() >= last else None
        if named is None:
            continue
        months, end = named
        is_short = end - name.start() <= _SHORT_NAME
        end += text[end : end + 1] == "."
        start, end, found = _days_around(text, last, name.start(), end)
        year = _year_around(text, last, start, end, has_day=bool(found))
        has_long_year = year is not None and year.end() > min(start, year.start()) + 6
        n_known = bool(found) + (year is not None)
        if not _is_date(name[0], n_known, is_short=is_short, has_long_year=has_long_year):
            continue
        if year is not None:
            start, end = min(start, year.start()), max(end, year.end())
        last = end
        date = TextValue(text[start:end].strip(" .,\n"), start, is_range=len(found) > 1)
        for of_month in [*map(_day_of, found)] or (None,):
            days = frozenset((_year_of(year), month, of_month) for month in months)
            yield replace(date, days=days), end


def _named_month(text: str, name: regex.Match[str]) -> tuple[tuple[int, ...], int] | None:
    is_known = name[0].casefold() in months_by_first_word()
    is_known = is_known or not name[0].isascii() or "I" in name[0]
    return month_at(text, name.start()) if is_known else None


def _is_date(name: str, n_known: int, *, is_short: bool, has_long_year: bool) -> bool:
    """Return whether the days and the year around a name are enough to take it for a month."""
    needs_both = is_short and name.casefold() not in _SHORT_MONTHS
    return n_known > needs_both and (has_long_year or name not in _IN_LOWER_CASE)


def _days_around(
    text: str, last: int, start: int, end: int
) -> tuple[int, int, list[re.Match[str]]]:
    """Return where a date begins and ends with its days, and the days: of a range, both."""
    day = _DAY_BEFORE.search(text, max(last, start - _BEFORE_CHARS), start)
    if day is not None:
        start = day.start()
        other = _FIRST_DAY.search(text, max(last, start - _BEFORE_CHARS), start)
        return (start, end, [day]) if other is None else (other.start(), end, [day, other])
    day = _DAY_AFTER.match(text, end)
    if day is None:
        return start, end, []
    other = _LAST_DAY.match(text, day.end())
    return (start, day.end(), [day]) if other is None else (start, other.end(), [day, other])


def _year_around(
    text: str, last: int, start: int, end: int, *, has_day: bool
) -> re.Match[str] | None:
    year = _YEAR_AFTER.match(text, end)
    if year is not None or not has_day:
        return year
    before = _YEAR_BEFORE.search(text, max(last, start - _BEFORE_CHARS), start)
    short = _SHORT_YEAR_AFTER.match(text, end)
    is_amount = short is not None and bool(units_after(text, short.end())[0])
    return before or (None if is_amount else short)


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
    if parts.get("era"):
        return _ERAS[parts["era"]] + (1 if parts["n"] == "元" else plain_number(parts["n"]))
    if parts.get("yy"):
        text = parts["yy"]
        return int(text) + (2000 if int(text) < 70 else 1900)
    return plain_number(parts["y"]) if parts.get("y") else None


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


def _with_surroundings(moment: TextValue, text: str) -> TextValue:
    """Return a time as what is next to it says: 7:45 in the evening is 19:45; until 9."""
    if not moment.clocks:
        return moment
    start, end = moment.bare
    moment = replace(moment, bound=time_bound(text, start, end))
    part = part_of_day(text, start, end)
    is_late = part == "late"
    clocks = frozenset(clock for clock in moment.clocks if (clock[0] >= 12) == is_late)
    if not part or not clocks:
        return moment
    return replace(moment, clocks=clocks, number=None)


def _written_clocks(value: TextValue) -> frozenset[Clock]:
    """Return the times that digits say: 9:30 alone is not 21:30."""
    is_in_digits = _HOUR_AND_MINUTE.match(value.text) is not None
    return frozenset((min(value.clocks),)) if is_in_digits and value.clocks else value.clocks


_FIRST_HOUR = re.compile(r"\d\d?", re.ASCII)
_HOUR_AND_MINUTE = re.compile(
    r"\d\d?\s?(?:[:.h]\s?\d\d(?!\s?[ap]\.?m)|h\Z)", re.ASCII | re.IGNORECASE
)


def _maybe_clocks(text: str, number: Number) -> Iterator[Clock]:
    """Yield the possible times of a number: `9.30`, `at 9`, `9 h`."""
    decimal = _DECIMAL_CLOCK.fullmatch(_HOUR_SIGN.sub("", number.text))
    if decimal is not None:
        yield from _possible_clocks(decimal[1], decimal[2], None)
    for reading in number.readings:
        minutes = reading.value * 60
        if minutes > 24 * 60 or minutes != int(minutes) or reading.unit not in (NO_UNIT, _HOUR):
            continue
        is_hour = reading.unit == _HOUR and _HOUR_NAME.search(number.text) is not None
        is_whole = reading.unit == NO_UNIT and minutes % 60 == 0
        if is_hour or (is_whole and _is_at_hour(text, number)):
            yield from _possible_clocks(*divmod(int(minutes), 60), None)


def _is_at_hour(text: str, number: Number) -> bool:
    """Return whether the words around a number say that it is a time of day: open 9 to 5."""
    start, end = number.start, number.end
    return (
        _HOUR_BEFORE.search(text, max(0, start - 10), start) is not None
        or _has_part_of_day(text, number)
        or _HOURS_AFTER.match(text, end) is not None
        or _OPEN_BEFORE.search(text, max(0, start - 40), start) is not None
    )


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
