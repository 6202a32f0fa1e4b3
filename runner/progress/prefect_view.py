"""A run as Prefect shows it, in plain values: tasks, states, progress, inputs, item table.

A task stands for a step, a block, or a chunk of a block's items. Imports no Prefect.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from paddock.engine.system.records import Struct

from .events import Observer, ShownWork
from .item_states import ItemState
from .report import Report, counts_text

FLOW_MODULE = "paddock.runner.workers.pipeline_flow"
"""The flow of a pipeline; imports Prefect, which takes a second or two."""
RUN_TAG = "paddock"


class PrefectState(Struct, frozen=True):
    """The state of a run or a task; on Prefect's page `type` is the colour, `name` the text."""

    type: Literal["COMPLETED", "FAILED", "CANCELLED", "CRASHED", "RUNNING"]
    name: str
    message: str = ""


def completed(message: str) -> PrefectState:
    return PrefectState("COMPLETED", "Completed", message)


def quarantined(message: str) -> PrefectState:
    return PrefectState("FAILED", "Quarantined", message)


def state_of_work(shown: ShownWork, *, is_chunk: bool) -> PrefectState:
    """Return the state in which a step, a block or a chunk of its items ended.

    >>> state_of_work(ShownWork({ItemState.DONE: 2, ItemState.SKIPPED: 1}), is_chunk=True).message
    '2 done, 1 skipped'
    """
    words = shown.text
    if shown.counts is not None and is_chunk:
        n_of = shown.counts.get
        words = f"{n_of(ItemState.DONE, 0)} done"
        for state in (ItemState.SKIPPED, ItemState.WAITING, ItemState.QUARANTINED):
            words += f", {n_of(state)} {state}" if n_of(state) else ""
    elif shown.counts is not None:
        words = counts_text(shown.counts) or "no items"
    return quarantined(words) if shown.is_bad else completed(words)


class ProgressMeter(Observer):
    """Share of a run that is done: the mean of its steps and blocks, so that it never decreases."""

    def __init__(self, steps: Iterable[str]) -> None:
        """`steps`: the observer's names, from `progress_line_names`."""
        self._n_items: dict[str, int] = dict.fromkeys(steps, 1)
        self._n_ended: dict[str, int] = dict.fromkeys(self._n_items, 0)

    @property
    def percent(self) -> float:
        shares = [
            min(1.0, self._n_ended[step] / n) if n else 1.0 for step, n in self._n_items.items()
        ]
        return round(100.0 * sum(shares) / len(shares), 1) if shares else 0.0

    def step(self, step: str, total: int | None, fresh: int) -> None:
        if step in self._n_items:
            self._n_items[step] = 1 if total is None else total
            self._n_ended[step] = fresh

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        if step in self._n_items and state != "running":
            self._n_ended[step] += 1


MAX_ROWS = 500
PROGRESS_DESCRIPTION = "How much of the steps and blocks is done"
StateWish = Literal["stop", "suspend"]
SUSPENDED = "It was suspended in Prefect"
PARENT_SUSPENDED = "A parent flow run was suspended in Prefect"
SUSPEND_REFUSED = "This run cannot be paused. Cancel it: the next run goes on with what is left."


def wish_of_state(kind: str, name: str) -> tuple[StateWish, str] | None:
    """Return what a person wants by the state of a running run, and a sentence without full stop.

    None: it runs.

    >>> wish_of_state("CANCELLING", "Cancelling")
    ('stop', 'It was cancelled in Prefect')
    >>> wish_of_state("FAILED", "Rejected by Ada")
    ('stop', "It was set to 'Rejected by Ada' in Prefect")
    """
    if kind in ("RUNNING", "PENDING"):
        return None
    if kind in ("PAUSED", "SCHEDULED"):
        return "suspend", SUSPENDED
    if kind in ("CANCELLING", "CANCELLED"):
        return "stop", "It was cancelled in Prefect"
    return "stop", f"It was set to '{name}' in Prefect"


def wish_of_parents(states: Iterable[tuple[str, str]]) -> tuple[StateWish, str] | None:
    """Return why a run stops, by the states of its parent flow runs; None: it goes on.

    A parent that completes or fails may leave a run that it started to itself; one that is paused
    waits in its process, one that is suspended begins again in another.

    >>> wish_of_parents([("COMPLETED", "Completed"), ("CANCELLING", "Cancelling")])
    ('stop', 'A parent flow run was cancelled in Prefect')
    """
    found = set(states)
    if ("PAUSED", "Suspended") in found:
        return "suspend", PARENT_SUSPENDED
    ended = {"CANCELLING", "CANCELLED", "CRASHED"}.intersection(kind for kind, _ in found)
    if ended == {"CRASHED"}:
        return "stop", "A parent flow run crashed"
    return ("stop", "A parent flow run was cancelled in Prefect") if ended else None


def last_state(report: Report) -> PrefectState:
    """Return the state in which a run ended; items that are newly quarantined make it red.

    >>> last_state(Report("a", "p", "completed", {"fresh": 2}))
    PrefectState(type='COMPLETED', name='Completed', message='2 fresh')
    """
    words = (
        counts_text(report.counts) or report.message or report.effects_in_words() or report.status
    )
    if report.status == "failed":
        return PrefectState("FAILED", "Failed", report.message or words)
    if report.status == "interrupted":
        return PrefectState("CANCELLED", "Cancelled", report.message or words)
    if report.status in ("budget", "suspended"):
        return PrefectState("COMPLETED", report.status.capitalize(), report.message or words)
    return quarantined(words) if report.exit_status() else completed(words)


def item_table(report: Report) -> tuple[list[dict[str, Any]], str]:
    items = sorted(report.items, key=lambda item: (item.error is None, item.state == "fresh"))
    n_rest = len(items) - len(items[:MAX_ROWS])
    description = f"{len(items)} items" + (f", {n_rest} of them not shown" if n_rest else "")
    return [item.as_json() for item in items[:MAX_ROWS]], description


def prefect_name(name: str) -> str:
    return re.sub(r"[/%&<>]+", " ", name).strip() or "pipeline"


def artifact_key(name: str) -> str:
    """Return an artifact key for a pipeline: small letters, digits, dashes.

    >>> artifact_key("Résumés of 2026!")
    'r-sum-s-of-2026'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "pipeline"
