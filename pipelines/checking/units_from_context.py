"""The unit and the scale of a number that stands without one: of its row, column, caption or range.

A number without a unit has one that stands in its row's label, its column's heading, a caption, or
at the other numbers of its range or row of numbers; else it supports no number with a unit.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from operator import attrgetter

from .dates_and_values import TextValue, values_in
from .number_scales import RANGE_AND, RANGE_TO
from .numbers import Number
from .spelled_numbers import SCALE, scale_at
from .units import NO_UNIT, Unit, is_money, units_after, units_named

_LINK = (
    RANGE_TO.format(RANGE_AND + r"|or|oder|ou|o|of|lub|или|auf|naar|na|на|para|a|à|ao|von|sur")
    + r"|[^\S\n]?[,、/][^\S\n]?|[^\S\n](?:down|up) to[^\S\n]"
)
_LINK_AFTER = re.compile(_LINK, re.IGNORECASE)
_LINK_BEFORE = re.compile(rf"(?:{_LINK})\Z", re.IGNORECASE)
_AGAIN = re.compile(r"[^\S\n]?\([^()\n]{1,24}\)|\)")
"""Of `three (3) years`, between either number and its unit."""
_REACH_CHARS, _MOST_LINKS = 40, 6
_AGE_BEFORE = re.compile(
    r"(?:(?<!\w)(?:age[ds]?|alter|âge|âgée?|edad|età|idade|leeftijd|ålder|alder|wiek|věk|ikä|возраст|yaş[ıi]?"
    r"|العمر|(?:m[ae]n|wom[ae]n|boys?|girls?|mann|frau|kind|homme|femme|hombre|mujer|uomo|donna)"
    r"\s(?:of|von|de|di))|年齢|年龄|年齡|나이)\W{0,3}\Z",
    re.IGNORECASE,
)
_AGE_AROUND = re.compile(r"[^\W\d_][,(]\s?\Z"), re.compile(r"[,)]")
_BEFORE_ALONE, _AFTER_ALONE = re.compile(r"(?:\A|\n)[ \t]*\Z"), re.compile(r"[ .\t\r]*(?:\n|\Z)")
_CENTS = re.compile(r"\d[\d.,' ]*[.,]\d\d")
_YEAR_UNIT = Unit("month", 12)
_THOUSANDS = (
    r"(?:thousands?|tausend|tsd\.?|milliers?|miles|migliaia|milhares|tys\.?|тыс\.?|tusental)"
)
_TOKEN = re.compile(r"km/h|m/s|[^\W\d_]+[²³23]?|°[CF]?|[$€£¥₹₩₽₺₴₪฿￥%‰٪]")
_NAMED_UNIT = (
    rf"(?:(?:{_THOUSANDS}|{SCALE.pattern})[^\S\n]?)?(?:of\s|de\s|d['\u2019])?"
    r"(?:[^\W\d_]{1,12}|[$€£¥%])"
)
_MENTION = re.compile(
    r"[(\[（](?P<brackets>[^()\[\]（）\n]{1,40})[)\]）]"
    r"|(?<!\w)(?:in|en|em|i|w|v|в|på|amounts?|beträge|montants|importes|importi|单位|單位|単位)[:：\s]{1,2}"
    rf"(?P<named>{_NAMED_UNIT.replace('(?P<thousand>', '(?:')})(?!\w)"
    rf"|,\s(?P<label>{_NAMED_UNIT})\.?\s?[:：]",
    re.IGNORECASE,
)
_MOST_BEFORE_CHARS, _MOST_AFTER_CHARS = 4000, 400
_CELL_BREAK = re.compile(r"[^\S\n]{2,}|[^\S\n]*[|\t;][^\S\n]*")
_NEXT_CELL = re.compile(r"[^\S\n]*[|\t;,][^\S\n]*([^|\t;,\n]{1,12}?)[^\S\n]*(?=[|\t;,\n]|\Z)")


@dataclass(frozen=True, slots=True)
class _Mention:
    """A unit that a text names without a number: (in kg), all amounts in euros, Mio. EUR."""

    start: int
    units: frozenset[Unit]
    scale: float
    is_caption: bool
    """No number follows in its line, so it may be about others."""


def has_unit_of(source: str, found: TextValue, claimed: TextValue, scale: float = 1.0) -> bool:
    """Return whether a number without a unit in a source may have the unit of an equal one.

    `scale`: what the source's number is multiplied by, as a caption says: in thousands of euros.

    >>> text = "Weight (kg): 50, of 3 to 4 tonnes"
    >>> [claimed] = values_in("50 kg")
    >>> [has_unit_of(text, v, claimed) for v in values_in(text) if v.text in ("50", "3")]
    [True, False]
    """
    units = _units_sought(claimed)
    if not units:
        return True
    if found.number is None:
        return bool(found.clocks)
    if scale != 1:
        mentions = _mentions_around(source, *found.bare)
        return any(m.scale == scale and not units.isdisjoint(m.units) for m in mentions)
    if (
        found.number.is_ordinal
        or any(reading.unit != NO_UNIT for reading in found.number.readings)
        or _is_alone(source, *found.bare)
    ):
        return True
    linked = _linked_number(source, found)
    if linked is not None:
        return not units.isdisjoint(linked[1]) and not _is_scaled_by(
            linked[0], claimed, found.number
        )
    return (
        (_YEAR_UNIT in units and _is_age(source, *found.bare))
        or not units.isdisjoint(_units_around(source, *found.bare))
        or _is_in_only_currency(source, *found.bare, units)
    )


def _units_sought(value: TextValue) -> set[Unit]:
    """Return the units of which a source must have one; empty: a number without one will do."""
    number = value.number
    units = {reading.unit for reading in number.readings} if number is not None else set()
    dimensions = {unit.dimension for unit in units}
    is_any = number is None or number.is_share or NO_UNIT in units or "times" in dimensions
    return set() if is_any else units


def _is_scaled_by(linked: str, claimed: TextValue, found: Number) -> bool:
    """Return whether a number has the scale of the one it is linked to: of 2 to 3 million."""
    least = min(reading.value for reading in found.readings)
    values = (
        {reading.value for reading in claimed.number.readings}
        if claimed.number is not None
        else set()
    )
    return SCALE.search(linked) is not None and least in values


def _is_in_only_currency(text: str, start: int, end: int, units: set[Unit]) -> bool:
    """Return whether an amount with cents is in a text that names no other currency."""
    money = _currencies_in(text) if _CENTS.fullmatch(text, start, end) else ()
    return bool(money) and not any(map(units.isdisjoint, money))


def _is_alone(text: str, start: int, end: int) -> bool:
    """Return whether a number is all of its line."""
    return _BEFORE_ALONE.search(text, max(0, start - 4), start) is not None and (
        _AFTER_ALONE.match(text, end) is not None
    )


@lru_cache(maxsize=2)
def _currencies_in(text: str) -> Sequence[frozenset[Unit]]:
    """Return what each of the currencies may be that a text names."""
    units = (frozenset(units_named(word)) for word in {*_TOKEN.findall(text)})
    return [currency for currency in units if any(map(is_money, currency))]


def _is_age(text: str, start: int, end: int) -> bool:
    if _AGE_BEFORE.search(text, max(0, start - 16), start):
        return True
    before, after = _AGE_AROUND
    is_around = before.search(text, max(0, start - 4), start) and after.match(text, end)
    return end - start <= 2 and is_around is not None


@lru_cache(maxsize=1024)
def _value_at(text: str, *, start: int = -1, end: int = -1) -> Number | None:
    """Return the number that begins or ends at an offset of a text."""
    numbers = (value for value in values_in(text) if value.start == start or value.end == end)
    return next((value.number for value in numbers), None)


def _linked_number(text: str, found: TextValue) -> tuple[str, set[Unit]] | None:
    """Return the number with a unit in a row with another one: `2, 3 or 5 km`; and its units."""
    start, end = found.start, found.end
    again = _AGAIN.match(text, end)
    if again is not None and (of_both := units_after(text, again.end())[0]):
        return "", {*of_both}
    return _linked_after(text, end) or _linked_before(text, start)


def _linked_after(text: str, end: int) -> tuple[str, set[Unit]] | None:
    for _ in range(_MOST_LINKS):
        link = _LINK_AFTER.match(text, end)
        after = link and _value_at(text[link.end() : link.end() + _REACH_CHARS], start=0)
        if not link or after is None:
            break
        if units := _units_of(after):
            return after.text, units
        end = link.end() + after.end
    return None


def _linked_before(text: str, start: int) -> tuple[str, set[Unit]] | None:
    for _ in range(_MOST_LINKS):
        begin = max(0, start - _REACH_CHARS)
        link = _LINK_BEFORE.search(text, begin, start)
        before = link and _value_at(text[begin : link.start()], end=link.start() - begin)
        if not link or before is None:
            break
        if units := _units_of(before):
            return "", units
        start = begin + before.start
    return None


def _units_of(number: Number) -> set[Unit]:
    is_part = number.is_share  # media giornaliera
    return set() if is_part else {reading.unit for reading in number.readings} - {NO_UNIT}


def _units_around(text: str, start: int, end: int) -> Iterator[Unit]:
    """Yield the units of a number's row label, next cell, column heading, and captions."""
    yield from _units_of_label(text[_line_start(text, start) : start])
    cell = _NEXT_CELL.match(text, end)
    yield from units_named(cell[1]) if cell is not None else ()
    heading = heading_of(text, start)
    if heading is not None:
        own, *others = (_units_in(heading_text) for heading_text in (heading[0], *heading[1]))
        yield from own
        if own or any(others):
            return
    for mention in _mentions_around(text, start, end):
        if mention.scale == 1:
            yield from mention.units


def _units_of_label(label: str) -> tuple[Unit, ...]:
    """Return the units that end what is before a number in its line; not those of another one."""
    digits = re.search(r"\d(?=\D*\Z)", label)
    free = label[digits.end() :] if digits else label
    tokens = [*_TOKEN.finditer(free)]
    if not tokens or free[tokens[-1].end() :].strip(" \t|:;,()[]=_-\u00a0"):
        return ()
    is_attached = digits is not None and len(tokens) == 1 and tokens[0].start() <= 1
    return () if is_attached else units_named(tokens[-1][0])


def _units_in(text: str) -> list[Unit]:
    if _scale_in(text) != 1:
        return []
    return [unit for token in _TOKEN.findall(text) for unit in units_named(token)]


def heading_of(text: str, at: int) -> tuple[str, list[str]] | None:
    r"""Return the heading of a number's column, and those of the others; None: it is in no table.

    >>> text = "Item  Qty  Price (USD)\nOak   50   4.20"
    >>> heading_of(text, text.index("50"))
    ('Qty', ['Item', 'Price (USD)'])
    """
    line_start = _line_start(text, at)
    stop = text.find("\n", at, at + _MOST_ROW_CHARS)
    line = text[line_start : stop if stop >= 0 else at + _MOST_ROW_CHARS]
    if text[max(0, line_start - 1) : line_start] != "\n" or len(line) > _MOST_ROW_CHARS:
        return None
    starts, blank_lines = _heading_lines(text)
    first, kind = -1, 0
    for number, row in enumerate(_rows_of(line)):
        known = starts.get((number, len(row)), ())
        above = bisect_left(known, line_start) - 1
        if above >= 0 and known[above] > first:
            first, kind = known[above], number
    blank = bisect_left(blank_lines, line_start) - 1
    if first < 0 or (blank >= 0 and blank_lines[blank] > first):
        return None
    names = _cells_in(text[first : text.index("\n", first)], _BREAKS[kind])
    column = sum(begin <= at - line_start for begin, _ in _rows_of(line)[kind]) - 1
    return names[column], names[:column] + names[column + 1 :]


@lru_cache(maxsize=2)
def _heading_lines(text: str) -> tuple[Mapping[tuple[int, int], Sequence[int]], Sequence[int]]:
    """Return where lines begin that may be headings, by kind and number of cells; blank ones."""
    starts: dict[tuple[int, int], list[int]] = {}
    blank_lines: list[int] = []
    at = 0
    for line in text.split("\n"):
        if not line.strip():
            blank_lines.append(at)
        for number, pattern in enumerate(_BREAKS if len(line) <= _MOST_ROW_CHARS else ()):
            names = _cells_in(line, pattern)
            if len(names) > 1 and not any(map(_VALUE.search, names[1:])):
                starts.setdefault((number, len(names)), []).append(at)
        at += len(line) + 1
    return starts, blank_lines


def _cells_in(line: str, pattern: re.Pattern[str]) -> list[str]:
    return [cell for part in pattern.split(line) if (cell := part.strip())]


@lru_cache(maxsize=1024)
def _rows_of(line: str) -> Sequence[list[tuple[int, int]]]:
    """Return the cells of a line by each kind of break; none for a sentence."""
    rows = [_cells_of(line, pattern) for pattern in _BREAKS]
    if not all(_VALUE.search(line[a:b]) for a, b in rows[-1][1:]):
        rows[-1] = []
    return rows


_VALUE = re.compile(r"^(?!(?:1[89]|20)\d\d\s*$)[^\w]*\d")
_BREAKS = (_CELL_BREAK, re.compile(r",(?! )"), re.compile(r"[^\S\n]+"))
_MOST_ROW_CHARS = 400


def _cells_of(line: str, pattern: re.Pattern[str]) -> list[tuple[int, int]]:
    """Return where the cells of a row begin and end."""
    cells, at = [], 0
    for gap in pattern.finditer(line):
        if line[at : gap.start()].strip():
            cells.append((at, gap.start()))
        at = gap.end()
    return [*cells, (at, len(line))] if line[at:].strip() else cells


def _mentions_around(text: str, start: int, end: int) -> Iterator[_Mention]:
    """Yield the units that a number's line or a caption names."""
    line_start, mentions = _line_start(text, start), _mentions(text)
    first = bisect_left(mentions, start - _MOST_BEFORE_CHARS, key=attrgetter("start"))
    for mention in islice(mentions, first, None):
        if mention.start > end + _MOST_AFTER_CHARS:
            break
        if mention.is_caption or line_start <= mention.start < start:
            yield mention


def _line_start(text: str, at: int) -> int:
    least = max(0, at - _MOST_ROW_CHARS)
    return max(least, text.rfind("\n", least, at) + 1)


@lru_cache(maxsize=2)
def _mentions(text: str) -> Sequence[_Mention]:
    found = []
    for match in _MENTION.finditer(text):
        words = next(filter(None, match.group("brackets", "named", "label")))
        units = frozenset(unit for word in _TOKEN.findall(words) for unit in units_named(word))
        if units and not _DIGIT.search(words):
            is_caption = not _DIGIT_IN_LINE.match(text, match.end(), match.end() + _MOST_ROW_CHARS)
            found.append(_Mention(match.start(), units, _scale_in(words), is_caption))
    return found


def caption_scales(text: str) -> frozenset[float]:
    """Return the scales of a text's captions: 1,000 for `in thousands of euros`."""
    return frozenset(mention.scale for mention in _mentions(text)) - {1.0}


def _scale_in(words: str) -> float:
    found = _SCALE_WORD.search(words)
    if found is None:
        return 1.0
    if found["thousand"]:
        return 1e3
    signs = found["sign"]
    scales = scale_at(f" {found[0]}", 0)[1]
    return {"k": 1e3, "t": 1e3, "m": 1e6}.get(signs.casefold(), 1e6) if signs else scales[0]


_DIGIT, _DIGIT_IN_LINE = re.compile(r"[0-9]"), re.compile(r"[^0-9\n]*[0-9]")
_SCALE_WORD = re.compile(
    rf"(?<![^\W_])(?P<thousand>{_THOUSANDS}(?!\w)|千)"
    rf"|(?P<sign>[kTM](?=[€$£])|(?<=[€$£])[kM]\b|百万)|{SCALE.pattern}",
    re.IGNORECASE,
)
