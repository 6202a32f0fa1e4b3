"""The fields that generating endpoints share."""

from typing import Any

import pytest

from paddock.engine.api.errors import ApiError, InvalidValue
from paddock.engine.api.openai.chat_completions import read_chat, read_completion
from paddock.engine.api.openai.embeddings import read_embedding
from paddock.engine.api.openai.requests import ApiCaller
from paddock.engine.api.openai.rerank import read_rerank
from paddock.engine.errors import InvalidName
from paddock.engine.request import ChatRequest, resolve_sampling

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
OTHER = {"type": "function", "function": {"name": "subtract"}}


def requests_for(**fields: Any) -> tuple[ChatRequest, ...]:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return read_chat(body, ApiCaller()).requests


def first(**fields: Any) -> ChatRequest:
    return requests_for(**fields)[0]


def prompts_of(value: Any) -> tuple[Any, ...]:
    call = read_completion({"model": "m", "prompt": value}, ApiCaller())
    return tuple(request.prompt_tokens or request.prompt for request in call.requests)


def refused(**fields: Any) -> InvalidValue:
    with pytest.raises(InvalidValue) as caught:
        requests_for(**fields)
    return caught.value


def test_what_no_one_says_is_openais_after_the_models_own() -> None:
    request = first()
    assert request.params == {}
    assert {"temperature": 1.0, "top_p": 1.0, "max_tokens": -1}.items() <= request.defaults.items()
    sampling = resolve_sampling(request.params, {"temperature": 0.2}, request.defaults)
    assert (sampling.temperature, sampling.top_p) == (0.2, 1.0)
    assert not request.reserves_answer
    assert not request.truncates


def test_every_choice_has_dice_of_its_own() -> None:
    seeds = [
        request.params.get("seed", request.defaults.get("seed")) for request in requests_for(n=4)
    ]
    assert len(set(seeds)) == 4
    assert [request.params["seed"] for request in requests_for(n=3, seed=7)] == [7, 8, 9]
    assert "seed" not in first().params, "a model's own seed goes before ours"
    assert first().defaults["seed"] != first().defaults["seed"]


def test_tokens_may_be_favoured_by_their_ids() -> None:
    assert first(logit_bias={"50": -100, "7": 2.5}).params["logit_bias"] == {"50": -100, "7": 2.5}
    for bias, why in (
        ({"fifty": 1}, "'fifty' is no token id."),
        ({"5": 101}, "the bias of 5 must be a number from -100 to 100."),
        ({"5": True}, "the bias of 5 must be a number from -100 to 100."),
    ):
        assert refused(logit_bias=bias).message == f"Invalid value for 'logit_bias': {why}"


@pytest.mark.parametrize(
    ("effort", "think"),
    [("none", False), ("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"),
     ("xhigh", "high"), ("ultra", "high")],
)  # fmt: skip
def test_effort_is_said_in_two_ways(effort: str, think: Any) -> None:
    assert first(reasoning_effort=effort).think == think
    assert first(reasoning={"effort": effort}).think == think
    assert first().think is None


@pytest.mark.parametrize(
    ("choice", "engines", "names"),
    [
        (None, "auto", ["add", "subtract"]),
        ("none", "none", ["add", "subtract"]),
        ("required", "required", ["add", "subtract"]),
        ({"type": "function", "function": {"name": "add"}}, "add", ["add", "subtract"]),
        ({"type": "function", "name": "add"}, "add", ["add", "subtract"]),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOL]}},
         "required", ["add"]),
    ],
)  # fmt: skip
def test_a_tool_may_be_chosen(choice: Any, engines: str, names: list[str]) -> None:
    request = first(tools=[TOOL, OTHER], tool_choice=choice)
    assert request.tool_choice == engines
    assert [tool.name for tool in request.tools] == names


def test_a_choice_that_cannot_be_met_is_refused() -> None:
    tool_choice = {"type": "function", "function": {"name": "divide"}}
    error = refused(tools=[TOOL], tool_choice=tool_choice)
    assert error.message == ("the tool 'divide' must be called, but is not offered. Known: 'add'.")
    assert refused(tool_choice="required").param == "tool_choice"
    assert refused(tools=[TOOL], tool_choice="sometimes").param == "tool_choice"


def test_tools_that_only_openai_has_are_refused_by_name_but_a_web_search() -> None:
    assert [tool.name for tool in first(tools=[{"type": "web_search"}, TOOL]).tools] == ["add"]
    error = refused(tools=[{"type": "code_interpreter"}])
    assert "'code_interpreter' are not supported here" in error.message


def test_probabilities_are_wanted_by_two_fields() -> None:
    assert first().n_logprobs is None
    assert first(logprobs=True).n_logprobs == 0
    assert first(logprobs=True, top_logprobs=3).n_logprobs == 3
    assert refused(top_logprobs=3).param == "top_logprobs"
    assert refused(logprobs=True, top_logprobs=21).param == "top_logprobs"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 3},
         "Invalid value for 'temperature': expected at most 2, not 3."),
        ({"temperature": "hot"},
         "Invalid type for 'temperature': expected a number, but got a string instead."),
        ({"n": 0}, "Invalid value for 'n': expected at least 1, not 0."),
        ({"n": 1.5}, "Invalid type for 'n': expected an integer, but got a number instead."),
        ({"max_tokens": 0},
         "Invalid value for 'max_tokens': expected at least 1, not 0."),
        ({"stream": "yes"},
         "Invalid type for 'stream': expected a boolean, but got a string instead."),
        ({"stop": [1]}, "Invalid value for 'stop': expected a string or an array of strings."),
        ({"tools": {}}, "Invalid type for 'tools': expected an array, but got an object instead."),
        ({"response_format": {"type": "xml"}},
         "Invalid value for 'response_format.type': 'xml'. Supported values are: 'text', "
         "'json_object' or 'json_schema'."),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
         "Missing required parameter: 'response_format.json_schema.schema'."),
        ({"model": ""}, "Missing required parameter: 'model'."),
        ({"model": 7}, "Invalid type for 'model': expected a string, but got an integer instead."),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_what_was_there(fields: dict[str, Any], message: str) -> None:
    assert refused(**fields).message == message


def test_a_model_is_a_name_and_never_a_path() -> None:
    for path in ("/etc/passwd", "./x.gguf", "~/x.gguf", "..\\x", "a b"):
        with pytest.raises(InvalidName):
            first(model=path)
    assert first(model="x.gguf").model.ref == "x.gguf:latest", "no file of the working folder"
    assert first(model="hf.co/team/m:Q4").model.ref == "hf.co/team/m:Q4"


@pytest.mark.parametrize(
    ("value", "prompts"),
    [
        ("a", ("a",)),
        ("", ("",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_a_prompt_has_four_forms(value: Any, prompts: Any) -> None:
    assert prompts_of(value) == prompts


@pytest.mark.parametrize("value", [None, [], 7, ["a", 1], [[]], [1.5], [-1], [True], {"a": 1}])
def test_other_prompts_are_refused(value: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        prompts_of(value)
    assert caught.value.param == "prompt"


def test_each_prompt_of_a_completion_has_its_choices_next_to_one_another() -> None:
    body = {"model": "m", "prompt": ["a", "b"], "n": 2, "seed": 1}
    call = read_completion(body, ApiCaller())
    drawn = [(drawn.prompt, drawn.params["seed"]) for drawn in call.requests]
    assert drawn == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_what_cannot_be_told_of_a_prompt_is_refused() -> None:
    for fields in ({"echo": True, "logprobs": 1}, {"best_of": 3}):
        with pytest.raises(InvalidValue):
            read_completion({"model": "m", "prompt": "a", **fields}, ApiCaller())


@pytest.mark.parametrize(
    ("read", "fields", "why"),
    [
        (
            read_embedding,
            {"input": ["a"] * 2049},
            "at most 2,048 inputs are embedded at once, not 2,049.",
        ),
        (
            read_rerank,
            {"query": "q", "documents": ["a"] * 2049},
            "at most 2,048 are scored at once.",
        ),
    ],
)
def test_the_number_of_inputs_is_bounded(read: Any, fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ApiError) as caught:
        read({"model": "m", **fields}, ApiCaller())
    assert why in caught.value.message
    for name, value in fields.items():
        if isinstance(value, list):
            assert read({"model": "m", **fields, name: value[:2048]}, ApiCaller())
