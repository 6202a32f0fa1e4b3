"""Decisions become tests: a document, its recorded replies, and the decided value."""

import json
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest
from paddock.pipelines.yaml_source import parse_yaml
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.reviews.reviews import Question, Review, Subject
from paddock.runner.review.decisions import LedgerReviews
from paddock.runner.testing import suite_runner
from paddock.runner.testing.reviewed_cases import (
    CaseLeftOut,
    ExportedCases,
    case_name,
    export_cases,
    summary,
    with_tests,
)
from paddock.runner.testing.suite_runner import SuiteOptions
from tests.fakes.pool import FakePool
from tests.runner.testing.bench import Nobody
from tests.runner.world import World

BILLS = """\
name: bills
inputs:
  folder: {type: dir, default: ./inbox}
steps:
  - {id: docs, uses: files.scan, with: {root: "{{ inputs.folder }}"}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - id: bill
        uses: chat
        with: {prompt: "Read: {{ steps.text.text }}"}
        reply: {schema: {number: str, total: float}}
      - uses: files.write
        with: {path: "out/{{ doc.relpath }}.json", text: "{{ steps.bill.output | tojson }}"}
    returns: steps.bill.output.total
returns: {totals: steps.each.results}
"""


def misread(request: ChatRequest) -> str:
    """Answer with the document's first word as the number and always the same total."""
    words = request.messages[-1].content.removeprefix("Read: ").split()
    return json.dumps({"number": words[0], "total": 62.0})


class Bills(World):
    """Invoices that a model has read, some of them wrongly."""

    def __init__(self, folder: Path, text: str = BILLS) -> None:
        super().__init__(folder, text)
        for name in ("a", "b", "c"):
            self.write(f"inbox/{name}.txt", f"{name}-17 total 84.00")
        self.last = self.run(pool=FakePool(answer=misread))

    def ask(self, name: str, answer: Any = None, **subject: Any) -> Review:
        with Ledger(self.folder / ".paddock") as ledger:
            ((scope,),) = ledger.rows("select scope from scopes where step = 'each'")
            (source,) = ledger.rows(
                "select made from provenance where scope = :scope and key = :key",
                scope=scope,
                key=f"{name}.txt",
            )
            defaults = {
                "pipeline": "pipeline.yaml", "block": "each", "item": f"{name}.txt",
                "document": f"inbox/{name}.txt",
                "document_sha256": json.loads(source[0])["source"]["sha256"],
                "answer": answer or {"number": f"{name}-17", "total": 62.0},
                "schema": {"type": "object"}, "checks": [], "by": [],
            }  # fmt: skip
            question = Question(
                scope, f"{name}.txt", "bill", self.last.run, Subject.of({**defaults, **subject})
            )
            return ReviewStore(ledger).ask(question)

    def decide(self, review: Review, verb: Any, value: Any = None, reason: str = "") -> None:
        with Ledger(self.folder / ".paddock") as ledger:
            reviews = LedgerReviews(ledger)
            reviews.decide(review.id, review.question, verb, value, reason=reason, by="ann")

    def export(self) -> ExportedCases:
        with Ledger(self.folder / ".paddock", is_readonly=True) as ledger:
            decided = LedgerReviews(ledger).decided(is_whole=True)
            return export_cases(
                self.file, ledger, decided, SuiteOptions("record", pool=AskedNothing())
            )

    def tests(self) -> list[dict[str, Any]]:
        data = parse_yaml(self.file.read_text(), "pipeline.yaml").data
        return list(data.get("tests", []))


class AskedNothing(FakePool):
    """A pool that knows its models and answers nothing."""

    def chat(self, request: ChatRequest) -> Any:
        raise AssertionError("a model was asked")


@pytest.fixture
def bills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bills:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    bills = Bills(tmp_path / "bills")
    monkeypatch.chdir(bills.folder)
    return bills


def replayed(bills: Bills) -> dict[str, bool]:
    (suite,) = suite_runner.run_suites(
        [suite_runner.read_suite(bills.file)], SuiteOptions("replay", pool=Nobody())
    )
    return {case.name: case.passed for case in suite.cases}


def test_decisions_become_tests_that_pass_without_a_model(bills: Bills) -> None:
    edited, accepted = bills.ask("a"), bills.ask("b")
    bills.decide(edited, "edit", {"number": "a-17", "total": 84.0})
    bills.decide(accepted, "accept")
    done = bills.export()
    assert done.left_out == ()
    assert set(done.made) == {case_name(edited), case_name(accepted)}
    assert summary(done, bills.file) == (
        "Added 2 tests to pipeline.yaml, with replies in tests/cassettes. `paddock test` runs them."
    )
    test = next(entry for entry in bills.tests() if entry["name"] == case_name(edited))
    assert test == {
        "name": f"review {edited.id}: a.txt, step bill",
        "files": ["**/*", "!/inbox/**", "/inbox/a.txt"],
        "replay": "tests/cassettes",
        "review": "accept",
        "expect": [{"file": "out/a.txt.json", "equals": {"number": "a-17", "total": 84.0}}],
    }
    assert replayed(bills) == {case_name(edited): True, case_name(accepted): True}


def test_an_exported_test_fails_while_a_model_still_answers_wrongly(bills: Bills) -> None:
    edited = bills.ask("a")
    bills.decide(edited, "edit", {"number": "a-17", "total": 84.0})
    bills.export()
    (cassette,) = (bills.folder / "tests/cassettes").iterdir()
    cassette.unlink()
    (suite,) = suite_runner.run_suites(
        [suite_runner.read_suite(bills.file)], SuiteOptions("record", pool=FakePool(answer=misread))
    )
    assert not suite.cases[0].passed
    assert suite.cases[0].problems[0].message.startswith("'out/a.txt.json' is not equal")


def test_the_text_of_the_pipeline_stays_and_a_second_export_adds_nothing(bills: Bills) -> None:
    bills.decide(bills.ask("a"), "accept")
    bills.export()
    text = bills.file.read_text()
    assert text.startswith(BILLS)
    again = bills.export()
    assert (again.made, again.n_known) == ((), 1)
    assert bills.file.read_text() == text
    assert summary(again, bills.file) == "No test was added to pipeline.yaml; 1 were there."


def test_what_cannot_be_a_test_is_left_out_with_a_sentence(bills: Bills) -> None:
    changed, rejected, unknown = bills.ask("a"), bills.ask("b"), bills.ask("c")
    bills.decide(changed, "accept")
    bills.decide(rejected, "reject", reason="no invoice")
    bills.decide(unknown, "accept")
    bills.write("inbox/a.txt", "another text")
    bills.edit("Read: {{", "Read this: {{")
    done = bills.export()
    assert done.made == ()
    assert sorted(done.left_out) == [
        "a.txt: its document has changed since the decision",
        "c.txt: the run ended as 'quarantined', not as 'completed'. each c.txt: step 'bill': the "
        "ledger has no reply to this prompt; run the pipeline first.",
    ]
    assert not (bills.folder / "tests").exists() or not any(
        (bills.folder / "tests/cassettes").iterdir()
    )


def test_a_value_that_shows_nowhere_makes_no_test(bills: Bills) -> None:
    bills.edit('text: "{{ steps.bill.output | tojson }}"', "text: done")
    bills.edit("returns: steps.bill.output.total", "returns: doc.relpath")
    bills.last = bills.run(pool=FakePool(answer=misread))
    bills.decide(bills.ask("a"), "accept")
    assert bills.export().left_out == (
        "a.txt: nothing that the pipeline writes or returns shows the decided value",
    )


def test_a_value_is_claimed_where_the_run_returns_it_or_a_text_has_it(bills: Bills) -> None:
    bills.edit("doc.relpath }}.json", "doc.relpath }}.md")
    bills.edit("| tojson }}", "}} of {{ steps.bill.output.number }}")
    bills.edit("returns: steps.bill.output.total", "returns: steps.bill.output")
    bills.last = bills.run(pool=FakePool(answer=misread))
    bills.decide(bills.ask("b"), "accept")
    bills.export()
    assert bills.tests()[0]["expect"] == [
        {"of": "returns.totals[0]", "equals": {"number": "b-17", "total": 62.0}}
    ]
    bills.text = bills.file.read_text()
    bills.edit("returns: steps.bill.output", "returns: doc.relpath")
    bills.last = bills.run(pool=FakePool(answer=misread))
    bills.decide(bills.ask("c"), "accept")
    bills.export()
    assert bills.tests()[1]["expect"] == [
        {"file": "out/c.txt.md", "contains": ["c-17", "62.0"]}
    ]  # fmt: skip


ASKING = BILLS.replace(
    "reply: {schema: {number: str, total: float}}",
    "reply: {schema: {number: str, total: float}, evidence: steps.text}\n"
    "        review: {when: evidence.missing}",
)


@pytest.mark.parametrize("continues", [False, True], ids=["at once", "continued"])
def test_answers_that_a_run_asked_about_become_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, continues: bool
) -> None:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    bills = Bills(tmp_path / "bills", ASKING)
    monkeypatch.chdir(bills.folder)
    with Ledger(bills.folder / ".paddock", is_readonly=True) as ledger:
        found = LedgerReviews(ledger).waiting(is_whole=True)
    waiting = sorted(found, key=lambda review: review.key)
    assert [review.key for review in waiting] == ["a.txt", "b.txt", "c.txt"]
    for review in waiting[:2]:
        bills.decide(review, "edit", {"number": review.key[0] + "-17", "total": 84.0})
    if continues:
        assert bills.run(pool=AskedNothing()).counts["waiting"] == 1
    done = bills.export()
    assert (len(done.made), done.left_out) == (2, ())
    assert set(replayed(bills).values()) == {True}


def test_a_test_may_say_what_becomes_of_answers_that_are_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    tests = "".join(
        f"  - name: {name}\n    review: {name}\n    expect:\n      - {{check: '{check}'}}\n"
        for name, check in [
            ("ask", "report.counts.waiting == 3"), ("accept", "returns.totals == [62.0] * 3"),
        ]
    )  # fmt: skip
    bills = Bills(tmp_path / "bills", f"{ASKING}tests:\n{tests}")
    (suite,) = suite_runner.run_suites(
        [suite_runner.read_suite(bills.file)], SuiteOptions("auto", pool=FakePool(answer=misread))
    )
    assert [case.problems for case in suite.cases] == [(), ()]


@pytest.mark.parametrize(
    ("text", "added"),
    [
        ("steps: []\n", "steps: []\n\ntests:\n  - name: new\n"),
        ("steps: []\ntests:\n  - name: old\n", "steps: []\ntests:\n  - name: old\n  - name: new\n"),
        (
            "tests:\n- name: old  # a comment\n\n# the steps\nsteps: []\n",
            "tests:\n- name: old  # a comment\n- name: new\n\n# the steps\nsteps: []\n",
        ),
        ("steps: []\r\ntests:\r\n    - name: old\r\n",
         "steps: []\r\ntests:\r\n    - name: old\r\n    - name: new\r\n"),
    ],
)  # fmt: skip
def test_tests_are_added_at_the_end_of_the_list_and_nothing_else_moves(
    text: str, added: str
) -> None:
    assert with_tests(text, [{"name": "new"}], "x.yaml") == added


def test_tests_in_one_line_are_not_touched() -> None:
    with pytest.raises(CaseLeftOut) as caught:
        with_tests("tests: [{name: old}]\nsteps: []\n", [{"name": "new"}], "x.yaml")
    assert str(caught.value) == (
        "`tests` of 'x.yaml' cannot be added to: write it as a list with a line for each `-`."
    )
