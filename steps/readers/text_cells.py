"""Cells of a document's text: words of a page, lines that OCR read, cells of tables.

A reader knows where each piece of its text stands; who asks later does not read the file again. A
page's cells are one short text, `pack_cells`: numbers, zlib, base64. It travels from reader
processes and is kept with the outputs, a few bytes a word.
"""

from __future__ import annotations

import zlib
from array import array
from base64 import b64decode, b64encode
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from operator import sub

from paddock.engine.system.records import record, replace

from .reader import PageBox

_UNITS = 10_000  # of a page's side: a twentieth of a millimetre on A4
_SURE = 1000  # of OCR
_N_FIELDS = 9
_MOST_BYTES = 8 * 1024 * 1024  # of a page: 200,000 words


@record(frozen=True, slots=True)
class TextCell:
    """A piece of a page's text that stands in one place."""

    start: int
    end: int
    """Offsets in the page's text."""
    box: PageBox | None = None
    row: int = 0
    column: int = 0
    """From 1, of a cell of a table."""
    p: float | None = None
    """How sure OCR is of it, 1 of forms and comments; None: it is the page's own text."""


def moved_cells(cells: Sequence[TextCell], offset: int) -> tuple[TextCell, ...]:
    return tuple(replace(cell, start=cell.start + offset, end=cell.end + offset) for cell in cells)


def pack_cells(cells: Sequence[TextCell]) -> str:
    """Return cells as a text; empty: there are none.

    >>> unpack_cells(pack_cells([TextCell(0, 5, (0.1, 0.2, 0.3, 0.4)), TextCell(6, 9, row=1)]))[0]
    TextCell(start=0, end=5, box=(0.1, 0.2, 0.3, 0.4), row=0, column=0, p=None)
    """
    rows = [
        (
            cell.start,
            cell.end,
            *((-1,) * 4 if cell.box is None else [round(side * _UNITS) for side in cell.box]),
            cell.row,
            cell.column,
            -1 if cell.p is None else round(cell.p * _SURE),
        )
        for cell in cells
    ]
    # By field, as differences: neighbours are alike, which zlib makes use of.
    columns = (map(sub, column, (0, *column)) for column in zip(*rows, strict=True))
    packed = array("i", chain.from_iterable(columns)).tobytes()
    return b64encode(zlib.compress(packed, 1)).decode() if rows else ""


def unpack_cells(text: str) -> list[TextCell]:
    """Return the cells of a packed text.

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
            start,
            end,
            None if sides[0] < 0 else tuple(side / _UNITS for side in sides),
            row,
            column,
            None if p < 0 else p / _SURE,
        )
        for start, end, *sides, row, column, p in zip(*columns, strict=True)
    ]
