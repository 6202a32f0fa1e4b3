"""OpenAI's own Python client against a live service: what its users write, unchanged."""

import base64
import json
import math
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from paddock.engine.request import ModelSpec
from tests.conformance.openai_client import HI, speaking_to
from tests.engine.pools import SURE_PROMPT
from tests.live import CHAT, COUNTING, VECTORS, Live

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
        },
    },
}

FLAT: Any = {"type": "function", "strict": True, **WEATHER["function"]}


class City(BaseModel):
    name: str
    people: int


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[OpenAI]:
    with speaking_to(live) as client:
        yield client


def test_models_are_listed_and_found(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {CHAT, f"{VECTORS}:latest"} <= set(listed) | {f"{name}:latest" for name in listed}
    found = client.models.retrieve(CHAT)
    assert (found.id, found.object, found.owned_by) == (CHAT, "model", "library")
    assert found.to_dict()["capabilities"] == ["completion", "decision"]
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("team/no-such-model")
    assert caught.value.body == {
        "message": "model 'team/no-such-model' not found",
        "type": "not_found_error",
        "param": "model",
        "code": "model_not_found",
    }


def test_a_chat_is_answered(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=CHAT, messages=HI, max_completion_tokens=8, temperature=0, seed=1
    )
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", CHAT)
    (choice,) = answer.choices
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 8
    assert answer.usage.total_tokens == (
        answer.usage.prompt_tokens + answer.usage.completion_tokens
    )


def test_a_stream_says_what_the_whole_answer_says(client: OpenAI) -> None:
    asked: Any = {"model": CHAT, "messages": COUNTING, "max_tokens": 12, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == len({chunk.created for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None and whole.usage is not None
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert chunks[-1].usage.prompt_tokens_details is not None
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens, "the whole answer's prompt"


def test_choices_are_several_and_differ(client: OpenAI) -> None:
    asked: Any = {"model": CHAT, "messages": HI, "max_tokens": 16, "n": 3, "seed": 5,
                  "temperature": 1.2}  # fmt: skip
    whole = client.chat.completions.create(**asked)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in whole.choices}) > 1
    texts = {0: "", 1: "", 2: ""}
    ends: dict[int, str | None] = {}
    for chunk in client.chat.completions.create(**asked, stream=True):
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        ends[choice.index] = choice.finish_reason
    assert all(texts.values())
    assert None not in ends.values()
    assert len(ends) == 3


def test_stop_ends_an_answer_before_it(client: OpenAI) -> None:
    asked: Any = {"model": CHAT, "messages": COUNTING, "max_tokens": 16, "temperature": 0}
    text = client.chat.completions.create(**asked).choices[0].message.content or ""
    mark = text[5:8]
    (choice,) = client.chat.completions.create(**asked, stop=[mark]).choices
    assert choice.message.content == text[: text.index(mark)]
    assert choice.finish_reason == "stop"


def test_probabilities_are_told_and_tokens_can_be_forbidden(client: OpenAI, live: Live) -> None:
    asked: Any = {"model": CHAT, "messages": COUNTING, "max_tokens": 3, "temperature": 0,
                  "logprobs": True, "top_logprobs": 2}  # fmt: skip
    (choice,) = client.chat.completions.create(**asked).choices
    assert choice.logprobs is not None and choice.logprobs.content is not None
    first = choice.logprobs.content[0]
    assert len(first.top_logprobs) == 2
    assert math.isclose(first.logprob, first.top_logprobs[0].logprob)
    from paddock.engine.request import ModelSpec

    (token,) = live.call(live.service.pool.tokenise(ModelSpec(CHAT), first.token))
    (other,) = client.chat.completions.create(**asked, logit_bias={str(token): -100}).choices
    assert other.logprobs is not None and other.logprobs.content is not None
    assert other.logprobs.content[0].token != first.token
    streamed = [
        one
        for chunk in client.chat.completions.create(**asked, stream=True)
        if chunk.choices[0].logprobs
        for one in chunk.choices[0].logprobs.content or ()
    ]
    assert [one.token for one in streamed] == [one.token for one in choice.logprobs.content]


def test_a_tool_that_must_be_called_is_called(client: OpenAI) -> None:
    asked: Any = {"model": CHAT, "messages": HI, "tools": [WEATHER], "max_tokens": 60,
                  "temperature": 0}  # fmt: skip
    named = {"type": "function", "function": {"name": "get_weather"}}
    wanted: Any
    for wanted in ("required", named):
        (told,) = client.chat.completions.create(**asked, tool_choice=wanted).choices
        assert told.finish_reason == "tool_calls"
        assert told.message.tool_calls
        call = told.message.tool_calls[0]
        assert call.type == "function"
        assert call.function.name == "get_weather"
        assert set(json.loads(call.function.arguments)) == {"city"}
    stream = client.chat.completions.create(**asked, tool_choice="required", stream=True)
    pieces = [chunk.choices[0] for chunk in stream]
    assert pieces[-1].finish_reason == "tool_calls"
    calls = [one for piece in pieces for one in piece.delta.tool_calls or ()]
    assert calls[0].function is not None and calls[0].function.name == "get_weather"
    result: Any = [
        *HI,
        {"role": "assistant", "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny."},
    ]
    after = client.chat.completions.create(
        model=CHAT, messages=result, tools=[WEATHER], tool_choice="none", max_tokens=8
    )
    assert after.choices[0].message.tool_calls is None


def test_a_structured_answer_is_parsed(client: OpenAI) -> None:
    question: Any = [{"role": "user", "content": "Name a city and how many people live in it."}]
    answer = client.chat.completions.parse(
        model=CHAT, messages=question, response_format=City, temperature=0, max_tokens=200
    )
    assert isinstance(answer.choices[0].message.parsed, City)
    loose = client.chat.completions.create(
        model=CHAT, messages=question, response_format={"type": "json_object"}, max_tokens=60
    )
    assert isinstance(json.loads(loose.choices[0].message.content or ""), dict)
    with client.chat.completions.stream(
        model=CHAT, messages=question, response_format=City, temperature=0, max_tokens=200
    ) as stream:
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert isinstance(parsed, City)


def test_a_prompt_that_is_too_long_is_refused_unless_it_may_be_cut(client: OpenAI) -> None:
    long: Any = [{"role": "user", "content": "word " * 6000}, *HI]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=CHAT, messages=long, max_tokens=4)
    assert caught.value.code == "context_length_exceeded"
    assert "This model's maximum context length is" in caught.value.message
    assert "prompt is too long" in caught.value.message, "LangChain knows no code by openai 3.57"
    raw = client.chat.completions.with_raw_response.create(
        model=CHAT, messages=long, max_tokens=4, extra_body={"truncate": True}
    )
    assert raw.headers["warning"].startswith("299 ")
    cut = raw.parse().model_dump()
    assert cut["truncated"] is True
    assert cut["prompt_tokens_original"] > 6000
    stream = client.chat.completions.create(
        model=CHAT, messages=long, max_tokens=4, extra_body={"truncate": True}, stream=True
    )
    assert stream.response.headers["warning"].startswith("299 ")
    assert [chunk for chunk in stream][-1].choices[0].finish_reason


# Completions


def test_completions_go_on_with_a_text(client: OpenAI) -> None:
    asked: Any = {"model": CHAT, "max_tokens": 6, "temperature": 0}
    one = client.completions.create(prompt=SURE_PROMPT, **asked)
    assert one.id.startswith("cmpl-")
    assert one.object == "text_completion"
    assert one.choices[0].text.startswith(" e f g")
    echoed = client.completions.create(prompt=SURE_PROMPT, echo=True, **asked)
    assert echoed.choices[0].text == SURE_PROMPT + one.choices[0].text
    many = client.completions.create(prompt=["One, two,", "A, B,"], n=2, **asked)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    streamed = "".join(
        chunk.choices[0].text
        for chunk in client.completions.create(prompt=SURE_PROMPT, stream=True, echo=True, **asked)
    )
    assert streamed == echoed.choices[0].text


def test_completions_take_token_ids_and_tell_probabilities(client: OpenAI, live: Live) -> None:
    ids = live.call(live.service.pool.tokenise(ModelSpec(CHAT), SURE_PROMPT))
    asked: Any = {"model": CHAT, "max_tokens": 4, "temperature": 0}
    (by_text,) = client.completions.create(prompt=SURE_PROMPT, logprobs=2, **asked).choices
    (by_ids,) = client.completions.create(prompt=ids, echo=True, **asked).choices
    assert by_ids.text == SURE_PROMPT + by_text.text
    assert by_text.logprobs is not None
    assert len(by_text.logprobs.tokens or ()) == 4
    assert by_text.logprobs.text_offset is not None and by_text.logprobs.text_offset[0] == 0
    with pytest.raises(openai.BadRequestError):
        client.completions.create(prompt=[10_000_000], **asked)


def test_the_tokens_of_an_echoed_prompt_have_their_probabilities(
    client: OpenAI, live: Live
) -> None:
    """lm-eval's `local-completions` asks so, and reads the answers so."""

    def ids_of(text: str) -> list[int]:
        return live.call(live.service.pool.tokenise(ModelSpec(CHAT), text))

    context = ids_of(SURE_PROMPT)
    endings = [ids_of(" e f g"), ids_of(" x y"), ids_of(" e, then")]
    asked: Any = {"model": CHAT, "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234}
    rows = [context + ending for ending in endings]
    answer = client.completions.create(prompt=rows, echo=True, **asked)
    found = []
    for row, choice in zip(rows, answer.choices, strict=True):
        logprobs = choice.logprobs
        assert logprobs is not None and logprobs.token_logprobs and logprobs.top_logprobs
        assert len(logprobs.token_logprobs) == len(row) + 1
        assert (logprobs.token_logprobs[0], logprobs.top_logprobs[0]) == (None, None)
        assert "".join(logprobs.tokens or ()) == choice.text
        own = logprobs.token_logprobs[len(context) : -1]
        tops = logprobs.top_logprobs[len(context) : -1]
        found.append(
            (sum(own), all(max(top.values()) == p for top, p in zip(tops, own, strict=True)))
        )
    assert [is_greedy for _, is_greedy in found] == [True, False, False]
    assert found[0][0] > max(found[1][0], found[2][0])
    assert answer.usage is not None and answer.usage.prompt_tokens == sum(map(len, rows))
    with pytest.raises(openai.BadRequestError, match="come whole"):
        client.completions.create(prompt=context, echo=True, stream=True, **asked)


# Embeddings


def test_embeddings_are_the_same_as_floats_and_as_base64(client: OpenAI) -> None:
    texts = ["a llama", "", "an alpaca"]
    packed = client.embeddings.create(model=VECTORS, input=texts)  # the client asks for base64
    plain = client.embeddings.create(model=VECTORS, input=texts, encoding_format="float")
    raw = client.embeddings.with_raw_response.create(
        model=VECTORS, input=texts[0], encoding_format="base64"
    )
    assert [one.index for one in packed.data] == [0, 1, 2]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert len(one.embedding) == 384
        assert all(
            math.isclose(a, b, abs_tol=1e-6)
            for a, b in zip(one.embedding, other.embedding, strict=True)
        )
        assert math.isclose(sum(value**2 for value in one.embedding), 1, abs_tol=1e-4)
    coded = json.loads(raw.text)["data"][0]["embedding"]
    assert len(base64.b64decode(coded)) == 4 * 384
    assert packed.usage.prompt_tokens == packed.usage.total_tokens > 0


def test_embeddings_may_be_shorter_and_of_token_ids(client: OpenAI, live: Live) -> None:
    from paddock.engine.request import ModelSpec

    short = client.embeddings.create(model=VECTORS, input="a llama", dimensions=64).data[0]
    assert len(short.embedding) == 64
    assert math.isclose(sum(value**2 for value in short.embedding), 1, abs_tol=1e-4)
    spec = ModelSpec(VECTORS, "embed")
    ids = live.call(live.service.pool.tokenise(spec, "a llama"))
    by_ids = client.embeddings.create(model=VECTORS, input=ids).data[0].embedding
    by_text = client.embeddings.create(model=VECTORS, input="a llama").data[0].embedding
    assert sum(a * b for a, b in zip(by_ids, by_text, strict=True)) > 0.999


def test_a_text_that_is_too_long_is_refused_unless_it_may_be_cut(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=VECTORS, input="word " * 2000)
    assert caught.value.code == "context_length_exceeded"
    raw = client.embeddings.with_raw_response.create(
        model=VECTORS, input="word " * 2000, extra_body={"truncate": True}
    )
    assert raw.headers["warning"].startswith("299 ")
    assert json.loads(raw.text)["truncated"] is True


# Responses


def test_a_response_is_answered_and_streamed(client: OpenAI) -> None:
    asked: Any = {"model": CHAT, "input": COUNTING, "instructions": "Be brief.",
                  "max_output_tokens": 12, "temperature": 0}  # fmt: skip
    whole = client.responses.create(**asked)
    assert whole.id.startswith("resp_")
    assert whole.output_text
    assert whole.status in ("completed", "incomplete")
    events = list(client.responses.create(**asked, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == whole.output_text
    with client.responses.stream(**{**asked, "max_output_tokens": 400}) as stream:
        assert stream.get_final_response().output_text.startswith(text)


def test_a_response_calls_tools_and_takes_their_results(client: OpenAI) -> None:
    asked: Any = {"model": CHAT, "tools": [FLAT], "temperature": 0, "max_output_tokens": 60}
    first = client.responses.create(input="Weather?", tool_choice="required", **asked)
    (call, *_) = [item for item in first.output if item.type == "function_call"]
    assert call.name == "get_weather"
    result: Any = [
        {"role": "user", "content": "Weather?"},
        call.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."},
    ]
    second = client.responses.create(input=result, tool_choice="none", **asked)
    assert second.output_text
    parsed = client.responses.parse(
        model=CHAT, input="Name a city and its people.", text_format=City, temperature=0,
        max_output_tokens=200,
    )  # fmt: skip
    assert isinstance(parsed.output_parsed, City)


THINKER = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}<|im_start|>assistant
<think>
"""


def test_what_a_model_thinks_is_told_apart_from_what_it_says(client: OpenAI, live: Live) -> None:
    made = {"model": "thinker", "from": CHAT, "template": THINKER, "stream": False}
    with live.client() as http:
        assert http.post("/api/create", json=made).status_code == 200
    # So that it thinks on, and the same each time, by 3 in logits; no token is a space alone.
    said = "<think>1,2,3,4,5,6,7,8,9"
    counting: Any = [
        {**turn, "content": said if turn["role"] == "assistant" else turn["content"]}
        for turn in COUNTING
    ]
    asked: Any = {"model": "thinker", "messages": counting, "max_tokens": 8, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    thought = whole.choices[0].message.model_dump()["reasoning"]
    assert thought and whole.choices[0].message.content == ""
    assert whole.usage is not None and whole.usage.completion_tokens_details is not None
    assert whole.usage.completion_tokens_details.reasoning_tokens == 8
    chunks = client.chat.completions.create(**asked, stream=True)
    deltas = [chunk.choices[0].delta.model_dump() for chunk in chunks]
    assert "".join(delta.get("reasoning", "") for delta in deltas) == thought
    spoken = client.chat.completions.create(**asked, reasoning_effort="none")
    assert spoken.choices[0].message.content
    with client.responses.stream(
        model="thinker", input=counting, max_output_tokens=8, temperature=0
    ) as stream:
        events = list(stream)
    last: Any = events[-1]
    assert last.type == "response.incomplete"
    assert [item.type for item in last.response.output] == ["reasoning", "message"]
    assert last.response.usage.output_tokens_details.reasoning_tokens == 8
    assert last.response.output[0].summary[0].text
