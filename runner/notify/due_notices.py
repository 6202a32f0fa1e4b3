"""Decide which notifications the end of a run needs, after what each receiver was sent. Pure.

A failure is sent once, and once a day while it stays the same; quarantined items are sent
together, and again only when others come, or once a day while no item of their block is done; of
answers that wait for review one message tells, and another one of others when these are decided, or
after a day, or where one may be a fraud; a recovery goes to receivers that were sent, or should
have been sent, the failure. Undelivered messages count as not sent.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from paddock.engine.system.records import Struct, asdict, replace
from paddock.runner.progress.reasons import Why
from paddock.runner.progress.report import ItemReport, Report

Event = Literal["failed", "quarantined", "recovered", "waiting"]

AGAIN_S = 86_400.0  # a pipeline that fails every five minutes sends one message a day, not 288
MOST_REMEMBERED = 50_000
_DIGEST_CHARS = 12
_STATUSES_WITHOUT_NOTICE = ("interrupted", "budget", "suspended")
_DIGESTS = ("items", "waiting")


class SentState(Struct, frozen=True):
    bad: str = ""
    """`failed` or `quarantined` while that lasts."""
    failure: str = ""
    """The digest of the failure."""
    failed_at: float = 0.0
    """Seconds since the epoch."""
    items: frozenset[str] = frozenset()
    quarantined_at: float = 0.0
    waiting: frozenset[str] = frozenset()
    waiting_at: float = 0.0
    """When that was sent, in seconds since the epoch."""

    def as_json(self) -> dict[str, Any]:
        kept = {name: sorted(getattr(self, name))[:MOST_REMEMBERED] for name in _DIGESTS}
        return {**asdict(self), **kept}


class Notice(Struct, frozen=True):
    """One event to send, and the receiver's state after it."""

    event: Event
    after: SentState
    new_items: frozenset[str] = frozenset()
    """The digests of the quarantined items that are new to the receiver."""


def without_ended_items(report: Report, before: SentState) -> SentState:
    if report.status in _STATUSES_WITHOUT_NOTICE or report.status == "failed":
        return before
    items = before.items & _digests(report, "quarantined")
    return replace(before, items=items, waiting=before.waiting & _digests(report, "waiting"))


def notices_of(report: Report, before: SentState, now: float) -> tuple[Notice, ...]:
    """Return the events of a run to send to a receiver of all events, in order.

    A run that was interrupted, or stopped at its budget, sends nothing: it is continued.
    """
    if report.status in _STATUSES_WITHOUT_NOTICE:
        return ()
    if report.status == "failed":
        failed = (f"{item.key}\n{item.error}" for item in items_of(report, "failed"))
        failure = _digest(report.message or "", *failed)
        is_same = before.bad == "failed" and before.failure == failure
        if is_same and 0 <= now - before.failed_at < AGAIN_S:
            return ()
        return (Notice("failed", replace(before, bad="failed", failure=failure, failed_at=now)),)
    notices: list[Notice] = []
    quarantined = _digests(report, "quarantined")
    if before.bad == "failed" or (before.bad and not quarantined):
        known = before.items & quarantined
        bad: Literal["quarantined", ""] = "quarantined" if known else ""
        before = replace(before, bad=bad, failure="", failed_at=0.0, items=known)
        notices.append(Notice("recovered", before))
    new = quarantined - before.items
    is_due = not 0 <= now - before.quarantined_at < AGAIN_S
    if new or (is_due and report.quarantine().without_result):
        before = replace(before, bad="quarantined", failure="", failed_at=0.0, items=quarantined)
        before = replace(before, quarantined_at=now)
        notices.append(Notice("quarantined", before, new))
    # One message for all that waits: not again while any of it waits, but once a day.
    waiting = _digests(report, "waiting")
    new = waiting - before.waiting
    is_known = bool(waiting & before.waiting) and 0 <= now - before.waiting_at < AGAIN_S
    suspected = (item for item in items_of(report, "waiting") if item.may_be_fraud)
    is_known &= new.isdisjoint(map(item_digest, suspected))
    if new and not is_known:
        notices.append(Notice("waiting", replace(before, waiting=waiting, waiting_at=now), new))
    return tuple(notices)


def items_of(report: Report, event: Event) -> list[ItemReport]:
    """Return the items that a message of this event is about.

    `quarantined`: what needs a person, old ones too, and missing documents.
    """
    states = ("quarantined", "missing") if event in ("quarantined", "recovered") else (event,)
    return [item for item in report.items if item.state in states]


def _digests(report: Report, event: Event) -> frozenset[str]:
    return frozenset(map(item_digest, items_of(report, event)))


def item_digest(item: ItemReport) -> str:
    suspicion = [Why.MAY_BE_FRAUD_SINCE.name] if item.may_be_fraud else []
    return _digest(item.step, item.key, item.error or "", *suspicion)


def _digest(*parts: str) -> str:
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:_DIGEST_CHARS]
