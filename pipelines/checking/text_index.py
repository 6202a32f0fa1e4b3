"""Where words and quotations are in a text, as UAX #29 bounds words.

`TextIndex` reads a text once, in time linear in its length; a look-up then costs about as much as
it has answers. Offsets are those of the text as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from functools import cached_property
from itertools import islice
from typing import Literal

import regex

from paddock.engine.system.records import Struct
from paddock.engine.system.text import find_all

from .folding import FoldedText, Span, folded

UNSPACED = (
    r"\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Thai}"
    r"\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}\u3005\u30fc"
)
"""Scripts whose words have no spaces between; in Korean, particles follow without one."""
_LETTER = rf"[\p{{L}}--[{UNSPACED}]]"
_WORD = regex.compile(rf"(?V1)[{UNSPACED}]\p{{M}}*|{_LETTER}+(?:\p{{M}}+{_LETTER}*)*|\d+|\p{{M}}+")
_BORDER = regex.compile(rf"(?wV1)\b(?<!_)(?!_)|(?<=[{UNSPACED}])(?!\p{{M}})|(?=[{UNSPACED}])")
_PART_END = re.compile(r"\s*[,\u060c\u3001\n]\s*")
_BETWEEN_PARTS = " ,\u060c\u3001"
_JOINS_DIGITS = frozenset("-/:.,'+@<≤≥≲≳~≈±")
_MOST_COMPARED = 4  # times the text's length; above it, one pass over the text is cheaper
_MOST_OVERLAPPING_CHARS = 256
_MOST_PLACES = 2000
_ELISION_CHARS = 6
_MOST_HYPHENATED_CHARS = 2000
_MOST_SIMILAR_WORDS = 200
_LEAST_MISREAD_CHARS = 6  # of four letters one makes another word: Bonn and born
_LOOK_ALIKE = (("rn", "m"), ("cl", "d"), ("vv", "w"), ("l", "i"), ("1", "i"), ("0", "o"))
"""Letters that OCR confuses."""
_TWICE = re.compile(r"(.)\1+")


class Quote(Struct, frozen=True):
    start: int
    end: int
    match: Literal["exact", "normalised", "partial", "fuzzy"]
    ratio: float | None = None
    reason: str | None = None
    """Why it is only partial: `year`, `range`, `order` or `month`."""


def folded_words(text: str) -> list[str]:
    """Return the words of a text as they are compared; of scripts without spaces, each sign."""
    return [found[0] for found in _WORD.finditer(folded(text).text)]


class TextIndex(Struct, dict=True):
    """The words of a text, and where quotations are in it."""

    text: str

    @cached_property
    def _folded(self) -> FoldedText:
        return folded(self.text)

    @cached_property
    def words(self) -> list[str]:
        return _WORD.findall(self._folded.text)

    @cached_property
    def _word_starts(self) -> list[int]:
        """The first place after the word before: between two words is no sign of a word."""
        starts = []
        at = 0
        for word in self.words:
            starts.append(self._folded.text.find(word, at))
            at = starts[-1] + len(word)
        return starts

    @cached_property
    def _positions(self) -> dict[str, list[int]]:
        """The numbers of the words that are equal, by the word."""
        positions: dict[str, list[int]] = {}
        for number, word in enumerate(self.words):
            positions.setdefault(word, []).append(number)
        return positions

    def starts_of(self, word: str) -> Iterator[int]:
        """Yield the offsets at which a folded word begins."""
        for number in self._positions.get(word, ()):
            yield self._folded.original(*self._folded_span(number, number))[0]

    def find(self, text: str) -> list[Quote]:
        """Return where a text is: whole, else in its parts, which commas and line ends separate.

        It must not begin or end inside a word or a number.
        """
        bare = text.strip()
        quotes = [self._quote(start, end, bare) for start, end in self._find_whole(bare)]
        if not quotes and len(parts := [*filter(None, _PART_END.split(bare))]) > 1:
            quotes = [Quote(*span, "normalised") for span in self._find_parts(parts)]
        return quotes

    def _find_whole(self, text: str) -> list[Span]:
        whole, sought, found, last = self._folded, folded(text).text.strip(), list[Span](), 0
        for start in self._starts_in(whole, sought):
            end = start + len(sought)
            if start >= last and self._is_whole(whole, start, end):
                found.append(whole.original(start, end))
                last = end
        sought = folded(text, "kept").text.strip()
        if found or "-" not in sought or len(sought) > _MOST_HYPHENATED_CHARS:
            return found
        marked = folded(self.text, "marked")
        if "\x01" not in marked.text:
            return found
        pattern = re.compile("\x01?".join("[-\x01]" if s == "-" else re.escape(s) for s in sought))
        spans = (match.span() for match in pattern.finditer(marked.text))
        return [marked.original(*span) for span in spans if self._is_whole(marked, *span)]

    def _starts_in(self, whole: FoldedText, sought: str) -> Iterator[int]:
        """Yield where a text occurs: at its rarest word, or by one pass over the text."""
        words = [(found[0], found.start()) for found in _WORD.finditer(sought)]
        if words and whole is self._folded:
            rarest, offset = min(words, key=lambda word: len(self._positions.get(word[0], ())))
            numbers = self._positions.get(rarest, ())
            if len(numbers) * len(sought) <= _MOST_COMPARED * len(whole.text):
                starts = (self._word_starts[number] - offset for number in numbers)
                yield from (at for at in starts if at >= 0 and whole.text.startswith(sought, at))
                return
        # Long ones without overlap, so that it takes linear time
        step = 1 if len(sought) <= _MOST_OVERLAPPING_CHARS else len(sought)
        if words:
            yield from find_all(sought, whole.text, step)

    def _find_parts(self, parts: Sequence[str]) -> list[Span]:
        first, *others = (folded(part).text.strip() for part in parts)
        whole, found = self._folded, list[Span]()
        for start in islice(self._starts_in(whole, first), _MOST_PLACES):
            end = start + len(first)
            is_there = self._is_whole(whole, start, end)
            for part in others if is_there else ():
                begin = last = end
                while whole.text[begin : begin + 1] in _BETWEEN_PARTS and begin < len(whole.text):
                    begin += 1
                end = begin + len(part)
                is_next = begin > last and whole.text.startswith(part, begin)
                is_there = is_there and is_next and self._is_whole(whole, begin, end)
            if is_there:
                found.append(whole.original(start, end))
        return found

    def _is_whole(self, whole: FoldedText, start: int, end: int) -> bool:
        """Return whether a part of the folded text begins and ends where words do."""
        text = whole.text
        if start and _is_word_sign(text[start]):
            if text[start - 1] == "'" and not _BORDER.match(text, start):  # l'eau, not O'Brien
                at = whole.original(start, start + 1)[0]
                before = self.text[max(0, at - _ELISION_CHARS) : at - 1]
                word = before[len(before.rstrip("".join({*filter(str.isalpha, before)}))) :]
                if word and not word.islower():
                    return False
            elif not _BORDER.match(text, start):
                return False
            if text[start].isdecimal() and text[start - 1] in _JOINS_DIGITS:
                before = text[start - 2 : start - 1]
                if (
                    text[start - 1] not in ".:'"
                    or before.isdecimal()
                    or (text[start - 1] == "." and before.isalpha())
                ):
                    return False
        if _is_cut(text[start - 1 : start], text[start], text[start + 1 : start + 2]) or (
            _is_cut(text[end : end + 1], text[end - 1], text[end - 2 : end - 1])
        ):
            return False
        if end < len(text) and text[end] != "'" and _is_word_sign(text[end - 1]):
            if not _BORDER.match(text, end):
                return False
            return not _is_cut(text[end + 1 : end + 2], text[end], text[end - 1])
        return True

    def _quote(self, start: int, end: int, bare: str) -> Quote:
        if self.text.startswith(bare, start):
            return Quote(start, start + len(bare), "exact")
        if self.text.endswith(bare, 0, end):
            return Quote(end - len(bare), end, "exact")
        return Quote(start, end, "normalised")

    def find_similar(self, text: str) -> list[Quote]:
        """Return the first place that may be a misspelling of a text: a hint, and no evidence.

        Each word is there, in this order, but for letters that OCR and spelling confuse in words of
        six letters or more. Words with capitals or digits may be names and codes: they are there
        unchanged, and so is a word that the text has elsewhere.
        """
        bare = text.strip()
        exact = folded(bare).text
        words = _WORD.findall(exact)
        if len(words) > _MOST_SIMILAR_WORDS:
            return []
        misread = [_as_misread(word) for word in words]
        free = [
            at
            for at, word in enumerate(words)
            if len(word) >= _LEAST_MISREAD_CHARS and word.isalpha() and word in bare
            if word not in self._positions
        ]
        if not free:
            return []
        for first in self._similar_places(words, misread, free):
            start, end = self._folded_span(first, first + len(words) - 1)
            if self._is_whole(self._folded, start, end):
                ratio = SequenceMatcher(None, exact, self._folded.text[start:end]).ratio()
                return [Quote(*self._folded.original(start, end), "fuzzy", round(ratio, 3))]
        return []

    def _similar_places(
        self, words: Sequence[str], misread: Sequence[str], free: Sequence[int]
    ) -> Iterator[int]:
        """Yield the number of the first word where words stand; those in `free` may be misread."""
        lists = [
            (
                self._misread.get(misread[at], ()) if at in free else self._positions.get(word, ()),
                at,
            )
            for at, word in enumerate(words)
        ]
        numbers, offset = min(lists, key=lambda pair: (len(pair[0]), pair[1] in free))
        for number in islice(numbers, _MOST_PLACES):
            first = number - offset
            found = self.words[first : first + len(words)] if first >= 0 else []
            if len(found) == len(words) and all(
                other == word or (at in free and _as_misread(other) == misread[at])
                for at, (word, other) in enumerate(zip(words, found, strict=True))
            ):
                yield first

    @cached_property
    def _misread(self) -> dict[str, list[int]]:
        """The numbers of longer words, by what they are but for letters that are confused."""
        numbers: dict[str, list[int]] = {}
        for word, places in self._positions.items():
            if len(word) >= _LEAST_MISREAD_CHARS - 1:
                numbers.setdefault(_as_misread(word), []).extend(places)
        return numbers

    def _folded_span(self, first: int, last: int) -> Span:
        return self._word_starts[first], self._word_starts[last] + len(self.words[last])


def _is_cut(outside: str, mark: str, inside: str) -> bool:
    goes_on = outside.isalnum() if inside.isdecimal() else outside.isdecimal()
    joins = mark in _JOINS_DIGITS or mark == "#"
    return goes_on and joins and (mark != ":" or inside.isdecimal())


def _is_word_sign(sign: str) -> bool:
    return sign.isalnum() or sign == "_" or unicodedata.category(sign)[0] == "M"


def _as_misread(word: str) -> str:
    """Return what is the same for words that differ by what OCR and spelling confuse.

    >>> _as_misread("agreernent") == _as_misread("agreement") == _as_misread("aggreement")
    True
    """
    decomposed = unicodedata.normalize("NFD", word)
    letters = "".join(sign for sign in decomposed if not unicodedata.combining(sign))
    for seen, meant in _LOOK_ALIKE:
        letters = letters.replace(seen, meant)
    return _TWICE.sub(r"\1", letters)
