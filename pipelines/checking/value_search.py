"""Which parts of a long text can hold the values that are looked for.

To read all numbers of a million characters takes seconds, and few of them can be values of an
answer. In each notation in digits a number has the same digits, but for zeros at its ends and signs
between; numbers in words, fractions and times of day are read wherever such a word is. The index of
the parts that are left holds the same places as one of the whole text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from .clock_words import CLOCK_WORDS
from .number_words import is_number_word, number_at, numbers_of
from .numbers import (
    HALF_WORD,
    han_numbers_in,
    loose_numbers_in,
    numbers_in,
    rounded,
    with_ascii_digits,
)
from .units import NO_UNIT, factors_of
from .value_words import is_share_word, unspaced_shares_in
from .values_in_text import TextValue, ValueIndex, source_values, table_cells

_LEAST_PART_CHARS, _MOST_PART_CHARS = 100, 400
_REACH_CHARS = 40  # a number may go on in the next part
_MOST_YEAR_PARTS = 20
"""Parts with a year of its own, which days without a year may be of."""
_FIRST_PARTS = 30
"""Of a value that is in very many."""
_YEARS, _THAI_YEARS = range(1000, 2200), 543
_MOST_NUMBER_CHARS = 10_000
_END_OF_DIGITS = re.compile(r"\d*")
_DIGITS, _WORDS = re.compile(r"[0-9]+"), re.compile(r"[^\W\d_]+")
_MARKED = re.compile(r"[½¼¾⅓⅔⅛⅜⅝⅞⅕⅖⅗⅘⅙⅚]|[0-9][/\u2044][0-9]{1,3}(?![/0-9])|\b[XVI]+\b")
_GAP = r"(?:[.,'\u2019\s/()-]{0,2}|[^\W\d_])"
_BREAK = "\n\x00\n"


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
    borders = _borders_of(text)
    cells = table_cells(text)
    held = _parts_by_reason(with_ascii_digits(text), borders, wanted)
    chosen = _chosen_parts(held, most)
    index = ValueIndex()
    spans, texts, rows, starts, n = [], [], [], [], 0
    for first, last in _runs(number in chosen for number in range(len(borders) - 1)):
        begin, end = borders[max(0, first - 1)], borders[min(len(borders) - 1, last + 1)]
        spans.append((begin, borders[first], borders[last]))
        texts.append(text[begin:end])
        rows.append(cells[begin:end])
        starts.append(n)
        n += end - begin + len(_BREAK)
    read = _BREAK.join(texts), _BREAK.join(rows) if cells else ""
    for said in source_values(*read, whole=with_ascii_digits(text), fits=wanted.fits):
        at = bisect_right(starts, said.start) - 1
        begin, first, last = spans[at]
        start = begin + said.start - starts[at]
        if start < last and start + len(said.text) > first:  # else it is only context
            index.add(said.moved(start - said.start))
    return index


def _borders_of(text: str) -> list[int]:
    """Return where the parts of a text begin and end: whole lines or words where there are some."""
    borders, at = [0], 0
    while len(text) - at > _MOST_PART_CHARS:
        least = at + _LEAST_PART_CHARS
        at = (
            text.find("\n", least, at + _MOST_PART_CHARS) + 1
            or text.rfind(" ", least, least + _LEAST_PART_CHARS) + 1
            or least + len(_END_OF_DIGITS.findall(text, least, least + _MOST_NUMBER_CHARS)[0])
        )
        borders.append(at)
    return [*borders, len(text)]


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
    lower, has_one = text.lower(), "1" in wanted.digits
    lower = lower if len(lower) == len(text) else text
    vocabulary = set(_WORDS.findall(lower))
    telling = {word for word in vocabulary if _is_telling(word, has_one=has_one)}
    short = {word for word in vocabulary - telling if numbers_of(word)}

    def has_number(row: Sequence[str]) -> bool:
        if not telling.isdisjoint(row):
            return True
        found = () if short.isdisjoint(row) else enumerate(row)
        return any(number_at(row, at)[2] for at, word in found if word in short)

    held: dict[str, dict[int, bool]] = {}
    for number, (start, end) in enumerate(pairwise(borders)):
        runs = set(_DIGITS.findall(text, start, end))
        for digits in wanted.digits_in(runs, text[start : end + _REACH_CHARS]):
            held.setdefault(digits, {})[number] = digits in runs
        years = held.setdefault("years", {})
        if len(years) < _MOST_YEAR_PARTS and not wanted.years.isdisjoint(map(_bare, runs)):
            years[number] = True
        words = _WORDS.findall(lower, start, end)
        if has_number(words) or _MARKED.search(text, start, end):
            held.setdefault("words", {})[number] = True
    for at, reason in _other_places(text, lower, wanted):
        number = min(bisect_right(borders, at), len(borders) - 1) - 1
        held.setdefault(reason, {})[number] = True
    return held


def _is_telling(word: str, *, has_one: bool) -> bool:
    return (
        is_number_word(word, with_one=has_one)
        or is_share_word(word)
        or HALF_WORD.match(word) is not None
        or any(True for _ in loose_numbers_in(word))
    )


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
