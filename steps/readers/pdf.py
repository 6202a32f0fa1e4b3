"""A PDF as a document: its pages' text, and those that are scans by OCR where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from . import ocr, pdf_text
from .kinds import MEDIA_TYPES
from .reader import Document, Unreadable, Wish


def read(file: BinaryIO, wish: Wish) -> Document:
    """Read it.

    Raises:
        Unreadable: it is damaged or protected, or has no text that we can read.
    """
    sees = wish.ocr and ocr.is_installed()
    found = pdf_text.read(file, wish.check, ocr.read if sees else None)
    nothing = _nothing(found) if found.pictures and not any(found.pages) else ""
    if nothing and not sees:
        raise Unreadable(nothing, ocr.REMEDY if wish.ocr else "Set `ocr: auto` to read it.")
    if nothing:
        why = f"{nothing}, and OCR found nothing to read on them"
        return Document(found.pages, found.title, MEDIA_TYPES["pdf"], (), why)
    notes: list[str] = []
    if found.seen:
        notes.append(f": {_pages(found.seen)} read from a picture by OCR")
    if found.pictures and sees:
        notes.append(
            f": nothing to read was found on {_pages(found.pictures)}, which show pictures"
        )
    elif found.pictures:
        notes.append(f": no text layer on {_pages(found.pictures)}{_way_out(wish.ocr)}")
    title = "" if found.title.lower() == "untitled" else found.title
    return Document(found.pages, title, MEDIA_TYPES["pdf"], tuple(notes))


def _nothing(found: pdf_text.PdfText) -> str:
    n = len(found.pages)
    shows = "its 1 page only shows pictures" if n == 1 else f"its {n} pages only show pictures"
    return f"has no text layer: {shows}"


def _way_out(is_wished: bool) -> str:
    return ", which the extra 'paddock-llm[ocr]' reads" if is_wished else ", and `ocr` is off"


def _pages(numbers: Sequence[int]) -> str:
    """Name pages, neighbours together.

    >>> _pages([1, 2, 3, 7])
    'pages 1-3, 7'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    words = ", ".join("-".join(map(str, run)) for run in runs)
    return f"page {words}" if len(numbers) == 1 else f"pages {words}"
