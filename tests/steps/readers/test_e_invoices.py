"""E-invoices: the XML as lines of text, as a document or attached to a PDF."""

from pathlib import Path

import pytest

from tests.fakes.readers import read_here

from .test_pdf_annotations import read, with_files

_CII = """<?xml version="1.0" encoding="ISO-8859-1"?>
<r:CrossIndustryInvoice xmlns:r="urn:un:unece:uncefact:data:standard:CrossIndustryInvoice:100">
<r:ExchangedDocument><r:ID>24-1</r:ID><r:TypeCode>380</r:TypeCode><r:IssueDateTime>
<r:DateTimeString format="102">20240403</r:DateTimeString></r:IssueDateTime></r:ExchangedDocument>
<r:Trade><r:IncludedSupplyChainTradeLineItem><r:SpecifiedTradeProduct><r:Name>Süd rope</r:Name>
</r:SpecifiedTradeProduct><r:D><r:BilledQuantity unitCode="MTR">20</r:BilledQuantity></r:D>
<r:S><r:M><r:LineTotalAmount>70.5880</r:LineTotalAmount></r:M></r:S>
</r:IncludedSupplyChainTradeLineItem><r:Agreement><r:BuyerReference>Ann</r:BuyerReference>
<r:SellerTradeParty><r:Name>Calder Boatyard</r:Name></r:SellerTradeParty></r:Agreement>
<r:Settlement><r:InvoiceCurrencyCode>EUR</r:InvoiceCurrencyCode><r:ApplicableTradeTax>
<r:CalculatedAmount>13.41</r:CalculatedAmount><r:BasisAmount>70.59</r:BasisAmount>
<r:ApplicablePercent>19</r:ApplicablePercent></r:ApplicableTradeTax>
<r:Sum><r:TaxBasisTotalAmount>70.590</r:TaxBasisTotalAmount><r:GrandTotalAmount>84</r:GrandTotalAmount>
<r:DuePayableAmount>84.0000</r:DuePayableAmount></r:Sum></r:Settlement></r:Trade></r:CrossIndustryInvoice>"""
_CII_LINES = """Commercial invoice (380)\nInvoice number: 24-1\nInvoice date: 2024-04-03
Seller:\nCalder Boatyard\nBuyer:\nCurrency: EUR
Item 1: 20 MTR Süd rope = 70.5880 EUR
Net: 70.59 EUR\nVAT 19 % on 70.59 EUR: 13.41 EUR\nTotal: 84.00 EUR\nAmount due: 84.00 EUR"""
_CII_NOTE = ": read as an e-invoice"
_UBL = """<CreditNote xmlns="urn:oasis:names:specification:ubl:schema:xsd:CreditNote-2">
<ID>C-7</ID><IssueDate>2026-02-01</IssueDate><DocumentCurrencyCode>GBP</DocumentCurrencyCode>
<LegalMonetaryTotal><PayableAmount currencyID="GBP">-11.9</PayableAmount></LegalMonetaryTotal>
<CreditNoteLine><ID>1</ID><Item><Name>Rope</Name></Item></CreditNoteLine></CreditNote>"""
_UBL_LINES = """Credit note (381): nothing is to be paid on it\nCredit note number: C-7
Credit note date: 2026-02-01\nSeller:\nBuyer:\nCurrency: GBP\nItem 1: Rope
Net:\nCredit, not to be paid: -11.90 GBP"""


@pytest.mark.parametrize(
    ("markup", "text", "note"),
    [
        (_CII, _CII_LINES, _CII_NOTE),
        (_UBL, _UBL_LINES, ": read as an e-invoice"),
        (f"<Envelope><Head/>{_UBL}</Envelope>", _UBL_LINES, ": read as an e-invoice"),
        (f"<!DOCTYPE a>\n{_UBL}", f"<!DOCTYPE a>\n{_UBL}", ""),
        ("<Invoice>84</Invoice>", "<Invoice>84</Invoice>", ""),
    ],
)
def test_an_e_invoice_is_read_as_lines(markup: str, text: str, note: str, tmp_path: Path) -> None:
    path = tmp_path / "bill.xml"
    path.write_text(markup, "latin-1")
    found = read_here(path)
    assert (found.text, found.notes) == (text, (f"'bill.xml'{note}.",) if note else ())


def test_an_e_invoice_in_a_pdf_stands_behind_its_page_and_a_broken_one_as_it_is() -> None:
    broken = _UBL[:-9]
    found = read(with_files({"a.xml": _CII.encode("latin-1"), "b.xml": broken.encode()}))
    assert found.pages == ("Invoice 17", f"# a.xml\n\n{_CII_LINES}", f"# b.xml\n\n{broken}")
    assert found.notes[0] == f": attachment 'a.xml'{_CII_NOTE}"
    assert "'b.xml' is not a valid e-invoice (unclosed token" in found.notes[1]
