"""Types that are found in the texts of a file's columns, and the values of their cells.

A column is of numbers only if each cell can be written back as it was from its value and the
column's one form: its decimal mark, its sign of groups, and its decimal places, which are as many
in each cell or end in no zero; or as programs write floats. Else it is text, for a reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from enum import Enum
from itertools import compress, count, islice
from operator import ne, not_
from typing import Any, NamedTuple, TypeAlias

from paddock.engine.system.records import Struct

from .column_types import (
    FLOAT_DIGITS,
    MOST_DIGITS,
    MOST_SCALE,
    ColumnType,
    are_iso,
    parsed_cell,
    plain_decimal,
)

_SIGNS = frozenset(".,'\u2019 \u00a0\u202f")
"""Of groups, two of which are decimal marks as well."""
_LIKE_NUMBER = re.compile(rf"[-+]?[.,]?\d[\d{''.join(_SIGNS)}]*(?:[eE][-+]?\d+)?", re.ASCII)
_FINE_TIME = re.compile(r"(?<=:\d\d)[.,]\d{7}")
"""Of which the last digits would be lost."""


class WhyText(Enum):
    OTHER_TYPE = ""
    NOT_KEPT = ", which a number would not keep as it is"
    TWO_NUMBERS = ", which may be two numbers; `decimal` says which"


class FoundColumn(Struct, frozen=True):
    kind: ColumnType
    values: Sequence[Any]
    """Of the cells, null where one is blank; the cells themselves in a column of texts."""
    mark: str = ""
    """The decimal mark, where the numbers tell it."""
    odd: int | None = None
    """The index of the cell because of which it is text, though the first one looks otherwise."""
    why: WhyText = WhyText.OTHER_TYPE


class _Odd(NamedTuple):
    """Why texts are of no type: because of which, by its index."""

    at: int
    why: WhyText = WhyText.NOT_KEPT


_Values: TypeAlias = tuple[ColumnType, Iterable[Any], str]
"""The type of texts, their values, and their decimal mark."""


def found_columns(
    columns: Iterable[Sequence[str]], decimal: str, *, is_point_usual: bool
) -> list[FoundColumn]:
    """Return the type of each column, and its values.

    `1.234` alone may be two numbers: its sign is the decimal mark if it is that of the file's other
    columns, or if these tell none and it is a point where that is usual.

    `decimal`: the decimal mark; empty: each column tells its own.
    """
    columns = list(columns)
    found = [_found_column(cells, decimal) for cells in columns]
    marks = {column.mark for column in found if column.mark} or set("." if is_point_usual else "")
    for n, column in enumerate(found):
        is_open = column.odd is not None and column.why is WhyText.TWO_NUMBERS
        if is_open and marks == {*".,"}.intersection(column.values[column.odd or 0]):
            found[n] = _found_column(columns[n], *marks)
    return found


def _found_column(cells: Sequence[str], decimal: str) -> FoundColumn:
    stripped = list(map(str.strip, cells))
    texts = list(filter(None, stripped))
    if not texts:
        return FoundColumn("str", cells)
    is_number = _LIKE_NUMBER.fullmatch(texts[0])
    found = _numbers(texts, decimal) if is_number else _Odd(0, WhyText.OTHER_TYPE)
    if isinstance(found, _Odd) and found.why is not WhyText.TWO_NUMBERS:
        found = _others(texts, found)
    if isinstance(found, _Odd):
        is_told = found.at or found.why is not WhyText.OTHER_TYPE
        places = (place for place, text in enumerate(stripped) if text)
        odd = next(islice(places, found.at, None)) if is_told else None
        return FoundColumn("str", cells, odd=odd, why=found.why)
    kind, made, mark = found
    values = iter(made)
    return FoundColumn(kind, [next(values) if text else None for text in stripped], mark)


def _numbers(texts: list[str], decimal: str) -> _Values | _Odd:
    used = set("".join(texts))
    signs, tried = used & _SIGNS, list[_Values | _Odd]()
    is_plain = used <= _SIGNS.union("-+eE0123456789")
    if is_plain:
        forms = {
            (mark if mark in signs else "", group)
            for mark in decimal or ".,"
            for group in ("", *signs - {mark})
            if signs <= {mark, group}
        }
        tried = [_of_form(texts, *form) for form in forms]
    fitting = [found for found in tried if not isinstance(found, _Odd)]
    if len(fitting) > 1:
        with_sign = (n for n, text in enumerate(texts) if signs.intersection(text))
        return _Odd(next(with_sign), WhyText.TWO_NUMBERS)
    if not fitting and used & {*".e"} and used <= {*"-+.e0123456789"}:
        tried.append(floats := _floats(texts))
        fitting = [] if isinstance(floats, _Odd) else [floats]
    if fitting:
        return fitting[0]
    others = None if is_plain else _first(map(not_, map(_LIKE_NUMBER.fullmatch, texts)))
    if others is not None:
        return _Odd(others, WhyText.OTHER_TYPE)
    return _Odd(max((odd.at for odd in tried if isinstance(odd, _Odd)), default=0))


def _first(facts: Iterable[Any]) -> int | None:
    """Return the index of the first one that holds."""
    return next(compress(count(), facts), None)


def _of_form(texts: Sequence[str], mark: str, group: str) -> _Values | _Odd:
    """Return the numbers of texts that are all in one form, or a text that is not.

    A form without a decimal mark is of whole numbers.
    """
    whole = rf"[1-9]\d{{0,2}}(?:{re.escape(group)}\d{{3}})*" if group else r"[1-9]\d*"
    places = rf"(?:{re.escape(mark)}\d+)?" if mark else ""
    form = re.compile(rf"(?:-(?=.*[1-9]))?(?:0|{whole}){places}", re.ASCII)
    if (at := _first(map(not_, map(form.fullmatch, texts)))) is not None:
        return _Odd(at)
    plain = [text.replace(group, "") for text in texts] if group else texts
    plain = [text.replace(",", ".") for text in plain] if mark == "," else plain
    n_digits = max(map(len, plain))
    if n_digits > FLOAT_DIGITS:  # else it does not matter that it counts signs
        each = [len(text.strip("-").replace(".", "")) for text in plain]
        if (n_digits := max(each)) > MOST_DIGITS:
            return _Odd(each.index(n_digits))
    if not mark:
        return "int", map(int, plain), ""
    is_short = n_digits <= FLOAT_DIGITS
    n_places = [len(text.partition(".")[2]) for text in plain]
    kind = f"decimal({18 if n_digits <= 18 else MOST_DIGITS},{n_places[0]})"
    if len(set(n_places)) > 1:
        ends = (n and text[-1] == "0" for n, text in zip(n_places, texts, strict=True))
        if (at := _first(ends)) is not None or not is_short:
            return _Odd(at or 0)
        kind = "decimal"
    if max(n_places) > MOST_SCALE:
        return _Odd(n_places.index(max(n_places)))
    if is_short:
        floats = map(float, plain)
        return kind, (int(value) if value.is_integer() else value for value in floats), mark
    return kind, map(plain_decimal, map(Decimal, plain)), mark


def _floats(texts: Sequence[str]) -> _Values | _Odd:
    """Return floats that are written as programs write them, or the first text that is not."""
    values = list[float]()
    try:
        values.extend(map(float, texts))
    except ValueError:
        return _Odd(len(values))
    n_places = len(texts[0].partition("e")[0].partition(".")[2])
    written = list(map(repr, values))
    short = (text.removesuffix(".0") for text in written)
    scientific = (f"{value:.{n_places}e}" for value in values)
    odd = [_first(map(ne, form, texts)) for form in (written, short, scientific)]
    return _Odd(max(filter(None, odd), default=0)) if None not in odd else ("float", values, ".")


def _others(texts: list[str], odd: _Odd) -> _Values | _Odd:
    for kind in ("bool", "date", "datetime"):
        if are_iso(texts, kind):
            return kind, texts, ""
        values = dict[str, Any]()
        try:
            for text in dict.fromkeys(texts):
                values[text] = parsed_cell(_FINE_TIME.sub("?", text), kind)
        except ValueError:
            if values and not odd.at:
                odd = _Odd(texts.index(text), WhyText.OTHER_TYPE)
            continue
        zoned = [str(value).endswith("+00:00") for value in values.values()]
        if len(set(zoned)) == 1:
            return kind, map(values.__getitem__, texts), ""
        at = texts.index(list(values)[zoned.index(not zoned[0])])
        odd = _Odd(at, WhyText.OTHER_TYPE)
    return odd
