"""Pages of PDFs as pictures, and where on them the quotes of a text stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, BinaryIO

from pypdfium2 import raw  # type: ignore[import-untyped]

from .pdf_page import kept_offsets
from .pdfium import PDFIUM_LOCK, clean_text, open_page, open_pdf, page_pixels, shown_box
from .reader import PageBox, QuoteSpan, Unreadable

_LAST_OF_PLANE = 0xFFFF  # of the characters that are one unit of UTF-16


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
        for number in sorted(page for page in by_page if 1 <= page <= n_pages):
            check()
            with open_page(document, number - 1) as page:
                of_page = _QuotedPage(page)
                for index in by_page[number]:
                    found[index] = of_page.box(quotes[index])
    return found


class _QuotedPage:
    """An open page, on which quotes of its cleaned text are found."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._characters = page.get_textpage()
        text = self._characters.get_text_range()
        self._text = clean_text(text)
        self._offsets = kept_offsets(text)
        # PDFium counts in units of UTF-16.
        wide = (1 + (ord(char) > _LAST_OF_PLANE) for char in text)
        self._units = list(accumulate(wide, initial=0))

    def box(self, quote: QuoteSpan) -> PageBox | None:
        if self._text[quote.start : quote.end] != quote.text:
            return None
        offsets = self._offsets[quote.start : quote.end]
        shown = (at for at, char in zip(offsets, quote.text, strict=True) if not char.isspace())
        boxes = [box for at in shown if (box := self._character_box(self._units[at])) is not None]
        if not boxes:
            return None
        lefts, tops, rights, bottoms = zip(*boxes, strict=True)
        return min(lefts), min(tops), max(rights), max(bottoms)

    def _character_box(self, unit: int) -> PageBox | None:
        """Return a character's box on the page as it is shown; None if it is not on it."""
        index = raw.FPDFText_GetCharIndexFromTextIndex(self._characters, unit)
        rect = raw.FS_RECTF()
        if index < 0 or not raw.FPDFText_GetLooseCharBox(self._characters, index, rect):
            return None
        return shown_box(self._page, rect)
