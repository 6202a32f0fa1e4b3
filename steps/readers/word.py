"""Word documents to Markdown: headings, lists, tables, notes, text boxes, headers and footers.

The body is walked here, since python-docx's `paragraph.text` leaves out tracked insertions, form
fields and text boxes. Text that tracked changes have deleted, and what is embedded, is noted and
not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from paddock.engine.system.text import counted

from .document_kinds import MEDIA_TYPES
from .formulas import MATH_NS, omml_text
from .hidden_text_notes import hidden_text_note
from .office import (
    DRAWING_NS,
    DRAWN_RUN,
    OFF,
    WORD_DOCUMENT,
    damage_errors,
    described,
    drawn_texts,
    embedded_notes,
    import_library,
    markdown_table,
    open_archive,
    part_tree,
    refuse_only_pictures,
)
from .office_archives import load_archive
from .reader import Document, ReadRequest, text_sample

_WORD_NS = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_TEXT_BOX = f"{_WORD_NS}txbxContent"
# Not text: what was moved away, formatting.
_SKIPPED_TAGS = frozenset((f"{_WORD_NS}moveFrom", f"{_WORD_NS}pPr", f"{_WORD_NS}rPr"))
_PICTURE = "{http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing}docPr"

_VML_NS = "{urn:schemas-microsoft-com:vml}"

_SYMBOLS = {
    "wingdings": {0x6F: "[ ]", 0xA8: "[ ]", 0xFD: "[x]", 0xFE: "[x]", 0xFB: "✗", 0xFC: "✓"},
    "wingdings 2": {0xA3: "[ ]", 0x52: "[x]", 0x53: "[x]", 0x4F: "✗", 0x50: "✓"},
    "symbol": dict(zip(range(0x61, 0x7B), "αβχδεφγηιϕκλμνοπθρστυϖωξψζ", strict=True))
    | {0x44: "Δ", 0x53: "Σ", 0x57: "Ω", 0xA3: "≤", 0xB0: "°", 0xB1: "±", 0xB3: "≥", 0xB4: "\u00d7"}
    | {0xB7: "•", 0xB9: "≠", 0xBB: "≈", 0xA5: "∞"},
}
"""What fonts of symbols show in place of their characters."""
_NUMBERED = re.compile(r"heading (\d)", re.IGNORECASE)
_NOTES = (("footnotes", "footnote", ""), ("endnotes", "endnote", ""), ("comments", "comment", "c"))
"""Kind of part, its elements, and what stands before their numbers."""


def read_docx(file: BinaryIO, request: ReadRequest) -> Document:
    """Read it as one page: the file has no page breaks of the layout."""
    docx = import_library("docx", WORD_DOCUMENT)
    archive = open_archive(file, WORD_DOCUMENT)
    with (
        damage_errors(WORD_DOCUMENT),
        load_archive(docx.Document, file, archive) as (document, _, damage),
    ):
        lines = _DocxLines.of_document(document, request)
        blocks = [block for block in lines.of(document.element.body) if block]
        notes = _docx_notes(document, lines)
        top, bottom = _headers_and_footers(document, lines)
        title = (document.core_properties.title or "").strip()
        relations = [r for r in document.part.rels.values() if not r.is_external]
        drawn = [text for relation in relations for text in drawn_texts(relation) if text]
    text = "\n\n".join([*top, *_joined_blocks(blocks), *drawn, *notes, *bottom])
    kinds = [relation.reltype for relation in document.part.rels.values()]
    refuse_only_pictures(text, kinds)
    hidden = hidden_text_note("the document", lines.hidden)
    losses = (*damage, *hidden, *embedded_notes(kinds), *lines.unread_notes())
    return Document((text,), title or lines.title, MEDIA_TYPES["docx"], losses)


_LIGHT = re.compile("(?:[Ff][0-9A-Fa-f]){3}")
_WHITE_THEMES = ("background1", "bg1", "light1", "lt1")
_TINY_HALF_POINTS = 4  # two points
_FILLED = (f"{_WORD_NS}shd", f"{_WORD_NS}highlight", f"{DRAWING_NS}solidFill")


def _is_white(element: Any) -> bool:
    """Return whether an element's colour is that of paper."""
    theme = element.get(f"{_WORD_NS}themeColor")
    if theme is not None:
        dark = (element.get(f"{_WORD_NS}themeShade"), element.get(f"{_WORD_NS}themeTint"))
        return theme in _WHITE_THEMES and dark == (None, None)
    written = element.get(f"{_WORD_NS}val") or element.get(f"{_WORD_NS}color") or ""
    return bool(_LIGHT.fullmatch(written))


def _fills(element: Any) -> bool:
    """Return whether an element, or one within its format, has a colour behind its text."""
    fields = (inner for name in _FILLED for inner in element.iter(name))
    fills = (f.get(f"{_WORD_NS}fill", "" if f.tag == _FILLED[0] else "dark") for f in fields)
    return any(fill not in ("", "auto") and not _LIGHT.fullmatch(fill) for fill in fills)


@dataclass(frozen=True, slots=True)
class _Paper:
    """Which white or tiny text of a document's white pages no one sees."""

    white_styles: frozenset[str]
    filled_styles: frozenset[str]

    @classmethod
    def of(cls, document: Any) -> _Paper:
        white, filled = set[str](), set[str]()
        for style in document.styles:
            colour = style.element.find(f"{_WORD_NS}rPr/{_WORD_NS}color")
            if colour is not None and _is_white(colour):
                white.add(style.style_id)
            if _fills(style.element):
                filled.add(style.style_id)
        return cls(frozenset(white), frozenset(filled))

    def hides(self, run: Any) -> bool:
        """Return whether a run is white on white, or tiny."""
        form = run.find(f"{_WORD_NS}rPr")
        if (size := _value_of(form, "sz")).isdecimal() and int(size) <= _TINY_HALF_POINTS:
            return True
        colour = None if form is None else form.find(f"{_WORD_NS}color")
        if colour is None and not self.white_styles:
            return False
        paragraph = next(run.iterancestors(f"{_WORD_NS}p"), run)
        styles = {_value_of(form, "rStyle"), _value_of(paragraph.find(f"{_WORD_NS}pPr"), "pStyle")}
        is_white = bool(styles & self.white_styles) if colour is None else _is_white(colour)
        return is_white and not self._is_on_field(run, form, styles)

    def _is_on_field(self, run: Any, form: Any, styles: set[str]) -> bool:
        if styles & self.filled_styles or (form is not None and _fills(form)):
            return True
        for around in run.iterancestors():
            if around.tag.endswith(("}wsp", "}shape", "}rect")):  # a text box: its fill is unknown
                return _fills(around) or around.get("fillcolor") is not None
            for name in ("pPr", "tcPr", "tblPr"):
                found = around.find(f"{_WORD_NS}{name}")
                if found is not None and (
                    _fills(found) or _value_of(found, "tblStyle") in self.filled_styles
                ):
                    return True
        return False


def _value_of(form: Any, name: str) -> str:
    """Return a value within an element's format; empty where there is none."""
    found = None if form is None else form.find(f"{_WORD_NS}{name}")
    return "" if found is None else found.get(f"{_WORD_NS}val", "")


@dataclass
class _DocxLines:
    """Converts a body to lines; remembers the first heading."""

    styles: dict[str, str]
    """The English name of each paragraph style."""
    request: ReadRequest
    hiding_styles: frozenset[str] = frozenset()
    """The identifiers of styles whose text is not shown."""
    paper: _Paper | None = None
    """Where white text is seen; None: everywhere, since the pages have a colour."""
    title: str = ""
    hidden: list[str] = field(default_factory=list)
    """Texts that the document does not show."""
    deleted: list[str] = field(default_factory=list)
    """Texts that tracked changes have deleted."""
    n_symbols: int = 0
    """Unknown characters of symbol fonts."""
    _boxes: list[Any] = field(default_factory=list)

    @classmethod
    def of_document(cls, document: Any, request: ReadRequest) -> _DocxLines:
        styles = {style.style_id: style.name or "" for style in document.styles}
        vanish = f"{_WORD_NS}rPr/{_WORD_NS}vanish"
        hiding = (s.style_id for s in document.styles if s.element.find(vanish) is not None)
        page = document.element.find(f"{_WORD_NS}background")
        paper = _Paper.of(document) if page is None or _is_white(page) else None
        return cls(styles, request, frozenset(hiding), paper)

    def unread_notes(self) -> Iterator[str]:
        if self.deleted:
            yield f": text that was deleted is not read ({text_sample(self.deleted)})"
        if self.n_symbols:
            yield f": {counted(self.n_symbols, 'symbol')} of special fonts cannot be read"

    def of(self, parent: Any) -> Iterator[str]:
        """Yield each paragraph and table in order, also in containers."""
        for child in parent:
            if child.tag == f"{_WORD_NS}p":
                yield self._paragraph(child)
                boxes, self._boxes = self._boxes, []
                for box in boxes:
                    yield from self.of(box)
            elif child.tag == f"{_WORD_NS}tbl":
                self.request.check()
                form = child.find(f"{_WORD_NS}tblPr")
                yield " ".join(filter(None, (_value_of(form, name) for name in _TABLE_TEXTS)))
                yield markdown_table(
                    self._row(row) for row in child.iter(f"{_WORD_NS}tr") if _is_inside(row, child)
                )
            elif _has_text(child):
                yield from self.of(child)

    def _paragraph(self, paragraph: Any) -> str:
        text = "".join(self._text(paragraph)).strip()
        if not text:
            return ""
        named = _value_of(paragraph.find(f"{_WORD_NS}pPr"), "pStyle")
        style = self.styles.get(named, "")
        self.hidden += [text] if named in self.hiding_styles else []
        level = _heading_level(style)
        if level:
            text = " ".join(text.split())
            self.title = self.title or text
            return f"{'#' * level} {text}"
        numbered = paragraph.find(f"{_WORD_NS}pPr/{_WORD_NS}numPr")
        is_listed = numbered is not None or style.lower().startswith("list ")
        if is_listed:
            return f"{'  ' * _list_depth(paragraph)}- {text}"
        return text

    def _text(self, parts: Iterable[Any]) -> Iterator[str]:
        for child in parts:
            if child.tag in _SHOWN_TAGS:
                yield _SHOWN_TAGS[child.tag](child)
            elif child.tag == _TEXT_BOX:
                self._boxes.append(child)
            elif child.tag == f"{_WORD_NS}del":
                texts = map(_own_text, child.iter(f"{_WORD_NS}delText", f"{_WORD_NS}t"))
                self.deleted += filter(None, texts)
            elif child.tag == f"{MATH_NS}oMath":
                yield omml_text(child, lambda part: "".join(self._text([part])))
            elif child.tag == f"{_WORD_NS}sym":
                yield self._symbol(child)
            elif child.tag == f"{_WORD_NS}r" and self._is_hidden(child):
                shown = list(self._text(child))
                self.hidden += [text for text in shown if text.strip()]
                yield from shown
            elif _has_text(child):
                yield from self._text(child)

    def _symbol(self, element: Any) -> str:
        code = int(element.get(f"{_WORD_NS}char", "0"), 16)
        if not 0xE000 <= code < 0xF900:  # in the area of private characters the font decides
            return chr(code)
        font = element.get(f"{_WORD_NS}font", "").lower()
        shown = _SYMBOLS.get(font, {}).get(code & 0xFF, "")
        self.n_symbols += not shown
        return shown

    def _is_hidden(self, run: Any) -> bool:
        """Return whether a run's own format or the style that it names hides it."""
        vanish = run.find(f"{_WORD_NS}rPr/{_WORD_NS}vanish")
        if vanish is not None and _is_on(vanish):
            return True
        if self.paper is not None and self.paper.hides(run):
            return True
        named = run.find(f"{_WORD_NS}rPr/{_WORD_NS}rStyle")
        return (
            vanish is None
            and named is not None
            and named.get(f"{_WORD_NS}val") in self.hiding_styles
        )

    def _row(self, row: Any) -> list[str]:
        """Return a row's cells; of one that is merged with the row above no text is shown."""
        cells: list[str] = []
        for cell in (inner for inner in row.iter(f"{_WORD_NS}tc") if _is_inside(inner, row)):
            merged = cell.find(f"{_WORD_NS}tcPr/{_WORD_NS}vMerge")
            goes_on = merged is not None and merged.get(f"{_WORD_NS}val") != "restart"
            text = " ".join(self.of(cell)).strip()
            self.hidden += [text] if goes_on and text else []
            cells.append(text)
            span = cell.find(f"{_WORD_NS}tcPr/{_WORD_NS}gridSpan")
            width = span.get(f"{_WORD_NS}val", "1") if span is not None else "1"
            cells += [""] * (min(int(width), 64) - 1 if width.isdigit() else 0)
        return cells


_TABLE_TEXTS = ("tblCaption", "tblDescription")
"""The alternative text of a table: its title, and the rest."""


def _has_text(element: Any) -> bool:
    """Return whether an element may hold text; a fallback does where there is nothing else."""
    if element.tag == _FALLBACK:
        return not any(s.tag.endswith("}Choice") for s in element.itersiblings(preceding=True))
    return isinstance(element.tag, str) and element.tag not in _SKIPPED_TAGS


def _own_text(element: Any) -> str:
    return element.text or ""


def _note_mark(reference: Any) -> str:
    return f"[^{reference.get(f'{_WORD_NS}id')}]"


def _is_on(switch: Any) -> bool:
    return switch.get(f"{_WORD_NS}val", "1") not in OFF


def _check_box(box: Any) -> str:
    switch = box.find(f"{_WORD_NS}checked")
    switch = box.find(f"{_WORD_NS}default") if switch is None else switch
    return "[x] " if switch is not None and _is_on(switch) else "[ ] "


def _chosen_entry(choice: Any) -> str:
    entries = choice.findall(f"{_WORD_NS}listEntry")
    result = choice.find(f"{_WORD_NS}result")
    index = int(result.get(f"{_WORD_NS}val", "0")) if result is not None else 0
    return entries[index].get(f"{_WORD_NS}val", "") if index < len(entries) else ""


_SHOWN_TAGS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys((f"{_WORD_NS}t", f"{MATH_NS}t", DRAWN_RUN), _own_text),
    f"{_WORD_NS}tab": lambda _: "\t",
    **dict.fromkeys((f"{_WORD_NS}br", f"{_WORD_NS}cr"), lambda _: "\n"),
    f"{_WORD_NS}noBreakHyphen": lambda _: "-",
    **dict.fromkeys((f"{_WORD_NS}footnoteReference", f"{_WORD_NS}endnoteReference"), _note_mark),
    f"{_WORD_NS}commentReference": lambda comment: f"[^c{comment.get(f'{_WORD_NS}id')}]",
    f"{_WORD_NS}checkBox": _check_box,
    f"{_WORD_NS}ddList": _chosen_entry,
    _PICTURE: described,
    f"{_VML_NS}imagedata": lambda picture: described(picture.getparent(), "alt"),
    f"{_VML_NS}textpath": lambda watermark: watermark.get("string", ""),
}
"""Elements that are shown as text: by their own, or by their attributes."""


def _heading_level(style: str) -> int:
    found = _NUMBERED.match(style)
    if found:
        return min(6, max(1, int(found[1])))
    return 1 if style.lower() == "title" else 0


def _list_depth(paragraph: Any) -> int:
    level = paragraph.find(f"{_WORD_NS}pPr/{_WORD_NS}numPr/{_WORD_NS}ilvl")
    value = level.get(f"{_WORD_NS}val", "0") if level is not None else "0"
    return min(int(value), 8) if value.isdigit() else 0


def _is_inside(inner: Any, outer: Any) -> bool:
    """Return whether `inner` is directly in `outer`, not in a nested table."""
    above = inner.getparent()
    while above is not outer:
        if above.tag in (f"{_WORD_NS}tbl", f"{_WORD_NS}tc"):
            return False
        above = above.getparent()
    return True


def _joined_blocks(blocks: list[str]) -> Iterator[str]:
    """Join list items to one paragraph of Markdown."""
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


def _docx_notes(document: Any, lines: _DocxLines) -> list[str]:
    """Return footnotes, end notes and comments with their marks."""
    found: list[str] = []
    for kind, name, mark in _NOTES:
        for relation in document.part.rels.values():
            if relation.is_external or not relation.reltype.endswith(f"/{kind}"):
                continue
            for note in part_tree(relation).iter(f"{_WORD_NS}{name}"):
                text = " ".join(block for block in lines.of(note) if block)
                author = note.get(f"{_WORD_NS}author", "")
                if text:
                    note_text = f"{author}: {text}" if author else text
                    found.append(f"[^{mark}{note.get(f'{_WORD_NS}id')}]: {note_text}")
    return found


def _headers_and_footers(document: Any, lines: _DocxLines) -> tuple[list[str], list[str]]:
    """Return headers and footers, each text once: a sender is often only there."""
    top: dict[str, None] = {}
    bottom: dict[str, None] = {}
    for section in document.sections:
        margins = [(section.header, top), (section.footer, bottom)]
        if section.different_first_page_header_footer:
            margins += [(section.first_page_header, top), (section.first_page_footer, bottom)]
        if document.settings.odd_and_even_pages_header_footer:
            margins += [(section.even_page_header, top), (section.even_page_footer, bottom)]
        for margin, texts in margins:
            with suppress(KeyError):  # a part that is missing, or a reference that names none
                if not margin.is_linked_to_previous:
                    texts.update(dict.fromkeys(filter(None, lines.of(margin._element))))
    return list(top), list(bottom)
