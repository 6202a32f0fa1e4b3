from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from paddock.steps.base import StepError
from paddock.steps.readers import ocr, pdf, reader
from paddock.steps.readers.reader_process import ReadOptions
from tests.fakes.office import eml, scan, scanned_pdf
from tests.fakes.readers import read_here

INVOICE = ("INVOICE No. 2024-117", "Total due 2,120.50 EUR")


Placed = Callable[[str, bytes], Path]


def test_scanned_pages_and_pictures_are_read(placed: Placed) -> None:
    found = read_here(placed("a.pdf", scanned_pdf(INVOICE, ["Second page"])))
    assert found.pages == ("INVOICE No. 2024-117\nTotal due 2,120.50 EUR", "Second page")
    assert found.notes == ("'a.pdf': pages 1-2 read from a picture by OCR.",)
    picture = read_here(placed("a.png", scan(INVOICE[0])))
    assert (picture.text, picture.media_type) == (INVOICE[0], "image/png")
    mail = eml("See the scan.", attachments={"scan.png": scan(INVOICE[1])})
    assert read_here(placed("a.eml", mail)).pages[1] == ("# scan.png\n\nTotal due 2,120.50 EUR")


def test_a_picture_without_text_is_empty_and_says_why(
    placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ocr, "recognise", lambda _: ocr.SeenText(""))
    found = read_here(placed("a.png", scan(size=(60, 60))))
    assert (found.is_empty, found.why_empty, found.notes) == (
        True, "has no text that OCR can read", (),
    )  # fmt: skip


def test_a_picture_that_would_fill_the_memory_is_refused(
    placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.steps.readers.ocr._MOST_PIXELS", 1_000)
    with pytest.raises(StepError, match=r"has 60 x 60 pixels; at most 0 million are read"):
        read_here(placed("a.png", scan(size=(60, 60))))


def test_a_picture_is_not_read_where_that_is_off_or_not_installed(
    placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = placed("a.png", scan("x"))
    with pytest.raises(StepError, match=r"^'a\.png' is a picture, and `ocr` is off\.$"):
        read_here(path, ocr=False)
    monkeypatch.setattr(reader, "ocr_is_installed", lambda: False)
    with pytest.raises(StepError) as caught:
        read_here(path)
    assert str(caught.value) == (
        "'a.png' is a picture. To read it install the extra: pip install 'paddock-llm[ocr]'."
    )


def test_a_huge_page_is_drawn_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, ...]] = []

    def see(pixels: object) -> ocr.SeenText:
        sizes.append(pixels.shape)  # type: ignore[attr-defined]
        return ocr.SeenText("x")

    data = scanned_pdf(["one"], size=(9000, 300))
    monkeypatch.setattr(ocr, "recognise", see)
    pdf.read_pdf(BytesIO(data), ReadOptions())
    assert sizes == [(80, 2400, 3)]


def test_a_strip_that_no_letter_fits_into_is_not_looked_at(
    placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule across a page, say: the library would take a minute over it."""
    monkeypatch.setattr(ocr, "_ocr_engine", lambda: pytest.fail("it is looked at"))
    for size in ((2000, 3), (3, 2000)):
        assert read_here(placed("a.png", scan(size=size))).is_empty
