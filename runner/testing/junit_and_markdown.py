"""Test results as JUnit XML and Markdown; a run becomes a suite with a case for each document.

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
from typing import Any, Literal

from markupsafe import Markup, escape

from paddock.engine.system.files import write_output
from paddock.engine.system.records import Struct, asdict, replace
from paddock.engine.system.text import one_line, shorten
from paddock.pipelines.errors import PipelineError
from paddock.runner.bind.variations import letters
from paddock.runner.progress.item_states import BAD, REPORTED, WORK, ItemState
from paddock.runner.progress.report import ItemReport, Report
from paddock.runner.render.html_page import render_text
from paddock.runner.render.report_files import RUN_START, TESTS_START

ReplySource = Literal["live", "record", "replay"]
MOST_FAULT_CHARS = 200


class CaseProblem(Struct, frozen=True):
    kind: str
    """The claim that does not hold, or `run`, `unseen`, `cassette`, `files`."""
    message: str
    detail: str = ""
    """A diff or an excerpt."""


class CaseResult(Struct, frozen=True):
    name: str
    group: str
    """The pipeline's name, for documents with the block's id."""
    seconds: float = 0.0
    problems: tuple[CaseProblem, ...] = ()
    is_error: bool = False
    """It could not run at all."""
    skipped: str | None = None
    notes: tuple[str, ...] = ()
    changed_answers: tuple[str, ...] = ()
    """Recorded answers that differ from those before, one line each."""
    source: ReplySource | None = None
    turns: tuple[bool, ...] = ()
    """Of a repeated test, or one with a data set: whether each repetition, or row, passed."""
    needed: float = 1.0
    """Of these: the share that must pass."""
    rows: tuple[str, ...] = ()
    """Of a data set: the names of its rows, as `turns` has them."""
    of_rows: tuple[CaseResult, ...] = ()
    """Of a data set: each row by itself."""
    bounds: tuple[float, float] | None = None
    """Of a data set: of the share that passes, in 95 of 100 cases."""

    @property
    def passed(self) -> bool:
        if self.is_error:
            return False
        if len(self.turns) > 1 or self.rows:
            return sum(self.turns) >= self.needed * len(self.turns) - 1e-9
        return not self.problems

    @property
    def result(self) -> str:
        """Its outcome; of several repetitions or rows with their number, and what that says."""
        if len(self.turns) < 2:
            return self.word
        bounds = "" if self.bounds is None else " ({:.0%} to {:.0%})".format(*self.bounds)
        return f"{self.word}, {sum(self.turns):,} of {len(self.turns):,}{bounds}"

    @property
    def word(self) -> str:
        if self.skipped is not None:
            return "skipped"
        return "passed" if self.passed else "error" if self.is_error else "failed"

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "outcome": self.word,
            "seconds": round(self.seconds, 3),
            "source": self.source,
            "turns": list(self.turns),
            **({"rows": list(self.rows), "pass": self.needed} if self.rows else {}),
            **({"bounds": [round(bound, 4) for bound in self.bounds]} if self.bounds else {}),
            "problems": [asdict(problem) for problem in self.problems],
            "notes": list(self.notes),
            **({"changed_answers": list(self.changed_answers)} if self.changed_answers else {}),
        }


class SuiteResult(Struct, frozen=True):
    name: str
    file: str
    cases: tuple[CaseResult, ...]
    notes: tuple[str, ...] = ()
    variant: str = ""

    @property
    def title(self) -> str:
        return f"{self.name}: {self.variant}" if self.variant else self.name

    @property
    def seconds(self) -> float:
        return sum(case.seconds for case in self.cases)

    def n(self, *words: str) -> int:
        return sum(case.word in words for case in self.cases)

    def as_json(self) -> dict[str, Any]:
        cases = [case.as_json() for case in self.cases]
        variant = {"variant": self.variant} if self.variant else {}
        facts = {"name": self.name, "file": self.file, **variant}
        return {**facts, "tests": cases, "notes": list(self.notes)}


def variant_rows(suites: Sequence[SuiteResult]) -> list[tuple[str, ...]]:
    """Return variants' results side by side: the heads, then a row for each; [] without any."""
    varied = [suite for suite in suites if suite.variant]
    names = [*dict.fromkeys(case.name for suite in varied for case in suite.cases)]
    is_one_file = len({suite.file for suite in varied}) < 2
    short = letters(map(str, range(len(varied)))).values()
    rows = []
    for letter, suite in zip(short, varied, strict=True):
        results = {case.name: case.result for case in suite.cases}
        title = suite.variant if is_one_file else suite.title
        rows.append((letter, title, *(results.get(name, "") for name in names)))
    return [("", "variant", *names), *rows] if rows else []


def count_cases(suites: Sequence[SuiteResult]) -> dict[str, int]:
    words = ("passed", "failed", "error", "skipped")
    return {word: sum(suite.n(word) for suite in suites) for word in words}


def counts_text(suites: Sequence[SuiteResult]) -> str:
    many = {"error": "errors"}
    return ", ".join(
        f"{n:,} {word if n == 1 else many.get(word, word)}"
        for word, n in count_cases(suites).items()
        if n
    )


def _skip_reason(item: ItemReport) -> str | None:
    if item.is_known and item.state == "quarantined":
        return f"Not tried again: {item.error}"
    if item.state in (*WORK, *BAD, ItemState.FRESH):
        return None
    return item.why or item.error or item.state


def run_as_suite(report: Report, file: str) -> SuiteResult:
    """Return a run as a suite: each document is a case, quarantined ones are failures."""
    cases = [
        CaseResult(
            name=item.key,
            group=f"{report.pipeline}.{item.step}",
            seconds=item.seconds,
            problems=(
                (CaseProblem(item.state, item.error or item.state),)
                if item.state in BAD and not item.is_known
                else ()
            ),
            is_error=item.state == "failed",
            skipped=_skip_reason(item),
            notes=(item.state,),
        )
        for item in report.items
        if item.state != "deleted"
    ]
    stopped = report.status in ("failed", "budget", "interrupted")
    if stopped and not any(case.is_error for case in cases):
        words = report.message or f"The run ended as '{report.status}'."
        problem = CaseProblem(report.status, words)
        cases.append(
            CaseResult("the run as a whole", report.pipeline, problems=(problem,), is_error=True)
        )
    return SuiteResult(report.pipeline, file, tuple(cases), report.notes)


def error_as_suite(error: Exception, file: str) -> SuiteResult:
    """Return what kept the tests of some files from running as a case with an error."""
    words = str(error) or type(error).__name__
    problems = [CaseProblem("fault", one_line(words, MOST_FAULT_CHARS), words)]
    if isinstance(error, PipelineError):
        files = {fault.mark.file for fault in error.faults if fault.mark is not None}
        file = files.pop() if len(files) == 1 else file
        problems = [
            CaseProblem("fault", one_line(fault.in_one_line(), MOST_FAULT_CHARS), fault.render())
            for fault in error.faults
        ]
    case = CaseResult("the file as a whole", file, problems=tuple(problems), is_error=True)
    return SuiteResult(file, file, (case,))


# Characters that XML 1.0 does not allow, even escaped.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
MAX_CASE_CHARS = 20_000  # of one case: GitLab refuses reports that are too large


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


MAX_TABLE_ROWS = 200
MAX_SHOWN_PROBLEMS = 20  # cases with full problems
MAX_SUMMARY_CHARS = 200_000  # GitHub takes 1 MiB from a step
_ICONS = {"passed": "✅", "failed": "❌", "error": "💥", "skipped": "⏭️"}


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


GITHUB_SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
"""Set by GitHub Actions: the file of a step's summary."""


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
