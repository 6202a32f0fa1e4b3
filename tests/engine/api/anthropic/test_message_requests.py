from typing import Any

import pytest

from paddock.engine.api.anthropic.messages import MessagesBody, MessagesRequest
from paddock.engine.request import Message, Priority, Tool

HI = {"model": "smol", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}


def read_messages_request(body: dict[str, Any], priority: Priority) -> MessagesRequest:
    return MessagesBody.read(body).messages_request(priority)


def test_a_wish_becomes_a_request() -> None:
    tool = {"name": "f", "description": "d", "input_schema": SCHEMA}
    extra = {
        "temperature": 0.5, "top_k": 5, "top_p": 0.5, "stop_sequences": ["END", ""],
        "tools": [tool], "tool_choice": {"type": "tool", "name": "f"},
        "metadata": {"user_id": "u"}, "service_tier": "auto",
        "guards_repetition": False,
    }  # fmt: skip
    wish = read_messages_request({**HI, **extra}, "interactive")
    request = wish.request
    assert request.model.ref == "smol:latest"
    assert request.messages == (Message("user", "Hi"),)
    assert request.params == {
        "max_tokens": 9, "temperature": 0.5, "top_k": 5, "top_p": 0.5, "stop": ("END",),
        "guards_repetition": False,
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
    ("extra", "think"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True),
        ({"thinking": {"type": "adaptive"}}, True),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "low"),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, False),
        ({"output_config": {"effort": "xhigh"}}, "high"),
    ],
)
def test_reasoning_is_asked_for(extra: dict[str, Any], think: object) -> None:
    assert read_messages_request({**HI, **extra}, "normal").request.think == think
