"""Whether the witnesses of an e-invoice agree: its XML, its arithmetic, and the page it came with.

Sums follow the rules of EN 16931 (BR-CO-10 to BR-CO-17); the product of a line follows Peppol's
R120. On a page it is enough that a value stands somewhere; what is only missing there is no
contradiction, except for the number and what is to be paid.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias
from xml.etree.ElementTree import Element

from paddock.engine.system.records import Struct
from paddock.pipelines.e_invoices import EInvoice, InvoiceDisagreement, InvoiceTerm

from .e_invoice_syntaxes import Places, TermGroup, codes, number_of, text_of
from .reader import PAGE_BREAK, page_offsets

if TYPE_CHECKING:
    from paddock.pipelines.checking.dates import DateToken
    from paddock.pipelines.checking.numbers import NumberToken
    from paddock.pipelines.checking.source_index import SourceIndex

Span: TypeAlias = tuple[int, int]
_WORDS: Final = ("number", "date", "due", "seller", "buyer", "payee", "iban", "reference")
_AMOUNTS: Final = ("payable", "gross", "tax", "net")
_CENT = Decimal("0.01")
_WIDE = Context(prec=100)  # a foreign quantity and price may have 20 digits each
_LINE_SLACK = Decimal("0.02")  # PEPPOL-EN16931-R120
_TAX_SLACK = Decimal(1)  # BR-CO-17, as EN 16931's own schematron has it
_MOST = 20
_MOST_SHOWN = 5
_VAT_CHARS = 8  # of the shortest numbers that all of the EU but Romania has
_MOST_LINE_CHARS = 200
_MOST_PAGE_CHARS = 200_000
_CENTS = re.compile(r"[.,]..\Z")
_IBAN_BEGINS = re.compile(r"(?<![^\W_])[A-Z]{2}\W?[0-9O]{2}(?=\W{0,2}[0-9A-Z])", re.IGNORECASE)
_OF_IBAN = r"(?:[\s.\u00b7\u2010-\u2015/-]{{0,2}}[0-9A-Z]){{{}}}(?![^\W_])"
_LIKE_DIGITS = str.maketrans("OIL", "011")
_SORT_CODE = r"(?:\bsort\s?code\D{0,12})?(?<![\d-])\d\d[- ]?\d\d[- ]?\d\d(?![\d-])"
_UK_ACCOUNT = re.compile(
    rf"({_SORT_CODE})\D{{1,40}}(?<!\d)(\d{{4}} ?\d{{4}})(?!\d)"
    rf"|(?<!\d)(\d{{4}} ?\d{{4}})(?!\d)[^\d]{{1,40}}?({_SORT_CODE})",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(\d(?:[\d.,]*\d)?)(\s?%)?")
_UNCOUNTED = frozenset(("GROUP", "INFORMATION"))
"""Lines of CII that only head, or tell of, others."""


class Term(Struct, frozen=True):
    """A number, and the elements that it is made of."""

    value: Decimal = Decimal(0)
    parts: tuple[Element, ...] = ()

    def plus(self, other: Term, sign: int = 1) -> Term:
        return Term(self.value + sign * other.value, self.parts + other.parts)


class _SumRule(Struct, frozen=True):
    """A rule of EN 16931 on a total, and how national formats depart from it."""

    id: str
    total: str
    parts: str
    """What makes the total, of which only the first must be there; `-`: it is subtracted. What an
    invoice does not state is what its parts make."""
    optional_parts: str = ""
    """Parts of which a total has all, some or none."""
    slack_per_rate: Mapping[str, Decimal] = {}
    """By syntax, for each tax rate."""
    not_of_syntaxes: tuple[str, ...] = ()
    """Where the total means something else."""
    not_of_types: tuple[str, ...] = ()
    """Types of invoice whose parts are not those of the total."""
    needs_breakdown: bool = False
    """Whether it holds only where lines or tax rates are stated."""


_SUM_RULES = (
    _SumRule("BR-CO-10", "lines", "items"),
    _SumRule("BR-CO-11", "allowances", "given"),
    _SumRule("BR-CO-12", "charges", "added"),
    _SumRule(
        "BR-CO-13",
        "net",
        "lines -allowances charges",
        slack_per_rate={"fatturapa": Decimal(1)},  # as Italy's exchange checks it (00422)
        # KSeF's advances, and what they leave: their lines are those of the whole order
        not_of_types=("ZAL", "ROZ", "KOR_ZAL", "KOR_ROZ"),
    ),
    _SumRule("BR-CO-14", "tax", "taxes"),
    _SumRule(
        "BR-CO-15",
        "gross",
        "net tax in_gross on_gross",
        # Programs of Italy state it with or without what changes hands apart
        optional_parts="-withheld stamp",
    ),
    _SumRule(
        "BR-CO-16",
        "payable",
        "gross -prepaid rounding for_others -taken",
        # KSeF's total to be paid is, by its schema, before what was paid in parts
        optional_parts="-paid_part",
        not_of_syntaxes=("fatturapa",),  # it is what a transfer brings
        needs_breakdown=True,  # Factur-X's MINIMUM leaves out what was prepaid
    ),
)
_PARTS = {r.total: r.parts for r in _SUM_RULES}
_SUMS_OF_PARTS = {r.id for r in _SUM_RULES if " " not in r.parts}
_MADE_OF = {r.total: r.parts for r in _SUM_RULES if " " not in r.parts} | {"net": "bases"}


_ADDED_UP: Final = ("payable", "prepaid", "paid_part", "for_others", "withheld")
"""Totals of which each that is stated counts."""


class Sums:
    """The totals of an invoice as it states them, else as its parts make them."""

    def __init__(self, reading: TermGroup) -> None:
        self.reading, self._syntax = reading, reading.syntax
        self._amounts = dict[str, Term | None]()
        self.items = [i for i in reading.groups("item") if i.text("status") not in _UNCOUNTED]
        self.vat = [v for v in reading.groups("vat") if self._is_own(v.all("amount"))]
        on_gross = [(1 if p.text("sign") == "MG" else -1, p) for p in reading.groups("on_gross")]
        allowances = reading.groups("allowance")
        self._made = {
            "items": _total("amount", [(-1 if i.text("before") else 1, i) for i in self.items]),
            "bases": _total("basis", [(1, vat) for vat in self.vat]),
            "taxes": _total("amount", [(1, vat) for vat in self.vat if vat.all("amount")]),
            "split": _total("amount", [(1, v) for v in self.vat if v.text("owed") == "S"]),
            "on_gross": _total("amount", on_gross),
            "gross": _total("gross_amount", [(1, item) for item in self.items]),
            **{
                name: _total("amount", parts) if parts else Term()
                for name, is_added in (("given", False), ("added", True))
                for parts in [[(1, a) for a in allowances if is_charge(a) is is_added]]
            },
        }

    def amount(self, name: str) -> Term | None:
        """Return what it states; else what its parts make, and None if they do not tell.

        What is left to be paid is nothing where the invoice says that it was paid or overpaid, and
        less by parts that were paid and that no total has taken off. It is unknown where what
        states it is no amount in its currency. Payments of which one is all that is due are ways
        to pay it.
        """
        if name not in self._amounts:
            self._amounts[name] = self._amount(name)
        return self._amounts[name]

    def _amount(self, name: str) -> Term | None:
        if name != "payable":
            return self._stated(name) or self._made_of(name)
        if done := [*self.reading.all("paid"), *self.reading.all("overpaid")]:
            return Term(Decimal(0), tuple(done))
        stated, due = self._stated(name), self._due()
        if stated is None and any(map(text_of, self.reading.elements(name))):
            return None
        whole = [total.value for total in (due, self.amount("gross")) if total]
        for part in stated.parts if stated and len(stated.parts) > 1 else ():
            if (value := number_of(part)) is not None and value in whole:
                stated = Term(value, (part,))
        paid = self._stated("paid_part") or Term()
        if stated and due and stated.value == due.value - paid.value:
            return stated
        due = stated or due
        return due.plus(paid, -1) if due else None

    def _due(self) -> Term | None:
        """Return what was to be paid, by the other totals."""
        if self._syntax.name != "fatturapa":
            return self._sum(_PARTS["payable"])
        due, made = self.amount("gross"), self._sum(_PARTS["gross"])
        withheld, stamp = (self.amount(name) or Term() for name in ("withheld", "stamp"))
        if due is None:
            return None
        if made and due.value in (made.value, made.value + stamp.value):  # else it is off already
            due = due.plus(withheld, -1)
        return due.plus(self._made["split"] or Term(), -1)

    def _made_of(self, name: str) -> Term | None:
        made = self._made.get(_MADE_OF.get(name, name))
        return self._sum(_PARTS[name]) if name == "gross" and not made else made

    def _stated(self, name: str) -> Term | None:
        found = [e for e in self.reading.elements(name) if self._is_own([e])]
        has_each = name == "tax" and bool(self.vat) and self._syntax.name == "ubl"
        if name not in _ADDED_UP and not has_each:
            found = found[:1]
        numbers = [(number, e) for e in found if (number := number_of(e)) is not None]
        if numbers:
            values, parts = zip(*numbers, strict=True)
            self.reading.seen.update(parts)
            return Term(sum(values), parts)
        return None

    @property
    def keeps_rules(self) -> bool:
        """Whether the rules of EN 16931 hold: of others only totals are sums of their parts."""
        return bool(re.fullmatch(self._syntax.profiles, self.reading.text("profile")))

    def disagreements(self) -> Iterator[tuple[str, str, Term, Term]]:
        """Yield rule and field, what is stated and what it should be."""
        comparisons = list[tuple[str, str, Term | None, Term | None, Decimal]]()
        for rule in filter(self._applies, _SUM_RULES):
            stated = self._stated(rule.total) or self._made_of(rule.total)
            made = self._sum(rule.parts)
            if stated and made and stated.value - made.value in self._options(rule.optional_parts):
                continue
            per_rate = rule.slack_per_rate.get(self._syntax.name, Decimal(0))
            slack = per_rate * max(1, len(self.vat))
            comparisons.append((rule.id, rule.total, stated, made, slack))
        for vat in self.vat:
            rate, basis = vat.number("rate"), _term(vat, "basis")
            if rate is not None and basis is not None:
                tax = Term(basis.value * rate / 100, (*basis.parts, *vat.all("rate")))
                comparisons.append(("BR-CO-17", "tax", _term(vat, "amount"), tax, _TAX_SLACK))
        comparisons += [
            ("R120", "item", _term(i, "amount"), _product(i), _LINE_SLACK) for i in self.items
        ]
        for id_, name, stated, made, slack in comparisons:
            if stated and made and not _is_same(stated.value, made.value, slack):
                yield id_, name, stated, Term(_rounded(made.value), made.parts)

    def _applies(self, rule: _SumRule) -> bool:
        if self._syntax.name in rule.not_of_syntaxes:
            return False
        if self.reading.text("type") in rule.not_of_types:
            return False
        return not rule.needs_breakdown or bool(self.vat or self._made["items"])

    def _sum(self, parts: str) -> Term | None:
        """Return what the parts of a rule make; None if its first part is unknown."""
        first, *others = parts.split()
        if (made := self.amount(first)) is None:
            return None
        for sign, part in self._signed(others):
            made = made.plus(part, sign)
        return made

    def _options(self, parts: str) -> set[Decimal]:
        """Return the differences that optional parts make: all, some or none of them."""
        sums = {Decimal(0)}
        for sign, part in self._signed(parts.split()):
            sums |= {value + sign * part.value for value in sums}
        return sums

    def _signed(self, parts: Sequence[str]) -> Iterator[tuple[int, Term]]:
        for part in parts:
            sign = -1 if part.startswith("-") else 1
            yield sign, self.amount(part.removeprefix("-")) or Term()

    @property
    def can_check(self) -> bool:
        stated = self._stated("gross") or self._made["gross"]
        return bool(stated and (self.amount("net") or self._made["items"]))

    def _is_own(self, elements: Sequence[Element]) -> bool:
        """Return whether they are in the currency of the invoice."""
        known = (None, "", self.reading.text("currency"))
        return all(element.get("currencyID") in known for element in elements)


def is_charge(allowance: TermGroup) -> bool:
    return allowance.text("is_charge").lower() in ("true", "1")


def check_sums(invoice: EInvoice, sums: Sums) -> EInvoice:
    places = Places(sums.reading.root)

    def paths(term: Term) -> str:
        shown = [path for path in dict.fromkeys(map(places.path, term.parts)) if path]
        return " + ".join([*shown[:_MOST_SHOWN], *(["…"] if len(shown) > _MOST_SHOWN else [])])

    differences = list(islice(sums.disagreements(), _MOST))
    can_check = sums.can_check
    if not sums.keeps_rules:
        shared = [("sum", *d[1:]) for d in differences if d[0] in _SUMS_OF_PARTS]
        can_check &= len(shared) == len(differences)  # else what makes its totals is unknown
        differences = shared
    found = [
        InvoiceDisagreement(
            rule=rule,
            field=name,
            stated=f"{stated.value:f}",
            stated_at=paths(stated),
            found=f"{made.value:f}",
            found_at=paths(made),
            page=0,
        )
        for rule, name, stated, made in differences
    ]
    checked: EInvoice = {**invoice, "disagreements": found}
    return {**checked, "witnesses": ["xml", "sums"]} if can_check else checked


def _total(name: str, signed: Sequence[tuple[int, TermGroup]]) -> Term | None:
    """Return the sum; None if there is nothing to sum, or one of them has no such number."""
    total = Term()
    for sign, reading in signed:
        if (term := _term(reading, name)) is None:
            return None
        total = total.plus(term, sign)
    return total if signed else None


def _term(reading: TermGroup, name: str) -> Term | None:
    number = reading.number(name)
    return None if number is None else Term(number, (reading.all(name)[0],))


def _product(item: TermGroup) -> Term | None:
    """Return what quantity and price make; None where a discount of each piece is not told."""
    quantity, price = _term(item, "quantity"), _term(item, "price")
    if quantity is None or price is None or item.groups("each"):
        return None
    value = quantity.value * price.value / (item.number("per") or 1)
    made = Term(value, (*quantity.parts, *price.parts, *item.all("per")[:1]))
    for allowance in item.groups("allowance"):
        made = made.plus(_term(allowance, "amount") or Term(), 1 if is_charge(allowance) else -1)
    return made


def _rounded(number: Decimal) -> Decimal:
    return number.quantize(_CENT, ROUND_HALF_UP, _WIDE)


def _is_same(first: Decimal, other: Decimal, within: Decimal) -> bool:
    return first == other or abs(_rounded(first) - _rounded(other)) <= within


def check_page(invoice: EInvoice, own: str, pages: Sequence[str], first: int = 1) -> EInvoice:
    """Compare it with the pages that show it, from number `first`; `own` are its XML's lines."""
    page, xml = _index(pages), _index([own])
    text = page.text
    if not text.strip():
        return invoice
    differences = list(invoice["disagreements"])
    for name, value, span in _differences(invoice, page, xml):
        start, end = span or (0, 0)
        whole = text[text.rfind("\n", 0, start) + 1 :].partition("\n")
        line = " ".join(whole[0].split())[:_MOST_LINE_CHARS] if span else ""
        difference = InvoiceDisagreement(
            rule="page",
            field=name,
            stated=value,
            stated_at=invoice["places"].get(name, ""),
            found=text[start:end],
            found_at=line,
            page=first - 1 + bisect_right(page_offsets(pages), start),
        )
        differences.append(difference)
    return {
        **invoice,
        "disagreements": differences[:_MOST],
        "witnesses": [*invoice["witnesses"], "page"],
        "shown": [*_shown(invoice, page, xml)],
    }


def own_page(invoice: EInvoice, documents: Sequence[Sequence[str]]) -> int | None:
    """Return which document shows its number, else the amount to pay; None: none, or several."""
    shown, number = [*map(_index, documents)], invoice["number"]
    found = [n for n, page in enumerate(shown) if number and page.find(number)]
    if len(found) != 1:
        amount = _amount(invoice["payable"] or 0)
        found = [n for n in found or range(len(shown)) if amount and amount in _amounts(shown[n])]
    return found[0] if len(found) == 1 else None


def _differences(
    invoice: EInvoice, page: SourceIndex, xml: SourceIndex
) -> Iterator[tuple[str, str, Span | None]]:
    """Yield a field, its value and where on the page another one stands instead."""
    if (number := invoice["number"]) and not page.find(number):
        yield "number", number, None
    # Other days before that of the invoice are those of orders
    day_of_invoice = invoice["date"]
    for name, value, after in (
        ("date", day_of_invoice, ""),
        ("due", invoice["due"], day_of_invoice),
    ):
        others = _days_after(after, page, xml)
        if value and not page.find(value) and (day := next(others, None)):
            yield name, value, page.place(day.start, day.end)
    found, known = accounts_in(page.text), "".join(xml.text.split()).upper()
    if invoice["iban"] and found and not any(account in known for account in found):
        yield "iban", invoice["iban"], next(iter(found.values()))
    amounts, stated = _amounts(page), _amounts(xml)
    foreign = [tokens[0] for amount, tokens in amounts.items() if amount not in stated]
    shows_lines = all(_amount(line) in amounts for line in invoice["lines"])
    for term in _AMOUNTS:
        sum_stated = invoice[term] or 0
        amount = _amount(sum_stated)
        is_decisive = term == "payable" or (foreign and shows_lines)
        if amount and amount not in amounts and is_decisive:
            far = [abs((page.numbers.amount(token.raw) or 0) - amount) for token in foreign]
            nearest = foreign[far.index(min(far))] if far else None
            yield term, f"{sum_stated:.2f}", page.place(*nearest.digits) if nearest else None
    to_pay = amounts.get(_amount(invoice["payable"] or 0), ())
    priced = [(t, t.unit.ids) for t in to_pay if t.unit and t.unit.is_currency]
    currency = invoice["currency"]
    if priced and currency and not any(currency in ids for _, ids in priced):
        yield "currency", currency, page.place(priced[0][0].start, priced[0][0].end)


def _days_after(after: str, page: SourceIndex, xml: SourceIndex) -> Iterator[DateToken]:
    """Yield the days of a page after one of them that the XML does not have."""
    known = {day for token in xml.dates.all() for day in token.days}
    for token in page.dates.all():
        last = max(f"{year or 0:04}-{month:02}-{day:02}" for year, month, day in token.days)
        if not token.days & known and last > after:
            yield token


def day_of_terms(invoice: EInvoice) -> str:
    """Return the day to pay by, as payment terms say it in words; empty: none, or in doubt.

    It is the last one in them, if all their other numbers are known: the amount to pay, the days
    from the invoice to one of them, and the per cent of a discount, where an earlier day is its.
    """
    if not any(map(str.isdigit, invoice["terms"])):
        return ""
    index = _index([invoice["terms"]])
    tokens = index.dates.all()
    readings = [{f"{y or 0:04}-{m:02}-{d:02}" for y, m, d in token.days} for token in tokens]
    days = {min(some) for some in readings}
    try:
        start = date.fromisoformat(invoice["date"])
        distances = {Decimal((date.fromisoformat(day) - start).days) for day in days}
    except ValueError:
        return ""
    known = {*distances, *(_amount(n) for n in (invoice["payable"], invoice["gross"]) if n)}
    rest = list(invoice["terms"])
    for token in tokens:
        rest[token.start : token.end] = " " * (token.end - token.start)
    numbers = _NUMBER.findall("".join(rest))
    if any(len(some) > 1 for some in readings) or min(distances, default=Decimal(-1)) < 0:
        return ""
    is_known = all(
        (len(days) > 1 if percent else index.numbers.amount(raw) in known)
        for raw, percent in numbers
    )
    return max(days) if is_known else ""


def with_letter(invoice: EInvoice, own: str, letter: str) -> EInvoice:
    """Add the mail that brought it to its witnesses, if its letter has no more than its XML."""
    if _has_more(invoice, _index([letter]), _index([own])):
        return invoice
    return {**invoice, "witnesses": [*invoice["witnesses"], "mail"]}


def _has_more(invoice: EInvoice, page: SourceIndex, xml: SourceIndex) -> bool:
    """Return whether a page has a later day or a larger amount."""
    most = _amount(max(invoice["gross"] or 0, invoice["payable"] or 0, key=abs))
    stated = {xml.numbers.amount(token.raw) for token in xml.numbers.all()}
    is_larger = any(amount > most for amount in _amounts(page) if amount not in stated)
    return is_larger or next(_days_after(invoice["date"], page, xml), None) is not None


def _shown(invoice: EInvoice, page: SourceIndex, xml: SourceIndex) -> Iterator[InvoiceTerm]:
    """Yield the fields that a page shows, if it has no more than its XML: no day of a reminder."""
    amounts = _amounts(page)
    if _has_more(invoice, page, xml):
        return
    units = {id_ for tokens in amounts.values() for t in tokens if t.unit for id_ in t.unit.ids}
    vat = invoice["seller_vat"]
    has_vat_number = (
        len(vat) >= _VAT_CHARS and not vat.isalpha() and vat in "".join(page.text.split())
    )
    for name in _WORDS:
        is_day, value = name in ("date", "due"), invoice[name]
        if value and (page.find(value) if is_day else page.words.find(value)):
            yield name
        elif name == "seller" and has_vat_number:
            yield name  # which may be a picture
    currency = invoice["currency"]
    if currency and (currency in units or page.words.find(currency)):
        yield "currency"
    for term in reversed(_AMOUNTS):
        if _amount(invoice[term] or 0) in amounts:
            yield term


def sum_disagreements(invoice: EInvoice) -> list[str]:
    return [
        f": the sums of its e-invoice do not agree: {d['field']} is {d['stated']}, its parts make "
        f"{d['found']} ({d['rule']}, {d['stated_at']})"
        for d in invoice["disagreements"][:_MOST_SHOWN]
    ]


def page_disagreements(invoice: EInvoice) -> list[str]:
    return [
        f": its e-invoice and its page do not agree: {d['field']} is {d['stated']}, and the page "
        f"shows {d['found'] or 'nothing like it'}"
        for d in invoice["disagreements"]
        if d["rule"] == "page"
    ]


def _index(pages: Sequence[str]) -> SourceIndex:
    from paddock.pipelines.checking.source_index import SourceIndex  # 30 ms; few documents need it

    # What a language decides stays open: both readings are compared. Its model takes 110 MB
    return SourceIndex(PAGE_BREAK.join(pages)[:_MOST_PAGE_CHARS], "und")


@lru_cache(maxsize=2)  # of a page and its XML, at which each question looks
def _amounts(index: SourceIndex) -> Mapping[Decimal, list[NumberToken]]:
    """Return the numbers with two decimals, without their signs: a credit may have one."""
    found: dict[Decimal, list[NumberToken]] = {}
    for token in index.numbers.all(_CENTS.search):
        amount = index.numbers.amount(token.raw)
        if token.obstacle in (None, "sign") and amount is not None:
            found.setdefault(abs(amount), []).append(token)
    return found


def _amount(number: float) -> Decimal:
    return abs(_rounded(Decimal(repr(number))))


def accounts_in(text: str) -> dict[str, Span]:
    """Return the accounts in a text, as letters and digits alone.

    They are IBANs whose check digits are right, in any groups and with letters for digits (`O`),
    and numbers of the UK with their sort code, which is no day.
    """
    found, lengths = dict[str, Span](), codes()["iban lengths"]
    for begin in _IBAN_BEGINS.finditer(text):
        n = int(lengths.get(begin[0][:2].upper(), "0")) - 4
        rest = n > 0 and re.compile(_OF_IBAN.format(n), re.IGNORECASE).match(text, begin.end())
        digits = filter(str.isdigit, rest[0].upper().translate(_LIKE_DIGITS)) if rest else ()
        if rest and 2 * len([*digits]) >= n:  # else it is a sentence
            signs = "".join(filter(str.isalnum, begin[0] + rest[0])).upper()
            for account in (signs, signs[:2] + signs[2:].translate(_LIKE_DIGITS)):
                if is_iban(account):
                    found[account] = begin.start(), rest.end()
                    break
    for match in _UK_ACCOUNT.finditer(text):
        code, number = (match[1], match[2]) if match[1] else (match[4], match[3])
        sort = "".join(filter(str.isdigit, code))
        if not code[0].isdigit() or ("-" in code and not _is_day(sort)):
            found[sort + "".join(number.split())] = match.span()
    return found


def _is_day(digits: str) -> bool:
    first, second, third = (int(digits[at : at + 2]) for at in (0, 2, 4))
    ways = (first, second), (second, first), (third, second)
    return any(0 < day < 32 and 0 < month < 13 for day, month in ways)


def is_iban(text: str) -> bool:
    """Return whether it is one by ISO 13616: length of its country and check digits."""
    code = "".join(text.split()).upper()
    if len(code) != int(codes()["iban lengths"].get(code[:2], "-1")) or not (
        code.isascii() and code.isalnum()
    ):
        return False
    return int("".join(str(int(sign, 36)) for sign in code[4:] + code[:4])) % 97 == 1
