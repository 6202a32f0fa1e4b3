"""An e-invoice's XML, its sums and its printed page: whether they agree."""

from decimal import Decimal
from email.message import EmailMessage
from io import BytesIO
from pathlib import Path
from random import Random

import pytest

from paddock.steps.readers import mail as mail_reader
from paddock.steps.readers import pdf as pdf_reader
from paddock.steps.readers.e_invoice_checks import accounts_in, check_page
from paddock.steps.readers.reader import Document
from paddock.steps.readers.reader_process import ReadOptions
from tests.fakes.invoices import IBANS, Made, hybrid
from tests.fakes.pdf import pdf
from tests.runner.world import World, each_document

_RULES = {
    "lines": "BR-CO-10", "allowances": "BR-CO-11", "charges": "BR-CO-12", "net": "BR-CO-13",
    "tax": "BR-CO-14", "gross": "BR-CO-15", "payable": "BR-CO-16", "vat": "BR-CO-14",
    "item": "R120",
}  # fmt: skip
_ON_PAGE = ("number", "date", "due", "iban", "currency", "net", "tax", "gross", "payable")


def read(page: str, xml: str) -> Document:
    return pdf_reader.read_pdf(BytesIO(hybrid(page, xml)), ReadOptions(ocr=False))


def other(name: str, value: str, random: Random) -> str:
    """Return what a person would not see at once."""
    if name == "number":
        return value[:-1] + str((int(value[-1]) + 1) % 10)
    if name in ("date", "due"):
        return value[:-1] + str((int(value[-1]) + 1) % 8)
    if name == "iban":
        return next(iban for iban in IBANS if iban != value)
    if name == "currency":
        return "GBP"
    return f"{Decimal(value) + Decimal(random.choice((1, -10, 90, 1000))) / 100}"


@pytest.mark.parametrize("seed", range(60))
def test_witnesses_that_agree_are_said_to(seed: int) -> None:
    made = Made(seed)
    found = read(made.page(), made.xml())
    (invoice,) = found.invoices
    assert (invoice["witnesses"], invoice["disagreements"]) == (["xml", "sums", "page"], [])
    seen = {name: dict(invoice)[name] for name in ("number", "date", "due", "iban", "currency")}
    assert seen == {name: made.values[name] for name in seen}
    assert not any("agree" in note for note in found.notes)


def test_what_a_page_shows_is_quoted_as_it_stands_there() -> None:
    made, pages = Made(1), ["…\u00ad ﬁnal Ⅻ½ ", ""]
    invoice = read(made.page(), made.xml()).invoices[0]
    pages[1] = made.page(payable="48.00")
    (found,) = check_page(invoice, made.page(), pages)["disagreements"][:1]
    assert (found["found"], found["page"]) == ("48.00", 2)


def test_numbers_of_any_size_are_compared() -> None:
    made = Made(1)
    huge = made.xml().replace(f">{made.lines[0].quantity}<", f">{'9' * 20}.{'9' * 20}<")
    huge = huge.replace(f">{made.lines[0].price}<", f">{'9' * 20}<")
    rules = {d["rule"] for d in read(made.page(), huge).invoices[0]["disagreements"]}
    assert "R120" in rules
    per_hundred = next(m for m in map(Made, range(99)) if any(n.per > 1 for n in m.lines))
    written = per_hundred.xml().replace(">100</", ">100.</")  # as XML Schema allows
    assert read(per_hundred.page(), written).invoices[0]["disagreements"] == []


@pytest.mark.parametrize("seed", range(60))
def test_a_planted_difference_is_found_with_both_places(seed: int) -> None:
    made, random = Made(seed + 100), Random(seed)
    if seed % 2:
        name = _ON_PAGE[seed // 2 % len(_ON_PAGE)]
        value = other(name, made.values[name], random)
        found = read(made.page(**{name: value}), made.xml())
        place = next(d for d in found.invoices[0]["disagreements"] if d["field"] == name)
        assert (place["rule"], place["page"]) == ("page", 1)
        assert place["stated_at"] and (place["found"] in place["found_at"] or name == "number")
    else:
        name = list(_RULES)[seed // 2 % len(_RULES)]
        value = other(name, made.values[name], random)
        found = read(made.page(), made.xml(**{name: value}))
        rules = {d["rule"]: d for d in found.invoices[0]["disagreements"]}
        assert _RULES[name] in rules
        assert rules[_RULES[name]]["stated_at"]
    assert any("agree" in note for note in found.notes)


def in_a_mail(xml: str, *pages: str) -> Document:
    mail = EmailMessage()
    mail["From"] = "ann@example.org"
    mail.set_content("Please pay.")
    mail.add_attachment(xml.encode(), maintype="text", subtype="xml", filename="invoice.xml")
    for page in pages:
        mail.add_attachment(pdf([page]), maintype="application", subtype="pdf", filename="a.pdf")
    return mail_reader.read_eml(BytesIO(mail.as_bytes()), ReadOptions(ocr=False))


@pytest.mark.parametrize("name", ["", *_ON_PAGE])
def test_an_xml_and_its_page_beside_it_in_a_mail_are_witnesses_of_one_invoice(name: str) -> None:
    made = Made(7)
    value = {name: other(name, made.values[name], Random(1))} if name else {}
    found = in_a_mail(made.xml(), "General terms", made.page(**value))
    (invoice,) = found.invoices
    assert invoice["witnesses"] == ["xml", "sums", "page"]
    if not name:
        assert invoice["disagreements"] == []
        return
    place = next(d for d in invoice["disagreements"] if d["field"] == name)
    assert (invoice["page"], place["rule"], place["page"]) == (2, "page", 4)
    assert place["stated_at"]


@pytest.mark.parametrize(
    "pages",
    [(), ("General terms",), (Made(8).page(),), (Made(7).page(), f"{Made(7).page()}\nCopy")],
    ids=["none", "terms", "another invoice", "two that show it"],
)
def test_a_page_beside_it_that_may_be_of_something_else_is_no_witness(
    pages: tuple[str, ...],
) -> None:
    (invoice,) = in_a_mail(Made(7).xml(), *pages).invoices
    found = [name for name in invoice["witnesses"] if pages or name != "mail"]
    assert (found, invoice["disagreements"]) == (["xml", "sums"], [])


def test_a_step_asks_whether_the_witnesses_of_an_invoice_agree(tmp_path: Path) -> None:
    made = Made(7)
    here = World(
        tmp_path,
        each_document("""\
      - if: steps.text.invoices and steps.text.invoices[0].disagreements
        uses: files.write
        with:
          path: "held/{{ doc.name }}.txt"
          text: "{{ steps.text.invoices[0].disagreements | tojson }}"
    returns: {name: doc.name, witnesses: "steps.text.invoices[0].witnesses"}
returns: steps.each.results
"""),
    )
    inbox = here.folder / "inbox"
    inbox.mkdir()
    (inbox / "right.pdf").write_bytes(hybrid(made.page(), made.xml()))
    (inbox / "page.pdf").write_bytes(hybrid(made.page(payable="48.00"), made.xml()))
    (inbox / "sums.pdf").write_bytes(hybrid(made.page(), made.xml(net="48.00")))
    report = here.run()
    assert report.status == "completed"
    assert {tuple(result["witnesses"]) for result in report.returns} == {("xml", "sums", "page")}
    held = {path.name: path.read_text() for path in (here.folder / "held").iterdir()}
    assert sorted(held) == ["page.pdf.txt", "sums.pdf.txt"]
    assert "BR-CO-13" in held["sums.pdf.txt"]
    assert "payable" in held["page.pdf.txt"]


DE, UK = "DE02120300000000202051", "60161331926819"
ACCOUNTS: dict[str, list[str]] = {
    "IBAN DE02 1203 0000 0000 2020 51 BIC": [DE],
    "DE02-1203-0000-0000-2020-51": [DE],
    "DE02.1203.0000.0000.2020.51": [DE],
    "de02 1203 0000 0000 2020 51.": [DE],
    "DEO2 12O3 OOOO OOOO 2O2O 51": [DE],
    "DE 02 120 300 00 0000202051": [DE],
    "DE02 1203 0000\n0000 2020 51 2027": [DE],
    "DE02 1203 0000 0000 2020 52": [],
    "FR14 2004 1010 0505 0001 3M02 606": ["FR1420041010050500013M02606"],
    "Sort code: 60-16-13 Account number: 31926819": [UK],
    "Account 3192 6819\nSort Code 601613": [UK],
    "60-16-13 / 31926819": [UK],
    "Date 20-05-26, customer 31926819": [],
    "le 20 de 20 maio de 2027": [],
}


@pytest.mark.parametrize("text", ACCOUNTS)
def test_an_account_is_one_in_any_spelling(text: str) -> None:
    assert [*accounts_in(text)] == ACCOUNTS[text]
