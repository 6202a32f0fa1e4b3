"""Pages of PDFs with pictures and text of their own, made here: own text is put over a scan."""

from collections.abc import Callable, Iterable, Sequence
from ctypes import POINTER, c_ushort, cast, create_string_buffer
from io import BytesIO
from pathlib import Path

import pypdfium2  # type: ignore[import-untyped]
import pytest
from pypdfium2 import raw

from paddock.pipelines.text_cells import quote_box, unpack_cells
from paddock.steps.base import StepError
from paddock.steps.readers import reader
from tests.fakes.office import saved, scanned_pdf
from tests.fakes.pdf import NAMED_FONT, UNNAMED_FONT, pdf_of_objects
from tests.fakes.readers import read_here

Placed = Callable[[str, bytes], Path]
LETTER = ("Dear customer,", "please pay by 15 May 2024.", "Amount: 1,250.00 EUR")


def lettered(
    data: bytes, texts: Iterable[tuple[str, float, float, float]], *, is_shown: bool = True
) -> bytes:
    """Return a PDF with texts on its first page: each with left, base and size, in points."""
    document = pypdfium2.PdfDocument(data)
    page = document[0]
    for text, left, base, size in texts:
        piece = raw.FPDFPageObj_NewTextObj(document, b"Helvetica", size)
        utf16 = create_string_buffer(text.encode("utf-16-le") + b"\0\0")
        raw.FPDFText_SetText(piece, cast(utf16, POINTER(c_ushort)))
        raw.FPDFPageObj_Transform(piece, 1, 0, 0, 1, left, base)
        if not is_shown:
            raw.FPDFTextObj_SetTextRenderMode(piece, raw.FPDF_TEXTRENDERMODE_INVISIBLE)
        raw.FPDFPage_InsertObject(page, piece)
    raw.FPDFPage_GenerateContent(page)
    out = BytesIO()
    document.save(out)
    return out.getvalue()


STAMPED = [("Scanned with a telephone", 150, 8, 6)]


def test_a_stamp_does_not_keep_a_scan_from_being_read(placed: Placed) -> None:
    found = read_here(placed("a.pdf", lettered(scanned_pdf(LETTER), STAMPED)))
    assert found.text == "\n".join(LETTER) + "\n\nScanned with a telephone"
    assert found.notes == ("'a.pdf': pictures on page 1 read by OCR.",)
    start = found.text.index("Scanned")
    seen = {cell.start: cell.p for cell in unpack_cells(found.cells[0]) if cell.p is not None}
    assert start in seen
    *others, last = seen.values()
    assert last == 1.0 > min(others) > 0.9


@pytest.mark.parametrize("is_off", [True, False])
def test_pictures_that_are_not_read_are_counted(
    placed: Placed, is_off: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "is_installed", lambda extra: extra != "ocr" or is_off)
    path = placed("a.pdf", lettered(scanned_pdf(LETTER), STAMPED))
    found = read_here(path, ocr=not is_off)
    how = "and `ocr` is off" if is_off else "which the extra 'paddock-llm[ocr]' reads"
    assert found.text == "Scanned with a telephone"
    assert found.notes == (f"'a.pdf': 1 picture on page 1 not read, {how}.",)


def test_a_scan_that_has_its_text_already_is_not_read_twice(placed: Placed) -> None:
    lines = [(line, 30, 175 - 36 * at, 20) for at, line in enumerate(LETTER)]
    data = lettered(scanned_pdf(LETTER), lines, is_shown=False)
    found = read_here(placed("a.pdf", data))
    assert [found.text.count(line) for line in LETTER] == [1, 1, 1]
    assert "OCR" not in "".join(found.notes)


def test_the_text_of_a_picture_stands_between_the_lines_around_it(placed: Placed) -> None:
    scanned = pypdfium2.PdfDocument(scanned_pdf(["Total due 2,120.50 EUR"], size=(500, 120)))
    document = pypdfium2.PdfDocument.new()
    page = document.new_page(600, 800)
    picture = raw.FPDF_NewFormObjectFromXObject(raw.FPDF_NewXObjectFromPage(document, scanned, 0))
    raw.FPDFPageObj_Transform(picture, 1, 0, 0, 1, 60, 400)
    raw.FPDFPage_InsertObject(page, picture)
    raw.FPDFPage_GenerateContent(page)
    out = BytesIO()
    document.save(out)
    prose = "This line of the letter has enough words to be most of it, above the picture or below"
    texts = [(f"{prose} {n}.", 40, base, 12) for n, base in ((1, 700), (2, 680), (3, 300))]
    texts += [(words, 80 + 45 * n, 404, 9) for n, words in enumerate(("27", "150", "3090"))]
    data = lettered(out.getvalue(), texts)
    document = read_here(placed("a.pdf", data))
    text = document.text
    found = [text.index(part) for part in ("below 2.", "Total due 2,120.50 EUR", "below 3.")]
    assert found == sorted(found)
    assert [text.count(word) for word in ("27", "150", "3090")] == [1, 1, 1]
    box = quote_box(text, unpack_cells(document.cells[0]), found[2], found[2] + 8)
    assert box is not None
    assert 0.6 < box[1] < box[3] < 0.64


def shown_over(data: bytes, picture: bytes) -> bytes:
    """Return a PDF whose page also shows a page of another one."""
    document, scanned = pypdfium2.PdfDocument(data), pypdfium2.PdfDocument(picture)
    page = document[0]
    drawn = raw.FPDF_NewFormObjectFromXObject(raw.FPDF_NewXObjectFromPage(document, scanned, 0))
    raw.FPDFPage_InsertObject(page, drawn)
    raw.FPDFPage_GenerateContent(page)
    return saved(document)


@pytest.mark.parametrize(
    ("lines", "font", "text"),
    [
        (["Xkjtr qwzpl mnbvc", "hgfds rtwqp zxlkj"], UNNAMED_FONT, "\n".join(LETTER)),
        (LETTER, UNNAMED_FONT, "\n".join(LETTER)),
        (["XKJ 4471 HGFDS", "WRTQP 4472 ZXLKJ"], NAMED_FONT, "XKJ 4471 HGFDS\nWRTQP 4472 ZXLKJ"),
    ],
    ids=["of unknown letters", "as shown", "of known letters"],
)
def test_only_text_of_unknown_letters_is_replaced_by_what_the_page_shows(
    placed: Placed, monkeypatch: pytest.MonkeyPatch, lines: Sequence[str], font: str, text: str
) -> None:
    hidden = " ".join(f"({line}) Tj T*" for line in lines)
    page = pdf_of_objects(
        f"BT /F1 9 Tf 3 Tr 30 175 Td 36 TL {hidden} ET", font, media_box="0 0 504 216"
    )
    path = placed("a.pdf", shown_over(page, scanned_pdf(LETTER)))
    found = read_here(path)
    assert text in found.text
    is_known = font == NAMED_FONT or lines == LETTER
    assert ("page 1 read from a picture by OCR" in "".join(found.notes)) is not is_known
    monkeypatch.setattr(reader, "is_installed", lambda extra: extra != "ocr")
    assert ("text of page 1 may be another one" in "".join(read_here(path).notes)) is (
        font == UNNAMED_FONT
    )


def test_a_page_that_no_model_reads_is_named(placed: Placed) -> None:
    from tests.steps.readers.test_ocr import RUSSIAN, drawn

    out = BytesIO()
    drawn(RUSSIAN).save(out, "PDF", resolution=100)
    with pytest.raises(StepError, match="no OCR model here reads"):
        read_here(placed("a.pdf", out.getvalue()))
    stamped = read_here(placed("b.pdf", lettered(out.getvalue(), STAMPED)))
    assert stamped.text == "Scanned with a telephone"
    assert "left out is the text of page 1, which shows text that no" in stamped.notes[0]
