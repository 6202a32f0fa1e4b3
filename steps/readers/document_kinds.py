"""Of which kind a document is: by its content, then by its name."""

from __future__ import annotations

import re
from pathlib import PurePath

OF_KREUZBERG = {
    **{"doc": "application/msword", "xls": "application/vnd.ms-excel", "rtf": "application/rtf"},
    **{"ppt": "application/vnd.ms-powerpoint", "ipynb": "application/x-ipynb+json"},
    **{"org": "text/x-org", "rst": "text/x-rst", "tex": "application/x-latex"},
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
    **OF_KREUZBERG,
}
"""The built-in kinds. A picture's media type is known once it is read."""
NEEDS_FORMATS = frozenset(("msg", "doc", "xls", "ppt", "xlsb", "rtf"))
"""Kinds that only the extra `formats` reads; without it the others of kreuzberg are plain text."""
AFTER_PLUGINS = frozenset(("odt", "ods", "odp", "fb2", "mhtml", "mbox", "msg", *OF_KREUZBERG))
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
    **{".mht": "mhtml", ".mbx": "mbox", ".dot": "doc", ".xlt": "xls", ".pps": "ppt", ".pot": "ppt"},
}
_ZIPPED = frozenset(("docx", "pptx", "xlsx", "epub"))
_ALSO_ZIPPED = frozenset(("odt", "ods", "odp", "xlsb"))
_OLD_OFFICE = frozenset(("doc", "xls", "ppt", "msg"))
"""Kinds in an OLE container; some programs write text, pages or mails under their names."""
_BY_MEDIA_TYPE = {media_type: kind for kind, media_type in MEDIA_TYPES.items()} | {
    "application/xhtml+xml": "html",
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
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".bmp", ".webp", ".heic", ".heif")
)
_MEDIA_SUFFIXES = {
    **dict.fromkeys((".avif", ".ico", ".emf", ".wmf", ".psd"), "a picture"),
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
)
_PAGE = re.compile(rb"<(?:!doctype\s+html|html|head|meta|body|table)\b", re.IGNORECASE)
_NO_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]|progid=")
_OFFICE = b"[Content_Types].xml"  # the first entry of what Office writes
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_EPUB = b"mimetypeapplication/epub+zip"  # the first entry of the archive, by the standard
HEAD_BYTES = 1024  # of a PDF, what may stand before its signature


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
    if head.lstrip().startswith(b"%PDF-"):
        return "pdf"
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
    is_old = named in {*_OLD_OFFICE, *_ALSO_ZIPPED, "rtf"}
    return _written_as(named, head) if is_old else named or "txt"


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
