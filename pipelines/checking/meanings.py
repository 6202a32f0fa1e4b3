"""The numbers, dates and times in a text, in every way in which they may be meant. Pure.

`1.234` may be one thousand and more, or one and a bit; `3/4/2024` may be in March or in April.
Whoever compares two texts compares what they may mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

Day = tuple[int | None, int, int | None]
"""Year, month, day; one of the two outer ones may be unknown."""
Clock = tuple[int, int]

_MONTHS = (
    "january januar janvier enero gennaio januari jan janv ene gen",
    "february februar février fevrier febrero febbraio februari feb févr",
    "march märz maerz mars marzo maart mar mär",
    "april avril abril aprile apr avr abr",
    "may mai mayo maggio mei",
    "june juni juin junio giugno jun giu",
    "july juli juillet julio luglio jul juil lug",
    "august août aout agosto augustus aug ago",
    "september septembre septiembre settembre sep sept set",
    "october oktober octobre octubre ottobre oct okt ott",
    "november novembre noviembre nov",
    "december dezember décembre decembre diciembre dicembre dec dez déc dic",
)
_MONTH_OF = {word: n for n, names in zip(count(1), _MONTHS, strict=False) for word in names.split()}
_NAMES = "|".join(sorted(_MONTH_OF, key=len, reverse=True))
_YEAR = r"(?P<y>1\d{3}|20\d{2}|21\d{2})"
_DAY = r"(?P<d>3[01]|[12]\d|0?[1-9])"
_NAME = rf"(?P<name>{_NAMES})\b\.?"
_DATES = (
    re.compile(rf"(?<!\d){_YEAR}[-/.](?P<m>1[0-2]|0?[1-9])[-/.]{_DAY}(?!\d)"),
    re.compile(rf"(?<!\d)(?P<a>\d{{1,2}})(?P<s>[-/.])\s?(?P<b>\d{{1,2}})(?P=s)\s?{_YEAR}(?!\d)"),
    re.compile(
        rf"(?<!\d){_DAY}(?:st|nd|rd|th|er|º)?\.?(?:\s+(?:of|de|di))?\s+{_NAME}"
        rf"(?:,?\s+(?:de\s+|del\s+)?{_YEAR}\b)?",
        re.IGNORECASE,
    ),
    re.compile(rf"\b{_NAME}\s+{_DAY}(?:st|nd|rd|th)?\b(?:,?\s+{_YEAR}\b)?", re.IGNORECASE),
    re.compile(rf"\b{_NAME}\s+(?:de\s+|del\s+|of\s+)?{_YEAR}\b", re.IGNORECASE),
)
_CLOCKS = (
    re.compile(
        r"(?<![\d:.])(?P<h>[01]?\d|2[0-4])(?P<s>[:.h])(?P<min>[0-5]\d)(?![\d.])"
        r"(?:\s*(?P<half>[ap])\.?m\b\.?)?",
        re.IGNORECASE,
    ),
    re.compile(r"(?<![\d:.])(?P<h>1[0-2]|0?[1-9])\s*(?P<half>[ap])\.?m\b\.?", re.IGNORECASE),
)
_NUMBER = re.compile(r"\d+(?:[.,'\u2019\u00a0\u202f ]\d{3}(?!\d))+(?:[.,]\d+)?|\d+(?:[.,]\d+)*")
_SCALES = {
    **dict.fromkeys(("thousand", "tausend", "mille", "mila", "mil", "k"), 1_000.0),
    **dict.fromkeys(
        ("million", "millions", "millionen", "mio", "mln", "millones", "milioni", "millón", "m"),
        1e6,
    ),
    **dict.fromkeys(
        ("billion", "billions", "milliarde", "milliarden", "milliard", "milliards", "mrd", "bn"),
        1e9,
    ),
}
_SCALE = re.compile(rf"\s?({'|'.join(sorted(_SCALES, key=len, reverse=True))})\b", re.IGNORECASE)
_WORDS = (
    "zero null zéro cero",
    "one ein eine eins un une uno una",
    "two zwei deux dos due twice",
    "three drei trois tres tre",
    "four vier quatre cuatro quattro",
    "five fünf cinq cinco cinque",
    "six sechs seis sei",
    "seven sieben sept siete sette",
    "eight acht huit ocho otto",
    "nine neun neuf nueve nove",
    "ten zehn dix diez dieci",
    "eleven elf onze once undici",
    "twelve zwölf douze doce dodici dozen",
)
_WORD_OF = {word: float(n) for n, words in enumerate(_WORDS) for word in words.split()}
_WORD = re.compile(rf"\b(?:{'|'.join(_WORD_OF)})\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Said:
    """One number, date or time as it stands in a text, and what it may mean."""

    text: str
    numbers: frozenset[float] = frozenset()
    days: frozenset[Day] = frozenset()
    clocks: frozenset[Clock] = frozenset()


@dataclass(slots=True)
class Stock:
    """Everything that the numbers, dates and times of a text may mean."""

    numbers: set[float] = field(default_factory=set)
    days: set[Day] = field(default_factory=set)
    clocks: set[Clock] = field(default_factory=set)

    def holds(self, said: Said, within: float = 0.0) -> bool:
        """Tell whether what was said may be what stands there; `within` is a number's share."""
        if said.days:
            return any(map(self._has_day, said.days))
        if said.clocks and not said.clocks.isdisjoint(self.clocks):
            return True
        return any(
            number in self.numbers
            or (within and any(abs(number - one) <= within * abs(one) for one in self.numbers))
            for number in said.numbers
        )

    def _has_day(self, day: Day) -> bool:
        """Tell whether a day stands there; its year may stand elsewhere."""
        year, month, of_month = day
        return any(
            other_month == month
            and of_month in (None, other_day)
            and (year in (None, other_year) or (other_year is None and year in self.numbers))
            for other_year, other_month, other_day in self.days
        )


def said_in(text: str) -> Iterator[Said]:
    """Give each number, date and time of a text, dates before the numbers that they are made of.

    >>> [one.text for one in said_in("On 3 May 2024 at 9:30, 1,200 of them.")]
    ['3 May 2024', '9:30', '1,200']
    """
    taken = list(text)
    for pattern in _DATES:
        for found in pattern.finditer("".join(taken)):
            days = frozenset(_days(found))
            if days:
                yield Said(found[0].strip(" .,"), days=days)
                taken[found.start() : found.end()] = " " * len(found[0])
    for pattern in _CLOCKS:
        for found in pattern.finditer("".join(taken)):
            yield Said(found[0].strip(), _maybe_number(found), clocks=frozenset(_clocks(found)))
            taken[found.start() : found.end()] = " " * len(found[0])
    rest = "".join(taken)
    for found in _NUMBER.finditer(rest):
        scale = _SCALE.match(rest, found.end())
        factor = _SCALES[scale[1].lower()] if scale else 1.0
        told = found[0] + (scale[0] if scale else "")
        yield Said(told, frozenset(value * factor for value in _values(found[0])))


def stock_of(text: str) -> Stock:
    """Give all that a source's numbers, dates and times may mean, read with good will."""
    stock = Stock()
    for said in said_in(text):
        stock.days |= said.days
        stock.clocks |= said.clocks
        stock.numbers |= said.numbers
        for part in re.findall(r"\d+", said.text):
            stock.numbers.add(float(part))
        if said.numbers:
            stock.numbers.update(*map(_values, _NUMBER.findall(said.text)))
    stock.numbers |= {_WORD_OF[found[0].lower()] for found in _WORD.finditer(text)}
    return stock


def _days(found: re.Match[str]) -> Iterator[Day]:
    parts = found.groupdict()
    year = int(parts["y"]) if parts.get("y") else None
    day = int(parts["d"]) if parts.get("d") else None
    if parts.get("name"):
        yield year, _MONTH_OF[parts["name"].lower()], day
    elif parts.get("m"):
        yield year, int(parts["m"]), day
    else:
        first, second = int(parts["a"]), int(parts["b"])
        for month, of_month in {(first, second), (second, first)}:
            if 1 <= month <= 12 and 1 <= of_month <= 31:
                yield year, month, of_month


def _clocks(found: re.Match[str]) -> Iterator[Clock]:
    parts = found.groupdict()
    hour, minute = int(parts["h"]), int(parts.get("min") or 0)
    half = (parts.get("half") or "").lower()
    if half != "p":
        yield hour % 12 if half == "a" else hour, minute
    if half != "a" and hour <= 12:
        yield hour % 12 + 12, minute


def _maybe_number(found: re.Match[str]) -> frozenset[float]:
    """Read `9.30` as a number, too."""
    is_number = found.groupdict().get("s") == "."
    return frozenset((float(f"{found['h']}.{found['min']}"),)) if is_number else frozenset()


def _values(text: str) -> Iterator[float]:
    """Give what a number may be: points and commas group thousands, or begin the fraction."""
    plain = re.sub(r"['\u2019\u00a0\u202f ]", "", text)
    parts = re.split(r"[.,]", plain)
    if all(len(part) == 3 for part in parts[1:]):
        yield float("".join(parts))
    if len(parts) == 1:
        return
    marks = re.findall(r"[.,]", plain)
    if len(set(marks)) == len(marks) or (len(set(marks[:-1])) == 1 and marks[-1] not in marks[:-1]):
        yield float(f"{''.join(parts[:-1])}.{parts[-1]}")
    elif len(parts) > 2 and not all(len(part) == 3 for part in parts[1:]):
        yield from (float(part) for part in parts)  # a version, an address, a section
