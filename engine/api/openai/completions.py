"""POST /v1/completions: text gone on with as it stands, without a chat template. Pure.

A prompt is a text, a list of texts, token ids or a list of those; each prompt has `n` choices,
which follow one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
from .refusals import InvalidValue

Prompt = str | tuple[int, ...]

MOST_ANSWERS = 2048


@dataclass(frozen=True, slots=True)
class CompletionCall(Call):
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
        """Give what stands before an answer."""
        return self.echoed[index // self.n_choices] if self.echoed else ""

    def body(self, replies: Sequence[Reply], stamp: Stamp) -> Body:
        """Write a `text_completion`."""
        return {
            "id": stamp.id,
            "object": "text_completion",
            "created": stamp.created,
            "model": self.model,
            "system_fingerprint": answers.FINGERPRINT,
            "choices": [self._choice(index, reply) for index, reply in enumerate(replies)],
            "usage": answers.usage_value(replies, self.n_choices),
            **answers.cut_value(replies),
        }

    def _choice(self, index: int, reply: Reply) -> Body:
        logprobs = _logprobs_value(reply.logprobs, 0) if self.wants_logprobs else None
        return {
            "index": index,
            "text": self.echo_of(index) + reply.text,
            "logprobs": logprobs,
            "finish_reason": answers.finish_reason(reply),
        }

    def speaker(self, stamp: Stamp) -> Speaker:
        """Give who writes the pieces of a `text_completion`."""
        return _CompletionSpeaker(self, stamp)


def read_completion(body: Fields, caller: Caller) -> CompletionCall:
    """Read what is asked.

    Raises:
        InvalidValue: a field that cannot be used.
    """
    model, spec = wishes.model_of(body, "chat")
    prompts = read_prompts(body, "prompt")
    n = body.whole("n", 1, wishes.MOST_CHOICES) or 1
    if len(prompts) * n > MOST_ANSWERS:
        raise body.refused("prompt", f"at most {MOST_ANSWERS} answers are made at once.")
    n_logprobs = body.whole("logprobs", 0, wishes.MOST_LOGPROBS)
    echoes = body.flag("echo")
    if body.whole("best_of", 1, wishes.MOST_CHOICES) not in (None, n):
        raise body.refused("best_of", "only as many answers are made as `n` asks for.")
    if echoes and n_logprobs is not None:
        raise body.refused("echo", "log probabilities of a prompt's own tokens are not computed.")
    options = body.object("stream_options")
    suffix = body.text("suffix") or None
    request = ChatRequest(
        spec,
        (),
        wishes.sampling_of(body, "max_tokens"),
        priority=caller.priority,
        n_logprobs=n_logprobs,
        suffix=suffix,
        reserves_answer=False,
        truncates=body.flag("truncate"),
        defaults=wishes.DEFAULTS,
    )
    return CompletionCall(
        model,
        tuple(one for prompt in prompts for one in choices_of(_asking(request, prompt), n)),
        n,
        streams=body.flag("stream"),
        includes_usage=options is not None and options.flag("include_usage"),
        wants_logprobs=n_logprobs is not None,
        echoes=echoes,
    )


def _asking(request: ChatRequest, prompt: Prompt) -> ChatRequest:
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
        raise _no_prompt(body, name)
    if _are_tokens(value):
        return (_tokens(body, name, value),)
    if all(isinstance(one, str) for one in value):
        return tuple(value)
    if all(isinstance(one, list) and one and _are_tokens(one) for one in value):
        return tuple(_tokens(body, name, one) for one in value)
    raise _no_prompt(body, name)


def _are_tokens(values: list[Any]) -> bool:
    return all(isinstance(one, int) and not isinstance(one, bool) for one in values)


def _tokens(body: Fields, name: str, values: list[int]) -> tuple[int, ...]:
    if not all(0 <= one < 2**31 for one in values):
        raise body.refused(name, "token ids are whole numbers from 0 on.")
    return tuple(values)


def _no_prompt(body: Fields, name: str) -> InvalidValue:
    why = "expected a string, an array of strings, an array of token ids, or an array of those."
    return body.refused(name, why)


def _logprobs_value(logprobs: Sequence[TokenLogprob], start: int) -> Body:
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


class _CompletionSpeaker:
    """Writes one stream."""

    def __init__(self, call: CompletionCall, stamp: Stamp) -> None:
        self._call = call
        self._head = {
            "id": stamp.id,
            "object": "text_completion",
            "created": stamp.created,
            "model": call.model,
            "system_fingerprint": answers.FINGERPRINT,
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
        yield self._told(index, "", finish=answers.finish_reason(reply))

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
        text: str,
        logprobs: Sequence[TokenLogprob] = (),
        finish: str | None = None,
    ) -> bytes:
        told = _logprobs_value(logprobs, self._lengths[index]) if logprobs else None
        self._lengths[index] += sum(len(one.token) for one in logprobs)
        choice = {"index": index, "text": text, "logprobs": told, "finish_reason": finish}
        usage = {"usage": None} if self._call.includes_usage else {}
        return plain_event({**self._head, "choices": [choice], **usage})
