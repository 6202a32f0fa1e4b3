"""Which call the confidence of a step belongs to: the one that gave the answer."""

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest, Reply, TokenLogprob
from paddock.engine.system.records import replace
from paddock.pipelines.expressions import Template
from paddock.steps.base import Step
from paddock.steps.llm.agent import Agent
from paddock.steps.llm.chat import Chat
from paddock.steps.llm.confidence import N_ALTERNATIVES
from paddock.steps.llm.reduce import Reduce
from paddock.steps.llm.summarise import Summarise
from tests.fakes.form import FakeForm
from tests.fakes.pool import FakePool
from tests.fakes.tools import tools
from tests.fakes.toolset import FakeToolset

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
LONG = "\n\n".join(f"Paragraph {number} says what the one before said." for number in range(120))


class Counting(FakePool):
    """Its n-th answer by a schema is `{"n": n}`, and less sure each time."""

    n_formed = 0

    async def answer_to(self, request: ChatRequest) -> Reply:
        reply = await super().answer_to(request)
        if request.constraint is None:
            return replace(reply, text="A note.")
        self.n_formed += 1
        text, sure = f'{{"n":{self.n_formed}}}', math.log(1 / (1 + self.n_formed))
        spelled = {text[:5]: 0.0, text[5:-1]: sure, "}": 0.0}
        logprobs = tuple(TokenLogprob(one.encode(), p) for one, p in spelled.items())
        return replace(reply, text=text, logprobs=logprobs if request.n_logprobs else ())


def carried_out(
    step: Step[Any, Any], params: dict[str, Any], form: FakeForm, pool: FakePool
) -> Any:
    toolset = FakeToolset({"calculator": lambda args: args["x"]})
    hands = replace(tools(Path(), pool=pool, toolset=toolset), reply=form)
    return asyncio.run(step.run(step.params(**params), hands))


STEPS: dict[str, tuple[Any, dict[str, Any]]] = {
    "chat": (Chat(), {"prompt": Template.of("How many?").bound({})}),
    "chat, map-reduce": (
        Chat(),
        {
            "prompt": Template.of("{{ text }} How many?").bound({"text": LONG}),
            "on_overflow": "map-reduce",
        },
    ),
    "summarise": (Summarise(), {"text": "A short text."}),
    "summarise, map-reduce": (Summarise(), {"text": LONG}),
    "summarise, refine": (Summarise(), {"text": LONG, "on_overflow": "refine"}),
    "reduce": (
        Reduce(),
        {
            "over": [f"item {n}" for n in range(20)],
            "prompt": Template.of("All?").bound({}),
            "fanin": 4,
        },
    ),
    "agent": (Agent(), {"prompt": Template.of("How many?").bound({}), "tools": ["calculator"]}),
}


@pytest.mark.parametrize("name", STEPS)
def test_the_last_answer_of_a_step_has_confidence(name: str) -> None:
    step, params = STEPS[name]
    pool = Counting(n_ctx_tokens=900)
    out = carried_out(step, params, FakeForm(SCHEMA, wants_confidence=True), pool)
    assert out.output == {"n": pool.n_formed}
    assert out.confidence["n"]["p"] == round(1 / (1 + pool.n_formed), 4)
    asked = [request.n_logprobs for request in pool.chats]
    assert asked == [None] * (len(asked) - 1) + [N_ALTERNATIVES], "notes need none"


def test_unasked_for_there_is_none() -> None:
    pool = Counting()
    out = carried_out(Chat(), STEPS["chat"][1], FakeForm(SCHEMA), pool)
    assert out.confidence is None
    assert pool.chats[0].n_logprobs is None
