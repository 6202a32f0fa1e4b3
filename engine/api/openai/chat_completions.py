"""POST /v1/chat/completions, /v1/completions: body → call, replies → body or events. Pure.

A prompt of /v1/completions is a text, a list of texts, token ids or a list of those, and gets no
chat template; each prompt has `n` choices, which stand next to one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from paddock.engine.api.errors import InvalidValue
from paddock.engine.request import ChatRequest, Chunk, Reply, TokenLogprob

from . import generation_calls, parameters
from .generation_calls import (
    ApiCaller,
    Body,
    CallStreamWriter,
    GenerationCall,
    Stamp,
    error_event,
    requests_for_choices,
    unnamed_event,
)
from .messages import chat_messages
from .request_body import Fields


@dataclass(frozen=True, slots=True)
class ChatCall(GenerationCall):
    """One conversation to be gone on with."""

    includes_usage: bool
    calls_in_parallel: bool
    wants_logprobs: bool

    @property
    def prefix(self) -> str:
        """What the answer's id begins with."""
        return "chatcmpl-"

    def body(self, replies: Sequence[Reply], stamp: Stamp) -> Body:
        """Write a `chat.completion`."""
        return {
            "id": stamp.id,
            "object": "chat.completion",
            "created": stamp.created,
            "model": self.model,
            "system_fingerprint": generation_calls.FINGERPRINT,
            "choices": [self._choice(index, reply) for index, reply in enumerate(replies)],
            "usage": generation_calls.usage_value(replies, self.n_choices),
            **generation_calls.truncation_fields(replies),
        }

    def _choice(self, index: int, reply: Reply) -> Body:
        calls = generation_calls.limited_calls(reply.tool_calls, in_parallel=self.calls_in_parallel)
        message: Body = {
            "role": "assistant",
            "content": None if calls and not reply.text else reply.text,
            "refusal": None,
        }
        if reply.reasoning:
            message["reasoning"] = reply.reasoning
        if calls:
            message["tool_calls"] = [
                generation_calls.tool_call_value(call, number) for number, call in enumerate(calls)
            ]
        told = chat_logprobs_value(reply.logprobs) if self.wants_logprobs else None
        return {
            "index": index,
            "message": message,
            "logprobs": told,
            "finish_reason": generation_calls.finish_reason(reply),
        }

    def stream_writer(self, stamp: Stamp) -> CallStreamWriter:
        """Return who writes `chat.completion.chunk`s."""
        return _ChatStreamWriter(self, stamp)


def read_chat(body: Fields, caller: ApiCaller) -> ChatCall:
    """Read what is asked.

    Raises:
        InvalidValue: a field that cannot be used.
    """
    model, spec = parameters.read_model(body, "chat")
    messages = chat_messages(body)
    tools = parameters.read_tools(body)
    choice, tools = parameters.read_tool_choice(body, tools)
    n = body.whole("n", 1, parameters.MOST_CHOICES) or 1
    n_logprobs = _n_logprobs(body)
    options = body.object("stream_options")
    request = ChatRequest(
        spec,
        messages,
        parameters.read_sampling(body, "max_completion_tokens", "max_tokens"),
        priority=caller.priority,
        tools=tools,
        tool_choice=choice,
        constraint=parameters.read_response_format(body.object("response_format")),
        think=parameters.read_think(body),
        n_logprobs=n_logprobs,
        reserves_answer=False,
        truncates=body.flag("truncate"),
        defaults=parameters.OPENAI_DEFAULTS,
    )
    return ChatCall(
        model,
        requests_for_choices(request, n),
        n,
        streams=body.flag("stream"),
        includes_usage=options is not None and options.flag("include_usage"),
        calls_in_parallel=body.flag("parallel_tool_calls", default=True),
        wants_logprobs=n_logprobs is not None,
    )


def _n_logprobs(body: Fields) -> int | None:
    n_top = body.whole("top_logprobs", 0, parameters.MOST_LOGPROBS)
    if body.flag("logprobs"):
        return n_top or 0
    if n_top:
        raise body.refused("top_logprobs", "it needs `logprobs` to be true.")
    return None


def chat_logprobs_value(logprobs: Sequence[TokenLogprob]) -> Body:
    """Write a choice's log probabilities."""
    return {"content": generation_calls.logprob_values(logprobs), "refusal": None}


class _ChatStreamWriter:
    """Writes one stream; every choice opens with its role and closes with its reason."""

    def __init__(self, call: ChatCall, stamp: Stamp) -> None:
        self._call = call
        self._head = {
            "id": stamp.id,
            "object": "chat.completion.chunk",
            "created": stamp.created,
            "model": call.model,
            "system_fingerprint": generation_calls.FINGERPRINT,
        }
        self._n_calls = [0] * len(call.requests)
        self._replies: dict[int, Reply] = {}

    def begin(self) -> Iterator[bytes]:
        for index in range(len(self._call.requests)):
            yield self._told(index, {"role": "assistant", "content": ""})

    def chunk(self, index: int, chunk: Chunk) -> Iterator[bytes]:
        logprobs = chunk.logprobs
        if chunk.reasoning:
            # They go with the first part told, so that none is told twice.
            yield self._told(index, {"reasoning": chunk.reasoning}, logprobs)
            logprobs = ()
        if chunk.text or logprobs:
            yield self._told(index, {"content": chunk.text}, logprobs)
        for call in chunk.tool_calls:
            number = self._n_calls[index]
            self._n_calls[index] += 1
            if number == 0 or self._call.calls_in_parallel:
                yield self._told(
                    index, {"tool_calls": [generation_calls.tool_call_value(call, number)]}
                )

    def reply(self, index: int, reply: Reply) -> Iterator[bytes]:
        self._replies[index] = reply
        yield self._told(index, {}, finish=generation_calls.finish_reason(reply))

    def end(self) -> Iterator[bytes]:
        replies = [self._replies[index] for index in sorted(self._replies)]
        if self._call.includes_usage:
            usage = generation_calls.usage_value(replies, self._call.n_choices)
            told = {
                **self._head,
                "choices": [],
                "usage": usage,
                **generation_calls.truncation_fields(replies),
            }
            yield unnamed_event(told)
        yield unnamed_event("[DONE]")

    def fail(self, error: Exception) -> bytes:
        return error_event(error)

    def _told(
        self,
        index: int,
        delta: Mapping[str, Any],
        logprobs: Sequence[TokenLogprob] = (),
        finish: str | None = None,
    ) -> bytes:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": chat_logprobs_value(logprobs) if logprobs else None,
            "finish_reason": finish,
        }
        usage = {"usage": None} if self._call.includes_usage else {}
        return unnamed_event({**self._head, "choices": [choice], **usage})


Prompt = str | tuple[int, ...]

MOST_ANSWERS = 2048


@dataclass(frozen=True, slots=True)
class CompletionCall(GenerationCall):
    """Texts to be gone on with."""

    includes_usage: bool
    wants_logprobs: bool
    echoes: bool
    echoed: tuple[str, ...] = ()
    """What stands before each answer, one for each prompt; filled where `echoes`."""

    @property
    def prefix(self) -> str:
        """What the answer's id begins with."""
        return "cmpl-"

    def echo_of(self, index: int) -> str:
        """Return what stands before an answer."""
        return self.echoed[index // self.n_choices] if self.echoed else ""

    def body(self, replies: Sequence[Reply], stamp: Stamp) -> Body:
        """Write a `text_completion`."""
        return {
            "id": stamp.id,
            "object": "text_completion",
            "created": stamp.created,
            "model": self.model,
            "system_fingerprint": generation_calls.FINGERPRINT,
            "choices": [self._choice(index, reply) for index, reply in enumerate(replies)],
            "usage": generation_calls.usage_value(replies, self.n_choices),
            **generation_calls.truncation_fields(replies),
        }

    def _choice(self, index: int, reply: Reply) -> Body:
        logprobs = _completion_logprobs_value(reply.logprobs, 0) if self.wants_logprobs else None
        return {
            "index": index,
            "text": self.echo_of(index) + reply.text,
            "logprobs": logprobs,
            "finish_reason": generation_calls.finish_reason(reply),
        }

    def stream_writer(self, stamp: Stamp) -> CallStreamWriter:
        """Return who writes the pieces of a `text_completion`."""
        return _CompletionStreamWriter(self, stamp)


def read_completion(body: Fields, caller: ApiCaller) -> CompletionCall:
    """Read what is asked.

    Raises:
        InvalidValue: a field that cannot be used.
    """
    model, spec = parameters.read_model(body, "chat")
    prompts = read_prompts(body, "prompt")
    n = body.whole("n", 1, parameters.MOST_CHOICES) or 1
    if len(prompts) * n > MOST_ANSWERS:
        raise body.refused("prompt", f"at most {MOST_ANSWERS} answers are made at once.")
    n_logprobs = body.whole("logprobs", 0, parameters.MOST_LOGPROBS)
    echoes = body.flag("echo")
    if body.whole("best_of", 1, parameters.MOST_CHOICES) not in (None, n):
        raise body.refused("best_of", "only as many answers are made as `n` asks for.")
    if echoes and n_logprobs is not None:
        raise body.refused("echo", "log probabilities of a prompt's own tokens are not computed.")
    options = body.object("stream_options")
    suffix = body.text("suffix") or None
    request = ChatRequest(
        spec,
        (),
        parameters.read_sampling(body, "max_tokens"),
        priority=caller.priority,
        n_logprobs=n_logprobs,
        suffix=suffix,
        reserves_answer=False,
        truncates=body.flag("truncate"),
        defaults=parameters.OPENAI_DEFAULTS,
    )
    return CompletionCall(
        model,
        tuple(
            one
            for prompt in prompts
            for one in requests_for_choices(_with_prompt(request, prompt), n)
        ),
        n,
        streams=body.flag("stream"),
        includes_usage=options is not None and options.flag("include_usage"),
        wants_logprobs=n_logprobs is not None,
        echoes=echoes,
    )


def _with_prompt(request: ChatRequest, prompt: Prompt) -> ChatRequest:
    if isinstance(prompt, str):
        return replace(request, prompt=prompt)
    return replace(request, prompt="", prompt_tokens=prompt)


def read_prompts(body: Fields, name: str) -> tuple[Prompt, ...]:
    """Read a text, a list of texts, token ids, or a list of those.

    Raises:
        InvalidValue: it is none of them, or there is none.
    """
    value = body.any(name)
    if isinstance(value, str):
        return (value,)
    if value is None or value == []:
        raise InvalidValue(f"invalid {name}", body.place(name))
    if not isinstance(value, list):
        raise _invalid_prompt(body, name)
    if _are_tokens(value):
        return (_tokens(body, name, value),)
    if all(isinstance(one, str) for one in value):
        return tuple(value)
    if all(isinstance(one, list) and one and _are_tokens(one) for one in value):
        return tuple(_tokens(body, name, one) for one in value)
    raise _invalid_prompt(body, name)


def _are_tokens(values: list[Any]) -> bool:
    return all(isinstance(one, int) and not isinstance(one, bool) for one in values)


def _tokens(body: Fields, name: str, values: list[int]) -> tuple[int, ...]:
    if not all(0 <= one < 2**31 for one in values):
        raise body.refused(name, "token ids are whole numbers from 0 on.")
    return tuple(values)


def _invalid_prompt(body: Fields, name: str) -> InvalidValue:
    why = "expected a string, an array of strings, an array of token ids, or an array of those."
    return body.refused(name, why)


def _completion_logprobs_value(logprobs: Sequence[TokenLogprob], start: int) -> Body:
    """Write log probabilities column by column; `start` is where the first token stands."""
    offsets, at = [], start
    for one in logprobs:
        offsets.append(at)
        at += len(one.token)
    return {
        "tokens": [one.token for one in logprobs],
        "token_logprobs": [one.logprob for one in logprobs],
        "top_logprobs": [{text: value for text, value, _ in one.top} for one in logprobs],
        "text_offset": offsets,
    }


class _CompletionStreamWriter:
    """Writes one stream."""

    def __init__(self, call: CompletionCall, stamp: Stamp) -> None:
        self._call = call
        self._head = {
            "id": stamp.id,
            "object": "text_completion",
            "created": stamp.created,
            "model": call.model,
            "system_fingerprint": generation_calls.FINGERPRINT,
        }
        self._lengths = [0] * len(call.requests)
        self._replies: dict[int, Reply] = {}

    def begin(self) -> Iterator[bytes]:
        for index in range(len(self._call.requests)):
            if self._call.echoed:
                yield self._told(index, self._call.echo_of(index))

    def chunk(self, index: int, chunk: Chunk) -> Iterator[bytes]:
        if chunk.text or chunk.logprobs:
            yield self._told(index, chunk.text, chunk.logprobs)

    def reply(self, index: int, reply: Reply) -> Iterator[bytes]:
        self._replies[index] = reply
        yield self._told(index, "", finish=generation_calls.finish_reason(reply))

    def end(self) -> Iterator[bytes]:
        replies = [self._replies[index] for index in sorted(self._replies)]
        if self._call.includes_usage:
            usage = generation_calls.usage_value(replies, self._call.n_choices)
            told = {
                **self._head,
                "choices": [],
                "usage": usage,
                **generation_calls.truncation_fields(replies),
            }
            yield unnamed_event(told)
        yield unnamed_event("[DONE]")

    def fail(self, error: Exception) -> bytes:
        return error_event(error)

    def _told(
        self,
        index: int,
        text: str,
        logprobs: Sequence[TokenLogprob] = (),
        finish: str | None = None,
    ) -> bytes:
        told = _completion_logprobs_value(logprobs, self._lengths[index]) if logprobs else None
        self._lengths[index] += sum(len(one.token) for one in logprobs)
        choice = {"index": index, "text": text, "logprobs": told, "finish_reason": finish}
        usage = {"usage": None} if self._call.includes_usage else {}
        return unnamed_event({**self._head, "choices": [choice], **usage})
