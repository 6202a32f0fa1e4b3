"""What a document offers to rules: its values with the labels that govern them, and other words.

Of a page whose words have boxes, rows and cells are made of these, else of lines: no rule hangs on
a text's notation. A value is governed by the words before it in its cell, by the cell before it, or
by the head of its column. Rows that follow one another and have values are a block: its labels tell
whether a sender's layout changed there. What a decision keeps of its document is this, packed;
with it what an e-invoice states, as far as its page shows the same.
"""

from __future__ import annotations

import json
import re
import zlib
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from itertools import chain
from operator import attrgetter
from typing import Any, Literal

from paddock.engine.system.records import Struct, field, replace
from paddock.pipelines.checking.cldr import is_unit, unit_named
from paddock.pipelines.checking.schema_parts import SchemaParts
from paddock.pipelines.checking.source_index import SourceIndex
from paddock.pipelines.e_invoices import EInvoice, InvoiceTerm
from paddock.pipelines.text_cells import PlacedCell, SourceText, TextCell
from paddock.pipelines.text_marks import searchable, shown_text
from paddock.steps.readers.document_kinds import MEDIA_TYPES
from paddock.steps.readers.e_invoice_checks import accounts_in

from .reasons import WhyOpen

How = Literal["in", "left", "above", "prose"]
MOST_PACKED_CHARS = 4_096
_MAILS = (MEDIA_TYPES["eml"], MEDIA_TYPES["msg"])
_SELF_BILLED = frozenset(("261", "389", "471", "473", "500", "501", "502", "527"))
_NO_BILL = frozenset(("130", "325", "457", "817"))
"""Codes of UNTDID 1001: a data sheet, a proforma invoice, a reversal of debit, a claim."""
_MOST_CHARS = 60_000  # of a text; of a longer document no rule is made
_MOST_LABEL_CHARS, _MOST_NAME_CHARS = 60, 100
_MOST_CHOICES = 40  # of a field whose words are looked for in a text
_MOST_VALUES = 3  # of one label: where two differ, no rule reads either
_NAME_WORDS, _PROSE_WORDS = 8, 5  # a cell of so many words is a sentence, not a label
_AMOUNT = re.compile(
    "(?<![\\w.,'\u2019/])(?<!\\w[-\u2013])"
    "(?:\\d{1,3}(?:[ \u00a0\u202f.,'\u2019]\\d{3})+|\\d+)(?:[.,]\\d+)?"
    "(?![\\w'\u2019]|/(?!-(?!\\w))|[.,]\\d|[-\u2013]\\w)"
)
WITH_CENTS = re.compile(
    "(?<![\\d.,])(?:\\d+|\\d{1,3}([., '\u00a0\u202f\u2019])(?:\\d{2,3}\\1)*\\d{3}(?!\\1))"
    "[.,]\\d\\d(?![.,]?\\d)"
)
"""An amount; no day such as 01.03.27, and no code."""
_RATE = re.compile(r"(?<![\d.,])(\d\d?(?:[.,]\d\d?)?)\s?%")
_TOKEN = re.compile(r"\S*\d\S*")
_MINUS = "([-\u2212\u2013])?"
_SIGN = "([^\\W\\d_]{1,3}[$\u00a3\u00a5]|[^\\W\\d_]{1,3}\\b|[^\\w\\s.,:;|()'\u2212\u2013-])?"
_SIGN_BEFORE = re.compile(rf"(?:^|[\s(|:]){_MINUS}\s?{_SIGN}\s?{_MINUS}$")
_SIGN_BEHIND = re.compile(rf"\s?{_SIGN}")
_DASH_BEHIND_WORD = re.compile("[^\\W_]\\s+[-\u2212\u2013]\\s+[^-\u2212\u2013]*$")
_PIECE = re.compile("[^\\W\\d_]{1,3}[$\u00a3\u00a5]|[^\\W\\d_]+|\\d+(?:[.,]\\d+)*|[^\\w\\s]")
_DASH_BEFORE_WORD = re.compile("\\s[-\u2212\u2013]\\s+(?=[^\\W\\d_])")
_MARK_RUN = re.compile(r"([^\w\s])\1+")
_END_OF_LABEL, _END_OF_SENTENCE = ".,:;)]%=|+\u00b7\u2026", ".,:;|"
_DASHES = dict.fromkeys(map(ord, "\u2212\u2013"), "-")
_NEAR_SIGN = re.compile(r"([(-]*)0([)-]|[a-z]{1,2}$)?")  # `(60.00)`, `60.00-`, `60.00 CR`
_OLD_SIGNED = re.compile(r"(\(?)(-?\d[^a-z()]*\d|-?\d)((?:-|\s?(?:[cd]r|[sh]))?\)?)", re.IGNORECASE)
_BETWEEN = re.compile(r"[,;:|()]")  # two values, not one that is read in parts
_END_OF_CODE = ".,;:!?()[]|<>\"'*#"
_MOST_BEHIND = 400  # characters behind a number that are looked at
_CODE_BEGINS = re.compile(r"[^\W\d_a-z]{1,5}\s")
_CODE_BEFORE = re.compile(r"(?:^|(?<=\s))([^\W\d_a-z]{2,5}) $")  # the value is the rest of a code
_TICK = re.compile(r"(?<!\S)([\[(][xX ]?[\])]|[□◉-●☐-☒✅✓-✘⬛⬜])")
_LABELLED = re.compile(r"(?P<label>[^\d:]*[^\W\d_][^\d:]*):\s+(?P<rest>\S.*)")
_WORD = re.compile(r"[^\W\d_]+")
_SENTENCE_END = re.compile(r"[.!?]\W*$")
_HEADER = re.compile(r"(?:[\w-]+: .*\n)+\n")


class OfferedValue(Struct, frozen=True, gc=False):  # 5,000 decisions hold 80,000, and no cycle
    how: How
    label: str
    """Its words; empty: nothing governs the value."""
    written: str
    """As it stands, with a minus before the digits of an amount with one before it, without its
    currency."""
    block: int
    start: int
    end: int
    around: str = ""
    """What else stands around a number in its row, as `_around` writes it; empty: nothing, or it
    was packed before this was."""

    @property
    def anchor(self) -> tuple[str, str]:
        return self.how, self.label


class Offers(Struct, frozen=True, dict=True):
    words: frozenset[str] = frozenset()
    """Cells without digits that govern no value, folded: titles, names, greetings; `¤` and the
    sign of each currency."""
    names: tuple[str, ...] = ()
    """Cells that are a name, or begin with one."""
    values: tuple[OfferedValue, ...] = ()
    blocks: tuple[frozenset[str], ...] = ()
    """The labels of each block."""
    seller: str = ""
    """Of an e-invoice."""
    stated: Mapping[str, Any] = field(default_factory=dict)
    """By field, its value in an e-invoice with which its page and its sums agree."""
    accounts: tuple[str, ...] = ()
    named: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By field with a few choices, those whose words stand in the text."""
    currencies: Sequence[str] | None = None
    """Those that the text names; None: it was packed before they were."""
    pairs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By label, the words behind it; by a row's words, its ticks; by nothing, its sentences."""
    unread: WhyOpen | None = None
    """Why it offers nothing else; not packed, as what follows."""
    sums: Mapping[str, float] = field(default_factory=dict)
    proposed: Mapping[str, Any] = field(default_factory=dict)
    """By field, its value in an e-invoice, whatever agrees."""

    @cached_property
    def by_anchor(self) -> Mapping[tuple[str, str], Sequence[OfferedValue]]:
        """The values that something governs."""
        found = defaultdict[tuple[str, str], list[OfferedValue]](list)
        for value in self.values:
            if value.label:
                found[value.how, value.label].append(value)
        return found

    def pack(self) -> str:
        """Return them as a text; empty: they are too many to be kept."""
        values, at = list[list[Any]](), 0
        for v in self.values:  # differences are alike, which zlib makes use of
            n_behind = v.end - v.start - len(v.written)
            values.append([v.how, v.label, v.written, v.block, v.start - at, n_behind, v.around])
            at = v.start
        data = [sorted(self.words), self.names, values, [sorted(block) for block in self.blocks]]
        stated = [self.seller, self.stated, self.accounts, self.named, self.currencies]
        for some in ((*data, *stated, self.pairs), ([], [], [], [], *stated)):
            text = json.dumps(some, ensure_ascii=False, separators=(",", ":")).encode()
            packed = b64encode(zlib.compress(text)).decode()
            if len(packed) <= MOST_PACKED_CHARS:
                return packed if some[0] or self.stated else ""
        return ""

    @classmethod
    def unpack(cls, packed: str) -> Offers:
        if not packed:
            return cls()
        words, names, values, blocks, *of_whole = json.loads(zlib.decompress(b64decode(packed)))
        offered, at = list[OfferedValue](), 0
        for how, label, written, block, start, end, *around in values:
            if around:  # else it was packed before this was, without differences
                at = start = at + start
                end += start + len(written)
            elif (old := _OLD_SIGNED.fullmatch(written)) is not None and old[1] + old[3]:
                written, around = old[2], [f"{old[1]}0{old[3].lstrip().casefold()}"]
            offered.append(OfferedValue(how, label, written, block, start, end, *around))
        of_blocks = tuple(map(frozenset, blocks))
        found = cls(frozenset(words), tuple(names), tuple(offered), of_blocks, *of_whole)
        return found if found.pairs else replace(found, pairs=_pairs_in(names))  # packed before it


def offers_of(
    sources: Iterable[SourceText],
    terms: Mapping[str, InvoiceTerm] | None = None,
    schema: Any = None,
) -> Offers:
    """Return what the only document of some sources offers; of several, or a long one, nothing.

    `terms`: the fields of an answer that an e-invoice states, with its terms; `schema`: its JSON
    Schema, of whose choices it tells which are named.
    """
    documents = [source for source in sources if source.text.strip()]
    if len(documents) != 1:
        return Offers(unread=WhyOpen.SEVERAL_DOCUMENTS)
    (source,) = documents
    is_long = len(source.text) > _MOST_CHARS
    offers = Offers(unread=WhyOpen.TOO_LONG) if is_long else _offers_of_cells(source)
    text = shown_text(source.text[:_MOST_CHARS])
    named = _named_choices(text, SchemaParts.of(schema))
    terms = terms or {}
    invoice = source.invoices[0] if len(source.invoices) == 1 else None
    stated = _stated_fields(source, invoice, terms, schema)
    if source.media_type in _MAILS:  # a letter may say what else the mail is
        stated = {n: v for n, v in stated.items() if {*named.get(n, ())} <= {str(v)}}
    proposed = {} if invoice is None else _terms_of(invoice, terms, schema)
    total = _sum_to_pay(offers.values, text)
    of_total = [n for n, term in terms.items() if total and term in ("gross", "payable")]
    return replace(
        offers,
        seller=invoice["seller"] if invoice is not None and stated else "",
        stated=stated,
        accounts=tuple(accounts_in(text)),
        named=named,
        currencies=sorted({*currencies_in(text).values()}),
        sums={name: total for name in of_total if name not in proposed},
        proposed=proposed,
    )


def _sum_to_pay(values: Iterable[OfferedValue], text: str) -> float | None:
    """Return the last amount, if it is the largest, and a net sum and tax at a rate make it."""
    amounts = [
        (int(re.sub(r"\D", "", v.written)), not v.around and v.written[0] != "-")
        for v in sorted(values, key=attrgetter("start", "around"))
        if WITH_CENTS.fullmatch(v.written.removeprefix("-"))
    ]
    cents = [amount for amount, is_plain in amounts if is_plain]
    total = max((amount for amount, _ in amounts), default=0)
    rates = [r.replace(",", ".") for r in _RATE.findall(text)]
    parts = [(net, total - net) for net in cents if total - net in cents]
    is_sum = any(abs(net * float(rate) / 100 - tax) <= 1 for net, tax in parts for rate in rates)
    return total / 100 if is_sum and amounts[-1] == (total, True) else None


def _named_choices(text: str, schema: SchemaParts) -> dict[str, list[str]]:
    words, found = f" {_words_of(text)} ", dict[str, list[str]]()
    for name in sorted({name for part in schema.parts for name in part.get("properties", ())}):
        choices = {str(choice): _words_of(str(choice)) for choice in choices_of(schema, name)}
        if len(choices) <= _MOST_CHOICES and not any(map(is_currency, choices)):
            found[name] = sorted(
                c for c, phrase in choices.items() if phrase and f" {phrase} " in words
            )
    return {name: choices for name, choices in found.items() if choices}


def _words_of(text: str) -> str:
    return " ".join(_WORD.findall(text.replace("_", " "))).casefold()


def choices_of(schema: SchemaParts, name: str) -> list[Any]:
    return [choice for part in schema.field(name).parts for choice in part.get("enum", ())]


def _stated_fields(
    source: SourceText, invoice: EInvoice | None, terms: Mapping[str, InvoiceTerm], schema: Any
) -> dict[str, Any]:
    """Return the fields of an answer that an e-invoice states, and another witness of it.

    A PDF is the page of the only one in it, where nothing disagrees: what it shows as well counts,
    and with number and amount the kind. An XML without a page is the invoice itself, if its sums
    are right. So are those of a mail that brings no more.
    A reminder's PDF with it shows more: nothing. A credit's amounts have either sign, and the kind
    of a negative invoice, or a proforma one, is open, too. Whose paper a self-billed one is depends
    on who reads it: the buyer wrote it, as a credit to the seller.
    """
    if invoice is None or invoice["kind"] == "other" or invoice["type"] in _SELF_BILLED:
        return {}
    if any(d["rule"] != "R120" for d in invoice["disagreements"]):  # that is Peppol's own
        return {}
    shown, witnesses = {*invoice["shown"]}, {*invoice["witnesses"]}
    is_mail = source.media_type in _MAILS and "mail" in witnesses
    if (is_mail or source.media_type == MEDIA_TYPES["pdf"]) and shown >= {"number", "payable"}:
        shown.add("kind")
    elif (len(source.part_starts) == 1 or is_mail) and witnesses - {"mail"} == {"xml", "sums"}:
        shown = {*terms.values()}
    else:
        return {}
    shown -= {"kind"} if invoice["type"] in _NO_BILL else set()
    if invoice["kind"] == "credit_note" or (invoice["payable"] or 0) < 0:
        shown -= {"net", "tax", "gross", "payable"}
        shown -= {"kind"} if invoice["kind"] == "invoice" else set()
    return _terms_of(invoice, {n: term for n, term in terms.items() if term in shown}, schema)


def _terms_of(invoice: EInvoice, terms: Mapping[str, InvoiceTerm], schema: Any) -> dict[str, Any]:
    """Return the fields that an e-invoice has; of a field of choices, if it is one of them."""
    found = {name: invoice[term] for name, term in terms.items() if invoice[term]}
    for name in found:
        choices, value = choices_of(SchemaParts.of(schema), name), _words_of(str(found[name]))
        same = [choice for choice in choices if _words_of(str(choice)) == value]
        found[name] = same[0] if len(same) == 1 else None if choices else found[name]
    return {name: value for name, value in found.items() if value is not None}


def _offers_of_cells(source: SourceText) -> Offers:
    source, rows = replace(source, text=searchable(source.text)), list[list[PlacedCell]]()
    is_mail = source.media_type == MEDIA_TYPES["eml"]
    for number, start in enumerate(source.part_starts, 1):
        cells = source.cells(number)
        if any(cell.p is not None and cell.p < 1 for cell in cells):
            return Offers(unread=WhyOpen.OCR)  # which has its own doubts
        header = _HEADER.match(source.text, start) if is_mail else None
        own = [cell for cell in cells if header is None or _is_own(source.text, cell, header.end())]
        rows += source.rows(own)
    return _GovernedRows(rows).offers()


def _is_own(text: str, cell: TextCell, header_end: int) -> bool:
    """Return whether a line of a mail is the document's: a mail is sent on another day."""
    is_header = cell.start < header_end and cell.box is None
    return not is_header or text[cell.start : cell.end].casefold().startswith("from:")


def label_of(text: str, signs: set[str] | None = None) -> str:
    """Return the words of a label, folded: without digits, marks, units and signs.

    `signs`: the currencies at its end are added.

    >>> label_of("USt. 7%: EUR"), label_of("## Rechnung-Nr.:")
    ('ust', 'rechnung nr')
    """
    words = [piece for piece in _PIECE.findall(text) if _WORD.match(piece) or is_currency(piece)]
    while words and is_currency(words[-1]):
        word = words.pop()
        if signs is not None and is_unit(word):  # not `le`
            signs.add(word)
    return " ".join(filter(_WORD.fullmatch, words)).casefold()[-_MOST_LABEL_CHARS:]


def is_currency(text: str) -> bool:
    unit = unit_named(text)
    return unit is not None and unit.is_currency and (len(text) != 3 or text.isupper())


def currencies_in(text: str) -> dict[str, str]:
    """Return the currencies that a text names, by their signs in it."""
    units = {sign: unit_named(sign) for sign in _currency_signs(_PIECE.findall(text))}
    return {sign: " or ".join(sorted(unit.ids)) for sign, unit in units.items() if unit}


def _currency_signs(pieces: Iterable[str]) -> set[str]:
    return {piece for piece in pieces if is_currency(piece) and is_unit(piece)}  # not `le`


# --- values and labels


class _Value(Struct):
    label: str
    """The words before it in its cell."""
    written: str
    start: int
    end: int
    before: str = ""
    """Of a number: what stands between its label and it."""
    behind: str | None = None
    """Of a number: what stands behind it in its cell, without values."""


def _is_prose(text: str) -> bool:
    n_words = len(_WORD.findall(text))
    return n_words > 1 and (
        n_words > _PROSE_WORDS or bool(_SENTENCE_END.search(text) and n_words > 3)
    )


def _values_in(cell: PlacedCell, signs: set[str]) -> tuple[list[_Value], str]:
    """Return the days, amounts and codes of a cell, and its text with 9 for days and amounts."""
    text, found, plain, at = cell.text, list[_Value](), cell.text, 0
    if not any(map(str.isdigit, text)):
        return found, plain
    spans = dict[tuple[int, int], str]()
    dates = [(d.start, d.end) for d in SourceIndex(text, "und").dates.all()]
    for start, end in sorted(dates, key=lambda span: span[0] - span[1]):  # the longest first
        if not any(a < end and start < b for a, b in spans):
            spans[start, end] = "day"
    for amount in _AMOUNT.finditer(text):
        if not any(a < amount.end() and amount.start() < b for a, b in spans):
            spans[amount.span()] = "amount"
    for token in _TOKEN.finditer(text):
        if not any(a < token.end() and token.start() < b for a, b in spans):
            code = token[0].strip(_END_OF_CODE)
            if _AMOUNT.fullmatch(code):  # `.60` is not 60
                code = token[0].rstrip(_END_OF_CODE)
            start = token.start() + token[0].find(code)
            spans[start, start + len(code)] = "code"
    for (start, end), kind in sorted(spans.items()):
        written, lead, before = text[start:end], text[at:start], ""
        if kind == "amount" and text[end:].lstrip(" \u00a0").startswith("%"):
            continue  # a rate is a part of its label
        plain = plain if kind == "code" else f"{plain[:start]}{9:<{end - start}}{plain[end:]}"
        if kind == "amount":
            cut, own = len(lead), ""
            if (sign := _SIGN_BEFORE.search(lead)) is not None:
                cut = min((sign.start(n) for n in (1, 2, 3) if sign[n]), default=cut)
                own = sign[2] or ""
                is_apart = bool(sign[2]) and lead[sign.end(1)].isspace()  # `Total: - EUR 60.00`
                if sign[1] and (sign[3] or is_apart or _DASH_BEHIND_WORD.search(lead)):
                    own = f"{sign[1]}{own}{sign[3] or ''}"  # `Total - 60.00`: it may part the two
                elif sign[1] or sign[3]:
                    written = f"-{written}"
            before, lead = f"{_end_of_label(lead[:cut])} {own}", lead[:cut]
            behind = _SIGN_BEHIND.match(text, end)
            if behind is not None and behind[1] and is_currency(behind[1]):
                signs.add(behind[1])
                end = behind.end()
        label = label_of(lead, signs)
        if found and not label and not _BETWEEN.search(lead):
            value = found[-1]
            value.written, value.end = text[value.start - cell.start : end], cell.start + end
        else:
            found.append(_Value(label, written, cell.start + start, cell.start + end, before))
        at = end
    for value in found:
        if _AMOUNT.fullmatch(value.written.removeprefix("-")):
            value.behind = plain[value.end - cell.start :][:_MOST_BEHIND]
    return found, plain


def _end_of_label(text: str) -> str:
    words = (p for p in _PIECE.finditer(text) if p[0].isalnum() and not is_currency(p[0]))
    return text[max((word.end() for word in words), default=0) :]


def _around(before: str, behind: str, signs: set[str]) -> str:
    """Return what stands around a number, 0, as it is compared; empty: nothing does.

    Without currencies, which are added to `signs`, white space, and marks at the ends of labels and
    sentences; other numbers are 9, but for a rate at the end.

    >>> [_around(*parts, set()) for parts in ((" (", " EUR)"), (": ", ", incl. 7% VAT."))]
    ['(0)', '0,incl.9%vat']
    """
    texts = list[str]()
    for text in (before, _DASH_BEFORE_WORD.sub("\u2014", behind)):  # between two phrases
        pieces = _PIECE.findall(text)
        found = _currency_signs(pieces)
        signs |= found
        rate = pieces[-2:-1] if pieces[-1:] == ["%"] else []  # of this: `60.00 less 2%`
        kept = ("9" if p[0].isdigit() and [p] != rate else p for p in pieces if p not in found)
        texts.append(_MARK_RUN.sub(r"\1\1", "".join(kept)).casefold())
    left = texts[0].replace("()", "").lstrip(_END_OF_LABEL)
    right = texts[1].rstrip(_END_OF_SENTENCE)
    if len(right) > _MOST_LABEL_CHARS:  # a pack holds it again for each number before it
        right = sha256(right.encode()).hexdigest()[:16]
    return f"{left}0{right}" if left or right else ""


def signed_amounts(source: SourceText, page: int) -> list[tuple[str, int, int]]:
    """Return the amounts of a page with what is or may be their sign, and the bounds of each."""
    found = list[tuple[str, int, int]]()
    for cell in (cell for row in source.rows(source.cells(page)) for cell in row):
        pieces = _PIECE.findall(cell.text)
        for value in _values_in(cell, set())[0]:
            written, start, end = value.written, value.start, value.end
            is_amount = not written.isdigit() or any(map(is_currency, pieces))  # not `4711-`
            around = _around(value.before, value.behind or "", set()).translate(_DASHES)
            for before, behind in _NEAR_SIGN.findall(around) if is_amount else ():
                written = f"{before}{written}{' ' if behind.isalpha() else ''}{behind}"
            shown = cell.text[start - cell.start : end - cell.start]
            is_signed = written != value.written or written[0] == "-"
            if is_signed and source.text[start:end] == shown:  # a row may be apart in the text
                found.append((written, start, end))
    return found


def _whole(cell: PlacedCell, start: int) -> _Value:
    return _Value("", cell.text[start - cell.start :], start, cell.start + len(cell.text))


def _whole_code(cell: PlacedCell, value: _Value) -> _Value | None:
    """Return the code of which a value is the rest: `INV 8509`; None: there is none."""
    at = value.start - cell.start
    if (found := _CODE_BEFORE.search(cell.text[:at])) is None or is_currency(found[1]):
        return None
    start, word = found.start(1), found[1].casefold()
    label = value.label.removesuffix(word).rstrip()
    code = cell.text[start : at + len(value.written)]
    return _Value(label, code, cell.start + start, value.end)


class _GovernedRows:
    def __init__(self, rows: Sequence[Sequence[PlacedCell]]) -> None:
        self.rows = rows
        self.signs = set[str]()
        read = [[_values_in(cell, self.signs) for cell in row] for row in rows]
        self.values = [[values for values, _ in row] for row in read]
        self.plain = [[plain for _, plain in row] for row in read]
        self.governing = set[tuple[int, int]]()
        """Row and cell of each label."""

    def offers(self) -> Offers:
        found, blocks = dict[Any, OfferedValue](), list[set[str]]()
        written = defaultdict[tuple[str, str], set[str]](set)

        def add(how: How, label: str, value: _Value, block: int, head: str = "") -> None:
            written[how, label].add(value.written)
            if len(written[how, label]) <= _MOST_VALUES:
                parts = f"{head} {value.before}", f"{value.behind} {rests[number][how == 'above']}"
                around = "" if value.behind is None else _around(*parts, self.signs)
                what = value.written, block, value.start, value.end, around
                offered = OfferedValue(how, label, *what)
                key = how, label, value.written, block, around
                first = found.setdefault(key, offered)
                if first.start != value.start:  # it stands twice: the tax at two rates
                    found[key] = replace(first, around=f"{first.around or 0}&")

        is_run = False
        for at, row in enumerate(self.rows):
            n_valued = sum(map(bool, self.values[at]))
            if not n_valued:
                # The heads of a table belong to the block of its rows.
                is_run = is_run and self._is_head(at)
                continue
            is_goods = n_valued > 1 and len(row) - n_valued > 0
            heads = [
                [*self._heads(at, n)]
                if v and (not v[0].label or _CODE_BEGINS.match(c.text))
                else []
                for n, (c, v) in enumerate(zip(row, self.values[at], strict=True))
            ]
            rests = self._following(at, heads)
            for number, cell in enumerate(row):
                values = self.values[at][number]
                if values and _is_prose(cell.text):
                    blocks.append(set())
                    for value in values:
                        blocks[-1].add(value.label)
                        add("prose", value.label, value, len(blocks) - 1)
                        if (whole := _whole_code(cell, value)) is not None:
                            add("prose", whole.label, whole, len(blocks) - 1)
                    continue
                if values and not is_run:
                    blocks.append(set())
                    is_run, run = True, len(blocks) - 1
                for value in values:
                    if value.label:
                        add("in", value.label, value, run)
                        blocks[run].add(value.label)
                if not values:
                    continue
                first, whole = values[0], _whole(cell, cell.start)
                if (labelled := _LABELLED.fullmatch(cell.text)) is not None:
                    rest = _whole(cell, cell.start + labelled.start("rest"))
                    if first.start != rest.start or first.end != rest.end:
                        add("in", label_of(labelled["label"]), rest, run)
                for how, place in heads[number]:
                    head = self.rows[place[0]][place[1]]
                    label, end = label_of(head.text, self.signs), _end_of_label(head.text)
                    if how == "left":  # empty cells: it stands in the column of credits
                        end += "\u00a6" * (int(cell.left - head.left) // 1000 - 1)
                    self.governing.add(place)
                    if not first.label:
                        add(how, label, first, run, end)
                    if first.start != whole.start or first.end != whole.end:
                        add(how, label, whole, run)  # a code with blanks
                    if not (is_goods and how == "left"):
                        blocks[run].add(label)
        return Offers(
            frozenset(self._words()) | {f"¤{sign}" for sign in self.signs},
            tuple(self._names()),
            tuple(found.values()),
            tuple(map(frozenset, blocks)),
            pairs=self._pairs(),
        )

    def _following(self, at: int, heads: Sequence[Any]) -> list[tuple[str, str]]:
        """Return the text behind each cell of a row, and what of it counts for one under a head."""
        rest, found = ("", ""), list[tuple[str, str]]()
        for text, governed in reversed([*zip(self.plain[at], heads, strict=True)]):
            found.append(rest)
            label, _, value = text.rpartition(":")
            is_value = _around("", value.translate(_DASHES), set()) in ("09", "0-9")
            if not is_value or not _WORD.search(label):  # else it is another field: `Old: 5.00`
                has_head = is_value and "above" in (how for how, _ in governed)
                longer = [f"{text} {r}"[:_MOST_BEHIND] for r in rest]
                rest = longer[0], rest[1] if has_head else longer[1]
        return found[::-1]

    def _pairs(self) -> dict[str, list[str]]:
        cells, others, ticks = list[str](), list[str](), defaultdict[str, str](str)
        for at, row in enumerate(self.rows):
            texts = ["[x]" if cell.text in ("x", "X") else cell.text for cell in row]
            text = " ".join(texts)
            parts = zip(["", *texts], texts, self.values[at], self.plain[at], strict=False)
            for before, cell, values, plain in parts:
                if not values and cell[-1] != ":":  # else it is a label
                    cells.append(f"{label_of(before)}: {cell}" if before[-1:] == ":" else cell)
                if (values or _is_prose(cell)) and not WITH_CENTS.search(text):  # goods, and sums
                    others.append(_words_of(plain))
            if _TICK.search(text):
                if not _WORD.search(_TICK.sub("", text)):  # its words stand above, or below
                    heads = [place for n in range(len(row)) for _, place in self._heads(at, n)]
                    near = chain((self.rows[a][n] for a, n in heads), *self.rows[at + 1 :][:1])
                    text = " ".join([text, *(cell.text for cell in near)])
                ticks[label_of(_TICK.sub(" ", text))] += re.sub(r"\d+", "9", text).casefold()
        ticks[""] = sha256(" ".join(others).encode()).hexdigest()[:16]
        return _pairs_in(cells) | {label: [form] for label, form in ticks.items()}

    def _is_head(self, at: int) -> bool:
        return len(self.rows[at]) > 1 and at + 1 < len(self.rows) and any(self.values[at + 1])

    def _heads(self, at: int, number: int) -> Iterator[tuple[How, tuple[int, int]]]:
        """Yield the cells that govern a value which begins a cell: the one before, and its head."""
        row, cell = self.rows[at], self.rows[at][number]
        if number and not self.values[at][number - 1] and label_of(row[number - 1].text):
            yield "left", (at, number - 1)
        for above in range(at - 1, -1, -1):
            over = [
                n
                for n, c in enumerate(self.rows[above])
                if c.left < cell.right and cell.left < c.right
            ]
            if len(over) != 1:
                same = [n for n in over if abs(self.rows[above][n].left - cell.left) < 1e-3]
                over = same if len(same) == 1 else over
            if len(over) != 1 or (len(self.rows[above]) == 1 and len(row) > 1):
                return
            if not self.values[above][over[0]]:
                head = self.rows[above][over[0]].text
                if len(self.rows[above]) > 1 and label_of(head) and not _is_prose(head):
                    yield "above", (above, over[0])
                return

    def _words(self) -> Iterator[str]:
        for at, row in enumerate(self.rows):
            for number, cell in enumerate(row):
                if (at, number) in self.governing or (
                    number and row[number - 1].text.rstrip().endswith(":")
                ):
                    continue  # a label, or a value in words
                words = cell.text.partition(": ")[0]
                if values := self.values[at][number]:
                    if len(row) > 1 or values[0].label:
                        continue
                    words = " ".join(self._between(cell, values))
                if not _is_prose(words) and (label := label_of(words)):
                    yield label

    def _between(self, cell: PlacedCell, values: Sequence[_Value]) -> Iterator[str]:
        """Yield the text of a cell beside its values: of `2nd reminder`."""
        at = cell.start
        for value in values:
            yield cell.text[at - cell.start : value.start - cell.start]
            at = value.end
        yield cell.text[at - cell.start :]

    def _names(self) -> Iterator[str]:
        for at, row in enumerate(self.rows):
            for number, cell in enumerate(row):
                first = re.split("[,<|]", cell.text, maxsplit=1)[0]
                is_name = _WORD.search(first) and not any(map(str.isdigit, first))
                is_short = len(cell.text) <= _MOST_NAME_CHARS and len(first.split()) <= _NAME_WORDS
                is_label = (at, number) in self.governing or first.rstrip().endswith(":")
                if is_name and is_short and not is_label:
                    yield name_of(cell.text)


def _pairs_in(cells: Iterable[str]) -> dict[str, list[str]]:
    found = defaultdict[str, list[str]](list)
    for label, mark, words in (cell.partition(": ") for cell in cells):
        if mark and label_of(words):  # no currency alone
            found[label_of(label)].append(_words_of(words))
    return dict(found)


def name_of(text: str) -> str:
    """Return a cell with a name as it is compared: without marks of headings, and white space."""
    return " ".join(text.strip("#*_ \t").split())
