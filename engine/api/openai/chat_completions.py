"""POST /v1/chat/completions, /v1/completions, and the base of all generating endpoints. Pure.

A `GenerationCall` holds the engine requests of a body and writes their replies, whole or as events:
chat, completions and Responses (`responses_api`) each have one, and `endpoints` runs them. Usage,
finish reason, tool calls and log probabilities have one form for all.

A prompt of /v1/completions is a text, a list of texts, token ids or a list of those, and gets no
chat template; each prompt has `n` choices, one after the other.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Annotated, Any, ClassVar

from pydantic import Field, PlainValidator

from paddock.engine.api.body_models import Items, Whole, invalid_value, refused
from paddock.engine.api.errors import InvalidValue, openai_error_body
from paddock.engine.api.streaming import nanoseconds, sse_event
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    Reply,
    TokenLogprob,
    ToolCall,
    with_tool_names,
)
from paddock.engine.system.records import Struct, StructABCMeta, replace

from .input_messages import ChatMessage
from .requests import (
    MAX_CHOICES,
    MAX_LOGPROBS,
    OPENAI_DEFAULTS,
    ApiCaller,
    NamedToolChoice,
    OfferedFunction,
    OpenAIBody,
    ResponseFormat,
    SamplingBody,
    ToolChoice,
    ToolsBody,
)

Body = dict[str, Any]


class Stamp(Struct, frozen=True):
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
        yield from ()

    def fail(self, error: Exception) -> bytes:
        """Return the event of an error, which ends the stream."""
        return sse_event(openai_error_body(error))


class GenerationCall(Struct, frozen=True, metaclass=StructABCMeta):
    """The engine requests of one body, and how their replies are written."""

    model: str
    requests: tuple[ChatRequest, ...]
    """The choices of the first prompt, then those of the next."""
    n_choices: int
    streams: bool
    constraint_field: str
    """Says what the answer must match."""
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
    # The first one's is a default, so that a model's own seed has precedence.
    return (
        replace(request, defaults={**request.defaults, "seed": first}),
        *(replace(request, params={**request.params, "seed": first + k}) for k in range(1, n)),
    )


# An answer that was stopped because it repeats itself is as incomplete as one at the limit.
_FINISH_REASONS = {"stop": "stop", "length": "length", "repetition": "length"}


def fingerprint_fields(replies: Sequence[Reply]) -> dict[str, Any]:
    """Return `system_fingerprint`: that of all answers, or a digest of their own ones."""
    found = [reply.fingerprint for reply in replies]
    if not all(found):
        return {}
    if len(set(found)) == 1:
        return {"system_fingerprint": found[0]}
    digest = hashlib.sha256(" ".join(found).encode()).hexdigest()
    return {"system_fingerprint": f"fp_{digest[:10]}"}


def stop_fields(reply: Reply) -> dict[str, Any]:
    """Return the mark of an answer that was stopped because it repeats itself."""
    return {"stopped_by": "repetition"} if reply.done_reason == "repetition" else {}


def finish_reason(reply: Reply) -> str:
    reason = _FINISH_REASONS[reply.done_reason]
    return "tool_calls" if reply.tool_calls and reason == "stop" else reason


def arguments_text(call: ToolCall) -> str:
    """Return a call's arguments as JSON text, which OpenAI's clients parse."""
    return json.dumps(call.arguments, ensure_ascii=False)


def usage_value(replies: Sequence[Reply], n_choices: int) -> dict[str, Any]:
    every = [reply.usage for reply in replies]
    n_prompt = sum(usage.prompt_tokens for usage in every[::n_choices])
    n_completion = sum(usage.completion_tokens for usage in every)
    n_cached = sum(usage.prompt_reused_tokens for usage in every[::n_choices])
    n_accepted = sum(usage.accepted_tokens for usage in every)
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_completion,
        "total_tokens": n_prompt + n_completion,
        "prompt_tokens_details": {"cached_tokens": n_cached},
        "completion_tokens_details": {
            "reasoning_tokens": sum(reply.n_reasoning_tokens for reply in replies),
            "accepted_prediction_tokens": n_accepted,
            "rejected_prediction_tokens": sum(usage.drafted_tokens for usage in every) - n_accepted,
        },
        "queue_duration": nanoseconds(max((usage.queue_s for usage in every), default=0.0)),
    }


def truncation_fields(replies: Iterable[Reply]) -> dict[str, Any]:
    """Return fields for a truncated prompt with its original length; none without one."""
    originals = [reply.prompt_tokens_original for reply in replies]
    cut = [n for n in originals if n is not None]
    return {"truncated": True, "prompt_tokens_original": max(cut)} if cut else {}


def logprob_values(logprobs: Sequence[TokenLogprob]) -> list[dict[str, Any]]:
    """Return log probabilities token by token, for chat completions and Responses."""
    return [
        {
            "token": logprob.token,
            "bytes": list(logprob.raw),
            "logprob": logprob.logprob,
            "top_logprobs": [
                {"token": raw.decode(errors="replace"), "bytes": list(raw), "logprob": value}
                for raw, value in logprob.top
            ],
        }
        for logprob in logprobs
    ]


class _ChoicesCall(GenerationCall, frozen=True):
    includes_usage: bool
    wants_logprobs: bool

    def finish_value(self, reply: Reply) -> str:
        return finish_reason(reply)

    def head(self, kind: str, stamp: Stamp) -> Body:
        return {"id": stamp.id, "object": kind, "created": stamp.created, "model": self.model}

    def whole_body(
        self, kind: str, stamp: Stamp, choices: list[Body], replies: Sequence[Reply]
    ) -> Body:
        return {
            **self.head(kind, stamp),
            **fingerprint_fields(replies),
            "choices": choices,
            "usage": usage_value(replies, self.n_choices),
            **truncation_fields(replies),
        }


class _ChoicesStreamWriter(CallStreamWriter):
    def __init__(self, call: _ChoicesCall, kind: str, stamp: Stamp) -> None:
        self._call = call
        self._head = call.head(kind, stamp)
        self._replies: dict[int, Reply] = {}

    def end(self) -> Iterator[bytes]:
        replies = [self._replies[index] for index in sorted(self._replies)]
        if self._call.includes_usage:
            usage = usage_value(replies, self._call.n_choices)
            yield sse_event(
                {
                    **self._head,
                    **fingerprint_fields(replies),
                    "choices": [],
                    "usage": usage,
                    **truncation_fields(replies),
                }
            )
        yield sse_event("[DONE]")

    def _event(
        self, index: int, content: Body, logprobs: Body | None = None, reply: Reply | None = None
    ) -> bytes:
        """Return one choice's piece; `reply` at its end, when its fingerprint is known."""
        finish = self._call.finish_value(reply) if reply else None
        choice = {"index": index, **content, "logprobs": logprobs, "finish_reason": finish}
        choice |= stop_fields(reply) if reply else {}
        known = fingerprint_fields([reply]) if reply else {}
        usage = {"usage": None} if self._call.includes_usage else {}
        return sse_event({**self._head, **known, "choices": [choice], **usage})


class ChatCall(_ChoicesCall, frozen=True):
    calls_in_parallel: bool
    answers_by_function: bool = False
    """Whether a call is written as `function_call`, for a request with `functions`."""
    prefix = "chatcmpl-"

    def body(self, replies: Sequence[Reply], stamp: Stamp) -> Body:
        choices = [self._choice(index, reply) for index, reply in enumerate(replies)]
        return self.whole_body("chat.completion", stamp, choices, replies)

    def _choice(self, index: int, reply: Reply) -> Body:
        calls = reply.tool_calls if self.calls_in_parallel else reply.tool_calls[:1]
        message: Body = {
            "role": "assistant",
            "content": None if calls and not reply.text else reply.text,
            "refusal": None,
        }
        if reply.reasoning:
            message["reasoning"] = reply.reasoning
        if calls:
            message |= self.calls_value(calls, 0)
        return {
            "index": index,
            "message": message,
            "logprobs": chat_logprobs_value(reply.logprobs) if self.wants_logprobs else None,
            "finish_reason": self.finish_value(reply),
            **stop_fields(reply),
        }

    def calls_value(self, calls: Sequence[ToolCall], first: int) -> Body:
        values: list[Body] = []
        for number, call in enumerate(calls, first):
            function = {"name": call.name, "arguments": arguments_text(call)}
            own = {"index": number, "id": call.id, "type": "function", "function": function}
            values.append(own)
        if self.answers_by_function:
            return {"function_call": values[0]["function"]}
        return {"tool_calls": values}

    def finish_value(self, reply: Reply) -> str:
        reason = finish_reason(reply)
        return "function_call" if self.answers_by_function and reason == "tool_calls" else reason

    def stream_writer(self, stamp: Stamp) -> CallStreamWriter:
        return _ChatStreamWriter(self, stamp)


class _StreamOptions(OpenAIBody):
    include_usage: bool = False


class _ChatBody(ToolsBody):
    messages: Items[ChatMessage] = ()
    functions: Items[OfferedFunction] = ()
    function_call: ToolChoice | None = None
    n: Whole = Field(1, ge=1, le=MAX_CHOICES)
    logprobs: bool = False
    response_format: ResponseFormat | None = None
    stream_options: _StreamOptions = _StreamOptions()

    def _choice(self) -> NamedToolChoice | None:
        return self.tool_choice or self.function_call

    def _functions(self) -> Iterator[tuple[str, OfferedFunction]]:
        yield from super()._functions()
        yield from (("", function) for function in self.functions)


def read_chat(fields: Mapping[str, Any], caller: ApiCaller) -> ChatCall:
    body = _ChatBody.read(fields)
    if not body.messages:
        raise InvalidValue("[] is too short - 'messages'", "messages")
    if body.top_logprobs and not body.logprobs:
        raise invalid_value("top_logprobs", "it needs `logprobs` to be true.")
    constraint, constraint_field = body.constraint(body.response_format)
    request = replace(
        body.request(caller, with_tool_names(message.message() for message in body.messages)),
        constraint=constraint,
        n_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        truncates=body.truncates,
    )
    return ChatCall(
        body.model,
        requests_for_choices(request, body.n),
        body.n,
        streams=body.stream,
        constraint_field=constraint_field,
        includes_usage=body.stream_options.include_usage,
        calls_in_parallel=body.parallel_tool_calls and not body.functions,
        wants_logprobs=body.logprobs,
        answers_by_function=bool(body.functions),
    )


def chat_logprobs_value(logprobs: Sequence[TokenLogprob]) -> Body:
    return {"content": logprob_values(logprobs), "refusal": None}


class _ChatStreamWriter(_ChoicesStreamWriter):
    def __init__(self, call: ChatCall, stamp: Stamp) -> None:
        super().__init__(call, "chat.completion.chunk", stamp)
        self._chat = call
        self._n_calls = [0] * len(call.requests)

    def begin(self) -> Iterator[bytes]:
        for index in range(len(self._call.requests)):
            yield self._delta(index, {"role": "assistant", "content": ""})

    def chunk(self, index: int, chunk: Chunk) -> Iterator[bytes]:
        logprobs = chunk.logprobs
        if chunk.reasoning:
            # They go with the first event, so that none is sent twice.
            yield self._delta(index, {"reasoning": chunk.reasoning}, logprobs)
            logprobs = ()
        if chunk.text or logprobs:
            yield self._delta(index, {"content": chunk.text}, logprobs)
        for call in chunk.tool_calls:
            number = self._n_calls[index]
            self._n_calls[index] += 1
            if number == 0 or self._chat.calls_in_parallel:
                yield self._delta(index, self._chat.calls_value([call], number))

    def reply(self, index: int, reply: Reply) -> Iterator[bytes]:
        self._replies[index] = reply
        yield self._event(index, {"delta": {}}, reply=reply)

    def _delta(self, index: int, delta: Body, logprobs: Sequence[TokenLogprob] = ()) -> bytes:
        value = chat_logprobs_value(logprobs) if logprobs else None
        return self._event(index, {"delta": delta}, value)


Prompt = str | tuple[int, ...]

MAX_ANSWERS = 2048


class CompletionCall(_ChoicesCall, frozen=True):
    echoes: bool
    echoed: tuple[str, ...] = ()
    """The text before each answer, one for each prompt; set where `echoes`."""
    prefix = "cmpl-"

    def echo_of(self, index: int) -> str:
        return self.echoed[index // self.n_choices] if self.echoed else ""

    def body(self, replies: Sequence[Reply], stamp: Stamp) -> Body:
        choices = [self._choice(index, reply) for index, reply in enumerate(replies)]
        return self.whole_body("text_completion", stamp, choices, replies)

    def _choice(self, index: int, reply: Reply) -> Body:
        logprobs = None
        if self.wants_logprobs:
            first = _unread_beginning(self.echo_of(index), reply)
            logprobs = _completion_logprobs_value(reply.logprobs, 0, first)
        return {
            "index": index,
            "text": self.echo_of(index) + reply.text,
            "logprobs": logprobs,
            "finish_reason": finish_reason(reply),
            **stop_fields(reply),
        }

    def stream_writer(self, stamp: Stamp) -> CallStreamWriter:
        return _CompletionStreamWriter(self, stamp)


def _prompts(value: Any) -> tuple[Prompt, ...]:
    """Return prompts: a text, a list of texts, token ids, or a list of those."""

    def are_tokens(row: Any) -> bool:
        is_row = isinstance(row, list) and bool(row)
        return is_row and all(type(token) is int and 0 <= token < 2**31 for token in row)

    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return tuple(value)
        rows = value if isinstance(value[0], list) else [value]
        if all(map(are_tokens, rows)):
            return tuple(map(tuple, rows))
    raise refused(
        "expected a string, an array of strings, an array of token ids (whole numbers from 0 on), "
        "or an array of those."
    )


Prompts = Annotated[tuple[Prompt, ...], PlainValidator(_prompts)]


class _CompletionBody(SamplingBody):
    prompt: Prompts = ()
    suffix: str = ""
    response_format: ResponseFormat | None = None
    n: Whole = Field(1, ge=1, le=MAX_CHOICES)
    best_of: Whole | None = Field(None, ge=1, le=MAX_CHOICES)
    logprobs: Whole | None = Field(None, ge=0, le=MAX_LOGPROBS)
    echo: bool = False
    stream_options: _StreamOptions = _StreamOptions()


def read_completion(fields: Mapping[str, Any], caller: ApiCaller) -> CompletionCall:
    body = _CompletionBody.read(fields)
    if not body.prompt:
        raise InvalidValue("invalid prompt", "prompt")
    if len(body.prompt) * body.n > MAX_ANSWERS:
        raise invalid_value("prompt", f"at most {MAX_ANSWERS} answers are made at once.")
    if body.best_of not in (None, body.n):
        raise invalid_value("best_of", "only as many answers are made as `n` asks for.")
    if body.echo and body.logprobs is not None and body.stream:
        raise invalid_value("stream", "log probabilities of a prompt's own tokens come whole.")
    constraint, constraint_field = body.constraint(body.response_format)
    request = ChatRequest(
        body.spec("chat"),
        (),
        body.sampling(),
        priority=caller.priority,
        constraint=constraint,
        n_logprobs=body.logprobs,
        scores_prompt=body.echo and body.logprobs is not None,
        suffix=body.suffix or None,
        reserves_answer=False,
        truncates=body.truncates,
        defaults=OPENAI_DEFAULTS,
    )
    whole = (
        replace(request, prompt=prompt)
        if isinstance(prompt, str)
        else replace(request, prompt="", prompt_tokens=prompt)
        for prompt in body.prompt
    )
    return CompletionCall(
        body.model,
        tuple(choice for drawn in whole for choice in requests_for_choices(drawn, body.n)),
        body.n,
        streams=body.stream,
        constraint_field=constraint_field,
        includes_usage=body.stream_options.include_usage,
        wants_logprobs=body.logprobs is not None,
        echoes=body.echo,
    )


def _unread_beginning(echo: str, reply: Reply) -> str:
    """Return the first token of an echoed prompt: nothing stands before it, so it is not likely.

    Where the model's BOS stands before it, it has a log probability as the others.
    """
    own = reply.logprobs[: len(reply.logprobs) - reply.usage.completion_tokens]
    n_bytes = len(echo.encode()) - sum(len(logprob.raw) for logprob in own)
    return echo.encode()[: max(0, n_bytes)].decode(errors="replace")


def _completion_logprobs_value(
    logprobs: Sequence[TokenLogprob], start: int, unread: str = ""
) -> Body:
    """Return log probabilities column by column; `start` is the first token's offset.

    `unread` is a token before them that has none.
    """
    first = [unread] if unread else []
    tokens = [*first, *(logprob.token for logprob in logprobs)]
    ends = accumulate(map(len, tokens), initial=start)
    tops = [
        {raw.decode(errors="replace"): value for raw, value in logprob.top} for logprob in logprobs
    ]
    return {
        "tokens": tokens,
        "token_logprobs": [*(None for _ in first), *(logprob.logprob for logprob in logprobs)],
        "top_logprobs": [*(None for _ in first), *tops],
        "text_offset": [*ends][: len(tokens)],
    }


class _CompletionStreamWriter(_ChoicesStreamWriter):
    def __init__(self, call: CompletionCall, stamp: Stamp) -> None:
        super().__init__(call, "text_completion", stamp)
        self._echoes = [call.echo_of(n) for n in range(len(call.requests))] if call.echoed else []
        self._n_chars = [0] * len(call.requests)

    def begin(self) -> Iterator[bytes]:
        for index, text in enumerate(self._echoes):
            yield self._text(index, text)

    def chunk(self, index: int, chunk: Chunk) -> Iterator[bytes]:
        if chunk.text or chunk.logprobs:
            yield self._text(index, chunk.text, chunk.logprobs)

    def reply(self, index: int, reply: Reply) -> Iterator[bytes]:
        self._replies[index] = reply
        yield self._event(index, {"text": ""}, reply=reply)

    def _text(self, index: int, text: str, logprobs: Sequence[TokenLogprob] = ()) -> bytes:
        value = _completion_logprobs_value(logprobs, self._n_chars[index]) if logprobs else None
        self._n_chars[index] += sum(len(logprob.token) for logprob in logprobs)
        return self._event(index, {"text": text}, value)
