"""What an answer cannot be held to is told by its place in the schema."""

import json
from typing import Any

import pytest

from paddock.engine.sampling.json_schema import check_schema, max_growth_bytes, schema_grammar


@pytest.mark.parametrize(
    ("schema", "pointer", "message"),
    [
        ({"typ": "string"}, "/typ", "`typ` is not a keyword that is known"),
        ({"type": "strnig"}, "/type", "there is no type 'strnig'"),
        ({"items": {"type": "strnig"}}, "/items/type", "there is no type 'strnig'"),
        ({"properties": {"a": 3}}, "/properties/a", "a schema is a mapping, not '3'"),
        ({"properties": []}, "", "properties must be an object"),
        ({"type": "integer", "minimum": "3"}, "", """Expected a number for 'minimum', got \"3\""""),
        ({"enum": []}, "", "Unsatisfiable schema: anyOf is empty"),
        (
            {"type": "array", "minItems": 3, "maxItems": 2},
            "",
            "Unsatisfiable schema: minItems (3) is greater than maxItems (2)",
        ),
        ({"$ref": "#/$defs/x"}, "", "Pointer '/$defs/x' does not exist"),
        ({"$ref": "http://x/y"}, "/$ref", "'http://x/y' lies outside the schema"),
        ({"format": "idn-email"}, "/format", "the format 'idn-email' is not known"),
        (
            {"properties": {"a/b": {"pattern": "(?=a)b"}}},
            "/properties/a~1b/pattern",
            "the pattern cannot be used: look-around, including look-ahead and look-behind, is "
            "not supported",
        ),
        (
            {"properties": {"a": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}},
            "",
            "the options of a `oneOf` cannot be distinguished while the answer is generated",
        ),
        (
            {"type": "object", "minProperties": 2},
            "/minProperties",
            "`minProperties: 2` asks for more properties than `required` names",
        ),
        ({"minimum": float("inf")}, "", "the schema has values that JSON cannot hold"),
        ([], "", "a schema is a mapping, not a list"),
    ],
)
def test_what_cannot_be_kept_is_refused_at_its_place(
    schema: Any, pointer: str, message: str
) -> None:
    (problem,) = check_schema(schema)
    assert (problem.pointer, problem.message) == (pointer, message)


@pytest.mark.parametrize(
    "keyword",
    ["not", "if", "uniqueItems", "contains", "propertyNames", "dependentRequired", "nullable"],
)
def test_keywords_that_would_be_passed_over_are_refused_with_a_way_out(keyword: str) -> None:
    (problem,) = check_schema({"properties": {"a": {keyword: True}}})
    assert problem.pointer == f"/properties/a/{keyword}"
    assert problem.message == f"`{keyword}` cannot be enforced while the answer is generated"
    assert problem.remedy


def test_every_problem_is_told_at_once() -> None:
    problems = check_schema({"not": {}, "items": {"uniqueItems": True, "then": {}, "if": {}}})
    pointers = [problem.pointer for problem in problems]
    assert pointers == ["/not", "/items/uniqueItems", "/items/then", "/items/if"]
    assert str(problems[0]) == (
        "at /not: `not` cannot be enforced while the answer is generated. "
        "List what is allowed instead, with `enum`, `pattern` or `anyOf`."
    )


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"title": "a", "examples": [1], "deprecated": True, "x-order": 3, "default": {}},
        {"type": "array", "uniqueItems": False, "minContains": 0, "then": {"not": {}}},
        {"properties": {"not": {"type": "string"}, "format": {"enum": ["a"]}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}},
        {"x-guidance": {"lenient": True}},
        {"const": {"not": 3}},
    ],
)
def test_what_binds_nothing_is_no_problem(schema: Any) -> None:
    assert check_schema(schema) == ()


def test_an_authors_own_guidance_cannot_loosen_the_rules() -> None:
    schema = {"type": "array", "x-guidance": {"lenient": True, "whitespace_flexible": True}}
    options = json.loads(schema_grammar(schema))["grammars"][0]["json_schema"]["x-guidance"]
    assert options["lenient"] is False
    assert options["whitespace_flexible"] is False


def test_objects_that_name_their_properties_are_closed_unless_others_describe_them_too() -> None:
    def grammar(schema: Any) -> Any:
        return json.loads(schema_grammar(schema))["grammars"][0]["json_schema"]

    named = {"properties": {"a": {"type": "string"}}}
    assert grammar(named)["additionalProperties"] is False
    assert grammar({**named, "additionalProperties": True})["additionalProperties"] is True
    assert "additionalProperties" not in grammar({"type": "object"})
    assert "additionalProperties" not in grammar({**named, "allOf": [{"required": ["b"]}]})
    both = grammar({"anyOf": [{**named}, {"properties": {"b": {}}, "required": ["b"]}]})
    assert [option["additionalProperties"] for option in both["anyOf"]] == [False, False]


def test_an_object_is_closed_though_another_is_described_in_several_places() -> None:
    def grammar(schema: Any) -> Any:
        return json.loads(schema_grammar(schema))["grammars"][0]["json_schema"]

    named = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    second = {"type": "object", "properties": {"b": {"type": "string"}}}
    schema = {
        "type": "object",
        "properties": {
            "plain": named,
            "wrapped": {"allOf": [{"$ref": "#/$defs/alone"}], "description": "As Pydantic does."},
            "both": {"allOf": [{"$ref": "#/$defs/one"}, second]},
        },
        "$defs": {"alone": named, "one": {**named, "properties": {"a": named}}},
    }
    made = grammar(json.loads(json.dumps(schema)))
    assert made["additionalProperties"] is False
    assert made["properties"]["plain"]["additionalProperties"] is False
    assert made["$defs"]["alone"]["additionalProperties"] is False
    assert "additionalProperties" not in made["$defs"]["one"], "what else describes it may add"
    assert "additionalProperties" not in made["$defs"]["one"]["properties"]["a"]
    assert "additionalProperties" not in made["properties"]["both"]["allOf"][1]
    assert check_schema(made) == ()


def test_the_heft_counts_what_is_asked_for_repeatedly() -> None:
    assert max_growth_bytes({"type": "string", "minLength": 500}) > 500
    assert max_growth_bytes({"type": "array", "minItems": 100, "items": {"type": "string"}}) > 1_000
    assert max_growth_bytes({"type": "object", "properties": {"a": {"type": "string"}}}) < 200
    labels = {"enum": [f"label {number}" for number in range(10_000)]}
    assert max_growth_bytes({"properties": {"a": labels, "b": {"items": labels}}}) < 300
