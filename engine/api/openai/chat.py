"""POST /v1/chat/completions: its body → a call, replies → its bodies and chunks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddock.engine.request import ChatRequest, Chunk, Reply, TokenLogprob

from . import answers, wishes
from .calls import (
    Body,
    Call,
    Caller,
    Speaker,
    Stamp,
    choices_of,
    failed_event,
    plain_event,
)
from .fields import Fields
from .messages import chat_messages


@dataclass(frozen=True, slots=True)
class ChatCall(Call):
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
            "system_fingerprint": answers.FINGERPRINT,
            "choices": [self._choice(index, reply) for index, reply in enumerate(replies)],
            "usage": answers.usage_value(replies, self.n_choices),
            **answers.cut_value(replies),
        }

    def _choice(self, index: int, reply: Reply) -> Body:
        calls = answers.calls_kept(reply.tool_calls, in_parallel=self.calls_in_parallel)
        message: Body = {
            "role": "assistant",
            "content": None if calls and not reply.text else reply.text,
            "refusal": None,
        }
        if reply.reasoning:
            message["reasoning"] = reply.reasoning
        if calls:
            message["tool_calls"] = [
                answers.call_value(call, number) for number, call in enumerate(calls)
            ]
        told = logprobs_value(reply.logprobs) if self.wants_logprobs else None
        return {
            "index": index,
            "message": message,
            "logprobs": told,
            "finish_reason": answers.finish_reason(reply),
        }

    def speaker(self, stamp: Stamp) -> Speaker:
        """Give who writes `chat.completion.chunk`s."""
        return _ChatSpeaker(self, stamp)


def read_chat(body: Fields, caller: Caller) -> ChatCall:
    """Read what is asked.

    Raises:
        InvalidValue: a field that cannot be used.
    """
    model, spec = wishes.model_of(body, "chat")
    messages = chat_messages(body)
    tools = wishes.tools_of(body)
    choice, tools = wishes.choice_of(body, tools)
    n = body.whole("n", 1, wishes.MOST_CHOICES) or 1
    n_logprobs = _n_logprobs(body)
    options = body.object("stream_options")
    request = ChatRequest(
        spec,
        messages,
        wishes.sampling_of(body, "max_completion_tokens", "max_tokens"),
        priority=caller.priority,
        tools=tools,
        tool_choice=choice,
        constraint=wishes.constraint_of(body.object("response_format")),
        think=wishes.think_of(body),
        n_logprobs=n_logprobs,
        reserves_answer=False,
        truncates=body.flag("truncate"),
        defaults=wishes.DEFAULTS,
    )
    return ChatCall(
        model,
        choices_of(request, n),
        n,
        streams=body.flag("stream"),
        includes_usage=options is not None and options.flag("include_usage"),
        calls_in_parallel=body.flag("parallel_tool_calls", default=True),
        wants_logprobs=n_logprobs is not None,
    )


def _n_logprobs(body: Fields) -> int | None:
    n_top = body.whole("top_logprobs", 0, wishes.MOST_LOGPROBS)
    if body.flag("logprobs"):
        return n_top or 0
    if n_top:
        raise body.refused("top_logprobs", "it needs `logprobs` to be true.")
    return None


def logprobs_value(logprobs: Sequence[TokenLogprob]) -> Body:
    """Write a choice's log probabilities."""
    return {"content": answers.logprob_values(logprobs), "refusal": None}


class _ChatSpeaker:
    """Writes one stream; every choice opens with its role and closes with its reason."""

    def __init__(self, call: ChatCall, stamp: Stamp) -> None:
        self._call = call
        self._head = {
            "id": stamp.id,
            "object": "chat.completion.chunk",
            "created": stamp.created,
            "model": call.model,
            "system_fingerprint": answers.FINGERPRINT,
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
                yield self._told(index, {"tool_calls": [answers.call_value(call, number)]})

    def reply(self, index: int, reply: Reply) -> Iterator[bytes]:
        self._replies[index] = reply
        yield self._told(index, {}, finish=answers.finish_reason(reply))

    def end(self) -> Iterator[bytes]:
        replies = [self._replies[index] for index in sorted(self._replies)]
        if self._call.includes_usage:
            usage = answers.usage_value(replies, self._call.n_choices)
            told = {**self._head, "choices": [], "usage": usage, **answers.cut_value(replies)}
            yield plain_event(told)
        yield plain_event("[DONE]")

    def fail(self, error: Exception) -> bytes:
        return failed_event(error)

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
            "logprobs": logprobs_value(logprobs) if logprobs else None,
            "finish_reason": finish,
        }
        usage = {"usage": None} if self._call.includes_usage else {}
        return plain_event({**self._head, "choices": [choice], **usage})
