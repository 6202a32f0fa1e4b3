"""Parameters of OpenAI's endpoints: model, sampling, response format, tools, reasoning. Pure.

Chat, completions and Responses have the same names but for a few, which are arguments. A value
that the request lacks comes from the model's own defaults, then from OpenAI's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from paddock.engine.api.errors import InvalidValue
from paddock.engine.models.model_names import parse_name
from paddock.engine.request import Constraint, ModelSpec, Role, Think, Tool
from paddock.engine.sampling_values import INTEGER_RANGES, NUMBER_RANGES

from .request_body import Fields

OPENAI_DEFAULTS: Mapping[str, Any] = {"temperature": 1.0, "top_p": 1.0, "max_tokens": -1}
"""Used where neither the request nor the model has a value; -1: to the end of the context."""

MAX_CHOICES = 128
MAX_LOGPROBS = 20

# Not OpenAI's, but sent by clients of local servers.
_EXTRA_INTEGERS = ("top_k", "repeat_last_n")
_EXTRA_NUMBERS = ("min_p", "typical_p", "repeat_penalty")

_REASONING_EFFORTS: Mapping[str, Think] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
    "ultra": "high",
}


def read_model(body: Fields, role: Role) -> tuple[str, ModelSpec]:
    """Return the model's name in the request, and its specification."""
    model = body.needed_text("model")
    return model, ModelSpec(model_ref(model), role)


def model_ref(model: str) -> str:
    """Return the pool's reference for a client's name of a model.

    Raises:
        InvalidName: it cannot be a model's name. The path of a file is none: clients may not read
            files of this machine.
    """
    name = parse_name(model)
    return name.short if model.lower().endswith(".gguf") else model


def read_sampling(body: Fields, *limits: str) -> dict[str, Any]:
    """Return the sampling parameters; `limits` are names of `max_tokens`, the first counts."""
    params: dict[str, Any] = {
        "temperature": body.number("temperature", 0, 2),
        "top_p": body.number("top_p", 0, 1),
        "frequency_penalty": body.number("frequency_penalty", -2, 2),
        "presence_penalty": body.number("presence_penalty", -2, 2),
        "seed": body.whole("seed", -(2**63), 2**63 - 1),
        "stop": _read_stop(body),
        "logit_bias": _read_logit_bias(body),
        "max_tokens": next((body.whole(name, 1) for name in limits if body.has(name)), None),
        **{name: body.whole(name, *INTEGER_RANGES[name]) for name in _EXTRA_INTEGERS},
        **{name: body.number(name, *NUMBER_RANGES[name]) for name in _EXTRA_NUMBERS},
    }
    return {name: value for name, value in params.items() if value is not None}


def _read_stop(body: Fields) -> tuple[str, ...] | None:
    value = body.any("stop")
    if value is None:
        return None
    marks = [value] if isinstance(value, str) else value
    if not isinstance(marks, list) or not all(isinstance(mark, str) for mark in marks):
        raise body.refused("stop", "expected a string or an array of strings.")
    return tuple(mark for mark in marks if mark)


def _read_logit_bias(body: Fields) -> dict[str, float] | None:
    found = body.object("logit_bias")
    if found is None:
        return None
    for token in found.values:
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            raise found.refused(token[:40], "keys must be token ids.")
    return {token: found.number(token, -100, 100) or 0.0 for token in found.values}


def read_think(body: Fields) -> Think | None:
    """Return the reasoning effort: `reasoning_effort`, or `reasoning.effort`."""
    reasoning = body.object("reasoning")
    if body.has("reasoning_effort"):
        found, name = body, "reasoning_effort"
    elif reasoning is not None and reasoning.has("effort"):
        found, name = reasoning, "effort"
    else:
        return None
    return _REASONING_EFFORTS[found.one_of(name, tuple(_REASONING_EFFORTS), "")]


def read_response_format(format_: Fields | None) -> Constraint | None:
    """Return the constraint of a format, of chat (nested `json_schema`) or Responses (flat)."""
    if format_ is None:
        return None
    kind = format_.one_of("type", ("text", "json_object", "json_schema"), "")
    if kind == "text":
        return None
    if kind == "json_object":
        return Constraint("json")
    named = format_.object("json_schema") or format_
    schema = named.tree("schema")
    if schema is None:
        raise named.refused("schema", "expected a JSON Schema as an object.")
    return Constraint("json_schema", json.dumps(schema, ensure_ascii=False))


def read_tools(body: Fields) -> tuple[Tool, ...]:
    """Return `tools`, of chat (nested `function`) or Responses (flat), without web searches.

    Tools that only OpenAI's servers have are refused.
    """
    tools: list[Tool] = []
    for one in body.objects("tools"):
        in_namespace = one.needed_text("type") == "namespace"
        for tool in one.objects("tools") if in_namespace else (one,):
            kind = tool.needed_text("type")
            if kind == "function":
                tools.append(_read_tool(tool.object("function") or tool))
            elif not kind.startswith("web_search"):  # some clients always send it
                raise tool.refused("type", f"tools of type '{kind[:40]}' are not supported here.")
    return tuple(tools)


def _read_tool(function: Fields) -> Tool:
    name, description = function.needed_text("name"), function.text("description")
    return Tool(name, description, function.tree("parameters") or {})


def read_tool_choice(body: Fields, tools: tuple[Tool, ...]) -> tuple[str, tuple[Tool, ...]]:
    """Return `tool_choice` as the engine has it, and the allowed tools."""
    value = body.any("tool_choice")
    if value is None or isinstance(value, str):
        choice = body.one_of("tool_choice", ("none", "auto", "required"), "auto")
        return _checked_choice(body, choice, tools), tools
    found = body.needed_object("tool_choice")
    kind = found.needed_text("type")
    if kind == "allowed_tools":
        return _allowed_tools(found.object("allowed_tools") or found, tools)
    if kind != "function":
        raise found.refused("type", f"'{kind[:40]}' is not supported here.")
    name = (found.object("function") or found).needed_text("name")
    _check_offered(found, name, tools)
    return name, tools


def _allowed_tools(found: Fields, tools: tuple[Tool, ...]) -> tuple[str, tuple[Tool, ...]]:
    names = [(one.object("function") or one).needed_text("name") for one in found.objects("tools")]
    for name in names:
        _check_offered(found, name, tools)
    kept = tuple(tool for tool in tools if tool.name in names)
    return _checked_choice(found, found.one_of("mode", ("auto", "required"), "auto"), kept), kept


def _checked_choice(body: Fields, choice: str, tools: tuple[Tool, ...]) -> str:
    if choice == "required" and not tools:
        place = body.place("tool_choice")
        raise InvalidValue("a tool must be called ('required'), but none is offered.", place)
    return choice


def _check_offered(found: Fields, name: str, tools: tuple[Tool, ...]) -> None:
    if all(tool.name != name for tool in tools):
        known = ", ".join(f"'{tool.name}'" for tool in tools) or "none"
        said = f"the tool '{name[:80]}' must be called, but is not offered. Known: {known}."
        raise InvalidValue(said, found.place("name"))
