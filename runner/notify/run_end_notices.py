"""Send the notifications that `on.notify` asks for when a run ends, also when an error ends it.

Delivery failures do not raise: their reasons are returned. Receivers get their messages at the
same time, each one's in order. What was sent to each receiver is stored in a file next to the
ledger, written atomically; a broken file counts as empty, so a message may come twice but is never
lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paddock.engine.system import files
from paddock.engine.system.disk_space import is_disk_full
from paddock.engine.system.file_locks import LockTaken, lock_soon
from paddock.engine.system.records import known_record
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.runner.ledger.own_state import ForeignState, make_state
from paddock.runner.ledger.run_locks import run_lock_name
from paddock.runner.progress.report import Report
from paddock.runner.settings import STATE_FOLDER

from . import channels
from .due_notices import AGAIN_S, Event, SentState, notices_of, without_ended_items
from .notification import NotDelivered, Notification, notification_of

if TYPE_CHECKING:
    from paddock.pipelines.triggers import NotifyKeys
    from paddock.runner.bind.bound import BoundPlan
    from paddock.runner.config.pipeline_secrets import Secrets
    from paddock.runner.settings import Settings

HOLD_S = 90.0  # longer than all messages of one run may take
_POLL_S = 0.05
SENT_FOLDER = "told"
_ID_CHARS = 16


async def send_end_notices(
    bound: BoundPlan,
    report: Report,
    settings: Settings,
    secrets: Secrets | None = None,
    *,
    is_of_runs: bool = True,
) -> tuple[str, ...]:
    """Send the notifications of a run's end; return what was not delivered, one sentence each.

    Without `is_of_runs` it is about what keeps runs from beginning: a receiver of the failure of a
    run, which lasts, has had it.

    Takes two minutes at most, and no time when there is nothing to send.
    """
    on = bound.pipeline.on
    if on is None or not on.notify:
        return ()
    notifier = _Notifier(bound, report, settings, secrets, is_of_runs=is_of_runs)
    folder = bound.roots.base / STATE_FOLDER / SENT_FOLDER
    name = run_lock_name(bound.file.name, bound.folder_inputs, bound.roots.base)
    try:
        make_state(folder.parent)
        async with lock_soon(folder / f"{name}.lock", wait_s=HOLD_S, poll_s=_POLL_S):
            await notifier.send_all(on.notify, folder / f"{name}.json")
    except (OSError, LockTaken, ForeignState) as error:
        if not notifier.has_sent:  # better twice than never: a full disk is itself worth a message
            await asyncio.gather(*(notifier.send_new(each, SentState()) for each in on.notify))
        why = getattr(error, "strerror", None) or str(error) or "another process holds it"
        return (*notifier.faults, f"cannot record which notifications were sent: {folder}: {why}.")
    return tuple(notifier.faults)


def receiver_key(receiver: NotifyKeys) -> str:
    """Return the key of a receiver in the file: a digest of how it is written in the pipeline."""
    text = json.dumps(receiver.model_dump(mode="json", exclude={"when"}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_CHARS]


class _Notifier:
    def __init__(
        self,
        bound: BoundPlan,
        report: Report,
        settings: Settings,
        secrets: Secrets | None,
        *,
        is_of_runs: bool,
    ) -> None:
        self._report = report
        self._is_of_runs = is_of_runs
        self._settings = settings
        self._file = (Path.cwd() / bound.file).absolute()
        self._now = time.time()
        self._redact: Callable[[str], str] = secrets.redact if secrets else str
        self._scope = {
            "inputs": dict(bound.inputs),
            "secrets": dict(secrets.values) if secrets else {},
        }
        self.faults: list[str] = []
        self.has_sent = False
        """Whether anything was sent, or tried."""

    async def send_all(self, receivers: Sequence[NotifyKeys], file: Path) -> None:
        """Send each receiver what `file` says that it has not had yet; record it there.

        Raises:
            OSError: the file cannot be read or written.
        """
        # What was sent to each receiver; nothing where it is broken.
        known = files.read_json_object(file).items()
        sent = {key: known_record(SentState, state) or SentState() for key, state in known}
        keys = [receiver_key(receiver) for receiver in receivers]
        states = [sent.get(key, SentState()) for key in keys]
        self.has_sent = True
        ends = await asyncio.gather(*map(self.send_new, receivers, states))
        after = dict(zip(keys, ends, strict=True))
        if after != sent:
            value = {key: state.as_json() for key, state in after.items()}
            try:
                files.write_json_atomically(file, value, is_durable=True)
            except OSError as error:
                if not is_disk_full(error):
                    raise
                files.write_json_in_place(file, value)

    async def send_new(self, receiver: NotifyKeys, state: SentState) -> SentState:
        lasts = state.bad == "failed" and 0 <= self._now - state.failed_at < AGAIN_S
        if lasts and not self._is_of_runs:
            return state
        state = without_ended_items(self._report, state)
        for notice in notices_of(self._report, state, self._now):
            if notice.event in receiver.when:
                message = notification_of(notice, self._report, self._file, self._now, self._redact)
                try:
                    await self._send(receiver, message)
                except NotDelivered as error:
                    kind = next(
                        name for name in _CHANNEL_WORDS if getattr(receiver, name) is not None
                    )
                    purpose = f"by {_CHANNEL_WORDS[kind]} that it {_EVENT_WORDS[notice.event]}"
                    why = str(error).rstrip(".")
                    words = f"the notification {purpose} was not delivered: {why}."
                    self.faults.append(self._redact(words))
                    return state
            state = notice.after
        return state

    async def _send(self, receiver: NotifyKeys, message: Notification) -> None:
        if receiver.webhook is not None:
            await channels.post_webhook(self._rendered(receiver.webhook), message)
        elif receiver.command is not None:
            # Split first: the value of an input stays one word, whatever it contains.
            try:
                words = receiver.command_words()
            except ValueError as error:
                raise NotDelivered(f"the command is not valid ({error})") from error
            words = [self._rendered(word) for word in words]
            await channels.run_command(words, self._file.parent, message)
        elif receiver.email is not None:
            unattended = self._settings.unattended
            to = self._rendered(receiver.email)
            await channels.send_mail(unattended.smtp_url, unattended.mail_from, to, message)
        elif receiver.service is not None:
            await channels.send_by_service(self._rendered(receiver.service), message)

    def _rendered(self, text: str) -> str:
        try:
            return str(Value.of(text).render(self._scope))
        except ExpressionError as error:
            raise NotDelivered(str(error)) from error


_CHANNEL_WORDS = {"webhook": "webhook", "command": "command", "email": "mail", "service": "service"}
_EVENT_WORDS: Mapping[Event, str] = {
    "failed": "failed",
    "quarantined": "has quarantined items",
    "recovered": "works again",
    "waiting": "waits for review",
}
