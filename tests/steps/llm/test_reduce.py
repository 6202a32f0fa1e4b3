"""Many items become one by a tree that follows from them alone, and of which little is redone."""

import asyncio
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.engine.request import ChatRequest
from paddock.engine.system.records import replace
from paddock.pipelines.expressions import Template
from paddock.pipelines.keys import SamplingParams
from paddock.steps.base import StepError, StepSkipped
from paddock.steps.llm.reduce import Reduce, ReduceOutput, ReduceParams
from tests.fakes.form import FakeForm
from tests.fakes.pool import FakePool, FakeStream, echo
from tests.fakes.tools import tools

PROMPT = "Fold: {{ notes | join(' + ') }}"


class Kept(FakePool):
    """A pool in front of which replies are kept, as the ledger keeps them."""

    def __init__(self, known: dict[Any, str], **wishes: Any) -> None:
        super().__init__(**wishes)
        self.known = known
        self.asked = 0

    def chat(self, request: ChatRequest) -> FakeStream:
        if request.messages not in self.known:
            self.asked += 1
            self.known[request.messages] = str(self.answer(request))
        return FakeStream(FakePool(answer=lambda _: self.known[request.messages]), request)


def reduce(pool: FakePool, *, form: FakeForm | None = None, **wishes: Any) -> ReduceOutput:
    wishes = {"prompt": Template.of(PROMPT), **wishes}
    hands = replace(tools(Path(), pool=pool), reply=form)
    return asyncio.run(Reduce().run(ReduceParams(**wishes), hands))


def items(*numbers: int) -> list[dict[str, Any]]:
    return [{"file": f"{number}.md", "says": f"number {number}"} for number in numbers]


def gathering(request: ChatRequest) -> str:
    words = request.messages[-1].content.replace("+", " ").split()
    return " ".join(sorted({word for word in words if word.isdigit()}, key=int))


def test_a_few_items_are_folded_in_one_call() -> None:
    pool = FakePool(answer=lambda _: " All. ")
    out = reduce(pool, over=["one", {"file": "a.md", "says": "two"}, None, " "])
    assert [request.messages[-1].content for request in pool.chats] == [
        "Fold: one + file: a.md\nsays: two"
    ]
    assert (out.text, out.output, out.groups, out.levels) == ("All.", None, [], 1)


def test_notes_stand_before_a_prompt_that_does_not_mention_them() -> None:
    pool = FakePool()
    reduce(pool, over=["one", "two"], prompt=Template.of("Make one text of these."))
    assert pool.chats[0].messages[-1].content == "one\n\ntwo\n\nMake one text of these."


def test_a_prompt_sees_the_values_and_the_level() -> None:
    pool = FakePool(answer=lambda _: "x")
    text = "{{ level }}:{% for i in items %} {{ i.file if i is mapping else i }}{% endfor %}"
    out = reduce(pool, over=items(*range(30)), prompt=Template.of(text))
    prompts = [request.messages[-1].content for request in pool.chats]
    assert prompts[0].startswith("0: ")
    assert all(word == "0:" or word.endswith(".md") for word in prompts[0].split())
    assert prompts[-1].startswith("1: ")
    assert "x" in prompts[-1].split()
    assert out.levels == 2


@settings(max_examples=25)
@given(n=st.integers(1, 120), fanin=st.integers(2, 12))
def test_every_item_is_in_the_answer_whatever_their_number(n: int, fanin: int) -> None:
    pool = FakePool(answer=gathering)
    out = reduce(pool, over=[f"{number}" for number in range(n)], fanin=fanin)
    assert out.text.split() == [str(number) for number in range(n)]
    assert len(pool.chats) <= max(1, n - 1)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), n=st.integers(20, 150))
def test_after_any_history_the_answer_is_that_of_a_run_from_scratch_at_the_cost_of_its_paths(
    seed: int, n: int
) -> None:
    chance = random.Random(seed)
    known: dict[Any, str] = {}
    there = items(*range(n))
    reduce(Kept(known, answer=echo), over=there)
    for turn in range(4):
        at = chance.randrange(len(there))
        match chance.choice(["new", "changed", "gone"]):
            case "new":
                there = [*there[:at], *items(1000 + turn), *there[at:]]
            case "changed":
                there = [*there[:at], {**there[at], "says": f"turn {turn}"}, *there[at + 1 :]]
            case "gone":
                there = there[:at] + there[at + 1 :]
        pool = Kept(known, answer=echo)
        out = reduce(pool, over=there)
        fresh = Kept({}, answer=echo)
        assert out.text == reduce(fresh, over=there).text
        # On each level the group of the item, and now and then its neighbours.
        assert pool.asked <= 4 * math.ceil(math.log(len(there), 4) + 1)
        assert pool.asked <= fresh.asked


def test_groups_are_folded_first_and_then_what_came_of_them() -> None:
    pool = FakePool(answer=gathering)
    over = [{"kind": "a", "n": 1}, {"kind": "b", "n": 2}, {"kind": "a", "n": 3}]
    out = reduce(pool, over=over, by=Template.of("kind"))
    assert [(group.key, group.count, group.text) for group in out.groups] == [
        ("a", 2, "1 3"),
        ("b", 1, "2"),
    ]
    assert out.text == "1 2 3"
    assert pool.chats[-1].messages[-1].content == "Fold: a:\n1 3 + b:\n2"


def test_folding_stops_at_the_groups_where_that_is_asked() -> None:
    pool = FakePool(answer=gathering)
    over = [{"kind": "ab"[n % 2], "year": n, "says": f"number {n}"} for n in range(4)]
    prompt = Template.of("{{ items[0].year }} of {{ group }}: {{ notes | join(' + ') }}")
    out = reduce(pool, over=over, by=Template.of("kind"), prompt=prompt, fold="groups")
    assert len(pool.chats) == 2
    assert out.output == {group.key: group.text for group in out.groups}
    assert [group.key for group in out.groups] == ["a", "b"]
    assert out.text == "\n\n".join(f"{group.key}:\n{group.text}" for group in out.groups)
    assert out.levels == 1
    form = FakeForm(schema={"type": "object"})
    pool = FakePool(answer=lambda request: json.dumps({"n": len(request.messages)}))
    out = reduce(pool, over=over, by=Template.of("kind"), form=form, fold="groups")
    assert out.output == {"a": {"n": 1}, "b": {"n": 1}}


def test_groups_may_be_named_by_an_expression_and_a_single_one_is_all() -> None:
    pool = FakePool(answer=gathering)
    over = [{"day": "2024-05-03", "n": 1}, {"day": "2024-05-09", "n": 2}]
    prompt = Template.of("{{ group }} {{ notes | join(' ') }}")
    out = reduce(pool, over=over, prompt=prompt, by=Template.of("{{ item.day[:7] }}"))
    assert [group.key for group in out.groups] == ["2024-05"]
    assert out.text == out.groups[0].text
    assert len(pool.chats) == 1
    assert pool.chats[0].messages[-1].content.startswith("2024-05 ")


def test_nothing_to_fold_is_skipped() -> None:
    with pytest.raises(StepSkipped):
        reduce(FakePool(), over=[None, ""])


def test_groups_that_do_not_fit_are_halved_until_they_do() -> None:
    pool = FakePool(answer=gathering, n_ctx_tokens=120)
    over = [f"{number} " + "word " * 25 for number in range(8)]
    out = reduce(pool, over=over, params={"max_tokens": 20})
    assert out.text.split() == [str(number) for number in range(8)]
    assert out.levels > 1


LONG = [{"file": "a.md", "text": " ".join(f"{number}" for number in range(200))}, "300"]


def test_an_item_that_does_not_fit_is_folded_in_parts_if_wished() -> None:
    def shorter(request: ChatRequest) -> str:
        return " ".join(gathering(request).split()[:3])

    pool = FakePool(answer=shorter, n_ctx_tokens=100)
    reduce(pool, over=LONG, params={"max_tokens": 20}, on_overflow="split")
    seen = {word for one in pool.chats for word in one.messages[-1].content.split()}
    assert {str(number) for number in (*range(200), 300)} <= seen


def test_of_an_item_that_does_not_fit_the_beginning_is_read_if_wished_and_it_is_told() -> None:
    hands = tools(Path(), pool=FakePool(n_ctx_tokens=100))
    params = ReduceParams(
        over=LONG,
        prompt=Template.of(PROMPT),
        params=SamplingParams(max_tokens=20),
        on_overflow="truncate",
    )
    out = asyncio.run(Reduce().run(params, hands))
    assert out.usage.characters_cut > 0
    assert hands.notes[0].startswith("only the first ")
    assert hands.notes[0].endswith(
        " of 689 characters of 'a.md' were read (on_overflow: truncate)."
    )


def test_every_answer_has_the_form_and_the_last_one_passes_the_checks() -> None:
    schema = {"type": "object", "properties": {"all": {"type": "string"}}, "required": ["all"]}
    form = FakeForm(schema)
    pool = FakePool(answer=lambda request: json.dumps({"all": gathering(request)[:40]}))
    out = reduce(pool, over=items(*range(30)), form=form)
    assert all(request.constraint is not None for request in pool.chats)
    assert form.seen == [(out.output, out.text)]
    assert out.text == json.dumps(out.output, separators=(",", ":"))


WORDS = " ".join(["word"] * 60)
KINDS = [{"kind": "ab"[n % 2], "year": n} for n in range(4)]
OF_ITEMS = Template.of("{{ items[0].year }}: {{ notes | join }}")


@pytest.mark.parametrize(
    ("wishes", "n_ctx_tokens", "sentence"),
    [
        ({"over": KINDS, "by": Template.of("kind"), "prompt": OF_ITEMS}, 400,
         "`prompt` cannot be rendered: there is no 'year' here (in '{{ items[0].year }}: "
         "{{ notes | join }}'). Known: 'group', 'text', 'output'. The same prompt combines the "
         "groups; its `items` are then the `group`, `text` and `output` of each. Set "
         "`fold: groups` to stop before that."),
        ({"over": [{"kind": "a"}], "by": Template.of("kinds")}, 400,
         "`by`: item 1 has no field 'kinds' (known: 'kind'). Name a field that every item has, or "
         "write an expression over `item`."),
        ({"over": [{"kind": "a"}], "by": Template.of("{{ item.kinds }}")}, 400,
         "`by` failed for item 1: there is no 'kinds' here (in '{{ item.kinds }}'). Known: 'kind'. "
         "Did you mean 'kind'?"),
        ({"over": [f"{n} {WORDS}" for n in range(6)], "params": {"max_tokens": 70}}, 180,
         "the answers do not get shorter, so they would never fit into one prompt. Ask for a "
         "shorter one in `prompt`, lower `fanin`, or raise the model's `ctx`."),
        ({"over": LONG, "params": {"max_tokens": 20}}, 100,
         "item 'a.md' alone is too long: the prompt has 205 tokens and 20 are reserved for the "
         "answer, but the context holds 100; nothing was cut. Set `on_overflow: split` to read it "
         "in parts, or raise the model's `ctx`."),
    ],
)  # fmt: skip
def test_what_cannot_be_folded_is_a_sentence(
    wishes: dict[str, Any], n_ctx_tokens: int, sentence: str
) -> None:
    with pytest.raises(StepError) as caught:
        reduce(FakePool(n_ctx_tokens=n_ctx_tokens, answer=lambda _: WORDS), **wishes)
    assert str(caught.value) == sentence
