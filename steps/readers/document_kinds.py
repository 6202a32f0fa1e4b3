"""Of which kind a document is: by its content, then by its name."""

from __future__ import annotations

from pathlib import PurePath

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
}
"""The built-in kinds. A picture's media type is known once it is read."""

_BY_SUFFIX: dict[str, str] = {
    **{".txt": "txt", ".text": "txt", ".md": "md", ".markdown": "md", ".mdown": "md"},
    **{".html": "html", ".htm": "html", ".xhtml": "html", ".pdf": "pdf"},
    **{".csv": "csv", ".tsv": "csv", ".json": "json"},
    **dict.fromkeys((".docx", ".docm", ".dotx", ".dotm"), "docx"),
    **dict.fromkeys((".pptx", ".pptm", ".ppsx", ".ppsm", ".potx", ".potm"), "pptx"),
    **dict.fromkeys((".xlsx", ".xlsm", ".xltx", ".xltm"), "xlsx"),
    **{".eml": "eml", ".epub": "epub"},
}
_ZIPPED = frozenset(("docx", "pptx", "xlsx", "epub"))
_BY_MEDIA_TYPE = {media_type: kind for kind, media_type in MEDIA_TYPES.items()} | {
    "application/xhtml+xml": "html",
    "text/tab-separated-values": "csv",
}
_OLD_OFFICE = {
    ".doc": ("a Word document of the old kind", ".docx"),
    ".dot": ("a Word document of the old kind", ".docx"),
    ".odt": ("an OpenDocument text", ".docx"),
    ".rtf": ("a Rich Text document", ".docx"),
    ".ppt": ("a presentation of the old kind", ".pptx"),
    ".odp": ("an OpenDocument presentation", ".pptx"),
    ".xls": ("a spreadsheet of the old kind", ".xlsx"),
    ".xlsb": ("a binary spreadsheet", ".xlsx"),
    ".ods": ("an OpenDocument spreadsheet", ".xlsx"),
    ".msg": ("a message of Outlook", ".eml"),
    ".mobi": ("an electronic book of the old kind", ".epub"),
}
_IMAGE_SIGNATURES = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"II*\x00", b"MM\x00*", b"BM",
)  # fmt: skip
_IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".bmp", ".webp"))
_MEDIA_SUFFIXES = {
    **dict.fromkeys((".heic", ".avif", ".ico", ".emf", ".wmf", ".psd"), "a picture"),
    **dict.fromkeys((".mp3", ".wav", ".m4a", ".ogg", ".flac"), "a recording"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm"), "a film"),
    **dict.fromkeys((".zip", ".gz", ".7z", ".rar", ".tar", ".tgz", ".xz", ".bz2"), "an archive"),
    **dict.fromkeys((".exe", ".dll", ".so", ".dmg", ".msi"), "a program"),
    **dict.fromkeys((".ttf", ".otf", ".woff", ".woff2"), "a font"),
}
_TEXT_TYPES = frozenset(("image/svg+xml",))
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
_OFFICE = b"[Content_Types].xml"  # the first entry of what Office writes
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PDF = b"%PDF-"
_EPUB = b"mimetypeapplication/epub+zip"  # the first entry of the archive, by the standard
HEAD_BYTES = 1024  # of a PDF, what may stand before its signature


def is_readable_suffix(suffix: str) -> bool:
    """Return whether a built-in reader is for files of this suffix, such as `.pdf`."""
    return suffix.lower() in _BY_SUFFIX or suffix.lower() in _IMAGE_SUFFIXES


class UnknownKind(ValueError):
    """A file of an unsupported kind; the message names it."""

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
    if head.lstrip().startswith(_PDF):
        return "pdf"
    if head.startswith(_OLE):
        _refuse_ole(suffix, named)
    if named in _ZIPPED:
        return named
    if head.startswith(b"PK\x03\x04") and _EPUB in head[:200]:
        return "epub"
    if _is_image(head, suffix):
        return "image"
    # Raise for what no reader reads, by its name or its first bytes
    if suffix in _OLD_OFFICE or head.startswith(b"{\\rtf"):
        what, as_what = _OLD_OFFICE.get(suffix, _OLD_OFFICE[".rtf"])
        raise UnknownKind(f"{what}, which is not read", f"Save it as `{as_what}`.")
    if head.startswith(b"PK\x03\x04") and _OFFICE in head[:200]:
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
    return named or "txt"


def kind_within(name: str, media_type: str, head: bytes) -> str:
    """Return the kind of an attachment; its name and media type may be wrong.

    Raises:
        UnknownKind: what it is instead.
    """
    path = PurePath(name or "attachment")
    kind = kind_of(path, head)
    is_named = path.suffix.lower() in _BY_SUFFIX
    is_text_type = media_type in _TEXT_TYPES or not media_type.startswith(_NO_TEXT_TYPES)
    if kind == "txt" and not is_named and not is_text_type:
        raise UnknownKind(f"{media_type} by its type, which its content is not")
    return _BY_MEDIA_TYPE.get(media_type, kind) if kind == "txt" else kind


def kind_by_name(path: PurePath) -> str:
    """Return the built-in kind of a file name; empty for an unknown suffix."""
    suffix = path.suffix.lower()
    return "image" if suffix in _IMAGE_SUFFIXES else _BY_SUFFIX.get(suffix, "")


def _refuse_ole(suffix: str, named: str) -> None:
    """Raise for an old Office container; protected new files are such, too."""
    if named in _ZIPPED:
        raise UnknownKind(
            "protected by a password, or an old office document with a new name",
            "Save it without a password.",
        )
    what, as_what = _OLD_OFFICE.get(suffix, ("an old office document", ""))
    remedy = f"Save it as `{as_what}`." if as_what else "Save it in a newer format."
    raise UnknownKind(f"{what}, which is not read", remedy)


def _is_image(head: bytes, suffix: str) -> bool:
    if head.startswith(b"BM") and suffix != ".bmp":
        return False  # a text may begin so
    return head.startswith(_IMAGE_SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
