"""Numbers in a text, each with its sign, thousands, decimals, scale and unit.

`1.234` may be 1234 or a little more than 1: a number has all possible values, and no part of it
counts by itself. Its unit, currency or per cent is that of `units`.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

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
from .number_words import (
    SpelledNumber,
    hours_in_words,
    numbers_at_words,
    scale_at,
    spelled_numbers_in,
)
from .units import NO_UNIT, PERCENT, Unit, units_after, units_before
from .value_words import NO_DIRECTION, Direction, DirectionWords, shares_in, time_bound

_SPACES = "\u00a0\u202f\u2009"
_GROUPS = "'\u2019" + _SPACES + " "
_DECIMAL = re.compile(r"[0-9]+\.[0-9]+")
_SPACED_DIGITS = re.compile(r"(?<=\s)[0-9]+(?![^\W_])")
_NAME_BEFORE = re.compile(rf"(?<![^\W_])({LETTER}{{1,12}})\.?[^\S\n]\Z")
_NAME_CHARS = 16
_BODY = re.compile(
    rf"(?<![^\W_\u3040-\u9fff\uac00-\ud7af])(?:"
    rf"(?<![0-9])[1-9][0-9]{{0,2}}(?:(?P<group>[.,{_GROUPS}])[0-9]{{3}})(?:(?P=group)[0-9]{{3}})*(?![0-9])"
    r"(?:[.,][0-9]+(?![0-9]))?"
    r"|[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?![0-9])(?:\.[0-9]+)?"  # lakhs and crores
    r"|(?<![0-9])[0-9]+(?:[.,][0-9]+)?|(?<![0-9])\.[0-9]+)(?:[eE][+-]?[0-9]{1,2}(?![^\W_]))?"
)
_SHORT_SCALES = {"k": 1e3, "K": 1e3, "M": 1e6, "m": 1e6, "B": 1e9, "b": 1e9, "T": 1e12}
_SHORT_SCALE = re.compile(r"[^\S\n]?([kKmMbBT])(?![^\W_])")
_VULGAR = re.compile(r"(?:(?<![0-9])([0-9]{1,4})[^\S\n]?)?([½¼¾⅓⅔⅛⅜⅝⅞⅕⅖⅗⅘⅙⅚])")
_FRACTION = re.compile(
    r"(?<![0-9/.,])(?:([0-9]{1,2})[^\S\n])?([0-9]{1,2})[/\u2044]([0-9]{1,3})(?![0-9/])"
)
_HAN_SCALES = {
    "十": 10,
    "百": 100,
    "千": 1000,
    "万": 10_000,
    "萬": 10_000,
    "亿": 10**8,
    "億": 10**8,
    "만": 10_000,
    "억": 10**8,
}
_HAN_DIGITS = {sign: value for value, sign in enumerate("零一二三四五六七八九")}
_HAN_DIGITS |= {"\u3007": 0, "两": 2, "兩": 2}
_HAN = re.compile(r"(百分之)?([零〇一二两兩三四五六七八九十百千万萬亿億]+)")
_HAN_AFTER = re.compile(r"[^\S\n]?([十百千万萬亿億만억]+)")
_HAN_PART = re.compile(r"([0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?)([億亿억万萬만千]?)[^\S\n]?")
_HAN_MIXED = re.compile(
    rf"(?<![0-9,.])(?:{_HAN_PART.pattern.replace('?)[^', ')[^')})+"
    r"(?:(?:[0-9],[0-9]{3}|[0-9]{1,4}(?!,[0-9]))(?![0-9万萬만億亿억千]))?"
)
_TURKISH_THOUSANDS = re.compile(r"(?<![\d.,])([0-9]{1,3}) bin ([0-9]{1,3})(?![\d.,]*\d)")
_HUNDREDTHS = re.compile(
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
_PROSE_AFTER = re.compile(r"[.,;:]|[^\S\n](?![\d(|])[^\s]")
"""Of an amount in parentheses that explains the words before it."""
_CENTS = re.compile(r"\d[.,]\d\d(?!\d)")
_TWICE = re.compile(r"\b(?:both|pair|couple|beide[nr]?|paar)\b", re.IGNORECASE)
_ORDINAL_MARK = re.compile(r"(?:st|nd|rd|th|er|ère|e|º|ª|de|ste)(?!\w)|\.(?!\d)")
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

    def agrees(self, other: Number) -> bool:
        """Return whether the signs and directions of two equal numbers may be the same."""
        if 0 in (self.sign, other.sign) or self.sign == other.sign > 0:
            return not self.direction.differs_from(other.direction)
        if self.sign == other.sign:
            return True
        positive = self if self.sign > 0 else other
        return positive.direction.is_less


MOST_DIGITS = 15
"""Of a number: more are not told apart."""


def rounded(value: float, n_digits: int = 12) -> float:
    """Round a value for comparison, so that factors do not matter."""
    return float(f"{value:.{n_digits}g}")


def with_ascii_digits(text: str) -> str:
    r"""Convert digits of other scripts to 0 to 9.

    >>> with_ascii_digits("\u0661\uff12")
    '12'
    """
    if text.isascii():
        return text
    text = _ARABIC_MARK.sub(lambda found: "." if found[0] == "\u066b" else ",", text)
    return re.sub(r"(?![0-9])\d", lambda found: str(unicodedata.decimal(found[0])), text)


_OF = re.compile(r"[^\S\n](?:de[^\S\n]|d['\u2019]|di[^\S\n])")
_OF_UNIT = re.compile(
    r"[^\S\n-]?-?(?:(?:of )?an? |of |de |d['\u2019]|di |do |van een |een |uma? |un |['\u2019])?",
    re.IGNORECASE,
)
_ARABIC_MARK = re.compile(r"(?<=\d)[\u066b\u066c](?=\d)")


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

    >>> [(one.text, sorted(r.value for r in one.readings)) for one in numbers_in("1,200 of 3 m")]
    [('1,200', [1.2, 1200.0]), ('3 m', [3.0, 3000000.0])]
    """
    rest = Untaken(text)
    yield from _codes_in(text, rest)
    words = DirectionWords(lower_case(text))
    has_halves = _blank_added_halves(text, rest)
    for numbers in (_digit_fractions_in, _of_han_scales, _of_halves, _lasting_in, _shares_in):
        for number in numbers(text, rest.text, words):
            yield number
            rest.take(number.start, number.end)
    for found in _BODY.finditer(rest.text):
        is_halved = has_halves and _has_half_after(text, found.end())
        if fits is not None and not (is_halved or fits(found[0])):
            rest.take(found.start(), _end_of_scale(text, found.end()))
            continue
        number = _of_digits(text, found, words)
        yield number
        rest.take(found.start(), number.end)
    for spelled in spelled_numbers_in(rest.text, whole):
        if fits is None or _may_fit(text, spelled, fits):
            number = _of_words(text, spelled, words)
            if not (spelled.is_article and all(one.unit == NO_UNIT for one in number.readings)):
                yield number
    for number in _in_han(rest.text):
        yield replace(number, direction=words.of(number.start, number.end))


def _may_fit(text: str, spelled: SpelledNumber, fits: Callable[[str], bool]) -> bool:
    """Return whether a number in words, or that and a half, may have the digits looked for."""
    return _has_half_after(text, spelled.end) or any(
        fits(f"{value:.15g}") for value in spelled.values
    )


def _has_half_after(text: str, end: int) -> bool:
    """Return whether a half may belong to a number, also behind its unit: 3 hours and a half."""
    return AND_HALF.search(text, end, end + _MOST_BEFORE_CHARS) is not None


def _end_of_scale(text: str, at: int) -> int:
    han = _HAN_AFTER.match(text, at)
    return han.end() if han is not None else scale_at(text, at)[0]


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
    for found in _HUNDREDTHS.finditer(rest):
        value = rounded(int(found[1]) + int(found[2]) / 100)
        units, _ = units_after(text, found.end(1))
        readings = frozenset(NumberReading(value, unit) for unit in units)
        yield Number(found[0], *found.span(), readings, direction=words.of(*found.span()))
    for found in _TURKISH_THOUSANDS.finditer(rest):
        value = 1000.0 * int(found[1]) + int(found[2])
        yield _number_at(text, *found.span(), (value,), words)
    for found in _HAN_MIXED.finditer(rest):
        parts = [
            float(digits.replace(",", "")) * _HAN_SCALES.get(scale, 1)
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

_ARABIC_DUAL = re.compile(
    r"(?<!\w)[وفبلك]?(?:ال)?(?:(?P<n>يوم|[أا]سبوع|شهر|عام)|(?P<f>ثاني|دقيق|ساع|سن)ت)(?:ين|ان)(?!\w)"
)
ADDED_HALF = re.compile("halv|половиной|buçuk|ونصف")
"""Which are no halves by themselves, but after a number."""
_HAN_AND_HALF = re.compile("(?<![一二两兩三四五六七八九十])([一二两兩三四五六七八九十])[个個]半")


_LASTING = re.compile(
    r"(?<!\w)(?P<n>[^\W\d_]{2,12}?)"
    r"(?:(?P<month>monatig|miesięczn|месячн|mesečn|měsíčn)|(?P<year>jährig|letni|roczn|летн)"
    r"|(?P<week>wöchig|tygodniow|недельн|týdenn)|(?P<day>tägig|dniow|дневн|denn)"
    r"|(?P<hour>stündig|godzinn|часов))\w{0,4}(?!\w)",
    re.IGNORECASE,
)
"""Of so many months and the like, in one word: dreimonatig, dwumiesięczny, трёхдневный."""
_STEMS: Mapping[str, int] = {
    "dwu": 2, "trzy": 3, "trój": 3, "cztero": 4, "pięcio": 5, "sześcio": 6, "siedmio": 7,
    "ośmio": 8, "dziewięcio": 9, "dziesięcio": 10, "dwunasto": 12, "двух": 2, "трёх": 3, "трех": 3,
    "четырёх": 4, "четырех": 4, "пяти": 5, "шести": 6, "семи": 7, "восьми": 8, "девяти": 9,
    "десяти": 10, "двенадцати": 12, "dvou": 2, "tří": 3, "čtyř": 4, "pěti": 5, "šesti": 6,
}  # fmt: skip


def _lasting_in(text: str, rest: str, words: DirectionWords) -> Iterator[Number]:
    """Yield the numbers of adjectives; an answer's are not looked for."""
    for found in _LASTING.finditer(rest):
        name = found["n"].casefold()
        value = _STEMS.get(name) or hours_in_words().get(name, 0)
        if value > 1:
            units, _ = units_after(f" {found.lastgroup}", 0)
            readings = frozenset(NumberReading(float(value), unit) for unit in units)
            direction = words.of(*found.span())
            yield Number(found[0], *found.span(), readings, is_sure=False, direction=direction)


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
    for found in HALF_WORD.finditer(rest):
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
    is_amount = any(one.unit != NO_UNIT and one.value > 1 for one in number.readings)
    return replace(number, is_sure=is_sure or is_amount, is_ordinal=False)


def _shares_in(text: str, rest: str, words: DirectionWords) -> Iterator[Number]:
    """Yield fractions and multiples in words; of those, doubled is more by 100 per cent as well."""
    for start, end, share, is_sure in shares_in(lower_case(rest)):
        percent = 100 * (share - 1 if share >= 2 else share)
        readings = {NumberReading(rounded(share)), NumberReading(rounded(percent), PERCENT)}
        of = _OF_UNIT.match(text, end)
        units, last = units_after(text, of.end()) if of and share < 1 else ((), end)
        if units and units[0].dimension not in _NOT_HALVED:
            readings = {NumberReading(rounded(share), unit) for unit in units}
            end = last
        yield Number(
            text[start:end], start, end, frozenset(readings), is_sure=is_sure,
            direction=words.of(start, end),
        )  # fmt: skip


def _codes_in(text: str, rest: Untaken) -> Iterator[Number]:
    """Yield codes of several groups of digits, Roman numerals, and codes with letters."""
    for start, end, code in grouped_codes_in(text):
        yield Number(text[start:end], start, end, frozenset(), code=code)
        rest.take(start, end)
    for start, end, value in roman_numerals_in(text):
        name = f"roman{value}"
        yield Number(text[start:end], start, end, frozenset(), 0, code=name, roman=value)
        rest.take(start, end)
    for found in LETTER_CODE.finditer(rest.text):
        letters = letter_code(found[0])
        if letters is not None:
            yield Number(found[0], *found.span(), _readings_of_code(found[0]), code=letters)
            rest.take(*found.span())
        elif prefix := PREFIX.match(found[0]):
            rest.take(found.start(), found.start() + prefix.end())


_LOOSE_WORDS = ((_TWICE, frozenset((NumberReading(2.0),))),)


def lower_case(text: str) -> str:
    """Return a text in lower case and of the same length; searching that is five times faster."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(sign.lower()[0] for sign in text)


_AGAINST = "to|zu|à|a|tegen|do|mot|til"
_OUT_OF = r"out of(?: every| the)?|von(?: je)?|sur|su|de cada|em cada|op de|van de|na|av|из"
_PAIR = re.compile(
    rf"(?<![\w.,:/+-])(?:(?P<n>[0-9]{{1,3}})[^\S\n](?:{_OUT_OF})[^\S\n](?P<of>[0-9]{{1,3}})"
    r"|(?<!from )(?<!von )(?<!vom )(?<!de )(?<!da )(?<!van )(?<!od )(?<!z )(?<!ze )(?<!с )(?<!от )"
    rf"(?P<won>[0-9]{{1,2}})[^\S\n](?:{_AGAINST})[^\S\n](?P<lost>[0-9]{{1,2}}))"
    r"(?![\w%]|[.,:/-]\w|[^\S\n][%€$£])"
)
OUT_OF = re.compile(rf"[0-9][^\S\n](?:{_OUT_OF})[^\S\n][0-9]")


def pairs_in(text: str) -> Iterator[Number]:
    """Yield what two numbers are together, where they may be: a share (7 out of 10), a score.

    >>> [(one.code, len(one.readings)) for one in pairs_in("won 5 to 3, as did 7 out of 10")]
    [('5-3', 0), ('', 2)]
    """
    for found in _PAIR.finditer(text):
        if found["n"] and 0 < int(found["n"]) < int(found["of"]):
            share = int(found["n"]) / int(found["of"])
            readings = {NumberReading(rounded(share)), NumberReading(rounded(100 * share), PERCENT)}
            yield Number(found[0], *found.span(), frozenset(readings), 0, is_sure=False)
        elif found["won"] and int(found["won"]) > int(found["lost"]):
            code = f"{found['won']}-{found['lost']}"
            yield Number(found[0], *found.span(), frozenset(), 0, code=code, is_sure=False)


def without_turned_scores(text: str, codes: Iterable[str]) -> str:
    """Blank what has these scores the other way round: 3 to 5 says nothing of 5 to 3.

    >>> without_turned_scores("It ended 3:5, after 3 hours.", ["5-3"])
    'It ended    , after 3 hours.'
    """
    for code in codes:
        won, _, lost = code.partition("-")
        between = rf"(?:[^\S\n](?:{_AGAINST})[^\S\n]|[:\u2013-])"
        turned = re.compile(rf"(?<![\w.,:]){lost}{between}{won}(?!\w|[.,:][0-9])", re.IGNORECASE)
        text = turned.sub(lambda found: " " * len(found[0]), text)
    return text


def loose_numbers_in(text: str) -> Iterator[Number]:
    """Yield what a source may also mean: halves and pairs, and codes such as `Section 5`."""
    yield from pairs_in(text)
    for pattern, readings in _LOOSE_WORDS:
        for found in pattern.finditer(text):
            yield Number(found[0], *found.span(), readings, 0, is_sure=False)
    for digits in _SPACED_DIGITS.finditer(text):
        name = _NAME_BEFORE.search(text, max(0, digits.start() - _NAME_CHARS), digits.start())
        if name is not None:
            start, end = name.start(), digits.end()
            code = f"{name[1]}{digits[0]}".casefold()
            yield Number(text[start:end], start, end, frozenset(), code=code, is_sure=False)


def _readings_of_code(text: str) -> frozenset[NumberReading]:
    """Return the numbers of `INV-10025` and `mid-24`, but not of `GPT-4`."""
    found = re.fullmatch(
        rf"{LETTER}+[-\u2010\u2011]([0-9]{{3,}})|[a-z]+[-\u2010\u2011]([0-9]+)",
        text,
    )
    if found is None:
        return frozenset()
    return frozenset((NumberReading(rounded(float(found[1] or found[2]))),))


def _of_digits(text: str, found: re.Match[str], words: DirectionWords) -> Number:
    body = found[0]
    if sum(map(str.isdecimal, body)) > MOST_DIGITS:
        return Number(body, *found.span(), frozenset(), code=re.sub(r"[^0-9]", "", body))
    start = found.start()
    if _DECIMAL.fullmatch(body) and VERSION_BEFORE.search(text, max(0, start - 16), start):
        return Number(body, *found.span(), frozenset(), code=body)
    parts: tuple[str, ...] = ()
    if found["group"] == " " and _is_in_columns(text, found.start(), found.end()):
        parts = tuple(body.split(" "))
    return _number_at(text, found.start(), found.end(), tuple(number_values(body)), words, parts)


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
    readings: set[NumberReading] = set()
    end, found = _with_half(text, end, found)
    after_scale, scales = scale_at(text, end)
    bare_end = end
    han = _HAN_AFTER.match(text, end)
    if after_scale == end and han is not None:
        after_scale, scales = han.end(), (han_value("一" + han[1]),)
    short = _SHORT_SCALE.match(text, end)
    plain, plain_end = units_after(text, end)
    if after_scale > end:
        of = _OF.match(text, after_scale)
        units, last = units_after(text, of.end() if of else after_scale)
        last = max(last, after_scale)
        bare_end = after_scale
        plain = ()
    else:
        units, last = plain, plain_end
    if last > end and units and units[0].dimension not in _NOT_HALVED:
        last, found = _with_half(text, last, found)
    if _PERCENT_BEFORE.search(text, max(0, start - 3), start):
        units = (PERCENT,)
    for value in found:
        for scale in scales:
            readings |= {
                NumberReading(value if scale == 1 else rounded(value * scale), unit)
                for unit in prefix or units or (NO_UNIT,)
            }
        if short is not None and after_scale == end:
            last = max(last, short.end())
            scaled = rounded(value * _SHORT_SCALES[short[1]])
            if prefix or short[1] in "kKMBT":
                bare_end = short.end()
                readings -= {NumberReading(value, unit) for unit in prefix or (NO_UNIT,)}
            readings |= {NumberReading(scaled, unit) for unit in prefix or (NO_UNIT,)}
    sign, first = _sign(text, start)
    is_below = _BELOW_ZERO_AFTER.match(text, bare_end) or _CREDIT_AFTER.match(text, bare_end)
    if is_below or _in_parentheses(text, first, last):
        sign = -1
    is_bare = not prefix and end == last
    written = text[start:end] if is_bare and _DECIMAL.fullmatch(text, start, end) else ""
    return Number(
        text[first:last].strip(), first, last, frozenset(readings), sign, parts=parts,
        is_ordinal=_is_ordinal(text, start, end), bare=(first if sign < 0 else start, bare_end),
        direction=_direction_at(text, first, last, words), written=written,
    )  # fmt: skip


AND_HALF = re.compile(
    r"[^\S\n-]?-?(?:(?P<half>and a half|und (?:ein|eine) halbe?[rs]?|et demie?|y medi[oa]|e "
    r"mezz[oa]"
    r"|e mei[oa]|en een half|i pół|с половиной|buçuk\w*|ونصف|och en halv|og en halv)"
    r"|(?P<quarter>and a quarter|et quart|y cuarto|e un quarto|e um quarto|en een kwart|i ćwierć)"
    r"|(?P<most>and three[ -]quarters|et trois quarts|y tres cuartos|e tre quarti))(?!\w)"
    r"|[^\S\n]?(?P<han>[个個]?半(?=[^\W\d_]|[。、,.\s]|\Z))",
    re.IGNORECASE,
)
_NOT_HALVED = frozenset(("percent", "percentage point"))


def _with_half(text: str, at: int, values: tuple[float, ...]) -> tuple[int, tuple[float, ...]]:
    """Add what follows a number or its unit: `and a half`. Return where that ends."""
    found = AND_HALF.match(text, at)
    if found is None:
        return at, values
    share = {"quarter": 0.25, "most": 0.75}.get(str(found.lastgroup), 0.5)
    return found.end(), tuple(one + share for one in values)


def _blank_added_halves(text: str, rest: Untaken) -> bool:
    """Blank `and a half` where it belongs to the number before; return whether there is one."""
    found = [*AND_HALF.finditer(text)]
    for one in found:
        begin = max(0, one.start() - _MOST_BEFORE_CHARS)
        if _is_after_number(rest.part(begin, one.start())):
            rest.take(*one.span())
    return bool(found)


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


def _sign(text: str, start: int) -> tuple[int, int]:
    """Return the sign of a number, and where it begins with it."""
    currency = _CURRENCY_BEFORE.search(text, max(0, start - 6), start)
    first = currency.start() if currency is not None else start
    for place in (start, first):
        if _MINUS.search(text, max(0, place - 2), place):
            return -1, place - 1
    word = _MINUS_WORD.search(text, max(0, first - 18), first)
    if word is not None:
        return -1, word.start()
    return 1, first


def _in_parentheses(text: str, start: int, end: int) -> bool:
    """Return whether an amount is written as a credit: `(84.00)`."""
    is_around = text[max(0, start - 1) : start] == "(" and text[end : end + 1] == ")"
    if not is_around or text[start:end].rstrip().endswith("%"):
        return False
    is_after_word = _WORD_BEFORE.search(text, max(0, start - 4), start - 1) is not None
    has_unit = not (text[start].isdecimal() and text[end - 1].isdecimal())
    if is_after_word and has_unit and _PROSE_AFTER.match(text, end + 1):
        return False
    is_grouped = _THOUSANDS_GROUPED.fullmatch(text, start, end) is not None
    return _CENTS.search(text, start, end) is not None or (is_grouped and _is_in_table(text, start))


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


def number_values(text: str) -> Iterator[float]:
    """Yield what digits may be: points and commas group thousands, or begin the fraction.

    >>> list(number_values("1.234")), list(number_values("1 234,5"))
    ([1234.0, 1.234], [1234.5])
    """
    mantissa, _, exponent = text.replace("E", "e").partition("e")
    power = 10.0 ** int(exponent or 0)
    plain = re.sub(rf"[{_GROUPS}]", "", mantissa)
    parts = re.split(r"[.,]", plain)
    marks = re.findall(r"[.,]", plain)
    if not marks:
        yield rounded(float(plain) * power, MOST_DIGITS)
        return
    is_grouped = all(len(part) == 3 for part in parts[1:]) and parts[0] not in ("", "0")
    is_lakh = len(parts) > 2 and len(parts[-1]) == 3 and {*marks} == {","}
    if is_lakh or (is_grouped and len({*marks}) == 1):
        yield rounded(float("".join(parts)) * power, MOST_DIGITS)
        if is_lakh or parts[-1] == "000":
            return  # 42,000 is not 42
    if marks[-1] not in marks[:-1]:
        value = float(f"{''.join(parts[:-1]) or '0'}.{parts[-1]}")
        yield rounded(value * power, MOST_DIGITS)


def han_numbers_in(text: str) -> Iterator[tuple[int, float]]:
    """Yield offset and value of what may be a number in Chinese numerals."""
    for found in _HAN.finditer(text):
        yield found.start(), han_value(found[2])


def _in_han(text: str) -> Iterator[Number]:
    """Yield numbers in Chinese numerals; single ones are part of many words."""
    for found in _HAN.finditer(text):
        signs, end = found[2], found.end()
        digits = [sign for sign in signs if sign in _HAN_DIGITS]
        before = text[found.start() - 1 : found.start()]
        if not (digits or signs[0] == "十") or before.isdecimal():
            continue
        after = text[end : end + 1]
        if len(signs) == 1:
            is_sure = signs not in "一〇零" and after in _HAN_MEASURES and bool(after)
            is_sure = is_sure and not (signs == "十" and after == "分")
        else:
            is_sure = bool(digits)
        unit = PERCENT if found[1] else NO_UNIT
        reading = NumberReading(han_value(signs), unit)
        yield Number(found[0], *found.span(), frozenset((reading,)), 0, is_sure=is_sure)


def han_value(signs: str) -> float:
    """Parse Chinese numerals, by place or digit by digit.

    >>> han_value("三百"), han_value("二〇二四"), han_value("一亿二千万")
    (300.0, 2024.0, 120000000.0)
    """
    if len(signs) > 1 and all(sign in _HAN_DIGITS for sign in signs):
        return float("".join(str(_HAN_DIGITS[sign]) for sign in signs))
    total, section, digit = 0, 0, 0
    for sign in signs:
        if sign in _HAN_DIGITS:
            digit = _HAN_DIGITS[sign]
            continue
        scale = _HAN_SCALES[sign]
        if scale >= 10_000:
            group = section + digit
            total = (total + group) * scale if scale == 10**8 else total + (group or 1) * scale
            section = 0
        else:
            section += (digit or 1) * scale
        digit = 0
    return float(total + section + digit)
