"""Integers of any size are kept exact in answers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher

from paddock.engine.chat.answer_format import LarkGrammar
from paddock.engine.request import Constraint
from paddock.engine.sampling.constraint import byte_tokeniser, compile_error
from paddock.engine.sampling.json_schema import check_schema, schema_grammar

BIG = 1234567890123456789
INT64 = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}


def allows(schema: Any, value: Any, grammar: str | None = None) -> bool:
    text = value
    if not isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    matcher = LLMatcher(byte_tokeniser(), grammar or schema_grammar(schema), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    signs = [*text.encode(), 256]
    return bool(matcher.validate_tokens(signs) == len(signs))


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        ({"enum": [BIG, "x"]}, [BIG, '"x"'], [BIG - 21, BIG + 1]),
        ({"const": 2**53 + 1}, [2**53 + 1], [2**53]),
        ({"const": -(2**63)}, [-(2**63)], [2**63]),
        ({"const": {"a": [BIG, "é\n"]}}, [{"a": [BIG, "é\n"]}], [{"a": [BIG]}]),
        ({"type": "integer", "enum": [BIG, "x", 2.5]}, [BIG], ['"x"', "2.5"]),
        (INT64, [-(2**63), 0, 2**63 - 1, BIG], [-(2**63) - 1, 2**63, "1.5"]),
        ({"type": "integer", "exclusiveMinimum": 2**53}, [2**53 + 1, 2**80], [2**53, 0, -(2**60)]),
        ({"type": "integer", "exclusiveMaximum": -(10**40)}, [-(10**40) - 1], [-(10**40), 5]),
        ({"type": ["integer", "null"], "maximum": 2**60}, ["null", 2**60], [2**60 + 1, '"a"']),
        ({"anyOf": [{"type": "integer", "minimum": 2**64}, {"const": "a"}]}, ['"a"', 2**64], [1]),
        (
            {"properties": {"id": INT64, "of": {"type": "string"}, "n": {"const": BIG}},
             "required": ["of"]},
            ['{"of":"a"}', '{"id":5,"of":"a"}', {"of":"","n":BIG},
             {"id":-7,"of":"a","n":BIG}],
            ["{}", '{"id":5}', '{"of":"a","id":5}', {"id":2**63,"of":"a"},
             '{"of":"a","x":1}', '{"of":"a",}', '{,"of":"a"}'],
        ),
        ({"properties": {"a": {"const": BIG}, "b": {"const": 2}}},
         ["{}", {"a":BIG}, '{"b":2}', {"a":BIG,"b":2}], [{"b":2,"a":BIG}, "{,}"]),
        ({"type": "array", "items": INT64, "minItems": 1, "maxItems": 3},
         [[1], [BIG, 2, 3]], [[], [1, 2, 3, 4], [2**63]]),
        ({"type": "array", "items": {"const": BIG}}, [[], [BIG] * 5], [[1], "[,]"]),
        ({"type": "array", "items": {"const": BIG}, "maxItems": 0}, [[]], [[BIG]]),
        (
            {"$ref": "#/$defs/node", "$defs": {"node": {
                "type": "object", "required": ["id"],
                "properties": {"id": INT64, "next": {"$ref": "#/$defs/node"},
                               "tag": {"$ref": "#/$defs/tag"}}}, "tag": {"enum": ["x"]}}},
            ['{"id":1}', {"id":1,"next":{"id":BIG},"tag":"x"}],
            ['{"id":1,"next":{}}', {"id":2**63}, '{"id":1,"tag":"y"}'],
        ),
        ({"$ref": "#big", "$defs": {"b": {"$anchor": "big", "const": BIG}}}, [BIG], [BIG + 1]),
    ],
)  # fmt: skip
def test_large_integers_are_exact(schema: Any, right: list[Any], wrong: list[Any]) -> None:
    assert check_schema(schema) == ()
    assert compile_error(Constraint("json_schema", json.dumps(schema))) == ""
    assert [value for value in right if not allows(schema, value)] == []
    assert [value for value in wrong if allows(schema, value)] == []


def test_arguments_of_tools_have_exact_integers() -> None:
    grammar = LarkGrammar({})
    schema = {"type": "object", "properties": {"id": {"const": BIG}}, "required": ["id"]}
    whole = grammar.starting(grammar.json({**schema, "additionalProperties": False}))
    assert allows(None, f'{{"id": {BIG}}}', whole)
    assert not allows(None, f'{{"id": {BIG - 21}}}', whole)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number", "maximum": BIG},
        {"type": "integer", "maximum": BIG, "multipleOf": 3},
        {"oneOf": [{"const": BIG}, {"const": 1}]},
        {"type": "object", "additionalProperties": {"const": BIG}},
        {"type": "integer", "minimum": 10**500},
        {"type": "integer", "minimum": 2**60, "maximum": 2**59},
        {"type": "string", "enum": [BIG]},
    ],
)
def test_a_large_integer_that_cannot_be_kept_is_refused(schema: Any) -> None:
    assert compile_error(Constraint("json_schema", json.dumps(schema)))


whole_numbers = st.integers(-(10**22), 10**22) | st.integers(-30, 30)


@given(st.none() | whole_numbers, st.none() | whole_numbers, whole_numbers)
def test_a_range_of_integers_is_exact(least: int | None, most: int | None, value: int) -> None:
    if least is not None and most is not None and least > most:
        least, most = most, least
    schema: dict[str, Any] = {"type": "integer"}
    schema |= {} if least is None else {"minimum": least}
    schema |= {} if most is None else {"maximum": most}
    ends = [end for end in (least, most) if end is not None]
    for number in (value, *ends, *(end + 1 for end in ends), *(end - 1 for end in ends), 0):
        is_inside = (least is None or least <= number) and (most is None or number <= most)
        assert allows(schema, number) == is_inside, number
