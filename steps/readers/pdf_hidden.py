"""Text that a page of a PDF does not show: white, covered, beyond its borders, of a hidden layer.

The page is drawn only where a text may be hidden: white text may stand on a dark field.
"""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from ctypes import (
    byref,
    c_double,
    c_float,
    c_int,
    c_uint,
    c_ulong,
    c_void_p,
    create_string_buffer,
    sizeof,
)
from functools import cache
from itertools import chain, pairwise
from math import hypot
from operator import sub
from typing import Any, NamedTuple, TypeAlias

from pypdfium2 import raw  # type: ignore[import-untyped]

from paddock.engine.system.records import Struct
from paddock.pipelines.text_cells import PageBox

from .pdfium import (
    Matrix,
    PageFrame,
    PageObject,
    direct,
    form_objects,
    low_pixels,
    matrix_product,
    utf16,
    values_of_each,
)

_PAPER, _FAINT = 0xF0, 16  # of 255: as light as paper; a difference that no one sees
_NEAR = 1.0  # points by which a text may be larger than what covers it
_THIN = 2.0  # points: lines, which no letter hides behind
_STEM = 3.0  # points: a letter that is thinner has no edge within its box
_MOST_DEPTH = 4  # groups within groups
_MOST_COVERS = 100  # that are looked at for one text
_COVER_NOTHING = (raw.FPDF_PAGEOBJ_TEXT, raw.FPDF_PAGEOBJ_UNKNOWN)
_UNPAINTED = (raw.FPDF_TEXTRENDERMODE_INVISIBLE, raw.FPDF_TEXTRENDERMODE_CLIP)
_LAYER_MARK = "OC\0".encode("utf-16-le")  # "optional content"
_MARK_NAME = create_string_buffer(len(_LAYER_MARK))
_n_marks_of = direct(raw.FPDFPageObj_CountMarks)
_mark_of = direct(raw.FPDFPageObj_GetMark, c_void_p)
_name_of = direct(raw.FPDFPageObjMark_GetName)
_mode_of = direct(raw.FPDFTextObj_GetTextRenderMode)
_clip_path_of = direct(raw.FPDFPageObj_GetClipPath, c_void_p)
_n_clips_of = direct(raw.FPDFClipPath_CountPaths)
_n_clip_segments_of = direct(raw.FPDFClipPath_CountPathSegments)
_clip_segment_of = direct(raw.FPDFClipPath_GetPathSegment, c_void_p)
_point_of = direct(raw.FPDFPathSegment_GetPoint)
_fill_colour = direct(raw.FPDFPageObj_GetFillColor)
text_object_at = direct(raw.FPDFText_GetTextObject, c_void_p)
box_at = direct(raw.FPDFText_GetLooseCharBox)
ink_at = direct(raw.FPDFText_GetCharBox)


Bounds: TypeAlias = tuple[float, float, float, float]


class PageText(NamedTuple):
    """A text on a page, or of a group on it; it has bounds on the page."""

    at: int
    """The index of the piece of the page that it belongs to."""
    piece: PageObject
    is_clear: bool = False
    """Whether its group is."""
    within: Matrix | None = None
    """From its group to the page."""


class HiddenText(Struct, frozen=True):
    objects: Set[int]
    """The addresses of text objects that are not shown."""
    chars: Set[int]
    """PDFium's indexes of characters under what hides only a part of their text."""

    def after(self, shown: Callable[[], Any], moved: Any) -> HiddenText:
        """Return the same for the page's text after its objects were moved."""
        if not self.chars:
            return self
        hidden = {key for place, key in _char_keys(shown()) if place in self.chars}
        chars = {place for place, key in _char_keys(moved) if key in hidden}
        return HiddenText(self.objects, chars)


def _char_keys(textpage: Any) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield characters, each as a text object and which one of its characters it is."""
    counts: Counter[int] = Counter()
    for place in range(textpage.count_chars()):
        host = text_object_at(textpage.raw, place) or 0
        counts[host] += 1
        yield place, (host, counts[host])


def hidden_text(
    page: Any,
    textpage: Callable[[], Any],
    texts: Sequence[PageText],
    pieces: Sequence[PageObject],
    frame: PageFrame,
) -> HiddenText:
    """Return what an open page does not show."""
    left, bottom, right, top = page.get_bbox()
    if left >= right or bottom >= top:  # a damaged crop box, which most programs leave out
        return HiddenText(frozenset(), frozenset())
    covers, pixels = _covers_of(pieces), cache(lambda: low_pixels(page))

    def is_drawn(bounds: Bounds) -> bool:
        x_0, y_0, x_1, y_1 = bounds
        if min(x_1 - x_0, y_1 - y_0) < _STEM:  # an l, whose box is full of ink
            bounds = x_0 - _THIN, y_0 - _THIN, x_1 + _THIN, y_1 + _THIN
        return _is_drawn(frame.box(*bounds), pixels())

    objects = set[int]()
    partly = dict[int, list[_Cover]]()
    """By text objects: what may hide a part of them."""
    clips = dict[int, tuple[float, ...]]()
    faint = dict[tuple[int, ...], bool]()
    found = [c_void_p(text.piece.address) for text in texts]
    paths = list(map(c_void_p, map(_clip_path_of, found)))
    facts = zip(
        texts, found, _fills(found), map(_mode_of, found), map(_n_marks_of, found),
        paths, map(_n_clips_of, paths), strict=True,
    )  # fmt: skip
    for (index, text, is_clear, _), handle, colour, mode, n_marks, path, n_clips in facts:
        x_0, y_0, x_1, y_1 = bounds = text.bounds
        if x_0 >= x_1 or y_0 >= y_1:  # such as spaces
            continue
        is_hidden = is_clear or x_1 <= left or x_0 >= right or y_1 <= bottom or y_0 >= top
        if colour not in faint:
            faint[colour] = bool(colour) and (min(colour[:3]) >= _PAPER or colour[3] < _FAINT)
        clip = _clip_of(path, n_clips) if n_clips > 0 else ()
        is_cut = bool(clip) and not _is_around(clip, bounds)
        near = list[_Cover]()
        if covers:
            middle = bisect(covers, (index,))
            near = covers[max(0, middle - _MOST_COVERS) : middle + _MOST_COVERS]
            near = [c for c in near if c[1] < x_1 and c[3] > x_0 and c[2] < y_1 and c[4] > y_0]
        if not is_hidden and (
            faint[colour]
            or is_cut
            or mode in _UNPAINTED
            or (n_marks and _is_of_layer(handle, n_marks))
            or (near and any(cover.hides(index, bounds, colour) for cover in near))
        ):
            is_hidden = not is_drawn(bounds)
        if is_hidden:
            # Points and lines are too fine for few pixels.
            if any(map(str.isalnum, utf16(raw.FPDFTextObj_GetText, text.piece, textpage()))):
                objects.add(text.address)
        elif over := [c for c in near if c.is_over_part(index, bounds)]:
            partly[text.address] = over
        elif is_cut:
            clips[text.address] = clip
    chars = _hidden_chars(textpage(), partly, clips, is_drawn) if partly or clips else set[int]()
    return HiddenText(objects, chars)


def _hidden_chars(
    textpage: Any,
    partly: Mapping[int, Sequence[_Cover]],
    clips: Mapping[int, Sequence[float]],
    is_drawn: Callable[[Bounds], bool],
) -> set[int]:
    """Return the characters under what hides a part of their text, or out of its clip."""
    unseen, thin, box = set[int](), list[int](), (c_double * 4)()
    sides = [byref(box, at * sizeof(c_double)) for at in range(4)]
    for place in range(textpage.count_chars()):
        host = text_object_at(textpage.raw, place)
        if host not in partly and host not in clips:
            continue
        ink_at(textpage.raw, place, *sides)
        x_0, x_1, y_0, y_1 = box
        char = x_0, y_0, x_1, y_1
        may_be_hidden = any(_is_around(cover[1:5], char) for cover in partly.get(host, ()))
        if host in clips:
            clip = clips[host]
            may_be_hidden = x_0 >= clip[2] or x_1 <= clip[0] or y_0 >= clip[3] or y_1 <= clip[1]
        if may_be_hidden and min(x_1 - x_0, y_1 - y_0) < _STEM:
            thin.append(place)
        elif may_be_hidden and not is_drawn(char):
            unseen.add(place)
    for place in (*thin, *reversed(thin)):  # too thin to tell: as the letters beside it
        unseen |= {place} if not unseen.isdisjoint((place - 1, place + 1)) else set()
    return unseen


def page_texts(pieces: Sequence[PageObject], depth: int = _MOST_DEPTH) -> Iterator[PageText]:
    """Yield the texts of a page and of the groups on it."""
    for index, piece in enumerate(pieces):
        if piece.kind == raw.FPDF_PAGEOBJ_TEXT:
            yield PageText(index, piece)
        elif piece.kind == raw.FPDF_PAGEOBJ_FORM and depth:
            [colour], m = _fills([c_void_p(piece.address)]), raw.FS_MATRIX()
            is_clear = bool(colour) and colour[3] < _FAINT
            raw.FPDFPageObj_GetMatrix(piece.piece, m)
            own = m.a, m.b, m.c, m.d, m.e, m.f
            for _, text, is_clear_within, within in page_texts(
                form_objects(piece.address), depth - 1
            ):
                x_0, y_0, x_1, y_1 = text.bounds
                corners = [(x, y) for x in (x_0, x_1) for y in (y_0, y_1)]
                xs = [m.a * x + m.c * y + m.e for x, y in corners]
                ys = [m.b * x + m.d * y + m.f for x, y in corners]
                on_page = text._replace(bounds=(min(xs), min(ys), max(xs), max(ys)))
                whole = matrix_product(within, own) if within else own
                yield PageText(index, on_page, is_clear or is_clear_within, whole)


def _clip_of(path: c_void_p, n_paths: int) -> tuple[float, ...]:
    """Return the box in which a text is shown; empty: the whole page."""
    found: tuple[float, ...] = ()
    point = (c_float * 2)()
    place = byref(point), byref(point, sizeof(c_float))
    for index in range(n_paths):
        xs, ys = list[float](), list[float]()
        for at in range(_n_clip_segments_of(path, index)):
            if _point_of(c_void_p(_clip_segment_of(path, index, at)), *place):
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


class _Cover(NamedTuple):
    at: int
    """Its place in the order of drawing."""
    left: float
    bottom: float
    right: float
    top: float
    colour: tuple[int, ...]

    def hides(self, index: int, box: Sequence[float], colour: tuple[int, ...]) -> bool:
        """Return whether it lies around a text, and is painted later or in the text's colour."""
        alike = zip(self.colour, colour, strict=False)
        is_like_text = self.colour and colour and all(abs(a - b) < _FAINT for a, b in alike)
        return (self.at >= index or bool(is_like_text)) and _is_around(self[1:5], box)

    def is_over_part(self, index: int, box: Sequence[float]) -> bool:
        """Return whether it is painted later over a part of a text, as high or as wide as it."""
        x_0, y_0, x_1, y_1 = box
        is_high = self.bottom <= y_0 + _NEAR and self.top >= y_1 - _NEAR
        is_wide = self.left <= x_0 + _NEAR and self.right >= x_1 - _NEAR
        return self.at >= index and (is_high or is_wide)


def _covers_of(pieces: Sequence[PageObject]) -> list[_Cover]:
    found = [
        (at, piece)
        for at, piece in enumerate(pieces)
        for left, bottom, right, top in [piece.bounds]
        if min(right - left, top - bottom) > _THIN
        if piece.kind not in _COVER_NOTHING and not _is_frame(piece)
    ]
    colours = _fills([c_void_p(piece.address) for _, piece in found])
    return [
        _Cover(at, *piece.bounds, colour)
        for (at, piece), colour in zip(found, colours, strict=True)
    ]


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


def _fills(pieces: Sequence[c_void_p]) -> list[tuple[int, ...]]:
    """Return red, green, blue and opacity of objects; empty: not one colour."""
    known, parts = values_of_each(_fill_colour, c_uint, 4, pieces)
    colours = zip(*parts, strict=True)
    return [colour if is_known else () for is_known, colour in zip(known, colours, strict=True)]


def _is_of_layer(piece: c_void_p, n_marks: int) -> bool:
    for index in range(n_marks):
        mark, length = c_void_p(_mark_of(piece, index)), c_ulong(len(_LAYER_MARK))
        _name_of(mark, _MARK_NAME, length, byref(length))
        if length.value == len(_LAYER_MARK) and _MARK_NAME.raw == _LAYER_MARK:
            return True
    return False


def _is_drawn(shown: PageBox | None, pixels: Sequence[bytes]) -> bool:
    """Return whether there are edges where a text stands; a gradient behind it has none."""
    if shown is None:
        return False
    (left, top, right, bottom), height, width = shown, len(pixels), len(pixels[0]) // 3
    columns = slice(
        3 * int(left * width), 3 * (int(left * width) + int((right - left) * width) + 1)
    )
    rows = [row[columns] for row in pixels[int(top * height) : int(bottom * height) + 1]]
    # A line in the middle of it tells most texts
    across = ((row[3:], row) for row in (*rows[len(rows) // 2 :][:1], *rows))
    steps = (map(sub, *pair) for pair in chain(across, pairwise(rows)))
    return any(max(map(abs, line), default=0) >= _FAINT for line in steps)
