"""Decisions over HTTP: questions about one input, each answered by probabilities, no text.

OpenAI's `/v1/decisions` and Ollama's `/v1/systemone` ask the same: a choice among options, whether
a statement holds, a score on ordered levels.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Literal

from paddock.engine.backends.local import LocalPool
from paddock.engine.decisions import OptionQuestion, decision_request, option_list
from paddock.engine.request import ChatRequest, Reply, answer_shares
from paddock.engine.system.records import record

MOST_QUESTIONS, MOST_OPTIONS = 400, 255  # as OpenAI's
QuestionKind = Literal["choice", "predicate", "noul", "score"]


@record(frozen=True, slots=True)
class AskedQuestion:
    name: str | None
    kind: QuestionKind
    options: tuple[str, ...]
    """Of a statement: that it is false, and that it is true."""
    instructions: str
    descriptions: tuple[str, ...] = ()

    def question(self) -> OptionQuestion:
        listed = option_list(self.options, self.descriptions)
        return OptionQuestion(self.options, f"{self.instructions}\n\n{listed}")


def text_of(value: Any) -> str:
    """Return a text, or any other value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


async def ask_questions(
    pool: LocalPool, request: ChatRequest, questions: Sequence[AskedQuestion], *, waits: bool
) -> list[Reply]:
    """Return a reply for each question about the messages of `request`; all fail together.

    A full queue refuses them as a whole: only the first can be refused.
    """
    is_only = len(questions) == 1
    answers = [
        pool.chat(
            decision_request(request, entry.question(), is_only=is_only), waits=waits or number > 0
        )
        for number, entry in enumerate(questions)
    ]
    try:
        return list(await asyncio.gather(*(answer.reply() for answer in answers)))
    finally:
        for answer in answers:
            answer.cancel()


def shares_of(replies: Sequence[Reply]) -> list[list[float]]:
    return [answer_shares(reply.scores) for reply in replies]


def expected_place(shares: Sequence[float]) -> float:
    """Return the mean level of a score; the lowest is 0."""
    return sum(place * share for place, share in enumerate(shares))
