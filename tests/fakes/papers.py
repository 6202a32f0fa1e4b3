"""Invoices and contracts of a small harbour, in the kinds that offices receive; all fiction.

`INVOICES` and `CONTRACTS` make the documents of `examples/invoices-reviewed` and
`examples/contracts`: `python -m tests.fakes.papers` writes them there. Each holds something that a
finder of values stumbles over: a table, two columns with words that are hyphenated at a line's end,
a page that is turned, a mail, a Word document, a CSV file, and a scan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from email.message import EmailMessage
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fakes.office import scan

if TYPE_CHECKING:
    from fpdf import FPDF

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
WRITTEN = datetime(2024, 5, 2, 9, 0, tzinfo=UTC)
SOFT_HYPHEN = "\u00ad"
LANDSCAPE_MM, PORTRAIT_MM = (210, 148), (148, 210)  # A5, as it is shown and as it is stored


def paper(*, n_point: int = 10) -> FPDF:
    """Begin a PDF of A5, with a date that does not change."""
    from fpdf import FPDF

    pdf = FPDF(format=PORTRAIT_MM)
    pdf.set_creation_date(WRITTEN)
    pdf.set_font("Helvetica", size=n_point)
    return pdf


def finished(pdf: FPDF) -> bytes:
    return bytes(pdf.output())


def with_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], foot: Sequence[str], *, lead: str = ""
) -> bytes:
    """Make a page with a table under its heading."""
    pdf = paper()
    pdf.add_page()
    _lines(pdf, head)
    with pdf.table(col_widths=(60, 15, 25, 28), text_align=("L", "R", "R", "R")) as table:
        for row in rows:
            table.row(row)
    pdf.ln(4)
    _lines(pdf, [*foot, lead])
    return finished(pdf)


def in_columns(head: Sequence[str], text: str) -> bytes:
    """Make a page with two columns; `|` in a word is where a line may break it."""
    pdf = paper(n_point=11)
    pdf.add_page()
    _lines(pdf, head)
    with pdf.text_columns(ncols=2, gutter=8, text_align="J", balance=True) as columns:
        columns.write(text.replace("|", SOFT_HYPHEN))
    return finished(pdf)


def turned(lines: Sequence[str]) -> bytes:
    """Make a page that is stored upright and shown turned by 90 degrees, as scanners leave it."""
    from pypdfium2 import PdfDocument  # type: ignore[import-untyped]

    pdf = paper(n_point=12)
    pdf.add_page()
    middle = LANDSCAPE_MM[0] / 2  # about it, what is drawn lying reads upright once it is turned
    with pdf.rotation(90, middle, middle):
        for at, line in enumerate(lines):
            pdf.text(15, 20 + 9 * at, line)
    out = BytesIO()
    with closing(PdfDocument(finished(pdf))) as document:
        document[0].set_rotation(90)
        document.save(out)
    return out.getvalue()


def pages(*texts: str) -> bytes:
    """Make a PDF of running text, each part on pages of its own."""
    pdf = paper()
    for text in texts:
        pdf.add_page()
        pdf.multi_cell(0, 5, text, align="L")
    return finished(pdf)


def _lines(pdf: FPDF, lines: Sequence[str]) -> None:
    for line in lines:
        pdf.cell(0, 6, line, new_x="LMARGIN", new_y="NEXT")
    pdf.ln(3)


def word(heading: str, *blocks: str | Sequence[Sequence[str]]) -> bytes:
    """Make a Word document; rows are a table.

    It begins from a document of 2 kB: the library's own template has 35 kB of styles.
    """
    from docx import Document

    document = Document(str(EXAMPLES / "invoices" / "inbox" / "roofing.docx"))
    document._body.clear_content()
    document.add_heading(heading, 1)
    for block in blocks:
        if isinstance(block, str):
            document.add_paragraph(block)
            continue
        table = document.add_table(0, len(block[0]))
        for row in block:
            for cell, text in zip(table.add_row().cells, row, strict=True):
                cell.text = text
    out = BytesIO()
    document.save(out)
    return out.getvalue()


def letter(sender: str, subject: str, text: str) -> bytes:
    message = EmailMessage()
    message["From"], message["To"] = sender, "office@calder-ferry.example"
    message["Subject"], message["Date"] = subject, "Tue, 26 Mar 2024 09:12:00 +0000"
    message.set_content(text)
    return message.as_bytes()


def boatyard() -> bytes:
    """A table of lines in which the total is one of several amounts."""
    return with_table(
        ["Calder Boatyard", "4 Slipway, Calder Ferry", "", "Invoice number: 2024-118"],
        [
            ("Work", "Hours", "Price", "Amount"),
            ("New planks, port side", "12", "45.00", "540.00"),
            ("Caulking", "8", "45.00", "360.00"),
            ("Oak, 2 m", "", "", "200.00"),
        ],
        ["Net: 1,100.00 EUR", "VAT 20 %: 220.00 EUR", "Total: 1,320.00 EUR"],
        lead="Pay by: 17 June 2024",
    )


def chandlery() -> bytes:
    """Two columns, an amount as it is written on the continent, words broken at line ends."""
    return in_columns(
        ["Harbour Chandlery", "3 Quay Street, Calder Ferry", ""],
        "Dear all, thank you for the or|der of rope, shackles and war|ning lights. "
        "They were de|livered to the har|bour|master's store on Mon|day, "
        "and signed for by the night watch|man.\n\n"
        "We have again put to|gether the two lengths of hemp, so that the moor|ing of the ferry "
        "can be renewed at once.\n\n"
        "Invoice number: HC-0457\n\nTotal: 1.234,50 EUR\n\nPay by: 03.05.2024\n\n"
        "Please give the number with the pay|ment. Our bank has moved, its new add|ress "
        "is on the back of this page.",
    )


def sailmaker() -> bytes:
    return turned(
        ["Fell & Daughter, Sailmakers", "", "One mainsail, mended and washed.", "",
         "Invoice number: S 88", "Total: 84.00 EUR", "Pay by: 11 April 2024"]
    )  # fmt: skip


def piano() -> bytes:
    return letter(
        "Tuning by Ida Fell <ida@fell.example>",
        "The piano in the hall",
        "Dear all,\n\nthe piano in the hall is in tune again, and two strings are new.\n\n"
        "Invoice number: 24-007\nTotal: 93.00 EUR\nPay by: 25 April 2024\n\nIda Fell\n",
    )


def roofing() -> bytes:
    return word(
        "Forge Mill Roofing",
        "12 Water Lane, Calder Ferry",
        "the north roof has new slates, and the gutter is mended.",
        [("Invoice number", "24-031"), ("Total", "2120.00 EUR"), ("Pay by", "3 May 2024")],
    )


def tides() -> bytes:
    """A CSV file in which the day to pay by is missing."""
    return (
        b"field,value\nSender,Office of Tides\nInvoice number,T-5512\n"
        b"Total,61.40 EUR\nPay by,as agreed\n"
    )


def fuel() -> bytes:
    """A scan: read by OCR, where the extra is installed."""
    return scan(
        "Calder Fuel Dock", "Invoice number: F-309", "Total: 412.75 EUR", "Pay by: 9 July 2024"
    )


INVOICES: Mapping[str, Callable[[], bytes]] = {
    "boatyard.pdf": boatyard,
    "chandlery.pdf": chandlery,
    "fuel.png": fuel,
    "piano.eml": piano,
    "roofing.docx": roofing,
    "sailmaker.pdf": sailmaker,
    "tides.csv": tides,
}

MOORING = (
    """Contract of mooring

between the Harbour Board of Calder Ferry and Nora Quill

Ends on: 31 May 2027
Price: 1,450.00 EUR a year
Notice: three months
Law: Ireland
""",
    """1. The Board lets berth 14 to the owner of the boat Heron. The berth may not be sublet.

2. The price of 1,450.00 EUR is due on 31 May of each year. Nothing is repaid if the berth is given
up before 31 May 2027.

3. Either side may end the contract in writing with three months' notice.
""",
)
LAUNDRY = """between the Ferry Hotel and White Linen Ltd.
Ends on: 15 March 2026
Price: 380.00 EUR a month
Notice: six weeks
Law: Scotland
White Linen Ltd washes the linen of 24 rooms twice a week. Invoices are due within 14 days.
"""


def mooring() -> bytes:
    return pages(*MOORING)


def laundry() -> bytes:
    return word("Contract of services", *LAUNDRY.splitlines())


CONTRACTS: Mapping[str, Callable[[], bytes]] = {"laundry.docx": laundry, "mooring.pdf": mooring}


def write(folder: Path, documents: Mapping[str, Callable[[], bytes]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in documents.items():
        (folder / name).write_bytes(make())


if __name__ == "__main__":
    write(EXAMPLES / "invoices-reviewed" / "inbox", INVOICES)
    write(EXAMPLES / "contracts" / "inbox", CONTRACTS)
