"""What crosses between a pool and who asks it: the same on both sides."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine import errors
from paddock.engine.backends.rpc import WireLine, read_line, write_line
from paddock.engine.errors import (
    BadRequest,
    Busy,
    DeadlineExceeded,
    EngineError,
    ManifestBroken,
    ModelNotFound,
    PromptTooLong,
    WorkerLost,
    pack_error,
    read_error,
)
from paddock.engine.request import (
    ChatRequest,
    Constraint,
    EmbedReply,
    Message,
    ModelFacts,
    ModelSpec,
    PackedVectors,
    Tool,
    ToolCall,
    Usage,
)
from paddock.engine.wire import read_json, write_json

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    content=TEXTS,
    image=st.binary(max_size=20),
    total_s=st.none() | st.floats(0.1, 1e6),
    think=st.sampled_from([None, True, False, "low"]),
    arguments=st.dictionaries(TEXTS, st.none() | st.booleans() | st.integers() | TEXTS),
)
def test_a_chat_arrives_as_it_was_sent(
    content: str, image: bytes, total_s: float | None, think: Any, arguments: dict[str, Any]
) -> None:
    request = ChatRequest(
        ModelSpec("m", n_ctx_tokens=512, keep_alive_s=-1.0, params={"temperature": 0.5}),
        (
            Message("user", content, images=(image,)),
            Message("assistant", "", tool_calls=(ToolCall("look", arguments, "1"),)),
        ),
        params={"seed": 7},
        priority="batch",
        total_s=total_s,
        tools=(Tool("look", "Looks.", {"type": "object"}),),
        constraint=Constraint("regex", "a+"),
        think=think,
        prompt_tokens=(1, 2),
    )
    assert read_json(ChatRequest, write_json(request)) == request


@given(st.lists(st.lists(st.floats(allow_nan=False, width=32), min_size=3, max_size=3), max_size=4))
def test_vectors_arrive_to_the_last_bit(rows: list[list[float]]) -> None:
    reply = EmbedReply(PackedVectors.of(rows), Usage(5, load_s=0.25), "d", (1, 2), (0, 3))
    assert read_line(write_line(WireLine(embedded=reply))).embedded == reply


def test_a_model_has_the_same_identity_on_both_sides() -> None:
    # Values of a Modelfile count for it by what Python makes of them, tuples and all.
    facts = ModelFacts(
        "m", "/m", "d", 1, "llama", "chat", 4096, 4096,
        params={"stop": ("a", "b"), "temperature": 1.0, "top_k": 5},
        messages=(Message("user", "hi"),), adapters=("/a",),
    )  # fmt: skip
    seen = read_line(write_line(WireLine(facts=facts))).facts
    assert seen == facts
    assert seen is not None and seen.identity == facts.identity


def test_half_a_character_is_no_reason_to_fail() -> None:
    request = ChatRequest(ModelSpec("m"), (Message("user", "a\ud800b", images=(b"\xff",)),))
    read = read_json(ChatRequest, write_json(request))
    assert read.messages[0].content[0] == "a"
    assert read.messages[0].images == (b"\xff",)


@pytest.mark.parametrize(
    "error",
    [
        ModelNotFound("m", ["a", "b"]),
        PromptTooLong(10, 5, 12),
        WorkerLost("m", "it was killed"),
        DeadlineExceeded("idle", 3.0),
        ManifestBroken("/p", "no JSON"),
        Busy.of("m", 5),
        BadRequest("no"),
    ],
)
def test_an_error_comes_back_as_itself_with_its_data(error: EngineError) -> None:
    line = read_line(write_line(WireLine(error=pack_error(error))))
    assert line.error is not None
    again = read_error(line.error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_an_error_that_is_not_the_engines_tells_its_name() -> None:
    again = read_error(pack_error(KeyError("x")))
    assert type(again) is EngineError
    assert str(again) == "the pool met an error of its own: KeyError: 'x'"


def test_no_other_class_can_be_made_of_an_error() -> None:
    for name in ("annotations", "Sequence", "Literal", "__import__", "Exception"):
        again = read_error({"kind": name, "text": "t", "data": {}})
        assert type(again) is EngineError
    assert {type(read_error({"kind": n, "text": "", "data": {}})) for n in ("Busy",)} == {
        errors.Busy
    }


def test_a_request_that_is_none_is_a_value_error() -> None:
    for body in (b"", b"[]", b"{}", b'{"model": 3, "messages": []}', b"\xff"):
        with pytest.raises(ValueError, match=r"."):
            read_json(ChatRequest, body)
