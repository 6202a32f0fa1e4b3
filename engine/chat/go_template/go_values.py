"""Go's values in Python: truth, type names, printing, and `printf`.

Texts, numbers, booleans, lists, dictionaries and None stand for themselves. A `GoStruct` has named
fields; any other is an error, as in Go. Integers stay integers, also where Go reads floats from
JSON. A verb that does not fit its value prints Go's error text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from paddock.engine.system.light_dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GoStruct:
    """A Go struct; printed as JSON where it has a `plain` value."""

    type_name: str
    fields: Mapping[str, Any]
    plain: Any = None


class GoJsonMap(dict[str, Any]):
    """A map that is printed as JSON."""


class GoJsonList(list[Any]):
    """A slice that is printed as JSON."""


def is_true(value: Any) -> bool:
    """Return whether a value is true: not zero, empty or nil; a struct always is."""
    return isinstance(value, GoStruct) or bool(value)


def type_name(value: Any) -> str:
    """Return Go's name of a value's type."""
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
    """Return a value as `%v` prints it."""
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
    """Return a float as `%g` prints it: the shortest form, large and small ones with an exponent.

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
    """Return compact JSON with keys in their order, not escaped for HTML.

    Go's encoder sorts keys and escapes `<`, `>` and `&`; models do better without.
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
    """One verb with its flags, width and precision."""

    flags: str
    width: int | None
    precision: int | None
    verb: str


def sprintf(spec: str, values: Sequence[Any], making: Callable[[int], None]) -> str:
    """Format values as Go's `Sprintf` does.

    `making` is called with the length of each part before it is made; it may raise.
    """
    left = list(values)
    parts = []
    at = 0
    for found in _VERB.finditer(spec):
        parts.append(spec[at : found.start()])
        at = found.end()
        parts.append(_formatted_part(found, left, making))
    parts.append(spec[at:])
    if left:
        extra = ", ".join(
            "<nil>" if argument is None else f"{type_name(argument)}={go_text(argument)}"
            for argument in left
        )
        parts.append(f"%!(EXTRA {extra})")
    making(sum(map(len, parts)))
    return "".join(parts)


def _formatted_part(found: re.Match[str], left: list[Any], making: Callable[[int], None]) -> str:
    if found["verb"] is None:
        return "%!(NOVERB)"
    if found["verb"] == "%":
        return "%"
    spec, faults = _read_verb(found, left)
    if not left:
        return f"{faults}%!{spec.verb}(MISSING)"
    value = left.pop(0)
    text = _formatted_value(spec, value)
    making(max(len(text or ""), spec.width or 0))
    if text is None:
        shown = "" if value is None else f"{type_name(value)}="
        return f"{faults}%!{spec.verb}({shown}{_padded(spec, go_text(value))})"
    return faults + _padded(spec, text)


def _read_verb(found: re.Match[str], left: list[Any]) -> tuple[_FormatVerb, str]:
    """Return a verb, and what Go prints for its faults; `*` takes a number from `left`."""
    spec, faults = _FormatVerb(found["flags"], None, None, found["verb"]), ""
    for name in ("width", "precision"):
        text = found[name]
        if text is None:
            continue
        number: Any = int(text[:9] or 0) if text != "*" else left.pop(0) if left else None
        if not isinstance(number, int) or not -MAX_PRINT_WIDTH <= number <= MAX_PRINT_WIDTH:
            faults += "%!(BADWIDTH)" if name == "width" else "%!(BADPREC)"
        elif name == "width":
            spec.width, spec.flags = abs(number), spec.flags + ("-" if number < 0 else "")
        else:
            spec.precision = max(number, 0)
    return spec, faults


def _padded(spec: _FormatVerb, text: str) -> str:
    if spec.width is None:
        return text
    if "-" in spec.flags:
        return text.ljust(spec.width)
    if "0" in spec.flags:
        return text.zfill(spec.width)
    return text.rjust(spec.width)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _formatted_value(spec: _FormatVerb, value: Any) -> str | None:
    """Return a value as a verb prints it; None: the verb does not fit."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    plus = "+" if is_number and "+" in spec.flags and value >= 0 else ""
    match spec.verb:
        case "v" if "#" not in spec.flags:
            return plus + go_text(value)
        case "v" if isinstance(value, str):
            return quoted(value)
        case "v":
            is_nested = isinstance(value, list | dict | GoStruct)
            return go_value_json(value) if is_nested else go_text(value)
        case "T":
            return type_name(value)
        case "t":
            return go_text(value) if isinstance(value, bool) else None
        case "s" | "q" | "x" | "X":
            return (_formatted_integer if _is_whole(value) else _formatted_text)(spec, value)
        case "d" | "b" | "o" | "c" | "U":
            return _formatted_integer(spec, value) if _is_whole(value) else None
        case "e" | "E" | "f" | "F" | "g" | "G" if isinstance(value, float):
            if spec.verb in "gG" and spec.precision is None:
                return plus + go_float_text(value)
            precision = 6 if spec.precision is None else spec.precision
            return f"{plus}{value:.{min(precision, 1000)}{spec.verb}}"
    return None


def _formatted_text(spec: _FormatVerb, value: Any) -> str | None:
    if isinstance(value, bool | float | None):
        return None
    if spec.verb == "q" and isinstance(value, list):
        return "[" + " ".join(quoted(go_text(item)) for item in value) + "]"
    text = go_text(value)[: spec.precision]
    if spec.verb == "q":
        return quoted(text)
    if spec.verb == "s":
        return text
    pairs = text.encode().hex()
    return pairs if spec.verb == "x" else pairs.upper()


def quoted(text: str) -> str:
    """Return a text as Go's `%q` prints it."""
    return re.sub(r"\\u00([01][0-9a-f])", r"\\x\1", json.dumps(text, ensure_ascii=False))


def _formatted_integer(spec: _FormatVerb, value: int) -> str | None:
    plus = "+" if "+" in spec.flags and value >= 0 else ""
    match spec.verb:
        case "d":
            return f"{plus}{value}"
        case "b" | "o" | "x" | "X":
            return f"{plus}{value:{spec.verb}}"
        case "U":
            return f"U+{value:04X}"
        case "c" | "q":
            is_character = 0 <= value < 0xD800 or 0xE000 <= value <= 0x10FFFF
            character = chr(value) if is_character else "\ufffd"
            if spec.verb == "c":
                return character
            own = {"'": "\\'", '"': '"'}
            return f"'{own.get(character, quoted(character)[1:-1])}'"
    return None


def sprint(values: Sequence[Any]) -> str:
    """Join values, with a space between two neighbours of which none is a text."""
    parts = []
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            parts.append(" ")
        parts.append(go_text(value))
    return "".join(parts)
