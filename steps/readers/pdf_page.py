"""What stands on a page of a PDF: its words with their places and styles, and its rules."""

from __future__ import annotations

import re
from cmath import exp
from collections.abc import Callable, Iterator, Sequence
from ctypes import byref, c_int
from functools import cache, partial
from itertools import groupby, repeat
from typing import Any

from pypdfium2 import raw  # type: ignore[import-untyped]

from paddock.engine.system.records import Struct
from paddock.pipelines.text_cells import TextCell

from .page_layout import FACT_PAGES, HYPHEN, document_facts, page_lines, page_pieces, struck
from .page_rows import THIN, PageLine, Rule, turned_words
from .pdf_annotations import Annotations, LaidOver, Losses
from .pdf_directions import TextDirections
from .pdf_hidden import hidden_text, page_texts
from .pdf_pictures import n_uncovered
from .pdf_words import UNKNOWN, PageWords, drawn, turned_box, without_shadows
from .pdfium import PDFIUM_LOCK, DamagedPage, PageFrame, PageObject, direct, open_page, page_objects

_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")  # no characters
_HALF = re.compile("[\ud800-\udfff]")  # of a character of UTF-16
_UNNAMED = re.compile("[\ufffd\ue000-\uf8ff\U000f0000-\U0010ffff]")  # or of the font's own
_MOST_RULES = 20_000  # objects that are looked at on a page: more is a drawing
_TINY = 2.0  # points: text that no one sees beside what is three times as large


class ReadPage(Struct, frozen=True):
    raw_text: str
    """As PDFium has it: with U+0002 for a hyphen at a line's end, U+FFFD for unknown letters."""
    lines: Sequence[PageLine]
    laid_over: LaidOver
    frame: PageFrame
    """Of the places of its lines."""
    is_picture: bool
    """Whether it shows something, but no text of its own."""
    n_unnamed: int
    """Characters to which their font gives no Unicode: they may be any other ones."""
    n_drawn: int = 0
    """Characters of which it has only drawings."""
    n_askew: int = 0
    """Characters of no direction that lines have, as around a circle."""
    n_pictures: int = 0
    """Pictures that its own text does not cover, as it does after OCR."""


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

    def text(self, page: ReadPage) -> tuple[str, tuple[TextCell, ...]]:
        """Return the text of a page, and where its words stand."""
        cells = list[TextCell]()
        parts = list[str]()
        at = 0
        origin, scale = page.frame.origin.real, page.frame.across.real
        is_level = page.frame.is_level
        for shown, word, row, column in page_pieces(page.raw_text, page.lines, self._facts):
            parts.append(shown)
            start, at = at, at + len(shown)
            if word is not None:
                low, top, high, bottom = page.frame.box(*word.box) or (1.0, 0.0, 0.0, 0.0)
                for text, a, b in zip(shown.split(" "), word.lefts, word.rights, strict=False):
                    left, right = origin + a * scale, origin + b * scale
                    if left < low or right > high:
                        left, right = max(left, low), min(right, high)
                    box = (left, top, right, bottom) if left < right else None
                    if not is_level:
                        box = page.frame.box(a, word.bottom, b, word.top)
                    end = start + len(text)
                    cells.append(TextCell(start, end, box, row, column))
                    start = end + 1
        return "".join(parts), tuple(cells)

    def _read(self, index: int) -> ReadPage | None:
        self._check(self._n_chars)
        try:
            with open_page(self._document, index) as page:
                as_shown = cache(page.get_textpage)
                annotations = Annotations(page, index, as_shown, self._losses)
                pieces = level_pieces = drawn_lines = page_objects(page)
                texts = list(page_texts(pieces))
                frame, rotation = PageFrame.of(page), page.get_rotation()
                unshown = hidden_text(page, as_shown, texts, pieces, frame)
                directions = TextDirections.of(texts, rotation)
                if directions.are_level:
                    textpage = as_shown()
                else:
                    directions.level(pieces, texts)
                    textpage, level_pieces = page.get_textpage(), page_objects(page)
                    unshown = unshown.after(as_shown, textpage)
                    drawn_lines = directions.level_lines(0, level_pieces[:_MOST_RULES])
                text, places = without_shadows(textpage, *_characters(textpage))
                rules = [turned_box(rule, rotation) for rule in _rules(drawn_lines)]
                rules += _strokes(annotations.struck, directions)
                found = PageWords(textpage, text, places, unshown, rules, directions)
                words, *turned = found.read()
                n_askew = sum([len(word.text) for word in words if not word.is_upright])
                for n, others in enumerate(turned, 1):
                    own = [
                        turned_box(rule, rotation)
                        for rule in _rules(directions.level_lines(n, drawn_lines))
                    ]
                    place = partial(directions.in_main, n, found.skew)
                    words += turned_words(list(struck(others, own)), place)
                is_read = any(word.size >= 3 * _TINY for word in words)
                for word in words:
                    word.is_hidden |= is_read and word.size <= _TINY
                drawn_words = list(drawn(words, level_pieces[:_MOST_RULES], rotation))
                words += drawn_words
                has_nothing = set("".join(text.split())) == {"\ufffd"}
                lines = [] if has_nothing else page_lines(words, rules)
                self._losses.hidden += _hidden_texts(lines)
                is_picture = not lines and bool(pieces)
                n_unnamed = _n_unnamed(textpage, text, places)
                n_drawn = sum(word.text == UNKNOWN for word in drawn_words)
                shown = frame.turned(rotation).askew(directions.angles[0], found.skew)
                n_pictures = n_uncovered(frame, pieces, (shown.box(*word.box) for word in words))
                textpage.close()
        except DamagedPage:
            return None
        self._n_chars = len(text)
        over = annotations.joined()
        counts = n_unnamed, n_drawn, n_askew, n_pictures
        return ReadPage(text, lines, over, shown, is_picture, *counts)


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
    answers = list(map(_has_no_unicode, repeat(byref(textpage.raw.contents)), places))
    if 1 not in answers and not _UNNAMED.search(text):
        return 0
    return sum(
        (answer == 1 or _UNNAMED.match(char) is not None)
        for char, answer in zip(text, answers, strict=True)
        if not char.isspace() and char != HYPHEN
    )


_has_no_unicode = direct(raw.FPDFText_HasUnicodeMapError)


def _strokes(
    words: Sequence[Sequence[complex]], directions: TextDirections
) -> Iterator[tuple[float, float, float, float]]:
    """Yield a line through each word that is struck out, by its corners."""
    turn = exp(-1j * directions.angles[0])
    for corners in words:
        xs, ys = ([getattr(turn * at, part) for at in corners] for part in ("real", "imag"))
        box = min(xs), min(ys), max(xs), max(ys)
        left, bottom, right, top = turned_box(box, directions.rotation)
        middle = bottom + 0.4 * (top - bottom)
        yield left, middle, right, middle


def _hidden_texts(lines: Sequence[PageLine]) -> Iterator[str]:
    for line in lines:
        if not any([piece.word.is_hidden for piece in line.pieces if piece.word]):
            continue
        for is_shown, run in groupby(line.pieces, lambda p: bool(p.word and not p.word.is_hidden)):
            text = "".join([piece.word.text if piece.word else " " for piece in run]).strip()
            if text and not is_shown:
                yield text.replace(HYPHEN, "-")


def _rules(pieces: Sequence[PageObject]) -> Iterator[Rule]:
    """Yield the thin bars of a page, and the sides of what else is drawn with a line."""
    fill, is_stroked = c_int(), c_int()
    for piece in pieces[:_MOST_RULES]:
        if piece.kind != raw.FPDF_PAGEOBJ_PATH:
            continue
        left, bottom, right, top = piece.bounds
        if min(right - left, top - bottom) < THIN:
            yield left, bottom, right, top
        elif raw.FPDFPath_GetDrawMode(piece.piece, fill, is_stroked) and is_stroked.value:
            yield from ((left, y, right, y) for y in (bottom, top))
            yield from ((x, bottom, x, top) for x in (left, right))
