"""Word, PowerPoint, Excel and EPUB documents to Markdown: all are zip archives of XML.

An archive is checked before anything is unpacked: number and size of its entries, encryption. The
only module that knows python-docx, python-pptx and openpyxl, each imported when a document needs
it.

Word: headings, lists, tables, notes, text boxes, headers and footers. The body is walked here,
since python-docx's `paragraph.text` leaves out tracked insertions, form fields and text boxes.
PowerPoint: a slide is a page, with tables, charts and the speaker's notes. Excel: a sheet is a
page; a formula is shown by its last value, as the file keeps it, or by itself where there is none.
EPUB: each file of the reading order is a page; standard library only.
"""

from __future__ import annotations

import importlib
import posixpath
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, BinaryIO
from urllib.parse import unquote
from xml.etree import ElementTree

from . import text_files
from .reader import (
    MEDIA_TYPES,
    Document,
    ReadRequest,
    Unreadable,
    after_name,
    hidden_text_note,
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
def _damage(what: str) -> Iterator[None]:
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
    kept = [list(row) for row in rows if any(cell.strip() for cell in row)]
    if not kept:
        return ""
    width = max(map(len, kept))
    filled = [row + [""] * (width - len(row)) for row in kept]
    used = [any(row[column].strip() for row in filled) for column in range(width)]
    lines = [
        _markdown_row(cell for cell, is_used in zip(row, used, strict=True) if is_used)
        for row in filled
    ]
    rule = _markdown_row("---" for is_used in used if is_used)
    return "\n".join([lines[0], rule, *lines[1:]])


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_markdown_cell(cell) for cell in cells)} |"


def _markdown_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


_WORD_DOCUMENT = "a Word document"
_WORD_NS = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_MATH_NS = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_TEXT_BOX = f"{_WORD_NS}txbxContent"
# Not text: tracked deletions, formatting, the fallback copy of text boxes.
_SKIPPED_TAGS = frozenset(
    (f"{_WORD_NS}del", f"{_WORD_NS}moveFrom", f"{_WORD_NS}pPr", f"{_WORD_NS}rPr", _FALLBACK)
)
_SPECIAL_TAGS = {
    **{f"{_WORD_NS}tab": "\t", f"{_WORD_NS}br": "\n", f"{_WORD_NS}cr": "\n"},
    **{f"{_WORD_NS}noBreakHyphen": "-"},
}
_NUMBERED = re.compile(r"heading (\d)", re.IGNORECASE)
_NOTES = (("footnotes", "footnote", ""), ("endnotes", "endnote", ""), ("comments", "comment", "c"))
"""Kind of part, its elements, and what stands before their numbers."""


def read_docx(file: BinaryIO, wish: ReadRequest) -> Document:
    """Read it as one page: the file has no page breaks of the layout."""
    docx = import_library("docx", _WORD_DOCUMENT)
    open_archive(file, _WORD_DOCUMENT)
    file.seek(0)
    with _damage(_WORD_DOCUMENT):
        document = docx.Document(file)
        styles = {style.style_id: style.name or "" for style in document.styles}
        vanish = f"{_WORD_NS}rPr/{_WORD_NS}vanish"
        hiding = (one.style_id for one in document.styles if one.element.find(vanish) is not None)
        lines = _DocxLines(styles, wish, frozenset(hiding))
        blocks = [block for block in lines.of(document.element.body) if block]
        notes = _docx_notes(document, lines)
        top, bottom = _headers_and_footers(document, lines)
        title = (document.core_properties.title or "").strip()
        relations = list(document.part.rels.values())
    text = "\n\n".join([*top, *_joined_blocks(blocks), *notes, *bottom])
    if not text and any(relation.reltype.endswith("/image") for relation in relations):
        raise Unreadable("has no text, only pictures", SAVE_AS_PDF)
    losses = hidden_text_note("the document", lines.hidden)
    return Document((text,), title or lines.title, MEDIA_TYPES["docx"], losses)


@dataclass
class _DocxLines:
    """Converts a body to lines; remembers the first heading."""

    styles: dict[str, str]
    """The English name of each paragraph style."""
    wish: ReadRequest
    hiding_styles: frozenset[str] = frozenset()
    """The identifiers of styles whose text is not shown."""
    title: str = ""
    hidden: list[str] = field(default_factory=list)
    """Texts that the document does not show."""
    _boxes: list[Any] = field(default_factory=list)

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
                yield markdown_table(
                    self._row(row) for row in child.iter(f"{_WORD_NS}tr") if _is_inside(row, child)
                )
            elif child.tag not in _SKIPPED_TAGS and isinstance(child.tag, str):
                yield from self.of(child)

    def _paragraph(self, paragraph: Any) -> str:
        text = "".join(self._text(paragraph)).strip()
        if not text:
            return ""
        style = self._style(paragraph)
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
            if child.tag in (f"{_WORD_NS}t", f"{_MATH_NS}t"):
                yield child.text or ""
            elif child.tag in _SPECIAL_TAGS:
                yield _SPECIAL_TAGS[child.tag]
            elif child.tag == _TEXT_BOX:
                self._boxes.append(child)
            elif child.tag in (f"{_WORD_NS}footnoteReference", f"{_WORD_NS}endnoteReference"):
                yield f"[^{child.get(f'{_WORD_NS}id')}]"
            elif child.tag == f"{_WORD_NS}commentReference":
                yield f"[^c{child.get(f'{_WORD_NS}id')}]"
            elif child.tag == f"{_WORD_NS}r" and self._is_hidden(child):
                texts = list(self._text(child))
                self.hidden += [text for text in texts if text.strip()]
                yield from texts
            elif child.tag not in _SKIPPED_TAGS and isinstance(child.tag, str):
                yield from self._text(child)

    def _is_hidden(self, run: Any) -> bool:
        """Return whether a run's own format or the style that it names hides it."""
        vanish = run.find(f"{_WORD_NS}rPr/{_WORD_NS}vanish")
        if vanish is not None:
            return vanish.get(f"{_WORD_NS}val", "1") not in ("0", "false", "off")
        named = run.find(f"{_WORD_NS}rPr/{_WORD_NS}rStyle")
        return named is not None and named.get(f"{_WORD_NS}val") in self.hiding_styles

    def _row(self, row: Any) -> list[str]:
        """Return a row's cells; one that is merged with the row above is empty."""
        cells: list[str] = []
        for cell in (one for one in row.iter(f"{_WORD_NS}tc") if _is_inside(one, row)):
            merged = cell.find(f"{_WORD_NS}tcPr/{_WORD_NS}vMerge")
            goes_on = merged is not None and merged.get(f"{_WORD_NS}val") != "restart"
            cells.append("" if goes_on else " ".join(self.of(cell)))
            span = cell.find(f"{_WORD_NS}tcPr/{_WORD_NS}gridSpan")
            width = span.get(f"{_WORD_NS}val", "1") if span is not None else "1"
            cells += [""] * (min(int(width), 64) - 1 if width.isdigit() else 0)
        return cells

    def _style(self, paragraph: Any) -> str:
        named = paragraph.find(f"{_WORD_NS}pPr/{_WORD_NS}pStyle")
        return self.styles.get(named.get(f"{_WORD_NS}val"), "") if named is not None else ""


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
        for margin, texts in margins:
            if not margin.is_linked_to_previous:
                texts.update(dict.fromkeys(block for block in lines.of(margin._element) if block))
    return list(top), list(bottom)


_PRESENTATION = "a presentation"
_TEXT_TAG = "{http://schemas.openxmlformats.org/drawingml/2006/main}t"
_MOST_GROUP_DEPTH = 20
_LINE_EMU = 200_000  # shapes whose tops differ by less than half a centimetre are in one row


def read_pptx(file: BinaryIO, wish: ReadRequest) -> Document:
    pptx = import_library("pptx", _PRESENTATION)
    open_archive(file, _PRESENTATION)
    file.seek(0)
    with _damage(_PRESENTATION):
        presentation = pptx.Presentation(file)
        pages: list[str] = []
        for slide in presentation.slides:
            wish.check()
            pages.append("\n\n".join(block for block in _slide_blocks(slide) if block))
        shows = any(
            relation.reltype.endswith("/image")
            for slide in presentation.slides
            for relation in slide.part.rels.values()
        )
        title = (presentation.core_properties.title or "").strip()
    if shows and not any(pages):
        raise Unreadable("has no text, only pictures", SAVE_AS_PDF)
    if title.lower() == "powerpoint presentation":
        title = ""  # the program's default title
    return Document(tuple(pages), title, MEDIA_TYPES["pptx"])


def _slide_blocks(slide: Any) -> Iterator[str]:
    title = slide.shapes.title
    if title is not None and title.has_text_frame and title.text_frame.text.strip():
        yield f"# {' '.join(title.text_frame.text.split())}"
    others = [s for s in slide.shapes if title is None or s.shape_id != title.shape_id]
    for shape in _in_reading_order(others):
        yield from _shape_blocks(shape, 0)
    yield from _diagram_texts(slide)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        notes = slide.notes_slide.notes_text_frame.text.strip()
        yield f"Notes: {notes}" if notes else ""


def _in_reading_order(shapes: Iterable[Any]) -> list[Any]:
    """Sort shapes in reading order: from top to bottom, in a row from left to right."""
    return sorted(shapes, key=lambda shape: ((shape.top or 0) // _LINE_EMU, shape.left or 0))


def _shape_blocks(shape: Any, depth: int) -> Iterator[str]:
    if depth < _MOST_GROUP_DEPTH and hasattr(shape, "shapes"):
        for inner in _in_reading_order(shape.shapes):
            yield from _shape_blocks(inner, depth + 1)
    elif getattr(shape, "has_table", False) and shape.has_table:
        yield markdown_table([cell.text for cell in row.cells] for row in shape.table.rows)
    elif getattr(shape, "has_chart", False) and shape.has_chart:
        yield from _chart_lines(shape.chart)
    elif shape.has_text_frame:
        yield _frame_text(shape.text_frame)


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


def _chart_lines(chart: Any) -> Iterator[str]:
    """Yield a chart's title and its numbers as a table."""
    if chart.has_title and chart.chart_title.has_text_frame:
        yield chart.chart_title.text_frame.text.strip()
    for plot in chart.plots:
        series = list(plot.series)
        rows = [["", *(one.name or "" for one in series)]]
        for index, category in enumerate(plot.categories):
            values = [one.values[index] if index < len(one.values) else None for one in series]
            rows.append([str(category), *("" if v is None else f"{v:g}" for v in values)])
        yield markdown_table(rows)


def _diagram_texts(slide: Any) -> Iterator[str]:
    """Yield the texts of diagrams (SmartArt), which are separate parts."""
    for relation in slide.part.rels.values():
        if not relation.is_external and relation.reltype.endswith("/diagramData"):
            found = _part_tree(relation).iter(_TEXT_TAG)
            texts = [" ".join((one.text or "").split()) for one in found]
            yield "\n".join(f"- {text}" for text in texts if text)


_SPREADSHEET = "a spreadsheet"
_MOST_CELLS = 2_000_000
_CHECK_EACH_ROWS = 500
_MOST_DIGITS = 1e15  # spreadsheet programs keep 15 digits of a number
_MOST_WHOLE = 1e21  # identifiers have up to 20 digits; larger numbers are measured ones
_STREAMED = ("xl/worksheets/", "xl/sharedStrings")


def read_xlsx(file: BinaryIO, wish: ReadRequest) -> Document:
    openpyxl = import_library("openpyxl", _SPREADSHEET)
    archive = open_archive(file, _SPREADSHEET, _STREAMED)
    with _damage(_SPREADSHEET), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about drawings and rules
        values = _open_workbook(openpyxl, file, wants_values=True)
        formulas = _open_workbook(openpyxl, file, wants_values=False)
        return _workbook_text(values, formulas, archive, wish)


def _open_workbook(openpyxl: Any, file: BinaryIO, *, wants_values: bool) -> Any:
    file.seek(0)
    return openpyxl.load_workbook(file, read_only=True, data_only=wants_values, keep_links=False)


def _workbook_text(
    values: Any, formulas: Any, archive: zipfile.ZipFile, wish: ReadRequest
) -> Document:
    pages: list[str] = []
    unshown: list[str] = []
    n_cells = n_bare = n_rounded = 0
    hidden = [sheet.title for sheet in values.worksheets if sheet.sheet_state != "visible"]
    for sheet, behind in zip(values.worksheets, formulas.worksheets, strict=True):
        rows: list[list[str]] = []
        for index, (row, written) in enumerate(_row_pairs(sheet, behind)):
            if index % _CHECK_EACH_ROWS == 0:
                wish.check()
            bare = [
                value is None and formula is not None
                for value, formula in zip(row, written, strict=False)
            ]
            n_bare += sum(bare)
            n_rounded += sum(map(_is_rounded, row))
            cells = [
                _cell_text(written[column] if is_bare else value)
                for column, (value, is_bare) in enumerate(zip(row, bare, strict=False))
            ]
            while cells and not cells[-1]:
                cells.pop()
            n_cells += len(cells)
            if n_cells > _MOST_CELLS:
                raise Unreadable(f"has more than {_MOST_CELLS:,} cells, which is the maximum")
            if cells:
                rows.append(cells)
        path = sheet._worksheet_path
        blocks = filter(None, [markdown_table(rows), *_sheet_comments(archive, path)])
        content = "\n\n".join(blocks)
        pages.append(f"# {sheet.title}\n\n{content}" if content else "")
        if parts := _hidden_parts(archive, path, wish.check):
            unshown.append(f"{sheet.title}: {parts}")
    notes = _hidden_notes(hidden, unshown)
    if n_bare:
        notes.insert(
            0,
            f": {n_bare:,} of its formulas have no stored value and are shown as they are written; "
            f"open and save it in a spreadsheet program to have their values",
        )
    if n_rounded:
        notes.append(
            f": {n_rounded:,} of its numbers have more than 15 digits, which is what a spreadsheet "
            f"program keeps of a number; store them as text to keep all digits"
        )
    title = (values.properties.title or "").strip()
    return Document(tuple(pages), title, MEDIA_TYPES["xlsx"], tuple(notes))


def _hidden_notes(sheets: list[str], parts: list[str]) -> list[str]:
    notes = [f": hidden sheets are read as well ({', '.join(sheets)})"] if sheets else []
    if parts:
        notes.append(f": hidden rows and columns are read as well ({'; '.join(parts)})")
    return notes


def _row_pairs(sheet: Any, behind: Any) -> Iterator[tuple[Sequence[Any], Sequence[Any]]]:
    """Yield each row's values and formulas.

    The declared size of a sheet is not trusted: some say A1, some a million rows.
    """
    sheet.reset_dimensions()
    behind.reset_dimensions()
    return zip(sheet.iter_rows(values_only=True), behind.iter_rows(values_only=True), strict=False)


def _is_rounded(value: Any) -> bool:
    return isinstance(value, float) and _MOST_DIGITS <= abs(value) < _MOST_WHOLE


def _cell_text(value: Any) -> str:
    """Return a value as text, independent of its display format.

    >>> _cell_text(3.0), _cell_text(True), _cell_text(date(2024, 3, 14)), _cell_text(1.2e16)
    ('3', 'TRUE', '2024-03-14', '12000000000000000')
    """
    match value:
        case None:
            return ""
        case bool():
            return str(value).upper()
        case float():
            is_whole = value.is_integer() and abs(value) < _MOST_WHOLE
            return f"{Decimal(repr(value)):.0f}" if is_whole else repr(value)
        case datetime():
            is_day = value.time() == time()
            return value.date().isoformat() if is_day else value.isoformat(" ", "seconds")
        case date() | time():
            return value.isoformat()
        case timedelta():
            return str(value)
    return str(getattr(value, "text", value))


_READ_BYTES = 1024 * 1024
_TAG_BYTES = 4096  # a tag that lies across two pieces is at most this long
_HIDDEN_TAG = re.compile(
    rb"<(?:\w+:)?(row|col)\b[^<>]*?\s(?:hidden=[\"'](?:1|true)[\"']|(?:ht|width)=[\"']0(?:\.0*)?[\"'])"
)
_DRAWN_TEXT = "{http://schemas.openxmlformats.org/drawingml/2006/main}p"


def _sheet_comments(archive: zipfile.ZipFile, sheet: str) -> Iterator[str]:
    """Yield the comments of a sheet by their cells, and the texts of its boxes and shapes."""
    comments: list[str] = []
    texts: list[str] = []
    for kind, path in _related_parts(archive, sheet):
        if kind == "comments":
            root = ElementTree.fromstring(archive.read(path))
            authors = [_text_of(one) for one in root.iterfind("{*}authors/{*}author")]
            comments += [_comment(one, authors) for one in root.iter() if _is(one, "comment")]
        elif kind == "drawing":
            root = ElementTree.fromstring(archive.read(path))
            texts += [text for one in root.iter(_DRAWN_TEXT) if (text := _text_of(one))]
    yield "\n".join(["Comments:", *comments]) if comments else ""
    yield "\n".join(["Text boxes:", *(f"- {text}" for text in texts)]) if texts else ""


def _hidden_parts(archive: zipfile.ZipFile, sheet: str, check: Callable[[], None]) -> str:
    """Return how many rows and groups of columns of a sheet are hidden; empty if none."""
    counts = {b"row": 0, b"col": 0}
    rest = b""
    with archive.open(sheet.lstrip("/")) as part:
        while data := part.read(_READ_BYTES):
            check()
            piece, end = rest + data, 0
            for found in _HIDDEN_TAG.finditer(piece):
                counts[found[1]] += 1
                end = found.end()
            rest = piece[max(end, len(piece) - _TAG_BYTES) :]
    words = [(counts[b"row"], "rows"), (counts[b"col"], "groups of columns")]
    return ", ".join(f"{n:,} {what}" for n, what in words if n)


def _related_parts(archive: zipfile.ZipFile, sheet: str) -> Iterator[tuple[str, str]]:
    """Yield kind and path of the parts of the archive that a sheet names."""
    folder, name = posixpath.split(sheet.lstrip("/"))
    relations = f"{folder}/_rels/{name}.rels"
    present = set(archive.namelist())
    if relations not in present:
        return
    for one in ElementTree.fromstring(archive.read(relations)):
        target = posixpath.normpath(posixpath.join("/", folder, one.get("Target", "")))[1:]
        if target in present:
            yield posixpath.basename(one.get("Type", "")), target


def _comment(element: ElementTree.Element, authors: list[str]) -> str:
    number = element.get("authorId", "")
    author = authors[int(number)] if number.isdigit() and int(number) < len(authors) else ""
    text = _text_of(element)
    is_named = not author or text.startswith(f"{author}:")  # spreadsheet programs write it there
    return f"- {element.get('ref', '')}: {text}" + ("" if is_named else f" ({author})")


def _text_of(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _is(element: ElementTree.Element, name: str) -> bool:
    return element.tag.rpartition("}")[2] == name


_EBOOK = "an e-book"
_CONTAINER = "META-INF/container.xml"
_PROTECTION = "META-INF/encryption.xml"
_FONT_OBFUSCATION = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
"""Font obfuscation; the text is not protected."""
_MOST_XML_BYTES = 16 * 1024 * 1024


def read_epub(file: BinaryIO, wish: ReadRequest) -> Document:
    with open_archive(file, _EBOOK) as book, _damage(_EBOOK):
        _refuse_protected(book)
        folder, package = _epub_package(book)
        pages: list[str] = []
        notes: list[str] = []
        for name in _reading_order(package):
            wish.check()
            chapter = _chapter(book, posixpath.normpath(posixpath.join(folder, name)))
            notes += [f": part '{name}'{after_name(note)}" for note in chapter.notes]
            if text := chapter.text.strip():
                pages.append(text)
    title = package.findtext(".//{*}metadata/{*}title") or ""
    return Document(tuple(pages), " ".join(title.split()), MEDIA_TYPES["epub"], tuple(notes))


def _refuse_protected(book: zipfile.ZipFile) -> None:
    if _PROTECTION not in book.namelist():
        return
    methods = [
        method.get("Algorithm", "")
        for method in _epub_xml(book, _PROTECTION).iterfind(
            ".//{*}EncryptedData/{*}EncryptionMethod"
        )
    ]
    if any(method not in _FONT_OBFUSCATION for method in methods):
        raise Unreadable("has DRM and cannot be read")


def _epub_package(book: zipfile.ZipFile) -> tuple[str, ElementTree.Element]:
    """Return the path of the package document and its folder."""
    if _CONTAINER not in book.namelist():
        raise Unreadable(f"is damaged or not {_EBOOK}: it has no {_CONTAINER}")
    root = _epub_xml(book, _CONTAINER).find(".//{*}rootfile")
    path = root.get("full-path", "") if root is not None else ""
    if not path:
        raise Unreadable(f"is damaged: its {_CONTAINER} names no contents")
    return posixpath.dirname(path), _epub_xml(book, path)


def _reading_order(package: ElementTree.Element) -> list[str]:
    """Return the files in reading order, without the table of contents."""
    parts = {
        item.get("id", ""): item
        for item in package.iterfind(".//{*}manifest/{*}item")
        if "html" in item.get("media-type", "") and "nav" not in item.get("properties", "").split()
    }
    order = [one.get("idref", "") for one in package.iterfind(".//{*}spine/{*}itemref")]
    return [unquote(parts[name].get("href", "")) for name in order if name in parts]


def _chapter(book: zipfile.ZipFile, name: str) -> Document:
    if name not in book.namelist():
        raise Unreadable(f"is damaged: its part '{name}' is missing")
    try:
        return text_files.read_text_file(book.read(name), "html")
    except Unreadable as error:
        raise Unreadable(f"is damaged: its part '{name}' {error}") from error


def _epub_xml(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    if book.getinfo(name).file_size > _MOST_XML_BYTES:
        raise Unreadable(f"is damaged: its '{name}' is far too large")
    return ElementTree.fromstring(book.read(name))
