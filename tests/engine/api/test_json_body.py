"""Bodies: whatever comes is read as JSON or refused with a sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from paddock.engine.api.errors import ApiError
from paddock.engine.api.json_body import (
    decode_base64,
    flag_of,
    integer_of,
    integers_of,
    list_of,
    number_of,
    object_of,
    objects_of,
    parse_json,
    parse_object,
    text_of,
    texts_of,
)


def test_names_are_matched_in_any_case_and_the_last_counts() -> None:
    assert parse_object(b'{"Model": "a", "MODEL": "b", "options": {"Seed": 1}}') == {
        "model": "b",
        "options": {"Seed": 1},
    }


def test_null_is_an_empty_object_and_a_byte_order_mark_is_no_fault() -> None:
    assert parse_object(b" null ") == {}
    assert parse_object(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_what_is_no_text_becomes_a_replacement_character() -> None:
    assert parse_object(b'{"a": "\\ud83d!", "b": ["\\ud83d\\ude00"]}') == {"a": "�!", "b": ["😀"]}
    assert parse_object(b'{"a": "\xff"}') == {"a": "�"}


@pytest.mark.parametrize("n", [129, 500, 980, 5000, 200_000])
def test_what_is_nested_too_deeply_is_refused(n: int) -> None:
    for begins, ends in ((b"[", b"]"), (b'{"\\u0061":', b"}")):
        body = b'{"a":' + begins * n + b"1" + ends * n + b"}"
        with pytest.raises(ApiError) as caught:
            parse_object(body)
        assert caught.value.message == "malformed JSON: it is nested too deeply"
    assert parse_object(b'{"a":' + b"[" * 100 + b'"\\u0062"' + b"]" * 100 + b"}")


@given(some.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        assert isinstance(parse_object(body), dict)
    except ApiError as error:
        assert error.status == 400
        assert error.message


@pytest.mark.parametrize(
    ("read", "value", "wanted"),
    [
        (text_of, 1, "a text, not a number"),
        (flag_of, "true", "true or false, not a text"),
        (integer_of, 1.5, "a whole number, not a number"),
        (integer_of, True, "a whole number, not true or false"),
        (number_of, "1", "a number, not a text"),
        (object_of, [], "an object, not a list"),
        (list_of, {}, "a list, not an object"),
    ],
)
def test_a_field_of_another_type_is_named(read: Any, value: Any, wanted: str) -> None:
    with pytest.raises(ApiError) as caught:
        read({"x": value}, "x")
    assert (caught.value.status, caught.value.message) == (400, f"`x` must be {wanted}")


@pytest.mark.parametrize(
    ("read", "value"), [(texts_of, ["a", 1]), (objects_of, [{}, "a"]), (integers_of, [1, 1.5])]
)
def test_a_list_of_other_things_is_refused(read: Any, value: Any) -> None:
    with pytest.raises(ApiError, match=r"`x\[\]` must be "):
        read({"x": value}, "x")


@pytest.mark.parametrize("read", [text_of, flag_of, object_of, list_of, integer_of, number_of])
def test_null_is_as_if_it_were_not_there(read: Any) -> None:
    assert read({"x": None}, "x") == read({}, "x")


def test_base64_is_read_with_and_without_its_padding() -> None:
    assert decode_base64("aGk=", "x") == decode_base64("aGk", "x") == b"hi"
    assert decode_base64("aG\nk=", "x") == b"hi"
    for text in ("!!", "a", "é", "aGk=aGk="):
        with pytest.raises(ApiError, match="illegal base64 data"):
            decode_base64(text, "images")


@pytest.mark.parametrize(
    "number", ["1" + "0" * 400, "-1" + "0" * 400, "1e999", "-1E+400", "1" * 310]
)
def test_a_number_beyond_a_double_is_refused_in_plain_words(number: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_json(f'{{"num_ctx": {number}}}')
    assert caught.value.status == 400
    assert caught.value.message == f"malformed JSON: {number[:20]}… is too large a number"


@pytest.mark.parametrize("text", ["1e300", "-1.5E+30", "1e-999", '"1e999"', "9" * 300])
def test_a_number_within_a_double_is_read(text: str) -> None:
    assert parse_json(text) == json.loads(text)
