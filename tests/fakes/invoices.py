"""E-invoices of a seed, in CII and UBL, with the page that shows them; and what may be false."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from io import BytesIO
from random import Random

import pypdfium2  # type: ignore[import-untyped]

from .pdf import pdf

_CENT = Decimal("0.01")
_GOODS = ("Rope", "Slip rent", "Paint & primer", "Fuel", "Hull inspection")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September")
IBANS = ("DE02120300000000202051", "DE02500105170137075030", "FR1420041010050500013M02606")


@dataclass(frozen=True)
class Line:
    name: str
    quantity: int
    price: Decimal
    per: int
    allowance: Decimal
    rate: int

    @property
    def amount(self) -> Decimal:
        return _cents(self.quantity * self.price / self.per) - self.allowance


def hybrid(page: str, xml: str) -> bytes:
    """Return a PDF of this page with the XML attached, as Factur-X has it."""
    document = pypdfium2.PdfDocument(pdf([page]))
    document.new_attachment("factur-x.xml").set_data(xml.encode())
    made = BytesIO()
    document.save(made)
    return made.getvalue()


class Made:
    """The values of an invoice; `xml` and `page` may be given others."""

    def __init__(self, seed: int) -> None:
        random = Random(seed)
        self.syntax = random.choice(("cii", "ubl"))
        self.style = random.choice(("1,234.56", "1.234,56"))
        self.lines = [
            Line(
                random.choice(_GOODS), random.randrange(1, 300),
                Decimal(random.randrange(100, 20000)) / 100, random.choice((1, 1, 1, 100)),
                Decimal(random.choice((0, 0, 0, 125))) / 100, random.choice((19, 7)),
            )
            for _ in range(random.randrange(2, 6))
        ]  # fmt: skip
        rates = sorted({line.rate for line in self.lines})
        self.allowance = Decimal(random.choice((0, 0, 1050))) / 100
        self.charge = Decimal(random.choice((0, 0, 495))) / 100
        self.prepaid = Decimal(random.choice((0, 0, 5000))) / 100
        self.rounding = Decimal(random.choice((0, 0, 0, 2))) / 100
        more = {rates[0]: self.charge - self.allowance}
        self.taxes = [
            (rate, basis, _cents(basis * rate / 100))
            for rate in rates
            for basis in [
                sum((n.amount for n in self.lines if n.rate == rate), more.get(rate, Decimal(0)))
            ]
        ]
        total = sum((line.amount for line in self.lines), Decimal(0))
        tax = sum((tax for _, _, tax in self.taxes), Decimal(0))
        net = total - self.allowance + self.charge
        self.values: dict[str, str] = {
            "number": f"R-{random.randrange(1000, 9999)}",
            "date": f"2026-0{random.randrange(1, 6)}-{random.randrange(10, 28)}",
            "due": f"2026-0{random.randrange(7, 9)}-{random.randrange(10, 28)}",
            "currency": "EUR", "iban": random.choice(IBANS), "lines": f"{total}",
            "allowances": f"{self.allowance}", "charges": f"{self.charge}", "net": f"{net}",
            "tax": f"{tax}", "gross": f"{net + tax}",
            "payable": f"{net + tax - self.prepaid + self.rounding}",
            "item": f"{self.lines[-1].amount}", "vat": f"{self.taxes[-1][2]}",
        }  # fmt: skip

    def page(self, **other: str) -> str:
        value = {**self.values, **other}
        known = {self.values[name]: text for name, text in other.items()}

        def money(text: str) -> str:
            shown = f"{Decimal(known.get(text, text)):,.2f}"
            return shown if self.style == "1,234.56" else shown.translate({44: ".", 46: ","})

        def day(text: str) -> str:
            year, month, day = map(int, text.split("-"))
            english = f"{day} {_MONTHS[month - 1]} {year}"
            return english if self.style == "1,234.56" else f"{day:02}.{month:02}.{year}"

        rows = [
            f"{n.quantity} {n.name} at {money(str(n.price))}: {money(str(n.amount))}"
            for n in self.lines
        ]
        taxes = [f"VAT {rate} % of {money(str(b))}: {money(str(t))}" for rate, b, t in self.taxes]
        return "\n".join((
            "Calder Boatyard", f"Invoice number: {value['number']} of {day(value['date'])}", *rows,
            *([f"Rebate: {money(str(self.allowance))}"] if self.allowance else []),
            *([f"Freight: {money(str(self.charge))}"] if self.charge else []),
            f"Net: {money(value['net'])}", *taxes, f"Tax: {money(value['tax'])}",
            f"Total: {money(value['gross'])}",
            *([f"Paid: {money(str(self.prepaid))}"] if self.prepaid else []),
            f"To pay by {day(value['due'])}: {money(value['payable'])} {value['currency']}",
            f"IBAN: {' '.join(value['iban'][i : i + 4] for i in range(0, 34, 4)).strip()}",
        ))  # fmt: skip

    def xml(self, **other: str) -> str:
        return _WRITERS[self.syntax](self, {**self.values, **other})


def _cii(made: Made, value: dict[str, str]) -> str:
    def allowance(amount: Decimal, is_charge: bool, reason: str, rate: int | None) -> str:
        tax = rate is not None and (
            "<a:CategoryTradeTax><a:TypeCode>VAT</a:TypeCode><a:CategoryCode>S</a:CategoryCode>"
            f"<a:RateApplicablePercent>{rate}</a:RateApplicablePercent></a:CategoryTradeTax>"
        )
        return (
            amount
            and (
                f"<a:SpecifiedTradeAllowanceCharge><a:ChargeIndicator><u:Indicator>"
                f"{str(is_charge).lower()}</u:Indicator></a:ChargeIndicator>"
                f"<a:ActualAmount>{amount}</a:ActualAmount><a:Reason>{reason}</a:Reason>{tax or ''}"
                "</a:SpecifiedTradeAllowanceCharge>"
            )
        ) or ""

    items = "".join(
        "<a:IncludedSupplyChainTradeLineItem><a:AssociatedDocumentLineDocument>"
        f"<a:LineID>{n}</a:LineID></a:AssociatedDocumentLineDocument><a:SpecifiedTradeProduct>"
        f"<a:Name>{_escaped(line.name)}</a:Name></a:SpecifiedTradeProduct>"
        "<a:SpecifiedLineTradeAgreement><a:NetPriceProductTradePrice>"
        f"<a:ChargeAmount>{line.price}</a:ChargeAmount>"
        f'<a:BasisQuantity unitCode="C62">{line.per}</a:BasisQuantity>'
        "</a:NetPriceProductTradePrice></a:SpecifiedLineTradeAgreement>"
        f'<a:SpecifiedLineTradeDelivery><a:BilledQuantity unitCode="C62">{line.quantity}'
        "</a:BilledQuantity></a:SpecifiedLineTradeDelivery><a:SpecifiedLineTradeSettlement>"
        "<a:ApplicableTradeTax><a:TypeCode>VAT</a:TypeCode><a:CategoryCode>S</a:CategoryCode>"
        f"<a:RateApplicablePercent>{line.rate}</a:RateApplicablePercent></a:ApplicableTradeTax>"
        f"{allowance(line.allowance, False, 'Scratched', None)}"
        "<a:SpecifiedTradeSettlementLineMonetarySummation><a:LineTotalAmount>"
        f"{value['item'] if line is made.lines[-1] else line.amount}</a:LineTotalAmount>"
        "</a:SpecifiedTradeSettlementLineMonetarySummation></a:SpecifiedLineTradeSettlement>"
        "</a:IncludedSupplyChainTradeLineItem>"
        for n, line in enumerate(made.lines, 1)
    )
    taxes = "".join(
        "<a:ApplicableTradeTax><a:CalculatedAmount>"
        f"{value['vat'] if rate == made.taxes[-1][0] else tax}</a:CalculatedAmount>"
        f"<a:TypeCode>VAT</a:TypeCode><a:BasisAmount>{basis}</a:BasisAmount>"
        f"<a:CategoryCode>S</a:CategoryCode><a:RateApplicablePercent>{rate}"
        "</a:RateApplicablePercent></a:ApplicableTradeTax>"
        for rate, basis, tax in made.taxes
    )
    rate = made.taxes[0][0]
    day = {name: value[name].replace("-", "") for name in ("date", "due")}
    return (
        '<r:CrossIndustryInvoice xmlns:r="urn:un:unece:uncefact:data:standard:CrossIndustryInvoice'
        ':100" xmlns:a="urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformation'
        'Entity:100" xmlns:u="urn:un:unece:uncefact:data:standard:UnqualifiedDataType:100">'
        "<r:ExchangedDocumentContext><a:GuidelineSpecifiedDocumentContextParameter><a:ID>"
        "urn:cen.eu:en16931:2017</a:ID></a:GuidelineSpecifiedDocumentContextParameter>"
        f"</r:ExchangedDocumentContext><r:ExchangedDocument><a:ID>{value['number']}</a:ID>"
        '<a:TypeCode>380</a:TypeCode><a:IssueDateTime><u:DateTimeString format="102">'
        f"{day['date']}</u:DateTimeString></a:IssueDateTime></r:ExchangedDocument>"
        f"<r:SupplyChainTradeTransaction>{items}<a:ApplicableHeaderTradeAgreement>"
        "<a:SellerTradeParty><a:Name>Calder Boatyard</a:Name><a:PostalTradeAddress><a:CountryID>DE"
        "</a:CountryID></a:PostalTradeAddress><a:SpecifiedTaxRegistration>"
        '<a:ID schemeID="VA">DE123456789</a:ID></a:SpecifiedTaxRegistration></a:SellerTradeParty>'
        "<a:BuyerTradeParty><a:Name>Quill Ltd</a:Name><a:PostalTradeAddress><a:CountryID>DE"
        "</a:CountryID></a:PostalTradeAddress></a:BuyerTradeParty>"
        "</a:ApplicableHeaderTradeAgreement><a:ApplicableHeaderTradeDelivery/>"
        "<a:ApplicableHeaderTradeSettlement>"
        f"<a:InvoiceCurrencyCode>{value['currency']}</a:InvoiceCurrencyCode>"
        "<a:SpecifiedTradeSettlementPaymentMeans><a:TypeCode>58</a:TypeCode>"
        f"<a:PayeePartyCreditorFinancialAccount><a:IBANID>{value['iban']}</a:IBANID>"
        "</a:PayeePartyCreditorFinancialAccount></a:SpecifiedTradeSettlementPaymentMeans>"
        f"{taxes}{allowance(made.allowance, False, 'Rebate', rate)}"
        f"{allowance(made.charge, True, 'Freight', rate)}<a:SpecifiedTradePaymentTerms>"
        f'<a:DueDateDateTime><u:DateTimeString format="102">{day["due"]}</u:DateTimeString>'
        "</a:DueDateDateTime></a:SpecifiedTradePaymentTerms>"
        "<a:SpecifiedTradeSettlementHeaderMonetarySummation>"
        f"<a:LineTotalAmount>{value['lines']}</a:LineTotalAmount>"
        f"<a:ChargeTotalAmount>{value['charges']}</a:ChargeTotalAmount>"
        f"<a:AllowanceTotalAmount>{value['allowances']}</a:AllowanceTotalAmount>"
        f"<a:TaxBasisTotalAmount>{value['net']}</a:TaxBasisTotalAmount>"
        f'<a:TaxTotalAmount currencyID="{value["currency"]}">{value["tax"]}</a:TaxTotalAmount>'
        f"<a:RoundingAmount>{made.rounding}</a:RoundingAmount>"
        f"<a:GrandTotalAmount>{value['gross']}</a:GrandTotalAmount>"
        f"<a:TotalPrepaidAmount>{made.prepaid}</a:TotalPrepaidAmount>"
        f"<a:DuePayableAmount>{value['payable']}</a:DuePayableAmount>"
        "</a:SpecifiedTradeSettlementHeaderMonetarySummation></a:ApplicableHeaderTradeSettlement>"
        "</r:SupplyChainTradeTransaction></r:CrossIndustryInvoice>"
    )


def _ubl(made: Made, value: dict[str, str]) -> str:
    currency = f'currencyID="{value["currency"]}"'
    scheme = "<a:TaxScheme><b:ID>VAT</b:ID></a:TaxScheme>"

    def category(rate: int, name: str = "TaxCategory") -> str:
        return f"<a:{name}><b:ID>S</b:ID><b:Percent>{rate}</b:Percent>{scheme}</a:{name}>"

    def allowance(amount: Decimal, is_charge: bool, reason: str, rate: int | None) -> str:
        return (
            amount
            and (
                f"<a:AllowanceCharge><b:ChargeIndicator>{str(is_charge).lower()}</b:ChargeIndicator>"
                f"<b:AllowanceChargeReason>{reason}</b:AllowanceChargeReason>"
                f"<b:Amount {currency}>{amount}</b:Amount>{category(rate) if rate else ''}"
                "</a:AllowanceCharge>"
            )
        ) or ""

    items = "".join(
        f'<a:InvoiceLine><b:ID>{n}</b:ID><b:InvoicedQuantity unitCode="C62">{line.quantity}'
        f"</b:InvoicedQuantity><b:LineExtensionAmount {currency}>"
        f"{value['item'] if line is made.lines[-1] else line.amount}</b:LineExtensionAmount>"
        f"{allowance(line.allowance, False, 'Scratched', None)}<a:Item><b:Name>"
        f"{_escaped(line.name)}</b:Name>{category(line.rate, 'ClassifiedTaxCategory')}</a:Item>"
        f"<a:Price><b:PriceAmount {currency}>{line.price}</b:PriceAmount>"
        f'<b:BaseQuantity unitCode="C62">{line.per}</b:BaseQuantity></a:Price></a:InvoiceLine>'
        for n, line in enumerate(made.lines, 1)
    )
    taxes = "".join(
        f"<a:TaxSubtotal><b:TaxableAmount {currency}>{basis}</b:TaxableAmount>"
        f"<b:TaxAmount {currency}>{value['vat'] if rate == made.taxes[-1][0] else tax}"
        f"</b:TaxAmount>{category(rate)}</a:TaxSubtotal>"
        for rate, basis, tax in made.taxes
    )
    rate = made.taxes[0][0]
    sums = {
        "LineExtensionAmount": value["lines"], "TaxExclusiveAmount": value["net"],
        "TaxInclusiveAmount": value["gross"], "AllowanceTotalAmount": value["allowances"],
        "ChargeTotalAmount": value["charges"], "PrepaidAmount": made.prepaid,
        "PayableRoundingAmount": made.rounding, "PayableAmount": value["payable"],
    }  # fmt: skip
    xsd = "urn:oasis:names:specification:ubl:schema:xsd:"
    return (
        f'<Invoice xmlns="{xsd}Invoice-2" xmlns:a="{xsd}CommonAggregateComponents-2" '
        f'xmlns:b="{xsd}CommonBasicComponents-2"><b:CustomizationID>urn:cen.eu:en16931:2017'
        f"</b:CustomizationID><b:ID>{value['number']}</b:ID><b:IssueDate>{value['date']}"
        f"</b:IssueDate><b:DueDate>{value['due']}</b:DueDate><b:InvoiceTypeCode>380"
        f"</b:InvoiceTypeCode><b:DocumentCurrencyCode>{value['currency']}</b:DocumentCurrencyCode>"
        "<a:AccountingSupplierParty><a:Party><a:PostalAddress><a:Country><b:IdentificationCode>DE"
        "</b:IdentificationCode></a:Country></a:PostalAddress><a:PartyTaxScheme><b:CompanyID>"
        f"DE123456789</b:CompanyID>{scheme}</a:PartyTaxScheme><a:PartyLegalEntity>"
        "<b:RegistrationName>Calder Boatyard</b:RegistrationName></a:PartyLegalEntity></a:Party>"
        "</a:AccountingSupplierParty><a:AccountingCustomerParty><a:Party><a:PostalAddress>"
        "<a:Country><b:IdentificationCode>DE</b:IdentificationCode></a:Country></a:PostalAddress>"
        "<a:PartyLegalEntity><b:RegistrationName>Quill Ltd</b:RegistrationName>"
        "</a:PartyLegalEntity></a:Party></a:AccountingCustomerParty><a:PaymentMeans>"
        "<b:PaymentMeansCode>58</b:PaymentMeansCode><a:PayeeFinancialAccount>"
        f"<b:ID>{value['iban']}</b:ID></a:PayeeFinancialAccount></a:PaymentMeans>"
        f"{allowance(made.allowance, False, 'Rebate', rate)}"
        f"{allowance(made.charge, True, 'Freight', rate)}<a:TaxTotal><b:TaxAmount {currency}>"
        f"{value['tax']}</b:TaxAmount>{taxes}</a:TaxTotal><a:LegalMonetaryTotal>"
        + "".join(f"<b:{name} {currency}>{sums[name]}</b:{name}>" for name in sums)
        + f"</a:LegalMonetaryTotal>{items}</Invoice>"
    )


_WRITERS: dict[str, Callable[[Made, dict[str, str]], str]] = {"cii": _cii, "ubl": _ubl}


def _cents(amount: Decimal) -> Decimal:
    return amount.quantize(_CENT, ROUND_HALF_UP)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;")
