"""Bodies: whatever comes is read as JSON or refused with a sentence."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.api import json_body
from paddock.engine.api.errors import ApiError
from paddock.engine.api.json_body import parse_json, parse_object


def test_null_is_an_empty_object_and_a_byte_order_mark_is_no_fault() -> None:
    assert parse_object(b" null ") == {}
    assert parse_object(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text() | st.text('\\",:[{}] ')


@given(
    st.recursive(PLAIN | TEXTS, lambda of: st.lists(of) | st.dictionaries(TEXTS, of)), st.booleans()
)
def test_what_json_writes_is_read(value: Any, is_ascii: bool) -> None:
    assert repr(parse_json(json.dumps(value, ensure_ascii=is_ascii).encode())) == repr(value)


@given(st.lists(TEXTS | st.integers(0, 9)) | st.dictionaries(TEXTS, TEXTS | st.lists(TEXTS)))
def test_values_of_a_long_body_are_counted_whatever_its_texts_have(value: Any) -> None:
    inner = [] if isinstance(value, list) else value.values()
    n_values = 1 + len(value) + sum(len(of) for of in inner if isinstance(of, list))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_body, "COUNTED_BYTES", 0)
        patch.setattr(json_body, "MOST_VALUES", 2 * n_values + 1)  # an empty list counts as two
        assert parse_json(json.dumps(value).encode()) == value
        patch.setattr(json_body, "MOST_VALUES", n_values - 3)
        if n_values > 4:
            with pytest.raises(ApiError):
                parse_json(json.dumps(value).encode())


@pytest.mark.parametrize("n", [129, 500, 980, 5000, 200_000])
def test_what_is_nested_too_deeply_is_refused(n: int) -> None:
    for begins, ends in ((b"[", b"]"), (b'{"\\u0061":', b"}")):
        body = b'{"a":' + begins * n + b"1" + ends * n + b"}"
        with pytest.raises(ApiError) as caught:
            parse_object(body)
        assert caught.value.message == "malformed JSON: it is nested too deeply"
    assert parse_object(b'{"a":' + b"[" * 100 + b'"\\u0062"' + b"]" * 100 + b"}")


@pytest.mark.parametrize(
    "body",
    [
        {
            "model": "a",
            "e": [1e5, -2, True, None, "\u00e4\\n", {}, [], {"B": [0.5]}],
            "x": "y" * 99,
        },
        {"a": [[[{"b": i, "c": [str(i)]}] for i in range(20)]]},
    ],
)
def test_a_long_body_is_read_as_a_short_one(
    body: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = json.dumps(body).encode()
    monkeypatch.setattr(json_body, "COUNTED_BYTES", 10)
    assert parse_object(raw) == body
    for broken in (raw[:-1], raw[:-5] + b"}", raw.replace(b"[", b"[,", 1)):
        with pytest.raises(ApiError) as caught:
            parse_object(broken)
        assert caught.value.message.startswith("malformed JSON: ")


def test_a_long_body_of_many_values_is_refused_before_any_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_body, "COUNTED_BYTES", 10)
    monkeypatch.setattr(json_body, "MOST_VALUES", 20)
    many: dict[str, Any] = {str(number): {} for number in range(30)}
    for body in ({"a": [0] * 30}, {"a": many}, {"a": [[[0]]] * 7}, {'"\\': ["\\"] * 30}):
        with pytest.raises(ApiError) as caught:
            parse_object(json.dumps(body).encode())
        assert caught.value.message == "the body has more than 20 values"
    assert parse_object(json.dumps({"a": [0] * 18}).encode())
    assert parse_object(json.dumps({"a": '[{,"\\' * 30}).encode())  # text is no value
    with pytest.raises(ApiError, match="malformed JSON: Unterminated string"):
        parse_object(b'{"a": "' + b'[,\\"' * 9)
    monkeypatch.setattr(json_body, "MOST_VALUES", 2000)
    with pytest.raises(ApiError) as caught:
        parse_object(json.dumps(dict.fromkeys(map(str, range(1001)))).encode())
    assert caught.value.message == "the body has 1,001 fields; at most 1,000 are read"


@pytest.mark.parametrize(
    "number", ["1" + "0" * 400, "-1" + "0" * 400, "1e999", "-1E+400", "1" * 310]
)
def test_a_number_beyond_a_double_is_refused_in_plain_words(number: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_json(b'{"num_ctx": %s}' % number.encode())
    assert caught.value.status == 400
    assert caught.value.message == f"malformed JSON: {number[:20]}… is too large a number"
