"""Opposed words that a number is said with: net and gross, debit and credit, until and from.

Of a pair, the words next to a number count, else those in its clause; where both are, nothing is
decided. The pairs are data, in `value_words.json`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from .value_words import BREAK, HAN, NEGATION_BEFORE, PAUSE, word_data

Side = tuple[int, int]
"""The number of a pair of opposed words, and -1 or 1 for one of its sides."""
_JOINED_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_ARABIC_PREFIX = re.compile(r"[وف]?(?:[بك]?ال|لل|[لبس])?(?=\w{3})")
_NEXT = re.compile(r"[^\S\n]?(?:[^\W\d_]+\.?[^\S\n])?[(\uff08]?")
_APPENDED = re.compile(r"[^\S\n]?(?:[^\W\d_]+[^\S\n]?){0,2},[^\S\n]")
"""680 € por mês, acrescido de IVA."""
_SIDE_BEFORE_CHARS, _SIDE_AFTER_CHARS, _NOT_CHARS = 100, 50, 30


def contradicts(answer: frozenset[Side], source: frozenset[Side]) -> bool:
    """Return whether a source has only the other side of one that an answer has."""
    return any(
        (pair, -side) in source and (pair, side) not in source and (pair, -side) not in answer
        for pair, side in answer
    )


def sides_at(text: str, start: int, end: int, *, is_moment: bool = False) -> frozenset[Side]:
    """Return the sides of the opposed words that a number between two offsets is said with.

    >>> sides_at("gross 3,200, net 2,410", 6, 11) == sides_at("3,200 brutto", 0, 5)
    True
    """
    first = max(0, start - _SIDE_BEFORE_CHARS)
    before, after = text[first:start], text[end : end + _SIDE_AFTER_CHARS]
    if first and not before[0].isspace():  # it may begin inside a word
        before = before.partition(" ")[2] or before
    n_pairs = len(_pairs()) if is_moment else len(word_data()["opposites"])
    earlier, later = (
        [one for one in _sides_in(part) if one[2][0] < n_pairs] for part in (before, after)
    )
    label = before.rstrip(" :)\uff09")
    near = {side for _, at, side in earlier if not BREAK.search(label, at)}
    near |= {side for at, stop, side in later if _is_next(after, at, stop)}
    if near:
        return frozenset(near)
    found = {side for at, _, side in later if not BREAK.search(after, 0, at)}
    pairs = {pair for pair, _ in found}
    for _, at, side in reversed(earlier):
        if side[0] not in pairs and not PAUSE.search(before, at):
            found.add(side)
            pairs.add(side[0])
    return frozenset(found)


def _is_next(after: str, at: int, stop: int) -> bool:
    """Return whether a word is directly after a number, and no conjunction between."""
    is_phrase = " " in after[at:stop] and not after[stop : stop + 2].strip().isdecimal()
    if is_phrase and _APPENDED.fullmatch(after, 0, at):
        return True
    is_near = _NEXT.fullmatch(after, 0, at) is not None
    return is_near and after[at] != "و" and not BREAK.search(after[:at].rstrip("(\uff08"))


def _sides_in(text: str) -> Sequence[tuple[int, int, Side]]:
    """Return where opposed words are in a text, in order; those that are negated are left out."""
    lower = text.replace("İ", "i").lower()
    found = [
        (*word.span(), side) for word in _JOINED_WORD.finditer(lower) for side in _sides_of(word[0])
    ]
    if not lower.isascii() or _any_phrase().search(lower):
        for side, phrases in _side_phrases():
            found += ((*one.span(), side) for one in phrases.finditer(lower))
    return sorted(
        one
        for one in found
        if not NEGATION_BEFORE.search(lower, max(0, one[0] - _NOT_CHARS), one[0])
    )


@lru_cache(maxsize=4096)
def _sides_of(word: str) -> tuple[Side, ...]:
    forms = {word, _ARABIC_PREFIX.sub("", word, count=1)}
    return tuple(side for side, words in _side_words() if any(map(words.fullmatch, forms)))


@lru_cache(maxsize=1)
def _side_words() -> Sequence[tuple[Side, re.Pattern[str]]]:
    return _side_patterns(is_phrase=False)


@lru_cache(maxsize=1)
def _side_phrases() -> Sequence[tuple[Side, re.Pattern[str]]]:
    return _side_patterns(is_phrase=True)


@lru_cache(maxsize=1)
def _any_phrase() -> re.Pattern[str]:
    return re.compile("|".join(one.pattern for _, one in _side_phrases()))


def _pairs() -> Sequence[Sequence[str]]:
    """Return the pairs of opposed words; the last ones are only about days and times."""
    return (*word_data()["opposites"], *word_data()["opposed moments"])


def _side_patterns(*, is_phrase: bool) -> Sequence[tuple[Side, re.Pattern[str]]]:
    """Return a pattern for each side: of its words, or of what is found inside longer text."""
    found = []
    for pair, sides in enumerate(_pairs()):
        for side, words in zip((-1, 1), sides, strict=True):
            chosen = []
            for word in words.split():
                is_unspaced = HAN.match(word) is not None
                if (is_unspaced or "_" in word) != is_phrase:
                    continue
                pattern = word.replace("*", "" if is_unspaced else r"\w*").replace("_", r"\s")
                chosen.append(pattern if is_unspaced or not is_phrase else rf"\b{pattern}\b")
            if chosen:
                found.append(((pair, side), re.compile("|".join(chosen))))
    return found
