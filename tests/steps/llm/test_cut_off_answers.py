"""Nothing of an answer that ended at its limit is lost without a word."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest, ModelFacts, ModelSpec, Reply
from paddock.engine.system.records import replace
from paddock.pipelines.expressions import Template
from paddock.pipelines.keys import SamplingParams
from paddock.steps.base import StepError
from paddock.steps.llm.agent import Agent, AgentParams
from paddock.steps.llm.chat import Chat, ChatOutput, ChatParams
from paddock.steps.llm.summarise import Summarise, SummariseParams
from tests.fakes.form import FakeForm
from tests.fakes.pool import FakePool
from tests.fakes.tools import FakeTools, tools
from tests.fakes.toolset import FakeToolset

WHOLE = " ".join(f"w{n}" for n in range(60))
CALCULATOR = FakeToolset({"calculator": lambda args: args["x"]})
PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def going_on(request: ChatRequest) -> str:
    """Answer with what is left of the whole answer after the text that it begins with."""
    last = request.messages[-1]
    return WHOLE.removeprefix(last.content) if last.role == "assistant" else WHOLE


class ElsewherePool(FakePool):
    async def facts(self, model: ModelSpec) -> ModelFacts:
        return replace(await super().facts(model), path="https://models.example/v1")


class ClosingPool(FakePool):
    """Closes an answer in its form two tokens before a limit below 100."""

    async def answer_to(self, request: ChatRequest) -> Reply:
        reply = await super().answer_to(request)
        limit = request.params["max_tokens"]
        usage = replace(reply.usage, completion_tokens=min(limit - 2, 98))
        return replace(reply, is_shortened=limit < 100, usage=usage)


def hands(pool: FakePool) -> FakeTools:
    return tools(Path.cwd(), pool=pool)


def chat(given: FakeTools, max_tokens: int | None = 10, **wishes: Any) -> ChatOutput:
    params = SamplingParams() if max_tokens is None else SamplingParams(max_tokens=max_tokens)
    asked = ChatParams(prompt=Template.of("Go on."), params=params, **wishes)
    return asyncio.run(Chat().run(asked, given))


def limits(pool: FakePool) -> list[int]:
    return [request.params["max_tokens"] for request in pool.chats]


def test_an_answer_that_ended_at_its_limit_is_kept_and_counted() -> None:
    given = hands(FakePool(answer=going_on))
    assert chat(given).text == " ".join(f"w{n}" for n in range(10))
    assert given.notes == ["answer ended at `max_tokens` (10)"]
    whole = hands(FakePool(answer=going_on))
    assert chat(whole, 100).text == WHOLE
    assert whole.notes == []


def test_an_answer_that_its_form_closed_at_the_limit_is_counted_refused_or_asked_again() -> None:
    form = FakeForm(PERSON)

    def closing() -> FakeTools:
        return replace(hands(ClosingPool(answer=lambda _: '{"name": "A"}')), reply=form)

    kept = closing()
    assert chat(kept, 60).output == {"name": "A"}
    assert kept.notes == ["answer ended at `max_tokens` (60)"]
    with pytest.raises(StepError, match="`on_truncated` is `error`"):
        chat(closing(), 60, on_truncated="error")
    again = closing()
    assert chat(again, 60, on_truncated="continue").output == {"name": "A"}
    assert limits(again.chats) == [60, 120]
    assert again.notes == []


@pytest.mark.parametrize("max_tokens", [7, 10, 30, 59, 60])
def test_an_answer_is_continued_where_it_ended_and_joined_without_loss(max_tokens: int) -> None:
    pool = FakePool(answer=going_on)
    given = hands(pool)
    out = chat(given, max_tokens, on_truncated="continue")
    n_calls = -(-60 // max_tokens)
    assert out.text == WHOLE
    assert given.notes == []
    assert (out.usage.calls, len(pool.chats)) == (n_calls, n_calls)
    assert out.usage.completion_tokens == 60
    begun = [request.messages[-1].content for request in pool.chats[1:]]
    assert all(WHOLE.startswith(text) for text in begun)


def test_it_is_continued_at_most_eight_times_and_then_kept_and_counted() -> None:
    pool = FakePool(answer=going_on)
    given = hands(pool)
    out = chat(given, 2, on_truncated="continue")
    assert out.text == " ".join(f"w{n}" for n in range(18))
    assert len(pool.chats) == 9
    assert given.notes == ["answer ended at `max_tokens` (2), even with more room"]


def test_it_is_continued_within_the_context() -> None:
    pool = FakePool(answer=going_on, n_ctx_tokens=50)
    given = hands(pool)
    out = chat(given, 20, on_truncated="continue")
    assert WHOLE.startswith(out.text)
    assert 30 <= len(out.text.split()) <= 50
    assert given.notes == ["answer ended at `max_tokens` (20), even with more room"]


def test_without_a_limit_of_its_author_it_is_continued_past_the_usual_one() -> None:
    given = hands(FakePool(answer=going_on, n_ctx_tokens=160))
    assert chat(given, None, on_truncated="continue").text == WHOLE


def test_a_model_on_another_server_is_asked_again_with_more_room() -> None:
    pool = ElsewherePool(answer=going_on)
    assert chat(hands(pool), 10, on_truncated="continue").text == WHOLE
    assert limits(pool) == [10, 20, 40, 80]
    assert {request.messages for request in pool.chats} == {pool.chats[0].messages}


def test_a_summary_that_ended_at_its_limit_is_asked_for_again_with_more_room() -> None:
    def run(n_tokens: int) -> tuple[str, FakeTools]:
        given = hands(FakePool(answer=lambda _: WHOLE))
        params = SummariseParams(text="The cat sat.", params=SamplingParams(max_tokens=n_tokens))
        return asyncio.run(Summarise().run(params, given)).text, given

    text, given = run(40)
    assert (text, given.notes, limits(given.chats)) == (WHOLE, [], [40, 80])
    text, given = run(10)
    assert (len(text.split()), limits(given.chats)) == (20, [10, 20])
    assert given.notes == ["answer ended at `max_tokens` (10), even with more room"]


def test_an_agents_answer_is_counted_or_refused() -> None:
    def run(**wishes: Any) -> FakeTools:
        given = hands(FakePool(answer=lambda _: WHOLE))
        prompt, params = Template.of("What is it?"), SamplingParams(max_tokens=10)
        asked = AgentParams(prompt=prompt, tools=["calculator"], params=params, **wishes)
        asyncio.run(
            Agent().run(asked, replace(given, calls=replace(given.calls, toolset=CALCULATOR)))
        )
        return given

    assert run().notes == ["answer ended at `max_tokens` (10)"]
    with pytest.raises(StepError, match="`on_truncated` is `error`"):
        run(on_truncated="error")
