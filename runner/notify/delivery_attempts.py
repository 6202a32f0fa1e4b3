"""What the deliveries of a message share: attempts, a deadline, the mail server's address."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from paddock.engine.system.retry import Backoff
from paddock.runner.settings import Settings, read_settings

if TYPE_CHECKING:
    from paddock.runner.bind.bound import BoundPlan

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


def undeliverable_channels(bound: BoundPlan, settings: Settings | None = None) -> tuple[str, ...]:
    """Return which channels cannot deliver, as far as that is known before a run.

    Without settings, those of the file's folder count.
    """
    on = bound.pipeline.on
    if on is None or not any(way.email for way in on.notify):
        return ()
    try:
        settings = settings or read_settings(bound.file.parent)
        MailServer.of(settings.unattended.smtp_url)
    except NotDelivered as error:
        return (f"`on.notify` names a mail address, and {error}.",)
    return ()
