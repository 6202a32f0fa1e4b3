"""PDF documents: the text of each page, and scanned pages by OCR where it is installed.

The only module that knows pypdfium2.

PDFium keeps global state and is not thread-safe, so every call into it happens under one lock, a
page at a time: a long document does not hold up the short ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import byref, c_int
from dataclasses import dataclass
from itertools import accumulate
from threading import Lock
from typing import Any, BinaryIO

import pypdfium2  # type: ignore[import-untyped]
from pypdfium2 import raw

from . import ocr, reader
from .reader import (
    MEDIA_TYPES,
    Document,
    LineBox,
    PageBox,
    QuoteSpan,
    ReadRequest,
    Unreadable,
)

_PDFIUM_LOCK = Lock()
_ERR_PASSWORD = 4  # FPDF_ERR_PASSWORD
_HYPHEN = re.compile("[\x02\ufffe]\n?")  # PDFium's hyphen at the end of a line
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1f\ufffe\uffff]")
# Runs of white space are matched whole, so that a long one is looked at once.
_LINE_END_SPACE = re.compile(r"(?<![^\S\n])[^\S\n]++(?=\n|\Z)")
_OUTER_SPACE = re.compile(r"\A\s++|(?<!\s)\s++\Z")
_LEFT_OUT = (re.compile(r"\r(?=\n)"), _HYPHEN, _NO_TEXT, _LINE_END_SPACE, _OUTER_SPACE)
"""What a page's text loses, one after the other."""
_POINTS_AN_INCH = 72
_DOTS_AN_INCH = 200  # enough for small print; an A4 page has 1,654 x 2,339 pixels
_MOST_SIDE_PX = 2400
_BOX_UNITS = 1_000_000  # of a side, in which PDFium returns points as whole numbers
_LAST_OF_PLANE = 0xFFFF  # of the characters that are one unit of UTF-16

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
    """By page, of what OCR has read."""


def extract_pdf_text(
    file: BinaryIO, check: Callable[[], None], see: PageOcr | None = None
) -> PdfText:
    """Read all pages; `check` is called before each, `see` reads those that have no text."""
    with _open_pdf(file) as document:
        with _PDFIUM_LOCK:
            n_pages = len(document)
            title = document.get_metadata_value("Title")
        if not n_pages:
            raise Unreadable("is damaged: it has no pages")
        pages: list[str] = []
        pictures: list[int] = []
        seen: list[int] = []
        lines: list[tuple[LineBox, ...]] = []
        for index in range(n_pages):
            check()
            text, is_picture = _page_text(document, index)
            lines.append(())
            if is_picture and see is not None:
                found = see(_page_pixels(document, index, _MOST_SIDE_PX))
                text, lines[-1] = found.text, found.lines
                (seen if text else pictures).append(index + 1)
            elif is_picture:
                pictures.append(index + 1)
            pages.append(text)
    boxes = tuple(lines) if seen else ()
    return PdfText(tuple(pages), title.strip(), tuple(pictures), tuple(seen), boxes)


def draw_pdf_page(file: BinaryIO, number: int, most_side_px: int) -> Any:
    """Return a page, from 1, as it is shown: an array of height x width x 3 bytes, blue first."""
    with _open_pdf(file) as document:
        with _PDFIUM_LOCK:
            n_pages = len(document)
        if not 1 <= number <= n_pages:
            raise Unreadable(f"has no page {number}")
        return _page_pixels(document, number - 1, most_side_px)


def find_pdf_boxes(
    file: BinaryIO, quotes: Sequence[QuoteSpan], check: Callable[[], None]
) -> list[PageBox | None]:
    """Return the box around each quote; None where the page does not have it there."""
    by_page: dict[int, list[int]] = {}
    for index, quote in enumerate(quotes):
        by_page.setdefault(quote.page, []).append(index)
    found: list[PageBox | None] = [None] * len(quotes)
    with _open_pdf(file) as document:
        with _PDFIUM_LOCK:
            n_pages = len(document)
        for number in sorted(page for page in by_page if 1 <= page <= n_pages):
            check()
            with _open_page(document, number - 1) as page:
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
        self._text = _clean_text(text)
        self._offsets = _kept_offsets(text)
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
        corners = [self._shown(rect.left, rect.top), self._shown(rect.right, rect.bottom)]
        (left, right), (top, bottom) = map(sorted, zip(*corners, strict=True))
        return (left, top, right, bottom) if left < right and top < bottom else None

    def _shown(self, x: float, y: float) -> tuple[float, float]:
        """Return a point of the page as fractions: rotated and cropped as PDFium draws it."""
        across, down = c_int(), c_int()
        size = (0, 0, _BOX_UNITS, _BOX_UNITS)
        raw.FPDF_PageToDevice(self._page, *size, 0, x, y, byref(across), byref(down))
        shares = (across.value / _BOX_UNITS, down.value / _BOX_UNITS)
        left, top = (round(min(max(share, 0.0), 1.0), 4) for share in shares)
        return left, top


@contextmanager
def _open_pdf(file: BinaryIO) -> Iterator[Any]:
    """Open through Python, so that system errors keep their reasons."""
    try:
        with _PDFIUM_LOCK:
            document = pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        # PDFium sometimes keeps the error code of the previous document.
        file.seek(0)
        if error.err_code == _ERR_PASSWORD and b"/Encrypt" in file.read():
            remedy = "Save it without a password."
            raise Unreadable("is protected by a password", remedy) from error
        raise Unreadable("is damaged or not a PDF") from error
    try:
        yield document
    finally:
        with _PDFIUM_LOCK:
            document.close()


@contextmanager
def _open_page(document: Any, index: int) -> Iterator[Any]:
    """Open a page, and hold the lock; errors within name the page."""
    with _PDFIUM_LOCK:
        try:
            page = document[index]
            try:
                yield page
            finally:
                page.close()
        except pypdfium2.PdfiumError as error:
            raise Unreadable(f"is damaged: page {index + 1} cannot be read") from error


def _page_text(document: Any, index: int) -> tuple[str, bool]:
    """Return a page's text, and whether it only has pictures."""
    with _open_page(document, index) as page:
        textpage = page.get_textpage()
        text = _clean_text(textpage.get_text_range())
        textpage.close()
        return text, not text and next(page.get_objects(max_depth=1), None) is not None


def _page_pixels(document: Any, index: int, most_side_px: int) -> Any:
    """Render a page of any size within limits."""
    with _open_page(document, index) as page:
        longest = max(*page.get_size(), 1.0)
        scale = min(_DOTS_AN_INCH / _POINTS_AN_INCH, most_side_px / longest)
        bitmap = page.render(scale=scale)
        pixels = bitmap.to_numpy()[:, :, :3].copy()
        bitmap.close()
        return pixels


def _clean_text(text: str) -> str:
    """Join hyphenated words, drop control characters."""
    for left_out in _LEFT_OUT:
        text = left_out.sub("", text).replace("\r", "\n")
    return text


def _kept_offsets(text: str) -> list[int]:
    """Return the offset in `text` of each character of `_clean_text(text)`."""
    offsets = list(range(len(text)))
    for left_out in _LEFT_OUT:
        kept, at = list[int](), 0
        for gap in left_out.finditer(text):
            kept += offsets[at : gap.start()]
            at = gap.end()
        offsets = kept + offsets[at:]
        text = left_out.sub("", text).replace("\r", "\n")
    return offsets


def read_pdf(file: BinaryIO, wish: ReadRequest) -> Document:
    sees = wish.ocr and reader.ocr_is_installed()
    found = extract_pdf_text(file, wish.check, ocr.recognise if sees else None)
    nothing = _why_empty(found) if found.pictures and not any(found.pages) else ""
    if nothing and not sees:
        raise Unreadable(nothing, ocr.INSTALL_OCR if wish.ocr else "Set `ocr: auto` to read it.")
    if nothing:
        why = f"{nothing}, and OCR found nothing to read on them"
        return Document(found.pages, found.title, MEDIA_TYPES["pdf"], (), why)
    notes: list[str] = []
    if found.seen:
        notes.append(f": {_page_ranges(found.seen)} read from a picture by OCR")
    if found.pictures and sees:
        notes.append(
            f": nothing to read was found on {_page_ranges(found.pictures)}, which show pictures"
        )
    elif found.pictures:
        notes.append(f": no text layer on {_page_ranges(found.pictures)}{_remedy(wish.ocr)}")
    title = "" if found.title.lower() == "untitled" else found.title
    boxes = found.line_boxes
    return Document(found.pages, title, MEDIA_TYPES["pdf"], tuple(notes), line_boxes=boxes)


def _why_empty(found: PdfText) -> str:
    n = len(found.pages)
    shows = "its 1 page only shows pictures" if n == 1 else f"its {n} pages only show pictures"
    return f"has no text layer: {shows}"


def _remedy(is_wished: bool) -> str:
    return ", which the extra 'paddock-llm[ocr]' reads" if is_wished else ", and `ocr` is off"


def _page_ranges(numbers: Sequence[int]) -> str:
    """Return page numbers as ranges.

    >>> _page_ranges([1, 2, 3, 7])
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
