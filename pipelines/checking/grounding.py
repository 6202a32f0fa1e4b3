"""Whether the numbers, dates and codes of an answer are in its source, and the nearest places.

Each is looked for as evidence is. A place counts only where the source states it: not in a sentence
or cell that ends in a question mark. What a sentence means is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, TypeAlias

import regex

from paddock.engine.system.records import Struct
from paddock.pipelines.text_marks import value_as_shown

from .cldr import unit_named
from .numbers import SoughtNumber
from .source_index import DayAndTime, SourceIndex, TextValue, sought_number, values_in
from .text_index import UNSPACED, Quote

Lack: TypeAlias = Literal["missing", "question", "year", "range", "order", "month"]
"""Why a value is not supported: `Quote.reason`, or no place, or only in a question."""

_CITATION = re.compile(r"(?<=[^\s\[])(?:[^\S\n]?\[\d{1,3}(?:\s?[,;\u2013-]\s?\d{1,3})*\])+")
_LIST_NUMBER = re.compile(r"^([^\S\n]*)(\d{1,3})([.)])[^\S\n]+(?=\S)", re.MULTILINE)
_SENTENCE_END = regex.compile(  # in an address `?` is followed by a letter
    rf"(?V1)\?(?![\w--[{UNSPACED}]])|[.!](?=\W|\Z)|[|\t\n\u3002\uff01\uff1f\u061f]"
)
_LAST_WORD = re.compile(r"(?<!\w)[^\W\d_]{1,4}\Z")
_MOST_SENTENCE_CHARS = 600
_NEAR_CHARS = 24


class UnsupportedValue(Struct, frozen=True):
    text: str
    lack: Lack
    nearest: str = ""
    """What the source has instead, such as `3 May` for 3 May 2024."""


def unsupported(
    answer: str, source: str, within: float = 0.0, numbers: Iterable[float] = ()
) -> list[UnsupportedValue]:
    """Return the values of an answer that a source does not have, in the answer's order.

    `within` is the share by which a number may differ; `numbers` are those of the answer's data.

    >>> unsupported("It is 40 EUR on 3 May 2024.", "40 EUR/kg on 3 May")
    [UnsupportedValue(text='40 EUR', lack='missing', nearest='40 EUR/kg on 3 May'), \
UnsupportedValue(text='3 May 2024', lack='year', nearest='3 May')]
    """
    index = SourceIndex(without_list_numbers(source))
    found: dict[str, UnsupportedValue] = {}
    data = (TextValue(0, 0, str(number), sought_number(number)) for number in numbers)
    for value in (*values_in(value_as_shown(without_list_numbers(answer))), *data):
        tried = list[list[UnsupportedValue]]()
        for reading in value.readings or ((value,),):
            if all(tried):
                lacks = (_lacking(index, part, within) for part in reading)
                tried.append([lack for lack in lacks if lack is not None])
        for lack in min(tried, key=len):
            found.setdefault(lack.text, lack)
    return [*found.values()]


def _lacking(index: SourceIndex, value: TextValue, within: float) -> UnsupportedValue | None:
    question: Quote | None = None
    partial: Quote | None = None
    for quote in index.find_value(value, within):
        if is_in_question(index.text, quote.end):
            question = question or quote
        elif quote.match == "partial":
            partial = partial or quote
        else:
            return None
    if partial is not None:
        lack: Lack = partial.reason  # type: ignore[assignment]  # of a partial quote, one of these
        return UnsupportedValue(value.text, lack, index.text[partial.start : partial.end])
    if question is not None:
        return UnsupportedValue(value.text, "question", index.text[question.start : question.end])
    near: Iterable[Quote] = ()  # the same digits, or the same day of another year
    if isinstance(value.sought, SoughtNumber):
        near = index.same_digits(value.sought)
    elif isinstance(value.sought, DayAndTime) and value.sought.day is not None:
        near = index.same_days(value.sought.day)
    if (place := next(iter(near), None)) is None:
        return UnsupportedValue(value.text, "missing")
    start, end = place.start, min(len(index.text), place.end + _NEAR_CHARS)
    return UnsupportedValue(value.text, "missing", index.text[start:end].split("\n")[0].strip())


def is_in_question(text: str, end: int) -> bool:
    """Return whether the sentence or cell in which something ends has a question mark behind it.

    A point ends no sentence before a small letter, nor behind what may be an abbreviation: a word
    of up to four letters that is no unit. A line's end does, but before a small letter.

    >>> [is_in_question(text, 2) for text in ("40?", "40 EUR. Is it?", "40 EUR incl. VAT?")]
    [True, False, True]
    """
    for found in _SENTENCE_END.finditer(text, end, end + _MOST_SENTENCE_CHARS):
        mark, at = found[0], found.end()
        if mark in "?\uff1f\u061f":
            return True
        if mark == "\n" and text[at : at + 1].isalnum() and not text[at].isupper():
            continue
        if mark == ".":
            word = _LAST_WORD.search(text, max(0, at - 6), at - 1)
            is_short = word is not None and not unit_named(word[0])
            is_unit = word is not None and unit_named(f"{word[0]}.") is not None
            if is_short or is_unit or text[at : at + 2].strip()[:1].islower():
                continue
        return False
    return False


def without_list_numbers(text: str) -> str:
    r"""Blank list numbers and citations.

    A list has at least two items with the same indentation, numbered from 1 on or all with 1.

    >>> without_list_numbers("1. Bread\n2. Milk [3]\n24. Mai")
    '   Bread\n   Milk    \n24. Mai'
    """
    runs: dict[tuple[str, str], list[re.Match[str]]] = {}
    found: list[re.Match[str]] = []
    for marker in _LIST_NUMBER.finditer(text):
        run = runs.setdefault((marker[1], marker[3]), [])
        number = int(marker[2])
        follows = run and (number == int(run[-1][2]) + 1 or number == int(run[-1][2]) == 1)
        if not follows:
            found += run if len(run) > 1 else ()
            run.clear()
        if follows or number == 1:
            run.append(marker)
    for run in runs.values():
        found += run if len(run) > 1 else ()
    signs = list(text)
    spans = [match.span(2) for match in found]
    spans = [(start, end + 1) for start, end in spans]
    for start, end in (*spans, *(match.span() for match in _CITATION.finditer(text))):
        signs[start:end] = " " * (end - start)
    return "".join(signs)
