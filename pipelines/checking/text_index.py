"""Where words, quotations and values are in a text.

`TextIndex` reads a text once, in time linear in its length; a look-up then costs about as much as
it has answers. Texts are compared folded: Unicode NFKC, lower case, plain quotation marks and
dashes, single spaces, and no hyphens inside words, whether typed or from the end of a line. Each
offset of the folded text leads back to the text as it is.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, islice, pairwise
from typing import Literal, TypeAlias

from .values_in_text import TextValue, ValueIndex, value_index, values_in

MatchKind: TypeAlias = Literal["exact", "normalised", "fuzzy"]
Span: TypeAlias = tuple[int, int]

_HYPHENS = "-\u2010\u2011"
_SOFT = "\u00ad"
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
_TYPOGRAPHY = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u2032`\u00b4\u2039\u203a", "'"),
    **dict.fromkeys('"\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\u300c\u300d', "'"),
    **dict.fromkeys("\u2012\u2013\u2014\u2015\u2212\ufe58\uff0d", "\u2013"),
    **dict.fromkeys(_HYPHENS, "-"),
    **dict.fromkeys(_INVISIBLE + _SOFT + "\n", None),
}
"""What a sign counts as; None: it is dealt with by its surroundings."""
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
"""Scripts whose words have no spaces between; in Korean, particles follow without one."""
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W\d_{_UNSPACED}]+|\d+")
_JOINING = r"\u0300-\u036f\u3099\u309a\uff9e\uff9f\u1160-\u11ff"
"""Accents and parts of syllables that belong to the sign before."""
_LINE_END = r"(?:[^\S\n]*\n\s*)"
_IN_NUMBER = re.compile(r"\d[.,']\d")
_MARGIN = " .,:;'"
_ALIKE = str.maketrans("li1o0", "iiioo")
_MOST_COMPARED = 4  # times the text's length; above it, one pass over the text is cheaper
_MOST_OVERLAPPING_CHARS = 256
_CODE = re.compile(r"[+(]{0,2}[^\W_]+(?:[ \-/().+]{1,3}[^\W_]+)*")
_BEFORE_CODE = re.compile(r"[+(]+\Z")
_CODE_GAP = re.compile(r"[ \-/().+]{0,3}")
_N_DIGITS = re.compile(r"(?:\D*\d){4}")
_LEAST_CODE_CHARS, _MOST_CODE_CHARS = 6, 64  # an IBAN has up to 34, and spaces
_MOST_CODE_PLACES = 2000
_RUN = re.compile(r"\d+|\D+")
LEAST_RATIO = 0.75
"""Of letters alike: what LangExtract takes for an alignment, and tests/pipelines/checking holds."""
# Bounds of a search for what is similar, so that it never depends on the text's length.
_MOST_SIMILAR_CHARS = 20_000
_MOST_ALIGNED = 100  # words; more are compared whatever their order
_NEGATION = re.compile(
    "not|never|none|nor|cannot|nothing|without|nicht|kein(?:e[mnrs]?)?|nie|niemals|nichts|ohne|ne|pas"
    "|jamais|aucune?|sans|nunca|ningun[ao]?|ningún|sin|non|nessun[ao]?|senza|niet|geen|nooit|zonder"
    "|[不没無无未]"
)
_LEAST_DENIED_CHARS = 3  # `no refunds`, but not `no. AB-5`
_MOST_SWAPPED, _LEAST_SWAPPED_RATIO = 4, 0.9  # words in another order: `Lee, Ann`
_MOST_PLACES = 500
_MOST_ANCHORS = 16
_MOST_WINDOWS = 5
_MOST_TYPOS = 20
_MOST_WORD_CHARS = 40
_AROUND_CHARS = 30


@dataclass(frozen=True, slots=True)
class Quote:
    """A place in a text that supports a value."""

    start: int
    end: int
    match: MatchKind
    ratio: float | None = None
    """How similar a fuzzy quote is, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class FoldedText:
    """A text as it is compared, and the way back to the offsets of the original."""

    text: str
    _starts: Sequence[int]
    """Where each piece begins in the folded text."""
    _originals: Sequence[int]
    """Where it begins in the original. The last piece is never a changed one."""
    _is_changed: Sequence[bool]

    def original(self, start: int, end: int) -> Span:
        """Return the offsets in the original of a part that is not empty."""
        first = bisect_right(self._starts, start) - 1
        at = self._originals[first]
        if not self._is_changed[first]:
            at += start - self._starts[first]
        last = bisect_right(self._starts, end - 1) - 1
        if self._is_changed[last]:
            return at, self._originals[last + 1]
        return at, self._originals[last] + end - self._starts[last]


def folded(text: str) -> FoldedText:
    r"""Fold a text for comparison.

    >>> folded("The \ufb01rst\nexam-\nple").text
    'the first example'
    """
    signs = {sign: _folded_sign(sign) for sign in set(text)}
    plain = text.translate({ord(a): b for a, b in signs.items() if len(b) == 1})
    longer = "".join(re.escape(a) for a, b in signs.items() if len(b) > 1)
    pattern = re.compile(
        rf"(?P<joined>(?<=[^\W\d_])-{_LINE_END}?(?=[^\W\d_])|{_SOFT}{_LINE_END}?)"
        rf"|(?P<broken>(?<=\w)-{_LINE_END}(?=\w))"
        rf"|(?P<blank>[\s{_INVISIBLE}]{{2,}}|[{_INVISIBLE}])"
        rf"|[^\s{_JOINING}][{_JOINING}]+" + (f"|[{longer}]" if longer else "")
    )
    made: list[str] = []
    starts, originals, is_changed = [0], [0], [False]
    n = at = 0
    for found in pattern.finditer(plain):
        n += found.start() - at
        made.append(plain[at : found.start()])
        new = _replacement(found, signs)
        made.append(new)
        at = found.end()
        if len(new) == at - found.start():
            n += len(new)
            continue
        starts += n, n + len(new)
        originals += found.start(), at
        is_changed += True, False
        n += len(new)
    made.append(plain[at:])
    whole = "".join(made).replace("\n", " ").replace("\u2013", "-")
    return FoldedText(whole, starts, originals, is_changed)


def _folded_sign(sign: str) -> str:
    """Return what a single sign counts as: itself where only its surroundings decide."""
    if sign in _TYPOGRAPHY:
        return _TYPOGRAPHY[sign] or sign
    if sign.isspace():
        return " "
    match unicodedata.category(sign):
        case "Nd":
            return str(unicodedata.decimal(sign))
        case "No":  # 5² is not 52
            return sign
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", sign).casefold())
    return sign if " " in plain else plain


def _replacement(found: re.Match[str], signs: Mapping[str, str]) -> str:
    match found.lastgroup:
        case "joined":
            return ""
        case "broken":
            return "-"
        case "blank":
            return " " if any(map(str.isspace, found[0])) else ""
    return unicodedata.normalize("NFKC", "".join(signs.get(sign, sign) for sign in found[0]))


def folded_words(text: str) -> list[str]:
    """Return the words of a text as they are compared; of scripts without spaces, each sign."""
    return _WORD.findall(folded(text).text)


@dataclass
class TextIndex:
    """Words, quotations and values of a text, and where they are."""

    text: str
    _typos: dict[str, dict[str, float]] = field(default_factory=dict)

    @cached_property
    def _folded(self) -> FoldedText:
        return folded(self.text)

    @cached_property
    def values(self) -> ValueIndex:
        return value_index(self.text)

    @cached_property
    def _word_starts(self) -> list[int]:
        return [found.start() for found in _WORD.finditer(self._folded.text)]

    @cached_property
    def _words(self) -> list[str]:
        return _WORD.findall(self._folded.text)

    @cached_property
    def _positions(self) -> dict[str, list[int]]:
        """The numbers of the words that are equal, by the word."""
        positions: dict[str, list[int]] = {}
        for number, word in enumerate(self._words):
            positions.setdefault(word, []).append(number)
        return positions

    def starts_of(self, word: str) -> Iterator[int]:
        """Yield the offsets at which a folded word begins."""
        for number in self._positions.get(word, ()):
            yield self._original(number, number)[0]

    def find(self, text: str) -> list[Quote]:
        """Return where a text is word by word, exactly or as it counts when folded, in order.

        It must not begin or end inside a word or a number.
        """
        bare = text.strip()
        wanted = folded(bare).text.strip()
        spans = self._find_folded(wanted) or self._find_folded(wanted.strip(_MARGIN))
        if not spans:
            spans = [span for span in _scan(self.text, bare) if _is_whole(self.text, *span)]
        return [self._quote(start, end, bare) for start, end in spans]

    def _quote(self, start: int, end: int, bare: str) -> Quote:
        """Return a quote, with the invisible signs at its ends if the text sought has them."""
        if self.text.startswith(bare, start):
            return Quote(start, start + len(bare), "exact")
        if self.text.endswith(bare, 0, end):
            return Quote(end - len(bare), end, "exact")
        return Quote(start, end, "normalised")

    def find_code(self, text: str) -> list[Quote]:
        """Return where an identifier is whose groups are written apart or together.

        Such as an IBAN or a telephone number: at least six letters and digits, four of them digits.
        """
        wanted = folded(text).text.strip() if len(text) <= _MOST_CODE_CHARS else ""
        if not _CODE.fullmatch(wanted) or _N_DIGITS.match(wanted) is None:
            return []
        bare = "".join(_WORD.findall(wanted))
        forms = [bare]
        if wanted.startswith("+"):  # +49 30 1234567 is 030 1234567
            forms += (f"0{bare[n:]}" for n in (1, 2, 3))
        for form in forms if len(bare) >= _LEAST_CODE_CHARS else ():
            if found := self._find_groups(form):
                return [Quote(*span, "normalised") for span in sorted(found)]
        return []

    def find_similar(self, text: str) -> list[Quote]:
        """Return the place that is most like a text, if one is like enough.

        Words may be missing, added or misspelled, but no word such as `not`; a number may be
        written in another way, but not be another one.
        """
        if len(text) > _MOST_SIMILAR_CHARS:
            return []
        said = [one for one in values_in(text) if one.is_sure]
        signs = list(text)
        for one in said:
            signs[one.start : one.end] = " " * len(one.text)
        words = [*self._as_written(folded_words("".join(signs)))]
        near = [self._similar_words(word) for word in words]
        found = [self._similar_at(first, words, near) for first in self._windows(words, near)]
        quotes = sorted(filter(None, found), key=lambda one: (-(one.ratio or 0), one.start))
        for quote in quotes:
            kept = self._with_values(quote, said)
            if kept is not None:
                return [kept]
        return []

    def _as_written(self, words: Sequence[str]) -> Iterator[str]:
        """Yield words as one or as two, as the text has them."""
        before = ""
        for word in words:
            if before and before + word in self._positions and not self._has_all(before, word):
                yield before + word
                before = ""
                continue
            if before:
                yield from self._halves(before)
            before = word
        if before:
            yield from self._halves(before)

    def _has_all(self, *words: str) -> bool:
        return all(word in self._positions for word in words)

    def _halves(self, word: str) -> tuple[str, ...]:
        if word not in self._positions and len(word) <= _MOST_WORD_CHARS:
            for at in range(2, len(word) - 1):
                if self._has_all(word[:at], word[at:]):
                    return word[:at], word[at:]
        return (word,)

    def _find_folded(self, wanted: str) -> list[Span]:
        words = [(found[0], found.start()) for found in _WORD.finditer(wanted)]
        whole = self._folded.text
        if not words:
            return []
        rarest, offset = min(words, key=lambda one: len(self._positions.get(one[0], ())))
        numbers = self._positions.get(rarest, ())
        spans: Iterator[Span]
        if len(numbers) * len(wanted) > _MOST_COMPARED * len(whole):
            spans = _scan(whole, wanted)
        else:
            starts = (self._word_starts[number] - offset for number in numbers)
            spans = (
                (start, start + len(wanted))
                for start in starts
                if start >= 0 and whole.startswith(wanted, start)
            )
        found: list[Span] = []
        last = 0
        for start, end in spans:
            if start >= last and _is_whole(whole, start, end):
                found.append(self._folded.original(start, end))
                last = end
        return found

    def _folded_span(self, first: int, last: int) -> Span:
        """Return the offsets in the folded text of the words from one number to another."""
        return self._word_starts[first], self._word_starts[last] + len(self._words[last])

    def _original(self, first: int, last: int) -> Span:
        return self._folded.original(*self._folded_span(first, last))

    def _find_groups(self, form: str) -> list[Span]:
        """Return where words in a row are letters and digits of an identifier."""
        run = _RUN.match(form)
        firsts = (run[0][:n] for n in range(len(run[0]), 0, -1)) if run else ()
        numbers = (number for first in firsts for number in self._positions.get(first, ()))
        found = []
        for first in islice(numbers, _MOST_CODE_PLACES):
            last = self._last_group(form, first)
            if last is not None:
                start, end = self._folded_span(first, last)
                if _is_whole(self._folded.text, start, end):
                    signs = _BEFORE_CODE.search(self._folded.text, max(0, start - 2), start)
                    found.append(self._folded.original(signs.start() if signs else start, end))
        return found

    def _last_group(self, form: str, first: int) -> int | None:
        """Return the number of the word with which an identifier ends that begins at another."""
        at = 0
        for number in range(first, len(self._words)):
            word, start = self._words[number], self._word_starts[number]
            before = self._folded_span(first, number - 1)[1] if number > first else start
            is_gap = _CODE_GAP.fullmatch(self._folded.text, before, start)
            if not (is_gap and form.startswith(word, at)):
                return None
            at += len(word)
            if at == len(form):
                return number
        return None

    @cached_property
    def _words_by_part(self) -> dict[str, list[str]]:
        """The words of the text that have three letters in a row, by these."""
        by_part: dict[str, list[str]] = {}
        for word in self._positions:
            if len(word) <= _MOST_WORD_CHARS and not word[0].isdecimal():
                for part in _parts(word):
                    by_part.setdefault(part, []).append(word)
        return by_part

    def _similar_words(self, word: str) -> Mapping[str, float]:
        """Return the words of the text that may be meant by one, and how similar each is."""
        if word in self._positions:
            return {word: 1.0}
        most = _most_typos(word)
        if not most:
            return {}
        if word not in self._typos:
            lists = (self._words_by_part.get(part, ()) for part in _parts(word))
            counts = Counter(other for one in lists if len(one) <= _MOST_PLACES for other in one)
            likely = (
                other
                for other, n in counts.most_common(_MOST_TYPOS)
                if n >= len(word) - 3 * most - 1 and abs(len(other) - len(word)) <= most
            )
            found = {other: _n_typos(word, other) for other in likely}
            self._typos[word] = {
                other: 1 - n / max(len(word), len(other)) for other, n in found.items() if n <= most
            }
        return self._typos[word]

    def _windows(self, words: Sequence[str], near: Sequence[Mapping[str, float]]) -> list[int]:
        """Return where the rarest words of a text suggest that it begins, best first."""
        places = {
            at: sum(len(self._positions[word]) for word in similar)
            for at, similar in enumerate(near)
            if similar
        }
        rarest = sorted(places, key=lambda at: (places[at], at))[:_MOST_ANCHORS]
        votes = sorted(
            (number - at, len(words[at]))
            for at in rarest
            if places[at] <= _MOST_PLACES or at == rarest[0]
            for word in near[at]
            for number in self._positions[word][:_MOST_PLACES]
        )
        slack = _slack(words)
        scores: list[tuple[int, int]] = []
        first = weight = 0
        for start, more in votes:
            weight += more
            while votes[first][0] < start - slack:
                weight -= votes[first][1]
                first += 1
            scores.append((weight, votes[first][0]))
        windows: list[int] = []
        for _, start in sorted(scores, key=lambda one: (-one[0], one[1])):
            if all(abs(start - other) > slack for other in windows):
                windows.append(start)
                if len(windows) == _MOST_WINDOWS:
                    break
        return windows

    def _similar_at(
        self, first: int, words: Sequence[str], near: Sequence[Mapping[str, float]]
    ) -> Quote | None:
        """Compare a text with the words from about this number on."""
        slack = _slack(words)
        begin = max(0, first - slack)
        region = self._words[begin : first + len(words) + 2 * slack]
        in_order = len(words) <= _MOST_ALIGNED
        found = _compared(
            _aligned(near, region) if in_order else _shared(words, region), words, region
        )
        if found[1] < LEAST_RATIO and 1 < len(words) <= _MOST_SWAPPED:
            found = _compared(_shared(words, region), words, region)
            if found[1] < _LEAST_SWAPPED_RATIO:
                return None
        matched, ratio = found
        if ratio < LEAST_RATIO:
            return None
        numbers = begin + matched[0], begin + matched[-1]
        quoted = region[matched[0] : matched[-1] + 1]
        if _n_negations(quoted) != _n_negations(words):
            return None
        if not _is_whole(self._folded.text, *self._folded_span(*numbers)):
            return None
        return Quote(*self._original(*numbers), "fuzzy", round(ratio, 3))

    def _with_values(self, quote: Quote, said: Sequence[TextValue]) -> Quote | None:
        """Extend a quote to the values that are around it; None: one of them is not there."""
        begin = max(0, quote.start - _AROUND_CHARS)
        index = value_index(self.text[begin : quote.end + _AROUND_CHARS]) if said else ValueIndex()
        start, end = quote.start, quote.end
        for one in said:
            spans = [(begin + found.start, begin + found.end) for found in index.find(one)]
            if not spans:
                return None
            nearest = min(spans, key=lambda span: max(start - span[0], span[1] - end, 0))
            start, end = min(start, nearest[0]), max(end, nearest[1])
        return replace(quote, start=start, end=end)


def _scan(text: str, wanted: str) -> Iterator[Span]:
    """Yield where a text occurs; long ones without overlap, so that it takes linear time."""
    step = 1 if len(wanted) <= _MOST_OVERLAPPING_CHARS else len(wanted)
    at = text.find(wanted) if wanted else -1
    while at >= 0:
        yield at, at + len(wanted)
        at = text.find(wanted, at + step)


def _is_whole(text: str, start: int, end: int) -> bool:
    """Return whether a part of a text neither begins nor ends inside a word or a number."""
    return not (
        _is_inside_word(text[start - 1 : start] if start else "", text[start:end][:2])
        or _is_inside_word(text[end : end + 1], text[start:end][-2:][::-1])
        or _IN_NUMBER.fullmatch(text, max(0, start - 2), start + 1)
        or _IN_NUMBER.fullmatch(text, end - 1, end + 2)
    )


def _is_inside_word(outer: str, inner: str) -> bool:
    """Return whether a sign and the two next to it are of one word.

    Chinese and Thai have no spaces; `EUR` is a word in `EUR12`, `A` is none in `A4`.
    """
    if not (outer.isalnum() and inner[:1].isalnum()) or _IS_UNSPACED.search(outer + inner[:1]):
        return False
    return not (outer.isdecimal() and inner.isalpha() and len(inner) == 2)


def _parts(word: str) -> set[str]:
    """Return the three letters in a row of a word, with its borders."""
    bordered = f"^{word}$"
    return {bordered[at : at + 3] for at in range(len(bordered) - 2)}


def _most_typos(word: str) -> int:
    """Return how many letters of a word may differ: 0 to 2, as in Lucene's `AUTO:5,9`.

    Of four letters one makes another word, of eight two: Bonn and born, compiled and compared.
    """
    if len(word) < 5 or len(word) > _MOST_WORD_CHARS or word[0].isdecimal():
        return 0
    return 1 if len(word) < 9 else 2


def _n_typos(one: str, other: str) -> int:
    """Return the edit distance, in which all that a scan confuses counts as one letter."""
    n = edit_distance(one, other)
    as_seen = [word.replace("rn", "m").translate(_ALIKE) for word in (one, other)]
    return min(n, 1 + edit_distance(*as_seen))


def edit_distance(one: str, other: str) -> int:
    """Return how many letters to add, remove, change or swap with the next.

    >>> edit_distance("invoice", "lnvocie")
    2
    """
    before: list[int] = []
    row = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        new = [at]
        for n, theirs in enumerate(other, 1):
            cost = min(row[n] + 1, new[n - 1] + 1, row[n - 1] + (letter != theirs))
            if at > 1 < n and letter == other[n - 2] and one[at - 2] == theirs:
                cost = min(cost, before[n - 2] + 1)
            new.append(cost)
        before, row = row, new
    return row[-1]


def _n_negations(words: Sequence[str]) -> int:
    """Count the words that turn a sentence into its opposite."""
    pairs = [*pairwise(words)]
    short = sum(one[-1] == "n" and other == "t" for one, other in pairs)
    short += sum(one == "no" and len(other) >= _LEAST_DENIED_CHARS for one, other in pairs)
    return short + sum(_NEGATION.fullmatch(word) is not None for word in words)


def _slack(words: Sequence[str]) -> int:
    """Return how many words more or less a similar place may have."""
    return max(2, len(words) // 4)


def _aligned(near: Sequence[Mapping[str, float]], region: Sequence[str]) -> list[tuple[int, float]]:
    """Return the places of a region that are like words in this order, and the letters alike."""
    rows = [[0.0] * (len(region) + 1)]
    for similar in near:
        last, row = rows[-1], [0.0]
        for at, word in enumerate(region):
            both = last[at] + similar[word] * len(word) if word in similar else 0.0
            row.append(max(both, last[at + 1], row[at]))
        rows.append(row)
    matched: list[tuple[int, float]] = []
    n, at = len(near), len(region)
    while n and at:
        if rows[n][at] == rows[n][at - 1]:
            at -= 1
        elif rows[n][at] == rows[n - 1][at]:
            n -= 1
        else:
            n, at = n - 1, at - 1
            matched.append((at, near[n][region[at]] * len(region[at])))
    return matched[::-1]


def _shared(words: Sequence[str], region: Sequence[str]) -> list[tuple[int, float]]:
    """Return the places of a region whose words are among others, in any order."""
    left = Counter(words)
    matched: list[tuple[int, float]] = []
    for at, word in enumerate(region):
        if left[word] > 0:
            left[word] -= 1
            matched.append((at, float(len(word))))
    return matched


def _compared(
    matched: list[tuple[int, float]], words: Sequence[str], region: Sequence[str]
) -> tuple[list[int], float]:
    """Return the places that words have in a region, and the ratio; 0 if too many have none."""
    lengths = [0 if word.isdecimal() else len(word) for word in region]
    n_wanted = sum(map(len, words))
    matched, ratio = _trimmed(matched, lengths, n_wanted)
    is_covered = sum(weight for _, weight in matched) >= LEAST_RATIO * n_wanted
    return [at for at, _ in matched], ratio if is_covered else 0.0


def _trimmed(
    matched: list[tuple[int, float]], lengths: Sequence[int], n_wanted: int
) -> tuple[list[tuple[int, float]], float]:
    """Return the matched places without distant ones at both ends, and the ratio.

    The ratio is twice the letters alike by the letters of both.
    """
    ends = list(accumulate(lengths, initial=0))
    weights = list(accumulate((weight for _, weight in matched), initial=0.0))

    def ratio(first: int, last: int) -> float:
        if first >= last:
            return 0.0
        n_quoted = ends[matched[last - 1][0] + 1] - ends[matched[first][0]]
        return 2 * (weights[last] - weights[first]) / (n_wanted + n_quoted)

    first, last = 0, len(matched)
    while first < last:
        best = max(ratio(first + 1, last), ratio(first, last - 1))
        if best <= ratio(first, last):
            break
        if ratio(first + 1, last) == best:
            first += 1
        else:
            last -= 1
    return matched[first:last], ratio(first, last)
