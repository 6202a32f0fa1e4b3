"""Which parts of a long text can hold the values that are looked for.

To read all numbers of a million characters takes seconds, and few of them can be values of an
answer. In each notation in digits a number has the same digits, but for zeros at its ends and signs
between; numbers in words, fractions and times of day are read wherever such a word is. The index of
the parts that are left holds the same places as one of the whole text.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from itertools import chain, islice, pairwise

from .codes import LETTER, roman_value
from .dates_and_values import (
    DAY_IN_WORDS,
    HAN_MONTH,
    TextValue,
    ValueIndex,
    cell_values,
    month_at,
    source_values,
)
from .digits_and_cells import rounded, table_cells, with_ascii_digits
from .number_and_month_words import JOINED, months_by_first_word, numbers_of
from .number_scales import NO_SCALE, is_scaled
from .numbers import (
    ADDED_HALF,
    HUNDREDTHS,
    TURKISH_THOUSANDS,
    Number,
    is_half_word,
    lower_case,
    numbers_in,
)
from .scores import OUT_OF, TWICE, pairs_in
from .spelled_numbers import JOINING_WORDS, han_numbers_in, numbers_at_words, plain_number
from .times_and_durations import CLOCK_WORDS
from .units import NO_UNIT, PERCENT, factors_of, units_after, units_before
from .value_words import halves_in, is_share_word, shares_in, unspaced_shares_in

_LEAST_PART_CHARS, _MOST_PART_CHARS = 100, 400
_REACH_CHARS = 40  # a number may go on in the next part
_AROUND_CHARS = 120  # a number's period, the farthest of its words, is at most 90 away
_SPACE = re.compile(r"\s+")
_MOST_YEAR_PARTS = 20
"""Parts with a year of its own, which days without a year may be of."""
_FIRST_PARTS = 30
"""Of a value that is in very many."""
_MOST_PAIR_DIGITS = 8
_MOST_PLACES = 1000
"""Of a value; where so many equal numbers say something else, the check is not worth seconds."""
_YEARS, _THAI_YEARS = range(1000, 2200), 543
_SHORT_YEARS, _LONG_THAI_YEARS = range(1970, 2070), range(2400, 2600)
_MOST_NUMBER_CHARS = 10_000
_NO_DIGIT = re.compile(r"[^\d零〇一二两兩三四五六七八九十百千万萬亿億]")
_HAN_WORD = re.compile("[\u2e80-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff]")
_DIGITS = re.compile(r"[0-9]+")
_WORDS = re.compile(
    r"[^\W\d_]+(?:(?:[\u064b-\u0652]+|(?<=[\u0400-\u04ff])['\u2019](?=[\u0400-\u04ff]))[^\W\d_]*)*"
)
"""With the apostrophes of Ukrainian, and Arabic's vowel points."""
_MARKED = re.compile(
    r"[½¼¾⅓⅔⅛⅜⅝⅞⅕⅖⅗⅘⅙⅚]|[0-9][/\u2044][0-9]{1,3}(?![/0-9])|[0-9]\s?[hH]\s?[0-5][0-9]"
    r"|\b[Aa][ -](?:week|month|year)\b"
)
"""Fractions, 2 h 30, and a year."""
_ROMAN = re.compile(r"\b([XVI]+)(?:er?|i?ème|º|ª)?\b")
_GAP = r"(?:[^\W\d_]?[.,'\u2019\s/()-]{0,2})"
_EXPONENT = re.compile(r"(?<=[0-9])[eE][+-]?[0-9]{1,2}\Z")
_ZEROS_AFTER = re.compile(r"[^0-9]{1,2}0+(?![0-9])|[eE]")
_ZEROS_BEFORE = re.compile(r"(?<![0-9])(?<![0-9][.,])0+[^0-9]{1,2}\Z|\.\Z")
_NAMED, _NAME = re.compile(r"[^\W\d_]+[0-9]+"), re.compile(rf"{LETTER}[^\w\n]{{0,2}}\Z")
_NUMBER_END = re.compile(
    r"(?:[0-9.,'\u2019 \u00a0\u202f\u2009]{0,20}[0-9])?(?:[eE][+-]?[0-9]{1,2})?"
)
_BREAK = "\n\x00\n"
_JOIN = re.compile(
    rf"(?:,?\s{{1,2}}|[-\u2010\u2011])(?:(?:{'|'.join((*JOINING_WORDS, 'de'))})(?:\s{{1,2}}|-))?"
)


@dataclass
class _SoughtValues:
    """What a part of a text must have to hold one of the values that are looked for."""

    digits: set[str] = field(default_factory=set)
    """Of the numbers, without zeros at their ends."""
    codes: set[str] = field(default_factory=set)
    """Digits that are no values: those of codes, and hours with minutes."""
    named: set[str] = field(default_factory=set)
    """Digits of codes that begin with letters."""
    plain: set[str] = field(default_factory=set)
    """Those of the digits that need no unit after them."""
    united: set[str] = field(default_factory=set)
    """Those that may be without their unit where no number has it."""
    values: set[str] = field(default_factory=set)
    """Of the numbers, in each unit; in words a number is one of them, or has a scale after it."""
    years: set[str] = field(default_factory=set)
    days: dict[int, set[int]] = field(default_factory=dict)
    """By month, the days or the years that are next to it."""
    pairs: set[tuple[int, int]] = field(default_factory=set)
    """Numbers that are next to each other: in dates, scores and times of day."""
    has_clocks: bool = False
    has_scores: bool = False
    has_any_year: bool = False
    """Whether a day has no year: it is in every year."""
    _fitting: dict[str, bool] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Iterable[TextValue]) -> _SoughtValues:
        sought = cls()
        for value in values:
            sought.add(value)
        return sought

    def add(self, value: TextValue) -> None:
        for hour, minute in value.clocks:
            self._add_clock(hour, minute)
        for day in value.days:
            self._add_day(*day)
        score = _SCORE.fullmatch(value.number.code) if value.number is not None else None
        if score is not None:
            self.pairs.add((int(score[1]), int(score[2])))
            self.has_scores = True
        for is_named, digits in _codes_of(value) if score is None else ():
            (self.named if is_named else self.codes).add(digits)
        self.plain |= {*map(_bare, self.codes | self.named)}
        self.digits |= self.plain
        for number in _numbers_of(value) if score is None else ():
            self._add_values((float(number.roman),) if number.roman else (), self.plain)
            for reading in number.readings:
                values = [reading.value]
                if reading.value in _YEARS:
                    values += map(float, _years_like(int(reading.value)))
                if reading.unit == NO_UNIT:
                    self._add_values(values, self.plain)
                    continue
                is_part = number.is_share and reading.unit == PERCENT
                self._add_values(values, set() if is_part else self.united)
                factors = factors_of(reading.unit.dimension)
                self._add_values([rounded(reading.base / factor, 11) for factor in factors], set())

    def _add_clock(self, hour: int, minute: int) -> None:
        self.has_clocks = True
        hours = [hour + shift for shift in (-12, 0, 12, 24) if 0 <= hour + shift <= 24]
        if minute:
            self.pairs |= {(other, part) for other in hours for part in (minute, minute * 5 // 3)}
            self.codes |= {f"{other}{minute:02}" for other in hours}
        else:
            self._add_values(hours, self.plain)

    def _add_day(self, year: int | None, month: int, day: int | None) -> None:
        self.has_any_year = self.has_any_year or year is None
        years = {*_years_like(year)} if year is not None else set()
        self.years |= {_bare(str(written_year)) for written_year in years}
        next_to = years if day is None else {day}
        self.days.setdefault(month, set()).update(next_to)
        self.pairs |= {pair for number in next_to for pair in ((month, number), (number, month))}

    def digits_of(self, values: set[float]) -> tuple[set[str], set[str]]:
        """Return the digits of values that are looked for, and those that are with a scale."""
        sure = {_bare_digits(v) for v in map(_written, values) if v in self.values}
        return sure, (self.digits & {*map(_significant, values)}) - sure

    def has_day_in(self, month: int, days: set[int]) -> bool:
        """Return whether one of these days of a month is looked for, or all of that month."""
        known = self.days.get(month, set())
        return max(known, default=0) > _MOST_DAYS or not known.isdisjoint(days)

    def _add_values(self, values: Iterable[float], kind: set[str]) -> None:
        written = {*map(_written, values)}
        self.values |= written
        digits = {*map(_bare_digits, written)}
        self.digits |= digits
        kind |= digits

    def fits(self, text: str, month: int = 0) -> bool:
        """Return whether a number in digits, or the year and the day of a month, may be one."""
        if month in self.days:
            return True
        known = self._fitting.get(text)
        if known is None:
            runs = _DIGITS.findall(_EXPONENT.sub("", text))
            bare = {*map(_bare, runs), _bare("".join(runs))}
            known = not (bare.isdisjoint(self.digits) and bare.isdisjoint(self.years))
            is_pair = len(runs) == 2 and max(map(len, runs)) < _MOST_PAIR_DIGITS
            known = known or (is_pair and (int(runs[0]), int(runs[1])) in self.pairs)
            self._fitting[text] = known
        return known

    @cached_property
    def _beginnings(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for digits in self.digits:
            for n in range(1, len(digits)):
                found.setdefault(_bare(digits[:n]), []).append(digits)
        return found

    def month_words(self) -> set[str]:
        """Return the words with which the names of these months begin, in lower case."""
        known = _words_by_month() if self.days else {}
        return {word for month in self.days for word in known.get(month, ())}

    def digits_in(self, runs: Iterable[str], text: str, start: int, end: int) -> Iterator[str]:
        """Yield the values that may begin with one of these digits of a part of a text."""
        for run in runs:
            bare = _bare(run)
            if bare in self.digits and self._may_be(run, text, start, end):
                yield bare
            for longer in self._beginnings.get(bare, ()):
                if _pattern_of(longer).search(text, start, end + _REACH_CHARS):
                    yield longer

    def _may_be(self, run: str, text: str, start: int, end: int) -> bool:
        """Return whether digits are a value, or may be with the zeros or the scale next to them."""
        return (
            run in self.codes
            or _written(float(run)) in self.values
            or any(
                _ZEROS_AFTER.match(text, found.end())
                or _ZEROS_BEFORE.search(text, max(0, found.start() - 8), found.start())
                or is_scaled(text, found.end())
                or (
                    run in self.named
                    and _NAME.search(text, max(0, found.start() - 4), found.start())
                )
                for found in _DIGITS.finditer(text, start, end)
                if found[0] == run
            )
        )


@lru_cache(maxsize=1024)
def _pattern_of(digits: str) -> re.Pattern[str]:
    """Return a pattern of digits with what may be between two of them."""
    return re.compile(_GAP.join(digits))


@lru_cache(maxsize=1)
def _words_by_month() -> Mapping[int, set[str]]:
    found: dict[int, set[str]] = {}
    for first, names in months_by_first_word().items():
        word = first_word[0] if (first_word := _WORDS.match(first)) else ""
        for month in {month for _, months in names for month in months} if word else ():
            found.setdefault(month, set()).update((word, word.replace("ı", "i")))  # KASIM
    return found


def _numbers_of(value: TextValue) -> Iterator[Number]:
    if value.number is not None:
        yield value.number
        yield from (number for part in value.number.parts for number in numbers_in(part))


def _codes_of(value: TextValue) -> Iterator[tuple[bool, str]]:
    """Yield the digits of codes and versions, and whether there are letters before them."""
    for number in _numbers_of(value):
        if digits := sorted(_DIGITS.findall(number.code), key=len)[-1:]:
            yield _NAMED.fullmatch(number.code) is not None, digits[0]


def _years_like(year: int) -> Iterator[int]:
    """Yield what a year may be in a date: all of it, two digits, or as Thailand counts."""
    yield year
    if year in _SHORT_YEARS:
        yield year % 100
    if year + _THAI_YEARS in _LONG_THAI_YEARS:
        yield year + _THAI_YEARS


def _written(value: float) -> str:
    return f"{abs(value):.15g}"


def _bare_digits(written: str) -> str:
    return _bare(written.partition("e")[0].replace(".", ""))


def _significant(value: float) -> str:
    return _bare_digits(_written(value))


def _bare(digits: str) -> str:
    return digits.strip("0")


def index_of(text: str, values: Iterable[TextValue], most: int | None = None) -> ValueIndex:
    """Return an index of a text in which these values are found, as in one of the whole text.

    `most`: if more parts than that can hold them, numbers that are in many are looked for only in
    the first ones, those with just their digits before others, and near other values.
    """
    reader = _PartReader(text, [*values])
    reader.read(_chosen_parts(reader.held, most), reader.sought)
    return reader.index


def missing_in(
    text: str, values: Sequence[TextValue], is_place_of: Callable[[TextValue, TextValue], bool]
) -> list[TextValue]:
    """Return the values that a text does not support at any place where they may be.

    The text is read from its beginning, and only for values that what was read does not support:
    those that are frequent are found early. Of numbers with a unit, those that have one are read
    first. Each place is looked at once.
    """
    reader, left = _PartReader(text, values), [*values]
    seen: dict[int, set[int]] = {id(value): set() for value in values}

    def is_missing(value: TextValue) -> bool:
        places = seen[id(value)]
        for found in reader.index.find(value):
            if id(found) not in places and len(places) < _MOST_PLACES:
                places.add(id(found))
                if is_place_of(value, found):
                    return False
        return True

    reader.index.is_partial = True
    is_long = any(len(value.text) >= _LEAST_PART_CHARS for value in values)
    for reader.index.lacks_units in (True, False):
        first, n_parts = 0, reader.n_parts if is_long else _FIRST_PARTS
        while left and first < reader.n_parts:
            sought = _SoughtValues.of(left)
            reader.read(reader.parts_of(sought, range(first, first + n_parts)), sought)
            left = [*filter(is_missing, left)]
            first, n_parts = first + n_parts, 2 * n_parts
    reader.index.is_partial = False
    return [*filter(is_missing, left)]


class _PartReader:
    """Reads parts of a text into an index."""

    def __init__(self, text: str, values: Sequence[TextValue]) -> None:
        self.index = ValueIndex()
        self.sought = _SoughtValues.of(values)
        self._text, self._cells = text, with_ascii_digits(table_cells(text))
        # Where the parts of a text begin and end: whole lines or words where there are some
        borders, at = [0], 0
        while len(text) - at > _MOST_PART_CHARS:
            least = at + _LEAST_PART_CHARS
            at = (
                text.find("\n", least, at + _MOST_PART_CHARS) + 1
                or text.rfind(" ", least, least + _LEAST_PART_CHARS) + 1
                or min(_end_of_digits(text, least), least + _MOST_NUMBER_CHARS)
            )
            borders.append(at)
        borders_of = [*borders, len(text)]
        self._borders, self._whole = borders_of, with_ascii_digits(text)
        self.n_parts = len(self._borders) - 1
        self._in_words = set[tuple[str, int]]()
        self.held = _parts_by_reason(self._whole, self._borders, self.sought, self._in_words)
        self._read = set[int]()

    def parts_of(self, sought: _SoughtValues, among: range) -> set[int]:
        """Return which parts that were not read may hold values, of numbers with a unit in it."""
        others = (("years", sought.years), ("moments", sought.has_clocks or sought.pairs))
        found = {*self.held.get("words", ())}
        found.update(*(self.held.get(reason, ()) for reason, is_sought in others if is_sought))
        for digits in sought.digits:
            is_any = digits in sought.plain
            is_any = is_any or (digits in sought.united and not self.index.lacks_units)
            parts = self.held.get(digits, ())
            found.update(
                part
                for part in parts
                if part in among and (is_any or self._may_have_unit(digits, part, sought))
            )
        return found.intersection(among) - self._read

    def _may_have_unit(self, digits: str, part: int, sought: _SoughtValues) -> bool:
        if (digits, part) in self._in_words or not digits:
            return True
        start, end = self._borders[part : part + 2]
        return any(
            _may_have_unit(text, *found.span())
            for text in (self._whole, self._cells)
            for found in _pattern_of(digits).finditer(text, start, end + _REACH_CHARS)
        )

    def read(self, parts: set[int], sought: _SoughtValues) -> None:
        """Add the values of some parts that are among those looked for."""
        self._read |= parts
        runs = [*_runs(number in parts for number in range(self.n_parts))]
        for text, values_of in ((self._text, source_values), (self._cells, cell_values)):
            reading = partial(values_of, whole=self._whole, fits=sought.fits)
            for value in _values_at(text, self._borders, runs, reading):
                self.index.add(value)


def _may_have_unit(text: str, start: int, end: int) -> bool:
    """Return whether a number that has some digits of a text may have a unit or a scale."""
    before = text[max(0, start - _REACH_CHARS) : start]
    start -= len(before) - len(before.rstrip("0123456789.,"))
    last = _NUMBER_END.match(text, end)
    end = last.end() if last is not None else end
    is_after = text[end : end + 1] not in NO_SCALE and (
        is_scaled(text, end) or bool(units_after(text, end)[0])
    )
    return is_after or bool(units_before(text, start)) or text[start - 1 : start] == "之"


def _values_at(
    text: str,
    borders: Sequence[int],
    runs: Iterable[tuple[int, int]],
    values_of: Callable[[str], Iterator[TextValue]],
) -> Iterator[TextValue]:
    """Yield the values in runs of parts of a text, which are read with what is around them."""
    spans, texts, starts, n = [], [], [], 0
    for first, last in runs:
        begin, end = _around(text, borders, first, last)
        if not text[begin:end].isspace():
            spans.append((begin, borders[first], borders[last]))
            texts.append(text[begin:end])
            starts.append(n)
            n += end - begin + len(_BREAK)
    for value in values_of(_BREAK.join(texts)) if any(texts) else ():
        at = bisect_right(starts, value.start) - 1
        begin, first, last = spans[at]
        start = begin + value.start - starts[at]
        if start < last and start + len(value.text) > first:  # else it is only context
            yield value.moved(start - value.start)


def _around(text: str, borders: Sequence[int], first: int, last: int) -> tuple[int, int]:
    """Return where the whole words begin and end that are read around parts of a text."""
    least, most = borders[max(0, first - 1)], borders[min(len(borders) - 1, last + 1)]
    begin, end = borders[first] - _AROUND_CHARS, borders[last] + _AROUND_CHARS
    if begin > least:
        gap = _SPACE.search(text, begin, borders[first])
        least = gap.end() if gap is not None else least
    if end < most:
        gap = _SPACE.search(text, end, most)
        most = gap.start() if gap is not None else most
    return least, most


def _end_of_digits(text: str, start: int) -> int:
    found = _NO_DIGIT.search(text, start, start + _MOST_NUMBER_CHARS)
    return len(text) if found is None else found.start()


def _runs(is_chosen: Iterable[bool]) -> Iterator[tuple[int, int]]:
    """Yield the first of chosen parts in a row, and the one after the last."""
    first = -1
    for number, is_one in enumerate([*is_chosen, False]):
        if is_one and first < 0:
            first = number
        elif not is_one and first >= 0:
            yield first, number
            first = -1


def _chosen_parts(held: Mapping[str, Mapping[int, bool]], most: int | None) -> set[int]:
    """Return which parts are read, of those that can hold each of the values."""
    chosen, exact = set[int](), set[int]()
    near: set[int] | None = None
    for reason, parts in sorted(held.items(), key=lambda item: (item[0].isdecimal(), len(item[1]))):
        is_read = most is None or len(chosen) + len(parts) <= most or not reason.isdecimal()
        if near is None and is_read:
            chosen.update(parts)
            exact.update(parts if reason.isdecimal() else ())
            continue
        if near is None:
            near = {part + step for part in exact for step in (-1, 0, 1)}
        alone = [part for part, is_alone in parts.items() if is_alone]
        chosen.update(alone[:_FIRST_PARTS], [*parts][:_FIRST_PARTS], near.intersection(parts))
    return chosen


def _parts_by_reason(
    text: str, borders: Sequence[int], sought: _SoughtValues, words: set[tuple[str, int]]
) -> Mapping[str, Mapping[int, bool]]:
    """Return which parts have the digits of a value, or words and signs that may be one.

    With whether the digits are there without others. `words`: those in words are added to it.
    """
    lower = lower_case(text)
    words_of = _CandidateWords.of(set(_WORDS.findall(lower)), sought)
    places = words_of.places_in(lower)
    in_words: dict[int, set[str]] = {}
    for at, digits in words_of.digits_in(lower, places):
        in_words.setdefault(bisect_right(borders, at) - 1, set()).add(digits)
    held: dict[str, dict[int, bool]] = {}
    for number, (start, end) in enumerate(pairwise(borders)):
        runs = set(_DIGITS.findall(text, start, end))
        for digits in sought.digits_in(runs, text, start, end):
            held.setdefault(digits, {})[number] = digits in runs
        for digits in in_words.get(number, ()):
            held.setdefault(digits, {})[number] = True
            words.add((digits, number))
        years = held.setdefault("years", {})
        if len(years) < _MOST_YEAR_PARTS and not sought.years.isdisjoint(map(_bare, runs)):
            years[number] = True
    months = words_of.months_in(text, lower, places)
    others = {
        "words": chain(words_of.shares_in(lower, places), _other_places(text, lower, sought)),
        "moments": chain(months, _moment_places(text, lower, sought)),
    }
    for reason, offsets in others.items():
        for at in offsets:
            number = min(bisect_right(borders, at), len(borders) - 1) - 1
            held.setdefault(reason, {})[number] = True
    for at, digits in _han_places(text, sought):
        number = min(bisect_right(borders, at), len(borders) - 1) - 1
        held.setdefault(digits, {})[number] = True
        words.add((digits, number))
    return held


@dataclass
class _CandidateWords:
    """The words of a text that may be numbers or months, by what they can be."""

    digits: Mapping[str, tuple[set[str], set[str]]]
    """Of each word, those that are looked for, and those that are where a scale follows."""
    halves: set[str]
    shares: set[str]
    """Words with which fractions and multiples begin."""
    months: set[str]
    """Words with which the names of months begin."""
    sought: _SoughtValues

    @classmethod
    def of(cls, vocabulary: Iterable[str], sought: _SoughtValues) -> _CandidateWords:
        digits, halves, shares = dict[str, tuple[set[str], set[str]]](), set[str](), set[str]()
        months, names = set[str](), sought.month_words()
        for word in vocabulary:
            if not names.isdisjoint((word, word.casefold())):
                months.add(word)
            if _HAN_WORD.match(word):  # a clause; its numerals are in `_han_places`
                continue
            values = {value for _, value in numbers_at_words(word)}
            values |= {2.0} if TWICE.match(word) else set()
            if values or numbers_of(word) or numbers_of(word.lstrip(JOINED)):
                digits[word] = sought.digits_of(values)
            if is_half_word(word):
                halves.add(word)
            if is_share_word(word) or ADDED_HALF.match(word):
                shares.add(word)
        return cls(digits, halves, shares, months, sought)

    def places_in(self, text: str) -> Sequence[re.Match[str]]:
        """Return where such words are in a lower-case text, in order."""
        known = {*self.digits, *self.halves, *self.months}
        return [word for word in _WORDS.finditer(text) if word[0] in known] if known else []

    def digits_in(self, text: str, words: Iterable[re.Match[str]]) -> Iterator[tuple[int, str]]:
        """Yield the offsets of number words, and the digits looked for that they may have."""
        places = [word.span() for word in words if word[0] in self.digits]
        first = 0
        for at, (start, end) in enumerate(places):
            sure, scaled = self.digits[text[start:end]]
            for digits in sure | scaled if scaled and is_scaled(text, end) else sure:
                yield start, digits
            after = places[at + 1][0] if at + 1 < len(places) else None
            if after is not None and _JOIN.fullmatch(text, end, after):
                continue
            if first < at:
                yield from self._joined_in(text, places[first][0], end)
            first = at + 1

    def _joined_in(self, text: str, begin: int, end: int) -> Iterator[tuple[int, str]]:
        """Yield the same for the numbers of several words in a row."""
        for offset, value in numbers_at_words(text[begin:end]):
            if (digits := _significant(value)) in self.sought.digits and (
                _written(value) in self.sought.values or is_scaled(text, end)
            ):
                yield begin + offset, digits

    def shares_in(self, text: str, words: Iterable[re.Match[str]]) -> Iterator[int]:
        """Yield offsets of halves, fractions and multiples in a lower-case text."""
        yield from (word.start() for word in words if word[0] in self.halves)
        if self.shares:
            yield from (start for start, *_ in shares_in(text))
            yield from (found.start() for found in halves_in(text))

    def months_in(self, text: str, lower: str, words: Iterable[re.Match[str]]) -> Iterator[int]:
        """Yield where months are named that are looked for, with one of their days or years."""
        for word in words:
            start = word.start()
            named = month_at(text, start) if word[0] in self.months else None
            if named is None:
                continue
            numbers, end = named
            days = {day for number in numbers for day in self.sought.days.get(number, ())}
            gap = _GAP_AFTER.match(text, end)
            begin, stop = max(0, start - _REACH_CHARS), gap.end() if gap is not None else end
            near = {*map(int, _SHORT_RUN.findall(text, begin, stop + _REACH_CHARS))}
            is_year = max(days, default=0) > _MOST_DAYS  # each of its days is in it
            is_near = bool(near) if is_year else not near.isdisjoint(days)
            if is_near or (days and DAY_IN_WORDS.search(lower, begin, end + _REACH_CHARS)):
                yield start


_NEXT_TO = re.compile(r"(?<![0-9])0*([0-9]{1,4})(?=(?!\s+[0-9])[^0-9]{1,9}0*([0-9]{1,4})(?![0-9]))")
_SHORT_RUN = re.compile(r"(?<![0-9])[0-9]{1,4}(?![0-9])")
_GAP_AFTER = re.compile(r"[.,]*\s*")
_SCORE = re.compile(r"([0-9]+)-([0-9]+)")
_YEAR_BEFORE = re.compile(r"(?<![0-9])([0-9]{4})[-/.年]\Z")
_YEAR_AFTER = re.compile(r"[-/.][ ]?([0-9]{4})(?![0-9])")
_HAN_YEAR = re.compile("[一二][零〇一二三四五六七八九]{3}(?=年)")
_MONTH_SIGNS, _MOST_DAYS = ("月", "월"), 31
_DAYS = re.compile(r"[0-9]{1,2}[日号][^0-9]{1,2}[0-9]")
"""A range, of which the last day is not next to its month."""


def _moment_places(text: str, lower: str, sought: _SoughtValues) -> Iterator[int]:
    """Yield offsets of days, scores and times of day."""
    if sought.pairs:
        yield from _pair_places(text, sought)
    if sought.has_scores:
        yield from (pair.start for pair in pairs_in(lower))
    if sought.has_clocks:
        yield from (found.start() for found in CLOCK_WORDS.finditer(lower))
    yield from _han_moment_places(text, sought)


def _han_moment_places(text: str, sought: _SoughtValues) -> Iterator[int]:
    for found in HAN_MONTH.finditer(text) if sought.days else ():
        days = {plain_number(day) for day in found.group("d", "e") if day}
        if sought.has_day_in(plain_number(found["m"]), days):
            yield found.start()
    if sought.years:
        found_years = (
            found.start()
            for found in _HAN_YEAR.finditer(text)
            if _bare(str(plain_number(found[0]))) in sought.years
        )
        yield from islice(found_years, _MOST_YEAR_PARTS)


def _pair_places(text: str, sought: _SoughtValues) -> Iterator[int]:
    """Yield offsets of two numbers next to each other, of days only with a year looked for."""
    for found in _NEXT_TO.finditer(text):
        pair, end = (int(found[1]), int(found[2])), found.end()
        is_of_month = pair[0] in sought.days and text[end : end + 1] in _MONTH_SIGNS
        if pair in sought.pairs or (
            is_of_month and (_DAYS.match(text, end + 1) or sought.has_day_in(pair[0], set()))
        ):
            year = _YEAR_AFTER.match(text, found.end(2)) or _YEAR_BEFORE.search(
                text, max(0, found.start() - 6), found.start()
            )
            if year is None or sought.has_any_year or _bare(year[1]) in sought.years:
                yield found.start()


def _other_places(text: str, lower: str, sought: _SoughtValues) -> Iterator[int]:
    """Yield offsets of fractions in signs and in scripts without spaces, and Roman numerals."""
    for pattern in (_MARKED, OUT_OF, HUNDREDTHS, TURKISH_THOUSANDS):
        yield from (found.start() for found in pattern.finditer(text))
    for found in _ROMAN.finditer(text):
        if _written(float(roman_value(found[1]))) in sought.values:
            yield found.start()
    if not text.isascii():
        yield from (start for start, *_ in unspaced_shares_in(lower))


def _han_places(text: str, sought: _SoughtValues) -> Iterator[tuple[int, str]]:
    """Yield offsets of Chinese numerals, and the digits looked for that they may have."""
    for start, value in han_numbers_in(text) if not text.isascii() else ():
        if (written := _written(value)) in sought.values:
            yield start, _bare_digits(written)
