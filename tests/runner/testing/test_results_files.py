"""Where reports go: to the files that are asked for, and to GitHub's own place."""

from pathlib import Path

from paddock.runner.progress.report import Report
from paddock.runner.testing.case_results import CaseProblem, CaseResult, SuiteResult, run_as_suite
from paddock.runner.testing.junit_and_markdown import (
    github_annotations,
    run_markdown,
    suites_markdown,
    write_reports,
)

BAD = CaseProblem("contains", "100% is\nnot there", "- a")
FAILED = SuiteResult("p", "/repo/a/p.yaml", (CaseResult("one: a, b", "p", problems=(BAD,)),))
SUITE = SuiteResult("p", "p.yaml", (CaseResult("one", "p"),))
RUN = Report("r", "digest", "completed", {})


def test_githubs_own_summary_is_added_to(tmp_path: Path) -> None:
    place = tmp_path / "step.md"
    place.write_text("# before\n")
    environ = {"GITHUB_STEP_SUMMARY": str(place)}
    write_reports([SUITE], suites_markdown([SUITE]), environ=environ)
    write_reports([run_as_suite(RUN, "p.yaml")], run_markdown(RUN), environ=environ)
    text = place.read_text("utf-8")
    assert text.startswith("# before\n## Paddock tests")
    assert "## Paddock run of digest: completed" in text
    write_reports(
        [SUITE],
        suites_markdown([SUITE]),
        environ={"GITHUB_STEP_SUMMARY": str(tmp_path / "no" / "such.md")},
    )


def test_a_failed_test_is_shown_at_its_file_on_github() -> None:
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": "/repo"}
    assert list(github_annotations([SUITE, FAILED], environ)) == [
        "::error file=a/p.yaml,title=one%3A a%2C b::100%25 is%0Anot there"
    ]
    assert list(github_annotations([FAILED], {})) == []
