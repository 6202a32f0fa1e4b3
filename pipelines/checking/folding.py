"""Texts as they are compared, and the way back to the offsets of the original.

`folded` is for words: Unicode NFKC, case folding, one kind of quotation marks and of dashes, single
spaces, no soft hyphens, no vowel points, and a word that a line's end breaks as one. `plain` is for
numbers, dates and codes: the same, but letters keep their case, a broken code its hyphen, and a
white space what it separates: words (a space), groups of digits (U+00A0), cells (a tab), lines,
paragraphs (a form feed).
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeAlias

from paddock.engine.system.records import Struct

Span: TypeAlias = tuple[int, int]
Hyphens: TypeAlias = Literal["joined", "kept", "marked"]
"""What becomes of a hyphen at a line's end: U+0001 marks it."""

_VOWEL_POINTS = (
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u0652\u0670"
)
"""Of Hebrew and Arabic, which most texts leave out, and the stroke that lengthens a word."""
_UNSEEN = "\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff" + _VOWEL_POINTS
_JOINING = r"\u0300-\u036f\u3099\u309a\uff9e\uff9f\u1160-\u11ff"
"""Accents and parts of syllables that belong to the sign before."""
_DASH = "\u2013"
_SIGNS = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u2032`\u00b4\u2039\u203a", "'"),
    **dict.fromkeys('"\u201c\u201d\u201e\u201f\u2033\u300c\u300d', "'"),
    **dict.fromkeys("\u2012\u2013\u2014\u2015\u2212\ufe58\uff0d", _DASH),
    **dict.fromkeys("-\u2010\u2011\u05be", "-"),
    **dict.fromkeys("\r\v\x1c\x1d\x1e\x1f\x85\u2028\u2029\n", "\n"),
    **dict.fromkeys("\u00a0\u2007\u2009\u202f", "\u00a0"),
    **dict.fromkeys("\t\f ", " "),
}
# Behind 12.50 it is a minus
_HYPHEN = r"(?P<hyphen>-(?<=\w-)(?<![.,]\d\d-)[^\S\n]*\n\s*(?=\w))"
_GAP = rf"(?P<gap>[\s{_UNSEEN}]{{2,}}|[{_UNSEEN}\t])"
_FRENCH = r"(?P<french>[^\S\n]+(?=[;:!?]|\u00bb(?!\w))|(?<=\u00ab)(?<![^\s(\[]\u00ab)[^\S\n]+)"
_FRENCH_GAPS = (*(f"{gap}{mark}" for gap in " \u00a0" for mark in ";:!?\u00bb"), "\u00ab")
_LONGER = rf"(?P<longer>[^\s{_JOINING}][{_JOINING}]+|\ue000)"
_DIAMETER = re.compile(r"(?<![^\W_])[\u00d8\u00f8](?=\d)")  # the letter, for the sign
_IS_JOINING = re.compile(f"[{_JOINING}]")
_AS_SPACES = str.maketrans("\n\f\t\u00a0\u00ab\u00bb" + _DASH, "    ''-")
_AS_CELLS = str.maketrans("\u00ab\u00bb" + _DASH, "''-")


class FoldedText(Struct, frozen=True):
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


@lru_cache(maxsize=8)
def folded(text: str, hyphens: Hyphens = "joined") -> FoldedText:
    r"""Fold a text for the comparison of words.

    >>> folded("The \ufb01rst\nexam-\nple").text
    'the first example'
    """
    return _fold(text, hyphens, keeps_case=False)


@lru_cache(maxsize=8)
def plain(text: str) -> FoldedText:
    r"""Fold a text for the comparison of numbers, dates and codes.

    >>> plain("\u0661\u202f320\u00ad  HC-\n0457\n\nEnd").text
    '1\xa0320\tHC-0457\x0cEnd'
    """
    return _fold(text, "kept", keeps_case=True)


def composed(text: str) -> str:
    """Return a text in one Unicode form (NFC), without what is not seen."""
    if text.isascii():
        return text
    seen = re.sub(f"[{_UNSEEN}]", "", unicodedata.normalize("NFD", text))
    return unicodedata.normalize("NFC", seen)


def small(text: str) -> str:
    found = text.casefold()
    if len(found) == len(text) and "\u0130" not in text:
        return found
    signs = ((sign, sign.casefold()) for sign in text.replace("\u0130", "i"))
    return "".join(folds if len(folds) == 1 else sign for sign, folds in signs)


@lru_cache(maxsize=4)
def _changes(is_french: bool, has_longer: bool) -> re.Pattern[str]:
    parts = (_FRENCH * is_french, _HYPHEN, _GAP, _LONGER * has_longer)
    return re.compile("|".join(filter(None, parts)))


def _fold(text: str, hyphens: Hyphens, *, keeps_case: bool) -> FoldedText:
    signs = {sign: _folded_sign(sign, keeps_case=keeps_case) for sign in set(text)}
    # Signs of a length of their own get a mark, so that one pattern finds all that changes offsets.
    marked = text.translate({ord(a): b if len(b) == 1 else "\ue000" for a, b in signs.items()})
    if not signs.keys().isdisjoint("\u00d8\u00f8"):
        marked = _DIAMETER.sub("\u2300", marked)
    made: list[str] = []
    starts, originals, is_changed = [0], [0], [False]
    n = at = 0
    is_french = not keeps_case and any(gap in marked for gap in _FRENCH_GAPS)
    has_longer = "\ue000" in marked or any(map(_IS_JOINING.match, signs))
    for found in _changes(is_french, has_longer).finditer(marked):
        match found.lastgroup:
            case "hyphen":
                is_word = marked[found.start() - 1].isalpha() and marked[found.end()].isalpha()
                as_word = "" if hyphens == "joined" else "-" if hyphens == "kept" else "\x01"
                new = as_word if is_word else "-"
            case "french":  # inside guillemets, and before high marks
                new = ""
            case "gap":
                new = _gap(found, keeps_cells=keeps_case)
            case _:
                whole = "".join(signs.get(sign, sign) for sign in text[found.start() : found.end()])
                new = unicodedata.normalize("NFKC", whole)
        start, end = found.span()
        n += start - at
        made += (marked[at:start], new)
        at = end
        if len(new) != end - start:
            starts += n, n + len(new)
            originals += start, end
            is_changed += True, False
        n += len(new)
    made.append(marked[at:])
    return FoldedText(
        "".join(made).translate(_AS_CELLS if keeps_case else _AS_SPACES),
        starts, originals, is_changed,
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _folded_sign(sign: str, *, keeps_case: bool) -> str:
    """Return what a single sign counts as; unseen ones and line ends as their surroundings say."""
    if keeps_case and sign in "\t\u2116":  # a tab parts cells; letters would touch the number
        return sign
    if sign in _SIGNS:
        return _SIGNS[sign]
    if sign.isspace():
        return " "
    match unicodedata.category(sign):
        case "Nd":
            return str(unicodedata.decimal(sign))
        case "No" | "Cf" | "Co":  # 5² is not 52
            return "\ufffd" if sign == "\ue000" else sign
    normal = unicodedata.normalize("NFKC", sign)
    if not keeps_case:
        normal = unicodedata.normalize("NFKC", normal.casefold())
    return sign if " " in normal or not normal else normal


def _gap(found: re.Match[str], *, keeps_cells: bool) -> str:
    blank = "".join(sign for sign in found[0] if sign.isspace())
    start, end = found.span()
    before, after = found.string[max(0, start - 1) : start], found.string[end : end + 1]
    if not blank:  # what is unseen joins letters, but not digits
        return "\x00" if before.isdecimal() and after.isdecimal() else ""
    if not keeps_cells:
        return " "
    lines = blank.count("\n")
    return "\f" if lines > 1 else "\n" if lines else blank if len(blank) == 1 else "\t"
