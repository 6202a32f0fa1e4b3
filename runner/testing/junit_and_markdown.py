"""Test results as JUnit XML and Markdown.

JUnit XML follows Jenkins' junit-10.xsd, which GitLab and GitHub actions also read. Markdown is
also appended to the file of `GITHUB_STEP_SUMMARY`. The size of both is bounded.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from paddock.engine.system.files import write_output
from paddock.engine.system.records import replace
from paddock.engine.system.text import one_line, shorten
from paddock.runner.progress.item_states import REPORTED
from paddock.runner.progress.report import Report
from paddock.runner.render.html_page import render_text
from paddock.runner.render.report_files import RUN_START, TESTS_START

from .case_results import (
    CaseProblem,
    CaseResult,
    SuiteResult,
    count_cases,
    counts_text,
    variant_rows,
)

# Characters that XML 1.0 does not allow, even escaped.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MAX_CASE_CHARS = 20_000  # of one case: GitLab refuses reports that are too large
MAX_TABLE_ROWS = 200
MAX_SHOWN_PROBLEMS = 20  # cases with full problems
MAX_SUMMARY_CHARS = 200_000  # GitHub takes 1 MiB from a step
_ICONS = {"passed": "✅", "failed": "❌", "error": "💥", "skipped": "⏭️"}
GITHUB_SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
"""Set by GitHub Actions: the file of a step's summary."""


def junit_xml(suites: Sequence[SuiteResult]) -> str:
    ends = str.maketrans({"\t": "&#9;", "\n": "&#10;", "\r": "&#13;"})  # attributes keep them so
    return render_text(
        "junit.xml",
        suites=[
            replace(s, cases=tuple(chain.from_iterable(map(_with_rows, s.cases)))) for s in suites
        ],
        xml=_xml_text,
        attribute=lambda text: Markup(_xml_text(text).translate(ends)),
        case_counts=count_cases,
    )


def _with_rows(case: CaseResult) -> Iterator[CaseResult]:
    """Yield a test, and each row of its data set; the test then has no problems of rows.

    CI servers fail a build for any failure in the XML, so a row that did not pass is skipped where
    enough others did.
    """
    if not case.of_rows:
        yield case
        return
    share = CaseProblem("pass", case.notes[0])
    seconds = max(0.0, case.seconds - sum(row.seconds for row in case.of_rows))
    yield replace(case, problems=(share,), seconds=seconds)
    for row in case.of_rows:
        if row.passed or not case.passed:
            yield row
            continue
        problems = (f"{problem.message}\n{problem.detail}".rstrip() for problem in row.problems)
        why = f"Did not pass, as it may: {case.notes[0]}."
        yield replace(row, skipped=why, notes=(*row.notes, *problems))


def _xml_text(text: str) -> Markup:
    """Return a text without characters that XML does not allow, cut to `MAX_CASE_CHARS`."""
    clean = _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", text)
    short = clean if len(clean) <= MAX_CASE_CHARS else f"{clean[:MAX_CASE_CHARS]}…"
    return escape(short)


def suites_markdown(suites: Sequence[SuiteResult]) -> str:
    cases = [(suite, case) for suite in suites for case in suite.cases]
    turns = "{}, {} of {} {}".format
    cases.sort(key=lambda pair: pair[1].word not in ("failed", "error"))
    bad = [case for _, case in cases if not case.passed and case.skipped is None]
    return _markdown(
        "test_results.md",
        head=f"{TESTS_START}{counts_text(suites) or 'no tests'}",
        variants=[tuple(map(_table_cell, row)) for row in variant_rows(suites)],
        rows=[
            (
                _ICONS[case.word],
                _table_cell(case.name),
                _table_cell(f"{suite.file} {suite.variant}"),
                turns(case.source or "", sum(case.turns), n, "rows" if case.rows else "turns")
                if (n := len(case.turns)) > 1
                else case.source or "",
                f"{case.seconds:.1f} s",
            )
            for suite, case in cases[:MAX_TABLE_ROWS]
        ],
        n_cases=len(cases),
        bad=bad[:MAX_SHOWN_PROBLEMS],
        notes=[note for suite in suites for note in suite.notes][:MAX_SHOWN_PROBLEMS],
    )


def run_markdown(report: Report) -> str:
    return _markdown(
        "run.md",
        head=RUN_START,
        report=report,
        bad=[
            (_table_cell(item.key), item.state, _table_cell(item.error or ""))
            for item in report.not_done
        ],
        counts={state: n for state in REPORTED if (n := report.counts.get(state))},
        most_rows=MAX_TABLE_ROWS,
        most_notes=MAX_SHOWN_PROBLEMS,
    )


def _markdown(template: str, **values: Any) -> str:
    # A code fence is longer than any in the text
    text = render_text(
        template,
        cell=_table_cell,
        line=_line,
        fence_of=lambda text: max(["```", *(f"{run}`" for run in re.findall("`+", text))], key=len),
        **values,
    )
    text = text.rstrip() + "\n"
    if len(text) <= MAX_SUMMARY_CHARS:
        return text
    return f"{text[:MAX_SUMMARY_CHARS]}\n\n… cut here.\n"


def _table_cell(text: str) -> str:
    """Return a text as one line with Markdown and HTML escaped."""
    return shorten(_escaped(one_line(text)), 500)


def _escaped(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", text)


def _line(text: str) -> str:
    """Return a text as `_table_cell` does, but for what stands between two backticks: code."""
    parts = re.split(r"(?<!`)`([^`|]+)`(?!`)", one_line(text, 1000))
    return "".join(f"`{part}`" if n % 2 else _escaped(part) for n, part in enumerate(parts))


def write_reports(
    suites: Sequence[SuiteResult],
    markdown: str,
    *,
    junit: Path | None = None,
    summary: Path | None = None,
    page: tuple[Path, str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Write the requested reports, and the summary also where GitHub Actions asks for one.

    `page`: the target and the text of an HTML page.

    Raises:
        OSError: one cannot be written.
    """
    if junit is not None:
        write_output(junit, junit_xml(suites))
    if summary is not None:
        write_output(summary, markdown)
    if page is not None:
        write_output(*page)
    if environ.get(GITHUB_SUMMARY_VARIABLE):
        # Appended to other steps' summaries; a failure must not fail the job.
        with (
            contextlib.suppress(OSError),
            Path(environ[GITHUB_SUMMARY_VARIABLE]).open("a", encoding="utf-8") as file,
        ):
            file.write(f"{markdown}\n")


def github_annotations(
    suites: Sequence[SuiteResult], environ: Mapping[str, str] = os.environ
) -> Iterator[str]:
    """Yield the command that shows a failed test at its file, where GitHub Actions reads them."""
    if environ.get("GITHUB_ACTIONS") != "true":
        return
    for suite in suites:
        file = os.path.relpath(suite.file, environ.get("GITHUB_WORKSPACE") or os.curdir)
        for case in suite.cases:
            if case.word in ("failed", "error") and case.problems:
                facts = {"file": file, "title": case.name}
                shown = (f"{name}={_encoded(value, ':,')}" for name, value in facts.items())
                yield f"::error {','.join(shown)}::{_encoded(case.problems[0].message)}"


def _encoded(text: str, also: str = "") -> str:
    return re.sub(f"[%\r\n{also}]", lambda found: f"%{ord(found[0]):02X}", text)
