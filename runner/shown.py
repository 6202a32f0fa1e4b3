"""What of a run is shown in Prefect, as plain values: inputs, how it ended, a table. No Prefect."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass
from typing import Any

from .report import Report
from .session import Session

MOST_ROWS = 500


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run's last state, in Prefect's words."""

    type: str
    name: str
    message: str


@dataclass(frozen=True, slots=True)
class Past:
    """A run whose end Prefect was not there to be shown."""

    pipeline: str
    run: str
    parameters: dict[str, Any]
    outcome: Outcome
    began: float
    """Unix times."""
    ended: float
    key: str
    """Of the artefact that has the rows."""
    rows: list[dict[str, Any]]
    description: str
    flow_run: str = ""
    """Its id, where it was made; only its end is missing then."""

    @classmethod
    def of(cls, session: Session, report: Report, flow_run: str = "") -> Past:
        """Give a run that has just ended."""
        rows, description = table_of(report)
        return cls(
            pipeline=session.bound.name,
            run=session.tally.run,
            parameters={"path": str(session.bound.file), "inputs": inputs_of(session)},
            outcome=outcome_of(report),
            began=session.began,
            ended=time.time(),
            key=f"{slug(session.bound.name)}-results",
            rows=rows,
            description=description,
            flow_run=flow_run,
        )

    def as_json(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return asdict(self)


def outcome_of(report: Report) -> Outcome:
    """Say how a run ended; quarantined items don't make it a failure."""
    words = ", ".join(f"{n} {state}" for state, n in report.counts.items() if n)
    words = words or report.message or "nothing to do"  # other machines counted, and said so
    if report.status == "failed":
        return Outcome("FAILED", "Failed", report.message or words)
    if report.status == "interrupted":
        return Outcome("CANCELLED", "Cancelled", report.message or words)
    if report.status == "budget":
        return Outcome("COMPLETED", "Budget", report.message or words)
    return Outcome("COMPLETED", "Completed", words)


def inputs_of(session: Session) -> dict[str, Any]:
    """Give a run's inputs; those that are secret without their values."""
    secret = session.bound.secret_inputs
    return {name: "***" if name in secret else v for name, v in session.bound.inputs.items()}


def table_of(report: Report) -> tuple[list[dict[str, Any]], str]:
    """Give the items, those that failed first, and what to say of them."""
    items = sorted(report.items, key=lambda item: (item.error is None, item.state == "fresh"))
    more = len(items) - len(items[:MOST_ROWS])
    description = f"{len(items)} items" + (f", {more} of them not shown" if more else "")
    return [item.as_json() for item in items[:MOST_ROWS]], description


def slug(name: str) -> str:
    """Make an artefact's key of a pipeline's name: small letters, digits, dashes.

    >>> slug("Résumés of 2026!")
    'r-sum-s-of-2026'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "pipeline"
