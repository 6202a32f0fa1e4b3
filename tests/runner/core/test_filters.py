"""Filters: a yes/no question to the model, after which an item goes on, ends, or waits."""

import json
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest
from paddock.runner.api import validate
from tests.fakes.pool import FakePool
from tests.runner.world import ReviewedWorld, states

POST = """\
name: post
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}", empty: skip}}
      - {id: bill, filter: "Is this a bill? {{ steps.text.text }}", review: {when: false}}
      - {id: sum, uses: chat, with: {prompt: "Sum up: {{ steps.text.text }}"}}
      - uses: files.write
        if: doc.size > 3
        with: {path: "out/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}
    returns: {document: doc.relpath, sum: steps.sum.text}
  - {id: table, uses: files.write, with: {path: out/t.csv, rows: "{{ steps.each.results }}"}}
"""


def answer(request: ChatRequest) -> str:
    prompt = request.messages[-1].content
    if "Is this" in prompt:
        return json.dumps({"answer": "yes" if "owe" in prompt else "no"})
    return f"[{prompt}]"


class Post(ReviewedWorld):
    def run(self, *args: Any, **options: Any) -> Any:
        return super().run(*args, pool=FakePool(answer=answer), **options)

    def outputs(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "out").glob("*.txt"))

    def rows(self) -> list[str]:
        return [line.partition(",")[0] for line in self.output("t.csv").splitlines()[1:]]


@pytest.fixture
def world(tmp_path: Path) -> Post:
    world = Post(tmp_path, POST)
    texts = {"bill": "You owe us 3.", "letter": "The weather is fine.", "none": " ", "x": "owe"}
    for name, text in texts.items():
        world.write(f"inbox/{name}.txt", text)
    return world


def test_an_item_that_gets_a_no_ends_there_without_a_result(world: Post) -> None:
    plan = world.plan()
    assert (plan.calls, plan.least_calls) == (6, 3)
    report = world.run()
    assert report.calls == 3 + 2
    assert states(report) == {
        "bill.txt": "new", "letter.txt": "skipped", "none.txt": "skipped", "x.txt": "new",
    }  # fmt: skip
    assert (world.rows(), world.outputs()) == (["bill.txt", "x.txt"], ["bill.txt"])
    assert (world.run().calls, world.plan().has_work) == (0, False)
    world.write("inbox/bill.txt", "You paid it.")
    report = world.run(prune=True)
    assert (report.calls, world.rows(), world.outputs()) == (1, ["x.txt"], [])


def test_an_answer_that_is_not_sure_waits_and_goes_on_as_it_is_decided(world: Post) -> None:
    world.edit(", review: {when: false}", "")  # the fake knows no probability, which counts as 0
    report = world.run()
    assert report.calls == 3
    assert sorted(world.waiting()) == ["bill.txt", "letter.txt", "x.txt"]
    world.decide("bill.txt", "accept")
    world.decide("letter.txt", "edit", {"answer": "yes"})
    world.decide("x.txt", "edit", {"answer": "no"})
    report = world.run()
    assert (report.calls, world.rows()) == (2, ["bill.txt", "letter.txt"])
    assert states(report) == {
        "bill.txt": "new", "letter.txt": "new", "x.txt": "skipped",
    }  # fmt: skip


def test_a_filter_is_the_chat_that_it_stands_for(world: Post) -> None:
    world.run()
    world.edit('filter: "Is this a bill?', 'filter: "Is this  a bill?')
    assert {str(reason) for item in world.plan().items for reason in item.reasons} == {
        "prompt changed (step 'bill')"
    }
    assert world.run().calls == 3
    world.edit(
        '{id: bill, filter: "Is this  a bill? {{ steps.text.text }}", review: {when: false}}',
        '{id: bill, uses: chat, with: {prompt: "Is this  a bill? {{ steps.text.text }}"}, reply: '
        '{schema: {answer: "enum[yes, no]"}, confidence: true}, review: {when: false}}',
    )
    assert world.run().calls == 1  # the summary of the letter


def test_filters_behind_each_other_and_in_blocks_within_an_item(world: Post) -> None:
    world.edit("      - {id: sum,", "      - {filter: 'Is this yours? {{ steps.text.text }}',"
               " review: {when: false}}\n      - {id: sum,")  # fmt: skip
    report = world.run()
    assert (report.calls, world.rows()) == (3 + 2 + 2, ["bill.txt", "x.txt"])
    world.edit(
        "    returns: {document: doc.relpath, sum: steps.sum.text}",
        """\
      - id: words
        for_each: word in steps.text.text.split()
        do:
          - {filter: "Is this '{{ word }}'?", review: {when: false}}
          - {uses: prompt, id: shown, with: {template: "<{{ word }}>"}}
        returns: steps.shown.text
    returns: {document: doc.relpath, words: steps.words.results}""",
    )
    world.run()
    assert world.output("t.csv").splitlines()[1:] == [
        'bill.txt,"[""<owe>""]"',
        'x.txt,"[""<owe>""]"',
    ]


@pytest.mark.parametrize("review", ["", ", review: {when: false}"])
def test_a_filter_escalates_what_it_is_not_sure_of_and_no_person_is_asked(
    world: Post, review: str
) -> None:
    world.edit("name: post\n", "name: post\nmodels: {clerk: small, boss: big}\n")
    escalate = 'escalate: {to: boss, when: "confidence.low < 0.8"}'
    world.edit(", review: {when: false}", f", with: {{model: clerk}}, {escalate}{review}")
    world.edit('with: {prompt: "Sum', 'with: {model: clerk, prompt: "Sum')
    report = world.run()
    assert (report.calls, world.rows()) == (3 * 2 + 2, ["bill.txt", "x.txt"])
    assert states(report)["letter.txt"] == "skipped"


def test_a_filter_with_a_review_that_asks_and_a_larger_model_is_at_fault(world: Post) -> None:
    world.edit("name: post\n", "name: post\nmodels: {clerk: small, boss: big}\n")
    world.edit('with: {prompt: "Sum', 'with: {model: clerk, prompt: "Sum')
    keys = "with: {model: clerk}, escalate: {to: boss, when: true}, review: {when: false, also: 2%}"
    world.edit("review: {when: false}", keys)
    (fault,) = validate(world.file).faults
    assert fault.message == "step 'bill' has `review`, so that no larger model is asked."


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            ' {{ steps.text.text }}", review',
            '", review',
            "this question names no text that it is about.",
        ),
        ("{id: bill, ", "{id: bill, if: doc.size > 1, ", "`if` cannot be combined with `filter`."),
        ("{id: bill, ", "{id: bill, with: {prompt: x}, ", "a filter takes no `prompt`."),
        (
            "  - {id: table,",
            '  - {filter: "Is it {{ now }}?"}\n  - {id: table,',
            "`filter` belongs to the steps of a block.",
        ),
    ],
)
def test_what_a_filter_cannot_be_is_told(world: Post, old: str, new: str, message: str) -> None:
    world.edit(old, new)
    assert [fault.message for fault in validate(world.file).faults] == [message]
