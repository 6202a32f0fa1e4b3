"""Pictures on the pages of PDFs: where they are, and their text among the page's own.

A scanned page may have text of its own as well: a scanner's line, a number, the header of a fax, or
all that OCR has read before. What OCR finds under own text is left out; the rest is put where it
stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pypdfium2 import raw  # type: ignore[import-untyped]

from paddock.engine.system.records import replace
from paddock.pipelines.text_marks import escaped

from .ocr_layout import SeenText, TextBox
from .pdfium import PageObject, form_objects, shown_box
from .reader import PageBox
from .text_cells import TextCell, moved_cells

_LEAST_SHARE = 0.03  # of a page, which a picture has: a logo on A4 has 0.015
_MANY_SHARE = 0.3  # of a page, which many small ones have together: strips of a scan
_COVERED = 0.1  # of a picture that own text covers: 0.2 and more after OCR, 0.01 of a stamp
_SLACK = 0.01  # of a page's height, by which a picture may reach into the line above it
_TAIL_CHARS = 20  # by which a line is found in a page's text
_MOST_OBJECTS, _MOST_TEXTS = 5_000, 2_000  # of a page, that are looked at


def unread_pictures(
    page: Any, textpage: Any, pieces: Sequence[PageObject]
) -> tuple[int, Sequence[TextBox]]:
    """Return how many pictures of an open page its own text leaves uncovered, and that text.

    Its places are fractions of the page.
    """
    pictures = list[PageBox]()
    share = 0.0
    for piece in pieces[:_MOST_OBJECTS]:
        if not _is_picture(piece):
            continue
        left, bottom, right, top = piece.bounds
        box = shown_box(page, raw.FS_RECTF(left, top, right, bottom))
        if box is not None:
            share += _area(box)
            pictures += [box] if _area(box) >= _LEAST_SHARE else []
    if not pictures and share >= _MANY_SHARE:
        pictures = [(0.0, 0.0, 1.0, 1.0)]
    if not pictures:
        return 0, ()
    own = list[TextBox]()
    for index in range(min(textpage.count_rects(), _MOST_TEXTS)):
        left, bottom, right, top = textpage.get_rect(index)
        box = shown_box(page, raw.FS_RECTF(left, top, right, bottom))
        text = " ".join(textpage.get_text_bounded(left, bottom, right, top).split())
        own += [TextBox(escaped(text), *box)] if box is not None and text else []
    covered = (
        sum(
            _area((max(t.left, left), max(t.top, top), min(t.right, right), min(t.bottom, bottom)))
            for t in own
        )
        / _area((left, top, right, bottom))
        for left, top, right, bottom in pictures
    )
    return sum(share < _COVERED for share in covered), own


def inserted(
    text: str, seen: SeenText, own: Sequence[TextBox], cells: Sequence[TextCell]
) -> SeenText:
    """Return a page's text with that of a picture after the line that stands above it."""
    if not seen.text or seen.has_known:
        return seen if seen.has_known else replace(seen, text=text, cells=tuple(cells))
    top = min((cell.box[1] for cell in seen.cells if cell.box), default=1.0)
    above = [piece for piece in own if piece.bottom <= top + _SLACK]
    at = 0
    if above:
        tail = max(above, key=lambda piece: piece.bottom).text[-_TAIL_CHARS:]
        found = text.rfind(tail)
        at = len(text) if found < 0 else text.find("\n", found)
        at = len(text) if at < 0 else at
    before, after = text[:at].rstrip(), text[at:].lstrip()
    start = len(before) + 2 * bool(before)
    whole = "\n\n".join(filter(None, (before, seen.text, after)))
    behind = moved_cells([cell for cell in cells if cell.start >= at], len(whole) - len(text))
    above_it = (cell for cell in cells if cell.start < at)
    return replace(seen, text=whole, cells=(*above_it, *moved_cells(seen.cells, start), *behind))


def _is_picture(piece: PageObject, depth: int = 2) -> bool:
    if piece.kind != raw.FPDF_PAGEOBJ_FORM or not depth:
        return bool(piece.kind == raw.FPDF_PAGEOBJ_IMAGE)
    return any(_is_picture(inner, depth - 1) for inner in form_objects(piece.address))


def _area(box: PageBox) -> float:
    left, top, right, bottom = box
    return max(0.0, right - left) * max(0.0, bottom - top)
