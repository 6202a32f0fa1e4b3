"""Decide which notifications the end of a run needs, and write them. Pure but for retries.

A failure is sent once, and once a day while it stays the same; quarantined items are sent
together, and again only when others come, or once a day while no item of their block is done; of
answers that wait for review one message tells, and another one of others when these are decided, or
after a day; a recovery goes to receivers that were sent, or should have been sent, the failure.
Undelivered messages count as not sent. Texts are bounded and redacted; the JSON object has a
`text`, which Slack, Mattermost and Rocket.Chat show.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

from paddock.engine.system.retry import Backoff
from paddock.engine.system.text import counted, shorten
from paddock.runner.progress.report import ItemReport, Report

if TYPE_CHECKING:
    from paddock.runner.bind.bound import BoundPlan
    from paddock.runner.settings import Settings

ATTEMPTS = 3
# Pipelines that failed with one network do not all retry at the same moment.
BACKOFF = Backoff(1.0, 30.0, factor=3.0, spread=0.25)
ATTEMPT_S = 10.0
DEADLINE_S = 45.0
"""For all attempts of one message together."""


class NotDelivered(Exception):
    """A message was not delivered; the reason holds none of the receiver's secrets."""

    def __init__(self, why: str, *, is_passing: bool = False) -> None:
        self.is_passing = is_passing
        """Whether another attempt may succeed."""
        super().__init__(why)


async def with_retries(send: Callable[[], Awaitable[None]]) -> None:
    """Send; retry transient failures until the deadline.

    Raises:
        NotDelivered: it was not delivered.
    """
    try:
        async with asyncio.timeout(DEADLINE_S):
            for number in range(1, ATTEMPTS + 1):
                try:
                    return await send()
                except NotDelivered as error:
                    if not error.is_passing or number == ATTEMPTS:
                        raise
                await asyncio.sleep(BACKOFF.pause_s(number))
    except TimeoutError:
        raise NotDelivered(f"there was no answer within {DEADLINE_S:g} s") from None


PORTS = {"smtp": 25, "smtps": 465}
SUBMISSION_PORT = 587  # the port for mail submission


@dataclass(frozen=True, slots=True)
class MailServer:
    """Mail server of `smtp://[user:password@]host[:port]` or `smtps://`."""

    host: str
    port: int
    is_encrypted: bool
    """TLS from the first byte; otherwise STARTTLS as soon as the server offers it."""
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def of(cls, url: str) -> MailServer:
        """Parse an address.

        Raises:
            NotDelivered: it is empty, or not the address of a mail server.
        """
        if not url:
            raise NotDelivered(
                "no mail server is set; "
                "set PADDOCK_SMTP, such as smtp://user:password@mail.example.org"
            )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in PORTS or not parts.hostname:
            # Do not show the value: it may hold a password.
            raise NotDelivered(
                "the setting `smtp` must be smtp://[user:password@]host[:port], or smtps"
            )
        user = unquote(parts.username or "")
        usual = SUBMISSION_PORT if user and parts.scheme == "smtp" else PORTS[parts.scheme]
        is_encrypted = parts.scheme == "smtps"
        password = unquote(parts.password or "")
        return cls(parts.hostname, port or usual, is_encrypted, user, password)


def undeliverable_channels(bound: BoundPlan, settings: Settings) -> tuple[str, ...]:
    """Return which channels cannot deliver, as far as that is known before a run."""
    on = bound.pipeline.on
    if on is None or not any(way.email for way in on.notify):
        return ()
    try:
        MailServer.of(settings.unattended.smtp_url)
    except NotDelivered as error:
        return (f"`on.notify` names a mail address, and {error}.",)
    return ()


Event = Literal["failed", "quarantined", "recovered", "waiting"]

AGAIN_S = 86_400.0  # a pipeline that fails every five minutes sends one message a day, not 288
MOST_REMEMBERED = 50_000
_DIGEST_CHARS = 12
_STATUSES_WITHOUT_NOTICE = ("interrupted", "budget")


@dataclass(frozen=True, slots=True)
class SentState:
    """What was last sent to one receiver."""

    bad: str = ""
    """`failed_items` or `quarantined_items` while that lasts."""
    failure: str = ""
    """The digest of the failure."""
    failed_at: float = 0.0
    """Seconds since the epoch."""
    items: frozenset[str] = frozenset()
    """The digests of the quarantined items."""
    quarantined_at: float = 0.0
    """When they were sent last."""
    waiting: frozenset[str] = frozenset()
    """The digests of the items that wait for review."""
    waiting_at: float = 0.0
    """When that was sent, in seconds since the epoch."""

    def as_json(self) -> dict[str, Any]:
        items = sorted(self.items)[:MOST_REMEMBERED]
        kept = {"bad": self.bad, "failure": self.failure, "failed_at": self.failed_at}
        waiting = sorted(self.waiting)[:MOST_REMEMBERED]
        more = {"quarantined_at": self.quarantined_at, "waiting_at": self.waiting_at}
        return {**kept, "items": items, "waiting": waiting, **more}

    @classmethod
    def of_json(cls, data: Any) -> SentState:
        """Read the state; unreadable values count as not sent."""
        try:
            items = frozenset(str(mark) for mark in data["items"])
            failed_at = float(data["failed_at"])
            waiting = frozenset(str(mark) for mark in data["waiting"])
            times = (float(data[name]) for name in ("quarantined_at", "waiting_at"))
            quarantined_at, waiting_at = times
            bad, failure = str(data["bad"]), str(data["failure"])
            return cls(bad, failure, failed_at, items, quarantined_at, waiting, waiting_at)
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls()


@dataclass(frozen=True, slots=True)
class Notice:
    """One event to send, and the receiver's state after it."""

    event: Event
    after: SentState
    new_items: frozenset[str] = frozenset()
    """The digests of the quarantined items that are new to the receiver."""


def without_ended_items(report: Report, before: SentState) -> SentState:
    """Forget the quarantined items that are resolved: they need no message."""
    if report.status in _STATUSES_WITHOUT_NOTICE or report.status == "failed":
        return before
    items = before.items & item_digests(quarantined_items(report))
    waiting = before.waiting & item_digests(waiting_items(report))
    return replace(before, items=items, waiting=waiting)


def notices_of(report: Report, before: SentState, now: float) -> tuple[Notice, ...]:
    """Return the events of a run to send to a receiver of all events, in order.

    A run that was interrupted, or stopped at its budget, sends nothing: it is continued.
    """
    if report.status in _STATUSES_WITHOUT_NOTICE:
        return ()
    if report.status == "failed":
        return _failure_notice(report, before, now)
    found: list[Notice] = []
    marks = item_digests(quarantined_items(report))
    if before.bad == "failed" or (before.bad and not marks):
        kept = before.items & marks
        bad: Literal["quarantined", ""] = "quarantined" if kept else ""
        before = replace(before, bad=bad, failure="", failed_at=0.0, items=kept)
        found.append(Notice("recovered", before))
    fresh = marks - before.items
    is_due = not 0 <= now - before.quarantined_at < AGAIN_S
    if fresh or (is_due and report.quarantine().without_result):
        before = replace(
            before, bad="quarantined", failure="", failed_at=0.0, items=marks, quarantined_at=now
        )
        found.append(Notice("quarantined", before, fresh))
    if (waits := _waiting_notice(report, before, now)) is not None:
        found.append(waits)
    return tuple(found)


def _waiting_notice(report: Report, before: SentState, now: float) -> Notice | None:
    """Return one message for all that waits: not again while any of it waits, but once a day."""
    marks = item_digests(waiting_items(report))
    fresh = marks - before.waiting
    is_known = bool(marks & before.waiting) and 0 <= now - before.waiting_at < AGAIN_S
    if not fresh or is_known:
        return None
    return Notice("waiting", replace(before, waiting=marks, waiting_at=now), fresh)


def _failure_notice(report: Report, before: SentState, now: float) -> tuple[Notice, ...]:
    mark = _digest(report.message or "", *(f"{i.key}\n{i.error}" for i in failed_items(report)))
    is_same = before.bad == "failed" and before.failure == mark
    if is_same and 0 <= now - before.failed_at < AGAIN_S:
        return ()
    return (Notice("failed", replace(before, bad="failed", failure=mark, failed_at=now)),)


def quarantined_items(report: Report) -> list[ItemReport]:
    """Return what needs a person: quarantined items, old ones too, and missing documents."""
    return [item for item in report.items if item.state in ("quarantined", "missing")]


def waiting_items(report: Report) -> list[ItemReport]:
    """Return the items that wait for a person's decision."""
    return [item for item in report.items if item.state == "waiting"]


def failed_items(report: Report) -> list[ItemReport]:
    """Return the items or steps that ended the run."""
    return [item for item in report.items if item.state == "failed"]


def item_digests(items: Iterable[ItemReport]) -> frozenset[str]:
    """Return digests of quarantined items: place, item and error."""
    return frozenset(item_digest(item) for item in items)


def item_digest(item: ItemReport) -> str:
    return _digest(item.step, item.key, item.error or "")


def _digest(*parts: str) -> str:
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:_DIGEST_CHARS]


MOST_ITEMS = 100  # in the JSON object
MOST_LINES = 20  # in the text
MOST_ERROR_CHARS = 500  # of one item's error, or key


@dataclass(frozen=True, slots=True)
class Notification:
    """One message, in the formats of the three channels."""

    event: Event
    data: Mapping[str, Any]
    subject: str
    text: str


def notification_of(
    one: Notice, report: Report, file: Path, now: float, redact: Callable[[str], str]
) -> Notification:
    """Return the message of an event; `file` is the pipeline's."""
    items_of = {"failed": failed_items, "waiting": waiting_items}
    bad = items_of.get(one.event, quarantined_items)(report)
    if one.event in ("quarantined", "waiting"):  # new items first
        bad = sorted(bad, key=lambda item: item_digest(item) not in one.new_items)
    facts = _NotificationText(one, report, file, socket.gethostname(), bad)
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
        "items": [_item_json(item, one) for item in bad[:MOST_ITEMS]],
        "text": text,
    }
    return Notification(one.event, _redacted(data, redact), redact(subject), text)


@dataclass(frozen=True, slots=True)
class _NotificationText:
    """The text of a message and its parts."""

    one: Notice
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
        if self.one.event != "recovered":
            lines += [_item_line(item, self.one) for item in self.bad[:MOST_LINES]]
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
            return f"it has recovered{left}"
        added = f", {n_new:,} of them new" if n_new < n_all else ""
        if self.one.event == "waiting":
            return f"{counted(n_all, 'answer waits', 'answers wait')} for review{added}"
        return f"{self._waiting()}{added}"

    def _waiting(self, still: str = "") -> str:
        """Return how much needs a person."""
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

    def _advice(self) -> list[str]:
        advice = []
        if self.report.run:
            folder = self.file.parent
            advice.append(f"Details: paddock logs {self.report.run} {folder}")
        if self.one.event == "waiting":
            advice.append(f"To decide: paddock review {self.file}")
        if self.one.event == "quarantined" and any(i.state == "missing" for i in self.bad):
            advice.append(f"If they were deleted: paddock run {self.file} --yes")
        if self.one.event == "quarantined" and any(i.state != "missing" for i in self.bad):
            advice.append(f"To retry them: paddock run {self.file} --retry-failed")
        return advice


def _item_line(item: ItemReport, one: Notice) -> str:
    new = " (new)" if item_digest(item) in one.new_items else ""
    name = item.key if item.key == item.step else f"{item.step}: {item.key}"
    why = _short(_plain(item.error or ""))
    return f"  {_short(_plain(name))}{new}" + (f": {why}" if why else "")


def _item_json(item: ItemReport, one: Notice) -> dict[str, Any]:
    told = {"step": item.step, "key": _short(item.key), "error": _short(item.error or "")}
    return {**told, "is_new": item_digest(item) in one.new_items}


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
