"""Cells of a document's text: words of a page, lines that OCR read, cells of tables, lines.

Evidence, rules and tables ask `SourceText` where a piece of text stands: no file is read again.
Only what the text does not show is kept with it: a page's boxes are one short text, `pack_cells`:
numbers, zlib, base64. It travels from reader processes and is kept with the outputs, a few bytes a
word. Tables have one form in all texts, so that reading them costs and keeps nothing more.
"""

from __future__ import annotations

import re
import zlib
from array import array
from base64 import b64decode, b64encode
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate, chain, pairwise, repeat
from operator import mul, sub
from typing import TypeAlias
from unicodedata import east_asian_width

from paddock.engine.system.records import Struct, field, replace

from .e_invoices import EInvoice
from .text_tables import table_rows

PageBox: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom as fractions of a page as it is shown, from its top left."""

_UNITS = 10_000  # of a page's side: a twentieth of a millimetre on A4
_NO_BOX = (-1 / _UNITS,) * 4
_SURE = 1000  # of OCR
_N_FIELDS = 9
_TITLE = re.compile(r"# .*\n\n")
_LINE = re.compile(r"\S(?:.*\S)?")
_APART = re.compile(r"\s{2,}|\t|\s\|\s")
_GAP_LETTERS = 1.2  # between cells of a row: a space has half a letter's width
_SIDE = 1_000.0  # of a column of a table whose cells have no boxes
_MARGIN_LETTERS = 0.5
_NARROW = frozenset(" .,:;'|!ijltfrI()[]/-")
_WIDE = frozenset("mwMW@%")
_MOST_BYTES = 8 * 1024 * 1024  # of a page: 200,000 words


class TextCell(Struct, frozen=True):
    """A piece of a text that stands in one place."""

    start: int
    end: int
    """Offsets in the text; it has no white space at its ends."""
    box: PageBox | None = None
    row: int = 0
    column: int = 0
    """From 1, of a cell of a table, as the text shows it; 0: it is in none."""
    p: float | None = None
    """How sure OCR is of it, 1 of forms and comments; None: it is the page's own text."""


def page_cells(
    text: str, packed: str = "", offset: int = 0, *, is_csv: bool = False
) -> list[TextCell]:
    r"""Return the cells of a page, sheet, chapter or mail, in the order of its text.

    1. Words with boxes, of tables with row and column, and what OCR read: of PDFs and pictures.
    2. Else each cell of a table that is not empty; `is_csv`: the whole text is one.
    3. And each line beside tables.

    A table begins with its row 1. `offset` is added to places: that of the page in its document.

    >>> text = "# Bill 7\n\n| Goods | EUR |\n| --- | --- |\n| A\\|B | 5 |\n\nTotal: 5"
    >>> [(text[cell.start : cell.end], cell.row, cell.column) for cell in page_cells(text)][3:]
    [('A\\|B', 2, 1), ('5', 2, 2), ('Total: 5', 0, 0)]

    Raises:
        ValueError: `packed` is none of `pack_cells`.
    """
    if packed:
        return unpack_cells(packed, offset)  # 1
    title = _TITLE.match(text)  # of what is attached
    begin = title.end() if title else 0
    shift, found, at = offset + begin, list[TextCell](), 0

    def add_lines(end: int) -> None:  # 3
        lines = (line.span() for line in _LINE.finditer(text, at, end))
        found.extend(TextCell(offset + a, offset + b) for a, b in lines)

    for number, (start, stop), cells in table_rows(text[begin:], is_csv=is_csv):
        add_lines(begin + start)
        at = begin + stop
        for column, (a, b) in enumerate(cells, 1):  # 2
            if a < b:
                found.append(TextCell(a + shift, b + shift, None, number, column))
    add_lines(len(text))
    return found


class PlacedCell(Struct):
    """What stands together in a row of a page, a table or a text."""

    text: str
    start: int
    """Its offset in the source."""
    left: float
    right: float


class SourceText(Struct, frozen=True):
    """A text or a document that was read, with the places of what stands in it."""

    name: str
    """The document's path as the pipeline names it, else the expression. No other has it."""
    text: str
    part_starts: Sequence[int] = (0,)
    """Offsets at which its pages, sheets, chapters or mails begin."""
    is_paged: bool = False
    """Whether these are pages that people see."""
    path: str = ""
    """The document's, as the pipeline names it; empty: the text is of no document."""
    media_type: str = ""
    only_page: int | None = None
    """The page that the whole text is of."""
    boxes: Mapping[str, str] = field(default_factory=dict)
    """By the number of a page, where its words stand; packed."""
    invoices: Sequence[EInvoice] = ()

    @property
    def page_starts(self) -> Sequence[int]:
        """Return the offsets at which pages begin; empty: it has no pages."""
        return self.part_starts if self.is_paged else ()

    def part_of(self, offset: int) -> int:
        """Return the number of the part in which something stands, from 1."""
        return max(1, bisect_right(self.part_starts, offset))

    def cells(self, number: int) -> list[TextCell]:
        """Return the cells of a part, from 1, by offsets in the whole text."""
        begin, end = [*self.part_starts, len(self.text)][number - 1 : number + 1]
        part, is_csv = self.text[begin:end], self.media_type == "text/csv"
        with suppress(ValueError):  # what a pipeline made may look like a document
            return page_cells(part, self.boxes.get(str(number), ""), begin, is_csv=is_csv)
        return []

    def rows(self, cells: Sequence[TextCell]) -> Iterator[list[PlacedCell]]:
        """Yield the rows that cells of a part stand in, each from left to right.

        1. Words with boxes: as the page shows them, with a gap between cells.
        2. Else the rows of tables, and lines with what stands apart in them.
        """
        boxed = [cell for cell in cells if cell.box is not None]
        if any(word.start < word.end for word in boxed):
            yield from _rows_of_words(self.text, boxed)  # 1
            return
        row, last = list[PlacedCell](), 0
        for cell in cells:  # 2
            shown = self.text[cell.start : cell.end]
            if row and (not cell.row or cell.row != last):
                yield row
                row = []
            last = cell.row
            if cell.row:
                sides = cell.column * _SIDE, cell.column * _SIDE + 1
                row.append(PlacedCell(shown, cell.start, *sides))
                continue
            gaps = [(0, 0), *(found.span() for found in _APART.finditer(shown)), (len(shown),) * 2]
            at = cell.start - self.text.rfind("\n", 0, cell.start)
            is_even = "\t" not in shown  # else by number: a tab is of any width
            row = [
                PlacedCell(
                    shown[a:b],
                    cell.start + a,
                    at + a if is_even else number * _SIDE,
                    at + b if is_even else number * _SIDE + 1,
                )
                for number, ((_, a), (b, _)) in enumerate(pairwise(gaps), 1)
                if a < b
            ]
        if row:
            yield row


def _rows_of_words(text: str, words: Sequence[TextCell]) -> Iterator[list[PlacedCell]]:
    places = [(*word.box, word) for word in words if word.box is not None and word.end > word.start]
    widths = sorted((right - left) / (w.end - w.start) for left, _, right, _, w in places)
    letter = widths[len(widths) // 2]
    places.sort(key=lambda place: (place[1] + place[3], place[0]))
    rows, at = list[list[tuple[float, float, float, float, TextCell]]](), -1.0
    for place in places:
        middle, height = (place[1] + place[3]) / 2, place[3] - place[1]
        if not rows or middle - at > height / 2:
            rows.append([])
            at = middle
        rows[-1].append(place)
    for row in rows:
        cells, last = list[PlacedCell](), -1.0
        for left, _, right, _, word in sorted(row, key=lambda place: place[0]):
            shown = text[word.start : word.end]
            if shown == "|":
                last = -1.0
            elif cells and left - last <= _GAP_LETTERS * letter:
                cells[-1].text, cells[-1].right, last = f"{cells[-1].text} {shown}", right, right
            else:
                cells.append(PlacedCell(shown, word.start, left, right))
                last = right
        yield cells


def moved_cells(cells: Sequence[TextCell], offset: int) -> tuple[TextCell, ...]:
    return tuple(replace(cell, start=cell.start + offset, end=cell.end + offset) for cell in cells)


def pack_cells(cells: Sequence[TextCell]) -> str:
    """Return cells as a text; empty: there are none.

    >>> unpack_cells(pack_cells([TextCell(0, 5, (0.1, 0.2, 0.3, 0.4)), TextCell(6, 9, row=1)]))[0]
    TextCell(start=0, end=5, box=(0.1, 0.2, 0.3, 0.4), row=0, column=0, p=None)
    """
    boxes = zip(*[cell.box or _NO_BOX for cell in cells], strict=True)
    fields = (
        [cell.start for cell in cells],
        [cell.end for cell in cells],
        *(list(map(round, map(mul, sides, repeat(_UNITS)))) for sides in boxes),
        [cell.row for cell in cells],
        [cell.column for cell in cells],
        [-1 if cell.p is None else round(cell.p * _SURE) for cell in cells],
    )
    # By field, as differences: neighbours are alike, which zlib makes use of.
    columns = (map(sub, column, (0, *column)) for column in fields)
    packed = array("i", chain.from_iterable(columns)).tobytes()
    return b64encode(zlib.compress(packed, 1)).decode() if cells else ""


def unpack_cells(text: str, offset: int = 0) -> list[TextCell]:
    """Return the cells of a packed text, `offset` further on.

    Raises:
        ValueError: it is none.
    """
    if not text:
        return []
    values = array("i")
    try:
        values.frombytes(zlib.decompressobj().decompress(b64decode(text), _MOST_BYTES))
    except zlib.error as error:
        raise ValueError(f"these are no cells: {error}") from error
    n_cells, rest = divmod(len(values), _N_FIELDS)
    if rest:
        raise ValueError("these are no cells: one lacks a field")
    ends = range(0, len(values) + 1, n_cells)
    columns = [list(accumulate(values[start:end])) for start, end in pairwise(ends)]
    return [
        TextCell(
            offset + start,
            offset + end,
            None if sides[0] < 0 else tuple(side / _UNITS for side in sides),
            row,
            column,
            None if p < 0 else p / _SURE,
        )
        for start, end, *sides, row, column, p in zip(*columns, strict=True)
    ]


def quote_box(text: str, cells: Sequence[TextCell], start: int, end: int) -> list[float] | None:
    """Return the box around a piece of a text, whose cells are those of one page.

    A word or line is cut by the usual widths of its letters, and half a letter more at either side.

    >>> quote_box("Total: 84.00", [TextCell(0, 12, (0.0, 0.5, 1.0, 0.6))], 7, 12)
    [0.4872, 0.5, 1.0, 0.6]
    """
    cut: list[PageBox] = []
    for cell in cells:
        first, last = max(start, cell.start), min(end, cell.end)
        if first < last and cell.box is not None:
            left, top, right, bottom = cell.box
            reached = list(accumulate(map(_letter_width, text[cell.start : cell.end]), initial=0.0))
            share = (right - left) / reached[-1]
            begin = left + share * (reached[first - cell.start] - _MARGIN_LETTERS)
            stop = left + share * (reached[last - cell.start] + _MARGIN_LETTERS)
            cut.append((max(left, begin), top, min(right, stop), bottom))
    if not cut:
        return None
    lefts, tops, rights, bottoms = zip(*cut, strict=True)
    return [round(side, 4) for side in (min(lefts), min(tops), max(rights), max(bottoms))]


def _letter_width(letter: str) -> float:
    if letter in _NARROW:
        return 0.5
    if letter in _WIDE or east_asian_width(letter) in "WF":
        return 1.6
    return 1.25 if letter.isupper() else 1.0
