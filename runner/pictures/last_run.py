"""What the last run of a pipeline did with each step, for its picture; read from the ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paddock.runner.history.past import history
from paddock.runner.history.places import STATE_FOLDER, Place

from .scene import LastRun, State

_BAD = ("failed", "quarantined")
_WHOLE = ("completed", "quarantined")
_WORK = ("new", "changed", "stale")


@dataclass(frozen=True, slots=True)
class LastRuns:
    """What the last run did with each step."""

    steps: Mapping[str, LastRun]
    words: str
    """Which run it was."""
    otherwise: LastRun = field(default_factory=LastRun)
    """Of a step that it tells nothing of."""


def last_run(file: Path) -> LastRuns:
    """Give what became of each step."""
    place = Place(file.absolute().parent / STATE_FOLDER, file.name)
    found = history([place], limit=1)
    if not found.runs:
        return LastRuns({}, found.faults[0] if found.faults else "Not run yet.")
    past = found.runs[0]
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(past.row.started))
    words = f"Run '{past.row.run}', {began}: {past.status}"
    steps = past.summary.get("steps")
    if not isinstance(steps, dict):  # it goes on, or was killed
        told = _from_journal(past.journal)
        return LastRuns({name: _last(one) for name, one in told.items()}, words)
    if past.status in _WHOLE:
        return LastRuns({name: _last(one) for name, one in steps.items()}, words, LastRun("fresh"))
    left = {name: one["left"] for name, one in _from_journal(past.journal).items()}
    steps = {name: {**one, "left": left.get(name, 0)} for name, one in steps.items()}
    return LastRuns({name: _last(one) for name, one in steps.items()}, words, LastRun("left"))


def _from_journal(journal: Path) -> Mapping[str, dict[str, Any]]:
    """Add up what a journal tells of top-level steps and blocks."""
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
    step, event = told.get("step"), told.get("event")
    if not isinstance(step, str) or event not in ("step", "item"):
        return
    sums = found.setdefault(step, {"seconds": 0.0, "calls": 0, "n": 0, "counts": {}, "left": 0})
    if event == "step":
        n_fresh = told.get("fresh", 0)
        sums["left"] += told.get("items", 0) - n_fresh
        if n_fresh:
            sums["counts"]["fresh"] = n_fresh
        return
    sums["left"] -= 1
    sums["seconds"] += told.get("seconds", 0.0)
    sums["calls"] += told.get("calls", 0)
    if "key" in told:
        state = str(told.get("state"))
        sums["counts"][state] = sums["counts"].get(state, 0) + 1
    else:
        sums["n"] = 1


def _last(steps: Mapping[str, Any]) -> LastRun:
    n_left = max(0, int(steps.get("left", 0)))
    counts = {**steps.get("counts", {}), **({"left": n_left} if n_left else {})}
    n_failed = int(steps.get("failed", 0))
    return LastRun(
        "failed" if n_failed else _state(counts),
        counts,
        int(steps.get("n", 0)),
        n_failed,
        float(steps.get("seconds", 0.0)),
        int(steps.get("calls", 0)),
        int(steps.get("known_calls", 0)),
        int(steps.get("tokens", 0)),
    )


def _state(counts: Mapping[str, int]) -> State:
    if any(counts.get(state) for state in _BAD):
        return "failed"
    if counts.get("left"):
        return "running"
    if counts and not any(counts.get(state) for state in (*_WORK, "done")):
        return "fresh"
    return "done"
