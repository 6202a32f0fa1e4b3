"""What a number may be multiplied by: a scale behind it, or behind the last one of its range.

A scale is a word (million), a sign of Chinese numerals, or a letter that may also be a unit: `5 m`.
"""

# ruff: noqa: RUF001 - words of many scripts
from __future__ import annotations

import re
from collections.abc import Sequence

from .codes import LETTER, is_after_noun, is_numbered
from .digits_and_cells import number_values
from .spelled_numbers import SCALE, han_value, numbers_at_words, scale_at
from .units import CURRENCIES, NO_UNIT, Unit
from .value_words import FROM_BEFORE

_MAYBE_SCALE = re.compile(r"[^\S\n]?[kmbt](?![^\W_])", re.IGNORECASE)
SHORT_SCALES = {"k": 1e3, "K": 1e3, "M": 1e6, "m": 1e6, "B": 1e9, "b": 1e9, "T": 1e12}
SHORT_SCALE = re.compile(r"[^\S\n]?([kKmMbBT])(?![^\W_])")
_HAN_AFTER = re.compile(r"[^\S\n]?([十百千万萬亿億십백천만억]+)")
DIGIT_NEXT = r"(?= [$€£¥]?\d)"
RANGE_TO = (
    r"(?:[^\S\n]?(?:[-\u2010-\u2015~〜～至到]|から|에서|부터)[^\S\n]?"
    r"|[^\S\n](?:to|till?|until|through|bis(?: zu[mr]?)?|(?:à|aux?|al?|ao|do)"
    + DIGIT_NEXT
    + r"|até|hasta|fino a|tot(?: en met)?|t/m|до|по|إلى|الى|حتى|ile{})[^\S\n])[$€£¥]?"
)
RANGE_AND = "|(?P<and>and|und|et|y|e|en|i|и|و|ve|och|og)"
BETWEEN = re.compile(
    r"(?<!\w)(?:between|zwischen|entre|tra|fra|tussen|(?:po)?między|между|بين|mellan|mellem|mellom)\s"
    r"(?:the\s|les\s|las?\s|los\s|den\s)?[$€£¥]?(?P<first>[^.;:\n]{0,24})\Z",
    re.IGNORECASE,
)
_RANGE_SCALE = re.compile(
    rf"{RANGE_TO.format(RANGE_AND)}(?:(?P<digits>[0-9]+(?:[.,][0-9]+)*)"
    rf"|(?P<word>(?:{LETTER}+[ -]){{0,2}}?{LETTER}+))"
    rf"(?={SCALE.pattern}|[万萬亿億만억]|[^\S\n]?[kmbt](?![^\W_]))",
    re.IGNORECASE,
)
"""After the first number of a range, when only the last one is written with a scale."""


def end_of_scale(text: str, at: int) -> int:
    if text[at : at + 1] in NO_SCALE:
        return at
    han = _HAN_AFTER.match(text, at)
    return han.end() if han is not None else scale_at(text, at)[0]


def is_scaled(text: str, at: int) -> bool:
    """Return whether a scale may be after a number, such as million or k, or after a range."""
    return end_of_scale(text, at) > at or any(
        pattern.match(text, at) for pattern in (_MAYBE_SCALE, _RANGE_SCALE)
    )


def range_scales(
    text: str, start: int, end: int, values: Sequence[float], *, is_money: bool
) -> tuple[float, ...]:
    """Return by what a number without a scale may be multiplied: `2 to 3 million`.

    Not of a year or of what only names, nor where the range falls: bus 2 to 3 million people.
    """
    found = _RANGE_SCALE.match(text, end)
    if (
        found is None
        or not _is_one_range(text, start, values, found)
        or _PLAIN_YEAR.fullmatch(text, start, end)
        or is_numbered(text, start)
    ):
        return (1.0,)
    short = SHORT_SCALE.match(text, found.end())
    if short is None:
        after, scales = scale_after(text, found.end())
        return (1.0,) if _HYPHEN.match(text, after) else (1.0, *scales)
    is_word = short[0] != short[1] and text[short.end() : short.end() + 1] == "."
    is_scale = not is_word and is_sure_scale(short, (NO_UNIT,) if is_money else ())
    return (1.0, SHORT_SCALES[short[1]]) if is_scale else (1.0,)


def _is_one_range(text: str, start: int, values: Sequence[float], found: re.Match[str]) -> bool:
    """Return whether a number is the lower end of a range whose last number was found."""
    if found["and"] and not _is_between(text, start):
        return False
    if found["digits"]:
        last = [*number_values(found["digits"])]
    else:
        last = [value for _, value in numbers_at_words(found["word"].casefold())]
        if len(last) > 1 and last[-1] >= 100 > 10 * min(values):
            return False
    is_from = FROM_BEFORE.search(text, max(0, start - 16), start) is not None
    return bool(last) and (is_from or min(values) < max(last))


def _is_between(text: str, at: int) -> bool:
    found = BETWEEN.search(text, max(0, at - 40), at)
    if found is None or is_after_noun(text, found.start()):
        return False
    return found["first"].strip() in ("", *CURRENCIES)


_PLAIN_YEAR = re.compile("[12][0-9]{3}")
NO_SCALE = frozenset(",;:|()")
"""Signs after a number behind which there is no scale or unit of it."""
_HYPHEN = re.compile(r"[-\u2010\u2011]\w")
"""After the scale of what only describes: million-euro losses."""


def scale_after(text: str, at: int) -> tuple[int, tuple[float, ...]]:
    after, scales = scale_at(text, at)
    han = _HAN_AFTER.match(text, at) if after == at else None
    return (after, scales) if han is None else (han.end(), (han_value("一" + han[1]),))


def is_sure_scale(short: re.Match[str], prefix: tuple[Unit, ...]) -> bool:
    return bool(prefix) or short[1] in "kKMBT"
