"""Boxes of quotes on a page: the lines of a quote, cut to its words.

They are asked of the reader processes afterwards, once for each document and only for pages with a
quote.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any
from unicodedata import east_asian_width

from paddock.engine.system.text import nested_values
from paddock.steps.base import StepError, Tools
from paddock.steps.paths import resolve_path
from paddock.steps.readers import documents
from paddock.steps.readers.document_kinds import MEDIA_TYPES
from paddock.steps.readers.reader import PAGE_BREAK, LineBox, PageBox, QuoteSpan

from .evidence_sources import EvidenceSource

_MARGIN_LETTERS = 0.5
_NARROW = frozenset(" .,:;'|!ijltfrI()[]/-")
_WIDE = frozenset("mwMW@%")


async def fill_in_boxes(evidence: Any, sources: Sequence[EvidenceSource], tools: Tools) -> None:
    """Set `box` of each quote on a page that shows it, and `page` of hits."""
    by_name = {source.name: source for source in sources}
    without_box: dict[str, list[tuple[dict[str, Any], QuoteSpan]]] = {}
    for _, leaf in nested_values(evidence):
        is_leaf = isinstance(leaf, dict) and isinstance(leaf.get("match"), str)
        if not is_leaf or leaf["source"] is None:
            continue
        source = by_name[leaf["source"]]
        if source.only_page is not None:
            leaf |= {"page": source.only_page, "line": None, "column": None}
        elif leaf["page"] is not None:
            # The quote in the text of the page on which it begins
            page, starts = leaf["page"], source.page_starts
            begins = starts[page - 1]
            ends = starts[page] - len(PAGE_BREAK) if page < len(starts) else len(source.text)
            end = min(leaf["end"], ends)
            quote = source.text[leaf["start"] : end]
            span = QuoteSpan(page, leaf["start"] - begins, end - begins, quote)
            lines = source.line_boxes.get(span.page)
            if lines:
                leaf["box"] = cut_lines(source.text[begins:], lines, span.start, span.end)
            if leaf["box"] is None and source.media_type == MEDIA_TYPES["pdf"] and source.path:
                without_box.setdefault(source.path, []).append((leaf, span))
    for path, quotes in without_box.items():
        await _fill_in_pdf_boxes(path, quotes, tools)


def cut_lines(text: str, lines: Sequence[LineBox], start: int, end: int) -> list[float] | None:
    """Return the box around a piece of a page whose lines were read by OCR.

    A line is cut by the usual widths of its letters, and half a letter more at either side.

    >>> cut_lines("Total: 84.00", [(0, 12, 0.0, 0.5, 1.0, 0.6)], 7, 12)
    [0.4872, 0.5, 1.0, 0.6]
    """
    cut: list[PageBox] = []
    for begins, ends, left, top, right, bottom in lines:
        first, last = max(start, begins), min(end, ends)
        if first < last:
            reached = list(accumulate(map(_letter_width, text[begins:ends]), initial=0.0))
            share = (right - left) / reached[-1]
            begin = left + share * (reached[first - begins] - _MARGIN_LETTERS)
            stop = left + share * (reached[last - begins] + _MARGIN_LETTERS)
            cut.append((max(left, begin), top, min(right, stop), bottom))
    if not cut:
        return None
    lefts, tops, rights, bottoms = zip(*cut, strict=True)
    return [round(side, 4) for side in (min(lefts), min(tops), max(rights), max(bottoms))]


def _letter_width(letter: str) -> float:
    """Return about how wide a letter is in print; 1.0 for a small one."""
    if letter in _NARROW:
        return 0.5
    if letter in _WIDE or east_asian_width(letter) in "WF":
        return 1.6
    return 1.25 if letter.isupper() else 1.0


async def _fill_in_pdf_boxes(
    path: str, quotes: Sequence[tuple[dict[str, Any], QuoteSpan]], tools: Tools
) -> None:
    """Ask a reader process for the boxes of a document's quotes; without them a quote is enough."""
    spans = [span for _, span in quotes]
    try:
        file = resolve_path(tools.roots, path)
        boxes = await documents.quote_boxes(file, spans, readers=tools.readers)
    except StepError as error:
        tools.log.note(f"evidence has no boxes: {error}")
        return
    for (leaf, _), box in zip(quotes, boxes, strict=True):
        leaf["box"] = None if box is None else list(box)
