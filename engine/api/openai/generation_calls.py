"""Base of the generating endpoints: `GenerationCall`, its stream writer, shared JSON values.

A call holds the engine requests of a body and writes their replies: chat, completions and
Responses each have one, and `endpoints` runs them. Also usage, finish reason, tool calls and log
probabilities as JSON values. Pure.
"""

from __future__ import annotations

import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from paddock.engine.api.errors import openai_error_body
from paddock.engine.api.streaming import nanoseconds, sse_event
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    Priority,
    Reply,
    TokenLogprob,
    ToolCall,
    Usage,
)

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ApiCaller:
    """The caller's priority, and whether it waits where the queue is full."""

    priority: Priority = "interactive"
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Stamp:
    """Id and creation time of an answer."""

    id: str
    created: int
    """Seconds since the epoch."""

    @classmethod
    def new(cls, prefix: str) -> Stamp:
        return cls(new_id(prefix), int(time.time()))


def new_id(prefix: str) -> str:
    """Return an id in OpenAI's form: `chatcmpl-6f…`, `resp_6f…`."""
    return f"{prefix}{secrets.token_hex(12)}"


class CallStreamWriter(ABC):
    """Writes answers as stream events while they come. `index` is the place of a request."""

    @abstractmethod
    def begin(self) -> Iterator[bytes]:
        """Yield the events before the first chunk."""

    @abstractmethod
    def chunk(self, index: int, chunk: Chunk) -> Iterator[bytes]:
        """Yield the events of a piece of one answer."""

    @abstractmethod
    def reply(self, index: int, reply: Reply) -> Iterator[bytes]:
        """Yield the events of the end of one answer."""

    def end(self) -> Iterator[bytes]:
        """Yield the events after the last answer."""
        yield from ()

    def fail(self, error: Exception) -> bytes:
        """Return the event of an error, which ends the stream."""
        return error_event(error)


@dataclass(frozen=True, slots=True)
class GenerationCall(ABC):
    """The engine requests of one body, and how their replies are written."""

    model: str
    """As the client named it."""
    requests: tuple[ChatRequest, ...]
    """The choices of the first prompt, then those of the next."""
    n_choices: int
    streams: bool
    prefix: ClassVar[str]
    """Begins the answer's id."""

    @abstractmethod
    def body(self, replies: Sequence[Reply], stamp: Stamp) -> Body:
        """Return the whole answer; the replies are in the order of the requests."""

    @abstractmethod
    def stream_writer(self, stamp: Stamp) -> CallStreamWriter:
        """Return a writer for a stream of this call."""


def requests_for_choices(request: ChatRequest, n: int) -> tuple[ChatRequest, ...]:
    """Return one request for each of `n` choices, each with its own seed."""
    if n == 1 and "seed" in request.params:
        return (request,)
    given = request.params.get("seed")
    first = secrets.randbits(31) if given is None else int(given)
    return tuple(_seeded(request, first + number, is_first=number == 0) for number in range(n))


def _seeded(request: ChatRequest, seed: int, *, is_first: bool) -> ChatRequest:
    if is_first:  # as a default, so that a model's own seed has precedence
        return replace(request, defaults={**request.defaults, "seed": seed})
    return replace(request, params={**request.params, "seed": seed})


def error_event(error: Exception) -> bytes:
    return sse_event(openai_error_body(error))


FINGERPRINT = "fp_ollama"
"""As Ollama; clients do not use it."""

# An answer that was stopped because it repeats itself is as incomplete as one at the limit.
_FINISH_REASONS = {"stop": "stop", "length": "length", "repetition": "length"}


def finish_reason(reply: Reply) -> str:
    """Return why an answer ended: `stop`, `length` or `tool_calls`."""
    reason = _FINISH_REASONS[reply.done_reason]
    return "tool_calls" if reply.tool_calls and reason == "stop" else reason


def limited_calls(calls: Sequence[ToolCall], *, in_parallel: bool) -> Sequence[ToolCall]:
    """Return all calls, or only the first where the client wants no parallel calls."""
    return calls if in_parallel else calls[:1]


def tool_call_value(call: ToolCall, index: int) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments_text(call)}
    return {"index": index, "id": call.id, "type": "function", "function": function}


def arguments_text(call: ToolCall) -> str:
    """Return a call's arguments as JSON text, which OpenAI's clients parse."""
    return json.dumps(call.arguments, ensure_ascii=False)


def usage_value(replies: Sequence[Reply], n_choices: int) -> dict[str, Any]:
    """Return `usage` of chat completions and completions."""
    usage = _total_usage(replies, n_choices)
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.prompt_reused_tokens},
        "completion_tokens_details": {
            "reasoning_tokens": sum(one.n_reasoning_tokens for one in replies),
            "accepted_prediction_tokens": usage.accepted_tokens,
            "rejected_prediction_tokens": usage.drafted_tokens - usage.accepted_tokens,
        },
        "queue_duration": nanoseconds(usage.queue_s),
    }


def _total_usage(replies: Sequence[Reply], n_choices: int) -> Usage:
    """Return the sum of the replies' usage; a prompt with several choices counts once."""
    prompts = [reply.usage for reply in replies[::n_choices]]
    every = [reply.usage for reply in replies]
    return Usage(
        prompt_tokens=sum(one.prompt_tokens for one in prompts),
        prompt_reused_tokens=sum(one.prompt_reused_tokens for one in prompts),
        completion_tokens=sum(one.completion_tokens for one in every),
        accepted_tokens=sum(one.accepted_tokens for one in every),
        drafted_tokens=sum(one.drafted_tokens for one in every),
        queue_s=max((one.queue_s for one in every), default=0.0),
    )


def truncation_fields(replies: Iterable[Reply]) -> dict[str, Any]:
    """Return fields for a truncated prompt with its original length; none without one."""
    originals = [one.prompt_tokens_original for one in replies]
    cut = [n for n in originals if n is not None]
    return {"truncated": True, "prompt_tokens_original": max(cut)} if cut else {}


def logprob_values(logprobs: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Return log probabilities token by token, for chat completions and Responses."""
    return [
        {
            "token": one.token,
            "bytes": list(one.raw),
            "logprob": one.logprob,
            "top_logprobs": [
                {"token": text, "bytes": list(raw), "logprob": value}
                for text, value, raw in one.top
            ],
        }
        for one in logprobs
    ]
