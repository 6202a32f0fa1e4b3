"""Each term of each syntax, with a value of its own, is in the text, on a page or in the note."""

import base64
import re
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

import pytest

from paddock.steps.readers.e_invoice import read_e_invoices
from paddock.steps.readers.e_invoice_syntaxes import SYNTAXES, NamedTerm, terms_of
from paddock.steps.readers.reader import Document
from tests.fakes.pdf import pdf
from tests.fakes.readers import read_here

_UBL = "urn:oasis:names:specification:ubl:schema:xsd"
_ROOTS = {
    "invoice": ("ubl", f"{_UBL}:Invoice-2", "Invoice"),
    "credit note": ("ubl", f"{_UBL}:CreditNote-2", "CreditNote"),
    "cii": (
        "cii",
        "urn:un:unece:uncefact:data:standard:CrossIndustryInvoice:100",
        "CrossIndustryInvoice",
    ),
    "fatturapa": (
        "fatturapa",
        "http://ivaservizi.agenziaentrate.gov.it/docs/xsd/fatture/v1.2",
        "FatturaElettronica",
    ),
    "ksef": ("ksef", "http://crd.gov.pl/wzor/2025/06/25/13775/", "Faktura"),
}
_NOTHING = ("P_19N", "P_22N", "P_PMarzyN")
"""Marks of FA(3) that there is no exemption, no new means of transport, no margin scheme."""
_OF_OTHER = {"invoice": "CreditNote", "credit note": "Invoice"}


def value_of(term: NamedTerm, number: int) -> tuple[str, str]:
    """Return what is written, and what has to be read: identifiers and texts look like days."""
    day = f"{1900 + number}-11-12"
    match term.type:
        case "day":
            is_cii = term.path.endswith("String")
            return (day.replace("-", ""), day) if is_cii else (f"{day}+01:00", day)
        case "amount" | "percentage" | "quantity" | "number":
            return (f"{7000 + number}.25",) * 2
        case "file":
            text = f"The file {number}"
            return base64.b64encode(text.encode()).decode(), text
        case "mark":
            name = term.name.rpartition(", ")[2]
            return ("2", f"{name}: no") if term.path.endswith(_NOTHING) else ("1", name)
        case _:
            return (f"{1900 + number}-1112",) * 2


def put(root: Element, namespace: str, path: str, text: str) -> Element:
    at = root
    for name in path.split("/"):
        found = at.find(f"{{{namespace}}}{name}")
        at = SubElement(at, f"{{{namespace}}}{name}") if found is None else found
    at.text = text
    return at


def invoice_with(root_of: str, term: NamedTerm, written: str) -> Element:
    _, namespace, name = _ROOTS[root_of]
    root = Element(f"{{{namespace}}}{name}")
    path, _, attribute = term.path.partition("/@")
    if root_of == "fatturapa":
        put(root, namespace, "FatturaElettronicaBody", "")
        is_of_all = path.startswith("FatturaElettronicaHeader")
        path = path if is_of_all else f"FatturaElettronicaBody/{path}"
    parent = path.rpartition("/")[0]
    element = put(root, namespace, path, "12" if attribute else written)
    if path.endswith("String"):
        element.set("format", "102")
    if attribute:
        element.set(attribute, written)
    if term.condition.startswith("@"):
        element.set(term.condition[1:], term.value)
    elif term.condition:
        if term.condition.startswith("ChargeIndicator"):  # in what lies around a tax
            parent = parent.removesuffix("/TaxCategory").removesuffix("/CategoryTradeTax")
        put(root, namespace, f"{parent}/{term.condition}", term.value)
    return root


_TERMS = [
    pytest.param(root_of, number, term, id=f"{root_of} {term.path} {term.value}".strip())
    for root_of, (syntax, _, _) in _ROOTS.items()
    for number, term in enumerate(term for terms in terms_of(syntax).values() for term in terms)
    if not term.path.startswith(_OF_OTHER.get(root_of, "-"))
]  # fmt: skip


def read(root: Element, folder: Path) -> Document:
    path = folder / "bill.xml"
    path.write_bytes(tostring(root))
    return read_here(path)


@pytest.mark.parametrize(("root_of", "number", "term"), _TERMS)
def test_each_term_is_in_text_or_page_or_note(
    root_of: str, number: int, term: NamedTerm, tmp_path: Path
) -> None:
    written, expected = value_of(term, number)
    found = read(invoice_with(root_of, term, written), tmp_path)
    assert "read as an e-invoice" in found.notes[0]
    assert expected.casefold() in "\n".join((*found.pages, *found.notes)).casefold()


def test_the_terms_of_a_syntax_say_which_elements_are_days_and_files() -> None:
    for syntax in SYNTAXES:
        for term in (term for terms in terms_of(syntax.name).values() for term in terms):
            name = term.path.rpartition("/")[2]
            assert bool(re.fullmatch(syntax.days, name)) is (term.type == "day"), term
            assert bool(re.fullmatch(syntax.files, name)) is (term.type == "file"), term


_SIGNED = (
    "<s:Signature xmlns:s='http://www.w3.org/2000/09/xmldsig#'><s:SignatureValue>MIIIO"
    "</s:SignatureValue></s:Signature>"
)


def bill(*inner: str) -> str:
    return f"<Invoice xmlns='{_UBL}:Invoice-2'><ID>7</ID>{''.join(inner)}</Invoice>"


@pytest.mark.parametrize(
    ("inner", "lines"),
    [
        (
            "<InvoiceLine><Item><ManufacturerParty><PartyName><Name>Dock AG</Name></PartyName>"
            "</ManufacturerParty></Item></InvoiceLine>",
            ["Invoice line item manufacturer party name: Dock AG"],
        ),
        (
            "<InvoiceLine><Item><AdditionalItemProperty><Name>Boat</Name><Value>Tern II</Value>"
            "</AdditionalItemProperty></Item></InvoiceLine>",
            ["Item attribute value, Boat: Tern II"],
        ),
        (
            "<InvoiceLine><Item><CommodityClassification><ItemClassificationCode listID='STI' "
            "listAgencyID='6'>9873</ItemClassificationCode></CommodityClassification></Item>"
            "</InvoiceLine>",
            ["Item classification identifier: 9873 (STI)"],
        ),
        (
            "<PaymentMeans><PaymentMeansCode name='By cash box'>10</PaymentMeansCode>"
            "</PaymentMeans>",
            ["Payment means: In cash (10)", "Payment means text: By cash box"],
        ),
        (
            "<AccountingSupplierParty><Party><EndpointID schemeID='0088'>73</EndpointID></Party>"
            "</AccountingSupplierParty>",
            ["Seller electronic address: 73 (0088)"],
        ),
        (
            "<AdditionalDocumentReference><ID>5-1</ID><DocumentTypeCode>130</DocumentTypeCode>"
            "</AdditionalDocumentReference>",
            ["Invoiced object identifier: 5-1"],
        ),
        (
            "<InvoiceLine><ID>1</ID><SubInvoiceLine><ID>1a</ID><Note>Wet</Note></SubInvoiceLine>"
            "<Note>Dry</Note></InvoiceLine>",
            ["Item 1:", "Invoice line note: Dry", "Item 1a: (within item 1, in its amount)",
             "Invoice line note: Wet"],
        ),
        ("<LegalMonetaryTotal><Odd>9</Odd></LegalMonetaryTotal>", ["Legal monetary total odd: 9"]),
        (
            "<TaxTotal><TaxAmount>4</TaxAmount><TaxSubtotal><TaxAmount>5</TaxAmount></TaxSubtotal>"
            "</TaxTotal>",
            ["Invoice total VAT amount: 4.00", "Net:", "VAT on : 5.00"],
        ),
        (
            "<InvoiceLine><Price><AllowanceCharge><ChargeIndicator>true</ChargeIndicator><Amount>5"
            "</Amount></AllowanceCharge></Price></InvoiceLine>",
            ["Invoice line price allowance charge indicator: true"],
        ),
    ],
    ids=[
        "unknown", "property", "list", "name", "scheme", "condition", "inner", "total", "tax",
        "charge",
    ],
)  # fmt: skip
def test_what_no_line_takes_is_a_line_of_its_group(inner: str, lines: list[str]) -> None:
    found = read_e_invoices(bill(inner)).text.splitlines()
    assert [line for line in lines if line not in found] == []
    assert sorted(lines, key=found.index) == lines
    assert found[-1].startswith("Amount due:")


def test_a_signature_is_left_out_by_name() -> None:
    found = read_e_invoices(bill(_SIGNED, "<Note>Wet</Note>"))
    assert "MIIIO" not in found.text
    assert found.notes == (": read as an e-invoice; left out: Signature",)


@pytest.mark.parametrize(
    ("content", "attributes", "page", "note"),
    [
        (b"Bill 17", "filename='a.txt' mimeCode='text/plain'", "# a.txt\n\nBill 17", ""),
        (pdf(["Bill 17"]), "filename='a.pdf' mimeCode='application/pdf'", "# a.pdf\n\nBill 17", ""),
        (pdf(["Bill 17"]), "", "# file 1\n\nBill 17", ""),
        (bill().encode(), "filename='b.xml'", "# b.xml\n\nOther document", "read as an e-invoice"),
        (b"\x00\x01", "filename='a.dwg'", "", "embedded file 'a.dwg' is not read: "),
        (b"", "filename='a.pdf'", "", "embedded file 'a.pdf' is not read: it is empty"),
        ("%%%", "filename='a.pdf'", "", "embedded file 'a.pdf' is not read: its base64 is damaged"),
        ("ÄÖÜ", "filename='a.pdf'", "", "embedded file 'a.pdf' is not read: its base64 is damaged"),
    ],
    ids=["text", "pdf", "unnamed", "invoice", "unknown", "empty", "no base64", "no ASCII"],
)
def test_a_file_in_an_invoice_is_a_page_behind_it_or_named(
    content: bytes | str, attributes: str, page: str, note: str, tmp_path: Path
) -> None:
    written = content if isinstance(content, str) else base64.encodebytes(content).decode()
    path = tmp_path / "bill.xml"
    path.write_text(
        bill(
            "<AdditionalDocumentReference><Attachment><EmbeddedDocumentBinaryObject "
            f"{attributes}>{written}</EmbeddedDocumentBinaryObject></Attachment>"
            "</AdditionalDocumentReference>"
        )
    )
    found = read_here(path)
    assert len(found.pages) == 1 + bool(page)
    assert found.pages[-1].startswith(page or "Other document")
    assert any(note in text for text in found.notes[1:]) is bool(note)
    assert "Attached document: " in found.pages[0]


def test_entities_in_an_invoice_within_a_text_are_never_expanded() -> None:
    inner = "<!DOCTYPE a [<!ENTITY e 'MIIIO'>]>" + bill("<Note>&e;</Note>")
    escaped = inner.replace("&", "&amp;").replace("<", "&lt;")
    found = read_e_invoices(f"<Envelope xmlns='{_UBL}:Invoice-2'>{escaped}</Envelope>")
    assert found.invoices == ()


def test_a_term_that_lies_deep_is_said() -> None:
    deep = bill("<a>" * 30_000 + "wet" + "</a>" * 30_000)
    assert read_e_invoices(deep).text.splitlines()[-3].endswith(": wet")
