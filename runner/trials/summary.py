"""Write suites and runs as Markdown, as GitHub shows it beside a job. Pure, bounded.

Knows no test and no run, but for their reports.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from paddock.runner.report import STATES, Report

from .outcome import Case, Suite, counted

MOST_CASES = 200
MOST_SHOWN = 20  # whose problems are shown in full
MOST_CHARS = 200_000  # GitHub takes 1 MiB from a step


def of_tests(suites: Iterable[Suite]) -> str:
    """Give the summary of tests: what failed first."""
    found = list(suites)
    lines = [f"## Paddock tests: {counted(found) or 'no tests'}", ""]
    cases = [(suite, case) for suite in found for case in suite.cases]
    cases.sort(key=lambda one: one[1].word not in ("failed", "error"))
    rows = [
        (_icon(case), _cell(case.name), _cell(suite.file), _turns(case), f"{case.seconds:.1f} s")
        for suite, case in cases[:MOST_CASES]
    ]
    lines += _table(("", "test", "file", "replies", "time"), rows, len(cases))
    bad = [(suite, case) for suite, case in cases if not case.passed and case.skipped is None]
    for _, case in bad[:MOST_SHOWN]:
        lines += _problems(case)
    notes = [note for suite in found for note in suite.notes]
    lines += [f"- {_cell(note)}" for note in notes[:MOST_SHOWN]]
    return _bounded(lines)


def of_run(report: Report) -> str:
    """Give the summary of a run: what failed first, then the numbers."""
    lines = [f"## {_cell(report.pipeline)}: {report.status}", ""]
    if report.message:
        lines += [_cell(report.message), ""]
    bad = [item for item in report.items if item.state in ("failed", "quarantined")]
    if bad:
        rows = [(_cell(item.key), item.state, _cell(item.error or "")) for item in bad[:MOST_CASES]]
        lines += _table(("not done", "state", "why"), rows, len(bad))
    states = [state for state in STATES if report.counts.get(state)]
    if states:
        lines += _table(states, [tuple(f"{report.counts[state]:,}" for state in states)], 1)
    if not report.run:  # it could not even begin
        return _bounded(lines)
    tokens = report.tokens
    lines.append(
        f"Run `{report.run}`, {report.seconds:.1f} s, {report.calls:,} model calls and "
        f"{report.cached_calls:,} from the ledger, {tokens.get('prompt', 0):,} prompt tokens "
        f"({tokens.get('prompt_reused', 0):,} reused), {tokens.get('completion', 0):,} written."
    )
    lines += ["", *(f"- {_cell(note)}" for note in report.notes[:MOST_SHOWN])]
    return _bounded(lines)


def _table(head: Iterable[str], rows: Sequence[tuple[str, ...]], n_all: int) -> Iterator[str]:
    names = list(head)
    yield f"| {' | '.join(names)} |"
    yield f"|{'---|' * len(names)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""
    if n_all > len(rows):
        yield f"… and {n_all - len(rows):,} more."
        yield ""


def _problems(case: Case) -> Iterator[str]:
    yield f"### {_cell(case.name)}"
    yield ""
    for problem in case.problems:
        yield f"- **{_cell(problem.kind)}**: {_cell(problem.message)}"
        if problem.detail:
            fence = _fence(problem.detail)
            yield f"\n{fence}diff\n{problem.detail}\n{fence}"
    yield ""


def _fence(text: str) -> str:
    """Give a fence that the text cannot end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(3, longest + 1)


def _turns(case: Case) -> str:
    source = case.source or ""
    if len(case.turns) > 1:
        return f"{source}, {sum(case.turns)} of {len(case.turns)} turns"
    return source


def _icon(case: Case) -> str:
    return {"passed": "✅", "failed": "❌", "error": "💥", "skipped": "⏭️"}[case.word]


def _cell(text: str) -> str:
    """Make a text one line that no table, tag or mark-up comes out of."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;")
    line = re.sub(r"([\\`*_|\[\]])", r"\\\1", line)
    return line if len(line) <= 500 else f"{line[:499]}…"


def _bounded(lines: Iterable[str]) -> str:
    text = "\n".join(lines).rstrip() + "\n"
    return text if len(text) <= MOST_CHARS else f"{text[:MOST_CHARS]}\n\n… cut here.\n"
