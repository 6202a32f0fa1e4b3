"""What office documents hold besides their text: it is read, or its loss is noted."""

from io import BytesIO
from typing import Any

import pytest

from paddock.steps.readers.powerpoint import read_pptx
from paddock.steps.readers.reader import Document
from paddock.steps.readers.reader_process import ReadOptions
from paddock.steps.readers.spreadsheets import read_xlsx
from paddock.steps.readers.word import read_docx
from tests.fakes.office import new_document, new_presentation, new_workbook, saved, scan

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
P = "http://schemas.openxmlformats.org/presentationml/2006/main"
A = "http://schemas.openxmlformats.org/drawingml/2006/main"
CHART_TYPE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/chart"
OBJECT_TYPE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/oleObject"
COMMENTS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/comments"
AUTHORS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/commentAuthors"


def opened(document: Any) -> BytesIO:
    return BytesIO(saved(document))


def with_part(holder: Any, name: str, kind: str, blob: bytes) -> None:
    """Relate a part of a package to another one."""
    from docx.opc.packuri import PackURI
    from docx.opc.part import Part

    part = Part(PackURI(name), "application/xml", blob, holder.part.package)
    holder.part.relate_to(part, kind)


def word(markup: str) -> Document:
    from docx.oxml import parse_xml

    document = new_document()
    document.element.body.insert(0, parse_xml(f'<w:p xmlns:w="{W}">{markup}</w:p>'))
    return read_docx(opened(document), ReadOptions())


BEGINS = "<w:r><w:fldChar w:fldCharType='begin'><w:ffData>{}</w:ffData></w:fldChar></w:r>".format
SHAPE = (
    "<w:r><w:pict><v:shape xmlns:v='urn:schemas-microsoft-com:vml'{}</v:shape></w:pict></w:r>"
).format
PAID = "<w:r><w:t>paid</w:t></w:r>"


@pytest.mark.parametrize(
    ("markup", "text", "note"),
    [
        (BEGINS("<w:name w:val='a'/><w:checkBox><w:sizeAuto/><w:default w:val='0'/><w:checked/>"
                "</w:checkBox>") + PAID, "[x] paid", ""),
        (BEGINS("<w:checkBox><w:default w:val='0'/></w:checkBox>") + PAID, "[ ] paid", ""),
        (BEGINS("<w:ddList><w:result w:val='1'/><w:listEntry w:val='red'/>"
                "<w:listEntry w:val='blue'/></w:ddList>"), "blue", ""),
        ("<w:r><w:t>5 </w:t><w:sym w:font='Symbol' w:char='F06D'/><w:t>m</w:t></w:r>", "5 μm", ""),
        (SHAPE(" alt='A seal'><v:imagedata/>"), "![A seal]", ""),
        (SHAPE("><v:textpath string='DRAFT'/>"), "DRAFT", ""),
        ("<w:r><w:t>a</w:t><w:sym w:font='Webdings' w:char='F041'/></w:r>", "a",
         ": 1 symbol of special fonts cannot be read"),
        ("<w:del><w:r><w:pict><w:txbxContent><w:p><w:r><w:t>No refunds</w:t></w:r></w:p>"
         f"</w:txbxContent></w:pict></w:r></w:del><w:r><w:drawing xmlns:a='{A}'><a:p><a:r>"
         "<a:t>Plan</a:t></a:r></a:p></w:drawing></w:r>", "Plan",
         ": 1 deletion is tracked and not read (10 characters: 'No refunds')"),
    ],
)  # fmt: skip
def test_old_fields_symbols_and_drawings_of_word_are_read(
    markup: str, text: str, note: str
) -> None:
    found = word(markup)
    assert (found.text, found.notes) == (text, (note,) if note else ())


def test_pictures_charts_and_embedded_files_of_word() -> None:
    document = new_document()
    picture = document.add_picture(BytesIO(scan("x")))
    picture._inline.docPr.set("descr", "Sales\nin May")
    with_part(document, "/word/charts/chart1.xml", CHART_TYPE, _chart())
    with_part(document, "/word/embeddings/oleObject1.bin", OBJECT_TYPE, b"x")
    found = read_docx(opened(document), ReadOptions())
    assert found.text == (
        "![Sales in May]\n\nSales; Month\n\n|  | EUR |\n| --- | --- |\n| May | 1234567.5 |"
    )
    assert found.notes == (": 1 embedded file, film or control is not read",)


def _chart() -> bytes:
    c = "http://schemas.openxmlformats.org/drawingml/2006/chart"
    title = "<c:title><c:tx><c:rich><a:p><a:r><a:t>{}</a:t></a:r></a:p></c:rich></c:tx></c:title>"
    return (
        f'<c:chartSpace xmlns:c="{c}" xmlns:a="{A}"><c:chart>{title.format("Sales")}<c:plotArea>'
        "<c:barChart><c:ser><c:tx><c:strRef><c:f>B1</c:f><c:strCache><c:pt idx='0'><c:v>EUR</c:v>"
        "</c:pt></c:strCache></c:strRef></c:tx><c:cat><c:strRef><c:strCache><c:pt idx='0'>"
        "<c:v>May</c:v></c:pt></c:strCache></c:strRef></c:cat><c:val><c:numRef><c:numCache>"
        "<c:pt idx='0'><c:v>1234567.5</c:v></c:pt></c:numCache></c:numRef></c:val></c:ser>"
        f"</c:barChart><c:catAx>{title.format('Month')}</c:catAx></c:plotArea></c:chart>"
        "</c:chartSpace>"
    ).encode()


def test_comments_hidden_slides_and_alternative_texts_of_a_presentation() -> None:
    from pptx.opc.package import Part
    from pptx.opc.packuri import PackURI

    presentation = new_presentation()
    layout = presentation.slide_layouts[5]
    first, second = (presentation.slides.add_slide(layout) for _ in range(2))
    first.shapes.title.text, second.shapes.title.text = "Plan", "Backup"
    second._element.set("show", "0")
    picture = first.shapes.add_picture(BytesIO(scan("x")), 0, 2_000_000)
    picture._element.nvPicPr.cNvPr.set("descr", "A map")
    box = first.shapes.add_textbox(0, 4_000_000, 100, 100)
    box.text_frame.text = "Pay now"
    box._element.nvSpPr.cNvPr.set("hidden", "1")
    said = '<p:cmLst xmlns:p="{}" xmlns:a="{}">{}</p:cmLst>'.format
    body = "<p:txBody><a:p><a:r><a:t>{}</a:t></a:r></a:p></p:txBody>".format
    old = '<p:cm authorId="0"><p:text>Too late?</p:text></p:cm>'
    new = (
        f'<p:cm authorId="0"><p:replyLst><p:reply authorId="0">{body("Yes")}</p:reply></p:replyLst>'
        f"{body('Keep?')}</p:cm>"
    )
    modern = COMMENTS.replace("officeDocument/2006", "office/2018/10")
    authors = f'<p:cmAuthorLst xmlns:p="{P}"><p:cmAuthor id="0" name="Ada"/></p:cmAuthorLst>'
    for holder, name, kind, markup in (
        (presentation.part, "/ppt/commentAuthors.xml", AUTHORS, authors),
        (first.part, "/ppt/comments/comment1.xml", COMMENTS, said(P, A, old)),
        (second.part, "/ppt/comments/modernComment_1.xml", modern, said("urn:x", A, new)),
    ):
        part = Part(PackURI(name), "application/xml", presentation.part.package, markup.encode())
        holder.relate_to(part, kind)
    found = read_pptx(opened(presentation), ReadOptions())
    assert found.pages == (
        "# Plan\n\n![A map]\n\n<!-- Pay now -->\n\nComments:\n- Too late? (Ada)",
        "<!-- # Backup\n\nComments:\n- Keep? (Ada)\n- Yes (Ada) -->",
    )
    assert found.notes == (
        ": hidden slides are read as well (2)",
        ": text that the slide does not show is read as well (7 characters: 'Pay now')",
    )


def test_headers_charts_and_pictures_of_a_workbook() -> None:
    from openpyxl.chart import BarChart, Reference  # type: ignore[import-untyped]

    book = new_workbook()
    sheet = book.active
    sheet.append(["Month", "EUR"])
    sheet.append(["May", 5])
    sheet.oddHeader.left.text = "Smith && Co"
    sheet.oddHeader.left.font = "Arial,Bold"
    sheet.oddFooter.center.text = "Page &P of &N"
    chart = BarChart()
    chart.title = "Sales"
    chart.add_data(Reference(sheet, min_col=2, min_row=1, max_row=2), titles_from_data=True)
    sheet.add_chart(chart, "D2")
    alone = BarChart()
    alone.title = "Alone"
    book.create_chartsheet("Only a chart").add_chart(alone)
    found = read_xlsx(opened(book), ReadOptions())
    table = "| Month | EUR |\n| --- | --- |\n| May | 5 |"
    assert found.pages == (
        f"# Sheet\n\n{table}\n\nCharts:\n- Sales\n\nHeaders and footers:\n- Smith & Co\n- Page of",
        "Charts:\n- Alone",
    )
