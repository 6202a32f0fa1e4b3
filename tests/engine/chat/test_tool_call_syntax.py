import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.chat.tool_call_syntax import (
    IncompleteValue,
    MalformedValue,
    parse_bare_value,
    parse_gemma_object,
    parse_json,
    parse_python_calls,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), VALUES), st.text(max_size=4), st.integers(0, 200))
def test_json_ends_where_it_ends_and_needs_all_of_it(
    value: dict[str, Any], rest: str, cut: int
) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert parse_json(text + rest, 0) == (value, len(text))
    with pytest.raises(IncompleteValue):
        parse_json(text[: cut % len(text)], 0)


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("[f()]", [("f", {})]),
        ("[a.b(x=1, y='it\\'s [1]')]", [("a.b", {"x": 1, "y": "it's [1]"})]),
        (
            '[f(x=[true, None], y={"a": (1, -2.5)}), g(z=false)]',
            [("f", {"x": [True, None], "y": {"a": [1, -2.5]}}), ("g", {"z": False})],
        ),
    ],
)
def test_python_calls_are_read_without_being_run(
    text: str, calls: list[tuple[str, dict[str, Any]]]
) -> None:
    assert parse_python_calls(text + " and more", 0) == (calls, len(text))


@pytest.mark.parametrize(
    "text", ["[1]", "[]", "[f(1)]", "[f(**x)]", "[f(x=g())]", "[f(x=open)]", "[f(x=y.z)]", "f()"]
)
def test_what_is_no_plain_call_is_refused(text: str) -> None:
    with pytest.raises(MalformedValue):
        parse_python_calls(text, 0)


def test_gemmas_values_have_quotes_of_their_own() -> None:
    text = '{a:<|"|>b, {c}<|"|>,n:-1.5,list:[true,<|"|>x<|"|>],in:{k:null},w:word}'
    value = {"a": "b, {c}", "n": -1.5, "list": [True, "x"], "in": {"k": None}, "w": "word"}
    assert parse_gemma_object(text + "<tool_call|>", 0) == (value, len(text))
    for cut in range(len(text)):
        with pytest.raises(IncompleteValue):
            parse_gemma_object(text[:cut], 0)
    assert parse_gemma_object("{city:<escape>Rome<escape>}", 0)[0] == {"city": "Rome"}


def test_bare_values_are_json_where_they_can_be() -> None:
    texts = ("1", "True", "null", "None", "[1, 2]", "a: b", '"q"')
    assert [parse_bare_value(text) for text in texts] == [1, True, None, None, [1, 2], "a: b", "q"]
    assert parse_bare_value("[" * 5000) == "[" * 5000, "what goes in circles is a text"
