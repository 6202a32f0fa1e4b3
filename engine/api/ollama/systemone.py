"""POST /v1/systemone, Ollama's questions about a state: choice, noul (true or not), score."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.body_models import refused
from paddock.engine.api.json_body import read_json
from paddock.engine.api.streaming import json_response, while_connected
from paddock.engine.option_scoring import MOST_OPTIONS, MOST_QUESTIONS, OptionQuestion, OptionShares
from paddock.engine.request import ChatRequest, Message
from paddock.engine.system.text import text_or_json

from .requests import OllamaBody, read_model_request

_Content = str | dict[str, Any] | list[Any]
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
    def question(self) -> OptionQuestion:
        instructions, described = text_or_json(self.instructions), self._described
        if self.type == "noul":
            return OptionQuestion.of_statement(instructions, *described.values())
        return OptionQuestion.of(instructions, [*described.items()])

    def answer(self, scored: OptionShares) -> dict[str, Any]:
        if self.type == "noul":
            return {"type": self.type, "noul": scored.shares[1]}
        described = self._described
        found = {
            "probabilities": dict(zip(described, scored.shares, strict=True)),
            "confidence": scored.confidence,
        }
        if self.type == "score":
            return {"type": self.type, "score": scored.mean_place, "legend": described, **found}
        return {"type": self.type, "choice": [*described][scored.likeliest], **found}


class _SystemOneBody(OllamaBody):
    state: _Content
    questions: dict[str, _StateQuestion] = Field(min_length=1, max_length=MOST_QUESTIONS)


async def answer_questions(request: Request) -> Response:
    body = _SystemOneBody.read(await read_json(request))
    model_request = await read_model_request(request, body, "chat")
    about = (Message("user", text_or_json(body.state)),)
    chat = ChatRequest(model_request.spec, about, priority=model_request.priority)
    questions = [entry.question for entry in body.questions.values()]
    scoring = model_request.service.pool.score_options(chat, questions, waits=False)
    scored, used = await while_connected(request, scoring)
    pairs = zip(body.questions.items(), scored, strict=True)
    answers = {name: entry.answer(shares) for (name, entry), shares in pairs}
    usage = {"input_tokens": used.prompt_tokens, "output_tokens": used.completion_tokens}
    return json_response({"model": model_request.model, "answers": answers, "usage": usage})
