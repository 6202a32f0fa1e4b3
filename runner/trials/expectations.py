"""Tell which claims of a test do not hold, each as one sentence.

What a model decides is in `verdicts`. Reads files of the test's stage, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paddock.pipelines import reply
from paddock.pipelines.checking.check import Check
from paddock.pipelines.checking.conforming import mismatch
from paddock.pipelines.claims import Expect
from paddock.pipelines.expressions import Expression, ExpressionError, Value
from paddock.runner.report import Report
from paddock.steps.answers.functions import FUNCTIONS

from .outcome import Problem
from .stage import Stage

MOST_BYTES = 16 * 1024 * 1024
MOST_SHOWN = 300  # characters of a text that is not as it should be
MOST_NAMED = 60  # characters of what is no path


@dataclass(frozen=True, slots=True)
class After:
    """A run that has ended, as claims see it."""

    stage: Stage
    report: Report
    inputs: Mapping[str, Any]

    @property
    def scope(self) -> dict[str, Any]:
        """Give the names that expressions of claims know."""
        return {
            "inputs": dict(self.inputs),
            "tmp": str(self.stage.tmp),
            "returns": self.report.returns,
            "report": self.report.as_json(),
        }


@dataclass(frozen=True, slots=True)
class Subject:
    """What a claim looks at."""

    name: str
    value: Any
    text: str


class Unmet(Exception):
    """A claim that does not hold: the sentence, and lines to read."""

    def __init__(self, message: str, detail: str = "") -> None:
        self.detail = detail
        super().__init__(message)


def of_run(claims: Sequence[Expect], after: After) -> list[Problem]:
    """Tell how a run ended otherwise than it should; that is `completed`, unless a claim says."""
    wanted = next((claim.status for claim in claims if claim.status is not None), "completed")
    report = after.report
    if report.status == wanted:
        return []
    person = after.stage.for_person
    what = f"the run ended as '{report.status}', not as '{wanted}'."
    lines = [report.message] if report.message else []
    bad = [item for item in report.items if item.state in ("quarantined", "failed")]
    bad = [item for item in bad if (item.error or "") not in (report.message or "")]
    lines += [f"{item.step} {item.key}: {item.error}" for item in bad[:5]]
    lines += [f"… and {len(bad) - 5:,} more"] if len(bad) > 5 else []
    return [Problem("status", what, person("\n".join(lines)))]


def problem_of(claim: Expect, after: After) -> Problem | None:
    """Tell what is wrong with one claim that needs no model; None where it holds."""
    try:
        _CHECKS[claim.claim](claim, after)
    except Unmet as error:
        person = after.stage.for_person
        return Problem(claim.claim, person(str(error)), person(error.detail))
    except ExpressionError as error:
        words = f"{error.message}. {error.remedy}".strip()
        return Problem(claim.claim, after.stage.for_person(words))
    return None


def subject_of(claim: Expect, after: After) -> Subject:
    """Give what a claim looks at: a file, the value of an expression, or what the run returns.

    Raises:
        Unmet: it is not there.
        ExpressionError: it cannot be evaluated.
    """
    if claim.file is not None:
        path, shown = _path(claim.file, after)
        return _of_file(path, shown)
    if claim.of is not None:
        value = Expression.of(claim.of).evaluate(after.scope)
        return Subject(f"`{claim.of}`", value, as_text(value))
    return Subject("what the run returns", after.report.returns, as_text(after.report.returns))


def rendered(value: Any, after: After) -> Any:
    """Give what a claim says, with its expressions' values.

    Raises:
        ExpressionError: one cannot be evaluated.
    """
    return Value.of(value).render(after.scope)


def as_text(value: Any) -> str:
    """Give a value as text: JSON, where it is none."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)


def excerpt(text: str) -> str:
    """Give the beginning of a text, as lines to read."""
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def _path(written: str, after: After) -> tuple[Path, str]:
    """Give a path that a claim names; it lies within the test's own folders."""
    text = str(rendered(written, after))
    stage = after.stage
    try:
        path = (stage.folder / text).resolve()
        path.exists()  # too long a name only shows here
    except (OSError, RuntimeError, ValueError):
        raise Unmet(f"'{text[:MOST_NAMED]}' cannot be used as a path.") from None
    if not any(path.is_relative_to(root) for root in (stage.folder, stage.tmp)):
        raise Unmet(f"'{text}' lies outside the test's folders. A test sees its own files only.")
    return path, stage.for_person(str(path))


def _of_file(path: Path, shown: str) -> Subject:
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise Unmet(f"'{shown}' cannot be read: {error.strerror}.") from None
    if len(raw) > MOST_BYTES:
        raise Unmet(f"'{shown}' is larger than {MOST_BYTES // 2**20} MiB.")
    text = raw.decode("utf-8", "replace")
    try:
        if path.suffix == ".jsonl":
            lines = [json.loads(line) for line in text.split("\n") if line.strip()]
            return Subject(f"'{shown}'", lines, text)
        if path.suffix == ".json":
            return Subject(f"'{shown}'", json.loads(text), text)
    except ValueError:
        raise Unmet(f"'{shown}' is no JSON.", excerpt(text)) from None
    return Subject(f"'{shown}'", text, text)


def _status(claim: Expect, after: After) -> None:
    """`of_run` has looked at it."""


def _exists(claim: Expect, after: After) -> None:
    path, shown = _path(str(claim.exists), after)
    if not path.exists():
        raise Unmet(f"there is no '{shown}'.", _beside(path, after))


def _absent(claim: Expect, after: After) -> None:
    path, shown = _path(str(claim.absent), after)
    if path.exists():
        raise Unmet(f"there is a '{shown}', and there should be none.")


def _beside(path: Path, after: After) -> str:
    """Name what is there instead."""
    folder = path.parent
    while not folder.is_dir():
        folder = folder.parent
    names = sorted(one.name for one in folder.iterdir() if not one.name.startswith("."))
    shown = after.stage.for_person(str(folder))
    more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
    return f"In '{shown}': {', '.join(names[:10]) or 'nothing'}{more}"


def _check(claim: Expect, after: After) -> None:
    scope = after.scope
    holds = claim.check is True
    if isinstance(claim.check, str):
        check = Check.of(claim.check)
        names = {path[0] for path in check.references}
        if claim.file is not None or claim.of is not None or names & {"text", "output"}:
            subject = subject_of(claim, after)
            scope |= {"text": subject.text, "output": subject.value}
        failures = check.failures(scope, FUNCTIONS)
        if failures and not failures[0].startswith("This must be true"):
            raise Unmet(f"`{claim.check}`: {' '.join(failures)}", _values(claim, scope))
        holds = not failures
    if not holds:
        raise Unmet(f"`{claim.check}` is not true.", _values(claim, scope))


def _values(claim: Expect, scope: Mapping[str, Any]) -> str:
    """Show what an expression has read."""
    if not isinstance(claim.check, str):
        return ""
    lines = []
    for path in sorted(Check.of(claim.check).references):
        try:
            value = Expression.of(".".join(path)).evaluate(scope)
        except ExpressionError:
            continue
        lines.append(f"{'.'.join(path)} = {excerpt(json.dumps(value, ensure_ascii=False))}")
    return "\n".join(lines)


def _equals(claim: Expect, after: After) -> None:
    subject, wanted = subject_of(claim, after), rendered(claim.equals, after)
    value = subject.value
    if isinstance(value, str) and isinstance(wanted, str):
        value, wanted = value.strip(), wanted.strip()
    if value != wanted:
        lines = [f"-{line}" for line in excerpt(as_text(wanted)).split("\n")]
        lines += [f"+{line}" for line in excerpt(as_text(value)).split("\n")]
        raise Unmet(f"{subject.name} is not what it should be.", "\n".join(lines))


def _contains(claim: Expect, after: After) -> None:
    subject = subject_of(claim, after)
    lacking = [text for text in rendered(claim.contains, after) if str(text) not in subject.text]
    if lacking:
        names = ", ".join(f"'{text}'" for text in lacking)
        raise Unmet(f"{subject.name} does not contain {names}.", excerpt(subject.text))


def _lacks(claim: Expect, after: After) -> None:
    subject = subject_of(claim, after)
    found = [text for text in rendered(claim.lacks, after) if str(text) in subject.text]
    if found:
        names = ", ".join(f"'{text}'" for text in found)
        raise Unmet(f"{subject.name} contains {names}, and should not.", excerpt(subject.text))


def _regex(claim: Expect, after: After) -> None:
    subject = subject_of(claim, after)
    if re.search(claim.regex or "", subject.text) is None:
        raise Unmet(f"nothing in {subject.name} matches `{claim.regex}`.", excerpt(subject.text))


def _schema(claim: Expect, after: After) -> None:
    subject = subject_of(claim, after)
    form = reply.read(claim.schema_, after.stage.folder)
    if form.faults:
        raise Unmet(f"{form.faults[0].message}. {form.faults[0].remedy}".strip())
    value = subject.value
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise Unmet(f"{subject.name} is no JSON.", excerpt(subject.text)) from None
    try:
        wrong = mismatch(value, form.schema)
    except Exception as error:  # the library finds out about a bad schema in many ways
        raise Unmet(f"the schema cannot be used: {error}.") from None
    if wrong is not None:
        raise Unmet(f"{subject.name} does not match the schema. {wrong}")


_CHECKS: Mapping[str, Callable[[Expect, After], None]] = {
    "status": _status,
    "exists": _exists,
    "absent": _absent,
    "check": _check,
    "equals": _equals,
    "contains": _contains,
    "lacks": _lacks,
    "regex": _regex,
    "schema": _schema,
}
