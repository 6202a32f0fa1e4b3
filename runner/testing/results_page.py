"""Test results as one HTML page, in the frame of the reports of runs: failures first.

The size is bounded: of a large data set the rows that did not pass are listed, and the first of the
others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from paddock.engine.system import units
from paddock.engine.system.text import counted
from paddock.runner.render.html_page import html_cell, html_page, html_table

from .junit_and_markdown import CaseProblem, CaseResult, SuiteResult, count_cases, variant_rows

MAX_FAILURES, MAX_ROWS, MAX_DETAIL_CHARS = 200, 500, 8_000
_TEST_HEADS = ("Test", "Outcome", "Replies", "#Passed", "#Took", "Notes")


def suites_page(suites: Sequence[SuiteResult]) -> str:
    return html_page("Paddock tests", _page_parts(suites))


def _page_parts(suites: Sequence[SuiteResult]) -> Iterator[str]:
    totals = count_cases(suites)
    chips = "".join(
        f'<li class="s-{word}">{word} <b>{n:,}</b></li>' for word, n in totals.items() if n
    )
    took = units.duration(sum(suite.seconds for suite in suites))
    n_files = counted(len({suite.file for suite in suites}), "file")
    n_variants = sum(bool(suite.variant) for suite in suites)
    of = f" in {counted(n_variants, 'variant')}" if n_variants else ""
    yield f"<h1>Paddock tests</h1>\n<p>{n_files}{of}, {took}</p>"
    yield f'<ul class="chips">{chips}</ul>'
    yield from _variants_html(suites)
    bad = [
        (suite, case)
        for suite in suites
        for case in suite.cases
        if case.skipped is None and not case.passed
    ]
    if bad:
        yield f"<h2>Failed ({len(bad):,})</h2>"
    for suite, case in bad[:MAX_FAILURES]:
        problems = "".join(map(_problem_html, case.problems))
        of = f"{suite.file}, {suite.variant}" if suite.variant else suite.file
        what = f"<b>{escape(case.name)}</b> of {escape(of)}, {_word_html(case)}"
        yield f'<div class="error"><p>{what}</p>{problems}</div>'
    if len(bad) > MAX_FAILURES:
        yield f"<p>{len(bad) - MAX_FAILURES:,} more; <code>--json</code> has all of them.</p>"
    for suite in suites:
        yield from _suite_html(suite)


def _variants_html(suites: Sequence[SuiteResult]) -> Iterator[str]:
    """Yield the results of variants side by side, and those of each row of a data set."""
    varied = [suite for suite in suites if suite.variant]
    if not varied:
        return
    heads, *rows = variant_rows(varied)
    yield "<h2>Variants</h2>"
    yield html_table("Variants", heads, ([html_cell(cell) for cell in row] for row in rows))
    for name in dict.fromkeys(case.name for suite in varied for case in suite.cases if case.rows):
        yield from _rows_of_variants_html(name, varied, [row[0] for row in rows])


def _rows_of_variants_html(
    name: str, suites: Sequence[SuiteResult], letters: Sequence[str]
) -> Iterator[str]:
    """Yield the rows of a data set, those first in which variants differ."""
    found: dict[str, list[bool | None]] = {}
    for place, suite in enumerate(suites):
        for case in suite.cases:
            pairs = (
                zip(case.rows, case.turns, strict=True) if case.name == name and case.rows else ()
            )
            for row, is_passed in pairs:
                found.setdefault(row, [None] * len(suites))[place] = is_passed
    rows = sorted(found.items(), key=lambda row: (len({*row[1]}) < 2, all(row[1])))
    shown = (
        [
            f'<td class="name">{escape(row)}</td>',
            *(
                "<td></td>" if outcome is None else f"<td>{_passed_html(outcome)}</td>"
                for outcome in outcomes
            ),
        ]
        for row, outcomes in rows[:MAX_ROWS]
    )
    n_left = len(rows) - MAX_ROWS
    heads = ("Row", *letters)
    yield f"<h3>Rows of {escape(name)}</h3>"
    yield html_table(f"Rows of {name}", heads, shown, note=f"{n_left:,} more rows" * (n_left > 0))


def _problem_html(problem: CaseProblem) -> str:
    text = f"<p>{escape(problem.kind)}: {escape(problem.message)}</p>"
    if not problem.detail:
        return text
    lines = "\n".join(map(_line_html, problem.detail[:MAX_DETAIL_CHARS].split("\n")))
    return f"{text}<pre>{lines}</pre>"


def _line_html(line: str) -> str:
    tag = {"-": "del", "+": "ins"}.get(line[:1])
    return f"<{tag}>{escape(line)}</{tag}>" if tag else escape(line)


def _suite_html(suite: SuiteResult) -> Iterator[str]:
    yield f"<h2>{escape(suite.title)}</h2>\n<p>{escape(suite.file)}</p>"
    yield html_table(suite.title, _TEST_HEADS, map(_test_row, suite.cases))
    yield from (f'<p class="soft">{escape(note)}</p>' for note in suite.notes)
    for case in suite.cases:
        if case.rows and not suite.variant:
            yield from _data_set_html(case)


def _test_row(case: CaseResult) -> tuple[str, ...]:
    passed = f"{sum(case.turns):,} of {len(case.turns):,}" if len(case.turns) > 1 else ""
    remarks = [case.skipped, *case.notes, *case.changed_answers]
    items = "".join(f"<li>{escape(note)}</li>" for note in remarks if note)
    notes = f'<ul class="fields">{items}</ul>' if items else ""
    return (
        f'<td class="name">{escape(case.name)}</td>',
        f"<td>{_word_html(case)}</td>",
        html_cell(case.source or ""),
        html_cell(passed, "n"),
        html_cell(units.duration(case.seconds), "n"),
        f'<td class="name">{notes}</td>',
    )


def _data_set_html(case: CaseResult) -> Iterator[str]:
    """Yield the rows of a data set, those that did not pass first."""
    rows = sorted(zip(case.turns, case.rows, strict=True), key=lambda row: row[0])
    n_left = len(rows) - MAX_ROWS
    shown = (
        (f'<td class="name">{escape(name)}</td>', f"<td>{_passed_html(is_passed)}</td>")
        for is_passed, name in rows[:MAX_ROWS]
    )
    note = f"{n_left:,} more rows" * (n_left > 0)
    yield f"<h3>Rows of {escape(case.name)}</h3>"
    yield html_table(f"Rows of {case.name}", ("Row", "Outcome"), shown, note=note)


def _passed_html(is_passed: bool) -> str:
    word = "passed" if is_passed else "failed"
    return f'<span class="s-{word}">{word}</span>'


def _word_html(case: CaseResult) -> str:
    return f'<span class="s-{case.word}">{case.word}</span>'
