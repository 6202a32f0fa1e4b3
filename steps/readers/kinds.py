"""Which kind of document a file is: by what it says of itself, then by its name. Pure."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal

Kind = Literal["txt", "md", "html", "pdf", "csv", "json"]

MEDIA_TYPES: dict[Kind, str] = {
    "txt": "text/plain",
    "md": "text/markdown",
    "html": "text/html",
    "pdf": "application/pdf",
    "csv": "text/csv",
    "json": "application/json",
}
_BY_SUFFIX: dict[str, Kind] = {
    **{".txt": "txt", ".text": "txt", ".md": "md", ".markdown": "md", ".mdown": "md"},
    **{".html": "html", ".htm": "html", ".xhtml": "html", ".pdf": "pdf"},
    **{".csv": "csv", ".tsv": "csv", ".json": "json"},
}
_LATER = {
    **dict.fromkeys((".docx", ".doc", ".odt", ".rtf"), "a word processor's document"),
    **dict.fromkeys((".pptx", ".ppt", ".odp"), "a presentation"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "a spreadsheet"),
    **{".eml": "an e-mail", ".msg": "an e-mail", ".epub": "an electronic book"},
}
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"PK\x03\x04", "a ZIP archive or an office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old office document"),
    (b"\x7fELF", "a program"),
    (b"GGUF", "a model file"),
    (b"SQLite format 3\x00", "a database"),
    (b"{\\rtf", "a word processor's document"),
)
_PDF = b"%PDF-"
HEAD_BYTES = 1024  # of a PDF, what may stand before its signature


class NotADocument(ValueError):
    """A file that cannot be read as text; the message says what it is."""


def kind_of(path: PurePath, head: bytes) -> Kind:
    """Find out what a file is from its first bytes and its name.

    Raises:
        NotADocument: what it is instead.
    """
    suffix = path.suffix.lower()
    if suffix in _LATER:
        raise NotADocument(
            f"{_LATER[suffix]}: reading `{suffix}` needs the documents extra, "
            f"which is not in this version"
        )
    if head.lstrip().startswith(_PDF):
        return "pdf"
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            raise NotADocument(f"{what}, not text")
    return _BY_SUFFIX.get(suffix, "txt")


def is_parsed(path: PurePath) -> bool:
    """Tell whether reading such a file is work."""
    return _BY_SUFFIX.get(path.suffix.lower()) in ("pdf", "html")
