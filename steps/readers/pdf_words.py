"""The words of a PDF's page: characters of one style that no gap separates.

What PDFium takes for blanks and lines is not asked: it puts blanks between letters that are spaced,
and of some programs' pages each letter into a line of its own.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from ctypes import addressof, c_double, c_float, c_int, c_void_p, cast, create_string_buffer
from itertools import pairwise
from math import hypot
from statistics import median
from typing import Any, NamedTuple
from unicodedata import category

from pypdfium2 import raw  # type: ignore[import-untyped]

from .page_rows import BLANK, CAPITAL, Rule, Word
from .pdf_hidden import HiddenText, text_object_at
from .pdfium import PageObject, by_address

_LEADERS = re.compile(r"[.…·]{4,}")
_BOLD_NAME = re.compile(rb"bold|black|heavy|demi|medi\b|(?:cm|sf|cmss|lm)bx", re.IGNORECASE)
_SYMBOL_NAME = re.compile(rb"dingbats|wingding|webding|symbol", re.IGNORECASE)
_FORCE_BOLD = 1 << 18  # a flag of a font's descriptor
# Of a size:
_KERNING = 0.05  # the most between letters that are not spaced
_FIGURE = 0.2, -0.06, 0.5  # above and below the line: figures that a font raises and lowers; height
_BEARING = 0.08  # white at the sides of a letter
_CLOSE = 0.5  # a drawn letter to the next one, with a blank
_SIGN_GAP = 2.5  # the sign of a list to its text
_MOST_DRAWN = 15.0  # points, of what may be a letter or a sign
_RAISED_SIGN = 0.36  # where a raised minus begins; others have 0.3
UNKNOWN = "\ufffd"
_SIGNS = "+-\u2212"

_matrix_at = by_address(raw.FPDFText_GetMatrix, c_int, c_void_p, c_int, c_void_p)
_origin_at = by_address(raw.FPDFText_GetCharOrigin, c_int, c_void_p, c_int, c_void_p, c_void_p)
_size_at = by_address(raw.FPDFText_GetFontSize, c_double, c_void_p, c_int)
_is_generated = by_address(raw.FPDFText_IsGenerated, c_int, c_void_p, c_int)
_box_at = by_address(raw.FPDFText_GetLooseCharBox, c_int, c_void_p, c_int, c_void_p)
_ink_at = by_address(raw.FPDFText_GetCharBox, c_int, c_void_p, c_int, *[c_void_p] * 4)
_font_of = by_address(raw.FPDFTextObj_GetFont, c_void_p, c_void_p)
_mode_of = by_address(raw.FPDFTextObj_GetTextRenderMode, c_int, c_void_p)


class _Style(NamedTuple):
    """How the characters of a text object are written; the last fields of a `Word`."""

    base: float
    size: float = 1.0
    is_bold: bool = False
    is_upright: bool = True
    is_hidden: bool = False
    is_symbol: bool = False


class PageWords:
    """Reads the words of a page, whose raw text has PDFium's index of each character."""

    def __init__(
        self, textpage: Any, text: str, places: Sequence[int], rotation: int, unshown: HiddenText
    ) -> None:
        self._text, self._places, self._rotation, self._unshown = text, places, rotation, unshown
        self._page = cast(textpage, c_void_p).value
        boxes = (c_float * (4 * len(text)))()
        at = addressof(boxes)
        for place in places:
            _box_at(self._page, place, at)
            at += 16
        self._boxes = boxes[0::4], boxes[3::4], boxes[2::4], boxes[1::4]
        self._left, self._bottom, self._right, self._top = self._boxes
        if rotation:
            turned = (turned_box(box, rotation) for box in zip(*self._boxes, strict=True))
            sides = [list(side) for side in zip(*turned, strict=True)] or [[], [], [], []]
            self._left, self._bottom, self._right, self._top = sides
        self._ink_sides = (c_double * 4)()
        self._to_ink = addressof(self._ink_sides)
        self._styles: dict[tuple[int | None, bool], _Style] = {}
        self._fonts: dict[int, tuple[bool, bool]] = {}
        self._blanks = set[int]()
        """Of the text: before these characters is white space that is part of it."""

    def __iter__(self) -> Iterator[Word]:
        run = list[int]()
        last, style, last_object = -1, _Style(0.0), -1
        page, places, blanks = self._page, self._places, self._blanks
        has_parts_hidden = bool(self._unshown.chars)
        for at, char in enumerate(self._text):
            if char.isspace():
                if at in blanks or not _is_generated(page, places[at]):
                    blanks.add(at + 1)
                continue
            own, text_object = style, text_object_at(page, places[at])
            if text_object != last_object or has_parts_hidden:
                own = self._style(text_object, places[at])
                last_object = text_object
            if run and not (
                (own is style or self._is_like(style, own))
                and (not own.is_upright or self._gap(last, at) > -0.5 * own.size)
            ):
                yield from self._words(run, style)
                run = []
            run.append(at)
            last, style = at, own
        if run:
            yield from self._words(run, style)

    def _is_like(self, last: _Style, style: _Style) -> bool:
        return style == last if style.is_upright else style[1:] == last[1:]

    def _gap(self, a: int, b: int) -> float:
        aside = self._left[b] - self._right[a]
        if aside < 0:
            aside = max(aside, self._left[a] - self._right[b])
        return aside

    def _words(self, run: Sequence[int], style: _Style) -> Iterator[Word]:
        start, least = 0, _KERNING * style.size
        gaps = [self._gap(a, b) for a, b in pairwise(run)]
        if not style.is_upright:
            above = (
                max(self._bottom[b] - self._top[a], self._bottom[a] - self._top[b])
                for a, b in pairwise(run)
            )
            gaps = list(map(max, gaps, above))
        most = BLANK * style.size
        spacing = 0.0
        if len([gap for gap in gaps if gap > least]) > 0.5 * len(gaps):
            spacing = self._letter_spacing(run, gaps, style.size)
        for at, gap in enumerate(gaps, 1):
            if gap - spacing > most or run[at] in self._blanks:
                yield from self._parts(run[start:at], style, spacing, has_blank=start > 0)
                start = at
        yield from self._parts(run[start:], style, spacing, has_blank=start > 0)

    def _letter_spacing(self, run: Sequence[int], gaps: Sequence[float], size: float) -> float:
        """Return the gap between the letters of words that are spaced; most text has none."""
        usual = median(gaps)
        alike = [
            self._text[a].isalpha() and self._text[b].isalpha()
            for (a, b), gap in zip(pairwise(run), gaps, strict=True)
            if abs(gap - usual) < _KERNING * size
        ]
        is_spaced = len(alike) > max(3, 0.5 * len(gaps)) and sum(alike) > 1
        return usual if is_spaced else 0.0

    def _parts(
        self, word: Sequence[int], style: _Style, spacing: float, *, has_blank: bool
    ) -> Iterator[Word]:
        """Yield a word, or its parts where some figures of its font are raised or lowered."""
        text = "".join([self._text[at] for at in word])
        has_blank = has_blank or word[0] in self._blanks
        ends = [len(word)]
        if leaders := _LEADERS.search(text):
            ends = sorted({leaders.start(), leaders.end(), len(word)} - {0})
        inks: list[tuple[float, float]] = []
        if len(word) < 3 or any(map(str.isdecimal, text)):
            inks = [self._ink(at, style) for at in word]
            levels = [_figure_level(low - style.base, high - low, style.size) for low, high in inks]
            changes = (at for at, (a, b) in enumerate(pairwise(levels), 1) if a != b)
            ends = sorted({*ends, *changes})
        start = 0
        lefts, bottoms, rights, tops = self._boxes
        for end in ends:
            first, last = word[start], word[end - 1]
            low, high = style.base, style.base + CAPITAL * style.size
            if inks:
                low, high = min(low for low, _ in inks[start:end]), max(inks[start:end])[1]
            left = min(self._left[first], self._left[last])
            right = max(self._right[first], self._right[last])
            box = (
                min(lefts[first], lefts[last]), min(bottoms[first], bottoms[last]),
                max(rights[first], rights[last]), max(tops[first], tops[last]),
            )  # fmt: skip
            blank = has_blank and not start
            made = Word(text[start:end], blank, left, right, low, high, box, *style)
            made.spacing = spacing
            yield made
            start = end

    def _ink(self, at: int, style: _Style) -> tuple[float, float]:
        """Return from where to where the ink of a letter or figure goes; signs stand anywhere."""
        char = self._text[at]
        if char in _SIGNS or char.isdecimal() or category(char) in ("Ll", "Lu"):
            to = self._to_ink
            _ink_at(self._page, self._places[at], to, to + 8, to + 16, to + 24)
            left, right, low, high = self._ink_sides
            if self._rotation:
                _, low, _, high = turned_box((left, low, right, high), self._rotation)
            is_level = char in _SIGNS and low - style.base < _RAISED_SIGN * style.size
            if low < high and not is_level:
                return low, high
        return style.base, style.base + CAPITAL * style.size

    def _style(self, text_object: int | None, place: int) -> _Style:
        is_hidden = place in self._unshown.chars or text_object in self._unshown.objects
        key = text_object, is_hidden
        if key in self._styles:
            return self._styles[key]
        values, origin = (c_float * 6)(), (c_double * 2)()
        _matrix_at(self._page, place, addressof(values))
        _origin_at(self._page, place, addressof(origin), addressof(origin) + 8)
        a, b, c, d, _, _ = values
        x, y = origin
        base = turned_box((x, y, x, y), self._rotation)[1]
        along = complex(a, b) * (1, -1j, -1, 1j)[self._rotation // 90 % 4]
        size = _size_at(self._page, place) * hypot(c, d)
        font = _font_of(text_object) if text_object else None
        is_bold, is_symbol = self._font(font) if font else (False, False)
        if text_object and not is_bold:
            is_bold = _mode_of(text_object) == raw.FPDF_TEXTRENDERMODE_FILL_STROKE
        is_upright = along.real > 0 and abs(along.imag) < 0.05 * along.real
        style = _Style(base, round(size, 1) or 1.0, is_bold, is_upright, is_hidden, is_symbol)
        self._styles[key] = style
        return style

    def _font(self, font: int) -> tuple[bool, bool]:
        """Return whether a font is bold, and whether it is of signs."""
        if font not in self._fonts:
            handle = cast(font, raw.FPDF_FONT)
            name = create_string_buffer(100)
            raw.FPDFFont_GetBaseFontName(handle, name, len(name))
            is_forced = raw.FPDFFont_GetFlags(handle) & _FORCE_BOLD
            is_bold = bool(is_forced) or _BOLD_NAME.search(name.value) is not None
            self._fonts[font] = is_bold, bool(_SYMBOL_NAME.search(name.value))
        return self._fonts[font]


def drawn(words: Sequence[Word], pieces: Sequence[PageObject], rotation: int) -> Iterator[Word]:
    """Yield words for drawings that stand in a line of text.

    1. A dot or square before a line is the sign of a list.
    2. A small group close to a letter is one that the font lacks: Type 3 fonts have 256 at most.
    """
    by_base = sorted((word for word in words if word.is_upright), key=lambda word: word.base)
    bases = [word.base for word in by_base]
    for _, kind, bounds in pieces:
        box = left, bottom, right, top = turned_box((*bounds,), rotation)  # type: ignore[arg-type]
        width, height = right - left, top - bottom
        is_dot = kind == raw.FPDF_PAGEOBJ_PATH and 0.7 * width < height < 1.4 * width
        if max(width, height) > _MOST_DRAWN or not (is_dot or kind == raw.FPDF_PAGEOBJ_FORM):
            continue
        first, last = bisect(bases, bottom - _MOST_DRAWN), bisect(bases, top + _MOST_DRAWN)
        middle = (bottom + top) / 2
        line = [w for w in by_base[first:last] if 0 < middle - w.base < CAPITAL * w.size]
        close = [w for w in line if -0.1 < _aside(w, left, right) / w.size < _CLOSE]
        behind = [w for w in line if 0 < w.left - right < _SIGN_GAP * w.size]
        host: Word | None = None
        if is_dot and behind and width < 0.6 * behind[0].size:  # 1
            host = min(behind, key=lambda word: word.left)
            text = "•" if all(w.left > right or left - w.right > w.size for w in line) else ""
        elif close and not is_dot:  # 2
            host, text = close[0], UNKNOWN
            left, right = left - _BEARING * host.size, right + _BEARING * host.size
        if host is not None and text:
            level = host.base, host.size, False, True, False, is_dot
            yield Word(text, False, left, right, host.ink_bottom, host.ink_top, box, *level)


def _aside(word: Word, left: float, right: float) -> float:
    return max(word.left - right, left - word.right)


def _figure_level(low: float, height: float, size: float) -> int:
    """Return whether a figure of the usual size is raised (1) or lowered (-1) by its font."""
    raised, lowered, small = _FIGURE
    if low > raised * size:
        return 1
    return -1 if low < lowered * size and height < small * size else 0


def turned_box(box: Rule, rotation: int) -> Rule:
    left, bottom, right, top = box
    if rotation == 90:
        return bottom, -right, top, -left
    if rotation == 180:
        return -right, -top, -left, -bottom
    return (-top, left, -bottom, right) if rotation == 270 else box
