"""The words of a PDF's page: characters of one style that no gap separates.

What PDFium takes for blanks and lines is not asked: it puts blanks between letters that are spaced,
and of some programs' pages each letter into a line of its own.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from ctypes import addressof, c_double, c_float, c_int, c_void_p, cast, create_string_buffer
from itertools import compress, pairwise, repeat
from math import hypot
from operator import ne, sub
from statistics import median
from typing import Any, NamedTuple

from pypdfium2 import raw  # type: ignore[import-untyped]

from .page_rows import BLANK, CAPITAL, Rule, Word
from .pdf_hidden import HiddenText, text_object_at
from .pdfium import PageObject, by_address, values_of_each

_SHOWN = re.compile(r"\S+")
_DIGIT = re.compile(r"\d")
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
        self._rotation, self._unshown = rotation, unshown
        self._page = page = cast(textpage, c_void_p).value
        self._places = list[int]()
        self._blanks = set[int]()
        """Before these characters is white space that is part of the text."""
        reached = 0
        for shown in _SHOWN.finditer(text):
            start, end = shown.span()
            if not all(map(_is_generated, repeat(page), places[reached:start])):
                self._blanks.add(len(self._places))
            self._places += places[start:end]
            reached = end
        self._text = "".join(text.split())
        pages = repeat(page, len(self._places))
        pages = repeat(page, len(self._places))
        _, sides = values_of_each(_box_at, c_float, 4, pages, self._places, is_struct=True)
        self._boxes = left, bottom, right, top = sides[0], sides[3], sides[2], sides[1]
        if rotation:
            turned = (turned_box(box, rotation) for box in zip(*self._boxes, strict=True))
            left, bottom, right, top = map(list, zip(*turned, strict=True)) if left else ([],) * 4
        self._left, self._bottom, self._right, self._top = left, bottom, right, top
        behind, before = map(sub, left[1:], right), map(sub, left, right[1:])
        self._gaps = [0.0, *map(max, behind, before)]
        """Between each character and the one before it."""
        self._ink_sides = (c_double * 4)()
        self._fonts: dict[int, tuple[bool, bool]] = {}

    def __iter__(self) -> Iterator[Word]:
        n_chars, parts = len(self._places), self._unshown.chars
        objects = list(map(text_object_at, repeat(self._page), self._places))
        is_first = map(ne, objects, (-1, *objects))
        starts = list(range(n_chars) if parts else compress(range(n_chars), is_first))
        run: tuple[float, _Style] | None = None
        first = 0
        for start, base, style in self._styles(starts, objects):
            if run and not (style == run[1] and (base == run[0] or not style.is_upright)):
                yield from self._words(first, start, *run)
                first = start
            run = base, style
        if run:
            yield from self._words(first, n_chars, *run)

    def _words(self, first: int, end: int, base: float, style: _Style) -> Iterator[Word]:
        """Yield the words of a run of characters of one style."""
        size, blanks = style.size, self._blanks
        gaps = self._gaps[first + 1 : end]
        if not style.is_upright:
            places = range(first + 1, end)
            low, high = self._bottom, self._top
            above = (max(low[at] - high[at - 1], low[at - 1] - high[at]) for at in places)
            gaps = list(map(max, gaps, above))
        least, back, spacing = _KERNING * size, -0.5 * size, 0.0
        if len([gap for gap in gaps if gap > least]) > 0.5 * len(gaps):
            spacing = self._letter_spacing(first, gaps, size)
        most = BLANK * size + spacing
        start, has_blank = first, False
        for at, gap in enumerate(gaps, first + 1):
            if back < gap <= most and at not in blanks:
                continue
            yield from self._parts(start, at, base, style, spacing, has_blank=has_blank)
            start, has_blank = at, gap > most
        yield from self._parts(start, end, base, style, spacing, has_blank=has_blank)

    def _letter_spacing(self, first: int, gaps: Sequence[float], size: float) -> float:
        """Return the gap between the letters of words that are spaced; most text has none."""
        usual = median(gaps)
        alike = [
            self._text[at : at + 2].isalpha()
            for at, gap in enumerate(gaps, first)
            if abs(gap - usual) < _KERNING * size
        ]
        is_spaced = len(alike) > max(3, 0.5 * len(gaps)) and sum(alike) > 1
        return usual if is_spaced else 0.0

    def _parts(
        self, start: int, end: int, base: float, style: _Style, spacing: float, *, has_blank: bool
    ) -> Iterator[Word]:
        """Yield a word, or its parts where some figures of its font are raised or lowered."""
        text = self._text[start:end]
        has_blank = has_blank or start in self._blanks
        ends = {end}
        if leaders := _LEADERS.search(text):
            ends |= {start + at for at in leaders.span() if at}
        inks: list[tuple[float, float]] = []
        if len(text) < 3 or _DIGIT.search(text):
            inks = [self._ink(at, base, style.size) for at in range(start, end)]
            levels = [_figure_level(low - base, high - low, style.size) for low, high in inks]
            ends |= {start + at for at, (a, b) in enumerate(pairwise(levels), 1) if a != b}
        low, high = base, base + CAPITAL * style.size
        first = start
        lefts, bottoms, rights, tops = self._boxes
        for stop in sorted(ends):
            last = stop - 1
            if inks:
                low, high = (
                    min(low for low, _ in inks[start - first : stop - first]),
                    max(inks[start - first : stop - first])[1],
                )
            box = (
                min(lefts[start], lefts[last]), min(bottoms[start], bottoms[last]),
                max(rights[start], rights[last]), max(tops[start], tops[last]),
            )  # fmt: skip
            left, _, right, _ = turned_box(box, self._rotation) if self._rotation else box
            blank = has_blank and start == first
            yield Word(
                text[start - first : stop - first],
                blank,
                left,
                right,
                low,
                high,
                box,
                base,
                *style,
                spacing,
            )
            start = stop

    def _ink(self, at: int, base: float, size: float) -> tuple[float, float]:
        """Return from where to where the ink of a letter or figure goes; signs stand anywhere."""
        char = self._text[at]
        if char in _SIGNS or char.isdecimal() or char.isupper() or char.islower():
            to = addressof(self._ink_sides)
            _ink_at(self._page, self._places[at], to, to + 8, to + 16, to + 24)
            left, right, low, high = self._ink_sides
            if self._rotation:
                _, low, _, high = turned_box((left, low, right, high), self._rotation)
            is_level = char in _SIGNS and low - base < _RAISED_SIGN * size
            if low < high and not is_level:
                return low, high
        return base, base + CAPITAL * size

    def _styles(
        self, starts: Sequence[int], objects: Sequence[int | None]
    ) -> Iterator[tuple[int, float, _Style]]:
        """Yield the base and style of text objects, by their first characters."""
        places, hidden = [self._places[at] for at in starts], self._unshown
        owners = [objects[at] for at in starts]
        pages, turn = repeat(self._page, len(starts)), self._rotation // 90 % 4
        _, matrices = values_of_each(_matrix_at, c_float, 6, pages, places, is_struct=True)
        pages = repeat(self._page, len(starts))
        _, origins = values_of_each(_origin_at, c_double, 2, pages, places)
        sizes = map(_size_at, repeat(self._page), places)
        own = starts, places, owners, *origins, *matrices[:4], sizes
        facts = zip(*own, map(_font_of, owners), map(_mode_of, owners), strict=True)
        styles = dict[tuple[Any, ...], _Style]()
        for start, place, owner, x, y, a, b, c, d, size, font, mode in facts:
            is_hidden = place in hidden.chars or owner in hidden.objects
            key = a, b, c, d, size, font, mode, is_hidden
            if key not in styles:
                is_bold, is_symbol = self._font(font) if font else (False, False)
                is_bold |= mode == raw.FPDF_TEXTRENDERMODE_FILL_STROKE
                across, up = ((a, b), (b, -a), (-a, -b), (-b, a))[turn]
                is_upright = across > 0 and abs(up) < 0.05 * across
                full_size = round(size * hypot(c, d), 1) or 1.0
                styles[key] = _Style(full_size, is_bold, is_upright, is_hidden, is_symbol)
            yield start, (y, -x, -y, x)[turn], styles[key]

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
        box = left, bottom, right, top = turned_box(bounds, rotation)
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
