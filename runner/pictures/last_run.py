"""What the last run of a pipeline did with each step, for its picture; read from the ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddock.runner.history.past import Past, history
from paddock.runner.history.places import STATE_FOLDER, Place

from .scene import LastRun, State

_BAD = ("failed", "quarantined")
_WORK = ("new", "changed", "stale")


def last_run(file: Path) -> tuple[Mapping[str, LastRun], str]:
    """Give what became of each step, and in words which run it was; empty where there was none."""
    place = Place(file.absolute().parent / STATE_FOLDER, file.name)
    found = history([place], limit=1)
    if not found.runs:
        return {}, found.faults[0] if found.faults else "Not run yet."
    past = found.runs[0]
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(past.row.started))
    words = f"Run '{past.row.run}', {began}: {past.status}"
    return {name: _last(steps) for name, steps in _steps(past).items()}, words


def _steps(past: Past) -> Mapping[str, Mapping[str, Any]]:
    """Give what was added up; of a run that goes on or has died, what its journal tells."""
    steps = past.summary.get("steps")
    if isinstance(steps, dict):
        return steps
    return _from_journal(past.journal)


def _from_journal(journal: Path) -> Mapping[str, Mapping[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    try:
        with journal.open(encoding="utf-8") as lines:
            for line in lines:
                _take(found, line)
    except OSError:
        return {}
    return found


def _take(found: dict[str, dict[str, Any]], line: str) -> None:
    try:
        told = json.loads(line)
    except ValueError:  # the last line of a run that was killed
        return
    step = told.get("step")
    if not isinstance(step, str) or told.get("event") not in ("step", "item"):
        return
    sums = found.setdefault(step, {"seconds": 0.0, "calls": 0, "counts": {}})
    if told["event"] == "step":
        if told.get("fresh"):
            sums["counts"]["fresh"] = told["fresh"]
        return
    state = str(told.get("state"))
    sums["counts"][state] = sums["counts"].get(state, 0) + 1
    sums["seconds"] += told.get("seconds", 0.0)
    sums["calls"] += told.get("calls", 0)


def _last(steps: Mapping[str, Any]) -> LastRun:
    counts = steps.get("counts", {})
    return LastRun(
        _state(counts),
        counts,
        int(steps.get("n", 0)),
        float(steps.get("seconds", 0.0)),
        int(steps.get("calls", 0)),
        int(steps.get("known_calls", 0)),
        int(steps.get("tokens", 0)),
    )


def _state(counts: Mapping[str, int]) -> State:
    if any(counts.get(state) for state in _BAD):
        return "failed"
    if counts and not any(counts.get(state) for state in (*_WORK, "done")):
        return "fresh"
    return "done"
