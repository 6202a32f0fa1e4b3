"""How answers are written, whole and piece by piece."""

import json
from typing import Any

from paddock.engine.api.openai.chat_completions import GenerationCall, Stamp, read_chat
from paddock.engine.api.openai.requests import ApiCaller
from paddock.engine.api.openai.responses_api import read_response
from paddock.engine.request import Chunk, Reply, ToolCall, Usage

STAMP = Stamp("id-1", 1_700_000_000)
TOOL = {"type": "function", "function": {"name": "add"}}
FLAT = {"type": "function", "name": "add"}
CALLS = (ToolCall("add", {"a": "ü"}, "c1"), ToolCall("add", {}, "c2"))


def chat(**fields: Any) -> GenerationCall:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return read_chat(body, ApiCaller())


def response(**fields: Any) -> GenerationCall:
    return read_response({"model": "m", "input": "Hi", **fields}, ApiCaller())


def reply(text: str = "", **extra: Any) -> Reply:
    usage = Usage(prompt_tokens=10, prompt_reused_tokens=4, completion_tokens=3, queue_s=0.5)
    return Reply(text, extra.pop("done_reason", "stop"), usage, "digest", **extra)


def spoken(call: GenerationCall, *pieces: tuple[int, Chunk | Reply]) -> list[Any]:
    """Return the data of every event; names must be what the data calls itself."""
    stream_writer = call.stream_writer(STAMP)
    events = [*stream_writer.begin()]
    for index, piece in pieces:
        if isinstance(piece, Reply):
            events += stream_writer.reply(index, piece)
        else:
            events += stream_writer.chunk(index, piece)
    return read([*events, *stream_writer.end()])


def read(events: list[bytes]) -> list[Any]:
    values: list[Any] = []
    for event in b"".join(events).decode().strip().split("\n\n"):
        name, _, data = event.rpartition("data: ")
        value: Any = data if data == "[DONE]" else json.loads(data)
        if name:
            assert name == f"event: {value['type']}\n"
        values.append(value)
    return values


def deltas(events: list[Any]) -> list[Any]:
    return [
        event["choices"][0]["delta"] for event in events if event != "[DONE]" and event["choices"]
    ]


def test_one_call_is_told_where_they_may_not_be_parallel() -> None:
    call = chat(tools=[TOOL], parallel_tool_calls=False)
    (choice,) = call.body([reply(tool_calls=CALLS)], STAMP)["choices"]
    assert [tool_call["id"] for tool_call in choice["message"]["tool_calls"]] == ["c1"]
    sent = deltas(spoken(call, (0, Chunk("", tool_calls=CALLS)), (0, reply(tool_calls=CALLS))))
    assert [delta["tool_calls"][0]["id"] for delta in sent if "tool_calls" in delta] == ["c1"]
    items = response(tools=[FLAT], parallel_tool_calls=False).body(
        [reply(tool_calls=CALLS)], STAMP
    )["output"]
    assert [item["call_id"] for item in items] == ["c1"]


def test_an_answer_that_went_in_circles_was_not_finished() -> None:
    circles = reply("la la", done_reason="repetition", fingerprint="fp_1")
    (whole,) = chat().body([circles], STAMP)["choices"]
    *_, streamed, _ = spoken(chat(stream=True), (0, circles))
    assert streamed["system_fingerprint"] == "fp_1"
    for choice in (whole, *streamed["choices"]):
        assert (choice["finish_reason"], choice["stopped_by"]) == ("length", "repetition")
    assert response().body([circles], STAMP)["incomplete_details"] == {
        "reason": "max_output_tokens", "stopped_by": "repetition"
    }  # fmt: skip


# Responses


def test_a_response_in_events_has_the_order_that_clients_expect() -> None:
    events = spoken(
        response(stream=True, tools=[FLAT]),
        (0, Chunk("", reasoning="Hm.")),
        (0, Chunk("Hel")),
        (0, Chunk("lo")),
        (0, Chunk("", tool_calls=CALLS[:1])),
        (0, reply("Hello", reasoning="Hm.", tool_calls=CALLS[:1])),
    )
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(20))
    places = [event["output_index"] for event in events if "output_index" in event]
    assert places == [0] * 6 + [1] * 7 + [2] * 4
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert events[-1]["response"]["output"] == done
    assert [item["type"] for item in done] == ["reasoning", "message", "function_call"]
    assert {event["response"]["id"] for event in events if "response" in event} == {"id-1"}


def test_a_response_at_its_limit_is_incomplete() -> None:
    call = response(stream=True)
    cut = reply("Hel", done_reason="length")
    events = spoken(call, (0, Chunk("Hel")), (0, cut))
    assert events[-1]["type"] == "response.incomplete"
    for body in (events[-1]["response"], call.body([cut], STAMP)):
        assert body["status"] == "incomplete"
        assert body["incomplete_details"] == {"reason": "max_output_tokens"}
        assert body["output"][0]["status"] == "incomplete"


def test_a_response_repeats_what_was_asked() -> None:
    parameters = {"temperature": 0.0, "top_p": 0.5, "instructions": "Be brief.",
                  "max_output_tokens": 9, "metadata": {"a": "b"}, "tools": [FLAT],
                  "tool_choice": "none"}  # fmt: skip
    body = response(**parameters).body([reply("Hi")], STAMP)
    assert {name: body[name] for name in parameters} == parameters
    assert body["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 13,
        "queue_duration": 500_000_000,
    }
