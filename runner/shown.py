"""What Prefect shows of a run, as plain values: inputs, end, table. Imports no Prefect."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from .chunks import PrefectState, completed, counted, quarantined
from .report import Report

if TYPE_CHECKING:
    from .binding.bound import BoundPlan

MOST_ROWS = 500
PROGRESS = "How much of the steps and blocks is done"


def end_of(report: Report) -> dict[str, Any]:
    """Return how a run ended and its table of items, as JSON has it; times are Unix times."""
    state = last_state(report)
    rows, description = table_of(report)
    return {
        "state": {"type": state.type, "name": state.name, "message": state.message},
        "ended": time.time(),
        "rows": rows,
        "description": description,
    }


def unfinished(type_: str, name: str, message: str) -> dict[str, Any]:
    """Return the end of a run that came to no report, as `end_of` does."""
    state = {"type": type_, "name": name, "message": message}
    return {"state": state, "ended": time.time(), "rows": [], "description": ""}


def crashed(pid: int) -> dict[str, Any]:
    """Return the end of a run whose process is gone."""
    words = f"Its process {pid} is gone; the same command continues."
    return unfinished("CRASHED", "Crashed", words)


def last_state(report: Report) -> PrefectState:
    """Return the state in which a run ended; items that are newly quarantined make it red.

    >>> last_state(Report("a", "p", "completed", {"fresh": 2}))
    PrefectState(type='COMPLETED', name='Completed', message='2 fresh')
    """
    # Where other machines did the work, they counted, and the message says so.
    words = counted(report.counts) or report.message or report.done_in_words() or report.status
    if report.status == "failed":
        return PrefectState("FAILED", "Failed", report.message or words)
    if report.status == "interrupted":
        return PrefectState("CANCELLED", "Cancelled", report.message or words)
    if report.status == "budget":
        return PrefectState("COMPLETED", "Budget", report.message or words)
    return quarantined(words) if report.exit_status() else completed(words)


def parameters_of(bound: BoundPlan) -> dict[str, Any]:
    """Return a flow run's parameters: the file and its inputs, those that are secret as `***`."""
    secret = bound.secret_inputs
    inputs = {name: "***" if name in secret else v for name, v in bound.inputs.items()}
    return {"path": str(bound.file), "inputs": inputs}


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
