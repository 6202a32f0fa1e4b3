"""How tests went, and how a run's documents went: suites of cases, for people and for CI.

Frozen and plain. Knows no XML and no Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from paddock.runner.report import ItemReport, Report

Source = Literal["live", "record", "replay"]
FAILED = 4
"""The exit status where tests failed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it should be."""

    kind: str
    """The claim that does not hold, or `run`, `unseen`, `cassette`."""
    message: str
    """One sentence."""
    detail: str = ""
    """Lines to read: a difference, an excerpt."""

    def as_json(self) -> dict[str, str]:
        """Give the keys that machines read."""
        return {"kind": self.kind, "message": self.message, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Case:
    """One test, or one document."""

    name: str
    group: str
    """What it belongs to: the pipeline's name, or that and the block's id."""
    seconds: float = 0.0
    problems: tuple[Problem, ...] = ()
    is_error: bool = False
    """It could not be carried out at all."""
    skipped: str | None = None
    """Why it was not carried out."""
    notes: tuple[str, ...] = ()
    source: Source | None = None
    """Where the replies came from."""
    turns: tuple[bool, ...] = ()
    """Of a repeated test: which turns passed."""
    needed: float = 1.0
    """Of a repeated test: which share of the turns must pass."""

    @property
    def passed(self) -> bool:
        """Whether all is as it should be."""
        if self.is_error:
            return False
        if len(self.turns) > 1:
            return sum(self.turns) >= self.needed * len(self.turns) - 1e-9
        return not self.problems

    @property
    def word(self) -> str:
        """Name how it went."""
        if self.skipped is not None:
            return "skipped"
        return "passed" if self.passed else "error" if self.is_error else "failed"

    def as_json(self) -> dict[str, Any]:
        """Give the keys that machines read."""
        return {
            "name": self.name,
            "outcome": self.word,
            "seconds": round(self.seconds, 3),
            "source": self.source,
            "turns": list(self.turns),
            "problems": [problem.as_json() for problem in self.problems],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Suite:
    """The cases of one file."""

    name: str
    file: str
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """How long they took together."""
        return sum(case.seconds for case in self.cases)

    def n(self, *words: str) -> int:
        """Count the cases that went so."""
        return sum(case.word in words for case in self.cases)

    def as_json(self) -> dict[str, Any]:
        """Give the keys that machines read."""
        cases = [case.as_json() for case in self.cases]
        return {"name": self.name, "file": self.file, "tests": cases, "notes": list(self.notes)}


def counts(suites: Iterable[Suite]) -> dict[str, int]:
    """Count the cases of all suites by how they went."""
    words = ("passed", "failed", "error", "skipped")
    found = list(suites)
    return {word: sum(suite.n(word) for suite in found) for word in words}


def counted(suites: Iterable[Suite]) -> str:
    """Say how many cases went how; empty for none."""
    found = counts(suites)
    return ", ".join(f"{n:,} {_word(word, n)}" for word, n in found.items() if n)


def _word(word: str, n: int) -> str:
    return "errors" if word == "error" and n != 1 else word


def exit_status(suites: Iterable[Suite]) -> int:
    """Give the process's exit status: 4 where a case failed or could not be carried out."""
    found = counts(suites)
    return FAILED if found["failed"] or found["error"] else 0


def _skipped(item: ItemReport) -> str | None:
    if item.state not in ("skipped", "held", "missing"):
        return None
    return item.why or item.error or item.state


def documents(report: Report, file: str) -> Suite:
    """Give a run as a suite: each document a case, the quarantined ones failures."""
    cases = [
        Case(
            name=item.key,
            group=f"{report.pipeline}.{item.step}",
            seconds=item.seconds,
            problems=(
                (Problem(item.state, item.error or item.state),)
                if item.state in ("quarantined", "failed")
                else ()
            ),
            is_error=item.state == "failed",
            skipped=_skipped(item),
            notes=(item.state,),
        )
        for item in report.items
        if item.state != "deleted"
    ]
    stopped = report.status in ("failed", "budget", "interrupted")
    if stopped and not any(case.is_error for case in cases):
        words = report.message or f"The run ended as '{report.status}'."
        problem = Problem(report.status, words)
        cases.append(
            Case("the run as a whole", report.pipeline, problems=(problem,), is_error=True)
        )
    return Suite(report.pipeline, file, tuple(cases), report.notes)
