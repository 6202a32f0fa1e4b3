"""POST /v1/systemone, Ollama's questions about a state: choice, noul (true or not), score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.decisions import (
    MOST_OPTIONS,
    MOST_QUESTIONS,
    AskedQuestion,
    ask_questions,
    expected_place,
    shares_of,
    text_of,
)
from paddock.engine.api.json_body import read_json
from paddock.engine.api.streaming import json_response, while_connected
from paddock.engine.request import ChatRequest, Message

from .requests import OllamaBody, read_model_request

_Content = str | dict[str, Any] | list[Any]


class _StateChoice(OllamaBody):
    type: Literal["choice"]
    instructions: _Content
    criteria: dict[str, str | None] = Field(min_length=2, max_length=MOST_OPTIONS)

    def as_question(self, name: str) -> AskedQuestion:
        described = tuple(words or "" for words in self.criteria.values())
        options = tuple(self.criteria)
        return AskedQuestion(name, "choice", options, text_of(self.instructions), described)

    def answer(self, shares: Sequence[float]) -> dict[str, Any]:
        by_option = dict(zip(self.criteria, shares, strict=True))
        best = max(by_option, key=lambda option: by_option[option])
        return {"choice": best, "probabilities": by_option, "confidence": max(shares)}


class _StateNoul(OllamaBody):
    type: Literal["noul"]
    instructions: _Content
    criteria: dict[Literal["false", "true"], str] = Field(default_factory=dict)

    def as_question(self, name: str) -> AskedQuestion:
        described = (self.criteria.get("false", ""), self.criteria.get("true", ""))
        words = f"Is this true of it? {text_of(self.instructions)}"
        return AskedQuestion(name, "noul", ("no", "yes"), words, described)

    def answer(self, shares: Sequence[float]) -> dict[str, Any]:
        return {"noul": shares[1]}


class _StateScore(OllamaBody):
    type: Literal["score"]
    instructions: _Content
    criteria: list[str] = Field(min_length=2, max_length=MOST_OPTIONS)

    def as_question(self, name: str) -> AskedQuestion:
        options = tuple(map(str, range(len(self.criteria))))
        words = text_of(self.instructions)
        return AskedQuestion(name, "score", options, words, tuple(self.criteria))

    def answer(self, shares: Sequence[float]) -> dict[str, Any]:
        return {
            "score": expected_place(shares),
            "legend": {str(place): words for place, words in enumerate(self.criteria)},
            "probabilities": {str(place): share for place, share in enumerate(shares)},
            "confidence": max(shares),
        }


_StateQuestion = Annotated[_StateChoice | _StateNoul | _StateScore, Field(discriminator="type")]


class _SystemOneBody(OllamaBody):
    state: _Content
    questions: dict[str, _StateQuestion] = Field(min_length=1, max_length=MOST_QUESTIONS)


async def decide(request: Request) -> Response:
    body = _SystemOneBody.read(await read_json(request))
    model_request = await read_model_request(request, body, "chat")
    questions = [question.as_question(name) for name, question in body.questions.items()]
    about = (Message("user", text_of(body.state)),)
    chat = ChatRequest(model_request.spec, about, priority=model_request.priority)
    pool = model_request.service.pool
    replies = await while_connected(request, ask_questions(pool, chat, questions, waits=False))
    found = zip(body.questions.items(), shares_of(replies), strict=True)
    answers = {
        name: {"type": question.type, **question.answer(shares)}
        for (name, question), shares in found
    }
    usage = {
        "input_tokens": sum(reply.usage.prompt_tokens for reply in replies),
        "output_tokens": sum(reply.usage.completion_tokens for reply in replies),
    }
    return json_response({"model": model_request.model, "answers": answers, "usage": usage})
