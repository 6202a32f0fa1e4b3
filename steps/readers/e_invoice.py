"""Electronic invoices as lines of text, and as records whose witnesses are compared.

Of EN 16931 in CII (ZUGFeRD, Factur-X, XRechnung) and UBL, of Italy's FatturaPA and Poland's KSeF:
`e_invoice_syntaxes`. The amount to pay comes last, so that no other one stands behind it. An XML
with a DOCTYPE, which no syntax has, is none, so that no entity is ever expanded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, fromstring

from paddock.engine.system.text import listed
from paddock.pipelines.e_invoices import EInvoice

from .e_invoice_checks import Sums, check_sums, day_of_terms, is_charge, sum_disagreements
from .e_invoice_syntaxes import TITLES, Places, Reading, Syntax, number_of, readings, text_of
from .reader import Document

_MAY_BE_ONE = re.compile(
    r"CrossIndustry(?:Invoice|Document)|xsd:(?:Invoice|CreditNote)-2|crd\.gov\.pl/wzor|FatturaElettronica"
)
_MOST_NAMED = 5
_MOST_INVOICES = 100
_PLACED = ("number", "date", "currency", "due", "iban", "net", "tax", "gross", "payable")
_LABELS = {"invoice": "Invoice", "credit_note": "Credit note", "other": "Document"}


def read_e_invoices(markup: str) -> Document:
    """Return the lines of each in an XML; without pages it is, or can be read as, none."""
    if not _MAY_BE_ONE.search(markup) or "<!DOCTYPE" in markup:
        return Document(())
    try:
        root = fromstring(markup.strip())
    except (ParseError, ValueError) as error:
        why = f"is not a valid e-invoice ({error}); it is read as plain text"
        return Document((), notes=(why,))
    texts, notes, invoices = list[str](), list[str](), list[EInvoice]()
    for syntax, reading in readings(root):
        if len(invoices) == _MOST_INVOICES:
            notes.append(f": only its first {_MOST_INVOICES} e-invoices are read")
            break
        sums = Sums(syntax, reading)
        invoice = check_sums(_invoice(syntax, sums), sums)
        lines = _Lines(syntax, sums, invoice).all()
        texts.append("\n".join(" ".join(line.split()) for line in lines if line.strip()))
        invoices.append({**invoice, "page": len(texts)})
        notes.append(f": read as an e-invoice{_unread(syntax, reading)}")
        notes += sum_disagreements(invoice)
    return Document(tuple(texts), notes=tuple(dict.fromkeys(notes)), invoices=tuple(invoices))


@cache
def _codes() -> Mapping[str, Mapping[str, str]]:
    """Return names by list and code; `sources` says where each list is from."""
    file = Path(__file__).with_name("e_invoice_codes.json")
    lists: Mapping[str, Mapping[str, str]] = json.loads(file.read_text("utf-8"))
    return lists


def _name(of: str, code: str) -> str:
    return _codes()[of].get(code, "")


def _invoice(syntax: Syntax, sums: Sums) -> EInvoice:
    reading = sums.reading
    own = reading.text("type")
    code = _codes().get(syntax.name, {own: own}).get(own, "")
    if not code and reading.root.tag.endswith("}CreditNote"):
        code = "381"
    credit = _name("credit notes", code)
    name = credit or _name("invoices", code)
    places = Places(reading.root)
    party = next(iter(reading.groups("seller")), None)

    def amount(term: str) -> float | None:
        found = sums.amount(term)
        return float(found.value) if found else None

    gross = amount("gross")
    invoice = EInvoice(
        syntax=syntax.name,
        type=code if name else own,
        kind="credit_note" if credit else "invoice" if name else "other",
        name=name or "Other document",
        number=reading.text("number"),
        date=reading.text("date"),
        currency=reading.text("currency"),
        seller=_party_name(reading, "seller"),
        buyer=_party_name(reading, "buyer"),
        payee=_party_name(reading, "payee") or reading.text("other_payee"),
        iban=reading.text("iban"),
        reference=reading.text("reference"),
        due=reading.text("due"),
        net=amount("net"),
        tax=amount("tax"),
        gross=gross,
        payable=amount("payable") if sums.amount("payable") else gross,
        lines=[float(n) for item in sums.items if (n := item.number("amount")) is not None],
        places={n: places.path(found[0]) for n in _PLACED if (found := reading.all(n))},
        seller_vat=party.text("vat_number") if party else "",
        terms=" ".join(reading.texts("terms")),
        page=1,
        witnesses=["xml"],
        shown=[],
        disagreements=[],
    )
    return invoice if invoice["due"] else {**invoice, "due": day_of_terms(invoice)}


def _party_name(reading: Reading, role: str) -> str:
    party = next(iter(reading.groups(role)), None)
    return f"{party.text('first_name')} {party.text('name')}".strip() if party else ""


def _unread(syntax: Syntax, reading: Reading) -> str:
    """Return, for the note, what may change who is paid how much, and nothing reads."""
    kept, money = re.compile(syntax.left), re.compile(syntax.money)
    unread, waiting = dict[str, None](), [reading.at]
    while waiting:
        element = waiting.pop()
        name = element.tag.rpartition("}")[2]
        if kept.fullmatch(name):
            continue
        waiting += reversed(element)
        is_said = text_of(element) and number_of(element) != 0
        if is_said and money.fullmatch(name) and element not in reading.seen:
            unread[name] = None
    names = [*unread][:_MOST_NAMED] + (["…"] if len(unread) > _MOST_NAMED else [])
    return f"; left out, though it may change what is paid: {', '.join(names)}" if unread else ""


_STATUS = {"GROUP": "a group: its parts count", "INFORMATION": "does not count"}


class _Lines:
    def __init__(self, syntax: Syntax, sums: Sums, invoice: EInvoice) -> None:
        self._sums, self._reading, self._invoice = sums, sums.reading, invoice
        self._means = "4461" if syntax.name in ("cii", "ubl") else ""

    def all(self) -> Iterator[str]:
        invoice, reading, sums = self._invoice, self._reading, self._sums
        is_credit = invoice["kind"] == "credit_note"
        label = _LABELS[invoice["kind"]]
        verdict = ": nothing is to be paid on it" if is_credit else ""
        yield f"{invoice['name']} ({invoice['type'] or 'of no known type'}){verdict}"
        yield from (f"{label} number: {invoice['number']}", f"{label} date: {invoice['date']}")
        yield from self._texts("corrects", "delivered", "period_start", "period_end")
        yield from ("Seller:", *self._party("seller"))
        yield f"Buyer: {', '.join(self._party('buyer'))}"
        yield f"Currency: {invoice['currency']}"
        yield from self._texts("note")
        for number, item in enumerate(reading.groups("item"), 1):
            yield from self._item(item, str(number))
        yield from (self._allowance(a, "") for a in reading.groups("allowance"))
        yield f"Net: {self._total('net')}"
        yield from map(self._vat, sums.vat)
        if sums.amount("tax") and not sums.vat:
            yield f"VAT: {self._total('tax')}"
        yield from self._in_other_currency()
        yield from self._texts("terms")
        yield from map(self._discount, reading.groups("discount"))
        means = reading.text("means")
        named = self._means and means and _name(self._means, means)
        yield means and f"Payment means: {f'{named} ({means})' if named else means}"
        if invoice["payee"] not in ("", invoice["seller"]):
            yield f"Pay to: {invoice['payee']}, not to the seller"
        yield from self._texts("iban", "debited", "reference", "due")
        instalments = reading.groups("instalment")
        yield from map(self._instalment, instalments if len(instalments) > 1 else ())
        yield "Paid in full: nothing is left to be paid" if reading.text("paid") else ""
        yield from self._texts("paid_on")
        if reading.text("split"):
            yield "Split payment: the tax goes to an account of its own"
        yield from (self._each(part, "the total") for part in reading.groups("on_gross"))
        for name in [*TITLES][[*TITLES].index("withheld") :]:
            if reading.number(name):
                yield f"{TITLES[name]}: {self._amounts(reading, name)}"
        due = self._total("payable") or self._amounts(reading, "payable")
        yield f"{'Credit, not to be paid' if is_credit else 'Amount due'}: {due}"

    def _texts(self, *names: str) -> Iterator[str]:
        yield from (f"{TITLES[n]}: {text}" for n in names for text in self._reading.texts(n))

    def _party(self, role: str) -> Iterator[str]:
        for party in self._reading.groups(role)[:1]:
            yield _party_name(self._reading, role)
            place = _words(*(party.text(part) for part in ("country", "postcode", "place")))
            yield from [f"Place: {place}"] if place else []
            yield from (f"VAT number: {number}" for number in party.texts("vat_number")[:1])

    def _item(self, item: Reading, number: str, within: str = "") -> Iterator[str]:
        price = self._amounts(item, "price") or self._amounts(item, "gross_price", " with VAT")
        per = f" per {_quantity(item, 'per')}" if item.number("per") not in (None, 1) else ""
        rate, status, parent = (item.text(name) for name in ("rate", "status", "parent"))
        percent = " %" if rate.replace(".", "").isdigit() else ""
        amount = self._amounts(item, "amount") or self._amounts(item, "gross_amount", " with VAT")
        what = _words(
            _quantity(item, "quantity"),
            item.text("name"),
            price and f"at {price}{per}",
            rate and f"with VAT {rate}{percent}",
            amount and f"= {amount}",
        )
        about = [f"part of {parent}" if parent else within, _STATUS.get(status, "")]
        about += ["before the correction: it is taken off"] if item.text("before") else []
        named = f"{'Group' if status == 'GROUP' else 'Item'} {item.text('id') or number}"
        aside = listed([*filter(None, about)])
        yield f"{named}: {what}{aside and f' ({aside})'}"
        on = f" on {named.lower()}, in its amount"
        yield from (self._allowance(allowance, on) for allowance in item.groups("allowance"))
        yield from (self._each(price, named.lower()) for price in item.groups("each"))
        for n, inner in enumerate(item.inner(), 1):
            yield from self._item(inner, f"{number}.{n}", f"within {named.lower()}, in its amount")

    def _allowance(self, allowance: Reading, on: str) -> str:
        charge = is_charge(allowance)
        code, percent, rate = (allowance.text(name) for name in ("code", "percent", "rate"))
        of = self._amounts(allowance, "of")
        about = _aside(
            allowance.text("reason") or _name("7161" if charge else "5189", code) or code,
            percent and f"{percent} %{of and f' of {of}'}",
            rate and f"VAT {rate} %",
        )
        amount = self._amounts(allowance, "amount")
        return f"Charge{on}: {amount}{about}" if charge else f"Allowance{on}: -{amount}{about}"

    def _each(self, price: Reading, item: str) -> str:
        title = "Surcharge" if price.text("sign") == "MG" else "Discount"
        percent, amount = price.text("percent"), self._amounts(price, "amount")
        return f"{title} on {item}, in its amount: {_words(percent and f'{percent} %', amount)}"

    def _vat(self, vat: Reading) -> str:
        rate, category, code = (vat.text(name) for name in ("rate", "category", "code"))
        reason = vat.text("reason") or _name("vatex", code) or code
        is_margin = category == "margin"  # its tax is in the price
        kind = "" if category == "S" else _name("5305", category) or category
        kind = "margin scheme" if is_margin else kind
        split = "split payment: not paid to the seller" if vat.text("owed") == "S" else ""
        amount = self._amounts(vat, "amount") or ("not shown" if is_margin else "0.00")
        amounts = f"{self._amounts(vat, 'basis')}: {amount}"
        return f"VAT{rate and f' {rate} %'} on {amounts}{_aside(reason or kind, split)}"

    def _in_other_currency(self) -> Iterator[str]:
        zloty = [n for vat in self._sums.vat if (n := vat.number("in_zloty")) is not None]
        if zloty:
            yield f"VAT in PLN: {_money(sum(zloty, Decimal(0)))} PLN"
        for element in self._reading.all("tax"):
            if (currency := element.get("currencyID")) not in (None, "", self._invoice["currency"]):
                yield f"VAT in {currency}: {self._amount(element)}"

    def _discount(self, discount: Reading) -> str:
        percent, until = discount.text("percent"), discount.text("until")
        of = self._amounts(discount, "of")
        days = [f"{text_of(e)} {e.get('unitCode', 'DAY')}" for e in discount.all("days")[:1]]
        what = _words(
            percent and f"{percent} %",
            of and f"of {of}",
            self._amounts(discount, "amount"),
            discount.text("worth"),
            *(f"within {period.replace('DAY', 'days')}" for period in days),
            f"if paid by {until}" if until and not days else "",
            discount.text("terms"),
        )
        return f"Discount for early payment: {what}"

    def _instalment(self, instalment: Reading) -> str:
        amount, day = self._amounts(instalment, "amount"), instalment.text("day")
        return f"Instalment: {_words(amount, day and f'by {day}')}"

    def _amounts(self, reading: Reading, name: str, suffix: str = "") -> str:
        return ", ".join(self._amount(element) + suffix for element in reading.all(name))

    def _amount(self, element: Element) -> str:
        """Return it with two decimals or more and its currency; no number as it stands."""
        number = number_of(element)
        text = text_of(element) if number is None else _money(number)
        return f"{text} {element.get('currencyID') or self._invoice['currency']}"

    def _total(self, name: str) -> str:
        term = self._sums.amount(name)
        return f"{_money(term.value)} {self._invoice['currency']}" if term else ""


def _words(*parts: str) -> str:
    return " ".join(filter(None, parts))


def _aside(*parts: str) -> str:
    aside = ", ".join(dict.fromkeys(filter(None, parts)))
    return f" ({aside})" if aside else ""


def _money(number: Decimal) -> str:
    return f"{number:.2f}" if number == round(number, 2) else f"{number:f}"


def _quantity(item: Reading, name: str) -> str:
    return " ".join(
        f"{text_of(e)} {e.get('unitCode', '')} {item.text('unit')}" for e in item.all(name)[:1]
    )
