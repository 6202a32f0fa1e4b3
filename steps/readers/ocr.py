"""Text in images (OCR), offline: recognition, reading order, and image files as documents.

The only module that knows rapidocr and Pillow. The models come inside rapidocr's package (32 MB).
One engine for the whole process, one image at a time: it takes 700 MB while it reads, and a page
takes seconds on a processor. Boxes of text are joined in the order in which a page is read. Each
picture of an image file is a page.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from threading import Lock
from typing import Any, BinaryIO

from . import reader
from .reader import Document, LineBox, ReadRequest, Unreadable

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


@dataclass(frozen=True, slots=True)
class SeenText:
    """The text of a picture, and where its pieces stand."""

    text: str
    lines: tuple[LineBox, ...] = ()


def join_boxes(boxes: Sequence[TextBox], width: float = 1.0, height: float = 1.0) -> SeenText:
    r"""Join boxes to lines, from top to bottom and from left to right.

    Paragraphs are separated by empty lines; wide gaps, as in tables, become tabs. `width` and
    `height` are the picture's: boxes are returned as fractions of them.

    >>> join_boxes([TextBox("Total", 0, 0, 50, 10), TextBox("9.50", 200, 1, 240, 11)]).text
    'Total\t9.50'
    """
    text, lines = "", list[LineBox]()
    for region in page_regions(boxes):
        text += "\n\n" if text else ""
        for before, box in _pieces(region):
            start = len(text) + len(before)
            text += before + box.text
            sides = (box.left / width, box.top / height, box.right / width, box.bottom / height)
            left, top, right, bottom = (round(min(max(side, 0.0), 1.0), 4) for side in sides)
            lines.append((start, len(text), left, top, right, bottom))
    return SeenText(text, tuple(lines))


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
    for box in sorted(boxes, key=lambda box: box.top):
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
    places = (start + (end - start) * share / 100 for share in range(35, 66))
    n_crossing = {at: sum(box.left < at < box.right for box in boxes) for at in places}
    fewest = min(n_crossing.values())
    free = [at for at, n in n_crossing.items() if n == fewest]
    at = free[len(free) // 2]
    is_text = _is_column(boxes, start, at) and _is_column(boxes, at, end)
    return at if is_text and fewest <= _MOST_CROSSING * len(boxes) else None


def _is_column(boxes: Sequence[TextBox], start: float, end: float) -> bool:
    """Return whether the lines between two places are text that fills a column there."""
    widths = [box.right - box.left for box in boxes if start <= box.left and box.right <= end]
    return len(widths) >= _LEAST_LINES and sum(widths) > _FILLED * (end - start) * len(widths)


def _pieces(boxes: Sequence[TextBox]) -> Iterator[tuple[str, TextBox]]:
    """Yield boxes in reading order, each with the white space before it."""
    reached = None
    for line in _lines(boxes):
        top = min(box.top for box in line)
        height = sum(box.height for box in line) / len(line)
        is_apart = reached is not None and top - reached > _PARAGRAPH_GAP * height
        before = "" if reached is None else "\n\n" if is_apart else "\n"
        ordered = sorted(line, key=lambda box: box.left)
        yield before, ordered[0]
        for last, box in pairwise(ordered):
            yield ("\t" if box.left - last.right > _WIDE_GAP * box.height else " "), box
        reached = max(box.bottom for box in line)


def _lines(boxes: Sequence[TextBox]) -> list[list[TextBox]]:
    lines: list[list[TextBox]] = []
    for box in sorted(boxes, key=lambda box: (box.top + box.bottom, box.left)):
        if lines and _is_in_line(lines[-1], box):
            lines[-1].append(box)
        else:
            lines.append([box])
    return lines


def _is_in_line(line: Sequence[TextBox], box: TextBox) -> bool:
    last = line[-1]
    shared = min(last.bottom, box.bottom) - max(last.top, box.top)
    return shared > _SAME_LINE * min(last.height, box.height)


INSTALL_OCR = "To read it install the extra: pip install 'paddock-llm[ocr]'."
_THREADS = 2  # the models of the run need the CPU too
_MOST_OCR_SIDE_PX = 2400  # of what it is shown: A4 at 200 dots an inch
_DETECTION_SIDE_PX = 1280  # where lines are looked for; they are read at full size
_LEAST_SIDE_PX = 6  # no letter is lower; the library would make such a strip 30 times as long
_LEAST_SCORE = 0.5


def recognise(pixels: Any) -> SeenText:
    """Read a picture: an array of height x width x 3 bytes, blue first.

    The text has one line per line of the picture; empty if there is none.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < _LEAST_SIDE_PX:
        return SeenText("")
    return join_boxes(_ocr_engine().read(pixels), width, height)


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

    def read(self, pixels: Any) -> list[TextBox]:
        """Read one picture; others wait."""
        with self._lock:
            found = self._engine(pixels)
        if found.txts is None:
            return []
        return [
            _text_box(text, corners)
            for text, score, corners in zip(found.txts, found.scores, found.boxes, strict=True)
            if score >= _LEAST_SCORE and text.strip()
        ]


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


def _pillow() -> tuple[Any, Any]:
    from PIL import Image, ImageOps

    with suppress(ImportError):  # pictures of telephones; the extra `ocr` of earlier versions
        importlib.import_module("pi_heif").register_heif_opener()
    return Image, ImageOps


def read_image(file: BinaryIO, request: ReadRequest) -> Document:
    if not request.ocr:
        raise Unreadable("is a picture, and `ocr` is off")
    if not reader.ocr_is_installed():
        raise Unreadable("is a picture", INSTALL_OCR)
    with _opened_picture(file) as picture:
        return _read_pictures(picture, request)


@contextmanager
def _opened_picture(file: BinaryIO) -> Iterator[Any]:
    image, _ = _pillow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.MAX_IMAGE_PIXELS = None  # sizes are checked here, before anything is decoded
        try:
            with image.open(file) as picture:
                yield picture
        except (OSError, SyntaxError, ValueError) as error:
            if isinstance(error, Unreadable):
                raise
            file.seek(4)
            if file.read(4) == b"ftyp" and find_spec("pi_heif") is None:
                raise Unreadable("is a picture of the kind HEIC", INSTALL_OCR) from error
            raise Unreadable("is damaged or not a picture") from error


def _read_pictures(picture: Any, request: ReadRequest) -> Document:
    pages: list[SeenText] = []
    n = getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1
    for index in range(min(n, _MOST_FRAMES)):
        request.check()
        picture.seek(index)
        _refuse_large(picture)
        pages.append(recognise(_pixels_of(picture, _MOST_IMAGE_SIDE_PX)))
    notes = [": read from a picture by OCR"]
    if n > _MOST_FRAMES:
        notes.append(f": only the first {_MOST_FRAMES} of its {n} pictures were read")
    media_type = f"image/{(picture.format or 'unknown').lower()}"
    nothing = "has no text that OCR can read"
    texts = tuple(page.text for page in pages)
    return Document(
        texts,
        "",
        media_type,
        tuple(notes if any(texts) else ()),
        nothing,
        tuple(page.lines for page in pages),
    )


def draw_picture(file: BinaryIO, number: int, most_side_px: int) -> Any:
    """Return a picture of an image file, from 1, upright, as an array with blue first."""
    if find_spec("PIL") is None:
        raise Unreadable("is a picture", INSTALL_OCR)
    with _opened_picture(file) as picture:
        if not 1 <= number <= getattr(picture, "n_frames", 1):
            raise Unreadable(f"has no page {number}")
        picture.seek(number - 1)
        if picture.format == "JPEG":  # decoded at a fraction of its size
            picture.draft("RGB", (most_side_px, most_side_px))
        _refuse_large(picture)
        return _pixels_of(picture, most_side_px)


def _refuse_large(picture: Any) -> None:
    width, height = picture.size
    if width * height > _MOST_PIXELS:
        most = f"{_MOST_PIXELS // 1_000_000} million"
        raise Unreadable(f"has {width:,} x {height:,} pixels; at most {most} are read")


def _pixels_of(picture: Any, most_side_px: int) -> Any:
    """Return it upright, on white, within size limits, as BGR."""
    import numpy as np

    image, operations = _pillow()
    upright = operations.exif_transpose(picture)
    upright.thumbnail((most_side_px, most_side_px))
    with_alpha = upright.convert("RGBA")
    white = image.new("RGBA", with_alpha.size, "white")
    flat = image.alpha_composite(white, with_alpha).convert("RGB")
    return np.asarray(flat)[:, :, ::-1].copy()
