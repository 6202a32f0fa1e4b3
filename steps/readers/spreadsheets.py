"""Workbooks of Excel and of OpenDocument to Markdown: a sheet is a page, with what is drawn on it.

A formula is shown by its last value, as the file keeps it, or by itself where there is none. What a
sheet hides is read and noted; what is embedded is noted and not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO
from xml.etree import ElementTree

from paddock.engine.system.text import counted
from paddock.pipelines.text_marks import escaped, hidden, struck

from .cells import EMPTY, Cell, SheetCells, shown_value
from .document_kinds import MEDIA_TYPES
from .inner_documents import InnerPictures
from .ods_cells import OdsWorkbook
from .office import (
    DRAWN_TEXT,
    OFF,
    chart_titles,
    damage_errors,
    described,
    embedded_notes,
    markdown_table,
    marked,
    refuse_textless,
    text_of,
    with_note_marks,
)
from .open_document import OPEN_DOCUMENT
from .reader import Document, ReadRequest
from .xlsx_cells import WORKBOOK, XlsxWorkbook, rich_text

_MOST_CELLS = 2_000_000
_MOST_COVERED = 2_000_000  # cells that merged ones may cover, of those that are looked at


def read_xlsx(file: BinaryIO, request: ReadRequest) -> Document:
    with damage_errors(WORKBOOK):
        return _workbook_text(XlsxWorkbook(file, _MOST_CELLS), request, "xlsx")


def read_ods(file: BinaryIO, request: ReadRequest) -> Document:
    with damage_errors(OPEN_DOCUMENT):
        return _workbook_text(OdsWorkbook(file, _MOST_CELLS), request, "ods")


def _workbook_text(book: XlsxWorkbook | OdsWorkbook, request: ReadRequest, kind: str) -> Document:
    pages = list[str]()
    unshown = list[str]()
    kinds = list[str]()
    n_bare = n_rounded = 0
    pictures = InnerPictures(request)
    for sheet in book.sheets:
        found = book.read(sheet, request.check)
        if isinstance(book, XlsxWorkbook):
            _add_beside(book, sheet.part, found)
        rows, n_unseen = _marked_rows(found)
        blocks = filter(None, (markdown_table(rows), *_lists_beside(found)))
        content = with_note_marks("\n\n".join(blocks))
        content = "\n\n".join(filter(None, (content, pictures.text(found.pictures))))
        shown = content if sheet.is_visible else hidden(content)
        pages.append(f"# {escaped(sheet.title)}\n\n{shown}" if content else "")
        words = [
            (len(found.hidden_rows), "row", "rows"),
            (found.n_hidden_columns, "group of columns", "groups of columns"),
            (n_unseen, "cell", "cells"),
            (found.n_hidden_shapes, "shape", "shapes"),
        ]
        parts = ", ".join(counted(*count) for count in words if count[0])
        unshown += [f"{sheet.title}: {parts}"] if parts else []
        kinds += found.kinds
        n_bare, n_rounded = n_bare + found.n_bare, n_rounded + found.n_rounded
    if isinstance(book, XlsxWorkbook):
        for name in book.archive.namelist():
            if name.startswith("xl/chartsheets/sheet"):
                _add_beside(book, name, found := SheetCells(""))
                pages += _lists_beside(found)
    notes = [*(damage := book.damage())]
    if n_bare:
        notes.append(
            f": {n_bare:,} of its formulas have no stored value and are shown as they are "
            f"written; open and save it in a spreadsheet program to have their values"
        )
    if hidden_sheets := [sheet.title for sheet in book.sheets if not sheet.is_visible]:
        notes.append(f": hidden sheets are read as well ({', '.join(hidden_sheets)})")
    if unshown:
        notes.append(f": hidden rows, columns and cells are read as well ({'; '.join(unshown)})")
    notes += (*embedded_notes(kinds), *pictures.notes())
    if n_rounded:
        numbers = counted(n_rounded, "number has", "numbers have")
        notes.append(
            f": {numbers} more than 15 digits, which is what a spreadsheet program keeps of a "
            f"number; store them as text to keep all digits"
        )
    refuse_textless(WORKBOOK, "".join(pages), (), damage)
    return Document(tuple(pages), book.title, MEDIA_TYPES[kind], tuple(notes))


def _marked_rows(sheet: SheetCells) -> tuple[list[list[str]], int]:
    """Return a sheet's rows as texts with their marks, and how many cells alone are not shown.

    These have a format that shows nothing, are white on white, or lie under a merged cell.
    """
    covered = _covered(sheet)
    rows = list[list[str]]()
    n_unseen = 0
    for number, cells in enumerate(sheet.rows, 1):
        texts = []
        for at, cell in enumerate(cells, 1):
            if text := _cell_text(cell):
                is_white = cell.style.is_white and not sheet.has_table_style
                is_unseen = cell.style.is_unseen or is_white or (number, at) in covered
                n_unseen += is_unseen
                text = struck(text) if cell.style.is_struck else text
                if is_unseen or number in sheet.hidden_rows or at in sheet.hidden_columns:
                    text = hidden(text)
            texts.append(text)
        rows.append(texts)
    return rows, n_unseen


def _covered(sheet: SheetCells) -> set[tuple[int, int]]:
    """Return the cells with something in them that lie under merged ones."""
    found, n_left = set[tuple[int, int]](), _MOST_COVERED
    for left, top, right, bottom in sheet.merged:
        for number in range(top, min(bottom, len(sheet.rows)) + 1):
            part = sheet.rows[number - 1][left - 1 : right]
            places = ((number, at) for at, cell in enumerate(part, left) if cell is not EMPTY)
            found.update(place for place in places if place != (top, left))
            n_left -= len(part) + 1
        if n_left < 0:
            break
    return found


def _cell_text(cell: Cell) -> str:
    if cell.pieces:
        return marked([(escaped(text), look) for text, look in cell.pieces])[0]
    if isinstance(cell.value, str) or cell.value is None:
        return escaped(cell.value or cell.instead)
    return shown_value(cell.value)


def _add_beside(book: XlsxWorkbook, part: str, sheet: SheetCells) -> None:
    related = book.related(part)
    threads = [book.part(path) for kind, path in related if kind == "threadedComment"]
    for kind, path in related:
        sheet.kinds.append(kind)
        if kind == "table":
            sheet.has_table_style = True
        elif kind == "comments":
            conversations = _thread_texts(book, threads)
            sheet.comments += _comment_lines(book.part(path), conversations)
        elif kind == "drawing":
            sheet.boxes += _drawn_lines(drawing := book.part(path))
            shapes = drawing.iterfind(".//{*}cNvPr")
            sheet.n_hidden_shapes += sum(shape.get("hidden", "0") not in OFF for shape in shapes)
            for what, inner in book.related(path):
                if what == "chart":
                    sheet.charts.append(chart_titles(book.part(inner)) or "without a title")
                elif what == "diagramData":
                    sheet.boxes += _drawn_lines(book.part(inner))
                elif what == "image":
                    sheet.pictures.append(book.archive.read(inner))


def _lists_beside(sheet: SheetCells) -> Iterator[str]:
    for name, texts in (
        ("Comments", sheet.comments),
        ("Text boxes", sheet.boxes),
        ("Charts", sheet.charts),
        ("Headers and footers", list(dict.fromkeys(map(escaped, sheet.margins)))),
    ):
        if texts:
            yield "\n- ".join([f"{name}:", *texts])


def _drawn_lines(drawing: ElementTree.Element) -> Iterator[str]:
    def place(anchor: ElementTree.Element) -> list[int]:
        found = (anchor.findtext(f"{{*}}from/{{*}}{name}", "") for name in ("row", "col"))
        return [int(n) if n.isdecimal() else 0 for n in found]

    for anchor in sorted(drawing, key=place):
        shapes = list(anchor.iterfind(".//{*}cNvPr"))
        is_hidden = any(shape.get("hidden", "0") not in OFF for shape in shapes)
        for text in (*map(text_of, anchor.iter(DRAWN_TEXT)), *map(described, shapes)):
            if text:
                yield hidden(text) if is_hidden else text


def _comment_lines(
    comments: ElementTree.Element, conversations: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """Yield each cell's comment behind its author, where programs write it too.

    A cell of `conversations` has in its own comment only a hint for old programs.
    """
    authors = dict(enumerate(map(text_of, comments.iterfind("{*}authors/{*}author"))))
    for element in comments.iterfind(".//{*}comment"):
        number = element.get("authorId", "")
        text = " ".join(escaped(rich_text(part)[0]) for part in element.iterfind("{*}text"))
        text = " ".join(text.split())
        cell = element.get("ref", "")
        author = authors.get(int(number), "") if number.isdecimal() else ""
        if author.startswith("tc=") and cell in conversations:
            text = "; ".join(conversations[cell])
        elif author and not text.startswith(f"{author}:"):
            text = f"{author}: {text}"
        yield f"{cell}: {text}"


def _thread_texts(
    book: XlsxWorkbook, threads: Sequence[ElementTree.Element]
) -> dict[str, list[str]]:
    """Return what people say in a sheet's conversations, by cells."""
    parts = (name for name in book.archive.namelist() if threads and name.startswith("xl/persons/"))
    people = [person for part in parts for person in book.part(part)]
    names = {person.get("id"): person.get("displayName", "") for person in people}
    found = dict[str, list[str]]()
    for comment in (comment for thread in threads for comment in thread):
        who = escaped(names.get(comment.get("personId"), "")), comment.get("dT", "")[:10]
        text = " ".join(map(text_of, comment.iterfind("{*}text")))
        found.setdefault(comment.get("ref", ""), []).append(
            ": ".join(filter(None, (" ".join(filter(None, who)), text)))
        )
    return found
