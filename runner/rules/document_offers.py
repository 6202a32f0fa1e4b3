"""What a document offers to rules: its lines with their values, and what an e-invoice states.

Of a page whose words have boxes, rows and cells are made of these, else of lines: no rule hangs on
a text's notation. A row is cut into what stands for itself: a cell with words and the values behind
it, a value under its head; a row of a table with several values is one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from paddock.engine.system.records import Struct, replace
from paddock.pipelines.checking.schema_parts import SchemaParts
from paddock.pipelines.e_invoices import EInvoice, InvoiceTerm
from paddock.pipelines.text_cells import PlacedCell, SourceText
from paddock.pipelines.text_marks import searchable, shown_text
from paddock.steps.readers.document_kinds import MEDIA_TYPES
from paddock.steps.readers.e_invoice_checks import accounts_in, is_iban

from .cell_values import (
    MARKERS,
    WITH_CENTS,
    WORD,
    CellValue,
    OfferedLine,
    OfferedValue,
    is_currency,
    key_of,
    name_of,
    values_in,
    words_of,
)
from .offers import Offers
from .reasons import WhyOpen

_MAILS = (MEDIA_TYPES["eml"], MEDIA_TYPES["msg"])
_SELF_BILLED = frozenset(("261", "389", "471", "473", "500", "501", "502", "527"))
_NO_BILL = frozenset(("130", "325", "457", "817"))
"""Codes of UNTDID 1001: a data sheet, a proforma invoice, a reversal of debit, a claim."""
_MOST_CHARS = 300_000  # of a text; of a longer document no rule is made
_MOST_CHOICES = 40  # of a field whose words are looked for in a text
_MOST_NAME_CHARS, _NAME_WORDS = 100, 8
_HEADER = re.compile(r"(?:[\w-]+: .*\n)+\n")
_SENT = re.compile(r"(?:date|message-id): ", re.IGNORECASE)  # a mail is sent on another day


def offers_of(
    sources: Iterable[SourceText],
    terms: Mapping[str, InvoiceTerm] | None = None,
    schema: Any = None,
) -> Offers:
    """Return what the only document of some sources offers; of several, or a long one, nothing.

    `terms`: the fields of an answer that an e-invoice states, with its terms; `schema`: its JSON
    Schema, whose choices a mail around the e-invoice must not name.
    """
    documents = [source for source in sources if source.text.strip()]
    if len(documents) != 1:
        return Offers(unread=WhyOpen.SEVERAL_DOCUMENTS)
    (source,) = documents
    is_long = len(source.text) > _MOST_CHARS
    offers = Offers(unread=WhyOpen.TOO_LONG) if is_long else _offers_of_cells(source)
    text, terms = shown_text(source.text[:_MOST_CHARS]), terms or {}
    invoice = source.invoices[0] if len(source.invoices) == 1 else None
    stated = _stated_fields(source, invoice, terms, schema)
    if stated and source.media_type in _MAILS:  # a letter may say what else the mail is
        named = _named_choices(text, SchemaParts.of(schema))
        stated = {n: v for n, v in stated.items() if {*named.get(n, ())} <= {str(v)}}
    proposed = {} if invoice is None else _terms_of(invoice, terms, schema)
    return replace(
        offers,
        seller=invoice["seller"] if invoice is not None and stated else "",
        stated=stated,
        accounts=tuple(accounts_in(text)),
        proposed=proposed,
        unheld={
            name: invoice[term]
            for name, term in (terms if invoice is not None else {}).items()
            if invoice is not None and invoice[term] and name not in proposed
        },
    )


def _offers_of_cells(source: SourceText) -> Offers:
    rows, is_mail = list[list[PlacedCell]](), source.media_type == MEDIA_TYPES["eml"]
    for number, start in enumerate(source.part_starts, 1):
        cells = source.cells(number)
        if any(cell.p is not None and cell.p < 1 for cell in cells):
            return Offers(unread=WhyOpen.OCR)  # which has its own doubts
        header = _HEADER.match(source.text, start) if is_mail else None
        own = [
            cell
            for cell in cells
            if header is None
            or cell.start >= header.end()
            or not _SENT.match(source.text, cell.start)
        ]
        rows += source.rows(own)
    return Offers(tuple(_lines(rows)), tuple(_names(rows)))


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


class _Cell(Struct):
    place: PlacedCell
    values: list[CellValue]
    has_words: bool
    """More than a value and the unit behind it, such as `2 pcs`."""

    @classmethod
    def of(cls, place: PlacedCell) -> _Cell:
        values = values_in(place.text)
        words = key_of(place.text, values).split()
        n_words = sum(map(str.isalnum, words))
        is_unit = n_words < 2 and words[:1] != [] and words[0] in MARKERS.values()
        return cls(place, values, not is_unit and not is_currency(place.text.strip()))

    @property
    def is_pair(self) -> bool:
        """Whether it is words and the value behind them, such as `VAT 20%: 5.00`."""
        is_last = bool(self.values) and self.values[-1].end == len(self.place.text)
        is_led = is_last and self.values[0].start > 0
        return is_led and all(value.kind == "rate" for value in self.values[:-1])

    @property
    def is_label(self) -> bool:
        return self.has_words and all(value.kind == "rate" for value in self.values)


def _lines(rows: Iterable[Sequence[PlacedCell]]) -> Iterator[OfferedLine]:
    heads = list[_Cell]()
    for number, places in enumerate(rows):
        row = [_Cell.of(place) for place in places]
        if heads and not any(cell.has_words for cell in row):
            over = [[h for h in heads if _is_over(h.place, cell.place)] for cell in row]
            if all(len(some) == 1 for some in over):
                under = {id(some[0]): [cell] for some, cell in zip(over, row, strict=True)}
                for head in heads:
                    yield _line(number, [head, *under.get(id(head), ())], is_headed=True)
                heads = []
                continue
        yield from (_line(number - 1, [head]) for head in heads)
        heads = []
        n_valued = sum(bool(cell.values) for cell in row)
        if len(row) > 1 and all(cell.is_label for cell in row):
            heads = row
            continue
        pairs = [[c.has_words for c in row[at : at + 2]] for at in range(0, len(row), 2)]
        is_pairs = all(pair == [True, False] for pair in pairs) or all(c.is_pair for c in row)
        if n_valued > 1 and not is_pairs:
            yield _line(number, row, is_table=True)
            continue
        part = list[_Cell]()
        for cell in row:
            if part and cell.has_words and not part[-1].place.text.endswith(":"):
                yield _line(number, part)
                part = []
            part.append(cell)
        yield _line(number, part)
    yield from (_line(number, [head]) for head in heads)


def _is_over(head: PlacedCell, cell: PlacedCell) -> bool:
    return head.left < cell.right and cell.left < head.right


def _line(
    row: int, cells: Sequence[_Cell], *, is_table: bool = False, is_headed: bool = False
) -> OfferedLine:
    text, values, left = "", list[OfferedValue](), 0.0
    for cell in cells:
        if cell.place.right - cell.place.left == 1 and not is_headed:  # empty cells of a table
            text += " |" * (round(cell.place.left - left) // 1000 - 1)
            left = cell.place.left
        text, base, start = f"{text} " if text else "", len(text) + bool(text), cell.place.start
        values += (
            OfferedValue(
                v.kind,
                v.start + base,
                v.end + base,
                v.written,
                (start + v.digits[0], start + v.digits[1]),
                v.unit,
            )
            for v in cell.values
        )
        text += cell.place.text
    kinds = "".join("w" if cell.has_words else "v" for cell in cells) if is_table else ""
    in_names = [value for cell in cells if cell.has_words for value in cell.values]
    if len(cells) == 1 and len(values) > 2:  # `Rope 2 4.50 9.00`
        last = re.search(f" (?:[{''.join(MARKERS.values())}] ?)+$", key_of(text, values))
        kinds = "w" + "v" * len(last[0].split()) if last is not None else ""
        in_names = in_names[: len(values) - len(kinds) + 1]
    is_struck = searchable(text) != text
    if is_struck or any(WITH_CENTS.search(v.written) or is_iban(v.written) for v in in_names):
        kinds = ""  # its name says more than a name
    return OfferedLine(text, row, cells[0].place.start, tuple(values), kinds)


def _names(rows: Iterable[Sequence[PlacedCell]]) -> Iterator[str]:
    for cell in (cell for row in rows for cell in row):
        first = re.split("[,<|]", cell.text, maxsplit=1)[0]
        is_name = WORD.search(first) and not any(map(str.isdigit, first))
        is_short = len(cell.text) <= _MOST_NAME_CHARS and len(first.split()) <= _NAME_WORDS
        if is_name and is_short and not first.rstrip().endswith(":"):
            yield name_of(cell.text)
