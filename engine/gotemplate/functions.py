"""The functions that every template has: comparison, length, index, slice, print. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .meter import Meter
from .printing import sprint, sprintf
from .values import is_true, show, type_name

Function = Callable[..., Any]
"""Written in Python, with places for its arguments alone; raises `FunctionFault`."""


class FunctionFault(Exception):
    """A function that cannot do with its arguments; whoever calls it knows the line."""


def _not(value: Any) -> bool:
    return not is_true(value)


def _kind(value: Any) -> str:
    """Give the kind by which values compare; empty: they do not."""
    match value:
        case bool():
            return "bool"
        case int() | float():
            return "number"  # Go parts them, but its JSON has floats only
        case str():
            return "string"
    return ""


def _equals(one: Any, *others: Any) -> bool:
    """Whether the first equals any of the others."""
    if not others:
        raise FunctionFault("missing argument for comparison")
    return any(_is_same(one, other) for other in others)


def _is_same(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    kinds = _kind(one), _kind(other)
    if kinds[0] != kinds[1]:
        raise FunctionFault("incompatible types for comparison")
    if not kinds[0]:
        raise FunctionFault(f"non-comparable types {type_name(one)} and {type_name(other)}")
    return bool(one == other)


def _differs(one: Any, other: Any) -> bool:
    return not _is_same(one, other)


def _is_less(one: Any, other: Any) -> bool:
    kinds = _kind(one), _kind(other)
    if "bool" in kinds or "" in kinds:
        raise FunctionFault("invalid type for comparison")
    if kinds[0] != kinds[1]:
        raise FunctionFault("incompatible types for comparison")
    return bool(one < other)


def _is_at_most(one: Any, other: Any) -> bool:
    return _is_less(one, other) or _is_same(one, other)


def _length(value: Any) -> int:
    """Count a list's or map's values, or a text's bytes."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, list | dict):
        return len(value)
    if value is None:
        raise FunctionFault("len of nil pointer")
    raise FunctionFault(f"len of type {type_name(value)}")


def _index(value: Any, *places: Any) -> Any:
    """Give `value[1][2][3]` for `index value 1 2 3`; a map gives nil for what it does not have."""
    if value is None:
        raise FunctionFault("index of untyped nil")
    for place in places:
        match value:
            case dict():
                if not isinstance(place, str):
                    raise FunctionFault(f"value has type {type_name(place)}; should be string")
                value = value.get(place)
            case list():
                value = value[_place(place, len(value) - 1)]
            case str():
                raw = value.encode("utf-8", "surrogatepass")
                value = raw[_place(place, len(raw) - 1)]
            case None:
                raise FunctionFault("index of nil pointer")
            case _:
                raise FunctionFault(f"can't index item of type {type_name(value)}")
    return value


def _place(place: Any, last: int) -> int:
    if isinstance(place, bool) or not isinstance(place, int):
        raise FunctionFault(f"cannot index slice/array with type {type_name(place)}")
    if not 0 <= place <= last:
        raise FunctionFault(f"index out of range: {place}")
    return place


def _slice(value: Any, *places: Any) -> Any:
    """Give `value[1:2]` for `slice value 1 2`; of a text, its bytes."""
    if value is None:
        raise FunctionFault("slice of untyped nil")
    if not isinstance(value, str | list):
        raise FunctionFault(f"can't slice item of type {type_name(value)}")
    if len(places) > (2 if isinstance(value, str) else 3):
        raise FunctionFault(f"too many slice indexes: {len(places)}")
    whole = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    edges = [_place(place, len(whole)) for place in places]
    start = edges[0] if edges else 0
    end = edges[1] if len(edges) > 1 else len(whole)
    if start > end or (edges[2:] and end > edges[2]):
        raise FunctionFault(f"invalid slice index: {start} > {end}")
    if isinstance(whole, bytes):
        return whole[start:end].decode("utf-8", "replace")
    return type(whole)(whole[start:end])


def builtins(meter: Meter) -> dict[str, Function]:
    """Give the functions; `and` and `or` are the interpreter's own, for they stop early."""

    def printed(*values: Any) -> str:
        meter.making(sum(len(one) if isinstance(one, str) else 16 for one in values))
        return sprint(values)

    def printed_line(*values: Any) -> str:
        return " ".join(map(show, values)) + "\n"

    def formatted(form: Any, *values: Any) -> str:
        if not isinstance(form, str):
            raise FunctionFault(f"wrong type for value; expected string; got {type_name(form)}")
        return sprintf(form, values, meter.making)

    return {
        "not": _not,
        "eq": _equals,
        "ne": _differs,
        "lt": _is_less,
        "le": _is_at_most,
        "gt": lambda one, other: not _is_at_most(one, other),
        "ge": lambda one, other: not _is_less(one, other),
        "len": _length,
        "index": _index,
        "slice": _slice,
        "print": printed,
        "println": printed_line,
        "printf": formatted,
    }


BUILTINS = frozenset({"and", "or", *builtins(Meter())})
