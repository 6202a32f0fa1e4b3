"""`examples: {from: reviews}`: the nearest decisions stand in the prompt, and what that redoes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest, EmbedReply, EmbedRequest, PackedVectors
from paddock.engine.system.records import replace
from paddock.pipelines.errors import PipelineError
from tests.fakes.pool import FakePool
from tests.runner.core.test_waiting import Bills
from tests.runner.world import each_document, reasons, states

PIPELINE = """\
name: topics
""" + each_document("""\
      - id: topic
        uses: chat
        with:
          system: Name the topic.
          prompt: "{{ steps.text.text }}"
          examples: {from: reviews, k: 2}
        reply: {schema: {topic: str}}
        review: {when: "doc.relpath[0] == 'a'"}
    returns: {file: doc.relpath, topic: steps.topic.output.topic}
returns: steps.each.results
""")
WORDS = ("cat", "dog", "oak", "elm", "sun")


class WordPool(FakePool):
    """Embeds a text as the counts of five words."""

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        reply = await super().embed(request)
        rows = [tuple(float(text.count(word)) for word in WORDS) for text in request.texts]
        return replace(reply, vectors=PackedVectors.of(rows))


def answer(request: ChatRequest) -> str:
    """Answer with the text, in capitals where the prompt has examples."""
    text = request.messages[-1].content.partition("\n")[0]
    return json.dumps({"topic": text.upper() if len(request.messages) > 2 else text})


def pool() -> WordPool:
    return WordPool(answer=answer)


@pytest.fixture
def topics(tmp_path: Path) -> Bills:
    texts = {"a1": "cat cat dog", "a2": "oak oak elm", "a3": "sun sun sun", "b1": "cat dog"}
    return Bills(tmp_path, PIPELINE, {f"inbox/{name}.txt": f"{texts[name]}\n" for name in texts})


def turns(request: ChatRequest) -> list[tuple[str, str]]:
    return [(message.role, message.content.partition("\n")[0]) for message in request.messages]


def prompts(some: WordPool) -> dict[str, Sequence[tuple[str, str]]]:
    """Return what stands between the system message and the last one, by the text asked about."""
    chats = (turns(request) for request in some.chats)
    return {messages[-1][1]: messages[1:-1] for messages in chats}


def decide(topics: Bills, **values: str) -> None:
    for name, topic in values.items():
        topics.decide(f"{name}.txt", "edit", {"topic": topic})


def taught_by(text: str, topic: str) -> list[tuple[str, str]]:
    """Return the turns of an example."""
    return [("user", text), ("assistant", json.dumps({"topic": topic}))]


def test_the_nearest_decisions_stand_behind_the_system_message_the_nearest_last(
    topics: Bills,
) -> None:
    topics.work(pool=pool())
    decide(topics, a1="pets", a2="trees", a3="sky")
    some = pool()
    report = topics.work(pool=some)
    examples = prompts(some)["cat dog"]
    assert examples == [*taught_by("oak oak elm", "trees"), *taught_by("cat cat dog", "pets")]
    assert some.chats[0].messages[0].content == "Name the topic."
    found = {result["file"]: result["topic"] for result in report.returns}
    assert found == {"a1.txt": "pets", "a2.txt": "trees", "a3.txt": "sky", "b1.txt": "CAT DOG"}
    assert len(some.chats) == 1, "what a person decided on is not asked again"
    assert topics.work(pool=pool()).counts == {"fresh": 4}


def test_an_item_is_stale_only_if_its_own_examples_changed(topics: Bills) -> None:
    topics.work(pool=pool())
    decide(topics, a1="pets", a2="trees")
    topics.write("inbox/b2.txt", "oak elm\n")
    topics.work(pool=pool())
    topics.write("inbox/a4.txt", "cat dog dog\n")
    topics.work(pool=pool())
    decide(topics, a4="more pets")
    plan = topics.plan()
    assert {key for key, state in states(plan).items() if state == "stale"} == {"b1.txt"}
    some = pool()
    report = topics.work(pool=some)
    assert reasons(report)["b1.txt"] == (
        "examples of step 'topic' changed: a decision on a text that is nearer"
    )
    assert prompts(some).keys() == {"cat dog"}, "no nearer text was decided on for the other"


def test_nothing_learns_from_itself_or_from_a_copy_of_itself(topics: Bills) -> None:
    topics.work(pool=pool())
    decide(topics, a1="pets", a2="trees", a3="sky")
    topics.write("inbox/b3.txt", "cat cat dog\n")
    some = pool()
    topics.work(pool=some, force=["topic"])
    for text, examples in prompts(some).items():
        assert ("user", text) not in examples


def test_a_rejected_answer_and_one_of_another_form_are_no_examples(topics: Bills) -> None:
    topics.work(pool=pool())
    topics.decide("a1.txt", "reject", reason="nonsense")
    decide(topics, a2="trees")
    topics.edit("{topic: str}", '{topic: "enum[pets, sky]"}')
    some = WordPool(answer=lambda _: '{"topic": "sky"}')
    topics.work(pool=some, force=["topic"])
    assert all(examples == [] for examples in prompts(some).values())


def test_a_prompt_that_fits_only_without_examples_goes_without_and_is_counted(
    topics: Bills,
) -> None:
    topics.work(pool=pool())
    decide(topics, a1="pets " * 400)
    some = WordPool(answer=answer, n_ctx_tokens=300)
    report = topics.work(pool=some)
    assert some.chats == [], "the ledger knows the answer to the prompt without examples"
    assert any("without its examples, with which it does not fit" in note for note in report.notes)
    assert states(report)["b1.txt"] == "stale"


def test_examples_with_tools_are_refused(topics: Bills) -> None:
    topics.edit("k: 2}", "k: 2}\n          tools: [{name: now}]")
    with pytest.raises(PipelineError, match="`examples` cannot be combined with `tools`"):
        topics.work(pool=pool())


def test_a_plan_takes_no_answer_without_examples_for_one_with_examples(topics: Bills) -> None:
    line = "          examples: {from: reviews, k: 2}\n"
    topics.edit(line, "")
    topics.work(pool=pool())
    decide(topics, a1="pets", a2="trees")
    topics.edit("        reply: {schema", f"{line}        reply: {{schema")
    plan: Any = topics.plan()
    fresh_pool = pool()
    topics.work(pool=fresh_pool)
    assert plan.models == {"smollm2:135m": 2, "all-minilm": len(fresh_pool.embeds)}
    assert len(fresh_pool.chats) == 2  # what was decided stands


def test_a_step_that_decides_has_examples_with_their_labels_alone(tmp_path: Path) -> None:
    text = PIPELINE.replace("uses: chat", "uses: decide").replace(
        "{topic: str}", "{topic: {choose: \"['pets', 'trees', 'sky']\"}}"
    )
    documents = {"inbox/a1.txt": "cat cat dog\n", "inbox/b1.txt": "cat dog\n"}
    here = Bills(tmp_path, text, documents)
    here.work(pool=WordPool(answer=lambda _: "sky"))
    here.decide("a1.txt", "edit", {"topic": "pets"})
    some = WordPool(answer=lambda request: "pets" if len(request.messages) == 4 else "")
    report = here.work(pool=some)
    assert {row["file"]: row["topic"] for row in report.returns}["b1.txt"] == "pets"
    about, alone = sorted(some.chats, key=lambda request: request.messages[-1].content)[::-1]
    example = [("user", "cat cat dog"), ("assistant", "pets")]
    assert (turns(about)[1:], turns(alone)[1:]) == (
        [*example, ("user", "cat dog")],
        [*example, ("user", "")],
    )
