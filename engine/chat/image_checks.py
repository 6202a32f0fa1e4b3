"""Whether an image of a request may be decoded, by the first bytes of its file.

libmtmd decodes what stb_image knows, and allocates the memory that a file's header asks for. So
kind and size are read before an image is decoded.
"""

from __future__ import annotations

import codecs
import re

from paddock.engine.errors import BadRequest
from paddock.engine.system.image_headers import (
    DECODING_BYTES,
    decoding_bytes,
    image_size,
    why_unfinished,
)

MAX_IMAGE_BYTES = 32 * 1024 * 1024
MAX_IMAGE_PIXELS = 64_000_000
"""Models see a fraction of them."""


def check_image(data: bytes, number: int) -> None:
    """Check an image's kind and size by its first bytes.

    `number`: its place among the request's images, counted from one.

    Raises:
        BadRequest: it cannot be read or is too large.
    """
    mib = 1024 * 1024
    if len(data) > MAX_IMAGE_BYTES:
        raise BadRequest(
            f"image {number} has {len(data) // mib} MiB; at most {MAX_IMAGE_BYTES // mib} are "
            "read: make it smaller"
        )
    if not data:
        raise BadRequest(f"image {number} is empty: its file has 0 bytes")
    size = image_size(data)
    if size is None:
        why = _unknown_image_text(data)
        raise BadRequest(f"image {number} is no PNG, JPEG, GIF or BMP ({why})")
    width, height = size
    if not 0 < width * height <= MAX_IMAGE_PIXELS:
        raise BadRequest(
            f"image {number} has {width} by {height} pixels; "
            f"at most {MAX_IMAGE_PIXELS // 1_000_000} million are read: make it smaller"
        )
    n_bytes = decoding_bytes(data)
    if n_bytes > DECODING_BYTES:
        raise BadRequest(
            f"image {number} has {width} by {height} pixels, for which {n_bytes // mib} MiB of "
            f"memory are needed; at most {DECODING_BYTES // mib} are used: make it smaller, or "
            "save it with 8 bits and without transparency"
        )
    why = why_unfinished(data)
    if why:
        raise BadRequest(f"image {number} {why}")


_OTHER_KINDS = (
    (b"(II\\*\0|MM\0\\*)", "a TIFF"),
    (b"%PDF", "a PDF"),
    (b"RIFF....WEBP", "a WebP"),
    (b"\\s*(<[?!][^>]*>\\s*)*<svg[\\s>/]", "an SVG"),
)


def _unknown_image_text(data: bytes) -> str:
    if data[4:12] in (b"ftypheic", b"ftypavif", b"ftypmif1"):
        return "it is a HEIC or AVIF; convert it to PNG"
    begin = data[:4096].removeprefix(codecs.BOM_UTF8)
    for pattern, kind in _OTHER_KINDS:
        if re.match(pattern, begin, re.DOTALL):
            return f"it is {kind}; convert it to PNG"
    return f"it begins with {data[:4]!r}"
