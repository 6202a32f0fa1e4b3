"""What is told: one object for machines, a subject and a text for people. Bounded and redacted.

The object has a `text`, which is what Slack, Mattermost and Rocket.Chat show of a webhook's call.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..report import ItemReport, Report  # noqa: TID252
from .events import Event, News, failed, mark_of, quarantined

MOST_ITEMS = 100  # in the object
MOST_LINES = 20  # in the text
LONGEST = 500  # of one item's error, or key


@dataclass(frozen=True, slots=True)
class Message:
    """One message, as its three kinds of receivers take it."""

    event: Event
    data: Mapping[str, Any]
    subject: str
    text: str


def message(
    one: News, report: Report, file: Path, now: float, redact: Callable[[str], str]
) -> Message:
    """Write what is told of a run; `file` is the pipeline's."""
    bad = failed(report) if one.event == "failed" else quarantined(report)
    if one.event == "quarantined":  # the news first
        bad = sorted(bad, key=lambda item: mark_of(item) not in one.new_items)
    facts = _Facts(one, report, file, socket.gethostname(), bad)
    subject = _plain(facts.subject())
    text = redact(facts.text(datetime.fromtimestamp(now, UTC)))
    data = {
        "event": one.event,
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
        "n_new": len(one.new_items),
        "items": [_item(item, one) for item in bad[:MOST_ITEMS]],
        "text": text,
    }
    return Message(one.event, _redacted(data, redact), redact(subject), text)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the words are made of."""

    one: News
    report: Report
    file: Path
    host: str
    bad: list[ItemReport]

    def subject(self) -> str:
        return f"[paddock] {self.report.pipeline}: {self._lead()} ({self.host})"

    def text(self, at: datetime) -> str:
        """Give what happened, where, the details, and what to do."""
        report = self.report
        lines = [f"Pipeline '{_plain(report.pipeline)}': {self._lead()}.", ""]
        if report.message:
            lines += [_short(report.message), ""]
        if self.one.event != "recovered":
            lines += [_line(item, self.one) for item in self.bad[:MOST_LINES]]
            more = len(self.bad) - MOST_LINES
            lines += [f"  and {more:,} more"] if more > 0 else []
            lines += [""] if self.bad else []
        run = f"run {report.run}" if report.run else "no run"
        lines.append(f"{self.file}, {run} on {self.host}, {at:%Y-%m-%d %H:%M} UTC.")
        lines += self._advice()
        return "\n".join(lines)

    def _lead(self) -> str:
        n_all, n_new = len(self.bad), len(self.one.new_items)
        if self.one.event == "failed":
            return "it failed"
        if self.one.event == "recovered":
            left = f"; {self._waiting('still ')}" if n_all else ""
            return f"it works again{left}"
        added = f", {n_new:,} of them new" if n_new < n_all else ""
        return f"{self._waiting()}{added}"

    def _waiting(self, still: str = "") -> str:
        """Write how much waits for a person."""
        n_missing = sum(item.state == "missing" for item in self.bad)
        n_quarantined = len(self.bad) - n_missing
        parts = [f"{_counted(n_quarantined)} {still}quarantined"] if n_quarantined else []
        if n_missing:
            what = "a folder are" if n_missing == 1 else f"{n_missing:,} folders are"
            parts.append(f"documents of {what} {still}missing")
        return ", ".join(parts)

    def _advice(self) -> list[str]:
        advice = []
        if self.report.run:
            folder = self.file.parent
            advice.append(f"Details: paddock logs {self.report.run} {folder}")
        if self.one.event == "quarantined" and any(i.state == "missing" for i in self.bad):
            advice.append(f"If they were deleted: paddock run {self.file} --yes")
        if self.one.event == "quarantined" and any(i.state != "missing" for i in self.bad):
            advice.append(f"To try them again: paddock run {self.file} --retry-failed")
        return advice


def _counted(n: int) -> str:
    return f"{n:,} item is" if n == 1 else f"{n:,} items are"


def _line(item: ItemReport, one: News) -> str:
    new = " (new)" if mark_of(item) in one.new_items else ""
    name = item.key if item.key == item.step else f"{item.step}: {item.key}"
    return f"  {_short(_plain(name))}{new}: {_short(_plain(item.error or ''))}"


def _item(item: ItemReport, one: News) -> dict[str, Any]:
    told = {"step": item.step, "key": _short(item.key), "error": _short(item.error or "")}
    return {**told, "is_new": mark_of(item) in one.new_items}


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _plain(text: str) -> str:
    """Make one line of a name or an error: nothing in it may look like another line, or header."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _redacted(data: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(data, str):
        return redact(data).encode("utf-8", "replace").decode()  # names may hold lone surrogates
    if isinstance(data, Mapping):
        return {name: _redacted(value, redact) for name, value in data.items()}
    if isinstance(data, list):
        return [_redacted(value, redact) for value in data]
    return data
