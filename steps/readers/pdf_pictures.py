"""Pictures on the pages of PDFs: where they are, and their text among the page's own.

A scanned page may have text of its own as well: a scanner's line, a number, the header of a fax, or
all that OCR has read before. What OCR finds under own text is left out; the rest is put where it
stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pypdfium2 import raw  # type: ignore[import-untyped]

from paddock.engine.system.records import replace
from paddock.pipelines.text_cells import PageBox, TextCell, moved_cells

from .ocr_layout import SeenText
from .pdfium import PageFrame, PageObject, form_objects

_LEAST_SHARE = 0.03  # of a page, which a picture has: a logo on A4 has 0.015
_MANY_SHARE = 0.3  # of a page, which many small ones have together: strips of a scan
_COVERED = 0.1  # of a picture that own text covers: 0.2 and more after OCR, 0.01 of a stamp
_SLACK = 0.01  # of a page's height, by which a picture may reach into the line above it
_MOST_OBJECTS = 5_000  # of a page, that are looked at


def n_uncovered(
    frame: PageFrame, pieces: Sequence[PageObject], words: Iterable[PageBox | None]
) -> int:
    """Return how many pictures of a page the boxes of its own words leave uncovered."""
    boxes = [frame.box(*piece.bounds) for piece in pieces[:_MOST_OBJECTS] if _is_picture(piece)]
    pictures = [box for box in boxes if box and _area(box) >= _LEAST_SHARE]
    if not pictures and sum(map(_area, filter(None, boxes))) >= _MANY_SHARE:
        pictures = [(0.0, 0.0, 1.0, 1.0)]
    own = [box for box in words if box] if pictures else []

    def covered(at: PageBox) -> float:
        left, top, right, bottom = at
        parts = ((max(a, left), max(b, top), min(c, right), min(d, bottom)) for a, b, c, d in own)
        return sum(map(_area, parts))

    return sum(covered(at) < _COVERED * _area(at) for at in pictures)


def inserted(text: str, seen: SeenText, cells: Sequence[TextCell]) -> SeenText:
    """Return a page's text with that of a picture after the line that stands above it."""
    if not seen.text or seen.has_known:
        return seen if seen.has_known else replace(seen, text=text, cells=tuple(cells))
    top = min((cell.box[1] for cell in seen.cells if cell.box), default=1.0) + _SLACK
    above = [(cell.box[3], cell.end) for cell in cells if cell.box and cell.box[3] <= top]
    _, at = max(above, default=(0.0, 0))
    at = text.find("\n", at) % (len(text) + 1) if at else 0
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
