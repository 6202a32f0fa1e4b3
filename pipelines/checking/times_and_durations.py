"""Times of day in words (half past nine, halb zehn, 三点半), hours of a day, and durations.

A time has all its meanings: without a part of the day, half past nine is 9:30 or 21:30. Languages
count hours with numbers or with ordinals, and some put an ending to them.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from .numbers import Number, NumberReading
from .spelled_numbers import han_value, hours_in_words
from .units import Unit
from .value_words import alternatives

_HOUR = r"(?P<h>[^\W_]+)(?![^\W_]|[.:]\d)"
_ARABIC_HOUR = r"الساعة (?P<h>(?:الحادية|الثانية) عشرة?|[^\W_]+)"
_SPOKEN: tuple[tuple[str, int], ...] = (
    (rf"half past {_HOUR}|las {_HOUR} y media|{_HOUR} y media(?= de la)|le {_HOUR} e mezza", 30),
    (
        rf"(?:a )?quarter past {_HOUR}|viertel nach {_HOUR}|kwart over {_HOUR}|kvart (?:över"
        rf"|over) {_HOUR}|kwadrans po {_HOUR}|{_HOUR} çeyrek geç\w*",
        15,
    ),
    (rf"las {_HOUR} y cuarto|l[ea] {_HOUR} e un quarto", 15),
    (rf"(?:às|pelas) {_HOUR} e meia|{_HOUR} e meia(?= da)", 30),
    (rf"(?:às|pelas) {_HOUR} e (?:um )?quarto", 15),
    (rf"(?:alle|dalle) {_HOUR} e mezza|saat {_HOUR} buçuk\w*", 30),
    (rf"(?:alle|dalle) {_HOUR} e un quarto", 15),
    (rf"(?:alle|dalle) {_HOUR} meno un quarto|{_HOUR} çeyrek (?:kala|var)", -15),
    (
        rf"(?:a )?quarter to {_HOUR}|viertel vor {_HOUR}|kwart voor {_HOUR}|kvart i {_HOUR}"
        rf"|dreiviertel {_HOUR}|za kwadrans {_HOUR}|kwadrans przed {_HOUR}|без четверти {_HOUR}",
        -15,
    ),
    (rf"las {_HOUR} menos cuarto|le {_HOUR} meno un quarto|{_HOUR} heures? moins le quart", -15),
    (
        rf"halb {_HOUR}|half {_HOUR}(?= uur)|(?:om|tegen|rond|en|tot|van|vanaf|voor|na) half "
        rf"{_HOUR}|halv {_HOUR}"
        rf"|wpół do {_HOUR}|половин[аеу] {_HOUR}",
        -30,
    ),
    (rf"четверть {_HOUR}", -45),
    (rf"{_ARABIC_HOUR} والنصف", 30),
    (rf"{_ARABIC_HOUR} و(?:ال)?ربع", 15),
    (rf"{_ARABIC_HOUR} [إا]لا (?:ال)?ربع\w*", -15),
    (rf"{_ARABIC_HOUR} والثلث", 20),
    (rf"{_HOUR} o['\u2019]clock|{_HOUR} uhr|{_HOUR} en punto|le {_HOUR} in punto", 0),
    (
        rf"(?:a las|às|pelas) {_HOUR}|alle {_HOUR}|klockan {_HOUR}|klokken {_HOUR}|um {_HOUR} uhr"
        rf"|(?:dalle|le) {_HOUR}(?= (?:alle|d(?:el|i) (?:mattin|pomeriggio|sera)))"
        rf"|las {_HOUR}(?= de la (?:mañana|tarde|noche))",
        0,
    ),
    (
        rf"(?:o|od|po|przed|do) (?:godzin\w+ )?{_HOUR}(?= (?:rano|wieczorem|po południu|w nocy)"
        rf"|[.,;]"
        rf"|\Z)|godzin\w+ {_HOUR}|saat {_HOUR}|{_ARABIC_HOUR}",
        0,
    ),
)
_NTH_HOURS = (
    "pierwszej drugiej trzeciej czwartej piątej szóstej siódmej ósmej dziewiątej dziesiątej "
    "jedenastej dwunastej trzynastej czternastej piętnastej szesnastej siedemnastej osiemnastej "
    "dziewiętnastej dwudziestej",
    "pierwsza druga trzecia czwarta piąta szósta siódma ósma dziewiąta dziesiąta jedenasta "
    "dwunasta",
    "первого второго третьего четвёртого пятого шестого седьмого восьмого девятого десятого "
    "одиннадцатого двенадцатого",
    "الواحدة الثانية الثالثة الرابعة الخامسة السادسة السابعة الثامنة التاسعة العاشرة "
    "الحادية_عشرة الثانية_عشرة",
    "biri ikiyi üçü dördü beşi altıyı yediyi sekizi dokuzu onu on_biri on_ikiyi",
    "bire ikiye üçe dörde beşe altıya yediye sekize dokuza ona on_bire on_ikiye",
    "birde ikide üçte dörtte beşte altıda yedide sekizde dokuzda onda on_birde on_ikide",
)
"""Hours as ordinals or with an ending, from one on."""
CLOCK_WORDS = re.compile(
    r"(?<!\w)(?:(?P<named>(?P<noon>noon|midday|mittags?|midi|mediodía|mezzogiorno|middag|meio-dia"
    r"|w południe|полдень)|midnight|mitternacht|minuit|medianoche|mezzanotte|middernacht"
    r"|meia-noite|północ|полночь|midnatt)|half past|quarter (?:past|to)|viertel (?:nach|vor)"
    r"|dreiviertel|hal[bfv]|kwart|kvart|o['\u2019]clock|uhr|heures?|en punto|in punto|horas|y media"
    r"|y cuarto|menos cuarto|e mezza|un quarto|e meia|a las|alle|dalle|klockan|klokken|às|pelas"
    r"|(?:las|le) \w+ (?:de la|d[ei]l?|[ye]) "
    r"|(?:five|ten|twenty|twenty-five|fünf|zehn|zwanzig|vijf|tien|twintig|minutes) (?:past|to"
    r"|nach|vor|over|voor)|saat|çeyrek|wpół do|kwadrans|godzin\w+|(?:o|od|po|przed|do) \w+ej"
    r"|половин[аеу]|четверть|четверти|الساعة"
    r"|(?:at|by|until|from|around|before|after) [a-z]+ (?:fifteen|thirty|forty|fifty|twenty"
    r"|ten))(?!\w)"
    r"|[0-9零〇一二三四五六七八九十两兩][点點时時시]"
)
_AROUND_CLOCK_CHARS = 30
_PAST_OR_TO = re.compile(
    rf"(?<!\w)(?P<m>[^\W\d_]+|\d\d?) (?:minutes? )?(?P<to>past|to|nach|vor|over|voor) {_HOUR}(?!\w)"
)
_AT_MINUTES = re.compile(
    rf"(?<!\w)(?:(?:at|by|until|from|around|before|after) {_HOUR} (?P<m>fifteen|thirty|forty-five"
    r"|twenty|ten|fifty|forty)(?!\w)(?! [a-z]+s\b)"
    r"|(?:las|le|alle|dalle|às|pelas) (?P<h2>[^\W\d_]+) [ye] (?P<m2>[^\W\d_]+)(?!\w))"
)
_HAN_NUMBER = "(?:[01]?[0-9]|2[0-4]|[零〇一二三四五六七八九十两兩]{1,3})"
_HAN_CLOCK = re.compile(
    rf"(?<![a-z0-9:.,])(?P<part>(?:午[前后後]|[上下中]午|凌晨|清晨|早上|晚上|傍晚|夜里|[早晚夜]间|朝|夜|今早|今晚|오전|오후)\s?)?"
    rf"(?P<h>{_HAN_NUMBER})\s?(?P<sign>[点點时時시])"
    rf"(?:(?P<half>半)|[过過]?(?P<quarters>[一三])刻|\s?(?P<min>[0-5]?[0-9]|[零〇一二三四五六七八九十]{{1,3}})\s?[分분]"
    r"|(?P<sharp>[整钟鐘]))?"
)
_NOT_HAN_CLOCK = re.compile("[间間간候代期刻的左右内內给給]")


def clocks_in(text: str) -> Iterator[tuple[int, int, frozenset[tuple[int, int]]]]:
    """Yield offsets and possible hours and minutes of the times in a lower-case text.

    >>> [sorted(found[2]) for found in clocks_in("half past nine, halb zehn")]
    [[(9, 30), (21, 30)], [(9, 30), (21, 30)]]
    """
    hours = _hours()
    last = -1
    for trigger in CLOCK_WORDS.finditer(text):
        if trigger["named"]:
            minutes = 12 * 60 if trigger["noon"] else 0
            yield *trigger.span(), frozenset(((minutes // 60, 0),))
            continue
        begin = max(last, trigger.start() - _AROUND_CLOCK_CHARS, 0)
        end = trigger.end() + _AROUND_CLOCK_CHARS
        for start, stop, clocks in _clocks_near(text, begin, end, hours):
            if start >= last and (stop < end or stop == len(text)):  # else it may go on there
                yield start, stop, clocks
                last = stop
                break


def _clocks_near(
    text: str, begin: int, end: int, hours: Mapping[str, int]
) -> Iterator[tuple[int, int, frozenset[tuple[int, int]]]]:
    """Yield the times in a part of a text, those with most words first."""
    if not text.isascii():
        yield from _han_clocks_in(text, begin, end)
    for pattern, offset in _patterns():
        for found in pattern.finditer(text, begin, end):
            hour = hours.get(found["h"])
            if hour is not None:
                yield *found.span(), _both(hour * 60 + offset)
    for found in _PAST_OR_TO.finditer(text, begin, end):
        at = _past_or_to(found, hours)
        if at is not None:
            yield *found.span(), _both(at)
    for found in _AT_MINUTES.finditer(text, begin, end):
        hour = hours.get(found["h"] or found["h2"])
        minute = _minute_of(found["m"] or found["m2"], hours)
        if hour is not None and minute is not None:
            yield *found.span(), _both(hour * 60 + minute)


def _past_or_to(found: re.Match[str], hours: Mapping[str, int]) -> int | None:
    """Return the minute of the day of `ten past nine`, five minutes or several of them."""
    hour, minute = hours.get(found["h"]), _minute_of(found["m"], hours)
    if hour is None or minute is None or minute % 5:
        return None
    if found["h"].isdecimal() or found["m"].isdecimal():
        return None
    return hour * 60 + (-minute if found["to"] in ("to", "vor", "voor") else minute)


def _han_clocks_in(
    text: str, begin: int, end: int
) -> Iterator[tuple[int, int, frozenset[tuple[int, int]]]]:
    """Yield times such as 三点半; three points (三点) and three hours (三時間) are none."""
    for found in _HAN_CLOCK.finditer(text, begin, end):
        is_digits = found["h"].isdecimal()
        is_sure = any(found[name] for name in ("part", "half", "quarters", "min", "sharp"))
        is_sure = is_sure or (is_digits and found["sign"] in "时時點시")
        if not is_sure or _NOT_HAN_CLOCK.match(text, found.end()):
            continue
        if text[found.end() : found.end() + 1].isdecimal():
            continue
        hour = int(found["h"]) if is_digits else int(han_value(found["h"]))
        if found["quarters"]:
            minute = 15 if found["quarters"] == "一" else 45
        elif found["min"]:
            minute = int(found["min"] if found["min"].isdecimal() else han_value(found["min"]))
        else:
            minute = 30 if found["half"] else 0
        if hour <= 24 and minute < 60:
            start = found.start("h")
            yield start, found.end(), _both(hour * 60 + minute)


def _minute_of(word: str, hours: Mapping[str, int]) -> int | None:
    return _MINUTE_WORDS.get(word, hours.get(word))


_MINUTE_WORDS: Mapping[str, int] = {
    "fifteen": 15, "thirty": 30, "forty-five": 45, "twenty": 20, "ten": 10, "fifty": 50,
    "forty": 40, "treinta": 30, "cuarenta": 40, "cincuenta": 50, "trenta": 30, "quaranta": 40,
    "cinquanta": 50, "trinta": 30, "quarenta": 40, "cinquenta": 50,
}  # fmt: skip


@lru_cache(maxsize=1)
def _hours() -> Mapping[str, int]:
    """Return the hours from 1 to 24 by their words, those with endings too."""
    others = {
        word.replace("_", " "): hour
        for words in _NTH_HOURS
        for hour, word in enumerate(words.split(), 1)
    }
    return {**others, "الحادية عشر": 11, "الثانية عشر": 12, **hours_in_words()}


def _both(minutes: int) -> frozenset[tuple[int, int]]:
    """Return a time before noon and the one after; from 13 on there is one."""
    hour, minute = divmod(minutes % 1440, 60)
    return frozenset(
        ((hour, minute), ((hour + 12) % 24, minute)) if hour <= 12 else ((hour, minute),)
    )


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[re.Pattern[str], int]]:
    found = []
    for pattern, offset in _SPOKEN:
        for alternative in alternatives(pattern):
            found.append((re.compile(rf"(?<!\w){alternative}(?!\w)"), offset))
    return found


HOURS = re.compile(
    r"\b(?:open\w*|hours?|daily|r[au]n|runs|o'?clock|uhr|geöffnet|heures?|ouvert\w*|abiert\w*|abre|horas?"
    r"|apert\w*|ore|uur|geopend|otwart\w*|öppet|åpent|åbent|godzin\w*|pm|am)\b"
)
"""Words before or after hours of a day: open 9 to 5."""
_WEEK_LONG, _MONTH_LONG, _YEAR_LONG = (
    re.compile(rf"(?<![^\W_])a[- ]{name}(?!\w)", re.IGNORECASE)
    for name in ("week", "month", "year")
)
_HOURS_AND_MINUTES = re.compile(
    r"(?<![\w.,:])(?P<h>[0-9]{1,2})\s?(?:h|hrs?|hours?|std\.?|stunden?|heures?|horas?|or[ae]|uur|godz\w*\.?|ч|час\w*)"
    r"\s?(?:(?:and|und|et|y|e|en|i|и)\s)?(?P<min>[0-5]?[0-9])\s?min",
    re.IGNORECASE,
)
"""2 h 25 min are 2 hours and 25 minutes."""
_LENGTHS = (
    (_WEEK_LONG, frozenset((NumberReading(1.0, Unit("second", 604800)),))),
    (_MONTH_LONG, frozenset((NumberReading(1.0, Unit("month", 1)),))),
    (_YEAR_LONG, frozenset((NumberReading(1.0, Unit("month", 12)),))),
)


def durations_in(text: str) -> Iterator[Number]:
    """Yield durations: a month, a year, and 2 h 25 min."""
    for pattern, readings in _LENGTHS:
        for found in pattern.finditer(text):
            yield Number(found[0], *found.span(), readings, 0, is_sure=False)
    for found in _HOURS_AND_MINUTES.finditer(text):
        hours, minutes = float(found["h"]), float(found["min"])
        for value, factor in ((hours, 3600), (minutes, 60), (hours + minutes / 60, 3600)):
            readings = frozenset((NumberReading(value, Unit("second", factor)),))
            yield Number(found[0], *found.span(), readings, is_sure=False)
