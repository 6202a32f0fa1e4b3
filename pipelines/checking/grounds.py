"""Whether an answer keeps to its source: its numbers and dates, its quotations, its citations."""

from __future__ import annotations

import re
from typing import Any

from .leaves import leaves, listed, shown, text_of
from .meanings import said_in, stock_of

# What numbers an answer and says nothing: list markers, citations, pages.
_MARKERS = re.compile(
    r"^[^\S\n]*\d{1,3}[.)]\s|\[(?:p\.\s?)?\d+(?:\s?[,;\u2013-]\s?\d+)*\]", re.MULTILINE
)
_CITED = re.compile(r"\[(\d+(?:\s?[,;\u2013-]\s?\d+)*)\]")
_MOST_CITED = 1000
_AROUND = " .\"'\u201c\u201d\u2018\u2019"


def grounded(value: Any, source: Any, within: float = 0.0) -> str | None:
    """Every number, date and time of the answer stands in the source, however it is written.

    `within` is the share by which a number may be off, such as 0.01 for one that was rounded.

    >>> grounded("On 2024-05-03 it sold 1200 of 40.", source="3 May 2024: 1,200 sold.")
    'This does not stand in the source: 40. Say only what it says.'
    """
    stock = stock_of(text_of(source))
    missing: dict[str, None] = {}
    for text in leaves(value):
        for said in said_in(_MARKERS.sub(" ", text)):
            if not stock.holds(said, within):
                missing[said.text] = None
    if not missing:
        return None
    return f"This does not stand in the source: {listed([*missing])}. Say only what it says."


def quotes(value: Any, source: Any) -> str | None:
    """Each text of the answer stands in the source word by word; spaces and capitals may differ.

    >>> quotes(["ferry at nine", "ten boats"], source="The Ferry  at nine.")
    'This does not stand in the source word by word: "ten boats".'
    """
    text = _folded(text_of(source))
    missing = [one for one in leaves(value) if _folded(one).strip(_AROUND) not in text]
    if not missing:
        return None
    words = listed([f'"{shown(one)}"' for one in missing])
    return f"This does not stand in the source word by word: {words}."


def cites(value: Any, sources: Any, least: int = 1) -> str | None:
    """Its numbers in brackets, such as [2] or [1, 3], are those of sources that there are.

    `sources` is the list of them, or how many there are; at least so many must be cited. The
    answer may be the numbers themselves, as a schema asks for them.

    >>> cites("It floats [1][4].", sources=["a", "b"])
    'It cites [4], but there are only the sources [1] to [2].'
    """
    n = sources if isinstance(sources, int) else len(sources or ())
    cited = set(_numbers(value))
    wrong = [f"[{number}]" for number in sorted(cited) if not 1 <= number <= n]
    if wrong:
        there = {0: "there are no sources", 1: "there is only the source [1]"}.get(
            n, f"there are only the sources [1] to [{n}]"
        )
        return f"It cites {listed(wrong)}, but {there}."
    if len(cited) < min(least, n):
        some = "a source" if least == 1 else f"at least {min(least, n)} sources"
        return f"It must cite {some} by number, such as [1]."
    return None


def _numbers(value: Any) -> list[int]:
    values = value if isinstance(value, list | tuple) else [value]
    if values and all(isinstance(one, int) and not isinstance(one, bool) for one in values):
        return list(values)
    return _cited(text_of(value))


def _cited(text: str) -> list[int]:
    numbers: list[int] = []
    for found in _CITED.finditer(text):
        for part in re.split(r"\s?[,;]\s?", found[1]):
            ends = [int(end) for end in re.split(r"\s?[\u2013-]\s?", part)]
            numbers += range(ends[0], min(ends[-1], ends[0] + _MOST_CITED) + 1)
    return numbers


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
