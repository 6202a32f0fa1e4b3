"""An e-invoice as readers find it, `files.read` returns it, and rules and reviews take it.

Texts are empty and amounts None where it has none.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

InvoiceSyntax: TypeAlias = Literal["cii", "ubl", "fatturapa", "ksef"]
InvoiceTerm: TypeAlias = Literal[
    "kind", "number", "date", "due", "currency", "seller", "buyer", "payee", "iban", "reference",
    "net", "tax", "gross", "payable",
]  # fmt: skip
"""What an e-invoice's XML states."""


class InvoiceDisagreement(TypedDict):
    """Two witnesses of an e-invoice that say something else: its XML, its sums, its page."""

    rule: str
    """That of EN 16931, such as `BR-CO-15`; `sum`: a total of an invoice that does not claim to
    follow it; `page`: the printed page shows something else."""
    field: str
    stated: str
    stated_at: str
    """The path in the XML."""
    found: str
    """What the sum is, or what the page shows instead; empty: nothing like it."""
    found_at: str
    """The paths of what was summed, or the line of the page."""
    page: int
    """From 1; 0: of a sum."""


class EInvoice(TypedDict):
    syntax: InvoiceSyntax
    type: str
    """A code of UNTDID 1001: `380`."""
    kind: Literal["invoice", "credit_note", "other"]
    name: str
    number: str
    date: str
    currency: str
    seller: str
    buyer: str
    payee: str
    """Empty: the seller."""
    iban: str
    """Empty where its accounts are none."""
    reference: str
    due: str
    """Empty where it is to be paid in parts by several days."""
    net: float | None
    tax: float | None
    gross: float | None
    payable: float | None
    lines: list[float]
    """The amounts of its items."""
    places: dict[str, str]
    """By field, its path in the XML."""
    seller_vat: str
    terms: str
    """Of payment: `due` is the day in them where nothing else states it."""
    page: int
    """Of the document, from 1: where its lines stand."""
    witnesses: list[Literal["xml", "sums", "page", "mail"]]
    """`sums` and `page`, if there was something to compare; `mail`, if it brings no more."""
    shown: list[str]
    """Its fields that the page shows, too; none where that has a later day or a larger amount."""
    disagreements: list[InvoiceDisagreement]
