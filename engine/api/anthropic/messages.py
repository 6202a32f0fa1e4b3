"""POST /v1/messages and /v1/messages/count_tokens: parse requests, answer them, write events.

Parsing is pure but for the random seed. A user message may hold tool results and text: each result
becomes a `tool` message of its own before the text. Blocks that only Anthropic's servers can handle
(files, searches) are refused. What is wrong raises ApiError (400) with its path, the model's name
InvalidName. Unknown fields are ignored, as are `metadata`, `service_tier` and `cache_control`
(every prompt is cached).

Order of events: message_start; for each block content_block_start, its deltas, content_block_stop;
message_delta with the stop reason and the usage; message_stop. Anthropic's clients list models at
OpenAI's path (`/v1/models`); their header `anthropic-version` identifies them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.errors import ApiError, error_body
from paddock.engine.api.json_body import (
    decode_base64,
    flag_of,
    integer_of,
    number_of,
    object_of,
    objects_of,
    read_json,
    text_of,
    texts_of,
)
from paddock.engine.api.request_log import note_model
from paddock.engine.api.service import Service, priority_of, service_of
from paddock.engine.api.streaming import (
    json_response,
    nanoseconds,
    rfc3339,
    sse_event,
    sse_response,
    while_connected,
)
from paddock.engine.errors import EngineError, ModelNotFound, PromptTooLong
from paddock.engine.models.model_cards import ModelCard
from paddock.engine.models.model_names import parse_name
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    Constraint,
    Message,
    ModelSpec,
    Priority,
    Reply,
    Think,
    Tool,
    ToolCall,
    Usage,
    with_tool_names,
)


@dataclass(frozen=True, slots=True)
class MessageFormat:
    """The form of one answer."""

    model: str
    """As the client wrote it."""
    max_tokens: int
    calls_in_parallel: bool = True
    shows_thinking: bool = True
    """Whether a thinking block has its text or is empty."""


def message_value(reply: Reply, format_: MessageFormat) -> dict[str, Any]:
    calls = reply.tool_calls if format_.calls_in_parallel else reply.tool_calls[:1]
    content: list[dict[str, Any]] = []
    if reply.reasoning:
        shown = reply.reasoning if format_.shows_thinking else ""
        signature = _signature(reply.reasoning)
        content.append({"type": "thinking", "thinking": shown, "signature": signature})
    if reply.text:
        content.append({"type": "text", "text": reply.text})
    content += [{**_tool_use_value(call), "input": dict(call.arguments)} for call in calls]
    return {
        **_message_head(format_.model),
        "content": content,
        **_stop_fields(reply, calls, format_),
        "usage": usage_value(reply.usage),
    }


def _message_head(model: str) -> dict[str, Any]:
    message_id = f"msg_{secrets.token_hex(12)}"
    return {"id": message_id, "type": "message", "role": "assistant", "model": model}


def _tool_use_value(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name}


def _stop_fields(reply: Reply, calls: Sequence[ToolCall], format_: MessageFormat) -> dict[str, Any]:
    """Return the stop reason; an answer stopped because it repeats itself has `max_tokens`."""
    if reply.done_reason == "length" and reply.usage.completion_tokens < format_.max_tokens:
        reason = "model_context_window_exceeded"
    elif reply.done_reason != "stop":
        reason = "max_tokens"
    elif calls:
        reason = "tool_use"
    else:
        reason = "stop_sequence" if reply.stop else "end_turn"
    stop = reply.stop if reason == "stop_sequence" else None
    return {"stop_reason": reason, "stop_sequence": stop}


def usage_value(usage: Usage) -> dict[str, Any]:
    """Return the usage; Anthropic does not count cached tokens as input."""
    return {
        "input_tokens": usage.prompt_tokens - usage.prompt_reused_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.prompt_reused_tokens,
        "output_tokens": usage.completion_tokens,
        "queue_duration": nanoseconds(usage.queue_s),
    }


def _signature(reasoning: str) -> str:
    """Return a signature, which clients send back; some drop a thinking block without one."""
    return hashlib.sha256(reasoning.encode("utf-8", "replace")).hexdigest()


class MessageStreamWriter:
    """Writes one stream."""

    def __init__(self, format_: MessageFormat) -> None:
        self._format = format_
        self._n_blocks = 0
        self._open = ""
        """The type of the open block; empty: none."""
        self._reasoning: list[str] = []
        self._calls: list[ToolCall] = []

    def begin(self, n_prompt_tokens: int) -> Iterator[bytes]:
        """Yield the events before the first chunk; the last event has the exact usage."""
        message = {
            **_message_head(self._format.model),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_value(Usage(prompt_tokens=n_prompt_tokens)),
        }
        yield _named_event("message_start", message=message)

    def chunk(self, chunk: Chunk) -> Iterator[bytes]:
        if chunk.reasoning:
            yield from self._in_block("thinking", {"thinking": "", "signature": ""})
            self._reasoning.append(chunk.reasoning)
            if self._format.shows_thinking:
                yield self._delta("thinking_delta", thinking=chunk.reasoning)
        if chunk.text:
            yield from self._in_block("text", {"text": ""})
            yield self._delta("text_delta", text=chunk.text)
        for call in chunk.tool_calls:
            if self._calls and not self._format.calls_in_parallel:
                continue
            yield from self._close()
            yield from self._in_block("tool_use", {**_tool_use_value(call), "input": {}})
            arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
            yield self._delta("input_json_delta", partial_json=arguments)
            self._calls.append(call)

    def end(self, reply: Reply) -> Iterator[bytes]:
        yield from self._close()
        ending = _stop_fields(reply, self._calls, self._format)
        yield _named_event("message_delta", delta=ending, usage=usage_value(reply.usage))
        yield _named_event("message_stop")

    def _in_block(self, kind: str, fields: dict[str, Any]) -> Iterator[bytes]:
        if self._open == kind:
            return
        yield from self._close()
        self._open = kind
        block = {"type": kind, **fields}
        yield _named_event("content_block_start", index=self._n_blocks, content_block=block)

    def _close(self) -> Iterator[bytes]:
        if not self._open:
            return
        if self._open == "thinking":
            yield self._delta("signature_delta", signature=_signature("".join(self._reasoning)))
            self._reasoning.clear()
        yield _named_event("content_block_stop", index=self._n_blocks)
        self._n_blocks += 1
        self._open = ""

    def _delta(self, kind: str, **fields: str) -> bytes:
        delta = {"type": kind, **fields}
        return _named_event("content_block_delta", index=self._n_blocks, delta=delta)


def _named_event(kind: str, **fields: Any) -> bytes:
    return sse_event({"type": kind, **fields}, kind)


def is_anthropic_client(request: Request) -> bool:
    return "anthropic-version" in request.headers


def model_list_value(listed: Sequence[ModelCard]) -> dict[str, Any]:
    """Return a list of models; all are on one page."""
    data = [model_value(one.name, one) for one in listed]
    ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "has_more": False, "first_id": ends[0], "last_id": ends[1]}


def model_value(name: str, card: ModelCard) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": card.name,
        "created_at": rfc3339(card.modified_at),
        "lifecycle": "active",
    }


_ROLES = ("user", "assistant", "system")


def read_messages(body: Mapping[str, Any]) -> tuple[Message, ...]:
    """Return `system` and `messages`."""
    messages: list[Message] = []
    system = _text_only(body.get("system"), "system")
    if system:
        messages.append(Message("system", system))
    given = body.get("messages")
    if given is None or given == []:
        raise ApiError(400, "messages is required", param="messages")
    if not isinstance(given, list):
        _refuse("messages", "must be a list")
    for number, raw in enumerate(given):
        where = f"messages.{number}"
        if not isinstance(raw, dict):
            _refuse(where, "must be an object")
        messages += _read_message(raw, where)
    return with_tool_names(messages)


@dataclass(slots=True)
class _BlockContents:
    """The contents of one message's blocks."""

    texts: list[str] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    results: list[Message] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n\n".join(filter(None, self.texts))


def _read_message(raw: Mapping[str, Any], where: str) -> list[Message]:
    role = text_of(raw, "role").lower()
    if role not in _ROLES:
        _refuse(f"{where}.role", f"must be 'user' or 'assistant', not {_short(role)}")
    content = raw.get("content")
    if isinstance(content, str):
        return [Message(role, content)]
    found = _BlockContents()
    for place, block in _each_block(content, f"{where}.content"):
        _collect_block(block, place, found)
    messages = list(found.results)
    if found.texts or found.images or found.calls or found.thoughts or not messages:
        reasoning = "\n\n".join(found.thoughts)
        images, calls = tuple(found.images), tuple(found.calls)
        messages.append(Message(role, found.text, reasoning, images, calls))
    return messages


def _each_block(content: Any, where: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Yield each block with its path."""
    if not isinstance(content, list):
        _refuse(where, "must be a string or a list of content blocks")
    for number, block in enumerate(content):
        if not isinstance(block, dict):
            _refuse(f"{where}.{number}", "must be an object")
        yield f"{where}.{number}", block


def _collect_block(block: Mapping[str, Any], where: str, found: _BlockContents) -> None:
    match block.get("type"):
        case "text":
            found.texts.append(text_of(block, "text"))
        case "image":
            found.images.append(_image(block, where))
        case "document":
            found.texts.append(_document(block, where))
        case "search_result":
            found.texts.append(
                _with_title(block, _text_only(block.get("content"), f"{where}.content"))
            )
        case "tool_use":
            found.calls.append(_tool_call(block, where))
        case "tool_result":
            found.results.append(_tool_result(block, where))
        case "thinking":
            found.thoughts.append(text_of(block, "thinking"))
        case "redacted_thinking":
            pass  # only Anthropic can read it
        case other:
            _refuse(f"{where}.type", f"content blocks of type {_short(other)} are not supported")


def _tool_call(block: Mapping[str, Any], where: str) -> ToolCall:
    for name in ("id", "name"):
        if not text_of(block, name):
            _refuse(where, f"tool_use block missing required '{name}' field")
    return ToolCall(text_of(block, "name"), object_of(block, "input"), text_of(block, "id"))


def _tool_result(block: Mapping[str, Any], where: str) -> Message:
    content = block.get("content")
    found = _BlockContents()
    if isinstance(content, str):
        found.texts.append(content)
    elif content is not None:
        for place, one in _each_block(content, f"{where}.content"):
            if one.get("type") in ("tool_use", "tool_result", "thinking", "redacted_thinking"):
                _refuse(f"{place}.type", "is not possible within a tool's result")
            _collect_block(one, place, found)
    text = found.text
    if flag_of(block, "is_error"):
        text = f"Error: {text}" if text else "Error"
    return Message(
        "tool", text, images=tuple(found.images), tool_call_id=text_of(block, "tool_use_id")
    )


def _image(block: Mapping[str, Any], where: str) -> bytes:
    source = object_of(block, "source")
    kind = source.get("type")
    if kind == "base64":
        return decode_base64(text_of(source, "data"), f"{where}.source.data")
    if kind == "url":
        _refuse(f"{where}.source", "image URLs are not fetched; send the image itself as base64")
    _refuse(f"{where}.source.type", f"must be 'base64', not {_short(kind)}")


def _document(block: Mapping[str, Any], where: str) -> str:
    source = object_of(block, "source")
    match source.get("type"):
        case "text":
            return _with_title(block, text_of(source, "data"))
        case "content":
            return _with_title(block, _text_only(source.get("content"), f"{where}.source.content"))
    kind = source.get("media_type") or source.get("type")
    _refuse(f"{where}.source", f"documents of type {_short(kind)} are not supported; send text")


def _with_title(block: Mapping[str, Any], text: str) -> str:
    return "\n\n".join(filter(None, (text_of(block, "title"), text)))


def _text_only(content: Any, where: str) -> str:
    """Return the text of a string or of text blocks."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for place, block in _each_block(content, where):
        if block.get("type") != "text":
            _refuse(f"{place}.type", f"must be 'text', not {_short(block.get('type'))}")
        texts.append(text_of(block, "text"))
    return "\n\n".join(filter(None, texts))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _refuse(where: str, why: str) -> NoReturn:
    raise ApiError(400, f"{where}: {why}", param=where)


@dataclass(frozen=True, slots=True)
class MessagesPrompt:
    """The prompt of a request for a message or for its number of tokens."""

    model: str
    """As the client wrote it, for the answer."""
    spec: ModelSpec
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    think: Think


def read_prompt(body: Mapping[str, Any]) -> MessagesPrompt:
    model = _read_model(body)
    # Parsed, because clients may not name a model by a file's path.
    spec = ModelSpec(parse_name(model).short)
    messages = read_messages(body)
    tools = tuple(_read_tool(one, f"tools.{n}") for n, one in enumerate(objects_of(body, "tools")))
    return MessagesPrompt(model, spec, messages, tools, _read_think(body))


def _read_model(body: Mapping[str, Any]) -> str:
    model = text_of(body, "model")
    if not model:
        raise ApiError(400, "model is required", param="model")
    return model


@dataclass(frozen=True, slots=True)
class MessagesRequest:
    """One request for a message."""

    prompt: MessagesPrompt
    request: ChatRequest
    streams: bool
    format: MessageFormat


def read_messages_request(body: Mapping[str, Any], priority: Priority) -> MessagesRequest:
    _read_model(body)
    max_tokens = integer_of(body, "max_tokens")
    if max_tokens is None or max_tokens <= 0:
        raise ApiError(400, "max_tokens is required and must be positive", param="max_tokens")
    prompt = read_prompt(body)
    choice = object_of(body, "tool_choice")
    params = {
        "max_tokens": max_tokens,
        "temperature": number_of(body, "temperature"),
        "top_p": number_of(body, "top_p"),
        "top_k": integer_of(body, "top_k"),
        "stop": tuple(filter(None, texts_of(body, "stop_sequences"))),
    }
    request = ChatRequest(
        prompt.spec,
        prompt.messages,
        {name: value for name, value in params.items() if value is not None},
        priority,
        tools=prompt.tools,
        tool_choice=_read_tool_choice(choice),
        constraint=_read_constraint(body),
        think=prompt.think,
        reserves_answer=False,
        defaults={"temperature": 1.0, "top_p": 1.0, "seed": secrets.randbelow(2**31 - 1)},
    )
    format_ = MessageFormat(
        prompt.model,
        max_tokens,
        calls_in_parallel=not flag_of(choice, "disable_parallel_tool_use"),
        shows_thinking=text_of(object_of(body, "thinking"), "display") != "omitted",
    )
    return MessagesRequest(prompt, request, flag_of(body, "stream"), format_)


def _read_tool(raw: Mapping[str, Any], where: str) -> Tool:
    kind = text_of(raw, "type")
    if kind not in ("", "custom"):
        _refuse(f"{where}.type", f"tools of type '{kind[:60]}' are not supported here")
    name = text_of(raw, "name")
    if not name:
        _refuse(f"{where}.name", "is required")
    return Tool(name, text_of(raw, "description"), object_of(raw, "input_schema"))


_TOOL_CHOICES = {"": "auto", "auto": "auto", "any": "required", "none": "none"}


def _read_tool_choice(raw: Mapping[str, Any]) -> str:
    kind = text_of(raw, "type")
    if kind == "tool":
        name = text_of(raw, "name")
        if not name:
            _refuse("tool_choice.name", "is required")
        return name
    if kind not in _TOOL_CHOICES:
        _refuse("tool_choice.type", "must be 'auto', 'any', 'tool' or 'none'")
    return _TOOL_CHOICES[kind]


_EFFORT_LEVELS: Mapping[str, Think] = {
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}


def _read_think(body: Mapping[str, Any]) -> Think:
    """Return the reasoning effort; as in Anthropic's API, the default is no reasoning."""
    wanted = text_of(object_of(body, "output_config"), "effort").strip().lower()
    if wanted not in ("", *_EFFORT_LEVELS):
        known = ", ".join(f"'{one}'" for one in _EFFORT_LEVELS)
        _refuse("output_config.effort", f"must be one of {known}")
    effort = _EFFORT_LEVELS.get(wanted)
    kind = text_of(object_of(body, "thinking"), "type")
    if kind not in ("", "enabled", "adaptive", "between_tools", "disabled"):
        _refuse("thinking.type", "must be 'enabled', 'adaptive' or 'disabled'")
    if kind == "disabled":
        return False
    return effort or bool(kind)


def _read_constraint(body: Mapping[str, Any]) -> Constraint | None:
    """Return the constraint of `output_config.format`, or of the older `output_format`."""
    format_ = object_of(object_of(body, "output_config"), "format") or object_of(
        body, "output_format"
    )
    if not format_:
        return None
    schema = format_.get("schema")
    if format_.get("type") != "json_schema" or not isinstance(schema, dict):
        _refuse("output_config.format", "must be a 'json_schema' with its 'schema'")
    return Constraint("json_schema", json.dumps(schema, ensure_ascii=False))


# A prompt is counted while its prefill runs; the answer waits no longer for the number.
COUNT_TIMEOUT_S = 0.25


async def create_message(request: Request) -> Response:
    service = service_of(request)
    body = await read_json(request)
    messages = read_messages_request(body, priority_of(request))
    await _check_model(service, messages.prompt)
    headers = {"request-id": f"req_{secrets.token_hex(12)}"}
    if messages.streams:
        return await sse_response(request, _stream_events(service, messages), _error_event, headers)
    reply = await while_connected(request, _reply(service, messages))
    return json_response(message_value(reply, messages.format), headers=headers)


async def count_tokens(request: Request) -> Response:
    """Handle POST /v1/messages/count_tokens; tools are counted, images are not."""
    service = service_of(request)
    body = await read_json(request)
    prompt = read_prompt(body)
    await _check_model(service, prompt)
    n_tokens = await while_connected(request, _count_prompt(service, prompt))
    return json_response({"input_tokens": n_tokens})


async def _check_model(service: Service, prompt: MessagesPrompt) -> None:
    """Raise ApiError (404), with the name as the client wrote it, where there is no such model."""
    note_model(prompt.spec.ref)
    try:
        await service.pool.facts(prompt.spec)
    except ModelNotFound:
        raise ApiError(404, f"model '{prompt.model}' not found") from None


async def _count_prompt(service: Service, prompt: MessagesPrompt) -> int:
    return await service.pool.count_chat(prompt.spec, prompt.messages, prompt.tools, prompt.think)


async def _reply(service: Service, messages: MessagesRequest) -> Reply:
    answer = service.pool.chat(messages.request, waits=False)
    try:
        return await answer.reply()
    except PromptTooLong as error:
        raise _prompt_too_long(error) from error
    finally:
        answer.cancel()


async def _stream_events(
    service: Service, messages: MessagesRequest
) -> AsyncGenerator[bytes, None]:
    answer = service.pool.chat(messages.request, waits=False)
    stream_writer = MessageStreamWriter(messages.format)
    counting = asyncio.ensure_future(_count_or_zero(service, messages.prompt))
    try:
        has_begun = False
        async for chunk in answer:
            if not has_begun:
                for one in stream_writer.begin(await _count_in_time(counting)):
                    yield one
            has_begun = True
            for one in stream_writer.chunk(chunk):
                yield one
        reply = await answer.reply()
        for one in () if has_begun else stream_writer.begin(reply.usage.prompt_tokens):
            yield one
        for one in stream_writer.end(reply):
            yield one
    except PromptTooLong as error:
        raise _prompt_too_long(error) from error
    finally:
        answer.cancel()
        counting.cancel()


async def _count_or_zero(service: Service, prompt: MessagesPrompt) -> int:
    """Return a prompt's tokens; 0 after an error, which the answer reports."""
    with suppress(EngineError):
        return await _count_prompt(service, prompt)
    return 0


async def _count_in_time(counting: asyncio.Future[int]) -> int:
    await asyncio.wait({counting}, timeout=COUNT_TIMEOUT_S)
    return counting.result() if counting.done() else 0


def _prompt_too_long(error: PromptTooLong) -> ApiError:
    """Return Anthropic's own text: clients recognise it and shorten the prompt."""
    said = f"prompt is too long: {error.n_prompt_tokens} tokens > {error.n_ctx_tokens} maximum"
    return ApiError(400, said)


def _error_event(error: ApiError) -> bytes:
    return sse_event(error_body("anthropic", error), "error")
