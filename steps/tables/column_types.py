"""Types of columns, declared or known from a JSON Schema, and values of each as JSON.

In rows a date or time is ISO text, in UTC where it has a zone, and a decimal a number where 15
digits hold it exactly, else text, so that no digit is lost. Null, or an empty cell, is of every
type.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from functools import cache
from itertools import repeat
from pathlib import PurePath
from types import NoneType
from typing import Any
from uuid import UUID

from paddock.engine.system.text import cell_text
from paddock.pipelines.typed_rows import ColumnType as ColumnType

MOST_DIGITS = 38
"""Of a decimal, as Arrow, Parquet and DuckDB have it."""
FLOAT_DIGITS = 15
"""A double holds as many in any number."""
MOST_SCALE = 18
MOST_INT_DIGITS = 4300
"""Of an integer: Python makes no text of a longer one, nor JSON."""
_NUMBERS = (int, float, Decimal)
_SHORT_FLOATS = ("float16", "float32")  # of NumPy
_MOST_INT = 10**MOST_INT_DIGITS
_EXACT = Context(prec=MOST_INT_DIGITS)
UNSURE_MARK = ".?"
"""Where no decimal mark is named: a point, without groups."""
_GROUPS = "'\u2019 \u00a0\u202f"
_NO_ZEROS = r"[-+]?(?:0|[1-9]\d*)"  # what begins with a zero is a code
_GROUPED = rf"[-+]?(?:0|[1-9]\d*|[1-9]\d{{0,2}}([%s{_GROUPS}])\d{{3}}(?:\1\d{{3}})*)"
_WHOLE = {".": _GROUPED % ",", ",": _GROUPED % ".", UNSURE_MARK: _NO_ZEROS}
_FLOAT = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?")
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_DOTTED_DATE = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})")


@cache
def _number_form(mark: str, *, is_whole: bool) -> re.Pattern[str]:
    part = "" if is_whole else rf"(?:{re.escape(mark[0])}\d+)?"
    return re.compile(f"{_WHOLE[mark]}{part}")


def plain_decimal(value: Decimal) -> int | float | str:
    """Return a decimal as JSON holds it exactly: a number, of more than 15 digits a text.

    >>> plain_decimal(Decimal("19.90")), plain_decimal(Decimal("123456789012345.67"))
    (19.9, '123456789012345.67')

    Raises:
        ValueError: it has too many digits.
    """
    if value.adjusted() >= MOST_INT_DIGITS:
        raise ValueError("too many digits")
    if value == value.to_integral_value():
        return int(value)
    n_digits = len(value.normalize().as_tuple().digits)
    return float(value) if n_digits <= FLOAT_DIGITS else f"{value:f}"


def decimal_text(value: float | str, scale: int) -> str:
    """Return a decimal of plain data with so many places, or as many more as it has.

    >>> decimal_text(19.9, 2), decimal_text(0.1, 18), decimal_text("1", 0), decimal_text(1e-05, 2)
    ('19.90', '0.100000000000000000', '1', '0.00001')
    """
    plain = str(value)
    if "e" in plain or "E" in plain:
        plain = f"{Decimal(plain):f}"
    whole, _, places = plain.partition(".")
    places = places.rstrip("0").ljust(scale, "0")
    return f"{whole}.{places}" if places else whole


@cache
def digits_of(kind: ColumnType) -> tuple[int, int | None]:
    """Return how many digits a decimal may have, and how many of them are places."""
    precision, _, scale = kind.removeprefix("decimal").strip("()").partition(",")
    return (int(precision), int(scale)) if scale else (MOST_DIGITS, None)


def _fits(number: Decimal, kind: ColumnType) -> bool:
    precision, scale = digits_of(kind)
    if scale is None:
        return True
    _, digits, exponent = _EXACT.normalize(number).as_tuple()
    return -int(exponent) <= scale and len(digits) + int(exponent) <= precision - scale


_DECIMAL = re.compile(r"(?:DECIMAL(?:TEXT)?|NUMERIC)\((\d+),\s*(\d+)\)")
_DECLARED = (
    ("BOOL", "bool"), ("DATETIME", "datetime"), ("TIMESTAMP", "datetime"), ("DATE", "date"),
    ("TIME", "time"), ("DECIMAL", "decimal"), ("INT", "int"), ("CHAR", "str"), ("TEXT", "str"),
    ("CLOB", "str"), ("REAL", "float"), ("FLOA", "float"), ("DOUB", "float"),
)  # fmt: skip
"""Parts of declared types, of which the first one counts."""


def declared_type(text: str) -> ColumnType:
    """Return the type of a column as SQLite declares it; empty: its values tell."""
    named = text.upper()
    found = _DECIMAL.match(named)
    if found and MOST_DIGITS >= int(found[1]) >= max(int(found[2]), 1):
        return f"decimal({found[1]},{found[2]})"
    return next((kind for part, kind in _DECLARED if part in named), "")


def plain_value(value: Any) -> Any:
    """Return a value as JSON holds it.

    >>> plain_value(date(2026, 3, 1)), plain_value(float("nan")), plain_value([Decimal("1.50")])
    ('2026-03-01', None, [1.5])

    Raises:
        ValueError: an integer has too many digits, or a text half a character.
        TypeError: its type is none of these; with the name.
    """
    match value:
        case float():
            return float(value) if math.isfinite(value) else None
        case Decimal():
            return plain_decimal(value) if value.is_finite() else None
        case datetime() if getattr(value, "nanosecond", 0) > 0:  # of pandas
            return plain_value(value.floor("us"))  # type: ignore[attr-defined]
        case datetime() if value == value and value.tzinfo is not None:
            return value.astimezone(UTC).isoformat()  # so that texts compare as the times do
        case date() | time():
            return value.isoformat() if value == value else None  # NaT of pandas is no time
        case timedelta():
            return value.total_seconds()
        case bytes():
            return value.decode("utf-8", "replace")
        case dict():
            return {plain_value(str(name)): plain_value(inner) for name, inner in value.items()}
        case int() if abs(value) >= _MOST_INT:
            raise ValueError("too many digits")
        case None | bool():
            return value
        case int():
            return int(value)
        case str():
            value.encode()  # half a character is no text
            return str.__str__(value)
        case UUID() | PurePath():
            return str(value)
    if type(value).__name__ in ("NAType", "MaskedConstant"):  # of pandas and NumPy
        return None
    if (elements := _elements(value)) is not None:
        return [plain_value(element) for element in elements]
    form = getattr(getattr(value, "dtype", None), "str", "")[1:]  # of a single value of NumPy
    match form[:1]:
        case "b" | "i" | "u":
            return plain_value(value.tolist())
        case "f" if type(value).__name__ in _SHORT_FLOATS:  # 0.1, and not what a double has of it
            return plain_value(float(str(value)))
        case "M" | "m" if form not in ("m8[M]", "m8[Y]"):  # which have no length
            made = (value if form == "M8[D]" else value.astype(f"{form[0]}8[us]")).tolist()
            if not isinstance(made, int):  # one that Python has not
                return plain_value(made)
    raise TypeError(type(value).__name__)


def _elements(value: Any) -> Iterable[Any] | None:
    """Return the elements of a list, mapping or array; NumPy itself lists times as integers."""
    if isinstance(value, dict | list | tuple):
        return value.values() if isinstance(value, dict) else value
    if not hasattr(value, "tolist") or getattr(value, "dtype", None) is None or value.shape == ():
        return None
    elements: Iterable[Any] = value.to_numpy() if hasattr(value, "to_numpy") else value
    return elements


def is_lost(value: Any) -> bool:
    """Return whether a part of a value is infinite or NaN, no text in UTF-8, or too fine a time."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "ignore").encode() != value
    if (elements := _elements(value)) is not None:
        return any(map(is_lost, elements))
    match type(value).__name__:
        case "Timestamp":  # of pandas
            return bool(value.nanosecond > 0)
        case "datetime64" | "timedelta64":
            return bool(value.astype(f"{value.dtype.kind}8[us]") < value)
    is_float = isinstance(value, float | Decimal) or type(value).__name__ in _SHORT_FLOATS
    return is_float and not math.isfinite(value)


def iso_date(text: str) -> date:
    """Return a date that is written as `2026-03-01` or `1.3.2026`.

    Raises:
        ValueError: it is none.
    """
    if found := _DOTTED_DATE.fullmatch(text):
        return date(int(found[3]), int(found[2]), int(found[1]))
    if not _ISO_DATE.fullmatch(text):
        raise ValueError(text)
    return date.fromisoformat(text)


def _number(text: str, mark: str) -> Decimal:
    """Return a number in its decimal mark; digits are grouped only where the mark is sure."""
    if _number_form(mark, is_whole=False).fullmatch(text):
        other_mark = "." if mark == "," else ","
        plain = re.sub(f"[{_GROUPS}{other_mark}]", "", text)
    elif not _FLOAT.fullmatch(plain := text.replace(mark[0], ".")):
        raise ValueError(text)
    return Decimal(plain.replace(mark[0], "."))


def parsed_cell(text: str, kind: ColumnType, mark: str = UNSURE_MARK) -> Any:
    """Return the value of a cell of a text file as plain data; null where it is empty.

    >>> parsed_cell("1.234,50", "decimal", ","), parsed_cell("1.3.2026", "date")
    (1234.5, '2026-03-01')

    Raises:
        ValueError: it is not of the type.
    """
    if kind == "str":
        return text
    text = text.strip()
    if not text:
        return None
    match kind:
        case "bool" if text.lower() in ("true", "false"):
            return text.lower() == "true"
        case "int" if _number_form(mark, is_whole=True).fullmatch(text) or re.fullmatch(
            r"[-+]?\d+", text
        ):
            return plain_decimal(_number(text, mark))
        case "float" if math.isfinite(value := float(_number(text, mark))):
            return value
        case "date":
            return iso_date(text).isoformat()
        case "datetime" if _ISO_DATE.match(text) and len(text) > len("2026-03-01T"):
            return plain_value(datetime.fromisoformat(text))
        case "time":
            return typed_value(text, kind).isoformat()
    if not kind.startswith("decimal"):
        raise ValueError(text)
    return plain_decimal(_number(text, mark))


def typed_value(value: Any, kind: ColumnType) -> Any:
    """Return a value of plain data as Python has it: dates, times and exact decimals.

    Raises:
        ValueError: it is not of the type.
    """
    if value is None:
        return None
    if kind == "str":
        return cell_text(value)
    is_number = isinstance(value, _NUMBERS) and not isinstance(value, bool)
    match kind:
        case "bool" if isinstance(value, bool):
            return value
        case "int" if is_number and value == int(value):
            return int(value)
        case "float" if is_number:
            return float(value)
        case "date" if isinstance(value, str):
            return iso_date(value.removesuffix("T00:00:00"))  # pandas has no type of dates
        case "datetime" if isinstance(value, str):
            return datetime.fromisoformat(value)
        case "time" if isinstance(value, str) and not re.search("[-+Zz]", value):  # of a zone
            return time.fromisoformat(value)
    if kind.startswith("decimal") and (is_number or isinstance(value, str)):
        number = Decimal(str(value)) if is_number else _number(value, UNSURE_MARK)
        if number.is_finite() and _fits(number, kind):
            return number
    raise ValueError(value)


_KEPT: Mapping[ColumnType, set[type]] = {
    "str": {str}, "int": {int}, "float": {float}, "bool": {bool},
}  # fmt: skip
_ISO: Mapping[ColumnType, tuple[type[date], int]] = {"date": (date, 10), "datetime": (datetime, 19)}


def are_iso(texts: list[str], kind: ColumnType) -> bool:
    """Return whether texts are dates, or times without a zone, as programs write them."""
    of, n_chars = _ISO.get(kind, (date, 0))
    with suppress(ValueError):
        is_long = set(map(len, texts)) <= {n_chars}
        return is_long and list(map(of.isoformat, map(of.fromisoformat, texts))) == texts
    return False


def is_of_type(values: list[Any], kind: ColumnType) -> bool:
    """Return whether plain values all are as their type has them; False: they need a look at each.

    Much cheaper than that look, of which most columns need none.
    """
    types = set(map(type, values))
    present = [value for value in values if value is not None] if NoneType in types else values
    types.discard(NoneType)
    if kind.startswith("decimal") and types <= {int, float}:
        n_digits, scale = digits_of(kind)
        most = 10 ** (n_digits - (scale or 0))
        n_places = MOST_SCALE if scale is None else scale
        is_short = list(map(round, present, repeat(n_places))) == present
        return is_short and max(map(abs, present), default=0) < most
    return types <= _KEPT.get(kind, set()) or (types == {str} and are_iso(present, kind))


def type_of_value(value: Any) -> ColumnType:
    """Return the type of a value; empty for lists and mappings."""
    types: tuple[tuple[type, ColumnType], ...] = (
        (bool, "bool"), (int, "int"), (float, "float"), (Decimal, "decimal"), (str, "str"),
        (datetime, "datetime"), (date, "date"), (time, "time"),
    )  # fmt: skip
    return next((name for kind, name in types if isinstance(value, kind)), "")


_OF_SCHEMA = {"string": "str", "integer": "int", "boolean": "bool", "number": "float"}
_OF_FORMAT = {"date": "date", "date-time": "datetime"}


def type_of_schema(schema: Any) -> ColumnType:
    """Return the type of the values that a JSON Schema allows, null besides; empty: unknown.

    >>> type_of_schema({"type": ["number", "null"], "multipleOf": 0.01})
    'decimal(18,2)'
    >>> type_of_schema({"type": "string", "format": "date"}), type_of_schema({"enum": ["a"]})
    ('date', 'str')
    """
    if not isinstance(schema, Mapping):
        return ""
    found = {type_of_schema(part) for part in schema.get("anyOf", ()) if part != {"type": "null"}}
    if "type" not in schema:
        found |= {type_of_value(value) for value in schema.get("enum", ()) if value is not None}
    named = schema.get("type", ())
    for kind in [named] if isinstance(named, str) else named:
        if kind == "number" and (step := schema.get("multipleOf")):
            places = -int(Decimal(str(step)).normalize().as_tuple().exponent)
            found.add(f"decimal(18,{max(0, places)})")
        elif kind == "string":
            found.add(_OF_FORMAT.get(str(schema.get("format")), "str"))
        elif kind != "null":
            found.add(_OF_SCHEMA.get(kind, ""))
    return found.pop() if len(found) == 1 else ""
