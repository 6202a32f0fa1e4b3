"""Tell by mail, through the SMTP server of the settings. Works in a thread, within a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, getaddresses, make_msgid
from urllib.parse import unquote, urlsplit

from .message import Message
from .ways import ATTEMPT_S, Untold, with_patience

PORTS = {"smtp": 25, "smtps": 465}
SUBMISSION_PORT = 587  # where one says who one is
_OUR_OWN = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mails are given up, of `smtp://[user:password@]host[:port]` or `smtps://`."""

    host: str
    port: int
    is_encrypted: bool
    """From the first byte on; else as soon as the server offers it."""
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def of(cls, url: str) -> MailServer:
        """Read an address.

        Raises:
            Untold: there is none, or it is no address of a mail server.
        """
        if not url:
            raise Untold(
                "no mail server is set; "
                "set PADDOCK_SMTP, such as smtp://user:password@mail.example.org"
            )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in PORTS or not parts.hostname:
            # The value may hold a password: it is not shown.
            raise Untold("the setting `smtp` must be smtp://[user:password@]host[:port], or smtps")
        user = unquote(parts.username or "")
        usual = SUBMISSION_PORT if user and parts.scheme == "smtp" else PORTS[parts.scheme]
        is_encrypted = parts.scheme == "smtps"
        password = unquote(parts.password or "")
        return cls(parts.hostname, port or usual, is_encrypted, user, password)


async def send(url: str, sender: str, to: str, message: Message) -> None:
    """Give a mail to the server that the settings name.

    Raises:
        Untold: no server is set, it cannot be reached, or it refused.
    """
    server = MailServer.of(url)
    receivers = addresses(to)
    # Asks the name server, which may take its time.
    sender = sender or f"paddock@{await asyncio.to_thread(socket.getfqdn)}"
    mail = letter(sender, receivers, message)

    async def give() -> None:
        post = _Post(server)
        try:
            await asyncio.to_thread(post.give, mail)
        finally:
            post.hang_up()  # the thread must not outlive the deadline

    await with_patience(give)


def addresses(to: str) -> Sequence[str]:
    """Split `a@b.org, C <c@d.org>` into addresses.

    Raises:
        Untold: there is none.
    """
    found = [address for _, address in getaddresses([to]) if "@" in address]
    if not found or "\n" in to or "\r" in to:
        raise Untold("this is no mail address")
    return found


def letter(sender: str, receivers: Sequence[str], message: Message) -> EmailMessage:
    """Write the mail."""
    mail = EmailMessage()
    try:
        mail["From"] = sender
        mail["To"] = ", ".join(receivers)
        mail["Subject"] = message.subject.encode("utf-8", "replace").decode()
    except ValueError as error:
        raise Untold(f"the mail cannot be written ({error})") from error
    mail["Date"] = formatdate(localtime=True)
    mail["Message-ID"] = make_msgid(domain="paddock.invalid")
    mail["Auto-Submitted"] = "auto-generated"  # nobody's holiday notice need answer
    mail.set_content(message.text.encode("utf-8", "replace").decode())
    return mail


class _Post:
    """One delivery; `hang_up` may be called from another thread."""

    def __init__(self, server: MailServer) -> None:
        self._server = server
        self._line: smtplib.SMTP | None = None

    def give(self, mail: EmailMessage) -> None:
        server = self._server
        try:
            with self._connected() as line:
                self._line = line
                if not server.is_encrypted and line.has_extn("starttls"):
                    line.starttls(context=ssl.create_default_context())
                    line.ehlo()
                elif server.user and not server.is_encrypted and server.host not in _OUR_OWN:
                    raise Untold(f"{server.host} offers no encryption for the password")
                if server.user:
                    line.login(server.user, server.password)
                refused = line.send_message(mail)
                if refused:
                    raise Untold(f"{server.host} refused {', '.join(refused)}")
        except smtplib.SMTPResponseException as error:
            words = f"{server.host} answered {error.smtp_code} {_said(error.smtp_error)}"
            raise Untold(words, is_passing=400 <= error.smtp_code < 500) from error
        except smtplib.SMTPRecipientsRefused as error:
            code, said = next(iter(error.recipients.values()))
            words = f"{server.host} answered {code} {_said(said)}"
            raise Untold(words, is_passing=400 <= code < 500) from error
        except ssl.SSLCertVerificationError as error:
            raise Untold(f"{server.host}: {error.verify_message}") from error
        except (smtplib.SMTPException, OSError) as error:
            raise Untold(f"{server.host}:{server.port}: {error}", is_passing=True) from error

    def _connected(self) -> smtplib.SMTP:
        server = self._server
        if server.is_encrypted:
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(server.host, server.port, timeout=ATTEMPT_S, context=context)
        line = smtplib.SMTP(server.host, server.port, timeout=ATTEMPT_S)
        line.ehlo_or_helo_if_needed()
        return line

    def hang_up(self) -> None:
        sock = getattr(self._line, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def _said(answer: bytes | str) -> str:
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
    return " ".join(text.split())[:200]
