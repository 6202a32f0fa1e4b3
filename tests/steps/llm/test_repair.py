"""An answer is of its form and passes its checks, or the step fails with what was wrong."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest, Message, ModelSpec, Reply, Usage
from paddock.engine.system.records import replace
from paddock.pipelines import reply_schema
from paddock.steps.base import StepError
from paddock.steps.llm.ask_and_repair import CheckedAnswer, ModelCaller, ask_checked
from paddock.steps.llm.schema_hint import schema_hint, schema_sketch, with_schema_hint
from tests.fakes.form import FakeForm as Form
from tests.fakes.pool import FakePool
from tests.fakes.tools import FakeTools, tools

PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
ASKED = [Message("system", "Be brief."), Message("user", "Who is it?")]


class Saying(FakePool):
    """A pool that says these things in turn, the last one for ever."""

    def __init__(self, *texts: str, is_shortened: bool = False, **wishes: Any) -> None:
        super().__init__(**wishes)
        self._texts, self._is_shortened = list(texts), is_shortened

    async def answer_to(self, request: ChatRequest) -> Reply:
        text = self._texts.pop(0) if len(self._texts) > 1 else self._texts[0]
        reply = await super().answer_to(request)
        return replace(reply, text=text, is_shortened=self._is_shortened)


def hands(pool: FakePool, form: Form | None = None, n_refused: int = 0) -> FakeTools:
    made = tools(Path.cwd(), pool=pool)
    return replace(made, reply=form, llm=replace(made.llm, n_refused=n_refused))


def ask(
    pool: FakePool, form: Form | None = None, messages: Sequence[Message] = ASKED, **params: Any
) -> CheckedAnswer:
    caller = ModelCaller(hands(pool, form), ModelSpec("writer"), params)
    return asyncio.run(ask_checked(caller, messages, form=form))


def test_an_answer_is_held_to_the_schema_and_told_of_it_at_the_end_of_the_prompt() -> None:
    pool = Saying('{ "name":  "Ada" }')
    answer = ask(pool, Form(PERSON))
    assert answer.output == {"name": "Ada"}
    assert answer.text == '{"name":"Ada"}'
    [request] = pool.chats
    assert request.constraint is not None
    assert json.loads(request.constraint.source) == PERSON
    assert [message.content for message in request.messages] == [
        "Be brief.",
        'Who is it?\n\nAnswer with JSON of this form: {"name": text}',
    ]


def test_what_is_wrong_is_told_to_the_model_which_answers_again() -> None:
    form = Form(PERSON, 1, lambda output, text: [] if output["name"] == "Ada" else ["Not Bob."])
    pool = Saying('{"name": "Bob"}', '{"name": "Ada"}')
    assert ask(pool, form).output == {"name": "Ada"}
    assert [(one.role, one.content) for one in pool.chats[1].messages[2:]] == [
        ("assistant", '{"name": "Bob"}'),
        ("user", "This is wrong with your answer:\n- Not Bob.\nGive the whole answer again."),
    ]


def test_after_so_many_repairs_the_step_fails_with_all_that_is_wrong() -> None:
    texts = [f"answer {n}" for n in range(9)]
    form = Form(None, 2, lambda output, text: ["Too short.", "No name."])
    pool = Saying(*texts)
    with pytest.raises(StepError) as caught:
        ask(pool, form)
    assert str(caught.value) == (
        "the answer fails its checks, even after 2 repairs. Too short. "
        "No name. It was: answer 2 Loosen `check`, raise `repair`, or ask a larger model."
    )
    assert caught.value.kind == "check"
    assert len(pool.chats) == 3


def test_a_model_that_repeats_its_answer_is_not_shown_it_again_and_then_left_alone() -> None:
    pool = Saying("no")
    with pytest.raises(StepError, match="even after 2 repairs"):
        ask(pool, Form(None, 8, lambda output, text: ["Wrong."]))
    warm = Saying("no")
    with pytest.raises(StepError, match="even after 2 repairs"):
        ask(warm, Form(None, 2, lambda output, text: ["Wrong."]), temperature=1)
    sizes = [[len(request.messages) for request in each.chats] for each in (pool, warm)]
    assert sizes == [[2, 4, 2], [2, 4, 4]], "a sampled answer may be another one"
    assert pool.chats[2].messages[-1].content == "Who is it?\n\nMind this:\n- Wrong."


def test_a_repair_that_does_not_fit_next_to_the_answer_leaves_the_answer_out() -> None:
    long = " ".join(["word"] * 60)
    form = Form(None, 1, lambda output, text: ["Wrong."] if text == long else [])
    pool = Saying(long, "fine", n_ctx_tokens=120)
    assert ask(pool, form, max_tokens=60).text == "fine"
    assert pool.chats[1].messages[-1].content == "Who is it?\n\nMind this:\n- Wrong."


NOT_HELD = "Its server does not hold answers to this schema: ask another, or raise `repair`."


@pytest.mark.parametrize(
    ("text", "sentence", "remedy"),
    [
        ("Ada", "It is not JSON.", NOT_HELD),
        ('{"name": 3}', "At /name: 3 is not of type 'string'.", NOT_HELD),
        (
            '{"name": 3, "born": 4}',
            "{'name': 3, 'born': 4} has too many properties.\n"
            "- At /name: 3 is not of type 'string'.",
            NOT_HELD,
        ),
        (
            '{"name": "Bob", "name": "Ada"}',
            'It has the key "name" more than once.',
            "Raise `repair`, or ask another model.",
        ),
        (
            '{"name": 1.5e400}',
            "Its number 1.5e400 cannot be stored.",
            "Give the number a `minimum` and a `maximum` in the schema.",
        ),
        (
            f'{{"name": {"[" * 5000}{"]" * 5000}}}',
            "It is nested more than 64 levels deep.",
            NOT_HELD,
        ),
    ],
)
def test_an_answer_that_is_no_form_is_told_with_a_way_out(
    text: str, sentence: str, remedy: str
) -> None:
    pool = Saying(text, '{"name": "Ada"}')
    assert ask(pool, Form({**PERSON, "maxProperties": 1})).output == {"name": "Ada"}
    assert sentence in pool.chats[1].messages[-1].content
    with pytest.raises(StepError) as caught:
        ask(Saying(text), Form({**PERSON, "maxProperties": 1}))
    assert caught.value.remedy == remedy


def test_an_answer_that_was_cut_off_in_its_middle_is_called_too_long() -> None:
    class Cut(Saying):
        async def answer_to(self, request: ChatRequest) -> Reply:
            reply = await super().answer_to(request)
            is_cut = not reply.text.endswith("}")
            usage = Usage(completion_tokens=60)
            return replace(reply, usage=usage, done_reason="length" if is_cut else "stop")

    pool = Cut('{"name": "Ada, who', '{"name": "Ada"}')
    assert ask(pool, Form(PERSON), max_tokens=60).output == {"name": "Ada"}
    told = "It was cut off at its limit of 60 tokens: it must be shorter."
    assert told in pool.chats[1].messages[-1].content
    with pytest.raises(StepError) as caught:
        ask(Cut('{"name": "Ada, who'), Form(PERSON, 0), max_tokens=60)
    assert str(caught.value) == (
        f'the answer fails its checks. {told} It was: {{"name": "Ada, who '
        "Raise `max_tokens` under `params`, or ask for less."
    )


def test_an_answer_that_its_form_alone_ended_at_the_limit_is_an_error() -> None:
    class Cut(Saying):
        async def answer_to(self, request: ChatRequest) -> Reply:
            reply = await super().answer_to(request)
            return replace(reply, usage=Usage(completion_tokens=1000))

    with pytest.raises(StepError) as caught:
        ask(Cut('{"name": "A"}', is_shortened=True), Form(PERSON))
    assert str(caught.value) == (
        "the answer reached its limit of 1024 tokens and was closed there. Ask for less, "
        "bound its lists by `maxItems` and its texts by `maxLength`, or set `max_tokens` under "
        "`params`."
    )
    assert ask(Cut('{"name": "A"}', is_shortened=True), Form(PERSON), max_tokens=1000).output


def test_an_answer_that_was_led_out_of_a_circle_passes_and_is_told() -> None:
    pool = Saying('{"name": "A"}', is_shortened=True)
    form = Form(PERSON)
    given = hands(pool, form)
    asyncio.run(ask_checked(ModelCaller(given, ModelSpec("writer"), {}), ASKED, form=form))
    assert given.notes == ["the answer repeated itself and was closed there."]


def test_a_step_that_is_tried_again_after_a_failed_check_asks_for_another_answer() -> None:
    pool = Saying("x")
    caller = ModelCaller(hands(pool, None, n_refused=2), ModelSpec("writer"), {"seed": 5})
    asyncio.run(caller.ask(ASKED))
    assert pool.chats[0].params == {"seed": 7, "temperature": 0.6}


@pytest.mark.parametrize(
    ("schema", "drawn"),
    [
        (
            {"title": "str", "points": "list[str]", "risk": "enum[low, high]", "score": "float?"},
            '{"title": text, "points": [text, …], "risk": "low" or "high", '
            '"score": number or null}',
        ),
        ([{"name": "str", "age": "int"}], '[{"name": text, "age": whole number}, …]'),
        (
            {"properties": {"day": {"type": "string", "format": "date", "description": "When."}}},
            '{"day": date (When)}',
        ),
        (
            {
                "$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}},
                "$ref": "#/$defs/n",
            },
            "[[[…, …], …], …]",
        ),
        ({"anyOf": [{"type": "string"}, {"const": 3}, {}]}, "text or 3 or …"),
        (True, "…"),
    ],
)
def test_a_schema_is_drawn_as_json_with_words(schema: Any, drawn: str) -> None:
    assert schema_sketch(reply_schema.read_reply_schema(schema, Path()).schema) == drawn


def test_a_form_that_is_too_long_to_draw_is_only_named() -> None:
    long = {"properties": {f"field_{n}": {"type": "string"} for n in range(200)}}
    assert schema_hint(long) == "Answer with JSON."


def test_the_form_ends_the_last_thing_that_the_user_said() -> None:
    form = Form({"type": "object"})
    said = [Message("user", "Add."), Message("tool", "3"), Message("assistant", "Now")]
    assert [one.content for one in with_schema_hint(said, form)] == [
        "Add.\n\nAnswer with JSON of this form: {…}",
        "3",
        "Now",
    ]
    assert with_schema_hint([Message("system", "x")], form)[-1].role == "user"
