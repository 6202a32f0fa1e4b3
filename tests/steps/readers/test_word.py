from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest

from paddock.steps.readers.reader import Document, Unreadable
from paddock.steps.readers.reader_process import ReadOptions
from paddock.steps.readers.word import read_docx
from tests.fakes.office import docx, new_document, saved, zipped

W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def document(data: bytes) -> Document:
    return read_docx(BytesIO(data), ReadOptions())


def written(fill: Callable[[Any], None]) -> Document:
    """Read what `fill` makes of an empty document of the library."""
    made = new_document()
    fill(made)
    return document(saved(made))


def within(made: Any, xml: str) -> None:
    """Put raw XML into the body."""
    from docx.oxml import parse_xml

    made.element.body.insert(0, parse_xml(xml))


def test_headings_points_and_tables_are_markdown() -> None:
    found = document(
        docx("# Offer", "Dear Ada,", "- slates", "- nails", [["Item", "Price"], ["Slates", "5|6"]],
             "## Terms", "Thirty days.")
    )  # fmt: skip
    assert found.text == (
        "# Offer\n\nDear Ada,\n\n- slates\n- nails\n\n"
        "| Item | Price |\n| --- | --- |\n| Slates | 5\\|6 |\n\n## Terms\n\nThirty days."
    )
    assert (found.title, len(found.pages), found.notes) == ("Offer", 1, ())


def test_the_documents_own_title_is_its_title() -> None:
    assert document(docx("# Heading", title="Offer 17")).title == "Offer 17"


def test_what_was_inserted_is_read_and_what_was_deleted_is_not() -> None:
    xml = (
        f"<w:p {W}><w:r><w:t>Pay </w:t></w:r><w:del><w:r><w:delText>ten</w:delText></w:r></w:del>"
        "<w:ins><w:r><w:t>twenty</w:t></w:r></w:ins><w:r><w:tab/><w:t>euros</w:t></w:r></w:p>"
    )
    assert written(lambda made: within(made, xml)).text == "Pay twenty\teuros"


def test_form_fields_and_text_boxes_are_read_once() -> None:
    box = "<w:txbxContent><w:p><w:r><w:t>In a box</w:t></w:r></w:p></w:txbxContent>"
    mc = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    xml = (
        f"<w:sdt {W} {mc}><w:sdtContent><w:p><w:r><w:t>Name: Ada</w:t></w:r><w:r>"
        f"<mc:AlternateContent><mc:Choice Requires='wps'>{box}</mc:Choice>"
        f"<mc:Fallback>{box}</mc:Fallback></mc:AlternateContent></w:r></w:p>"
        "</w:sdtContent></w:sdt>"
    )
    assert written(lambda made: within(made, xml)).text == "Name: Ada\n\nIn a box"


def test_headers_and_footers_are_read_once() -> None:
    def fill(made: Any) -> None:
        made.add_paragraph("Text.")
        made.sections[0].header.paragraphs[0].text = "Forge Mill Trust"
        made.sections[0].footer.paragraphs[0].text = "IBAN 12"
        made.add_section()

    assert written(fill).text == "Forge Mill Trust\n\nText.\n\nIBAN 12"


def test_merged_cells_are_said_once_and_tables_within_cells_are_read() -> None:
    def fill(made: Any) -> None:
        table = made.add_table(3, 3)
        table.cell(0, 0).merge(table.cell(0, 1)).text = "wide"
        table.cell(1, 0).merge(table.cell(2, 0)).text = "high"
        table.cell(0, 2).text = "c"
        table.cell(1, 1).text = "b"
        table.cell(2, 1).add_table(1, 1).cell(0, 0).text = "inner"

    assert written(fill).text == (
        "| wide |  | c |\n| --- | --- | --- |\n| high | b |  |\n|  | \\| inner \\| \\| --- \\| |  |"
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"Hello", "is damaged or not a Word document"),
        (docx("a")[:-40], "is damaged or not a Word document"),
        (zipped({"a.txt": "x"}), "is damaged or not a Word document (KeyError: "),
        (docx("a").replace(b"word/document.xml", b"word/documen_.xml"), "is damaged or not a Word"),
    ],
)
def test_what_is_no_word_document_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        document(data)
    assert str(caught.value).startswith(reason)


def test_comments_are_read_and_hidden_text_is_noted() -> None:
    made = new_document()
    paragraph = made.add_paragraph("The price is ")
    price = paragraph.add_run("5")
    made.add_comment(price, text="Agreed by phone", author="Ada")
    paragraph.add_run(" in all").font.hidden = True
    found = document(saved(made))
    assert found.text == "The price is 5[^c0] in all\n\n[^c0]: Ada: Agreed by phone"
    assert found.notes == (
        ": text that the document does not show is read as well (7 characters: 'in all')",
    )


@pytest.mark.parametrize(
    ("form", "field", "is_shown"),
    [
        ('<w:color w:val="FFFFFF"/>', "", False),
        ('<w:color w:val="FFFFFF" w:themeColor="background1"/>', "", False),
        ('<w:color w:val="FFFFFF" w:themeColor="background1" w:themeShade="80"/>', "", True),
        ('<w:sz w:val="2"/>', "", False),
        ('<w:color w:val="FFFFFF"/><w:shd w:fill="FFFFFF"/>', "", False),
        ('<w:color w:val="FFFFFF"/><w:shd w:fill="003366"/>', "", True),
        ('<w:color w:val="FFFFFF"/><w:highlight w:val="blue"/>', "", True),
        ('<w:color w:val="FFFFFF"/>', '<w:shd w:fill="003366"/>', True),
        ('<w:color w:val="CCCCCC"/>', "", True),
    ],
)
def test_white_and_tiny_text_is_noted(form: str, field: str, is_shown: bool) -> None:
    run = f"<w:r><w:rPr>{form}</w:rPr><w:t>Pay twice</w:t></w:r>"
    xml = f"<w:p {W}><w:pPr>{field}</w:pPr>{run}</w:p>"
    found = written(lambda made: within(made, xml))
    note = ": text that the document does not show is read as well (9 characters: 'Pay twice')"
    assert (found.text, found.notes) == ("Pay twice", () if is_shown else (note,))


ALTERNATIVE = "http://schemas.openxmlformats.org/markup-compatibility/2006"


def test_what_stands_for_a_table_or_a_picture_and_text_of_a_fallback_alone_are_read() -> None:
    table = (
        f"<w:tbl {W}><w:tblPr><w:tblCaption w:val='Prices'/>"
        "<w:tblDescription w:val='of 2024'/></w:tblPr><w:tr><w:tc><w:p/></w:tc></w:tr></w:tbl>"
    )
    assert written(lambda made: within(made, table)).text.startswith("Prices of 2024")
    fallback = (
        f"<w:p {W}><w:r><mc:AlternateContent xmlns:mc='{ALTERNATIVE}'><mc:Fallback>"
        "<w:t>Pay twice</w:t></mc:Fallback></mc:AlternateContent></w:r></w:p>"
    )
    assert written(lambda made: within(made, fallback)).text == "Pay twice"


def test_text_of_a_cell_that_is_merged_with_the_one_above_is_noted() -> None:
    rows = (
        f"<w:tr><w:tc><w:tcPr><w:vMerge{how}/></w:tcPr><w:p><w:r><w:t>{text}</w:t></w:r></w:p>"
        "</w:tc></w:tr>"
        for how, text in ((" w:val='restart'", "Pay"), ("", "twice"))
    )
    found = written(lambda made: within(made, f"<w:tbl {W}>{''.join(rows)}</w:tbl>"))
    assert found.text == "| Pay |\n| --- |\n| twice |"
    assert found.notes == (
        ": text that the document does not show is read as well (5 characters: 'twice')",
    )
