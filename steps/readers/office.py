"""Word and PowerPoint documents to Markdown: both are zip archives of XML.

An archive is checked before anything is unpacked: number and size of its entries, encryption. The
libraries are imported when a document needs them.

Word: headings, lists, tables, notes, text boxes, headers and footers. The body is walked here,
since python-docx's `paragraph.text` leaves out tracked insertions, form fields and text boxes.
PowerPoint: a slide is a page, with tables, charts, comments and the speaker's notes. Text that
tracked changes have deleted, and what is embedded, is noted and not read.
"""

from __future__ import annotations

import importlib
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import zip_longest
from typing import Any, BinaryIO
from xml.etree import ElementTree

from paddock.engine.system.text import counted

from .reader import (
    MEDIA_TYPES,
    Document,
    ReadRequest,
    Unreadable,
    hidden_text_note,
    text_sample,
)

# Of a whole document, unpacked; a bomb of 40 KB has gigabytes.
MOST_UNPACKED_BYTES = 512 * 1024 * 1024
# Of its markup: read whole, it takes up to 16 times as much memory (100 MB of paragraphs 1.6 GB).
MOST_MARKUP_BYTES = 64 * 1024 * 1024
_MARKUP = (".xml", ".rels", ".opf", ".ncx", ".xhtml", ".html", ".htm")
SAVE_AS_PDF = "Save it as PDF, whose pictures are read with the extra 'paddock-llm[ocr]'."
_XML_BOMBS = {
    "amplification factor": "has entities that unfold to far more than the file holds",
    "Excessive depth": "is nested too deeply",
}
_MOST_ENTRIES = 20_000
_INFLATE_BYTES = 1024 * 1024
_ENCRYPTED = 0x1


def open_archive(file: BinaryIO, what: str, streamed: tuple[str, ...] = ()) -> zipfile.ZipFile:
    """Open an archive after checking number, size and encryption of its entries.

    `what` names the kind in errors: "a Word document"; `streamed` are name prefixes of markup that
    is never read whole. Declared sizes are enough: Python inflates in pieces and stops at that
    size.
    """
    # Otherwise a whole entry would be inflated before it is cut to its declared size.
    zipfile.ZipExtFile.MAX_N = _INFLATE_BYTES
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise Unreadable(f"is damaged or not {what}") from error
    entries = archive.infolist()
    _refuse_large(entries, "", MOST_UNPACKED_BYTES)
    markup = [
        one
        for one in entries
        if one.filename.lower().endswith(_MARKUP) and not one.filename.startswith(streamed)
    ]
    _refuse_large(markup, " of markup", MOST_MARKUP_BYTES)
    if len(entries) > _MOST_ENTRIES:
        raise Unreadable(f"is an archive of {len(entries):,} parts, too many for a document")
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise Unreadable("is protected by a password", "Save it without a password.")
    return archive


def _refuse_large(entries: Iterable[zipfile.ZipInfo], of_what: str, most: int) -> None:
    size = sum(entry.file_size for entry in entries)
    if size > most:
        raise Unreadable(
            f"unpacks to {size // 1024**2:,} MiB{of_what}, but at most {most // 1024**2} MiB are "
            f"read"
        )


def import_library(name: str, what: str) -> Any:
    """Import a library of the extra `documents`.

    Raises:
        Unreadable: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Unreadable(
            f"is {what}", "To read it install the extra: pip install 'paddock-llm[documents]'."
        ) from error


@contextmanager
def damage_errors(what: str) -> Iterator[None]:
    """Convert a library's error to an Unreadable."""
    try:
        yield
    except (Unreadable, MemoryError, RecursionError):
        raise
    except Exception as error:  # archives and broken XML fail in many ways
        for word, meant in _XML_BOMBS.items():
            if word in str(error):
                raise Unreadable(f"is not read: its XML {meant}") from error
        words = " ".join(str(error).split()).replace(" ,", ",")[:120]
        why = f"is damaged or not {what} ({type(error).__name__}: {words})"
        raise Unreadable(why) from error


_EMBEDDED = frozenset(
    (
        *("oleObject", "package", "video", "audio", "media", "control", "ctrlProp"),
        *("aFChunk", "subDocument", "chartEx"),
    )
)
"""Kinds of parts that are not read: files, films, sounds, controls, other documents, new charts."""


def embedded_notes(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return the note on embedded parts, by the types of their relations."""
    n = sum(kind.rpartition("/")[2] in _EMBEDDED for kind in kinds)
    what = counted(n, "embedded file, film or control is", "embedded files, films or controls are")
    return (f": {what} not read",) if n else ()


def described(element: Any, name: str = "descr") -> str:
    """Return the alternative text of a picture, as it is written in Markdown."""
    text = " ".join((element.get(name) or element.get("title", "")).split())
    return f"![{text}]" if text else ""


MOST_WHOLE = 1e21  # identifiers have up to 20 digits; larger numbers are measured ones


def number_text(value: float) -> str:
    """Return all digits of a number.

    >>> number_text(3.0), number_text(1.2e16), number_text(0.1)
    ('3', '12000000000000000', '0.1')
    """
    is_whole = value.is_integer() and abs(value) < MOST_WHOLE
    return f"{Decimal(repr(value)):.0f}" if is_whole else repr(value)


def text_of(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _part_tree(relation: Any) -> Any:
    etree = import_library("lxml.etree", _WORD_DOCUMENT)
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    return etree.fromstring(relation.target_part.blob, parser)


def markdown_table(rows: Iterable[Sequence[str]]) -> str:
    r"""Return rows as a table, the first as header, without empty columns and rows.

    >>> print(markdown_table([["Item", "Price"], ["Slates\nred", "5|6"]]))
    | Item | Price |
    | --- | --- |
    | Slates red | 5\|6 |
    """
    kept = (row for row in rows if any(map(str.strip, row)))
    columns = [c for c in zip_longest(*kept, fillvalue="") if any(map(str.strip, c))]
    lines = list(map(_markdown_row, zip(*columns, strict=True)))
    rule = _markdown_row("---" for _ in columns)
    return "\n".join([lines[0], rule, *lines[1:]]) if lines else ""


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_markdown_cell(cell) for cell in cells)} |"


def _markdown_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


_WORD_DOCUMENT = "a Word document"
_WORD_NS = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_MATH_NS = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_TEXT_BOX = f"{_WORD_NS}txbxContent"
# Not text: what was moved away, formatting.
_SKIPPED_TAGS = frozenset((f"{_WORD_NS}moveFrom", f"{_WORD_NS}pPr", f"{_WORD_NS}rPr"))
_PICTURE = "{http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing}docPr"
_DRAWING_NS = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_DRAWN_RUN = f"{_DRAWING_NS}t"
_VML_NS = "{urn:schemas-microsoft-com:vml}"
_OFF = ("0", "false", "off")
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


def read_docx(file: BinaryIO, wish: ReadRequest) -> Document:
    """Read it as one page: the file has no page breaks of the layout."""
    docx = import_library("docx", _WORD_DOCUMENT)
    open_archive(file, _WORD_DOCUMENT)
    file.seek(0)
    with damage_errors(_WORD_DOCUMENT):
        document = docx.Document(file)
        lines = _DocxLines.of_document(document, wish)
        blocks = [block for block in lines.of(document.element.body) if block]
        notes = _docx_notes(document, lines)
        top, bottom = _headers_and_footers(document, lines)
        title = (document.core_properties.title or "").strip()
        relations = [one for one in document.part.rels.values() if not one.is_external]
        drawn = [text for one in relations for text in _drawn_texts(one) if text]
    text = "\n\n".join([*top, *_joined_blocks(blocks), *drawn, *notes, *bottom])
    kinds = [one.reltype for one in document.part.rels.values()]
    _refuse_only_pictures(text, kinds)
    hidden = hidden_text_note("the document", lines.hidden)
    losses = (*hidden, *embedded_notes(kinds), *lines.unread_notes())
    return Document((text,), title or lines.title, MEDIA_TYPES["docx"], losses)


def _refuse_only_pictures(text: str, kinds: Iterable[str]) -> None:
    """Raise for a document without text that has pictures, by the types of its relations."""
    if not text and any(kind.endswith("/image") for kind in kinds):
        raise Unreadable("has no text, only pictures", SAVE_AS_PDF)


_LIGHT = re.compile("(?:[Ff][0-9A-Fa-f]){3}")
_WHITE_THEMES = ("background1", "bg1", "light1", "lt1")
_TINY_HALF_POINTS = 4  # two points
_FILLED = (f"{_WORD_NS}shd", f"{_WORD_NS}highlight", f"{_DRAWING_NS}solidFill")


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
    fields = (one for name in _FILLED for one in element.iter(name))
    fills = (one.get(f"{_WORD_NS}fill", "" if one.tag == _FILLED[0] else "dark") for one in fields)
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
    wish: ReadRequest
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
    def of_document(cls, document: Any, wish: ReadRequest) -> _DocxLines:
        styles = {style.style_id: style.name or "" for style in document.styles}
        vanish = f"{_WORD_NS}rPr/{_WORD_NS}vanish"
        hiding = (one.style_id for one in document.styles if one.element.find(vanish) is not None)
        page = document.element.find(f"{_WORD_NS}background")
        paper = _Paper.of(document) if page is None or _is_white(page) else None
        return cls(styles, wish, frozenset(hiding), paper)

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
                self.wish.check()
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
        if _is_listed(paragraph, style):
            return f"{'  ' * _list_depth(paragraph)}- {text}"
        return text

    def _text(self, element: Any) -> Iterator[str]:
        for child in element:
            if child.tag in _SHOWN_TAGS:
                yield _SHOWN_TAGS[child.tag](child)
            elif child.tag == _TEXT_BOX:
                self._boxes.append(child)
            elif child.tag == f"{_WORD_NS}del":
                texts = map(_own_text, child.iter(f"{_WORD_NS}delText", f"{_WORD_NS}t"))
                self.deleted += filter(None, texts)
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
        for cell in (one for one in row.iter(f"{_WORD_NS}tc") if _is_inside(one, row)):
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
        return not any(one.tag.endswith("}Choice") for one in element.itersiblings(preceding=True))
    return isinstance(element.tag, str) and element.tag not in _SKIPPED_TAGS


def _own_text(element: Any) -> str:
    return element.text or ""


def _note_mark(reference: Any) -> str:
    return f"[^{reference.get(f'{_WORD_NS}id')}]"


def _is_on(switch: Any) -> bool:
    return switch.get(f"{_WORD_NS}val", "1") not in _OFF


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
    **dict.fromkeys((f"{_WORD_NS}t", f"{_MATH_NS}t", _DRAWN_RUN), _own_text),
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


def _is_listed(paragraph: Any, style: str) -> bool:
    numbered = paragraph.find(f"{_WORD_NS}pPr/{_WORD_NS}numPr")
    return numbered is not None or style.lower().startswith("list ")


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
            for note in _part_tree(relation).iter(f"{_WORD_NS}{name}"):
                text = " ".join(block for block in lines.of(note) if block)
                author = note.get(f"{_WORD_NS}author", "")
                if text:
                    said = f"{author}: {text}" if author else text
                    found.append(f"[^{mark}{note.get(f'{_WORD_NS}id')}]: {said}")
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
            if not margin.is_linked_to_previous:
                texts.update(dict.fromkeys(block for block in lines.of(margin._element) if block))
    return list(top), list(bottom)


_PRESENTATION = "a presentation"
DRAWN_TEXT = f"{_DRAWING_NS}p"
_MOST_GROUP_DEPTH = 20
_LINE_EMU = 200_000  # shapes whose tops differ by less than half a centimetre are in one row


def read_pptx(file: BinaryIO, wish: ReadRequest) -> Document:
    pptx = import_library("pptx", _PRESENTATION)
    open_archive(file, _PRESENTATION)
    file.seek(0)
    with damage_errors(_PRESENTATION):
        presentation = pptx.Presentation(file)
        authors = _comment_authors(presentation)
        pages: list[str] = []
        hidden: list[str] = []
        kinds: list[str] = []
        repeated: set[str] = set()
        for slide in presentation.slides:
            wish.check()
            blocks = [*_slide_blocks(slide, hidden), _slide_comments(slide, authors)]
            repeated_here = dict.fromkeys(_layout_blocks(slide, hidden))
            blocks += [text for text in repeated_here if text not in repeated]
            repeated.update(repeated_here)
            pages.append("\n\n".join(filter(None, blocks)))
            kinds += [one.reltype for one in slide.part.rels.values()]
        numbered = enumerate(presentation.slides, 1)
        slides = [str(n) for n, slide in numbered if slide._element.get("show") in _OFF]
        title = (presentation.core_properties.title or "").strip()
    _refuse_only_pictures("".join(pages), kinds)
    if title.lower() == "powerpoint presentation":
        title = ""  # the program's default title
    notes = [f": hidden slides are read as well ({', '.join(slides)})"] if slides else []
    notes += [*hidden_text_note("the slide", hidden), *embedded_notes(kinds)]
    return Document(tuple(pages), title, MEDIA_TYPES["pptx"], tuple(notes))


def _slide_blocks(slide: Any, hidden: list[str]) -> Iterator[str]:
    """Yield a slide's texts; those of shapes that it does not show go to `hidden` as well."""
    title = slide.shapes.title
    if title is not None and title.has_text_frame:
        text = _paragraph_text(title.text_frame)
        yield f"# {text}" if text else ""
    title_id = getattr(title, "shape_id", None)
    size = slide.part.package.presentation_part.presentation
    for shape in _in_reading_order(s for s in slide.shapes if s.shape_id != title_id):
        blocks = list(filter(None, _shape_blocks(shape, 0, hidden)))
        hidden += blocks if _is_beside(shape, size) else ()
        yield from blocks
    for chosen in slide._element.iter(_CHOICE):  # newer shapes, such as formulas
        yield "\n".join(filter(None, map(text_of, chosen.iter(DRAWN_TEXT))))
    for relation in slide.part.rels.values():
        if not relation.is_external and relation.reltype.endswith("/diagramData"):
            yield from _drawn_texts(relation)
    yield _speaker_notes(slide)


def _layout_blocks(slide: Any, hidden: list[str]) -> Iterator[str]:
    """Yield what a slide shows of its layout and master: all but the places for its own text."""
    owner = slide
    for kind, name in (("/slideLayout", "slide_layout"), ("/slideMaster", "slide_master")):
        if owner._element.get("showMasterSp") in _OFF:
            return
        relations = [one for one in owner.part.rels.values() if one.reltype.endswith(kind)]
        parts = [one.target_part for one in relations if not one.is_external]
        if not parts or not hasattr(parts[0], name):  # some programs write none
            return
        owner = getattr(parts[0], name)
        if owner._element.find("{*}cSld/{*}spTree") is None:
            continue
        for shape in _in_reading_order(s for s in owner.shapes if not s.is_placeholder):
            yield from filter(None, _shape_blocks(shape, 0, hidden))


def _speaker_notes(slide: Any) -> str:
    if not slide.has_notes_slide:
        return ""
    page = slide.notes_slide
    boxes = [s.text_frame for s in page.shapes if s.has_text_frame and not s.is_placeholder]
    frames = filter(None, (page.notes_text_frame, *boxes))
    notes = "\n".join(filter(None, (frame.text.strip() for frame in frames)))
    return f"Notes: {notes}" if notes else ""


def _properties(shape: Any) -> Any:
    """Return the element with a shape's alternative text and whether it is hidden."""
    return next(shape._element.iter("{*}cNvPr"), {})


def _comment_authors(presentation: Any) -> dict[str, str]:
    """Return the names of those who wrote comments, by their numbers."""
    return {
        author.get("id", ""): author.get("name", "")
        for relation in presentation.part.rels.values()
        if relation.reltype.endswith(("/commentAuthors", "/authors"))
        for author in _part_tree(relation)
    }


def _slide_comments(slide: Any, authors: dict[str, str]) -> str:
    lines = ["Comments:"]
    for relation in slide.part.rels.values():
        if not relation.is_external and relation.reltype.endswith("/comments"):
            for one in _part_tree(relation).iter("{*}cm", "{*}reply"):
                said = one.find("{*}txBody")
                said = one.find("{*}text") if said is None else said
                text = text_of(said) if said is not None else ""
                author = authors.get(one.get("authorId", ""), "")
                lines += [f"- {text} ({author})" if author else f"- {text}"] if text else []
    return "\n".join(lines) if len(lines) > 1 else ""


def _in_reading_order(shapes: Iterable[Any]) -> list[Any]:
    """Sort shapes in reading order: from top to bottom, in a row from left to right."""
    return sorted(shapes, key=_place)


def _place(shape: Any) -> tuple[int, int]:
    with suppress(Exception):  # damaged in many ways, or that of a layout which is missing
        return (shape.top or 0) // _LINE_EMU, shape.left or 0
    return 0, 0


def _is_beside(shape: Any, size: Any) -> bool:
    """Return whether a shape lies beside its slide, as a whole."""
    with suppress(Exception):  # as above
        left, top = shape.left, shape.top
        is_before = left + shape.width <= 0 or top + shape.height <= 0
        return bool(is_before or left >= size.slide_width or top >= size.slide_height)
    return False


def _shape_blocks(shape: Any, depth: int, hidden: list[str]) -> Iterator[str]:
    """Yield a shape's texts; those that the slide does not show go to `hidden` as well."""
    if _properties(shape).get("hidden") in ("1", "true"):
        blocks = list(_shown_blocks(shape, depth, []))
        hidden += filter(None, blocks)
        yield from blocks
    else:
        yield from _shown_blocks(shape, depth, hidden)


def _shown_blocks(shape: Any, depth: int, hidden: list[str]) -> Iterator[str]:
    if depth < _MOST_GROUP_DEPTH and hasattr(shape, "shapes"):
        for inner in _in_reading_order(shape.shapes):
            yield from _shape_blocks(inner, depth + 1, hidden)
    elif getattr(shape, "has_table", False) and shape.has_table:
        yield markdown_table([cell.text for cell in row.cells] for row in shape.table.rows)
    elif getattr(shape, "has_chart", False) and shape.has_chart:
        with suppress(KeyError):  # the chart itself is missing
            yield from _chart_blocks(shape.chart._chartSpace)
    elif shape.has_text_frame:
        yield _frame_text(shape.text_frame)
    if not hasattr(shape, "shapes"):
        yield described(_properties(shape))


def _frame_text(frame: Any) -> str:
    """Return a box's paragraphs, indented ones as list items."""
    lines = []
    several = sum(1 for paragraph in frame.paragraphs if _paragraph_text(paragraph)) > 1
    for paragraph in frame.paragraphs:
        text = _paragraph_text(paragraph)
        if text:
            mark = f"{'  ' * paragraph.level}- " if several else ""
            lines.append(f"{mark}{text}")
    return "\n".join(lines)


def _paragraph_text(paragraph: Any) -> str:
    return " ".join(paragraph.text.replace("\v", " ").split())


_CHART_NS = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_CHOICE = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Choice"
_CATEGORIES = (f"{_CHART_NS}cat", f"{_CHART_NS}xVal")
_VALUES = (f"{_CHART_NS}val", f"{_CHART_NS}yVal")


def _drawn_texts(relation: Any) -> Iterator[str]:
    """Yield the texts of a chart or a diagram (SmartArt), which are separate parts."""
    if relation.reltype.endswith("/chart"):
        yield from _chart_blocks(_part_tree(relation))
    elif relation.reltype.endswith("/diagramData"):
        texts = map(text_of, _part_tree(relation).iter(DRAWN_TEXT))
        yield "\n".join(f"- {text}" for text in texts if text)


def chart_titles(chart: Any) -> str:
    """Return the titles of a chart and of its axes."""
    return "; ".join(
        " ".join((one.text or "").split())
        for title in chart.iter(f"{_CHART_NS}title")
        for one in title.iter()
        if one.tag in (_DRAWN_RUN, f"{_CHART_NS}v") and one.text
    )


def _chart_blocks(chart: Any) -> Iterator[str]:
    """Yield a chart's titles and its numbers as tables."""
    yield chart_titles(chart)
    for plot in chart.iterfind(f"{_CHART_NS}chart/{_CHART_NS}plotArea/*"):
        series = plot.findall(f"{_CHART_NS}ser")
        have_own_x = any(one.find(_CATEGORIES[1]) is not None for one in series)
        for group in [[one] for one in series] if have_own_x else [series]:
            yield _series_table(group)


def _series_table(series: Sequence[Any]) -> str:
    """Return series of the same categories as a table."""
    named = f"{_CHART_NS}tx"
    names = [
        " ".join(_points(one, (named,)).values()) or one.findtext(f"{named}/{_CHART_NS}v") or ""
        for one in series
    ]
    values = [_points(one, _VALUES) for one in series]
    categories = _points(series[0], _CATEGORIES) if series else {}
    indexes = dict.fromkeys((*categories, *(index for one in values for index in one)))
    rows = ([categories.get(i, ""), *(one.get(i, "") for one in values)] for i in indexes)
    return markdown_table([["", *names], *rows])


def _points(series: Any, tags: tuple[str, ...]) -> dict[str, str]:
    """Return the stored texts or numbers of a part of a series by their indexes.

    Categories may have several levels, the inner ones first.
    """
    found: dict[str, str] = {}
    for part in (one for tag in tags for one in series.iterfind(tag)):
        for point in part.iter(f"{_CHART_NS}pt"):
            text, index = point.findtext(f"{_CHART_NS}v") or "", point.get("idx", "")
            with suppress(ValueError):
                text = number_text(float(text)) if tags == _VALUES else text
            found[index] = " ".join((*text.split(), found.get(index, ""))).strip()
    return found
