"""Items that wait for a person: asked once, decided in the ledger, continued by the next run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest
from paddock.runner.ledger.reviews.reviews import DecisionRefused
from tests.fakes.pool import FakePool
from tests.runner.world import ReviewedWorld, each_document, outputs, reasons, states

BILLS = """\
name: bills
""" + each_document("""\
      - id: bill
        uses: chat
        with: {prompt: "Read: {{ steps.text.text }}"}
        reply: {schema: {number: str, total: float}, check: ["output.total < 1000"]}
        review: {when: "output.total > 50"}
      - uses: files.write
        with: {path: "out/{{ doc.relpath }}", text: "{{ steps.bill.output | tojson }}"}
    returns: {n: steps.bill.output.number, total: steps.bill.output.total, seen: steps.bill.review}
  - uses: files.write
    with:
      path: out/ALL
      text: "{{ steps.each.waiting | tojson }} {{ steps.each.results | tojson }}"
""")


def read_bill(request: ChatRequest) -> str:
    """Answer with the number and the total that the document names, spoiled where it is hotter."""
    text = request.messages[-1].content
    number = re.search(r"bill (\S+)", text)
    total = re.search(r"total (?!VAT)(\S+)", text)
    answer = {"number": number[1] if number else "?", "total": float(total[1]) if total else 0.0}
    return json.dumps(answer)


class Bills(ReviewedWorld):
    """Documents `a.txt` … whose answers are known: bills over 50 are asked about."""

    def bills(self, **totals: float) -> None:
        for name, total in totals.items():
            self.write(f"inbox/{name}.txt", f"bill {name}\ntotal {total}\n")

    def work(self, inputs: Any = None, **options: Any) -> Any:
        pool = options.pop("pool", None) or FakePool(answer=read_bill)
        return self.run(inputs, pool=pool, **options)

    def results(self) -> list[Any]:
        """Return what `ALL` has of the items that are done."""
        return list(json.loads(self.output("ALL").split(" ", 1)[1]))


@pytest.fixture
def bills(tmp_path: Path) -> Bills:
    world = Bills(tmp_path, BILLS)
    world.bills(a=10, b=60, c=70)
    return world


def test_a_due_item_waits_while_the_others_go_on(bills: Bills) -> None:
    report = bills.work()
    assert (report.status, report.exit_status()) == ("completed", 0)
    assert states(report) == {"a.txt": "new", "b.txt": "waiting", "c.txt": "waiting"}
    assert report.as_json()["counts"]["waiting"] == 2
    assert outputs(bills) == ["ALL", "a.txt"]
    assert bills.output("ALL").startswith('["b.txt", "c.txt"] [{"n": "a"')
    assert bills.waiting()["b.txt"].subject.as_json().items() >= {
        "pipeline": "pipeline.yaml", "block": "each", "item": "b.txt", "document": "inbox/b.txt",
        "answer": {"number": "b", "total": 60.0}, "checks": ("output.total < 1000",),
        "when": "output.total > 50",
    }.items()  # fmt: skip


def test_what_waits_is_asked_once_and_costs_nothing_more(bills: Bills) -> None:
    bills.work()
    before = bills.waiting()
    again = bills.work()
    assert states(again) == {"b.txt": "waiting", "c.txt": "waiting"}
    assert (again.calls, again.cached_calls, bills.pool.chats) == (0, 0, [])
    assert bills.waiting() == before
    assert {i.key: i.state for i in bills.plan().items if i.step == "each"} == {
        "a.txt": "fresh", "b.txt": "waiting", "c.txt": "waiting",
    }  # fmt: skip


def test_a_decision_continues_the_item_without_a_model_call(bills: Bills) -> None:
    bills.work()
    bills.decide("b.txt", "accept")
    bills.decide("c.txt", "edit", {"number": "C-1", "total": 7})
    assert reasons(bills.plan()) == {"b.txt": "accepted by ann", "c.txt": "edited by ann"}
    report = bills.work()
    assert states(report) == {"b.txt": "new", "c.txt": "new"}
    assert report.calls == 0
    assert json.loads(bills.output("b.txt")) == {"number": "b", "total": 60.0}
    assert json.loads(bills.output("c.txt")) == {"number": "C-1", "total": 7}
    seen = {result["n"]: result["seen"] for result in bills.results()}
    assert seen["a"] is None
    assert (seen["b"]["state"], seen["b"]["by"]) == ("accepted", "ann")
    assert seen["C-1"]["value"] == {"number": "C-1", "total": 7}
    assert states(bills.work()) == {}


def test_a_rejected_item_is_quarantined_with_the_reason(bills: Bills) -> None:
    bills.work()
    bills.decide("b.txt", "reject", reason="no bill at all")
    report = bills.work()
    assert states(report) == {"b.txt": "quarantined", "c.txt": "waiting"}
    (bad,) = [item for item in report.items if item.state == "quarantined"]
    assert bad.error == "step 'bill': rejected by ann: no bill at all"
    assert report.exit_status() == 3
    again = bills.work()
    assert (again.exit_status(), again.calls) == (0, 0)


def test_after_a_rejection_retry_failed_wants_another_answer(bills: Bills) -> None:
    def other(request: ChatRequest) -> str:
        return '{"number": "other", "total": 80}' if request.params else read_bill(request)

    pool = FakePool(answer=other)
    bills.work(pool=pool)
    bills.decide("b.txt", "reject", reason="wrong number")
    bills.work(pool=pool)
    report = bills.work(pool=pool, retry_failed=True)
    assert states(report) == {"b.txt": "waiting", "c.txt": "waiting"}
    assert report.calls == 1
    review = bills.waiting()["b.txt"]
    assert review.subject.answer == {"number": "other", "total": 80}
    assert [was["state"] for was in review.earlier] == ["rejected"]
    bills.decide("b.txt", "accept")
    report = bills.work(pool=pool)
    assert (report.calls, states(report)["b.txt"]) == (0, "stale")
    assert json.loads(bills.output("b.txt"))["number"] == "other"


@pytest.mark.parametrize(
    ("ends", "state"), [("quarantine", "quarantined"), ("accept", "new"), ("skip", "skipped")]
)
def test_what_nobody_decides_in_time_ends_as_on_expiry_says(
    bills: Bills, ends: str, state: str
) -> None:
    bills.edit('review: {when: "output.total > 50"}',
               f'review: {{when: "output.total > 50", ttl: 1ms, on_expiry: {ends}}}')  # fmt: skip
    assert states(bills.work())["b.txt"] == "waiting"
    assert reasons(bills.plan())["b.txt"] == "no one decided in time"
    report = bills.work()
    assert states(report) == {"b.txt": state, "c.txt": state}
    assert report.calls == 0
    assert (bills.folder / "out/b.txt").exists() == (ends == "accept")
    (error,) = {item.error for item in report.items if item.key == "b.txt"}
    assert error == (None if ends == "accept" else "step 'bill': no one decided in time")
    assert bills.waiting() == {}
    assert states(bills.work()) == ({} if ends == "accept" else {"b.txt": state, "c.txt": state})


def test_retry_failed_asks_again_what_was_not_decided_in_time(bills: Bills) -> None:
    bills.edit('"output.total > 50"', '"output.total > 50", ttl: 1ms')
    bills.work()
    assert states(bills.work()) == {"b.txt": "quarantined", "c.txt": "quarantined"}
    bills.edit("ttl: 1ms", "ttl: 1d")
    report = bills.work(retry_failed=True)
    assert states(report) == {"b.txt": "waiting", "c.txt": "waiting"}
    assert report.calls == 0
    assert [was["state"] for was in bills.waiting()["b.txt"].earlier] == ["expired"]


@pytest.mark.parametrize(
    ("mode", "state", "code"),
    [("fail", "quarantined", 3), ("skip", "skipped", 0), ("accept", "new", 0)],
)
def test_a_run_with_nobody_to_ask_does_as_it_is_told(
    bills: Bills, mode: str, state: str, code: int
) -> None:
    report = bills.work(review=mode)
    assert states(report) == {"a.txt": "new", "b.txt": state, "c.txt": state}
    assert report.exit_status() == code
    assert bills.waiting() == {}
    assert (bills.folder / "out/b.txt").exists() == (mode == "accept")
    later = states(bills.work())
    assert later == ({} if mode == "accept" else {"b.txt": "waiting", "c.txt": "waiting"})


def test_a_review_that_is_no_longer_due_is_withdrawn(bills: Bills) -> None:
    bills.work()
    bills.edit("output.total > 50", "output.total > 65")
    assert reasons(bills.plan())["b.txt"] == "`review.when` changed (step 'bill')"
    report = bills.work()
    assert states(report) == {"a.txt": "stale", "b.txt": "stale", "c.txt": "waiting"}
    assert report.calls == 0
    assert bills.waiting().keys() == {"c.txt"}


def test_an_item_that_fails_before_its_review_leaves_no_question_behind(bills: Bills) -> None:
    bills.work()
    bills.write("inbox/b.txt", "bill b\ntotal unknown\n")  # which the model cannot read
    assert states(bills.work()) == {"b.txt": "quarantined", "c.txt": "waiting"}
    assert bills.waiting().keys() == {"c.txt"}
    assert states(bills.work()) == {"b.txt": "quarantined", "c.txt": "waiting"}


def test_the_decision_on_a_renamed_document_stays(bills: Bills) -> None:
    bills.work()
    bills.decide("b.txt", "accept")
    bills.work()
    (bills.folder / "inbox/b.txt").rename(bills.folder / "inbox/bb.txt")
    assert states(bills.work()) == {"bb.txt": "new", "c.txt": "waiting"}
    assert bills.waiting().keys() == {"c.txt"}


def test_a_forced_step_keeps_the_decision_while_the_answer_is_the_same(bills: Bills) -> None:
    bills.work()
    bills.decide("b.txt", "accept")
    bills.work()
    report = bills.work(force={"bill"})
    assert states(report) == {"a.txt": "stale", "b.txt": "stale", "c.txt": "waiting"}
    assert report.calls == 3


def test_a_fault_in_when_quarantines_the_item_with_its_place(bills: Bills) -> None:
    bills.edit("output.total > 50", "output.number > 50")
    report = bills.work()
    assert states(report)["b.txt"] == "quarantined"
    errors = [str(item.error) for item in report.items if item.step == "each"]
    assert all(error.startswith("step 'bill': `review.when`: ") for error in errors)


NESTED = """\
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: rows, uses: files.rows, with: {path: "{{ doc.path }}"}}
      - id: lines
        for_each: row in steps.rows.rows
        key: row.n
        do:
          - id: bill
            uses: chat
            with: {prompt: "bill {{ row.n }} total {{ row.total }}"}
            reply: {schema: {number: str, total: float}}
            review: {when: "output.total > 50"}
          - uses: files.write
            with: {path: "out/{{ doc.stem }}-{{ row.n }}", text: "={{ steps.bill.output.total }}"}
      - uses: files.write
        with: {path: "out/{{ doc.stem }}", text: "{{ steps.lines.results | length }} lines"}
"""


def test_the_item_around_one_that_waits_waits_too(tmp_path: Path) -> None:
    files = {"inbox/x.csv": "n,total\n1,60\n2,10\n3,70\n", "inbox/y.csv": "n,total\n1,20\n"}
    world = Bills(tmp_path, NESTED, files)
    report = world.work()
    assert states(report) == {"x.csv": "waiting", "y.csv": "new"}
    assert states(report, "lines") == {
        "x.csv/1": "waiting", "x.csv/2": "new", "x.csv/3": "waiting", "y.csv/1": "new",
    }  # fmt: skip
    assert not (tmp_path / "out/x").exists() and (tmp_path / "out/x-2").exists()
    assert states(world.work()) == {"x.csv": "waiting"}
    assert world.waiting().keys() == {"1", "3"}
    world.decide("1", "accept")
    report = world.work()
    assert states(report) == {"x.csv": "waiting"}
    assert states(report, "lines") == {"x.csv/1": "new", "x.csv/3": "waiting"}
    world.decide("3", "reject", reason="no")
    report = world.work()
    assert states(report)["x.csv"] == "new"
    assert (tmp_path / "out/x").read_text() == "2 lines"
    world.undo("3")
    assert states(world.work()) == {"x.csv": "waiting"}


TOP = """\
steps:
  - id: bill
    uses: chat
    with: {prompt: "bill {{ inputs.name }} total 60"}
    reply: {schema: {number: str, total: float}}
    review: {}
  - {id: after, uses: prompt, with: {template: "{{ steps.bill.output.number }}"}}
  - {uses: files.write, with: {path: out/bill, text: "{{ steps.after.text }}"}}
  - {uses: files.write, with: {path: out/other, text: "{{ inputs.name }}"}}
inputs: {name: one}
returns: steps.after.text
"""


@pytest.fixture
def top(tmp_path: Path) -> Bills:
    return Bills(tmp_path, TOP)


def test_what_reads_a_step_that_waits_waits_and_the_rest_is_done(top: Bills) -> None:
    world, out = top, top.folder / "out"
    report = world.work()
    assert (report.status, report.returns) == ("completed", None)
    assert states(report, "bill") == {"bill": "waiting"}
    assert not (out / "bill").exists() and (out / "other").exists()
    assert states(world.work(), "bill") == {"bill": "waiting"}
    assert [item.state for item in world.plan().items if item.step == "bill"] == ["waiting"]
    world.decide("bill", "edit", {"number": "two", "total": 1})
    report = world.work()
    assert (report.returns, report.calls) == ("two", 0)
    assert world.output("bill") == "two"
    assert states(world.work(), "bill") == {}
    assert states(world.work({"name": "three"}), "bill") == {"bill": "waiting"}


def test_a_rejected_answer_of_a_step_outside_of_blocks_fails_the_run(top: Bills) -> None:
    top.work()
    top.decide("bill", "reject", reason="not ours")
    report = top.work()
    assert report.status == "failed"
    assert "rejected by ann: not ours" in str(report.message)


INNER = """\
inputs: {name: x}
steps:
  - id: bill
    uses: chat
    with: {prompt: "bill {{ inputs.name }} total 60"}
    reply: {schema: {number: str, total: float}}
    review: {}
returns: {number: steps.bill.output.number}
"""
OUTER = """\
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: inner, uses: pipeline, with: {file: inner.yaml, inputs: {name: "{{ doc.stem }}"}}}
      - {uses: files.write, with: {path: "out/{{ doc.stem }}", text: "{{ steps.inner.number }}"}}
  - {id: whole, uses: pipeline, with: {file: inner.yaml, inputs: {name: whole}}}
  - {uses: files.write, with: {path: out/whole, text: "{{ steps.whole.number }}"}}
"""


def test_a_pipeline_that_waits_makes_the_step_that_runs_it_wait(tmp_path: Path) -> None:
    world = Bills(tmp_path, OUTER, {"inner.yaml": INNER})
    world.bills(a=1, b=2)
    report = world.work()
    assert report.status == "completed"
    assert states(report) == {"a.txt": "waiting", "b.txt": "waiting"}
    assert world.decide_all("accept") == 3
    report = world.work()
    assert (states(report), report.calls) == ({"a.txt": "new", "b.txt": "new"}, 0)
    written = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert written == {"a": "a", "b": "b", "whole": "whole"}
    assert states(world.work()) == {}


# What reaches questions that are open, and what a decision leaves as it was


def _review(bills: Bills, written: str) -> None:
    """Replace the step's `review`."""
    text = bills.file.read_text()
    bills.file.write_text(re.sub(r"review: \{.*\}", f"review: {written}", text, count=1))


def test_changed_reviewers_and_times_reach_open_questions(bills: Bills) -> None:
    _review(bills, '{when: "output.total > 50", by: [ann], ttl: 1d}')
    bills.work()
    before = bills.waiting()["b.txt"]
    assert (before.subject.by, before.expires_at) == (("ann",), before.asked_at + 86400)
    _review(bills, '{when: "output.total > 50", by: [ben], ttl: 2d, on_expiry: skip}')
    bills.plan()
    assert bills.waiting()["b.txt"] == before  # a plan changes nothing
    report = bills.work()
    assert (states(report)["b.txt"], report.calls) == ("waiting", 0)
    after = bills.waiting()["b.txt"]
    assert (after.subject.by, after.subject.on_expiry) == (("ben",), "skip")
    assert (after.asked_at, after.expires_at) == (before.asked_at, before.asked_at + 2 * 86400)
    with bills.reviews() as reviews, pytest.raises(DecisionRefused, match="Its reviewers are: ben"):
        reviews.decide(after.id, after.question, "accept", by="ann")
    _review(bills, '{when: "output.total > 50"}')
    bills.work()
    last = bills.waiting()["b.txt"]
    assert (last.subject.by, last.expires_at) == ((), None)


def test_a_table_says_how_much_of_it_waits(bills: Bills) -> None:
    all_results = bills.text[
        bills.text.index("  - uses: files.write\n    with:\n      path: out/ALL") :
    ]
    with_rows = 'with: {path: out/all.csv, rows: "{{ steps.each.results }}"}'
    bills.edit(all_results, f"  - {{id: table, uses: files.write, {with_rows}}}\n")
    report = bills.work()
    note = "'table' is made without 2 of 3 items of 'each': 2 wait for review (b.txt, c.txt)."
    assert report.notes == (note,)
    assert bills.output("all.csv").count("\n") == 2
    marked = 'rows: "{{ steps.each.results }}", waiting: "{{ steps.each.waiting }}"'
    bills.edit('rows: "{{ steps.each.results }}"', marked)
    assert bills.work().notes == ()
    assert bills.output("all.csv").splitlines()[0].endswith(",waiting")
    assert bills.output("all.csv").splitlines()[2:] == ["b.txt,,,true", "c.txt,,,true"]
    bills.decide_all("accept")
    bills.work()
    marks = [line.rpartition(",")[2] for line in bills.output("all.csv").splitlines()]
    assert marks == ["waiting", "false", "false", "false"]


TABLES = """  - id: table
    uses: files.write
    with: {path: out/all.csv, rows: "{{ steps.each.results }}"}
  - id: page
    uses: files.write
    with: {path: out/page.txt, text: "{{ steps.each.results | tojson }}"}
returns: {counts: steps.each.counts, table: steps.table.path}
"""


def test_what_waits_and_what_failed_are_told_apart_and_empty_no_page(bills: Bills) -> None:
    bills.edit(bills.text[bills.text.index("  - uses: files.write\n    with:\n") :], TABLES)
    bills.write("inbox/c.txt", "bill c\ntotal 5000\n")  # its check fails
    bills.work()
    before = bills.output("page.txt")
    (bills.folder / "inbox/a.txt").unlink()
    report = bills.work()
    why = "no item of 'each' has a result: 1 failed, 1 waits for review"
    left = f"'page' is left as it is: {why}."
    assert (left in report.notes, bills.output("page.txt")) == (True, before)
    assert report.returns["counts"]["waiting"] == report.returns["counts"]["quarantined"] == 1
    assert left in bills.plan().remarks
    marked = 'rows: "{{ steps.each.results }}", waiting: "{{ steps.each.waiting }}"'
    bills.edit('rows: "{{ steps.each.results }}"', marked)
    bills.bills(d=70)
    for _ in range(2):  # what waits is known to the table, also what came since it was written
        report = bills.work()
        assert "'table' is made without 1 of 3 items of 'each': 1 failed (c.txt)." in report.notes
        rows = [line.split(",") for line in bills.output("all.csv").splitlines()[1:]]
        assert [(row[0], row[-1]) for row in rows] == [("b.txt", "true"), ("d.txt", "true")]
