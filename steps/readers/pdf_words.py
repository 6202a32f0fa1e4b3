"""The words of a PDF's page: characters of one style with no more than blanks between them.

What PDFium takes for blanks and lines is not asked: it puts blanks between letters that are spaced,
and of some programs' pages each letter into a line of its own.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterator, Sequence
from ctypes import byref, c_double, c_float, c_void_p, cast, create_string_buffer, sizeof
from itertools import accumulate, compress, pairwise, product, repeat
from math import hypot, inf
from operator import eq, ne, not_, sub
from statistics import median
from typing import Any, NamedTuple

from pypdfium2 import raw  # type: ignore[import-untyped]

from .directions import skew_of
from .page_rows import (
    ASIAN,
    BLANK,
    BLANKS,
    CAPITAL,
    KERNING,
    PITCH,
    RIGHT_TO_LEFT,
    THIN,
    Rule,
    Word,
)
from .pdf_directions import TextDirections
from .pdf_hidden import HiddenText, box_at, ink_at, text_object_at
from .pdfium import PageObject, direct, values_of_each

_DIGIT = re.compile(r"\d")
_LEADERS = re.compile(r"(?:[.…·] ?){4,}")
_BOLD_NAME = re.compile(rb"bold|black|heavy|demi|medi\b|(?:cm|sf|cmss|lm)bx", re.IGNORECASE)
_SYMBOL_NAME = re.compile(rb"dingbats|wingding|webding|symbol", re.IGNORECASE)
_FORCE_BOLD = 1 << 18  # a flag of a font's descriptor
# Of a size:
_MOST_BARS = 200  # beside each other, that may part words
_MOST_DRAWN = 15.0  # points, of what may be a letter or a sign
UNKNOWN = "\ufffd"
# Of shadows, which are the same letters once more, a little aside:
_DOUBLED = bytes([1, 0, 1, 0, 1])  # three letters in a row that are there twice
_LEAST_LINE = 4  # letters of a line that is there twice
_FAR = 0.5  # of a letter's height, by which a shadow is aside at most
_OVERLAP = 0.75  # of a letter's width: a second one of the word is as far as it is wide
_LEAST_LETTERS = 3  # different ones that have the same shadow
_NEXT = 4  # places, within which a narrow letter, that lies over nothing, goes with others
_MOST_NEAR = 8  # letters of one kind at one place that are looked at
_STEP = 6.0  # points between the bases of two words of a line that is not level
_STEEP = 0.12  # how much lines of level words rise by their length, at most
_ALIKE = 1.25  # times as high: what is raised is smaller
_SIGNS = "+-\u2212"

_matrix_at = direct(raw.FPDFText_GetMatrix)
_origin_at = direct(raw.FPDFText_GetCharOrigin)
_size_at = direct(raw.FPDFText_GetFontSize, c_double)
_is_generated = direct(raw.FPDFText_IsGenerated)
_font_of = direct(raw.FPDFTextObj_GetFont, c_void_p)
_mode_of = direct(raw.FPDFTextObj_GetTextRenderMode)


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
        self,
        textpage: Any,
        text: str,
        places: Sequence[int],
        unshown: HiddenText,
        rules: Sequence[Rule],
        directions: TextDirections,
    ) -> None:
        rotation = self._rotation = directions.rotation
        self._unshown, self._others = unshown, directions.others
        self._slack = 0.0 if directions.are_level else KERNING
        """Of a size, by which the bases of one line differ: turned places are not exact."""
        self.skew = 0.0
        """How much its lines rise by their length, where level words are placed along them."""
        self._page = page = byref(textpage.raw.contents)
        is_blank = list(map(str.isspace, text))
        self._places = list(compress(places, map(not_, is_blank)))
        self._text = "".join(text.split())
        _, sides = values_of_each(box_at, c_float, 4, self._places, page, is_struct=True)
        left, bottom, right, top = sides[0], sides[3], sides[2], sides[1]
        if rotation:
            turned = (
                turned_box(box, rotation) for box in zip(left, bottom, right, top, strict=True)
            )
            left, bottom, right, top = map(list, zip(*turned, strict=True)) if left else ([],) * 4
        self._left, self._bottom, self._right, self._top = left, bottom, right, top
        behind, before = map(sub, left[1:], right), map(sub, left, right[1:])
        self._is_mixed = not text.isascii() and RIGHT_TO_LEFT.search(text) is not None
        self._gaps = [0.0, *map(max, behind, before)]
        """Between each character and the one before it."""
        blanks = list(compress(range(len(text)), is_blank))
        generated = map(_is_generated, repeat(page), map(places.__getitem__, blanks))
        numbered = zip(map(sub, blanks, range(len(blanks))), generated, strict=True)
        self._blanks = {at for at, is_made in numbered if not is_made}
        """Before these characters is white space that is part of the text."""
        self._ink = (c_double * 4)()
        self._ink_sides = [byref(self._ink, at * sizeof(c_double)) for at in range(4)]
        self._objects = list(map(text_object_at, repeat(page), self._places))
        self._bars = sorted(((a + c) / 2, b, d) for a, b, c, d in rules if c - a < THIN < d - b)
        """Upright lines, which part texts: where each is, and from where to where."""
        self._fonts: dict[int, tuple[bool, bool]] = {}

    def read(self) -> list[list[Word]]:
        """Return the words of each direction, the main one first."""
        n_chars, parts = len(self._places), self._unshown.chars
        objects = self._objects
        is_first = map(ne, objects, (-1, *objects))
        starts = list(range(n_chars) if parts else compress(range(n_chars), is_first))
        found = [list[Word]() for _ in range(1 + max(self._others.values(), default=0))]
        run: tuple[float, _Style, int] | None = None
        first = 0
        for start, base, style, direction in self._styles(starts, objects):
            if run and style == run[1] and direction == run[2]:
                if base == run[0] or not style.is_upright:
                    continue
                if abs(base - run[0]) < self._slack * style.size:
                    continue
            if run:
                found[run[2]] += self._words(first, start, *run[:2])
            first, run = start, (base, style, direction)
        if run:
            found[run[2]] += self._words(first, n_chars, *run[:2])
        return found

    def _words(self, first: int, end: int, base: float, style: _Style) -> Iterator[Word]:
        """Yield characters of one style up to what may be no blank between two words."""
        size = style.size
        gaps = self._gaps[first + 1 : end]
        if not style.is_upright:
            places = range(first + 1, end)
            low, high = self._bottom, self._top
            above = (max(low[at] - high[at - 1], low[at - 1] - high[at]) for at in places)
            gaps = list(map(max, gaps, above))
        least, back, spacing = KERNING * size, -0.5 * size, 0.0
        if len([gap for gap in gaps if gap > least]) > 0.5 * len(gaps):
            spacing = self._letter_spacing(first, gaps, size)
        bars = self._bars if style.is_upright else []
        sides = self._left[first], self._right[end - 1]
        start, stop = [bisect(bars, (side, 0.0, 0.0)) for side in sides] if bars else (0, 0)
        for x, foot, head in bars[start : min(stop, start + _MOST_BARS)]:
            if foot < base + 0.5 * CAPITAL * size < head:
                at = bisect(self._left, x - 2 * least, first + 1, end)
                is_apart = at < end and self._objects[at - 1] != self._objects[at]
                if is_apart and self._right[at - 1] < x + 2 * least:
                    gaps[at - first - 1] = inf
        most = BLANK * size + spacing
        blank = max(most, BLANKS * size) if style.is_upright else back
        bounds, has_blank, blanks = [first], first in self._blanks, self._blanks
        for at, gap in enumerate(gaps, first + 1):
            if not back < gap <= most or at in blanks:
                bounds.append(at)
                is_asian = ASIAN.match(self._text, at - 1) and ASIAN.match(self._text, at)
                if not back < gap <= blank or is_asian:
                    yield from self._parts(bounds, base, style, spacing, has_blank=has_blank)
                    bounds, has_blank = [at], gap > most or at in blanks
        yield from self._parts([*bounds, end], base, style, spacing, has_blank=has_blank)

    def _letter_spacing(self, first: int, gaps: Sequence[float], size: float) -> float:
        """Return the gap between the letters of words that are spaced; most text has none."""
        usual = median(gaps)
        alike = [
            self._text[at : at + 2].isalpha()
            for at, gap in enumerate(gaps, first)
            if abs(gap - usual) < KERNING * size
        ]
        is_spaced = len(alike) > max(3, 0.5 * len(gaps)) and sum(alike) > 1
        return usual if is_spaced else 0.0

    def _parts(
        self, bounds: list[int], base: float, style: _Style, spacing: float, *, has_blank: bool
    ) -> Iterator[Word]:
        """Yield words, each from bound to bound, as one; or its parts.

        Leaders are parts, and figures that their font raises or lowers.
        """
        chars, lows, highs = self._text, self._left, self._right
        words = [chars[start:end] for start, end in pairwise(bounds)]
        size, start, text, shown = style.size, bounds[0], " ".join(words), words
        low, high = base, base + CAPITAL * size
        inks: dict[int, tuple[float, float]] = {}
        for first, word in zip(bounds, words, strict=False) if _DIGIT.search(text) else ():
            for at in range(first, first + len(word)) if _DIGIT.search(word) else ():
                bottom, top = self._ink_of(at, base, size)
                low_by, height = (bottom - base) / size, (top - bottom) / size
                if low_by > BLANK or (low_by < -KERNING and height < BLANKS):
                    inks[at] = bottom, top
        cuts = inks.keys() ^ {at + 1 for at in inks}
        if leaders := _LEADERS.search(text):
            cuts |= {start + at - text.count(" ", 0, at) for at in leaders.span()}
        for end in sorted((cuts - {start}) | {bounds[-1]}):
            own = bounds
            if cuts:
                own = [start, *(at for at in bounds if start < at < end), end]
                shown = [self._text[a:b] for a, b in pairwise(own)]
                here = [inks.get(at, (base, base + CAPITAL * size)) for at in range(start, end)]
                low, high = min(low for low, _ in here), max(high for _, high in here)
            last = end - 1
            lefts, rights = [lows[at] for at in own[:-1]], [highs[at - 1] for at in own[1:]]
            if self._is_mixed or not style.is_upright:
                lefts = list(map(min, lefts, [lows[at - 1] for at in own[1:]]))
                rights = list(map(max, rights, [highs[at] for at in own[:-1]]))
            yield Word(
                " ".join(shown),
                has_blank if start == bounds[0] else start in bounds,
                min(lefts),
                min(self._bottom[start], self._bottom[last]),
                max(rights),
                max(self._top[start], self._top[last]),
                low,
                high,
                base,
                *style,
                spacing,
                lefts,
                rights,
            )
            start = end

    def _ink_of(self, at: int, base: float, size: float) -> tuple[float, float]:
        """Return from where to where the ink of a letter or figure goes; signs stand anywhere."""
        char = self._text[at]
        if char in _SIGNS or char.isdecimal() or char.isupper() or char.islower():
            ink_at(self._page, self._places[at], *self._ink_sides)
            left, right, low, high = self._ink
            if self._rotation:
                left, low, _, high = turned_box((left, low, right, high), self._rotation)
            if self._slack:  # its own place tells better than the beginning of its line
                _origin_at(self._page, self._places[at], *self._ink_sides[:2])
                x, y = self._ink[0], self._ink[1]
                low, high = (
                    side + base - (y, -x, -y, x)[self._rotation // 90 % 4] for side in (low, high)
                )
            is_level = char in _SIGNS and low - base < CAPITAL / 2 * size
            if low < high and not is_level:
                return low, high
        return base, base + CAPITAL * size

    def _styles(
        self, starts: Sequence[int], objects: Sequence[int | None]
    ) -> Iterator[tuple[int, float, _Style, int]]:
        """Yield the base, style and direction of text objects, by their first characters."""
        places, hidden = [self._places[at] for at in starts], self._unshown
        owners = [c_void_p(objects[at]) for at in starts]
        page, turn, others = self._page, self._rotation // 90 % 4, self._others
        _, matrices = values_of_each(_matrix_at, c_float, 6, places, page, is_struct=True)
        _, (xs, ys) = values_of_each(_origin_at, c_double, 2, places, page)
        bases = ys if not turn else ([-x for x in xs], [-y for y in ys], xs)[turn - 1]
        steps = [up for up in map(sub, bases[1:], bases) if up and -_STEP < up < _STEP]
        if 2 * len(steps) > len(bases):
            self._level(starts, bases, [owner.value for owner in owners])
        sizes = map(_size_at, repeat(self._page), places)
        own = starts, places, owners, bases, *matrices[:4], sizes
        facts = zip(*own, map(_font_of, owners), map(_mode_of, owners), strict=True)
        styles = dict[tuple[Any, ...], _Style]()
        for start, place, owner, base, a, b, c, d, size, font, mode in facts:
            is_hidden = place in hidden.chars or owner.value in hidden.objects
            key = a, b, c, d, size, font, mode, is_hidden
            if key not in styles:
                is_bold, is_symbol = self._font(font) if font else (False, False)
                is_bold |= mode == raw.FPDF_TEXTRENDERMODE_FILL_STROKE
                across, up = ((a, b), (b, -a), (-a, -b), (-b, a))[turn]
                is_upright = across > 0 and abs(up) < 0.05 * across
                full_size = round(size * hypot(c, d), 1) or 1.0
                styles[key] = _Style(full_size, is_bold, is_upright, is_hidden, is_symbol)
            yield start, base, styles[key], others.get(owner.value, 0) if others else 0

    def _level(
        self, starts: Sequence[int], bases: list[float], owners: Sequence[int | None]
    ) -> None:
        """Turn the places of level words that stand along lines that are not."""
        lines = list[list[tuple[float, float]]]()
        main = [n for n, owner in enumerate(owners) if owner not in self._others]
        for last, n in pairwise((*main[:1], *main)):
            before, at = starts[last], starts[n]
            along, up = self._left[at] - self._left[before], bases[n] - bases[last]
            low, high = sorted(self._top[start] - self._bottom[start] for start in (before, at))
            is_next = -high < self._left[at] - self._right[at - 1] < PITCH * high
            if not (lines and is_next and high < _ALIKE * low and abs(up) < _STEEP * along):
                lines.append([])
            lines[-1].append((self._left[at], bases[n]))
        self.skew = skew = skew_of(lines)
        if not skew:
            return
        self._slack = KERNING
        ends = [*starts[1:], len(self._left)]
        for n in range(len(starts)):
            across, up = skew * bases[n], skew * self._left[starts[n]]
            for side, by in (
                (self._left, across),
                (self._right, across),
                (self._bottom, -up),
                (self._top, -up),
            ):
                side[starts[n] : ends[n]] = [at + by for at in side[starts[n] : ends[n]]]
            bases[n] -= up

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


def without_shadows(textpage: Any, text: str, places: Sequence[int]) -> tuple[str, Sequence[int]]:
    """Return a page's text and PDFium's index of each character without what is drawn again."""
    firsts = list(_doubled(text))
    if not firsts:
        return text, places
    pairs = [places[at] for pair in firsts for at in pair]
    found = _boxes(textpage, pairs)
    for (left, bottom, right, top), (x, y, *_) in zip(found[::2], found[1::2], strict=True):
        far = _FAR * (top - bottom)
        if abs(x - left) < min(far, _OVERLAP * (right - left)) and abs(y - bottom) < far:
            break
    else:
        return text, places
    shown = [at for at, char in enumerate(text) if not char.isspace()]
    boxes = _boxes(textpage, [places[at] for at in shown])
    doubled = {shown[n] for n in _shadows([text[at] for at in shown], boxes)}
    kept = [at for at in range(len(text)) if at not in doubled]
    return "".join([text[at] for at in kept]), [places[at] for at in kept]


def _doubled(text: str) -> Iterator[tuple[int, int]]:
    """Yield characters that may be a letter and its shadow: of each run or line one pair."""
    equal = bytes(map(eq, text, text[1:]))
    at = equal.find(_DOUBLED)
    while at >= 0:
        yield at, at + 1
        at = equal.find(_DOUBLED, at + len(_DOUBLED))
    lines = text.split("\r\n")
    if any(map(eq, lines, lines[1:])):
        starts = accumulate((len(line) + 2 for line in lines), initial=0)
        for start, line, after in zip(starts, lines, lines[1:], strict=False):
            if line == after and len(line) >= _LEAST_LINE:
                yield start, start + len(line) + 2


def _boxes(textpage: Any, places: Sequence[int]) -> list[tuple[float, ...]]:
    page = byref(textpage.raw.contents)
    _, sides = values_of_each(box_at, c_float, 4, places, page, is_struct=True)
    left, top, right, bottom = sides
    return list(zip(left, bottom, right, top, strict=True))


def _shadows(text: Sequence[str], boxes: Sequence[Sequence[float]]) -> set[int]:
    """Return which characters are shadows of others, by their boxes: left, bottom, right, top."""
    near = defaultdict[tuple[str, int, int], list[int]](list)
    pairs = defaultdict[tuple[int, int], list[tuple[int, int]]](list)
    for at, (char, (left, bottom, _, top)) in enumerate(zip(text, boxes, strict=True)):
        height = max(top - bottom, 1.0)
        column, row = int(left // height), int(bottom // height)
        for x, y in product((column - 1, column, column + 1), (row - 1, row, row + 1)):
            for other in near.get((char, x, y), ())[:_MOST_NEAR]:
                across, up = left - boxes[other][0], bottom - boxes[other][1]
                if max(abs(across), abs(up)) <= _FAR * height:
                    pair = (other, at) if (up, -across) < (0, 0) else (at, other)
                    sign = 1 if pair[1] == at else -1
                    pairs[round(5 * sign * across), round(5 * sign * up)].append(pair)
        near[char, column, row].append(at)
    found = set[int]()
    for (across, _), both in sorted(pairs.items(), key=lambda item: -len(item[1])):
        some = [pair for pair in both if found.isdisjoint(pair)]
        over = {
            shadow
            for at, shadow in some
            if abs(across) / 5 < _OVERLAP * (boxes[at][2] - boxes[at][0])
        }
        if len({text[shadow] for shadow in over}) >= _LEAST_LETTERS:
            near_them = {at for shadow in over for at in range(shadow - _NEXT, shadow + _NEXT)}
            found |= over | near_them.intersection(shadow for _, shadow in some)
    return found


def drawn(words: Sequence[Word], pieces: Sequence[PageObject], rotation: int) -> Iterator[Word]:
    """Yield words for drawings that stand in a line of text.

    1. A dot or square before a line is the sign of a list.
    2. A small group close to a letter is one that the font lacks: Type 3 fonts have 256 at most.
    """
    by_base = sorted((word for word in words if word.is_upright), key=lambda word: word.base)
    bases = [word.base for word in by_base]
    for _, kind, bounds in pieces:
        left, bottom, right, top = turned_box(bounds, rotation)
        width, height = right - left, top - bottom
        is_dot = kind == raw.FPDF_PAGEOBJ_PATH and CAPITAL * width < height < width / CAPITAL
        if max(width, height) > _MOST_DRAWN or not (is_dot or kind == raw.FPDF_PAGEOBJ_FORM):
            continue
        first, last = bisect(bases, bottom - _MOST_DRAWN), bisect(bases, top + _MOST_DRAWN)
        middle = (bottom + top) / 2
        line = [w for w in by_base[first:last] if 0 < middle - w.base < CAPITAL * w.size]
        close = [w for w in line if -0.1 < max(w.left - right, left - w.right) / w.size < BLANKS]
        behind = [w for w in line if 0 < w.left - right < PITCH * w.size]
        host: Word | None = None
        if is_dot and behind and width < CAPITAL * behind[0].size:  # 1
            host = min(behind, key=lambda word: word.left)
            text = "•" if all(w.left > right or left - w.right > w.size for w in line) else ""
        elif close and not is_dot:  # 2
            host, text = close[0], UNKNOWN
            left, right = left - KERNING * host.size, right + KERNING * host.size
        if host is not None and text:
            style = host.base, host.size, False, True, False, is_dot
            yield Word(text, False, left, bottom, right, top, host.ink_bottom, host.ink_top, *style)


def turned_box(box: Rule, rotation: int) -> Rule:
    left, bottom, right, top = box
    if rotation == 90:
        return bottom, -right, top, -left
    if rotation == 180:
        return -right, -top, -left, -bottom
    return (-top, left, -bottom, right) if rotation == 270 else box
