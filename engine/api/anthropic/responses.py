"""Write Anthropic's messages, stream events and model lists. Pure.

Order of events: message_start; for each block content_block_start, its deltas, content_block_stop;
message_delta with the stop reason and the usage; message_stop. Anthropic's clients list models at
OpenAI's path (`/v1/models`); their header `anthropic-version` identifies them.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from paddock.engine.api.streaming import nanoseconds, rfc3339, sse_event
from paddock.engine.models.model_cards import ModelCard
from paddock.engine.request import Chunk, Reply, ToolCall, Usage


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
