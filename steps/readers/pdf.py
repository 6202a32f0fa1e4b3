"""PDF documents: the text of each page, and scanned pages by OCR where it is installed.

After a page's own text stand the fields of forms with their values, the texts that were typed over
it, and comments. What is not read is noted: attached files, dynamic (XFA) forms, passwords, damaged
pages, letters that a font maps to nothing. Text that the page does not show is marked and noted.
PDFium is known by the modules `pdf…` of this folder alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from paddock.engine.system.text import counted

from . import ocr, reader
from .document_kinds import MEDIA_TYPES
from .ocr import page_ranges
from .pdf_annotations import Losses
from .pdf_page import PdfPages
from .pdfium import MOST_SIDE_PX, PDFIUM_LOCK, DamagedPage, open_pdf, page_pixels
from .reader import Document, LineBox, ReadRequest, Unreadable


def read_pdf(file: BinaryIO, request: ReadRequest) -> Document:
    sees = request.ocr and reader.ocr_is_installed()
    pages: list[str] = []
    boxes: list[tuple[LineBox, ...]] = []
    pictures, seen, damaged = list[int](), list[int](), list[int]()
    unknown: dict[int, int] = {}
    losses = Losses()
    with open_pdf(file) as document:
        with PDFIUM_LOCK:
            title = document.get_metadata_value("Title").strip()
        found = PdfPages(document, request.check, losses)
        for number, page in enumerate(found, 1):
            pages.append("")
            boxes.append(())
            if page is None:
                damaged.append(number)
                continue
            text = found.text(page).text
            if page.is_picture and sees:
                pixels = page_pixels(document, number - 1, MOST_SIDE_PX, shows_forms=False)
                by_ocr = ocr.recognise(pixels)
                text, boxes[-1] = by_ocr.text, by_ocr.lines
            if page.is_picture:
                (seen if text else pictures).append(number)
            if "\ufffd" in text:
                unknown[number] = text.count("\ufffd")
            over = page.laid_over
            pages[-1] = "\n\n".join(filter(None, (text, over.text)))
            boxes[-1] += over.line_boxes(len(pages[-1]) - len(over.text))
        if not pages:
            raise Unreadable("is damaged: it has no pages")
        if len(damaged) == len(pages):
            raise DamagedPage(1)
        lost = list(losses.notes(document))
    if damaged:
        it_is = "it is" if len(damaged) == 1 else "they are"
        lost.append(f": {page_ranges(damaged)} cannot be read: {it_is} damaged")
    if unknown:
        which = f"{counted(sum(unknown.values()), 'letter')} on {page_ranges(list(unknown))}"
        lost.append(f": {which} cannot be read: their font does not say which they are")
    why_empty = "is empty"
    if pictures and not any(pages):
        n = len(pages)
        shows = "its 1 page only shows" if n == 1 else f"its {n} pages only show"
        why_empty = f"has no text layer: {shows} pictures"
        if not sees:
            remedy = ocr.INSTALL_OCR if request.ocr else "Set `ocr: auto` to read it."
            raise Unreadable(why_empty, remedy)
        why_empty += ", and OCR found nothing to read on them"
    else:
        lost = [*_picture_notes(seen, pictures, request.ocr, sees), *lost]
    return Document(
        tuple(pages),
        "" if title.lower() == "untitled" else title,
        MEDIA_TYPES["pdf"],
        tuple(lost),
        why_empty,
        tuple(boxes) if any(boxes) else (),
    )


def _picture_notes(
    seen: Sequence[int], pictures: Sequence[int], uses_ocr: bool, sees: bool
) -> Iterator[str]:
    """Yield which pages OCR has read, and which have no text."""
    if seen:
        yield f": {page_ranges(seen)} read from a picture by OCR"
    if pictures and sees:
        yield f": nothing to read was found on {page_ranges(pictures)}, which show pictures"
    elif pictures:
        how = ", which the extra 'paddock-llm[ocr]' reads" if uses_ocr else ", and `ocr` is off"
        yield f": no text layer on {page_ranges(pictures)}{how}"
