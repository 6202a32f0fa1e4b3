"""POST /v1/decisions: body → questions, replies → `decision`. Pure but for the pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from paddock.engine.api.body_models import Items, Needed, TextOr, invalid_value
from paddock.engine.api.decisions import (
    MOST_OPTIONS,
    MOST_QUESTIONS,
    AskedQuestion,
    ask_questions,
    expected_place,
    shares_of,
    text_of,
)
from paddock.engine.api.errors import openai_errors
from paddock.engine.backends.local import LocalPool
from paddock.engine.request import ChatRequest, Message, Reply, with_tool_names

from .input_messages import InputItem, InputTextPart, JsonPart, input_messages, text_and_images
from .requests import ApiCaller, ModelBody, OpenAIBody

Body = dict[str, Any]


class _DecisionChoice(OpenAIBody):
    value: str | bool
    description: str = ""


class _DecisionLevel(OpenAIBody):
    label: Needed
    description: str = ""


class _NamedQuestion(OpenAIBody):
    name: str | None = None
    instructions: TextOr[Annotated[InputTextPart | JsonPart, Field(discriminator="type")]]

    @property
    def words(self) -> str:
        return text_and_images(self.instructions)[0]


class _Predicate(_NamedQuestion):
    type: Literal["predicate"]

    def as_question(self) -> AskedQuestion:
        words = f"Is this true of it? {self.words}"
        return AskedQuestion(self.name, "predicate", ("no", "yes"), words)

    def answer(self, shares: Sequence[float]) -> Body:
        return {"type": "predicate", "name": self.name, "probability": shares[1]}


class _ChoiceQuestion(_NamedQuestion):
    type: Literal["choice"]
    choices: Items[_DecisionChoice] = Field((), max_length=MOST_OPTIONS)

    def as_question(self) -> AskedQuestion:
        options = tuple(text_of(choice.value) for choice in self.choices)
        described = tuple(choice.description for choice in self.choices)
        return AskedQuestion(self.name, "choice", options, self.words, described)

    def answer(self, shares: Sequence[float]) -> Body:
        values = [choice.value for choice in self.choices]
        return {
            "type": "choice",
            "name": self.name,
            "choice": values[shares.index(max(shares))],
            "confidence": max(shares),
            "probabilities": [
                {"value": value, "probability": share}
                for value, share in zip(values, shares, strict=True)
            ],
        }


class _ScoreQuestion(_NamedQuestion):
    type: Literal["score"]
    levels: Items[_DecisionLevel] = Field((), max_length=MOST_OPTIONS)

    def as_question(self) -> AskedQuestion:
        options = tuple(level.label for level in self.levels)
        described = tuple(level.description for level in self.levels)
        return AskedQuestion(self.name, "score", options, self.words, described)

    def answer(self, shares: Sequence[float]) -> Body:
        return {
            "type": "score",
            "name": self.name,
            "score": expected_place(shares),
            "confidence": max(shares),
            "probabilities": [
                {"label": level.label, "value": place, "probability": share}
                for place, (level, share) in enumerate(zip(self.levels, shares, strict=True))
            ],
        }


_DecisionQuestion = Annotated[
    _Predicate | _ChoiceQuestion | _ScoreQuestion, Field(discriminator="type")
]


class DecisionBody(ModelBody):
    input: TextOr[InputItem]
    questions: Items[_DecisionQuestion] = Field((), min_length=1, max_length=MOST_QUESTIONS)


def read_decision(fields: Mapping[str, Any], caller: ApiCaller) -> DecisionBody:
    body = DecisionBody.read(fields)
    for number, question in enumerate(body.questions):
        options = question.as_question().options
        if len(set(options)) < max(2, len(options)) or not all(map(str.strip, options)):
            what = "it needs at least two options, each another one and none empty."
            raise invalid_value(f"questions[{number}]", what)
    return body


async def run_decision(pool: LocalPool, body: DecisionBody, caller: ApiCaller) -> Body:
    """Return the answers; raise ApiError with OpenAI's texts."""
    if isinstance(body.input, str):
        messages: tuple[Message, ...] = (Message("user", body.input),)
    else:
        messages = with_tool_names(input_messages(body.input))
    request = ChatRequest(
        body.spec("chat"), messages, priority=caller.priority, truncates=body.truncates
    )
    questions = [question.as_question() for question in body.questions]
    with openai_errors():
        replies = await ask_questions(pool, request, questions, waits=caller.waits)
    shares = shares_of(replies)
    answers = [entry.answer(of) for entry, of in zip(body.questions, shares, strict=True)]
    return {"model": body.model, "answers": answers, "usage": _usage_value(replies)}


def _usage_value(replies: Sequence[Reply]) -> Body:
    n_input = sum(reply.usage.prompt_tokens for reply in replies)
    n_output = sum(reply.usage.completion_tokens for reply in replies)
    n_cached = sum(reply.usage.prompt_reused_tokens for reply in replies)
    return {
        "input_tokens": n_input,
        "input_tokens_details": {"cached_tokens": n_cached, "cache_write_tokens": 0},
        "output_tokens": n_output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": n_input + n_output,
    }
