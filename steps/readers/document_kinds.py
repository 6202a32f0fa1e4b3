"""Of which kind a document is: by its content, then by its name."""

from __future__ import annotations

import binascii
import re
from contextlib import suppress
from email.parser import BytesHeaderParser
from email.utils import parsedate_to_datetime
from pathlib import PurePath

OF_KREUZBERG = {
    **{"doc": "application/msword", "xls": "application/vnd.ms-excel", "rtf": "application/rtf"},
    **{"ppt": "application/vnd.ms-powerpoint"},
    "xlsb": "application/vnd.ms-excel.sheet.binary.macroEnabled.12",
}
MEDIA_TYPES: dict[str, str] = {
    "txt": "text/plain",
    "md": "text/markdown",
    "html": "text/html",
    "pdf": "application/pdf",
    "csv": "text/csv",
    "json": "application/json",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "eml": "message/rfc822",
    "epub": "application/epub+zip",
    "image": "image/*",
    "odt": "application/vnd.oasis.opendocument.text",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odp": "application/vnd.oasis.opendocument.presentation",
    **{"fb2": "application/x-fictionbook+xml", "mhtml": "multipart/related"},
    **{"mbox": "application/mbox", "msg": "application/vnd.ms-outlook"},
    **{"ics": "text/calendar", "vcf": "text/vcard", "p7m": "application/pkcs7-mime"},
    "ipynb": "application/x-ipynb+json",
    **OF_KREUZBERG,
}
"""The built-in kinds. A picture's media type is known once it is read."""
AFTER_PLUGINS = frozenset(
    ("odt", "ods", "odp", "fb2", "mhtml", "mbox", "msg", "ics", "vcf", "p7m", "ipynb")
) | frozenset(OF_KREUZBERG)
"""Kinds for which an installed plug-in goes first: it read them before these readers were there."""

_BY_SUFFIX: dict[str, str] = {
    **{".txt": "txt", ".text": "txt", ".md": "md", ".markdown": "md", ".mdown": "md"},
    **{".html": "html", ".htm": "html", ".xhtml": "html", ".pdf": "pdf"},
    **{".csv": "csv", ".tsv": "csv", ".json": "json"},
    **dict.fromkeys((".docx", ".docm", ".dotx", ".dotm"), "docx"),
    **dict.fromkeys((".pptx", ".pptm", ".ppsx", ".ppsm", ".potx", ".potm"), "pptx"),
    **dict.fromkeys((".xlsx", ".xlsm", ".xltx", ".xltm"), "xlsx"),
    **{".eml": "eml", ".epub": "epub"},
    **{f".{kind}": kind for kind in AFTER_PLUGINS},
    **{f".{flat}{kind}": f"od{kind}" for flat in ("fod", "ot") for kind in "tsp"},
    **{".mht": "mhtml", ".mbx": "mbox", ".emlx": "eml", ".vcard": "vcf", ".ical": "ics"},
    **{".p7s": "p7m", ".dot": "doc", ".xlt": "xls", ".pps": "ppt", ".pot": "ppt"},
}
_ZIPPED = frozenset(("docx", "pptx", "xlsx", "epub"))
_ALSO_ZIPPED = frozenset(("odt", "ods", "odp", "xlsb"))
_OLD_OFFICE = frozenset(("doc", "xls", "ppt", "msg"))
"""Kinds in an OLE container; some programs write text, pages or mails under their names."""
_BY_MEDIA_TYPE = {media_type: kind for kind, media_type in MEDIA_TYPES.items()} | {
    "application/xhtml+xml": "html",
    "application/x-pkcs7-mime": "p7m",
    "text/x-vcard": "vcf",
    "text/tab-separated-values": "csv",
}
_AS_PDF = "Export it as PDF in the program that wrote it."
_NOT_READ = {
    **dict.fromkeys((".pages", ".numbers", ".key"), ("a document of Apple's iWork", _AS_PDF)),
    **dict.fromkeys((".vsd", ".vsdx", ".vsdm"), ("a drawing of Visio", _AS_PDF)),
    **dict.fromkeys((".one", ".onepkg"), ("a notebook of OneNote", _AS_PDF)),
    **dict.fromkeys((".pub", ".mpp"), ("a document of Publisher or Project", _AS_PDF)),
    **dict.fromkeys((".xps", ".oxps", ".djvu", ".chm"), ("a document of fixed pages", _AS_PDF)),
    **dict.fromkeys((".wpd", ".wps", ".hwp"), ("of another word processor", _AS_PDF)),
    **dict.fromkeys((".parquet", ".arrow", ".feather"), ("a table", "`files.rows` reads it.")),
    ".pst": ("a mailbox of Outlook", "Drag its messages into a folder: `.msg` is read."),
    ".mobi": ("an electronic book of the old kind", "Convert it to `.epub`."),
}
"""By suffix, where the content is no text: what it is, and a way out that its program has."""
_IMAGE_SIGNATURES = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"II*\x00", b"MM\x00*", b"BM",
)  # fmt: skip
_HEIF_BRANDS = (
    b"avif",
    b"avis",
    b"heic",
    b"heix",
    b"heim",
    b"heis",
    b"hevc",
    b"hevx",
    b"mif1",
    b"msf1",
)
_IMAGE_SUFFIXES = frozenset(
    f".{kind}"
    for kind in "png jpg jpeg gif tif tiff bmp webp avif heic heif".split()  # noqa: SIM905
)
_MEDIA_SUFFIXES = {
    **dict.fromkeys((".ico", ".emf", ".wmf", ".psd"), "a picture"),
    **dict.fromkeys((".mp3", ".wav", ".m4a", ".ogg", ".flac"), "a recording"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm"), "a film"),
    **dict.fromkeys((".zip", ".gz", ".7z", ".rar", ".tar", ".tgz", ".xz", ".bz2"), "an archive"),
    **dict.fromkeys((".exe", ".dll", ".so", ".dmg", ".msi"), "a program"),
    **dict.fromkeys((".ttf", ".otf", ".woff", ".woff2"), "a font"),
}
_NO_TEXT_TYPES = ("image/", "audio/", "video/", "font/", "application/zip", "application/gzip")
_SIGNATURES = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
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
_CMS = (b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07", b"\x02\x03")
"""The identifier at the beginning of what is signed or encrypted as a whole (RFC 5652), and how it
goes on."""
CMS_HEADING = re.compile(rb"-----BEGIN (?:PKCS7|CMS)-----\s*")


def is_readable_suffix(suffix: str) -> bool:
    return bool(kind_by_name(PurePath(f"a{suffix}")))


class UnknownKind(ValueError):
    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.remedy = remedy


def kind_of(path: PurePath, head: bytes) -> str:
    """Return the kind of a file from its first bytes and its name.

    Raises:
        UnknownKind: what it is instead.
    """
    suffix = path.suffix.lower()
    named = _BY_SUFFIX.get(suffix, "")
    if head[:_PDF_HEAD_BYTES].lstrip().startswith(b"%PDF-"):
        return "pdf"
    if is_cms(head):
        return "p7m"
    if head.startswith(_OLE):
        if named in _OLD_OFFICE:
            return named
        if named in _ZIPPED:
            raise UnknownKind(
                "protected by a password, or an old office document with a new name",
                "Save it without a password.",
            )
        unnamed = "an old office document under another name"
        kinds = "Give it the suffix of its kind: `.doc`, `.xls`, `.ppt` or `.msg`."
        what, remedy = _NOT_READ.get(suffix, (unnamed, kinds))
        raise UnknownKind(f"{what}, which is not read", remedy)
    if head.lstrip().startswith(b"{\\rtf"):
        return "rtf"
    is_zipped = head.startswith(b"PK\x03\x04")
    if named in _ZIPPED or (named in _ALSO_ZIPPED and (is_zipped or suffix.startswith(".fod"))):
        return named
    if is_zipped and _EPUB in head[:200]:
        return "epub"
    for kind in ("odt", "ods", "odp") if is_zipped else ():
        if b"mimetype" + MEDIA_TYPES[kind].encode() in head[:200]:
            return kind
    is_heif = head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS
    is_image = is_heif or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    is_text = head.startswith(b"BM") and suffix != ".bmp"  # it may begin so
    if is_image or (head.startswith(_IMAGE_SIGNATURES) and not is_text):
        return "image"
    # Raise for what no reader reads, by its name or its first bytes
    if suffix in _NOT_READ and _NO_TEXT.search(head):
        what, remedy = _NOT_READ[suffix]
        raise UnknownKind(f"{what}, which is not read", remedy)
    if is_zipped and named in ("doc", "xls", "ppt"):
        return f"{named}x"
    if is_zipped and _OFFICE in head[:200]:
        raise UnknownKind(
            "an office document under another name",
            "Give it the suffix of its kind: `.docx`, `.pptx` or `.xlsx`.",
        )
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            raise UnknownKind(f"{what}, not text")
    if suffix in _IMAGE_SUFFIXES:
        raise UnknownKind("damaged: a picture by its name, but not by its content")
    if suffix in _MEDIA_SUFFIXES:
        raise UnknownKind(f"{_MEDIA_SUFFIXES[suffix]} by its name, not text")
    if named in {*_OLD_OFFICE, *_ALSO_ZIPPED, "rtf"}:
        return _written_as(named, head)
    is_text = named in ("", "txt", "md", "csv", "json", "p7m")
    return (_kind_by_text(head, is_named=bool(named)) if is_text else "") or named or "txt"


def is_cms(head: bytes) -> bool:
    """Return whether it is signed or encrypted as a whole, also written in base64."""
    if not head.startswith(b"\x30"):
        written = (
            head[:_PDF_HEAD_BYTES].split(b"-----\n", 1)[-1] if CMS_HEADING.match(head) else head
        )
        with suppress(binascii.Error):
            head = binascii.a2b_base64(b"".join(written[:200].split())[:60])
    start, _, rest = head[:64].partition(_CMS[0])
    return start.startswith(b"\x30") and len(start) < 12 and rest[:1] in (b"\x02", b"\x03")


def _kind_by_text(head: bytes, *, is_named: bool) -> str:
    """Return the kind of a text of some program, whatever it is called; empty: it is none.

    1. Calendars and contacts say so in their first line.
    2. A mailbox begins with the line that parts its mails, above a header.
    3. A mail begins with its headers: nothing else stands before its first empty line, a sender
       and a day are there, and a program has written some. One that `is_named` a text is one
       only where its text cannot be read as it stands: others may quote it.
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
    try:
        parsedate_to_datetime(str(written["Date"]))
        is_mail = "From" in written
    except (ValueError, IndexError, TypeError):
        is_mail = is_cut and "Date" not in written and not text  # further below
    return "eml" if is_mail and (_ENCODED.search(whole) or not is_named) else ""


def _written_as(named: str, head: bytes) -> str:
    """Return the kind of a file that a program wrote under the name of an old office document."""
    if _PAGE.search(head):
        return "html"
    if b"mime-version:" in head.lower():
        return "eml" if named == "msg" else "mhtml"
    if _NO_TEXT.search(head) and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        what = f"damaged: `.{named}` by its name, but not by its content"
        raise UnknownKind(what, "Open it in the program that wrote it, and save it as PDF.")
    return {"xls": "csv", "msg": "eml"}.get(named, "txt")


def kind_within(name: str, media_type: str, head: bytes) -> str:
    """Return the kind of an attachment; its name and media type may be wrong.

    Raises:
        UnknownKind: what it is instead.
    """
    path = PurePath(name or "attachment")
    kind = kind_of(path, head)
    is_named = path.suffix.lower() in _BY_SUFFIX
    is_text_type = media_type == "image/svg+xml" or not media_type.startswith(_NO_TEXT_TYPES)
    if kind == "txt" and not is_named and not is_text_type:
        raise UnknownKind(f"{media_type} by its type, which its content is not")
    return _BY_MEDIA_TYPE.get(media_type, kind) if kind == "txt" else kind


def kind_by_name(path: PurePath) -> str:
    """Return the built-in kind of a file name; empty for an unknown suffix."""
    suffix = path.suffix.lower()
    return "image" if suffix in _IMAGE_SUFFIXES else _BY_SUFFIX.get(suffix, "")
