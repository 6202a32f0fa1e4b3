"""OpenAI API, client side: request bodies, and streamed events to chunks. Pure.

Knows no connection.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from paddock.engine.errors import BadRequest
from paddock.engine.request import (
    LOWEST_LOGPROB,
    ChatRequest,
    Chunk,
    Constraint,
    DoneReason,
    Message,
    Sampling,
    Think,
    TokenLogprob,
    Tool,
    ToolCall,
    Usage,
    reserved_tokens,
)
from paddock.engine.system.records import Struct, field
from paddock.engine.system.text import one_line, parse_shallow_json

ServerKind = Literal["llama-server", "vllm", "ollama", "paddock", "other"]
"""Which program a server is, as far as that matters for what it understands."""

Json = dict[str, Any]

_OF_CHANCE = ("top_k", "min_p", "typical_p")
"""Sampling values that do not change a greedy answer."""
_OWN_NAMES: Mapping[ServerKind, Mapping[str, str]] = {
    "llama-server": {name: name for name in (*_OF_CHANCE, "repeat_penalty", "repeat_last_n")},
    "vllm": {"top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repetition_penalty"},
}
"""Servers' names of sampling values that OpenAI's API has not; other servers take none of them."""
_IMAGE_KINDS = ((b"\x89PNG", "png"), (b"GIF8", "gif"), (b"RIFF", "webp"))


def chat_body(
    request: ChatRequest, sampling: Sampling, *, model: str, kind: ServerKind, n_ctx_tokens: int
) -> Json:
    """Return the body of a streamed chat; raise BadRequest for what no other server understands."""
    raw = [name for name in ("prompt", "suffix", "template") if getattr(request, name) is not None]
    if raw or request.prompt_tokens or request.truncates:
        raise BadRequest("a raw prompt cannot be sent to another server; use messages")
    ends = (sampling.stop_token_ids, sampling.min_tokens, sampling.ignore_eos)
    if request.template_variables or any(ends):
        raise BadRequest("template variables and token ids cannot be sent to another server")
    body: Json = {
        "model": model,
        "messages": list(map(message_body, request.messages)),
        "stream": True,
        "stream_options": {"include_usage": True},
        **sampling_body(sampling, kind, n_ctx_tokens),
        **_thinking_body(request.think, kind),
        **_constraint_body(request.constraint, kind),
    }
    if request.tools:
        body["tools"] = tools_body(request.tools)
        choice = request.tool_choice
        is_name = choice not in ("auto", "none", "required")
        named = {"type": "function", "function": {"name": choice}}
        body["tool_choice"] = named if is_name else choice
    if request.n_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": request.n_logprobs}
    if kind == "llama-server":
        body["return_progress"] = True  # a long prompt is seen to move
    return body


def tools_body(given: Sequence[Tool]) -> list[Json]:
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
            },
        }
        for tool in given
    ]


def message_body(turn: Message) -> Json:
    body: Json = {"role": turn.role, "content": turn.content}
    if turn.images:
        text = [{"type": "text", "text": turn.content}] if turn.content else []
        images = []
        for image in turn.images:
            kind = next((name for magic, name in _IMAGE_KINDS if image.startswith(magic)), "jpeg")
            url = f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
            images.append({"type": "image_url", "image_url": {"url": url}})
        body["content"] = [*text, *images]
    if turn.reasoning:
        body["reasoning_content"] = turn.reasoning
    if turn.tool_calls:
        body["tool_calls"] = []
        for at, call in enumerate(turn.tool_calls):
            arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
            function = {"name": call.name, "arguments": arguments}
            own = {"id": call.id or f"call_{at}", "type": "function", "function": function}
            body["tool_calls"].append(own)
    if turn.role == "tool":
        body["tool_call_id"] = turn.tool_call_id
        body |= {"name": turn.tool_name} if turn.tool_name else {}
    return body


def sampling_body(sampling: Sampling, kind: ServerKind, n_ctx_tokens: int) -> Json:
    """Write how tokens are chosen; every value, so that no server's own defaults count."""
    body: Json = {"temperature": sampling.temperature, "seed": sampling.seed}
    if not sampling.is_greedy:
        body["top_p"] = sampling.top_p
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.max_tokens is None or sampling.max_tokens >= 0:
        body["max_tokens"] = reserved_tokens(sampling.max_tokens, n_ctx_tokens)
    if sampling.presence_penalty or sampling.frequency_penalty:
        body["presence_penalty"] = sampling.presence_penalty
        body["frequency_penalty"] = sampling.frequency_penalty
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    for name, own in _OWN_NAMES.get(kind, {}).items():
        if not (sampling.is_greedy and name in _OF_CHANCE):
            body[own] = getattr(sampling, name)
    return body


def unsupported_sampling(sampling: Sampling, kind: ServerKind) -> list[str]:
    """Name the values that were asked for and that a server of this kind does not take."""
    plain, taken = Sampling(), _OWN_NAMES.get(kind, {})
    names = ("repeat_penalty",) if sampling.is_greedy else ("repeat_penalty", *_OF_CHANCE)
    return [
        name
        for name in names
        if name not in taken and getattr(sampling, name) != getattr(plain, name)
    ]


def _thinking_body(think: Think | None, kind: ServerKind) -> Json:
    if think is None:
        return {}
    if kind in ("llama-server", "vllm"):
        template_options: Json = {"enable_thinking": think is not False}
        if isinstance(think, str):
            template_options["reasoning_effort"] = think
        return {"chat_template_kwargs": template_options}
    return {"reasoning_effort": think if isinstance(think, str) else "medium" if think else "none"}


def _constraint_body(constraint: Constraint | None, kind: ServerKind) -> Json:
    if constraint is None:
        return {}
    if constraint.kind == "json":
        return {"response_format": {"type": "json_object"}}
    if constraint.kind == "json_schema":
        schema = {"name": "reply", "strict": True, "schema": json.loads(constraint.source)}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    if kind == "vllm":
        name = "regex" if constraint.kind == "regex" else "grammar"
        return {"structured_outputs": {name: constraint.source}}
    raise BadRequest(f"an answer within a {constraint.kind} grammar can only be asked of vLLM")


EventJson = Mapping[str, Any]

_AT_LIMIT = ("length", "max_", "limit")
"""Parts of the words for an answer that ended at a limit: `model_length`, `MAX_TOKENS`."""
_BROKEN_OFF = frozenset(("abort", "error", "cancelled", "insufficient_system_resource"))
_MOST_CALLS = 256
_READ = frozenset(
    ("role", "content", "refusal", "reasoning", "reasoning_content", "tool_calls", "function_call")
)


class _PartialCall(Struct):
    id: str = ""
    name: str = ""
    arguments: str = ""


class StreamDecoder(Struct):
    offers_tools: bool = True
    reason: DoneReason | None = None
    """How it ended; None: it has not."""
    model: str = ""
    has_usage: bool = False
    has_logprobs: bool = False
    usage: Usage = field(default_factory=Usage)
    _calls: list[_PartialCall] = field(default_factory=list)
    _places: dict[int, int] = field(default_factory=dict)
    """Of the latest call of each index."""
    _n_chunks: int = 0
    _has_answer: bool = False
    _refusal: str = ""
    _unread: set[str] = field(default_factory=set)
    """Fields with a value that may be the answer."""
    _n_hidden: int = 0
    """Tokens of reasoning that the server keeps to itself."""

    def chunks(self, event: EventJson) -> Iterator[Chunk]:
        self._count(event)
        self.model = str(event.get("model") or self.model)
        choices = event.get("choices")
        choice = _object(choices[0] if isinstance(choices, list) and choices else {})
        delta = _object(choice.get("delta") or choice.get("message") or {})
        text, thoughts, refusal = _content(delta.get("content"))
        self._refusal += refusal + _content(delta.get("refusal"))[0]
        reasoning = _content(delta.get("reasoning_content") or delta.get("reasoning"))[0] + thoughts
        logprobs = tuple(_logprobs(choice.get("logprobs")))
        self.has_logprobs |= bool(logprobs)
        old = [{"index": 0, "function": delta.get("function_call")}]
        # Some servers send a call in both forms.
        pieces = delta.get("tool_calls") or (old if old[0]["function"] else [])
        for part in map(_object, pieces if isinstance(pieces, list) else [pieces]):
            # Take a piece of a tool call; its arguments come in parts.
            call = self._call_of(part.get("index"), str(part.get("id") or ""))
            function = _object(part.get("function") or {})
            arguments = function.get("arguments")
            call.name += str(function.get("name") or "")
            is_whole = isinstance(arguments, Mapping)  # as Ollama's own API sends them
            call.arguments += json.dumps(arguments) if is_whole else str(arguments or "")
        self._has_answer |= bool(text or reasoning or self._calls)
        given = {**delta, "text": choice.get("text")}
        self._unread |= {name for name in given if given[name] and name not in _READ}
        if text or reasoning or logprobs:
            self._n_chunks += 1
            yield Chunk(text, 1, reasoning, logprobs=logprobs)
        finish = choice.get("finish_reason")
        if finish:  # "" of some servers is none
            yield from self._finish(str(finish))

    def _call_of(self, index: Any, call_id: str) -> _PartialCall:
        """Return the call that a piece belongs to; another id under one index is another call."""
        at = index if isinstance(index, int) else None
        known = self._calls[self._places[at]] if at in self._places else None
        if known is not None and call_id in ("", known.id):
            return known
        if len(self._calls) >= _MOST_CALLS:
            raise BadRequest(f"the answer has more than {_MOST_CALLS} tool calls")
        self._calls.append(_PartialCall(call_id))
        if at is not None:
            self._places[at] = len(self._calls) - 1
        return self._calls[-1]

    def _finish(self, finish: str) -> Iterator[Chunk]:
        if self._refusal:
            why = one_line(self._refusal, 300).rstrip(".")
            raise BadRequest(f"the model refused to answer: {why}")
        if finish == "content_filter":
            raise BadRequest("the server withheld the answer (content_filter)")
        word = finish.lower()
        if any(part in word for part in _AT_LIMIT):
            self.reason = "length"
        else:
            self.reason = None if word in _BROKEN_OFF else "stop"
        if self._calls and not (self.offers_tools or self._n_chunks):
            names = one_line(", ".join(repr(call.name) for call in self._calls), 100)
            raise BadRequest(f"the answer is a call of what was not offered: {names}")
        if self._calls:
            yield Chunk("", 0, tool_calls=tuple(map(_tool_call, self._calls)))
            self._calls, self._places = [], {}  # the event of the usage may have the reason again
        elif word in ("tool_calls", "function_call") and not self._has_answer:
            raise BadRequest(f"the answer ends with a call ({word}) that was not sent")

    def ended(self) -> Usage:
        """Return the usage; where the server reports none, a chunk counts as a token.

        Raises:
            BadRequest: the answer is in no field that is read, or the server counted tokens of
                which nothing has come: an end token is one.
        """
        n_tokens = self.usage.completion_tokens - self._n_hidden
        if self._unread and not self._has_answer:
            fields = one_line(", ".join(map(repr, sorted(self._unread))), 100)
            raise BadRequest(f"the answer has no text, but fields that are not read: {fields}")
        if self.reason == "stop" and n_tokens > 1 and not self._has_answer:
            raise BadRequest(f"the server counts {n_tokens} tokens of an answer, and sent none")
        return self.usage if self.has_usage else Usage(completion_tokens=self._n_chunks)

    def _count(self, event: EventJson) -> None:
        usage = event.get("usage")
        if not isinstance(usage, Mapping):
            return
        self.has_usage = True
        self._n_hidden = _int_field(usage.get("completion_tokens_details"), "reasoning_tokens")
        timings = event.get("timings")
        self.usage = Usage(
            prompt_tokens=_int_field(usage, "prompt_tokens"),
            prompt_reused_tokens=_int_field(usage.get("prompt_tokens_details"), "cached_tokens"),
            completion_tokens=_int_field(usage, "completion_tokens"),
            prefill_s=_int_field(timings, "prompt_ms") / 1000,
            decode_s=_int_field(timings, "predicted_ms") / 1000,
        )


def _object(value: Any) -> EventJson:
    if not isinstance(value, Mapping):
        raise BadRequest(f"the answer has {one_line(repr(value), 40)} in place of an object")
    return value


def _tool_call(call: _PartialCall) -> ToolCall:
    if not call.name:
        raise BadRequest("the answer has a call of a tool without a name")
    try:
        arguments = parse_shallow_json(call.arguments or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise BadRequest(f"the arguments of the call of '{call.name}' are no JSON object")
    return ToolCall(call.name, arguments, call.id)


def _content(content: Any) -> tuple[str, str, str]:
    """Return text, reasoning and refusal of what a delta holds: a text, or a list of parts.

    Raises:
        BadRequest: a part is of a kind that has no text.
    """
    if content is None or isinstance(content, str):
        return content or "", "", ""
    text = reasoning = refusal = ""
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if isinstance(part, str):
            text += part
        elif kind in ("text", "output_text"):
            text += str(part.get("text") or "")
        elif kind == "thinking":  # of Mistral's servers, in parts of its own
            inner = part.get("thinking")
            reasoning += "".join(_content(inner))
        elif kind == "refusal":
            refusal += str(part.get("refusal") or "")
        else:
            raise BadRequest(f"the answer has a part of the kind '{one_line(str(kind), 40)}'")
    return text, reasoning, refusal


def _int_field(fields: Any, name: str) -> int:
    value = fields.get(name) if isinstance(fields, Mapping) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and value is not None else 0


def _logprobs(logprobs: Any) -> Iterator[TokenLogprob]:
    listed = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    try:
        yield from [
            TokenLogprob(*_one_logprob(entry), map(_one_logprob, entry.get("top_logprobs") or ()))
            for entry in listed or ()
        ]
    except (KeyError, TypeError, ValueError):
        return


def _one_logprob(entry: EventJson) -> tuple[bytes, float]:
    logprob = float(entry["logprob"])
    if math.isnan(logprob):
        raise ValueError("no number")
    raw = entry.get("bytes")
    spelled = bytes(raw) if isinstance(raw, list) else str(entry["token"]).encode()
    return spelled, max(LOWEST_LOGPROB, min(0.0, logprob))
