"""Which schemas apply to a value of an answer; which fields are empty, or have no evidence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from paddock.engine.system.records import Struct
from paddock.engine.system.text import resolve_ref

Path: TypeAlias = tuple[str | int, ...]
_MOST_REFERENCES = 64


def is_empty(value: Any) -> bool:
    """Return whether a value says nothing: null, or a text without signs."""
    return value is None or (isinstance(value, str) and not value.strip())


def empty_fields(answer: Any, schema: Any) -> set[Path]:
    """Return the fields that an answer leaves empty, though the schema requires them.

    They are null, a text without signs, or a list without the items that the schema demands. What
    may be null, may be left out, or is a value of `enum` or `const`, is no such field.

    >>> schema = {"properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]}
    >>> empty_fields({"a": " ", "b": None}, schema)
    {('a',)}
    """
    parts = SchemaParts.of(schema)
    return set(_empty(answer, parts, (), is_required=any(parts.parts)))


def _empty(value: Any, schema: SchemaParts, path: Path, *, is_required: bool) -> Iterator[Path]:
    if isinstance(value, Mapping):
        for name, held in value.items():
            needed = any(name in (part.get("required") or ()) for part in schema.parts)
            yield from _empty(held, schema.field(str(name)), (*path, str(name)), is_required=needed)
    elif isinstance(value, list | tuple) and value:
        for at, held in enumerate(value):
            yield from _empty(held, schema.item(at), (*path, at), is_required=False)
    elif is_required and not (schema.is_nullable or schema.lists(value)):
        is_short = isinstance(value, list | tuple) and schema.least_items > 0
        if is_short or is_empty(value):
            yield path


def missing_keys(evidence: Any) -> list[Path]:
    """Return where values are that are nowhere in the sources, as names and numbers of items."""
    return [path for path, match in located_values(evidence) if match in ("none", "fuzzy")]


def partial_keys(evidence: Any) -> list[Path]:
    """Return where values are of which the sources have a part, or leave open which they have."""
    return [path for path, match in located_values(evidence) if match == "partial"]


def located_values(evidence: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield path and match of each value; fields of an object may be called `match` too."""
    if isinstance(evidence, Mapping):
        if isinstance(evidence.get("match"), str):
            yield path, evidence["match"]
            return
        for name, held in evidence.items():
            yield from located_values(held, (*path, name))
    elif isinstance(evidence, list | tuple):
        for at, held in enumerate(evidence):
            yield from located_values(held, (*path, at))


class SchemaParts(Struct, frozen=True):
    """All schemas that may apply to a value: those behind `$ref`, `anyOf` and the like as well."""

    root: Any
    parts: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, schema: Any) -> SchemaParts:
        return cls(schema)._with((schema,))

    def _with(self, schemas: Sequence[Any]) -> SchemaParts:
        parts: list[Mapping[str, Any]] = []
        left = [*schemas]
        n_references = 0
        while left:
            schema = left.pop()
            if not isinstance(schema, Mapping):
                continue
            parts.append(schema)
            for name in ("anyOf", "oneOf", "allOf"):
                left += schema.get(name) or ()
            if "$ref" in schema and n_references < _MOST_REFERENCES:
                n_references += 1
                left.append(resolve_ref(self.root, str(schema["$ref"])))
        return SchemaParts(self.root, tuple(parts))

    def field(self, name: str) -> SchemaParts:
        schemas = []
        for part in self.parts:
            named = part.get("properties") or {}
            if name in named:
                schemas.append(named[name])
                continue
            for pattern, schema in (part.get("patternProperties") or {}).items():
                with suppress(re.error):
                    schemas += [schema] if re.search(pattern, name) else []
            schemas.append(part.get("additionalProperties"))
        return self._with(schemas)

    def item(self, at: int) -> SchemaParts:
        schemas = []
        for part in self.parts:
            first = part.get("prefixItems") or ()
            schemas.append(first[at] if at < len(first) else part.get("items"))
        return self._with(schemas)

    @property
    def titles(self) -> tuple[str, ...]:
        return tuple(part["title"] for part in self.parts if isinstance(part.get("title"), str))

    def marked(self) -> bool | None:
        """Return what `x-evidence` says, if anything."""
        marks = {part.get("x-evidence") for part in self.parts}
        return False if False in marks else True if True in marks else None

    @property
    def is_nullable(self) -> bool:
        kinds = [part.get("type") for part in self.parts]
        named = [name for kind in kinds for name in (kind if isinstance(kind, list) else [kind])]
        return "null" in named or any(None in (part.get("enum") or ()) for part in self.parts)

    @property
    def least_items(self) -> int:
        found = (part.get("minItems") for part in self.parts)
        return max((least for least in found if isinstance(least, int)), default=0)

    def lists(self, value: Any) -> bool:
        """Return whether a value is one of `enum`, or the `const`."""
        return any(
            value in (part.get("enum") or ()) or ("const" in part and part["const"] == value)
            for part in self.parts
        )
