"""Results of tests: cases and suites; a run becomes a suite with a case for each document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from paddock.engine.system.records import Struct, asdict
from paddock.engine.system.text import one_line
from paddock.pipelines.errors import PipelineError
from paddock.runner.bind.variations import letters
from paddock.runner.progress.item_states import BAD, WORK, ItemState
from paddock.runner.progress.report import ItemReport, Report

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
