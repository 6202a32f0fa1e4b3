"""Text of a PDF's pages. The only module that knows pypdfium2.

PDFium keeps global state and is not thread-safe, so every call into it happens under one lock, a
page at a time: a long document does not hold up the short ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, BinaryIO

from .reader import Unreadable

_PDFIUM = Lock()
_ERR_PASSWORD = 4  # FPDF_ERR_PASSWORD
_HYPHEN = re.compile("[\x02\ufffe]\n?")  # how PDFium gives a hyphen at the end of a line
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1f\ufffe\uffff]")
_POINTS_AN_INCH = 72
_DOTS_AN_INCH = 200  # small print is read at this, and an A4 page has 1,654 x 2,339 pixels
_MOST_SIDE_PX = 2400

See = Callable[[Any], str]
"""Reads a picture of a page: an array of height x width x 3 bytes, blue first."""


@dataclass(frozen=True, slots=True)
class PdfText:
    """The pages' texts in order, and the title that the file gives itself."""

    pages: tuple[str, ...]
    title: str
    pictures: tuple[int, ...]
    """Numbers of the pages that show something and have no text."""
    seen: tuple[int, ...] = ()
    """Numbers of the pages that were read from their picture."""


def read(file: BinaryIO, check: Callable[[], None], see: See | None = None) -> PdfText:
    """Read all pages; `check` is called before each, `see` reads those that have no text.

    Raises:
        Unreadable: it is damaged, protected or no PDF.
    """
    with _opened(file) as document:
        with _PDFIUM:
            n_pages = len(document)
            title = document.get_metadata_value("Title")
        if not n_pages:
            raise Unreadable("is damaged: it has no pages")
        pages: list[str] = []
        pictures: list[int] = []
        seen: list[int] = []
        for index in range(n_pages):
            check()
            text, is_picture = _page(document, index)
            if is_picture and see is not None:
                text = see(_drawn(document, index))
                (seen if text else pictures).append(index + 1)
            elif is_picture:
                pictures.append(index + 1)
            pages.append(text)
    return PdfText(tuple(pages), title.strip(), tuple(pictures), tuple(seen))


@contextmanager
def _opened(file: BinaryIO) -> Iterator[Any]:
    """Open through Python, so that the system's refusals keep their reasons."""
    import pypdfium2  # type: ignore[import-untyped]

    try:
        with _PDFIUM:
            document = pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        # PDFium sometimes leaves the code of the document before: look for ourselves.
        file.seek(0)
        if error.err_code == _ERR_PASSWORD and b"/Encrypt" in file.read():
            remedy = "Save it without a password."
            raise Unreadable("is protected by a password", remedy) from error
        raise Unreadable("is damaged or no PDF") from error
    try:
        yield document
    finally:
        with _PDFIUM:
            document.close()


def _page(document: Any, index: int) -> tuple[str, bool]:
    """Give a page's text, and whether it shows something that is no text."""
    import pypdfium2

    with _PDFIUM:
        try:
            page = document[index]
        except pypdfium2.PdfiumError as error:
            raise _broken(index) from error
        try:
            textpage = page.get_textpage()
            text = textpage.get_text_range()
            textpage.close()
            n_objects = pypdfium2.raw.FPDFPage_CountObjects(page)
        except pypdfium2.PdfiumError as error:
            raise _broken(index) from error
        finally:
            page.close()
    text = _clean(text)
    return text, not text and n_objects > 0


def _drawn(document: Any, index: int) -> Any:
    """Draw a page, of whatever size, within bounds."""
    import pypdfium2

    with _PDFIUM:
        try:
            page = document[index]
            try:
                longest = max(*page.get_size(), 1.0)
                scale = min(_DOTS_AN_INCH / _POINTS_AN_INCH, _MOST_SIDE_PX / longest)
                bitmap = page.render(scale=scale)
                pixels = bitmap.to_numpy()[:, :, :3].copy()
                bitmap.close()
            finally:
                page.close()
        except pypdfium2.PdfiumError as error:
            raise _broken(index) from error
    return pixels


def _broken(index: int) -> Unreadable:
    return Unreadable(f"is damaged: page {index + 1} cannot be read")


def _clean(text: str) -> str:
    """Undo line-end hyphens, drop what is no character."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _NO_TEXT.sub("", _HYPHEN.sub("", text))
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()
