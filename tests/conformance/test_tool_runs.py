"""Whole tool runs of the official clients: call, result, answer; streamed and at once.

What others send was recorded (`record_clients`): LangChain, pydantic-ai, Agent Framework, Vercel's
ai, codex, opencode, aider and JavaScript's twins.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest
from openai import OpenAI

from paddock.engine.request import ChatRequest
from tests.conformance.test_ollama_clients import TOOLS_TEMPLATE
from tests.fakes.tool_caller import call_tools
from tests.live import Live

QUESTION: Any = {"role": "user", "content": "What is the weather in Rome?"}
PARAMETERS: Any = {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
}  # fmt: skip
CHAT_TOOL: Any = {
    "type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS},
}  # fmt: skip
FLAT_TOOL: Any = {"type": "function", "name": "get_weather", "parameters": PARAMETERS}


@pytest.fixture(scope="module")
def seen(live: Live) -> Iterator[list[ChatRequest]]:
    with live.client() as client:
        made = {"model": "caller", "from": "smollm2:135m", "template": TOOLS_TEMPLATE}
        assert client.post("/api/create", json={**made, "stream": False}).status_code == 200
    with call_tools(live.service.pool) as requests:
        yield requests


def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"Rain in {city}."


def chat(live: Live, *, streams: bool) -> str:
    with OpenAI(base_url=f"{live.url}/v1", api_key="none") as client:
        messages: list[Any] = [{"role": "system", "content": "Be brief."}, QUESTION]
        for _ in range(2):
            sent: Any = {"model": "caller", "messages": messages, "tools": [CHAT_TOOL]}
            if streams:
                with client.chat.completions.stream(**sent) as stream:
                    message = stream.get_final_completion().choices[0].message
            else:
                message = client.chat.completions.create(**sent).choices[0].message
            messages.append(message)
            for call in message.tool_calls or ():
                result = get_weather(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        return message.content or ""


def responses(live: Live, *, streams: bool) -> str:
    with OpenAI(base_url=f"{live.url}/v1", api_key="none") as client:
        items: list[Any] = [QUESTION]
        for _ in range(2):
            sent: Any = {"model": "caller", "input": items, "tools": [FLAT_TOOL], "store": False}
            sent["instructions"] = "Be brief."
            if streams:
                with client.responses.stream(**sent) as stream:
                    response: Any = stream.get_final_response()
            else:
                response = client.responses.create(**sent)
            items += response.output
            for item in response.output:
                if item.type == "function_call":
                    result = get_weather(**json.loads(item.arguments))
                    items.append({"type": "function_call_output", "call_id": item.call_id,
                                  "output": result})  # fmt: skip
        return str(response.output_text)


def messages(live: Live, *, streams: bool) -> str:
    from anthropic import Anthropic, beta_tool  # 0.5 s of each process that collects

    with Anthropic(base_url=live.url, api_key="none", max_retries=0) as client:
        runner: Any = client.beta.messages.tool_runner(
            model="caller", max_tokens=40, system="Be brief.", messages=[QUESTION],
            tools=[beta_tool(get_weather)], stream=streams,
        )  # fmt: skip
        last = [one.get_final_message() if streams else one for one in runner][-1]
        return str(last.content[0].text)


def ollama_chat(live: Live, *, streams: bool) -> str:
    client = ollama.Client(host=live.url, trust_env=False)
    turns: list[Any] = [{"role": "system", "content": "Be brief."}, QUESTION]
    for _ in range(2):
        sent: Any = {"model": "caller", "messages": turns, "tools": [get_weather]}
        parts = list(client.chat(**sent, stream=True)) if streams else [client.chat(**sent)]
        text = "".join(part.message.content or "" for part in parts)
        calls = [call for part in parts for call in part.message.tool_calls or ()]
        turns.append({"role": "assistant", "content": text, "tool_calls": calls})
        for call in calls:
            result = get_weather(**call.function.arguments)
            turns.append({"role": "tool", "tool_name": call.function.name, "content": result})
    client._client.close()
    return text


@pytest.mark.parametrize("run", [chat, responses, messages, ollama_chat])
@pytest.mark.parametrize("streams", [False, True])
def test_a_tool_run_ends_with_what_the_tool_returned(
    live: Live, seen: list[ChatRequest], run: Any, streams: bool
) -> None:
    seen.clear()
    assert run(live, streams=streams).strip() == "The tool says: Rain in Rome."
    # The second request has the question, the system text, the call and its result.
    roles = [message.role for message in seen[-1].messages]
    assert roles == ["system", "user", "assistant", "tool"]
    assert seen[-1].messages[2].tool_calls[0].arguments == {"city": "Rome"}
    assert [tool.name for tool in seen[-1].tools] == ["get_weather"]


def test_a_streamed_line_has_one_call(live: Live, seen: list[ChatRequest]) -> None:
    body = {"model": "caller", "messages": [QUESTION], "tools": [CHAT_TOOL]}
    with call_tools(live.service.pool, 3), live.client() as client:
        lines = client.post("/api/chat", json=body).text.splitlines()
    calls = [json.loads(line)["message"].get("tool_calls", []) for line in lines]
    assert [[call["function"]["index"] for call in found] for found in calls if found] == [
        [0], [1], [2],
    ]  # fmt: skip


RECORDED = [
    json.loads(line)
    for line in Path(__file__).with_name("client_requests.jsonl").read_text("utf-8").splitlines()
]


@pytest.mark.parametrize("line", RECORDED, ids=lambda line: f"{line['client']} {line['path']}")
def test_what_todays_clients_send_is_obeyed_named_or_refused(
    live: Live, seen: list[ChatRequest], line: dict[str, Any]
) -> None:
    seen.clear()
    with live.client() as client:
        answer = client.post(line["path"], json=line["body"])
    warning = ", ".join(answer.headers.get_list("warning")) or None
    assert (answer.status_code, warning) == (line["status"], line.get("warning")), answer.text
    assert bool(seen) is (line["status"] == 200)
