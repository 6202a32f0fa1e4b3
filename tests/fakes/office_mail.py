"""A day's mail of a ferry's office, as `examples/office` has it; all fiction.

`python -m tests.fakes.office_mail` writes it there. In it are invoices in several kinds, with
amounts and days as two countries write them, one that came twice and one that was sent again,
scans, a mail with an invoice and one with a workbook in it, letters, minutes, an offer.
"""

from collections.abc import Callable, Mapping
from email.message import EmailMessage

from paddock.pipelines.typed_rows import TypedRows
from paddock.steps.tables.workbook_file import workbook_file
from tests.fakes.office import scan, scanned_pdf
from tests.fakes.papers import EXAMPLES, boatyard, chandlery, pages, with_table, write

TO = "office@calder-ferry.example"


def mail(sender: str, subject: str, text: str, **attached: tuple[str, bytes]) -> bytes:
    """Make a mail with attachments: a media type and bytes by name (`_` is the point)."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = sender, TO, subject
    message["Date"] = "Wed, 26 Jun 2024 09:12:00 +0000"
    message.set_content(text)
    for name, (media_type, data) in attached.items():
        main, _, sub = media_type.partition("/")
        stem, _, suffix = name.rpartition("_")
        message.add_attachment(data, maintype=main, subtype=sub, filename=f"{stem}.{suffix}")
    if attached:
        message.set_boundary("=_calder_ferry")
    return message.as_bytes()


def boatyard_131() -> bytes:
    return (
        b"Calder Boatyard\n4 Slipway, Calder Ferry\n\nInvoice number: 2024-131\n\n"
        b"The hull was scraped and painted, with two coats of blue.\n\n"
        b"Total: 245.50 EUR\nPay by: 1 July 2024\n"
    )


def boatyard_again() -> bytes:
    """Make the first invoice as it was sent again: a line more."""
    return with_table(
        ["Calder Boatyard", "4 Slipway, Calder Ferry", "", "Invoice number: 2024-118"],
        [
            ("Work", "Hours", "Price", "Amount"),
            ("New planks, port side", "12", "45.00", "540.00"),
            ("Caulking", "8", "45.00", "360.00"),
            ("Oak, 2 m", "", "", "200.00"),
        ],
        ["Net: 1,100.00 EUR", "VAT 20 %: 220.00 EUR", "Total: 1,320.00 EUR"],
        lead="Pay by: 17 June 2024 (sent again)",
    )


def hansen() -> bytes:
    return pages(
        "Bootswerft Hansen\nAm Hafen 3, Husum\n\nRechnung Nr. 77\n\n"
        "Eine neue Schraube für die Fähre, mit Einbau.\n\n"
        "Gesamtbetrag: 2.120,00 EUR\nZahlbar bis 28. Oktober 2024\n"
    )


def fuel_309() -> bytes:
    lines = "Invoice number: F-309", "Total: 412.75 EUR", "Pay by: 9 July 2024"
    return scan("Calder Fuel Dock", *lines)


def fuel_317() -> bytes:
    """Make a mail whose invoice is attached."""
    invoice = pages(
        "Calder Fuel Dock\n\nInvoice number: F-317\n\n300 l of diesel\n\n"
        "Total: 388.20 EUR\nPay by: 9 August 2024\n"
    )
    text = "Good morning,\n\nour bill for June is attached.\n\nCalder Fuel Dock\n"
    attached = "application/pdf", invoice
    return mail("Fuel Dock <till@fuel.example>", "June", text, invoice_pdf=attached)


def fuel_322() -> bytes:
    """Make an invoice whose total has another name."""
    return (
        b"Calder Fuel Dock\n\nInvoice number: F-322\n\n80 l of diesel for the small boat.\n\n"
        b"Altogether 96.10 EUR\nPay by: 20 August 2024\n"
    )


def rope() -> bytes:
    """Make a mail with a workbook."""
    rows = TypedRows([{"rope": "Hemp 20 mm", "price": 4.5}, {"rope": "Hemp 24 mm", "price": 5.2}])
    book, _ = workbook_file(rows, {}, "Rope")  # always the same bytes
    text = "Our new price list is attached. All rope at a discount, while stocks last.\n"
    attached = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", book
    return mail("Harbour Chandlery <shop@chandlery.example>", "Rope", text, prices_xlsx=attached)


def bell() -> bytes:
    return mail(
        "Ida Fell <ida@fell.example>",
        "The fog bell",
        "Dear all,\n\nthe fog bell on Heron Point has a crack and rings a tone too low. I can mend "
        "it on Monday, if the ferry takes me over at eight. If there is fog on Monday, please ring "
        "me and I will come on Tuesday instead.\n\nWith thanks, Ida Fell\n",
    )


def reference() -> bytes:
    return (
        b"Dear Mrs Quill,\n\nI am writing about Tom Reed, who was a deckhand on my boat for six "
        b"years. He is careful with ropes and patient with passengers. I would take him back at "
        b"once.\n\nHe asks for a place on the ferry from September. Please tell me by the end of "
        b"July whether you have one.\n\nYours sincerely,\nA. Marsh\n"
    )


def school() -> bytes:
    """Make a scanned letter."""
    return scanned_pdf(
        ("Dear ferry office,", "forty children would like to cross on 3 July.",
         "Is there room for them at ten?", "Best wishes, Calder School")
    )  # fmt: skip


def minutes() -> bytes:
    return (
        b"# Minutes of 24 June\n\nPresent: Quill, Reed, Fell. Apologies: Marsh.\n\n"
        b"The new timetable was agreed. Next meeting: 29 July.\n"
    )


def board() -> bytes:
    """Make a note that has too few words of any kind."""
    return (
        b"The harbour board has looked at the north pier. Two of its piles are loose, and the "
        b"ladder is gone. Until they are mended no boat may lie there.\n"
    )


MAIL: Mapping[str, Callable[[], bytes]] = {
    "bell.eml": bell,
    "board.md": board,
    "boatyard-118.pdf": boatyard,
    "boatyard-118_again.pdf": boatyard_again,
    "boatyard-131.txt": boatyard_131,
    "chandlery-0457.pdf": chandlery,
    "chandlery-0457_2.pdf": chandlery,
    "fuel-309.png": fuel_309,
    "fuel-317.eml": fuel_317,
    "fuel-322.txt": fuel_322,
    "hansen-77.pdf": hansen,
    "minutes.md": minutes,
    "reference.txt": reference,
    "rope.eml": rope,
    "school.pdf": school,
}

if __name__ == "__main__":
    write(EXAMPLES / "office" / "inbox", MAIL)
