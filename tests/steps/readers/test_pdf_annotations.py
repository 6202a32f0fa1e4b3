"""Fields of forms and annotations of PDFs, which are not among a page's own text."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import pypdfium2  # type: ignore[import-untyped]
import pytest

from paddock.pipelines.text_cells import unpack_cells
from paddock.steps.readers import pdf as pdf_reader
from paddock.steps.readers import pdf_annotations
from paddock.steps.readers.reader import Document
from paddock.steps.readers.reader_process import ReadOptions
from tests.fakes.office import docx
from tests.fakes.pdf import pdf, pdf_form, pdf_of_objects
from tests.steps.readers.askew_pages import width_of

WIDGET = "/Subtype /Widget"


def read(data: bytes) -> Document:
    return pdf_reader.read_pdf(BytesIO(data), ReadOptions(ocr=False))


def test_values_of_fields_follow_the_pages_text() -> None:
    """A tree of fields: the kids inherit kind and value, and their names are joined."""
    document = read(
        pdf_form(
            [
                f"{WIDGET} /Parent 16 0 R /T (name) /V (Jane \\(Ada\\) Doe)",
                f"{WIDGET} /FT /Btn /T (agree) /TU (I agree) /V /Yes /AS /Yes "
                "/AP << /N << /Yes 5 0 R /Off 5 0 R >> >>",
                f"{WIDGET} /Parent 17 0 R /AS /Off /AP << /N << /visa 5 0 R >> >>",
                f"{WIDGET} /Parent 17 0 R /AS /cash /AP << /N << /cash 5 0 R >> >>",
                f"{WIDGET} /FT /Ch /T (land) /Opt [[(fr) (France)] [(es) (Spain)]] /V (es)",
                f"{WIDGET} /FT /Tx /T (blank) /V ()",
            ],
            form="<< /NeedAppearances true /Fields [16 0 R 11 0 R 17 0 R 14 0 R 15 0 R] >>",
            objects=[
                "<< /FT /Tx /T (applicant) /Kids [10 0 R] >>",
                "<< /FT /Btn /Ff 32768 /T (pay) /V /cash /Kids [12 0 R 13 0 R] >>",
            ],
        )
    )
    assert document.text == (
        "Form\n\nForm fields:\n- applicant.name: Jane (Ada) Doe\n- I agree: [x]\n"
        "- pay: [ ] visa [x] cash\n- land: Spain"
    )
    assert document.notes == ()


def test_typed_texts_and_comments_are_read() -> None:
    quads = "/QuadPoints [70 735 110 735 70 715 110 715]"
    document = read(
        pdf_form(
            [
                "/Subtype /FreeText /Contents (Paid 12.50)",
                "/Subtype /Text /Contents (Check\\rthis) /T (Rev)",
                f"/Subtype /Highlight {quads} /Contents (which one?)",
                f"/Subtype /StrikeOut {quads}",
                "/Subtype /Stamp /Name /Approved",
                "/Subtype /Popup /Contents (Check this)",
                "/Subtype /Text /F 2 /Contents (not shown)",
            ]
        )
    )
    assert document.text == (
        "~~Form~~\n\nText boxes:\n- Paid 12.50\n\nComments:\n- Check\n  this (Rev)\n"
        "- on 'Form': which one?\n- struck out 'Form'\n- stamp: Approved\n- not shown"
    )
    assert document.notes == (
        ": text that the page does not show is read as well (9 characters: 'not shown')",
    )


TOTAL = f"{WIDGET} /FT /Tx /T (total) /V (12.50)"
ATTACHED = "/Subtype /FileAttachment /FS << /F (prices.csv) /EF << /F 11 0 R >> >>"
STREAM = "<< /Type /EmbeddedFile /Length 7 >>\nstream\na,b\n1,2\nendstream"
EMPTY = "/Subtype /FileAttachment /FS << /Type /Filespec /UF (prices.csv) /F (prices.csv) >>"


@pytest.mark.parametrize(
    ("annotations", "more", "text", "note"),
    [
        (["/Subtype /FreeText"], {}, "Form",
         ": 1 text, film or sound laid over its pages cannot be read"),
        ([EMPTY], {}, "Form", ": attachment 'prices.csv' is not read: it has 0 bytes"),
        ([f"{WIDGET} /FT /Tx /T (a)"], {"form": "<< /Fields [] /XFA [(datasets) 5 0 R] >>"}, "Form",
         ": its dynamic form (XFA) is not read; save it as a plain PDF to have its values"),
        ([f"{WIDGET} /FT /Tx /Ff 8192 /T (pin) /V (1234)", f"{WIDGET} /F 2 /FT /Tx /T (i) /V (x)"],
         {"form": "<< /Fields [10 0 R 11 0 R] >>"}, "Form",
         ": values of 2 hidden or password fields are not read"),
        ([TOTAL], {}, "Form\n\nForm fields:\n- total: 12.50", ""),  # no form has it
        ([TOTAL], {"text": ""}, "Form fields:\n- total: 12.50", ""),
        ([ATTACHED], {"objects": [STREAM]},
         "Form\n\n# prices.csv\n\na,b\n1,2",
         ": attached files stand behind its own pages (prices.csv)"),
    ],
)  # fmt: skip
def test_what_stands_in_no_form_is_read_or_noted(
    annotations: list[str], more: dict[str, Any], text: str, note: str
) -> None:
    found = read(pdf_form(annotations, **more))
    assert (found.text, found.notes) == (text, (note,) if note else ())


def with_files(files: Mapping[str, bytes]) -> bytes:
    document = pypdfium2.PdfDocument(pdf(["Invoice 17"]))
    for name, data in files.items():
        document.new_attachment(name).set_data(data)
    made = BytesIO()
    document.save(made)
    return made.getvalue()


def test_attached_files_are_pages_behind_the_documents_own() -> None:
    files = {
        "terms.docx": docx("Thirty days."),
        "invoice.xml": "<total>Grüße 12</total>".encode(),
        "more.pdf": with_files({"deep.txt": b"Deep."}),
        "tool.7z": b"7z\xbc\xaf\x27\x1c",
    }
    found = read(with_files(files))
    assert found.pages == (
        *("Invoice 17", "# invoice.xml\n\n<total>Grüße 12</total>", "# more.pdf\n\nInvoice 17"),
        *("# deep.txt\n\nDeep.", "# terms.docx\n\nThirty days."),
    )
    assert found.notes == (
        ": attachment 'more.pdf': attached files stand behind its own pages (deep.txt)",
        ": attachment 'tool.7z' is not read: a 7z archive, which is not read",
        ": attached files stand behind its own pages (invoice.xml, more.pdf, terms.docx)",
    )


def test_of_attached_files_with_the_same_note_five_are_named_and_the_others_counted() -> None:
    notes = read(with_files({f"{n}.7z": b"7z\xbc\xaf\x27\x1c" for n in range(8)})).notes
    assert notes[:5] == tuple(
        f": attachment '{n}.7z' is not read: a 7z archive, which is not read" for n in range(5)
    )
    assert notes[5:] == (": what is said of attachment '0.7z' holds for 3 more attachments",)


def test_files_within_files_within_files_end_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_files({"a.txt": b"x"})
    for n in range(5):
        data = with_files({f"{n}.pdf": data})
    found = read(data)
    assert len(found.pages) == 4
    assert "'2.pdf': attachment '1.pdf' is not read: it lies within too many" in found.notes[0]
    monkeypatch.setattr(pdf_annotations, "_MOST_FILE_BYTES", 3)
    assert (
        ": attachment 'b.txt' is not read: it has 4 bytes"
        in read(with_files({"a.txt": b"abc", "b.txt": b"abcd"})).notes
    )


def test_the_value_of_a_field_has_the_fields_place() -> None:
    """Whose `/Rect` is `[72 600 172 620]` on a page of 612 by 792 points."""
    document = read(
        pdf_form([f"{WIDGET} /FT /Tx /T (total) /V (12.50)"], form="<< /Fields [10 0 R] >>")
    )
    *_, cell = unpack_cells(document.cells[0])
    assert document.text[cell.start : cell.end] == "12.50"
    assert cell.box == pytest.approx([72 / 612, 172 / 792, 172 / 612, 192 / 792], abs=1e-4)


def layered(content: str, is_on: str) -> Document:
    """Read a page with 'Form' and this content; `/L` is a layer that is `ON` or `OFF`."""
    data = pdf_form([], form="<< /Type /OCG /Name (Notes) >>", text="FORM")
    data = data.replace(b"(FORM) Tj T* ET", f"(Form) Tj ET {content}".encode())
    layers = f"/OCProperties << /OCGs [9 0 R] /D << /{is_on} [9 0 R] >> >>".encode()
    data = data.replace(b"/AcroForm 9 0 R", layers)
    return read(data.replace(b"/Font <<", b"/Properties << /L 9 0 R >> /Font <<", 1))


NOTE = (": text that the page does not show is read as well (9 characters: 'Pay twice')",)


PAY = "BT /F1 12 Tf 72 600 Td (Pay twice) Tj ET"
FIELD = "60 580 200 40 re"
DARK = f"0 0 0.5 rg {FIELD} f"


@pytest.mark.parametrize(
    ("content", "is_on", "notes"),
    [
        ("/OC /L BDC BT /F1 12 Tf 72 600 Td (Pay twice) Tj ET EMC", "OFF", NOTE),
        ("/OC /L BDC BT /F1 12 Tf 72 600 Td (Pay twice) Tj ET EMC", "ON", ()),
        ("BT /F1 12 Tf 700 600 Td (Pay twice) Tj ET", "ON", NOTE),
        ("BT /F1 12 Tf 600 600 Td (Pay twice) Tj ET", "ON", ()),
        (f"1 g {PAY}", "ON", NOTE),
        (f"3 Tr {PAY}", "ON", NOTE),
        (f"{DARK} 1 g {PAY}", "ON", ()),
        (f"{DARK} {PAY}", "ON", NOTE),
        (f"{PAY} 1 g {FIELD} f", "ON", NOTE),
    ],
)
def test_text_that_a_page_does_not_show_is_noted(
    content: str, is_on: str, notes: tuple[str, ...]
) -> None:
    found = layered(content, is_on)
    assert "Form" in found.text
    assert (found.notes, "Pay twice" in found.text) == (notes, True)


@pytest.mark.parametrize(
    ("content", "text", "hidden"),
    [
        ("0 g 108 595 47 14 re f", "<!-- twice 40 -->", "twice 40"),
        ("0 g 108 595 29 14 re f", "<!-- twice --> 40", "twice"),
        ("0 g 108 603 47 2 re f", "~~twice 40~~", ""),  # a line through it
        ("0 g 200 595 62 14 re f", "twice 40", ""),
        ("BT /F1 1 Tf 72 500 Td (small print) Tj ET", "twice 40", "small print"),
        ("BT /F1 1 Tf 9 0 0 9 72 500 Tm (large print) Tj ET", "twice 40", ""),
    ],
)
def test_a_part_of_a_line_that_is_covered_and_tiny_text_are_marked(
    content: str, text: str, hidden: str
) -> None:
    pay = "BT /F1 12 Tf 72 600 Td (Salary twice 40 EUR) Tj ET 0 g"
    found = layered(f"{pay} {content}", "ON")
    assert f"Salary {text} EUR" in found.text
    assert (hidden in "".join(found.notes), bool(found.notes)) == (True, bool(hidden))


MEDIA_BOX = "/MediaBox [0 0 612 792]"


@pytest.mark.parametrize(
    "box",
    [
        *("", "/MediaBox [0 0 0 0]", "/MediaBox [a b]", "/MediaBox [612 792 0 0]"),
        *(f"{MEDIA_BOX} {more}" for more in ("/Rotate 90", "/Rotate 45", "/UserUnit 10")),
        f"{MEDIA_BOX} /CropBox [1000 1000 1200 1200]",
    ],
)
def test_a_page_with_unusual_or_no_borders_is_read_and_its_text_is_not_taken_for_hidden(
    box: str,
) -> None:
    found = read(pdf_form([]).replace(MEDIA_BOX.encode(), box.encode()))
    assert (found.text, found.notes) == ("Form", ())


def appearance(content: str) -> str:
    return (
        "<< /Type /XObject /Subtype /Form /BBox [0 0 200 40] /Resources << /Font << /F1 3 0 R >> "
        f">> /Length {len(content)} >>\nstream\n{content}\nendstream"
    )


@pytest.mark.parametrize(
    ("annotation", "line"),
    [
        ("/Subtype /Stamp", "Comments:\n- stamp: VOID 88.00 EUR"),
        ("/Subtype /Stamp /Name /Void", "Comments:\n- stamp: VOID 88.00 EUR"),
        ("/Subtype /Stamp /Contents (see mail)", "Comments:\n- stamp: see mail: VOID 88.00 EUR"),
        ("/Subtype /Watermark", "Comments:\n- watermark: VOID 88.00 EUR"),
        ("/Subtype /FreeText", "Text boxes:\n- VOID 88.00 EUR"),
        ("/Subtype /FreeText /Contents (Paid)", "Text boxes:\n- Paid"),
        (f"{WIDGET} /FT /Sig /T (seal) /V 12 0 R", "Form fields:\n- seal: signed: VOID 88.00 EUR"),
        ("/Subtype /Stamp /F 2", "Comments:\n- stamp"),  # hidden
    ],
)
def test_what_is_drawn_as_a_stamp_watermark_or_signature_is_read(
    annotation: str, line: str
) -> None:
    drawing = "BT /F1 12 Tf 0.966 0.259 -0.259 0.966 10 5 Tm (VOID 88.00 EUR) Tj ET"
    document = read(
        pdf_form(
            [f"{annotation} /AP << /N 11 0 R >>"],
            form="<< /Fields [10 0 R] >>" if "/Sig" in annotation else "",
            objects=[appearance(drawing), "<< /Type /Sig /Filter /Adobe.PPKLite >>"],
        )
    )
    assert document.text == "\n\n".join(filter(None, ["Form", line]))


@pytest.mark.parametrize(("across", "up"), [(2, -2), (-1.5, 1), (0, 3), (4, 0), (3, -3)])
def test_a_shadow_of_text_is_not_read(across: float, up: float) -> None:
    """As Chrome prints them: each letter is a text of its own."""
    content = list[str]()
    for line, text in enumerate(("Total due 320.00 EUR for a balloon", "1100 EUR")):
        for x, y in ((across, up), (0, 0)):
            left = 72.0
            for char in text:
                place = f"{left + x:.2f} {700 - 20 * line + y:.2f} Td"
                content.append(f"BT /F1 12 Tf {place} ({char}) Tj ET")
                left += 12 * width_of(char)
    content.append("BT /F1 12 Tf 72 600 Td (111 balloons, 1100 committee) Tj ET")
    assert read(pdf_of_objects("\n".join(content))).text == (
        "Total due 320.00 EUR for a balloon\n1100 EUR\n111 balloons, 1100 committee"
    )
