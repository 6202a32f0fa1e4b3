"""What a PNG shows nothing of: its alpha channel, in strips, and its transparent colour.

Apart from `image_headers`, so that what only looks at headers imports no numpy.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from .image_headers import (
    DAMAGED,
    GREY,
    GREY_ALPHA,
    PALETTE,
    PNG_MARK,
    RGB,
    RGB_ALPHA,
    png_chunks,
    png_header,
    unpacked_rows,
)

Pixels = NDArray[np.uint8]

_STRIP_BYTES = 1 << 20


def alpha_strips(
    data: bytes, decode: Callable[[bytes], Pixels]
) -> Iterator[tuple[slice, slice, Pixels]]:
    """Yield parts of a PNG's alpha channel, each with its rows and columns; none: it has none.

    Filters of PNG compute a byte from the bytes at the same place of pixels beside and above it.
    So such bytes, with the filters of their rows, are a grey picture, of which `decode` gives the
    pixels. It is cut into strips, each with the last row before it, to need little memory.
    """
    if data[:8] != PNG_MARK:
        return
    header, alphas = png_header(data), _palette_alphas(data)
    has_alpha = header.kind in (GREY_ALPHA, RGB_ALPHA) and header.n_bits >= 8
    if not has_alpha and alphas is None:
        return
    pieces = _Pieces(unpacked_rows(data))
    for width, height, rows, columns in header.passes:
        n_row = 1 + header.row_bytes(width)
        n_strip = max(1, _STRIP_BYTES // n_row)
        before: Pixels | None = None
        for at in range(0, height, n_strip):
            raw = pieces.take(n_row * min(n_strip, height - at))
            filtered = np.frombuffer(raw, np.uint8).reshape(-1, n_row)
            if alphas is None:  # the higher byte of the last channel
                n_pixel = header.n_channels * header.n_bytes
                filtered = filtered[:, np.r_[0, 1 + n_pixel - header.n_bytes : n_row : n_pixel]]
            if before is None:
                before = np.zeros(filtered.shape[1] - 1, np.uint8)
            strip = decode(_grey_png(np.vstack([np.append(np.uint8(0), before), filtered])))[1:]
            before = strip[-1]
            if alphas is not None:
                # Take apart bytes that hold several pixels each, the first in the highest bits
                n_bits = header.n_bits
                shifts = np.arange(8 - n_bits, -1, -n_bits, dtype=np.uint8)
                parts = strip[:, :, None] >> shifts & np.uint8(2**n_bits - 1)
                indices = parts.reshape(len(strip), -1)
                strip = alphas[indices[:, :width]]
            first, last = rows.start + at * rows.step, rows.start + (at + len(strip)) * rows.step
            yield slice(first, last, rows.step), columns, strip


class _Pieces:
    """Bytes that are taken in other portions than they come."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def take(self, n_bytes: int) -> bytes:
        while len(self._left) < n_bytes:
            piece = next(self._pieces, None)
            if piece is None:
                raise ValueError(DAMAGED)
            self._left += piece
        taken, self._left = self._left[:n_bytes], self._left[n_bytes:]
        return taken


def _palette_alphas(data: bytes) -> Pixels | None:
    """Return the alpha of each colour of a PNG's palette; None: all are opaque."""
    header = png_header(data)
    named = dict(png_chunks(data)) if header.kind == PALETTE else {}
    if b"tRNS" not in named or header.n_bits not in (1, 2, 4, 8):
        return None
    return np.frombuffer(bytes(named[b"tRNS"][:256]).ljust(256, b"\xff"), np.uint8)


def transparent_colour(data: bytes) -> Pixels | None:
    """Return the one colour that a PNG without an alpha channel shows nothing of, in 8 bits."""
    header = png_header(data)
    if data[:8] != PNG_MARK or header.kind not in (GREY, RGB) or header.n_bits not in (1, 2, 4, 8):
        return None
    for name, body in png_chunks(data):
        if name == b"tRNS" and len(body) == 2 * header.n_channels:
            levels = np.frombuffer(bytes(body)[1::2], np.uint8)
            return np.resize(levels * np.uint8(255 // (2**header.n_bits - 1)), 3)
        if name == b"IDAT":
            break
    return None


def _grey_png(filtered: Pixels) -> bytes:
    height, width = filtered.shape
    header = struct.pack(">IIBBBBB", width - 1, height, 8, GREY, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 1)), (b"IEND", b"")
    parts = [PNG_MARK]
    for name, body in chunks:
        check = struct.pack(">I", zlib.crc32(name + body))
        parts += [struct.pack(">I", len(body)), name, body, check]
    return b"".join(parts)
