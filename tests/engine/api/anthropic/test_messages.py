"""Anthropic's own Python client against a live service: what its users write, unchanged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.live import CHAT, COUNTING, VECTORS, Live
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:  # its import takes 1.5 s, which other processes of the tests shall not spend
    from anthropic import Anthropic

# The newest clients know it no more, but send whatever they are told.
GREEDY: Any = {"temperature": 0.0}

HI: Any = [{"role": "user", "content": "Say hello."}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "Tell the weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
    },
}


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[Anthropic]:
    from anthropic import Anthropic, DefaultHttpxClient

    with Anthropic(
        base_url=live.url,
        api_key="none",
        max_retries=0,
        http_client=DefaultHttpxClient(trust_env=False),
    ) as client:
        yield client


def test_a_message_is_answered(client: Anthropic) -> None:
    message = client.messages.create(model=CHAT, max_tokens=8, messages=HI, extra_body=GREEDY)
    assert message.id.startswith("msg_")
    assert (message.type, message.role, message.model) == ("message", "assistant", CHAT)
    (block,) = message.content
    assert block.type == "text"
    assert block.text
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert 0 < message.usage.output_tokens <= 8
    assert message._request_id is not None


def test_a_stream_says_what_a_whole_message_says(client: Anthropic) -> None:
    options: Any = {"model": CHAT, "max_tokens": 16, "messages": COUNTING, "extra_body": GREEDY}
    whole = client.messages.create(**options)
    with client.messages.stream(**options) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    assert len(pieces) > 1
    assert "".join(pieces) == whole.content[0].text
    assert [block.type for block in message.content] == ["text"]
    assert message.stop_reason == whole.stop_reason
    n_prompt = message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)
    counted = client.messages.count_tokens(model=CHAT, messages=options["messages"])
    assert n_prompt == counted.input_tokens


def test_a_streams_beginning_tells_how_long_its_prompt_is(client: Anthropic) -> None:
    n_counted = client.messages.count_tokens(model=CHAT, messages=HI).input_tokens
    events = list(client.messages.create(model=CHAT, max_tokens=4, messages=HI, stream=True))
    assert [event.type for event in events[:3]] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
    ]
    assert [event.type for event in events[-3:]] == [
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert events[0].type == "message_start"
    assert events[0].message.usage.input_tokens == n_counted


def test_a_stop_sequence_is_told(client: Anthropic) -> None:
    message = client.messages.create(
        model=CHAT,
        max_tokens=40,
        extra_body=GREEDY,
        messages=[
            {"role": "user", "content": "Count from 1 to 9."},
            {"role": "assistant", "content": "1, 2, 3, 4,"},
        ],
        stop_sequences=["7", "zebra"],
    )
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "7")
    assert "7" not in message.content[0].text  # type: ignore[union-attr]


def test_an_answer_that_is_begun_goes_on(client: Anthropic) -> None:
    begun: Any = [*HI, {"role": "assistant", "content": "Hello, my name is"}]
    message = client.messages.create(model=CHAT, max_tokens=8, messages=begun, extra_body=GREEDY)
    (block,) = message.content
    assert block.type == "text"
    assert "name is" not in block.text
    n_open = client.messages.count_tokens(model=CHAT, messages=HI).input_tokens
    assert client.messages.count_tokens(model=CHAT, messages=begun).input_tokens > n_open


def test_a_tool_that_must_be_called_is_called(client: Anthropic) -> None:
    options: Any = {
        "model": CHAT,
        "max_tokens": 100,
        "extra_body": GREEDY,
        "tools": [WEATHER],
        "messages": [{"role": "user", "content": "How is the weather in Paris?"}],
        "tool_choice": {"type": "tool", "name": "get_weather"},
    }
    message = client.messages.create(**options)
    (call,) = message.content
    assert call.type == "tool_use"
    assert call.name == "get_weather"
    assert isinstance(call.input, dict)
    assert set(call.input) == {"city"}
    assert message.stop_reason == "tool_use"
    with client.messages.stream(**options) as stream:
        streamed = stream.get_final_message()
    (again,) = streamed.content
    assert again.type == "tool_use"
    assert again.input == call.input
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "22 degrees"}
    messages = [
        *options["messages"],
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    final = client.messages.create(model=CHAT, max_tokens=8, messages=messages, tools=[WEATHER])
    assert final.usage.input_tokens + (final.usage.cache_read_input_tokens or 0) > 50


def test_an_answer_matches_a_schema(client: Anthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "n": {"type": "integer"}},
        "required": ["name", "n"],
        "additionalProperties": False,
    }
    message = client.messages.create(
        model=CHAT,
        max_tokens=80,
        messages=[{"role": "user", "content": "Name a city and its number of people."}],
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert set(json.loads(message.content[0].text)) == {"name", "n"}  # type: ignore[union-attr]


THINKER = """{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking %}<think>
{% endif %}{% endif %}"""


def test_a_model_that_can_thinks_where_it_is_asked_to(live: Live, client: Anthropic) -> None:
    with live.client() as http:
        made = http.post(
            "/api/create", json={"model": "thinker", "from": CHAT, "template": THINKER}
        )
        assert '"success"' in made.text
    options: Any = {"model": "thinker", "max_tokens": 12, "messages": HI, "extra_body": GREEDY}
    assert [block.type for block in client.messages.create(**options).content] == ["text"]
    options["thinking"] = {"type": "adaptive"}
    options["messages"] = [  # so that it thinks the same each time, by 3 in logits
        {**turn, "content": turn["content"].replace("1,", "<think>\n1,")} for turn in COUNTING
    ]
    whole = client.messages.create(**options)
    (thought,) = whole.content
    assert thought.type == "thinking"
    assert thought.thinking
    with client.messages.stream(**options) as stream:
        (again,) = stream.get_final_message().content
    assert again.type == "thinking"
    assert (again.thinking, again.signature) == (thought.thinking, thought.signature)
    messages: Any = [*HI, {"role": "assistant", "content": whole.content}, *HI]
    n_with = client.messages.count_tokens(model="thinker", messages=messages).input_tokens
    messages[1] = {"role": "assistant", "content": ""}
    n_without = client.messages.count_tokens(model="thinker", messages=messages).input_tokens
    assert n_with > n_without


def test_errors_have_anthropics_shape(client: Anthropic) -> None:
    from anthropic import BadRequestError, NotFoundError

    with pytest.raises(NotFoundError) as missing:
        client.messages.create(model="nobody", max_tokens=4, messages=HI)
    body: Any = missing.value.body
    assert body["type"] == "error"
    assert body["error"] == {"type": "not_found_error", "message": "model 'nobody' not found"}
    assert body["request_id"].startswith("req_")
    with pytest.raises(BadRequestError) as refused:
        client.messages.create(model=VECTORS, max_tokens=4, messages=HI)
    body = refused.value.body
    assert body["error"]["type"] == "invalid_request_error"
    assert "does not support chat" in body["error"]["message"]
    with pytest.raises(BadRequestError) as long:
        client.messages.create(
            model=CHAT, max_tokens=4, messages=[{"role": "user", "content": "word " * 9000}]
        )
    body = long.value.body
    assert body["error"]["message"].startswith("prompt is too long: 90")


def test_a_thread_and_a_tool_run_go_on_with_the_whole_conversation(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest clients keep conversations on the server until it says that it keeps none."""
    import httpx2
    from anthropic import Anthropic, beta_tool

    bodies = list[dict[str, Any]]()

    class Seen(httpx2.HTTPTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            request.read()
            answer = super().handle_request(request)
            if answer.status_code == 200:
                bodies.append(json.loads(request.content))
            return answer

    @beta_tool
    def get_weather(city: str) -> str:
        """Tell the weather of a city."""
        return f"Rain in {city}."

    with Anthropic(
        base_url=live.url,
        api_key="none",
        max_retries=0,
        http_client=httpx2.Client(transport=Seen(), timeout=PATIENCE_S),
    ) as client:
        thread = client.beta.messages.thread(
            model=CHAT,
            max_tokens=8,
            system="Be brief.",
            unsupported_request_behavior="continue_unthreaded",
        )
        for text in ("My name is Ann.", "What is my name?"):
            assert thread.send({"role": "user", "content": text}).content
        assert [len(body["messages"]) for body in bodies] == [1, 3]
        assert all("thread" not in body and body["system"] for body in bodies)
        bodies.clear()
        runner = client.beta.messages.tool_runner(
            model=CHAT,
            max_tokens=40,
            messages=HI,
            tools=[get_weather],
            tool_choice={"type": "tool", "name": "get_weather"},
            max_iterations=2,
        )
        messages = list(runner)
    assert len(messages) == 2
    assert [len(body["messages"]) for body in bodies] == [1, 3]
    assert bodies[1]["messages"][2]["content"][0]["type"] == "tool_result"
    assert all("thread" not in body and body["tools"] for body in bodies)
