"""Pages of PDFs with something wrong: damaged, letters without meaning, fonts that are missing."""

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest

from paddock.steps.readers import pdf
from paddock.steps.readers.reader import Document, Unreadable
from paddock.steps.readers.reader_process import ReadOptions
from tests.fakes.pdf import NAMED_FONT, UNNAMED_FONT, pdf_of_objects
from tests.fakes.pdf import pdf as pdf_of

WITHOUT_FONTS = """
import ctypes, sys
from pypdfium2 import raw
from paddock.steps.readers import pdf, reader_process

raw.FPDF_DestroyLibrary()
name = ctypes.create_string_buffer(b"/nowhere")
paths = (ctypes.POINTER(ctypes.c_char) * 2)(ctypes.cast(name, ctypes.POINTER(ctypes.c_char)), None)
kind = dict(raw.FPDF_LIBRARY_CONFIG._fields_)["m_pUserFontPaths"]
raw.FPDF_InitLibraryWithConfig(raw.FPDF_LIBRARY_CONFIG(2, ctypes.cast(paths, kind)))
found = pdf.read_pdf(sys.stdin.buffer.raw, reader_process.ReadOptions(ocr=False))
sys.stdout.buffer.write(found.text.encode())
"""


def read(data: bytes) -> Document:
    return pdf.read_pdf(BytesIO(data), ReadOptions(ocr=False))


def test_one_damaged_page_is_named_and_the_others_are_read() -> None:
    data = pdf_of(["first", "second", "third"]).replace(b"6 0 R", b"99 0 R", 1)
    found = read(data)
    assert found.pages == ("first", "", "third")
    assert found.notes == (": page 2 cannot be read: it is damaged",)


def test_a_document_all_of_whose_pages_are_damaged_is_refused() -> None:
    with pytest.raises(Unreadable, match="is damaged: page 1 cannot be read"):
        read(pdf_of(["first"]).replace(b"[4 0 R]", b"[99 0 R]"))


def test_chinese_without_a_font_is_read_where_none_is_installed(tmp_path: Path) -> None:
    """One glyph an object, of a font that is neither in the document nor on the machine."""
    glyphs = " ".join(
        f"BT /F1 11 Tf {72 + 11 * at} 600 Td <{code}> Tj ET"
        for at, code in enumerate(("b7a2", "c6b1", "d7dc", "b6ee"))
    )
    data = pdf_of_objects(
        glyphs,
        "<< /Type /Font /Subtype /Type0 /BaseFont /SimSun /Encoding /GBK-EUC-H /DescendantFonts "
        "[<< /Type /Font /Subtype /CIDFontType2 /BaseFont /SimSun /DW 1000 /CIDSystemInfo "
        "<< /Registry (Adobe) /Ordering (GB1) /Supplement 2 >> >>] >>",
    )
    path = tmp_path / "a.pdf"
    path.write_bytes(data)
    with path.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_FONTS], stdin=file, capture_output=True, check=True
        )
    assert done.stdout.decode() == "发票总额"


NOT_MAPPED = (
    "<< /Type /Font /Subtype /Type0 /BaseFont /A+Foo /Encoding /Identity-H /DescendantFonts "
    "[<< /Type /Font /Subtype /CIDFontType2 /BaseFont /A+Foo /DW 500 /CIDSystemInfo "
    "<< /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> >>] >>"
)
PART_NUMBERS = "\n".join(f"XKJ-{n} HGFDS WRTQP ZXLKJ MNBVC" for n in range(9))


@pytest.mark.parametrize(
    ("text", "font", "is_known"),
    [
        ("The agreement begins on the first of May.", NAMED_FONT, True),
        (PART_NUMBERS, NAMED_FONT, True),
        ("Strc prst skrz krk. Vlk zmrzl, zhltl hrst zrn.", NAMED_FONT, True),
        ("____ ---- **** ==== | + - / ____ ---- **** ====", NAMED_FONT, True),
        ("\0007\000K\000H\000 \0000", NOT_MAPPED, False),
        ("The agreement begins on the first of May.", UNNAMED_FONT, False),
    ],
)
def test_text_is_believed_where_its_fonts_say_which_letters_they_show(
    text: str, font: str, is_known: bool
) -> None:
    lines = " ".join(f"({line}) Tj T*" for line in text.split("\n"))
    found = read(pdf_of_objects(f"BT /F1 9 Tf 72 700 Td 14 TL {lines} ET", font))
    assert bool(found.text) and ("may be another one" not in "".join(found.notes)) is is_known


def test_a_page_none_of_whose_letters_is_known_is_read_as_a_picture() -> None:
    data = pdf_of_objects("BT /F1 10 Tf 72 700 Td <000100020003> Tj ET", NOT_MAPPED)
    with pytest.raises(Unreadable, match="has no text layer: its 1 page only shows pictures"):
        read(data)


def test_a_sign_that_the_font_does_not_name_stays_before_its_number() -> None:
    """Of U+0003, as fonts of formulas have it for a minus: without it the number is another one.

    Fonts of icons map a glyph to half of a UTF-16 pair.
    """
    cmap = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def\n"
        "1 begincodespacerange <00> <ff> endcodespacerange\n"
        "4 beginbfchar <66> <0003> <67> <e123> <68> <0000> <69> <d83c> endbfchar endcmap end end"
    )
    found = read(
        pdf_of_objects(
            "BT /F1 10 Tf 72 700 Td (f0.93 and g0.94, h5, and i7 on top) Tj ET",
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 7 0 R >>",
            f"<< /Length {len(cmap)} >>\nstream\n{cmap}\nendstream",
        )
    )
    assert found.text == "\ufffd0.93 and \ue1230.94, \ufffd5, and \ufffd7 on top"
    assert found.notes == (
        ": 4 characters on page 1 may be other ones: the font does not say what they mean",
    )
