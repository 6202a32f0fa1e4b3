"""What Anthropic's clients ask, in the engine's words: model, sampling, tools, thinking, format.

Pure but for the seed, which is drawn. Unknown fields are ignored, as are those that mean something
on Anthropic's servers only (`metadata`, `service_tier`, `cache_control`: every prompt is cached).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paddock.engine.api.bodies import (
    flag_of,
    integer_of,
    number_of,
    object_of,
    objects_of,
    text_of,
    texts_of,
)
from paddock.engine.api.errors import ApiError
from paddock.engine.request import (
    ChatRequest,
    Constraint,
    Message,
    ModelSpec,
    Priority,
    Think,
    Tool,
)
from paddock.engine.store.names import parse_name

from .telling import Style
from .turns import read_turns


@dataclass(frozen=True, slots=True)
class Question:
    """One request for a message, or for the number of its tokens."""

    model: str
    """As the client wrote it: answers repeat it."""
    spec: ModelSpec
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    think: Think


def read_question(body: Mapping[str, Any]) -> Question:
    """Read what a message and its tokens' count have in common.

    Raises:
        ApiError: 400, with what is wrong.
        InvalidName: the model's name is none.
    """
    model = _model(body)
    # Never the text itself: a model may be named by a file's path elsewhere, but not from here.
    spec = ModelSpec(parse_name(model).short)
    return Question(model, spec, read_turns(body), _tools(body), _think(body))


def _model(body: Mapping[str, Any]) -> str:
    model = text_of(body, "model")
    if not model:
        raise ApiError(400, "model is required", param="model")
    return model


@dataclass(frozen=True, slots=True)
class Wish:
    """One request for a message."""

    question: Question
    request: ChatRequest
    streams: bool
    style: Style


def read_wish(body: Mapping[str, Any], priority: Priority) -> Wish:
    """Read a request for a message.

    Raises:
        ApiError: 400, with what is wrong.
        InvalidName: the model's name is none.
    """
    _model(body)
    max_tokens = integer_of(body, "max_tokens")
    if max_tokens is None or max_tokens <= 0:
        raise ApiError(400, "max_tokens is required and must be positive", param="max_tokens")
    question = read_question(body)
    choice = object_of(body, "tool_choice")
    params = {
        "max_tokens": max_tokens,
        "temperature": number_of(body, "temperature"),
        "top_p": number_of(body, "top_p"),
        "top_k": integer_of(body, "top_k"),
        "stop": tuple(filter(None, texts_of(body, "stop_sequences"))),
    }
    request = ChatRequest(
        question.spec,
        question.messages,
        {name: value for name, value in params.items() if value is not None},
        priority,
        tools=question.tools,
        tool_choice=_tool_choice(choice),
        constraint=_constraint(body),
        think=question.think,
        reserves_answer=False,
        defaults={"temperature": 1.0, "top_p": 1.0, "seed": secrets.randbelow(2**31 - 1)},
    )
    style = Style(
        question.model,
        max_tokens,
        calls_in_parallel=not flag_of(choice, "disable_parallel_tool_use"),
        shows_thinking=text_of(object_of(body, "thinking"), "display") != "omitted",
    )
    return Wish(question, request, flag_of(body, "stream"), style)


def _tools(body: Mapping[str, Any]) -> tuple[Tool, ...]:
    return tuple(_tool(one, f"tools.{n}") for n, one in enumerate(objects_of(body, "tools")))


def _tool(raw: Mapping[str, Any], where: str) -> Tool:
    kind = text_of(raw, "type")
    if kind not in ("", "custom"):
        raise ApiError(400, f"{where}.type: tools of type '{kind[:60]}' are not supported here")
    name = text_of(raw, "name")
    if not name:
        raise ApiError(400, f"{where}.name: is required")
    return Tool(name, text_of(raw, "description"), object_of(raw, "input_schema"))


_CHOICES = {"": "auto", "auto": "auto", "any": "required", "none": "none"}


def _tool_choice(raw: Mapping[str, Any]) -> str:
    kind = text_of(raw, "type")
    if kind == "tool":
        name = text_of(raw, "name")
        if not name:
            raise ApiError(400, "tool_choice.name: is required")
        return name
    if kind not in _CHOICES:
        raise ApiError(400, "tool_choice.type: must be 'auto', 'any', 'tool' or 'none'")
    return _CHOICES[kind]


_EFFORTS: Mapping[str, Think] = {
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}


def _think(body: Mapping[str, Any]) -> Think:
    """Tell whether to reason first: only where it is asked for, as Anthropic has it."""
    wanted = text_of(object_of(body, "output_config"), "effort").strip().lower()
    if wanted not in ("", *_EFFORTS):
        known = ", ".join(f"'{one}'" for one in _EFFORTS)
        raise ApiError(400, f"output_config.effort: must be one of {known}")
    effort = _EFFORTS.get(wanted)
    kind = text_of(object_of(body, "thinking"), "type")
    if kind not in ("", "enabled", "adaptive", "between_tools", "disabled"):
        raise ApiError(400, "thinking.type: must be 'enabled', 'adaptive' or 'disabled'")
    if kind == "disabled":
        return False
    return effort or bool(kind)


def _constraint(body: Mapping[str, Any]) -> Constraint | None:
    """Read what the answer must match: `output_config.format`, or `output_format` before it."""
    told = object_of(object_of(body, "output_config"), "format") or object_of(body, "output_format")
    if not told:
        return None
    schema = told.get("schema")
    if told.get("type") != "json_schema" or not isinstance(schema, dict):
        raise ApiError(400, "output_config.format: must be a 'json_schema' with its 'schema'")
    return Constraint("json_schema", json.dumps(schema, ensure_ascii=False))
