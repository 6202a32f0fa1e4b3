"""Tell a model in one line which form its answer will have. Pure.

The decoder can only produce what the schema allows; a model that was not told so fills it badly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from paddock.engine.request import Message
from paddock.steps.step import ReplyForm

MOST_CHARS = 1500
"""A longer sketch is left out: it would take a small context, and a small model's attention."""
_MOST_DEPTH = 6
_WORDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "null": "null",
    "object": "{…}",
    "array": "[…]",
}


def asked(messages: Sequence[Message], form: ReplyForm | None) -> list[Message]:
    """Give what is sent for an answer of this form: what is counted, too."""
    if form is None or form.schema is None:
        return list(messages)
    return ending(messages, closing(form.schema))


def ending(messages: Sequence[Message], words: str) -> list[Message]:
    """Let the user's last message end with these words: a small model minds what comes last."""
    where = max((n for n, one in enumerate(messages) if one.role == "user"), default=None)
    if where is None:
        return [*messages, Message("user", words)]
    ended = replace(messages[where], content=f"{messages[where].content.rstrip()}\n\n{words}")
    return [*messages[:where], ended, *messages[where + 1 :]]


def closing(schema: Any) -> str:
    """Give the line that ends a prompt whose answer must match a schema.

    >>> closing({"type": "object", "properties": {"a": {"type": "string"}}})
    'Answer with JSON of this form: {"a": text}'
    """
    form = sketch(schema)
    if not form or len(form) > MOST_CHARS:
        return "Answer with JSON."
    return f"Answer with JSON of this form: {form}"


def sketch(schema: Any) -> str:
    """Draw a schema as JSON with words for what is to be filled in.

    >>> sketch({"properties": {"n": {"type": ["integer", "null"], "description": "How many."}}})
    '{"n": whole number or null (How many)}'
    """
    return _drawn(schema, schema, 0)


def _drawn(schema: Any, root: Any, depth: int) -> str:
    if not isinstance(schema, dict) or depth > _MOST_DEPTH:
        return "…"
    said = str(schema.get("description", "")).strip().rstrip(".")
    form = _form(schema, root, depth)
    return f"{form} ({' '.join(said.split())})" if said and depth else form


def _form(schema: Mapping[str, Any], root: Any, depth: int) -> str:
    if "const" in schema:
        return _json(schema["const"])
    if isinstance(schema.get("enum"), list):
        return " or ".join(map(_json, schema["enum"]))
    if "$ref" in schema:
        return _drawn(_target(root, str(schema["$ref"])), root, depth + 1)
    for name in ("anyOf", "oneOf"):
        if isinstance(schema.get(name), list):
            return " or ".join(_drawn(one, root, depth + 1) for one in schema[name])
    names = schema.get("properties")
    if isinstance(names, dict):
        inner = (f"{_json(name)}: {_drawn(held, root, depth + 1)}" for name, held in names.items())
        return "{" + ", ".join(inner) + "}"
    kinds = schema.get("type", "")
    return " or ".join(_word(str(kind), schema, root, depth) for kind in _several(kinds)) or "…"


def _word(kind: str, schema: Mapping[str, Any], root: Any, depth: int) -> str:
    if kind == "array" and isinstance(schema.get("items"), dict):
        return f"[{_drawn(schema['items'], root, depth + 1)}, …]"
    if kind == "string" and isinstance(schema.get("format"), str):
        return str(schema["format"])
    return _WORDS.get(kind, "…")


def _several(kinds: Any) -> list[Any]:
    return kinds if isinstance(kinds, list) else [kinds] if kinds else []


def _target(root: Any, ref: str) -> Any:
    for part in ref.lstrip("#").split("/")[1:]:
        root = root.get(part) if isinstance(root, dict) else None
    return root


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
