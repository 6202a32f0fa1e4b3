"""Zipped documents (Office's, EPUB): looked at before anything is unpacked."""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, BinaryIO

from .reader import Unreadable

MOST_BYTES = 512 * 1024 * 1024  # of a whole document, unpacked; a bomb of 40 KB has gigabytes
# Of its markup: read whole, it takes up to 16 times as much memory (100 MB of paragraphs 1.6 GB).
MOST_MARKUP_BYTES = 64 * 1024 * 1024
_MARKUP = (".xml", ".rels", ".opf", ".ncx", ".xhtml", ".html", ".htm")
AS_PDF = "Save it as PDF, whose pictures are read with the extra 'paddock-llm[ocr]'."
_BOMBS = {
    "amplification factor": "has entities that unfold to far more than the file holds",
    "Excessive depth": "is nested too deeply",
}
_MOST_ENTRIES = 20_000
_PIECE_BYTES = 1024 * 1024
_ENCRYPTED = 0x1


def opened(file: BinaryIO, what: str, streamed: tuple[str, ...] = ()) -> zipfile.ZipFile:
    """Open an archive whose entries are few, small enough and not encrypted.

    `what` names the kind in errors: "a Word document"; `streamed` are the beginnings of names of
    markup that is never read whole. An entry never yields more than it says of itself; so it is
    enough to add up what they say, once Python inflates by pieces and stops there.

    Raises:
        Unreadable: with the reason.
    """
    # A whole entry would be inflated at once, and cut to its declared size only then.
    zipfile.ZipExtFile.MAX_N = _PIECE_BYTES
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise Unreadable(f"is damaged or not {what}") from error
    entries = archive.infolist()
    _refuse_large(entries, "", MOST_BYTES)
    markup = [
        one
        for one in entries
        if one.filename.lower().endswith(_MARKUP) and not one.filename.startswith(streamed)
    ]
    _refuse_large(markup, " of markup", MOST_MARKUP_BYTES)
    if len(entries) > _MOST_ENTRIES:
        raise Unreadable(f"is an archive of {len(entries):,} parts, which no document has")
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise Unreadable("is protected by a password", "Save it without a password.")
    return archive


def _refuse_large(entries: Iterable[zipfile.ZipInfo], of_what: str, most: int) -> None:
    size = sum(entry.file_size for entry in entries)
    if size > most:
        raise Unreadable(
            f"unpacks to {size // 1024**2:,} MiB{of_what}, and at most {most // 1024**2} MiB are "
            f"read"
        )


def library(name: str, what: str) -> Any:
    """Import a library of the extra `documents`.

    Raises:
        Unreadable: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Unreadable(
            f"is {what}", "To read it install the extra: pip install 'paddock-llm[documents]'."
        ) from error


def is_installed() -> bool:
    """Tell whether Office's documents can be read at all; imports nothing."""
    return all(find_spec(name) is not None for name in ("docx", "openpyxl", "pptx"))


def damaged(what: str, error: Exception) -> Unreadable:
    """Word what a library says of a file that it cannot read."""
    for word, meant in _BOMBS.items():
        if word in str(error):
            return Unreadable(f"is not read: its XML {meant}")
    words = " ".join(str(error).split()).replace(" ,", ",")[:120]
    return Unreadable(f"is damaged or not {what} ({type(error).__name__}: {words})")
