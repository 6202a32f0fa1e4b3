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
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import UTC, date, datetime
from email.parser import BytesHeaderParser
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from paddock.engine.system import processes
from paddock.engine.system.hosts import is_loopback
from paddock.engine.system.text import listed, one_line
from paddock.steps.paths import printable

from .fetching import answer_of
from .mirror import (
    MOST_FAILURES,
    Answer,
    Gone,
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
_MOST_BYTES = 64 * 1024**2  # of an answer, and a mail: SEARCH has that of seven million mails
_PIECE_BYTES = 64 * 1024
_NAMED = 20  # folders
_HEADS = 500  # mails whose headers are asked for at once
_HEAD = "(UID RFC822.SIZE INTERNALDATE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE FROM SUBJECT)])"
_Value = int | bytes | None | list["_Value"]
_Part = bytes | tuple[bytes, bytes] | None
"""A line, or what stands before a literal, with it."""
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

    kind = "mailbox"
    is_mail = True

    @property
    def address(self) -> str:
        folder = "INBOX" if self.folder.upper() == "INBOX" else self.folder
        return f"imap://{self.user}@{self.host.lower()}:{self.port}/{folder}"

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
    """A mailbox that is logged in. Blocks; used by one thread at a time."""

    def __init__(self, account: Account, credential: str) -> None:
        super().__init__()
        self._account, self._credential = account, credential
        self._folder = _quoted(account.folder)
        self._validity, self._n_breaks = "", 0
        self._open()

    def _open(self) -> None:
        with _errors(), _greeting():
            self._imap = _connected(self._account)
        with _errors():
            try:
                _log_in(self._imap, self._account, self._credential)
                answer = self._imap.capability()[1][-1] or b""
                self._imap.capabilities = tuple(answer.decode("ascii", "replace").upper().split())
                self._wire = _Wire(self._imap, max(self._account.max_bytes, _MOST_HEAD_BYTES))
            except BaseException:
                self.close()
                raise

    @property
    def can_move(self) -> bool:
        return "MOVE" in self._imap.capabilities

    def close(self) -> None:
        for end in (self._imap.logout, self._imap.shutdown):
            with suppress(imaplib.IMAP4.error, OSError):  # it broke off before
                end()

    # --- a source

    def listing(self, cursor: str) -> SourceListing:
        with _errors():
            n_there = self._select(is_readonly=True)
            known, _, rest = cursor.partition(":")
            last, _, of_since = rest.partition(":")
            since = self._account.since
            # Numbers of a folder without UIDVALIDITY hold for a session
            is_renumbered = bool(cursor) and (known != self._validity or known == "0")
            is_same = not (is_renumbered or (of_since and of_since != str(since)))
            first = int(last) if _is_number(last) and is_same else 1
            if 0 < self._following() < first:  # the folder is another one of the same UIDVALIDITY
                first, is_renumbered = 1, True
            came = f" SINCE {since.day}-{since:%b-%Y}" if since else ""
            # `first:*` has the last mail also where that came before; an empty folder has no `*`
            found = self._search(f"UID {first}:*{came}") if n_there else set()
            uids = sorted(uid for uid in found if uid >= first)
            documents = list[SourceDocument]()
            for at in range(0, len(uids), _HEADS):
                documents += self._heads(uids[at : at + _HEADS])
            is_short = first == 1 and not since and len(uids) < n_there  # then all are asked again
            following = first if is_short or not uids else uids[-1] + 1
            cursor = f"{self._validity}:{following}:{since or ''}"
            return SourceListing(cursor, documents, is_renumbered)

    def contents(self, identities: Sequence[str]) -> Iterator[tuple[str, Answer]]:
        if not (uids := self._uids(identities)):
            return
        try:
            with _errors():
                mails, refusal = self._fetch(uids, "(UID RFC822.SIZE BODY.PEEK[])")
                had = {uid: mails[uid][b"BODY[]"] for uid in uids if _has_body(mails.get(uid, {}))}
                is_there = len(uids) > 1 or bool(had) or self._search(f"UID {uids[0]}")
        except SourceAway as error:  # one mail may break off each time
            self._n_breaks += 1
            if self._n_breaks == MOST_FAILURES:
                raise
            self._open_again()
            raise SourceRefused(f"{error}") from error
        self._n_breaks = 0
        for uid, content in had.items():
            answer = answer_of(content, Whole.END, self._account.max_bytes)
            yield f"{self._validity}:{uid}", answer
        if not is_there:
            yield f"{self._validity}:{uids[0]}", Gone()
        elif len(had) < len(uids):
            raise SourceRefused(refusal or "the server does not hand it over")

    def mark_done(self, identities: Sequence[str]) -> int:
        flag, move = self._account.flag, self._account.move
        with _errors():
            self._select(is_readonly=False)
            uids = self._uids(identities)
            if len(uids) < len(identities):  # the next listing finds them
                raise SourceAway("it has given its mails other numbers meanwhile")
            those = _numbers(uids)
            if move is not None:
                if n_there := len(self._search(f"UID {those}")):
                    self._ask("MOVE", those, _quoted(move))
                    if self._search(f"UID {those}"):
                        raise SourceRefused(f"says that it moved mails to '{move}', and did not")
                return len(identities) - n_there
            assert flag is not None
            kept = self._imap.response("PERMANENTFLAGS")[1][-1]
            if kept is not None and not {flag.upper().encode(), b"\\*"} & _words(kept):
                flags = ", ".join(sorted(_text([each]) for each in _words(kept)))
                remedy = "Set a `flag` that it keeps, or `move`."
                raise SourceRefused(f"keeps no flag '{flag}', but {flags or 'none'}", remedy)
            is_of_system = flag.startswith("\\")  # who reads a mail sets one
            key = flag[1:].upper() if is_of_system else f"KEYWORD {flag}"
            n_before = 0 if is_of_system else len(self._search(f"UID {those} {key}"))
            self._ask("STORE", those, "+FLAGS.SILENT", f"({flag})")
            if self._search(f"UID {those} UN{key}"):
                raise SourceRefused(f"says that it keeps the flag '{flag}', and does not")
            return n_before

    # --- of a watch

    def cursor(self) -> str:
        with _errors():
            n_there = self._select(is_readonly=True)
            newest = max(self._search(str(n_there)), default=0) if n_there else 0
            return f"{self._validity}:{n_there}:{newest}"

    def wait(self, seconds: float) -> None:
        with _errors():
            if "IDLE" not in self._imap.capabilities or not self._timed(self._idle, seconds):
                self._is_cut.wait(seconds)

    def _idle(self, seconds: float) -> bool:
        """Wait until the server says something; return whether it can do so."""
        imap = self._imap
        tag, is_waiting, is_news = imap._new_tag(), False, False
        imap.send(tag + b" IDLE\r\n")
        while not (line := imap.readline()).startswith(tag):
            if not line:
                raise imaplib.IMAP4.abort("it closed the connection")
            if line.startswith(b"+") and not is_waiting:
                is_waiting = True
                if not is_news:
                    self._wire.wait(seconds)
                imap.send(b"DONE\r\n")
            is_news = True
        return is_waiting

    def cut(self) -> None:
        """Close the connection, also under a call that waits."""
        super().cut()
        self._imap.socket().shutdown(socket.SHUT_RDWR)

    # --- commands

    def _select(self, *, is_readonly: bool) -> int:
        """Return how many mails the folder has."""
        try:
            typ, data = self._timed(self._imap.select, self._folder, is_readonly)
        except imaplib.IMAP4.readonly as error:
            remedy = "Remove `flag` or `move`."
            raise SourceRefused("does not let its mails be marked", remedy) from error
        if typ != "OK":
            if _is_temporary(data):
                raise SourceAway(f"it is not ready: {_text(data)}")
            names = [_decoded(name) for name in self._folders()]
            remedy = f"Correct `folder`; it has {listed(names, _NAMED)}." if names else ""
            why = f"has no such folder: {_text(data).rstrip('.')}"
            raise SourceRefused(why, remedy or "Correct `folder`.")
        validity = self._imap.response("UIDVALIDITY")[1][-1]
        self._validity = str(int(validity or 0))
        return int(data[-1] or 0)

    def _following(self) -> int:
        """Return the number of the next mail; 0: the server does not say it."""
        number = self._imap.response("UIDNEXT")[1][-1] or b""
        return int(number) if number.isdigit() else 0

    def _folders(self) -> list[bytes]:
        with suppress(imaplib.IMAP4.error):
            typ, data = self._timed(self._imap.list)
            return _folder_names(data) if typ == "OK" else []
        return []

    def _open_again(self) -> None:
        validity = self._validity
        self.close()
        self._open()
        with _errors():
            self._select(is_readonly=True)
        if self._validity != validity:
            raise SourceAway("it has given its mails other numbers meanwhile")

    def _uids(self, identities: Sequence[str]) -> list[int]:
        """Return the numbers of mails as they are now; what is no number is asked of no server."""
        known, prefix = [each.partition(":") for each in identities], self._validity
        return [int(uid) for of, _, uid in known if of == prefix and _is_number(uid)]

    def _search(self, what: str) -> set[int]:
        return _searched(self._ask("SEARCH", what))

    def _heads(self, uids: Sequence[int]) -> Iterator[SourceDocument]:
        """Yield all mails, also those of which the server says nothing else."""
        known, refusal = self._fetch(uids, _HEAD)
        for uid in uids if refusal else ():
            known |= {} if uid in known else self._fetch([uid], _HEAD)[0]
        for uid in uids:
            facts, written = known.get(uid, {}), datetime.now(UTC)
            size, day = facts.get(b"RFC822.SIZE"), facts.get(b"INTERNALDATE")
            head = next((facts[name] for name in facts if name.startswith(b"BODY[HEADER")), None)
            if isinstance(day, bytes):
                with suppress(ValueError):
                    text = day.decode("ascii", "replace").strip()
                    written = datetime.strptime(text, "%d-%b-%Y %H:%M:%S %z")
            identity = marker = f"{self._validity}:{uid}"
            if isinstance(head, bytes) and head.strip():
                own = BytesHeaderParser().parsebytes(head)["Message-ID"]
                marker = one_line(str(own)) if own else hashlib.sha256(head).hexdigest()
            name = f"{written:%Y-%m-%d}-{uid}.eml"
            size_bytes = size if isinstance(size, int) else 0
            yield SourceDocument(identity, name, size_bytes, marker)

    def _fetch(self, uids: Sequence[int], what: str) -> tuple[dict[int, dict[bytes, Any]], str]:
        """Return what the server says of mails, and of those of which it says nothing."""
        try:
            typ, data = self._timed(self._imap.uid, "FETCH", _numbers(uids), what)
        except imaplib.IMAP4.abort:
            raise
        except imaplib.IMAP4.error as error:
            typ, data = "BAD", [error]
        _, before = self._imap.response("FETCH")  # a refusal takes away none that came
        is_steady = self._imap.response("EXPUNGE")[1][-1] is None
        parts = data if typ == "OK" else before
        mails = _fetched(parts, is_steady=is_steady)
        return mails, "" if typ == "OK" else f"the server says: {_text(data)}"

    def _ask(self, command: str, *values: str) -> list[Any]:
        typ, data = self._timed(self._imap.uid, command, *values)
        if typ != "OK":
            why = f"does not do {command}: {_text(data)}"
            raise SourceAway(f"it {why}") if _is_temporary(data) else SourceRefused(why)
        return [*data]

    def _timed(self, call: Any, *values: Any) -> Any:
        end = threading.Timer(_COMMAND_S, self._imap.socket().shutdown, (socket.SHUT_RDWR,))
        end.daemon = True
        end.start()
        self._wire.begin()
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
    mailbox = Mailbox(account, credential)
    with closing(mailbox):
        if account.move is not None and not mailbox.can_move:
            raise SourceRefused("cannot move mails (RFC 6851)", "Set `flag` in place of `move`.")
        yield mailbox


class _Wire:
    """What a connection reads: bounded in each command, whatever a server sends."""

    def __init__(self, imap: Any, most_bytes: int) -> None:
        self._sock, self._most_bytes = imap.socket(), most_bytes
        self._file = getattr(imap, "_file", None) or imap.file  # Python 3.14 has renamed it
        self.begin()
        imap.read, imap.readline = self.read, self.readline

    def begin(self) -> None:
        self._n_left = _MOST_BYTES + self._most_bytes

    def read(self, size: int) -> bytes:
        """Return a literal; of one that is too large its start."""
        kept = self._counted(self._file.read(min(size, self._most_bytes + 1)))
        left = size - len(kept)
        while left > 0 and (piece := self._file.read(min(left, _PIECE_BYTES))):
            left -= len(piece)
        return kept

    def readline(self) -> bytes:
        return self._counted(self._file.readline(self._n_left + 1))

    def _counted(self, read: bytes) -> bytes:
        self._n_left -= len(read)
        if self._n_left < 0:
            raise imaplib.IMAP4.abort(f"it sends more than {_MOST_BYTES:,} bytes at once")
        return read

    def wait(self, seconds: float) -> None:
        """Wait until there is something to read."""
        self._sock.settimeout(seconds)
        try:
            self._file.peek(1)
        except TimeoutError:  # after one it reads no more
            self._file = self._sock.makefile("rb")
        finally:
            self._sock.settimeout(_ANSWER_S)


def _connected(account: Account) -> Any:
    if account.tls == "off" and not is_loopback(account.host):
        raise SourceRefused("is elsewhere, and would see the password", "Remove `tls: off`.")
    kind, context = imaplib.IMAP4, ssl.create_default_context()
    if account.tls == "on":
        kind = partial(imaplib.IMAP4_SSL, ssl_context=context)  # type: ignore[assignment]
    try:
        imap: Any = kind(account.host, account.port, timeout=_ANSWER_S)
        if account.tls == "starttls":
            try:
                imap.starttls(context)
            except BaseException:
                imap.shutdown()
                raise
    except ssl.SSLCertVerificationError as error:
        why = f"has a certificate that is not valid for '{account.host}': {error.verify_message}"
        remedy = "Correct `host`; SSL_CERT_FILE names authorities of your own."
        raise SourceRefused(why, remedy) from error
    return imap


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
        if _is_temporary([error]):
            raise SourceAway(f"it is not ready: {_text([error])}") from error
        why = f"does not let '{account.user}' in: {_text([error])}"
        raise SourceRefused(why, "Correct `user`, and the password or token.") from error


@contextmanager
def _greeting() -> Iterator[None]:
    try:
        yield
    except imaplib.IMAP4.abort:
        raise
    except imaplib.IMAP4.error as error:  # such as BYE: not now
        raise SourceAway(f"it greets otherwise: {_text([error])}") from error


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


def _is_temporary(data: Sequence[Any]) -> bool:
    """Return whether a refusal has a code that says so (RFC 5530)."""
    code = _text(data).partition("]")[0].partition(" ")[0]
    return code.upper() in ("[UNAVAILABLE", "[INUSE", "[LIMIT", "[SERVERBUG")


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) < 11  # of 32 bits


def _numbers(uids: Sequence[int]) -> str:
    return ",".join(map(str, uids))


def _decoded(name: bytes) -> str:
    """Return the name of a folder as people write it.

    >>> _decoded(b"B&APw-ro &- Co")
    'Büro & Co'
    """
    first, *others = name.decode("utf-8", "replace").split("&")
    for part in others:
        letters, _, rest = part.partition("-")
        try:
            padded = letters.replace(",", "/") + "=" * (-len(letters) % 4)
            name_part = base64.b64decode(padded).decode("utf-16-be") if letters else "&"
        except ValueError:
            name_part, rest = "&", part
        first += name_part + rest
    return printable(first)


# --- answers (RFC 3501, section 9), of the lines and literals of imaplib
#
# A server writes one value in several forms: a number, an atom, a quoted string, a literal or NIL.
# It may answer in any order, in several answers, and of mails that were not asked for.


# An atom may be a name such as `BODY[HEADER.FIELDS ("DATE")]<0>`
_TOKEN = re.compile(rb' ++|([()])|((?:[^ ()"\[]++|\[[^]]*+])++)|"((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)


class _BadAnswer(ValueError):
    """An answer that is not of the grammar."""


def _has_body(facts: dict[bytes, _Value]) -> bool:
    """Return whether all of a mail came; nothing is all of it where the server says so."""
    content = facts.get(b"BODY[]")
    return isinstance(content, bytes) and (content != b"" or facts.get(b"RFC822.SIZE") == 0)


def _fetched(parts: Iterable[_Part], *, is_steady: bool) -> dict[int, dict[bytes, _Value]]:
    """Return what FETCH says of each mail, by UID.

    An answer without a UID is of the mail that had its number in another one, as long as numbers
    are steady: no mail was removed meanwhile. Answers that cannot be read say nothing.
    """
    mails, uids = dict[int, dict[bytes, _Value]](), dict[_Value, _Value]()
    answers = list[tuple[_Value, dict[bytes, _Value]]]()
    for answer in _answers(parts):
        if len(answer) == 2 and isinstance(items := answer[1], list) and len(items) % 2 == 0:
            pairs = zip(items[::2], items[1::2], strict=True)
            facts = {name.upper(): value for name, value in pairs if isinstance(name, bytes)}
            answers.append((answer[0], facts))
            if b"UID" in facts:
                uids[answer[0]] = facts[b"UID"]
    for number, facts in answers:
        uid = facts.get(b"UID", uids.get(number) if is_steady else None)
        if isinstance(uid, int):
            mails.setdefault(uid, {}).update(facts)
    return mails


def _searched(parts: Iterable[_Part]) -> set[int]:
    """Return the numbers that SEARCH found, in one line or in several."""
    return {value for answer in _answers(parts) for value in answer if isinstance(value, int)}


def _folder_names(parts: Iterable[_Part]) -> list[bytes]:
    """Return the names that LIST found."""
    return [
        name
        for answer in _answers(parts)
        if len(answer) == 3 and isinstance(name := answer[2], bytes)
    ]


def _words(part: _Part) -> set[bytes]:
    """Return what stands in a list, such as that of PERMANENTFLAGS, in capitals."""
    found = next(_answers([part]), [])
    inner = found[0] if len(found) == 1 and isinstance(found[0], list) else found
    return {each.upper() for each in inner if isinstance(each, bytes)}


def _answers(parts: Iterable[_Part]) -> Iterator[list[_Value]]:
    """Yield each answer that can be read; one ends with a part that has no literal."""
    answer = list[tuple[bytes, bytes | None]]()
    for part in parts:
        if isinstance(part, tuple):
            answer.append(part)
            continue
        answer.append((part or b"", None))
        with suppress(_BadAnswer):  # the others can be read
            yield _values(answer)
        answer = []


def _values(answer: Sequence[tuple[bytes, bytes | None]]) -> list[_Value]:
    lists: list[list[_Value]] = [[]]
    for text, literal in answer:
        if literal is not None:
            text = text[: text.rindex(b"{")].removesuffix(b"~")
        at = 0
        while at < len(text):
            if (found := _TOKEN.match(text, at)) is None:
                raise _BadAnswer
            at = found.end()
            sign, atom, quoted = found.groups()
            if sign == b"(":
                lists.append([])
            elif sign == b")" and len(lists) > 1:
                closed = lists.pop()
                lists[-1].append(closed)
            elif sign == b")":
                raise _BadAnswer
            elif atom:
                lists[-1].append(_atom(atom))
            elif quoted is not None:
                lists[-1].append(_ESCAPE.sub(rb"\1", quoted))
        if literal is not None:
            lists[-1].append(literal)
    if len(lists) != 1:
        raise _BadAnswer
    return lists[0]


def _atom(text: bytes) -> _Value:
    if text.upper() == b"NIL":
        return None
    return int(text) if text.isdigit() and len(text) < 20 else text
