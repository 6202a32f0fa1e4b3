"""A schema may hold itself where an answer can still end, and nowhere else."""

from typing import Any

import pytest

from paddock.engine.sampling.json_schema import endless_ref

SELF = {"$ref": "#"}
CHAIN = {"type": "object", "properties": {"next": SELF}, "required": ["next"]}


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        *(
            (schema, None)
            for schema in (
                {"type": "object", "properties": {"next": SELF}},
                {"type": "array", "items": SELF},
                {"type": ["object", "null"], "properties": {"next": SELF}, "required": ["next"]},
                {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, SELF]}},
                {
                    "$defs": {
                        "a": {"properties": {"b": {"$ref": "#/$defs/b"}}, "required": ["b"]},
                        "b": {"oneOf": [{"$ref": "#/$defs/a"}, {"const": 1}]},
                    },
                    "$ref": "#/$defs/a",
                },
                {"$defs": {"unused": {"$ref": "#/$defs/unused"}}, "type": "string"},
                {"$defs": {"a/b~c": {"type": "string"}}, "$ref": "#/$defs/a~1b~0c"},
                True,
            )
        ),
        (CHAIN, ("properties", "next")),
        (SELF, ()),
        ({"anyOf": [SELF, SELF]}, ("anyOf", 0)),
        ({"type": "array", "minItems": 1, "items": SELF}, ("items",)),
        ({"type": "array", "minItems": 1, "prefixItems": [SELF]}, ("prefixItems", 0)),
        (
            {
                "$defs": {
                    "a": {"properties": {"b": {"$ref": "#/$defs/b"}}, "required": ["b"]},
                    "b": {"allOf": [{"$ref": "#/$defs/a"}, {"type": "object"}]},
                },
                "$ref": "#/$defs/a",
            },
            (),
        ),
    ],
)
def test_a_reference_by_which_no_answer_ends_is_found(
    schema: Any, place: tuple[str | int, ...] | None
) -> None:
    assert endless_ref(schema) == place
