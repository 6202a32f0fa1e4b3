"""Pictures as documents: each picture of an image file is a page, which OCR reads."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from io import BytesIO
from typing import Any, BinaryIO

from paddock.engine.system.text import counted
from paddock.pipelines.text_cells import pack_cells

from . import ocr_engine, reader
from .ocr_layout import SeenText
from .reader import Document, ReadRequest, Unreadable

INSTALL_OCR = "To read it install the extra: pip install 'paddock-llm[ocr]'."
_MOST_PIXELS = 100_000_000  # 300 MB in memory; a photograph has 12 to 50 million
_MOST_IMAGE_SIDE_PX = 2400
_MOST_FRAMES = 500
_LEAST_INNER_SIDE_PX, _LEAST_INNER_PIXELS = 24, 20_000  # a line of print has 400 x 50
_LEAST_INNER_BYTES = 8_000  # the same where the size is unknown


def _pillow() -> tuple[Any, Any]:
    from PIL import Image, ImageOps

    with suppress(ImportError):  # pictures of telephones; the extra `ocr` of earlier versions
        importlib.import_module("pi_heif").register_heif_opener()
    return Image, ImageOps


def read_image(file: BinaryIO, request: ReadRequest) -> Document:
    if not request.ocr:
        raise Unreadable("is a picture, and `ocr` is off")
    if not reader.is_installed("ocr"):
        raise Unreadable("is a picture", INSTALL_OCR)
    pages: list[SeenText] = []
    with _opened_picture(file) as picture:
        n_frames = getattr(picture, "n_frames", 1)
        n = n_frames if picture.format == "TIFF" else 1
        for index in range(min(n, _MOST_FRAMES)):
            request.check()
            picture.seek(index)
            _refuse_large(picture)
            pages.append(ocr_engine.recognise(_pixels_of(picture, _MOST_IMAGE_SIDE_PX)))
        media_type = f"image/{(picture.format or 'unknown').lower()}"
    unread = ""
    if n > _MOST_FRAMES:
        unread = f": only the first {_MOST_FRAMES} of its {n} pictures were read"
    elif n_frames > n:
        unread = f": only the first of its {n_frames} pictures was read"
    notes = [": read from a picture by OCR", *filter(None, [unread])]
    texts = tuple(page.text for page in pages)
    notes += unread_notes(dict(enumerate(pages, 1)), is_all=not any(texts))
    return Document(
        texts,
        "",
        media_type,
        tuple(notes if any(texts) else ()),
        f"has no text that OCR can read{unread}",
        tuple(pack_cells(page.cells) for page in pages),
    )


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


def unread_notes(pages: Mapping[int, SeenText], *, is_all: bool = False) -> Iterator[str]:
    """Yield what OCR has seen on pages, by their numbers, and cannot read.

    Raises:
        Unreadable: `is_all` of a document are in a script that no model here reads.
    """
    for script in dict.fromkeys(page.foreign for page in pages.values() if page.foreign):
        refusal = ocr_engine.foreign_refusal(script)
        if is_all:
            raise refusal
        which = page_ranges([n for n, page in pages.items() if page.foreign == script])
        yield f": left out is the text of {which}, which {refusal}. {refusal.remedy.rstrip('.')}"
    if n_unsure := {n: page.n_unsure for n, page in pages.items() if page.n_unsure}:
        signs = f"{counted(sum(n_unsure.values()), 'sign')} on {page_ranges(list(n_unsure))}"
        yield f": {signs} may be other ones: OCR mistakes fractions, per mille and ticked boxes"
    partly = [n for n, page in pages.items() if page.n_unread and not page.foreign]
    if partly:
        lines = counted(sum(pages[n].n_unread for n in partly), "line")
        yield f": left out is what OCR cannot read, {lines} of {page_ranges(partly)}"


def draw_picture(file: BinaryIO, number: int, most_side_px: int) -> Any:
    """Return a picture of an image file, from 1, upright, as an array with blue first."""
    with _opened_picture(file) as picture:
        if not 1 <= number <= getattr(picture, "n_frames", 1):
            raise Unreadable(f"has no page {number}")
        picture.seek(number - 1)
        if picture.format == "JPEG":  # decoded at a fraction of its size
            picture.draft("RGB", (most_side_px, most_side_px))
        _refuse_large(picture)
        return _pixels_of(picture, most_side_px)


def may_have_text(data: bytes) -> bool:
    """Return whether a picture within a document is larger than icons and most logos."""
    try:
        with _opened_picture(BytesIO(data)) as picture:
            width, height = picture.size
    except Unreadable:
        return len(data) >= _LEAST_INNER_BYTES
    return bool(
        min(width, height) >= _LEAST_INNER_SIDE_PX and width * height >= _LEAST_INNER_PIXELS
    )


def _refuse_large(picture: Any) -> None:
    width, height = picture.size
    if width * height > _MOST_PIXELS:
        most = f"{_MOST_PIXELS // 1_000_000} million"
        raise Unreadable(f"has {width:,} x {height:,} pixels; at most {most} are read")


def _pixels_of(picture: Any, most_side_px: int) -> Any:
    import numpy as np

    image, operations = _pillow()
    upright = operations.exif_transpose(picture)
    upright.thumbnail((most_side_px, most_side_px))
    with_alpha = upright.convert("RGBA")
    white = image.new("RGBA", with_alpha.size, "white")
    flat = image.alpha_composite(white, with_alpha).convert("RGB")
    return np.asarray(flat)[:, :, ::-1].copy()


def page_ranges(numbers: Sequence[int]) -> str:
    """Return page numbers as ranges.

    >>> page_ranges([1, 2, 3, 7])
    'pages 1-3, 7'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    words = ", ".join("-".join(map(str, run)) for run in runs)
    return f"page {words}" if len(numbers) == 1 else f"pages {words}"
