"""The kind of a document, by its content and then by its name."""

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
"""The built-in kinds. A picture's own media type is known when it is read."""

_BY_SUFFIX: dict[str, str] = {
    **{".txt": "txt", ".text": "txt", ".md": "md", ".markdown": "md", ".mdown": "md"},
    **{".html": "html", ".htm": "html", ".xhtml": "html", ".pdf": "pdf"},
    **{".csv": "csv", ".tsv": "csv", ".json": "json"},
    **{".docx": "docx", ".docm": "docx", ".pptx": "pptx", ".pptm": "pptx", ".ppsx": "pptx"},
    **{".xlsx": "xlsx", ".xlsm": "xlsx", ".eml": "eml", ".epub": "epub"},
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
_SIGNATURES = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x7fELF", "a program"),
    (b"GGUF", "a model file"),
    (b"SQLite format 3\x00", "a database"),
)
_OFFICE = b"[Content_Types].xml"  # the first entry of what Office writes
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PDF = b"%PDF-"
_EPUB = b"mimetypeapplication/epub+zip"  # the first entry of the archive, by the standard
HEAD_BYTES = 1024  # of a PDF, what may stand before its signature


class UnknownKind(ValueError):
    """A file that cannot be read as text; the message says what it is. `remedy`: a sentence."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.remedy = remedy


def kind_of(path: PurePath, head: bytes) -> str:
    """Find out what a file is from its first bytes and its name.

    Raises:
        NotADocument: what it is instead.
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
    return named or "txt"


def kind_within(name: str, media_type: str, head: bytes) -> str:
    """Find out what an attachment is; its name says little, its media type sometimes lies.

    Raises:
        NotADocument: what it is instead.
    """
    kind = kind_of(PurePath(name or "attachment"), head)
    return _BY_MEDIA_TYPE.get(media_type, kind) if kind == "txt" else kind


def type_by_name(path: PurePath) -> str:
    """Return the media type that a file's name stands for."""
    return MEDIA_TYPES[_BY_SUFFIX.get(path.suffix.lower(), "txt")]


def needs_parsing(path: PurePath) -> bool:
    """Return whether reading such a file is work."""
    suffix = path.suffix.lower()
    kind = _BY_SUFFIX.get(suffix)
    return suffix in _IMAGE_SUFFIXES or kind not in (None, "txt", "md", "csv", "json")


def _refuse_ole(suffix: str, named: str) -> None:
    """Say what one of Office's old containers holds; a protected new file is one as well."""
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
