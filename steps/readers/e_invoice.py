"""Electronic invoices as lines of text, and as records whose witnesses are compared.

Of EN 16931 in CII (ZUGFeRD, Factur-X, XRechnung) and UBL, of Italy's FatturaPA and Poland's KSeF:
`e_invoice_syntaxes`. What no line of `_Lines` takes is a line of its group (`Leaves`);
a file within is pages behind it. The amount to pay comes last, so that no other one stands behind
it. An XML with a DOCTYPE, which no syntax has, is none, so that no entity is ever expanded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from xml.etree.ElementTree import Element, ParseError, fromstring

from paddock.engine.system.text import listed
from paddock.pipelines.e_invoices import EInvoice

from .e_invoice_checks import Sums, check_sums, day_of_terms, is_charge, is_iban, sum_disagreements
from .e_invoice_syntaxes import (
    TITLES,
    Leaves,
    Places,
    TermGroup,
    amount_text,
    codes,
    local_name,
    money,
    readings,
    text_of,
)
from .reader import Document, EmbeddedFile

_MAY_BE_ONE = re.compile(
    r"CrossIndustry(?:Invoice|Document)|xsd:(?:Invoice|CreditNote)-2|crd\.gov\.pl/wzor|FatturaElettronica"
)
_MOST_NAMED = 5
_MOST_INVOICES = 100
_UNCOUNTED = "said, but in no sum, though it may change what is paid"
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
    pages, notes, invoices = list[str](), list[str](), list[EInvoice]()
    files, inside = list[EmbeddedFile](), set[Element]()
    for reading in readings(root):
        if len(invoices) == _MOST_INVOICES:
            notes.append(f": only its first {_MOST_INVOICES} e-invoices are read")
            break
        sums = Sums(reading)
        invoice = check_sums(_invoice(sums), sums)
        lines = _Lines(sums, invoice)
        leaves, clauses = lines.leaves, [": read as an e-invoice"]
        pages.append("\n".join(" ".join(line.split()) for line in lines.all() if line.strip()))
        invoices.append({**invoice, "page": len(pages)})
        clauses += [f"left out: {listed([*leaves.left_out])}"] if leaves.left_out else []
        names = [*leaves.uncounted][:_MOST_NAMED]
        names += ["…"] if len(leaves.uncounted) > _MOST_NAMED else []
        clauses += [f"{_UNCOUNTED}: {', '.join(names)}"] if names else []
        notes += ["; ".join(clauses), *sum_disagreements(invoice)]
        files += leaves.files
        inside.update(reading.root.iter())
    if inside and any(text_of(element) for element in root.iter() if element not in inside):
        notes.append(f": what stands around it in {local_name(root)} is left out")
    once = tuple(dict.fromkeys(notes))
    return Document(tuple(pages), notes=once, invoices=tuple(invoices), files=tuple(files))


def _name(of: str, code: str) -> str:
    return codes()[of].get(code, "")


def _invoice(sums: Sums) -> EInvoice:
    reading, syntax = sums.reading, sums.reading.syntax.name
    own = reading.text("type")
    code = codes().get(syntax, {own: own}).get(own, "")
    is_credit = reading.root.tag.endswith("}CreditNote")  # whatever list its code is of
    code = code or ("381" if is_credit else "")
    credit = _name("credit notes", code) or (_name("credit notes", "381") if is_credit else "")
    name = credit or _name("invoices", code)
    places = Places(reading.root)
    party = next(iter(reading.groups("seller")), None)
    accounts = [account for means in reading.groups("payment") for account in means.all("account")]
    iban = next(filter(_holds_iban, accounts), None)
    days = {*reading.texts("due")}
    has_parts = sum(bool(part.elements("amount")) for part in reading.groups("instalment")) > 1

    def amount(term: str) -> float | None:
        found = sums.amount(term)
        return float(found.value) if found else None

    placed = {n: found[0] for n in _PLACED if (found := reading.all(n))}
    placed |= {} if iban is None else {"iban": iban}
    gross = amount("gross")
    invoice = EInvoice(
        syntax=syntax,
        type=code if name else own,
        kind="credit_note" if credit else "invoice" if name else "other",
        name=name or "Other document",
        number=reading.text("number"),
        date=reading.text("date"),
        currency=reading.text("currency"),
        seller=_party_name(reading, "seller"),
        buyer=_party_name(reading, "buyer"),
        payee=_payee(reading),
        iban="" if iban is None else text_of(iban),
        reference=reading.text("reference"),
        due="" if has_parts and len(days) > 1 else max(days, default=""),
        net=amount("net"),
        tax=amount("tax"),
        gross=gross,
        payable=amount("payable"),
        lines=[float(n) for item in sums.items if (n := item.number("amount")) is not None],
        places={name: places.path(element) for name, element in placed.items()},
        seller_vat=(party.text("vat_number") or party.text("tax_number")) if party else "",
        terms=" ".join(reading.texts("terms")),
        page=1,
        witnesses=["xml"],
        shown=[],
        disagreements=[],
    )
    return invoice if days else {**invoice, "due": day_of_terms(invoice)}


def _holds_iban(account: Element) -> bool:
    return account.get("schemeID", "IBAN").upper() == "IBAN" and is_iban(text_of(account))


def _party_name(reading: TermGroup, role: str) -> str:
    party = next(iter(reading.groups(role)), None)
    return f"{party.text('first_name')} {party.text('name')}".strip() if party else ""


def _payee(reading: TermGroup) -> str:
    return _party_name(reading, "payee") or reading.text("other_payee")


_STATUS = {"GROUP": "a group: its parts count", "INFORMATION": "does not count"}


class _Lines:
    def __init__(self, sums: Sums, invoice: EInvoice) -> None:
        self._sums, self._reading, self._invoice = sums, sums.reading, invoice
        self._means = "4461" if invoice["syntax"] in ("cii", "ubl") else ""
        counted = self._reading.seen.copy()
        self._reading.seen.clear()  # from here on, what the lines take
        self._parts = [*self._found()]
        groups = [part for part in self._parts if isinstance(part, TermGroup)]
        self.leaves = Leaves(self._reading, groups, counted, invoice["currency"])

    def all(self) -> Iterator[str]:
        for part in self._parts:
            yield from [part] if isinstance(part, str) else self.leaves.of(part)

    def _found(self) -> Iterator[str | TermGroup]:
        """Yield lines, and groups where the rest of their leaves stands."""
        invoice, reading, sums = self._invoice, self._reading, self._sums
        is_credit = invoice["kind"] == "credit_note"
        label = _LABELS[invoice["kind"]]
        verdict = ": nothing is to be paid on it" if is_credit else ""
        reading.all("type")
        yield f"{invoice['name']} ({invoice['type'] or 'of no known type'}){verdict}"
        yield f"{label} number: {reading.text('number')}"
        yield f"{label} date: {reading.text('date')}"
        yield from self._texts("corrects", "delivered", "period_start", "period_end")
        yield from ("Seller:", *self._party("seller"))
        yield from reading.groups("seller")[:1]
        yield f"Buyer: {', '.join(self._party('buyer'))}"
        yield from reading.groups("buyer")[:1]
        yield f"Currency: {reading.text('currency')}"
        yield reading
        yield from self._texts("note")
        for note in reading.groups("note"):  # whose subject stands behind it
            yield from (f"Note: {text}" for text in note.texts("content"))
            yield note
        for number, item in enumerate(reading.groups("item"), 1):
            yield from self._item(item, str(number))
        for allowance in reading.groups("allowance"):
            yield from (self._allowance(allowance, ""), allowance)
        yield from reading.groups("totals")
        yield f"Net: {self._total('net')}"
        for vat in sums.vat:
            yield self._vat(vat)
            yield from [] if vat.group.is_variant else [vat]
        if sums.amount("tax") and not sums.vat:
            yield f"VAT: {self._total('tax')}"
        zloty = [n for vat in sums.vat if (n := vat.number("in_zloty")) is not None]
        if zloty:
            yield f"VAT in PLN: {money(sum(zloty, Decimal(0)))} PLN"
        for element in reading.elements("other_tax"):
            if (currency := element.get("currencyID")) not in (None, "", invoice["currency"]):
                reading.seen.add(element)
                yield f"VAT in {currency}: {self._amount(element)}"
        yield from self._texts("terms")
        yield from map(self._discount, reading.groups("discount"))
        yield from reading.groups("payment_terms")
        if invoice["payee"] not in ("", invoice["seller"]):
            yield f"Pay to: {_payee(reading)}, not to the seller"
        for payment in reading.groups("payment"):
            yield from self._payment(payment)
        yield from self._texts("reference", "due")
        instalments = reading.groups("instalment")
        for part in instalments if len(instalments) > 1 else ():
            amount, day = self._amounts(part, "amount"), part.text("day")
            yield f"Instalment: {_words(amount, day and f'by {day}')}"
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
            if number := party.text("vat_number"):
                yield f"VAT number: {number}"

    def _payment(self, payment: TermGroup) -> Iterator[str | TermGroup]:
        means = payment.text("means")
        named = self._means and means and _name(self._means, means)
        yield means and f"Payment means: {f'{named} ({means})' if named else means}"
        for account in payment.all("account"):
            yield f"{'IBAN' if _holds_iban(account) else 'Account, no IBAN'}: {text_of(account)}"
        yield from (f"To be debited from: {account}" for account in payment.texts("debited"))
        yield payment

    def _item(self, item: TermGroup, number: str, within: str = "") -> Iterator[str | TermGroup]:
        price = self._amounts(item, "price") or self._amounts(item, "gross_price", " with VAT")
        is_each = not price or item.number("per") in (None, 1)
        per = "" if is_each else f" per {_quantity(item, 'per')}"
        rate, status, parent = (item.text(name) for name in ("rate", "status", "parent"))
        percent = " %" if rate.replace(".", "").isdigit() else ""
        amount = self._amounts(item, "amount") or self._amounts(item, "gross_amount", " with VAT")
        what = _words(
            _quantity(item, "quantity"),
            item.text("name"),
            price and f"at {price}{per}",
            rate and f"with {_tax(item)} {rate}{percent}",
            amount and f"= {amount}",
        )
        about = [f"part of {parent}" if parent else within, _STATUS.get(status, status)]
        about += ["before the correction: it is taken off"] if item.text("before") else []
        named = f"{'Group' if status == 'GROUP' else 'Item'} {item.text('id') or number}"
        aside = listed([*filter(None, about)])
        yield f"{named}: {what}{aside and f' ({aside})'}"
        on = f" on {named.lower()}, in its amount"
        yield from [] if item.group.is_variant else [item]
        for allowance in item.groups("allowance"):
            yield from (self._allowance(allowance, on), allowance)
        yield from (self._each(price, named.lower()) for price in item.groups("each"))
        for n, inner in enumerate(item.inner(), 1):
            yield from self._item(inner, f"{number}.{n}", f"within {named.lower()}, in its amount")

    def _allowance(self, allowance: TermGroup, on: str) -> str:
        charge = is_charge(allowance)
        percent, rate = allowance.text("percent"), allowance.text("rate")
        of = self._amounts(allowance, "of")
        about = _aside(
            allowance.text("reason") or self._meaning(allowance, "7161" if charge else "5189"),
            _words(percent and f"{percent} %", of and f"of {of}"),
            rate and f"{_tax(allowance)} {rate} %",
        )
        amount = self._amounts(allowance, "amount")
        return f"Charge{on}: {amount}{about}" if charge else f"Allowance{on}: -{amount}{about}"

    def _each(self, price: TermGroup, item: str) -> str:
        titles, sign = {"": "Discount", "SC": "Discount", "MG": "Surcharge"}, price.text("sign")
        title = titles.get(sign) or f"Discount or surcharge ({sign})"
        percent, amount = price.text("percent"), self._amounts(price, "amount")
        return f"{title} on {item}, in its amount: {_words(percent and f'{percent} %', amount)}"

    def _meaning(self, reading: TermGroup, codes_of: str, term: str = "code") -> str:
        code = reading.text(term)
        return _name(codes_of, code) or code

    def _vat(self, vat: TermGroup) -> str:
        rate, reason = vat.text("rate"), vat.text("reason") or self._meaning(vat, "vatex")
        (category,) = [*map(text_of, vat.elements("category"))][:1] or [""]
        is_margin = category == "margin"  # its tax is in the price
        is_plain = reason or category == "S"
        kind = "" if is_plain else self._meaning(vat, "5305", "category")
        kind = "margin scheme" if is_margin else kind
        is_split = [*map(text_of, vat.elements("owed"))] == ["S"]
        split = "split payment: not paid to the seller" if is_split and vat.text("owed") else ""
        amount = self._amounts(vat, "amount") or ("not shown" if is_margin else "0.00")
        amounts = f"{self._amounts(vat, 'basis')}: {amount}"
        return f"{_tax(vat)}{rate and f' {rate} %'} on {amounts}{_aside(reason or kind, split)}"

    def _discount(self, discount: TermGroup) -> str:
        percent, of = discount.text("percent"), self._amounts(discount, "of")
        days = [f"{n} {_unit(discount, 'days') or 'DAY'}" for n in [discount.text("days")] if n]
        until = "" if days else discount.text("until")
        what = _words(
            percent and f"{percent} %",
            of and f"of {of}",
            self._amounts(discount, "amount"),
            discount.text("worth"),
            *(f"within {period.replace('DAY', 'days')}" for period in days),
            until and f"if paid by {until}",
            discount.text("terms"),
        )
        return f"Discount for early payment: {what}"

    def _amounts(self, reading: TermGroup, name: str, suffix: str = "") -> str:
        return ", ".join(self._amount(element) + suffix for element in reading.all(name))

    def _amount(self, element: Element) -> str:
        return amount_text(element, self._invoice["currency"])

    def _total(self, name: str) -> str:
        term = self._sums.amount(name)
        if term is not None and len(term.parts) == 1:  # the others are lines of their own
            self._reading.seen.update(term.parts)
        return f"{money(term.value)} {self._invoice['currency']}" if term else ""


def _words(*parts: str) -> str:
    return " ".join(filter(None, parts))


def _aside(*parts: str) -> str:
    aside = ", ".join(dict.fromkeys(filter(None, parts)))
    return f" ({aside})" if aside else ""


def _unit(reading: TermGroup, name: str) -> str:
    return next((e.get("unitCode", "") for e in reading.elements(name)), "")


def _quantity(item: TermGroup, name: str) -> str:
    return f"{item.text(name)} {_unit(item, name)} {item.text('unit')}".strip()


def _tax(of: TermGroup) -> str:
    """Return which tax it is: by its name, if that is not VAT."""
    scheme = next(map(text_of, of.elements("scheme")), "")
    if scheme in ("", "VAT"):
        return "VAT"
    return of.text("scheme_name") or of.text("scheme")
