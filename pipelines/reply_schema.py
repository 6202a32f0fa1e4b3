"""`reply.schema`: the JSON Schema of an answer, and its short form.

The short form names each field with its type: `{title: str, points: "list[str]", risk: "enum[low,
high]", score: "float?"}`. Every field is required; a field with `?` may be null. A value of `enum`
that has a comma needs quotes. Mappings nest; a list with one entry is a list of such values. With
`{choose: steps.tags.rows, …}` a field is a label of a list (`label_choices`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from paddock.engine.system.records import Struct, replace

from . import prompt_file, yaml_source
from .errors import PipelineError, did_you_mean
from .expressions import ExpressionError, Path
from .label_choices import Choice, WrongLabels, read_choice

SCALAR_TYPES: Mapping[str, Mapping[str, str]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
}
_CONTAINER_TYPE = re.compile(r"(list|enum)\[(.*)\]\Z", re.DOTALL)
_DOUBLE, _SINGLE = r'"(?:[^"\\]|\\.)*"', r"'(?:[^']|'')*'"
_VALUE = re.compile(
    rf"\s*(?:(?P<double>{_DOUBLE})|(?P<single>{_SINGLE})|(?P<bare>(?!\s*[\"'])[^,]*))\s*(?=,|\Z)",
    re.DOTALL,
)
_CLOSED = re.compile(rf"(?:{_DOUBLE}|{_SINGLE})", re.DOTALL)
_QUOTED = 'Write for example enum[low, "New York, NY"].'
_SCHEMA_KEYWORDS = ("$ref", "$dynamicRef", "$schema", "$defs", "anyOf", "oneOf", "allOf", "not",
                    "const", "properties", "patternProperties")  # fmt: skip
_TYPES = frozenset(("string", "integer", "number", "boolean", "object", "array", "null"))


class ReplySchemaFault(Struct, frozen=True):
    path: Path
    message: str
    remedy: str = ""


class ReplySchema(Struct, frozen=True):
    schema: Any
    faults: tuple[ReplySchemaFault, ...] = ()
    is_short: bool = False
    file: str = ""
    """Its file, if it is not in the pipeline itself."""
    choices: tuple[Choice, ...] = ()
    """The fields whose values are labels of a list."""


def read_reply_schema(value: Any, base: FilePath) -> ReplySchema:
    if prompt_file.is_file_reference(value) and str(value["file"]) not in SCALAR_TYPES:
        name = value["file"]
        try:
            text = prompt_file.read_template_file(base, name).source
        except ExpressionError as error:
            return ReplySchema(None, (ReplySchemaFault(("file",), error.message, error.remedy),))
        return _of_text(text, f"the file '{name}'", str(name))
    return _of_text(value, "", "") if isinstance(value, str) else _of_data(value)


def _of_text(text: str, what: str, file: str) -> ReplySchema:
    """Parse JSON, else YAML."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        try:
            data = yaml_source.parse_yaml(text, file).data
        except PipelineError:
            data = None
    if not isinstance(data, dict | list | bool) and not _is_short_type(data):
        message = f"{what or 'this text'} is neither a JSON Schema nor the short form of one"
        return ReplySchema(
            None, (ReplySchemaFault((), message, "Write it as JSON or YAML."),), file=file
        )
    return replace(_of_data(data), file=file)


def _of_data(data: Any) -> ReplySchema:
    if isinstance(data, bool) or (isinstance(data, dict) and is_json_schema(data)):
        return ReplySchema(data)
    found: list[ReplySchemaFault | Choice] = []
    schema = _expand_short_form(data, (), found)
    faults = tuple(fault for fault in found if isinstance(fault, ReplySchemaFault))
    choices = tuple(choice for choice in found if isinstance(choice, Choice))
    return ReplySchema(schema, faults, is_short=True, choices=choices)


def is_json_schema(data: Mapping[str, Any]) -> bool:
    """Return a JSON Schema from the short form.

    >>> is_json_schema({"type": "object"}), is_json_schema({"type": "str"})
    (True, False)
    """
    kinds = data.get("type")
    named = kinds if isinstance(kinds, list) else [kinds]
    if any(isinstance(kind, str) and kind in _TYPES for kind in named):
        return True
    if isinstance(data.get("enum"), list) or not data:
        return True
    return any(name in data and not _is_short_type(data[name]) for name in _SCHEMA_KEYWORDS)


def _is_short_type(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    word = value.strip().removesuffix("?").rstrip()
    return word in SCALAR_TYPES or bool(_CONTAINER_TYPE.match(word))


def _expand_short_form(data: Any, path: Path, found: list[ReplySchemaFault | Choice]) -> Any:
    """Return the JSON Schema of a short form; add what is wrong, and the fields to choose."""
    if isinstance(data, dict) and _is_choice(data):
        try:
            schema, choice = read_choice(data, path)
        except WrongLabels as error:
            found.append(ReplySchemaFault(path, error.message, error.remedy))
            return True
        found.append(choice)
        return schema
    if isinstance(data, dict):
        return {
            "type": "object",
            "properties": {
                str(name): _expand_short_form(held, (*path, name), found)
                for name, held in data.items()
            },
            "required": [str(name) for name in data],
            "additionalProperties": False,
        }
    if isinstance(data, list) and len(data) == 1:
        return {"type": "array", "items": _expand_short_form(data[0], (*path, 0), found)}
    if isinstance(data, str):
        return _schema_of_word(data.strip(), path, found)
    what = "a field needs a type, such as str"
    found.append(
        ReplySchemaFault(path, what, 'Write for example {title: str, points: "list[str]"}.')
    )
    return True


def _is_choice(data: Mapping[str, Any]) -> bool:
    source = data.get("choose")
    if isinstance(source, dict) and source.keys() == {"file"}:
        source = source["file"]
    return isinstance(source, str) and not _is_short_type(source)


def _schema_of_word(word: str, path: Path, found: list[ReplySchemaFault | Choice]) -> Any:
    if word.endswith("?"):
        schema = _schema_of_word(word[:-1].rstrip(), path, found)
        if isinstance(schema, dict) and "enum" in schema:
            return {"enum": [*schema["enum"], None]}
        if isinstance(schema, dict) and isinstance(schema.get("type"), str):
            return {**schema, "type": [schema["type"], "null"]}
        return schema
    if word in SCALAR_TYPES:
        return dict(SCALAR_TYPES[word])
    container = _CONTAINER_TYPE.match(word)
    if container and container[1] == "list":
        return {"type": "array", "items": _schema_of_word(container[2].strip(), path, found)}
    if container:
        values = _enum_values(container[2])
        if isinstance(values, str):
            found.append(ReplySchemaFault(path, f"'{word}' cannot be parsed: {values}", _QUOTED))
            return True
        if values:
            return {"enum": values}
    names = (*SCALAR_TYPES, "list[…]", "enum[…, …]")
    found.append(ReplySchemaFault(path, f"'{word}' is not a type", did_you_mean(word, names)))
    return True


def _enum_values(text: str) -> list[str] | str:
    r"""Parse the values of an `enum` like a flow list of YAML; or return what is wrong.

    >>> _enum_values("low, 'it''s high', \"New York, NY\"")
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


def is_confidence(mirror: Any) -> bool:
    """Return whether this part of a mirror is one field's confidence.

    Fields may be called `p` and `raw` as well: then these are mirrors, too.

    >>> is_confidence({"p": 0.5, "raw": 0.5}), is_confidence({"raw": {"p": 0.5, "raw": 0.5}})
    (True, False)
    """
    is_mapping = isinstance(mirror, Mapping) and "raw" in mirror
    return is_mapping and not isinstance(mirror["raw"], Mapping | list)
