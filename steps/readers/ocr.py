"""Pictures of text to text (OCR), offline. The only module that knows rapidocr.

Its models come inside its package (32 MB). One engine for the whole process, one picture at a
time: it takes 700 MB while it reads, and a page takes seconds on a processor.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from threading import Lock
from typing import Any

from .layout import Box, joined

REMEDY = "To read it install the extra: pip install 'paddock-llm[ocr]'."
_THREADS = 2  # the models of the run need the processor as well
_MOST_SIDE_PX = 2400  # of what it is shown: A4 at 200 dots an inch
_FIND_SIDE_PX = 1280  # where lines are looked for; they are read at full size
_LEAST_SIDE_PX = 6  # no letter is lower; the library would make such a strip 30 times as long
_LEAST_SCORE = 0.5


def is_installed() -> bool:
    """Tell whether pictures can be read at all; imports nothing."""
    return find_spec("rapidocr") is not None and find_spec("onnxruntime") is not None


def read(pixels: Any) -> str:
    """Read a picture: an array of height x width x 3 bytes, blue first.

    The text comes line by line; an empty text: nothing to read is on it.
    """
    return _engine().read(pixels) if min(pixels.shape[:2]) >= _LEAST_SIDE_PX else ""


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
