"""Option scoring on another server, by OpenAI's wire or Ollama's. Pure.

Both give a probability for each option; what is not understood is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from paddock.engine.errors import BadRequest
from paddock.engine.request import LOWEST_LOGPROB, AnswerScore, ChatRequest, Usage

_INSTRUCTIONS = "Which of these is the answer?"
_NAME = "answer"

Json = dict[str, Any]


class OptionWire(StrEnum):
    """The path where a server compares given answers."""

    OPENAI = "/v1/decisions"
    OLLAMA = "/v1/systemone"


def option_scoring_body(wire: OptionWire, model: str, request: ChatRequest) -> Json:
    """Return the body that asks for the probabilities of a request's answers.

    Raises:
        BadRequest: the wire has no place for what is asked.
    """
    if any(turn.images or turn.tool_calls or turn.role == "tool" for turn in request.messages):
        raise BadRequest("images and tools cannot be sent to a server that compares answers")
    if wire is OptionWire.OPENAI:
        turns = [{"role": turn.role, "content": turn.content} for turn in request.messages]
        choices = [{"value": option} for option in request.answers]
        question = {"type": "choice", "name": _NAME, "instructions": _INSTRUCTIONS}
        return {"model": model, "input": turns, "questions": [{**question, "choices": choices}]}
    state = "\n\n".join(turn.content for turn in request.messages)
    criteria = dict.fromkeys(request.answers)
    by_criteria: Json = {"type": "choice", "instructions": _INSTRUCTIONS, "criteria": criteria}
    return {"model": model, "state": state, "questions": {_NAME: by_criteria}}


def read_answer_scores(
    wire: OptionWire, answer: Mapping[str, Any], request: ChatRequest
) -> tuple[tuple[AnswerScore, ...], Usage]:
    """Return the scores of a request's answers, and what was computed.

    Raises:
        BadRequest: the server answers something else, or refuses the question.
    """
    try:
        answers, usage = answer["answers"], answer["usage"]
        found = answers[0] if wire is OptionWire.OPENAI else answers[_NAME]
        if found["type"] == "refusal":
            raise BadRequest("the model refused to answer")
        listed = found["probabilities"]
        if wire is OptionWire.OPENAI:
            listed = {entry["value"]: entry["probability"] for entry in listed}
        shares = [float(listed[option]) for option in request.answers]
        used = Usage(int(usage["input_tokens"]), completion_tokens=int(usage["output_tokens"]))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise BadRequest(f"the server's answer to {wire} is none: {error!r}") from None
    logs = [math.log(share) if share > 0 else LOWEST_LOGPROB for share in shares]
    return tuple(map(AnswerScore, logs)), used


def cannot_compare(place: str) -> tuple[str, str]:
    """Return what is wrong with a server that has neither wire, and a remedy."""
    what = f"{place} cannot compare given answers: it has no {' and no '.join(OptionWire)}"
    return what, "Use 'chat' with an `enum` there, or name a model of this machine"
