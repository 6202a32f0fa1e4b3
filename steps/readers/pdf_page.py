"""What stands on a page of a PDF: text that it does not show, and what its fonts do not name.

Text is not shown where it is white, covered, beyond the borders, or of a layer that is off.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Container, Iterator, Sequence, Set
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
from math import hypot
from typing import Any, NamedTuple

from pypdfium2 import raw  # type: ignore[import-untyped]

from paddock.engine.system.records import record

from .ocr_layout import TextBox
from .page_layout import (
    FACT_PAGES,
    HYPHEN,
    PageLine,
    Rule,
    Traced,
    Word,
    document_facts,
    page_lines,
    page_text,
)
from .pdf_annotations import Annotations, LaidOver, Losses
from .pdf_pictures import unread_pictures
from .pdfium import (
    PDFIUM_LOCK,
    DamagedPage,
    PageObject,
    by_address,
    low_pixels,
    open_page,
    page_objects,
    shown_box,
    utf16,
)

_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")  # no characters
_UNNAMED = re.compile("[\ufffd\ue000-\uf8ff\U000f0000-\U0010ffff]")  # or of the font's own
_PRINTED = r"[^\s\x00-\x1f\ufffe\uffff]"
_TOKEN = re.compile(rf"[.…·]{{4,}}|(?:(?![.…·]{{4}}){_PRINTED})*\x02|(?:(?![.…·]{{4}}){_PRINTED})+")
_BOLD_NAME = re.compile(rb"bold|black|heavy|demi|medi\b|(?:cm|sf|cmss|lm)bx", re.IGNORECASE)
_SYMBOL_NAME = re.compile(rb"dingbats|wingding|webding|symbol", re.IGNORECASE)
_FORCE_BOLD = 1 << 18  # a flag of a font's descriptor
_WORD_GAP = 0.5  # of a size, between characters of a word: such are two words
_WIDE = 1.1  # of a size, a character: there are gaps in the word
_THIN_RULE = 4.0  # points
_MOST_RULES = 20_000  # objects that are looked at on a page: more is a drawing
_MOST_CHARS = 100_000  # of a page whose layout is looked at: these take 5 s

_PAPER, _FAINT = 0xF0, 16  # of 255: as light as paper; a difference that no one sees
_TINY, _LEGIBLE = 2.0, 6.0  # points: text that no one sees beside what people read
_NEAR = 1.0  # points by which a text may be larger than what covers it
_MOST_COVERS = 100  # that are looked at for one text
_COVER_NOTHING = (raw.FPDF_PAGEOBJ_TEXT, raw.FPDF_PAGEOBJ_UNKNOWN)
_UNPAINTED = (raw.FPDF_TEXTRENDERMODE_INVISIBLE, raw.FPDF_TEXTRENDERMODE_CLIP)
_LAYER_MARK = "OC\0".encode("utf-16-le")  # "optional content"


@record(frozen=True, slots=True)
class ReadPage:
    raw_text: str
    """As PDFium has it: with U+0002 for a hyphen at a line's end, U+FFFD for unknown letters."""
    places: Sequence[int]
    """PDFium's index of each of its characters."""
    lines: Sequence[PageLine]
    laid_over: LaidOver
    is_picture: bool
    """Whether it shows something, but no text of its own."""
    n_unnamed: int
    """Characters to which their font gives no Unicode: they may be any other ones."""
    n_pictures: int = 0
    """Pictures that its own text does not cover, as it does after OCR."""
    own: Sequence[TextBox] = ()
    """Its own text and where it stands, if it has such pictures."""


class PdfPages:
    """The pages of an open document, and what its first pages tell about the others."""

    def __init__(self, document: Any, check: Callable[[int], None], losses: Losses) -> None:
        self._document, self._check, self._losses = document, check, losses
        self._n_chars = 0
        with PDFIUM_LOCK:
            self._n_pages = len(document)
        self._first = {index: self._read(index) for index in range(min(self._n_pages, FACT_PAGES))}
        known = [page for page in self._first.values() if page is not None]
        self._facts = document_facts((page.raw_text, page.lines) for page in known)

    def __iter__(self) -> Iterator[ReadPage | None]:
        """Yield each page; None: it is damaged."""
        for index in range(self._n_pages):
            yield self._first.pop(index) if index in self._first else self._read(index)

    def __getitem__(self, index: int) -> ReadPage | None:
        return self._first[index] if index in self._first else self._read(index)

    def text(self, page: ReadPage) -> Traced:
        return page_text(page.raw_text, page.lines, self._facts)

    def _read(self, index: int) -> ReadPage | None:
        self._check(self._n_chars)
        try:
            with open_page(self._document, index) as page:
                textpage = page.get_textpage()
                annotations = Annotations(page, textpage, self._losses)
                pieces = page_objects(page)
                covers = _Covers(pieces)
                undrawn = dict(_undrawn_texts(page, textpage, pieces, covers))
                self._losses.hidden += undrawn.values()
                text, places = _characters(textpage)
                rotation = page.get_rotation()
                covered = set(_covered_chars(page, textpage.raw, places, covers))
                words = list(_words(textpage.raw, text, places, rotation, undrawn, covered))
                is_read = any(word.size >= _LEGIBLE for word in words)
                tiny = [w for w in words if is_read and w.size <= _TINY and not w.is_hidden]
                for word in tiny:
                    word.is_hidden = True
                unseen = "".join(text[at] for at in sorted(covered)), " ".join(w.text for w in tiny)
                self._losses.hidden += filter(None, map(str.strip, unseen))
                rules = [_turned(rule, rotation) for rule in (*_rules(pieces), *annotations.struck)]
                has_nothing = set("".join(text.split())) == {"\ufffd"}
                lines = [] if has_nothing else page_lines(words, rules)
                is_picture = not lines and bool(pieces)
                n_pictures, own = unread_pictures(page, textpage, pieces)
                n_unnamed = _n_unnamed(textpage, text, places)
                textpage.close()
        except DamagedPage:
            return None
        self._n_chars = len(text)
        return ReadPage(
            text, places, lines, annotations.joined(), is_picture, n_unnamed, n_pictures, own
        )


def _characters(textpage: Any) -> tuple[str, Sequence[int]]:
    """Return a page's text, and PDFium's index of each of its characters."""

    def known(char: str, place: int) -> str:
        if char in (HYPHEN, "\ufffe") and raw.FPDFText_IsHyphen(textpage, place) == 1:
            return HYPHEN
        return "\ufffd" if _ODD.match(char) else char

    text, n_chars = textpage.get_text_range(), textpage.count_chars()
    if n_chars == len(text) and max(text, default="") < "\U00010000":
        return _ODD.sub(lambda odd: known(odd[0], odd.start()), text), range(n_chars)
    chars, places = list[str](), list[int]()
    for place in range(n_chars):
        char = chr(raw.FPDFText_GetUnicode(textpage, place))
        if "\udc00" <= char <= "\udfff" and chars:  # the second half of a character of UTF-16
            pair = (chars[-1] + char).encode("utf-16-le", "surrogatepass")
            chars[-1] = pair.decode("utf-16-le", "replace")
            continue
        chars.append(known(char, place))
        places.append(place)
    return "".join(chars), places


def _n_unnamed(textpage: Any, text: str, places: Sequence[int]) -> int:
    """Count what no `ToUnicode`, encoding or glyph's name of a font gives a meaning.

    PDFium's text has the code of the glyph in its place.
    """
    address = cast(textpage, c_void_p).value
    return sum(
        _UNNAMED.match(char) is not None or _has_no_unicode(address, place) == 1
        for char, place in zip(text, places, strict=True)
        if not char.isspace() and char != HYPHEN
    )


_has_no_unicode = by_address(raw.FPDFText_HasUnicodeMapError, c_int, c_void_p, c_int)
_object_at = by_address(raw.FPDFText_GetTextObject, c_void_p, c_void_p, c_int)
_box_at = by_address(raw.FPDFText_GetLooseCharBox, c_int, c_void_p, c_int, c_void_p)
_fill_colour = by_address(raw.FPDFPageObj_GetFillColor, c_int, *[c_void_p] * 5)


class _Style(NamedTuple):
    """How the characters of a text object are written; the last fields of a `Word`."""

    base: float
    size: float = 1.0
    is_bold: bool = False
    is_upright: bool = True
    is_hidden: bool = False
    is_symbol: bool = False


def _words(
    textpage: Any,
    text: str,
    places: Sequence[int],
    rotation: int,
    undrawn: Container[int],
    covered: Set[int],
) -> Iterator[Word]:
    """Yield a page's words; parts of one in several styles are words without a space between.

    Text objects that are `undrawn`, and characters that are `covered`, are not shown.
    """
    styles: dict[tuple[int | None, bool], _Style] = {}
    fonts: dict[int, tuple[bool, bool]] = {}
    rect = raw.FS_RECTF()
    to_rect, page_address = addressof(rect), cast(textpage, c_void_p).value

    def style_at(at: int) -> _Style:
        address, is_covered = _object_at(page_address, places[at]), at in covered
        key = address, is_covered
        if key not in styles:
            is_hidden = is_covered or address in undrawn
            styles[key] = _style(textpage, places[at], rotation, is_hidden, fonts)
        return styles[key]

    def sides(at: int) -> tuple[float, ...]:
        """Return left and right."""
        _box_at(page_address, places[at], to_rect)
        if not rotation:
            return rect.left, rect.right
        return _turned((rect.left, rect.bottom, rect.right, rect.top), rotation)[::2]

    line = last = 0
    for token in _TOKEN.finditer(text):
        start, end = token.span()
        space = text[last:start]
        if "\n" in space or "\r" in space or text[last - 1 : last] == HYPHEN:
            line, space = line + 1, ""
        last = end
        if len(text) > _MOST_CHARS:  # all the same, one below the other
            left, right = start / 1000, end / 1000
            yield Word(text[start:end], start, line, space, left, right, *_Style(-line))
            continue
        style, first, final = style_at(start), sides(start), sides(end - 1)
        parts = [(start, end, style, first, final)]
        width = max(final[1], first[1]) - min(first[0], final[0])
        is_mixed = style is not style_at(end - 1) or not covered.isdisjoint(range(start, end))
        if is_mixed or width > _WIDE * style.size * (end - start):
            parts, before = [], first
            for at in range(start + 1, end):
                own, here = style_at(at), sides(at)
                gap = max(here[0] - before[1], before[0] - here[1])
                if own != style or gap > _WORD_GAP * own.size:
                    parts.append((start, at, style, first, before))
                    start, style, first = at, own, here
                before = here
            parts.append((start, end, style, first, final))
        for begin, stop, style, first, final in parts:
            left, right = min(first[0], final[0]), max(first[1], final[1])
            yield Word(text[begin:stop], begin, line, space, left, right, *style)
            space = ""


def _style(
    textpage: Any, place: int, rotation: int, is_hidden: bool, fonts: dict[int, tuple[bool, bool]]
) -> _Style:
    """Return how a character is written; `fonts` keeps which are bold, and of signs."""
    matrix, x, y = raw.FS_MATRIX(), c_double(), c_double()
    raw.FPDFText_GetMatrix(textpage, place, matrix)
    raw.FPDFText_GetCharOrigin(textpage, place, x, y)
    base = _turned((x.value, y.value, x.value, y.value), rotation)[1]
    along = complex(matrix.a, matrix.b) * (1, -1j, -1, 1j)[rotation // 90 % 4]
    size = raw.FPDFText_GetFontSize(textpage, place) * hypot(matrix.c, matrix.d)
    piece = raw.FPDFText_GetTextObject(textpage, place)
    font = raw.FPDFTextObj_GetFont(piece) if piece else None
    is_bold = is_symbol = False
    if font:
        address = addressof(font.contents)
        if address not in fonts:
            name = create_string_buffer(100)
            raw.FPDFFont_GetBaseFontName(font, name, len(name))
            is_forced = raw.FPDFFont_GetFlags(font) & _FORCE_BOLD
            is_named = _BOLD_NAME.search(name.value) is not None
            fonts[address] = is_named or bool(is_forced), bool(_SYMBOL_NAME.search(name.value))
        is_bold, is_symbol = fonts[address]
        if not is_bold:
            mode = raw.FPDFTextObj_GetTextRenderMode(piece)
            is_bold = mode == raw.FPDF_TEXTRENDERMODE_FILL_STROKE
    is_upright = along.real > 0 and abs(along.imag) < 0.05 * along.real
    return _Style(base, round(size, 1) or 1.0, is_bold, is_upright, is_hidden, is_symbol)


def _turned(box: Rule, rotation: int) -> Rule:
    """Return a box of a page as the page is shown, which is turned clockwise."""
    left, bottom, right, top = box
    if rotation == 90:
        return bottom, -right, top, -left
    if rotation == 180:
        return -right, -top, -left, -bottom
    return (-top, left, -bottom, right) if rotation == 270 else box


def _rules(pieces: Sequence[PageObject]) -> Iterator[Rule]:
    """Yield the thin bars of a page, and the sides of what else is drawn with a line."""
    fill, is_stroked = c_int(), c_int()
    for piece, kind, (left, bottom, right, top) in pieces[:_MOST_RULES]:
        if kind != raw.FPDF_PAGEOBJ_PATH:
            continue
        if min(right - left, top - bottom) < _THIN_RULE:
            yield left, bottom, right, top
        elif raw.FPDFPath_GetDrawMode(piece, fill, is_stroked) and is_stroked.value:
            yield from ((left, y, right, y) for y in (bottom, top))
            yield from ((x, bottom, x, top) for x in (left, right))


def _covered_chars(
    page: Any, textpage: Any, places: Sequence[int], covers: _Covers
) -> Iterator[int]:
    """Yield which characters lie under something that hides only a part of their text."""
    box, pixels = (c_double * 4)(), None
    address = cast(textpage, c_void_p).value
    for at, place in enumerate(places) if covers.over else ():
        for left, bottom, right, top in covers.over.get(_object_at(address, place), ()):
            raw.FPDFText_GetCharBox(
                textpage,
                place,
                *(cast(addressof(box) + 8 * n, POINTER(c_double)) for n in range(4)),
            )
            x_0, x_1, y_0, y_1 = box
            is_within = left - _NEAR <= x_0 < x_1 <= right + _NEAR
            if is_within and bottom - _NEAR <= y_0 < y_1 <= top + _NEAR:
                pixels = low_pixels(page) if pixels is None else pixels
                if not _is_drawn(page, raw.FS_RECTF(x_0, y_1, x_1, y_0), pixels):
                    yield at
                    break


def _undrawn_texts(
    page: Any, textpage: Any, pieces: Sequence[PageObject], covers: _Covers
) -> Iterator[tuple[int, str]]:
    """Yield an open page's texts that it does not show, with the addresses of their objects.

    They are beyond its borders, in layers that are switched off, white or covered. The page is
    drawn only where a text may be: white text may stand on a dark field.
    """
    left, bottom, right, top = page.get_bbox()
    if left >= right or bottom >= top:  # a damaged crop box, which most programs leave out
        return
    pixels = None
    for index, (piece, kind, bounds) in enumerate(pieces):
        if kind != raw.FPDF_PAGEOBJ_TEXT:
            continue
        x_0, y_0, x_1, y_1 = bounds
        if x_0 >= x_1 or y_0 >= y_1:  # such as spaces
            continue
        is_hidden = x_1 <= left or x_0 >= right or y_1 <= bottom or y_0 >= top
        colour = _fill_of(piece)
        is_faint = bool(colour) and (min(colour[:3]) >= _PAPER or colour[3] < _FAINT)
        if not is_hidden and (
            _is_of_layer(piece)
            or is_faint
            or raw.FPDFTextObj_GetTextRenderMode(piece) in _UNPAINTED
            or covers.may_hide(index, bounds, colour)
        ):
            pixels = low_pixels(page) if pixels is None else pixels
            is_hidden = not _is_drawn(page, raw.FS_RECTF(x_0, y_1, x_1, y_0), pixels)
        if not is_hidden:
            covers.add_over(index, piece, bounds)
        else:
            text = utf16(raw.FPDFTextObj_GetText, piece, textpage)
            if any(map(str.isalnum, text)):  # points and lines are too fine for few pixels
                yield addressof(piece.contents), text


class _Covers:
    """The pictures, fields and drawings of a page, in the order in which they are painted."""

    def __init__(self, pieces: Sequence[PageObject]) -> None:
        self._at = [
            at
            for at, found in enumerate(pieces)
            if found.kind not in _COVER_NOTHING and not _is_frame(found)
        ]
        self._bounds = [pieces[at].bounds for at in self._at]
        self._colours = [_fill_of(pieces[at].piece) for at in self._at]
        self.over = dict[int, list[tuple[float, ...]]]()
        """By the address of a text, the bounds of what is painted over a part of it."""

    def add_over(self, index: int, piece: Any, bounds: tuple[float, ...]) -> None:
        """Add what is painted later over a part of a text, and as high as it."""
        x_0, y_0, x_1, y_1 = bounds
        first = bisect(self._at, index)
        for left, bottom, right, top in self._bounds[first : first + _MOST_COVERS]:
            is_high = bottom <= y_0 + _NEAR and top >= y_1 - _NEAR
            is_wide = left <= x_0 + _NEAR and right >= x_1 - _NEAR
            if (is_high and left < x_1 and right > x_0) or (is_wide and bottom < y_1 and top > y_0):
                over = self.over.setdefault(addressof(piece.contents), [])
                over.append((left, bottom, right, top))

    def may_hide(self, index: int, bounds: tuple[float, ...], colour: tuple[int, ...]) -> bool:
        """Return whether one that is painted later, or in a text's colour, lies around it."""
        x_0, y_0 = (side + _NEAR for side in bounds[:2])
        x_1, y_1 = (side - _NEAR for side in bounds[2:])
        middle = bisect(self._at, index)
        for at in range(max(0, middle - _MOST_COVERS), min(len(self._at), middle + _MOST_COVERS)):
            left, bottom, right, top = self._bounds[at]
            own = self._colours[at] if at < middle else ()
            is_alike = all(abs(a - b) < _FAINT for a, b in zip(own, colour, strict=False))
            if (left <= x_0 and bottom <= y_0 and right >= x_1 and top >= y_1) and (
                at >= middle or (own and colour and is_alike)
            ):
                return True
        return False


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
    """Return red, green, blue and opacity of an object's fill, up to 255; empty: it has none."""
    parts = (c_uint * 4)()
    places = (addressof(parts) + 4 * at for at in range(4))
    return tuple(parts) if _fill_colour(piece, *places) else ()


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
    middle = len(part) // 2  # a line of it tells most texts, in a third of the time
    return any(
        bool((piece.max(axis=(0, 1)).astype(int) - piece.min(axis=(0, 1)) >= _FAINT).any())
        for piece in (part[middle : middle + 1], part)
        if piece.size
    )
