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

from paddock.engine.system.records import record, replace
from paddock.engine.system.text import listed

from .e_invoice_checks import Sums, Term, check_sums, is_charge, sum_disagreements
from .e_invoice_syntaxes import Places, Reading, Syntax, number_of, readings, text_of
from .reader import Invoice

_MAY_BE_ONE = re.compile(
    r"CrossIndustry(?:Invoice|Document)|xsd:(?:Invoice|CreditNote)-2|crd\.gov\.pl/wzor|FatturaElettronica"
)
_MOST_NAMED = 5
_MOST_INVOICES = 100
_LABELS = {"invoice": "Invoice", "credit_note": "Credit note", "other": "Document"}


@record(frozen=True, slots=True)
class ReadInvoices:
    pages: tuple[str, ...] = ()
    """The lines of each; none: it is, or can be read as, none."""
    notes: tuple[str, ...] = ()
    invoices: tuple[Invoice, ...] = ()


def read_e_invoices(markup: str) -> ReadInvoices:
    """Return what an XML holds of these."""
    if not _MAY_BE_ONE.search(markup) or "<!DOCTYPE" in markup:
        return ReadInvoices()
    try:
        root = fromstring(markup.strip())
    except (ParseError, ValueError) as error:
        why = f"is not a valid e-invoice ({error}); it is read as plain text"
        return ReadInvoices(notes=(why,))
    texts, notes, invoices = list[str](), list[str](), list[Invoice]()
    for syntax, reading in readings(root):
        if len(invoices) == _MOST_INVOICES:
            notes.append(f": only its first {_MOST_INVOICES} e-invoices are read")
            break
        sums = Sums(syntax, reading)
        invoice = check_sums(_invoice(syntax, sums), sums)
        lines = _Lines(syntax, sums, invoice).all()
        texts.append("\n".join(" ".join(line.split()) for line in lines if line.strip()))
        invoices.append(replace(invoice, page=len(texts)))
        notes.append(f": read as an e-invoice{_unread(syntax, reading)}")
        notes += sum_disagreements(invoice)
    return ReadInvoices(tuple(texts), tuple(dict.fromkeys(notes)), tuple(invoices))


@cache
def _codes() -> Mapping[str, Mapping[str, str]]:
    """Return names by list and code; `sources` says where each list is from."""
    lists: Mapping[str, Mapping[str, str]] = json.loads(
        Path(__file__).with_name("e_invoice_codes.json").read_text("utf-8")
    )
    return lists


def _name(of: str, code: str) -> str:
    return _codes()[of].get(code, "")


def _invoice(syntax: Syntax, sums: Sums) -> Invoice:
    reading = sums.reading
    own = reading.text("type")
    code = syntax.types.get(own, own if not syntax.types else "")
    if not code and reading.root.tag.endswith("}CreditNote"):
        code = "381"
    credit = _name("credit notes", code)
    name = credit or _name("invoices", code)
    names = ("number", "date", "currency", "due", "iban", "net", "tax", "gross", "payable")
    places = Places(reading.root)
    return Invoice(
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
        net=_float(sums.net),
        tax=_float(sums.tax),
        gross=_float(sums.gross),
        payable=_float(sums.payable or sums.gross),
        lines=tuple(float(n) for item in sums.items if (n := item.number("amount")) is not None),
        places={n: places.path(found[0]) for n in names if (found := reading.all(n))},
    )


def _float(term: Term | None) -> float | None:
    return None if term is None else float(term.value)


def _party_name(reading: Reading, role: str) -> str:
    party = next(iter(reading.groups(role)), None)
    return f"{party.text('first_name')} {party.text('name')}".strip() if party else ""


def _unread(syntax: Syntax, reading: Reading) -> str:
    """Return, for the note, what may change who is paid how much, and nothing reads."""
    kept, money = re.compile(syntax.left or "-"), re.compile(syntax.money)
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
    names = [*unread][:_MOST_NAMED] + ["…"] * (len(unread) > _MOST_NAMED)
    return f"; left out, though it may change what is paid: {', '.join(names)}" if unread else ""


class _Lines:
    def __init__(self, syntax: Syntax, sums: Sums, invoice: Invoice) -> None:
        self._sums, self._reading, self._invoice = sums, sums.reading, invoice
        self._means = "4461" if syntax.name in ("cii", "ubl") else ""
        self._n_items = 0

    def all(self) -> Iterator[str]:
        invoice, reading, texts = self._invoice, self._reading, self._reading.texts
        is_credit = invoice.kind == "credit_note"
        label = _LABELS[invoice.kind]
        verdict = ": nothing is to be paid on it" if is_credit else ""
        yield f"{invoice.name} ({invoice.type or 'of no known type'}){verdict}"
        yield from (f"{label} number: {invoice.number}", f"{label} date: {invoice.date}")
        yield from (f"Concerns invoice: {number}" for number in texts("corrects"))
        yield from ("Seller:", *self._party("seller"))
        yield f"Buyer: {', '.join(self._party('buyer'))}"
        yield f"Currency: {invoice.currency}"
        yield from (f"Note: {note}" for note in texts("note"))
        for item in reading.groups("item"):
            self._n_items += 1
            yield from self._item(item, str(self._n_items))
        yield from (self._allowance(a, "") for a in reading.groups("allowance"))
        yield f"Net: {self._term(self._sums.net)}"
        yield from map(self._vat, self._sums.vat)
        if self._sums.tax and not self._sums.vat:
            yield f"VAT: {self._term(self._sums.tax)}"
        yield from self._in_other_currency()
        yield from (f"Payment terms: {terms}" for terms in texts("terms"))
        yield from map(self._discount, reading.groups("discount"))
        means = reading.text("means")
        named = self._means and means and _name(self._means, means)
        yield f"Payment means: {named} ({means})" if named else means and f"Payment means: {means}"
        if invoice.payee not in ("", invoice.seller):
            yield f"Pay to: {invoice.payee}, not to the seller"
        yield from (f"IBAN: {iban}" for iban in texts("iban"))
        yield from (f"To be debited from: {iban}" for iban in texts("debited"))
        yield from (f"Payment reference: {reference}" for reference in texts("reference"))
        yield from (f"Pay by: {day}" for day in texts("due"))
        yield from (f"Paid on: {day}" for day in texts("paid_on"))
        if reading.text("split"):
            yield "Split payment: the tax goes to an account of its own"
        yield from (self._each(part, "the total") for part in reading.groups("on_gross"))
        for name, title in _TOTALS:
            if reading.number(name):
                yield f"{title}: {self._amounts(reading, name)}"
        due = self._amounts(reading, "payable") or self._term(self._sums.gross)
        yield f"{'Credit, not to be paid' if is_credit else 'Amount due'}: {due}"

    def _party(self, role: str) -> Iterator[str]:
        for party in self._reading.groups(role)[:1]:
            yield _party_name(self._reading, role)
            place = " ".join(party.text(part) for part in ("country", "postcode", "place"))
            if place.strip():
                yield f"Place: {place}"
            if number := party.text("vat_number"):
                yield f"VAT number: {number}"

    def _item(self, item: Reading, number: str, within: str = "") -> Iterator[str]:
        price = self._amounts(item, "price") or self._amounts(item, "gross_price", " with VAT")
        per = item.number("per")
        base = f" per {_quantity(item, 'per')}" if per not in (None, 1) else ""
        rate, status, parent = (item.text(name) for name in ("rate", "status", "parent"))
        is_rate = rate.replace(".", "").isdigit()
        each = (price and f"at {price}{base}", rate and f"with VAT {rate}{' %' if is_rate else ''}")
        amount = self._amounts(item, "amount") or self._amounts(item, "gross_amount", " with VAT")
        about = [f"part of {parent}" if parent else within]
        about += [
            {"GROUP": "a group: its parts count", "INFORMATION": "does not count"}.get(status, "")
        ]
        about += ["before the correction: it is taken off"] if item.text("before") else []
        about = list(filter(None, about))
        kind = "Group" if status == "GROUP" else "Item"
        named = f"{kind} {item.text('id') or number}"
        what = f"{_quantity(item, 'quantity')} {item.text('name')} {' '.join(each)}"
        what += f" = {amount}" if amount else ""
        yield f"{named}: {what}{f' ({listed(about)})' if about else ''}"
        for allowance in item.groups("allowance"):
            yield self._allowance(allowance, f" on {named.lower()}, in its amount")
        for each_piece in item.groups("each"):
            yield self._each(each_piece, named.lower())
        for n, inner in enumerate(item.inner(), 1):
            yield from self._item(inner, f"{number}.{n}", f"within {named.lower()}, in its amount")

    def _allowance(self, allowance: Reading, on: str) -> str:
        charge = is_charge(allowance)
        code, percent = allowance.text("code"), allowance.text("percent")
        reason = allowance.text("reason") or _name("7161" if charge else "5189", code) or code
        of = self._amounts(allowance, "of")
        share = percent and f"{percent} %{f' of {of}' if of else ''}"
        rate = allowance.text("rate")
        about = ", ".join(filter(None, (reason, share, rate and f"VAT {rate} %")))
        title = "Charge" if charge else "Allowance"
        sign = "" if charge else "-"
        return f"{title}{on}: {sign}{self._amounts(allowance, 'amount')}{about and f' ({about})'}"

    def _each(self, price: Reading, item: str) -> str:
        title = "Surcharge" if price.text("sign") == "MG" else "Discount"
        percent, amount = price.text("percent"), self._amounts(price, "amount")
        worth = " ".join(filter(None, (percent and f"{percent} %", amount)))
        return f"{title} on {item}, in its amount: {worth}"

    def _vat(self, vat: Reading) -> str:
        rate, category, code = (vat.text(name) for name in ("rate", "category", "code"))
        named = _name("5305", category) if category != "S" else ""
        about = [named or (category if category != "S" else "")]
        reason = vat.text("reason") or _name("vatex", code) or code
        about = [reason] if reason else about
        about += ["split payment: not paid to the seller"] if vat.text("owed") == "S" else []
        why = ", ".join(dict.fromkeys(filter(None, about)))
        what = f"VAT {rate} %" if rate else "VAT"
        amounts = f"{self._amounts(vat, 'basis')}: {self._amounts(vat, 'amount') or '0.00'}"
        return f"{what} on {amounts}{why and f' ({why})'}"

    def _in_other_currency(self) -> Iterator[str]:
        zloty = [n for vat in self._sums.vat if (n := vat.number("in_zloty")) is not None]
        if zloty:
            yield f"VAT in PLN: {_money(sum(zloty, Decimal(0)))} PLN"
        for element in self._reading.all("tax"):
            currency = element.get("currencyID") or self._invoice.currency
            if currency != self._invoice.currency:
                yield f"VAT in {currency}: {self._amount(element)}"

    def _discount(self, discount: Reading) -> str:
        percent, days = discount.text("percent"), discount.all("days")
        unit = days[0].get("unitCode", "DAY") if days else ""
        within = f"within {text_of(days[0])} {'days' if unit == 'DAY' else unit}" if days else ""
        until = discount.text("until")
        parts = (
            percent and f"{percent} %",
            self._amounts(discount, "of") and f"of {self._amounts(discount, 'of')}",
            self._amounts(discount, "amount"),
            discount.text("worth"),
            within or (until and f"if paid by {until}"),
            discount.text("terms"),
        )
        return f"Discount for early payment: {' '.join(filter(None, parts))}"

    def _amounts(self, reading: Reading, name: str, suffix: str = "") -> str:
        return ", ".join(self._amount(element) + suffix for element in reading.all(name))

    def _amount(self, element: Element) -> str:
        """Return it with two decimals or more and its currency; no number as it stands."""
        number = number_of(element)
        text = text_of(element) if number is None else _money(number)
        return f"{text} {element.get('currencyID') or self._invoice.currency}"

    def _term(self, term: Term | None) -> str:
        return f"{_money(term.value)} {self._invoice.currency}" if term else ""


_TOTALS = (
    ("withheld", "Tax withheld"), ("stamp", "Stamp duty"), ("prepaid", "Prepaid"),
    ("for_others", "Added to the total"), ("taken", "Taken off the total"),
    ("in_gross", "Rounding in the total"), ("rounding", "Rounding"), ("gross", "Total"),
)  # fmt: skip


def _money(number: Decimal) -> str:
    return f"{number:.2f}" if number == round(number, 2) else f"{number:f}"


def _quantity(item: Reading, name: str) -> str:
    return " ".join(
        f"{text_of(e)} {e.get('unitCode', '')} {item.text('unit')}" for e in item.all(name)[:1]
    )
