"""Servers of OpenAI's API, each as it is: what is asked of them, and what their answers mean."""

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from paddock.engine.backends.model_servers import ModelServer, detect_server
from paddock.engine.backends.openai_client import ServerAway, ServerBusy
from paddock.engine.errors import BadRequest, EngineError, ModelBroken, PromptTooLong
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    Constraint,
    Message,
    ModelSpec,
    Tool,
    ToolCall,
)
from paddock.engine.system.server_address import ServerAddress
from tests.fakes.openai_server import OpenAIService

KEY = "sk-12345678"
M = ModelSpec("m", n_ctx_tokens=400)
TWO_WORDS = (Message("user", "Say noon"),)


@asynccontextmanager
async def opened(
    service: OpenAIService, key: str = KEY, usual_ctx_tokens: int | None = None
) -> AsyncIterator[tuple[ModelServer, list[str]]]:
    notes: list[str] = []
    address = ServerAddress("http://far:1", key)
    server = await detect_server(
        address, notes.append, transport=service.transport, usual_ctx_tokens=usual_ctx_tokens
    )
    yield server, notes
    await server.aclose()


async def answer_of(server: ModelServer, request: ChatRequest) -> tuple[Any, list[Chunk]]:
    chunks: list[Chunk] = []
    return await server.chat(request, chunks.append), chunks


@pytest.mark.parametrize(
    ("kind", "n_ctx_tokens", "description"),
    [
        ("vllm", 400, []),
        ("ollama", 400, []),
        (
            "other",
            400,
            [
                "http://far:1 tells of 'm' nothing but its name: its answers are known by that, "
                "also when another model comes under the same name."
            ],
        ),
    ],
)
async def test_each_program_is_known_by_what_it_tells(
    kind: str, n_ctx_tokens: int, description: list[str]
) -> None:
    async with opened(OpenAIService(kind)) as (server, notes):
        facts = await server.facts(M)
    assert (facts.architecture, facts.n_ctx_tokens) == (kind, n_ctx_tokens)
    assert notes == description


async def test_where_no_one_says_how_long_a_prompt_may_be_the_author_must() -> None:
    async with opened(OpenAIService()) as (server, _):
        with pytest.raises(ModelBroken) as caught:
            await server.facts(ModelSpec("m"))
    assert str(caught.value) == (
        "http://far:1: the server does not say how many tokens a request to 'm' may fill. "
        "Write it as the model's `ctx`, such as `ctx: 8k`, or set PADDOCK_CONTEXT_LENGTH"
    )


async def test_the_key_is_shown_and_every_sampling_value_is_said() -> None:
    service = OpenAIService("vllm")
    async with opened(service) as (server, notes):
        ended, chunks = await answer_of(server, ChatRequest(M, TWO_WORDS, {"max_tokens": 9}))
    assert service.headers["authorization"] == f"Bearer {KEY}"
    assert service.bodies == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Say noon"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.0,
            "seed": 0,
            "max_tokens": 9,
            "repetition_penalty": 1.0,
        }
    ]
    assert "".join(chunk.text for chunk in chunks) == "It leaves at noon."
    assert (ended.reason, ended.usage.prompt_tokens, ended.usage.completion_tokens) == (
        "stop",
        2,
        4,
    )
    assert notes == []


async def test_what_a_server_cannot_be_told_is_said_once() -> None:
    service = OpenAIService("ollama")
    async with opened(service) as (server, notes):
        params = {"temperature": 0.7, "top_k": 5, "repeat_penalty": 1.1}
        await answer_of(server, ChatRequest(M, TWO_WORDS, params))
    assert "top_k" not in service.bodies[0]
    assert notes == [
        "http://far:1 takes no `repeat_penalty`; it is left out.",
        "http://far:1 takes no `top_k`; it is left out.",
    ]


async def test_vllm_is_told_what_it_takes_and_the_rest_is_said() -> None:
    service = OpenAIService("vllm")
    async with opened(service) as (server, notes):
        params = {"temperature": 0.7, "top_k": 5, "typical_p": 0.5, "repeat_penalty": 1.1}
        await answer_of(server, ChatRequest(M, TWO_WORDS, params))
    own = {name: service.bodies[0].get(name) for name in ("top_k", "min_p", "repetition_penalty")}
    assert own == {"top_k": 5, "min_p": 0.0, "repetition_penalty": 1.1}
    assert "typical_p" not in service.bodies[0]
    assert notes == ["http://far:1 takes no `typical_p`; it is left out."]


NO_LOGPROBS = "http://far:1 sends no log probabilities: how sure it was is not known."


async def test_a_server_that_sends_no_log_probabilities_answers_all_the_same() -> None:
    service = OpenAIService("vllm")
    request = ChatRequest(M, TWO_WORDS, n_logprobs=3)
    async with opened(service) as (server, notes):
        _, chunks = await answer_of(server, request)
        assert "".join(chunk.text for chunk in chunks) == "It leaves at noon."
        assert (service.bodies[0]["logprobs"], service.bodies[0]["top_logprobs"]) == (True, 3)
        assert notes == [NO_LOGPROBS]

        service.refuses_logprobs = True
        _, chunks = await answer_of(server, request)
        assert "".join(chunk.text for chunk in chunks) == "It leaves at noon."
        assert "logprobs" not in service.bodies[-1]
        assert set(notes) == {NO_LOGPROBS}


async def test_reasoning_and_tool_calls_are_heard() -> None:
    service = OpenAIService("vllm", answer="")
    service.delta = {
        "reasoning_content": "Hm.",
        "tool_calls": [
            {"index": 0, "id": "c1", "function": {"name": "look", "arguments": '{"at": '}},
            {"index": 0, "function": {"arguments": '"noon"}'}},
        ],
    }
    service.finish = "tool_calls"
    async with opened(service) as (server, _):
        tools = (Tool("look", "Looks.", {"type": "object"}),)
        ended, chunks = await answer_of(server, ChatRequest(M, TWO_WORDS, tools=tools, think=True))
    assert [chunk.reasoning for chunk in chunks if chunk.reasoning] == ["Hm."]
    assert chunks[-1].tool_calls == (ToolCall("look", {"at": "noon"}, "c1"),)
    assert ended.reason == "stop"
    assert service.bodies[0]["tools"][0]["function"]["name"] == "look"
    assert service.bodies[0]["chat_template_kwargs"] == {"enable_thinking": True}


@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        *[(word, "stop") for word in ("stop", "eos_token", "function_call")],
        *[(word, "length") for word in ("length", "model_length", "MAX_TOKENS", "limit")],
    ],
)
async def test_every_word_for_a_limit_is_known(finish: str, reason: str) -> None:
    service = OpenAIService("vllm")
    service.finish = finish
    async with opened(service) as (server, _):
        ended, _chunks = await answer_of(server, ChatRequest(M, TWO_WORDS))
    assert ended.reason == reason


LATER = {"error": {"message": "slow down"}}


@pytest.mark.parametrize(
    ("refusal", "kind", "message"),
    [
        ((429, LATER, {"retry-after": "7"}), ServerBusy, "http://far:1 is busy: slow down"),
        ((503, "Loading model", {}), ServerBusy, "http://far:1 is busy: Service Unavailable"),
        (
            (500, {"error": "out of memory"}, {}),
            ServerAway,
            "http://far:1/v1/chat/completions failed (500: out of memory)",
        ),
        (
            (502, "<html>", {}),
            ServerAway,
            "http://far:1/v1/chat/completions failed (502: Bad Gateway)",
        ),
        (
            (401, {"error": {"message": f"Incorrect key: {KEY}"}}, {}),
            ModelBroken,
            "http://far:1: the server refuses the key that it is shown (401: Incorrect key: ***). "
            "Correct the model's `pool.key`, or PADDOCK_POOL_KEY",
        ),
        (
            (400, {"error": {"message": "bad", "type": "x"}}, {}),
            BadRequest,
            "the server at http://far:1 refuses the request (400: bad)",
        ),
        (
            (
                400,
                {"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 8}},
                {},
            ),
            PromptTooLong,
            "the prompt has 9 tokens and 0 are reserved for the answer, but the context holds 8; "
            "nothing was cut",
        ),
        ((422, {"detail": "no such field"}, {}), BadRequest, "(422: no such field)"),
        ((418, "[" * 10_000, {}), BadRequest, "refuses the request (418: "),
    ],
)
async def test_a_refusal_is_to_be_mended_or_waited_out_or_asked_elsewhere(
    refusal: tuple[int, Any, dict[str, str]], kind: type[Exception], message: str
) -> None:
    service = OpenAIService("vllm")

    async with opened(service) as (server, _):
        await server.facts(M)
        service.refusal = refusal
        with pytest.raises(kind) as caught:
            await answer_of(server, ChatRequest(M, TWO_WORDS))
    assert message in str(caught.value)
    if isinstance(caught.value, ServerBusy):
        assert caught.value.after_s == (7.0 if refusal[2] else None)


@pytest.mark.parametrize(
    ("events", "kind", "message"),
    [
        ([b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'], ServerAway, "broke off"),
        ([b"data: [DONE]\n\n"], ServerAway, "has no end"),
        ([b"data: {}}\n\n"], BadRequest, "something that is no JSON object"),
        ([b"data: [1]\n\n"], BadRequest, "something that is no JSON object"),
        ([b'data: {"error":{"code":503,"message":"full"}}\n\n'], ServerBusy, "is busy: full"),
        ([b'data: {"error":{"message":"dead"}}\n\n'], ServerAway, "failed (500: dead)"),
        (
            [b'event: error\ndata: {"message":"out of memory","type":"server_error"}\n\n'],
            ServerAway,
            "failed (500: out of memory)",
        ),
        (
            [b'event: error\ndata: {"error":{"message":"out of memory"}}\n\n'],
            ServerAway,
            "failed (500: out of memory)",
        ),
        (
            [
                b'data: {"choices":[{"delta":{"refusal":"I cannot "}}]}\n\n',
                b'data: {"choices":[{"delta":{"refusal":"read this."}}]}\n\n',
                b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n',
            ],
            BadRequest,
            "the model refused to answer: I cannot read this",
        ),
        (
            [b'data: {"choices":[{"delta":{"content":[{"type":"image_url"}]}}]}\n\n'],
            BadRequest,
            "the answer has a part of the kind 'image_url'",
        ),
        (
            [
                b'data: {"choices":[{"delta":{"answer":"a"},"finish_reason":"stop"}]}\n\n',
                b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}}\n\n',
                b"data: [DONE]\n\n",
            ],
            BadRequest,
            "the answer has no text, but fields that are not read: 'answer'",
        ),
        (
            [b'data: {"choices":[{"delta":{},"finish_reason":"content_filter"}]}\n\n'],
            BadRequest,
            "the server withheld the answer (content_filter)",
        ),
    ],
)
async def test_an_answer_that_goes_wrong_in_the_middle_is_none(
    events: list[bytes], kind: type[Exception], message: str
) -> None:
    service = OpenAIService("vllm")
    service.events = events

    async with opened(service) as (server, _):
        with pytest.raises(kind) as caught:
            await answer_of(server, ChatRequest(M, TWO_WORDS))
    assert message in str(caught.value)


def odd(choice: Any, finish: str | None = "stop") -> list[bytes]:
    event = {**choice, "finish_reason": finish} if isinstance(choice, dict) else choice
    return [f"data: {json.dumps({'choices': [event]})}\n\n".encode(), b"data: [DONE]\n\n"]


def odd_call(**call: Any) -> dict[str, Any]:
    return {"delta": {"tool_calls": [{"index": 0, "id": "c", **call}]}}


ADD = {"name": "add", "arguments": "{}"}
ODD: Mapping[str, tuple[list[bytes], str]] = {
    "a whole message": (odd({"message": {"role": "assistant", "content": "Noon."}}), "Noon."),
    "a part alone": (odd({"delta": {"content": {"type": "text", "text": "Noon."}}}), "Noon."),
    "texts as parts": (odd({"delta": {"content": ["No", "on."]}}), "Noon."),
    "an end that is empty": (odd({"delta": {"content": "No"}}, "")[:1] + odd({"delta": {"content":
        "on."}}), "Noon."),
    "a call in the old form": (odd({"delta": {"function_call": ADD}}, "function_call"), "add {}"),
    "a call in both forms": (odd({"delta": {"function_call": ADD, "tool_calls": [
        {"index": 0, "id": "c", "function": ADD}]}}, "tool_calls"), "add {}"),
    "its end said twice": (odd(odd_call(function=ADD), "tool_calls")[:1] + odd({}, "tool_calls"),
        "add {}"),
    "a call that is no list": (odd({"delta": {"tool_calls": {"function": ADD}}}), "add {}"),
    "an empty answer": (odd({"delta": {"role": "assistant", "content": ""}}), ""),
    "a number": (odd({"delta": {"content": 7}}), "!the answer has a part of the kind 'int'"),
    "a text in place of an object": (odd({"delta": "Noon."}), "!has 'Noon.' in place of an object"),
    "a choice that is a text": (odd("Noon."), "!has 'Noon.' in place of an object"),
    "the text of a completion": (odd({"text": "Noon."}), "!that are not read: 'text'"),
    "a field of another's": (odd({"delta": {"output": "Noon.", "audio": {"id": 1}}}),
        "!that are not read: 'audio', 'output'"),
    "a call without a name": (odd(odd_call(function={"arguments": "{}"})), "!without a name"),
    "a call that never comes": (odd({"delta": {}}, "tool_calls"), "!a call (tool_calls) that was"),
    "calls that nobody offered": (odd({"delta": {"tool_calls": [{"id": "c", "function": ADD},
        {"id": "d", "function": ADD}]}}, "tool_calls"), "!what was not offered: 'add', 'add'"),
    "an error as an object": ([b'data: {"object":"error","message":"no such template",'
                               b'"code":400}\n\n'], "!no such template"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
async def test_an_odd_answer_is_read_or_refused_never_empty(name: str) -> None:
    service = OpenAIService("vllm")
    service.events, expected = ODD[name]
    request = ChatRequest(M, TWO_WORDS, tools=() if "offered" in expected else (Tool("add"),))
    async with opened(service) as (server, _):
        if expected.startswith("!"):
            with pytest.raises(EngineError, match=re.escape(expected[1:])):
                await answer_of(server, request)
            return
        _, chunks = await answer_of(server, request)
    found = [chunk.text for chunk in chunks]
    found += [f"{call.name} {{}}" for chunk in chunks for call in chunk.tool_calls]
    assert "".join(found) == expected


async def test_parts_of_a_text_and_calls_are_read_however_they_are_spelled() -> None:
    def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()

    def call(name: str, arguments: object, call_id: str) -> dict[str, Any]:
        function = {"name": name, "arguments": arguments}
        return {"tool_calls": [{"index": 0, "id": call_id, "function": function}]}

    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Which bell?"}]}
    service = OpenAIService("vllm")
    service.events = [
        event({"content": [thinking, {"type": "text", "text": "The bell "}]}),
        event({"content": [{"type": "text", "text": "is green."}]}),
        event(call("add", {"a": 1}, "call_a")),
        event(call("mul", '{"b"', "call_b")),
        event(call("", ":2}", "call_b")),
        event({}, "tool_calls"),
        b"data: [DONE]\n\n",
    ]
    async with opened(service) as (server, _):
        _, chunks = await answer_of(server, ChatRequest(M, TWO_WORDS))
    assert "".join(chunk.text for chunk in chunks) == "The bell is green."
    assert "".join(chunk.reasoning for chunk in chunks) == "Which bell?"
    calls = [call for chunk in chunks for call in chunk.tool_calls]
    assert calls == [ToolCall("add", {"a": 1}, "call_a"), ToolCall("mul", {"b": 2}, "call_b")]


async def test_what_is_no_server_of_this_api_is_named() -> None:
    service = OpenAIService()
    service.refusal = (404, "no", {})
    async with opened(service) as (server, _):
        with pytest.raises(ModelBroken) as caught:
            await server.facts(M)
    message = "http://far:1: no server of OpenAI's API answers here (GET /v1/models)"
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ChatRequest(M, (), prompt="raw"), "a raw prompt cannot be sent to another server"),
        (
            ChatRequest(M, TWO_WORDS, constraint=Constraint("regex", "a+")),
            "an answer within a regex grammar can only be asked of vLLM",
        ),
    ],
)
async def test_what_cannot_be_asked_of_others_is_refused(
    request_: ChatRequest, message: str
) -> None:
    async with opened(OpenAIService("ollama")) as (server, _):
        with pytest.raises(EngineError, match=message):
            await answer_of(server, request_)


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines", "ends in a space ", "\x7f"])
async def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ModelBroken) as caught:
        await detect_server(ServerAddress("http://gpu-1:8000", key), lambda text: None)
    assert str(caught.value) == (
        "http://gpu-1:8000: the key that it is to be shown has a character that no header carries: "
        "only letters, digits and signs of ASCII do. Correct the model's `pool.key`, "
        "or PADDOCK_POOL_KEY"
    )
