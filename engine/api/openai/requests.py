"""OpenAI requests: body, model, sampling, format, tools.

What is wrong raises InvalidValue, which names the field by its path and the type that was found.
Codex and others compress bodies with zstd; the decompressed size counts against the same limit.

Chat, completions and Responses have the same names but for a few. A value that the request lacks
comes from the model's own defaults, then from OpenAI's.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator
from starlette.requests import Request

from paddock.engine.api.body_models import Body, Items, Needed, Tree, Whole, refused, shown
from paddock.engine.api.errors import ApiError, InvalidValue
from paddock.engine.api.json_body import parse_object, read_body, read_json
from paddock.engine.api.request_limits import body_too_large
from paddock.engine.api.service import service_of
from paddock.engine.models.model_names import parse_name
from paddock.engine.request import Constraint, ModelSpec, Role, Think, Tool
from paddock.engine.sampling_values import INTEGER_RANGES, NUMBER_RANGES


class OpenAIBody(Body):
    """One object of a request."""

    dialect = "openai"


async def read_fields(request: Request) -> dict[str, Any]:
    """Return the fields of a request's body.

    Raises:
        ApiError: 400, it is no JSON object; 413, it is too large decompressed; 415, it has an
            encoding that cannot be read here.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return await read_json(request)
    if encoding != "zstd":
        raise _unsupported_encoding(encoding)
    body, max_bytes = await read_body(request), service_of(request).settings.max_body_bytes
    return await asyncio.to_thread(lambda: parse_object(_decompress(body, max_bytes)))


def _unsupported_encoding(encoding: str) -> ApiError:
    return ApiError(
        415,
        f"bodies with `Content-Encoding: {encoding[:40]}` are not read here; send plain JSON",
        {"Accept-Encoding": "zstd" if _has_zstd() else "identity"},
    )


def _has_zstd() -> bool:
    return importlib.util.find_spec("zstandard") is not None


def _decompress(body: bytes, max_bytes: int) -> bytes:
    if not _has_zstd():
        raise _unsupported_encoding("zstd")
    import zstandard  # an optional dependency

    parts, size = [], 0
    try:
        for part in zstandard.ZstdDecompressor().read_to_iter(body):
            size += len(part)
            if size > max_bytes:
                raise ApiError(413, body_too_large(max_bytes).message)
            parts.append(part)
    except zstandard.ZstdError as error:
        raise ApiError(400, f"the body is not zstd: {error}") from None
    return b"".join(parts)


OPENAI_DEFAULTS: Mapping[str, Any] = {"temperature": 1.0, "top_p": 1.0, "max_tokens": -1}
"""Used where neither the request nor the model has a value; -1: to the end of the context."""

MAX_CHOICES = 128
MAX_LOGPROBS = 20

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"]
_REASONING_EFFORTS: Mapping[Effort, Think] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
    "ultra": "high",
}


class ModelBody(OpenAIBody):
    """The fields of every request that uses a model."""

    model: Needed
    truncate: bool = False

    def spec(self, role: Role) -> ModelSpec:
        return ModelSpec(model_ref(self.model), role)


def model_ref(model: str) -> str:
    """Return the pool's reference for a client's name of a model.

    Raises:
        InvalidName: it cannot be a model's name. The path of a file is none: clients may not read
            files of this machine.
    """
    name = parse_name(model)
    return name.short if model.lower().endswith(".gguf") else model


def _stop_marks(value: Any) -> tuple[str, ...]:
    marks = [value] if isinstance(value, str) else value
    if not isinstance(marks, list) or not all(isinstance(mark, str) for mark in marks):
        raise refused("expected a string or an array of strings.")
    return tuple(mark for mark in marks if mark)


def _logit_bias(value: Any) -> dict[str, float]:
    """Return the bias of each token; checked here, as Pydantic would report every fault."""
    if not isinstance(value, dict):
        raise refused("expected an object.")
    for token, bias in value.items():
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            raise refused(f"'{shown(token)}' is no token id.")
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            raise refused(f"the bias of {token} must be a number from -100 to 100.")
    return {token: float(bias) for token, bias in value.items()}


Limit = Annotated[Whole, Field(ge=1, le=2**31 - 1)]
"""A number of tokens."""


def _ranged(ends: tuple[float, float]) -> Any:
    return Field(None, ge=ends[0], le=ends[1])


class _Reasoning(OpenAIBody):
    effort: Effort | None = None


class SamplingBody(ModelBody):
    """The fields of every request for an answer."""

    temperature: float | None = _ranged((0, 2))
    top_p: float | None = _ranged((0, 1))
    frequency_penalty: float | None = _ranged((-2, 2))
    presence_penalty: float | None = _ranged((-2, 2))
    seed: Whole | None = _ranged((-(2**63), 2**63 - 1))
    stop: Annotated[tuple[str, ...], PlainValidator(_stop_marks)] | None = None
    logit_bias: Annotated[dict[str, float], PlainValidator(_logit_bias)] | None = None
    # Not OpenAI's, but sent by clients of local servers.
    top_k: Whole | None = _ranged(INTEGER_RANGES["top_k"])
    repeat_last_n: Whole | None = _ranged(INTEGER_RANGES["repeat_last_n"])
    min_p: float | None = _ranged(NUMBER_RANGES["min_p"])
    typical_p: float | None = _ranged(NUMBER_RANGES["typical_p"])
    repeat_penalty: float | None = _ranged(NUMBER_RANGES["repeat_penalty"])
    stream: bool = False
    reasoning_effort: Effort | None = None
    reasoning: _Reasoning = _Reasoning()

    def sampling(self, max_tokens: int | None) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in _SAMPLING_NAMES} | {"max_tokens": max_tokens}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def think(self) -> Think | None:
        effort = self.reasoning_effort or self.reasoning.effort
        return _REASONING_EFFORTS[effort] if effort else None


_SAMPLING_NAMES = (
    "temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "stop", "logit_bias",
    "top_k", "repeat_last_n", "min_p", "typical_p", "repeat_penalty",
)  # fmt: skip


class _NamedSchema(OpenAIBody):
    schema_: Tree = Field(alias="schema")


class ResponseFormat(OpenAIBody):
    """The form of an answer, of chat (nested `json_schema`) or Responses (flat)."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: _NamedSchema | None = None
    schema_: Tree | None = Field(None, alias="schema")

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if self.type == "json_schema" and self.schema_ is None and self.json_schema is None:
            raise refused("expected a JSON Schema as an object, as its `schema`.")
        return self

    def constraint(self) -> Constraint | None:
        if self.type == "text":
            return None
        if self.type == "json_object":
            return Constraint("json")
        schema = self.json_schema.schema_ if self.json_schema else self.schema_
        return Constraint("json_schema", json.dumps(schema, ensure_ascii=False))


class _Nested(OpenAIBody):
    """An object whose fields are in it, as in Responses, or nested under its type, as in chat."""

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, value: Any) -> Any:
        kind = value.get("type") or "function" if isinstance(value, dict) else None
        if kind in ("function", "allowed_tools") and value.get(kind) is None:
            return {"type": kind, kind: value}
        return value


class _NamedFunction(OpenAIBody):
    name: Needed


class _OfferedFunction(_NamedFunction):
    description: str = ""
    parameters: Tree = Field(default_factory=dict)


def _supported(kind: str) -> str:
    """Refuse tools that only OpenAI's servers have, but web searches: some clients send them."""
    if kind not in ("function", "namespace") and not kind.startswith("web_search"):
        raise refused(f"tools of type '{shown(kind)}' are not supported here.")
    return kind


class _OfferedTool(_Nested):
    type: Annotated[Needed, AfterValidator(_supported)]
    function: _OfferedFunction | None = None


class _ToolOrNamespace(_OfferedTool):
    tools: Items[_OfferedTool] = ()


class _NamedTool(_Nested):
    function: _NamedFunction


class _AllowedTools(OpenAIBody):
    mode: Literal["auto", "required"] = "auto"
    tools: Items[_NamedTool] = ()


class _ToolChoice(_Nested):
    type: Literal["none", "auto", "required", "function", "allowed_tools"]
    function: _NamedFunction | None = None
    allowed_tools: _AllowedTools | None = None


def _as_choice(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


class ToolsBody(SamplingBody):
    """The fields of requests whose answers may call tools."""

    tools: Items[_ToolOrNamespace] = ()
    tool_choice: Annotated[_ToolChoice, BeforeValidator(_as_choice)] | None = None
    parallel_tool_calls: bool = True
    top_logprobs: Whole | None = _ranged((0, MAX_LOGPROBS))

    def offered_tools(self) -> tuple[str, tuple[Tool, ...]]:
        """Return `tool_choice` as the engine has it, and the tools that may be called."""
        tools, found = tuple(self._tools()), self.tool_choice
        if found is None:
            return "auto", tools
        if found.function is not None:
            _check_offered(found.function.name, tools)
            return found.function.name, tools
        choice: str = found.type
        if found.allowed_tools is not None:
            choice, names = found.allowed_tools.mode, set[str]()
            for allowed in found.allowed_tools.tools:
                _check_offered(allowed.function.name, tools)
                names.add(allowed.function.name)
            tools = tuple(tool for tool in tools if tool.name in names)
        if choice == "required" and not tools:
            message = "a tool must be called ('required'), but none is offered."
            raise InvalidValue(message, "tool_choice")
        return choice, tools

    def _tools(self) -> Iterator[Tool]:
        for outer in self.tools:
            for tool in (outer, *outer.tools):
                if (function := tool.function) is not None:
                    yield Tool(function.name, function.description, function.parameters)


def _check_offered(name: str, tools: tuple[Tool, ...]) -> None:
    if all(tool.name != name for tool in tools):
        known = ", ".join(f"'{tool.name}'" for tool in tools) or "none"
        message = f"the tool '{shown(name)}' must be called, but is not offered. Known: {known}."
        raise InvalidValue(message, "tool_choice.name")
