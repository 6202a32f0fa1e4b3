"""Image files before they are decoded: size, needed memory, orientation, alpha, a missing end."""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator

from paddock.engine.system.records import record

DECODING_BYTES = 384 * 1024 * 1024
"""The most memory that decoding one picture may take: 64 million pixels of three bytes, twice."""

PNG_MARK = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
_N_CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_FRAMES = 0xC0, 0xC1, 0xC2
_PROGRESSIVE = 0xC2
# A picture has up to a dozen; each takes as long as the whole picture, however few bytes it has.
_MOST_SCANS = 200
_GIF_EXTENSION, _GIF_PICTURE = 0x21, 0x2C
# 32 MiB of the longest blocks of a GIF are 131,000.
_MOST_BLOCKS = 1_000_000
DAMAGED = "its picture cannot be decoded; the file is damaged or cut off"
_CUT_OFF = "is cut off: its file ends before the picture does; copy it again"


def image_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a PNG, JPEG, GIF or BMP; None: it is another kind."""
    if data[:8] == PNG_MARK and data[12:16] == b"IHDR" and len(data) >= 24:
        return struct.unpack(">II", data[16:24])
    if data[:6] in (b"GIF87a", b"GIF89a") and len(data) >= 10:
        return struct.unpack("<HH", data[6:10])
    if data[:2] == b"BM" and len(data) >= 26:
        width, height, _ = _bmp_shape(data)
        return abs(width), abs(height)
    if data[:3] == b"\xff\xd8\xff":
        frame = _jpeg_frame(data)
        return (frame.width, frame.height) if frame is not None else None
    return None


def _bmp_shape(data: bytes) -> tuple[int, int, int]:
    """Return width, height and bits of a pixel, as the older header of 12 bytes has them or not."""
    is_short = data[14:18] == b"\x0c\0\0\0"
    shape = struct.unpack_from("<HHHH" if is_short else "<iiHH", data[18:30].ljust(12, b"\0"))
    return shape[0], shape[1], shape[3]


def decoding_bytes(data: bytes) -> int:
    """Return the most memory that decoding a picture takes, by what stb_image allocates.

    At the end there are its pixels of three bytes, and libmtmd's copy of them.
    """
    width, height = image_size(data) or (0, 0)
    n_copied = 6 * width * height
    if data[:8] == PNG_MARK:
        header = png_header(data)
        n_keyed = (header.n_channels + 1) * header.n_bytes  # a transparent colour adds a channel
        n_made = max(n_keyed * (3 if header.is_interlaced else 2) / 2, 3 * header.n_bytes)
        return max(n_copied, header.n_raw + int(n_made * header.width * header.height))
    if data[:3] == b"GIF":  # two canvases of four bytes, which pixels were drawn, and the result
        return 12 * width * height
    frame = _jpeg_frame(data)
    return max(n_copied, frame.decoding_bytes) if frame is not None else n_copied


@record(frozen=True, slots=True)
class _JpegFrame:
    """A JPEG's size, and how finely its colours are sampled."""

    marker: int
    width: int
    height: int
    samplings: tuple[tuple[int, int], ...]
    """Of each component, across and down."""

    @property
    def decoding_bytes(self) -> int:
        across, down = (
            max([1, *(sampling[axis] for sampling in self.samplings)]) for axis in (0, 1)
        )
        n_blocks = -(-self.width // (8 * across)) * -(-self.height // (8 * down))
        n_samples = 64 * n_blocks * sum(across * down for across, down in self.samplings)
        n_each = 3 if self.marker == _PROGRESSIVE else 1  # with coefficients of two bytes
        return n_samples * n_each + 3 * self.width * self.height


def _jpeg_frame(data: bytes) -> _JpegFrame | None:
    for marker, start, end in _jpeg_segments(data):
        is_frame = 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        body = data[start : min(end, start + 6 + 3 * 4)]
        if is_frame and len(body) >= 5:
            height, width = struct.unpack_from(">HH", body, 1)
            return _JpegFrame(
                marker, width, height, tuple((byte >> 4, byte & 15) for byte in body[7::3])
            )
    return None


def why_unfinished(data: bytes) -> str:
    """Return why a JPEG, GIF or BMP is not whole; "": it is.

    Decoders fill the rest with a colour and say nothing; of a PNG they refuse it.
    """
    if data[:3] == b"\xff\xd8\xff":
        return _jpeg_fault(data)
    if data[:3] == b"GIF":
        # What follows the first picture is not looked at.
        pictures = (end for at, end in _gif_parts(data) if data[at] == _GIF_PICTURE)
        return _CUT_OFF if next(pictures, len(data)) >= len(data) else ""
    if data[:2] == b"BM" and len(data) >= 30:
        width, height, n_bits = _bmp_shape(data)
        (start,) = struct.unpack_from("<I", data, 10)
        n_row_bytes = (width * n_bits + 31) // 32 * 4
        # Some programs leave out what fills the last row.
        return _CUT_OFF if len(data) <= start + n_row_bytes * (abs(height) - 1) else ""
    return ""


# In the scans of a JPEG, 0xFF before 0 is a byte of pixels, and 0xD0 to 0xD7 are marks among them.
_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
_KNOWN_MARKERS = {*_FRAMES, _START_OF_SCAN, 0xC4, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE}


def _jpeg_fault(data: bytes) -> str:
    at, n_frames, n_scans = 2, 0, 0
    for _ in range(_MOST_BLOCKS):
        found = _MARKER.search(data, at)
        if found is None:
            return (
                "has no mark at its end: it is cut off, or was saved without one; "
                "open it with a program that shows it, and save it again"
            )
        marker, at = found[1][0], found.end()
        if marker == _END_OF_IMAGE and n_scans:
            return ""
        if marker == _START_OF_IMAGE:
            return "is cut off: another picture begins before its own ends; copy it again"
        n_frames += marker in _FRAMES
        n_scans += marker == _START_OF_SCAN
        # stb_image would leave out the rest, which may be the whole picture, and say nothing.
        if marker not in _KNOWN_MARKERS or n_frames > 1 or n_scans > n_frames * _MOST_SCANS:
            return f"cannot be read: {DAMAGED}"
        at += int.from_bytes(data[at : at + 2], "big")
    return f"cannot be read: it has more than {_MOST_BLOCKS:,} parts"


def without_padding(data: bytes) -> bytes:
    """Return a JPEG without bytes between its segments; with them, stb_image decodes nothing."""
    if data[:3] != b"\xff\xd8\xff":
        return data
    at, parts = 2, [data[:2]]
    for _, start, end in _jpeg_segments(data):
        parts.append(data[start - 4 : end])
        at = end
    return b"".join((*parts, data[at:])) if sum(map(len, parts)) < at else data


def _gif_parts(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where extensions and pictures of a GIF begin and end."""
    at, n_blocks = 13 + _gif_colours(data[10:11]), 0
    while at < len(data) and data[at] in (_GIF_EXTENSION, _GIF_PICTURE):
        start, is_picture = at, data[at] == _GIF_PICTURE
        at += 11 + _gif_colours(data[at + 9 : at + 10]) if is_picture else 2
        while at < len(data) and data[at]:  # blocks, each behind its length
            at += 1 + data[at]
            n_blocks += 1
        n_blocks += 1
        if n_blocks > _MOST_BLOCKS:
            return
        yield start, at
        at += 1


def with_white_for_transparent(data: bytes) -> bytes:
    """Return a GIF with white as the colour that the first picture shows nothing of, if any."""
    index = None
    for at, _ in _gif_parts(data) if data[:3] == b"GIF" else ():
        if data[at : at + 3] == b"\x21\xf9\x04" and len(data) > at + 6:
            index, flags_at = data[at + 6] if data[at + 3] & 1 else None, at + 3
        elif data[at] == _GIF_PICTURE:
            n_own = _gif_colours(data[at + 9 : at + 10])
            table, n_colours = (at + 10, n_own) if n_own else (13, _gif_colours(data[10:11]))
            if index is None or 3 * index >= n_colours:
                return data
            opaque = bytearray(data)
            opaque[flags_at] &= 0xFE
            opaque[table + 3 * index : table + 3 * index + 3] = b"\xff\xff\xff"
            return bytes(opaque)
    return data


def _gif_colours(flags: bytes) -> int:
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


@record(frozen=True, slots=True)
class PngHeader:
    """What a PNG says of its rows."""

    width: int
    height: int
    n_bits: int
    kind: int
    is_interlaced: bool

    @property
    def n_channels(self) -> int:
        return _N_CHANNELS.get(self.kind, 4)

    @property
    def n_bytes(self) -> int:
        """Of a channel of a decoded pixel."""
        return max(1, self.n_bits // 8)

    @property
    def n_raw(self) -> int:
        """How many bytes its rows have unpacked, each with the number of its filter."""
        return sum(h * (1 + self.row_bytes(w)) for w, h, *_ in self.passes)

    def row_bytes(self, width: int) -> int:
        return (width * self.n_channels * self.n_bits + 7) // 8

    @property
    def passes(self) -> Iterator[tuple[int, int, slice, slice]]:
        """Yield width and height of each pass, and the rows and columns of its pixels."""
        for x, y, across, down in _INTERLACED if self.is_interlaced else ((0, 0, 1, 1),):
            width, height = -(-(self.width - x) // across), -(-(self.height - y) // down)
            if width > 0 and height > 0:
                yield width, height, slice(y, None, down), slice(x, None, across)


# Adam7: where each pass begins, and its steps across and down.
_INTERLACED = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
)  # fmt: skip


def png_header(data: bytes) -> PngHeader:
    width, height, n_bits, kind, _, _, way = struct.unpack(">IIBBBBB", data[16:29].ljust(13, b"\0"))
    return PngHeader(width, height, n_bits, kind, is_interlaced=bool(way))


def png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, at = memoryview(data), len(PNG_MARK)
    for _ in range(_MOST_BLOCKS):
        if at + 8 > len(data):
            return
        n_bytes = int.from_bytes(view[at : at + 4], "big")
        yield bytes(view[at + 4 : at + 8]), view[at + 8 : at + 8 + n_bytes]
        at += 12 + n_bytes
    raise ValueError(f"it has more than {_MOST_BLOCKS:,} parts; save it again")


# Deflate makes at most 1,032 bytes of one.
_UNPACKED_AT_ONCE, _MOST_RATIO = 1 << 14, 1032


def unpacked_rows(data: bytes) -> Iterator[bytes]:
    """Yield the unpacked rows of a PNG, in pieces of up to 17 MB; ValueError: they are damaged."""
    n_head, unpack = 2, zlib.decompressobj(-15)  # stb_image reads no further than the first two
    for name, body in png_chunks(data):
        if name == b"CgBI":  # Apple's: without the two
            n_head = 0
        if name != b"IDAT":
            continue
        start, n_head = min(n_head, len(body)), max(0, n_head - len(body))
        for at in range(start, len(body), _UNPACKED_AT_ONCE):
            try:
                yield unpack.decompress(body[at : at + _UNPACKED_AT_ONCE])
            except zlib.error as error:
                raise ValueError(DAMAGED) from error
            if unpack.eof:
                return


def check_png_size(data: bytes) -> None:
    """Check that a PNG's rows do not unpack to much more than its size needs; stb_image would.

    Raises:
        ValueError: they do, or are damaged.
    """
    if data[:8] != PNG_MARK or len(data) * _MOST_RATIO <= DECODING_BYTES // 4:
        return
    n_left = max(png_header(data).n_raw, DECODING_BYTES // 4)
    for piece in unpacked_rows(data):
        n_left -= len(piece)
        if n_left < 0:
            raise ValueError(f"its rows unpack to more than {DECODING_BYTES // 4 >> 20} MiB, which "
                             "its size does not need; save it again")  # fmt: skip


def exif_orientation(data: bytes) -> int:
    """Return how a JPEG must be turned to be upright, as EXIF numbers it; 1: it is."""
    if data[:3] != b"\xff\xd8\xff":
        return 1
    for marker, start, end in _jpeg_segments(data):
        if marker == 0xE1 and data[start : start + 6] == b"Exif\0\0":
            return _tiff_orientation(data[start + 6 : end])
    return 1


def _tiff_orientation(tiff: bytes) -> int:
    order = "<" if tiff[:2] == b"II" else ">"
    with contextlib.suppress(struct.error):  # it is cut off
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (n_entries,) = struct.unpack_from(f"{order}H", tiff, start)
        for number in range(n_entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * number)
            if tag == 0x0112:
                return value if 1 <= value <= 8 else 1
    return 1


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each segment's marker and where its body begins and ends, up to the pixels."""
    at = 2
    for _ in range(_MOST_BLOCKS):
        found = _MARKER.search(data, at)
        if found is None or found[1][0] in (_START_OF_IMAGE, _END_OF_IMAGE):
            return
        marker, start = found[1][0], found.end() + 2
        at = start - 2 + int.from_bytes(data[start - 2 : start], "big")
        yield marker, start, at
        if marker == _START_OF_SCAN:
            return
