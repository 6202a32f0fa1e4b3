"""Numbers and months of many languages, by a file that is made from num2words and CLDR.

It is made and checked by `tests/pipelines/checking/test_number_and_month_words.py`. The numbers are
put together as most languages do: units after tens, hundreds before thousands. Six languages have
a grammar of their own, in `spelled_numbers`.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from itertools import chain
from typing import Any

ALSO = frozenset(
    ("e", "y", "și", "og", "och", "и", "і", "i", "a", "va", "و", "ו", "in", "o", "ja", "lẻ")
)
"""Between the words of one number."""
JOINED = "וو"
"""The same before a word, in Arabic and Hebrew."""
_OTHER_MEANING = frozenset(
    ["fire", "atten", "lima", "elli", "firs", "nova", "pero", "sade", "otte", "tres", "dinou"]
)
"""Numbers that are words of other languages or names as well."""
_LEAST_LATIN_CHARS = 4
_SHORT_NUMBER_WORDS = "iki üç beş dwa två dez két öt dva dvě dve tři pět päť dua"
_SHORT_NUMBERS = frozenset(_SHORT_NUMBER_WORDS.split())
_LEAST_JOINED_CHARS, _MOST_JOINED_CHARS = 6, 90
_LEAST_PART_CHARS = 2
_TEN_ADDED = ("ar", "he")
"""Eight and ten are 18, not 80."""


@lru_cache(maxsize=1)
def _data() -> Any:
    name = "number_and_month_words.json"
    return json.loads((files("paddock.pipelines.checking") / name).read_text("utf-8"))


@lru_cache(maxsize=1)
def months_by_first_word() -> Mapping[str, Sequence[tuple[str, tuple[int, ...]]]]:
    """Return names of months and what they may be, the longest first, by their first letters."""
    names: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for name, numbers in _data()["months"].items():
        names.setdefault(first_letters(name), []).append((name, tuple(numbers)))
    return {first: sorted(found, key=lambda name: -len(name[0])) for first, found in names.items()}


def first_letters(text: str) -> str:
    """Return a text up to its first sign that is no letter and no part of one.

    >>> first_letters("thg 5"), first_letters("พ.ค")
    ('thg', 'พ')
    """
    for at, sign in enumerate(text):
        if not (sign.isalpha() or is_mark(sign)):
            return text[:at]
    return text


def is_mark(sign: str) -> bool:
    """Return whether a sign is a vowel or an accent of the letter before it."""
    return sign > "\u02ff" and unicodedata.category(sign)[0] == "M"


_INFLECTED_ONES = "uma jedno jednego jednej jedną jednym jednu одна одно одну одного одной одне"


@lru_cache(maxsize=1)
def _numbers_by_word() -> Mapping[str, Mapping[str, int]]:
    words: dict[str, dict[str, int]] = {}
    for language, values in _data()["numbers"].items():
        for word, value in values.items():
            words.setdefault(word, {})[language] = value
    for word in _INFLECTED_ONES.split():
        words.setdefault(word, {})["inflected"] = 1
    return words


def small_numbers(most: int) -> Mapping[str, int]:
    """Return the words of numbers from 1 on, of all languages."""
    return {
        word: max(values.values())
        for word, values in _numbers_by_word().items()
        if 1 <= max(values.values()) <= most
    }


@lru_cache(maxsize=1)
def _beginnings() -> frozenset[str]:
    return frozenset(word[:3] for word in _numbers_by_word())


@lru_cache(maxsize=65536)
def numbers_of(word: str) -> Mapping[str, tuple[int, ...]]:
    """Return the numbers that a word in lower case is put together of, by language."""
    known = _numbers_by_word().get(word)
    if known is not None:
        return {language: (value,) for language, value in known.items()}
    if not _LEAST_JOINED_CHARS <= len(word) <= _MOST_JOINED_CHARS or (
        _beginnings().isdisjoint((word[:3], word[:2]))
    ):
        return {}
    found = {}
    for language, values in _data()["numbers"].items():
        # The numbers of which a word consists, with `og` and the like between; [] if none.
        best: dict[int, list[int]] = {0: []}
        for start in range(len(word)):
            if start not in best:
                continue
            for end in range(start + _LEAST_PART_CHARS, len(word) + 1):
                part = word[start:end]
                if part in values:
                    best.setdefault(end, [*best[start], values[part]])
                elif best[start] and part in ("og", "in"):
                    best.setdefault(end, best[start])
        parts = best.get(len(word), [])
        if len(parts) > 1 and _value_of_parts(parts, language) is not None:
            found[language] = tuple(parts)
    return found


def _value_of_parts(parts: Sequence[int], language: str = "") -> int | None:
    """Return the number that parts in a row are; None: they are several.

    >>> _value_of_parts([2, 1000, 20, 4]), _value_of_parts([5, 30]), _value_of_parts([3, 2])
    (2024, 35, None)
    """
    total = current = 0
    for part in chain.from_iterable(map(_plain_parts, parts)):
        if part in _SCALES:
            total += (current or 1) * part
            current = 0
        elif part < 0 < current % 100 < 10:  # belas
            current -= part
        elif part == 100 and 0 < current < 10:
            current *= part
        elif part == 10 and 1 < current % 100 < 10 and language not in _TEN_ADDED:
            current += 9 * (current % 100)  # mươi, puluh
        elif not current or _may_follow(current, part, language):
            current += part
        else:
            return None
    return total + current


_SCALES = (10**9, 10**6, 10**3)


def _plain_parts(part: int) -> Sequence[int]:
    """Return the factor and the scale of a word that has both: two thousand."""
    scale = next((scale for scale in _SCALES if part >= scale), part)
    return (part // scale, scale) if part > scale > 0 == part % scale else (part,)


def _may_follow(current: int, part: int, language: str) -> bool:
    """Return whether a part is added to what is before it: units to tens, or tens to units."""
    if 0 < current % 100 < 10 and part in range(10, 100, 10):
        return part > 10 or language in _TEN_ADDED
    return part < 10 <= _place(current) or part < 100 <= _place(current)


def _place(number: int) -> int:
    """Return the place of a number's last digit that is not 0; 1 to 20 are units."""
    place = 1
    while number and number % (place * 10) == 0:
        place *= 10
    return place


def number_at(words: Sequence[str], at: int) -> tuple[int, int, bool]:
    """Return how many words are one number of some language, its value, and if it is only that."""
    best = (0, 0, False)
    for language in numbers_of(words[at]):
        parts: list[int] = []
        names: list[str] = []
        found = (0, 0, False)
        for here in range(at, len(words)):
            word = words[here]
            if parts and (word in ALSO or (word == "de" and language == "ro")):
                continue
            meanings = numbers_of(word)
            if parts and not meanings and word[0] in JOINED:  # five-and twenty
                meanings = numbers_of(word[1:])
            next_parts = meanings.get(language, meanings.get("inflected"))
            if next_parts is None or _value_of_parts([*parts, *next_parts], language) is None:
                break
            parts += next_parts
            names.append(words[here])
            value = _value_of_parts(parts, language) or 0
            is_sure = value > 1 and any(map(_is_unambiguous, names))
            is_sure = is_sure or (value > 20 and len(names) > 1)
            found = here - at + 1, value, is_sure
        best = max(best, found)
    return best


def ordinal_of(word: str) -> int:
    """Return the ordinal that a word in lower case is in some language; 0: none."""
    return int(_data()["ordinals"].get(word, 0))


def ordinal_at(words: Sequence[str], at: int) -> tuple[int, int]:
    """Return how many words are one ordinal, and its value: двадцать третий, vigésimo terceiro."""
    first = ordinal_of(words[at])
    ten = first or max((value for value, *_ in numbers_of(words[at]).values()), default=0)
    last = ordinal_of(words[at + 1]) if at + 1 < len(words) else 0
    if 20 <= ten < 100 and ten % 10 == 0 < last < 10:
        return 2, ten + last
    return int(bool(first)), first


def _is_unambiguous(word: str) -> bool:
    """Return whether a word can hardly be one of another language."""
    if word.isascii() or max(word) < "\u0250":
        is_long = len(word) >= _LEAST_LATIN_CHARS or word in _SHORT_NUMBERS
        return is_long and word not in _OTHER_MEANING
    return len(word) > 2
