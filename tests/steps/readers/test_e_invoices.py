"""E-invoices: the XML as lines of text, as a document or attached to a PDF."""

from functools import reduce
from pathlib import Path

import pytest

from paddock.steps.readers.e_invoice import read_e_invoices
from tests.fakes.invoices import Made
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
Trade agreement buyer reference: Ann
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


_MADE = {made.syntax: made.xml() for made in map(Made, range(8))}
_TAX = "<a:TypeCode>VAT</a:TypeCode><a:BasisAmount>"
_PAID_IN_TIME = """<a:ApplicableTradePaymentDiscountTerms><a:BasisPeriodMeasure unitCode="DAY">10
</a:BasisPeriodMeasure><a:BasisAmount>90</a:BasisAmount><a:CalculationPercent>2</a:CalculationPercent>
</a:ApplicableTradePaymentDiscountTerms>"""
_GROUP = """<a:IncludedSupplyChainTradeLineItem><a:AssociatedDocumentLineDocument>
<a:LineID>G</a:LineID><a:LineStatusReasonCode>GROUP</a:LineStatusReasonCode></a:AssociatedDocumentLineDocument><a:T><a:S>
<a:LineTotalAmount>500</a:LineTotalAmount></a:S></a:T></a:IncludedSupplyChainTradeLineItem>"""
_INNER = """<a:SubInvoiceLine><b:ID>1a</b:ID><b:LineExtensionAmount currencyID="EUR">5
</b:LineExtensionAmount><a:Item><b:Name>Knot</b:Name></a:Item></a:SubInvoiceLine>"""
_SIMPLIFIED = """<p:FatturaElettronicaSemplificata versione="FSM10"
xmlns:p="http://ivaservizi.agenziaentrate.gov.it/docs/xsd/fatture/v1.0"><FatturaElettronicaHeader>
<CedentePrestatore><IdFiscaleIVA><IdPaese>IT</IdPaese><IdCodice>01234567890</IdCodice>
</IdFiscaleIVA><Denominazione>Cantiere Porto</Denominazione><Sede><CAP>34100</CAP>
<Comune>Trieste</Comune><Nazione>IT</Nazione></Sede></CedentePrestatore><CessionarioCommittente>
<AltriDatiIdentificativi><Nome>Ada</Nome><Cognome>Riva</Cognome></AltriDatiIdentificativi>
</CessionarioCommittente></FatturaElettronicaHeader><FatturaElettronicaBody><DatiGenerali>
<DatiGeneraliDocumento><TipoDocumento>TD08</TipoDocumento><Divisa>EUR</Divisa><Data>2026-03-02</Data>
<Numero>7/S</Numero></DatiGeneraliDocumento><DatiFatturaRettificata><NumeroFR>5/S</NumeroFR>
</DatiFatturaRettificata></DatiGenerali><DatiBeniServizi><Descrizione>Corda</Descrizione>
<Importo>12.20</Importo><DatiIVA><Aliquota>22.00</Aliquota></DatiIVA></DatiBeniServizi>
<DatiBeniServizi><Descrizione>Nodo</Descrizione><Importo>10.00</Importo><DatiIVA>
<Imposta>1.80</Imposta></DatiIVA></DatiBeniServizi></FatturaElettronicaBody>
</p:FatturaElettronicaSemplificata>"""
_FATTURA = """<p:FatturaElettronica versione="FPR12"
xmlns:p="http://ivaservizi.agenziaentrate.gov.it/docs/xsd/fatture/v1.2"><FatturaElettronicaHeader>
<CedentePrestatore><DatiAnagrafici><IdFiscaleIVA><IdPaese>IT</IdPaese><IdCodice>01234567890</IdCodice>
</IdFiscaleIVA><Anagrafica><Nome>Ada</Nome><Cognome>Porto</Cognome></Anagrafica></DatiAnagrafici>
</CedentePrestatore></FatturaElettronicaHeader><FatturaElettronicaBody><DatiGenerali>
<DatiGeneraliDocumento><TipoDocumento>TD01</TipoDocumento><Divisa>EUR</Divisa><Data>2026-03-02</Data>
<Numero>7</Numero><DatiRitenuta><ImportoRitenuta>20.00</ImportoRitenuta></DatiRitenuta>
<ImportoTotaleDocumento>122.00</ImportoTotaleDocumento></DatiGeneraliDocumento></DatiGenerali>
<DatiBeniServizi><DettaglioLinee><NumeroLinea>1</NumeroLinea><Descrizione>Corda</Descrizione>
<Quantita>10</Quantita><PrezzoUnitario>10.00</PrezzoUnitario><PrezzoTotale>100.00</PrezzoTotale>
<AliquotaIVA>22.00</AliquotaIVA></DettaglioLinee><DatiRiepilogo><AliquotaIVA>22.00</AliquotaIVA>
<ImponibileImporto>100.00</ImponibileImporto><Imposta>22.00</Imposta></DatiRiepilogo>
</DatiBeniServizi><DatiPagamento><DettaglioPagamento><ImportoPagamento>102.00</ImportoPagamento>
</DettaglioPagamento></DatiPagamento></FatturaElettronicaBody></p:FatturaElettronica>"""
_FA3 = (Path(__file__).parent / "data" / "ksef-fa3.xml").read_text("utf-8")
"""Valid by the schema of FA(3) that PyPI's ksef-client 0.20.0 carries."""
_OF_AN_ORDER = {
    "jFaktury>VAT": "jFaktury>ROZ", "1>200.00": "1>80.00", "46.00": "18.40", "296.00": "148.40",
    "306.00": "158.40",
}  # fmt: skip


def changed(syntax: str, place: str, more: str) -> str:
    assert place in _MADE[syntax]
    return _MADE[syntax].replace(place, more + place, 1)


@pytest.mark.parametrize(
    ("markup", "lines"),
    [
        (
            changed(
                "cii",
                "<a:SpecifiedTradeSettlementPaymentMeans>",
                "<a:PayeeTradeParty><a:Name>Factor Ltd</a:Name></a:PayeeTradeParty>",
            ),
            ["Pay to: Factor Ltd, not to the seller"],
        ),
        (
            changed("cii", "</a:SpecifiedTradePaymentTerms>", _PAID_IN_TIME),
            ["Discount for early payment: 2 % of 90.00 EUR within 10 days"],
        ),
        (
            changed(
                "ubl",
                "<a:LegalMonetaryTotal>",
                '<a:TaxTotal><b:TaxAmount currencyID="GBP">12.5</b:TaxAmount></a:TaxTotal>',
            ),
            ["VAT in GBP: 12.50 GBP"],
        ),
        (
            changed("cii", _TAX, "<a:ExemptionReasonCode>VATEX-EU-AE</a:ExemptionReasonCode>"),
            ["(Reverse charge)"],
        ),
        (
            changed("cii", "<a:ApplicableHeaderTradeAgreement>", _GROUP),
            ["Group G: = 500.00 EUR (a group: its parts count)"],
        ),
        (
            changed("ubl", "</a:InvoiceLine>", _INNER),
            ["Item 1a: Knot = 5.00 EUR (within item 1, in its amount)"],
        ),
        (
            _FATTURA,
            [
                "Ada Porto\nVAT number: 01234567890",
                "Item 1: 10 Corda at 10.00 EUR with VAT 22.00 % = 100.00 EUR",
                "VAT 22.00 % on 100.00 EUR: 22.00 EUR",
                "Tax withheld: 20.00 EUR\nTotal: 122.00 EUR\nAmount due: 102.00 EUR",
            ],
        ),
        (
            _FA3,
            [
                "Stocznia Calder\nPlace: PL 81-336 Gdynia Portowa 1\nVAT number: 5261040828",
                "Item 1: 100 m Lina at 2.10 EUR with VAT 23 % = 200.00 EUR",
                "Discount on item 1, in its amount: 0.10 EUR",
                "VAT on 200.00 EUR: 46.00 EUR",
                "VAT on 50.00 EUR: 0.00 (art. 43 ust. 1 pkt 37)\nVAT in PLN: 195.50 PLN",
                "Discount for early payment: 2% w 7 dni\nPay to: Bank Faktor, not to the seller",
                "Split payment: the tax goes to an account of its own",
                "Added to the total: 10.00 EUR\nTotal: 296.00 EUR\nAmount due: 306.00 EUR",
            ],
        ),
        (
            reduce(lambda xml, to: xml.replace(*to, 1), _OF_AN_ORDER.items(), _FA3),
            ["Net: 130.00 EUR"],
        ),
    ],
    ids=["payee", "discount", "currency", "vatex", "group", "inner", "fatturapa", "ksef", "rest"],
)
def test_what_its_numbers_depend_on_is_said_and_its_sums_agree(
    markup: str, lines: list[str]
) -> None:
    found = read_e_invoices(markup)
    assert [line for line in lines if line not in found.pages[0]] == []
    assert found.notes == (": read as an e-invoice",)
    assert found.invoices[0]["witnesses"] == ["xml", "sums"]


def test_a_simplified_invoice_of_italy_is_what_its_items_make() -> None:
    found = read_e_invoices(_SIMPLIFIED)
    assert found.pages[0].splitlines()[1:] == [
        "Credit note number: 7/S",
        "Credit note date: 2026-03-02",
        "Concerns invoice: 5/S",
        "Seller:",
        "Cantiere Porto",
        "Place: IT 34100 Trieste",
        "VAT number: 01234567890",
        "Seller, VAT registration, country: IT",
        "Buyer: Ada Riva",
        "Currency: EUR",
        "Item 1: Corda with VAT 22.00 % = 12.20 EUR with VAT",
        "Item 2: Nodo = 10.00 EUR with VAT",
        "VAT: 1.80 EUR",
        "Net:",
        "Credit, not to be paid: 22.20 EUR",
    ]
    assert "nothing is to be paid" in found.pages[0]
    assert found.notes[0].endswith("it may change what is paid: Imposta")


@pytest.mark.parametrize(
    ("codes", "kind", "last"),
    [
        (
            "81 83 261 262 296 308 381 396 420 458 502 503 532",
            "credit_note",
            "Credit, not to be paid",
        ),
        ("326 380 384 386 389 751 875 876 877", "invoice", "Amount due"),
        ("999", "other", "Amount due"),
    ],
)
def test_each_kind_of_untdid_1001_says_whether_it_is_to_be_paid(
    codes: str, kind: str, last: str
) -> None:
    xml = Made(1).xml()
    for code in codes.split():
        found = read_e_invoices(xml.replace("TypeCode>380<", f"TypeCode>{code}<", 1))
        assert (found.invoices[0]["kind"], found.invoices[0]["type"]) == (kind, code)
        assert f"({code})" in found.text.splitlines()[0]
        assert found.text.splitlines()[-1].startswith(last)


_TERM = "<Platnosc><TerminPlatnosci>"
_PART = """<ZaplataCzesciowa><KwotaZaplatyCzesciowej>{}</KwotaZaplatyCzesciowej>
<DataZaplatyCzesciowej>2026-03-01</DataZaplatyCzesciowej></ZaplataCzesciowa>"""
_TO_PAY = """<DettaglioPagamento>{}<ImportoPagamento>{}</ImportoPagamento>
</DettaglioPagamento>"""
_ALL = _TO_PAY.format("", "102.00")
_DAY = "<DataScadenzaPagamento>{}</DataScadenzaPagamento>"
_ADVANCE = f"""<CondizioniPagamento>TP03</CondizioniPagamento>{_TO_PAY.format("", "30.00")}
</DatiPagamento><DatiPagamento><CondizioniPagamento>TP02</CondizioniPagamento>
{_TO_PAY.format("", "72.00")}"""
_OF_TWO = f"""<CondizioniPagamento>TP01</CondizioniPagamento>
{_TO_PAY.format(_DAY.format("2026-04-01"), "52.00")}
{_TO_PAY.format(_DAY.format("2026-05-01"), "50.00")}"""
_GROSS = "<ImportoTotaleDocumento>{}</ImportoTotaleDocumento>"
_TOTAL = _GROSS.format("122.00")
_IN_PARTS = f"""<Platnosc><ZnacznikZaplatyCzesciowej>{{}}</ZnacznikZaplatyCzesciowej>
{_PART}{_PART}{_TERM[10:]}"""


@pytest.mark.parametrize(
    ("markup", "old", "new", "payable", "lines"),
    [
        (_FA3, _TERM, f"<Platnosc><Zaplacono>1</Zaplacono>{_TERM[10:]}", 0, "Paid in full: "),
        (_FA3, _TERM, f"<Platnosc><Zaplacono>2</Zaplacono>{_TERM[10:]}", 306, "Pay by: 2026-03-16"),
        (_FA3, _TERM, _IN_PARTS.format(1, 100, 50.5), 155.5, "Paid in part: 100.00 EUR, 50.50 EUR"),
        (_FA3, _TERM, _IN_PARTS.format(2, 200, 106), 0, "Amount due: 0.00 EUR"),
        (_FA3, "DoZaplaty", "DoRozliczenia", 0, "Overpaid and to be settled: 306.00 EUR"),
        (_FATTURA, _ALL, _ADVANCE, 72, "Advance (TP03): 30.00 EUR\nTotal: 122.00 EUR\n"),
        (_FATTURA, _ALL, _OF_TWO, 102, "Instalment: 50.00 EUR by 2026-05-01"),
        (_FATTURA, _ALL, 2 * _ALL, 102, "Amount due: 102.00 EUR"),
        (_FATTURA, _ALL, 2 * _TO_PAY.format("", "122.00"), 122, "Amount due: 122.00 EUR"),
        (_FATTURA, _ALL, "", 102, "Amount due: 102.00 EUR"),
        (_FATTURA, f"{_TOTAL}|{_ALL}", "|", 102, "Amount due: 102.00 EUR"),
        (_FATTURA, f"{_TOTAL}|{_ALL}", f"{_GROSS.format('102')}|", 102, "Amount due: 102.00 EUR"),
        (
            _FATTURA,
            f"{_ALL}|</Imposta>",
            "|</Imposta><EsigibilitaIVA>S</EsigibilitaIVA>",
            80,
            "split payment: not paid to the seller",
        ),
        (_FA3, "P_13_7>", "P_13_11>", 306, "VAT on 50.00 EUR: not shown (margin scheme)"),
    ],
    ids=[
        "paid", "no mark", "in part", "in parts", "overpaid", "advance", "instalments",
        "two ways", "two ways, gross", "no payment", "no total", "total without", "split", "margin",
    ],
)  # fmt: skip
def test_only_what_is_left_to_be_paid_is_due(
    markup: str, old: str, new: str, payable: float, lines: str
) -> None:
    markup = markup.replace("\n", " ")
    for before, after in zip(old.split("|"), new.split("|"), strict=True):
        before = before.replace("\n", " ")
        assert before in markup
        markup = markup.replace(before, after.replace("\n", " "))
    found = read_e_invoices(markup)
    assert found.invoices[0]["payable"] == payable
    assert lines in found.text
    assert found.notes == (": read as an e-invoice",)


_EN = "<CustomizationID>urn:cen.eu:en16931:2017#compliant#urn:fdc:peppol.eu</CustomizationID>"
_THIRD_PARTY = "#conformant#urn:xeinkauf.de:kosit:extension:xrechnung_3.0"
_TOTALS = """<LegalMonetaryTotal><LineExtensionAmount>100</LineExtensionAmount>
<TaxExclusiveAmount>19</TaxExclusiveAmount><TaxInclusiveAmount>119</TaxInclusiveAmount>
<PayableAmount>119</PayableAmount></LegalMonetaryTotal>"""
_LINE = "<InvoiceLine><LineExtensionAmount>100</LineExtensionAmount></InvoiceLine>"


def taxed(*amounts: str, scheme: str = "VAT") -> str:
    return "".join(
        f"<TaxTotal><TaxAmount>{tax}</TaxAmount><TaxSubtotal><TaxableAmount>{basis}</TaxableAmount>"
        f"<TaxAmount>{tax}</TaxAmount><TaxCategory><Percent>{rate}</Percent><TaxScheme>"
        f"<ID>{scheme}</ID></TaxScheme></TaxCategory></TaxSubtotal></TaxTotal>"
        for tax, rate, basis in (amount.split() for amount in amounts)
    )


def ubl(*inner: str, root: str = "Invoice") -> str:
    name = f"urn:oasis:names:specification:ubl:schema:xsd:{root}-2"
    return f"<{root} xmlns='{name}'>{''.join(inner)}</{root}>"


@pytest.mark.parametrize("stated", ["1,190.00", "1E3", "119 <Of/>", "119.00' currencyID='USD"])
def test_what_states_the_amount_due_and_is_no_amount_stands_for_itself(stated: str) -> None:
    text, _, currency = stated.partition("' currencyID='")
    attribute = f" currencyID='{currency}'" if currency else ""
    total = f"<PayableAmount{attribute}>{text}</PayableAmount>"
    totals = _TOTALS.replace("<PayableAmount>119</PayableAmount>", total)
    found = read_e_invoices(
        ubl("<DocumentCurrencyCode>EUR</DocumentCurrencyCode>", totals.replace(">19<", ">100<"))
    )
    is_amount = text.startswith("119 ")
    assert found.invoices[0]["payable"] == (119 if is_amount else None)
    due = "119.00" if text.startswith("119") else text
    assert found.text.splitlines()[-1] == f"Amount due: {due} {currency or 'EUR'}"


@pytest.mark.parametrize(("extension", "due"), [("", 119), (_THIRD_PARTY, 169)])
def test_a_payment_in_advance_is_added_only_where_it_is_one_to_a_third_party(
    extension: str, due: float
) -> None:
    totals = _TOTALS.replace("<PayableAmount>119</PayableAmount>", "")
    found = read_e_invoices(
        ubl(
            _EN.replace("</", f"{extension}</"),
            "<PrepaidPayment><PaidAmount>50</PaidAmount></PrepaidPayment>",
            totals,
        )
    )
    assert found.invoices[0]["payable"] == due
    assert ("Added to the total: 50.00" in found.text) is bool(extension)
    assert any("may change what is paid: PaidAmount" in n for n in found.notes) is not bool(
        extension
    )


@pytest.mark.parametrize(
    "number",
    [
        "2026-0118",
        "4711-0815",
        "2026-9999",
        "2025-08-28T14:18:51-4c42b50f",
        "2026-01-18",
        "20260118",
    ],
)
def test_only_a_term_that_is_a_day_is_read_as_one(number: str) -> None:
    other = f"<BuyerReference>{number}</BuyerReference><Note>{number}</Note>"
    found = read_e_invoices(
        ubl(
            f"<ID>{number}</ID><IssueDate>2026-03-02+01:00</IssueDate>{other}<PaymentMeans>"
            f"<PaymentID>{number}</PaymentID></PaymentMeans>"
        )
    )
    (invoice,) = found.invoices
    assert (invoice["number"], invoice["reference"]) == (number, number)
    assert invoice["date"] == "2026-03-02"
    lines = {f"Document number: {number}", f"Buyer reference: {number}", f"Note: {number}"}
    assert lines <= {*found.text.splitlines()}
    (in_cii,) = read_e_invoices(_CII.replace(">24-1<", f" format='102'>{number}<")).invoices
    assert (in_cii["number"], in_cii["date"]) == (number, "2024-04-03")


@pytest.mark.parametrize(
    ("account", "code", "iban", "lines"),
    [
        (
            "<ID>GB29 NWBK 6016 1331 9268 19</ID><FinancialInstitutionBranch><ID>NWBKGB2L</ID>"
            "</FinancialInstitutionBranch>",
            "58",
            "GB29 NWBK 6016 1331 9268 19",
            "IBAN: GB29 NWBK 6016 1331 9268 19\nPayment service provider identifier: NWBKGB2L",
        ),
        (
            "<ID>1234567890</ID><FinancialInstitutionBranch><ID>4183</ID>"
            "</FinancialInstitutionBranch>",
            "42",
            "",
            "Account, no IBAN: 1234567890\nPayment service provider identifier: 4183",
        ),
        ("<ID>12-34-56 00012345</ID>", "42", "", "Account, no IBAN: 12-34-56 00012345"),
        ("<ID>81234567</ID>", "93", "", "Account, no IBAN: 81234567"),
        (
            "<ID schemeID='BBAN'>GB29NWBK60161331926819</ID>",
            "42",
            "",
            "Account, no IBAN: GB29NWBK60161331926819\nPayment account identifier, scheme: BBAN",
        ),
        ("<ID>DE02120300000000202052</ID>", "58", "", "Account, no IBAN: DE02120300000000202052"),
        ("<ID>DE0212030000000020205</ID>", "58", "", "Account, no IBAN: DE0212030000000020205"),
    ],
    ids=["iban", "danish", "british", "giro", "scheme", "digits", "length"],
)
def test_an_account_keeps_its_bank_and_is_an_iban_where_it_is_one(
    account: str, code: str, iban: str, lines: str
) -> None:
    means = f"<PaymentMeansCode>{code}</PaymentMeansCode>"
    found = read_e_invoices(
        ubl(
            f"<PaymentMeans>{means}<PayeeFinancialAccount>{account}</PayeeFinancialAccount>"
            "</PaymentMeans><PaymentMeans><PaymentMeansCode>10</PaymentMeansCode></PaymentMeans>"
        )
    )
    assert f"({code})\n{lines}\nPayment means: In cash (10)" in found.text
    assert found.invoices[0]["iban"] == iban
    assert ("iban" in found.invoices[0]["places"]) is bool(iban)


@pytest.mark.parametrize(
    ("root", "code", "kind", "first"),
    [
        ("CreditNote", "91", "credit_note", "Credit note (91): nothing is to be paid on it"),
        ("CreditNote", "NC", "credit_note", "Credit note (NC): nothing is to be paid on it"),
        ("CreditNote", "380", "credit_note", "Credit note (380): nothing is to be paid on it"),
        ("CreditNote", "396", "credit_note", "Factored credit note (396): nothing is to be paid"),
        ("Invoice", "381", "credit_note", "Credit note (381): nothing is to be paid on it"),
        ("Invoice", "01", "other", "Other document (01)"),
    ],
)  # fmt: skip
def test_a_credit_note_is_one_by_its_root_too(root: str, code: str, kind: str, first: str) -> None:
    found = read_e_invoices(ubl(f"<{root}TypeCode>{code}</{root}TypeCode>", root=root))
    assert found.text.startswith(first)
    assert found.invoices[0]["kind"] == kind


@pytest.mark.parametrize(
    ("profile", "rules", "witnesses"),
    [(_EN, ["BR-CO-13", "BR-CO-15"], ["xml", "sums"]), ("", [], ["xml"])],
    ids=["EN 16931", "another"],
)
def test_rules_of_en_16931_hold_where_an_invoice_claims_to_follow_it(
    profile: str, rules: list[str], witnesses: list[str]
) -> None:
    markup = ubl(profile, taxed("19 19 100"), _TOTALS, _LINE)  # of Denmark: net is the tax
    (invoice,) = read_e_invoices(markup).invoices
    found = [found["rule"] for found in invoice["disagreements"]]
    assert (found, invoice["witnesses"]) == (rules, witnesses)
    (wrong,) = read_e_invoices(markup.replace(">100</LineExt", ">90</LineExt", 1)).invoices
    assert wrong["disagreements"][0]["rule"] == ("BR-CO-10" if profile else "sum")


def test_totals_of_several_taxes_are_added_up() -> None:
    totals = _TOTALS.replace(">19<", ">100<").replace(">119<", ">128<")
    found = read_e_invoices(ubl(taxed("20 20 100"), taxed("8 8 100", scheme="GST"), totals, _LINE))
    (invoice,) = found.invoices
    assert (invoice["tax"], invoice["witnesses"]) == (28.0, ["xml", "sums"])
    assert found.notes == (": read as an e-invoice",)
    assert [line for line in found.text.splitlines() if " % on " in line] == [
        "VAT 20 % on 100.00 : 20.00",
        "GST 8 % on 100.00 : 8.00",
    ]


def test_an_invoice_in_a_text_of_its_envelope_is_read() -> None:
    inner = ubl("<ID>7</ID>").replace("<", "&lt;")
    found = read_e_invoices(
        ubl(f"<ID>A</ID><Description>{inner}</Description>", root="AttachedDocument")
    )
    assert [invoice["number"] for invoice in found.invoices] == ["7"]
    assert found.notes[1] == ": what stands around it in AttachedDocument is left out"


def test_what_is_paid_in_parts_has_no_one_day() -> None:
    day, amount = "<PaymentDueDate>2026-03-31</PaymentDueDate>", "<Amount>60</Amount>"
    once, part = (f"<PaymentTerms>{inner}</PaymentTerms>" for inner in (day, day + amount))
    found = [
        read_e_invoices(ubl(terms + terms.replace("03-31", "02-28"))).invoices[0]["due"]
        for terms in (once, part)
    ]
    assert found == ["2026-03-31", ""]  # else the earlier one is of a discount
