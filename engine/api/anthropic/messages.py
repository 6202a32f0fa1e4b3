"""POST /v1/messages and /v1/messages/count_tokens: parse requests, answer them, write events.

Parsing is pure but for the random seed. A user message may hold tool results and text: each result
becomes a `tool` message of its own before the text. Blocks that only Anthropic's servers can handle
(files, searches) are refused. What is wrong raises ApiError (400) with its path, the model's name
InvalidName.

Order of events: message_start; for each block content_block_start, its deltas, content_block_stop;
message_delta with the stop reason and the usage; message_stop. Anthropic's clients list models at
OpenAI's path (`/v1/models`); their header `anthropic-version` identifies them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator
from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.body_models import (
    Base64,
    Body,
    Items,
    Needed,
    TextOr,
    Tree,
    Whole,
    parameter,
    refused,
)
from paddock.engine.api.errors import ApiError, error_body
from paddock.engine.api.json_body import read_json
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
    EFFORTS,
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
    forced_call,
    with_tool_names,
)
from paddock.engine.system.records import Struct, replace


class MessageFormat(Struct, frozen=True):
    model: str
    """As the client wrote it."""
    max_tokens: int
    calls_in_parallel: bool = True
    shows_thinking: bool = True
    """Whether a thinking block has its text or is empty."""


def reply_as_message(reply: Reply, format_: MessageFormat) -> dict[str, Any]:
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
    value = {"stop_reason": reason, "stop_sequence": stop}
    return {**value, "stopped_by": "repetition"} if reply.done_reason == "repetition" else value


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
    data = [model_value(card.name, card) for card in listed]
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


class _Fields(Body):
    dialect = "anthropic"


class _TextBlock(_Fields):
    type: Literal["text"]
    text: str = ""


class _ImageSource(_Fields):
    type: Literal["base64", "url"]
    data: Base64 = b""

    @field_validator("type")
    @classmethod
    def _is_here(cls, kind: str) -> str:
        if kind == "url":
            raise refused("image URLs are not fetched; send the image itself as base64")
        return kind


class _ImageBlock(_Fields):
    type: Literal["image"]
    source: _ImageSource


def _as_blocks(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


_Texts = Annotated[Items[_TextBlock], BeforeValidator(_as_blocks)]
"""A string, or text blocks."""


def _joined(texts: _Texts) -> str:
    return _paragraphs(block.text for block in texts)


def _paragraphs(texts: Iterable[str]) -> str:
    return "\n\n".join(filter(None, texts))


class _DocumentSource(_Fields):
    type: Literal["text", "content"]
    data: str = ""
    content: _Texts = ()

    @property
    def text(self) -> str:
        return self.data if self.type == "text" else _joined(self.content)


def _not_enabled(enabled: bool) -> bool:
    if enabled:
        raise refused("answers have no citations here; leave them out")
    return enabled


class _Citations(_Fields):
    enabled: Annotated[bool, AfterValidator(_not_enabled)] = False


class _DocumentBlock(_Fields):
    type: Literal["document"]
    title: str = ""
    context: str = ""
    citations: _Citations | None = None
    source: _DocumentSource

    @property
    def text(self) -> str:
        return _paragraphs((self.title, self.context, self.source.text))


class _SearchResultBlock(_Fields):
    type: Literal["search_result"]
    source: str = ""
    title: str = ""
    citations: _Citations | None = None
    content: _Texts = ()

    @property
    def text(self) -> str:
        return _paragraphs((self.title, self.source, _joined(self.content)))


_Contents = _TextBlock | _ImageBlock | _DocumentBlock | _SearchResultBlock


def _text_and_images(blocks: Iterable[Body]) -> tuple[str, tuple[bytes, ...]]:
    texts = [
        block
        for block in blocks
        if isinstance(block, _TextBlock | _DocumentBlock | _SearchResultBlock)
    ]
    images = tuple(block.source.data for block in blocks if isinstance(block, _ImageBlock))
    return _paragraphs(block.text for block in texts), images


class _ToolUseBlock(_Fields):
    type: Literal["tool_use"]
    id: Needed
    name: Needed
    input: dict[str, Any] = Field(default_factory=dict)


class _ToolResultBlock(_Fields):
    type: Literal["tool_result"]
    tool_use_id: str = ""
    content: Annotated[
        Items[Annotated[_Contents, Field(discriminator="type")]], BeforeValidator(_as_blocks)
    ] = ()
    is_error: bool = False

    def message(self) -> Message:
        text, images = _text_and_images(self.content)
        if self.is_error:
            text = f"Error: {text}" if text else "Error"
        return Message("tool", text, images=images, tool_call_id=self.tool_use_id)


class _ThinkingBlock(_Fields):
    type: Literal["thinking", "redacted_thinking"]
    thinking: str = ""


_Blocks = _Contents | _ToolUseBlock | _ToolResultBlock | _ThinkingBlock
_LOWER = BeforeValidator(lambda text: text.strip().lower() if isinstance(text, str) else text)


class _Turn(_Fields):
    role: Annotated[Literal["user", "assistant", "system"], _LOWER]
    content: TextOr[Annotated[_Blocks, Field(discriminator="type")]]
    clear_at: Literal["never", "next_user_message"] = "never"

    def messages(self) -> list[Message]:
        """Return tool results, then all else as one message."""
        if isinstance(self.content, str):
            return [Message(self.role, self.content)]
        results = [block.message() for block in self.content if isinstance(block, _ToolResultBlock)]
        unread = ("tool_result", "redacted_thinking")  # only Anthropic can read the latter
        blocks = [block for block in self.content if block.type not in unread]
        if not blocks and results:
            return results
        text, images = _text_and_images(blocks)
        thoughts = (block.thinking for block in blocks if isinstance(block, _ThinkingBlock))
        uses = (block for block in blocks if isinstance(block, _ToolUseBlock))
        calls = tuple(ToolCall(use.name, use.input, use.id) for use in uses)
        return [*results, Message(self.role, text, _paragraphs(thoughts), images, calls)]


class _ToolFields(_Fields):
    type: Literal["custom"] = "custom"
    name: Needed
    description: str = ""
    input_schema: dict[str, Any] = Field(default_factory=dict)


class _Thinking(_Fields):
    type: Literal["enabled", "adaptive", "between_tools", "disabled"] | None = None
    display: str = ""


class _Format(_Fields):
    type: Literal["json_schema"]
    schema_: Tree = Field(alias="schema")


class _OutputConfig(_Fields):
    effort: Annotated[Literal["low", "medium", "high", "xhigh", "max"] | None, _LOWER] = None
    format: _Format | None = None


_TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class _MessagesToolChoice(_Fields):
    type: Literal["auto", "any", "none", "tool"] = "auto"
    name: str = ""
    disable_parallel_tool_use: bool = False

    def choice(self) -> str:
        if self.type == "tool" and not self.name:
            raise ApiError(400, "tool_choice.name is required", param="tool_choice.name")
        return _TOOL_CHOICES.get(self.type, self.name)


class PromptBody(_Fields):
    model: Needed
    system: _Texts = ()
    messages: Annotated[Items[_Turn], Field(min_length=1)]
    tools: Items[_ToolFields] = ()
    tool_choice: _MessagesToolChoice = _MessagesToolChoice()
    thinking: _Thinking = _Thinking()
    output_config: _OutputConfig = _OutputConfig()

    def chat_request(self) -> ChatRequest:
        # Parsed, because clients may not name a model by a file's path.
        spec = ModelSpec(parse_name(self.model).short)
        system = _joined(self.system)
        messages = [Message("system", system)] if system else []
        last_user = max(
            (at for at, turn in enumerate(self.messages) if turn.role == "user"), default=0
        )
        for at, turn in enumerate(self.messages):
            if turn.clear_at == "never" or at > last_user:
                messages += turn.messages()
        tools = tuple(Tool(tool.name, tool.description, tool.input_schema) for tool in self.tools)
        think: Think = False  # the default of Anthropic's API
        if self.thinking.type != "disabled":
            think = EFFORTS.get(self.output_config.effort or "") or self.thinking.type is not None
        return ChatRequest(spec, with_tool_names(messages), tools=tools, think=think)


class MessagesRequest(Struct, frozen=True):
    prompt: ChatRequest
    """The conversation with all tools, to be counted."""
    request: ChatRequest
    streams: bool
    format: MessageFormat


class MessagesBody(PromptBody):
    max_tokens: Whole | None = Field(None, ge=0)
    temperature: float | None = None
    top_p: float | None = None
    top_k: Whole | None = None
    guards_repetition: bool | None = None
    stop_sequences: Annotated[Items[str], parameter("stop")] = ()
    stream: bool = False
    output_format: _Format | None = None
    """The older name of `output_config.format`."""

    def messages_request(self, priority: Priority) -> MessagesRequest:
        if self.max_tokens is None:
            message = "max_tokens is required (0: the prompt is read into the cache, no more)"
            raise ApiError(400, message, param="max_tokens")
        prompt, format_ = self.chat_request(), self.output_config.format or self.output_format
        tools, choice = prompt.tools, self.tool_choice.choice()
        if self.tool_choice.type == "tool":
            tools, choice = forced_call(tools, choice)
        request = replace(
            prompt,
            params=self.sampling(),
            priority=priority,
            tools=tools,
            tool_choice=choice,
            constraint=Constraint("json_schema", json.dumps(format_.schema_, ensure_ascii=False))
            if format_
            else None,
            reserves_answer=False,
            defaults={"temperature": 1.0, "top_p": 1.0, "seed": secrets.randbelow(2**31 - 1)},
        )
        written = MessageFormat(
            self.model,
            self.max_tokens,
            calls_in_parallel=not self.tool_choice.disable_parallel_tool_use,
            shows_thinking=self.thinking.display != "omitted",
        )
        return MessagesRequest(prompt, request, self.stream, written)


# A prompt is counted while its prefill runs; the answer waits no longer for the number.
COUNT_TIMEOUT_S = 0.25

PING_EVENT = _named_event("ping")


async def create_message(request: Request) -> Response:
    service = service_of(request)
    body = MessagesBody.read(await read_json(request))
    messages = body.messages_request(priority_of(request, streams=body.stream))
    await _check_model(service, messages.prompt, body.model)
    headers = {"request-id": f"req_{secrets.token_hex(12)}"}
    if messages.streams:
        events = _stream_events(service, messages)
        return await sse_response(
            request,
            events,
            lambda error: sse_event(error_body("anthropic", error), "error"),
            headers,
            PING_EVENT,
        )
    reply = await while_connected(request, _reply(service, messages))
    return json_response(reply_as_message(reply, messages.format), headers=headers)


async def count_tokens(request: Request) -> Response:
    """Handle POST /v1/messages/count_tokens; tools are counted, images are not."""
    service = service_of(request)
    body = PromptBody.read(await read_json(request))
    prompt = body.chat_request()
    await _check_model(service, prompt, body.model)
    n_tokens = await while_connected(request, _count_prompt(service, prompt))
    return json_response({"input_tokens": n_tokens})


async def _check_model(service: Service, prompt: ChatRequest, name: str) -> None:
    """Raise ApiError (404), with the name as the client wrote it, where there is no such model."""
    note_model(prompt.model.ref)
    try:
        await service.pool.facts(prompt.model)
    except ModelNotFound:
        raise ApiError(404, f"model '{name}' not found") from None


async def _count_prompt(service: Service, prompt: ChatRequest) -> int:
    return await service.pool.count_chat(prompt.model, prompt.messages, prompt.tools, prompt.think)


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

    async def count() -> int:
        with suppress(EngineError):  # which the answer reports
            return await _count_prompt(service, messages.prompt)
        return 0

    counting = asyncio.ensure_future(count())
    try:
        has_begun = False
        async for chunk in answer:
            if not has_begun:
                await asyncio.wait({counting}, timeout=COUNT_TIMEOUT_S)
                for event in stream_writer.begin(counting.result() if counting.done() else 0):
                    yield event
            has_begun = True
            for event in stream_writer.chunk(chunk):
                yield event
        reply = await answer.reply()
        for event in () if has_begun else stream_writer.begin(reply.usage.prompt_tokens):
            yield event
        for event in stream_writer.end(reply):
            yield event
    except PromptTooLong as error:
        raise _prompt_too_long(error) from error
    finally:
        answer.cancel()
        counting.cancel()


def _prompt_too_long(error: PromptTooLong) -> ApiError:
    """Return Anthropic's own text: clients recognise it and shorten the prompt."""
    message = f"prompt is too long: {error.n_prompt_tokens} tokens > {error.n_ctx_tokens} maximum"
    return ApiError(400, message)
