"""What Ollama's clients ask, in the engine's words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from paddock.engine.api.clock import expiry, nanoseconds, rfc3339
from paddock.engine.api.errors import ApiError, api_error, dialect_of, error_body
from paddock.engine.api.ollama.asking import meant, read_format, read_think
from paddock.engine.api.ollama.embed import written
from paddock.engine.api.ollama.turns import read_message, read_tools, written_call
from paddock.engine.errors import InvalidName, StoreFull
from paddock.engine.request import Constraint, ToolCall

THINKER, OTHER = frozenset({"completion", "thinking"}), frozenset({"completion"})


@pytest.mark.parametrize(
    ("value", "abilities", "think"),
    [
        (None, THINKER, True),
        (True, THINKER, True),
        (False, THINKER, False),
        ("low", THINKER, "low"),
        ("max", THINKER, "high"),
        (None, OTHER, None),
        (False, OTHER, False),
    ],
)
def test_a_model_that_can_think_does_unless_it_is_told_otherwise(
    value: Any, abilities: frozenset[str], think: Any
) -> None:
    assert read_think(value, "m", abilities) == think


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, '"m" does not support thinking'),
        ("medium", '"m" does not support thinking'),
        ("", 'invalid think value: "" (must be "high", "medium", "low", "max", true, or false)'),
        (1, 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)'),
    ],
)
def test_what_cannot_be_thought_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        read_think(value, "m", OTHER)
    assert (caught.value.status, caught.value.message) == (400, message)


@pytest.mark.parametrize(
    ("value", "constraint"),
    [
        (None, None),
        ("", None),
        ("json", Constraint("json")),
        ({"type": "object"}, Constraint("json_schema", '{"type": "object"}')),
        ({}, Constraint("json_schema", "{}")),
    ],
)
def test_a_format_is_json_or_a_schema(value: Any, constraint: Constraint | None) -> None:
    assert read_format(value) == constraint


def test_a_name_may_say_that_the_model_is_here() -> None:
    assert [name.short for name in meant("a")] == ["a:latest"]
    assert [name.short for name in meant("a:local")] == ["a:local", "a:latest"]
    assert [name.short for name in meant("a:7b:local")] == ["a:7b"]
    assert meant("") == []
    with pytest.raises(InvalidName):
        meant(":local")


def test_a_turn_is_read_with_its_calls_and_images() -> None:
    call = {"id": "call_1", "function": {"name": "f", "arguments": {"b": 1, "a": 2}}}
    as_text = {"function": {"Name": "g", "arguments": '{"x": 1}'}}
    turn = read_message(
        {"Role": "ASSISTANT", "content": None, "thinking": "hm", "images": ["aGk="],
         "tool_calls": [call, as_text]},
    )  # fmt: skip
    assert (turn.role, turn.content, turn.reasoning, turn.images) == (
        "assistant", "", "hm", (b"hi",),
    )  # fmt: skip
    assert turn.tool_calls == (ToolCall("f", {"b": 1, "a": 2}, "call_1"), ToolCall("g", {"x": 1}))
    assert list(turn.tool_calls[0].arguments) == ["b", "a"], "in their order"
    result = read_message({"role": "tool", "content": "1", "tool_name": "f", "tool_call_id": "c"})
    assert (result.tool_name, result.tool_call_id) == ("f", "c")


def test_a_tool_needs_nothing_but_a_name() -> None:
    [tool] = read_tools([{"function": {"name": "f"}}])
    assert (tool.name, tool.description, tool.parameters) == ("f", "", {})


def test_a_call_is_written_with_its_place_among_the_others() -> None:
    assert written_call(ToolCall("f", {"a": 1}, "cab12cd34"), 1) == {
        "id": "call_ab12cd34",
        "function": {"index": 1, "name": "f", "arguments": {"a": 1}},
    }


def test_moments_can_be_read_by_python_and_for_ever_is_three_centuries() -> None:
    moment = datetime(2026, 8, 1, 12, 0, 0, 1, tzinfo=UTC)
    assert rfc3339(moment) == "2026-08-01T12:00:00.000001Z"
    assert datetime.fromisoformat(rfc3339(moment)) == moment
    assert datetime.fromisoformat(expiry(None)).year in (2318, 2319)
    assert nanoseconds(0.000000001) == 1


def test_vectors_are_written_as_json_with_nine_digits() -> None:
    assert written([(0.3333333432674408, -1.0), (1e-8, 0.0)]) == b"[[0.333333343,-1],[1e-08,0]]"


@pytest.mark.parametrize(
    ("path", "dialect", "body"),
    [
        ("/api/chat", "ollama", {"error": "no"}),
        ("/v1/chat/completions", "openai", {"error": {
            "message": "no", "type": "not_found_error", "param": None, "code": None}}),
    ],
)  # fmt: skip
def test_each_dialect_has_its_own_shape_of_errors(
    path: str, dialect: str, body: dict[str, Any]
) -> None:
    assert dialect_of(path) == dialect
    assert error_body(dialect_of(path), ApiError(404, "no")) == body


def test_anthropics_errors_have_an_id() -> None:
    told = error_body(dialect_of("/v1/messages"), ApiError(503, "busy"))
    assert told["error"] == {"type": "overloaded_error", "message": "busy"}
    assert told["request_id"].startswith("req_")


def test_what_would_fail_again_says_that_it_is_not_to_be_tried_again() -> None:
    told = api_error(StoreFull("/models", 0))
    assert (told.status, told.headers["x-should-retry"]) == (507, "false")
