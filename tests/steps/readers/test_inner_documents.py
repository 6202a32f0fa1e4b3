"""Pictures of text within documents of other kinds."""

from base64 import b64encode
from collections.abc import Callable
from copy import deepcopy
from email.message import EmailMessage
from io import BytesIO
from pathlib import Path

import pytest

from paddock.steps.base import StepError
from paddock.steps.readers import reader
from tests.fakes.office import epub, new_document, new_presentation, new_workbook, saved, scan
from tests.fakes.readers import read_here

Placed = Callable[[str, bytes], Path]
TOTAL = "Total due 2,120.50 EUR"
PICTURE = scan(TOTAL, size=(500, 120))
ICON = scan(size=(32, 32))


def word() -> bytes:
    document = new_document()
    document.add_paragraph("See below.")
    for data in (PICTURE, ICON, PICTURE):
        document.add_picture(BytesIO(data))
    return saved(document)


def slides() -> bytes:
    presentation = new_presentation()
    for title in ("First", "Second"):
        slide = presentation.slides.add_slide(presentation.slide_layouts[5])
        slide.shapes.title.text = title
    slide.shapes.add_picture(BytesIO(PICTURE), 0, 0)
    return saved(presentation)


def sheets() -> bytes:
    from openpyxl.drawing.image import Image  # type: ignore[import-untyped]

    workbook = new_workbook()
    workbook.create_sheet("Fees")["A1"] = "See below."
    workbook["Fees"].add_image(Image(BytesIO(PICTURE)), "C3")
    return saved(workbook)


def page() -> bytes:
    return b"<p>See below.</p><img src='data:image/png;base64,%s'>" % b64encode(PICTURE)


def mail() -> bytes:
    message = EmailMessage()
    message["Subject"] = "Bill"
    message.set_content("See below.")
    message.add_alternative("<p>See below.</p><img src='cid:bill'>", subtype="html")
    _, form = message.iter_parts()
    form.add_related(PICTURE, "image", "png", cid="<bill>")
    return message.as_bytes()


def margins() -> bytes:
    document = new_document()
    document.add_paragraph("See below.")
    header = document.sections[0].header.paragraphs[0].add_run()
    for data in (PICTURE, ICON):
        header.add_picture(BytesIO(data))
    return saved(document)


def layouts() -> bytes:
    """Two slides, whose layout and master show the picture."""
    presentation = new_presentation()
    slides = [presentation.slides.add_slide(presentation.slide_layouts[6]) for _ in range(2)]
    drawn = slides[0].shapes.add_picture(BytesIO(PICTURE), 0, 0)._element
    for owner in (presentation.slide_layouts[6], presentation.slide_master):
        _, name = owner.part.get_or_add_image_part(BytesIO(PICTURE))
        shown = deepcopy(drawn)
        shown.blipFill.blip.rEmbed = name
        owner.shapes._spTree.append(shown)
    slides[0].part.drop_rel(drawn.blipFill.blip.rEmbed)
    drawn.getparent().remove(drawn)
    return saved(presentation)


def book() -> bytes:
    chapter = "<p>See below.</p><img src='../pictures/the%20bill.png' alt='x > y'/>"
    drawing = "<svg xmlns:l='x'><image width='9' l:href='icon.png'/></svg>"
    more = {"OEBPS/pictures/the bill.png": PICTURE, "OEBPS/text/icon.png": ICON}
    return epub({"text/one.xhtml": chapter, "text/two.xhtml": f"<p>End</p>{drawing}"}, more=more)


def saved_page() -> bytes:
    message = EmailMessage()
    message.set_content("<p>See below.</p><img src='http://x/bill.png'>", subtype="html")
    message.add_related(PICTURE, "image", "png")
    message.add_related(ICON, "image", "png")
    return message.as_bytes()


MADE = {
    **{"a.docx": word, "a.pptx": slides, "a.xlsx": sheets, "a.html": page, "a.eml": mail},
    **{"b.docx": margins, "b.pptx": layouts, "a.epub": book, "a.mhtml": saved_page},
}


@pytest.mark.parametrize("name", MADE)
def test_a_picture_of_text_is_read_where_it_is_shown(placed: Placed, name: str) -> None:
    found = read_here(placed(name, MADE[name]()))
    assert "".join(found.pages).count(f"Picture:\n{TOTAL}") == 1
    assert f"'{name}': 1 picture in it read by OCR." in found.notes


@pytest.mark.parametrize("name", MADE)
def test_without_ocr_pictures_are_counted_but_icons(
    placed: Placed, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = placed(name, MADE[name]())
    assert (
        f"'{name}': 1 picture in it not read, and `ocr` is off." in read_here(path, ocr=False).notes
    )
    monkeypatch.setattr(reader, "is_installed", lambda extra: extra != "ocr")
    note = f"'{name}': 1 picture in it not read, which the extra 'paddock-llm[ocr]' reads."
    assert note in read_here(path).notes


def test_a_document_of_pictures_alone_is_read_or_says_how(placed: Placed) -> None:
    document = new_document()
    document.add_picture(BytesIO(PICTURE))
    path = placed("a.docx", saved(document))
    assert read_here(path).text == f"Picture:\n{TOTAL}"
    with pytest.raises(
        StepError, match=r"only pictures\. The extra 'paddock-llm\[ocr\]' reads them"
    ):
        read_here(path, ocr=False)


def test_a_damaged_picture_costs_a_note(placed: Placed) -> None:
    html = b"<p>See</p><img src='data:image/png;base64,%s'>" % b64encode(
        PICTURE[:40] + bytes(9_000)
    )
    found = read_here(placed("a.html", html))
    assert found.text == "See"
    assert "'a.html': 1 picture in it not read: each is damaged or not a picture." in found.notes


def test_words_of_a_drawing_are_read_without_ocr(placed: Placed) -> None:
    drawing = "<svg xmlns='http://www.w3.org/2000/svg'><text>Boiler</text></svg>"
    made = epub({"one.xhtml": "<p>See</p><img src='a.svg'/>"}, more={"OEBPS/a.svg": drawing})
    found = read_here(placed("a.epub", made), ocr=False)
    assert (found.pages, found.notes) == (("See\n\nPicture:\nBoiler",), ())


def test_a_book_of_pictures_alone_says_so(placed: Placed) -> None:
    made = epub({"one.xhtml": "<img src='a.png'/>"}, more={"OEBPS/a.png": PICTURE})
    found = read_here(placed("a.epub", made), ocr=False)
    assert found.is_empty
    assert found.why_empty == "has no text: 1 picture in it not read, and `ocr` is off"
