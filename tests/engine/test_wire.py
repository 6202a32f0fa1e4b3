"""One codec writes and reads whatever leaves a process."""

import json
from typing import Any

import numpy as np
import pytest

from paddock.engine.request import (
    ChatRequest,
    EmbedReply,
    Message,
    ModelSpec,
    PackedVectors,
    Reply,
    Sampling,
    TokenLogprob,
    Usage,
)
from paddock.engine.system.records import replace
from paddock.engine.wire import from_plain, read_json, to_plain, write_json
from paddock.engine.workers.worker_protocol import ChatOrder
from paddock.pipelines.times import Moment
from paddock.runner.core.calls.call_rows import cached_vectors, vectors_columns
from paddock.runner.ledger.entries import CallRow

REQUEST = ChatRequest(ModelSpec("m"), (Message("user", "Look.", images=(b"\x89PNG", b"")),))

REPLY = Reply("Yes.", "stop", Usage(3), "d")


def test_only_what_differs_from_its_default_is_written() -> None:
    assert to_plain(REQUEST) == {
        "model": {"ref": "m"},
        "messages": ({"role": "user", "content": "Look.", "images": ("iVBORw==", "")},),
    }


def test_images_lie_beside_the_order_of_a_worker() -> None:
    request = replace(REQUEST, model=ModelSpec(""), images=(b"JPEG",))
    order = ChatOrder(request, Sampling(), 9)
    head, body = order.pack()
    assert body == b"JPEG\x89PNG"
    assert ChatOrder.unpack(json.loads(json.dumps(head)), body) == order


def test_vectors_are_written_as_float32() -> None:
    reply = EmbedReply(PackedVectors.of([(0.5, -1.0), (2.0, 0.1)]), Usage(3), "d")
    again = read_json(EmbedReply, write_json(reply))
    assert again == reply
    assert again.vectors[0] == (0.5, -1.0)
    assert list(again.vectors[1:]) == [(2.0, pytest.approx(0.1, rel=1e-7))]
    empty = EmbedReply(PackedVectors.of([]), Usage(), "d")
    assert read_json(EmbedReply, write_json(empty)) == empty


def test_calls_of_earlier_ledgers_and_cassettes_are_read() -> None:
    plain = {
        "text": "\u00e9", "done_reason": "stop", "usage": {"prompt_tokens": 3, "load_s": 0.0},
        "digest": "d", "logprobs": [["\u00c3", -0.5, ["\u00c3", -0.5], ["n", -2]], ["\u00a9", 0.0]],
    }  # fmt: skip
    logprobs = (
        TokenLogprob(b"\xc3", -0.5, [(b"\xc3", -0.5), (b"n", -2.0)]),
        TokenLogprob(b"\xa9", 0.0),
    )
    reply = Reply("\u00e9", "stop", Usage(3), "d", logprobs=logprobs)
    assert from_plain(Reply, plain) == reply
    assert from_plain(Reply, {**plain, "logprobs": [["n"]]}).logprobs[0].logprob == 0.0
    assert json.loads(write_json(reply))["logprobs"] == plain["logprobs"]
    packed = b"\x00\x00\x00?\x00\x00\x80\xbf\x00\x00\x00@\xcd\xcc\xcc="
    usage = {"vectors": [2, [0, 16]], "usage": {"prompt_tokens": 3}, "digest": "d"}
    row = CallRow("", "embed", "m", "d", "d", "", packed, None, usage, "", "", "")
    vectors = EmbedReply(PackedVectors.of([(0.5, -1.0), (2.0, 0.1)]), Usage(3), "d")
    assert cached_vectors(row) == vectors
    assert vectors_columns(vectors) == {"usage": usage, "reply": packed}


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
        {"vectors": [1, "AAAAPwA="]},
        {"vectors": ["1", "AAAAPw=="]},
    ],
)
def test_vectors_that_are_cut_are_a_value_error(plain: Any) -> None:
    with pytest.raises(ValueError, match="vectors"):
        from_plain(EmbedReply, {"usage": {}, "digest": "d", **plain})


@pytest.mark.parametrize(
    "logprobs", [[[5]], [["a", "x"]], [["a", 0.1, ["b", 10**400]]], [["a", 0.1, ["b"]]]]
)
def test_probabilities_that_are_none_are_a_value_error(logprobs: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_plain(Reply, {**to_plain(REPLY), "logprobs": logprobs})


def test_texts_and_numbers_of_other_kinds_are_written_as_such() -> None:
    today = Moment.of(1_000_000_000, is_date=True)
    request = replace(REQUEST, messages=(Message("user", today),))
    assert read_json(ChatRequest, write_json(request)).messages[0].content == str(today)
    assert to_plain({"share": np.float64(0.5)}) == {"share": 0.5}


def test_vectors_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        PackedVectors.of([(1.0, 2.0), (3.0, 4.0, 5.0)])
