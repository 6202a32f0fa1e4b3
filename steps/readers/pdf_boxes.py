"""Pages of PDFs as pictures, and where on them the quotes of a text stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

from pypdfium2 import raw  # type: ignore[import-untyped]

from .pdf_annotations import Losses
from .pdf_page import PdfPages
from .pdfium import PDFIUM_LOCK, open_page, open_pdf, page_pixels, shown_box
from .reader import PageBox, QuoteSpan, Unreadable


def draw_pdf_page(file: BinaryIO, number: int, most_side_px: int) -> Any:
    """Return a page, from 1, as it is shown: an array of height x width x 3 bytes, blue first."""
    with open_pdf(file) as document:
        with PDFIUM_LOCK:
            n_pages = len(document)
        if not 1 <= number <= n_pages:
            raise Unreadable(f"has no page {number}")
        return page_pixels(document, number - 1, most_side_px)


def find_pdf_boxes(
    file: BinaryIO, quotes: Sequence[QuoteSpan], check: Callable[[], None]
) -> list[PageBox | None]:
    """Return the box around each quote; None where the page does not have it there."""
    by_page: dict[int, list[int]] = {}
    for index, quote in enumerate(quotes):
        by_page.setdefault(quote.page, []).append(index)
    found: list[PageBox | None] = [None] * len(quotes)
    with open_pdf(file) as document:
        with PDFIUM_LOCK:
            n_pages = len(document)
        pages = PdfPages(document, lambda _: check(), Losses())
        for number in sorted(page for page in by_page if 1 <= page <= n_pages):
            read = pages[number - 1]
            if read is None:
                continue
            text = pages.text(read)
            with open_page(document, number - 1) as page:
                textpage = page.get_textpage()
                for index in by_page[number]:
                    quote = quotes[index]
                    # Before it may stand what OCR has read from a picture.
                    start = text.text.rfind(quote.text, 0, quote.end)
                    if start >= 0:
                        origins = text.origins[start : start + len(quote.text)]
                        places = [read.places[at] for at in origins if at >= 0]
                        boxes, rect = list[PageBox](), raw.FS_RECTF()
                        for place in places:
                            if raw.FPDFText_GetLooseCharBox(textpage, place, rect):
                                boxes += filter(None, [shown_box(page, rect)])
                        if boxes:
                            lefts, tops, rights, bottoms = zip(*boxes, strict=True)
                            found[index] = min(lefts), min(tops), max(rights), max(bottoms)
    return found
