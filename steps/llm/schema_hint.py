"""A line in the prompt with a sketch of the answer's schema, for the model that has to fill it.

The decoder can only produce what the schema allows; a model that does not know the schema fills it
badly.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from paddock.engine.request import Message, with_beginning, with_ending
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

    def inner(part: Any) -> str:
        return _sketch_of(part, root, depth + 1)

    options, names = schema.get("anyOf", schema.get("oneOf")), schema.get("properties")
    if "const" in schema:
        form = _compact_json(schema["const"])
    elif CHOOSE in schema:
        form = "label"
    elif isinstance(schema.get("enum"), list):
        form = " or ".join(map(_compact_json, schema["enum"]))
    elif "$ref" in schema:
        form = inner(resolve_ref(root, str(schema["$ref"])))
    elif isinstance(options, list):
        form = " or ".join(map(inner, options))
    elif isinstance(names, dict):
        form = "{" + ", ".join(f"{_compact_json(k)}: {inner(v)}" for k, v in names.items()) + "}"
    else:
        kinds = schema.get("type") or [""]
        words: list[str] = []
        for kind in kinds if isinstance(kinds, list) else [kinds]:
            if kind == "array" and isinstance(schema.get("items"), dict):
                words.append(f"[{inner(schema['items'])}, …]")
            elif kind == "string" and isinstance(schema.get("format"), str):
                words.append(schema["format"])
            else:
                words.append(_TYPE_WORDS.get(str(kind), "…"))
        form = " or ".join(words)
    description = str(schema.get("description", "")).strip().rstrip(".")
    return f"{form} ({one_line(description)})" if description and depth else form


def _compact_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
