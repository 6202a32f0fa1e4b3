from __future__ import annotations

import json
from typing import Any

import pytest

from paddock.engine.api.anthropic.messages import read_messages_request
from paddock.engine.api.errors import ApiError
from paddock.engine.request import Constraint, Message, Tool

HI = {"model": "smol", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}


def test_a_wish_becomes_a_request() -> None:
    tool = {"name": "f", "description": "d", "input_schema": SCHEMA}
    more = {
        "temperature": 0.5, "top_k": 5, "top_p": 0.5, "stop_sequences": ["END", ""],
        "tools": [tool], "tool_choice": {"type": "tool", "name": "f"},
        "metadata": {"user_id": "u"}, "service_tier": "auto",
    }  # fmt: skip
    wish = read_messages_request({**HI, **more}, "interactive")
    request = wish.request
    assert request.model.ref == "smol:latest"
    assert request.messages == (Message("user", "Hi"),)
    assert request.params == {
        "max_tokens": 9, "temperature": 0.5, "top_k": 5, "top_p": 0.5, "stop": ("END",),
    }  # fmt: skip
    assert request.tools == (Tool("f", "d", SCHEMA),)
    assert request.tool_choice == "f"
    assert not request.reserves_answer
    assert not request.truncates
    assert not wish.streams


def test_what_no_one_says_is_anthropics_default() -> None:
    request = read_messages_request(HI, "batch").request
    assert request.priority == "batch"
    assert request.defaults["temperature"] == 1.0
    assert request.tool_choice == "auto"
    assert request.think is False
    assert request.constraint is None
    seeds = {read_messages_request(HI, "normal").request.defaults["seed"] for _ in range(8)}
    assert len(seeds) > 1


@pytest.mark.parametrize(
    ("more", "think"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True),
        ({"thinking": {"type": "adaptive"}}, True),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "low"),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, False),
        ({"output_config": {"effort": "xhigh"}}, "high"),
    ],
)
def test_reasoning_is_asked_for(more: dict[str, Any], think: object) -> None:
    assert read_messages_request({**HI, **more}, "normal").request.think == think


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (None, "auto"),
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
    ],
)
def test_a_choice_of_tools_has_the_engines_word(choice: object, wanted: str) -> None:
    assert (
        read_messages_request({**HI, "tool_choice": choice}, "normal").request.tool_choice == wanted
    )


def test_an_answer_may_have_to_match_a_schema() -> None:
    told = {"type": "json_schema", "schema": SCHEMA}
    for more in ({"output_config": {"format": told}}, {"output_format": told}):
        constraint = read_messages_request({**HI, **more}, "normal").request.constraint
        assert constraint == Constraint("json_schema", json.dumps(SCHEMA))


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"model": ""}, "model is required"),
        ({"max_tokens": None}, "max_tokens is required and must be positive"),
        ({"max_tokens": 0}, "max_tokens is required and must be positive"),
        ({"max_tokens": "9"}, "`max_tokens` must be a whole number, not a text"),
        ({"messages": []}, "messages is required"),
        ({"tools": [{"name": ""}]}, "tools.0.name: is required"),
        (
            {"tools": [{"type": "bash_20250124", "name": "bash"}]},
            "tools.0.type: tools of type 'bash_20250124' are not supported here",
        ),
        (
            {"tool_choice": {"type": "all"}},
            "tool_choice.type: must be 'auto', 'any', 'tool' or 'none'",
        ),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name: is required"),
        (
            {"thinking": {"type": "on"}},
            "thinking.type: must be 'enabled', 'adaptive' or 'disabled'",
        ),
        (
            {"output_config": {"effort": "some"}},
            "output_config.effort: must be one of 'low', 'medium', 'high', 'xhigh', 'max'",
        ),
        (
            {"output_format": {"type": "xml"}},
            "output_config.format: must be a 'json_schema' with its 'schema'",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(more: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ApiError) as caught:
        read_messages_request({**HI, **more}, "normal")
    assert (caught.value.status, caught.value.message) == (400, wanted)
