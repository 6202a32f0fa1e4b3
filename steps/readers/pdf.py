"""PDF documents: the text of each page, and scanned pages by OCR where it is installed.

After a page's own text stand the fields of forms with their values, the texts that were typed over
it, and comments; behind its last page are the pages of attached files. What is not read is noted:
dynamic (XFA) forms, passwords, damaged pages, letters that a font maps to nothing. Text whose fonts
map it to Unicode is never replaced by OCR. Text that the page does not show is marked and noted.
PDFium is known by the modules `pdf…` of this folder alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, BinaryIO, Literal

from paddock.engine.system.records import Struct
from paddock.engine.system.text import counted, listed
from paddock.pipelines.text_cells import TextCell, moved_cells, pack_cells

from . import ocr, ocr_engine, reader
from .inner_documents import MOST_ATTACHED, InnerDocuments
from .ocr import page_ranges
from .ocr_layout import SeenText, TextBox
from .pdf_annotations import Losses
from .pdf_page import PdfPages, ReadPage
from .pdf_pictures import inserted
from .pdfium import MOST_SIDE_PX, PDFIUM_LOCK, DamagedPage, open_pdf, page_pixels
from .reader import Document, ReadRequest, Unreadable

_MOST_UNNAMED = 0.2  # of a page's characters: then OCR reads it, or a note says so
_MANY_ASKEW = 20  # characters: less is a logo or a seal
_LEAST_ALIKE = 0.5  # of a page's words: chance has hardly any
_WORD = re.compile(r"\w{2,}")


class _PageReading(Struct, frozen=True):
    text: str = ""
    number: int = 0
    """From 1; 0: of an attached file."""
    source: Literal["text", "ocr", "both", "nothing", "noise", "damaged"] = "text"
    """Where its text is from; `noise`: of fonts that do not say which letters they show."""
    cells: tuple[TextCell, ...] = ()
    seen: SeenText | None = None
    """What OCR found, where it looked."""
    n_unread: int = 0
    """Pictures that nothing looked at."""
    n_unknown: int = 0
    """Characters that may be other ones."""
    n_drawn: int = 0
    """Characters of which there are only drawings."""
    n_askew: int = 0
    """Characters that stand in no line."""


def read_pdf(file: BinaryIO, request: ReadRequest) -> Document:
    sees = request.ocr and reader.is_installed("ocr")
    losses = Losses()
    with open_pdf(file) as document:
        with PDFIUM_LOCK:
            title = document.get_metadata_value("Title").strip()
        found = PdfPages(document, request.check, losses)
        pages = [
            _PageReading(number=number, source="damaged")
            if page is None
            else _read_page(document, number, page, *found.text(page), sees=sees)
            for number, page in enumerate(found, 1)
        ]
        if not pages:
            raise Unreadable("is damaged: it has no pages")
        if all(page.source == "damaged" for page in pages):
            raise DamagedPage(1)
        shown = [page.text for page in pages]
        cells = [pack_cells(page.cells) for page in pages]
        notes = list(losses.notes(document))
        inner = InnerDocuments(request, pages=[*shown], cells=cells, notes=notes)
        attached = list[str]()
        for n, (name, n_bytes, data) in enumerate(losses.attached(document)):
            if n == MOST_ATTACHED:
                inner.notes.append(f": only the first {MOST_ATTACHED} attached files are read")
                break
            request.check(len(inner.pages[-1]))
            if not data:
                inner.leave_out(name, f"it has {n_bytes:,} bytes")
                continue
            n_before = len(inner.pages)
            inner.add(name, "", data)
            attached += [name] if len(inner.pages) > n_before else []
        if len(inner.invoices) == 1:  # else which one the pages show is open
            inner.compare_page(0, 1, shown)
        if attached:
            inner.notes.append(f": attached files stand behind its own pages ({listed(attached)})")
    pages += [_PageReading(text) for text in inner.pages[len(pages) :]]
    why_empty, (first, last) = _notes_on_pages(pages, is_ocr_wanted=request.ocr, sees=sees)
    inner.notes = [*first, *inner.notes, *last]
    return inner.document("" if title.lower() == "untitled" else title, "pdf", why_empty)


def _read_page(
    document: Any,
    number: int,
    page: ReadPage,
    text: str,
    cells: tuple[TextCell, ...],
    *,
    sees: bool,
) -> _PageReading:
    is_noise = page.n_unnamed > _MOST_UNNAMED * len("".join(page.raw_text.split()))
    source: Literal["text", "ocr", "both", "nothing", "noise"] = "text"
    seen: SeenText | None = None
    if (page.is_picture or page.n_pictures or is_noise) and sees:
        pixels = page_pixels(document, number - 1, MOST_SIDE_PX, shows_forms=False)
        height, width = pixels.shape[:2]
        own_texts = [
            TextBox(
                text[cell.start : cell.end],
                left * width,
                top * height,
                right * width,
                bottom * height,
            )
            for cell in cells
            if cell.box
            for left, top, right, bottom in [cell.box]
        ]
        seen = ocr_engine.recognise(pixels, () if is_noise else own_texts)
        if is_noise and _is_alike(text, seen.text):
            is_noise = False
            has_more = page.n_pictures > 0
            seen = ocr_engine.recognise(pixels, own_texts) if has_more else SeenText("")
        if seen.text:
            own = "" if is_noise else text
            seen = inserted(own, seen, cells if own else ())
            text, cells, source = seen.text, seen.cells, "both" if own else "ocr"
    if page.is_picture and not text:
        source = "nothing"
    elif is_noise and source != "ocr":
        source = "noise"
    over = page.laid_over
    whole = "\n\n".join(filter(None, (text, over.text)))
    return _PageReading(
        whole,
        number,
        source,
        (*cells, *moved_cells(over.cells, len(whole) - len(over.text))),
        seen,
        n_unread=0 if seen is not None or page.is_picture else page.n_pictures,
        n_unknown=page.n_unnamed if text and not is_noise else 0,
        n_drawn=page.n_drawn,
        n_askew=page.n_askew if page.n_askew >= _MANY_ASKEW else 0,
    )


def _notes_on_pages(
    pages: Sequence[_PageReading], *, is_ocr_wanted: bool, sees: bool
) -> tuple[str, tuple[list[str], list[str]]]:
    """Return why there is no text, if there is none, and notes before and behind all others.

    Raises:
        Unreadable: all pages are pictures, and none is read.
    """

    def which(source: str) -> list[int]:
        return [page.number for page in pages if page.source == source]

    has_text = any(page.text for page in pages)
    first = list[str]()
    last = list[str]()
    if damaged := which("damaged"):
        it_is = "it is" if len(damaged) == 1 else "they are"
        last.append(f": {page_ranges(damaged)} cannot be read: {it_is} damaged")
    if n_unknown := {page.number: page.n_unknown for page in pages if page.n_unknown}:
        on = f"{counted(sum(n_unknown.values()), 'character')} on {page_ranges(list(n_unknown))}"
        last.append(f": {on} may be other ones: the font does not say what they mean")
    if n_drawn := {page.number: page.n_drawn for page in pages if page.n_drawn}:
        on = f"{counted(sum(n_drawn.values()), 'character')} on {page_ranges(list(n_drawn))}"
        last.append(f": {on} missing: the page has drawings of them, read as '\ufffd'")
    if n_askew := {page.number: page.n_askew for page in pages if page.n_askew}:
        on = f"{counted(sum(n_askew.values()), 'character')} on {page_ranges(list(n_askew))}"
        last.append(f": {on} run in many directions: their words may be cut, or in another order")
    seen = {page.number: page.seen for page in pages if page.seen is not None}
    last += ocr.unread_notes(seen, is_all=not has_text)
    how = ", which the extra 'paddock-llm[ocr]' reads" if is_ocr_wanted else ", and `ocr` is off"
    if n_unread := {page.number: page.n_unread for page in pages if page.n_unread}:
        what = counted(sum(n_unread.values()), "picture")
        last.append(f": {what} on {page_ranges(list(n_unread))} not read{how}")
    if noise := which("noise"):
        last.append(
            f": the text of {page_ranges(noise)} may be another one, since its fonts do not say "
            f"which letters they show{'' if sees else how}"
        )
    if (pictures := which("nothing")) and not has_text:
        n = len(pages)
        shows = "its 1 page only shows" if n == 1 else f"its {n} pages only show"
        why_empty = f"has no text layer: {shows} pictures"
        if not sees:
            remedy = ocr.INSTALL_OCR if is_ocr_wanted else "Set `ocr: auto` to read it."
            raise Unreadable(why_empty, remedy)
        return f"{why_empty}, and OCR found nothing to read on them", (first, last)
    if by_ocr := which("ocr"):
        first.append(f": {page_ranges(by_ocr)} read from a picture by OCR")
    if partly := which("both"):
        first.append(f": pictures on {page_ranges(partly)} read by OCR")
    empty = [n for n in pictures if n not in seen or not seen[n].foreign]
    if empty and sees:
        first.append(f": nothing to read was found on {page_ranges(empty)}, which show pictures")
    elif empty:
        first.append(f": no text layer on {page_ranges(empty)}{how}")
    return "is empty", (first, last)


def _is_alike(text: str, shown: str) -> bool:
    """Return whether a page shows what its text says: then its glyphs' codes are letters."""
    own, seen = (set(_WORD.findall(words.casefold())) for words in (text, shown))
    return bool(own) and len(own & seen) >= _LEAST_ALIKE * len(own)
