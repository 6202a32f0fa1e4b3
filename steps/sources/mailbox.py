"""A folder of an IMAP account as a source of documents: each mail is one, with its attachments.

A mail is known by UIDVALIDITY and UID, and by its Message-ID where the server numbers all of them
otherwise. None is marked as read by being fetched.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import imaplib
import os
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, date, datetime
from email.parser import BytesHeaderParser
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from paddock.engine.system import processes
from paddock.engine.system.hosts import is_loopback
from paddock.engine.system.text import one_line
from paddock.steps.paths import printable

from .mirror import (
    Answer,
    Gone,
    Had,
    Source,
    SourceAway,
    SourceDocument,
    SourceListing,
    SourceParams,
    SourceRefused,
    Whole,
)

_ANSWER_S = 60.0
"""Without a byte from the server."""
_COMMAND_S = 600.0
"""For a whole answer, however it trickles: 64 MiB at 110 kB/s."""
_TOKEN_S = 60.0
_MOST_TOKEN_BYTES = 64 * 1024
_MOST_HEAD_BYTES = 1024**2
_HEADS = 500  # mails whose headers are asked for at once
_HEAD = "(UID RFC822.SIZE INTERNALDATE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE FROM SUBJECT)])"
_UID = re.compile(rb"\bUID (\d+)")
_SIZE = re.compile(rb"\bRFC822\.SIZE (\d+)")
_DATE = re.compile(rb'\bINTERNALDATE "([^"]+)"')
_NOT_ASCII = re.compile(r"[^\x20-\x7e]+")


class Account(SourceParams):
    """A folder of an IMAP account."""

    host: str = Field(min_length=1, description="The server.", examples=["imap.example.org"])
    port: int = Field(default=993, ge=1, le=65_535, description="Of the server.")
    tls: Literal["on", "starttls", "off"] = Field(
        default="on", description="`off` only where the server is on this machine."
    )
    user: str = Field(min_length=1, description="Whose mails.")
    password: str | None = Field(default=None, description="By a secret.")
    token: list[str] | None = Field(
        default=None,
        min_length=1,
        description="A command that prints an OAuth token (XOAUTH2), in place of a password.",
    )
    folder: str = Field(default="INBOX", min_length=1, description="On the server.")
    since: date | None = Field(default=None, description="Only mails that came since that day.")
    flag: str | None = Field(
        default=None,
        pattern=r"^(\\(Seen|Flagged|Answered)|[A-Za-z0-9_$-]+)$",
        description="The flag of a mail once its outputs are recorded.",
        examples=["paddock", "\\Seen"],
    )
    move: str | None = Field(
        default=None, min_length=1, description="The folder that it is moved into then."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.password is None) == (self.token is None):
            raise ValueError("give one of `password` and `token`")
        if self.flag and self.move:
            raise ValueError("give one of `flag` and `move`")
        return self

    @property
    def name(self) -> str:
        return printable(f"'{self.folder}' of {self.user} at {self.host}")

    @property
    def is_marked(self) -> bool:
        return bool(self.flag or self.move)

    def opened(self, credential: str) -> AbstractContextManager[Source]:
        return open_mailbox(self, credential)

    async def credential(self, folder: Path) -> str:
        """Return the password, or the token that its command prints.

        Raises:
            SourceRefused: it prints none.
        """
        if self.token is None:
            return self.password or ""
        token, environ = b"", processes.program_environ({}, os.environ)
        with suppress(OSError, ValueError, TimeoutError, processes.OutputTooLarge):
            async with asyncio.timeout(_TOKEN_S):
                ended = await processes.run(
                    self.token, cwd=folder, environ=environ, most_bytes=_MOST_TOKEN_BYTES
                )
            token = ended.stdout.strip() if ended.code == 0 else b""
        if not (token.isascii() and token.decode().isprintable() and token):
            raise SourceRefused("is not asked: the command of `token` prints none")
        return token.decode()


class Mailbox(Source):
    """An open mailbox. Blocks; used by one thread at a time."""

    def __init__(self, account: Account, imap: imaplib.IMAP4) -> None:
        self._account = account
        self._imap = imap
        self._folder = _quoted(account.folder)
        self._validity = ""

    # --- a source

    def listing(self, cursor: str) -> SourceListing:
        with _errors():
            uid_next = self._select(is_readonly=True)
            known, _, last = cursor.partition(":")
            is_renumbered = bool(cursor) and known != self._validity
            first = int(last) if last.isdecimal() and not is_renumbered else 1
            documents = list[SourceDocument]()
            if not uid_next or uid_next > first:
                since = f" SINCE {d.day}-{d:%b-%Y}" if (d := self._account.since) else ""
                uids = [uid for uid in self._search(f"UID {first}:*{since}") if uid >= first]
                for at in range(0, len(uids), _HEADS):
                    documents += self._heads(uids[at : at + _HEADS])
                first = max([first, uid_next, *(uid + 1 for uid in uids)])
            return SourceListing(f"{self._validity}:{first}", documents, is_renumbered)

    def contents(self, identities: Sequence[str]) -> Iterator[tuple[str, Answer]]:
        with _errors():
            if not (uids := self._uids(identities)):  # it has given its mails other numbers
                return
            there = {*self._search(f"UID {uids}")}
            for facts, content in self._fetch(uids, "(UID BODY.PEEK[])"):
                if uid := _UID.search(facts):
                    yield f"{self._validity}:{int(uid[1])}", Had(content, Whole.END)
            for number in {*map(int, uids.split(","))} - there:
                yield f"{self._validity}:{number}", Gone()

    def mark_done(self, identities: Sequence[str]) -> int:
        flag, move = self._account.flag, self._account.move
        with _errors():
            self._select(is_readonly=False)
            uids = self._uids(identities)
            if not uids:  # the next listing finds them by their Message-ID
                raise SourceAway("it has given its mails other numbers meanwhile")
            if move is not None:
                if n_there := len(self._search(f"UID {uids}")):
                    self._ask("MOVE", uids, _quoted(move))
                return len(identities) - n_there
            # Who reads a mail sets a flag of the system
            is_own = flag is not None and not flag.startswith("\\")
            n_before = len(self._search(f"UID {uids} KEYWORD {flag}")) if is_own else 0
            self._ask("STORE", uids, "+FLAGS.SILENT", f"({flag})")
            return n_before

    # --- of a watch

    def cursor(self) -> str:
        with _errors():
            uid_next = self._select(is_readonly=True)
            return f"{self._validity}:{uid_next}"

    def wait(self, seconds: float) -> None:
        if "IDLE" not in self._imap.capabilities:
            time.sleep(seconds)
            return
        with _errors():
            tag = self._imap._new_tag()
            self._imap.send(tag + b" IDLE\r\n")
            if self._imap.readline().startswith(b"+"):
                select.select([self._imap.socket()], [], [], seconds)
                self._imap.send(b"DONE\r\n")
            while not (line := self._imap.readline()).startswith(tag):
                if not line:
                    raise imaplib.IMAP4.abort("it closed the connection")

    def cut(self) -> None:
        """Close the connection, also under a call that waits."""
        self._imap.socket().shutdown(socket.SHUT_RDWR)

    # --- commands

    def _select(self, *, is_readonly: bool) -> int:
        """Return UIDNEXT; 0: the server does not say it."""
        typ, data = self._timed(self._imap.select, self._folder, is_readonly)
        if typ != "OK":
            why = f"has no such folder: {_text(data)}"
            raise SourceRefused(why, "Correct `folder`.")
        validity, uid_next = (
            self._imap.response(name)[1][-1] for name in ("UIDVALIDITY", "UIDNEXT")
        )
        self._validity = str(int(validity or 0))
        return int(uid_next or 0)

    def _uids(self, identities: Sequence[str]) -> str:
        """Return the numbers of mails as they are now; what is no number is asked of no server."""
        known, prefix = [each.partition(":") for each in identities], self._validity
        return ",".join(uid for of, _, uid in known if of == prefix and uid.isdecimal())

    def _search(self, what: str) -> list[int]:
        found, *_ = self._ask("SEARCH", what)
        return [*map(int, (found or b"").split())]

    def _heads(self, uids: Sequence[int]) -> Iterator[SourceDocument]:
        for facts, head in self._fetch(",".join(map(str, uids)), _HEAD):
            uid, size, day = (pattern.search(facts) for pattern in (_UID, _SIZE, _DATE))
            if uid is None or size is None:
                continue
            written = datetime.now(UTC)
            with suppress(ValueError, TypeError, AttributeError):
                assert day is not None
                written = datetime.strptime(day[1].decode().strip(), "%d-%b-%Y %H:%M:%S %z")
            own = BytesHeaderParser().parsebytes(head)["Message-ID"]
            marker = one_line(str(own)) if own else hashlib.sha256(head).hexdigest()
            name = f"{written:%Y-%m-%d}-{int(uid[1])}.eml"
            yield SourceDocument(f"{self._validity}:{int(uid[1])}", name, int(size[1]), marker)

    def _fetch(self, uids: str, what: str) -> Iterator[tuple[bytes, bytes]]:
        """Yield what the server says of each mail, and the one literal of it."""
        facts, literal = b"", None
        for part in (*self._ask("FETCH", uids, what), (b"", b"")):
            if not isinstance(part, tuple):
                facts += part or b""
                continue
            if literal is not None:
                yield facts, literal
            facts, literal = part

    def _ask(self, command: str, *values: str) -> list[Any]:
        typ, data = self._timed(self._imap.uid, command, *values)
        if typ != "OK":
            raise SourceRefused(f"does not do {command}: {_text(data)}")
        return [*data]

    def _timed(self, call: Any, *values: Any) -> Any:
        end = threading.Timer(_COMMAND_S, self._imap.socket().shutdown, (socket.SHUT_RDWR,))
        end.daemon = True
        end.start()
        try:
            return call(*values)
        finally:
            end.cancel()


@contextmanager
def open_mailbox(account: Account, credential: str) -> Iterator[Mailbox]:
    """Log in.

    Raises:
        SourceAway, SourceRefused: why it is not open.
    """
    with ExitStack() as stack:
        with _errors():
            imap = _connected(account, stack)
            _log_in(imap, account, credential)
            answer = imap.capability()[1][-1]
            imap.capabilities = tuple(answer.decode("ascii", "replace").split())
        if account.move is not None and "MOVE" not in imap.capabilities:
            raise SourceRefused("cannot move mails (RFC 6851)", "Set `flag` in place of `move`.")
        yield Mailbox(account, imap)


def _connected(account: Account, stack: ExitStack) -> Any:
    if account.tls == "off" and not is_loopback(account.host):
        raise SourceRefused("is elsewhere, and would see the password", "Remove `tls: off`.")
    kind, context = imaplib.IMAP4, ssl.create_default_context()
    if account.tls == "on":
        kind = partial(imaplib.IMAP4_SSL, ssl_context=context)  # type: ignore[assignment]
    try:
        imap: Any = kind(account.host, account.port, timeout=_ANSWER_S)
        for end in (imap.shutdown, imap.logout):  # the first one last: it closes the socket
            stack.callback(_ended, end)
        if account.tls == "starttls":
            imap.starttls(context)
    except ssl.SSLCertVerificationError as error:
        why = f"has a certificate that is not valid for '{account.host}': {error.verify_message}"
        remedy = "Correct `host`; SSL_CERT_FILE names authorities of your own."
        raise SourceRefused(why, remedy) from error
    read = imap.read

    def bounded(size: int) -> bytes:
        if size > max(account.max_bytes, _MOST_HEAD_BYTES):  # more than it said of any mail
            raise imaplib.IMAP4.abort(f"it announces {size:,} bytes")
        return bytes(read(size))

    imap.read = bounded
    return imap


def _ended(end: Callable[[], Any]) -> None:
    with suppress(imaplib.IMAP4.error, OSError):  # it broke off before
        end()


def _log_in(imap: Any, account: Account, credential: str) -> None:
    try:
        if account.token is not None:
            secret = f"user={account.user}\1auth=Bearer {credential}\1\1".encode()
            answers = iter([secret])  # what the server says of a refusal gets an empty one
            imap.authenticate("XOAUTH2", lambda _: next(answers, b""))
        elif "AUTH=PLAIN" in imap.capabilities:
            secret = f"\0{account.user}\0{credential}".encode()
            imap.authenticate("PLAIN", lambda _: secret)
        else:
            imap.login(account.user, credential)
    except imaplib.IMAP4.abort:
        raise
    except imaplib.IMAP4.error as error:
        why = f"does not let '{account.user}' in: {_text([error])}"
        raise SourceRefused(why, "Correct `user`, and the password or token.") from error


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except imaplib.IMAP4.abort as error:
        raise SourceAway(f"it broke off: {_text([error])}") from error
    except OSError as error:
        raise SourceAway(f"it does not answer: {error.strerror or error}") from error
    except imaplib.IMAP4.error as error:
        raise SourceRefused(f"answers otherwise: {_text([error])}") from error


def _text(data: Sequence[Any]) -> str:
    """Return what a server says, as it can be shown."""
    words = data[-1].args[0] if isinstance(data[-1], Exception) and data[-1].args else data[-1]
    text = words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
    return one_line("".join(c if c.isprintable() else " " for c in text), 200)


def _quoted(folder: str) -> str:
    """Return the name of a folder as IMAP writes it (RFC 3501, 5.1.3).

    >>> _quoted("Büro & Co")
    '"B&APw-ro &- Co"'
    """

    def encoded(found: re.Match[str]) -> str:
        letters = base64.b64encode(found[0].encode("utf-16-be")).decode()
        return f"&{letters.rstrip('=').replace('/', ',')}-"

    name = _NOT_ASCII.sub(encoded, folder.replace("&", "&-"))
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
