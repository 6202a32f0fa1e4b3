"""Pydantic's errors as plain sentences with the places of a file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, get_args

from .errors import Fault, known
from .expressions import Path

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

    from .source import Document

_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


class Errors(Protocol):
    """What has errors in Pydantic's form."""

    def errors(self, *, include_url: bool = True) -> list[ErrorDetails]:
        """Give them."""
        ...


def faults_of(
    error: Errors, table: type[BaseModel], data: Any, document: Document, at: Path
) -> Iterator[Fault]:
    """Say every error of `table` on `data`, which stands at `at` in the document."""
    grouped: dict[Path, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        grouped.setdefault(_path_in(data, detail), []).append(detail)
    for path, details in grouped.items():
        yield _fault(path, _telling(details), table, document, at)


def _telling(details: Sequence[ErrorDetails]) -> Sequence[ErrorDetails]:
    """Of the errors of a union's alternatives, keep those that tell most."""
    return [one for one in details if one["type"] not in _KINDS] or details


def _path_in(data: Any, detail: ErrorDetails) -> Path:
    """Give the part of an error's location that is in the data: the rest names alternatives."""
    path: list[str | int] = []
    for name in detail["loc"]:
        if _is_in(data, name):
            data = data[name]
        elif detail["type"] != "missing" or name != detail["loc"][-1]:
            continue
        path.append(name)
    return tuple(path)


def _is_in(data: Any, name: str | int) -> bool:
    if isinstance(data, list):
        return isinstance(name, int) and name < len(data)
    return isinstance(data, Mapping) and name in data


def _fault(
    path: Path,
    details: Sequence[ErrorDetails],
    table: type[BaseModel],
    document: Document,
    at: Path,
) -> Fault:
    first, name = details[0], str(_key(path, at))
    where = (*at, *path)
    if first["type"] == "missing":
        mark = document.mark(where[:-1])
        return Fault(f"the key '{path[-1]}' is missing here.", f"Add `{path[-1]}: …`.", mark)
    if first["type"] == "extra_forbidden":
        names = names_at(table, path[:-1])
        return Fault(f"unknown key '{path[-1]}'.", known(name, names), document.key_mark(where))
    sentence, remedy = _sentence(name, details)
    return Fault(sentence, remedy, document.mark(where))


def _key(path: Path, at: Path) -> str | int:
    """Give the name that the author wrote for what stands at `path`."""
    names = [name for name in (*at, *path) if isinstance(name, str)]
    return names[-1] if names else "this"


def _sentence(name: str, details: Sequence[ErrorDetails]) -> tuple[str, str]:
    first = details[0]
    given, context, kind = first["input"], first.get("ctx", {}), first["type"]
    if kind == "value_error":
        return _told(name, str(context.get("error", first["msg"])), given)
    if kind == "literal_error":
        options = context["expected"].replace(" or ", ", ")
        words = [word.strip("'") for word in options.split(", ")]
        return f"'{name}' cannot be {shown(given)}.", known(str(given), words)
    if kind in _BOUNDS:
        key, words_ = _BOUNDS[kind]
        return f"'{name}' must be {words_} {context[key]:,}; it is {shown(given)}.", ""
    if kind in ("string_too_short", "too_short"):
        return f"'{name}' must not be empty.", ""
    if kind == "string_pattern_mismatch":
        return _pattern(name, str(given), context["pattern"])
    wanted = dict.fromkeys(_KINDS[one["type"]] for one in details if one["type"] in _KINDS)
    if kind == "int_parsing_size":
        return f"'{name}' is too large a number: {shown(given)}.", ""
    if not wanted:
        return f"'{name}' is wrong: {first['msg'].rstrip('.')}.", ""
    what, remedy = f"'{name}' must be {' or '.join(wanted)}", _instead(name, given, wanted)
    if given is None:
        return f"{what}; it is empty.", remedy
    return f"{what}; {shown(given)} is {kind_of(given)}.", remedy


def _instead(name: str, given: Any, wanted: Collection[str]) -> str:
    """Say how what is wanted is written, to whoever wrote a value of another kind."""
    if given is None:
        return f"Fill it in, or leave '{name}' out."
    if "text" in wanted and is_scalar(given):
        return "Put it in quotes."
    if "a list" in wanted:
        return "Begin each entry with '- '." if isinstance(given, dict) else "Write it as `[…]`."
    if "a mapping" in wanted:
        written = "without the dashes" if isinstance(given, list) else "below it"
        return f"Write `key: value` {written}."
    if "text" in wanted:
        return "If it is meant as text, put it in quotes: braces and brackets mean more in YAML."
    return ""


def _told(name: str, told: str, given: Any) -> tuple[str, str]:
    """Finish the sentence of a check of ours."""
    told = told.rstrip(".")
    if told.startswith("must "):
        given_ = f"; it is {shown(given)}" if is_scalar(given) else ""
        return f"'{name}' {told}{given_}.", ""
    return f"in '{name}': {told}.", ""


def _pattern(name: str, given: str, pattern: str) -> tuple[str, str]:
    if pattern.startswith("^[a-z]"):
        what = f"'{given}' cannot be an id: it takes small letters, digits and '_'"
        near = "".join(char if char.isalnum() else "_" for char in given.lower()).strip("_")
        return f"{what}, and begins with a letter.", f"Call it '{near}'." if near else ""
    if pattern == "^/":
        return f"'{name}' must begin with '/'; it is {shown(given)}.", ""
    return f"'{name}' must match {pattern}; it is {shown(given)}.", ""


def is_scalar(value: Any) -> bool:
    """Tell whether a value is neither list nor mapping."""
    return not isinstance(value, dict | list)


def shown(value: Any) -> str:
    """Give the author's own word in quotes, cut where it is long."""
    if isinstance(value, dict | list):
        return "this"
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"'{text}'" if len(text) <= 60 else f"'{text[:59]}…'"


def kind_of(value: Any) -> str:
    """Name a value's kind for a sentence."""
    kinds = {str: "text", bool: "a boolean", int: "a whole number", float: "a number"}
    kinds |= {list: "a list", dict: "a mapping", type(None): "nothing"}
    return kinds.get(type(value), "something else")


def names_at(table: type[BaseModel], path: Path) -> list[str]:
    """Give the keys that the table at `path` within `table` knows."""
    tables = [table]
    for name in path:
        if isinstance(name, str):
            tables = [found for one in tables for found in _inner(one, name)]
    return [name for one in tables for name in _names(one)]


def _names(table: type[BaseModel]) -> list[str]:
    """Give a table's keys, its own before those of its bases."""
    own = table.__annotations__
    fields = sorted(table.model_fields.items(), key=lambda field: field[0] not in own)
    return [field.alias or name for name, field in fields]


def _inner(table: type[BaseModel], name: str) -> Iterator[type[BaseModel]]:
    for key, field in table.model_fields.items():
        if (field.alias or key) == name:
            yield from _tables(field.annotation)


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        yield annotation
    for argument in get_args(annotation):
        yield from _tables(argument)
