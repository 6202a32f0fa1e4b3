"""Parse requests to Ollama's API: model, format, thinking, images, messages, tools, `keep_alive`.

Has every check that Ollama has before it loads a model, with Ollama's error texts, and checks the
model's capabilities (from `paddock.engine.models.model_cards`). What is wrong raises ApiError with
Ollama's status and text. `keep_alive` is a number of seconds, or a Go duration (`5m`, `1h30m`,
`300ms`); below zero means for ever (api/types.go, `Duration.UnmarshalJSON`; time.ParseDuration).
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from starlette.requests import Request

from paddock.engine.api.body_models import Base64, Body, Few, Items, Needed, ToolCallBody, Whole
from paddock.engine.api.errors import ApiError
from paddock.engine.api.service import Service, priority_of, service_of
from paddock.engine.errors import InvalidName, ModelNotFound
from paddock.engine.models.model_cards import model_capabilities
from paddock.engine.models.model_names import is_path, parse_name
from paddock.engine.request import (
    EFFORTS,
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
)
from paddock.engine.system.records import Struct

from .options import OllamaOptions, default_sampling, read_options

_LOCAL_SUFFIX = ":local"


class OllamaBody(Body):
    model: str = ""
    keep_alive: Any = None
    options: Few = Field(default_factory=dict)
    stream: bool = True


class ModelRequest(Struct, frozen=True):
    service: Service
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
    request: Request, body: OllamaBody, role: Role = "chat"
) -> ModelRequest:
    began = time.monotonic()
    service, model = service_of(request), body.model
    priority = priority_of(request, streams=body.stream)
    keep_alive_s = read_keep_alive(body.keep_alive)
    options = read_options(body.options)
    for ref in possible_refs(service.ref, model):
        spec = ModelSpec(
            ref, role, options.n_ctx_tokens, keep_alive_s, on_processor=options.on_processor
        )
        try:
            facts = await service.pool.facts(spec)
        except ModelNotFound:
            continue
        return ModelRequest(service, model, spec, facts, options, body.stream, priority, began)
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


MOST_TOP_LOGPROBS = 20


def _in_range(n_logprobs: int) -> int:
    if not 0 <= n_logprobs <= MOST_TOP_LOGPROBS:
        raise ApiError(400, f"top_logprobs must be between 0 and {MOST_TOP_LOGPROBS}")
    return n_logprobs


class AnswerBody(OllamaBody):
    top_logprobs: Annotated[Whole, AfterValidator(_in_range)] = 0
    logprobs: bool = False
    format: Any = None
    think: Any = None
    truncate: bool = True
    shift: bool | None = None
    only_renders: bool = Field(False, alias="_debug_render_only")


def chat_request(
    model_request: ModelRequest,
    body: AnswerBody,
    messages: tuple[Message, ...],
    think: Think | None,
) -> ChatRequest:
    return ChatRequest(
        model_request.spec,
        messages,
        model_request.options.params,
        model_request.priority,
        constraint=read_format(body.format),
        think=think,
        n_logprobs=body.top_logprobs if body.logprobs else None,
        drafts=model_request.options.drafts,
        reserves_answer=False,
        truncates=body.truncate,
        shifts=body.shift,
        n_keep_tokens=model_request.options.n_keep_tokens,
        defaults=default_sampling(),
    )


def read_format(value: Any) -> Constraint | None:
    if value is None or value == "":
        return None
    if value == "json":
        return Constraint("json")
    if isinstance(value, dict):
        return Constraint("json_schema", json.dumps(value))
    shown = json.dumps(json.dumps(value, ensure_ascii=False), ensure_ascii=False)
    expected = 'expected "json" or a valid JSON Schema object'
    raise ApiError(500, f"invalid format: {shown}; {expected}")


def read_think(value: Any, model: str, abilities: frozenset[str]) -> Think | None:
    """Return the reasoning effort; the default is to reason where the model can."""
    levels = '"high", "medium", "low", "max", true, or false'
    think: Think | None
    if value is None or isinstance(value, bool):
        think = value
    elif not isinstance(value, str):
        raise ApiError(400, f"think must be a boolean or string ({levels})")
    elif (level := EFFORTS.get(value)) is not None:
        think = level
    else:
        shown = json.dumps(value, ensure_ascii=False)
        raise ApiError(400, f"invalid think value: {shown} (must be {levels})")
    if "thinking" in abilities:
        return True if think is None else think
    if think:
        raise ApiError(400, f'"{model}" does not support thinking')
    return think


async def capabilities_of(model_request: ModelRequest) -> frozenset[str]:
    """Return some of completion, tools, insert, vision, embedding, thinking."""
    return frozenset(
        await asyncio.to_thread(
            model_capabilities, model_request.service.finder, model_request.facts
        )
    )


def require_capability(
    model_request: ModelRequest, abilities: frozenset[str], ability: str, verb: str = ""
) -> None:
    """Check a capability that a request needs.

    Raises:
        ApiError: 400, the model lacks it. As in Ollama, a `verb` error has the model's name as
            requested, others its full name.
    """
    if ability in abilities:
        return
    if verb:
        raise ApiError(400, f'"{model_request.model}" does not support {verb}')
    raise ApiError(400, f"{full_name(model_request.spec.ref)} does not support {ability}")


class MessageBody(Body):
    role: str = ""
    content: str = ""
    thinking: str = ""
    images: Items[Base64] = ()
    tool_calls: Items[ToolCallBody] = ()
    tool_name: str = ""
    name: str = ""
    tool_call_id: str = ""

    def message(self) -> Message:
        return Message(
            self.role.lower(),
            self.content,
            self.thinking,
            self.images,
            tuple(call.call() for call in self.tool_calls),
            self.tool_name or self.name,
            self.tool_call_id,
        )


class _FunctionBody(Body):
    name: Needed
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)


class ToolBody(Body):
    type: Literal["function", ""] = ""
    function: _FunctionBody

    def tool(self) -> Tool:
        return Tool(self.function.name, self.function.description, self.function.parameters)


def chunk_as_message(chunk: Chunk, call_numbers: Iterator[int]) -> dict[str, Any]:
    """Return a piece of an answer as a message; `call_numbers` count the answer's calls from 0."""
    value: dict[str, Any] = {"role": "assistant", "content": chunk.text}
    if chunk.reasoning:
        value["thinking"] = chunk.reasoning
    for call in chunk.tool_calls:
        # With an id in Ollama's form.
        call_id = call.id if call.id.startswith("call_") else f"call_{call.id.removeprefix('c')}"
        function = {"index": next(call_numbers), "name": call.name, "arguments": {**call.arguments}}
        value.setdefault("tool_calls", []).append({"id": call_id, "function": function})
    return value


FOREVER_S = -1.0

# Two letters look like mu: the micro sign and the Greek one. Go accepts both.
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3, "s": 1.0,
            "m": 60.0, "h": 3600.0}  # fmt: skip
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([^0-9.]*)")
_MOST_DURATION_CHARS = 1_000  # Go has no limit; two million parts took 14 s
_MAX_GO_DURATION_S = (2**63 - 1) / 1e9
_GO_TYPE_NAMES = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}


def read_keep_alive(value: Any) -> float | None:
    """Return seconds; -1.0: for ever; None: not given.

    >>> read_keep_alive("1h30m"), read_keep_alive(-7), read_keep_alive(0), read_keep_alive(None)
    (5400.0, -1.0, 0.0, None)
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _bounded(parse_go_duration(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _bounded(value)
    kind = _GO_TYPE_NAMES.get(type(value), type(value).__name__)
    raise ApiError(400, f"Unsupported type: '{kind}'")


def _bounded(seconds: float) -> float:
    is_forever = seconds < 0 or seconds > _MAX_GO_DURATION_S or math.isnan(seconds)
    return FOREVER_S if is_forever else float(seconds)


def parse_go_duration(text: str) -> float:
    """Return the seconds of a duration in Go's notation.

    >>> parse_go_duration("300ms"), parse_go_duration("-1m"), parse_go_duration("0")
    (0.3, -60.0, 0.0)
    """
    rest = text[1:] if text[:1] in ("+", "-") else text
    shown = text if len(text) <= 64 else text[:64] + "…"
    parts = _DURATION_PART.findall(rest) if len(rest) <= _MOST_DURATION_CHARS else []
    if rest == "0":
        return 0.0
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        raise ApiError(400, f'time: invalid duration "{shown}"')
    for _, unit in parts:
        if unit not in _UNITS_S:
            why = f'unknown unit "{unit}"' if unit else "missing unit"
            raise ApiError(400, f'time: {why} in duration "{shown}"')
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    return -seconds if text.startswith("-") else seconds
