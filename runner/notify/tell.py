"""Tell whom `on.notify` names how a run ended. Never raises for what did not arrive: it says so.

Decides by `events`, writes by `message`, sends by `webhook`, `command` and `mail`, remembers by
`memory`. The receivers are told at the same time, each one's messages in order.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from paddock.pipelines.expressions import ExpressionError, Value

from ..report import Report  # noqa: TID252
from ..session import STATE_FOLDER, held_name  # noqa: TID252
from .events import Event, Told, news, settled
from .memory import held
from .message import Message, message
from .ways import Untold

if TYPE_CHECKING:
    from paddock.pipelines.triggers import Notify

    from ..binding.bound import BoundPlan  # noqa: TID252
    from ..settings import Settings  # noqa: TID252

FOLDER = "told"
_ID_CHARS = 16


class Secrets(Protocol):
    """The secrets of a run."""

    @property
    def values(self) -> Mapping[str, str]:
        """By name."""
        ...

    def redact(self, text: str) -> str:
        """Take them out of a text."""
        ...


async def tell_of(
    bound: BoundPlan,
    report: Report,
    previous_status: str | None,
    settings: Settings,
    secrets: Secrets | None = None,
) -> tuple[str, ...]:
    """Tell how a run ended, and give what could not be told, one sentence each.

    `previous_status` is how the run before ended; it counts where nobody was told anything yet.
    Takes two minutes at the longest, and no time where there is no news.
    """
    on = bound.pipeline.on
    if on is None or not on.notify:
        return ()
    bell = _Bell(bound, report, settings, secrets)
    was_told = False
    folder = bound.roots.base / STATE_FOLDER / FOLDER
    try:
        async with held(folder, held_name(bound)) as memory:
            first = Told()
            if not memory.is_known and previous_status in ("failed", "quarantined"):
                first = Told(bad=previous_status)
            told = {name_of(way): memory.told.get(name_of(way), first) for way in on.notify}
            was_told = True
            ends = await asyncio.gather(*(bell.tell(way, told[name_of(way)]) for way in on.notify))
            after = {name_of(way): end for way, end in zip(on.notify, ends, strict=True)}
            if after != memory.told:
                memory.told = after
                memory.write()
    except OSError as error:
        if not was_told:  # better twice than never: a full disk is news itself
            await asyncio.gather(*(bell.tell(way, Told()) for way in on.notify))
        why = error.strerror or error
        return (*bell.faults, f"what was told cannot be remembered: {folder}: {why}.")
    return tuple(bell.faults)


def name_of(way: Notify) -> str:
    """Name a receiver as long as it is written as it is."""
    text = json.dumps(way.model_dump(mode="json", exclude={"when"}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_CHARS]


def cannot_be_told(bound: BoundPlan, settings: Settings) -> tuple[str, ...]:
    """Say before a run what is known to keep its receivers from being told."""
    from .mail import MailServer

    on = bound.pipeline.on
    if on is None or not any(way.email for way in on.notify):
        return ()
    try:
        MailServer.of(settings.unattended.smtp_url)
    except Untold as error:
        return (f"`on.notify` names a mail address, and {error}.",)
    return ()


class _Bell:
    """Tells of one run."""

    def __init__(
        self, bound: BoundPlan, report: Report, settings: Settings, secrets: Secrets | None
    ) -> None:
        self._report = report
        self._settings = settings
        self._file = (Path.cwd() / bound.file).absolute()
        self._now = time.time()
        self._redact: Callable[[str], str] = secrets.redact if secrets else str
        self._scope = {
            "inputs": dict(bound.inputs),
            "secrets": dict(secrets.values) if secrets else {},
        }
        self.faults: list[str] = []

    async def tell(self, way: Notify, told: Told) -> Told:
        """Tell one receiver all that it wants to hear; gives what it knows then."""
        told = settled(self._report, told)
        for one in news(self._report, told, self._now):
            if one.event in way.when:
                what = message(one, self._report, self._file, self._now, self._redact)
                try:
                    await self._send(way, what)
                except Untold as error:
                    self._complain(way, one.event, str(error))
                    return told
            told = one.after
        return told

    async def _send(self, way: Notify, what: Message) -> None:
        if way.webhook is not None:
            from . import webhook

            await webhook.call(self._rendered(way.webhook), what)
        elif way.command is not None:
            from . import command

            # Split first: what an input brings stays one word, whatever is in it.
            words = [self._rendered(word) for word in command.words_of(way.command)]
            await command.run(words, self._file.parent, what)
        elif way.email is not None:
            from . import mail

            unattended = self._settings.unattended
            to = self._rendered(way.email)
            await mail.send(unattended.smtp_url, unattended.mail_from, to, what)

    def _rendered(self, text: str) -> str:
        try:
            return str(Value.of(text).render(self._scope))
        except ExpressionError as error:
            raise Untold(str(error)) from error

    def _complain(self, way: Notify, event: Event, why: str) -> None:
        kind = "webhook" if way.webhook else "command" if way.command else "mail"
        self.faults.append(
            self._redact(f"nobody was told by {kind} that it {_WORDS[event]}: {why.rstrip('.')}.")
        )


_WORDS: Mapping[Event, str] = {
    "failed": "failed",
    "quarantined": "has quarantined items",
    "recovered": "works again",
}


def crashed(pipeline: str, run: str, words: str) -> Report:
    """Give the report of a run that died before it could tell anything."""
    return Report(run, pipeline, "failed", {}, message=words)
