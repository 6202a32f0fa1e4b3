"""Word documents to Markdown: headings, lists, tables, notes, text boxes, headers and footers.

The only module that knows python-docx. The body is walked by ourselves: the library's own
`paragraph.text` leaves out what was inserted with changes tracked, form fields and text boxes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from . import archive, grid
from .kinds import MEDIA_TYPES
from .reader import Document, Unreadable, Wish

_WHAT = "a Word document"
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_BOX = f"{_W}txbxContent"
# Not in the text: what was deleted with changes tracked, how it looks, the second form of a box.
_SKIPPED = frozenset((f"{_W}del", f"{_W}moveFrom", f"{_W}pPr", f"{_W}rPr", _FALLBACK))
_SIGNS = {
    **{f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n"},
    **{f"{_W}noBreakHyphen": "-"},
}
_NUMBERED = re.compile(r"heading (\d)", re.IGNORECASE)
_NOTES = (("footnotes", "footnote"), ("endnotes", "endnote"))


def read(file: BinaryIO, wish: Wish) -> Document:
    """Read it; Word lays out pages only when it shows them, so it is one page.

    Raises:
        Unreadable: it is damaged, protected or no Word document, or the extra is not installed.
    """
    docx = archive.library("docx", _WHAT)
    archive.opened(file, _WHAT)
    file.seek(0)
    try:
        document = docx.Document(file)
        lines = _Lines(_styles(document), wish)
        blocks = [block for block in lines.of(document.element.body) if block]
        notes = _notes(document, lines)
        top, bottom = _margins(document, lines)
        title = (document.core_properties.title or "").strip()
        relations = list(document.part.rels.values())
    except (Unreadable, MemoryError, RecursionError):
        raise
    except Exception as error:  # the library meets broken XML in hundreds of ways
        raise archive.damaged(_WHAT, error) from error
    text = "\n\n".join([*top, *_packed(blocks), *notes, *bottom])
    if not text and any(relation.reltype.endswith("/image") for relation in relations):
        raise Unreadable("has no text: it only shows pictures", archive.AS_PDF)
    return Document((text,), title or lines.title, MEDIA_TYPES["docx"])


@dataclass
class _Lines:
    """Walks a body; remembers the first heading."""

    styles: dict[str, str]
    wish: Wish
    title: str = ""
    _boxes: list[Any] = field(default_factory=list)

    def of(self, parent: Any) -> Iterator[str]:
        """Give each paragraph and table in order, those of containers as well."""
        for child in parent:
            if child.tag == f"{_W}p":
                yield self._paragraph(child)
                boxes, self._boxes = self._boxes, []
                for box in boxes:
                    yield from self.of(box)
            elif child.tag == f"{_W}tbl":
                self.wish.check()
                yield grid.table(
                    self._row(row) for row in child.iter(f"{_W}tr") if _is_of(row, child)
                )
            elif child.tag not in _SKIPPED and isinstance(child.tag, str):
                yield from self.of(child)

    def _paragraph(self, paragraph: Any) -> str:
        text = "".join(self._text(paragraph)).strip()
        if not text:
            return ""
        style = self._style(paragraph)
        level = _level(style)
        if level:
            text = " ".join(text.split())
            self.title = self.title or text
            return f"{'#' * level} {text}"
        if _is_listed(paragraph, style):
            return f"{'  ' * _depth(paragraph)}- {text}"
        return text

    def _text(self, element: Any) -> Iterator[str]:
        for child in element:
            if child.tag in (f"{_W}t", f"{_MATH}t"):
                yield child.text or ""
            elif child.tag in _SIGNS:
                yield _SIGNS[child.tag]
            elif child.tag == _BOX:
                self._boxes.append(child)
            elif child.tag in (f"{_W}footnoteReference", f"{_W}endnoteReference"):
                yield f"[^{child.get(f'{_W}id')}]"
            elif child.tag not in _SKIPPED and isinstance(child.tag, str):
                yield from self._text(child)

    def _row(self, row: Any) -> list[str]:
        """Give a row's cells; one that goes on from the row above is empty."""
        cells: list[str] = []
        for cell in (one for one in row.iter(f"{_W}tc") if _is_of(one, row)):
            merged = cell.find(f"{_W}tcPr/{_W}vMerge")
            goes_on = merged is not None and merged.get(f"{_W}val") != "restart"
            cells.append("" if goes_on else " ".join(self.of(cell)))
            span = cell.find(f"{_W}tcPr/{_W}gridSpan")
            width = span.get(f"{_W}val", "1") if span is not None else "1"
            cells += [""] * (min(int(width), 64) - 1 if width.isdigit() else 0)
        return cells

    def _style(self, paragraph: Any) -> str:
        named = paragraph.find(f"{_W}pPr/{_W}pStyle")
        return self.styles.get(named.get(f"{_W}val"), "") if named is not None else ""


def _styles(document: Any) -> dict[str, str]:
    """Give each paragraph style's name in English, whatever language Word spoke."""
    return {style.style_id: style.name or "" for style in document.styles}


def _level(style: str) -> int:
    found = _NUMBERED.match(style)
    if found:
        return min(6, max(1, int(found[1])))
    return 1 if style.lower() == "title" else 0


def _is_listed(paragraph: Any, style: str) -> bool:
    numbered = paragraph.find(f"{_W}pPr/{_W}numPr")
    return numbered is not None or style.lower().startswith("list ")


def _depth(paragraph: Any) -> int:
    level = paragraph.find(f"{_W}pPr/{_W}numPr/{_W}ilvl")
    value = level.get(f"{_W}val", "0") if level is not None else "0"
    return min(int(value), 8) if value.isdigit() else 0


def _is_of(inner: Any, outer: Any) -> bool:
    """Tell whether `inner` stands in `outer` itself, not in a table within it."""
    above = inner.getparent()
    while above is not outer:
        if above.tag in (f"{_W}tbl", f"{_W}tc"):
            return False
        above = above.getparent()
    return True


def _packed(blocks: list[str]) -> Iterator[str]:
    """Keep the points of a list together: they are one paragraph of Markdown."""
    points: list[str] = []
    for block in blocks:
        if block.lstrip().startswith("- "):
            points.append(block)
            continue
        if points:
            yield "\n".join(points)
            points = []
        yield block
    if points:
        yield "\n".join(points)


def _notes(document: Any, lines: _Lines) -> list[str]:
    """Give the notes at the end, with the marks that stand in the text."""
    from lxml import etree  # type: ignore[import-untyped]

    found: list[str] = []
    for kind, name in _NOTES:
        for relation in document.part.rels.values():
            if relation.is_external or not relation.reltype.endswith(f"/{kind}"):
                continue
            parser = etree.XMLParser(resolve_entities=False, no_network=True)
            for note in etree.fromstring(relation.target_part.blob, parser).iter(f"{_W}{name}"):
                text = " ".join(block for block in lines.of(note) if block)
                if text:
                    found.append(f"[^{note.get(f'{_W}id')}]: {text}")
    return found


def _margins(document: Any, lines: _Lines) -> tuple[list[str], list[str]]:
    """Give what stands over and under the pages, each text once: a sender is often there alone."""
    top: dict[str, None] = {}
    bottom: dict[str, None] = {}
    for section in document.sections:
        for margin, texts in ((section.header, top), (section.footer, bottom)):
            if not margin.is_linked_to_previous:
                texts.update(dict.fromkeys(block for block in lines.of(margin._element) if block))
        if section.different_first_page_header_footer:
            for margin, texts in (
                (section.first_page_header, top), (section.first_page_footer, bottom),
            ):  # fmt: skip
                if not margin.is_linked_to_previous:
                    texts.update(dict.fromkeys(b for b in lines.of(margin._element) if b))
    return list(top), list(bottom)
