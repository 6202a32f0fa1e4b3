"""Test results as one HTML page, in the frame of the reports of runs: failures first.

The size is bounded: of a large data set the rows that did not pass are listed, and the first of the
others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paddock.engine.system.text import counted
from paddock.runner.render.html_page import html_page

from .case_results import SuiteResult, count_cases, variant_rows

MAX_FAILURES, MAX_ROWS, MAX_DETAIL_CHARS = 200, 500, 8_000


def suites_page(suites: Sequence[SuiteResult]) -> str:
    varied = [suite for suite in suites if suite.variant]
    n_files = counted(len({suite.file for suite in suites}), "file")
    of = f" in {counted(len(varied), 'variant')}" if varied else ""
    return html_page(
        "Paddock tests",
        "test_results.html",
        suites=suites,
        totals=count_cases(suites),
        tested=f"{n_files}{of}",
        seconds=sum(suite.seconds for suite in suites),
        bad=[
            (suite, case)
            for suite in suites
            for case in suite.cases
            if case.skipped is None and not case.passed
        ],
        variants=variant_rows(varied) if varied else [],
        data_sets=list(_rows_of_variants(varied)),
        max_failures=MAX_FAILURES,
        max_rows=MAX_ROWS,
        max_chars=MAX_DETAIL_CHARS,
    )


def _rows_of_variants(
    suites: Sequence[SuiteResult],
) -> Iterator[tuple[str, list[tuple[str, list[bool | None]]]]]:
    """Yield each data set's name and its rows, those first in which variants differ."""
    for name in dict.fromkeys(case.name for suite in suites for case in suite.cases if case.rows):
        by_row: dict[str, list[bool | None]] = {}
        for place, suite in enumerate(suites):
            for case in suite.cases:
                if case.name == name and case.rows:
                    for row, is_passed in zip(case.rows, case.turns, strict=True):
                        by_row.setdefault(row, [None] * len(suites))[place] = is_passed
        yield name, sorted(by_row.items(), key=lambda row: (len({*row[1]}) < 2, all(row[1])))
