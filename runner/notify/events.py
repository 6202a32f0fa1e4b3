"""Decide what is told about the end of a run, and to whom: pure, on what was told before.

A failure is told once, and once a day while it stays the same; quarantined items are told together,
and again only when others come; a recovery is told to whoever was told, or could have been, of what
is over. A message that could not be delivered was not told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..report import ItemReport, Report  # noqa: TID252

Event = Literal["failed", "quarantined", "recovered"]

AGAIN_S = 86_400.0  # a pipeline that fails every five minutes sends one message a day, not 288
MOST_REMEMBERED = 50_000
_MARK_CHARS = 12
_NO_NEWS = ("interrupted", "budget")


@dataclass(frozen=True, slots=True)
class Told:
    """What one receiver was told last."""

    bad: str = ""
    """`failed` or `quarantined`, until it is over."""
    failure: str = ""
    """The mark of the failure."""
    failed_at: float = 0.0
    """Seconds since the epoch."""
    items: frozenset[str] = frozenset()
    """The marks of the quarantined items."""

    def as_json(self) -> dict[str, Any]:
        """Give what is kept."""
        items = sorted(self.items)[:MOST_REMEMBERED]
        kept = {"bad": self.bad, "failure": self.failure, "failed_at": self.failed_at}
        return {**kept, "items": items}

    @classmethod
    def of_json(cls, data: Any) -> Told:
        """Read what was kept; what cannot be read was not told."""
        try:
            items = frozenset(str(mark) for mark in data["items"])
            failed_at = float(data["failed_at"])
            return cls(str(data["bad"]), str(data["failure"]), failed_at, items)
        except (KeyError, TypeError, ValueError):
            return cls()


@dataclass(frozen=True, slots=True)
class News:
    """One thing to tell, and what its receiver knows once it is told."""

    event: Event
    after: Told
    new_items: frozenset[str] = frozenset()
    """The marks of the quarantined items that were not told before."""


def settled(report: Report, before: Told) -> Told:
    """Forget the quarantined items that are over, of which nobody need hear one by one."""
    if report.status in _NO_NEWS or report.status == "failed":
        return before
    return replace(before, items=before.items & marks_of(quarantined(report)))


def news(report: Report, before: Told, now: float) -> tuple[News, ...]:
    """Give what there is to tell of a run to one receiver who wants to hear everything, in order.

    A run that was interrupted, or stopped at its budget, is no news: it goes on.
    """
    if report.status in _NO_NEWS:
        return ()
    if report.status == "failed":
        return _failure(report, before, now)
    found: list[News] = []
    marks = marks_of(quarantined(report))
    if before.bad == "failed" or (before.bad and not marks):
        kept = before.items & marks
        before = Told("quarantined" if kept else "", items=kept)
        found.append(News("recovered", before))
    fresh = marks - before.items
    if fresh:
        found.append(News("quarantined", Told("quarantined", items=marks), fresh))
    return tuple(found)


def _failure(report: Report, before: Told, now: float) -> tuple[News, ...]:
    mark = _mark(report.message or "", *(f"{i.key}\n{i.error}" for i in failed(report)))
    is_same = before.bad == "failed" and before.failure == mark
    if is_same and 0 <= now - before.failed_at < AGAIN_S:
        return ()
    return (News("failed", replace(before, bad="failed", failure=mark, failed_at=now)),)


def quarantined(report: Report) -> list[ItemReport]:
    """Return what waits for a person: quarantined items, old ones too, and missing documents."""
    return [item for item in report.items if item.state in ("quarantined", "missing")]


def failed(report: Report) -> list[ItemReport]:
    """Give the items or steps that ended the run."""
    return [item for item in report.items if item.state == "failed"]


def marks_of(items: Iterable[ItemReport]) -> frozenset[str]:
    """Give what tells quarantined items apart: where, which, and why."""
    return frozenset(mark_of(item) for item in items)


def mark_of(item: ItemReport) -> str:
    """Give the mark of one item."""
    return _mark(item.step, item.key, item.error or "")


def _mark(*parts: str) -> str:
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:_MARK_CHARS]
