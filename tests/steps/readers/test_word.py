from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from typing import Any
from zipfile import ZipFile

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
    assert document(docx("# Heading", title="Offer 17")).title == "Offer 17"


MC = 'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
BOX = "<w:txbxContent><w:p><w:r><w:t>In a box</w:t></w:r></w:p></w:txbxContent>"


def cell(text: str, form: str = "") -> str:
    return f"<w:tc><w:tcPr>{form}</w:tcPr><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:tc>"


def rows(*cells: str) -> str:
    return "".join(f"<w:tr>{row}</w:tr>" for row in cells)


WIDE = rows(
    cell("a") + cell("b") + cell("c"),
    "<w:trPr><w:gridBefore w:val='1'/></w:trPr>" + cell("d") + cell("e"),
    cell("f", "<w:gridSpan w:val='2'/>") + cell("g"),
    "<w:trPr><w:del/></w:trPr>" + cell("gone"),
    "<w:trPr><w:gridBefore w:val='2'/><w:gridAfter w:val='9'/></w:trPr>" + cell("h"),
    cell("i", "<w:gridSpan w:val='999999999'/>"),
)
GONE = rows(
    "<w:trPr><w:hidden/></w:trPr>" + cell("Rope") + cell("40"),
    cell("Oil") + cell("55", "<w:cellDel/>"),
)
MERGED = rows(cell("Pay", "<w:vMerge w:val='restart'/>"), cell("twice", "<w:vMerge/>"))


@pytest.mark.parametrize(
    ("xml", "text", "notes"),
    [
        ("<w:p {}><w:r><w:t>Pay </w:t></w:r><w:del><w:r><w:delText>ten</w:delText></w:r></w:del>"
         "<w:ins><w:r><w:t>twenty</w:t></w:r></w:ins><w:r><w:tab/><w:t>euros</w:t></w:r></w:p>",
         "Pay twenty\teuros", (": 1 deletion is tracked and not read (3 characters: 'ten')",
                               ": 1 insertion is tracked and read as text")),
        ("<w:p {}><w:r><w:instrText> LISTNUM  \\\\l 1 </w:instrText></w:r><w:fldSimple "
         "w:instr=' AUTONUMLGL '><w:r><w:t>the tenant</w:t></w:r></w:fldSimple></w:p>",
         "the tenant", (": 2 numbers of fields (LISTNUM, AUTONUM) not read",)),
        (f"<w:sdt {{}}><w:sdtContent><w:p><w:r><w:t>Name: Ada</w:t></w:r><w:r><mc:AlternateContent>"
         f"<mc:Choice Requires='wps'>{BOX}</mc:Choice><mc:Fallback>{BOX}</mc:Fallback>"
         "</mc:AlternateContent></w:r></w:p></w:sdtContent></w:sdt>", "Name: Ada\n\nIn a box", ()),
        ("<w:p {}><w:r><mc:AlternateContent><mc:Fallback><w:t>Pay twice</w:t></mc:Fallback>"
         "</mc:AlternateContent></w:r></w:p>", "Pay twice", ()),
        ("<w:tbl {}><w:tblPr><w:tblCaption w:val='Prices'/><w:tblDescription w:val='of 2024'/>"
         f"</w:tblPr>{rows(cell('Rope'))}</w:tbl>",
         "Prices of 2024\n\n| Rope |\n| --- |", ()),
        (f"<w:tbl {{}}>{MERGED}</w:tbl>", "| Pay |\n| --- |\n| <!-- twice --> |",
         (": text that the document does not show is read as well (5 characters: 'twice')",)),
        (f"<w:tbl {{}}>{GONE}</w:tbl>",
         "| <!-- Rope --> | <!-- 40 --> |\n| --- | --- |\n| Oil |  |",
         (": text that the document does not show is read as well (6 characters: 'Rope 40')",
          ": 1 deletion is tracked and not read (2 characters: '55')")),
        ("<w:p {}><w:r><w:ruby><w:rt><w:r><w:t>toukyou</w:t></w:r></w:rt><w:rubyBase><w:r><w:t>東京"
         "</w:t></w:r></w:rubyBase></w:ruby></w:r><w:r><w:t>港</w:t></w:r></w:p>",
         "東京(toukyou)港", ()),
        (f"<w:tbl {{}}>{WIDE}</w:tbl>",
         "| a | b | c |\n| --- | --- | --- |\n|  | d | e |\n| f |  | g |\n|  |  | h |\n| i |  |  |",
         (": 1 deletion is tracked and not read (4 characters: 'gone')",)),
    ],
)  # fmt: skip
def test_what_a_document_shows_is_read_once_and_what_is_not_read_is_noted(
    xml: str, text: str, notes: tuple[str, ...]
) -> None:
    found = written(lambda made: within(made, xml.format(f"{W} {MC}")))
    assert (found.text, found.notes) == (text, notes)


def test_headers_and_footers_are_read_once() -> None:
    def fill(made: Any) -> None:
        made.add_paragraph("Text.")
        made.sections[0].header.paragraphs[0].text = "Forge Mill Trust"
        made.sections[0].footer.paragraphs[0].text = "IBAN 12"
        made.add_section()

    assert written(fill).text == "Forge Mill Trust\n\nText.\n\nIBAN 12"


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


@pytest.mark.parametrize("declared", [b"", b'<!DOCTYPE w:document [<!ENTITY due "12">]>'])
def test_an_entity_is_damage_that_is_noted_and_takes_no_text_away(declared: bytes) -> None:
    """The format forbids them; the library leaves them out, with what is behind."""
    made = BytesIO()
    with ZipFile(BytesIO(docx("Due DUE EUR"))) as archive, ZipFile(made, "w") as out:
        for name in archive.namelist():
            data = archive.read(name)
            if name == "word/document.xml":
                end = data.index(b"?>") + 2
                data = data[:end] + declared + data[end:].replace(b"DUE", b"&due;")
            out.writestr(name, data)
    found = document(made.getvalue())
    assert found.text == "Due &due; EUR"
    assert found.notes == (
        ": 1 part is missing or damaged (word/document.xml); what is there is read",
    )


SHAPES = (
    'xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing" '
    'xmlns:v="urn:schemas-microsoft-com:vml" '
    'xmlns:w14="http://schemas.microsoft.com/office/word/2010/wordml"'
)


@pytest.mark.parametrize(
    "shape",
    [
        f"<w:drawing><wp:anchor hidden='1'>{BOX}</wp:anchor></w:drawing>",
        f"<w:drawing><wp:inline><wp:docPr hidden='true'/>{BOX}</wp:inline></w:drawing>",
        f"<w:pict><v:shape style='width:9pt;visibility:hidden'><v:textbox>{BOX}</v:textbox>"
        "</v:shape></w:pict>",
        "<w:rPr><w14:textFill><w14:noFill/></w14:textFill></w:rPr><w:t>In a box</w:t>",
    ],
)
def test_hidden_shapes_and_clear_letters_are_noted(shape: str) -> None:
    xml = f"<w:p {W} {SHAPES}><w:r>{shape}</w:r></w:p>"
    found = written(lambda made: within(made, xml))
    assert found.text == "<!-- In a box -->"
    assert len(found.notes) == 1


def test_comments_are_read_and_hidden_text_is_noted() -> None:
    made = new_document()
    paragraph = made.add_paragraph("The price is ")
    price = paragraph.add_run("5")
    comment = made.add_comment(price, text="Agreed by phone", author="Ada")
    comment._comment_elm.date = datetime(2026, 3, 1, 12, tzinfo=UTC)
    paragraph.add_run(" in all").font.hidden = True
    found = document(saved(made))
    assert (
        found.text
        == "The price is 5[^c0] <!-- in all -->\n\n[^c0]: Ada 2026-03-01: Agreed by phone"
    )
    assert found.notes == (
        ": text that the document does not show is read as well (6 characters: 'in all')",
    )


@pytest.mark.parametrize(
    ("form", "field", "is_shown"),
    [
        ('<w:color w:val="FFFFFF"/>', "", False),
        ('<w:color w:val="FFFFFF" w:themeColor="background1" w:themeShade="80"/>', "", True),
        ('<w:sz w:val="2"/>', "", False),
        ('<w:color w:val="FFFFFF"/><w:shd w:fill="FFFFFF"/>', "", False),
        ('<w:color w:val="FFFFFF"/><w:shd w:fill="003366"/>', "", True),
        ('<w:color w:val="FFFFFF"/>', '<w:shd w:fill="003366"/>', True),
    ],
)
def test_white_and_tiny_text_is_noted(form: str, field: str, is_shown: bool) -> None:
    run = f"<w:r><w:rPr>{form}</w:rPr><w:t>Pay twice</w:t></w:r>"
    xml = f"<w:p {W}><w:pPr>{field}</w:pPr>{run}</w:p>"
    found = written(lambda made: within(made, xml))
    note = ": text that the document does not show is read as well (9 characters: 'Pay twice')"
    assert (found.text, found.notes) == (
        ("Pay twice", ()) if is_shown else ("<!-- Pay twice -->", (note,))
    )


def run(text: str, form: str = "") -> str:
    return f"<w:r><w:rPr>{form}</w:rPr><w:t xml:space='preserve'>{text}</w:t></w:r>"


RAISED, LOWERED = (f"<w:vertAlign w:val='{how}script'/>" for how in ("super", "sub"))


@pytest.mark.parametrize(
    ("runs", "text"),
    [
        (run("10") + run("6", RAISED) + run(" bees"), "10^6 bees"),
        (run("x") + run("n", RAISED) + run("+1", RAISED) + run("y"), "x^(n+1)y"),
        (run("H") + run("2", LOWERED) + run("O"), "H_2O"),
        (run("10") + run("6", "<w:position w:val='6'/>"), "10^6"),
        (run("10") + run("6", "<w:position w:val='2'/>"), "106"),
        (run("1") + run("st", RAISED), "1st"),
        (run("40 ", "<w:strike/>") + run("45"), "~~40~~ 45"),
        (run("10", "<w:strike/>") + run("6", f"<w:strike/>{RAISED}"), "~~10^6~~"),
        (run("2^3 ~~ [^1] "), r"2\^3 \~~ [\^1]"),
        (
            run("3") + "<m:oMath xmlns:m='http://schemas.openxmlformats.org/officeDocument/2006/"
            "math'><m:f><m:num><m:r><m:t>3</m:t></m:r></m:num><m:den><m:ins/><m:r><m:t>4</m:t>"
            "</m:r></m:den></m:f></m:oMath>",
            "3 3/4",
        ),
    ],
)  # fmt: skip
def test_what_the_look_of_a_run_means_is_marked(runs: str, text: str) -> None:
    assert written(lambda made: within(made, f"<w:p {W}>{runs}</w:p>")).text == text


def styled(made: Any, *styles: str) -> None:
    from docx.oxml import parse_xml

    for style in styles:
        made.styles.element.append(parse_xml(style.replace("<w:style ", f"<w:style {W} ", 1)))


def style(name: str, form: str, based_on: str = "", kind: str = "paragraph") -> str:
    return (
        f"<w:style w:type='{kind}' w:styleId='{name}'><w:name w:val='{name}'/>"
        f"<w:basedOn w:val='{based_on}'/>{form}</w:style>"
    )


def test_styles_raise_strike_and_hide_by_inheritance_and_a_circle_of_them_ends() -> None:
    def fill(made: Any) -> None:
        styled(
            made,
            style("Power", f"<w:rPr>{RAISED}</w:rPr>", "Circle", "character"),
            style("Circle", "", "Power", "character"),
            style("Gone", "<w:rPr><w:strike/></w:rPr>"),
            style("Old", "", "Gone"),
            style("Back", "<w:rPr><w:strike/></w:rPr>", "", "character"),
            style("Secret", "<w:rPr><w:vanish/></w:rPr>"),
        )
        power = run("6", "<w:rStyle w:val='Circle'/>")
        within(made, f"<w:p {W}>{run('10')}{power}</w:p>")
        old = "<w:pPr><w:pStyle w:val='Old'/></w:pPr>"
        back = run(" 45", "<w:rStyle w:val='Back'/>")  # a switch that both have is off
        within(made, f"<w:p {W}>{old}{run('40')}{back}</w:p>")
        within(made, f"<w:p {W}><w:pPr><w:pStyle w:val='Secret'/></w:pPr>{run('Pay')}</w:p>")

    assert written(fill).text == "<!-- Pay -->\n\n~~40~~ 45\n\n10^6"


NOTES = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"


def test_footnotes_have_the_marks_that_the_page_shows() -> None:
    from docx.opc.packuri import PackURI
    from docx.opc.part import Part

    def fill(made: Any) -> None:
        notes = "".join(
            f"<w:footnote w:id='{n}'><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:footnote>"
            for n, text in ((2, "net"), (5, "own"), (7, "gone"))
        )
        notes += notes.replace("<w:footnote ", "<w:footnote w:type='continuationNotice' ")
        part = Part(
            PackURI("/word/footnotes.xml"),
            "application/xml",
            f"<w:footnotes {W}>{notes}</w:footnotes>".encode(),
            made.part.package,
        )
        made.part.relate_to(part, NOTES)
        mark = (
            f"<w:r><w:rPr>{RAISED}</w:rPr><w:footnoteReference w:id='{{}}'{{}}/>{{}}</w:r>".format
        )
        custom = mark(5, " w:customMarkFollows='1'", "<w:t>†</w:t>")
        gone = f"<w:del>{mark(7, '', '')}</w:del>"
        within(made, f"<w:p {W}>{run('40')}{mark(2, '', '')}{run(' 50')}{custom}{gone}</w:p>")

    assert written(fill).text == "40[^1] 50[^†]\n\n[^1]: net\n\n[^†]: own\n\n<!-- gone -->"


def test_a_table_that_frames_others_is_read_as_blocks() -> None:
    def fill(made: Any) -> None:
        inner = made.add_table(1, 1).cell(0, 0).add_table(2, 2)
        for index, text in enumerate(("Item", "Price", "Slates", "5")):
            inner.cell(index // 2, index % 2).text = text

    assert written(fill).text == "| Item | Price |\n| --- | --- |\n| Slates | 5 |"


CHUNK = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/aFChunk"


@pytest.mark.parametrize(
    ("name", "content_type", "data", "text", "n_unread"),
    [
        ("a.html", "text/html", b"<p>10<sup>6</sup></p>", "10^6", 0),
        ("a.txt", "text/plain", b"Pay", "Pay", 0),
        ("a.docx",
         "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml",
         docx("Pay"), "Pay", 0),
        ("a.zip", "application/zip", b"PK\x03\x04", "", 1),
    ],
)  # fmt: skip
def test_a_document_within_is_read_in_its_place(
    name: str, content_type: str, data: bytes, text: str, n_unread: int
) -> None:
    from docx.opc.packuri import PackURI
    from docx.opc.part import Part

    def fill(made: Any) -> None:
        part = Part(PackURI(f"/word/{name}"), content_type, data, made.part.package)
        relation = made.part.relate_to(part, CHUNK)
        ns = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
        for _ in range(2):  # each is read once
            within(made, f"<w:altChunk {W} xmlns:r='{ns}' r:id='{relation}'/>")
        made.add_paragraph("End")

    found = written(fill)
    assert found.text == (f"{text}\n\nEnd" if text else "End")
    unread = (": 1 embedded file, film or control is not read",)
    assert found.notes == (unread if n_unread else ())
