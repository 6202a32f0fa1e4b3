"""Presentations to Markdown: a slide is a page, with its tables, charts and the speaker's notes.

The only module that knows python-pptx.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from . import archive, grid
from .kinds import MEDIA_TYPES
from .reader import Document, Unreadable, Wish

_WHAT = "a presentation"
_TEXT = "{http://schemas.openxmlformats.org/drawingml/2006/main}t"
_MOST_DEPTH = 20
_LINE_EMU = 200_000  # shapes whose tops differ by less than half a centimetre stand side by side


def read(file: BinaryIO, wish: Wish) -> Document:
    """Read it.

    Raises:
        Unreadable: it is damaged, protected or no presentation, or the extra is not installed.
    """
    pptx = archive.library("pptx", _WHAT)
    archive.opened(file, _WHAT)
    file.seek(0)
    try:
        presentation = pptx.Presentation(file)
        pages: list[str] = []
        for slide in presentation.slides:
            wish.check()
            pages.append("\n\n".join(block for block in _slide(slide) if block))
        shows = any(
            relation.reltype.endswith("/image")
            for slide in presentation.slides
            for relation in slide.part.rels.values()
        )
        title = (presentation.core_properties.title or "").strip()
    except (Unreadable, MemoryError, RecursionError):
        raise
    except Exception as error:  # the library meets broken XML in hundreds of ways
        raise archive.damaged(_WHAT, error) from error
    if shows and not any(pages):
        raise Unreadable("has no text: it only shows pictures", archive.AS_PDF)
    if title.lower() == "powerpoint presentation":
        title = ""  # what the program writes when nobody has given one
    return Document(tuple(pages), title, MEDIA_TYPES["pptx"])


def _slide(slide: Any) -> Iterator[str]:
    title = slide.shapes.title
    if title is not None and title.has_text_frame and title.text_frame.text.strip():
        yield f"# {' '.join(title.text_frame.text.split())}"
    others = [s for s in slide.shapes if title is None or s.shape_id != title.shape_id]
    for shape in _in_order(others):
        yield from _shape(shape, 0)
    yield from _diagrams(slide)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        notes = slide.notes_slide.notes_text_frame.text.strip()
        yield f"Notes: {notes}" if notes else ""


def _in_order(shapes: Iterable[Any]) -> list[Any]:
    """Sort shapes as one reads: from the top, and from the left where they stand side by side."""
    return sorted(shapes, key=lambda shape: ((shape.top or 0) // _LINE_EMU, shape.left or 0))


def _shape(shape: Any, depth: int) -> Iterator[str]:
    if depth < _MOST_DEPTH and hasattr(shape, "shapes"):
        for inner in _in_order(shape.shapes):
            yield from _shape(inner, depth + 1)
    elif getattr(shape, "has_table", False) and shape.has_table:
        yield grid.table([cell.text for cell in row.cells] for row in shape.table.rows)
    elif getattr(shape, "has_chart", False) and shape.has_chart:
        yield from _chart(shape.chart)
    elif shape.has_text_frame:
        yield _paragraphs(shape.text_frame)


def _paragraphs(frame: Any) -> str:
    """Give a box's paragraphs, indented ones as points under the one above."""
    lines = []
    several = sum(1 for paragraph in frame.paragraphs if _said(paragraph)) > 1
    for paragraph in frame.paragraphs:
        text = _said(paragraph)
        if text:
            mark = f"{'  ' * paragraph.level}- " if several else ""
            lines.append(f"{mark}{text}")
    return "\n".join(lines)


def _said(paragraph: Any) -> str:
    return " ".join(paragraph.text.replace("\v", " ").split())


def _chart(chart: Any) -> Iterator[str]:
    """Give a chart's title and its numbers as a table."""
    if chart.has_title and chart.chart_title.has_text_frame:
        yield chart.chart_title.text_frame.text.strip()
    for plot in chart.plots:
        series = list(plot.series)
        rows = [["", *(one.name or "" for one in series)]]
        for index, category in enumerate(plot.categories):
            values = [one.values[index] if index < len(one.values) else None for one in series]
            rows.append([str(category), *("" if v is None else f"{v:g}" for v in values)])
        yield grid.table(rows)


def _diagrams(slide: Any) -> Iterator[str]:
    """Give the texts of diagrams (SmartArt), which lie in parts of their own."""
    from lxml import etree  # type: ignore[import-untyped]

    for relation in slide.part.rels.values():
        if not relation.is_external and relation.reltype.endswith("/diagramData"):
            parser = etree.XMLParser(resolve_entities=False, no_network=True)
            tree = etree.fromstring(relation.target_part.blob, parser)
            texts = [" ".join((one.text or "").split()) for one in tree.iter(_TEXT)]
            yield "\n".join(f"- {text}" for text in texts if text)
