"""What stands on a page of a PDF: its words with their places and styles, and its rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from ctypes import addressof, c_double, c_int, c_void_p, cast, create_string_buffer
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
from .pdf_hidden import HiddenText, hidden_text, text_object_at
from .pdf_pictures import unread_pictures
from .pdfium import PDFIUM_LOCK, DamagedPage, PageObject, by_address, open_page, page_objects

_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")  # no characters
_HALF = re.compile("[\ud800-\udfff]")  # of a character of UTF-16
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
_TINY, _LEGIBLE = 2.0, 6.0  # points: text that no one sees beside what people read


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
    def __init__(self, document: Any, check: Callable[[int], None], losses: Losses) -> None:
        self._document, self._check, self._losses = document, check, losses
        self._n_chars = 0
        with PDFIUM_LOCK:
            self._n_pages = len(document)
        self._first = {index: self._read(index) for index in range(min(self._n_pages, FACT_PAGES))}
        known = [page for page in self._first.values() if page is not None]
        self._facts = document_facts((page.raw_text, page.lines) for page in known)

    def __iter__(self) -> Iterator[ReadPage | None]:
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
                unshown = hidden_text(page, textpage, pieces)
                text, places = _characters(textpage)
                rotation = page.get_rotation()
                words = list(_words(textpage.raw, text, places, rotation, unshown))
                covered = (c for c, at in zip(text, places, strict=True) if at in unshown.chars)
                unseen = *unshown.objects.values(), "".join(covered).strip(), _hide_tiny(words)
                self._losses.hidden += filter(None, unseen)
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
    def known(char: str, place: int) -> str:
        if char in (HYPHEN, "\ufffe") and raw.FPDFText_IsHyphen(textpage, place) == 1:
            return HYPHEN
        return "\ufffd" if _ODD.match(char) else char

    text, n_chars = textpage.get_text_range(), textpage.count_chars()
    if n_chars == len(text) and max(text, default="") < "\U00010000":
        return _ODD.sub(lambda odd: known(odd[0], odd.start()), text), range(n_chars)
    chars = list[str]()
    places = list[int]()
    for place in range(n_chars):
        char = chr(raw.FPDFText_GetUnicode(textpage, place))
        if "\udc00" <= char <= "\udfff" and chars and "\ud800" <= chars[-1] <= "\udbff":
            pair = (chars[-1] + char).encode("utf-16-le", "surrogatepass")
            chars[-1] = pair.decode("utf-16-le")
            continue
        chars.append(known(char, place))
        places.append(place)
    return _HALF.sub("\ufffd", "".join(chars)), places


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
_box_at = by_address(raw.FPDFText_GetLooseCharBox, c_int, c_void_p, c_int, c_void_p)


class _Style(NamedTuple):
    """How the characters of a text object are written; the last fields of a `Word`."""

    base: float
    size: float = 1.0
    is_bold: bool = False
    is_upright: bool = True
    is_hidden: bool = False
    is_symbol: bool = False


def _hide_tiny(words: Sequence[Word]) -> str:
    """Hide words that are too small to be seen beside others, and return them."""
    is_read = any(word.size >= _LEGIBLE for word in words)
    tiny = [w for w in words if is_read and w.size <= _TINY and not w.is_hidden]
    for word in tiny:
        word.is_hidden = True
    return " ".join(word.text for word in tiny)


def _words(
    textpage: Any, text: str, places: Sequence[int], rotation: int, unshown: HiddenText
) -> Iterator[Word]:
    styles: dict[tuple[int | None, bool], _Style] = {}
    fonts: dict[int, tuple[bool, bool]] = {}
    rect = raw.FS_RECTF()
    to_rect, page_address = addressof(rect), cast(textpage, c_void_p).value

    def style_at(at: int) -> _Style:
        address = text_object_at(page_address, places[at])
        is_hidden = places[at] in unshown.chars or address in unshown.objects
        key = address, is_hidden
        if key not in styles:
            styles[key] = _style(textpage, places[at], rotation, is_hidden, fonts)
        return styles[key]

    def sides(at: int) -> tuple[float, ...]:
        _box_at(page_address, places[at], to_rect)
        if not rotation:
            return rect.left, rect.right
        return _turned((rect.left, rect.bottom, rect.right, rect.top), rotation)[::2]

    def word_spans(start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield what is one word each of a token: of one style, without a gap."""
        style, before = style_at(start), sides(start)
        for at in range(start + 1, end):
            own, here = style_at(at), sides(at)
            gap = max(here[0] - before[1], before[0] - here[1])
            if own != style or gap > _WORD_GAP * own.size:
                yield start, at
                start, style = at, own
            before = here
        yield start, end

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
        width = max(final[1], first[1]) - min(first[0], final[0])
        is_mixed = style is not style_at(end - 1)
        is_mixed = is_mixed or not unshown.chars.isdisjoint(places[start:end])
        is_one = not is_mixed and width <= _WIDE * style.size * (end - start)
        for begin, stop in ((start, end),) if is_one else word_spans(start, end):
            style, first, final = style_at(begin), sides(begin), sides(stop - 1)
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
