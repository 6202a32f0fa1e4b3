"""The Markdown that GitHub shows next to a job: failures first, bounded, nothing breaks out."""

from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.report import ItemReport, Report
from paddock.runner.testing.junit_and_markdown import (
    CaseProblem,
    CaseResult,
    SuiteResult,
    run_markdown,
    suites_markdown,
)


def test_tests_that_failed_come_first_with_what_is_wrong() -> None:
    problem = CaseProblem("unseen", "this prompt was not recorded.", "-one\n+two ``` <b>")
    suite = SuiteResult(
        "p",
        "p.yaml",
        (
            CaseResult("good | <b>", "p", 1.0, source="replay"),
            CaseResult("bad", "p", 2.0, (problem,), source="replay"),
            CaseResult("some", "p", turns=(True, False), needed=0.5, source="live"),
        ),
        ("a.jsonl belongs to no test",),
    )
    assert suites_markdown([suite]) == (
        "## Paddock tests: 2 passed, 1 failed\n\n"
        "|  | test | file | replies | time |\n|---|---|---|---|---|\n"
        "| ❌ | bad | p.yaml | replay | 2.0 s |\n"
        "| ✅ | good \\| &lt;b> | p.yaml | replay | 1.0 s |\n"
        "| ✅ | some | p.yaml | live, 1 of 2 turns | 0.0 s |\n\n"
        "### bad\n\n- **unseen**: this prompt was not recorded.\n\n"
        "````diff\n-one\n+two ``` <b>\n````\n\n"
        "- a.jsonl belongs to no test\n"
    )


def test_a_run_tells_what_was_not_done_and_its_numbers() -> None:
    items = (
        ItemReport("each", "a.md", ItemState.NEW),
        ItemReport("each", "b|c.pdf", ItemState.QUARANTINED, error="it is `encrypted`."),
    )
    report = Report(
        "swift-otter",
        "digest",
        "quarantined",
        {"new": 1, "quarantined": 1},
        calls=3,
        tokens={"prompt": 1200, "completion": 80},
        seconds=4.25,
        items=items,
        notes=("a note",),
    )
    assert run_markdown(report) == (
        "## Paddock run of digest: quarantined\n\n"
        "| not done | state | why |\n|---|---|---|\n"
        "| b\\|c.pdf | quarantined | it is \\`encrypted\\`. |\n\n"
        "| new | quarantined |\n|---|---|\n| 1 | 1 |\n\n"
        "Run `swift-otter`, 4.2 s, 3 model calls and 0 from the ledger, 1,200 prompt tokens "
        "(0 reused), 80 written.\n\n- a note\n"
    )


def test_a_summary_is_bounded() -> None:
    items = tuple(
        ItemReport("each", f"{n}.pdf", ItemState.QUARANTINED, error="x" * 400) for n in range(9000)
    )
    text = run_markdown(Report("r", "p", "quarantined", {"quarantined": 9000}, items=items))
    assert len(text) < 200_100
    assert "… and 8,800 more." in text
