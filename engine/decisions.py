"""Decisions: how likely each option of a question about a conversation is. Pure but for its asker.

A question about many documents stands before them, several questions about one document after it:
what prompts share is computed once. An option's share is by how much likelier it is behind the
conversation than behind the question alone: models prefer some words whatever they have read. Right
in the first 400 and the other 500 of 900 texts, SmolLM2-135M, in per cent:

| | AG News, headlines | the same, whole | TREC | film reviews (MR) |
|---|--:|--:|--:|--:|
| as here | 47, 47 | 49, 49 | 37, 38 | 55, 55 |
| without the question alone | 25, 25 | 35, 32 | 24, 24 | 56, 56 |
| whole options, so | 25, 24 | 34, 32 | 27, 28 | 56, 56 |
| the mean by token, so | 28, 29 | 27, 28 | 2, 2 | 56, 56 |
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from .request import AnswerScore, ChatRequest, Message, Reply, answer_shares
from .system.records import Struct, replace
from .system.tasks import end


class OptionQuestion(Struct, frozen=True):
    options: tuple[str, ...]
    """Texts of which one is the answer."""
    words: str
    """What the prompt says of it."""
    examples: tuple[tuple[str, str], ...] = ()
    """Texts, each with its option."""


def option_list(options: Sequence[str], descriptions: Sequence[str] = ()) -> str:
    """Return lines for the prompt; an empty description says nothing more."""
    described = descriptions or [""] * len(options)
    pairs = zip(options, described, strict=True)
    lines = [f"- {option}: {words}" if words else f"- {option}" for option, words in pairs]
    return "\n".join(["Answer with one of these, and nothing else:", *lines])


async def ask_options(
    ask: Callable[[ChatRequest], Coroutine[Any, Any, Reply]],
    request: ChatRequest,
    questions: Sequence[OptionQuestion],
) -> list[list[float]]:
    """Return the shares of each question's options; all are asked at once, and fail together."""
    alone = replace(request, messages=(*_system(request), Message("user", "")))
    is_only = len(questions) == 1
    orders = [_decision_request(request, question, is_only=is_only) for question in questions]
    orders += [_decision_request(alone, question, is_only=True) for question in questions]
    tasks = [asyncio.ensure_future(ask(order)) for order in orders]
    try:
        replies = await asyncio.gather(*tasks)
    finally:
        await end(*tasks)
    pairs = zip(replies, replies[len(questions) :], strict=False)
    return [_shares_beyond(reply.scores, before.scores) for reply, before in pairs]


def _shares_beyond(scores: Sequence[AnswerScore], before: Sequence[AnswerScore]) -> list[float]:
    pairs = zip(scores, before, strict=True)
    return answer_shares([AnswerScore(score.logprob - prior.logprob) for score, prior in pairs])


def _system(request: ChatRequest) -> tuple[Message, ...]:
    return tuple(turn for turn in request.messages[:1] if turn.role == "system")


def _decision_request(
    request: ChatRequest, question: OptionQuestion, *, is_only: bool
) -> ChatRequest:
    taught = [
        Message(role, text)
        for example in question.examples
        for role, text in zip(("user", "assistant"), example, strict=True)
    ]
    system = _system(request)
    turns = [*system, *taught, *request.messages[len(system) :]]
    place = with_beginning if is_only or taught else with_ending
    messages = tuple(place(turns, question.words))
    params = {"max_tokens": 1}  # the pool makes room for what tells the options apart
    options = question.options
    return replace(request, messages=messages, params=params, think=False, answers=options)


def with_beginning(messages: Sequence[Message], words: str) -> list[Message]:
    """Put text where prompts of many items are still the same: their KV cache is shared.

    That is the end of a system message, else the beginning of the conversation.
    """
    if not words or not messages:
        return list(messages)
    first, is_system = messages[0], messages[0].role == "system"
    parts = (first.content.rstrip(), words) if is_system else (words, first.content)
    if not is_system and first.role != "user":
        return [Message("user", words), *messages]
    return [replace(first, content="\n\n".join(parts)), *messages[1:]]


def with_ending(messages: Sequence[Message], words: str) -> list[Message]:
    """Append text to the user's last message: small models respect what is last."""
    where = max((n for n, message in enumerate(messages) if message.role == "user"), default=None)
    if where is None:
        return [*messages, Message("user", words)]
    ended = replace(messages[where], content=f"{messages[where].content.rstrip()}\n\n{words}")
    return [*messages[:where], ended, *messages[where + 1 :]]
