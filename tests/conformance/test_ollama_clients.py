"""The official Python client against the service: everything that its users do, unchanged."""

import asyncio
from collections.abc import Iterator
from typing import Any

import ollama
import pytest

from tests.engine.pools import SURE_PROMPT
from tests.live import COUNTING, Live

CHAT, VECTORS = "smollm2:135m", "all-minilm"
SHORT = {"num_predict": 8, "temperature": 0}
# Without the penalty of repetitions the likeliest words of these prompts are far ahead.
SURE = {**SHORT, "repeat_penalty": 1.0}

# A template that knows tools, as the makers of models that were trained for them write it.
TOOLS_TEMPLATE = """{% if tools %}<|im_start|>system
You may call functions. To call one, answer with
<tool_call>
{"name": <name>, "arguments": <object>}
</tool_call>
{% for tool in tools %}
{{ tool | tojson }}
{% endfor %}<|im_end|>
{% endif %}{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}{% for call in message.tool_calls %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[ollama.Client]:
    client = ollama.Client(host=live.url, trust_env=False)
    yield client
    client._client.close()


def test_chat(client: ollama.Client) -> None:
    answer = client.chat(CHAT, COUNTING, options=SURE)
    assert answer.message.content
    assert answer["message"]["role"] == "assistant"
    assert answer.done
    assert answer.eval_count
    streamed = list(client.chat(CHAT, COUNTING, options=SURE, stream=True))
    assert "".join(one.message.content or "" for one in streamed) == answer.message.content
    assert streamed[-1].done
    assert streamed[-1].total_duration


def test_generate(client: ollama.Client) -> None:
    asked: Any = {"prompt": SURE_PROMPT, "template": "{{ .Prompt }}", "options": SURE}
    answer = client.generate(CHAT, **asked)
    assert answer.response
    assert answer.context
    streamed = list(client.generate(CHAT, **asked, stream=True))
    assert "".join(one.response or "" for one in streamed) == answer.response
    assert streamed[-1].context == answer.context
    assert client.generate(CHAT, "1 + 1 =", raw=True, options=SHORT).response
    assert client.generate(CHAT).done_reason == "load"
    assert client.generate(CHAT, keep_alive=0).done_reason == "unload"


def get_weather(city: str) -> str:
    """Tell the weather of a city.

    Args:
        city: Its name.
    """
    return f"22 °C in {city}"


def turns_of(city: str) -> list[dict[str, Any]]:
    """Return a question, a call, its result and the answer: a small model goes on alike."""
    call = {"function": {"name": "get_weather", "arguments": {"city": city}}}
    return [
        {"role": "user", "content": f"The weather in {city}?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": get_weather(city), "tool_name": "get_weather"},
        {"role": "assistant", "content": "It is 22 degrees."},
    ]


def test_tools(client: ollama.Client) -> None:
    client.create("caller", from_=CHAT, template=TOOLS_TEMPLATE)
    assert "tools" in (client.show("caller").capabilities or ())
    messages = [turn for city in ("Rome", "Oslo", "Bern", "Lima") for turn in turns_of(city)]
    messages.append({"role": "user", "content": "The weather in Paris?"})
    options = {"num_predict": 60, "temperature": 0, "repeat_penalty": 1.0}
    answer = client.chat("caller", messages, tools=[get_weather], options=options)
    [call] = answer.message.tool_calls or []
    assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Paris"})
    assert answer.done_reason == "stop"
    assert not answer.message.content
    streamed = list(
        client.chat("caller", messages, tools=[get_weather], options=options, stream=True)
    )
    assert [one for part in streamed for one in part.message.tool_calls or []] == [call]
    assert all(part.message.content or part.message.tool_calls or part.done for part in streamed)
    messages += [
        answer.message.model_dump(exclude_none=True),
        {"role": "tool", "content": "7 °C", "tool_name": "get_weather"},
    ]
    told = client.chat("caller", messages, tools=[get_weather], options=options)
    assert told.message.content
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat(CHAT, messages, tools=[get_weather])
    assert caught.value.status_code == 400
    assert caught.value.error == "registry.ollama.ai/library/smollm2:135m does not support tools"


def test_embeddings(client: ollama.Client) -> None:
    answer = client.embed(VECTORS, ["a cat", "a dog"])
    assert [len(one) for one in answer.embeddings] == [384, 384]
    assert len(client.embed(VECTORS, "a cat", dimensions=32).embeddings[0]) == 32
    assert len(client.embeddings(VECTORS, "a cat").embedding) == 384


def test_lists(client: ollama.Client) -> None:
    names = {one.model for one in client.list().models}
    assert {CHAT, "all-minilm:latest"} <= names
    client.generate(CHAT)
    [running] = [one for one in client.ps().models if one.name == CHAT]
    assert running.expires_at
    assert running.size
    shown = client.show(CHAT)
    assert shown.modelinfo
    assert shown.capabilities == ["completion", "decision"]


def test_create_copy_and_delete(client: ollama.Client) -> None:
    lines = list(client.create("pirate", from_=CHAT, system="You are a pirate.", stream=True))
    assert lines[-1].status == "success"
    assert client.show("pirate").get("system") in ("You are a pirate.", None)
    assert client.copy("pirate", "corsair").status == "success"
    assert client.delete("pirate").status == "success"
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat("pirate", [{"role": "user", "content": "Arr?"}])
    assert (caught.value.status_code, caught.value.error) == (404, "model 'pirate' not found")
    assert client.chat("corsair", [{"role": "user", "content": "Arr?"}], options=SHORT).done


async def test_the_asynchronous_client_streams_side_by_side_and_cancels(live: Live) -> None:
    async def one(client: ollama.AsyncClient, number: int) -> str:
        messages = [{"role": "user", "content": f"What is {number} plus {number}?"}]
        said = ""
        async for part in await client.chat(CHAT, messages, options=SHORT, stream=True):
            said += part.message.content or ""
        return said

    client = ollama.AsyncClient(host=live.url, trust_env=False)
    said = await asyncio.gather(*(one(client, number) for number in range(8)))
    assert all(said)
    answer = await client.generate(CHAT, "Hi", options=SHORT)
    assert answer.response
    long = await client.generate(CHAT, "Tell a long story.", stream=True)
    async for _ in long:
        break
    await long.aclose()  # type: ignore[attr-defined]
    await client._client.aclose()
    live.until_idle()
