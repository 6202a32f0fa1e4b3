"""From the events of a streamed chat to chunks and an end. Pure; knows no connection."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from paddock.engine.errors import BadRequest
from paddock.engine.request import Chunk, DoneReason, TokenLogprob, ToolCall, Usage

Json = Mapping[str, Any]

_REASONS: Mapping[str, DoneReason] = {
    "stop": "stop",
    "eos": "stop",
    "tool_calls": "stop",
    "function_call": "stop",
    "length": "length",
}
_MOST_CALLS = 256


@dataclass
class _Call:
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass
class Hearing:
    """One answer, event by event."""

    reason: DoneReason | None = None
    """How it ended; None: it has not."""
    model: str = ""
    """Which model the server says that it is."""
    has_usage: bool = False
    usage: Usage = field(default_factory=Usage)
    _calls: dict[int, _Call] = field(default_factory=dict)
    _n_chunks: int = 0

    def chunks(self, event: Json) -> Iterator[Chunk]:
        """Give what an event adds to the answer.

        Raises:
            BadRequest: the server withholds the answer, or a call in it is broken.
        """
        self._count(event)
        self.model = str(event.get("model") or self.model)
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else {}
        delta = choice.get("delta") or {}
        text = _text(delta, "content")
        reasoning = _text(delta, "reasoning_content") or _text(delta, "reasoning")
        logprobs = tuple(_logprobs(choice.get("logprobs")))
        for part in delta.get("tool_calls") or ():
            self._add(part)
        if text or reasoning or logprobs:
            self._n_chunks += 1
            yield Chunk(text, 1, reasoning, logprobs=logprobs)
        finish = choice.get("finish_reason")
        if finish is not None:
            if finish == "content_filter":
                raise BadRequest("the server withheld the answer (content_filter)")
            self.reason = _REASONS.get(str(finish), "stop")
            if self._calls:
                yield Chunk("", 0, tool_calls=tuple(map(_called, self._calls.values())))

    def ended(self) -> Usage:
        """Give what the answer cost; where the server tells nothing, a chunk counts as a token."""
        return self.usage if self.has_usage else Usage(completion_tokens=self._n_chunks)

    def _count(self, event: Json) -> None:
        told = event.get("usage")
        if not isinstance(told, Mapping):
            return
        self.has_usage = True
        details = told.get("prompt_tokens_details")
        details = details if isinstance(details, Mapping) else {}
        timings = event.get("timings")
        timings = timings if isinstance(timings, Mapping) else {}
        self.usage = Usage(
            prompt_tokens=_number(told, "prompt_tokens"),
            prompt_reused_tokens=_number(details, "cached_tokens"),
            completion_tokens=_number(told, "completion_tokens"),
            prefill_s=_number(timings, "prompt_ms") / 1000,
            decode_s=_number(timings, "predicted_ms") / 1000,
        )

    def _add(self, part: Json) -> None:
        """Take a piece of a tool call; its arguments come in parts."""
        at = part.get("index")
        index = at if isinstance(at, int) else len(self._calls)
        if index not in self._calls and len(self._calls) >= _MOST_CALLS:
            raise BadRequest(f"the answer has more than {_MOST_CALLS} tool calls")
        call = self._calls.setdefault(index, _Call())
        function = part.get("function") or {}
        call.id = call.id or str(part.get("id") or "")
        call.name += str(function.get("name") or "")
        call.arguments += str(function.get("arguments") or "")


def _called(call: _Call) -> ToolCall:
    try:
        arguments = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise BadRequest(f"the arguments of the call of '{call.name}' are no JSON object")
    return ToolCall(call.name, arguments, call.id)


def _text(delta: Json, name: str) -> str:
    value = delta.get(name)
    return value if isinstance(value, str) else ""


def _number(told: Json, name: str) -> int:
    value = told.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and value is not None else 0


def _logprobs(told: Any) -> Iterator[TokenLogprob]:
    listed = told.get("content") if isinstance(told, Mapping) else None
    for one in listed or ():
        top = tuple((t["token"], float(t["logprob"]), _raw(t)) for t in one.get("top_logprobs", ()))
        yield TokenLogprob(one["token"], float(one["logprob"]), _raw(one), top)


def _raw(one: Json) -> bytes:
    raw = one.get("bytes")
    return bytes(raw) if isinstance(raw, list) else str(one.get("token", "")).encode()
