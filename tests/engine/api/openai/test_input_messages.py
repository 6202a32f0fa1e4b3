"""OpenAI's messages and items, and the engine's."""

import base64
from typing import Any

import pytest

from paddock.engine.api.errors import InvalidValue
from paddock.engine.api.openai.chat_completions import read_chat
from paddock.engine.api.openai.requests import ApiCaller
from paddock.engine.api.openai.responses_api import read_response
from paddock.engine.request import Message, ToolCall

PIXEL = b"\x89PNG\r\n\x1a\n and so on"
URI = f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"


def chat(*messages: Any) -> tuple[Message, ...]:
    return read_chat({"model": "m", "messages": list(messages)}, ApiCaller()).requests[0].messages


def refused(*messages: Any) -> tuple[str, str | None]:
    with pytest.raises(InvalidValue) as caught:
        chat(*messages)
    return caught.value.message, caught.value.param


def items(value: Any, **extra: Any) -> tuple[Message, ...]:
    return read_response({"model": "m", "input": value, **extra}, ApiCaller()).requests[0].messages


def test_parts_become_one_text_and_its_images() -> None:
    parts = [
        {"type": "text", "text": "What is"},
        {"type": "image_url", "image_url": {"url": URI}},
        {"type": "text", "text": "this?"},
        {"type": "image_url", "image_url": URI},
    ]
    (message,) = chat({"role": "user", "content": parts})
    assert (message.content, message.images) == ("What is\nthis?", (PIXEL, PIXEL))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://example.org/cat.png", "image URLs are not fetched"),
        ("http://169.254.169.254/latest", "image URLs are not fetched"),
        ("file:///etc/passwd", "image URLs are not fetched"),
        ("data:image/png,raw", "the data: URI must be base64"),
        ("data:image/png;base64,###", "the image is not valid base64."),
        ("", "image URLs are not fetched"),
    ],
)
def test_an_image_that_is_not_in_the_request_is_refused(url: str, why: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    message, param = refused({"role": "user", "content": [part]})
    assert why in message
    assert param == "messages[0].content[0].image_url.url"


def test_a_result_gets_the_name_of_its_call() -> None:
    call = {"id": "call_1", "type": "function",
            "function": {"name": "add", "arguments": '{"a": 1}'}}  # fmt: skip
    called, answered = chat(
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "3"},
    )
    assert called == Message("assistant", "", tool_calls=(ToolCall("add", {"a": 1}, "call_1"),))
    assert (answered.tool_name, answered.tool_call_id, answered.content) == ("add", "call_1", "3")


def test_empty_arguments_are_none_and_broken_ones_are_refused() -> None:
    def call(arguments: str) -> Any:
        function = {"name": "f", "arguments": arguments}
        return {"role": "assistant", "tool_calls": [{"function": function}]}

    assert chat(call(""))[0].tool_calls == (ToolCall("f", {}),)
    for broken in ("{", "[1]", "7"):
        message, param = refused(call(broken))
        assert "invalid tool call arguments" in message
        assert param == "messages[0].tool_calls[0].function.arguments"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "wizard", "content": "x"}, "messages[0].role"),
        ({"content": "x"}, "messages[0].role"),
        ({"role": 7}, "messages[0].role"),
        ({"role": "user", "content": 7}, "messages[0].content"),
        ({"role": "user", "content": ["x"]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"text": "x"}]}, "messages[0].content[0].type"),
        ({"role": "assistant", "tool_calls": [{}]}, "messages[0].tool_calls[0].function"),
        ("x", "messages[0]"),
    ],
)
def test_a_wrong_message_is_refused_at_its_place(message: Any, param: str) -> None:
    assert refused(message)[1] == param


# Items of Responses


def test_the_items_of_one_answer_are_one_turn() -> None:
    turns = items(
        [
            {"role": "user", "content": [{"type": "input_text", "text": "1 + 2?"}]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Add them."}]},
            {"type": "message", "role": "assistant",
             "content": [{"type": "output_text", "text": "I ask."}]},
            {"type": "function_call", "call_id": "c1", "name": "add", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "3"},
        ]
    )  # fmt: skip
    assert turns == (
        Message("user", "1 + 2?"),
        Message(
            "assistant", "I ask.", reasoning="Add them.", tool_calls=(ToolCall("add", {}, "c1"),)
        ),
        Message("tool", "3", tool_name="add", tool_call_id="c1"),
    )  # fmt: skip


UPLOADED = {"type": "input_image", "file_id": "file-1"}


@pytest.mark.parametrize(
    "value", [None, [], 7, [{"type": "computer_call"}], [{"role": "user", "content": [UPLOADED]}]]
)
def test_an_input_that_cannot_be_answered_is_refused(value: Any) -> None:
    with pytest.raises(InvalidValue):
        items(value)
