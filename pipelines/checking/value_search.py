"""Which parts of a long text can hold a value that is looked for.

To read every number of a million characters takes seconds, and few of them can be the values of an
answer. In each notation with digits a number has the same digits, but for zeros at its ends and
signs between; numbers in words, fractions and times are read wherever such a word is. The parts
that are left out have none of these, so that the index finds the same as one of the whole text.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from .number_words import is_number_word
from .numbers import NO_UNIT, NumberReading, factors_of, numbers_in, rounded, with_ascii_digits
from .value_words import is_share_word, unspaced_numbers_in
from .values_in_text import (
    TextValue,
    ValueIndex,
    has_clock_words,
    index_values,
    number_orders_in,
    table_cells,
)

_LEAST_PART_CHARS, _MOST_PART_CHARS = 100, 400
"""Of one part; the parts on both sides are read with it, as the context of its numbers."""
_MOST_YEAR_PARTS = 20  # a year of the text, which its days without a year may be of
_DIGITS = re.compile(r"\d+")
_WORDS = re.compile(r"[^\W\d_]+")
_MARKED = re.compile(r"[½¼¾⅓⅔⅛⅜⅝⅞⅕⅖⅗⅘⅙⅚]|\d/\d{1,3}(?![\d/])|\b[XVI]+\b")
_BREAK = "\n\x00\n"


@dataclass(frozen=True, slots=True)
class WantedValues:
    """What a part of a text must have to hold one of some values."""

    digits: frozenset[str]
    """Of the numbers, without zeros at their ends."""
    years: frozenset[str]
    has_clocks: bool

    @classmethod
    def of(cls, values: Iterable[TextValue]) -> WantedValues:
        digits, years = set[str](), set[str]()
        has_clocks = False
        for said in values:
            has_clocks = has_clocks or bool(said.clocks)
            for hour, _ in said.clocks:
                digits |= {_plain(str(hour)), _plain(str(hour or 24))}
            for year, _, day in said.days:
                if day is not None:
                    digits.add(_plain(str(day)))
                if year is not None:
                    years |= {_plain(str(year)), _plain(str(year + 543))}
            digits |= {*_digits_of_number(said)}
        return cls(frozenset(digits), frozenset(years), has_clocks)

    def fits(self, text: str) -> bool:
        """Return whether a number in digits may be wanted."""
        runs = _DIGITS.findall(text)
        return _plain("".join(runs)) in self.digits or any(_plain(run) in self.digits for run in runs)


def _digits_of_number(said: TextValue) -> Iterator[str]:
    number = said.number
    if number is None:
        return
    for reading in number.readings:
        yield _digits_of(reading.value)
        if reading.unit != NO_UNIT:
            for factor in factors_of(reading.unit.dimension):
                yield _digits_of(rounded(reading.base / factor, 11))
    for code in (number.code, number.written):
        yield from map(_plain, sorted(_DIGITS.findall(code), key=len)[-1:])
    for part in number.parts:
        yield from (_digits_of(one.value) for inner in numbers_in(part) for one in inner.readings)


def _digits_of(value: float) -> str:
    mantissa = f"{abs(value):.15g}".partition("e")[0]
    return _plain(mantissa.replace(".", ""))


def _plain(digits: str) -> str:
    return digits.strip("0")


def index_of(text: str, values: Sequence[TextValue]) -> ValueIndex:
    """Return an index of a text in which these values are found, as in one of the whole text."""
    wanted = WantedValues.of(values)
    plain = with_ascii_digits(text)
    borders = _borders_of(plain)
    is_chosen = _chosen_parts(plain, borders, wanted)
    starts, originals, joined, cores = [0], [0], list[str](), list[tuple[int, int]]()
    cells = table_cells(text)
    joined_cells = list[str]()
    n = 0
    for first, last in _runs(is_chosen):
        begin, end = borders[max(0, first - 1)], borders[min(len(borders) - 1, last + 1)]
        starts.append(n)
        originals.append(begin)
        cores.append((borders[first], borders[last]))
        joined.append(text[begin:end])
        joined_cells.append(cells[begin:end])
        n += end - begin + len(_BREAK)

    def place(said: TextValue) -> TextValue | None:
        """Return a value as it is in the whole text; None: it is in another part."""
        at = bisect_right(starts, said.start) - 1
        start = said.start - starts[at] + originals[at]
        first, last = cores[at - 1]
        return said.moved(start - said.start) if first <= start < last else None

    index = ValueIndex()
    texts = _BREAK.join(joined), _BREAK.join(joined_cells) if cells else ""
    for said in index_values(*texts, whole=text, fits=wanted.fits):
        placed = place(said)
        if placed is not None:
            index.add(placed)
    return index


def _borders_of(text: str) -> list[int]:
    """Return where the parts of a text begin and end: whole lines or words where there are some."""
    borders, at, n = [0], 0, len(text)
    while n - at > _MOST_PART_CHARS:
        end = text.find("\n", at + _LEAST_PART_CHARS, at + _MOST_PART_CHARS) + 1
        if not end:
            end = text.rfind(" ", at + _LEAST_PART_CHARS, at + 2 * _LEAST_PART_CHARS) + 1
        at = end or at + _LEAST_PART_CHARS
        borders.append(at)
    return [*borders, n]


def _runs(is_chosen: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Yield the first of chosen parts in a row, and the one after the last."""
    first: int | None = None
    for number, is_one in enumerate([*is_chosen, False]):
        if is_one and first is None:
            first = number
        elif not is_one and first is not None:
            yield first, number
            first = None


def _chosen_parts(text: str, borders: Sequence[int], wanted: WantedValues) -> list[bool]:
    lower = text.lower()
    telling = {word for word in set(_WORDS.findall(lower)) if is_number_word(word) or is_share_word(word)}
    patterns = {one: re.compile(r"\D{0,3}".join(one)) for one in wanted.digits | wanted.years if one}
    beginnings = {one[:n] for one in patterns for n in range(1, len(one))}
    n_years = 0
    chosen = []
    return chosen
