"""Image files, opened by Pillow: their kinds, and how large they may be."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
DECODING_BYTES = 704_000_000
"""The most memory that decoding one image may take, with libmtmd's copy of its pixels."""
# Measured on 25 million pixels, libmtmd's copy included: 7.4 for a JPEG or BMP, 9.3 for a PNG with
# transparency, 10.3 with a palette; 18.3 for a WebP.
_PIXEL_BYTES, _PIXEL_BYTES_OF_WEBP = 11, 19


class ImageTooLarge(ValueError):
    """It has more pixels than are read."""


def opened_image(data: bytes) -> Image:
    """Return an image whose pixels are not decoded yet.

    Raises:
        ValueError: it is of no kind that is read; `ImageTooLarge`.
    """
    from PIL import Image as pillow  # takes 30 ms

    n_most = DECODING_BYTES // _PIXEL_BYTES
    try:
        image = pillow.open(io.BytesIO(data), formats=FORMATS)
        if image.format == "WEBP":
            n_most = DECODING_BYTES // _PIXEL_BYTES_OF_WEBP
        if image.width * image.height <= n_most:
            return image
        image.close()
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning):
        pass  # its own limits are above these
    except Exception as error:  # its decoders raise what they like
        raise ValueError(f"it begins with {data[:4]!r}") from error
    raise ImageTooLarge(f"it has more than {n_most // 1_000_000} million pixels: make it smaller")
