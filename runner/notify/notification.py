"""Write the message of an event: subject, text and JSON object. Pure.

Texts are bounded and redacted; the JSON object has a `text`, which Slack, Mattermost and
Rocket.Chat show.
"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from paddock.engine.system.records import Struct
from paddock.engine.system.text import counted, shorten
from paddock.runner.progress.report import ItemReport, Report

from .due_notices import Event, Notice, item_digest, items_of

MOST_ITEMS = 100  # in the JSON object
MOST_LINES = 20  # in the text
MOST_ERROR_CHARS = 500  # of one item's error, or key


class Notification(Struct, frozen=True):
    event: Event | Literal["test"]
    data: Mapping[str, Any]
    subject: str
    text: str


class NotDelivered(Exception):
    """A message was not delivered; the reason holds none of the receiver's secrets."""

    def __init__(self, why: str, *, is_passing: bool = False) -> None:
        self.is_passing = is_passing
        super().__init__(why)


def notification_of(
    notice: Notice, report: Report, file: Path, now: float, redact: Callable[[str], str]
) -> Notification:
    bad = items_of(report, notice.event)
    if notice.event in ("quarantined", "waiting"):  # possible fraud first, then new items
        new = notice.new_items
        bad = sorted(bad, key=lambda item: (not item.may_be_fraud, item_digest(item) not in new))
    host = socket.gethostname()
    lead = _lead(notice, bad)
    at = datetime.fromtimestamp(now, UTC)
    subject = _plain(f"[paddock] {report.pipeline}: {lead} ({host})")
    # What happened, where, the details, and what to do next
    lines = [f"Pipeline '{_plain(report.pipeline)}': {lead}.", ""]
    if report.message:
        lines += [_short(report.message), ""]
    if notice.event != "recovered":
        lines += [_item_line(item, notice) for item in bad[:MOST_LINES]]
        n_rest = len(bad) - MOST_LINES
        lines += [f"  and {n_rest:,} more"] if n_rest > 0 else []
        lines += [""] if bad else []
    run = f"run {report.run}" if report.run else "no run"
    lines.append(f"{file}, {run} on {host}, {at:%Y-%m-%d %H:%M} UTC.")
    quoted = shlex.quote(str(file))
    if report.run:
        lines.append(f"Details: paddock logs {report.run} {shlex.quote(str(file.parent))}")
    if notice.event == "waiting":
        lines.append(f"To decide: paddock review {quoted}")
    if notice.event == "quarantined" and any(item.state == "missing" for item in bad):
        lines.append(f"If they were deleted: paddock run {quoted} --yes")
    if notice.event == "quarantined" and any(item.state != "missing" for item in bad):
        lines.append(f"To retry them: paddock run {quoted} --retry-failed")
    text = redact("\n".join(lines))
    data = {
        "event": notice.event,
        "pipeline": report.pipeline,
        "file": str(file),
        "run": report.run,
        "status": report.status,
        "host": host,
        "time": at.isoformat(timespec="seconds"),
        "message": _short(report.message or ""),
        "counts": {state: n for state, n in report.counts.items() if n},
        "calls": report.calls,
        "tokens": dict(report.tokens),
        "seconds": round(report.seconds, 3),
        "n_items": len(bad),
        "n_new": len(notice.new_items),
        "items": [
            {
                "step": item.step,
                "key": _short(item.key),
                "error": _short(item.error or ""),
                "is_new": item_digest(item) in notice.new_items,
                "may_be_fraud": item.may_be_fraud,
            }
            for item in bad[:MOST_ITEMS]
        ],
        "text": text,
    }
    return Notification(notice.event, _redacted(data, redact), redact(subject), text)


def _lead(notice: Notice, bad: Sequence[ItemReport]) -> str:
    n_all, n_new = len(bad), len(notice.new_items)
    if notice.event == "failed":
        return "it failed"
    added = f", {n_new:,} of them new" if n_new < n_all else ""
    if notice.event == "waiting":
        n = sum(item.may_be_fraud for item in bad)
        fraud = f"; possible fraud: {counted(n, 'account', 'accounts')} changed" if n else ""
        return f"{counted(n_all, 'answer waits', 'answers wait')} for review{added}{fraud}"
    still = "still " if notice.event == "recovered" else ""
    n_missing = sum(item.state == "missing" for item in bad)
    n = n_all - n_missing
    parts = [f"{counted(n, 'item is', 'items are')} {still}quarantined"] if n else []
    if n_missing:
        what = "a folder are" if n_missing == 1 else f"{n_missing:,} folders are"
        parts.append(f"documents of {what} {still}missing")
    if notice.event == "recovered":
        return "; ".join(["it has recovered", *([", ".join(parts)] if n_all else [])])
    return f"{', '.join(parts)}{added}"


def _item_line(item: ItemReport, notice: Notice) -> str:
    new = " (new)" if item_digest(item) in notice.new_items else ""
    name = item.key if item.key == item.step else f"{item.step}: {item.key}"
    why = _short(_plain(item.why or "" if item.may_be_fraud else item.error or ""))
    return f"  {_short(_plain(name))}{new}" + (f": {why}" if why else "")


def _short(text: str) -> str:
    return shorten(text, MOST_ERROR_CHARS)


def _plain(text: str) -> str:
    """Return a name or an error as one line, which cannot look like another line or a header."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _redacted(data: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(data, str):
        return redact(data).encode("utf-8", "replace").decode()  # names may hold lone surrogates
    if isinstance(data, Mapping):
        return {name: _redacted(value, redact) for name, value in data.items()}
    if isinstance(data, list):
        return [_redacted(value, redact) for value in data]
    return data
