"""What a person decided stands until they take it back, and reaches what was filed."""

import csv
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from paddock.engine.request import ChatRequest
from paddock.runner.progress.report import Report
from paddock.runner.schedule.decision_orders import decided_runs
from tests.fakes.invoices import Made, hybrid
from tests.fakes.pool import FakePool
from tests.runner.core.random_histories import in_a_process, rows_of
from tests.runner.core.test_waiting import read_bill
from tests.runner.world import ReviewedWorld, each_document, states

T = TypeVar("T")
BILL = """\
      - id: bill
        uses: chat
        with: {prompt: "Read: {{ steps.text.text }}"}
        reply: {schema: {number: str, total: float}}
        review: {when: "output.total > 50"}
"""
MOVE = """\
      - uses: files.write
        with: {path: "out/{{ doc.sha256[:8] }}.txt", text: "{{ OF }}"}
      - {uses: files.move, with: {path: "{{ doc.path }}", to: "filed/{{ OF }}/"}}
"""
MOVE_N = MOVE.replace("OF", "steps.bill.output.number")
FACTS = ["doc.modified | date", "doc.size", "doc.name", "doc.stem", "doc.suffix", "doc.relpath"]
AT = f"[{', '.join(FACTS)}] | join(' ')"
TABLE = '  - {uses: files.write, with: {path: out/t.csv, rows: "{{ steps.LAST.results }}"}}\n'
ONE = (
    each_document(BILL + MOVE_N)
    + f"""\
    returns:
      file: doc.relpath
      n: steps.bill.output.number
      t: steps.bill.output.total
      at: "{AT}"
"""
    + TABLE.replace("LAST", "each")
)
IN_TWO_BLOCKS = (
    each_document(BILL)
    + f"""\
    returns:
      at: "{AT}"
      file: doc.relpath
      path: doc.path
      sha256: doc.sha256
      modified: doc.modified
      n: steps.bill.output.number
      t: steps.bill.output.total
  - id: known
    uses: sql
    with: {{tables: {{t: "{{{{ steps.each.results }}}}"}}, query: select * from t order by file}}
  - id: file
    for_each: doc in steps.known.rows
    key: doc.file
    do:
"""
    + MOVE.replace("OF", "doc.n")
    + "    returns: {file: doc.file, n: doc.n, t: doc.t, at: doc.at, day: doc.modified | date}\n"
    + TABLE.replace("LAST", "file")
)


class Office(ReviewedWorld):
    def work(self, **options: Any) -> Report:
        return self.run(pool=FakePool(answer=read_bill), **options)

    def arrive(self, **totals: float) -> None:
        for name, total in totals.items():
            self.write(f"inbox/{name}.txt", f"bill {name}\ntotal {total}\n")

    def says(self, number: str, total: float) -> Report:
        """Decide on `b.txt`, once more where that was done before."""
        if "b.txt" not in self.waiting():
            self.undo("b.txt")
        self.decide("b.txt", "edit", {"number": number, "total": total})
        assert self.plan().calls in (0, None)  # of a second block it is not known
        report = self.work()
        assert (report.status, report.calls) == ("completed", 0)
        assert not self.plan().has_work
        return report

    def from_here(self, cases: Iterable[T], kept: Path) -> Iterator[T]:
        """Yield each case with the folder as it is now, of which a copy is kept."""
        shutil.copytree(self.folder, kept, dirs_exist_ok=True)
        for case in cases:
            shutil.rmtree(self.folder)
            shutil.copytree(kept, self.folder)
            yield case

    def due(self) -> int:
        """Return on how many decisions `up` would go on with a run."""
        with self.reviews() as reviews:
            return sum(len(run.decisions) for run in decided_runs(reviews, self.file))

    def table(self) -> dict[str, tuple[str, float]]:
        rows = csv.DictReader(self.output("t.csv").splitlines())
        return {row["file"]: (row["n"], float(row["t"])) for row in rows}

    def filed(self) -> dict[str, str]:
        folder = self.folder / "filed"
        return {p.name: p.parent.name for p in folder.rglob("*") if p.is_file()}


IN_THREE_BLOCKS = IN_TWO_BLOCKS.replace(
    "  - id: each\n    for_each: doc in steps.docs.files\n    do:\n",
    """\
  - id: texts
    for_each: doc in steps.docs.files
    do: [{id: first, uses: files.read, with: {path: "{{ doc.path }}"}}]
    returns:
      {path: doc.path, relpath: doc.relpath, name: doc.name, stem: doc.stem, suffix: doc.suffix,
       size: doc.size, modified: doc.modified, sha256: doc.sha256, text: steps.first.text}
  - id: each
    for_each: doc in steps.texts.results
    key: doc.relpath
    do:
""",
).replace(
    '{id: text, uses: files.read, with: {path: "{{ doc.path }}"}}',
    '{id: text, uses: prompt, with: {template: "{{ doc.text }}"}}',
)


FILES = IN_TWO_BLOCKS.index("  - id: known")
THROUGH_INPUTS = f"""\
{IN_TWO_BLOCKS[:FILES]}  - id: sub
    uses: pipeline
    with: {{file: sub.yaml, inputs: {{rows: "{{{{ steps.each.results }}}}"}}}}
""" + TABLE.replace("steps.LAST.results", "steps.sub.rows")
FILING_SUB = (
    "inputs: {rows: {type: list}}\nsteps:\n  - id: file\n    for_each: doc in inputs.rows\n"
    "    key: doc.file ~ ' ' ~ doc.sha256[:6]\n    do:\n"
    + IN_TWO_BLOCKS[FILES:].partition("    do:\n")[2].removesuffix(TABLE.replace("LAST", "file"))
    + "returns: {rows: steps.file.results}\n"
)


IN_ROWS = TABLE.replace(
    "steps.LAST.results", "steps.rows.results | map(attribute='rows') | flatten | list"
)
OF_EACH = f"""\
{IN_TWO_BLOCKS[:FILES]}  - id: rows
    for_each: r in steps.each.results
    key: r.file ~ ' ' ~ r.sha256[:6]
    do: [{{id: sub, uses: pipeline, with: {{file: sub.yaml, inputs: {{rows: "{{{{ [r] }}}}"}}}}}}]
    returns: {{rows: steps.sub.rows}}
{IN_ROWS}"""
OF_EACH_NUMBER = OF_EACH.replace(
    "[r]", "steps.each.results | selectattr('n', 'eq', r) | list"
).replace(
    "r in steps.each.results\n    key: r.file ~ ' ' ~ r.sha256[:6]",
    "r in steps.each.results | map(attribute='n') | unique | sort",
)
OFFICES = {
    "one block": (ONE, ""),
    "two blocks": (IN_TWO_BLOCKS, ""),
    "three blocks": (IN_THREE_BLOCKS, ""),
    "through inputs": (THROUGH_INPUTS, FILING_SUB),
    "a pipeline for each result": (OF_EACH, FILING_SUB),
    "a pipeline for each number": (OF_EACH_NUMBER, FILING_SUB),
}


@pytest.fixture(scope="module")
def offices() -> dict[str, Path]:
    """Return where the folder of each office stands once `b.txt` waits, as far as they are made."""
    return {}


@pytest.fixture(params=OFFICES)
def office(
    request: pytest.FixtureRequest, tmp_path: Path, offices: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Office:  # fmt: skip
    text, sub = OFFICES[request.param]
    if request.param not in offices:
        offices[request.param] = tmp_path_factory.mktemp("office")
        first = Office(offices[request.param], f"name: bills\n{text}", {"sub.yaml": sub})
        first.arrive(a=10, b=60)
        first.work()
    shutil.copytree(offices[request.param], tmp_path, dirs_exist_ok=True)
    return Office(tmp_path, f"name: bills\n{text}")


IN_A_PIPELINE = """\
steps:
  - {id: sub, uses: pipeline, with: {file: sub.yaml}}
""" + TABLE.replace("steps.LAST.results", "steps.sub.rows")
READ_AGAIN = '      - {id: again, uses: files.read, with: {path: "{{ doc.path }}"}}\n'
OF_ONE_NAME = {
    "one block": (ONE, ""),
    "read again behind the decision": (
        ONE.replace("      - uses: files.write", f"{READ_AGAIN}      - uses: files.write"),
        "",
    ),
    "two blocks": (IN_TWO_BLOCKS, ""),
    "two blocks, by name and digest": (
        IN_TWO_BLOCKS.replace("key: doc.file", "key: doc.file ~ ' ' ~ doc.sha256[:6]"),
        "",
    ),
    "two blocks, through inputs": (THROUGH_INPUTS, FILING_SUB),
    "a pipeline for each result": (OF_EACH, FILING_SUB),
    "a pipeline that a step runs": (
        IN_A_PIPELINE,
        ONE.replace(TABLE.replace("LAST", "each"), "returns: {rows: steps.each.results}\n"),
    ),
}


@pytest.mark.parametrize("form", OF_ONE_NAME)
def test_a_correction_reaches_each_of_three_documents_of_one_name(
    tmp_path: Path, form: str
) -> None:
    text, sub = OF_ONE_NAME[form]
    office = Office(tmp_path, f"name: bills\n{text}", {"sub.yaml": sub} if sub else {})
    told = {"b.txt": "A", "b.txt#2": "B", "b.txt#3": "C"}
    for n, (key, number) in enumerate(told.items()):
        office.arrive(b=60 + n)
        office.work()
        office.decide(key, "edit", {"number": number, "total": 60})
        office.work()
    for key, number in (("b.txt", "D"), ("b.txt#2", "E"), ("b.txt#3", "F"), ("b.txt", "G")):
        office.undo(key)
        told[key] = number
        if number in "EF":  # undone and decided before a run
            office.work()
        office.decide(key, "edit", {"number": number, "total": 60})
        plan, report = office.plan(), office.work()
        assert (report.status, report.calls, plan.calls or 0) == ("completed", 0, 0)
        assert not any("Gone or edited" in note for note in report.notes)
        rows = csv.DictReader(office.output("t.csv").splitlines())
        assert [row["n"] for row in rows] == [*told.values()]
        places = [p.parent.name for p in (tmp_path / "filed").rglob("*") if p.is_file()]
        assert sorted(places) == sorted(outputs_of(office)) == sorted(told.values())
    assert not office.plan().has_work
    office.undo("b.txt#2")
    office.decide("b.txt#2", "reject", reason="no")
    for _ in range(2):
        assert office.work().status == "quarantined"
        rows = csv.DictReader(office.output("t.csv").splitlines())
        assert [row["n"] for row in rows] == ["G", "F"]


def outputs_of(office: Office) -> list[str]:
    return sorted(p.read_text() for p in (office.folder / "out").glob("*.txt"))


def test_a_correction_after_filing_moves_and_rewrites_what_was_filed(office: Office) -> None:
    for number, total in (("B", 700.0), ("C", 90.0), ("B", 700.0)):
        for _ in range(2):
            office.says(number, total)
            assert office.table() == {"a.txt": ("a", 10.0), "b.txt": (number, total)}
            assert office.filed() == {"a.txt": "a", "b.txt": number}
            assert outputs_of(office) == [number, "a"]
        assert not any(item.state == "deleted" for item in office.work(prune=True).items)
        assert office.table()["b.txt"] == (number, total)
    assert office.work().written == ()


def test_a_correction_arrives_though_a_killed_run_has_noted_where_the_document_goes(
    office: Office,
) -> None:
    office.says("B", 700)
    office.work()  # as the one that is killed begins with: what left its list is filed
    with closing(sqlite3.connect(office.folder / ".paddock/ledger.sqlite")) as database:
        moving = (
            "select scope, key from events where path = 'inbox/b.txt' and reads like '%\"away\"%'"
        )
        noted = "update events set target = 'filed/C/b.txt', (scope, key) = "
        last = "select max(n) from events where origin = 'inbox/b.txt'"
        noted += f"({moving} limit 1) where n = ({last})"
        assert database.execute(noted).rowcount == 1
        database.commit()
    office.says("C", 90)
    assert (office.table()["b.txt"], office.filed()["b.txt"]) == (("C", 90.0), "C")


def test_an_undone_decision_takes_its_row_back_and_is_asked_again(office: Office) -> None:
    office.says("B", 700)
    for _ in range(2):
        office.undo("b.txt")
        assert office.due() == 1
        for _ in range(2):
            report = office.work()
            assert (office.table(), report.outdated) == ({"a.txt": ("a", 10.0)}, {})
            assert office.waiting().keys() == {"b.txt"}
            assert not office.due()
        office.says("C", 90)
        assert office.table()["b.txt"] == ("C", 90.0)


def test_a_decision_about_what_a_document_said_before_is_none_about_what_was_filed(
    office: Office,
) -> None:
    office.decide("b.txt", "edit", {"number": "B", "total": 700})
    office.arrive(b=20)  # of which no one is asked
    office.work()
    (office.folder / "filed/b/b.txt").unlink()
    office.undo("b.txt")
    for _ in range(2):
        office.work()
        assert office.table() == {"a.txt": ("a", 10.0), "b.txt": ("b", 20.0)}
        assert not office.waiting()


def test_nor_about_what_a_document_says_now_that_stays_where_it_is(tmp_path: Path) -> None:
    office = Office(tmp_path, f"name: bills\n{ONE.replace(MOVE_N, '')}")
    office.arrive(a=10, b=60)
    office.work()
    office.decide("b.txt", "edit", {"number": "B", "total": 700})
    office.arrive(b=20)
    office.work()
    office.undo("b.txt")
    for _ in range(2):
        office.work()
        assert office.table() == {"a.txt": ("a", 10.0), "b.txt": ("b", 20.0)}
        assert not office.waiting()


def test_the_only_row_of_a_table_goes_with_its_decision(office: Office) -> None:
    office.says("B", 700)
    (office.folder / "filed/a/a.txt").unlink()
    office.work(prune=True)
    assert office.table().keys() == {"b.txt"}
    office.undo("b.txt")
    office.work()
    assert office.table() == {}


LATER_LISTS = {
    "where": IN_TWO_BLOCKS.replace("key: doc.file\n", "key: doc.file\n    where: doc.n != 'Z'\n"),
    "sql": IN_THREE_BLOCKS.replace("from t order", "from t where n != 'Z' order"),
    "results": IN_THREE_BLOCKS.replace(
        "steps.known.rows", "steps.each.results | rejectattr('n', 'eq', 'Z') | list"
    ),
    "inputs": IN_TWO_BLOCKS.replace("steps:", "inputs: {no: {type: str, default: Z}}\nsteps:")
    .replace("from t order", "from t where n != $no order")
    .replace("query: select", 'values: {no: "{{ inputs.no }}"}, query: select'),
    "now": IN_TWO_BLOCKS.replace(
        "steps.known.rows", "steps.each.results | rejectattr('n', 'eq', 'Z' if now else '') | list"
    ),
}


@pytest.mark.parametrize("form", LATER_LISTS)
def test_a_row_goes_where_a_correction_leaves_its_document_out_of_the_later_list(
    tmp_path: Path, form: str
) -> None:
    office = Office(tmp_path, f"name: bills\n{LATER_LISTS[form]}")
    office.arrive(a=10, b=60)
    office.work()
    office.says("B", 700)
    for number in ("C", "D"):
        (page,) = [p for p in (tmp_path / "out").glob("*.txt") if p.read_text() != "a"]
        report = office.says("Z", 700)
        assert [*report.outdated] == [f"out/{page.name}"]
        assert any("1 fewer than before" in note for note in report.notes)
        assert office.table() == {"a.txt": ("a", 10.0)}
        assert {*office.filed()} == {"a.txt", "b.txt"}
        office.work(prune=True)
        assert outputs_of(office) == ["a"]
        office.says(number, 700)
        assert (office.table()["b.txt"], office.filed()["b.txt"]) == ((number, 700.0), number)


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_rejection_after_filing_takes_the_row_back_and_is_named(
    office: Office, is_gone: bool
) -> None:
    office.says("B", 700)
    if is_gone:
        (office.folder / "filed/B/b.txt").unlink()
    office.undo("b.txt")
    office.decide("b.txt", "reject", reason="no bill")
    for _ in range(3):
        report = office.work()
        assert office.table().keys() == {"a.txt"}
        assert states(report)["b.txt"] == states(office.plan())["b.txt"] == "quarantined"
    if is_gone:
        office.undo("b.txt")
        office.decide("b.txt", "edit", {"number": "C", "total": 90})
        office.work()
        assert office.table()["b.txt"] == ("C", 90.0)
        return
    office.says("C", 90)
    assert office.table()["b.txt"] == ("C", 90.0)
    assert office.filed()["b.txt"] == "C"


def test_a_filed_document_that_failed_and_is_gone_is_named_and_can_be_tried_again(
    office: Office,
) -> None:
    office.says("B", 700)
    (office.folder / "filed/B/b.txt").rename(office.folder / "kept.txt")
    office.says("C", 90)
    with closing(sqlite3.connect(office.folder / ".paddock/ledger.sqlite")) as ledger, ledger:
        lost = "state = 'quarantined', returns = 'null', error = 'bad'"
        of_each = "scope in (select scope from scopes where step = 'each')"
        ledger.execute(
            f"update events set {lost} where kind = 'ended' and {of_each} and key = 'b.txt'"
        )
        state = "update items set state = 'quarantined'"
        ledger.execute(f"{state} where {of_each} and key = 'b.txt'")
    for _ in range(2):
        assert states(office.work())["b.txt"] == "quarantined"
    office.work(retry_failed=True)
    assert states(office.work()) == {}
    assert office.table()["b.txt"] == ("C", 90.0)


def test_a_correction_reaches_its_row_where_the_document_is_gone(
    office: Office, tmp_path_factory: pytest.TempPathFactory
) -> None:
    os.utime(office.folder / "inbox/b.txt", (1e9, 1e9))  # it waits
    office.says("B", 700)
    changes = ("removed", "edited", "moved", "replaced")
    for change in office.from_here(changes, tmp_path_factory.mktemp("here")):
        _correct_where_it_is_gone(office, change)


def _correct_where_it_is_gone(office: Office, change: str) -> None:
    path = office.folder / "filed/B/b.txt"
    if change == "edited":
        path.write_text("bill z\ntotal 1\n")
    elif change == "moved":
        path.rename(office.folder / "kept.txt")
    else:
        path.unlink()
    if change == "replaced":
        office.arrive(b=20)
        office.work()
    for number, total in (("C", 90.0), *[("D", 80.0)] * (change == "removed")):
        if "b.txt" not in office.waiting():
            office.undo("b.txt")
        office.work()
        assert ("B", 700.0) not in office.table().values()
        report = office.says(number, total)
        assert "Gone or edited since it was filed, and left so: 'filed/B/b.txt'." in report.notes
        rows = csv.DictReader(office.output("t.csv").splitlines())
        (row,) = (row for row in rows if (row["n"], float(row["t"])) == (number, total))
        assert row["at"] == "2001-09-09 16 b.txt b .txt b.txt"
        assert row.get("day") in (None, "2001-09-09")
        assert path.exists() == (change == "edited")
    assert change != "edited" or path.read_text() == "bill z\ntotal 1\n"


def test_a_correction_reaches_its_row_where_a_person_edited_an_output(office: Office) -> None:
    office.says("B", 700)
    (edited,) = [p for p in (office.folder / "out").glob("*.txt") if p.read_text() == "B"]
    edited.write_text("mine")
    office.undo("b.txt")
    office.decide("b.txt", "edit", {"number": "C", "total": 90})
    report = office.work()
    assert any("is edited" in note or edited.name in note for note in report.notes), report.notes
    assert (edited.read_text(), office.table()["b.txt"]) == ("mine", ("C", 90.0))
    assert office.filed()["b.txt"] == "C"


def test_a_correction_arrives_though_the_run_is_killed(
    office: Office, tmp_path_factory: pytest.TempPathFactory
) -> None:
    office.says("B", 700)
    office.undo("b.txt")
    office.decide("b.txt", "edit", {"number": "C", "total": 90})

    def act() -> dict[str, Any]:
        return {"status": office.work().status}

    for at in office.from_here(range(1, 14), tmp_path_factory.mktemp("here")):
        in_a_process(office.folder, act, kill=at)
        assert (at, office.work().status) == (at, "completed")
        assert (at, office.table()["b.txt"]) == (at, ("C", 90.0))
        assert (at, office.filed()) == (at, {"a.txt": "a", "b.txt": "C"})


def test_a_correction_that_comes_while_a_run_works_is_that_of_the_next(office: Office) -> None:
    office.says("B", 700)
    office.arrive(c=10)

    def answer(request: ChatRequest) -> str:
        if "bill c" in request.messages[-1].content:  # another process, as the page is
            in_a_process(office.folder, corrected)
        return read_bill(request)

    def corrected() -> None:
        office.undo("b.txt")
        office.decide("b.txt", "edit", {"number": "C", "total": 90})

    office.run(pool=FakePool(answer=answer))
    assert (office.due(), sorted(office.table())) == (1, ["a.txt", "b.txt", "c.txt"])
    assert office.work().calls == 0
    assert (office.table()["b.txt"], office.filed()["b.txt"]) == (("C", 90.0), "C")
    assert not (office.due() or office.plan().has_work)


STORE = """\
      - uses: embed
        with: {texts: ["{{ steps.bill.output.number }}"], store: store}
"""


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_correction_reaches_the_rows_of_a_store(tmp_path: Path, is_gone: bool) -> None:
    office = Office(tmp_path, f"name: bills\n{ONE.replace(MOVE_N, STORE + MOVE_N)}")
    office.arrive(a=10, b=60)

    def work() -> list[str]:
        assert office.work().status == "completed"
        return rows_of(tmp_path)

    work()
    for n, (number, total) in enumerate((("B", 700), ("C", 90), ("B", 700))):
        if n:
            office.undo("b.txt")
            assert (len(work()), [*office.table()]) == (2, ["a.txt"])  # it waits
        office.decide("b.txt", "edit", {"number": number, "total": total})
        assert work() == [number, "a"]
        assert office.table()["b.txt"] == (number, total)
        if is_gone:
            (tmp_path / "filed/B/b.txt").unlink(missing_ok=True)


# --- what words, lists and other prompts read later

BY_WORDS = """\
name: bills
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - {id: list, uses: files.rows, with: {path: list.csv}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - id: signs
        uses: prompt
        with:
          vars: {names: "{{ steps.list.rows | map(attribute='name') | terms }}"}
          template: "{{ names | select('in', steps.text.text) | join }}"
      - {id: paper, if: not steps.signs.text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - id: bill
        uses: chat
        with: {prompt: "Read: {{ steps.paper.text }}"}
        reply: {schema: {number: str, total: float}, evidence: steps.paper}
        review: {when: not steps.signs.text}
      - id: facts
        uses: prompt
        with: {template: "{{ 'words' if steps.bill.skipped else steps.bill.output.number }}"}
      - {uses: files.move, with: {path: "{{ doc.path }}", to: "filed/{{ steps.facts.text }}/"}}
    returns: {file: doc.relpath, n: steps.facts.text, t: "0"}
  - {uses: files.write, with: {path: out/t.csv, rows: "{{ steps.each.results }}"}}
"""


@pytest.fixture
def words(tmp_path: Path) -> Office:
    world = Office(tmp_path, BY_WORDS, {"list.csv": "name\nnone\n"})
    world.arrive(b=60, c=60)
    world.work()
    world.decide("b.txt", "edit", {"number": "B", "total": 700})
    world.work()
    return world


def edit_list(words: Office) -> None:
    words.write("list.csv", "name\nnone\nbill\n")


def edit_prompt(words: Office) -> None:
    words.edit("Read:", "Which bill:")


def edit_check(words: Office) -> None:
    words.edit("evidence: steps.paper}", 'evidence: steps.paper, check: ["output.total > 0"]}')


@pytest.mark.parametrize("change", [edit_list, edit_prompt, edit_check])
@pytest.mark.parametrize("is_gone", [False, True])
def test_nothing_that_can_be_read_later_overtakes_a_decision(
    words: Office, change: Any, is_gone: bool
) -> None:
    if is_gone:
        (words.folder / "filed/B/b.txt").unlink()
    change(words)
    plan, report = words.plan(), words.work()
    assert states(plan).keys() == states(report).keys()
    assert words.table()["b.txt"] == ("B", 0.0)
    assert "c.txt" in words.waiting() or words.table()["c.txt"] == ("words", 0.0)
    assert "b.txt" not in words.waiting()
    words.undo("b.txt")
    words.work()
    words.decide("b.txt", "edit", {"number": "C", "total": 700})
    assert words.work().calls == 0
    assert words.table()["b.txt"] == ("C", 0.0)


def test_an_e_invoice_that_is_read_later_overtakes_no_decision(words: Office) -> None:
    """Its XML within a PDF says another number; undone, a person is asked again."""
    made = Made(1)
    (words.folder / "inbox/e.pdf").write_bytes(hybrid(made.page(), made.xml()))
    words.work()
    words.decide("e.pdf", "edit", {"number": "E", "total": 5})
    words.work()
    assert (words.table()["e.pdf"], words.filed()["e.pdf"]) == (("E", 0.0), "E")
    words.edit("select('in', steps.text.text) | join", "select('in', '') | join }}XML{{ ''")
    words.edit("XML", "{{ steps.text.invoices | map(attribute='number') | join }}")
    words.edit("'words' if", "steps.signs.text if")
    for number in ("E", "F"):
        assert words.work().calls == 0
        assert (words.table()["e.pdf"], words.filed()["e.pdf"]) == ((number, 0.0), number)
        words.undo("e.pdf")
        if number == "E":
            words.decide("e.pdf", "edit", {"number": "F", "total": 5})
    words.work()
    assert "e.pdf" not in words.table() and "e.pdf" in words.waiting()


def test_a_field_that_is_new_is_asked_about_and_the_others_stand(words: Office) -> None:
    words.edit("number: str, total: float", 'number: str, total: float, due: "str"')

    def answer(request: ChatRequest) -> str:
        return json.dumps({"number": "x", "total": 1, "due": "today"})

    words.run(pool=FakePool(answer=answer))
    assert words.waiting()["b.txt"].subject.answer == {
        "number": "B", "total": 700, "due": "today"
    }  # fmt: skip
    assert words.waiting()["c.txt"].subject.answer["number"] == "x"


def test_a_decision_of_before_holds_up_no_step_that_another_decision_skips(tmp_path: Path) -> None:
    """A kind is decided, and of a bill its values; then it is none."""
    text = each_document("""\
      - id: kind
        uses: chat
        with: {prompt: "Kind of {{ steps.text.text }}"}
        reply: {schema: {kind: "enum[bill, other]"}}
        review: {}
      - id: page
        if: steps.kind.output.kind == 'bill'
        uses: prompt
        with: {template: "{{ steps.text.text }}"}
      - id: bill
        uses: chat
        with: {prompt: "Read: {{ steps.page.text }}"}
        reply: {schema: {number: str, total: float}}
        review: {}
      - uses: files.move
        with: {path: "{{ doc.path }}", to: "filed/{{ steps.kind.output.kind }}/"}
    returns:
      file: doc.relpath
      n: "'none' if steps.bill.skipped else steps.bill.output.number"
      t: "0"
  - {uses: files.write, with: {path: out/t.csv, rows: "{{ steps.each.results }}"}}
""")
    office = Office(tmp_path, f"name: bills\n{text}")
    office.arrive(b=60)

    def answer(request: ChatRequest) -> str:
        is_kind = request.messages[-1].content.startswith("Kind")
        return '{"kind": "bill"}' if is_kind else read_bill(request)

    for _ in range(3):
        office.run(pool=FakePool(answer=answer))
        office.decide_all("accept")
    office.run(pool=FakePool(answer=answer))
    assert (office.table()["b.txt"], office.filed()) == (("b", 0.0), {"b.txt": "bill"})
    for kind, number in (("other", "none"), ("bill", "b")):
        with office.reviews() as reviews:
            (kinds,) = [r for r in reviews.decided() if r.step == "kind"]
            reviews.undo(kinds.id, "ann")
            new = reviews.get(kinds.id)
            reviews.decide(kinds.id, new.question, "edit", {"kind": kind}, by="ann")
        assert office.run(pool=FakePool(answer=answer)).calls == 0
        assert (office.table()["b.txt"][0], office.filed()) == (number, {"b.txt": kind})
        assert not office.waiting()
