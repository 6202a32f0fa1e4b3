"""Whether an answer keeps to its source: its numbers and dates, its quotations, its citations."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from .leaves import leaves, listed, shown, text_of
from .meanings import Stock, is_month, said_in, stock_of

_AROUND = " .'"
_TYPOGRAPHY = {
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u02bc\u2032`\u00b4\u2039\u203a"), "'"),
    **dict.fromkeys(map(ord, '"\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\u300c\u300d'), "'"),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\uff0d"), "-"),
    **dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"), None),
}
_HYPHENATED = re.compile(r"(?<=\w)[-\u2010\u00ad]\n\s*(?=\w)")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
_IN_NUMBER = re.compile(r"\d[.,']\d")
_CITED = re.compile(r"\[(\d+(?:\s?[,;\u2013-]\s?\d+)*)\]")
_MOST_CITED = 1000
# A citation or a page follows text: `[450]` by itself is a number.
_CITATION = re.compile(
    r"(?<=[^\s\[])(?:[^\S\n]?\[(?:(?:pp?|S|s)\.\s?\d{1,4}|\d{1,2})(?:\s?[,;\u2013-]\s?\d{1,4})*\])+"
)
_MARKER = re.compile(r"^([^\S\n]*)(\d{1,3})([.)])[^\S\n]+(?=(\S+))", re.MULTILINE)


def grounded(value: Any, source: Any, within: float = 0.0) -> str | None:
    """Every number, date and time of the answer stands in the source, as a whole.

    In digits or in words (English, German, French, Spanish, Italian, Dutch, Chinese numerals), in
    any writing. A sign counts; per cent, a currency or a unit counts where both texts have one.
    Numbers of a list's items and citations such as [1] are not looked for. `within` is the share by
    which a number may be off, such as 0.01 for one that was rounded.

    >>> grounded("On 2024-05-03 it sold 1200 of 40.", source="3 May 2024: 1,200 sold.")
    'This does not stand in the source: 40. Say only what it says.'
    """
    answer, text = without_markers("\n\n".join(leaves(value))), text_of(source)
    stock = stock_of(text)
    missing = _missing(answer, stock, within)
    if missing:
        # A source that has the same list gives its items the same numbers.
        plain = without_markers(text)
        if plain != text:
            for said in said_in(plain):
                stock.add(said)
            missing = _missing(answer, stock, within)
    if not missing:
        return None
    return f"This does not stand in the source: {listed(missing)}. Say only what it says."


def _missing(answer: str, stock: Stock, within: float) -> list[str]:
    """Name what an answer says and a source does not, in the answer's order."""
    missing = {
        (said.start, said.text): None
        for said in said_in(answer)
        if said.is_sure and not stock.holds(said, within)
    }
    return list(dict.fromkeys(text for _, text in sorted(missing)))


def without_markers(text: str) -> str:
    r"""Blank the numbers of a list's items, and citations.

    A list has at least two items, numbered from 1 on in one indentation, or all with 1. What a
    month's name follows is a date.

    >>> without_markers("1. Bread\n2. Milk [3]\n24. Mai")
    '   Bread\n   Milk    \n24. Mai'
    """
    runs: dict[tuple[str, str], list[re.Match[str]]] = {}
    found: list[re.Match[str]] = []

    def close(run: list[re.Match[str]]) -> None:
        found.extend(run if len(run) > 1 else ())

    for marker in _MARKER.finditer(text):
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
    for one in (*found, *_CITATION.finditer(text)):
        signs[one.start() : one.end()] = " " * (one.end() - one.start())
    return "".join(signs)


def quotes(value: Any, source: Any) -> str | None:
    """Each text of the answer stands in the source word by word, in whole words.

    Spaces, capitals, kinds of quotation marks and dashes, and soft hyphens may differ. An empty
    text is no quotation. A number of the answer is held as `grounded` holds it.

    >>> quotes(["ferry at nine", "ten boats"], source="The Ferry  at nine.")
    'This does not stand in the source word by word: "ten boats".'
    """
    text = text_of(source)
    plain = _folded(text)
    joined = _folded(_HYPHENATED.sub("", text))
    closed = _folded(_HYPHENATED.sub("-", text))
    missing = []
    for one in leaves(value, with_numbers=False):
        wanted = _folded(one).strip(_AROUND)
        if not any(_stands_in(wanted, whole) for whole in (plain, joined, closed)):
            missing.append(f'"{shown(one)}"')
    numbers = "\n\n".join(leaves(value, with_texts=False))
    missing += _missing(numbers, stock_of(text), 0.0) if numbers else []
    if not missing:
        return None
    return f"This does not stand in the source word by word: {listed(missing)}."


def _stands_in(wanted: str, text: str) -> bool:
    """Tell whether words stand in a text, not within other words or numbers."""
    at = text.find(wanted) if wanted else -1
    while at >= 0:
        end = at + len(wanted)
        if not (
            _is_within(text[at - 1 : at + 1] if at else "")
            or _is_within(text[end - 1 : end + 1])
            or _IN_NUMBER.fullmatch(text, max(0, at - 2), at + 1)
            or _IN_NUMBER.fullmatch(text, end - 1, end + 2)
        ):
            return True
        at = text.find(wanted, at + 1)
    return False


def _is_within(pair: str) -> bool:
    """Tell whether two characters belong to one word; Chinese and Thai divide no words."""
    return len(pair) == 2 and all(sign.isalnum() for sign in pair) and not _UNSPACED.search(pair)


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
    """Write a text as quotations are compared: one form of each letter, mark, dash and space."""
    plain = unicodedata.normalize("NFKC", text.translate(_TYPOGRAPHY)).casefold()
    return " ".join(unicodedata.normalize("NFC", plain).split())
