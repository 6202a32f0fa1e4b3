"""One codec writes and reads whatever leaves a process."""

from typing import Any

import pytest

from paddock.engine.request import ChatRequest, EmbedReply, Message, ModelSpec, Reply, Usage
from paddock.engine.wire import from_plain, read_json, to_plain, write_json

REQUEST = ChatRequest(ModelSpec("m"), (Message("user", "Look.", images=(b"\x89PNG", b"")),))

REPLY = Reply("Yes.", "stop", Usage(3), "d")


def test_only_what_differs_from_its_default_is_written() -> None:
    assert to_plain(REQUEST) == {
        "model": {"ref": "m"},
        "messages": [{"role": "user", "content": "Look.", "images": ["iVBORw==", ""]}],
    }


def test_bytes_lie_in_a_body_where_there_is_one() -> None:
    body = bytearray(b"..")
    plain = to_plain(REQUEST, body)
    assert plain["messages"][0]["images"] == [[2, 4], [6, 0]]
    assert body == b"..\x89PNG"
    assert from_plain(ChatRequest, plain, bytes(body)) == REQUEST


def test_vectors_are_written_as_float32() -> None:
    reply = EmbedReply(((0.5, -1.0), (2.0, 0.1)), Usage(3), "d")
    first, second = read_json(EmbedReply, write_json(reply)).vectors
    assert (first, second[0]) == ((0.5, -1.0), 2.0)
    assert second[1] == pytest.approx(0.1, rel=1e-7)
    empty = EmbedReply((), Usage(), "d")
    assert read_json(EmbedReply, write_json(empty)) == empty


def test_a_name_that_is_not_known_is_passed_over() -> None:
    assert from_plain(Message, {"role": "user", "content": "", "mood": "good"}) == Message(
        "user", ""
    )


@pytest.mark.parametrize(
    "plain",
    [
        None, [], {"role": "user"}, {"role": 1, "content": ""},
        {"role": "user", "content": "", "images": "no list"},
        {"role": "user", "content": "", "images": ["no base64!"]},
        {"role": "user", "content": "", "tool_calls": [{"name": "f", "arguments": []}]},
    ],
)  # fmt: skip
def test_what_is_none_of_the_kind_is_a_value_error(plain: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_plain(Message, plain)


@pytest.mark.parametrize(
    "plain",
    [
        {"vectors": [10**12, ""]},
        {"vectors": [-1, ""]},
        {"vectors": [2, "AAAAPw=="]},
        {"vectors": [2, [0, 8]]},
    ],
)
def test_vectors_that_are_cut_are_a_value_error(plain: Any) -> None:
    with pytest.raises(ValueError, match=r"vectors|cut"):
        from_plain(EmbedReply, {"usage": {}, "digest": "d", **plain})


@pytest.mark.parametrize(
    "logprobs", [[[5]], [["a", "x"]], [["a", 0.1, ["b", 10**400]]], [["a", 0.1, ["b"]]]]
)
def test_probabilities_that_are_none_are_a_value_error(logprobs: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_plain(Reply, {**to_plain(REPLY), "logprobs": logprobs})
