"""Codes: tokens that count as a whole only, such as numbers of documents, IBANs and addresses."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property, lru_cache

import regex

from paddock.engine.system.records import Struct
from paddock.engine.system.text import find_all

from .folding import Span, small
from .text_index import UNSPACED

_GROUPED = re.compile(
    r"(?<![\w.,+-])(?:\+\d+(?:[ ./()-]{1,3}\d+)+"  # +44 20 7946 0958
    r"|\(0\d+\)[ /-]?\d+(?:[ /-]\d+)*|0\d{2,}(?:[ /()-]{1,3}\d{2,})+|0\d(?:[ .]\d\d){4}"
    r"|[A-Za-z]{2}\d{2} [A-Za-z0-9]{4}(?: \d{4}){1,7}(?: [A-Za-z0-9]{1,4})?"  # an IBAN
    r"|(?!(?:19|20)\d\d (?:19|20))\d{4}(?:[ -]\d{4}){3})(?![\w])(?![.,]\d)"
)
"""Codes whose groups are written apart; four years in a row are none."""
ADDRESS = re.compile(r"\S+@\S+|\w+://\S+|www\.\S+|[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}(?:[/:]\S*)?")
_IN_ADDRESS = re.compile(r"://|\S@\S|(?i:\bwww\.)|\w\.[^\W\d_]{2,}[:/]")
_SPACED = re.compile(
    r"[+(]{0,2}\d[\d ()./-]*\d|[A-Za-z]{2}\d{2}(?: [A-Za-z0-9]{1,4})+|\d{4}(?: \d{4})+"
)
_LETTER = regex.compile(rf"(?V1)[[\p{{L}}\p{{M}}_]--[{UNSPACED}]]")
_TOKEN = regex.compile(rf"(?V1)[^\s{UNSPACED}\x00|,;()\[\]{{}}<>'\u2026]+")
_JOINS = frozenset("-./:@_+&%=?#~\\")
_FORMULA = re.compile(r"(?:[A-Z][a-z]?|[()]|\d+(?:\.\d+)?)+")
"""Such as CO2, whose digits readers write as lowered ones: CO_2."""
_FORMULA_DIGITS = re.compile(r"(?<=[A-Za-z)])\d+(\.\d+)?")
_SPACE = re.compile(r"[ \u00a0]")
_MOST_CODE_CHARS = 64  # an IBAN has up to 34, and spaces
_LEAST_SPACED_SIGNS = 8  # letters and digits: "B 2" is not B2
_MOST_WORD_CHARS = 300


class Code(Struct, frozen=True):
    """A text that is found as a whole token only."""

    text: str


def is_code(text: str) -> bool:
    """Return whether a text is wholly a code, if it is no date and no number.

    >>> [is_code(text) for text in ("HC-0457", "0457", "ann@quay.example", "Pier 7", "quay")]
    [True, True, True, False, False]
    """
    if not text or len(text) > _MOST_CODE_CHARS or "\n" in text:
        return False
    if ADDRESS.fullmatch(text) or _SPACED.fullmatch(text):
        return True
    return _TOKEN.fullmatch(text) is not None and _is_mixed(text)


def is_long(text: str) -> bool:
    """Return whether digits are so many that white space between their groups does not count."""
    return text.isdecimal() and len(text) >= _LEAST_SPACED_SIGNS


def _is_mixed(token: str) -> bool:
    has_digit = any(map(str.isdecimal, token))
    return has_digit and (not token.isdecimal() or (token[0] == "0" and len(token) > 1))


def codes_in(text: str) -> Iterator[Span]:
    """Yield the tokens of a text, as `folding.plain` has it, that may be codes."""
    yield from _grouped(text)
    for found in _TOKEN.finditer(text):
        bare = found[0].rstrip('.:!?"-*~').lstrip(':!?"-*~')
        bare = bare.lstrip(".") if bare.startswith("..") else bare
        if bare and (_is_mixed(bare) or ADDRESS.fullmatch(bare)):
            start = found.start() + found[0].find(bare)
            yield start, start + len(bare)


@lru_cache(maxsize=8)
def _grouped(text: str) -> list[Span]:
    return [found.span() for found in _GROUPED.finditer(text)]


def is_in_groups(text: str, start: int, end: int) -> bool:
    """Return whether a place is only a part of a code whose groups are written apart."""
    spans = _grouped(text)
    n = bisect_right(spans, (start, len(text))) - 1
    return n >= 0 and end <= spans[n][1] and spans[n] != (start, end)


@lru_cache(maxsize=8)
def _addresses(text: str) -> list[int]:
    return [found.start() for found in _IN_ADDRESS.finditer(text)]


def is_in_address(text: str, start: int, end: int) -> bool:
    """Return whether a place is in an address of the net."""
    most, least = start - _MOST_WORD_CHARS, end + _MOST_WORD_CHARS
    n = bisect_right(_addresses(text), most)
    if not any(at < least for at in _addresses(text)[n : n + 1]):
        return False
    first = last = start
    while first > max(0, most) and not text[first - 1].isspace():
        first -= 1
    while last < min(len(text), least) and not text[last].isspace():
        last += 1
    return _IN_ADDRESS.search(text, first, last) is not None


@lru_cache(maxsize=4096)
def is_letter(sign: str) -> bool:
    """Return whether a sign is a letter that is part of the word it touches."""
    return _LETTER.match(sign) is not None


def is_within_word(text: str, at: int) -> bool:
    return is_letter(text[at : at + 1]) and is_letter(text[at - 1 : at])


def _is_joined(sign: str) -> bool:
    return sign.isdecimal() or is_letter(sign)


class CodeIndex:
    def __init__(self, text: str) -> None:
        self._text = small(text)

    def find(self, code: str) -> list[Span]:
        """Return where a code is as a whole token, in its groups or without them."""
        sought = small(code)
        spans = self._spans(sought)
        if not spans and _FORMULA.fullmatch(code):
            lowered = _FORMULA_DIGITS.sub(lambda n: f"_({n[0]})" if n[1] else f"_{n[0]}", code)
            spans = self._spans(small(lowered))
        if not spans and sum(map(str.isalnum, sought)) >= _LEAST_SPACED_SIGNS:
            bare, (text, gaps) = _SPACE.sub("", sought), self._unspaced
            for at in find_all(bare, text):
                last = at + len(bare)
                spaced = at + bisect_right(gaps, at), last + bisect_right(gaps, last - 1)
                if self._is_whole(*spaced):
                    spans.append(spaced)
        return spans

    def _spans(self, sought: str) -> list[Span]:
        spans = ((at, at + len(sought)) for at in find_all(sought, self._text))
        return [span for span in spans if self._is_whole(*span)]

    @cached_property
    def _unspaced(self) -> tuple[str, list[int]]:
        """The text without spaces within lines and cells, and before which sign these were."""
        places = [found.start() for found in _SPACE.finditer(self._text)]
        return _SPACE.sub("", self._text), [at - number for number, at in enumerate(places)]

    def _is_whole(self, start: int, end: int) -> bool:
        text = self._text
        before, behind = text[max(0, start - 2) : start], text[end : end + 2]
        if text[start] in _JOINS - {"#", "+"} and before and _is_joined(before[-1]):
            return False
        if text[end - 1] in _JOINS and behind and _is_joined(behind[0]):
            return False
        if text[start].isalnum() and before:
            sign, earlier = before[-1], before[:-1]
            is_digit = text[start].isdecimal()
            if _is_joined(sign) or sign in "+@_\\/\x00":
                return False
            if sign in ",'" and is_digit and earlier.isdecimal():
                return False
            if sign in ":=" and (earlier.isdecimal() or earlier == ""):
                return earlier == ""
            if sign == "-" and (is_digit or earlier.isalnum()):
                return False
            if sign in _JOINS - {"#", ":", "=", "-"} and not (sign == earlier == "."):
                return False
        if text[end - 1].isalnum() and behind:
            sign, later = behind[0], behind[1:]
            if _is_joined(sign) or sign in "_@\x00":
                return False
            if sign in _JOINS and (later.isalnum() or later in ("_", "/") if later else False):
                return False
            if sign in ",'" and text[end - 1].isdecimal() and later.isdecimal():
                return False
        is_address = "." in text[start:end] or "@" in text[start:end] or "/" in text[start:end]
        return not is_in_groups(text, start, end) and (
            is_address or not is_in_address(text, start, end)
        )
