"""Which keywords of JSON Schema an answer can be held to, and what to do about the others. Pure.

Measured against llguidance 1.9: it refuses what it knows and cannot do, and passes over what it
does not know, so that a misspelt keyword would bind nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Path: TypeAlias = tuple[str | int, ...]

OF_NAMES = ("properties", "patternProperties", "$defs", "definitions")
"""Keywords that hold schemas by name."""
OF_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
OF_ONE = ("items", "additionalItems", "additionalProperties")

KEPT = frozenset(
    (
        *OF_NAMES,
        *OF_LISTS,
        *OF_ONE,
        *("$ref", "const", "enum", "type", "minItems", "maxItems", "required", "minProperties"),
        *("maxProperties", "minLength", "maxLength", "pattern", "format", "minimum", "maximum"),
        *("exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    )
)
"""What llguidance holds an answer to."""

NOTES = frozenset(
    (
        *("$schema", "$id", "id", "$anchor", "$comment", "$vocabulary", "$dynamicAnchor", "title"),
        *("description", "default", "readOnly", "writeOnly", "examples", "example", "deprecated"),
        *("contentMediaType", "contentEncoding", "contentSchema", "markdownDescription", "xml"),
        *("enumDescriptions", "discriminator", "externalDocs", "$recursiveAnchor"),
    )
)
"""What describes a value and binds nothing, as does every keyword that begins with `x-`."""

HARMLESS: Mapping[str, Any] = {
    "uniqueItems": False,
    "nullable": False,
    "unevaluatedProperties": True,
    "unevaluatedItems": True,
    "minContains": 0,
}
"""Keywords that an answer cannot be held to, with the value at which that does not matter."""

FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
)

_AFTER = "Remove it, and check the answer afterwards."
_SPELL_OUT = "Write each case out as an option of `anyOf`."
REMEDIES: Mapping[str, str] = {
    "not": "List what is allowed instead, with `enum`, `pattern` or `anyOf`.",
    "if": _SPELL_OUT,
    "then": _SPELL_OUT,
    "else": _SPELL_OUT,
    "dependentRequired": _SPELL_OUT,
    "dependentSchemas": _SPELL_OUT,
    "dependencies": _SPELL_OUT,
    "uniqueItems": _AFTER,
    "contains": "Put what must be there first, with `prefixItems`.",
    "minContains": _AFTER,
    "maxContains": _AFTER,
    "propertyNames": "Use `patternProperties` with `additionalProperties: false`.",
    "unevaluatedProperties": "Use `additionalProperties`.",
    "unevaluatedItems": "Use `items`.",
    "nullable": 'Write the type as a list with "null", such as ["string", "null"].',
    "$dynamicRef": "Use `$ref`.",
    "$recursiveRef": "Use `$ref`.",
}
"""Keywords that would bind an answer and cannot, and what to write instead."""


def children(schema: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """Give the schemas directly within a schema, each with its path from there."""
    for name in OF_NAMES:
        held = schema.get(name)
        if isinstance(held, dict):
            yield from (((name, key), value) for key, value in held.items())
    for name in (*OF_LISTS, *OF_ONE):
        held = schema.get(name)
        if isinstance(held, list):
            yield from (((name, index), value) for index, value in enumerate(held))
        elif name in OF_ONE and held is not None:
            yield (name,), held


def pointer(path: Path) -> str:
    """Write a path as a JSON pointer (RFC 6901).

    >>> pointer(("properties", "a/b", "items", 0))
    '/properties/a~1b/items/0'
    """
    return "".join("/" + str(name).replace("~", "~0").replace("/", "~1") for name in path)


def binds(schema: Mapping[str, Any], keyword: str) -> bool:
    """Tell whether a keyword that cannot be kept would matter where it stands."""
    if keyword in ("then", "else"):
        return "if" in schema
    if keyword in ("minContains", "maxContains"):
        return "contains" in schema
    return keyword not in HARMLESS or schema[keyword] != HARMLESS[keyword]
