"""`paddock test`: run the tests of pipelines, with models or with recorded replies."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from paddock.engine.system import units
from paddock.engine.system.text import counted
from paddock.pipelines.comparison_keys import CompareKeys
from paddock.runner.bind.variations import varied_options
from paddock.runner.cli.arguments import (
    HERE,
    VariedFlags,
    argument,
    flag,
    junit_option,
    option,
    pipeline_file,
    remove_old_reports,
    report_option,
    require_reports,
    summary_option,
)
from paddock.runner.cli.exit_status import DONE, TESTS_FAILED, CommandError
from paddock.runner.progress import printing
from paddock.runner.testing import case_results, junit_and_markdown, suite_runner
from paddock.runner.testing.case_results import CaseProblem, CaseResult, SuiteResult
from paddock.runner.testing.case_runner import ReplayMode
from paddock.runner.testing.results_page import suites_page
from paddock.runner.testing.suite_runner import SuiteFile


@dataclass(frozen=True)
class PipelineTestFlags(VariedFlags):
    files: list[str] | None = argument(
        "Pipelines, or folders with one; by default this folder.", metavar="FILE..."
    )
    record: bool = flag(
        "Ask models for replies that are not recorded yet, and record them.", "--record"
    )
    replay: bool = flag("Ask no model: a reply that is not recorded fails the test.", "--replay")
    only: list[str] | None = option("Only this test; can be repeated.", metavar="NAME")
    junit: Path | None = junit_option()
    summary: Path | None = summary_option()
    report: Path | None = report_option()


def test(flags: PipelineTestFlags) -> int:
    junit, summary, report = flags.junit, flags.summary, flags.report
    if flags.record and flags.replay:
        raise CommandError("Use `--record` or `--replay`, not both.")
    targets = {"junit.xml": junit, "summary.md": summary, "tests.html": report}
    require_reports(targets, flags.files or ())
    remove_old_reports(junit, summary, report)
    try:
        return _test(flags)
    except Exception as error:  # a report for CI tells any error, then it is raised
        _write_reports(
            flags, [case_results.error_as_suite(error, ", ".join(flags.files or (HERE,)))]
        )
        raise


def _write_reports(flags: PipelineTestFlags, suites: Sequence[SuiteResult]) -> None:
    page = None if flags.report is None else (flags.report, suites_page(suites))
    markdown = junit_and_markdown.suites_markdown(suites)
    junit_and_markdown.write_reports(
        suites, markdown, junit=flags.junit, summary=flags.summary, page=page
    )
    for annotation in junit_and_markdown.github_annotations(suites):
        printing.print_err(annotation)


def _test(flags: PipelineTestFlags) -> int:
    mode: ReplayMode = "record" if flags.record else "replay" if flags.replay else "auto"
    paths = [pipeline_file(file, "test") for file in flags.files or (HERE,)]
    varied = varied_options(flags.models, flags.prompts, flags.settings)
    tests = suite_runner.read_suites(paths, CompareKeys.model_validate(varied) if varied else None)
    if not any(file.specs for file in tests):
        names = ", ".join(str(file.file) for file in tests)
        raise CommandError(f"There are no tests in {names}.\n  Write some under `tests:`.")
    sample = flags.item_sample()
    if sample is not None and not any(spec.rows for file in tests for spec in file.specs):
        name = "--limit" if sample.is_first else "--sample"
        remedy = "Leave it out, or give a test `cases: {from: …}`."
        raise CommandError(
            f"`{name}` takes rows of a data set, and no test here has one.\n  {remedy}"
        )
    printer = _CasePrinter(printing.print_err if flags.as_json else printing.print_out)
    try:
        # stdout carries one object: what a plug-in prints goes to stderr.
        with redirect_stdout(sys.stderr) if flags.as_json else nullcontext():
            options = suite_runner.SuiteOptions(
                mode, printer.case, printer.begin, flags.only or (), sample, flags.given_settings()
            )
            suites = suite_runner.run_suites(tests, options)
    except suite_runner.UnknownCase as error:
        raise CommandError(str(error)) from error
    printer.end(suites)
    _write_reports(flags, suites)
    totals = case_results.count_cases(suites)
    status = TESTS_FAILED if totals["failed"] or totals["error"] else DONE
    if flags.as_json:
        found = [suite.as_json() for suite in suites]
        printing.print_json({"ok": not status, "counts": totals, "files": found})
    return status


class _CasePrinter:
    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._file: SuiteFile | None = None
        self._printed: set[CaseProblem] = set()

    def begin(self, name: str) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            printing.print_err(f"  …       {printing.printable_line(name)}")

    def case(self, file: SuiteFile, case: CaseResult) -> None:
        if file is not self._file:
            self._file = file
            variant = f": {file.variant}" if file.variant else ""
            self._write(printing.printable_line(f"{file.file}{variant}"))
        how = ", ".join(part for part in (case.source, units.duration(case.seconds)) if part)
        self._write(f"  {case.word:<7} {printing.printable_line(case.name)} ({how})")
        for problem in () if case.passed else case.problems:
            if case.is_error and problem in self._printed:
                self._write(f"      {problem.kind}: as above")
                continue
            self._printed.add(problem)
            self._write(f"      {problem.kind}: {problem.message}")
            if problem.detail:
                self._write("\n".join(f"        {line}" for line in problem.detail.split("\n")))
        for note in (*case.notes, *case.changed_answers):
            self._write(f"      {note}")

    def end(self, suites: Sequence[SuiteResult]) -> None:
        for note in (note for suite in suites for note in suite.notes):
            self._write(printing.printable_message(note))
        if rows := case_results.variant_rows(suites):
            self._write(f"\n{printing.table(rows)}\n")
        n_all = sum(len(suite.cases) for suite in suites)
        took = units.duration(sum(suite.seconds for suite in suites))
        self._write(f"{counted(n_all, 'test')}: {case_results.counts_text(suites)}, in {took}.")
