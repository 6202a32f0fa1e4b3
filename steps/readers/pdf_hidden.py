"""Text that a page of a PDF does not show: white, covered, beyond its borders, of a hidden layer.

The page is drawn only where a text may be hidden: white text may stand on a dark field.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence, Set
from ctypes import (
    POINTER,
    addressof,
    c_double,
    c_float,
    c_int,
    c_uint,
    c_ulong,
    c_ushort,
    c_void_p,
    cast,
    create_string_buffer,
)
from functools import cache
from math import hypot
from typing import Any

from pypdfium2 import raw  # type: ignore[import-untyped]

from paddock.engine.system.records import record

from .pdfium import PageObject, by_address, form_objects, low_pixels, shown_box, utf16

_PAPER, _FAINT = 0xF0, 16  # of 255: as light as paper; a difference that no one sees
_NEAR = 1.0  # points by which a text may be larger than what covers it
_THIN = 2.0  # points: lines, which no letter hides behind
_MOST_DEPTH = 4  # groups within groups
_MOST_COVERS = 100  # that are looked at for one text
_COVER_NOTHING = (raw.FPDF_PAGEOBJ_TEXT, raw.FPDF_PAGEOBJ_UNKNOWN)
_UNPAINTED = (raw.FPDF_TEXTRENDERMODE_INVISIBLE, raw.FPDF_TEXTRENDERMODE_CLIP)
_LAYER_MARK = "OC\0".encode("utf-16-le")  # "optional content"
_n_marks_of = by_address(raw.FPDFPageObj_CountMarks, c_int, c_void_p)
_mode_of = by_address(raw.FPDFTextObj_GetTextRenderMode, c_int, c_void_p)
_clip_path_of = by_address(raw.FPDFPageObj_GetClipPath, c_void_p, c_void_p)
_n_clips_of = by_address(raw.FPDFClipPath_CountPaths, c_int, c_void_p)
_n_clip_segments_of = by_address(raw.FPDFClipPath_CountPathSegments, c_int, c_void_p, c_int)
_clip_segment_of = by_address(raw.FPDFClipPath_GetPathSegment, c_void_p, c_void_p, c_int, c_int)
_point_of = by_address(raw.FPDFPathSegment_GetPoint, c_int, *[c_void_p] * 3)
_fill_colour = by_address(raw.FPDFPageObj_GetFillColor, c_int, *[c_void_p] * 5)
text_object_at = by_address(raw.FPDFText_GetTextObject, c_void_p, c_void_p, c_int)


@record(frozen=True, slots=True)
class HiddenText:
    objects: Mapping[int, str]
    """By the addresses of text objects that are not shown, their texts."""
    chars: Set[int]
    """PDFium's indexes of characters under what hides only a part of their text."""


def hidden_text(page: Any, textpage: Any, pieces: Sequence[PageObject]) -> HiddenText:
    """Return what an open page does not show."""
    left, bottom, right, top = page.get_bbox()
    if left >= right or bottom >= top:  # a damaged crop box, which most programs leave out
        return HiddenText({}, frozenset())
    covers, pixels = _Covers(pieces), cache(lambda: low_pixels(page))
    objects = dict[int, str]()
    partly = dict[int, list[tuple[float, ...]]]()
    """By text objects: what may hide a part of them."""
    clips = dict[int, tuple[float, ...]]()
    for index, piece, bounds, is_clear in _texts(pieces):
        x_0, y_0, x_1, y_1 = bounds
        if x_0 >= x_1 or y_0 >= y_1:  # such as spaces
            continue
        is_hidden = is_clear or x_1 <= left or x_0 >= right or y_1 <= bottom or y_0 >= top
        colour, clip = _fill_of(piece), _clip_of(piece)
        is_faint = bool(colour) and (min(colour[:3]) >= _PAPER or colour[3] < _FAINT)
        if not is_hidden and (
            _is_of_layer(piece)
            or is_faint
            or _mode_of(piece) in _UNPAINTED
            or (clip and not _is_around(clip, bounds))
            or covers.may_hide(index, bounds, colour)
        ):
            is_hidden = not _is_drawn(page, raw.FS_RECTF(x_0, y_1, x_1, y_0), pixels())
        address = addressof(piece.contents)
        if is_hidden:
            text = utf16(raw.FPDFTextObj_GetText, piece, textpage)
            if any(map(str.isalnum, text)):  # points and lines are too fine for few pixels
                objects[address] = text
        elif over := list(covers.over_a_part(index, bounds)):
            partly[address] = over
        elif clip and not _is_around(clip, bounds):
            clips[address] = clip
    chars, box = set[int](), (c_double * 4)()
    sides = [cast(addressof(box) + 8 * n, POINTER(c_double)) for n in range(4)]
    page_address = cast(textpage, c_void_p).value
    for place in range(textpage.count_chars()) if partly or clips else ():
        found = text_object_at(page_address, place)
        if found not in partly and found not in clips:
            continue
        raw.FPDFText_GetCharBox(textpage, place, *sides)
        x_0, x_1, y_0, y_1 = box
        char = x_0, y_0, x_1, y_1
        may_be_hidden = any(_is_around(cover, char) for cover in partly.get(found, ()))
        if found in clips:
            clip = clips[found]
            may_be_hidden = x_0 >= clip[2] or x_1 <= clip[0] or y_0 >= clip[3] or y_1 <= clip[1]
        if may_be_hidden and not _is_drawn(page, raw.FS_RECTF(x_0, y_1, x_1, y_0), pixels()):
            chars.add(place)
    return HiddenText(objects, chars)


def _texts(
    pieces: Sequence[PageObject], depth: int = _MOST_DEPTH
) -> Iterator[tuple[int, Any, tuple[float, ...], bool]]:
    """Yield the texts of a page and of the groups on it, and whether their group is clear.

    A text has the index of the piece that it belongs to, and bounds on the page.
    """
    for index, (piece, kind, bounds) in enumerate(pieces):
        if kind == raw.FPDF_PAGEOBJ_TEXT:
            yield index, piece, bounds, False
        elif kind == raw.FPDF_PAGEOBJ_FORM and depth:
            colour, matrix = _fill_of(piece), raw.FS_MATRIX()
            is_clear = bool(colour) and colour[3] < _FAINT
            raw.FPDFPageObj_GetMatrix(piece, matrix)
            for _, text, (x_0, y_0, x_1, y_1), is_clear_within in _texts(
                form_objects(piece), depth - 1
            ):
                xs = [
                    matrix.a * x + matrix.c * y + matrix.e for x in (x_0, x_1) for y in (y_0, y_1)
                ]
                ys = [
                    matrix.b * x + matrix.d * y + matrix.f for x in (x_0, x_1) for y in (y_0, y_1)
                ]
                on_page = min(xs), min(ys), max(xs), max(ys)
                yield index, text, on_page, is_clear or is_clear_within


def _clip_of(piece: Any) -> tuple[float, ...]:
    """Return the box in which a text is shown; empty: the whole page."""
    path = _clip_path_of(piece)
    n_paths = _n_clips_of(path) if path else 0
    found: tuple[float, ...] = ()
    point = (c_float * 2)()
    place = addressof(point)
    for index in range(n_paths):
        xs, ys = list[float](), list[float]()
        for at in range(_n_clip_segments_of(path, index)):
            if _point_of(_clip_segment_of(path, index, at), place, place + 4):
                xs.append(point[0])
                ys.append(point[1])
        if xs:
            box = min(xs), min(ys), max(xs), max(ys)
            inner = zip((max, max, min, min), found, box, strict=True)
            found = tuple(nearer(a, b) for nearer, a, b in inner) if found else box
    return found


def _is_around(cover: Sequence[float], box: Sequence[float]) -> bool:
    """Return whether a cover lies around a text, but for a point."""
    left, bottom, right, top = cover
    x_0, y_0, x_1, y_1 = box
    is_wide = left <= x_0 + _NEAR and right >= x_1 - _NEAR
    return is_wide and bottom <= y_0 + _NEAR and top >= y_1 - _NEAR


class _Covers:
    def __init__(self, pieces: Sequence[PageObject]) -> None:
        self._at = [
            at
            for at, found in enumerate(pieces)
            if found.kind not in _COVER_NOTHING and _is_thick(found) and not _is_frame(found)
        ]
        self._bounds = [pieces[at].bounds for at in self._at]
        self._colours = [_fill_of(pieces[at].piece) for at in self._at]

    def over_a_part(self, index: int, bounds: tuple[float, ...]) -> Iterator[tuple[float, ...]]:
        """Yield what is painted later over a part of a text, and as high or as wide as it."""
        x_0, y_0, x_1, y_1 = bounds
        first = bisect(self._at, index)
        for cover in self._bounds[first : first + _MOST_COVERS]:
            left, bottom, right, top = cover
            if left < x_1 and right > x_0 and bottom < y_1 and top > y_0:
                is_high = bottom <= y_0 + _NEAR and top >= y_1 - _NEAR
                if is_high or (left <= x_0 + _NEAR and right >= x_1 - _NEAR):
                    yield cover

    def may_hide(self, index: int, bounds: tuple[float, ...], colour: tuple[int, ...]) -> bool:
        """Return whether one that is painted later, or in a text's colour, lies around it."""
        middle = bisect(self._at, index)
        for at in range(max(0, middle - _MOST_COVERS), min(len(self._at), middle + _MOST_COVERS)):
            own = self._colours[at] if at < middle else ()
            is_alike = all(abs(a - b) < _FAINT for a, b in zip(own, colour, strict=False))
            is_like_text = at >= middle or (own and colour and is_alike)
            if is_like_text and _is_around(self._bounds[at], bounds):
                return True
        return False


def _is_thick(found: PageObject) -> bool:
    left, bottom, right, top = found.bounds
    return min(right - left, top - bottom) > _THIN


def _is_frame(found: PageObject) -> bool:
    """Return whether it is thin lines around something, as cells of tables have them."""
    if found.kind != raw.FPDF_PAGEOBJ_PATH:
        return False
    fill, is_stroked, width, matrix = c_int(), c_int(), c_float(), raw.FS_MATRIX()
    raw.FPDFPath_GetDrawMode(found.piece, fill, is_stroked)
    raw.FPDFPageObj_GetStrokeWidth(found.piece, width)
    raw.FPDFPageObj_GetMatrix(found.piece, matrix)
    scale = max(hypot(matrix.a, matrix.b), hypot(matrix.c, matrix.d))
    thickness = width.value * scale * raw.FPDFPath_CountSegments(found.piece)
    left, bottom, right, top = found.bounds
    return not fill.value and thickness < min(right - left, top - bottom) / 2


def _fill_of(piece: Any) -> tuple[int, ...]:
    parts = (c_uint * 4)()
    at = addressof(parts)
    return tuple(parts) if _fill_colour(piece, at, at + 4, at + 8, at + 12) else ()


def _is_of_layer(piece: Any) -> bool:
    for index in range(_n_marks_of(piece)):
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
    middle = len(part) // 2  # a line of it tells most texts, in a third of the time
    return any(
        bool((piece.max(axis=(0, 1)).astype(int) - piece.min(axis=(0, 1)) >= _FAINT).any())
        for piece in (part[middle : middle + 1], part)
        if piece.size
    )
