"""Dates and times of day in a text: in digits, or with a month's name of CLDR.

A date is found where day, month and year are in one expression, as some language of CLDR writes
them. What leaves open which day it is makes the place partial: no year, a range that shares its
month, an order of day and month that nothing decides, or a name that means two months.
"""

from __future__ import annotations

import datetime
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Any

import regex

from paddock.engine.system.records import Struct
from paddock.engine.system.text import find_all

from . import cldr
from .codes import is_letter
from .folding import small
from .text_index import UNSPACED

_FIELD = re.compile(r"(\{[dMy]\})")
_LETTERS = re.compile(r"[^\W\d_]+")
_UNSPACED_NAME = regex.compile(rf"(?V1)\d|[{UNSPACED}]")
_AROUND_CHARS = 28
_RANGE_BEFORE = re.compile(r"(?<![\w,:])(?<!\d\.)(\d{1,2})\.?[ \u00a0]?-[ \u00a0]?\Z")
_TIME = regex.compile(
    rf"(?V1)(?:(?<![\w--[{UNSPACED}]]|[:.,])|(?<=\dt))(?<![^\W\d_]-)(\d{{1,2}})"
    r"(?::(\d\d)(?::(\d\d)(?:\.0+)?)?(?![\d:])|(?=[ \u00a0]?(?:[ap]\.[ \u00a0]?m\.|[ap]m(?!\w))))"
)
"""Only English halves make a bare hour a time; `12 am` may be German."""
_THAI, _ARABIC = re.compile("[\u0e01-\u0e5b]"), re.compile("[\u0620-\u06ff]")
_BUDDHIST_YEARS, _PERSIAN_YEARS = range(2400, 2700), range(1300, 1500)
"""Those that may be of our time: 1857 to 2156, and 1921 to 2121."""


class DateToken(Struct, frozen=True):
    start: int
    end: int
    days: frozenset[tuple[int | None, int, int]]
    """Year, month and day; the year is None where it is not written there."""
    reason: str | None = None
    """Why it is not sure which day it is."""

    def holds(self, day: datetime.date) -> bool:
        return bool({(day.year, day.month, day.day), (None, day.month, day.day)} & self.days)


class TimeToken(Struct, frozen=True):
    start: int
    end: int
    seconds: int
    """Since midnight."""


class DateIndex:
    def __init__(self, text: str, languages: Callable[[], Sequence[str]], is_set: bool) -> None:
        self._text = small(text)
        self._languages = languages
        self._is_set = is_set
        self._parsed: dict[int, DateToken | None] = {}

    def find(self, day: datetime.date) -> Iterator[DateToken]:
        yield from (token for token in self.in_digits if token.holds(day))
        for start, end, name in self._names:
            if day.month not in cldr.month_names()[name]:
                continue
            if str(day.day) in self._text[max(0, start - _AROUND_CHARS) : end + _AROUND_CHARS]:
                token = self._at_name(start, end, name)
                if token is not None and token.holds(day) and not self._is_inside(token):
                    yield token

    def _is_inside(self, token: DateToken) -> bool:
        near = (other for other in self._near(token.start, token.end) if other is not token)
        return any(
            (other.start, -other.end) < (token.start, -token.end) and token.end <= other.end
            for other in near
        )

    def _near(self, start: int, end: int) -> Iterator[DateToken]:
        first = bisect_left(self._names, (start - _AROUND_CHARS,))
        last = bisect_left(self._names, (end + _AROUND_CHARS + 1,))
        near = (self._at_name(*place) for place in self._names[first:last])
        yield from (date for date in near if date is not None)

    def same_days(self, day: datetime.date) -> Iterator[DateToken]:
        return (
            token
            for token in self.all()
            if any(parts[1:] == (day.month, day.day) for parts in token.days)
        )

    def all(self) -> list[DateToken]:
        named = (self._at_name(*place) for place in self._names)
        found = [*self.in_digits, *(token for token in named if token is not None)]
        return sorted(found, key=lambda token: (token.start, -token.end))

    def holds_digits(self, start: int, end: int) -> bool:
        """Return whether digits belong to a date."""
        at = bisect_right(self.in_digits, start, key=attrgetter("start")) - 1
        if at >= 0 and self.in_digits[at].end >= end:
            return True
        return any(date.start <= start and end <= date.end for date in self._near(start, end))

    @cached_property
    def _calendar(self) -> str:
        """The one that CLDR prefers where the language is spoken: Thailand, Iran, Afghanistan."""
        is_known = self._is_set or _ARABIC.search(self._text)
        languages = {*(self._languages() if is_known else ())}
        if "th" in languages or _THAI.search(self._text):
            return "buddhist"
        return "persian" if languages & {"fa", "ps"} else ""

    def _year(self, written: str, era: str | None = None) -> int | None:
        """Return the year of our calendar; None: it may be of another one."""
        if era:
            return (1 if written == "\u5143" else int(written)) + cldr.eras()[era]
        year = int(written)
        if len(written) < 4:
            return {"": 2000 + year, "buddhist": 1957 + year}.get(self._calendar)
        if year in _BUDDHIST_YEARS:
            return year - 543 if self._calendar == "buddhist" else None
        return None if year in _PERSIAN_YEARS and self._calendar == "persian" else year

    # Dates with a month's name

    @cached_property
    def _names(self) -> list[tuple[int, int, str]]:
        words = {*_LETTERS.findall(self._text)}
        by_word, unspaced = _names_by_word()
        there = [name for word in words & by_word.keys() for name in by_word[word]]
        there += [name for name in unspaced if name in self._text]
        there = [name for name in there if self._is_set or cldr.months_of(name)]
        found: dict[int, tuple[int, int, str]] = {}
        for name in sorted(there, key=len):
            for at in find_all(name, self._text):
                end = at + len(name)
                before, first = self._text[max(0, at - 1) : at], name[0]
                is_begun = is_letter(first) and is_letter(before)
                is_begun = is_begun or before.isdecimal()
                if not (is_begun or is_letter(self._text[end : end + 1])):
                    found[at] = at, end, name  # of several, the longest
        return [found[at] for at in sorted(found)]

    def _at_name(self, start: int, end: int, name: str) -> DateToken | None:
        if start not in self._parsed:
            self._parsed[start] = self._parse(start, end, name)
        return self._parsed[start]

    def _parse(self, start: int, end: int, name: str) -> DateToken | None:
        text = self._text
        before, after = text[max(0, start - _AROUND_CHARS) : start], text[end : end + _AROUND_CHARS]
        meant = cldr.month_in(name, self._languages()[0]) if self._is_set else None
        months = cldr.months_of(name) if meant is None else (meant,)
        reason = "month" if len(months) > 1 else None
        befores, afters, pairs = _date_patterns()
        first = [pattern.search(before) for pattern in befores]
        last = [pattern.match(after) for pattern in afters]
        found = [(first[a], last[b]) for a, b in pairs if first[a] and last[b]]
        if not (found and months):
            return None
        whole = [pair for pair in found if {"y"} & {**_groups(pair[0]), **_groups(pair[1])}.keys()]
        head, tail = max(whole or found, key=lambda pair: (len(pair[0][0]), len(pair[1][0])))
        fields = {**_groups(head), **_groups(tail)}
        begin, stop = start - len(head[0]), end + len(tail[0])
        days = [int(fields["d"])]
        shared = self._first_of_range(begin, days[0]) if head[0] else None
        if "e" in fields:
            days.append(int(fields["e"]))
            reason = "range"
        elif shared:
            begin, first_day = shared
            days.append(first_day)
            reason = "range"
        year = self._year(fields["y"], fields.get("g")) if "y" in fields else None
        if year is None:
            reason = reason or "year"
        known = [(year, m, d) for m in months for d in days if _is_day(year, m, d)]
        return DateToken(begin, stop, frozenset(known), reason) if known else None

    # Dates in digits

    @cached_property
    def in_digits(self) -> list[DateToken]:
        found = [*self._in_digits()]
        # "Another date of the text": those whose day is above 12
        clear = [orders for *_, orders, is_open in found if is_open and len(orders) == 1]
        known = {order for orders in clear for order in orders}
        tokens = []
        for start, end, readings, is_open in found:
            days: set[tuple[int | None, int, int]] = {*readings.values()}
            reason = "year" if any(year is None for year, _, _ in days) else None
            if is_open and len({*readings.values()}) > 1:
                kept = {o: day for o, day in readings.items() if o in known} if known else {}
                if len(kept) != 1:
                    usual = cldr.date_orders(self._languages())
                    kept = {o: day for o, day in readings.items() if o in usual}
                reason = None if len(kept) == 1 else "order"
                days = {*(kept if len(kept) == 1 else readings).values()}
            shared = self._first_of_range(start, max(day for _, _, day in days))
            if shared:
                start, first_day = shared
                days |= {(y, m, first_day) for y, m, _ in days}
                reason = "range"
            tokens.append(DateToken(start, end, frozenset(days), reason))
        return tokens

    def _first_of_range(self, start: int, last_day: int) -> tuple[int, int] | None:
        """Return where an earlier day stands that a dash joins to a date, and which it is."""
        found = _RANGE_BEFORE.search(self._text, max(0, start - 8), start)
        return (found.start(), int(found[1])) if found and 0 < int(found[1]) < last_day else None

    def _in_digits(self) -> Iterator[tuple[int, int, dict[str, tuple[int | None, int, int]], bool]]:
        """Yield place and readings by order, and whether the form leaves the order open."""
        for found in _digit_pattern().finditer(self._text):
            year, a, b, last = found["y"], found["a"], found["b"], found["z"]
            readings: dict[str, tuple[int | None, int, int]]
            if year or not last:
                first = self._year(year, found["g"]) if year else None
                readings = {"yMd": (first, int(a), int(b))}
            else:
                y = self._year(last)
                readings = {"dMy": (y, int(b), int(a))}
                if found["s"] in ("/", "-"):
                    readings["Mdy"] = (y, int(a), int(b))
                    if len(last) == 2 and len(a) == 2:
                        readings["yMd"] = (2000 + int(a), int(b), int(last))
            readings = {order: day for order, day in readings.items() if _is_day(*day)}
            if readings:
                is_open = bool(last) and found["s"] in ("/", "-")
                yield found.start(), found.end(), readings, is_open

    # Times of day

    def times(self) -> Iterator[TimeToken]:
        """Yield the times in digits, with what says which half of the day it is."""
        for found in _TIME.finditer(self._text):
            hour, minute, second = (int(part or 0) for part in found.groups())
            half, start, end = self._half(found.start(), found.end())
            if half and not 1 <= hour <= 12:  # 21:00 an Werktagen, which is no half in German
                half, start, end = "", *found.span()
            is_wrong = minute > 59 or second > 59 or hour > 24 or half == "other"
            if not found[2] and self._text[end - 2 : end] == "am":
                is_wrong = is_wrong or [*self._languages()] != ["en"]
            if is_wrong or not (half or found[2]):  # in the morning, at night; a bare hour
                continue
            if half:
                hour = hour % 12 + (12 if half == "pm" else 0)
            yield TimeToken(start, end, hour * 3600 + minute * 60 + second)

    def _half(self, start: int, end: int) -> tuple[str, int, int]:
        names, longest = _halves()
        behind = self._text[end : end + longest + 1]
        gap = 1 if behind[:1] in (" ", "\u00a0") else 0
        before = self._text[max(0, start - longest - 1) : start]
        bare = before.removesuffix(" ") if gap or before.endswith(" ") else before
        for n in range(longest, 0, -1):
            name = behind[gap : gap + n]
            if len(name) == n and name in names and not behind[gap + n : gap + n + 1].isalpha():
                return names[name], start, end + gap + n
            name = bare[-n:]
            if len(name) == n and name in names and not bare[-n - 1 : -n].isalpha():
                return names[name], start - len(before) + len(bare) - n, end
        return "", start, end


def _groups(found: re.Match[str]) -> dict[str, str]:
    return {name: value for name, value in found.groupdict().items() if value is not None}


def _is_day(year: int | None, month: int, day: int) -> bool:
    try:
        datetime.date(2000 if year is None else year, month, day)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1)
def _names_by_word() -> tuple[dict[str, list[str]], list[str]]:
    """Return the months' names by their first word; those in scripts without spaces apart."""
    by_word: dict[str, list[str]] = {}
    unspaced = []
    for name in cldr.month_names():
        word = _LETTERS.search(name)
        if word is None or _UNSPACED_NAME.match(name):
            unspaced.append(name)
        else:
            by_word.setdefault(word[0], []).append(name)
    return by_word, unspaced


_DAY = r"(?P<d>\d{1,2})"
_ORDINAL = r"(?:'?[^\W\d_]{1,4}|\.?[oa]s?\.?|\u00b0|-[^\W\d_a-z]{1,4}|:[ae]|')?"
"""3rd, 1er, 1.º, «3», 1:a, and with a hyphen Cyrillic letters: the signs of CLDR's RBNF."""
_TOUCHES = rf"[\w--[{UNSPACED}]]"
_BEGINS = rf"(?V1)(?<!{_TOUCHES}|/)(?<!\d[.,:])(?<![^\W\d_]-)"
_ENDS = rf"(?!(?!t\d){_TOUCHES})(?![./:-]\d)(?!,\d|-\w)"


def _year_pattern(digits: str) -> str:
    eras = "|".join(map(re.escape, sorted(cldr.eras(), key=len, reverse=True)))
    return rf"(?:(?P<g>{eras})[ \u00a0]?(?P<y>\d{{1,4}}|\u5143)|(?P<y>{digits}))"


def _gap(written: str) -> str:
    """Return a pattern of what separates: behind a mark, a space may be missing."""
    text = re.escape(written.strip(" ")) if written.strip(" ") else ""
    space = r"[ \n\u00a0]"
    if _UNSPACED_NAME.match(written):
        return f"{space}?{text}{space}?"
    if " " not in written and text != r"\.":
        return text
    if text and not any(map(str.isalpha, written)):
        return f"{text}{space}?"
    first, last = (space if written[at] == " " else "" for at in (0, -1))
    return f"{first}{text}{last}" if text else space


def _pattern(form: str, *, is_before: bool) -> str:
    """Return a pattern of what stands on one side of a month's name."""
    patterns = []
    if "{of}" in form:
        of, day = ("|".join(map(re.escape, names)) for names in cldr.day_links())
        return rf"{_DAY}{_ORDINAL[:-1]} (?:(?:{day}) )?(?:{of}) "
    for part in filter(None, _FIELD.split(form)):
        if part == "{d}":
            several = rf"(?:[ \u00a0]?-[ \u00a0]?(?P<e>\d{{1,2}}){_ORDINAL})?"
            behind = rf"(?:-[^\W\d_]{{1,4}}|{_ORDINAL})"  # 14-én
            patterns.append(_DAY + (_ORDINAL if is_before else behind + several))
        elif part == "{y}":
            patterns.append(_year_pattern(r"\d{4}|(?<=-)\d{2}"))
        else:
            patterns.append(_gap(part))
    return "".join(patterns)


@lru_cache(maxsize=1)
def _date_patterns() -> tuple[list[Any], list[Any], list[tuple[int, int]]]:
    """Return the patterns before and behind a month's name, and which of them make a date."""
    befores: dict[str, int] = {}
    afters: dict[str, int] = {}
    pairs = set()
    for first, last in cldr.date_forms()[0]:
        both = [(first, last)]
        if "{d}" in first and "{y}" not in first:
            both.append((first, ""))
        elif "{d}" in last and not first:
            both.append(("", last[: last.index("{d}") + 3]))
        for before, after in both:
            a = befores.setdefault(before, len(befores))
            b = afters.setdefault(after, len(afters))
            pairs.add((a, b))
            if before == "{d} ":  # 14th of July, this 14th day of July
                pairs.add((befores.setdefault("{d} {of} ", len(befores)), b))
    heads = (rf"{_BEGINS}{_pattern(form, is_before=True)}\Z" if form else r"\Z" for form in befores)
    tails = (
        rf"(?V1)\.?{_pattern(form, is_before=False)}{_ENDS}" if form else "" for form in afters
    )
    return [*map(regex.compile, heads)], [*map(regex.compile, tails)], sorted(pairs)


@lru_cache(maxsize=1)
def _digit_pattern() -> Any:
    """Return the pattern of dates in digits, whatever the order of day and month."""
    parts = set()
    for form in cldr.date_forms()[1]:
        _, first, gap, _, next_gap, _, _ = _FIELD.split(form)
        if first == "{y}":
            fields = _year_pattern(r"\d{4}"), r"(?P<a>\d{1,2})", r"(?P<b>\d{1,2})"
        elif gap == next_gap == " ":  # else any three numbers
            fields = r"(?P<a>\d{1,2})", r"(?P<b>\d{2})", r"(?P<z>\d{4})"
        else:
            fields = r"(?P<a>\d{1,2})", r"(?P<b>\d{1,2})", r"(?P<z>\d{4}|\d{2})"
        parts.add(f"{fields[0]}(?P<s>{_gap(gap)}){fields[1]}{_gap(next_gap)}{fields[2]}")
        if first == "{y}" and next_gap.isalpha():  # the year may be missing
            parts.add(f"{fields[1]}{next_gap}{fields[2]}")
    return regex.compile(f"{_BEGINS}(?:{'|'.join(sorted(parts))}){_ENDS}")


@lru_cache(maxsize=1)
def _halves() -> tuple[dict[str, str], int]:
    names = {name: half for half in ("am", "pm", "other") for name in cldr.day_periods(half)}
    return names, max(map(len, names))
