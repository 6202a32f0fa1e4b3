"""`examples: {from: reviews}`: the nearest decisions stand in the prompt, and what that redoes."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest, EmbedReply, EmbedRequest
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
        return replace(reply, vectors=tuple(rows))


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


@pytest.mark.parametrize("is_deleted", [False, True], ids=["undone", "its document was deleted"])
def test_a_decision_that_counts_no_more_is_no_example_any_more(
    topics: Bills, is_deleted: bool
) -> None:
    topics.work(pool=pool())
    decide(topics, a1="pets", a2="trees")
    topics.work(pool=pool())
    if is_deleted:
        (topics.folder / "inbox/a1.txt").unlink()
        topics.work(pool=pool())
    else:
        topics.undo("a1.txt")
    some = pool()
    report = topics.work(pool=some)
    assert reasons(report)["b1.txt"] == (
        "examples of step 'topic' changed: a decision counts no more or is another one"
    )
    assert prompts(some)["cat dog"] == taught_by("oak oak elm", "trees")


def test_nothing_learns_from_itself_or_from_a_copy_of_itself(topics: Bills) -> None:
    topics.work(pool=pool())
    decide(topics, a1="pets", a2="trees", a3="sky")
    topics.write("inbox/b3.txt", "cat cat dog\n")
    some = pool()
    topics.work(pool=some, force=["topic"])
    for text, examples in prompts(some).items():
        assert ("user", text) not in examples


BOTH = """\
name: both
""" + each_document("""\
      - {id: one, uses: pipeline, with: {file: 1/ask.yaml, inputs: {t: "{{ steps.text.text }}"}}}
      - {id: two, uses: pipeline, with: {file: 2/ask.yaml, inputs: {t: "{{ steps.text.text }}"}}}
returns: steps.each.results
""")
ASK = """\
name: ask
inputs: {t: {type: str}}
steps:
  - id: topic
    uses: chat
    with: {system: Task N, prompt: "{{ inputs.t }}", examples: {k: 2}}
    reply: {schema: {topic: str}}
    review: {when: "'dog' in output.topic and inputs.t != 'cat' and N == 1"}
returns: {t: steps.topic.output.topic}
"""


def test_another_pipeline_with_the_same_names_does_not_teach(tmp_path: Path) -> None:
    files = {f"{number}/ask.yaml": ASK.replace("N", number) for number in "12"}
    world = Bills(tmp_path, BOTH, files)
    world.write("inbox/a1.txt", "cat cat dog")
    world.work(pool=pool())
    (key,) = world.waiting()
    world.decide(key, "edit", {"topic": "pets"})
    world.write("inbox/b1.txt", "cat")
    some = pool()
    world.work(pool=some)
    taught = {
        turns(request)[0][1]: len(request.messages)
        for request in some.chats
        if turns(request)[-1][1] == "cat"
    }
    assert taught == {"Task 1": 4, "Task 2": 2}


def test_a_rejected_answer_and_one_of_another_form_are_no_examples(topics: Bills) -> None:
    topics.work(pool=pool())
    topics.decide("a1.txt", "reject", reason="nonsense")
    decide(topics, a2="trees")
    topics.edit("{topic: str}", '{topic: "enum[pets, sky]"}')
    some = WordPool(answer=lambda _: '{"topic": "sky"}')
    topics.work(pool=some, force=["topic"])
    assert all(examples == [] for examples in prompts(some).values())


def test_answers_that_were_accepted_together_unseen_are_no_examples(topics: Bills) -> None:
    topics.work(pool=pool())
    with topics.reviews() as reviews:
        waiting = reviews.waiting()
        reviews.accept_together([(review.id, review.question) for review in waiting], "ann")
    some = pool()
    topics.work(pool=some)
    assert (len(waiting), some.chats) == (3, [])
    topics.write("inbox/a4.txt", "cat cat dog dog\n")
    topics.work(pool=pool())
    decide(topics, a4="pets")
    some = pool()
    topics.work(pool=some)
    assert prompts(some).keys() == {"cat dog"}, "those who accepted are not asked again"


def test_a_long_example_is_shortened_and_counted(topics: Bills) -> None:
    topics.write("inbox/a1.txt", "cat cat dog " * 700)
    topics.work(pool=WordPool(answer=lambda _: '{"topic": "?"}', n_ctx_tokens=8000))
    decide(topics, a1="pets")
    topics.write("inbox/b4.txt", "dog\n")
    some = WordPool(answer=answer, n_ctx_tokens=8000)
    report = topics.work(pool=some)
    lengths = [len(request.messages[1].content) for request in some.chats]
    assert 3 * 8000 // 4 // 2 <= max(lengths) < 3 * 8000 // 4 // 2 + 10
    assert any("examples of which the middle was left out" in note for note in report.notes)


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
    assert plan.models == {"smollm2:135m": 4, "all-minilm": len(fresh_pool.embeds)}
    assert len(fresh_pool.chats) == 4


def test_examples_that_came_or_went_are_no_other_model(topics: Bills) -> None:
    topics.work(pool=pool())
    topics.edit("          examples: {from: reviews, k: 2}\n", "")
    assert reasons(topics.work(pool=pool()))["b1.txt"] == "`examples` changed (step 'topic')"
