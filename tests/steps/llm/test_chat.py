import asyncio
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from paddock.engine.errors import PromptTooLong
from paddock.engine.request import ChatRequest, Message, ModelSpec, Reply, ToolCall
from paddock.engine.system.records import replace
from paddock.pipelines.expressions import Template
from paddock.pipelines.keys import SamplingParams
from paddock.steps.base import StepError
from paddock.steps.llm.chat import Chat, ChatOutput, ChatParams
from paddock.steps.llm.tool_protocol import ChatTool
from tests.fakes.pool import FakePool, count, saying
from tests.fakes.tools import FakeModels, tools
from tests.fakes.toolset import FakeToolset


def chat(pool: FakePool, models: FakeModels | None = None, **wishes: Any) -> ChatOutput:
    hands = tools(Path.cwd(), pool=pool, models=models)
    return asyncio.run(Chat().run(ChatParams(**wishes), hands))


def test_a_prompt_with_a_system_text_becomes_two_messages() -> None:
    pool = saying("Hello Ada.")
    out = chat(
        pool,
        prompt=Template.of("Greet {{ who }}."),
        system=Template.of("Be {{ how }}."),
        vars={"who": "Ada", "how": "brief"},
        model="writer",
        params={"temperature": 0.5, "num_predict": 9},
    )
    [request] = pool.chats
    assert request.messages == (Message("system", "Be brief."), Message("user", "Greet Ada."))
    assert request.model == ModelSpec("writer")
    assert request.params == {"temperature": 0.5, "max_tokens": 9}
    assert request.priority == "batch"
    assert out.model_dump(exclude_defaults=True) == {
        "text": "Hello Ada.",
        "usage": {"calls": 1, "prompt_tokens": 12, "completion_tokens": 2},
    }


def test_what_a_model_thinks_and_wants_called_stands_next_to_its_text() -> None:
    class Thinking(FakePool):
        async def answer_to(self, request: ChatRequest) -> Reply:
            call = ToolCall("look", {"where": "here"}, "c1")
            return replace(await super().answer_to(request), reasoning="Hm.", tool_calls=(call,))

    out = chat(Thinking(answer=lambda _: "Yes."), prompt=Template.of("Is it?"))
    assert (out.text, out.reasoning) == ("Yes.", "Hm.")
    assert out.tool_calls == [{"name": "look", "arguments": {"where": "here"}, "id": "c1"}]
    models = FakeModels({"chat": ModelSpec("writer", keeps_reasoning=False)})
    dropped = chat(Thinking(answer=lambda _: "Yes."), models, prompt=Template.of("Is it?"))
    assert (dropped.text, dropped.reasoning) == ("Yes.", None)


def test_a_prompt_that_does_not_fit_is_an_error_with_the_numbers() -> None:
    pool = FakePool(n_ctx_tokens=400)
    with pytest.raises(PromptTooLong) as caught:
        chat(pool, prompt="word " * 500)
    error = caught.value
    assert (error.n_prompt_tokens, error.n_reserved_tokens, error.n_ctx_tokens) == (504, 100, 400)
    assert pool.chats == []


def test_truncating_keeps_both_ends_and_says_how_much_went() -> None:
    pool = FakePool(n_ctx_tokens=400)
    hands = tools(Path.cwd(), pool=pool)
    text = "Document. " + "word " * 500 + "Now summarise."
    params = ChatParams(
        prompt=Template.of(text), system=Template.of("Be brief."), on_overflow="truncate"
    )
    out = asyncio.run(Chat().run(params, hands))
    sent = pool.chats[0].messages[1].content
    assert sent.startswith("Document. word")
    assert sent.endswith("Now summarise.")
    assert "[…]" in sent
    assert 280 <= count(sent) <= 290
    cut = out.usage.characters_cut
    assert cut == len(text) - (len(sent) - len("\n[…]\n"))
    assert hands.notes == [
        f"the prompt does not fit: {cut:,} of its {len(text):,} characters were left out of the "
        "middle (on_overflow: truncate)."
    ]


def test_an_answer_that_went_in_circles_is_an_error_unless_a_limit_was_set() -> None:
    class Circling(FakePool):
        async def answer_to(self, request: ChatRequest) -> Reply:
            return replace(await super().answer_to(request), done_reason="repetition")

    with pytest.raises(StepError) as caught:
        chat(Circling(), prompt="Go on.")
    assert str(caught.value) == (
        "the answer repeated itself and was ended after 3 tokens. "
        "Raise `repeat_penalty`, or set `max_tokens` under `params` to accept it."
    )
    hands = tools(Path.cwd(), pool=Circling())
    params = ChatParams(prompt=Template.of("Go on."), params=SamplingParams(max_tokens=30))
    assert asyncio.run(Chat().run(params, hands)).text
    assert hands.notes == ["answer ended in a repetition"]


def test_a_cancelled_step_cancels_its_request() -> None:
    cancelled: list[bool] = []

    class Watched(FakePool):
        def chat(self, request: Any) -> Any:
            stream = super().chat(request)
            stream.cancel = lambda: cancelled.append(True)  # type: ignore[method-assign]
            return stream

    async def start_and_stop() -> None:
        hands = tools(Path.cwd(), pool=Watched(delay_s=60))
        task = asyncio.create_task(Chat().run(ChatParams(prompt=Template.of("Go on.")), hands))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(start_and_stop())
    assert cancelled == [True]


@pytest.mark.parametrize(
    ("wishes", "fault"),
    [
        ({}, "Give exactly one of `prompt`, `messages`."),
        ({"prompt": "a", "messages": []},
         "Give exactly one of `prompt`, `messages`, not `prompt` and `messages`."),
        ({"messages": [{"role": "user", "content": "a"}], "on_overflow": "refine"},
         "`on_overflow: refine` needs `prompt`: it divides the longest text that the prompt "
         "inserts"),
        ({"prompt": "a", "tools": ["now"], "on_overflow": "map-reduce"},
         "`on_overflow: map-reduce` cannot be combined with `images` or `tools`"),
        ({"prompt": "a", "tool_choice": "required"}, "`tool_choice: required` needs `tools`"),
        ({"prompt": "a", "tools": [{}]}, "a tool needs `name`, `server` or both"),
        ({"prompt": "a", "tools": [{"server": "s", "parameters": {}}]},
         "`parameters` describe a tool of your own: it takes only a `name`"),
        ({"prompt": "a", "params": {"temperature": -1}}, "greater than or equal to 0"),
        ({"prompt": "a", "params": {"max_token": 3}}, "Extra inputs are not permitted"),
        ({"prompt": "a", "params": {"max_tokens": 3, "num_predict": 3}},
         "give `max_tokens` or `num_predict`, not both: they mean the same"),
        ({"messages": [{"role": "robot", "content": ""}]}, "'system', 'user' or 'assistant'"),
    ],
)  # fmt: skip
def test_impossible_wishes_are_faults(wishes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ChatParams(**wishes)
    assert fault in str(caught.value)


WEATHER = {
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def test_a_model_may_ask_for_tools_that_no_one_calls() -> None:
    call = ToolCall("weather", {"city": "Bonn"}, "xyz")
    pool = FakePool(answer=lambda _: [call])
    out = chat(pool, prompt="Is it fine in Bonn?", tools=[WEATHER], tool_choice="required")
    assert out.tool_calls == [{"name": "weather", "arguments": {"city": "Bonn"}, "id": "call_1"}]
    [request] = pool.chats
    assert request.tool_choice == "required"
    assert [tool.description for tool in request.tools] == ["Tells the weather."]


def test_tools_that_are_there_are_asked_for_by_their_own_names() -> None:
    toolset = FakeToolset({"files.read": str, "list.all": str})
    pool = FakePool(answer=lambda _: [ToolCall("files_read", {"x": "a"}), ToolCall("all", {})])
    hands = tools(Path.cwd(), pool=pool, toolset=toolset)
    params = ChatParams(prompt=Template.of("Read."), tools=["files.read", ChatTool(server="list")])
    out = asyncio.run(Chat().run(params, hands))
    assert out.tool_calls == [
        {"name": "files.read", "arguments": {"x": "a"}, "id": "call_1"},
        {"name": "all", "arguments": {}, "id": "call_2", "server": "list"},
    ]
    assert toolset.called == []


def test_pictures_are_shown_with_the_last_words_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"one")
    (tmp_path / "b.png").write_bytes(b"two")
    pool = saying("A cat.")
    params = ChatParams(prompt=Template.of("What is it?"), images=["a.png", "b.png"])
    asyncio.run(Chat().run(params, tools(tmp_path, pool=pool)))
    assert pool.chats[0].messages == (Message("user", "What is it?", images=(b"one", b"two")),)
    assert Chat().reads(params) == ["a.png", "b.png"]


# In parts


def in_parts(
    how: Literal["map-reduce", "refine"], pool: FakePool, text: str, **sampling: Any
) -> tuple[ChatOutput, list[str]]:
    hands = tools(Path.cwd(), pool=pool)
    prompt = Template.of("Which ferries are in it?\n{{ text }}\nName them.").bound({"text": text})
    params = ChatParams(prompt=prompt, on_overflow=how, params=SamplingParams(**sampling))
    return asyncio.run(Chat().run(params, hands)), hands.notes


TEXT = " ".join(f"word{number}" for number in range(1000))


def words_of(pool: FakePool) -> list[str]:
    """Return the words of the text in the order in which the model was shown them."""
    return [
        word for chat in pool.chats for word in re.findall(r"word\d+", chat.messages[0].content)
    ]


def test_a_prompt_that_does_not_fit_is_asked_for_each_part_of_its_longest_text() -> None:
    pool = FakePool(n_ctx_tokens=400, answer=lambda request: "none here")
    out, notes = in_parts("map-reduce", pool, TEXT)
    assert words_of(pool) == TEXT.split()
    *parts, last = [chat.messages[0].content for chat in pool.chats]
    assert parts[1].startswith(f"Which ferries are in it?\n[Part 2 of {len(parts)}]\nword")
    assert all(part.endswith("\nName them.") for part in parts)
    assert last.startswith(
        f"Which ferries are in it?\n[Answer from part 1 of {len(parts)}]\nnone here\n\n"
    )
    assert out.text == "none here"
    assert out.usage.calls == len(parts) + 1
    assert notes == [
        f"the prompt does not fit: its longest text was read in {len(parts)} parts "
        "(on_overflow: map-reduce)."
    ]


def test_refining_takes_one_answer_from_part_to_part() -> None:
    pool = FakePool(n_ctx_tokens=400, answer=lambda request: f"answer {len(pool.chats)}")
    out, _ = in_parts("refine", pool, TEXT)
    assert words_of(pool) == TEXT.split()
    assert "[Answer so far]\nanswer 1\n\n[Part 2 of" in pool.chats[1].messages[0].content
    assert out.text == f"answer {len(pool.chats)}"


DIVIDED = Template.of("Which?\n{{ text }}\nName them.").bound({"text": TEXT})


@pytest.mark.parametrize(
    ("wishes", "answer", "kind", "sentence"),
    [
        ({"prompt": "Go on."}, "again " * 300, "check",
         "the answer ended at its limit of 100 tokens. Ask for a shorter one, raise "
         "`repeat_penalty` if it repeats itself, or set `max_tokens` under `params` to accept it."),
        ({"prompt": DIVIDED, "on_overflow": "map-reduce", "params": {"max_tokens": 200}},
         "Donaudampfschifffahrt " * 150, "check", "the answers to the parts do not get shorter"),
        ({"prompt": "word " * 500, "on_overflow": "map-reduce"}, "x", "other",
         "the prompt has 504 tokens and 100 are reserved for the answer"),
        ({"prompt": "word " * 500, "on_overflow": "map-reduce"}, "x", "other",
         "and no text in it can be divided. The longest text that `prompt` takes from elsewhere as "
         "it is, such as `{{ steps.text.text }}`, is what is read in parts."),
        ({"system": "a", "messages": [{"role": "system", "content": "b"}]}, "x", "other",
         "`system` is set, but `messages[0]` is already a system message"),
        ({"prompt": "What?", "images": ["none.png"]}, "x", "io",
         "cannot be read: it does not exist."),
        ({"prompt": "What?", "images": ["../../etc/passwd"]}, "x", "other",
         "leads outside the pipeline's folders"),
        ({"prompt": "What?", "images": ["."]}, "x", "io", "cannot be read: it is a folder."),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_or_answered_is_a_sentence(
    tmp_path: Path, wishes: dict[str, Any], answer: str, kind: str, sentence: str
) -> None:
    hands = tools(tmp_path, pool=FakePool(n_ctx_tokens=400, answer=lambda _: answer))
    with pytest.raises(StepError) as caught:
        asyncio.run(Chat().run(ChatParams(**wishes), hands))
    assert (sentence in str(caught.value), caught.value.kind) == (True, kind)
