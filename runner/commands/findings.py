"""What `paddock doctor` found: one thing looked at each, laid out for people and machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from paddock.runner.display import console

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    about: str
    level: Level
    text: str
    remedy: str = ""


def exit_status(findings: Sequence[Finding]) -> int:
    """Give 1 when something keeps Paddock from working, else 0."""
    return int(any(finding.level == "fault" for finding in findings))


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Give the object of `doctor --json`."""
    return {
        "ok": exit_status(findings) == 0,
        "findings": [asdict(finding) for finding in findings],
    }


def text(findings: Sequence[Finding]) -> str:
    """Lay the findings out; what is wrong is loud, with what to do below it."""
    marks = {"ok": "ok", "warning": "WARNING", "fault": "FAULT"}
    width = max(len(finding.about) for finding in findings)
    lines = []
    for finding in findings:
        head = f"{marks[finding.level]:<7}  {finding.about.ljust(width)}  "
        lines.append(head + console.message(finding.text))
        if finding.remedy:
            indent = " " * len(head)
            lines += [indent + line for line in finding.remedy.splitlines()]
    return "\n".join(lines)
