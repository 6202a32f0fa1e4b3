"""Numbers in a text, each with its sign, thousands, decimals, scale and unit.

`1.234` may be 1234 or a little more than 1: a number has all possible values, and no part of it
counts by itself. Its unit, currency or per cent is that of `units`.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from math import prod

from .codes import (
    CENTURY,
    LETTER,
    LETTER_CODE,
    PREFIX,
    VERSION_BEFORE,
    grouped_codes_in,
    letter_code,
    roman_numerals_in,
)
from .digits_and_cells import GROUPS, MOST_DIGITS, number_values, rounded
from .number_scales import (
    SHORT_SCALE,
    SHORT_SCALES,
    end_of_scale,
    is_sure_scale,
    range_scales,
    scale_after,
)
from .spelled_numbers import (
    HAN_DIGITS,
    HAN_NUMBER,
    HAN_SCALES,
    SpelledNumber,
    han_value,
    hours_in_words,
    numbers_at_words,
    scale_at,
    spelled_numbers_in,
)
from .units import (
    NO_UNIT,
    PERCENT,
    TIMES,
    Unit,
    is_long_time,
    is_money,
    units_after,
    units_before,
    units_of_side,
)
from .value_words import (
    AND_HALF,
    NO_DIRECTION,
    Direction,
    DirectionWords,
    halves_in,
    is_moment,
    shares_in,
    time_bound,
)

_DECIMAL = re.compile(r"[0-9]+\.[0-9]+")
_BODY = re.compile(
    rf"(?<![^\W_\u3040-\u9fff\uac00-\ud7af])(?:"
    rf"(?<![0-9])[1-9][0-9]{{0,2}}(?:(?P<group>[.,{GROUPS}])[0-9]{{3}})(?:(?P=group)[0-9]{{3}})*(?![0-9])"
    r"(?:[.,][0-9]+(?![0-9]))?"
    r"|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?![0-9])(?:\.[0-9]+)?"  # lakhs and crores
    r"|(?<![0-9])[0-9]+(?:[.,][0-9]+)?|(?<![0-9])\.[0-9]+)(?:[eE][+-]?[0-9]{1,2}(?![^\W_]))?"
)
_VULGAR = re.compile(r"(?:(?<![0-9])([0-9]{1,4})[^\S\n]?)?([½¼¾⅓⅔⅛⅜⅝⅞⅕⅖⅗⅘⅙⅚])")
_FRACTION = re.compile(
    r"(?<![0-9/.,])(?:([0-9]{1,2})[^\S\n])?([0-9]{1,2})[/\u2044]([0-9]{1,3})(?![0-9/])"
)
_HAN_PART = re.compile(
    r"([0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?)([億亿억]|[十百千십백천]?[万萬만]|[千천백])?[^\S\n]?"
)
_HAN_MIXED = re.compile(
    rf"(?<![0-9,.])(?:{_HAN_PART.pattern.replace(')?[^', ')[^')})+"
    r"(?:(?:[0-9],[0-9]{3}|[0-9]{1,4}(?!,[0-9]))(?![0-9万萬만億亿억千]))?"
)
TURKISH_THOUSANDS = re.compile(r"(?<![\d.,])([0-9]{1,3}) bin ([0-9]{1,3})(?![\d.,]*\d)")
HUNDREDTHS = re.compile(
    r"(?<![\w.,])([0-9]{1,6})[^\S\n]?(?:€|euros?|zł|m)(?:[^\S\n](?:e|et|y|con|und|and|en|i))?[^\S\n]"
    r"([0-9]{2})(?=[^\S\n]?(?:[.,;:!?)\n]|\Z)(?![0-9])|\s(?:e|et|und|y|i|and|en|groß|hoch|lang)\b)",
    re.IGNORECASE,
)
"""3 euro e 60, 1 m 80."""
_YEAR = re.compile(r"(?:1[89]|20)[0-9]{2}", re.ASCII)
_YEAR_BEFORE = re.compile(
    r"(?:(?<!\w)(?:in|im|en|em|no|nel|de|of|since|depuis|desde|dal|seit|sinds|w|od|r\.|في|عام|سنة|منذ))[^\S\n]\Z",
    re.IGNORECASE,
)
_HAN_MEASURES = "个個人名天年月日次周週家艘只隻条條岁歲元块塊倍位本台米公斤小分钟号"
_PERCENT_BEFORE = re.compile(r"百分之\Z")
_MINUS = re.compile(
    r"(?:^|(?<=[\s(\[{:=~≈<>|/\"'“«]))[-\u2212\u2013]\Z|(?<=[$€£])[-\u2212]\Z", re.M
)
_PLUS = re.compile(r"(?<![\w+])\+\Z")
_CURRENCY_BEFORE = re.compile(r"(?:\b[A-Z]{2,3}|[A-Z]{0,2}[$€£¥₹₩₽]|\bRs)\.?[^\S\n]?\Z")
_MINUS_WORD = re.compile(
    r"(?<!\w)(?<!\bal )(?<!\bau )(?<!lo )(?<!\bou )(?:minus|moins|menos|meno|min|negative"
    r"|минус|eksi|miinus|minusz|负|負|マイナス|سالب|ناقص|零下|氷点下|영하"
    r"|sıfırın altında)"
    r"[^\S\n]?\Z",
    re.IGNORECASE,
)
_BELOW_ZERO = (
    r"below (?:zero|freezing)|unter (?:null|dem gefrierpunkt)|(?:au-dessous de|sous) (?:de )?zéro"
    r"|bajo cero|sotto (?:lo )?zero|(?:abaixo de|negativos) zero|negativos|onder (?:nul|het "
    r"vriespunt)"
    r"|poniżej zera|ниже нуля|تحت الصفر|under (?:noll|null|nul)|pod nulou|nulla alatt"
)
_BELOW_ZERO_AFTER = re.compile(
    rf"[^\S\n]?(?:°[^\S\n]?[cf]?|degrees?|grad|grados?|degrés?|gradi|graus?|graden|stopni\w*|градус\w*"
    rf"|درجات|درجة)?(?:[^\S\n]celsius|[^\S\n]مئوية)?[^\S\n]?(?:{_BELOW_ZERO})(?!\w)",
    re.IGNORECASE,
)
_CREDIT_AFTER = re.compile(
    r"(?<![^\d.,]\d)(?<!\A\d)(?<![^\d.,]\d\d)(?<!\A\d\d)[-\u2212\u2013](?=\s|\Z)(?!\s{4})"
)
"""Of an amount; 9- may be the beginning of hours."""
_THOUSANDS_GROUPED = re.compile(r"[0-9]{1,3}(?:[.,][0-9]{3})+")
_IN_COLUMN = re.compile(r"(?:^|[ \t|])\(?[-0-9][0-9.,]*\)?(?=[ \t|]|$)")
_WORD_BEFORE = re.compile(r"[^\W\d_]{2}[^\S\n]?\Z")
_CELL_BEFORE, _CELL_AFTER = re.compile(r"(?:[|\t;] ?|\s\s)\Z"), re.compile(r" ?[|\t;]|\s\s|\Z")
_PROSE_AFTER = re.compile(r"[.,;:]|[^\S\n](?![\d(|])[^\s]")
_CENTS = re.compile(r"\d[.,]\d\d(?!\d)")
_ORDINAL_MARK = re.compile(
    r"(?:st|nd|rd|th|er|ère|e|º|ª|de|ste|-?[йяюе]|-(?:ый|ий|ой|ая|ое|ую|го|му|ом|ми|ым|ых|та|ша|га))(?!\w)|\.(?!\d)"
)
_CENTURY_AFTER = re.compile(rf"\.[^\S\n]?{CENTURY}(?!\w)", re.IGNORECASE)
_ORDINAL_BEFORE = re.compile(r"\b(?:am|vom|zum|der|dem|den|bis)[^\S\n]\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class NumberReading:
    """A possible value of a number, and its unit."""

    value: float
    unit: Unit = NO_UNIT

    @property
    def base(self) -> float:
        """The value in the base unit of its dimension."""
        return rounded(self.value * self.unit.factor)


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a text."""

    text: str
    start: int
    end: int
    readings: frozenset[NumberReading]
    sign: int = 1
    """1 or -1; 0: it may have either."""
    code: str = ""
    """A version, a number plate, a score: it must be in the source unchanged."""
    parts: tuple[str, ...] = ()
    """Numbers in columns with spaces between: the readings without a thousands separator."""
    is_ordinal: bool = False
    is_sure: bool = True
    """It can only be a number."""
    bare: tuple[int, int] | None = None
    """Where it is without currency and unit; None: all of it."""
    direction: Direction = NO_DIRECTION
    """What the words around it say: it fell, it is at most so much."""
    written: str = ""
    """Its digits, where it may be a version."""
    roman: int = 0
    is_share: bool = False
    """Its per cent are those of a part in words: half the staff may be 50 %, and is not 50."""

    def agrees(self, other: Number) -> bool:
        """Return whether the signs and directions of two equal numbers may be the same."""
        if 0 in (self.sign, other.sign) or self.sign == other.sign > 0:
            return not self.direction.differs_from(other.direction)
        if self.sign == other.sign:
            return True
        positive = self if self.sign > 0 else other
        return positive.direction.is_less


_OF = re.compile(r"[^\S\n](?:de[^\S\n]|d['\u2019]|di[^\S\n])")
_OF_UNIT = re.compile(
    r"[^\S\n-]?-?(?:(?:of )?an? |of |de |d['\u2019]|di |do |van een |een |uma? |un |['\u2019])?",
    re.IGNORECASE,
)
_JOINED_SCALE = re.compile(r"(?<=\w)(?:milli|милли|тысяч)\w+\Z", re.IGNORECASE)
"""Viertelmillion, полмиллиона."""


class Untaken:
    """What is left of a text when parts of it were read: they are blank."""

    def __init__(self, text: str) -> None:
        self._signs = list(text)
        self._text: str | None = text

    @property
    def text(self) -> str:
        if self._text is None:
            self._text = "".join(self._signs)
        return self._text

    def part(self, start: int, end: int) -> str:
        return "".join(self._signs[start:end])

    def take(self, start: int, end: int) -> None:
        self._signs[start:end] = " " * (end - start)
        self._text = None


def numbers_in(
    text: str, whole: str = "", fits: Callable[[str], bool] | None = None
) -> Iterator[Number]:
    """Yield the numbers of a text: codes, digits, words, each as a whole.

    `whole` and `fits` are as in `values_in`.

    >>> [(n.text, sorted(r.value for r in n.readings)) for n in numbers_in("1,200 of 3 m")]
    [('1,200', [1.2, 1200.0]), ('3 m', [3.0, 3000000.0])]
    """
    rest = Untaken(text)
    # Codes of several groups of digits, Roman numerals, and codes with letters
    for start, end, code in grouped_codes_in(text):
        if fits is None or fits(text[start:end]):
            yield Number(text[start:end], start, end, frozenset(), code=code)
        rest.take(start, end)
    for start, end, value in roman_numerals_in(text):
        name = f"roman{value}"
        yield Number(text[start:end], start, end, frozenset(), 0, code=name, roman=value)
        rest.take(start, end)
    for found in LETTER_CODE.finditer(rest.text):
        letters = letter_code(found[0])
        if letters is not None:
            if fits is None or fits(found[0]):
                readings = _readings_of_code(found[0])
                yield Number(found[0], *found.span(), readings, code=letters)
            rest.take(*found.span())
        elif prefix := PREFIX.match(found[0]):
            rest.take(found.start(), found.start() + prefix.end())
    words = DirectionWords(lower_case(text))
    # Blank `and a half` where it belongs to the number before; return where it is.
    starts = []
    for half in halves_in(text):
        starts.append(half.start())
        begin = max(0, half.start() - _MOST_BEFORE_CHARS)
        if _is_after_number(rest.part(begin, half.start())):
            rest.take(*half.span())
    halves = starts
    for numbers in (_digit_fractions_in, _of_han_scales, _of_halves, _lasting_in, _shares_in):
        for number in numbers(text, rest.text, words):
            yield number
            rest.take(number.start, number.end)
    yield from _in_digits(text, rest, words, halves, fits, _decimal_mark(whole))
    for spelled in spelled_numbers_in(rest.text, whole):
        if _has_half_after(halves, spelled.end) or _fits_any(spelled.values, fits):
            number = _of_words(text, spelled, words)
            if not (
                spelled.is_article and all(reading.unit == NO_UNIT for reading in number.readings)
            ):
                yield number
    for number in _in_han(rest.text):
        yield replace(number, direction=words.of(number.start, number.end))


def _in_digits(
    text: str,
    rest: Untaken,
    words: DirectionWords,
    halves: Sequence[int],
    fits: Callable[[str], bool] | None,
    decimal_mark: str,
) -> Iterator[Number]:
    for found in _BODY.finditer(rest.text):
        if fits is None or _has_half_after(halves, found.end()) or fits(found[0]):
            number = _of_digits(text, found, words, decimal_mark)
            yield number
            rest.take(found.start(), number.end)
        else:
            rest.take(found.start(), end_of_scale(text, found.end()))


def _fits_any(values: Iterable[float], fits: Callable[[str], bool] | None) -> bool:
    return fits is None or any(fits(f"{value:.15g}") for value in values)


def _has_half_after(halves: Sequence[int], end: int) -> bool:
    """Return whether a half may belong to a number, also behind its unit: 3 hours and a half."""
    at = bisect_left(halves, end)
    return at < len(halves) and halves[at] < end + _MOST_BEFORE_CHARS


def _digit_fractions_in(text: str, rest: str, words: DirectionWords) -> Iterator[Number]:
    for found in _FRACTION.finditer(rest):
        if int(found[3]):
            value = int(found[1] or 0) + int(found[2]) / int(found[3])
            readings = frozenset((NumberReading(rounded(value)),))
            yield Number(found[0], *found.span(), readings, code=found[0].replace("\u2044", "/"))
    for found in _VULGAR.finditer(rest):
        value = int(found[1] or 0) + unicodedata.numeric(found[2])
        yield _number_at(text, found.start(), found.end(), (value,), words)


def _of_han_scales(text: str, rest: str, words: DirectionWords) -> Iterator[Number]:
    """Yield numbers of several scales: 1億2000万, 1万3500, 3 euro e 60, in Turkish 102 bin 656."""
    for found in HUNDREDTHS.finditer(rest):
        value = rounded(int(found[1]) + int(found[2]) / 100)
        units, _ = units_after(text, found.end(1))
        readings = frozenset(NumberReading(value, unit) for unit in units)
        yield Number(found[0], *found.span(), readings, direction=words.of(*found.span()))
    for found in TURKISH_THOUSANDS.finditer(rest):
        value = 1000.0 * int(found[1]) + int(found[2])
        yield _number_at(text, *found.span(), (value,), words)
    for found in _HAN_MIXED.finditer(rest):
        parts = [
            float(digits.replace(",", "")) * prod(map(HAN_SCALES.__getitem__, scale))
            for digits, scale in _HAN_PART.findall(found[0])
        ]
        end = found.start() + len(found[0].rstrip())
        if len(parts) > 1 and parts == sorted(parts, reverse=True):
            value = rounded(sum(parts), MOST_DIGITS)
            yield _number_at(text, found.start(), end, (value,), words)


HALF_WORD = re.compile(
    r"(?<!\w)(?:(?:półtor(?:a|ej)|anderthalb(?:e[nrsm]?)?|anderhalve?|полтор[аы]|полутора|másfél"
    r"|puolitoista|halvann(?:an|et)|půldruh\w+|bir\sbuçuk)"
    r"|(?P<n>[^\W\d_]{2,16}?)(?:und)?(?:einhalb|(?:ën|en)(?:een)?half))(?!\w)",
    re.IGNORECASE,
)
"""One and a half in one word, and the like: anderthalb, viereinhalb, drieënhalf."""

_HALF_WORD_HINT = re.compile("pół|hal[bfv]|полт|полут|másf|puolit|půld|buçuk", re.IGNORECASE)
_ARABIC_DUAL = re.compile(
    r"(?<!\w)[وفبلك]?(?:ال)?(?:(?P<n>يوم|[أا]سبوع|شهر|عام)|(?P<f>ثاني|دقيق|ساع|سن)ت)(?:ين|ان)(?!\w)"
)
ADDED_HALF = re.compile("halv|половиной|buçuk|ونصف")
"""Which are no halves by themselves, but after a number."""
_HAN_AND_HALF = re.compile("(?<![一二两兩三四五六七八九十])([一二两兩三四五六七八九十])[个個]半")


_LASTING_KINDS = (
    "(?P<month>monatig|miesięczn|месячн|mesečn|měsíčn)|(?P<year>jährig|letni|roczn|летн)"
    "|(?P<week>wöchig|tygodniow|недельн|týdenn)|(?P<day>tägig|dniow|дневн|denn)"
    "|(?P<hour>stündig|godzinn|часов)"
)
_LASTING_HINT = re.compile(_LASTING_KINDS)
_LASTING = re.compile(
    rf"(?<!\w)(?P<n>[^\W\d_]{{2,12}}?)(?:{_LASTING_KINDS})\w{{0,4}}(?!\w)", re.IGNORECASE
)
"""Of so many months and the like, in one word: dreimonatig, dwumiesięczny, трёхдневный."""
_STEMS: Mapping[str, int] = {
    "dwu": 2, "trzy": 3, "trój": 3, "cztero": 4, "pięcio": 5, "sześcio": 6, "siedmio": 7,
    "ośmio": 8, "dziewięcio": 9, "dziesięcio": 10, "dwunasto": 12, "двух": 2, "трёх": 3, "трех": 3,
    "четырёх": 4, "четырех": 4, "пяти": 5, "шести": 6, "семи": 7, "восьми": 8, "девяти": 9,
    "десяти": 10, "двенадцати": 12, "dvou": 2, "tří": 3, "čtyř": 4, "pěti": 5, "šesti": 6,
}  # fmt: skip


def _lasting_in(text: str, rest: str, words: DirectionWords) -> Iterator[Number]:
    """Yield the numbers of adjectives."""
    for found in _LASTING.finditer(rest) if _LASTING_HINT.search(lower_case(rest)) else ():
        name = found["n"].casefold()
        value = _STEMS.get(name) or hours_in_words().get(name, 0)
        if value > 1:
            units, _ = units_after(f" {found.lastgroup}", 0)
            readings = frozenset(NumberReading(float(value), unit) for unit in units)
            direction = words.of(*found.span())
            yield Number(found[0], *found.span(), readings, direction=direction)


def is_half_word(word: str) -> bool:
    """Return whether a word is a number and a half, two of something in Arabic, or so many days."""
    return any(pattern.match(word) for pattern in (HALF_WORD, _ARABIC_DUAL, _LASTING))


def _of_halves(text: str, rest: str, words: DirectionWords) -> Iterator[Number]:
    for found in _HAN_AND_HALF.finditer(rest):
        yield _number_at(text, *found.span(), (han_value(found[1]) + 0.5,), words)
    for found in _ARABIC_DUAL.finditer(rest):
        units, _ = units_after(f" {found['n'] or found['f'] + 'ة'}", 0)
        readings = frozenset(NumberReading(2.0, unit) for unit in units)
        direction = words.of(*found.span())
        yield Number(found[0], *found.span(), readings, direction=direction)
    for found in HALF_WORD.finditer(rest) if _HALF_WORD_HINT.search(rest) else ():
        whole = hours_in_words().get(found["n"].casefold(), 0) if found["n"] else 1
        if whole:
            yield _number_at(text, *found.span(), (whole + 0.5,), words)


def _of_words(text: str, spelled: SpelledNumber, words: DirectionWords) -> Number:
    start, end, is_sure = spelled.start, spelled.end, spelled.is_sure
    if spelled.is_ordinal:
        readings = frozenset(map(NumberReading, spelled.values))
        begin = max(0, start - _MOST_BEFORE_CHARS)
        near = lower_case(text[begin : end + _MOST_BEFORE_CHARS])
        return Number(
            text[start:end], start, end, readings, 0, is_ordinal=True, is_sure=is_sure,
            direction=Direction(bound=time_bound(near, start - begin, end - begin)),
        )  # fmt: skip
    number = _number_at(text, start, end, tuple(spelled.values), words)
    is_amount = any(reading.unit != NO_UNIT and reading.value > 1 for reading in number.readings)
    is_long = any(is_long_time(reading.unit) for reading in number.readings)
    is_when = number.direction.order != 0 or is_moment(text, start, end)
    is_amount = is_amount or (is_long and not is_when)
    return replace(number, is_sure=is_sure or is_amount, is_ordinal=False)


def _shares_in(text: str, rest: str, words: DirectionWords) -> Iterator[Number]:
    """Yield fractions and multiples in words; of those, doubled is more by 100 per cent as well."""
    for start, end, share, is_sure in shares_in(lower_case(rest)):
        percent = 100 * (share - 1 if share >= 2 else share)
        bare = NumberReading(share, TIMES) if share >= 2 else NumberReading(rounded(share))
        readings = {bare, NumberReading(rounded(percent), PERCENT)}
        joined = _JOINED_SCALE.search(text, start, end)
        of = _OF_UNIT.match(text, joined.start() if joined else end) if share < 1 else None
        if of and scale_at(text, of.end())[0] > of.end():
            yield _number_at(text, start, of.end(), (share,), words)
            continue
        units, last = units_after(text, of.end()) if of else ((), end)
        is_share = not units or units[0].dimension in _NOT_HALVED
        if not is_share:
            readings = {NumberReading(rounded(share), unit) for unit in units}
            end = last
        yield Number(
            text[start:end], start, end, frozenset(readings), is_sure=is_sure,
            direction=words.of(start, end), is_share=is_share,
        )  # fmt: skip


def lower_case(text: str) -> str:
    """Return a text in lower case and of the same length; searching that is five times faster."""
    return text.replace("İ", "i").lower()


def _readings_of_code(text: str) -> frozenset[NumberReading]:
    """Return the numbers of `INV-10025` and `mid-24`, but not of `GPT-4`."""
    found = re.fullmatch(
        rf"{LETTER}+[-\u2010\u2011]([0-9]{{3,}})|[a-z]+[-\u2010\u2011]([0-9]+)",
        text,
    )
    if found is None:
        return frozenset()
    return frozenset((NumberReading(rounded(float(found[1] or found[2]))),))


_WITH_FRACTION = re.compile(
    rf"(?<![\w.,'])([0-9]+)(?P<groups>(?:[.,{GROUPS}][0-9]{{3}})*)(?P<mark>[.,])([0-9]+)(?![\w]?[.,]?[0-9])"
)
_MOST_FRACTIONS = 1000


@lru_cache(maxsize=1)
def _decimal_mark(text: str) -> str:
    """Return the mark before fractions, if a text has sure ones with one mark only; else "".

    Sure are 1.234,5 and amounts with a unit that cannot be thousands: 12,5 km; no times of day.
    """
    marks = set[str]()
    for found in islice(_WITH_FRACTION.finditer(text), _MOST_FRACTIONS):
        if found["mark"] not in marks and _is_sure_fraction(text, found):
            marks.add(found["mark"])
    return marks.pop() if len(marks) == 1 else ""


def _is_sure_fraction(text: str, found: re.Match[str]) -> bool:
    mark, (whole, fraction) = found["mark"], found.group(1, 4)
    if found["groups"]:
        return mark not in found["groups"]
    if len(fraction) == 3 and whole != "0":
        return False
    units, _ = units_after(text, found.end())
    is_amount = units or units_before(text, found.start()) or (whole == "0" and mark == ".")
    may_be_time = len(fraction) == 2 and any(unit.dimension == "second" for unit in units)
    return bool(is_amount) and not may_be_time


def _of_digits(text: str, found: re.Match[str], words: DirectionWords, decimal_mark: str) -> Number:
    body = found[0]
    if sum(map(str.isdecimal, body)) > MOST_DIGITS:
        return Number(body, *found.span(), frozenset(), code=re.sub(r"[^0-9]", "", body))
    start = found.start()
    if _DECIMAL.fullmatch(body) and VERSION_BEFORE.search(text, max(0, start - 16), start):
        return Number(body, *found.span(), frozenset(), code=body)
    parts: tuple[str, ...] = ()
    if found["group"] == " " and _is_in_columns(text, found.start(), found.end()):
        parts = tuple(body.split(" "))
    values = tuple(number_values(body, decimal_mark))
    return _number_at(text, found.start(), found.end(), values, words, parts)


def _short_scaled(
    readings: frozenset[NumberReading],
    values: Sequence[float],
    short: re.Match[str],
    prefix: tuple[Unit, ...],
) -> frozenset[NumberReading]:
    """Add a number with the scale that a sign may be, in place of the number where it must be."""
    units = prefix or (NO_UNIT,)
    for value in values:
        if is_sure_scale(short, prefix):
            readings -= _scaled((value,), (1.0,), units)
        readings |= _scaled((value,), (SHORT_SCALES[short[1]],), units)
    return readings


def _number_at(
    text: str,
    start: int,
    end: int,
    found: tuple[float, ...],
    words: DirectionWords,
    parts: tuple[str, ...] = (),
) -> Number:
    """Add scale, unit, sign and direction to a number's values."""
    prefix = units_before(text, start)
    end, found = _with_half(text, end, found)
    after_scale, scales = scale_after(text, end)
    # The units behind a number and its scale, and where they end: 5 millions de tonnes
    of = _OF.match(text, after_scale) if after_scale > end else None
    (units, last) = units_after(text, of.end() if of else after_scale)
    if units and units[0].dimension not in _NOT_HALVED:
        last, found = _with_half(text, last, found)
    is_bare = not prefix and end == last
    units = prefix or _units_of(text, start, units)
    is_whole = any(map(is_money, units)) and _THOUSANDS_OF_MONEY.fullmatch(text, start, end)
    found = (max(found),) if is_whole else found
    short = SHORT_SCALE.match(text, end) if after_scale == end else None
    if last == end:
        units += units_of_side(text, start, end)
        scales = scales if short else range_scales(text, start, end, found, is_money=bool(prefix))
    readings = _scaled(found, scales, units)
    if short is not None:
        readings = _short_scaled(readings, found, short, prefix)
        last, is_bare = max(last, short.end()), False
        after_scale = short.end() if is_sure_scale(short, prefix) else after_scale
    sign, first = _sign(text, start, last, after_scale)
    return Number(
        text[first:last].strip(), first, last, readings, sign, parts=parts,
        is_ordinal=_is_ordinal(text, start, end), bare=(first if sign < 0 else start, after_scale),
        direction=_direction_at(text, first, last, words),
        written=_version(text, start, end) if is_bare else "",
    )  # fmt: skip


def _version(text: str, start: int, end: int) -> str:
    return text[start:end] if _DECIMAL.fullmatch(text, start, end) else ""


def _units_of(text: str, at: int, behind: tuple[Unit, ...]) -> tuple[Unit, ...]:
    return (PERCENT,) if _PERCENT_BEFORE.search(text, max(0, at - 3), at) else behind or (NO_UNIT,)


def _scaled(
    values: Sequence[float], scales: Sequence[float], units: Sequence[Unit]
) -> frozenset[NumberReading]:
    scaled = [v if scale == 1 else rounded(v * scale) for v in values for scale in scales]
    return frozenset(NumberReading(value, unit) for value in scaled for unit in units)


_THOUSANDS_OF_MONEY = re.compile(r"[1-9][0-9]{1,2}[.,][0-9]{3}")
"""24.500 euro are no 24 and a half; 1.849 may be the price of a litre."""
_NOT_HALVED = frozenset(("percent", "percentage point"))


def _with_half(text: str, at: int, values: tuple[float, ...]) -> tuple[int, tuple[float, ...]]:
    """Add what follows a number or its unit: `and a half`. Return where that ends."""
    found = AND_HALF.match(text, at)
    if found is None:
        return at, values
    share = {"quarter": 0.25, "most": 0.75}.get(str(found.lastgroup), 0.5)
    return found.end(), tuple(value + share for value in values)


def _direction_at(text: str, start: int, end: int, words: DirectionWords) -> Direction:
    """Return what the words around a number say, and its plus sign: (+5 %) is a rise."""
    direction = words.of(start, end)
    if _YEAR.fullmatch(text, start, end) and _YEAR_BEFORE.search(text, max(0, start - 16), start):
        return replace(direction, change=0, result=0, is_needed=False)  # when, not how much
    if _PLUS.search(text, max(0, start - 2), start) and not direction.change:
        return replace(direction, change=1)
    return direction


def _is_after_number(text: str) -> bool:
    """Return whether a text ends with a number, or one with its unit: four hours and a half."""
    words = _WORDS_BEFORE.search(text)
    if words is None:
        return False
    name = words["last"].casefold()
    if name[-1].isdecimal() or numbers_at_words(name):
        return True
    first = (words["first"] or "").casefold()
    is_number = first[-1:].isdecimal() or bool(first and numbers_at_words(first))
    return is_number and bool(units_after(f" {name}", 0)[0])


_WORDS_BEFORE = re.compile(r"(?:(?P<first>[^\W_]+)[^\S\n])?(?P<last>[^\W_]+)\Z")
_MOST_BEFORE_CHARS = 40


def _is_ordinal(text: str, start: int, end: int) -> bool:
    """Return whether it is an ordinal, such as `the 3rd` and `am 3.`."""
    mark = _ORDINAL_MARK.match(text, end)
    if mark is None:
        return False
    is_before = _ORDINAL_BEFORE.search(text, max(0, start - 5), start) is not None
    return mark[0] != "." or is_before or _CENTURY_AFTER.match(text, end) is not None


def _sign(text: str, start: int, last: int, bare_end: int) -> tuple[int, int]:
    """Return the sign of a number, and where it begins with it.

    It is below zero as well, or a credit. `bare_end`: where its unit begins, `last`: where it ends.
    """
    currency = _CURRENCY_BEFORE.search(text, max(0, start - 6), start)
    first = currency.start() if currency is not None else start
    for place in (start, first):
        if _MINUS.search(text, max(0, place - 2), place):
            return -1, place - 1
    word = _MINUS_WORD.search(text, max(0, first - 18), first)
    if word is not None:
        return -1, word.start()
    after = _BELOW_ZERO_AFTER.match(text, bare_end) or _CREDIT_AFTER.match(text, bare_end)
    return -1 if after or _in_parentheses(text, first, last) else 1, first


def _in_parentheses(text: str, start: int, end: int) -> bool:
    """Return whether an amount is written as a credit: `(84.00)`."""
    is_around = text[max(0, start - 1) : start] == "(" and text[end : end + 1] == ")"
    if not is_around or text[start:end].rstrip().endswith("%") or _explains(text, start, end):
        return False
    if _CENTS.search(text, start, end) is not None:
        return True
    is_amount = _THOUSANDS_GROUPED.fullmatch(text, start, end) or (
        end - start > 1
        and _CELL_BEFORE.search(text, max(0, start - 3), start - 1)
        and _CELL_AFTER.match(text, end + 1)
    )
    return bool(is_amount) and _is_in_table(text, start)


def _explains(text: str, start: int, end: int) -> bool:
    """Return whether an amount in parentheses says again what the words before it say."""
    has_unit = not (text[start].isdecimal() and text[end - 1].isdecimal())
    is_after_word = has_unit and _WORD_BEFORE.search(text, max(0, start - 4), start - 1)
    return bool(is_after_word) and _PROSE_AFTER.match(text, end + 1) is not None


def _is_in_table(text: str, at: int) -> bool:
    """Return whether the line has several numbers in columns."""
    first, last = text.rfind("\n", 0, at) + 1, text.find("\n", at)
    line = text[first : last if last >= 0 else len(text)][:500]
    return len(_IN_COLUMN.findall(line)) > 1


def _is_in_columns(text: str, start: int, end: int) -> bool:
    """Return whether numbers with spaces between are a row of numbers only."""
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", end)
    line = text[first : last if last >= 0 else len(text)]
    return len(line) < 500 and not any(sign.isalpha() for sign in line)


def _in_han(text: str) -> Iterator[Number]:
    """Yield numbers in Chinese numerals; single ones are part of many words."""
    for found in HAN_NUMBER.finditer(text):
        signs, end = found[2], found.end()
        has_digits = any(sign in HAN_DIGITS for sign in signs)
        before = text[found.start() - 1 : found.start()]
        if not (has_digits or signs[0] == "十") or before.isdecimal():
            continue
        after = text[end : end + 1]
        is_sure = has_digits if len(signs) > 1 else _is_counted(signs, after)
        units, last = units_after(text, end)
        if found[1] or after.isspace():
            units, last = (PERCENT,) if found[1] else (), end
        readings = frozenset(NumberReading(han_value(signs), unit) for unit in units or (NO_UNIT,))
        yield Number(
            text[found.start() : last], found.start(), last, readings, 0, is_sure=is_sure,
            bare=(found.start(), end),
        )  # fmt: skip


def _is_counted(sign: str, after: str) -> bool:
    """Return whether a numeral by itself is a number: before a measure."""
    is_measure = bool(after) and after in _HAN_MEASURES
    return is_measure and sign not in "一〇零" and (sign, after) != ("十", "分")
