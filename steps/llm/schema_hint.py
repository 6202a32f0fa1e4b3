"""A line in the prompt with a sketch of the answer's schema, for the model that has to fill it.

The decoder can only produce what the schema allows; a model that does not know the schema fills it
badly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from paddock.engine.request import Message
from paddock.engine.system.text import one_line, resolve_ref
from paddock.pipelines.label_choices import CHOOSE
from paddock.steps.base import ReplyForm

MOST_SKETCH_CHARS = 1500
"""A longer sketch is left out: it would fill a small context and distract a small model."""
_MOST_SKETCH_DEPTH = 6
_TYPE_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "null": "null",
    "object": "{…}",
    "array": "[…]",
}


def with_schema_hint(messages: Sequence[Message], form: ReplyForm | None) -> list[Message]:
    """Return messages with the labels to choose from, and a hint of the answer's schema."""
    if form is None or form.schema is None:
        return list(messages)
    begun = with_beginning(messages, "\n\n".join(labels.text for labels in form.lists))
    return with_ending(begun, schema_hint(form.schema))


def with_beginning(messages: Sequence[Message], words: str) -> list[Message]:
    """Put text where prompts of many items are still the same: their KV cache is shared.

    That is the end of a system message, else the beginning of the conversation.
    """
    if not words or not messages:
        return list(messages)
    first, is_system = messages[0], messages[0].role == "system"
    parts = (first.content.rstrip(), words) if is_system else (words, first.content)
    if not is_system and first.role != "user":
        return [Message("user", words), *messages]
    return [replace(first, content="\n\n".join(parts)), *messages[1:]]


def with_ending(messages: Sequence[Message], words: str) -> list[Message]:
    """Append text to the user's last message: small models respect what is last."""
    where = max((n for n, message in enumerate(messages) if message.role == "user"), default=None)
    if where is None:
        return [*messages, Message("user", words)]
    ended = replace(messages[where], content=f"{messages[where].content.rstrip()}\n\n{words}")
    return [*messages[:where], ended, *messages[where + 1 :]]


def schema_hint(schema: Any) -> str:
    """Return the line that ends a prompt whose answer must match a schema.

    >>> schema_hint({"type": "object", "properties": {"a": {"type": "string"}}})
    'Answer with JSON of this form: {"a": text}'
    """
    form = schema_sketch(schema)
    if not form or len(form) > MOST_SKETCH_CHARS:
        return "Answer with JSON."
    return f"Answer with JSON of this form: {form}"


def schema_sketch(schema: Any) -> str:
    """Return a schema as JSON with words in place of values.

    >>> schema_sketch({"properties": {"n": {"type": "integer", "description": "How many."}}})
    '{"n": whole number (How many)}'
    """
    return _sketch_of(schema, schema, 0)


def _sketch_of(schema: Any, root: Any, depth: int) -> str:
    if not isinstance(schema, dict) or depth > _MOST_SKETCH_DEPTH:
        return "…"
    description = str(schema.get("description", "")).strip().rstrip(".")
    form = _object_sketch(schema, root, depth)
    return f"{form} ({one_line(description)})" if description and depth else form


def _object_sketch(schema: Mapping[str, Any], root: Any, depth: int) -> str:
    if "const" in schema:
        return _compact_json(schema["const"])
    if CHOOSE in schema:
        return "label"
    if isinstance(schema.get("enum"), list):
        return " or ".join(map(_compact_json, schema["enum"]))
    if "$ref" in schema:
        return _sketch_of(resolve_ref(root, str(schema["$ref"])), root, depth + 1)
    options = schema.get("anyOf", schema.get("oneOf"))
    if isinstance(options, list):
        return " or ".join(_sketch_of(option, root, depth + 1) for option in options)
    names = schema.get("properties")
    if isinstance(names, dict):
        inner = (f"{_compact_json(k)}: {_sketch_of(v, root, depth + 1)}" for k, v in names.items())
        return "{" + ", ".join(inner) + "}"
    kinds = schema.get("type") or [""]
    kind_list = kinds if isinstance(kinds, list) else [kinds]
    return " or ".join(_scalar_sketch(str(kind), schema, root, depth) for kind in kind_list)


def _scalar_sketch(kind: str, schema: Mapping[str, Any], root: Any, depth: int) -> str:
    if kind == "array" and isinstance(schema.get("items"), dict):
        return f"[{_sketch_of(schema['items'], root, depth + 1)}, …]"
    if kind == "string" and isinstance(schema.get("format"), str):
        return str(schema["format"])
    return _TYPE_WORDS.get(kind, "…")


def _compact_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
