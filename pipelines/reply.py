"""The form of an answer: what stands under `reply.schema`, as JSON Schema or in its short form.

The short form names each field with its type: `{title: str, points: "list[str]", risk:
"enum[low, high]", score: "float?"}`. Every field is asked for; one with `?` may be null. A value of
`enum` that has a comma stands in quotes. Mappings nest, and a list of one thing is a list of such
things. Knows no model and no grammar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from . import source, texts
from .errors import PipelineError, known
from .expressions import ExpressionError, Path

SCALARS: Mapping[str, str] = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
}
_HOLDER = re.compile(r"(list|enum)\[(.*)\]\Z", re.DOTALL)
_DOUBLE, _SINGLE = r'"(?:[^"\\]|\\.)*"', r"'(?:[^']|'')*'"
_VALUE = re.compile(
    rf"\s*(?:(?P<double>{_DOUBLE})|(?P<single>{_SINGLE})|(?P<bare>(?!\s*[\"'])[^,]*))\s*(?=,|\Z)",
    re.DOTALL,
)
_CLOSED = re.compile(rf"(?:{_DOUBLE}|{_SINGLE})", re.DOTALL)
_QUOTED = 'Write for example enum[low, "New York, NY"].'
_OF_SCHEMAS = ("$ref", "$schema", "$defs", "anyOf", "oneOf", "allOf", "const", "properties")
_TYPES = frozenset((*SCALARS.values(), "object", "array", "null"))


@dataclass(frozen=True)
class FormFault:
    """What is wrong with a form, and where within it."""

    path: Path
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class Form:
    """The form of an answer as JSON Schema."""

    schema: Any
    faults: tuple[FormFault, ...] = ()
    is_short: bool = False
    file: str = ""
    """The file in which it stands, if it is not written in the pipeline itself."""


def read(value: Any, base: FilePath) -> Form:
    """Read what stands under `reply.schema`; `base` is the pipeline's folder."""
    if texts.is_file(value) and str(value["file"]) not in SCALARS:
        return _of_file(value["file"], base)
    if isinstance(value, str):
        return _of_text(value, "", "")
    return _of_data(value)


def _of_file(name: Any, base: FilePath) -> Form:
    try:
        text = texts.read(base, name).source
    except ExpressionError as error:
        return Form(None, (FormFault(("file",), error.message, error.remedy),))
    return _of_text(text, f"the file '{name}'", str(name))


def _of_text(text: str, what: str, file: str) -> Form:
    """Read JSON, else YAML."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        try:
            data = source.parse(text, file).data
        except PipelineError:
            data = None
    if not isinstance(data, dict | list | bool) and not _is_short_type(data):
        message = f"{what or 'this text'} is no JSON Schema and no short form of one"
        return Form(None, (FormFault((), message, "Write it as JSON or YAML."),), file=file)
    made = _of_data(data)
    return Form(made.schema, made.faults, made.is_short, file)


def _of_data(data: Any) -> Form:
    if isinstance(data, bool) or (isinstance(data, dict) and is_schema(data)):
        return Form(data)
    faults: list[FormFault] = []
    return Form(_expanded(data, (), faults), tuple(faults), is_short=True)


def is_schema(data: Mapping[str, Any]) -> bool:
    """Tell a JSON Schema from the short form.

    >>> is_schema({"type": "object"}), is_schema({"type": "str"}), is_schema({"enum": ["a"]})
    (True, False, True)
    """
    kinds = data.get("type")
    named = kinds if isinstance(kinds, list) else [kinds]
    if any(isinstance(kind, str) and kind in _TYPES for kind in named):
        return True
    if isinstance(data.get("enum"), list) or not data:
        return True
    return any(name in data and not _is_short_type(data[name]) for name in _OF_SCHEMAS)


def _is_short_type(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    word = value.strip().removesuffix("?").rstrip()
    return word in SCALARS or bool(_HOLDER.match(word))


def _expanded(data: Any, path: Path, faults: list[FormFault]) -> Any:
    if isinstance(data, dict):
        return {
            "type": "object",
            "properties": {
                str(name): _expanded(held, (*path, name), faults) for name, held in data.items()
            },
            "required": [str(name) for name in data],
            "additionalProperties": False,
        }
    if isinstance(data, list) and len(data) == 1:
        return {"type": "array", "items": _expanded(data[0], (*path, 0), faults)}
    if isinstance(data, str):
        return _of_word(data.strip(), path, faults)
    what = "a field is described by its type, such as str"
    faults.append(FormFault(path, what, 'Write for example {title: str, points: "list[str]"}.'))
    return True


def _of_word(word: str, path: Path, faults: list[FormFault]) -> Any:
    if word.endswith("?"):
        return _or_null(_of_word(word[:-1].rstrip(), path, faults))
    if word in SCALARS:
        return {"type": SCALARS[word]}
    held = _HOLDER.match(word)
    if held and held[1] == "list":
        return {"type": "array", "items": _of_word(held[2].strip(), path, faults)}
    if held:
        values = _values(held[2])
        if isinstance(values, str):
            faults.append(FormFault(path, f"'{word}' cannot be read: {values}", _QUOTED))
            return True
        if values:
            return {"enum": values}
    names = (*SCALARS, "list[…]", "enum[…, …]")
    faults.append(FormFault(path, f"'{word}' is not a type", known(word, names)))
    return True


def _values(text: str) -> list[str] | str:
    r"""Read the values of an `enum`, as a flow list of YAML has them; or return what is wrong.

    >>> _values("low, 'it''s high', \"New York, NY\"")
    ['low', "it's high", 'New York, NY']
    """
    values: list[str] = []
    at = 0
    while True:
        found = _VALUE.match(text, at)
        if found is None:  # only what begins with a quote can fail
            opened = text[at:].strip()
            what = "closes nowhere" if _CLOSED.match(opened) is None else "ends before its comma"
            return f"the quoted value that begins at {opened} {what}"
        if found["double"] is not None:
            try:
                values.append(json.loads(found["double"], strict=False))
            except ValueError:
                return f"{found['double']} has an escape that JSON does not know"
        elif found["single"] is not None:
            values.append(found["single"][1:-1].replace("''", "'"))
        elif found["bare"].strip():
            values.append(found["bare"].strip())
        else:
            return [] if not text.strip() else "a value between two commas is empty"
        if found.end() == len(text):
            return values
        at = found.end() + 1


def _or_null(schema: Any) -> Any:
    if isinstance(schema, dict) and "enum" in schema:
        return {"enum": [*schema["enum"], None]}
    if isinstance(schema, dict) and isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return schema
