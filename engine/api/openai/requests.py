"""Parse OpenAI requests: body, fields by type, model, sampling, format, tools, messages, images.

What is wrong raises InvalidValue, which names the field by its path and the type that was found;
so do all functions that read fields. `null` counts as absent, because clients write it for what
they leave out; unknown fields are ignored. Codex and others compress bodies with zstd; the
decompressed size counts against the same limit.

Chat, completions and Responses have the same names but for a few, which are arguments. A value
that the request lacks comes from the model's own defaults, then from OpenAI's. In Responses one
answer is several items (reasoning, text, each tool call), but one message here, so its items are
merged. Images are `data:` URIs only: fetching a caller's URL could reach into the private network
(SSRF).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from starlette.requests import Request

from paddock.engine.api.errors import ApiError, InvalidValue
from paddock.engine.api.json_body import is_shallow, parse_object, read_body, read_json
from paddock.engine.api.request_limits import body_too_large
from paddock.engine.api.service import service_of
from paddock.engine.models.model_names import parse_name
from paddock.engine.request import (
    Constraint,
    Message,
    ModelSpec,
    Role,
    Think,
    Tool,
    ToolCall,
    with_tool_names,
)
from paddock.engine.sampling_values import INTEGER_RANGES, NUMBER_RANGES

MOST_SCHEMA_LEVELS = 64
"""Nesting of a JSON Schema, or of a tool call's arguments."""

_T = TypeVar("_T")


class Fields:
    """One JSON object of a request, with its path in the request."""

    def __init__(self, values: Mapping[str, Any], at: str = "") -> None:
        self.values = values
        self.at = at

    def place(self, name: str) -> str:
        """Return a field's path in the request: `messages[0].role`."""
        return f"{self.at}.{name}" if self.at else name

    def refused(self, name: str, why: str, code: str | None = None) -> InvalidValue:
        """Return the error "Invalid value for 'n': why"."""
        place = self.place(name)
        return InvalidValue(f"Invalid value for '{place}': {why}", place, code=code)

    def _wrong(self, name: str, wanted: str) -> InvalidValue:
        return _invalid_type(self.place(name), wanted, self.values[name])

    def has(self, name: str) -> bool:
        """Return whether a field is present and not null."""
        return self.values.get(name) is not None

    def any(self, name: str) -> Any:
        """Return a field's value of any type; None where it is absent."""
        return self.values.get(name)

    def _missing(self, name: str) -> InvalidValue:
        said = f"Missing required parameter: '{self.place(name)}'."
        return InvalidValue(said, self.place(name), code="missing_required_parameter")

    def _typed(self, name: str, kind: type[_T] | tuple[type[_T], ...], wanted: str) -> _T | None:
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self._wrong(name, wanted)
        return value

    def text(self, name: str, default: str = "") -> str:
        value = self._typed(name, str, "a string")
        return default if value is None else value

    def needed_text(self, name: str) -> str:
        """Return a text that must be there and not be empty."""
        value = self.text(name)
        if not value:
            raise self._missing(name)
        return value

    def one_of(self, name: str, known: tuple[str, ...], default: str) -> str:
        value = self.text(name, default)
        if value not in known:
            words = ", ".join(f"'{word}'" for word in known)
            raise self.refused(name, f"'{shown(value)}'. Supported values are: {words}.")
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        value = self._typed(name, bool, "a boolean")
        return default if value is None else value

    def number(self, name: str, least: float, most: float) -> float | None:
        value = self._typed(name, (int, float), "a number")
        if value is None:
            return None
        if not least <= value <= most:
            raise self.refused(name, f"expected a number from {least:g} to {most:g}, not {value}.")
        return float(value)

    def whole(self, name: str, least: int, most: int = 2**31 - 1) -> int | None:
        value = self._typed(name, (int, float), "an integer")
        if value is None:
            return None
        if isinstance(value, float) and not value.is_integer():
            raise self._wrong(name, "an integer")
        if not least <= value <= most:
            raise self.refused(name, f"expected an integer from {least} to {most}, not {value}.")
        return int(value)

    def object(self, name: str) -> Fields | None:
        value = self._typed(name, dict, "an object")
        return None if value is None else Fields(value, self.place(name))

    def needed_object(self, name: str) -> Fields:
        found = self.object(name)
        if found is None:
            raise self._missing(name)
        return found

    def tree(self, name: str) -> dict[str, Any] | None:
        """Return an object that is passed on as it is, such as a schema; None where it is absent.

        Its depth is limited, so that recursive functions can read it.
        """
        found = self.object(name)
        if found is None:
            return None
        if not is_shallow(found.values, MOST_SCHEMA_LEVELS):
            raise self.refused(name, f"it is nested more than {MOST_SCHEMA_LEVELS} levels deep.")
        return dict(found.values)

    def list(self, name: str) -> list[Any]:
        """Return an array; empty where it is absent."""
        return self._typed(name, list, "an array") or []

    def objects(self, name: str) -> Iterator[Fields]:
        """Yield an array's objects, each with its path."""
        for number, value in enumerate(self.list(name)):
            at = f"{self.place(name)}[{number}]"
            if not isinstance(value, Mapping):
                raise _invalid_type(at, "an object", value)
            yield Fields(value, at)


def _invalid_type(place: str, wanted: str, value: Any) -> InvalidValue:
    found = _type_name(value)
    said = f"Invalid type for '{place}': expected {wanted}, but got {found} instead."
    return InvalidValue(said, place, code="invalid_type")


def _type_name(value: Any) -> str:
    """Return the name of a JSON value's type, with its article."""
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "a boolean"),
        (str, "a string"),
        (int, "an integer"),
        (float, "a number"),
        (list, "an array"),
        (Mapping, "an object"),
    )
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")


def shown(text: str) -> str:
    """Return a text of the client, shortened, for an error."""
    return text if len(text) <= 80 else f"{text[:77]}..."


async def read_fields(request: Request) -> Fields:
    """Return the fields of a request's body.

    Raises:
        ApiError: 400, it is no JSON object; 413, it is too large decompressed; 415, it has an
            encoding that cannot be read here.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return Fields(await read_json(request))
    if encoding != "zstd":
        raise _unsupported_encoding(encoding)
    body, max_bytes = await read_body(request), service_of(request).settings.max_body_bytes
    return Fields(await asyncio.to_thread(lambda: parse_object(_decompress(body, max_bytes))))


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


def read_data_uri(fields: Fields, name: str) -> bytes:
    """Return the bytes of an image in a base64 `data:` URI."""
    address = fields.needed_text(name)
    head, comma, data = address.partition(",")
    if not address.startswith("data:") or not comma:
        raise fields.refused(
            name,
            "image URLs are not fetched; send the image itself as a base64 data: URI "
            "(`data:image/png;base64,…`).",
        )
    if not head.endswith(";base64"):
        raise fields.refused(name, "the data: URI must be base64 (`data:image/png;base64,…`).")
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise fields.refused(name, "the image is not valid base64.") from None


_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_TEXT_PARTS = ("text", "input_text", "output_text", "reasoning_text", "summary_text")


def chat_messages(body: Fields) -> tuple[Message, ...]:
    """Return `messages` of chat/completions."""
    messages = tuple(_read_message(one) for one in body.objects("messages"))
    if not messages:
        raise InvalidValue("[] is too short - 'messages'", "messages")
    return with_tool_names(messages)


def _read_message(fields: Fields) -> Message:
    role = read_role(fields)
    text, images = read_content(fields, "content")
    if role == "assistant" and not text:
        text = fields.text("refusal")
    return Message(
        role,
        text,
        reasoning=fields.text("reasoning") or fields.text("reasoning_content"),
        images=images,
        tool_calls=tuple(_read_tool_call(one) for one in fields.objects("tool_calls")),
        tool_name=fields.text("name") if role == "tool" else "",
        tool_call_id=fields.text("tool_call_id"),
    )


def read_role(fields: Fields) -> str:
    """Return a message's role; `developer` is `system`."""
    fields.needed_text("role")
    return _ROLES[fields.one_of("role", tuple(_ROLES), "")]


def read_content(fields: Fields, name: str) -> tuple[str, tuple[bytes, ...]]:
    """Return the text and images of a content; other parts (audio, files) are refused."""
    value = fields.any(name)
    if isinstance(value, str) or value is None:
        return value or "", ()
    texts: list[str] = []
    images: list[bytes] = []
    for part in fields.objects(name):
        kind = part.needed_text("type")
        if kind in _TEXT_PARTS:
            texts.append(part.text("text"))
        elif kind == "refusal":
            texts.append(part.text("refusal"))
        elif kind == "image_url":
            images.append(_image_url(part))
        elif kind == "input_image":
            images.append(_input_image(part))
        else:
            raise part.refused("type", f"parts of type '{kind[:40]}' are not supported.")
    return "\n".join(filter(None, texts)), tuple(images)


def _image_url(part: Fields) -> bytes:
    """Return an image of chat: `{"url": "data:…"}`, or the URI alone."""
    if isinstance(part.any("image_url"), str):
        return read_data_uri(part, "image_url")
    return read_data_uri(part.needed_object("image_url"), "url")


def _input_image(part: Fields) -> bytes:
    """Return an image of Responses."""
    if part.has("file_id"):
        raise part.refused("file_id", "images are read from `image_url` alone.")
    return read_data_uri(part, "image_url")


def _read_tool_call(fields: Fields) -> ToolCall:
    function = fields.needed_object("function")
    return ToolCall(
        function.needed_text("name"), read_arguments(function, "arguments"), fields.text("id")
    )


def read_arguments(fields: Fields, name: str) -> Mapping[str, Any]:
    """Return a call's arguments, the text of a JSON object or empty."""
    text = fields.text(name)
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise fields.refused(name, "invalid tool call arguments: not valid JSON.") from None
    if not isinstance(value, dict) or not is_shallow(value, MOST_SCHEMA_LEVELS):
        raise fields.refused(name, "invalid tool call arguments: not a JSON object.")
    return value


def response_messages(body: Fields) -> tuple[Message, ...]:
    """Return `instructions` and `input` as messages."""
    instructions = body.text("instructions")
    system = (Message("system", instructions),) if instructions else ()
    value = body.any("input")
    if isinstance(value, str):
        return (*system, Message("user", value))
    messages: list[Message] = []
    for message in filter(None, map(_item_message, body.objects("input"))):
        if messages and messages[-1].role == message.role == "assistant":
            messages[-1] = _merged(messages[-1], message)
        else:
            messages.append(message)
    if not messages:
        raise InvalidValue("Missing required parameter: 'input'.", "input")
    return with_tool_names((*system, *messages))


def _item_message(item: Fields) -> Message | None:
    """Return an item as a message or a part of one; None: it is nothing for a model."""
    kind = item.text("type", "message")
    if kind == "message":
        text, images = read_content(item, "content")
        return Message(read_role(item), text, images=images)
    if kind == "function_call":
        name = item.needed_text("name")
        call = ToolCall(name, read_arguments(item, "arguments"), item.text("call_id"))
        return Message("assistant", "", tool_calls=(call,))
    if kind == "function_call_output":
        text, images = read_content(item, "output")
        return Message("tool", text, images=images, tool_call_id=item.needed_text("call_id"))
    if kind == "reasoning":
        summary, _ = read_content(item, "summary")
        content, _ = read_content(item, "content")
        return Message("assistant", "", reasoning=text) if (text := content or summary) else None
    if kind == "web_search_call":  # its result is in the answer
        return None
    raise item.refused("type", f"items of type '{kind[:40]}' are not supported.")


def _merged(before: Message, after: Message) -> Message:
    """Return two parts of one answer as one message."""
    return replace(
        before,
        content="\n".join(filter(None, (before.content, after.content))),
        reasoning="\n".join(filter(None, (before.reasoning, after.reasoning))),
        images=before.images + after.images,
        tool_calls=before.tool_calls + after.tool_calls,
    )
