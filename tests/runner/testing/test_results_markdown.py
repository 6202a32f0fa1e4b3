"""The Markdown that GitHub shows next to a job: failures first, bounded, nothing breaks out."""

from paddock.runner.testing.case_results import CaseProblem, CaseResult, SuiteResult
from paddock.runner.testing.junit_and_markdown import suites_markdown


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
        ("a_b.jsonl belongs to no test; `--yes <b>` removes it", "``<b>`` and one `"),
    )
    assert suites_markdown([suite]) == (
        "## Paddock tests: 2 passed, 1 failed\n\n"
        "|  | test | file | replies | time |\n|---|---|---|---|---|\n"
        "| ❌ | bad | p.yaml | replay | 2.0 s |\n"
        "| ✅ | good \\| &lt;b> | p.yaml | replay | 1.0 s |\n"
        "| ✅ | some | p.yaml | live, 1 of 2 turns | 0.0 s |\n\n"
        "### bad\n\n- **unseen**: this prompt was not recorded.\n\n"
        "````diff\n-one\n+two ``` <b>\n````\n\n"
        "- a\\_b.jsonl belongs to no test; `--yes <b>` removes it\n"
        "- \\`\\`&lt;b>\\`\\` and one \\`\n"
    )
