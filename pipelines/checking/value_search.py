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
from functools import cached_property, partial
from itertools import pairwise

from .clock_words import CLOCK_WORDS
from .language_data import numbers_of
from .number_words import JOINING_WORDS, numbers_at_words
from .numbers import (
    ADDED_HALF,
    AND_HALF,
    OUT_OF,
    han_numbers_in,
    is_half_word,
    loose_numbers_in,
    numbers_in,
    rounded,
    with_ascii_digits,
)
from .units import NO_UNIT, factors_of
from .value_words import is_share_word, shares_in, unspaced_shares_in
from .values_in_text import TextValue, ValueIndex, cell_values, source_values, table_cells

_LEAST_PART_CHARS, _MOST_PART_CHARS = 100, 400
_REACH_CHARS = 40  # a number may go on in the next part
_MOST_YEAR_PARTS = 20
"""Parts with a year of its own, which days without a year may be of."""
_FIRST_PARTS = 30
"""Of a value that is in very many."""
_YEARS, _THAI_YEARS = range(1000, 2200), 543
_MOST_NUMBER_CHARS = 10_000
_NO_DIGIT = re.compile(r"[^\d零〇一二两兩三四五六七八九十百千万萬亿億]")
_DIGITS, _WORDS = re.compile(r"[0-9]+"), re.compile(r"[^\W\d_]+")
_MARKED = re.compile(
    r"[½¼¾⅓⅔⅛⅜⅝⅞⅕⅖⅗⅘⅙⅚]|[0-9][/\u2044][0-9]{1,3}(?![/0-9])|\b[XVI]+(?:er?|i?ème)?\b|[0-9]\s?[hH]\s?[0-5][0-9]"
)
"""Fractions, Roman numerals, and 2 h 30."""
_GAP = r"(?:[.,'\u2019\s/()-]{0,2}|[^\W\d_])"
_BREAK = "\n\x00\n"
_JOIN = re.compile(
    rf"(?:\s{{1,2}}|[-\u2010\u2011])(?:(?:{'|'.join(JOINING_WORDS)})(?:\s{{1,2}}|-))?"
)


@dataclass
class _Wanted:
    """What a part of a text must have to hold one of the values that are looked for."""

    digits: set[str] = field(default_factory=set)
    """Of the numbers, without zeros at their ends."""
    years: set[str] = field(default_factory=set)
    has_clocks: bool = False

    def add(self, said: TextValue) -> None:
        self.has_clocks = self.has_clocks or bool(said.clocks)
        hours = {hour + more for hour, _ in said.clocks for more in (-12, 0, 12, 24)}
        self.digits |= {_bare(str(hour)) for hour in hours if 0 < hour <= 24}
        for year, _, day in said.days:
            years = {*_years_like(year)} if year is not None else set()
            self.years |= years
            self.digits |= years if day is None else {_bare(str(day))}
        self.digits |= {*_digits_of(said)}

    def fits(self, text: str) -> bool:
        """Return whether a number in digits may be one of them."""
        runs = {*map(_bare, _DIGITS.findall(text))}
        runs.add(_bare("".join(_DIGITS.findall(text))))
        return not runs.isdisjoint(self.digits) or not runs.isdisjoint(self.years)

    @cached_property
    def _patterns(self) -> dict[str, re.Pattern[str]]:
        return {one: re.compile(_GAP.join(one)) for one in self.digits if len(one) > 1}

    @cached_property
    def _beginnings(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for one in self._patterns:
            for n in range(1, len(one)):
                found.setdefault(_bare(one[:n]), []).append(one)
        return found

    def digits_in(self, runs: Iterable[str], text: str) -> Iterator[str]:
        """Yield the values that may begin with one of these digits of a text."""
        for run in map(_bare, runs):
            if run in self.digits:
                yield run
            for one in self._beginnings.get(run, ()):
                if self._patterns[one].search(text):
                    yield one


def _digits_of(said: TextValue) -> Iterator[str]:
    """Yield the digits that a number has in each notation."""
    number = said.number
    if number is None:
        return
    for inner in (number, *(one for part in number.parts for one in numbers_in(part))):
        for reading in inner.readings:
            yield _significant(reading.value)
            if reading.value in _YEARS:
                yield from _years_like(int(reading.value))
            if reading.unit != NO_UNIT:
                for factor in factors_of(reading.unit.dimension):
                    yield _significant(rounded(reading.base / factor, 11))
        for code in (inner.code, inner.written):
            yield from map(_bare, sorted(_DIGITS.findall(code), key=len)[-1:])


def _years_like(year: int) -> Iterator[str]:
    """Yield the digits of a year in a date: all of them, two, or as Thailand counts."""
    yield from (_bare(str(year)), _bare(str(year)[-2:]), _bare(str(year + _THAI_YEARS)))


def _significant(value: float) -> str:
    return _bare(f"{abs(value):.15g}".partition("e")[0].replace(".", ""))


def _bare(digits: str) -> str:
    return digits.strip("0")


def index_of(text: str, values: Iterable[TextValue], most: int | None = None) -> ValueIndex:
    """Return an index of a text in which these values are found, as in one of the whole text.

    `most`: if more parts than that can hold them, numbers that are in many are looked for only in
    the first ones, those with just their digits before others, and near other values.
    """
    wanted = _Wanted()
    for said in values:
        wanted.add(said)
    borders, whole = _borders_of(text), with_ascii_digits(text)
    chosen = _chosen_parts(_parts_by_reason(whole, borders, wanted), most)
    runs = [*_runs(number in chosen for number in range(len(borders) - 1))]
    index = ValueIndex()
    for read, values_of in ((text, source_values), (table_cells(text), cell_values)):
        for said in _values_at(
            read, borders, runs, partial(values_of, whole=whole, fits=wanted.fits)
        ):
            index.add(said)
    return index


def _values_at(
    text: str,
    borders: Sequence[int],
    runs: Iterable[tuple[int, int]],
    values_of: Callable[[str], Iterator[TextValue]],
) -> Iterator[TextValue]:
    """Yield the values in runs of parts of a text, which are read with a part on either side."""
    spans, texts, starts, n = [], [], [], 0
    for first, last in runs:
        begin, end = borders[max(0, first - 1)], borders[min(len(borders) - 1, last + 1)]
        if not text[begin:end].isspace():
            spans.append((begin, borders[first], borders[last]))
            texts.append(text[begin:end])
            starts.append(n)
            n += end - begin + len(_BREAK)
    for said in values_of(_BREAK.join(texts)) if any(texts) else ():
        at = bisect_right(starts, said.start) - 1
        begin, first, last = spans[at]
        start = begin + said.start - starts[at]
        if start < last and start + len(said.text) > first:  # else it is only context
            yield said.moved(start - said.start)


def _borders_of(text: str) -> list[int]:
    """Return where the parts of a text begin and end: whole lines or words where there are some."""
    borders, at = [0], 0
    while len(text) - at > _MOST_PART_CHARS:
        least = at + _LEAST_PART_CHARS
        at = (
            text.find("\n", least, at + _MOST_PART_CHARS) + 1
            or text.rfind(" ", least, least + _LEAST_PART_CHARS) + 1
            or min(_end_of_digits(text, least), least + _MOST_NUMBER_CHARS)
        )
        borders.append(at)
    return [*borders, len(text)]


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
    chosen: set[int] = set()
    near: set[int] | None = None
    for reason, parts in sorted(held.items(), key=lambda one: (one[0].isdecimal(), len(one[1]))):
        is_read = most is None or len(chosen) + len(parts) <= most or not reason.isdecimal()
        if near is None and is_read:
            chosen.update(parts)
            continue
        if near is None:
            near = {one + step for one in chosen for step in (-1, 0, 1)}
        alone = [one for one, is_alone in parts.items() if is_alone]
        chosen.update(alone[:_FIRST_PARTS], [*parts][:_FIRST_PARTS], near.intersection(parts))
    return chosen


def _parts_by_reason(
    text: str, borders: Sequence[int], wanted: _Wanted
) -> Mapping[str, Mapping[int, bool]]:
    """Return which parts have the digits of a value, or words and signs that may be one.

    With whether the digits are there without others.
    """
    lower = text.lower()
    lower = lower if len(lower) == len(text) else text
    words_of = _NumberWords.of(set(_WORDS.findall(lower)), wanted)
    in_words: dict[int, set[str]] = {}
    for at, digits in words_of.digits_in(lower):
        in_words.setdefault(bisect_right(borders, at) - 1, set()).add(digits)
    held: dict[str, dict[int, bool]] = {}
    for number, (start, end) in enumerate(pairwise(borders)):
        runs = set(_DIGITS.findall(text, start, end))
        for digits in wanted.digits_in(runs, text[start : end + _REACH_CHARS]):
            held.setdefault(digits, {})[number] = digits in runs
        for digits in in_words.get(number, ()):
            held.setdefault(digits, {})[number] = True
        years = held.setdefault("years", {})
        if len(years) < _MOST_YEAR_PARTS and not wanted.years.isdisjoint(map(_bare, runs)):
            years[number] = True
        row = _WORDS.findall(lower, start, end)
        if (
            words_of.has_half(row)
            or (words_of.has_share(row) and _has_share(lower[start : end + _REACH_CHARS]))
            or _MARKED.search(text, start, end)
            or OUT_OF.search(text, start, end)
        ):
            held.setdefault("words", {})[number] = True
    for at, reason in _other_places(text, lower, wanted):
        number = min(bisect_right(borders, at), len(borders) - 1) - 1
        held.setdefault(reason, {})[number] = True
    return held


@dataclass
class _NumberWords:
    """The words of a text that may be numbers, by what they can be."""

    digits: Mapping[str, set[str]]
    """Of each word, those that are looked for: none of three, which is a part of twenty-three."""
    halves: set[str]
    shares: set[str]
    """Words with which fractions and multiples begin."""
    wanted: _Wanted

    @classmethod
    def of(cls, vocabulary: Iterable[str], wanted: _Wanted) -> _NumberWords:
        digits, halves, shares = dict[str, set[str]](), set[str](), set[str]()
        for word in vocabulary:
            values = {*(value for _, value in numbers_at_words(word)), *_loose_values(word)}
            if values or numbers_of(word) or (word[0] == "و" and numbers_of(word[1:])):
                digits[word] = wanted.digits & {*map(_significant, values)}
            if is_half_word(word):
                halves.add(word)
            if is_share_word(word) or ADDED_HALF.match(word):
                shares.add(word)
        return cls(digits, halves, shares, wanted)

    def digits_in(self, text: str) -> Iterator[tuple[int, str]]:
        """Yield the offsets of number words, and the digits looked for that they may have."""
        places = [one.span() for one in _WORDS.finditer(text) if one[0] in self.digits]
        first = 0
        for at, (start, end) in enumerate(places):
            for digits in self.digits[text[start:end]]:
                yield start, digits
            after = places[at + 1][0] if at + 1 < len(places) else None
            if after is not None and _JOIN.fullmatch(text, end, after):
                continue
            begin = places[first][0]
            for offset, value in numbers_at_words(text[begin:end]) if first < at else ():
                if (digits := _significant(value)) in self.wanted.digits:
                    yield begin + offset, digits
            first = at + 1

    def has_half(self, row: Sequence[str]) -> bool:
        return not self.halves.isdisjoint(row)

    def has_share(self, row: Sequence[str]) -> bool:
        return not self.shares.isdisjoint(row)


def _loose_values(word: str) -> Iterator[float]:
    return (one.value for number in loose_numbers_in(word) for one in number.readings)


def _has_share(text: str) -> bool:
    return AND_HALF.search(text) is not None or any(True for _ in shares_in(text))


def _other_places(text: str, lower: str, wanted: _Wanted) -> Iterator[tuple[int, str]]:
    """Yield offsets of times of day in words, and of numbers in scripts without spaces."""
    if wanted.has_clocks:
        yield from ((found.start(), "words") for found in CLOCK_WORDS.finditer(lower))
    if text.isascii():
        return
    yield from ((start, "words") for start, *_ in unspaced_shares_in(lower))
    for start, value in han_numbers_in(text):
        if _significant(value) in wanted.digits:
            yield start, _significant(value)
