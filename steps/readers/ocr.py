"""Pictures of text to text (OCR), offline. The only module that knows rapidocr.

Its models come inside its package (32 MB). One engine for the whole process, one picture at a
time: it takes 700 MB while it reads, and a page takes seconds on a processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from threading import Lock
from typing import Any

REMEDY = "To read it install the extra: pip install 'paddock[ocr]'."
_THREADS = 2  # the models of the run need the processor as well
_MOST_SIDE_PX = 2400  # of what it is shown: A4 at 200 dots an inch
_FIND_SIDE_PX = 1280  # where lines are looked for; they are read at full size
_LEAST_SCORE = 0.5
_SAME_LINE = 0.5  # two boxes whose heights overlap by so much stand in one line
_PARAGRAPH_GAP = 1.2  # of a line's height, free above it
_COLUMN_GAP = 3.0


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


def is_installed() -> bool:
    """Tell whether pictures can be read at all; imports nothing."""
    return find_spec("rapidocr") is not None and find_spec("onnxruntime") is not None


def read(pixels: Any) -> str:
    """Read a picture: an array of height x width x 3 bytes, blue first.

    The text comes line by line; an empty text: nothing to read is on it.
    """
    return _engine().read(pixels)


def joined(boxes: Sequence[Box]) -> str:
    """Put pieces into lines, from top to bottom and from left to right.

    Empty lines stand between paragraphs, tabulators in wide gaps, as tables have them.

    >>> joined([Box("Total", 0, 0, 50, 10), Box("9.50", 200, 1, 240, 11)]).split()
    ['Total', '9.50']
    """
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
        is_wide = box.left - before.right > _COLUMN_GAP * box.height
        text += ("\t" if is_wide else " ") + box.text
    return text


class _Engine:
    """The library's engine, made when it is first needed."""

    def __init__(self) -> None:
        from rapidocr import RapidOCR

        self._lock = Lock()
        # Its own types say what a call may give; ours gives text, places and scores.
        self._engine: Any = RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.max_side_len": _MOST_SIDE_PX,
                "Det.limit_type": "max",
                "Det.limit_side_len": _FIND_SIDE_PX,
                "EngineConfig.onnxruntime.intra_op_num_threads": _THREADS,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

    def read(self, pixels: Any) -> str:
        """Read one picture; others wait."""
        with self._lock:
            found = self._engine(pixels)
        if found.txts is None:
            return ""
        boxes = [
            _box(text, corners)
            for text, score, corners in zip(found.txts, found.scores, found.boxes, strict=True)
            if score >= _LEAST_SCORE and text.strip()
        ]
        return joined(boxes)


def _box(text: str, corners: Any) -> Box:
    """Give the upright box around four corners."""
    across = [float(corner[0]) for corner in corners]
    down = [float(corner[1]) for corner in corners]
    return Box(text.strip(), min(across), min(down), max(across), max(down))


@cache
def _engine() -> _Engine:
    """Give the engine of this process; two threads that come first at once make two, once."""
    return _Engine()
