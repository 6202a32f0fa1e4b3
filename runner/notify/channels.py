"""Notification channels: webhook, mail, command, and the services that Apprise knows.

Each raises `NotDelivered` with a reason that holds none of the receiver's secrets. Webhooks and
services follow no redirect; mail and services run in a thread, within a deadline; a command runs
without a shell, with the JSON on its standard input and without this account's keys in its
environment. Import it only when something is sent: it brings smtplib and ssl.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Sequence
from email.message import EmailMessage
from email.utils import formatdate, getaddresses, make_msgid
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from paddock.engine.system import http, processes
from paddock.engine.system.retry import Backoff
from paddock.engine.system.tasks import in_left_thread
from paddock.engine.system.text import last_part, one_line
from paddock.runner.config.mail_server import MailServer, NoMailServer

from .notification import NotDelivered, Notification

ATTEMPTS = 3
# Pipelines that failed with one network do not all retry at the same moment.
BACKOFF = Backoff(1.0, 30.0, factor=3.0, spread=0.25)
ATTEMPT_S = 10.0
DEADLINE_S = 45.0
"""For all attempts of one message together."""
_MOST_STDOUT_BYTES = 1 << 26  # more is a program that writes without an end
_SHOWN_CHARS, _SHOWN_BYTES = 200, 4096
_OWN_HOSTS = ("localhost", "127.0.0.1", "::1")


async def with_retries(send: Callable[[], Awaitable[None]]) -> None:
    """Send; retry transient failures until the deadline."""
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


async def run_command(words: Sequence[str], folder: Path, message: Notification) -> None:
    """Run a command in the pipeline's folder until it ends."""
    added = {
        "PADDOCK_EVENT": message.event,
        "PADDOCK_PIPELINE": str(message.data["pipeline"]).replace("\0", ""),
        "PADDOCK_RUN": str(message.data["run"]).replace("\0", ""),
    }
    try:
        async with asyncio.timeout(DEADLINE_S):
            ended = await processes.run(
                words,
                cwd=folder.resolve(),  # noqa: ASYNC240 - a few system calls
                environ=processes.program_environ(added, os.environ),
                stdin=json.dumps(message.data).encode() + b"\n",
                most_bytes=_MOST_STDOUT_BYTES,
            )
    except TimeoutError:
        raise NotDelivered(f"'{words[0]}' did not end within {DEADLINE_S:g} s") from None
    except processes.OutputTooLarge:
        raise NotDelivered(f"'{words[0]}' writes without an end") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise NotDelivered(f"'{words[0]}' cannot be started ({why})") from error
    if ended.code != 0:
        last = last_part(ended.stderr.decode("utf-8", "replace"), _SHOWN_CHARS)
        why = f"'{words[0]}' ended with status {ended.code}"
        raise NotDelivered(why + (f": {last}" if last else ""))


async def post_webhook(url: str, message: Notification) -> None:
    """POST a message; retry on answers of busy and broken servers."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NotDelivered("the address must begin with http:// or https://")
    # The same in each attempt, so that a receiver can recognise a repetition.
    key = hashlib.sha256(repr((message.event, message.data)).encode()).hexdigest()[:32]
    headers = {"User-Agent": "paddock", "Idempotency-Key": key}
    async with http.client(headers=headers, timeout_s=ATTEMPT_S, connect_s=ATTEMPT_S) as client:

        async def send() -> None:
            try:
                async with client.stream("POST", url, json=dict(message.data)) as answer:
                    is_good = answer.is_success
                    reply = b"" if is_good else await http.read_start(answer, _SHOWN_BYTES)
            except (httpx.TransportError, httpx.DecodingError) as error:
                why = str(error) or type(error).__name__
                raise NotDelivered(f"{parts.hostname}: {why}", is_passing=True) from error
            except (httpx.InvalidURL, ValueError) as error:
                raise NotDelivered(f"the address is not valid ({error})") from error
            if not is_good:
                status = answer.status_code
                why = one_line(reply.decode("utf-8", "replace"), _SHOWN_CHARS)
                words = f"{parts.hostname} answered {status}" + (f": {why}" if why else "")
                raise NotDelivered(words, is_passing=status in (408, 425, 429) or status >= 500)

        await with_retries(send)


async def send_mail(url: str, sender: str, to: str, message: Notification) -> None:
    """Send a mail by the configured server."""
    try:
        server = MailServer.of(url)
    except NoMailServer as error:
        raise NotDelivered(str(error)) from error
    receivers = addresses(to)
    # Asks the name server, which may be slow.
    sender = sender or f"paddock@{await asyncio.to_thread(socket.getfqdn)}"
    mail = EmailMessage()
    try:
        mail["From"] = sender
        mail["To"] = ", ".join(receivers)
        mail["Subject"] = message.subject.encode("utf-8", "replace").decode()
    except ValueError as error:
        raise NotDelivered(f"the mail is not valid ({error})") from error
    mail["Date"] = formatdate(localtime=True)
    mail["Message-ID"] = make_msgid(domain="paddock.invalid")
    mail["Auto-Submitted"] = "auto-generated"  # no automatic replies, such as holiday notices
    mail.set_content(message.text.encode("utf-8", "replace").decode())

    async def send() -> None:
        delivery = _SmtpDelivery(server)
        try:
            await asyncio.to_thread(delivery.send, mail)
        finally:
            delivery.hang_up()  # the thread must not outlive the deadline

    await with_retries(send)


def addresses(to: str) -> Sequence[str]:
    """Split `a@b.org, C <c@d.org>` into addresses."""
    receivers = [address for _, address in getaddresses([to]) if "@" in address]
    if not receivers or "\n" in to or "\r" in to:
        raise NotDelivered("this is not a mail address")
    return receivers


class _SmtpDelivery:
    """One delivery; `hang_up` may be called from another thread."""

    def __init__(self, server: MailServer) -> None:
        self._server = server
        self._connection: smtplib.SMTP | None = None

    def send(self, mail: EmailMessage) -> None:
        server = self._server
        try:
            kind: Callable[..., smtplib.SMTP] = smtplib.SMTP
            if server.is_encrypted:
                kind = partial(smtplib.SMTP_SSL, context=ssl.create_default_context())
            with kind(server.host, server.port, timeout=ATTEMPT_S) as smtp:
                self._connection = smtp
                smtp.ehlo_or_helo_if_needed()
                if not server.is_encrypted and smtp.has_extn("starttls"):
                    smtp.starttls(context=ssl.create_default_context())
                    smtp.ehlo()
                elif server.user and not server.is_encrypted and server.host not in _OWN_HOSTS:
                    raise NotDelivered(f"{server.host} offers no encryption for the password")
                if server.user:
                    smtp.login(server.user, server.password)
                if refused := smtp.send_message(mail):
                    raise NotDelivered(f"{server.host} refused {', '.join(refused)}")
        except smtplib.SMTPResponseException as error:
            words = f"{server.host} answered {error.smtp_code} {_server_answer(error.smtp_error)}"
            raise NotDelivered(words, is_passing=400 <= error.smtp_code < 500) from error
        except smtplib.SMTPRecipientsRefused as error:
            code, reply = next(iter(error.recipients.values()))
            words = f"{server.host} answered {code} {_server_answer(reply)}"
            raise NotDelivered(words, is_passing=400 <= code < 500) from error
        except ssl.SSLCertVerificationError as error:
            raise NotDelivered(f"{server.host}: {error.verify_message}") from error
        except (smtplib.SMTPException, OSError) as error:
            raise NotDelivered(f"{server.host}:{server.port}: {error}", is_passing=True) from error

    def hang_up(self) -> None:
        sock = getattr(self._connection, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def _server_answer(answer: bytes | str) -> str:
    text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else answer
    return one_line(text, _SHOWN_CHARS)


_SERVICES = "https://appriseit.com/services/"
_PASSING = re.compile(r"connection error|error=(408|429|5\d\d)\b", re.IGNORECASE)
_SECRET_PART = re.compile(r"[^\s/:@?&=,]{4,}")
"""A part of a service's address, any of which may be a token; shorter ones are words and ports."""


async def send_by_service(address: str, message: Notification) -> None:
    """Send a message by a service that Apprise knows, such as `ntfy://ntfy.sh/topic`."""
    await with_retries(lambda: in_left_thread(_send_by_apprise, address, message))


def _send_by_apprise(address: str, message: Notification) -> None:
    import apprise  # 0.9 s

    kinds = apprise.NotifyType
    kind = {"failed": kinds.FAILURE, "recovered": kinds.SUCCESS}.get(message.event, kinds.WARNING)
    asset = apprise.AppriseAsset(app_id="Paddock", app_desc="Paddock", http_redirects=False)
    with _WarningsOfThread(logging.getLogger("apprise")) as warnings:
        service = apprise.Apprise.instantiate(address, asset=asset)
        if service is None:
            raise NotDelivered(f"the address is of none of the services in {_SERVICES}")
        if len(service) > 1:
            words = "the address names several receivers, and who got it is not known"
            raise NotDelivered(f"{words}. Write a `service` for each")
        service.overflow_mode = apprise.OverflowMode.SPLIT  # else too long a text is refused
        try:
            if service.notify(message.text, message.subject, kind):
                return
        except Exception as error:  # of any of its 100 services; the text may hold the address
            warnings.append(type(error).__name__)
    warning = warnings[-1] if warnings else "not accepted"
    is_passing = _PASSING.search(warning) is not None
    for part in sorted(_SECRET_PART.findall(unquote(address)), key=len, reverse=True):
        warning = warning.replace(part, "***")
    words = f"{service.service_name}: {one_line(warning, _SHOWN_CHARS)}"
    raise NotDelivered(words, is_passing=is_passing)


class _WarningsOfThread(logging.Handler):
    """What this thread logs; nothing reaches another log, since an address may be in it."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self._thread = threading.get_ident()
        self._logger = logger
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.texts.append(record.getMessage())

    def __enter__(self) -> list[str]:
        self._logger.addHandler(self)
        return self.texts

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
