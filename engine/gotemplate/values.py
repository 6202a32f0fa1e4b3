"""Go's values in Python's: what is true, what is printed, what equals what.

Texts, numbers, truth values, lists, dictionaries and None are themselves; a `Struct` has named
fields, and asking it for another is an error, as in Go. Whole numbers stay whole, also those that
Go would have read from JSON as floats.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class Struct:
    """A Go struct; printed as JSON where it has a `plain` form."""

    type_name: str
    fields: Mapping[str, Any]
    plain: Any = None


class JsonMap(dict[str, Any]):
    """A map that prints itself as JSON."""


class JsonList(list[Any]):
    """A slice that prints itself as JSON."""


def is_true(value: Any) -> bool:
    """Tell whether a value counts as true: not zero, not empty, not nil; a struct always does."""
    return isinstance(value, Struct) or bool(value)


def type_name(value: Any) -> str:
    """Name a value's type as Go does."""
    match value:
        case Struct():
            return value.type_name
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case list():
            return "[]interface {}"
        case dict():
            return "map[string]interface {}"
    return "<nil>"


def show(value: Any) -> str:
    """Write a value as `%v` does."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case None:
            return "<nil>"
        case float():
            return show_float(value)
        case JsonMap() | JsonList():
            return to_json(value)
        case Struct():
            if value.plain is not None:
                return to_json(value)
            return "{" + " ".join(map(show, value.fields.values())) + "}"
        case list():
            return "[" + " ".join(map(show, value)) + "]"
        case dict():
            return "map[" + " ".join(f"{key}:{show(value[key])}" for key in sorted(value)) + "]"
    return str(value)


def show_float(value: float) -> str:
    """Write a float as `%g` does: as short as it may be, large and small ones with an exponent.

    >>> show_float(2.0), show_float(0.1), show_float(1e6), show_float(float("inf"))
    ('2', '0.1', '1e+06', '+Inf')
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    figures = "".join(map(str, digits))
    power = len(figures) + int(exponent) - 1
    minus = "-" if sign else ""
    if figures == "0":
        return f"{minus}0"
    if power < -4 or power >= 6:
        rest = f".{figures[1:]}" if len(figures) > 1 else ""
        return f"{minus}{figures[0]}{rest}e{'-' if power < 0 else '+'}{abs(power):02}"
    return minus + format(Decimal(repr(abs(value))).normalize(), "f")


def to_json(value: Any) -> str:
    """Write compact JSON: keys in the order in which they came, nothing escaped for HTML.

    Go's encoder sorts keys and escapes `<`, `>` and `&`; a model reads better what was meant.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return dict(value.fields) if value.plain is None else value.plain
    return str(value)
