import json
from typing import Any

import pytest

from paddock.engine.api.anthropic.messages import (
    MessageFormat,
    MessageStreamWriter,
    reply_as_message,
)
from paddock.engine.request import Chunk, DoneReason, Reply, ToolCall, Usage

CALLS = (ToolCall("f", {"x": 1}, "id1"), ToolCall("g", {}, "id2"))
USAGE = Usage(prompt_tokens=10, prompt_reused_tokens=4, completion_tokens=6)
STYLE = MessageFormat("smol", 6)


def events(chunks: list[Chunk], reply: Reply, style: MessageFormat = STYLE) -> list[dict[str, Any]]:
    """Return what a client reads, each event's name checked."""
    stream_writer = MessageStreamWriter(style)
    raw = list(stream_writer.begin(7))
    for chunk in chunks:
        raw += stream_writer.chunk(chunk)
    raw += stream_writer.end(reply)
    read = []
    for raw_event in raw:
        head, data = raw_event.decode().removesuffix("\n\n").split("\ndata: ", 1)
        read.append(json.loads(data))
        assert head == f"event: {read[-1]['type']}"
    return read


def test_a_stream_has_anthropics_events_in_their_order() -> None:
    chunks = [
        Chunk("", reasoning="Hm"),
        Chunk("", reasoning="."),
        Chunk("So"),
        Chunk(":", tool_calls=CALLS),
        Chunk("!"),
    ]
    sent = events(chunks, Reply("So:!", "stop", USAGE, "d", "Hm.", CALLS))
    start, *blocks, delta, stop = sent
    assert start["message"] == {
        "id": start["message"]["id"], "type": "message", "role": "assistant", "model": "smol",
        "content": [], "stop_reason": None, "stop_sequence": None,
        "usage": {"input_tokens": 7, "cache_creation_input_tokens": 0,
                  "cache_read_input_tokens": 0, "output_tokens": 0, "queue_duration": 0},
    }  # fmt: skip
    assert [(block["type"], block["index"]) for block in blocks] == [
        ("content_block_start", 0), ("content_block_delta", 0), ("content_block_delta", 0),
        ("content_block_delta", 0), ("content_block_stop", 0),
        ("content_block_start", 1), ("content_block_delta", 1), ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("content_block_start", 2), ("content_block_delta", 2), ("content_block_stop", 2),
        ("content_block_start", 3), ("content_block_delta", 3), ("content_block_stop", 3),
        ("content_block_start", 4), ("content_block_delta", 4), ("content_block_stop", 4),
    ]  # fmt: skip
    started = [block["content_block"] for block in blocks if block["type"] == "content_block_start"]
    assert started == [
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "text", "text": ""},
        {"type": "tool_use", "id": "id1", "name": "f", "input": {}},
        {"type": "tool_use", "id": "id2", "name": "g", "input": {}},
        {"type": "text", "text": ""},
    ]
    deltas = [block["delta"] for block in blocks if block["type"] == "content_block_delta"]
    assert deltas[0] == {"type": "thinking_delta", "thinking": "Hm"}
    assert deltas[2]["type"] == "signature_delta"
    assert deltas[2]["signature"]
    assert deltas[5] == {"type": "input_json_delta", "partial_json": '{"x": 1}'}
    assert delta["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert delta["usage"]["input_tokens"] == 6
    assert delta["usage"]["cache_read_input_tokens"] == 4
    assert delta["usage"]["output_tokens"] == 6
    assert stop == {"type": "message_stop"}


def test_reasoning_may_be_left_out_but_not_that_there_was_some() -> None:
    style = MessageFormat("smol", 6, shows_thinking=False)
    reply = Reply("Yes", "stop", USAGE, "d", "Hm.")
    thinking, _ = reply_as_message(reply, style)["content"]
    assert thinking["thinking"] == ""
    assert thinking["signature"]
    sent = events([Chunk("", reasoning="Hm."), Chunk("Yes")], reply, style)
    kinds = [event["delta"]["type"] for event in sent if event["type"] == "content_block_delta"]
    assert kinds == ["signature_delta", "text_delta"]


@pytest.mark.parametrize(
    ("done", "stop", "max_tokens", "reason", "sequence"),
    [
        ("stop", "", 6, "end_turn", None),
        ("stop", "END", 6, "stop_sequence", "END"),
        ("length", "", 6, "max_tokens", None),
        ("length", "", 99, "model_context_window_exceeded", None),
        ("repetition", "", 99, "max_tokens", None),
    ],
)
def test_why_it_ended_is_told(
    done: DoneReason, stop: str, max_tokens: int, reason: str, sequence: str | None
) -> None:
    reply = Reply("x", done, USAGE, "d", stop=stop)
    body = reply_as_message(reply, MessageFormat("smol", max_tokens))
    assert (body["stop_reason"], body["stop_sequence"]) == (reason, sequence)
    *_, delta, _ = events([], reply, MessageFormat("smol", max_tokens))
    mark = {"stopped_by": "repetition"} if done == "repetition" else {}
    assert delta["delta"] == {"stop_reason": reason, "stop_sequence": sequence, **mark}
