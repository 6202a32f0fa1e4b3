"""Text of a PDF's pages. The only module that knows pypdfium2.

PDFium keeps global state and is not thread-safe, so every call into it happens under one lock, a
page at a time: a long document does not hold up the short ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

_PDFIUM = Lock()
_ERR_PASSWORD = 4  # FPDF_ERR_PASSWORD
_HYPHEN = re.compile("[\x02\ufffe]\n?")  # how PDFium gives a hyphen at the end of a line
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1f\ufffe\uffff]")


class UnreadablePdf(ValueError):
    """A PDF that cannot be read; the message says why and follows its name."""


@dataclass(frozen=True, slots=True)
class PdfText:
    """The pages' texts in order, and the title that the file gives itself."""

    pages: tuple[str, ...]
    title: str
    pictures: tuple[int, ...]
    """Numbers of the pages that show something and have no text."""


def read(path: Path) -> PdfText:
    """Read all pages.

    Raises:
        UnreadablePdf: with the reason.
        OSError: the file cannot be opened.
    """
    with _opened(path) as document:
        with _PDFIUM:
            n_pages = len(document)
            title = document.get_metadata_value("Title")
        if not n_pages:
            raise UnreadablePdf("has no pages")
        pages = [_page(document, index) for index in range(n_pages)]
    pictures = tuple(number for number, (_, is_picture) in enumerate(pages, 1) if is_picture)
    return PdfText(tuple(text for text, _ in pages), title.strip(), pictures)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open through Python, so that the system's refusals keep their reasons."""
    import pypdfium2  # type: ignore[import-untyped]

    with path.open("rb") as file:
        try:
            with _PDFIUM:
                document = pypdfium2.PdfDocument(file)
        except pypdfium2.PdfiumError as error:
            # PDFium sometimes leaves the code of the document before: look for ourselves.
            if error.err_code == _ERR_PASSWORD and b"/Encrypt" in path.read_bytes():
                raise UnreadablePdf("is protected by a password") from error
            raise UnreadablePdf("is damaged or no PDF") from error
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
            raise UnreadablePdf(f"is damaged: page {index + 1} cannot be read") from error
        try:
            textpage = page.get_textpage()
            text = textpage.get_text_range()
            textpage.close()
            n_objects = pypdfium2.raw.FPDFPage_CountObjects(page)
        except pypdfium2.PdfiumError as error:
            raise UnreadablePdf(f"is damaged: page {index + 1} cannot be read") from error
        finally:
            page.close()
    text = _clean(text)
    return text, not text and n_objects > 0


def _clean(text: str) -> str:
    """Undo line-end hyphens, drop what is no character."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _NO_TEXT.sub("", _HYPHEN.sub("", text))
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()
