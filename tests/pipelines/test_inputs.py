from typing import Any

import pytest

from paddock.pipelines.input_values import Input, WrongInput
from paddock.pipelines.keys import InputType
from paddock.pipelines.quantities import (
    parse_keep_alive,
    parse_seconds,
    parse_size_bytes,
    parse_tokens,
)


def declared(kind: InputType, **more: Any) -> Input:
    return Input("x", kind, ("inputs", "x"), **more)


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        *(("str", "5", "5"), ("int", "5", 5), ("int", "-5", -5), ("int", 7, 7)),
        *(("float", "1.5", 1.5), ("float", "2", 2.0), ("float", 3, 3.0)),
        *(("bool", "true", True), ("bool", "No", False), ("bool", "1", True)),
        *(("list", "a, b", ["a", "b"]), ("list", '["a, b", 2]', ["a, b", 2]), ("list", "", [])),
        *(("json", '{"a": [1]}', {"a": [1]}), ("json", {"a": 1}, {"a": 1}), ("path", "a/b", "a/b")),
    ],
)  # fmt: skip
def test_a_text_is_read_as_its_kind(kind: InputType, given: Any, value: Any) -> None:
    found = declared(kind).read(given)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "given", "told"),
    [
        ("int", "5.5", "must be a whole number, not '5.5'"),
        ("int", True, "must be a whole number, not 'true'"),
        ("bool", "maybe", "must be true or false, not 'maybe'"),
        ("list", "[1", "must be a list, not '[1'"),
        ("str", 5, "must be text, not '5'"),
        ("dir", "", "must be a path, not ''"),
        ("json", "[1, NaN]", "must be JSON; '[1, NaN]' is incomplete"),
        ("float", "nan", "must be a number, not 'NaN'"),
    ],
)
def test_another_kind_is_refused(kind: InputType, given: Any, told: str) -> None:
    with pytest.raises(WrongInput) as caught:
        declared(kind).read(given)
    assert caught.value.message == told


def test_numbers_stay_within_their_bounds() -> None:
    with pytest.raises(WrongInput, match="must be at least 1, not '0'"):
        declared("int", min=1).read("0")
    with pytest.raises(WrongInput, match=r"must be at most 0\.5, not '0.6'"):
        declared("float", max=0.5).read("0.6")


def test_an_enum_takes_its_values_only() -> None:
    choice = declared("enum", values=("low", 5))
    assert (choice.read("low"), choice.read("5")) == ("low", 5)
    with pytest.raises(WrongInput) as caught:
        choice.read("lwo")
    assert caught.value.message == "cannot be 'lwo'"
    assert caught.value.remedy == "Known: 'low', '5'. Did you mean 'low'?"


def test_a_secret_is_never_told() -> None:
    with pytest.raises(WrongInput) as caught:
        declared("int", is_secret=True).read("hunter2")
    assert str(caught.value) == "must be a whole number, not what was given"


def test_quantities_are_read_as_people_write_them() -> None:
    assert [parse_seconds(text) for text in ("300ms", "30s", "5m", "2h", "1d", "1.5s")] == [
        *(0.3, 30, 300, 7200, 86400, 1.5)
    ]
    assert [parse_size_bytes(text) for text in ("512MiB", "2GiB", "10B", 7)] == [
        2**29,
        2**31,
        10,
        7,
    ]
    assert [parse_tokens(text) for text in ("16k", 2048, "2048")] == [16384, 2048, 2048]
    assert [parse_keep_alive(text) for text in ("15m", 0, -1)] == [900, 0, -1]


@pytest.mark.parametrize("text", ["5", 5, "5x", "s", "-5s", "", None, True, "1e9s", "٣s", [1]])
def test_anything_else_is_no_duration(text: Any) -> None:
    with pytest.raises(ValueError, match=r"must be a duration such as 300ms, 30s, 5m, 2h or 1d"):
        parse_seconds(text)
