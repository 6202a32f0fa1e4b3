"""The fields that generating endpoints share."""

from typing import Any

import pytest

from paddock.engine.api.errors import InvalidValue
from paddock.engine.api.openai.chat_completions import read_chat, read_completion
from paddock.engine.api.openai.requests import ApiCaller
from paddock.engine.request import ChatRequest

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


def test_every_choice_has_dice_of_its_own() -> None:
    seeds = [
        request.params.get("seed", request.defaults.get("seed")) for request in requests_for(n=4)
    ]
    assert len(set(seeds)) == 4
    assert [request.params["seed"] for request in requests_for(n=3, seed=7)] == [7, 8, 9]
    assert "seed" not in first().params, "a model's own seed goes before ours"
    assert first().defaults["seed"] != first().defaults["seed"]


def test_tokens_may_be_favoured_by_their_ids() -> None:
    assert first(logit_bias={"50": -100, "7": 2.5}).params["logit_bias"] == {50: -100, 7: 2.5}
    for bias in ({"fifty": 1}, {"5": 101}, {"5": True}, {"-5": 1}, [5], "5"):
        assert refused(logit_bias=bias).message == (
            "Invalid value for 'logit_bias': expected numbers from -100 to 100 by token ids."
        )


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


@pytest.mark.parametrize("value", [None, [], 7, ["a", 1], [[]], [1.5], [-1], [True], {"a": 1}])
def test_other_prompts_are_refused(value: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        prompts_of(value)
    assert caught.value.param == "prompt"
