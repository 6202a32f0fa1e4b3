"""PDFium: documents and pages under one lock, places on a page, pictures of it, its texts, fonts.

PDFium keeps global state and is not thread-safe, so every call into it happens under one lock, a
page at a time: a long document does not hold up the short ones.
"""

from __future__ import annotations

import re
import zlib
from base64 import b85decode
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from ctypes import (
    POINTER,
    PYFUNCTYPE,
    byref,
    c_float,
    c_int,
    c_ushort,
    c_void_p,
    cast,
    create_string_buffer,
    memmove,
    sizeof,
)
from functools import cache
from itertools import repeat
from math import cos, sin
from threading import Lock
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import pypdfium2  # type: ignore[import-untyped]
from pypdfium2 import raw

from paddock.pipelines.text_cells import PageBox

from .reader import Unreadable

PDFIUM_LOCK = Lock()
_ERR_PASSWORD = 4  # FPDF_ERR_PASSWORD
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1f\ufffe\uffff]")
_POINTS_AN_INCH = 72
_DOTS_AN_INCH = 200  # enough for small print; an A4 page has 1,654 x 2,339 pixels
MOST_SIDE_PX = 2400
_BOX_UNITS = 1_000_000  # of a side, in which PDFium returns points as whole numbers
# TrueType, 436 bytes: one glyph, a box of 1,000 units, for U+0020 to U+2FFFF (cmap of format 13).
_BOX_FONT = (
    b"c-muNWME+6WN2VuW)MiuO)Ov#W(Z+mU{nB#YNY2>rcGEEwH3$@0P>|WQWH}QqdZ;!*>ix{ECVRO9>u&4$i4!^DjB&Y"
    b"6)Y-176YRMkYLNnPfldu1@k>X{M^Kf0tOZaHX!>45G&**=B7SZWoQS==K%TY1^LA#KzD%DPXWm@fZPVe-R=$N;`wd9"
    b"GB7iP>}Ghb+tdrEZT`<;Uc(#&<T5ibF+c!N4|Bo)4j}o0!G^(xc@5YkWWWd(VFJ1aBEy6x&j7Z`2C9~sfeT3UK>WfW"
    b"gRlkYMyCJ&p=<`QJR{siK%a;UDhk>#7o;$6`{M<*M-Hl%5$scD21XW6Ae)VW*(tw*!HFTCp@IPt2DkwLHLEzF"
)
_CHARSETS = (
    raw.FXFONT_SHIFTJIS_CHARSET,
    raw.FXFONT_HANGEUL_CHARSET,
    raw.FXFONT_GB2312_CHARSET,
    raw.FXFONT_CHINESEBIG5_CHARSET,
)
_BOX_HANDLE = 1  # no address of a font
_AT_ONCE = 1024  # things of which PDFium is asked


Matrix: TypeAlias = tuple[float, float, float, float, float, float]


def matrix_product(first: Matrix, then: Matrix) -> Matrix:
    a, b, c, d, e, f = first
    g, h, i, j, k, l = then  # noqa: E741
    x, y = e * g + f * i + k, e * h + f * j + l
    return a * g + b * i, a * h + b * j, c * g + d * i, c * h + d * j, x, y


class PageFrame(NamedTuple):
    """Where the points of a page are as it is shown: rotated and cropped as PDFium draws it."""

    origin: complex
    across: complex
    up: complex

    @classmethod
    def of(cls, page: Any) -> PageFrame:
        origin, right, above = (
            _device_point(page, x, y) for x, y in ((0, 0), (1000, 0), (0, 1000))
        )
        return cls(origin, (right - origin) / 1000, (above - origin) / 1000)

    def turned(self, rotation: int) -> PageFrame:
        """Return the same for points of a page that was turned as it is shown."""
        across, up = self.across, self.up
        for _ in range(rotation // 90 % 4):
            across, up = up, -across
        return PageFrame(self.origin, across, up)

    def askew(self, angle: float, skew: float) -> PageFrame:
        """Return the same for points that were turned by an angle, and then by a slope."""
        across = cos(angle) * self.across + sin(angle) * self.up
        up = cos(angle) * self.up - sin(angle) * self.across
        scale = 1 + skew * skew
        turned = (across + skew * up) / scale, (up - skew * across) / scale
        return PageFrame(self.origin, *turned)

    @property
    def is_level(self) -> bool:
        return not self.across.imag and not self.up.real

    def box(self, left: float, bottom: float, right: float, top: float) -> PageBox | None:
        """Return a rectangle as fractions of the page; None if it is not on it."""
        a = self.origin + self.across * left + self.up * bottom
        b = self.origin + self.across * right + self.up * top
        x_0, x_1, y_0, y_1 = a.real, b.real, a.imag, b.imag
        if (self.across.imag and self.across.real) or (self.up.imag and self.up.real):
            c, d = a + self.across * (right - left), b - self.across * (right - left)
            x_0, x_1 = min(x_0, x_1, c.real, d.real), max(x_0, x_1, c.real, d.real)
            y_0, y_1 = min(y_0, y_1, c.imag, d.imag), max(y_0, y_1, c.imag, d.imag)
        if x_0 > x_1:
            x_0, x_1 = x_1, x_0
        if y_0 > y_1:
            y_0, y_1 = y_1, y_0
        if x_0 < 0 or y_0 < 0 or x_1 > 1 or y_1 > 1:
            x_0, y_0, x_1, y_1 = (min(max(side, 0.0), 1.0) for side in (x_0, y_0, x_1, y_1))
        return (x_0, y_0, x_1, y_1) if x_0 < x_1 and y_0 < y_1 else None


def _device_point(page: Any, x: float, y: float) -> complex:
    across, down = c_int(), c_int()
    size = (0, 0, _BOX_UNITS, _BOX_UNITS)
    raw.FPDF_PageToDevice(page, *size, 0, x, y, byref(across), byref(down))
    return complex(across.value, down.value) / _BOX_UNITS


class DamagedPage(Unreadable):
    """A page that PDFium cannot open."""

    def __init__(self, number: int) -> None:
        super().__init__(f"is damaged: page {number} cannot be read")
        self.number = number


@contextmanager
def open_pdf(file: BinaryIO) -> Iterator[Any]:
    """Read it here: system errors keep their reasons, and PDFium asks for 512 bytes at a time."""
    data = file.read()
    try:
        with PDFIUM_LOCK:
            _use_box_font()
            document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        # PDFium sometimes keeps the error code of the previous document.
        if error.err_code == _ERR_PASSWORD and b"/Encrypt" in data:
            remedy = "Save it without a password."
            raise Unreadable("is protected by a password", remedy) from error
        raise Unreadable("is damaged or not a PDF") from error
    try:
        with PDFIUM_LOCK, suppress(pypdfium2.PdfiumError):  # then fields have no inherited values
            document.init_forms()
        yield document
    finally:
        with PDFIUM_LOCK:
            document.close()


@contextmanager
def open_page(document: Any, index: int) -> Iterator[Any]:
    with PDFIUM_LOCK:
        try:
            page = document[index]
            try:
                yield page
            finally:
                page.close()
        except pypdfium2.PdfiumError as error:
            raise DamagedPage(index + 1) from error


def direct(function: Any, answer: Any = c_int) -> Callable[..., Any]:
    """Return a function of PDFium that is called in a quarter of the time, without checks.

    What it takes is whole numbers of 32 bits, `byref` of something, or `c_void_p`.
    """
    address = cast(function, c_void_p).value or 0
    called: Callable[..., Any] = PYFUNCTYPE(answer)(address)
    return called


_kind_of = direct(raw.FPDFPageObj_GetType)
_bounds_of = direct(raw.FPDFPageObj_GetBounds)
_on_page = direct(raw.FPDFPage_GetObject, c_void_p)
_in_form = direct(raw.FPDFFormObj_GetObject, c_void_p)
_n_in_form = direct(raw.FPDFFormObj_CountObjects)


def values_of_each(
    function: Callable[..., Any],
    kind: Any,
    n: int,
    things: Sequence[Any],
    *before: Any,
    is_struct: bool = False,
) -> tuple[list[Any], list[list[Any]]]:
    """Return what a function answers for each thing, and by position the `n` values it writes.

    No line of Python runs for each: some programs' pages have an object for every letter.
    """
    values, places = _room(kind, n, is_struct=is_struct)
    answers, found = list[Any](), [list[Any]() for _ in range(n)]
    for start in range(0, len(things), _AT_ONCE):
        part = things[start : start + _AT_ONCE]
        answers += map(function, *map(repeat, before), part, *places)
        for at, column in enumerate(found):
            column += values[at : n * len(part) : n].tolist()
    return answers, found


@cache
def _room(kind: Any, n: int, *, is_struct: bool) -> tuple[memoryview, list[list[Any]]]:
    """Return room and pointers, which are kept: each length is a type of `ctypes`, and a cycle."""
    values, size = (kind * (n * _AT_ONCE))(), sizeof(kind)
    shifts = range(1 if is_struct else n)
    places = [[byref(values, at * size) for at in range(k, n * _AT_ONCE, n)] for k in shifts]
    return memoryview(values).cast("B").cast(kind._type_), places


class PageObject(NamedTuple):
    """A text, line, picture or group on an open page."""

    address: int
    kind: int
    bounds: tuple[float, float, float, float]
    """Left, bottom, right and top."""

    @property
    def piece(self) -> Any:
        return cast(self.address, raw.FPDF_PAGEOBJECT)


def page_objects(page: Any) -> list[PageObject]:
    n_objects = raw.FPDFPage_CountObjects(page.raw)
    return _with_bounds(map(_on_page, repeat(page.raw), range(n_objects)))


def form_objects(form: int) -> list[PageObject]:
    """Return what a group holds; its bounds are those within the group."""
    handle = c_void_p(form)
    return _with_bounds(map(_in_form, repeat(handle), range(_n_in_form(handle))))


def _with_bounds(addresses: Iterable[int]) -> list[PageObject]:
    pieces = list(addresses)
    handles = list(map(c_void_p, pieces))
    _, sides = values_of_each(_bounds_of, c_float, 4, handles)
    return list(map(PageObject, pieces, map(_kind_of, handles), zip(*sides, strict=True)))


def low_pixels(page: Any) -> list[bytes]:
    """Return rows of a page at 72 dots an inch, three bytes a pixel: NumPy would take 14 MB."""
    scale = min(1.0, MOST_SIDE_PX / max(*page.get_size(), 1.0))
    bitmap = page.render(scale=scale, may_draw_forms=False)
    data, stride, n = bytes(bitmap.buffer), bitmap.stride, 3 * bitmap.width
    bitmap.close()
    return [data[at : at + n] for at in range(0, len(data), stride)]


def page_pixels(document: Any, index: int, most_side_px: int, *, shows_forms: bool = True) -> Any:
    """Render a page of any size within limits; `shows_forms`: with the values of fields."""
    with open_page(document, index) as page:
        longest = max(*page.get_size(), 1.0)
        scale = min(_DOTS_AN_INCH / _POINTS_AN_INCH, most_side_px / longest)
        bitmap = page.render(scale=scale, may_draw_forms=shows_forms)
        pixels = bitmap.to_numpy()[:, :, :3].copy()
        bitmap.close()
        return pixels


def draw_pdf_page(file: BinaryIO, number: int, most_side_px: int) -> Any:
    """Return a page, from 1, as it is shown: an array of height x width x 3 bytes, blue first."""
    with open_pdf(file) as document:
        with PDFIUM_LOCK:
            n_pages = len(document)
        if not 1 <= number <= n_pages:
            raise Unreadable(f"has no page {number}")
        return page_pixels(document, number - 1, most_side_px)


def utf16(function: Any, *arguments: Any) -> str:
    """Return a text that PDFium writes as UTF-16; its further lines are indented."""
    n_bytes = function(*arguments, None, 0)
    if n_bytes <= 2:  # the zero at its end
        return ""
    buffer = create_string_buffer(n_bytes)
    function(*arguments, cast(buffer, POINTER(c_ushort)), n_bytes)
    text = buffer.raw[: n_bytes - 2].decode("utf-16-le", "replace")
    return clean_text(text).replace("\n", "\n  ")


def clean_text(text: str) -> str:
    lines = _NO_TEXT.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
    return "\n".join(map(str.rstrip, lines)).strip()


@cache
def _use_box_font() -> Any:
    """Put the box into PDFium's search for fonts; return what must live as long as it does."""
    info = raw.FPDF_GetDefaultSystemFontInfo().contents
    font = zlib.decompress(b85decode(_BOX_FONT))

    def map_font(this: Any, weight: int, is_italic: int, charset: int, *names: Any) -> Any:
        found = known["MapFont"](this, weight, is_italic, charset, *names)
        return found or (_BOX_HANDLE if charset in _CHARSETS else None)

    def font_data(table: int, buffer: Any, size: int) -> int:
        if table == 0 and buffer and size >= len(font):
            memmove(buffer, font, len(font))
        return 0 if table else len(font)

    def of_box(name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
        return lambda this, handle, *rest: (
            answer(*rest) if handle == _BOX_HANDLE else known[name](this, handle, *rest)
        )

    calls = {
        "MapFont": map_font,
        "GetFontData": of_box("GetFontData", font_data),
        "GetFaceName": of_box("GetFaceName", lambda *_: 0),
        "GetFontCharset": of_box("GetFontCharset", lambda *_: raw.FXFONT_DEFAULT_CHARSET),
        "DeleteFont": of_box("DeleteFont", lambda *_: None),
    }
    kinds = dict(info._fields_)
    known = {name: kinds[name].from_buffer_copy(getattr(info, name)) for name in calls}
    for name, call in calls.items():
        setattr(info, name, kinds[name](call))
    raw.FPDF_SetSystemFontInfo(info)
    return info, known
