"""Excel workbooks to Markdown: a sheet is a page, with comments, text boxes and charts' titles.

A formula is shown by its last value, as the file keeps it, or by itself where there is none. What a
sheet hides is read and noted; what is embedded is noted and not read.
"""

from __future__ import annotations

import posixpath
import re
import warnings
import zipfile
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from functools import partial
from html import unescape
from typing import Any, BinaryIO
from xml.etree import ElementTree

from paddock.engine.system.records import record
from paddock.engine.system.text import counted
from paddock.pipelines.text_marks import escaped, hidden, struck

from .document_kinds import MEDIA_TYPES
from .inner_documents import InnerPictures
from .office import (
    DRAWN_TEXT,
    MOST_WHOLE,
    OFF,
    PLAIN,
    Look,
    chart_titles,
    damage_errors,
    described,
    embedded_notes,
    import_library,
    markdown_table,
    marked,
    number_text,
    open_archive,
    refuse_textless,
    text_of,
    with_note_marks,
)
from .office_archives import load_archive
from .reader import Document, ReadRequest, Unreadable

_SPREADSHEET = "a spreadsheet"
_MOST_CELLS = 2_000_000
_MOST_ROWS = 1_048_576  # of a sheet, by the program
_CHECK_EACH_ROWS = 500
_RISES = {"superscript": 1, "subscript": -1}
_MOST_DIGITS = 1e15  # spreadsheet programs keep 15 digits of a number
_STREAMED = ("xl/worksheets/", "xl/sharedStrings")


def read_xlsx(file: BinaryIO, request: ReadRequest) -> Document:
    openpyxl = import_library("openpyxl", _SPREADSHEET)
    archive = open_archive(file, _SPREADSHEET, _STREAMED)

    def load(file: BinaryIO) -> list[Any]:
        # The library passes `rich_text` on to the strings that cells share, not to those within.
        reading = import_library("openpyxl.worksheet._read_only", _SPREADSHEET)
        parser = import_library("openpyxl.worksheet._reader", _SPREADSHEET).WorkSheetParser
        reading.WorkSheetParser = partial(parser, rich_text=True)
        options = {"read_only": True, "keep_links": False}
        with_runs = openpyxl.load_workbook(file, data_only=True, rich_text=True, **options)
        return [with_runs, openpyxl.load_workbook(file, **options)]

    with (
        damage_errors(_SPREADSHEET),
        warnings.catch_warnings(action="ignore"),  # about drawings and rules
        load_archive(load, file, archive, _STREAMED) as ((values, formulas), read, damage),
        zipfile.ZipFile(read) as parts,
    ):
        looks = _CellLooks.of(archive)  # the copy has none
        return _workbook_text((values, formulas), parts, looks, damage, request)


def _workbook_text(
    books: tuple[Any, Any],
    archive: zipfile.ZipFile,
    looks: _CellLooks,
    damage: tuple[str, ...],
    request: ReadRequest,
) -> Document:
    values, formulas = books
    pages: list[str] = []
    unshown: list[str] = []
    kinds: list[str] = []
    cells = _CellReader(request.check)
    pictures = InnerPictures(request)
    hidden_sheets = [sheet.title for sheet in values.worksheets if sheet.sheet_state != "visible"]
    for sheet, behind in zip(values.worksheets, formulas.worksheets, strict=True):
        path = sheet._worksheet_path
        related = list(related_parts(archive, path))
        gone_rows, gone_columns, margins = _sheet_markup(archive, path, request.check)
        white = () if any(kind == "table" for kind, _ in related) else looks.white
        own = _Unseen(looks.unseen.union(white), gone_rows, set().union(*gone_columns))
        rows = cells.rows(sheet, behind, looks.struck, own)
        blocks = [markdown_table(rows), *_sheet_comments(archive, path), margins]
        content = with_note_marks("\n\n".join(filter(None, blocks)))
        drawings = [inner for kind, inner in related if kind == "drawing"]
        images = (part for inner in drawings for part in related_parts(archive, inner))
        seen = pictures.text(archive.read(part) for kind, part in images if kind == "image")
        content = "\n\n".join(filter(None, (content, seen)))
        shown = hidden(content) if sheet.sheet_state != "visible" else content
        pages.append(f"# {escaped(sheet.title)}\n\n{shown}" if content else "")
        words = [
            (len(gone_rows), "row", "rows"),
            (len(gone_columns), "group of columns", "groups of columns"),
            (own.n_cells, "cell", "cells"),
        ]
        parts = ", ".join(counted(*count) for count in words if count[0])
        unshown += [f"{sheet.title}: {parts}"] if parts else []
        kinds += [kind for kind, _ in related]
    for name in archive.namelist():
        if name.startswith("xl/chartsheets/sheet"):
            pages += _sheet_comments(archive, name)
    notes = [*damage]
    if cells.n_bare:
        notes.append(
            f": {cells.n_bare:,} of its formulas have no stored value and are shown as they are "
            f"written; open and save it in a spreadsheet program to have their values"
        )
    if hidden_sheets:
        notes.append(f": hidden sheets are read as well ({', '.join(hidden_sheets)})")
    if unshown:
        notes.append(f": hidden rows, columns and cells are read as well ({'; '.join(unshown)})")
    notes += (*embedded_notes(kinds), *pictures.notes())
    if cells.n_rounded:
        numbers = counted(cells.n_rounded, "number has", "numbers have")
        notes.append(
            f": {numbers} more than 15 digits, which is what a spreadsheet program keeps of a "
            f"number; store them as text to keep all digits"
        )
    refuse_textless(_SPREADSHEET, "".join(pages), (), damage)
    title = (values.properties.title or "").strip()
    return Document(tuple(pages), title, MEDIA_TYPES["xlsx"], tuple(notes))


@record
class _Unseen:
    """What a sheet does not show: cells of these styles, rows and columns, from 1."""

    styles: frozenset[int]
    rows: set[int]
    columns: set[int]
    n_cells: int = 0
    """Cells with something in them that their style hides."""


@record
class _CellReader:
    """Reads the cells of a workbook's sheets as texts, and counts them."""

    check: Callable[[], None]
    n_cells: int = 0
    n_bare: int = 0
    """Formulas without a stored value."""
    n_rounded: int = 0

    def rows(
        self, sheet: Any, behind: Any, struck_styles: Container[int], unseen: _Unseen
    ) -> list[list[str]]:
        """Return a sheet's rows without empty ones.

        `behind` is the same sheet with formulas. The declared size of a sheet is not trusted: some
        say A1, some a million rows.
        """
        rows: list[list[str]] = []
        sheet.reset_dimensions()
        behind.reset_dimensions()
        pairs = zip(sheet.iter_rows(), behind.iter_rows(values_only=True), strict=False)
        for index, (found, formulas) in enumerate(pairs):
            if index % _CHECK_EACH_ROWS == 0:
                self.check()
            if index == _MOST_ROWS:  # a damaged number of a row
                break
            cells: list[str] = []
            for at, (cell, formula) in enumerate(zip(found, formulas, strict=False)):
                value = cell.value
                is_number = isinstance(value, float)
                self.n_rounded += is_number and _MOST_DIGITS <= abs(value) < MOST_WHOLE
                text = self._text(value, formula)
                if text:
                    style = getattr(cell, "_style_id", 0)
                    text = struck(text) if style in struck_styles else text
                    unseen.n_cells += style in unseen.styles
                    is_gone = index + 1 in unseen.rows or at + 1 in unseen.columns
                    text = hidden(text) if is_gone or style in unseen.styles else text
                cells.append(text)
            while cells and not cells[-1]:
                cells.pop()
            self.n_cells += len(cells)
            if self.n_cells > _MOST_CELLS:
                raise Unreadable(f"has more than {_MOST_CELLS:,} cells, which is the maximum")
            if cells:
                rows.append(cells)
        return rows

    def _text(self, value: Any, formula: Any) -> str:
        if value is not None or formula is None:
            return _cell_text(value)
        self.n_bare += 1
        return _cell_text(formula)


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
            return number_text(value)
        case datetime():
            is_day = value.time() == time()
            return value.date().isoformat() if is_day else value.isoformat(" ", "seconds")
        case date() | time():
            return value.isoformat()
        case timedelta():
            return str(value)
        case list():  # pieces, some with fonts of their own
            fonts = [getattr(piece, "font", None) for piece in value]
            looks = [
                Look(_RISES.get(f.vertAlign, 0), bool(f.strike)) if f is not None else PLAIN
                for f in fonts
            ]
            texts = (escaped(str(getattr(piece, "text", piece))) for piece in value)
            return marked(zip(texts, looks, strict=True))[0]
    return escaped(str(getattr(value, "text", value)))


_READ_BYTES = 1024 * 1024
_TAG_BYTES = 4096  # a tag that lies across two pieces is at most this long
_SHEET_TAG = re.compile(
    rb"<(?:\w+:)?(row|col)\b[^<>]*?\s"
    rb"(?:hidden=[\"'](?:1|true)[\"']|(?:ht|width)=[\"']0(?:\.0*)?[\"'])[^<>]*"
    rb"|<(?:\w+:)?(?:odd|even|first)(?:Header|Footer)>([^<]+)<"
)
_PLACE = re.compile(rb"""\s(r|min|max)=["'](\d{1,9})["']""")
_MOST_COLUMNS = 16_384
_MARGIN_CODE = re.compile(r'&(?:"[^"]*"|K[0-9A-Fa-f]{2}[0-9A-Fa-f+-]{4}|\d+|[A-Za-z])')
"""Fonts, sizes, places, page numbers and dates in headers and footers."""


def _sheet_comments(archive: zipfile.ZipFile, sheet: str) -> Iterator[str]:
    """Yield the comments of a sheet by their cells, the texts of its boxes, and charts' titles."""
    comments: list[str] = []
    texts: list[str] = []
    charts: list[str] = []
    related = list(related_parts(archive, sheet))
    threads = [part_tree(archive, path) for kind, path in related if kind == "threadedComment"]
    for kind, path in related:
        if kind == "comments":
            conversations = _thread_texts(archive, threads)
            comments += _comment_lines(part_tree(archive, path), conversations)
        elif kind == "drawing":
            texts += _drawn_lines(part_tree(archive, path))
            for what, part in related_parts(archive, path):
                if what == "chart":
                    title = chart_titles(part_tree(archive, part))
                    charts.append(f"- {title or 'without a title'}")
                elif what == "diagramData":
                    texts += _drawn_lines(part_tree(archive, part))
    for name, lines in (("Comments", comments), ("Text boxes", texts), ("Charts", charts)):
        if lines:
            yield "\n".join([f"{name}:", *lines])


def part_tree(archive: zipfile.ZipFile, path: str) -> ElementTree.Element:
    return ElementTree.fromstring(archive.read(path))


@record(frozen=True, slots=True)
class _CellLooks:
    """The numbers of a workbook's cell styles that show nothing, or text that is struck."""

    unseen: frozenset[int] = frozenset()
    """By their number format, such as `;;;`."""
    white: frozenset[int] = frozenset()
    """With a white font on no fill, which a table's style may give."""
    struck: frozenset[int] = frozenset()

    @classmethod
    def of(cls, archive: zipfile.ZipFile) -> _CellLooks:
        try:
            tree = part_tree(archive, "xl/styles.xml")
        except (KeyError, ElementTree.ParseError, zipfile.BadZipFile):
            return cls()  # missing or damaged, which is noted
        empty = {
            entry.get("numFmtId")
            for entry in tree.iterfind("{*}numFmts/{*}numFmt")
            if _EMPTY_FORMAT.fullmatch(entry.get("formatCode", ""))
        }
        fonts = tree.findall("{*}fonts/{*}font")
        whites = [_is_white(font.find("{*}color")) for font in fonts]
        strikes = [font.find("{*}strike") for font in fonts]
        lines = [line is not None and line.get("val", "1") not in OFF for line in strikes]
        bare = [_is_bare(fill) for fill in tree.iterfind("{*}fills/{*}fill")]
        unseen, white, struck = set[int](), set[int](), set[int]()
        for number, style in enumerate(tree.iterfind("{*}cellXfs/{*}xf")):
            if style.get("numFmtId") in empty:
                unseen.add(number)
            elif _of(whites, style.get("fontId")) and _of(bare, style.get("fillId")):
                white.add(number)
            if _of(lines, style.get("fontId")):
                struck.add(number)
        return cls(frozenset(unseen), frozenset(white), frozenset(struck))


_EMPTY_FORMAT = re.compile(r"\s*;[\s;]*")
_WHITE = re.compile("(?:[0-9A-Fa-f]{2})?(?:[Ff][0-9A-Fa-f]){3}")


def _is_white(colour: ElementTree.Element | None) -> bool:
    if colour is None:
        return False
    is_theme = colour.get("theme") == "0" and float(colour.get("tint", "0")) == 0
    return is_theme or bool(_WHITE.fullmatch(colour.get("rgb", "")))


def _is_bare(fill: ElementTree.Element) -> bool:
    pattern = fill.find("{*}patternFill")
    if pattern is None:
        return not len(fill)
    is_solid = pattern.get("patternType") == "solid"
    is_none = pattern.get("patternType", "none") == "none"
    return is_none or (is_solid and _is_white(pattern.find("{*}fgColor")))


def _of(facts: Sequence[bool], number: str | None) -> bool:
    at = int(number) if number is not None and number.isdecimal() else 0
    return at < len(facts) and facts[at]


def _sheet_markup(
    archive: zipfile.ZipFile, sheet: str, check: Callable[[], None]
) -> tuple[set[int], list[range], str]:
    """Return the hidden rows and groups of columns of a sheet; and headers and footers."""
    rows, columns = set[int](), list[range]()
    margins: dict[str, None] = {}
    rest = b""
    with archive.open(sheet.lstrip("/")) as part:
        while data := part.read(_READ_BYTES):
            check()
            piece, end = rest + data, 0
            for found in _SHEET_TAG.finditer(piece):
                places = {name: int(n) for name, n in _PLACE.findall(found[0])}
                if found[2]:
                    margins[_margin_text(found[2].decode("utf-8", "replace"))] = None
                elif found[1] == b"row":
                    rows.add(places.get(b"r", -len(rows)))
                elif len(columns) < _MOST_COLUMNS:
                    last = min(places.get(b"max", 0), _MOST_COLUMNS)
                    first = max(places.get(b"min", 1), columns[-1].stop if columns else 1)
                    columns.append(range(first, last + 1))
                end = found.end()
            rest = piece[max(end, len(piece) - _TAG_BYTES) :]
    lines = [f"- {escaped(text)}" for text in margins if text]
    shown = "\n".join(["Headers and footers:", *lines]) if lines else ""
    return rows, columns, shown


def _margin_text(written: str) -> str:
    """Return the words of a header or footer.

    >>> _margin_text('&amp;L&amp;"Arial,Bold"&amp;12Smith &amp;&amp; Co&amp;RPage &amp;P')
    'Smith & Co Page'
    """
    parts = unescape(written).split("&&")
    return " ".join("&".join(_MARGIN_CODE.sub(" ", part) for part in parts).split())


def related_parts(archive: zipfile.ZipFile, sheet: str) -> Iterator[tuple[str, str]]:
    folder, name = posixpath.split(sheet.lstrip("/"))
    relations = f"{folder}/_rels/{name}.rels"
    present = set(archive.namelist())
    if relations not in present:
        return
    for relation in part_tree(archive, relations):
        target = posixpath.normpath(posixpath.join("/", folder, relation.get("Target", "")))[1:]
        if target in present:
            yield posixpath.basename(relation.get("Type", "")), target


def _drawn_lines(drawing: ElementTree.Element) -> list[str]:
    """Return the texts of boxes and shapes from the top, and pictures' alternative texts."""

    def place(anchor: ElementTree.Element) -> list[int]:
        found = (anchor.findtext(f"{{*}}from/{{*}}{name}", "") for name in ("row", "col"))
        return [int(n) if n.isdecimal() else 0 for n in found]

    texts = list[str]()
    for anchor in sorted(drawing, key=place):
        texts += map(text_of, anchor.iter(DRAWN_TEXT))
        texts += map(described, anchor.iterfind(".//{*}cNvPr"))
    return [f"- {text}" for text in texts if text]


def _comment_lines(
    comments: ElementTree.Element, conversations: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """Yield each cell's comment behind its author, where programs write it too.

    A cell of `conversations` has in its own comment only a hint for old programs.
    """
    authors = dict(enumerate(map(text_of, comments.iterfind("{*}authors/{*}author"))))
    for element in comments.iterfind(".//{*}comment"):
        number, text, cell = element.get("authorId", ""), text_of(element), element.get("ref", "")
        author = authors.get(int(number), "") if number.isdecimal() else ""
        if author.startswith("tc=") and cell in conversations:
            text = "; ".join(conversations[cell])
        elif author and not text.startswith(f"{author}:"):
            text = f"{author}: {text}"
        yield f"- {cell}: {text}"


def _thread_texts(
    archive: zipfile.ZipFile, threads: Sequence[ElementTree.Element]
) -> dict[str, list[str]]:
    """Return what people say in a sheet's conversations, by cells."""
    parts = (name for name in archive.namelist() if threads and name.startswith("xl/persons/"))
    people = [person for part in parts for person in part_tree(archive, part)]
    names = {person.get("id"): person.get("displayName", "") for person in people}
    found = dict[str, list[str]]()
    for comment in (comment for thread in threads for comment in thread):
        name = escaped(names.get(comment.get("personId"), ""))
        text = " ".join(map(text_of, comment.iterfind("{*}text")))
        found.setdefault(comment.get("ref", ""), []).append(": ".join(filter(None, (name, text))))
    return found
