"""PDF documents: the text of each page, and scanned pages by OCR where it is installed.

After a page's own text stand the fields of forms with their values, the texts that were typed over
it, and comments. What is not read is noted: attached files, dynamic (XFA) forms, passwords. Text
that the page does not show (white, covered, beyond the borders, of a layer that is off) is read and
noted. The only module that knows pypdfium2.

PDFium keeps global state and is not thread-safe, so every call into it happens under one lock, a
page at a time: a long document does not hold up the short ones.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ctypes import (
    POINTER,
    byref,
    c_float,
    c_int,
    c_uint,
    c_ulong,
    c_ushort,
    cast,
    create_string_buffer,
)
from dataclasses import dataclass, field
from itertools import accumulate
from threading import Lock
from typing import Any, BinaryIO, TypeAlias

import pypdfium2  # type: ignore[import-untyped]
from pypdfium2 import raw

from paddock.engine.system.text import counted, listed, one_line

from . import ocr, reader
from .document_kinds import MEDIA_TYPES
from .hidden_text_notes import hidden_text_note
from .reader import Document, LineBox, PageBox, PartCheck, QuoteSpan, ReadRequest, Unreadable

_PDFIUM_LOCK = Lock()
_ERR_PASSWORD = 4  # FPDF_ERR_PASSWORD
_HYPHEN = re.compile("[\x02\ufffe]\n?")  # PDFium's hyphen at the end of a line
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1f\ufffe\uffff]")
# Runs of white space are matched whole, so that a long one is looked at once.
_LINE_END_SPACE = re.compile(r"(?<![^\S\n])[^\S\n]++(?=\n|\Z)")
_OUTER_SPACE = re.compile(r"\A\s++|(?<!\s)\s++\Z")
_LEFT_OUT = (re.compile(r"\r(?=\n)"), _HYPHEN, _NO_TEXT, _LINE_END_SPACE, _OUTER_SPACE)
"""What a page's text loses, one after the other."""
_POINTS_AN_INCH = 72
_DOTS_AN_INCH = 200  # enough for small print; an A4 page has 1,654 x 2,339 pixels
_MOST_SIDE_PX = 2400
_BOX_UNITS = 1_000_000  # of a side, in which PDFium returns points as whole numbers
_PAPER, _FAINT = 0xF0, 16  # of 255: as light as paper; a difference that no one sees
_NEAR = 1.0  # points by which a text may be larger than what covers it
_MOST_COVERS = 100  # that are looked at for one text
_COVER_NOTHING = (raw.FPDF_PAGEOBJ_TEXT, raw.FPDF_PAGEOBJ_UNKNOWN)
_UNPAINTED = (raw.FPDF_TEXTRENDERMODE_INVISIBLE, raw.FPDF_TEXTRENDERMODE_CLIP)
_LAYER_MARK = "OC\0".encode("utf-16-le")  # "optional content"
_LAST_OF_PLANE = 0xFFFF  # of the characters that are one unit of UTF-16

PageOcr = Callable[[Any], ocr.SeenText]
"""Reads a picture of a page: an array of height x width x 3 bytes, blue first."""


@dataclass(frozen=True, slots=True)
class PdfText:
    """The pages' texts in order, and the file's title."""

    pages: tuple[str, ...]
    title: str
    pictures: tuple[int, ...]
    """Numbers of the pages with pictures and without text."""
    seen: tuple[int, ...] = ()
    """Numbers of the pages that were read by OCR."""
    line_boxes: tuple[tuple[LineBox, ...], ...] = ()
    """By page, of what OCR has read and of what is laid over it."""
    losses: tuple[str, ...] = ()
    """Notes on what is hidden or not read."""


def extract_pdf_text(file: BinaryIO, check: PartCheck, see: PageOcr | None = None) -> PdfText:
    """Read all pages; `check` is called before each, `see` reads those that have no text."""
    with _open_pdf(file) as document:
        with _PDFIUM_LOCK:
            n_pages = len(document)
            title = document.get_metadata_value("Title")
        if not n_pages:
            raise Unreadable("is damaged: it has no pages")
        pages: list[str] = []
        pictures: list[int] = []
        seen: list[int] = []
        lines: list[tuple[LineBox, ...]] = []
        losses = _Losses()
        for index in range(n_pages):
            check(len(pages[-1]) if pages else 0)
            text, is_picture, laid_over = _page_text(document, index, losses)
            lines.append(())
            if is_picture and see is not None:
                pixels = _page_pixels(document, index, _MOST_SIDE_PX, shows_forms=False)
                found = see(pixels)
                text, lines[-1] = found.text, found.lines
                (seen if text else pictures).append(index + 1)
            elif is_picture:
                pictures.append(index + 1)
            pages.append("\n\n".join(filter(None, (text, laid_over.text))))
            lines[-1] += laid_over.line_boxes(len(pages[-1]) - len(laid_over.text))
        notes = tuple(losses.notes(document))
    boxes = tuple(lines) if any(lines) else ()
    return PdfText(tuple(pages), title.strip(), tuple(pictures), tuple(seen), boxes, notes)


def draw_pdf_page(file: BinaryIO, number: int, most_side_px: int) -> Any:
    """Return a page, from 1, as it is shown: an array of height x width x 3 bytes, blue first."""
    with _open_pdf(file) as document:
        with _PDFIUM_LOCK:
            n_pages = len(document)
        if not 1 <= number <= n_pages:
            raise Unreadable(f"has no page {number}")
        return _page_pixels(document, number - 1, most_side_px)


def find_pdf_boxes(
    file: BinaryIO, quotes: Sequence[QuoteSpan], check: Callable[[], None]
) -> list[PageBox | None]:
    """Return the box around each quote; None where the page does not have it there."""
    by_page: dict[int, list[int]] = {}
    for index, quote in enumerate(quotes):
        by_page.setdefault(quote.page, []).append(index)
    found: list[PageBox | None] = [None] * len(quotes)
    with _open_pdf(file) as document:
        with _PDFIUM_LOCK:
            n_pages = len(document)
        for number in sorted(page for page in by_page if 1 <= page <= n_pages):
            check()
            with _open_page(document, number - 1) as page:
                of_page = _QuotedPage(page)
                for index in by_page[number]:
                    found[index] = of_page.box(quotes[index])
    return found


class _QuotedPage:
    """An open page, on which quotes of its cleaned text are found."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self._characters = page.get_textpage()
        text = self._characters.get_text_range()
        self._text = _clean_text(text)
        self._offsets = _kept_offsets(text)
        # PDFium counts in units of UTF-16.
        wide = (1 + (ord(char) > _LAST_OF_PLANE) for char in text)
        self._units = list(accumulate(wide, initial=0))

    def box(self, quote: QuoteSpan) -> PageBox | None:
        if self._text[quote.start : quote.end] != quote.text:
            return None
        offsets = self._offsets[quote.start : quote.end]
        shown = (at for at, char in zip(offsets, quote.text, strict=True) if not char.isspace())
        boxes = [box for at in shown if (box := self._character_box(self._units[at])) is not None]
        if not boxes:
            return None
        lefts, tops, rights, bottoms = zip(*boxes, strict=True)
        return min(lefts), min(tops), max(rights), max(bottoms)

    def _character_box(self, unit: int) -> PageBox | None:
        """Return a character's box on the page as it is shown; None if it is not on it."""
        index = raw.FPDFText_GetCharIndexFromTextIndex(self._characters, unit)
        rect = raw.FS_RECTF()
        if index < 0 or not raw.FPDFText_GetLooseCharBox(self._characters, index, rect):
            return None
        return _shown_box(self._page, rect)


def _shown_box(page: Any, rect: Any) -> PageBox | None:
    """Return a rectangle of a page as it is shown; None if it is not on it."""
    corners = [_shown(page, rect.left, rect.top), _shown(page, rect.right, rect.bottom)]
    (left, right), (top, bottom) = map(sorted, zip(*corners, strict=True))
    return (left, top, right, bottom) if left < right and top < bottom else None


def _shown(page: Any, x: float, y: float) -> tuple[float, float]:
    """Return a point of a page as fractions: rotated and cropped as PDFium draws it."""
    across, down = c_int(), c_int()
    size = (0, 0, _BOX_UNITS, _BOX_UNITS)
    raw.FPDF_PageToDevice(page, *size, 0, x, y, byref(across), byref(down))
    shares = (across.value / _BOX_UNITS, down.value / _BOX_UNITS)
    left, top = (round(min(max(share, 0.0), 1.0), 4) for share in shares)
    return left, top


@contextmanager
def _open_pdf(file: BinaryIO) -> Iterator[Any]:
    """Open through Python, so that system errors keep their reasons."""
    try:
        with _PDFIUM_LOCK:
            document = pypdfium2.PdfDocument(file)
    except pypdfium2.PdfiumError as error:
        # PDFium sometimes keeps the error code of the previous document.
        file.seek(0)
        if error.err_code == _ERR_PASSWORD and b"/Encrypt" in file.read():
            remedy = "Save it without a password."
            raise Unreadable("is protected by a password", remedy) from error
        raise Unreadable("is damaged or not a PDF") from error
    try:
        with _PDFIUM_LOCK, suppress(pypdfium2.PdfiumError):  # then fields have no inherited values
            document.init_forms()
        yield document
    finally:
        with _PDFIUM_LOCK:
            document.close()


@contextmanager
def _open_page(document: Any, index: int) -> Iterator[Any]:
    """Open a page, and hold the lock; errors within name the page."""
    with _PDFIUM_LOCK:
        try:
            page = document[index]
            try:
                yield page
            finally:
                page.close()
        except pypdfium2.PdfiumError as error:
            raise Unreadable(f"is damaged: page {index + 1} cannot be read") from error


def _page_text(document: Any, index: int, losses: _Losses) -> tuple[str, bool, _LaidOver]:
    """Return a page's own text, whether it only has pictures, and what is laid over it."""
    with _open_page(document, index) as page:
        textpage = page.get_textpage()
        text = _clean_text(textpage.get_text_range())
        laid_over = _Annotations(page, textpage, losses).joined()
        losses.hidden += _undrawn_texts(page, textpage)
        textpage.close()
        is_picture = not text and next(page.get_objects(max_depth=1), None) is not None
        return text, is_picture, laid_over


def _undrawn_texts(page: Any, textpage: Any) -> Iterator[str]:
    """Yield an open page's texts that it does not show.

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
        x_0, y_0, x_1, y_1 = bounds = _bounds_of(piece)
        if x_0 >= x_1 or y_0 >= y_1:  # such as spaces
            continue
        is_hidden = x_1 <= left or x_0 >= right or y_1 <= bottom or y_0 >= top
        colour = _fill_of(piece)
        if not is_hidden and (
            _is_of_layer(piece)
            or _is_faint(piece, colour)
            or covers.may_hide(index, bounds, colour)
        ):
            pixels = _low_pixels(page) if pixels is None else pixels
            is_hidden = not _is_drawn(page, raw.FS_RECTF(x_0, y_1, x_1, y_0), pixels)
        if is_hidden:
            text = _utf16(raw.FPDFTextObj_GetText, piece, textpage)
            if any(map(str.isalnum, text)):  # points and lines are too fine for few pixels
                yield text


def _bounds_of(piece: Any) -> tuple[float, ...]:
    """Return left, bottom, right and top of an object of a page."""
    sides = tuple(c_float() for _ in range(4))
    raw.FPDFPageObj_GetBounds(piece, *sides)
    return tuple(side.value for side in sides)


class _Covers:
    """The pictures, fields and drawings of a page, in the order in which they are painted."""

    def __init__(self, pieces: Sequence[Any]) -> None:
        self._at = [
            index
            for index, piece in enumerate(pieces)
            if raw.FPDFPageObj_GetType(piece) not in _COVER_NOTHING
        ]
        self._bounds = [_bounds_of(pieces[index]) for index in self._at]
        self._colours = [_fill_of(pieces[index]) for index in self._at]

    def may_hide(self, index: int, bounds: tuple[float, ...], colour: tuple[int, ...]) -> bool:
        """Return whether one that is painted later, or in a text's colour, lies around it."""
        x_0, y_0 = (side + _NEAR for side in bounds[:2])
        x_1, y_1 = (side - _NEAR for side in bounds[2:])
        middle = bisect(self._at, index)
        for at in range(max(0, middle - _MOST_COVERS), min(len(self._at), middle + _MOST_COVERS)):
            left, bottom, right, top = self._bounds[at]
            if (
                (left <= x_0 and bottom <= y_0 and right >= x_1 and top >= y_1)
                and (at >= middle or _is_alike(self._colours[at], colour))
            ):  # fmt: skip
                return True
        return False


def _fill_of(piece: Any) -> tuple[int, ...]:
    """Return red, green, blue and opacity of an object's fill, up to 255; empty: it has none."""
    parts = tuple(c_uint() for _ in range(4))
    has_one = raw.FPDFPageObj_GetFillColor(piece, *parts)
    return tuple(part.value for part in parts) if has_one else ()


def _is_alike(own: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return bool(own and other) and all(abs(a - b) < _FAINT for a, b in zip(own, other, strict=True))


def _is_faint(piece: Any, colour: tuple[int, ...]) -> bool:
    """Return whether a text is as white as paper, transparent or painted by nothing."""
    if raw.FPDFTextObj_GetTextRenderMode(piece) in _UNPAINTED:
        return True
    return bool(colour) and (min(colour[:3]) >= _PAPER or colour[3] < _FAINT)


def _is_of_layer(piece: Any) -> bool:
    for index in range(raw.FPDFPageObj_CountMarks(piece)):
        mark = raw.FPDFPageObj_GetMark(piece, index)
        name, n_bytes = create_string_buffer(len(_LAYER_MARK)), c_ulong()
        raw.FPDFPageObjMark_GetName(mark, cast(name, POINTER(c_ushort)), len(name), n_bytes)
        if name.raw == _LAYER_MARK:
            return True
    return False


def _low_pixels(page: Any) -> Any:
    scale = min(1.0, _MOST_SIDE_PX / max(*page.get_size(), 1.0))
    bitmap = page.render(scale=scale, may_draw_forms=False)
    pixels = bitmap.to_numpy()[:, :, :3].copy()
    bitmap.close()
    return pixels


def _is_drawn(page: Any, rect: Any, pixels: Any) -> bool:
    """Return whether there is anything but one colour where a text stands."""
    shown = _shown_box(page, rect)
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


def _page_pixels(document: Any, index: int, most_side_px: int, *, shows_forms: bool = True) -> Any:
    """Render a page of any size within limits; `shows_forms`: with the values of fields."""
    with _open_page(document, index) as page:
        longest = max(*page.get_size(), 1.0)
        scale = min(_DOTS_AN_INCH / _POINTS_AN_INCH, most_side_px / longest)
        bitmap = page.render(scale=scale, may_draw_forms=shows_forms)
        pixels = bitmap.to_numpy()[:, :, :3].copy()
        bitmap.close()
        return pixels


@dataclass
class _Losses:
    """What a document hides, or has besides what is read."""

    hidden: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    """Names of files that are attached to a page."""
    n_unshown: int = 0
    """Fields whose values are hidden or passwords."""
    n_unread: int = 0
    """Typed texts that are kept only as drawings; films and sounds."""

    def notes(self, document: Any) -> Iterator[str]:
        with _PDFIUM_LOCK:
            n_files = raw.FPDFDoc_GetAttachmentCount(document)
            attached = (raw.FPDFDoc_GetAttachment(document, i) for i in range(max(n_files, 0)))
            names = dict.fromkeys(map(_attachment_name, attached)) | dict.fromkeys(self.files)
            is_dynamic = document.get_formtype() == raw.FORMTYPE_XFA_FULL
        if is_dynamic:
            yield ": its dynamic form (XFA) is not read; save it as a plain PDF to have its values"
        yield from hidden_text_note("the page", self.hidden)
        if self.n_unshown:
            fields = counted(self.n_unshown, "hidden or password field")
            yield f": values of {fields} are not read"
        if self.n_unread:
            what = counted(self.n_unread, "text, film or sound", "texts, films or sounds")
            yield f": {what} laid over its pages cannot be read"
        if names:
            yield f": attached files are not read ({listed(list(names))})"


_Piece: TypeAlias = tuple[str, PageBox | None]
"""A piece of a line, and where it stands on the page."""


@dataclass(frozen=True, slots=True)
class _LaidOver:
    """The text of what is laid over a page, and where its pieces stand."""

    text: str
    boxes: tuple[LineBox, ...]

    def line_boxes(self, offset: int) -> tuple[LineBox, ...]:
        """Return the boxes in a text in which this one begins at an offset."""
        return tuple(
            (start + offset, end + offset, left, top, right, bottom)
            for start, end, left, top, right, bottom in self.boxes
        )


class _Annotations:
    """What is laid over an open page: fields of forms, typed texts and comments."""

    def __init__(self, page: Any, textpage: Any, losses: _Losses) -> None:
        self._page, self._textpage, self._losses = page, textpage, losses
        self._form = page.formenv.raw if page.formenv else None
        self._fields: dict[tuple[str, str], list[_Piece]] = {}
        """By name and label: the label, then the value or the choices."""
        self._typed: list[list[_Piece]] = []
        self._comments: list[list[_Piece]] = []
        for index in range(raw.FPDFPage_GetAnnotCount(page)):
            annotation = raw.FPDFPage_GetAnnot(page, index)
            if annotation:
                self._add(annotation)
                raw.FPDFPage_CloseAnnot(annotation)

    def joined(self) -> _LaidOver:
        fields = list(self._fields.values())
        parts = {"Form fields": fields, "Text boxes": self._typed, "Comments": self._comments}
        text, boxes = "", list[LineBox]()
        for name, lines in parts.items():
            gap = "\n\n" if text else ""
            text += f"{gap}{name}:" if lines else ""
            for line in lines:
                text += "\n-"
                for piece, box in line:
                    text += f" {piece}"
                    boxes += [(len(text) - len(piece), len(text), *box)] if box else []
        return _LaidOver(text, tuple(boxes))

    def _add(self, annotation: Any) -> None:
        kind = raw.FPDFAnnot_GetSubtype(annotation)
        is_hidden = bool(raw.FPDFAnnot_GetFlags(annotation) & _HIDDEN_FLAGS)
        if kind == raw.FPDF_ANNOT_WIDGET:
            self._add_field(annotation, is_hidden=is_hidden)
            return
        if kind in _SKIPPED_ANNOTATIONS:
            return
        if kind == raw.FPDF_ANNOT_FILEATTACHMENT:
            file = raw.FPDFAnnot_GetFileAttachment(annotation)
            self._losses.files += [_attachment_name(file)] if file else []
        text = _annotation_text(annotation, "Contents")
        box = self._box(annotation)
        if kind == raw.FPDF_ANNOT_FREETEXT:
            self._typed += [[(text, box)]] if text else []
            self._losses.n_unread += not text
        else:
            self._losses.n_unread += kind in _MEDIA_ANNOTATIONS
            comment = self._comment(annotation, kind, text)
            self._comments += [[(comment, box)]] if comment else []
        if is_hidden and text:
            self._losses.hidden.append(text)

    def _comment(self, annotation: Any, kind: int, text: str) -> str:
        """Return what a mark says, with its author and the words that it marks."""
        author = _annotation_text(annotation, "T")
        comment = f"{text} ({author})" if text and author else text
        is_struck = kind == raw.FPDF_ANNOT_STRIKEOUT
        what = ""
        if kind == raw.FPDF_ANNOT_STAMP:
            what, comment = "stamp", comment or _annotation_text(annotation, "Name")
        elif kind in _MARKING_ANNOTATIONS and (comment or is_struck):
            marked = one_line(self._marked(annotation), _SHOWN_CHARS)
            what = f"{'struck out' if is_struck else 'on'} '{marked}'" if marked else ""
        return ": ".join(filter(None, (what, comment)))

    def _marked(self, annotation: Any) -> str:
        """Return the words of the page that an annotation marks."""
        words, quad = list[str](), raw.FS_QUADPOINTSF()
        for index in range(raw.FPDFAnnot_CountAttachmentPoints(annotation)):
            if raw.FPDFAnnot_GetAttachmentPoints(annotation, index, quad):
                across, up = (
                    (quad.x1, quad.x2, quad.x3, quad.x4),
                    (quad.y1, quad.y2, quad.y3, quad.y4),
                )
                words.append(
                    self._textpage.get_text_bounded(min(across), min(up), max(across), max(up))
                )
        return " ".join(_clean_text(" ".join(words)).split())

    def _add_field(self, annotation: Any, *, is_hidden: bool) -> None:
        kind = raw.FPDFAnnot_GetFormFieldType(self._form, annotation) if self._form else -1
        if kind < 0:  # it belongs to no form, as after pages of several files were joined
            name, label, value = (_annotation_text(annotation, key) for key in ("T", "TU", "V"))
        else:
            name = self._field_text(raw.FPDFAnnot_GetFormFieldName, annotation)
            label = self._field_text(raw.FPDFAnnot_GetFormFieldAlternateName, annotation)
            value = self._value(annotation, kind)
        if value and (is_hidden or self._is_password(annotation, kind)):
            self._losses.n_unshown += 1
        elif value:
            shown = one_line(label or name, _SHOWN_CHARS) or "field"
            pieces = self._fields.setdefault((name, shown), [(f"{shown}:", None)])
            is_new = all(value != known for known, _ in pieces[1:])
            pieces += [(value, self._box(annotation))] if is_new else []

    def _is_password(self, annotation: Any, kind: int) -> bool:
        if kind != raw.FPDF_FORMFIELD_TEXTFIELD:
            return False
        flags = raw.FPDFAnnot_GetFormFieldFlags(self._form, annotation)
        return bool(flags & raw.FPDF_FORMFLAG_TEXT_PASSWORD)

    def _value(self, annotation: Any, kind: int) -> str:
        """Return a field's value; of a choice that is one of several, which one it is."""
        form = self._form
        if kind in (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON):
            mark = "[x]" if raw.FPDFAnnot_IsChecked(form, annotation) else "[ ]"
            if raw.FPDFAnnot_GetFormControlCount(form, annotation) < 2:
                return mark
            return f"{mark} {self._field_text(raw.FPDFAnnot_GetFormFieldExportValue, annotation)}"
        if kind == raw.FPDF_FORMFIELD_SIGNATURE:
            return "signed" if raw.FPDFAnnot_HasKey(annotation, b"V") else ""
        chosen = [
            _utf16(raw.FPDFAnnot_GetOptionLabel, form, annotation, index)
            for index in range(raw.FPDFAnnot_GetOptionCount(form, annotation))
            if raw.FPDFAnnot_IsOptionSelected(form, annotation, index)
        ]
        return ", ".join(chosen) or self._field_text(raw.FPDFAnnot_GetFormFieldValue, annotation)

    def _box(self, annotation: Any) -> PageBox | None:
        rect = raw.FS_RECTF()
        is_placed = raw.FPDFAnnot_GetRect(annotation, rect)
        return _shown_box(self._page, rect) if is_placed else None

    def _field_text(self, function: Any, annotation: Any) -> str:
        return _utf16(function, self._form, annotation)


_HIDDEN_FLAGS = raw.FPDF_ANNOT_FLAG_HIDDEN | raw.FPDF_ANNOT_FLAG_NOVIEW
_SKIPPED_ANNOTATIONS = (raw.FPDF_ANNOT_POPUP, raw.FPDF_ANNOT_LINK)
_MARKING_ANNOTATIONS = (
    raw.FPDF_ANNOT_HIGHLIGHT,
    raw.FPDF_ANNOT_UNDERLINE,
    raw.FPDF_ANNOT_SQUIGGLY,
    raw.FPDF_ANNOT_STRIKEOUT,
)
_MEDIA_ANNOTATIONS = (
    raw.FPDF_ANNOT_SOUND,
    raw.FPDF_ANNOT_MOVIE,
    raw.FPDF_ANNOT_SCREEN,
    raw.FPDF_ANNOT_THREED,
    raw.FPDF_ANNOT_RICHMEDIA,
)
_SHOWN_CHARS = 200


def _annotation_text(annotation: Any, key: str) -> str:
    return _utf16(raw.FPDFAnnot_GetStringValue, annotation, key.encode())


def _attachment_name(attachment: Any) -> str:
    return " ".join(_utf16(raw.FPDFAttachment_GetName, attachment).split()) or "unnamed"


def _utf16(function: Any, *arguments: Any) -> str:
    """Return a text that PDFium writes as UTF-16; its further lines are indented."""
    n_bytes = function(*arguments, None, 0)
    if n_bytes <= 2:  # the zero at its end
        return ""
    buffer = create_string_buffer(n_bytes)
    function(*arguments, cast(buffer, POINTER(c_ushort)), n_bytes)
    text = buffer.raw[: n_bytes - 2].decode("utf-16-le", "replace")
    return _clean_text(text).replace("\n", "\n  ")


def _clean_text(text: str) -> str:
    """Join hyphenated words, drop control characters."""
    for left_out in _LEFT_OUT:
        text = left_out.sub("", text).replace("\r", "\n")
    return text


def _kept_offsets(text: str) -> list[int]:
    """Return the offset in `text` of each character of `_clean_text(text)`."""
    offsets = list(range(len(text)))
    for left_out in _LEFT_OUT:
        kept, at = list[int](), 0
        for gap in left_out.finditer(text):
            kept += offsets[at : gap.start()]
            at = gap.end()
        offsets = kept + offsets[at:]
        text = left_out.sub("", text).replace("\r", "\n")
    return offsets


def read_pdf(file: BinaryIO, request: ReadRequest) -> Document:
    sees = request.ocr and reader.ocr_is_installed()
    found = extract_pdf_text(file, request.check, ocr.recognise if sees else None)
    nothing = _why_empty(found) if found.pictures and not any(found.pages) else ""
    if nothing and not sees:
        raise Unreadable(nothing, ocr.INSTALL_OCR if request.ocr else "Set `ocr: auto` to read it.")
    if nothing:
        why = f"{nothing}, and OCR found nothing to read on them"
        return Document(found.pages, found.title, MEDIA_TYPES["pdf"], found.losses, why)
    notes = (*_picture_notes(found, "" if sees else _remedy(request.ocr)), *found.losses)
    title = "" if found.title.lower() == "untitled" else found.title
    return Document(found.pages, title, MEDIA_TYPES["pdf"], notes, line_boxes=found.line_boxes)


def _picture_notes(found: PdfText, remedy: str) -> Iterator[str]:
    """Yield which pages OCR has read and which have no text; `remedy`: how it could read them."""
    if found.seen:
        yield f": {_page_ranges(found.seen)} read from a picture by OCR"
    if found.pictures and remedy:
        yield f": no text layer on {_page_ranges(found.pictures)}{remedy}"
    elif found.pictures:
        yield f": nothing to read was found on {_page_ranges(found.pictures)}, which show pictures"


def _why_empty(found: PdfText) -> str:
    n = len(found.pages)
    shows = "its 1 page only shows pictures" if n == 1 else f"its {n} pages only show pictures"
    return f"has no text layer: {shows}"


def _remedy(uses_ocr: bool) -> str:
    return ", which the extra 'paddock-llm[ocr]' reads" if uses_ocr else ", and `ocr` is off"


def _page_ranges(numbers: Sequence[int]) -> str:
    """Return page numbers as ranges.

    >>> _page_ranges([1, 2, 3, 7])
    'pages 1-3, 7'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    words = ", ".join("-".join(map(str, run)) for run in runs)
    return f"page {words}" if len(numbers) == 1 else f"pages {words}"
