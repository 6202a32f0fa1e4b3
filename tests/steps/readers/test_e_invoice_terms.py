"""Each term of each syntax, with a value of its own, is in the text, on a page or in the note."""

import base64
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

import pytest

from paddock.steps.readers.e_invoice_syntaxes import NamedTerm, terms_of
from paddock.steps.readers.reader import Document
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
