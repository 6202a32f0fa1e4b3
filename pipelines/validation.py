"""Collect the faults of one document: keys, expressions and values, each at its place.

Pydantic's errors are translated into plain sentences with marks in the file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from paddock.engine.system.records import replace
from paddock.engine.system.text import shorten
from paddock.pipelines.reply_check import Check

from .errors import Fault, MustBe, PipelineError, did_you_mean, kind_of
from .expressions import Expression, ExpressionError, Path, Value
from .yaml_source import YamlDocument

_KINDS = {
    **{"string_type": "text", "none_required": "null"},
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type"), "a mapping"),
    "model_attributes_type": "a mapping",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_COMPARE = "Compare thresholds by `paddock compare --set STEP.escalate.when=…,…` with `gold`."
_GONE_KEYS: Mapping[tuple[str | int, ...], str] = {
    ("compare", "calibrate"): _COMPARE,
    ("escalate", "target"): _COMPARE,
}


def faults_of(
    details: Sequence[ErrorDetails],
    table: type[BaseModel],
    data: Any,
    document: YamlDocument,
    at: Path,
    *,
    is_rendered: bool = False,
) -> Iterator[Fault]:
    """Yield errors of `table` on `data` as faults; `at` is its path in the document.

    `is_rendered`: its values are those of expressions, so they cannot be written otherwise.
    """
    grouped: dict[Path, list[ErrorDetails]] = {}
    for detail in details:
        grouped.setdefault(_path_in(data, detail), []).append(detail)
    deeper = {path[:n] for path in grouped for n in range(len(path))}
    for path, found in grouped.items():
        specific = [detail for detail in found if detail["type"] not in _KINDS]
        if path in deeper and not specific:
            continue  # another alternative of the union takes this kind, and is at fault below
        fault = _fault(path, specific or found, table, document, at)
        if is_rendered and found[0]["type"] in _KINDS:
            given, remedy = found[0]["input"], ""
            if given is None:
                remedy = 'Write what stands in for it: `{{ … or "" }}`.'
            elif found[0]["type"] == "string_type" and isinstance(given, list | dict):
                remedy = 'Make text of it: `| tojson`, or `| join(", ")`.'
            fault = replace(fault, remedy=remedy)
        yield fault


def _path_in(data: Any, detail: ErrorDetails) -> Path:
    """Return an error's path in the data, without the names of a union's alternatives."""
    path: list[str | int] = []
    for name in detail["loc"]:
        if isinstance(data, list):
            is_in = isinstance(name, int) and name < len(data)
        else:
            is_in = isinstance(data, Mapping) and name in data
        if is_in:
            data = data[name]
        elif detail["type"] != "missing" or name != detail["loc"][-1]:
            continue
        path.append(name)
    return tuple(path)


def _fault(
    path: Path,
    details: Sequence[ErrorDetails],
    table: type[BaseModel],
    document: YamlDocument,
    at: Path,
) -> Fault:
    first = details[0]
    name = next((name for name in (*path[::-1], *at[::-1]) if isinstance(name, str)), "this")
    where = (*at, *path)
    if first["type"] == "missing":
        what, remedy = f"the key '{path[-1]}' is missing here", f"Add `{path[-1]}: …`."
        return document.fault(where[:-1], what, remedy)
    if first["type"] == "extra_forbidden":
        remedy = _GONE_KEYS.get(where[-2:]) or did_you_mean(name, _names_at(table, path[:-1]))
        return document.fault(where, f"unknown key '{path[-1]}'", remedy, is_key=True)
    return document.fault(where, *_sentence(name, details))


def _sentence(name: str, details: Sequence[ErrorDetails]) -> tuple[str, str]:
    first = details[0]
    given, context, kind = first["input"], first.get("ctx", {}), first["type"]
    if kind == "value_error":  # of one of our own checks
        error = context.get("error")
        message = str(error or first["msg"]).rstrip(".")
        if not isinstance(error, MustBe):
            return f"in '{name}': {message}.", ""
        shown = f"; it is {_quoted(given)}" if _is_scalar(given) else ""
        return f"'{name}' {message}{shown}.", ""
    if kind == "literal_error":
        options = context["expected"].replace(" or ", ", ")
        words = [word.strip("'") for word in options.split(", ")]
        return f"'{name}' cannot be {_quoted(given)}.", did_you_mean(str(given), words)
    if kind in _BOUNDS:
        key, words_ = _BOUNDS[kind]
        return f"'{name}' must be {words_} {context[key]:,}; it is {_quoted(given)}.", ""
    if kind in ("string_too_short", "too_short"):
        return f"'{name}' must not be empty.", ""
    if kind == "string_pattern_mismatch":
        return _pattern_fault(name, str(given), context["pattern"])
    kinds = dict.fromkeys(_KINDS[detail["type"]] for detail in details if detail["type"] in _KINDS)
    if kind == "int_parsing_size":
        return f"'{name}' is too large a number: {_quoted(given)}.", ""
    if not kinds:
        return f"'{name}' is wrong: {first['msg'].rstrip('.')}.", ""
    what, remedy = f"'{name}' must be {' or '.join(kinds)}", _remedy_for(name, given, kinds)
    if given is None:
        return f"{what}; it is empty.", remedy
    return f"{what}; {_quoted(given)} is {kind_of(given)}.", remedy


def _remedy_for(name: str, given: Any, kinds: Collection[str]) -> str:
    """Return how to write a value of the wanted kind."""
    if given is None:
        return f"Fill it in, or leave '{name}' out."
    if "text" in kinds and _is_scalar(given):
        return "Put it in quotes."
    if "a list" in kinds:
        return "Begin each entry with '- '." if isinstance(given, dict) else "Write it as `[…]`."
    if "a mapping" in kinds:
        written = "without the dashes" if isinstance(given, list) else "below it"
        return f"Write `key: value` {written}."
    if "text" in kinds:
        return (
            "If it is meant as text, put it in quotes: braces and brackets have a meaning in YAML."
        )
    return ""


def _pattern_fault(name: str, given: str, pattern: str) -> tuple[str, str]:
    if pattern.startswith("^[a-z]"):
        what = f"'{given}' cannot be an id: only small letters, digits and '_' are allowed"
        near = "".join(char if char.isalnum() else "_" for char in given.lower()).strip("_")
        return f"{what}, beginning with a letter.", f"Call it '{near}'." if near else ""
    if pattern == "^/":
        return f"'{name}' must begin with '/'; it is {_quoted(given)}.", ""
    return f"'{name}' must match {pattern}; it is {_quoted(given)}.", ""


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, dict | list)


def _quoted(value: Any) -> str:
    if not _is_scalar(value):
        return "this"
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"'{shorten(text, 60)}'"


def _names_at(table: type[BaseModel], path: Path) -> list[str]:
    tables = [table]
    for name in filter(lambda name: isinstance(name, str), path):
        fields = [item for parent in tables for item in parent.model_fields.items()]
        under = [field.annotation for key, field in fields if (field.alias or key) == name]
        tables = [found for annotation in under for found in _tables(annotation)]
    names: list[str] = []
    for found in tables:  # its own keys before those of its bases
        own, inherited = found.__annotations__, found.model_fields
        for key in sorted(inherited, key=lambda key: key not in own):
            names.append(inherited[key].alias or key)
    return names


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        yield annotation
    for argument in get_args(annotation):
        yield from _tables(argument)


K = TypeVar("K", bound=BaseModel)


class FaultCollector:
    """Collects the faults of a document, each once: all who look for some are given it.

    Methods that parse return None where they found one.
    """

    def __init__(self, document: YamlDocument, *found: Iterable[Fault]) -> None:
        self.document = document
        self._found = dict.fromkeys(chain(*found))

    @property
    def faults(self) -> tuple[Fault, ...]:
        return tuple(self._found)

    def add(self, at: Path, message: str, remedy: str = "", *, is_key: bool = False) -> None:
        self.include([self.document.fault(at, message, remedy, is_key=is_key)])

    def include(self, faults: Iterable[Fault]) -> None:
        self._found.update(dict.fromkeys(faults))

    def raise_faults(self) -> None:
        if self._found:
            raise PipelineError(self.faults)

    def table(self, table: type[K], data: Any, at: Path) -> K | None:
        try:
            return table.model_validate(data)
        except ValidationError as error:
            details = error.errors(include_url=False)
            self.include(faults_of(details, table, data, self.document, at))
            return None

    def expression(self, source: Any, at: Path) -> Expression | None:
        if isinstance(source, bool):
            source = str(source).lower()
        if not isinstance(source, str):
            return None
        try:
            return Expression.of(source)
        except ExpressionError as error:
            self.failed(error, at)
            return None

    def check(self, source: Any, at: Path) -> Check | None:
        if isinstance(source, bool):
            source = str(source).lower()
        try:
            return Check.of(source)
        except ExpressionError as error:
            if source.count("(") != source.count(")"):
                # `[words(output.text, most=80)]`: YAML ends a bare text in a list at its comma.
                error.remedy = "Put the whole expression in quotes: in a YAML list a comma ends it."
            self.failed(error, at)
            return None

    def value(self, data: Any, at: Path, *, bare: bool = False) -> Value:
        """Compile every text of nested data; faulty ones stay unchanged."""
        value, errors = Value.scan(data, bare=bare)
        for error in errors:
            self.failed(error, (*at, *error.path))
        return value

    def returns(self, data: Any, at: Path) -> Value | None:
        return None if data is None else self.value(data, (*at, "returns"), bare=True)

    def failed(self, error: ExpressionError, at: Path) -> None:
        self.add(at, error.message, error.remedy)
