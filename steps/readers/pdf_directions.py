"""Directions of the texts on a page of a PDF, each of which is turned until it runs level.

The page's objects are turned, before PDFium looks where letters stand: of a letter that is askew it
knows only the box around it. Texts of other directions than most text are moved aside, so that
their letters stand in no line of another direction.
"""

from __future__ import annotations

from cmath import exp
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from ctypes import byref, c_double, c_float, c_void_p, sizeof
from itertools import repeat
from math import atan2, cos, hypot, sin
from operator import mul

from pypdfium2 import raw  # type: ignore[import-untyped]

from paddock.engine.system.records import Struct

from .directions import LEVEL, SAME_DIRECTION, angle_between, directions_of
from .pdf_hidden import PageText
from .pdfium import Matrix, PageObject, direct, matrix_product, values_of_each

_ASIDE = 20_000.0  # points between texts of different directions: no page is as wide
_matrix_of = direct(raw.FPDFPageObj_GetMatrix)
_size_of = direct(raw.FPDFTextObj_GetFontSize)
_n_points_of = direct(raw.FPDFPath_CountSegments)
_point_of = direct(raw.FPDFPath_GetPathSegment, c_void_p)
_place_of = direct(raw.FPDFPathSegment_GetPoint)
_PLACE = (c_float * 2)()
_PLACE_REFS = byref(_PLACE), byref(_PLACE, sizeof(c_float))
_MOST_POINTS = 12  # of a line or bar: more is a drawing
_transform = direct(raw.FPDFPageObj_Transform, None)


class TextDirections(Struct, frozen=True):
    rotation: int = 0
    """Of the page, in degrees."""
    angles: Sequence[float] = (0.0,)
    """In radians, from the page as it is shown, that of most text first."""
    others: Mapping[int, int] = {}
    """By addresses of text objects: which angle each has, where it is not the first."""

    @classmethod
    def of(cls, texts: Sequence[PageText], rotation: int) -> TextDirections:
        handles = [c_void_p(text.piece.address) for text in texts]
        _, (a, b, c, d, *_) = values_of_each(_matrix_of, c_float, 6, handles, is_struct=True)
        is_level = not any(b) and min(a, default=1.0) > 0
        if is_level and not rotation and not any([text.within for text in texts]):
            return cls()
        own, lengths = list[float](), Counter[float]()
        _, [font_sizes] = values_of_each(_size_of, c_float, 1, handles)
        sizes = map(mul, font_sizes, map(hypot, c, d))
        for text, x, y, size in zip(texts, a, b, sizes, strict=True):
            if text.within:
                x, y, *_ = matrix_product((x, y, 0.0, 0.0, 0.0, 0.0), text.within)
            x, y = ((x, y), (y, -x), (-x, -y), (-y, x))[rotation // 90 % 4]
            own.append(atan2(y, x))
            left, bottom, right, top = text.piece.bounds
            length = hypot(right - left, top - bottom) / (size or 1.0)
            lengths[own[-1]] += length  # type: ignore[assignment]
        found = directions_of(lengths)
        if not found or (len(found) == 1 and abs(found[0]) < LEVEL):
            return cls(rotation)
        nearest = {
            angle: min(range(len(found)), key=lambda n: abs(angle_between(angle, found[n])))
            for angle in lengths
        }
        others = {
            text.piece.address: nearest[angle]
            for text, angle in zip(texts, own, strict=True)
            if nearest[angle] and abs(angle_between(angle, found[nearest[angle]])) < SAME_DIRECTION
        }
        return cls(rotation, (found[0] if abs(found[0]) > LEVEL else 0.0, *found[1:]), others)

    @property
    def are_level(self) -> bool:
        return len(self.angles) == 1 and not self.angles[0]

    def level(self, pieces: Sequence[PageObject], texts: Sequence[PageText]) -> None:
        """Turn what stands on an open page, each text by its own direction."""
        turns = [self._turn(n) for n in range(len(self.angles))]
        handles = defaultdict[int, list[c_void_p]](list)
        for piece in pieces:
            handles[self.others.get(piece.address, 0)].append(c_void_p(piece.address))
        for n, own in handles.items():
            if n or self.angles[0]:
                _apply(turns[n], own)
        for text in texts:
            if text.within and (n := self.others.get(text.piece.address, 0)):
                there = matrix_product(matrix_product(text.within, turns[n]), _inverse(turns[0]))
                own_turn = matrix_product(there, _inverse(text.within))
                _apply(own_turn, [c_void_p(text.piece.address)])

    def level_lines(self, n: int, pieces: Sequence[PageObject]) -> list[PageObject]:
        """Turn drawn lines by this direction, after they were turned by the last one."""
        lines = [piece for piece in pieces if piece.kind == raw.FPDF_PAGEOBJ_PATH]
        turn = matrix_product(_inverse(self._turn(n - 1)), self._turn(n)) if n else None
        if turn:
            _apply(turn, [c_void_p(line.address) for line in lines])
        return list(map(_by_points, lines))

    def _turn(self, n: int) -> Matrix:
        a, b = cos(self.angles[n]), sin(self.angles[n])
        return (a, -b, b, a, n * _ASIDE, n * _ASIDE)

    def in_main(self, n: int, skew: float, point: complex) -> complex:
        """Return where a point of another direction is, in points of the main one."""
        aside = complex(n, n) * _ASIDE * (-1j) ** (self.rotation // 90) * (1 - 1j * skew)
        return (point - aside) * exp(1j * (self.angles[n] - self.angles[0]))


def _by_points(line: PageObject) -> PageObject:
    """Return a drawn line with the bounds of its points: PDFium turns a box around its bounds."""
    handle, matrix = c_void_p(line.address), (c_float * 6)()
    _matrix_of(handle, byref(matrix))
    xs, ys = list[float](), list[float]()
    for at in range(min(_n_points_of(handle), _MOST_POINTS)):
        _place_of(c_void_p(_point_of(handle, at)), *_PLACE_REFS)
        *_, x, y = matrix_product((1.0, 0.0, 0.0, 1.0, *_PLACE), tuple(matrix))
        xs.append(x)
        ys.append(y)
    return line._replace(bounds=(min(xs), min(ys), max(xs), max(ys))) if xs else line


def _apply(turn: Matrix, handles: Sequence[c_void_p]) -> None:
    for _ in map(_transform, handles, *(repeat(c_double(part)) for part in turn)):
        pass


def _inverse(matrix: Matrix) -> Matrix:
    a, b, c, d, e, f = matrix
    scale = a * d - b * c or 1.0  # a group without width shows nothing
    a, b, c, d = d / scale, -b / scale, -c / scale, a / scale
    return a, b, c, d, -e * a - f * c, -e * b - f * d
