"""Text in images (OCR), offline: recognition, reading order, and image files as documents.

The only module that knows rapidocr and Pillow. The models come inside rapidocr's package (32 MB).
One engine for the whole process, one image at a time: it takes 700 MB while it reads, and a page
takes seconds on a processor. Boxes of text are joined in the order in which a page is read. Each
picture of an image file is a page.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from threading import Lock
from typing import Any, BinaryIO

from .reader import Document, ReadRequest, Unreadable

_SAME_LINE = 0.5  # boxes whose heights overlap by this share are in one line
_PARAGRAPH_GAP = 1.2  # of a line's height, free above it
_WIDE_GAP = 3.0  # of a line's height, free within it
_LEAST_LINES = 5  # of a column
_FILLED = 0.7  # of its column's width, which a line of running text has on average
_MOST_CROSSING = 0.2  # of a page's lines may go over both columns: titles, pictures' captions


@dataclass(frozen=True, slots=True)
class TextBox:
    """A piece of text and its box, in pixels."""

    text: str
    left: float
    top: float
    right: float
    bottom: float

    @property
    def height(self) -> float:
        return self.bottom - self.top


def join_boxes(boxes: Sequence[TextBox]) -> str:
    """Join boxes to lines, from top to bottom and from left to right.

    Paragraphs are separated by empty lines; wide gaps, as in tables, become tabs.

    >>> join_boxes([TextBox("Total", 0, 0, 50, 10), TextBox("9.50", 200, 1, 240, 11)]).split()
    ['Total', '9.50']
    """
    return "\n\n".join(_lines_text(region) for region in page_regions(boxes))


def page_regions(boxes: Sequence[TextBox]) -> list[list[TextBox]]:
    """Split a page into parts in reading order: its columns, if it has two.

    Tables have columns too, but are read across; in running text the lines fill their column. Lines
    across both columns stay between what is above and below.
    """
    at = _gutter(boxes)
    if at is None:
        return [list(boxes)] if boxes else []
    found: list[list[TextBox]] = []
    left: list[TextBox] = []
    right: list[TextBox] = []
    for box in sorted(boxes, key=lambda one: one.top):
        if box.left < at < box.right:
            found += [left, right, [box]]
            left, right = [], []
        else:
            (left if box.right <= at else right).append(box)
    return [region for region in (*found, left, right) if region]


def _gutter(boxes: Sequence[TextBox]) -> float | None:
    """Return where two columns are separated; None if there is one."""
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
    """Return whether lines of these lengths are text that fills a column of this width."""
    return len(lengths) >= _LEAST_LINES and sum(lengths) > _FILLED * width * len(lengths)


def _lines_text(boxes: Sequence[TextBox]) -> str:
    lines: list[list[TextBox]] = []
    for box in sorted(boxes, key=lambda one: (one.top + one.bottom, one.left)):
        if lines and _is_in_line(lines[-1], box):
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
        texts.append(_line_text(line))
        reached = max(box.bottom for box in line)
    return "\n".join(texts)


def _is_in_line(line: Sequence[TextBox], box: TextBox) -> bool:
    last = line[-1]
    shared = min(last.bottom, box.bottom) - max(last.top, box.top)
    return shared > _SAME_LINE * min(last.height, box.height)


def _line_text(boxes: Sequence[TextBox]) -> str:
    ordered = sorted(boxes, key=lambda box: box.left)
    text = ordered[0].text
    for before, box in pairwise(ordered):
        is_wide = box.left - before.right > _WIDE_GAP * box.height
        text += ("\t" if is_wide else " ") + box.text
    return text


INSTALL_OCR = "To read it install the extra: pip install 'paddock-llm[ocr]'."
_THREADS = 2  # the models of the run need the CPU too
_MOST_OCR_SIDE_PX = 2400  # of what it is shown: A4 at 200 dots an inch
_DETECTION_SIDE_PX = 1280  # where lines are looked for; they are read at full size
_LEAST_SIDE_PX = 6  # no letter is lower; the library would make such a strip 30 times as long
_LEAST_SCORE = 0.5


def ocr_is_installed() -> bool:
    """Return whether the extra is installed; imports nothing."""
    return find_spec("rapidocr") is not None and find_spec("onnxruntime") is not None


def recognise(pixels: Any) -> str:
    """Read a picture: an array of height x width x 3 bytes, blue first.

    The text has one line per line of the picture; empty if there is none.
    """
    return _ocr_engine().read(pixels) if min(pixels.shape[:2]) >= _LEAST_SIDE_PX else ""


class _OcrEngine:
    """The library's engine, made when it is first needed."""

    def __init__(self) -> None:
        from rapidocr import RapidOCR

        self._lock = Lock()
        # The library's types list all results; ours returns text, boxes and scores.
        self._engine: Any = RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.max_side_len": _MOST_OCR_SIDE_PX,
                "Det.limit_type": "max",
                "Det.limit_side_len": _DETECTION_SIDE_PX,
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
            _text_box(text, corners)
            for text, score, corners in zip(found.txts, found.scores, found.boxes, strict=True)
            if score >= _LEAST_SCORE and text.strip()
        ]
        return join_boxes(boxes)


def _text_box(text: str, corners: Any) -> TextBox:
    """Return the upright box around four corners."""
    across = [float(corner[0]) for corner in corners]
    down = [float(corner[1]) for corner in corners]
    return TextBox(text.strip(), min(across), min(down), max(across), max(down))


@cache
def _ocr_engine() -> _OcrEngine:
    """Return the engine of this process; two first threads may create two."""
    return _OcrEngine()


_MOST_PIXELS = 100_000_000  # 300 MB in memory; a photograph has 12 to 50 million
_MOST_IMAGE_SIDE_PX = 2400
_MOST_FRAMES = 500


def read_image(file: BinaryIO, wish: ReadRequest) -> Document:
    if not wish.ocr:
        raise Unreadable("is a picture, and `ocr` is off")
    if not ocr_is_installed():
        raise Unreadable("is a picture", INSTALL_OCR)
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about sizes, which are checked here
        try:
            with Image.open(file) as picture:
                return _read_pictures(picture, wish)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if isinstance(error, Unreadable):
                raise
            raise Unreadable("is damaged or not a picture") from error


def _read_pictures(picture: Any, wish: ReadRequest) -> Document:
    pages: list[str] = []
    n = getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1
    for index in range(min(n, _MOST_FRAMES)):
        wish.check()
        picture.seek(index)
        width, height = picture.size
        if width * height > _MOST_PIXELS:
            most = f"{_MOST_PIXELS // 1_000_000} million"
            raise Unreadable(f"has {width:,} x {height:,} pixels; at most {most} are read")
        pages.append(recognise(_pixels_of(picture)))
    notes = [": read from a picture by OCR"]
    if n > _MOST_FRAMES:
        notes.append(f": only the first {_MOST_FRAMES} of its {n} pictures were read")
    media_type = f"image/{(picture.format or 'unknown').lower()}"
    nothing = "has no text that OCR can read"
    return Document(tuple(pages), "", media_type, tuple(notes if any(pages) else ()), nothing)


def _pixels_of(picture: Any) -> Any:
    """Return it upright, on white, within size limits, as BGR."""
    import numpy as np
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(picture)
    upright.thumbnail((_MOST_IMAGE_SIDE_PX, _MOST_IMAGE_SIDE_PX))
    with_alpha = upright.convert("RGBA")
    white = Image.new("RGBA", with_alpha.size, "white")
    flat = Image.alpha_composite(white, with_alpha).convert("RGB")
    return np.asarray(flat)[:, :, ::-1].copy()
