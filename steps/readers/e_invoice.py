"""Electronic invoices (EN 16931) in CII (ZUGFeRD, Factur-X, XRechnung) or UBL, as lines of text.

The amount to pay comes last, so that no other one stands behind it. An XML with a DOCTYPE, which
neither syntax has, is none, so that no entity is ever expanded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from xml.etree.ElementTree import Element, ParseError, fromstring

from paddock.engine.system.text import counted

_ROOTS = ("CrossIndustryInvoice", "CrossIndustryDocument", "Invoice", "CreditNote")
_NAMESPACE = re.compile(
    r"""=\s*["']urn:(?:un:unece:uncefact:data:standard:CrossIndustryInvoice|ferd:CrossIndustryDocument"""
    r"""|oasis:names:specification:ubl:schema:xsd:(?:Invoice|CreditNote)-2)\b"""
)
_KINDS = {"326": "Partial invoice", "380": "Invoice", "381": "Credit note"}
_KINDS |= {"325": "Pro forma invoice", "384": "Corrected invoice", "389": "Self-billed invoice"}
"""By code of UNTDID 1001; others are 'Other document'."""
_MOST_NAMED = 5

_PATHS: Mapping[str, tuple[str, str]] = {
    "type": ("*/TypeCode", "InvoiceTypeCode|CreditNoteTypeCode"),
    "number": ("*/ID", "ID"),
    "date": ("*/IssueDateTime/DateTimeString", "IssueDate"),
    "note": ("*/IncludedNote/Content", "Note"),
    "currency": ("//InvoiceCurrencyCode", "DocumentCurrencyCode"),
    "seller": ("//SellerTradeParty", "AccountingSupplierParty/Party"),
    "buyer": ("//BuyerTradeParty", "AccountingCustomerParty/Party"),
    "name": ("Name", "PartyLegalEntity/RegistrationName|PartyName/Name"),
    "place": ("PostalTradeAddress/CityName", "PostalAddress/CityName"),
    "postcode": ("PostalTradeAddress/PostcodeCode", "PostalAddress/PostalZone"),
    "country": ("PostalTradeAddress/CountryID", "PostalAddress/Country/IdentificationCode"),
    "vat_number": ("SpecifiedTaxRegistration/ID[@schemeID='VA']", "PartyTaxScheme/CompanyID"),
    "item": ("//IncludedSupplyChainTradeLineItem", "InvoiceLine|CreditNoteLine"),
    "item_name": ("SpecifiedTradeProduct/Name", "Item/Name"),
    "quantity": ("*/BilledQuantity", "InvoicedQuantity|CreditedQuantity"),
    "price": ("*/NetPriceProductTradePrice/ChargeAmount", "Price/PriceAmount"),
    "item_rate": ("*/*/RateApplicablePercent|*/*/ApplicablePercent", "Item/*/Percent"),
    "item_amount": ("*/*/LineTotalAmount", "LineExtensionAmount"),
    "net": ("//TaxBasisTotalAmount", "LegalMonetaryTotal/TaxExclusiveAmount"),
    "tax": ("//InvoiceCurrencyCode/../ApplicableTradeTax", "TaxTotal/TaxSubtotal"),
    "tax_rate": ("RateApplicablePercent|ApplicablePercent", "TaxCategory/Percent"),
    "tax_basis": ("BasisAmount", "TaxableAmount"),
    "tax_amount": ("CalculatedAmount", "TaxAmount"),
    "prepaid": ("//TotalPrepaidAmount", "LegalMonetaryTotal/PrepaidAmount"),
    "iban": ("//PayeePartyCreditorFinancialAccount/IBANID", "//PayeeFinancialAccount/ID"),
    "terms": ("//SpecifiedTradePaymentTerms/Description", "PaymentTerms/Note"),
    "due": ("//DueDateDateTime/DateTimeString", "DueDate|PaymentMeans/PaymentDueDate"),
    "gross": ("//GrandTotalAmount", "LegalMonetaryTotal/TaxInclusiveAmount"),
    "payable": ("//DuePayableAmount", "LegalMonetaryTotal/PayableAmount"),
}
"""By field, in CII and in UBL: local names, alternatives separated by `|`; `//`: anywhere."""


def e_invoice_text(markup: str) -> tuple[str, str]:
    """Return its lines, empty for what cannot be read as one, and a note; no note: it is none."""
    if not _NAMESPACE.search(markup) or "<!DOCTYPE" in markup:
        return "", ""
    try:
        root = fromstring(markup.strip())
    except (ParseError, ValueError) as error:
        return "", f"is not a valid e-invoice ({error}); it is read as plain text"
    name = root.tag.rpartition("}")[2]
    if name not in _ROOTS:
        return "", ""
    invoice = _Invoice(root, is_ubl=not name.startswith("Cross"))
    text = "\n".join(" ".join(line.split()) for line in invoice.lines() if line.strip())
    left = [
        e for e in root.iter() if e not in invoice.read and not len(e) and (e.text or "").strip()
    ]
    names = list(dict.fromkeys(e.tag.rpartition("}")[2] for e in left))
    shown = ", ".join([*names[:_MOST_NAMED], *(["…"] if len(names) > _MOST_NAMED else [])])
    what = f", {counted(len(left), 'field')} left out ({shown})" if left else ""
    return text, f": read as an e-invoice{what}"


class _Invoice:
    def __init__(self, root: Element, *, is_ubl: bool) -> None:
        self.root, self.is_ubl = root, is_ubl
        self.read = set[Element]()
        self.currency = self.text("currency")

    def lines(self) -> Iterator[str]:
        text, amount = self.text, self.amount
        code = text("type") or ("381" if self.root.tag.endswith("}CreditNote") else "")
        code = code if code.isdecimal() else ""  # else a line of the sender's own
        kind = _KINDS.get(code, "Other document")
        yield from (f"E-invoice of type {code}", kind, f"{kind} number: {text('number')}")
        yield f"{kind} date: {text('date')}"
        yield from ("Seller:", *self.party("seller"))
        yield f"Buyer: {', '.join(self.party('buyer'))}"
        yield f"Currency: {self.currency}"
        yield from (f"Note: {self.value(e)}" for e in self.all("note"))
        for n, item in enumerate(self.all("item"), 1):
            units = [e.get("unitCode", "") for e in self.all("quantity", item)]
            what = f"{text('quantity', item)} {' '.join(units)} {text('item_name', item)}"
            price, rate = amount("price", item), text("item_rate", item)
            each = (price and f"at {price}", rate and f"with VAT {rate} %")
            yield f"Item {n}: {what} {' '.join(each)} = {amount('item_amount', item)}"
        yield f"Net: {amount('net')}"
        for tax in self.all("tax"):
            rate, basis = text("tax_rate", tax), amount("tax_basis", tax)
            yield f"VAT {rate} % on {basis}: {amount('tax_amount', tax)}"
        for label, name in (("Payment terms", "terms"), ("IBAN", "iban"), ("Pay by", "due")):
            yield from (f"{label}: {self.value(e)}" for e in self.all(name))
        for label, name in (("Prepaid", "prepaid"), ("Total", "gross"), ("Amount due", "payable")):
            if value := amount(name):
                yield f"{label}: {value}"

    def all(self, name: str, within: Element | None = None) -> list[Element]:
        found = list[Element]()
        for path in _PATHS[name][self.is_ubl].split("|"):
            steps = re.sub(r"(?<![\w'@])([A-Z])", r"{*}\1", path)
            start = self.root if within is None else within
            found = found or start.findall(f".{'' if path.startswith('//') else '/'}{steps}")
        return found

    def party(self, role: str) -> Iterator[str]:
        for party in self.all(role)[:1]:
            yield self.text("name", party)
            place = " ".join(self.text(part, party) for part in ("country", "postcode", "place"))
            if place.strip():
                yield f"Place: {place}"
            if number := self.text("vat_number", party):
                yield f"VAT number: {number}"

    def text(self, name: str, within: Element | None = None) -> str:
        """Return that of the first; a second one is left out."""
        return next(map(self.value, self.all(name, within)), "")

    def value(self, element: Element) -> str:
        self.read.add(element)
        text = (element.text or "").strip()
        is_day = element.get("format") == "102"
        return f"{text[:4]}-{text[4:6]}-{text[6:]}" if is_day else text

    def amount(self, name: str, within: Element | None = None) -> str:
        """Return all with two decimals or more and their currencies; no numbers as they stand."""
        amounts = list[str]()
        for element in self.all(name, within):
            value = self.value(element)
            with suppress(InvalidOperation):
                if (number := Decimal(value)) == round(number, 2):
                    value = f"{number:.2f}"
            amounts.append(f"{value} {element.get('currencyID') or self.currency}")
        return ", ".join(amounts)
