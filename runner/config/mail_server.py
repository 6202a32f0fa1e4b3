"""The mail server of the settings, and whether a pipeline's notifications need one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from paddock.engine.system.records import SelectiveFields, Struct

if TYPE_CHECKING:
    from paddock.pipelines.triggers import NotifyKeys


class NoMailServer(Exception):
    """The setting names none; the reason shows no password."""


PORTS = {"smtp": 25, "smtps": 465}
SUBMISSION_PORT = 587  # the port for mail submission


class MailServer(SelectiveFields, Struct, frozen=True):
    """Mail server of `smtp://[user:password@]host[:port]` or `smtps://`."""

    hidden = ("password",)

    host: str
    port: int
    is_encrypted: bool
    """TLS from the first byte; otherwise STARTTLS as soon as the server offers it."""
    user: str = ""
    password: str = ""

    @classmethod
    def of(cls, url: str) -> MailServer:
        """Parse an address.

        Raises:
            NoMailServer: it is empty, or not the address of a mail server.
        """
        if not url:
            raise NoMailServer(
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
            raise NoMailServer(
                "the setting `smtp` must be smtp://[user:password@]host[:port], or smtps"
            )
        user = unquote(parts.username or "")
        usual = SUBMISSION_PORT if user and parts.scheme == "smtp" else PORTS[parts.scheme]
        is_encrypted = parts.scheme == "smtps"
        password = unquote(parts.password or "")
        return cls(parts.hostname, port or usual, is_encrypted, user, password)


def mail_server_faults(notify: Sequence[NotifyKeys], smtp_url: str) -> tuple[str, ...]:
    try:
        if any(way.email for way in notify):
            MailServer.of(smtp_url)
    except NoMailServer as error:
        return (f"`on.notify` names a mail address, and {error}.",)
    return ()
