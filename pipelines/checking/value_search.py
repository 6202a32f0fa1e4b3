"""Which parts of a long text can hold the values that are looked for.

To read all numbers of a million characters takes seconds, and few of them can be values of an
answer. In each notation in digits a number has the same digits, but for zeros at its ends and signs
between; numbers in words, fractions and times of day are read wherever such a word is. The index of
the parts that are left holds the same places as one of the whole text.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from .number_words import is_number_word, number_at, numbers_of
from .numbers import han_numbers_in, loose_numbers_in, numbers_in, rounded, with_ascii_digits
from .units import NO_UNIT, factors_of
from .value_words import is_share_word, unspaced_shares_in
from .values_in_text import CLOCK_WORDS, TextValue, ValueIndex, source_values, table_cells

_LEAST_PART_CHARS, _MOST_PART_CHARS = 100, 400
_REACH_CHARS = 40  # a number may go on in the next part
_MOST_YEAR_PARTS = 20
"""Parts with a year of its own, which days without a year may be of."""
_DIGITS, _WORDS = re.compile(r"[0-9]+"), re.compile(r"[^\W\d_]+")
_MARKED = re.compile(r"[½¼¾⅓⅔⅛⅜⅝⅞⅕⅖⅗⅘⅙⅚]|[0-9][/\u2044][0-9]{1,3}(?![/0-9])|\b[XVI]+\b")
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
            years = {_bare(str(year)), _bare(str(year + 543))} if year is not None else set()
            self.years |= years
            self.digits |= years if day is None else {_bare(str(day))}
        self.digits |= {*_digits_of(said)}

    def fits(self, text: str) -> bool:
        """Return whether a number in digits may be one of them."""
        runs = _DIGITS.findall(text)
        return _bare("".join(runs)) in self.digits or not self.digits.isdisjoint(map(_bare, runs))

    @cached_property
    def _patterns(self) -> dict[str, re.Pattern[str]]:
        return {one: re.compile("[^0-9]{0,3}".join(one)) for one in self.digits if len(one) > 1}

    @cached_property
    def _beginnings(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for one in self._patterns:
            for n in range(1, len(one)):
                found.setdefault(_bare(one[:n]), []).append(one)
        return found

    def has_digits(self, runs: Iterable[str], text: str) -> bool:
        """Return whether one of the values may begin with one of these digits of a text."""
        for run in map(_bare, runs):
            if run in self.digits:
                return True
            if any(self._patterns[one].search(text) for one in self._beginnings.get(run, ())):
                return True
        return False


def _digits_of(said: TextValue) -> Iterator[str]:
    """Yield the digits that a number has in each notation."""
    number = said.number
    if number is None:
        return
    for inner in (number, *(one for part in number.parts for one in numbers_in(part))):
        for reading in inner.readings:
            yield _significant(reading.value)
            if reading.unit != NO_UNIT:
                for factor in factors_of(reading.unit.dimension):
                    yield _significant(rounded(reading.base / factor, 11))
        for code in (inner.code, inner.written):
            yield from map(_bare, sorted(_DIGITS.findall(code), key=len)[-1:])


def _significant(value: float) -> str:
    return _bare(f"{abs(value):.15g}".partition("e")[0].replace(".", ""))


def _bare(digits: str) -> str:
    return digits.strip("0")


def index_of(text: str, values: Iterable[TextValue]) -> ValueIndex:
    """Return an index of a text in which these values are found, as in one of the whole text."""
    wanted = _Wanted()
    for said in values:
        wanted.add(said)
    borders = _borders_of(text)
    cells = table_cells(text)
    index = ValueIndex()
    spans, texts, rows, starts, n = [], [], [], [], 0
    for first, last in _runs(_chosen_parts(with_ascii_digits(text), borders, wanted)):
        begin, end = borders[max(0, first - 1)], borders[min(len(borders) - 1, last + 1)]
        spans.append((begin, borders[first], borders[last]))
        texts.append(text[begin:end])
        rows.append(cells[begin:end])
        starts.append(n)
        n += end - begin + len(_BREAK)
    read = _BREAK.join(texts), _BREAK.join(rows) if cells else ""
    for said in source_values(*read, whole=text, fits=wanted.fits):
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
            or least
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


def _chosen_parts(text: str, borders: Sequence[int], wanted: _Wanted) -> list[bool]:
    """Return which parts have digits or words that one of the values may be written with."""
    lower, has_one = text.lower(), "1" in wanted.digits
    lower = lower if len(lower) == len(text) else text
    words = set(_WORDS.findall(lower))
    telling = {word for word in words if _is_telling(word, has_one=has_one)}
    short = {word for word in set(words) - telling if numbers_of(word)}

    def has_number(row: Sequence[str]) -> bool:
        if not telling.isdisjoint(row):
            return True
        found = () if short.isdisjoint(row) else enumerate(row)
        return any(number_at(row, at)[2] for at, word in found if word in short)

    chosen, n_years = list[bool](), 0
    for start, end in pairwise(borders):
        runs = set(_DIGITS.findall(text, start, end))
        is_one = wanted.has_digits(runs, text[start : end + _REACH_CHARS])
        if n_years < _MOST_YEAR_PARTS and not wanted.years.isdisjoint(map(_bare, runs)):
            n_years += 1
            is_one = True
        is_one = is_one or _MARKED.search(text, start, end) is not None
        chosen.append(is_one or has_number(_WORDS.findall(lower, start, end)))
    for at in _other_places(text, lower, wanted):
        chosen[min(bisect_right(borders, at), len(chosen)) - 1] = True
    return chosen


def _is_telling(word: str, *, has_one: bool) -> bool:
    return (
        is_number_word(word, with_one=has_one)
        or is_share_word(word)
        or any(True for _ in loose_numbers_in(word))
    )


def _other_places(text: str, lower: str, wanted: _Wanted) -> Iterator[int]:
    """Yield offsets of times of day in words, and of numbers in scripts without spaces."""
    if wanted.has_clocks:
        yield from (found.start() for found in CLOCK_WORDS.finditer(lower))
    if text.isascii():
        return
    yield from (start for start, *_ in unspaced_shares_in(lower))
    for start, value in han_numbers_in(text):
        if _significant(value) in wanted.digits:
            yield start
