"""The HTML page of test results: what failed first, nothing that a text could break."""

import re

from lxml import html  # type: ignore[import-untyped]

from paddock.runner.testing.junit_and_markdown import CaseProblem, CaseResult, SuiteResult
from paddock.runner.testing.results_page import MAX_ROWS, suites_page

EVIL = "<script>alert(1)</script>&\"'"


def page(*cases: CaseResult) -> str:
    return suites_page([SuiteResult("bills", "bills.yaml", cases, ("a note",))])


def words(text: str) -> str:
    return re.sub(r"\s+", " ", html.fromstring(text).text_content())


def test_failures_stand_first_with_their_difference() -> None:
    text = page(
        CaseResult("good", "bills", seconds=0.2, source="replay"),
        CaseResult(
            "bad", "bills", problems=(CaseProblem("equals", "not equal.", "-four\n+five\nsix"),)
        ),
        CaseResult("left", "bills", skipped="not asked for"),
    )
    page_text = words(text)
    assert page_text.index("Failed (1)") < page_text.index("good")
    assert "bad of bills.yaml, failed" in page_text
    assert "passed 1" in page_text
    assert "skipped 1" in page_text
    tree = html.fromstring(text)
    assert [element.text for element in tree.iter("del")] == ["-four"]
    assert [element.text for element in tree.iter("ins")] == ["+five"]
    assert "a note" in page_text


def test_rows_of_a_data_set_are_listed_those_that_failed_first() -> None:
    names = tuple(f"{n}: text {n}" for n in range(1, 1_001))
    turns = tuple(n % 10 != 0 for n in range(1, 1_001))
    case = CaseResult("labels", "bills", turns=turns, needed=0.9, rows=names, notes=("900 of",))
    *_, table = html.fromstring(page(case)).iter("table")
    rows = [[cell.text_content() for cell in row] for row in table.iter("tr")][1:]
    assert len(rows) == MAX_ROWS
    assert rows[:100] == [[names[n - 1], "failed"] for n in range(10, 1_001, 10)]
    assert rows[100] == ["1: text 1", "passed"]
    assert "500 more rows" in table.text_content()


def test_texts_of_models_and_people_are_escaped() -> None:
    problem = CaseProblem(EVIL, EVIL, f"-{EVIL}\n{EVIL}")
    text = page(
        CaseResult(EVIL, EVIL, problems=(problem,), notes=(EVIL,), changed_answers=(EVIL,)),
        CaseResult("set", "b", turns=(True,), rows=(EVIL,)),
    )
    assert "<script" not in text
    assert EVIL in html.fromstring(text).text_content()
    assert "default-src 'none'" in text
