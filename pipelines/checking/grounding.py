"""Whether the numbers, dates and times of an answer are in its source.

A value is missing where no place of the source supports it, and doubtful where none of those that
do says it with the answer's words. List numbers and citations of an answer are none; the number of
a source's item supports only what names the item.

A claim's words are those of its sentence between the values before and after it. A source says the
same where these words stand on the same sides of the value, in the same order, and where its own
part of the sentence, between commas and other values, has no more of them. Endings may differ, and
words that say nothing of a value: articles, forms of to be and to amount to.

That knows no meanings, so no list of opposites has to be complete: what is said in other words, or
leaves one out (at least, net, not, planned), is not known to be the same.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import takewhile

from .contradictions import (
    Side,
    are_kinds_opposed,
    contradicts,
    is_in_other_range,
    is_opposite_result,
    sides_at,
)
from .dates_and_values import TextValue, ValueIndex, is_month, value_index, values_in
from .numbers import Number
from .scores import is_score_of, pairs_in, wrong_scores_in
from .units_from_context import caption_scales, has_unit_of
from .value_search import missing_in
from .value_words import word_data

_MOST_TRIED, _READ_COST = 200, 10
"""Places that are looked at of a value that a source has, for one with the answer's words."""


class Support:
    """Which values of an answer a source lacks, and which it has, but says with other words."""

    def __init__(self, answer: str, source: str, within: float) -> None:
        self._answer, self._source, self._within = answer, source, within
        sought = [value for value in values_in(answer) if value.is_sure]
        self._pairs = _as_values(pairs_in(answer))
        self._lost: set[int] = set()  # scores with which the source has the other side win
        self._claims: dict[int, Claim] = {}
        self._n_tried: dict[int, int] = {}
        """By the id of a value that the source has: at how many places it was looked at since."""
        self._same: set[int] = set()
        """The ids of those that the source says with the same words."""
        unsupported = missing_or_within(source, (*sought, *self._pairs), self._is_place_of, within)
        lacking = [value for value in unsupported if id(value) not in self._n_tried]
        self.missing = [value for value in lacking if not self._is_excused(value, lacking)]
        self.missing += _as_values(wrong_scores_in(answer, source))
        self.doubtful = [value for value in sought if not self._is_decided(value)]

    def _is_place_of(self, claimed: TextValue, found: TextValue) -> bool:
        """Return whether a place says all of a value, or it was looked for long enough."""
        n_tried = self._n_tried.get(id(claimed), 0)
        if not n_tried and not self._supports(claimed, found):
            return False
        if not n_tried:
            self._claims[id(claimed)] = Claim(self._answer, claimed)
        claim = self._claims[id(claimed)]
        if not claim.may_be_said_in(self._source):
            return True
        may_be_same = claim.may_be_said_at(self._source, found)
        is_same = may_be_same and claim.is_said_at(self._source, found)
        if is_same and (not n_tried or self._supports(claimed, found)):
            self._same.add(id(claimed))
        self._n_tried[id(claimed)] = n_tried + (_READ_COST if may_be_same else 1)
        return id(claimed) in self._same or n_tried >= _MOST_TRIED

    def _supports(self, claimed: TextValue, found: TextValue, scale: float = 1.0) -> bool:
        answer, source = self._answer, self._source
        is_score = claimed in self._pairs or (
            claimed.number is not None and bool(claimed.number.code)
        )
        if is_score and is_opposite_result(answer, claimed, source, found):
            self._lost.add(claimed.start)
            return False
        if claimed in self._pairs:
            return True
        if are_kinds_opposed(answer, claimed, source, found) or not has_unit_of(
            source, found, claimed, scale
        ):
            return False
        sides = _sides_of(answer, claimed)
        return not is_in_other_range(answer, claimed, source, found) and (
            not sides or not contradicts(sides, _sides_of(source, found))
        )

    def _is_decided(self, claimed: TextValue) -> bool:
        pairs = [pair for pair in self._pairs if id(pair) in self._same]
        return claimed in self.missing or id(claimed) in self._same or _is_in(claimed, pairs)

    def _is_excused(self, claimed: TextValue, lacking: Sequence[TextValue]) -> bool:
        """Return whether it is a pair, or one supports it, a score, or a caption's scale."""
        if claimed in self._pairs or _is_in(claimed, [p for p in self._pairs if p not in lacking]):
            return True
        number = claimed.number
        if number is None or claimed.start in self._lost:
            return False
        return is_score_of(self._answer, number, self._source) or any(
            not missing_or_within(
                self._source,
                [claimed.divided(scale)],
                partial(self._supports, scale=scale),
                self._within,
            )
            for scale in caption_scales(self._source)
        )


def _as_values(numbers: Iterable[Number]) -> list[TextValue]:
    return [TextValue(number.text, number.start, number) for number in numbers]


def _is_in(value: TextValue, pairs: Iterable[TextValue]) -> bool:
    return any(pair.start <= value.start and value.end <= pair.end for pair in pairs)


def _sides_of(text: str, value: TextValue) -> frozenset[Side]:
    return sides_at(text, value.bare[0], value.end, is_moment=value.is_moment)


def missing_or_within(
    source: str,
    sought: Sequence[TextValue],
    is_place_of: Callable[[TextValue, TextValue], bool],
    within: float,
) -> list[TextValue]:
    """Return the values that a source does not support; those that may differ have any digits."""
    if not within:
        return missing_in(source, sought, is_place_of)
    values = value_index(source)
    return [
        value
        for value in sought
        if not any(is_place_of(value, found) for found in values.find(value, within))
    ]


# A citation or a page follows text: `[450]` by itself is a number.
_CITATION_MARK = re.compile(
    r"(?<=[^\s\[])(?:[^\S\n]?\[(?:(?:pp?|S|s)\.\s?\d{1,4}|\d{1,2})(?:\s?[,;\u2013-]\s?\d{1,4})*\])+"
)
_LIST_NUMBER = re.compile(r"^([^\S\n]*)(\d{1,3})([.)])[^\S\n]+(?=(\S+))", re.MULTILINE)
_ITEM_END = re.compile(r"[.)](?:\s|\Z)")
_ITEM_CHARS = 24
_ITEM_NAME = re.compile(
    r"(?:(?<![^\W_])(?:items?|points?|steps?|no|nos|nr|num|number|sections?|parts?|paragraphs?"
    r"|questions?|rules?|tasks?|articles?|clauses?|top|punkte?|schritte?|nummer|ziffer|abschnitt"
    r"|absatz|frage|aufgabe|étapes?|articles?|numéro|puntos?|pasos?|artículos?|número|punt[oi]|passo"
    r"|passi|articol[oi]|numero|pontos?|passos?|artigos?|stap|stappen|punt|artikel|vraag"
    r"|pkt|punkt\w*|krok\w*|poz|numer|madde|adım|soru|пункт\w*|шаг\w*|البند|النقطة|الخطوة|المادة)"
    r"\.?[^\S\n]?|[№#§第(\[])\Z",
    re.IGNORECASE,
)
_ITEM_NUMBER = re.compile(r"^[^\S\n]*(\d{1,3})[.)][^\S\n]+(?=([^\W\d_]\S*))", re.MULTILINE)
_SENTENCE_BEFORE = re.compile(r"(?:\A|[.:;!?。：；！？)]\s*\n|\n[^\S\n]*\n)\s*\Z")


def without_list_numbers(text: str) -> str:
    r"""Blank list numbers and citations.

    A list has at least two items with the same indentation, numbered from 1 on or all with 1. A
    number before a month's name is a date.

    >>> without_list_numbers("1. Bread\n2. Milk [3]\n24. Mai")
    '   Bread\n   Milk    \n24. Mai'
    """
    runs: dict[tuple[str, str], list[re.Match[str]]] = {}
    found: list[re.Match[str]] = []

    def close(run: list[re.Match[str]]) -> None:
        found.extend(run if len(run) > 1 else ())

    for marker in _LIST_NUMBER.finditer(text):
        if is_month(marker[4]):
            continue
        run = runs.setdefault((marker[1], marker[3]), [])
        number = int(marker[2])
        follows = run and (number == int(run[-1][2]) + 1 or number == int(run[-1][2]) == 1)
        if not follows:
            close(run)
            run.clear()
        if follows or number == 1:
            run.append(marker)
    for run in runs.values():
        close(run)
    signs = list(text)
    for match in (*found, *_CITATION_MARK.finditer(text)):
        signs[match.start() : match.end()] = " " * (match.end() - match.start())
    return "".join(signs)


def without_item_numbers(text: str) -> str:
    r"""Blank the numbers before a text's items, and those of its lists and citations.

    >>> without_item_numbers("Plan.\n3. Hire two.\nIt costs\n9. Then")
    'Plan.\n   Hire two.\nIt costs\n9. Then'
    """
    plain = without_list_numbers(text)
    found = [match for match in _ITEM_NUMBER.finditer(plain) if not is_month(match[2])]
    numbers = {int(match[1]) for match in found}
    signs = list(plain)
    for match in found:
        number = int(match[1])
        is_in_row = number - 1 in numbers or number + 1 in numbers
        if is_in_row or _SENTENCE_BEFORE.search(text, max(0, match.start() - 8), match.start()):
            signs[match.start(1) : match.end(1) + 1] = " " * (len(match[1]) + 1)
    return "".join(signs)


def is_item(answer: str, claimed: TextValue) -> bool:
    """Return whether a value is a day, or the number of an item, a section or the like."""
    first = answer.rfind("\n", 0, claimed.start) + 1
    is_at_start = not answer[first : claimed.start].strip()
    is_item = is_at_start and _ITEM_END.match(answer, claimed.end) is not None
    is_named = _ITEM_NAME.search(answer, max(0, claimed.start - _ITEM_CHARS), claimed.start)
    is_ordinal = claimed.number is not None and claimed.number.is_ordinal
    return is_item or is_named is not None or is_ordinal or bool(claimed.days)


_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_](?:[^\W\d_]|[\u0900-\u0eff])*")
_SENTENCE_END = re.compile(
    r"[.!?]+[\"'\u201d\u2019\u00bb)]*(?=\s+[^\sa-z0-9]|\s*\Z)|[。！？；;|\t]|\n\s*\n|[:|]\n"
    r"|\n(?=[-*\u2022\d(])|[^\S\n]{2,}"
)
_PART_END = re.compile(r"[,，、()（）](?!\d)|\s[-\u2013\u2014]\s")
_LINK, _DASH = "-", re.compile(r"\s?[-\u2010-\u2015~\u301c\uff5e]\s?")
_MOST_SENTENCE_CHARS = 400
_LEAST_WRAPPED_CHARS = 40
"""A shorter line was not broken for its length: its end ends a sentence."""
_MOST_TOKENS = 40  # on each side of a value; a claim with more is none that a reader can follow
_LEAST_STEM_CHARS, _MOST_ENDING_CHARS = 4, 2
_OPPOSED_ENDINGS = ({"r", "e"}, {"or", "ee"}, {"er", "ee"})
"""Employer and employee."""


@dataclass(frozen=True, slots=True)
class _Token:
    """A word or a value of a sentence, with its offsets in the text."""

    start: int
    end: int
    word: str = ""
    value: TextValue | None = None

    def is_same(self, other: _Token) -> bool:
        if self.value is None or other.value is None:
            return self.value is other.value and _are_forms_of_one(self.word, other.word)
        if self.value.text == other.value.text:
            return True
        index = ValueIndex()
        index.add(other.value)
        return index.holds(self.value)


@dataclass(frozen=True, slots=True)
class _Context:
    """What a text says around a value: outwards from it, to both sides."""

    before: Sequence[_Token]
    after: Sequence[_Token]
    own_before: int
    """How many of them are in the parts of the sentence that hold no other value."""
    own_after: int


class Claim:
    """What an answer says of a value.

    >>> text = "Aue has 14 points, Lind at least 22."
    >>> def is_said(answer, at):
    ...     claim = Claim(answer, [*values_in(answer)][0])
    ...     return claim.is_said_at(text, [*values_in(text)][at])
    >>> is_said("Aue has 14 points", 0), is_said("Lind has 14 points", 0), is_said("Lind: 22", 1)
    (True, False, False)
    """

    def __init__(self, answer: str, value: TextValue) -> None:
        around = _context_at(answer, *value.bare)
        self._before = around.before[: around.own_before]
        self._after = around.after[: around.own_after]
        self._words = {token.word for token in (*self._before, *self._after)} - {"", _LINK}
        self.is_bare = not (around.before or around.after)
        """It says no more than that the value is there."""
        self._is_long = max(len(self._before), len(self._after)) > _MOST_TOKENS

    def may_be_said_in(self, source: str) -> bool:
        """Return whether a source has such words at all."""
        if self._is_long:
            return False
        begun = _beginnings_in(source)
        return all(word[:_LEAST_STEM_CHARS] in begun for word in self._words)

    def may_be_said_at(self, source: str, found: TextValue) -> bool:
        """Return whether the sentence of a place has the claim's words: few have them all."""
        there = _words_of(source, *found.bare) if self._words else frozenset()
        left = self._words - there
        return all(any(_are_forms_of_one(word, other) for other in there) for word in left)

    def is_said_at(self, source: str, found: TextValue) -> bool:
        """Return whether a place of a source says the value as the answer does."""
        if self.is_bare:
            return True
        place = _context_at(source, *found.bare)
        return _has_same_words(self._before, place.before, place.own_before) and (
            _has_same_words(self._after, place.after, place.own_after)
        )


def _has_same_words(claim: Sequence[_Token], there: Sequence[_Token], n_own: int) -> bool:
    """Return whether a claim's words follow each other in a source, which has no more of its own.

    `n_own`: how many there are in the source's part of the sentence, up to another value.
    """
    matched, at = set[int](), 0
    for word in claim:
        while at < len(there) and not word.is_same(there[at]):
            if there[at].value is not None:
                return False  # what stands beyond another value is said of that one
            at += 1
        if at == len(there):
            return False
        matched.add(at)
        at += 1
    own = takewhile(lambda place: place in matched or there[place].value is None, range(n_own))
    return matched.issuperset(own)


def _context_at(text: str, start: int, end: int) -> _Context:
    first, last = _sentence_at(text, start, end)
    return _sentence(text[first:last]).around(start - first, end - first)


class _Sentence:
    """The words and values of a sentence, and its parts: between commas, dashes and the like."""

    def __init__(self, text: str) -> None:
        self._tokens = [*_with_links([*_tokens_in(text)], text)]
        values = [token for token in self._tokens if token.value is not None]
        self._starts, self._ends = _places_of(self._tokens)
        self._value_starts, self._value_ends = _places_of(values)
        self._cuts = [0, *(match.end() for match in _PART_END.finditer(text)), len(text)]

    def around(self, start: int, end: int) -> _Context:
        """Return what is said around a place; its own parts go on up to another value."""
        n_before, first = bisect_right(self._ends, start), bisect_left(self._starts, end)
        begin, stop = self._own_parts(start, end)
        return _Context(
            self._tokens[:n_before][::-1],
            self._tokens[first:],
            n_before - bisect_left(self._starts, begin, 0, n_before),
            bisect_left(self._starts, stop, first) - first,
        )

    def _own_parts(self, start: int, end: int) -> tuple[int, int]:
        cuts, values = self._cuts, self._value_starts
        begin, stop = cuts[bisect_right(cuts, start) - 1], cuts[bisect_left(cuts, end)]
        before = bisect_left(values, begin, 0, bisect_right(self._value_ends, start)) - 1
        after = bisect_left(values, stop, bisect_left(values, end))
        begin = cuts[bisect_right(cuts, values[before])] if before >= 0 else 0
        return begin, cuts[bisect_right(cuts, values[after]) - 1] if after < len(values) else cuts[
            -1
        ]


def _places_of(tokens: Sequence[_Token]) -> tuple[list[int], list[int]]:
    return [token.start for token in tokens], [token.end for token in tokens]


_sentence = lru_cache(maxsize=512)(_Sentence)


def _sentence_at(text: str, start: int, end: int) -> tuple[int, int]:
    """Return where the sentence, the cell or the line of a value begins and ends."""
    first, last = max(0, start - _MOST_SENTENCE_CHARS), min(len(text), end + _MOST_SENTENCE_CHARS)
    for found in _SENTENCE_END.finditer(text, first, start):
        first = found.end()
    stop = _SENTENCE_END.search(text, end, last)
    last = stop.start() if stop is not None else last
    breaks = [at for at in _line_ends(text, first, last) if _is_short_line(text, at)]
    first = max((at + 1 for at in breaks if at < start), default=first)
    return first, min((at for at in breaks if at >= end), default=last)


def _line_ends(text: str, start: int, end: int) -> Iterator[int]:
    while (start := text.find("\n", start, end)) >= 0:
        yield start
        start += 1


def _is_short_line(text: str, end: int) -> bool:
    return text.rfind("\n", max(0, end - _LEAST_WRAPPED_CHARS), end) >= 0 or (
        end < _LEAST_WRAPPED_CHARS
    )


def _tokens_in(sentence: str) -> Iterator[_Token]:
    at = 0
    values = (value for value in values_in(sentence) if value.is_sure)
    for value in sorted(values, key=lambda candidate: (candidate.start, -candidate.end)):
        if value.start >= at:
            yield from _words_in(sentence, at, value.start)
            at = value.end
            yield _Token(value.start, at, value=value)
    yield from _words_in(sentence, at, len(sentence))


def _words_in(sentence: str, start: int, end: int) -> Iterator[_Token]:
    for found in _WORD.finditer(sentence, start, end):
        yield _Token(found.start(), found.end(), _folded(found[0]))


def _with_links(tokens: Sequence[_Token], text: str) -> Iterator[_Token]:
    """Yield what says something; what links two ends of a range is the same in each notation."""
    for at, token in enumerate(tokens):
        around = (*tokens[max(0, at - 1) : at], *tokens[at + 1 : at + 2])
        is_between = len(around) == 2 and all(near.value is not None for near in around)
        if is_between and token.word in _links():
            yield replace(token, word=_LINK)
        elif token.value is not None or token.word not in _empty_words():
            yield token
        if token.value is not None and at + 1 < len(tokens):
            after = tokens[at + 1]
            if after.value is not None and _DASH.fullmatch(text, token.end, after.start):
                yield _Token(token.end, after.start, _LINK)


@lru_cache(maxsize=1024)
def _words_of(text: str, start: int, end: int) -> frozenset[str]:
    """Return the words of the sentence of a value, but for those that say nothing."""
    first, last = _sentence_at(text, start, end)
    found = (_folded(match[0]) for match in _WORD.finditer(text, first, last))
    return frozenset(found) - _empty_words()


@lru_cache(maxsize=2)
def _beginnings_in(text: str) -> frozenset[str]:
    """Return with which letters the words of a text begin: other words are no forms of them."""
    return frozenset(_folded(word)[:_LEAST_STEM_CHARS] for word in {*_WORD.findall(text)})


@lru_cache(maxsize=4096)
def _folded(word: str) -> str:
    signs = unicodedata.normalize("NFKD", word.casefold())
    return "".join(sign for sign in signs if not unicodedata.combining(sign)) or word


@lru_cache(maxsize=8192)
def _are_forms_of_one(word: str, other: str) -> bool:
    """Return whether two words differ by their endings alone."""
    if word == other:
        return True
    pairs = enumerate(zip(word, other, strict=False))
    n_same = next((at for at, (a, b) in pairs if a != b), min(len(word), len(other)))
    endings = {word[n_same:], other[n_same:]}
    is_short = max(map(len, endings)) <= _MOST_ENDING_CHARS
    return n_same >= _LEAST_STEM_CHARS and is_short and endings not in _OPPOSED_ENDINGS


@lru_cache(maxsize=1)
def _empty_words() -> frozenset[str]:
    return frozenset(map(_folded, word_data()["empty words"].split()))


@lru_cache(maxsize=1)
def _links() -> frozenset[str]:
    return frozenset(map(_folded, word_data()["range links"].split()))
