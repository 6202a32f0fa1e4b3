"""Reading order of text in a picture: from boxes to lines, columns and paragraphs.

Sideways and upside-down pages are joined as they are read; places are those on the page as shown.
"""

from __future__ import annotations

import re
from cmath import exp
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import inf

from paddock.engine.system.records import Struct
from paddock.pipelines.text_cells import PageBox, TextCell

from .page_layout import in_columns
from .page_rows import Row, Word, row_of

_SAME_LINE = 0.5  # boxes whose heights overlap by this share are in one line
_PARAGRAPH_GAP = 1.2  # of a line's height, free above it
_PADDING = 0.3  # of a box's height, free at each of its sides
_WIDE_GAP = 3.0  # of a line's height, free within it
_UNSURE = re.compile(
    "[\u00bc-\u00be\u2150-\u215e]|[\u00b2\u00b3\u00b9\u2070-\u2079]/|%(?=[oO0\u00b0])"
    "|[\u2030\u25a0-\u25a2\u2610-\u2612]"
)
"""Fractions, parts of a thousand and boxes: 3/4 is read as 1/2 with 0.94 to 0.99, a ticked box as
an empty one. Degrees are, too, but mean the same."""
_UNSURE_SCORE = 0.5  # of two signs, either
_WORDS = re.compile("[\u3040-\u9fff]|[^\\s\u3040-\u9fff]+")


class TextBox(Struct, frozen=True):
    text: str
    left: float
    top: float
    right: float
    bottom: float
    score: float = 1.0
    """How sure it is that the text is this one."""
    is_aside: bool = False
    """Whether it runs in another direction than most text."""

    @property
    def height(self) -> float:
        return self.bottom - self.top


class SeenText(Struct, frozen=True):
    """The text of a picture, where its pieces stand, and how sure each is."""

    text: str
    cells: tuple[TextCell, ...] = ()
    n_unsure: int = 0
    """Signs that models take for each other, however sure they are."""
    n_unread: int = 0
    """Lines that are there and cannot be read; they are not in the text."""
    foreign: str = ""
    """The script in which most of it is written, where no model here reads it."""
    has_known: bool = False
    """Whether what was known of the picture before is part of the text."""


def join_boxes(
    boxes: Sequence[TextBox],
    width: float = 1.0,
    height: float = 1.0,
    turns: int = 0,
    angle: float = 0.0,
) -> SeenText:
    r"""Join boxes to lines, from top to bottom and from left to right.

    Paragraphs are separated by empty lines; wide gaps, as in tables, become tabs. `width` and
    `height` are the picture's: boxes are returned as fractions of them. `turns`: how many quarters
    it was turned to the left before it was read, `angle`: the radians by which its lines fall, of
    which the boxes are freed; places are those before that, word by word, since a line that is not
    level cannot be cut later.

    >>> join_boxes([TextBox("Total", 0, 0, 50, 10), TextBox("9.50", 200, 1, 240, 11)]).text
    'Total\t9.50'
    """
    text, n_unsure = "", 0
    cells = list[TextCell]()
    for before, box in _pieces(boxes):
        start = len(text) + len(before)
        text += before + box.text
        unsure = [match.start() for match in _UNSURE.finditer(box.text)]
        n_unsure += len(unsure)
        words = _WORDS.finditer(box.text) if turns or angle or unsure else ()
        a_letter = (box.right - box.left) / max(1, len(box.text))
        for begin, end in [word.span() for word in words] or [(0, len(box.text))]:
            ends = box.left + a_letter * begin, box.left + a_letter * end
            corners = [complex(x, y) for x in ends for y in (box.top, box.bottom)]
            there = [corner * exp(1j * angle) for corner in corners] if angle else corners
            xs, ys = [at.real / width for at in there], [at.imag / height for at in there]
            sides = min(xs), min(ys), max(xs), max(ys)
            within = [round(min(max(side, 0.0), 1.0), 4) for side in sides]
            place = _turned_back(within, turns)
            is_sure = not any(begin <= at < end for at in unsure)
            score = box.score if is_sure else min(box.score, _UNSURE_SCORE)
            cells.append(TextCell(start + begin, start + end, place, p=round(score, 3)))
    return SeenText(text, tuple(cells), n_unsure)


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
    for line in _lines([box for box in boxes if not box.is_aside]):
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
    for box in sorted((box for box in boxes if box.is_aside), key=lambda box: box.top):
        yield before, box
        before = "\n\n"


def _word(box: TextBox) -> Word:
    # A box is larger than its letters, so that gaps look narrower than they are.
    white = min(_PADDING * box.height, (box.right - box.left) / 4)
    sides = box.left + white, -box.bottom, box.right - white, -box.top
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
