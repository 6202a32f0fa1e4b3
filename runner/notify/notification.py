"""Write the message of an event: subject, text and JSON object. Pure.

Texts are bounded and redacted; the JSON object has a `text`, which Slack, Mattermost and
Rocket.Chat show.
"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from paddock.engine.system.text import counted, shorten
from paddock.runner.progress.report import ItemReport, Report

from .due_notices import Event, Notice, failed_items, item_digest, quarantined_items, waiting_items

MOST_ITEMS = 100  # in the JSON object
MOST_LINES = 20  # in the text
MOST_ERROR_CHARS = 500  # of one item's error, or key


@dataclass(frozen=True, slots=True)
class Notification:
    """One message, in the formats of the three channels."""

    event: Event | Literal["test"]
    data: Mapping[str, Any]
    subject: str
    text: str


class NotDelivered(Exception):
    """A message was not delivered; the reason holds none of the receiver's secrets."""

    def __init__(self, why: str, *, is_passing: bool = False) -> None:
        self.is_passing = is_passing
        """Whether another attempt may succeed."""
        super().__init__(why)


def notification_of(
    notice: Notice, report: Report, file: Path, now: float, redact: Callable[[str], str]
) -> Notification:
    items_of = {"failed": failed_items, "waiting": waiting_items}
    bad = items_of.get(notice.event, quarantined_items)(report)
    if notice.event in ("quarantined", "waiting"):  # new items first
        bad = sorted(bad, key=lambda item: item_digest(item) not in notice.new_items)
    facts = _NotificationText(notice, report, file, socket.gethostname(), bad)
    subject = _plain(facts.subject())
    text = redact(facts.text(datetime.fromtimestamp(now, UTC)))
    data = {
        "event": notice.event,
        "pipeline": report.pipeline,
        "file": str(file),
        "run": report.run,
        "status": report.status,
        "host": facts.host,
        "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
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
            }
            for item in bad[:MOST_ITEMS]
        ],
        "text": text,
    }
    return Notification(notice.event, _redacted(data, redact), redact(subject), text)


@dataclass(frozen=True, slots=True)
class _NotificationText:
    """The text of a message and its parts."""

    notice: Notice
    report: Report
    file: Path
    host: str
    bad: list[ItemReport]

    def subject(self) -> str:
        return f"[paddock] {self.report.pipeline}: {self._lead()} ({self.host})"

    def text(self, at: datetime) -> str:
        """Return what happened, where, the details, and what to do next."""
        report = self.report
        lines = [f"Pipeline '{_plain(report.pipeline)}': {self._lead()}.", ""]
        if report.message:
            lines += [_short(report.message), ""]
        if self.notice.event != "recovered":
            lines += [_item_line(item, self.notice) for item in self.bad[:MOST_LINES]]
            n_rest = len(self.bad) - MOST_LINES
            lines += [f"  and {n_rest:,} more"] if n_rest > 0 else []
            lines += [""] if self.bad else []
        run = f"run {report.run}" if report.run else "no run"
        lines.append(f"{self.file}, {run} on {self.host}, {at:%Y-%m-%d %H:%M} UTC.")
        file = shlex.quote(str(self.file))
        if self.report.run:
            folder = shlex.quote(str(self.file.parent))
            lines.append(f"Details: paddock logs {self.report.run} {folder}")
        if self.notice.event == "waiting":
            lines.append(f"To decide: paddock review {file}")
        if self.notice.event == "quarantined" and any(i.state == "missing" for i in self.bad):
            lines.append(f"If they were deleted: paddock run {file} --yes")
        if self.notice.event == "quarantined" and any(i.state != "missing" for i in self.bad):
            lines.append(f"To retry them: paddock run {file} --retry-failed")
        return "\n".join(lines)

    def _lead(self) -> str:
        n_all, n_new = len(self.bad), len(self.notice.new_items)
        if self.notice.event == "failed":
            return "it failed"
        if self.notice.event == "recovered":
            left = f"; {self._waiting('still ')}" if n_all else ""
            return f"it has recovered{left}"
        added = f", {n_new:,} of them new" if n_new < n_all else ""
        if self.notice.event == "waiting":
            return f"{counted(n_all, 'answer waits', 'answers wait')} for review{added}"
        return f"{self._waiting()}{added}"

    def _waiting(self, still: str = "") -> str:
        n_missing = sum(item.state == "missing" for item in self.bad)
        n_quarantined = len(self.bad) - n_missing
        parts = (
            [f"{counted(n_quarantined, 'item is', 'items are')} {still}quarantined"]
            if n_quarantined
            else []
        )
        if n_missing:
            what = "a folder are" if n_missing == 1 else f"{n_missing:,} folders are"
            parts.append(f"documents of {what} {still}missing")
        return ", ".join(parts)


def _item_line(item: ItemReport, notice: Notice) -> str:
    new = " (new)" if item_digest(item) in notice.new_items else ""
    name = item.key if item.key == item.step else f"{item.step}: {item.key}"
    why = _short(_plain(item.error or ""))
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
