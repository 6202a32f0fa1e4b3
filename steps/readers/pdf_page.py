"""What stands on a page of a PDF: text that it does not show, and whether text means anything.

Text is not shown where it is white, covered, beyond the borders, or of a layer that is off.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect
from collections.abc import Callable, Container, Iterator, Sequence
from ctypes import (
    POINTER,
    addressof,
    byref,
    c_double,
    c_int,
    c_uint,
    c_ulong,
    c_ushort,
    cast,
    create_string_buffer,
)
from dataclasses import dataclass
from math import hypot
from typing import Any, TypeAlias

from pypdfium2 import raw  # type: ignore[import-untyped]

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
from .pdfium import PDFIUM_LOCK, DamagedPage, bounds_of, low_pixels, open_page, shown_box, utf16

# No characters, or two of UTF-16.
_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff\U00010000-\U0010ffff]")
_PRINTED = r"[^\s\x00-\x1f\ufffe\uffff]"
_TOKEN = re.compile(rf"[.…·]{{4,}}|(?:(?![.…·]{{4}}){_PRINTED})*\x02|(?:(?![.…·]{{4}}){_PRINTED})+")
_BOLD_NAME = re.compile(rb"bold|black|heavy|demi|medi\b|(?:cm|sf|cmss|lm)bx", re.IGNORECASE)
_SYMBOL_NAME = re.compile(rb"dingbats|wingding|webding|symbol", re.IGNORECASE)
_FORCE_BOLD = 1 << 18  # a flag of a font's descriptor
_WORD_GAP = 0.5  # of a size, between characters of a word: such are two words
_WIDE = 1.1  # of a size, a character: there are gaps in the word
_PLAIN = (False, True, False, False)
_THIN_RULE = 4.0  # points
_MOST_RULES = 20_000  # objects that are looked at on a page: more is a drawing
_MOST_CHARS = 100_000  # of a page whose layout is looked at: these take 5 s

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


@dataclass(frozen=True, slots=True)
class ReadPage:
    """What a page says."""

    raw_text: str
    """As PDFium has it: with U+0002 for a hyphen at a line's end, U+FFFD for unknown letters."""
    places: Sequence[int]
    """PDFium's index of each of its characters."""
    lines: Sequence[PageLine]
    laid_over: LaidOver
    is_picture: bool
    """Whether it shows something, but no text of its own."""
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
                undrawn = dict(_undrawn_texts(page, textpage))
                self._losses.hidden += undrawn.values()
                text, places = _characters(textpage)
                rotation = page.get_rotation()
                words = list(_words(textpage.raw, text, places, rotation, undrawn))
                rules = [_turned(rule, rotation) for rule in (*_rules(page), *annotations.struck)]
                has_nothing = set("".join(text.split())) == {"\ufffd"}
                lines = [] if has_nothing else page_lines(words, rules)
                is_picture = not lines and next(page.get_objects(max_depth=1), None) is not None
                n_pictures, own = unread_pictures(page, textpage)
                textpage.close()
        except DamagedPage:
            return None
        self._n_chars = len(text)
        return ReadPage(text, places, lines, annotations.joined(), is_picture, n_pictures, own)


def _characters(textpage: Any) -> tuple[str, Sequence[int]]:
    """Return a page's text, and PDFium's index of each of its characters."""
    text, n_chars = textpage.get_text_range(), textpage.count_chars()
    if n_chars == len(text) and not _ODD.search(text):
        return text, range(n_chars)
    chars, places = list[str](), list[int]()
    for place in range(n_chars):
        char = chr(raw.FPDFText_GetUnicode(textpage, place))
        if "\udc00" <= char <= "\udfff" and chars:  # the second half of a character of UTF-16
            pair = (chars[-1] + char).encode("utf-16-le", "surrogatepass")
            chars[-1] = pair.decode("utf-16-le", "replace")
            continue
        if char == HYPHEN and raw.FPDFText_IsHyphen(textpage, place) != 1:
            char = "\ufffd"
        is_odd = char != HYPHEN and _ODD.match(char) is not None and not char >= "\ud800"
        chars.append("\ufffd" if is_odd or char in "\ufffe\uffff" else char)
        places.append(place)
    return "".join(chars), places


_Style: TypeAlias = tuple[float, float, bool, bool, bool, bool]
"""Of a text object: base, size, is_bold, is_upright, is_hidden, is_symbol, as `Word` has them."""


def _words(
    textpage: Any, text: str, places: Sequence[int], rotation: int, undrawn: Container[int]
) -> Iterator[Word]:
    """Yield a page's words; parts of one in several styles are words without a space between."""
    styles: dict[int, _Style] = {}
    rect = raw.FS_RECTF()
    to_rect = byref(rect)

    def style_at(at: int) -> _Style:
        piece = raw.FPDFText_GetTextObject(textpage, places[at])
        address = addressof(piece.contents) if piece else 0
        if address not in styles:
            styles[address] = _style(textpage, places[at], piece, rotation, address in undrawn)
        return styles[address]

    def box(at: int) -> Rule:
        raw.FPDFText_GetLooseCharBox(textpage, places[at], to_rect)
        sides = (rect.left, rect.bottom, rect.right, rect.top)
        return _turned(sides, rotation) if rotation else sides

    line = last = 0
    for token in _TOKEN.finditer(text):
        start, end = token.span()
        space = text[last:start]
        if "\n" in space or "\r" in space or text[last - 1 : last] == HYPHEN:
            line, space = line + 1, ""
        last = end
        if len(text) > _MOST_CHARS:  # all the same, one below the other
            left, right = start / 1000, end / 1000
            yield Word(text[start:end], start, line, space, left, right, -line, 1.0, *_PLAIN)
            continue
        style, first, final = style_at(start), box(start), box(end - 1)
        width = max(final[2], first[2]) - min(first[0], final[0])
        parts = [(start, end, style, first, final)]
        if (end - start > 1 and style is not style_at(end - 1)) or width > _WIDE * style[1] * (
            end - start
        ):
            parts, before = [], first
            for at in range(start + 1, end):
                own, here = style_at(at), box(at)
                gap = max(here[0] - before[2], before[0] - here[2])
                if own != style or gap > _WORD_GAP * own[1]:
                    parts.append((start, at, style, first, before))
                    start, style, first = at, own, here
                before = here
            parts.append((start, end, style, first, final))
        for begin, stop, style, first, final in parts:
            left, right = min(first[0], final[0]), max(first[2], final[2])
            yield Word(text[begin:stop], begin, line, space, left, right, *style)
            space = ""


def _style(textpage: Any, place: int, piece: Any, rotation: int, is_hidden: bool) -> _Style:
    matrix, x, y = raw.FS_MATRIX(), c_double(), c_double()
    raw.FPDFText_GetMatrix(textpage, place, matrix)
    raw.FPDFText_GetCharOrigin(textpage, place, x, y)
    base = _turned((x.value, y.value, x.value, y.value), rotation)[1]
    along = complex(matrix.a, matrix.b) * (1, -1j, -1, 1j)[rotation // 90 % 4]
    size = raw.FPDFText_GetFontSize(textpage, place) * hypot(matrix.c, matrix.d)
    name, is_bold = create_string_buffer(100), False
    font = raw.FPDFTextObj_GetFont(piece) if piece else None
    if font:
        raw.FPDFFont_GetBaseFontName(font, name, len(name))
        is_bold = (
            bool(_BOLD_NAME.search(name.value))
            or bool(raw.FPDFFont_GetFlags(font) & _FORCE_BOLD)
            or raw.FPDFTextObj_GetTextRenderMode(piece) == raw.FPDF_TEXTRENDERMODE_FILL_STROKE
        )
    is_upright = along.real > 0 and abs(along.imag) < 0.05 * along.real
    is_symbol = bool(_SYMBOL_NAME.search(name.value))
    return base, round(size, 1) or 1.0, is_bold, is_upright, is_hidden, is_symbol


def _turned(box: Rule, rotation: int) -> Rule:
    """Return a box of a page as the page is shown, which is turned clockwise."""
    left, bottom, right, top = box
    if rotation == 90:
        return bottom, -right, top, -left
    if rotation == 180:
        return -right, -top, -left, -bottom
    return (-top, left, -bottom, right) if rotation == 270 else box


def _rules(page: Any) -> Iterator[Rule]:
    """Yield the thin bars of a page, and the sides of what else is drawn with a line."""
    fill, is_stroked = c_int(), c_int()
    n_objects = raw.FPDFPage_CountObjects(page)
    for index in range(min(n_objects, _MOST_RULES)):
        piece = raw.FPDFPage_GetObject(page, index)
        if raw.FPDFPageObj_GetType(piece) != raw.FPDF_PAGEOBJ_PATH:
            continue
        left, bottom, right, top = bounds_of(piece)
        if min(right - left, top - bottom) < _THIN_RULE:
            yield left, bottom, right, top
        elif raw.FPDFPath_GetDrawMode(piece, fill, is_stroked) and is_stroked.value:
            yield from ((left, y, right, y) for y in (bottom, top))
            yield from ((x, bottom, x, top) for x in (left, right))


def _undrawn_texts(page: Any, textpage: Any) -> Iterator[tuple[int, str]]:
    """Yield an open page's texts that it does not show, with the addresses of their objects.

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
        is_faint = bool(colour) and (min(colour[:3]) >= _PAPER or colour[3] < _FAINT)
        if not is_hidden and (
            _is_of_layer(piece)
            or is_faint
            or raw.FPDFTextObj_GetTextRenderMode(piece) in _UNPAINTED
            or covers.may_hide(index, bounds, colour)
        ):
            pixels = low_pixels(page) if pixels is None else pixels
            is_hidden = not _is_drawn(page, raw.FS_RECTF(x_0, y_1, x_1, y_0), pixels)
        if is_hidden:
            text = utf16(raw.FPDFTextObj_GetText, piece, textpage)
            if any(map(str.isalnum, text)):  # points and lines are too fine for few pixels
                yield addressof(piece.contents), text


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
            own = self._colours[at] if at < middle else ()
            is_alike = all(abs(a - b) < _FAINT for a, b in zip(own, colour, strict=False))
            if (left <= x_0 and bottom <= y_0 and right >= x_1 and top >= y_1) and (
                at >= middle or (own and colour and is_alike)
            ):
                return True
        return False


def _fill_of(piece: Any) -> tuple[int, ...]:
    """Return red, green, blue and opacity of an object's fill, up to 255; empty: it has none."""
    parts = tuple(c_uint() for _ in range(4))
    has_one = raw.FPDFPageObj_GetFillColor(piece, *parts)
    return tuple(part.value for part in parts) if has_one else ()


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
