"""Numbers that are spelled out, in English, German, French, Spanish, Italian and Dutch.

Tables of words up to 999 are generated, since German, Dutch and Italian write them as one word; a
small grammar joins hundreds and scales. Words that mean something else in most texts (articles,
`once`, `due`) are marked, so that a reader of an answer does not look for them.

Numbers of other languages are those of `number_and_month_words`.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

import regex

from .number_and_month_words import (
    ALSO,
    number_at,
    numbers_of,
    ordinal_at,
    ordinal_of,
    small_numbers,
)

Language: TypeAlias = Literal["en", "de", "fr", "es", "it", "nl"]
Role: TypeAlias = Literal["number", "hundred", "scale", "ordinal", "and", "twenty", "dozen"]

_DATA = json.loads(Path(__file__).resolve().with_name("spelled_numbers.json").read_text("utf-8"))
_TEENS: Mapping[Language, str] = _DATA["teens"]
_TENS: Mapping[Language, str] = _DATA["tens"]
_SPANISH_HUNDREDS = (
    "cien doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos "
    "novecientos"
)
_MORE_WORDS: Mapping[Language, Mapping[str, int]] = _DATA["more_words"]
_SCALES: Mapping[Language, Mapping[str, tuple[float, ...]]] = {
    language: {word: tuple(factors) for word, factors in scales.items()}
    for language, scales in _DATA["scales"].items()
}
_AND: Mapping[Language, str] = {
    "en": "and", "de": "und", "fr": "et", "es": "y", "it": "e", "nl": "en"
}  # fmt: skip
JOINING_WORDS = ALSO.union(_AND.values())
"""Between the words of one number: one hundred and five."""
_ORDINALS: Mapping[Language, str] = _DATA["ordinals"]


_OTHER_SCALES: Mapping[float, str] = {
    float(factor): words for factor, words in _DATA["other_scales"].items()
}
"""Of languages without a grammar here, after digits."""


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Articles, pronouns, weekdays, third parties, what orders sentences: seldom meant as a number.
_NEVER_SURE = _set_of(
    "neuf one ein eine einen einem einer eines eins un une uno una een één null nul zero zéro cero "
    "thousand thousands million millions billion billions hundreds dozens cents "
    "first second erste erster erstes ersten erstem premier première primero primera primo prima "
    "segundo segunda secondo seconda eerste tweede cuarto cuarta cuartos cuartas quarto quarta "
    "quarti quarte zweite zweiter zweites zweiten zweitem vierte tercio décimo "
    "quinta quintas sexta sextas terceiros terceiras trzecie trzecich trzecim trzecimi третьи "
    "третьих третьим третьими треті третіх третім"
)
# What is a number in one language and something else in the others.
_SHORT_BEFORE_UNITS = _set_of("sex sju tio fem tre nio ni ti syv hat tíz öt šest pět pet")
"""Numbers of three letters or so, which are other words as well: they count before a unit."""
_TURKISH_LINE = re.compile(r"hat (?:gün|ay|yıl|saat|hafta|dakika)", re.IGNORECASE)
_ONLY_IN: Mapping[str, frozenset[Language]] = {
    "once": frozenset(("es",)), "due": frozenset(("it",)), "cent": frozenset(("fr",)),
    "elf": frozenset(("de", "nl")), "sei": frozenset(("it",)), "otto": frozenset(("it",)),
    "sept": frozenset(("fr",)), "mila": frozenset(("it",)),
    "mil": frozenset(("es",)), "mille": frozenset(("fr", "it")), "acht": frozenset(("de", "nl")),
    "achte": frozenset(("de",)), "achten": frozenset(("de",)), "achter": frozenset(("de",)),
    "achtes": frozenset(("de",)), "nove": frozenset(("it",)), "cien": frozenset(("es",)),
    "sette": frozenset(("it",)), "dix": frozenset(("fr",)), "venti": frozenset(("it",)),
}  # fmt: skip
_LONGEST_CHARS = 90
_MOST_WORDS = 20  # of a number
_GUESSED_CHARS = 4000
_LETTERS = regex.compile(
    r"[\p{L}\p{M}]+(?:(?<=\p{Cyrillic})['\u2019](?=\p{Cyrillic})[\p{L}\p{M}]+)*"
)
_JOIN = re.compile(r"\s{1,2}|-|\u2010|\u2011")
_PER_CENT = frozenset(("cent", "cents", "ciento", "cento"))
_PER = frozenset(("per", "pour", "por", "pro"))
_COMMON: Mapping[Language, frozenset[str]] = {
    "en": _set_of("the of and to is was were are for with that it this by from has have"),
    "de": _set_of("der die das und ist war sind für mit dass von den dem nicht auf zu wir"),
    "fr": _set_of("le les des et est sont était pour avec que du dans pas sur au aux ont"),
    "es": _set_of("el los las y es son era para con que del en no por se al fue hay"),
    "it": _set_of("il gli di e è sono era per con che del della nel non alla dei ha"),
    "nl": _set_of("het de een en is was zijn voor met dat van niet op te aan heeft wij"),
}


@dataclass(frozen=True, slots=True)
class NumberWord:
    """What a word is in a language."""

    role: Role
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class SpelledNumber:
    """A number in words: its offsets and possible values."""

    start: int
    end: int
    values: frozenset[float]
    is_ordinal: bool
    is_sure: bool
    """It can be nothing but a number in this text."""
    is_article: bool = False
    """It may be an article: it counts only before a unit."""


def spelled_numbers_in(text: str, whole: str = "") -> Iterator[SpelledNumber]:
    """Yield the numbers in words, each as long as it can be read.

    >>> [sorted(number.values) for number in spelled_numbers_in("Fourteen of one hundred and five")]
    [[14.0], [105.0]]
    """
    every = [(found.start(), found.end(), _lower(found[0])) for found in _LETTERS.finditer(text)]
    others = list(_more_numbers(text, every))
    yield from others
    ends = {place for number in others for place in range(number.start, number.end)}
    known = {*filter(_meanings, {word for _, _, word in every})}
    words = [word for word in every if word[2] in known and word[0] not in ends]
    if words:
        yield from _longest_numbers(text, words, languages_of(whole or text))


_Words: TypeAlias = Sequence[tuple[int, int, str]]
"""Where words begin and end, and the words in lower case."""


def _longest_numbers(
    text: str, words: _Words, languages: frozenset[Language]
) -> Iterator[SpelledNumber]:
    at = 0
    while at < len(words):
        number = _longest_number(text, words, at, languages)
        if number is not None:
            yield _spelled(text, words, at, number, languages)
        at += number[0] if number is not None else 1


_Reading: TypeAlias = tuple[int, tuple[float, ...], bool, Language]
"""How many words a number has, its values, whether it is an ordinal, and its language."""


def _longest_number(
    text: str, words: _Words, at: int, languages: frozenset[Language]
) -> _Reading | None:
    """Read a number; where several languages read as much, the text's own one comes first."""
    best: _Reading | None = None
    for language in _meanings(words[at][2]):
        n_words, values, is_ordinal = _read_number(text, words, at, language)
        if n_words and (
            best is None
            or n_words > best[0]
            or (n_words == best[0] and language in languages and best[3] not in languages)
        ):
            best = n_words, values, is_ordinal, language
    return best


def _spelled(
    text: str,
    words: _Words,
    at: int,
    number: _Reading,
    languages: frozenset[Language],
) -> SpelledNumber:
    n_words, values, is_ordinal, language = number
    start, end = words[at][0], words[at + n_words - 1][1]
    is_sure = n_words > 1 or _is_sure(words[at][2], languages)
    is_one = language == "en" and _ONE_BEFORE.search(text, max(0, start - 4), start)
    is_sure = (is_sure or bool(is_one)) and not _DUTCH_TEN.match(text, start)
    is_part = is_ordinal and n_words == 1 and values[0] <= _MOST_SHARE
    is_sure = is_sure and not (is_part and _is_share(text, start, end))
    is_sure = is_sure or (is_ordinal and _PART_OF_YEAR.match(text, end) is not None)
    return SpelledNumber(start, end, frozenset(values), is_ordinal, is_sure)


_POINTS = re.compile("[\u064b-\u0652]")


def _lower(word: str) -> str:
    word = word.replace("İ", "i").casefold()
    return word if word.isascii() else _POINTS.sub("", word).replace("\u2019", "'")


def _more_numbers(text: str, words: _Words) -> Iterator[SpelledNumber]:
    """Yield the numbers in words of the languages without a grammar here.

    A word that one with a grammar has as well counts where more words are one number here.
    """
    names = [name for _, _, name in words]
    table = _word_table()
    candidates = {name for name in {*names} if numbers_of(name) or ordinal_of(name)}
    last = 0
    for at, name in enumerate(names):
        n_words, number = (
            (0, None) if at < last or name not in candidates else _other(text, words, at)
        )
        if number is not None and name in table:
            other = _longest_number(text, words, at, frozenset())
            number = number if n_words > (other[0] if other is not None else 1) else None
        if number is not None:
            last = at + n_words
            yield number


def _other(text: str, words: _Words, at: int) -> tuple[int, SpelledNumber | None]:
    """Return how many words are one number of a language without a grammar here, and that one."""
    start, _, name = words[at]
    row = _joined_words(text, words, at)
    n_words, ordinal = ordinal_at(row, 0)
    if n_words:
        is_sure, values = ordinal > 2 and name not in _NEVER_SURE, frozenset((float(ordinal),))
        return n_words, SpelledNumber(start, words[at + n_words - 1][1], values, True, is_sure)
    n_words, value, is_sure = number_at(row, 0)
    is_before_unit = not is_sure and _may_be_before_unit(name, n_words, value)
    if not is_sure and (not is_before_unit or _TURKISH_LINE.match(text, start)):
        return 0, None  # one may be an article, six another word
    end, values = words[at + n_words - 1][1], frozenset((float(value),))
    return n_words, SpelledNumber(start, end, values, False, is_sure, is_article=not is_sure)


def _joined_words(text: str, words: _Words, at: int) -> list[str]:
    """Return the words from one on that may be one number: with nothing but a space between."""
    row = [words[at][2]]
    for (_, end, _), (start, _, name) in pairwise(words[at : at + _MOST_WORDS]):
        if not _JOIN.fullmatch(text, end, start):
            break
        row.append(name)
    return row


def _may_be_before_unit(name: str, n_words: int, value: int) -> bool:
    """Return whether a word, which may be another one, is a number before a unit."""
    return value == n_words == 1 or (n_words == 1 and name in _SHORT_BEFORE_UNITS)


def _is_sure(word: str, languages: frozenset[Language]) -> bool:
    only_in = _ONLY_IN.get(word)
    if only_in is not None:
        return bool(languages) and languages <= only_in
    return word not in _NEVER_SURE


@lru_cache(maxsize=1)
def languages_of(text: str) -> frozenset[Language]:
    """Guess the languages of a text by its most common words; none where nothing speaks for one."""
    counts = dict.fromkeys(_COMMON, 0)
    for found in _LETTERS.finditer(text, 0, _GUESSED_CHARS):
        word = found[0].casefold()
        for language, words in _COMMON.items():
            counts[language] += word in words
    most = max(counts.values())
    return frozenset(language for language, n in counts.items() if most > 1 and n * 2 > most)


def scale_at(text: str, at: int) -> tuple[int, tuple[float, ...]]:
    """Return where a scale (`million`, `Tsd.`) ends that follows digits, and what it may be."""
    found = SCALE.match(text, at) if _MAYBE_SCALE.match(text, at) else None
    if found is None:
        return at, (1.0,)
    name = found[1].replace("İ", "i").casefold()
    values = {value for _, value in _scales().get(name, ())}
    return (found.end(), tuple(sorted(values))) if values else (at, (1.0,))


def _read_number(
    text: str, words: _Words, at: int, language: Language
) -> tuple[int, tuple[float, ...], bool]:
    """Read one number of a language: how many words it has, and its values; 0: none."""
    number, n_read = _NumberInWords(language), 0
    before: Role | None = None
    for here in range(at, len(words)):
        start, _, name = words[here]
        word = _meanings(name).get(language)
        if word is None or (here > at and not _is_joined(text, words[here - 1], start, language)):
            break
        if word.role == "and":
            if not (number.is_open or number.total):
                break
        elif _is_per_cent(text, start, name) or not number.take(
            word, is_first=not n_read, is_after_and=before == "and"
        ):
            break
        else:
            n_read = here - at + 1
        before = word.role
        if word.role in ("ordinal", "dozen"):
            return n_read, (number.total + number.current,), word.role == "ordinal"
    value = number.total + number.current
    return n_read, tuple(value * factor for factor in number.factors), False


@dataclass(slots=True)
class _NumberInWords:
    """A number as far as it was read."""

    language: Language
    total: float = 0.0
    """Of the groups before."""
    current: float = 0.0
    """Of the group that is read."""
    is_open: bool = False
    """Whether something of the current group was read."""
    factors: tuple[float, ...] = (1.0,)
    """What else a scale at its beginning may mean."""
    _last_scale: float = float("inf")

    def take(self, word: NumberWord, *, is_first: bool, is_after_and: bool) -> bool:
        """Add a word; return whether it belongs to the number."""
        match word.role:
            case "number" | "ordinal":
                is_apart = is_after_and and word.role == "number" and self._ends_with_and()
                return not is_apart and self._take_unit(word.values[0])
            case "twenty":
                return self._take_twenty()
            case "hundred":
                if self.current >= 100:
                    return False
                self.current, self.is_open = (self.current or 1) * 100, True
            case "dozen":
                self.current, self.is_open = (self.current or 1) * 12, True
            case _:
                return self._take_scale(word.values, is_first=is_first)
        return True

    def _ends_with_and(self) -> bool:
        """Return whether `and` joins two numbers here, not two parts of one."""
        return self.language in ("de", "nl") or (self.language == "en" and self.current % 100 != 0)

    def _take_unit(self, value: float) -> bool:
        if self.is_open and not _follows(self.current, value, self.language):
            return False
        self.current, self.is_open = self.current + value, True
        return True

    def _take_twenty(self) -> bool:
        """Add `vingt` by itself, or that of quatre-vingt."""
        if self.is_open and self.current % 100 == 4:
            self.current += 76
        elif not self.is_open or self.current % 100 == 0:
            self.current, self.is_open = self.current + 20, True
        else:
            return False
        return True

    def _take_scale(self, values: tuple[float, ...], *, is_first: bool) -> bool:
        scale = values[0]
        is_spanish_million = self.language == "es" and scale == 1e6
        if scale >= self._last_scale and not is_spanish_million:
            return False
        if is_spanish_million and self.total:  # doscientos mil millones
            self.total = (self.total + self.current) * scale
        else:
            self.total += (self.current or 1) * scale
        if len(values) > 1 and is_first:
            self.factors = tuple(value / scale for value in values)
        self.current, self.is_open, self._last_scale = 0.0, False, scale
        return True


def _follows(current: float, value: float, language: Language) -> bool:
    """Return whether a number may follow: units after tens, both after hundreds."""
    rest = current % 100
    if rest == 0:
        return value < 100 and current >= 100
    if rest == 10 and language == "fr":
        return 7 <= value <= 9
    if rest in (60, 80) and 10 <= value < 20:  # soixante-dix, quatre-vingt-douze
        return True
    return rest >= 20 and rest % 10 == 0 and 0 < value < 10


def _is_joined(text: str, before: tuple[int, int, str], start: int, language: Language) -> bool:
    """Return whether a word may belong to the number of the word before it."""
    if _JOIN.fullmatch(text, before[1], start):
        return True
    is_after_scale = language == "en" and before[2] in _SCALES["en"]
    return is_after_scale and _NEXT_GROUP.match(text, before[1]) is not None


_NEXT_GROUP = re.compile(
    r",\s{1,2}(?:[a-z]+[\s-]){1,2}(?:hundred|thousand|million)(?!\w)", re.IGNORECASE
)
"""One million, ninety-three thousand, six hundred; not a thousand, two of them."""


def _is_per_cent(text: str, at: int, name: str) -> bool:
    before = _LETTERS.findall(text[max(0, at - 8) : at]) if name in _PER_CENT else []
    return bool(before) and before[-1].casefold() in _PER


_DUTCH_TEN = re.compile(
    r"ten\s(?:minste|hoogste|opzichte|gunste|slotte|eerste|tweede|derde|koste)\b", re.IGNORECASE
)
_ONE_BEFORE = re.compile(r"\ba[^\S\n]\Z", re.IGNORECASE)
_SHARE_BEFORE = re.compile(r"\b(?:a|an|one|two|ein|zwei|un|une|deux)[\s-]+\Z", re.IGNORECASE)
_SHARE_AFTER = re.compile(
    r"s\b|[^\S\n]*(?![^\S\n]|[^\W\d_]|-[^\W\d_])|\s+(?:of|part\w*|person\w*)\b|-part|\s*,",
    re.IGNORECASE,
)


_MOST_SHARE = 12  # what is written `a twelfth of`

_PART_OF_YEAR = re.compile(
    r"\s(?:quarter|quartal|trimest|kwarta|semest|half[- ]?year|halbjahr|halfjaar)", re.IGNORECASE
)


def _is_share(text: str, start: int, end: int) -> bool:
    """Return an ordinal that is a share (`a third of`), a party, or orders sentences or items."""
    return bool(
        _SHARE_BEFORE.search(text, max(0, start - 8), start) or _SHARE_AFTER.match(text, end)
    )


_JOINED = (
    re.compile(r"(.*?)(tausend|duizend|mila|mille)(?:und)?(.*)"),
    re.compile(r"(.*?)(hundert|honderd)(?:und)?(.*)"),
)
_JOINED_SCALES: Mapping[str, tuple[Language, float]] = {
    "tausend": ("de", 1e3), "duizend": ("nl", 1e3), "mila": ("it", 1e3), "mille": ("it", 1e3),
    "hundert": ("de", 1e2), "honderd": ("nl", 1e2),
}  # fmt: skip


@lru_cache(maxsize=4096)
def _joined(word: str) -> Mapping[Language, NumberWord]:
    """Read thousands and years that are one word: `zweitausendvierundzwanzig`, `duemila`."""
    if len(word) > _LONGEST_CHARS:
        return {}
    found = _JOINED[0].fullmatch(word) or _JOINED[1].fullmatch(word)
    if found is None or not (found[1] or found[3]):
        return {}
    language, scale = _JOINED_SCALES[found[2]]
    above, below = _value_of_part(found[1], language, 1.0), _value_of_part(found[3], language, 0.0)
    if above is None or below is None or (scale == 1e2 and not 11 <= above <= 19):
        return {}
    return {language: NumberWord("number", (above * scale + below,))}


def _value_of_part(part: str, language: Language, empty: float) -> float | None:
    if not part:
        return empty
    meant = _word_table().get(part, {}).get(language)
    is_number = meant is not None and meant.role == "number" and meant.values[0] < 1000
    return meant.values[0] if meant is not None and is_number else None


def _meanings(word: str) -> Mapping[Language, NumberWord]:
    return _word_table().get(word) or _joined(word)


@lru_cache(maxsize=1)
def _word_table() -> Mapping[str, Mapping[Language, NumberWord]]:
    """Return what each word is in each language that has it."""
    table: dict[str, dict[Language, NumberWord]] = {}

    def add(language: Language, word: str, role: Role, *values: float) -> None:
        table.setdefault(word.casefold(), {}).setdefault(language, NumberWord(role, values))

    for language in _TEENS:
        for word, value in _below_a_thousand(language):
            add(language, word, "number", value)
        for word, value in _MORE_WORDS[language].items():
            add(language, word, "number", value)
        for word, scales in _SCALES[language].items():
            if len(word) > 3 or word == "mil":
                add(language, word, "scale", *scales)
        for word, value in _ordinals(language):
            add(language, word, "ordinal", value)
        add(language, _AND[language], "and")
    for word in ("hundred", "hundreds"):
        add("en", word, "hundred")
    for word in ("cent", "cents"):
        add("fr", word, "hundred")
    for word in ("vingt", "vingts"):
        table.setdefault(word, {})["fr"] = NumberWord("twenty")
    for word in ("dozen", "dozens"):
        add("en", word, "dozen")
    add("de", "dutzend", "dozen")
    add("fr", "douzaine", "dozen")
    add("es", "docena", "dozen")
    add("it", "dozzina", "dozen")
    add("nl", "dozijn", "dozen")
    return table


def _below_a_thousand(language: Language) -> Iterator[tuple[str, float]]:
    """Yield the numbers that are one word."""
    teens, tens = _TEENS[language].split(), _TENS[language].split()
    for at, word in enumerate(teens):
        if "-" not in word:
            yield word, float(at)
    for n, word in enumerate(tens, 2):
        yield word, 10.0 * n
    if language == "es":
        yield from _more_spanish_words()
    elif language in ("de", "nl", "it"):
        yield from _joined_below_thousand(language, teens, tens)


def _more_spanish_words() -> Iterator[tuple[str, float]]:
    hundreds = _SPANISH_HUNDREDS.split()
    yield from zip(hundreds, (100.0 * n for n in range(1, 10)), strict=True)
    for n, word in enumerate(hundreds[1:], 2):
        yield f"{word[:-2]}as", 100.0 * n
    names = "veintiuno veintidós veintitrés veinticuatro veinticinco veintiséis veintisiete"
    for at, word in enumerate(f"{names} veintiocho veintinueve".split(), 21):
        yield word, float(at)


def _joined_below_thousand(
    language: Language, teens: list[str], tens: list[str]
) -> Iterator[tuple[str, float]]:
    small = dict(_joined_below_hundred(language, teens, tens))
    yield from small.items()
    hundred = {"de": "hundert", "nl": "honderd", "it": "cento"}[language]
    for n in range(1, 10):
        heads = [f"{teens[n]}{hundred}"] + ([hundred] if n == 1 else [])
        for head in heads:
            yield head, 100.0 * n
            for word, value in small.items():
                yield f"{head}{word}", 100.0 * n + value
                if language == "de":
                    yield f"{head}und{word}", 100.0 * n + value
                elif language == "it" and word.startswith(("ott", "uno")):
                    yield f"{head[:-1]}{word}", 100.0 * n + value


def _joined_below_hundred(
    language: Language, teens: list[str], tens: list[str]
) -> Iterator[tuple[str, float]]:
    for at in range(1, 20):
        yield teens[at], float(at)
    if language == "de":
        yield "eins", 1.0
    if language == "it":
        yield from (("uno", 1.0), ("tré", 3.0))
    if language == "nl":
        yield "één", 1.0
    for n, ten in enumerate(tens, 2):
        yield ten, 10.0 * n
        for unit in range(1, 10):
            for word in _ten_and_unit(language, ten, teens[unit], unit):
                yield word, 10.0 * n + unit


def _ten_and_unit(language: Language, ten: str, word: str, unit: int) -> Sequence[str]:
    if language == "de":
        return (f"{word}und{ten}",)
    if language == "nl":
        return (f"{word}{_dutch_link(word)}{ten}",)
    short = ten[:-1]  # ventuno, ventotto
    others = {1: (f"{short}uno", f"{short}un"), 3: (f"{ten}tré", f"{ten}tre"), 8: (f"{short}otto",)}
    return others.get(unit, (f"{ten}{word}",))


def _dutch_link(word: str) -> str:
    return "ën" if word.endswith("e") else "en"


def _ordinals(language: Language) -> Iterator[tuple[str, float]]:
    tens = _TENS[language].split()
    for at, word in enumerate(_ORDINALS[language].split(), 1):
        yield from ((form, float(at)) for form in _word_forms(language, word))
    for n, ten in enumerate(tens, 2):
        stem = {
            "en": f"{ten[:-1]}ieth", "de": f"{ten}st", "nl": f"{ten}ste", "it": f"{ten[:-1]}esimo",
            "fr": f"{ten.removesuffix('e')}ième",
        }.get(language)  # fmt: skip
        if stem:
            yield from ((form, 10.0 * n) for form in _word_forms(language, stem))
        if language in ("de", "nl"):
            teens = _TEENS[language].split()
            for unit in range(1, 10):
                link = "und" if language == "de" else _dutch_link(teens[unit])
                joined = f"{teens[unit]}{link}{stem}"
                yield from ((form, 10.0 * n + unit) for form in _word_forms(language, joined))


def _word_forms(language: Language, word: str) -> Iterator[str]:
    if language == "de":
        yield from (f"{word}{ending}" for ending in ("e", "en", "er", "es", "em"))
    elif language in ("es", "it"):
        yield from (f"{word[:-1]}{ending}" for ending in "oaie" + ("s" if language == "es" else ""))
        if word in ("tercero", "primero"):
            yield word[:-1]
    else:
        yield word
        if word == "premier":
            yield "première"


@lru_cache(maxsize=1)
def hours_in_words() -> Mapping[str, int]:
    """Return the numbers from 1 to 24 by their words and digits."""
    hours = {
        word: int(meant.values[0])
        for word, meanings in _word_table().items()
        for meant in meanings.values()
        if meant.role == "number" and 1 <= meant.values[0] <= 24
    }
    return {**small_numbers(24), **hours, **{str(hour): hour for hour in range(1, 25)}}


@lru_cache(maxsize=1)
def _scales() -> Mapping[str, list[tuple[Language, float]]]:
    scales: dict[str, list[tuple[Language, float]]] = {}
    for language, names in _SCALES.items():
        for word, values in names.items():
            scales.setdefault(word, []).extend((language, value) for value in values)
    for value, words in _OTHER_SCALES.items():
        for word in words.split():
            if word not in scales:
                scales[word] = [("en", value)]
    return scales


SCALE = re.compile(
    rf"[^\S\n]?\n?(?:de[^\S\n])?({'|'.join(sorted(_scales(), key=len, reverse=True))})\b\.?",
    re.IGNORECASE,
)
_MAYBE_SCALE = re.compile(
    rf"[^\S\n]?\n?[d{re.escape(''.join({name[0] for name in _scales()}))}]", re.IGNORECASE
)
"""What a scale begins with: to try all of them takes 10 µs, and most numbers have none."""


@lru_cache(maxsize=16384)
def numbers_at_words(text: str) -> Sequence[tuple[int, float]]:
    """Return the numbers that begin at each of some words, of any language, and their offsets.

    >>> numbers_at_words("one hundred and five")
    ((0, 105.0), (4, 105.0), (16, 5.0))
    """
    words = [(word.start(), word.end(), _lower(word[0])) for word in _LETTERS.finditer(text)]
    names = [name for _, _, name in words]
    found: dict[tuple[int, float], None] = {}
    for at, (start, _, name) in enumerate(words):
        for language in _meanings(name):
            n_words, values, _ = _read_number(text, words, at, language)
            found.update(((start, value), None) for value in values[: n_words and None])
        n_words, value, is_sure = number_at(names, at)
        is_one = is_sure or _may_be_before_unit(name, n_words, value)
        found.update([((start, float(value)), None)] if is_one else ())
        n_words, value = ordinal_at(names, at)
        found.update([((start, float(value)), None)] if n_words else ())
    return tuple(found)


HAN_SCALES = {
    "十": 10, "百": 100, "千": 1000, "万": 10_000, "萬": 10_000, "亿": 10**8, "億": 10**8,
    "만": 10_000, "억": 10**8, "천": 1000, "백": 100, "십": 10,
}  # fmt: skip
HAN_DIGITS = {sign: value for value, sign in enumerate("零一二三四五六七八九")}
HAN_DIGITS |= {"\u3007": 0, "两": 2, "兩": 2}


HAN_NUMBER = re.compile(r"(百分之)?([零〇一二两兩三四五六七八九十廿卅百千万萬亿億]+)")


def han_numbers_in(text: str) -> Iterator[tuple[int, float]]:
    """Yield offset and value of what may be a number in Chinese numerals."""
    for found in HAN_NUMBER.finditer(text):
        yield found.start(), han_value(found[2])


def han_value(signs: str) -> float:
    """Parse Chinese numerals, by place or digit by digit.

    >>> han_value("三百"), han_value("二〇二四"), han_value("一亿二千万")
    (300.0, 2024.0, 120000000.0)
    """
    if len(signs) > 1 and all(sign in HAN_DIGITS for sign in signs):
        return float("".join(str(HAN_DIGITS[sign]) for sign in signs))
    total, section, digit = 0, 0, 0
    for sign in signs.replace("廿", "二十").replace("卅", "三十"):
        if sign in HAN_DIGITS:
            digit = HAN_DIGITS[sign]
            continue
        scale = HAN_SCALES[sign]
        if scale >= 10_000:
            group = section + digit
            total = (total + group) * scale if scale == 10**8 else total + (group or 1) * scale
            section = 0
        else:
            section += (digit or 1) * scale
        digit = 0
    return float(total + section + digit)


def plain_number(text: str) -> int:
    """Parse digits or Chinese numerals."""
    return int(text) if text.isdecimal() else int(han_value(text))
