"""Kinds beyond those of the extra `documents`: OpenDocument, mails in files, and kreuzberg's.

Files in `data`: msg_with_attachment.msg of docling (MIT); chinese-provinces.xls and page-break.doc
of Apache POI (Apache-2.0); times-by-xlwt.xls and ksef-fa3.xml are made for these tests.
"""

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from io import BytesIO
from pathlib import Path

import pytest

from paddock.steps.readers import reader
from paddock.steps.readers.reader import Document, Unreadable
from paddock.steps.readers.reader_pool import DocumentRequest, ReaderLimits, ReaderPool
from paddock.steps.readers.reader_process import ReadOptions, read_document
from tests.fakes.office import docx, eml, scan
from tests.waiting import PATIENCE_S

Placed = Callable[[str, bytes], Path]
DATA = Path(__file__).resolve().parent / "data"
MIB = 1024**2
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
NAMES = ["office", "text", "table", "style", "draw", "presentation", "fo", "xlink", "svg"]
SPACES = " ".join(f'xmlns:{name}="urn:{name}"' for name in NAMES)
STYLES = """<office:automatic-styles>
<style:style style:name="up"><style:text-properties style:text-position="super 58%"/></style:style>
<style:style style:name="down"><style:text-properties style:text-position="-33% 58%"/></style:style>
<style:style style:name="out"><style:text-properties style:text-line-through-style="solid"/>
</style:style>
<style:style style:name="gone"><style:text-properties text:display="none"/></style:style>
<style:style style:name="tiny"><style:text-properties fo:font-size="1pt"/></style:style>
<text:list-style style:name="L"><text:list-level-style-number text:level="1"
 style:num-format="1" style:num-suffix="."/><text:list-level-style-number text:level="2"
 style:num-format="a" style:num-prefix="(" style:num-suffix=")"/><text:list-level-style-number
 text:level="3" style:num-format="1" text:display-levels="3"/></text:list-style>
</office:automatic-styles>"""


BY_KREUZBERG = ": read by kreuzberg, without places"
UNTOLD = (
    ": hidden, deleted or struck text, comments, footnotes, margins, text boxes, pictures and "
    "automatic numbers may be missing or stand as plain text"
)


def read(path: Path, *, ocr: bool = False) -> Document:
    return read_document(path, ReadOptions(ocr=ocr), 64 * MIB)


def refusal(path: Path) -> str:
    with pytest.raises(Unreadable) as caught:
        read(path)
    return f"{caught.value}. {caught.value.remedy}".strip()


def open_document(kind: str, body: str, more: Mapping[str, str | bytes] | None = None) -> bytes:
    content = (
        f"<office:document-content {SPACES}>{STYLES}<office:body><office:{kind}>{body}"
        f"</office:{kind}></office:body></office:document-content>"
    )
    made = BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("mimetype", f"application/vnd.oasis.opendocument.{kind}")  # as it is
        for name, data in {"content.xml": content, **(more or {})}.items():
            archive.writestr(name, data, zipfile.ZIP_DEFLATED)
    return made.getvalue()


def test_an_opendocument_text_keeps_headings_numbers_and_what_its_layout_means(
    placed: Placed,
) -> None:
    item = "<text:list-item><text:p>{}</text:p></text:list-item>"
    body = (
        '<text:h text:outline-level="2">Fees</text:h>'
        '<text:p>10<text:span text:style-name="up">6</text:span> H'
        '<text:span text:style-name="down">2</text:span>O<text:s text:c="2"/>now '
        '<text:span text:style-name="out">40</text:span> '
        '<text:span text:style-name="gone">sec</text:span>'
        '<text:span text:style-name="tiny">ret</text:span></text:p>'
        f'<text:list text:style-name="L">{item.format("rent")}{item.format("heating")}</text:list>'
        "<text:p>between</text:p>"
        f'<text:list text:style-name="L" text:continue-numbering="true">{item.format("water")}'
        "</text:list>"
    )
    found = read(placed("a.odt", open_document("text", body)))
    assert "## Fees" in found.text
    assert "10^6 H_2O" in found.text
    assert "~~40~~" in found.text
    assert "1. rent\n2. heating" in found.text
    assert "3. water" in found.text
    [note] = found.notes
    assert "does not show" in note
    assert "sec ret" in note


def test_notes_and_deletions_of_an_opendocument_text(placed: Placed) -> None:
    body = (
        "<text:tracked-changes><text:changed-region><text:deletion><text:p>old</text:p>"
        "</text:deletion></text:changed-region></text:tracked-changes>"
        "<text:p>fee<text:note><text:note-citation>1</text:note-citation><text:note-body>"
        "<text:p>without tax</text:p></text:note-body></text:note> now</text:p>"
    )
    found = read(placed("a.odt", open_document("text", body)))
    assert "old" not in found.text
    assert found.text.splitlines()[0].startswith("fee[")
    assert found.text.endswith(": without tax")
    assert found.notes == (": 1 deletion not read",)


def test_numbers_of_lists_and_headings_of_an_opendocument_text_are_those_that_it_shows(
    placed: Placed,
) -> None:
    def items(*texts: str, more: str = "") -> str:
        made = "".join(
            f"<text:list-item>{x if '<' in x else f'<text:p>{x}</text:p>'}</text:list-item>"
            for x in texts
        )
        return (
            f"<text:list {more or 'text:style-name=' + chr(34) + 'L' + chr(34)}>{made}</text:list>"
        )

    def heading(level: int, text: str, more: str = "") -> str:
        return f'<text:h text:outline-level="{level}" {more}>{text}</text:h>'

    inner = "<text:p>b</text:p>" + items(
        "ba", f"<text:p>bb</text:p>{items('bba', more=' ')}", more=" "
    )
    started = '<text:list-item text:start-value="7"><text:p>g</text:p></text:list-item>'
    body = (
        f"{heading(1, 'Parties')}{heading(1, 'Fees')}{heading(2, 'Rent')}"
        f"{heading(2, 'Preface', 'text:is-list-header=' + chr(34) + 'true' + chr(34))}"
        f"{items('a', inner, 'c')}<text:list text:style-name='L'>{started}</text:list>"
        f"{items(heading(3, 'Terms'))}"
    )
    outline = (
        '<text:outline-style><text:outline-level-style text:level="1" style:num-format="I"/>'
        '<text:outline-level-style text:level="2" style:num-format="1" text:display-levels="2"'
        ' style:num-suffix=")"/></text:outline-style>'
    )
    styles = f"<office:document-styles {SPACES}>{outline}</office:document-styles>"
    found = read(placed("a.odt", open_document("text", body, {"styles.xml": styles})))
    assert [line.strip() for line in found.text.splitlines() if line] == [
        *("# I Parties", "# II Fees", "## II.1) Rent", "## Preface"),
        *("1. a", "2. b", "(a) ba", "(b) bb", "2.b.1 bba", "3. c", "7. g", "### 1. Terms"),
    ]


def test_pictures_formulas_and_margins_of_an_opendocument_text(placed: Placed) -> None:
    formula = (
        '<math xmlns="http://www.w3.org/1998/Math/MathML"><semantics><mfrac><mi>a</mi><mn>2</mn>'
        "</mfrac><annotation>a over 2</annotation></semantics></math>"
    )
    body = (
        '<text:p>x = <draw:frame><draw:object xlink:href="./Object 1"/><draw:image '
        'xlink:href="./ObjectReplacements/Object 1"/></draw:frame></text:p><draw:frame><draw:image '
        'xlink:href="Pictures/bill.png"/></draw:frame><draw:object xlink:href="./Object 2"/>'
        '<draw:object-ole xlink:href="./Object 3"/>'
        "<text:tracked-changes><text:insertion/></text:tracked-changes>"
    )
    margin = "<style:{0}><text:p>{1}</text:p></style:{0}>"
    margins = "".join(
        margin.format(*pair)
        for pair in (("header", "Mill Ltd"), ("header-first", "Mill Ltd"), ("footer", "IBAN 12"))
    )
    page_number = "<style:footer-left><text:p>2</text:p></style:footer-left>"
    styles = (
        f"<office:document-styles {SPACES}><office:master-styles><style:master-page>{margins}"
        f"{page_number}</style:master-page></office:master-styles></office:document-styles>"
    )
    more = {
        "styles.xml": styles,
        "Object 1/content.xml": formula,
        "Object 2/content.xml": "<chart/>",
    }
    made = open_document("text", body, {**more, "Pictures/bill.png": scan("", size=(500, 120))})
    found = read(placed("a.odt", made))
    assert found.text == "Mill Ltd\n\nx = a/2\n\nIBAN 12"
    assert found.notes == (
        ": 2 embedded objects not read",
        ": 1 insertion read as text",
        ": 1 picture in it not read, and `ocr` is off",
    )


RUBY = (
    "<text:ruby><text:ruby-base>Rent</text:ruby-base><text:ruby-text>how</text:ruby-text>"
    "</text:ruby>"
)


def test_sheets_of_an_opendocument_file_are_pages_and_cells_keep_their_columns(
    placed: Placed,
) -> None:
    def cell(text: str, more: str = "") -> str:
        return f"<table:table-cell {more}><text:p>{text}</text:p></table:table-cell>"

    rows = (
        f"<table:table-row>{cell('Item')}{cell('Note')}{cell('Fee')}</table:table-row>"
        f'<table:table-row>{cell(RUBY)}<table:table-cell table:number-columns-repeated="1"/>'
        f'{cell("40")}<table:table-cell table:number-columns-repeated="16000"/></table:table-row>'
        '<table:table-row table:number-rows-repeated="1048000"><table:table-cell/>'
        "</table:table-row>"
    )
    body = f'<table:table table:name="One">{rows}</table:table><table:table table:name="Two"/>'
    found = read(placed("a.ods", open_document("spreadsheet", body)))
    assert found.pages[0] == (
        "# One\n\n| Item | Note | Fee |\n| --- | --- | --- |\n| Rent(how) |  | 40 |"
    )
    assert found.pages[1] == ""


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('<text:section text:display="none"><text:p>Pay</text:p></text:section>', "<!-- Pay -->"),
        ('<text:section text:display="condition" text:condition="x" text:is-hidden="true">'
         "<text:p>Pay</text:p></text:section>", "<!-- Pay -->"),
        ('<text:section text:display="condition" text:condition="x" text:is-hidden="false">'
         "<text:p>Pay</text:p></text:section>", "Pay"),
        ('<text:p><text:hidden-paragraph text:condition="x" text:is-hidden="true"/>Pay</text:p>',
         "<!-- Pay -->"),
        ('<text:p>a <text:hidden-text text:condition="x" text:is-hidden="true" '
         'text:string-value="Pay"/></text:p>', "a <!-- Pay -->"),
        ('<text:p>a <text:variable-set text:display="none">Pay</text:variable-set></text:p>',
         "a <!-- Pay -->"),
        ('<text:p>a <text:conditional-text text:condition="x" text:string-value-if-true="b" '
         'text:string-value-if-false="c">b</text:conditional-text></text:p>', "a b"),
        ('<table:table><table:table-column/><table:table-column table:visibility="collapse"/>'
         "<table:table-row><table:table-cell><text:p>a</text:p></table:table-cell><table:table-cell>"
         "<text:p>Pay</text:p></table:table-cell></table:table-row></table:table>",
         "| a | <!-- Pay --> |\n| --- | --- |"),
        ("<text:p>a<text:script>Pay()</text:script></text:p>", "a"),
    ],
)  # fmt: skip
def test_what_an_opendocument_text_hides_is_marked_and_noted(
    placed: Placed, body: str, text: str
) -> None:
    found = read(placed("a.odt", open_document("text", body)))
    assert found.text == text
    note = ": text that the page does not show is read as well (3 characters: 'Pay')"
    assert found.notes == ((note,) if "<!--" in text else ())


def test_a_condition_of_which_the_file_says_no_result_is_noted(placed: Placed) -> None:
    has = 'text:display="condition" text:condition="x"'
    body = f"<text:section {has}><text:p>Pay</text:p></text:section>"
    found = read(placed("a.odt", open_document("text", body)))
    assert (found.text, found.notes) == (
        "Pay",
        (": 1 text with a condition read as shown; the file does not say whether they hold",),
    )


def test_an_opendocument_file_without_a_body_is_damaged_and_not_empty(placed: Placed) -> None:
    bare = f"<office:document-content {SPACES}>{STYLES}</office:document-content>"
    made = open_document("text", "", {"content.xml": bare})
    assert "is damaged or not an OpenDocument file: it has no body" in refusal(
        placed("a.odt", made)
    )


def test_what_a_sheet_of_opendocument_hides_strikes_and_has_beside_its_cells(
    placed: Placed,
) -> None:
    """A hidden column, a filtered row, a cell under a merged one; a style's parent strikes it."""

    def cell(text: str, more: str = "", kind: str = "table-cell") -> str:
        return f"<table:{kind} {more}>{text}</table:{kind}>"

    def row(*cells: str, more: str = "") -> str:
        return f"<table:table-row {more}>{''.join(cells)}</table:table-row>"

    up = '10<text:span text:style-name="up"><text:span text:style-name="cell">6</text:span>'
    date = "<date>2026-03-01T10:30:00.5</date>"
    note = f"<creator>Ada</creator>{date}<text:p>by phone</text:p>"
    note = f"<office:annotation>{note}</office:annotation>"
    table = (
        "<table:shapes><draw:rect><text:p>Draft</text:p></draw:rect><draw:frame><draw:object "
        'xlink:href="./Object 1"/></draw:frame></table:shapes><table:table-column/>'
        '<table:table-column/><table:table-column table:visibility="collapse"/>'
        + row(*(cell(f"<text:p>{head}</text:p>") for head in ("Item", "Fee", "Cost")))
        + row(
            cell(f"{note}<text:p>{up}</text:span></text:p>"),
            cell("<text:p>12,50 €</text:p>", 'office:value-type="currency" office:value="12.5" '
                 'table:style-name="cell"'),
            cell("<text:p>50 %</text:p>", 'office:value-type="percentage" office:value="0.5"'),
        )
        + row(cell("<text:p>wide</text:p>", 'table:number-columns-spanned="2"'),
              cell("<text:p>9</text:p>", kind="covered-table-cell"),
              cell("", 'table:formula="of:=SUM([.B2])"'))
        + row(cell("<text:p>gone</text:p>"), more='table:visibility="filter"')
    )  # fmt: skip
    style = '<style:style style:name="cell" style:parent-style-name="out"/>'
    chart = "urn:oasis:names:tc:opendocument:xmlns:chart:1.0"
    more = {
        "styles.xml": f"<office:document-styles {SPACES}><office:styles>{style}</office:styles>"
        "<office:master-styles><style:master-page><style:header><text:p>Mill Ltd</text:p>"
        "</style:header></style:master-page></office:master-styles></office:document-styles>",
        "Object 1/content.xml": f"<c:chart xmlns:c='{chart}'><c:title>Rent</c:title></c:chart>",
    }
    made = open_document("spreadsheet", f'<table:table table:name="S">{table}</table:table>', more)
    found = read(placed("a.ods", made))
    assert found.text == (
        "# S\n\n| Item | Fee | <!-- Cost --> |\n| --- | --- | --- |\n"
        "| 10~~^6~~ | ~~12.5~~ | <!-- 0.5 --> |\n| wide | <!-- 9 --> | "
        "<!-- =SUM([.B2]) --> |\n| <!-- gone --> |  |  |\n\n"
        "Comments:\n- A2: Ada 2026-03-01: by phone\n\nText boxes:\n- Draft\n\nCharts:\n- Rent\n\n"
        "Headers and footers:\n- Mill Ltd"
    )
    assert found.notes == (
        ": 1 of its formulas have no stored value and are shown as they are written; open and save "
        "it in a spreadsheet program to have their values",
        ": hidden rows, columns and cells are read as well (S: 1 row, 1 group of columns, 1 cell)",
    )


def test_slides_of_an_opendocument_file_are_pages_with_words_in_tables(placed: Placed) -> None:
    listed = "<text:list><text:list-item><text:p>in a cell</text:p></text:list-item></text:list>"
    body = (
        '<draw:page draw:name="p1"><draw:frame presentation:class="title"><draw:text-box>'
        "<text:p>Plan</text:p></draw:text-box></draw:frame><draw:frame><table:table><table:table-row>"
        f"<table:table-cell>{listed}</table:table-cell></table:table-row></table:table></draw:frame>"
        "</draw:page><draw:page><draw:frame><draw:text-box><text:p>Second</text:p></draw:text-box>"
        "</draw:frame></draw:page>"
    )
    found = read(placed("a.odp", open_document("presentation", body)))
    assert found.pages[0].startswith("## Plan")
    assert "| in a cell |" in found.pages[0]
    assert found.pages[1] == "Second"


def test_an_opendocument_file_is_known_by_its_content_and_a_protected_one_says_so(
    placed: Placed,
) -> None:
    data = open_document("spreadsheet", '<table:table table:name="S"/>')
    assert read(placed("upload", data)).media_type.endswith("opendocument.spreadsheet")
    locked = {"META-INF/manifest.xml": "<manifest><encryption-data/></manifest>"}
    assert refusal(placed("a.odt", open_document("text", "", locked))) == (
        "is protected by a password. Save it without a password."
    )
    body = "<office:body><office:text><text:p>Flat</text:p></office:text></office:body>"
    flat = f"<office:document {SPACES}>{body}</office:document>"
    assert read(placed("a.fodt", flat.encode())).text == "Flat"


def test_a_fictionbook_is_read_in_its_declared_encoding(placed: Placed) -> None:
    book = (
        '<?xml version="1.0" encoding="windows-1251"?><FictionBook xmlns="urn:fb"><description>'
        "<title-info><book-title>Книга</book-title></title-info></description><body><section>"
        "<title><p>Глава 1</p></title><p>Рубли 10<sup>6</sup></p></section></body></FictionBook>"
    )
    found = read(placed("a.fb2", book.encode("cp1251")))
    assert (found.title, found.text.split("\n\n")) == ("Книга", ["## Глава 1", "Рубли 10^6"])


def test_each_mail_of_a_mailbox_is_read_with_its_attachments(placed: Placed) -> None:
    first = eml("One\nFrom here on\n", subject="First", attachments={"n.txt": b"note"})
    second = eml("Two", subject="Second")
    box = b"".join(
        b"From a@b.c Mon Jun 01 04:28:28 2009\n"
        + data.replace(b"\nFrom here", b"\n>From here")
        + b"\n\n"
        for data in (first, second)
    )
    found = read(placed("a.mbox", box))
    assert [page.partition("\n")[0] for page in found.pages] == [
        "From: Ada <ada@example.org>", "# n.txt", "From: Ada <ada@example.org>",
    ]  # fmt: skip
    assert "\nFrom here on" in found.pages[0]
    assert refusal(placed("b.mbox", b"Hello")).startswith("is damaged or not a mailbox")


HEAD = "From ann@example.org Mon Mar  2 10:00:00 2026\n"
CLOSED = "From 10:30 to 12:00 the pier is closed. The fee is 45 euro.\n"
QUOTED = f"{HEAD}is how the quoted line looked.\n"
WITHIN = f"{HEAD}Subject: Within\n\nA mail that is quoted.\n"


def in_mbox(body: str, head: str = HEAD, *, n_bytes: int = -1) -> str:
    length = f"Content-Length: {n_bytes}\n" if n_bytes >= 0 else ""
    return f"{head}Subject: Fees\n{length}\n{body.rstrip()}\n\n"


@pytest.mark.parametrize(
    ("box", "n_mails", "note"),
    [
        (in_mbox(CLOSED), 1, ""),
        (in_mbox(QUOTED), 1, ""),
        (in_mbox(QUOTED, n_bytes=len(QUOTED)), 1, ""),
        (in_mbox(WITHIN, n_bytes=len(WITHIN)), 1, ""),
        (in_mbox(WITHIN, n_bytes=len(WITHIN) - 9), 2, "1 mail begins without an empty line"),
        (in_mbox(WITHIN, n_bytes=10**9), 2, "1 mail begins without an empty line"),
        (in_mbox("Hello" + WITHIN.replace("From", "\nFrom", 1)), 2, "1 mail begins without an"),
        ("Mailbox of Ann, 45 euro\n\n" + in_mbox("Hello"), 2, "before its first mail is read"),
        (in_mbox("Hello", "From Ann, in March\n") + in_mbox("Bye"), 2, "before its first mail"),
        (in_mbox("Hello", "From - Mon Mar 02 10:00:00 +0000 2026\n"), 1, ""),
        (in_mbox("Hello", "From bo at b.org  Mon Mar  2 10:00 EST 2026 remote from b\n"), 1, ""),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_mail_begins_where_a_mail_begins_and_no_text_disappears(
    placed: Placed, box: str, n_mails: int, note: str, newline: str
) -> None:
    """Lengths count the bytes of lines that end with a line feed alone."""
    if newline != "\n" and "Content-Length" in box:
        return
    last = in_mbox("The last one", HEAD.replace("Mon", "Tue"))
    found = read(placed("a.mbox", (box + last).replace("\n", newline).encode()))
    assert len(found.pages) == n_mails + 1
    assert found.pages[-1] == "Subject: Fees\n\nThe last one"
    notes = "".join(found.notes)
    assert note in notes
    assert bool(notes) is bool(note)
    lines = box.replace(HEAD, "", n_mails).split("\n")
    words = re.findall(r"\w+", "\n".join(line for line in lines if "Content-Length" not in line))
    assert lines[0] in "\n".join(found.pages) or lines[0].startswith(HEAD[:5])
    shown = {*re.findall(r"\w+", "\n".join((*found.pages, notes)))}
    assert shown.issuperset(words[words.index("Fees") :])


def test_a_saved_web_page_is_read_as_its_page(placed: Placed) -> None:
    page = EmailMessage()
    page["Subject"] = "Saved"
    page.set_content("<title>Fees</title><h1>Fees</h1><p>Grüße", subtype="html", charset="cp1252")
    page.add_related(b"\x89PNG\r\n\x1a\n", "image", "png")
    found = read(placed("a.mhtml", page.as_bytes()))
    assert (found.title, found.text, found.notes) == ("Fees", "# Fees\n\nGrüße", ())
    assert read(placed("wiki.doc", page.as_bytes())).text == found.text  # as some programs name it


def test_what_is_not_read_of_a_saved_web_page_is_noted(placed: Placed) -> None:
    page = EmailMessage()
    page.set_content("<p>Fees</p>", subtype="html")
    for kind in ("application/pdf", "text/css", "text/javascript", "font/woff2"):
        page.add_related(b"x", *kind.split("/"))
    page.add_related(bytes(100), "text", "plain")
    found = read(placed("a.mhtml", page.as_bytes()))
    unread = "1 of application/pdf, 1 of text/plain in an unknown encoding"
    assert (found.text, found.notes) == ("Fees", (f": parts of it are not read ({unread})",))


def test_a_message_of_outlook_is_a_mail_and_its_attachment_a_page() -> None:
    found = read(DATA / "msg_with_attachment.msg")
    heads = dict(line.split(": ", 1) for line in found.pages[0].split("\n\n")[0].splitlines())
    assert heads.keys() == {"From", "To", "Date", "Subject"}
    assert found.title == heads["Subject"]
    assert "Attachments:\n- " in found.pages[0]
    assert found.pages[1].startswith("# test.txt\n\nThis is a")
    assert found.notes == (": attachment 'report.pdf' is not read: it is damaged or not a PDF",)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("chinese-provinces.xls", "# provinces\n\n| Provinces in China | Chinese Name |"),
        ("page-break.doc", "Line 1\nLine 2"),
        ("times-by-xlwt.xls", "| hours | 25:30:00 |\n| --- | --- |\n| clock | 10:30:00 |"),
        ("times-by-xlwt.xls", "| day | 2026-03-02 |\n| moment | 2026-03-02 10:30:00 |"),
        ("times-by-xlwt.xls", "| zero | 00:00:00 |\n| long | 2403:00:00 |"),
        ("times-by-xlwt.xls", "| err | #DIV/0! |"),
        ("times-by-xlwt.xls", "| err | #NAME? |\n| err | #NUM! |\n| err | #N/A |"),
        ("times-by-xlwt.xls", "| text | #ERR: Div0 in a text |"),
    ],
)
def test_old_office_files_are_read_by_kreuzberg_with_a_note(name: str, words: str) -> None:
    found = read(DATA / name)
    assert words in found.text
    lost = ": raised and lowered characters, "
    is_doc = name.endswith(".doc")
    lost += "rows of tables, hyphens that keep words together, " if is_doc else "formats of days, "
    assert found.notes == (f"{BY_KREUZBERG}{lost}{UNTOLD.removeprefix(': ')}",)


def test_rich_text_keeps_raised_struck_and_own_marks(placed: Placed) -> None:
    rtf = (
        rb"{\rtf1\ansi 10{\super 6} H\sub 2\nosupersub O {\strike\f0 40} C:\\dir a_b*\par "
        rb"2^3 ~~x~~ <!-- y --> #1\par}"
    )
    assert read(placed("a.rtf", rtf)).text == (
        "10^6 H_2O ~~40~~ C:\\dir a_b*\n\n2\\^3 \\~~x\\~~ \\<!-- y \\--> #1"
    )
    assert read(placed("a.doc", rtf)).media_type == "application/rtf"
    by_abiword = read(placed("b.rtf", rb"{\rtf1 10{\super\lang1025{\*\listtag0}6} m{\up6 2}\par}"))
    assert by_abiword.text == "10^6 m2"
    assert by_abiword.notes[-1].endswith("1 raised or lowered text")


@pytest.mark.parametrize(
    ("head", "body", "text"),
    [
        ("ansi\\ansicpg1252", r"caf\'e9 {\f1 \'cf\'f0} {\f2 \'e8} \'80 \\'e9", "café Пр č € \\'e9"),
        ("ansi\\deff3", r"\'93\'fa\'83e \f1\'cf\u1078\'e6\'f0", "日テ Пжр"),
        ("mac", r"caf\'8e", "café"),
    ],
)
def test_letters_of_rich_text_are_read_in_the_encoding_of_their_font(
    placed: Placed, head: str, body: str, text: str
) -> None:
    fonts = r"{\f0\fcharset0 A;}{\f1\fcharset204 B;}{\f2\fcharset238 C;}{\f3\fcharset128 D;}"
    rtf = rf"{{\rtf1\{head}{{\fonttbl{fonts}}}{body}\par}}"
    assert read(placed("a.rtf", rtf.encode())).text == text


def test_what_kreuzberg_loses_of_rich_text_is_counted(placed: Placed) -> None:
    rtf = rb"{\rtf1 a {\v b}{\v c}{\deleted d}{\*\annotation e}{\pict\pngblip 8950}\viewkind4}"
    assert read(placed("a.rtf", rtf)).notes == (
        f"{BY_KREUZBERG}{UNTOLD}",
        ": not read, or read as plain text: 2 hidden texts, 1 deletion, 1 comment, 1 picture",
    )


def test_a_notebook_is_read_by_its_cells(placed: Placed) -> None:
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# Fees\n", "in *euros*"]},
        {"cell_type": "code", "metadata": {}, "source": ["print('a\\.b')"], "outputs": [],
         "execution_count": 1},
    ]  # fmt: skip
    book = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    text = read(placed("a.ipynb", json.dumps(book).encode())).text
    assert "# Fees" in text
    assert "```\nprint('a\\.b')\n```" in text


@pytest.mark.parametrize("name", ["a.tex", "a.org", "a.rst"])
def test_markup_is_text_with_and_without_the_extras(placed: Placed, name: str) -> None:
    found = read(placed(name, b"10\\textsuperscript{6} units"))
    assert (found.text, found.media_type) == ("10\\textsuperscript{6} units", "text/plain")


def test_tables_with_a_heading_row_formulas_and_notes_of_an_opendocument_text(
    placed: Placed,
) -> None:
    def row(*cells: str) -> str:
        texts = (f"<table:table-cell><text:p>{c}</text:p></table:table-cell>" for c in cells)
        return f"<table:table-row>{''.join(texts)}</table:table-row>"

    body = (
        f"<table:table><table:table-header-rows>{row('Item', 'Price')}</table:table-header-rows>"
        f"<table:table-rows>{row('Nails', '10.00')}</table:table-rows>{row('Door', '190')}"
        '</table:table><text:p>so <draw:object xlink:href="./Formula-1/"/></text:p>'
    )
    math = '<math xmlns="http://www.w3.org/1998/Math/MathML"><mi>x</mi></math>'
    found = read(placed("a.odt", open_document("text", body, {"Formula-1/content.xml": math})))
    assert "| Item | Price |\n| --- | --- |\n| Nails | 10.00 |\n| Door | 190 |" in found.text
    assert found.text.endswith("so x")
    assert found.notes == ()


def test_a_comment_of_opendocument_has_its_author_and_day(placed: Placed) -> None:
    said = "<creator>Ada</creator><date>2026-03-01T10:30:00</date><text:p>by phone</text:p>"
    body = f"<text:p>40<office:annotation>{said}</office:annotation></text:p>"
    found = read(placed("a.odt", open_document("text", body))).text
    assert found.strip() == "40 (comment: Ada 2026-03-01 by phone)"


def box(text: str, x: float, y: float, more: str = "") -> str:
    inner = f"<draw:text-box><text:p>{text}</text:p></draw:text-box>"
    more = more or f'svg:x="{x}cm" svg:y="{y}cm"'
    return f'<draw:frame svg:height="2cm" {more}>{inner}</draw:frame>'


TURNED = 'draw:transform="rotate (1.57) translate (9cm 5cm)"'


@pytest.mark.parametrize(
    ("shapes", "read_as"),
    [
        (box("right", 9, 2.5) + box("left", 1, 2.7), "left right"),
        (box("d", 9, 5.1) + box("b", 9, 1) + box("c", 1, 5) + box("a", 1, 1.2), "a b c d"),
        (
            f"{box('last', 1, 7)}<draw:g>{box('right', 9, 3)}{box('left', 1, 3.2)}</draw:g>",
            "left right last",
        ),
        (box("last", 1, 7) + box("turned", 0, 0, TURNED) + box("first", 1, 2), "first turned last"),
    ],
    ids=["nearly level", "cards", "a group", "turned"],
)
def test_a_slide_of_opendocument_is_read_by_its_places(
    placed: Placed, shapes: str, read_as: str
) -> None:
    notes = f"<presentation:notes>{box('say so', 1, 1)}</presentation:notes>"
    title = box("Title", 1, 8, 'presentation:class="title" svg:y="8cm"')
    page = f"<draw:page>{notes}{shapes}{title}</draw:page>"
    found = read(placed("a.odp", open_document("presentation", page)))
    assert found.text.split() == ["##", "Title", *read_as.split(), "Notes:", "say", "so"]


def test_rich_text_keeps_fixed_blanks_and_footnotes(placed: Placed) -> None:
    note = r"{\super\chftn{\*\footnote\chftn\pard without {\b tax}\par}}"
    text = r"{\rtf1\ansi\uc1 Fee 1\~234,50\~EUR for A\_7" + note + r" now.}"
    found = read(placed("a.rtf", text.encode())).text.replace("\u2011", "-").replace("\xa0", " ")
    assert "1 234,50 EUR for A-7" in found
    assert "(footnote: without **tax**" in found
    assert found.endswith("now.")


def test_without_the_extra_old_office_files_are_refused(
    placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "is_installed", lambda extra: extra != "formats")
    monkeypatch.setitem(sys.modules, "kreuzberg", None)
    assert refusal(placed("a.rtf", b"{\\rtf1 x}")) == (
        "is of the kind `rtf`. To read it install the extra: pip install 'paddock-llm[formats]'."
    )
    assert "formats" not in reader.reader_versions()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.pages", b"PK\x03\x04\x00", "is a document of Apple's iWork, which is not read."),
        ("a.wpd", b"\xffWPC\x00", "is of another word processor, which is not read."),
    ],
)  # fmt: skip
def test_what_no_reader_reads_has_a_way_out_that_its_program_has(
    placed: Placed, name: str, data: bytes, reason: str
) -> None:
    assert refusal(placed(name, data)) == (
        f"{reason} Export it as PDF in the program that wrote it."
    ).replace("read.. ", "read. ")


def test_old_names_on_other_contents_are_read_by_content(placed: Placed) -> None:
    table = b"<html><table><tr><th>Item</th></tr><tr><td>Rent</td></tr></table>"
    assert read(placed("export.xls", table)).media_type == "text/html"
    assert read(placed("export.xls", b"item\tfee\nrent\t40\n")).media_type == "text/csv"
    assert read(placed("a.key", b"-----BEGIN PUBLIC KEY-----\n")).media_type == "text/plain"
    for suffix in ("doc", "xls", "ppt", "msg", "rtf"):
        odd = refusal(placed(f"odd.{suffix}", b"a\0b\xff\xfe\x01\x02 hello"))
        assert odd.startswith(f"is damaged: `.{suffix}` by its name")
        text = "Subject: a\n\nHello, a plain text." if suffix == "msg" else "Hello, all."
        plain = read(placed(f"plain.{suffix}", text.encode()))
        assert "Hello" in plain.text and not any("kreuzberg" in note for note in plain.notes)
    assert read(placed("a.doc", docx("An offer"))).text == "An offer"


def hostile() -> dict[str, bytes]:
    many = 'table:number-columns-repeated="9999"'
    cell = f"<table:table-cell {many}><text:p>x</text:p></table:table-cell>"
    row = f'<table:table-row table:number-rows-repeated="9999">{cell * 2000}</table:table-row>'
    bomb = (
        '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
        + "".join(
            f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        )
        + "]><FictionBook><body><p>&i;</p></body></FictionBook>"
    )
    return {
        "wide.ods": open_document("spreadsheet", f"<table:table>{row * 50}</table:table>"),
        "deep.odt": open_document("text", "<text:section>" * 50_000 + "</text:section>" * 50_000),
        "bomb.fb2": bomb.encode(),
        "noise.doc": OLE + os.urandom(100_000),
        "noise.msg": OLE + os.urandom(100_000),
        "cut.msg": (DATA / "msg_with_attachment.msg").read_bytes()[:3000],
        "deep.rtf": b"{\\rtf1" + b"{" * 2_000_000,
        "many.mbox": b"From a Mon Mar  2 10:00:00 2026\nA:\n\n" * 300_000,
    }


@pytest.mark.parametrize("name", hostile())
def test_a_hostile_document_ends_within_the_limits_with_a_sentence(
    placed: Placed, name: str
) -> None:
    path = placed(name, hostile()[name])
    pool = ReaderPool(ReaderLimits(20, 512 * MIB))
    try:
        found = pool.submit(DocumentRequest(path, None, "auto", False, 8 * MIB)).result(PATIENCE_S)
        assert len(found.text) <= 8 * MIB
    except Unreadable as error:
        assert str(error)
    finally:
        pool.close()


LOOK = """
import os, sys
from pathlib import Path
import psutil
from paddock.steps.readers.reader_process import ReadOptions, read_document
for name in sys.argv[1:]:
    read_document(Path(name), ReadOptions(), 1 << 26)
me = psutil.Process()
print(len(me.net_connections("inet")), len(me.children()), os.listdir(os.environ["HOME"]))
"""


def test_kreuzberg_opens_no_connection_starts_no_program_and_keeps_no_file(
    placed: Placed, tmp_path: Path
) -> None:
    picture = b"{\\rtf1 x{\\pict\\pngblip " + b"\x89PNG\r\n\x1a\n".hex().encode() + b"}}"
    include = b".. include:: /etc/hostname\n\nHi\n\n.. image:: http://127.0.0.1:9/a.png\n"
    files = [placed("a.rtf", picture), placed("a.rst", include), DATA / "page-break.doc"]
    home, programs = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    for program in ("tesseract", "soffice", "pandoc"):
        (programs / program).write_text(f"#!/bin/sh\ntouch '{home}/{program}'\n")
        (programs / program).chmod(0o755)
    environ = os.environ | {"HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *map(str, files)],
        env=environ, capture_output=True, text=True, check=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.stdout.split("\n")[0] == "0 0 []"
    assert Path("/etc/hostname").read_text().strip() not in read(files[1]).text
