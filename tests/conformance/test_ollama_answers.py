"""Ollama's generate and chat: every member of their answers, streamed and whole."""

import json
import math
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.fakes import tiny
from tests.live import COUNTING, Live
from tests.waiting import until

CHAT = "smollm2:135m"
NDJSON = "application/x-ndjson"
SHORT = {"num_predict": 6, "seed": 1}
# Without the penalty of repetitions the likeliest words of these prompts are far ahead.
SURE = {"num_predict": 6, "temperature": 0, "repeat_penalty": 1.0}
METRICS = {
    "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count",
    "eval_duration", "queue_duration", "cached_tokens",
}  # fmt: skip


def lines(client: httpx.Client, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Ask for a stream and give its lines, which must be lines."""
    with client.stream("POST", path, json=body) as answer:
        raw = b"".join(answer.iter_raw())
        assert answer.status_code == 200, raw
        assert answer.headers["content-type"] == NDJSON
    assert raw.endswith(b"\n")
    assert b"\n\n" not in raw, "clients read each line as JSON, empty ones too"
    return [json.loads(line) for line in raw.splitlines()]


def whole(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(path, json={**body, "stream": False})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    told = answer.json()
    assert isinstance(told, dict)
    return told


def is_moment(text: str) -> bool:
    return datetime.fromisoformat(text).tzinfo is not None


# Generate


def test_generate_streams_by_default_and_ends_with_its_numbers(client: httpx.Client) -> None:
    *pieces, last = lines(
        client, "/api/generate", {"model": CHAT, "prompt": "Tell a story.", "options": SHORT}
    )
    assert pieces
    for piece in pieces:
        assert set(piece) == {"model", "created_at", "response", "done"}
        assert piece["model"] == CHAT
        assert piece["done"] is False
        assert is_moment(piece["created_at"])
    assert METRICS | {"model", "created_at", "response", "done", "done_reason", "context"} <= set(
        last
    )
    assert (last["done"], last["done_reason"], last["response"]) == (True, "length", "")
    assert last["eval_count"] == 6
    assert len(last["context"]) == last["prompt_eval_count"] + last["eval_count"]
    assert all(isinstance(last[name], int) for name in METRICS)


def test_the_prompt_count_has_what_was_cached_and_the_cached_are_told(client: httpx.Client) -> None:
    body = {"model": CHAT, "prompt": "Tell me of the sea and its tides.", "options": SHORT}
    first, again = (whole(client, "/api/generate", body) for _ in range(2))
    assert again["prompt_eval_count"] == first["prompt_eval_count"]
    assert 0 < again["cached_tokens"] < again["prompt_eval_count"]
    *_, streamed = lines(client, "/api/generate", body)
    for last in (again, streamed):  # under Ollama's name, too
        assert last["prompt_eval_cached_count"] == last["cached_tokens"]


def test_a_system_text_and_a_template_take_the_models_place(client: httpx.Client) -> None:
    body = {"model": CHAT, "prompt": "Hi", "options": SHORT}
    bare = whole(client, "/api/generate", {**body, "template": "{{ .System }} {{ .Prompt }}"})
    with_system = whole(
        client,
        "/api/generate",
        {**body, "template": "{{ .System }} {{ .Prompt }}", "system": "You are a pirate, arr."},
    )
    usual = whole(client, "/api/generate", body)
    assert bare["prompt_eval_count"] < with_system["prompt_eval_count"]
    assert bare["prompt_eval_count"] < usual["prompt_eval_count"]


def test_a_context_goes_on_where_an_answer_ended(client: httpx.Client) -> None:
    first = whole(
        client, "/api/generate", {"model": CHAT, "prompt": "My name is Ada.", "options": SHORT}
    )
    second = whole(
        client,
        "/api/generate",
        {"model": CHAT, "prompt": "And?", "context": first["context"], "options": SHORT},
    )
    assert second["context"][: len(first["context"])] == first["context"]
    assert second["prompt_eval_count"] > len(first["context"])


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat"])
def test_json_is_json_and_a_schema_is_kept(client: httpx.Client, path: str) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
        "required": ["city", "people"],
    }
    asked = "Tell me of Paris in JSON."
    body = {
        "model": CHAT, "options": {"num_predict": 60, "temperature": 0},
        **({"messages": [{"role": "user", "content": asked}]} if path == "/api/chat"
           else {"prompt": asked}),
    }  # fmt: skip
    for wanted in ("json", schema):
        told = whole(client, path, {**body, "format": wanted})
        said = json.loads(told.get("response") or told["message"]["content"])
        assert isinstance(said, dict)
    assert set(said) == {"city", "people"}
    for nothing in ("", None):
        assert whole(client, path, {**body, "format": nothing, "options": SHORT})["done"]


def test_log_probabilities_come_with_the_pieces_they_belong_to(client: httpx.Client) -> None:
    body = {"model": CHAT, "prompt": "Hi", "options": SHORT, "logprobs": True, "top_logprobs": 2}
    told = whole(client, "/api/generate", body)
    assert len(told["logprobs"]) == told["eval_count"]
    for one in told["logprobs"]:
        assert one["logprob"] <= 0
        assert bytes(one["bytes"]).decode(errors="replace") == one["token"]
        assert len(one["top_logprobs"]) == 2
    bare = whole(client, "/api/generate", {**body, "top_logprobs": 0})
    assert "top_logprobs" not in bare["logprobs"][0]
    assert "logprobs" not in whole(client, "/api/generate", {**body, "logprobs": False})


def test_under_a_format_they_are_those_of_the_allowed_tokens(client: httpx.Client) -> None:
    """Ollama's `format` and OpenAI's `response_format` alike: what the schema forces is certain."""
    schema = {"type": "object", "properties": {"tone": {"enum": ["sad", "glad"]}},
              "required": ["tone"], "additionalProperties": False}  # fmt: skip
    turns = [{"role": "user", "content": "We won! What is the tone? Answer as JSON."}]
    body = {"model": CHAT, "messages": turns, "format": schema, "options": {"temperature": 0},
            "logprobs": True, "top_logprobs": 20, "stream": False}  # fmt: skip
    ours = client.post("/api/chat", json=body).json()["logprobs"]
    form = {"type": "json_schema", "json_schema": {"name": "tone", "schema": schema}}
    asked = {"model": CHAT, "messages": turns, "response_format": form, "temperature": 0,
             "logprobs": True, "top_logprobs": 20}  # fmt: skip
    (choice,) = client.post("/v1/chat/completions", json=asked).json()["choices"]
    for told in (ours, choice["logprobs"]["content"]):
        text = b"".join(bytes(one["bytes"]) for one in told)
        assert text in (b'{"tone":"sad"}', b'{"tone":"glad"}')
        for one in told:
            likely = {other["token"]: other["logprob"] for other in one["top_logprobs"]}
            assert one["token"] in likely
            assert sum(map(math.exp, likely.values())) == pytest.approx(1, abs=1e-3)
        chosen = [one for one in told if len(one["top_logprobs"]) > 1]
        assert 1 <= len(chosen) < len(told), "the form's signs are forced"
        assert all(one["logprob"] == 0 for one in told if len(one["top_logprobs"]) == 1)


SMALL = {"num_ctx": 64, "num_predict": 100, "temperature": 0}


def test_a_history_is_shifted_where_that_is_asked_for(client: httpx.Client) -> None:
    body = {"model": CHAT, "raw": True, "prompt": "One, two, three,", "format": {"type": "array",
            "items": {"type": "integer"}, "minItems": 40}, "options": SMALL}  # fmt: skip
    told = whole(client, "/api/generate", {**body, "shift": True})
    assert told["eval_count"] == 100
    assert told["shifted_tokens"] >= 30
    for shift in ({}, {"shift": False}):
        told = whole(client, "/api/generate", {**body, **shift})
        assert told["eval_count"] == 64 - told["prompt_eval_count"]
        assert "shifted_tokens" not in told


def test_without_shift_whole_turns_go_and_no_text_is_cut(client: httpx.Client) -> None:
    old = [{"role": role, "content": "word " * 60} for role in ("user", "assistant")]
    turns = [*old, {"role": "user", "content": "And now?"}]
    body = {
        "model": CHAT,
        "messages": turns,
        "shift": False,
        "options": {**SMALL, "num_predict": 3},
    }
    told = whole(client, "/api/chat", body)
    assert told["truncated"] is True
    assert told["prompt_tokens_original"] > 120 > told["prompt_eval_count"]


def test_options_are_heeded_and_unknown_ones_ignored(client: httpx.Client) -> None:
    # So hot that digits are equally likely: rounding does not change what a seed draws.
    options = {"temperature": 1e6, "top_k": 0, "top_p": 1, "min_p": 0, "what": 1, "mirostat": 2}
    body = {"model": CHAT, "prompt": "A number:", "format": {"type": "string",
            "pattern": "^[0-9]{12}$"}}  # fmt: skip
    first, again, other = (
        whole(client, "/api/generate", {**body, "options": {**options, "seed": seed}})["response"]
        for seed in (3, 3, 4)
    )
    assert first == again != other, "the same seed says the same"
    stopped = {**SURE, "num_predict": 16, "stop": ["4"]}
    cut = whole(client, "/api/chat", {"model": CHAT, "messages": COUNTING, "options": stopped})
    assert (cut["message"]["content"], cut["done_reason"]) == ("1, 2, 3, ", "stop")


def test_a_prompt_that_was_cut_is_told(client: httpx.Client) -> None:
    body = {
        "model": CHAT, "prompt": "word " * 600, "stream": False,
        "options": {"num_ctx": 256, "num_predict": 4},
    }  # fmt: skip
    answer = client.post("/api/generate", json=body)
    told = answer.json()
    assert told["truncated"] is True
    assert told["prompt_tokens_original"] > 600 >= 256 >= told["prompt_eval_count"]
    assert answer.headers["warning"] == (
        f'299 paddock "the prompt of {told["prompt_tokens_original"]} tokens was cut to fit the '
        'context"'
    )
    with client.stream("POST", "/api/generate", json={**body, "stream": True}) as stream:
        assert stream.headers["warning"] == answer.headers["warning"]
        assert json.loads(stream.read().splitlines()[-1])["truncated"] is True
    short = client.post("/api/generate", json={**body, "prompt": "word"})
    assert "warning" not in short.headers
    assert "truncated" not in short.json()


# Chat


def test_chat_streams_by_default_and_ends_with_its_numbers(client: httpx.Client) -> None:
    *pieces, last = lines(
        client,
        "/api/chat",
        {
            "model": CHAT,
            "messages": [{"role": "User", "content": "Tell a story."}],
            "options": SHORT,
        },
    )
    for piece in pieces:
        assert set(piece) == {"model", "created_at", "message", "done"}
        assert set(piece["message"]) == {"role", "content"}
        assert piece["message"]["role"] == "assistant"
        assert piece["done"] is False
    assert (last["done"], last["done_reason"]) == (True, "length")
    assert last["message"] == {"role": "assistant", "content": ""}
    assert set(last) >= METRICS
    assert "context" not in last


def test_the_prompt_alone_can_be_seen(client: httpx.Client) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi there"}]
    bodies: dict[str, dict[str, Any]] = {
        "/api/generate": {"prompt": "Hi there", "system": "Be brief."},
        "/api/chat": {"messages": turns},
    }
    for path, body in bodies.items():
        told = client.post(path, json={"model": CHAT, "_debug_render_only": True, **body}).json()
        assert told["_debug_info"]["rendered_template"] == (
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi there<|im_end|>\n"
            "<|im_start|>assistant\n"
        )


# Load and unload


@pytest.fixture(scope="module")
def noise(live: Live, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the name of a model that is loaded in no time."""
    live.add_model("noise:1", tiny.llama(tmp_path_factory.mktemp("models") / "noise.gguf"))
    return "noise:1"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/api/generate", {"response": ""}),
        ("/api/chat", {"message": {"role": "assistant", "content": ""}}),
    ],
)
def test_nothing_asked_loads_a_model_and_lets_it_go(
    client: httpx.Client, noise: str, path: str, said: dict[str, Any]
) -> None:
    def resident() -> set[str]:
        return {one["name"] for one in client.get("/api/ps").json()["models"]}

    for body, reason, is_there in (
        ({}, "load", True),
        ({"keep_alive": 0}, "unload", False),
        ({"keep_alive": 0}, "unload", False),
        ({"keep_alive": "10m"}, "load", True),
        ({"keep_alive": "0s"}, "unload", False),
        ({"keep_alive": -1}, "load", True),
    ):
        answer = client.post(path, json={"model": noise, **body})
        told = answer.json()
        assert is_moment(told.pop("created_at"))
        assert told == {"model": noise, "done": True, "done_reason": reason, **said}
        assert (noise in resident()) is is_there


def test_keep_alive_overwrites_and_its_absence_leaves(client: httpx.Client, noise: str) -> None:
    def expires_in_s() -> float:
        [one] = [one for one in client.get("/api/ps").json()["models"] if one["name"] == noise]
        moment = datetime.fromisoformat(one["expires_at"])
        return (moment - datetime.now(moment.tzinfo)).total_seconds()

    body = {"model": noise, "prompt": "Hi", "stream": False, "options": {"num_predict": 1}}
    client.post("/api/generate", json={**body, "keep_alive": -1})
    assert expires_in_s() > 200 * 365 * 86400, "for ever is some 292 years"
    client.post("/api/generate", json=body)
    assert expires_in_s() > 200 * 365 * 86400, "left as it was"
    client.post("/api/generate", json={**body, "keep_alive": "10m"})
    assert 590 < expires_in_s() <= 600
    client.post("/api/generate", json={**body, "keep_alive": 1800})
    assert 1790 < expires_in_s() <= 1800
    client.post("/api/generate", json={**body, "keep_alive": 0})
    # It goes as soon as it is idle.
    until(lambda: noise not in {one["name"] for one in client.get("/api/ps").json()["models"]})


@pytest.mark.parametrize("name", [f"{CHAT}:local", "SMOLLM2:135M", f"library/{CHAT}"])
def test_a_name_may_be_written_in_other_ways(client: httpx.Client, name: str) -> None:
    told = whole(client, "/api/generate", {"model": name, "prompt": "Hi", "options": SHORT})
    assert told["model"] == name, "as it was asked for"


# Curl, as in tutorials


def test_content_types_are_not_looked_at_and_keys_have_no_case(client: httpx.Client) -> None:
    asked = {"MODEL": CHAT, "Prompt": "Hi", "STREAM": False, "options": {"num_predict": 1}}
    content = json.dumps(asked)
    for kind in ("application/x-www-form-urlencoded", "text/plain", "application/json", "x"):
        answer = client.post("/api/generate", content=content, headers={"content-type": kind})
        assert (answer.status_code, answer.json()["done"]) == (200, True)
    assert answer.json()["model"] == CHAT
