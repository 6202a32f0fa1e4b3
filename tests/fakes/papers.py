"""Invoices and contracts of a small harbour, in the kinds that offices receive; all fiction.

They are those of `examples/invoices-reviewed` and `examples/contracts`. Each holds something that a
finder of values stumbles over: a table, two columns with words that are hyphenated at a line's end,
a page that is turned, a mail, a Word document, a CSV file, and a scan.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def _documents(example: str) -> Mapping[str, bytes]:
    return {file.name: file.read_bytes() for file in (EXAMPLES / example / "inbox").iterdir()}


INVOICES, CONTRACTS = _documents("invoices-reviewed"), _documents("contracts")


def write(folder: Path, documents: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in documents.items():
        (folder / name).write_bytes(content)


def pages(*texts: str) -> bytes:
    """Make a PDF of running text, each part on pages of its own, with a date that does not change.

    The pages are A5.
    """
    from fpdf import FPDF

    pdf = FPDF(format=(148, 210))
    pdf.set_creation_date(datetime(2024, 5, 2, 9, 0, tzinfo=UTC))
    pdf.set_font("Helvetica", size=10)
    for text in texts:
        pdf.add_page()
        pdf.multi_cell(0, 5, text, align="L")
    return bytes(pdf.output())
