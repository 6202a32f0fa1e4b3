"""Messages of Outlook (MS-OXMSG) as mails."""

from __future__ import annotations

import email
import re
import struct
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime, quote
from typing import Any, BinaryIO

from . import text_encoding
from .inner_documents import MOST_ATTACHED
from .mail import MOST_DEPTH, POLICY, Mail, mails_document
from .office import damage_errors, import_library
from .reader import Document, ReadRequest, Unreadable

_MESSAGE = "a message of Outlook"
_PROPERTIES = "__properties_version1.0"
_SPECIAL = re.compile(r"[,;<>@()\"\\:]")


def read_msg(file: BinaryIO, request: ReadRequest) -> Document:
    olefile = import_library("olefile", _MESSAGE, "formats")
    with damage_errors(_MESSAGE), olefile.OleFileIO(file) as ole:
        if not ole.exists(_PROPERTIES):
            raise Unreadable(f"is damaged or not {_MESSAGE}: it has no properties")
        outlook = _OutlookMessage(ole)
        message = outlook.mail("", 0)
    return mails_document([message], request, "msg", outlook.notes)


class _OutlookMessage:
    """Makes mails of an open container; `at` is the path of a storage, with a slash at its end."""

    def __init__(self, ole: Any) -> None:
        self._ole = ole
        self._storages = ["/".join(path) for path in ole.listdir(streams=False, storages=True)]
        self._encoding = "auto"
        self.notes: list[str] = []

    def mail(self, at: str, depth: int) -> EmailMessage:
        mail = Mail(POLICY)
        pages = [int.from_bytes(self._fixed(at, tag)[:4], "little") for tag in (0x3FFD, 0x3FDE)]
        self._encoding, of_page = (
            {0: "auto", 65001: "utf-8", 20127: "ascii", 28591: "latin-1"}.get(page, f"cp{page}")
            for page in (pages[0] or pages[1], pages[1])
        )
        sent = email.message_from_string(self._text(at, 0x007D), policy=POLICY)
        sender = self._address(at, 0x0C1A, (0x5D01, 0x5D02, 0x0C1F, 0x0065))
        heads = {"From": sender, "Reply-To": ""}
        for name in self._below(at, "__recip_version1.0_"):
            kind = {1: "To", 2: "Cc", 3: "Bcc"}.get(self._fixed(name, 0x0C15)[0], "To")
            address = self._address(name, 0x3001, (0x39FE, 0x3003))
            heads[kind] = f"{heads[kind]}, {address}" if kind in heads else address
        heads |= {"Date": self._date(at), "Subject": self._text(at, 0x0037)}
        for name, value in heads.items():
            with suppress(ValueError, IndexError, TypeError, AttributeError):  # on rubbish
                mail.set_raw(name, " ".join((value or str(sent.get(name, ""))).split()))
        plain, written = self._text(at, 0x1000), self._text(at, 0x1013)
        page = self._data(at, 0x1013, "0102") or written.encode()
        if plain or not page:
            mail.set_content(plain.replace("\r\n", "\n"))
        if page:
            named = {"charset": "utf-8" if written else of_page}
            add = mail.add_alternative if plain else mail.set_content
            add(page, maintype="text", subtype="html", cte="base64", params=named)
        elif not plain and self._data(at, 0x1009, "0102"):
            self.notes.append(
                ": a message whose text is compressed Rich Text alone is not read; save it as text "
                "or HTML in Outlook"
            )
        attached = self._below(at, "__attach_version1.0_")
        for name in attached[: MOST_ATTACHED + 1]:  # the last one is noted as not read
            self._attach(mail, name, depth)
        return mail

    def _attach(self, mail: EmailMessage, at: str, depth: int) -> None:
        inner = f"{at}__substg1.0_3701000D/"
        if self._ole.exists(inner + _PROPERTIES) and depth <= MOST_DEPTH:
            mail.add_attachment(self.mail(inner, depth + 1))
            return
        names = (" ".join(self._text(at, tag).split()) for tag in (0x3707, 0x3704, 0x3001))
        main, _, sub = self._text(at, 0x370E).partition("/")
        if not (main.isalnum() and sub) or main in ("multipart", "message"):
            main, sub = "application", "octet-stream"
        data, cid = self._data(at, 0x3701, "0102"), "".join(self._text(at, 0x3712).split())
        name = next(filter(None, names), "attachment")
        mail.add_attachment(data, maintype=main, subtype=sub, filename=name, cid=cid or None)

    def _below(self, at: str, prefix: str) -> list[str]:
        """Return the storages in a storage whose names begin so."""
        start = at + prefix
        return [f"{s}/" for s in self._storages if s.startswith(start) and "/" not in s[len(at) :]]

    def _data(self, at: str, tag: int, kind: str) -> bytes:
        path = f"{at}__substg1.0_{tag:04X}{kind}"
        return bytes(self._ole.openstream(path).read()) if self._ole.exists(path) else b""

    def _text(self, at: str, tag: int) -> str:
        if wide := self._data(at, tag, "001F"):
            return wide.decode("utf-16-le", "replace").rstrip("\0")
        narrow = self._data(at, tag, "001E").rstrip(b"\0")
        for encoding in (self._encoding, "auto"):
            with suppress(text_encoding.NotText, LookupError):
                return text_encoding.decode_text(narrow, encoding).text
        return narrow.decode("cp1252", "replace")

    def _fixed(self, at: str, tag: int) -> bytes:
        """Return the eight bytes of a property that is no text."""
        path = at + _PROPERTIES
        data = bytes(self._ole.openstream(path).read()) if self._ole.exists(path) else b""
        head_bytes = 32 if not at else 24 if at.endswith("000D/") else 8
        for start in range(head_bytes, len(data) - 15, 16):
            if struct.unpack_from("<H", data, start + 2)[0] == tag:
                return data[start + 8 : start + 16]
        return bytes(8)

    def _address(self, at: str, name: int, addresses: tuple[int, ...]) -> str:
        found = (self._text(at, tag) for tag in addresses)
        address = next((text for text in found if "@" in text), "")  # others are of a directory
        shown = self._text(at, name).strip("'")
        if address and shown in ("", address):
            return address
        quoted = f'"{quote(shown)}"' if _SPECIAL.search(shown) else shown
        return f"{quoted} <{address}>" if address else quoted

    def _date(self, at: str) -> str:
        since_1601 = (struct.unpack("<Q", self._fixed(at, tag))[0] for tag in (0x0039, 0x0E06))
        with suppress(OverflowError, StopIteration):
            passed = timedelta(microseconds=next(filter(None, since_1601)) // 10)
            return format_datetime(datetime(1601, 1, 1, tzinfo=UTC) + passed)
        return ""
