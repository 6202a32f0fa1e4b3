"""Images in a prompt: check kind and size, and place them among the tokens.

libmtmd decodes what stb_image knows, and allocates the memory that a file's header asks for. So
kind and size are read from the first bytes before an image is decoded.
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from paddock.engine.arrays import Tokens
from paddock.engine.errors import BadRequest

if TYPE_CHECKING:  # libmtmd is loaded only where a model can see
    from paddock.engine.llama.vision import ImagePiece, PromptPiece

MAX_IMAGE_BYTES = 32 * 1024 * 1024
MAX_IMAGE_PIXELS = 64_000_000
"""Decoded, three bytes each: 192 MB. Models see a fraction of it."""

MAX_KNOWN_PIECES = 4096
"""Pieces whose placeholders are remembered; a forgotten one counts as new."""

_FIRST_PLACEHOLDER, _LAST_PLACEHOLDER = -2, -(2**31)


def check_image(data: bytes, number: int) -> None:
    """Check an image's kind and size by its first bytes.

    `number`: its place among the request's images, counted from one.

    Raises:
        BadRequest: it cannot be read or is too large.
    """
    if len(data) > MAX_IMAGE_BYTES:
        mib = 1024 * 1024
        raise BadRequest(
            f"image {number} has {len(data) // mib} MiB; at most {MAX_IMAGE_BYTES // mib} are read"
        )
    if not data:
        raise BadRequest(f"image {number} is empty")
    size = image_size(data)
    if size is None:
        why = _unknown_image_text(data)
        raise BadRequest(f"image {number} is no PNG, JPEG, GIF or BMP ({why})")
    width, height = size
    if not 0 < width * height <= MAX_IMAGE_PIXELS:
        raise BadRequest(
            f"image {number} has {width} by {height} pixels; "
            f"at most {MAX_IMAGE_PIXELS // 1_000_000} million are read"
        )


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """An image in a prompt: where its rows begin among the tokens."""

    start: int
    piece: ImagePiece


class ImagePlaceholders:
    """Negative token ids that stand for rows of images.

    Equal image pieces get equal numbers, so that prompts share a prefix only where they show the
    same image. Safe from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._firsts: OrderedDict[str, int] = OrderedDict()
        """By digest, the least recently used first."""
        self._next = _FIRST_PLACEHOLDER

    def of(self, piece: ImagePiece) -> Tokens:
        """Return the numbers of a piece, one for each of its rows."""
        n_rows = len(piece.rows)
        with self._lock:
            first = self._firsts.pop(piece.digest, None)
            if first is None:
                first = self._take(n_rows)
            self._firsts[piece.digest] = first
        return (first - np.arange(n_rows)).astype(np.int32)

    def _take(self, n_rows: int) -> int:
        if len(self._firsts) == MAX_KNOWN_PIECES:
            self._firsts.popitem(last=False)
        if self._next - n_rows < _LAST_PLACEHOLDER:  # no cache holds rows from so long ago
            self._firsts.clear()
            self._next = _FIRST_PLACEHOLDER
        first, self._next = self._next, self._next - n_rows
        return first


def place_images(
    texts: Sequence[Tokens],
    images: Sequence[bytes],
    look: Callable[[bytes], Sequence[PromptPiece]],
    placeholders: ImagePlaceholders,
) -> tuple[Tokens, tuple[PlacedImage, ...]]:
    """Put images between texts; their positions hold `stand_ins`.

    Raises:
        BadRequest: an image cannot be read, or the chat template left one out.
    """
    if len(texts) != len(images) + 1:
        raise BadRequest(
            f"the model's chat template shows {len(texts) - 1} of {len(images)} images"
        )
    parts: list[Tokens] = [texts[0]]
    placed: list[PlacedImage] = []
    for number, (image, text) in enumerate(zip(images, texts[1:], strict=True), start=1):
        try:
            pieces = look(image)
        except ValueError as error:
            raise BadRequest(f"image {number} cannot be read: {error}") from error
        for piece in pieces:
            if isinstance(piece, np.ndarray):
                parts.append(piece)
            else:
                placed.append(PlacedImage(sum(map(len, parts)), piece))
                parts.append(placeholders.of(piece))
        parts.append(text)
    return np.concatenate(parts).astype(np.int32), tuple(placed)


def _unknown_image_text(data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "it is a WebP; convert it to PNG"
    if data[4:12] in (b"ftypheic", b"ftypavif", b"ftypmif1"):
        return "it is a HEIC or AVIF; convert it to PNG"
    return f"it begins with {data[:4]!r}"


def image_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a PNG, JPEG, GIF or BMP; None: it is another kind."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:
        return struct.unpack(">II", data[16:24])
    if data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        return struct.unpack("<HH", data[6:10])
    if data[:2] == b"BM" and len(data) >= 26:
        width, height = struct.unpack("<ii", data[18:26])
        return abs(width), abs(height)
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg_size(data)
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Read the size from a JPEG's SOF segment."""
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
