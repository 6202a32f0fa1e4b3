"""Go's values in Python: truth, type names, printing, and `printf`.

Texts, numbers, booleans, lists, dictionaries and None are themselves. A `GoStruct` has named
fields; asking for another one is an error, as in Go. Whole numbers stay whole, also those that Go
would have read from JSON as floats. A verb that does not fit its value prints Go's error text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class GoStruct:
    """A Go struct; printed as JSON where it has a `plain` form."""

    type_name: str
    fields: Mapping[str, Any]
    plain: Any = None


class GoJsonMap(dict[str, Any]):
    """A map that prints itself as JSON."""


class GoJsonList(list[Any]):
    """A slice that prints itself as JSON."""


def is_true(value: Any) -> bool:
    """Return whether a value counts as true: not zero, not empty, not nil; a struct always does."""
    return isinstance(value, GoStruct) or bool(value)


def type_name(value: Any) -> str:
    """Name a value's type as Go does."""
    match value:
        case GoStruct():
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


def go_text(value: Any) -> str:
    """Write a value as `%v` does."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case None:
            return "<nil>"
        case float():
            return go_float_text(value)
        case GoJsonMap() | GoJsonList():
            return go_value_json(value)
        case GoStruct():
            if value.plain is not None:
                return go_value_json(value)
            return "{" + " ".join(map(go_text, value.fields.values())) + "}"
        case list():
            return "[" + " ".join(map(go_text, value)) + "]"
        case dict():
            return "map[" + " ".join(f"{key}:{go_text(value[key])}" for key in sorted(value)) + "]"
    return str(value)


def go_float_text(value: float) -> str:
    """Write a float as `%g` does: as short as it may be, large and small ones with an exponent.

    >>> go_float_text(2.0), go_float_text(0.1), go_float_text(1e6), go_float_text(float("inf"))
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


def go_value_json(value: Any) -> str:
    """Write compact JSON: keys in the order in which they came, nothing escaped for HTML.

    Go's encoder sorts keys and escapes `<`, `>` and `&`; a model reads better what was meant.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_json_value)


def _json_value(value: Any) -> Any:
    if isinstance(value, GoStruct):
        return dict(value.fields) if value.plain is None else value.plain
    return str(value)


MAX_PRINT_WIDTH = 1_000_000  # Go's own bound

_VERB = re.compile(
    r"%(?P<flags>[-+# 0]*)(?P<width>\*|\d+)?(?:\.(?P<precision>\*|\d*))?(?P<verb>.)?", re.DOTALL
)


@dataclass(slots=True)
class _FormatVerb:
    """One verb with what stands before it."""

    flags: str
    width: int | None
    precision: int | None
    verb: str


def sprintf(form: str, values: Sequence[Any], making: Callable[[int], None]) -> str:
    """Write values by a format.

    Args:
        form: the format.
        values: what its verbs write, in their order.
        making: is told the length of each part before it is made, and may refuse it.
    """
    left = list(values)
    parts = []
    at = 0
    for found in _VERB.finditer(form):
        parts.append(form[at : found.start()])
        at = found.end()
        parts.append(_formatted_part(found, left, making))
    parts.append(form[at:])
    if left:
        extra = ", ".join(map(_with_type_name, left))
        parts.append(f"%!(EXTRA {extra})")
    making(sum(map(len, parts)))
    return "".join(parts)


def _formatted_part(found: re.Match[str], left: list[Any], making: Callable[[int], None]) -> str:
    if found["verb"] is None:
        return "%!(NOVERB)"
    if found["verb"] == "%":
        return "%"
    form, faults = _FormatVerb(found["flags"], None, None, found["verb"]), ""
    for name in ("width", "precision"):
        text = found[name]
        if text is None:
            continue
        number: Any = int(text[:9] or 0) if text != "*" else left.pop(0) if left else None
        if not isinstance(number, int) or not -MAX_PRINT_WIDTH <= number <= MAX_PRINT_WIDTH:
            faults += "%!(BADWIDTH)" if name == "width" else "%!(BADPREC)"
        elif name == "width":
            form.width, form.flags = abs(number), form.flags + ("-" if number < 0 else "")
        else:
            form.precision = max(number, 0)
    if not left:
        return f"{faults}%!{form.verb}(MISSING)"
    value = left.pop(0)
    text = _formatted_value(form, value)
    making(max(len(text or ""), form.width or 0))
    if text is None:
        shown = "" if value is None else f"{type_name(value)}="
        return f"{faults}%!{form.verb}({shown}{_padded(form, go_text(value))})"
    return faults + _padded(form, text)


def _with_type_name(value: Any) -> str:
    return "<nil>" if value is None else f"{type_name(value)}={go_text(value)}"


def _padded(form: _FormatVerb, text: str) -> str:
    if form.width is None:
        return text
    if "-" in form.flags:
        return text.ljust(form.width)
    if "0" in form.flags:
        return text.zfill(form.width)
    return text.rjust(form.width)


def _formatted_value(form: _FormatVerb, value: Any) -> str | None:
    """Return what a verb makes of a value; None: it cannot."""
    match form.verb:
        case "v":
            return (
                _go_syntax(value) if "#" in form.flags else _number_or(go_text(value), form, value)
            )
        case "T":
            return type_name(value)
        case "t":
            return go_text(value) if isinstance(value, bool) else None
        case "s" | "q" | "x" | "X":
            if isinstance(value, int) and not isinstance(value, bool):
                return _formatted_integer(form, value)
            return _formatted_text(form, value)
        case "d" | "b" | "o" | "c" | "U":
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            return _formatted_integer(form, value) if is_whole else None
        case "e" | "E" | "f" | "F" | "g" | "G":
            return _formatted_float(form, value) if isinstance(value, float) else None
    return None


def _number_or(text: str, form: _FormatVerb, value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"+{text}" if is_number and "+" in form.flags and value >= 0 else text


def _formatted_text(form: _FormatVerb, value: Any) -> str | None:
    if isinstance(value, bool | float | None):
        return None
    if form.verb == "q" and isinstance(value, list):
        return "[" + " ".join(quoted(go_text(one)) for one in value) + "]"
    text = go_text(value)[: form.precision]
    if form.verb == "q":
        return quoted(text)
    if form.verb == "s":
        return text
    pairs = text.encode().hex()
    return pairs if form.verb == "x" else pairs.upper()


def quoted(text: str) -> str:
    """Write a text as Go's `%q` does, everything but control characters as it is."""
    return re.sub(r"\\u00([01][0-9a-f])", r"\\x\1", json.dumps(text, ensure_ascii=False))


def _formatted_integer(form: _FormatVerb, value: int) -> str | None:
    plus = "+" if "+" in form.flags and value >= 0 else ""
    match form.verb:
        case "d":
            return f"{plus}{value}"
        case "b" | "o" | "x" | "X":
            return f"{plus}{value:{form.verb}}"
        case "U":
            return f"U+{value:04X}"
        case "c" | "q":
            is_character = 0 <= value < 0xD800 or 0xE000 <= value <= 0x10FFFF
            character = chr(value) if is_character else "\ufffd"
            if form.verb == "c":
                return character
            own = {"'": "\\'", '"': '"'}
            return f"'{own.get(character, quoted(character)[1:-1])}'"
    return None


def _formatted_float(form: _FormatVerb, value: float) -> str:
    plus = "+" if "+" in form.flags and value >= 0 else ""
    if form.verb in "gG" and form.precision is None:
        return plus + go_float_text(value)
    precision = 6 if form.precision is None else form.precision
    return f"{plus}{value:.{min(precision, 1000)}{form.verb}}"


def _go_syntax(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list | dict | GoStruct):
        return go_value_json(value)
    return go_text(value)


def sprint(values: Sequence[Any]) -> str:
    """Write values one after another, with a space between two of which none is a text."""
    parts = []
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            parts.append(" ")
        parts.append(go_text(value))
    return "".join(parts)
