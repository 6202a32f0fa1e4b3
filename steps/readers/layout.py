"""Pieces of text on a page, in the order in which one reads them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_SAME_LINE = 0.5  # two boxes whose heights overlap by so much stand in one line
_PARAGRAPH_GAP = 1.2  # of a line's height, free above it
_WIDE_GAP = 3.0  # of a line's height, free within it
_LEAST_LINES = 5  # of a column
_FILLED = 0.7  # of its column's width, which a line of running text has on average
_MOST_CROSSING = 0.2  # of a page's lines may go over both columns: titles, pictures' captions


@dataclass(frozen=True, slots=True)
class Box:
    """A piece of text and where it stands, in pixels."""

    text: str
    left: float
    top: float
    right: float
    bottom: float

    @property
    def height(self) -> float:
        """How high it is."""
        return self.bottom - self.top


def joined(boxes: Sequence[Box]) -> str:
    """Put pieces into lines, from top to bottom and from left to right.

    Empty lines stand between paragraphs, tabulators in wide gaps, as tables have them.

    >>> joined([Box("Total", 0, 0, 50, 10), Box("9.50", 200, 1, 240, 11)]).split()
    ['Total', '9.50']
    """
    return "\n\n".join(_lines(region) for region in regions(boxes))


def regions(boxes: Sequence[Box]) -> list[list[Box]]:
    """Part a page into what is read one after the other: its columns, if it has two.

    Cells of a table stand in columns as well and are read across; what tells running text is that
    its lines fill their column. Lines over both columns stay between what is above and below.
    """
    at = _gutter(boxes)
    if at is None:
        return [list(boxes)] if boxes else []
    found: list[list[Box]] = []
    left: list[Box] = []
    right: list[Box] = []
    for box in sorted(boxes, key=lambda one: one.top):
        if box.left < at < box.right:
            found += [left, right, [box]]
            left, right = [], []
        else:
            (left if box.right <= at else right).append(box)
    return [region for region in (*found, left, right) if region]


def _gutter(boxes: Sequence[Box]) -> float | None:
    """Find where a page of two columns parts; None if it has one."""
    if len(boxes) < 2 * _LEAST_LINES:
        return None
    start, end = min(box.left for box in boxes), max(box.right for box in boxes)
    places = [start + (end - start) * share / 100 for share in range(35, 66)]

    def n_crossing(at: float) -> int:
        return sum(box.left < at < box.right for box in boxes)

    fewest = min(map(n_crossing, places))
    free = [at for at in places if n_crossing(at) == fewest]
    at = free[len(free) // 2]
    left = [box.right - box.left for box in boxes if box.right <= at]
    right = [box.right - box.left for box in boxes if box.left >= at]
    is_text = _is_running(left, at - start) and _is_running(right, end - at)
    return at if is_text and fewest <= _MOST_CROSSING * len(boxes) else None


def _is_running(lengths: Sequence[float], width: float) -> bool:
    """Tell whether lines of these lengths are text that fills a column of this width."""
    return len(lengths) >= _LEAST_LINES and sum(lengths) > _FILLED * width * len(lengths)


def _lines(boxes: Sequence[Box]) -> str:
    lines: list[list[Box]] = []
    for box in sorted(boxes, key=lambda one: (one.top + one.bottom, one.left)):
        if lines and _is_beside(lines[-1], box):
            lines[-1].append(box)
        else:
            lines.append([box])
    texts: list[str] = []
    reached = None
    for line in lines:
        top = min(box.top for box in line)
        height = sum(box.height for box in line) / len(line)
        if reached is not None and top - reached > _PARAGRAPH_GAP * height:
            texts.append("")
        texts.append(_line(line))
        reached = max(box.bottom for box in line)
    return "\n".join(texts)


def _is_beside(line: Sequence[Box], box: Box) -> bool:
    last = line[-1]
    shared = min(last.bottom, box.bottom) - max(last.top, box.top)
    return shared > _SAME_LINE * min(last.height, box.height)


def _line(boxes: Sequence[Box]) -> str:
    ordered = sorted(boxes, key=lambda box: box.left)
    text = ordered[0].text
    for before, box in pairwise(ordered):
        is_wide = box.left - before.right > _WIDE_GAP * box.height
        text += ("\t" if is_wide else " ") + box.text
    return text
