"""Pictures as documents: photographs and scans, one page for each picture of the file.

The only module that knows Pillow.
"""

from __future__ import annotations

import warnings
from typing import Any, BinaryIO

from . import ocr
from .reader import Document, Unreadable, Wish

_MOST_PIXELS = 100_000_000  # 300 MB in memory; a photograph has 12 to 50 million
_MOST_SIDE_PX = 2400
_MOST_PICTURES = 500


def read(file: BinaryIO, wish: Wish) -> Document:
    """Read it.

    Raises:
        Unreadable: it is damaged or far too large, or OCR is off or missing.
    """
    if not wish.ocr:
        raise Unreadable("is a picture, and `ocr` is off")
    if not ocr.is_installed():
        raise Unreadable("is a picture", ocr.REMEDY)
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of sizes; we look at them ourselves
        try:
            with Image.open(file) as picture:
                return _read(picture, wish)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if isinstance(error, Unreadable):
                raise
            raise Unreadable("is damaged or no picture") from error


def _read(picture: Any, wish: Wish) -> Document:
    pages: list[str] = []
    n = getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1
    for index in range(min(n, _MOST_PICTURES)):
        wish.check()
        picture.seek(index)
        width, height = picture.size
        if width * height > _MOST_PIXELS:
            most = f"{_MOST_PIXELS // 1_000_000} million"
            raise Unreadable(f"has {width:,} x {height:,} pixels, and at most {most} are read")
        pages.append(ocr.read(_pixels(picture)))
    notes = [": read from a picture by OCR"]
    if n > _MOST_PICTURES:
        notes.append(f": only the first {_MOST_PICTURES} of its {n} pictures were read")
    media_type = f"image/{(picture.format or 'unknown').lower()}"
    nothing = "shows nothing that OCR can read"
    return Document(tuple(pages), "", media_type, tuple(notes if any(pages) else ()), nothing)


def _pixels(picture: Any) -> Any:
    """Give it upright and on white, within bounds, blue first."""
    import numpy as np
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(picture)
    upright.thumbnail((_MOST_SIDE_PX, _MOST_SIDE_PX))
    with_alpha = upright.convert("RGBA")
    white = Image.new("RGBA", with_alpha.size, "white")
    flat = Image.alpha_composite(white, with_alpha).convert("RGB")
    return np.asarray(flat)[:, :, ::-1].copy()
