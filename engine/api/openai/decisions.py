"""POST /v1/decisions: body → questions, shares of options → `decision`. Pure but for the pool."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from paddock.engine.api.body_models import Items, Needed, TextOr, refused
from paddock.engine.api.errors import openai_errors
from paddock.engine.backends.local import LocalPool
from paddock.engine.option_scoring import MOST_OPTIONS, MOST_QUESTIONS, OptionQuestion, OptionShares
from paddock.engine.request import ChatRequest, Message, with_tool_names
from paddock.engine.system.text import text_or_json

from .input_messages import InputItem, InputTextPart, JsonPart, input_messages, text_and_images
from .requests import ApiCaller, ModelBody, OpenAIBody
from .responses_api import responses_usage

Body = dict[str, Any]


class _DecisionChoice(OpenAIBody):
    value: str | bool
    description: str = ""


class _DecisionLevel(OpenAIBody):
    label: Needed
    description: str = ""


class _DecisionQuestion(OpenAIBody):
    type: Literal["choice", "predicate", "score"]
    name: str | None = None
    instructions: TextOr[Annotated[InputTextPart | JsonPart, Field(discriminator="type")]]
    choices: Items[_DecisionChoice] = Field((), max_length=MOST_OPTIONS)
    levels: Items[_DecisionLevel] = Field((), max_length=MOST_OPTIONS)

    @property
    def question(self) -> OptionQuestion:
        words = text_and_images(self.instructions)[0]
        if self.type == "predicate":
            return OptionQuestion.of_statement(words)
        options = [(text_or_json(choice.value), choice.description) for choice in self.choices]
        options += [(level.label, level.description) for level in self.levels]
        return OptionQuestion.of(words, options)

    @model_validator(mode="after")
    def _is_answerable(self) -> Self:
        unused = {"choice": self.levels, "predicate": (*self.choices, *self.levels)}
        if unused.get(self.type, self.choices):
            raise refused("choices have `choices`, scores `levels`, and predicates neither.")
        if not self.question.is_answerable:
            raise refused("it needs at least two options, each another one and none empty.")
        return self

    def answer(self, scored: OptionShares) -> Body:
        head = {"type": self.type, "name": self.name}
        if self.type == "predicate":
            return {**head, "probability": scored.shares[1]}
        options: list[Body] = [{"value": choice.value} for choice in self.choices]
        options += [{"label": lev.label, "value": n} for n, lev in enumerate(self.levels)]
        pairs = zip(options, scored.shares, strict=True)
        probabilities = [{**option, "probability": share} for option, share in pairs]
        found = {"confidence": scored.confidence, "probabilities": probabilities}
        if self.type == "score":
            return {**head, "score": scored.mean_place, **found}
        return {**head, "choice": options[scored.likeliest]["value"], **found}


class DecisionBody(ModelBody):
    input: TextOr[InputItem]
    questions: Items[_DecisionQuestion] = Field((), min_length=1, max_length=MOST_QUESTIONS)


async def run_decision(pool: LocalPool, body: DecisionBody, caller: ApiCaller) -> Body:
    if isinstance(body.input, str):
        messages: tuple[Message, ...] = (Message("user", body.input),)
    else:
        messages = with_tool_names(input_messages(body.input))
    request = ChatRequest(
        body.spec("chat"), messages, priority=caller.priority, truncates=body.truncates
    )
    questions = [entry.question for entry in body.questions]
    with openai_errors():
        scored, used = await pool.score_options(request, questions, waits=caller.waits)
    answers = [entry.answer(of) for entry, of in zip(body.questions, scored, strict=True)]
    return {"model": body.model, "answers": answers, "usage": responses_usage(used)}
