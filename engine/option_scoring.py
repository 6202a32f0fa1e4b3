"""Option scoring: how likely each option of a question about a conversation is. Pure but for `ask`.

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

from .request import (
    AnswerScore,
    ChatRequest,
    Message,
    Reply,
    Usage,
    answer_shares,
    with_beginning,
    with_ending,
)
from .system.records import Struct, replace
from .system.tasks import end

MOST_QUESTIONS, MOST_OPTIONS = 400, 255  # of a request over HTTP, as OpenAI's


class OptionQuestion(Struct, frozen=True):
    options: tuple[str, ...]
    """Texts of which one is the answer."""
    words: str
    """What the prompt says of it."""
    examples: tuple[tuple[str, str], ...] = ()
    """Texts, each with its option."""

    @classmethod
    def of(cls, instructions: str, options: Sequence[tuple[str, str]]) -> OptionQuestion:
        """Return a question about options, each with a description, which may be empty."""
        names = tuple(name for name, _ in options)
        listed = option_list(names, [description for _, description in options])
        return cls(names, f"{instructions}\n\n{listed}")

    @classmethod
    def of_statement(cls, statement: str, if_false: str = "", if_true: str = "") -> OptionQuestion:
        """Return the question whether a statement holds: the second share is that it does."""
        return cls.of(f"Is this true of it? {statement}", [("no", if_false), ("yes", if_true)])

    @property
    def is_answerable(self) -> bool:
        n_different = len({*map(str.strip, self.options)} - {""})
        return n_different == len(self.options) >= 2


class OptionShares(Struct, frozen=True):
    shares: Sequence[float]
    """The probability of each option, if one of them is the answer."""

    @property
    def likeliest(self) -> int:
        """The option's place."""
        return max(range(len(self.shares)), key=lambda place: self.shares[place])

    @property
    def confidence(self) -> float:
        return max(self.shares)

    @property
    def mean_place(self) -> float:
        """Of ordered options the mean level; the lowest is 0."""
        return sum(place * share for place, share in enumerate(self.shares))


def option_list(options: Sequence[str], descriptions: Sequence[str] = ()) -> str:
    """Return lines for the prompt; an empty description says nothing more."""
    described = descriptions or [""] * len(options)
    pairs = zip(options, described, strict=True)
    lines = [f"- {option}: {words}" if words else f"- {option}" for option, words in pairs]
    return "\n".join(["Answer with one of these, and nothing else:", *lines])


async def score_options(
    ask: Callable[[ChatRequest], Coroutine[Any, Any, Reply]],
    request: ChatRequest,
    questions: Sequence[OptionQuestion],
) -> tuple[list[OptionShares], Usage]:
    """Return how likely the options of each question about the messages of `request` are.

    All are asked at once, and fail together.
    """
    system = [turn for turn in request.messages[:1] if turn.role == "system"]
    alone = replace(request, messages=(*system, Message("user", "")))
    is_only = len(questions) == 1
    requests = [_question_request(request, question, is_only=is_only) for question in questions]
    requests += [_question_request(alone, question, is_only=True) for question in questions]
    tasks = [asyncio.ensure_future(ask(order)) for order in requests]
    try:
        replies = await asyncio.gather(*tasks)
    finally:
        await end(*tasks)
    shares = [
        OptionShares(_shares_beyond(reply.scores, before.scores))
        for reply, before in zip(replies, replies[len(questions) :], strict=False)
    ]
    used = [reply.usage for reply in replies]
    return shares, Usage(
        sum(usage.prompt_tokens for usage in used),
        sum(usage.prompt_reused_tokens for usage in used),
        sum(usage.completion_tokens for usage in used),
    )


def _shares_beyond(scores: Sequence[AnswerScore], before: Sequence[AnswerScore]) -> list[float]:
    pairs = zip(scores, before, strict=True)
    return answer_shares([AnswerScore(score.logprob - prior.logprob) for score, prior in pairs])


def _question_request(
    request: ChatRequest, question: OptionQuestion, *, is_only: bool
) -> ChatRequest:
    taught = [
        Message(role, text)
        for example in question.examples
        for role, text in zip(("user", "assistant"), example, strict=True)
    ]
    turns = [*request.messages]
    n_system = int(turns[0].role == "system") if turns else 0
    turns[n_system:n_system] = taught
    place = with_beginning if is_only or taught else with_ending
    messages = tuple(place(turns, question.words))
    params = {"max_tokens": 1}  # the pool makes room for what tells the options apart
    options = question.options
    return replace(request, messages=messages, params=params, think=False, answers=options)
