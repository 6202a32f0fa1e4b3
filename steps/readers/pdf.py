"""PDF documents: the text of each page, and scanned pages by OCR where it is installed.

The only module that knows pypdfium2.

PDFium keeps global state and is not thread-safe, so every call into it happens under one lock, a
page at a time: a long document does not hold up the short ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, BinaryIO

from . import ocr
from .reader import MEDIA_TYPES, Document, ReadRequest, Unreadable

_PDFIUM_LOCK = Lock()
_ERR_PASSWORD = 4  # FPDF_ERR_PASSWORD
_HYPHEN = re.compile("[\x02\ufffe]\n?")  # PDFium's hyphen at the end of a line
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1f\ufffe\uffff]")
_POINTS_AN_INCH = 72
_DOTS_AN_INCH = 200  # enough for small print; an A4 page has 1,654 x 2,339 pixels
_MOST_SIDE_PX = 2400

PageOcr = Callable[[Any], str]
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
        for index in range(n_pages):
            check()
            text, is_picture = _page_text(document, index)
            if is_picture and see is not None:
                text = see(_page_pixels(document, index))
                (seen if text else pictures).append(index + 1)
            elif is_picture:
                pictures.append(index + 1)
            pages.append(text)
    return PdfText(tuple(pages), title.strip(), tuple(pictures), tuple(seen))


@contextmanager
def _open_pdf(file: BinaryIO) -> Iterator[Any]:
    """Open through Python, so that system errors keep their reasons."""
    import pypdfium2  # type: ignore[import-untyped]

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
    import pypdfium2

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


def _page_pixels(document: Any, index: int) -> Any:
    """Render a page of any size within limits."""
    with _open_page(document, index) as page:
        longest = max(*page.get_size(), 1.0)
        scale = min(_DOTS_AN_INCH / _POINTS_AN_INCH, _MOST_SIDE_PX / longest)
        bitmap = page.render(scale=scale)
        pixels = bitmap.to_numpy()[:, :, :3].copy()
        bitmap.close()
        return pixels


def _clean_text(text: str) -> str:
    """Join hyphenated words, drop control characters."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _NO_TEXT.sub("", _HYPHEN.sub("", text))
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()


def read_pdf(file: BinaryIO, wish: ReadRequest) -> Document:
    sees = wish.ocr and ocr.ocr_is_installed()
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
    return Document(found.pages, title, MEDIA_TYPES["pdf"], tuple(notes))


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
