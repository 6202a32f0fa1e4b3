"""Times of day in words: half past nine, halb zehn, neuf heures et demie, las nueve y media."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from .number_words import hours_in_words
from .word_scan import alternatives

_H = r"(?P<h>[^\W_]+)"
_M = r"(?P<m>[^\W_]+(?:[- ][^\W\d_]+)?)"
_CLOCKS: tuple[tuple[str, int], ...] = (
    (rf"half past {_H}|las {_H} y media|le {_H} e mezza|{_H} heures? et demie?", 30),
    (rf"(?:a )?quarter past {_H}|viertel nach {_H}|kwart over {_H}|kvart (?:över|over) {_H}", 15),
    (rf"las {_H} y cuarto|le {_H} e un quarto|{_H} heures? et quart", 15),
    (rf"{_H} horas e meia|às {_H} e meia|{_H} e meia(?= da)", 30),
    (
        rf"(?:a )?quarter to {_H}|viertel vor {_H}|kwart voor {_H}|kvart i {_H}|dreiviertel {_H}",
        -15,
    ),
    (rf"las {_H} menos cuarto|le {_H} meno un quarto|{_H} heures? moins le quart", -15),
    (rf"halb {_H}|half {_H}(?= uur)|(?:om|tegen|rond) half {_H}|halv {_H}", -30),
    (rf"{_H} o['\u2019]clock|{_H} uhr|{_H} uur|{_H} heures?|{_H} en punto|le {_H} in punto", 0),
    (rf"(?:a las|às) {_H}|alle {_H}|klockan {_H}|klokken {_H}|{_H} horas|um {_H} uhr", 0),
)
_TRIGGER = re.compile(
    r"(?<!\w)(?:(?P<named>(?P<noon>noon|midday|mittags?|midi|mediodía|mezzogiorno|middag|meio-dia"
    r"|południe|полдень)|midnight|mitternacht|minuit|medianoche|mezzanotte|middernacht|meia-noite"
    r"|północ|полночь|midnatt)|half past|quarter (?:past|to)|viertel (?:nach|vor)|dreiviertel"
    r"|hal[bfv]|kwart|kvart|o['\u2019]clock|uhr|uur|heures?|en punto|in punto|horas|y media"
    r"|y cuarto|menos cuarto|e mezza|un quarto|e meia|a las|alle|klockan|klokken|às"
    r"|(?:five|ten|twenty|twenty-five|fünf|zehn|zwanzig|vijf|tien|twintig|minutes) (?:past|to"
    r"|nach|vor|over|voor)"
    r"|(?:at|by|until|from|around|before|after) [a-z]+ (?:fifteen|thirty|forty|fifty|twenty"
    r"|ten))(?!\w)"
)
_AROUND_CHARS = 30
_NUMBERED = re.compile(
    rf"(?<!\w)(?P<m>[^\W\d_]+|\d\d?) (?:minutes? )?(?P<to>past|to|nach|vor|over|voor) {_H}(?!\w)"
)
_MINUTES = re.compile(
    rf"(?<!\w)(?:at|by|until|from|around|before|after) {_H} (?P<m>fifteen|thirty|forty-five"
    rf"|twenty|ten|fifty|forty)(?!\w)(?! [a-z]+s\b)"
)


def clocks_in(text: str) -> Iterator[tuple[int, int, frozenset[tuple[int, int]]]]:
    """Yield offsets and possible hours and minutes of the times in a lower-case text.

    >>> [sorted(one[2]) for one in clocks_in("half past nine, halb zehn")]
    [[(9, 30), (21, 30)], [(9, 30), (21, 30)]]
    """
    hours = hours_in_words()
    last = -1
    for trigger in _TRIGGER.finditer(text):
        if trigger["named"]:
            minutes = 12 * 60 if trigger["noon"] else 0
            yield *trigger.span(), frozenset(((minutes // 60, 0),))
            continue
        begin = max(last, trigger.start() - _AROUND_CHARS, 0)
        for start, end, clocks in _clocks_near(text, begin, trigger.end() + _AROUND_CHARS, hours):
            if start >= last:
                yield start, end, clocks
                last = end
                break


def _clocks_near(
    text: str, begin: int, end: int, hours: Mapping[str, int]
) -> Iterator[tuple[int, int, frozenset[tuple[int, int]]]]:
    """Yield the times in a part of a text, those with most words first."""
    for pattern, offset in _patterns():
        for found in pattern.finditer(text, begin, end):
            hour = hours.get(found["h"])
            if hour is not None:
                yield *found.span(), _both(hour * 60 + offset)
    for found in _NUMBERED.finditer(text, begin, end):
        hour, minute = hours.get(found["h"]), _minute_of(found["m"], hours)
        if hour is None or minute is None or found["h"].isdecimal() or found["m"].isdecimal():
            continue
        sign = -1 if found["to"] in ("to", "vor", "voor") else 1
        if minute % 5 == 0:
            yield *found.span(), _both(hour * 60 + sign * minute)
    for found in _MINUTES.finditer(text, begin, end):
        hour = hours.get(found["h"])
        if hour is not None:
            yield *found.span(), _both(hour * 60 + _MINUTE_WORDS[found["m"]])


def _minute_of(word: str, hours: Mapping[str, int]) -> int | None:
    return _MINUTE_WORDS.get(word, hours.get(word))


_MINUTE_WORDS: Mapping[str, int] = {
    "fifteen": 15, "thirty": 30, "forty-five": 45, "twenty": 20, "ten": 10, "fifty": 50, "forty": 40
}  # fmt: skip


def _both(minutes: int) -> frozenset[tuple[int, int]]:
    """Return a time before noon and the one after; from 13 on there is one."""
    hour, minute = divmod(minutes % 1440, 60)
    return frozenset(
        ((hour, minute), ((hour + 12) % 24, minute)) if hour <= 12 else ((hour, minute),)
    )


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[re.Pattern[str], int]]:
    found = []
    for pattern, offset in _CLOCKS:
        for one in alternatives(pattern):
            found.append((re.compile(rf"(?<!\w){one}(?!\w)"), offset))
    return found
