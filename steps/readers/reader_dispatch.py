"""Read one document in this process with the reader of its kind.

Reader processes do so for documents that may need much time or memory; in the run's own process
only small texts are read (`read_small`). Imports no step, so that a reader process starts quickly.
Whatever cannot be read raises `Unreadable` with the reason, or the system's OSError.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from . import reader, text_files
from .mail import read_mail
from .ocr import INSTALL_OCR, draw_picture, has_pillow, read_image
from .office_and_epub import read_docx, read_epub, read_pptx, read_xlsx
from .pdf import draw_pdf_page, find_pdf_boxes, read_pdf
from .reader import (
    HEAD_BYTES,
    MEDIA_TYPES,
    Document,
    PageBox,
    QuoteSpan,
    ReadsFile,
    UnknownKind,
    Unreadable,
    kind_by_name,
    kind_of,
)

SMALL_BYTES = 256 * 1024
"""A text of this size takes at most 0.1 s and 10 MB (measured with odd encodings and deep JSON)."""
_SMALL_KINDS = text_files.TEXT_KINDS - {"html"}


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read. Implements `paddock.steps.readers.reader.ReadRequest`."""

    kind: str | None = None
    """None finds it out by content and name."""
    encoding: str = "auto"
    ocr: bool = True
    check: Callable[[], None] = lambda: None
    """Called before each page or part: the time that one may take begins again."""

    def within(self, kind: str, file: BinaryIO) -> Document:
        """Read a document of another kind that lies within this one."""
        return _reader_for(kind)(file, self)


def read_document(path: Path, wishes: ReadOptions, max_bytes: int) -> Document:
    _check_size(path, max_bytes)
    try:
        document = _read_by_kind(path, wishes)
    except UnknownKind as error:
        raise Unreadable(f"is {error}", error.remedy) from error
    except RecursionError as error:
        raise Unreadable("is nested too deeply to be read") from error
    return _checked_length(document, max_bytes)


def read_document_bytes(data: bytes, wishes: ReadOptions, max_bytes: int) -> Document:
    """Read a document of a known kind that is no file, such as a page that was fetched."""
    kind = wishes.kind or "txt"
    try:
        if kind in text_files.TEXT_KINDS:
            return _checked_length(
                text_files.read_text_file(data, kind, wishes.encoding), max_bytes
            )
        return _checked_length(_reader_for(kind)(BytesIO(data), wishes), max_bytes)
    except RecursionError as error:
        raise Unreadable("is nested too deeply to be read") from error


def read_small(path: Path, wishes: ReadOptions, max_bytes: int) -> Document | None:
    """Read a plain text that takes next to no time and memory; None: it is another document."""
    kind = wishes.kind
    if (kind or kind_by_name(path) or _plugin_for(path)) not in ("", *_SMALL_KINDS):
        return None
    if _check_size(path, max_bytes) > SMALL_BYTES:
        return None
    with path.open("rb") as file:
        data = file.read(SMALL_BYTES + 1)
    if not data or len(data) > SMALL_BYTES:
        return _empty_document(path, kind) if not data else None
    try:
        kind = wishes.kind or kind_of(path, data[:HEAD_BYTES])
    except UnknownKind as error:
        raise Unreadable(f"is {error}", error.remedy) from error
    if kind not in _SMALL_KINDS:
        return None
    return text_files.read_text_file(data, kind, wishes.encoding, is_named=wishes.kind is not None)


def draw_page(path: Path, number: int, most_side_px: int, max_bytes: int) -> bytes:
    """Return a page of a PDF, or a picture of an image file, as a PNG within limits."""
    with _opened(path, max_bytes) as (kind, file):
        if kind == "pdf":
            return png_bytes(draw_pdf_page(file, number, most_side_px))
        if kind == "image" and not has_pillow():
            raise Unreadable("is a picture", INSTALL_OCR)
        if kind == "image":
            return png_bytes(draw_picture(file, number, most_side_px))
    raise Unreadable("has no pages that can be shown: it is not a PDF or a picture")


def find_boxes(
    path: Path, quotes: Sequence[QuoteSpan], check: Callable[[], None], max_bytes: int
) -> list[PageBox | None]:
    """Return the box around each quote in a PDF; None for those that it does not have there."""
    with _opened(path, max_bytes) as (kind, file):
        return find_pdf_boxes(file, quotes, check) if kind == "pdf" else [None] * len(quotes)


@contextmanager
def _opened(path: Path, max_bytes: int) -> Iterator[tuple[str, BinaryIO]]:
    """Open a document, and find out its kind."""
    _check_size(path, max_bytes)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(0)
        try:
            kind = kind_of(path, head)
        except UnknownKind as error:
            raise Unreadable(f"is {error}", error.remedy) from error
        yield kind, file


def png_bytes(pixels: Any) -> bytes:
    """Return an array of height x width x 3 bytes, blue first, as a PNG file."""
    import numpy as np

    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = pixels[:, :, ::-1].reshape(height, 3 * width)
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", size), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _check_size(path: Path, max_bytes: int) -> int:
    """Return the size of a regular file; a pipe would make us wait for ever."""
    facts = path.stat()
    if stat.S_ISDIR(facts.st_mode):
        raise Unreadable("is a folder, not a document")
    if not stat.S_ISREG(facts.st_mode):
        raise Unreadable("is a device or a pipe, not a document")
    if facts.st_size > max_bytes:
        raise Unreadable(
            f"has {facts.st_size:,} bytes, and `max_bytes` allows {max_bytes:,}",
            "Raise `max_bytes` to read it.",
        )
    return facts.st_size


def _checked_length(document: Document, max_bytes: int) -> Document:
    """Refuse more text than a text file may have: a small archive or PDF can hold gigabytes."""
    n_characters = sum(map(len, document.pages))
    if n_characters > max_bytes:
        raise Unreadable(
            f"has {n_characters:,} characters of text, and `max_bytes` allows {max_bytes:,}",
            "Raise `max_bytes` to read it.",
        )
    return document


def _read_by_kind(path: Path, wishes: ReadOptions) -> Document:
    plugin = wishes.kind or _plugin_for(path)
    if plugin and plugin not in MEDIA_TYPES:
        return _read_by_plugin(path, plugin)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        if not head:  # which is no PDF, nor anything else
            return _empty_document(path, wishes.kind)
        kind = wishes.kind or kind_of(path, head)
        if kind in text_files.TEXT_KINDS:
            is_named = wishes.kind is not None
            return text_files.read_text_file(
                head + file.read(), kind, wishes.encoding, is_named=is_named
            )
        file.seek(0)
        return _reader_for(kind)(file, wishes)


def _empty_document(path: Path, kind: str | None) -> Document:
    named = kind_by_name(path)
    by_name = MEDIA_TYPES["txt" if named in ("", "image") else named]
    return Document(("",), "", MEDIA_TYPES.get(kind or "", by_name))


def _plugin_for(path: Path) -> str:
    """Return the plug-in for a file; built-in readers go first."""
    if kind_by_name(path) or not reader.plugin_kinds():
        return ""
    return reader.plugin_for_suffix(path.suffix.lower())


def _read_by_plugin(path: Path, name: str) -> Document:
    """Read a document with a plug-in, and check the type of its result."""
    kind = reader.load_reader(name)
    try:
        document = kind().read(path)
    except (Unreadable, OSError, MemoryError):
        raise
    except Exception as error:  # a plug-in may raise anything; its name is in the message
        why = f"{type(error).__name__}: {error}"
        is_missing = isinstance(error, ModuleNotFoundError)
        raise reader.BrokenReader(name, why, is_missing=is_missing) from error
    if not isinstance(document, Document):
        raise reader.BrokenReader(name, "it does not return a `Document`")
    return replace(document, media_type=document.media_type or kind.media_type)


def _reader_for(kind: str) -> ReadsFile:
    """Return the reader of a kind other than plain text."""
    if kind not in _READERS:
        raise Unreadable(f"is of a kind that nothing reads: `{kind}`")
    return _READERS[kind]


_READERS: Mapping[str, ReadsFile] = {
    "pdf": read_pdf,
    "docx": read_docx,
    "pptx": read_pptx,
    "xlsx": read_xlsx,
    "eml": read_mail,
    "epub": read_epub,
    "image": read_image,
}
