"""Base of the generating endpoints: `GenerationCall`, its stream writer, shared JSON values.

A call says which engine requests a body means and how their replies are written: chat, completions
and Responses each have one, and `endpoints` runs them. Also usage, finish reason, tool calls and
log probabilities as JSON values. Pure.
"""

from __future__ import annotations

import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from paddock.engine.api.errors import openai_error_body
from paddock.engine.api.streaming import sse_event
from paddock.engine.api.time_formats import nanoseconds
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
    """Who asks: how urgent it is, and whether it waits outside a full queue."""

    priority: Priority = "interactive"
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an answer is known by."""

    id: str
    created: int
    """Seconds since the epoch."""

    @classmethod
    def new(cls, prefix: str) -> Stamp:
        """Make one for now."""
        return cls(new_id(prefix), int(time.time()))


def new_id(prefix: str) -> str:
    """Make an id as OpenAI's look: `chatcmpl-6f…`, `resp_6f…`."""
    return f"{prefix}{secrets.token_hex(12)}"


class CallStreamWriter(Protocol):
    """Tells answers while they come. Each method gives events in order, `fail` instead of `end`."""

    def begin(self) -> Iterator[bytes]:
        """Say that there will be an answer."""
        ...

    def chunk(self, index: int, chunk: Chunk) -> Iterator[bytes]:
        """Yield a piece of one answer."""
        ...

    def reply(self, index: int, reply: Reply) -> Iterator[bytes]:
        """Tell that one answer is whole."""
        ...

    def end(self) -> Iterator[bytes]:
        """Say that all are."""
        ...

    def fail(self, error: Exception) -> bytes:
        """Say that there will be no more, and why."""
        ...


@dataclass(frozen=True, slots=True)
class GenerationCall(ABC):
    """What one body asks for."""

    model: str
    """As the client named it."""
    requests: tuple[ChatRequest, ...]
    """For each prompt its choices, neighbours of one another."""
    n_choices: int
    streams: bool

    @abstractmethod
    def body(self, replies: Sequence[Reply], stamp: Stamp) -> Body:
        """Write the whole answer; the replies are in the order of the requests."""

    @abstractmethod
    def stream_writer(self, stamp: Stamp) -> CallStreamWriter:
        """Return who writes the answer piece by piece."""

    @property
    @abstractmethod
    def prefix(self) -> str:
        """What the answer's id begins with."""


def requests_for_choices(request: ChatRequest, n: int) -> tuple[ChatRequest, ...]:
    """Return one request for each of `n` choices, none of which repeats another's dice."""
    if n == 1 and "seed" in request.params:
        return (request,)
    given = request.params.get("seed")
    first = secrets.randbits(31) if given is None else int(given)
    return tuple(_seeded(request, first + number, is_first=number == 0) for number in range(n))


def _seeded(request: ChatRequest, seed: int, *, is_first: bool) -> ChatRequest:
    if is_first:  # a model's own seed goes before ours
        return replace(request, defaults={**request.defaults, "seed": seed})
    return replace(request, params={**request.params, "seed": seed})


def unnamed_event(data: Mapping[str, Any] | str) -> bytes:
    """Write an event without a name, as chat and completions have them."""
    return sse_event(data)


def error_event(error: Exception) -> bytes:
    """Write the event that ends a stream that went wrong."""
    return sse_event(openai_error_body(error))


FINGERPRINT = "fp_ollama"
"""What Ollama says of itself; clients compare it with nothing."""

# Ended by us before the model did, whether at the limit or because it went in circles.
_FINISH_REASONS = {"stop": "stop", "length": "length", "repetition": "length"}


def finish_reason(reply: Reply) -> str:
    """Return why an answer ended: `stop`, `length` or `tool_calls`."""
    reason = _FINISH_REASONS[reply.done_reason]
    return "tool_calls" if reply.tool_calls and reason == "stop" else reason


def limited_calls(calls: Sequence[ToolCall], *, in_parallel: bool) -> Sequence[ToolCall]:
    """Return the calls that a client wants to hear of: all, or but the first."""
    return calls if in_parallel else calls[:1]


def tool_call_value(call: ToolCall, index: int) -> dict[str, Any]:
    """Write a call as chat has it."""
    function = {"name": call.name, "arguments": arguments_text(call)}
    return {"index": index, "id": call.id, "type": "function", "function": function}


def arguments_text(call: ToolCall) -> str:
    """Write a call's arguments as the JSON text that OpenAI's clients parse."""
    return json.dumps(call.arguments, ensure_ascii=False)


def usage_value(replies: Sequence[Reply], n_choices: int) -> dict[str, Any]:
    """Write what an answer cost, as chat and completions have it."""
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
    """Add up what replies cost; a prompt counts once, however many choices it has."""
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
    """Tell that a prompt was shortened, where one was: what it had before."""
    originals = [one.prompt_tokens_original for one in replies]
    cut = [n for n in originals if n is not None]
    return {"truncated": True, "prompt_tokens_original": max(cut)} if cut else {}


def logprob_values(logprobs: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Write log probabilities token by token, as chat and Responses have them."""
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
