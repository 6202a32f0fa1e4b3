"""POST /v1/systemone, Ollama's questions about a state: choice, noul (true or not), score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.body_models import refused
from paddock.engine.api.decisions import (
    MOST_OPTIONS,
    MOST_QUESTIONS,
    AskedQuestion,
    Kind,
    OptionShares,
    decide_questions,
    text_of,
)
from paddock.engine.api.json_body import read_json
from paddock.engine.api.streaming import json_response, while_connected
from paddock.engine.request import ChatRequest, Message

from .requests import OllamaBody, read_model_request

_Content = str | dict[str, Any] | list[Any]
_KINDS: Mapping[str, Kind] = {"choice": "choice", "noul": "statement", "score": "score"}
_FALSE_AND_TRUE = ("false", "true")


class _StateQuestion(OllamaBody):
    type: Literal["choice", "noul", "score"]
    instructions: _Content
    criteria: dict[str, str | None] | list[str] = Field(
        default_factory=dict, max_length=MOST_OPTIONS
    )

    @model_validator(mode="after")
    def _is_answerable(self) -> _StateQuestion:
        is_list = isinstance(self.criteria, list)
        if is_list != (self.type == "score"):
            raise refused(f"`criteria` of a {self.type} is {'no list' if is_list else 'a list'}.")
        if self.type == "noul" and not {*self.criteria} <= {*_FALSE_AND_TRUE}:
            raise refused("`criteria` of a noul are `false` and `true`.")
        if not self.question.is_answerable:
            raise refused("it needs at least two `criteria`, each another one and none empty.")
        return self

    @property
    def _described(self) -> dict[str, str]:
        if isinstance(self.criteria, list):
            return {str(place): words for place, words in enumerate(self.criteria)}
        names = _FALSE_AND_TRUE if self.type == "noul" else tuple(self.criteria)
        return {name: self.criteria.get(name) or "" for name in names}

    @property
    def question(self) -> AskedQuestion:
        options = [*self._described.items()]
        return AskedQuestion.of(_KINDS[self.type], text_of(self.instructions), options)

    def answer(self, decision: OptionShares) -> dict[str, Any]:
        if self.type == "noul":
            return {"type": self.type, "noul": decision.shares[1]}
        described = self._described
        found = {
            "probabilities": dict(zip(described, decision.shares, strict=True)),
            "confidence": decision.confidence,
        }
        if self.type == "score":
            return {"type": self.type, "score": decision.score, "legend": described, **found}
        return {"type": self.type, "choice": [*described][decision.likeliest], **found}


class _SystemOneBody(OllamaBody):
    state: _Content
    questions: dict[str, _StateQuestion] = Field(min_length=1, max_length=MOST_QUESTIONS)


async def decide(request: Request) -> Response:
    body = _SystemOneBody.read(await read_json(request))
    model_request = await read_model_request(request, body, "chat")
    about = (Message("user", text_of(body.state)),)
    chat = ChatRequest(model_request.spec, about, priority=model_request.priority)
    questions = [entry.question for entry in body.questions.values()]
    deciding = decide_questions(model_request.service.pool, chat, questions, waits=False)
    decisions, used = await while_connected(request, deciding)
    pairs = zip(body.questions.items(), decisions, strict=True)
    answers = {name: entry.answer(decision) for (name, entry), decision in pairs}
    usage = {"input_tokens": used.prompt_tokens, "output_tokens": used.completion_tokens}
    return json_response({"model": model_request.model, "answers": answers, "usage": usage})
