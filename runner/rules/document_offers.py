"""What a document offers to rules: its values with the labels that govern them, and other words.

Of a page whose words have boxes, rows and cells are made of these, else of lines: no rule hangs on
a text's notation. A value is governed by the words before it in its cell, by the cell before it, or
by the head of its column. Rows that follow one another and have values are a block: its labels tell
whether a sender's layout changed there. With these what an e-invoice states, as far as its page
shows the same.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import chain, zip_longest
from operator import attrgetter
from typing import Any

from paddock.engine.system.records import replace
from paddock.pipelines.checking.schema_parts import SchemaParts
from paddock.pipelines.e_invoices import EInvoice, InvoiceTerm
from paddock.pipelines.text_cells import PlacedCell, SourceText, TextCell
from paddock.pipelines.text_marks import searchable, shown_text
from paddock.steps.readers.document_kinds import MEDIA_TYPES
from paddock.steps.readers.e_invoice_checks import accounts_in

from .cell_values import (
    DASHES,
    MOST_BEHIND,
    WITH_CENTS,
    WORD,
    CellValue,
    around_number,
    currencies_in,
    end_of_label,
    is_currency,
    is_prose,
    label_of,
    name_of,
    values_in,
    whole_code,
    words_of,
)
from .offers import How, OfferedValue, Offers
from .reasons import WhyOpen

_MAILS = (MEDIA_TYPES["eml"], MEDIA_TYPES["msg"])
_SELF_BILLED = frozenset(("261", "389", "471", "473", "500", "501", "502", "527"))
_NO_BILL = frozenset(("130", "325", "457", "817"))
"""Codes of UNTDID 1001: a data sheet, a proforma invoice, a reversal of debit, a claim."""
_MOST_CHARS = 60_000  # of a text; of a longer document no rule is made
_MOST_CHOICES = 40  # of a field whose words are looked for in a text
_MOST_NAME_CHARS, _NAME_WORDS = 100, 8
_MOST_VALUES = 3  # of one label: where two differ, no rule reads either
_CODE_BEGINS = re.compile(r"[^\W\d_a-z]{1,5}\s")
_TICK = re.compile(r"(?<!\S)([\[(][xX ]?[\])]|[□◉-●☐-☒✅✓-✘⬛⬜])")
_LABELLED = re.compile(r"(?P<label>[^\d:]*[^\W\d_][^\d:]*):\s+(?P<rest>\S.*)")
_RATE = re.compile(r"(?<![\d.,])(\d\d?(?:[.,]\d\d?)?)\s?%")
_HEADER = re.compile(r"(?:[\w-]+: .*\n)+\n")


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
    words, found = f" {words_of(text)} ", dict[str, list[str]]()
    for name in sorted({name for part in schema.parts for name in part.get("properties", ())}):
        choices = {str(choice): words_of(str(choice)) for choice in choices_of(schema, name)}
        if len(choices) <= _MOST_CHOICES and not any(map(is_currency, choices)):
            found[name] = sorted(
                c for c, phrase in choices.items() if phrase and f" {phrase} " in words
            )
    return {name: choices for name, choices in found.items() if choices}


# --- what an e-invoice states


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
        choices, value = choices_of(SchemaParts.of(schema), name), words_of(str(found[name]))
        same = [choice for choice in choices if words_of(str(choice)) == value]
        found[name] = same[0] if len(same) == 1 else None if choices else found[name]
    return {name: value for name, value in found.items() if value is not None}


def choices_of(schema: SchemaParts, name: str) -> list[Any]:
    return [choice for part in schema.field(name).parts for choice in part.get("enum", ())]


# --- rows of a page


class _GovernedRows:
    def __init__(self, rows: Sequence[Sequence[PlacedCell]]) -> None:
        self.rows = rows
        self.signs = set[str]()
        read = [[values_in(cell, self.signs) for cell in row] for row in rows]
        self.values = [[values for values, _ in row] for row in read]
        self.plain = [[plain for _, plain in row] for row in read]
        self.governing = set[tuple[int, int]]()
        """Row and cell of each label."""
        self._found = dict[Any, OfferedValue]()
        self._blocks = list[set[str]]()
        """The labels of each."""
        self._written = defaultdict[tuple[str, str], set[str]](set)
        """What stands under each label."""

    def offers(self) -> Offers:
        block: int | None = None
        for at, (values, below) in enumerate(zip_longest(self.values, self.values[1:])):
            if any(values):
                block = self._read_row(at, block)
            elif len(values) < 2 or not any(below or ()):  # heads of a table belong to its rows
                block = None
        return Offers(
            frozenset(self._words()) | {f"¤{sign}" for sign in self.signs},
            tuple(self._names()),
            tuple(self._found.values()),
            tuple(map(frozenset, self._blocks)),
            pairs=self._pairs(),
        )

    def _read_row(self, at: int, block: int | None) -> int | None:
        """Read the values of a row; return its block, which may be that of the row before."""
        row, n_valued = self.rows[at], sum(map(bool, self.values[at]))
        is_goods = n_valued > 1 and len(row) - n_valued > 0
        heads = [
            [*self._heads(at, n)] if v and (not v[0].label or _CODE_BEGINS.match(c.text)) else []
            for n, (c, v) in enumerate(zip(row, self.values[at], strict=True))
        ]
        behind = self._following(at, heads)
        for number, (cell, values) in enumerate(zip(row, self.values[at], strict=True)):
            rest = behind[number]
            if not values:
                continue
            if is_prose(cell.text):
                self._read_prose(cell, values, rest[0])
                continue
            if block is None:
                block = self._new_block()
            for value in values:
                if value.label:
                    self._add("in", value.label, value, block, rest[0])
                    self._blocks[block].add(value.label)
            first, whole = values[0], _whole(cell, cell.start)
            if (labelled := _LABELLED.fullmatch(cell.text)) is not None:
                labelled_rest = _whole(cell, cell.start + labelled.start("rest"))
                if (first.start, first.end) != (labelled_rest.start, labelled_rest.end):
                    self._add("in", label_of(labelled["label"]), labelled_rest, block, rest[0])
            for how, place in heads[number]:
                head = self.rows[place[0]][place[1]]
                label, end = label_of(head.text, self.signs), end_of_label(head.text)
                if how == "left":  # empty cells: it stands in the column of credits
                    end += "\u00a6" * (int(cell.left - head.left) // 1000 - 1)
                self.governing.add(place)
                if not first.label:
                    self._add(how, label, first, block, rest[how == "above"], end)
                if (first.start, first.end) != (whole.start, whole.end):
                    self._add(how, label, whole, block, rest[how == "above"])  # a code with blanks
                if not (is_goods and how == "left"):
                    self._blocks[block].add(label)
        return block

    def _read_prose(self, cell: PlacedCell, values: Sequence[CellValue], rest: str) -> None:
        block = self._new_block()
        for value in values:
            self._blocks[block].add(value.label)
            self._add("prose", value.label, value, block, rest)
            if (whole := whole_code(cell, value)) is not None:
                self._add("prose", whole.label, whole, block, rest)

    def _new_block(self) -> int:
        self._blocks.append(set())
        return len(self._blocks) - 1

    def _add(
        self, how: How, label: str, value: CellValue, block: int, rest: str, head: str = ""
    ) -> None:
        """Add a value; `rest` stands behind its cell, `head` behind the words of its label."""
        self._written[how, label].add(value.written)
        if len(self._written[how, label]) > _MOST_VALUES:
            return
        parts = f"{head} {value.before}", f"{value.behind} {rest}"
        around = "" if value.behind is None else around_number(*parts, self.signs)
        offered = OfferedValue(how, label, value.written, block, value.start, value.end, around)
        key = how, label, value.written, block, around
        first = self._found.setdefault(key, offered)
        if first.start != value.start:  # it stands twice: the tax at two rates
            self._found[key] = replace(first, around=f"{first.around or 0}&")

    def _following(self, at: int, heads: Sequence[Any]) -> list[tuple[str, str]]:
        """Return the text behind each cell of a row, and what of it counts for one under a head."""
        rest, found = ("", ""), list[tuple[str, str]]()
        for text, governed in reversed([*zip(self.plain[at], heads, strict=True)]):
            found.append(rest)
            label, _, value = text.rpartition(":")
            is_value = around_number("", value.translate(DASHES), set()) in ("09", "0-9")
            if not is_value or not WORD.search(label):  # else it is another field: `Old: 5.00`
                has_head = is_value and "above" in (how for how, _ in governed)
                longer = [f"{text} {r}"[:MOST_BEHIND] for r in rest]
                rest = longer[0], rest[1] if has_head else longer[1]
        return found[::-1]

    def _pairs(self) -> dict[str, list[str]]:
        """Return the words behind each label, ticks, and a digest of sentences."""
        found, others = defaultdict[str, list[str]](list), list[str]()
        ticks = defaultdict[str, str](str)
        for at, row in enumerate(self.rows):
            texts = ["[x]" if cell.text in ("x", "X") else cell.text for cell in row]
            text = " ".join(texts)
            parts = zip(["", *texts], texts, self.values[at], self.plain[at], strict=False)
            for before, cell, values, plain in parts:
                if not values and cell[-1] != ":":  # else it is a label
                    pair = f"{label_of(before)}: {cell}" if before[-1:] == ":" else cell
                    label, mark, words = pair.partition(": ")
                    if mark and label_of(words):  # no currency alone
                        found[label_of(label)].append(words_of(words))
                if (values or is_prose(cell)) and not WITH_CENTS.search(text):  # goods, and sums
                    others.append(words_of(plain))
            if _TICK.search(text):
                if not WORD.search(_TICK.sub("", text)):  # its words stand above, or below
                    heads = [place for n in range(len(row)) for _, place in self._heads(at, n)]
                    near = chain((self.rows[a][n] for a, n in heads), *self.rows[at + 1 :][:1])
                    text = " ".join([text, *(cell.text for cell in near)])
                ticks[label_of(_TICK.sub(" ", text))] += re.sub(r"\d+", "9", text).casefold()
        ticks[""] = sha256(" ".join(others).encode()).hexdigest()[:16]
        return found | {label: [form] for label, form in ticks.items()}

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
                if len(self.rows[above]) > 1 and label_of(head) and not is_prose(head):
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
                    words = _beside(cell, values)
                if not is_prose(words) and (label := label_of(words)):
                    yield label

    def _names(self) -> Iterator[str]:
        for at, row in enumerate(self.rows):
            for number, cell in enumerate(row):
                first = re.split("[,<|]", cell.text, maxsplit=1)[0]
                is_name = WORD.search(first) and not any(map(str.isdigit, first))
                is_short = len(cell.text) <= _MOST_NAME_CHARS and len(first.split()) <= _NAME_WORDS
                is_label = (at, number) in self.governing or first.rstrip().endswith(":")
                if is_name and is_short and not is_label:
                    yield name_of(cell.text)


def _beside(cell: PlacedCell, values: Sequence[CellValue]) -> str:
    """Return the text of a cell without its values: of `2nd reminder`."""
    starts = [cell.start, *(value.end for value in values)]
    ends = [*(value.start for value in values), cell.start + len(cell.text)]
    parts = zip(starts, ends, strict=True)
    return " ".join(cell.text[start - cell.start : end - cell.start] for start, end in parts)


def _whole(cell: PlacedCell, start: int) -> CellValue:
    return CellValue("", cell.text[start - cell.start :], start, cell.start + len(cell.text))
