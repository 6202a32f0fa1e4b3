"""Images in a prompt: check kind and size, and place them among the tokens.

Rows of an image are negative token ids, placeholders. Their last bits say what the scheduler and
the caches must know of a row, so that a prompt's tokens are enough to find out its positions and
where it may be cut.

libmtmd decodes what stb_image knows, and allocates the memory that a file's header asks for. So
kind and size are read from the first bytes before an image is decoded.
"""

from __future__ import annotations

import codecs
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from paddock.engine.arrays import Tokens
from paddock.engine.errors import BadRequest
from paddock.engine.system.image_headers import (
    DECODING_BYTES,
    decoding_bytes,
    image_size,
    why_unfinished,
)

if TYPE_CHECKING:  # libmtmd is loaded only where a model can see
    from paddock.engine.llama.image_cache import ImagePiece, PromptPiece

MAX_IMAGE_BYTES = 32 * 1024 * 1024
MAX_IMAGE_PIXELS = 64_000_000
"""Models see a fraction of them."""

MAX_KNOWN_PIECES = 4096
"""Pieces whose placeholders are remembered; a forgotten one counts as new."""

# Bits of a placeholder, inverted: the row has the position of the row before it, it is not the last
# of its image, all rows of its image must be computed at once.
_STAYS, _GOES_ON, _AT_ONCE, _STEP = 1, 2, 4, 8
_LAST_NUMBER = 2**31 - _STEP


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
        self._next = _STEP

    def of(self, piece: ImagePiece) -> Tokens:
        """Return the numbers of a piece, one for each of its rows."""
        n_rows = len(piece.rows)
        with self._lock:
            first = self._firsts.pop(piece.digest, None)
            if first is None:
                if len(self._firsts) == MAX_KNOWN_PIECES:
                    self._firsts.popitem(last=False)
                if self._next + _STEP * n_rows > _LAST_NUMBER:
                    # No cache holds rows from so long ago.
                    self._firsts.clear()
                    self._next = _STEP
                first, self._next = self._next, self._next + _STEP * n_rows
            self._firsts[piece.digest] = first
        numbers = first + _STEP * np.arange(n_rows)
        numbers[piece.n_positions :] += _STAYS
        numbers[:-1] += _GOES_ON
        numbers += 0 if piece.is_causal else _AT_ONCE
        return (~numbers).astype(np.int32)


def n_positions(tokens: Tokens) -> int:
    """Return how many positions a prompt's first tokens take.

    >>> n_positions(np.array([5, 6, ~8, ~17, 7]))
    4
    """
    return len(tokens) - int(np.count_nonzero((tokens < 0) & (~tokens & _STAYS > 0)))


def whole_prefix(tokens: Tokens) -> int:
    """Return the length of these tokens without an image at their end that goes on after them.

    Cells of an image may share a position, so that a sequence cannot be cut within it.

    >>> whole_prefix(np.array([5, ~10])), whole_prefix(np.array([5, ~10, ~16]))
    (1, 3)
    """
    n = len(tokens)
    while n and tokens[n - 1] < 0 and ~tokens[n - 1] & _GOES_ON:
        n -= 1
    return n


def next_piece_length(tokens: Tokens, n_most: int) -> int:
    """Return how many of a prompt's next tokens are computed in one call of llama.cpp.

    These are text alone, or rows of one image. Rows that must be computed at once may exceed
    `n_most`.
    """
    if tokens[0] >= 0:
        return _first_or_length(tokens[:n_most] < 0)
    n_rows = 1 + _first_or_length(~tokens & _GOES_ON == 0)
    return n_rows if ~tokens[0] & _AT_ONCE else min(n_rows, n_most)


def _first_or_length(are_found: NDArray[np.bool_]) -> int:
    return int(are_found.argmax()) if are_found.any() else len(are_found)


def place_images(
    texts: Sequence[Tokens],
    images: Sequence[bytes],
    look: Callable[[bytes, int], Sequence[PromptPiece]],
    placeholders: ImagePlaceholders,
    n_ctx_tokens: int = 0,
) -> tuple[Tokens, tuple[PlacedImage, ...]]:
    """Put images between texts; their places hold placeholders.

    `look` gets an image and how many rows it may have: what images before it leave of the context.

    Raises:
        BadRequest: an image cannot be read, the chat template left one out, or no text follows.
    """
    if len(texts) != len(images) + 1:
        raise BadRequest(
            f"the model's chat template shows {len(texts) - 1} of {len(images)} images"
        )
    parts: list[Tokens] = [texts[0]]
    placed: list[PlacedImage] = []
    n_left = n_ctx_tokens or sys.maxsize
    for number, (image, text) in enumerate(zip(images, texts[1:], strict=True), start=1):
        try:
            pieces = look(image, n_left)
        except ValueError as error:
            raise BadRequest(f"image {number} cannot be read: {error}") from error
        for piece in pieces:
            if isinstance(piece, np.ndarray):
                parts.append(piece)
            else:
                placed.append(PlacedImage(sum(map(len, parts)), piece))
                parts.append(placeholders.of(piece))
                n_left -= len(piece.rows)
        parts.append(text)
    tokens = np.concatenate(parts).astype(np.int32)
    if len(tokens) and tokens[-1] < 0:
        raise BadRequest("the prompt ends with an image: add a text after it")
    return tokens, tuple(placed)


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
