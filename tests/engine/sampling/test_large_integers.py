"""Integers beyond 2^53, which llguidance reads as doubles, are exact in answers or refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llguidance import LLMatcher

from paddock.engine.chat.answer_format import LarkGrammar
from paddock.engine.errors import BadRequest
from paddock.engine.request import Constraint
from paddock.engine.sampling.constraint import byte_tokeniser, compile_error
from paddock.engine.sampling.json_schema import check_schema, schema_grammar

BIG = 1234567890123456789
INT64 = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}


def allows(schema: Any, value: Any) -> bool:
    text = json.dumps(value, separators=(",", ":"))
    matcher = LLMatcher(byte_tokeniser(), schema_grammar(schema), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    signs = [*text.encode(), 256]
    return bool(matcher.validate_tokens(signs) == len(signs))


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        (INT64, [-(2**62), 0, 2**63 - 1024, BIG], [-(2**63) - 1, 2**63, 1.5]),
        ({"type": "integer", "exclusiveMinimum": 2**53}, [2**53 + 2, BIG], [2**53, 0, -(2**60)]),
        ({"type": ["integer", "null"], "maximum": 2**60}, [None, 2**60], [2**60 + 1, "a"]),
        ({"properties": {"id": INT64}}, [{"id": BIG}, {}], [{"id": 2**63}]),
        ({"type": "array", "items": INT64}, [[BIG, 2]], [[2**63]]),
    ],
)
def test_bounds_beyond_2_to_the_53_hold(schema: Any, right: list[Any], wrong: list[Any]) -> None:
    assert check_schema(schema) == ()
    assert compile_error(Constraint("json_schema", json.dumps(schema))) == ""
    assert [value for value in right if not allows(schema, value)] == []
    assert [value for value in wrong if allows(schema, value)] == []


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [BIG, "x"]},
        {"properties": {"a": {"const": {"b": [BIG]}}}},
        {"type": "number", "maximum": BIG},
        {"maximum": BIG},
        {"type": "integer", "minimum": 10**500},
        {"type": "integer", "minimum": 2**60, "maximum": 2**59},
    ],
)
def test_a_number_that_cannot_be_exact_is_refused(schema: Any) -> None:
    assert compile_error(Constraint("json_schema", json.dumps(schema)))


def test_arguments_of_tools_have_no_inexact_numbers() -> None:
    with pytest.raises(BadRequest):
        LarkGrammar({}).json({"properties": {"id": {"const": BIG}}})


large_numbers = st.integers(-(2**63), 2**63)


@given(st.none() | large_numbers, st.none() | large_numbers, large_numbers)
def test_no_answer_is_outside_of_large_bounds(
    least: int | None, most: int | None, value: int
) -> None:
    schema: dict[str, Any] = {"type": "integer"}
    schema |= {} if least is None else {"minimum": least}
    schema |= {} if most is None else {"maximum": most}
    if compile_error(Constraint("json_schema", json.dumps(schema))):
        return
    ends = [end for end in (least, most) if end is not None]
    for number in (value, *ends, *(end + 1 for end in ends), *(end - 1 for end in ends)):
        is_inside = (least is None or least <= number) and (most is None or number <= most)
        assert is_inside or not allows(schema, number), number
