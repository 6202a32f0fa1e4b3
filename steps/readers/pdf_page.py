"""What stands on a page of a PDF: text that it does not show, and whether text means anything.

Text is not shown where it is white, covered, beyond the borders, or of a layer that is off.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect
from collections.abc import Iterator, Sequence
from ctypes import POINTER, c_uint, c_ulong, c_ushort, cast, create_string_buffer
from typing import Any

from pypdfium2 import raw  # type: ignore[import-untyped]

from .pdf_annotations import Annotations, LaidOver, Losses
from .pdfium import LEFT_OUT, bounds_of, clean_text, low_pixels, open_page, shown_box, utf16

_PAPER, _FAINT = 0xF0, 16  # of 255: as light as paper; a difference that no one sees
_NEAR = 1.0  # points by which a text may be larger than what covers it
_MOST_COVERS = 100  # that are looked at for one text
_COVER_NOTHING = (raw.FPDF_PAGEOBJ_TEXT, raw.FPDF_PAGEOBJ_UNKNOWN)
_UNPAINTED = (raw.FPDF_TEXTRENDERMODE_INVISIBLE, raw.FPDF_TEXTRENDERMODE_CLIP)
_LAYER_MARK = "OC\0".encode("utf-16-le")  # "optional content"
_LATIN_WORD = re.compile(r"[A-Za-zÀ-ɏ]{4,}")
_REPEATED = re.compile(r"([\W_]\s?)\1+")
_LEAST_LATIN_LETTERS, _LEAST_CHARS = 60, 40  # below them a share says little
_LEAST_VOWELS = 0.22  # of the letters: Czech has 0.38, letters of a font that is shifted 0.15
_LEAST_ALNUM = 0.3  # of what is printed: a table of signed amounts has 0.6


def unreadable_share(text: str) -> float:
    """Return the share of a page's printed characters that mean nothing, from 0 to 1.

    They are private-use and control characters and those without a meaning, all of a page with
    hardly a letter or digit, and all of a page whose Latin words have hardly a vowel.
    """
    printed = "".join(_REPEATED.sub(r"\1", text).split())
    if not printed:
        return 0.0
    n_lost = sum(unicodedata.category(char)[0] == "C" or char == "\ufffd" for char in printed)
    n_alnum = sum(map(str.isalnum, printed))
    letters = unicodedata.normalize("NFD", "".join(_LATIN_WORD.findall(text))).casefold()
    n_vowels, n_letters = sum(map(letters.count, "aeiouyæøœ")), sum(map(str.isalpha, letters))
    if (len(printed) >= _LEAST_CHARS and n_alnum < _LEAST_ALNUM * len(printed)) or (
        n_letters >= _LEAST_LATIN_LETTERS and n_vowels < _LEAST_VOWELS * n_letters
    ):
        return 1.0
    return n_lost / len(printed)


def page_text(document: Any, index: int, losses: Losses) -> tuple[str, bool, LaidOver]:
    """Return a page's own text, whether it only has pictures, and what is laid over it."""
    with open_page(document, index) as page:
        textpage = page.get_textpage()
        text = clean_text(textpage.get_text_range())
        laid_over = Annotations(page, textpage, losses).joined()
        losses.hidden += _undrawn_texts(page, textpage)
        textpage.close()
        is_picture = not text and next(page.get_objects(max_depth=1), None) is not None
        return text, is_picture, laid_over


def _undrawn_texts(page: Any, textpage: Any) -> Iterator[str]:
    """Yield an open page's texts that it does not show.

    They are beyond its borders, in layers that are switched off, white or covered. The page is
    drawn only where a text may be: white text may stand on a dark field.
    """
    left, bottom, right, top = page.get_bbox()
    if left >= right or bottom >= top:  # a damaged crop box, which most programs leave out
        return
    n_objects = raw.FPDFPage_CountObjects(page)
    pieces = [raw.FPDFPage_GetObject(page, index) for index in range(n_objects)]
    covers, pixels = _Covers(pieces), None
    for index, piece in enumerate(pieces):
        if raw.FPDFPageObj_GetType(piece) != raw.FPDF_PAGEOBJ_TEXT:
            continue
        x_0, y_0, x_1, y_1 = bounds = bounds_of(piece)
        if x_0 >= x_1 or y_0 >= y_1:  # such as spaces
            continue
        is_hidden = x_1 <= left or x_0 >= right or y_1 <= bottom or y_0 >= top
        colour = _fill_of(piece)
        if not is_hidden and (
            _is_of_layer(piece)
            or _is_faint(piece, colour)
            or covers.may_hide(index, bounds, colour)
        ):
            pixels = low_pixels(page) if pixels is None else pixels
            is_hidden = not _is_drawn(page, raw.FS_RECTF(x_0, y_1, x_1, y_0), pixels)
        if is_hidden:
            text = utf16(raw.FPDFTextObj_GetText, piece, textpage)
            if any(map(str.isalnum, text)):  # points and lines are too fine for few pixels
                yield text


class _Covers:
    """The pictures, fields and drawings of a page, in the order in which they are painted."""

    def __init__(self, pieces: Sequence[Any]) -> None:
        self._at = [
            index
            for index, piece in enumerate(pieces)
            if raw.FPDFPageObj_GetType(piece) not in _COVER_NOTHING
        ]
        self._bounds = [bounds_of(pieces[index]) for index in self._at]
        self._colours = [_fill_of(pieces[index]) for index in self._at]

    def may_hide(self, index: int, bounds: tuple[float, ...], colour: tuple[int, ...]) -> bool:
        """Return whether one that is painted later, or in a text's colour, lies around it."""
        x_0, y_0 = (side + _NEAR for side in bounds[:2])
        x_1, y_1 = (side - _NEAR for side in bounds[2:])
        middle = bisect(self._at, index)
        for at in range(max(0, middle - _MOST_COVERS), min(len(self._at), middle + _MOST_COVERS)):
            left, bottom, right, top = self._bounds[at]
            if (
                (left <= x_0 and bottom <= y_0 and right >= x_1 and top >= y_1)
                and (at >= middle or _is_alike(self._colours[at], colour))
            ):  # fmt: skip
                return True
        return False


def _fill_of(piece: Any) -> tuple[int, ...]:
    """Return red, green, blue and opacity of an object's fill, up to 255; empty: it has none."""
    parts = tuple(c_uint() for _ in range(4))
    has_one = raw.FPDFPageObj_GetFillColor(piece, *parts)
    return tuple(part.value for part in parts) if has_one else ()


def _is_alike(own: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return bool(own and other) and all(abs(a - b) < _FAINT for a, b in zip(own, other, strict=True))


def _is_faint(piece: Any, colour: tuple[int, ...]) -> bool:
    """Return whether a text is as white as paper, transparent or painted by nothing."""
    if raw.FPDFTextObj_GetTextRenderMode(piece) in _UNPAINTED:
        return True
    return bool(colour) and (min(colour[:3]) >= _PAPER or colour[3] < _FAINT)


def _is_of_layer(piece: Any) -> bool:
    for index in range(raw.FPDFPageObj_CountMarks(piece)):
        mark = raw.FPDFPageObj_GetMark(piece, index)
        name, n_bytes = create_string_buffer(len(_LAYER_MARK)), c_ulong()
        raw.FPDFPageObjMark_GetName(mark, cast(name, POINTER(c_ushort)), len(name), n_bytes)
        if name.raw == _LAYER_MARK:
            return True
    return False


def _is_drawn(page: Any, rect: Any, pixels: Any) -> bool:
    """Return whether there is anything but one colour where a text stands."""
    shown = shown_box(page, rect)
    if shown is None:
        return False
    height, width = pixels.shape[:2]
    left, top, right, bottom = shown
    part = pixels[int(top * height) : int(bottom * height) + 1, int(left * width) :][
        :, : int((right - left) * width) + 1
    ]
    if not part.size:
        return False
    lightest, darkest = part.max(axis=(0, 1)).astype(int), part.min(axis=(0, 1))
    return bool((lightest - darkest >= _FAINT).any())


def kept_offsets(text: str) -> list[int]:
    """Return the offset in `text` of each character of `clean_text(text)`."""
    offsets = list(range(len(text)))
    for left_out in LEFT_OUT:
        kept, at = list[int](), 0
        for gap in left_out.finditer(text):
            kept += offsets[at : gap.start()]
            at = gap.end()
        offsets = kept + offsets[at:]
        text = left_out.sub("", text).replace("\r", "\n")
    return offsets
