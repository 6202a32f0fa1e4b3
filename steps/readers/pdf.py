"""PDF documents: the text of each page, and scanned pages by OCR where it is installed.

After a page's own text stand the fields of forms with their values, the texts that were typed over
it, and comments; behind its last page are the pages of attached files. What is not read is noted:
dynamic (XFA) forms, passwords, damaged pages, letters that a font maps to nothing. Text whose fonts
map it to Unicode is never replaced by OCR. Text that the page does not show is marked and noted.
PDFium is known by the modules `pdf…` of this folder alone.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from paddock.engine.system.text import counted, listed

from . import ocr, ocr_engine, reader
from .document_kinds import MEDIA_TYPES
from .inner_documents import MOST_ATTACHED, read_attached
from .ocr import page_ranges
from .ocr_layout import SeenText, TextBox
from .pdf_annotations import Losses
from .pdf_page import PdfPages
from .pdf_pictures import inserted
from .pdfium import MOST_SIDE_PX, PDFIUM_LOCK, DamagedPage, open_pdf, page_pixels
from .reader import Document, LineBox, ReadRequest, Unreadable

_MOST_UNNAMED = 0.2  # of a page's characters: then OCR reads it, or a note says so
_LEAST_ALIKE = 0.5  # of a page's words: chance has hardly any
_WORD = re.compile(r"\w{2,}")


def read_pdf(file: BinaryIO, request: ReadRequest) -> Document:
    sees = request.ocr and reader.is_installed("ocr")
    pages: list[str] = []
    boxes: list[tuple[LineBox, ...]] = []
    scores: list[tuple[float, ...]] = []
    pictures, seen, partly, noise, damaged = (list[int]() for _ in range(5))
    by_ocr: dict[int, SeenText] = {}
    n_unread: dict[int, int] = {}
    unknown: dict[int, int] = {}
    losses = Losses()
    with open_pdf(file) as document:
        with PDFIUM_LOCK:
            title = document.get_metadata_value("Title").strip()
        found = PdfPages(document, request.check, losses)
        for number, page in enumerate(found, 1):
            pages.append("")
            boxes.append(())
            scores.append(())
            if page is None:
                damaged.append(number)
                continue
            text = found.text(page).text
            is_noise = page.n_unnamed > _MOST_UNNAMED * len("".join(page.raw_text.split()))
            if (page.is_picture or page.n_pictures or is_noise) and sees:
                pixels = page_pixels(document, number - 1, MOST_SIDE_PX, shows_forms=False)
                height, width = pixels.shape[:2]
                own_texts = [
                    TextBox(
                        t.text, t.left * width, t.top * height, t.right * width, t.bottom * height
                    )
                    for t in page.own
                ]
                shown = ocr_engine.recognise(pixels, () if is_noise else own_texts)
                if is_noise and _is_alike(text, shown.text):
                    is_noise = False
                    has_more = page.n_pictures > 0
                    shown = ocr_engine.recognise(pixels, own_texts) if has_more else SeenText("")
                by_ocr[number] = shown
                if by_ocr[number].text:
                    own = "" if is_noise else text
                    by_ocr[number] = inserted(own, by_ocr[number], page.own)
                    text, boxes[-1] = by_ocr[number].text, by_ocr[number].lines
                    scores[-1] = by_ocr[number].scores
                    (partly if own else seen).append(number)
            elif page.n_pictures and not page.is_picture:
                n_unread[number] = page.n_pictures
            if page.is_picture and not text:
                pictures.append(number)
            elif is_noise and number not in seen:
                noise.append(number)
            if page.n_unnamed and text and not is_noise:
                unknown[number] = page.n_unnamed
            over = page.laid_over
            pages[-1] = "\n\n".join(filter(None, (text, over.text)))
            boxes[-1] += over.line_boxes(len(pages[-1]) - len(over.text))
            scores[-1] += (1.0,) * (len(boxes[-1]) - len(scores[-1]))
        if not pages:
            raise Unreadable("is damaged: it has no pages")
        if len(damaged) == len(pages):
            raise DamagedPage(1)
        lost = list(losses.notes(document))
        attached = list[str]()
        for n, (name, n_bytes, data) in enumerate(losses.attached(document)):
            if n == MOST_ATTACHED:
                lost.append(f": only the first {MOST_ATTACHED} attached files are read")
                break
            request.check(len(pages[-1]))
            if not data:
                lost.append(f": attachment '{name}' is not read: it has {n_bytes:,} bytes")
                continue
            behind, notes = read_attached(name, "", data, request)
            attached += [name] if behind else []
            pages += behind or ()
            boxes += [() for _ in behind or ()]
            scores += [() for _ in behind or ()]
            lost += notes
        if attached:
            lost.append(f": attached files stand behind its own pages ({listed(attached)})")
    if damaged:
        it_is = "it is" if len(damaged) == 1 else "they are"
        lost.append(f": {page_ranges(damaged)} cannot be read: {it_is} damaged")
    if unknown:
        which = f"{counted(sum(unknown.values()), 'character')} on {page_ranges(list(unknown))}"
        lost.append(f": {which} may be other ones: the font does not say what they mean")
    lost += ocr.unread_notes(by_ocr, is_all=not any(pages))
    how = ", which the extra 'paddock-llm[ocr]' reads" if request.ocr else ", and `ocr` is off"
    if n_unread:
        what = counted(sum(n_unread.values()), "picture")
        lost.append(f": {what} on {page_ranges(list(n_unread))} not read{how}")
    if noise:
        lost.append(
            f": the text of {page_ranges(noise)} may be another one, since its fonts do not say "
            f"which letters they show{'' if sees else how}"
        )
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
        empty = [n for n in pictures if n not in by_ocr or not by_ocr[n].foreign]
        if empty and sees:
            lost[:0] = [f": nothing to read was found on {page_ranges(empty)}, which show pictures"]
        elif empty:
            lost[:0] = [f": no text layer on {page_ranges(empty)}{how}"]
        lost[:0] = [f": pictures on {page_ranges(partly)} read by OCR"] if partly else []
        lost[:0] = [f": {page_ranges(seen)} read from a picture by OCR"] if seen else []
    return Document(
        tuple(pages),
        "" if title.lower() == "untitled" else title,
        MEDIA_TYPES["pdf"],
        tuple(lost),
        why_empty,
        tuple(boxes) if any(boxes) else (),
        tuple(scores) if any(boxes) else (),
    )


def _is_alike(text: str, shown: str) -> bool:
    """Return whether a page shows what its text says: then its glyphs' codes are letters."""
    own, seen = (set(_WORD.findall(words.casefold())) for words in (text, shown))
    return bool(own) and len(own & seen) >= _LEAST_ALIKE * len(own)
