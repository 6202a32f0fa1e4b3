"""Mailboxes in a file: where a mail ends, and the next one begins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.message import EmailMessage
from typing import BinaryIO

from paddock.engine.system.text import counted

from .document_kinds import HEADER_NAME, MAIL_START
from .mail import HEADERS_END, mails_document, parse_mail
from .reader import Document, ReadRequest, Unreadable

_MOST_MAILS = 10_000
_MOST_HEADERS_BYTES = 65_536
_CONTENT_LENGTH = re.compile(rb"^Content-Length:[ \t]*(\d{1,12})[ \t]*\r?$", re.I | re.M)
_GAP = re.compile(rb"(?:\r?\n){0,3}")  # between mails


def read_mbox(file: BinaryIO, request: ReadRequest) -> Document:
    """Return the mails of a mailbox.

    A mail begins with a line that has an address and a full date, before a header. Such a line
    within the `Content-Length` of a mail is text, if that ends where another mail begins.
    """
    data = file.read()
    found = list[re.Match[bytes]]()
    notes = list[str]()
    n_odd = 0
    end = 0
    is_sure = False
    for line in MAIL_START.finditer(data):
        has_header = not found or HEADER_NAME.match(data, line.end())
        if not has_header or (is_sure and line.start() < end):
            continue
        is_apart = not found or data.endswith((b"\n\n", b"\n\r\n"), 0, line.start())
        n_odd += line.start() < end or not is_apart
        found.append(line)
        if len(found) <= _MOST_MAILS:
            end, is_sure = _declared_end(data, line.end())
    if not found:
        raise Unreadable("is damaged or not a mailbox: no line begins a mail")
    if n_odd:
        mails = counted(n_odd, "mail begins", "mails begin")
        notes.append(f": {mails} without an empty line before, or within another's Content-Length")
    places = [line.span() for line in found]
    if data[: places[0][0]].strip():
        notes.append(": what stands before its first mail is read as another one")
        places.insert(0, (0, 0))
    ends = [*(start for start, _ in places[1:]), len(data)]

    def messages() -> Iterator[EmailMessage]:
        for (_, start), end in list(zip(places, ends, strict=True))[:_MOST_MAILS]:
            written = (b"\n" + data[start:end]).replace(b"\n>From ", b"\nFrom ")[1:]
            yield parse_mail(written)

    if len(places) > _MOST_MAILS:
        notes.append(f": only the first {_MOST_MAILS:,} of its {len(places):,} mails are read")
    return mails_document(messages(), request, "mbox", notes)


def _declared_end(data: bytes, start: int) -> tuple[int, bool]:
    """Return where a mail ends by its `Content-Length` (0: none), and whether one may end there."""
    headers = HEADERS_END.search(data, start, start + _MOST_HEADERS_BYTES)
    length = _CONTENT_LENGTH.search(data, start, headers.start()) if headers else None
    if headers is None or length is None:
        return 0, False
    end = headers.end() + int(length[1])
    after = _GAP.match(data, min(end, len(data)))
    next_at = len(data) if after is None else after.end()
    return end, end <= next_at == len(data) or MAIL_START.match(data, next_at) is not None
