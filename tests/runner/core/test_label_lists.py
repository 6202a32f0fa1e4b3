"""`choose`: labels that a list has at run time, and what a changed list makes stale."""

import csv
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest
from paddock.runner.cli.plan_text import plan_text
from paddock.runner.ledger.reviews.reviews import DecisionRefused
from paddock.runner.review.answer_fields import subject_fields
from paddock.runner.review.label_tables import add_row
from tests.fakes.pool import FakePool
from tests.runner.bind.pipeline_faults import fault_of
from tests.runner.world import ReviewedWorld, World, reasons, states

PIPELINE = """\
name: labels
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - {id: tags, uses: files.rows, with: {path: tags.csv}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - id: label
        uses: chat
        with: {prompt: "{{ steps.text.text }}"}
        reply:
          schema:
            tag: {choose: steps.tags.rows, by: name, describe: note, unknown: none of these}
    returns: {file: doc.relpath, tag: steps.label.output.tag}
returns: steps.each.results
"""
TAGS = {"ferry": "boats that carry people", "bridge": "ways over water", "tram": "rails in a town"}


def written(tags: dict[str, str]) -> str:
    return "name,note\n" + "".join(f"{name},{note}\n" for name, note in tags.items())


def world(folder: Path, tags: dict[str, str] | None = None, n: int = 3) -> ReviewedWorld:
    words = ("ferry", "bridge", "tram")[:n]
    documents = {f"inbox/{number}.txt": f"About a {word}." for number, word in enumerate(words)}
    return ReviewedWorld(folder, PIPELINE, {"tags.csv": written(tags or TAGS), **documents})


@pytest.fixture
def here(tmp_path: Path) -> ReviewedWorld:
    return world(tmp_path)


def clerk(request: ChatRequest) -> str:
    """Answer with the first label that the document mentions, else with the last one."""
    labels = enum_of(request)
    text = request.messages[-1].content.partition("About a")[2].partition("\n")[0]
    tag = next((label for label in labels if re.search(rf"\b{label}\b", text)), labels[-1])
    return json.dumps({"tag": tag})


def enum_of(request: ChatRequest) -> list[str]:
    assert request.constraint is not None
    schema = json.loads(request.constraint.source)
    found: list[str] = schema["properties"]["tag"]["enum"]
    return found


def labelled(report: Any) -> dict[str, str]:
    return {result["file"]: result["tag"] for result in report.returns}


def test_the_decoder_can_say_the_labels_of_the_list_and_nothing_else(tmp_path: Path) -> None:
    pool = FakePool(answer=clerk)
    report = world(tmp_path).run(pool=pool)
    assert labelled(report) == {"0.txt": "ferry", "1.txt": "bridge", "2.txt": "tram"}
    (constraint,) = {request.constraint for request in pool.chats}  # which is compiled once
    assert constraint is not None
    labels = {"tag": {"enum": [*TAGS, "none of these"]}}
    assert json.loads(constraint.source)["properties"] == labels


def test_labels_are_told_where_the_prompts_of_all_items_are_still_the_same(tmp_path: Path) -> None:
    pool = FakePool(answer=clerk)
    world(tmp_path, n=1).run(pool=pool)
    (request,) = pool.chats
    (message,) = request.messages
    assert (message.role, message.content) == (
        "user",
        'Labels for "tag":\n- ferry: boats that carry people\n- bridge: ways over water\n'
        '- tram: rails in a town\nWhere none of them fits, "tag" is "none of these".\n\n'
        'About a ferry.\n\nAnswer with JSON of this form: {"tag": label}',
    )


def test_a_list_that_takes_more_than_half_of_the_context_is_not_told(tmp_path: Path) -> None:
    tags = TAGS | {f"tag {number}": "one of very many" for number in range(400)}
    pool = FakePool(answer=clerk, n_ctx_tokens=2000)
    report = world(tmp_path, tags).run(pool=pool)
    assert labelled(report)["1.txt"] == "bridge"
    assert "- bridge" not in pool.chats[0].messages[0].content
    assert (
        "'label': 3 prompts without the 403 labels of steps.tags.rows, which take more "
        "than half of the context (0.txt, 1.txt, 2.txt)."
    ) in report.notes


def test_a_second_run_does_nothing_and_the_order_of_the_list_does_not_count(
    here: ReviewedWorld,
) -> None:
    here.run(pool=FakePool(answer=clerk))
    assert here.run().counts == {"fresh": 3}
    here.write("tags.csv", written(dict(reversed(TAGS.items()))))
    assert here.run().counts == {"fresh": 3}


def test_a_label_that_is_gone_makes_its_own_items_stale(here: ReviewedWorld) -> None:
    here.run(pool=FakePool(answer=clerk))
    here.write("tags.csv", written({name: TAGS[name] for name in ("ferry", "tram")}))
    expected = {"1.txt": "its label is gone: 'bridge' (step 'label')"}
    assert reasons(here.plan()) == expected
    report = here.run(pool=FakePool(answer=clerk))
    assert (reasons(report), report.calls) == (expected, 1)
    assert labelled(report)["1.txt"] == "none of these"
    assert here.run().counts == {"fresh": 3}


def test_a_new_label_may_fit_any_item(here: ReviewedWorld) -> None:
    here.run(pool=FakePool(answer=clerk))
    here.write("tags.csv", written(TAGS | {"canal": "water ways"}))
    why = "new in steps.tags.rows: 'canal' (step 'label')"
    assert reasons(here.plan()) == {f"{number}.txt": why for number in range(3)}
    report = here.run(pool=FakePool(answer=clerk))
    assert reasons(report) == {f"{number}.txt": why for number in range(3)}
    assert states(here.plan()) == {}


def test_a_new_description_may_fit_the_items_of_its_label(here: ReviewedWorld) -> None:
    here.run(pool=FakePool(answer=clerk))
    here.write("tags.csv", written(TAGS | {"tram": "and on roads"}))
    why = "the description of its label changed: 'tram' (step 'label')"
    assert reasons(here.plan()) == {"2.txt": why}


FIELDS = """\
inputs:
  tags: {type: list, default: [ferry, bridge]}
steps:
  - {id: rows, uses: files.rows, with: {path: rows.json}}
  - id: each
    for_each: row in steps.rows.rows
    do:
      - id: label
        uses: chat
        with: {prompt: "About a {{ row.text }}"}
        reply: {schema: {tag: {choose: inputs.tags}, own: {choose: row.may_be, most: 2}}}
    returns: steps.label.output
returns: steps.each.results
"""


def test_an_input_and_a_field_of_the_item_are_lists_too(tmp_path: Path) -> None:
    rows = [{"text": "ferry", "may_be": ["x", "y"]}, {"text": "bridge", "may_be": ["z"]}]
    here = World(tmp_path, FIELDS, {"rows.json": json.dumps(rows)})

    def answer(request: ChatRequest) -> str:
        assert request.constraint is not None
        own = json.loads(request.constraint.source)["properties"]["own"]
        assert own["maxItems"] == 2
        return json.dumps({**json.loads(clerk(request)), "own": (own["items"]["enum"] * 2)[:2]})

    report = here.run(pool=FakePool(answer=answer))
    both = [{"tag": "ferry", "own": ["x", "y"]}, {"tag": "bridge", "own": ["z"]}]
    assert report.returns == both
    assert here.run().counts == {"fresh": 2}
    rows[1]["may_be"] = ["z", "w"]
    here.write("rows.json", json.dumps(rows))
    assert set(reasons(here.plan()).values()) == {None, "no longer in the list"}
    rows[1]["may_be"] = ["z"]
    here.write("rows.json", json.dumps(rows))
    assert list(reasons(here.plan({"tags": ["ferry"]})).values()) == [
        "its label is gone: 'bridge' (step 'label')"
    ]


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ("name,note\n", "'steps.tags.rows' is an empty list: there is no label to choose."),
        ("name,note\na,x\nb,y\na,z\n",
         "'steps.tags.rows' has the label 'a' twice, as number 1 and 3. Remove one of them."),
        ("name,note\nTax return,x\ntax  return,y\n",
         "the labels 'Tax return' and 'tax  return' of 'steps.tags.rows' (numbers 1 and 2) "
         "differ by case or space only. Keep one of them."),
        ("nmae,note\na,x\n",
         "`by`: row 1 of 'steps.tags.rows' has no column 'name'. "
         "Known: 'nmae', 'note'. Did you mean 'nmae'?"),
        ("name,nota\na,x\n",
         "`describe`: row 1 of 'steps.tags.rows' has no column 'note'. "
         "Known: 'name', 'nota'. Did you mean 'nota'?"),
        ("name,note\n,x\n", "label 1 of 'steps.tags.rows' is empty; a label is a text."),
        ("name,note\n\u200b,x\n",
         "label 1 of 'steps.tags.rows' has only characters that cannot be seen."),
        ('name,note\n"a\n- b",x\n',
         "label 1 of 'steps.tags.rows' has a line break, a control character or half of a "
         "surrogate pair: 'a<U+000A>- b'. Remove it."),
        ("name,note\na,x\nb,y\x1bz\n",
         "the description of label 2 of 'steps.tags.rows' has a line break, a control "
         "character or half of a surrogate pair: 'y<U+001B>z'. Remove it."),
        *(
            (
                f"name,note\n{first},x\n{second},y\n",
                f"the labels '{first}' and '{shown}' of 'steps.tags.rows' (numbers 1 and 2) "
                "differ by the form or by invisible characters only. Keep one of them.",
            )
            for first, second, shown in [
                ("caf\u00e9", "cafe\u0301", "cafe\u0301"),
                ("AB", "\uff21\uff22", "\uff21\uff22"),
                ("a", "a\u200b", "a<U+200B>"),
            ]
        ),
        ("name,note\na,x\nNone of these,x\n",
         "`unknown`: 'none of these' is a label of 'steps.tags.rows' as well. Choose other words."),
    ],
)  # fmt: skip
def test_a_list_that_is_none_of_labels_stops_the_run_and_its_plan_with_one_sentence(
    here: ReviewedWorld, tags: str, message: str
) -> None:
    here.write("tags.csv", tags)
    for go in (here.plan, here.run):
        fault = fault_of(go)
        assert fault.message == f"`choose`: {message}"
        assert fault.mark is not None and fault.mark.line == 14


TWO_LISTS = """\
inputs:
  ones: {type: list, default: [alpha, omega]}
  twos: {type: list, default: [beta, gamma]}
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - id: label
        uses: chat
        with: {prompt: "{{ doc.relpath }}"}
        reply: {schema: SCHEMA}
    returns: steps.label.output
returns: steps.each.results
"""


def fields_answered(request: ChatRequest) -> str:
    """Answer each field with the last label that its schema allows."""
    assert request.constraint is not None

    def filled(schema: Any) -> Any:
        if "enum" in schema:
            return schema["enum"][-1]
        return {name: filled(subschema) for name, subschema in schema["properties"].items()}

    return json.dumps(filled(json.loads(request.constraint.source)))


def two_lists(folder: Path, schema: str) -> World:
    return World(folder, TWO_LISTS.replace("SCHEMA", schema), {"inbox/0.txt": "x"})


@pytest.mark.parametrize("name", ["mail.tag", "mail/tag", "''", "'~1'", "."])
def test_a_label_that_is_gone_is_noticed_whatever_its_field_is_called(
    tmp_path: Path, name: str
) -> None:
    here = two_lists(tmp_path, f"{{{name}: {{choose: inputs.ones}}}}")
    here.run(pool=FakePool(answer=fields_answered))
    assert states(here.plan()) == {}
    assert reasons(here.plan({"ones": ["alpha"]})) == {
        "0.txt": "its label is gone: 'omega' (step 'label')"
    }


AT_TAG = "`reply.schema`, at /tag: "


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("choose: steps.tags.rows", "choose: steps.tag.rows", "there is no step 'tag'."),
        ("choose: steps.tags.rows", "choose: steps.tags.row", "step 'tags' has no output 'row'."),
        ("choose: steps.tags.rows", "choose: inputs.tags", "there is no input 'tags'."),
        ("by: name, ", "", f"{AT_TAG}`describe` needs `by`: only rows have columns."),
        ("by: name", "bye: name", f"{AT_TAG}`choose` has no key 'bye'."),
        ("unknown: none of these", "most: 0",
         f"{AT_TAG}`most` must be a whole number above 0; it is '0'."),
        ("unknown: none of these", "unknown: ''",
         f"{AT_TAG}`unknown` must be a text that is not empty; it is ''."),
        ("unknown: none of these", "unknown: '  '",
         f"{AT_TAG}`unknown` has only characters that cannot be seen."),
        ("unknown: none of these", 'unknown: "a\\n- b"', f"{AT_TAG}`unknown` has a line break"),
        ("unknown: none of these", "relabel: some",
         f"{AT_TAG}`relabel` must be 'affected' or 'all'; it is 'some'."),
        ("choose: steps.tags.rows", "choose: 'steps.tags.rows['",
         f"{AT_TAG}cannot read the expression 'steps.tags.rows['"),
        ("choose: steps.tags.rows", "choose: {file: tags.csv}",
         f"{AT_TAG}`choose` must be a text; it is '{{'file': 'tags.csv'}}'. "
         "Read a file with `files.rows`, and name its `rows`."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_choice_is_told_before_anything_runs(
    here: ReviewedWorld, old: str, new: str, message: str
) -> None:
    here.edit(old, new)
    fault = fault_of(here.plan)
    assert f"{fault.message} {fault.remedy}".startswith(message), fault.message
    assert fault.mark is not None and fault.mark.line == 14


MANY = TAGS | {f"tag {number}": "one of very many" for number in range(400)}


def narrowed_world(folder: Path) -> World:
    made = world(folder, MANY)
    made.edit("unknown: none of these", "unknown: none of these, narrow: 20")
    return made


def few(answer: Callable[[ChatRequest], str]) -> FakePool:
    return FakePool(answer=answer, n_ctx_tokens=2000)


def nth(place: int) -> Callable[[ChatRequest], str]:
    return lambda request: json.dumps({"tag": enum_of(request)[place]})


def test_the_nearest_labels_are_offered_where_the_list_is_too_long(tmp_path: Path) -> None:
    here, pool = narrowed_world(tmp_path), few(nth(0))
    report = here.run(pool=pool)
    assert [len(enum_of(request)) for request in pool.chats] == [21, 21, 21]
    for request in pool.chats:
        prompt = request.messages[0].content.split("Where none")[0]
        assert all(f"- {label}: {MANY[label]}\n" in prompt for label in enum_of(request)[:20])
        assert prompt.count("\n- ") == 20
    assert (
        "'label': 3 prompts with the 20 of 403 labels of steps.tags.rows that are nearest to the "
        "text (0.txt, 1.txt, 2.txt)."
    ) in report.notes
    assert not [note for note in report.notes if "border" in note or "without" in note]
    assert sum(len(request.texts) for request in pool.embeds) == 403 + 3, (
        "the list is embedded once"
    )
    assert here.run(pool=few(nth(0))).counts == {"fresh": 3}


def test_with_narrow_a_new_label_is_asked_about_where_it_is_among_the_nearest(
    tmp_path: Path,
) -> None:
    here, pool = narrowed_world(tmp_path), few(nth(0))
    here.run(pool=pool)
    offered = [{*enum_of(request)} for request in pool.chats]
    far = next(label for label in MANY if not any(label in some for some in offered))
    n_near, near = min(
        (sum(label in some for some in offered), label)
        for label in set[str]().union(*offered) - {"none of these"}
    )
    assert 0 < n_near < 3
    for label in (far, near):
        here.write("tags.csv", written({name: MANY[name] for name in MANY if name != label}))
        here.run(pool=few(nth(1)), force=["label"])
        here.write("tags.csv", written(MANY))
        decides = "the nearest labels decide, during the run"
        maybe = f"new in steps.tags.rows: '{label}'; {decides} (step 'label')"
        pool = few(nth(0))
        plan = here.plan(pool=pool)
        assert [*reasons(plan).values()] == [maybe] * 3
        assert plan.least_calls == 0
        head, items, *_ = plan_text(plan).splitlines()
        assert head.endswith(": 0 to 3 of 3 items to do")
        assert items.split("  ")[-2:] == ["3 items", f"({maybe})"]
        assert not pool.embeds, "a plan asks no model"
        report = here.run(pool=pool)
        why = f"new in steps.tags.rows and near its text: '{label}' (step 'label')"
        assert [*reasons(report).values()] == [why] * (n_near if label == near else 0)
        assert states(here.plan(pool=pool)) == {}
        assert here.run(pool=few(nth(0))).counts == {"fresh": 3}


def test_a_person_chooses_from_the_list_and_is_asked_again_when_that_label_is_gone(
    tmp_path: Path,
) -> None:
    here = world(tmp_path, n=1)
    here.edit("    returns: {file", '        review: {when: "true"}\n    returns: {file')
    here.run(pool=FakePool(answer=clerk))
    (review,) = here.waiting().values()
    (field,) = subject_fields(review.subject)
    assert (field.kind, field.choices) == ("choice", (*TAGS, "none of these"))
    with here.reviews() as reviews:
        (fault,) = reviews.check_of(review, {"tag": "tunnel"}).faults()
    what = "It is not in 'tags.csv', from which it is chosen."
    assert (fault.path, fault.message) == ("tag", what)
    here.decide("0.txt", "edit", {"tag": "tram"})
    assert labelled(here.run()) == {"0.txt": "tram"}
    assert here.run().counts == {"fresh": 1}
    here.write("tags.csv", written({name: TAGS[name] for name in ("tram", "bridge")}))
    assert states(here.plan()) == {}, "the label that the model had given does not count"
    here.write("tags.csv", written({**TAGS, "quay": "where ships lie"}))
    assert states(here.plan()) == {}, "a person knew better than any new label"
    here.write("tags.csv", written({"bridge": TAGS["bridge"]}))
    assert reasons(here.plan()) == {"0.txt": "its label is gone: 'tram' (step 'label')"}
    assert here.run(pool=FakePool(answer=clerk)).counts == {"waiting": 1}


def test_a_person_adds_a_row_to_the_table_and_the_decision_stands(tmp_path: Path) -> None:
    here = world(tmp_path, n=2)
    here.edit("    returns: {file", '        review: {when: "true"}\n    returns: {file')
    here.run(pool=FakePool(answer=clerk))
    first, second = here.waiting().values()
    with here.reviews() as reviews:
        for cells, words in (
            ({"name": "tram"}, "'tags.csv' has 'tram' already: choose it in the list."),
            ({"name": "Tram"}, "differ by case or space only. Keep one of them."),
            ({"name": " "}, "is empty; a label is a text."),
            ({"name": "quay", "colour": "red"}, "'tags.csv' has no column 'colour'."),
            ({"name": "quay"}, "Each row of 'tags.csv' has 'note': fill it in as well."),
            (
                {"name": "quay", "note": " "},
                "Each row of 'tags.csv' has 'note': fill it in as well.",
            ),
            ({"name": "quay\nx"}, "A cell is one line of at most 1,000 characters."),
        ):
            with pytest.raises(DecisionRefused) as caught:
                reviews.add_label(first.id, "tag", cells, "ann")
            assert str(caught.value).endswith(words)
        (here.folder / ".~lock.tags.csv#").touch()  # else that program writes over the row
        with pytest.raises(DecisionRefused, match="open in another program"):
            reviews.add_label(first.id, "tag", {"name": "quay", "note": "-"}, "ann")
        (here.folder / ".~lock.tags.csv#").unlink()
        before = (here.folder / "tags.csv").read_text("utf-8")
        assert reviews.add_label(first.id, "tag", {"name": "quay", "note": "=1+1"}, "ann") == "quay"
        assert (here.folder / "tags.csv").read_text("utf-8") == f"{before}quay,'=1+1\n"
        for review in (first, second):  # at once in all questions
            (field,) = subject_fields(reviews.get(review.id).subject)
            assert "quay" in field.choices
    here.decide(first.key, "edit", {"tag": "quay"})
    report = here.run(pool=FakePool(answer=clerk))
    assert labelled(report) == {first.key: "quay"}
    assert (report.calls, report.counts["waiting"]) == (1, 1)  # of the other one alone


def test_a_list_that_is_no_csv_gets_its_labels_there_and_an_edit_names_it(tmp_path: Path) -> None:
    here = world(tmp_path, n=1)
    table = (here.folder / "tags.csv").read_text("utf-8")
    here.write("tags.tsv", table.replace(",", "\t"))
    here.edit("tags.csv", "tags.tsv")
    here.edit("    returns: {file", '        review: {when: "true"}\n    returns: {file')
    here.run(pool=FakePool(answer=clerk))
    ((key, review),) = here.waiting().items()
    with (
        here.reviews() as reviews,
        pytest.raises(DecisionRefused, match=r"add yours in 'tags\.tsv'"),
    ):
        reviews.add_label(review.id, "tag", {"name": "quay", "note": "-"}, "ann")
    with pytest.raises(DecisionRefused, match=r"tag: It is not in 'tags\.tsv', from which"):
        here.decide(key, "edit", {"tag": "wharf"})


def test_rows_that_people_add_at_the_same_time_are_all_there(tmp_path: Path) -> None:
    here = world(tmp_path, n=1)
    here.edit("    returns: {file", '        review: {when: "true"}\n    returns: {file')
    here.run(pool=FakePool(answer=clerk))
    (review,) = here.waiting().values()
    names = [f"quay {n}" for n in range(24)]
    with here.reviews() as reviews, ThreadPoolExecutor(8) as people:
        subject = reviews.get(review.id).subject
        tables, folder = subject.label_tables["tag"], here.folder / ".paddock"
        added = people.map(
            lambda name: add_row(folder, tables, {"name": name, "note": name}), names
        )
        assert [*added] == names
    rows = csv.reader((here.folder / "tags.csv").read_text("utf-8").splitlines())
    assert {row[0] for row in rows} >= {*names}
