"""Image files: some that are refused, with the sentence, and odd ones that are seen."""

import io
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from tests.fakes.eyes import noise, png_of


def picture(side: int = 64) -> Image.Image:
    return Image.open(io.BytesIO(noise(1, side, side)))


def written(drawn: Image.Image, kind: str, **given: Any) -> bytes:
    file = io.BytesIO()
    drawn.save(file, kind, **given)
    return file.getvalue()


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _damaged(data: bytes) -> bytes:
    at = data.index(b"IDAT") + 8
    return data[:at] + bytes(16) + data[at + 16 :]


_DAMAGED = "cannot be read: its picture cannot be decoded; the file is damaged or cut off"
_OTHER = "is no whole PNG, JPEG, GIF, BMP or WebP (it begins with {!r}); convert it to PNG"
_PLAIN = picture()
_TURNED = Image.Exif()
_TURNED[0x0112] = 6

REFUSED: Mapping[str, tuple[bytes, str]] = MappingProxyType(
    {
        "empty.png": (b"", "is empty: its file has 0 bytes"),
        "huge.png": (
            png_of(struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0), b""),
            "is too large: it has more than 64 million pixels: make it smaller",
        ),
        "cut.png": (half(written(_PLAIN, "PNG")), _DAMAGED),
        "damaged.png": (_damaged(written(_PLAIN, "PNG")), _DAMAGED),
        "cut.jpg": (half(written(_PLAIN, "JPEG")), _OTHER.format(b"\xff\xd8\xff\xe0")),
        "cut-progressive.jpg": (half(written(_PLAIN, "JPEG", progressive=True)), _DAMAGED),
        "cut.gif": (half(written(_PLAIN, "GIF")), _DAMAGED),
        "cut.bmp": (half(written(_PLAIN, "BMP")), _DAMAGED),
        "cut.webp": (half(written(_PLAIN, "WEBP")), _OTHER.format(b"RIFF")),
        "a.tiff": (written(_PLAIN, "TIFF"), _OTHER.format(b"II*\0")),
        "a.pdf": (written(_PLAIN, "PDF"), _OTHER.format(b"%PDF")),
        "text.png": (b"hello", _OTHER.format(b"hell")),
    }
)

SEEN: Mapping[str, bytes] = MappingProxyType(
    {
        "plain.png": written(_PLAIN, "PNG"),
        "animated.gif": written(_PLAIN, "GIF", save_all=True, append_images=[picture(65)] * 3),
        "cmyk.jpg": written(_PLAIN.convert("CMYK"), "JPEG"),
        "16-bit.png": written(Image.fromarray(np.full((28, 28), 0x8080, np.uint16)), "PNG"),
        "turned.jpg": written(_PLAIN, "JPEG", exif=_TURNED),
        "transparent.png": written(Image.new("RGBA", (28, 28), (9, 9, 9, 0)), "PNG"),
        "palette.gif": written(_PLAIN.convert("P"), "GIF", transparency=0),
        "a.webp": written(_PLAIN, "WEBP"),
        "padded.jpg": written(_PLAIN, "JPEG") + b"a phone's film of two seconds",
        "point.png": written(_PLAIN.resize((1, 1)), "PNG"),
        "line.png": written(_PLAIN.resize((2000, 1)), "PNG"),
    }
)
