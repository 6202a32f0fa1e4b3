"""Of which kind a document is: by its content, then by its name."""

from __future__ import annotations

import binascii
import csv
import re
from contextlib import suppress
from email.parser import BytesHeaderParser
from email.utils import parsedate_tz
from pathlib import Path, PurePath

from paddock.engine.system.records import Struct

with Path(__file__).with_name("document_kinds.csv").open(encoding="utf-8") as _file:
    _ROWS = list(csv.DictReader(_file))
_KINDS = [row for row in _ROWS if row["kind"]]
MEDIA_TYPES = {row["kind"]: row["media_types"].split()[0] for row in _KINDS}
"""The built-in kinds. A picture's media type is known once it is read."""
MODULES = {row["kind"]: row["module"] for row in _KINDS}
EXTRAS_OF_KINDS = {row["kind"]: row["extra"] for row in _KINDS}
AFTER_PLUGINS = frozenset(row["kind"] for row in _KINDS if row["after_plugins"])
"""Kinds for which an installed plug-in goes first: it read them before these readers were there."""
_CONTAINERS = {row["kind"]: row["container"] for row in _KINDS}
"""Some programs write text, pages or mails under the names of those in OLE containers."""
_BY_SUFFIX = {suffix: row["kind"] for row in _KINDS for suffix in row["suffixes"].split()}
_BY_MEDIA_TYPE = {name: row["kind"] for row in _KINDS for name in row["media_types"].split()}
_NOT_READ = {
    suffix: (row["what"], row["remedy"])
    for row in _ROWS
    if row["what"]
    for suffix in row["suffixes"].split()
}
"""By suffix, where the content is no text: what it is, and a way out that its program has."""
_IMAGE_SIGNATURES = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"II*\x00", b"MM\x00*", b"BM",
)  # fmt: skip
_HEIF_BRANDS = frozenset(b"avif avis heic heix heim heis hevc hevx mif1 msf1".split())
_NO_TEXT_TYPES = ("image/", "audio/", "video/", "font/", "application/zip", "application/gzip")
_ARCHIVES = (
    (re.compile(rb"PK\x03\x04|PK\x05\x06"), "zip"),
    (re.compile(rb"\x1f\x8b\x08"), "gz"),
    (re.compile(rb".{257}ustar", re.DOTALL), "tar"),
)
with Path(__file__).with_name("archive_signatures.csv").open(encoding="utf-8") as _file:
    _OTHER_ARCHIVES = list(csv.reader(_file))
"""What it is, and how it begins: libmagic's lists of 2026-08, without what texts begin with."""
_OTHER_ARCHIVE = re.compile("|".join(f"({signs})" for _, signs in _OTHER_ARCHIVES).encode())
_SIGNATURES = (
    (b"\x7fELF", "a program"),
    (b"GGUF", "a model file"),
    (b"SQLite format 3\x00", "a database"),
    (b"-----BEGIN PGP MESSAGE", "an encrypted message"),
    (b"%!PS", "a PostScript document"),
    (b"\x78\x9f\x3e\x22", "a wrapper that only Outlook opens (TNEF)"),
)
_PAGE = re.compile(rb"<(?:!doctype\s+html|html|head|meta|body|table)\b", re.IGNORECASE)
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]|progid=")
_OFFICE = b"[Content_Types].xml"  # the first entry of what Office writes
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_EPUB = b"mimetypeapplication/epub+zip"  # the first entry of the archive, by the standard
HEAD_BYTES = 16 * 1024  # of a mail, what stands before its text; of a PDF, before its signature
_PDF_HEAD_BYTES = 1024
MAIL_START = re.compile(
    rb"^From (?:\S+|\S+ at \S+|\"[^\"\n]*\"@\S+)[ \t]+[A-Z][a-z]{2}(?:"  # an address, a day
    rb"[ \t]+[A-Z][a-z]{2}[ \t]+\d\d?[ \t]+\d\d?:[\d:]+(?:[ \t]+[A-Z+-]\S*){0,2}[ \t]+\d{4}|"
    rb",[ \t]*\d\d?[ \t]+[A-Z][a-z]{2}[ \t]+\d{4}[ \t]+\d\d?:[\d:]+)"
    rb"(?:[ \t]+(?:remote from \S+|[A-Z+-]\S*))?[ \t]*\r?\n",
    re.MULTILINE,
)
"""The line before each mail of a mailbox."""
HEADER_NAME = re.compile(rb"[!-9;-~]+[ \t]*:|>From ")
EMLX_LENGTH = re.compile(rb"(\d{1,12})[ \t]*\r?\n")
"""The first line of a mail of Apple Mail: how many bytes the mail has."""
_HEADERS_END = re.compile(rb"\r?\n\r?\n")
_UNDERWAY = ("Message-ID", "Received", "Return-Path", "MIME-Version", "DKIM-Signature")
"""Headers that programs write; who types a letter with From and Date writes none of them."""
_ENCODED = re.compile(
    rb"^Content-T(?:ransfer-Encoding:[ \t]*(?:quoted-printable|base64)|ype:[ \t]*multipart/)",
    re.IGNORECASE | re.MULTILINE,
)
_CMS = re.compile(rb"\x30.{0,10}?\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07[\x02\x03]", re.DOTALL)
"""The beginning of what is signed or encrypted as a whole (RFC 5652)."""
_MAY_BE_CMS = re.compile(rb"\x30|[^A-Za-z0-9+/]*(?:M|-----)")
"""The same, and its base64: what has no place there is passed over."""
_CMS_HEADING = re.compile(rb"\s*-----(?:BEGIN|END) (?:PKCS7|CMS)-----\s*")


def is_readable_suffix(suffix: str) -> bool:
    return bool(kind_by_name(PurePath(f"a{suffix}")))


class UnknownKind(ValueError):
    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.remedy = remedy


class _Beginning(Struct, frozen=True):
    """What is known of a file before it is read."""

    suffix: str
    head: bytes

    @property
    def named(self) -> str:
        """The kind that its name says; empty: none."""
        return _BY_SUFFIX.get(self.suffix, "")

    @property
    def container(self) -> str:
        return _CONTAINERS.get(self.named, "")

    @property
    def is_zipped(self) -> bool:
        return self.head.startswith(b"PK\x03\x04")


def kind_of(path: PurePath, head: bytes) -> str:
    """Return the kind of a file from its first bytes and its name; what is certain counts first.

    Raises:
        UnknownKind: what it is instead.
    """
    file = _Beginning(path.suffix.lower(), head)
    return next(filter(None, (find(file) for find in _FINDERS)), "txt")


def _find_pdf_or_cms(file: _Beginning) -> str:
    if file.head[:_PDF_HEAD_BYTES].lstrip().startswith(b"%PDF-"):
        return "pdf"
    return "p7m" if is_cms(file.head) else ""


def _find_old_office(file: _Beginning) -> str:
    if not file.head.startswith(_OLE):
        return ""
    if file.container == "ole":
        return file.named
    if file.container == "zip":
        raise UnknownKind(
            "protected by a password, or an old office document with a new name",
            "Save it without a password.",
        )
    unnamed = "an old office document under another name, which is not read"
    kinds = "Give it the suffix of its kind: `.doc`, `.xls`, `.ppt` or `.msg`."
    what, remedy = _NOT_READ.get(file.suffix, (unnamed, kinds))
    raise UnknownKind(what, remedy)


def _find_office(file: _Beginning) -> str:
    if file.head.lstrip().startswith(b"{\\rtf"):
        return "rtf"
    may_be_flat = file.container == "zip or flat"
    is_whole = file.is_zipped or file.suffix.startswith(".fod")
    if file.container == "zip" or (may_be_flat and is_whole):
        return file.named
    beginning = file.head[:200] if file.is_zipped else b""
    for kind in ("odt", "ods", "odp"):
        if b"mimetype" + MEDIA_TYPES[kind].encode() in beginning:
            return kind
    return "epub" if _EPUB in beginning else ""


def _find_picture(file: _Beginning) -> str:
    head = file.head
    is_heif = head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    is_text = head.startswith(b"BM") and file.suffix != ".bmp"  # it may begin so
    is_signed = head.startswith(_IMAGE_SIGNATURES) and not is_text
    return "image" if is_heif or is_webp or is_signed else ""


def _find_archive_of_others(file: _Beginning) -> str:
    if found := _OTHER_ARCHIVE.match(file.head):
        what = f"{_OTHER_ARCHIVES[(found.lastindex or 1) - 1][0]}, which is not read"
        raise UnknownKind(what, "Pack what it holds as `.zip`.")
    return ""


def _find_zipped_office(file: _Beginning) -> str:
    """Return the kind of an office document whose name says an older one."""
    if _NO_TEXT.search(file.head):
        _refuse_by_name(file, with_remedy=True)
    if file.is_zipped and file.named in ("doc", "xls", "ppt"):
        return f"{file.named}x"
    if file.is_zipped and _OFFICE in file.head[:200]:
        raise UnknownKind(
            "an office document under another name",
            "Give it the suffix of its kind: `.docx`, `.pptx` or `.xlsx`.",
        )
    return ""


def _find_archive(file: _Beginning) -> str:
    return next((kind for signs, kind in _ARCHIVES if signs.match(file.head)), "")


def _find_text(file: _Beginning) -> str:
    """Return the kind of what no sign tells: a text, or damaged."""
    for signature, what in _SIGNATURES:
        if file.head.startswith(signature):
            raise UnknownKind(f"{what}, not text")
    named = file.named
    if named == "image":
        raise UnknownKind("damaged: a picture by its name, but not by its content")
    _refuse_by_name(file, with_remedy=False)
    if file.container in ("ole", "zip or flat") or named == "rtf":  # a program wrote it as another
        if _PAGE.search(file.head):
            return "html"
        if b"mime-version:" in file.head.lower():
            return "eml" if named == "msg" else "mhtml"
        if _NO_TEXT.search(file.head) and not file.head.startswith((b"\xff\xfe", b"\xfe\xff")):
            what = f"damaged: `.{named}` by its name, but not by its content"
            raise UnknownKind(what, "Open it in the program that wrote it, and save it as PDF.")
        return {"xls": "csv", "msg": "eml"}.get(named, "txt")
    is_text = named in ("", "txt", "md", "csv", "json", "p7m")
    return (_kind_by_text(file.head, is_named=bool(named)) if is_text else "") or named


def _refuse_by_name(file: _Beginning, *, with_remedy: bool) -> None:
    """Raise for what no reader reads, by its name."""
    what, remedy = _NOT_READ.get(file.suffix, ("", ""))
    if what and bool(remedy) == with_remedy:
        raise UnknownKind(what, remedy)


_FINDERS = (
    _find_pdf_or_cms, _find_old_office, _find_office, _find_picture, _find_archive_of_others,
    _find_zipped_office, _find_archive, _find_text,
)  # fmt: skip


def is_page_instead(path: PurePath, head: bytes) -> bool:
    """Return whether it is a web page, of an error or a login, that its name says it is not."""
    named = _BY_SUFFIX.get(path.suffix.lower(), "")
    is_binary = named in ("pdf", "image") or _CONTAINERS.get(named) == "zip"
    return is_binary and _PAGE.match(head.lstrip()) is not None


def is_cms(head: bytes) -> bool:
    """Return whether it is signed or encrypted as a whole, also written in base64."""
    head = head[:_PDF_HEAD_BYTES]  # decoding what cannot be one takes 15 µs for each text
    return bool(_MAY_BE_CMS.match(head) and _CMS.match(cms_bytes(head, 60)))


def cms_bytes(data: bytes, n_written: int | None = None) -> bytes:
    """Return it as it is, or the first signs of what its base64 says."""
    if not data.startswith(b"\x30"):
        with suppress(binascii.Error):
            written = b"".join(_CMS_HEADING.sub(b"", data).split())
            return binascii.a2b_base64(written[:n_written])
    return data


def _kind_by_text(head: bytes, *, is_named: bool) -> str:
    """Return the kind of a text of some program, whatever it is called; empty: it is none.

    1. Calendars and contacts say so in their first line.
    2. A mailbox begins with the line that parts its mails, above a header.
    3. A mail begins with its headers: nothing else stands before its first empty line, a sender
       and a day, its own or a server's, are there, and a program has written some. One that
       `is_named` a text is one only where its text cannot be read as it stands: others may
       quote it.
    """
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    is_cut = len(head) >= HEAD_BYTES
    for kind, name in (("ics", b"begin:vcalendar"), ("vcf", b"begin:vcard")):  # 1
        if start[:20].lower().startswith(name):
            return kind
    if found := MAIL_START.match(head):  # 2
        return "mbox" if HEADER_NAME.match(head, found.end()) else ""
    if found := EMLX_LENGTH.match(head):  # 3
        head = head[found.end() :]
    if not HEADER_NAME.match(head):
        return ""
    headers, *text = _HEADERS_END.split(head, 1)
    whole = headers if text else headers.rpartition(b"\n")[0]
    written = BytesHeaderParser().parsebytes(whole)
    if written.defects or not any(name in written for name in _UNDERWAY):
        return ""
    days = (written["Date"], str(written["Received"]).rpartition(";")[2])
    is_mail = "From" in written and any(map(parsedate_tz, map(str, days)))
    is_mail |= is_cut and "Date" not in written and not text  # further below
    return "eml" if is_mail and (_ENCODED.search(whole) or not is_named) else ""


def kind_within(name: str, media_type: str, head: bytes) -> str:
    """Return the kind of an attachment; its name and media type may be wrong.

    Raises:
        UnknownKind: what it is instead.
    """
    if media_type == "text/rfc822-headers":  # all of a mail that did not arrive (RFC 3462)
        return "txt"
    path = PurePath(name or "attachment")
    kind = kind_of(path, head)
    is_named = path.suffix.lower() in _BY_SUFFIX
    is_text_type = media_type == "image/svg+xml" or not media_type.startswith(_NO_TEXT_TYPES)
    if kind == "txt" and not is_named and not is_text_type:
        raise UnknownKind(f"{media_type} by its type, which its content is not")
    return _BY_MEDIA_TYPE.get(media_type, kind) if kind == "txt" else kind


def kind_by_name(path: PurePath) -> str:
    """Return the built-in kind of a file name; empty for an unknown suffix."""
    return _BY_SUFFIX.get(path.suffix.lower(), "")
