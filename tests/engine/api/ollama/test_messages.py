"""Turns, tools and calls as Ollama's JSON has them."""

from paddock.engine.api.ollama.requests import MessageBody, ToolBody, message_value
from paddock.engine.request import Chunk, ToolCall


def test_a_turn_is_read_with_its_calls_and_images() -> None:
    call = {"id": "call_1", "function": {"name": "f", "arguments": {"b": 1, "a": 2}}}
    as_text = {"function": {"Name": "g", "arguments": '{"x": 1}'}}
    turn = MessageBody.read(
        {"Role": "ASSISTANT", "content": None, "thinking": "hm", "images": ["aGk="],
         "tool_calls": [call, as_text]},
    ).message()  # fmt: skip
    assert (turn.role, turn.content, turn.reasoning, turn.images) == (
        "assistant", "", "hm", (b"hi",),
    )  # fmt: skip
    assert turn.tool_calls == (ToolCall("f", {"b": 1, "a": 2}, "call_1"), ToolCall("g", {"x": 1}))
    assert list(turn.tool_calls[0].arguments) == ["b", "a"], "in their order"
    fields = {"role": "tool", "content": "1", "tool_name": "f", "tool_call_id": "c"}
    result = MessageBody.read(fields).message()
    assert (result.tool_name, result.tool_call_id) == ("f", "c")


def test_a_tool_needs_nothing_but_a_name() -> None:
    tool = ToolBody.read({"function": {"name": "f"}}).tool()
    assert (tool.name, tool.description, tool.parameters) == ("f", "", {})


def test_a_call_is_written_with_its_place_among_the_others() -> None:
    chunk = Chunk("", tool_calls=(ToolCall("f", {"a": 1}, "cab12cd34"),))
    assert message_value(chunk, iter([1]))["tool_calls"] == [
        {"id": "call_ab12cd34", "function": {"index": 1, "name": "f", "arguments": {"a": 1}}}
    ]
