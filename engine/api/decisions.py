"""Decisions over HTTP: questions about one input, each answered by probabilities, no text.

OpenAI's `/v1/decisions` and Ollama's `/v1/systemone` ask the same: a choice among options, whether
a statement holds, a score on ordered levels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from paddock.engine.backends.local import LocalPool
from paddock.engine.decisions import OptionQuestion, ask_options, option_list
from paddock.engine.request import ChatRequest, Reply, Usage
from paddock.engine.system.records import Struct

MOST_QUESTIONS, MOST_OPTIONS = 400, 255  # as OpenAI's
Kind = Literal["choice", "statement", "score"]


class AskedQuestion(Struct, frozen=True):
    kind: Kind
    instructions: str
    options: tuple[str, ...] = ()
    """Of a statement: that it is false, and that it is true."""
    descriptions: tuple[str, ...] = ()

    @classmethod
    def of(cls, kind: Kind, instructions: str, options: Sequence[tuple[str, str]]) -> AskedQuestion:
        """Return a question of options with their descriptions, which a statement may lack."""
        if kind == "statement":
            instructions = f"Is this true of it? {instructions}"
            options = [*zip(("no", "yes"), [about for _, about in options], strict=True)]
        return cls(kind, instructions, *zip(*options, strict=True))

    @property
    def is_answerable(self) -> bool:
        n_different = len({*map(str.strip, self.options)} - {""})
        return n_different == len(self.options) >= 2


class OptionShares(Struct, frozen=True):
    shares: Sequence[float]

    @property
    def likeliest(self) -> int:
        """The option's place."""
        return max(range(len(self.shares)), key=lambda place: self.shares[place])

    @property
    def confidence(self) -> float:
        return max(self.shares)

    @property
    def score(self) -> float:
        """The mean level; the lowest is 0."""
        return sum(place * share for place, share in enumerate(self.shares))


def text_of(value: Any) -> str:
    """Return a text, or any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


async def decide_questions(
    pool: LocalPool, request: ChatRequest, questions: Sequence[AskedQuestion], *, waits: bool
) -> tuple[list[OptionShares], Usage]:
    """Return how likely the options of each question about the messages of `request` are.

    A full queue refuses them as a whole: only the first can be refused.
    """
    usages = list[Usage]()
    is_first = iter((True,))

    async def ask(order: ChatRequest) -> Reply:
        reply = await pool.chat(order, waits=waits or not next(is_first, False)).reply()
        usages.append(reply.usage)
        return reply

    listed = [
        OptionQuestion(question.options, "\n\n".join((
            question.instructions, option_list(question.options, question.descriptions)
        )))
        for question in questions
    ]  # fmt: skip
    shares = await ask_options(ask, request, listed)
    counts = [(u.prompt_tokens, u.prompt_reused_tokens, u.completion_tokens) for u in usages]
    return [*map(OptionShares, shares)], Usage(*map(sum, zip(*counts, strict=True)))
