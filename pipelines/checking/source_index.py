"""Which rule finds a value, and where a source has it: codes, dates, numbers, else text.

A text that is wholly a code, a date or a number, in this order, is looked for as such.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Collection, Iterator
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

from paddock.engine.system.records import Struct, replace
from paddock.pipelines.text_marks import value_as_shown

from .codes import Code, CodeIndex, codes_in, is_code, is_long
from .dates import DateIndex
from .folding import FoldedText, Span, plain
from .language_model import languages_of
from .numbers import NumberIndex, NumberToken, SoughtNumber
from .text_index import Quote, TextIndex

_MOST_VALUE_CHARS = 100
"""A longer text is no code, date or number."""
_ISO_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:\.0+)?(?:Z|[+-]\d\d:?\d\d)?"
)
_SPACED_AMOUNT = re.compile(r"(?<=\d) (?=\d{3}(?!\d))")
_WITH_DIGITS = re.compile(r"\w*\d(?:\S*\w)?")
_RUN = re.compile(r"\d+")
_DIGITS = re.compile(r"-?\d(?:.*\d)?")
_WORD_END = re.compile(r"[^\W\d_]\.? \Z")
_IS_VERSION = re.compile(r"\d{1,2}\.\d+")
_MOMENT_CHARS = 24  # between a day and its time
_MOST_LINE_CHARS = 1_000
_UNDECIDED = "und"
"""No language: what a language decides stays open."""


class DayAndTime(Struct, frozen=True):
    day: datetime.date | None
    seconds: int | None = None
    """Since midnight."""


Sought: TypeAlias = Code | DayAndTime | SoughtNumber


class TextValue(Struct, frozen=True):
    """A code, date, time or number of a text, with its offsets."""

    start: int
    end: int
    text: str
    sought: Sought | None
    """None: with something that these rules do not read, such as a range: it is found as text."""
    readings: tuple[tuple[TextValue, ...], ...] = ()
    """Where readings compete, the values of each: 7 EUR and 99, or 7 and EUR 99."""


class SourceIndex:
    """Where values are in a text; its language is `language`, else recognised where it decides."""

    def __init__(self, text: str, language: str = "") -> None:
        self.text = text
        self._set_language = language
        self.words = TextIndex(text)

    @cached_property
    def plain(self) -> FoldedText:
        return plain(self.text)

    @cached_property
    def _languages(self) -> tuple[str, ...]:
        return (self._set_language,) if self._set_language else languages_of(self.text)

    @cached_property
    def dates(self) -> DateIndex:
        return DateIndex(self.plain.text, lambda: self._languages, bool(self._set_language))

    @cached_property
    def numbers(self) -> NumberIndex:
        is_in_date = self.dates.holds_digits
        return NumberIndex(self.plain.text, lambda: self._languages, is_in_date)

    @cached_property
    def _codes(self) -> CodeIndex:
        return CodeIndex(self.plain.text)

    def find(self, value: Any) -> list[Quote]:
        if isinstance(value, int | float):
            if isinstance(value, float) and not math.isfinite(value):
                return []
            number = sought_number(value)
            return self._find_number(number, {repr(value), str(value).removesuffix(".0")})
        text = value_as_shown(str(value).strip())
        sought = sought_in(text)
        if sought is None:
            return self.words.find(text) or self.words.find_similar(text)
        found = self._find(sought, text)
        # Digits in groups, and long ones, may be a code as well
        is_code = isinstance(sought, SoughtNumber) and ("\u00a0" in sought.raw or is_long(text))
        return found or (self._find(Code(text), text) if is_code else [])

    def find_value(self, value: TextValue, within: float = 0.0) -> list[Quote]:
        """Return where a value of another text is; `within`: by which share a number may differ."""
        if value.sought is None:
            return self.words.find(value.text)
        return self._find(value.sought, value.text, within)

    def same_digits(self, number: SoughtNumber) -> Iterator[Quote]:
        return (self._quote(*span, ()) for span in self.numbers.same_digits(number))

    def same_days(self, day: datetime.date) -> Iterator[Quote]:
        return (self._quote(token.start, token.end, ()) for token in self.dates.same_days(day))

    def _find(self, sought: Sought, text: str, within: float = 0.0) -> list[Quote]:
        if isinstance(sought, Code):
            spans = self._codes.find(plain(sought.text).text)
            return [self._quote(*span, {text}) for span in spans]
        if isinstance(sought, DayAndTime):
            return self._find_moment(sought, text)
        return self._find_number(sought, {text}, within)

    def _find_number(
        self, sought: SoughtNumber, written: Collection[str], within: float = 0.0
    ) -> list[Quote]:
        found = (
            token.digits if sought.unit is None else (token.start, token.end)
            for token in self.numbers.find(sought, within)
        )
        return [self._quote(*span, written) for span in sorted(found)]

    def _find_moment(self, sought: DayAndTime, text: str) -> list[Quote]:
        found: list[Quote] = []
        all_times = () if sought.seconds is None else self.dates.times()
        times = [time for time in all_times if time.seconds == sought.seconds]
        if sought.day is None:
            return [self._quote(time.start, time.end, {text}) for time in times]
        for day in self.dates.find(sought.day):
            if sought.seconds is None:
                found.append(self._quote(day.start, day.end, {text}, day.reason))
                continue
            for time in times:
                (start, begin), (stop, end) = sorted(((day.start, day.end), (time.start, time.end)))
                between = self.plain.text[begin:stop]
                is_one = begin <= stop and len(between) <= _MOMENT_CHARS
                if is_one and not any(sign.isdecimal() or sign in "\n\f" for sign in between):
                    found.append(self._quote(start, end, {text}, day.reason))
        whole = [quote for quote in found if quote.match != "partial"]
        return sorted(whole or found, key=lambda quote: quote.start)

    def place(self, start: int, end: int) -> Span:
        """Return where in the text a token of `numbers` or `dates` stands."""
        return self.plain.original(start, end)

    def _quote(
        self, start: int, end: int, written: Collection[str], reason: str | None = None
    ) -> Quote:
        begin, stop = self.place(start, end)
        if reason is not None:
            return Quote(begin, stop, "partial", reason=reason)
        return Quote(begin, stop, "exact" if self.text[begin:stop] in written else "normalised")


def sought_number(value: float) -> SoughtNumber:
    amount = Decimal(repr(value) if isinstance(value, float) else value)
    return SoughtNumber(abs(amount), is_negative=amount < 0)


@lru_cache(maxsize=1024)
def sought_in(value: str) -> Sought | None:
    """Return what a text wholly is; None: a text.

    >>> sought_in("HC-0457"), sought_in("09:30"), sought_in("12 Quay St")
    (Code(text='HC-0457'), DayAndTime(day=None, seconds=34200), None)
    """
    if not value or len(value) > _MOST_VALUE_CHARS:
        return None
    value = value_as_shown(value)
    if found := _ISO_MOMENT.fullmatch(value):
        day, time = (sought_in(part) for part in found.groups())
        if isinstance(day, DayAndTime) and isinstance(time, DayAndTime):
            return replace(day, seconds=time.seconds)
    # A number by itself may have its groups apart: 12 345,50 EUR
    joined = _SPACED_AMOUNT.sub("\u00a0", value)
    for token in values_in(joined):
        if token.text == joined and token.sought is not None:
            return token.sought
    return Code(value) if is_code(value) else None


def values_in(text: str, language: str = "") -> list[TextValue]:
    """Return the codes, dates, times and numbers of a text, in order.

    >>> [value.text for value in values_in("HC-0457 of 3 May 2024: 40 EUR, at 9:30.")]
    ['HC-0457', '3 May 2024', '40 EUR', '9:30']
    """
    index = SourceIndex(text, language)
    whole, numbers = index.plain, index.numbers
    is_digit = bytes(map(str.isdecimal, whole.text))
    left = bytearray(is_digit)
    """Digits that are in no value yet."""
    values: dict[Span, Sought | None] = {}
    opened: dict[Span, Span] = {}

    def add(start: int, end: int, sought: Sought | None, own: Span | None = None) -> None:
        """Add what has digits of its own: it may overlap with others."""
        if 1 not in is_digit[start:end] or 1 in left[slice(*(own or (start, end)))]:
            left[start:end] = bytes(end - start)
            values[start, end] = sought

    def value_at(start: int, end: int, sought: Sought | None) -> TextValue:
        place = whole.original(start, end)
        return TextValue(*place, text[slice(*place)], sought)

    for time in index.dates.times():  # 2 pm, which is July somewhere
        add(time.start, time.end, DayAndTime(None, time.seconds))
    for date in index.dates.all():
        days = [datetime.date(y, m, d) for y, m, d in date.days if y is not None]
        is_sure = len(days) == 1 and date.reason is None
        add(date.start, date.end, DayAndTime(days[0]) if is_sure else None)
    for token in numbers.all():
        if token.obstacle != "code":
            span, number = _number_of(numbers, token)
            if number is None and 1 not in is_digit[slice(*token.digits)]:
                continue  # a lone ½ is no word, so that it is not found as text
            add(*span, number, token.digits)
            if numbers.is_open(*token.digits):
                opened[span] = token.digits
    for start, end in codes_in(whole.text):
        add(start, end, Code(whole.text[start:end]))
    by_rule = {*values}
    for rest in _WITH_DIGITS.finditer(whole.text):  # a number with an ending: 9'dan
        add(*rest.span(), None)
    found: list[TextValue] = []
    for span, sought in sorted(values.items(), key=lambda item: item[0]):
        value = value_at(*span, sought)
        if span not in by_rule:
            runs = (value_at(span[0] + run.start(), span[0] + run.end(),
                             SoughtNumber(numbers.amount(run[0]), run[0]))
                    for run in _RUN.finditer(whole.text[slice(*span)]))  # fmt: skip
            value = replace(value, readings=((value,), tuple(runs)))
        if span in opened:  # Pier 7 500: as one, as text, and apart; by itself it is one
            as_text = replace(value, sought=None)
            parts = (_number_of(numbers, part) for part in numbers.parts(*opened[span]))
            readings = (value,), (as_text,), tuple(value_at(*at, part) for at, part in parts)
            if _WORD_END.search(text, max(0, value.start - 3), value.start):
                value = replace(as_text, readings=readings)
            else:
                value = replace(value, readings=readings[:2])
        if found and value.start < found[-1].end and _is_amount(value) and _is_amount(found[-1]):
            value = _contested(text, found.pop(), value)
        found.append(value)
    return found


def _number_of(numbers: NumberIndex, token: NumberToken) -> tuple[Span, Sought | None]:
    if token.obstacle == "code":
        return token.digits, Code(token.raw)
    if token.obstacle is not None or (token.unit is not None and not token.unit.ids):
        return (token.start, token.end), None
    amount = numbers.amount(token.raw)
    is_version = token.unit is None and amount is not None and _IS_VERSION.fullmatch(token.raw)
    sought = SoughtNumber(
        amount, token.raw, token.is_negative, token.unit,
        keeps_fraction=bool(is_version and amount == Decimal(token.raw)),
    )  # fmt: skip
    return token.digits if token.unit is None else (token.start, token.end), sought


def _is_amount(value: TextValue) -> bool:
    return isinstance(value.sought, SoughtNumber) and value.sought.unit is not None


def _contested(text: str, first: TextValue, second: TextValue) -> TextValue:
    """Return two numbers of which either may have the currency between them."""
    bare = []
    for value in (first, second):
        digits = _DIGITS.search(value.text)
        assert digits is not None
        assert isinstance(value.sought, SoughtNumber)
        start, end = (value.start + at for at in digits.span())
        bare.append(TextValue(start, end, digits[0], replace(value.sought, unit=None)))
    readings = (first, bare[1]), (bare[0], second)
    return TextValue(first.start, second.end, text[first.start : second.end], None, readings)


def number_in(value: str, language: str = "") -> float | None:
    """Return the only number of a line; None: it has none, several, or one that may be two.

    Nor has it one whose digits a number of JSON does not hold.

    >>> [number_in(text) for text in ("1.234,50 EUR", "-12", "1.234", "2 of 3", "by 3 May 2024")]
    [1234.5, -12.0, None, None, None]
    >>> number_in("1.234", "de"), number_in("1.234", "en")
    (1234.0, 1.234)
    """
    values = values_in(str(value)[:_MOST_LINE_CHARS], language or _UNDECIDED)
    numbers = [v.sought for v in values if not isinstance(v.sought, DayAndTime | Code)]
    if len(numbers) != 1 or numbers[0] is None or numbers[0].amount is None:
        return None
    amount = float(-numbers[0].amount if numbers[0].is_negative else numbers[0].amount)
    return amount if abs(Decimal(repr(amount))) == numbers[0].amount else None


def date_in(value: str, language: str = "") -> str | None:
    """Return the only date of a line; None: it has none, several, or one that may be two.

    >>> [date_in(text) for text in ("am 28. Oktober 2026", "03.05.2024", "03/05/2024", "3 May")]
    ['2026-10-28', '2024-05-03', None, None]
    >>> date_in("03/05/2024", "fr")
    '2024-05-03'
    """
    tokens = SourceIndex(str(value)[:_MOST_LINE_CHARS], language or _UNDECIDED).dates.all()
    days = {day for token in tokens for day in token.days}
    if len(days) != 1 or any(token.reason for token in tokens):
        return None
    ((year, month, day),) = days
    return None if year is None else datetime.date(year, month, day).isoformat()
