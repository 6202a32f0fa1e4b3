"""Reading order of text in a picture: from boxes to lines, columns and paragraphs.

Sideways and upside-down pages are joined as they are read; places are those on the page as shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import inf

from paddock.engine.system.records import Struct
from paddock.pipelines.text_cells import PageBox, TextCell

from .page_layout import in_columns
from .page_rows import Row, Word, row_of

_SAME_LINE = 0.5  # boxes whose heights overlap by this share are in one line
_PARAGRAPH_GAP = 1.2  # of a line's height, free above it
_WIDE_GAP = 3.0  # of a line's height, free within it
_WORDS = re.compile("[\u3040-\u9fff]|[^\\s\u3040-\u9fff]+")


class TextBox(Struct, frozen=True):
    text: str
    left: float
    top: float
    right: float
    bottom: float
    score: float = 1.0
    """How sure it is that the text is this one."""

    @property
    def height(self) -> float:
        return self.bottom - self.top


class SeenText(Struct, frozen=True):
    """The text of a picture, where its pieces stand, and how sure each is."""

    text: str
    cells: tuple[TextCell, ...] = ()
    n_unread: int = 0
    """Lines that are there and cannot be read; they are not in the text."""
    foreign: str = ""
    """The script in which most of it is written, where no model here reads it."""
    has_known: bool = False
    """Whether what was known of the picture before is part of the text."""


def join_boxes(
    boxes: Sequence[TextBox], width: float = 1.0, height: float = 1.0, turns: int = 0
) -> SeenText:
    r"""Join boxes to lines, from top to bottom and from left to right.

    Paragraphs are separated by empty lines; wide gaps, as in tables, become tabs. `width` and
    `height` are the picture's: boxes are returned as fractions of them. `turns`: how many quarters
    it was turned to the left before it was read; boxes are returned as before that, word by word,
    since a line that runs down or backwards cannot be cut later.

    >>> join_boxes([TextBox("Total", 0, 0, 50, 10), TextBox("9.50", 200, 1, 240, 11)]).text
    'Total\t9.50'
    """
    text = ""
    cells = list[TextCell]()
    for before, box in _pieces(boxes):
        start = len(text) + len(before)
        text += before + box.text
        words = _WORDS.finditer(box.text) if turns else ()
        a_letter = (box.right - box.left) / max(1, len(box.text))
        for begin, end in [word.span() for word in words] or [(0, len(box.text))]:
            left, right = box.left + a_letter * begin, box.left + a_letter * end
            sides = (left / width, box.top / height, right / width, box.bottom / height)
            within = [round(min(max(side, 0.0), 1.0), 4) for side in sides]
            place = _turned_back(within, turns)
            cells.append(TextCell(start + begin, start + end, place, p=round(box.score, 3)))
    return SeenText(text, tuple(cells))


def _turned_back(sides: Sequence[float], turns: int) -> PageBox:
    """Return a box of a picture that was turned to the left as one of the picture before.

    >>> _turned_back((0.25, 0.0, 0.5, 0.125), 1)
    (0.875, 0.25, 1.0, 0.5)
    """
    left, top, right, bottom = sides
    for _ in range(turns):
        left, top, right, bottom = 1 - bottom, left, 1 - top, right
    return round(left, 4), round(top, 4), round(right, 4), round(bottom, 4)


def _pieces(boxes: Sequence[TextBox]) -> Iterator[tuple[str, TextBox]]:
    """Yield boxes in reading order, each with the white space before it."""
    owners = dict[int, TextBox]()
    rows = list[Row]()
    for line in _lines(boxes):
        words = [_word(box) for box in line]
        owners.update(zip(map(id, words), line, strict=True))
        rows.append(row_of(words))
    before = ""
    for block in in_columns(rows):
        reached = inf
        for row in block:
            own = [owners[id(word)] for word in row.words]
            height = sum(box.height for box in own) / len(own)
            is_apart = min(box.top for box in own) - reached > _PARAGRAPH_GAP * height
            yield "\n\n" if is_apart else before, own[0]
            for last, box in pairwise(own):
                yield "\t" if box.left - last.right > _WIDE_GAP * box.height else " ", box
            before, reached = "\n", max(box.bottom for box in own)
        before = "\n\n"


def _word(box: TextBox) -> Word:
    sides = box.left, -box.bottom, box.right, -box.top
    is_of_style = False, True, False, False
    return Word(box.text, False, *sides, *sides[1::2], -box.bottom, box.height, *is_of_style)


def _lines(boxes: Sequence[TextBox]) -> list[list[TextBox]]:
    lines: list[list[TextBox]] = []
    for box in sorted(boxes, key=lambda box: (box.top + box.bottom, box.left)):
        last = lines[-1][-1] if lines else box
        shared = min(last.bottom, box.bottom) - max(last.top, box.top)
        is_aside = lines and all(a.right <= box.left or box.right <= a.left for a in lines[-1])
        if is_aside and shared > _SAME_LINE * min(last.height, box.height):
            lines[-1].append(box)
        else:
            lines.append([box])
    return [sorted(line, key=lambda box: box.left) for line in lines]
