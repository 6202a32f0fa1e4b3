"""Excel workbooks to Markdown: a sheet is a page, with comments, text boxes and charts' titles.

A formula is shown by its last value, as the file keeps it, or by itself where there is none. What a
sheet hides is read and noted; what is embedded is noted and not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO
from xml.etree import ElementTree

from paddock.engine.system.records import record
from paddock.engine.system.text import counted
from paddock.pipelines.text_marks import escaped, hidden, struck

from .document_kinds import MEDIA_TYPES
from .inner_documents import InnerPictures
from .office import (
    DRAWN_TEXT,
    MOST_WHOLE,
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
from .reader import Document, ReadRequest
from .sheet_cells import MOST_DIGITS, WORKBOOK, Cell, SheetCells, Workbook, shown_value

_MOST_CELLS = 2_000_000


def read_xlsx(file: BinaryIO, request: ReadRequest) -> Document:
    with damage_errors(WORKBOOK):
        return _workbook_text(Workbook(file, _MOST_CELLS), request)


def _workbook_text(book: Workbook, request: ReadRequest) -> Document:
    pages: list[str] = []
    unshown: list[str] = []
    kinds: list[str] = []
    counts, pictures = _Counts(), InnerPictures(request)
    hidden_sheets = [sheet.title for sheet in book.sheets if not sheet.is_visible]
    for sheet in book.sheets:
        related = book.related(sheet.part)
        found = book.read(sheet, request.check)
        n_unseen = counts.n_unseen
        rows = _texts(found, counts, has_white=all(kind != "table" for kind, _ in related))
        margins = [f"- {escaped(text)}" for text in dict.fromkeys(map(_margin_text, found.margins))]
        margins = [line for line in margins if line != "- "]
        footer = "\n".join(["Headers and footers:", *margins]) if margins else ""
        blocks = [markdown_table(rows), *_sheet_comments(book, sheet.part), footer]
        content = with_note_marks("\n\n".join(filter(None, blocks)))
        drawings = [inner for kind, inner in related if kind == "drawing"]
        images = (part for inner in drawings for part in book.related(inner))
        seen = pictures.text(book.archive.read(part) for kind, part in images if kind == "image")
        content = "\n\n".join(filter(None, (content, seen)))
        shown = content if sheet.is_visible else hidden(content)
        pages.append(f"# {escaped(sheet.title)}\n\n{shown}" if content else "")
        words = [
            (len(found.hidden_rows), "row", "rows"),
            (len(found.hidden_columns), "group of columns", "groups of columns"),
            (counts.n_unseen - n_unseen, "cell", "cells"),
        ]
        parts = ", ".join(counted(*count) for count in words if count[0])
        unshown += [f"{sheet.title}: {parts}"] if parts else []
        kinds += [kind for kind, _ in related]
    for name in book.archive.namelist():
        if name.startswith("xl/chartsheets/sheet"):
            pages += _sheet_comments(book, name)
    notes = [*(damage := book.damage())]
    if counts.n_bare:
        notes.append(
            f": {counts.n_bare:,} of its formulas have no stored value and are shown as they are "
            f"written; open and save it in a spreadsheet program to have their values"
        )
    if hidden_sheets:
        notes.append(f": hidden sheets are read as well ({', '.join(hidden_sheets)})")
    if unshown:
        notes.append(f": hidden rows, columns and cells are read as well ({'; '.join(unshown)})")
    notes += (*embedded_notes(kinds), *pictures.notes())
    if counts.n_rounded:
        numbers = counted(counts.n_rounded, "number has", "numbers have")
        notes.append(
            f": {numbers} more than 15 digits, which is what a spreadsheet program keeps of a "
            f"number; store them as text to keep all digits"
        )
    refuse_textless(WORKBOOK, "".join(pages), (), damage)
    return Document(tuple(pages), book.title, MEDIA_TYPES["xlsx"], tuple(notes))


@record
class _Counts:
    n_bare: int = 0
    """Formulas without a stored value."""
    n_rounded: int = 0
    n_unseen: int = 0
    """Cells with something in them that their style hides."""


def _texts(sheet: SheetCells, counts: _Counts, *, has_white: bool) -> list[list[str]]:
    """Return a sheet's rows as texts with their marks, without empty ones.

    `has_white`: whether a white font is white on white; a table's style may give a fill.
    """
    rows, gone = list[list[str]](), set[int]().union(*sheet.hidden_columns)
    counts.n_bare += sheet.n_bare
    for number, cells in enumerate(sheet.rows, 1):
        texts = []
        for at, cell in enumerate(cells, 1):
            is_number = isinstance(cell.value, float)
            counts.n_rounded += is_number and MOST_DIGITS <= abs(cell.value) < MOST_WHOLE
            if text := _cell_text(cell):
                is_unseen = cell.style.is_unseen or (has_white and cell.style.is_white)
                counts.n_unseen += is_unseen
                is_gone = is_unseen or number in sheet.hidden_rows or at in gone
                text = struck(text) if cell.style.is_struck else text
                text = hidden(text) if is_gone else text
            texts.append(text)
        if any(texts):
            rows.append(texts)
    return rows


def _cell_text(cell: Cell) -> str:
    if isinstance(cell.value, tuple):
        return marked([(escaped(text), look) for text, look in cell.value])[0]
    if isinstance(cell.value, str) or cell.value is None:
        return escaped(cell.value or cell.formula)
    return shown_value(cell.value)


_MARGIN_CODE = re.compile(r'&(?:"[^"]*"|K[0-9A-Fa-f]{2}[0-9A-Fa-f+-]{4}|\d+|[A-Za-z])')
"""Fonts, sizes, places, page numbers and dates in headers and footers."""


def _sheet_comments(book: Workbook, sheet: str) -> Iterator[str]:
    """Yield the comments of a sheet by their cells, the texts of its boxes, and charts' titles."""
    comments: list[str] = []
    texts: list[str] = []
    charts: list[str] = []
    related = list(book.related(sheet))
    threads = [book.part(path) for kind, path in related if kind == "threadedComment"]
    for kind, path in related:
        if kind == "comments":
            conversations = _thread_texts(book, threads)
            comments += _comment_lines(book.part(path), conversations)
        elif kind == "drawing":
            texts += _drawn_lines(book.part(path))
            for what, part in book.related(path):
                if what == "chart":
                    title = chart_titles(book.part(part))
                    charts.append(f"- {title or 'without a title'}")
                elif what == "diagramData":
                    texts += _drawn_lines(book.part(part))
    for name, lines in (("Comments", comments), ("Text boxes", texts), ("Charts", charts)):
        if lines:
            yield "\n".join([f"{name}:", *lines])


def _margin_text(written: str) -> str:
    """Return the words of a header or footer.

    >>> _margin_text('&L&"Arial,Bold"&12Smith && Co&RPage &P')
    'Smith & Co Page'
    """
    parts = written.split("&&")
    return " ".join("&".join(_MARGIN_CODE.sub(" ", part) for part in parts).split())


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


def _thread_texts(book: Workbook, threads: Sequence[ElementTree.Element]) -> dict[str, list[str]]:
    """Return what people say in a sheet's conversations, by cells."""
    parts = (name for name in book.archive.namelist() if threads and name.startswith("xl/persons/"))
    people = [person for part in parts for person in book.part(part)]
    names = {person.get("id"): person.get("displayName", "") for person in people}
    found = dict[str, list[str]]()
    for comment in (comment for thread in threads for comment in thread):
        name = escaped(names.get(comment.get("personId"), ""))
        text = " ".join(map(text_of, comment.iterfind("{*}text")))
        found.setdefault(comment.get("ref", ""), []).append(": ".join(filter(None, (name, text))))
    return found
