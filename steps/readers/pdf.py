"""PDF documents: the text of each page, and scanned pages by OCR where it is installed.

After a page's own text stand the fields of forms with their values, the texts that were typed over
it, and comments. What is not read is noted: attached files, dynamic (XFA) forms, passwords. Text
that the page does not show (white, covered, beyond the borders, of a layer that is off) is read and
noted. PDFium is known by the modules `pdf…` of this folder alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from . import ocr, reader
from .document_kinds import MEDIA_TYPES
from .pdf_annotations import Losses
from .pdf_page import page_text
from .pdfium import (
    MOST_SIDE_PX,
    PDFIUM_LOCK,
    DamagedPage,
    open_pdf,
    page_pixels,
)
from .reader import Document, LineBox, PartCheck, ReadRequest, Unreadable

PageOcr = Callable[[Any], ocr.SeenText]
"""Reads a picture of a page: an array of height x width x 3 bytes, blue first."""


@dataclass(frozen=True, slots=True)
class PdfText:
    """The pages' texts in order, and the file's title."""

    pages: tuple[str, ...]
    title: str
    pictures: tuple[int, ...]
    """Numbers of the pages with pictures and without text."""
    seen: tuple[int, ...] = ()
    """Numbers of the pages that were read by OCR."""
    line_boxes: tuple[tuple[LineBox, ...], ...] = ()
    """By page, of what OCR has read and of what is laid over it."""
    losses: tuple[str, ...] = ()
    """Notes on what is hidden or not read."""


def extract_pdf_text(file: BinaryIO, check: PartCheck, see: PageOcr | None = None) -> PdfText:
    """Read all pages; `check` is called before each, `see` reads those that have no text."""
    with open_pdf(file) as document:
        with PDFIUM_LOCK:
            n_pages = len(document)
            title = document.get_metadata_value("Title")
        if not n_pages:
            raise Unreadable("is damaged: it has no pages")
        pages: list[str] = []
        pictures: list[int] = []
        seen: list[int] = []
        lines: list[tuple[LineBox, ...]] = []
        losses, damaged = Losses(), list[DamagedPage]()
        for index in range(n_pages):
            check(len(pages[-1]) if pages else 0)
            lines.append(())
            try:
                text, is_picture, laid_over = page_text(document, index, losses)
            except DamagedPage as error:
                damaged.append(error)
                pages.append("")
                continue
            if is_picture and see is not None:
                pixels = page_pixels(document, index, MOST_SIDE_PX, shows_forms=False)
                found = see(pixels)
                text, lines[-1] = found.text, found.lines
                (seen if text else pictures).append(index + 1)
            elif is_picture:
                pictures.append(index + 1)
            pages.append("\n\n".join(filter(None, (text, laid_over.text))))
            lines[-1] += laid_over.line_boxes(len(pages[-1]) - len(laid_over.text))
        if damaged and not any((*pages, *pictures)):
            raise damaged[0]
        notes = tuple(losses.notes(document))
        if damaged:
            which = page_ranges([error.number for error in damaged])
            it_is = "it is" if len(damaged) == 1 else "they are"
            notes += (f": {which} cannot be read: {it_is} damaged",)
    boxes = tuple(lines) if any(lines) else ()
    return PdfText(tuple(pages), title.strip(), tuple(pictures), tuple(seen), boxes, notes)


def read_pdf(file: BinaryIO, request: ReadRequest) -> Document:
    sees = request.ocr and reader.ocr_is_installed()
    found = extract_pdf_text(file, request.check, ocr.recognise if sees else None)
    nothing = _why_empty(found) if found.pictures and not any(found.pages) else ""
    if nothing and not sees:
        raise Unreadable(nothing, ocr.INSTALL_OCR if request.ocr else "Set `ocr: auto` to read it.")
    if nothing:
        why = f"{nothing}, and OCR found nothing to read on them"
        return Document(found.pages, found.title, MEDIA_TYPES["pdf"], found.losses, why)
    notes = (*_picture_notes(found, "" if sees else _remedy(request.ocr)), *found.losses)
    title = "" if found.title.lower() == "untitled" else found.title
    return Document(found.pages, title, MEDIA_TYPES["pdf"], notes, line_boxes=found.line_boxes)


def _picture_notes(found: PdfText, remedy: str) -> Iterator[str]:
    """Yield which pages OCR has read and which have no text; `remedy`: how it could read them."""
    if found.seen:
        yield f": {page_ranges(found.seen)} read from a picture by OCR"
    if found.pictures and remedy:
        yield f": no text layer on {page_ranges(found.pictures)}{remedy}"
    elif found.pictures:
        yield f": nothing to read was found on {page_ranges(found.pictures)}, which show pictures"


def _why_empty(found: PdfText) -> str:
    n = len(found.pages)
    shows = "its 1 page only shows pictures" if n == 1 else f"its {n} pages only show pictures"
    return f"has no text layer: {shows}"


def _remedy(uses_ocr: bool) -> str:
    return ", which the extra 'paddock-llm[ocr]' reads" if uses_ocr else ", and `ocr` is off"


def page_ranges(numbers: Sequence[int]) -> str:
    """Return page numbers as ranges.

    >>> page_ranges([1, 2, 3, 7])
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
