"""`cases`: a test runs once for each row of a data set, and enough rows must pass."""

import json
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest
from paddock.engine.system.item_samples import ItemSample
from paddock.pipelines.comparison_keys import CompareKeys
from paddock.pipelines.errors import PipelineError
from paddock.runner.testing import suite_runner
from paddock.runner.testing.case_results import CaseResult, SuiteResult, variant_rows
from paddock.runner.testing.case_runner import ReplayMode
from paddock.runner.testing.junit_and_markdown import junit_xml
from paddock.runner.testing.results_page import suites_page
from paddock.runner.testing.suite_runner import SuiteFile
from tests.fakes.pool import FakePool
from tests.runner.testing.bench import Nobody
from tests.runner.testing.test_results_junit import read

PIPELINE = """\
name: labels
inputs: {text: str}
steps:
  - {id: label, uses: chat, with: {prompt: "Label: {{ inputs.text }}"}}
returns: steps.label.text
tests:
  cases: {from: tests/cases.csv}
  pass: 0.75
  inputs: {text: "{{ case.text }}"}
  expect:
    - {equals: "{{ case.label }}"}
"""
ROWS = "text,label\nthe ferry,boat\nthe bus,road\nthe canoe,boat\nthe tram,road\n"


def labelled(request: ChatRequest) -> str:
    return "road" if "bus" in str(request) else "boat"


class Data:
    """A folder with a pipeline whose test has a data set."""

    def __init__(self, folder: Path, text: str = PIPELINE, rows: str = ROWS) -> None:
        self.folder, self.file = folder, folder / "pipeline.yaml"
        (folder / "tests").mkdir(exist_ok=True)
        self.file.write_text(text)
        self.rows(rows)

    def rows(self, text: str) -> None:
        (self.folder / "tests/cases.csv").write_text(text)

    def edit(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    def case(
        self, mode: ReplayMode = "auto", pool: Any = None, sample: ItemSample | None = None
    ) -> CaseResult:
        self.pool = pool or FakePool(answer=labelled)
        options = suite_runner.SuiteOptions(mode, sample=sample, pool=self.pool)
        (suite,) = suite_runner.run_suites(suite_runner.read_suites([self.file]), options)
        (case,) = suite.cases
        return case


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path)


def test_a_data_set_passes_where_enough_rows_do_and_says_what_that_is_worth(data: Data) -> None:
    case = data.case()
    assert (case.name, case.word, case.turns) == ("cases", "passed", (True, True, True, False))
    assert case.rows == ("1: the ferry", "2: the bus", "3: the canoe", "4: the tram")
    assert case.notes[0] == (
        "3 of 4 rows passed (75%; of all such rows 30% to 95%, in 95 of 100 cases), 75% must pass"
    )
    (problem,) = case.problems
    assert problem.message == ("row 4 ('the tram'): what the run returns is 'boat', not 'road'.")
    result = case.as_json()
    assert (result["rows"][3], result["turns"][3], result["pass"]) == ("4: the tram", False, 0.75)
    data.edit("pass: 0.75", "pass: 0.8")
    assert data.case().word == "failed"


def test_junit_has_a_case_for_each_row_with_its_text_and_what_was_expected(data: Data) -> None:
    data.rows(ROWS.replace("the canoe", "the ferry"))

    def rows_of(needed: str) -> tuple[dict[str | None, list[tuple[str, str | None, str]]], Any]:
        data.edit("pass: 0.75", f"pass: {needed}")
        case = data.case()
        data.edit(f"pass: {needed}", "pass: 0.75")
        root = read(junit_xml([SuiteResult("labels", "pipeline.yaml", (case,))]))
        whole, *rows = root[0]
        assert {row.get("classname") for row in rows} == {"labels.cases"}
        numbers = {name: root.get(name) for name in ("tests", "failures")}
        found = {
            row.get("name"): [(part.tag, part.get("message"), part.text or "") for part in row]
            for row in rows
        }
        return found, (numbers, [part.tag for part in whole])

    share = "3 of 4 rows passed (75%; of all such rows 30% to 95%, in 95 of 100 cases), "
    differs = "what the run returns is 'boat', not 'road'."
    diff = f"{differs}\n--- expected\n+++ got\n-road\n+boat"
    text = "row 4\ntext: the tram\nlabel: road"
    found, whole = rows_of("0.9")
    assert [*found] == ["the ferry", "the bus", "the ferry (row 3)", "the tram"]
    assert found["the bus"] == [("system-out", None, "row 2\ntext: the bus\nlabel: road")]
    assert found["the tram"] == [("failure", differs, diff), ("system-out", None, text)]
    assert whole == ({"tests": "5", "failures": "2"}, ["failure", "system-out"])
    found, whole = rows_of("0.75")
    why = f"Did not pass, as it may: {share}75% must pass."
    assert found["the tram"] == [("skipped", why, ""), ("system-out", None, f"{text}\n{diff}")]
    assert whole == ({"tests": "5", "failures": "0"}, ["system-out"]), "enough rows passed"


def test_all_rows_are_recorded_in_one_cassette_and_replayed(data: Data, tmp_path: Path) -> None:
    data.case("record")
    assert len(data.pool.chats) == 4
    (cassette,) = (tmp_path / "tests/cassettes").iterdir()
    assert cassette.name == "pipeline.cases.jsonl"
    assert data.case("replay", pool=Nobody()).turns == (True, True, True, False)
    data.rows("text,label\nthe sledge,snow\n" + ROWS.partition("\n")[2])
    data.case("record")
    assert len(data.pool.chats) == 1, "a row in front changes no other"
    data.rows(ROWS + "the kayak,boat\n")
    case = data.case("replay", pool=Nobody())
    assert (case.word, case.needed) == ("failed", 1.0), "a row that was not recorded"


def test_a_sample_of_the_rows_is_the_same_each_time(data: Data) -> None:
    case = data.case(sample=ItemSample(2))
    assert len(case.rows) == 2
    assert "2 rows of its data set left out by the sample" in case.notes
    assert data.case(sample=ItemSample(2)).rows == case.rows
    data.rows(ROWS.splitlines()[0] + "\n" + "\n".join(reversed(ROWS.splitlines()[1:])) + "\n")
    again = data.case(sample=ItemSample(2)).rows
    assert {row.partition(": ")[2] for row in again} == {
        row.partition(": ")[2] for row in case.rows
    }
    by_label = data.case(sample=ItemSample(2, by="case.label"))
    assert len(by_label.rows) == 2
    with pytest.raises(PipelineError, match=r"`--stratify case\.colour`, row 1: "):
        data.case(sample=ItemSample(2, by="case.colour"))


def test_a_row_that_cannot_run_does_not_pass_and_the_others_go_on(data: Data) -> None:
    data.edit("{text: str}", "{text: {type: int}}")
    data.rows("text,label\n7,boat\nmany,boat\n8,boat\n9,boat\n")
    case = data.case()
    assert (case.word, case.turns) == ("passed", (True, False, True, True))
    assert case.problems[0].message.startswith("row 2 ('many'): ")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("tests/cases.csv", "tests/none.csv", "'tests/none.csv' cannot be read: No such file"),
        ("tests/cases.csv", "../cases.csv", "'../cases.csv' is outside the pipeline's folder."),
        ("tests/cases.csv", "tests/cases.xlsx", "'tests/cases.xlsx' has the suffix '.xlsx'."),
        ("pass: 0.75", "pass: 0", "'pass' must be more than 0"),
        ("pass: 0.75", "pass: 90", "'pass' must be at most 1.0"),
        ("pass: 0.75", "repeat: 3", "give `cases` or `repeat`, not both"),
        ("cases: {from: tests/cases.csv}", "name: a", "`pass` belongs to `cases`"),
    ],
)
def test_a_data_set_that_cannot_be_used_is_a_fault_with_its_place(
    data: Data, old: str, new: str, words: str
) -> None:
    data.edit(old, new)
    with pytest.raises(PipelineError) as caught:
        suite_runner.read_suites([data.file])
    assert words in str(caught.value)
    assert "pipeline.yaml:" in str(caught.value)


def varied(data: Data, **values: dict[str, list[Any]]) -> list[SuiteFile]:
    return suite_runner.read_suites([data.file], CompareKeys.model_validate(values))


PROMPTS = {"label.prompt": ["Label: {{ inputs.text }}", "Road or boat? {{ inputs.text }}"]}


def by_prompt(request: ChatRequest) -> str:
    """Know all roads where the prompt names them."""
    is_named = "Road or" in str(request) and "tram" in str(request)
    return "road" if is_named else labelled(request)


def test_variants_are_tested_side_by_side_each_with_its_own_replies(
    data: Data, tmp_path: Path
) -> None:
    data.case("record")
    before = sorted(tmp_path.rglob("*.jsonl"))
    options = suite_runner.SuiteOptions("record", pool=FakePool(answer=by_prompt))
    suites = suite_runner.run_suites(varied(data, set=PROMPTS), options)
    assert variant_rows(suites) == [
        ("", "variant", "cases"),
        ("A", "label.prompt=Label: {{ inputs.text }}", "passed, 3 of 4 (30% to 95%)"),
        ("B", "label.prompt=Road or boat? {{ inputs.text }}", "passed, 4 of 4 (51% to 100%)"),
    ]
    cassettes = sorted(tmp_path.rglob("*.jsonl"))
    assert len(cassettes) == 3
    assert set(before) < set(cassettes), "what the file itself recorded stays"
    replayed = suite_runner.run_suites(
        varied(data, set=PROMPTS), suite_runner.SuiteOptions("replay", pool=Nobody())
    )
    assert variant_rows(replayed) == variant_rows(suites)
    assert not data.case("replay", Nobody()).is_error
    (plain,) = suite_runner.read_suites([data.file])
    assert not [*suite_runner.orphaned_cassettes(plain.specs, plain.file.stem)]
    page = suites_page(suites)
    assert '<th scope="col">A</th><th scope="col">B</th>' in page
    assert "<p>1 file in 2 variants, " in page
    first = page.index("4: the tram")
    assert first < page.index("1: the ferry"), "where they differ comes first"
    assert 'name="labels: label.prompt=Road or boat? {{ inputs.text }}"' in junit_xml(suites)
    results = [suite.as_json() for suite in suites]
    assert results[1]["variant"] == "label.prompt=Road or boat? {{ inputs.text }}"
    assert results[1]["tests"][0]["bounds"] == [0.5101, 1.0]


DECIDED = """\
name: bills
inputs: {folder: {type: dir, default: ./inbox}}
steps:
  - {id: docs, uses: files.scan, with: {root: "{{ inputs.folder }}"}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - id: bill
        uses: chat
        with: {prompt: "Read: {{ steps.text.text }}"}
        reply: {schema: {number: str, total: float}, evidence: steps.text}
        review: {when: evidence.missing}
      - uses: files.write
        with: {path: "out/{{ doc.relpath }}.json", text: "{{ steps.bill.output | tojson }}"}
    returns: steps.bill.output.total
returns: {totals: steps.each.results}
tests:
  - name: what was decided
    cases: {from: tests/decided.jsonl}
    pass: 0.5
    files: ["**/*", "!/inbox/**", "/{{ case.document }}"]
    review: accept
    expect: [{file: "out/{{ case.item }}.json", equals: "{{ case.value }}"}]
  - name: ask
    review: ask
    expect: [{check: report.counts.waiting == 3}]
"""


def test_rows_of_decisions_run_the_pipeline_on_each_document_alone(tmp_path: Path) -> None:
    data = Data(tmp_path, DECIDED)
    (tmp_path / "inbox").mkdir()
    rows = []
    for name, total in (("a", 62.0), ("b", 84.0), ("c*[1]", 62.0)):
        (tmp_path / f"inbox/{name}.txt").write_text(f"{name}-17 total 84.00")
        value = {"number": f"{name}-17", "total": total}
        rows.append({"item": f"{name}.txt", "document": f"inbox/{name}.txt", "value": value})
    (tmp_path / "tests/decided.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def misread(request: ChatRequest) -> str:
        number = request.messages[-1].content.removeprefix("Read: ").split()[0]
        return json.dumps({"number": number, "total": 62.0})

    pool = FakePool(answer=misread)
    options = suite_runner.SuiteOptions("auto", pool=pool)
    (suite,) = suite_runner.run_suites(suite_runner.read_suites([data.file]), options)
    decided, ask = suite.cases
    assert (decided.turns, len(pool.chats)) == ((True, False, True), 6)
    assert (decided.word, ask.problems) == ("passed", ())
    data.edit("case.document }}", "case.folder }}")
    (suite,) = suite_runner.run_suites(suite_runner.read_suites([data.file]), options)
    assert suite.cases[0].problems[0].message.startswith("`files`: ")
