"""Parse requests to Ollama's API: model, options, format, thinking, images, messages, tools.

Has every check that Ollama has before it loads a model, with Ollama's error texts, and checks the
model's capabilities (from `paddock.engine.models.model_cards`). What is wrong raises ApiError with
Ollama's status and text.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from paddock.engine.api.errors import ApiError
from paddock.engine.api.json_body import (
    decode_base64,
    flag_of,
    integer_of,
    lower_case_keys,
    object_of,
    objects_of,
    parse_json,
    text_of,
    texts_of,
)
from paddock.engine.api.service import Service, priority_of, service_of
from paddock.engine.errors import InvalidName, ModelNotFound
from paddock.engine.models.model_cards import model_capabilities
from paddock.engine.models.model_names import is_path, parse_name
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    Constraint,
    Message,
    ModelFacts,
    ModelSpec,
    Priority,
    Role,
    Think,
    Tool,
    ToolCall,
)

from .options import OllamaOptions, default_sampling, read_keep_alive, read_options

MOST_TOP_LOGPROBS = 20
_LOCAL_SUFFIX = ":local"


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """The common fields of every request that uses a model."""

    service: Service
    body: Mapping[str, Any]
    model: str
    """As the client wrote it, for the answer."""
    spec: ModelSpec
    facts: ModelFacts
    options: OllamaOptions
    streams: bool
    priority: Priority
    began: float
    """By `time.monotonic`."""

    @property
    def is_unload(self) -> bool:
        """Whether a request without a prompt unloads its model."""
        return self.spec.keep_alive_s == 0


async def read_model_request(
    request: Request, body: Mapping[str, Any], role: Role = "chat"
) -> ModelRequest:
    """Parse the common fields and find the model."""
    began = time.monotonic()
    service = service_of(request)
    model = text_of(body, "model")
    keep_alive_s = read_keep_alive(body.get("keep_alive"))
    options = read_options(object_of(body, "options"))
    streams = flag_of(body, "stream", True)
    for ref in possible_refs(service.ref, model):
        spec = ModelSpec(ref, role, options.n_ctx_tokens, keep_alive_s)
        try:
            facts = await service.pool.facts(spec)
        except ModelNotFound:
            continue
        priority = priority_of(request)
        return ModelRequest(service, body, model, spec, facts, options, streams, priority, began)
    raise model_not_found(model)


def possible_refs(read: Callable[[str], str], model: str) -> list[str]:
    """Return the possible references of a model name, parsed by `read`.

    `:local` at the end is a tag, or Ollama's mark for a model of this machine.

    Raises:
        InvalidName: it cannot be a name.
    """
    if not model:
        return []
    if not model.endswith(_LOCAL_SUFFIX) or model == _LOCAL_SUFFIX:
        return [read(model)]
    refs = [read(model.removesuffix(_LOCAL_SUFFIX))]
    with suppress(InvalidName):  # there is another tag before it
        refs.insert(0, read(model))
    return refs


def full_name(ref: str) -> str:
    """Return a model's full name, as in Ollama's errors; a path as it is.

    >>> full_name("smollm2:135m"), full_name("/models/a.gguf")
    ('registry.ollama.ai/library/smollm2:135m', '/models/a.gguf')
    """
    return ref if is_path(ref) else parse_name(ref).full


def model_not_found(model: str) -> ApiError:
    return ApiError(404, f"model '{model}' not found")


def chat_request(
    asked: ModelRequest, messages: tuple[Message, ...], think: Think | None
) -> ChatRequest:
    body, options = asked.body, asked.options
    n_logprobs = read_top_logprobs(body)
    return ChatRequest(
        asked.spec,
        messages,
        options.params,
        asked.priority,
        constraint=read_format(body.get("format")),
        think=think,
        n_logprobs=n_logprobs if flag_of(body, "logprobs") else None,
        drafts=options.drafts,
        reserves_answer=False,
        truncates=flag_of(body, "truncate", True),
        shifts=flag_of(body, "shift") if body.get("shift") is not None else None,
        n_keep_tokens=options.n_keep_tokens,
        defaults=default_sampling(),
    )


def read_top_logprobs(body: Mapping[str, Any]) -> int:
    """Return how many alternatives to send for each token."""
    n = integer_of(body, "top_logprobs") or 0
    if not 0 <= n <= MOST_TOP_LOGPROBS:
        raise ApiError(400, f"top_logprobs must be between 0 and {MOST_TOP_LOGPROBS}")
    return n


def read_format(value: Any) -> Constraint | None:
    """Return the constraint of `format`."""
    if value is None or value == "":
        return None
    if value == "json":
        return Constraint("json")
    if isinstance(value, dict):
        return Constraint("json_schema", json.dumps(value))
    shown = json.dumps(json.dumps(value, ensure_ascii=False), ensure_ascii=False)
    wanted = 'expected "json" or a valid JSON Schema object'
    raise ApiError(500, f"invalid format: {shown}; {wanted}")


_THINK_LEVELS: Mapping[str, Think] = {
    "high": "high",
    "medium": "medium",
    "low": "low",
    "max": "high",
}


def read_think(value: Any, model: str, abilities: frozenset[str]) -> Think | None:
    """Return the reasoning effort; the default is to reason where the model can."""
    think = _parse_think(value)
    if "thinking" in abilities:
        return True if think is None else think
    if think:
        raise ApiError(400, f'"{model}" does not support thinking')
    return think


def _parse_think(value: Any) -> Think | None:
    if value is None or isinstance(value, bool):
        return value
    levels = '"high", "medium", "low", "max", true, or false'
    if not isinstance(value, str):
        raise ApiError(400, f"think must be a boolean or string ({levels})")
    if value not in _THINK_LEVELS:
        shown = json.dumps(value, ensure_ascii=False)
        raise ApiError(400, f"invalid think value: {shown} (must be {levels})")
    return _THINK_LEVELS[value]


def read_images(body: Mapping[str, Any]) -> tuple[bytes, ...]:
    """Return the images of a request or a message."""
    return tuple(decode_base64(text, "images") for text in texts_of(body, "images"))


async def capabilities_of(asked: ModelRequest) -> frozenset[str]:
    """Return some of completion, tools, insert, vision, embedding, thinking."""
    return frozenset(await asyncio.to_thread(model_capabilities, asked.service.finder, asked.facts))


def require_capability(
    asked: ModelRequest, abilities: frozenset[str], ability: str, verb: str = ""
) -> None:
    """Check a capability that a request needs.

    Raises:
        ApiError: 400, the model lacks it. As in Ollama, a `verb` error has the model's name as
            requested, others its full name.
    """
    if ability in abilities:
        return
    if verb:
        raise ApiError(400, f'"{asked.model}" does not support {verb}')
    raise ApiError(400, f"{full_name(asked.spec.ref)} does not support {ability}")


def read_message(raw: Mapping[str, Any]) -> Message:
    body = lower_case_keys(raw)
    return Message(
        text_of(body, "role").lower(),
        text_of(body, "content"),
        text_of(body, "thinking"),
        read_images(body),
        tuple(_read_tool_call(one) for one in objects_of(body, "tool_calls")),
        text_of(body, "tool_name") or text_of(body, "name"),
        text_of(body, "tool_call_id"),
    )


def _read_tool_call(raw: Mapping[str, Any]) -> ToolCall:
    body = lower_case_keys(raw)
    function = lower_case_keys(object_of(body, "function"))
    arguments = function.get("arguments")
    if isinstance(arguments, str):  # OpenAI's form, which many programs pass on
        arguments = parse_json(arguments or "{}")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise ApiError(400, "the `arguments` of a tool call must be an object")
    return ToolCall(text_of(function, "name"), arguments, text_of(body, "id"))


def read_tools(tools: Iterable[Mapping[str, Any]]) -> tuple[Tool, ...]:
    return tuple(_read_tool(lower_case_keys(one)) for one in tools)


def _read_tool(body: Mapping[str, Any]) -> Tool:
    function = lower_case_keys(object_of(body, "function"))
    name = text_of(function, "name")
    if not name:
        raise ApiError(400, "a tool needs a `function` with a `name`")
    return Tool(name, text_of(function, "description"), object_of(function, "parameters"))


def message_value(chunk: Chunk, call_numbers: Iterator[int]) -> dict[str, Any]:
    """Return a piece of an answer as a message; `call_numbers` count the answer's calls from 0."""
    value: dict[str, Any] = {"role": "assistant", "content": chunk.text}
    if chunk.reasoning:
        value["thinking"] = chunk.reasoning
    if chunk.tool_calls:
        value["tool_calls"] = [
            _tool_call_value(one, next(call_numbers)) for one in chunk.tool_calls
        ]
    return value


def _tool_call_value(call: ToolCall, index: int) -> dict[str, Any]:
    """Return a call with an id in Ollama's form."""
    call_id = call.id if call.id.startswith("call_") else f"call_{call.id.removeprefix('c')}"
    function = {"index": index, "name": call.name, "arguments": dict(call.arguments)}
    return {"id": call_id, "function": function}
