"""Whether the witnesses of an e-invoice agree: its XML, its arithmetic, and the page it came with.

Sums follow the rules of EN 16931 (BR-CO-10 to BR-CO-17); the product of a line follows Peppol's
R120. On a page it is enough that a value stands somewhere; what is only missing there is no
contradiction, except for the number and what is to be paid.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import TYPE_CHECKING, TypeAlias
from xml.etree.ElementTree import Element

from paddock.engine.system.records import record, replace

from .e_invoice_syntaxes import Places, Reading, Syntax, number_of
from .reader import PAGE_BREAK, Disagreement, Invoice, page_offsets

if TYPE_CHECKING:
    from paddock.pipelines.checking.numbers import NumberToken
    from paddock.pipelines.checking.source_index import SourceIndex

Span: TypeAlias = tuple[int, int]
_CENT = Decimal("0.01")
_WIDE = Context(prec=100)  # a foreign quantity and price may have 20 digits each
_LINE_SLACK = Decimal("0.02")  # PEPPOL-EN16931-R120
_TAX_SLACK = Decimal(1)  # BR-CO-17, as EN 16931's own schematron has it
_MOST = 20
_MOST_SHOWN = 5
_MOST_LINE_CHARS = 200
_MOST_PAGE_CHARS = 200_000
_IBAN = re.compile(r"\b[A-Z]{2}\d\d(?: ?[0-9A-Z]{4}){2,7}(?: ?[0-9A-Z]{1,3})?\b")
_UNCOUNTED = frozenset(("GROUP", "INFORMATION"))
"""Lines of CII that only head, or tell of, others."""


@record(frozen=True)
class Term:
    """A number, and the elements that it is made of."""

    value: Decimal
    parts: tuple[Element, ...] = ()

    def __add__(self, other: Term) -> Term:
        return Term(self.value + other.value, self.parts + other.parts)

    def __sub__(self, other: Term) -> Term:
        return Term(self.value - other.value, self.parts + other.parts)


_NOTHING = Term(Decimal(0))


class Sums:
    """The totals of an invoice as it states them, else as its parts make them."""

    def __init__(self, syntax: Syntax, reading: Reading) -> None:
        self.reading, self._syntax = reading, syntax
        currency = reading.text("currency")
        self.items = [i for i in reading.groups("item") if i.text("status") not in _UNCOUNTED]
        self.vat = [v for v in reading.groups("vat") if _is_in(currency, v.all("amount"))]
        signed = [("-" if item.text("before") else "+", item) for item in self.items]
        self._lines = _total("amount", signed)
        parts = reading.groups("allowance")
        given, added = ([("+", p) for p in parts if is_charge(p) is side] for side in (False, True))
        self._allowances = _total("amount", given) if given else _NOTHING
        self._charges = _total("amount", added) if added else _NOTHING
        self._basis = _total("basis", [("+", vat) for vat in self.vat])
        self._vat = _total("amount", [("+", vat) for vat in self.vat if vat.all("amount")])
        self.tax = self._stated("tax") or self._vat
        self.net = self._stated("net") or self._basis
        self.gross = self._stated("gross")
        self.payable = self._stated("payable")

    def disagreements(self) -> Iterator[tuple[str, str, Term, Term]]:
        """Yield rule and field, what is stated and what it should be."""
        stated, slack = self._stated, self._syntax.net_slack * max(1, len(self.vat))
        lines = stated("lines") or self._lines
        allowances = stated("allowances") or self._allowances or _NOTHING
        charges = stated("charges") or self._charges or _NOTHING
        rounding, net, gross = stated("rounding"), self.net, self.gross
        due = gross and gross - (stated("prepaid") or _NOTHING) + (rounding or _NOTHING)
        due = due and due + (stated("for_others") or _NOTHING) - (stated("taken") or _NOTHING)
        made = lines and lines - allowances + charges
        whole = net and net + (self.tax or _NOTHING) + (stated("in_gross") or _NOTHING)
        after = [(part.text("sign"), part) for part in self.reading.groups("on_gross")]
        signed = [("+" if sign == "MG" else "-", part) for sign, part in after]
        whole = whole and (whole + (_total("amount", signed) or _NOTHING))
        if gross and whole:  # programs of Italy state it with or without what changes hands apart
            apart = [-(stated("withheld") or _NOTHING).value, (stated("stamp") or _NOTHING).value]
            if gross.value - whole.value in (*apart, sum(apart)):
                whole = gross
        rules: list[tuple[str, str, Term | None, Term | None, Decimal]] = [
            ("BR-CO-10", "lines", stated("lines"), self._lines, Decimal(0)),
            ("BR-CO-11", "allowances", stated("allowances"), self._allowances, Decimal(0)),
            ("BR-CO-12", "charges", stated("charges"), self._charges, Decimal(0)),
            ("BR-CO-13", "net", net, made, slack),
            ("BR-CO-14", "tax", stated("tax"), self._vat, Decimal(0)),
            ("BR-CO-15", "gross", gross, whole, Decimal(0)),
        ]
        # In Italy it is what a transfer brings; Factur-X's MINIMUM leaves out what was prepaid
        if self._syntax.name != "fatturapa" and (self.vat or self._lines):
            rules.append(("BR-CO-16", "payable", self.payable, due, Decimal(0)))
        for vat in self.vat:
            rate = vat.number("rate")
            basis, amount = _term(vat, "basis"), _term(vat, "amount")
            if rate is not None and basis is not None:
                tax = Term(basis.value * rate / 100, (*basis.parts, *vat.all("rate")))
                rules.append(("BR-CO-17", "tax", amount, tax, _TAX_SLACK))
        rules += [
            ("R120", "item", _term(i, "amount"), _product(i), _LINE_SLACK) for i in self.items
        ]
        for rule, name, stated_term, other, within in rules:
            if stated_term and other and not _is_same(stated_term.value, other.value, within):
                yield rule, name, stated_term, Term(_rounded(other.value), other.parts)

    @property
    def can_check(self) -> bool:
        return bool(self.gross and (self.net or self._lines))

    def _stated(self, name: str) -> Term | None:
        currency = self.reading.text("currency")
        found = [e for e in self.reading.all(name) if _is_in(currency, [e])]
        if name not in ("payable", "prepaid", "for_others", "withheld"):
            found = found[:1]
        numbers = [(number, e) for e in found if (number := number_of(e)) is not None]
        return (
            Term(sum((n for n, _ in numbers), Decimal(0)), tuple(e for _, e in numbers))
            if (numbers)
            else None
        )


def is_charge(allowance: Reading) -> bool:
    return allowance.text("is_charge").lower() in ("true", "1")


def check_sums(invoice: Invoice, sums: Sums) -> Invoice:
    places = Places(sums.reading.root)
    found = [
        Disagreement(
            rule, name, f"{stated_term.value:f}", _paths(places, stated_term), f"{other.value:f}",
            _paths(places, other),
        )
        for rule, name, stated_term, other in sums.disagreements()
    ]  # fmt: skip
    witnesses = ("xml", "sums") if sums.can_check else ("xml",)
    return replace(invoice, disagreements=tuple(found[:_MOST]), witnesses=witnesses)


def _paths(places: Places, term: Term) -> str:
    paths = [places.path(element) for element in term.parts]
    shown = [path for path in dict.fromkeys(paths) if path]
    return " + ".join([*shown[:_MOST_SHOWN], *(["…"] if len(shown) > _MOST_SHOWN else [])])


def _total(name: str, signed: Sequence[tuple[str, Reading]]) -> Term | None:
    """Return the sum; None if there is nothing to sum, or one of them has no such number."""
    total = _NOTHING
    for sign, reading in signed:
        term = _term(reading, name)
        if term is None:
            return None
        total = total - term if sign == "-" else total + term
    return total if signed else None


def _term(reading: Reading, name: str) -> Term | None:
    number = reading.number(name)
    return None if number is None else Term(number, (reading.all(name)[0],))


def _product(item: Reading) -> Term | None:
    """Return what quantity and price make; None where a discount of each piece is not told."""
    quantity, price = _term(item, "quantity"), _term(item, "price")
    if quantity is None or price is None or item.groups("each"):
        return None
    value = quantity.value * price.value / (item.number("per") or 1)
    parts = (*quantity.parts, *price.parts, *item.all("per")[:1])
    for allowance in item.groups("allowance"):
        amount = _term(allowance, "amount")
        if amount is not None:
            value += amount.value if is_charge(allowance) else -amount.value
            parts += amount.parts
    return Term(value, parts)


def _is_in(currency: str, elements: Sequence[Element]) -> bool:
    return all(element.get("currencyID") in (None, "", currency) for element in elements)


def _rounded(number: Decimal) -> Decimal:
    return number.quantize(_CENT, ROUND_HALF_UP, _WIDE)


def _is_same(first: Decimal, other: Decimal, within: Decimal) -> bool:
    return first == other or abs(_rounded(first) - _rounded(other)) <= within


def check_page(invoice: Invoice, own: str, pages: Sequence[str]) -> Invoice:
    """Compare it with the pages that show it; `own` are the lines of its XML."""
    from paddock.pipelines.checking.source_index import SourceIndex  # 30 ms; few documents need it

    text = PAGE_BREAK.join(pages)[:_MOST_PAGE_CHARS]
    if not text.strip():
        return invoice
    page, xml = SourceIndex(text), SourceIndex(own[:_MOST_PAGE_CHARS])
    amounts, stated = _amounts(page), _amounts(xml)
    foreign = [tokens[0] for amount, tokens in amounts.items() if amount not in stated]
    days = {day for token in xml.dates.all() for day in token.days}
    found = list[tuple[str, str, Span | None]]()
    if invoice.number and not page.find(invoice.number):
        found.append(("number", invoice.number, None))
    for name, value, after in (
        ("date", invoice.date, ""),
        ("due", invoice.due, invoice.date),  # other days before it are those of orders
    ):
        others = (
            page.place(token.start, token.end)
            for token in page.dates.all()
            if not token.days & days
            and max(f"{y or 0:04}-{m:02}-{d:02}" for y, m, d in token.days) > after
        )
        if value and not page.find(value) and (other := next(others, None)):
            found.append((name, value, other))
    ibans = [
        span
        for span in (match.span() for match in _IBAN.finditer(text))
        if _is_iban(text[slice(*span)])
    ]
    known = "".join(own.split())
    if invoice.iban and ibans and not any("".join(text[slice(*i)].split()) in known for i in ibans):
        found.append(("iban", invoice.iban, ibans[0]))
    shows_lines = all(_amount(line) in amounts for line in invoice.lines)
    for name, number in (
        ("payable", invoice.payable),
        ("gross", invoice.gross),
        ("tax", invoice.tax),
        ("net", invoice.net),
    ):
        amount = _amount(number or 0)
        is_decisive = name == "payable"
        if amount and amount not in amounts and (is_decisive or (foreign and shows_lines)):
            nearest = min(
                foreign, key=lambda t: abs((page.numbers.amount(t.raw) or 0) - amount), default=None
            )
            found.append((name, f"{number:.2f}", page.place(*nearest.digits) if nearest else None))
    priced = [
        t for t in amounts.get(_amount(invoice.payable or 0), ()) if t.unit and t.unit.is_currency
    ]
    if (
        priced
        and invoice.currency
        and not any(t.unit and invoice.currency in t.unit.ids for t in priced)
    ):
        found.append(("currency", invoice.currency, page.place(priced[0].start, priced[0].end)))
    differences = [
        Disagreement(
            "page", name, value, invoice.places.get(name, ""), *_on_page(text, pages, span)
        )
        for name, value, span in found
    ]
    return replace(
        invoice,
        disagreements=(*invoice.disagreements, *differences)[:_MOST],
        witnesses=(*invoice.witnesses, "page"),
    )


def sum_disagreements(invoice: Invoice) -> list[str]:
    return [
        f": the sums of its e-invoice do not agree: {d.field} is {d.stated}, its parts make "
        f"{d.found} ({d.rule}, {d.stated_at})"
        for d in invoice.disagreements[:_MOST_SHOWN]
    ]


def page_disagreements(invoice: Invoice) -> list[str]:
    return [
        f": its e-invoice and its page do not agree: {d.field} is {d.stated}, and the page shows "
        f"{d.found or 'nothing like it'}"
        for d in invoice.disagreements
        if d.rule == "page"
    ]


def _amounts(index: SourceIndex) -> dict[Decimal, list[NumberToken]]:
    """Return the numbers with two decimals, without their signs: a credit may have one."""
    found: dict[Decimal, list[NumberToken]] = {}
    for token, obstacle in index.numbers.all():
        amount = index.numbers.amount(token.raw)
        if amount is not None and obstacle in ("number", "sign") and token.raw[-3:-2] in (".", ","):
            found.setdefault(abs(amount), []).append(token)
    return found


def _amount(number: float) -> Decimal:
    return abs(_rounded(Decimal(repr(number))))


def _is_iban(text: str) -> bool:
    code = "".join(text.split())
    return int("".join(str(int(sign, 36)) for sign in code[4:] + code[:4])) % 97 == 1


def _on_page(text: str, pages: Sequence[str], span: Span | None) -> tuple[str, str, int]:
    """Return what stands there, the line and the page."""
    if span is None:
        return "", "", 1
    start, end = text.rfind("\n", 0, span[0]) + 1, text.find("\n", span[1])
    line = " ".join(text[start : end if end > 0 else None].split())[:_MOST_LINE_CHARS]
    return text[slice(*span)], line, bisect_right(page_offsets(pages), span[0])
