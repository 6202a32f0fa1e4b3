"""What a check of a cluster found: in words, and what to do about it. Plain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

State = Literal["ok", "made", "warning", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that several machines need."""

    name: str
    state: State
    words: str
    remedy: str = ""

    def as_text(self) -> str:
        """Say it in one line, and what to do in another."""
        text = f"{self.state:<8}{self.name}: {self.words}"
        return f"{text}\n        {self.remedy}" if self.remedy else text

    def as_json(self) -> dict[str, Any]:
        """Give it as plain data."""
        return {
            "name": self.name,
            "state": self.state,
            "words": self.words,
            "remedy": self.remedy,
        }


def is_ready(findings: list[Finding]) -> bool:
    """Tell whether nothing is in the way."""
    return all(finding.state != "wrong" for finding in findings)
