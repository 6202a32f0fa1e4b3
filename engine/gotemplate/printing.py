"""Go's `printf`: verbs, flags, widths. What does not fit is told in the text, as Go does it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .values import Struct, show, show_float, to_json, type_name

MAX_WIDTH = 1_000_000  # Go's own bound

_VERB = re.compile(
    r"%(?P<flags>[-+# 0]*)(?P<width>\*|\d+)?(?:\.(?P<precision>\*|\d*))?(?P<verb>.)?", re.DOTALL
)


@dataclass(slots=True)
class _Form:
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
        parts.append(_part(found, left, making))
    parts.append(form[at:])
    if left:
        extra = ", ".join(map(_typed, left))
        parts.append(f"%!(EXTRA {extra})")
    making(sum(map(len, parts)))
    return "".join(parts)


def _part(found: re.Match[str], left: list[Any], making: Callable[[int], None]) -> str:
    if found["verb"] is None:
        return "%!(NOVERB)"
    if found["verb"] == "%":
        return "%"
    form, faults = _Form(found["flags"], None, None, found["verb"]), ""
    for name in ("width", "precision"):
        text = found[name]
        if text is None:
            continue
        number: Any = int(text[:9] or 0) if text != "*" else left.pop(0) if left else None
        if not isinstance(number, int) or not -MAX_WIDTH <= number <= MAX_WIDTH:
            faults += "%!(BADWIDTH)" if name == "width" else "%!(BADPREC)"
        elif name == "width":
            form.width, form.flags = abs(number), form.flags + ("-" if number < 0 else "")
        else:
            form.precision = max(number, 0)
    if not left:
        return f"{faults}%!{form.verb}(MISSING)"
    value = left.pop(0)
    text = _written(form, value)
    making(max(len(text or ""), form.width or 0))
    if text is None:
        shown = "" if value is None else f"{type_name(value)}="
        return f"{faults}%!{form.verb}({shown}{_padded(form, show(value))})"
    return faults + _padded(form, text)


def _typed(value: Any) -> str:
    return "<nil>" if value is None else f"{type_name(value)}={show(value)}"


def _padded(form: _Form, text: str) -> str:
    if form.width is None:
        return text
    if "-" in form.flags:
        return text.ljust(form.width)
    if "0" in form.flags:
        return text.zfill(form.width)
    return text.rjust(form.width)


def _written(form: _Form, value: Any) -> str | None:
    """Give what a verb makes of a value; None: it cannot."""
    match form.verb:
        case "v":
            return _go_syntax(value) if "#" in form.flags else _number_or(show(value), form, value)
        case "T":
            return type_name(value)
        case "t":
            return show(value) if isinstance(value, bool) else None
        case "s" | "q" | "x" | "X":
            if isinstance(value, int) and not isinstance(value, bool):
                return _whole(form, value)
            return _text(form, value)
        case "d" | "b" | "o" | "c" | "U":
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            return _whole(form, value) if is_whole else None
        case "e" | "E" | "f" | "F" | "g" | "G":
            return _float(form, value) if isinstance(value, float) else None
    return None


def _number_or(text: str, form: _Form, value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"+{text}" if is_number and "+" in form.flags and value >= 0 else text


def _text(form: _Form, value: Any) -> str | None:
    if isinstance(value, bool | float | None):
        return None
    if form.verb == "q" and isinstance(value, list):
        return "[" + " ".join(quoted(show(one)) for one in value) + "]"
    text = show(value)[: form.precision]
    if form.verb == "q":
        return quoted(text)
    if form.verb == "s":
        return text
    pairs = text.encode().hex()
    return pairs if form.verb == "x" else pairs.upper()


def quoted(text: str) -> str:
    """Write a text as Go's `%q` does, everything but control characters as it is."""
    return re.sub(r"\\u00([01][0-9a-f])", r"\\x\1", json.dumps(text, ensure_ascii=False))


def _whole(form: _Form, value: int) -> str | None:
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


def _float(form: _Form, value: float) -> str:
    plus = "+" if "+" in form.flags and value >= 0 else ""
    if form.verb in "gG" and form.precision is None:
        return plus + show_float(value)
    precision = 6 if form.precision is None else form.precision
    return f"{plus}{value:.{min(precision, 1000)}{form.verb}}"


def _go_syntax(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list | dict | Struct):
        return to_json(value)
    return show(value)


def sprint(values: Sequence[Any]) -> str:
    """Write values one after another, with a space between two of which none is a text."""
    parts = []
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            parts.append(" ")
        parts.append(show(value))
    return "".join(parts)
